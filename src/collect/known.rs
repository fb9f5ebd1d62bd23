//! The TTL map: by gateway, what the API last said and until when that is used. It is shared between
//! the loop that collects and the threads that answer: a client whose deadline comes first gets a
//! snapshot of it while a collection runs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::collect::stats::is_refusal;
use crate::collect::target::Located;
use crate::collect::{FAILURE_TTL_MAX, Scrape};
use crate::error::{FetchError, Reason};
use crate::model::{Counters, GatewayReport, Outcome, Snapshot, Timestamp};

/// Two readings of a counter that are closer than this tell no rate.
const INTERVAL_MIN: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub struct Known {
    ttl: Duration,
    state: Arc<Mutex<State>>,
    counters: Arc<Mutex<Counters>>,
}

#[derive(Default)]
struct State {
    /// Sorted by id.
    gateways: Vec<Watched>,
    /// When the list was last read, and until when it need not be read again.
    list_read: Option<(Instant, Instant)>,
    /// What is known beside them: a snapshot without gateways.
    about: Snapshot,
    /// The last snapshot, until something changes.
    last: Option<Made>,
}

struct Watched {
    located: Located,
    fetched: Option<Fetched>,
}

/// What the API last said of one gateway, or why it did not.
struct Fetched {
    outcome: Outcome,
    /// The host where it was found, or looked for.
    cluster: Arc<str>,
    /// When it was obtained: for a scrape that arrived before, it is new enough.
    ended: Instant,
    expiry: Instant,
    uplink_rate: UplinkRate,
}

/// How many uplinks a gateway carries in an hour: the difference of two readings of the counter of
/// one connection.
#[derive(Default)]
pub struct UplinkRate {
    last: Option<Reading>,
    pub per_hour: Option<f64>,
}

/// What the stats of a connected gateway say of its uplinks.
struct Reading {
    connected_at: Option<Timestamp>,
    uplink_count: u64,
    at: Instant,
}

/// A snapshot, and for how long it need not be made anew.
struct Made {
    snapshot: Arc<Snapshot>,
    arrived: Instant,
    /// When something in it expires.
    fresh_until: Option<Instant>,
}

impl Made {
    /// A scrape that arrived later lacks what this one lacks. Something that was not fresh any more
    /// serves only scrapes that arrived together.
    fn serves(&self, scrape: &Scrape) -> bool {
        let is_fresh = self.fresh_until.is_none_or(|until| scrape.now < until);
        scrape.arrived == self.arrived || (is_fresh && scrape.arrived > self.arrived)
    }
}

impl Known {
    /// `ttl` is how long stats are fresh.
    pub fn new(ttl: Duration, counters: Arc<Mutex<Counters>>) -> Known {
        let state = Arc::default();
        let known = Known {
            ttl,
            state,
            counters,
        };
        let no_list = "the list of gateways did not come within the time of the scrape";
        known.change_about(|about| about.list_error = Some(budget(no_list)));
        known
    }

    /// What is known and fresh for this scrape; the rest is unknown (`budget`). It makes no
    /// request. The same `Arc` comes again as long as nothing has changed.
    pub fn snapshot(&self, scrape: &Scrape) -> Arc<Snapshot> {
        let mut state = self.state();
        if !state.last.as_ref().is_some_and(|last| last.serves(scrape)) {
            // The old one makes room for the new one.
            state.last = None;
        }
        let made = state.last.take().unwrap_or_else(|| state.make(scrape));
        state.last.insert(made).snapshot.clone()
    }

    /// Whether this scrape needs no request: the list and the stats of all gateways are fresh. Then
    /// the gateways are counted as served from memory.
    pub fn serves(&self, scrape: &Scrape) -> bool {
        let state = self.state();
        let at_hand = state.fetched_for(scrape).count();
        let serves = !state.is_list_due(scrape) && at_hand == state.gateways.len();
        if serves {
            self.count(|counters| counters.cache_hits += at_hand as u64);
        }
        serves
    }

    /// What the exporter has counted of itself until now.
    pub fn counters(&self) -> Counters {
        self.count(|counters| counters.clone())
    }

