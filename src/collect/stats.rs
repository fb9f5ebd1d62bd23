//! Which requests bring the stats of many gateways of one cluster: batches of 100, and what
//! to do where a server refuses them.
//!
//! A batch is refused as a whole for the sake of one gateway, for the sake of its size, for
//! the kind of key, or because the server is too old for batches. A refused batch is halved
//! until the gateway at fault stands alone, and what was learnt is remembered for a while. Only
//! a refusal by the API itself counts: a page of a proxy is a failure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::collect::clusters::Cluster;
use crate::collect::target::{LeftOut, Target};
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
/// After so many gateways that cannot be read, and none that can, the key itself is looked at;
/// and after so many that only the single call can read, batches are given up.
const SUSPICIOUS_GATEWAYS: usize = 4;

/// By host: the largest batch that it takes, until when; 1 where only single calls work.
pub type BatchLimits = BTreeMap<String, (usize, Instant)>;

/// One cluster to ask, and how long.
pub struct Question<'a> {
    pub cluster: &'a Cluster,
    /// The Identity Server, which knows the key's rights.
    pub server: &'a BaseUrl,
    pub now: Instant,
    pub deadline: Instant,
    /// For one request: a server that answers may use the whole time, and one that hangs not.
    pub request_time_max: Duration,
}

/// Finds out the state of each of these gateways at one cluster. `found` hears of each outcome
/// at once.
pub fn read_stats(
    limits: &mut BatchLimits,
    client: &mut Client,
    question: &Question<'_>,
    targets: &mut [&mut Target],
    found: &mut dyn FnMut(&mut Target, Outcome),
) {
    let mut run = Run {
        limits,
        client,
        question,
        found,
        halted: None,
        seen: Seen::default(),
    };
    let [mut together, mut alone] = run.sort(targets);
    match together.as_mut_slice() {
        [target] => drop(run.single(target)),
        together => run.in_batches(together),
    }
    for target in &mut alone {
        run.single(target);
    }
    // A limit under which nothing could be read either was not the cure.
    if !run.seen.is_any_readable {
        run.limits.remove(&question.cluster.host);
    }
}

/// One reading of one cluster.
struct Run<'a> {
    limits: &'a mut BatchLimits,
    client: &'a mut Client,
    question: &'a Question<'a>,
    found: &'a mut dyn FnMut(&mut Target, Outcome),
    /// Why nothing more is asked of this cluster in this collection.
    halted: Option<Arc<FetchError>>,
    seen: Seen,
}

/// What a run has met so far.
#[derive(Default)]
struct Seen {
    is_any_readable: bool,
    is_any_batch_readable: bool,
    /// Gateways that were refused, and those that only the single call could read.
    refused: usize,
    alone: usize,
    oversized: usize,
    /// Whether a batch was sent again after a refusal that may have been a stray one.
    has_repeated: bool,
}

/// What to do after a batch.
enum Next {
    /// Each gateway of it has its outcome.
    Done,
    /// The same again, under what was learnt from the refusal.
    Again,
    /// One of its gateways may be the cause.
    Halve,
}

