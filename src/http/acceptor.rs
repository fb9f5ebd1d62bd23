//! The public listeners and the threads that accept from them.
//!
//! A connection is served by the thread that accepted it: to start a thread, and to unmap its
//! stack from all processors at its end, takes longer than to answer a scraper. A worker that
//! has accepted a connection makes sure that another worker waits for the next one.

use std::io;
use std::net::TcpListener;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::http::connections::Connection;
use crate::http::lock;
use crate::http::service::Service;

/// Workers that stay while no connection comes: one for a scraper, one for the next while the
/// first one closes, and one more, so that none has to be started.
const IDLE_WORKERS: usize = 3;
/// Calls are shallow, but miniz_oxide moves its tables over the stack when it makes them.
const STACK_BYTES: usize = 512 * 1024;
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// A flood fails hundreds of times a second, and a log on an SD card should last for years.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

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
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(service: Arc<Service>, listener: TcpListener) -> io::Result<()> {
        let acceptor = Arc::new(Acceptor {
            service,
            listener,
            idle_workers: AtomicUsize::new(0),
            warned: Mutex::default(),
        });
        (0..IDLE_WORKERS).try_for_each(|_| acceptor.start_worker())
    }

    fn start_worker(self: &Arc<Self>) -> io::Result<()> {
        self.idle_workers.fetch_add(1, Ordering::SeqCst);
        let acceptor = self.clone();
        let builder = thread::Builder::new().name("worker".to_owned());
        let builder = builder.stack_size(STACK_BYTES);
        let started = builder.spawn(move || acceptor.work());
        started.map(drop).inspect_err(|_| {
            self.idle_workers.fetch_sub(1, Ordering::SeqCst);
        })
    }

    /// Serves until enough other workers are idle. No error ends it: a lack of descriptors or
    /// memory passes, and so does a client that is gone already.
    fn work(self: &Arc<Self>) {
        loop {
            match self.accept() {
                Ok(connection) => {
                    // The hook has logged a panic. An error means that the client is gone.
                    let serve = AssertUnwindSafe(|| self.service.serve(&connection));
                    let _ = panic::catch_unwind(serve);
                    self.service.connections.close(connection);
                    if !self.becomes_idle() {
                        return;
                    }
                }
                Err(error) => {
                    self.warn_rarely(&error);
                    // It may be for want of descriptors, memory or threads.
                    self.service.connections.evict_longest_idle();
                    thread::sleep(ACCEPT_PAUSE);
                }
            }
        }
    }

    /// Counts this worker as idle, unless there are enough idle ones: then false.
    fn becomes_idle(&self) -> bool {
        // In one step, so that no worker counts that is about to end.
        let join = |idle| (idle < IDLE_WORKERS).then_some(idle + 1);
        let joined = self
            .idle_workers
            .try_update(Ordering::SeqCst, Ordering::SeqCst, join);
        joined.is_ok()
    }

    /// The next connection, once it is within the limit and another worker waits for the one
    /// after it.
    fn accept(self: &Arc<Self>) -> io::Result<Arc<Connection>> {
        let (stream, _) = self.listener.accept()?;
        let connection = self.service.connections.open(stream);
        if self.idle_workers.fetch_sub(1, Ordering::SeqCst) == 1
            && let Err(error) = self.start_worker()
        {
            self.idle_workers.fetch_add(1, Ordering::SeqCst);
            self.service.connections.close(connection);
            return Err(error);
        }
        Ok(connection)
    }

    fn warn_rarely(&self, error: &io::Error) {
        let mut warned = lock(&self.warned);
        if warned.is_none_or(|at| at.elapsed() >= WARNING_INTERVAL) {
            log::warn!("cannot accept a connection: {error}");
            *warned = Some(Instant::now());
        }
    }
}
