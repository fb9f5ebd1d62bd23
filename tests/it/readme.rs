//! The README against the program: its tables of flags and reasons are the program's, and every
//! block of it is used as it is written, here or by the scripts in tests/package.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::assets::{ALERTS, DASHBOARD};
use crate::fake::{Fake, Fleet};
use crate::harness::directory::Directory;
use crate::harness::samples::label;
use crate::harness::{Exporter, Setup};
use crate::prometheus::is_installed;

const README: &str = include_str!("../../README.md");
const GOLDEN: &str = include_str!("../golden/metrics.prom");
/// They run `readme_block 'MARKER'`: the one block with this text, on a system of its own.
const SCRIPTS: [&str; 2] = [
    include_str!("../package/unit.sh"),
    include_str!("../package/image.sh"),
];

/// The words in back ticks of the first cell of each row under a heading.
fn first_cells(heading: &str) -> BTreeSet<&'static str> {
    let (_, rest) = README.split_once(heading).expect("the heading is there");
    let section = rest.split("\n## ").next().unwrap_or(rest);
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect()
}

#[test]
fn the_flags_are_those_of_the_help() {
    let help = Setup::bare().args(["--help"]).run().stdout;
    let words = help
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("       "));
    let flags = words.flat_map(|line| line.split([' ', ',']));
    let helped: BTreeSet<&str> = flags.filter(|word| word.starts_with('-')).collect();
    let cells = first_cells("## Options");
    let told: BTreeSet<&str> = cells
        .iter()
        .filter_map(|cell| cell.split(' ').next())
        .collect();
    let secret: BTreeSet<&str> = ["--password"].into();
    assert_eq!(&told | &secret, helped);
}

#[test]
fn every_reason_of_a_failure_is_explained() {
    let fake = Fake::start(Fleet::generated(1));
    let scrape = Exporter::start(&fake).scrape();
    let counters = scrape.all("ttn_exporter_errors_total");
    let reasons = counters
        .iter()
        .filter_map(|counter| label(counter, "reason"));
    let reasons: BTreeSet<&str> = reasons.collect();
    assert_eq!(
        first_cells("## When something fails, or a gateway is unknown"),
        reasons
    );
}

/// A fenced block of code.
struct Block {
    /// `sh`, `yaml`, or nothing.
    language: &'static str,
    text: &'static str,
}

fn blocks() -> Vec<Block> {
    let fenced = README.split("\n```").skip(1).step_by(2);
    let blocks = fenced.map(|block| block.split_once('\n').expect("a fence ends its line"));
    let blocks = blocks.map(|(language, text)| Block { language, text });
    blocks.collect()
}

/// The one block with this text.
#[track_caller]
fn block(marker: &str) -> &'static str {
    let mut found = blocks()
        .into_iter()
        .filter(|block| block.text.contains(marker));
    let (one, more) = (found.next(), found.next());
    assert!(more.is_none(), "two blocks have {marker}");
    one.unwrap_or_else(|| panic!("no block has {marker}")).text
}

/// What the scripts in tests/package ask for: the text in quotes after `readme_block`.
fn markers_of_scripts() -> Vec<&'static str> {
    let calls = SCRIPTS
        .iter()
        .flat_map(|script| script.split("readme_block '").skip(1));
    calls.filter_map(|call| call.split('\'').next()).collect()
}

/// Parts of the blocks that the tests below use.
const USED_HERE: [&str; 7] = [
    "ttn_up 1",
    "scrape_interval: 60s",
    "--print dashboard",
    "inhibit_rules:",
    "awk '",
    "job_name: ttn-gateway-exporter-club",
    "main.rs   ",
];

#[test]
fn every_block_is_used_by_a_test_or_a_script() {
    let mut markers = markers_of_scripts();
    markers.extend(USED_HERE);
    for marker in &markers {
        block(marker);
    }
    for Block { language, text } in blocks() {
        let is_used = markers.iter().any(|marker| text.contains(marker));
        assert!(is_used, "nothing uses this block of {language:?}:\n{text}");
    }
}

#[test]
fn the_output_shows_metrics_that_exist() {
    for line in block("ttn_up 1").lines() {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        assert!(GOLDEN.contains(&format!("# TYPE {name} ")), "{line}");
    }
}

