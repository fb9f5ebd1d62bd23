//! What the reader of the page asked for in the address, and the controls that ask for it: the
//! totals, which select a state, the search, and the links from page to page. All of them are
//! plain links and one plain form. What makes no sense is ignored, so that no address is an error.

use crate::model::{GatewayReport, Snapshot, State};

use super::text::{breakable, counted, escaped, grouped, isolated, per_hour};

/// Rows on one page of the table: more become slow to load and to look through.
pub const ROWS_MAX: usize = 100;

/// A longer search finds nothing: names have at most 50 characters, ids 36.
const TEXT_CHARS_MAX: usize = 100;

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
                "q" => query.text = value.trim().chars().take(TEXT_CHARS_MAX).collect(),
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

/// How many gateways are in each state, each a link to those alone, and how much is received.
/// The counts are those of all gateways, whatever is shown.
pub fn totals(snapshot: &Snapshot, query: &Query) -> String {
    let tile = |state| state_tile(snapshot.count(state), state, query);
    let tiles: String = State::WORST_FIRST.into_iter().map(tile).collect();
    let rates = snapshot.gateways.iter().map(|g| g.uplinks_per_hour);
    let rate = per_hour(rates.flatten().reduce(|sum, rate| sum + rate));
    format!(
        "<section aria-label=\"Totals\">\n<ul class=\"totals\">\n{tiles}\
         <li><p><b>{rate}</b> <span>uplinks per hour</span></p></li>\n</ul>\n</section>\n"
    )
}

fn state_tile(count: usize, state: State, query: &Query) -> String {
    let name = state.label();
    let tile = format!("<b>{}</b> <span>{name}</span>", breakable(count as u64));
    if count == 0 {
        return format!("<li class=\"none\"><p>{tile}</p></li>\n");
    }
    let current = match query.state == Some(state) {
        true => " aria-current=\"true\"",
        false => "",
    };
    let link = query.link_with(|query| (query.state, query.page) = (Some(state), 0));
    format!("<li class=\"{name}\"><a href=\"{link}\"{current}>{tile}</a></li>\n")
}

/// The form; a search begins at the first page and keeps the state.
pub fn search(query: &Query) -> String {
    let hidden = |name: &str, value: &str| {
        format!("<input type=\"hidden\" name=\"{name}\" value=\"{value}\">\n")
    };
    let state = query.state.map(|state| hidden("state", state.label()));
    let refresh = query.is_paused.then(|| hidden("refresh", "0"));
    let kept: String = [state, refresh].into_iter().flatten().collect();
    let text = escaped(&query.text);
    format!(
        "<form method=\"get\" action=\"/\" role=\"search\">\n{kept}\
         <label for=\"q\">Search</label>\n\
         <input type=\"search\" id=\"q\" name=\"q\" maxlength=\"{TEXT_CHARS_MAX}\" \
         placeholder=\"ID, name or EUI\" value=\"{text}\">\n<button>Search</button>\n</form>\n"
    )
}

/// What of all gateways is shown, and how to come back to all of them; nothing where all are.
pub fn selection(query: &Query, total: usize) -> String {
    let text = match query.text.as_str() {
        "" if query.state.is_none() => return String::new(),
        "" => String::new(),
        text => format!(" with “{}” in ID, name or EUI", isolated(text)),
    };
    let noun = format!("{} gateway", query.state.map_or("", State::label));
    let gateways = counted(total as u64, noun.trim_start());
    let all = query.link_with(|all| (all.state, all.text, all.page) = Default::default());
    format!(
        "<p class=\"selection\">{gateways}{text}. <a href=\"{all}\">Show all gateways</a></p>\n"
    )
}

/// Links to the pages before and after `page`; nothing where there is one page.
pub fn pager(query: &Query, page: usize, total: usize) -> String {
    if total <= ROWS_MAX {
        return String::new();
    }
    let (start, end) = (page * ROWS_MAX, (page * ROWS_MAX + ROWS_MAX).min(total));
    let [first, last, all] = [start + 1, end, total].map(|count| grouped(count as u64));
    let link = |page: Option<usize>, words: &str| match page {
        Some(page) => {
            let link = query.link_with(|query| query.page = page);
            format!("<a href=\"{link}\">{words}</a>")
        }
        None => format!("<span>{words}</span>"),
    };
    format!(
        "<nav class=\"pager\" aria-label=\"Pages\">{} <span>{first}–{last} of {all}</span> {}</nav>\n",
        link(page.checked_sub(1), "Previous"),
        link((end < total).then_some(page + 1), "Next")
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::tests::{collection, connected};
    use super::*;
    use crate::examples;

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
        let mut report = examples::report("rooftop-1", Ok(None));
        let gateway = Arc::make_mut(&mut report.gateway);
        gateway.name = "École".into();
        gateway.eui = "58A0CBFFFE80ABCD".into();
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

    #[test]
    fn the_pager_keeps_the_rest_of_the_view() {
        let query = Query::parse("state=connected&q=a+b&page=2&refresh=0");
        let html = pager(&query, 1, 250);
        let rest = "/?state=connected&amp;q=a%20b";
        assert!(
            html.contains(&format!("\"{rest}&amp;refresh=0\">Previous")),
            "{html}"
        );
        assert!(
            html.contains(&format!("\"{rest}&amp;page=3&amp;refresh=0\">Next")),
            "{html}"
        );
        assert!(html.contains("101–200 of 250"), "{html}");
        let last = pager(&query, 2, 250);
        assert!(last.contains("201–250 of 250</span> <span>Next"), "{last}");
        assert_eq!(pager(&query, 0, 100), "");
    }

    #[test]
    fn a_search_text_is_shown_as_text() {
        let query = Query::parse("q=%22%3E%3Cscript%3E&state=unknown&refresh=0");
        let html = search(&query) + &selection(&query, 1);
        assert!(
            html.contains("value=\"&quot;&gt;&lt;script&gt;\""),
            "{html}"
        );
        assert!(html.contains("name=\"state\" value=\"unknown\""), "{html}");
        assert!(
            html.contains("1 unknown gateway with “<bdi>&quot;&gt;&lt;script"),
            "{html}"
        );
        assert!(html.contains("\"/?refresh=0\">Show all gateways"), "{html}");
    }

    #[test]
    fn the_uplinks_per_hour_are_a_dash_until_they_are_known() {
        let mut collection = collection(vec![connected(), connected()]);
        let tile = |collection: &Snapshot| totals(collection, &Query::default());
        assert!(tile(&collection).contains("<b>–</b> <span>uplinks per hour<"));
        collection.gateways[0].uplinks_per_hour = Some(1_799.6);
        assert!(tile(&collection).contains("<b>1,<wbr>800</b> <span>uplinks per hour<"));
    }
}
