//! How the status page writes its values: text from the API escaped and isolated, ages,
//! moments, numbers, frequencies. Each is a `Display`, so that it can stand in a `format!`.
//!
//! All markup that holds a value from the API goes through [`Escaped`] or [`Isolated`]; in an
//! attribute it stands only as a part of a URL, percent-encoded.

use std::fmt::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::model::{SubBand, Timestamp};

/// Longer text is cut: no honest name, host or message comes near.
const TEXT_CAP_CHARS: usize = 400;

/// Text as HTML text: markup is inert, white space is plain, control characters are visible
/// as U+FFFD, and no more than 400 characters are shown.
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, character) in self.0.chars().enumerate() {
            match character {
                _ if index == TEXT_CAP_CHARS => return f.write_char('…'),
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '&' => f.write_str("&amp;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                _ if character.is_whitespace() => f.write_char(' ')?,
                _ if character.is_control() => f.write_char(char::REPLACEMENT_CHARACTER)?,
                _ => f.write_char(character)?,
            }
        }
        Ok(())
    }
}

/// [`Escaped`] in an element that keeps its writing direction, overrides included, from
/// reaching the text around it.
pub struct Isolated<'a>(pub &'a str);

impl fmt::Display for Isolated<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<bdi>{}</bdi>", Escaped(self.0))
    }
}

/// A host name that may break after its dots.
pub struct Host<'a>(pub &'a str);

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escaped = Escaped(self.0).to_string();
        write!(f, "<bdi>{}</bdi>", escaped.replace('.', ".<wbr>"))
    }
}

/// Seconds since the Unix epoch; negative before it.
pub fn unix_seconds(time: SystemTime) -> i64 {
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => seconds(since),
        Err(before) => -seconds(before.duration()),
    }
}

/// A [`Timestamp`] of this machine's clock.
pub fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp {
        seconds: unix_seconds(time),
        nanoseconds: 0,
    }
}

/// A moment relative to now, with the exact time for hovering and for machines.
pub struct When {
    pub at: Timestamp,
    pub now: SystemTime,
    pub tense: Tense,
}

/// How a moment is told.
#[derive(Clone, Copy)]
pub enum Tense {
    /// "3 min ago"
    Event,
    /// "for 3 min"
    Lasting,
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let utc = Utc(self.at);
        let exact = utc.to_string();
        write!(f, "<time datetime=\"{}\" title=\"{exact}\">", utc.machine())?;
        let age_seconds = unix_seconds(self.now).saturating_sub(self.at.seconds);
        match (amount(age_seconds.unsigned_abs()), self.tense) {
            (None, _) => f.write_str("just now")?,
            // A clock is wrong; the page says so above the table.
            (Some(ahead), _) if age_seconds < 0 => write!(f, "in {ahead}")?,
            (Some(age), Tense::Event) => write!(f, "{age} ago")?,
            (Some(age), Tense::Lasting) => write!(f, "for {age}")?,
        }
        f.write_str("</time>")
    }
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
pub struct Utc(pub Timestamp);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (date, time) = self.date_and_time();
        write!(f, "{date} {time} UTC")
    }
}

impl Utc {
    /// As the attribute `datetime` wants it: "2026-11-22T17:13:59Z".
    fn machine(&self) -> String {
        let (date, time) = self.date_and_time();
        format!("{date}T{time}Z")
    }

    /// "17:13:59"
    pub fn time_of_day(&self) -> String {
        self.date_and_time().1
    }

    fn date_and_time(&self) -> (String, String) {
        let day = self.0.seconds.div_euclid(86_400);
        let second = self.0.seconds.rem_euclid(86_400);
        let (year, month, day) = civil_date(day);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        (
            format!("{year:04}-{month:02}-{day:02}"),
            format!("{hour:02}:{minute:02}:{second:02}"),
        )
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
///
/// Years are counted from March, so that the day that leap years add comes last; 719,468
/// is the number of days from 0000-03-01, and 400 years always have 146,097 days.
fn civil_date(days_since_epoch: i64) -> (i64, i64, i64) {
    let days = days_since_epoch + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

/// A count with its thousands apart: "9,043".
pub struct Grouped(pub u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                f.write_char(',')?;
            }
            f.write_char(digit)?;
        }
        Ok(())
    }
}

