//! The public listeners and the threads that accept from them.
//!
//! A connection is served by the thread that accepted it: to start a thread, and to unmap its
//! stack from all processors at its end, takes longer than to answer a scraper. A worker that
//! has accepted a connection makes sure that another worker waits for the next one.

use std::io;
use std::net::TcpListener;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::http::connections::Connection;
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
        let acceptor = self.clone();
        let builder = thread::Builder::new().name("worker".to_owned());
        let builder = builder.stack_size(STACK_BYTES);
        builder.spawn(move || acceptor.work()).map(drop)
    }

    /// Serves until enough other workers are idle.
    fn work(self: &Arc<Self>) {
        while self.becomes_idle() {
            let connection = self.accept();
            let was_last = self.idle_workers.fetch_sub(1, SeqCst) == 1;
            match if was_last {
                self.start_worker()
            } else {
                Ok(())
            } {
                // An error means that the client is gone.
                Ok(()) => drop(survive(|| self.service.serve(&connection))),
                Err(error) => self.bear(&error),
            }
            self.service.connections.close(&connection);
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
                Err(error) => self.bear(&error),
            }
        }
    }

    /// No error ends a worker: a lack of descriptors, memory or threads passes, and so does a
    /// client that is gone already.
    fn bear(&self, error: &io::Error) {
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
