//! A fake Things Stack: one listener for each cluster, threads over std sockets, no framework.
//!
//! [`Fake::start`] gives the cluster that lists; [`Fake::sibling`] adds further clusters with
//! the same fleet. Each request is answered as the true server would (api.rs), or as a script
//! says (misbehaviour.rs), and is recorded for the tests to count.
//!
//! It is part of the tests and a program of its own (main.rs); not each uses all of it.
#![allow(dead_code, unused_imports)]

pub mod api;
pub mod clock;
pub mod demo;
pub mod fleet;
pub mod hostile;
pub mod misbehaviour;
pub mod network;
mod state;
pub mod tls;
pub mod wire;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection};

pub use api::Endpoint;
pub use fleet::{Fleet, Gateway, Holder, Key};
pub use misbehaviour::Misbehaviour;
pub use network::{BlackHole, Nat};
pub use wire::{Answer, Request};

use api::Site;
use misbehaviour::{Next, Stream, perform};
use state::{Allowance, MEMORY_ANSWERS_MAX, PlannedChange, Question, Script, State};

/// One running cluster; it ends with its connections when dropped.
pub struct Fake {
    cluster: Arc<Cluster>,
}

/// A request that came in, and what went out.
#[derive(Clone, Debug)]
pub struct Record {
    /// From 1, in the order of their coming.
    pub number: usize,
    /// From 1, in the order of their being accepted.
    pub connection: usize,
    pub endpoint: Endpoint,
    pub request: Request,
    /// Of the whole answer, once it is out.
    pub bytes_out: usize,
    pub at: Instant,
}

struct Cluster {
    site: Site,
    address: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
    fleet: Arc<RwLock<Fleet>>,
    state: Mutex<State>,
}

impl Fake {
    /// The home cluster on a free port of 127.0.0.1, without TLS.
    pub fn start(fleet: Fleet) -> Fake {
        Fake::start_at("127.0.0.1:0", None, fleet).expect("a free port")
    }

    /// The home cluster with TLS: its host is 127.0.0.1.
    pub fn start_tls(fleet: Fleet, tls: Arc<ServerConfig>) -> Fake {
        Fake::start_at("127.0.0.1:0", Some(tls), fleet).expect("a free port")
    }

    /// The home cluster at this address.
    pub fn start_at(
        address: &str,
        tls: Option<Arc<ServerConfig>>,
        fleet: Fleet,
    ) -> io::Result<Fake> {
        Fake::launch(address, tls, Arc::new(RwLock::new(fleet)), true)
    }

    /// A further cluster with the same gateways and keys: it has those whose address names
    /// this IP. Fails where the port may not be bound.
    pub fn sibling(&self, address: &str, tls: Option<Arc<ServerConfig>>) -> io::Result<Fake> {
        Fake::launch(address, tls, Arc::clone(&self.cluster.fleet), false)
    }

