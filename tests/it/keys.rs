//! Every kind of API key, and servers that refuse a batch for reasons of their own.

use std::thread;
use std::time::Duration;

use crate::fake::{Endpoint, Fake, Fleet, Gateway, Holder, Key, Misbehaviour};
use crate::harness::samples::Scrape;
use crate::harness::{Exporter, Setup};

const REFRESH: Duration = Duration::from_millis(350);

fn start(fake: &Fake, key: &Key, arguments: &[&str]) -> Exporter {
    let setup = Setup::with_key(fake, key).args(["--ttl", "0.3"]);
    setup.args(arguments.iter().copied()).start()
}

fn connected(scrape: &Scrape) -> usize {
    scrape.all("ttn_gateway_connected").len()
}

/// The counts of lists, batches and single calls.
fn calls(fake: &Fake) -> [usize; 3] {
    [Endpoint::List, Endpoint::StatsBatch, Endpoint::Stats].map(|endpoint| fake.count(endpoint))
}

#[test]
fn an_organization_and_a_user_can_be_chosen() {
    let mut fleet = Fleet::of([
        Gateway::new("gw-mine").connected("udp"),
        Gateway::new("gw-acme")
            .connected("udp")
            .owned_by("organization:acme"),
    ]);
    fleet.keys.push(Key::organization("acme"));
    let fake = Fake::start(fleet);
    let ids = |key: &Key, arguments: &[&str]| {
        let scrape = start(&fake, key, arguments).scrape();
        scrape.assert_value("ttn_up", 1.0);
        let has = |id| scrape.find_of("ttn_gateway_connected", id).is_some();
        (has("gw-mine"), has("gw-acme"))
    };
    assert_eq!(ids(&Key::user(), &[]), (true, true));
    assert_eq!(ids(&Key::organization("acme"), &[]), (false, true));
    assert_eq!(
        ids(&Key::user(), &["--organization", "acme"]),
        (false, true)
    );
    assert_eq!(ids(&Key::user(), &["--user", "demo"]), (true, false));
}

#[test]
fn the_key_of_a_gateway_reads_its_own_stats_with_single_calls() {
    let key = Key::gateway("gw-1");
    let gateways = ["gw-1", "gw-2"].map(|id| Gateway::new(id).connected("udp"));
    let fake = Fake::start(Fleet::of(gateways).with_key(key.clone()));
    let exporter = start(&fake, &key, &["--gateway", "gw-1"]);
    let scrape = exporter.scrape();
    scrape.assert_value("ttn_up", 1.0);
    scrape.assert_of("ttn_gateway_uplink_messages_total", "gw-1", Some(9043.0));
    assert_eq!(calls(&fake), [0, 0, 1]);
    assert_eq!(connected(&scrape), 1);
}

#[test]
fn gateways_that_the_key_cannot_see_are_found_by_halving_and_remembered() {
    let blind = ["gw-00007", "gw-00008", "gw-00150"];
    let key = Key::user().blind_for(blind);
    let fake = Fake::start(Fleet::generated(200).with_key(key.clone()));
    let exporter = start(&fake, &key, &[]);
    let scrape = exporter.scrape();
    assert_eq!(connected(&scrape), 197, "{scrape}");
    for id in blind {
        scrape.assert_of("ttn_gateway_scrape_success", id, Some(0.0));
        scrape.assert_of("ttn_gateway_connected", id, None);
    }
    let [lists, batches, singles] = calls(&fake);
    assert_eq!(lists, 1);
    assert!(
        batches <= 3 * 14 + 2 && singles <= 6,
        "{batches} batches, {singles} single calls"
    );
    thread::sleep(REFRESH);
    fake.forget();
    let scrape = exporter.scrape();
    assert_eq!(connected(&scrape), 197, "{scrape}");
    assert_eq!(calls(&fake), [0, 2, 0], "refusals were not remembered");
    exporter.wait_for_log("RIGHT_GATEWAY_STATUS_READ");
    assert_eq!(
        exporter
            .stderr()
            .matches("RIGHT_GATEWAY_STATUS_READ")
            .count(),
        1,
        "{exporter}"
    );
}

