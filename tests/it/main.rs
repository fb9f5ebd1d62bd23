//! The tests that need a process: the real binary against a fake Things Stack.

#[path = "../fake/mod.rs"]
mod fake;
mod harness;

mod exposition_parser;

mod assets;
// It reads /proc.
#[cfg(target_os = "linux")]
mod bench_counts;
mod browser;
mod cli;
mod clusters;
mod counts;
mod dashboard_models;
mod deadlines;
mod end_to_end;
mod failures;
mod fake_itself;
#[path = "../unit/fuzz.rs"]
#[allow(dead_code)]
mod fuzz;
mod golden;
mod http;
mod key_file;
mod keys;
mod lists;
mod odd_answers;
mod package;
mod prometheus;
mod property;
mod python_compat;
mod readme;
mod searching;
mod secrecy;
mod states;
mod status_page;
mod stopping;
mod systemd;
mod tls;
mod truth;
mod unkind_network;
mod webdriver;
