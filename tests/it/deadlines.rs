//! Who waits for what: an API that hangs or is slow holds up nobody beyond its own deadline, and
//! clients that are in a hurry cost the API nothing.

use std::net::SocketAddr;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::fake::{Endpoint, Fake, Fleet, Gateway, Misbehaviour};
use crate::harness::http::{self, Response};
use crate::harness::{Exporter, PATIENCE, Setup};

const SCRAPE_TIMEOUT: &str = "X-Prometheus-Scrape-Timeout-Seconds";
const HTML: (&str, &str) = ("Accept", "text/html");
/// Of one request to the API: a collection of a hanging API lasts at least as long.
const TIMEOUT: &str = "20";
/// Far less than that, and far more than anything should take that need not wait for it.
const SOON: Duration = Duration::from_secs(8);

fn fake() -> Fake {
    Fake::start(Fleet::of([Gateway::new("gw-1").connected("udp")]))
}

fn exporter(fake: &Fake) -> Exporter {
    Setup::against(fake).args(["--timeout", TIMEOUT]).start()
}

/// A request in a thread of its own.
fn send(
    address: SocketAddr,
    path: &'static str,
    header: (&'static str, &'static str),
) -> JoinHandle<Response> {
    thread::spawn(move || {
        let answer = http::request(address, "GET", path, &[header], PATIENCE);
        answer.expect("an answer")
    })
}

/// The same, once the API has been asked for it.
#[track_caller]
fn send_first(
    exporter: &Exporter,
    fake: &Fake,
    path: &'static str,
    header: (&'static str, &'static str),
) -> JoinHandle<Response> {
    let before = fake.request_count();
    let request = send(exporter.address, path, header);
    let end = Instant::now() + PATIENCE;
    while fake.request_count() == before {
        assert!(Instant::now() < end, "the API is not asked\n{exporter}");
        thread::sleep(Duration::from_millis(2));
    }
    request
}

#[test]
fn health_is_told_while_a_collection_hangs() {
    let fake = fake();
    let exporter = exporter(&fake);
    fake.script_all(Misbehaviour::HangBeforeHead);
    let scrape = send_first(&exporter, &fake, "/metrics", (SCRAPE_TIMEOUT, "30"));
    for _ in 0..20 {
        assert_eq!(exporter.get("/-/healthy").status, 200);
        assert_eq!(exporter.get("/nothing").status, 404);
    }
    assert!(!scrape.is_finished(), "{exporter}");
    fake.behave();
    fake.close_connections();
    scrape.join().expect("an answer");
}

#[test]
fn a_short_scrape_behind_a_long_one_is_answered_by_its_own_deadline() {
    let fake = fake();
    let exporter = exporter(&fake);
    fake.script_all(Misbehaviour::HangBeforeHead);
    let long = send_first(&exporter, &fake, "/metrics", (SCRAPE_TIMEOUT, "30"));
    let short = exporter.scrape_within(SOON, &[(SCRAPE_TIMEOUT, "3")]);
    short.assert_value("ttn_up", 0.0);
    assert!(!long.is_finished(), "{exporter}");
    // Each gets what it asked for.
    let head = exporter.request("HEAD", "/metrics", &[(SCRAPE_TIMEOUT, "0.5")]);
    assert_eq!(head.status, 200, "{head}");
    assert!(head.body.is_empty() && head.header("Content-Length") != Some("0"));
    fake.behave();
    fake.close_connections();
    assert_eq!(long.join().expect("an answer").status, 200);
    exporter.scrape_until("ttn_up 1", |scrape| scrape.value("ttn_up") == 1.0);
}

#[test]
fn a_page_in_front_does_not_cost_a_scrape_its_answer() {
    let fake = fake();
    let exporter = exporter(&fake);
    fake.script_all(Misbehaviour::HangBeforeHead);
    let page = send_first(&exporter, &fake, "/", HTML);
    exporter.scrape_within(SOON, &[(SCRAPE_TIMEOUT, "3")]);
    let page = page.join().expect("an answer");
    assert_eq!(page.status, 200, "{page}");
    assert!(page.elapsed < SOON, "{page}");
}

#[test]
fn a_page_shows_what_is_known_while_the_api_hangs() {
    let fake = fake();
    let setup = Setup::against(&fake).args(["--timeout", TIMEOUT, "--list-ttl", "0.1"]);
    let exporter = setup.args(["--ttl", "60"]).start();
    exporter.scrape().assert_value("ttn_up", 1.0);
    thread::sleep(Duration::from_millis(150));
    fake.script_all(Misbehaviour::HangBeforeHead);
    let page = send_first(&exporter, &fake, "/", HTML);
    let second = send(exporter.address, "/", HTML);
    for page in [page, second] {
        let page = page.join().expect("an answer");
        assert_eq!(page.status, 200, "{page}");
        assert!(page.elapsed < SOON, "{page}");
        assert!(page.text().contains("gw-1"), "{page}");
    }
}

