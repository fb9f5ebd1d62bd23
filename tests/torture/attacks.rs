//! The attacks: what a client can do to a port that it reaches. Each lasts as long as its
//! target and no longer; what happens to its own connections it does not mind, except where a
//! client that does no harm has a right to an answer.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::fake::{Fake, Misbehaviour};
use crate::socket;

const SCRAPE: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
const TICK: Duration = Duration::from_millis(20);
/// Memory of ours for what is sent in bulk.
static BLOCK: [u8; 65_536] = [b'a'; 65_536];

/// One attack on one exporter.
pub struct Target<'a> {
    pub address: SocketAddr,
    pub fake: &'a Fake,
    pub end: Instant,
    /// At full strength; else a tenth where strength is a number.
    pub is_full: bool,
    /// What should not have happened.
    pub complaints: Mutex<Vec<String>>,
}

impl Target<'_> {
    fn is_on(&self) -> bool {
        Instant::now() < self.end
    }

    /// How many of what the full attack has this many of.
    fn share_of(&self, count: usize) -> usize {
        if self.is_full { count } else { count / 10 }
    }

    fn complain(&self, what: String) {
        let mut complaints = self.complaints.lock().expect("no panic in an attack");
        if complaints.len() < 5 {
            complaints.push(what);
        }
    }

    /// So many attackers at once; each gets its number.
    fn crowd(&self, size: usize, attacker: impl Fn(usize) + Sync) {
        thread::scope(|scope| {
            for number in 0..size {
                let attacker = &attacker;
                scope.spawn(move || attacker(number));
            }
        });
    }

    /// At least this often, and until the end.
    fn repeat(&self, times: usize, mut step: impl FnMut()) {
        let mut done = 0;
        let limit = self.end + Duration::from_secs(30);
        while (self.is_on() || done < times) && Instant::now() < limit {
            step();
            done += 1;
        }
    }

    /// Keeps this many connections open, each replaced when the server has ended it.
    fn hold(&self, count: usize, mut greet: impl FnMut(&mut TcpStream)) {
        let mut connections: Vec<TcpStream> = Vec::with_capacity(count);
        while self.is_on() {
            connections.retain(|connection| !socket::is_over(connection));
            while connections.len() < count && self.is_on() {
                let Ok(mut connection) = socket::connect(self.address) else {
                    break;
                };
                greet(&mut connection);
                connections.push(connection);
            }
            thread::sleep(TICK);
        }
    }
}

pub fn nothing(target: &Target) {
    thread::sleep(target.end.saturating_duration_since(Instant::now()));
}

pub fn connect_and_reset(target: &Target) {
    target.crowd(4, |_| {
        target.repeat(target.share_of(20_000) / 4, || {
            let _ = socket::connect(target.address).and_then(socket::reset);
        });
    });
}

pub fn request_and_reset(target: &Target) {
    target.crowd(4, |_| {
        target.repeat(target.share_of(3_000) / 4, || {
            let _ = socket::connect(target.address).and_then(|mut connection| {
                connection.write_all(SCRAPE)?;
                socket::reset(connection)
            });
        });
    });
}

pub fn idle(target: &Target) {
    target.hold(300, |_| {});
}

/// 200 connections that send one byte in half a second.
pub fn drip(target: &Target) {
    let head = "GET /metrics HTTP/1.1\r\nHost: a\r\nX-Slow: ".bytes();
    let head = Vec::from_iter(head.chain([b'a'; 1000]));
    target.crowd(2, |_| {
        let mut connections: Vec<(TcpStream, usize)> = Vec::new();
        while target.is_on() {
            connections.retain(|(connection, _)| !socket::is_over(connection));
            while connections.len() < 100 && target.is_on() {
                let Ok(connection) = socket::connect(target.address) else {
                    break;
                };
                connections.push((connection, 0));
            }
            for (connection, sent) in &mut connections {
                let _ = connection.write(&head[*sent..*sent + 1]);
                *sent = (*sent + 1).min(head.len() - 1);
            }
            thread::sleep(Duration::from_millis(500));
        }
    });
}

