//! The public side of the HTTP server: it lets in only what tiny_http can digest.
//!
//! tiny_http 0.12 reads heads and queues without a bound, spawns a thread for each connection,
//! ends its accept thread on the first error, panics on a reset, waits for announced bodies in
//! the caller's thread and for slow readers as long as they like. None of that can be set. So
//! the public listener is ours: a visitor's head is read here, within a size and a time; what
//! is a plain GET or HEAD is passed on over one private connection, one at a time, and the
//! answer is taken off it at once. tiny_http meets one client that is quick and well-behaved,
//! and its loop never waits for a stranger. Every answer closes its connection: a kept one
//! would save a scraper a millisecond a minute and cost a place.
//!
//! There are so many places and no more; when all are taken, whoever has dawdled longest has to
//! go. `entrance` has the threads.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::http::body::{Body, Handover};
use crate::http::connections::Visitors;
use crate::http::request_head::{self, HEAD_BYTES_MAX, Head, Refusal};

/// From the connection to the end of the head. A scraper needs a round trip, or another
/// second where a packet is lost.
const HEAD_TIME_MAX: Duration = Duration::from_secs(2);
/// From the first byte of the answer to the last.
const WRITE_TIME_MAX: Duration = Duration::from_secs(10);
/// An answer is written in pieces, so that it is seen whether the reader takes any.
const WRITE_BYTES_MAX: usize = 64 * 1024;
/// For the client to close after the answer, so that no reset overtakes the answer.
const LINGER_TIME_MAX: Duration = Duration::from_millis(500);
const LINGER_BYTES_MAX: usize = 64 * 1024;
/// The server's loop answers within its scrape's budget, which is below this. If not, it
/// hangs, and only a restart helps.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);
/// For those who asked earlier to be answered.
const TURN_TIME_MAX: Duration = Duration::from_secs(60);

pub struct FrontDoor {
    pub visitors: Visitors,
    /// The private connection to tiny_http.
    private: Mutex<UnixStream>,
    /// Where the bodies of its answers are; through it come the heads alone.
    bodies: Handover,
}

impl FrontDoor {
    /// Builds the door and, behind it, the listener for tiny_http.
    ///
    /// That listener is an abstract socket (it needs no file system) that accepts the one
    /// connection that is already queued on it. It is shut microseconds after it was opened:
    /// nobody from outside this machine can reach it, and no local user in practice.
    pub fn new(places: usize, bodies: Handover) -> io::Result<(FrontDoor, UnixListener)> {
        let name = format!(
            "ttn-gateway-exporter-{}-{:?}",
            std::process::id(),
            Instant::now()
        );
        let address = SocketAddr::from_abstract_name(name)?;
        let listener = UnixListener::bind_addr(&address)?;
        let private = UnixStream::connect_addr(&address)?;
        // On Linux a listener that is shut still hands out what is queued and refuses the rest.
        let handle = UnixStream::from(OwnedFd::from(listener.try_clone()?));
        handle.shutdown(Shutdown::Both)?;
        private.set_read_timeout(Some(ANSWER_TIME_MAX))?;
        private.set_write_timeout(Some(ANSWER_TIME_MAX))?;
        let door = FrontDoor {
            visitors: Visitors::new(places),
            private: Mutex::new(private),
            bodies,
        };
        Ok((door, listener))
    }

    /// Reads the request of a visitor who has a place, and answers it.
    ///
    /// # Errors
    /// If the visitor is gone, which needs no answer.
    pub fn serve(&self, id: u64, stream: &TcpStream) -> io::Result<()> {
        let arrived = Instant::now();
        let mut received = Vec::new();
        let head = match read_head(stream, &mut received, arrived + HEAD_TIME_MAX)? {
            Ok(head) => head,
            Err(refusal) => return self.refuse(id, stream, refusal),
        };
        // A reset is an error that the socket keeps. Who only stopped sending has not left.
        let has_left = || !matches!(stream.take_error(), Ok(None));
        if !self.visitors.wait_for_turn(id, TURN_TIME_MAX, has_left) {
            return self.refuse(id, stream, Refusal::Unavailable);
        }
        let (answer, body) = self.ask(&head, arrived);
        self.visitors.start_writing(id, answer.len() + body.len());
        let deadline = Instant::now() + WRITE_TIME_MAX;
        let pieces = [&answer, body.shared.as_slice(), &body.own];
        write_by(stream, pieces, deadline, || self.visitors.progress(id))?;
        drop(body);
        self.visitors.start_closing(id);
        linger(stream)
    }

