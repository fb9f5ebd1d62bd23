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
#[path = "../tests/unit/examples.rs"]
mod examples;
#[cfg(test)]
#[path = "../tests/it/exposition_parser.rs"]
mod exposition_parser;
#[cfg(test)]
#[path = "../tests/unit/fuzz.rs"]
mod fuzz;

use std::fmt::Display;
use std::io::{self, Write};
use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};

use crate::cli::{Command, Config, KeySource};
use crate::collect::{Collector, FAILURE_TTL_MAX, GatewayList, Scrape};
use crate::http::{BUDGET_MAX, Connections, Server};
use crate::secret::Secret;
use crate::system::{Process, Signals};
use crate::things_stack::{Client, KeyFile, Transport};

/// Connections at once; fewer where the limit of descriptors is low.
const CONNECTIONS_MAX: u64 = 64;
/// Descriptors for everything else: the API, the names, /proc, the listeners.
const DESCRIPTORS_RESERVED: u64 = 24;
/// How long a scrape under way may hold up the end.
const STOP_TIME_MAX: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let ended = match cli::parse(env::args_os().skip(1), |name| env::var_os(name)) {
        Ok(Command::Run(config)) => run(*config),
        Ok(Command::Print(text)) => print(text.as_bytes()).map(|()| ExitCode::SUCCESS),
        Err(problem) => return fail(2, problem),
    };
    ended.unwrap_or_else(|problem| fail(1, problem))
}

fn run(config: Config) -> Result<ExitCode, String> {
    let signals = Signals::block().map_err(|error| format!("cannot block signals: {error}"))?;
    system::give_back_freed_memory();
    system::start_log(config.verbose);
    let connections = Arc::new(Connections::new(connection_limit()));
    let of_server = (!config.once).then(|| connections.clone());
    // Now, since what follows may take long: a name to look up, a key file that is a pipe.
    let stopper = thread::Builder::new().spawn(move || stop_on_signal(signals, of_server));
    stopper.map_err(cannot_start)?;
    keep_out_of_core_dumps();
    if config.has_password {
        log::warn!("--password is ignored: it never had a use");
    }
    let (key, key_file) = read_key(config.key)?;
    let token = config.web_token_file.as_deref().map(Secret::from_file);
    // The name is not told: the token itself may stand there instead of a file.
    let token = token.transpose();
    let token = token.map_err(|error| format!("cannot use --web-token-file: {error}"))?;
    let transport = Transport::new(key, config.ca_file.as_deref(), config.proxy);
    let transport = transport.map_err(|error| match &config.ca_file {
        Some(path) => format!("cannot use the authorities of {}: {error}", path.display()),
        None => error.to_string(),
    })?;
    let client = Client::new(transport, config.timeout, config.locations, key_file);
    let failure_ttl = config.ttl.min(FAILURE_TTL_MAX);
    let list = GatewayList::new(config.scope, config.exclude, config.list_ttl, failure_ttl);
    let hosts = config.hosts.clone();
    let collector = Collector::new(client, config.server, hosts, list, config.ttl);
    if config.once {
        return once(collector);
    }
    // Before there is a server, since tiny_http panics where it is dropped.
    let listeners = listeners(config.listen)?;
    let budget = (2 * config.timeout).min(BUDGET_MAX);
    let server = Server::new(collector, config.hosts, connections, token, budget);
    serve(server.map_err(cannot_start)?, listeners)
}

fn read_key(source: KeySource) -> Result<(Secret, Option<KeyFile>), String> {
    match source {
        KeySource::Given(key) => Ok((key, None)),
        KeySource::File(path) => {
            let key = Secret::from_file(&path);
            let shown = path.display();
            let key = key.map_err(|error| format!("cannot use the API key of {shown}: {error}"))?;
            Ok((key, Some(KeyFile::new(path))))
        }
    }
}

/// Prints one collection. The log has the reasons where it is not complete.
fn once(mut collector: Collector) -> Result<ExitCode, String> {
    let now = Instant::now();
    let scrape = Scrape::new(now, now + BUDGET_MAX);
    collector.collect(&scrape);
    let known = collector.known();
    let snapshot = known.snapshot(&scrape);
    let exporter = metrics::render_exporter(&known.counters(), &Process::read());
    print(&metrics::render_gateways(&snapshot))?;
    print(&exporter)?;
    Ok(match snapshot.is_complete() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn listeners((address, port): (String, u16)) -> Result<Vec<TcpListener>, String> {
    system::bind(&address, port).map_err(|error| match address.contains(':') {
        true => format!("cannot listen on [{address}]:{port}: {error}"),
        false => format!("cannot listen on {address}:{port}: {error}"),
    })
}

fn serve(server: Server, listeners: Vec<TcpListener>) -> Result<ExitCode, String> {
    for listener in listeners {
        let address = listener.local_addr();
        server.listen(listener).map_err(cannot_start)?;
        if let Ok(address) = address {
            log::info!("listening on http://{address}");
        }
    }
    system::notify(server.watch());
    server.run()
}

fn connection_limit() -> usize {
    let descriptors = system::max_fds().unwrap_or(1024);
    let limit = descriptors.saturating_sub(DESCRIPTORS_RESERVED);
    limit.clamp(4, CONNECTIONS_MAX) as usize
}

/// Ends the process: at once if no client of the server waits for an answer, else when they have
/// it or have waited long enough. A second signal does not wait, nor does the first one without a
/// server.
fn stop_on_signal(signals: Signals, of_server: Option<Arc<Connections>>) -> ! {
    let signal = signals.wait();
    let Some(connections) = of_server else {
        std::process::exit(128 + signal);
    };
    let end = Instant::now() + STOP_TIME_MAX;
    // Where these threads cannot be started, a second signal has no effect, and nor has the limit
    // while the log cannot be written.
    let _ = thread::Builder::new().spawn(move || std::process::exit(128 + signals.wait()));
    let _ = thread::Builder::new().spawn(|| {
        thread::sleep(STOP_TIME_MAX);
        std::process::exit(0)
    });
    log::info!("signal {signal}: stopping");
    while connections.is_any_in_service() && Instant::now() < end {
        thread::sleep(Duration::from_millis(10));
    }
    std::process::exit(0)
}

fn cannot_start(error: impl Display) -> String {
    format!("cannot start the server: {error}")
}

/// The key is in memory, and a core dump is a file. No kind of mapping goes into one
/// (core(5)). Where /proc cannot be written to, the unit's LimitCORE=0 does the same.
fn keep_out_of_core_dumps() {
    if let Err(error) = fs::write("/proc/self/coredump_filter", "0") {
        log::debug!("core dumps are not filtered: {error}");
    }
}

/// Writes to standard output. A reader that has seen enough, such as `head`, is no error.
fn print(text: &[u8]) -> Result<(), String> {
    let mut output = io::stdout().lock();
    match output.write_all(text).and_then(|()| output.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(()),
    }
}

/// What was typed may be an API key in a wrong place, such as the name of a file.
fn fail(code: u8, problem: String) -> ExitCode {
    let problem = cli::without_key(problem);
    let _ = writeln!(io::stderr(), "ttn-gateway-exporter: {problem}");
    ExitCode::from(code)
}
