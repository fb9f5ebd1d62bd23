//! The results in Markdown: one row for each measure, one column for each size.

use std::fmt::Write as _;
use std::time::Duration;

use crate::Plan;
use crate::measure::{Cached, Costs, DELAY, Traffic};
use crate::program::Program;

/// A name and how its cell is written.
type Row<'a> = (String, &'a dyn Fn(&Costs) -> String);

pub fn costs(plan: &Plan, costs: &[Costs]) -> String {
    let end = format!("after {} collections", plan.collections);
    let rows: Vec<Row<'_>> = [
        rows_of_collections().as_slice(),
        rows_of_scrapes().as_slice(),
    ]
    .concat()
    .into_iter()
    .map(|(name, cell)| (name.to_owned(), cell))
    .chain(rows_of_memory(&end))
    .collect();
    table("Gateways", &rows, costs)
}

/// What a row is called, and its cell for one size.
type NamedCell = (&'static str, &'static dyn Fn(&Costs) -> String);

fn rows_of_collections() -> [NamedCell; 9] {
    [
        (
            "**Cold collection:** API requests (lists + batches)",
            &|c| format!("{} + {}", c.api.lists, c.api.batches),
        ),
        ("connections", &|c| c.api.connections.to_string()),
        ("bytes sent", &|c| bytes(sum(c).sent)),
        ("bytes received (gzip)", &|c| bytes(sum(c).received)),
        ("wall", &|c| milliseconds(c.cold.wall)),
        ("exporter's CPU", &|c| milliseconds(c.cold.cpu)),
        ("the same per gateway", &|c| {
            microseconds(c.cold.cpu / c.gateways as u32)
        }),
        ("wall at 60 ms per request", &|c| {
            milliseconds(c.cold_delayed)
        }),
        ("its floor: requests × 60 ms", &|c| milliseconds(floor(c))),
    ]
}

fn rows_of_scrapes() -> [NamedCell; 12] {
    [
        ("**Cached scrape:** answer bytes", &|c| {
            bytes(c.answer_bytes)
        }),
        ("wall", &|c| microseconds(c.plain.exporter.wall)),
        ("exporter's CPU", &|c| microseconds(c.plain.exporter.cpu)),
        ("floor program's wall", &|c| {
            microseconds(c.plain.floor.wall)
        }),
        ("wall : floor", &|c| ratio(&c.plain)),
        ("**Cached scrape, gzip:** answer bytes", &|c| {
            bytes(c.answer_gzip_bytes)
        }),
        ("wall", &|c| microseconds(c.gzip.exporter.wall)),
        ("exporter's CPU", &|c| microseconds(c.gzip.exporter.cpu)),
        ("floor program's wall", &|c| microseconds(c.gzip.floor.wall)),
        ("wall : floor", &|c| ratio(&c.gzip)),
        ("scrapes/s on 1 connection (floor)", &|c| rates(c, 1)),
        ("scrapes/s on 8 connections (floor)", &|c| rates(c, 8)),
    ]
}

fn rows_of_memory(end: &str) -> [Row<'static>; 6] {
    [
        ("**Resident KiB:** after start".to_owned(), &|c| {
            c.at_start.resident_kib.to_string()
        }),
        ("after the first collection".to_owned(), &|c| {
            c.after_first.resident_kib.to_string()
        }),
        (end.to_owned(), &|c| c.at_end.resident_kib.to_string()),
        ("peak".to_owned(), &|c| c.at_end.peak_kib.to_string()),
        (format!("open files: start, {end}"), &|c| {
            format!("{}, {}", c.at_start.descriptors, c.at_end.descriptors)
        }),
        (format!("threads: start, {end}"), &|c| {
            format!("{}, {}", c.at_start.threads, c.at_end.threads)
        }),
    ]
}

/// What an hour of scrapes every 60 s costs on the line to the API, with the list every 300 s.
pub fn hours(costs: &[Costs]) -> String {
    const BATCHES: usize = 60;
    const LISTS: usize = 12;
    let hourly = |c: &Costs, of: fn(&Traffic) -> usize| {
        bytes(LISTS * of(&c.api.list) + BATCHES * of(&c.api.batch))
    };
    let requests = |c: &Costs| (LISTS * c.api.lists + BATCHES * c.api.batches).to_string();
    let sent = |c: &Costs| hourly(c, |traffic| traffic.sent);
    let received = |c: &Costs| hourly(c, |traffic| traffic.received);
    let plain = |c: &Costs| hourly(c, |traffic| traffic.received_plain);
    let rows: [Row<'_>; 4] = [
        ("requests".to_owned(), &requests),
        ("bytes sent".to_owned(), &sent),
        ("bytes received with gzip".to_owned(), &received),
        ("without".to_owned(), &plain),
    ];
    table("API traffic of an hour, a scrape every 60 s", &rows, costs)
}

pub fn program(program: &Program) -> String {
    let crates = program
        .crates
        .map_or("unknown".to_owned(), |n| n.to_string());
    let linked = if program.is_static {
        "static"
    } else {
        "dynamic"
    };
    let name = program.binary.rsplit('/').next().unwrap_or_default();
    format!(
        "\nStart until the first answer: {}. Binary `{name}`: {} bytes, {linked}. \
         Crates, this one included: {crates}.\n",
        milliseconds(program.start),
        program.binary_bytes,
    )
}

fn table(corner: &str, rows: &[Row<'_>], costs: &[Costs]) -> String {
    let mut text = format!("\n| {corner} |");
    for costs in costs {
        // Writing to a String cannot fail.
        let _ = write!(text, " {} |", costs.gateways);
    }
    let _ = write!(text, "\n|---|{}", "---:|".repeat(costs.len()));
    for (name, cell) in rows {
        let _ = write!(text, "\n| {name} |");
        for costs in costs {
            let _ = write!(text, " {} |", cell(costs));
        }
    }
    text.push('\n');
    text
}

fn sum(costs: &Costs) -> Traffic {
    let (list, batch) = (costs.api.list, costs.api.batch);
    Traffic {
        sent: list.sent + batch.sent,
        received: list.received + batch.received,
        received_plain: list.received_plain + batch.received_plain,
    }
}

fn floor(costs: &Costs) -> Duration {
    DELAY * (costs.api.lists + costs.api.batches) as u32
}

fn ratio(cached: &Cached) -> String {
    let ratio = cached.exporter.wall.as_secs_f64() / cached.floor.wall.as_secs_f64();
    format!("{ratio:.2}")
}

fn rates(costs: &Costs, connections: usize) -> String {
    let rates = costs.rates.iter().find(|r| r.connections == connections);
    rates.map_or(String::new(), |r| {
        format!("{:.0} ({:.0})", r.exporter, r.floor)
    })
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

fn microseconds(duration: Duration) -> String {
    format!("{:.0} µs", duration.as_secs_f64() * 1e6)
}

/// Three significant digits: kB are 1,000 bytes.
fn bytes(bytes: usize) -> String {
    match bytes {
        0..10_000 => format!("{bytes}"),
        10_000..10_000_000 => format!("{} kB", bytes / 1_000),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}
