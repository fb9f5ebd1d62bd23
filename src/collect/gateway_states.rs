//! The states of the gateways that are missing: which cluster to ask first, where else to look
//! for those that are not connected there, and what is certain in the end.

use std::sync::Arc;
use std::time::Instant;

use crate::collect::cluster_search;
use crate::collect::collector::{Collector, FAILURE_TTL_MAX, Scrape};
use crate::collect::stats::Question;
use crate::error::{FetchError, Reason};
use crate::model::{Gateway, Outcome};
use crate::things_stack::{BaseUrl, KnownHosts};

/// Different addresses of registrations that are looked at for further clusters.
const ADDRESSES_MAX: usize = 64;

/// The cluster that a registration names, if it names one, or why the key must not go there.
type Registration = Result<Option<BaseUrl>, UnknownHost>;

/// A host that the key must not go to, and what to tell about it.
type UnknownHost = (Arc<str>, Arc<FetchError>);

/// A gateway to ask for.
struct Target {
    id: Arc<str>,
    /// Whether anything is known of it from an earlier collection.
    was_known: bool,
    registered_at: Registration,
    /// Where to ask first.
    first: BaseUrl,
    /// What the clusters that were asked said, the decisive one of them.
    said: Option<(BaseUrl, Outcome)>,
    /// Why a further cluster where it may be could not be asked.
    search_error: Option<Arc<FetchError>>,
    /// Whether the cluster that is asked now is to be asked for it.
    is_wanted: bool,
}

impl Target {
    fn is_connected(&self) -> bool {
        let outcome = self.said.as_ref().map(|(_, outcome)| outcome);
        matches!(outcome, Some(Ok(Some(stats))) if stats.is_connected())
    }

    fn has_failed(&self) -> bool {
        matches!(self.said, None | Some((_, Err(_))))
    }
}

impl Collector {
    /// Asks for all that are missing: each where it should be, and whoever is not connected
    /// there at the other clusters where it may be. Returns who was asked for.
    pub(super) fn read_stats(&mut self, scrape: &Scrape, deadline: Instant) -> Vec<Arc<str>> {
        let mut targets = self.targets(scrape);
        let candidates = self.candidates();
        let firsts = self.in_order(&targets);
        // A cluster that hangs must leave time for the search.
        let reserve = usize::from(candidates.len() > 1);
        for (index, base) in firsts.iter().enumerate() {
            let time = share(deadline, firsts.len() - index + reserve);
            self.ask(
                base,
                &mut targets,
                |target| target.first == *base,
                scrape,
                time,
            );
        }
        for (index, base) in candidates.iter().enumerate() {
            let time = share(deadline, candidates.len() - index);
            self.look_at(base, &mut targets, scrape, time);
        }
        let asked = targets.iter().map(|target| target.id.clone()).collect();
        for target in targets {
            self.settle(target, &candidates, scrape);
        }
        asked
    }

    fn targets(&self, scrape: &Scrape) -> Vec<Target> {
        let missing = self.known.missing(scrape);
        self.known
            .count(|counters| counters.cache_misses += missing.len() as u64);
        // Most gateways share one address with the gateway before.
        let mut last: Option<(Arc<Gateway>, Registration)> = None;
        let mut targets = Vec::with_capacity(missing.len());
        for (gateway, was_known) in missing {
            let address = gateway.gateway_server_address.as_str();
            let registered_at = match &last {
                Some((other, registered_at)) if other.gateway_server_address == address => {
                    registered_at.clone()
                }
                _ => self.registered_at(address),
            };
            let found_at = self.search.found_at(&gateway.gateway_id);
            let named = registered_at.as_ref().ok().and_then(Option::as_ref);
            targets.push(Target {
                id: gateway.gateway_id.as_str().into(),
                was_known,
                first: found_at.or(named).unwrap_or(&self.server).clone(),
                registered_at: registered_at.clone(),
                said: None,
                search_error: None,
                is_wanted: false,
            });
            last = Some((gateway, registered_at));
        }
        targets
    }

    fn registered_at(&self, address: &str) -> Registration {
        if !KnownHosts::names_host(address) {
            return Ok(None);
        }
        let base = self.hosts.api_of(address);
        base.map(Some).map_err(|host| unknown_host(&host))
    }

    /// The clusters to ask: those that failed before come last, and the large ones after the
    /// small ones.
    fn in_order(&self, targets: &[Target]) -> Vec<BaseUrl> {
        let mut clusters: Vec<(bool, usize, &BaseUrl)> = Vec::new();
        for target in targets {
            match clusters
                .iter_mut()
                .find(|(.., base)| *base == &target.first)
            {
                Some((_, size, _)) => *size += 1,
                None => {
                    let is_failing = self.failing_hosts.contains(&target.first.host);
                    clusters.push((is_failing, 1, &target.first));
                }
            }
        }
        let mut ordered = Vec::with_capacity(clusters.len());
        while let Some((at, _)) = clusters
            .iter()
            .enumerate()
            .min_by_key(|(_, cluster)| **cluster)
        {
            ordered.push(clusters.swap_remove(at).2.clone());
        }
        ordered
    }

    /// The clusters where a gateway may be whose registration is no help.
    fn candidates(&self) -> Vec<BaseUrl> {
        let mut addresses: Vec<&str> = Vec::new();
        for gateway in self.list.gateways() {
            let address = gateway.gateway_server_address.trim();
            if KnownHosts::names_host(address)
                && !addresses.contains(&address)
                && addresses.len() < ADDRESSES_MAX
            {
                addresses.push(address);
            }
        }
        let named = addresses
            .iter()
            .filter_map(|address| self.hosts.api_of(address).ok());
        cluster_search::candidates(self.hosts.candidates(), named)
    }

