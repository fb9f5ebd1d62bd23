//! Why a request brought no answer: what each error of ureq and rustls means to an operator.

use std::io::{self, ErrorKind};

use crate::error::Reason;

/// How a connection ends on which nothing more can come, though its host may be well. A machine
/// that was suspended interrupts every wait with a limit (signal(7)).
const LOST: [ErrorKind; 5] = [
    ErrorKind::BrokenPipe,
    ErrorKind::ConnectionAborted,
    ErrorKind::ConnectionReset,
    ErrorKind::Interrupted,
    ErrorKind::UnexpectedEof,
];

/// Whether only this connection failed, within a compressed answer too: the request can be sent
/// again on another one.
pub fn is_lost_connection(error: &ureq::Error) -> bool {
    let (ureq::Error::Io(error) | ureq::Error::Decompress(_, error)) = error else {
        return false;
    };
    LOST.contains(&error.kind())
}

/// The reason, and what to tell a person.
pub fn classify(error: &ureq::Error) -> (Reason, String) {
    if let Some(error) = tls_error(error) {
        return (Reason::Tls, describe_tls(error));
    }
    match error {
        ureq::Error::HostNotFound => (Reason::Dns, "the host name has no address".to_owned()),
        ureq::Error::Timeout(ureq::Timeout::Resolve) => (
            Reason::Dns,
            "the name servers did not answer in time".to_owned(),
        ),
        ureq::Error::Timeout(_) => (Reason::Timeout, "no whole answer in time".to_owned()),
        ureq::Error::BodyExceedsLimit(limit) => (
            Reason::TooLarge,
            format!("the answer is longer than {limit} bytes"),
        ),
        ureq::Error::ConnectProxyFailed(_) | ureq::Error::ConnectionFailed => {
            (Reason::Connect, format!("no connection: {error}"))
        }
        ureq::Error::Tls(_) | ureq::Error::TlsRequired => (Reason::Tls, error.to_string()),
        ureq::Error::Protocol(_) | ureq::Error::Http(_) | ureq::Error::LargeResponseHeader(..) => (
            Reason::ConnectionLost,
            format!("the answer is no HTTP: {error}"),
        ),
        ureq::Error::Io(error) => classify_io(error),
        _ => (Reason::ConnectionLost, error.to_string()),
    }
}

fn tls_error(error: &ureq::Error) -> Option<&rustls::Error> {
    match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
}

fn classify_io(error: &io::Error) -> (Reason, String) {
    let (reason, what) = match error.kind() {
        ErrorKind::TimedOut => (Reason::Timeout, "no whole answer in time"),
        ErrorKind::UnexpectedEof => (
            Reason::ConnectionLost,
            "the connection ended before the answer did",
        ),
        kind if LOST.contains(&kind) => (Reason::ConnectionLost, "the connection was reset"),
        _ => return (Reason::Connect, format!("no connection: {error}")),
    };
    (reason, what.to_owned())
}

/// A Pi without a network has the time of its last shutdown, or 1970: then every certificate
/// looks expired or not yet valid, and the clock has to be named.
fn describe_tls(error: &rustls::Error) -> String {
    use rustls::CertificateError::*;
    use rustls::Error::InvalidCertificate;
    let what = match error {
        InvalidCertificate(Expired | ExpiredContext { .. }) => {
            "has expired, or this machine's clock is wrong"
        }
        InvalidCertificate(NotValidYet | NotValidYetContext { .. }) => {
            "is not valid yet: is this machine's clock right?"
        }
        InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) => {
            "is for another host name"
        }
        InvalidCertificate(UnknownIssuer) => "is from an unknown authority: see --ca-file",
        _ => return format!("no TLS session: {error}"),
    };
    format!("the server's certificate {what}")
}

#[cfg(test)]
mod tests {
    use rustls::CertificateError;

    use super::*;

    #[track_caller]
    fn check(error: ureq::Error, reason: Reason, words: &str) {
        let (actual, what) = classify(&error);
        assert_eq!(actual, reason, "{error:?}");
        assert!(what.contains(words), "{what}");
    }

    fn certificate(error: CertificateError) -> ureq::Error {
        let error = rustls::Error::InvalidCertificate(error);
        ureq::Error::Io(io::Error::new(io::ErrorKind::InvalidData, error))
    }

    #[test]
    fn every_failure_has_its_reason_and_says_what_to_look_at() {
        check(ureq::Error::HostNotFound, Reason::Dns, "name");
        check(
            ureq::Error::Timeout(ureq::Timeout::Resolve),
            Reason::Dns,
            "name servers",
        );
        check(
            ureq::Error::Timeout(ureq::Timeout::Global),
            Reason::Timeout,
            "in time",
        );
        check(
            ureq::Error::BodyExceedsLimit(9),
            Reason::TooLarge,
            "9 bytes",
        );
        let io = |kind: io::ErrorKind| ureq::Error::Io(kind.into());
        check(
            io(io::ErrorKind::ConnectionRefused),
            Reason::Connect,
            "refused",
        );
        check(
            io(io::ErrorKind::NetworkUnreachable),
            Reason::Connect,
            "unreachable",
        );
        check(
            io(io::ErrorKind::ConnectionReset),
            Reason::ConnectionLost,
            "reset",
        );
        check(
            io(io::ErrorKind::UnexpectedEof),
            Reason::ConnectionLost,
            "ended",
        );
        check(certificate(CertificateError::Expired), Reason::Tls, "clock");
        check(
            certificate(CertificateError::NotValidYet),
            Reason::Tls,
            "clock",
        );
        check(
            certificate(CertificateError::NotValidForName),
            Reason::Tls,
            "another host",
        );
        check(
            certificate(CertificateError::UnknownIssuer),
            Reason::Tls,
            "--ca-file",
        );
        check(
            certificate(CertificateError::BadSignature),
            Reason::Tls,
            "no TLS session",
        );
    }
}
