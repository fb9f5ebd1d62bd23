//! The states of gateways: each is asked for where it should be. One that is not connected there
//! is looked for at the other clusters where it may be.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::collect::clusters::{Cluster, Clusters};
use crate::collect::collector::{FAILURE_TTL_MAX, Scrape};
use crate::collect::gateway_list::GatewayList;
use crate::collect::known::Known;
use crate::collect::stats::{BatchLimits, Progress, StatsReader};
use crate::collect::target::{Memory, Target};
use crate::error::Reason;
use crate::things_stack::Client;

/// Reads states into [`Known`], and remembers what helps the next time.
pub struct StateReader {
    pub clusters: Clusters,
    known: Known,
    ttl: Duration,
    batch_limits: BatchLimits,
    /// By gateway id; none where there is nothing to remember.
    memories: BTreeMap<String, Memory>,
}

impl StateReader {
    pub fn new(clusters: Clusters, known: Known, ttl: Duration) -> StateReader {
        StateReader {
            clusters,
            known,
            ttl,
            batch_limits: BatchLimits::new(),
            memories: BTreeMap::new(),
        }
    }

    /// Takes over the list, and gives each gateway its home.
    pub fn set_gateways(&mut self, list: &GatewayList) {
        self.memories.retain(|id, _| list.gateways.contains_key(id));
        self.known.set_gateways(self.clusters.set_gateways(list));
    }

    /// What the old key was refused says nothing about a new one.
    pub fn forget_refusals(&mut self) {
        self.batch_limits.clear();
        for memory in self.memories.values_mut() {
            memory.forget_refusals();
        }
    }

    /// Asks for these gateways within the time. What is certain is known at once.
    pub fn read(&mut self, mut targets: Vec<Target>, client: &mut Client, scrape: &Scrape) {
        for target in &mut targets {
            if let Some(memory) = self.memories.remove(target.id()) {
                target.remember(memory, scrape.now);
            }
        }
        let mut firsts = first_clusters(&targets);
        // A cluster that hangs must leave time for the others, and for the search.
        let reserve = usize::from(firsts.len() > 1);
        // The small ones before the large ones, which need more of the time.
        while let Some(at) = (0..firsts.len()).min_by_key(|at| &firsts[*at]) {
            let shares = firsts.len() + reserve;
            let (_, cluster) = firsts.swap_remove(at);
            let wanted = targets.iter_mut().filter(|t| *t.first() == cluster);
            self.ask(&cluster, wanted.collect(), shares, client, scrape);
        }
        let candidates = self.clusters.candidates.clone();
        for (index, cluster) in candidates.iter().enumerate() {
            let wanted = targets.iter_mut().filter(|t| t.is_wanted_at(cluster));
            let shares = candidates.len() - index;
            self.ask(cluster, wanted.collect(), shares, client, scrape);
        }
        for home in homes_beyond(&candidates, &targets) {
            let wanted = targets.iter_mut().filter(|t| t.is_wanted_at_home(&home));
            self.ask(&home, wanted.collect(), 1, client, scrape);
        }
        for target in targets {
            self.conclude(target, scrape.now);
        }
    }

    /// Asks one cluster for these gateways. One request takes at most one share of the time left.
    fn ask(
        &mut self,
        cluster: &Cluster,
        mut wanted: Vec<&mut Target>,
        shares: usize,
        client: &mut Client,
        scrape: &Scrape,
    ) {
        if wanted.is_empty() {
            return;
        }
        let (now, deadline) = (scrape.now, scrape.deadline);
        let left = deadline.saturating_duration_since(Instant::now());
        let host: Arc<str> = cluster.host.as_str().into();
        let expiry = now + self.ttl;
        let mut reader = StatsReader {
            client,
            limits: &mut self.batch_limits,
            cluster,
            server: &self.clusters.server,
            now,
            deadline,
            request_time_max: left / shares as u32,
            found: &mut |target, outcome| match outcome {
                Ok(Some(stats)) if stats.is_connected() => {
                    target.found(cluster);
                    self.known
                        .insert(target.id(), host.clone(), Ok(Some(stats)), expiry);
                }
                Ok(stats) => target.denied(cluster, stats, now),
                Err(error) => {
                    let is_cut = error.reason == Reason::Timeout && Instant::now() >= deadline;
                    target.fail(host.clone(), error, is_cut);
                }
            },
            progress: Progress::default(),
        };
        reader.read(&mut wanted);
    }

    /// Keeps what is certain of a gateway that was not found connected, and counts its error.
    fn conclude(&mut self, target: Target, now: Instant) {
        if let Some((host, outcome)) = target.verdict(&self.clusters.candidates) {
            let expiry = match &outcome {
                Ok(_) => now + self.ttl,
                Err(_) => Instant::now() + self.ttl.min(FAILURE_TTL_MAX),
            };
            // Field errors are counted one by one.
            if let Err(error) = &outcome
                && error.reason != Reason::Field
            {
                self.known
                    .count(|counters| counters.count_error(error.reason));
            }
            self.known.insert(target.id(), host, outcome, expiry);
        }
        if !target.memory.is_empty() {
            self.memories.insert(target.id().to_owned(), target.memory);
        }
    }
}

/// The clusters of registrations that are not candidates: there are more of them than are searched.
fn homes_beyond(candidates: &[Cluster], targets: &[Target]) -> Vec<Cluster> {
    let mut homes: Vec<Cluster> = Vec::new();
    for target in targets {
        let home = &target.home.cluster;
        if !candidates.contains(home) && !homes.contains(home) {
            homes.push(home.clone());
        }
    }
    homes
}

/// The clusters to ask first, each with the number of its gateways.
fn first_clusters(targets: &[Target]) -> Vec<(usize, Cluster)> {
    let mut clusters: Vec<(usize, Cluster)> = Vec::new();
    for target in targets {
        let first = target.first();
        match clusters.iter_mut().find(|(_, cluster)| cluster == first) {
            Some((size, _)) => *size += 1,
            None => clusters.push((1, first.clone())),
        }
    }
    clusters
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::clusters::Home;
    use crate::examples::{cluster, gateway};

    #[test]
    fn homes_beyond_the_candidates_are_found_once_each() {
        let at = |host| Target::new(gateway("gw-1"), Arc::new(Home::of(cluster(host))));
        let targets = ["a", "b", "c", "b"].map(at);
        let beyond = homes_beyond(&[cluster("a")], &targets);
        assert_eq!(beyond, [cluster("b"), cluster("c")]);
    }
}
