//! The request loop on tiny_http: one request at a time becomes a route, the route an answer.
//!
//! Requests come through the front door alone: they are short, complete and without a body.
//! The loop may take as long as a scrape's budget, while others wait in the front door.

use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;
use tiny_http::{Method, Request, Server};

use crate::collector::{Collector, Scrape};
use crate::model::Collection;
use crate::request_head::WAITED_HEADER;
use crate::secret::Secret;
use crate::systemd::Notifier;
use crate::{exposition, metrics, page, process};

/// What Prometheus's timeout is cut by, for the way back.
const BUDGET_RESERVE: Duration = Duration::from_millis(500);
/// Longer than any sensible scrape, and shorter than the front door's patience.
pub const BUDGET_MAX: Duration = Duration::from_secs(50);
const PLAIN_TEXT: &str = "text/plain; charset=utf-8";
/// Below this, compression saves no packet.
const GZIP_BYTES_MIN: usize = 1024;

pub struct Site {
    collector: Collector,
    /// For a scrape that names no timeout.
    budget: Duration,
    token: Option<Secret>,
    /// The metrics of the last collection, rendered: they stay true as long as it does.
    rendered: Option<(Arc<Collection>, Arc<String>)>,
}

/// What goes back, but for the framing.
struct Answer {
    status: &'static str,
    content_type: &'static str,
    headers: &'static [(&'static str, &'static str)],
    is_gzip: bool,
    body: Body,
}

/// One text in two pieces: what is rendered once for all scrapes can be megabytes, and is
/// not copied for each.
#[derive(Default)]
struct Body {
    shared: Arc<String>,
    own: Vec<u8>,
}

impl Body {
    fn pieces(&self) -> [&[u8]; 2] {
        [self.shared.as_bytes(), &self.own]
    }

    fn len(&self) -> usize {
        self.pieces().iter().map(|piece| piece.len()).sum()
    }

    /// The fastest level: the text shrinks to a tenth with any, and a Pi has better things to
    /// do.
    fn gzipped(&self) -> Body {
        let buffer = Vec::with_capacity(self.len() / 8);
        let mut encoder = GzEncoder::new(buffer, Compression::fast());
        for piece in self.pieces() {
            // Writing into memory cannot fail.
            let _ = encoder.write_all(piece);
        }
        encoder.finish().unwrap_or_default().into()
    }
}

impl From<Vec<u8>> for Body {
    fn from(own: Vec<u8>) -> Body {
        let shared = Arc::default();
        Body { shared, own }
    }
}

impl Answer {
    fn text(status: &'static str, text: &str) -> Answer {
        Answer {
            status,
            content_type: PLAIN_TEXT,
            headers: &[],
            is_gzip: false,
            body: text.as_bytes().to_vec().into(),
        }
    }
}

/// What the routes need of a request.
struct Asked<'a> {
    request: &'a Request,
    now: Instant,
}

impl Asked<'_> {
    fn header(&self, name: &'static str) -> Option<&str> {
        let headers = self.request.headers().iter();
        let mut found = headers.filter(|header| header.field.equiv(name));
        found.next().map(|header| header.value.as_str())
    }

    fn path(&self) -> &str {
        let url = self.request.url();
        url.split(['?', '#']).next().unwrap_or(url)
    }

    fn accepts(&self, name: &'static str, what: &str) -> bool {
        self.header(name).is_some_and(|value| accepts(value, what))
    }

    fn arrived(&self) -> Instant {
        let waited = self.header(WAITED_HEADER).and_then(|ms| ms.parse().ok());
        let waited = Duration::from_millis(waited.unwrap_or(0));
        self.now.checked_sub(waited).unwrap_or(self.now)
    }
}

impl Site {
    pub fn new(collector: Collector, timeout: Duration, token: Option<Secret>) -> Site {
        Site {
            collector,
            budget: (2 * timeout).min(BUDGET_MAX),
            token,
            rendered: None,
        }
    }

    /// Answers requests for ever.
    pub fn serve(mut self, server: &Server, mut notifier: Notifier) -> ! {
        loop {
            // The only error is that of the private listener, which is shut on purpose.
            let received = server.recv_timeout(notifier.interval());
            notifier.alive(Instant::now());
            if let Ok(Some(request)) = received {
                let answer = self.answer_whatever_happens(&request);
                if let Err(error) = send(request, &answer) {
                    log::debug!("cannot hand over an answer: {error}");
                }
            }
        }
    }

