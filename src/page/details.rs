//! What a row of the table opens to: everything else that is known of the gateway, exact
//! times and all sub-bands included.

use std::time::SystemTime;

use crate::model::{ConnectionStats, GatewayReport, GatewayStatus, Location, State, Timestamp};

use super::query::percent_encoded;
use super::table::{band_figures, is_full};
use super::text::{Band, Escaped, Grouped, Isolated, Tense, Took, Utc, When, amount};

/// Terms and descriptions; nothing is left out but what is not known.
pub fn details(report: &GatewayReport, now: SystemTime) -> String {
    let gateway = &report.gateway;
    let mut list = List::default();
    list.text("EUI", &gateway.eui);
    list.text("Frequency plan", &gateway.frequency_plan_ids.join(", "));
    if let Some(stats) = report.stats() {
        of_stats(&mut list, stats, now);
        if report.state() == State::Connected {
            of_connection(&mut list, stats);
        }
    }
    let reported = status(report).map_or(&[][..], |status| &status.antenna_locations);
    for location in gateway.antennas.iter().chain(reported) {
        list.add("Antenna position", antenna(location));
    }
    list.text("Server", &report.cluster);
    if let Some(link) = console_link(report) {
        list.add("Console", link);
    }
    list.html
}

/// The list while it is written.
#[derive(Default)]
struct List {
    html: String,
}

impl List {
    /// `description` is markup.
    fn add(&mut self, term: &str, description: impl std::fmt::Display) {
        self.html.push_str(&format!(
            "<div><dt>{term}</dt><dd>{description}</dd></div>\n"
        ));
    }

    /// Text from the API; none where it is empty.
    fn text(&mut self, term: &str, text: &str) {
        if !text.trim().is_empty() {
            self.add(term, Isolated(text));
        }
    }

    fn moment(&mut self, term: &str, at: Option<Timestamp>, now: SystemTime) {
        let tense = Tense::Event;
        if let Some(at) = at {
            self.add(
                term,
                format!("{} <small>{}</small>", Utc(at), When { at, now, tense }),
            );
        }
    }
}

fn status(report: &GatewayReport) -> Option<&GatewayStatus> {
    report.stats()?.last_status.as_ref()
}

fn of_stats(list: &mut List, stats: &ConnectionStats, now: SystemTime) {
    list.text("IP address", &stats.remote_ip);
    let last_status = stats.last_status.as_ref();
    for (component, version) in last_status.map_or(&[][..], |status| &status.versions) {
        let component = Isolated(component);
        list.add("Version", format!("{component}: {}", Isolated(version)));
    }
    for (term, at) in [
        ("Connected", stats.connected_at),
        ("Disconnected", stats.disconnected_at),
        ("Last status", stats.last_status_received_at),
        ("Last uplink", stats.last_uplink_received_at),
        ("Last downlink", stats.last_downlink_received_at),
        ("Last TX ack", stats.last_tx_acknowledgment_received_at),
        ("Booted", last_status.and_then(|status| status.boot_time)),
    ] {
        list.moment(term, at, now);
    }
    if let Some(offset) = clock_offset(stats) {
        list.add("Gateway clock", offset);
    }
    for (term, field, count) in [
        ("Uplinks", "uplink_count", stats.uplink_count),
        ("Downlinks", "downlink_count", stats.downlink_count),
        (
            "TX acks",
            "tx_acknowledgment_count",
            stats.tx_acknowledgment_count,
        ),
    ] {
        let since = "since it connected";
        list.add(
            term,
            match stats.is_readable(field) {
                true => format!("{} <small>{since}</small>", Grouped(count)),
                false => "–".to_string(),
            },
        );
    }
}

/// What holds only while the gateway is connected.
fn of_connection(list: &mut List, stats: &ConnectionStats) {
    if let Some(times) = stats.round_trip_times {
        let samples = if times.count == 1 {
            "sample"
        } else {
            "samples"
        };
        list.add(
            "Round trip",
            format!(
                "{} to {} <small>median {}, {} {samples}</small>",
                Took(times.min),
                Took(times.max),
                Took(times.median),
                Grouped(times.count)
            ),
        );
    }
    for band in &stats.sub_bands {
        let mark = if is_full(band) { " class=\"warn\"" } else { "" };
        let figures = band_figures(band);
        list.add(
            "Sub-band",
            format!(
                "<span{mark}>{} <small>{figures}</small></span>",
                Band(*band)
            ),
        );
    }
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

fn antenna(location: &Location) -> String {
    let Location {
        antenna,
        source,
        latitude,
        longitude,
        altitude,
    } = location;
    let source = Isolated(source);
    format!(
        "{latitude:.5}, {longitude:.5}, {altitude:.0}\u{a0}m <small>antenna {antenna}, {source}</small>"
    )
}

/// The gateway in the console of its cluster, where the host can stand in a URL.
fn console_link(report: &GatewayReport) -> Option<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    let host: &str = &report.cluster;
    if host.is_empty() || !host.chars().all(is_plain) {
        return None;
    }
    let id = percent_encoded(&report.gateway.gateway_id);
    let url = format!("https://{host}/console/gateways/{id}");
    Some(format!(
        "<a href=\"{}\">open this gateway</a>",
        Escaped(&url)
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::tests::{collection, connected, now};
    use super::super::text::timestamp;
    use super::*;
    use crate::model::{Gateway, RoundTripTimes, SubBand};

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
            uplink_count: 9_043,
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
        let html = details(report, now()).replace('\u{a0}', " ");
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
        let html = details(&report(left), now());
        assert!(html.contains("<dt>Disconnected</dt>"), "{html}");
        assert!(
            !html.contains("Round trip") && !html.contains("Sub-band"),
            "{html}"
        );
    }

    #[test]
    fn a_count_that_cannot_be_read_is_a_dash() {
        let mut unreadable = stats();
        unreadable.unreadable = vec!["uplink_count"];
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
        hostile.cluster = "evil.example/\"onclick=".into();
        assert_eq!(console_link(&hostile), None);
    }
}
