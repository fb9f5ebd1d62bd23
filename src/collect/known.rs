//! What is known at this moment, shared between the loop that collects and the threads that
//! answer: a client whose deadline comes first gets a snapshot of it while a collection runs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::collect::Scrape;
use crate::collect::ttl_map::TtlMap;
use crate::error::{FetchError, Reason};
use crate::model::{Counters, Gateway, GatewayReport, KeyInfo, Outcome, Snapshot, Timestamp};

/// Two readings of a counter that are closer than this tell no rate.
const RATE_TIME_MIN: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub struct Known {
    state: Arc<Mutex<State>>,
    counters: Arc<Mutex<Counters>>,
}

#[derive(Default)]
struct State {
    /// Sorted by id, each with the cluster where it is looked for first.
    gateways: Vec<(Arc<Gateway>, Arc<str>)>,
    about: About,
    outcomes: TtlMap<Arc<str>, Fetched>,
    /// Grows with each change.
    version: u64,
    last: Option<Made>,
}

/// What is known beside the gateways.
#[derive(Clone, Default)]
pub struct About {
    pub list_error: Option<Arc<FetchError>>,
    pub list_obtained_at: Option<SystemTime>,
    pub key: Option<Arc<KeyInfo>>,
    pub warnings: Vec<String>,
    /// The end of the last collection by this machine's clock, and how long it took.
    pub collected: Option<(SystemTime, Duration)>,
}

/// What became of asking for one gateway.
struct Fetched {
    outcome: Outcome,
    /// Where it was found, or looked for.
    cluster: Arc<str>,
    /// Whoever arrived before this has no use for something newer.
    ended: Instant,
    counted: Option<Counted>,
    uplinks_per_hour: Option<f64>,
}

/// A reading of the uplink counter of one connection.
#[derive(Clone, Copy)]
struct Counted {
    uplinks: u64,
    connected_at: Option<Timestamp>,
    at: Instant,
}

/// A snapshot, and for how long it need not be made anew.
struct Made {
    snapshot: Arc<Snapshot>,
    version: u64,
    arrived: Instant,
    is_complete: bool,
    fresh_until: Instant,
}

impl Made {
    fn serves(&self, scrape: &Scrape, version: u64) -> bool {
        // What is missing is missing for whoever came later, too.
        let is_enough = self.is_complete || scrape.arrived >= self.arrived;
        let is_fresh = scrape.now < self.fresh_until && is_enough;
        // Without fresh data it serves those who asked together.
        self.version == version && (is_fresh || scrape.arrived == self.arrived)
    }
}

impl Known {
    pub fn new(counters: Arc<Mutex<Counters>>) -> Known {
        let state = Arc::default();
        Known { state, counters }
    }

    /// What is known and fresh for this scrape; the rest is unknown (`budget`). It waits for
    /// nothing and asks nobody. The same `Arc` comes again as long as nothing has changed.
    pub fn snapshot(&self, scrape: &Scrape) -> Arc<Snapshot> {
        let mut state = self.state();
        if let Some(last) = &state.last
            && last.serves(scrape, state.version)
        {
            return last.snapshot.clone();
        }
        // The old one makes room for the new one.
        state.last = None;
        let made = state.make(scrape);
        let snapshot = made.snapshot.clone();
        state.last = Some(made);
        snapshot
    }

    /// What the exporter has counted of itself until now.
    pub fn counters(&self) -> Counters {
        self.count(|counters| counters.clone())
    }

