//! What a machine does to a process: no descriptors, no threads, no memory for a connection, a
//! clock that jumps, and years.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::fake::{Endpoint, Fake, Fleet, Misbehaviour};
use crate::harness::{Exporter, PATIENCE, Setup, http};
use crate::{attacks, fuzz, is_full, socket, watch};

const KIBIBYTE: u64 = 1024;
/// Of nobody else on this machine.
const UNUSED_USER: &str = "61173";

fn not_run(what: &str, why: &str) {
    eprintln!("NOT RUN, since {why}: {what}");
}

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

/// Becomes a user whose processes and threads are the exporter's alone.
const AS_NOBODY: [&str; 6] = [
    "setpriv",
    "--reuid",
    UNUSED_USER,
    "--regid",
    UNUSED_USER,
    "--clear-groups",
];

/// Changes the soft limit of a running process, as the user whose process it is.
#[track_caller]
fn limit(exporter: &Exporter, resource: &str, value: usize) {
    let id = exporter.process_id().to_string();
    let mut command = match resource {
        "nproc" => {
            let mut command = Command::new(AS_NOBODY[0]);
            command.args(&AS_NOBODY[1..]).arg("prlimit");
            command
        }
        _ => Command::new("prlimit"),
    };
    command.args(["--pid", &id, &format!("--{resource}={value}:")]);
    let status = command.status();
    assert!(status.is_ok_and(|status| status.success()), "prlimit");
}

#[track_caller]
fn figures(exporter: &Exporter) -> watch::Figures {
    watch::figures(exporter.process_id()).unwrap_or_else(|| panic!("it has ended\n{exporter}"))
}

