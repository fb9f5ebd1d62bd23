//! Connections: who is let in, how many there may be, and which one is closed to make room.
//!
//! A connection is served by the thread that accepted it: to start a thread, and to unmap its
//! stack from all processors at its end, takes longer than to answer a scraper. A worker that
//! has accepted a connection makes sure that another worker waits for the next one.
//!
//! Memory needs no accounting. The metrics are shared by reference, so what slow readers can hold is
//! bounded by the number of different texts: a connection that still takes a text which is
//! [`TEXTS_MAX`] texts old is closed, or any older one if it is long. A page is not shared, and has
//! 100 rows at most.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::http::service::Service;
use crate::http::{lock, survive};

/// Workers that stay while no connection comes: one for a scraper, one for the next while the
/// first one closes, and one more, so that none has to be started.
const IDLE_WORKERS: usize = 3;
/// Calls are shallow, but miniz_oxide moves its tables over the stack when it makes them.
const STACK_BYTES: usize = 512 * 1024;
const SHORTAGE_PAUSE: Duration = Duration::from_millis(20);
/// A flood fails hundreds of times a second, and a log on an SD card should last for years.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);
/// A head that is on its way arrives within this, also on a busy machine. It bounds what a flood
/// can turn over: with a limit of 64, 1,280 connections a second.
const IDLE_TIME_MIN: Duration = Duration::from_millis(50);
/// A slow reader has at least this long, and a scraper may wait at least this long for a
/// collection.
const SERVICE_TIME_MIN: Duration = Duration::from_secs(1);
/// How often a connection beyond the limit looks for a place.
const PLACE_INTERVAL: Duration = Duration::from_millis(1);
/// Different texts of the metrics in memory at once; of long ones the newest alone.
const TEXTS_MAX: u64 = 3;
const LONG_TEXT_BYTES: usize = 8 << 20;

/// One public listener and its workers.
pub struct Acceptor {
    service: Arc<Service>,
    listener: TcpListener,
    idle_workers: AtomicUsize,
    /// When the last failure was logged.
    warned: Mutex<Option<Instant>>,
}

impl Acceptor {
    /// Accepts connections from now on, for ever.
    pub fn start(service: Arc<Service>, listener: TcpListener) -> io::Result<()> {
        let acceptor = Arc::new(Acceptor {
            service,
            listener,
            idle_workers: AtomicUsize::new(0),
            warned: Mutex::default(),
        });
        (0..IDLE_WORKERS).try_for_each(|_| acceptor.start_worker())
    }

    /// It counts as idle at once, or else a flood would start more of them than are needed.
    fn start_worker(self: &Arc<Self>) -> io::Result<()> {
        let acceptor = self.clone();
        let builder = thread::Builder::new().name("worker".to_owned());
        let builder = builder.stack_size(STACK_BYTES);
        self.idle_workers.fetch_add(1, SeqCst);
        let started = builder.spawn(move || acceptor.work()).map(drop);
        started.inspect_err(|_| {
            self.idle_workers.fetch_sub(1, SeqCst);
        })
    }

    /// Serves until enough other workers are idle.
    fn work(self: &Arc<Self>) {
        loop {
            let connection = self.accept();
            let was_last = self.idle_workers.fetch_sub(1, SeqCst) == 1;
            if was_last && let Err(error) = self.start_worker() {
                self.pause_after(&error);
            } else {
                // An error means that the client is gone.
                let _ = survive(|| self.service.serve(&connection));
            }
            self.service.connections.close(&connection);
            if !self.becomes_idle() {
                return;
            }
        }
    }

    /// Counts this worker as idle, unless there are enough idle ones: then false.
    fn becomes_idle(&self) -> bool {
        // In one step, so that no worker counts that is about to end.
        let join = |idle| (idle < IDLE_WORKERS).then_some(idle + 1);
        self.idle_workers.try_update(SeqCst, SeqCst, join).is_ok()
    }

