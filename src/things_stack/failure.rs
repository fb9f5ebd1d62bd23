//! Why a call failed, in an operator's words: what each error of ureq and rustls means, and what a
//! refusal of the API does; and how long the server asks to wait. Pure.

use std::io::ErrorKind;
use std::time::Duration;

use ureq::Error;

use crate::error::{FetchError, Reason};
use crate::model::Endpoint;
use crate::things_stack::hosts::COMMUNITY_HOSTS;
use crate::things_stack::messages::{self, printable};
use crate::things_stack::transport::{Answer, Request, headers};

/// How a connection ends on which nothing more can come, though its host may be well. A machine
/// that was suspended interrupts every wait with a limit (signal(7)).
const LOST: [ErrorKind; 5] = [
    ErrorKind::BrokenPipe,
    ErrorKind::ConnectionAborted,
    ErrorKind::ConnectionReset,
    ErrorKind::Interrupted,
    ErrorKind::UnexpectedEof,
];
const NO_ADDRESS: &str = "the host name has no address";
const WAIT_SECONDS_MAX: u64 = 3600;
/// Where the server names no time.
const WAIT_SECONDS_DEFAULT: u64 = 10;

/// Why a call failed, with what decides how to go on.
#[derive(Debug)]
pub struct CallError {
    pub error: FetchError,
    /// The HTTP status, if there was an answer.
    status: Option<u16>,
    /// The name of The Things Stack's error, such as `not_connected`; empty if there is none.
    name: String,
    /// Whether the API itself refused, with its error body, and no proxy in front of it.
    is_of_api: bool,
}

impl CallError {
    /// Whether the cluster says that the gateway is not connected there.
    pub fn is_not_connected(&self) -> bool {
        self.status == Some(404) && self.name == "not_connected"
    }

    /// Whether a single gateway is the cause: a right on it, its deletion (a 404 that names it and
    /// not the path: `gateway_not_found`), or the length of what it says about itself.
    pub fn is_of_gateway(&self) -> bool {
        match self.status {
            Some(403) => self.is_of_api,
            Some(404) => self.is_of_api && self.name.contains("gateway"),
            _ => self.error.reason == Reason::TooLarge,
        }
    }

    /// Whether the server is too old for this kind of call, by its own words.
    pub fn is_unknown_call(&self) -> bool {
        self.is_of_api && matches!(self.status, Some(404 | 405 | 501))
    }

    /// Whether it is the page of a proxy.
    pub fn is_of_proxy(&self) -> bool {
        !self.is_of_api && matches!(self.status, Some(400..=499))
    }

    /// Whether there is no such host, or it does not know the key.
    pub fn is_no_cluster(&self) -> bool {
        let has_no_address = self.error.context.ends_with(NO_ADDRESS);
        self.error.reason == Reason::Unauthorized || has_no_address
    }

    /// Whether a smaller batch may be answered.
    pub fn may_be_of_size(&self) -> bool {
        let is_refused = self.is_of_api && self.status == Some(400) && !self.is_of_key();
        self.status == Some(413) || is_refused
    }

    /// Whether the API does not take the key: it is unknown, or no key at all, as where its file is
    /// just being written.
    pub fn is_of_key(&self) -> bool {
        self.error.reason == Reason::Unauthorized || self.is_400_about("token")
    }

    /// Whether the next request for this registration will be refused as well: the key has no right
    /// to it, or the server keeps no registrations.
    pub fn is_final(&self) -> bool {
        let is_passing = self.is_of_key() || self.status == Some(429);
        self.is_of_api && !is_passing && matches!(self.status, Some(400..=499 | 501))
    }

    /// Whether a server refused fields that it does not know yet.
    pub fn is_about_field_mask(&self) -> bool {
        self.is_400_about("field_mask")
    }

    fn is_400_about(&self, word: &str) -> bool {
        self.status == Some(400) && (self.name.contains(word) || self.error.context.contains(word))
    }
}

impl From<FetchError> for CallError {
    fn from(error: FetchError) -> CallError {
        CallError {
            error,
            status: None,
            name: String::new(),
            is_of_api: false,
        }
    }
}

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
        Error::HostNotFound => (Reason::Dns, NO_ADDRESS.into()),
        Error::Timeout(ureq::Timeout::Resolve) => {
            (Reason::Dns, "the name servers gave no answer".into())
        }
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

