//! Property tests: whatever is done to a body, decoding ends without a panic, keeps its bounds,
//! and what is done to one gateway leaves the others as they were.
//!
//! A thousand cases of each by default; `FUZZ_SECONDS=600 cargo test messages::properties` runs
//! on for that time with each.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::{BoxedStrategy, Strategy, any, prop_oneof};
use proptest::sample::{Index, select};
use serde_json::{Map, Value};

use super::{api_error, gateway, gateway_list, key_info, stats, stats_batch};
use crate::fuzz;
use crate::model::{ConnectionStats, Gateway, Location};
use crate::things_stack::messages::field_errors::FieldErrors;

const CASES: u32 = 1_000;
/// Stands where a mutation goes.
const HOLE: &str = "the-hole";

const GATEWAY: &str = r#"{"ids":{"gateway_id":"ID","eui":"58A0CBFFFE800102"},
"created_at":"2019-06-05T10:00:00Z","name":"Roof","attributes":{"a":"b"},
"frequency_plan_ids":["EU_863_870_TTN"],
"gateway_server_address":"eu1.cloud.thethings.network","antennas":[{"gain":3,"location":
{"latitude":52.374,"longitude":4.889,"altitude":12,"source":"SOURCE_REGISTRY"}}]}"#;

const STATS: &str = r#"{"connected_at":"2026-01-02T03:04:05.123456789Z",
"disconnected_at":"2026-01-01T00:00:00Z","protocol":"udp",
"last_status_received_at":"2026-01-02T03:04:06Z","last_uplink_received_at":"2026-01-02T03:04:07Z",
"last_downlink_received_at":"2026-01-02T03:04:07Z",
"last_tx_acknowledgment_received_at":"2026-01-02T03:04:07Z","uplink_count":"9043",
"downlink_count":"7","tx_acknowledgment_count":"7",
"round_trip_times":{"min":"0.068913029s","max":"4.265192138s","median":"0.1s","count":20},
"sub_bands":[{"min_frequency":"863000000","max_frequency":"865000000",
"downlink_utilization_limit":0.001,"downlink_utilization":0.0001},
{"max_frequency":"18446744073709551615"}],"gateway_remote_address":{"ip":"10.0.0.1"},
"last_status":{"time":"2026-01-02T03:04:06Z","boot_time":"2026-01-01T03:04:06Z",
"versions":{"hal":"Version: 5.0.1; Options: native;","platform":"IMST + Rpi"},
"antenna_locations":[{"latitude":52.5,"longitude":4.25,"altitude":3,"source":"SOURCE_GPS"}],
"ip":["10.0.0.1"],"metrics":{"rxok":1,"ackr":100,"temp":34.862,"load_15":0.2},
"advanced":{"model":"x"}}}"#;

/// Values that some field or other takes in the wrong way, or that no field takes.
const HOSTILE: &str = r#"null true 0 -0 -1 1.5 1e999 -1e308 18446744073709551615
18446744073709551616 [] {} [[]] [null] {"":null} {"a":{"a":{}}} "" "\u0000" "\ud800" "\u202e\u0085"
"NaN" "-Infinity" "SOURCE_" "+1" "0001-01-01T00:00:00Z" "9999-12-31T23:59:60Z"
"2026-02-30T00:00:00Z" "2026-01-02T03:04:05.1234567890Z" "-5s" "999999999999s" "9999999999999s"
"gw-a" {"ip":7} {"latitude":90.0000001} "NNSXS.A.B""#;

/// Any JSON, to a small depth mostly and to a great one sometimes.
fn json() -> impl Strategy<Value = String> {
    let hostile: Vec<_> = HOSTILE.split_whitespace().map(str::to_owned).collect();
    let brackets = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let decimal = (0..10_u8, any::<u64>(), 0..400_u16);
    let leaf = prop_oneof![
        any::<u64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| serde_json::json!(number).to_string()),
        decimal.prop_map(|(whole, fraction, exponent)| format!("-{whole}.{fraction}e{exponent}")),
        json_text(),
        select(hostile),
        (0..400_usize).prop_map(|length| format!("\"{}\"", "é".repeat(length))),
        (0..10_u32).prop_map(move |power| brackets(1 << power)),
    ];
    leaf.prop_recursive(2, 256, 128, |part| {
        // Few parts mostly; sometimes more than any bound on elements.
        let count = || prop_oneof![4 => 0..4_usize, 1 => 0..128_usize];
        let member = (json_text(), part.clone()).prop_map(|(key, value)| format!("{key}:{value}"));
        let many =
            |part: BoxedStrategy<String>| count().prop_flat_map(move |n| vec(part.clone(), n));
        prop_oneof![
            many(part.boxed()).prop_map(|parts| format!("[{}]", parts.join(","))),
            many(member.boxed()).prop_map(|parts| format!("{{{}}}", parts.join(","))),
        ]
    })
}

