//! The forms in which single values come: 64-bit integers in strings, floats that JSON has no
//! numbers for, moments and durations exact to the nanosecond, ids. Each function makes a value of
//! the model, or nothing; none knows which field it reads, or asks a clock.

use std::net::IpAddr;
use std::time::Duration;

use crate::model::{Timestamp, day_number};
use crate::things_stack::messages::field_errors::without_keys;
use crate::things_stack::messages::json::Value;

/// Longer text is cut: the API's own bounds are shorter, a gateway's words have none.
const MAX_TEXT_BYTES: usize = 256;
/// How an API key begins before its secret part: its kind, its id of 39 letters, and two dots.
const KEY_PUBLIC_BYTES: usize = 46;
/// Protobuf's own limit of a duration, about 10,000 years, has as many.
const MAX_DIGITS: usize = 12;

/// Makes a value of the model, or nothing from JSON of another form.
pub type Form<'a, T> = fn(Value<'a>) -> Option<T>;

/// Three to 36 characters of `[a-z0-9-]`; two are taken as well.
pub fn is_gateway_id(text: &str) -> bool {
    let is_allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (2..=36).contains(&text.len()) && text.bytes().all(is_allowed)
}

/// Any text, cut where it is too long.
pub fn text(value: Value<'_>) -> Option<String> {
    value.as_str().map(cut)
}

/// At most 256 bytes, whole characters, and no API key.
pub fn cut(text: &str) -> String {
    let text = text[..text.floor_char_boundary(MAX_TEXT_BYTES)].to_owned();
    match text.len() {
        0..KEY_PUBLIC_BYTES => text,
        _ => without_keys(text),
    }
}

pub fn gateway_id(value: Value<'_>) -> Option<String> {
    text_that(value, is_gateway_id)
}

pub fn eui(value: Value<'_>) -> Option<String> {
    let is_eui = |text: &str| text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    text_that(value, is_eui)
}

pub fn ip(value: Value<'_>) -> Option<String> {
    let is_ip = |text: &str| text.is_empty() || text.parse::<IpAddr>().is_ok();
    text_that(value, is_ip)
}

/// `SOURCE_GPS` is `gps`.
pub fn source(value: Value<'_>) -> Option<String> {
    let source = value.as_str()?.strip_prefix("SOURCE_")?;
    Some(cut(source).to_ascii_lowercase())
}

/// A 64-bit integer, which protojson writes as a string. Exact: a float is none.
pub fn count(value: Value<'_>) -> Option<u64> {
    match value.as_str() {
        None => value.as_number()?.as_u64(),
        // `parse` takes a plus sign.
        Some(text) => text.parse().ok().filter(|_| !text.starts_with('+')),
    }
}

/// A float; NaN and the infinities are numbers here. A tolerant reader: a number may stand in
/// a string, as integers do.
pub fn number(value: Value<'_>) -> Option<f64> {
    match value.as_str() {
        None => value.as_number()?.as_f64(),
        Some("NaN") => Some(f64::NAN),
        Some("Infinity") => Some(f64::INFINITY),
        Some("-Infinity") => Some(f64::NEG_INFINITY),
        // `parse` knows further spellings of those three; the API does not.
        Some(other) => other.parse().ok().filter(|number: &f64| number.is_finite()),
    }
}

pub fn finite(value: Value<'_>) -> Option<f64> {
    number(value).filter(|number| number.is_finite())
}

pub fn latitude(value: Value<'_>) -> Option<f64> {
    number(value).filter(|degrees| degrees.abs() <= 90.0)
}

pub fn longitude(value: Value<'_>) -> Option<f64> {
    number(value).filter(|degrees| degrees.abs() <= 180.0)
}

/// The years 1 and 1970 are how times that were never set arrive from some gateways.
pub fn moment(value: Value<'_>) -> Option<Option<Timestamp>> {
    let moment = timestamp(value.as_str()?)?;
    Some(Some(moment).filter(|moment| moment.seconds > 0))
}

/// Reads `0.068913029s`. `None` for anything else; negative durations have no meaning here.
pub fn duration(value: Value<'_>) -> Option<Duration> {
    let text = value.as_str()?.strip_suffix('s')?;
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let seconds = u64::try_from(integer(whole.as_bytes())?).ok()?;
    match fraction(rest.as_bytes())? {
        (nanoseconds, []) => Some(Duration::new(seconds, nanoseconds)),
        _ => None,
    }
}

/// Reads `2024-02-29T12:34:56.789Z`: no to nine fractional digits, and `Z` or `±hh:mm`.
/// `None` for anything else, a day that its month does not have included, or a second 60: the
/// API counts in Unix time.
fn timestamp(text: &str) -> Option<Timestamp> {
    let (date_time, rest) = text.as_bytes().split_at_checked(19)?;
    let signs = [4, 7, 10, 16].map(|at| date_time[at].to_ascii_uppercase());
    let part = |from: usize, to: usize| integer(&date_time[from..to]);
    let day = day_number(part(0, 4)?, part(5, 7)?, part(8, 10)?)?;
    let minute = day * 1_440 + minutes(&date_time[11..16])?;
    let second = part(17, 19).filter(|second| *second < 60)?;
    let (nanoseconds, zone) = fraction(rest)?;
    (signs == *b"--T:").then_some(Timestamp {
        seconds: (minute - offset(zone)?) * 60 + second,
        nanoseconds,
    })
}

