//! Which gateways there are: the list of the key, of an organization or of a user, page by
//! page, or the registrations of the gateways named on the command line.
//!
//! The list at hand stays until another one was read whole. A reading that runs out of time is
//! continued by the next collection, with the pages and registrations that it has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::collect::Scrape;
use crate::error::{FetchError, Reason};
use crate::model::{Endpoint, Gateway};
use crate::things_stack::{BaseUrl, CallError, Client};

/// A hundred thousand gateways: a server that never ends its list has another fault.
const PAGES_MAX: usize = 100;
/// How often a list that changes between two pages is begun anew within one collection.
const RESTARTS_MAX: usize = 3;
/// Pages that are older than this are not continued.
const READING_MAX: Duration = Duration::from_secs(900);

/// Which gateways to watch.
#[derive(Debug, PartialEq, Eq)]
pub enum Scope {
    /// Whatever the key may list.
    Key,
    /// Whatever this organization or user collaborates on.
    Organization(String),
    User(String),
    /// These alone, without a list call.
    Gateways(Vec<String>),
}

pub struct GatewayList {
    scope: Scope,
    exclude: BTreeSet<String>,
    ttl: Duration,
    /// After a failure the next try comes sooner.
    retry_after: Duration,
    gateways: BTreeMap<String, Arc<Gateway>>,
    /// When the list was last obtained whole.
    obtained_at: Option<SystemTime>,
    /// The end of the last try.
    tried: Option<Instant>,
    next_try: Option<Instant>,
    error: Option<Arc<FetchError>>,
    reading: Option<Reading>,
    /// Gateways named on the command line whose registration was never read nor refused.
    unregistered: Vec<String>,
    /// Whether the last try ran out of time.
    is_slow: bool,
    /// Whether the log has said that there are none.
    is_known_empty: bool,
}

/// What has been read of a list that is not whole yet.
struct Reading {
    started: Instant,
    found: BTreeMap<String, Arc<Gateway>>,
    /// The pages read so far, and their elements, those that are no gateway included.
    pages: usize,
    entries: u64,
    /// Gateways that stand twice in the list: it changed between two pages.
    duplicates: usize,
    /// `X-Total-Count` of the first page.
    total: Option<u64>,
    restarts: usize,
    /// Of the gateways named on the command line, those that need not be asked for again.
    settled: BTreeSet<String>,
}

impl Reading {
    fn new(started: Instant, restarts: usize) -> Reading {
        Reading {
            started,
            found: BTreeMap::new(),
            pages: 0,
            entries: 0,
            duplicates: 0,
            total: None,
            restarts,
            settled: BTreeSet::new(),
        }
    }
}

impl GatewayList {
    /// `exclude` are ids of gateways that are left out.
    pub fn new(
        scope: Scope,
        exclude: BTreeSet<String>,
        ttl: Duration,
        retry_after: Duration,
    ) -> GatewayList {
        let unregistered = match &scope {
            Scope::Gateways(ids) => ids.clone(),
            _ => Vec::new(),
        };
        let nameless = |id: &String| (id.clone(), nameless(id));
        GatewayList {
            scope,
            exclude,
            ttl,
            retry_after: retry_after.min(ttl),
            gateways: unregistered.iter().map(nameless).collect(),
            obtained_at: None,
            tried: None,
            next_try: None,
            error: None,
            reading: None,
            unregistered,
            is_slow: false,
            is_known_empty: false,
        }
    }

    /// The gateways by id.
    pub fn gateways(&self) -> impl ExactSizeIterator<Item = &Arc<Gateway>> {
        self.gateways.values()
    }

    pub fn contains(&self, gateway_id: &str) -> bool {
        self.gateways.contains_key(gateway_id)
    }

    pub fn is_empty(&self) -> bool {
        self.gateways.is_empty()
    }

    /// Why the list is missing, incomplete or an older one.
    pub fn error(&self) -> Option<&Arc<FetchError>> {
        self.error.as_ref()
    }

    /// When the list was last obtained whole, by this machine's clock.
    pub fn obtained_at(&self) -> Option<SystemTime> {
        self.obtained_at
    }

    /// Whether the gateway's registration may still name a cluster that is not known yet.
    pub fn is_unregistered(&self, gateway_id: &str) -> bool {
        self.unregistered.iter().any(|id| id == gateway_id)
    }

    /// Whether the last try ran out of time: then stats come before the next one.
    pub fn is_slow(&self) -> bool {
        self.is_slow
    }

    /// Whether gateways come from a list call.
    pub fn is_listed(&self) -> bool {
        !matches!(self.scope, Scope::Gateways(_))
    }

    /// Whether it is time to read it: what was tried after the scrape arrived is new enough.
    pub fn is_due(&self, scrape: &Scrape) -> bool {
        let is_time = self.next_try.is_none_or(|next_try| scrape.now >= next_try);
        let is_new = self.tried.is_some_and(|tried| tried >= scrape.arrived) && !self.is_slow;
        is_time && !is_new
    }

