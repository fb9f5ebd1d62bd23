//! The tests that need a process: the real binary against a fake Things Stack.

#[path = "../fake/mod.rs"]
mod fake;
mod harness;

mod assets;
mod browser;
mod fake_itself;
#[allow(dead_code)] // until the exporter can be started by a test
mod prometheus;
mod webdriver;
