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

use crate::collect::Scrape;
use crate::collect::known::Known;
use crate::collect::target::{Answer, Cluster, Target};
use crate::error::{FetchError, Reason};
use crate::model::{ConnectionStats, Outcome};
use crate::things_stack::{BaseUrl, CallError, Client};

/// The most gateways in one batch (BatchGetGatewayConnectionStatsRequest).
const BATCH_GATEWAYS_MAX: usize = 100;
/// How long a server that takes only small batches gets no larger ones.
const BATCH_SIZE_TTL: Duration = Duration::from_secs(600);
/// How long a server that knows no batches is asked gateway by gateway: it may be a stray answer.
const BATCH_REFUSAL_TTL: Duration = Duration::from_secs(30);
/// After so many answers that are too long, and none that can be read, nothing more is asked.
const OVERSIZED_MAX: usize = 16;
/// After so many gateways that were refused, and none that could be read, the rights of the key are
/// asked for. After so many that only the single call could read, batches are given up.
const SUSPICIOUS_GATEWAYS: usize = 4;

/// The largest batch that a cluster takes, until when; 1 where only single calls work.
pub type BatchLimits = BTreeMap<Cluster, (usize, Instant)>;

/// Reads the stats of gateways at one cluster.
pub struct StatsReader<'a> {
    pub client: &'a mut Client,
    /// Is told at once who is connected.
    pub known: &'a Known,
    pub limits: &'a mut BatchLimits,
    pub cluster: &'a Cluster,
    /// Its host.
    pub host: Arc<str>,
    /// The Identity Server, which knows the key's rights.
    pub server: &'a BaseUrl,
    pub scrape: &'a Scrape,
    /// For one request: a server that answers may use the whole time, and one that hangs not.
    pub request_time_max: Duration,
    pub progress: Progress,
}

/// What a reader has met so far.
#[derive(Default)]
pub struct Progress {
    /// Why nothing more is asked of this cluster in this collection.
    halted: Option<Arc<FetchError>>,
    is_any_readable: bool,
    /// Gateways that only the single call could read, since a batch could be read.
    alone: usize,
    /// Gateways that were refused, and answers to batches that were too long.
    refused: usize,
    oversized: usize,
    /// Whether there is no such host, or it does not know the key.
    is_no_cluster: bool,
    /// Whether a batch was sent again after a refusal that may have been a stray one.
    has_repeated: bool,
}

