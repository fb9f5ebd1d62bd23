//! Renders what is known as the metrics or the page.

use std::sync::{Arc, Mutex};

use crate::collect::{Known, Scrape};
use crate::http::connections::Connections;
use crate::http::gzip::{Beginning, Compressor};
use crate::http::lock;
use crate::http::request::Route;
use crate::http::response::Response;
use crate::model::Snapshot;
use crate::system::Process;
use crate::things_stack::KnownHosts;
use crate::{metrics, page};

const METRICS_HEADERS: &[(&str, &str)] = &[("Content-Type", metrics::CONTENT_TYPE)];

pub struct Renderer {
    known: Known,
    hosts: KnownHosts,
    connections: Arc<Connections>,
    /// The metrics of the current snapshot.
    text: Mutex<Text>,
    compressor: Mutex<Compressor>,
}

/// What an answer begins with.
#[derive(Default)]
struct Text {
    /// Of the metrics: what they are rendered from, and how many such texts there have been.
    snapshot: Option<Arc<Snapshot>>,
    number: u64,
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
            text: Mutex::default(),
            compressor: Mutex::default(),
        }
    }

    /// The answer from what is known at this moment.
    pub fn render(&self, route: &Route, scrape: &Scrape, takes_gzip: bool) -> Response {
        match route {
            Route::Page(query) => self.page(scrape, query, takes_gzip),
            Route::Metrics => self.metrics(scrape, takes_gzip),
        }
    }

    /// The part of the snapshot is rendered once for each snapshot, the exporter's own part for
    /// each answer.
    fn metrics(&self, scrape: &Scrape, takes_gzip: bool) -> Response {
        let mut text = lock(&self.text);
        // Read now, so that an older snapshot never replaces the text of a newer one.
        let snapshot = self.known.snapshot(scrape);
        let is_current = |of: &Arc<Snapshot>| Arc::ptr_eq(of, &snapshot);
        if !text.snapshot.as_ref().is_some_and(is_current) {
            // The old texts make room for the new one.
            *text = Text {
                number: text.number + 1,
                ..Text::default()
            };
            self.connections.make_room_for_text(text.number);
            text.plain = Arc::new(metrics::render_gateways(&snapshot));
            text.snapshot = Some(snapshot);
        }
        let own = metrics::render_exporter(&self.known.counters(), &Process::read());
        self.respond(METRICS_HEADERS, &mut text, own, takes_gzip)
    }

    fn page(&self, scrape: &Scrape, query: &str, takes_gzip: bool) -> Response {
        let snapshot = self.known.snapshot(scrape);
        // The collection may have taken a while since the clock was read.
        let now = scrape.at + scrape.now.elapsed();
        let page = page::render(&snapshot, &self.known.counters(), &self.hosts, query, now);
        let mut text = Text {
            plain: Arc::new(page.into()),
            ..Text::default()
        };
        self.respond(page::HEADERS, &mut text, Vec::new(), takes_gzip)
    }

    fn respond(
        &self,
        headers: &[(&str, &str)],
        text: &mut Text,
        own: Vec<u8>,
        takes_gzip: bool,
    ) -> Response {
        let mut headers = headers.to_vec();
        let (mut shared, mut own) = (text.plain.clone(), own);
        if takes_gzip {
            headers.push(("Content-Encoding", "gzip"));
            let mut compressor = lock(&self.compressor);
            let begin = || compressor.begin(&shared);
            let beginning = text.gzip.get_or_insert_with(begin);
            own = compressor.finish(beginning, &own);
            shared = beginning.bytes.clone();
        }
        let response = Response::new("200 OK", &headers, shared, own);
        Response {
            text: text.number,
            ..response
        }
    }
}
