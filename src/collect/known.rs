//! The TTL map: by gateway, what the API last said and until when that is used. It is shared between
//! the loop that collects and the threads that answer: a client whose deadline comes first gets a
//! snapshot of it while a collection runs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::collect::Scrape;
use crate::collect::clusters::Home;
use crate::collect::stats::is_refusal;
use crate::collect::target::Target;
use crate::collect::uplink_rate::UplinkRate;
use crate::error::{FetchError, Reason};
use crate::model::{Counters, Gateway, GatewayReport, KeyInfo, Outcome, Snapshot};

#[derive(Clone)]
pub struct Known {
    state: Arc<Mutex<State>>,
    counters: Arc<Mutex<Counters>>,
}

#[derive(Default)]
struct State {
    /// Sorted by id.
    gateways: Vec<Watched>,
    about: About,
    /// The last snapshot, until something changes.
    last: Option<Made>,
}

struct Watched {
    gateway: Arc<Gateway>,
    home: Arc<Home>,
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

/// What is known beside the gateways.
#[derive(Default)]
pub struct About {
    pub list_error: Option<Arc<FetchError>>,
    pub list_obtained_at: Option<SystemTime>,
    pub key: Option<Arc<KeyInfo>>,
    pub warnings: Vec<String>,
    /// The beginning of the last collection by this machine's clock, and how long it took.
    pub collected: Option<(SystemTime, Duration)>,
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
    pub fn new(counters: Arc<Mutex<Counters>>) -> Known {
        let state = Arc::default();
        Known { state, counters }
    }

    /// What is known and fresh for this scrape; the rest is unknown (`budget`). It makes no
    /// request. The same `Arc` comes again as long as nothing has changed.
    pub fn snapshot(&self, scrape: &Scrape) -> Arc<Snapshot> {
        let mut state = self.state();
        if let Some(last) = &state.last
            && last.serves(scrape)
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

    /// Takes over the list, which is sorted by id. A gateway that is not in it is forgotten.
    pub(super) fn set_gateways(&self, gateways: Vec<(Arc<Gateway>, Arc<Home>)>) {
        let mut state = self.changed();
        let watched = gateways.into_iter().map(|(gateway, home)| Watched {
            fetched: state
                .watched(&gateway.gateway_id)
                .and_then(|w| w.fetched.take()),
            gateway,
            home,
        });
        state.gateways = watched.collect();
    }

    pub(super) fn change_about<T>(&self, change: impl FnOnce(&mut About) -> T) -> T {
        change(&mut self.changed().about)
    }

    /// Keeps the outcome of a gateway, if it is still in the list.
    pub(super) fn insert(&self, id: &str, cluster: Arc<str>, outcome: Outcome, expiry: Instant) {
        let mut state = self.changed();
        let Some(watched) = state.watched(id) else {
            return;
        };
        let ended = Instant::now();
        let rate = watched.fetched.as_ref().map(|earlier| earlier.uplink_rate);
        watched.fetched = Some(Fetched {
            uplink_rate: rate.unwrap_or_default().after(&outcome, ended),
            outcome,
            cluster,
            ended,
            expiry,
        });
    }

    /// The gateways to ask for in this scrape, and how many there are in all. A scrape may have no
    /// time for all of them, so it begins with the first one that was never asked for, or else of
    /// which nothing was heard for longest, and goes around from there.
    pub(super) fn missing(&self, scrape: &Scrape) -> (Vec<Target>, usize) {
        let state = self.state();
        let all = state.gateways.iter();
        let missing = all.filter(|watched| watched.fetched_for(scrape).is_none());
        let missing: Vec<&Watched> = missing.collect();
        let heard = |at: &usize| missing[*at].fetched.as_ref().map(|fetched| fetched.ended);
        let oldest = (0..missing.len()).min_by_key(heard).unwrap_or(0);
        let (later, first) = missing.split_at(oldest);
        let target =
            |watched: &&Watched| Target::new(watched.gateway.clone(), watched.home.clone());
        let targets = first.iter().chain(later).map(target).collect();
        (targets, state.gateways.len())
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
        let is_usable = |f: &&Fetched| scrape.now < f.expiry || f.ended >= scrape.arrived;
        self.fetched.as_ref().filter(is_usable)
    }

    fn report(&self, scrape: &Scrape, unknown: &Arc<FetchError>) -> GatewayReport {
        let fetched = self.fetched_for(scrape);
        GatewayReport {
            gateway: self.gateway.clone(),
            cluster: fetched.map_or(&self.home.host, |f| &f.cluster).clone(),
            outcome: fetched.map_or_else(|| Err(unknown.clone()), |f| f.outcome.clone()),
            uplinks_per_hour: fetched.and_then(|f| f.uplink_rate.per_hour),
        }
    }
}

impl State {
    fn watched(&mut self, id: &str) -> Option<&mut Watched> {
        let of_id = |watched: &Watched| (*watched.gateway.gateway_id).cmp(id);
        let at = self.gateways.binary_search_by(of_id).ok()?;
        Some(&mut self.gateways[at])
    }

    fn make(&self, scrape: &Scrape) -> Made {
        let unknown = budget("it could not be asked for within the time of the scrape");
        let reports = self.gateways.iter().map(|w| w.report(scrape, &unknown));
        let gateways: Vec<GatewayReport> = reports.collect();
        let fetched = self.gateways.iter().filter_map(|w| w.fetched_for(scrape));
        let fresh_until = fetched.map(|fetched| fetched.expiry).min();
        let about = &self.about;
        let list_error = match (&about.list_error, about.list_obtained_at) {
            (None, None) => Some(budget(
                "the list of gateways did not come within the time of the scrape",
            )),
            (error, _) => error.clone(),
        };
        let snapshot = Arc::new(Snapshot {
            is_api_up: list_error.is_none() && is_api_up(&gateways),
            gateways,
            list_error,
            list_obtained_at: about.list_obtained_at,
            key: about.key.clone(),
            warnings: about.warnings.clone(),
            collected: about.collected,
        });
        Made {
            snapshot,
            arrived: scrape.arrived,
            fresh_until,
        }
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
    use super::*;
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
        let known = Known::new(Arc::default());
        let home = Arc::new(Home::of(cluster("eu1")));
        let gateways = ids.iter().map(|id| (gateway(id), home.clone()));
        known.set_gateways(gateways.collect());
        known.change_about(|about| about.list_obtained_at = Some(SystemTime::UNIX_EPOCH));
        known
    }

    fn insert(known: &Known, outcome: Outcome, expiry: Instant) {
        known.insert("a", "eu1".into(), outcome, expiry);
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
        known.insert("a", "nam1".into(), connected(1), now + TTL);
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
        assert_eq!(known.missing(&scrape(asked + TTL)).0.len(), 1);
        assert!(known.missing(&scrape(asked)).0.is_empty());
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
        known.insert("a", "eu1".into(), connected(1), now + TTL);
        known.insert("b", "eu1".into(), connected(1), now);
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
            known.insert(id, "eu1".into(), outcome.clone(), now + TTL);
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
}
