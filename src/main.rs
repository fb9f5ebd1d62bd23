//! ttn-gateway-exporter: every gateway of an API key of The Things Stack, for Prometheus.

mod error;
mod model;
#[allow(dead_code)]
mod page;

fn main() {}
