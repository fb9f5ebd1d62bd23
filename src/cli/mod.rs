//! The command line. In: arguments and environment variables. Out: a valid [`Config`], or one
//! line that says what is wrong. Pure: files and sockets that it names are opened by others.

mod config;
mod flags;

pub use config::{Command, Config, KeySource, parse};
pub use flags::without_key;
