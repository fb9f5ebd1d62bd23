//! The table of gateways on the status page: what a row says, and what it opens to, which is
//! everything else that is known of the gateway, exact times and all sub-bands included.

use crate::model::{ConnectionStats, GatewayReport, Location, RoundTripTimes, SubBand, Timestamp};
use crate::things_stack::KnownHosts;

use super::attention::{busiest, is_full, is_silent, is_slow};
use super::query::percent_encoded;
use super::text::{
    UNKNOWN_FIGURE, ago, amount, band_edges, counted, definitions, escaped, grouped, host,
    isolated, lasting, per_hour, percent, took, utc,
};

/// Heading and style class of each column; on a narrow screen the heading labels the value.
const COLUMNS: [(&str, &str); 7] = [
    ("State", "state"),
    ("Gateway", "name"),
    ("Last seen", "seen"),
    ("Uplinks per hour", "number"),
    ("Round trip", "number"),
    ("Busiest sub-band", "band"),
    ("Protocol, server", "cluster"),
];

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
fn band_figures(band: &SubBand, is_full: bool) -> String {
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

/// A term and its description, which is markup; where that is empty, nothing is shown.
type Row = (&'static str, String);

/// The terms and descriptions of everything that is known of the gateway.
fn details(report: &GatewayReport, hosts: &KnownHosts, now: Timestamp) -> String {
    let plans = report.gateway.frequency_plan_ids.join(", ");
    let mut rows = vec![
        ("EUI", isolated(&report.gateway.eui)),
        ("Frequency plan", isolated(&plans)),
    ];
    if let Some(stats) = report.stats() {
        rows.extend(of_stats(stats, now));
    }
    if let Some(stats) = report.live_stats() {
        let times = stats.round_trip_times.iter();
        rows.extend(times.map(|times| round_trip(times, is_slow(stats, now))));
        let bands = stats.sub_bands.iter();
        rows.extend(bands.map(|band| sub_band(band, is_full(band, stats, now))));
    }
    rows.extend(report.locations().map(antenna));
    rows.push(("Server", isolated(&report.cluster)));
    rows.push(("Console", console_link(report, hosts).unwrap_or_default()));
    definitions(&rows)
}

fn of_stats(stats: &ConnectionStats, now: Timestamp) -> Vec<Row> {
    let moment = |at: Option<Timestamp>| {
        let shown = at.map(|at| format!("{} <small>{}</small>", utc(at), ago(at, now)));
        shown.unwrap_or_default()
    };
    let count = |count: Option<u64>| match count {
        Some(count) => format!("{} <small>since it connected</small>", grouped(count)),
        None => UNKNOWN_FIGURE.to_string(),
    };
    let acknowledged_at = stats.last_tx_acknowledgment_received_at;
    let status = stats.last_status.as_ref();
    let booted_at = status.and_then(|status| status.boot_time);
    let versions = status.map_or(&[][..], |status| &status.versions);
    let mut rows = vec![("IP address", isolated(&stats.remote_ip))];
    rows.extend(versions.iter().map(version));
    rows.extend([
        ("Connected", moment(stats.connected_at)),
        ("Disconnected", moment(stats.disconnected_at)),
        ("Last status", moment(stats.last_status_received_at)),
        ("Last uplink", moment(stats.last_uplink_received_at)),
        ("Last downlink", moment(stats.last_downlink_received_at)),
        ("Last TX ack", moment(acknowledged_at)),
        ("Booted", moment(booted_at)),
        ("Gateway clock", clock_offset(stats).unwrap_or_default()),
        ("Uplinks", count(stats.uplink_count)),
        ("Downlinks", count(stats.downlink_count)),
        ("TX acks", count(stats.tx_acknowledgment_count)),
    ]);
    rows
}

fn version((component, version): &(String, String)) -> Row {
    let [component, version] = [component, version].map(|text| isolated(text));
    ("Version", format!("{component}: {version}"))
}

fn round_trip(times: &RoundTripTimes, is_slow: bool) -> Row {
    let [min, max, median] = [times.min, times.max, times.median].map(took);
    let samples = counted(times.count, "sample");
    let figures = format!("{min} to {max} <small>median {median}, {samples}</small>");
    ("Round trip", marked(&figures, is_slow))
}

fn sub_band(band: &SubBand, is_full: bool) -> Row {
    let (edges, figures) = (band_edges(band), band_figures(band, is_full));
    let figures = format!("{edges} <small>{figures}</small>");
    ("Sub-band", marked(&figures, is_full))
}

fn marked(figures: &str, is_marked: bool) -> String {
    let class = if is_marked { " class=\"warn\"" } else { "" };
    format!("<span{class}>{figures}</span>")
}

/// The gateway's clock in its last status against the moment at which the server received it.
fn clock_offset(stats: &ConnectionStats) -> Option<String> {
    let told = stats.last_status.as_ref()?.time?.seconds;
    let offset = told.saturating_sub(stats.last_status_received_at?.seconds);
    let size = offset.unsigned_abs();
    let size = amount(size).unwrap_or_else(|| format!("{size}\u{a0}s"));
    Some(match offset {
        0 => "right to the second".to_string(),
        1.. => format!("{size} ahead"),
        _ => format!("{size} behind"),
    })
}

fn antenna(location: &Location) -> Row {
    let (number, source) = (location.antenna, isolated(&location.source));
    let (latitude, longitude) = (location.latitude, location.longitude);
    let altitude = location.altitude;
    let position = format!(
        "{latitude:.5}, {longitude:.5}, {altitude:.0}\u{a0}m <small>antenna {number}, {source}</small>"
    );
    ("Antenna position", position)
}

/// The gateway in the console of its cluster. Anybody who may edit the gateway can name a host of
/// their own, so that of a cluster that is not known is not linked; the list's own has it too.
fn console_link(report: &GatewayReport, hosts: &KnownHosts) -> Option<String> {
    let registered_at = report.gateway.gateway_server_address.as_str();
    let mut addresses = [&report.cluster, registered_at, ""].into_iter();
    let base = addresses.find_map(|address| hosts.api_of(address).ok())?;
    let base = escaped(&base.to_string());
    let id = percent_encoded(&report.gateway.gateway_id);
    let link = format!("<a href=\"{base}/console/gateways/{id}\">open this gateway</a>");
    Some(link)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::tests::hosts;
    use super::super::tests::rows::{band, before, connected, disconnected, now, report, unknown};
    use super::*;
    use crate::error::Reason;

    #[track_caller]
    fn check(report: GatewayReport, expected: &[&str]) {
        let html = row(&report, now()).replace('\u{a0}', " ");
        for part in expected {
            assert!(html.contains(part), "{part} is missing in {html}");
        }
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
        for reason in Reason::all() {
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

#[cfg(test)]
mod details_tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::tests::{collection, connected, hosts, now};
    use super::super::text::timestamp;
    use super::*;
    use crate::model::{Gateway, GatewayStatus};
    use crate::things_stack::{AllowedHost, BaseUrl};

    fn report(stats: ConnectionStats) -> GatewayReport {
        collection(vec![Ok(Some(Arc::new(stats)))])
            .gateways
            .remove(0)
    }

    fn stats() -> ConnectionStats {
        let at = |seconds| Some(timestamp(now() - Duration::from_secs(seconds)));
        ConnectionStats {
            connected_at: at(300),
            last_status_received_at: at(60),
            uplink_count: Some(9_043),
            downlink_count: Some(0),
            remote_ip: "203.0.113.7".into(),
            round_trip_times: Some(RoundTripTimes {
                min: Duration::from_millis(31),
                max: Duration::from_millis(4_270),
                median: Duration::from_millis(69),
                count: 3,
            }),
            sub_bands: vec![SubBand {
                min_frequency: 868_000_000,
                max_frequency: 868_600_000,
                downlink_utilization_limit: 0.01,
                downlink_utilization: 0.009,
            }],
            last_status: Some(GatewayStatus {
                time: at(180),
                versions: vec![("station".into(), "2.0.6 <b>".into())],
                ..GatewayStatus::default()
            }),
            ..ConnectionStats::default()
        }
    }

    #[track_caller]
    fn check(report: &GatewayReport, expected: &[&str]) {
        let html = details(report, &hosts(), timestamp(now())).replace('\u{a0}', " ");
        for part in expected {
            assert!(html.contains(part), "{part} is missing in {html}");
        }
    }

    #[test]
    fn a_row_opens_to_everything_that_is_known() {
        check(
            &report(stats()),
            &[
                "<dd><bdi>203.0.113.7</bdi></dd>",
                "<bdi>station</bdi>: <bdi>2.0.6 &lt;b&gt;</bdi>",
                "<dt>Gateway clock</dt><dd>2 min behind</dd>",
                "2026-11-22 17:12:59 UTC <small><time",
                "31 ms to 4.27 s <small>median 69 ms, 3 samples</small>",
                "<span class=\"warn\">868–868.6 MHz <small>0.9 % of 1 %",
                "9,043 <small>since it connected",
                "href=\"https://eu1.cloud.thethings.network/console/gateways/gateway-0000\"",
            ],
        );
    }

    #[test]
    fn a_gateway_that_left_has_no_round_trip_and_no_sub_band() {
        let mut left = stats();
        left.disconnected_at = Some(timestamp(now()));
        let html = details(&report(left), &hosts(), timestamp(now()));
        assert!(html.contains("<dt>Disconnected</dt>"), "{html}");
        assert!(
            !html.contains("Round trip") && !html.contains("Sub-band"),
            "{html}"
        );
    }

    #[test]
    fn a_count_that_cannot_be_read_is_a_dash() {
        let mut unreadable = stats();
        unreadable.uplink_count = None;
        check(
            &report(unreadable),
            &[
                "<dt>Uplinks</dt><dd>–</dd>",
                "<dt>Downlinks</dt><dd>0 <small>",
            ],
        );
    }

    #[test]
    fn a_link_to_the_console_holds_nothing_hostile() {
        let mut hostile = collection(vec![connected()]).gateways.remove(0);
        hostile.gateway = Arc::new(Gateway {
            gateway_id: "\"><script>".into(),
            ..Gateway::default()
        });
        check(&hostile, &["/console/gateways/%22%3E%3Cscript%3E\""]);
        // Where the key may not go, the reader is not sent either.
        hostile.cluster = "evil.example".into();
        check(
            &hostile,
            &["href=\"https://eu1.cloud.thethings.network/console/"],
        );
    }

    #[test]
    fn the_console_is_that_of_the_cluster_with_its_scheme_and_port() {
        let url = |text| BaseUrl::parse(text).expect("the test's own URL");
        let allowed = AllowedHost::parse("radio.example=https://stack.example:8885");
        let allowed = vec![allowed.expect("the test's own host")];
        for (server, cluster, address, expected) in [
            (
                "eu1.cloud.thethings.network",
                "nam1.cloud.thethings.network",
                "",
                "https://nam1.cloud.thethings.network",
            ),
            (
                "acme.eu1.cloud.thethings.industries",
                "acme.eu1.cloud.thethings.industries",
                "",
                "https://acme.eu1.cloud.thethings.industries",
            ),
            (
                "https://own.example:8885",
                "own.example",
                "own.example:1700",
                "https://own.example:8885",
            ),
            (
                "http://127.0.0.1:1885",
                "127.0.0.1",
                "",
                "http://127.0.0.1:1885",
            ),
            ("http://[::1]:1885", "::1", "", "http://[::1]:1885"),
            (
                "https://own.example",
                "stack.example",
                "mqtts://radio.example:8883",
                "https://stack.example:8885",
            ),
            (
                "https://own.example",
                "evil.example",
                "evil.example",
                "https://own.example",
            ),
        ] {
            let hosts = KnownHosts::new(url(server), allowed.clone());
            let mut report = collection(vec![connected()]).gateways.remove(0);
            report.cluster = cluster.into();
            Arc::make_mut(&mut report.gateway).gateway_server_address = address.into();
            let expected = format!("<a href=\"{expected}/console/gateways/gateway-0000\">");
            let link = console_link(&report, &hosts).expect("that of the list");
            assert!(link.starts_with(&expected), "{link}");
        }
    }
}
