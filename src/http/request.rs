//! The head of a request, and what it asks for. Pure.
//!
//! Strict on purpose: only a complete GET or HEAD of HTTP/1.x without a body is answered
//! (RFC 9112), and only the headers that the server uses are kept.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use httparse::Status;

use crate::secret::Secret;

// The statuses with which a request is refused (RFC 9110, RFC 6585).
const BAD_REQUEST: &str = "400 Bad Request";
const METHOD_NOT_ALLOWED: &str = "405 Method Not Allowed";
pub const TIMEOUT: &str = "408 Request Timeout";
const HEAD_TOO_LARGE: &str = "431 Request Header Fields Too Large";
const VERSION_NOT_SUPPORTED: &str = "505 HTTP Version Not Supported";

/// The longest time for one collection, whatever the client allows.
pub const BUDGET_MAX: Duration = Duration::from_secs(300);
/// This much of Prometheus's timeout is left for the way back.
const BUDGET_RESERVE: Duration = Duration::from_millis(500);
/// How long a request waits beyond the deadline of its collection; a part of the reserve.
const GRACE: Duration = Duration::from_millis(250);
/// How long a person waits for new data before the page shows what is known.
const PAGE_WAIT_MAX: Duration = Duration::from_secs(2);
/// Browsers and scrapers send less than 2 KiB.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Browsers send some twenty, and a proxy adds its own.
const HEADERS_MAX: usize = 100;

#[derive(Debug, PartialEq, Eq)]
pub enum Route<'a> {
    Health,
    Metrics,
    /// The status page, with the query as it was sent, without its question mark.
    Page(&'a str),
}

/// A request that can be answered. Of a header that is sent more than once the first one counts that
/// is printable ASCII.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Request {
    pub is_head: bool,
    /// Begins with a slash; any query is still there.
    target: String,
    pub authorization: Option<String>,
    accept: Option<String>,
    accept_encoding: Option<String>,
    /// X-Prometheus-Scrape-Timeout-Seconds.
    scrape_timeout: Option<String>,
}

impl Request {
    /// None where nothing is at its target.
    pub fn route(&self) -> Option<Route<'_>> {
        let target = self.target.split('#').next().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        match path {
            "/-/healthy" => Some(Route::Health),
            "/" if accepts(self.accept.as_deref(), "text/html") => Some(Route::Page(query)),
            "/" | "/metrics" => Some(Route::Metrics),
            _ => None,
        }
    }

    pub fn takes_gzip(&self) -> bool {
        accepts(self.accept_encoding.as_deref(), "gzip")
    }

    /// How long a collection for it may take, and how long its client waits for an answer.
    /// `budget` is the time of a scrape that names no timeout.
    pub fn times(&self, route: &Route, budget: Duration) -> [Duration; 2] {
        let named = self.scrape_timeout.as_deref().and_then(budget_of);
        let (budget, wait) = match route {
            // The collection goes on, so that the next request finds more.
            Route::Page(_) => (budget, budget.min(PAGE_WAIT_MAX)),
            _ => (named.unwrap_or(budget), named.unwrap_or(budget)),
        };
        [budget, wait + GRACE.min(wait / 2)]
    }
}

/// Parses what has arrived so far. None while the head is not complete; an error is the status
/// with which to refuse the request at once, instead of waiting for more.
pub fn parse(received: &[u8]) -> Option<Result<Request, &'static str>> {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut fields);
    match head.parse(received) {
        Ok(Status::Complete(length)) if is_strict(&received[..length]) => Some(check(&head)),
        Ok(Status::Partial) if is_strict(received) => {
            (received.len() >= HEAD_BYTES_MAX).then_some(Err(HEAD_TOO_LARGE))
        }
        Err(httparse::Error::Version) => Some(Err(VERSION_NOT_SUPPORTED)),
        Err(httparse::Error::TooManyHeaders) => Some(Err(HEAD_TOO_LARGE)),
        _ => Some(Err(BAD_REQUEST)),
    }
}

/// httparse skips empty lines at the beginning, and takes a bare line feed for the end of a line,
/// as RFC 9112 allows; a proxy may not.
fn is_strict(bytes: &[u8]) -> bool {
    let mut lines = bytes.split(|byte| *byte == b'\n').rev().skip(1);
    bytes.first().is_none_or(u8::is_ascii_alphabetic) && lines.all(|line| line.ends_with(b"\r"))
}

