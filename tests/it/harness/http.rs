//! A client of the exporter, over a bare socket: what came is shown as it came.
//!
//! It takes only what HTTP/1.1 lets a server send, and every wait has a limit.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Far above any answer of the tests.
const ANSWER_BYTES_MAX: usize = 256 << 20;

#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    /// In the order sent, names as sent.
    pub headers: Vec<(String, String)>,
    /// Without the framing, still compressed if it was.
    pub body: Vec<u8>,
    /// From connecting to the last byte.
    pub elapsed: Duration,
}

impl Response {
    /// The first header of this name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The body, unpacked.
    pub fn text(&self) -> String {
        let plain = match self.header("Content-Encoding") {
            Some("gzip") => {
                let mut plain = Vec::new();
                let mut decoder = flate2::read::GzDecoder::new(self.body.as_slice());
                decoder.read_to_end(&mut plain).expect("a body in gzip");
                plain
            }
            None => self.body.clone(),
            Some(other) => panic!("an encoding that nobody asked for: {other}"),
        };
        String::from_utf8(plain).expect("a body in UTF-8")
    }
}

impl fmt::Display for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} after {:?}", self.status, self.elapsed)?;
        for (name, value) in &self.headers {
            writeln!(f, "{name}: {value}")?;
        }
        write!(f, "\n{}", String::from_utf8_lossy(&self.body))
    }
}

/// One request on a connection of its own, which the server is asked to close.
pub fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    limit: Duration,
) -> io::Result<Response> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    let start = Instant::now();
    let bytes = exchange(address, text.as_bytes(), limit)?;
    let mut response = parse(&bytes, method == "HEAD")?;
    response.elapsed = start.elapsed();
    Ok(response)
}

/// Sends these bytes and reads until the server ends the connection.
pub fn exchange(address: SocketAddr, bytes: &[u8], limit: Duration) -> io::Result<Vec<u8>> {
    let end = Instant::now() + limit;
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_write_timeout(Some(limit))?;
    stream.write_all(bytes)?;
    let (mut answer, mut chunk) = (Vec::new(), [0; 65_536]);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        // No time at all would mean no limit.
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(answer),
            Ok(count) => answer.extend_from_slice(&chunk[..count]),
            // A machine that was suspended interrupts every wait with a limit (signal(7)).
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(with_context(error, &answer)),
        }
        if answer.len() > ANSWER_BYTES_MAX {
            return Err(io::Error::other("an answer without an end"));
        }
    }
}

fn with_context(error: io::Error, answer: &[u8]) -> io::Error {
    let start = String::from_utf8_lossy(&answer[..answer.len().min(500)]).into_owned();
    let message = format!("{error} after {} bytes: {start}", answer.len());
    io::Error::new(error.kind(), message)
}

/// Splits a whole answer; `is_head` for one that has a length and no body.
pub fn parse(bytes: &[u8], is_head: bool) -> io::Result<Response> {
    let wrong = |what: &str| with_context(io::Error::other(what.to_owned()), bytes);
    let head_end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let head_end = head_end.ok_or_else(|| wrong("no end of the head"))?;
    let head = std::str::from_utf8(&bytes[..head_end]).map_err(io::Error::other)?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 "));
    let status = status.and_then(|rest| rest.get(..3)?.parse().ok());
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut response = Response {
        status: status.ok_or_else(|| wrong("no status line of HTTP/1.1"))?,
        headers: headers.collect(),
        body: bytes[head_end + 4..].to_vec(),
        elapsed: Duration::ZERO,
    };
    if response.header("Transfer-Encoding") == Some("chunked") && !is_head {
        response.body = unchunked(&response.body).ok_or_else(|| wrong("broken chunks"))?;
        return Ok(response);
    }
    let length = response
        .header("Content-Length")
        .and_then(|l| l.parse::<usize>().ok());
    let expected = if is_head || response.status == 304 {
        Some(0)
    } else {
        length
    };
    match expected == Some(response.body.len()) {
        true => Ok(response),
        false => Err(wrong("a body that is not as long as its Content-Length")),
    }
}

fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line_end = rest.windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..line_end]).ok()?;
        let size = usize::from_str_radix(size, 16).ok()?;
        rest = &rest[line_end + 2..];
        if size == 0 {
            return (rest == b"\r\n").then_some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
}