    /// Looks at one more cluster for those that are not connected where they were looked for.
    fn look_at(
        &mut self,
        base: &BaseUrl,
        targets: &mut [Target],
        scrape: &Scrape,
        deadline: Instant,
    ) {
        for target in targets.iter_mut() {
            let is_denied = || self.search.is_denied(&target.id, base, scrape.now);
            target.is_wanted = target.first != *base
                && !target.is_connected()
                && !target.has_failed()
                && !is_denied();
        }
        if targets.iter().any(|target| target.is_wanted) {
            self.ask(base, targets, |target| target.is_wanted, scrape, deadline);
        }
    }

    /// Asks one cluster for some of the targets and keeps what it says of them. Those of which
    /// nothing is known come first: an earlier scrape had no time for them.
    fn ask(
        &mut self,
        base: &BaseUrl,
        targets: &mut [Target],
        is_wanted: impl Fn(&Target) -> bool,
        scrape: &Scrape,
        deadline: Instant,
    ) {
        let wanted = |was_known: bool| {
            let of_kind = targets
                .iter()
                .filter(move |target| target.was_known == was_known);
            of_kind
                .filter(|target| is_wanted(target))
                .map(|target| target.id.clone())
        };
        let ids: Vec<Arc<str>> = wanted(false).chain(wanted(true)).collect();
        let mut said: Vec<(Arc<str>, Outcome)> = Vec::with_capacity(ids.len());
        let question = Question {
            base,
            gateway_ids: &ids,
            server: &self.server,
            now: scrape.now,
            deadline,
        };
        let (known, expiry) = (&self.known, scrape.now + self.ttl);
        let cluster: Arc<str> = base.host.as_str().into();
        self.reader
            .read(&mut self.client, &question, &mut |id, outcome| {
                // Whoever is connected is certain at once, for clients that cannot wait for the rest.
                if matches!(&outcome, Ok(Some(stats)) if stats.is_connected()) {
                    known.insert(id, cluster.clone(), outcome.clone(), expiry);
                }
                said.push((id.clone(), outcome));
            });
        self.failing_hosts.retain(|host| *host != base.host);
        if !said.iter().any(|(_, outcome)| outcome.is_ok()) {
            self.failing_hosts.push(base.host.clone());
        }
        for (id, outcome) in said {
            if let Ok(at) = targets.binary_search_by(|target| target.id.cmp(&id)) {
                self.note(&mut targets[at], base, outcome, scrape.now);
            }
        }
    }

    /// What one cluster said of a gateway, beside what others said before.
    fn note(&mut self, target: &mut Target, base: &BaseUrl, outcome: Outcome, now: Instant) {
        match &outcome {
            Err(error) if *base != target.first => {
                target.search_error.get_or_insert(error.clone());
                return;
            }
            Ok(Some(stats)) if stats.is_connected() => {
                let registered_at = target.registered_at.as_ref().ok();
                let registered_at = registered_at.map(|base| base.as_ref().unwrap_or(&self.server));
                self.search.found(&target.id, base, registered_at);
            }
            Ok(_) => self.search.denied(&target.id, base, now),
            Err(_) => {}
        }
        let is_better = match (&target.said, &outcome) {
            (None, _) => true,
            (Some((_, Ok(earlier))), Ok(Some(stats))) => stats.is_connected() || earlier.is_none(),
            _ => false,
        };
        if is_better {
            target.said = Some((base.clone(), outcome));
        }
    }

    /// Keeps what is certain of a gateway: it is disconnected only if every cluster where it
    /// may be said so.
    fn settle(&mut self, target: Target, candidates: &[BaseUrl], scrape: &Scrape) {
        let Some((base, outcome)) = target.said else {
            return;
        };
        let is_connected = matches!(&outcome, Ok(Some(stats)) if stats.is_connected());
        if is_connected {
            return;
        }
        let is_left = |base: &&BaseUrl| !self.search.is_denied(&target.id, base, scrape.now);
        let mut cluster: Arc<str> = base.host.as_str().into();
        let outcome = match (outcome, target.registered_at) {
            (Err(error), _) => Err(error),
            (Ok(_), _) if candidates.iter().any(|base| is_left(&base)) => match target.search_error
            {
                Some(error) => Err(error),
                None => return,
            },
            (Ok(_), Err((host, unknown_host))) => {
                cluster = host;
                Err(unknown_host)
            }
            (Ok(stats), Ok(_)) => match self.list.error() {
                Some(error) if self.list.is_unregistered(&target.id) => Err(error.clone()),
                _ => Ok(stats),
            },
        };
        let ended = Instant::now();
        let expiry = match &outcome {
            Err(error) if error.reason == Reason::Budget => return,
            Err(_) => ended + self.ttl.min(FAILURE_TTL_MAX),
            Ok(_) => scrape.now + self.ttl,
        };
        self.known.insert(&target.id, cluster, outcome, expiry);
    }
}

/// An equal share of the time that is left.
fn share(deadline: Instant, shares: usize) -> Instant {
    let now = Instant::now();
    now + deadline.saturating_duration_since(now) / shares.max(1) as u32
}

fn unknown_host(host: &str) -> UnknownHost {
    let context = format!(
        "the gateway's server address names {host}, and the API key is not sent there: \
         --allow-host {host} would allow it"
    );
    let error = FetchError::new(Reason::UnknownHost, context).of_gateway();
    (host.into(), Arc::new(error))
}
