//! Which gateways there are: the list of the key, of an organization or of a user, or the
//! registrations of the gateways named on the command line.
//!
//! A list stays in use until the next one was read whole. A reading that runs out of time is
//! continued by the next collection, with the pages and registrations that it has.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::collect::Scrape;
use crate::collect::list_pages::{Gateways, ListPages};
use crate::error::FetchError;
use crate::model::{Endpoint, Gateway};
use crate::things_stack::{BaseUrl, CallError, Client};

/// A try that ends so shortly before its deadline was cut off by it.
const CUT_MARGIN: Duration = Duration::from_millis(60);

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

impl Scope {
    /// Whose gateways to list, as it stands in the path; none where none are listed.
    fn owner(&self) -> Option<String> {
        match self {
            Scope::Key => Some(String::new()),
            Scope::Organization(id) => Some(format!("/organizations/{id}")),
            Scope::User(id) => Some(format!("/users/{id}")),
            Scope::Gateways(_) => None,
        }
    }
}

pub struct GatewayList {
    scope: Scope,
    exclude: BTreeSet<String>,
    ttl: Duration,
    /// After a failure the next try comes sooner.
    retry_after: Duration,
    /// The list at hand, by id.
    pub gateways: Gateways,
    /// When the list was last obtained whole, by this machine's clock.
    pub obtained_at: Option<SystemTime>,
    /// Why the list is missing, incomplete or an older one.
    pub error: Option<Arc<FetchError>>,
    /// When the last try ended; none where it was cut off and is to be continued.
    tried: Option<Instant>,
    /// When the next try is due.
    next: Instant,
    /// How long it took to obtain the list. After a try that was cut off, `MAX` and zero in turn:
    /// last with all the time that the stats leave, or first with half of the time.
    time: Duration,
    /// How long the tries took since it was last obtained.
    spent: Duration,
    /// What was read of a list that is not whole yet.
    pages: Option<ListPages>,
    /// The gateways named on the command line whose registration is still to be read.
    unread: Vec<String>,
}

impl GatewayList {
    /// `exclude` are ids of gateways that are left out.
    pub fn new(
        scope: Scope,
        exclude: BTreeSet<String>,
        ttl: Duration,
        retry_after: Duration,
    ) -> GatewayList {
        let unread = match &scope {
            Scope::Gateways(ids) => ids.clone(),
            _ => Vec::new(),
        };
        GatewayList {
            scope,
            exclude,
            ttl,
            retry_after: retry_after.min(ttl),
            gateways: unread.iter().map(|id| (id.clone(), nameless(id))).collect(),
            obtained_at: None,
            error: None,
            tried: None,
            next: Instant::now(),
            time: Duration::ZERO,
            spent: Duration::ZERO,
            pages: None,
            unread,
        }
    }

    /// Why the registration of a gateway named on the command line was never read nor refused:
    /// it may name a cluster that is not known yet.
    pub fn error_of_registration(&self, gateway_id: &str) -> Option<&Arc<FetchError>> {
        let was_obtained = self.obtained_at.is_some();
        let is_unread = !was_obtained && self.unread.iter().any(|id| id == gateway_id);
        self.error.as_ref().filter(|_| is_unread)
    }

    /// Whether reading it takes longer than this, while there is one to use: then stats come first.
    pub fn is_slower_than(&self, time: Duration) -> bool {
        self.time > time && !self.gateways.is_empty()
    }

    /// Whether gateways come from a list call.
    pub fn is_listed(&self) -> bool {
        !matches!(self.scope, Scope::Gateways(_))
    }