/// How long the server asks to wait before the next call of this kind.
pub fn wait_time(answer: &Answer) -> Duration {
    let named = match answer.status().as_u16() {
        429 => ["x-rate-limit-retry", "retry-after", "x-rate-limit-reset"],
        _ => ["x-rate-limit-reset", "x-rate-limit-retry", "retry-after"],
    };
    let mut values = named.into_iter().flat_map(|name| headers(answer, name));
    let seconds = values.find_map(|value| value.trim().parse::<f64>().ok());
    // `as` takes what is too large for the largest, and what is negative or no number for zero.
    let seconds = seconds.map_or(WAIT_SECONDS_DEFAULT, |seconds| seconds.ceil() as u64);
    Duration::from_secs(seconds.clamp(1, WAIT_SECONDS_MAX))
}

/// Why an answer is not what was asked for; `None` for a status with which the API answers.
pub fn refusal(request: &Request, answer: &Answer) -> Option<CallError> {
    let status = answer.status().as_u16();
    let reason = match status {
        // 203: a proxy has changed its headers.
        200 | 203 => return None,
        201..300 => Reason::Shape,
        300..400 => Reason::Redirect,
        401 => Reason::Unauthorized,
        403 => Reason::Forbidden,
        404 => Reason::NotFound,
        429 => Reason::RateLimited,
        400..500 => Reason::ClientError,
        _ => Reason::ServerError,
    };
    let details = messages::api_error(answer.body());
    let said = match (&details, headers(answer, "location").next()) {
        (Some(details), _) => format!(": {}", details.message),
        (None, Some(location)) if reason == Reason::Redirect => {
            format!(" to {}", printable(&location, 100))
        }
        _ => " without The Things Stack's error message".to_owned(),
    };
    let hint = hint(request, reason, status);
    Some(CallError {
        error: FetchError::new(reason, format!("HTTP {status}{said}{hint}")),
        status: Some(status),
        is_of_api: details.is_some(),
        name: details.map(|details| details.name).unwrap_or_default(),
    })
}

/// What an operator has to know to end a refusal, such as the missing right in the console's words.
fn hint(request: &Request, reason: Reason, status: u16) -> &'static str {
    match (reason, request.endpoint) {
        (Reason::Unauthorized, _) => "; the API key is wrong, expired or revoked",
        (Reason::Forbidden, Endpoint::List) => {
            "; the API key lacks the right to list the gateways that the user (or the \
             organization) is a collaborator of; a gateway's own key can list nothing and \
             needs --gateway"
        }
        (Reason::Forbidden, Endpoint::Stats | Endpoint::StatsBatch) => {
            "; the API key lacks the right to view gateway status \
             (RIGHT_GATEWAY_STATUS_READ), or its owner does; a gateway that was deleted is \
             refused alike"
        }
        (Reason::ClientError, _) if status == 400 => "; an API key that is not whole is refused so",
        (_, Endpoint::List) if COMMUNITY_HOSTS[1..].contains(&&*request.base.host) => {
            "; gateways are listed at eu1.cloud.thethings.network alone, \
             from where the stats of every cluster are found"
        }
        _ => "",
    }
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

    #[track_caller]
    fn check_wait(status: u16, headers: &[(&str, &str)], seconds: u64) {
        let mut answer = ureq::http::Response::builder().status(status);
        for (name, value) in headers {
            answer = answer.header(*name, *value);
        }
        let answer = answer.body(Vec::new()).expect("an answer");
        assert_eq!(
            wait_time(&answer),
            Duration::from_secs(seconds),
            "{headers:?}"
        );
    }

    #[test]
    fn a_server_is_given_the_time_that_it_asks_for_within_an_hour() {
        check_wait(429, &[("x-rate-limit-retry", "7")], 7);
        check_wait(429, &[("retry-after", "1.5")], 2);
        check_wait(429, &[("retry-after", "99999999999999999999")], 3600);
        check_wait(429, &[("retry-after", "-1")], 1);
        check_wait(429, &[("retry-after", "soon"), ("retry-after", "20")], 20);
        check_wait(429, &[("retry-after", "Wed, 21 Oct 2035 07:28:00 GMT")], 10);
        check_wait(429, &[], 10);
        let both = [("x-rate-limit-retry", "3"), ("x-rate-limit-reset", "9")];
        check_wait(429, &both, 3);
        check_wait(200, &both, 9);
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
