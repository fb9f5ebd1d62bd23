//! The forms in which single values come: 64-bit integers in strings, floats that JSON has no
//! numbers for, moments, durations, ids. Each function makes a value of the model, or nothing;
//! none knows which field it reads.

use std::net::IpAddr;
use std::time::Duration;

use crate::model::Timestamp;
use crate::things_stack::messages::json::Value;
use crate::things_stack::messages::timestamp;

/// Longer text is cut: the API's own bounds are shorter, a gateway's words have none.
const MAX_TEXT_BYTES: usize = 256;

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

/// At most 256 bytes, whole characters.
pub fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_TEXT_BYTES)].to_owned()
}

pub fn gateway_id(value: Value<'_>) -> Option<String> {
    text_that(value, is_gateway_id)
}

pub fn eui(value: Value<'_>) -> Option<String> {
    let is_eui = |text: &str| text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    text_that(value, is_eui)
}

pub fn ip(value: Value<'_>) -> Option<String> {
    text_that(value, |text| {
        text.is_empty() || text.parse::<IpAddr>().is_ok()
    })
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
        // `parse` alone would take a plus sign.
        Some(text) if text.starts_with(|c: char| c.is_ascii_digit()) => text.parse().ok(),
        Some(_) => None,
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
    let moment = timestamp::timestamp(value.as_str()?)?;
    Some(Some(moment).filter(|moment| moment.seconds > 0))
}

pub fn duration(value: Value<'_>) -> Option<Duration> {
    timestamp::duration(value.as_str()?)
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
}
