//! Scrapes in a row, on one or more connections at a time. Each scrape has a connection of its
//! own, for the exporter as for the floor program: the exporter closes it after every answer.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::process;

/// Longer than any scrape here takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Even where one takes longer than a turn.
const SCRAPES_MIN: usize = 3;

/// A server to load, and what to ask it.
#[derive(Clone, Copy)]
pub struct Target {
    pub address: SocketAddr,
    pub process_id: u32,
    pub takes_gzip: bool,
}

/// What scrapes in a row took, each.
#[derive(Clone, Copy, Default)]
pub struct Cost {
    /// The median.
    pub wall: Duration,
    /// The server's processor time, user and kernel, on average.
    pub cpu: Duration,
}

impl Target {
    fn request(&self) -> String {
        let encoding = match self.takes_gzip {
            true => "Accept-Encoding: gzip\r\n",
            false => "",
        };
        let host = self.address;
        format!(
            "GET /metrics HTTP/1.1\r\nHost: {host}\r\n{encoding}\
             X-Prometheus-Scrape-Timeout-Seconds: 60\r\nConnection: close\r\n\r\n"
        )
    }

    /// The whole answer, head included.
    pub fn answer(&self) -> Vec<u8> {
        let request = self.request();
        crate::harness::http::exchange(self.address, request.as_bytes(), PATIENCE)
            .expect("an answer")
    }

    /// One scrape.
    pub fn scrape(&self) -> Cost {
        let before = process::cpu_time(self.process_id);
        let wall = visit(self.address, &self.request(), &mut [0; 65_536]).expect("an answer");
        let cpu = process::cpu_time(self.process_id).saturating_sub(before);
        Cost { wall, cpu }
    }

    /// Scrapes one after the other for this long.
    pub fn scrape_for(&self, turn: Duration) -> Cost {
        let (request, mut buffer) = (self.request(), vec![0; 65_536]);
        let (start, before) = (Instant::now(), process::cpu_time(self.process_id));
        let mut walls = Vec::new();
        while start.elapsed() < turn || walls.len() < SCRAPES_MIN {
            walls.push(visit(self.address, &request, &mut buffer).expect("an answer"));
        }
        let cpu = process::cpu_time(self.process_id).saturating_sub(before);
        walls.sort_unstable();
        Cost {
            wall: walls[walls.len() / 2],
            cpu: cpu / walls.len() as u32,
        }
    }

    /// Scrapes per second on so many connections at a time.
    pub fn rate(&self, connections: usize, turn: Duration) -> f64 {
        let request = self.request();
        let start = Instant::now();
        let count_one = || {
            let (mut count, mut buffer) = (0_usize, vec![0; 65_536]);
            while start.elapsed() < turn || count == 0 {
                visit(self.address, &request, &mut buffer).expect("an answer");
                count += 1;
            }
            count
        };
        let count: usize = thread::scope(|scope| {
            let threads: Vec<_> = (0..connections).map(|_| scope.spawn(count_one)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic in a client"))
                .sum()
        });
        count as f64 / start.elapsed().as_secs_f64()
    }
}

/// One request on a new connection, until the server ends it; how long it took.
fn visit(address: SocketAddr, request: &str, buffer: &mut [u8]) -> io::Result<Duration> {
    let start = Instant::now();
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes())?;
    let mut length = 0;
    loop {
        match stream.read(buffer)? {
            0 if length == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            0 => return Ok(start.elapsed()),
            count => length += count,
        }
    }
}
