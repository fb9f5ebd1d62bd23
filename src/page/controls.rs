//! What stands around the table of the status page: the totals, which select a state, the
//! search, and the links from page to page. All of them are plain links and one plain form.

use crate::model::{Snapshot, State};

use super::query::{Query, TEXT_CHARS_MAX};
use super::text::{breakable, counted, escaped, grouped, isolated, per_hour};

/// Rows on one page of the table: more become slow to load and to look through.
pub const ROWS_MAX: usize = 100;

/// How many gateways are in each state, each a link to those alone, and how much is received.
/// The counts are those of all gateways, whatever is shown.
pub fn totals(snapshot: &Snapshot, query: &Query) -> String {
    if snapshot.gateways.is_empty() {
        return String::new();
    }
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
    format!(
        "<form method=\"get\" action=\"/\" role=\"search\">\n{}{}\
         <label for=\"q\">Search</label>\n\
         <input type=\"search\" id=\"q\" name=\"q\" maxlength=\"{TEXT_CHARS_MAX}\" \
         placeholder=\"ID, name or EUI\" value=\"{}\">\n<button>Search</button>\n</form>\n",
        state.unwrap_or_default(),
        refresh.unwrap_or_default(),
        escaped(&query.text)
    )
}

/// What of all gateways is shown, and how to come back to all of them; nothing where all are.
pub fn selection(query: &Query, total: usize) -> String {
    let text = match query.text.as_str() {
        "" if query.state.is_none() => return String::new(),
        "" => String::new(),
        text => format!(" with “{}” in ID, name or EUI", isolated(text)),
    };
    let state = query.state.map(|state| format!("{} ", state.label()));
    let noun = format!("{}gateway", state.unwrap_or_default());
    let gateways = counted(total as u64, &noun);
    let all = Query {
        is_paused: query.is_paused,
        ..Query::default()
    };
    let all = all.link();
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
    use super::super::tests::{collection, connected};
    use super::*;

    fn query(raw: &str) -> Query {
        Query::parse(raw)
    }

    #[test]
    fn the_pager_keeps_the_rest_of_the_view() {
        let query = query("state=connected&q=a+b&page=2&refresh=0");
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
        let query = query("q=%22%3E%3Cscript%3E&state=unknown&refresh=0");
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
