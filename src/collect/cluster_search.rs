//! At which cluster a gateway is. Its registration may name none, an old one or an alias, and
//! the server never compares that with where the gateway connects. So a cluster that does not
//! know a gateway's connection proves nothing while another one may. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{FetchError, Reason};
use crate::model::{ConnectionStats, Gateway};
use crate::things_stack::{BaseUrl, KnownHosts};

/// A cluster that said that it does not have a gateway is not searched for it again so soon.
const DENIAL_TTL: Duration = Duration::from_secs(300);
/// How many clusters the registrations may add to those that belong to `--server`.
const NAMED_CLUSTERS_MAX: usize = 8;

/// Where a gateway should be by its registration.
pub struct Home {
    /// That of `--server` where no cluster is named, or one that the key must not be sent to.
    pub cluster: Arc<BaseUrl>,
    /// The host as it is shown.
    pub host: Arc<str>,
    /// That the key must not be sent to `host`.
    pub unknown_host: Option<Arc<FetchError>>,
}

/// Which clusters there are, and what they said of gateways.
pub struct ClusterSearch {
    server: Arc<BaseUrl>,
    hosts: KnownHosts,
    /// Where a gateway may be, whatever its registration says.
    candidates: Vec<Arc<BaseUrl>>,
    places: HashMap<String, Place>,
}

/// What is known of where one gateway is, if that is not simply its home.
#[derive(Default)]
struct Place {
    /// Where it was last seen connected, if not at home.
    found_at: Option<Arc<BaseUrl>>,
    /// What was said since it was last seen connected, by each cluster once.
    denials: Vec<Denial>,
}

/// A cluster said that a gateway is not connected there.
struct Denial {
    cluster: Arc<BaseUrl>,
    at: Instant,
    /// What it still has of an earlier connection.
    stats: Option<Arc<ConnectionStats>>,
}

impl Home {
    pub fn of(cluster: Arc<BaseUrl>) -> Home {
        Home {
            host: cluster.host.as_str().into(),
            cluster,
            unknown_host: None,
        }
    }
}

impl ClusterSearch {
    pub fn new(server: BaseUrl, hosts: KnownHosts) -> ClusterSearch {
        ClusterSearch {
            server: Arc::new(server),
            hosts,
            candidates: Vec::new(),
            places: HashMap::new(),
        }
    }

    /// The cluster of `--server`.
    pub fn server(&self) -> &Arc<BaseUrl> {
        &self.server
    }

    /// The clusters where gateways may be: those that belong to `--server` or were allowed, and
    /// some that the registrations name.
    pub fn candidates(&self) -> &[Arc<BaseUrl>] {
        &self.candidates
    }

    /// Takes over the list, and gives each gateway its home. What was said of gateways that are
    /// no longer in it is forgotten.
    pub fn set_gateways<'a>(
        &mut self,
        gateways: impl Iterator<Item = &'a Arc<Gateway>>,
    ) -> Vec<(Arc<Gateway>, Arc<Home>)> {
        // Most gateways share a handful of addresses.
        let mut homes: BTreeMap<&str, Arc<Home>> = BTreeMap::new();
        let mut places = HashMap::new();
        let mut with_homes = Vec::new();
        for gateway in gateways {
            let address = gateway.gateway_server_address.as_str();
            let home = homes
                .entry(address)
                .or_insert_with(|| Arc::new(self.home(address)));
            with_homes.push((gateway.clone(), home.clone()));
            places.extend(self.places.remove_entry(&gateway.gateway_id));
        }
        let named = homes.values().map(|home| home.cluster.clone());
        self.candidates = candidates(self.hosts.candidates(), named);
        self.places = places;
        with_homes
    }

    fn home(&self, address: &str) -> Home {
        match self.hosts.api_of(address) {
            Ok(base) => Home::of(Arc::new(base)),
            Err(host) if KnownHosts::names_host(address) => Home {
                cluster: self.server.clone(),
                unknown_host: Some(unknown_host(&host)),
                host: host.into(),
            },
            Err(_) => Home::of(self.server.clone()),
        }
    }

    /// Where to ask for a gateway first.
    pub fn first(&self, id: &str, home: &Home) -> Arc<BaseUrl> {
        let place = self.places.get(id);
        let found_at = place.and_then(|place| place.found_at.as_ref());
        found_at.unwrap_or(&home.cluster).clone()
    }

    /// It is connected at this cluster. What others said before is over: when it leaves, it may
    /// have gone to any of them.
    pub fn found(&mut self, id: &str, cluster: &Arc<BaseUrl>, home: &Home) {
        if *cluster == home.cluster {
            self.places.remove(id);
            return;
        }
        let place = Place {
            found_at: Some(cluster.clone()),
            denials: Vec::new(),
        };
        self.places.insert(id.to_owned(), place);
    }

    /// This cluster says that the gateway is not connected there.
    pub fn denied(
        &mut self,
        id: &str,
        cluster: &Arc<BaseUrl>,
        stats: Option<Arc<ConnectionStats>>,
        now: Instant,
    ) {
        let place = self.places.entry(id.to_owned()).or_default();
        place.denials.retain(|denial| denial.cluster != *cluster);
        place.denials.push(Denial {
            cluster: cluster.clone(),
            at: now,
            stats,
        });
    }

    /// Whether this cluster has said so lately.
    pub fn is_denied(&self, id: &str, cluster: &BaseUrl, now: Instant) -> bool {
        let mut denials = self.denials(id, now);
        denials.any(|denial| *denial.cluster == *cluster)
    }

    /// Whether every cluster where it may be has said so lately.
    pub fn is_denied_everywhere(&self, id: &str, home: &Home, now: Instant) -> bool {
        let mut clusters = self.candidates.iter().chain([&home.cluster]);
        clusters.all(|cluster| self.is_denied(id, cluster, now))
    }

    /// The newest of what clusters still have of an earlier connection.
    pub fn newest_stats(
        &self,
        id: &str,
        now: Instant,
    ) -> Option<(&Arc<BaseUrl>, &Arc<ConnectionStats>)> {
        let denials = self.denials(id, now);
        let stats = denials.filter_map(|denial| Some((&denial.cluster, denial.stats.as_ref()?)));
        stats.max_by_key(|(_, stats)| stats.disconnected_at.max(stats.last_seen()))
    }

    fn denials(&self, id: &str, now: Instant) -> impl Iterator<Item = &Denial> {
        let place = self.places.get(id);
        let denials = place.map_or(&[][..], |place| &place.denials).iter();
        denials.filter(move |denial| now.saturating_duration_since(denial.at) < DENIAL_TTL)
    }
}

