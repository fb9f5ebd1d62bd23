//! The body of an answer, and its way from the server to the front door: beside tiny_http, by
//! reference. The metrics of a large fleet are megabytes, which are made once for many scrapes;
//! through the private connection each of them would be copied four times.

use std::sync::{Arc, Mutex, PoisonError};

/// In two pieces: what answers share, and what is new in this one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Body {
    pub shared: Arc<Vec<u8>>,
    pub own: Vec<u8>,
}

impl Body {
    /// A body of which nothing is shared.
    pub fn new(own: Vec<u8>) -> Body {
        Body {
            shared: Arc::default(),
            own,
        }
    }

    pub fn len(&self) -> usize {
        self.shared.len() + self.own.len()
    }
}

/// Where the server leaves a body before it sends the head, and the front door finds it after
/// the head. There is one request at a time between the two.
#[derive(Clone, Default)]
pub struct Handover(Arc<Mutex<Body>>);

impl Handover {
    pub fn leave(&self, body: Body) {
        *self.place() = body;
    }

    /// Empty where nothing was left.
    pub fn take(&self) -> Body {
        std::mem::take(&mut self.place())
    }

    fn place(&self) -> std::sync::MutexGuard<'_, Body> {
        // Nothing that holds it can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
