//! ttn-gateway-exporter: every gateway of an API key of The Things Stack, for Prometheus.

mod error;
mod hosts;
mod model;
mod secret;

fn main() {}
