//! The server as a whole: its parts, and the loop on tiny_http, which makes one collection for
//! each request.
//!
//! Requests come over the private connection alone. The loop may take as long as a collection:
//! connections wait for its end, and for no longer than their clients do.

use std::io::{self, Write};
use std::net::TcpListener;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::collect::Collector;
use crate::http::acceptor::Acceptor;
use crate::http::backlog::{ANSWER, Backlog};
use crate::http::connections::Connections;
use crate::http::private;
use crate::http::renderer::Renderer;
use crate::http::service::Service;
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
        let (listener, private) = private::connect()?;
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
            match self.http.recv_timeout(wait) {
                Ok(Some(request)) => self.respond(request),
                _ => survive(|| self.collector.ask_about_key(Instant::now())),
            }
        }
    }

    fn respond(&mut self, request: tiny_http::Request) {
        if let Some(scrape) = self.service.backlog.current() {
            survive(|| self.collector.collect(&scrape));
        }
        // `Request::respond` adds headers, which takes a tenth of a cached scrape.
        let mut writer = request.into_writer();
        if let Err(error) = writer.write_all(ANSWER).and_then(|()| writer.flush()) {
            log::error!("cannot answer over the private connection: {error}");
        }
        self.service.backlog.end();
        self.service.connections.wake();
    }
}

/// A panic ends this collection or question alone, and the hook has logged it. What the collector
/// remembers is plain data, valid at each step.
fn survive(act: impl FnOnce()) {
    let _ = panic::catch_unwind(AssertUnwindSafe(act));
}