#[test]
fn the_picture_of_the_rooms_shows_files_and_folders_that_exist() {
    let rooms = block("main.rs   ").lines();
    let names = rooms.filter_map(|line| line.split("  ").find(|part| !part.is_empty()));
    for name in names.flat_map(|names| names.split(' ')) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(name);
        assert!(path.exists(), "{name}");
    }
}

/// A machine for the commands of a block: `sudo` changes nothing, /etc/prometheus is a folder of
/// its own, and `ttn-gateway-exporter` is the program under test.
struct Machine {
    directory: Directory,
}

impl Machine {
    fn new() -> Machine {
        let machine = Machine {
            directory: Directory::new(),
        };
        fs::create_dir(machine.path("bin")).expect("a folder of the test's own");
        fs::create_dir(machine.path("prometheus")).expect("a folder of the test's own");
        machine.program("sudo", "exec \"$@\"");
        let setting = |name| std::env::var(name).unwrap_or_default();
        let built = env!("CARGO_BIN_EXE_ttn-gateway-exporter").to_owned();
        let binary = std::env::var("TTN_EXPORTER_BINARY").unwrap_or(built);
        let runner = setting("TTN_EXPORTER_RUNNER");
        let exporter = format!("exec {runner} '{binary}' \"$@\"");
        machine.program("ttn-gateway-exporter", &exporter);
        machine
    }

    fn path(&self, name: &str) -> String {
        let path = self.directory.path().join(name);
        path.to_str().expect("the path is text").to_owned()
    }

    fn program(&self, name: &str, script: &str) {
        let path = self.path(&format!("bin/{name}"));
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a file of the test's own");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is the owner");
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    #[track_caller]
    fn run(&self, block: &str) {
        let block = block.replace("/etc/prometheus", &self.path("prometheus"));
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", &block]);
        command.env("PATH", format!("{}:{path}", self.path("bin")));
        command.current_dir(self.directory.path());
        let output = command.output().expect("bash starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{block}\n{stderr}");
    }
}

#[test]
fn the_dashboard_and_the_rules_get_to_their_places() {
    let machine = Machine::new();
    machine.run(block("--print dashboard"));
    assert_eq!(machine.read("dashboard.json"), DASHBOARD);
    assert_eq!(machine.read("prometheus/ttn.yml"), ALERTS);
}

/// The rules without those that somebody has changed, and the changed ones in a file beside them.
#[test]
fn rules_of_ones_own_replace_two_of_the_program() {
    const REPLACED: [&str; 2] = [
        "      - alert: TTNGatewayUnused\n",
        "      - alert: TTNGatewayNoUplinks\n",
    ];
    let machine = Machine::new();
    machine.run(block("awk '"));
    let rules = machine.read("prometheus/ttn.yml");
    let count = |text: &str| text.matches("      - alert: ").count();
    assert_eq!(count(&rules), count(ALERTS) - REPLACED.len());
    assert!(REPLACED.iter().all(|name| ALERTS.contains(name)));
    assert!(REPLACED.iter().all(|name| !rules.contains(name)));
    if is_installed("promtool") {
        machine.run("promtool check rules prometheus/ttn.yml");
    }
}

#[test]
fn promtool_accepts_the_scrape_configurations() {
    if !is_installed("promtool") {
        return;
    }
    for marker in [
        "scrape_interval: 60s",
        "job_name: ttn-gateway-exporter-club",
    ] {
        let machine = Machine::new();
        fs::write(machine.path("prometheus.yml"), block(marker)).expect("a file");
        machine.run("promtool check config prometheus.yml");
    }
}

#[test]
fn amtool_accepts_the_settings_of_alertmanager_whose_alerts_exist() {
    let settings = block("inhibit_rules:");
    let names = settings.split("alertname=\"").skip(1);
    for name in names.filter_map(|rest| rest.split('"').next()) {
        assert!(ALERTS.contains(&format!("- alert: {name}\n")), "{name}");
    }
    if !is_installed("amtool") {
        return;
    }
    let machine = Machine::new();
    fs::write(machine.path("alertmanager.yml"), settings).expect("a file");
    machine.run("amtool check-config alertmanager.yml");
}
