//! Renders what is known as the metrics or the page.

use std::sync::{Arc, Mutex};

use crate::collect::{Known, Scrape};
use crate::http::connections::Connections;
use crate::http::gzip::{Beginning, Compressor};
use crate::http::lock;
use crate::http::response::{Body, Response};
use crate::http::task::{Route, Task};
use crate::model::Snapshot;
use crate::system::Process;
use crate::things_stack::KnownHosts;
use crate::{metrics, page};

const METRICS_HEADERS: &[(&str, &str)] = &[("Content-Type", metrics::CONTENT_TYPE)];

pub struct Renderer {
    known: Known,
    hosts: KnownHosts,
    connections: Arc<Connections>,
    tools: Mutex<Tools>,
}

#[derive(Default)]
struct Tools {
    /// The metrics of the current snapshot.
    text: Option<Text>,
    /// How many texts there have been.
    texts: u64,
    compressor: Compressor,
}

struct Text {
    snapshot: Arc<Snapshot>,
    plain: Arc<Vec<u8>>,
    /// Made for the first client that accepts it.
    gzip: Option<Beginning>,
}

impl Renderer {
    pub fn new(known: Known, hosts: KnownHosts, connections: Arc<Connections>) -> Renderer {
        Renderer {
            known,
            hosts,
            connections,
            tools: Mutex::default(),
        }
    }

    /// The answer to this task from what is known at this moment.
    pub fn render(&self, task: &Task, scrape: &Scrape) -> Response {
        let (headers, body) = match &task.route {
            Route::Metrics => (METRICS_HEADERS, self.metrics(scrape, task.takes_gzip)),
            Route::Page(query) => (page::HEADERS, self.page(scrape, query, task.takes_gzip)),
        };
        let encoding = task.takes_gzip.then_some(("Content-Encoding", "gzip"));
        let headers: Vec<_> = headers.iter().copied().chain(encoding).collect();
        Response::new("200 OK", &headers, body)
    }

    /// The part of the snapshot is rendered once for each snapshot, the exporter's own part for
    /// each answer.
    fn metrics(&self, scrape: &Scrape, takes_gzip: bool) -> Body {
        let mut tools = lock(&self.tools);
        let tools = &mut *tools;
        // Read now, so that an older snapshot never replaces the text of a newer one.
        let snapshot = self.known.snapshot(scrape);
        let is_current = |text: &Text| Arc::ptr_eq(&text.snapshot, &snapshot);
        if !tools.text.as_ref().is_some_and(is_current) {
            // The old texts make room for the new one.
            tools.text = None;
            tools.texts += 1;
            self.connections.make_room_for_text(tools.texts);
        }
        let text = tools.text.get_or_insert_with(|| Text {
            plain: Arc::new(metrics::render_gateways(&snapshot)),
            snapshot,
            gzip: None,
        });
        let own = metrics::render_exporter(&self.known.counters(), &Process::read());
        let compressor = &mut tools.compressor;
        let (shared, own) = match takes_gzip {
            true => {
                let begin = || compressor.begin(&text.plain);
                let beginning = text.gzip.get_or_insert_with(begin);
                let own = tools.compressor.finish(beginning, &own);
                (beginning.bytes.clone(), own)
            }
            false => (text.plain.clone(), own),
        };
        Body {
            shared,
            own,
            text: tools.texts,
        }
    }

    fn page(&self, scrape: &Scrape, query: &str, takes_gzip: bool) -> Body {
        let snapshot = self.known.snapshot(scrape);
        // The collection may have taken a while since the clock was read.
        let now = scrape.at + scrape.now.elapsed();
        let page = page::render(&snapshot, &self.known.counters(), &self.hosts, query, now);
        if !takes_gzip {
            return Body::new(page);
        }
        let compressor = &mut lock(&self.tools).compressor;
        let beginning = compressor.begin(page.as_bytes());
        Body {
            own: compressor.finish(&beginning, b""),
            shared: beginning.bytes,
            text: 0,
        }
    }
}
