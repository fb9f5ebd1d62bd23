//! The connections that wait for a collection, and the private connection over which one of them
//! asks the loop for it.
//!
//! tiny_http 0.12 reads heads and queues without a bound, spawns a thread for each connection,
//! ends its accept thread on the first error, panics on a reset, waits for announced bodies in
//! the caller's thread and for slow readers as long as they like. None of that can be set. So it
//! meets one client that is quick and well-behaved, and one request at a time.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::collect::Scrape;
use crate::http::connections::{Connection, Phase};
use crate::http::lock;
use crate::http::task::Task;

/// How often a waiting thread checks its client.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// A loop that is this late hangs. To read an answer of 10,000 gateways takes a small machine
/// some seconds, which no deadline cuts.
const HANG_TIME: Duration = Duration::from_secs(30);
/// How long the last line of the log may hold up the end.
const LOG_TIME_MAX: Duration = Duration::from_secs(1);
/// Nothing of what clients send reaches tiny_http.
const REQUEST: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: loop\r\n\r\n";
pub const ANSWER: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

pub struct Backlog {
    state: Mutex<State>,
    /// To tiny_http.
    private: UnixStream,
}

#[derive(Default)]
struct State {
    /// What the collection under way is for.
    current: Option<Scrape>,
    /// What the last collection that ended was for.
    last: Option<Scrape>,
    /// How many have ended.
    ended: u64,
    /// The latest deadline of the tasks that came since the last collection began.
    next_deadline: Option<Instant>,
}

impl Backlog {
    pub fn new(private: UnixStream) -> Backlog {
        Backlog {
            state: Mutex::default(),
            private,
        }
    }

    /// Waits for a collection that begins after this moment, and begins it as soon as the loop is
    /// free. Returns what it was for, or None where the answer is due before its end.
    ///
    /// # Errors
    /// If the client is gone.
    pub fn wait(&self, task: &Task, connection: &Connection) -> io::Result<Option<Scrape>> {
        connection.enter(Phase::Waiting);
        let mut state = lock(&self.state);
        state.next_deadline = state.next_deadline.max(Some(task.deadline));
        let number = state.ended + 1 + u64::from(state.current.is_some());
        let mut looked = Instant::now();
        while state.ended < number {
            connection.check_client()?;
            if connection.phase().0 == Phase::Evicted {
                return Ok(None);
            }
            if state.current.is_none() {
                self.begin(&mut state, task);
                connection.enter(Phase::Collecting);
            }
            let is_under_way = state.ended + 1 == number;
            let now = Instant::now();
            // By SIGSTOP or a paused container: then the loop was stopped as well.
            let was_stopped = now.duration_since(looked) > HANG_TIME / 2;
            looked = now;
            let left = task.answer_by(is_under_way).saturating_duration_since(now);
            if left.is_zero() {
                if !was_stopped && !state.is_alive(now) {
                    give_up(&io::ErrorKind::TimedOut.into());
                }
                return Ok(None);
            }
            drop(state);
            thread::park_timeout(left.min(LOOK_INTERVAL));
            state = lock(&self.state);
        }
        Ok(state.last)
    }

    /// Begins a collection for this task and all others that wait.
    fn begin(&self, state: &mut State, task: &Task) {
        let mut scrape = task.scrape();
        scrape.deadline = state.next_deadline.take().unwrap_or(task.deadline);
        state.current = Some(scrape);
        let sent = (&self.private).write_all(REQUEST);
        sent.unwrap_or_else(|error| give_up(&error));
    }

    /// What the loop is to collect for.
    pub fn current(&self) -> Option<Scrape> {
        lock(&self.state).current
    }

    /// Called by the loop when it has collected and answered; it then wakes the waiting threads.
    pub fn end(&self) {
        // Unread answers would fill the private connection.
        let read = (&self.private).read(&mut [0; ANSWER.len()]);
        read.unwrap_or_else(|error| give_up(&error));
        let mut state = lock(&self.state);
        state.last = state.current.take();
        state.ended += 1;
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

/// The loop answers by the end of its collection. If not, it hangs, and only a restart helps.
fn give_up(error: &io::Error) -> ! {
    // Standard error may be what hangs.
    let _ = thread::Builder::new().spawn(|| {
        thread::sleep(LOG_TIME_MAX);
        std::process::exit(1)
    });
    log::error!("the server does not answer ({error}): giving up");
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