impl StatsReader<'_> {
    /// Reads the state of each of these gateways. Those that were refused lately stay so. Returns
    /// whether it is a cluster with gateways of this key, if that can be told: it answers, or there is
    /// no such host, or it does not know the key.
    pub fn read(&mut self, wanted: Vec<&mut Target>) -> Option<bool> {
        let [mut together, mut alone] = [Vec::new(), Vec::new()];
        for target in wanted {
            match target.answer(self.cluster) {
                Some(Answer {
                    said: Some((_, Err(error))),
                    ..
                }) => target.fail(&self.host, error.clone()),
                Some(answer) if answer.alone_until.is_some() => alone.push(target),
                _ => together.push(target),
            }
        }
        if together.len() == 1 {
            alone.append(&mut together);
        }
        self.read_batches(&mut together);
        for target in alone {
            self.read_alone(target);
        }
        // A limit that did not help is not kept.
        if self.progress.is_any_readable {
            return Some(true);
        }
        self.limits.remove(self.cluster);
        self.progress.is_no_cluster.then_some(false)
    }

    fn read_batches(&mut self, mut targets: &mut [&mut Target]) {
        while !targets.is_empty() {
            let limit = self.batch_limit();
            let (batch, rest) = targets.split_at_mut(limit.min(targets.len()));
            match batch {
                [target] if limit == 1 => self.read_alone(target),
                _ => self.read_batch(batch),
            }
            targets = rest;
        }
    }

    fn batch_limit(&self) -> usize {
        match self.limits.get(self.cluster) {
            _ if self.progress.halted.is_some() => 1,
            Some((limit, until)) if self.scrape.now < *until => *limit,
            _ => BATCH_GATEWAYS_MAX,
        }
    }

    fn limit_batches(&mut self, limit: usize) {
        let ttl = if limit > 1 {
            BATCH_SIZE_TTL
        } else {
            BATCH_REFUSAL_TTL
        };
        let limit = (limit.max(1), self.scrape.now + ttl);
        self.limits.insert(self.cluster.clone(), limit);
    }

    /// When the next request has to end.
    fn request_deadline(&self) -> Instant {
        let deadline = Instant::now() + self.request_time_max;
        deadline.min(self.scrape.deadline)
    }

    fn read_batch(&mut self, batch: &mut [&mut Target]) {
        let deadline = self.request_deadline();
        let ids: Vec<&str> = batch.iter().map(|target| target.id()).collect();
        let mut entries = match self.client.stats_batch(self.cluster, &ids, deadline) {
            Ok(entries) => entries,
            Err(refused) => return self.after_refusal(batch, refused),
        };
        self.progress.is_any_readable = true;
        self.progress.alone = 0;
        for target in batch {
            // Taken, not removed: that would be 3 kB more of the binary.
            let stats = entries.get_mut(target.id()).map(std::mem::take);
            self.tell(target, stats.map_or(Ok(None), outcome_of));
        }
    }

    /// Learns from the refusal, and asks for the same gateways again. That ends: each refusal makes
    /// the batches smaller or ends all requests, and one alone is repeated as it is.
    fn after_refusal(&mut self, batch: &mut [&mut Target], refused: CallError) {
        let progress = &mut self.progress;
        progress.is_no_cluster |= refused.is_no_cluster();
        progress.oversized += usize::from(refused.error.reason == Reason::TooLarge);
        let is_hopeless = progress.oversized > OVERSIZED_MAX && !progress.is_any_readable;
        let has_no_batches = refused.is_unknown_call();
        // A page of a proxy may be a stray one, and so may a sign that there are no batches.
        let may_be_stray = has_no_batches || refused.is_of_proxy();
        if refused.is_of_gateway() && !is_hopeless {
            return self.halve(batch);
        } else if may_be_stray && !progress.has_repeated {
            progress.has_repeated = true;
        } else if has_no_batches {
            self.limit_batches(1);
        } else if refused.may_be_of_size() {
            self.limit_batches(batch.len() / 2);
        } else {
            progress.halted = Some(Arc::new(refused.error));
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
        target.leave_batches(self.cluster, self.scrape.now);
        self.read_alone(target);
        if self.progress.alone >= SUSPICIOUS_GATEWAYS {
            self.limit_batches(1);
        }
    }

    /// Asks for one gateway, if anything may still be asked.
    fn read_alone(&mut self, target: &mut Target) {
        let outcome = match self.progress.halted.clone() {
            Some(error) => Err(error),
            None => self.single_call(target),
        };
        self.tell(target, outcome);
    }

    fn single_call(&mut self, target: &mut Target) -> Outcome {
        let deadline = self.request_deadline();
        match self.client.stats(self.cluster, target.id(), deadline) {
            Err(refused) => Err(self.refuse(target, refused)),
            Ok(stats) => {
                self.progress.is_any_readable = true;
                self.progress.alone += 1;
                stats.map_or(Ok(None), outcome_of)
            }
        }
    }

    /// The error of one gateway. Where the key lacks the right to read any gateway, or something
    /// else fails, the others get the same error without a request.
    fn refuse(&mut self, target: &mut Target, refused: CallError) -> Arc<FetchError> {
        self.progress.is_no_cluster |= refused.is_no_cluster();
        if !refused.is_of_gateway() {
            let error = Arc::new(refused.error);
            self.progress.halted = Some(error.clone());
            return error;
        }
        if refused.error.reason == Reason::TooLarge {
            return Arc::new(refused.error);
        }
        let error = Arc::new(refused.error.of_gateway());
        target.leave_batches(self.cluster, self.scrape.now);
        let progress = &mut self.progress;
        progress.refused += 1;
        let is_suspicious = progress.refused == SUSPICIOUS_GATEWAYS && !progress.is_any_readable;
        if is_suspicious && error.reason == Reason::Forbidden {
            let deadline = self.request_deadline();
            let info = self.client.key_info(self.server, false, deadline);
            if info.is_ok_and(|info| !info.missing_rights.is_empty()) {
                self.progress.halted = Some(error.clone());
            }
        }
        error
    }

    /// A gateway that is connected is known at once; of another one its target keeps what was said.
    fn tell(&mut self, target: &mut Target, outcome: Outcome) {
        match outcome {
            Ok(Some(stats)) if stats.is_connected() => {
                target.found(self.cluster);
                let stats = Ok(Some(stats));
                self.known
                    .insert(target.id(), self.host.clone(), stats, self.scrape.now);
            }
            Ok(stats) => target.denied(self.cluster, stats, self.scrape.now),
            Err(error) if is_refusal(&error) => {
                let said = Err(error.clone());
                target.answer_mut(self.cluster).said = Some((self.scrape.now, said));
                target.fail(&self.host, error);
            }
            // Cut off by the scrape: those who have more time may get an answer.
            Err(error) if error.reason == Reason::Timeout && self.scrape.time_left().is_zero() => {
                let cut = FetchError::new(Reason::Budget, error.context.as_str());
                target.fail(&self.host, Arc::new(cut));
                target.is_settled = true;
            }
            Err(error) => target.fail(&self.host, error),
        }
    }
}

/// Stats say nothing about the gateway if their times of connection cannot be read.
fn outcome_of(stats: ConnectionStats) -> Outcome {
    if stats.tells_state {
        return Ok(Some(Arc::new(stats)));
    }
    let context = "the times of its connection are not set, or have an unexpected form";
    let error = FetchError::new(Reason::Field, context);
    Err(Arc::new(error.of_gateway()))
}

/// Whether the key may not read the gateway, or it was deleted.
pub fn is_refusal(error: &FetchError) -> bool {
    error.is_of_gateway && matches!(error.reason, Reason::Forbidden | Reason::NotFound)
}
