//! How the status page writes its values: text from the API escaped and isolated, ages,
//! moments, numbers, frequencies.
//!
//! All markup that holds a value from the API goes through [`escaped`] or [`isolated`]; in an
//! attribute it stands only as a part of a URL, percent-encoded.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::model::{SubBand, Timestamp, civil_date};

/// What stands for a figure that is not known.
pub const UNKNOWN_FIGURE: &str = "–";

/// Text as HTML text: markup is inert, white space is plain, and control characters are visible
/// as U+FFFD. Its length is bounded where it is read.
pub fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '&' => html.push_str("&amp;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            _ if character.is_whitespace() => html.push(' '),
            _ if character.is_control() => html.push(char::REPLACEMENT_CHARACTER),
            _ => html.push(character),
        }
    }
    html
}

/// [`escaped`] in an element that keeps its writing direction, overrides included, from
/// reaching the text around it. Nothing where the text is blank.
pub fn isolated(text: &str) -> String {
    match text.trim().is_empty() {
        true => String::new(),
        false => format!("<bdi>{}</bdi>", escaped(text)),
    }
}

/// A host name that may break after its dots.
pub fn host(name: &str) -> String {
    isolated(name).replace('.', ".<wbr>")
}

/// Terms and their descriptions, which are markup; nothing where there is no description.
pub fn definitions(rows: &[(&str, String)]) -> String {
    let rows = rows.iter().filter(|(_, markup)| !markup.is_empty());
    rows.map(|(term, markup)| format!("<div><dt>{term}</dt><dd>{markup}</dd></div>\n"))
        .collect()
}

/// A moment of this machine's clock, to the second. Linux sets no clock before 1970.
pub fn timestamp(time: SystemTime) -> Timestamp {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: since_epoch.as_secs() as i64,
        nanoseconds: 0,
    }
}

/// "3 min ago", with the exact time for hovering and for machines.
pub fn ago(at: Timestamp, now: Timestamp) -> String {
    relative(at, now, |age| format!("{age} ago"))
}

/// "for 3 min", likewise.
pub fn lasting(since: Timestamp, now: Timestamp) -> String {
    relative(since, now, |age| format!("for {age}"))
}

fn relative(at: Timestamp, now: Timestamp, past: fn(String) -> String) -> String {
    let seconds = now.seconds.saturating_sub(at.seconds);
    let words = match amount(seconds.unsigned_abs()) {
        None => "just now".to_string(),
        // A clock is wrong; the page says so above the table.
        Some(ahead) if seconds < 0 => format!("in {ahead}"),
        Some(age) => past(age),
    };
    let (date, time) = date_and_time(at);
    format!("<time datetime=\"{date}T{time}Z\" title=\"{date} {time} UTC\">{words}</time>")
}

/// "3 min", "2 h", "5 d"; nothing under a minute: the server itself is 30 s behind.
/// Only the largest unit is said, and 47 h are still hours.
pub fn amount(seconds: u64) -> Option<String> {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0..60 => None,
        60..3_600 => Some(format!("{minutes}\u{a0}min")),
        3_600..172_800 => Some(format!("{hours}\u{a0}h")),
        _ => Some(format!("{days}\u{a0}d")),
    }
}

/// "2026-11-22 17:13:59 UTC"
pub fn utc(at: Timestamp) -> String {
    let (date, time) = date_and_time(at);
    format!("{date} {time} UTC")
}

/// "2026-11-22" and "17:13:59", in UTC.
pub fn date_and_time(at: Timestamp) -> (String, String) {
    let second = at.seconds.rem_euclid(86_400);
    let (year, month, day) = civil_date(at.seconds.div_euclid(86_400));
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    (
        format!("{year:04}-{month:02}-{day:02}"),
        format!("{hour:02}:{minute:02}:{second:02}"),
    )
}

/// A count with its thousands apart: "9,043".
pub fn grouped(count: u64) -> String {
    match count {
        0..1_000 => count.to_string(),
        _ => format!("{},{:03}", grouped(count / 1_000), count % 1_000),
    }
}

/// A count that may break after its commas, where there is little room.
pub fn breakable(count: u64) -> String {
    grouped(count).replace(',', ",<wbr>")
}

/// "1 gateway", "2 gateways"
pub fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(count))
}

/// A rate: "1,800", "2.4".
pub fn per_hour(rate: Option<f64>) -> String {
    match rate {
        Some(rate) if rate >= 9.95 => breakable(rate.round() as u64),
        Some(rate) if rate > 0.0 && rate < 0.05 => "&lt;0.1".to_string(),
        Some(rate) if rate > 0.0 => format!("{rate:.1}").trim_end_matches(".0").to_string(),
        Some(rate) if rate <= 0.0 => "0".to_string(),
        _ => UNKNOWN_FIGURE.to_string(),
    }
}

/// A duration to three digits: "69 ms", "4.27 s".
pub fn took(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        _ if seconds < 0.0095 => format!("{:.1}\u{a0}ms", seconds * 1e3),
        _ if seconds < 0.9995 => format!("{:.0}\u{a0}ms", seconds * 1e3),
        _ if seconds < 9.995 => format!("{seconds:.2}\u{a0}s"),
        _ => format!("{seconds:.0}\u{a0}s"),
    }
}

/// A fraction of time as a percentage that is short but never a misleading zero: "0.42 %".
pub fn percent(fraction: f64) -> String {
    let percent = fraction * 100.0;
    let rounded = format!("{percent:.2}");
    match rounded.trim_end_matches('0').trim_end_matches('.') {
        _ if !percent.is_finite() => UNKNOWN_FIGURE.to_string(),
        "0" if percent > 0.0 => "&lt;0.01\u{a0}%".to_string(),
        short => format!("{short}\u{a0}%"),
    }
}

