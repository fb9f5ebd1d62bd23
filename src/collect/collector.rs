//! One collection: what is still fresh, what has to be fetched, from which cluster and in
//! which order, and within which time. It owns all that is remembered between scrapes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::cli::Config;
use crate::collect::gateway_list::GatewayList;
use crate::collect::gateway_list::Scope;
use crate::collect::known::Known;
use crate::collect::outage_log::{Line, OutageLog};
use crate::collect::stats::StatsReader;
use crate::collect::ttl_map::TtlMap;
use crate::error::{FetchError, Reason};
use crate::model::{Counters, Gateway, GatewayReport, Outcome, Snapshot};
use crate::things_stack::Client;
use crate::things_stack::{BaseUrl, KnownHosts};

/// The Python script kept as many; ours grows with what one collection needs.
const CAPACITY_MIN: usize = 200;

/// What a request for the metrics brings along.
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
    client: Client,
    server: BaseUrl,
    hosts: KnownHosts,
    list: GatewayList,
    reader: StatsReader,
    /// What is known of each gateway; failures are remembered like stats, so that scrapes
    /// which queued up behind a hanging API do not hang one after the other.
    outcomes: TtlMap<Arc<str>, Outcome>,
    /// Hosts that brought nothing the last time: they are asked last.
    troubled: BTreeSet<String>,
    outage_log: OutageLog,
    /// Names of fields whose unexpected form was logged.
    faulty_fields: BTreeSet<&'static str>,
    last: Option<Last>,
    known: Known,
}

struct Last {
    collection: Arc<Snapshot>,
    ended: Instant,
    /// Whether a scrape in a hurry left something out that another one has time for.
    is_cut: bool,
    /// When the first of what it knows expires.
    fresh_until: Instant,
}

impl Last {
    /// Whatever was found out after the request came in is new enough for it.
    fn is_new_for(&self, scrape: &Scrape) -> bool {
        let has_time = scrape.now < scrape.deadline;
        scrape.arrived <= self.ended && !(self.is_cut && has_time)
    }
}

fn is_cut(collection: &Snapshot) -> bool {
    let errors = collection
        .gateways
        .iter()
        .filter_map(|g| g.outcome.as_ref().err());
    let mut errors = errors.chain(&collection.list_error);
    errors.any(|error| error.reason == Reason::Budget)
}

/// The label of a cluster, and its API if the key may go there.
type Cluster = (Arc<str>, Result<BaseUrl, Arc<FetchError>>);

/// A gateway and the cluster to ask for its stats, if the key may go there.
struct Target {
    gateway: Arc<Gateway>,
    id: Arc<str>,
    cluster: Arc<str>,
    base: Result<BaseUrl, Arc<FetchError>>,
}

impl Collector {
    pub fn new(client: Client, config: &mut Config) -> Collector {
        let scope = std::mem::replace(&mut config.scope, Scope::Key);
        Collector {
            client,
            server: config.server.clone(),
            hosts: config.hosts.clone(),
            list: GatewayList::new(scope, config.list_ttl, config.ttl),
            reader: StatsReader::new(),
            outcomes: TtlMap::new(config.ttl, CAPACITY_MIN),
            troubled: BTreeSet::new(),
            outage_log: OutageLog::default(),
            faulty_fields: BTreeSet::new(),
            last: None,
            known: Known::default(),
        }
    }

    /// What is known, for whoever answers.
    pub fn known(&self) -> Known {
        self.known.clone()
    }

    pub fn counters(&mut self) -> &mut Counters {
        &mut self.client.counters
    }

