//! The table of gateways on the status page: which comes first, and what a row says.
//!
//! Worst first, as the person who has to act needs it. Disconnected gateways lead: that is
//! certain, and there is something to do, the newest loss on top. Unknown ones follow: they
//! share a cause that stands above the table, and hundreds of them must not bury the one
//! that is really down. Connected ones come last; among them those that are silent or near
//! their duty cycle, else by id, so that the rows keep their places from refresh to refresh.

use std::cmp::Reverse;
use std::time::Duration;

use crate::model::{ConnectionStats, GatewayReport, RoundTripTimes, State, SubBand, Timestamp};
use crate::things_stack::KnownHosts;

use super::details::details;
use super::query::Query;
use super::text::{ago, band_edges, host, isolated, lasting, per_hour, percent, took};

/// A connected gateway that was not heard for this long is shown first among its peers.
/// Idle ones still send a status every few minutes, but for some Basics Stations.
const SILENCE_SECONDS: i64 = 3_600;

/// The part of a band's limit above which the alert `TTNGatewayDutyCycleNearLimit` fires.
const NEAR_LIMIT: f64 = 0.8;

/// The median above which the alert `TTNGatewayRoundTripHigh` fires, the fewest samples that it
/// takes for one, and how old the last message may be, since old round trips stay.
const SLOW_ROUND_TRIP: Duration = Duration::from_secs(3);
const ROUND_TRIP_SAMPLES_MIN: u64 = 5;
const ROUND_TRIP_AGE_SECONDS_MAX: i64 = 30 * 60;

/// Heading and style class of each column; on a narrow screen the heading labels the value.
const COLUMNS: [(&str, &str); 7] = [
    ("State", "state"),
    ("Gateway", "name"),
    ("Last seen", "seen"),
    ("Uplinks per hour", "number rate"),
    ("Round trip", "number"),
    ("Busiest sub-band", "band"),
    ("Protocol, server", "cluster"),
];

/// The gateways that the query selects, worst first.
pub fn selected<'a>(
    gateways: &'a [GatewayReport],
    query: &Query,
    now: Timestamp,
) -> Vec<&'a GatewayReport> {
    let selected = gateways.iter().filter(|report| query.selects(report));
    let mut rows: Vec<_> = selected.map(|report| (rank(report, now), report)).collect();
    // Stable: what is equal stays sorted by id.
    rows.sort_by_key(|(rank, _)| *rank);
    rows.into_iter().map(|(_, report)| report).collect()
}

/// The smallest comes first: by state, then who needs attention, then the newest loss.
fn rank(report: &GatewayReport, now: Timestamp) -> (usize, bool, Reverse<Option<Timestamp>>) {
    let state = report.state();
    let place = State::WORST_FIRST.iter().position(|other| *other == state);
    let is_fine = report
        .live_stats()
        .is_some_and(|stats| !needs_attention(stats, now));
    let lost_at = match state {
        State::Disconnected => report.stats().and_then(|stats| stats.disconnected_at),
        State::Unknown | State::Connected => None,
    };
    (place.unwrap_or_default(), is_fine, Reverse(lost_at))
}

/// The table of these gateways: a body for each, with its row and one that opens to the rest.
pub fn table(rows: &[&GatewayReport], hosts: &KnownHosts, now: Timestamp) -> String {
    let heading = |(heading, class)| format!("<th scope=\"col\" class=\"{class}\">{heading}</th>");
    let headings: String = COLUMNS.into_iter().map(heading).collect();
    let bodies: String = rows.iter().map(|report| body(report, hosts, now)).collect();
    format!(
        "<table>\n<caption>Disconnected gateways come first, then unknown ones. A round trip is \
         the median of the last 30 minutes.</caption>\n<thead><tr>{headings}</tr></thead>\n\
         {bodies}</table>\n"
    )
}

fn needs_attention(stats: &ConnectionStats, now: Timestamp) -> bool {
    is_silent(stats, now) || stats.sub_bands.iter().any(is_full) || is_slow(stats, now)
}

/// Whether a gateway has not been heard for an hour; the start of its connection counts.
fn is_silent(stats: &ConnectionStats, now: Timestamp) -> bool {
    let heard = stats.last_seen().max(stats.connected_at);
    heard.is_some_and(|at| now.seconds.saturating_sub(at.seconds) >= SILENCE_SECONDS)
}

