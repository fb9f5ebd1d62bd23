//! Why a request brought no answer: what each error of ureq and rustls means to an operator.

use std::io::ErrorKind;

use ureq::Error;

use crate::error::{FetchError, Reason};

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
pub fn is_lost_connection(error: &Error) -> bool {
    let (Error::Io(error) | Error::Decompress(_, error)) = error else {
        return false;
    };
    LOST.contains(&error.kind())
}

/// The reason, and what to tell a person.
pub fn classify(error: &Error) -> FetchError {
    if let Some(error) = tls_error(error) {
        return FetchError::new(Reason::Tls, describe_tls(error));
    }
    let (reason, what) = match error {
        Error::HostNotFound => (Reason::Dns, "the host name has no address".into()),
        Error::Timeout(ureq::Timeout::Resolve) => (
            Reason::Dns,
            "the name servers did not answer in time".into(),
        ),
        Error::Timeout(_) => (Reason::Timeout, "no whole answer in time".into()),
        Error::BodyExceedsLimit(limit) => (
            Reason::TooLarge,
            format!("the answer is longer than {limit} bytes"),
        ),
        Error::ConnectProxyFailed(_) | Error::ConnectionFailed => {
            (Reason::Connect, format!("no connection: {error}"))
        }
        Error::Tls(_) | Error::TlsRequired => (Reason::Tls, error.to_string()),
        Error::Protocol(_) | Error::Http(_) | Error::LargeResponseHeader(..) => (
            Reason::ConnectionLost,
            format!("the answer is no HTTP: {error}"),
        ),
        Error::Io(error) => match error.kind() {
            ErrorKind::TimedOut => (Reason::Timeout, "no whole answer in time".into()),
            ErrorKind::UnexpectedEof => (
                Reason::ConnectionLost,
                "the connection ended before the answer did".into(),
            ),
            kind if LOST.contains(&kind) => {
                (Reason::ConnectionLost, "the connection was reset".into())
            }
            _ => (Reason::Connect, format!("no connection: {error}")),
        },
        _ => (Reason::ConnectionLost, error.to_string()),
    };
    FetchError::new(reason, what)
}

fn tls_error(error: &Error) -> Option<&rustls::Error> {
    match error {
        Error::Rustls(error) => Some(error),
        Error::Io(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
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
    use std::io;

    use rustls::CertificateError;

    use super::*;

    #[track_caller]
    fn check(error: ureq::Error, reason: Reason, words: &str) {
        let actual = classify(&error);
        assert_eq!(actual.reason, reason, "{error:?}");
        assert!(actual.context.contains(words), "{actual}");
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
