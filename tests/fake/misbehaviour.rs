//! Everything that can go wrong on the way to an API, on demand: statuses, raw bytes, hangs,
//! trickles, bombs, resets. It owns how a misbehaviour looks on the wire, not when it happens.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use rustls::ServerConnection;

use super::api;
use super::wire::{Answer, gzip};

/// What a fake does with a request instead of answering it.
#[derive(Clone, Debug)]
pub enum Misbehaviour {
    /// This answer, whole and well framed.
    Answer(Answer),
    /// These bytes, then the end of the connection.
    Raw(Vec<u8>),
    HangBeforeHead,
    HangAfterHead,
    /// The head at once, then one byte of the body a second.
    Trickle,
    /// One byte a second from the status line on.
    TrickleHead,
    /// Half of the true body, then the end of the connection.
    CutShort,
    /// A body without an end, in chunks.
    Endless,
    /// A body of this many bytes, announced by its length: valid JSON, mostly white space.
    TooLarge(usize),
    /// A few kilobytes that unpack to 1 GiB.
    GzipBomb,
    NotJson,
    /// JSON, but an array of numbers instead of the object.
    WrongShape,
    /// A page of a proxy, with status 200.
    Html,
    /// A 307 to this URL.
    Redirect(String),
    /// The true answer, then the end of the connection without an announcement.
    CloseAfter,
    /// The end of the connection instead of an answer.
    CloseUnanswered,
    /// A TCP reset instead of an answer.
    Reset,
    /// The true answer after this time.
    Delay(Duration),
    /// 429 that names the seconds to wait.
    RateLimited {
        retry_seconds: u64,
    },
    /// The true answer of a list with another `X-Total-Count`, or without one.
    TotalCount(Option<u64>),
    /// Half of the true answer's gzip, framed as if it were all.
    CutGzip,
    /// The true answer that says it is the last one for this many seconds.
    AllowanceUsedUp {
        reset_seconds: u64,
    },
}

impl Misbehaviour {
    /// An error of the API with this status and the body that belongs to it.
    pub fn status(status: u16) -> Misbehaviour {
        let code = match status {
            400 => 3,
            401 => 16,
            403 => 7,
            404 => 5,
            429 => 8,
            501 => 12,
            502..=504 => 14,
            _ => 13,
        };
        let message = format!("scripted status {status}");
        Misbehaviour::Answer(api::error(status, code, "scripted", "failure", &message))
    }

    /// This status with this body as JSON.
    pub fn json(status: u16, body: &str) -> Misbehaviour {
        Misbehaviour::Answer(Answer::json(status, body))
    }

    /// A page of a proxy with this status.
    pub fn html(status: u16) -> Misbehaviour {
        Misbehaviour::Answer(Answer::of_type(status, "text/html", HTML))
    }
}

/// Whether the connection lives on after an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Next {
    Keep,
    Close,
}

/// A connection, plain or with TLS.
pub struct Stream {
    pub socket: TcpStream,
    pub tls: Option<Box<ServerConnection>>,
    pub bytes_written: usize,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.socket.read(buffer),
            Some(tls) => rustls::Stream::new(tls.as_mut(), &mut self.socket).read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = match &mut self.tls {
            None => self.socket.write(bytes)?,
            Some(tls) => rustls::Stream::new(tls.as_mut(), &mut self.socket).write(bytes)?,
        };
        self.bytes_written += count;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            None => self.socket.flush(),
            Some(tls) => rustls::Stream::new(tls.as_mut(), &mut self.socket).flush(),
        }
    }
}

