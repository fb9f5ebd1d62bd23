//! A real Prometheus for the tests: started on a free port of loopback with its storage in a
//! folder of its own, asked through its HTTP API, and ended with the test.
//!
//! It knows nothing of gateways. Every wait here has an end.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// A running Prometheus; it ends, and its folder goes, when dropped.
pub struct Prometheus {
    child: Child,
    address: SocketAddr,
    folder: PathBuf,
}

/// One series of an answer: its labels and its value now.
#[derive(Debug)]
pub struct Series {
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// An alert as /api/v1/alerts shows it.
#[derive(Debug)]
pub struct Alert {
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// `pending` or `firing`.
    pub state: String,
}

/// Whether this program can be started; if not, says past the test harness that a test did not
/// run: it captures what `eprintln!` prints.
pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    if !is_there {
        let test = thread::current().name().unwrap_or("a test").to_owned();
        // Nobody may be listening.
        let _ = writeln!(io::stderr(), "NOT RUN, since {program} is missing: {test}");
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
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("prometheus-{}-{number}", std::process::id());
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&folder).expect("the tests' own folder can be written");
        for (name, content) in files.iter().chain([&("prometheus.yml", config)]) {
            fs::write(folder.join(name), content).expect("the folder is there");
        }
        let address = free_address();
        let output = fs::File::create(folder.join("log")).expect("the folder is there");
        let child = Command::new("prometheus")
            .arg("--config.file=prometheus.yml")
            .arg("--storage.tsdb.path=data")
            .arg(format!("--web.listen-address={address}"))
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .expect("prometheus starts");
        let mut prometheus = Prometheus {
            child,
            address,
            folder,
        };
        prometheus.wait_until_ready();
        prometheus
    }

    fn wait_until_ready(&mut self) {
        let end = Instant::now() + Duration::from_secs(60);
        while self.get("/-/ready").is_err() {
            let has_ended = self.child.try_wait().expect("it is our child").is_some();
            if has_ended || Instant::now() > end {
                let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                panic!("prometheus is not ready\n{log}");
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// The body of an answer with status 200; HTTP/1.0 spares the decoding of chunks.
    fn get(&self, target: &str) -> Result<String, String> {
        let text = self.exchange(target).map_err(|error| error.to_string())?;
        let (head, body) = text.split_once("\r\n\r\n").ok_or("no head")?;
        match head.split(' ').nth(1) {
            Some("200") => Ok(body.to_owned()),
            _ => Err(text),
        }
    }

    fn exchange(&self, target: &str) -> io::Result<String> {
        let limit = Duration::from_secs(20);
        let mut stream = TcpStream::connect_timeout(&self.address, limit)?;
        stream.set_read_timeout(Some(limit))?;
        write!(
            stream,
            "GET {target} HTTP/1.0\r\nHost: {}\r\n\r\n",
            self.address
        )?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }

    #[track_caller]
    fn data(&self, target: &str) -> Value {
        let body = self
            .get(target)
            .unwrap_or_else(|error| panic!("{target}\n{error}"));
        let mut answer: Value = serde_json::from_str(&body).expect("the answer is JSON");
        answer["data"].take()
    }

    /// The result of an expression now: one series for each element, none for an empty result.
    #[track_caller]
    pub fn query(&self, expression: &str) -> Vec<Series> {
        let data = self.data(&format!(
            "/api/v1/query?query={}",
            percent_encoded(expression)
        ));
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
            state: alert["state"].as_str().unwrap_or_default().to_owned(),
        };
        alerts.iter().map(alert).collect()
    }

    /// The firing alert of this name with this value of this label.
    pub fn firing(&self, name: &str, label: &str, value: &str) -> Option<Alert> {
        self.alerts().into_iter().find(|alert| {
            let has =
                |label: &str, value: &str| alert.labels.get(label).is_some_and(|v| v == value);
            alert.state == "firing" && has("alertname", name) && has(label, value)
        })
    }

    /// Each rule with what its last evaluation said against it; nothing when it went well.
    pub fn rules(&self) -> Vec<(String, String)> {
        let data = self.data("/api/v1/rules");
        let groups = data["groups"].as_array().expect("a list");
        let rules = groups
            .iter()
            .flat_map(|group| group["rules"].as_array().expect("a list"));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        rules
            .map(|rule| (text(&rule["name"]), problem(rule, &text)))
            .collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Its data is not needed any more, so it may end at once. Either fails only when it has
        // ended already, and the folder is below target/ in any case.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn problem(rule: &Value, text: impl Fn(&Value) -> String) -> String {
    match text(&rule["health"]).as_str() {
        "ok" => String::new(),
        health => format!("{health} {}", text(&rule["lastError"])),
    }
}

fn series(element: &Value) -> Series {
    let value = element["value"][1].as_str().expect("a number as text");
    Series {
        labels: strings(&element["metric"]),
        value: value.parse().expect("a number"),
    }
}

fn strings(object: &Value) -> BTreeMap<String, String> {
    let fields = object.as_object().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    fields
        .map(|(name, value)| (name.clone(), text(value)))
        .collect()
}

fn percent_encoded(text: &str) -> String {
    let encoded = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encoded).collect()
}

/// A port that was free a moment ago: Prometheus takes none by itself.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("it is bound")
}
