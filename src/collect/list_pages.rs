//! A list of gateways, read page by page. Its pages are separate requests, so it may change in
//! between: it is whole only if its pages fit together and have as many entries as the server
//! says that there are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{FetchError, Reason};
use crate::model::Gateway;
use crate::things_stack::{BaseUrl, Client};

/// A hundred thousand gateways: a longer list is taken for one that never ends.
const PAGES_MAX: usize = 100;
/// How often a list that changes between two pages is begun anew.
const RESTARTS_MAX: usize = 3;
/// A reading that began longer ago than this is not continued.
const AGE_MAX: Duration = Duration::from_secs(900);

pub type Gateways = BTreeMap<String, Arc<Gateway>>;

/// What has been read of a list that is not whole yet.
pub struct ListPages {
    started: Instant,
    pub found: Gateways,
    /// The pages read so far, and their elements, those that are no gateway included.
    pages: usize,
    entries: u64,
    /// `X-Total-Count` of the first page.
    total: Option<u64>,
    /// Whether they can all be of one list: no gateway twice, one total, and no end before it.
    do_fit: bool,
    restarts: usize,
}

impl ListPages {
    pub fn new(restarts: usize) -> ListPages {
        ListPages {
            started: Instant::now(),
            found: BTreeMap::new(),
            pages: 0,
            entries: 0,
            total: None,
            do_fit: true,
            restarts,
        }
    }

    /// Whether the next collection can read on where this one ended.
    pub fn can_be_continued(&self) -> bool {
        self.do_fit && self.pages < PAGES_MAX && self.started.elapsed() < AGE_MAX
    }

    /// Reads on until the list is whole. A list of several pages that lacks one of the gateways
    /// `at_hand` is read twice: it may have slipped from a page to the one before.
    ///
    /// # Errors
    /// If a page cannot be obtained; then the next call continues. If the pages do not fit
    /// together, however often they are read, or have no end.
    pub fn read(
        &mut self,
        client: &mut Client,
        server: &BaseUrl,
        owner: &str,
        at_hand: &Gateways,
        deadline: Instant,
    ) -> Result<(), FetchError> {
        while self.pages < PAGES_MAX {
            let page = client.list(server, owner, self.pages + 1, deadline);
            let (page, total) = page.map_err(|refused| refused.error)?;
            self.add(page.gateways, page.entries as u64, total);
            let lacks_any = || !at_hand.keys().all(|id| self.found.contains_key(id));
            if self.pages > 1 && self.restarts == 0 && self.entries == total && lacks_any() {
                self.do_fit = false;
            }
            match self.do_fit {
                true if self.entries == total => return Ok(()),
                true => {}
                false if self.restarts < RESTARTS_MAX => *self = ListPages::new(self.restarts + 1),
                false => {
                    let context = format!(
                        "{}: the list of gateways is not as long as its X-Total-Count ({total}), \
                         or changes while it is read",
                        server.host
                    );
                    return Err(FetchError::new(Reason::Shape, context));
                }
            }
        }
        let context = format!("{}: the list of gateways has no end", server.host);
        Err(FetchError::new(Reason::TooLarge, context))
    }

    fn add(&mut self, gateways: Vec<Gateway>, entries: u64, total: u64) {
        self.pages += 1;
        self.entries += entries;
        let expected = self.found.len() + gateways.len();
        let by_id = |gateway: Gateway| (gateway.gateway_id.clone(), Arc::new(gateway));
        self.found.extend(gateways.into_iter().map(by_id));
        let ends_early = entries == 0 && self.entries < total;
        self.do_fit &= self.found.len() == expected
            && *self.total.get_or_insert(total) == total
            && self.entries <= total
            && !ends_early;
    }
}
