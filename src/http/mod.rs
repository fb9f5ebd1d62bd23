//! The HTTP server. In: connections from anybody. Out: the metrics, the status page, or a
//! refusal, each within a time and a size. It knows routes and limits, and no gateway.

mod acceptor;
mod body;
mod connection;
mod connections;
mod gzip;
mod request_head;
mod server;

pub use acceptor::Entrance;
pub use body::Handover;
pub use connection::FrontDoor;
pub use server::{BUDGET_MAX, Site};
