//! One collection. In: a scrape with its deadline. Out: a [`Snapshot`](crate::model::Snapshot),
//! made of what is still fresh and of what the API told until then. It decides what to ask of
//! whom; it sees no HTTP.

mod collector;
mod gateway_list;
mod known;
mod outage_log;
mod states;
mod stats;
mod target;

pub use collector::{Collector, FAILURE_TTL_MAX, Scrape};
pub use gateway_list::{GatewayList, Scope};
pub use known::Known;
