//! The HTTP server. In: connections from anybody. Out: the metrics, the status page, or a
//! refusal, each within a time and a size. It knows routes and limits, and no gateway.
//!
//! `connections` lets them in, `service` answers one, the loop on tiny_http in `server` makes the
//! collections that they wait for, and `renderer` writes what is known then.

mod connections;
mod gzip;
mod renderer;
mod request;
mod server;
mod service;

use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use connections::Connections;
pub use request::BUDGET_MAX;
pub use server::Server;

/// Each change to what is locked in this room is one step, so it is valid even after a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// None if the act panics. The hook has logged it, and what is remembered is plain data, valid at
/// each step.
fn survive<T>(act: impl FnOnce() -> T) -> Option<T> {
    panic::catch_unwind(AssertUnwindSafe(act)).ok()
}
