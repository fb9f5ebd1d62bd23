//! How many requests a fleet costs, and when none is made.

use std::thread;
use std::time::{Duration, Instant};

use crate::fake::{Endpoint, Fake, Fleet, Gateway, Misbehaviour};
use crate::harness::{Exporter, Setup};

/// For a debug build on a machine with other work.
const PATIENT: (&str, &str) = ("X-Prometheus-Scrape-Timeout-Seconds", "50");

fn two() -> Fleet {
    Fleet::of([Gateway::new("gw-1").connected("udp"), Gateway::new("gw-2")])
}

#[track_caller]
fn assert_counts(fake: &Fake, lists: usize, batches: usize) {
    let counts = (fake.count(Endpoint::List), fake.count(Endpoint::StatsBatch));
    assert_eq!(counts, (lists, batches), "lists and batches");
    assert_eq!(fake.request_count(), lists + batches, "other requests");
}

#[test]
fn scrapes_within_the_ttl_make_no_request() {
    let fake = Fake::start(two());
    let exporter = Exporter::start(&fake);
    let first = exporter.scrape();
    first.assert_value("ttn_exporter_cache_misses_total", 2.0);
    for _ in 0..5 {
        exporter.scrape();
    }
    let last = exporter.scrape();
    last.assert_value("ttn_exporter_cache_misses_total", 2.0);
    last.assert_value("ttn_exporter_cache_hits_total", 12.0);
    assert_counts(&fake, 1, 1);
}

/// Though it is asked for before a list that takes long, and again after it.
#[test]
fn a_gateway_is_counted_once_in_a_collection() {
    let fake = Fake::start(two());
    let slow = Misbehaviour::Delay(Duration::from_millis(1200));
    fake.script(Endpoint::List, slow);
    let arguments = ["--ttl", "0.1", "--list-ttl", "0.1", "--timeout", "20"];
    let exporter = Setup::against(&fake).args(arguments).start();
    exporter.scrape().assert_value("ttn_up", 1.0);
    fake.script(Endpoint::StatsBatch, Misbehaviour::HangBeforeHead);
    thread::sleep(Duration::from_millis(200));
    let in_haste = ("X-Prometheus-Scrape-Timeout-Seconds", "2.3");
    let cut = exporter.scrape_with_headers(&[in_haste]);
    cut.assert_value("ttn_up", 0.0);
    fake.behave();
    let scrape = exporter.scrape();
    scrape.assert_value("ttn_up", 1.0);
    scrape.assert_value("ttn_exporter_cache_misses_total", 2.0 + 2.0 + 2.0);
}

#[test]
fn nothing_is_asked_before_the_first_scrape() {
    let fake = Fake::start(two());
    let exporter = Exporter::start(&fake);
    assert_eq!(exporter.get("/-/healthy").status, 200);
    assert_counts(&fake, 0, 0);
}

#[test]
fn stats_expire_after_their_ttl_and_the_list_does_not() {
    let fake = Fake::start(two());
    let exporter = Setup::against(&fake).args(["--ttl", "1"]).start();
    exporter.scrape();
    thread::sleep(Duration::from_millis(1100));
    fake.change(|fleet| {
        let gateway = fleet.gateway_mut("gw-2");
        *gateway = gateway.clone().connected("ws");
    });
    let scrape = exporter.scrape();
    scrape.assert_of("ttn_gateway_connected", "gw-2", Some(1.0));
    assert_counts(&fake, 1, 2);
}

#[test]
fn a_new_gateway_appears_and_a_deleted_one_vanishes_with_the_next_list() {
    let fake = Fake::start(two());
    let exporter = Setup::against(&fake)
        .args(["--ttl", "0.2", "--list-ttl=0.2"])
        .start();
    exporter
        .scrape()
        .assert_of("ttn_gateway_connected", "gw-1", Some(1.0));
    fake.change(|fleet| {
        fleet.gateways.remove(0);
        fleet.gateways.push(Gateway::new("gw-3").connected("udp"));
    });
    let scrape = exporter.scrape_until("gw-3", |scrape| {
        scrape.find_of("ttn_gateway_connected", "gw-3") == Some(1.0)
    });
    assert!(!scrape.text.contains("gw-1"), "{scrape}");
    scrape.assert_value("ttn_up", 1.0);
}

#[test]
fn a_gateway_that_was_deleted_since_the_list_costs_only_itself() {
    let fake = Fake::start(two());
    let exporter = Setup::against(&fake).args(["--ttl", "0.2"]).start();
    exporter.scrape();
    fake.change(|fleet| {
        fleet.gateways.remove(1);
    });
    thread::sleep(Duration::from_millis(300));
    let scrape = exporter.scrape();
    scrape.assert_of("ttn_gateway_connected", "gw-1", Some(1.0));
    scrape.assert_of("ttn_gateway_connected", "gw-2", None);
}