    fn refuse(&self, id: u64, stream: &TcpStream, refusal: Refusal) -> io::Result<()> {
        self.visitors.start_closing(id);
        let deadline = Instant::now() + HEAD_TIME_MAX;
        write_by(stream, [refusal.answer().as_bytes()], deadline, || {})?;
        linger(stream)
    }

    /// Gets the answer from tiny_http. That connection has no other users, so an error on it
    /// means that the server is broken or hangs: the process ends, for a supervisor to restart.
    fn ask(&self, head: &Head<'_>, arrived: Instant) -> (Vec<u8>, Body) {
        let answer = match self.private.lock() {
            Ok(mut private) => {
                // Measured when it is this request's turn.
                let request = head.to_request(arrived.elapsed());
                let answer = exchange(&mut private, &request);
                answer.map(|answer| (answer, self.bodies.take()))
            }
            Err(_) => Err(io::Error::other(
                "a thread panicked while it used the connection",
            )),
        };
        answer.unwrap_or_else(|error| {
            log::error!("the server does not answer ({error}): giving up");
            std::process::exit(1)
        })
    }
}

fn read_head<'a>(
    stream: &TcpStream,
    received: &'a mut Vec<u8>,
    deadline: Instant,
) -> io::Result<Result<Head<'a>, Refusal>> {
    let mut buffer = [0; 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Err(Refusal::Timeout));
        }
        stream.set_read_timeout(Some(left))?;
        let room = buffer.len().min(HEAD_BYTES_MAX - received.len());
        match read_some(&mut &*stream, &mut buffer[..room]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => received.extend_from_slice(&buffer[..count]),
            Err(error) if is_timeout(&error) => return Ok(Err(Refusal::Timeout)),
            Err(error) => return Err(error),
        }
        // Parsed twice, since the borrow of the answer cannot leave a loop that goes on.
        if request_head::parse(received).is_some() {
            break;
        }
    }
    Ok(request_head::parse(received).unwrap_or(Err(Refusal::BadRequest)))
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// Reads once. A process that was stopped and goes on gets EINTR from a socket with a time
/// limit (signal(7)), which is no reason to end anything.
fn read_some(stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Sends a request to tiny_http and reads the head of its answer, which is all that comes.
fn exchange(private: &mut UnixStream, request: &str) -> io::Result<Vec<u8>> {
    private.write_all(request.as_bytes())?;
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while !head.ends_with(b"\r\n\r\n") {
        match read_some(private, &mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => head.extend_from_slice(&buffer[..count]),
        }
    }
    Ok(head)
}

/// Writes all by the deadline, and calls back after each part that was taken.
fn write_by<const N: usize>(
    stream: &TcpStream,
    mut pieces: [&[u8]; N],
    deadline: Instant,
    progress: impl Fn(),
) -> io::Result<()> {
    while pieces.iter().any(|piece| !piece.is_empty()) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_write_timeout(Some(left))?;
        let mut room = WRITE_BYTES_MAX;
        let portion = pieces.map(|piece| IoSlice::new(take(&mut room, piece)));
        match (&*stream).write_vectored(&portion) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(mut count) => {
                pieces = pieces.map(|piece| &piece[take(&mut count, piece).len()..]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        progress();
    }
    Ok(())
}

/// The beginning of a piece, as far as there is room for it.
fn take<'p>(room: &mut usize, piece: &'p [u8]) -> &'p [u8] {
    let taken = &piece[..piece.len().min(*room)];
    *room -= taken.len();
    taken
}

/// Ends the answer and reads what else was sent, within bounds: closing a socket with unread
/// input sends a reset, which can destroy the answer at the other end.
fn linger(stream: &TcpStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    let deadline = Instant::now() + LINGER_TIME_MAX;
    let mut buffer = [0; 4096];
    let mut count = 0;
    while count < LINGER_BYTES_MAX {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        stream.set_read_timeout(Some(left))?;
        match read_some(&mut &*stream, &mut buffer)? {
            0 => break,
            read => count += read,
        }
    }
    Ok(())
}
