//! The metrics of each gateway: each one's name, type, labels and help exactly once, beside the
//! function that writes its samples. Adding a metric is adding a row.
//!
//! What is not known is left out: never a 0 that nobody measured. Nothing here fetches or caches.

use crate::metrics::number::Value;
use crate::metrics::text_format::{Family, Label, Row, row};
use crate::model::{ConnectionStats, GatewayReport, Location};
use crate::model::{RoundTripTimes, State, SubBand};

const ANTENNA: &[&str] = &["antenna", "source"];
const SUB_BAND: &[&str] = &["min_frequency_hertz", "max_frequency_hertz"];

#[rustfmt::skip]
pub const GATEWAY_ROWS: [Row<GatewayReport>; 28] = [
    row("gauge", "ttn_gateway_info", &["eui", "name", "frequency_plan_id", "gateway_server_address"], "How the gateway is registered, for joins; always 1",
        info),
    row("gauge", "ttn_gateway_connected", &[], "1 if the gateway is connected, 0 if not; absent when that is not known",
        |family, report| family.value(is_connected(report))),
    row("gauge", "ttn_gateway_scrape_success", &[], "1 if the state of the gateway is known, 0 if it could not be obtained",
        |family, report| family.sample(&[], is_connected(report).is_some())),
    row("gauge", "ttn_gateway_connection_info", &["protocol", "remote_ip"], "How the gateway connects, or did at its last connection; always 1",
        connection_info),
    row("gauge", "ttn_gateway_connected_timestamp_seconds", &[], "When the current connection began, since the Unix epoch",
        |family, report| stat(family, report, |stats| stats.connected_at)),
    row("gauge", "ttn_gateway_disconnected_timestamp_seconds", &[], "When the last connection ended, since the Unix epoch",
        |family, report| stat(family, report, |stats| stats.disconnected_at)),
    row("gauge", "ttn_gateway_last_status_received_timestamp_seconds", &[], "When the server last received a status, since the Unix epoch",
        |family, report| stat(family, report, |stats| stats.last_status_received_at)),
    row("gauge", "ttn_gateway_last_uplink_received_timestamp_seconds", &[], "When the server last received an uplink, since the Unix epoch",
        |family, report| stat(family, report, |stats| stats.last_uplink_received_at)),
    row("gauge", "ttn_gateway_last_downlink_received_timestamp_seconds", &[], "When the server last had a downlink for the gateway, since the Unix epoch",
        |family, report| stat(family, report, |stats| stats.last_downlink_received_at)),
    row("gauge", "ttn_gateway_last_tx_acknowledgment_received_timestamp_seconds", &[], "When the server last received a transmission acknowledgment, since the Unix epoch",
        |family, report| stat(family, report, |s| s.last_tx_acknowledgment_received_at)),
    row("counter", "ttn_gateway_uplink_messages_total", &[], "Uplinks received since the current connection began",
        |family, report| stat(family, report, |stats| stats.uplink_count)),
    row("counter", "ttn_gateway_downlink_messages_total", &[], "Downlinks sent since the current connection began",
        |family, report| stat(family, report, |stats| stats.downlink_count)),
    row("counter", "ttn_gateway_tx_acknowledgments_total", &[], "Transmission acknowledgments received since the current connection began",
        |family, report| stat(family, report, |stats| stats.tx_acknowledgment_count)),
    row("gauge", "ttn_gateway_round_trip_time_min_seconds", &[], "Shortest recent round trip between server and gateway, while it is connected",
        |family, report| round_trip(family, report, |times| times.min)),
    row("gauge", "ttn_gateway_round_trip_time_median_seconds", &[], "Median recent round trip between server and gateway",
        |family, report| round_trip(family, report, |times| times.median)),
    row("gauge", "ttn_gateway_round_trip_time_max_seconds", &[], "Longest recent round trip between server and gateway",
        |family, report| round_trip(family, report, |times| times.max)),
    row("gauge", "ttn_gateway_round_trip_time_samples", &[], "Round trips behind the other figures: at most 20, of the last 30 minutes",
        |family, report| round_trip(family, report, |times| times.count)),
    row("gauge", "ttn_gateway_sub_band_downlink_utilization_ratio", SUB_BAND, "Fraction of time in which the connected gateway transmits in this band",
        |family, report| sub_bands(family, report, |band| band.downlink_utilization)),
    row("gauge", "ttn_gateway_sub_band_downlink_utilization_limit_ratio", SUB_BAND, "Fraction of time in which the gateway may transmit in this band",
        |family, report| sub_bands(family, report, |band| band.downlink_utilization_limit)),
    row("gauge", "ttn_gateway_antenna_latitude_degrees", ANTENNA, "Degrees north of the equator",
        |family, report| antennas(family, report, |location| location.latitude)),
    row("gauge", "ttn_gateway_antenna_longitude_degrees", ANTENNA, "Degrees east of Greenwich",
        |family, report| antennas(family, report, |location| location.longitude)),
    row("gauge", "ttn_gateway_antenna_altitude_meters", ANTENNA, "Meters above sea level",
        |family, report| antennas(family, report, |location| location.altitude)),
    row("gauge", "ttn_gateway_status_timestamp_seconds", &[], "Time of the last status by the gateway's own clock, since the Unix epoch",
        |family, report| family.value(report.last_status().and_then(|status| status.time))),
    row("gauge", "ttn_gateway_boot_timestamp_seconds", &[], "When the gateway booted by its own clock, since the Unix epoch",
        |family, report| family.value(report.last_status().and_then(|status| status.boot_time))),
    row("gauge", "ttn_gateway_status_metric", &["metric"], "Numbers that the gateway reports of itself, in its own units",
        status_metrics),
    row("gauge", "ttn_gateway_version_info", &["component", "version"], "Versions that the gateway reports of its parts; always 1",
        versions),
    row("gauge", "ttn_gateway_messages_uplink_count", &[], "Number of uplink_count messages",
        |family, report| messages(family, report, |stats| stats.uplink_count)),
    row("gauge", "ttn_gateway_messages_downlink_count", &[], "Number of downlink_count messages",
        |family, report| messages(family, report, |stats| stats.downlink_count)),
];

