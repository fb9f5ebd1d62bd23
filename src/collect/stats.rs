//! Which requests bring the stats of many gateways of one cluster: batches of 100, and what
//! to do where a server refuses them.
//!
//! A batch is refused as a whole for the sake of one gateway, for the sake of its size, for
//! the kind of key, or because the server is too old for batches. A refused batch is halved
//! until the gateway at fault stands alone, and what was learnt is remembered for a while.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::collect::ttl_map::TtlMap;
use crate::error::{FetchError, Reason};
use crate::model::{ConnectionStats, Outcome};
use crate::things_stack::BaseUrl;
use crate::things_stack::CallError;
use crate::things_stack::Client;

/// The most gateways in one batch (BatchGetGatewayConnectionStatsRequest).
const BATCH_GATEWAYS_MAX: usize = 100;
/// How long a server that cannot do batches, or only small ones, is asked accordingly.
const BATCH_LIMIT_TTL: Duration = Duration::from_secs(600);
/// After so many answers that are too long, and none that can be read, nothing more is asked.
const OVERSIZED_MAX: usize = 16;
/// How long a gateway that the key may not read is left alone.
const REFUSAL_TTL: Duration = Duration::from_secs(300);
/// After so many gateways that cannot be read, and none that can, the key itself is looked at.
const REFUSALS_BEFORE_DOUBT: usize = 4;
/// The community network has three clusters. With more hosts the oldest is forgotten.
const HOSTS_MAX: usize = 64;

pub struct StatsReader {
    /// The largest batch that a host takes; 1 where only single calls work.
    batch_limits: TtlMap<String, usize>,
    /// Hosts where the key cannot read the stats of any gateway.
    unreadable_hosts: TtlMap<String, Arc<FetchError>>,
    /// Gateways that were refused alone. They never go into a batch again, or they would
    /// spoil it: once the time is over they are asked for one by one.
    refused: HashMap<Arc<str>, Refusal>,
}

struct Refusal {
    error: Arc<FetchError>,
    until: Instant,
}

impl StatsReader {
    pub fn new() -> StatsReader {
        StatsReader {
            batch_limits: TtlMap::new(BATCH_LIMIT_TTL, HOSTS_MAX),
            unreadable_hosts: TtlMap::new(REFUSAL_TTL, HOSTS_MAX),
            refused: HashMap::new(),
        }
    }

    /// Forgets gateways that are no longer watched, so that the memory stays bounded.
    pub fn retain(&mut self, is_watched: impl Fn(&str) -> bool) {
        self.refused.retain(|id, _| is_watched(id));
    }

