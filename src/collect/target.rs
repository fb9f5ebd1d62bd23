//! A gateway to ask for, and what clusters said of it. Its registration may name no cluster, an
//! old one or an alias, and the server never compares that with where the gateway connects. So
//! a cluster that does not know its connection proves nothing while another one may. Pure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::collect::clusters::{Cluster, Home};
use crate::collect::stats::is_refusal;
use crate::error::{FetchError, Reason};
use crate::model::{ConnectionStats, Gateway, Outcome};

/// For so long a cluster is not searched again for a gateway that it does not have.
const DENIAL_TTL: Duration = Duration::from_secs(300);

pub struct Target {
    pub gateway: Arc<Gateway>,
    pub home: Arc<Home>,
    pub memory: Memory,
    pub is_connected: bool,
    /// The first failure among the clusters that were asked, with its host.
    failure: Option<(Arc<str>, Arc<FetchError>)>,
}

/// What is remembered of a gateway from one collection to the next.
#[derive(Default)]
pub struct Memory {
    /// Where it was last seen connected, if not at home.
    found_at: Option<Cluster>,
    /// What each cluster said last.
    denials: Vec<Denial>,
    /// It has been connected since: when it leaves, it may have gone to one of those clusters.
    are_denials_old: bool,
    left_out: Vec<LeftOut>,
}

/// A cluster said that a gateway is not connected there.
struct Denial {
    cluster: Cluster,
    at: Instant,
    /// What it still has of an earlier connection.
    stats: Option<Arc<ConnectionStats>>,
}

/// A gateway is left out of the batches of a cluster, which would refuse them because of it.
pub struct LeftOut {
    cluster: Cluster,
    /// Until when it is left out, or its refusal holds.
    pub until: Instant,
    /// Why the single call cannot read it either; none where it can.
    pub refusal: Option<Arc<FetchError>>,
    /// Whether it was asked for itself, and not refused because the key can read none.
    was_asked: bool,
}

impl Memory {
    pub fn is_empty(&self) -> bool {
        self.found_at.is_none() && self.denials.is_empty() && self.left_out.is_empty()
    }

    /// A new key may read more than the one before.
    pub fn forget_refusals(&mut self) {
        self.left_out.clear();
    }

    fn is_denied(&self, cluster: &Cluster) -> bool {
        self.denials.iter().any(|denial| denial.cluster == *cluster)
    }
}

impl Target {
    pub fn new(gateway: Arc<Gateway>, home: Arc<Home>) -> Target {
        Target {
            gateway,
            home,
            memory: Memory::default(),
            is_connected: false,
            failure: None,
        }
    }

    pub fn id(&self) -> &str {
        &self.gateway.gateway_id
    }

    /// Takes over what earlier collections learnt, and still holds.
    pub fn remember(&mut self, memory: Memory, now: Instant) {
        self.memory = memory;
        let is_recent = |denial: &Denial| now.saturating_duration_since(denial.at) < DENIAL_TTL;
        self.memory.denials.retain(is_recent);
        let left_out = &mut self.memory.left_out;
        left_out.retain(|left_out| {
            let is_own_refusal = left_out.was_asked && left_out.refusal.is_some();
            is_own_refusal || now < left_out.until
        });
    }

    /// Whether and why it is left out of the batches of this cluster.
    pub fn left_out(&self, cluster: &Cluster) -> Option<&LeftOut> {
        let mut left_out = self.memory.left_out.iter();
        left_out.find(|left_out| left_out.cluster == *cluster)
    }

    pub fn leave_out(
        &mut self,
        cluster: &Cluster,
        refusal: Option<Arc<FetchError>>,
        was_asked: bool,
        until: Instant,
    ) {
        let left_out = &mut self.memory.left_out;
        left_out.retain(|left_out| left_out.cluster != *cluster);
        left_out.push(LeftOut {
            cluster: cluster.clone(),
            until,
            refusal,
            was_asked,
        });
    }

    /// This cluster no longer refuses it.
    pub fn end_refusal(&mut self, cluster: &Cluster) {
        let left_out = &mut self.memory.left_out;
        left_out.retain(|left_out| left_out.cluster != *cluster || left_out.refusal.is_none());
    }

    /// The cluster to ask before all others.
    pub fn first(&self) -> &Cluster {
        let found_at = self.memory.found_at.as_ref();
        found_at.unwrap_or(&self.home.cluster)
    }

    /// Whether it has to be looked for at this cluster after the first one. A failure of one
    /// cluster says nothing about the others, but what the key is refused at one it is refused
    /// at all. The cluster of the registration is always worth a question.
    pub fn is_wanted_at(&self, cluster: &Cluster) -> bool {
        let is_refused = matches!(&self.failure, Some((_, error)) if is_refusal(error));
        !self.is_connected
            && !is_refused
            && self.first() != cluster
            && (self.home.cluster == *cluster || !self.memory.is_denied(cluster))
    }

    /// The same for this cluster, if it is that of the registration.
    pub fn is_wanted_at_home(&self, cluster: &Cluster) -> bool {
        self.home.cluster == *cluster && self.is_wanted_at(cluster)
    }

    /// It is connected at this cluster.
    pub fn found(&mut self, cluster: &Cluster) {
        self.is_connected = true;
        let is_elsewhere = *cluster != self.home.cluster;
        self.memory.found_at = is_elsewhere.then(|| cluster.clone());
        let denials = &mut self.memory.denials;
        denials.retain(|denial| denial.cluster != *cluster);
        self.memory.are_denials_old = true;
    }

