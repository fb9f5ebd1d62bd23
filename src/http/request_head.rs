//! The head of a request as a stranger sent it: whether it is whole and harmless, and how it
//! is passed on. Pure.
//!
//! Strict on purpose: only a complete GET or HEAD of HTTP/1.x without a body gets through
//! (RFC 9112), and of its headers only those that the server uses. So tiny_http never meets
//! the requests that hang, crash or leak it: bodies (read when a `Request` is dropped, into a
//! buffer of the announced length), `Expect`, `Upgrade`, and HTTP/2.0 (deadlocks a worker).

use std::time::Duration;

/// Browsers and scrapers send less than 2 KiB.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;

/// The headers that are passed on, in lower case.
const FORWARDED: [&str; 4] = [
    "accept",
    "accept-encoding",
    "authorization",
    "x-prometheus-scrape-timeout-seconds",
];

/// How long the request has waited for the server, in milliseconds. Only the front door
/// writes it; what a client sends under this name is not passed on.
pub const WAITED_HEADER: &str = "X-Waited-Milliseconds";

/// Why a request is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    BadRequest,
    MethodNotAllowed,
    Timeout,
    HeadTooLarge,
    Unavailable,
    VersionNotSupported,
}

impl Refusal {
    /// Status and reason phrase (RFC 9110, RFC 6585).
    pub fn status(self) -> &'static str {
        match self {
            Refusal::BadRequest => "400 Bad Request",
            Refusal::MethodNotAllowed => "405 Method Not Allowed",
            Refusal::Timeout => "408 Request Timeout",
            Refusal::HeadTooLarge => "431 Request Header Fields Too Large",
            Refusal::Unavailable => "503 Service Unavailable",
            Refusal::VersionNotSupported => "505 HTTP Version Not Supported",
        }
    }

    /// The whole answer.
    pub fn answer(self) -> String {
        let status = self.status();
        let allow = match self {
            Refusal::MethodNotAllowed => "Allow: GET, HEAD\r\n",
            _ => "",
        };
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {}\r\n{allow}Connection: close\r\n\r\n{status}\n",
            status.len() + 1
        )
    }
}

/// A request that may be passed on.
#[derive(Debug, PartialEq, Eq)]
pub struct Head<'a> {
    pub is_head: bool,
    /// Begins with a slash; any query is still there.
    target: &'a str,
    forwarded: Vec<(&'static str, &'a str)>,
}

impl Head<'_> {
    /// The request as the server gets it.
    pub fn to_request(&self, waited: Duration) -> String {
        let method = if self.is_head { "HEAD" } else { "GET" };
        let mut request = format!(
            "{method} {} HTTP/1.1\r\nHost: front-door\r\n{WAITED_HEADER}: {}\r\n",
            self.target,
            waited.as_millis()
        );
        for (name, value) in &self.forwarded {
            request.push_str(name);
            request.push_str(": ");
            request.push_str(value);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        request
    }
}

/// Reads what has arrived so far: nothing yet, a whole head, or something to turn away at
/// once instead of waiting for more.
pub fn parse(received: &[u8]) -> Option<Result<Head<'_>, Refusal>> {
    if let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") {
        return Some(parse_whole(&received[..end]));
    }
    let begins_like_http = received.first().is_none_or(u8::is_ascii_alphabetic);
    if !begins_like_http || has_bare_line_feed(received) {
        return Some(Err(Refusal::BadRequest));
    }
    (received.len() >= HEAD_BYTES_MAX).then_some(Err(Refusal::HeadTooLarge))
}

fn has_bare_line_feed(bytes: &[u8]) -> bool {
    let mut before = 0;
    bytes.iter().any(|&byte| {
        let is_bare = byte == b'\n' && before != b'\r';
        before = byte;
        is_bare
    })
}

