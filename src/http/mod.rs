//! The HTTP server. In: connections from anybody. Out: the metrics, the status page, or a
//! refusal, each within a time and a size. It knows routes and limits, and no gateway.
//!
//! `acceptor` accepts, `service` answers one connection, `backlog` passes one request after the
//! other to the loop on tiny_http in `server`, `renderer` writes what the loop has collected.

mod acceptor;
mod authorization;
mod backlog;
mod connections;
mod gzip;
mod private;
mod renderer;
mod request;
mod response;
mod server;
mod service;
mod stream;
mod task;

pub use acceptor::Acceptor;
pub use backlog::Backlog;
pub use connections::Connections;
pub use private::connect;
pub use renderer::Renderer;
pub use server::{Heartbeat, Server};
pub use service::Service;
pub use task::BUDGET_MAX;
