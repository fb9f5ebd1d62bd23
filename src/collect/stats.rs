//! Which requests bring the stats of many gateways of one cluster: batches of 100, and what
//! to do where a server refuses them.
//!
//! A batch is refused as a whole for the sake of one gateway, for the sake of its size, for
//! the kind of key, or because the server is too old for batches. A refused batch is halved
//! until the gateway at fault stands alone, and what was learnt is remembered for a while. Only
//! a refusal by the API itself counts: a page of a proxy is a failure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{FetchError, Reason};
use crate::model::{ConnectionStats, Gateway, Outcome};
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

/// What was learnt from refusals, for the next time.
#[derive(Default)]
pub struct StatsReader {
    /// By host: the largest batch that it takes, until when; 1 where only single calls work.
    batch_limits: BTreeMap<String, (usize, Instant)>,
    /// By id: the gateways that are left out of batches, which they would spoil.
    left_out: HashMap<String, LeftOut>,
}

enum LeftOut {
    /// It was refused alone, too.
    Refused(Arc<FetchError>, Instant),
    /// It has to be asked alone until then.
    Alone(Instant),
}

/// One cluster to ask, for whom and how long.
pub struct Question<'a> {
    pub cluster: &'a BaseUrl,
    pub gateways: &'a [Arc<Gateway>],
    /// The Identity Server, which knows the key's rights.
    pub server: &'a BaseUrl,
    pub now: Instant,
    pub deadline: Instant,
}

impl StatsReader {
    /// Forgets gateways that are no longer watched, so that the memory stays bounded.
    pub fn retain(&mut self, is_watched: impl Fn(&str) -> bool) {
        self.left_out.retain(|id, _| is_watched(id));
    }

    /// Finds out the state of each of these gateways at one cluster. `found` hears of each
    /// outcome at once.
    pub fn read(
        &mut self,
        client: &mut Client,
        question: &Question<'_>,
        found: &mut dyn FnMut(&Gateway, Outcome),
    ) {
        let mut run = Run {
            reader: self,
            client,
            question,
            found,
            halted: None,
            seen: Seen::default(),
        };
        let (together, alone) = run.without_refused();
        match together.as_slice() {
            [gateway] => drop(run.single(gateway)),
            together => run.in_batches(together),
        }
        for gateway in alone {
            run.single(&gateway);
        }
        // A limit under which nothing could be read either was not the cure.
        if !run.seen.is_any_readable {
            self.batch_limits.remove(&question.cluster.host);
        }
    }
}