fn candidates(known: Vec<BaseUrl>, named: impl Iterator<Item = Arc<BaseUrl>>) -> Vec<Arc<BaseUrl>> {
    let mut clusters: Vec<Arc<BaseUrl>> = known.into_iter().map(Arc::new).collect();
    let most = clusters.len() + NAMED_CLUSTERS_MAX;
    for cluster in named {
        if clusters.len() < most && !clusters.contains(&cluster) {
            clusters.push(cluster);
        }
    }
    clusters
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
    use super::*;
    use crate::examples::timestamp;

    fn cluster(host: &str) -> Arc<BaseUrl> {
        Arc::new(BaseUrl::parse(host).expect("the test's own URL"))
    }

    fn search() -> ClusterSearch {
        let server = BaseUrl::clone(&cluster("eu1"));
        let hosts = KnownHosts::new(server.clone(), Vec::new());
        let mut search = ClusterSearch::new(server, hosts);
        search.set_gateways([].into_iter());
        search
    }

    #[test]
    fn a_denial_counts_for_five_minutes_and_for_its_cluster_alone() {
        let (mut search, start) = (search(), Instant::now());
        search.denied("gw-1", &cluster("nam1"), None, start);
        let almost = start + DENIAL_TTL - Duration::from_nanos(1);
        assert!(search.is_denied("gw-1", &cluster("nam1"), almost));
        assert!(!search.is_denied("gw-1", &cluster("nam1"), start + DENIAL_TTL));
        assert!(!search.is_denied("gw-1", &cluster("au1"), start));
        assert!(!search.is_denied("gw-2", &cluster("nam1"), start));
    }

    #[test]
    fn a_gateway_is_denied_everywhere_when_its_home_and_all_candidates_did() {
        let (mut search, now) = (search(), Instant::now());
        let home = Home::of(cluster("nam1"));
        search.denied("gw-1", &cluster("eu1"), None, now);
        assert!(!search.is_denied_everywhere("gw-1", &home, now));
        search.denied("gw-1", &cluster("nam1"), None, now);
        assert!(search.is_denied_everywhere("gw-1", &home, now));
        search.found("gw-1", &cluster("nam1"), &home);
        assert!(!search.is_denied_everywhere("gw-1", &home, now));
    }

    #[test]
    fn a_gateway_that_is_at_home_needs_no_memory() {
        let (mut search, home) = (search(), Home::of(cluster("eu1")));
        search.found("gw-1", &cluster("nam1"), &home);
        assert_eq!(search.first("gw-1", &home), cluster("nam1"));
        search.found("gw-1", &cluster("eu1"), &home);
        assert_eq!(search.first("gw-1", &home), cluster("eu1"));
        assert!(search.places.is_empty());
    }

    #[test]
    fn the_newest_stats_are_those_of_the_last_disconnect() {
        let (mut search, now) = (search(), Instant::now());
        let left_at = |seconds| {
            Some(Arc::new(ConnectionStats {
                disconnected_at: timestamp(seconds),
                ..ConnectionStats::default()
            }))
        };
        for (host, stats) in [
            ("a", left_at(2)),
            ("b", left_at(3)),
            ("c", left_at(1)),
            ("d", None),
        ] {
            search.denied("gw-1", &cluster(host), stats, now);
        }
        let newest = search.newest_stats("gw-1", now);
        assert_eq!(newest.map(|(cluster, _)| &*cluster.host), Some("b"));
        assert_eq!(search.newest_stats("gw-1", now + DENIAL_TTL), None);
    }

    #[test]
    fn registrations_add_a_few_clusters_and_no_more() {
        let named: Vec<_> = (0..50).map(|n| cluster(&format!("c{n}"))).collect();
        let known = vec![BaseUrl::clone(&cluster("eu1"))];
        let all = candidates(known, named.into_iter().chain([cluster("eu1")]));
        assert_eq!(all.len(), 1 + NAMED_CLUSTERS_MAX);
    }
}
