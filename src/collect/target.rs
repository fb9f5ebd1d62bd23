//! A gateway to ask for, and what clusters said of it. Its registration may name no cluster, an
//! old one or an alias, and the server never compares that with where the gateway connects. So
//! a cluster that does not know its connection proves nothing while another one may. Pure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::collect::stats::is_refusal;
use crate::error::{FetchError, Reason};
use crate::model::{ConnectionStats, Gateway, Outcome};
use crate::things_stack::BaseUrl;

/// How long it holds what a cluster said. Until then it is not searched again for a gateway that it
/// does not have, nor asked for one that the key may not read.
const ANSWER_TTL: Duration = Duration::from_secs(300);

/// How long a gateway that was refused in a batch of one is asked alone.
const ALONE_TTL: Duration = Duration::from_secs(3600);

pub type Cluster = Arc<BaseUrl>;

/// Where a gateway should be by its registration.
pub struct Home {
    /// That of `--server` where no cluster is named, or one that the key must not be sent to.
    pub cluster: Cluster,
    /// The host as it is shown.
    pub host: Arc<str>,
    /// Why it may be at a cluster that cannot be asked: the key must not be sent to `host`, or the
    /// registration is not known yet.
    pub error: Option<Arc<FetchError>>,
}

/// What is to be asked for, and where it should be.
pub type Located = (Arc<Gateway>, Arc<Home>);

pub struct Target {
    gateway: Arc<Gateway>,
    home: Arc<Home>,
    /// The cluster to ask before all others: that of the registration, unless it has said lately
    /// that the gateway is not there, which was found elsewhere.
    pub first: Cluster,
    /// Where it was last seen connected, if not at home.
    found_at: Option<Cluster>,
    /// Each cluster once.
    answers: Vec<Answer>,
    /// Whether the last collection, and this one, found out how it is, or met a cluster that hangs.
    was_settled: bool,
    pub is_settled: bool,
    /// In this collection.
    pub is_connected: bool,
    /// The first failure among the clusters that were asked, with its host.
    failure: Option<(Arc<str>, Arc<FetchError>)>,
}

/// What one cluster said last of a gateway.
pub struct Answer {
    cluster: Cluster,
    /// That it is not connected there, with what it still has of an earlier connection; or why the
    /// key may not read it.
    pub said: Option<(Instant, Outcome)>,
    /// Until when it is left out of the batches, which would be refused because of it.
    pub alone_until: Option<Instant>,
}

impl Target {
    /// With what an earlier collection learnt, as far as it still holds.
    pub fn new((gateway, home): Located, earlier: Option<Target>, now: Instant) -> Target {
        let learnt = earlier.map(|target| (target.found_at, target.answers, target.is_settled));
        let (found_at, mut answers, was_settled) = learnt.unwrap_or_default();
        answers.retain_mut(|answer| {
            let said = &mut answer.said;
            said.take_if(|(at, _)| now.saturating_duration_since(*at) >= ANSWER_TTL);
            answer.alone_until.take_if(|until| now >= *until);
            answer.said.is_some() || answer.alone_until.is_some()
        });
        let mut target = Target {
            first: home.cluster.clone(),
            gateway,
            home,
            found_at,
            answers,
            was_settled,
            is_settled: false,
            is_connected: false,
            failure: None,
        };
        if let Some(found_at) = &target.found_at
            && target.is_denied(&target.home.cluster)
        {
            target.first = found_at.clone();
        }
        target
    }

    /// Whether the next collection can use anything of it.
    pub fn has_learnt(&self) -> bool {
        self.found_at.is_some() || !self.answers.is_empty()
    }

    /// A new key may read more than the one before.
    pub fn forget_refusals(&mut self) {
        for answer in &mut self.answers {
            answer.said.take_if(|(_, said)| said.is_err());
            answer.alone_until = None;
        }
    }

    /// What this cluster said last, if anything.
    pub fn answer(&self, cluster: &Cluster) -> Option<&Answer> {
        let mut answers = self.answers.iter();
        answers.find(|answer| answer.cluster == *cluster)
    }

    pub fn answer_mut(&mut self, cluster: &Cluster) -> &mut Answer {
        let mut known = self.answers.iter();
        let at = known.position(|answer| answer.cluster == *cluster);
        let at = at.unwrap_or_else(|| {
            self.answers.push(Answer {
                cluster: cluster.clone(),
                said: None,
                alone_until: None,
            });
            self.answers.len() - 1
        });
        &mut self.answers[at]
    }

    fn is_denied(&self, cluster: &Cluster) -> bool {
        let said = self.answer(cluster).and_then(|answer| answer.said.as_ref());
        said.is_some_and(|(_, said)| said.is_ok())
    }

    pub fn id(&self) -> &str {
        &self.gateway.gateway_id
    }

