//! The two spellings of time in the API's JSON: RFC 3339 moments
//! (`google.protobuf.Timestamp`) and decimal seconds (`google.protobuf.Duration`), both
//! exact to the nanosecond. Text in, numbers out; it never asks a clock and never formats.

use std::time::Duration;

use crate::model::Timestamp;

/// January 1 of year 1 to January 1 of 1970, in days.
const DAYS_BEFORE_EPOCH: i64 = 719_162;
const DAYS_BEFORE_MONTH: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
/// Protobuf's own limit, about 10,000 years, has twelve digits.
const MAX_DURATION_DIGITS: usize = 12;

/// Reads `2024-02-29T12:34:56.789Z`: no to nine fractional digits, and `Z` or `±hh:mm`.
/// `None` for anything else, a day that its month does not have included, or a second 60: the
/// API counts in Unix time.
pub fn timestamp(text: &str) -> Option<Timestamp> {
    let (date_time, rest) = text.as_bytes().split_at_checked(19)?;
    let signs = [4, 7, 10, 13, 16].map(|at| date_time[at].to_ascii_uppercase());
    let day = days_since_epoch(
        number(&date_time[..4])?,
        number(&date_time[5..7])?,
        number(&date_time[8..10])?,
    );
    let time = seconds_of(&date_time[11..13], &date_time[14..16])?;
    let second = number(&date_time[17..]).filter(|second| *second < 60)?;
    let (nanoseconds, zone) = fraction(rest)?;
    (signs == *b"--T::").then_some(Timestamp {
        seconds: day? * 86_400 + time + second - offset(zone)?,
        nanoseconds,
    })
}

/// Reads `0.068913029s`. `None` for anything else; negative durations have no meaning here.
pub fn duration(text: &str) -> Option<Duration> {
    let text = text.strip_suffix('s')?.as_bytes();
    let point = text.iter().position(|byte| *byte == b'.');
    let (whole, rest) = text.split_at(point.unwrap_or(text.len()));
    if whole.len() > MAX_DURATION_DIGITS {
        return None;
    }
    let (nanoseconds, rest) = fraction(rest)?;
    let seconds = u64::try_from(number(whole)?).ok()?;
    rest.is_empty().then(|| Duration::new(seconds, nanoseconds))
}

fn days_since_epoch(year: i64, month: i64, day: i64) -> Option<i64> {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let month_index = usize::try_from(month).ok()?.checked_sub(1)?;
    let days_before_month = *DAYS_BEFORE_MONTH.get(month_index)?;
    let days_to_month_end = DAYS_BEFORE_MONTH.get(month_index + 1).unwrap_or(&365);
    let month_length = days_to_month_end - days_before_month + i64::from(is_leap && month == 2);
    if !(1..=month_length).contains(&day) {
        return None;
    }
    let past = year - 1;
    let leap_days = past / 4 - past / 100 + past / 400 + i64::from(is_leap && month > 2);
    Some(past * 365 + leap_days + days_before_month + day - 1 - DAYS_BEFORE_EPOCH)
}

/// The seconds of `12` and `34`, as hours and minutes.
fn seconds_of(hour: &[u8], minute: &[u8]) -> Option<i64> {
    let (hour, minute) = (number(hour)?, number(minute)?);
    (hour < 24 && minute < 60).then_some(hour * 3_600 + minute * 60)
}

/// Seconds east of UTC: `Z` or `±hh:mm`.
fn offset(zone: &[u8]) -> Option<i64> {
    match *zone {
        [b'Z' | b'z'] => Some(0),
        [b'+', h1, h2, b':', m1, m2] => seconds_of(&[h1, h2], &[m1, m2]),
        [b'-', h1, h2, b':', m1, m2] => Some(-seconds_of(&[h1, h2], &[m1, m2])?),
        _ => None,
    }
}

/// Nanoseconds of an optional `.` with one to nine digits, and what follows it.
fn fraction(text: &[u8]) -> Option<(u32, &[u8])> {
    let Some((b'.', rest)) = text.split_first() else {
        return Some((0, text));
    };
    let is_end = |byte: &u8| !byte.is_ascii_digit();
    let length = rest.iter().position(is_end).unwrap_or(rest.len());
    let (digits, rest) = rest.split_at(length);
    let missing = 9_usize.checked_sub(length)?;
    let scale = 10_u32.pow(u32::try_from(missing).ok()?);
    // Nine digits at most, so neither the conversion nor the product can overflow.
    let nanoseconds = u32::try_from(number(digits)?).ok()? * scale;
    Some((nanoseconds, rest))
}

