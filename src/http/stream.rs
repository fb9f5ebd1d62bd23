//! Reads and writes with a deadline.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::http::request::{self, HEAD_BYTES_MAX, Request};
use crate::http::response::TIMEOUT;

/// How long the client has to close after the answer.
const LINGER_TIME_MAX: Duration = Duration::from_millis(500);
const LINGER_READS_MAX: usize = 16;

/// Reads until the head is complete, or until it must be refused: then the inner error is the status.
///
/// # Errors
/// If the client is gone, which needs no answer.
pub fn read_head(
    stream: &TcpStream,
    deadline: Instant,
) -> io::Result<Result<Request, &'static str>> {
    let mut received = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let room = buffer.len().min(HEAD_BYTES_MAX - received.len());
        match read_by(stream, &mut buffer[..room], deadline) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => received.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(Err(TIMEOUT));
            }
            Err(error) => return Err(error),
        }
        if let Some(result) = request::parse(&received) {
            return Ok(result);
        }
    }
}

/// Reads once, and waits for input until the deadline.
fn read_by(mut stream: &TcpStream, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
    loop {
        stream.set_read_timeout(Some(time_left(deadline)?))?;
        match stream.read(buffer) {
            // A process that was stopped and goes on gets EINTR from a socket with a time limit
            // (signal(7)), which is no reason to end anything.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn time_left(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}

/// Writes all pieces by the deadline.
pub fn write_by(
    mut stream: &TcpStream,
    mut pieces: &mut [IoSlice<'_>],
    deadline: Instant,
) -> io::Result<()> {
    // Drops the empty pieces at the front.
    IoSlice::advance_slices(&mut pieces, 0);
    while !pieces.is_empty() {
        stream.set_write_timeout(Some(time_left(deadline)?))?;
        match stream.write_vectored(pieces) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => IoSlice::advance_slices(&mut pieces, count),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Ends the answer, and reads what the client still sends, within bounds: closing a socket with
/// unread input sends a reset, and the client can lose the answer to it.
pub fn linger(stream: &TcpStream) -> io::Result<()> {
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
