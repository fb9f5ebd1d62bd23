//! Which gateways there are: the list of the key, of an organization or of a user, or the
//! registrations of the gateways named on the command line.
//!
//! The pages of a list are separate requests, so it may change in between: it is whole only if they
//! fit together and have as many entries as the server says that there are.
//!
//! A list stays in use until the next one was read whole. A reading that runs out of time is
//! continued by the next collection, with the pages and registrations that it has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::collect::Scrape;
use crate::error::{FetchError, Reason};
use crate::model::{Endpoint, Gateway};
use crate::things_stack::{BaseUrl, Client, ListPage};

/// A hundred thousand gateways: a longer list is taken for one that never ends.
const PAGES_MAX: usize = 100;
/// A reading that began longer ago than this is begun anew.
const AGE_MAX: Duration = Duration::from_secs(900);
/// How often a list that changes between two pages is begun anew.
const RESTARTS_MAX: usize = 3;
/// A try that ends so shortly before its deadline was cut off by it.
const CUT_MARGIN: Duration = Duration::from_millis(60);

type Gateways = BTreeMap<String, Arc<Gateway>>;

/// Which gateways to watch.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Whatever the key may list.
    #[default]
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

#[derive(Default)]
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
    /// When the last try ended, and when the next one is due; none before the first one, and where
    /// it was cut off and is to be continued.
    pub tried: Option<(Instant, Instant)>,
    /// What was read so far of the next list.
    pages: ListPages,
}

/// The pages of a list that is not whole yet; of gateways named on the command line each registration
/// is a page.
#[derive(Default)]
struct ListPages {
    started: Option<Instant>,
    found: Gateways,
    /// How many pages were read.
    count: usize,
    /// Their elements, those that are no gateway included.
    entries: u64,
    /// `X-Total-Count` of the first page.
    total: Option<u64>,
    restarts: usize,
    /// Whether it was read whole before, and lacked a gateway at hand.
    is_second: bool,
    /// Tries that ended with an error.
    failures: usize,
}

impl GatewayList {
    /// `exclude` are ids of gateways that are left out.
    pub fn new(
        scope: Scope,
        exclude: BTreeSet<String>,
        ttl: Duration,
        retry_after: Duration,
    ) -> GatewayList {
        let nameless = |id: &String| {
            let gateway_id = id.clone();
            let gateway = Gateway {
                gateway_id,
                ..Gateway::default()
            };
            (id.clone(), Arc::new(gateway))
        };
        let gateways = match &scope {
            Scope::Gateways(ids) => ids.iter().map(nameless).collect(),
            _ => Gateways::new(),
        };
        GatewayList {
            scope,
            exclude,
            ttl,
            retry_after: retry_after.min(ttl),
            gateways,
            ..GatewayList::default()
        }
    }

    /// Why the registration of a gateway named on the command line was never read nor refused:
    /// it may name a cluster that is not known yet.
    pub fn error_of_registration(&self, gateway_id: &str) -> Option<&Arc<FetchError>> {
        let is_known = self.obtained_at.is_some() || self.pages.found.contains_key(gateway_id);
        self.error
            .as_ref()
            .filter(|_| !self.is_listed() && !is_known)
    }

    /// Whether the last try had too little time, and is to be continued.
    pub fn is_cut(&self) -> bool {
        self.tried.is_none() && self.error.is_some()
    }

    /// Whether gateways come from a list call.
    pub fn is_listed(&self) -> bool {
        !matches!(self.scope, Scope::Gateways(_))
    }

    /// What an old key could read says nothing about a new one.
    pub fn begin_anew(&mut self) {
        self.pages = ListPages::default();
    }

