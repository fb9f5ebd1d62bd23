//! ttn-gateway-exporter: every gateway of an API key of The Things Stack, for Prometheus.
//!
//! One scrape, in reading order: `entrance` and `front_door` let a request in, `server` makes it
//! a route, `collector` decides what is still fresh, `list` and `connection_stats` decide which
//! requests bring the rest, `client` knows the API's calls, `transport` sends them, `messages`
//! reads the answers, `metrics` and `page` write what goes back. Arrows only point down.

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
use std::{env, fs, panic};

use crate::cli::{Command, Config, KeySource};
use crate::collect::{Collector, Scrape};
use crate::http::{BUDGET_MAX, Entrance, FrontDoor, Handover, Site};
use crate::secret::Secret;
use crate::system::{Notifier, Signals};
use crate::things_stack::{Client, Transport};

/// Visitors at once; fewer where the limit of descriptors is low.
const PLACES_MAX: u64 = 64;
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
        Command::Run(config) => return run(*config).unwrap_or_else(|problem| fail(1, problem)),
    };
    print(text.as_bytes()).map_or_else(|problem| fail(1, problem), |()| ExitCode::SUCCESS)
}

fn run(mut config: Config) -> Result<ExitCode, String> {
    let signals = Signals::block().map_err(|error| format!("cannot block signals: {error}"))?;
    system::give_back();
    start_log(config.verbose);
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
    let transport = Transport::new(&key, config.ca_file.as_deref());
    let transport = transport.map_err(|error| match &config.ca_file {
        Some(path) => {
            let path = path.display();
            cli::without_key(format!("cannot use the authorities of {path}: {error}"))
        }
        None => error.to_string(),
    })?;
    let client = Client::new(transport, config.timeout);
    let collector = Collector::new(client, &mut config);
    let site = Site::new(collector, config.timeout, token);
    match config.once {
        true => once(site, signals),
        false => serve(&config, site, signals),
    }
}

/// Prints one collection. The log has the reasons where it is not complete.
fn once(mut site: Site, signals: Signals) -> Result<ExitCode, String> {
    thread::spawn(move || std::process::exit(128 + signals.wait()));
    let now = Instant::now();
    let text = site.text(&Scrape {
        arrived: now,
        deadline: now + BUDGET_MAX,
        now,
        at: SystemTime::now(),
    });
    print(&text.shared)
        .and_then(|()| print(&text.own))
        .map_err(|error| error.to_string())?;
    Ok(match site.is_complete() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn serve(config: &Config, site: Site, signals: Signals) -> Result<ExitCode, String> {
    let (address, port) = &config.listen;
    let listeners = system::bind(address, *port)
        .map_err(|error| format!("cannot listen on {address}:{port}: {error}"))?;
    let descriptors = system::max_fds().unwrap_or(1024);
    let places = descriptors.saturating_sub(DESCRIPTORS_RESERVED);
    let places = places.clamp(4, PLACES_MAX) as usize;
    let bodies = Handover::default();
    let (door, private) = FrontDoor::new(places, bodies.clone()).map_err(cannot_start)?;
    let server = tiny_http::Server::from_listener(private, None).map_err(cannot_start)?;
    let door = Arc::new(door);
    let notifier = Notifier::from_environment();
    for listener in listeners {
        if let Ok(address) = listener.local_addr() {
            log::info!("listening on http://{address}");
        }
        Entrance::open(door.clone(), listener).map_err(cannot_start)?;
    }
    notifier.ready();
    thread::spawn(move || stop_on_signal(&signals, &door));
    site.serve(&server, &bodies, notifier)
}

fn cannot_start(error: impl Display) -> String {
    format!("cannot start the server: {error}")
}

/// Ends the process: at once if nobody waits for an answer, else when they have it or have
/// waited long enough. A second signal does not wait.
fn stop_on_signal(signals: &Signals, door: &FrontDoor) -> ! {
    let signal = signals.wait();
    log::info!("signal {signal}: stopping");
    let start = Instant::now();
    while door.visitors.in_service() > 0 && start.elapsed() < STOP_TIME_MAX {
        if let Some(second) = signals.wait_for(Duration::from_millis(10)) {
            std::process::exit(128 + second);
        }
    }
    std::process::exit(0)
}

fn read_secret(what: &str, path: &std::path::Path) -> Result<Secret, String> {
    Secret::from_file(path).map_err(|error| {
        let path = path.display();
        cli::without_key(format!("cannot use the {what} of {path}: {error}"))
    })
}

/// Logs to standard error, with the priorities that journald understands if it listens.
fn start_log(is_verbose: bool) {
    // tiny_http calls it an error that its listener was shut, which is on purpose.
    let default = match is_verbose {
        true => "warn,tiny_http=off,ttn_gateway_exporter=debug",
        false => "warn,tiny_http=off,ttn_gateway_exporter=info",
    };
    let is_journal = env::var_os("JOURNAL_STREAM").is_some();
    let environment = env_logger::Env::default().default_filter_or(default);
    let mut builder = env_logger::Builder::from_env(environment);
    builder.format(move |line, record| {
        let (priority, level) = match record.level() {
            log::Level::Error => ("<3>", "error"),
            log::Level::Warn => ("<4>", "warning"),
            log::Level::Info => ("<6>", "info"),
            _ => ("<7>", "debug"),
        };
        match is_journal {
            true => writeln!(line, "{priority}{}", record.args()),
            false => writeln!(line, "{level}: {}", record.args()),
        }
    });
    builder.init();
    panic::set_hook(Box::new(|panic| {
        let payload = panic.payload_as_str().unwrap_or("no message");
        match panic.location() {
            Some(place) => log::error!("a defect at {place}: {payload}"),
            None => log::error!("a defect: {payload}"),
        }
    }));
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
    let _ = writeln!(io::stderr(), "ttn-gateway-exporter: {problem}");
    ExitCode::from(code)
}
