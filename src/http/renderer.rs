//! What goes back: the metrics or the page, rendered from what is known, or a line of text.

use std::sync::{Arc, Mutex};

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
    /// What the metrics are rendered from; none for a page.
    snapshot: Option<Arc<Snapshot>>,
    /// How many texts of the metrics there have been; 0 for a page.
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
            _ => self.metrics(scrape, takes_gzip),
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
            let (number, bytes) = (text.number + 1, text.plain.len());
            *text = Text {
                number,
                ..Text::default()
            };
            self.connections.make_room_for_text(number, bytes);
            text.plain = Arc::new(metrics::render_gateways(&snapshot));
            text.snapshot = Some(snapshot);
        }
        let own = metrics::render_exporter(&self.known.counters(), &Process::read());
        let headers = [("Content-Type", metrics::CONTENT_TYPE)];
        let response = Response::new("200 OK", &headers, own);
        self.begin_with(&mut text, response, takes_gzip)
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
        let response = Response::new("200 OK", page::HEADERS, Vec::new());
        self.begin_with(&mut text, response, takes_gzip)
    }

    /// Puts this text before the body, and compresses both for a client that accepts it.
    fn begin_with(&self, text: &mut Text, mut response: Response, takes_gzip: bool) -> Response {
        response.text = text.number;
        response.shared = text.plain.clone();
        if takes_gzip {
            let mut compressor = lock(&self.compressor);
            let begin = || compressor.begin(&text.plain);
            let beginning = text.gzip.get_or_insert_with(begin);
            response.own = compressor.finish(beginning, &response.own);
            response.shared = beginning.bytes.clone();
            response.head += "Content-Encoding: gzip\r\n";
        }
        response
    }
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