/// A JSON string in the alphabet of moments, durations and numbers, or a known key.
fn json_text() -> impl Strategy<Value = String> {
    let keys = ["latitude", "source", "min", "ip", "hal", "min_frequency"];
    let keys = keys.map(str::to_owned).to_vec();
    let letters: Vec<char> = "0123456789-:.TZs+eEnN aIy".chars().collect();
    let word = vec(select(letters), 0..36).prop_map(String::from_iter);
    prop_oneof![1 => select(keys), 2 => word].prop_map(|text| format!("\"{text}\""))
}

/// The JSON with one of its parts, whichever, replaced.
fn with_a_hole(document: &str) -> impl Strategy<Value = String> + use<> {
    let document: Value = serde_json::from_str(document).expect("the test's own JSON");
    (vec(any::<Index>(), 0..5), json()).prop_map(move |(path, filling)| {
        let mut document = document.clone();
        *part_of(&mut document, &path) = Value::from(HOLE);
        document
            .to_string()
            .replace(&format!("\"{HOLE}\""), &filling)
    })
}

/// Where the path leads, or as far as there are parts.
fn part_of<'v>(value: &'v mut Value, path: &[Index]) -> &'v mut Value {
    let length = value.as_object().map_or(0, Map::len) + value.as_array().map_or(0, Vec::len);
    let (Some((step, path)), 1..) = (path.split_first(), length) else {
        return value;
    };
    let index = step.index(length);
    let part = match value {
        Value::Object(object) => object.values_mut().nth(index),
        other => other.get_mut(index),
    };
    part_of(part.expect("below the length"), path)
}

fn list_of(middle: &str) -> String {
    let [first, last] = ["gw-a", "gw-c"].map(|id| GATEWAY.replace("ID", id));
    format!("{{\"gateways\":[{first},{middle},{last}]}}")
}

fn batch_of(middle: &str) -> String {
    format!("{{\"entries\":{{\"gw-a\":{STATS},\"gw-b\":{middle},\"gw-c\":{STATS}}}}}")
}

const IDS: [&str; 3] = ["gw-a", "gw-b", "gw-c"];

/// Every decoder on a body that may be anything.
fn decode_all(body: &[u8]) {
    let mut field_errors = FieldErrors::default();
    if let Ok(page) = gateway_list(body, &mut field_errors) {
        assert!(page.gateways.len() <= page.entries);
        page.gateways.iter().for_each(check_gateway);
    }
    if let Ok(gateway) = gateway(body, &mut field_errors) {
        check_gateway(&gateway);
    }
    let batch = stats_batch(&IDS, body, &mut field_errors).unwrap_or_default();
    batch.values().for_each(check_stats);
    if let Ok(stats) = stats("gw-b", body, &mut field_errors) {
        check_stats(&stats);
    }
    if let Ok(info) = key_info(body, true) {
        assert!(info.missing_rights.len() <= 2);
    }
    if let Some(error) = api_error(body) {
        assert!(error.message.chars().count() <= 201);
        assert!(!error.message.contains(char::is_control));
    }
    check_field_errors(&field_errors);
}

fn check_gateway(gateway: &Gateway) {
    assert!(super::is_gateway_id(&gateway.gateway_id));
    check_text(&gateway.name);
    check_text(&gateway.gateway_server_address);
    assert!(gateway.frequency_plan_ids.len() <= 8);
    gateway
        .frequency_plan_ids
        .iter()
        .for_each(|p| check_text(p));
    check_locations(&gateway.antennas);
}

