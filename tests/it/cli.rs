//! The command line: every flag, every variable, bad usage, exit codes, signals.

use crate::fake::{Endpoint, Fake, Fleet, Gateway, Key, Misbehaviour, fleet};
use crate::harness::{Exporter, Finished, Setup};

fn one() -> Fleet {
    Fleet::of([Gateway::new("gw-1").connected("udp")])
}

#[track_caller]
fn check_usage(arguments: &[&str], words: &[&str]) -> Finished {
    let finished = Setup::bare().args(arguments.iter().copied()).run();
    finished.assert_code(2);
    assert_eq!(finished.stderr.trim_end().lines().count(), 1, "{finished}");
    assert_eq!(finished.stdout, "", "{finished}");
    for word in words {
        finished.assert_stderr_has(word);
    }
    finished
}

#[test]
fn help_names_every_flag_and_version_the_version() {
    let help = Setup::bare().args(["--help"]).run();
    help.assert_code(0);
    for flag in [
        "--listen",
        "--key",
        "--key-file",
        "--server",
        "--gateway",
        "--ttl",
        "--list-ttl",
        "--timeout",
        "--once",
        "--verbose",
        "-v",
        "--help",
        "--version",
        "--allow-host",
        "--insecure-http",
        "--organization",
        "--user",
        "--ca-file",
    ] {
        assert!(help.stdout.contains(flag), "{flag}\n{help}");
    }
    for variable in [
        "TTN_LISTEN",
        "TTN_API_KEY",
        "TTN_API_KEY_FILE",
        "TTN_SERVER",
    ] {
        assert!(help.stdout.contains(variable), "{variable}\n{help}");
    }
    let version = Setup::bare().args(["--version"]).run();
    version.assert_code(0);
    assert!(
        version.stdout.contains(env!("CARGO_PKG_VERSION")),
        "{version}"
    );
}

#[test]
fn without_a_key_it_says_how_to_give_one() {
    let finished = Setup::bare().run();
    assert!(!finished.status.success(), "{finished}");
    finished
        .assert_stderr_has("Provide API key!")
        .assert_stderr_has("--key-file");
}

#[test]
fn bad_usage_is_one_line_with_the_flag_and_the_value() {
    check_usage(
        &["--key", "k", "--listen", "nowhere"],
        &["--listen", "nowhere"],
    );
    check_usage(
        &["--key", "k", "--listen", ":99999"],
        &["--listen", ":99999"],
    );
    check_usage(&["--key", "k", "--ttl", "soon"], &["--ttl", "soon"]);
    check_usage(&["--key", "k", "--ttl", "-1"], &["--ttl", "-1"]);
    check_usage(&["--key", "k", "--timeout", "0"], &["--timeout", "0"]);
    check_usage(&["--key", "k", "--list-ttl", "NaN"], &["--list-ttl", "NaN"]);
    check_usage(
        &["--key", "k", "--server", "ftp://x"],
        &["--server", "ftp://x"],
    );
    check_usage(
        &["--key", "k", "--gateway", "../../x"],
        &["--gateway", "../../x"],
    );
    check_usage(&["--key", "k", "--frobnicate"], &["--frobnicate"]);
    check_usage(&["--key", "k", "surplus"], &["surplus"]);
    check_usage(&["--key", "k", "--key-file", "f"], &["--key", "--key-file"]);
    check_usage(&["--key"], &["--key"]);
    check_usage(
        &["--key", "k", "--server", "http://192.0.2.1"],
        &["--insecure-http"],
    );
}

#[test]
fn a_url_with_user_information_is_refused_and_not_repeated() {
    let arguments = [
        "--key",
        "k",
        "--server",
        "https://user:hunter2@stack.example",
    ];
    let finished = check_usage(&arguments, &["--server"]);
    assert!(!finished.stderr.contains("hunter2"), "{finished}");
}

#[test]
fn a_key_that_fits_into_no_header_is_refused_without_an_echo() {
    for key in [
        "NNSXS.A.sec\nret",
        "NNSXS.A.sec\u{7f}ret",
        "NNSXS.A.secrét",
        "sec ret",
    ] {
        let finished = check_usage(&["--key", key], &["--key"]);
        assert!(!finished.stderr.contains("sec"), "{finished}");
        let finished = Setup::bare().variable("TTN_API_KEY", key).run();
        finished.assert_code(2).assert_stderr_has("TTN_API_KEY");
        assert!(!finished.stderr.contains("sec"), "{finished}");
    }
}

#[test]
fn a_key_file_may_end_with_white_space_and_must_be_there() {
    let fake = Fake::start(one());
    let setup = Setup::bare().args(["--server", &fake.url()]);
    let contents = format!("{}  \r\n\n", Key::user().token);
    setup
        .args_with_file("--key-file", &contents)
        .run_once()
        .assert_code(0);
    let missing = Setup::bare()
        .args(["--once", "--key-file", "no-such-file"])
        .run();
    assert!(!missing.status.success(), "{missing}");
    missing.assert_stderr_has("no-such-file");
    let empty = Setup::bare().args_with_file("--key-file", "\n").run_once();
    assert!(!empty.status.success(), "{empty}");
    empty.assert_stderr_has("key-file");
}