    pub(super) fn count<T>(&self, change: impl FnOnce(&mut Counters) -> T) -> T {
        change(&mut self.counters.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes over the list, which is sorted by id. A gateway that is not in it is forgotten.
    pub(super) fn set_gateways(&self, gateways: Vec<Located>) {
        let mut state = self.changed();
        let watched = gateways.into_iter().map(|located| {
            let earlier = state.watched(&located.0.gateway_id);
            let fetched = earlier.and_then(|watched| watched.fetched.take());
            Watched { located, fetched }
        });
        state.gateways = watched.collect();
    }

    /// Takes over when the list was last read, and until when it need not be read again.
    pub(super) fn set_list_read(&self, list_read: Option<(Instant, Instant)>) {
        self.changed().list_read = list_read;
    }

    pub(super) fn change_about<T>(&self, change: impl FnOnce(&mut Snapshot) -> T) -> T {
        change(&mut self.changed().about)
    }

    /// Keeps the outcome of a gateway, if it is still in the list, and counts its error. It was
    /// asked for at this moment.
    pub(super) fn insert(&self, id: &str, cluster: Arc<str>, outcome: Outcome, asked: Instant) {
        let ended = Instant::now();
        let expiry = match &outcome {
            Ok(_) => asked + self.ttl,
            Err(_) => ended + self.ttl.min(FAILURE_TTL_MAX),
        };
        // Field errors are counted one by one.
        if let Err(error) = &outcome
            && error.reason != Reason::Field
        {
            self.count(|counters| counters.count_error(error.reason));
        }
        let mut state = self.changed();
        let Some(watched) = state.watched(id) else {
            return;
        };
        let rate = watched.fetched.take().map(|earlier| earlier.uplink_rate);
        watched.fetched = Some(Fetched {
            uplink_rate: rate.unwrap_or_default().after(&outcome, ended),
            outcome,
            cluster,
            ended,
            expiry,
        });
    }

    /// The gateways to ask for in this scrape. It may have no time for all of them, so it begins with
    /// the first one that was never asked for, or else of which nothing was heard for longest, and
    /// goes around from there.
    pub(super) fn missing(&self, scrape: &Scrape) -> Vec<Located> {
        let state = self.state();
        let all = state.gateways.iter();
        let mut missing: Vec<&Watched> = all.filter(|w| w.fetched_for(scrape).is_none()).collect();
        let heard = |at: &usize| missing[*at].fetched.as_ref().map(|fetched| fetched.ended);
        let oldest = (0..missing.len()).min_by_key(heard).unwrap_or(0);
        missing.rotate_left(oldest);
        let missing = missing.into_iter().map(|watched| watched.located.clone());
        missing.collect()
    }

    /// Whether the list has to be read for this scrape.
    pub(super) fn is_list_due(&self, scrape: &Scrape) -> bool {
        self.state().is_list_due(scrape)
    }

    /// How many gateways this scrape need not ask for.
    pub(super) fn at_hand(&self, scrape: &Scrape) -> usize {
        self.state().fetched_for(scrape).count()
    }

    /// For a change: the last snapshot is no longer true.
    fn changed(&self) -> MutexGuard<'_, State> {
        let mut state = self.state();
        state.last = None;
        state
    }

    /// A panic leaves plain data behind, valid at each step.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    /// What this scrape can use: it is fresh, or newer than the scrape.
    fn fetched_for(&self, scrape: &Scrape) -> Option<&Fetched> {
        let fetched = self.fetched.as_ref();
        fetched.filter(|fetched| scrape.is_served(fetched.ended, fetched.expiry))
    }

    fn report(&self, scrape: &Scrape, unknown: &Arc<FetchError>) -> GatewayReport {
        let (fetched, (gateway, home)) = (self.fetched_for(scrape), &self.located);
        GatewayReport {
            gateway: gateway.clone(),
            cluster: fetched.map_or(&home.host, |f| &f.cluster).clone(),
            outcome: fetched.map_or_else(|| Err(unknown.clone()), |f| f.outcome.clone()),
            uplinks_per_hour: fetched.and_then(|f| f.uplink_rate.per_hour),
        }
    }
}

impl State {
    fn watched(&mut self, id: &str) -> Option<&mut Watched> {
        let of_id = |watched: &Watched| (*watched.located.0.gateway_id).cmp(id);
        let at = self.gateways.binary_search_by(of_id).ok()?;
        Some(&mut self.gateways[at])
    }

    fn is_list_due(&self, scrape: &Scrape) -> bool {
        let is_fresh = |(ended, next)| scrape.is_served(ended, next);
        !self.list_read.is_some_and(is_fresh)
    }

    /// What this scrape can use.
    fn fetched_for(&self, scrape: &Scrape) -> impl Iterator<Item = &Fetched> {
        let gateways = self.gateways.iter();
        gateways.filter_map(|watched| watched.fetched_for(scrape))
    }