/// They ask at the same moment, get their answer, and stay.
pub fn keep_alive(target: &Target) {
    const CLIENTS: usize = 12;
    let start = Barrier::new(CLIENTS);
    let rounds = if target.is_full { 5 } else { 1 };
    target.crowd(CLIENTS, |_| {
        let mut kept = Vec::new();
        for _ in 0..rounds {
            let connection = socket::connect(target.address);
            start.wait();
            let begin = Instant::now();
            let answer = connection.and_then(|mut connection| {
                connection.set_read_timeout(Some(Duration::from_secs(10)))?;
                let answer = socket::ask(&mut connection, SCRAPE)?;
                kept.push(connection);
                Ok(answer)
            });
            if !matches!(&answer, Ok(line) if line == "HTTP/1.1 200 OK") {
                let waited = begin.elapsed();
                target.complain(format!("one of 12 at once got {answer:?} after {waited:?}"));
            }
            thread::sleep(Duration::from_secs(if target.is_full { 2 } else { 1 }));
        }
    });
}

/// Bodies that are announced and never come. Each client waits for an answer, then for the end.
pub fn bodies(target: &Target) {
    let heads = [
        "Content-Length: 2000",
        "Content-Length: 1000000000000",
        "Content-Length: 9223372036854775808",
        "Content-Length: 99999999999999999999999999",
        "Transfer-Encoding: chunked",
        "Expect: 100-continue\r\nContent-Length: 5",
        "Expect: 100-continue",
        "Content-Length: 2000\r\nContent-Length: 0",
        "Connection: upgrade\r\nUpgrade: h2c",
    ];
    target.crowd(heads.len(), |number| {
        let method = if number % 2 == 0 { "GET" } else { "POST" };
        let head = format!(
            "{method} /metrics HTTP/1.1\r\nHost: a\r\n{}\r\n\r\n",
            heads[number]
        );
        let mut request = head.into_bytes();
        if heads[number].ends_with("chunked") {
            request.extend_from_slice(b"7d0\r\nhalf of it");
        }
        target.hold(10, |connection| {
            if let Err(error) = socket::ask(connection, &request) {
                target.complain(format!("{}: {error} instead of an answer", heads[number]));
            }
        });
    });
}

/// Requests of other protocols and of none. The server may answer or hang up.
pub fn nonsense(target: &Target) {
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and so on";
    let headers = "A: b\r\n".repeat(100_000);
    let many = format!("GET /metrics HTTP/1.1\r\n{headers}\r\n").into_bytes();
    let random = (0..4096_u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8);
    let kinds: [Vec<u8>; 10] = [
        b"GET /metrics HTTP/2.0\r\n\r\n".to_vec(),
        b"GET /metrics HTTP/3.0\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        hello.to_vec(),
        random.collect(),
        b"GET /metrics HTTP/1.1\nHost: a\n\n".to_vec(),
        b"\r\n\r\n\r\n\r\n".to_vec(),
        b"GET /metrics HTTP/1.1\r\nHost: a\0\r\n\r\n".to_vec(),
        b"GET /\xff\xfe HTTP/1.1\r\n\r\n".to_vec(),
        many,
    ];
    target.crowd(kinds.len(), |number| {
        target.repeat(target.share_of(1_000), || {
            let _ = socket::connect(target.address)
                .and_then(|mut connection| socket::ask(&mut connection, &kinds[number]));
        });
    });
}

/// A header line without an end, by so many clients.
fn long_line(target: &Target, clients: usize) {
    target.crowd(clients, |_| {
        while target.is_on() {
            let Ok(mut connection) = socket::connect(target.address) else {
                continue;
            };
            let start = b"GET /metrics HTTP/1.1\r\nA: ";
            let mut left = target.share_of(200 << 20);
            let mut result = connection.write_all(start);
            while result.is_ok() && left > 0 {
                result = connection.write_all(&BLOCK);
                left = left.saturating_sub(BLOCK.len());
            }
        }
    });
}

pub fn one_long_line(target: &Target) {
    long_line(target, 1);
}