#[test]
fn before_the_first_collection_has_ended_nothing_is_said_of_it() {
    let fake = fake();
    let exporter = exporter(&fake);
    fake.script_all(Misbehaviour::HangBeforeHead);
    let first = exporter.scrape_within(SOON, &[(SCRAPE_TIMEOUT, "0.5")]);
    let duration = "ttn_exporter_scrape_duration_seconds";
    assert_eq!(first.find(duration, &[]), None, "{first}");
    fake.behave();
    fake.close_connections();
    let scrape = exporter.scrape();
    scrape.assert(scrape.value(duration) > 0.0, "a duration");
}

#[test]
fn a_late_answer_goes_to_nobody_else() {
    let fake = fake();
    let exporter = Setup::against(&fake).args(["--ttl", "0.1"]).start();
    fake.set_delay(Duration::from_millis(600));
    let accepts = [(SCRAPE_TIMEOUT, "0.2"), ("Accept-Encoding", "gzip")];
    for _ in 0..3 {
        let packed = exporter.get_with_headers("/metrics", &accepts);
        assert!(packed.text().starts_with("# HELP "), "{packed}");
        let page = exporter.get_with_headers("/", &[HTML]);
        assert!(page.text().starts_with("<!doctype html>"), "{page}");
        let plain = exporter.get_with_headers("/metrics", &[(SCRAPE_TIMEOUT, "0.2")]);
        assert_eq!(plain.header("Content-Encoding"), None, "{plain}");
        assert!(plain.text().starts_with("# HELP "), "{plain}");
    }
}

#[test]
fn a_client_in_a_hurry_spoils_no_answer_of_a_patient_one() {
    let fake = Fake::start(Fleet::generated(3));
    let exporter = Setup::against(&fake).args(["--ttl", "0.2"]).start();
    exporter.scrape().assert_value("ttn_up", 1.0);
    thread::sleep(Duration::from_millis(250));
    let slow = Misbehaviour::Delay(Duration::from_millis(3000));
    fake.script(Endpoint::StatsBatch, slow);
    let hurried = send_first(&exporter, &fake, "/metrics", (SCRAPE_TIMEOUT, "0.5"));
    let patient = exporter.scrape_with_headers(&[(SCRAPE_TIMEOUT, "30")]);
    patient.assert_value("ttn_up", 1.0);
    assert_eq!(patient.all("ttn_gateway_connected").len(), 3, "{patient}");
    hurried.join().expect("an answer");
}

#[test]
fn ten_clients_in_a_hurry_make_one_collection_and_the_next_finds_its_result() {
    let fake = Fake::start(Fleet::generated(3));
    fake.set_delay(Duration::from_millis(300));
    let exporter = Setup::against(&fake).args(["--ttl", "60"]).start();
    for _ in 0..10 {
        exporter.scrape_with_headers(&[(SCRAPE_TIMEOUT, "0.15")]);
    }
    exporter.scrape().assert_value("ttn_up", 1.0);
    assert_eq!(fake.count(Endpoint::List), 1, "{exporter}");
    assert_eq!(fake.count(Endpoint::StatsBatch), 1, "{exporter}");
    assert_eq!(fake.connection_count(), 1, "{exporter}");
}

#[test]
fn all_who_wait_share_the_next_collection() {
    let fake = Fake::start(Fleet::generated(3));
    let exporter = Setup::against(&fake).args(["--ttl", "0"]).start();
    exporter.scrape();
    fake.forget();
    fake.set_delay(Duration::from_millis(500));
    let first = send_first(&exporter, &fake, "/metrics", (SCRAPE_TIMEOUT, "60"));
    let crowd = ["60", "20", "60", "30", "40", "60"];
    let crowd = crowd.map(|timeout| send(exporter.address, "/metrics", (SCRAPE_TIMEOUT, timeout)));
    for client in [first].into_iter().chain(crowd) {
        let answer = client.join().expect("an answer");
        assert!(answer.text().contains("\nttn_up 1\n"), "{answer}");
    }
    assert!(fake.count(Endpoint::StatsBatch) <= 2, "{exporter}");
}

