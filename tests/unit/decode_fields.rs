//! What the fields of one gateway give, and what a bad one of them costs.

use std::time::Duration;

use super::tests::lines;
use super::{gateway, stats};
use crate::examples::{empty_stats, timestamp};
use crate::model::{
    ConnectionStats, Gateway, GatewayStatus, Location, RoundTripTimes, SubBand, Timestamp,
};
use crate::things_stack::messages::field_errors::FieldErrors;

/// Makes the object stats.
const TIME: &str = r#""disconnected_at":"1970-01-01T00:00:01Z""#;

fn moment(seconds: i64, nanoseconds: u32) -> Option<Timestamp> {
    Some(Timestamp {
        seconds,
        nanoseconds,
    })
}

fn location(antenna: usize, source: &str, degrees: (f64, f64), altitude: f64) -> Location {
    Location {
        antenna,
        source: source.to_owned(),
        latitude: degrees.0,
        longitude: degrees.1,
        altitude,
    }
}

/// What the fields of a gateway give, beside its id.
#[track_caller]
fn check_gateway(fields: &str, expected: Gateway, expected_errors: &[&str]) {
    let mut field_errors = FieldErrors::default();
    let body = format!("{{\"ids\":{{\"gateway_id\":\"gw-1\"}},{fields}}}");
    let found = gateway(body.as_bytes(), &mut field_errors).expect("a gateway");
    let gateway_id = "gw-1".to_owned();
    let expected = Gateway {
        gateway_id,
        ..expected
    };
    assert_eq!(found, expected, "{fields}");
    assert_eq!(lines(&field_errors), expected_errors, "{fields}");
}

/// What the fields of the stats give, beside the time of a disconnect where they have none.
#[track_caller]
fn check_stats(fields: &str, expected: ConnectionStats, expected_errors: &[&str]) {
    let mut field_errors = FieldErrors::default();
    let body = format!("{{{fields},{TIME}}}");
    let mut expected = expected;
    if !fields.contains("disconnected_at") {
        expected.disconnected_at = timestamp(1);
    }
    let found = stats("gw-1", body.as_bytes(), &mut field_errors).expect("stats");
    assert_eq!(found, expected, "{fields}");
    assert_eq!(lines(&field_errors), expected_errors, "{fields}");
    for error in field_errors.iter() {
        assert_eq!(error.gateway_id, "gw-1");
    }
}

