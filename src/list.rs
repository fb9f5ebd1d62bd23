//! Which gateways there are: the list of the key, of an organization or of a user, with
//! paging, or the registrations of the gateways named on the command line.
//!
//! A list that cannot be renewed stays: gateways do not vanish because a call failed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::args::Scope;
use crate::client::Client;
use crate::error::{FetchError, Reason};
use crate::hosts::BaseUrl;
use crate::model::Gateway;

/// How long the last good list is kept while it cannot be renewed: over a night without a
/// network, not over weeks with a key that was revoked.
pub const KEPT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// A hundred thousand gateways: a server that never ends its list has another fault.
const PAGES_MAX: usize = 100;

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
                found = self.registrations(ids, client, server, deadline);
                Ok(())
            }
        };
        self.settle(result, found, now);
        true
    }

    fn settle(
        &mut self,
        result: Result<(), FetchError>,
        found: BTreeMap<String, Arc<Gateway>>,
        now: Instant,
    ) {
        let is_good = result.is_ok();
        self.error = result.err().map(Arc::new);
        if is_good {
            self.good_since = Some(now);
        }
        let age = self
            .good_since
            .map(|since| now.saturating_duration_since(since));
        // Some gateways of an incomplete first list beat none.
        if is_good || age.is_none_or(|age| age > KEPT_MAX) {
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
        self.next_try = Some(now + if is_good { self.ttl } else { self.retry_after });
    }

    /// What is registered of the gateways named on the command line. Their key may well not
    /// be allowed to read it: then they are watched without a name, at `--server`.
    fn registrations(
        &self,
        ids: &[String],
        client: &mut Client,
        server: &BaseUrl,
        deadline: Instant,
    ) -> BTreeMap<String, Arc<Gateway>> {
        let mut is_worth_asking = true;
        let mut registration = |id: &String| {
            if is_worth_asking {
                match client.gateway(server, id, deadline) {
                    Ok(gateway) if gateway.gateway_id == *id => return Arc::new(gateway),
                    Err(refused) if refused.status.is_none() => is_worth_asking = false,
                    _ => {}
                }
            }
            self.gateways.get(id).cloned().unwrap_or_else(|| {
                Arc::new(Gateway {
                    gateway_id: id.clone(),
                    ..Gateway::default()
                })
            })
        };
        ids.iter()
            .map(|id| (id.clone(), registration(id)))
            .collect()
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
