//! The public listeners: who lets visitors in, and that somebody always does.
//!
//! A visitor costs a thread with a small stack, as a rule the one that accepted it: to start a
//! thread, and to unmap its stack from all processors at its end, takes longer than to answer
//! a scraper. An attendant that has a visitor sees to it that another one waits for the next.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::http::connection::FrontDoor;

/// Those who stay while nobody comes: one for a scraper, one for the next while the first takes
/// leave, and one that then still waits, so that none has to be hired.
const ATTENDANTS_WAITING: usize = 3;
/// Calls are shallow, and the buffers on it have a few KiB.
const STACK_BYTES: usize = 128 * 1024;
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// A flood fails hundreds of times a second, and a log on an SD card should last for years.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// One public listener and those who attend to it.
pub struct Entrance {
    door: Arc<FrontDoor>,
    listener: TcpListener,
    /// Attendants without a visitor.
    waiting: AtomicUsize,
    /// When it was last said that a connection could not be let in.
    warned: Mutex<Option<Instant>>,
}

impl Entrance {
    /// Lets visitors in from now on, for ever. Fails when there is no thread to be had.
    pub fn open(door: Arc<FrontDoor>, listener: TcpListener) -> io::Result<()> {
        let entrance = Arc::new(Entrance {
            door,
            listener,
            waiting: AtomicUsize::new(0),
            warned: Mutex::default(),
        });
        (0..ATTENDANTS_WAITING).try_for_each(|_| entrance.hire())
    }

    fn hire(self: &Arc<Self>) -> io::Result<()> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let entrance = self.clone();
        let builder = thread::Builder::new().name("attendant".to_owned());
        let hired = builder.stack_size(STACK_BYTES).spawn(move || {
            // The door is never closed: if nobody attends to it, by a panic, the process ends.
            let end = EndOfProcess;
            entrance.attend();
            std::mem::forget(end);
        });
        hired.map(drop).inspect_err(|_| {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
        })
    }

    /// Until enough others wait. No error ends it: out of descriptors, out of memory and a
    /// client that is gone already all pass.
    fn attend(self: &Arc<Self>) {
        loop {
            match self.welcome() {
                Ok(visitor) => {
                    // The hook has logged a panic. An error means that the visitor is gone.
                    let _ = panic::catch_unwind(AssertUnwindSafe(|| visitor.serve()));
                    drop(visitor);
                    if !self.wait_again() {
                        return;
                    }
                }
                Err(error) => {
                    self.warn_rarely(&error);
                    if is_shortage(&error) {
                        self.door.visitors.send_away_longest();
                    }
                    thread::sleep(ACCEPT_PAUSE);
                }
            }
        }
    }

    /// Whether this attendant is one of those who wait, as it is unless there are enough.
    fn wait_again(&self) -> bool {
        // In one step: who joins and leaves again could be taken for one who waits.
        let join = |waiting| (waiting < ATTENDANTS_WAITING).then_some(waiting + 1);
        let joined = self
            .waiting
            .try_update(Ordering::SeqCst, Ordering::SeqCst, join);
        joined.is_ok()
    }

    /// The next visitor, once it has a place and somebody else waits for the one after it.
    fn welcome(self: &Arc<Self>) -> io::Result<Visitor> {
        let (stream, _) = self.listener.accept()?;
        let visitor = Visitor::new(self.door.clone(), stream);
        if self.waiting.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.hire().inspect_err(|_| {
                self.waiting.fetch_add(1, Ordering::SeqCst);
            })?;
        }
        Ok(visitor)
    }

    fn warn_rarely(&self, error: &io::Error) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|at| at.elapsed() >= WARNING_INTERVAL) {
            log::warn!("cannot let a connection in: {error}");
            *warned = Some(Instant::now());
        }
    }
}

struct EndOfProcess;

impl Drop for EndOfProcess {
    fn drop(&mut self) {
        std::process::exit(1);
    }
}

/// A visitor in its place, which it leaves whatever happens.
struct Visitor {
    door: Arc<FrontDoor>,
    id: u64,
    stream: Arc<TcpStream>,
}

impl Visitor {
    /// Waits for a place.
    fn new(door: Arc<FrontDoor>, stream: TcpStream) -> Visitor {
        let stream = Arc::new(stream);
        let id = door.visitors.admit(stream.clone());
        Visitor { door, id, stream }
    }

    fn serve(&self) -> io::Result<()> {
        self.door.serve(self.id, &self.stream)
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        self.door.visitors.leave(self.id);
    }
}

/// Whether one visitor less would help.
fn is_shortage(error: &io::Error) -> bool {
    // EAGAIN: no thread.
    let shortages = [
        libc::EMFILE,
        libc::ENFILE,
        libc::ENOBUFS,
        libc::ENOMEM,
        libc::EAGAIN,
    ];
    error
        .raw_os_error()
        .is_some_and(|code| shortages.contains(&code))
}