/// Whether the alert about round trips would fire.
pub fn is_slow(stats: &ConnectionStats, now: Timestamp) -> bool {
    let uplink_at = stats.last_uplink_received_at;
    let last_message = uplink_at.max(stats.last_downlink_received_at);
    let is_recent =
        |at: Timestamp| now.seconds.saturating_sub(at.seconds) < ROUND_TRIP_AGE_SECONDS_MAX;
    let is_long = |times: RoundTripTimes| {
        times.median > SLOW_ROUND_TRIP && times.count >= ROUND_TRIP_SAMPLES_MIN
    };
    last_message.is_some_and(is_recent) && stats.round_trip_times.is_some_and(is_long)
}

/// Whether a band is near its limit.
pub fn is_full(band: &SubBand) -> bool {
    load(band).is_some_and(|load| load > NEAR_LIMIT)
}

/// The used part of what the band allows; nothing where it has no limit.
fn load(band: &SubBand) -> Option<f64> {
    let load = band.downlink_utilization / band.downlink_utilization_limit;
    (band.downlink_utilization_limit > 0.0 && !load.is_nan()).then_some(load)
}

/// The band that is nearest to its limit, and how near.
fn busiest(bands: &[SubBand]) -> Option<(&SubBand, f64)> {
    let limited = bands.iter().filter_map(|band| Some((band, load(band)?)));
    limited.max_by(|(_, a), (_, b)| a.total_cmp(b))
}

fn body(report: &GatewayReport, hosts: &KnownHosts, now: Timestamp) -> String {
    format!(
        "<tbody class=\"{}\">\n{}<tr class=\"more\"><td colspan=\"{}\"><details>\
         <summary>Details</summary>\n<dl>\n{}</dl>\n</details></td></tr>\n</tbody>\n",
        report.state().label(),
        row(report, now),
        COLUMNS.len(),
        details(report, hosts, now)
    )
}

/// The cells in the order of the columns, each with whether it is marked.
fn row(report: &GatewayReport, now: Timestamp) -> String {
    let live = report.live_stats();
    let seen = report.stats().and_then(ConnectionStats::last_seen);
    let is_slow = live.is_some_and(|stats| is_slow(stats, now));
    let busiest = live.and_then(|stats| busiest(&stats.sub_bands));
    let cells = [
        (state_cell(report, now), false),
        (name_cell(report), false),
        (
            seen.map(|at| ago(at, now)).unwrap_or_default(),
            live.is_some_and(|stats| is_silent(stats, now)),
        ),
        (rate_cell(report), false),
        (round_trip_cell(live, is_slow), is_slow),
        (
            busiest.map(band_cell).unwrap_or_default(),
            busiest.is_some_and(|(band, _)| is_full(band)),
        ),
        (cluster_cell(report), false),
    ];
    let cells: String = COLUMNS.into_iter().zip(cells).map(cell).collect();
    format!("<tr class=\"gateway\">{cells}</tr>\n")
}

fn cell(((label, class), (content, is_marked)): ((&str, &str), (String, bool))) -> String {
    // The name is what a screen reader says before each value of the row.
    let (open, close) = match class {
        "name" => ("th scope=\"row\"", "th"),
        _ => ("td", "td"),
    };
    let mark = if is_marked { " warn" } else { "" };
    format!("<{open} class=\"{class}{mark}\" data-label=\"{label}\">{content}</{close}>")
}

fn state_cell(report: &GatewayReport, now: Timestamp) -> String {
    let since = |at: Option<Timestamp>| at.map(|at| lasting(at, now)).unwrap_or_default();
    let (word, detail) = match (&report.outcome, report.state()) {
        (Ok(Some(stats)), State::Connected) => ("Connected", since(stats.connected_at)),
        (Ok(Some(stats)), _) => ("Disconnected", since(stats.disconnected_at)),
        (Ok(None), _) => ("Disconnected", "over 48\u{a0}h, or never seen".into()),
        (Err(error), _) => ("Unknown", error.reason.words().to_string()),
    };
    format!("<span class=\"pill\">{word}</span> <small>{detail}</small>")
}

fn name_cell(report: &GatewayReport) -> String {
    let (id, name) = (&report.gateway.gateway_id, &report.gateway.name);
    match isolated(name) {
        none if none.is_empty() => format!("<b>{}</b>", isolated(id)),
        name => format!("<b>{name}</b> <small>{}</small>", isolated(id)),
    }
}