/// It is asked for when no client has come for a while, at the start and after a scrape.
#[test]
fn the_state_of_the_key_is_not_in_the_way_of_a_scrape() {
    let fake = fake();
    fake.script(Endpoint::AuthInfo, Misbehaviour::HangBeforeHead);
    let exporter = exporter(&fake);
    exporter.scrape().assert_value("ttn_up", 1.0);
    let end = Instant::now() + PATIENCE;
    while fake.count(Endpoint::AuthInfo) == 0 {
        assert!(Instant::now() < end, "the key is not asked for\n{exporter}");
        thread::sleep(Duration::from_millis(20));
    }
    let asked = fake.records().into_iter().map(|record| record.endpoint);
    let asked: Vec<_> = asked.collect();
    let expected = [Endpoint::List, Endpoint::Stats, Endpoint::AuthInfo];
    assert_eq!(asked, expected, "{exporter}");
}

#[test]
fn more_clients_than_connections_are_all_answered_while_the_api_hangs() {
    let fake = fake();
    let exporter = exporter(&fake);
    fake.script_all(Misbehaviour::HangBeforeHead);
    let first = send_first(&exporter, &fake, "/metrics", (SCRAPE_TIMEOUT, "300"));
    let crowd = (0..80).map(|_| send(exporter.address, "/metrics", (SCRAPE_TIMEOUT, "300")));
    let crowd: Vec<_> = crowd.collect();
    let end = Instant::now() + SOON;
    let answered = || crowd.iter().filter(|client| client.is_finished()).count();
    // 64 connections, one of which is the first's.
    while answered() < 80 - 63 {
        assert!(Instant::now() < end, "{} answers\n{exporter}", answered());
        thread::sleep(Duration::from_millis(20));
    }
    assert!(!first.is_finished(), "{exporter}");
    fake.behave();
    fake.close_connections();
    for client in crowd {
        assert_eq!(client.join().expect("an answer").status, 200);
    }
}

#[test]
fn the_token_is_taken_as_bearer_and_as_the_password_of_any_user() {
    let fake = fake();
    let setup = Setup::against(&fake).args_with_file("--web-token-file", "open sesame\n");
    assert_eq!(setup.run_once().status.code(), Some(1));
    let setup = Setup::against(&fake).args_with_file("--web-token-file", "s3:same\n");
    let exporter = setup.start();
    let status = |value: &str| {
        let headers = [("Authorization", value)];
        exporter.get_with_headers("/metrics", &headers).status
    };
    assert_eq!(status("Bearer s3:same"), 200);
    // `any:s3:same`, `:s3:same`, `any:wrong`, `s3:same`
    assert_eq!(status("Basic YW55OnMzOnNhbWU="), 200);
    assert_eq!(status("basic OnMzOnNhbWU="), 200);
    assert_eq!(status("Basic YW55Ondyb25n"), 401);
    assert_eq!(status("Basic czM6c2FtZQ=="), 401);
    assert_eq!(status("Basic s3:same"), 401);
    let refused = exporter.get("/");
    assert_eq!(refused.status, 401, "{refused}");
    let offers = refused.headers.iter();
    let offers = offers.filter(|(name, _)| name == "WWW-Authenticate");
    let offers: Vec<&str> = offers.map(|(_, value)| value.as_str()).collect();
    let basic = "Basic realm=\"ttn-gateway-exporter\", charset=\"UTF-8\"";
    assert_eq!(offers, [basic, "Bearer"], "{refused}");
    assert_eq!(exporter.get("/-/healthy").status, 200);
}

/// The cluster gave no answer: what it said in an earlier collection is no answer of this one.
#[test]
fn a_request_that_the_scrape_cut_off_makes_no_gateway_disconnected() {
    let fake = Fake::start(Fleet::of([Gateway::new("gw-1")]));
    let setup = Setup::against(&fake).args(["--ttl", "4", "--timeout", TIMEOUT]);
    let exporter = setup.start();
    let scrape = exporter.scrape();
    scrape.assert_of("ttn_gateway_connected", "gw-1", Some(0.0));
    let back = Gateway::new("gw-1").connected("udp");
    fake.change(|fleet| *fleet.gateway_mut("gw-1") = back);
    fake.script_all(Misbehaviour::HangBeforeHead);
    thread::sleep(Duration::from_millis(4_100));
    for _ in 0..2 {
        let scrape = exporter.scrape_with_headers(&[(SCRAPE_TIMEOUT, "3")]);
        scrape.assert_of("ttn_gateway_connected", "gw-1", None);
        scrape.assert_value("ttn_up", 0.0);
    }
}
