//! How many uplinks a gateway carries in an hour: the difference of two readings of the counter
//! of one connection. Pure.

use std::time::{Duration, Instant};

use crate::model::{Outcome, Timestamp};

/// Two readings that are closer than this tell no rate.
const INTERVAL_MIN: Duration = Duration::from_secs(5);

/// The last reading of a gateway's counter, and the rate since the one before.
#[derive(Clone, Copy, Default)]
pub struct UplinkRate {
    last: Option<Reading>,
    pub per_hour: Option<f64>,
}

#[derive(Clone, Copy)]
struct Reading {
    uplinks: u64,
    connected_at: Option<Timestamp>,
    at: Instant,
}

impl UplinkRate {
    /// The rate after this outcome, which was obtained at this moment. An outcome without a
    /// counter has no rate, and leaves the last reading for the next one.
    pub fn after(self, outcome: &Outcome, at: Instant) -> UplinkRate {
        let reading = Reading::of(outcome, at);
        match self.last {
            Some(last) if reading.is_some() && at - last.at < INTERVAL_MIN => self,
            last => UplinkRate {
                last: reading.or(last),
                per_hour: reading.zip(last).and_then(|(new, old)| new.rate_since(old)),
            },
        }
    }
}

impl Reading {
    fn of(outcome: &Outcome, at: Instant) -> Option<Reading> {
        let stats = outcome.as_ref().ok()?.as_ref()?;
        let is_counting = stats.is_connected() && stats.is_readable("uplink_count");
        is_counting.then_some(Reading {
            uplinks: stats.uplink_count,
            connected_at: stats.connected_at,
            at,
        })
    }

    /// Messages an hour since an earlier reading; none if that was of another connection.
    fn rate_since(self, earlier: Reading) -> Option<f64> {
        if self.connected_at != earlier.connected_at {
            return None;
        }
        let count = self.uplinks.checked_sub(earlier.uplinks)?;
        let hours = (self.at - earlier.at).as_secs_f64() / 3600.0;
        Some(count as f64 / hours)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Reason;
    use crate::examples::{connected, failed};

    #[test]
    fn uplinks_an_hour_are_those_between_two_readings_of_one_connection() {
        let start = Instant::now();
        let minute = Duration::from_secs(60);
        let mut rate = UplinkRate::default();
        let mut check = |outcome: Outcome, after: Duration, expected: Option<f64>| {
            rate = rate.after(&outcome, start + after);
            assert_eq!(rate.per_hour, expected, "{after:?}");
        };
        check(connected(100), Duration::ZERO, None);
        check(connected(130), minute, Some(1800.0));
        let soon = minute + Duration::from_secs(1);
        check(connected(130), soon, Some(1800.0));
        check(failed(Reason::Timeout), 2 * minute, None);
        check(connected(190), 3 * minute, Some(1800.0));
        check(connected(5), 4 * minute, None);
    }
}