    /// This cluster says that the gateway is not connected there.
    pub fn denied(&mut self, cluster: &Cluster, stats: Option<Arc<ConnectionStats>>, at: Instant) {
        if self.memory.are_denials_old && self.first() == cluster {
            self.memory.denials.clear();
            self.memory.are_denials_old = false;
        }
        let denials = &mut self.memory.denials;
        denials.retain(|denial| denial.cluster != *cluster);
        denials.push(Denial {
            cluster: cluster.clone(),
            at,
            stats,
        });
    }

    /// This cluster could not be asked, or did not tell. A request that was cut off at the end of
    /// the scrape says nothing to those who have more time.
    pub fn fail(&mut self, host: Arc<str>, mut error: Arc<FetchError>, is_cut: bool) {
        if is_cut {
            error = Arc::new(FetchError::new(Reason::Budget, error.context.as_str()));
        }
        self.failure.get_or_insert((host, error));
    }

    /// What is certain if it is not connected, and the host that says so: it is disconnected only
    /// if every cluster where it may be said so. None where the time was used up before.
    pub fn verdict(&self, candidates: &[Cluster]) -> Option<(Arc<str>, Outcome)> {
        if self.is_connected {
            return None;
        }
        let home = &self.home;
        if let Some((host, error)) = &self.failure {
            let is_certain = error.reason != Reason::Budget;
            return is_certain.then(|| (host.clone(), Err(error.clone())));
        }
        let mut clusters = candidates.iter().chain([&home.cluster]);
        if !clusters.all(|cluster| self.memory.is_denied(cluster)) {
            return None;
        }
        if let Some(error) = &home.error {
            let is_certain = error.reason != Reason::Budget;
            return is_certain.then(|| (home.host.clone(), Err(error.clone())));
        }
        let denials = self.memory.denials.iter();
        let with_stats = denials.filter_map(|denial| Some((denial, denial.stats.as_ref()?)));
        let time = |stats: &ConnectionStats| stats.disconnected_at.max(stats.last_seen());
        Some(match with_stats.max_by_key(|(_, stats)| time(stats)) {
            Some((denial, stats)) => {
                let host = denial.cluster.host.as_str();
                (host.into(), Ok(Some(stats.clone())))
            }
            None => (home.host.clone(), Ok(None)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples::{cluster, gateway, timestamp};

    fn target(home: &str) -> Target {
        Target::new(gateway("gw-1"), Arc::new(Home::of(cluster(home))))
    }

    #[test]
    fn a_denial_counts_for_five_minutes_and_for_its_cluster_alone() {
        let (mut target, start) = (target("eu1"), Instant::now());
        target.denied(&cluster("nam1"), None, start);
        let mut is_wanted = |place, now| {
            let memory = std::mem::take(&mut target.memory);
            target.remember(memory, now);
            target.is_wanted_at(&cluster(place))
        };
        assert!(is_wanted("au1", start));
        let almost = start + DENIAL_TTL - Duration::from_nanos(1);
        assert!(!is_wanted("nam1", almost));
        assert!(is_wanted("nam1", start + DENIAL_TTL));
    }

    #[test]
    fn a_gateway_is_disconnected_when_its_home_and_all_candidates_say_so() {
        let (mut target, now) = (target("nam1"), Instant::now());
        let verdict = |target: &Target| target.verdict(&[cluster("eu1")]);
        target.denied(&cluster("eu1"), None, now);
        assert_eq!(verdict(&target), None);
        target.denied(&cluster("nam1"), None, now);
        assert_eq!(verdict(&target), Some(("nam1".into(), Ok(None))));
        target.found(&cluster("nam1"));
        assert_eq!(verdict(&target), None);
    }

    #[test]
    fn a_gateway_that_is_at_home_needs_no_memory() {
        let mut target = target("eu1");
        target.found(&cluster("nam1"));
        assert_eq!(*target.first(), cluster("nam1"));
        target.found(&cluster("eu1"));
        assert_eq!(*target.first(), cluster("eu1"));
        assert!(target.memory.is_empty());
    }

    #[test]
    fn a_registration_that_the_scrape_had_no_time_for_makes_nothing_certain() {
        for (reason, is_certain) in [(Reason::Budget, false), (Reason::ServerError, true)] {
            let error = Some(Arc::new(FetchError::new(reason, "")));
            let home = Home::of(cluster("eu1"));
            let mut target = Target::new(gateway("gw-1"), Arc::new(Home { error, ..home }));
            target.denied(&cluster("eu1"), None, Instant::now());
            assert_eq!(target.verdict(&[]).is_some(), is_certain, "{reason:?}");
        }
    }

    #[test]
    fn only_a_gateway_that_was_asked_for_itself_stays_out_of_batches_after_its_refusal() {
        let (eu1, start) = (cluster("eu1"), Instant::now());
        for was_asked in [true, false] {
            let mut target = target("eu1");
            let refusal = Some(Arc::new(FetchError::new(Reason::Forbidden, "")));
            target.leave_out(&eu1, refusal, was_asked, start);
            let memory = std::mem::take(&mut target.memory);
            target.remember(memory, start + Duration::from_secs(1));
            assert_eq!(target.left_out(&eu1).is_some(), was_asked);
        }
    }

    #[test]
    fn the_stats_of_the_last_disconnect_are_told() {
        let (mut target, now) = (target("a"), Instant::now());
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
            target.denied(&cluster(host), stats, now);
        }
        let expected = Some(("b".into(), Ok(left_at(3))));
        assert_eq!(target.verdict(&[]), expected);
    }
}
