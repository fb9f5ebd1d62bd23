//! The fake Things Stack as a program: something to scrape without an account.
//!
//! `fake-things-stack [--listen ADDRESS:PORT] [--gateways N] [--delay-ms N]`. Without
//! `--gateways` the demo fleet. Ends on SIGINT and SIGTERM.

#[path = "mod.rs"]
mod fake;

use std::process::ExitCode;
use std::time::Duration;

use fake::{Fake, Fleet, clock, demo};
use lexopt::prelude::*;

/// More than anybody makes who tries it; the exporter shows how much of it is left.
const REQUESTS_A_MINUTE: u64 = 10_000;

struct Options {
    listen: String,
    /// None: the demo fleet.
    gateways: Option<usize>,
    delay: Duration,
}

fn main() -> ExitCode {
    match parse().and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fake-things-stack: {error}");
            ExitCode::from(2)
        }
    }
}

fn parse() -> Result<Options, lexopt::Error> {
    let mut options = Options {
        listen: "127.0.0.1:8885".to_owned(),
        gateways: None,
        delay: Duration::ZERO,
    };
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("listen") => options.listen = arguments.value()?.string()?,
            Long("gateways") => options.gateways = Some(arguments.value()?.parse()?),
            Long("delay-ms") => {
                options.delay = Duration::from_millis(arguments.value()?.parse()?);
            }
            other => return Err(other.unexpected()),
        }
    }
    Ok(options)
}

fn run(options: Options) -> Result<(), lexopt::Error> {
    let now = clock::now_seconds();
    let mut fleet = match options.gateways {
        Some(count) => Fleet::generated(count),
        None => demo::fleet(now),
    };
    let count = fleet.gateways.len();
    // The key is made up: it opens nothing but this fake.
    let mut key = demo::key(now);
    key.token = "NNSXS.DEMO.KEY".to_owned();
    let hint = format!("--key {}", key.token);
    fleet.keys = vec![key];
    let fake = Fake::start_at(&options.listen, None, fleet)
        .map_err(|error| format!("cannot listen on {}: {error}", options.listen))?;
    fake.set_delay(options.delay);
    fake.set_rate_limit(REQUESTS_A_MINUTE, Duration::from_secs(60));
    let url = fake.url();
    println!("A fake Things Stack with {count} gateways listens on {url}");
    println!("Point the exporter at it: ttn-gateway-exporter --server {url} {hint}");
    loop {
        // Requests are recorded for tests; a long demo must not grow with them.
        std::thread::sleep(Duration::from_secs(10));
        fake.forget();
    }
}
