//! ttn-gateway-exporter: every gateway of an API key of The Things Stack, for Prometheus.

mod args;
mod error;
mod exporter_metrics;
mod exposition;
mod flags;
mod gateway_metrics;
mod hosts;
mod metrics;
mod model;
mod number;
mod page;
mod process;
mod resolver;
mod secret;
mod transport;
mod ttl_map;

#[cfg(test)]
#[path = "../tests/it/exposition_parser.rs"]
mod exposition_parser;
#[cfg(test)]
mod render_properties;

fn main() {}
