//! The states of gateways: each is asked for where it should be. One that is not connected there
//! is looked for at the other clusters where it may be.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crate::collect::collector::Scrape;
use crate::collect::gateway_list::GatewayList;
use crate::collect::known::Known;
use crate::collect::stats::{BatchLimits, Progress, StatsReader};
use crate::collect::target::{Cluster, Home, Target};
use crate::error::{FetchError, Reason};
use crate::things_stack::{BaseUrl, Client, KnownHosts};

/// How many clusters the registrations may add to the candidates.
const NAMED_CANDIDATES_MAX: usize = 8;

/// Reads states into [`Known`], and remembers what helps the next time.
pub struct StateReader {
    pub server: Cluster,
    hosts: KnownHosts,
    known: Known,
    /// Those that belong to `--server` or were allowed, then those that registrations name.
    clusters: Vec<Cluster>,
    /// How many of them are of the first kind.
    own_clusters: usize,
    /// Whether a cluster has gateways of this key: it answered for one, or else there is no such host,
    /// or it does not know the key.
    is_of_key: BTreeMap<Cluster, bool>,
    limits: BatchLimits,
    /// Those of earlier collections that have learnt something, by gateway id.
    targets: BTreeMap<String, Target>,
}

impl StateReader {
    pub fn new(server: BaseUrl, hosts: KnownHosts, known: Known) -> StateReader {
        StateReader {
            server: Arc::new(server),
            hosts,
            known,
            clusters: Vec::new(),
            own_clusters: 0,
            is_of_key: BTreeMap::new(),
            limits: BatchLimits::new(),
            targets: BTreeMap::new(),
        }
    }

    /// Takes over the list, and gives each gateway its home.
    pub fn set_gateways(&mut self, list: &GatewayList) {
        self.clusters = self.hosts.candidates().into_iter().map(Arc::new).collect();
        self.own_clusters = self.clusters.len();
        // Most gateways share a handful of addresses.
        let mut homes: BTreeMap<(&str, bool), Arc<Home>> = BTreeMap::new();
        let located = list.gateways.values().map(|gateway| {
            let address = gateway.gateway_server_address.as_str();
            let error = list.error_of_registration(&gateway.gateway_id);
            let home = homes.entry((address, error.is_some()));
            let home = home.or_insert_with(|| Arc::new(self.home(address, error)));
            (gateway.clone(), home.clone())
        });
        let located = located.collect();
        self.known.set_gateways(located);
        self.targets.retain(|id, _| list.gateways.contains_key(id));
        self.is_of_key
            .retain(|cluster, _| self.clusters.contains(cluster));
    }

    /// Where a gateway may be, whatever its registration says. Collaborators can name any cluster:
    /// those that have answered come first, and what turned out to be no cluster of this key is none.
    fn candidates(&self) -> Vec<Cluster> {
        let (own, named) = self.clusters.split_at(self.own_clusters);
        let of = |is_of_key: Option<bool>| {
            let is_such =
                move |cluster: &&Cluster| self.is_of_key.get(*cluster) == is_of_key.as_ref();
            named.iter().filter(is_such)
        };
        let named = of(Some(true)).chain(of(None)).take(NAMED_CANDIDATES_MAX);
        own.iter().chain(named).cloned().collect()
    }

    /// `error` is why the registration is not known yet.
    fn home(&mut self, address: &str, error: Option<&Arc<FetchError>>) -> Home {
        let (cluster, host, error) = match self.hosts.api_of(address) {
            Ok(base) => (self.cluster(base), None, error.cloned()),
            Err(host) if KnownHosts::names_host(address) => {
                let error = Some(unknown_host(&host));
                (self.server.clone(), Some(host), error)
            }
            Err(_) => (self.server.clone(), None, error.cloned()),
        };
        Home {
            host: host.as_ref().unwrap_or(&cluster.host).as_str().into(),
            cluster,
            error,
        }
    }

    /// The one that equals this one.
    fn cluster(&mut self, base: BaseUrl) -> Cluster {
        if let Some(cluster) = self.clusters.iter().find(|cluster| ***cluster == base) {
            return cluster.clone();
        }
        let cluster = Arc::new(base);
        self.clusters.push(cluster.clone());
        cluster
    }

