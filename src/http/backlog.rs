//! The requests that wait for the loop, and the private connection over which they reach it.
//!
//! tiny_http 0.12 reads heads and queues without a bound, spawns a thread for each connection,
//! ends its accept thread on the first error, panics on a reset, waits for announced bodies in
//! the caller's thread and for slow readers as long as they like. None of that can be set. So it
//! meets one client that is quick and well-behaved: this one.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crate::http::response::{Body, Response};
use crate::http::server::HANG_TIME;
use crate::http::stream::{is_timeout, read_by};

/// How often a thread that waits looks whether its client is still there.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Where the loop leaves the body of an answer before it sends the head. Bodies are passed by
/// reference: the metrics of a large fleet are megabytes, made once for many scrapes.
pub type Handover = Arc<Mutex<Option<Body>>>;

pub struct Backlog {
    /// The threads that want an answer of the loop, in the order of arrival. The first one has
    /// the turn.
    queue: Mutex<VecDeque<Thread>>,
    /// To tiny_http. Only the thread that has the [`Turn`] uses it.
    private: UnixStream,
    bodies: Handover,
}

impl Backlog {
    pub fn new(private: UnixStream) -> Backlog {
        Backlog {
            queue: Mutex::default(),
            private,
            bodies: Handover::default(),
        }
    }

    /// For the loop.
    pub fn bodies(&self) -> Handover {
        self.bodies.clone()
    }

    /// Waits until this thread is the first. None at the deadline, or as soon as it need not
    /// wait any longer.
    pub fn wait(&self, deadline: Instant, may_wait: impl Fn() -> bool) -> Option<Turn<'_>> {
        let own = thread::current().id();
        let mut queue = self.queue();
        queue.push_back(thread::current());
        while queue.front().is_some_and(|first| first.id() != own) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !may_wait() {
                queue.retain(|thread| thread.id() != own);
                return None;
            }
            drop(queue);
            thread::park_timeout(left.min(LOOK_INTERVAL));
            queue = self.queue();
        }
        Some(Turn {
            backlog: self,
            head: Vec::new(),
            hangs_at: None,
        })
    }

    /// Each change to it is one step, so it is valid even after a panic.
    fn queue(&self) -> MutexGuard<'_, VecDeque<Thread>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to use the loop. It ends when it is dropped, after the answer has come, so that the
/// next request does not get the answer to this one.
pub struct Turn<'a> {
    backlog: &'a Backlog,
    /// What has come of the answer's head.
    head: Vec<u8>,
    /// By when the loop has to answer, while it has not; after that it hangs.
    hangs_at: Option<Instant>,
}

impl Turn<'_> {
    /// Passes the request on and gives the answer, if it comes in time. `collection_end` is the
    /// end of the collection that the request asks for, which may be later.
    pub fn ask(
        &mut self,
        request: &str,
        answer_by: Instant,
        collection_end: Instant,
    ) -> Option<Response> {
        self.hangs_at = Some(collection_end.max(Instant::now()) + HANG_TIME);
        let sent = (&self.backlog.private).write_all(request.as_bytes());
        sent.unwrap_or_else(|error| give_up(&error));
        self.read(answer_by)
    }

    /// The answer, unless the time is over first.
    fn read(&mut self, deadline: Instant) -> Option<Response> {
        while !self.head.ends_with(b"\r\n\r\n") {
            let mut buffer = [0; 1024];
            let private = &self.backlog.private;
            let set_timeout = |left| private.set_read_timeout(Some(left));
            match read_by(&mut &*private, set_timeout, &mut buffer, deadline) {
                Ok(0) => give_up(&io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.head.extend_from_slice(&buffer[..count]),
                Err(error) if is_timeout(&error) => return None,
                Err(error) => give_up(&error),
            }
        }
        self.hangs_at = None;
        let bodies = self.backlog.bodies.lock();
        let body = bodies.unwrap_or_else(PoisonError::into_inner).take();
        Some(Response {
            head: std::mem::take(&mut self.head),
            body: body.unwrap_or_default(),
        })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(hangs_at) = self.hangs_at
            && self.read(hangs_at).is_none()
        {
            give_up(&io::ErrorKind::TimedOut.into());
        }
        let mut queue = self.backlog.queue();
        queue.pop_front();
        // Only the next one: to wake all of them for each answer would cost a small machine
        // more than the answers do.
        if let Some(next) = queue.front() {
            next.unpark();
        }
    }
}

/// The loop answers by the end of its collection. If not, it hangs, and only a restart helps.
fn give_up(error: &io::Error) -> ! {
    log::error!("the server does not answer ({error}): giving up");
    std::process::exit(1)
}
