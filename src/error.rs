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

impl Reason {
    /// Every reason, in the order of declaration: `ALL[r as usize] == r`.
    pub const ALL: [Reason; 19] = [
        Reason::Dns,
        Reason::Connect,
        Reason::Tls,
        Reason::Timeout,
        Reason::ConnectionLost,
        Reason::Unauthorized,
        Reason::Forbidden,
        Reason::NotFound,
        Reason::RateLimited,
        Reason::ClientError,
        Reason::ServerError,
        Reason::Redirect,
        Reason::TooLarge,
        Reason::NotJson,
        Reason::Shape,
        Reason::Field,
        Reason::UnknownHost,
        Reason::Budget,
        Reason::Internal,
    ];

    /// The value of the label `reason`.
    pub fn label(self) -> &'static str {
        match self {
            Reason::Dns => "dns",
            Reason::Connect => "connect",
            Reason::Tls => "tls",
            Reason::Timeout => "timeout",
            Reason::ConnectionLost => "connection_lost",
            Reason::Unauthorized => "unauthorized",
            Reason::Forbidden => "forbidden",
            Reason::NotFound => "not_found",
            Reason::RateLimited => "rate_limited",
            Reason::ClientError => "client_error",
            Reason::ServerError => "server_error",
            Reason::Redirect => "redirect",
            Reason::TooLarge => "too_large",
            Reason::NotJson => "not_json",
            Reason::Shape => "shape",
            Reason::Field => "field",
            Reason::UnknownHost => "unknown_host",
            Reason::Budget => "budget",
            Reason::Internal => "internal",
        }
    }

    /// What happened, as the status page says it after "because".
    pub fn words(self) -> &'static str {
        match self {
            Reason::Dns => "the name of the API's host has no address",
            Reason::Connect => "the API cannot be reached",
            Reason::Tls => "no secure connection to the API comes about",
            Reason::Timeout => "the API did not answer in time",
            Reason::ConnectionLost => "the connection broke before the answer was whole",
            Reason::Unauthorized => "the API does not accept the API key",
            Reason::Forbidden => "the API key lacks a right",
            Reason::NotFound => "the API does not know what was asked for",
            Reason::RateLimited => "the rate limit of the API is used up",
            Reason::ClientError => "the API refused the request",
            Reason::ServerError => "the API has a failure",
            Reason::Redirect => "the API redirects to another address",
            Reason::TooLarge => "the answer is too long to be true",
            Reason::NotJson => "the answer is not JSON",
            Reason::Shape => "the answer is not of the API's form",
            Reason::Field => "a field has an unexpected form",
            Reason::UnknownHost => "the API key must not be sent to its cluster",
            Reason::Budget => "the time of the scrape was used up",
            Reason::Internal => "this exporter has a defect",
        }
    }

    /// What the operator can do about it: one sentence for the status page and the README.
    pub fn advice(self) -> &'static str {
        match self {
            Reason::Dns => "Check this machine's name servers and the host name of --server.",
            Reason::Connect => "Check this machine's network, its firewall and HTTPS_PROXY.",
            Reason::Tls => "Check this machine's clock; for a private authority use --ca-file.",
            Reason::Timeout => "The API or the link to it is slow; --timeout allows more time.",
            Reason::ConnectionLost => "The API or something in between ended the connection.",
            Reason::Unauthorized => {
                "Make a new one in the console, under API keys of its owner, and give it to this \
                 exporter; a service or container has to be restarted."
            }
            Reason::Forbidden => {
                "Grant it in the console, under API keys, and to the key's owner as a collaborator."
            }
            Reason::NotFound => "Check --server, --gateway and that the server is up to date.",
            Reason::RateLimited => "Scrape less often, or raise --ttl.",
            Reason::ClientError => "The server refuses the request; see the log for its words.",
            Reason::ServerError => "The API has a failure; it is tried again by itself.",
            Reason::Redirect => "Set --server to the address that the server redirects to.",
            Reason::TooLarge => "Something else than The Things Stack answers at this address.",
            Reason::NotJson => "Something else than The Things Stack answers at this address.",
            Reason::Shape => {
                "Check that The Things Stack answers at this address, and whose API key it is."
            }
            Reason::Field => "Please report it: the API has a form that is not known yet.",
            Reason::UnknownHost => "Allow it only if that host is yours.",
            Reason::Budget => "Raise scrape_timeout in Prometheus, or --ttl.",
            Reason::Internal => "Please report it with the log line.",
        }
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
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            let same = Reason::ALL.iter().filter(|r| r.label() == reason.label());
            assert_eq!(same.count(), 1, "{}", reason.label());
        }
    }
}