    /// Reads on until the list is whole, something fails, or the deadline comes.
    pub fn read(&mut self, client: &mut Client, server: &BaseUrl, scrape: &Scrape) {
        let start = Instant::now();
        if let Some(until) = self.may_wait_until(client, server) {
            self.tried = Some((start, until));
            return;
        }
        let result = self.read_pages(client, server, scrape.deadline);
        let ended = Instant::now();
        match result {
            Ok(gateways) => {
                self.gateways = gateways;
                self.obtained_at = Some(scrape.at);
                self.error = None;
                self.tried = Some((ended, start + self.ttl));
            }
            Err(error) => {
                // Of a first list there is something to show, and a registration is one by itself. In
                // a list that does not have what its total says, there may be new ones.
                let is_first = self.obtained_at.is_none();
                if is_first || !self.is_listed() || error.reason == Reason::Shape {
                    self.gateways.extend(self.pages.found.clone());
                }
                // The next try continues, unless the pages are of no use.
                if self.is_listed() && matches!(error.reason, Reason::Shape | Reason::TooLarge) {
                    self.pages = ListPages::default();
                }
                // It begins with another registration: one that can never be read must not keep the
                // others from being so.
                self.pages.failures += 1;
                let is_cut = scrape.time_left() < CUT_MARGIN;
                self.tried = (!is_cut).then_some((ended, ended + self.retry_after));
                self.error = Some(Arc::new(error));
            }
        }
        self.gateways.retain(|id, _| !self.exclude.contains(id));
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

    fn read_pages(
        &mut self,
        client: &mut Client,
        server: &BaseUrl,
        deadline: Instant,
    ) -> Result<Gateways, FetchError> {
        if self.pages.started.is_none_or(|at| at.elapsed() > AGE_MAX) {
            self.pages = ListPages {
                started: Some(Instant::now()),
                failures: self.pages.failures,
                ..ListPages::default()
            };
        }
        loop {
            let (page, total) = self.next_page(client, server, deadline)?;
            if self.pages.add(page, total, &self.gateways, &server.host)? {
                return Ok(self.whole_list());
            }
        }
    }

    /// The list whose pages were read. An entry of it that could not be read may be any of the
    /// gateways at hand.
    fn whole_list(&mut self) -> Gateways {
        let ListPages {
            mut found, entries, ..
        } = std::mem::take(&mut self.pages);
        if entries > found.len() as u64 {
            for (id, gateway) in &self.gateways {
                found.entry(id.clone()).or_insert_with(|| gateway.clone());
            }
        }
        let is_new = self.obtained_at.is_none() || !self.gateways.is_empty();
        if entries == 0 && is_new {
            log::warn!("the API key lists no gateway: its owner collaborates on none");
        }
        found
    }

    /// The next page, and how many entries there are in all. Of the gateways named on the command
    /// line each registration is a page. One that the key may not read is the one at hand, which
    /// has no name at first.
    fn next_page(
        &self,
        client: &mut Client,
        server: &BaseUrl,
        deadline: Instant,
    ) -> Result<(ListPage, u64), FetchError> {
        let ListPages {
            count,
            found,
            failures,
            ..
        } = &self.pages;
        if let Some(owner) = self.scope.owner() {
            if *count == PAGES_MAX {
                let context = format!("{}: the list of gateways has no end", server.host);
                return Err(FetchError::new(Reason::TooLarge, context));
            }
            let page = client.list(server, &owner, count + 1, deadline);
            return page.map_err(|refused| refused.error);
        }
        let mut page = ListPage::default();
        let unread = self.gateways.iter();
        let unread = unread.filter(|(id, _)| !found.contains_key(*id));
        let failures = failures % self.gateways.len().max(1);
        if let Some((id, at_hand)) = unread.cycle().nth(failures) {
            page.entries = 1;
            page.gateways
                .push(match client.gateway(server, id, deadline) {
                    Ok(gateway) if gateway.gateway_id == *id => gateway,
                    Err(refused) if !refused.is_final() => return Err(refused.error),
                    _ => Gateway::clone(at_hand),
                });
        }
        Ok((page, self.gateways.len() as u64))
    }
}

impl ListPages {
    /// Adds a page, which says how many entries there are in all. Returns whether the list is
    /// whole. One of several pages that lacks one of the gateways `at_hand` is read twice: that one
    /// may have slipped from a page to the one before.
    ///
    /// # Errors
    /// If the pages do not fit together, however often they are read.
    fn add(
        &mut self,
        page: ListPage,
        total: u64,
        at_hand: &Gateways,
        host: &str,
    ) -> Result<bool, FetchError> {
        let is_empty = page.entries == 0;
        self.count += 1;
        self.entries += page.entries as u64;
        let expected = self.found.len() + page.gateways.len();
        let by_id = |gateway: Gateway| (gateway.gateway_id.clone(), Arc::new(gateway));
        self.found.extend(page.gateways.into_iter().map(by_id));
        let is_whole = self.entries == total;
        let lacks_any = || !at_hand.keys().all(|id| self.found.contains_key(id));
        let has_slipped = is_whole && self.count > 1 && !self.is_second && lacks_any();
        // No gateway twice, one total, and no end before it.
        let does_fit = self.found.len() == expected
            && *self.total.get_or_insert(total) == total
            && self.entries <= total
            && (is_whole || !is_empty);
        if does_fit && !has_slipped {
            return Ok(is_whole);
        }
        if self.restarts == RESTARTS_MAX {
            let context = format!(
                "{host}: the list of gateways is not as long as its X-Total-Count ({total}), or changes \
                 while it is read"
            );
            return Err(FetchError::new(Reason::Shape, context));
        }
        *self = ListPages {
            started: Some(Instant::now()),
            restarts: self.restarts + 1,
            is_second: self.is_second || (does_fit && has_slipped),
            ..ListPages::default()
        };
        Ok(false)
    }
}
