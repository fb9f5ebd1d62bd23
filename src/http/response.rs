//! An answer as it goes out: the head, and a body that may be shared with other answers.

use std::sync::Arc;

// The statuses of [`Response::refusal`] (RFC 9110, RFC 6585).
pub const BAD_REQUEST: &str = "400 Bad Request";
pub const METHOD_NOT_ALLOWED: &str = "405 Method Not Allowed";
pub const TIMEOUT: &str = "408 Request Timeout";
pub const HEAD_TOO_LARGE: &str = "431 Request Header Fields Too Large";
pub const VERSION_NOT_SUPPORTED: &str = "505 HTTP Version Not Supported";

const PLAIN_TEXT: &str = "text/plain; charset=utf-8";

/// In two pieces: what several answers share, and what only this one has.
#[derive(Default)]
pub struct Body {
    pub shared: Arc<Vec<u8>>,
    pub own: Vec<u8>,
    /// Counts the different texts of the metrics, from 1; 0 for everything else.
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
            body.shared.len() + body.own.len()
        );
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
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

    /// Refuses a request before it has a route.
    pub fn refusal(status: &str) -> Response {
        let headers = [("Content-Type", PLAIN_TEXT), ("Allow", "GET, HEAD")];
        let count = if status == METHOD_NOT_ALLOWED { 2 } else { 1 };
        Response::new(status, &headers[..count], Body::new(format!("{status}\n")))
    }

    /// Offers Basic first: a browser takes the first scheme that it knows.
    pub fn unauthorized() -> Response {
        let basic = "Basic realm=\"ttn-gateway-exporter\", charset=\"UTF-8\"";
        let headers = [
            ("Content-Type", PLAIN_TEXT),
            ("WWW-Authenticate", basic),
            ("WWW-Authenticate", "Bearer"),
        ];
        let text = "a token is needed: Authorization: Bearer …, or Basic with any user and the \
                    token as password\n";
        Response::new("401 Unauthorized", &headers, Body::new(text))
    }
}