impl Run<'_> {
    /// The gateways that may share a batch, and those to ask alone. Those that were refused
    /// lately keep that outcome.
    fn sort<'t>(&mut self, targets: &'t mut [&mut Target]) -> [Vec<&'t mut Target>; 2] {
        let cluster = self.question.cluster;
        let [mut together, mut alone] = [Vec::new(), Vec::new()];
        for target in targets {
            let Some(LeftOut { refusal, until, .. }) = target.take_left_out(cluster) else {
                together.push(&mut **target);
                continue;
            };
            let is_over = until <= self.question.now;
            if !is_over {
                target.leave_out(cluster, refusal.clone(), until);
            }
            match refusal {
                Some(error) if !is_over => (self.found)(target, Err(error)),
                None if is_over => together.push(&mut **target),
                _ => alone.push(&mut **target),
            }
        }
        [together, alone]
    }

    /// Each round brings outcomes, or makes batches smaller, or is the only repetition.
    fn in_batches(&mut self, targets: &mut [&mut Target]) {
        let mut start = 0;
        while start < targets.len() {
            let end = targets.len().min(start + self.batch_limit());
            let batch = &mut targets[start..end];
            match self.batch(batch) {
                Next::Again => continue,
                Next::Halve => {
                    let (left, right) = batch.split_at_mut(batch.len() / 2);
                    self.in_batches(left);
                    self.in_batches(right);
                }
                Next::Done => {}
            }
            start = end;
        }
    }

    fn batch_limit(&self) -> usize {
        match self.limits.get(&self.question.cluster.host) {
            Some((limit, until)) if self.question.now < *until => *limit,
            _ => BATCH_GATEWAYS_MAX,
        }
    }

    fn limit_batches(&mut self, limit: usize) -> Next {
        let host = self.question.cluster.host.clone();
        let (limit, ttl) = match limit {
            0 | 1 => (1, BATCH_REFUSAL_TTL),
            limit => (limit, BATCH_SIZE_TTL),
        };
        self.limits.insert(host, (limit, self.question.now + ttl));
        Next::Again
    }

    /// Of the next request.
    fn deadline(&self) -> Instant {
        let own = Instant::now() + self.question.request_time_max;
        own.min(self.question.deadline)
    }

    fn batch(&mut self, batch: &mut [&mut Target]) -> Next {
        if self.halted.is_some() || self.batch_limit() == 1 {
            for target in batch {
                self.single(target);
            }
            return Next::Done;
        }
        let (cluster, deadline) = (self.question.cluster, self.deadline());
        let ids: Vec<&str> = batch.iter().map(|target| target.id()).collect();
        match self.client.stats_batch(cluster, &ids, deadline) {
            Ok(entries) => self.keep(batch, entries),
            Err(refused) => self.after_refusal(batch, refused),
        }
    }

    fn keep(
        &mut self,
        batch: &mut [&mut Target],
        mut entries: BTreeMap<String, ConnectionStats>,
    ) -> Next {
        self.seen.is_any_readable = true;
        self.seen.is_any_batch_readable = true;
        for target in batch {
            target.take_left_out(self.question.cluster);
            // Taken, not removed: that would be 3 kB more of the binary.
            let stats = entries.get_mut(target.id()).map(std::mem::take);
            (self.found)(target, stats.map_or(Ok(None), outcome_of));
        }
        Next::Done
    }

    fn after_refusal(&mut self, batch: &mut [&mut Target], refused: CallError) -> Next {
        match refused.status {
            _ if is_of_gateway(&refused) && self.seen.oversized < OVERSIZED_MAX => {
                let is_oversized = refused.error.reason == Reason::TooLarge;
                self.seen.oversized += usize::from(is_oversized && !self.seen.is_any_readable);
                self.halve(batch)
            }
            // What a proxy answers once, it need not answer twice; and a server that seems to
            // know no batches is asked again.
            Some(status) if is_about_path(status, refused.is_of_api) && !self.seen.has_repeated => {
                self.seen.has_repeated = true;
                Next::Again
            }
            Some(413) => self.limit_batches(batch.len() / 2),
            Some(400) if refused.is_of_api => self.limit_batches(batch.len() / 2),
            Some(404 | 405 | 501) if refused.is_of_api => self.limit_batches(1),
            _ => {
                self.halted = Some(Arc::new(refused.error));
                Next::Again
            }
        }
    }

    /// What a batch of one cannot read is asked alone from now on. Where the single call can read
    /// many of those, batches as such do not work: for the key of a gateway, or on servers before
    /// 3.28.2 for rights through user and organization.
    fn halve(&mut self, batch: &mut [&mut Target]) -> Next {
        let [target] = batch else {
            return Next::Halve;
        };
        target.leave_out(self.question.cluster, None, self.question.now + ALONE_TTL);
        self.seen.alone += usize::from(self.single(target));
        if self.seen.alone >= SUSPICIOUS_GATEWAYS && !self.seen.is_any_batch_readable {
            self.limit_batches(1);
        }
        Next::Done
    }

    /// Asks for one gateway, if anything may still be asked; says whether it could be read.
    fn single(&mut self, target: &mut Target) -> bool {
        let outcome = match &self.halted {
            Some(error) => Err(error.clone()),
            None => self.ask_alone(target.id()),
        };
        let is_readable = outcome.is_ok();
        if let Err(error) = &outcome
            && is_refusal(error)
        {
            let until = self.question.now + REFUSAL_TTL;
            target.leave_out(self.question.cluster, Some(error.clone()), until);
        }
        (self.found)(target, outcome);
        is_readable
    }

    fn ask_alone(&mut self, id: &str) -> Outcome {
        let (cluster, deadline) = (self.question.cluster, self.deadline());
        let outcome = match self.client.stats(cluster, id, deadline) {
            Ok(stats) => outcome_of(stats),
            Err(refused) if refused.name == "not_connected" => Ok(None),
            Err(refused) if is_of_gateway(&refused) => return Err(self.refused(refused.error)),
            Err(refused) => {
                let error = Arc::new(refused.error);
                self.halted = Some(error.clone());
                return Err(error);
            }
        };
        self.seen.is_any_readable = true;
        outcome
    }

    /// The error of one gateway. Where the key lacks the right as such, that is the error of all
    /// of them, without a request for each.
    fn refused(&mut self, error: FetchError) -> Arc<FetchError> {
        if error.reason == Reason::TooLarge {
            return Arc::new(error);
        }
        let error = Arc::new(error.of_gateway());
        self.seen.refused += 1;
        let is_suspicious = self.seen.refused == SUSPICIOUS_GATEWAYS && !self.seen.is_any_readable;
        if is_suspicious && error.reason == Reason::Forbidden {
            let (server, deadline) = (self.question.server, self.deadline());
            let info = self.client.key_info(server, false, deadline);
            if info.is_ok_and(|info| !info.missing_rights.is_empty()) {
                self.halted = Some(error.clone());
            }
        }
        error
    }
}

/// Stats whose decisive times cannot be read say nothing about the gateway.
fn outcome_of(stats: ConnectionStats) -> Outcome {
    match stats.tells_state() {
        true => Ok(Some(Arc::new(stats))),
        false => {
            let context = "the time of its connection has an unexpected form";
            Err(Arc::new(
                FetchError::new(Reason::Field, context).of_gateway(),
            ))
        }
    }
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
