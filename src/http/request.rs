//! Parses the head of a request. Pure.
//!
//! Strict on purpose: only a complete GET or HEAD of HTTP/1.x without a body is answered
//! (RFC 9112), and only the headers that the server uses are kept.

use crate::http::response::{
    BAD_REQUEST, HEAD_TOO_LARGE, METHOD_NOT_ALLOWED, VERSION_NOT_SUPPORTED,
};

/// Browsers and scrapers send less than 2 KiB.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Browsers send some twenty, and a proxy adds its own.
const HEADERS_MAX: usize = 100;

/// A request that can be answered. Of a header that is sent more than once the first one counts.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Request {
    pub is_head: bool,
    /// Begins with a slash; any query is still there.
    pub target: String,
    pub authorization: Option<String>,
    pub accept: Option<String>,
    pub accept_encoding: Option<String>,
    /// X-Prometheus-Scrape-Timeout-Seconds.
    pub scrape_timeout: Option<String>,
}

/// Parses what has arrived so far. None while the head is not complete; an error is the status
/// with which to refuse the request at once, instead of waiting for more.
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
    let mut request = Request {
        is_head,
        target: head.path.and_then(path_of).ok_or(BAD_REQUEST)?.to_owned(),
        ..Request::default()
    };
    for field in head.headers.iter() {
        let header = match field.name.to_ascii_lowercase().as_str() {
            "authorization" => &mut request.authorization,
            "accept" => &mut request.accept,
            "accept-encoding" => &mut request.accept_encoding,
            "x-prometheus-scrape-timeout-seconds" => &mut request.scrape_timeout,
            "content-length" if field.value == b"0" => continue,
            // They announce a body.
            "content-length" | "transfer-encoding" | "expect" => return Err(BAD_REQUEST),
            _ => continue,
        };
        // None of these headers has a meaning with other than printable ASCII.
        if header.is_none() {
            *header = printable(field.value);
        }
    }
    Ok(request)
}

/// httparse takes a bare line feed for the end of a line, as RFC 9112 allows; a proxy may not.
fn has_bare_line_feed(bytes: &[u8]) -> bool {
    let mut lines = bytes.split(|byte| *byte == b'\n').rev().skip(1);
    lines.any(|line| !line.ends_with(b"\r"))
}

/// The path of a target, also of the absolute form that a client sends to a proxy.
fn path_of(target: &str) -> Option<&str> {
    let path = match target.split_at_checked(7) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http://") => {
            let slash = rest
                .find(['/', '?'])
                .filter(|at| rest[*at..].starts_with('/'));
            slash.map_or("/", |slash| &rest[slash..])
        }
        _ => target,
    };
    (path.starts_with('/') && path.is_ascii()).then_some(path)
}

fn printable(bytes: &[u8]) -> Option<String> {
    let is_printable = |byte: &u8| matches!(byte, b' '..=b'~');
    let text = bytes.iter().all(is_printable).then_some(bytes)?;
    String::from_utf8(text.to_vec()).ok()
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
}