    fn make(&self, scrape: &Scrape) -> Made {
        let unknown = budget("it could not be asked for within the time of the scrape");
        let reports = self.gateways.iter().map(|w| w.report(scrape, &unknown));
        let gateways: Vec<GatewayReport> = reports.collect();
        let fetched = self.fetched_for(scrape);
        let fresh_until = fetched.map(|fetched| fetched.expiry).min();
        let snapshot = Arc::new(Snapshot {
            is_api_up: self.about.list_error.is_none() && is_api_up(&gateways),
            gateways,
            ..self.about.clone()
        });
        Made {
            snapshot,
            arrived: scrape.arrived,
            fresh_until,
        }
    }
}

impl UplinkRate {
    /// The rate after this outcome, which was obtained at this moment. An outcome without a
    /// counter has no rate, and leaves the last reading for the next one.
    pub fn after(self, outcome: &Outcome, at: Instant) -> UplinkRate {
        let reading = Reading::of(outcome, at);
        let per_hour = match (&reading, &self.last) {
            (Some(_), Some(last)) if at - last.at < INTERVAL_MIN => return self,
            (Some(reading), Some(last)) => reading.per_hour_since(last),
            _ => None,
        };
        let last = reading.or(self.last);
        UplinkRate { last, per_hour }
    }
}

impl Reading {
    fn of(outcome: &Outcome, at: Instant) -> Option<Reading> {
        let stats = outcome.as_ref().ok()?.as_ref()?;
        stats.is_connected().then_some(Reading {
            connected_at: stats.connected_at,
            uplink_count: stats.uplink_count?,
            at,
        })
    }

    /// None if they are of two connections.
    fn per_hour_since(&self, earlier: &Reading) -> Option<f64> {
        let count = self.uplink_count.checked_sub(earlier.uplink_count)?;
        let hours = (self.at - earlier.at).as_secs_f64() / 3600.0;
        (self.connected_at == earlier.connected_at).then_some(count as f64 / hours)
    }
}

fn budget(what: &str) -> Arc<FetchError> {
    Arc::new(FetchError::new(Reason::Budget, what))
}

/// Whether the API answered for all gateways. Errors of single gateways do not count, unless the
/// key can read none.
fn is_api_up(gateways: &[GatewayReport]) -> bool {
    let is_any_readable = gateways.iter().any(|report| report.outcome.is_ok());
    let mut errors = gateways.iter().filter_map(GatewayReport::error);
    errors.all(|error| error.is_of_gateway && (is_any_readable || !is_refusal(error)))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::collect::target::Home;
    use crate::examples::{cluster, connected, failed, gateway, refused};
    use crate::model::State as GatewayState;

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
        let known = Known::new(TTL, Arc::default());
        let home = Arc::new(Home {
            cluster: cluster("eu1"),
            host: "eu1".into(),
            error: None,
        });
        let gateways = ids.iter().map(|id| (gateway(id), home.clone()));
        known.set_gateways(gateways.collect());
        known.change_about(|about| about.list_error = None);
        known
    }

    fn insert(known: &Known, outcome: Outcome, expiry: Instant) {
        known.insert("a", "eu1".into(), outcome, expiry - TTL);
    }

    #[test]
    fn before_the_first_list_nothing_is_known_and_the_api_is_not_up() {
        let snapshot = Known::new(TTL, Arc::default()).snapshot(&scrape(Instant::now()));
        let reason = snapshot.list_error.as_ref().map(|error| error.reason);
        assert_eq!(reason, Some(Reason::Budget));
        assert!(!snapshot.is_api_up && snapshot.gateways.is_empty());
    }

    #[test]
    fn what_is_not_known_yet_is_unknown_and_the_rest_is_told() {
        let (known, now) = (known(&["a", "b"]), Instant::now());
        known.insert("a", "nam1".into(), connected(1), now);
        let snapshot = known.snapshot(&scrape(now));
        let states: Vec<_> = snapshot.gateways.iter().map(GatewayReport::state).collect();
        assert_eq!(states, [GatewayState::Connected, GatewayState::Unknown]);
        assert_eq!(&*snapshot.gateways[0].cluster, "nam1");
        assert!(!snapshot.is_api_up);
    }

    #[test]
    fn what_has_expired_serves_only_those_who_asked_before_it_came() {
        let (known, asked) = (known(&["a"]), Instant::now());
        insert(&known, connected(1), asked);
        let states = |arrived| known.snapshot(&scrape(arrived)).gateways[0].state();
        assert_eq!(states(asked), GatewayState::Connected);
        assert_eq!(states(asked + TTL), GatewayState::Unknown);
        assert_eq!(known.missing(&scrape(asked + TTL)).len(), 1);
        assert!(known.missing(&scrape(asked)).is_empty());
    }

