//! The table of gateways on the status page: which comes first, and what a row says.
//!
//! Worst first, as the person who has to act needs it. Disconnected gateways lead: that is
//! certain, and there is something to do, the newest loss on top. Unknown ones follow: they
//! share a cause that stands above the table, and hundreds of them must not bury the one
//! that is really down. Connected ones come last; among them those that are silent or near
//! their duty cycle, else by id, so that the rows keep their places from refresh to refresh.

use std::cmp::Reverse;
use std::time::{Duration, SystemTime};

use crate::model::{ConnectionStats, GatewayReport, RoundTripTimes, State, SubBand, Timestamp};

use super::details::details;
use super::query::Query;
use super::state_name;
use super::text::{Band, Host, Isolated, PerHour, Percent, Tense, Took, When, unix_seconds};

/// A connected gateway that was not heard for this long is shown first among its peers.
/// Idle ones still send a status every few minutes, but for some Basics Stations.
const SILENCE_SECONDS: i64 = 3_600;

/// The part of a band's limit from which the alert `TTNGatewayDutyCycleNearLimit` fires.
const NEAR_LIMIT: f64 = 0.8;

/// The median from which the alert `TTNGatewayRoundTripHigh` fires, and the fewest samples that
/// it takes for one.
const SLOW_ROUND_TRIP: Duration = Duration::from_secs(3);
const ROUND_TRIP_SAMPLES_MIN: u64 = 5;

/// The order of the states, worst first.
pub const WORST_FIRST: [State; 3] = [State::Disconnected, State::Unknown, State::Connected];

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
    now: SystemTime,
) -> Vec<&'a GatewayReport> {
    let text = query.lower_text();
    let rows = gateways
        .iter()
        .filter(|report| query.selects(report, &text));
    let mut rows: Vec<_> = rows.map(|report| (rank(report, now), report)).collect();
    // Stable: what is equal stays sorted by id.
    rows.sort_by_key(|(rank, _)| *rank);
    rows.into_iter().map(|(_, report)| report).collect()
}

/// The smallest comes first: by state, then who needs attention, then the newest loss.
fn rank(report: &GatewayReport, now: SystemTime) -> (u8, bool, Reverse<Option<Timestamp>>) {
    match (report.state(), report.stats()) {
        (State::Disconnected, stats) => (0, false, Reverse(stats.and_then(|s| s.disconnected_at))),
        (State::Unknown, _) => (1, false, Reverse(None)),
        (State::Connected, stats) => {
            let is_fine = !stats.is_some_and(|stats| needs_attention(stats, now));
            (2, is_fine, Reverse(None))
        }
    }
}

/// The table of these gateways: a body for each, with its row and one that opens to the rest.
pub fn table(rows: &[&GatewayReport], now: SystemTime) -> String {
    let mut html = String::with_capacity(2_000 + 4_000 * rows.len());
    html.push_str(
        "<table>\n<caption>Disconnected gateways come first, then unknown ones. A round trip is \
         the median of the last 30 minutes.</caption>\n<thead><tr>",
    );
    for (heading, class) in COLUMNS {
        html.push_str(&format!(
            "<th scope=\"col\" class=\"{class}\">{heading}</th>"
        ));
    }
    html.push_str("</tr></thead>\n");
    rows.iter()
        .for_each(|report| html.push_str(&body(report, now)));
    html.push_str("</table>\n");
    html
}

fn needs_attention(stats: &ConnectionStats, now: SystemTime) -> bool {
    is_silent(stats, now)
        || stats.sub_bands.iter().any(is_full)
        || stats.round_trip_times.is_some_and(is_slow)
}

/// Whether a gateway has not been heard for an hour; the start of its connection counts.
fn is_silent(stats: &ConnectionStats, now: SystemTime) -> bool {
    let heard = stats.last_seen().max(stats.connected_at);
    heard.is_some_and(|at| unix_seconds(now).saturating_sub(at.seconds) >= SILENCE_SECONDS)
}

fn is_slow(times: RoundTripTimes) -> bool {
    times.median >= SLOW_ROUND_TRIP && times.count >= ROUND_TRIP_SAMPLES_MIN
}

/// Whether a band is near its limit.
pub fn is_full(band: &SubBand) -> bool {
    load(band).is_some_and(|load| load >= NEAR_LIMIT)
}

/// The used part of what the band allows; nothing where it has no limit.
fn load(band: &SubBand) -> Option<f64> {
    let load = band.downlink_utilization / band.downlink_utilization_limit;
    (band.downlink_utilization_limit > 0.0 && !load.is_nan()).then_some(load)
}

/// The band that is nearest to its limit, and how near.
fn busiest(bands: &[SubBand]) -> Option<(SubBand, f64)> {
    let limited = bands.iter().filter_map(|band| Some((*band, load(band)?)));
    limited.max_by(|(_, a), (_, b)| a.total_cmp(b))
}

fn body(report: &GatewayReport, now: SystemTime) -> String {
    let columns = COLUMNS.len();
    format!(
        "<tbody class=\"{}\">\n{}<tr class=\"more\"><td colspan=\"{columns}\"><details>\
         <summary>Details</summary>\n<dl>\n{}</dl>\n</details></td></tr>\n</tbody>\n",
        state_name(report.state()),
        row(report, now),
        details(report, now)
    )
}