/// One reading of one cluster.
struct Run<'a> {
    reader: &'a mut StatsReader,
    client: &'a mut Client,
    question: &'a Question<'a>,
    found: &'a mut dyn FnMut(&Gateway, Outcome),
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
    fn without_refused(&mut self) -> (Vec<Arc<Gateway>>, Vec<Arc<Gateway>>) {
        let (mut together, mut alone) = (Vec::new(), Vec::new());
        for gateway in self.question.gateways {
            match self.reader.left_out.get(&gateway.gateway_id) {
                Some(LeftOut::Refused(error, until)) if self.question.now < *until => {
                    (self.found)(gateway, Err(error.clone()));
                }
                Some(LeftOut::Alone(until)) if self.question.now >= *until => {
                    together.push(gateway.clone());
                }
                Some(_) => alone.push(gateway.clone()),
                None => together.push(gateway.clone()),
            }
        }
        (together, alone)
    }

    /// Each round brings outcomes, or makes batches smaller, or is the only repetition.
    fn in_batches(&mut self, gateways: &[Arc<Gateway>]) {
        let mut rest = gateways;
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(rest.len().min(self.batch_limit()));
            match self.batch(batch) {
                Next::Done => rest = after,
                Next::Again => {}
                Next::Halve => {
                    let (left, right) = batch.split_at(batch.len() / 2);
                    self.in_batches(left);
                    self.in_batches(right);
                    rest = after;
                }
            }
        }
    }

    fn batch_limit(&self) -> usize {
        match self.reader.batch_limits.get(&self.question.cluster.host) {
            Some((limit, until)) if self.question.now < *until => *limit,
            _ => BATCH_GATEWAYS_MAX,
        }
    }

    fn limit_batches(&mut self, limit: usize, ttl: Duration) -> Next {
        let host = self.question.cluster.host.clone();
        let limit = (limit.max(1), self.question.now + ttl);
        self.reader.batch_limits.insert(host, limit);
        Next::Again
    }

    fn batch(&mut self, batch: &[Arc<Gateway>]) -> Next {
        if self.halted.is_some() || self.batch_limit() == 1 {
            for gateway in batch {
                self.single(gateway);
            }
            return Next::Done;
        }
        let ids: Vec<&str> = batch.iter().map(|gateway| &*gateway.gateway_id).collect();
        let question = self.question;
        let answer = self
            .client
            .stats_batch(question.cluster, &ids, question.deadline);
        match answer {
            Ok(entries) => self.keep(batch, entries),
            Err(refused) => self.after_refusal(batch, refused),
        }
    }

    fn keep(
        &mut self,
        batch: &[Arc<Gateway>],
        mut entries: BTreeMap<String, ConnectionStats>,
    ) -> Next {
        self.seen.is_any_readable = true;
        self.seen.is_any_batch_readable = true;
        for gateway in batch {
            self.reader.left_out.remove(&gateway.gateway_id);
            // Taken, not removed: that would be 3 kB more of the binary.
            let stats = entries.get_mut(&gateway.gateway_id).map(std::mem::take);
            (self.found)(gateway, stats.map_or(Ok(None), outcome_of));
        }
        Next::Done
    }

    fn after_refusal(&mut self, batch: &[Arc<Gateway>], refused: CallError) -> Next {
        match refused.status {
            Some(413) => self.limit_batches(batch.len() / 2, BATCH_SIZE_TTL),
            Some(400) if refused.is_of_api => self.limit_batches(batch.len() / 2, BATCH_SIZE_TTL),
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
            Some(404 | 405 | 501) if refused.is_of_api => self.limit_batches(1, BATCH_REFUSAL_TTL),
            _ => {
                self.halted = Some(Arc::new(refused.error));
                Next::Again
            }
        }
    }

    /// If the single call can read what a batch of one cannot, the gateway is asked alone from
    /// now on. Where that happens to many, batches as such do not work: for the key of a
    /// gateway, or on servers before 3.28.2 for rights through user and organization.
    fn halve(&mut self, batch: &[Arc<Gateway>]) -> Next {
        let [gateway] = batch else {
            return Next::Halve;
        };
        if self.single(gateway) {
            let alone = LeftOut::Alone(self.question.now + ALONE_TTL);
            self.reader
                .left_out
                .insert(gateway.gateway_id.clone(), alone);
            self.seen.alone += 1;
        }
        if self.seen.alone >= SUSPICIOUS_GATEWAYS && !self.seen.is_any_batch_readable {
            self.limit_batches(1, BATCH_REFUSAL_TTL);
        }
        Next::Done
    }

    /// Asks for one gateway, if anything may still be asked; says whether it could be read.
    fn single(&mut self, gateway: &Gateway) -> bool {
        let outcome = match &self.halted {
            Some(error) => Err(error.clone()),
            None => self.single_outcome(&gateway.gateway_id),
        };
        let is_readable = outcome.is_ok();
        (self.found)(gateway, outcome);
        is_readable
    }

    fn single_outcome(&mut self, id: &str) -> Outcome {
        let question = self.question;
        let answer = self.client.stats(question.cluster, id, question.deadline);
        let outcome = match answer {
            Ok(stats) => outcome_of(stats),
            Err(refused) if refused.name == "not_connected" => Ok(None),
            Err(refused) if is_of_gateway(&refused) => return Err(self.refuse(id, refused.error)),
            Err(refused) => {
                let error = Arc::new(refused.error);
                self.halted = Some(error.clone());
                return Err(error);
            }
        };
        self.seen.is_any_readable = true;
        if let Some(LeftOut::Refused(..)) = self.reader.left_out.get(id) {
            self.reader.left_out.remove(id);
        }
        outcome
    }

    /// Remembers that a gateway spoils a batch: because the key may not read it, or because its
    /// answer is too long, which is no refusal and may be better soon.
    fn refuse(&mut self, id: &str, error: FetchError) -> Arc<FetchError> {
        let until = self.question.now + REFUSAL_TTL;
        if error.reason == Reason::TooLarge {
            self.reader
                .left_out
                .insert(id.to_owned(), LeftOut::Alone(until));
            return Arc::new(error);
        }
        let error = Arc::new(error.of_gateway());
        let refused = LeftOut::Refused(error.clone(), until);
        self.reader.left_out.insert(id.to_owned(), refused);
        self.seen.refused += 1;
        if self.seen.refused == SUSPICIOUS_GATEWAYS
            && !self.seen.is_any_readable
            && error.reason == Reason::Forbidden
        {
            self.look_at_the_key(&error);
        }
        error
    }

    /// If the key lacks the right as such, all are refused without asking for each of them.
    fn look_at_the_key(&mut self, error: &Arc<FetchError>) {
        let question = self.question;
        let info = self
            .client
            .key_info(question.server, false, question.deadline);
        if info.is_ok_and(|info| !info.missing_rights.is_empty()) {
            self.halted = Some(error.clone());
            let until = question.now + REFUSAL_TTL;
            for gateway in question.gateways {
                let refused = LeftOut::Refused(error.clone(), until);
                self.reader
                    .left_out
                    .insert(gateway.gateway_id.clone(), refused);
            }
        }
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
