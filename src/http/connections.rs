//! The open connections: how many there may be, and which one is closed to make room.
//!
//! Memory needs no accounting. Answers are shared by reference, so what slow readers can hold is
//! bounded by the number of different texts: whoever still takes a text that is
//! [`TEXTS_MAX`] texts old is closed.

use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// A head that is on its way arrives within this, also on a busy machine. It bounds what a flood
/// can turn over: with a limit of 64, 1,280 connections a second.
const READING_TIME_MIN: Duration = Duration::from_millis(50);
/// A slow reader has at least this long, and a scraper may wait at least this long for the loop.
const WRITING_TIME_MIN: Duration = Duration::from_secs(1);
/// Different texts of the metrics in memory at once.
const TEXTS_MAX: u64 = 3;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Sending the head of its request.
    Reading,
    /// Waiting for the loop, which serves another one.
    Waiting,
    /// Its thread should answer now with what is known, since others need the connection.
    Hurried,
    /// The loop collects for it.
    Asking,
    /// Taking its answer. The number is that of the text it holds; 0 where it holds none.
    Writing(u64),
    /// About to close.
    Closing,
}

struct Entry {
    id: u64,
    phase: Phase,
    /// The start of the phase.
    since: Instant,
    stream: Arc<TcpStream>,
    /// The thread that serves it.
    thread: Thread,
}

#[derive(Default)]
struct Table {
    last_id: u64,
    entries: Vec<Entry>,
}

pub struct Connections {
    table: Mutex<Table>,
    closed: Condvar,
    limit: usize,
}

/// One open connection. It leaves the table when it is dropped.
pub struct Connection {
    connections: Arc<Connections>,
    id: u64,
    pub stream: Arc<TcpStream>,
}

impl Connections {
    pub fn new(limit: usize) -> Connections {
        Connections {
            table: Mutex::default(),
            closed: Condvar::new(),
            limit,
        }
    }

    /// Takes a connection in. Where the limit is reached, evicts and waits.
    pub fn open(self: &Arc<Self>, stream: TcpStream) -> Connection {
        let stream = Arc::new(stream);
        let mut table = self.table();
        while table.entries.len() >= self.limit {
            table.evict_longest_idle(Instant::now());
            let waited = self.closed.wait_timeout(table, Duration::from_millis(1));
            table = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        table.last_id += 1;
        let id = table.last_id;
        table.entries.push(Entry {
            id,
            phase: Phase::Reading,
            since: Instant::now(),
            stream: stream.clone(),
            thread: thread::current(),
        });
        Connection {
            connections: self.clone(),
            id,
            stream,
        }
    }

    pub fn evict_longest_idle(&self) {
        self.table().evict_longest_idle(Instant::now());
    }

    /// Closes the connections that still take an old text, before this one is made.
    pub fn make_room_for_text(&self, number: u64) {
        for entry in &self.table().entries {
            if matches!(entry.phase, Phase::Writing(old @ 1..) if old + TEXTS_MAX <= number) {
                entry.close();
            }
        }
    }

    /// How many have sent a request and do not have the whole answer.
    pub fn in_service(&self) -> usize {
        let is_idle = |entry: &&Entry| matches!(entry.phase, Phase::Reading | Phase::Closing);
        let table = self.table();
        table.entries.len() - table.entries.iter().filter(is_idle).count()
    }

    /// Each change to the table is one step, so it is valid even after a panic.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    pub fn enter(&self, phase: Phase) {
        let mut table = self.connections.table();
        if let Some(entry) = table.entries.iter_mut().find(|entry| entry.id == self.id) {
            entry.phase = phase;
            entry.since = Instant::now();
        }
    }

    pub fn is_hurried(&self) -> bool {
        let table = self.connections.table();
        let mut entries = table.entries.iter();
        entries.any(|entry| entry.id == self.id && entry.phase == Phase::Hurried)
    }

    /// Whether the client has reset the connection: an error that the socket keeps. A client
    /// that only stopped sending still waits for its answer.
    pub fn has_left(&self) -> bool {
        !matches!(self.stream.take_error(), Ok(None))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut table = self.connections.table();
        table.entries.retain(|entry| entry.id != self.id);
        self.connections.closed.notify_one();
    }
}

impl Table {
    fn evict_longest_idle(&mut self, now: Instant) {
        let phases = self.entries.iter().map(|entry| (entry.phase, entry.since));
        let Some(index) = longest_idle(phases, now) else {
            return;
        };
        let entry = &mut self.entries[index];
        if entry.phase == Phase::Waiting {
            entry.phase = Phase::Hurried;
            entry.thread.unpark();
        } else {
            entry.close();
        }
    }
}

impl Entry {
    /// Its thread notices and drops the connection. It may have ended by itself.
    fn close(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// Which connection to close: the one that has been in its phase longest. Those that wait for
/// the loop are taken only where there is no other; they get an answer.
fn longest_idle(phases: impl Iterator<Item = (Phase, Instant)>, now: Instant) -> Option<usize> {
    let may_go = |phase, since: Instant| {
        let at_least = match phase {
            Phase::Reading | Phase::Closing => READING_TIME_MIN,
            Phase::Writing(_) | Phase::Waiting => WRITING_TIME_MIN,
            Phase::Asking | Phase::Hurried => return false,
        };
        now.saturating_duration_since(since) >= at_least
    };
    let candidates = phases
        .enumerate()
        .filter(|(_, (phase, since))| may_go(*phase, *since));
    let longest = candidates.min_by_key(|(_, (phase, since))| (*phase == Phase::Waiting, *since));
    longest.map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::Phase::{Asking, Closing, Hurried, Reading, Waiting, Writing};
    use super::*;

    /// Connections in these phases for so many milliseconds.
    #[track_caller]
    fn check(phases: &[(Phase, u64)], expected: Option<usize>) {
        let now = Instant::now() + Duration::from_secs(3600);
        let since = |milliseconds| now - Duration::from_millis(milliseconds);
        let entries = phases.iter().map(|(phase, ms)| (*phase, since(*ms)));
        assert_eq!(longest_idle(entries, now), expected, "{phases:?}");
    }

    #[test]
    fn the_longest_idle_is_evicted_and_none_for_which_the_loop_collects() {
        check(&[(Reading, 49), (Reading, 0)], None);
        check(&[(Reading, 56), (Reading, 59), (Closing, 58)], Some(1));
        check(&[(Hurried, 9_000), (Asking, 9_000)], None);
        check(&[(Writing(1), 999), (Reading, 3)], None);
        check(&[(Writing(0), 1_000), (Reading, 700)], Some(0));
    }

    #[test]
    fn one_that_waits_is_answered_early_only_where_no_other_can_be_closed() {
        check(&[(Waiting, 9_000), (Asking, 9_000), (Reading, 50)], Some(2));
        check(
            &[(Waiting, 1_000), (Waiting, 9_000), (Reading, 49)],
            Some(1),
        );
        check(&[(Waiting, 999)], None);
    }
}
