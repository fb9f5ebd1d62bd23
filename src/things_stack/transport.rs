//! One request to the API over HTTP. The only file that knows ureq: agents, TLS roots,
//! proxies, time limits and body limits; `transport_failure` knows its errors.
//!
//! It never follows a redirect, and it puts the key into the `Authorization` header alone.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::mem;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::http::{HeaderValue, Response, header};
use ureq::tls::RootCerts;
use ureq::{Agent, Body, RequestBuilder};

use crate::error::FetchError;
use crate::secret::Secret;
use crate::things_stack::agent::{IDLE_MAX, agent, read_certificates};
use crate::things_stack::failure::{classify, is_lost_connection};
use crate::things_stack::hosts::BaseUrl;
use crate::things_stack::proxy::ProxyRule;

/// No NAT forgets a connection that was used so recently.
const IDLE_SAFE: Duration = Duration::from_secs(2);
/// A kept connection that is silent for less is not given up.
const SILENCE_MIN: Duration = Duration::from_secs(1);
/// With less time than this a request is not sent again.
const RETRY_TIME_MIN: Duration = Duration::from_millis(50);
/// How long it is remembered that connections are dropped silently.
const NAT_MEMORY: Duration = Duration::from_secs(600);
/// Kept between two answers: a batch has 260 kB where all 100 gateways tell everything.
const SPARE_BYTES_MAX: usize = 512 * 1024;

/// What to ask: a path under `/api/v3`, with a body for POST.
pub struct Request<'a> {
    pub path: &'a str,
    pub body: Option<&'a str>,
    /// The longest answer that is read, decompressed.
    pub answer_bytes_max: u64,
}

/// What came back, whatever its status.
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
    headers: ureq::http::HeaderMap,
}

impl Answer {
    /// A header as text; absent where it is no text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// A header as a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.header(name)?.trim().parse().ok()
    }
}

/// What comes of asking a host, as far as it decides how to ask next.
struct Host {
    /// When the connection that is kept was last used.
    kept_since: Option<Instant>,
    /// How long answers take: the longest of late, which fades by a tenth with each answer.
    usual_time: Duration,
}

/// The agents, which keep their connections, and the key.
pub struct Transport {
    /// For plain HTTP, which never goes through a proxy that could read the key, and for what
    /// the proxy's rule leaves out.
    direct: Agent,
    proxied: Option<(ProxyRule, Agent)>,
    hosts: BTreeMap<BaseUrl, Host>,
    /// After so much idle time a connection is not used again. A NAT that forgets connections
    /// lowers it, for a while, for all hosts: it is on this machine's side of the network.
    idle_max: Duration,
    idle_max_until: Option<Instant>,
    authorization: HeaderValue,
    /// Where the next answer goes: fresh memory for each would cost a tenth of a collection.
    spare: Vec<u8>,
}

/// How one request is sent.
struct Attempt {
    deadline: Instant,
    /// Kept connections that have been idle for longer are not used.
    idle_max: Duration,
    /// The longest wait for the next bytes.
    silence_max: Option<Duration>,
}

impl Transport {
    /// The certificates of `ca_file` are trusted instead of the built-in ones.
    ///
    /// # Errors
    /// If `ca_file` cannot be read or holds no certificate.
    pub fn new(
        key: &Secret,
        ca_file: Option<&Path>,
        proxy: Option<ProxyRule>,
    ) -> io::Result<Transport> {
        let roots = match ca_file {
            Some(path) => RootCerts::Specific(Arc::new(read_certificates(path)?)),
            None => RootCerts::WebPki,
        };
        let proxied = proxy.map(|rule| {
            let agent = agent(roots.clone(), Some(rule.proxy.clone()));
            (rule, agent)
        });
        Ok(Transport {
            direct: agent(roots, None),
            proxied,
            hosts: BTreeMap::new(),
            idle_max: IDLE_MAX,
            idle_max_until: None,
            authorization: authorization(key)?,
            spare: Vec::new(),
        })
    }

    /// Uses another key from now on.
    ///
    /// # Errors
    /// If it cannot be sent in a header; then the old one stays.
    pub fn set_key(&mut self, key: &Secret) -> io::Result<()> {
        self.authorization = authorization(key)?;
        Ok(())
    }

