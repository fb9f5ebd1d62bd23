//! The open connections: how many there may be, and which one is closed to make room.
//!
//! Memory needs no accounting. The metrics are shared by reference, so what slow readers can hold is
//! bounded by the number of different texts: a connection that still takes a text which is
//! [`TEXTS_MAX`] texts old is closed. A page is not shared, and has 100 rows at most.

use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::http::lock;

/// A head that is on its way arrives within this, also on a busy machine. It bounds what a flood
/// can turn over: with a limit of 64, 1,280 connections a second.
const IDLE_TIME_MIN: Duration = Duration::from_millis(50);
/// A slow reader has at least this long, and a scraper may wait at least this long for a
/// collection.
const SERVICE_TIME_MIN: Duration = Duration::from_secs(1);
/// How often a connection beyond the limit looks for a place.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);
/// Different texts of the metrics in memory at once.
const TEXTS_MAX: u64 = 3;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Sending the head of its request, or about to close.
    Idle,
    /// Waiting for the end of a collection.
    Waiting,
    /// The same, and the collection was begun for it.
    Collecting,
    /// Evicted while it waited: its thread answers now with what is known.
    Evicted,
    /// Taking its answer. The number is that of the text it holds; 0 where it holds none.
    Writing(u64),
}

/// One connection that is open.
pub struct Connection {
    pub stream: TcpStream,
    /// Before it waited for its place.
    pub accepted: Instant,
    /// With its start.
    phase: Mutex<(Phase, Instant)>,
}

pub struct Connections {
    open: Mutex<Vec<Arc<Connection>>>,
    limit: usize,
}

impl Connections {
    pub fn new(limit: usize) -> Connections {
        let open = Mutex::default();
        Connections { open, limit }
    }

    /// Takes a connection in, which this thread will serve and close. Where the limit is
    /// reached, evicts and waits.
    pub fn open(&self, stream: TcpStream) -> Arc<Connection> {
        let accepted = Instant::now();
        let mut open = lock(&self.open);
        while open.len() >= self.limit {
            evict_longest_idle(&open);
            drop(open);
            thread::sleep(LOOK_INTERVAL);
            open = lock(&self.open);
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
    }

    pub fn evict_longest_idle(&self) {
        evict_longest_idle(&lock(&self.open));
    }

    /// Closes the connections that still take an old text, before this one is made.
    pub fn make_room_for_text(&self, number: u64) {
        let is_old =
            |phase| matches!(phase, Phase::Writing(old @ 1..) if old + TEXTS_MAX <= number);
        let open = lock(&self.open);
        let old = open
            .iter()
            .filter(|connection| is_old(connection.phase().0));
        old.for_each(|connection| connection.end());
    }

    /// Whether any client has sent a request and does not have the whole answer.
    pub fn is_any_in_service(&self) -> bool {
        let open = lock(&self.open);
        open.iter()
            .any(|connection| connection.phase().0 != Phase::Idle)
    }
}

impl Connection {
    pub fn enter(&self, phase: Phase) {
        *lock(&self.phase) = (phase, Instant::now());
    }

    pub fn phase(&self) -> (Phase, Instant) {
        *lock(&self.phase)
    }

    /// One that waits for a collection is answered first.
    fn evict(&self) {
        // In one step, since its thread may enter the next phase.
        let mut phase = lock(&self.phase);
        match phase.0 {
            Phase::Waiting => phase.0 = Phase::Evicted,
            _ => self.end(),
        }
    }

    /// Its thread notices and closes it. It may have ended by itself.
    fn end(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// None while another one that was evicted is yet to be answered: it makes room.
fn evict_longest_idle(open: &[Arc<Connection>]) {
    let phases = || open.iter().map(|connection| connection.phase());
    if phases().any(|(phase, _)| phase == Phase::Evicted) {
        return;
    }
    let longest = longest_idle(phases(), Instant::now()).map(|index| &open[index]);
    longest.inspect(|connection| connection.evict());
}

/// Which connection to evict: the one that has been in its phase longest. One that waits for a
/// collection is chosen only where there is no other, and still gets an answer.
fn longest_idle(phases: impl Iterator<Item = (Phase, Instant)>, now: Instant) -> Option<usize> {
    let may_go = |phase, since: Instant| {
        let at_least = match phase {
            Phase::Idle => IDLE_TIME_MIN,
            Phase::Writing(_) | Phase::Waiting => SERVICE_TIME_MIN,
            Phase::Collecting | Phase::Evicted => return false,
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
    use super::Phase::{Collecting, Evicted, Idle, Waiting, Writing};
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
        check(&[(Idle, 49), (Idle, 0)], None);
        check(&[(Idle, 56), (Idle, 59), (Idle, 58)], Some(1));
        check(&[(Evicted, 9_000), (Collecting, 9_000)], None);
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
        let mut is_closed = |text| {
            connections.make_room_for_text(text);
            client.set_nonblocking(true).expect("a flag");
            matches!(std::io::Read::read(&mut client, &mut [0]), Ok(0))
        };
        connection.enter(Writing(2));
        assert!(!is_closed(4));
        connection.enter(Writing(0));
        assert!(!is_closed(5));
        connection.enter(Writing(2));
        assert!(is_closed(5));
    }
}
