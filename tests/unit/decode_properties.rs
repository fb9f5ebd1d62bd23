//! Property tests: whatever is done to a body, decoding ends without a panic, keeps its bounds,
//! and what is done to one gateway leaves the others as they were.
//!
//! A thousand rounds of each by default; `FUZZ_SECONDS=600 cargo test decode::fuzz` runs on for
//! that time with each. A failure prints the body that caused it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::{Map, Value};

use super::{api_error, gateway, gateway_list, rights, stats, stats_batch};
use crate::model::{ConnectionStats, Gateway, Location};
use crate::random::{Random, repeat};
use crate::things_stack::decode::field_errors::FieldErrors;

const ROUNDS: u64 = 1_000;
/// Stands where a mutation goes.
const HOLE: &str = "the-hole";

const GATEWAY: &str = r#"{"ids":{"gateway_id":"ID","eui":"58A0CBFFFE800102"},
"created_at":"2019-06-05T10:00:00Z","name":"Roof","attributes":{"a":"b"},
"frequency_plan_ids":["EU_863_870_TTN"],"frequency_plan_id":"EU_863_870",
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

impl Random {
    fn pick<'t>(&mut self, choices: &[&'t str]) -> &'t str {
        choices[self.below(choices.len())]
    }

    /// Any JSON, to a small depth mostly and to a great one sometimes.
    fn json(&mut self, levels: usize) -> String {
        match self.below(if levels == 0 { 5 } else { 9 }) {
            0 => format!("{}", self.next()),
            1 => format!("-{}.{}e{}", self.below(10), self.next(), self.below(400)),
            2 => self.json_text(),
            3 | 4 => {
                let hostile: Vec<_> = HOSTILE.split_whitespace().collect();
                self.pick(&hostile).to_owned()
            }
            5 => {
                let depth = 1 << self.below(10);
                format!("{}{}", "[".repeat(depth), "]".repeat(depth))
            }
            6 => format!("\"{}\"", "é".repeat(self.below(400))),
            7 => {
                let elements = (0..self.members()).map(|_| self.json(levels - 1));
                format!("[{}]", elements.collect::<Vec<_>>().join(","))
            }
            _ => {
                let members = (0..self.members()).map(|_| {
                    let key = self.json_text();
                    format!("{key}:{}", self.json(levels - 1))
                });
                format!("{{{}}}", members.collect::<Vec<_>>().join(","))
            }
        }
    }

    /// Few mostly; sometimes more than any bound on elements.
    fn members(&mut self) -> usize {
        let limit = 1 << self.below(8);
        self.below(limit)
    }

    /// A JSON string in the alphabet of moments, durations and numbers, or a known key.
    fn json_text(&mut self) -> String {
        const KEYS: [&str; 6] = ["latitude", "source", "min", "ip", "hal", "min_frequency"];
        const ALPHABET: &[u8] = b"0123456789-:.TZs+eEnN aIy";
        if self.below(3) == 0 {
            return format!("\"{}\"", self.pick(&KEYS));
        }
        let letters = (0..self.below(36)).map(|_| char::from(ALPHABET[self.below(ALPHABET.len())]));
        format!("\"{}\"", letters.collect::<String>())
    }

    /// Flips, removes, doubles or replaces some bytes, or cuts the end off.
    fn damage(&mut self, body: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            if body.is_empty() {
                return;
            }
            let at = self.below(body.len());
            match self.below(6) {
                0 => body.truncate(at),
                1 => body[at] ^= 1 << self.below(8),
                2 => body[at] = b"{}[]\",:\\0-eu"[self.below(12)],
                3 => drop(body.remove(at)),
                4 => {
                    let to = body.len().min(at + self.below(40));
                    let copy = body[at..to].to_vec();
                    body.splice(at..at, copy);
                }
                _ => {
                    let to = body.len().min(at + self.below(40));
                    body.drain(at..to);
                }
            }
        }
    }

    /// The JSON with one of its parts, whichever, replaced.
    fn with_a_hole(&mut self, json: &str) -> String {
        let mut value: Value = serde_json::from_str(json).expect("the test's own JSON");
        *self.part_of(&mut value) = Value::from(HOLE);
        let filling = self.json(2);
        value.to_string().replace(&format!("\"{HOLE}\""), &filling)
    }

    fn part_of<'v>(&mut self, value: &'v mut Value) -> &'v mut Value {
        let length = value.as_object().map_or(0, Map::len) + value.as_array().map_or(0, Vec::len);
        if length == 0 || self.below(4) == 0 {
            return value;
        }
        let index = self.below(length);
        let part = match value {
            Value::Object(object) => object.values_mut().nth(index),
            other => other.get_mut(index),
        };
        self.part_of(part.expect("below the length"))
    }
}

