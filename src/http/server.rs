//! The server as a whole: its parts, and the loop on tiny_http, which makes one collection for
//! each request.
//!
//! Requests come over the private connection alone. The loop may take as long as a collection:
//! connections wait for its end, and for no longer than their clients do.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::collect::Collector;
use crate::http::acceptor::Acceptor;
use crate::http::backlog::Backlog;
use crate::http::connections::Connections;
use crate::http::renderer::Renderer;
use crate::http::service::Service;
use crate::http::survive;
use crate::secret::Secret;
use crate::things_stack::KnownHosts;

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
        move || service.backlog.is_alive()
    }

    /// Makes collections for ever, and asks for the key's own state when no request waits.
    pub fn run(mut self) -> ! {
        loop {
            let wait = self.collector.time_to_key_info(Instant::now());
            // The only error is that of the private listener, which is shut on purpose.
            if let Ok(Some(request)) = self.http.recv_timeout(wait) {
                // A writer that is dropped sends nothing, and nobody would read it.
                drop(request.into_writer());
                let collector = &mut self.collector;
                self.service
                    .backlog
                    .serve(|scrape| collector.collect(scrape));
            } else {
                survive(|| self.collector.ask_about_key(Instant::now()));
            }
        }
    }
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