    /// What the old key was refused says nothing about a new one.
    pub fn forget_refusals(&mut self) {
        self.limits.clear();
        self.is_of_key.retain(|_, is_of_key| *is_of_key);
        self.targets.values_mut().for_each(Target::forget_refusals);
    }

    /// Asks for the gateways that this scrape misses. What is certain is known at once.
    pub fn read(&mut self, client: &mut Client, scrape: &Scrape) {
        let missing = self.known.missing(scrape);
        let targets = missing.into_iter().map(|located| {
            let earlier = self.targets.remove(&located.0.gateway_id);
            Target::new(located, earlier, scrape.now)
        });
        let mut targets: Vec<Target> = targets.collect();
        // Where earlier scrapes had no time for it.
        let half = scrape.time_left() / 2;
        let unsettled = targets.iter_mut().filter(|target| target.is_unsettled());
        self.search(unsettled.collect(), client, &scrape.within(half));
        self.ask_first_clusters(&mut targets, client, scrape);
        self.search(targets.iter_mut().collect(), client, scrape);
        let candidates = self.candidates();
        for target in targets {
            self.conclude(target, &candidates, scrape.now);
        }
    }

    /// Asks for each gateway where it should be.
    fn ask_first_clusters(&mut self, targets: &mut [Target], client: &mut Client, scrape: &Scrape) {
        let mut firsts: Vec<(bool, usize, Cluster)> = Vec::new();
        let wanted = targets.iter().filter(|target| !target.is_connected);
        for first in wanted.map(|target| &target.first) {
            match firsts.iter_mut().find(|(_, _, cluster)| cluster == first) {
                Some((_, size, _)) => *size += 1,
                None => firsts.push((!self.is_trusted(first), 1, first.clone())),
            }
        }
        // A cluster that hangs must leave time for the others, and for the search.
        let reserve = usize::from(firsts.len() > 1);
        // The small ones before the large ones, which need more of the time; but first those that
        // are not just the word of a registration.
        while let Some(at) = (0..firsts.len()).min_by_key(|at| &firsts[*at]) {
            let is_alike = |other: &&(bool, usize, Cluster)| other.0 == firsts[at].0;
            let shares = firsts.iter().filter(is_alike).count() + reserve;
            let (_, _, cluster) = firsts.swap_remove(at);
            let is_wanted = |t: &&mut Target| !t.is_connected && t.first == cluster;
            let wanted = targets.iter_mut().filter(is_wanted);
            self.ask(&cluster, wanted.collect(), shares, client, scrape);
        }
    }

    /// Whether it is more than the word of a registration that this is a cluster.
    fn is_trusted(&self, cluster: &Cluster) -> bool {
        let is_own = self.clusters[..self.own_clusters].contains(cluster);
        is_own || self.is_of_key.get(cluster) == Some(&true)
    }

    /// Looks for those that are not connected where they should be.
    fn search(&mut self, mut targets: Vec<&mut Target>, client: &mut Client, scrape: &Scrape) {
        let mut clusters = self.candidates();
        let candidates = clusters.len();
        // The registration of one that was found elsewhere may name a cluster that is no candidate.
        for home in targets.iter().filter_map(|target| target.second()) {
            if !clusters.contains(home) {
                clusters.push(home.clone());
            }
        }
        for (index, cluster) in clusters.iter().enumerate() {
            let wanted = targets.iter_mut().map(|target| &mut **target);
            let wanted = wanted.filter(|t| t.is_wanted_at(cluster, index < candidates));
            let shares = candidates.saturating_sub(index).max(1);
            self.ask(cluster, wanted.collect(), shares, client, scrape);
        }
    }

