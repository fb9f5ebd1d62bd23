//! One collection: what has to be fetched, from which cluster and in which order, and within
//! which time. What it finds out goes into [`Known`] at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::collect::cluster_search::ClusterSearch;
use crate::collect::gateway_list::GatewayList;
use crate::collect::known::{About, Known};
use crate::collect::outage_log::{Line, OutageLog};
use crate::collect::stats::StatsReader;
use crate::error::Reason;
use crate::model::{KeyInfo, Snapshot};
use crate::things_stack::{BaseUrl, Client, KnownHosts};

/// What a collection gets at least, however short of time its client is: the next client finds
/// the result.
const TIME_MIN: Duration = Duration::from_secs(2);
/// How long a failure is remembered at most.
pub const FAILURE_TTL_MAX: Duration = Duration::from_secs(10);
/// How often the API key's own state is asked for, and after a failure.
const KEY_INFO_TTL: Duration = Duration::from_secs(3600);
const KEY_INFO_RETRY: Duration = Duration::from_secs(300);
/// For that question: scrapes may be waiting.
const KEY_INFO_TIME: Duration = Duration::from_secs(2);

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

pub struct Collector {
    pub(super) client: Client,
    pub(super) server: BaseUrl,
    pub(super) hosts: KnownHosts,
    pub(super) list: GatewayList,
    pub(super) reader: StatsReader,
    pub(super) search: ClusterSearch,
    pub(super) ttl: Duration,
    /// Hosts that brought nothing the last time: they are asked last.
    pub(super) failing_hosts: Vec<String>,
    outage_log: OutageLog,
    /// Names of fields whose unexpected form was logged.
    logged_fields: BTreeSet<&'static str>,
    /// When the key's own state is asked for again.
    next_key_info: Option<Instant>,
    pub(super) known: Known,
}

impl Collector {
    pub fn new(
        client: Client,
        server: BaseUrl,
        hosts: KnownHosts,
        list: GatewayList,
        ttl: Duration,
    ) -> Collector {
        let known = Known::new(client.counters());
        Collector {
            client,
            server,
            hosts,
            list,
            reader: StatsReader::default(),
            search: ClusterSearch::default(),
            ttl,
            failing_hosts: Vec::new(),
            outage_log: OutageLog::default(),
            logged_fields: BTreeSet::new(),
            next_key_info: None,
            known,
        }
    }

    /// What is known, for whoever answers.
    pub fn known(&self) -> Known {
        self.known.clone()
    }

    /// Finds out what this scrape needs and is not known, by its deadline. A collection that
    /// has begun gets at least two seconds.
    pub fn collect(&mut self, scrape: &Scrape) {
        let is_list_due = self.list.is_due(scrape);
        let missing = self.known.missing(scrape);
        let count = self.known.gateway_count();
        self.known
            .count(|counters| counters.cache_hits += (count - missing.len()) as u64);
        if !is_list_due && missing.is_empty() {
            return;
        }
        let start = Instant::now();
        let deadline = scrape.deadline.max(start + TIME_MIN);
        if is_list_due && !self.list.is_slow() {
            let left = deadline.saturating_duration_since(start);
            let is_first = self.list.is_empty();
            self.read_list(scrape, if is_first { deadline } else { start + left / 2 });
        }
        let mut asked = self.read_stats(scrape, deadline);
        if is_list_due && self.list.is_slow() && !self.list.is_empty() {
            self.read_list(scrape, deadline);
            // Those that are new in it.
            asked.append(&mut self.read_stats(scrape, deadline));
        }
        self.finish(scrape, start, is_list_due, &asked);
    }

    /// How long [`Collector::ask_about_key`] can wait.
    pub fn time_to_key_info(&self, now: Instant) -> Duration {
        let next = self.next_key_info;
        next.map_or(Duration::ZERO, |next| next.saturating_duration_since(now))
    }