fn check_stats(stats: &ConnectionStats) {
    check_text(&stats.protocol);
    check_text(&stats.remote_ip);
    for moment in [stats.connected_at, stats.disconnected_at]
        .into_iter()
        .flatten()
    {
        assert!(moment.seconds > 0 && moment.nanoseconds < 1_000_000_000);
    }
    let bands = stats.sub_bands.iter();
    let bands: BTreeMap<_, _> = bands
        .map(|b| ((b.min_frequency, b.max_frequency), b))
        .collect();
    assert!(bands.len() == stats.sub_bands.len() && bands.len() <= 32);
    let Some(status) = &stats.last_status else {
        return;
    };
    assert!(status.versions.len() <= 16 && status.metrics.len() <= 64);
    assert!(status.versions.is_sorted_by(|a, b| a.0 < b.0));
    assert!(status.metrics.is_sorted_by(|a, b| a.0 < b.0));
    status.versions.iter().for_each(|(name, version)| {
        check_text(name);
        check_text(version);
    });
    status.metrics.iter().for_each(|(name, _)| check_text(name));
    check_locations(&status.antenna_locations);
}

fn check_locations(locations: &[Location]) {
    assert!(locations.len() <= 8);
    assert!(locations.is_sorted_by(|a, b| a.antenna < b.antenna));
    for location in locations {
        check_text(&location.source);
        assert!(location.latitude.abs() <= 90.0 && location.longitude.abs() <= 180.0);
        assert!(location.altitude.is_finite());
    }
}

fn check_text(text: &str) {
    assert!(text.len() <= 256);
}

fn check_field_errors(field_errors: &FieldErrors) {
    assert!(field_errors.iter().count() <= 40);
    for error in field_errors.iter() {
        assert!(error.count > 0 && error.found.chars().count() <= 65);
        assert!(!error.found.contains(char::is_control));
    }
}

#[test]
fn damaged_bodies_end_without_a_panic_and_within_bounds() {
    let bodies = [
        list_of(&GATEWAY.replace("ID", "gw-b")),
        batch_of(STATS),
        STATS.to_owned(),
        GATEWAY.replace("ID", "gw-b"),
        r#"{"code":7,"message":"error:a:b (c)","details":[{"name":"b"}]}"#.to_owned(),
        r#"{"api_key":{"api_key":{"rights":["RIGHT_GATEWAY_ALL"]}}}"#.to_owned(),
    ];
    const PIECES: [&[u8]; 12] = [
        b"{", b"}", b"[", b"]", b"\"", b",", b":", b"\\", b"0", b"-", b"e", b"u",
    ];
    let bodies = fuzz::mutations(bodies.map(String::into_bytes).to_vec(), &PIECES);
    fuzz::check(CASES, bodies, |body| decode_all(&body));
}

#[test]
fn random_json_ends_without_a_panic_and_within_bounds() {
    let frames = vec![
        "@",
        "{\"gateways\":@}",
        "{\"entries\":@}",
        "{\"message\":@,\"code\":7}",
    ];
    fuzz::check(CASES, (select(frames), json()), |(frame, json)| {
        decode_all(frame.replace('@', &json).as_bytes());
    });
}

#[test]
fn a_wild_value_in_one_listed_gateway_leaves_the_others_as_they_were() {
    let mut intact = FieldErrors::default();
    let body = list_of("{}");
    let expected = gateway_list(body.as_bytes(), &mut intact).expect("a list");
    let middle = with_a_hole(&GATEWAY.replace("ID", "gw-b"));
    fuzz::check(CASES, middle, |middle| {
        let body = list_of(&middle).into_bytes();
        decode_all(&body);
        let mut field_errors = FieldErrors::default();
        let mut page = gateway_list(&body, &mut field_errors).expect("a list");
        assert_eq!(page.entries, 3);
        if page.gateways.len() == 3 {
            page.gateways.remove(1);
        }
        assert_eq!(page.gateways, expected.gateways);
    });
}

#[test]
fn a_wild_value_in_the_stats_of_one_gateway_leaves_the_others_as_they_were() {
    let expected = stats("gw-a", STATS.as_bytes(), &mut FieldErrors::default()).expect("stats");
    assert!(expected.tells_state && expected.uplink_count.is_some());
    fuzz::check(CASES, with_a_hole(STATS), |middle| {
        let body = batch_of(&middle).into_bytes();
        decode_all(&body);
        let mut field_errors = FieldErrors::default();
        let batch = stats_batch(&IDS, &body, &mut field_errors).expect("a batch");
        assert_eq!(batch["gw-a"], expected);
        assert_eq!(batch["gw-c"], expected);
        // One wild value, so most of the gateway itself is left as well.
        let Some(hit) = batch.get("gw-b") else {
            return assert_eq!(field_errors.total(), 0);
        };
        let is_whole = hit.tells_state && hit.uplink_count.is_some();
        assert!(is_whole || field_errors.total() > 0);
    });
}
