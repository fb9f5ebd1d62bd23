//! What goes back: the metrics or the page, rendered from what is known, or a line of text.

use std::sync::{Arc, Mutex, Weak};

use crate::collect::{Known, Scrape};
use crate::http::connections::Connections;
use crate::http::gzip::{Beginning, Compressor};
use crate::http::lock;
use crate::http::request::Route;
use crate::model::Snapshot;
use crate::system::Process;
use crate::things_stack::KnownHosts;
use crate::{metrics, page};

pub struct Renderer {
    pub known: Known,
    hosts: KnownHosts,
    connections: Arc<Connections>,
    /// The metrics of the current snapshot.
    text: Mutex<Text>,
    compressor: Mutex<Compressor>,
}

/// The metrics of one snapshot. Each form is made for the first client that takes it.
#[derive(Default)]
struct Text {
    /// It does not keep the snapshot, so that the next collection can replace the stats one by one.
    snapshot: Weak<Snapshot>,
    /// How many texts there have been.
    number: u64,
    plain: Option<Arc<Vec<u8>>>,
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
            _ => self.metrics(scrape, takes_gzip),
        }
    }

    /// The part of the snapshot is rendered once for each snapshot, the exporter's own part for
    /// each answer.
    fn metrics(&self, scrape: &Scrape, takes_gzip: bool) -> Response {
        let own = metrics::render_exporter(&self.known.counters(), &Process::read());
        let headers = [("Content-Type", metrics::CONTENT_TYPE)];
        let mut response = Response::new("200 OK", &headers, own);
        let mut text = lock(&self.text);
        // Read now, so that an older snapshot never replaces the text of a newer one.
        let snapshot = self.known.snapshot(scrape);
        if text.snapshot.as_ptr() != Arc::as_ptr(&snapshot) {
            let number = text.number + 1;
            self.connections.make_room_for_text(number, text.bytes());
            // The old texts make room for the new ones.
            *text = Text {
                snapshot: Arc::downgrade(&snapshot),
                number,
                ..Text::default()
            };
        }
        response.text = text.number;
        if takes_gzip {
            let mut compressor = lock(&self.compressor);
            let compress = || compressor.begin(|write| write_metrics(&snapshot, write));
            let beginning = text.gzip.get_or_insert_with(compress);
            response.compress(&mut compressor, beginning);
        } else {
            let render = || Arc::new(metrics::render_gateways(&snapshot));
            response.shared = text.plain.get_or_insert_with(render).clone();
        }
        response
    }

    fn page(&self, scrape: &Scrape, query: &str, takes_gzip: bool) -> Response {
        let snapshot = self.known.snapshot(scrape);
        // The collection may have taken a while since the clock was read.
        let now = scrape.at + scrape.now.elapsed();
        let page = page::render(&snapshot, &self.known.counters(), &self.hosts, query, now);
        let mut response = Response::new("200 OK", page::HEADERS, page.into());
        if takes_gzip {
            let mut compressor = lock(&self.compressor);
            let beginning = compressor.begin(|_| {});
            response.compress(&mut compressor, &beginning);
        }
        response
    }
}

impl Text {
    fn bytes(&self) -> usize {
        let plain = self.plain.as_ref().map_or(0, |plain| plain.len());
        let gzip = self.gzip.as_ref().map_or(0, |gzip| gzip.bytes.len());
        plain.max(gzip)
    }
}

/// Family by family: the whole text of 10,000 gateways has 43 MB.
fn write_metrics(snapshot: &Snapshot, write: &mut dyn FnMut(&[u8])) {
    metrics::write_gateways(snapshot, &mut Vec::new(), |text| {
        write(text);
        text.clear();
    });
}

/// An answer as it goes out.
#[derive(Default)]
pub struct Response {
    /// Without the length of the body and the empty line at the end.
    pub head: String,
    /// The body begins with what several answers share.
    pub shared: Arc<Vec<u8>>,
    /// The rest of the body.
    pub own: Vec<u8>,
    /// Which of the different texts of the metrics it shares, from 1; 0 where it shares none.
    pub text: u64,
}

impl Response {
    /// Every answer closes its connection: to keep it would save a scraper a millisecond a
    /// minute and take a connection from the limit.
    fn new(status: &str, headers: &[(&str, &str)], own: Vec<u8>) -> Response {
        let mut head = format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\n\
             Allow: GET, HEAD\r\nVary: Accept, Accept-Encoding\r\n"
        );
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        Response {
            head,
            own,
            ..Response::default()
        }
    }

    /// Sends it as this beginning and then what was its own part.
    fn compress(&mut self, compressor: &mut Compressor, beginning: &Beginning) {
        self.own = compressor.finish(beginning, &self.own);
        self.shared = beginning.bytes.clone();
        self.head += "Content-Encoding: gzip\r\n";
    }

    /// A line of plain text.
    pub fn text(status: &str, text: &str) -> Response {
        let headers = [("Content-Type", "text/plain; charset=utf-8")];
        Response::new(status, &headers, text.into())
    }

    /// Offers Basic first: a browser takes the first scheme that it knows.
    pub fn unauthorized() -> Response {
        let text = "a token is needed: Authorization: Bearer …, or Basic with any user and the \
                    token as password\n";
        let mut response = Response::text("401 Unauthorized", text);
        response.head += "WWW-Authenticate: Basic realm=\"ttn-gateway-exporter\", \
                          charset=\"UTF-8\"\r\nWWW-Authenticate: Bearer\r\n";
        response
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::examples::cluster;

    #[test]
    fn a_text_keeps_no_snapshot_that_is_not_used_any_more() {
        let known = Known::new(Duration::from_secs(60), Arc::default());
        let hosts = KnownHosts::new((*cluster("eu1")).clone(), Vec::new());
        let connections = Arc::new(Connections::new(1));
        let renderer = Renderer::new(known.clone(), hosts, connections);
        let now = Instant::now();
        for (index, takes_gzip) in [true, false].into_iter().enumerate() {
            // Each came before the last one, so the last snapshot is of no use to it.
            let scrape = |second| Scrape::new(now - Duration::from_secs(second), now);
            let scrapes = [2 * index as u64, 2 * index as u64 + 1].map(scrape);
            let snapshot = Arc::downgrade(&known.snapshot(&scrapes[0]));
            renderer.render(&Route::Metrics, &scrapes[0], takes_gzip);
            assert!(snapshot.upgrade().is_some());
            known.snapshot(&scrapes[1]);
            assert!(snapshot.upgrade().is_none());
        }
    }
}
