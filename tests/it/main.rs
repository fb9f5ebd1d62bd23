//! The tests that need a process: the real binary against a fake Things Stack.

#[path = "../fake/mod.rs"]
mod fake;
#[allow(dead_code)] // until the tests of the exporter are here
mod harness;

mod browser;
mod fake_itself;
mod webdriver;