fn check(head: &httparse::Request) -> Result<Request, &'static str> {
    let is_head = match head.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Err(METHOD_NOT_ALLOWED),
    };
    let fields = |name| {
        let fields = head.headers.iter();
        fields.filter(move |field| field.name.eq_ignore_ascii_case(name))
    };
    let mut lengths = fields("content-length");
    let has_body = lengths.any(|field| field.value != b"0")
        || fields("transfer-encoding").chain(fields("expect")).count() > 0;
    let target = head.path.and_then(path_of).filter(|_| !has_body);
    let value = |name| fields(name).find_map(|field| printable(field.value));
    Ok(Request {
        is_head,
        target: target.ok_or(BAD_REQUEST)?.to_owned(),
        authorization: value("authorization"),
        accept: value("accept"),
        accept_encoding: value("accept-encoding"),
        scrape_timeout: value("x-prometheus-scrape-timeout-seconds"),
    })
}

/// None of the headers that are used has a meaning with other than printable ASCII.
fn printable(bytes: &[u8]) -> Option<String> {
    let is_printable = bytes.iter().all(|byte| matches!(byte, b' '..=b'~'));
    is_printable.then(|| String::from_utf8_lossy(bytes).into_owned())
}

/// The path of a target, also of the absolute form that a client sends to a proxy.
fn path_of(target: &str) -> Option<&str> {
    let path = match target.split_at_checked(7) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http://") => {
            let host_length = rest.find(['/', '?']).unwrap_or(rest.len());
            let path = &rest[host_length..];
            if path.starts_with('/') { path } else { "/" }
        }
        _ => target,
    };
    (path.starts_with('/') && path.is_ascii()).then_some(path)
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
    let header = header.unwrap_or_default().to_ascii_lowercase();
    header.replace(' ', "").split(',').any(|element| {
        let (name, parameters) = element.split_once(';').unwrap_or((element, ""));
        let mut parameters = parameters.split(';');
        let weight = parameters.find_map(|parameter| parameter.strip_prefix("q="));
        name == what && weight.is_none_or(|weight| weight.parse::<f32>().is_ok_and(|q| q > 0.0))
    })
}

