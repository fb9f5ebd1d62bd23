//! What a request asks for, and by when it must be answered. Pure.

use std::time::{Duration, Instant, SystemTime};

use crate::collect::Scrape;
use crate::http::request::Request;

/// The longest time for one collection, whatever the client allows.
pub const BUDGET_MAX: Duration = Duration::from_secs(300);
/// This much of Prometheus's timeout is left for the way back.
const BUDGET_RESERVE: Duration = Duration::from_millis(500);
/// How long a request waits beyond the deadline of its own collection; a part of the reserve.
const GRACE: Duration = Duration::from_millis(250);
/// How long a person waits for new data before the page shows what is known.
const PAGE_WAIT_MAX: Duration = Duration::from_secs(2);

#[derive(Debug, PartialEq, Eq)]
pub enum Route {
    Metrics,
    /// The status page, with the query as it was sent, without its question mark.
    Page(String),
}

pub struct Task {
    pub route: Route,
    pub takes_gzip: bool,
    arrived: Instant,
    /// When a collection that is begun for it has to end.
    pub deadline: Instant,
    /// How long the client can wait.
    wait: Duration,
}

impl Task {
    /// None where nothing is at this target. `budget` is for a scrape that names no timeout.
    pub fn new(request: &Request, arrived: Instant, budget: Duration) -> Option<Task> {
        let (path, query) = split(&request.target);
        let route = match path {
            "/" if accepts(request.accept.as_deref(), "text/html") => Route::Page(query.to_owned()),
            "/" | "/metrics" => Route::Metrics,
            _ => return None,
        };
        let (budget, wait) = match route {
            // The collection goes on, so that the next request finds more.
            Route::Page(_) => (budget, budget.min(PAGE_WAIT_MAX)),
            Route::Metrics => {
                let named = request.scrape_timeout.as_deref().and_then(budget_of);
                let budget = named.unwrap_or(budget);
                (budget, budget)
            }
        };
        Some(Task {
            route,
            takes_gzip: accepts(request.accept_encoding.as_deref(), "gzip"),
            arrived,
            deadline: arrived + budget,
            wait,
        })
    }

    /// When the client has to be answered. It can wait a little longer while the collection that
    /// it waits for is under way.
    pub fn answer_by(&self, is_under_way: bool) -> Instant {
        let grace = GRACE.min(self.wait / 2);
        self.arrived + self.wait + if is_under_way { grace } else { Duration::ZERO }
    }

    /// The question to the collector at this moment.
    pub fn scrape(&self) -> Scrape {
        Scrape {
            arrived: self.arrived,
            deadline: self.deadline,
            now: Instant::now(),
            at: SystemTime::now(),
        }
    }
}

/// Path and query of a target.
pub fn split(target: &str) -> (&str, &str) {
    let target = target.split('#').next().unwrap_or(target);
    target.split_once('?').unwrap_or((target, ""))
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
fn accepts(header: Option<&str>, what: &str) -> bool {
    let mut elements = header.unwrap_or_default().split(',');
    elements.any(|element| {
        let mut parts = element.split(';').map(str::trim);
        let is_named = parts
            .next()
            .is_some_and(|name| name.eq_ignore_ascii_case(what));
        let weight = parts.find_map(|part| part.strip_prefix(['q', 'Q'])?.strip_prefix('='));
        is_named && weight.is_none_or(|weight| weight.parse::<f32>().is_ok_and(|q| q > 0.0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request;

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
        check_budget("120", Some(119_500));
        check_budget("3600", Some(300_000));
        for nonsense in ["", "0", "-1", "NaN", "inf", "1e400", "ten"] {
            check_budget(nonsense, None);
        }
    }

    #[track_caller]
    fn check_accepts(expected: bool, header: &str, what: &str) {
        assert_eq!(accepts(Some(header), what), expected, "{header}");
    }

    #[test]
    fn a_header_accepts_what_it_names_with_a_weight_above_nothing() {
        check_accepts(true, "gzip", "gzip");
        check_accepts(true, "deflate, GZIP;q=0.5", "gzip");
        check_accepts(false, "gzip;q=0", "gzip");
        check_accepts(false, "gzip; q=0.000, br", "gzip");
        check_accepts(false, "gzip;Q=0", "gzip");
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

    fn request(target: &str, headers: &str) -> Request {
        let head = format!("GET {target} HTTP/1.1\r\n{headers}\r\n\r\n");
        let request = request::parse(head.as_bytes());
        request.expect("a whole head").expect("a good one")
    }

    #[track_caller]
    fn check_route(target: &str, accept: &str, expected: Option<Route>) {
        let request = request(target, &format!("Accept: {accept}"));
        let task = Task::new(&request, Instant::now(), BUDGET_MAX);
        assert_eq!(task.map(|task| task.route), expected, "{target}");
    }

    #[test]
    fn the_root_is_a_page_for_who_accepts_html_and_the_query_is_the_pages() {
        check_route("/metrics?x#y", "text/html", Some(Route::Metrics));
        check_route("/?state=unknown#t", "*/*", Some(Route::Metrics));
        let page = Route::Page("state=unknown&q=a?b".to_owned());
        check_route("/?state=unknown&q=a?b#t?", "text/html", Some(page));
        check_route("/", "text/html", Some(Route::Page(String::new())));
        check_route("/metrics/", "text/html", None);
    }

    /// Seconds until the end of the collection, and until the answer without and with it.
    #[track_caller]
    fn check_times(target: &str, timeout: &str, expected: [f64; 3]) {
        let headers =
            format!("Accept: text/html\r\nX-Prometheus-Scrape-Timeout-Seconds: {timeout}");
        let now = Instant::now();
        let task = Task::new(&request(target, &headers), now, Duration::from_secs(10));
        let task = task.expect("a route");
        let times = [task.deadline, task.answer_by(false), task.answer_by(true)];
        let actual = times.map(|time| (time - now).as_secs_f64());
        assert_eq!(actual, expected, "{target} {timeout}");
    }

    #[test]
    fn a_page_waits_less_than_its_collection_takes_and_a_scrape_as_long() {
        check_times("/", "60", [10.0, 2.0, 2.25]);
        check_times("/metrics", "none", [10.0, 10.0, 10.25]);
        check_times("/metrics", "3", [2.5, 2.5, 2.75]);
        check_times("/metrics", "0.2", [0.1, 0.1, 0.15]);
    }
}
