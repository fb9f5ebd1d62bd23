//! The states of gateways: which cluster to ask first, where else to look for those that are
//! not connected there, and what is certain in the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::collect::cluster_search::{ClusterSearch, Home};
use crate::collect::collector::{FAILURE_TTL_MAX, Scrape};
use crate::collect::gateway_list::GatewayList;
use crate::collect::known::{Known, Missing};
use crate::collect::stats::{Question, StatsReader};
use crate::error::{FetchError, Reason};
use crate::model::{Gateway, Outcome};
use crate::things_stack::{BaseUrl, Client};

/// Finds out states, with what was learnt for the next time.
pub struct StateReader {
    reader: StatsReader,
    search: ClusterSearch,
    ttl: Duration,
    /// Clusters that brought nothing the last time: they are asked last.
    failing: Vec<Arc<BaseUrl>>,
}

/// What a collection has at hand.
pub struct Collection<'a> {
    pub client: &'a mut Client,
    pub list: &'a GatewayList,
    pub known: &'a Known,
    pub scrape: &'a Scrape,
    pub deadline: Instant,
}

/// A gateway to ask for.
struct Target {
    gateway: Arc<Gateway>,
    home: Arc<Home>,
    was_known: bool,
    /// Where to ask first.
    first: Arc<BaseUrl>,
    is_connected: bool,
    /// The first failure among the clusters that were asked, with its host.
    failure: Option<(Arc<str>, Arc<FetchError>)>,
}

impl Target {
    /// Whether it has to be looked for at this cluster, too. A failure of one cluster says
    /// nothing about the others, but what the key was refused at one it is refused at all.
    fn is_wanted_at(&self, cluster: &Arc<BaseUrl>, search: &ClusterSearch, now: Instant) -> bool {
        let refusals = [Reason::Forbidden, Reason::NotFound];
        let failure = self.failure.as_ref().map(|(_, error)| error);
        let is_refused = failure.is_some_and(|f| f.is_of_gateway && refusals.contains(&f.reason));
        let is_denied = || search.is_denied(&self.gateway.gateway_id, cluster, now);
        !self.is_connected
            && !is_refused
            && self.first != *cluster
            && (self.home.cluster == *cluster || !is_denied())
    }
}

impl StateReader {
    pub fn new(search: ClusterSearch, ttl: Duration) -> StateReader {
        StateReader {
            reader: StatsReader::default(),
            search,
            ttl,
            failing: Vec::new(),
        }
    }

    /// The cluster of `--server`.
    pub fn server(&self) -> &Arc<BaseUrl> {
        self.search.server()
    }

    /// Takes over the list, and gives each gateway its home.
    pub fn set_gateways(&mut self, list: &GatewayList) -> Vec<(Arc<Gateway>, Arc<Home>)> {
        self.reader.retain(|id| list.contains(id));
        self.search.set_gateways(list.gateways())
    }

    /// What the old key was refused says nothing about a new one.
    pub fn forget_refusals(&mut self) {
        self.reader = StatsReader::default();
    }

    /// Asks for each of these where it should be, and for those that are not connected there at
    /// the other clusters where they may be. What is certain is known at once.
    pub fn read(&mut self, missing: Vec<Missing>, collection: &mut Collection<'_>) {
        let deadline = collection.deadline;
        let now = collection.scrape.now;
        let mut targets: Vec<Target> = missing.into_iter().map(|m| self.target(m)).collect();
        let firsts = self.in_order(&targets);
        let candidates = self.search.candidates().to_vec();
        // A cluster that hangs must leave time for the search.
        let reserve = usize::from(candidates.len() > 1);
        for (index, cluster) in firsts.iter().enumerate() {
            collection.deadline = share(deadline, firsts.len() - index + reserve);
            let wanted = wanted(&targets, |target| target.first == *cluster);
            self.ask(cluster, &wanted, &mut targets, collection);
        }
        for (index, cluster) in candidates.iter().enumerate() {
            collection.deadline = share(deadline, candidates.len() - index);
            let is_wanted = |target: &Target| target.is_wanted_at(cluster, &self.search, now);
            let wanted = wanted(&targets, is_wanted);
            self.ask(cluster, &wanted, &mut targets, collection);
        }
        collection.deadline = deadline;
        for target in targets.iter().filter(|target| !target.is_connected) {
            self.conclude(target, collection);
        }
    }

    fn target(&self, missing: Missing) -> Target {
        Target {
            first: self
                .search
                .first(&missing.gateway.gateway_id, &missing.home),
            gateway: missing.gateway,
            home: missing.home,
            was_known: missing.was_known,
            is_connected: false,
            failure: None,
        }
    }

