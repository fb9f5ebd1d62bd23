//! The request loop on tiny_http: one request at a time becomes a route, the route an answer.
//!
//! Requests come through the front door alone: they are short, complete and without a body.
//! The loop may take as long as a scrape's budget, while others wait in the front door.

use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tiny_http::{Method, Request, Server};

use crate::collect::{Collector, Scrape};
use crate::http::body::{Body, Handover};
use crate::http::gzip::{Beginning, Compressor};
use crate::http::request_head::WAITED_HEADER;
use crate::model::Snapshot;
use crate::secret::Secret;
use crate::system::Notifier;
use crate::system::Observer;
use crate::{metrics, page};

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
    rendered: Option<Rendered>,
    compressor: Compressor,
    observer: Observer,
}

struct Rendered {
    collection: Arc<Snapshot>,
    text: Arc<Vec<u8>>,
    /// Made for the first who takes it.
    gzip: Option<Beginning>,
}

/// What goes back, but for the framing.
struct Answer {
    status: &'static str,
    content_type: &'static str,
    headers: &'static [(&'static str, &'static str)],
    is_gzip: bool,
    body: Body,
}

impl Answer {
    fn text(status: &'static str, text: &str) -> Answer {
        Answer {
            status,
            content_type: PLAIN_TEXT,
            headers: &[],
            is_gzip: false,
            body: Body::new(text.as_bytes().to_vec()),
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
            compressor: Compressor::default(),
            observer: Observer::new(),
        }
    }

    /// Answers requests for ever.
    pub fn serve(mut self, server: &Server, bodies: &Handover, mut notifier: Notifier) -> ! {
        loop {
            // The only error is that of the private listener, which is shut on purpose.
            let received = server.recv_timeout(notifier.interval());
            notifier.alive(Instant::now());
            if let Ok(Some(request)) = received {
                let answer = unless_it_panics(|| self.answer(&request));
                if let Err(error) = send(request, answer, bodies) {
                    log::debug!("cannot hand over an answer: {error}");
                }
            }
        }
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
        let body = self.text(&asked.scrape(budget));
        self.answer_with(asked, metrics::CONTENT_TYPE, &[], body)
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
        let url = asked.request.url().split('#').next().unwrap_or_default();
        let query = url.split_once('?').map_or("", |(_, query)| query);
        let html = page::render(&collection, self.collector.counters(), query, now);
        let body = Body::new(html.into_bytes());
        self.answer_with(asked, page::CONTENT_TYPE, HEADERS, body)
    }

    /// The whole exposition: the collection's part from memory where it has not changed, the
    /// exporter's own part always new.
    pub fn text(&mut self, scrape: &Scrape) -> Body {
        let collection = self.collector.collect(scrape);
        let is_current = |rendered: &Rendered| Arc::ptr_eq(&rendered.collection, &collection);
        if !self.rendered.as_ref().is_some_and(is_current) {
            // The old text makes room for the new one.
            self.rendered = None;
            let text = metrics::render_gateways(&collection);
            self.rendered = Some(Rendered {
                collection,
                text: Arc::new(text),
                gzip: None,
            });
        }
        let own = metrics::render_exporter(self.collector.counters(), &self.observer.read());
        let rendered = self.rendered.as_ref();
        Body {
            shared: rendered
                .map(|rendered| rendered.text.clone())
                .unwrap_or_default(),
            own,
        }
    }

    /// Whether the last collection was complete, for `--once`.
    pub fn is_complete(&self) -> bool {
        let last = self.rendered.as_ref();
        last.is_some_and(|last| last.collection.is_complete())
    }

    fn answer_with(
        &mut self,
        asked: &Asked<'_>,
        content_type: &'static str,
        headers: &'static [(&'static str, &'static str)],
        body: Body,
    ) -> Answer {
        let is_gzip = body.len() >= GZIP_BYTES_MIN && asked.accepts("Accept-Encoding", "gzip");
        let body = if is_gzip {
            self.compressed(&body)
        } else {
            body
        };
        Answer {
            status: "200 OK",
            content_type,
            headers,
            is_gzip,
            body,
        }
    }

    /// What is shared is compressed once.
    fn compressed(&mut self, body: &Body) -> Body {
        let compressor = &mut self.compressor;
        let mut kept = self.rendered.as_mut();
        let kept = kept.take_if(|kept| Arc::ptr_eq(&kept.text, &body.shared));
        let made;
        let beginning = match kept {
            Some(kept) => kept
                .gzip
                .get_or_insert_with(|| compressor.begin(&kept.text)),
            None => {
                made = compressor.begin(&body.shared);
                &made
            }
        };
        Body {
            shared: beginning.bytes.clone(),
            own: compressor.finish(beginning, &body.own),
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

/// Hands the body over and sends the head through tiny_http, in one piece. `Request::respond`
/// would send more than that, under the server library's name.
fn send(request: Request, answer: Answer, bodies: &Handover) -> io::Result<()> {
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
    let is_head = *request.method() == Method::Head;
    bodies.leave(if is_head {
        Body::default()
    } else {
        answer.body
    });
    let mut writer = request.into_writer();
    writer.write_all(head.as_bytes())?;
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
        assert!(!String::from_utf8_lossy(&answer.body.own).contains("inner"));
        let answer = unless_it_panics(|| Answer::text("200 OK", "ok\n"));
        assert_eq!(answer.status, "200 OK");
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
