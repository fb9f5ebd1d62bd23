//! Requests to the API and their answers: the API key, time limits, body limits, and when a kept
//! connection is used. It never follows a redirect, and it puts the key into the
//! `Authorization` header alone.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use ureq::http::{self, HeaderValue, Method, Response, header};
use ureq::{Agent, Error, Proxy, SendBody};

use crate::error::FetchError;
use crate::model::Endpoint;
use crate::secret::Secret;
use crate::things_stack::agent::{IDLE_MAX, agent, roots};
use crate::things_stack::failure::{classify, is_lost_connection};
use crate::things_stack::hosts::BaseUrl;
use crate::things_stack::proxy::ProxyRule;
use crate::things_stack::resolver::CachingResolver;

/// A kept connection that is silent for less is not given up.
const SILENCE_MIN: Duration = Duration::from_secs(1);
/// With less time than this left, a request would only be cut off.
pub const REQUEST_TIME_MIN: Duration = Duration::from_millis(50);
/// How long it is remembered that a NAT drops idle connections silently.
const NAT_TTL: Duration = Duration::from_secs(600);
/// A batch is 260 kB where all 100 gateways tell everything.
const ANSWER_BYTES_USUAL: usize = 256 * 1024;

/// What to ask of which API, and until when.
pub struct Request<'a> {
    pub base: &'a BaseUrl,
    pub endpoint: Endpoint,
    /// Below `/api/v3`.
    pub path: String,
    /// For POST.
    pub body: Option<String>,
    /// For one attempt.
    pub timeout: Duration,
    /// For all attempts.
    pub deadline: Instant,
}

impl Request<'_> {
    pub fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
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
pub type Answer = Response<Vec<u8>>;

