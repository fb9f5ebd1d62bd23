//! What a gateway's state becomes: each form of the API's answer and its samples.

use serde_json::{Value, json};

use crate::fake::{Endpoint, Fake, Fleet, Gateway, Misbehaviour, hostile};
use crate::harness::Exporter;
use crate::harness::samples::{Scrape, label};

/// 2024-11-20T12:00:00Z.
const NOON: i64 = 1_732_104_000;

fn scrape_of(gateway: Gateway) -> Scrape {
    let fake = Fake::start(Fleet::of([gateway]));
    Exporter::start(&fake).scrape()
}

fn scrape_with(stats: Value) -> Scrape {
    scrape_of(Gateway::new("gw-1").with_stats(stats))
}

#[test]
fn a_gateway_is_connected_only_while_it_is() {
    let mut fleet = hostile::fleet(NOON);
    fleet
        .gateways
        .retain(|gateway| gateway.cluster_host().is_empty());
    fleet.reindex();
    let fake = Fake::start(fleet);
    let scrape = Exporter::start(&fake).scrape();
    for (id, connected) in [
        ("rooftop-kerlink-01", 1.0),
        ("library-laird-rg1xx", 1.0),
        ("farm-ttkg", 1.0),
        ("harbour-rak7268", 0.0),
        ("spare-in-the-drawer", 0.0),
        ("flapping-and-back", 1.0),
        ("flapping-and-gone", 0.0),
        ("school-project", 1.0),
    ] {
        scrape.assert_of("ttn_gateway_connected", id, Some(connected));
        scrape.assert_of("ttn_gateway_scrape_success", id, Some(1.0));
    }
    scrape.assert_value("ttn_up", 1.0);
    let count = |state| scrape.value_with("ttn_exporter_gateways", &[("state", state)]);
    assert_eq!(
        [count("connected"), count("disconnected"), count("unknown")],
        [5.0, 3.0, 0.0]
    );
}

#[test]
fn a_gateway_that_left_keeps_its_last_figures_and_is_not_connected() {
    let scrape = scrape_with(json!({
        "disconnected_at": "2024-11-20T09:00:00Z",
        "last_uplink_received_at": "2024-11-20T08:59:51Z",
        "uplink_count": "40211",
        "protocol": "udp",
    }));
    scrape.assert_of("ttn_gateway_connected", "gw-1", Some(0.0));
    let left_at = Some((NOON - 3 * 3600) as f64);
    scrape.assert_of(
        "ttn_gateway_disconnected_timestamp_seconds",
        "gw-1",
        left_at,
    );
    scrape.assert_of("ttn_gateway_connected_timestamp_seconds", "gw-1", None);
    scrape.assert_of("ttn_gateway_uplink_messages_total", "gw-1", Some(40211.0));
}

#[test]
fn a_gateway_that_never_connected_has_no_connection_and_counts_0_for_the_python_script() {
    let scrape = scrape_of(Gateway::new("gw-1"));
    scrape.assert_of("ttn_gateway_connected", "gw-1", Some(0.0));
    scrape.assert_of("ttn_gateway_messages_uplink_count", "gw-1", Some(0.0));
    scrape.assert_of("ttn_gateway_messages_downlink_count", "gw-1", Some(0.0));
    scrape.assert_of("ttn_gateway_uplink_messages_total", "gw-1", None);
    scrape.assert_of("ttn_gateway_connection_info", "gw-1", None);
}

#[test]
fn a_state_that_is_not_known_is_absent_and_not_0() {
    let fake = Fake::start(Fleet::of([Gateway::new("gw-1").connected("udp")]));
    fake.script(Endpoint::StatsBatch, Misbehaviour::status(503));
    fake.script(Endpoint::Stats, Misbehaviour::status(503));
    let scrape = Exporter::start(&fake).scrape();
    scrape.assert_of("ttn_gateway_scrape_success", "gw-1", Some(0.0));
    for metric in [
        "ttn_gateway_connected",
        "ttn_gateway_uplink_messages_total",
        "ttn_gateway_messages_uplink_count",
        "ttn_gateway_messages_downlink_count",
    ] {
        scrape.assert_of(metric, "gw-1", None);
    }
    assert_eq!(scrape.all("ttn_gateway_info").len(), 1);
    scrape.assert_value("ttn_up", 0.0);
    assert_eq!(
        scrape.value_with("ttn_exporter_gateways", &[("state", "unknown")]),
        1.0
    );
}