/// Only a connected gateway has a rate; "–" where there is none yet.
fn rate_cell(report: &GatewayReport) -> String {
    match report.state() {
        State::Connected => per_hour(report.uplinks_per_hour),
        State::Disconnected | State::Unknown => String::new(),
    }
}

fn round_trip_cell(live: Option<&ConnectionStats>, is_slow: bool) -> String {
    let mark = if is_slow { " <small>slow</small>" } else { "" };
    let times = live.and_then(|stats| stats.round_trip_times);
    times
        .map(|times| took(times.median) + mark)
        .unwrap_or_default()
}

fn band_cell((band, load): (&SubBand, f64)) -> String {
    let width = (load * 100.0).clamp(0.0, 100.0);
    format!(
        "{} <small><svg viewBox=\"0 0 100 4\" preserveAspectRatio=\"none\" \
         aria-hidden=\"true\"><rect width=\"{width:.1}\" height=\"4\"/></svg>{}</small>",
        band_figures(band),
        band_edges(band)
    )
}

/// "0.31 % of 1 %", or "0.31 %" where the band has no limit.
pub fn band_figures(band: &SubBand) -> String {
    let used = percent(band.downlink_utilization);
    if band.downlink_utilization_limit <= 0.0 {
        return used;
    }
    let limit = percent(band.downlink_utilization_limit);
    let mark = if is_full(band) { ", nearly full" } else { "" };
    format!("{used} of {limit}{mark}")
}

