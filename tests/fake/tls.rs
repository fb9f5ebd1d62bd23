//! Certificates made on the spot: an authority of the test and servers that it vouches for, or
//! whose certificate has one fault.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};

/// A certificate authority that nobody knows until it is told of it.
pub struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// What is wrong with a server's certificate, if anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    Expired,
    NotYetValid,
    WrongHost,
}

impl Authority {
    pub fn new() -> Authority {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "Authority of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key pair");
        let certificate = params.self_signed(&key).expect("a certificate");
        let issuer = Issuer::new(params, key);
        Authority {
            certificate,
            issuer,
        }
    }

    /// The contents of the file for `--ca-file`.
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    pub fn der(&self) -> CertificateDer<'static> {
        self.certificate.der().clone()
    }

    /// A server for these names and IP addresses, with TLS 1.2 and 1.3.
    pub fn server(&self, names: &[&str]) -> Arc<ServerConfig> {
        self.server_with(names, Fault::None, &[&TLS12, &TLS13])
    }

    pub fn server_with_fault(&self, names: &[&str], fault: Fault) -> Arc<ServerConfig> {
        self.server_with(names, fault, &[&TLS12, &TLS13])
    }

    pub fn server_of_version(
        &self,
        names: &[&str],
        version: &'static SupportedProtocolVersion,
    ) -> Arc<ServerConfig> {
        self.server_with(names, Fault::None, &[version])
    }

    fn server_with(
        &self,
        names: &[&str],
        fault: Fault,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ServerConfig> {
        let names = match fault {
            Fault::WrongHost => vec!["somebody-else.example".to_owned()],
            _ => names.iter().map(|name| (*name).to_owned()).collect(),
        };
        let mut params = CertificateParams::new(names).expect("names or addresses");
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2100, 1, 1);
        match fault {
            Fault::Expired => params.not_after = date_time_ymd(2021, 1, 1),
            Fault::NotYetValid => params.not_before = date_time_ymd(2099, 1, 1),
            _ => {}
        }
        let key = KeyPair::generate().expect("a key pair");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let chain = vec![certificate.der().clone(), self.certificate.der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key in PKCS 8");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .expect("versions that ring has")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a certificate for this key");
        Arc::new(config)
    }
}
