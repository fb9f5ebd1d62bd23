//! One request to the API over HTTP: the key, time limits, body limits, and when a kept
//! connection is used. It never follows a redirect, and it puts the key into the
//! `Authorization` header alone.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::mem;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::http::{HeaderMap, HeaderValue, Response, header};
use ureq::tls::RootCerts;
use ureq::{Agent, Body, Proxy, RequestBuilder};

use crate::error::FetchError;
use crate::model::Endpoint;
use crate::secret::Secret;
use crate::things_stack::agent::{IDLE_MAX, agent, read_certificates};
use crate::things_stack::failure::{classify, is_lost_connection};
use crate::things_stack::hosts::BaseUrl;
use crate::things_stack::proxy::ProxyRule;
use crate::things_stack::resolver::CachingResolver;

/// A kept connection that is silent for less is not given up.
const SILENCE_MIN: Duration = Duration::from_secs(1);
/// With less time than this left, a request would only be cut off.
pub const REQUEST_TIME_MIN: Duration = Duration::from_millis(50);
/// How long it is remembered that a NAT drops connections silently.
const NAT_TTL: Duration = Duration::from_secs(600);
/// Kept between two answers: a batch is 260 kB where all 100 gateways tell everything.
const SPARE_BYTES_MAX: usize = 512 * 1024;

/// What to ask of which API, and until when.
pub struct Request<'a> {
    pub base: &'a BaseUrl,
    pub endpoint: Endpoint,
    /// Below `/api/v3`.
    pub path: String,
    /// For POST.
    body: Option<String>,
    pub deadline: Instant,
}

impl<'a> Request<'a> {
    pub fn get(
        base: &'a BaseUrl,
        endpoint: Endpoint,
        path: String,
        deadline: Instant,
    ) -> Request<'a> {
        Request {
            base,
            endpoint,
            path,
            body: None,
            deadline,
        }
    }

    /// Identifiers and masks hold nothing that JSON would have to escape.
    pub fn stats_batch(
        base: &'a BaseUrl,
        gateway_ids: &[&str],
        mask: &str,
        deadline: Instant,
    ) -> Request<'a> {
        let ids = gateway_ids.iter();
        let ids = ids.map(|id| format!(r#"{{"gateway_id":"{id}"}}"#));
        let ids = ids.collect::<Vec<_>>().join(",");
        let body = format!(r#"{{"gateway_ids":[{ids}],"field_mask":"{mask}"}}"#);
        let path = "/gs/gateways/connection/stats".to_owned();
        Request {
            body: Some(body),
            ..Request::get(base, Endpoint::StatsBatch, path, deadline)
        }
    }

    /// The longest answer that is read, decompressed. A gateway with every field used takes
    /// about 2 kB in the list and 3 kB in the stats.
    fn answer_bytes_max(&self) -> u64 {
        match self.endpoint {
            Endpoint::List => 16 << 20,
            _ => 4 << 20,
        }
    }
}

/// What came back, whatever its status.
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
    headers: HeaderMap,
}

impl Answer {
    /// The values of a header, with replacement characters for what is not UTF-8.
    pub fn headers(&self, name: &str) -> impl Iterator<Item = String> {
        let values = self.headers.get_all(name).into_iter();
        values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    }

    /// A header as a number; none where it stands there twice with different values.
    pub fn number(&self, name: &str) -> Option<u64> {
        let mut values = self.headers(name);
        let first = values.next()?;
        let is_one = values.all(|value| value == first);
        is_one.then(|| first.trim().parse().ok())?
    }
}

/// What earlier requests tell about a host.
#[derive(Default)]
struct Host {
    /// When the connection that is kept was last used.
    kept_since: Option<Instant>,
    /// How long answers take: the longest recent time, which decays by a tenth with each answer.
    /// By endpoint, since a list may be slow where the stats are quick.
    usual_times: BTreeMap<Endpoint, Duration>,
}

impl Host {
    /// That of the slowest endpoint as long as there is no answer of this one.
    fn usual_time(&self, endpoint: Endpoint) -> Duration {
        let own = self.usual_times.get(&endpoint);
        let longest = self.usual_times.values().max();
        own.or(longest).copied().unwrap_or_default()
    }

    fn note_time(&mut self, endpoint: Endpoint, took: Duration) {
        let usual = self.usual_times.entry(endpoint).or_default();
        *usual = took.max(*usual * 9 / 10);
    }
}

