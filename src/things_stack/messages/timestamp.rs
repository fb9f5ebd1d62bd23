//! The two spellings of time in the API's JSON: RFC 3339 moments
//! (`google.protobuf.Timestamp`) and decimal seconds (`google.protobuf.Duration`), both
//! exact to the nanosecond. Text in, numbers out; it never asks a clock and never formats.

use std::time::Duration;

use crate::model::{Timestamp, day_number};

/// Protobuf's own limit of a duration, about 10,000 years, has as many.
const MAX_DIGITS: usize = 12;

/// Reads `2024-02-29T12:34:56.789Z`: no to nine fractional digits, and `Z` or `±hh:mm`.
/// `None` for anything else, a day that its month does not have included, or a second 60: the
/// API counts in Unix time.
pub fn timestamp(text: &str) -> Option<Timestamp> {
    let (date_time, rest) = text.as_bytes().split_at_checked(19)?;
    let signs = [4, 7, 10, 16].map(|at| date_time[at].to_ascii_uppercase());
    let part = |from: usize, to: usize| number(&date_time[from..to]);
    let day = day_number(part(0, 4)?, part(5, 7)?, part(8, 10)?)?;
    let minute = day * 1_440 + minutes(&date_time[11..16])?;
    let second = part(17, 19).filter(|second| *second < 60)?;
    let (nanoseconds, zone) = fraction(rest)?;
    (signs == *b"--T:").then_some(Timestamp {
        seconds: (minute - offset(zone)?) * 60 + second,
        nanoseconds,
    })
}

/// Reads `0.068913029s`. `None` for anything else; negative durations have no meaning here.
pub fn duration(text: &str) -> Option<Duration> {
    let text = text.strip_suffix('s')?;
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let seconds = u64::try_from(number(whole.as_bytes())?).ok()?;
    match fraction(rest.as_bytes())? {
        (nanoseconds, []) => Some(Duration::new(seconds, nanoseconds)),
        _ => None,
    }
}

/// The minutes of `12:34`.
fn minutes(time: &[u8]) -> Option<i64> {
    let [h1, h2, b':', m1, m2] = *time else {
        return None;
    };
    let (hour, minute) = (number(&[h1, h2])?, number(&[m1, m2])?);
    (hour < 24 && minute < 60).then_some(hour * 60 + minute)
}

/// Minutes east of UTC: `Z` or `±hh:mm`.
fn offset(zone: &[u8]) -> Option<i64> {
    match zone {
        [b'Z' | b'z'] => Some(0),
        [b'+', time @ ..] => minutes(time),
        [b'-', time @ ..] => Some(-minutes(time)?),
        _ => None,
    }
}

/// Nanoseconds of an optional `.` with one to nine digits, and what follows it.
fn fraction(text: &[u8]) -> Option<(u32, &[u8])> {
    let [b'.', rest @ ..] = text else {
        return Some((0, text));
    };
    let length = rest.iter().take_while(|byte| byte.is_ascii_digit());
    let (digits, rest) = rest.split_at(length.count());
    let scale = 10_i64.pow(u32::try_from(9_usize.checked_sub(digits.len())?).ok()?);
    let nanoseconds = u32::try_from(number(digits)? * scale).ok()?;
    Some((nanoseconds, rest))
}

/// One to twelve decimal digits.
fn number(digits: &[u8]) -> Option<i64> {
    let is_number = (1..=MAX_DIGITS).contains(&digits.len());
    let is_number = is_number && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| digits.iter().fold(0, |n, d| n * 10 + i64::from(d - b'0')))
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
            "2026-01-02T03:04:05+2:00",
            "2026-01-02T03:04:05+02:0",
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
