//! Runs the real binary: one temporary directory and one process for each test.
//!
//! [`Exporter`] starts it, finds its port in its log, asks it and ends it. Every failure
//! message holds the command, the status and the output: it is the debugging session.
//! `TTN_EXPORTER_BINARY` names another binary, `TTN_EXPORTER_RUNNER` a program to run it with
//! (`qemu-arm-static`), so that the suite tests what was built for other machines too.

pub mod directory;
pub mod http;
pub mod samples;

use std::fmt;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::fake::{Fake, Key};
use directory::Directory;
use http::Response;
use samples::Scrape;

/// How long anything may take that should take no time: a cross-built binary under an
/// emulator on a busy machine is slow. A test that waits this long fails.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Of each output stream; the exporter must not write this much in a test.
const OUTPUT_BYTES_MAX: usize = 4 << 20;
const LISTENING: &str = "listening on http://";

/// A command line of the exporter, not started yet.
pub struct Setup {
    /// A program that sets something up and then becomes the exporter.
    launcher: Vec<String>,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    directory: Directory,
}

/// A finished run.
pub struct Finished {
    pub command: String,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// A running exporter that serves; it is killed when dropped.
pub struct Exporter {
    pub address: SocketAddr,
    command: String,
    child: Mutex<Child>,
    stdout: Output,
    stderr: Output,
    /// Removed with it.
    _directory: Directory,
}

/// What a process has written so far.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Setup {
    /// The bare program: no argument, no variable.
    pub fn bare() -> Setup {
        Setup {
            launcher: Vec::new(),
            arguments: Vec::new(),
            variables: Vec::new(),
            directory: Directory::new(),
        }
    }

    /// Against this fake with the key of [`Key::user`].
    pub fn against(fake: &Fake) -> Setup {
        Setup::with_key(fake, &Key::user())
    }

    pub fn with_key(fake: &Fake, key: &Key) -> Setup {
        Setup::bare()
            .args(["--server", &fake.url()])
            .variable("TTN_API_KEY", &key.token)
    }

