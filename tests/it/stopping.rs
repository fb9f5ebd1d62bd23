//! How it ends: signals while it is idle, busy or process 1, and readers that have seen enough.
//!
//! It should take less than a second; the bounds leave room for a busy machine.

use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};
use std::{fs, io};

use crate::fake::{Fake, Fleet, Gateway, Misbehaviour};
use crate::harness::{Exporter, PATIENCE, Setup, http};

const SOON: Duration = Duration::from_secs(3);
/// How long a scrape under way may hold up the end.
const STOP_TIME_MAX: Duration = Duration::from_secs(2);

fn fake() -> Fake {
    Fake::start(Fleet::of([Gateway::new("gw-1").connected("udp")]))
}

/// The signals that end it. Where this test runs in the background of a script or under nohup,
/// some are ignored, which the exporter inherits.
pub fn signals() -> Vec<&'static str> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let is_ignored = |number: u32| ignored.is_some_and(|mask| mask >> (number - 1) & 1 == 1);
    let signals = [("TERM", 15), ("INT", 2), ("HUP", 1)];
    let signals = signals
        .into_iter()
        .filter(|(_, number)| !is_ignored(*number));
    signals.map(|(name, _)| name).collect()
}

/// Starts a scrape and returns when the API has been asked.
fn scrape_under_way(
    exporter: &Exporter,
    fake: &Fake,
) -> thread::JoinHandle<io::Result<http::Response>> {
    let address = exporter.address;
    let before = fake.request_count();
    let scrape = thread::spawn(move || http::request(address, "GET", "/metrics", &[], PATIENCE));
    let end = Instant::now() + PATIENCE;
    while fake.request_count() == before {
        assert!(Instant::now() < end, "the API is not asked\n{exporter}");
        thread::sleep(Duration::from_millis(2));
    }
    scrape
}

#[track_caller]
fn check_ends(exporter: &Exporter, code: i32, at_most: Duration) -> Duration {
    let start = Instant::now();
    assert_eq!(exporter.wait().code(), Some(code), "{exporter}");
    let elapsed = start.elapsed();
    assert!(elapsed <= at_most, "{elapsed:?}\n{exporter}");
    elapsed
}

#[test]
fn each_signal_ends_it_at_once_when_idle() {
    let fake = fake();
    for name in signals() {
        let exporter = Exporter::start(&fake);
        exporter.scrape();
        exporter.signal(name);
        check_ends(&exporter, 0, SOON);
    }
}

#[test]
fn connections_that_ask_for_nothing_do_not_hold_it_up() {
    let fake = fake();
    let exporter = Exporter::start(&fake);
    let idle: Vec<_> = (0..5)
        .map(|_| TcpStream::connect(exporter.address))
        .collect();
    exporter.scrape();
    exporter.signal("TERM");
    check_ends(&exporter, 0, STOP_TIME_MAX);
    assert!(idle.iter().all(Result::is_ok));
}

#[test]
fn a_scrape_under_way_is_answered_first() {
    let fake = fake();
    fake.set_delay(Duration::from_millis(400));
    let exporter = Exporter::start(&fake);
    let scrape = scrape_under_way(&exporter, &fake);
    exporter.signal("TERM");
    check_ends(&exporter, 0, SOON);
    let response = scrape.join().expect("no panic").expect("an answer");
    assert!(response.text().contains("\nttn_up 1\n"), "{response}");
}

#[test]
fn a_scrape_that_takes_long_is_given_up_after_two_seconds() {
    let fake = fake();
    fake.script_all(Misbehaviour::HangBeforeHead);
    let exporter = Setup::against(&fake).args(["--timeout", "20"]).start();
    let scrape = scrape_under_way(&exporter, &fake);
    exporter.signal("TERM");
    let elapsed = check_ends(&exporter, 0, STOP_TIME_MAX + SOON);
    assert!(elapsed > STOP_TIME_MAX / 2, "{elapsed:?}");
    assert!(scrape.join().expect("no panic").is_err());
}