fn row(report: &GatewayReport, now: SystemTime) -> String {
    let stats = report.stats();
    // What the server still says of a gateway that left is not about now.
    let live = stats.filter(|_| report.state() == State::Connected);
    let warn = |it: bool| if it { " warn" } else { "" };
    let silent = live.is_some_and(|s| is_silent(s, now));
    let times = live.and_then(|s| s.round_trip_times);
    let band = live.and_then(|s| busiest(&s.sub_bands));
    let cells = [
        (state_cell(report, now), ""),
        (name_cell(report), ""),
        (seen_cell(stats, now), warn(silent)),
        (rate_cell(report), ""),
        (
            times.map(round_trip_cell).unwrap_or_default(),
            warn(times.is_some_and(is_slow)),
        ),
        (
            band.map(band_cell).unwrap_or_default(),
            warn(band.is_some_and(|(band, _)| is_full(&band))),
        ),
        (cluster_cell(report), ""),
    ];
    let mut html = "<tr class=\"gateway\">".to_string();
    for ((label, class), (content, warn)) in COLUMNS.into_iter().zip(cells) {
        // The name is what a screen reader says before each value of the row.
        let (open, close) = match class {
            "name" => ("th scope=\"row\"", "th"),
            _ => ("td", "td"),
        };
        html.push_str(&format!(
            "<{open} class=\"{class}{warn}\" data-label=\"{label}\">{content}</{close}>"
        ));
    }
    html.push_str("</tr>\n");
    html
}

fn state_cell(report: &GatewayReport, now: SystemTime) -> String {
    let lasting = |at: Option<Timestamp>| {
        let tense = Tense::Lasting;
        at.map(|at| When { at, now, tense }.to_string())
    };
    let (word, detail) = match (&report.outcome, report.state()) {
        (Ok(Some(stats)), State::Connected) => ("Connected", lasting(stats.connected_at)),
        (Ok(Some(stats)), _) => ("Disconnected", lasting(stats.disconnected_at)),
        (Ok(None), _) => ("Disconnected", Some("over 48\u{a0}h, or never seen".into())),
        (Err(error), _) => ("Unknown", Some(error.reason.words().to_string())),
    };
    format!(
        "<span class=\"pill\">{word}</span> <small>{}</small>",
        detail.unwrap_or_default()
    )
}

fn name_cell(report: &GatewayReport) -> String {
    let (id, name) = (&report.gateway.gateway_id, &report.gateway.name);
    if name.trim().is_empty() {
        return format!("<b>{}</b>", Isolated(id));
    }
    format!("<b>{}</b> <small>{}</small>", Isolated(name), Isolated(id))
}

fn seen_cell(stats: Option<&ConnectionStats>, now: SystemTime) -> String {
    let tense = Tense::Event;
    let seen = stats.and_then(ConnectionStats::last_seen);
    seen.map(|at| When { at, now, tense }.to_string())
        .unwrap_or_default()
}

/// Only a connected gateway has a rate; "–" where there is none yet.
fn rate_cell(report: &GatewayReport) -> String {
    match report.state() {
        State::Connected => PerHour(report.uplinks_per_hour).to_string(),
        _ => String::new(),
    }
}

fn round_trip_cell(times: RoundTripTimes) -> String {
    match is_slow(times) {
        true => format!("{} <small>slow</small>", Took(times.median)),
        false => Took(times.median).to_string(),
    }
}

fn band_cell((band, load): (SubBand, f64)) -> String {
    let width = (load * 100.0).clamp(0.0, 100.0);
    format!(
        "{} <small><svg viewBox=\"0 0 100 4\" preserveAspectRatio=\"none\" \
         aria-hidden=\"true\"><rect width=\"{width:.1}\" height=\"4\"/></svg>{}</small>",
        band_figures(&band),
        Band(band)
    )
}

/// "0.31 % of 1 %"
pub fn band_figures(band: &SubBand) -> String {
    let (used, limit) = (band.downlink_utilization, band.downlink_utilization_limit);
    let mark = if is_full(band) { ", nearly full" } else { "" };
    format!("{} of {}{mark}", Percent(used), Percent(limit))
}

fn cluster_cell(report: &GatewayReport) -> String {
    let cluster = Host(&report.cluster);
    match report.stats().map(|s| s.protocol.as_str()) {
        None | Some("") => format!("<small>{cluster}</small>"),
        Some(protocol) => format!("{} <small>{cluster}</small>", Isolated(protocol)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::error::{FetchError, Reason};
    use crate::model::{Gateway, Outcome};

    const NOW_SECONDS: i64 = 1_795_367_639;

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(NOW_SECONDS.unsigned_abs())
    }

    fn ago(seconds: i64) -> Option<Timestamp> {
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
            connected_at: ago(86_400 * 3),
            last_uplink_received_at: ago(last_seen),
            uplink_count: 9_043,
            sub_bands,
            ..ConnectionStats::default()
        };
        report(id, Ok(Some(Arc::new(stats))))
    }

    fn disconnected(id: &str, since: i64) -> GatewayReport {
        let stats = ConnectionStats {
            disconnected_at: ago(since),
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
            connected_at: ago(9),
            protocol: hostile.into(),
            ..ConnectionStats::default()
        };
        let mut report = report(hostile, Ok(Some(Arc::new(stats))));
        report.cluster = hostile.into();
        let html = body(&report, now());
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
        let times = |seconds, count| RoundTripTimes {
            median: Duration::from_millis(seconds),
            count,
            ..RoundTripTimes::default()
        };
        assert!(!is_slow(times(2_999, 20)));
        assert!(!is_slow(times(9_000, 4)));
        assert!(is_slow(times(3_000, 5)));
    }

    #[test]
    fn a_gateway_that_left_is_not_marked_for_what_it_did_before() {
        let mut left = connected("a", 9, vec![band(0.009, 0.01)]);
        if let Ok(Some(stats)) = &mut left.outcome {
            Arc::make_mut(stats).disconnected_at = ago(0);
        }
        let html = row(&left, now());
        assert!(!html.contains("warn") && !html.contains("<svg"), "{html}");
    }
}