    fn answer_whatever_happens(&mut self, request: &Request) -> Answer {
        unless_it_panics(|| self.answer(request))
    }

    fn answer(&mut self, request: &Request) -> Answer {
        let asked = Asked {
            request,
            now: Instant::now(),
        };
        let is_open = asked.path() == "/-/healthy" || self.is_authorized(&asked);
        match asked.path() {
            _ if !is_open => Answer {
                headers: &[("WWW-Authenticate", "Bearer")],
                ..Answer::text(
                    "401 Unauthorized",
                    "a token is needed: Authorization: Bearer …\n",
                )
            },
            "/-/healthy" => Answer::text("200 OK", "ok\n"),
            "/" if asked.accepts("Accept", "text/html") => self.page(&asked),
            "/" | "/metrics" => self.metrics(&asked),
            _ => Answer::text("404 Not Found", "not here: /metrics or /\n"),
        }
    }

    fn is_authorized(&self, asked: &Asked<'_>) -> bool {
        let Some(token) = &self.token else {
            return true;
        };
        let given = asked.header("Authorization").and_then(|value| {
            let (scheme, given) = value.split_once(' ')?;
            scheme
                .eq_ignore_ascii_case("bearer")
                .then_some(given.trim())
        });
        given.is_some_and(|given| token.matches(given.as_bytes()))
    }

    fn metrics(&mut self, asked: &Asked<'_>) -> Answer {
        let named = asked.header("X-Prometheus-Scrape-Timeout-Seconds");
        let budget = named.and_then(budget_of).unwrap_or(self.budget);
        let (shared, own) = self.text(&asked.scrape(budget));
        let own = own.into_bytes();
        self.compressed(asked, exposition::CONTENT_TYPE, &[], Body { shared, own })
    }

    fn page(&mut self, asked: &Asked<'_>) -> Answer {
        const HEADERS: &[(&str, &str)] = &[
            ("Content-Security-Policy", page::CONTENT_SECURITY_POLICY),
            ("X-Content-Type-Options", page::CONTENT_TYPE_OPTIONS),
            ("Referrer-Policy", page::REFERRER_POLICY),
            ("Cache-Control", "no-store"),
        ];
        let collection = self.collector.collect(&asked.scrape(self.budget));
        let now = SystemTime::now();
        let html = page::render(&collection, self.collector.tallies(), now);
        self.compressed(asked, page::CONTENT_TYPE, HEADERS, html.into_bytes().into())
    }

    /// The whole exposition in two pieces: the collection's from memory where it has not
    /// changed, the exporter's own always new.
    pub fn text(&mut self, scrape: &Scrape) -> (Arc<String>, String) {
        let collection = self.collector.collect(scrape);
        let gateways = match &self.rendered {
            Some((rendered, text)) if Arc::ptr_eq(rendered, &collection) => text.clone(),
            _ => {
                self.rendered = None;
                let text = Arc::new(metrics::render_gateways(&collection));
                self.rendered = Some((collection, text.clone()));
                text
            }
        };
        let own = metrics::render_exporter(self.collector.tallies(), &process::read());
        (gateways, own)
    }

    /// Whether the last collection was complete, for `--once`.
    pub fn is_complete(&self) -> bool {
        let last = self.rendered.as_ref();
        last.is_some_and(|(collection, _)| collection.is_complete())
    }

    fn compressed(
        &self,
        asked: &Asked<'_>,
        content_type: &'static str,
        headers: &'static [(&'static str, &'static str)],
        body: Body,
    ) -> Answer {
        let is_gzip = body.len() >= GZIP_BYTES_MIN && asked.accepts("Accept-Encoding", "gzip");
        let body = match is_gzip {
            true => body.gzipped(),
            false => body,
        };
        Answer {
            status: "200 OK",
            content_type,
            headers,
            is_gzip,
            body,
        }
    }
}

/// A panic costs this answer; the hook has logged it. What is remembered is plain data, valid
/// at each step.
fn unless_it_panics(answer: impl FnOnce() -> Answer) -> Answer {
    panic::catch_unwind(AssertUnwindSafe(answer)).unwrap_or_else(|_| {
        Answer::text(
            "500 Internal Server Error",
            "a defect: the log has a line of it\n",
        )
    })
}

impl Asked<'_> {
    fn scrape(&self, budget: Duration) -> Scrape {
        let arrived = self.arrived();
        Scrape {
            arrived,
            deadline: arrived + budget,
            now: self.now,
            at: SystemTime::now(),
        }
    }
}