/// The token is taken as `Bearer TOKEN` (RFC 6750) or as the password of any user (Basic,
/// RFC 7617), which browsers can ask for. `header` is the value of `Authorization`. The
/// comparison takes the same time wherever the texts differ.
pub fn is_authorized(token: &Secret, header: Option<&str>) -> bool {
    let Some((scheme, credentials)) = header.and_then(|value| value.split_once(' ')) else {
        return false;
    };
    let credentials = credentials.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return token.matches(credentials.as_bytes());
    }
    let decoded = STANDARD.decode(credentials).unwrap_or_default();
    // What follows the first colon: a user's name has none.
    let password = decoded.splitn(2, |byte| *byte == b':').nth(1);
    scheme.eq_ignore_ascii_case("basic") && password.is_some_and(|text| token.matches(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(request: &Request) -> [Option<&String>; 4] {
        [
            request.authorization.as_ref(),
            request.accept.as_ref(),
            request.accept_encoding.as_ref(),
            request.scrape_timeout.as_ref(),
        ]
    }

    /// Of what is taken, the target and the headers that are there, each after a bar.
    #[track_caller]
    fn check(received: &str, expected: Option<Result<&str, &'static str>>) {
        let told = |request: Request| {
            let headers = headers(&request).into_iter().flatten().map(String::as_str);
            let told: Vec<&str> = [request.target.as_str()]
                .into_iter()
                .chain(headers)
                .collect();
            told.join("|")
        };
        let actual = parse(received.as_bytes()).map(|request| request.map(told));
        let expected = expected.map(|request| request.map(str::to_owned));
        assert_eq!(actual, expected, "{received:?}");
    }

    #[test]
    fn a_whole_head_is_its_target_and_the_headers_that_matter() {
        for (received, expected) in [
            ("GET /metrics HTTP/1.1\r\nHost: pi:9714\r\n\r\n", "/metrics"),
            ("GET /metrics HTTP/1.0\r\n\r\n", "/metrics"),
            (
                "GET http://pi:9714/metrics?a HTTP/1.1\r\n\r\n",
                "/metrics?a",
            ),
            ("GET HTTP://pi:9714 HTTP/1.1\r\n\r\n", "/"),
            ("GET http://pi?next=/metrics HTTP/1.1\r\n\r\n", "/"),
            ("GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "/"),
            ("GET / HTTP/1.1\r\nAccept: \u{e9}\r\n\r\n", "/"),
            ("GET / HTTP/1.1\r\nConnection: upgrade\r\n\r\n", "/"),
        ] {
            check(received, Some(Ok(expected)));
        }
        check(
            "HEAD /?a=b HTTP/1.1\r\nACCEPT:text/html\r\nCookie: a\r\nAccept-Encoding: gzip\r\n\
             accept: second\r\nAuthorization:  Bearer t \r\n\
             X-Prometheus-Scrape-Timeout-Seconds: 10\r\n\r\nGET /next HTTP/1.1\r\n",
            Some(Ok("/?a=b|Bearer t|text/html|gzip|10")),
        );
    }

    #[test]
    fn what_may_still_become_a_head_is_waited_for() {
        for received in [
            "",
            "G",
            "GET /metrics HTTP/1.1\r\n",
            "GET / HTTP/1.1\r\nA: b\r\n\r",
        ] {
            check(received, None);
        }
    }

    #[test]
    fn what_can_never_become_one_is_refused_at_once() {
        for received in [
            "\u{16}\u{3}\u{1}",
            "\r\n",
            " GET",
            "GET / HTTP/1.1\n",
            "GET / HTTP/1.1\n\n",
        ] {
            check(received, Some(Err(BAD_REQUEST)));
        }
        check(&"a".repeat(HEAD_BYTES_MAX - 1), None);
        check(&"a".repeat(HEAD_BYTES_MAX), Some(Err(HEAD_TOO_LARGE)));
    }

    #[test]
    fn bodies_and_bad_headers_are_refused() {
        for header in [
            "Content-Length: 2000",
            "Content-Length: 1000000000000",
            "Content-Length: -1",
            "Content-Length: 00",
            "Content-Length: 0\r\nContent-Length: 5",
            "Transfer-Encoding: chunked",
            "Expect: 100-continue",
            "A b: c",
            "A : c",
            ": c",
            "no colon",
            "A: b\r\n folded",
            "A: nul\0",
            "A: b\rc",
            "",
        ] {
            let received = format!("GET / HTTP/1.1\r\n{header}\r\n\r\n");
            let expected = match header {
                "" => Ok("/"),
                _ => Err(BAD_REQUEST),
            };
            check(&received, Some(expected));
        }
    }

    #[test]
    fn the_request_line_is_three_words_that_we_know() {
        for (line, refusal) in [
            ("POST /metrics HTTP/1.1", METHOD_NOT_ALLOWED),
            ("OPTIONS * HTTP/1.1", METHOD_NOT_ALLOWED),
            ("get / HTTP/1.1", METHOD_NOT_ALLOWED),
            ("CONNECT a:1 HTTP/1.1", METHOD_NOT_ALLOWED),
            ("PRI * HTTP/2.0", VERSION_NOT_SUPPORTED),
            ("GET / HTTP/3.0", VERSION_NOT_SUPPORTED),
            ("GET / HTTP/1.2", VERSION_NOT_SUPPORTED),
            ("GET / HTTP/0.9", VERSION_NOT_SUPPORTED),
            ("GET /", BAD_REQUEST),
            ("GET  / HTTP/1.1", BAD_REQUEST),
            ("GET / HTTP/1.1 x", BAD_REQUEST),
            ("GET / HTTP/1.10", BAD_REQUEST),
            ("GET / http/1.1", VERSION_NOT_SUPPORTED),
            ("GET * HTTP/1.1", BAD_REQUEST),
            ("GET metrics HTTP/1.1", BAD_REQUEST),
            ("GET https://pi/metrics HTTP/1.1", BAD_REQUEST),
            ("GET /\u{e9} HTTP/1.1", BAD_REQUEST),
            ("G\u{e9}T / HTTP/1.1", BAD_REQUEST),
            ("{} / HTTP/1.1", BAD_REQUEST),
        ] {
            check(&format!("{line}\r\n\r\n"), Some(Err(refusal)));
        }
    }

    fn is_printable(text: &str) -> bool {
        text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
    }

    #[test]
    fn property_what_is_taken_is_a_path_and_printable_text_whatever_is_sent() {
        const PIECES: &[&[u8]] = &[
            b"\r\n",
            b"\n",
            b"\r",
            b" ",
            b":",
            b"\0",
            b"HTTP/2.0",
            b"\xff",
            b"\t",
            b"Content-Length: 5\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"\r\n\r\n",
        ];
        let seed = b"GET http://a/metrics?x HTTP/1.1\r\nHost: a\r\nAccept: text/html\r\n\
            Content-Length: 0\r\nAuthorization: Bearer t\r\nExpect: x\r\n\r\nGET / HTTP/1.1\r\n\r\n";
        let heads = crate::fuzz::mutations(vec![seed.to_vec()], PIECES);
        crate::fuzz::check(20_000, heads, |received| {
            if let Some(Ok(request)) = parse(&received) {
                assert!(request.target.starts_with('/') && is_printable(&request.target));
                let mut headers = headers(&request).into_iter().flatten();
                assert!(headers.all(|value| is_printable(value)));
                let lower = received.to_ascii_lowercase();
                let head = lower.windows(4).position(|four| four == b"\r\n\r\n");
                let head = &lower[..head.expect("a whole head")];
                let has = |text: &[u8]| head.windows(text.len()).any(|part| part == text);
                assert!(!has(b"\ntransfer-encoding:") && !has(b"\nexpect:"));
            }
        });
    }

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
        let request = parse(head.as_bytes());
        request.expect("a whole head").expect("a good one")
    }

    #[track_caller]
    fn check_route(target: &str, accept: &str, expected: Option<Route>) {
        let request = request(target, &format!("Accept: {accept}"));
        assert_eq!(request.route(), expected, "{target}");
    }

    #[test]
    fn the_root_is_a_page_for_who_accepts_html_and_the_query_is_the_pages() {
        check_route("/metrics?x#y", "text/html", Some(Route::Metrics));
        check_route("/?state=unknown#t", "*/*", Some(Route::Metrics));
        let page = Route::Page("state=unknown&q=a?b");
        check_route("/?state=unknown&q=a?b#t?", "text/html", Some(page));
        check_route("/", "text/html", Some(Route::Page("")));
        check_route("/metrics/", "text/html", None);
    }

    /// Seconds until the end of the collection, and until the answer.
    #[track_caller]
    fn check_times(target: &str, timeout: &str, expected: [f64; 2]) {
        let headers =
            format!("Accept: text/html\r\nX-Prometheus-Scrape-Timeout-Seconds: {timeout}");
        let request = request(target, &headers);
        let route = request.route().expect("a route");
        let times = request.times(&route, Duration::from_secs(10));
        let actual = times.map(|time| time.as_secs_f64());
        assert_eq!(actual, expected, "{target} {timeout}");
    }

    #[test]
    fn a_page_waits_less_than_its_collection_takes_and_a_scrape_a_little_longer() {
        check_times("/", "60", [10.0, 2.25]);
        check_times("/metrics", "none", [10.0, 10.25]);
        check_times("/metrics", "3", [2.5, 2.75]);
        check_times("/metrics", "0.2", [0.1, 0.15]);
    }

    #[track_caller]
    fn check_token(expected: bool, header: &str) {
        let token = Secret::new("to:ken").expect("a token");
        assert_eq!(is_authorized(&token, Some(header)), expected, "{header}");
    }

    #[test]
    fn the_token_is_a_bearer_token_or_the_password_of_any_user() {
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        check_token(true, "Bearer to:ken");
        check_token(true, "bearer  to:ken ");
        check_token(true, &basic("prometheus:to:ken"));
        check_token(true, &basic(":to:ken"));
        check_token(true, &basic("ü:to:ken").replace("Basic", "BASIC"));
        check_token(false, &basic("to:ken"));
        check_token(false, &basic("to:ken:"));
        check_token(false, &basic("user:to:ken2"));
        for header in [
            "",
            "to:ken",
            "Bearer",
            "Bearer ",
            "Basic",
            "Basic ?",
            "Basic dG86a2Vu",
        ] {
            check_token(false, header);
        }
        let token = Secret::new("to:ken").expect("a token");
        assert!(!is_authorized(&token, None));
    }
}
