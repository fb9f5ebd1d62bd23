//! The command line: every flag, every variable, bad usage, exit codes, signals.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;

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
        "--exclude",
        "--no-locations",
    ] {
        assert!(help.stdout.contains(flag), "{flag}\n{help}");
    }
    for variable in [
        "TTN_LISTEN",
        "TTN_API_KEY",
        "TTN_API_KEY_FILE",
        "TTN_SERVER",
        "TTN_EXCLUDE",
        "TTN_NO_LOCATIONS",
        "TTN_INSECURE_HTTP",
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

/// `check_usage` counts the lines.
#[test]
fn what_was_typed_breaks_no_line_and_an_empty_file_name_is_bad_usage() {
    check_usage(&["--key", "k", "--no\nsuch"], &["invalid option"]);
    check_usage(&["--key", "k", "sur\nplus"], &["unexpected"]);
    for flag in ["--key-file", "--ca-file", "--web-token-file"] {
        let key: &[&str] = if flag == "--key-file" {
            &[]
        } else {
            &["--key", "k"]
        };
        check_usage(&[key, &[flag, ""]].concat(), &[flag, "names no file"]);
    }
    let missing = Setup::bare()
        .args(["--once", "--key-file", "no\nfile"])
        .run();
    missing.assert_code(1);
    assert_eq!(missing.stderr.trim_end().lines().count(), 1, "{missing}");
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
    for name in crate::stopping::signals() {
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

#[test]
fn a_port_alone_is_an_error_that_says_how_to_write_it() {
    check_usage(&["--key", "k", "--listen", "9714"], &["use :9714"]);
}

/// Served on IPv4 alone, it would be another program that answers over IPv6.
#[test]
fn all_interfaces_are_all_or_an_error() {
    for address in ["[::]:0", "[::1]:0", "0.0.0.0:0", "127.0.0.1:0"] {
        let Ok(taken) = TcpListener::bind(address) else {
            eprintln!("NOT RUN, since this machine does not have it: {address}");
            continue;
        };
        let port = taken.local_addr().expect("an address").port();
        let listen = format!(":{port}");
        let finished = Setup::bare()
            .args(["--key", "k", "--listen", &listen])
            .run();
        finished.assert_code(1).assert_stderr_has(&listen);
    }
}

#[test]
fn white_space_around_a_key_is_no_part_of_it() {
    let fake = Fake::start(one());
    for (before, after) in [(" ", ""), ("\n\t", " \n"), ("\u{feff}", "\r\n")] {
        let contents = format!("{before}{}{after}", Key::user().token);
        let setup = Setup::bare().args(["--server", &fake.url()]);
        let finished = setup.args_with_file("--key-file", &contents).run_once();
        finished.assert_code(0);
    }
}

#[test]
fn a_file_with_more_than_a_key_is_an_error_that_says_what_it_is() {
    for (contents, word) in [
        ("NNSXS.A.SECRET\nNNSXS.B.SECRET\n", "more than one line"),
        ("\"NNSXS.A.SECRET\"", "quotes"),
        ("Bearer NNSXS.A.SECRET", "Bearer"),
        ("export TTN_API_KEY=NNSXS.A.SECRET", "variable"),
        ("TTN_API_KEY=NNSXS.A.SECRET", "variable"),
    ] {
        let finished = Setup::bare()
            .args_with_file("--key-file", contents)
            .run_once();
        finished.assert_code(1).assert_stderr_has(word);
        assert!(!finished.stderr.contains("SECRET"), "{finished}");
    }
}

#[test]
fn a_variable_that_names_nothing_is_bad_usage() {
    for variable in ["TTN_GATEWAY", "TTN_EXCLUDE", "TTN_ALLOW_HOST"] {
        let setup = Setup::bare().args(["--key", "k"]);
        let finished = setup.variable(variable, " , ").run();
        finished.assert_code(2).assert_stderr_has(variable);
    }
    check_usage(&["--key", "k", "--gateway", ""], &["--gateway"]);
}

#[test]
fn plain_http_beyond_this_machine_can_be_allowed_by_a_variable() {
    let run = |value| {
        let arguments = [
            "--key",
            "k",
            "--server",
            "http://192.0.2.1",
            "--timeout",
            "0.1",
        ];
        let setup = Setup::bare().args(arguments);
        setup.variable("TTN_INSECURE_HTTP", value).run_once()
    };
    for value in ["true", "1"] {
        run(value).assert_code(1);
    }
    for value in ["false", "0", ""] {
        run(value)
            .assert_code(2)
            .assert_stderr_has("--insecure-http");
    }
    run("maybe")
        .assert_code(2)
        .assert_stderr_has("TTN_INSECURE_HTTP");
}

#[test]
fn a_gateway_server_with_an_alias_is_asked_at_its_url() {
    let gateway = Gateway::new("gw-1")
        .connected("udp")
        .at("alias.example.com:1700")
        .really_at("127.0.0.2");
    let fake = Fake::start(Fleet::of([gateway]));
    let other = fake.sibling("127.0.0.2:0", None).expect("a free port");
    let url = other.url();
    for name in ["alias.example.com", "ALIAS.example.com."] {
        let alias = format!("{name}={url}");
        let setup = Setup::against(&fake).args(["--allow-host", &alias]);
        setup.run_once().assert_code(0);
    }
    assert_eq!(fake.count(Endpoint::Stats), 0);
    assert_eq!(other.count(Endpoint::Stats), 2);
    Setup::against(&fake)
        .run_once()
        .assert_code(1)
        .assert_stderr_has("alias.example.com");
    // Whoever is not found where its address says is looked for at every host that is allowed.
    let alias = format!("other_host.lan={url}");
    let setup = Setup::against(&fake).args(["--allow-host", &alias]);
    setup.run_once().assert_code(0);
}

#[test]
fn a_proxy_that_cannot_be_used_ends_the_start() {
    for variable in ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        for value in [
            "socks5://u:hunter2@127.0.0.1:1080",
            "http://hunter2 hunter2",
        ] {
            let setup = Setup::bare().args(["--key", "k", "--timeout", "0.1"]);
            let setup = setup
                .variable(variable, value)
                .variable("NO_PROXY", "other");
            let finished = setup.run_once();
            finished.assert_code(2).assert_stderr_has(variable);
            assert!(!finished.stderr.contains("hunter2"), "{finished}");
            assert_eq!(finished.stderr.trim_end().lines().count(), 1, "{finished}");
        }
    }
    let fake = Fake::start(one());
    for (variable, value) in [("HTTP_PROXY", "socks5://a"), ("https_proxy", "")] {
        let setup = Setup::against(&fake).variable(variable, value);
        setup.run_once().assert_code(0);
    }
}

#[test]
fn verbose_is_verbose_under_any_filter() {
    let fake = Fake::start(one());
    for filter in ["off", "error", "ttn_gateway_exporter=warn", "warn/nothing"] {
        let setup = Setup::against(&fake).variable("RUST_LOG", filter);
        let finished = setup.args(["-v"]).run_once();
        finished.assert_stderr_has("debug: ");
        let setup = Setup::against(&fake).variable("RUST_LOG", filter);
        let finished = setup.run_once();
        assert_eq!(finished.stderr, "", "{filter}: {finished}");
    }
}

/// tiny_http reports the shutdown of its listener as an error of its own.
#[test]
fn a_filter_of_info_shows_no_error_at_the_end() {
    let fake = Fake::start(one());
    let exporter = Setup::against(&fake).variable("RUST_LOG", "info").start();
    exporter.scrape();
    let address = exporter.address.to_string();
    exporter.signal("TERM");
    exporter.wait();
    let stderr = exporter.stderr();
    assert!(stderr.contains(&address), "{exporter}");
    assert!(!stderr.contains("accepting"), "{exporter}");
}

#[test]
fn priorities_are_for_the_journal_alone() {
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let file = fs::File::from(std::os::fd::OwnedFd::from(writer));
    let metadata = file.metadata().expect("a descriptor");
    let stream = format!("{}:{}", metadata.dev(), metadata.ino());
    let setup = Setup::bare().args(["--key", "k", "--password", "p", "--once"]);
    let setup = setup.args(["--server", "http://127.0.0.1:1"]);
    let setup = setup.variable("JOURNAL_STREAM", &stream);
    let mut command = setup.command();
    let mut child = command
        .stdout(std::process::Stdio::null())
        .stderr(file)
        .spawn()
        .expect("the exporter");
    drop(command);
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("text");
    let _ = child.wait();
    assert!(text.starts_with("<4>--password"), "{text}");
    for stream in [stream.as_str(), "1:2", "", "journal"] {
        let setup = Setup::bare().args(["--key", "k", "--password", "p"]);
        let setup = setup.args(["--server", "http://127.0.0.1:1"]);
        let finished = setup.variable("JOURNAL_STREAM", stream).run_once();
        finished.assert_stderr_has("warning: --password");
    }
}

#[test]
fn a_time_to_live_of_zero_keeps_nothing_for_the_next_scrape() {
    let fake = Fake::start(one());
    let arguments = ["--ttl", "0", "--list-ttl", "0", "--timeout", "300"];
    let exporter = Setup::against(&fake).args(arguments).start();
    for count in 1..=3 {
        exporter.scrape().assert_value("ttn_up", 1.0);
        let counts = (fake.count(Endpoint::List), fake.count(Endpoint::Stats));
        assert_eq!(counts, (count, count), "{exporter}");
    }
}