    /// Sends a request and reads its whole answer. `timeout` is for one attempt and `deadline`
    /// for all: a kept connection may have been dropped by the peer, or silently by a NAT in
    /// between. Then the request is sent again, on a fresh connection. Every call only reads,
    /// so asking twice does no harm.
    ///
    /// # Errors
    /// Whatever kept the answer from arriving whole. A status of 400 or 500 is an answer.
    pub fn send(
        &mut self,
        base: &BaseUrl,
        request: &Request<'_>,
        timeout: Duration,
        deadline: Instant,
    ) -> Result<Answer, FetchError> {
        let start = Instant::now();
        let first = self.first_attempt(base, deadline.min(start + timeout), start);
        let idle = self
            .idle_time(base, start)
            .filter(|idle| *idle < first.idle_max);
        let silence_max = first.silence_max;
        let mut result = self.attempt(base, request, first);
        if let Err(error) = &result
            && idle.is_some()
            && (is_lost_connection(error) || matches!(error, ureq::Error::Timeout(_)))
            && Instant::now() + RETRY_TIME_MIN < deadline
        {
            log::debug!("{base}: the kept connection does not answer, sending again on a new one");
            let again = Instant::now();
            let is_silent = !is_lost_connection(error);
            result = self.attempt(base, request, Attempt::fresh(deadline.min(again + timeout)));
            if let (true, true, Some(idle)) = (is_silent, result.is_ok(), idle) {
                self.learn_of_nat(idle, again.elapsed(), silence_max);
            }
        }
        result.map_err(|error| {
            let (reason, what) = classify(&error);
            FetchError::new(reason, format!("{}: {what}", base.host))
        })
    }

    /// Takes back the memory of an answer that is no longer needed.
    pub fn reuse(&mut self, body: Vec<u8>) {
        if body.capacity() <= SPARE_BYTES_MAX {
            self.spare = body;
        }
    }

    /// For how long the connection to this host has been idle, if one is kept.
    fn idle_time(&self, base: &BaseUrl, now: Instant) -> Option<Duration> {
        let since = self.hosts.get(base)?.kept_since?;
        Some(now.saturating_duration_since(since))
    }

    /// On a kept connection a request waits for an answer only as long as leaves time for a
    /// second one. Where the host is too slow for two, the connection has to be new, unless it
    /// was in use just now and no NAT is known to forget such.
    fn first_attempt(&mut self, base: &BaseUrl, deadline: Instant, now: Instant) -> Attempt {
        if self.idle_max_until.is_some_and(|until| until <= now) {
            self.idle_max = IDLE_MAX;
            self.idle_max_until = None;
        }
        let idle = self.idle_time(base, now);
        let Some((idle, host)) = idle.zip(self.hosts.get(base)) else {
            return Attempt::fresh(deadline);
        };
        let left = deadline.saturating_duration_since(now);
        let silence_max = silence_max(host.usual_time, left);
        let is_safe = idle <= IDLE_SAFE && self.idle_max == IDLE_MAX;
        if idle >= self.idle_max || (silence_max.is_none() && !is_safe) {
            return Attempt::fresh(deadline);
        }
        Attempt {
            deadline,
            idle_max: self.idle_max,
            silence_max,
        }
    }

    /// A kept connection was silent, and a new one answered at once.
    fn learn_of_nat(&mut self, idle: Duration, took: Duration, silence_max: Option<Duration>) {
        if silence_max.is_some_and(|silence_max| took < silence_max) {
            self.idle_max = idle * 9 / 10;
            self.idle_max_until = Some(Instant::now() + NAT_MEMORY);
            log::debug!("connections are dropped silently after {idle:?}: none is kept so long");
        }
    }

    /// The agent for this host.
    fn agent(&self, base: &BaseUrl) -> &Agent {
        match &self.proxied {
            Some((rule, agent)) if base.is_https && rule.applies_to(&base.host) => agent,
            _ => &self.direct,
        }
    }

