//! What the reader of the page asked for in the address: which gateways, which page of them,
//! and whether the page refreshes itself.
//!
//! Pure: the raw query string comes in, links to the same view with one change go out. What
//! makes no sense is ignored, so that no address is an error.

use crate::model::{GatewayReport, State};

/// A longer search finds nothing: names have at most 50 characters, ids 36.
pub const TEXT_CHARS_MAX: usize = 100;

/// The query string of the address, understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Gateways in this state alone.
    pub state: Option<State>,
    /// Gateways with this text in id, name or EUI, whatever its case; empty for all.
    pub text: String,
    /// Counted from 0, in the address from 1; one that does not exist means the last.
    pub page: usize,
    /// Whether the page does not refresh itself.
    pub is_paused: bool,
}

impl Query {
    /// Reads what stands between `?` and `#`. Of a parameter that comes twice, the last counts.
    pub fn parse(raw: &str) -> Query {
        let mut query = Query::default();
        for parameter in raw.split('&') {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = decoded(value);
            match name {
                "state" => {
                    let mut states = State::WORST_FIRST.into_iter();
                    query.state = states.find(|state| state.label() == value);
                }
                "q" => {
                    let text: String = value.trim().chars().take(TEXT_CHARS_MAX).collect();
                    query.text = text.trim_end().to_string();
                }
                "page" => query.page = value.parse().unwrap_or(1_usize).saturating_sub(1),
                "refresh" => query.is_paused = value == "0",
                _ => {}
            }
        }
        query
    }

    /// Whether this gateway is asked for.
    pub fn selects(&self, report: &GatewayReport) -> bool {
        let gateway = &report.gateway;
        let fields = [&gateway.gateway_id, &gateway.name, &gateway.eui];
        let text = self.text.to_lowercase();
        let has_text = |field: &String| field.to_lowercase().contains(&text);
        self.state.is_none_or(|state| report.state() == state) && fields.into_iter().any(has_text)
    }

    /// The address of this view, fit for an attribute. Defaults are left out.
    pub fn link(&self) -> String {
        let state = self.state.map(|state| format!("state={}", state.label()));
        let text = (!self.text.is_empty()).then(|| format!("q={}", percent_encoded(&self.text)));
        let page = (self.page > 0).then(|| format!("page={}", self.page + 1));
        let refresh = self.is_paused.then(|| "refresh=0".to_string());
        let parameters = [state, text, page, refresh].into_iter().flatten();
        match parameters.collect::<Vec<_>>().join("&amp;") {
            none if none.is_empty() => "/".to_string(),
            some => format!("/?{some}"),
        }
    }

    /// The address of this view with a change.
    pub fn link_with(&self, change: impl FnOnce(&mut Query)) -> String {
        let mut query = self.clone();
        change(&mut query);
        query.link()
    }
}

/// The value of a parameter: a form sends a space as `+` and everything unusual as `%XX`. A `%`
/// without two hexadecimal digits stays as it is.
fn decoded(value: &str) -> String {
    let value = value.replace('+', " ");
    let mut parts = value.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2);
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let rest = byte.map_or(part, |_| &part[2..]);
        bytes.push(byte.unwrap_or(b'%'));
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Text as a part of a URL (RFC 3986): the unreserved characters stay.
pub fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::Gateway;

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
            page: 1,
            is_paused: true,
        };
        let raw = "state=disconnected&q=%C3%89l%c3%a8ve+50%+%26+co&page=2&refresh=0";
        check(raw, all.clone());
        let link = all.link().replace("&amp;", "&");
        check(link.trim_start_matches("/?"), all);
        assert_eq!(Query::default().link(), "/");
    }

    #[test]
    fn every_value_may_be_encoded_and_of_two_the_last_counts() {
        let second = Query {
            state: Some(State::Connected),
            page: 1,
            is_paused: true,
            ..Query::default()
        };
        check("state=%63onnected&page=%32&refresh=%30", second.clone());
        let twice = "state=unknown&state=connected&page=7&page=2&refresh=1&refresh=0";
        check(twice, second);
        check(
            "q=a&q=%",
            Query {
                text: "%".into(),
                ..Query::default()
            },
        );
        check(
            "q=%f&q=%+1%zz%",
            Query {
                text: "% 1%zz%".into(),
                ..Query::default()
            },
        );
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
            assert_eq!(query.selects(&report), expected, "{raw}");
        }
    }
}