    /// The clusters to ask first: those that failed before come last, and the large ones after
    /// the small ones, which leave some of their share of the time.
    fn in_order(&self, targets: &[Target]) -> Vec<Arc<BaseUrl>> {
        let mut clusters: Vec<(bool, usize, &Arc<BaseUrl>)> = Vec::new();
        for target in targets {
            match clusters.iter_mut().find(|(.., c)| *c == &target.first) {
                Some((_, size, _)) => *size += 1,
                None => {
                    let is_failing = self.failing.contains(&target.first);
                    clusters.push((is_failing, 1, &target.first));
                }
            }
        }
        clusters.sort_unstable();
        clusters.into_iter().map(|(.., c)| c.clone()).collect()
    }

    /// Asks one cluster for some of the targets and keeps what it says of them.
    fn ask(
        &mut self,
        cluster: &Arc<BaseUrl>,
        wanted: &[Arc<Gateway>],
        targets: &mut [Target],
        collection: &mut Collection<'_>,
    ) {
        if wanted.is_empty() {
            return;
        }
        let (known, now) = (collection.known, collection.scrape.now);
        let question = Question {
            cluster,
            gateways: wanted,
            server: &self.search.server().clone(),
            now,
            deadline: collection.deadline,
        };
        let host: Arc<str> = cluster.host.as_str().into();
        let mut has_answered = false;
        let (reader, search) = (&mut self.reader, &mut self.search);
        reader.read(collection.client, &question, &mut |gateway, outcome| {
            has_answered |= outcome.is_ok();
            let id = &*gateway.gateway_id;
            let at = targets.binary_search_by(|t| (*t.gateway.gateway_id).cmp(id));
            let Some(target) = at.ok().and_then(|at| targets.get_mut(at)) else {
                return;
            };
            match outcome {
                Ok(Some(stats)) if stats.is_connected() => {
                    search.found(id, cluster, &target.home);
                    target.is_connected = true;
                    known.insert(id, host.clone(), Ok(Some(stats)), now + self.ttl);
                }
                Ok(stats) => search.denied(id, cluster, stats, now),
                Err(error) => {
                    target.failure.get_or_insert((host.clone(), error));
                }
            }
        });
        self.failing.retain(|failing| failing != cluster);
        if !has_answered {
            self.failing.push(cluster.clone());
        }
    }

    /// Keeps what is certain of a gateway that no cluster has connected, and counts what is not.
    fn conclude(&self, target: &Target, collection: &Collection<'_>) {
        let Some((cluster, outcome)) = self.verdict(target, collection) else {
            return;
        };
        let expiry = match &outcome {
            Ok(_) => collection.scrape.now + self.ttl,
            Err(error) => {
                // Fields are counted one by one.
                if error.reason != Reason::Field {
                    collection
                        .known
                        .count(|counters| counters.count_error(error.reason));
                }
                Instant::now() + self.ttl.min(FAILURE_TTL_MAX)
            }
        };
        let id = &target.gateway.gateway_id;
        collection.known.insert(id, cluster, outcome, expiry);
    }

    /// It is disconnected only if every cluster where it may be said so. None where the time
    /// was over before.
    fn verdict(&self, target: &Target, collection: &Collection<'_>) -> Option<(Arc<str>, Outcome)> {
        let (id, home) = (&*target.gateway.gateway_id, &target.home);
        let now = collection.scrape.now;
        if let Some((host, error)) = &target.failure {
            let is_certain = error.reason != Reason::Budget;
            return is_certain.then(|| (host.clone(), Err(error.clone())));
        }
        if !self.search.is_denied_everywhere(id, home, now) {
            return None;
        }
        let list_error = collection.list.error_of_registration(id);
        if let Some(error) = home.unknown_host.as_ref().or(list_error) {
            return Some((home.host.clone(), Err(error.clone())));
        }
        Some(match self.search.newest_stats(id, now) {
            Some((cluster, stats)) => (cluster.host.as_str().into(), Ok(Some(stats.clone()))),
            None => (home.host.clone(), Ok(None)),
        })
    }
}

/// Those of which nothing is known come first: an earlier scrape had no time for them.
fn wanted(targets: &[Target], is_wanted: impl Fn(&Target) -> bool) -> Vec<Arc<Gateway>> {
    let wanted = targets.iter().filter(|target| is_wanted(target));
    let (known, unknown): (Vec<&Target>, Vec<&Target>) = wanted.partition(|t| t.was_known);
    let in_order = unknown.into_iter().chain(known);
    in_order.map(|target| target.gateway.clone()).collect()
}

/// An equal share of the time that is left.
fn share(deadline: Instant, shares: usize) -> Instant {
    let now = Instant::now();
    now + deadline.saturating_duration_since(now) / shares.max(1) as u32
}
