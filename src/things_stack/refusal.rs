//! What a refusal of the API means: its reason, the server's message and a hint for the
//! operator; and how long the server asks to wait. Pure.

use std::time::Duration;

use crate::error::{FetchError, Reason};
use crate::model::Endpoint;
use crate::things_stack::hosts::COMMUNITY_HOSTS;
use crate::things_stack::messages::{self, printable};
use crate::things_stack::transport::{Answer, Request};

const WAIT_SECONDS_MAX: u64 = 3600;
/// Where the server names no time.
const WAIT_SECONDS_DEFAULT: u64 = 10;
/// Why a call failed, with what decides how to go on.
#[derive(Debug)]
pub struct CallError {
    pub error: FetchError,
    /// The HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// The name of The Things Stack's error, such as `not_connected`; empty if there is none.
    pub name: String,
    /// Whether the API itself refused, with its error body, and no proxy in front of it.
    pub is_of_api: bool,
}

impl CallError {
    /// Whether a server refused fields that it does not know yet.
    pub fn is_about_field_mask(&self) -> bool {
        let is_named = |text: &str| text.contains("field_mask");
        self.status == Some(400) && (is_named(&self.name) || is_named(&self.error.context))
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

/// How long the server asks to wait before the next call of this kind.
pub fn wait_time(answer: &Answer) -> Duration {
    let named = match answer.status {
        429 => ["x-rate-limit-retry", "retry-after", "x-rate-limit-reset"],
        // The time to the next try may be zero here.
        _ => ["x-rate-limit-reset", "x-rate-limit-retry", "retry-after"],
    };
    let seconds = named.into_iter().find_map(|name| answer.number(name));
    let seconds = seconds.unwrap_or(WAIT_SECONDS_DEFAULT);
    Duration::from_secs(seconds.clamp(1, WAIT_SECONDS_MAX))
}

/// Why an answer is not what was asked for; `None` for a status with which the API answers.
pub fn of(request: &Request, answer: &Answer) -> Option<CallError> {
    let status = answer.status;
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
    let details = messages::api_error(&answer.body);
    let said = match (&details, answer.headers("location").next()) {
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
