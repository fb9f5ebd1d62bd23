//! What is known becomes an answer: for the loop when it has collected, and for the threads whose
//! clients cannot wait for that.

use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, PoisonError};

use crate::collect::{Known, Scrape};
use crate::http::connections::Connections;
use crate::http::gzip::{Beginning, Compressor};
use crate::http::response::{Body, Response};
use crate::http::task::{Route, Task};
use crate::model::Snapshot;
use crate::system::Observer;
use crate::things_stack::KnownHosts;
use crate::{metrics, page};

/// Below this, compression saves no packet.
const GZIP_BYTES_MIN: usize = 1024;

pub struct Renderer {
    known: Known,
    hosts: KnownHosts,
    connections: Arc<Connections>,
    tools: Mutex<Tools>,
}

struct Tools {
    /// The metrics of one snapshot: they stay true as long as it does.
    text: Option<Text>,
    texts: u64,
    compressor: Compressor,
    observer: Observer,
}

struct Text {
    number: u64,
    snapshot: Arc<Snapshot>,
    plain: Arc<Vec<u8>>,
    /// Made for the first client that takes it.
    gzip: Option<Beginning>,
}

impl Renderer {
    pub fn new(known: Known, hosts: KnownHosts, connections: Arc<Connections>) -> Renderer {
        Renderer {
            known,
            hosts,
            connections,
            tools: Mutex::new(Tools {
                text: None,
                texts: 0,
                compressor: Compressor::default(),
                observer: Observer::new(),
            }),
        }
    }

    /// The answer to this task from what is known at this moment.
    pub fn render(&self, task: &Task, scrape: &Scrape) -> Response {
        // Whoever panicked with it left valid data behind: each change is one step.
        let mut tools = self.tools.lock().unwrap_or_else(PoisonError::into_inner);
        // Read now, so that an older snapshot never replaces the text of a newer one.
        let snapshot = self.known.snapshot(scrape);
        match &task.route {
            Route::Metrics => {
                let body = self.metrics(&mut tools, snapshot);
                let headers = [("Content-Type", metrics::CONTENT_TYPE)];
                tools.response(task.takes_gzip, headers, body)
            }
            Route::Page(query) => {
                let headers = [
                    ("Content-Type", page::CONTENT_TYPE),
                    ("Content-Security-Policy", page::CONTENT_SECURITY_POLICY),
                    ("X-Content-Type-Options", page::CONTENT_TYPE_OPTIONS),
                    ("Referrer-Policy", page::REFERRER_POLICY),
                    ("Cache-Control", "no-store"),
                ];
                let body = Body::new(self.page(&snapshot, query, scrape));
                tools.response(task.takes_gzip, headers, body)
            }
        }
    }

    fn page(&self, snapshot: &Snapshot, query: &str, scrape: &Scrape) -> String {
        // The collection may have taken a while since the clock was read.
        let now = scrape.at + scrape.now.elapsed();
        page::render(snapshot, &self.known.counters(), &self.hosts, query, now)
    }

    /// The whole exposition: the part of the snapshot is made once for all who ask while it is
    /// the same, the exporter's own part is always new.
    fn metrics(&self, tools: &mut Tools, snapshot: Arc<Snapshot>) -> Body {
        let is_current = |text: &Text| Arc::ptr_eq(&text.snapshot, &snapshot);
        if !tools.text.as_ref().is_some_and(is_current) {
            // The old texts make room for the new one.
            tools.text = None;
            tools.texts += 1;
            self.connections.make_room_for_text(tools.texts);
        }
        let number = tools.texts;
        let text = tools.text.get_or_insert_with(|| Text {
            number,
            plain: Arc::new(metrics::render_gateways(&snapshot)),
            snapshot,
            gzip: None,
        });
        Body {
            shared: text.plain.clone(),
            own: metrics::render_exporter(&self.known.counters(), &tools.observer.read()),
            text: number,
        }
    }
}

impl Tools {
    fn response<const N: usize>(
        &mut self,
        takes_gzip: bool,
        headers: [(&str, &str); N],
        body: Body,
    ) -> Response {
        if !takes_gzip || body.len() < GZIP_BYTES_MIN {
            return Response::new("200 OK", &headers, body);
        }
        let mut headers = headers.to_vec();
        headers.push(("Content-Encoding", "gzip"));
        Response::new("200 OK", &headers, self.compressed(&body))
    }

    /// What is shared is compressed once.
    fn compressed(&mut self, body: &Body) -> Body {
        let compressor = &mut self.compressor;
        let is_of = |text: &&mut Text| text.number == body.text;
        let made;
        let beginning = match self.text.as_mut().filter(is_of) {
            Some(text) => text
                .gzip
                .get_or_insert_with(|| compressor.begin(&body.shared)),
            None => {
                made = compressor.begin(&body.shared);
                &made
            }
        };
        Body {
            shared: beginning.bytes.clone(),
            own: compressor.finish(beginning, &body.own),
            text: body.text,
        }
    }
}

/// A panic costs this answer; the hook has logged it. What is remembered is plain data, valid
/// at each step.
pub fn unless_it_panics(answer: impl FnOnce() -> Response) -> Response {
    panic::catch_unwind(AssertUnwindSafe(answer)).unwrap_or_else(|_| {
        Response::text(
            "500 Internal Server Error",
            "a defect: the log has a line of it\n",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_costs_one_answer_and_tells_nothing() {
        let response = unless_it_panics(|| panic!("inner workings"));
        assert!(response.head.starts_with(b"HTTP/1.1 500 "));
        assert!(!String::from_utf8_lossy(&response.body.own).contains("inner"));
        let response = unless_it_panics(|| Response::text("200 OK", "ok\n"));
        assert!(response.head.starts_with(b"HTTP/1.1 200 "));
    }
}
