//! Serves one connection. A request that needs no collection is answered at once. Any other one
//! waits until a collection ends or its answer is due, and is answered with what is known then.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::http::backlog::Backlog;
use crate::http::connections::{Connection, Connections, Phase};
use crate::http::renderer::Renderer;
use crate::http::request::{self, HEAD_BYTES_MAX, Request, TIMEOUT, is_authorized};
use crate::http::response::Response;
use crate::http::survive;
use crate::secret::Secret;

/// From the connection to the end of the head. A scraper needs a round trip, or another
/// second where a packet is lost.
const HEAD_TIME_MAX: Duration = Duration::from_secs(2);
/// From the first byte of the answer to the last: megabytes over a slow link. A slow reader is
/// evicted before that where others need the connection.
const WRITE_TIME_MAX: Duration = Duration::from_secs(60);
/// How long the client has to close after the answer.
const LINGER_TIME_MAX: Duration = Duration::from_millis(500);
const LINGER_READS_MAX: usize = 16;

pub struct Service {
    pub connections: Arc<Connections>,
    pub backlog: Backlog,
    pub renderer: Renderer,
    pub token: Option<Secret>,
    /// For a scrape that names no timeout.
    pub budget: Duration,
}

impl Service {
    /// Reads the request of this connection, answers it, and waits for the client to close.
    ///
    /// # Errors
    /// If the client is gone, which needs no answer.
    pub fn serve(&self, connection: &Connection) -> io::Result<()> {
        let stream = &connection.stream;
        let request = read_head(stream, Instant::now() + HEAD_TIME_MAX)?;
        let response = or_defect(|| match &request {
            Ok(request) => self.respond(request, connection),
            Err(status) => Ok(Response::text(status, &format!("{status}\n"))),
        })?;
        connection.enter(Phase::Writing(response.text));
        let pieces = [&response.head, &*response.shared, &response.own];
        let mut pieces = pieces.map(|piece| IoSlice::new(piece));
        let is_head = request.is_ok_and(|request| request.is_head);
        let count = if is_head { 1 } else { pieces.len() };
        write_by(
            stream,
            &mut pieces[..count],
            Instant::now() + WRITE_TIME_MAX,
        )?;
        connection.enter(Phase::Idle);
        linger(stream)
    }

    fn respond(&self, request: &Request, connection: &Connection) -> io::Result<Response> {
        if request.is_for_health() {
            return Ok(Response::text("200 OK", "ok\n"));
        }
        let authorization = request.authorization.as_deref();
        if let Some(token) = &self.token
            && !is_authorized(token, authorization)
        {
            return Ok(Response::unauthorized());
        }
        let Some(route) = request.route() else {
            return Ok(Response::text("404 Not Found", "not here: /metrics or /\n"));
        };
        let (budget, wait) = request.times(&route, self.budget);
        let scrape = self.backlog.wait(connection, budget, wait)?;
        Ok(self.renderer.render(&route, &scrape, request.takes_gzip()))
    }
}

/// A panic costs this answer.
fn or_defect(answer: impl FnOnce() -> io::Result<Response>) -> io::Result<Response> {
    survive(answer).unwrap_or_else(|| {
        let text = "a defect: the log has a line of it\n";
        Ok(Response::text("500 Internal Server Error", text))
    })
}

/// Reads until the head is complete, or until it must be refused: then the inner error is the status.
///
/// # Errors
/// If the client is gone, which needs no answer.
fn read_head(stream: &TcpStream, deadline: Instant) -> io::Result<Result<Request, &'static str>> {
    let mut buffer = [0; HEAD_BYTES_MAX];
    let mut length = 0;
    loop {
        match read_by(stream, &mut buffer[length..], deadline) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => length += count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(Err(TIMEOUT));
            }
            Err(error) => return Err(error),
        }
        if let Some(result) = request::parse(&buffer[..length]) {
            return Ok(result);
        }
    }
}

/// Reads once, and waits for input until the deadline.
fn read_by(mut stream: &TcpStream, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
    try_by(deadline, |left| {
        stream.set_read_timeout(Some(left))?;
        stream.read(buffer)
    })
}

/// Writes all pieces by the deadline.
fn write_by(
    mut stream: &TcpStream,
    mut pieces: &mut [IoSlice<'_>],
    deadline: Instant,
) -> io::Result<()> {
    while pieces.iter().any(|piece| !piece.is_empty()) {
        let count = try_by(deadline, |left| {
            stream.set_write_timeout(Some(left))?;
            stream.write_vectored(pieces)
        })?;
        IoSlice::advance_slices(&mut pieces, count);
    }
    Ok(())
}

/// Gives the attempt the time that is left.
fn try_by(
    deadline: Instant,
    mut attempt: impl FnMut(Duration) -> io::Result<usize>,
) -> io::Result<usize> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        match attempt(left) {
            // A process that was stopped and goes on gets EINTR from a socket with a time limit
            // (signal(7)), which is no reason to end anything.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Ends the answer, and reads what the client still sends, within bounds: closing a socket with
/// unread input sends a reset, and the client can lose the answer to it.
fn linger(stream: &TcpStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    let deadline = Instant::now() + LINGER_TIME_MAX;
    let mut buffer = [0; 4096];
    for _ in 0..LINGER_READS_MAX {
        if read_by(stream, &mut buffer, deadline)? == 0 {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_costs_one_answer_and_tells_nothing() {
        let response = or_defect(|| panic!("inner workings")).expect("an answer");
        assert!(response.head.starts_with(b"HTTP/1.1 500 "));
        assert!(!String::from_utf8_lossy(&response.own).contains("inner"));
        let response = or_defect(|| Ok(Response::text("200 OK", "ok\n"))).expect("an answer");
        assert!(response.head.starts_with(b"HTTP/1.1 200 "));
    }
}