/// nohup(1) ignores SIGHUP, a script's background command SIGINT; SIGTERM is for supervisors.
#[test]
fn a_signal_that_was_ignored_at_the_start_stays_ignored() {
    let fake = fake();
    for name in ["HUP", "INT"] {
        let script = format!(r#"trap "" {name} TERM; exec "$0" "$@""#);
        let exporter = Setup::against(&fake).under_shell(&script).start();
        for _ in 0..3 {
            exporter.signal(name);
            exporter.scrape().assert_value("ttn_up", 1.0);
        }
        thread::sleep(Duration::from_millis(100));
        exporter.scrape().assert_value("ttn_up", 1.0);
        exporter.signal("TERM");
        check_ends(&exporter, 0, SOON);
    }
}

/// As when a key is to be typed, or a name server does not answer.
#[test]
fn a_start_that_waits_for_a_file_can_be_ended() {
    for (flag, signal) in [
        ("--key-file", "TERM"),
        ("--web-token-file", "TERM"),
        ("--ca-file", "HUP"),
    ] {
        if !signals().contains(&signal) {
            continue;
        }
        let script = format!(
            r#"mkfifo pipe; "$0" "$@" & sleep 0.5; kill -s {signal} $!; wait $!; echo $? >&2"#
        );
        let setup = Setup::bare().args([flag, "pipe", "--listen", "127.0.0.1:0"]);
        let setup = match flag {
            "--key-file" => setup,
            _ => setup.variable("TTN_API_KEY", "NNSXS.A.B"),
        };
        let finished = setup.under_shell(&script).run();
        // Above 128 where the signal came before the exporter had begun.
        let is_ended = ["0\n", "129\n", "143\n"].map(|end| finished.stderr.ends_with(end));
        assert!(is_ended.contains(&true), "{finished}");
    }
}

/// Standard error is a pipe that nobody reads, and one byte too full for another line.
#[test]
fn a_log_that_cannot_be_written_does_not_hold_it_up() {
    let fake = fake();
    let script = r#"mkfifo pipe; exec 3<>pipe
        "$0" "$@" 2>pipe & sleep 1
        timeout 0.2 dd if=/dev/zero of=pipe bs=1 count=70000 status=none
        kill -s TERM $!; wait $!; echo "status $?" >&2"#;
    let setup = Setup::against(&fake).args(["--listen", "127.0.0.1:0"]);
    let finished = setup.under_shell(script).run();
    assert_eq!(finished.stderr, "status 0\n", "{finished}");
}

#[test]
fn a_pause_in_a_scrape_is_only_a_pause() {
    let fake = fake();
    fake.set_delay(Duration::from_millis(400));
    let exporter = Exporter::start(&fake);
    let scrape = scrape_under_way(&exporter, &fake);
    for _ in 0..3 {
        exporter.signal("STOP");
        thread::sleep(Duration::from_millis(50));
        exporter.signal("CONT");
    }
    let response = scrape.join().expect("no panic").expect("an answer");
    assert_eq!(response.status, 200, "{response}\n{exporter}");
    exporter.scrape().assert_value("ttn_up", 1.0);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let fake = fake();
    fake.script_all(Misbehaviour::HangBeforeHead);
    for (second, code) in [("TERM", 143), ("INT", 130)] {
        let exporter = Setup::against(&fake).args(["--timeout", "20"]).start();
        let scrape = scrape_under_way(&exporter, &fake);
        exporter.signal("TERM");
        exporter.wait_for_log("stopping");
        exporter.signal(second);
        check_ends(&exporter, code, STOP_TIME_MAX / 2);
        assert!(scrape.join().expect("no panic").is_err());
    }
}

/// The kernel drops signals for process 1 that it has not asked for.
#[test]
fn as_process_1_it_ends_like_any_other() {
    let launcher = ["unshare", "--pid", "--fork", "--kill-child"];
    let may = Command::new(launcher[0])
        .args(&launcher[1..])
        .arg("true")
        .output();
    if !may.is_ok_and(|output| output.status.success()) {
        return eprintln!("NOT RUN, since unshare is missing or not allowed: as process 1");
    }
    let fake = fake();
    for name in signals() {
        let exporter = Setup::against(&fake).under(launcher).start();
        exporter.scrape();
        let child = only_child_of(exporter.process_id());
        let status = fs::read_to_string(format!("/proc/{child}/status")).expect("it runs");
        let ids = status
            .lines()
            .find_map(|line| line.strip_prefix("NSpid:"))
            .expect("a line of process ids");
        assert_eq!(ids.split_whitespace().last(), Some("1"), "{status}");
        let sent = Command::new("kill").args(["-s", name, &child]).status();
        assert!(sent.is_ok_and(|status| status.success()), "{name}");
        check_ends(&exporter, 0, SOON);
    }
}

fn only_child_of(process_id: u32) -> String {
    let path = format!("/proc/{process_id}/task/{process_id}/children");
    let children = fs::read_to_string(path).expect("the kernel lists children");
    children.trim().to_owned()
}

#[track_caller]
fn check_pipe(setup: Setup, arguments: &[&str], script: &str, first_line: &str) {
    let setup = setup.args(arguments.iter().copied()).under_shell(script);
    let finished = setup.run();
    finished.assert_code(0);
    assert_eq!(finished.stdout, first_line, "{finished}");
    assert_eq!(finished.stderr, "status 0\n", "{finished}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    // More than fits into a pipe.
    let fake = Fake::start(Fleet::generated(50));
    let head = r#"{ "$0" "$@"; echo status $? >&2; } | head -n 1"#;
    let nobody = r#"{ sleep 0.1; "$0" "$@"; echo status $? >&2; } | true"#;
    let first = "# HELP ttn_up 1 if the API gave the list and answered every request of the \
        last collection, 0 if not\n";
    check_pipe(Setup::against(&fake), &["--once"], head, first);
    check_pipe(Setup::against(&fake), &["--once"], nobody, "");
    for arguments in [
        ["--print", "unit"].as_slice(),
        &["--print", "dashboard"],
        &["--help"],
        &["--version"],
    ] {
        check_pipe(Setup::bare(), arguments, nobody, "");
    }
}

// Linux and FreeBSD have /dev/full, macOS does not.
#[cfg(not(target_os = "macos"))]
#[test]
fn a_full_disk_is_an_error() {
    let fake = fake();
    let script = r#"exec "$0" "$@" > /dev/full"#;
    let finished = Setup::against(&fake).under_shell(script).run_once();
    finished.assert_code(1).assert_stderr_has("space");
}
