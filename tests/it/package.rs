//! What is shipped beside the program, and the program where little else is: the manual page,
//! the systemd unit, a root folder with nothing in it, a clock and a file after 2038.
//!
//! The last two need a static binary (`make test-amd64` and its like), root or a tool that
//! not every machine has; a test that cannot run says so and passes.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::fake::tls::Authority;
use crate::fake::{Fake, Fleet, Key};
use crate::harness::directory::Directory;
use crate::harness::http;
use crate::harness::samples::Scrape;
use crate::harness::{PATIENCE, Setup};

const MANUAL: &str = include_str!("../../src/package/ttn-gateway-exporter.1");
const CHANGELOG_PROGRAM: &str = include_str!("../../src/package/changelog.py");
const UNIT: &str = "src/assets/ttn-gateway-exporter.service";
/// systemd's own measure of what a service could do to its machine: 10 is everything.
const EXPOSURE_MAX: f64 = 1.5;
/// 2040-01-01, after the end of a 32-bit time.
const AFTER_2038: Duration = Duration::from_secs(2_208_988_800);

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn not_run(what: &str) {
    eprintln!("NOT RUN: {what}");
}

/// Whether a program can be started at all.
fn is_there(program: &str) -> bool {
    let mut command = Command::new(program);
    command
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// The words that begin in this way and go on in capitals, small letters, `-` and `_`.
fn words(text: &str, begin: &str) -> BTreeSet<String> {
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let words = text.split(|c: char| !is_of_word(c));
    let words = words.filter(|word| word.len() > begin.len() && word.starts_with(begin));
    words.map(str::to_owned).collect()
}

#[test]
fn the_manual_page_has_the_flags_and_variables_of_the_help() {
    let help = Setup::bare().args(["--help"]).run();
    help.assert_code(0);
    let manual = MANUAL.replace("\\-", "-");
    for begin in ["--", "TTN_"] {
        // A flag in an example of the syntax is none.
        let mut in_manual = words(&manual, begin);
        in_manual.remove("--flag");
        assert_eq!(in_manual, words(&help.stdout, begin));
    }
}

#[test]
fn the_manual_page_has_the_defaults_of_the_help() {
    let help = Setup::bare().args(["--help"]).run();
    let manual = MANUAL.replace("\\-", "-");
    let notes = help.stdout.replace("\n          ", " ");
    let defaults: Vec<_> = notes.split("[default ").skip(1).collect();
    assert!(defaults.len() >= 4, "{help}");
    for default in defaults {
        let (value, variable) = default.split_once(", variable ").expect("both notes");
        let (variable, _) = variable.split_once(']').expect("an end");
        let entry = format!("Default:\n.BR {value} .\nVariable:\n.BR {variable} .\n");
        assert!(manual.contains(&entry), "not in the manual: {entry}");
    }
}

#[test]
fn systemd_finds_the_unit_hardly_exposed() {
    if !is_there("systemd-analyze") {
        return not_run("systemd-analyze is missing");
    }
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--offline=true", "--no-pager", UNIT]);
    let output = command.output().expect("it was there before");
    let text = String::from_utf8_lossy(&output.stdout);
    let level = text.split("Overall exposure level for").nth(1);
    let level = level.and_then(|rest| rest.split(": ").nth(1)?.split(' ').next()?.parse().ok());
    let level: f64 = level.unwrap_or_else(|| panic!("no level in {text}"));
    assert!(level <= EXPOSURE_MAX, "{level} is too much: {text}");
}

/// What `changelog.py check TAG` says in a project of this version with this changelog: the
/// notes of the release, or why there is none. Nothing without Python.
fn check_tag(tag: &str, version: &str, changelog: &str) -> Option<Result<String, String>> {
    if !is_there("python3") {
        not_run("python3 is missing");
        return None;
    }
    let root = Directory::new();
    let folder = root.path().join("src/package");
    std::fs::create_dir_all(&folder).expect("a folder");
    let write = |path, text: &str| std::fs::write(path, text).expect("a file");
    let cargo = format!("[package]\nversion = \"{version}\"\n\n[dependencies]\nversion = \"9\"\n");
    write(root.path().join("Cargo.toml"), &cargo);
    write(folder.join("CHANGELOG.md"), changelog);
    write(folder.join("changelog.py"), CHANGELOG_PROGRAM);

    let mut command = Command::new("python3");
    command
        .arg(folder.join("changelog.py"))
        .args(["check", tag]);
    let output = command.output().expect("it was there before");
    let text = |bytes| String::from_utf8_lossy(bytes).trim().to_owned();
    Some(match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    })
}

#[track_caller]
fn check_refused(tag: &str, version: &str, changelog: &str, reason: &str) {
    match check_tag(tag, version, changelog) {
        Some(Err(said)) => assert!(said.contains(reason), "{said}"),
        Some(Ok(notes)) => panic!("{tag} is released with {notes:?}"),
        None => {}
    }
}

const CHANGES: &str = "# Changelog\n\n## Unreleased\n\n- New.\n\n## 1.2.0 - 2026-01-02\n\n- Two.\n\n\
                       ## 1.1.0 - 2026-01-01\n\n- One.\n";

#[test]
fn a_tag_that_is_the_version_is_released_with_its_section() {
    if let Some(notes) = check_tag("v1.2.0", "1.2.0", CHANGES) {
        assert_eq!(notes.as_deref(), Ok("- Two."));
    }
}

#[test]
fn a_tag_that_is_not_the_version_is_refused() {
    check_refused(
        "v1.2.0",
        "1.3.0",
        CHANGES,
        "the version in Cargo.toml 1.3.0",
    );
    check_refused("1.2.0", "1.2.0", CHANGES, "the tag is 1.2.0");
    check_refused("v1.2.0-rc1", "1.2.0", CHANGES, "the tag is v1.2.0-rc1");
}

