//! What can go wrong between an API key and a gateway's state.
//!
//! [`Reason`] is what code branches on and what the label `reason` shows; the context of a
//! [`FetchError`] is for people. Nothing here ever holds the API key.

use std::fmt;

/// Why something could not be obtained. The label `reason` of `ttn_exporter_errors_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The host's name has no address, or the name servers did not answer.
    Dns,
    /// No TCP connection: refused, unreachable, or the proxy said no.
    Connect,
    /// No TLS session: an expired certificate, a wrong name, an unknown authority.
    Tls,
    /// The API did not answer in time.
    Timeout,
    /// The connection ended before the answer did.
    ConnectionLost,
    /// HTTP 401: the API key is unknown, expired or revoked.
    Unauthorized,
    /// HTTP 403: the API key lacks a right.
    Forbidden,
    /// HTTP 404 for something that should be there.
    NotFound,
    /// HTTP 429, or no request left of the allowance that the server announced.
    RateLimited,
    /// Another HTTP 4xx.
    ClientError,
    /// HTTP 5xx.
    ServerError,
    /// HTTP 3xx: never followed, since the request carries the key.
    Redirect,
    /// The answer is longer than any true one.
    TooLarge,
    /// The answer is not JSON: usually a page of a proxy in between.
    NotJson,
    /// The answer is JSON, but not of the API's form.
    Shape,
    /// One field of one gateway has an unexpected form; it alone is left out.
    Field,
    /// The gateway names a server that the API key must not be sent to.
    UnknownHost,
    /// The time of the scrape was used up before the request could be made.
    Budget,
    /// A defect of this program.
    Internal,
}

/// Each reason, in the order of declaration, with the value of the label `reason`, with what
/// happened, as the status page says it after "because", and with what the operator can do.
#[rustfmt::skip]
const REASONS: [(Reason, &str, &str, &str); 19] = [
    (Reason::Dns, "dns", "the name of the API's host has no address",
        "Check this machine's name servers and the host name of --server."),
    (Reason::Connect, "connect", "the API cannot be reached",
        "Check this machine's network, its firewall and HTTPS_PROXY."),
    (Reason::Tls, "tls", "no secure connection to the API comes about",
        "Check this machine's clock; for a private authority use --ca-file."),
    (Reason::Timeout, "timeout", "the API did not answer in time",
        "The API or the link to it is slow; --timeout allows more time."),
    (Reason::ConnectionLost, "connection_lost", "the connection broke before the answer was whole",
        "The API or something in between ended the connection."),
    (Reason::Unauthorized, "unauthorized", "the API does not accept the API key",
        "Make a new one in the console, under API keys of its owner, and give it to this exporter; \
         a service or container has to be restarted."),
    (Reason::Forbidden, "forbidden", "the API key lacks a right",
        "Grant it in the console, under API keys, and to the key's owner as a collaborator."),
    (Reason::NotFound, "not_found", "the API does not know what was asked for",
        "Check --server, --gateway and that the server is up to date."),
    (Reason::RateLimited, "rate_limited", "the rate limit of the API is used up",
        "Scrape less often, or raise --ttl."),
    (Reason::ClientError, "client_error", "the API refused the request",
        "The server refuses the request; see the log for its words."),
    (Reason::ServerError, "server_error", "the API has a failure",
        "The API has a failure; it is tried again by itself."),
    (Reason::Redirect, "redirect", "the API redirects to another address",
        "Set --server to the address that the server redirects to."),
    (Reason::TooLarge, "too_large", "the answer is too long to be true",
        "Something else than The Things Stack answers at this address."),
    (Reason::NotJson, "not_json", "the answer is not JSON",
        "Something else than The Things Stack answers at this address."),
    (Reason::Shape, "shape", "the answer is not of the API's form",
        "Check that The Things Stack answers at this address, and whose API key it is."),
    (Reason::Field, "field", "a field has an unexpected form",
        "Please report it: the API has a form that is not known yet."),
    (Reason::UnknownHost, "unknown_host", "the API key must not be sent to its cluster",
        "Allow it only if that host is yours."),
    (Reason::Budget, "budget", "the time of the scrape was used up",
        "Raise scrape_timeout in Prometheus, or --ttl."),
    (Reason::Internal, "internal", "this exporter has a defect",
        "Please report it with the log line."),
];

impl Reason {
    /// How many there are: `reason as usize` is less.
    pub const COUNT: usize = REASONS.len();

    /// Every reason, in the order of declaration.
    pub fn all() -> impl Iterator<Item = Reason> {
        REASONS.into_iter().map(|(reason, ..)| reason)
    }

    /// The value of the label `reason`.
    pub fn label(self) -> &'static str {
        REASONS[self as usize].1
    }

    /// What happened, as the status page says it after "because".
    pub fn words(self) -> &'static str {
        REASONS[self as usize].2
    }

    /// What the operator can do about it: one sentence for the status page and the log.
    pub fn advice(self) -> &'static str {
        REASONS[self as usize].3
    }
}

/// Why a piece of a collection is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchError {
    pub reason: Reason,
    /// What happened, for a person: which request, and what came instead of the answer.
    pub context: String,
    /// Whether it concerns one gateway alone, and the API did its part.
    pub is_of_gateway: bool,
}

impl FetchError {
    pub fn new(reason: Reason, context: impl Into<String>) -> FetchError {
        FetchError {
            reason,
            context: context.into(),
            is_of_gateway: false,
        }
    }

    /// The same, as a matter of one gateway: a right that is missing on it, its deletion, the
    /// server that it names.
    pub fn of_gateway(self) -> FetchError {
        FetchError {
            is_of_gateway: true,
            ..self
        }
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.context, self.reason.label())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_stands_at_its_own_index_and_has_its_own_label() {
        for (index, reason) in Reason::all().enumerate() {
            assert_eq!(reason as usize, index);
            let same = Reason::all().filter(|other| other.label() == reason.label());
            assert_eq!(same.count(), 1, "{}", reason.label());
        }
    }
}
