//! ttn-gateway-exporter: every gateway of an API key of The Things Stack, for Prometheus.

mod args;
mod error;
mod flags;
mod hosts;
mod model;
mod secret;
mod ttl_map;

fn main() {}
