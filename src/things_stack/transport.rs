//! One request to the API over HTTP. The only file that knows ureq: agents, TLS roots,
//! proxies, time limits and body limits; `transport_failure` knows its errors.
//!
//! It never follows a redirect, and it puts the key into the `Authorization` header alone.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::mem;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::http::{HeaderValue, Response, header};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body, Proxy};

use crate::error::FetchError;
use crate::secret::Secret;
use crate::things_stack::failure::{classify, is_lost_connection};
use crate::things_stack::hosts::BaseUrl;
use crate::things_stack::proxy::ProxyRule;
use crate::things_stack::resolver::{CachingResolver, ForgettingConnector};
use crate::things_stack::tls;

/// A server closes a kept connection after a minute or a few; scrapes come every minute.
const IDLE_MAX: Duration = Duration::from_secs(300);
/// Read at once from a connection; it stays allocated while the connection is kept.
const INPUT_BUFFER_BYTES: usize = 32 * 1024;
const OUTPUT_BUFFER_BYTES: usize = 8 * 1024;
const RESPONSE_HEADER_BYTES_MAX: usize = 16 * 1024;
/// Kept between two answers: a batch has 260 kB where all 100 gateways tell everything.
const SPARE_BYTES_MAX: usize = 512 * 1024;
/// A file with every authority of a distribution has 230 kB.
const CA_FILE_BYTES_MAX: u64 = 4 << 20;

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

/// The agents, which keep their connections, and the key.
pub struct Transport {
    /// For plain HTTP, which never goes through a proxy that could read the key, and for what
    /// the proxy's rule leaves out.
    direct: Agent,
    proxied: Option<(ProxyRule, Agent)>,
    /// The hosts that a connection may be kept to.
    used: BTreeSet<BaseUrl>,
    authorization: HeaderValue,
    /// Where the next answer goes: fresh memory for each would cost a tenth of a collection.
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
        let proxied = proxy.map(|rule| {
            let agent = agent(roots.clone(), Some(rule.proxy.clone()));
            (rule, agent)
        });
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", key.reveal()))
            .map_err(|_| io::Error::other("the API key cannot be sent in a header"))?;
        authorization.set_sensitive(true);
        Ok(Transport {
            direct: agent(roots, None),
            proxied,
            used: BTreeSet::new(),
            authorization,
            spare: Vec::new(),
        })
    }

    /// Sends a request and reads its whole answer by `deadline`.
    ///
    /// # Errors
    /// Whatever kept the answer from arriving whole. A status of 400 or 500 is an answer.
    pub fn send(
        &mut self,
        base: &BaseUrl,
        request: &Request<'_>,
        deadline: Instant,
    ) -> Result<Answer, FetchError> {
        let answer = self.send_with(base, request, deadline);
        let answer = answer.map_err(|error| self.describe(base, error))?;
        self.used.insert(base.clone());
        Ok(answer)
    }

    /// Takes back the memory of an answer that is no longer needed.
    pub fn reuse(&mut self, body: Vec<u8>) {
        if body.capacity() <= SPARE_BYTES_MAX {
            self.spare = body;
        }
    }

    /// The agent for this host.
    fn agent(&self, base: &BaseUrl) -> &Agent {
        match &self.proxied {
            Some((rule, agent)) if base.is_https && rule.applies_to(&base.host) => agent,
            _ => &self.direct,
        }
    }

    /// Sends once, and once more where the connection was lost and may have been a kept one
    /// that the server had closed meanwhile. Every call only reads, so twice does no harm.
    fn send_with(
        &mut self,
        base: &BaseUrl,
        request: &Request<'_>,
        deadline: Instant,
    ) -> Result<Answer, ureq::Error> {
        // Removed here and put back after a success, so that only a connection that worked
        // before earns a second try.
        let was_used = self.used.remove(base);
        let agent = self.agent(base);
        let response = match self.response(agent, base, request, deadline) {
            Err(error) if was_used && is_lost_connection(&error) => {
                log::debug!("{base}: the kept connection was closed, trying once more");
                self.response(agent, base, request, deadline)
            }
            response => response,
        };
        let response = response?;
        read_answer(
            response,
            request.answer_bytes_max,
            mem::take(&mut self.spare),
        )
    }

    fn response(
        &self,
        agent: &Agent,
        base: &BaseUrl,
        request: &Request<'_>,
        deadline: Instant,
    ) -> Result<Response<Body>, ureq::Error> {
        let url = format!("{base}/api/v3{}", request.path);
        // A limit of nothing would be no limit; the caller has checked that some time is left.
        let left = deadline
            .saturating_duration_since(Instant::now())
            .max(Duration::from_millis(1));
        match request.body {
            None => {
                let request = agent
                    .get(url)
                    .header(header::AUTHORIZATION, self.authorization.clone());
                request.config().timeout_global(Some(left)).build().call()
            }
            Some(body) => {
                let request = agent
                    .post(url)
                    .header(header::AUTHORIZATION, self.authorization.clone())
                    .header(header::CONTENT_TYPE, "application/json");
                request
                    .config()
                    .timeout_global(Some(left))
                    .build()
                    .send(body)
            }
        }
    }

    fn describe(&self, base: &BaseUrl, error: ureq::Error) -> FetchError {
        let (reason, what) = classify(&error);
        FetchError::new(reason, format!("{}: {what}", base.host))
    }
}