#[test]
fn a_registered_gateway_gives_all_that_is_used_of_it() {
    let fields = r#""created_at":"2019-06-05T10:00:00Z","name":"Roof \"north\"\n☂",
        "gateway_server_address":"eu1.cloud.thethings.network","attributes":{"a":"b"},
        "frequency_plan_ids":["EU_863_870_TTN","EU_863_870_TTN",""],
        "antennas":[{"gain":3,"location":{"latitude":52.37403,"longitude":4.88969,
        "altitude":12,"source":"SOURCE_REGISTRY"},"placement":"OUTDOOR"},{"gain":2},
        {"location":{}},{"location":{"latitude":0,"longitude":0}},
        {"location":{"longitude":-4.5}}]"#;
    let expected = Gateway {
        name: "Roof \"north\"\n☂".to_owned(),
        gateway_server_address: "eu1.cloud.thethings.network".to_owned(),
        frequency_plan_ids: vec!["EU_863_870_TTN".to_owned()],
        antennas: vec![
            location(0, "registry", (52.37403, 4.88969), 12.0),
            location(4, "registry", (0.0, -4.5), 0.0),
        ],
        ..Gateway::default()
    };
    check_gateway(fields, expected, &[]);
    check_gateway(r#""name":null,"antennas":null"#, Gateway::default(), &[]);
}

#[test]
fn a_bad_field_of_a_gateway_costs_that_field() {
    let fields = r#""name":["x"],"gateway_server_address":7,"frequency_plan_ids":["A",1,null],
        "antennas":[{"location":{"latitude":91,"longitude":1}},null,"x",{"location":[]},
        {"location":{"latitude":1,"longitude":2,"altitude":"NaN"}},
        {"location":{"latitude":1,"longitude":2,"source":5}}]"#;
    let expected = Gateway {
        frequency_plan_ids: vec!["A".to_owned()],
        antennas: vec![location(5, "registry", (1.0, 2.0), 0.0)],
        ..Gateway::default()
    };
    let field_errors = [
        "antennas 1×\"x\"",
        "antennas.location 4×91",
        "frequency_plan_ids 1×1",
        "gateway_server_address 1×7",
        "name 1×[\"x\"]",
    ];
    check_gateway(fields, expected, &field_errors);
    let plans: Vec<String> = (0..8).map(|n| format!("P{n}")).collect();
    let expected = Gateway {
        frequency_plan_ids: plans.clone(),
        ..Gateway::default()
    };
    let many = format!(
        "\"frequency_plan_ids\":{:?}",
        [plans, vec!["P9".to_owned()]].concat()
    );
    check_gateway(&many, expected, &["frequency_plan_ids 1×\"too many\""]);
}

#[test]
fn connection_stats_give_all_that_is_used_of_them() {
    let fields = r#""connected_at":"2026-01-02T03:04:05.123456789Z","protocol":"udp",
        "last_status_received_at":"2026-01-02T03:04:06Z","uplink_count":"9043",
        "last_uplink_received_at":"2026-01-02T03:04:07.5Z","downlink_count":"18446744073709551615",
        "disconnected_at":"0001-01-01T00:00:00Z","a_newer_field":{"x":[1]},
        "round_trip_times":{"min":"0.068913029s","max":"4.265192138s","median":"5s","count":20},
        "sub_bands":[{"max_frequency":"18446744073709551615","downlink_utilization":0.25},
        {"min_frequency":"863000000","max_frequency":865000000,
        "downlink_utilization_limit":0.001},
        {"min_frequency":863000000,"max_frequency":"865000000"}],
        "gateway_remote_address":{"ip":"2001:db8::1"},
        "last_status":{"time":"2026-01-02T03:04:06Z","boot_time":"1970-01-01T00:00:00Z",
        "versions":{"ttn-lw-gateway-server":"3.32.1","hal":"Version: 5.0.1; Options: native;"},
        "antenna_locations":[{"latitude":52.5,"longitude":4.25,"source":"SOURCE_GPS"},{},
        {"altitude":3}],"ip":["10.0.0.1"],"metrics":{"temp":34.862,"ackr":100,"rxok":null},
        "advanced":{"deep":[[[]]]}}"#;
    let band = |min_frequency, max_frequency, limit, used| SubBand {
        min_frequency,
        max_frequency,
        downlink_utilization_limit: limit,
        downlink_utilization: used,
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let expected = ConnectionStats {
        connected_at: moment(1_767_323_045, 123_456_789),
        protocol: "udp".to_owned(),
        last_status_received_at: moment(1_767_323_046, 0),
        last_uplink_received_at: moment(1_767_323_047, 500_000_000),
        uplink_count: Some(9043),
        downlink_count: Some(u64::MAX),
        round_trip_times: Some(RoundTripTimes {
            min: Duration::new(0, 68_913_029),
            max: Duration::new(4, 265_192_138),
            median: Duration::new(5, 0),
            count: 20,
        }),
        sub_bands: vec![
            band(0, u64::MAX, 0.0, 0.25),
            band(863_000_000, 865_000_000, 0.001, 0.0),
        ],
        last_status: Some(GatewayStatus {
            time: moment(1_767_323_046, 0),
            boot_time: None,
            versions: vec![
                pair("hal", "Version: 5.0.1; Options: native;"),
                pair("ttn-lw-gateway-server", "3.32.1"),
            ],
            antenna_locations: vec![
                location(0, "gps", (52.5, 4.25), 0.0),
                location(2, "unknown", (0.0, 0.0), 3.0),
            ],
            metrics: vec![("ackr".to_owned(), 100.0), ("temp".to_owned(), 34.862)],
        }),
        remote_ip: "2001:db8::1".to_owned(),
        ..empty_stats()
    };
    check_stats(fields, expected, &[]);
}

#[test]
fn stats_that_say_nothing_give_nothing() {
    check_stats(r#""uplink_count":"0""#, empty_stats(), &[]);
    let empty = r#""round_trip_times":{},"sub_bands":[],"gateway_remote_address":{}"#;
    check_stats(empty, empty_stats(), &[]);
}

#[test]
fn a_bad_field_of_the_stats_costs_that_field() {
    let fields = r#""connected_at":5,"protocol":"ws","uplink_count":-1,"downlink_count":"1.5",
        "tx_acknowledgment_count":"3","round_trip_times":{"min":"-1s","max":"1s","count":2},
        "sub_bands":[{"min_frequency":"x"},{"min_frequency":1},{"downlink_utilization":[]},3],
        "gateway_remote_address":{"ip":"no"},
        "last_status":{"time":"now","versions":{"a":1,"b":"2"},"metrics":{"x":"y","z":"NaN0",
        "ok":1},"antenna_locations":[{"latitude":"N"},{"latitude":1}]}"#;
    let expected = ConnectionStats {
        protocol: "ws".to_owned(),
        uplink_count: None,
        downlink_count: None,
        tx_acknowledgment_count: Some(3),
        tells_state: false,
        sub_bands: vec![SubBand {
            min_frequency: 1,
            ..SubBand::default()
        }],
        last_status: Some(GatewayStatus {
            versions: vec![("b".to_owned(), "2".to_owned())],
            metrics: vec![("ok".to_owned(), 1.0)],
            antenna_locations: vec![location(1, "unknown", (1.0, 0.0), 0.0)],
            ..GatewayStatus::default()
        }),
        ..empty_stats()
    };
    let field_errors = [
        "connected_at 1×5",
        "downlink_count 1×\"1.5\"",
        "gateway_remote_address.ip 1×\"no\"",
        "last_status.antenna_locations 1×\"N\"",
        "last_status.metrics 2×\"y\"",
        "last_status.time 1×\"now\"",
        "last_status.versions 1×1",
        "round_trip_times.min 1×\"-1s\"",
        "sub_bands 1×3",
        "sub_bands.downlink_utilization 1×[]",
        "sub_bands.min_frequency 1×\"x\"",
        "uplink_count 1×-1",
    ];
    check_stats(fields, expected, &field_errors);
    let status = r#""last_status":"up","sub_bands":{},"round_trip_times":[],"uplink_count":0"#;
    let field_errors = [
        "last_status 1×\"up\"",
        "round_trip_times 1×[]",
        "sub_bands 1×{}",
    ];
    check_stats(status, empty_stats(), &field_errors);
}

#[test]
fn maps_and_arrays_are_bounded_and_each_excess_is_one_field_error() {
    let map = |n: usize, value| {
        let entries = (0..n).map(|i| format!("\"{}{i:03}\":{value}", "k".repeat(9)));
        entries.collect::<Vec<_>>().join(",")
    };
    let bands: Vec<_> = (0..40)
        .map(|n| format!("{{\"min_frequency\":{n}}}"))
        .collect();
    let body = format!(
        "{{{TIME},\"sub_bands\":[{}],\"last_status\":{{\"versions\":{{{}}},\"metrics\":{{{}}},
        \"antenna_locations\":[{}]}}}}",
        bands.join(","),
        map(40, "\"1\""),
        map(90, "1"),
        ["{\"altitude\":1}"; 12].join(","),
    );
    let mut field_errors = FieldErrors::default();
    let found = stats("gw-1", body.as_bytes(), &mut field_errors).expect("stats");
    let status = found.last_status.expect("a status");
    assert_eq!(found.sub_bands.len(), 32);
    assert_eq!((status.versions.len(), status.metrics.len()), (16, 64));
    assert_eq!(status.antenna_locations.len(), 8);
    assert_eq!(field_errors.total(), 4);
    let alike = format!(
        "\"last_status\":{{\"metrics\":{{{0}a\":1,{0}b\":2}}}}",
        format!("\"{}", "k".repeat(256))
    );
    let expected = ConnectionStats {
        last_status: Some(GatewayStatus {
            metrics: vec![("k".repeat(256), 1.0)],
            ..GatewayStatus::default()
        }),
        ..empty_stats()
    };
    check_stats(&alike, expected, &[]);
}
