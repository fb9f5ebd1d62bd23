//! What the reader of the page asked for in the address: which gateways, which page of them,
//! and whether the page refreshes itself.
//!
//! Pure: the raw query string comes in, links to the same view with one change go out. What
//! makes no sense is ignored, so that no address is an error.

use crate::model::{Gateway, GatewayReport, State};

use super::state_name;
use super::table::WORST_FIRST;

/// No honest search is longer; names have at most 50 characters, ids 36.
pub const TEXT_CHARS_MAX: usize = 100;

/// More parameters than the page has are not looked at.
const PARAMETERS_MAX: usize = 16;

/// The query string of the address, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Gateways in this state alone.
    pub state: Option<State>,
    /// Gateways with this text in id, name or EUI, whatever its case; empty for all.
    pub text: String,
    /// Counted from 1; one that does not exist means the nearest that does.
    pub page: usize,
    pub is_refreshing: bool,
}

impl Default for Query {
    fn default() -> Query {
        Query {
            state: None,
            text: String::new(),
            page: 1,
            is_refreshing: true,
        }
    }
}

impl Query {
    /// Reads what stands between `?` and `#`. Of a parameter that comes twice, the last counts.
    pub fn parse(raw: &str) -> Query {
        let mut query = Query::default();
        for parameter in raw.split('&').take(PARAMETERS_MAX) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            match name {
                "state" => {
                    let mut states = WORST_FIRST.into_iter();
                    query.state = states.find(|state| state_name(*state) == value);
                }
                "q" => query.text = search_text(value),
                "page" => query.page = value.parse().unwrap_or(1).max(1),
                "refresh" => query.is_refreshing = value != "0",
                _ => {}
            }
        }
        query
    }

    /// Whether this gateway is asked for. `lower_text` is [`Query::lower_text`].
    pub fn selects(&self, report: &GatewayReport, lower_text: &str) -> bool {
        let Gateway {
            gateway_id,
            name,
            eui,
            ..
        } = &*report.gateway;
        let has_text = |field: &String| field.to_lowercase().contains(lower_text);
        self.state.is_none_or(|state| report.state() == state)
            && (lower_text.is_empty() || [gateway_id, name, eui].into_iter().any(has_text))
    }

    pub fn lower_text(&self) -> String {
        self.text.to_lowercase()
    }

    /// The address of this view, fit for an attribute. Defaults are left out.
    pub fn link(&self) -> String {
        let mut parameters = Vec::new();
        if let Some(state) = self.state {
            parameters.push(format!("state={}", state_name(state)));
        }
        if !self.text.is_empty() {
            parameters.push(format!("q={}", percent_encoded(&self.text)));
        }
        if self.page > 1 {
            parameters.push(format!("page={}", self.page));
        }
        if !self.is_refreshing {
            parameters.push("refresh=0".to_string());
        }
        match parameters.is_empty() {
            true => "/".to_string(),
            false => format!("/?{}", parameters.join("&amp;")),
        }
    }

    /// The view of one state, or of all, from its first page.
    pub fn with_state(&self, state: Option<State>) -> Query {
        Query {
            state,
            page: 1,
            ..self.clone()
        }
    }

    pub fn with_page(&self, page: usize) -> Query {
        Query {
            page,
            ..self.clone()
        }
    }

    pub fn with_refresh(&self, is_refreshing: bool) -> Query {
        Query {
            is_refreshing,
            ..self.clone()
        }
    }
}

/// A form sends a space as `+` and everything unusual as `%XX`.
fn search_text(value: &str) -> String {
    let bytes = percent_decoded(&value.replace('+', " "));
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let text: String = text.trim().chars().take(TEXT_CHARS_MAX).collect();
    text.trim_end().to_string()
}

/// A `%` without two hexadecimal digits stays as it is.
fn percent_decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let digit = |index: usize| char::from(*bytes.get(index)?).to_digit(16);
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        match (bytes[index], digit(index + 1), digit(index + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                index += 3;
            }
            (byte, ..) => {
                decoded.push(byte);
                index += 1;
            }
        }
    }
    decoded
}

/// Text as a part of a URL (RFC 3986): the unreserved characters stay.
pub fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[track_caller]
    fn check(raw: &str, expected: Query) {
        assert_eq!(Query::parse(raw), expected, "{raw}");
    }

    #[test]
    fn an_address_says_state_text_page_and_refresh() {
        check("", Query::default());
        let all = Query {
            state: Some(State::Disconnected),
            text: "Élève 50% & co".into(),
            page: 2,
            is_refreshing: false,
        };
        let raw = "state=disconnected&q=%C3%89l%c3%a8ve+50%+%26+co&page=2&refresh=0";
        check(raw, all.clone());
        let link = all.link().replace("&amp;", "&");
        check(link.trim_start_matches("/?"), all);
        assert_eq!(Query::default().link(), "/");
    }

    #[test]
    fn what_makes_no_sense_is_ignored() {
        for raw in [
            "state=Connected",
            "state",
            "page=0",
            "page=-1",
            "page=99999999999999999999999",
            "q=+%20+",
            "refresh=",
            "&&==&",
            "other=1",
        ] {
            check(raw, Query::default());
        }
        let many = format!("{}page=7", "a=b&".repeat(PARAMETERS_MAX));
        check(&many, Query::default());
    }

    #[test]
    fn a_hostile_search_is_short_and_inert_in_a_link() {
        let long = Query::parse(&format!("q={}", "%3C".repeat(10_000)));
        assert_eq!(long.text.len(), TEXT_CHARS_MAX);
        let link = Query::parse("q=\"><script>%00%ff%&page=3").link();
        let inert = |c: char| c.is_ascii_alphanumeric() || "/?&;=%.".contains(c);
        assert!(link.chars().all(inert), "{link}");
    }

    #[test]
    fn a_search_looks_into_id_name_and_eui() {
        let gateway = Gateway {
            gateway_id: "rooftop-1".into(),
            name: "École".into(),
            eui: "58A0CBFFFE80ABCD".into(),
            ..Gateway::default()
        };
        let report = GatewayReport {
            gateway: Arc::new(gateway),
            cluster: "eu1".into(),
            outcome: Ok(None),
            uplinks_per_hour: None,
        };
        for (raw, expected) in [
            ("", true),
            ("q=ROOF", true),
            ("q=%C3%A9cole", true),
            ("q=fffe80abcd", true),
            ("q=eu1", false),
            ("q=roof&state=disconnected", true),
            ("q=roof&state=connected", false),
        ] {
            let query = Query::parse(raw);
            let selected = query.selects(&report, &query.lower_text());
            assert_eq!(selected, expected, "{raw}");
        }
    }
}