#[test]
fn counts_are_exact_up_to_the_last_of_64_bits() {
    let scrape = scrape_with(json!({
        "connected_at": "2024-11-20T06:00:00Z",
        "uplink_count": "18446744073709551615",
        "downlink_count": 9007199254740993_u64,
    }));
    for line in [
        r#"ttn_gateway_uplink_messages_total{gateway_id="gw-1"} 18446744073709551615"#,
        r#"ttn_gateway_downlink_messages_total{gateway_id="gw-1"} 9007199254740993"#,
        r#"ttn_gateway_tx_acknowledgments_total{gateway_id="gw-1"} 0"#,
    ] {
        scrape.assert(scrape.text.lines().any(|l| l == line), line);
    }
}

#[test]
fn the_years_1_and_1970_are_no_times() {
    let scrape = scrape_with(json!({
        "connected_at": "2024-11-20T06:00:00.25Z",
        "last_uplink_received_at": "0001-01-01T00:00:00Z",
        "last_downlink_received_at": "1970-01-01T00:00:00Z",
        "last_status": { "time": "1970-01-01T00:00:00Z", "boot_time": "0001-01-01T00:00:00Z" },
    }));
    let connected_at = Some((NOON - 6 * 3600) as f64 + 0.25);
    scrape.assert_of(
        "ttn_gateway_connected_timestamp_seconds",
        "gw-1",
        connected_at,
    );
    for metric in [
        "ttn_gateway_last_uplink_received_timestamp_seconds",
        "ttn_gateway_last_downlink_received_timestamp_seconds",
        "ttn_gateway_status_timestamp_seconds",
        "ttn_gateway_boot_timestamp_seconds",
    ] {
        scrape.assert_of(metric, "gw-1", None);
    }
}

#[test]
fn a_field_of_another_form_costs_that_field_alone() {
    let fake = Fake::start(Fleet::of([
        Gateway::new("gw-1").connected("udp").stats_with(json!({
            "uplink_count": { "many": true },
            "round_trip_times": [1, 2],
            "last_status_received_at": "yesterday",
            "a_field_of_the_future": { "deep": [[[[1]]]] },
        })),
        Gateway::new("gw-2").connected("ws"),
    ]));
    let exporter = Exporter::start(&fake);
    let scrape = exporter.scrape();
    scrape.assert_of("ttn_gateway_connected", "gw-1", Some(1.0));
    scrape.assert_of("ttn_gateway_downlink_messages_total", "gw-1", Some(212.0));
    scrape.assert_of(
        "ttn_gateway_last_status_received_timestamp_seconds",
        "gw-1",
        None,
    );
    scrape.assert_of("ttn_gateway_uplink_messages_total", "gw-2", Some(9043.0));
    assert_eq!(scrape.errors("field"), 3.0, "{scrape}");
    scrape.assert_value("ttn_up", 1.0);
}

#[test]
fn hostile_names_stay_inside_their_labels() {
    let names = [
        "\"quoted\"",
        "back\\slash",
        "two\nlines\n# TYPE ttn_up counter\nttn_up 7",
        "🚀 é \u{202e}rtl",
        "<script>alert(1)</script>",
        "\\\"\n",
        "",
        "tab\tand\u{0}nul\r\n",
    ];
    let gateways = names.iter().enumerate();
    let gateways = gateways.map(|(at, name)| Gateway::new(&format!("gw-{at}")).named(name));
    let fake = Fake::start(Fleet::of(gateways));
    let scrape = Exporter::start(&fake).scrape();
    let infos = scrape.all("ttn_gateway_info");
    let shown: Vec<_> = infos
        .iter()
        .map(|info| label(info, "name").unwrap())
        .collect();
    assert_eq!(shown, names);
    scrape.assert_value("ttn_up", 1.0);
}