fn parse_whole(head: &[u8]) -> Result<Head<'_>, Refusal> {
    if has_bare_line_feed(head) {
        return Err(Refusal::BadRequest);
    }
    let mut lines = split_lines(head);
    let (is_head, target) = parse_request_line(lines.next().unwrap_or_default())?;
    let mut forwarded = Vec::new();
    for line in lines {
        let (name, value) = parse_field(line).ok_or(Refusal::BadRequest)?;
        if announces_a_body(name, value) {
            return Err(Refusal::BadRequest);
        }
        let wanted = FORWARDED
            .into_iter()
            .find(|wanted| name.eq_ignore_ascii_case(wanted));
        let is_first = |wanted: &str| forwarded.iter().all(|(known, _)| *known != wanted);
        // A value that is no printable ASCII has no meaning in any of these: as if not sent.
        if let (Some(wanted), Some(value)) = (wanted, printable(value))
            && is_first(wanted)
        {
            forwarded.push((wanted, value));
        }
    }
    Ok(Head {
        is_head,
        target,
        forwarded,
    })
}

fn split_lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    head.split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

fn parse_request_line(line: &[u8]) -> Result<(bool, &str), Refusal> {
    let line = printable(line).ok_or(Refusal::BadRequest)?;
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Refusal::BadRequest);
    };
    let digits = version.strip_prefix("HTTP/").map(str::as_bytes);
    match digits {
        Some(b"1.0" | b"1.1") => {}
        Some([major, b'.', minor]) if major.is_ascii_digit() && minor.is_ascii_digit() => {
            return Err(Refusal::VersionNotSupported);
        }
        _ => return Err(Refusal::BadRequest),
    }
    let is_head = match method {
        "GET" => false,
        "HEAD" => true,
        _ if !method.is_empty() && method.bytes().all(is_token) => {
            return Err(Refusal::MethodNotAllowed);
        }
        _ => return Err(Refusal::BadRequest),
    };
    Ok((is_head, path_of(target).ok_or(Refusal::BadRequest)?))
}

/// The path of a target, also of the absolute form that a client sends to a proxy.
fn path_of(target: &str) -> Option<&str> {
    let path = match target.split_at_checked(7) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http://") => {
            rest.find('/').map_or("/", |slash| &rest[slash..])
        }
        _ => target,
    };
    path.starts_with('/').then_some(path)
}

/// Name and value of a header line. A line that continues the one before has no name.
fn parse_field(line: &[u8]) -> Option<(&str, &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let is_name = !name.is_empty() && name.iter().copied().all(is_token);
    let has_controls = value
        .iter()
        .any(|byte| byte.is_ascii_control() && *byte != b'\t');
    if !is_name || has_controls {
        return None;
    }
    Some((str::from_utf8(name).ok()?, value.trim_ascii()))
}

fn announces_a_body(name: &str, value: &[u8]) -> bool {
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    is("transfer-encoding") || is("expect") || (is("content-length") && value != b"0")
}

fn printable(bytes: &[u8]) -> Option<&str> {
    let is_printable = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
    let text = bytes.iter().all(is_printable).then_some(bytes)?;
    str::from_utf8(text).ok()
}