    #[test]
    fn a_scrape_needs_no_request_while_the_list_and_all_gateways_are_fresh() {
        let (known, now) = (known(&["a", "b"]), Instant::now());
        let serves = |time| known.serves(&scrape(now + time));
        known.insert("a", "eu1".into(), connected(1), now);
        known.set_list_read(Some((now, now + 2 * TTL)));
        assert!(!serves(TTL / 2));
        known.insert("b", "eu1".into(), failed(Reason::Timeout), now);
        assert!(serves(TTL / 2) && !serves(TTL));
        known.set_list_read(Some((now, now + TTL / 2)));
        assert!(!serves(TTL / 2));
        known.set_list_read(None);
        assert!(!serves(Duration::ZERO));
        assert_eq!(known.counters().cache_hits, 2);
    }

    #[test]
    fn a_list_without_gateways_is_fresh_too() {
        let (known, now) = (known(&[]), Instant::now());
        assert!(!known.serves(&scrape(now)));
        known.set_list_read(Some((now, now + TTL)));
        assert!(known.serves(&scrape(now)));
    }

    #[test]
    fn the_same_snapshot_comes_again_until_something_changes_or_expires() {
        let (known, now) = (known(&["a"]), Instant::now());
        insert(&known, connected(1), now + TTL);
        let first = known.snapshot(&scrape(now));
        let later = |time| known.snapshot(&scrape(now + time));
        assert!(Arc::ptr_eq(&first, &later(TTL - Duration::from_nanos(1))));
        assert!(!Arc::ptr_eq(&first, &later(TTL)));
        let first = known.snapshot(&scrape(now));
        insert(&known, connected(2), now + TTL);
        assert!(!Arc::ptr_eq(&first, &known.snapshot(&scrape(now))));
    }

    /// As when many are answered while the API hangs.
    #[test]
    fn what_is_not_complete_serves_those_who_came_later_and_not_those_who_came_earlier() {
        let (known, now) = (known(&["a", "b"]), Instant::now());
        known.insert("a", "eu1".into(), connected(1), now);
        known.insert("b", "eu1".into(), connected(1), now - TTL);
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
        insert(&known, connected(1), now + TTL);
        known.set_gateways(Vec::new());
        assert!(known.snapshot(&scrape(now)).gateways.is_empty());
        insert(&known, connected(1), now + TTL);
        assert!(known.state().gateways.is_empty());
    }

    #[track_caller]
    fn check_api(outcomes: &[Outcome], expected: bool) {
        let ids = ["a", "b", "c"];
        let (known, now) = (known(&ids[..outcomes.len()]), Instant::now());
        for (id, outcome) in ids.into_iter().zip(outcomes) {
            known.insert(id, "eu1".into(), outcome.clone(), now);
        }
        let snapshot = known.snapshot(&scrape(now));
        assert_eq!(snapshot.is_api_up, expected, "{outcomes:?}");
    }

    #[test]
    fn the_api_is_up_unless_it_failed_or_the_key_can_read_nothing() {
        check_api(&[], true);
        check_api(&[Ok(None), connected(1)], true);
        check_api(&[connected(1), refused(Reason::Forbidden)], true);
        check_api(&[connected(1), refused(Reason::UnknownHost)], true);
        check_api(&[refused(Reason::UnknownHost)], true);
        check_api(&[refused(Reason::Forbidden)], false);
        check_api(&[connected(1), failed(Reason::Timeout)], false);
        check_api(&[connected(1), failed(Reason::Forbidden)], false);
    }

    #[test]
    fn uplinks_an_hour_are_those_between_two_readings_of_one_connection() {
        let start = Instant::now();
        let minute = Duration::from_secs(60);
        let mut rate = UplinkRate::default();
        let mut check = |outcome: Outcome, after: Duration, expected: Option<f64>| {
            rate = std::mem::take(&mut rate).after(&outcome, start + after);
            assert_eq!(rate.per_hour, expected, "{after:?}");
        };
        check(connected(100), Duration::ZERO, None);
        check(connected(130), minute, Some(1800.0));
        let soon = minute + Duration::from_secs(1);
        check(connected(130), soon, Some(1800.0));
        check(failed(Reason::Timeout), 2 * minute, None);
        check(connected(190), 3 * minute, Some(1800.0));
        check(connected(5), 4 * minute, None);
    }
}
