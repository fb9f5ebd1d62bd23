//! At which cluster a gateway is. Its registration may name none, an old one or an alias, and
//! the server never compares that with where the gateway connects. So a cluster that does not
//! know a gateway's connection proves nothing while another one may. Pure.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::things_stack::BaseUrl;

/// For so long it counts that a cluster said that it does not have a gateway.
const DENIAL_TTL: Duration = Duration::from_secs(300);
/// How many clusters the registrations may add to those that belong to `--server`.
const NAMED_CLUSTERS_MAX: usize = 8;

/// What is known of where gateways are.
#[derive(Default)]
pub struct ClusterSearch {
    places: HashMap<Arc<str>, Place>,
}

#[derive(Default)]
struct Place {
    /// Where it was last found connected, if not where its registration says.
    found_at: Option<BaseUrl>,
    /// Which clusters said that they do not have it, and when.
    denials: Vec<(BaseUrl, Instant)>,
}

impl ClusterSearch {
    pub fn retain(&mut self, is_watched: impl Fn(&str) -> bool) {
        self.places.retain(|id, _| is_watched(id));
    }

    /// Where it was found, if not where its registration says.
    pub fn found_at(&self, id: &str) -> Option<&BaseUrl> {
        self.places.get(id)?.found_at.as_ref()
    }

    /// It is connected at this cluster. What others said stays, so that a gateway that comes
    /// and goes is not looked for each time.
    pub fn found(&mut self, id: &Arc<str>, base: &BaseUrl, registered_at: Option<&BaseUrl>) {
        let is_expected = registered_at == Some(base);
        if is_expected && !self.places.contains_key(id) {
            return;
        }
        let place = self.places.entry(id.clone()).or_default();
        place.found_at = (!is_expected).then(|| base.clone());
        place.denials.retain(|(denier, _)| denier != base);
    }

    /// This cluster says that the gateway is not connected there.
    pub fn denied(&mut self, id: &Arc<str>, base: &BaseUrl, now: Instant) {
        let place = self.places.entry(id.clone()).or_default();
        place.denials.retain(|(denier, _)| denier != base);
        place.denials.push((base.clone(), now));
    }

    /// Whether this cluster has said so lately.
    pub fn is_denied(&self, id: &str, base: &BaseUrl, now: Instant) -> bool {
        let denials = self.places.get(id).map_or(&[][..], |place| &place.denials);
        let is_recent = |at: Instant| now.saturating_duration_since(at) < DENIAL_TTL;
        denials
            .iter()
            .any(|(denier, at)| denier == base && is_recent(*at))
    }
}

/// The clusters where gateways may be: those that belong to `--server` or were allowed, and
/// those that the registrations name.
pub fn candidates(
    mut clusters: Vec<BaseUrl>,
    named: impl Iterator<Item = BaseUrl>,
) -> Vec<BaseUrl> {
    let most = clusters.len() + NAMED_CLUSTERS_MAX;
    for base in named {
        if clusters.len() < most && !clusters.contains(&base) {
            clusters.push(base);
        }
    }
    clusters
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(host: &str) -> BaseUrl {
        BaseUrl::parse(host).expect("the test's own URL")
    }

    #[test]
    fn a_denial_counts_for_five_minutes_and_for_its_cluster_alone() {
        let (id, start): (Arc<str>, _) = ("gw-1".into(), Instant::now());
        let mut search = ClusterSearch::default();
        search.denied(&id, &base("nam1"), start);
        let almost = start + DENIAL_TTL - Duration::from_nanos(1);
        assert!(search.is_denied("gw-1", &base("nam1"), almost));
        assert!(!search.is_denied("gw-1", &base("nam1"), start + DENIAL_TTL));
        assert!(!search.is_denied("gw-1", &base("au1"), start));
        assert!(!search.is_denied("gw-2", &base("nam1"), start));
    }

    #[test]
    fn a_gateway_that_is_where_it_should_be_needs_no_memory() {
        let id: Arc<str> = "gw-1".into();
        let mut search = ClusterSearch::default();
        search.found(&id, &base("nam1"), Some(&base("eu1")));
        assert_eq!(search.found_at("gw-1"), Some(&base("nam1")));
        search.found(&id, &base("eu1"), Some(&base("eu1")));
        assert_eq!(search.found_at("gw-1"), None);
        search.found(&"gw-2".into(), &base("eu1"), Some(&base("eu1")));
        assert_eq!(search.places.len(), 1);
    }

    #[test]
    fn registrations_add_a_few_clusters_and_no_more() {
        let named: Vec<BaseUrl> = (0..50).map(|n| base(&format!("c{n}"))).collect();
        let all = candidates(vec![base("eu1")], named.into_iter().chain([base("eu1")]));
        assert_eq!(all.len(), 1 + NAMED_CLUSTERS_MAX);
    }
}
