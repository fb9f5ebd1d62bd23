//! The server as a whole: its parts, the loop on tiny_http, which makes one collection for each
//! request, and how connections wait for a collection.
//!
//! tiny_http 0.12 reads heads and queues without a bound, spawns a thread for each connection,
//! ends its accept thread on the first error, panics on a reset, waits for announced bodies in
//! the caller's thread and for slow readers as long as they like. None of that can be set. So its
//! one client is quick and well-behaved: over a private connection, a thread that waits asks for the
//! next collection when the last one has ended. Each waits until the end of a collection, and for no
//! longer than its client does.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::collect::{Collector, Scrape};
use crate::http::connections::{Acceptor, Connection, Connections, Phase};
use crate::http::renderer::Renderer;
use crate::http::service::Service;
use crate::http::{lock, survive};
use crate::secret::Secret;
use crate::things_stack::KnownHosts;

/// How often a waiting thread checks its client, and whether it is evicted. That is one thread at a
/// time, so this bounds how quickly they make room.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// A thread that looks this late was stopped, by SIGSTOP or a paused container, and so was the loop.
const STOP_TIME_MIN: Duration = Duration::from_secs(1);
/// A loop that is this late hangs. To read an answer of 10,000 gateways takes a small machine
/// some seconds, which no deadline cuts.
const HANG_TIME: Duration = Duration::from_secs(30);
/// How long the last line of the log may hold up the end.
const LOG_TIME_MAX: Duration = Duration::from_secs(1);
/// Nothing of what clients send reaches tiny_http.
const REQUEST: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: loop\r\n\r\n";

pub struct Server {
    http: tiny_http::Server,
    collector: Collector,
    service: Arc<Service>,
}

impl Server {
    /// With a token, clients have to send it. `budget` is the time of a scrape that names no
    /// timeout.
    ///
    /// # Errors
    /// If a socket or a thread cannot be had.
    pub fn new(
        collector: Collector,
        hosts: KnownHosts,
        connections: Arc<Connections>,
        token: Option<Secret>,
        budget: Duration,
    ) -> io::Result<Server> {
        let (listener, private) = connect()?;
        let http = tiny_http::Server::from_listener(listener, None).map_err(io::Error::other)?;
        let service = Arc::new(Service {
            backlog: Backlog::new(private),
            renderer: Renderer::new(collector.known(), hosts, connections.clone()),
            connections,
            token,
            budget,
        });
        Ok(Server {
            http,
            collector,
            service,
        })
    }

    /// Accepts connections from this listener from now on.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn listen(&self, listener: TcpListener) -> io::Result<()> {
        Acceptor::start(self.service.clone(), listener)
    }

    /// A function that tells whether the loop works, for systemd's watchdog.
    pub fn watch(&self) -> impl Fn() -> bool + use<> {
        let service = self.service.clone();
        move || !lock(&service.backlog.state).hangs(Instant::now())
    }

    /// Makes collections for ever, and asks for the key's own state when no request waits.
    pub fn run(mut self) -> ! {
        loop {
            let wait = self.collector.time_to_key_info(Instant::now());
            // The only error is that of the private listener, which is shut on purpose.
            if let Ok(Some(request)) = self.http.recv_timeout(wait) {
                // A writer that is dropped sends nothing: nobody would read the answer.
                drop(request.into_writer());
                let backlog = &self.service.backlog;
                backlog.serve(|scrape| self.collector.collect(scrape));
            } else {
                survive(|| self.collector.ask_about_key(Instant::now()));
            }
        }
    }
}

/// The connections that wait for a collection.
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
    /// From when on the loop hangs, if it is not done with its collection.
    hang_at: Option<Instant>,
    /// The latest deadline of those that came since the last collection began.
    next_deadline: Option<Instant>,
}

impl Backlog {
    fn new(private: UnixStream) -> Backlog {
        Backlog {
            state: Mutex::default(),
            ended: Condvar::new(),
            private,
        }
    }

