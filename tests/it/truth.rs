//! Down, up or unknown: what counts as an answer of the API, what `ttn_up` says, and that
//! every figure is the one that the server wrote.

use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::fake::wire::Answer;
use crate::fake::{Endpoint, Fake, Fleet, Gateway, Key, Misbehaviour};
use crate::harness::samples::Scrape;
use crate::harness::{Exporter, Setup};

const REFRESH: Duration = Duration::from_millis(250);

fn two() -> Fleet {
    Fleet::of([
        Gateway::new("gw-1").connected("udp"),
        Gateway::new("gw-2").connected("ws"),
    ])
}

fn start(fake: &Fake, key: &Key) -> Exporter {
    Setup::with_key(fake, key).args(["--ttl", "0.2"]).start()
}

/// JSON with status 200 that no API of this kind sends.
const FOREIGN: [&str; 15] = [
    r#"{"status":"maintenance"}"#,
    r#"{"detail":"Service Unavailable","status":503}"#,
    r#"{"code":503}"#,
    r#"{"entries":[],"gateways":5}"#,
    r#"{"entries":"none","gateways":{}}"#,
    r#"{"message":"ok","error":null}"#,
    r#"{"protocol":"http","status":503}"#,
    r#"{"code":14,"message":"error:pkg/x:y (unavailable)","details":[]}"#,
    r#"{"entries":{},"gateways":[],"code":14,"message":"unavailable","details":[]}"#,
    r#"{"entries":{},"gateways":[],"error":"maintenance"}"#,
    r#"{"message":"maintenance","entries":{},"gateways":[]}"#,
    r#"{"uplink_count":"0","downlink_count":"0"}"#,
    "[]",
    "null",
    "\"up\"",
];

#[track_caller]
fn assert_unknown(scrape: &Scrape, id: &str) {
    scrape.assert_value("ttn_up", 0.0);
    scrape.assert_of("ttn_gateway_connected", id, None);
    scrape.assert_of("ttn_gateway_scrape_success", id, Some(0.0));
    scrape.assert(scrape.errors("shape") >= 1.0, "shape");
}

#[test]
fn foreign_json_as_a_batch_makes_no_gateway_disconnected() {
    for body in FOREIGN {
        let fake = Fake::start(two());
        fake.script(Endpoint::StatsBatch, Misbehaviour::json(200, body));
        let scrape = Exporter::start(&fake).scrape();
        for id in ["gw-1", "gw-2"] {
            assert_unknown(&scrape, id);
        }
    }
}

