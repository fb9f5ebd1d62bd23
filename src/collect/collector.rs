//! One collection: what has to be fetched, in which order, and within which time. Results go into
//! [`Known`] at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::collect::gateway_list::GatewayList;
use crate::collect::known::Known;
use crate::collect::outage_log::OutageLog;
use crate::collect::states::StateReader;
use crate::error::Reason;
use crate::model::{GatewayReport, KeyInfo};
use crate::things_stack::{BaseUrl, Client, KnownHosts};

/// A collection gets at least this long. A client with less time is answered before, and the next
/// one finds the result.
const TIME_MIN: Duration = Duration::from_secs(2);
/// How long a failure is remembered at most.
pub const FAILURE_TTL_MAX: Duration = Duration::from_secs(10);
/// How often the API key's own state is asked for, and after a failure.
const KEY_INFO_TTL: Duration = Duration::from_secs(3600);
const KEY_INFO_RETRY: Duration = Duration::from_secs(300);
/// The most that this may take: a scrape that comes meanwhile waits.
const KEY_INFO_TIME: Duration = Duration::from_secs(2);
/// It begins when the last collection ended so long ago: the next one is then most likely a scrape
/// interval away.
const QUIET_TIME: Duration = Duration::from_secs(1);
/// It waits for that no longer than this.
const KEY_INFO_DELAY_MAX: Duration = Duration::from_secs(5);

/// What a request for the metrics brings along.
#[derive(Clone, Copy)]
pub struct Scrape {
    /// When the request reached this process.
    pub arrived: Instant,
    /// When it must be answered.
    pub deadline: Instant,
    /// The present, for what expires.
    pub now: Instant,
    /// The present, for people.
    pub at: SystemTime,
}

impl Scrape {
    /// At this moment.
    pub fn new(arrived: Instant, deadline: Instant) -> Scrape {
        Scrape {
            arrived,
            deadline,
            now: Instant::now(),
            at: SystemTime::now(),
        }
    }

    /// Whether it can use what was obtained then: it is fresh, or newer than the scrape.
    pub fn is_served(&self, ended: Instant, expiry: Instant) -> bool {
        self.now < expiry || ended >= self.arrived
    }

    pub fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// The same with no more than this time from now on.
    pub fn within(&self, time: Duration) -> Scrape {
        let deadline = self.deadline.min(Instant::now() + time);
        Scrape { deadline, ..*self }
    }
}

pub struct Collector {
    client: Client,
    list: GatewayList,
    states: StateReader,
    known: Known,
    outage_log: OutageLog,
    /// Names of fields whose unexpected form was logged.
    logged_fields: BTreeSet<&'static str>,
    /// When the last collection ended, or this process began.
    collected: Instant,
    /// From when on the key's own state is to be asked for again.
    key_info_due: Instant,
    /// Which key this was learnt with ([`Client::key_number`]).
    key_number: u64,
}

impl Collector {
    pub fn new(
        client: Client,
        server: BaseUrl,
        hosts: KnownHosts,
        list: GatewayList,
        ttl: Duration,
    ) -> Collector {
        let start = Instant::now();
        let known = Known::new(ttl, client.counters.clone());
        Collector {
            key_number: client.key_number,
            client,
            list,
            states: StateReader::new(server, hosts, known.clone()),
            known,
            outage_log: OutageLog::default(),
            logged_fields: BTreeSet::new(),
            collected: start,
            key_info_due: start,
        }
    }

    /// What is known, for the threads that answer.
    pub fn known(&self) -> Known {
        self.known.clone()
    }

    /// Fetches what this scrape needs and is not known, by its deadline, but for at least two
    /// seconds.
    pub fn collect(&mut self, scrape: &Scrape) {
        if self.known.serves(scrape) {
            return;
        }
        let is_list_due = self.known.is_list_due(scrape);
        let at_hand = self.known.at_hand(scrape);
        self.known
            .count(|counters| counters.cache_hits += at_hand as u64);
        let start = Instant::now();
        let deadline = scrape.deadline.max(start + TIME_MIN);
        let by = |deadline| Scrape {
            deadline,
            ..*scrape
        };
        let has_new_key = is_list_due && self.client.reload_key();
        // The list at hand comes first, so that a slow new one costs no scrape. Where that was cut off
        // before, the stats leave it half of the time. A new key may list other gateways.
        let half = start + (deadline - start) / 2;
        let is_list_short = is_list_due && self.list.is_cut();
        if !has_new_key {
            self.read_stats(&by(if is_list_short { half } else { deadline }));
        }
        if is_list_due {
            self.read_list(&by(deadline));
            self.read_stats(&by(deadline));
        }
        self.finish(scrape, start, at_hand);
    }