    /// The cluster of the registration, where another one was asked before.
    pub fn second(&self) -> Option<&Cluster> {
        let home = &self.home.cluster;
        (self.first != *home && !self.is_connected).then_some(home)
    }

    /// Whether the last collection had time to ask where it should be, and no more.
    pub fn is_unsettled(&self) -> bool {
        !self.was_settled && self.is_denied(&self.first)
    }

    /// Whether it has to be looked for at this cluster after the first one. A failure of one
    /// cluster says nothing about the others, but what the key is refused at one it is refused
    /// at all. The cluster of the registration is always worth a question, another one if it is
    /// a candidate.
    pub fn is_wanted_at(&self, cluster: &Cluster, is_candidate: bool) -> bool {
        let is_refused = matches!(&self.failure, Some((_, error)) if is_refusal(error));
        let is_worth_it = is_candidate && !self.is_denied(cluster);
        !self.is_connected
            && !is_refused
            && self.first != *cluster
            && (self.home.cluster == *cluster || is_worth_it)
    }

    /// It is connected at this cluster.
    pub fn found(&mut self, cluster: &Cluster) {
        self.is_connected = true;
        let is_elsewhere = *cluster != self.home.cluster;
        self.found_at = is_elsewhere.then(|| cluster.clone());
        if self.answer(cluster).is_some() {
            self.answer_mut(cluster).said = None;
        }
    }

    /// This cluster says that the gateway is not connected there. If it was until now, it may have
    /// gone to one that denied it meanwhile.
    pub fn denied(&mut self, cluster: &Cluster, stats: Option<Arc<ConnectionStats>>, at: Instant) {
        if self.first == *cluster && !self.is_denied(cluster) {
            let answers = self.answers.iter_mut();
            answers.for_each(|answer| answer.said = None);
        }
        self.answer_mut(cluster).said = Some((at, Ok(stats)));
    }

    /// It is left out of the batches of this cluster from now on, for an hour.
    pub fn leave_batches(&mut self, cluster: &Cluster, now: Instant) {
        self.answer_mut(cluster).alone_until = Some(now + ALONE_TTL);
    }

    /// This cluster could not be asked, or did not tell.
    pub fn fail(&mut self, host: &Arc<str>, error: Arc<FetchError>) {
        self.failure.get_or_insert_with(|| (host.clone(), error));
    }

    /// What is certain if it is not connected, and the host that says so: it is disconnected only
    /// if every cluster where it may be said so. None where the time was used up before.
    pub fn verdict(&self, candidates: &[Cluster]) -> Option<(Arc<str>, Outcome)> {
        let Home {
            cluster,
            host,
            error,
        } = &*self.home;
        let mut clusters = candidates.iter().chain([cluster]);
        let (host, outcome) = match (&self.failure, error) {
            _ if self.is_connected => return None,
            (Some((host, error)), _) => (host.clone(), Err(error.clone())),
            _ if !clusters.all(|cluster| self.is_denied(cluster)) => return None,
            (None, Some(error)) => (host.clone(), Err(error.clone())),
            (None, None) => self.last_connection(),
        };
        let is_cut = matches!(&outcome, Err(error) if error.reason == Reason::Budget);
        (!is_cut).then_some((host, outcome))
    }

