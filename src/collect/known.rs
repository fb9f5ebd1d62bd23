//! What is known at this moment, shared between the loop that collects and the threads that
//! answer: a client whose deadline comes first gets a snapshot of it while a collection runs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::collect::Scrape;
use crate::error::{FetchError, Reason};
use crate::model::{Counters, Snapshot};

#[derive(Clone, Default)]
pub struct Known(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    counters: Counters,
    last: Option<Arc<Snapshot>>,
}

impl Known {
    /// What is known and fresh for this scrape; the rest is unknown (`budget`). It waits for
    /// nothing and asks nobody. The same `Arc` comes again as long as nothing has changed.
    pub fn snapshot(&self, scrape: &Scrape) -> Arc<Snapshot> {
        let state = self.state();
        state.last.clone().unwrap_or_else(|| {
            let context = "the list of gateways did not come in time";
            let error = FetchError::new(Reason::Budget, context);
            Arc::new(Snapshot {
                gateways: Vec::new(),
                list_error: Some(Arc::new(error)),
                list_obtained_at: None,
                is_api_up: false,
                key: None,
                warnings: Vec::new(),
                at: scrape.at,
                duration: scrape.now.saturating_duration_since(scrape.arrived),
            })
        })
    }

    /// What the exporter has counted of itself until now.
    pub fn counters(&self) -> Counters {
        self.state().counters.clone()
    }

    pub(super) fn set(&self, snapshot: Arc<Snapshot>, counters: Counters) {
        let mut state = self.state();
        state.last = Some(snapshot);
        state.counters = counters;
    }

    /// Whoever panicked with it left plain data behind, valid at each step.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
