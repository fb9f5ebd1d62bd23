// The tests that need a process.
mod assets;
#[allow(dead_code)] // until the exporter can be started by a test
mod prometheus;
