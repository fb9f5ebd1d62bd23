//! Attacks on the real binary, one after the other, while a scraper goes on scraping.
//!
//! `make test` runs a short form of each against the debug build: the process must live, every
//! scrape must be answered, nothing may be left behind; times and memory have wide bounds there,
//! since the machine has other things to do. `make torture` (TORTURE=full) runs each for 15
//! seconds, three rounds in a row, against the release build and holds it to the bars.
//! TORTURE_ONLY=idle runs only the attacks with this in their name.

// What is left behind is counted in /proc.
#![cfg(target_os = "linux")]

#[path = "../it/exposition_parser.rs"]
#[allow(dead_code)]
mod exposition_parser;
#[path = "../fake/mod.rs"]
mod fake;
#[path = "../it/harness/mod.rs"]
#[allow(dead_code)]
mod harness;

mod attacks;
#[path = "../unit/fuzz.rs"]
mod fuzz;
mod scarcity;
mod socket;
mod watch;

use std::fmt;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use attacks::Target;
use fake::{Fake, Fleet};
use harness::{Exporter, Setup};
use watch::{Figures, Scraped, Scraper};

const MEBIBYTE: u64 = 1 << 20;
/// Until everything has to be as before.
const RECOVERY_TIME_MAX: Duration = Duration::from_secs(3);
/// Its answer is 3 MB.
const LARGE_FLEET: usize = 700;

/// TORTURE=full.
pub fn is_full() -> bool {
    std::env::var("TORTURE").is_ok_and(|value| value == "full")
}

struct Attack {
    name: &'static str,
    run: fn(&Target),
    /// How long the scraper may have to wait.
    wait_max: Duration,
    /// Resident, without the answers that wait for their readers.
    memory_max_bytes: u64,
}

const fn attack(name: &'static str, run: fn(&Target), seconds: f64, mebibytes: u64) -> Attack {
    Attack {
        name,
        run,
        wait_max: Duration::from_millis((seconds * 1000.0) as u64),
        memory_max_bytes: mebibytes * MEBIBYTE,
    }
}

const ON_A_SMALL_FLEET: [Attack; 14] = [
    attack("none", attacks::nothing, 0.2, 8),
    attack("connect, reset", attacks::connect_and_reset, 1.0, 12),
    attack("request, reset", attacks::request_and_reset, 1.0, 12),
    attack("300 idle", attacks::idle, 5.0, 16),
    attack("200 drip a byte", attacks::drip, 5.0, 16),
    attack("12 keep-alive at once", attacks::keep_alive, 1.0, 12),
    attack("bodies that never come", attacks::bodies, 1.0, 12),
    attack("other protocols, noise", attacks::nonsense, 1.0, 12),
    attack("a line of 200 MB", attacks::one_long_line, 1.0, 16),
    attack("ten lines of 200 MB", attacks::ten_long_lines, 1.0, 16),
    attack("2,000 pipelined, slow API", attacks::pipelined, 10.0, 16),
    attack("hanging API, ten scrapers", attacks::hanging_api, 10.0, 12),
    // Not in the table of the bars.
    attack("16 greedy scrapers", attacks::greedy, 2.0, 16),
    attack("half closed", attacks::half_closed, 1.0, 12),
];

const WITH_ODD_DESCRIPTORS: [Attack; 2] = [
    attack("300 idle, 255 descriptors", attacks::idle, 5.0, 16),
    attack(
        "hanging API, 100 scrapers",
        attacks::hanging_api_and_a_crowd,
        20.0,
        16,
    ),
];

const ON_A_LARGE_FLEET: [Attack; 3] = [
    attack("3 never read, 3 drip, 3 MB", attacks::slow_readers, 2.0, 12),
    attack(
        "100 slow readers, 3 MB",
        attacks::many_slow_readers,
        10.0,
        16,
    ),
    attack(
        "50 slow, different texts",
        attacks::slow_readers_of_different_texts,
        2.0,
        16,
    ),
];

#[test]
fn every_attack_is_outlived() {
    let small = Fake::start(Fleet::generated(20));
    let usual = start(&small, "ulimit -n 256; exec \"$0\" \"$@\"");
    let odd = start(&small, "ulimit -n 255; exec \"$0\" \"$@\"");
    let large = Fake::start(Fleet::generated(LARGE_FLEET));
    let of_large = start(&large, "ulimit -n 256; exec \"$0\" \"$@\"");
    let rounds = if is_full() { 3 } else { 1 };
    let mut rows = Vec::new();
    println!("{}", Row::header());
    for round in 1..=rounds {
        for ((exporter, at_rest), fake, attacks) in [
            (&usual, &small, ON_A_SMALL_FLEET.as_slice()),
            (&odd, &small, WITH_ODD_DESCRIPTORS.as_slice()),
            (&of_large, &large, ON_A_LARGE_FLEET.as_slice()),
        ] {
            let only = std::env::var("TORTURE_ONLY").unwrap_or_default();
            for attack in attacks.iter().filter(|attack| attack.name.contains(&only)) {
                let row = endure(attack, round, exporter, fake, *at_rest);
                println!("{row}");
                rows.push(row);
            }
        }
    }
    let failed: Vec<&Row> = rows.iter().filter(|row| !row.problems.is_empty()).collect();
    let report: String = failed.iter().map(|row| format!("{row}\n")).collect();
    assert!(
        failed.is_empty(),
        "{report}\n{}\n{}\n{}",
        usual.0,
        odd.0,
        of_large.0
    );
}

