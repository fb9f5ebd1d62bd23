//! The status page: one snapshot as HTML for a person, whole in one answer.
//!
//! No script, no request for anything else, nothing that is not escaped; the style stands in
//! the page and its hash in the Content-Security-Policy.

mod api;
mod attention;
mod query;
mod table;
mod text;

#[cfg(test)]
#[path = "../../tests/unit/page_properties.rs"]
mod properties;

use std::time::SystemTime;

use crate::assets;
use crate::model::{Counters, GatewayReport, Snapshot, State, Timestamp};
use crate::things_stack::KnownHosts;

use api::{facts, problems};
use attention::selected;
use query::{Query, ROWS_MAX, pager, search, selection, totals};
use table::table;
use text::{date_and_time, grouped, timestamp};

/// The headers of an answer with the page.
pub const HEADERS: &[(&str, &str)] = &[
    ("Content-Type", "text/html; charset=utf-8"),
    ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
    ("X-Content-Type-Options", "nosniff"),
    // A gateway's console learns no address of this network.
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
];

/// Nothing may load or run but this page's own style and the pictures inside it; its form
/// comes back here alone. The hash is that of assets/page.css; a test says the new one when
/// that file changes.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; \
     style-src 'sha256-UBMeLMTlUCETB1rioPuESet++a/7PK1drdlr7rmlMJg='; \
     img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// The server stores what it knows of a gateway about every 30 s.
const REFRESH_SECONDS: u32 = 30;

/// The page for `snapshot`, with ages as of `now`. `hosts` says where each gateway's console
/// is; `query` is what stands in the address between `?` and `#`.
pub fn render(
    snapshot: &Snapshot,
    counters: &Counters,
    hosts: &KnownHosts,
    query: &str,
    now: SystemTime,
) -> String {
    let (query, now) = (Query::parse(query), timestamp(now));
    let worst = snapshot.gateways.iter().map(GatewayReport::state).min();
    let (totals, gateways) = match snapshot.gateways.is_empty() {
        true => (String::new(), no_gateways(snapshot)),
        false => (totals(snapshot, &query), view(snapshot, hosts, &query, now)),
    };
    format!(
        include_str!("../assets/page.html"),
        name = env!("CARGO_PKG_NAME"),
        version = env!("CARGO_PKG_VERSION"),
        style = assets::style(),
        verdict = verdict(snapshot, worst),
        icon = icon(worst),
        state = worst.map_or("", State::label),
        time = date_and_time(now).1,
        refresh = refresh(&query),
        refreshing = refreshing(&query),
        problems = problems(snapshot, now),
        totals = totals,
        gateways = gateways,
        facts = facts(snapshot, counters, now),
    )
}

/// The whole page in one sentence: its heading and the title of its tab.
fn verdict(snapshot: &Snapshot, worst: Option<State>) -> String {
    let Some(worst) = worst else {
        return match snapshot.list_error {
            Some(_) => "The gateways are not known".to_string(),
            None => "No gateways".to_string(),
        };
    };
    let (count, all) = (snapshot.count(worst), snapshot.gateways.len());
    let [some, total] = [count, all].map(|count| grouped(count as u64));
    let state = worst.label();
    match count {
        1 if all == 1 => format!("The gateway is {state}"),
        1 => format!("1 of {total} gateways is {state}"),
        _ if count == all => format!("All {total} gateways are {state}"),
        _ => format!("{some} of {total} gateways are {state}"),
    }
}

/// The worst state's shape and colour, for the icon of the tab.
fn icon(worst: Option<State>) -> &'static str {
    match worst {
        Some(State::Connected) => "circle cx='8' cy='8' r='6' fill='%231a7f42'",
        Some(State::Disconnected) => "path d='M8 0l8 8-8 8-8-8z' fill='%23c92a2a'",
        Some(State::Unknown) | None => {
            "circle cx='8' cy='8' r='5' fill='none' stroke='%23a96500' stroke-width='4'"
        }
    }
}

fn refresh(query: &Query) -> String {
    if query.is_paused {
        return String::new();
    }
    // With its address: a browser does not run a refresh without one after a click on `#…`.
    let link = query.link();
    format!("<meta http-equiv=\"refresh\" content=\"{REFRESH_SECONDS};url={link}\">\n")
}

fn refreshing(query: &Query) -> String {
    let link = query.link_with(|query| query.is_paused = !query.is_paused);
    let every = format!("every {REFRESH_SECONDS}\u{a0}s");
    match query.is_paused {
        true => format!("This page does not refresh. <a href=\"{link}\">Refresh {every}</a>"),
        false => format!("This page refreshes {every}. <a href=\"{link}\">Stop refreshing</a>"),
    }
}

