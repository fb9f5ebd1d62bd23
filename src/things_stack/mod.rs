//! The API of The Things Stack. In: which call, at which cluster, until when. Out: messages as
//! the model has them, or the reason why not. The only room that sees JSON, TLS and the API key.

mod agent;
mod client;
mod failure;
mod hosts;
mod key_file;
mod messages;
mod proxy;
mod resolver;
mod transport;

pub use client::Client;
pub use failure::CallError;
pub use hosts::{AllowedHost, BaseUrl, KnownHosts};
pub use key_file::KeyFile;
pub use messages::ListPage;
pub use proxy::ProxyRule;
pub use transport::Transport;