/// The time for a scrape that Prometheus gives this many seconds.
fn budget_of(seconds: &str) -> Option<Duration> {
    let seconds: f64 = seconds.trim().parse().ok()?;
    let timeout = Duration::try_from_secs_f64(seconds).ok()?;
    let budget = timeout.saturating_sub(BUDGET_RESERVE).max(timeout / 2);
    (!budget.is_zero()).then_some(budget.min(BUDGET_MAX))
}

/// Whether an `Accept` or `Accept-Encoding` header names this, and not with a weight of 0
/// (RFC 9110, 12.4.2).
fn accepts(header: &str, what: &str) -> bool {
    header.split(',').any(|element| {
        let mut parts = element.split(';').map(str::trim);
        let is_named = parts
            .next()
            .is_some_and(|name| name.eq_ignore_ascii_case(what));
        let weight = parts.find_map(|part| part.strip_prefix("q="));
        is_named && weight.is_none_or(|weight| weight.parse::<f32>().is_ok_and(|q| q > 0.0))
    })
}

/// Sends the head and the pieces of the body each at once: `Request::respond` would send the body in pieces
/// of 8 KiB, chunked, under the server library's name.
fn send(request: Request, answer: &Answer) -> io::Result<()> {
    let is_head = *request.method() == Method::Head;
    let mut head = format!(
        "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\
         Vary: Accept, Accept-Encoding\r\n",
        answer.status,
        answer.content_type,
        answer.body.len()
    );
    if answer.is_gzip {
        head.push_str("Content-Encoding: gzip\r\n");
    }
    for (name, value) in answer.headers {
        head.push_str(name);
        head.push_str(": ");
        head.push_str(value);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    let mut writer = request.into_writer();
    writer.write_all(head.as_bytes())?;
    if !is_head {
        for piece in answer.body.pieces() {
            writer.write_all(piece)?;
        }
    }
    writer.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_budget(seconds: &str, expected: Option<u64>) {
        let actual = budget_of(seconds).map(|budget| budget.as_millis() as u64);
        assert_eq!(actual, expected, "{seconds}");
    }

    #[test]
    fn the_budget_is_prometheus_timeout_less_a_reserve() {
        check_budget("10", Some(9_500));
        check_budget("10.000000", Some(9_500));
        check_budget("0.4", Some(200));
        check_budget("120", Some(50_000));
        for nonsense in ["", "0", "-1", "NaN", "inf", "1e400", "ten"] {
            check_budget(nonsense, None);
        }
    }

    #[test]
    fn a_panic_costs_one_answer_and_tells_nothing() {
        let answer = unless_it_panics(|| panic!("inner workings"));
        assert_eq!(answer.status, "500 Internal Server Error");
        let text = answer.body.pieces().concat();
        assert!(!String::from_utf8_lossy(&text).contains("inner"));
        let answer = unless_it_panics(|| Answer::text("200 OK", "ok\n"));
        assert_eq!(answer.status, "200 OK");
    }

    #[test]
    fn a_body_is_the_same_in_pieces_and_in_one() {
        let body = Body {
            shared: Arc::new("of all ".repeat(300)),
            own: b"and its own".to_vec(),
        };
        let mut plain = String::new();
        let packed = body.gzipped().pieces().concat();
        let mut decoder = flate2::read::GzDecoder::new(packed.as_slice());
        io::Read::read_to_string(&mut decoder, &mut plain).unwrap();
        assert_eq!(plain.as_bytes(), body.pieces().concat());
        assert_eq!(plain.len(), body.len());
    }

    #[track_caller]
    fn check_accepts(expected: bool, header: &str, what: &str) {
        assert_eq!(accepts(header, what), expected, "{header}");
    }

    #[test]
    fn a_header_accepts_what_it_names_with_a_weight_above_nothing() {
        check_accepts(true, "gzip", "gzip");
        check_accepts(true, "deflate, GZIP;q=0.5", "gzip");
        check_accepts(false, "gzip;q=0", "gzip");
        check_accepts(false, "gzip; q=0.000, br", "gzip");
        check_accepts(false, "", "gzip");
        check_accepts(false, "xgzip, gzipx", "gzip");
        let prometheus = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5,*/*;q=0.1";
        check_accepts(false, prometheus, "text/html");
        check_accepts(
            true,
            "text/html,application/xhtml+xml,*/*;q=0.8",
            "text/html",
        );
    }
}