/// `tchar` of RFC 9110.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(received: &str, expected: Option<Result<&str, Refusal>>) {
        let actual = parse(received.as_bytes());
        let actual = actual.map(|head| head.map(|h| h.to_request(Duration::from_millis(7))));
        let expected = expected.map(|request| request.map(str::to_owned));
        assert_eq!(actual, expected, "{received:?}");
    }

    const PLAIN: &str =
        "GET /metrics HTTP/1.1\r\nHost: front-door\r\nX-Waited-Milliseconds: 7\r\n\r\n";

    #[test]
    fn a_whole_head_is_passed_on_with_the_headers_that_matter() {
        check(
            "GET /metrics HTTP/1.1\r\nHost: pi:9714\r\n\r\n",
            Some(Ok(PLAIN)),
        );
        check("GET /metrics HTTP/1.0\r\n\r\n", Some(Ok(PLAIN)));
        check(
            "GET http://pi:9714/metrics HTTP/1.1\r\nHost: pi\r\n\r\n",
            Some(Ok(PLAIN)),
        );
        check(
            "GET /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
            Some(Ok(PLAIN)),
        );
        check(
            "GET /metrics HTTP/1.1\r\nX-Waited-Milliseconds: 9\r\n\r\n",
            Some(Ok(PLAIN)),
        );
        check(
            "GET /metrics HTTP/1.1\r\nAccept: \u{e9}\r\n\r\n",
            Some(Ok(PLAIN)),
        );
        check(
            "GET /metrics HTTP/1.1\r\nConnection: upgrade\r\n\r\n",
            Some(Ok(PLAIN)),
        );
        let all = "HEAD /?a=b HTTP/1.1\r\nHost: front-door\r\nX-Waited-Milliseconds: 7\r\n\
            accept: text/html\r\naccept-encoding: gzip\r\nauthorization: Bearer t\r\n\
            x-prometheus-scrape-timeout-seconds: 10\r\n\r\n";
        check(
            "HEAD /?a=b HTTP/1.1\r\nACCEPT:text/html\r\nCookie: a\r\nAccept-Encoding: gzip\r\n\
             accept: second\r\nAuthorization:  Bearer t \r\n\
             X-Prometheus-Scrape-Timeout-Seconds: 10\r\n\r\nGET /next HTTP/1.1\r\n",
            Some(Ok(all)),
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
            check(received, Some(Err(Refusal::BadRequest)));
        }
        check(&"a".repeat(HEAD_BYTES_MAX - 1), None);
        check(
            &"a".repeat(HEAD_BYTES_MAX),
            Some(Err(Refusal::HeadTooLarge)),
        );
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
                "" => Ok("GET / HTTP/1.1\r\nHost: front-door\r\nX-Waited-Milliseconds: 7\r\n\r\n"),
                _ => Err(Refusal::BadRequest),
            };
            check(&received, Some(expected));
        }
    }

    #[test]
    fn the_request_line_is_three_words_that_we_know() {
        use Refusal::{BadRequest, MethodNotAllowed, VersionNotSupported};
        for (line, refusal) in [
            ("POST /metrics HTTP/1.1", MethodNotAllowed),
            ("OPTIONS * HTTP/1.1", MethodNotAllowed),
            ("get / HTTP/1.1", MethodNotAllowed),
            ("CONNECT a:1 HTTP/1.1", MethodNotAllowed),
            ("PRI * HTTP/2.0", VersionNotSupported),
            ("GET / HTTP/3.0", VersionNotSupported),
            ("GET / HTTP/1.2", VersionNotSupported),
            ("GET / HTTP/0.9", VersionNotSupported),
            ("GET /", BadRequest),
            ("GET  / HTTP/1.1", BadRequest),
            ("GET / HTTP/1.1 x", BadRequest),
            ("GET / HTTP/1.10", BadRequest),
            ("GET / http/1.1", BadRequest),
            ("GET * HTTP/1.1", BadRequest),
            ("GET metrics HTTP/1.1", BadRequest),
            ("GET https://pi/metrics HTTP/1.1", BadRequest),
            ("GET /\u{e9} HTTP/1.1", BadRequest),
            ("G\u{e9}T / HTTP/1.1", BadRequest),
            ("{} / HTTP/1.1", BadRequest),
        ] {
            check(&format!("{line}\r\n\r\n"), Some(Err(refusal)));
        }
    }

    /// What comes out must be a request that tiny_http reads as exactly one.
    #[track_caller]
    fn check_is_harmless(received: &[u8]) {
        if let Some(Ok(head)) = parse(received) {
            let request = head.to_request(Duration::ZERO);
            assert!(request.is_ascii());
            assert_eq!(
                request.find("\r\n\r\n"),
                Some(request.len() - 4),
                "{request:?}"
            );
            assert!(request.len() < HEAD_BYTES_MAX + 128);
            let lower = request.to_ascii_lowercase();
            assert!(!lower.contains("\ncontent-length") && !lower.contains("\ntransfer-encoding"));
            assert!(request.lines().next().unwrap().ends_with(" HTTP/1.1"));
        }
    }

    #[test]
    fn property_nothing_harmful_gets_through_whatever_is_sent() {
        let seed = b"GET http://a/metrics?x HTTP/1.1\r\nHost: a\r\nAccept: text/html\r\n\
            Content-Length: 0\r\nAuthorization: Bearer t\r\nExpect: x\r\n\r\nGET / HTTP/1.1\r\n\r\n";
        let pieces: [&[u8]; 12] = [
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
        crate::random::repeat(50_000, |random| {
            check_is_harmless(&random.mutate(seed, &pieces));
        });
    }
}