    /// Everything that is known by the scrape's deadline. The same collection comes again as
    /// long as nothing has changed.
    pub fn collect(&mut self, scrape: &Scrape) -> Arc<Snapshot> {
        let is_again = self
            .last
            .as_ref()
            .is_some_and(|last| last.is_new_for(scrape))
            || {
                let list = &mut self.list;
                let is_renewed =
                    list.refresh(&mut self.client, &self.server, scrape.now, scrape.deadline);
                let is_fresh = |last: &Last| scrape.now < last.fresh_until;
                !is_renewed && self.last.as_ref().is_some_and(is_fresh)
            };
        if let (true, Some(last)) = (is_again, &self.last) {
            self.client.counters.cache_hits += last.collection.gateways.len() as u64;
            return last.collection.clone();
        }
        let targets = self.targets();
        let missing = self.missing(&targets, scrape.now);
        let fetched = self.fetch(missing, scrape);
        self.finish(targets, fetched, scrape)
    }

    fn targets(&mut self) -> Vec<Target> {
        let capacity = self.list.gateways().len().max(CAPACITY_MIN);
        self.outcomes.set_capacity(capacity);
        self.outcomes.retain(|id| self.list.contains(id));
        // Most gateways share a handful of addresses.
        let mut known: BTreeMap<&str, Cluster> = BTreeMap::new();
        let mut targets = Vec::with_capacity(capacity);
        for gateway in self.list.gateways() {
            let address = gateway.gateway_server_address.as_str();
            let (cluster, base) = known
                .entry(address)
                .or_insert_with(|| cluster_of(&self.hosts, address));
            targets.push(Target {
                gateway: gateway.clone(),
                id: gateway.gateway_id.as_str().into(),
                cluster: cluster.clone(),
                base: base.clone(),
            });
        }
        let is_watched = |host: &String| targets.iter().any(|target| *target.cluster == **host);
        self.troubled.retain(is_watched);
        targets
    }

    /// The gateways whose state has to be fetched, by cluster.
    fn missing(&mut self, targets: &[Target], now: Instant) -> BTreeMap<BaseUrl, Vec<Arc<str>>> {
        let mut missing: BTreeMap<BaseUrl, Vec<Arc<str>>> = BTreeMap::new();
        for target in targets {
            match &target.base {
                Ok(_) if self.outcomes.get(&target.id, now).is_some() => {
                    self.client.counters.cache_hits += 1;
                }
                Ok(base) => {
                    self.client.counters.cache_misses += 1;
                    let ids = missing.entry(base.clone()).or_default();
                    ids.push(target.id.clone());
                }
                Err(_) => {}
            }
        }
        // Whoever was left out for want of time comes first now.
        for ids in missing.values_mut() {
            ids.sort_by_key(|id| self.outcomes.has(id));
        }
        missing
    }

    /// Asks each cluster in turn. Each gets its share of the time that is left, so that one
    /// that hangs costs only its own gateways; what it leaves over goes to the next. Those
    /// that failed before come last, and the large ones after the small ones.
    fn fetch(
        &mut self,
        missing: BTreeMap<BaseUrl, Vec<Arc<str>>>,
        scrape: &Scrape,
    ) -> BTreeMap<Arc<str>, Outcome> {
        let mut clusters: Vec<_> = missing.into_iter().collect();
        clusters.sort_by_key(|(base, ids)| (self.troubled.contains(&base.host), ids.len()));
        let mut fetched = BTreeMap::new();
        for (index, (base, ids)) in clusters.iter().enumerate() {
            let present = Instant::now();
            let left = scrape.deadline.saturating_duration_since(present);
            let share = left / (clusters.len() - index) as u32;
            let (reader, client) = (&mut self.reader, &mut self.client);
            let outcomes = reader.read(client, base, ids, scrape.now, present + share);
            match outcomes.iter().any(|(_, outcome)| outcome.is_ok()) {
                true => self.troubled.remove(&base.host),
                false => self.troubled.insert(base.host.clone()),
            };
            fetched.extend(outcomes);
        }
        fetched
    }

