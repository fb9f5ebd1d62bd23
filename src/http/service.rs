//! Serves one connection. A request that needs no collection is answered at once. Any other one
//! waits until a collection ends or its answer is due, and is answered with what is known then.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::collect::Scrape;
use crate::http::connections::{Connection, Connections, Phase};
use crate::http::renderer::{Renderer, Response};
use crate::http::request::{self, HEAD_BYTES_MAX, Request, Route, TIMEOUT, is_authorized};
use crate::http::server::Backlog;
use crate::http::survive;
use crate::secret::Secret;

/// Until the end of the head. A scraper needs a round trip, or another
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
        let request = read_head(stream)?;
        let response = or_defect(|| match &request {
            Ok(request) => self.respond(request, connection),
            Err(status) => Ok(Response::text(status, &format!("{status}\n"))),
        })?;
        connection.enter(Phase::Writing(response.text));
        let length = response.shared.len() + response.own.len();
        let head = format!("{}Content-Length: {length}\r\n\r\n", response.head);
        let pieces = [head.as_bytes(), &response.shared, &response.own];
        let mut pieces = pieces.map(IoSlice::new);
        let is_head = request.is_ok_and(|request| request.is_head);
        let count = if is_head { 1 } else { pieces.len() };
        write_all(stream, &mut pieces[..count])?;
        connection.enter(Phase::Idle);
        linger(stream)
    }

    fn respond(&self, request: &Request, connection: &Connection) -> io::Result<Response> {
        let authorization = request.authorization.as_deref();
        Ok(match (request.route(), &self.token) {
            (Some(Route::Health), _) => Response::text("200 OK", "ok\n"),
            (_, Some(token)) if !is_authorized(token, authorization) => Response::unauthorized(),
            (None, _) => Response::text("404 Not Found", "not here: /metrics or /\n"),
            (Some(route), _) => {
                connection.enter(Phase::Waiting);
                let times = request.times(&route, self.budget);
                let [deadline, due] = times.map(|time| connection.accepted + time);
                let mut scrape = Scrape::new(connection.accepted, deadline);
                if !self.renderer.known.serves(&scrape) {
                    scrape = self.backlog.wait(connection, deadline, due)?;
                }
                self.renderer.render(&route, &scrape, request.takes_gzip())
            }
        })
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
fn read_head(stream: &TcpStream) -> io::Result<Result<Request, &'static str>> {
    let deadline = Instant::now() + HEAD_TIME_MAX;
    let mut received = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let room = buffer.len().min(HEAD_BYTES_MAX - received.len());
        match try_by(deadline, stream, |stream| stream.read(&mut buffer[..room])) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => received.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Err(TIMEOUT)),
            Err(error) => return Err(error),
        }
        if let Some(result) = request::parse(&received) {
            return Ok(result);
        }
    }
}

fn write_all(stream: &TcpStream, mut pieces: &mut [IoSlice]) -> io::Result<()> {
    let deadline = Instant::now() + WRITE_TIME_MAX;
    while pieces.iter().any(|piece| !piece.is_empty()) {
        let count = try_by(deadline, stream, |stream| stream.write_vectored(pieces))?;
        IoSlice::advance_slices(&mut pieces, count);
    }
    Ok(())
}

/// Ends the answer, and reads what the client still sends, within bounds: closing a socket with
/// unread input sends a reset, and the client can lose the answer to it.
fn linger(stream: &TcpStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    let deadline = Instant::now() + LINGER_TIME_MAX;
    let mut buffer = [0; 4096];
    for _ in 0..LINGER_READS_MAX {
        if try_by(deadline, stream, |stream| stream.read(&mut buffer))? == 0 {
            break;
        }
    }
    Ok(())
}

/// Reads or writes once. By the deadline, or it fails as one that [`ErrorKind::WouldBlock`].
fn try_by(
    deadline: Instant,
    mut stream: &TcpStream,
    mut attempt: impl FnMut(&mut &TcpStream) -> io::Result<usize>,
) -> io::Result<usize> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::WouldBlock.into());
        }
        stream.set_read_timeout(Some(left))?;
        stream.set_write_timeout(Some(left))?;
        match attempt(&mut stream) {
            // A process that was stopped and goes on gets EINTR from a socket with a time limit
            // (signal(7)), which is no reason to end anything.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_costs_one_answer_and_tells_nothing() {
        let response = or_defect(|| panic!("inner workings")).expect("an answer");
        assert!(response.head.starts_with("HTTP/1.1 500 "));
        assert!(!String::from_utf8_lossy(&response.own).contains("inner"));
        let response = or_defect(|| Ok(Response::text("200 OK", "ok\n"))).expect("an answer");
        assert!(response.head.starts_with("HTTP/1.1 200 "));
    }
}
