//! The connections that wait for a collection, and the private connection over which one of them
//! asks the loop for it.
//!
//! tiny_http 0.12 reads heads and queues without a bound, spawns a thread for each connection,
//! ends its accept thread on the first error, panics on a reset, waits for announced bodies in
//! the caller's thread and for slow readers as long as they like. None of that can be set. So it
//! meets one client that is quick and well-behaved, and one request at a time.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::collect::Scrape;
use crate::http::connections::{Connection, Phase};
use crate::http::{lock, survive};

/// How often a waiting thread checks its client, and whether it is evicted.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// A loop that is this late hangs. To read an answer of 10,000 gateways takes a small machine
/// some seconds, which no deadline cuts.
const HANG_TIME: Duration = Duration::from_secs(30);
/// How long the last line of the log has.
const LOG_TIME: Duration = Duration::from_secs(1);
/// Nothing of what clients send reaches tiny_http.
const REQUEST: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: loop\r\n\r\n";

pub struct Backlog {
    state: Mutex<State>,
    /// A collection has ended.
    ended: Condvar,
    /// To tiny_http.
    private: UnixStream,
}

#[derive(Default)]
struct State {
    /// What the collection under way is for.
    current: Option<Scrape>,
    /// What the last collection that ended was for.
    last: Option<Scrape>,
    /// The latest deadline of those that came since the last collection began.
    next_deadline: Option<Instant>,
}

impl Backlog {
    pub fn new(private: UnixStream) -> Backlog {
        Backlog {
            state: Mutex::default(),
            ended: Condvar::new(),
            private,
        }
    }

    /// Waits for a collection that begins after this moment, and begins it as soon as the loop is
    /// free. Returns what it was for, or this moment's scrape where the answer is due before.
    ///
    /// `budget` is how long a collection for this connection may take, and `wait` how long its
    /// client waits.
    ///
    /// # Errors
    /// If the client is gone.
    pub fn wait(
        &self,
        connection: &Connection,
        budget: Duration,
        wait: Duration,
    ) -> io::Result<Scrape> {
        connection.enter(Phase::Waiting);
        let deadline = connection.accepted + budget;
        let due = connection.accepted + wait;
        let mut state = lock(&self.state);
        state.next_deadline = state.next_deadline.max(Some(deadline));
        let start = Instant::now();
        loop {
            if let Some(scrape) = state.last.filter(|last| last.now >= start) {
                return Ok(scrape);
            }
            // Once, if the client has reset the connection. One that only stopped sending still
            // waits for its answer.
            connection.stream.take_error()?.map_or(Ok(()), Err)?;
            if state.current.is_none() {
                self.begin(&mut state, connection);
            }
            let now = Instant::now();
            if now >= due || connection.phase().0 == Phase::Evicted {
                // By SIGSTOP or a paused container: then the loop was stopped as well.
                let was_stopped = now > due + HANG_TIME / 2;
                if !was_stopped && !state.is_alive(now) {
                    give_up(io::ErrorKind::TimedOut.into());
                }
                return Ok(scrape_of(connection, deadline));
            }
            let waited = self.ended.wait_timeout(state, LOOK_INTERVAL.min(due - now));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Begins a collection for this connection and all others that wait.
    fn begin(&self, state: &mut State, connection: &Connection) {
        connection.enter(Phase::Collecting);
        let deadline = state.next_deadline.take().unwrap_or(connection.accepted);
        state.current = Some(scrape_of(connection, deadline));
        let sent = (&self.private).write_all(REQUEST);
        sent.unwrap_or_else(|error| give_up(error));
    }

    /// What the loop does for each request over the private connection. Wakes those that wait.
    pub fn serve(&self, collect: impl FnOnce(&Scrape)) {
        let current = lock(&self.state).current;
        current.map(|scrape| survive(|| collect(&scrape)));
        let mut state = lock(&self.state);
        state.last = state.current.take();
        self.ended.notify_all();
    }

    /// Whether the loop does what it should: a collection takes up to its deadline.
    pub fn is_alive(&self) -> bool {
        lock(&self.state).is_alive(Instant::now())
    }
}

impl State {
    fn is_alive(&self, now: Instant) -> bool {
        let is_in_time = |scrape: Scrape| now <= scrape.deadline.max(scrape.now) + HANG_TIME;
        self.current.is_none_or(is_in_time)
    }
}

/// The question to the collector at this moment.
fn scrape_of(connection: &Connection, deadline: Instant) -> Scrape {
    Scrape {
        arrived: connection.accepted,
        deadline,
        now: Instant::now(),
        at: SystemTime::now(),
    }
}

/// The loop ends its collection in time. If not, it hangs, and only a restart helps.
fn give_up(error: io::Error) -> ! {
    // Standard error may be what hangs.
    let log = move || log::error!("the server does not answer ({error}): giving up");
    let _ = thread::Builder::new().spawn(log);
    thread::sleep(LOG_TIME);
    std::process::exit(1)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn the_loop_may_be_silent_until_the_end_of_its_collection_and_no_longer() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let backlog = Backlog::new(UnixStream::pair().expect("two sockets").0);
        assert!(lock(&backlog.state).is_alive(after(9_000)));
        let scrape = |deadline| Scrape {
            arrived: start,
            deadline,
            now: start,
            at: SystemTime::UNIX_EPOCH,
        };
        lock(&backlog.state).current = Some(scrape(after(300)));
        assert!(lock(&backlog.state).is_alive(after(329)));
        assert!(!lock(&backlog.state).is_alive(after(331)));
        lock(&backlog.state).current = Some(scrape(start));
        assert!(lock(&backlog.state).is_alive(after(29)));
    }
}