    /// Waits for a collection that begins after this moment, and begins it as soon as the loop is
    /// free. Returns what it was for, or this moment's scrape where the answer is due before.
    /// `deadline` is that of the collection.
    ///
    /// # Errors
    /// If the client is gone.
    pub fn wait(
        &self,
        connection: &Connection,
        deadline: Instant,
        due: Instant,
    ) -> io::Result<Scrape> {
        let mut state = lock(&self.state);
        state.next_deadline = state.next_deadline.max(Some(deadline));
        let start = Instant::now();
        let mut looked = start;
        loop {
            if let Some(scrape) = state.last.filter(|last| last.now >= start) {
                return Ok(scrape);
            }
            // Once, if the client has reset the connection. One that only stopped sending still
            // waits for its answer.
            connection.stream.take_error()?.map_or(Ok(()), Err)?;
            let now = Instant::now();
            if now - looked > STOP_TIME_MIN {
                state.hang_at = state.hang_at.max(Some(now + HANG_TIME));
            }
            looked = now;
            if now >= due || connection.phase().0 == Phase::Evicted {
                if state.hangs(now) {
                    give_up(&io::ErrorKind::TimedOut.into());
                }
                return Ok(Scrape::new(connection.accepted, deadline));
            }
            if state.current.is_none() {
                self.begin(&mut state, connection);
            }
            let waited = self.ended.wait_timeout(state, LOOK_INTERVAL.min(due - now));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Begins a collection for this connection and all others that wait.
    fn begin(&self, state: &mut State, connection: &Connection) {
        connection.enter(Phase::Collecting);
        let deadline = state.next_deadline.take().unwrap_or(connection.accepted);
        state.start(Scrape::new(connection.accepted, deadline));
        let sent = (&self.private).write_all(REQUEST);
        sent.unwrap_or_else(|error| give_up(&error));
    }

    /// What the loop does for each request over the private connection. Wakes those that wait.
    fn serve(&self, collect: impl FnOnce(&Scrape)) {
        let current = lock(&self.state).current;
        current.map(|scrape| survive(|| collect(&scrape)));
        let mut state = lock(&self.state);
        state.last = state.current.take();
        self.ended.notify_all();
    }
}

impl State {
    fn start(&mut self, scrape: Scrape) {
        self.current = Some(scrape);
        self.hang_at = Some(scrape.deadline.max(scrape.now) + HANG_TIME);
    }

    /// Whether the loop is later with its collection than it can be.
    fn hangs(&self, now: Instant) -> bool {
        self.current.is_some() && self.hang_at.is_some_and(|at| now > at)
    }
}

/// The loop ends its collection in time. If not, it hangs, and only a restart helps.
fn give_up(error: &io::Error) -> ! {
    // Standard error may be what hangs.
    let _ = thread::Builder::new().spawn(|| {
        thread::sleep(LOG_TIME_MAX);
        std::process::exit(1)
    });
    log::error!("the server does not answer ({error}): giving up");
    std::process::exit(1)
}

/// A listener for tiny_http, which takes nothing else, and the one connection that is queued on it.
///
/// The listener is an abstract socket, which needs no file system. It is shut microseconds after
/// it was opened: nobody from outside this machine can reach it, and no local user in practice.
#[cfg(target_os = "linux")]
fn connect() -> io::Result<(UnixListener, UnixStream)> {
    use std::net::Shutdown;
    use std::os::fd::OwnedFd;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;

    let address = SocketAddr::from_abstract_name(unique_name())?;
    let listener = UnixListener::bind_addr(&address)?;
    let private = UnixStream::connect_addr(&address)?;
    // On Linux a listener that is shut still hands out what is queued and refuses the rest.
    let handle = UnixStream::from(OwnedFd::from(listener.try_clone()?));
    handle.shutdown(Shutdown::Both)?;
    Ok((listener, private))
}

/// The same on systems without abstract sockets: a socket that is a file until it is connected,
/// and that only this user may write to, with the usual umask.
#[cfg(not(target_os = "linux"))]
fn connect() -> io::Result<(UnixListener, UnixStream)> {
    let path = std::env::temp_dir().join(unique_name());
    let listener = UnixListener::bind(&path)?;
    let private = UnixStream::connect(&path);
    std::fs::remove_file(&path)?;
    Ok((listener, private?))
}

/// A name that nobody can guess; 104 bytes of path are all that macOS allows.
fn unique_name() -> String {
    let random = RandomState::new().build_hasher().finish();
    format!("ttn-gateway-exporter-{random:016x}")
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
        assert!(!lock(&backlog.state).hangs(after(9_000)));
        let scrape = |deadline| Scrape {
            arrived: start,
            deadline,
            now: start,
            at: SystemTime::UNIX_EPOCH,
        };
        lock(&backlog.state).start(scrape(after(300)));
        assert!(!lock(&backlog.state).hangs(after(329)));
        assert!(lock(&backlog.state).hangs(after(331)));
        lock(&backlog.state).start(scrape(start));
        assert!(!lock(&backlog.state).hangs(after(29)));
    }

    #[test]
    fn a_connection_that_is_evicted_is_answered_and_begins_no_collection() {
        let (private, mut loop_end) = UnixStream::pair().expect("two sockets");
        let backlog = Backlog::new(private);
        let connections = Connections::new(1);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let _client = std::net::TcpStream::connect(address).expect("a connection");
        let connection = connections.open(listener.accept().expect("a connection").0);
        connection.enter(Phase::Waiting);
        let now = Instant::now();
        lock(&backlog.state).start(Scrape::new(now, now + Duration::from_secs(60)));
        thread::scope(|scope| {
            let due = now + Duration::from_secs(60);
            let (backlog, connection) = (&backlog, &connection);
            let waiting = scope.spawn(move || backlog.wait(connection, due, due));
            while !connection.phase().1.gt(&Duration::from_millis(1_100)) {
                thread::sleep(Duration::from_millis(10));
            }
            connections.evict_longest_idle();
            backlog.serve(|_| ());
            assert!(waiting.join().expect("no panic").is_ok());
        });
        assert!(lock(&backlog.state).current.is_none());
        loop_end.set_nonblocking(true).expect("a flag");
        assert!(io::Read::read(&mut loop_end, &mut [0; 9]).is_err());
    }
}
