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
//! A visitor costs a thread with a small stack. There are so many places and no more; when all
//! are taken, whoever has dawdled longest has to go.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::request_head::{self, HEAD_BYTES_MAX, Head, Refusal};

/// From the connection to the end of the head. A scraper needs a round trip.
const HEAD_TIME_MAX: Duration = Duration::from_secs(3);
/// From the first byte of the answer to the last.
const WRITE_TIME_MAX: Duration = Duration::from_secs(10);
/// For the client to close after the answer, so that no reset overtakes the answer.
const LINGER_TIME_MAX: Duration = Duration::from_millis(500);
const LINGER_BYTES_MAX: usize = 64 * 1024;
/// The server's loop answers within its scrape's budget, which is below this. If not, it
/// hangs, and only a restart helps.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);
/// For a place among the answers under way.
const ROOM_TIME_MAX: Duration = Duration::from_secs(30);
/// Nobody has to go sooner than this: a head that is on its way arrives within it.
const READING_TIME_MIN: Duration = Duration::from_millis(5);
const WRITING_TIME_MIN: Duration = Duration::from_secs(1);
/// Answers that wait for their readers may take as much memory together as three of them,
/// or this where it is more.
const UNDELIVERED_BYTES_MIN: usize = 1 << 20;
const UNDELIVERED_ANSWERS_MAX: usize = 3;
/// The head buffer is on the heap; calls are shallow.
const STACK_BYTES: usize = 128 * 1024;
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// What a visitor is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Sending the head.
    Reading,
    /// Waiting for the answer.
    Waiting,
    /// Taking the answer.
    Writing,
    /// About to close.
    Closing,
}

struct Visitor {
    id: u64,
    stream: Arc<TcpStream>,
    phase: Phase,
    /// The start of the phase.
    since: Instant,
    /// Memory that its answer takes, or is about to take.
    undelivered_bytes: usize,
}

pub struct FrontDoor {
    /// How many visitors there have been: the next one's id.
    count: AtomicU64,
    visitors: Mutex<Vec<Visitor>>,
    /// Some visitor left or went on.
    moved: Condvar,
    places: usize,
    /// The private connection to tiny_http.
    private: Mutex<UnixStream>,
    /// The size of the largest answer so far: what the next one may take.
    answer_bytes: AtomicUsize,
}

