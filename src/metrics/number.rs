//! Numbers as Prometheus parses them: exact integers, the shortest spelling of a double, `NaN`,
//! `+Inf` and `-Inf`, and seconds to the nanosecond.
//!
//! Everything is appended to bytes that the caller owns; nothing here fails.

use std::time::Duration;

use crate::model::Timestamp;

/// The value of a sample.
#[derive(Clone, Copy, Debug)]
pub enum Value {
    Integer(u64),
    /// Written with the fewest digits that read back as the same number.
    Float(f64),
    /// Seconds, exact to the nanosecond: a double is not, for today's moments.
    Seconds(Duration),
}

impl From<u64> for Value {
    fn from(value: u64) -> Value {
        Value::Integer(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Value {
        Value::Float(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Integer(value.into())
    }
}

impl From<Duration> for Value {
    fn from(value: Duration) -> Value {
        Value::Seconds(value)
    }
}

/// Since the epoch: the decoder lets no earlier moment through.
impl From<Timestamp> for Value {
    fn from(moment: Timestamp) -> Value {
        let seconds = u64::try_from(moment.seconds).unwrap_or_default();
        Value::Seconds(Duration::new(seconds, moment.nanoseconds))
    }
}

/// Appends the value as the format spells it.
pub fn push_value(output: &mut Vec<u8>, value: Value) {
    match value {
        Value::Integer(value) => push_integer(output, value),
        Value::Float(value) => push_float(output, value),
        Value::Seconds(seconds) => push_seconds(output, seconds),
    }
}

pub fn push_integer(output: &mut Vec<u8>, value: u64) {
    output.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn push_seconds(output: &mut Vec<u8>, seconds: Duration) {
    push_integer(output, seconds.as_secs());
    if seconds.subsec_nanos() == 0 {
        return;
    }
    // One billion more keeps the leading zeros; its own digit is cut off.
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(1_000_000_000 + seconds.subsec_nanos());
    output.push(b'.');
    output.extend_from_slice(digits[1..].trim_end_matches('0').as_bytes());
}

/// zmij spells integers, too, as doubles: `100.0`.
fn push_float(output: &mut Vec<u8>, value: f64) {
    let mut buffer = zmij::Buffer::new();
    let text = match buffer.format(value) {
        "inf" => "+Inf",
        "-inf" => "-Inf",
        text => text.strip_suffix(".0").unwrap_or(text),
    };
    output.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: impl Into<Value>, expected: &str) {
        let mut output = Vec::new();
        push_value(&mut output, value.into());
        assert_eq!(str::from_utf8(&output), Ok(expected));
    }

    #[test]
    fn integers_are_exact() {
        check(0, "0");
        check(9, "9");
        check(10, "10");
        check(999_999_999, "999999999");
        check(1_000_000_000, "1000000000");
        check(10_000_000_007, "10000000007");
        check(1_000_000_000_000_000_000, "1000000000000000000");
        check(9_007_199_254_740_993, "9007199254740993");
        check(u64::MAX, "18446744073709551615");
    }

    #[test]
    fn doubles_are_short_and_spelled_as_prometheus_spells_them() {
        check(f64::NAN, "NaN");
        check(-f64::NAN, "NaN");
        check(f64::INFINITY, "+Inf");
        check(f64::NEG_INFINITY, "-Inf");
        check(0.0, "0");
        check(-0.0, "-0");
        check(100.0, "100");
        check(-3.0, "-3");
        check(34.862, "34.862");
        check(-0.1, "-0.1");
        check(1e16, "1e+16");
        check(9_007_199_254_740_992.0, "9007199254740992");
        check(5e-324, "5e-324");
        check(f64::MAX, "1.7976931348623157e+308");
    }

    #[test]
    fn seconds_are_exact_to_the_nanosecond() {
        check(Duration::new(1_700_000_000, 1), "1700000000.000000001");
        check(Duration::from_millis(68), "0.068");
        check(Duration::MAX, "18446744073709551615.999999999");
        let moment = |seconds, nanoseconds| Timestamp {
            seconds,
            nanoseconds,
        };
        check(moment(1_700_000_000, 1), "1700000000.000000001");
        check(moment(0, 0), "0");
    }
}
