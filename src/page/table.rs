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

/// The part of a band's limit above which the alert `TTNGatewayDutyCycleNearLimit` fires, and how
/// old the last downlink may be: the duty cycle is that of an hour, and an old value stays.
const NEAR_LIMIT: f64 = 0.8;
const DUTY_CYCLE_AGE_SECONDS_MAX: i64 = 3_600;

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
    let mut rows: Vec<_> = selected.collect();
    // Stable: what is equal stays sorted by id.
    rows.sort_by_cached_key(|report| rank(report, now));
    rows
}

/// The smallest comes first: by state, then who needs attention, then the newest loss.
fn rank(report: &GatewayReport, now: Timestamp) -> (usize, bool, Reverse<Option<Timestamp>>) {
    let mut states = State::WORST_FIRST.into_iter();
    let place = states.position(|state| state == report.state());
    let (is_fine, lost_at) = match report.stats() {
        Some(stats) if stats.is_connected() => (!needs_attention(stats, now), None),
        Some(stats) => (false, stats.disconnected_at),
        None => (false, None),
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
    let is_full = |band| is_full(band, stats, now);
    is_silent(stats, now) || stats.sub_bands.iter().any(is_full) || is_slow(stats, now)
}

/// Whether a gateway has not been heard for an hour; the start of its connection counts.
fn is_silent(stats: &ConnectionStats, now: Timestamp) -> bool {
    let heard_at = stats.last_seen().max(stats.connected_at);
    heard_at.is_some_and(|at| age_seconds(at, now) >= SILENCE_SECONDS)
}

/// Whether the alert about round trips would fire.
pub fn is_slow(stats: &ConnectionStats, now: Timestamp) -> bool {
    let uplink_at = stats.last_uplink_received_at;
    let message_at = uplink_at.max(stats.last_downlink_received_at);
    let is_long = |times: RoundTripTimes| {
        times.median > SLOW_ROUND_TRIP && times.count >= ROUND_TRIP_SAMPLES_MIN
    };
    message_at.is_some_and(|at| age_seconds(at, now) < ROUND_TRIP_AGE_SECONDS_MAX)
        && stats.round_trip_times.is_some_and(is_long)
}

/// Whether the alert about the duty cycle in this band would fire.
pub fn is_full(band: &SubBand, stats: &ConnectionStats, now: Timestamp) -> bool {
    let downlink_at = stats.last_downlink_received_at;
    let is_old = downlink_at.is_some_and(|at| age_seconds(at, now) > DUTY_CYCLE_AGE_SECONDS_MAX);
    !is_old && load(band).is_some_and(|load| load > NEAR_LIMIT)
}

fn age_seconds(at: Timestamp, now: Timestamp) -> i64 {
    now.seconds.saturating_sub(at.seconds)
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
    let (state, columns) = (report.state().label(), COLUMNS.len());
    let (row, details) = (row(report, now), details(report, hosts, now));
    format!(
        "<tbody class=\"{state}\">\n{row}<tr class=\"more\"><td colspan=\"{columns}\"><details>\
         <summary>Details</summary>\n<dl>\n{details}</dl>\n</details></td></tr>\n</tbody>\n"
    )
}

/// The markup of a cell, and whether it is marked.
type Cell = (String, bool);

/// The cells in the order of the columns. Only a connected gateway has figures.
fn row(report: &GatewayReport, now: Timestamp) -> String {
    let live = report.live_stats();
    let of_live = |cell: fn(&ConnectionStats, Timestamp) -> Option<Cell>| {
        live.and_then(|stats| cell(stats, now)).unwrap_or_default()
    };
    let rate = live.map(|_| per_hour(report.uplinks_per_hour));
    let cells = [
        (state_cell(report, now), false),
        (name_cell(report), false),
        seen_cell(report, now),
        (rate.unwrap_or_default(), false),
        of_live(round_trip_cell),
        of_live(band_cell),
        (cluster_cell(report), false),
    ];
    let cells: String = COLUMNS.into_iter().zip(cells).map(cell).collect();
    format!("<tr class=\"gateway\">{cells}</tr>\n")
}

fn cell(((label, class), (content, is_marked)): ((&str, &str), Cell)) -> String {
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
    let (word, detail) = match &report.outcome {
        Ok(Some(stats)) if stats.is_connected() => ("Connected", since(stats.connected_at)),
        Ok(Some(stats)) => ("Disconnected", since(stats.disconnected_at)),
        Ok(None) => ("Disconnected", "over 48\u{a0}h, or never seen".into()),
        Err(error) => ("Unknown", error.reason.words().to_string()),
    };
    format!("<span class=\"pill\">{word}</span> <small>{detail}</small>")
}

fn name_cell(report: &GatewayReport) -> String {
    let [id, name] = [&report.gateway.gateway_id, &report.gateway.name].map(|s| isolated(s));
    match name.is_empty() {
        true => format!("<b>{id}</b>"),
        false => format!("<b>{name}</b> <small>{id}</small>"),
    }
}

fn seen_cell(report: &GatewayReport, now: Timestamp) -> Cell {
    let seen_at = report.stats().and_then(ConnectionStats::last_seen);
    let seen = seen_at.map(|at| ago(at, now));
    let live = report.live_stats();
    let is_marked = live.is_some_and(|stats| is_silent(stats, now));
    (seen.unwrap_or_default(), is_marked)
}

fn round_trip_cell(stats: &ConnectionStats, now: Timestamp) -> Option<Cell> {
    let is_slow = is_slow(stats, now);
    let mark = if is_slow { " <small>slow</small>" } else { "" };
    Some((took(stats.round_trip_times?.median) + mark, is_slow))
}

fn band_cell(stats: &ConnectionStats, now: Timestamp) -> Option<Cell> {
    let (band, load) = busiest(&stats.sub_bands)?;
    let is_full = is_full(band, stats, now);
    let (figures, edges) = (band_figures(band, is_full), band_edges(band));
    let width = (load * 100.0).clamp(0.0, 100.0);
    let bar = format!(
        "<svg viewBox=\"0 0 100 4\" preserveAspectRatio=\"none\" aria-hidden=\"true\">\
         <rect width=\"{width:.1}\" height=\"4\"/></svg>"
    );
    Some((format!("{figures} <small>{bar}{edges}</small>"), is_full))
}

/// "0.31 % of 1 %", or "0.31 %" where the band has no limit.
pub fn band_figures(band: &SubBand, is_full: bool) -> String {
    let used = percent(band.downlink_utilization);
    if band.downlink_utilization_limit <= 0.0 {
        return used;
    }
    let limit = percent(band.downlink_utilization_limit);
    let mark = if is_full { ", nearly full" } else { "" };
    format!("{used} of {limit}{mark}")
}

fn cluster_cell(report: &GatewayReport) -> String {
    let protocol = report.stats().map_or("", |stats| &stats.protocol);
    let (protocol, cluster) = (isolated(protocol), host(&report.cluster));
    format!("{protocol} <small>{cluster}</small>")
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
        let is_full = |used, last_downlink_received_at| {
            let stats = ConnectionStats {
                last_downlink_received_at,
                ..ConnectionStats::default()
            };
            super::is_full(&band(used, 0.01), &stats, now())
        };
        assert!(!is_full(0.0079, before(60)));
        assert!(is_full(0.0081, before(60)));
        assert!(!is_full(0.008, before(60)));
        assert!(is_full(0.0081, before(3_600)) && is_full(0.0081, None));
        assert!(!is_full(0.0081, before(3_601)));
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
    fn the_marks_have_the_thresholds_of_the_alerts() {
        let rules = include_str!("../assets/alerts.yml");
        let check = |alert: &str, thresholds: &[String]| {
            let (_, rule) = rules.split_once(alert).expect("the alert");
            let rule = rule.split("labels:").next().unwrap_or_default();
            for threshold in thresholds {
                assert!(rule.contains(threshold), "{threshold} in {rule}");
            }
        };
        let slow = [
            format!(") > {}\n", SLOW_ROUND_TRIP.as_secs()),
            format!(" >= {ROUND_TRIP_SAMPLES_MIN}\n"),
            format!(") < {} * 60\n", ROUND_TRIP_AGE_SECONDS_MAX / 60),
        ];
        check("alert: TTNGatewayRoundTripHigh\n", &slow);
        let full = [
            format!(") > {NEAR_LIMIT}\n"),
            format!(") > {DUTY_CYCLE_AGE_SECONDS_MAX}\n"),
        ];
        check("alert: TTNGatewayDutyCycleNearLimit\n", &full);
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
