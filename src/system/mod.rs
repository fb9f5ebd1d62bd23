//! The operating system: memory, sockets, signals, systemd, the log, and what the kernel tells of this
//! process. Each file stands alone; `main` and `http` use them.

mod allocator;
mod log;
mod process;
mod signals;
mod sockets;
mod systemd;

pub use allocator::give_back_freed_memory;
pub use log::start_log;
pub use process::{Process, max_fds};
pub use signals::Signals;
pub use sockets::bind;
pub use systemd::notify;