/// A kept connection that may be used.
#[derive(Clone, Copy)]
struct Kept {
    /// Since its last use.
    idle: Duration,
    /// The longest wait for the next bytes on it.
    silence_max: Duration,
}

/// The key, and ureq's agent, which keeps one connection for each host.
pub struct Transport {
    agent: Agent,
    resolver: CachingResolver,
    proxy: Option<ProxyRule>,
    hosts: BTreeMap<BaseUrl, Host>,
    /// The idle time after which a NAT drops connections silently, and until when it is remembered.
    /// It counts for all hosts: the NAT is on this machine's side of the network.
    nat: Option<(Duration, Instant)>,
    authorization: HeaderValue,
    /// For the next answer: to allocate memory for each would cost a tenth of a collection.
    spare: Vec<u8>,
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
        let resolver = CachingResolver::default();
        Ok(Transport {
            agent: agent(roots, resolver.clone()),
            resolver,
            proxy,
            hosts: BTreeMap::new(),
            nat: None,
            authorization: authorization(key),
            spare: Vec::new(),
        })
    }

    /// Uses another key from now on.
    pub fn set_key(&mut self, key: &Secret) {
        self.authorization = authorization(key);
    }

    /// Sends a request and reads its whole answer. `timeout` is for one attempt, the deadline of
    /// the request for all: a kept connection may have been dropped by the peer, or silently by a
    /// NAT in between. Then the request is sent again, on a fresh connection. Every call only
    /// reads, so asking twice does no harm.
    ///
    /// # Errors
    /// Whatever kept the answer from arriving whole. A status of 400 or 500 is an answer.
    pub fn send(&mut self, request: &Request, timeout: Duration) -> Result<Answer, FetchError> {
        let base = request.base;
        let kept = self.kept(request, Instant::now());
        let mut result = self.attempt(request, timeout, kept);
        let again = Instant::now();
        if let (Some(kept), Err(error)) = (kept, &result)
            && (is_lost_connection(error) || is_timeout(error))
            && again + REQUEST_TIME_MIN < request.deadline
        {
            log::debug!("{base}: the kept connection does not answer, sending again on a new one");
            let was_silent = is_timeout(error);
            result = self.attempt(request, timeout, None);
            if was_silent && result.is_ok() && again.elapsed() < kept.silence_max {
                self.note_nat(kept.idle);
            }
        }
        result.map_err(|error| {
            // The address may be an old one.
            self.resolver.forget();
            let (reason, what) = classify(&error);
            let host = &base.host;
            let context = match self.proxy(base) {
                Some(proxy) => format!("{host}, through the proxy {}: {what}", proxy.host()),
                None => format!("{host}: {what}"),
            };
            FetchError::new(reason, context)
        })
    }

    /// The proxy for this host. Plain HTTP goes through none, which could read the key.
    fn proxy(&self, base: &BaseUrl) -> Option<&Proxy> {
        let rule = self.proxy.as_ref().filter(|_| base.is_https)?;
        rule.applies_to(&base.host).then_some(&rule.proxy)
    }

    /// Takes back the memory of an answer that is no longer needed.
    pub fn reuse(&mut self, body: Vec<u8>) {
        if body.capacity() <= SPARE_BYTES_MAX {
            self.spare = body;
        }
    }

    /// The kept connection to this host, unless a NAT may have dropped it, or this kind of call is
    /// so slow that after waiting for it there would be no time for a second attempt.
    fn kept(&self, request: &Request, now: Instant) -> Option<Kept> {
        let host = self.hosts.get(request.base)?;
        let idle = now.saturating_duration_since(host.kept_since?);
        let nat = self.nat.filter(|(_, until)| now < *until);
        let idle_max = nat.map_or(IDLE_MAX, |(idle_max, _)| idle_max);
        let left = request.deadline.saturating_duration_since(now);
        let silence_max = silence_max(host.usual_time(request.endpoint), left)?;
        (idle < idle_max).then_some(Kept { idle, silence_max })
    }

    /// A connection that had been idle for so long got no answer, and a new one got it at once.
    fn note_nat(&mut self, idle: Duration) {
        log::debug!("connections are dropped silently after {idle:?}: none is kept so long");
        self.nat = Some((idle * 9 / 10, Instant::now() + NAT_TTL));
    }

    /// Sends the request once, on the kept connection or on a new one.
    fn attempt(
        &mut self,
        request: &Request,
        timeout: Duration,
        kept: Option<Kept>,
    ) -> Result<Answer, ureq::Error> {
        let start = Instant::now();
        let left = request.deadline.saturating_duration_since(start);
        let response = self.response(request, left.min(timeout), kept);
        let answer = response.and_then(|response| self.read(response, request.answer_bytes_max()));
        let now = Instant::now();
        let host = self.hosts.entry(request.base.clone()).or_default();
        // What did not come in time on a new connection would have taken longer still.
        let is_late = kept.is_none() && answer.as_ref().is_err_and(is_timeout);
        if answer.is_ok() || is_late {
            host.note_time(request.endpoint, now - start);
        }
        host.kept_since = answer.is_ok().then_some(now);
        answer
    }

    fn response(
        &self,
        request: &Request,
        limit: Duration,
        kept: Option<Kept>,
    ) -> Result<Response<Body>, ureq::Error> {
        let base = request.base;
        let url = format!("{base}/api/v3{}", request.path);
        match &request.body {
            None => self.prepared(self.agent.get(url), base, limit, kept).call(),
            Some(body) => {
                let post = self.prepared(self.agent.post(url), base, limit, kept);
                post.content_type("application/json").send(body)
            }
        }
    }

    /// With the key, the proxy and the limits.
    fn prepared<Any>(
        &self,
        builder: RequestBuilder<Any>,
        base: &BaseUrl,
        limit: Duration,
        kept: Option<Kept>,
    ) -> RequestBuilder<Any> {
        builder
            .header(header::AUTHORIZATION, self.authorization.clone())
            .config()
            .proxy(self.proxy(base).cloned())
            // A limit of nothing would be no limit; the caller has checked that some time is left.
            .timeout_global(Some(limit.max(Duration::from_millis(1))))
            .timeout_per_read(kept.map(|kept| kept.silence_max))
            .max_idle_age(kept.map_or(Duration::ZERO, |_| IDLE_MAX))
            .build()
    }

    fn read(&mut self, response: Response<Body>, bytes_max: u64) -> Result<Answer, ureq::Error> {
        let (head, mut sent) = response.into_parts();
        let mut body = mem::take(&mut self.spare);
        body.clear();
        let mut reader = sent.with_config().limit(bytes_max).reader();
        reader.read_to_end(&mut body)?;
        Ok(Answer {
            status: head.status.as_u16(),
            body,
            headers: head.headers,
        })
    }
}

