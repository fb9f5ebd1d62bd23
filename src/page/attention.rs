//! Which gateways need attention: what is marked in the table, and which gateway comes first there.
//!
//! Worst first, as the person who has to act needs it. Disconnected gateways lead: that is
//! certain, and there is something to do, the newest loss on top. Unknown ones follow: they
//! share a cause that stands above the table, and hundreds of them must not bury the one
//! that is really down. Connected ones come last; among them those that are silent or near
//! their duty cycle, else by id, so that the rows keep their places from refresh to refresh.

use std::cmp::Reverse;
use std::time::Duration;

use crate::model::{ConnectionStats, GatewayReport, RoundTripTimes, State, SubBand, Timestamp};

use super::query::Query;

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
fn rank(report: &GatewayReport, now: Timestamp) -> (State, bool, Reverse<Option<Timestamp>>) {
    let (is_fine, lost_at) = match report.stats() {
        Some(stats) if stats.is_connected() => (!needs_attention(stats, now), None),
        Some(stats) => (false, stats.disconnected_at),
        None => (false, None),
    };
    (report.state(), is_fine, Reverse(lost_at))
}

fn needs_attention(stats: &ConnectionStats, now: Timestamp) -> bool {
    let is_full = |band| is_full(band, stats, now);
    is_silent(stats, now) || stats.sub_bands.iter().any(is_full) || is_slow(stats, now)
}

/// Whether a gateway has not been heard for an hour; the start of its connection counts.
pub fn is_silent(stats: &ConnectionStats, now: Timestamp) -> bool {
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
pub fn busiest(bands: &[SubBand]) -> Option<(&SubBand, f64)> {
    let limited = bands.iter().filter_map(|band| Some((band, load(band)?)));
    limited.max_by(|(_, a), (_, b)| a.total_cmp(b))
}

#[cfg(test)]
mod tests {
    use super::super::tests::rows::{band, before, connected, disconnected, now, report, unknown};
    use super::*;
    use crate::error::Reason;

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
    fn a_band_without_a_limit_is_never_the_busiest() {
        assert_eq!(busiest(&[band(0.0, 0.0), band(0.5, 0.0)]), None);
    }
}