#[test]
fn the_fleet_of_2500_takes_3_lists_25_batches_and_one_connection() {
    let fake = Fake::start(Fleet::generated(2500));
    // The time is no part of this: a loaded machine may take longer than a scrape has.
    let arguments = ["--ttl", "60", "--timeout", "25"];
    let exporter = Setup::against(&fake).args(arguments).start();
    let scrape = exporter.scrape();
    assert_counts(&fake, 3, 25);
    scrape.assert_value("ttn_up", 1.0);
    assert_eq!(scrape.all("ttn_gateway_connected").len(), 2500);
    for _ in 0..3 {
        // Not read: the strict parser takes seconds for it in a debug build.
        assert_eq!(exporter.get("/metrics").status, 200);
    }
    assert_counts(&fake, 3, 25);
    assert_eq!(fake.connection_count(), 1);
}

#[test]
fn no_gateway_means_no_batch_and_no_failure() {
    let fake = Fake::start(Fleet::of([]));
    let scrape = Exporter::start(&fake).scrape();
    scrape.assert_value("ttn_up", 1.0);
    assert_counts(&fake, 1, 0);
}

#[test]
fn full_pages_end_where_the_total_says_so() {
    for count in [999, 1000, 1001] {
        let fake = Fake::start(Fleet::generated(count));
        let exporter = Exporter::start(&fake);
        let text = exporter.get_with_headers("/metrics", &[PATIENT]).text();
        assert_eq!(text.matches("\nttn_gateway_connected{").count(), count);
        assert_eq!(fake.count(Endpoint::List), count.div_ceil(1000), "{count}");
    }
}

#[test]
fn each_request_says_who_asks_and_asks_for_no_more_than_is_used() {
    let fake = Fake::start(Fleet::generated(2));
    Exporter::start(&fake).scrape();
    let records = fake.records();
    for record in &records {
        let request = &record.request;
        let agent = concat!("ttn-gateway-exporter/", env!("CARGO_PKG_VERSION"));
        assert_eq!(request.header("User-Agent"), Some(agent));
        assert!(request.header_has("Accept-Encoding", "gzip"), "{request:?}");
    }
    let mut lists = records.iter();
    let list = lists.find(|record| record.endpoint == Endpoint::List);
    let list = &list.expect("a list").request;
    let mask = list.query("field_mask").expect("a field mask");
    assert!(
        mask.contains("gateway_server_address") && !mask.contains("attributes"),
        "{mask}"
    );
    assert_eq!(list.query("limit").as_deref(), Some("1000"));
    let mut batches = records.iter();
    let batch = batches.find(|record| record.endpoint == Endpoint::StatsBatch);
    let batch = batch.expect("a batch").request.body_text();
    assert!(
        batch.contains("field_mask") && !batch.contains("advanced"),
        "{batch}"
    );
}

#[test]
fn a_kept_connection_that_the_server_closed_is_no_failure() {
    let fake = Fake::start(two());
    let exporter = Setup::against(&fake).args(["--ttl", "0.1"]).start();
    exporter.scrape();
    fake.close_connections();
    thread::sleep(Duration::from_millis(200));
    let scrape = exporter.scrape();
    scrape.assert_value("ttn_up", 1.0);
    assert_eq!(scrape.reasons(), []);
    assert_eq!(fake.connection_count(), 2);
    assert_counts(&fake, 1, 2);
}

#[test]
fn a_connection_that_is_closed_under_the_request_is_tried_once_more() {
    let fake = Fake::start(two());
    let exporter = Setup::against(&fake).args(["--ttl", "0.1"]).start();
    exporter.scrape();
    thread::sleep(Duration::from_millis(150));
    fake.script_times(Endpoint::StatsBatch, 1, Misbehaviour::CloseUnanswered);
    let scrape = exporter.scrape();
    scrape.assert_value("ttn_up", 1.0);
    assert_counts(&fake, 1, 3);
    thread::sleep(Duration::from_millis(150));
    fake.script(Endpoint::StatsBatch, Misbehaviour::CloseUnanswered);
    let scrape = exporter.scrape();
    scrape.assert_value("ttn_up", 0.0);
    assert_eq!(
        scrape.errors("connection_lost"),
        2.0,
        "one for each gateway"
    );
    assert_counts(&fake, 1, 5);
}

#[test]
fn ten_scrapes_behind_one_hanging_request_are_answered_together() {
    let fake = Fake::start(two());
    let exporter = Setup::against(&fake).args(["--timeout", "1"]).start();
    fake.script_all(Misbehaviour::HangBeforeHead);
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                exporter
                    .scrape()
                    .assert_value("ttn_up", 0.0)
                    .errors("timeout")
            });
        }
    });
    let elapsed = start.elapsed();
    assert!(elapsed < Duration::from_secs(4), "{elapsed:?}\n{exporter}");
    // Once more if the question about the key has left a connection.
    let requests = fake.request_count();
    assert!(requests <= 2, "{requests} requests\n{exporter}");
}
