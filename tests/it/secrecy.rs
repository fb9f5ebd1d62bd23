//! The API key is nowhere but in the requests to the API.

use std::fs;

use serde_json::json;

use crate::fake::{Endpoint, Fake, Fleet, Gateway, Key, Misbehaviour};
use crate::harness::{Exporter, Finished, Setup};

/// A part of the secret of [`Key::user`]: eight letters that occur nowhere by chance.
const TRACE: &str = "UUUUUUUU";

fn one() -> Fleet {
    Fleet::of([Gateway::new("gw-1").connected("udp")])
}

#[track_caller]
fn assert_silent(text: &str, what: &str) {
    assert!(!text.contains(TRACE), "the key is in {what}:\n{text}");
}

#[track_caller]
fn assert_run_silent(finished: &Finished) {
    assert_silent(&finished.stdout, "stdout");
    assert_silent(&finished.stderr, "stderr");
}

/// Asks for everything there is, and looks into everything that came.
#[track_caller]
fn assert_exporter_silent(exporter: &Exporter) {
    for path in ["/", "/metrics", "/-/healthy", "/nothing"] {
        for accept in ["*/*", "text/html"] {
            let response = exporter.get_with_headers(path, &[("Accept", accept)]);
            assert_silent(&format!("{:?}{}", response.headers, response.text()), path);
        }
    }
    assert_silent(&exporter.stdout(), "stdout");
    assert_silent(&exporter.stderr(), "the log");
}

#[test]
fn the_key_goes_to_the_api_and_to_no_output_of_any_log_level() {
    for level in ["info", "debug", "trace", "trace,ureq=trace,rustls=trace"] {
        let fake = Fake::start(one());
        let exporter = Setup::against(&fake)
            .variable("RUST_LOG", level)
            .args(["-v"])
            .start();
        assert_exporter_silent(&exporter);
        let records = fake.records();
        assert!(records.len() >= 2, "{exporter}");
        for record in records {
            let expected = format!("Bearer {}", Key::user().token);
            assert_eq!(record.request.header("Authorization"), Some(&*expected));
            assert_silent(&record.request.target, "a URL");
            assert_silent(&record.request.body_text(), "a body");
        }
    }
}

#[test]
fn the_key_is_in_no_message_of_a_failure() {
    let echo = format!("<html>your key {} is wrong</html>", Key::user().token);
    for misbehaviour in [
        Misbehaviour::status(401),
        Misbehaviour::status(403),
        Misbehaviour::status(500),
        Misbehaviour::Reset,
        Misbehaviour::CutShort,
        Misbehaviour::NotJson,
        Misbehaviour::WrongShape,
        Misbehaviour::Html,
        Misbehaviour::Redirect("http://127.0.0.1:1/".into()),
        Misbehaviour::Raw(echo.clone().into_bytes()),
        Misbehaviour::json(502, &echo),
    ] {
        let fake = Fake::start(one());
        fake.script_all(misbehaviour.clone());
        let setup = Setup::against(&fake).variable("RUST_LOG", "trace");
        let exporter = setup.args(["--ttl", "0.1", "--timeout", "1"]).start();
        exporter.scrape();
        assert_exporter_silent(&exporter);
    }
}

/// An access token is taken as a key as well.
#[test]
fn an_access_token_is_in_no_message_of_a_failure() {
    let mut key = Key::user();
    key.token = key.token.replace("NNSXS", "MFRWG");
    let echo = format!("your token {} is wrong", key.token);
    for misbehaviour in [
        Misbehaviour::json(403, &format!(r#"{{"code":7,"message":"{echo}"}}"#)),
        Misbehaviour::json(502, &echo),
        Misbehaviour::Redirect(format!("http://127.0.0.1:1/?{echo}")),
    ] {
        let fake = Fake::start(one().with_key(key.clone()));
        fake.set_warning(&echo);
        fake.script_all(misbehaviour);
        let exporter = Setup::with_key(&fake, &key).args(["-v"]).start();
        exporter.scrape();
        assert_exporter_silent(&exporter);
    }
}

#[test]
fn an_api_that_repeats_the_key_gets_it_into_no_label_and_no_page() {
    let echo = format!("key {}", Key::user().token);
    let gateway = Gateway::new("gw-1").named(&echo).connected(&echo);
    let registered = json!({ "frequency_plan_ids": [&echo], "gateway_server_address": &echo });
    let status = json!({ "versions": { &echo: &echo }, "metrics": { &echo: 1 } });
    let stats = json!({ "last_status": status });
    let gateway = gateway.registered(registered).stats_with(stats);
    let fake = Fake::start(Fleet::of([gateway]));
    let exporter = Exporter::start(&fake);
    let scrape = exporter.scrape();
    assert_silent(&scrape.text, "the metrics");
    scrape.assert(scrape.text.contains("name=\"key NNSXS.***\""), "a mask");
    let page = exporter.get_with_headers("/", &[("Accept", "text/html")]);
    assert_silent(&page.text(), "the page");
    assert_silent(&exporter.stderr(), "the log");
}

#[test]
fn the_key_is_in_no_message_about_usage() {
    let key = Key::user().token;
    let fake = Fake::start(one());
    for arguments in [
        [&*key, "", ""],
        ["--key-file", &key, ""],
        ["--ttl", &key, ""],
        ["--server", &key, ""],
        ["--gateway", &key, ""],
        ["--key", &key, "--nonsense"],
        ["--listen", &key, ""],
        ["--allow-host", &key, ""],
    ] {
        let arguments = arguments.into_iter().filter(|a| !a.is_empty());
        let finished = Setup::bare().args(arguments).run();
        assert!(!finished.status.success(), "{finished}");
        assert_silent(&finished.stderr, "stderr");
    }
    assert_run_silent(&Setup::against(&fake).args(["--key", &key]).run_once());
}

// The command line is read from /proc.
#[cfg(target_os = "linux")]
#[test]
fn the_process_shows_no_key_when_it_comes_from_a_file_or_the_environment() {
    let fake = Fake::start(one());
    let from_file = Setup::bare()
        .args(["--server", &fake.url()])
        .args_with_file("--key-file", &Key::user().token)
        .start();
    for exporter in [from_file, Exporter::start(&fake)] {
        exporter.scrape();
        let path = format!("/proc/{}/cmdline", exporter.process_id());
        assert_silent(&fs::read_to_string(path).unwrap(), "the command line");
    }
}

#[test]
fn no_redirect_gets_the_key() {
    let thief = Fake::start(one());
    // One gateway is asked for alone, without a batch.
    for endpoint in [Endpoint::List, Endpoint::Stats] {
        let fake = Fake::start(one());
        let url = format!("{}/api/v3/gateways", thief.url());
        fake.script(endpoint, Misbehaviour::Redirect(url));
        let scrape = Exporter::start(&fake).scrape();
        assert_eq!(scrape.errors("redirect"), 1.0, "{scrape}");
        scrape.assert_value("ttn_up", 0.0);
    }
    assert_eq!(thief.connection_count(), 0);
}
