//! An answer as it goes out: the head, and a body that may be shared with other answers.

use std::sync::Arc;

const PLAIN_TEXT: (&str, &str) = ("Content-Type", "text/plain; charset=utf-8");

pub struct Response {
    /// With the empty line at its end.
    pub head: Vec<u8>,
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
    pub fn new(
        status: &str,
        headers: &[(&str, &str)],
        shared: Arc<Vec<u8>>,
        own: Vec<u8>,
    ) -> Response {
        let mut head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\
             Allow: GET, HEAD\r\nVary: Accept, Accept-Encoding\r\n",
            shared.len() + own.len()
        );
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head.push_str("\r\n");
        Response {
            head: head.into_bytes(),
            shared,
            own,
            text: 0,
        }
    }

    /// A line of plain text.
    pub fn text(status: &str, text: &str) -> Response {
        Response::new(status, &[PLAIN_TEXT], Arc::default(), text.into())
    }

    /// Offers Basic first: a browser takes the first scheme that it knows.
    pub fn unauthorized() -> Response {
        let basic = "Basic realm=\"ttn-gateway-exporter\", charset=\"UTF-8\"";
        let headers = [
            PLAIN_TEXT,
            ("WWW-Authenticate", basic),
            ("WWW-Authenticate", "Bearer"),
        ];
        let text = "a token is needed: Authorization: Bearer …, or Basic with any user and the \
                    token as password\n";
        Response::new("401 Unauthorized", &headers, Arc::default(), text.into())
    }
}
