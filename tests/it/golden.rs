//! The whole exposition, byte for byte but for what changes from run to run.
//!
//! `make golden` writes the files anew; the difference is then read before it is committed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::fake::{Endpoint, Fake, Fleet, Gateway, Misbehaviour, hostile};
use crate::harness::Setup;
use crate::harness::samples::Scrape;

/// 2024-11-20T12:00:00Z.
const NOON: i64 = 1_732_104_000;

/// Series whose value depends on the machine or the moment; the shape of the rest is fixed.
const VOLATILE: [&str; 5] = [
    "process_",
    "ttn_exporter_build_info",
    "ttn_exporter_list_timestamp_seconds",
    "ttn_exporter_scrape_duration_seconds",
    "ttn_exporter_api_request_duration_seconds_sum",
];

/// It is asked about the key when no client waits: how often until now depends on the machine.
const OF_THE_KEY: &str = r#"endpoint="auth_info""#;

/// The hostile fleet, standing still.
fn still() -> Fleet {
    let mut fleet = hostile::fleet(NOON);
    fleet
        .gateways
        .iter_mut()
        .for_each(|gateway| gateway.motion = None);
    fleet
}

fn masked(text: &str) -> String {
    let mask = |line: &str| {
        let is_volatile = VOLATILE.iter().any(|name| line.starts_with(name));
        let end = line.find(['{', ' ']).unwrap_or(line.len());
        match is_volatile {
            true => format!("{} MASKED\n", &line[..end]),
            false => format!("{line}\n"),
        }
    };
    let lines = text.lines().filter(|line| !line.contains(OF_THE_KEY));
    lines.map(mask).collect()
}

#[track_caller]
fn check(name: &str, scrape: &Scrape) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/golden")
        .join(name);
    let actual = masked(&scrape.text);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &actual).unwrap();
        return;
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    let mut pairs = actual.lines().zip(expected.lines());
    if let Some((actual, expected)) = pairs.find(|(actual, expected)| actual != expected) {
        panic!("{name}: is\n  {actual}\nand not\n  {expected}\n(make golden)\n{scrape}");
    }
    let counts = (actual.lines().count(), expected.lines().count());
    assert_eq!(
        counts.0, counts.1,
        "{name}: the number of lines (make golden)\n{scrape}"
    );
    lint(&path);
}

/// promtool has nothing to say but about the two names of the Python script.
fn lint(golden: &PathBuf) {
    let text = fs::read_to_string(golden).unwrap().replace(" MASKED", " 1");
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    // tests/missing-tools.sh tells of it.
    let Ok(mut child) = child else {
        return;
    };
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let old = [
        "ttn_gateway_messages_uplink_count",
        "ttn_gateway_messages_downlink_count",
    ];
    let new = said
        .lines()
        .filter(|line| !old.iter().any(|name| line.contains(name)));
    assert_eq!(new.collect::<Vec<_>>(), Vec::<&str>::new());
}

#[test]
fn golden_of_the_hostile_fleet() {
    let fake = Fake::start(still());
    check("demo.prom", &Setup::against(&fake).start().scrape());
}

#[test]
fn golden_of_a_second_scrape_after_a_failure() {
    let fake = Fake::start(Fleet::of([
        Gateway::new("gw-1").connected("udp"),
        Gateway::new("gw-2"),
    ]));
    let exporter = Setup::against(&fake).args(["--ttl", "0.2"]).start();
    exporter.scrape();
    fake.script(
        Endpoint::StatsBatch,
        Misbehaviour::RateLimited { retry_seconds: 60 },
    );
    std::thread::sleep(std::time::Duration::from_millis(250));
    check("rate_limited.prom", &exporter.scrape());
}

#[test]
fn golden_of_an_api_that_is_down() {
    let fake = Fake::start(still());
    fake.stop();
    check("down.prom", &Setup::against(&fake).start().scrape());
}

#[test]
fn golden_of_once_is_that_of_a_scrape_without_a_question_about_the_key() {
    let fake = Fake::start(still());
    let finished = Setup::against(&fake).run_once();
    check("once.prom", &finished.assert_code(1).scrape());
}