/// A count that may break after its commas, where there is little room.
pub struct Count(pub u64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Grouped(self.0).to_string().replace(',', ",<wbr>"))
    }
}

/// A rate: "1,800", "2.4"; a dash where it is not known yet.
pub struct PerHour(pub Option<f64>);

impl fmt::Display for PerHour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(rate) if rate >= 9.95 => Count(rate.round() as u64).fmt(f),
            Some(rate) if rate > 0.0 && rate < 0.05 => f.write_str("&lt;0.1"),
            Some(rate) if rate > 0.0 => {
                let rounded = format!("{rate:.1}");
                f.write_str(rounded.trim_end_matches(".0"))
            }
            Some(rate) if rate <= 0.0 => f.write_char('0'),
            _ => f.write_char('–'),
        }
    }
}

/// A duration to three digits: "69 ms", "4.27 s".
pub struct Took(pub Duration);

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        match seconds {
            _ if seconds < 0.0095 => write!(f, "{:.1}\u{a0}ms", seconds * 1e3),
            _ if seconds < 0.9995 => write!(f, "{:.0}\u{a0}ms", seconds * 1e3),
            _ if seconds < 9.995 => write!(f, "{seconds:.2}\u{a0}s"),
            _ => write!(f, "{seconds:.0}\u{a0}s"),
        }
    }
}

/// A fraction of time as a percentage that is short but never a misleading zero: "0.42 %".
pub struct Percent(pub f64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = self.0 * 100.0;
        let rounded = format!("{percent:.2}");
        match rounded.trim_end_matches('0').trim_end_matches('.') {
            "0" if percent > 0.0 => f.write_str("&lt;0.01\u{a0}%"),
            short => write!(f, "{short}\u{a0}%"),
        }
    }
}

/// The edges of a band: "868–868.6 MHz", "from 869.7 MHz", "below 863 MHz".
pub struct Band(pub SubBand);

