//! The settings of ureq's agent: TLS and its authorities, buffers, kept connections.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::Error;
use rustls::crypto::{CryptoProvider, KeyProvider, ring};
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::SigningKey;
use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::transport::DefaultConnector;

use crate::things_stack::resolver::CachingResolver;

/// A server closes a kept connection after a minute or a few; scrapes come every minute.
pub const IDLE_MAX: Duration = Duration::from_secs(300);
/// A file with every authority of a distribution has 230 kB.
const CA_FILE_BYTES_MAX: u64 = 4 << 20;

/// The proxy is chosen for each request.
pub fn agent(roots: RootCerts, resolver: CachingResolver) -> Agent {
    // ring's, without what it would sign with.
    let provider = CryptoProvider {
        key_provider: &NoKeys,
        ..ring::default_provider()
    };
    let tls = TlsConfig::builder()
        .root_certs(roots)
        .unversioned_rustls_crypto_provider(Arc::new(provider))
        .build();
    let config = Agent::config_builder()
        .user_agent(concat!("ttn-gateway-exporter/", env!("CARGO_PKG_VERSION")))
        .accept("application/json")
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .max_idle_age(IDLE_MAX)
        .max_idle_connections(64)
        .max_idle_connections_per_host(1)
        // In bytes; these two stay allocated while the connection is kept.
        .input_buffer_size(32 * 1024)
        .output_buffer_size(8 * 1024)
        .max_response_header_size(16 * 1024)
        .tls_config(tls)
        .build();
    Agent::with_parts(config, DefaultConnector::default(), resolver)
}

/// A client that shows no certificate never signs, and the code for it would be 2 % of the binary.
#[derive(Debug)]
struct NoKeys;

impl KeyProvider for NoKeys {
    fn load_private_key(&self, _: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        Err(Error::General("no certificate of a client".into()))
    }
}

/// The authorities of a PEM file, or else the built-in ones.
pub fn roots(ca_file: Option<&Path>) -> io::Result<RootCerts> {
    let Some(path) = ca_file else {
        return Ok(RootCerts::WebPki);
    };
    let mut pem = Vec::new();
    let file = File::open(path)?;
    file.take(CA_FILE_BYTES_MAX).read_to_end(&mut pem)?;
    let found = certificates(&pem);
    match found.is_empty() {
        true => Err(io::Error::other("holds no PEM certificate")),
        false => Ok(RootCerts::from(found)),
    }
}

/// Keys and broken parts in the file are passed over.
fn certificates(pem: &[u8]) -> Vec<Certificate<'static>> {
    let items = parse_pem(pem).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    items.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz;

    #[test]
    fn text_without_a_certificate_is_no_ca_file() {
        assert!(certificates(b"").is_empty());
        assert!(certificates(b"-----BEGIN CERTIFICATE-----\nnot base64!\n").is_empty());
    }

    #[test]
    fn property_damaged_pem_never_panics() {
        const PIECES: [&[u8]; 8] = [
            b"-----BEGIN CERTIFICATE-----",
            b"-----END CERTIFICATE-----",
            b"-----",
            b"\n",
            b"=",
            b"\xff",
            b"\r\n",
            b"\0",
        ];
        let pem = b"# CA\n-----BEGIN CERTIFICATE-----\nMIIBAjCBqaADAgECAgEBMAoGCCqGSM49BAMC\n\
            MA0xCzAJBgNVBAMMAmNhMB4=\n-----END CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\nAA==\n\
            -----END PRIVATE KEY-----\n";
        let bodies = fuzz::mutations(vec![pem.to_vec()], &PIECES);
        fuzz::check(1_000, bodies, |pem| {
            // What is no certificate is for rustls to ignore, not to panic at.
            let roots = RootCerts::from(certificates(&pem));
            drop(agent(roots, CachingResolver::default()));
        });
    }
}