/// An exporter, and what it has open when it has scraped once.
#[track_caller]
fn start(fake: &Fake, script: &str) -> (Exporter, Figures) {
    let setup = Setup::against(fake).args(["--ttl", "1"]);
    let exporter = setup.under_shell(script).start();
    exporter.scrape();
    let at_rest = watch::figures(exporter.process_id()).unwrap_or_default();
    (exporter, at_rest)
}

/// One attack, and what came of it.
fn endure(attack: &Attack, round: u32, exporter: &Exporter, fake: &Fake, at_rest: Figures) -> Row {
    let process_id = exporter.process_id();
    let mut before = watch::figures(process_id).unwrap_or_default();
    // An API that hung costs the kept connection to it, which comes back with the next scrape.
    before.descriptors = before.descriptors.max(at_rest.descriptors);
    watch::forget_peak(process_id);
    let length = Duration::from_millis(if is_full() { 15_000 } else { 1_500 });
    let target = Target {
        address: exporter.address,
        fake,
        end: Instant::now() + length,
        is_full: is_full(),
        complaints: Mutex::default(),
    };
    let scraper = Scraper::start(exporter.address);
    (attack.run)(&target);
    let scraped = scraper.finish();
    let (after, recovery) = recover(exporter, before);
    let mut row = Row {
        round,
        name: attack.name,
        scraped,
        peak_bytes: watch::peak_memory_bytes(process_id),
        before,
        after,
        recovery,
        problems: target
            .complaints
            .into_inner()
            .expect("no panic in an attack"),
    };
    row.judge(attack);
    row
}

/// Waits until it answers and is as it was, and says how that went.
fn recover(exporter: &Exporter, before: Figures) -> (Option<Figures>, Duration) {
    let start = Instant::now();
    let is_too_late = || start.elapsed() > Duration::from_secs(15);
    while watch::scrape(exporter.address).is_err() && !is_too_late() {
        thread::sleep(Duration::from_millis(50));
    }
    loop {
        let after = watch::figures(exporter.process_id());
        let is_as_before = after.is_none_or(|after| {
            after.descriptors <= before.descriptors && after.threads <= before.threads
        });
        if is_as_before || is_too_late() {
            return (after, start.elapsed());
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// A line of the table.
struct Row {
    round: u32,
    name: &'static str,
    scraped: Scraped,
    peak_bytes: u64,
    before: Figures,
    /// None: the process has ended.
    after: Option<Figures>,
    recovery: Duration,
    problems: Vec<String>,
}

impl Row {
    fn header() -> String {
        format!(
            "{:5} {:27} {:>8} {:>9} {:>6} {:>8} {:>8} {:>7} {:>9}  verdict",
            "round", "attack", "scrapes", "wait", "failed", "peak", "fds", "threads", "recovered"
        )
    }

    fn judge(&mut self, attack: &Attack) {
        let scraped = &self.scraped;
        // A debug build on a busy machine is held to the same, and given more of it.
        let (more_time, more_memory, recovery_max) = match is_full() {
            true => (Duration::ZERO, 0, RECOVERY_TIME_MAX),
            false => (Duration::from_secs(5), 32 * MEBIBYTE, 5 * RECOVERY_TIME_MAX),
        };
        // The bar for a large answer counts three of it; for a small one that is next to nothing.
        let memory_max = attack.memory_max_bytes + 3 * scraped.answer_bytes as u64 + more_memory;
        let wait_max = attack.wait_max + more_time;
        let problems = &mut self.problems;
        if self.after.is_none() {
            problems.push("the process has ended".to_owned());
        } else if self.recovery > recovery_max {
            problems.push(format!("not as before after {:?}", self.recovery));
        }
        if scraped.longest_wait > wait_max {
            problems.push(format!("waited more than {wait_max:?}"));
        }
        if self.peak_bytes > memory_max {
            problems.push(format!("more than {} MiB", memory_max / MEBIBYTE));
        }
        if let Some(first) = scraped.failures.first() {
            problems.push(format!("a scrape failed: {first}"));
        }
        if scraped.answers == 0 {
            problems.push("no scrape was answered".to_owned());
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after = self.after.unwrap_or_default();
        let change = |before: usize, after: usize| format!("{before}>{after}");
        write!(
            f,
            "{:5} {:27} {:8} {:7.3} s {:6} {:4.1} MiB {:>8} {:>7} {:7.2} s  ",
            self.round,
            self.name,
            self.scraped.answers,
            self.scraped.longest_wait.as_secs_f64(),
            self.scraped.failures.len(),
            self.peak_bytes as f64 / MEBIBYTE as f64,
            change(self.before.descriptors, after.descriptors),
            change(self.before.threads, after.threads),
            self.recovery.as_secs_f64(),
        )?;
        match self.problems.is_empty() {
            true => f.write_str("good"),
            false => write!(f, "BAD: {}", self.problems.join("; ")),
        }
    }
}