    fn launch(
        address: &str,
        tls: Option<Arc<ServerConfig>>,
        fleet: Arc<RwLock<Fleet>>,
        is_home: bool,
    ) -> io::Result<Fake> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let site = Site {
            host: address.ip().to_string(),
            is_home,
        };
        let state = Mutex::default();
        let cluster = Arc::new(Cluster {
            site,
            address,
            tls,
            fleet,
            state,
        });
        spawn_accepting(&cluster, listener, 0);
        Ok(Fake { cluster })
    }

    pub fn address(&self) -> SocketAddr {
        self.cluster.address
    }

    /// The value for `--server`.
    pub fn url(&self) -> String {
        let scheme = if self.cluster.tls.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}", self.cluster.address)
    }

    /// The same by the name `localhost`.
    pub fn url_by_name(&self) -> String {
        let ip = IpAddr::to_string(&self.cluster.address.ip());
        self.url().replace(&ip, "localhost")
    }

    /// From now on requests of this endpoint end so, until [`Fake::behave`]. The newest
    /// script of an endpoint counts.
    pub fn script(&self, endpoint: Endpoint, misbehaviour: Misbehaviour) {
        self.add_script(Some(endpoint), 0, None, misbehaviour);
    }

    /// The same for every endpoint.
    pub fn script_all(&self, misbehaviour: Misbehaviour) {
        self.add_script(None, 0, None, misbehaviour);
    }

    /// The same for the next so many requests alone.
    pub fn script_times(&self, endpoint: Endpoint, times: usize, misbehaviour: Misbehaviour) {
        self.add_script(Some(endpoint), 0, Some(times), misbehaviour);
    }

    /// The same once, after so many requests that pass: the second page, the third batch.
    pub fn script_after(&self, endpoint: Endpoint, skip: usize, misbehaviour: Misbehaviour) {
        self.add_script(Some(endpoint), skip, Some(1), misbehaviour);
    }

    fn add_script(
        &self,
        endpoint: Option<Endpoint>,
        skip: usize,
        times: Option<usize>,
        kind: Misbehaviour,
    ) {
        let script = Script {
            endpoint,
            skip,
            times_left: times,
            misbehaviour: kind,
        };
        self.state().scripts.push(script);
    }

    /// Takes all scripts back.
    pub fn behave(&self) {
        let mut state = self.state();
        state.scripts.clear();
        state.is_mute = false;
    }

    /// New connections are accepted and never read: a TLS handshake or a request hangs.
    pub fn mute(&self) {
        self.state().is_mute = true;
    }

    /// From now on a NAT is between the client and this cluster.
    pub fn set_nat(&self, nat: Nat) {
        self.state().nat = nat;
    }

    /// All connections that exist are forgotten on the way, as after a suspend of the machine.
    pub fn forget_connections(&self) {
        let mut state = self.state();
        state.forgotten_up_to = state.connections;
    }

    /// Requests that were sent on forgotten connections: no server saw them.
    pub fn lost_count(&self) -> usize {
        self.state().lost_requests
    }

    /// Each answer carries this `X-Warning` from now on.
    pub fn set_warning(&self, text: &str) {
        self.state().warning = Some(text.to_owned());
    }

    /// Each answer takes this long, like a distant server.
    pub fn set_delay(&self, delay: Duration) {
        self.state().delay = delay;
    }

    /// Keeps a rate limit from now on and announces it with each answer.
    pub fn set_rate_limit(&self, limit: u64, window: Duration) {
        let allowance = Allowance {
            limit,
            window,
            used: 0,
            since: Instant::now(),
        };
        self.state().allowance = Some(allowance);
    }

    /// Changes gateways or keys while it runs, for all clusters of this fleet.
    pub fn change(&self, change: impl FnOnce(&mut Fleet)) {
        let mut fleet = self.cluster.fleet.write().expect("no panic in a change");
        change(&mut fleet);
        fleet.reindex();
        self.state().memory.clear();
    }

    /// Changes the fleet right after the next so many answers of this endpoint: between two
    /// pages of a list, for instance.
    pub fn change_after(
        &self,
        endpoint: Endpoint,
        answers: usize,
        change: impl FnOnce(&mut Fleet) + Send + 'static,
    ) {
        self.state().changes.push(PlannedChange {
            endpoint,
            answers_left: answers,
            change: Box::new(change),
        });
    }

    /// Refuses connections and ends the existing ones; [`Fake::resume`] takes the same port.
    pub fn stop(&self) {
        self.state().generation += 1;
        // Wakes the accept loop, which ends and closes the listener.
        let _ = TcpStream::connect_timeout(&self.address(), Duration::from_secs(1));
        self.close_connections();
        let end = Instant::now() + Duration::from_secs(5);
        while TcpStream::connect_timeout(&self.address(), Duration::from_secs(1)).is_ok() {
            assert!(Instant::now() < end, "the listener does not close");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Listens again after [`Fake::stop`].
    pub fn resume(&self) {
        let end = Instant::now() + Duration::from_secs(5);
        let listener = loop {
            match TcpListener::bind(self.address()) {
                Ok(listener) => break listener,
                Err(error) => assert!(Instant::now() < end, "{}: {error}", self.address()),
            }
            thread::sleep(Duration::from_millis(20));
        };
        let generation = self.state().generation;
        spawn_accepting(&self.cluster, listener, generation);
    }

    /// Ends every kept connection while it is idle.
    pub fn close_connections(&self) {
        for (_, socket) in self.state().sockets.drain() {
            // The client may have been faster.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Every request since the start or [`Fake::forget`].
    pub fn records(&self) -> Vec<Record> {
        self.state().records.clone()
    }

    pub fn count(&self, endpoint: Endpoint) -> usize {
        let state = self.state();
        state
            .records
            .iter()
            .filter(|r| r.endpoint == endpoint)
            .count()
    }

    /// All but the question about the key itself, which comes when nobody waits.
    pub fn request_count(&self) -> usize {
        let state = self.state();
        let mut records = state.records.iter();
        let is_counted = |record: &&Record| record.endpoint != Endpoint::AuthInfo;
        records.by_ref().filter(is_counted).count()
    }

    /// How many connections were accepted.
    pub fn connection_count(&self) -> usize {
        self.state().connections
    }

    /// Bytes of all requests and of all answers, without TLS.
    pub fn bytes_in_and_out(&self) -> (usize, usize) {
        let state = self.state();
        let sizes = state
            .records
            .iter()
            .map(|r| (r.request.size_bytes, r.bytes_out));
        sizes.fold((0, 0), |sum, next| (sum.0 + next.0, sum.1 + next.1))
    }

    /// Forgets the requests so far; connections keep their count.
    pub fn forget(&self) {
        self.state().records.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.cluster.state()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.state().generation += 1;
        let _ = TcpStream::connect_timeout(&self.address(), Duration::from_secs(1));
        self.close_connections();
    }
}

fn spawn_accepting(cluster: &Arc<Cluster>, listener: TcpListener, generation: usize) {
    let cluster = Arc::clone(cluster);
    thread::spawn(move || {
        for socket in listener.incoming() {
            if cluster.state().generation != generation {
                break;
            }
            let Ok(socket) = socket else {
                continue;
            };
            let cluster = Arc::clone(&cluster);
            thread::spawn(move || cluster.serve(socket));
        }
    });
}

impl Cluster {
    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panics while it holds the lock has failed already.
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn serve(&self, socket: TcpStream) {
        let (connection, is_mute) = {
            let mut state = self.state();
            state.connections += 1;
            let connection = state.connections;
            if let Ok(clone) = socket.try_clone() {
                state.sockets.insert(connection, clone);
            }
            (connection, state.is_mute)
        };
        let mut stream = Stream {
            socket,
            tls: self.tls.as_ref().map(new_session),
            bytes_written: 0,
        };
        // An error here is the client's leaving or what a script wanted.
        let result = match is_mute {
            true => stream.hang(),
            false => self.converse(&mut stream, connection),
        };
        if result.is_err_and(|error| error.kind() == io::ErrorKind::InvalidData) {
            let _ = stream.send(b"HTTP/1.0 400 Bad Request\r\n\r\nThis is HTTP/1.1.\n");
            stream.close();
        }
        self.state().sockets.remove(&connection);
    }

    /// Request by request until either side ends the connection.
    fn converse(&self, stream: &mut Stream, connection: usize) -> io::Result<()> {
        stream.socket.set_nodelay(true)?;
        stream
            .socket
            .set_read_timeout(Some(Duration::from_secs(300)))?;
        let mut buffer = Vec::new();
        let (mut last_use, mut carried) = (Instant::now(), 0);
        while let Some(request) = wire::read_request(stream, &mut buffer)? {
            if self.is_forgotten(connection, carried, last_use) {
                return stream.hang();
            }
            carried += 1;
            let number = self.record(&request, connection);
            let before = stream.bytes_written;
            let next = self.respond(&request, stream);
            let bytes_out = stream.bytes_written - before;
            self.state().note_bytes_out(number, bytes_out);
            self.carry_out_changes(api::endpoint(&request));
            if next? == Next::Close {
                break;
            }
            last_use = Instant::now();
            if request.header_has("Connection", "close") {
                stream.close();
                break;
            }
        }
        Ok(())
    }

    /// Whether a NAT has forgotten this connection: then the request is lost.
    fn is_forgotten(&self, connection: usize, carried: usize, last_use: Instant) -> bool {
        let mut state = self.state();
        let is_idle = state
            .nat
            .idle_max
            .is_some_and(|max| last_use.elapsed() >= max);
        let is_used_up = state.nat.requests_max.is_some_and(|max| carried >= max);
        // A new connection is one that has carried nothing.
        let is_lost = (carried > 0 && is_idle) || is_used_up || connection <= state.forgotten_up_to;
        state.lost_requests += usize::from(is_lost);
        is_lost
    }

    fn carry_out_changes(&self, endpoint: Endpoint) {
        let mut state = self.state();
        let of_endpoint = |change: &&mut PlannedChange| change.endpoint == endpoint;
        state
            .changes
            .iter_mut()
            .filter(of_endpoint)
            .for_each(|change| change.answers_left = change.answers_left.saturating_sub(1));
        let is_due = |change: &mut PlannedChange| change.answers_left == 0;
        let due: Vec<PlannedChange> = state.changes.extract_if(.., is_due).collect();
        drop(state);
        for planned in due {
            let mut fleet = self.fleet.write().expect("no panic in a change");
            (planned.change)(&mut fleet);
            fleet.reindex();
            drop(fleet);
            self.state().memory.clear();
        }
    }

    fn record(&self, request: &Request, connection: usize) -> usize {
        let mut state = self.state();
        state.requests += 1;
        let number = state.requests;
        state.records.push(Record {
            number,
            connection,
            endpoint: api::endpoint(request),
            request: request.clone(),
            bytes_out: 0,
            at: Instant::now(),
        });
        number
    }

    fn respond(&self, request: &Request, stream: &mut Stream) -> io::Result<Next> {
        let (script, delay, headers) = {
            let mut state = self.state();
            let script = state.next_script(api::endpoint(request));
            (script, state.delay, state.further_headers())
        };
        thread::sleep(delay);
        if let Some(misbehaviour) = script {
            return perform(misbehaviour, self.honest(request, &headers), stream);
        }
        let bytes = match headers.is_empty() {
            true => self.remembered(request),
            false => Arc::new(self.honest(request, &headers).bytes()),
        };
        stream.send(&bytes)?;
        Ok(Next::Keep)
    }

    /// The true answer with these further headers, compressed if the client likes.
    fn honest(&self, request: &Request, headers: &[(&'static str, String)]) -> Answer {
        let is_over = headers
            .iter()
            .any(|(name, _)| *name == "X-Rate-Limit-Retry");
        let mut answer = match is_over {
            true => api::error(429, 8, "pkg/ratelimit", "exceeded", "rate limit exceeded"),
            false => {
                let fleet = self.fleet.read().expect("no panic in a change");
                api::answer(&fleet, &self.site, request, clock::now_seconds())
            }
        };
        for (name, value) in headers {
            answer = answer.with_header(name, value);
        }
        match request.header_has("Accept-Encoding", "gzip") && answer.body.len() > 512 {
            true => answer.gzipped(),
            false => answer,
        }
    }

    /// The bytes of the true answer, from memory where the fleet is frozen: a benchmark must
    /// not measure the fake.
    fn remembered(&self, request: &Request) -> Arc<Vec<u8>> {
        if !self.fleet.read().expect("no panic in a change").is_frozen {
            return Arc::new(self.honest(request, &[]).bytes());
        }
        let key = Question {
            authorization: request
                .header("Authorization")
                .unwrap_or_default()
                .to_owned(),
            target: request.target.clone(),
            body: request.body.clone(),
            takes_gzip: request.header_has("Accept-Encoding", "gzip"),
        };
        if let Some(bytes) = self.state().memory.get(&key) {
            return Arc::clone(bytes);
        }
        let bytes = Arc::new(self.honest(request, &[]).bytes());
        let mut state = self.state();
        if state.memory.len() < MEMORY_ANSWERS_MAX {
            state.memory.insert(key, Arc::clone(&bytes));
        }
        bytes
    }
}

fn new_session(config: &Arc<ServerConfig>) -> Box<ServerConnection> {
    let session = ServerConnection::new(Arc::clone(config));
    Box::new(session.expect("the configuration is one of tls.rs"))
}
