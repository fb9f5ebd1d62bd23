//! A real Prometheus for the tests: started on a free port of loopback with its storage in a
//! directory of its own, asked through its HTTP API, and ended with the test.
//!
//! It knows nothing of gateways. Every wait here has an end.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::PATIENCE;
use crate::harness::directory::Directory;
use crate::harness::http;

/// Names and what they stand for: labels, annotations.
pub type Texts = BTreeMap<String, String>;

/// A running Prometheus; it ends, and its directory goes, when dropped.
pub struct Prometheus {
    child: Child,
    address: SocketAddr,
    directory: Directory,
}

/// One series of an answer: its labels and its value now.
#[derive(Debug)]
pub struct Series {
    pub labels: Texts,
    pub value: f64,
}

/// An alert as /api/v1/alerts shows it.
#[derive(Debug)]
pub struct Alert {
    pub labels: Texts,
    pub annotations: Texts,
    /// `pending` or `firing`.
    pub state: String,
}

/// Whether this program can be started; if not, says past the test harness that a test did not
/// run: it captures what `eprintln!` prints.
pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
    if !is_there {
        let test = thread::current().name().unwrap_or("a test").to_owned();
        let line = format!("NOT RUN, since {program} is missing: {test}\n");
        // In one piece, since other tests write at the same time. Nobody may be listening.
        let _ = io::stderr().write_all(line.as_bytes());
    }
    is_there
}

/// Waits until the condition holds.
#[track_caller]
pub fn wait_until(what: &str, seconds: u64, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !condition() {
        assert!(Instant::now() < end, "not within {seconds} s: {what}");
        thread::sleep(Duration::from_millis(200));
    }
}

impl Prometheus {
    /// With this configuration, beside which the given files lie.
    pub fn start(config: &str, files: &[(&str, &str)]) -> Prometheus {
        let directory = Directory::new();
        for (name, contents) in files.iter().chain([&("prometheus.yml", config)]) {
            directory.file(name, contents);
        }
        let address = free_address();
        let log = fs::File::create(directory.path().join("log")).expect("the directory is there");
        let child = Command::new("prometheus")
            .arg("--config.file=prometheus.yml")
            .arg("--storage.tsdb.path=data")
            .arg(format!("--web.listen-address={address}"))
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus starts");
        let mut prometheus = Prometheus {
            child,
            address,
            directory,
        };
        prometheus.wait_until_ready();
        prometheus
    }

    fn wait_until_ready(&mut self) {
        let end = Instant::now() + 2 * PATIENCE;
        while self.get("/-/ready").is_err() {
            let has_ended = self.child.try_wait().expect("it is our child").is_some();
            if has_ended || Instant::now() > end {
                let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
                panic!("prometheus is not ready\n{log}");
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// The body of an answer with status 200.
    fn get(&self, target: &str) -> Result<String, String> {
        match http::request(self.address, "GET", target, &[], PATIENCE) {
            Ok(answer) if answer.status == 200 => Ok(answer.text()),
            Ok(answer) => Err(answer.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[track_caller]
    fn data(&self, target: &str) -> Value {
        let body = self.get(target);
        let body = body.unwrap_or_else(|error| panic!("{target}\n{error}"));
        let mut answer: Value = serde_json::from_str(&body).expect("the answer is JSON");
        answer["data"].take()
    }

    /// The result of an expression now: one series for each element, none for an empty result.
    #[track_caller]
    pub fn query(&self, expression: &str) -> Vec<Series> {
        let expression = percent_encoded(expression);
        let data = self.data(&format!("/api/v1/query?query={expression}"));
        let result = data["result"].as_array().expect("a vector");
        result.iter().map(series).collect()
    }

    /// The value of an expression with one element.
    pub fn value(&self, expression: &str) -> Option<f64> {
        match self.query(expression).as_slice() {
            [one] => Some(one.value),
            _ => None,
        }
    }

    /// Pending and firing alerts.
    pub fn alerts(&self) -> Vec<Alert> {
        let data = self.data("/api/v1/alerts");
        let alerts = data["alerts"].as_array().expect("a list");
        let alert = |alert: &Value| Alert {
            labels: strings(&alert["labels"]),
            annotations: strings(&alert["annotations"]),
            state: text(&alert["state"]),
        };
        alerts.iter().map(alert).collect()
    }

    /// The annotations of the firing alert of this name with this value of this label.
    pub fn firing(&self, name: &str, label: &str, value: &str) -> Option<Texts> {
        let is_it = |alert: &Alert| {
            let has = |label: &str, value: &str| {
                let found = alert.labels.get(label);
                found.is_some_and(|found| found == value)
            };
            alert.state == "firing" && has("alertname", name) && has(label, value)
        };
        let alert = self.alerts().into_iter().find(is_it)?;
        Some(alert.annotations)
    }

    /// Each rule with what its last evaluation said against it; nothing when it went well.
    pub fn rules(&self) -> Vec<(String, String)> {
        let data = self.data("/api/v1/rules");
        let groups = data["groups"].as_array().into_iter().flatten();
        let rules = groups.flat_map(|group| group["rules"].as_array().into_iter().flatten());
        let rules = rules.map(|rule| (text(&rule["name"]), problem(rule)));
        rules.collect()
    }
}

impl Series {
    /// The value of a label; empty is none.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Its data is not needed any more, so it may end at once; or it has already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn problem(rule: &Value) -> String {
    match text(&rule["health"]).as_str() {
        "ok" => String::new(),
        health => format!("{health} {}", text(&rule["lastError"])),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn series(element: &Value) -> Series {
    let value = element["value"][1].as_str().expect("a number as text");
    Series {
        labels: strings(&element["metric"]),
        value: value.parse().expect("a number"),
    }
}

fn strings(object: &Value) -> Texts {
    let fields = object.as_object().into_iter().flatten();
    let fields = fields.map(|(name, value)| (name.clone(), text(value)));
    fields.collect()
}

fn percent_encoded(text: &str) -> String {
    let encoded = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encoded).collect()
}

/// A port that was free a moment ago, for a program that takes none by itself.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("it is bound")
}