impl FrontDoor {
    /// Builds the door and, behind it, the listener for tiny_http.
    ///
    /// That listener is an abstract socket (it needs no file system) that accepts the one
    /// connection that is already queued on it. It is shut microseconds after it was opened:
    /// nobody from outside this machine can reach it, and no local user in practice.
    pub fn new(places: usize) -> io::Result<(FrontDoor, UnixListener)> {
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
            count: AtomicU64::new(0),
            visitors: Mutex::new(Vec::with_capacity(places)),
            moved: Condvar::new(),
            places,
            private: Mutex::new(private),
            answer_bytes: AtomicUsize::new(UNDELIVERED_BYTES_MIN / UNDELIVERED_ANSWERS_MAX),
        };
        Ok((door, listener))
    }

    /// Lets visitors in, for ever. No error of `accept` ends it: out of descriptors, out of
    /// memory and a client that is gone already all pass.
    pub fn open(self: &Arc<Self>, listener: &TcpListener) -> ! {
        let mut was_admitted = true;
        loop {
            let accepted = listener.accept();
            let admitted = accepted.and_then(|(stream, _)| self.admit(stream));
            if let Err(error) = &admitted {
                // Once, not for each of the thousands that an attack may bring.
                if was_admitted {
                    log::warn!("cannot let a client in: {error}");
                }
                self.send_away_longest(&mut self.visitors());
                thread::sleep(ACCEPT_PAUSE);
            }
            was_admitted = admitted.is_ok();
        }
    }

    /// How many visitors have asked and are not yet answered.
    pub fn in_service(&self) -> usize {
        let visitors = self.visitors();
        let in_service = |v: &&Visitor| matches!(v.phase, Phase::Waiting | Phase::Writing);
        visitors.iter().filter(in_service).count()
    }

    fn admit(self: &Arc<Self>, stream: TcpStream) -> io::Result<()> {
        let id = self.count.fetch_add(1, Ordering::Relaxed);
        let stream = Arc::new(stream);
        let mut visitors = self.visitors();
        while visitors.len() >= self.places {
            self.send_away_longest(&mut visitors);
            visitors = self.wait(visitors, Duration::from_millis(1));
        }
        visitors.push(Visitor {
            id,
            stream: stream.clone(),
            phase: Phase::Reading,
            since: Instant::now(),
            undelivered_bytes: 0,
        });
        drop(visitors);
        let door = self.clone();
        let visit = move || {
            let _place = Place { door: &door, id };
            // An error means that the visitor is gone, which needs no answer.
            let _ = door.serve(id, &stream);
        };
        let builder = thread::Builder::new().name("visitor".to_owned());
        let started = builder.stack_size(STACK_BYTES).spawn(visit);
        if started.is_err() {
            // Out of threads. The closure did not run, so nobody else frees the place.
            self.leave(id);
        }
        started.map(drop)
    }

    /// Closes the connection of whoever has taken longest over reading or writing. Its thread
    /// notices and leaves. Those who wait for the server are not to blame and stay.
    fn send_away_longest(&self, visitors: &mut MutexGuard<'_, Vec<Visitor>>) {
        let now = Instant::now();
        let may_go = |visitor: &&mut Visitor| {
            let patience = match visitor.phase {
                Phase::Reading | Phase::Closing => READING_TIME_MIN,
                Phase::Writing => WRITING_TIME_MIN,
                Phase::Waiting => return false,
            };
            now.saturating_duration_since(visitor.since) >= patience
        };
        let longest = visitors.iter_mut().filter(may_go).min_by_key(|v| v.since);
        if let Some(visitor) = longest {
            let _ = visitor.stream.shutdown(Shutdown::Both);
        }
    }

    fn serve(&self, id: u64, stream: &TcpStream) -> io::Result<()> {
        let arrived = Instant::now();
        stream.set_nodelay(true)?;
        let mut received = Vec::new();
        let head = match read_head(stream, &mut received, arrived + HEAD_TIME_MAX)? {
            Ok(head) => head,
            Err(refusal) => {
                self.enter(id, Phase::Closing);
                return give(stream, refusal.answer().as_bytes());
            }
        };
        if !self.make_room(id) {
            self.enter(id, Phase::Closing);
            return give(stream, Refusal::Unavailable.answer().as_bytes());
        }
        let answer = self.ask(&head, arrived);
        self.start_writing(id, answer.len());
        write_by(stream, &answer, Instant::now() + WRITE_TIME_MAX)?;
        drop(answer);
        self.enter(id, Phase::Closing);
        linger(stream)
    }

    /// Waits until one more answer may be taken into memory. After a while the slowest reader
    /// has to go for it. Says no when that does not help either.
    fn make_room(&self, id: u64) -> bool {
        let start = Instant::now();
        let mut visitors = self.visitors();
        set_phase(&mut visitors, id, Phase::Waiting);
        loop {
            let answer = self.answer_bytes.load(Ordering::Relaxed);
            let most = (UNDELIVERED_ANSWERS_MAX * answer).max(UNDELIVERED_BYTES_MIN);
            let undelivered: usize = visitors.iter().map(|v| v.undelivered_bytes).sum();
            if undelivered + answer <= most {
                if let Some(visitor) = visitors.iter_mut().find(|v| v.id == id) {
                    visitor.undelivered_bytes = answer;
                }
                return true;
            }
            let waited = start.elapsed();
            if waited > ROOM_TIME_MAX {
                return false;
            }
            if waited > WRITING_TIME_MIN {
                self.send_away_slowest_reader(&visitors);
            }
            visitors = self.wait(visitors, Duration::from_millis(50));
        }
    }

    fn send_away_slowest_reader(&self, visitors: &[Visitor]) {
        let writing = visitors.iter().filter(|v| v.phase == Phase::Writing);
        if let Some(slowest) = writing.min_by_key(|visitor| visitor.since)
            && slowest.since.elapsed() >= WRITING_TIME_MIN
        {
            let _ = slowest.stream.shutdown(Shutdown::Both);
        }
    }

    /// Gets the answer from tiny_http. That connection has no other users, so an error on it
    /// means that the server is broken or hangs: the process ends, for a supervisor to restart.
    fn ask(&self, head: &Head<'_>, arrived: Instant) -> Vec<u8> {
        let answer = match self.private.lock() {
            Ok(mut private) => {
                // Measured when it is this request's turn.
                let request = head.to_request(arrived.elapsed());
                exchange(&mut private, &request, head.is_head)
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

    fn start_writing(&self, id: u64, answer_bytes: usize) {
        self.answer_bytes.fetch_max(answer_bytes, Ordering::Relaxed);
        let mut visitors = self.visitors();
        set_phase(&mut visitors, id, Phase::Writing);
        if let Some(visitor) = visitors.iter_mut().find(|visitor| visitor.id == id) {
            visitor.undelivered_bytes = answer_bytes;
        }
    }

    fn enter(&self, id: u64, phase: Phase) {
        let mut visitors = self.visitors();
        set_phase(&mut visitors, id, phase);
        if let Some(visitor) = visitors.iter_mut().find(|visitor| visitor.id == id) {
            visitor.undelivered_bytes = 0;
        }
        self.moved.notify_all();
    }

    fn leave(&self, id: u64) {
        self.visitors().retain(|visitor| visitor.id != id);
        self.moved.notify_all();
    }

    /// The list stays true even if a thread panicked with it in its hands: each change to it
    /// is one step.
    fn visitors(&self) -> MutexGuard<'_, Vec<Visitor>> {
        self.visitors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(
        &self,
        visitors: MutexGuard<'a, Vec<Visitor>>,
        at_most: Duration,
    ) -> MutexGuard<'a, Vec<Visitor>> {
        let woken = self.moved.wait_timeout(visitors, at_most);
        woken.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// A visitor's place, which it leaves however its thread ends.
struct Place<'a> {
    door: &'a FrontDoor,
    id: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.door.leave(self.id);
    }
}

fn set_phase(visitors: &mut [Visitor], id: u64, phase: Phase) {
    if let Some(visitor) = visitors.iter_mut().find(|visitor| visitor.id == id) {
        visitor.phase = phase;
        visitor.since = Instant::now();
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

/// Sends a request to tiny_http and reads its answer, whose end its `Content-Length` tells.
fn exchange(private: &mut UnixStream, request: &str, is_head: bool) -> io::Result<Vec<u8>> {
    private.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    let end = loop {
        let count = read_some(private, &mut buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&buffer[..count]);
        if let Some(end) = end_of_answer(&answer, is_head) {
            break end;
        }
    };
    let read = answer.len();
    answer.resize(end.max(read), 0);
    private.read_exact(&mut answer[read..])?;
    Ok(answer)
}

/// Where an answer ends, once its head is there.
fn end_of_answer(answer: &[u8], is_head: bool) -> Option<usize> {
    let head_end = answer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = str::from_utf8(&answer[..head_end]).ok()?;
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))
        .and_then(|length| length.parse::<usize>().ok());
    Some(match is_head {
        true => head_end,
        false => head_end + length.unwrap_or(0),
    })
}

fn write_by(stream: &TcpStream, bytes: &[u8], deadline: Instant) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_write_timeout(Some(left))?;
        match (&*stream).write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => rest = &rest[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn give(stream: &TcpStream, answer: &[u8]) -> io::Result<()> {
    write_by(stream, answer, Instant::now() + HEAD_TIME_MAX)?;
    linger(stream)
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