impl fmt::Display for Band {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megahertz = |hertz: u64| hertz as f64 / 1e6;
        let (from, to) = (
            megahertz(self.0.min_frequency),
            megahertz(self.0.max_frequency),
        );
        match (self.0.min_frequency, self.0.max_frequency) {
            (0, 0 | u64::MAX) => f.write_str("all frequencies"),
            (0, _) => write!(f, "below {to}\u{a0}MHz"),
            (_, u64::MAX) => write!(f, "from {from}\u{a0}MHz"),
            _ => write!(f, "{from}–{to}\u{a0}MHz"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(shown: impl fmt::Display, expected: &str) {
        let plain = shown.to_string().replace('\u{a0}', " ");
        assert_eq!(plain, expected);
    }

    fn after_epoch(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp {
            seconds,
            nanoseconds: 0,
        }
    }

    #[track_caller]
    fn check_age(age_seconds: i64, tense: Tense, expected: &str) {
        let now = after_epoch(1_800_000_000);
        let at = at(1_800_000_000 - age_seconds);
        let shown = When { at, now, tense }.to_string();
        let words = shown.split(['<', '>']).nth(2).unwrap_or_default();
        check(words, expected);
    }

    #[test]
    fn text_from_the_api_is_inert_isolated_and_bounded() {
        check(
            Isolated("<script>alert(1)</script>"),
            "<bdi>&lt;script&gt;alert(1)&lt;/script&gt;</bdi>",
        );
        check(Escaped("\"a\" & 'b'"), "&quot;a&quot; &amp; &#39;b&#39;");
        check(Escaped("one\ntwo\tthree"), "one two three");
        check(Escaped("bell\u{7} null\0"), "bell\u{fffd} null\u{fffd}");
        check(Isolated("\u{202e}drawkcab"), "<bdi>\u{202e}drawkcab</bdi>");
        check(Host("a.b<c"), "<bdi>a.<wbr>b&lt;c</bdi>");
        let long = Escaped(&"ä".repeat(10_000)).to_string();
        assert_eq!(long.chars().count(), 401);
    }

    #[test]
    fn an_age_is_told_in_its_largest_unit() {
        check_age(0, Tense::Event, "just now");
        check_age(59, Tense::Event, "just now");
        check_age(60, Tense::Event, "1 min ago");
        check_age(239, Tense::Event, "3 min ago");
        check_age(3_599, Tense::Event, "59 min ago");
        check_age(3_600, Tense::Event, "1 h ago");
        check_age(2 * 3_600 + 5, Tense::Event, "2 h ago");
        check_age(172_799, Tense::Event, "47 h ago");
        check_age(5 * 86_400, Tense::Lasting, "for 5 d");
    }

    #[test]
    fn a_clock_that_runs_behind_gives_no_negative_age() {
        check_age(-59, Tense::Event, "just now");
        check_age(-180, Tense::Event, "in 3 min");
        check_age(-7_200, Tense::Lasting, "in 2 h");
        let now = SystemTime::UNIX_EPOCH;
        let at = at(i64::MIN);
        let tense = Tense::Event;
        assert!(When { at, now, tense }.to_string().contains("\u{a0}d ago<"));
    }

    #[test]
    fn the_exact_time_goes_with_an_age() {
        let now = after_epoch(1_795_367_639);
        let at = at(1_795_367_639 - 180);
        let tense = Tense::Event;
        check(
            When { at, now, tense },
            "<time datetime=\"2026-11-22T17:10:59Z\" title=\"2026-11-22 17:10:59 UTC\">\
             3 min ago</time>",
        );
    }

    #[test]
    fn a_moment_has_its_date_in_utc() {
        check(Utc(at(0)), "1970-01-01 00:00:00 UTC");
        check(Utc(at(-1)), "1969-12-31 23:59:59 UTC");
        check(Utc(at(951_782_400)), "2000-02-29 00:00:00 UTC");
        check(Utc(at(4_107_542_400)), "2100-03-01 00:00:00 UTC");
        check(Utc(at(1_735_689_599)), "2024-12-31 23:59:59 UTC");
        check(Utc(at(253_402_300_799)), "9999-12-31 23:59:59 UTC");
        check(timestamp(UNIX_EPOCH - Duration::from_secs(9)).seconds, "-9");
    }

    #[test]
    fn numbers_are_short_and_exact_where_it_matters() {
        check(Grouped(0), "0");
        check(Grouped(999), "999");
        check(Grouped(9_043), "9,043");
        check(Count(9_043), "9,<wbr>043");
        check(Grouped(u64::MAX), "18,446,744,073,709,551,615");
        check(PerHour(None), "–");
        check(PerHour(Some(f64::NAN)), "–");
        check(PerHour(Some(0.0)), "0");
        check(PerHour(Some(0.01)), "&lt;0.1");
        check(PerHour(Some(2.0)), "2");
        check(PerHour(Some(2.44)), "2.4");
        check(PerHour(Some(1_799.6)), "1,<wbr>800");
        check(Took(Duration::from_micros(68_913)), "69 ms");
        check(Took(Duration::from_micros(420)), "0.4 ms");
        check(Took(Duration::from_micros(999_600)), "1.00 s");
        check(Took(Duration::from_micros(4_265_192)), "4.27 s");
        check(Took(Duration::from_secs(90)), "90 s");
        check(Percent(0.0042), "0.42 %");
        check(Percent(0.1), "10 %");
        check(Percent(0.0), "0 %");
        check(Percent(0.000_001), "&lt;0.01 %");
    }

    #[test]
    fn a_band_is_told_by_the_edges_it_has() {
        let band = |min_frequency, max_frequency| {
            Band(SubBand {
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