#[test]
fn gateways_come_sorted_whatever_the_order_of_the_list() {
    let ids = ["zz", "gw-10", "gw-2", "a0", "gw-1"];
    let gateways = ids.map(|id| Gateway::new(&format!("{id}-x")).connected("udp"));
    let fake = Fake::start(Fleet::of(gateways));
    let scrape = Exporter::start(&fake).scrape();
    let samples = scrape.all("ttn_gateway_connected");
    let shown: Vec<_> = samples
        .iter()
        .map(|s| label(s, "gateway_id").unwrap())
        .collect();
    assert!(shown.is_sorted() && shown.len() == ids.len(), "{shown:?}");
}

/// A sample of the full gateway: metric, further labels, value.
type Figure<'a> = (&'a str, &'a [(&'a str, &'a str)], f64);

#[track_caller]
fn check_figures(figures: &[Figure<'_>]) {
    let id = "rooftop-kerlink-01";
    let mut gateway = hostile::fleet(NOON).gateway(id).unwrap().clone();
    gateway.motion = None;
    let scrape = scrape_of(gateway);
    for (metric, labels, expected) in figures {
        let labels = [&[("gateway_id", id)], *labels].concat();
        let value = scrape.value_with(metric, &labels);
        assert_eq!(value, *expected, "{metric}\n{scrape}");
    }
}

#[test]
#[rustfmt::skip]
fn each_figure_of_a_connection_is_there() {
    let band = [("min_frequency_hertz", "868000000"), ("max_frequency_hertz", "868600000")];
    let open = [
        ("min_frequency_hertz", "870000000"),
        ("max_frequency_hertz", "18446744073709551615"),
    ];
    let link = [("protocol", "udp"), ("remote_ip", "203.0.113.7")];
    check_figures(&[
        ("ttn_gateway_connection_info", &link, 1.0),
        ("ttn_gateway_round_trip_time_min_seconds", &[], 0.039869297),
        ("ttn_gateway_round_trip_time_median_seconds", &[], 0.068913029),
        ("ttn_gateway_round_trip_time_max_seconds", &[], 4.265192138),
        ("ttn_gateway_round_trip_time_samples", &[], 20.0),
        ("ttn_gateway_sub_band_downlink_utilization_ratio", &band, 0.0031205556),
        ("ttn_gateway_sub_band_downlink_utilization_limit_ratio", &band, 0.01),
        ("ttn_gateway_sub_band_downlink_utilization_ratio", &open, 0.0),
        ("ttn_gateway_messages_uplink_count", &[], 9043.0),
        ("ttn_gateway_tx_acknowledgments_total", &[], 200.0),
        (
            "ttn_gateway_last_tx_acknowledgment_received_timestamp_seconds",
            &[],
            (NOON - 69) as f64,
        ),
    ]);
}

#[test]
#[rustfmt::skip]
fn each_figure_that_a_gateway_gives_of_itself_is_there() {
    let platform = [("component", "platform"), ("version", "IMST + Rpi")];
    check_figures(&[
        ("ttn_gateway_antenna_latitude_degrees", &[("source", "registry")], 52.37403),
        ("ttn_gateway_antenna_longitude_degrees", &[("source", "gps")], 4.88978),
        ("ttn_gateway_antenna_altitude_meters", &[("source", "gps")], 29.0),
        ("ttn_gateway_status_metric", &[("metric", "temp")], 34.862),
        ("ttn_gateway_version_info", &platform, 1.0),
        ("ttn_gateway_status_timestamp_seconds", &[], (NOON - 20) as f64),
    ]);
}