    /// The next connection, once it is within the limit.
    fn accept(&self) -> Arc<Connection> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => return self.service.connections.open(stream),
                Err(error) => self.pause_after(&error),
            }
        }
    }

    /// No error ends a worker: a lack of descriptors, memory or threads passes, and so does a
    /// client that is gone already.
    fn pause_after(&self, error: &io::Error) {
        let mut warned = lock(&self.warned);
        if warned.is_none_or(|at| at.elapsed() >= WARNING_INTERVAL) {
            log::warn!("cannot accept a connection: {error}");
            *warned = Some(Instant::now());
        }
        drop(warned);
        self.service.connections.evict_longest_idle();
        thread::sleep(SHORTAGE_PAUSE);
    }
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Sending the head of its request, or about to close.
    Idle,
    /// Waiting for its answer, most often for the end of a collection.
    Waiting,
    /// The same, and the collection was begun for it.
    Collecting,
    /// Evicted while it waited: its thread answers now with what is known.
    Evicted,
    /// Taking its answer. The number is that of the text it holds; 0 where it holds none.
    Writing(u64),
}

impl Phase {
    /// Whether a connection may be evicted that has been in it for this time.
    fn may_go(self, time: Duration) -> bool {
        match self {
            Phase::Idle => time >= IDLE_TIME_MIN,
            Phase::Writing(_) | Phase::Waiting => time >= SERVICE_TIME_MIN,
            Phase::Collecting | Phase::Evicted => false,
        }
    }
}

/// One connection that is open.
pub struct Connection {
    pub stream: TcpStream,
    /// When it was accepted, before it waited for its place.
    pub accepted: Instant,
    /// And when it began.
    phase: Mutex<(Phase, Instant)>,
}

pub struct Connections {
    open: Mutex<Vec<Arc<Connection>>>,
    closed: Condvar,
    limit: usize,
}

impl Connections {
    pub fn new(limit: usize) -> Connections {
        Connections {
            open: Mutex::default(),
            closed: Condvar::new(),
            limit,
        }
    }

    /// Takes a connection in, which this thread will serve and close. Where the limit is
    /// reached, evicts and waits.
    pub fn open(&self, stream: TcpStream) -> Arc<Connection> {
        let accepted = Instant::now();
        let mut open = lock(&self.open);
        while open.len() >= self.limit {
            evict_longest_idle(&open);
            let waited = self.closed.wait_timeout(open, PLACE_INTERVAL);
            open = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let connection = Arc::new(Connection {
            stream,
            accepted,
            phase: Mutex::new((Phase::Idle, Instant::now())),
        });
        open.push(connection.clone());
        connection
    }

    pub fn close(&self, connection: &Arc<Connection>) {
        lock(&self.open).retain(|other| !Arc::ptr_eq(other, connection));
        self.closed.notify_one();
    }

    pub fn evict_longest_idle(&self) {
        evict_longest_idle(&lock(&self.open));
    }

    /// Closes the connections that still take an old text, before this one is made. The last one had
    /// so many bytes.
    pub fn make_room_for_text(&self, number: u64, bytes: usize) {
        let most = if bytes < LONG_TEXT_BYTES {
            TEXTS_MAX
        } else {
            1
        };
        let is_old = |phase| matches!(phase, Phase::Writing(n @ 1..) if n + most <= number);
        let open = lock(&self.open);
        let old = open.iter().filter(|other| is_old(other.phase().0));
        old.for_each(|connection| connection.end());
    }

    /// Whether any client has sent a request and does not have the whole answer.
    pub fn is_any_in_service(&self) -> bool {
        let is_in_service = |connection: &Arc<Connection>| connection.phase().0 != Phase::Idle;
        lock(&self.open).iter().any(is_in_service)
    }
}

impl Connection {
    pub fn enter(&self, phase: Phase) {
        *lock(&self.phase) = (phase, Instant::now());
    }

    /// What it is doing, and for how long.
    pub fn phase(&self) -> (Phase, Duration) {
        let (phase, since) = *lock(&self.phase);
        (phase, since.elapsed())
    }

