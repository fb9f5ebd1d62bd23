//! The table of gateways on the status page: which comes first, and what a row says.
//!
//! Worst first, as the person who has to act needs it. Disconnected gateways lead: that is
//! certain, and there is something to do, the newest loss on top. Unknown ones follow: they
//! share a cause that stands above the table, and hundreds of them must not bury the one
//! that is really down. Connected ones come last; among them those that are silent or near
//! their duty cycle, else by id, so that the rows keep their places from refresh to refresh.

use std::cmp::Reverse;
use std::time::SystemTime;

use crate::model::{ConnectionStats, GatewayReport, RoundTripTimes, State, SubBand, Timestamp};

use super::state_name;
use super::text::{Band, Count, Grouped, Host, Isolated, Percent, Tense, Took, When, unix_seconds};

/// A connected gateway that was not heard for this long is shown first among its peers.
/// Idle ones still send a status every few minutes, but for some Basics Stations.
const SILENCE_SECONDS: i64 = 3_600;

/// The part of a band's limit from which it deserves a look.
const NEAR_LIMIT: f64 = 0.8;

/// The order of the states, worst first.
pub const WORST_FIRST: [State; 3] = [State::Disconnected, State::Unknown, State::Connected];

/// Heading and style class of each column; on a narrow screen the heading labels the value.
const COLUMNS: [(&str, &str); 8] = [
    ("State", "state"),
    ("Gateway", "name"),
    ("Last seen", "seen"),
    ("Uplinks", "number"),
    ("Downlinks", "number"),
    ("Round trip", "number"),
    ("Busiest sub-band", "band"),
    ("Protocol, cluster", "cluster"),
];

/// The whole table: a body for each state that occurs, named by it.
pub fn table(gateways: &[GatewayReport], now: SystemTime) -> String {
    let mut html = String::with_capacity(2_000 + 1_500 * gateways.len());
    html.push_str(
        "<table>\n<caption>Worst first. Uplinks and downlinks count from the moment the \
         gateway connected; the round trip is the median of its last 30 minutes.\
         </caption>\n<thead><tr>",
    );
    for (heading, class) in COLUMNS {
        html.push_str(&format!(
            "<th scope=\"col\" class=\"{class}\">{heading}</th>"
        ));
    }
    html.push_str("</tr></thead>\n");
    for state in WORST_FIRST {
        let rows = in_state(gateways, state, now);
        if rows.is_empty() {
            continue;
        }
        html.push_str(&format!("<tbody id=\"{}\">\n", state_name(state)));
        rows.iter().for_each(|g| html.push_str(&row(g, now)));
        html.push_str("</tbody>\n");
    }
    html.push_str("</table>\n");
    html
}

/// The gateways in one state, those first that need attention most.
fn in_state(gateways: &[GatewayReport], state: State, now: SystemTime) -> Vec<&GatewayReport> {
    let mut rows: Vec<_> = gateways.iter().filter(|g| g.state() == state).collect();
    // Stable: what is equal stays sorted by id.
    rows.sort_by_key(|g| match (g.state(), g.stats()) {
        (State::Disconnected, stats) => (false, Reverse(stats.and_then(|s| s.disconnected_at))),
        (State::Connected, Some(stats)) => (!needs_attention(stats, now), Reverse(None)),
        _ => (false, Reverse(None)),
    });
    rows
}

fn needs_attention(stats: &ConnectionStats, now: SystemTime) -> bool {
    is_silent(stats, now) || busiest(&stats.sub_bands).is_some_and(|band| load(&band) >= NEAR_LIMIT)
}

/// Whether a gateway has not been heard for an hour; the start of its connection counts.
fn is_silent(stats: &ConnectionStats, now: SystemTime) -> bool {
    let heard = stats.last_seen().max(stats.connected_at);
    heard.is_some_and(|at| unix_seconds(now).saturating_sub(at.seconds) >= SILENCE_SECONDS)
}

/// The used part of what the band allows; not a number where it has no limit.
fn load(band: &SubBand) -> f64 {
    band.downlink_utilization / band.downlink_utilization_limit
}

/// The band that is nearest to its limit.
fn busiest(bands: &[SubBand]) -> Option<SubBand> {
    let limited = bands.iter().filter(|band| !load(band).is_nan());
    limited.max_by(|a, b| load(a).total_cmp(&load(b))).copied()
}

fn row(report: &GatewayReport, now: SystemTime) -> String {
    let stats = report.stats();
    let warn = |it: bool| if it { " warn" } else { "" };
    let connected = report.state() == State::Connected;
    let silent = connected && stats.is_some_and(|s| is_silent(s, now));
    let band = stats.and_then(|s| busiest(&s.sub_bands));
    let near = band.is_some_and(|b| load(&b) >= NEAR_LIMIT);
    let cells = [
        (state_cell(report, now), ""),
        (name_cell(report), ""),
        (seen_cell(stats, now), warn(silent)),
        (count_cell(stats.map(|s| s.uplink_count)), ""),
        (count_cell(stats.map(|s| s.downlink_count)), ""),
        (round_trip_cell(stats.and_then(|s| s.round_trip_times)), ""),
        (band.map(band_cell).unwrap_or_default(), warn(near)),
        (cluster_cell(report), ""),
    ];
    let mut html = format!("<tr class=\"{}\">", state_name(report.state()));
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

fn count_cell(count: Option<u64>) -> String {
    count.map(|n| Count(n).to_string()).unwrap_or_default()
}

fn round_trip_cell(times: Option<RoundTripTimes>) -> String {
    let Some(times) = times else {
        return String::new();
    };
    let (median, min, max) = (Took(times.median), Took(times.min), Took(times.max));
    let samples = Grouped(times.count);
    format!("<span title=\"{min} to {max}, {samples} samples\">{median}</span>")
}

fn band_cell(band: SubBand) -> String {
    let width = (load(&band) * 100.0).clamp(0.0, 100.0);
    format!(
        "{} of {} <small><svg viewBox=\"0 0 100 4\" preserveAspectRatio=\"none\" \
         aria-hidden=\"true\"><rect width=\"{width:.1}\" height=\"4\"/></svg>{}</small>",
        Percent(band.downlink_utilization),
        Percent(band.downlink_utilization_limit),
        Band(band)
    )
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
    use std::time::{Duration, UNIX_EPOCH};

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
        let html = table(&gateways, now());
        let mut ids: Vec<_> = gateways.iter().map(|g| &g.gateway.gateway_id).collect();
        ids.sort_by_key(|id| html.find(&format!("<small><bdi>{id}<")));
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
            &[">Connected<", ">for 3 d<", ">9,<wbr>043<"],
        );
        check(
            disconnected("b", 7_200),
            &[">Disconnected<", ">for 2 h<", ">0<"],
        );
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
        let html = row(&report, now());
        assert!(!html.contains("<script"), "{html}");
        assert_eq!(html.matches("&lt;script&gt;alert(1)").count(), 4, "{html}");
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
        check(
            connected("a", 9, vec![band(0.5, 0.1)]),
            &["width=\"100.0\"", "band warn"],
        );
        assert_eq!(busiest(&[band(0.0, 0.0)]), None);
    }
}
