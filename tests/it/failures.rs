//! Every failure on the way to the API: its reason, the time and the requests it costs, and
//! that all is well again by itself when it is over.

use std::thread;
use std::time::{Duration, Instant};

use crate::fake::{BlackHole, Endpoint, Fake, Fleet, Gateway, Misbehaviour};
use crate::harness::samples::Scrape;
use crate::harness::{Exporter, Setup};

/// What the tests' scrapes say to have, so that their budget is half a second less.
const SCRAPE_TIMEOUT: (&str, &str) = ("X-Prometheus-Scrape-Timeout-Seconds", "3");
/// The budget, and what a loaded machine adds to it.
const ANSWER_TIME_MAX: Duration = Duration::from_millis(2500 + 1500);
const TTL: Duration = Duration::from_millis(300);

fn two() -> Fleet {
    Fleet::of([
        Gateway::new("gw-1").connected("udp"),
        Gateway::new("gw-2").connected("ws"),
    ])
}

fn start(fake: &Fake) -> Exporter {
    let arguments = ["--timeout", "1", "--ttl", "0.3", "--list-ttl", "0.3"];
    Setup::against(fake).args(arguments).start()
}

#[track_caller]
fn scrape_in_time(exporter: &Exporter) -> Scrape {
    exporter.scrape_within(ANSWER_TIME_MAX, &[SCRAPE_TIMEOUT])
}

#[track_caller]
fn check_recovery(exporter: &Exporter) {
    let scrape = exporter.scrape_until("recovery", |scrape| scrape.value("ttn_up") == 1.0);
    scrape.assert_of("ttn_gateway_connected", "gw-1", Some(1.0));
    scrape.assert_of("ttn_gateway_connected", "gw-2", Some(1.0));
}

/// From the start on, the list ends so.
#[track_caller]
fn check_list(misbehaviour: Misbehaviour, reason: &str) {
    let fake = Fake::start(two());
    fake.script(Endpoint::List, misbehaviour);
    let exporter = start(&fake);
    let scrape = scrape_in_time(&exporter);
    scrape.assert_value("ttn_up", 0.0);
    assert_eq!(scrape.reasons(), [(reason.to_owned(), 1.0)], "{scrape}");
    assert!(scrape.all("ttn_gateway_connected").is_empty(), "{scrape}");
    // The question about the key may have left a connection, which may be the one that breaks.
    let is_sent_again = matches!(reason, "timeout" | "connection_lost");
    let requests = fake.request_count();
    assert!(requests <= 1 + usize::from(is_sent_again), "{scrape}");
    fake.behave();
    check_recovery(&exporter);
}

/// After one good collection, the batch ends so.
#[track_caller]
fn check_batch(misbehaviour: Misbehaviour, reason: &str) {
    check_batch_with(misbehaviour, reason, 1);
}

#[track_caller]
fn check_batch_with(misbehaviour: Misbehaviour, reason: &str, requests_max: usize) {
    let fake = Fake::start(two());
    let exporter = Setup::against(&fake)
        .args(["--timeout", "1", "--ttl", "0.3"])
        .start();
    exporter.scrape().assert_value("ttn_up", 1.0);
    thread::sleep(TTL + Duration::from_millis(50));
    fake.close_connections();
    thread::sleep(Duration::from_millis(50));
    fake.forget();
    fake.script(Endpoint::StatsBatch, misbehaviour);
    let scrape = scrape_in_time(&exporter);
    scrape.assert_value("ttn_up", 0.0);
    // One for each gateway of which nothing is known.
    assert_eq!(scrape.reasons(), [(reason.to_owned(), 2.0)], "{scrape}");
    for id in ["gw-1", "gw-2"] {
        scrape.assert_of("ttn_gateway_connected", id, None);
        scrape.assert_of("ttn_gateway_scrape_success", id, Some(0.0));
    }
    let requests = fake.request_count();
    assert!(
        (1..=requests_max).contains(&requests),
        "{requests} requests\n{scrape}"
    );
    fake.behave();
    check_recovery(&exporter);
}