    /// Its thread notices and closes it. It may have ended by itself.
    fn end(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// Closes the connection that has been idle longest, if there is one. One that waits for a
/// collection is answered before.
fn evict_longest_idle(open: &[Arc<Connection>]) {
    let phases: Vec<_> = open.iter().map(|connection| connection.phase()).collect();
    let Some(index) = longest_idle(&phases) else {
        return;
    };
    // In one step, since its thread may enter the next phase.
    let mut phase = lock(&open[index].phase);
    match phase.0 {
        Phase::Waiting => phase.0 = Phase::Evicted,
        Phase::Idle | Phase::Writing(_) => open[index].end(),
        Phase::Collecting | Phase::Evicted => {}
    }
}

/// Which connection to evict: the one that has been in its phase longest. One that waits for a
/// collection is chosen only where there is no other, and not while another one that was evicted is
/// yet to be answered, since that makes room.
fn longest_idle(phases: &[(Phase, Duration)]) -> Option<usize> {
    let is_any_evicted = phases.iter().any(|(phase, _)| *phase == Phase::Evicted);
    let entries = phases.iter().enumerate();
    let candidates = entries.filter(|(_, (phase, time))| {
        let is_held_back = is_any_evicted && *phase == Phase::Waiting;
        phase.may_go(*time) && !is_held_back
    });
    let longest = candidates.max_by_key(|(_, (phase, time))| (*phase != Phase::Waiting, *time));
    longest.map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::Phase::{Collecting, Evicted, Idle, Waiting, Writing};
    use super::*;

    /// Connections in these phases for so many milliseconds.
    #[track_caller]
    fn check(phases: &[(Phase, u64)], expected: Option<usize>) {
        let entries = phases.iter();
        let entries = entries.map(|(phase, ms)| (*phase, Duration::from_millis(*ms)));
        let entries: Vec<_> = entries.collect();
        assert_eq!(longest_idle(&entries), expected, "{phases:?}");
    }

    #[test]
    fn the_longest_idle_is_evicted_and_none_for_which_the_loop_collects() {
        check(&[(Idle, 49), (Idle, 0)], None);
        check(&[(Idle, 56), (Idle, 59), (Idle, 58)], Some(1));
        check(&[(Evicted, 9_000), (Collecting, 9_000)], None);
        check(&[(Evicted, 9_000), (Waiting, 9_000), (Idle, 50)], Some(2));
        check(&[(Evicted, 9_000), (Waiting, 9_000), (Idle, 49)], None);
        check(&[(Writing(1), 999), (Idle, 3)], None);
        check(&[(Writing(0), 1_000), (Idle, 700)], Some(0));
    }

    #[test]
    fn one_that_waits_is_answered_early_only_where_no_other_can_be_closed() {
        check(
            &[(Waiting, 9_000), (Collecting, 9_000), (Idle, 50)],
            Some(2),
        );
        check(&[(Waiting, 1_000), (Waiting, 9_000), (Idle, 49)], Some(1));
        check(&[(Waiting, 999)], None);
    }

    #[test]
    fn a_reader_may_hold_a_text_until_three_newer_ones_are_made() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut client = TcpStream::connect(address).expect("a connection");
        let connections = Connections::new(1);
        let connection = connections.open(listener.accept().expect("a connection").0);
        let mut is_closed = |text, bytes| {
            connections.make_room_for_text(text, bytes);
            client.set_nonblocking(true).expect("a flag");
            matches!(std::io::Read::read(&mut client, &mut [0]), Ok(0))
        };
        connection.enter(Writing(2));
        assert!(!is_closed(4, 1));
        connection.enter(Writing(0));
        assert!(!is_closed(5, LONG_TEXT_BYTES));
        connection.enter(Writing(4));
        assert!(!is_closed(5, LONG_TEXT_BYTES - 1));
        assert!(is_closed(5, LONG_TEXT_BYTES));
    }
}
