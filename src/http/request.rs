//! The head of a request as a stranger sent it: whether it is whole and harmless, and how it
//! is passed on. Pure.
//!
//! Strict on purpose: only a complete GET or HEAD of HTTP/1.x without a body gets through
//! (RFC 9112), and of its headers only those that the server uses. So tiny_http never meets
//! the requests that hang, crash or leak it: bodies (read when a `Request` is dropped, into a
//! buffer of the announced length), `Expect`, `Upgrade`, and HTTP/2.0 (deadlocks a worker).

use std::time::Duration;

use crate::http::response::{
    BAD_REQUEST, HEAD_TOO_LARGE, METHOD_NOT_ALLOWED, VERSION_NOT_SUPPORTED,
};

/// Browsers and scrapers send less than 2 KiB.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Browsers send some twenty, and a proxy adds its own.
const HEADERS_MAX: usize = 100;

/// The headers that mean something here. The first one is not passed on.
const KNOWN_HEADERS: [&str; 4] = [
    "Authorization",
    "Accept",
    "Accept-Encoding",
    "X-Prometheus-Scrape-Timeout-Seconds",
];

/// How long the request has waited for the loop, in milliseconds. What a client sends under
/// this name is not passed on.
pub const WAITED_HEADER: &str = "X-Waited-Milliseconds";

/// A request that can be answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    pub is_head: bool,
    /// Begins with a slash; any query is still there.
    pub target: String,
    /// By the position in [`KNOWN_HEADERS`].
    headers: [Option<String>; KNOWN_HEADERS.len()],
}

impl Request {
    /// The value of one of the headers that mean something here.
    pub fn header(&self, name: &str) -> Option<&str> {
        let index = KNOWN_HEADERS.iter().position(|known| *known == name)?;
        self.headers[index].as_deref()
    }

    /// The request as the loop gets it, which leaves the rest to the thread: who may ask, and
    /// whether a body follows the head.
    pub fn forwarded(&self, waited: Duration) -> String {
        let mut request = format!(
            "GET {} HTTP/1.1\r\nHost: loop\r\n{WAITED_HEADER}: {}\r\n",
            self.target,
            waited.as_millis()
        );
        for (name, value) in KNOWN_HEADERS.iter().zip(&self.headers).skip(1) {
            if let Some(value) = value {
                request.push_str(name);
                request.push_str(": ");
                request.push_str(value);
                request.push_str("\r\n");
            }
        }
        request.push_str("\r\n");
        request
    }
}

/// Reads what has arrived so far: nothing yet, a whole head, or something to refuse at once
/// with this status instead of waiting for more.
pub fn parse(received: &[u8]) -> Option<Result<Request, &'static str>> {
    let begins_like_http = received.first().is_none_or(u8::is_ascii_alphabetic);
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut fields);
    match head.parse(received) {
        _ if !begins_like_http => Some(Err(BAD_REQUEST)),
        Ok(httparse::Status::Complete(length)) => Some(check(&head, &received[..length])),
        Err(httparse::Error::Version) => Some(Err(VERSION_NOT_SUPPORTED)),
        Err(httparse::Error::TooManyHeaders) => Some(Err(HEAD_TOO_LARGE)),
        Err(_) => Some(Err(BAD_REQUEST)),
        Ok(_) if has_bare_line_feed(received) => Some(Err(BAD_REQUEST)),
        Ok(_) if received.len() >= HEAD_BYTES_MAX => Some(Err(HEAD_TOO_LARGE)),
        Ok(_) => None,
    }
}

fn check(head: &httparse::Request, received: &[u8]) -> Result<Request, &'static str> {
    if has_bare_line_feed(received) {
        return Err(BAD_REQUEST);
    }
    let is_head = match head.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Err(METHOD_NOT_ALLOWED),
    };
    let target = head.path.and_then(path_of).ok_or(BAD_REQUEST)?;
    let mut headers = [const { None }; KNOWN_HEADERS.len()];
    for field in head.headers.iter() {
        if announces_a_body(field) {
            return Err(BAD_REQUEST);
        }
        let is_field = |known: &&'static str| known.eq_ignore_ascii_case(field.name);
        // The first one counts. A value that is not printable ASCII means nothing in any of
        // these: as if it was not sent.
        if let Some(index) = KNOWN_HEADERS.iter().position(is_field)
            && headers[index].is_none()
        {
            headers[index] = printable(field.value).map(str::to_owned);
        }
    }
    Ok(Request {
        is_head,
        target: target.to_owned(),
        headers,
    })
}

/// httparse takes it for the end of a line, as RFC 9112 allows; a proxy on the way may not.
fn has_bare_line_feed(bytes: &[u8]) -> bool {
    let mut lines = bytes.split(|byte| *byte == b'\n').rev().skip(1);
    lines.any(|line| !line.ends_with(b"\r"))
}

/// The path of a target, also of the absolute form that a client sends to a proxy.
fn path_of(target: &str) -> Option<&str> {
    let path = match target.split_at_checked(7) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http://") => {
            rest.find('/').map_or("/", |slash| &rest[slash..])
        }
        _ => target,
    };
    (path.starts_with('/') && path.is_ascii()).then_some(path)
}

fn announces_a_body(field: &httparse::Header) -> bool {
    let is = |other: &str| field.name.eq_ignore_ascii_case(other);
    is("transfer-encoding") || is("expect") || (is("content-length") && field.value != b"0")
}

fn printable(bytes: &[u8]) -> Option<&str> {
    let is_printable = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
    let text = bytes.iter().all(is_printable).then_some(bytes)?;
    str::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(received: &str, expected: Option<Result<&str, &'static str>>) {
        let actual = parse(received.as_bytes());
        let actual = actual.map(|head| head.map(|h| h.forwarded(Duration::from_millis(7))));
        let expected = expected.map(|request| request.map(str::to_owned));
        assert_eq!(actual, expected, "{received:?}");
    }

    const PLAIN: &str = "GET /metrics HTTP/1.1\r\nHost: loop\r\nX-Waited-Milliseconds: 7\r\n\r\n";

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
        let all = "GET /?a=b HTTP/1.1\r\nHost: loop\r\nX-Waited-Milliseconds: 7\r\n\
            Accept: text/html\r\nAccept-Encoding: gzip\r\n\
            X-Prometheus-Scrape-Timeout-Seconds: 10\r\n\r\n";
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
                "" => Ok("GET / HTTP/1.1\r\nHost: loop\r\nX-Waited-Milliseconds: 7\r\n\r\n"),
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

    /// What comes out must be a request that tiny_http reads as exactly one.
    #[track_caller]
    fn check_is_harmless(received: &[u8]) {
        if let Some(Ok(head)) = parse(received) {
            let request = head.forwarded(Duration::ZERO);
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