#[test]
fn each_status_of_the_list_has_its_reason() {
    for (status, reason) in [
        (400, "client_error"),
        (401, "unauthorized"),
        (403, "forbidden"),
        (404, "not_found"),
        (405, "client_error"),
        (500, "server_error"),
        (501, "server_error"),
        (502, "server_error"),
        (503, "server_error"),
        (504, "server_error"),
    ] {
        check_list(Misbehaviour::status(status), reason);
    }
}

#[test]
fn each_status_of_the_stats_has_its_reason() {
    for (status, reason) in [
        (401, "unauthorized"),
        (500, "server_error"),
        (502, "server_error"),
        (503, "server_error"),
        (504, "server_error"),
    ] {
        check_batch(Misbehaviour::status(status), reason);
    }
}

#[test]
fn an_answer_that_does_not_come_whole_in_time_is_a_timeout() {
    for misbehaviour in [
        Misbehaviour::HangBeforeHead,
        Misbehaviour::HangAfterHead,
        Misbehaviour::Trickle,
        Misbehaviour::TrickleHead,
        Misbehaviour::Delay(Duration::from_secs(2)),
    ] {
        check_list(misbehaviour.clone(), "timeout");
        check_batch_with(misbehaviour, "timeout", 2);
    }
}

#[test]
fn an_answer_that_breaks_off_is_a_lost_connection() {
    for misbehaviour in [
        Misbehaviour::CutShort,
        Misbehaviour::CloseUnanswered,
        Misbehaviour::Reset,
        Misbehaviour::Raw(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec()),
    ] {
        check_list(misbehaviour.clone(), "connection_lost");
        // The exporter cannot tell a kept connection that was closed from one that breaks.
        check_batch_with(misbehaviour, "connection_lost", 2);
    }
}