    fn attempt(
        &mut self,
        base: &BaseUrl,
        request: &Request<'_>,
        attempt: Attempt,
    ) -> Result<Answer, ureq::Error> {
        let start = Instant::now();
        let is_fresh = attempt.idle_max.is_zero();
        let answer = self.response(base, request, &attempt);
        let answer = answer.and_then(|response| {
            let spare = mem::take(&mut self.spare);
            read_answer(response, request.answer_bytes_max, spare)
        });
        let now = Instant::now();
        let host = self.hosts.entry(base.clone()).or_insert(Host {
            kept_since: None,
            usual_time: Duration::ZERO,
        });
        // What did not come in time on a new connection would have taken longer still.
        let is_late = is_fresh && matches!(answer, Err(ureq::Error::Timeout(_)));
        if answer.is_ok() || is_late {
            host.usual_time = (now - start).max(host.usual_time * 9 / 10);
        }
        host.kept_since = answer.is_ok().then_some(now);
        answer
    }

    fn response(
        &self,
        base: &BaseUrl,
        request: &Request<'_>,
        attempt: &Attempt,
    ) -> Result<Response<Body>, ureq::Error> {
        let url = format!("{base}/api/v3{}", request.path);
        // A limit of nothing would be no limit; the caller has checked that some time is left.
        let left = attempt.deadline.saturating_duration_since(Instant::now());
        let left = left.max(Duration::from_millis(1));
        let agent = self.agent(base);
        let authorization = self.authorization.clone();
        match request.body {
            None => {
                let request = agent.get(url).header(header::AUTHORIZATION, authorization);
                limited(request, left, attempt).call()
            }
            Some(body) => {
                let request = agent.post(url).header(header::AUTHORIZATION, authorization);
                let request = request.header(header::CONTENT_TYPE, "application/json");
                limited(request, left, attempt).send(body)
            }
        }
    }
}

impl Attempt {
    fn fresh(deadline: Instant) -> Attempt {
        Attempt {
            deadline,
            idle_max: Duration::ZERO,
            silence_max: None,
        }
    }
}

fn limited<Any>(
    request: RequestBuilder<Any>,
    left: Duration,
    attempt: &Attempt,
) -> RequestBuilder<Any> {
    let limits = request.config().timeout_global(Some(left));
    let limits = limits.timeout_per_read(attempt.silence_max);
    limits.max_idle_age(attempt.idle_max).build()
}

/// How long a kept connection may be silent, when answers usually take `usual` and `left` is
/// all the time there is; `None` if a second request would not fit into it.
fn silence_max(usual: Duration, left: Duration) -> Option<Duration> {
    let needed = usual * 6 / 5;
    let spare = left.checked_sub(needed).filter(|spare| *spare > needed)?;
    let patient = (usual * 3).max(SILENCE_MIN);
    Some(patient.min(spare).min((left / 3).max(usual * 3 / 2)))
}

fn authorization(key: &Secret) -> io::Result<HeaderValue> {
    let mut authorization = HeaderValue::from_str(&format!("Bearer {}", key.reveal()))
        .map_err(|_| io::Error::other("the API key cannot be sent in a header"))?;
    authorization.set_sensitive(true);
    Ok(authorization)
}

fn read_answer(
    response: Response<Body>,
    bytes_max: u64,
    mut body: Vec<u8>,
) -> Result<Answer, ureq::Error> {
    let (head, mut sent) = response.into_parts();
    body.clear();
    let mut reader = sent.with_config().limit(bytes_max).reader();
    reader.read_to_end(&mut body)?;
    Ok(Answer {
        status: head.status.as_u16(),
        body,
        headers: head.headers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_silence(usual_ms: u64, left_ms: u64, expected_ms: Option<u64>) {
        let milliseconds = Duration::from_millis;
        let actual = silence_max(milliseconds(usual_ms), milliseconds(left_ms));
        assert_eq!(actual.map(|time| time.as_millis() as u64), expected_ms);
    }

    #[test]
    fn a_kept_connection_may_be_silent_as_long_as_leaves_time_for_another_one() {
        // A quick server.
        check_silence(60, 5_000, Some(1_000));
        check_silence(500, 5_000, Some(1_500));
        // Little time: a third of it.
        check_silence(60, 600, Some(200));
        // A slow server gets its usual time and half as much.
        check_silence(2_000, 9_000, Some(3_000));
        check_silence(2_000, 5_000, Some(2_600));
        // Two requests would not fit.
        check_silence(3_000, 5_000, None);
        check_silence(0, 0, None);
    }
}