pub fn ten_long_lines(target: &Target) {
    long_line(target, 10);
}

/// 2,000 requests in one go, of which nobody reads the answers, while the API is slow.
pub fn pipelined(target: &Target) {
    target.fake.set_delay(Duration::from_secs(3));
    let requests = SCRAPE.repeat(target.share_of(2_000));
    target.crowd(2, |_| {
        target.hold(1, |connection| {
            let _ = connection.write_all(&requests);
        });
    });
    target.fake.set_delay(Duration::ZERO);
}

/// Three that request and never read, three that read a byte in a tenth of a second. Their
/// receive buffers are small, or else the kernel would take the whole answer in their place.
pub fn slow_readers(target: &Target) {
    readers(target, 3, 3, Duration::ZERO);
}

/// More of them than the connection limit.
pub fn many_slow_readers(target: &Target) {
    readers(target, 50, 50, Duration::ZERO);
}

/// Fewer than the connection limit, one after the other, so that each takes a text of its own.
pub fn slow_readers_of_different_texts(target: &Target) {
    readers(target, 25, 25, Duration::from_millis(200));
}

fn readers(target: &Target, silent: usize, dripping: usize, pause: Duration) {
    target.crowd(silent + dripping, |number| {
        thread::sleep(pause * number as u32);
        while target.is_on() {
            let connection = socket::connect_with_receive_buffer(target.address, 4096);
            let Ok(mut connection) = connection else {
                thread::sleep(TICK);
                continue;
            };
            let mut is_over = connection.write_all(SCRAPE).is_err();
            while target.is_on() && !is_over {
                thread::sleep(Duration::from_millis(100));
                is_over = match number < silent {
                    // Unread bytes hide the end; an error shows it.
                    true => connection
                        .take_error()
                        .map_or(true, |error| error.is_some()),
                    false => !matches!(connection.read(&mut [0]), Ok(1)),
                };
            }
        }
    });
}

/// Ten scrapers more, while the API does not answer.
pub fn hanging_api(target: &Target) {
    while_hanging(target, 10, "10");
}

/// The same with more of them than the connection limit, which claim to have all the time.
pub fn hanging_api_and_a_crowd(target: &Target) {
    while_hanging(target, 100, "3600");
}

fn while_hanging(target: &Target, clients: usize, timeout: &str) {
    target.fake.script_all(Misbehaviour::HangBeforeHead);
    let request = format!(
        "GET /metrics HTTP/1.1\r\nHost: a\r\nX-Prometheus-Scrape-Timeout-Seconds: {timeout}\r\n\r\n"
    );
    target.crowd(clients, |_| {
        while target.is_on() {
            let _ = socket::connect(target.address).and_then(|mut connection| {
                let left = target.end.saturating_duration_since(Instant::now());
                connection.set_read_timeout(Some(left.max(TICK)))?;
                socket::ask(&mut connection, request.as_bytes())
            });
            thread::sleep(Duration::from_millis(100));
        }
    });
    target.fake.behave();
    target.fake.close_connections();
}

/// Clients that ask for the metrics as fast as they are answered.
pub fn greedy(target: &Target) {
    target.crowd(16, |_| {
        while target.is_on() {
            let _ = socket::connect(target.address).and_then(|mut connection| {
                connection.write_all(SCRAPE)?;
                connection.read_to_end(&mut Vec::new())
            });
        }
    });
}

/// Clients that say that they are done sending before they get their answer, as `nc -N` does.
pub fn half_closed(target: &Target) {
    target.crowd(4, |_| {
        while target.is_on() {
            let answer = socket::connect(target.address).and_then(|mut connection| {
                connection.write_all(SCRAPE)?;
                connection.shutdown(Shutdown::Write)?;
                let mut answer = Vec::new();
                connection.read_to_end(&mut answer)?;
                Ok(answer)
            });
            if !matches!(&answer, Ok(bytes) if bytes.starts_with(b"HTTP/1.1 200 ")) {
                target.complain(format!("half closed: {answer:?}"));
            }
        }
    });
}