    /// Asks one cluster for these gateways. One request takes at most one share of the time left.
    fn ask(
        &mut self,
        cluster: &Cluster,
        wanted: Vec<&mut Target>,
        shares: usize,
        client: &mut Client,
        scrape: &Scrape,
    ) {
        if wanted.is_empty() {
            return;
        }
        let mut reader = StatsReader {
            client,
            known: &self.known,
            limits: &mut self.limits,
            cluster,
            host: cluster.host.as_str().into(),
            server: &self.server,
            scrape,
            request_time_max: scrape.time_left() / shares as u32,
            progress: Progress::default(),
        };
        if let Some(is_of_key) = reader.read(wanted) {
            let before = self.is_of_key.entry(cluster.clone()).or_default();
            *before |= is_of_key;
        }
    }

    /// Keeps what is certain of a gateway that was not found connected.
    fn conclude(&mut self, mut target: Target, candidates: &[Cluster], now: Instant) {
        let verdict = target.verdict(candidates);
        target.is_settled |= target.is_connected || verdict.is_some();
        if let Some((host, outcome)) = verdict {
            self.known.insert(target.id(), host, outcome, now);
        }
        if target.has_learnt() {
            self.targets.insert(target.id().to_owned(), target);
        }
    }
}

fn unknown_host(host: &str) -> Arc<FetchError> {
    let context = format!(
        "the gateway's server address names {host}, and the API key is not sent there: \
         --allow-host {host} would allow it"
    );
    Arc::new(FetchError::new(Reason::UnknownHost, context).of_gateway())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;
    use crate::collect::Scope;
    use crate::model::Gateway;

    fn host(region: &str) -> String {
        format!("tenant.{region}.cloud.thethings.industries")
    }

    /// The clusters that there are if gateways name these regions, and the candidates among them.
    /// `answers` says of some whether they are of this key.
    fn clusters(regions: &[&str], answers: &[(&str, bool)]) -> [Vec<String>; 2] {
        let server = BaseUrl::parse(&host("eu1")).expect("the test's own URL");
        let hosts = KnownHosts::new(server.clone(), Vec::new());
        let known = Known::new(Duration::ZERO, Arc::default());
        let mut reader = StateReader::new(server, hosts, known);
        let (exclude, ttl) = (BTreeSet::new(), Duration::ZERO);
        let mut list = GatewayList::new(Scope::Key, exclude, ttl, ttl);
        for (number, region) in regions.iter().enumerate() {
            let gateway = Gateway {
                gateway_server_address: host(region),
                ..Gateway::default()
            };
            let id = format!("gw-{number:02}");
            list.gateways.insert(id, Arc::new(gateway));
        }
        reader.set_gateways(&list);
        reader.is_of_key = answers
            .iter()
            .map(|(region, is_of_key)| {
                let base = BaseUrl::parse(&host(region)).expect("the test's own URL");
                (Arc::new(base), *is_of_key)
            })
            .collect();
        let hosts = |clusters: &[Cluster]| clusters.iter().map(|c| c.host.clone()).collect();
        [hosts(&reader.clusters), hosts(&reader.candidates())]
    }

    #[test]
    fn registrations_add_a_few_candidates_and_no_more() {
        let named: Vec<_> = (0..50).map(|n| format!("c{n}")).collect();
        let named: Vec<_> = named.iter().map(String::as_str).chain(["eu1"]).collect();
        let [all, candidates] = clusters(&named, &[]);
        assert_eq!(candidates.len(), 1 + NAMED_CANDIDATES_MAX);
        assert_eq!(all.len(), 1 + 50);
    }

    #[test]
    fn clusters_are_found_once_each() {
        let [all, candidates] = clusters(&["eu1", "b", "c", "b"], &[]);
        assert_eq!(all, ["eu1", "b", "c"].map(host));
        assert_eq!(candidates, all);
    }

    #[test]
    fn clusters_that_have_answered_come_before_those_that_a_registration_alone_names() {
        let named: Vec<_> = (0..50).map(|n| format!("c{n}")).collect();
        let named: Vec<_> = named.iter().map(String::as_str).collect();
        let [_, candidates] = clusters(&named, &[("c49", true), ("c0", false)]);
        let expected = ["eu1", "c49", "c1", "c2", "c3", "c4", "c5", "c6", "c7"];
        assert_eq!(candidates, expected.map(host));
    }
}
