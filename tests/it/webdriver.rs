//! A real browser for the tests: Debian's Chromium, driven through its chromedriver by the
//! WebDriver protocol (JSON over HTTP, W3C WebDriver) on a loopback socket.
//!
//! It knows nothing of the page. Every wait has a limit, every process is ended by its id, and
//! a name that is not on this machine is resolved to nothing, so that no test needs or finds
//! the internet.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};

use crate::harness::PATIENCE;
use crate::harness::directory::Directory;

/// Far above a picture of the longest page.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// W3C WebDriver's name for the id of an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// How the browser shows a page.
#[derive(Clone, Copy, Debug)]
pub struct View {
    pub width: u32,
    pub height: u32,
    pub is_dark: bool,
    /// A finger instead of a mouse, and the width is that of the device.
    pub is_phone: bool,
}

/// A running browser with one window; it is ended when dropped.
pub struct Browser {
    address: SocketAddr,
    session: String,
    driver: Child,
    profile: Directory,
}

impl Browser {
    /// None where the programs are not installed.
    pub fn start() -> Option<Browser> {
        let (chromium, driver) = (program("chromium")?, program("chromedriver")?);
        let profile = Directory::new();
        let (driver, address) = start_driver(&driver, profile.path());
        let mut browser = Browser {
            address,
            session: String::new(),
            driver,
            profile,
        };
        let session = browser.ask("POST", "/session", &capabilities(&chromium, &browser));
        browser.session = text(&session["sessionId"]);
        Some(browser)
    }

    #[track_caller]
    pub fn show_as(&self, view: View) {
        let scheme = if view.is_dark { "dark" } else { "light" };
        let metrics = json!({
            "width": view.width, "height": view.height,
            "deviceScaleFactor": 1, "mobile": view.is_phone,
        });
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics);
        self.devtools("Emulation.setEmulatedMedia", media);
    }

    /// Opens the address and waits until it is loaded.
    #[track_caller]
    pub fn open(&self, url: &str) {
        self.command("POST", "url", json!({ "url": url }));
    }

    /// What this function body returns in the page; its CSP does not bind it.
    #[track_caller]
    pub fn run(&self, script: &str) -> Value {
        self.command(
            "POST",
            "execute/sync",
            json!({ "script": script, "args": [] }),
        )
    }

    /// The role that a screen reader is told of the first element that matches.
    #[track_caller]
    pub fn role(&self, selector: &str) -> String {
        let query = json!({ "using": "css selector", "value": selector });
        let element = text(&self.command("POST", "element", query)[ELEMENT]);
        let path = format!("element/{element}/computedrole");
        text(&self.command("GET", &path, Value::Null))
    }

    /// Presses a key of the keyboard and releases it.
    #[track_caller]
    pub fn press(&self, key: char) {
        let events = ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key }));
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": events });
        self.command("POST", "actions", json!({ "actions": [keyboard] }));
    }

    /// Everything in this log since it was last read: `browser` has what a console shows,
    /// `performance` what went over the network.
    #[track_caller]
    pub fn log(&self, kind: &str) -> Vec<Value> {
        let log = self.command("POST", "se/log", json!({ "type": kind }));
        log.as_array().cloned().unwrap_or_default()
    }

    /// A PNG of the whole page.
    #[track_caller]
    pub fn picture(&self) -> Vec<u8> {
        let parameters = json!({ "format": "png", "captureBeyondViewport": true });
        let picture = self.devtools("Page.captureScreenshot", parameters);
        let data = text(&picture["data"]);
        BASE64_STANDARD.decode(data).expect("a picture in base64")
    }

    #[track_caller]
    fn devtools(&self, command: &str, parameters: Value) -> Value {
        let body = json!({ "cmd": command, "params": parameters });
        self.command("POST", "goog/cdp/execute", body)
    }

    #[track_caller]
    fn command(&self, method: &str, path: &str, body: Value) -> Value {
        self.ask(method, &format!("/session/{}/{path}", self.session), &body)
    }

    #[track_caller]
    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        match self.try_ask(method, path, body, PATIENCE) {
            Ok(answer) => answer,
            Err(error) => panic!("{method} {path} {body}: {error}"),
        }
    }

    fn try_ask(
        &self,
        method: &str,
        path: &str,
        body: &Value,
        limit: Duration,
    ) -> Result<Value, String> {
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let (status, text) = exchange(self.address, method, path, &body, limit)
            .map_err(|error| error.to_string())?;
        let mut json: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        match status {
            200 => Ok(json["value"].take()),
            _ => Err(text),
        }
    }
}