fn is_timeout(error: &ureq::Error) -> bool {
    matches!(error, ureq::Error::Timeout(_))
}

/// How long a kept connection may be silent where answers usually take `usual`, and `left` is the
/// time that is left. `None` if a second request would not fit into it. A collection has at least
/// two seconds, though its scrape may wait for half a second only: after a sixth of `left`, that
/// scrape still gets the answer to the second request.
fn silence_max(usual: Duration, left: Duration) -> Option<Duration> {
    let needed = usual * 6 / 5;
    let spare = left.checked_sub(needed).filter(|spare| *spare > needed)?;
    let patient = (usual * 3).max(SILENCE_MIN);
    Some(patient.min(spare).min((left / 6).max(usual * 3 / 2)))
}

fn authorization(key: &Secret) -> HeaderValue {
    let bearer = HeaderValue::from_str(&format!("Bearer {}", key.reveal()));
    let mut bearer = bearer.expect("a secret is visible ASCII");
    bearer.set_sensitive(true);
    bearer
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
        check_silence(60, 9_000, Some(1_000));
        check_silence(400, 9_000, Some(1_200));
        // Little time: a sixth of it.
        check_silence(60, 2_000, Some(333));
        check_silence(60, 600, Some(100));
        // A slow server gets its usual time and half as much.
        check_silence(2_000, 9_000, Some(3_000));
        check_silence(2_000, 5_000, Some(2_600));
        // Two requests would not fit.
        check_silence(3_000, 5_000, None);
        check_silence(0, 0, None);
    }

    /// A port without a listener, and the name that led to it.
    #[test]
    fn a_name_that_led_nowhere_is_looked_up_again() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let base = BaseUrl::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        drop(listener);
        let mut transport = Transport::new(&Secret::new("key").unwrap(), None, None).unwrap();
        let second = Duration::from_secs(1);
        let deadline = Instant::now() + second;
        let request = Request::get(&base, Endpoint::List, "/".to_owned(), deadline);
        assert!(transport.send(&request, second).is_err());
        assert!(transport.resolver.is_empty());
    }
}
