//! An answer as it goes out: the head, and a body that may be shared with other answers.

use std::sync::Arc;

const PLAIN_TEXT: &str = "text/plain; charset=utf-8";

/// In two pieces: what answers share, and what is new in this one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Body {
    pub shared: Arc<Vec<u8>>,
    pub own: Vec<u8>,
    /// Counts the different texts of the metrics, from 1; 0 where nothing is shared.
    pub text: u64,
}

impl Body {
    /// A body of which nothing is shared.
    pub fn new(own: impl Into<Vec<u8>>) -> Body {
        Body {
            own: own.into(),
            ..Body::default()
        }
    }

    pub fn len(&self) -> usize {
        self.shared.len() + self.own.len()
    }
}

pub struct Response {
    /// With the empty line at its end.
    pub head: Vec<u8>,
    pub body: Body,
}

impl Response {
    /// Every answer closes its connection: to keep it would save a scraper a millisecond a
    /// minute and take a connection from the limit.
    pub fn new(status: &str, headers: &[(&str, &str)], body: Body) -> Response {
        let mut head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\
             Vary: Accept, Accept-Encoding\r\n",
            body.len()
        );
        for (name, value) in headers {
            head.push_str(name);
            head.push_str(": ");
            head.push_str(value);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        Response {
            head: head.into_bytes(),
            body,
        }
    }

    /// A line of plain text.
    pub fn text(status: &str, text: &str) -> Response {
        let headers = [("Content-Type", PLAIN_TEXT)];
        Response::new(status, &headers, Body::new(text))
    }

    /// Offers Basic first: a browser takes the first scheme that it knows.
    pub fn unauthorized() -> Response {
        let headers = [
            ("Content-Type", PLAIN_TEXT),
            (
                "WWW-Authenticate",
                "Basic realm=\"ttn-gateway-exporter\", charset=\"UTF-8\"",
            ),
            ("WWW-Authenticate", "Bearer"),
        ];
        let text = "a token is needed: Authorization: Bearer …, or Basic with any user and the \
                    token as password\n";
        Response::new("401 Unauthorized", &headers, Body::new(text))
    }
}

/// Why a request is refused before it has a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    BadRequest,
    MethodNotAllowed,
    Timeout,
    HeadTooLarge,
    VersionNotSupported,
}

impl Refusal {
    /// Statuses and reason phrases of RFC 9110 and RFC 6585.
    pub fn response(self) -> Response {
        let status = match self {
            Refusal::BadRequest => "400 Bad Request",
            Refusal::MethodNotAllowed => "405 Method Not Allowed",
            Refusal::Timeout => "408 Request Timeout",
            Refusal::HeadTooLarge => "431 Request Header Fields Too Large",
            Refusal::VersionNotSupported => "505 HTTP Version Not Supported",
        };
        let headers = [("Content-Type", PLAIN_TEXT), ("Allow", "GET, HEAD")];
        let count = if self == Refusal::MethodNotAllowed {
            2
        } else {
            1
        };
        Response::new(status, &headers[..count], Body::new(format!("{status}\n")))
    }
}