/// The part of the gateways that is asked for. A page that does not exist is the last one.
fn view(snapshot: &Snapshot, hosts: &KnownHosts, query: &Query, now: Timestamp) -> String {
    let rows = selected(&snapshot.gateways, query, now);
    let pages: Vec<_> = rows.chunks(ROWS_MAX).collect();
    let page = query.page.min(pages.len().saturating_sub(1));
    let table = match pages.get(page) {
        Some(rows) => table(rows, hosts, now),
        None => "<div class=\"empty\"><p>No gateway is like that.</p></div>\n".to_string(),
    };
    let pager = pager(query, page, rows.len());
    search(query) + &selection(query, rows.len()) + &pager + &table + &pager
}

/// Why there may be nothing to show.
fn no_gateways(snapshot: &Snapshot) -> String {
    let reason = match snapshot.list_error {
        Some(_) => {
            "<p>The gateways appear here once their list can be read. The exporter keeps \
             trying.</p>"
        }
        None => {
            "\n<p>The API answered, but it lists no gateway for this API key.</p>\n<ul>\n\
             <li>A key lists the gateways of its user or organization: check in the console \
             that this is a collaborator of the gateways.</li>\n\
             <li>What <code>--exclude</code> names is left out.</li>\n\
             <li>If no gateway is registered yet, register one in the console; it appears here \
             by itself.</li>\n</ul>\n"
        }
    };
    format!("<div class=\"empty\">{reason}</div>\n")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, UNIX_EPOCH};

    use base64::prelude::{BASE64_STANDARD, Engine};
    use ring::digest::{SHA256, digest};

    use super::*;
    use crate::error::{FetchError, Reason};
    use crate::examples;
    use crate::model::{ConnectionStats, Outcome};
    use crate::things_stack::BaseUrl;

    pub fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_795_367_639)
    }

    pub fn hosts() -> KnownHosts {
        let server = BaseUrl::parse("https://eu1.cloud.thethings.network");
        KnownHosts::new(server.expect("the test's own URL"), Vec::new())
    }

    pub fn collection(outcomes: Vec<Outcome>) -> Snapshot {
        let report = |(number, outcome)| GatewayReport {
            cluster: "eu1.cloud.thethings.network".into(),
            ..examples::report(&format!("gateway-{number:04}"), outcome)
        };
        Snapshot {
            collected: Some((now(), Duration::from_millis(212))),
            ..examples::snapshot(outcomes.into_iter().enumerate().map(report).collect())
        }
    }

    pub fn connected() -> Outcome {
        let stats = ConnectionStats {
            connected_at: Some(timestamp(now() - Duration::from_secs(300))),
            last_uplink_received_at: Some(timestamp(now())),
            uplink_count: Some(1_000),
            ..ConnectionStats::default()
        };
        Ok(Some(Arc::new(stats)))
    }

    pub fn unknown(reason: Reason) -> Outcome {
        Err(Arc::new(FetchError::new(reason, "<the context>")))
    }

    #[track_caller]
    pub fn check(collection: &Snapshot, counters: &Counters, expected: &[&str]) {
        let html = render(collection, counters, &hosts(), "", now()).replace('\u{a0}', " ");
        for part in expected {
            assert!(html.contains(part), "{part} is missing in {html}");
        }
    }

    #[test]
    fn the_policy_allows_exactly_this_style() {
        let hash = BASE64_STANDARD.encode(digest(&SHA256, assets::style().as_bytes()));
        let allowed = format!("style-src 'sha256-{hash}';");
        assert!(CONTENT_SECURITY_POLICY.contains(&allowed), "it is {hash}");
    }

    #[test]
    fn nothing_on_the_page_runs_or_loads_anything() {
        let collection = collection(vec![connected(), Ok(None), unknown(Reason::Timeout)]);
        let html = render(&collection, &Counters::default(), &hosts(), "", now());
        for forbidden in [
            "<script", "<iframe", "<img", " src=", " style=", "@import", "url(",
        ] {
            assert!(!html.contains(forbidden), "{forbidden}");
        }
    }

    #[test]
    fn the_heading_tells_the_worst_first() {
        let check = |outcomes, heading| {
            let title = format!("<title>{heading} – ");
            super::tests::check(&collection(outcomes), &Counters::default(), &[&title]);
        };
        check(vec![connected()], "The gateway is connected");
        check(
            vec![connected(), connected()],
            "All 2 gateways are connected",
        );
        check(
            vec![connected(), unknown(Reason::Dns)],
            "1 of 2 gateways is unknown",
        );
        check(
            vec![Ok(None), unknown(Reason::Dns), Ok(None)],
            "2 of 3 gateways are disconnected",
        );
    }

    #[test]
    fn no_gateways_is_explained() {
        let mut none = collection(vec![]);
        check(
            &none,
            &Counters::default(),
            &[
                "<h1>No gateways</h1>",
                "<code>--exclude</code>",
                "collaborator of the gateways",
            ],
        );
        none.list_error = Some(Arc::new(FetchError::new(Reason::Unauthorized, "HTTP 401")));
        check(
            &none,
            &Counters::default(),
            &[
                "<h1>The gateways are not known</h1>",
                "The list of gateways is missing because the API does not accept the API key.",
                "Make a new one in the console",
                "HTTP 401",
                "once their list can be read",
            ],
        );
    }

    #[test]
    fn five_hundred_gateways_are_five_pages_with_the_counts_of_all() {
        let many = collection((0..500).map(|_| connected()).collect());
        let page = |query| render(&many, &Counters::default(), &hosts(), query, now());
        let html = page("page=2");
        assert!(html.len() < 500_000, "{} bytes", html.len());
        assert_eq!(html.matches("<tr class=\"gateway\">").count(), 100);
        assert!(html.contains("<b>500</b> <span>connected</span>"));
        assert!(html.contains("101–200 of 500"));
        let found = page("q=GATEWAY-0499");
        assert_eq!(found.matches("<tr class=\"gateway\">").count(), 1);
        assert!(found.contains("<b>500</b> <span>connected</span>"));
        assert!(page("q=none").contains("No gateway is like that."));
        assert!(page("page=99").contains("401–500 of 500"));
        assert!(page("page=0").contains("1–100 of 500"));
    }

    #[test]
    fn a_refresh_keeps_the_view_and_can_be_stopped() {
        let one = collection(vec![connected()]);
        let page = |query| render(&one, &Counters::default(), &hosts(), query, now());
        let html = page("state=connected&page=9");
        let view = "/?state=connected&amp;page=9";
        assert!(
            html.contains(&format!("content=\"30;url={view}\">")),
            "{html}"
        );
        assert!(
            html.contains(&format!("\"{view}&amp;refresh=0\">Stop")),
            "{html}"
        );
        let html = page("state=connected&refresh=0");
        assert!(!html.contains("http-equiv"), "{html}");
        assert!(
            html.contains("\"/?state=connected\">Refresh every"),
            "{html}"
        );
    }

    /// Reports as the table and its order need them, at the moment of [`rows::now`].
    pub mod rows {
        use std::sync::Arc;

        use crate::error::{FetchError, Reason};
        use crate::model::{ConnectionStats, Gateway, GatewayReport, Outcome, SubBand, Timestamp};

        const NOW_SECONDS: i64 = 1_795_367_639;

        pub fn now() -> Timestamp {
            Timestamp {
                seconds: NOW_SECONDS,
                nanoseconds: 0,
            }
        }

        pub fn before(seconds: i64) -> Option<Timestamp> {
            Some(Timestamp {
                seconds: NOW_SECONDS - seconds,
                nanoseconds: 0,
            })
        }

        pub fn report(id: &str, outcome: Outcome) -> GatewayReport {
            let gateway = Gateway {
                gateway_id: id.into(),
                name: format!("Name of {id}"),
                ..Gateway::default()
            };
            GatewayReport {
                gateway: Arc::new(gateway),
                cluster: "eu1.cloud.thethings.network".into(),
                ..crate::examples::report(id, outcome)
            }
        }

        pub fn connected(id: &str, last_seen: i64, sub_bands: Vec<SubBand>) -> GatewayReport {
            let stats = ConnectionStats {
                connected_at: before(86_400 * 3),
                last_uplink_received_at: before(last_seen),
                uplink_count: Some(9_043),
                sub_bands,
                ..ConnectionStats::default()
            };
            report(id, Ok(Some(Arc::new(stats))))
        }

        pub fn disconnected(id: &str, since: i64) -> GatewayReport {
            let stats = ConnectionStats {
                disconnected_at: before(since),
                ..ConnectionStats::default()
            };
            report(id, Ok(Some(Arc::new(stats))))
        }

        pub fn unknown(id: &str, reason: Reason) -> GatewayReport {
            report(id, Err(Arc::new(FetchError::new(reason, "a test"))))
        }

        pub fn band(downlink_utilization: f64, downlink_utilization_limit: f64) -> SubBand {
            SubBand {
                min_frequency: 868_000_000,
                max_frequency: 868_600_000,
                downlink_utilization,
                downlink_utilization_limit,
            }
        }
    }
}
