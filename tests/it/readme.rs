//! The README against the program: its tables of flags and reasons are the program's.

use std::collections::BTreeSet;

use crate::fake::{Fake, Fleet};
use crate::harness::samples::label;
use crate::harness::{Exporter, Setup};

const README: &str = include_str!("../../README.md");

/// The words in back ticks of the first cell of each row under a heading.
fn first_cells(heading: &str) -> BTreeSet<&'static str> {
    let (_, rest) = README.split_once(heading).expect("the heading is there");
    let section = rest.split("\n## ").next().unwrap_or(rest);
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect()
}

#[test]
fn the_flags_are_those_of_the_help() {
    let help = Setup::bare().args(["--help"]).run().stdout;
    let words = help
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("       "));
    let flags = words.flat_map(|line| line.split([' ', ',']));
    let helped: BTreeSet<&str> = flags.filter(|word| word.starts_with('-')).collect();
    let cells = first_cells("## Options");
    let told: BTreeSet<&str> = cells
        .iter()
        .filter_map(|cell| cell.split(' ').next())
        .collect();
    let secret: BTreeSet<&str> = ["--password"].into();
    assert_eq!(&told | &secret, helped);
}

#[test]
fn every_reason_of_a_failure_is_explained() {
    let fake = Fake::start(Fleet::generated(1));
    let scrape = Exporter::start(&fake).scrape();
    let counters = scrape.all("ttn_exporter_errors_total");
    let reasons = counters
        .iter()
        .filter_map(|counter| label(counter, "reason"));
    let reasons: BTreeSet<&str> = reasons.collect();
    assert_eq!(first_cells("## When something fails"), reasons);
}
