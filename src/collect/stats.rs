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

/// What was learnt of clusters and gateways from their refusals.
#[derive(Default)]
pub struct StatsReader {
    hosts: BTreeMap<String, Host>,
    gateways: HashMap<Arc<str>, Lesson>,
}

#[derive(Default)]
struct Host {
    /// The largest batch that it takes, until when; 1 where only single calls work.
    batch_limit: Option<(usize, Instant)>,
    /// Whether it has refused a batch as such, and taken none since.
    has_refused_batch: bool,
    /// Why the key cannot read any gateway there, until when.
    unreadable: Option<(Arc<FetchError>, Instant)>,
}

/// Why a gateway is left out of batches, which it would spoil.
enum Lesson {
    /// It was refused alone, too.
    Refused(Arc<FetchError>, Instant),
    /// The single call can read it.
    Alone(Instant),
}

/// One cluster to ask, for whom and how long.
pub struct Question<'a> {
    pub base: &'a BaseUrl,
    pub gateway_ids: &'a [Arc<str>],
    /// The Identity Server, which knows the key's rights.
    pub server: &'a BaseUrl,
    pub now: Instant,
    pub deadline: Instant,
}

impl StatsReader {
    /// Forgets gateways that are no longer watched, so that the memory stays bounded.
    pub fn retain(&mut self, is_watched: impl Fn(&str) -> bool) {
        self.gateways.retain(|id, _| is_watched(id));
    }

    /// Finds out the state of each of these gateways at one cluster. `found` hears of each
    /// outcome at once.
    pub fn read(
        &mut self,
        client: &mut Client,
        question: &Question<'_>,
        found: &mut dyn FnMut(&Arc<str>, Outcome),
    ) {
        let host = self.hosts.entry(question.base.host.clone()).or_default();
        let halted = match &host.unreadable {
            Some((error, until)) if question.now < *until => Some(error.clone()),
            _ => None,
        };
        let mut run = Run {
            host,
            gateways: &mut self.gateways,
            client,
            question,
            found,
            halted,
            refused: 0,
            alone: 0,
            oversized: 0,
            has_read_any: false,
            has_read_batch: false,
            has_repeated: false,
            has_doubted: false,
        };
        let (alone, together) = run.sort_out();
        run.in_batches(&together);
        for id in alone {
            run.single(&id);
        }
        // A limit under which nothing could be read either was not the cure.
        if !run.has_read_any {
            run.host.batch_limit = None;
        }
    }
}

/// What is left to do for a slice.
enum Next<'s> {
    Done,
    /// The same slice, under what was learnt from its refusal.
    Again,
    /// These parts of it, in this order.
    Divide(Vec<&'s [Arc<str>]>),
}

/// One reading of one cluster.
struct Run<'a> {
    host: &'a mut Host,
    gateways: &'a mut HashMap<Arc<str>, Lesson>,
    client: &'a mut Client,
    question: &'a Question<'a>,
    found: &'a mut dyn FnMut(&Arc<str>, Outcome),
    /// Why nothing more is asked of this cluster in this collection.
    halted: Option<Arc<FetchError>>,
    /// Gateways that were refused, and those that only the single call could read.
    refused: usize,
    alone: usize,
    oversized: usize,
    has_read_any: bool,
    has_read_batch: bool,
    /// Whether a batch was sent again because a proxy answered it.
    has_repeated: bool,
    has_doubted: bool,
}