    /// Finds out the state of each of these gateways of one cluster, by `deadline`.
    pub fn read(
        &mut self,
        client: &mut Client,
        base: &BaseUrl,
        gateway_ids: &[Arc<str>],
        now: Instant,
        deadline: Instant,
    ) -> Vec<(Arc<str>, Outcome)> {
        let mut run = Run {
            halted: self.unreadable_hosts.get(&base.host, now).cloned(),
            reader: self,
            client,
            base,
            now,
            deadline,
            outcomes: Vec::with_capacity(gateway_ids.len()),
            refusals: 0,
            oversized: 0,
            has_read_any: false,
            has_doubted: false,
        };
        let (alone, together) = run.sort_out(gateway_ids);
        run.in_batches(&together);
        for id in alone {
            run.single(&id);
        }
        let (outcomes, has_read_any) = (run.outcomes, run.has_read_any);
        // A limit under which nothing could be read either was not the cure.
        if !has_read_any {
            self.batch_limits.remove(&base.host);
        }
        outcomes
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
    reader: &'a mut StatsReader,
    client: &'a mut Client,
    base: &'a BaseUrl,
    now: Instant,
    deadline: Instant,
    outcomes: Vec<(Arc<str>, Outcome)>,
    /// Why nothing more is asked of this cluster in this collection.
    halted: Option<Arc<FetchError>>,
    refusals: usize,
    oversized: usize,
    has_read_any: bool,
    has_doubted: bool,
}

impl Run<'_> {
    /// Answers for the gateways that are to be left alone, and parts the others into those
    /// to ask for one by one and those that may share a batch.
    fn sort_out(&mut self, gateway_ids: &[Arc<str>]) -> (Vec<Arc<str>>, Vec<Arc<str>>) {
        let mut alone = Vec::new();
        let mut together = Vec::new();
        for id in gateway_ids {
            match self.reader.refused.get(id) {
                None => together.push(id.clone()),
                Some(refusal) if self.now < refusal.until => {
                    self.outcomes.push((id.clone(), Err(refusal.error.clone())));
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
        // Each turn answers for a slice or makes it smaller: at most two turns per gateway.
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
        let limit = self.reader.batch_limits.get(&self.base.host, self.now);
        limit.copied().unwrap_or(BATCH_GATEWAYS_MAX)
    }

    fn set_batch_limit(&mut self, limit: usize) {
        let host = self.base.host.clone();
        self.reader.batch_limits.insert(host, limit, self.now);
    }

    fn batch<'s>(&mut self, slice: &'s [Arc<str>]) -> Next<'s> {
        let ids: Vec<&str> = slice.iter().map(AsRef::as_ref).collect();
        let refused = match self.client.stats_batch(self.base, &ids, self.deadline) {
            Ok(entries) => {
                self.keep(slice, entries);
                return Next::Done;
            }
            Err(refused) => refused,
        };
        match refused.status {
            Some(404) if !names_a_gateway(&refused) => self.set_batch_limit(1),
            Some(405 | 501) => self.set_batch_limit(1),
            Some(400 | 413) => self.set_batch_limit((slice.len() / 2).max(1)),
            Some(403 | 404) => return self.divide(slice),
            _ if refused.error.reason == Reason::TooLarge && self.oversized < OVERSIZED_MAX => {
                // One gateway can make it so, by what it sends about itself.
                self.oversized += usize::from(!self.has_read_any);
                return self.divide(slice);
            }
            _ => self.halted = Some(Arc::new(refused.error)),
        }
        Next::Again
    }

    fn keep(&mut self, slice: &[Arc<str>], mut entries: BTreeMap<String, ConnectionStats>) {
        self.has_read_any = true;
        for id in slice {
            let outcome = entries.remove(id.as_ref()).map_or(Ok(None), outcome_of);
            self.outcomes.push((id.clone(), outcome));
        }
    }

    /// A batch of one was refused. If the single call works, batches as such do not: for the
    /// key of a gateway, or on servers before 3.28.2 for rights through user and organization.
    fn divide<'s>(&mut self, slice: &'s [Arc<str>]) -> Next<'s> {
        if let [id] = slice {
            if self.single(id) {
                self.set_batch_limit(1);
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
        self.outcomes.push((id.clone(), outcome));
        is_readable
    }

    fn single_outcome(&mut self, id: &Arc<str>) -> Outcome {
        let refused = match self.client.stats(self.base, id, self.deadline) {
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
        let is_its_own_fault = match refused.status {
            Some(403) => true,
            Some(404) => names_a_gateway(&refused),
            _ => refused.error.reason == Reason::TooLarge,
        };
        let error = Arc::new(refused.error);
        match is_its_own_fault {
            true => self.refuse(id, error.clone()),
            false => self.halted = Some(error.clone()),
        }
        Err(error)
    }

    fn is_readable(&mut self, id: &Arc<str>) {
        self.has_read_any = true;
        self.reader.refused.remove(id);
    }

    fn refuse(&mut self, id: &Arc<str>, error: Arc<FetchError>) {
        let until = self.now + REFUSAL_TTL;
        let refusal = Refusal {
            error: error.clone(),
            until,
        };
        self.reader.refused.insert(id.clone(), refusal);
        self.refusals += 1;
        if self.refusals >= REFUSALS_BEFORE_DOUBT && !self.has_read_any && !self.has_doubted {
            self.has_doubted = true;
            self.doubt_the_key(error);
        }
    }

    /// Nothing could be read so far: if the key lacks the right as such, asking for each
    /// gateway is a waste.
    fn doubt_the_key(&mut self, error: Arc<FetchError>) {
        if error.reason != Reason::Forbidden {
            return;
        }
        let rights = self.client.rights(self.base, self.deadline);
        if rights.is_ok_and(|rights| lacks_status(&rights)) {
            let host = self.base.host.clone();
            let hosts = &mut self.reader.unreadable_hosts;
            hosts.insert(host, error.clone(), self.now);
            self.halted = Some(error);
        }
    }
}

/// Stats whose decisive times cannot be read say nothing about the gateway.
fn outcome_of(stats: ConnectionStats) -> Outcome {
    match stats.tells_state() {
        true => Ok(Some(Arc::new(stats))),
        false => {
            let context = "the time of its connection has an unexpected form";
            Err(Arc::new(FetchError::new(Reason::Field, context)))
        }
    }
}

/// Whether a 404 is about a gateway and not about the path: `gateway_not_found`.
fn names_a_gateway(refused: &CallError) -> bool {
    refused.name.contains("gateway")
}

/// Whether these rights certainly do not cover RIGHT_GATEWAY_STATUS_READ. Rights that end in
/// `_ALL` stand for others.
fn lacks_status(rights: &[String]) -> bool {
    !rights.is_empty()
        && !rights
            .iter()
            .any(|right| right == "RIGHT_GATEWAY_STATUS_READ" || right.ends_with("_ALL"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(expected: bool, rights: &[&str]) {
        let rights: Vec<String> = rights.iter().map(|right| right.to_string()).collect();
        assert_eq!(lacks_status(&rights), expected, "{rights:?}");
    }

    #[test]
    fn a_key_lacks_the_right_only_if_its_rights_are_known_and_none_covers_it() {
        check(false, &[]);
        check(false, &["RIGHT_GATEWAY_STATUS_READ"]);
        check(false, &["RIGHT_USER_INFO", "RIGHT_ALL"]);
        check(false, &["RIGHT_GATEWAY_ALL"]);
        check(true, &["RIGHT_USER_GATEWAYS_LIST", "RIGHT_GATEWAY_INFO"]);
    }
}