/// The values of a header, with replacement characters for what is not UTF-8.
pub fn headers(answer: &Answer, name: &str) -> impl Iterator<Item = String> {
    let values = answer.headers().get_all(name).into_iter();
    values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// A header as a number; none where it stands there twice with different values.
pub fn number(answer: &Answer, name: &str) -> Option<u64> {
    let mut values = headers(answer, name);
    let first = values.next()?;
    let is_one = values.all(|value| value == first);
    is_one.then(|| first.trim().parse().ok())?
}

/// What earlier requests tell about a host.
#[derive(Default)]
struct Host {
    /// When the connection that is kept was last used.
    kept_since: Option<Instant>,
    /// How long answers take: the longest recent time, which decays by a tenth with each answer.
    /// By `Endpoint as usize`, since a list may be slow where the stats are quick; zero before the
    /// first answer.
    usual_times: [Duration; Endpoint::ALL.len()],
}

impl Host {
    /// That of the slowest endpoint as long as there is no answer of this one.
    fn usual_time(&self, endpoint: Endpoint) -> Duration {
        match self.usual_times[endpoint as usize] {
            Duration::ZERO => self.usual_times.into_iter().max().unwrap_or_default(),
            own => own,
        }
    }
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
    /// Of the requests from now on.
    pub key: Secret,
}

impl Transport {
    /// The certificates of `ca_file` are trusted instead of the built-in ones.
    ///
    /// # Errors
    /// If `ca_file` cannot be read or holds no certificate.
    pub fn new(
        key: Secret,
        ca_file: Option<&Path>,
        proxy: Option<ProxyRule>,
    ) -> io::Result<Transport> {
        let resolver = CachingResolver::default();
        Ok(Transport {
            agent: agent(roots(ca_file)?, resolver.clone()),
            resolver,
            proxy,
            hosts: BTreeMap::new(),
            nat: None,
            key,
        })
    }

    /// Sends a request and reads its whole answer. A kept connection may have been dropped by the
    /// peer, or silently by a NAT in between: then the request is sent again, on a new connection.
    /// Every call only reads, so asking twice does no harm.
    ///
    /// # Errors
    /// Whatever kept the answer from arriving whole. A status of 400 or 500 is an answer.
    pub fn send(&mut self, request: &Request) -> Result<Answer, FetchError> {
        let base = request.base;
        let kept = self.kept(request);
        let mut result = self.attempt(request, kept.map(|(_, silence_max)| silence_max));
        if let (Some((idle, silence_max)), Err(error)) = (kept, &result)
            && (is_lost_connection(error) || is_timeout(error))
            && request.time_left() > REQUEST_TIME_MIN
        {
            log::debug!("{base}: the kept connection does not answer, sending again on a new one");
            let (was_silent, again) = (is_timeout(error), Instant::now());
            result = self.attempt(request, None);
            // The new connection got at once what the idle one did not.
            if was_silent && result.is_ok() && again.elapsed() < silence_max {
                log::debug!(
                    "connections are dropped silently after {idle:?}: none is kept so long"
                );
                self.nat = Some((idle * 9 / 10, Instant::now() + NAT_TTL));
            }
        }
        result.map_err(|error| {
            // The address may be an old one.
            self.resolver.forget();
            let mut error = classify(&error);
            if let Some(proxy) = self.proxy(base) {
                error.context = format!("through the proxy {}: {}", proxy.host(), error.context);
            }
            error
        })
    }

    /// The proxy for this host. Plain HTTP goes through none, which could read the key.
    fn proxy(&self, base: &BaseUrl) -> Option<&Proxy> {
        let rule = self.proxy.as_ref().filter(|_| base.is_https)?;
        rule.applies_to(&base.host).then_some(&rule.proxy)
    }

    /// How long the kept connection to this host has been idle, and how long it may be silent; none
    /// to use a new one. A NAT may have dropped it, or this kind of call is so slow that after
    /// waiting for it there would be no time for a second attempt.
    fn kept(&self, request: &Request) -> Option<(Duration, Duration)> {
        let host = self.hosts.get(request.base)?;
        let idle = host.kept_since?.elapsed();
        let nat = self.nat.filter(|(_, until)| Instant::now() < *until);
        let idle_max = nat.map_or(IDLE_MAX, |(idle_max, _)| idle_max);
        let usual = host.usual_time(request.endpoint);
        let silence_max = silence_max(usual, request.time_left())?;
        (idle < idle_max).then_some((idle, silence_max))
    }

    /// Sends the request once, on the kept connection, which may be silent for so long, or a new one.
    fn attempt(&mut self, request: &Request, kept: Option<Duration>) -> Result<Answer, Error> {
        let start = Instant::now();
        let answer = self.exchange(request, kept);
        let now = Instant::now();
        let host = self.hosts.entry(request.base.clone()).or_default();
        // What did not come in time on a new connection would have taken longer still.
        let is_late = kept.is_none() && answer.as_ref().is_err_and(is_timeout);
        if answer.is_ok() || is_late {
            let usual = &mut host.usual_times[request.endpoint as usize];
            *usual = (now - start).max(*usual * 9 / 10);
        }
        host.kept_since = answer.is_ok().then_some(now);
        answer
    }

    /// With the key, the proxy and the limits.
    fn exchange(&self, request: &Request, kept: Option<Duration>) -> Result<Answer, Error> {
        let base = request.base;
        let limit = request.time_left().min(request.timeout);
        let head = http::Request::builder()
            .uri(format!("{base}/api/v3{}", request.path))
            .header(header::AUTHORIZATION, authorization(&self.key));
        let message = match &request.body {
            None => head.body(SendBody::none()),
            Some(body) => head
                .method(Method::POST)
                .header(header::CONTENT_TYPE, "application/json")
                .header(header::CONTENT_LENGTH, body.len())
                .body(SendBody::from_owned_reader(Cursor::new(body.clone()))),
        };
        let message = self
            .agent
            .configure_request(message?)
            .proxy(self.proxy(base).cloned())
            // A limit of nothing would be no limit.
            .timeout_global(Some(limit.max(Duration::from_millis(1))))
            .timeout_per_read(kept)
            .max_idle_age(kept.map_or(Duration::ZERO, |_| IDLE_MAX))
            .build();
        let (head, mut sent) = self.agent.run(message)?.into_parts();
        let mut body = Vec::with_capacity(ANSWER_BYTES_USUAL);
        let limited = sent.with_config().limit(request.answer_bytes_max());
        limited.reader().read_to_end(&mut body)?;
        Ok(Response::from_parts(head, body))
    }
}

fn is_timeout(error: &Error) -> bool {
    matches!(error, Error::Timeout(_))
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
        let mut transport = Transport::new(Secret::new("key").unwrap(), None, None).unwrap();
        let second = Duration::from_secs(1);
        let deadline = Instant::now() + second;
        let request = Request {
            base: &base,
            endpoint: Endpoint::List,
            path: "/".to_owned(),
            body: None,
            timeout: second,
            deadline,
        };
        assert!(transport.send(&request).is_err());
        assert!(transport.resolver.is_empty());
    }
}
