//! The dashboard against the typed models of Grafana's own SDK, of the oldest and the newest
//! Grafana that README names. They come from PyPI into target/, where pip can get them.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::prometheus::is_installed;

/// The packages of Grafana 10.1 and of the newest Grafana that there are models for.
const OLDEST: &str = "grafana-foundation-sdk==1769699998!10.1.0";
const NEWEST: &str = "grafana-foundation-sdk==1769699241";

fn run(program: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    command
        .output()
        .unwrap_or_else(|error| panic!("{program:?}: {error}"))
}

/// A Python with this package, in an environment that is kept for the next run. None: it cannot
/// be had, and a line past the test harness says so.
fn python_with(name: &str, package: &str) -> Option<PathBuf> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let python = directory.join("bin/python3");
    let directory = directory.to_str().expect("the path is text");
    let has_models = |python: &Path| {
        let import = ["-c", "import grafana_foundation_sdk.models.dashboard"];
        python.is_file() && run(python, &import).status.success()
    };
    if !has_models(&python) {
        run(Path::new("python3"), &["-m", "venv", directory]);
        let quick = ["-m", "pip", "install", "--quiet", "--retries", "0"];
        let quick = [&quick[..], &["--timeout", "10", package]].concat();
        if python.is_file() {
            run(&python, &quick);
        }
    }
    let is_there = has_models(&python);
    if !is_there {
        let line = format!("NOT RUN, since pip cannot install {package}: the dashboard's models\n");
        // In one piece, since other tests write at the same time. Nobody may be listening.
        let _ = io::stderr().write_all(line.as_bytes());
    }
    is_there.then_some(python)
}

#[track_caller]
fn check(name: &str, package: &str) {
    if !is_installed("python3") {
        return;
    }
    let Some(python) = python_with(name, package) else {
        return;
    };
    let script = "tests/it/dashboard_models.py";
    let output = run(&python, &[script, "src/assets/dashboard.json"]);
    let words = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{package} does not know, or changes\n{words}"
    );
}

#[test]
fn the_oldest_grafana_knows_every_field_of_the_dashboard() {
    check("grafana-oldest", OLDEST);
}

#[test]
fn the_newest_grafana_knows_every_field_of_the_dashboard() {
    check("grafana-newest", NEWEST);
}
