//! Serves one connection. A request that needs no collection is answered at once. Any other one
//! waits until a collection ends or its answer is due, and is answered with what is known then.

use std::io::{self, IoSlice};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::http::authorization::is_authorized;
use crate::http::backlog::Backlog;
use crate::http::connections::{Connection, Connections, Phase};
use crate::http::renderer::Renderer;
use crate::http::request::Request;
use crate::http::response::Response;
use crate::http::stream::{linger, read_head, write_by};
use crate::http::task::{Task, split};
use crate::secret::Secret;

/// From the connection to the end of the head. A scraper needs a round trip, or another
/// second where a packet is lost.
const HEAD_TIME_MAX: Duration = Duration::from_secs(2);
/// From the first byte of the answer to the last: megabytes over a slow link. A slow reader is
/// evicted before that where others need the connection.
const WRITE_TIME_MAX: Duration = Duration::from_secs(60);

pub struct Service {
    pub connections: Arc<Connections>,
    pub backlog: Backlog,
    pub renderer: Renderer,
    pub token: Option<Secret>,
    /// For a scrape that names no timeout.
    pub budget: Duration,
}

impl Service {
    /// Reads the request of this connection and answers it.
    ///
    /// # Errors
    /// If the client is gone, which needs no answer.
    pub fn serve(&self, connection: &Connection) -> io::Result<()> {
        let request = read_head(&connection.stream, Instant::now() + HEAD_TIME_MAX)?;
        let response = match &request {
            Ok(request) => self.respond(request, connection)?,
            Err(status) => Response::refusal(status),
        };
        let is_head = request.is_ok_and(|request| request.is_head);
        send(connection, &response, is_head)
    }

    fn respond(&self, request: &Request, connection: &Connection) -> io::Result<Response> {
        let (path, _) = split(&request.target);
        let authorization = request.authorization.as_deref();
        match (path, &self.token) {
            ("/-/healthy", _) => Ok(Response::text("200 OK", "ok\n")),
            (_, Some(token)) if !is_authorized(token, authorization) => {
                Ok(Response::unauthorized())
            }
            _ => match Task::new(request, connection.accepted, self.budget) {
                Some(task) => self.answer(&task, connection),
                None => Ok(Response::text("404 Not Found", "not here: /metrics or /\n")),
            },
        }
    }

    fn answer(&self, task: &Task, connection: &Connection) -> io::Result<Response> {
        let collected = self.backlog.wait(task, connection)?;
        let scrape = collected.unwrap_or_else(|| task.scrape());
        Ok(unless_it_panics(|| self.renderer.render(task, &scrape)))
    }
}

/// A panic costs this answer; the hook has logged it. What is remembered is plain data, valid
/// at each step.
fn unless_it_panics(answer: impl FnOnce() -> Response) -> Response {
    panic::catch_unwind(AssertUnwindSafe(answer)).unwrap_or_else(|_| {
        let text = "a defect: the log has a line of it\n";
        Response::text("500 Internal Server Error", text)
    })
}

/// Sends the answer and waits for the client to close.
fn send(connection: &Connection, response: &Response, is_head: bool) -> io::Result<()> {
    let stream = &connection.stream;
    let body = &response.body;
    connection.enter(Phase::Writing(body.text));
    let mut pieces = [&response.head, &*body.shared, &body.own].map(|piece| IoSlice::new(piece));
    let count = if is_head { 1 } else { pieces.len() };
    let deadline = Instant::now() + WRITE_TIME_MAX;
    write_by(stream, &mut pieces[..count], deadline)?;
    connection.enter(Phase::Idle);
    linger(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_costs_one_answer_and_tells_nothing() {
        let response = unless_it_panics(|| panic!("inner workings"));
        assert!(response.head.starts_with(b"HTTP/1.1 500 "));
        assert!(!String::from_utf8_lossy(&response.body.own).contains("inner"));
        let response = unless_it_panics(|| Response::text("200 OK", "ok\n"));
        assert!(response.head.starts_with(b"HTTP/1.1 200 "));
    }
}