/// Makes bodies and checks each; one that fails is shown.
fn fuzz(body: impl Fn(&mut Random) -> Vec<u8>, check: impl Fn(&[u8])) {
    repeat(ROUNDS, |random| {
        let body = body(random);
        let outcome = catch_unwind(AssertUnwindSafe(|| check(&body)));
        assert!(outcome.is_ok(), "{}", String::from_utf8_lossy(&body));
    });
}

fn list_of(middle: &str) -> String {
    let [first, last] = ["gw-a", "gw-c"].map(|id| GATEWAY.replace("ID", id));
    format!("{{\"gateways\":[{first},{middle},{last}]}}")
}

fn batch_of(middle: &str) -> String {
    format!("{{\"entries\":{{\"gw-a\":{STATS},\"gw-b\":{middle},\"gw-c\":{STATS}}}}}")
}

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
    let batch = stats_batch(body, &mut field_errors).unwrap_or_default();
    batch.values().for_each(check_stats);
    if let Ok(stats) = stats("gw-b", body, &mut field_errors) {
        check_stats(&stats);
    }
    assert!(rights(body).unwrap_or_default().len() <= 256);
    if let Some(error) = api_error(body) {
        assert!(error.message.chars().count() <= 201);
        assert!(!error.message.contains(char::is_control));
    }
    check_faults(&field_errors);
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

fn check_faults(field_errors: &FieldErrors) {
    assert!(field_errors.iter().count() <= 40);
    for fault in field_errors.iter() {
        assert!(fault.count > 0 && fault.found.chars().count() <= 65);
        assert!(!fault.found.contains(char::is_control));
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
    let round = |random: &mut Random| {
        let mut body = bodies[random.below(bodies.len())].clone().into_bytes();
        random.damage(&mut body);
        body
    };
    fuzz(round, decode_all);
}

#[test]
fn random_json_ends_without_a_panic_and_within_bounds() {
    let round = |random: &mut Random| {
        let frames = [
            "@",
            "{\"gateways\":@}",
            "{\"entries\":@}",
            "{\"message\":@,\"code\":7}",
        ];
        let frame = random.pick(&frames);
        frame.replace('@', &random.json(2)).into_bytes()
    };
    fuzz(round, decode_all);
}

#[test]
fn a_wild_value_in_one_listed_gateway_leaves_the_others_as_they_were() {
    let round = |random: &mut Random| {
        let middle = random.with_a_hole(&GATEWAY.replace("ID", "gw-b"));
        list_of(&middle).into_bytes()
    };
    let mut intact = FieldErrors::default();
    let body = list_of("{}");
    let expected = gateway_list(body.as_bytes(), &mut intact).expect("a list");
    fuzz(round, |body| {
        decode_all(body);
        let mut field_errors = FieldErrors::default();
        let mut page = gateway_list(body, &mut field_errors).expect("a list");
        assert_eq!(page.entries, 3);
        if page.gateways.len() == 3 {
            page.gateways.remove(1);
        }
        assert_eq!(page.gateways, expected.gateways);
    });
}

#[test]
fn a_wild_value_in_the_stats_of_one_gateway_leaves_the_others_as_they_were() {
    let round = |random: &mut Random| batch_of(&random.with_a_hole(STATS)).into_bytes();
    let expected = stats("gw-a", STATS.as_bytes(), &mut FieldErrors::default()).expect("stats");
    assert_eq!(expected.unreadable, [""; 0]);
    fuzz(round, |body| {
        decode_all(body);
        let mut field_errors = FieldErrors::default();
        let batch = stats_batch(body, &mut field_errors).expect("a batch");
        assert_eq!(batch["gw-a"], expected);
        assert_eq!(batch["gw-c"], expected);
        // One wild value, so most of the gateway itself is left as well.
        let Some(hit) = batch.get("gw-b") else {
            return assert_eq!(field_errors.total(), 0);
        };
        let is_whole = hit.tells_state() && hit.is_readable("uplink_count");
        assert!(is_whole || field_errors.total() > 0);
    });
}
