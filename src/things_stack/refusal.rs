//! What a refusal of the API means: its reason, the server's words, and what an operator has
//! to know to mend it; and for how long a server wants to hear nothing. Pure.

use std::time::Duration;

use crate::error::{FetchError, Reason};
use crate::model::Endpoint;
use crate::things_stack::hosts::BaseUrl;
use crate::things_stack::messages;
use crate::things_stack::messages::printable;
use crate::things_stack::transport::Answer;

/// How long a server may silence the exporter, and for how long it does where it names no time.
pub const SILENCE_MAX: Duration = Duration::from_secs(3600);
const SILENCE_DEFAULT: Duration = Duration::from_secs(10);

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
        let is_named =
            self.name.contains("field_mask") || self.error.context.contains("field_mask");
        self.status == Some(400) && is_named
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

/// How long the server wants to hear nothing.
pub fn silence(answer: &Answer) -> Duration {
    let named = match answer.status {
        429 => ["x-rate-limit-retry", "retry-after", "x-rate-limit-reset"],
        _ => ["x-rate-limit-reset", "x-rate-limit-retry", "retry-after"],
    };
    let seconds = named.into_iter().find_map(|name| answer.number(name));
    seconds.map_or(SILENCE_DEFAULT, |seconds| {
        Duration::from_secs(seconds.max(1)).min(SILENCE_MAX)
    })
}

/// Why an answer is not what was asked for; nothing for a status with which the API
/// answers.
pub fn of(endpoint: Endpoint, base: &BaseUrl, answer: &Answer) -> Option<CallError> {
    let reason = match answer.status {
        // 203: a proxy has changed the frame of it.
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
    let said = match (&details, answer.header("location")) {
        (Some(details), _) => format!(": {}", details.message),
        (None, Some(location)) if reason == Reason::Redirect => {
            format!(" to {}", printable(&location, 100))
        }
        _ => " without The Things Stack's error message".to_owned(),
    };
    let hint = hint(endpoint, base, reason, answer.status);
    let context = format!("{}: HTTP {}{said}{hint}", base.host, answer.status);
    Some(CallError {
        error: FetchError::new(reason, context),
        status: Some(answer.status),
        is_of_api: details.is_some(),
        name: details.map(|details| details.name).unwrap_or_default(),
    })
}

/// What an operator has to know to mend a refusal: the missing right as the console calls it.
fn hint(endpoint: Endpoint, base: &BaseUrl, reason: Reason, status: u16) -> &'static str {
    match (reason, endpoint) {
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
        (_, Endpoint::List) if is_regional(&base.host) => {
            "; gateways are listed at eu1.cloud.thethings.network alone, \
             from where the stats of every cluster are found"
        }
        _ => "",
    }
}

/// Clusters of the community network without an Identity Server.
fn is_regional(host: &str) -> bool {
    matches!(
        host,
        "nam1.cloud.thethings.network" | "au1.cloud.thethings.network"
    )
}