#[test]
fn a_key_that_may_list_but_not_read_costs_few_requests() {
    let mut key = Key::user();
    key.may_read_stats = false;
    let fake = Fake::start(Fleet::generated(300).with_key(key.clone()));
    let exporter = start(&fake, &key, &[]);
    let scrape = exporter.scrape();
    scrape.assert_value("ttn_up", 0.0);
    assert_eq!(scrape.all("ttn_gateway_info").len(), 300);
    assert_eq!(connected(&scrape), 0);
    scrape.assert(scrape.errors("forbidden") >= 1.0, "forbidden");
    assert!(
        fake.request_count() <= 30,
        "{} requests",
        fake.request_count()
    );
    thread::sleep(REFRESH);
    fake.forget();
    exporter.scrape();
    assert!(
        fake.request_count() <= 1,
        "{} requests again",
        fake.request_count()
    );
    exporter.wait_for_log("RIGHT_GATEWAY_STATUS_READ");
}

#[test]
fn a_key_that_may_read_but_not_list_is_told_which_right_is_missing() {
    let mut key = Key::user();
    key.may_list = false;
    let fake = Fake::start(Fleet::generated(2).with_key(key.clone()));
    let exporter = start(&fake, &key, &[]);
    let scrape = exporter.scrape();
    assert_eq!(scrape.reasons(), [("forbidden".to_owned(), 1.0)]);
    exporter.wait_for_log("list the gateways");
    let named = start(
        &fake,
        &key,
        &["--gateway", "gw-00001", "--gateway", "gw-00002"],
    );
    let scrape = named.scrape();
    scrape.assert_value("ttn_up", 1.0);
    assert_eq!(connected(&scrape), 2);
}

#[test]
fn a_key_that_is_unknown_or_expired_is_one_clear_line() {
    let mut expired = Key::new('E', Holder::User("demo".into()));
    expired.is_expired = true;
    let fake = Fake::start(Fleet::generated(2).with_key(expired.clone()));
    for key in [expired, Key::user()] {
        let exporter = start(&fake, &key, &[]);
        for _ in 0..3 {
            let scrape = exporter.scrape();
            scrape.assert_value("ttn_up", 0.0);
            scrape.assert(scrape.errors("unauthorized") >= 1.0, "unauthorized");
            thread::sleep(REFRESH);
        }
        assert_eq!(
            exporter.stderr().matches("HTTP 401").count(),
            1,
            "{exporter}"
        );
        exporter.wait_for_log("console");
    }
}

