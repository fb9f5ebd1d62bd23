//! ttn-gateway-exporter: every gateway of an API key of The Things Stack, for Prometheus.
//!
//! One scrape, in reading order: `http` takes a request, `collect` decides what is still fresh and
//! what to ask of whom, `things_stack` makes the calls and reads the answers, `metrics` and
//! `page` write what goes back. Imports only point down.

mod assets;
mod cli;
mod collect;
mod http;
mod metrics;
mod page;
mod system;
mod things_stack;

mod error;
mod model;
mod secret;

#[cfg(test)]
#[path = "../tests/it/exposition_parser.rs"]
mod exposition_parser;
#[cfg(test)]
#[path = "../tests/unit/fuzz.rs"]
mod fuzz;
#[cfg(test)]
#[path = "../tests/unit/random.rs"]
mod random;

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use std::{env, fs};

use crate::cli::{Command, Config, KeySource};
use crate::collect::{Collector, FAILURE_TTL_MAX, GatewayList, Scope, Scrape};
use crate::http::{
    Acceptor, BUDGET_MAX, Backlog, Connections, Heartbeat, Renderer, Server, Service,
};
use crate::secret::Secret;
use crate::system::{Notifier, Observer, Signals};
use crate::things_stack::{Client, KeyFile, ProxyRule, Settings, Transport};

/// Connections at once; fewer where the limit of descriptors is low.
const CONNECTIONS_MAX: u64 = 64;
/// Descriptors for everything else: the API, the names, /proc, the listeners.
const DESCRIPTORS_RESERVED: u64 = 24;
/// How long a scrape under way may hold up the end.
const STOP_TIME_MAX: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let command = match cli::parse(env::args_os().skip(1), |name| env::var_os(name)) {
        Ok(command) => command,
        Err(problem) => return fail(2, problem),
    };
    let text = match command {
        Command::Help => cli::help(),
        Command::Version => {
            concat!("ttn-gateway-exporter ", env!("CARGO_PKG_VERSION"), "\n").to_owned()
        }
        Command::Print(what) => assets::text(what),
        Command::Run(config) => {
            return match ProxyRule::from_environment(|name| env::var_os(name)) {
                Ok(proxy) => run(*config, proxy).unwrap_or_else(|problem| fail(1, problem)),
                Err(problem) => fail(2, problem),
            };
        }
    };
    print(text.as_bytes()).map_or_else(|problem| fail(1, problem), |()| ExitCode::SUCCESS)
}

fn run(mut config: Config, proxy: Option<ProxyRule>) -> Result<ExitCode, String> {
    let signals = Signals::block().map_err(|error| format!("cannot block signals: {error}"))?;
    system::give_back();
    system::start_log(config.verbose);
    keep_out_of_core_dumps();
    for warning in &config.warnings {
        log::warn!("{warning}");
    }
    let key = match &config.key {
        KeySource::Given(key) => key.clone(),
        KeySource::File(path) => read_secret("API key", path)?,
    };
    let token = config.web_token_file.as_deref();
    let token = token.map(|path| read_secret("token", path)).transpose()?;
    let transport = Transport::new(&key, config.ca_file.as_deref(), proxy);
    let transport = transport.map_err(|error| match &config.ca_file {
        Some(path) => format!("cannot use the authorities of {}: {error}", path.display()),
        None => error.to_string(),
    })?;
    let collector = collector(&mut config, transport, key);
    match config.once {
        true => once(collector, signals),
        false => serve(&config, collector, token, signals),
    }
}

fn collector(config: &mut Config, transport: Transport, key: Secret) -> Collector {
    let settings = Settings {
        timeout: config.timeout,
        with_locations: config.locations,
    };
    let mut client = Client::new(transport, settings);
    if let KeySource::File(path) = &config.key {
        client = client.with_key_file(KeyFile::new(path.clone(), key));
    }
    let scope = std::mem::replace(&mut config.scope, Scope::Key);
    let list = GatewayList::new(
        scope,
        std::mem::take(&mut config.exclude),
        config.list_ttl,
        config.ttl.min(FAILURE_TTL_MAX),
    );
    Collector::new(
        client,
        config.server.clone(),
        config.hosts.clone(),
        list,
        config.ttl,
    )
}