fn cluster_cell(report: &GatewayReport) -> String {
    let protocol = report.stats().map(|stats| isolated(&stats.protocol));
    let protocol = protocol.unwrap_or_default();
    format!("{protocol} <small>{}</small>", host(&report.cluster))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::tests::hosts;
    use super::*;
    use crate::error::{FetchError, Reason};
    use crate::model::{Gateway, Outcome};

    const NOW_SECONDS: i64 = 1_795_367_639;

    fn now() -> Timestamp {
        Timestamp {
            seconds: NOW_SECONDS,
            nanoseconds: 0,
        }
    }

    fn before(seconds: i64) -> Option<Timestamp> {
        Some(Timestamp {
            seconds: NOW_SECONDS - seconds,
            nanoseconds: 0,
        })
    }

    fn report(id: &str, outcome: Outcome) -> GatewayReport {
        let gateway = Gateway {
            gateway_id: id.into(),
            name: format!("Name of {id}"),
            ..Gateway::default()
        };
        GatewayReport {
            uplinks_per_hour: None,
            gateway: Arc::new(gateway),
            cluster: "eu1.cloud.thethings.network".into(),
            outcome,
        }
    }

    fn connected(id: &str, last_seen: i64, sub_bands: Vec<SubBand>) -> GatewayReport {
        let stats = ConnectionStats {
            connected_at: before(86_400 * 3),
            last_uplink_received_at: before(last_seen),
            uplink_count: 9_043,
            sub_bands,
            ..ConnectionStats::default()
        };
        report(id, Ok(Some(Arc::new(stats))))
    }

    fn disconnected(id: &str, since: i64) -> GatewayReport {
        let stats = ConnectionStats {
            disconnected_at: before(since),
            ..ConnectionStats::default()
        };
        report(id, Ok(Some(Arc::new(stats))))
    }

    fn unknown(id: &str, reason: Reason) -> GatewayReport {
        report(id, Err(Arc::new(FetchError::new(reason, "a test"))))
    }

    fn band(downlink_utilization: f64, downlink_utilization_limit: f64) -> SubBand {
        SubBand {
            min_frequency: 868_000_000,
            max_frequency: 868_600_000,
            downlink_utilization,
            downlink_utilization_limit,
        }
    }

    #[track_caller]
    fn check(report: GatewayReport, expected: &[&str]) {
        let html = row(&report, now()).replace('\u{a0}', " ");
        for part in expected {
            assert!(html.contains(part), "{part} is missing in {html}");
        }
    }

    #[test]
    fn the_worst_comes_first_and_equals_stay_sorted_by_id() {
        let gateways = [
            connected("a-fine", 9, vec![]),
            unknown("b-unknown", Reason::Timeout),
            report("c-never", Ok(None)),
            connected("d-busy", 9, vec![band(0.009, 0.01)]),
            disconnected("e-left-long-ago", 9_000),
            connected("f-silent", 7_200, vec![]),
            disconnected("g-left-now", 60),
            connected("h-fine", 9, vec![]),
        ];
        let rows = selected(&gateways, &Query::default(), now());
        let ids: Vec<_> = rows.iter().map(|g| &g.gateway.gateway_id).collect();
        let expected = [
            "g-left-now",
            "e-left-long-ago",
            "c-never",
            "b-unknown",
            "d-busy",
            "f-silent",
            "a-fine",
            "h-fine",
        ];
        assert_eq!(ids, expected);
    }

    #[test]
    fn a_row_says_its_state_in_words() {
        check(
            connected("a", 9, vec![]),
            &[">Connected<", ">for 3 d<", "per hour\">–<"],
        );
        check(disconnected("b", 7_200), &[">Disconnected<", ">for 2 h<"]);
        check(
            report("c", Ok(None)),
            &["Disconnected", "over 48 h, or never seen"],
        );
        for reason in Reason::ALL {
            check(unknown("d", reason), &[">Unknown<", reason.words()]);
        }
    }

    #[test]
    fn hostile_text_stays_text_in_every_cell_that_shows_it() {
        let hostile = "\"><script>alert(1)</script>";
        let stats = ConnectionStats {
            connected_at: before(9),
            protocol: hostile.into(),
            ..ConnectionStats::default()
        };
        let mut report = report(hostile, Ok(Some(Arc::new(stats))));
        report.cluster = hostile.into();
        let html = body(&report, &hosts(), now());
        assert!(!html.contains("<script"), "{html}");
        assert_eq!(html.matches("&lt;script&gt;alert(1)").count(), 5, "{html}");
    }

    #[test]
    fn a_gateway_without_a_name_is_called_by_its_id() {
        let mut nameless = unknown("abc", Reason::Dns);
        Arc::make_mut(&mut nameless.gateway).name = " ".into();
        check(nameless, &["<b><bdi>abc</bdi></b></th>"]);
    }

    #[test]
    fn the_busiest_band_is_the_one_nearest_to_its_limit() {
        let bands = vec![band(0.01, 0.1), band(0.004, 0.01), band(0.0, 0.0)];
        check(
            connected("a", 9, bands),
            &[
                "0.4 % of 1 % <small><svg",
                "width=\"40.0\"",
                "868–868.6 MHz",
            ],
        );
        let full = connected("a", 9, vec![band(0.5, 0.1)]);
        check(
            full,
            &["width=\"100.0\"", "band warn", "50 % of 10 %, nearly full"],
        );
        assert_eq!(busiest(&[band(0.0, 0.0), band(0.5, 0.0)]), None);
    }

    #[test]
    fn a_band_and_a_round_trip_are_marked_where_the_alert_fires() {
        assert!(!is_full(&band(0.0079, 0.01)));
        assert!(is_full(&band(0.0081, 0.01)));
        assert!(!is_full(&band(0.008, 0.01)));
        let is_slow = |milliseconds, count, last_downlink_received_at| {
            let stats = ConnectionStats {
                round_trip_times: Some(RoundTripTimes {
                    median: Duration::from_millis(milliseconds),
                    count,
                    ..RoundTripTimes::default()
                }),
                last_uplink_received_at: before(7_200),
                last_downlink_received_at,
                ..ConnectionStats::default()
            };
            super::is_slow(&stats, now())
        };
        assert!(!is_slow(3_000, 20, before(60)));
        assert!(!is_slow(9_000, 4, before(60)));
        assert!(is_slow(3_001, 5, before(60)));
        assert!(is_slow(3_001, 5, before(30 * 60 - 1)));
        assert!(!is_slow(3_001, 5, before(30 * 60)));
        assert!(!is_slow(3_001, 5, None));
    }

    #[test]
    fn a_gateway_that_left_is_not_marked_for_what_it_did_before() {
        let mut left = connected("a", 9, vec![band(0.009, 0.01)]);
        if let Ok(Some(stats)) = &mut left.outcome {
            Arc::make_mut(stats).disconnected_at = before(0);
        }
        let html = row(&left, now());
        assert!(!html.contains("warn") && !html.contains("<svg"), "{html}");
    }
}