    /// How long until [`Collector::ask_about_key`] may ask.
    pub fn time_to_key_info(&self, now: Instant) -> Duration {
        let quiet = self.collected + QUIET_TIME;
        let at = quiet.min(self.key_info_due + KEY_INFO_DELAY_MAX);
        at.max(self.key_info_due).saturating_duration_since(now)
    }

    /// Asks for the rights and the expiry of the API key, if it is time to. To be called while no
    /// client waits: it takes up to two seconds.
    pub fn ask_about_key(&mut self, now: Instant) {
        if !self.time_to_key_info(now).is_zero() {
            return;
        }
        // A panic must not make it ask without end.
        self.key_info_due = now + KEY_INFO_RETRY;
        let (server, needs_list) = (self.states.server.clone(), self.list.is_listed());
        let info = self
            .client
            .key_info(&server, needs_list, now + KEY_INFO_TIME);
        self.forget_old_key();
        let wait = match info {
            Ok(info) => {
                self.set_key_info(info);
                KEY_INFO_TTL
            }
            // A question that hangs holds up a scrape that comes meanwhile.
            Err(refused) if refused.error.reason == Reason::Timeout => KEY_INFO_TTL,
            Err(_) => KEY_INFO_RETRY,
        };
        self.key_info_due = Instant::now() + wait;
    }

    fn set_key_info(&mut self, info: KeyInfo) {
        let info = Arc::new(info);
        let new = info.clone();
        let old = self.known.change_about(|about| about.key.replace(new));
        let is_said = old.is_some_and(|old| old.missing_rights == info.missing_rights);
        if !info.missing_rights.is_empty() && !is_said {
            let rights = info.missing_rights.join("\" and \"");
            log::warn!(
                "the API key lacks the right \"{rights}\": grant it in the console, under API keys"
            );
        }
    }

    /// A new key may have other rights than the old one, and another expiry.
    fn forget_old_key(&mut self) {
        if self.key_number != self.client.key_number {
            self.key_number = self.client.key_number;
            self.states.forget_refusals();
            self.list.begin_anew();
            self.known.change_about(|about| about.key = None);
            self.key_info_due = Instant::now();
        }
    }

    fn read_list(&mut self, scrape: &Scrape) {
        let server = self.states.server.clone();
        self.list.read(&mut self.client, &server, scrape);
        self.states.set_gateways(&self.list);
        self.known.set_list_read(self.list.tried);
        if let Some(error) = &self.list.error {
            self.known
                .count(|counters| counters.count_error(error.reason));
        }
        self.known.change_about(|about| {
            about.list_error = self.list.error.clone();
            about.list_obtained_at = self.list.obtained_at;
        });
    }

    fn read_stats(&mut self, scrape: &Scrape) {
        self.forget_old_key();
        self.states.read(&mut self.client, scrape);
    }

    /// Counts what was fetched, and counts and logs what is still missing.
    fn finish(&mut self, scrape: &Scrape, start: Instant, at_hand: usize) {
        let took = start.elapsed();
        self.collected = Instant::now();
        self.known.change_about(|about| {
            about.collected = Some((scrape.at, took));
            about.warnings = self.client.warnings.clone();
        });
        let snapshot = self.known.snapshot(scrape);
        // Other errors were counted when they came.
        let errors = snapshot.gateways.iter().filter_map(GatewayReport::error);
        let cut = errors.filter(|error| error.reason == Reason::Budget);
        let field_errors = std::mem::take(&mut self.client.field_errors);
        let server = &self.states.server;
        let fetched = snapshot.gateways.len().saturating_sub(at_hand);
        self.known.count(|counters| {
            counters.cache_misses += fetched as u64;
            counters.errors[Reason::Budget as usize] += cut.count() as u64;
            counters.errors[Reason::Field as usize] += field_errors.total();
            // Of hosts that are asked for the list or for any gateway.
            counters.rate_limits.retain(|host, _| {
                let mut gateways = snapshot.gateways.iter();
                *host == server.host || gateways.any(|report| *report.cluster == **host)
            });
            if let Some(error) = snapshot.first_error() {
                counters.last_error = Some((scrape.at, error.clone()));
            }
        });
        for field_error in field_errors.iter() {
            if self.logged_fields.insert(field_error.field) {
                log::warn!("{field_error}; this field is left out");
            }
        }
        for (level, line) in self.outage_log.enter(&snapshot) {
            log::log!(level, "{line}");
        }
        log::debug!("collected {} gateways in {took:?}", snapshot.gateways.len());
    }
}