#[test]
fn a_server_without_batches_is_asked_one_by_one_and_not_for_a_batch_again() {
    let unknown = Misbehaviour::json(404, r#"{"code":5,"message":"Not Found","details":[]}"#);
    for refusal in [
        unknown,
        Misbehaviour::status(405),
        Misbehaviour::status(501),
    ] {
        let fake = Fake::start(Fleet::generated(12));
        fake.script(Endpoint::StatsBatch, refusal);
        let exporter = start(&fake, &Key::user(), &[]);
        let scrape = exporter.scrape();
        scrape.assert_value("ttn_up", 1.0);
        assert_eq!(connected(&scrape), 12);
        // A second refusal confirms the first one.
        assert_eq!(calls(&fake), [1, 2, 12]);
        thread::sleep(REFRESH);
        exporter.scrape();
        assert_eq!(calls(&fake), [1, 2, 24]);
    }
}

#[test]
fn a_server_that_takes_small_batches_alone_gets_small_batches() {
    let mut fleet = Fleet::generated(100);
    fleet.batch_size_max = 20;
    let fake = Fake::start(fleet);
    let exporter = start(&fake, &Key::user(), &[]);
    let scrape = exporter.scrape();
    scrape.assert_value("ttn_up", 1.0);
    assert_eq!(connected(&scrape), 100);
    let [_, batches, singles] = calls(&fake);
    assert!(
        batches <= 15 && singles == 0,
        "{batches} batches, {singles} single calls"
    );
    thread::sleep(REFRESH);
    fake.forget();
    let scrape = exporter.scrape();
    assert_eq!(connected(&scrape), 100);
    assert!(calls(&fake)[1] <= 12, "{:?}", calls(&fake));
    let refused = scrape.find(
        "ttn_exporter_api_requests_total",
        &[("endpoint", "stats_batch"), ("code", "400")],
    );
    assert!(refused <= Some(3.0), "{scrape}");
}

#[test]
fn a_refusal_of_the_batch_alone_is_the_batchs_fault() {
    let fake = Fake::start(Fleet::generated(8));
    fake.script(Endpoint::StatsBatch, Misbehaviour::status(403));
    let exporter = start(&fake, &Key::user(), &[]);
    let scrape = exporter.scrape();
    assert_eq!(connected(&scrape), 8, "{scrape}");
    scrape.assert_value("ttn_up", 1.0);
    thread::sleep(REFRESH);
    fake.forget();
    exporter.scrape();
    assert_eq!(calls(&fake), [0, 0, 8]);
}

#[test]
fn gateways_named_by_hand_are_asked_for_even_if_their_registration_is_secret() {
    let fake = Fake::start(Fleet::generated(3));
    fake.script(Endpoint::Gateway, Misbehaviour::status(403));
    let exporter = start(&fake, &Key::user(), &["--gateway", "gw-00002"]);
    let scrape = exporter.scrape();
    scrape.assert_of("ttn_gateway_connected", "gw-00002", Some(1.0));
    assert_eq!(fake.count(Endpoint::List), 0);
}

#[test]
fn one_scrape_of_refused_sizes_does_not_end_the_batches() {
    thread::scope(|scope| {
        for refusal in [Misbehaviour::html(413), Misbehaviour::status(400)] {
            scope.spawn(|| check_batches_after(refusal));
        }
    });
}

/// When half a minute has passed.
fn check_batches_after(refusal: Misbehaviour) {
    let fake = Fake::start(Fleet::generated(60));
    let exporter = start(&fake, &Key::user(), &[]);
    fake.script(Endpoint::StatsBatch, refusal);
    exporter.scrape().assert_value("ttn_up", 1.0);
    fake.behave();
    thread::sleep(Duration::from_secs(31));
    fake.forget();
    exporter.scrape().assert_value("ttn_up", 1.0);
    assert_eq!(calls(&fake), [0, 1, 0], "{exporter}");
}

#[test]
fn a_fleet_that_does_not_fit_into_a_scrape_is_read_in_turn() {
    let fake = Fake::start(Fleet::generated(12));
    fake.script(Endpoint::StatsBatch, Misbehaviour::status(501));
    let slow = Misbehaviour::Delay(Duration::from_millis(300));
    fake.script(Endpoint::Stats, slow);
    let exporter = start(&fake, &Key::user(), &[]);
    let mut seen = std::collections::BTreeSet::new();
    let in_haste = [("X-Prometheus-Scrape-Timeout-Seconds", "2.7")];
    for round in 0..7 {
        let scrape = exporter.scrape_with_headers(&in_haste);
        let connected = scrape.all("ttn_gateway_connected");
        assert!(connected.len() < 12, "all fit into one scrape\n{exporter}");
        // By then each has been read once.
        if round >= 3 {
            seen.extend(connected.iter().map(|sample| sample.labels.clone()));
        }
        thread::sleep(REFRESH);
    }
    assert_eq!(seen.len(), 12, "{seen:?}\n{exporter}");
}

/// Its rights are not those of a key, and what its owner may do in the whole network is not all.
#[test]
fn an_access_token_is_not_said_to_lack_a_right() {
    let fake = Fake::start(Fleet::of([Gateway::new("gw-1").connected("udp")]));
    let body = r#"{"oauth_access_token":{"user_ids":{"user_id":"u"},"rights":["RIGHT_USER_ALL"]},
        "universal_rights":{"rights":["RIGHT_SEND_INVITES"]}}"#;
    fake.script(Endpoint::AuthInfo, Misbehaviour::json(200, body));
    let exporter = start(&fake, &Key::user(), &[]);
    exporter.scrape_until("the question about the key", |_| {
        fake.count(Endpoint::AuthInfo) > 0
    });
    thread::sleep(REFRESH);
    exporter.scrape().assert_value("ttn_up", 1.0);
    assert!(!exporter.stderr().contains("lacks"), "{exporter}");
}