/// One or more decimal digits. Callers bound their count below what overflows.
fn number(digits: &[u8]) -> Option<i64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |n, d| n * 10 + i64::from(d - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<(i64, u32)>) {
        let found = timestamp(text).map(|t| (t.seconds, t.nanoseconds));
        assert_eq!(found, expected, "{text}");
    }

    #[track_caller]
    fn check_duration(text: &str, expected: Option<(u64, u32)>) {
        let expected = expected.map(|(seconds, nanoseconds)| Duration::new(seconds, nanoseconds));
        assert_eq!(duration(text), expected, "{text}");
    }

    #[test]
    fn moments_are_exact_to_the_nanosecond() {
        check("1970-01-01T00:00:00Z", Some((0, 0)));
        check("1970-01-01T00:00:01Z", Some((1, 0)));
        check("2001-09-09T01:46:40Z", Some((1_000_000_000, 0)));
        check("2024-02-29T23:59:59.9Z", Some((1_709_251_199, 900_000_000)));
        check("2000-02-29T00:00:00.123Z", Some((951_782_400, 123_000_000)));
        check(
            "2026-01-02T03:04:05.123456789Z",
            Some((1_767_323_045, 123_456_789)),
        );
        check("2026-01-02T03:04:05.000000001Z", Some((1_767_323_045, 1)));
        check("2038-01-19T03:14:08Z", Some((2_147_483_648, 0)));
        check(
            "9999-12-31T23:59:59.999999999Z",
            Some((253_402_300_799, 999_999_999)),
        );
        check("0001-01-01T00:00:00Z", Some((-62_135_596_800, 0)));
        check("1969-12-31T23:59:59Z", Some((-1, 0)));
    }

    #[test]
    fn offsets_are_taken_into_account() {
        check("1970-01-01T02:00:01+02:00", Some((1, 0)));
        check("1969-12-31T18:30:01.5-05:30", Some((1, 500_000_000)));
        check("2026-01-02t03:04:05z", Some((1_767_323_045, 0)));
        check("2026-01-02T03:04:05-00:00", Some((1_767_323_045, 0)));
    }

    #[test]
    fn every_year_begins_where_counting_days_says() {
        let mut day = 0;
        for year in 1970..10_000 {
            let is_leap = year % 400 == 0 || (year % 4 == 0 && year % 100 != 0);
            let march = day + 59 + i64::from(is_leap);
            check(&format!("{year}-01-01T00:00:00Z"), Some((day * 86_400, 0)));
            check(
                &format!("{year}-03-01T00:00:00Z"),
                Some((march * 86_400, 0)),
            );
            day = march + 306;
        }
    }

    #[test]
    fn what_is_not_a_moment_is_refused() {
        for text in [
            "",
            "Z",
            "2026-01-02",
            "2026-01-02T03:04:05",
            "2026-01-02 03:04:05Z",
            "2026-1-02T03:04:05Z",
            "2026-00-02T03:04:05Z",
            "2026-13-02T03:04:05Z",
            "2026-01-00T03:04:05Z",
            "2026-01-32T03:04:05Z",
            "2026-04-31T03:04:05Z",
            "2026-02-29T03:04:05Z",
            "2100-02-29T03:04:05Z",
            "2026-01-02T24:00:00Z",
            "2026-01-02T03:60:05Z",
            "2026-01-02T03:04:60Z",
            "2026-01-02T03:04:05.Z",
            "2026-01-02T03:04:05.1234567891Z",
            "2026-01-02T03:04:05,5Z",
            "2026-01-02T03:04:05ZZ",
            "2026-01-02T03:04:05+0200",
            "2026-01-02T03:04:05+24:00",
            "2026-01-02T03:04:05+02:60",
            "+026-01-02T03:04:05Z",
            "2026-01-02T03:04:0٥Z",
            "10000-01-01T00:00:00Z",
            "1767323045",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn durations_are_exact_to_the_nanosecond() {
        check_duration("0.068913029s", Some((0, 68_913_029)));
        check_duration("4.265192138s", Some((4, 265_192_138)));
        check_duration("5s", Some((5, 0)));
        check_duration("0s", Some((0, 0)));
        check_duration("0.1s", Some((0, 100_000_000)));
        check_duration(
            "315576000000.999999999s",
            Some((315_576_000_000, 999_999_999)),
        );
        for text in [
            "",
            "s",
            "5",
            "-5s",
            "-0.5s",
            "+5s",
            ".5s",
            "5.s",
            "5.s5",
            "1e3s",
            "5 s",
            "5.5.5s",
            "0.1234567891s",
            "9999999999999s",
            "NaNs",
            "5ms",
        ] {
            check_duration(text, None);
        }
    }
}
