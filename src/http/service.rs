//! One connection from its request to its end: what needs no collection is answered at once; for
//! the rest the loop is asked, and where it does not answer in time, the answer is what is known.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::http::authorization::is_authorized;
use crate::http::backlog::{Backlog, Turn};
use crate::http::connections::{Connection, Connections, Phase};
use crate::http::renderer::{Renderer, unless_it_panics};
use crate::http::request::Request;
use crate::http::response::Response;
use crate::http::stream::{linger, read_head, write_by};
use crate::http::task::{Task, split};
use crate::secret::Secret;

/// From the connection to the end of the head. A scraper needs a round trip, or another
/// second where a packet is lost.
const HEAD_TIME_MAX: Duration = Duration::from_secs(2);
/// From the first byte of the answer to the last.
const WRITE_TIME_MAX: Duration = Duration::from_secs(10);

pub struct Service {
    pub connections: Arc<Connections>,
    pub backlog: Backlog,
    pub renderer: Arc<Renderer>,
    pub token: Option<Secret>,
    /// For a scrape that names no timeout.
    pub budget: Duration,
}

impl Service {
    /// Reads the request of this connection and answers it. A turn that is not over comes back:
    /// it waits for the late answer of the loop when it is dropped.
    ///
    /// # Errors
    /// If the client is gone, which needs no answer.
    pub fn serve(&self, connection: &Connection) -> io::Result<Option<Turn<'_>>> {
        let arrived = Instant::now();
        let request = read_head(&connection.stream, arrived + HEAD_TIME_MAX)?;
        let (response, turn) = match &request {
            Ok(request) => self.respond(request, connection, arrived)?,
            Err(status) => (Response::refusal(status), None),
        };
        let is_head = request.is_ok_and(|request| request.is_head);
        // If it fails, the client is gone.
        let _ = send(connection, &response, is_head);
        Ok(turn)
    }

    fn respond(
        &self,
        request: &Request,
        connection: &Connection,
        arrived: Instant,
    ) -> io::Result<(Response, Option<Turn<'_>>)> {
        let (path, _) = split(&request.target);
        let authorization = request.header("Authorization");
        let response = match (path, &self.token) {
            ("/-/healthy", _) => Response::text("200 OK", "ok\n"),
            (_, Some(token)) if !is_authorized(token, authorization) => Response::unauthorized(),
            _ => {
                let header = |name| request.header(name);
                match Task::new(&request.target, header, arrived, self.budget) {
                    Some(task) => return self.ask(request, task, connection),
                    None => Response::text("404 Not Found", "not here: /metrics or /\n"),
                }
            }
        };
        Ok((response, None))
    }

    /// The loop's answer, or what is known when that does not come in time. Then the turn is not
    /// over: it ends with the late answer.
    fn ask(
        &self,
        request: &Request,
        mut task: Task,
        connection: &Connection,
    ) -> io::Result<(Response, Option<Turn<'_>>)> {
        connection.enter(Phase::Waiting);
        let may_wait = || !connection.has_left() && connection.phase().0 == Phase::Waiting;
        let mut turn = self.backlog.wait(task.answer_by, may_wait);
        if connection.has_left() {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if let Some(turn) = &mut turn {
            connection.enter(Phase::Asking);
            let forwarded = request.forwarded(task.arrived.elapsed());
            if let Some(response) = turn.ask(&forwarded, task.collected_by, task.deadline) {
                return Ok((response, None));
            }
        }
        // miniz_oxide may move its tables over the stack, for which that of a worker is too small.
        task.takes_gzip = false;
        let response = unless_it_panics(|| self.renderer.render(&task, &task.scrape()));
        Ok((response, turn))
    }
}

/// Sends the answer and closes, or at least tries to.
fn send(connection: &Connection, response: &Response, is_head: bool) -> io::Result<()> {
    let stream = &connection.stream;
    let body = &response.body;
    connection.enter(Phase::Writing(body.text));
    let pieces = match is_head {
        true => [&response.head, &[][..], &[]],
        false => [&response.head, body.shared.as_slice(), &body.own],
    };
    write_by(stream, pieces, Instant::now() + WRITE_TIME_MAX)?;
    connection.enter(Phase::Closing);
    linger(stream)
}
