//! What does not depend on a fleet: the start, the binary, the crates.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const STARTS: usize = 11;
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Program {
    /// Until the first answer; the median.
    pub start: Duration,
    pub binary: String,
    pub binary_bytes: u64,
    pub is_static: bool,
    /// This one included; none where cargo does not say.
    pub crates: Option<usize>,
}

pub fn measure() -> Program {
    let binary = env::var("TTN_EXPORTER_BINARY");
    let binary = binary.unwrap_or_else(|_| env!("CARGO_BIN_EXE_ttn-gateway-exporter").to_owned());
    let mut starts: Vec<Duration> = (0..STARTS).map(|_| first_answer(&binary)).collect();
    starts.sort_unstable();
    let bytes = fs::read(&binary).expect("the binary");
    Program {
        start: starts[starts.len() / 2],
        binary_bytes: bytes.len() as u64,
        // The loader that a dynamic one names.
        is_static: !bytes.windows(7).any(|window| window == b"/ld-lin"),
        crates: crates(),
        binary,
    }
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It serves until then.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// From before the start of the process to the end of an answer that needs no API.
fn first_answer(binary: &str) -> Duration {
    let address = free_address();
    let start = Instant::now();
    let child = Command::new(binary)
        .args(["--server", "http://127.0.0.1:9", "--listen"])
        .arg(address.to_string())
        .env_clear()
        .env("TTN_API_KEY", "NNSXS.BENCH.KEY")
        .stderr(Stdio::null())
        .spawn();
    let _running = Running(child.expect("the exporter starts"));
    while start.elapsed() < PATIENCE {
        if let Ok(mut stream) = TcpStream::connect(address) {
            let request = b"GET /-/healthy HTTP/1.1\r\nHost: bench\r\n\r\n";
            stream.write_all(request).expect("the exporter reads");
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).expect("an answer");
            assert!(answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
            return start.elapsed();
        }
        thread::sleep(Duration::from_micros(100));
    }
    panic!("no answer within {PATIENCE:?}");
}

/// Free a moment ago.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound")
}

fn crates() -> Option<usize> {
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let tree = Command::new(cargo)
        .args(["tree", "--locked", "--edges", "normal"])
        .args(["--prefix", "none", "--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    let tree = String::from_utf8(tree.ok()?.stdout).ok()?;
    let crates: BTreeSet<_> = tree.lines().filter_map(|l| l.split(' ').next()).collect();
    (!crates.is_empty()).then_some(crates.len())
}
