//! One collection. In: a scrape with its deadline. Out: a [`Snapshot`](crate::model::Snapshot),
//! made of what is still fresh and of what the API told until then. It decides what to ask of
//! whom; it sees no HTTP.

mod collector;
mod gateway_list;
mod known;
mod outage_log;
mod stats;
mod ttl_map;

pub use collector::{Collector, Scrape};
pub use gateway_list::Scope;
pub use known::Known;
pub use ttl_map::TtlMap;