    /// The stats of the last disconnect, and the host that has them.
    fn last_connection(&self) -> (Arc<str>, Outcome) {
        let answers = self.answers.iter();
        let with_stats = answers.filter_map(|answer| match &answer.said {
            Some((_, Ok(Some(stats)))) => Some((&*answer.cluster.host, stats)),
            _ => None,
        });
        let time = |stats: &ConnectionStats| stats.disconnected_at.max(stats.last_seen());
        match with_stats.max_by_key(|(_, stats)| time(stats)) {
            Some((host, stats)) => (host.into(), Ok(Some(stats.clone()))),
            None => (self.home.host.clone(), Ok(None)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples::{cluster, gateway, timestamp};

    fn target(home: &str) -> Target {
        target_of(home, None)
    }

    fn target_of(home: &str, error: Option<Arc<FetchError>>) -> Target {
        let home = Home {
            cluster: cluster(home),
            host: home.into(),
            error,
        };
        Target::new((gateway("gw-1"), Arc::new(home)), None, Instant::now())
    }

    /// The same in another collection.
    fn later(target: Target, now: Instant) -> Target {
        let located = (target.gateway.clone(), target.home.clone());
        Target::new(located, Some(target), now)
    }

    #[test]
    fn a_denial_counts_for_five_minutes_and_for_its_cluster_alone() {
        let start = Instant::now();
        let is_wanted = |place, now| {
            let mut target = target("eu1");
            target.denied(&cluster("nam1"), None, start);
            later(target, now).is_wanted_at(&cluster(place), true)
        };
        assert!(is_wanted("au1", start));
        let almost = start + ANSWER_TTL - Duration::from_nanos(1);
        assert!(!is_wanted("nam1", almost));
        assert!(is_wanted("nam1", start + ANSWER_TTL));
    }

    #[test]
    fn a_cluster_that_is_no_candidate_is_asked_for_those_that_name_it() {
        for (home, is_wanted) in [("c9", true), ("nam1", false)] {
            let mut target = target(home);
            target.denied(&cluster(home), None, Instant::now());
            target.found(&cluster("eu1"));
            let target = later(target, Instant::now());
            assert_eq!(target.is_wanted_at(&cluster("c9"), false), is_wanted);
        }
    }

    /// It may have gone to one of those that denied it while it was connected.
    #[test]
    fn a_gateway_that_left_is_looked_for_everywhere_once_more() {
        let (mut target, now) = (target("eu1"), Instant::now());
        let is_wanted = |target: &Target| target.is_wanted_at(&cluster("nam1"), true);
        target.denied(&cluster("nam1"), None, now);
        target.found(&cluster("eu1"));
        let mut target = later(target, now);
        assert!(!is_wanted(&target), "the first cluster has not denied it");
        target.denied(&cluster("eu1"), None, now);
        assert!(is_wanted(&target));
        target.denied(&cluster("nam1"), None, now);
        target.denied(&cluster("eu1"), None, now);
        assert!(!is_wanted(&target), "it was away already");
    }

    #[test]
    fn a_gateway_is_disconnected_when_its_home_and_all_candidates_say_so() {
        let now = Instant::now();
        let verdict = |target: &Target| target.verdict(&[cluster("eu1")]);
        for place in ["eu1", "nam1"] {
            let mut target = target("nam1");
            target.denied(&cluster(place), None, now);
            assert_eq!(verdict(&target), None, "{place}");
        }
        let mut target = target("nam1");
        target.denied(&cluster("nam1"), None, now);
        target.denied(&cluster("eu1"), None, now);
        assert_eq!(verdict(&target), Some(("nam1".into(), Ok(None))));
        target.found(&cluster("nam1"));
        assert_eq!(verdict(&target), None);
    }

    #[test]
    fn a_gateway_that_is_at_home_needs_no_memory() {
        let (mut target, now) = (target("eu1"), Instant::now());
        target.denied(&cluster("eu1"), None, now);
        target.found(&cluster("nam1"));
        let mut target = later(target, now);
        assert_eq!(target.first, cluster("nam1"));
        target.found(&cluster("eu1"));
        let target = later(target, now);
        assert_eq!(target.first, cluster("eu1"));
        assert!(!target.has_learnt());
    }

    /// Another cluster may have an older connection of it.
    #[test]
    fn home_is_asked_again_after_five_minutes() {
        let (mut target, start) = (target("eu1"), Instant::now());
        target.denied(&cluster("eu1"), None, start);
        target.found(&cluster("nam1"));
        let mut target = later(target, start + ANSWER_TTL);
        assert_eq!(target.first, cluster("eu1"));
        assert!(target.is_wanted_at(&cluster("nam1"), true));
        target.denied(&cluster("eu1"), None, start + ANSWER_TTL);
        assert!(target.is_wanted_at(&cluster("nam1"), true));
    }

    #[test]
    fn a_registration_that_the_scrape_had_no_time_for_makes_nothing_certain() {
        for (reason, is_certain) in [(Reason::Budget, false), (Reason::ServerError, true)] {
            let error = Some(Arc::new(FetchError::new(reason, "")));
            let mut target = target_of("eu1", error);
            target.denied(&cluster("eu1"), None, Instant::now());
            assert_eq!(target.verdict(&[]).is_some(), is_certain, "{reason:?}");
        }
    }

    #[test]
    fn only_a_gateway_that_was_asked_for_itself_stays_out_of_batches_after_its_refusal() {
        let (eu1, start) = (cluster("eu1"), Instant::now());
        for was_asked in [true, false] {
            let mut target = target("eu1");
            let answer = target.answer_mut(&eu1);
            answer.said = Some((start, crate::examples::refused(Reason::Forbidden)));
            answer.alone_until = was_asked.then(|| start + 2 * ANSWER_TTL);
            let almost = start + ANSWER_TTL - Duration::from_nanos(1);
            let target = later(target, almost);
            let answer = target.answer(&eu1).expect("an answer");
            assert!(answer.said.is_some());
            let target = later(target, start + ANSWER_TTL);
            let answer = target.answer(&eu1);
            assert!(answer.is_none_or(|answer| answer.said.is_none()));
            assert_eq!(answer.is_some(), was_asked);
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