    /// Whether it is time to read it. A try after the scrape arrived is new enough.
    pub fn is_due(&self, scrape: &Scrape) -> bool {
        let is_new = |tried| scrape.now < self.next || tried >= scrape.arrived;
        !self.tried.is_some_and(is_new)
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
        if client.reload_key() {
            // What the old key could read says nothing about the new one.
            self.pages = None;
            self.unread.clear();
        }
        if let Some(until) = self.may_wait_until(client, server) {
            (self.tried, self.next) = (Some(start), until);
            return;
        }
        let result = match self.scope.owner() {
            Some(owner) => self.read_pages(client, server, &owner, deadline),
            None => self.read_registrations(client, server, deadline),
        };
        let ended = Instant::now();
        self.spent += ended - start;
        let is_cut = deadline.saturating_duration_since(ended) < CUT_MARGIN;
        self.error = result.err().map(Arc::new);
        self.tried = Some(ended);
        match &self.error {
            // The next collection continues.
            Some(_) if is_cut => {
                let was_last = self.time == Duration::MAX;
                let time = if was_last {
                    Duration::ZERO
                } else {
                    Duration::MAX
                };
                (self.tried, self.time) = (None, time);
            }
            Some(_) => self.next = ended + self.retry_after,
            None => {
                self.next = start + self.ttl;
                self.time = std::mem::take(&mut self.spent);
                self.obtained_at = Some(at);
            }
        }
    }

    /// Until when the rate limit forbids a try that is not urgent: the list was obtained.
    fn may_wait_until(&self, client: &Client, server: &BaseUrl) -> Option<Instant> {
        let endpoint = match self.is_listed() {
            true => Endpoint::List,
            false => Endpoint::Gateway,
        };
        let is_good = self.error.is_none() && self.obtained_at.is_some();
        client.silenced_until(endpoint, server).filter(|_| is_good)
    }

    /// Takes over a list that was read whole. Of a first list it takes over what there is.
    fn read_pages(
        &mut self,
        client: &mut Client,
        server: &BaseUrl,
        owner: &str,
        deadline: Instant,
    ) -> Result<(), FetchError> {
        let kept = self.pages.take().filter(ListPages::can_be_continued);
        let mut pages = kept.unwrap_or_else(|| ListPages::new(0));
        let result = pages.read(client, server, owner, &self.gateways, deadline);
        let was_empty = self.gateways.is_empty() && self.obtained_at.is_some();
        if result.is_ok() {
            if pages.found.is_empty() && !was_empty {
                log::warn!("the API key lists no gateway: its owner collaborates on none");
            }
            self.gateways = pages.found;
        } else {
            if self.obtained_at.is_none() {
                self.gateways.extend(pages.found.clone());
            }
            self.pages = Some(pages);
        }
        self.gateways.retain(|id, _| !self.exclude.contains(id));
        result
    }

    /// Reads the registrations of the gateways named on the command line. If the key may not read
    /// one, its gateway is watched without a name.
    fn read_registrations(
        &mut self,
        client: &mut Client,
        server: &BaseUrl,
        deadline: Instant,
    ) -> Result<(), FetchError> {
        if self.unread.is_empty() {
            self.unread = self.gateways.keys().cloned().collect();
        }
        while let Some(id) = self.unread.last() {
            match client.gateway(server, id, deadline) {
                Ok(gateway) if gateway.gateway_id == *id => {
                    self.gateways.insert(id.clone(), Arc::new(gateway));
                }
                // The others would most likely fail alike. If not, they come first the next time.
                Err(refused) if !is_final(&refused) => {
                    self.unread.rotate_right(1);
                    return Err(refused.error);
                }
                _ => {}
            }
            self.unread.pop();
        }
        Ok(())
    }
}

/// A gateway of which nothing but its id is known.
fn nameless(id: &str) -> Arc<Gateway> {
    Arc::new(Gateway {
        gateway_id: id.to_owned(),
        ..Gateway::default()
    })
}

/// Whether the next request for this registration will be refused as well: the key has no right to
/// it, or the server keeps no registrations.
fn is_final(refused: &CallError) -> bool {
    match refused.status {
        Some(401 | 429) | None => false,
        Some(status) => refused.is_of_api && matches!(status, 400..=499 | 501),
    }
}
