//! HTTP/1.1 as a server writes and reads it: one request from a stream, one answer to bytes.
//!
//! Owns framing, percent-decoding and gzip of bodies. It knows no endpoint and keeps no state.
//! Only what a real client of the API sends is understood; all else is an error.

use std::io::{self, Read, Write};

/// Far above any request of the API: 100 ids of 36 characters are about 6 KB.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// One request as it came.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    /// Path and query as sent.
    pub target: String,
    /// In the order sent, names as sent.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Head and body together.
    pub size_bytes: usize,
}

impl Request {
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The first parameter of this name, decoded.
    pub fn query(&self, name: &str) -> Option<String> {
        let (_, query) = self.target.split_once('?')?;
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let mut values = pairs.filter(|(key, _)| percent_decoded(key) == name);
        values.next().map(|(_, value)| percent_decoded(value))
    }

    /// The first header of this name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn header_has(&self, name: &str, word: &str) -> bool {
        self.header(name)
            .is_some_and(|value| value.to_ascii_lowercase().contains(word))
    }

    pub fn body_text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One answer before it is written.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(status: u16, body: impl Into<Vec<u8>>) -> Answer {
        Answer::of_type(status, "application/json", body)
    }

    pub fn of_type(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Answer {
        let headers = vec![("Content-Type".to_owned(), content_type.to_owned())];
        let body = body.into();
        Answer {
            status,
            headers,
            body,
        }
    }

    pub fn with_header(mut self, name: &str, value: impl ToString) -> Answer {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    /// The body compressed, for a client that accepts it.
    pub fn gzipped(mut self) -> Answer {
        self.body = gzip(&self.body);
        self.with_header("Content-Encoding", "gzip")
    }

    /// Status line and headers without the empty line that ends them.
    pub fn head(&self) -> String {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, phrase(self.status));
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head
    }

    /// The whole answer as it goes over the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let head = self.head() + &format!("Content-Length: {}\r\n\r\n", self.body.len());
        [head.as_bytes(), &self.body].concat()
    }
}

pub fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(plain).expect("writing to memory");
    encoder.finish().expect("writing to memory")
}

/// The next request of a connection; none when the client has ended it in between.
///
/// `buffer` keeps what was read beyond this request.
pub fn read_request(stream: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<Option<Request>> {
    let head_end = loop {
        if buffer
            .first()
            .is_some_and(|byte| !byte.is_ascii_uppercase())
        {
            // A TLS client, for instance: like Go's server, which says so in plain HTTP.
            return Err(io::ErrorKind::InvalidData.into());
        }
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if fill(stream, buffer)? == 0 {
            return match buffer.is_empty() {
                true => Ok(None),
                false => Err(io::ErrorKind::UnexpectedEof.into()),
            };
        }
    };
    let mut request = parse_head(&String::from_utf8_lossy(&buffer[..head_end]))?;
    let length = request.header("Content-Length").map_or(Ok(0), str::parse);
    let size_bytes = head_end + length.map_err(io::Error::other)?;
    while buffer.len() < size_bytes {
        if fill(stream, buffer)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    request.body = buffer[head_end..size_bytes].to_vec();
    request.size_bytes = size_bytes;
    buffer.drain(..size_bytes);
    Ok(Some(request))
}

fn fill(stream: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let mut chunk = [0; 8192];
    let count = loop {
        match stream.read(&mut chunk) {
            // A machine that was suspended interrupts every wait with a limit (signal(7)).
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => break result?,
        }
    };
    buffer.extend_from_slice(&chunk[..count]);
    match buffer.len() > REQUEST_BYTES_MAX {
        true => Err(io::Error::other("a request of more than 1 MiB")),
        false => Ok(count),
    }
}

fn parse_head(head: &str) -> io::Result<Request> {
    let mut lines = head.trim_end().split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some("HTTP/1.1")) = (words.next(), words.next(), words.next())
    else {
        return Err(io::Error::other("not a request line of HTTP/1.1"));
    };
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
    let request = Request {
        method: method.to_owned(),
        target: target.to_owned(),
        headers: headers.collect(),
        ..Request::default()
    };
    match request.header("Transfer-Encoding") {
        Some(_) => Err(io::Error::other("a request body without a length")),
        None => Ok(request),
    }
}

/// Percent-decoded, with `+` as a space; a broken escape stays as it is.
pub fn percent_decoded(text: &str) -> String {
    let (bytes, mut decoded, mut at) = (text.as_bytes(), Vec::new(), 0);
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).map(String::from_utf8_lossy);
        let escaped = hex.and_then(|hex| u8::from_str_radix(&hex, 16).ok());
        match (bytes[at], escaped) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 2;
            }
            (b'+', _) => decoded.push(b' '),
            (byte, _) => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        301 | 302 | 303 | 307 | 308 => "Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Status",
    }
}