#[test]
fn a_flag_wins_over_its_variable() {
    let fake = Fake::start(one());
    let other = Fake::start(one());
    let setup = Setup::against(&fake)
        .variable("TTN_SERVER", &other.url())
        .variable("TTN_TIMEOUT", "3")
        .variable("TTN_TTL", "7")
        .variable("TTN_LIST_TTL", "7")
        .variable("TTN_LISTEN", "127.0.0.1:0");
    setup.start().scrape().assert_value("ttn_up", 1.0);
    assert_eq!((fake.count(Endpoint::List), other.request_count()), (1, 0));
    let bad = Setup::against(&fake).variable("TTN_TTL", "soon").run_once();
    bad.assert_code(2)
        .assert_stderr_has("TTN_TTL")
        .assert_stderr_has("soon");
}

#[test]
fn a_key_on_the_command_line_wins_over_a_key_file_in_the_environment() {
    let fake = Fake::start(one());
    let setup = Setup::bare().args(["--server", &fake.url(), "--key", &Key::user().token]);
    let file = setup.file("other", "NNSXS.wrong.key");
    setup
        .variable("TTN_API_KEY_FILE", &file)
        .run_once()
        .assert_code(0);
}

#[test]
fn listen_takes_each_form() {
    let fake = Fake::start(one());
    for listen in [":0", "127.0.0.1:0", "localhost:0", "0.0.0.0:0"] {
        let exporter = Setup::against(&fake).args(["--listen", listen]).start();
        assert_ne!(exporter.address.port(), 0, "{exporter}");
        exporter.scrape().assert_value("ttn_up", 1.0);
    }
    if std::net::TcpListener::bind("[::1]:0").is_ok() {
        for listen in ["[::1]:0", "[::]:0"] {
            Setup::against(&fake)
                .args(["--listen", listen])
                .start()
                .scrape();
        }
    }
}

#[test]
fn a_port_that_is_taken_is_an_error_that_names_it() {
    let fake = Fake::start(one());
    let taken = fake.address().to_string();
    let finished = Setup::against(&fake).args(["--listen", &taken]).run();
    finished.assert_code(1).assert_stderr_has(&taken);
}

#[test]
fn once_prints_the_metrics_and_says_by_its_status_if_all_were_read() {
    let fake = Fake::start(one());
    let finished = Setup::against(&fake).run_once();
    finished.assert_code(0);
    let scrape = finished.scrape();
    scrape.assert_of("ttn_gateway_connected", "gw-1", Some(1.0));
    fake.script(Endpoint::StatsBatch, Misbehaviour::status(500));
    fake.script(Endpoint::Stats, Misbehaviour::status(500));
    let finished = Setup::against(&fake).run_once();
    finished.assert_code(1).assert_stderr_has("500");
    finished.scrape().assert_value("ttn_up", 0.0);
    let finished = Setup::bare()
        .args(["--server", &fake.url(), "--key", &fleet::token('X')])
        .run_once();
    finished.assert_code(1).assert_stderr_has("401");
}

#[test]
fn gateways_named_by_hand_need_no_list() {
    let fake = Fake::start(Fleet::generated(5));
    let setup = Setup::against(&fake).args(["--gateway", "gw-00002", "--gateway=gw-00004"]);
    let scrape = setup.run_once().assert_code(0).scrape();
    assert_eq!(scrape.all("ttn_gateway_connected").len(), 2, "{scrape}");
    assert_eq!(fake.count(Endpoint::List), 0);
}

#[test]
fn signals_end_it_cleanly() {
    let fake = Fake::start(one());
    for name in ["TERM", "INT", "HUP"] {
        let exporter = Exporter::start(&fake);
        exporter.scrape();
        exporter.signal(name);
        assert_eq!(exporter.wait().code(), Some(0), "{name}\n{exporter}");
    }
}

#[test]
fn verbose_says_what_is_done_and_the_default_says_little() {
    let fake = Fake::start(one());
    let quiet = Exporter::start(&fake);
    quiet.scrape();
    let loud = Setup::against(&fake).args(["--verbose"]).start();
    loud.scrape();
    assert!(
        loud.stderr().lines().count() > quiet.stderr().lines().count(),
        "{loud}"
    );
    assert!(quiet.stderr().lines().count() <= 3, "{quiet}");
}

#[test]
fn an_api_that_is_down_at_the_start_is_no_reason_to_exit() {
    let fake = Fake::start(one());
    fake.stop();
    let exporter = Setup::against(&fake).args(["--ttl", "0.2"]).start();
    exporter.scrape().assert_value("ttn_up", 0.0);
    fake.resume();
    exporter.scrape_until("ttn_up 1", |scrape| scrape.value("ttn_up") == 1.0);
}