    pub(super) fn count<T>(&self, change: impl FnOnce(&mut Counters) -> T) -> T {
        change(&mut self.counters.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes over the list, which is sorted by id: what is no longer in it is forgotten.
    pub(super) fn set_gateways(&self, gateways: Vec<(Arc<Gateway>, Arc<str>)>) {
        let mut state = self.state();
        let is_listed = |id: &Arc<str>| {
            let found = gateways.binary_search_by(|(gateway, _)| (*gateway.gateway_id).cmp(id));
            found.is_ok()
        };
        state.outcomes.retain(is_listed);
        state.gateways = gateways;
        state.version += 1;
    }

    pub(super) fn set_about(&self, about: About) {
        let mut state = self.state();
        state.about = about;
        state.version += 1;
    }

    pub(super) fn about(&self) -> About {
        self.state().about.clone()
    }

    /// Keeps what became of asking for a gateway.
    pub(super) fn insert(
        &self,
        id: &Arc<str>,
        cluster: Arc<str>,
        outcome: Outcome,
        expiry: Instant,
    ) {
        let mut state = self.state();
        let ended = Instant::now();
        let earlier = state.outcomes.get(id).map(|(earlier, _)| earlier);
        let fetched = Fetched::new(outcome, cluster, ended, earlier);
        state.outcomes.insert(id.clone(), fetched, expiry);
        state.version += 1;
    }

    /// The gateways of which too little is known for this scrape, sorted by id, and whether
    /// anything was known of each before.
    pub(super) fn missing(&self, scrape: &Scrape) -> Vec<(Arc<Gateway>, bool)> {
        let state = self.state();
        let gateways = state.gateways.iter().map(|(gateway, _)| gateway);
        let missing = gateways.filter(|gateway| state.fetched(gateway, scrape).is_none());
        let was_known = |gateway: &Gateway| state.outcomes.get(&*gateway.gateway_id).is_some();
        missing
            .map(|gateway| (gateway.clone(), was_known(gateway)))
            .collect()
    }

    pub(super) fn gateway_count(&self) -> usize {
        self.state().gateways.len()
    }

    /// Whoever panicked with it left plain data behind, valid at each step.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fetched {
    fn new(
        outcome: Outcome,
        cluster: Arc<str>,
        ended: Instant,
        earlier: Option<&Fetched>,
    ) -> Fetched {
        let stats = outcome.as_ref().ok().and_then(Option::as_deref);
        let stats = stats.filter(|stats| stats.is_connected() && stats.is_readable("uplink_count"));
        let counted = stats.map(|stats| Counted {
            uplinks: stats.uplink_count,
            connected_at: stats.connected_at,
            at: ended,
        });
        let last = earlier.and_then(|earlier| earlier.counted);
        let rate = counted
            .zip(last)
            .and_then(|(counted, last)| counted.rate_since(last));
        let is_too_soon = counted
            .zip(last)
            .is_some_and(|(c, l)| c.at - l.at < RATE_TIME_MIN);
        Fetched {
            outcome,
            cluster,
            ended,
            // The longer of two intervals tells more; a failure in between spoils nothing.
            counted: if is_too_soon || counted.is_none() {
                last
            } else {
                counted
            },
            uplinks_per_hour: match is_too_soon {
                true => earlier.and_then(|earlier| earlier.uplinks_per_hour),
                false => rate,
            },
        }
    }
}

impl Counted {
    /// Messages an hour since an earlier reading of the same connection.
    fn rate_since(self, earlier: Counted) -> Option<f64> {
        let is_same = self.connected_at == earlier.connected_at;
        let count = self
            .uplinks
            .checked_sub(earlier.uplinks)
            .filter(|_| is_same)?;
        let hours = (self.at - earlier.at).as_secs_f64() / 3600.0;
        (hours > 0.0).then(|| count as f64 / hours)
    }
}

impl State {
    /// What is known of a gateway and can be used: it is fresh, or newer than the scrape.
    fn fetched(&self, gateway: &Gateway, scrape: &Scrape) -> Option<(&Fetched, Instant)> {
        let (fetched, expiry) = self.outcomes.get(&*gateway.gateway_id)?;
        let is_usable = scrape.now < expiry || fetched.ended >= scrape.arrived;
        is_usable.then_some((fetched, expiry))
    }

    fn make(&self, scrape: &Scrape) -> Made {
        let budget = |what: &str| Arc::new(FetchError::new(Reason::Budget, what));
        let unknown = budget("it could not be asked for within the time of the scrape");
        let mut fresh_until = scrape.now + Duration::from_secs(3600);
        let mut is_complete = true;
        let mut gateways = Vec::with_capacity(self.gateways.len());
        for (gateway, cluster) in &self.gateways {
            let fetched = self.fetched(gateway, scrape);
            is_complete &= fetched.is_some();
            fresh_until = fetched.map_or(fresh_until, |(_, expiry)| fresh_until.min(expiry));
            let fetched = fetched.map(|(fetched, _)| fetched);
            gateways.push(GatewayReport {
                gateway: gateway.clone(),
                cluster: fetched.map_or(cluster, |fetched| &fetched.cluster).clone(),
                outcome: fetched.map_or_else(|| Err(unknown.clone()), |f| f.outcome.clone()),
                uplinks_per_hour: fetched.and_then(|fetched| fetched.uplinks_per_hour),
            });
        }
        let about = self.about.clone();
        let has_list = about.list_obtained_at.is_some() || about.list_error.is_some();
        let list_error = match has_list {
            true => about.list_error,
            false => Some(budget(
                "the list of gateways did not come within the time of the scrape",
            )),
        };
        let (at, duration) = about.collected.unwrap_or((scrape.at, Duration::ZERO));
        let snapshot = Arc::new(Snapshot {
            is_api_up: list_error.is_none() && is_api_up(&gateways),
            gateways,
            list_error,
            list_obtained_at: about.list_obtained_at,
            key: about.key,
            warnings: about.warnings,
            at,
            duration,
        });
        Made {
            snapshot,
            version: self.version,
            arrived: scrape.arrived,
            is_complete,
            fresh_until,
        }
    }
}

/// Whether the API answered for all gateways: what concerns single ones does not count, unless
/// the key can read none.
fn is_api_up(gateways: &[GatewayReport]) -> bool {
    let mut errors = gateways
        .iter()
        .filter_map(|report| report.outcome.as_ref().err());
    let is_refused =
        |error: &Arc<FetchError>| matches!(error.reason, Reason::Forbidden | Reason::NotFound);
    let is_any_readable = gateways.iter().any(|report| report.outcome.is_ok());
    errors.clone().all(|error| error.is_of_gateway) && (is_any_readable || !errors.any(is_refused))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ConnectionStats, State as GatewayState};

    const TTL: Duration = Duration::from_secs(10);

    fn scrape(arrived: Instant) -> Scrape {
        Scrape {
            arrived,
            deadline: arrived + TTL,
            now: arrived,
            at: SystemTime::UNIX_EPOCH,
        }
    }

    /// With a whole list of these gateways.
    fn known(ids: &[&str]) -> Known {
        let known = Known::new(Arc::default());
        let gateway = |id: &&str| {
            let gateway_id = id.to_string();
            let gateway = Gateway {
                gateway_id,
                ..Gateway::default()
            };
            (Arc::new(gateway), Arc::from("eu1"))
        };
        known.set_gateways(ids.iter().map(gateway).collect());
        let list_obtained_at = Some(SystemTime::UNIX_EPOCH);
        known.set_about(About {
            list_obtained_at,
            ..About::default()
        });
        known
    }

    fn connected(uplink_count: u64) -> Outcome {
        let second = Timestamp {
            seconds: 1,
            nanoseconds: 0,
        };
        Ok(Some(Arc::new(ConnectionStats {
            connected_at: Some(second),
            uplink_count,
            ..ConnectionStats::default()
        })))
    }

    fn error(reason: Reason) -> FetchError {
        FetchError::new(reason, "what happened")
    }

    #[test]
    fn before_the_first_list_nothing_is_known_and_the_api_is_not_up() {
        let snapshot = Known::new(Arc::default()).snapshot(&scrape(Instant::now()));
        let reason = snapshot.list_error.as_ref().map(|error| error.reason);
        assert_eq!(reason, Some(Reason::Budget));
        assert!(!snapshot.is_api_up && snapshot.gateways.is_empty());
    }

    #[test]
    fn what_is_not_known_yet_is_unknown_and_the_rest_is_told() {
        let (known, now) = (known(&["a", "b"]), Instant::now());
        known.insert(&"a".into(), "nam1".into(), connected(1), now + TTL);
        let snapshot = known.snapshot(&scrape(now));
        let states: Vec<_> = snapshot.gateways.iter().map(GatewayReport::state).collect();
        assert_eq!(states, [GatewayState::Connected, GatewayState::Unknown]);
        assert_eq!(&*snapshot.gateways[0].cluster, "nam1");
        assert!(!snapshot.is_api_up);
    }

    #[test]
    fn what_has_expired_serves_only_those_who_asked_before_it_came() {
        let (known, asked) = (known(&["a"]), Instant::now());
        known.insert(&"a".into(), "eu1".into(), connected(1), asked);
        let states = |arrived| known.snapshot(&scrape(arrived)).gateways[0].state();
        assert_eq!(states(asked), GatewayState::Connected);
        assert_eq!(states(asked + TTL), GatewayState::Unknown);
        assert_eq!(known.missing(&scrape(asked + TTL)).len(), 1);
        assert!(known.missing(&scrape(asked)).is_empty());
    }

    #[test]
    fn the_same_snapshot_comes_again_until_something_changes_or_expires() {
        let (known, now) = (known(&["a"]), Instant::now());
        known.insert(&"a".into(), "eu1".into(), connected(1), now + TTL);
        let first = known.snapshot(&scrape(now));
        let later = |time| known.snapshot(&scrape(now + time));
        assert!(Arc::ptr_eq(&first, &later(TTL - Duration::from_nanos(1))));
        assert!(!Arc::ptr_eq(&first, &later(TTL)));
        let first = known.snapshot(&scrape(now));
        known.insert(&"a".into(), "eu1".into(), connected(2), now + TTL);
        assert!(!Arc::ptr_eq(&first, &known.snapshot(&scrape(now))));
    }

    /// As when many are answered while the API hangs.
    #[test]
    fn what_is_not_complete_serves_those_who_came_later_and_not_those_who_came_earlier() {
        let (known, now) = (known(&["a", "b"]), Instant::now());
        known.insert(&"a".into(), "eu1".into(), connected(1), now + TTL);
        known.insert(&"b".into(), "eu1".into(), connected(1), now);
        let later = |time| known.snapshot(&scrape(now + time));
        let first = later(TTL / 4);
        assert!(Arc::ptr_eq(&first, &later(TTL / 2)));
        assert!(!Arc::ptr_eq(&first, &later(TTL)));
        let state = known.snapshot(&scrape(now)).gateways[1].state();
        assert_eq!(state, GatewayState::Connected);
    }

    #[test]
    fn a_gateway_that_left_the_list_is_forgotten() {
        let (known, now) = (known(&["a"]), Instant::now());
        known.insert(&"a".into(), "eu1".into(), connected(1), now + TTL);
        known.set_gateways(Vec::new());
        assert!(known.snapshot(&scrape(now)).gateways.is_empty());
        assert_eq!(known.state().outcomes.get("a").map(|found| found.1), None);
    }

    #[track_caller]
    fn check_api(outcomes: &[Outcome], expected: bool) {
        let ids = ["a", "b", "c"];
        let (known, now) = (known(&ids[..outcomes.len()]), Instant::now());
        for (id, outcome) in ids.into_iter().zip(outcomes) {
            known.insert(&id.into(), "eu1".into(), outcome.clone(), now + TTL);
        }
        assert_eq!(
            known.snapshot(&scrape(now)).is_api_up,
            expected,
            "{outcomes:?}"
        );
    }

    #[test]
    fn the_api_is_up_unless_it_failed_or_the_key_can_read_nothing() {
        let of_api = |reason| Err(Arc::new(error(reason)));
        let of_gateway = |reason| Err(Arc::new(error(reason).of_gateway()));
        check_api(&[], true);
        check_api(&[Ok(None), connected(1)], true);
        check_api(&[connected(1), of_gateway(Reason::Forbidden)], true);
        check_api(&[connected(1), of_gateway(Reason::UnknownHost)], true);
        check_api(&[of_gateway(Reason::UnknownHost)], true);
        check_api(&[of_gateway(Reason::Forbidden)], false);
        check_api(&[connected(1), of_api(Reason::Timeout)], false);
        check_api(&[connected(1), of_api(Reason::Forbidden)], false);
    }

    fn fetched(outcome: Outcome, at: Instant, earlier: Option<&Fetched>) -> Fetched {
        Fetched::new(outcome, "eu1".into(), at, earlier)
    }

    #[test]
    fn uplinks_an_hour_are_those_between_two_readings_of_one_connection() {
        let start = Instant::now();
        let minute = Duration::from_secs(60);
        let first = fetched(connected(100), start, None);
        assert_eq!(first.uplinks_per_hour, None);
        let second = fetched(connected(130), start + minute, Some(&first));
        assert_eq!(second.uplinks_per_hour, Some(1800.0));
        let soon = start + minute + Duration::from_secs(1);
        let third = fetched(connected(130), soon, Some(&second));
        assert_eq!(third.uplinks_per_hour, Some(1800.0));
        let failed = fetched(
            Err(Arc::new(error(Reason::Timeout))),
            start + 2 * minute,
            Some(&third),
        );
        assert_eq!(failed.uplinks_per_hour, None);
        let fourth = fetched(connected(190), start + 3 * minute, Some(&failed));
        assert_eq!(fourth.uplinks_per_hour, Some(1800.0));
        let reset = fetched(connected(5), start + 4 * minute, Some(&fourth));
        assert_eq!(reset.uplinks_per_hour, None);
    }
}
