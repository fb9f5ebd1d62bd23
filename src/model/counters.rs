//! What the exporter counts of itself and of its calls to the API. Plain data.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::error::{FetchError, Reason};

/// The calls to the API: the label `endpoint`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Endpoint {
    /// `GET /gateways` and its variants for an organization or a user.
    List,
    /// `GET /gateways/{gateway_id}`: the registration of one gateway named by `--gateway`.
    Gateway,
    /// `POST /gs/gateways/connection/stats`: up to 100 gateways.
    StatsBatch,
    /// `GET /gs/gateways/{gateway_id}/connection/stats`.
    Stats,
    /// `GET /auth_info`: the rights and the expiry of the key.
    AuthInfo,
}

impl Endpoint {
    pub const ALL: [Endpoint; 5] = [
        Endpoint::List,
        Endpoint::Gateway,
        Endpoint::StatsBatch,
        Endpoint::Stats,
        Endpoint::AuthInfo,
    ];

    /// The value of the label `endpoint`.
    pub fn label(self) -> &'static str {
        match self {
            Endpoint::List => "list",
            Endpoint::Gateway => "gateway",
            Endpoint::StatsBatch => "stats_batch",
            Endpoint::Stats => "stats",
            Endpoint::AuthInfo => "auth_info",
        }
    }
}

/// What the server last said of its rate limit (`X-Rate-Limit-Limit`, `-Available`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    pub limit: u64,
    pub available: u64,
}

/// What the exporter counts of itself, from its start.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// By `Reason as usize`.
    pub errors: [u64; Reason::COUNT],
    /// By endpoint and HTTP status; no status where no answer came. Bounded by the number
    /// of three-digit statuses.
    pub requests: BTreeMap<(Endpoint, Option<u16>), u64>,
    /// By `Endpoint as usize`: all requests together, from sending to the last byte.
    pub request_duration: [Duration; Endpoint::ALL.len()],
    /// By `Endpoint as usize`.
    pub request_count: [u64; Endpoint::ALL.len()],
    /// By host; bounded by the hosts that the key may go to.
    pub rate_limits: BTreeMap<String, RateLimit>,
    /// Gateways whose stats were served from memory, and those that had to be fetched.
    pub cache_hits: u64,
    pub cache_misses: u64,
    /// The last thing that failed and when, by this machine's clock: for people.
    pub last_error: Option<(SystemTime, Arc<FetchError>)>,
}

impl Counters {
    pub fn count_error(&mut self, reason: Reason) {
        self.errors[reason as usize] += 1;
    }
}
