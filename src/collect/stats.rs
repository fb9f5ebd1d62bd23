//! The stats of many gateways at one cluster: batches of 100, and smaller ones or single calls
//! where a server refuses them.
//!
//! A batch is refused as a whole because of one gateway, its size, the kind of key, or because the
//! server is too old for batches. A refused batch is halved until the gateway at fault is alone,
//! and the result is remembered for a while. Only a refusal by the API itself counts: a page of a
//! proxy is a failure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::collect::clusters::Cluster;
use crate::collect::target::Target;
use crate::error::{FetchError, Reason};
use crate::model::{ConnectionStats, Outcome};
use crate::things_stack::{BaseUrl, CallError, Client};

/// The most gateways in one batch (BatchGetGatewayConnectionStatsRequest).
const BATCH_GATEWAYS_MAX: usize = 100;
/// How long a server that takes only small batches gets no larger ones.
const BATCH_SIZE_TTL: Duration = Duration::from_secs(600);
/// How long a server that knows no batches is asked gateway by gateway.
const BATCH_REFUSAL_TTL: Duration = Duration::from_secs(30);
/// How long a gateway that only the single call can read is asked alone.
const ALONE_TTL: Duration = Duration::from_secs(3600);
/// How long a gateway that the key may not read is not asked for again.
const REFUSAL_TTL: Duration = Duration::from_secs(300);
/// After so many answers that are too long, and none that can be read, nothing more is asked.
const OVERSIZED_MAX: usize = 16;
/// After so many gateways that were refused, and none that could be read, the rights of the key are
/// asked for. After so many that only the single call could read, batches are given up.
const SUSPICIOUS_GATEWAYS: usize = 4;

/// By host: the largest batch that it takes, until when; 1 where only single calls work.
pub type BatchLimits = BTreeMap<String, (usize, Instant)>;

/// Reads the stats of gateways at one cluster.
pub struct StatsReader<'a> {
    pub client: &'a mut Client,
    pub limits: &'a mut BatchLimits,
    pub cluster: &'a Cluster,
    /// The Identity Server, which knows the key's rights.
    pub server: &'a BaseUrl,
    pub now: Instant,
    pub deadline: Instant,
    /// For one request: a server that answers may use the whole time, and one that hangs not.
    pub request_time_max: Duration,
    /// Is told each outcome at once.
    pub found: &'a mut dyn FnMut(&mut Target, Outcome),
    pub progress: Progress,
}

/// What a reader has met so far.
#[derive(Default)]
pub struct Progress {
    /// Why nothing more is asked of this cluster in this collection.
    halted: Option<Arc<FetchError>>,
    is_any_readable: bool,
    is_any_batch_readable: bool,
    /// Gateways that were refused, and those that only the single call could read.
    refused: usize,
    alone: usize,
    oversized: usize,
    /// Whether a batch was sent again after a refusal that may have been a stray one.
    has_repeated: bool,
}