#[test]
fn foreign_json_as_stats_of_one_makes_it_not_disconnected() {
    let key = Key::gateway("gw-1");
    for body in FOREIGN.into_iter().chain(["{}", r#"{"gateways":[]}"#]) {
        let fake = Fake::start(two().with_key(key.clone()));
        fake.script(Endpoint::Stats, Misbehaviour::json(200, body));
        let setup = Setup::with_key(&fake, &key).args(["--gateway", "gw-1"]);
        assert_unknown(&setup.start().scrape(), "gw-1");
    }
}

/// The server always writes one of the two.
#[test]
fn stats_without_a_time_of_connection_or_disconnection_make_no_gateway_disconnected() {
    for stats in [
        "{}",
        r#"{"protocol":"http","status":503}"#,
        r#"{"uplink_count":"7","connected_at":null}"#,
    ] {
        let fake = Fake::start(two());
        let body = format!(
            r#"{{"entries":{{"gw-1":{stats},"gw-2":{{"disconnected_at":"2024-11-20T06:00:00Z"}}}}}}"#
        );
        fake.script(Endpoint::StatsBatch, Misbehaviour::json(200, &body));
        let scrape = Exporter::start(&fake).scrape();
        scrape.assert_of("ttn_gateway_connected", "gw-1", None);
        scrape.assert_of("ttn_gateway_connected", "gw-2", Some(0.0));
    }
}

#[test]
fn foreign_json_as_a_list_is_no_empty_list() {
    for body in FOREIGN {
        let fake = Fake::start(two());
        let exporter = Setup::against(&fake)
            .args(["--ttl", "0.1", "--list-ttl", "0.2"])
            .start();
        exporter.scrape().assert_value("ttn_up", 1.0);
        fake.script(Endpoint::List, Misbehaviour::json(200, body));
        thread::sleep(REFRESH);
        let scrape = exporter.scrape();
        scrape.assert_value("ttn_up", 0.0);
        scrape.assert_of("ttn_gateway_connected", "gw-1", Some(1.0));
        assert_eq!(scrape.reasons(), [("shape".to_owned(), 1.0)], "{body}");
    }
}

#[test]
fn an_answer_that_is_empty_or_cut_makes_no_gateway_disconnected() {
    for broken in [
        Misbehaviour::json(200, ""),
        Misbehaviour::json(204, ""),
        Misbehaviour::CutGzip,
        Misbehaviour::CutShort,
        Misbehaviour::html(200),
        Misbehaviour::html(404),
        Misbehaviour::html(403),
    ] {
        let fake = Fake::start(two());
        fake.script(Endpoint::StatsBatch, broken.clone());
        fake.script(Endpoint::Stats, broken.clone());
        let scrape = Exporter::start(&fake).scrape();
        scrape.assert_value("ttn_up", 0.0);
        for id in ["gw-1", "gw-2"] {
            scrape.assert_of("ttn_gateway_connected", id, None);
        }
        scrape.assert(!scrape.reasons().is_empty(), &format!("{broken:?}"));
    }
}

#[test]
fn what_concerns_single_gateways_leaves_the_api_up() {
    let strange = Gateway::new("gw-strange")
        .connected("udp")
        .at("evil.example");
    let fleet = || {
        let one = Gateway::new("gw-1").connected("udp");
        Fleet::of([
            one,
            Gateway::new("gw-secret").connected("udp"),
            strange.clone(),
        ])
    };
    let blind = Key::user().blind_for(["gw-secret"]);
    let fake = Fake::start(fleet().with_key(blind.clone()));
    let scrape = start(&fake, &blind).scrape();
    scrape.assert_value("ttn_up", 1.0);
    scrape.assert_of("ttn_gateway_connected", "gw-1", Some(1.0));
    // At `--server`, which was asked too, the stranger is not connected.
    for id in ["gw-secret", "gw-strange"] {
        scrape.assert_of("ttn_gateway_scrape_success", id, Some(0.0));
        scrape.assert_of("ttn_gateway_connected", id, None);
    }
    let once = Setup::with_key(&fake, &blind).run_once();
    once.assert_code(1).scrape().assert_value("ttn_up", 1.0);
}

#[test]
fn a_deleted_gateway_leaves_the_api_up_and_the_hint_says_what_may_be() {
    let fake = Fake::start(two());
    let exporter = start(&fake, &Key::user());
    exporter.scrape().assert_value("ttn_up", 1.0);
    fake.change(|fleet| {
        fleet.gateways.remove(1);
    });
    thread::sleep(REFRESH);
    let scrape = exporter.scrape();
    scrape.assert_value("ttn_up", 1.0);
    scrape.assert_of("ttn_gateway_connected", "gw-1", Some(1.0));
    scrape.assert_of("ttn_gateway_scrape_success", "gw-2", Some(0.0));
    exporter.wait_for_log("deleted");
}

#[test]
fn a_key_that_can_read_no_gateway_at_all_is_a_failure() {
    let mut key = Key::user();
    key.may_read_stats = false;
    let fake = Fake::start(two().with_key(key.clone()));
    let exporter = start(&fake, &key);
    for _ in 0..2 {
        exporter.scrape().assert_value("ttn_up", 0.0);
        thread::sleep(REFRESH);
    }
    let single = Key::user().blind_for(["gw-1"]);
    let fake = Fake::start(two().with_key(single.clone()));
    let setup = Setup::with_key(&fake, &single).args(["--gateway", "gw-1"]);
    setup.start().scrape().assert_value("ttn_up", 0.0);
}

#[test]
fn a_key_that_loses_a_right_between_two_scrapes_never_calls_a_gateway_down() {
    let fake = Fake::start(two());
    let exporter = start(&fake, &Key::user());
    exporter.scrape().assert_value("ttn_up", 1.0);
    fake.change(|fleet| fleet.keys[0].may_read_stats = false);
    thread::sleep(REFRESH);
    let scrape = exporter.scrape();
    scrape.assert_value("ttn_up", 0.0);
    assert!(scrape.all("ttn_gateway_connected").is_empty(), "{scrape}");
    assert_eq!(scrape.all("ttn_gateway_info").len(), 2, "{scrape}");
}

#[test]
fn what_is_missing_in_the_end_is_counted_and_not_what_was_tried() {
    let key = Key::user().blind_for(["gw-00042"]);
    let fake = Fake::start(Fleet::generated(100).with_key(key.clone()));
    let scrape = start(&fake, &key).scrape();
    assert_eq!(
        scrape.reasons(),
        [("forbidden".to_owned(), 1.0)],
        "{scrape}"
    );
    scrape.assert_value("ttn_up", 1.0);
}

#[test]
fn one_stray_page_of_a_proxy_does_not_end_the_batches() {
    for stray in [
        Misbehaviour::html(404),
        Misbehaviour::html(403),
        Misbehaviour::html(501),
    ] {
        let fake = Fake::start(Fleet::generated(60));
        let exporter = start(&fake, &Key::user());
        exporter.scrape().assert_value("ttn_up", 1.0);
        thread::sleep(REFRESH);
        fake.script_times(Endpoint::StatsBatch, 1, stray.clone());
        fake.forget();
        exporter.scrape();
        exporter.scrape_until("recovery", |scrape| scrape.value("ttn_up") == 1.0);
        thread::sleep(REFRESH);
        exporter.scrape();
        assert_eq!(fake.count(Endpoint::Stats), 0, "{stray:?}: {exporter}");
        assert!(
            fake.count(Endpoint::StatsBatch) <= 4,
            "{stray:?}: {exporter}"
        );
    }
}

#[test]
fn a_failure_is_remembered_for_ten_seconds_at_most() {
    let fake = Fake::start(two());
    fake.script_times(Endpoint::StatsBatch, 1, Misbehaviour::status(503));
    let exporter = Setup::against(&fake).args(["--ttl", "60"]).start();
    exporter.scrape().assert_value("ttn_up", 0.0);
    thread::sleep(Duration::from_millis(10_500));
    let scrape = exporter.scrape();
    scrape.assert_value("ttn_up", 1.0);
    scrape.assert_of("ttn_gateway_connected", "gw-1", Some(1.0));
}

#[test]
fn numbers_are_as_the_server_wrote_them_bit_for_bit() {
    let numbers = [
        "96.49407958984375",
        "0.1",
        "34.862",
        "1e21",
        "5e-324",
        "2.2250738585072014e-308",
        "1.7976931348623157e308",
        "123456789.123456789",
        "-0.30000000000000004",
        "9007199254740993",
        "8.41",
        "1e-7",
    ];
    let metrics = numbers
        .iter()
        .enumerate()
        .map(|(at, text)| format!("\"m{at:02}\":{text}"));
    let metrics = metrics.collect::<Vec<_>>().join(",");
    let body = format!(
        r#"{{"entries":{{"gw-1":{{"connected_at":"2024-11-20T06:00:00Z","last_status":{{"metrics":{{{metrics}}}}}}},"gw-2":{{"connected_at":"2024-11-20T06:00:00Z"}}}}}}"#
    );
    let fake = Fake::start(two());
    fake.script(Endpoint::StatsBatch, Misbehaviour::json(200, &body));
    let scrape = Exporter::start(&fake).scrape();
    for (at, text) in numbers.iter().enumerate() {
        let labels = [("gateway_id", "gw-1"), ("metric", &*format!("m{at:02}"))];
        let value = scrape.value_with("ttn_gateway_status_metric", &labels);
        let expected: f64 = text.parse().unwrap();
        assert_eq!(value.to_bits(), expected.to_bits(), "{text}: {value:?}");
    }
}

#[test]
fn an_older_server_is_asked_without_the_fields_that_it_does_not_know() {
    let mut fleet = Fleet::generated(100);
    (fleet.is_old, fleet.is_frozen) = (true, false);
    let fake = Fake::start(fleet);
    let exporter = start(&fake, &Key::user());
    for _ in 0..3 {
        let scrape = exporter.scrape();
        scrape.assert_value("ttn_up", 1.0);
        assert_eq!(scrape.all("ttn_gateway_connected").len(), 100, "{scrape}");
        let acknowledgments = scrape.all("ttn_gateway_tx_acknowledgments_total");
        assert!(acknowledgments.is_empty(), "nobody said 0: {scrape}");
        assert_eq!(scrape.reasons(), []);
        thread::sleep(REFRESH);
    }
    assert_eq!(fake.count(Endpoint::StatsBatch), 4, "{exporter}");
    assert_eq!(fake.count(Endpoint::Stats), 0, "{exporter}");
}

#[test]
fn a_gateway_that_the_batch_alone_refuses_is_asked_alone_and_the_others_stay_in_batches() {
    let mut fleet = Fleet::generated(100);
    fleet.is_frozen = false;
    // Its status is public and its position is not: the single call reads it.
    let half_public = json!({ "status_public": true });
    let gateway = fleet.gateway_mut("gw-00042");
    *gateway = gateway.clone().registered(half_public);
    let key = Key::user().blind_for(["gw-00042"]);
    let fake = Fake::start(fleet.with_key(key.clone()));
    let exporter = start(&fake, &key);
    for _ in 0..2 {
        fake.forget();
        let scrape = exporter.scrape();
        scrape.assert_value("ttn_up", 1.0);
        assert_eq!(scrape.all("ttn_gateway_connected").len(), 100, "{scrape}");
        thread::sleep(REFRESH);
    }
    let calls = [Endpoint::StatsBatch, Endpoint::Stats].map(|endpoint| fake.count(endpoint));
    assert_eq!(calls, [1, 1], "{exporter}");
}

#[test]
fn a_malformed_key_is_called_one() {
    let fake = Fake::start(two());
    let setup = Setup::bare().variable("TTN_API_KEY", "NNSXS.ABC");
    let exporter = setup.args(["--server", &fake.url()]).start();
    let scrape = exporter.scrape();
    scrape.assert_value("ttn_up", 0.0);
    assert_eq!(scrape.reasons(), [("client_error".to_owned(), 1.0)]);
    exporter.wait_for_log("an API key that is not whole");
}

#[test]
fn a_warning_of_the_server_reaches_the_page_and_the_log_once() {
    let fake = Fake::start(two());
    fake.set_warning("this field <goes> away");
    let exporter = start(&fake, &Key::user());
    for _ in 0..2 {
        exporter.scrape().assert_value("ttn_up", 1.0);
        thread::sleep(REFRESH);
    }
    let page = exporter
        .get_with_headers("/", &[("Accept", "text/html")])
        .text();
    assert!(page.contains("this field &lt;goes&gt; away"), "{page}");
    assert_eq!(exporter.stderr().matches("goes").count(), 1, "{exporter}");
}

#[test]
fn every_warning_of_an_answer_is_shown_and_none_can_move_the_cursor() {
    let fake = Fake::start(two());
    let list = r#"{"gateways":[{"ids":{"gateway_id":"gw-1"}}]}"#;
    let mut answer = Answer::json(200, list).with_header("X-Total-Count", 1);
    for number in 0..40 {
        answer = answer.with_header("X-Warning", format!("warning {number:02} \u{202e}é\t"));
    }
    fake.script(Endpoint::List, Misbehaviour::Answer(answer));
    let exporter = start(&fake, &Key::user());
    exporter.scrape().assert_value("ttn_up", 1.0);
    let page = exporter.get_with_headers("/", &[("Accept", "text/html")]);
    let (page, log) = (page.text(), exporter.stderr());
    for text in [&page, &log] {
        assert_eq!(text.matches("warning ").count(), 32, "{text}");
        assert!(text.contains("warning 31 \u{fffd}é"), "{text}");
        assert!(!text.contains('\u{202e}'), "{text}");
    }
}

#[test]
fn positions_of_a_gps_are_those_of_the_status() {
    let location =
        |latitude: f64| json!({ "latitude": latitude, "longitude": 4.5, "source": "SOURCE_GPS" });
    let gateway = Gateway::new("gw-1").connected("udp").registered(json!({
        "antennas": [{ "location": location(52.0) }],
    }));
    let gateway = gateway.stats_with(json!({
        "last_status": { "antenna_locations": [location(53.25)] },
    }));
    let fake = Fake::start(Fleet::of([gateway]));
    let scrape = Exporter::start(&fake).scrape();
    let latitudes = scrape.all("ttn_gateway_antenna_latitude_degrees");
    let values: Vec<f64> = latitudes.iter().map(|sample| sample.number()).collect();
    assert_eq!(values, [53.25], "{scrape}");
}

#[test]
fn without_locations_no_position_is_asked_for_or_shown() {
    let fake = Fake::start(Fleet::generated(2));
    let exporter = Setup::against(&fake).args(["--no-locations"]).start();
    let scrape = exporter.scrape();
    scrape.assert_value("ttn_up", 1.0);
    assert!(!scrape.text.contains("latitude_degrees{"), "{scrape}");
    for record in fake.records() {
        let asked = record.request.target.clone() + &record.request.body_text();
        assert!(!asked.contains("antenna"), "{asked}");
    }
}

/// As a server does that knows no field mask.
#[test]
fn without_locations_no_position_is_shown_though_the_server_sends_it() {
    let list = r#"{"gateways":[{"ids":{"gateway_id":"gw-1"},
        "antennas":[{"location":{"latitude":1,"longitude":2,"source":"SOURCE_REGISTRY"}}]}]}"#;
    let stats = r#"{"connected_at":"2024-11-20T06:00:00Z","last_status":{"antenna_locations":[
        {"latitude":3,"longitude":4,"source":"SOURCE_GPS"}]}}"#;
    let list = Answer::json(200, list).with_header("X-Total-Count", 1);
    let fake = Fake::start(two());
    fake.script(Endpoint::List, Misbehaviour::Answer(list));
    fake.script(Endpoint::Stats, Misbehaviour::json(200, stats));
    let scrape = Exporter::start(&fake).scrape();
    let latitudes = scrape.all("ttn_gateway_antenna_latitude_degrees").len();
    assert_eq!(latitudes, 2, "{scrape}");
    let exporter = Setup::against(&fake).args(["--no-locations"]).start();
    let scrape = exporter.scrape();
    scrape.assert_of("ttn_gateway_connected", "gw-1", Some(1.0));
    assert!(!scrape.text.contains("latitude_degrees{"), "{scrape}");
}

#[test]
fn answers_that_are_too_long_are_no_refusal_to_be_remembered() {
    let fake = Fake::start(two());
    fake.script(Endpoint::StatsBatch, Misbehaviour::TooLarge(8 << 20));
    fake.script(Endpoint::Stats, Misbehaviour::TooLarge(8 << 20));
    let exporter = start(&fake, &Key::user());
    exporter.scrape().assert_value("ttn_up", 0.0);
    fake.behave();
    thread::sleep(REFRESH);
    let scrape = exporter.scrape();
    for id in ["gw-1", "gw-2"] {
        scrape.assert_of("ttn_gateway_connected", id, Some(1.0));
    }
}
