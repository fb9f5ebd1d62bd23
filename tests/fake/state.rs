//! What one cluster of the fake remembers while it runs: scripts, records, planned changes and
//! its rate limit.

use std::collections::HashMap;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::network::Nat;
use super::{Endpoint, Fleet, Misbehaviour, Record};

#[derive(Default)]
pub struct State {
    pub scripts: Vec<Script>,
    pub records: Vec<Record>,
    pub requests: usize,
    pub connections: usize,
    pub sockets: HashMap<usize, TcpStream>,
    /// Which start of listening this is; an accept loop of an older one ends.
    pub generation: usize,
    pub is_mute: bool,
    pub nat: Nat,
    /// Connections up to this one are forgotten on the way.
    pub forgotten_up_to: usize,
    /// Requests that were lost on forgotten connections.
    pub lost_requests: usize,
    pub delay: Duration,
    pub allowance: Option<Allowance>,
    /// The value of `X-Warning`.
    pub warning: Option<String>,
    pub changes: Vec<PlannedChange>,
    /// Whole answers of a frozen fleet, by all that they depend on.
    pub memory: HashMap<Question, Arc<Vec<u8>>>,
}

#[derive(PartialEq, Eq, Hash)]
pub struct Question {
    pub authorization: String,
    pub target: String,
    pub body: Vec<u8>,
    pub takes_gzip: bool,
}

/// Something that happens to the fleet right after an answer.
pub struct PlannedChange {
    pub endpoint: Endpoint,
    /// Answers of this endpoint until then.
    pub answers_left: usize,
    pub change: Box<dyn FnOnce(&mut Fleet) + Send>,
}

pub struct Script {
    /// None: every endpoint.
    pub endpoint: Option<Endpoint>,
    /// Requests of the endpoint that pass before it begins.
    pub skip: usize,
    /// None: until it is taken back.
    pub times_left: Option<usize>,
    pub misbehaviour: Misbehaviour,
}

/// A rate limit as the true server keeps it: so many requests in a window.
pub struct Allowance {
    pub limit: u64,
    pub window: Duration,
    pub used: u64,
    pub since: Instant,
}

/// A frozen fleet of 10,000 gateways has 110 different answers, twice with gzip.
pub const MEMORY_ANSWERS_MAX: usize = 1_000;

impl State {
    /// The newest script for this endpoint that is not used up.
    pub fn next_script(&mut self, endpoint: Endpoint) -> Option<Misbehaviour> {
        let mut scripts = self.scripts.iter_mut().rev();
        let script = scripts.find(|script| {
            script.times_left != Some(0) && script.endpoint.is_none_or(|own| own == endpoint)
        })?;
        if script.skip > 0 {
            script.skip -= 1;
            return None;
        }
        script.times_left = script.times_left.map(|left| left - 1);
        Some(script.misbehaviour.clone())
    }

    /// The record may have been forgotten meanwhile.
    pub fn note_bytes_out(&mut self, number: usize, bytes_out: usize) {
        let mut records = self.records.iter_mut().rev();
        if let Some(record) = records.find(|record| record.number == number) {
            record.bytes_out = bytes_out;
        }
    }

    /// The headers of the rate limit and of the warning for this request; mostly none.
    pub fn further_headers(&mut self) -> Vec<(&'static str, String)> {
        let limits = self.use_allowance().into_iter();
        let limits = limits.map(|(name, value)| (name, value.to_string()));
        let warning = self.warning.iter().map(|text| ("X-Warning", text.clone()));
        limits.chain(warning).collect()
    }

    /// The headers of the rate limit for this request; none without a limit.
    fn use_allowance(&mut self) -> Vec<(&'static str, u64)> {
        let Some(allowance) = &mut self.allowance else {
            return Vec::new();
        };
        if allowance.since.elapsed() >= allowance.window {
            allowance.since = Instant::now();
            allowance.used = 0;
        }
        allowance.used += 1;
        let left = allowance.window.saturating_sub(allowance.since.elapsed());
        let seconds = left.as_secs() + 1;
        let mut headers = vec![
            ("X-Rate-Limit-Limit", allowance.limit),
            (
                "X-Rate-Limit-Available",
                allowance.limit.saturating_sub(allowance.used),
            ),
            ("X-Rate-Limit-Reset", seconds),
        ];
        if allowance.used > allowance.limit {
            headers.push(("X-Rate-Limit-Retry", seconds));
        }
        headers
    }
}
