//! The loop on tiny_http: one request at a time, a collection for each, then the answer.
//!
//! Requests come over the private connection alone: they are short, complete and without a
//! body. The loop may take as long as a collection, while others wait in the backlog.

use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::collect::Collector;
use crate::http::backlog::Handover;
use crate::http::renderer::{Renderer, unless_it_panics};
use crate::http::request::WAITED_HEADER;
use crate::http::response::Response;
use crate::http::task::Task;

/// A loop that is so much later than it should be hangs. To read an answer of 10,000 gateways
/// takes a small machine some seconds, which no deadline cuts.
pub const HANG_TIME: Duration = Duration::from_secs(30);

/// How often the loop gives a sign of life while no request comes.
const IDLE_INTERVAL: Duration = Duration::from_secs(60);

/// Until when the loop may be silent. A collection takes up to its deadline, so whoever watches
/// the loop has to know that.
#[derive(Clone)]
pub struct Heartbeat(Arc<Mutex<Instant>>);

impl Heartbeat {
    pub fn new() -> Heartbeat {
        Heartbeat(Arc::new(Mutex::new(Instant::now() + HANG_TIME)))
    }

    /// Whether the loop does what it should.
    pub fn is_alive(&self, now: Instant) -> bool {
        now <= *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The loop is alive, and will be silent until then at the latest.
    fn beat(&self, silent_until: Instant) {
        let mut due = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *due = silent_until.max(Instant::now()) + HANG_TIME;
    }
}

pub struct Server {
    pub http: tiny_http::Server,
    pub collector: Collector,
    pub renderer: Arc<Renderer>,
    pub bodies: Handover,
    pub heartbeat: Heartbeat,
    /// For a scrape that names no timeout.
    pub budget: Duration,
}

impl Server {
    /// Answers requests for ever.
    pub fn run(mut self) -> ! {
        self.ask_about_key();
        loop {
            let wait = IDLE_INTERVAL.min(self.collector.time_to_key_info(Instant::now()));
            self.heartbeat.beat(Instant::now() + wait);
            // The only error is that of the private listener, which is shut on purpose.
            match self.http.recv_timeout(wait) {
                Ok(Some(request)) => {
                    let response = unless_it_panics(|| self.respond(&request));
                    if let Err(error) = self.send(request, response) {
                        log::debug!("cannot hand over an answer: {error}");
                    }
                }
                // Only where no request waits.
                _ => self.ask_about_key(),
            }
        }
    }

    /// A panic costs this question; the hook has logged it.
    fn ask_about_key(&mut self) {
        let ask = || self.collector.ask_about_key(Instant::now());
        let _ = panic::catch_unwind(AssertUnwindSafe(ask));
    }

    fn respond(&mut self, request: &tiny_http::Request) -> Response {
        let header = |name: &'static str| {
            let mut headers = request.headers().iter();
            let found = headers.find(|header| header.field.equiv(name))?;
            Some(found.value.as_str())
        };
        let waited = header(WAITED_HEADER).and_then(|ms| ms.parse().ok());
        let waited = Duration::from_millis(waited.unwrap_or(0));
        let now = Instant::now();
        let arrived = now.checked_sub(waited).unwrap_or(now);
        let Some(task) = Task::new(request.url(), header, arrived, self.budget) else {
            return Response::text("404 Not Found", "not here\n");
        };
        self.heartbeat.beat(task.deadline);
        let scrape = task.scrape();
        self.collector.collect(&scrape);
        self.renderer.render(&task, &scrape)
    }

    /// Hands the body over and sends the head through tiny_http, in one piece.
    /// `Request::respond` would send more than that, under the server library's name.
    fn send(&self, request: tiny_http::Request, response: Response) -> io::Result<()> {
        let mut bodies = self.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        *bodies = Some(response.body);
        drop(bodies);
        let mut writer = request.into_writer();
        writer.write_all(&response.head)?;
        writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loop_may_be_silent_until_the_end_of_its_collection_and_no_longer() {
        let heartbeat = Heartbeat::new();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        heartbeat.beat(after(300));
        assert!(heartbeat.is_alive(after(329)));
        assert!(!heartbeat.is_alive(after(331)));
        heartbeat.beat(start);
        assert!(heartbeat.is_alive(after(29)));
        assert!(!heartbeat.is_alive(after(40)));
    }
}