#[test]
fn a_release_without_a_section_in_the_changelog_is_refused() {
    check_refused("v1.3.0", "1.3.0", CHANGES, "no section `## 1.3.0");
    let undated = "## 1.2.0\n\n- Two.\n";
    check_refused(
        "v1.2.0",
        "1.2.0",
        undated,
        "is not `## VERSION - YYYY-MM-DD`",
    );
    let empty = "## 1.2.0 - 2026-01-02\n\n## 1.1.0 - 2026-01-01\n\n- One.\n";
    check_refused("v1.2.0", "1.2.0", empty, "nothing under `## 1.2.0");
}

/// The static binary under test, unless this machine cannot make it a root folder.
fn scratch_binary() -> Result<String, &'static str> {
    let binary = setting("TTN_EXPORTER_BINARY").ok_or("only a static binary can run alone")?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "true"]).stderr(Stdio::null());
    match command.status().is_ok_and(|status| status.success()) {
        true => Ok(binary),
        false => Err("it takes root to make a root folder"),
    }
}

/// Serves from a root folder with nothing in it, to one scrape of a fake behind TLS.
#[track_caller]
fn check_in_scratch(uid: &str) {
    let binary = match scratch_binary() {
        Ok(binary) => binary,
        Err(reason) => return not_run(reason),
    };
    let authority = Authority::new();
    let fake = Fake::start_tls(Fleet::generated(3), authority.server(&["127.0.0.1"]));
    let directory = Setup::bare();
    let ca_file = directory.file("ca.pem", &authority.pem());
    let runner = setting("TTN_EXPORTER_RUNNER").unwrap_or_default();

    let mut command = Command::new("unshare");
    command.args(["--mount", "--", "tests/package/scratch.sh"]);
    command.args([uid, &ca_file, &runner, &binary]);
    command.args(["--listen", "127.0.0.1:0", "--ca-file", "/file"]);
    command.args(["--server", &fake.url()]);
    command.env("TTN_API_KEY", Key::user().token);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("unshare");
    let mut log = BufReader::new(child.stderr.take().expect("it is piped"));

    let mut seen = String::new();
    let address = loop {
        let before = seen.len();
        let count = log.read_line(&mut seen).expect("a log");
        let line = &seen[before..];
        let after = line.split("listening on http://").nth(1);
        if let Some(address) = after.and_then(|a| a.split([' ', '/', ',', '\n']).next()) {
            break address.parse::<SocketAddr>().expect("an address");
        }
        assert!(count > 0, "it ended: {seen}");
    };
    let answer = http::request(address, "GET", "/metrics", &[], PATIENCE);
    let _ = child.kill();
    let _ = child.wait();
    let answer = answer.expect("an answer");
    Scrape::read(&answer.text(), &seen).assert_value("ttn_up", 1.0);
}

#[test]
fn it_runs_alone_in_a_read_only_root_as_root() {
    check_in_scratch("0");
}

#[test]
fn it_runs_alone_in_a_read_only_root_as_a_user_that_nobody_knows() {
    check_in_scratch("54321");
}

/// The program under test as one whose clock can be set: faketime reaches only a dynamic
/// program, so a static one runs in an emulator that is dynamic.
fn with_a_settable_clock() -> Option<Vec<String>> {
    let runner = setting("TTN_EXPORTER_RUNNER").map(|runner| runner.replace("-static", ""));
    let (runner, binary) = match (runner, setting("TTN_EXPORTER_BINARY")) {
        (runner, None) => (
            runner,
            env!("CARGO_BIN_EXE_ttn-gateway-exporter").to_owned(),
        ),
        (None, Some(binary)) => (Some("qemu-x86_64".to_owned()), binary),
        (runner, Some(binary)) => (runner, binary),
    };
    let mut words: Vec<String> = Vec::new();
    words.extend(runner.iter().flat_map(|r| r.split(' ')).map(str::to_owned));
    let has_emulator = words.first().is_none_or(|emulator| is_there(emulator));
    words.push(binary);
    (has_emulator && is_there("faketime")).then_some(words)
}

/// `--once` with the clock set, a fake behind TLS and the key in a file of the year 2040.
#[track_caller]
fn once_at(time: &str) -> Option<std::process::Output> {
    let Some(program) = with_a_settable_clock() else {
        not_run("faketime or the dynamic emulator (Debian: qemu-user) is missing");
        return None;
    };
    let authority = Authority::new();
    let fake = Fake::start_tls(Fleet::generated(3), authority.server(&["127.0.0.1"]));
    let directory = Setup::bare();
    let key_file = directory.file("key", &Key::user().token);
    let ca_file = directory.file("ca.pem", &authority.pem());
    let dated = SystemTime::UNIX_EPOCH + AFTER_2038;
    let file = File::options().append(true).open(&key_file);
    let file = file.expect("it was written");
    file.set_modified(dated).expect("its owner may");

    let mut command = Command::new("faketime");
    command.arg(time).args(program);
    command.args(["--once", "--key-file", &key_file, "--ca-file", &ca_file]);
    command.args(["--server", &fake.url()]);
    // The kernel's timeouts go by the true clock.
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    Some(command.output().expect("it was there before"))
}

#[test]
fn a_clock_and_a_file_after_2038_are_nothing_special() {
    let Some(output) = once_at("2040-01-01 00:00:00 UTC") else {
        return;
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    Scrape::read(&text, &stderr).assert_value("ttn_up", 1.0);
}

/// The control of the test before: the program does see the clock that was set.
#[test]
fn after_the_last_day_of_a_certificate_it_counts_as_expired() {
    let Some(output) = once_at("2101-01-01 00:00:00 UTC") else {
        return;
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("expired"), "{stderr}");
}