fn agent(roots: RootCerts, proxy: Option<Proxy>) -> Agent {
    let tls = TlsConfig::builder()
        .root_certs(roots)
        .unversioned_rustls_crypto_provider(tls::provider())
        .build();
    let config = Agent::config_builder()
        .user_agent(concat!("ttn-gateway-exporter/", env!("CARGO_PKG_VERSION")))
        .accept("application/json")
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(proxy)
        .max_idle_age(IDLE_MAX)
        .max_idle_connections(64)
        .max_idle_connections_per_host(1)
        .input_buffer_size(INPUT_BUFFER_BYTES)
        .output_buffer_size(OUTPUT_BUFFER_BYTES)
        .max_response_header_size(RESPONSE_HEADER_BYTES_MAX)
        .tls_config(tls)
        .build();
    let resolver = CachingResolver::default();
    let connector = ForgettingConnector {
        connector: DefaultConnector::default(),
        resolver: resolver.clone(),
    };
    Agent::with_parts(config, connector, resolver)
}

fn read_certificates(path: &Path) -> io::Result<Vec<Certificate<'static>>> {
    let mut pem = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(CA_FILE_BYTES_MAX).read_to_end(&mut pem)?;
    certificates(&pem).ok_or_else(|| io::Error::other("holds no PEM certificate"))
}

/// The certificates of a PEM file; keys and broken parts in it are passed over.
fn certificates(pem: &[u8]) -> Option<Vec<Certificate<'static>>> {
    let certificates: Vec<_> = parse_pem(pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    (!certificates.is_empty()).then_some(certificates)
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

    #[test]
    fn text_without_a_certificate_is_no_ca_file() {
        assert!(certificates(b"").is_none());
        assert!(certificates(b"-----BEGIN CERTIFICATE-----\nnot base64!\n").is_none());
    }

    #[test]
    fn property_random_pem_never_panics() {
        let seed = b"# CA\n-----BEGIN CERTIFICATE-----\nMIIBAjCBqaADAgECAgEBMAoGCCqGSM49BAMC\n\
            MA0xCzAJBgNVBAMMAmNhMB4=\n-----END CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\nAA==\n\
            -----END PRIVATE KEY-----\n";
        let pieces: [&[u8]; 8] = [
            b"-----BEGIN CERTIFICATE-----",
            b"-----END CERTIFICATE-----",
            b"-----",
            b"\n",
            b"=",
            b"\xff",
            b"\r\n",
            b"\0",
        ];
        crate::random::repeat(5_000, |random| {
            if let Some(found) = certificates(&random.mutate(seed, &pieces)) {
                // What is no certificate is for rustls to ignore, not to panic at.
                drop(agent(RootCerts::Specific(Arc::new(found)), None));
            }
        });
    }
}