/// Prints one collection. The log has the reasons where it is not complete.
fn once(mut collector: Collector, signals: Signals) -> Result<ExitCode, String> {
    thread::spawn(move || std::process::exit(128 + signals.wait()));
    let now = Instant::now();
    let scrape = Scrape {
        arrived: now,
        deadline: now + BUDGET_MAX,
        now,
        at: SystemTime::now(),
    };
    collector.collect(&scrape);
    let known = collector.known();
    let snapshot = known.snapshot(&scrape);
    let exporter = metrics::render_exporter(&known.counters(), &Observer::new().read());
    print(&metrics::render_gateways(&snapshot))
        .and_then(|()| print(&exporter))
        .map_err(|error| error.to_string())?;
    Ok(match snapshot.is_complete() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn serve(
    config: &Config,
    collector: Collector,
    token: Option<Secret>,
    signals: Signals,
) -> Result<ExitCode, String> {
    let (address, port) = &config.listen;
    let listeners = system::bind(address, *port)
        .map_err(|error| format!("cannot listen on {address}:{port}: {error}"))?;
    let connections = Arc::new(Connections::new(connection_limit()));
    let (known, hosts) = (collector.known(), config.hosts.clone());
    let renderer = Arc::new(Renderer::new(known, hosts, connections.clone()));
    let (listener, private) = http::connect().map_err(cannot_start)?;
    let backlog = Backlog::new(private);
    let heartbeat = Heartbeat::new();
    let budget = (2 * config.timeout).min(BUDGET_MAX);
    let server = Server {
        http: tiny_http::Server::from_listener(listener, None).map_err(cannot_start)?,
        collector,
        renderer: renderer.clone(),
        bodies: backlog.bodies(),
        heartbeat: heartbeat.clone(),
        budget,
    };
    let service = Arc::new(Service {
        connections: connections.clone(),
        backlog,
        renderer,
        token,
        budget,
    });
    for listener in listeners {
        if let Ok(address) = listener.local_addr() {
            log::info!("listening on http://{address}");
        }
        Acceptor::start(service.clone(), listener).map_err(cannot_start)?;
    }
    Notifier::from_environment().start(move || heartbeat.is_alive(Instant::now()));
    thread::spawn(move || stop_on_signal(&signals, &connections));
    server.run()
}

fn connection_limit() -> usize {
    let descriptors = system::max_fds().unwrap_or(1024);
    let limit = descriptors.saturating_sub(DESCRIPTORS_RESERVED);
    limit.clamp(4, CONNECTIONS_MAX) as usize
}

/// Ends the process: at once if no client waits for an answer, else when they have it or have
/// waited long enough. A second signal does not wait.
fn stop_on_signal(signals: &Signals, connections: &Connections) -> ! {
    let signal = signals.wait();
    log::info!("signal {signal}: stopping");
    let start = Instant::now();
    thread::scope(|scope| {
        let second = thread::Builder::new();
        // If no thread can be started, a second signal has no effect.
        let _ = second.spawn_scoped(scope, || std::process::exit(128 + signals.wait()));
        while connections.in_service() > 0 && start.elapsed() < STOP_TIME_MAX {
            thread::sleep(Duration::from_millis(10));
        }
        std::process::exit(0)
    })
}

fn cannot_start(error: impl Display) -> String {
    format!("cannot start the server: {error}")
}

fn read_secret(what: &str, path: &std::path::Path) -> Result<Secret, String> {
    let secret = Secret::from_file(path);
    let path = path.display();
    secret.map_err(|error| format!("cannot use the {what} of {path}: {error}"))
}

/// The key is in memory, and a core dump is a file. No kind of mapping goes into one
/// (core(5)). Where /proc cannot be written to, the unit's LimitCORE=0 does the same.
fn keep_out_of_core_dumps() {
    if let Err(error) = fs::write("/proc/self/coredump_filter", "0") {
        log::debug!("core dumps are not filtered: {error}");
    }
}

/// Writes to standard output. A reader that has seen enough, such as `head`, is no error.
fn print(text: &[u8]) -> io::Result<()> {
    let mut output = io::stdout().lock();
    match output.write_all(text).and_then(|()| output.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

fn fail(code: u8, problem: impl Display) -> ExitCode {
    let problem = cli::without_key(problem);
    let _ = writeln!(io::stderr(), "ttn-gateway-exporter: {problem}");
    ExitCode::from(code)
}