/// Tries again until a connection is within the limit.
#[track_caller]
fn check_answers_again(exporter: &Exporter) {
    let end = Instant::now() + PATIENCE;
    while let Err(problem) = watch::scrape(exporter.address) {
        assert!(Instant::now() < end, "{problem}\n{exporter}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// A flood must not fill the disk.
#[track_caller]
fn check_log_is_short(exporter: &Exporter) {
    let lines = exporter.stderr().lines().count();
    assert!(lines < 12, "{lines} lines\n{exporter}");
}

#[test]
fn few_descriptors_are_enough() {
    let fake = Fake::start(Fleet::generated(3));
    for count in [20, 21, 32, 33, 64] {
        let script = format!("ulimit -n {count}; exec \"$0\" \"$@\"");
        let setup = Setup::against(&fake).args(["--ttl", "0.1"]);
        let exporter = setup.under_shell(&script).start();
        exporter.scrape();
        let target = attacks::Target {
            address: exporter.address,
            fake: &fake,
            end: Instant::now() + Duration::from_millis(500),
            is_full: is_full(),
            complaints: Default::default(),
        };
        attacks::idle(&target);
        check_answers_again(&exporter);
        check_log_is_short(&exporter);
    }
}

#[test]
fn running_out_of_descriptors_passes() {
    if !has("prlimit") {
        return not_run("out of descriptors", "prlimit is missing");
    }
    let fake = Fake::start(Fleet::generated(3));
    let exporter = Setup::against(&fake).args(["--ttl", "0.1"]).start();
    exporter.scrape();
    let before = figures(&exporter);
    for spare in [0, 1, 2, 3] {
        limit(&exporter, "nofile", before.descriptors + spare);
        let held: Vec<_> = (0..20).map(|_| socket::connect(exporter.address)).collect();
        thread::sleep(Duration::from_millis(500));
        drop(held);
        limit(&exporter, "nofile", 256);
        check_answers_again(&exporter);
    }
    check_log_is_short(&exporter);
    exporter.wait_for_log("(os error 24)");
}

/// strace makes every second `accept` of each thread fail so.
#[test]
fn every_error_of_accept_passes() {
    let what = "errors of accept";
    let launcher = |error: &str| format!("inject=accept4:error={error}:when=2+2");
    let strace = [
        "strace",
        "-D",
        "-f",
        "-o",
        "/dev/null",
        "-e",
        "trace=accept4",
        "-e",
    ];
    let mut probe = Command::new(strace[0]);
    probe.args(&strace[1..]).args([&launcher("EPERM"), "true"]);
    if !probe.output().is_ok_and(|output| output.status.success()) {
        return not_run(what, "strace is missing or not allowed");
    }
    let fake = Fake::start(Fleet::generated(3));
    for (error, is_shortage) in [
        ("EMFILE", true),
        ("ENFILE", true),
        ("ENOBUFS", true),
        ("ENOMEM", true),
        ("ECONNABORTED", false),
        ("EPROTO", false),
        ("EPERM", false),
        ("EINTR", false),
        ("EAGAIN", false),
        ("EINVAL", false),
        ("ENETDOWN", false),
        ("ETIMEDOUT", false),
    ] {
        let inject = launcher(error);
        let words = strace.iter().copied().chain([&*inject]);
        let exporter = Setup::against(&fake).under(words).start();
        for _ in 0..10 {
            match is_shortage {
                // A connection is evicted then, which may be this one.
                true => check_answers_again(&exporter),
                false => drop(exporter.scrape()),
            }
        }
        check_log_is_short(&exporter);
    }
}

/// A limit of threads counts those of a user, and root has none: it runs as nobody here.
#[test]
fn running_out_of_threads_passes() {
    let what = "out of threads";
    if !has("prlimit") || !has("setpriv") {
        return not_run(what, "prlimit or setpriv is missing");
    }
    let probe = Setup::bare().args(["--version"]).under(AS_NOBODY);
    if !probe.run().status.success() {
        return not_run(
            what,
            "this user may not become another, or that one not run the binary",
        );
    }
    let fake = Fake::start(Fleet::generated(3));
    let setup = Setup::against(&fake).args(["--ttl", "0.1"]);
    let exporter = setup.under(AS_NOBODY).start();
    // tiny_http ends those of its threads that had nothing to do.
    let end = Instant::now() + PATIENCE;
    while figures(&exporter).threads > 6 && Instant::now() < end {
        thread::sleep(Duration::from_millis(100));
    }
    check_a_lookup_without_a_thread(&exporter, &fake);
    for spare in [0, 1] {
        limit(&exporter, "nproc", figures(&exporter).threads + spare);
        let held: Vec<_> = (0..20).map(|_| socket::connect(exporter.address)).collect();
        thread::sleep(Duration::from_millis(300));
        drop(held);
        limit(&exporter, "nproc", 1000);
        check_answers_again(&exporter);
    }
    check_log_is_short(&exporter);
    limit(&exporter, "nproc", 1);
    exporter.signal("TERM");
    assert_eq!(exporter.wait().code(), Some(0), "{exporter}");
}

/// The connection needs none: workers wait for it. The exporter forgets the address when no
/// connection comes about, so that the next request looks it up.
#[track_caller]
fn check_a_lookup_without_a_thread(exporter: &Exporter, fake: &Fake) {
    fake.stop();
    exporter.scrape().assert_value("ttn_up", 0.0);
    fake.resume();
    // The failure is remembered as long as stats.
    thread::sleep(Duration::from_millis(200));
    limit(exporter, "nproc", figures(exporter).threads);
    exporter.scrape().assert_value("ttn_up", 0.0);
    limit(exporter, "nproc", 1000);
    exporter.scrape_until("ttn_up 1", |scrape| scrape.value("ttn_up") == 1.0);
}

/// libfaketime moves the clock on the wall and leaves the monotonic one alone, as it happens
/// on a Pi that learns the time late.
#[test]
fn a_clock_that_jumps_breaks_nothing() {
    let what = "a clock that jumps";
    let Some(library) = faketime_library() else {
        return not_run(what, "libfaketime is missing");
    };
    let setup = Setup::bare();
    let file = setup.file("clock", "+0");
    let faked = |setup: Setup| {
        let setup = setup.variable("LD_PRELOAD", library.to_str().expect("ASCII"));
        let setup = setup.variable("FAKETIME_TIMESTAMP_FILE", &file);
        let setup = setup.variable("FAKETIME_NO_CACHE", "1");
        let setup = setup.variable("DONT_FAKE_MONOTONIC", "1");
        setup.variable("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    };
    fs::write(&file, "+3650d").expect("a file");
    let date = faked(Setup::bare()).under_shell("exec date +%Y").run();
    let now = Command::new("date").arg("+%Y").output().expect("a year");
    if date.stdout.as_bytes() == now.stdout {
        return not_run(what, "libfaketime does not work here");
    }
    let fake = Fake::start(Fleet::generated(3));
    let setup = Setup::against(&fake).args(["--ttl", "2", "--timeout", "1"]);
    fs::write(&file, "-16000d").expect("a file");
    let exporter = faked(setup).start();
    exporter.scrape().assert_value("ttn_up", 1.0);
    for jump in ["+0", "+36500d", "-16000d", "+1h", "-1h"] {
        check_jump(&exporter, &fake, || fs::write(&file, jump).expect("a file"));
    }
}

fn faketime_library() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten();
    let folders = folders.map(|entry| entry.path().join("faketime"));
    let file = |folder: PathBuf| folder.join("libfaketimeMT.so.1");
    folders.map(file).find(|path| path.exists())
}

/// What is fresh stays so, what expires does, and a time limit is one.
#[track_caller]
fn check_jump(exporter: &Exporter, fake: &Fake, jump: impl Fn()) {
    thread::sleep(Duration::from_millis(2_100));
    exporter.scrape();
    let batches = fake.count(Endpoint::StatsBatch);
    jump();
    exporter.scrape().assert_value("ttn_up", 1.0);
    assert_eq!(fake.count(Endpoint::StatsBatch), batches, "{exporter}");
    assert_eq!(exporter.get("/").status, 200);
    thread::sleep(Duration::from_millis(2_100));
    fake.script_all(Misbehaviour::HangBeforeHead);
    let limit = Duration::from_secs(10);
    let scrape = exporter.scrape_within(limit, &[]);
    scrape.assert_value("ttn_up", 0.0);
    fake.behave();
    exporter.scrape_until("ttn_up 1", |scrape| scrape.value("ttn_up") == 1.0);
}

/// What the one above shows by example: times of day are for people alone.
#[test]
fn nothing_but_what_people_read_depends_on_the_time_of_day() {
    let mut users = Vec::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![source.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a text");
                let code = text.split("#[cfg(test)]\nmod tests").next();
                if code.is_some_and(|code| code.contains("SystemTime::now")) {
                    let name = path.strip_prefix(&source).expect("inside");
                    users.push(name.to_string_lossy().into_owned());
                }
            }
        }
    }
    users.sort();
    assert_eq!(users, ["collect/collector.rs"], "where Scrape::at is set");
}

#[test]
fn thousands_of_collections_grow_nothing() {
    let collections: u32 = if is_full() { 10_000 } else { 250 };
    let fake = Fake::start(Fleet::generated(20));
    let setup = Setup::against(&fake).args(["--ttl", "0.1", "--list-ttl", "0.1"]);
    let exporter = setup.start();
    let mut before = (watch::Figures::default(), 0);
    let mut done = 0;
    let end = Instant::now() + Duration::from_millis(200) * collections;
    while done < collections {
        let start = Instant::now();
        assert!(start < end, "only {done}\n{exporter}");
        exporter.scrape();
        done += fake.count(Endpoint::StatsBatch) as u32;
        fake.forget();
        if done == 100 {
            before = (
                figures(&exporter),
                watch::memory_bytes(exporter.process_id()),
            );
        }
        thread::sleep(Duration::from_millis(105).saturating_sub(start.elapsed()));
    }
    let after = (
        figures(&exporter),
        watch::memory_bytes(exporter.process_id()),
    );
    println!("{done} collections: {before:?} before, {after:?} after");
    assert!(after.0.descriptors <= before.0.descriptors, "{exporter}");
    assert!(after.0.threads <= before.0.threads, "{exporter}");
    assert!(after.1 <= before.1 + 512 * KIBIBYTE, "{exporter}");
}

/// A link of 10 Mbit/s needs this long for the answer of 3,000 gateways without gzip.
#[test]
fn a_reader_that_needs_a_while_gets_the_whole_answer() {
    let fake = Fake::start(Fleet::generated(3_000));
    let exporter = Exporter::start(&fake);
    exporter.scrape();
    let mut reader = socket::connect_with_receive_buffer(exporter.address, 4096).expect("a client");
    reader
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("it is sent");
    thread::sleep(Duration::from_secs(12));
    let mut answer = Vec::new();
    let read = reader.read_to_end(&mut answer);
    let answer = http::parse(&answer, false).unwrap_or_else(|error| panic!("{read:?}: {error}"));
    assert!(
        answer.body.len() > 12_000_000,
        "{} bytes",
        answer.body.len()
    );
}

/// Heads made of pieces that matter to somebody who reads them: each costs itself alone.
#[test]
fn no_head_ends_the_process() {
    const PIECES: &[&[u8]] = &[
        b"GET",
        b"HEAD",
        b" ",
        b"/",
        b"/metrics",
        b"HTTP/1.1",
        b"HTTP/1.0",
        b"HTTP/2.0",
        b"\r\n",
        b"\n",
        b"\r",
        b":",
        b"Host: a",
        b"Accept: ",
        b"Accept:",
        b"authorization:\t",
        b"\0",
        b"\xff",
        b"http://a/",
        b"?",
        b"#",
        b"%00",
        b"Content-Length: 0",
        b"X-Prometheus-Scrape-Timeout-Seconds: 1e9",
    ];
    let fake = Fake::start(Fleet::generated(1));
    let exporter = Exporter::start(&fake);
    let seed = b"GET /metrics HTTP/1.1\r\nAccept: a\r\nAuthorization: b\r\n\r\n".to_vec();
    let cases = if is_full() { 50_000 } else { 1_000 };
    fuzz::check(cases, fuzz::mutations(vec![seed], PIECES), |mut head| {
        head.extend_from_slice(b"\r\n\r\n");
        let answer = http::exchange(exporter.address, &head, PATIENCE);
        let answer = answer.unwrap_or_else(|error| panic!("{error}\n{exporter}"));
        assert!(answer.starts_with(b"HTTP/1.1 "), "{exporter}");
    });
    assert!(TcpStream::connect(exporter.address).is_ok());
    exporter.scrape();
}