    /// Asks for the state of the API key when it is time to. For a moment in which no client
    /// waits: it takes up to two seconds.
    pub fn ask_about_key(&mut self, now: Instant) {
        if !self.time_to_key_info(now).is_zero() {
            return;
        }
        let needs_list = self.list.is_listed();
        let info = self
            .client
            .key_info(&self.server, needs_list, now + KEY_INFO_TIME);
        self.next_key_info = Some(
            Instant::now()
                + if info.is_ok() {
                    KEY_INFO_TTL
                } else {
                    KEY_INFO_RETRY
                },
        );
        match info {
            Ok(info) => self.set_key_info(info),
            Err(refused) => log::debug!("the API key's own state is not known: {}", refused.error),
        }
    }

    fn set_key_info(&mut self, info: KeyInfo) {
        let mut about = self.known.about();
        let is_known = about
            .key
            .as_deref()
            .is_some_and(|known| known.missing_rights == info.missing_rights);
        if !info.missing_rights.is_empty() && !is_known {
            let rights = info.missing_rights.join("\" and \"");
            log::warn!(
                "the API key lacks the right \"{rights}\": grant it in the console, under API keys"
            );
        }
        about.key = Some(Arc::new(info));
        self.known.set_about(about);
    }

    fn read_list(&mut self, scrape: &Scrape, deadline: Instant) {
        self.list
            .read(&mut self.client, &self.server, scrape.at, deadline);
        let mut clusters: BTreeMap<&str, Arc<str>> = BTreeMap::new();
        let mut gateways = Vec::with_capacity(self.list.gateways().len());
        for gateway in self.list.gateways() {
            let address = gateway.gateway_server_address.as_str();
            // Most gateways share a handful of addresses.
            let cluster =
                clusters
                    .entry(address)
                    .or_insert_with(|| match self.hosts.api_of(address) {
                        Ok(base) => base.host.into(),
                        Err(host) => host.into(),
                    });
            gateways.push((gateway.clone(), cluster.clone()));
        }
        self.known.set_gateways(gateways);
        self.reader.retain(|id| self.list.contains(id));
        self.search.retain(|id| self.list.contains(id));
        let mut about = self.known.about();
        about.list_error = self.list.error().cloned();
        about.list_obtained_at = self.list.obtained_at();
        self.known.set_about(about);
    }

    /// Counts and logs what is missing in the end.
    fn finish(&mut self, scrape: &Scrape, start: Instant, has_read_list: bool, asked: &[Arc<str>]) {
        let mut about: About = self.known.about();
        about.collected = Some((scrape.at, start.elapsed()));
        about.warnings = self.client.warnings().to_vec();
        self.known.set_about(about);
        let snapshot = self.known.snapshot(scrape);
        let error_of = |id: &Arc<str>| {
            let reports = &snapshot.gateways;
            let found = reports.binary_search_by(|report| (*report.gateway.gateway_id).cmp(id));
            reports[found.ok()?].outcome.as_ref().err()
        };
        let of_list = snapshot.list_error.iter().filter(|_| has_read_list);
        let field_errors = std::mem::take(&mut self.client.field_errors);
        self.known.count(|counters| {
            for error in asked.iter().filter_map(error_of).chain(of_list) {
                // Fields are counted one by one.
                if error.reason != Reason::Field {
                    counters.count_error(error.reason);
                }
            }
            counters.errors[Reason::Field as usize] += field_errors.total();
            counters
                .rate_limits
                .retain(|host, _| self.is_asked(host, &snapshot));
            if let Some(error) = snapshot.first_error() {
                counters.last_error = Some((scrape.at, error.clone()));
            }
        });
        for field_error in field_errors.iter() {
            if self.logged_fields.insert(field_error.field) {
                log::warn!("{field_error}; this field is left out");
            }
        }
        self.report(&snapshot, start.elapsed());
    }

    /// Whether this host is one of those that are asked now.
    fn is_asked(&self, host: &str, snapshot: &Snapshot) -> bool {
        let mut gateways = snapshot.gateways.iter();
        host == self.server.host || gateways.any(|report| *report.cluster == *host)
    }

    fn report(&mut self, snapshot: &Snapshot, took: Duration) {
        for line in self.outage_log.enter(snapshot) {
            match line {
                Line::Failing(line) => log::warn!("{line}"),
                Line::Recovered(line) => log::info!("{line}"),
            }
        }
        log::debug!("collected {} gateways in {took:?}", snapshot.gateways.len());
    }
}