impl Run<'_> {
    /// Answers for the gateways that are to be left alone, and parts the others into those
    /// to ask for one by one and those that may share a batch.
    fn sort_out(&mut self) -> (Vec<Arc<str>>, Vec<Arc<str>>) {
        let mut alone = Vec::new();
        let mut together = Vec::new();
        for id in self.question.gateway_ids {
            match self.gateways.get(id) {
                None => together.push(id.clone()),
                Some(Lesson::Refused(error, until)) if self.question.now < *until => {
                    (self.found)(id, Err(error.clone()));
                }
                Some(Lesson::Alone(until)) if self.question.now >= *until => {
                    together.push(id.clone());
                }
                Some(_) => alone.push(id.clone()),
            }
        }
        (alone, together)
    }

    fn in_batches(&mut self, gateway_ids: &[Arc<str>]) {
        let mut rest = gateway_ids;
        // The parts of a batch that was refused, the next one last.
        let mut parts: Vec<&[Arc<str>]> = Vec::new();
        // Each round answers for a slice, or makes it smaller, or is one of the few repetitions:
        // at most two rounds per gateway and three more.
        loop {
            let before = rest;
            let part = parts.pop();
            let is_part = part.is_some();
            let Some(slice) = part.or_else(|| self.cut_batch(&mut rest)) else {
                return;
            };
            match self.slice(slice, gateway_ids.len()) {
                Next::Done => {}
                Next::Divide(smaller) => parts.extend(smaller.into_iter().rev()),
                Next::Again if is_part => parts.push(slice),
                Next::Again => rest = before,
            }
        }
    }

    /// The next batch of what has not been asked for yet.
    fn cut_batch<'s>(&self, rest: &mut &'s [Arc<str>]) -> Option<&'s [Arc<str>]> {
        let (batch, after) = rest.split_at(rest.len().min(self.batch_limit()));
        *rest = after;
        (!batch.is_empty()).then_some(batch)
    }

    fn slice<'s>(&mut self, slice: &'s [Arc<str>], total: usize) -> Next<'s> {
        let limit = self.batch_limit();
        if self.halted.is_some() || limit == 1 || total == 1 {
            for id in slice {
                self.single(id);
            }
            return Next::Done;
        }
        match slice.len() > limit {
            true => Next::Divide(slice.chunks(limit).collect()),
            false => self.batch(slice),
        }
    }

    fn batch_limit(&self) -> usize {
        match self.host.batch_limit {
            Some((limit, until)) if self.question.now < until => limit,
            _ => BATCH_GATEWAYS_MAX,
        }
    }

    fn batch<'s>(&mut self, slice: &'s [Arc<str>]) -> Next<'s> {
        let ids: Vec<&str> = slice.iter().map(AsRef::as_ref).collect();
        let question = self.question;
        let refused = match self
            .client
            .stats_batch(question.base, &ids, question.deadline)
        {
            Ok(entries) => {
                self.keep(slice, entries);
                return Next::Done;
            }
            Err(refused) => refused,
        };
        match refused.status {
            Some(413) => self.limit_batches((slice.len() / 2).max(1)),
            Some(400) if refused.is_of_api => self.limit_batches((slice.len() / 2).max(1)),
            Some(404) if refused.is_of_api && !names_a_gateway(&refused) => self.doubt_batches(),
            Some(405 | 501) if refused.is_of_api => self.doubt_batches(),
            Some(403 | 404) if refused.is_of_api => return self.divide(slice),
            // What a proxy answers once, it need not answer twice.
            Some(400..=499) if !refused.is_of_api && !self.has_repeated => self.has_repeated = true,
            _ if refused.error.reason == Reason::TooLarge && self.oversized < OVERSIZED_MAX => {
                // One gateway can make it so, by what it sends about itself.
                self.oversized += usize::from(!self.has_read_any);
                return self.divide(slice);
            }
            _ => self.halted = Some(Arc::new(refused.error)),
        }
        Next::Again
    }

    fn limit_batches(&mut self, limit: usize) {
        self.host.batch_limit = Some((limit, self.question.now + BATCH_SIZE_TTL));
    }

    /// The server refused a batch as such. After the second time it is asked one by one.
    fn doubt_batches(&mut self) {
        if self.host.has_refused_batch {
            self.host.batch_limit = Some((1, self.question.now + BATCH_REFUSAL_TTL));
        }
        self.host.has_refused_batch = true;
    }

    fn keep(&mut self, slice: &[Arc<str>], mut entries: BTreeMap<String, ConnectionStats>) {
        self.has_read_any = true;
        self.has_read_batch = true;
        self.host.has_refused_batch = false;
        for id in slice {
            self.gateways.remove(id);
            // Taken, not removed: that would be 3 kB more of the binary.
            let stats = entries.get_mut(id.as_ref()).map(std::mem::take);
            let outcome = stats.map_or(Ok(None), outcome_of);
            (self.found)(id, outcome);
        }
    }

    /// A batch of one that was refused: if the single call works, this gateway is asked alone
    /// from now on. Where that happens to many, batches as such do not work: for the key of a
    /// gateway, or on servers before 3.28.2 for rights through user and organization.
    fn divide<'s>(&mut self, slice: &'s [Arc<str>]) -> Next<'s> {
        if let [id] = slice {
            if self.single(id) {
                let until = self.question.now + ALONE_TTL;
                self.gateways.insert(id.clone(), Lesson::Alone(until));
                self.alone += 1;
            }
            if self.alone >= SUSPICIOUS_GATEWAYS && !self.has_read_batch {
                self.host.batch_limit = Some((1, self.question.now + BATCH_REFUSAL_TTL));
            }
            return Next::Done;
        }
        let (left, right) = slice.split_at(slice.len() / 2);
        Next::Divide(vec![left, right])
    }

    /// Asks for one gateway, if anything may still be asked; says whether it could be read.
    fn single(&mut self, id: &Arc<str>) -> bool {
        let outcome = match &self.halted {
            Some(error) => Err(error.clone()),
            None => self.single_outcome(id),
        };
        let is_readable = outcome.is_ok();
        (self.found)(id, outcome);
        is_readable
    }

    fn single_outcome(&mut self, id: &Arc<str>) -> Outcome {
        let question = self.question;
        let refused = match self.client.stats(question.base, id, question.deadline) {
            Ok(stats) => {
                self.is_readable(id);
                return outcome_of(stats);
            }
            Err(refused) if refused.name == "not_connected" => {
                self.is_readable(id);
                return Ok(None);
            }
            Err(refused) => refused,
        };
        let is_of_gateway = match refused.status {
            Some(403) => refused.is_of_api,
            Some(404) => refused.is_of_api && names_a_gateway(&refused),
            _ => refused.error.reason == Reason::TooLarge,
        };
        match is_of_gateway {
            true => {
                let error = Arc::new(refused.error.of_gateway());
                self.refuse(id, &error);
                Err(error)
            }
            false => {
                let error = Arc::new(refused.error);
                self.halted = Some(error.clone());
                Err(error)
            }
        }
    }

    fn is_readable(&mut self, id: &Arc<str>) {
        self.has_read_any = true;
        if let Some(Lesson::Refused(..)) = self.gateways.get(id) {
            self.gateways.remove(id);
        }
    }

    fn refuse(&mut self, id: &Arc<str>, error: &Arc<FetchError>) {
        let until = self.question.now + REFUSAL_TTL;
        self.gateways
            .insert(id.clone(), Lesson::Refused(error.clone(), until));
        self.refused += 1;
        if self.refused >= SUSPICIOUS_GATEWAYS && !self.has_read_any && !self.has_doubted {
            self.has_doubted = true;
            self.doubt_the_key(error);
        }
    }

    /// Nothing could be read so far: if the key lacks the right as such, asking for each
    /// gateway is a waste.
    fn doubt_the_key(&mut self, error: &Arc<FetchError>) {
        let question = self.question;
        if error.reason != Reason::Forbidden {
            return;
        }
        let info = self
            .client
            .key_info(question.server, false, question.deadline);
        if info.is_ok_and(|info| !info.missing_rights.is_empty()) {
            let until = question.now + REFUSAL_TTL;
            self.host.unreadable = Some((error.clone(), until));
            self.halted = Some(error.clone());
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

/// Whether a 404 is about a gateway and not about the path: `gateway_not_found`.
fn names_a_gateway(refused: &CallError) -> bool {
    refused.name.contains("gateway")
}