impl StatsReader<'_> {
    /// Reads the state of each of these gateways.
    pub fn read(&mut self, targets: &mut [&mut Target]) {
        let [mut together, mut alone] = self.split(targets);
        if together.len() == 1 {
            alone.append(&mut together);
        }
        self.read_batches(&mut together);
        for target in &mut alone {
            self.read_alone(target);
        }
        // A limit that did not help is not kept.
        if !self.progress.is_any_readable {
            self.limits.remove(&self.cluster.host);
        }
    }

    /// The gateways that may share a batch, and those to ask alone. Those that were refused
    /// lately keep that outcome.
    fn split<'t>(&mut self, targets: &'t mut [&mut Target]) -> [Vec<&'t mut Target>; 2] {
        let [mut together, mut alone] = [Vec::new(), Vec::new()];
        for target in targets {
            let Some(left_out) = target.left_out(self.cluster) else {
                together.push(&mut **target);
                continue;
            };
            match left_out.refusal.clone() {
                Some(error) if self.now < left_out.until => (self.found)(target, Err(error)),
                _ => alone.push(&mut **target),
            }
        }
        [together, alone]
    }

    fn read_batches(&mut self, mut targets: &mut [&mut Target]) {
        while !targets.is_empty() {
            let size = targets.len().min(self.batch_limit());
            let (batch, rest) = targets.split_at_mut(size);
            self.read_batch(batch);
            targets = rest;
        }
    }

    fn batch_limit(&self) -> usize {
        match self.limits.get(&self.cluster.host) {
            Some((limit, until)) if self.now < *until => *limit,
            _ => BATCH_GATEWAYS_MAX,
        }
    }

    fn limit_batches(&mut self, limit: usize) {
        let (limit, ttl) = match limit {
            0 | 1 => (1, BATCH_REFUSAL_TTL),
            limit => (limit, BATCH_SIZE_TTL),
        };
        let host = self.cluster.host.clone();
        self.limits.insert(host, (limit, self.now + ttl));
    }

    /// When the next request has to end.
    fn request_deadline(&self) -> Instant {
        self.deadline.min(Instant::now() + self.request_time_max)
    }

    fn read_batch(&mut self, batch: &mut [&mut Target]) {
        if self.progress.halted.is_some() || self.batch_limit() == 1 {
            for target in batch {
                self.read_alone(target);
            }
            return;
        }
        let deadline = self.request_deadline();
        let ids: Vec<&str> = batch.iter().map(|target| target.id()).collect();
        match self.client.stats_batch(self.cluster, &ids, deadline) {
            Ok(entries) => self.keep_entries(batch, entries),
            Err(refused) => self.after_refusal(batch, refused),
        }
    }

    fn keep_entries(
        &mut self,
        batch: &mut [&mut Target],
        mut entries: BTreeMap<String, ConnectionStats>,
    ) {
        self.progress.is_any_readable = true;
        self.progress.is_any_batch_readable = true;
        for target in batch {
            // Taken, not removed: that would be 3 kB more of the binary.
            let stats = entries.get_mut(target.id()).map(std::mem::take);
            (self.found)(target, stats.map_or(Ok(None), outcome_of));
        }
    }

    /// Learns from the refusal, and asks for the same gateways again. That ends: each refusal makes
    /// the batches smaller or ends all requests, and one alone is repeated as it is.
    fn after_refusal(&mut self, batch: &mut [&mut Target], refused: CallError) {
        let progress = &mut self.progress;
        progress.oversized += usize::from(refused.error.reason == Reason::TooLarge);
        let is_hopeless = progress.oversized > OVERSIZED_MAX && !progress.is_any_readable;
        match refused.status {
            _ if is_of_gateway(&refused) && !is_hopeless => return self.halve(batch),
            // A page of a proxy may be a stray one, and so may a sign that there are no batches.
            Some(status) if is_about_path(status, refused.is_of_api) && !progress.has_repeated => {
                progress.has_repeated = true;
            }
            Some(413) => self.limit_batches(batch.len() / 2),
            Some(400) if refused.is_of_api => self.limit_batches(batch.len() / 2),
            Some(404 | 405 | 501) if refused.is_of_api => self.limit_batches(1),
            _ => progress.halted = Some(Arc::new(refused.error)),
        }
        self.read_batches(batch);
    }

    /// One gateway of the batch may be the cause. What a batch of one cannot read is asked alone
    /// from now on. Where the single call can read many of those, batches as such do not work: for
    /// the key of a gateway, or on servers before 3.28.2 for rights through user and organization.
    fn halve(&mut self, batch: &mut [&mut Target]) {
        let [target] = batch else {
            let (left, right) = batch.split_at_mut(batch.len() / 2);
            self.read_batches(left);
            return self.read_batches(right);
        };
        target.leave_out(self.cluster, None, true, self.now + ALONE_TTL);
        self.progress.alone += usize::from(self.read_alone(target));
        if self.progress.alone >= SUSPICIOUS_GATEWAYS && !self.progress.is_any_batch_readable {
            self.limit_batches(1);
        }
    }

    /// Asks for one gateway, if anything may still be asked; says whether it could be read.
    fn read_alone(&mut self, target: &mut Target) -> bool {
        let was_asked = self.progress.halted.is_none();
        let outcome = match &self.progress.halted {
            Some(error) => Err(error.clone()),
            None => self.single_call(target.id()),
        };
        let is_readable = outcome.is_ok();
        match &outcome {
            Ok(_) => target.end_refusal(self.cluster),
            Err(error) if is_refusal(error) => {
                let until = self.now + REFUSAL_TTL;
                target.leave_out(self.cluster, Some(error.clone()), was_asked, until);
            }
            Err(_) => {}
        }
        (self.found)(target, outcome);
        is_readable
    }

    fn single_call(&mut self, id: &str) -> Outcome {
        let deadline = self.request_deadline();
        let outcome = match self.client.stats(self.cluster, id, deadline) {
            Ok(stats) => outcome_of(stats),
            Err(refused) if refused.name == "not_connected" => Ok(None),
            Err(refused) if is_of_gateway(&refused) => return Err(self.refused(refused.error)),
            Err(refused) => {
                let error = Arc::new(refused.error);
                self.progress.halted = Some(error.clone());
                return Err(error);
            }
        };
        self.progress.is_any_readable = true;
        outcome
    }

    /// The error of one gateway. Where the key lacks the right to read any gateway, the others get
    /// the same error without a request.
    fn refused(&mut self, error: FetchError) -> Arc<FetchError> {
        if error.reason == Reason::TooLarge {
            return Arc::new(error);
        }
        let error = Arc::new(error.of_gateway());
        let progress = &mut self.progress;
        progress.refused += 1;
        let is_suspicious = progress.refused == SUSPICIOUS_GATEWAYS && !progress.is_any_readable;
        if is_suspicious && error.reason == Reason::Forbidden {
            let info = self
                .client
                .key_info(self.server, false, self.request_deadline());
            if info.is_ok_and(|info| !info.missing_rights.is_empty()) {
                self.progress.halted = Some(error.clone());
            }
        }
        error
    }
}

/// Stats say nothing about the gateway if their times of connection cannot be read.
fn outcome_of(stats: ConnectionStats) -> Outcome {
    if stats.tells_state() {
        return Ok(Some(Arc::new(stats)));
    }
    let context = "the time of its connection has an unexpected form";
    let error = FetchError::new(Reason::Field, context);
    Err(Arc::new(error.of_gateway()))
}

/// Whether the key may not read the gateway, or it was deleted.
pub fn is_refusal(error: &FetchError) -> bool {
    error.is_of_gateway && matches!(error.reason, Reason::Forbidden | Reason::NotFound)
}

/// Whether a single gateway is the cause: a right on it, its deletion (a 404 that names it and
/// not the path: `gateway_not_found`), or the length of what it says about itself.
fn is_of_gateway(refused: &CallError) -> bool {
    match refused.status {
        Some(403) => refused.is_of_api,
        Some(404) => refused.is_of_api && refused.name.contains("gateway"),
        _ => refused.error.reason == Reason::TooLarge,
    }
}

/// Whether a status may mean that there are no batches at this path: in the API's words, or in
/// those of a proxy.
fn is_about_path(status: u16, is_of_api: bool) -> bool {
    match is_of_api {
        true => matches!(status, 404 | 405 | 501),
        false => matches!(status, 400..=499),
    }
}
