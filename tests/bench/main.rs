//! What a scrape costs: the exporter against the fake Things Stack, and its cached scrapes
//! beside a trivial program on the same server library. Prints one table in Markdown.
//!
//! `bench [--quick] [--sizes N,N…] [--collections N]`, and `bench --floor FILE` for the trivial
//! program. `TTN_EXPORTER_BINARY` names another binary, the static one for example. Counts and
//! ratios are the same on every machine; times are this machine's. Nothing is asserted here.

#[allow(dead_code)]
#[path = "../it/exposition_parser.rs"]
mod exposition_parser;
#[path = "../fake/mod.rs"]
mod fake;
#[allow(dead_code)]
#[path = "../it/harness/mod.rs"]
mod harness;

mod floor;
mod load;
mod measure;
mod process;
mod program;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use lexopt::prelude::*;

/// How much is measured.
pub struct Plan {
    pub sizes: Vec<usize>,
    /// Exporters whose first collection is measured, for each size.
    pub cold_runs: usize,
    /// Turns of exporter and floor program.
    pub rounds: usize,
    /// Of each turn.
    pub turn: Duration,
    pub collections: usize,
    pub has_hours: bool,
}

enum Task {
    Floor(String),
    Measure(Plan),
}

fn main() -> ExitCode {
    let result = match parse() {
        Ok(Task::Floor(path)) => floor::serve(&path).map_err(|error| error.to_string()),
        Ok(Task::Measure(plan)) => {
            report(&plan);
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::from(2)
        }
    }
}

fn parse() -> Result<Task, lexopt::Error> {
    let mut plan = Plan {
        sizes: vec![1, 10, 100, 500, 1_000, 5_000, 10_000],
        cold_runs: 5,
        rounds: 5,
        turn: Duration::from_millis(500),
        collections: 1_000,
        has_hours: true,
    };
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("floor") => return Ok(Task::Floor(arguments.value()?.string()?)),
            Long("quick") => {
                plan.sizes = vec![1, 100, 1_000];
                plan.cold_runs = 3;
                plan.turn = Duration::from_millis(200);
                plan.collections = 50;
                plan.has_hours = false;
            }
            Long("sizes") => {
                let sizes = arguments.value()?.string()?;
                let sizes = sizes.split(',').map(str::parse);
                plan.sizes = sizes
                    .collect::<Result<_, _>>()
                    .map_err(|_| "--sizes: numbers with commas between them")?;
            }
            Long("collections") => plan.collections = arguments.value()?.parse()?,
            // cargo's word for "you are a benchmark".
            Long("bench") => {}
            other => return Err(other.unexpected()),
        }
    }
    Ok(Task::Measure(plan))
}

fn report(plan: &Plan) {
    let costs = measure::all(plan);
    print!("{}", table::costs(plan, &costs));
    if plan.has_hours {
        print!("{}", table::hours(&costs));
    }
    print!("{}", table::program(&program::measure()));
}