    pub fn args<'a>(mut self, arguments: impl IntoIterator<Item = &'a str>) -> Setup {
        self.arguments
            .extend(arguments.into_iter().map(str::to_owned));
        self
    }

    pub fn variable(mut self, name: &str, value: &str) -> Setup {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Started by this program: `prlimit --nofile=64`, or [`Setup::under_shell`].
    pub fn under<'a>(mut self, launcher: impl IntoIterator<Item = &'a str>) -> Setup {
        self.launcher = launcher.into_iter().map(str::to_owned).collect();
        self
    }

    /// Started by this shell script, in which `"$0" "$@"` is the exporter. With `exec` before
    /// it, the process stays the one that was started.
    pub fn under_shell(self, script: &str) -> Setup {
        self.under(["sh", "-c", script])
    }

    /// Writes a file into the test's directory and gives its path.
    pub fn file(&self, name: &str, contents: &str) -> String {
        self.directory.file(name, contents)
    }

    /// `--flag PATH` of a new file with these contents.
    pub fn args_with_file(self, flag: &str, contents: &str) -> Setup {
        let path = self.file(flag.trim_start_matches('-'), contents);
        self.args([flag, &path])
    }

    /// Runs to the end: `--once`, `--help`, bad usage.
    #[track_caller]
    pub fn run(self) -> Finished {
        let (mut child, command) = self.spawn();
        let (stdout, stderr) = collect_outputs(&mut child);
        let status = wait_for_exit(&mut child, PATIENCE);
        let Some(status) = status else {
            // The process may have ended between the two calls.
            let _ = child.kill();
            let _ = child.wait();
            panic!("no end within {PATIENCE:?}\n$ {command}\n{stdout}\n{stderr}");
        };
        Finished {
            command,
            status,
            stdout: stdout.settled(),
            stderr: stderr.settled(),
        }
    }

    /// `--once`.
    #[track_caller]
    pub fn run_once(self) -> Finished {
        self.args(["--once"]).run()
    }

    /// Starts to serve on a free port of 127.0.0.1, unless `--listen` says where.
    #[track_caller]
    pub fn start(self) -> Exporter {
        let has_listen = self.arguments.iter().any(|a| a.starts_with("--listen"));
        let has_listen = has_listen || self.variables.iter().any(|(name, _)| name == "TTN_LISTEN");
        let setup = match has_listen {
            true => self,
            false => self.args(["--listen", "127.0.0.1:0"]),
        };
        let (mut child, command) = setup.spawn();
        let (stdout, stderr) = collect_outputs(&mut child);
        let mut exporter = Exporter {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            command,
            child: Mutex::new(child),
            stdout,
            stderr,
            _directory: setup.directory,
        };
        exporter.address = exporter.find_address();
        exporter
    }

    /// The whole command line, for a test that has its own ideas of its standard streams. The
    /// directory of the test goes with the setup.
    pub fn command(&self) -> Command {
        let setting = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let binary = setting("TTN_EXPORTER_BINARY");
        let binary =
            binary.unwrap_or_else(|| env!("CARGO_BIN_EXE_ttn-gateway-exporter").to_owned());
        let runner = setting("TTN_EXPORTER_RUNNER").unwrap_or_default();
        let launcher = self.launcher.iter().map(String::as_str);
        let mut words = launcher.chain(runner.split_whitespace()).chain([&*binary]);
        let mut command = Command::new(words.next().expect("the binary at least"));
        command.args(words);
        command
            .args(&self.arguments)
            .env_clear()
            .envs(self.variables.iter().cloned());
        // For the runner, which is found by its name.
        command.envs(std::env::var("PATH").map(|path| ("PATH", path)));
        command.current_dir(self.directory.path());
        // A shell that runs the tests in the background has them ignore SIGINT, and nohup SIGHUP.
        // The exporter would keep that.
        // SAFETY: signal(2) may be called between fork and exec (signal-safety(7)).
        unsafe {
            command.pre_exec(|| {
                libc::signal(libc::SIGINT, libc::SIG_DFL);
                libc::signal(libc::SIGHUP, libc::SIG_DFL);
                Ok(())
            });
        }
        command
    }

    fn spawn(&self) -> (Child, String) {
        let mut command = self.command();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let text = format!("{:?} {command:?}", self.variables);
        match command.spawn() {
            Ok(child) => (child, text),
            Err(error) => panic!("$ {text}\ncannot be started: {error}"),
        }
    }
}

impl Finished {
    #[track_caller]
    pub fn assert_code(&self, code: i32) -> &Finished {
        assert_eq!(self.status.code(), Some(code), "{self}");
        self
    }

    #[track_caller]
    pub fn assert_stderr_has(&self, text: &str) -> &Finished {
        assert!(
            self.stderr.contains(text),
            "no {text:?} in the error output\n{self}"
        );
        self
    }

    /// Standard output as an exposition.
    #[track_caller]
    pub fn scrape(&self) -> Scrape {
        Scrape::read(&self.stdout, &self.to_string())
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "$ {}\n{}", self.command, self.status)?;
        write!(
            f,
            "--- stdout\n{}\n--- stderr\n{}",
            self.stdout, self.stderr
        )
    }
}

impl Exporter {
    /// Against this fake with the usual key and no further flag.
    #[track_caller]
    pub fn start(fake: &Fake) -> Exporter {
        Setup::against(fake).start()
    }

    #[track_caller]
    fn find_address(&self) -> SocketAddr {
        let is_there = || {
            let stderr = self.stderr();
            let after = stderr.split(LISTENING).nth(1)?;
            let (line, _) = after.split_once('\n')?;
            let authority = line.split([' ', '/', ',']).next()?;
            authority.parse::<SocketAddr>().ok()
        };
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(mut address) = is_there() {
                if address.ip().is_unspecified() {
                    address.set_ip([127, 0, 0, 1].into());
                }
                return address;
            }
            let has_ended = !matches!(self.child().try_wait(), Ok(None));
            if has_ended || Instant::now() > end {
                // What it wrote last may still be in the pipe.
                thread::sleep(Duration::from_millis(50));
                panic!("no line with {LISTENING:?}\n{self}");
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        self.get_with_headers(path, &[])
    }

    #[track_caller]
    pub fn get_with_headers(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        self.request("GET", path, headers)
    }

    /// One request on a connection of its own.
    #[track_caller]
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        match http::request(self.address, method, path, headers, PATIENCE) {
            Ok(response) => response,
            Err(error) => panic!("{method} {path}: {error}\n{self}"),
        }
    }

