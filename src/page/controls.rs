//! What of the status page a person clicks: the tiles that choose a state, the search, the
//! pages of the table, the refresh. All are links and one plain form; each keeps the rest of
//! the view.

use crate::model::{Snapshot, State};

use super::query::{Query, TEXT_CHARS_MAX};
use super::state_name;
use super::table::WORST_FIRST;
use super::text::{Count, Escaped, Grouped, Isolated, PerHour};

/// Rows on one page of the table: more become slow to load and to look through.
pub const ROWS_MAX: usize = 100;

/// Which of the selected gateways are shown, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub page: usize,
    pub page_count: usize,
    /// Of all selected gateways.
    pub total: usize,
}

impl Window {
    pub fn new(query: &Query, total: usize) -> Window {
        let page_count = total.div_ceil(ROWS_MAX).max(1);
        Window {
            page: query.page.min(page_count),
            page_count,
            total,
        }
    }

    pub fn start(self) -> usize {
        (self.page - 1) * ROWS_MAX
    }

    pub fn end(self) -> usize {
        (self.start() + ROWS_MAX).min(self.total)
    }
}

/// How many gateways are in each state, each a link to those alone, and how much is received.
/// The counts are those of all gateways, whatever is shown.
pub fn totals(collection: &Snapshot, query: &Query) -> String {
    if collection.gateways.is_empty() {
        return String::new();
    }
    let mut html = "<section aria-label=\"Totals\">\n<ul class=\"totals\">\n".to_string();
    for state in WORST_FIRST {
        html.push_str(&state_tile(collection.count(state), state, query));
    }
    let known = collection.gateways.iter().map(|g| g.uplinks_per_hour);
    let sum = known
        .flatten()
        .fold(None, |sum, rate| Some(sum.unwrap_or(0.0) + rate));
    let rate = PerHour(sum);
    html + &format!(
        "<li><p><b>{rate}</b> <span>uplinks per hour</span></p></li>\n</ul>\n</section>\n"
    )
}

fn state_tile(count: usize, state: State, query: &Query) -> String {
    let name = state_name(state);
    let tile = format!("<b>{}</b> <span>{name}</span>", Count(count as u64));
    if count == 0 {
        return format!("<li class=\"none\"><p>{tile}</p></li>\n");
    }
    let current = match query.state == Some(state) {
        true => " aria-current=\"true\"",
        false => "",
    };
    let link = query.with_state(Some(state)).link();
    format!("<li class=\"{name}\"><a href=\"{link}\"{current}>{tile}</a></li>\n")
}

/// The form; a search begins at the first page and keeps the state.
pub fn search(query: &Query) -> String {
    let hidden = |name: &str, value: &str| {
        format!("<input type=\"hidden\" name=\"{name}\" value=\"{value}\">\n")
    };
    let state = query.state.map(|state| hidden("state", state_name(state)));
    let refresh = (!query.is_refreshing).then(|| hidden("refresh", "0"));
    format!(
        "<form method=\"get\" action=\"/\" role=\"search\">\n{}{}\
         <label for=\"q\">Search</label>\n\
         <input type=\"search\" id=\"q\" name=\"q\" maxlength=\"{TEXT_CHARS_MAX}\" \
         placeholder=\"ID, name or EUI\" value=\"{}\">\n<button>Search</button>\n</form>\n",
        state.unwrap_or_default(),
        refresh.unwrap_or_default(),
        Escaped(&query.text)
    )
}

/// What of all gateways is shown, and how to come back to all of them; nothing where all are.
pub fn selection(query: &Query, window: Window) -> String {
    if query.state.is_none() && query.text.is_empty() {
        return String::new();
    }
    let noun = if window.total == 1 {
        "gateway"
    } else {
        "gateways"
    };
    let state = query.state.map(|state| format!("{} ", state_name(state)));
    let text = match query.text.as_str() {
        "" => String::new(),
        text => format!(" with “{}” in ID, name or EUI", Isolated(text)),
    };
    let all = Query {
        is_refreshing: query.is_refreshing,
        ..Query::default()
    };
    format!(
        "<p class=\"selection\">{} {}{noun}{text}. <a href=\"{}\">Show all gateways</a></p>\n",
        Grouped(window.total as u64),
        state.unwrap_or_default(),
        all.link()
    )
}

/// Links to the pages before and after; nothing where there is one page.
pub fn pager(query: &Query, window: Window) -> String {
    if window.page_count == 1 {
        return String::new();
    }
    let link = |page: usize, words: &str| {
        let exists = (1..=window.page_count).contains(&page) && page != window.page;
        match exists {
            true => format!("<a href=\"{}\">{words}</a>", query.with_page(page).link()),
            false => format!("<span>{words}</span>"),
        }
    };
    format!(
        "<nav class=\"pager\" aria-label=\"Pages\">{} <span>{}–{} of {}</span> {}</nav>\n",
        link(window.page - 1, "Previous"),
        Grouped(window.start() as u64 + 1),
        Grouped(window.end() as u64),
        Grouped(window.total as u64),
        link(window.page + 1, "Next")
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
    fn a_page_that_does_not_exist_is_the_last_one() {
        let window = Window::new(&query("page=9"), 250);
        assert_eq!((window.page, window.page_count), (3, 3));
        assert_eq!((window.start(), window.end()), (200, 250));
        let none = Window::new(&query("page=9"), 0);
        assert_eq!((none.start(), none.end(), none.page_count), (0, 0, 1));
    }

    #[test]
    fn the_pager_keeps_the_rest_of_the_view() {
        let query = query("state=connected&q=a+b&page=2&refresh=0");
        let html = pager(&query, Window::new(&query, 250));
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
        assert_eq!(pager(&query, Window::new(&query, 100)), "");
    }

    #[test]
    fn a_search_text_is_shown_as_text() {
        let query = query("q=%22%3E%3Cscript%3E&state=unknown&refresh=0");
        let html = search(&query) + &selection(&query, Window::new(&query, 1));
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