/// One request and the status and text of its answer. Chromedriver keeps the connection open
/// whatever it is asked, so the length says where the answer ends.
fn exchange(
    address: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
    limit: Duration,
) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_write_timeout(Some(limit))?;
    stream.set_read_timeout(Some(limit))?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = BufReader::new(stream.take(ANSWER_BYTES_MAX));
    let mut line = String::new();
    answer.read_line(&mut line)?;
    let status = line
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let mut length = 0;
    while line.trim() != "" {
        line.clear();
        answer.read_line(&mut line)?;
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("Content-Length")
        {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    let mut text = String::new();
    answer.take(length).read_to_string(&mut text)?;
    let status = status.ok_or_else(|| io::Error::other(format!("no status: {text}")))?;
    Ok((status, text))
}

impl Drop for Browser {
    fn drop(&mut self) {
        // In order where that works, since chromedriver ends its Chromium so.
        let path = format!("/session/{}", self.session);
        let _ = self.try_ask("DELETE", &path, &Value::Null, Duration::from_secs(10));
        let _ = self.driver.kill();
        let _ = self.driver.wait();
        end_processes_of(self.profile.path());
    }
}

/// Ends what still runs with this profile in its command line: a Chromium whose driver was not
/// able to. The profile is of this test alone.
fn end_processes_of(profile: &Path) {
    let profile = profile.display().to_string();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let id = entry.file_name();
        if String::from_utf8_lossy(&command).contains(&profile) {
            let _ = Command::new("kill").args(["-s", "KILL"]).arg(id).status();
        }
    }
}

/// Where PATH has it.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut candidates = std::env::split_paths(&path).map(|folder| folder.join(name));
    candidates.find(|candidate| candidate.is_file())
}

/// Starts chromedriver on a free port, which it names in its first lines.
fn start_driver(driver: &Path, home: &Path) -> (Child, SocketAddr) {
    let mut command = Command::new(driver);
    command.arg("--port=0").env_clear().env("HOME", home);
    command.envs(std::env::var("PATH").map(|path| ("PATH", path)));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().expect("chromedriver starts");
    let output = BufReader::new(child.stdout.take().expect("it is piped"));
    let (sender, receiver) = mpsc::channel();
    // Reads to the end, so that the pipe never fills; it ends with the process.
    thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            let port = line.split("started successfully on port ").nth(1);
            if let Some(port) = port.and_then(|rest| rest.trim_end_matches('.').parse().ok()) {
                // Nobody waits for a second one.
                let _ = sender.send(port);
            }
        }
    });
    match receiver.recv_timeout(PATIENCE) {
        Ok(port) => (child, SocketAddr::from(([127, 0, 0, 1], port))),
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            panic!("chromedriver names no port: {error}");
        }
    }
}

fn capabilities(chromium: &Path, browser: &Browser) -> Value {
    let profile = browser.profile.path().join("profile");
    let profile = format!("--user-data-dir={}", profile.display());
    let options = json!({
        "binary": chromium,
        "args": [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-dev-shm-usage", "--hide-scrollbars",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", profile,
        ],
    });
    json!({ "capabilities": { "alwaysMatch": {
        "browserName": "chrome",
        "goog:chromeOptions": options,
        "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
    }}})
}

#[track_caller]
fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("no text: {value}"))
        .to_owned()
}