    /// Reads on until the list is whole, something fails, or the deadline comes.
    pub fn read(
        &mut self,
        client: &mut Client,
        server: &BaseUrl,
        at: SystemTime,
        deadline: Instant,
    ) {
        let start = Instant::now();
        client.reload_key();
        // A list that is good enough can wait for the rate limit.
        if self.error.is_none()
            && self.obtained_at.is_some()
            && let Some(until) = client.silenced_until(Endpoint::List, server)
        {
            self.next_try = Some(until);
            return;
        }
        let kept = self.reading.take();
        let kept = kept.filter(|reading| start.duration_since(reading.started) < READING_MAX);
        let mut reading = kept.unwrap_or_else(|| Reading::new(start, 0));
        let result = match &self.scope {
            Scope::Key => self.read_pages(client, server, "", deadline, &mut reading),
            Scope::Organization(id) => {
                let owner = format!("/organizations/{id}");
                self.read_pages(client, server, &owner, deadline, &mut reading)
            }
            Scope::User(id) => {
                let owner = format!("/users/{id}");
                self.read_pages(client, server, &owner, deadline, &mut reading)
            }
            Scope::Gateways(ids) => read_registrations(client, server, ids, deadline, &mut reading),
        };
        self.settle(result, reading, start, at, deadline);
    }

    /// Reads page after page until there are as many entries as the server has in all.
    fn read_pages(
        &self,
        client: &mut Client,
        server: &BaseUrl,
        owner: &str,
        deadline: Instant,
        reading: &mut Reading,
    ) -> Result<(), FetchError> {
        while reading.pages < PAGES_MAX {
            let (page, total) = client
                .list(server, owner, reading.pages + 1, deadline)
                .map_err(|refused| refused.error)?;
            let is_last = page.entries == 0 || reading.entries + page.entries as u64 >= total;
            reading.pages += 1;
            reading.entries += page.entries as u64;
            for gateway in page.gateways {
                if self.exclude.contains(&gateway.gateway_id) {
                    continue;
                }
                let id = gateway.gateway_id.clone();
                let earlier = reading.found.insert(id, Arc::new(gateway));
                reading.duplicates += usize::from(earlier.is_some());
            }
            let has_changed = *reading.total.get_or_insert(total) != total;
            let is_whole = reading.entries == total && reading.duplicates == 0;
            match (has_changed || is_last, is_whole && !has_changed) {
                (true, true) => return Ok(()),
                (true, false) if reading.restarts < RESTARTS_MAX => {
                    *reading = Reading::new(Instant::now(), reading.restarts + 1);
                }
                (true, false) => {
                    *reading = Reading::new(Instant::now(), 0);
                    let context = format!(
                        "{}: the list of gateways is not as long as its X-Total-Count ({total}), or \
                     changes while it is read",
                        server.host
                    );
                    return Err(FetchError::new(Reason::Shape, context));
                }
                (false, _) => {}
            }
        }
        let context = format!("{}: the list of gateways has no end", server.host);
        Err(FetchError::new(Reason::TooLarge, context))
    }

    fn settle(
        &mut self,
        result: Result<(), FetchError>,
        mut reading: Reading,
        start: Instant,
        at: SystemTime,
        deadline: Instant,
    ) {
        let ended = Instant::now();
        self.tried = Some(ended);
        let is_cut = result.is_err() && deadline.saturating_duration_since(ended) < CUT_MARGIN;
        self.is_slow = is_cut;
        self.error = result.err().map(Arc::new);
        self.take(&mut reading);
        self.next_try = match (&self.error, is_cut) {
            (None, _) => Some(start + self.ttl),
            // The next collection continues.
            (Some(_), true) => None,
            (Some(_), false) => Some(ended + self.retry_after),
        };
        if self.error.is_some() {
            self.reading = Some(reading);
            return;
        }
        self.obtained_at = Some(at);
        if self.gateways.is_empty() && !self.is_known_empty {
            log::warn!("the API key lists no gateway: its owner collaborates on none");
        }
        self.is_known_empty = self.gateways.is_empty();
    }

    /// Makes what was read the list at hand: all of it where it is whole; registrations one by
    /// one; and of a first list whatever there is.
    fn take(&mut self, reading: &mut Reading) {
        let is_listed = self.is_listed();
        if is_listed && self.error.is_none() {
            self.gateways = std::mem::take(&mut reading.found);
        } else if !is_listed || self.obtained_at.is_none() {
            let found = reading.found.iter();
            let found = found.map(|(id, gateway)| (id.clone(), gateway.clone()));
            self.gateways.extend(found);
            self.unregistered.retain(|id| !reading.settled.contains(id));
        }
    }
}

/// A try that ends so shortly before its deadline was cut off by it.
const CUT_MARGIN: Duration = Duration::from_millis(60);

/// A gateway of which nothing but its id is known.
fn nameless(id: &str) -> Arc<Gateway> {
    Arc::new(Gateway {
        gateway_id: id.to_owned(),
        ..Gateway::default()
    })
}

/// What is registered of the gateways named on the command line. Their key may well not be
/// allowed to read it: then they are watched without a name.
fn read_registrations(
    client: &mut Client,
    server: &BaseUrl,
    ids: &[String],
    deadline: Instant,
    reading: &mut Reading,
) -> Result<(), FetchError> {
    for id in ids {
        if reading.settled.contains(id) {
            continue;
        }
        match client.gateway(server, id, deadline) {
            Ok(gateway) if gateway.gateway_id == *id => {
                reading.found.insert(id.clone(), Arc::new(gateway));
            }
            // After a failure that is not about the gateway, the others would fail alike.
            Err(refused) if !is_final(&refused) => return Err(refused.error),
            _ => {}
        }
        reading.settled.insert(id.clone());
    }
    Ok(())
}

/// Whether asking again for a registration will bring the same: the key has no right to it,
/// or the server keeps no registrations.
fn is_final(refused: &CallError) -> bool {
    match refused.status {
        Some(401 | 429) | None => false,
        Some(status) => refused.is_of_api && matches!(status, 400..=499 | 501),
    }
}
