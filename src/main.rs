//! ttn-gateway-exporter: every gateway of an API key of The Things Stack, for Prometheus.

mod args;
mod error;
mod flags;
mod hosts;
mod model;
mod resolver;
mod secret;
mod transport;
mod ttl_map;

fn main() {}
