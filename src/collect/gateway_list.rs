//! Which gateways there are: the list of the key, of an organization or of a user, with
//! paging, or the registrations of the gateways named on the command line.
//!
//! A list that cannot be renewed stays: gateways do not vanish because a call failed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{FetchError, Reason};
use crate::model::Gateway;
use crate::things_stack::BaseUrl;
use crate::things_stack::CallError;
use crate::things_stack::Client;

/// How long the last good list is kept while it cannot be renewed: over a night without a
/// network, not over weeks with a key that was revoked.
pub const KEPT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// A hundred thousand gateways: a server that never ends its list has another fault.
const PAGES_MAX: usize = 100;

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
    ttl: Duration,
    /// After a failure the next try comes sooner.
    retry_after: Duration,
    gateways: BTreeMap<String, Arc<Gateway>>,
    /// When the list was last obtained as a whole.
    good_since: Option<Instant>,
    next_try: Option<Instant>,
    error: Option<Arc<FetchError>>,
    /// Gateways named on the command line whose registration could not be read this time or
    /// before: they may be on another cluster.
    uncertain: BTreeSet<String>,
    /// Whether the log has said that there are none.
    is_known_empty: bool,
}

impl GatewayList {
    pub fn new(scope: Scope, ttl: Duration, retry_after: Duration) -> GatewayList {
        GatewayList {
            scope,
            ttl,
            retry_after: retry_after.min(ttl),
            gateways: BTreeMap::new(),
            good_since: None,
            next_try: None,
            error: None,
            uncertain: BTreeSet::new(),
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

    /// Why the list is missing, incomplete or an older one.
    pub fn error(&self) -> Option<&Arc<FetchError>> {
        self.error.as_ref()
    }

    /// Whether it is not known which cluster has this gateway: that `--server` does not know
    /// its connection then says nothing.
    pub fn is_uncertain(&self, gateway_id: &str) -> bool {
        self.uncertain.contains(gateway_id)
    }

    /// Renews the list if it is time to; says whether anything was asked.
    pub fn refresh(
        &mut self,
        client: &mut Client,
        server: &BaseUrl,
        now: Instant,
        deadline: Instant,
    ) -> bool {
        if self.next_try.is_some_and(|next_try| now < next_try) {
            return false;
        }
        // With an older list at hand, the stats are worth half of the time.
        let deadline = match self.gateways.is_empty() {
            true => deadline,
            false => now + deadline.saturating_duration_since(now) / 2,
        };
        let mut found = BTreeMap::new();
        let result = match &self.scope {
            Scope::Key => read_pages(client, server, "", deadline, &mut found),
            Scope::Organization(id) => {
                let owner = format!("/organizations/{id}");
                read_pages(client, server, &owner, deadline, &mut found)
            }
            Scope::User(id) => {
                let owner = format!("/users/{id}");
                read_pages(client, server, &owner, deadline, &mut found)
            }
            Scope::Gateways(ids) => {
                let ids = ids.clone();
                self.registrations(&ids, client, server, deadline, &mut found)
            }
        };
        self.settle(result, found, now, Instant::now());
        true
    }

    fn settle(
        &mut self,
        result: Result<(), FetchError>,
        found: BTreeMap<String, Arc<Gateway>>,
        now: Instant,
        ended: Instant,
    ) {
        let is_good = result.is_ok();
        self.error = result.err().map(Arc::new);
        if is_good {
            self.good_since = Some(now);
        }
        let age = self
            .good_since
            .map(|since| now.saturating_duration_since(since));
        let is_better = match age {
            // Some gateways of an incomplete first list beat none.
            None => found.len() >= self.gateways.len(),
            Some(age) => is_good || age > KEPT_MAX,
        };
        if is_better {
            self.gateways = found;
        }
        let is_empty = is_good && self.gateways.is_empty();
        if is_empty && !self.is_known_empty {
            log::warn!(
                "the API key lists no gateway: there is none, or it is a gateway's own key, \
                 which can list nothing: then name the gateway with --gateway"
            );
        }
        self.is_known_empty = is_empty;
        let is_cut = self
            .error
            .as_ref()
            .is_some_and(|e| e.reason == Reason::Budget);
        self.next_try = match (is_good, is_cut) {
            (true, _) => Some(now + self.ttl),
            // A scrape in a hurry must not keep the next one from trying.
            (false, true) => None,
            (false, false) => Some(ended + self.retry_after),
        };
    }

    /// What is registered of the gateways named on the command line. Their key may well not
    /// be allowed to read it: then they are watched without a name, at `--server`.
    fn registrations(
        &mut self,
        ids: &[String],
        client: &mut Client,
        server: &BaseUrl,
        deadline: Instant,
        found: &mut BTreeMap<String, Arc<Gateway>>,
    ) -> Result<(), FetchError> {
        let mut failure = None;
        for id in ids {
            // After a failure that is not about the gateway, the others would fail alike.
            let asked = match failure {
                None => client.gateway(server, id, deadline),
                Some(_) => break,
            };
            match asked {
                Ok(gateway) if gateway.gateway_id == *id => {
                    self.uncertain.remove(id);
                    found.insert(id.clone(), Arc::new(gateway));
                }
                Err(refused) if !is_final(&refused) => failure = Some(refused.error),
                _ => drop(self.uncertain.remove(id)),
            }
        }
        for id in ids {
            if failure.is_some() && !self.gateways.contains_key(id) && !found.contains_key(id) {
                self.uncertain.insert(id.clone());
            }
            let older = || {
                self.gateways
                    .get(id)
                    .cloned()
                    .unwrap_or_else(|| unregistered(id))
            };
            found.entry(id.clone()).or_insert_with(older);
        }
        failure.map_or(Ok(()), Err)
    }
}

/// A gateway of which nothing but its id is known.
fn unregistered(id: &str) -> Arc<Gateway> {
    Arc::new(Gateway {
        gateway_id: id.to_owned(),
        ..Gateway::default()
    })
}

/// Whether asking again for a registration will bring the same: the key has no right to it,
/// or the server keeps no registrations.
fn is_final(refused: &CallError) -> bool {
    match refused.status {
        Some(429) => false,
        Some(status) => matches!(status, 400..=499 | 501),
        None => false,
    }
}

/// Reads page after page until the server has no more.
fn read_pages(
    client: &mut Client,
    server: &BaseUrl,
    owner: &str,
    deadline: Instant,
    found: &mut BTreeMap<String, Arc<Gateway>>,
) -> Result<(), FetchError> {
    let mut entries = 0;
    for page in 1..=PAGES_MAX {
        let (list, total) = client
            .list(server, owner, page, deadline)
            .map_err(|refused| refused.error)?;
        entries += list.entries;
        let is_empty = list.entries == 0;
        for gateway in list.gateways {
            found.insert(gateway.gateway_id.clone(), Arc::new(gateway));
        }
        // The page may hold fewer than was asked for, on a server with a lower limit: only
        // its total, or an empty page, says that this was the last one.
        if is_empty || total.is_some_and(|total| entries as u64 >= total) {
            return Ok(());
        }
    }
    let context = format!("{}: the list of gateways has no end", server.host);
    Err(FetchError::new(Reason::TooLarge, context))
}