/// The minutes of `12:34`.
fn minutes(time: &[u8]) -> Option<i64> {
    let [h1, h2, b':', m1, m2] = *time else {
        return None;
    };
    let (hour, minute) = (integer(&[h1, h2])?, integer(&[m1, m2])?);
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
    let nanoseconds = u32::try_from(integer(digits)? * scale).ok()?;
    Some((nanoseconds, rest))
}

/// One to twelve decimal digits.
fn integer(digits: &[u8]) -> Option<i64> {
    let is_number = (1..=MAX_DIGITS).contains(&digits.len());
    let is_number = is_number && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| digits.iter().fold(0, |n, d| n * 10 + i64::from(d - b'0')))
}

fn text_that(value: Value<'_>, is_valid: fn(&str) -> bool) -> Option<String> {
    let text = value.as_str().filter(|text| is_valid(text));
    text.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;
    use crate::things_stack::messages::json::Row;

    /// The JSON, and what the form makes of it; empty for nothing.
    #[track_caller]
    fn check<T: Debug>(form: fn(Value<'_>) -> Option<T>, json: &str, expected: &str) {
        let row = Row::read(json, 1).expect("the test's own JSON");
        let made = form(row.value()).map(|made| format!("{made:?}"));
        assert_eq!(made.unwrap_or_default(), expected, "{json}");
    }

    #[test]
    fn counts_are_exact_to_the_last_of_64_bits() {
        check(count, r#""9043""#, "9043");
        check(count, "9043", "9043");
        check(count, r#""0""#, "0");
        check(count, r#""007""#, "7");
        check(count, r#""9007199254740993""#, "9007199254740993");
        check(count, r#""18446744073709551615""#, "18446744073709551615");
        check(count, "18446744073709551615", "18446744073709551615");
        check(count, r#""18446744073709551616""#, "");
        check(count, "18446744073709551616", "");
        for json in [
            "-1",
            r#""-1""#,
            "1.5",
            r#""1.5""#,
            "9043.0",
            "1e3",
            r#""1e3""#,
            r#""+1""#,
            r#""""#,
            r#"" 1""#,
            r#""1 ""#,
            r#""0x10""#,
            r#""NaN""#,
            r#""٣""#,
            "true",
            "[1]",
            "{}",
        ] {
            check(count, json, "");
        }
    }

    #[test]
    fn floats_are_numbers_or_one_of_three_words() {
        check(number, "34.862", "34.862");
        check(number, "-0.25", "-0.25");
        check(number, "100", "100.0");
        check(number, "1.7976931348623157e308", "1.7976931348623157e308");
        check(number, "5e-324", "5e-324");
        check(number, r#""34.862""#, "34.862");
        // These come out one bit off where a reader multiplies by a power of ten.
        for text in [
            "96.49407958984375",
            "0.1",
            "8.5e-7",
            "2.2250738585072014e-308",
            "1e23",
        ] {
            let exact: f64 = text.parse().expect("a number");
            check(number, text, &format!("{exact:?}"));
        }
        check(number, r#""NaN""#, "NaN");
        check(number, r#""Infinity""#, "inf");
        check(number, r#""-Infinity""#, "-inf");
        for json in [
            r#""nan""#,
            r#""inf""#,
            r#""+Infinity""#,
            r#""infinity""#,
            r#""1e999""#,
            r#""""#,
            r#""1,5""#,
            r#""1_0""#,
            "true",
            "[]",
        ] {
            check(number, json, "");
        }
        check(finite, "-12.5", "-12.5");
        check(finite, r#""NaN""#, "");
        check(finite, r#""Infinity""#, "");
    }

    #[test]
    fn degrees_are_on_the_globe() {
        check(latitude, "-90", "-90.0");
        check(latitude, "90.0001", "");
        check(latitude, r#""NaN""#, "");
        check(latitude, r#""-Infinity""#, "");
        check(longitude, "180", "180.0");
        check(longitude, "-180.5", "");
    }

    #[test]
    fn a_moment_at_or_before_the_epoch_is_none() {
        let unset = |json| check(moment, json, "None");
        unset(r#""0001-01-01T00:00:00Z""#);
        unset(r#""1969-12-31T23:59:59Z""#);
        unset(r#""1970-01-01T00:00:00Z""#);
        unset(r#""1970-01-01T00:00:00.999Z""#);
        unset(r#""1970-01-01T02:00:00+02:00""#);
        let first = "Some(Timestamp { seconds: 1, nanoseconds: 0 })";
        check(moment, r#""1970-01-01T00:00:01Z""#, first);
        for json in ["0", "1767323045", r#""""#, r#""yesterday""#, "{}"] {
            check(moment, json, "");
        }
        check(duration, r#""0.068913029s""#, "68.913029ms");
        check(duration, r#""-1s""#, "");
        check(duration, "0.06", "");
    }

    #[test]
    fn text_is_cut_between_characters() {
        check(text, r#""a\"\\\n\u0000""#, r#""a\"\\\n\0""#);
        check(text, "5", "");
        let long = format!("{}{}", "x".repeat(255), "é".repeat(1_000_000));
        let kept = cut(&long);
        assert_eq!(kept, "x".repeat(255));
        assert!(kept.capacity() <= 2 * MAX_TEXT_BYTES, "{}", kept.capacity());
    }

    #[test]
    fn ids_and_addresses_have_their_alphabet() {
        check(gateway_id, r#""gw-1""#, r#""gw-1""#);
        check(gateway_id, r#""ab""#, r#""ab""#);
        check(
            gateway_id,
            &format!("{:?}", "a".repeat(36)),
            &format!("{:?}", "a".repeat(36)),
        );
        for json in [
            r#""a""#,
            r#""GW-1""#,
            r#""gw_1""#,
            r#""../x""#,
            r#""gw\n1""#,
            "7",
        ] {
            check(gateway_id, json, "");
        }
        check(gateway_id, &format!("{:?}", "a".repeat(37)), "");
        check(eui, r#""58A0CBFFFE800102""#, r#""58A0CBFFFE800102""#);
        check(eui, r#""58A0CBFFFE80010""#, "");
        check(eui, r#""58A0CBFFFE80010G""#, "");
        check(ip, r#""10.0.0.1""#, r#""10.0.0.1""#);
        check(ip, r#""2001:db8::1""#, r#""2001:db8::1""#);
        check(ip, r#""""#, r#""""#);
        check(ip, r#""10.0.0""#, "");
        check(source, r#""SOURCE_GPS""#, r#""gps""#);
        check(
            source,
            r#""SOURCE_WIFI_RSSI_GEOLOCATION""#,
            r#""wifi_rssi_geolocation""#,
        );
        check(source, r#""GPS""#, "");
        check(source, "3", "");
    }

    #[track_caller]
    fn check_timestamp(text: &str, expected: Option<(i64, u32)>) {
        let found = timestamp(text).map(|t| (t.seconds, t.nanoseconds));
        assert_eq!(found, expected, "{text}");
    }

    #[track_caller]
    fn check_duration(text: &str, expected: Option<(u64, u32)>) {
        let expected = expected.map(|(seconds, nanoseconds)| Duration::new(seconds, nanoseconds));
        let json = format!("{text:?}");
        let row = Row::read(&json, 1).expect("the test's own JSON");
        assert_eq!(duration(row.value()), expected, "{text}");
    }

    #[test]
    fn moments_are_exact_to_the_nanosecond() {
        check_timestamp("1970-01-01T00:00:00Z", Some((0, 0)));
        check_timestamp("1970-01-01T00:00:01Z", Some((1, 0)));
        check_timestamp("2001-09-09T01:46:40Z", Some((1_000_000_000, 0)));
        check_timestamp("2024-02-29T23:59:59.9Z", Some((1_709_251_199, 900_000_000)));
        check_timestamp("2000-02-29T00:00:00.123Z", Some((951_782_400, 123_000_000)));
        check_timestamp(
            "2026-01-02T03:04:05.123456789Z",
            Some((1_767_323_045, 123_456_789)),
        );
        check_timestamp("2026-01-02T03:04:05.000000001Z", Some((1_767_323_045, 1)));
        check_timestamp("2038-01-19T03:14:08Z", Some((2_147_483_648, 0)));
        check_timestamp(
            "9999-12-31T23:59:59.999999999Z",
            Some((253_402_300_799, 999_999_999)),
        );
        check_timestamp("0001-01-01T00:00:00Z", Some((-62_135_596_800, 0)));
        check_timestamp("1969-12-31T23:59:59Z", Some((-1, 0)));
    }

    #[test]
    fn offsets_are_taken_into_account() {
        check_timestamp("1970-01-01T02:00:01+02:00", Some((1, 0)));
        check_timestamp("1969-12-31T18:30:01.5-05:30", Some((1, 500_000_000)));
        check_timestamp("2026-01-02t03:04:05z", Some((1_767_323_045, 0)));
        check_timestamp("2026-01-02T03:04:05-00:00", Some((1_767_323_045, 0)));
    }

    #[test]
    fn every_year_begins_where_counting_days_says() {
        let mut day = 0;
        for year in 1970..10_000 {
            let is_leap = year % 400 == 0 || (year % 4 == 0 && year % 100 != 0);
            let march = day + 59 + i64::from(is_leap);
            check_timestamp(&format!("{year}-01-01T00:00:00Z"), Some((day * 86_400, 0)));
            check_timestamp(
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
            check_timestamp(text, None);
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