    /// The metrics, checked.
    #[track_caller]
    pub fn scrape(&self) -> Scrape {
        self.scrape_with_headers(&[])
    }

    #[track_caller]
    pub fn scrape_with_headers(&self, headers: &[(&str, &str)]) -> Scrape {
        let response = self.get_with_headers("/metrics", headers);
        assert_eq!(response.status, 200, "{response}\n{self}");
        Scrape::read(&response.text(), &self.to_string())
    }

    /// A scrape that must end within this time.
    #[track_caller]
    pub fn scrape_within(&self, limit: Duration, headers: &[(&str, &str)]) -> Scrape {
        let start = Instant::now();
        let scrape = self.scrape_with_headers(headers);
        let elapsed = start.elapsed();
        assert!(
            elapsed <= limit,
            "{elapsed:?} is more than {limit:?}\n{self}"
        );
        scrape
    }

    /// Scrapes until the condition holds.
    #[track_caller]
    pub fn scrape_until(&self, what: &str, holds: impl Fn(&Scrape) -> bool) -> Scrape {
        let end = Instant::now() + PATIENCE;
        loop {
            let scrape = self.scrape();
            if holds(&scrape) {
                return scrape;
            }
            assert!(
                Instant::now() < end,
                "never: {what}\n{}\n{self}",
                scrape.text
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn process_id(&self) -> u32 {
        self.child().id()
    }

    /// `TERM`, `INT`, `HUP` …
    #[track_caller]
    pub fn signal(&self, name: &str) {
        let id = self.process_id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "kill -s {name} {id}"
        );
    }

    /// Waits for the end that a signal asked for.
    #[track_caller]
    pub fn wait(&self) -> ExitStatus {
        let status = wait_for_exit(&mut self.child(), PATIENCE);
        status.unwrap_or_else(|| panic!("no end within {PATIENCE:?}\n{self}"))
    }

    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits until the log has this text: it is written beside the answers.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        let end = Instant::now() + Duration::from_secs(5);
        while !self.stderr().contains(text) {
            assert!(Instant::now() < end, "no {text:?} in the log\n{self}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl fmt::Display for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = match self.child().try_wait() {
            Ok(None) => "running".to_owned(),
            Ok(Some(status)) => status.to_string(),
            Err(error) => error.to_string(),
        };
        writeln!(f, "$ {}\n{status}", self.command)?;
        write!(
            f,
            "--- stdout\n{}\n--- stderr\n{}",
            self.stdout(),
            self.stderr()
        )
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let mut child = self.child();
        // It has ended already where a test sent a signal.
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Output {
    fn collect(source: impl Read + Send + 'static) -> Output {
        let output = Output::default();
        let target = output.clone();
        thread::spawn(move || target.fill_from(source));
        output
    }

    /// Reads on after the bound, so that the process never waits for its reader.
    fn fill_from(&self, mut source: impl Read) {
        let mut chunk = [0; 8192];
        while let Ok(count @ 1..) = source.read(&mut chunk) {
            let mut bytes = self.0.lock().expect("no panic in a reader");
            let room = OUTPUT_BYTES_MAX.saturating_sub(bytes.len());
            bytes.extend_from_slice(&chunk[..count.min(room)]);
        }
    }

    fn text(&self) -> String {
        let bytes = self.0.lock().expect("no panic in a reader");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// All of it, after the process has ended: its reader lets go at the end of the pipe.
    fn settled(&self) -> String {
        let end = Instant::now() + Duration::from_secs(5);
        while Arc::strong_count(&self.0) > 1 && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
        self.text()
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

fn collect_outputs(child: &mut Child) -> (Output, Output) {
    let stdout = child.stdout.take().expect("it is piped");
    let stderr = child.stderr.take().expect("it is piped");
    (Output::collect(stdout), Output::collect(stderr))
}

fn wait_for_exit(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        thread::sleep(Duration::from_millis(2));
    }
    None
}
