//! Whoever ran the Python script keeps their command line, scrape job, dashboards and alerts.

use crate::fake::{Fake, Fleet, Gateway, Key};
use crate::harness::Setup;

fn fleet() -> Fleet {
    Fleet::of([Gateway::new("gw-1").connected("udp"), Gateway::new("gw-2")])
}

#[test]
fn the_forms_of_absl_work() {
    let fake = Fake::start(fleet());
    let (key, url) = (Key::user().token, fake.url());
    let (double, single) = (format!("--key={key}"), format!("-key={key}"));
    for arguments in [
        ["--key", &key, "--listen", "127.0.0.1:0", "--verbose"].as_slice(),
        &[&double, "--listen=127.0.0.1:0"],
        &[&single, "-listen=127.0.0.1:0", "-verbose"],
        &["-key", &key, "-listen", "127.0.0.1:0"],
    ] {
        let setup = Setup::bare().variable("TTN_SERVER", &url);
        let exporter = match arguments.iter().any(|a| a.starts_with("-listen")) {
            // The harness sees only the long form and would add its own.
            true => setup
                .variable("TTN_LISTEN", "127.0.0.1:1")
                .args(arguments.iter().copied()),
            false => setup.args(arguments.iter().copied()),
        };
        exporter.start().scrape().assert_value("ttn_up", 1.0);
    }
}

#[test]
fn switches_take_what_absl_takes() {
    let fake = Fake::start(fleet());
    for (arguments, is_verbose) in [
        (["--verbose=True"].as_slice(), true),
        (&["-verbose=t"], true),
        (&["--noverbose", "--verbose=1"], true),
        (&["--verbose", "--noverbose"], false),
        (&["-verbose", "-noverbose"], false),
        (&["--verbose=F"], false),
        (&["--verbose=False"], false),
    ] {
        let setup = Setup::against(&fake).args(arguments.iter().copied());
        let finished = setup.run_once();
        finished.assert_code(0);
        let has_debug = finished.stderr.contains("debug: ");
        assert_eq!(has_debug, is_verbose, "{finished}");
    }
    for bad in ["--verbose=maybe", "--noverbose=1", "--nolisten"] {
        let finished = Setup::against(&fake).args([bad]).run_once();
        finished.assert_code(2);
    }
}

#[test]
fn its_unused_password_is_ignored_with_a_warning() {
    let fake = Fake::start(fleet());
    let finished = Setup::against(&fake)
        .args(["--password", "hunter2"])
        .run_once();
    finished.assert_code(0).assert_stderr_has("--password");
    assert!(!finished.stderr.contains("hunter2"), "{finished}");
}

#[test]
fn its_two_metrics_are_served_at_the_root_as_it_served_them() {
    let fake = Fake::start(fleet());
    let text = Setup::against(&fake).start().get("/").text();
    for line in [
        "# HELP ttn_gateway_messages_uplink_count Number of uplink_count messages",
        "# TYPE ttn_gateway_messages_uplink_count gauge",
        "ttn_gateway_messages_uplink_count{gateway_id=\"gw-1\"} 9043",
        "ttn_gateway_messages_uplink_count{gateway_id=\"gw-2\"} 0",
        "# HELP ttn_gateway_messages_downlink_count Number of downlink_count messages",
        "# TYPE ttn_gateway_messages_downlink_count gauge",
        "ttn_gateway_messages_downlink_count{gateway_id=\"gw-1\"} 212",
        "ttn_gateway_messages_downlink_count{gateway_id=\"gw-2\"} 0",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    }
}

#[test]
fn a_gateway_that_left_counts_0_under_the_old_names() {
    let gone =
        serde_json::json!({ "connected_at": null, "disconnected_at": "2024-11-20T12:00:00Z" });
    let fake = Fake::start(Fleet::of([Gateway::new("gw-1")
        .connected("udp")
        .stats_with(gone)]));
    let scrape = Setup::against(&fake).start().scrape();
    scrape.assert_of("ttn_gateway_messages_uplink_count", "gw-1", Some(0.0));
    scrape.assert_of("ttn_gateway_messages_downlink_count", "gw-1", Some(0.0));
}
