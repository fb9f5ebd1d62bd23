//! ttn-gateway-exporter: every gateway of an API key of The Things Stack, for Prometheus.

mod error;
mod model;

fn main() {}