impl Stream {
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)?;
        self.flush()
    }

    /// Ends the connection as a server does: with TLS's farewell, then TCP's.
    pub fn close(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            // The client may be gone already.
            let _ = tls.write_tls(&mut self.socket);
        }
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Waits until the client has gone, at most a minute. Its bytes stay unread.
    pub fn hang(&self) -> io::Result<()> {
        let end = Instant::now() + Duration::from_secs(60);
        self.socket
            .set_read_timeout(Some(Duration::from_millis(100)))?;
        while Instant::now() < end {
            match self.socket.peek(&mut [0]) {
                Ok(0) => break,
                // Unread bytes would make `peek` return at once for ever.
                Ok(_) => std::thread::sleep(Duration::from_millis(100)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
        Ok(())
    }

    fn trickle(&mut self, bytes: &[u8]) -> io::Result<()> {
        for byte in bytes.iter().take(60) {
            self.send(&[*byte])?;
            std::thread::sleep(Duration::from_secs(1));
        }
        Ok(())
    }

    /// Makes the coming close a reset: `SO_LINGER` with no time, see socket(7). The setting
    /// is unstable in std.
    fn reset_on_close(&self) {
        let linger = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        let size = size_of::<libc::linger>() as libc::socklen_t;
        // SAFETY: the descriptor is open as long as `self` lives, and the pointer and the size
        // are those of a `linger` that outlives the call.
        let result = unsafe {
            let value = std::ptr::from_ref(&linger).cast();
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_LINGER,
                value,
                size,
            )
        };
        assert_eq!(result, 0, "SO_LINGER");
    }
}

/// Does it; `honest` is the answer that it spoils.
pub fn perform(kind: Misbehaviour, honest: Answer, stream: &mut Stream) -> io::Result<Next> {
    let instead = match kind {
        Misbehaviour::Answer(answer) => answer,
        Misbehaviour::Delay(time) => {
            std::thread::sleep(time);
            honest
        }
        Misbehaviour::NotJson => Answer::json(200, "{\"gateways\": [nonsense"),
        Misbehaviour::WrongShape => Answer::json(200, "[1, 2, 3]"),
        Misbehaviour::Html => Answer::of_type(200, "text/html", HTML),
        Misbehaviour::Redirect(url) => Answer::json(307, "").with_header("Location", url),
        Misbehaviour::RateLimited { retry_seconds } => {
            let answer = api::error(429, 8, "pkg/ratelimit", "exceeded", "rate limit exceeded");
            with_allowance(answer, retry_seconds).with_header("X-Rate-Limit-Retry", retry_seconds)
        }
        Misbehaviour::AllowanceUsedUp { reset_seconds } => with_allowance(honest, reset_seconds),
        Misbehaviour::TotalCount(total) => with_total(honest, total),
        Misbehaviour::CutGzip => with_half_of_gzip(honest),
        Misbehaviour::GzipBomb => {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
                Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.send(head.as_bytes())?;
            return send_bomb(stream);
        }
        breaking => return break_off(breaking, honest, stream),
    };
    stream.send(&instead.bytes())?;
    Ok(Next::Keep)
}

/// Those after which the connection is of no use.
fn break_off(kind: Misbehaviour, honest: Answer, stream: &mut Stream) -> io::Result<Next> {
    let whole = honest.bytes();
    let head_bytes = whole.len() - honest.body.len();
    match &kind {
        Misbehaviour::Raw(bytes) => stream.send(bytes)?,
        Misbehaviour::HangBeforeHead => stream.hang()?,
        Misbehaviour::HangAfterHead => {
            stream.send(&whole[..head_bytes])?;
            stream.hang()?;
        }
        Misbehaviour::Trickle => {
            stream.send(&whole[..head_bytes])?;
            stream.trickle(&whole[head_bytes..])?;
        }
        Misbehaviour::TrickleHead => stream.trickle(&whole)?,
        Misbehaviour::CutShort => stream.send(&whole[..head_bytes + honest.body.len() / 2])?,
        Misbehaviour::Endless => send_endless(stream)?,
        Misbehaviour::TooLarge(length) => send_spaces(stream, *length)?,
        Misbehaviour::CloseAfter => stream.send(&whole)?,
        Misbehaviour::Reset => stream.reset_on_close(),
        _ => {}
    }
    if !matches!(kind, Misbehaviour::Reset) {
        stream.close();
    }
    Ok(Next::Close)
}

const HTML: &str = "<!DOCTYPE html><html><head><title>Sign in</title></head>\
    <body><h1>Sign in to the hotel network</h1></body></html>";

fn with_allowance(answer: Answer, reset_seconds: u64) -> Answer {
    answer
        .with_header("X-Rate-Limit-Limit", 60)
        .with_header("X-Rate-Limit-Available", 0)
        .with_header("X-Rate-Limit-Reset", reset_seconds)
}

fn with_total(mut answer: Answer, total: Option<u64>) -> Answer {
    answer.headers.retain(|(name, _)| name != "X-Total-Count");
    match total {
        Some(total) => answer.with_header("X-Total-Count", total),
        None => answer,
    }
}

fn with_half_of_gzip(answer: Answer) -> Answer {
    let is_compressed = answer
        .headers
        .iter()
        .any(|(name, _)| name == "Content-Encoding");
    let mut whole = if is_compressed {
        answer
    } else {
        answer.gzipped()
    };
    whole.body.truncate(whole.body.len() / 2);
    whole
}

/// Bounded at 4 GiB for a client that never gives up.
fn send_endless(stream: &mut Stream) -> io::Result<()> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
        Transfer-Encoding: chunked\r\n\r\n";
    stream.send(head.as_bytes())?;
    send_chunk(stream, b"{\"gateways\":[")?;
    let gateways = "{\"ids\":{\"gateway_id\":\"one-of-many\"}},".repeat(1 << 10);
    for _ in 0..(4_usize << 30) / gateways.len() {
        send_chunk(stream, gateways.as_bytes())?;
    }
    Ok(())
}

fn send_chunk(stream: &mut Stream, bytes: &[u8]) -> io::Result<()> {
    let framed = [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
    stream.send(&framed)
}

fn send_spaces(stream: &mut Stream, length: usize) -> io::Result<()> {
    let head = Answer::json(200, "").head() + &format!("Content-Length: {length}\r\n\r\n{{");
    stream.send(head.as_bytes())?;
    let spaces = vec![b' '; 1 << 16];
    let mut left = length - 2;
    while left > 0 {
        let count = left.min(spaces.len());
        stream.send(&spaces[..count])?;
        left -= count;
    }
    stream.send(b"}")
}

/// 1 GiB of zeros as 1,024 members of 1 MiB: prepared in no time, about a megabyte on the wire.
fn send_bomb(stream: &mut Stream) -> io::Result<Next> {
    let member = gzip(&vec![b' '; 1 << 20]);
    for _ in 0..1024 {
        send_chunk(stream, &member)?;
    }
    stream.send(b"0\r\n\r\n")?;
    Ok(Next::Keep)
}