    /// Puts the collection together and remembers it.
    fn finish(
        &mut self,
        targets: Vec<Target>,
        mut fetched: BTreeMap<Arc<str>, Outcome>,
        scrape: &Scrape,
    ) -> Arc<Snapshot> {
        let ended = Instant::now();
        let mut gateways = Vec::with_capacity(targets.len());
        let mut fresh_until = scrape.now + self.outcomes.ttl();
        for target in targets {
            let is_watched = target.base.is_ok();
            let outcome = match (target.base, fetched.remove(&target.id)) {
                (Err(error), _) => {
                    self.client.counters.count_error(error.reason);
                    Err(error)
                }
                (Ok(_), Some(outcome)) => {
                    let outcome = self.as_certain(&target.id, outcome);
                    self.remember(&target.id, &outcome, scrape.now, ended);
                    outcome
                }
                (Ok(_), None) => self.remembered(&target.id, scrape.now),
            };
            if is_watched {
                let expiry = self.outcomes.expiry(&target.id).unwrap_or(scrape.now);
                fresh_until = fresh_until.min(expiry);
            }
            gateways.push(GatewayReport {
                uplinks_per_hour: None,
                gateway: target.gateway,
                cluster: target.cluster,
                outcome,
            });
        }
        let collection = Arc::new(Snapshot {
            gateways,
            list_error: self.list.error().cloned(),
            list_obtained_at: None,
            is_api_up: self.list.error().is_none(),
            key: None,
            warnings: Vec::new(),
            at: scrape.at,
            duration: ended.saturating_duration_since(scrape.now),
        });
        if let Some(error) = collection.first_error() {
            self.client.counters.last_error = Some((collection.at, error.clone()));
        }
        self.report(&collection);
        self.known
            .set(collection.clone(), self.client.counters.clone());
        self.reader.retain(|id| self.list.contains(id));
        self.last = Some(Last {
            collection: collection.clone(),
            ended,
            is_cut: is_cut(&collection),
            fresh_until,
        });
        collection
    }

    /// That a server has no stats of a gateway is no news if the gateway may be elsewhere.
    fn as_certain(&self, id: &str, outcome: Outcome) -> Outcome {
        match (&outcome, self.list.error()) {
            (Ok(None), Some(error)) if self.list.is_uncertain(id) => Err(error.clone()),
            _ => outcome,
        }
    }

    /// Stats are as old as the question, failures as their end: an API that hangs for longer
    /// than the TTL must not hang the next scrape at once. A gateway that was not asked for,
    /// since the scrape ran out of time, is asked for by the next one.
    fn remember(&mut self, id: &Arc<str>, outcome: &Outcome, now: Instant, ended: Instant) {
        match outcome {
            Err(error) if error.reason == Reason::Budget => self.outcomes.remove(id),
            Err(_) => self.outcomes.insert(id.clone(), outcome.clone(), ended),
            Ok(_) => self.outcomes.insert(id.clone(), outcome.clone(), now),
        }
    }

    fn remembered(&self, id: &Arc<str>, now: Instant) -> Outcome {
        let outcome = self.outcomes.get(id, now).cloned();
        outcome.unwrap_or_else(|| {
            let context = "a gateway was neither fetched nor remembered";
            Err(Arc::new(FetchError::new(Reason::Internal, context)))
        })
    }

    fn report(&mut self, collection: &Snapshot) {
        for line in self.outage_log.enter(collection) {
            match line {
                Line::Failing(line) => log::warn!("{line}"),
                Line::Recovered(line) => log::info!("{line}"),
            }
        }
        let field_errors = std::mem::take(&mut self.client.field_errors);
        self.client.counters.errors[Reason::Field as usize] += field_errors.total();
        for fault in field_errors.iter() {
            if self.faulty_fields.insert(fault.field) {
                log::warn!("{fault}; this field is left out");
            }
        }
        log::debug!(
            "collected {} gateways in {:?}",
            collection.gateways.len(),
            collection.duration
        );
    }
}

fn cluster_of(hosts: &KnownHosts, gateway_server_address: &str) -> Cluster {
    match hosts.api_of(gateway_server_address) {
        Ok(base) => (base.host.as_str().into(), Ok(base)),
        Err(host) => {
            let context = format!(
                "the gateway's server address names {host}, and the API key is not sent \
                 there: --allow-host {host} would allow it"
            );
            let error = FetchError::new(Reason::UnknownHost, context);
            (host.into(), Err(Arc::new(error)))
        }
    }
}