/// The edges of a band: "868–868.6 MHz", "from 869.7 MHz", "below 863 MHz".
pub fn band_edges(band: &SubBand) -> String {
    let [from, to] = [band.min_frequency, band.max_frequency].map(|hertz| hertz as f64 / 1e6);
    match (band.min_frequency, band.max_frequency) {
        (0, 0 | u64::MAX) => "all frequencies".to_string(),
        (0, _) => format!("below {to}\u{a0}MHz"),
        (_, u64::MAX) => format!("from {from}\u{a0}MHz"),
        _ => format!("{from}–{to}\u{a0}MHz"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(shown: impl ToString, expected: &str) {
        let plain = shown.to_string().replace('\u{a0}', " ");
        assert_eq!(plain, expected);
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp {
            seconds,
            nanoseconds: 0,
        }
    }

    const NOW: i64 = 1_800_000_000;

    #[track_caller]
    fn check_words(shown: String, expected: &str) {
        check(shown.split(['<', '>']).nth(2).unwrap_or_default(), expected);
    }

    #[track_caller]
    fn check_age(age_seconds: i64, expected: &str) {
        check_words(ago(at(NOW - age_seconds), at(NOW)), expected);
    }

    #[track_caller]
    fn check_lasting(age_seconds: i64, expected: &str) {
        check_words(lasting(at(NOW - age_seconds), at(NOW)), expected);
    }

    #[test]
    fn text_from_the_api_is_inert_and_isolated() {
        check(
            isolated("<script>alert(1)</script>"),
            "<bdi>&lt;script&gt;alert(1)&lt;/script&gt;</bdi>",
        );
        check(escaped("\"a\" & 'b'"), "&quot;a&quot; &amp; &#39;b&#39;");
        check(escaped("one\ntwo\tthree"), "one two three");
        check(escaped("bell\u{7} null\0"), "bell\u{fffd} null\u{fffd}");
        check(isolated("\u{202e}drawkcab"), "<bdi>\u{202e}drawkcab</bdi>");
        check(isolated(" \n"), "");
        check(host("a.b<c"), "<bdi>a.<wbr>b&lt;c</bdi>");
    }

    #[test]
    fn an_age_is_told_in_its_largest_unit() {
        check_age(0, "just now");
        check_age(59, "just now");
        check_age(60, "1 min ago");
        check_age(239, "3 min ago");
        check_age(3_599, "59 min ago");
        check_age(3_600, "1 h ago");
        check_age(2 * 3_600 + 5, "2 h ago");
        check_age(172_799, "47 h ago");
        check_lasting(5 * 86_400, "for 5 d");
    }

    #[test]
    fn a_clock_that_runs_behind_gives_no_negative_age() {
        check_age(-59, "just now");
        check_age(-180, "in 3 min");
        check_lasting(-7_200, "in 2 h");
        assert!(ago(at(i64::MIN), at(0)).contains("\u{a0}d ago<"));
    }

    #[test]
    fn the_exact_time_goes_with_an_age() {
        check(
            ago(at(1_795_367_639 - 180), at(1_795_367_639)),
            "<time datetime=\"2026-11-22T17:10:59Z\" title=\"2026-11-22 17:10:59 UTC\">\
             3 min ago</time>",
        );
    }

    #[test]
    fn a_moment_has_its_date_in_utc() {
        check(utc(at(0)), "1970-01-01 00:00:00 UTC");
        check(utc(at(-1)), "1969-12-31 23:59:59 UTC");
        check(utc(at(951_782_400)), "2000-02-29 00:00:00 UTC");
        check(utc(at(4_107_542_400)), "2100-03-01 00:00:00 UTC");
        check(utc(at(1_735_689_599)), "2024-12-31 23:59:59 UTC");
        check(utc(at(253_402_300_799)), "9999-12-31 23:59:59 UTC");
        check(timestamp(UNIX_EPOCH + Duration::from_secs(9)).seconds, "9");
    }

    #[test]
    fn numbers_are_short_and_exact_where_it_matters() {
        check(grouped(0), "0");
        check(grouped(999), "999");
        check(grouped(9_043), "9,043");
        check(breakable(9_043), "9,<wbr>043");
        check(grouped(u64::MAX), "18,446,744,073,709,551,615");
        check(per_hour(None), "–");
        check(per_hour(Some(f64::NAN)), "–");
        check(per_hour(Some(0.0)), "0");
        check(per_hour(Some(0.01)), "&lt;0.1");
        check(per_hour(Some(2.0)), "2");
        check(per_hour(Some(2.44)), "2.4");
        check(per_hour(Some(1_799.6)), "1,<wbr>800");
        check(took(Duration::from_micros(68_913)), "69 ms");
        check(took(Duration::from_micros(420)), "0.4 ms");
        check(took(Duration::from_micros(999_600)), "1.00 s");
        check(took(Duration::from_micros(4_265_192)), "4.27 s");
        check(took(Duration::from_secs(90)), "90 s");
        check(percent(0.0042), "0.42 %");
        check(percent(0.1), "10 %");
        check(percent(0.0), "0 %");
        check(percent(0.000_001), "&lt;0.01 %");
        check(percent(f64::NAN), "–");
        check(percent(f64::INFINITY), "–");
    }

    #[test]
    fn a_band_is_told_by_the_edges_it_has() {
        let band = |min_frequency, max_frequency| {
            band_edges(&SubBand {
                min_frequency,
                max_frequency,
                ..SubBand::default()
            })
        };
        check(band(868_000_000, 868_600_000), "868–868.6 MHz");
        check(band(0, 863_000_000), "below 863 MHz");
        check(band(869_700_000, u64::MAX), "from 869.7 MHz");
        check(band(0, u64::MAX), "all frequencies");
    }
}
