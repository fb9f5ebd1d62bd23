//! What a row of the table opens to: everything else that is known of the gateway, exact
//! times and all sub-bands included.

use crate::model::{ConnectionStats, GatewayReport, Location, RoundTripTimes, SubBand, Timestamp};
use crate::things_stack::KnownHosts;

use super::query::percent_encoded;
use super::table::{band_figures, is_full, is_slow};
use super::text::{
    UNKNOWN_FIGURE, ago, amount, band_edges, counted, definitions, escaped, grouped, isolated,
    took, utc,
};

/// A term and its description, which is markup; where that is empty, nothing is shown.
type Row = (&'static str, String);

/// The terms and descriptions of everything that is known of the gateway.
pub fn details(report: &GatewayReport, hosts: &KnownHosts, now: Timestamp) -> String {
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
    let count = |field, count| match stats.is_readable(field) {
        true => format!("{} <small>since it connected</small>", grouped(count)),
        false => UNKNOWN_FIGURE.to_string(),
    };
    let acknowledged_at = stats.last_tx_acknowledgment_received_at;
    let acknowledged = stats.tx_acknowledgment_count;
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
        ("Uplinks", count("uplink_count", stats.uplink_count)),
        ("Downlinks", count("downlink_count", stats.downlink_count)),
        ("TX acks", count("tx_acknowledgment_count", acknowledged)),
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
