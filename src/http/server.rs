//! The server as a whole: its parts, the loop on tiny_http, which makes one collection for each
//! request, and how connections wait for a collection.
//!
//! tiny_http 0.12 reads heads and queues without a bound, spawns a thread for each connection,
//! ends its accept thread on the first error, panics on a reset, waits for announced bodies in
//! the caller's thread and for slow readers as long as they like. None of that can be set. So it
//! meets one client that is quick and well-behaved: the private connection, over which one of the
//! connections that wait asks for a collection, one at a time. They wait for its end, and for no
//! longer than their clients do.

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

/// How often a waiting thread checks its client, and whether it is evicted, one at a time.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// A loop that is this late hangs. To read an answer of 10,000 gateways takes a small machine
/// some seconds, which no deadline cuts.
const HANG_TIME: Duration = Duration::from_secs(30);
/// How long the last line of the log has.
const LOG_TIME: Duration = Duration::from_secs(1);
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
        move || lock(&service.backlog.state).is_alive(Instant::now())
    }

    /// Makes collections for ever, and asks for the key's own state when no request waits.
    pub fn run(mut self) -> ! {
        loop {
            let wait = self.collector.time_to_key_info(Instant::now());
            // The only error is that of the private listener, which is shut on purpose.
            if let Ok(Some(request)) = self.http.recv_timeout(wait) {
                // A writer that is dropped sends nothing, and nobody would read it.
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
    /// `times` are those of the request.
    ///
    /// # Errors
    /// If the client is gone.
    pub fn wait(&self, connection: &Connection, times: [Duration; 2]) -> io::Result<Scrape> {
        connection.enter(Phase::Waiting);
        let [deadline, due] = times.map(|time| connection.accepted + time);
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
                return Ok(Scrape::new(connection.accepted, deadline));
            }
            let waited = self.ended.wait_timeout(state, LOOK_INTERVAL.min(due - now));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Begins a collection for this connection and all others that wait.
    fn begin(&self, state: &mut State, connection: &Connection) {
        connection.enter(Phase::Collecting);
        let deadline = state.next_deadline.take().unwrap_or(connection.accepted);
        state.current = Some(Scrape::new(connection.accepted, deadline));
        let sent = (&self.private).write_all(REQUEST);
        sent.unwrap_or_else(|error| give_up(error));
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
    /// Whether the loop does what it should: a collection takes up to its deadline.
    fn is_alive(&self, now: Instant) -> bool {
        let is_in_time = |scrape: Scrape| now <= scrape.deadline.max(scrape.now) + HANG_TIME;
        self.current.is_none_or(is_in_time)
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