fn is_connected(report: &GatewayReport) -> Option<bool> {
    match report.state() {
        State::Connected => Some(true),
        State::Disconnected => Some(false),
        State::Unknown => None,
    }
}

/// The one sample of what the stats say, where they do.
fn stat<V: Into<Value>>(
    family: &mut Family<'_>,
    report: &GatewayReport,
    value: fn(&ConnectionStats) -> Option<V>,
) {
    family.value(report.stats().and_then(value));
}

fn round_trip<V: Into<Value>>(
    family: &mut Family<'_>,
    report: &GatewayReport,
    value: fn(RoundTripTimes) -> V,
) {
    let times = report.live_stats().and_then(|stats| stats.round_trip_times);
    family.value(times.map(value));
}

fn info(family: &mut Family<'_>, report: &GatewayReport) {
    let gateway = &report.gateway;
    let plans = gateway.frequency_plan_ids.join(",");
    let address = &gateway.gateway_server_address;
    let labels = [&gateway.eui, &gateway.name, &plans, address];
    family.sample(&labels.map(|text| Label::Text(text)), 1);
}

fn connection_info(family: &mut Family<'_>, report: &GatewayReport) {
    if let Some(stats) = report.stats() {
        let labels = [&stats.protocol, &stats.remote_ip];
        family.sample(&labels.map(|text| Label::Text(text)), 1);
    }
}

fn sub_bands(family: &mut Family<'_>, report: &GatewayReport, value: fn(&SubBand) -> f64) {
    let stats = report.live_stats().into_iter();
    for band in stats.flat_map(|stats| &stats.sub_bands) {
        let range = [band.min_frequency, band.max_frequency];
        family.sample(&range.map(Label::Integer), value(band));
    }
}

fn antennas(family: &mut Family<'_>, report: &GatewayReport, value: fn(&Location) -> f64) {
    for location in report.locations() {
        let antenna = Label::Integer(location.antenna as u64);
        let labels = [antenna, Label::Text(&location.source)];
        family.sample(&labels, value(location));
    }
}

fn status_metrics(family: &mut Family<'_>, report: &GatewayReport) {
    let status = report.last_status().into_iter();
    for (metric, value) in status.flat_map(|status| &status.metrics) {
        family.sample(&[Label::Text(metric)], *value);
    }
}

fn versions(family: &mut Family<'_>, report: &GatewayReport) {
    let status = report.last_status().into_iter();
    for (component, version) in status.flat_map(|status| &status.versions) {
        let labels = [component, version];
        family.sample(&labels.map(|text| Label::Text(text)), 1);
    }
}

/// The two names that this exporter took over from a Python script.
///
/// They are 0 for a gateway that is not connected, and graphs and alerts built on them rely on
/// it. The script itself showed a gateway's last counts for as long as the server kept its stats,
/// 48 hours after it left, and only then 0: that hid the disconnect, so it is not repeated here.
/// The last counts remain to be seen in the counters ending in `_total`.
fn messages(
    family: &mut Family<'_>,
    report: &GatewayReport,
    count: fn(&ConnectionStats) -> Option<u64>,
) {
    let value = match report.state() {
        State::Connected => report.stats().and_then(count),
        State::Disconnected => Some(0),
        State::Unknown => None,
    };
    family.value(value);
}