#[test]
fn bytes_that_are_no_http_cost_one_request() {
    let nonsense = Misbehaviour::Raw(b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n".to_vec());
    check_list(nonsense.clone(), "connection_lost");
    check_batch(nonsense, "connection_lost");
}

#[test]
fn an_answer_of_another_form_is_recognized() {
    for (misbehaviour, reason) in [
        (Misbehaviour::NotJson, "not_json"),
        (Misbehaviour::Html, "not_json"),
        (Misbehaviour::WrongShape, "shape"),
        (
            Misbehaviour::json(200, r#"{"gateways":5,"entries":[1]}"#),
            "shape",
        ),
        (Misbehaviour::json(200, ""), "not_json"),
        (
            Misbehaviour::Redirect("https://192.0.2.1/".into()),
            "redirect",
        ),
    ] {
        check_list(misbehaviour.clone(), reason);
        check_batch(misbehaviour, reason);
    }
}

#[test]
fn json_of_somebody_else_is_no_answer_of_the_api() {
    for body in [
        r#"{"status":"maintenance"}"#,
        r#"{"detail":"Service Unavailable","status":503}"#,
        r#"{"code":503}"#,
        r#"{"entries":null,"gateways":null}"#,
        "null",
    ] {
        check_list(Misbehaviour::json(200, body), "shape");
        check_batch(Misbehaviour::json(200, body), "shape");
    }
}

#[test]
fn json_as_deep_as_a_well_is_refused() {
    let deep = "[".repeat(200_000);
    check_list(
        Misbehaviour::json(200, &format!("{{\"gateways\":{deep}")),
        "not_json",
    );
    let unknown = format!("{{\"entries\":{{\"gw-1\":{{\"x\":{deep}");
    check_batch(Misbehaviour::json(200, &unknown), "not_json");
}

#[test]
fn an_answer_without_an_end_is_cut_off_and_takes_no_memory() {
    for misbehaviour in [
        Misbehaviour::Endless,
        Misbehaviour::TooLarge(200 << 20),
        Misbehaviour::GzipBomb,
    ] {
        let fake = Fake::start(two());
        let exporter = start(&fake);
        scrape_in_time(&exporter);
        for endpoint in [Endpoint::List, Endpoint::StatsBatch] {
            fake.script(endpoint, misbehaviour.clone());
            thread::sleep(TTL);
            let scrape = scrape_in_time(&exporter);
            scrape.assert_value("ttn_up", 0.0);
            // A slow machine may need more than the second that a request has.
            let is_cut = scrape.errors("too_large") + scrape.errors("timeout") > 0.0;
            scrape.assert(is_cut, &format!("{misbehaviour:?}"));
            let resident = scrape.value("process_resident_memory_bytes");
            scrape.assert(
                resident < 96e6,
                &format!("{resident} bytes, {misbehaviour:?}"),
            );
        }
        fake.behave();
        check_recovery(&exporter);
    }
}

#[test]
fn a_server_that_takes_no_connection_has_its_reason() {
    let fake = Fake::start(two());
    fake.stop();
    let exporter = start(&fake);
    let scrape = scrape_in_time(&exporter);
    assert_eq!(scrape.reasons(), [("connect".to_owned(), 1.0)], "{scrape}");
    exporter.wait_for_log("refused");
    fake.resume();
    check_recovery(&exporter);
}

#[test]
fn a_server_that_ignores_connections_is_a_timeout() {
    let hole = BlackHole::open();
    let setup = Setup::bare().variable("TTN_API_KEY", "NNSXS.A.B");
    let exporter = setup
        .args(["--server", &hole.url(), "--timeout", "1"])
        .start();
    let scrape = scrape_in_time(&exporter);
    assert_eq!(scrape.reasons(), [("timeout".to_owned(), 1.0)], "{scrape}");
}

#[test]
fn a_name_without_an_address_has_its_reason() {
    let setup = Setup::bare().variable("TTN_API_KEY", "NNSXS.A.B");
    let arguments = ["--server", "https://no-such-host.invalid", "--timeout", "1"];
    let exporter = setup.args(arguments).start();
    let scrape = scrape_in_time(&exporter);
    assert_eq!(scrape.reasons(), [("dns".to_owned(), 1.0)], "{scrape}");
    scrape.assert_value("ttn_up", 0.0);
}

#[test]
fn the_budget_of_a_scrape_is_kept_by_whatever_hangs() {
    let fake = Fake::start(two());
    fake.script_all(Misbehaviour::HangBeforeHead);
    let exporter = Setup::against(&fake).args(["--timeout", "30"]).start();
    let header = ("X-Prometheus-Scrape-Timeout-Seconds", "1.5");
    let scrape = exporter.scrape_within(Duration::from_millis(1000 + 1000), &[header]);
    scrape.assert_value("ttn_up", 0.0);
}

#[test]
fn without_a_budget_a_scrape_takes_at_most_twice_the_timeout() {
    let fake = Fake::start(two());
    fake.set_delay(Duration::from_millis(700));
    fake.script(Endpoint::StatsBatch, Misbehaviour::HangBeforeHead);
    let exporter = Setup::against(&fake).args(["--timeout", "1"]).start();
    exporter
        .scrape_within(Duration::from_millis(2000 + 1000), &[])
        .assert_value("ttn_up", 0.0);
}

#[test]
fn a_failure_is_remembered_for_the_ttl() {
    let fake = Fake::start(two());
    fake.script_all(Misbehaviour::HangBeforeHead);
    let exporter = Setup::against(&fake)
        .args(["--timeout", "1", "--ttl", "20"])
        .start();
    scrape_in_time(&exporter);
    let begin = Instant::now();
    for _ in 0..10 {
        exporter.scrape().assert_value("ttn_up", 0.0);
    }
    assert!(begin.elapsed() < Duration::from_secs(1), "{exporter}");
    assert_eq!(fake.request_count(), 1, "{exporter}");
}

#[test]
fn a_failed_list_keeps_the_gateways_and_stats_never_outlive_their_ttl() {
    let fake = Fake::start(two());
    let exporter = start(&fake);
    exporter.scrape().assert_value("ttn_up", 1.0);
    fake.script(Endpoint::List, Misbehaviour::status(503));
    thread::sleep(TTL);
    let scrape = exporter.scrape();
    scrape.assert_value("ttn_up", 0.0);
    scrape.assert_of("ttn_gateway_connected", "gw-1", Some(1.0));
    assert_eq!(scrape.errors("server_error"), 1.0, "{scrape}");
    fake.script_all(Misbehaviour::status(503));
    thread::sleep(TTL);
    let scrape = exporter.scrape();
    scrape.assert_of("ttn_gateway_connected", "gw-1", None);
    scrape.assert_of("ttn_gateway_scrape_success", "gw-1", Some(0.0));
    fake.behave();
    check_recovery(&exporter);
}

#[test]
fn after_429_there_is_silence_for_as_long_as_the_server_said() {
    let fake = Fake::start(two());
    let exporter = start(&fake);
    exporter.scrape();
    thread::sleep(TTL);
    fake.forget();
    fake.script_times(
        Endpoint::StatsBatch,
        1,
        Misbehaviour::RateLimited { retry_seconds: 2 },
    );
    let begin = Instant::now();
    exporter.scrape().assert_value("ttn_up", 0.0);
    while begin.elapsed() < Duration::from_millis(1500) {
        let scrape = exporter.scrape();
        scrape.assert_value("ttn_up", 0.0);
        scrape.assert(scrape.errors("rate_limited") >= 1.0, "rate_limited");
        scrape.assert_of("ttn_gateway_connected", "gw-1", None);
        thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(fake.count(Endpoint::StatsBatch), 1, "{exporter}");
    check_recovery(&exporter);
    assert!(begin.elapsed() >= Duration::from_secs(2), "{exporter}");
}

#[test]
fn an_allowance_that_is_used_up_is_heeded_before_any_429() {
    let fake = Fake::start(two());
    let kind = Misbehaviour::AllowanceUsedUp { reset_seconds: 2 };
    fake.script_times(Endpoint::StatsBatch, 1, kind);
    let exporter = start(&fake);
    let scrape = exporter.scrape();
    scrape.assert_value("ttn_up", 1.0);
    scrape.assert_value("ttn_exporter_api_rate_limit_available_requests", 0.0);
    scrape.assert_value("ttn_exporter_api_rate_limit_requests", 60.0);
    thread::sleep(TTL + Duration::from_millis(50));
    let scrape = exporter.scrape();
    scrape.assert_value("ttn_up", 0.0);
    scrape.assert(scrape.errors("rate_limited") >= 1.0, "rate_limited");
    assert_eq!(fake.count(Endpoint::StatsBatch), 1, "{scrape}");
    check_recovery(&exporter);
}

#[test]
fn fresh_stats_are_served_in_the_silence() {
    let fake = Fake::start(two());
    let kind = Misbehaviour::AllowanceUsedUp { reset_seconds: 2 };
    fake.script(Endpoint::StatsBatch, kind);
    let exporter = Setup::against(&fake).args(["--ttl", "20"]).start();
    exporter.scrape().assert_value("ttn_up", 1.0);
    exporter
        .scrape()
        .assert_of("ttn_gateway_connected", "gw-1", Some(1.0));
}

#[test]
fn a_server_cannot_silence_the_exporter_for_ever() {
    for retry in [
        "18446744073709551615",
        "-1",
        "soon",
        "99999999999999999999",
        "0",
    ] {
        let fake = Fake::start(two());
        let refusal = Misbehaviour::status(429);
        let Misbehaviour::Answer(answer) = refusal else {
            unreachable!();
        };
        let answer = answer.with_header("X-Rate-Limit-Retry", retry);
        fake.script(Endpoint::List, Misbehaviour::Answer(answer));
        let exporter = start(&fake);
        for _ in 0..2 {
            let scrape = scrape_in_time(&exporter);
            scrape.assert_value("ttn_up", 0.0);
            assert_eq!(scrape.errors("internal"), 0.0, "{retry}: {scrape}");
            thread::sleep(TTL);
        }
    }
}

#[test]
fn the_log_speaks_when_a_state_changes_and_is_silent_in_between() {
    let fake = Fake::start(two());
    let exporter = Setup::against(&fake)
        .args(["--ttl", "0.1", "--list-ttl", "0.1"])
        .start();
    exporter.scrape();
    let quiet = exporter.stderr().lines().count();
    fake.script_all(Misbehaviour::status(503));
    for _ in 0..15 {
        thread::sleep(Duration::from_millis(110));
        exporter.scrape();
    }
    let failing = exporter.stderr().lines().count() - quiet;
    assert!((1..=2).contains(&failing), "{exporter}");
    exporter.wait_for_log("503");
    fake.behave();
    thread::sleep(Duration::from_millis(150));
    exporter.scrape().assert_value("ttn_up", 1.0);
    exporter.wait_for_log("over (server_error)");
    let all = exporter.stderr().lines().count() - quiet;
    assert!(all > failing && all <= failing + 2, "{exporter}");
}
