//! The Prometheus text format 0.0.4: families, labels, escaping.
//!
//! A [`Family`] holds the output by mutable reference until all its samples are written, so
//! families that interleave do not compile. Samples go straight into the one output, without an
//! allocation each. This file knows nothing of gateways and never reads anything by itself.

use crate::metrics::number::{Value, push_integer, push_value};

/// The `Content-Type` of an answer in this format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is the same for every sample of a family.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// The word after `# TYPE`: counter, gauge, or summary, which is without quantiles here.
    pub kind: &'static str,
    pub name: &'static str,
    /// The names of the labels, in the order in which samples give their values. `gateway_id`
    /// comes before them in the metrics of a gateway and is not named here.
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

/// A row of a catalogue: a family, and how its samples are written from a `T`.
pub struct Row<T> {
    pub metric: Metric,
    pub write: fn(&mut Family<'_>, &T),
}

pub const fn row<T>(
    kind: &'static str,
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    write: fn(&mut Family<'_>, &T),
) -> Row<T> {
    let metric = Metric {
        kind,
        name,
        labels,
        help,
    };
    Row { metric, write }
}

/// Writes these families from `source`, one after the other.
pub fn write_rows<T>(output: &mut Vec<u8>, rows: &[Row<T>], source: &T) {
    for row in rows {
        (row.write)(&mut Family::new(output, &row.metric), source);
    }
}

/// The value of a label.
#[derive(Clone, Copy, Debug)]
pub enum Label<'value> {
    /// Any Unicode; escaped here.
    Text(&'value str),
    Integer(u64),
}

/// One family while its samples are written. HELP and TYPE go out before the first sample, so a
/// family without one leaves no trace.
pub struct Family<'output> {
    output: &'output mut Vec<u8>,
    metric: &'output Metric,
    gateway_id: Option<&'output str>,
    /// What all samples have before, between and after the values of their labels; empty before
    /// the first sample. To copy it makes writing the text a third faster.
    pieces: Vec<String>,
}

impl<'output> Family<'output> {
    pub fn new(output: &'output mut Vec<u8>, metric: &'output Metric) -> Family<'output> {
        Family {
            output,
            metric,
            gateway_id: None,
            pieces: Vec::new(),
        }
    }

    /// The samples that come next are those of this gateway. Its id is of `[a-z0-9-]` alone, since
    /// neither the decoder nor the flag lets anything else through, so it needs no escape: looking
    /// through it would be half of the work on labels.
    pub fn of_gateway(&mut self, gateway_id: &'output str) {
        debug_assert!(!gateway_id.bytes().any(is_special));
        self.gateway_id = Some(gateway_id);
    }

    /// Writes one sample; `labels` has a value for each of the metric's labels.
    pub fn sample(&mut self, labels: &[Label<'_>], value: impl Into<Value>) {
        if self.pieces.is_empty() {
            push_header(self.output, self.metric);
            self.pieces = self.pieces_of("");
        }
        self.push_sample(labels, value.into());
    }

    /// Writes the one sample of a metric without labels, where there is a value.
    pub fn value(&mut self, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.sample(&[], value);
        }
    }

    /// Writes the two samples of a summary: everything observed, and how often.
    pub fn summary(&mut self, labels: &[Label<'_>], sum: impl Into<Value>, count: u64) {
        debug_assert_eq!(self.metric.kind, "summary");
        if self.pieces.is_empty() {
            push_header(self.output, self.metric);
        }
        for (suffix, value) in [("_sum", sum.into()), ("_count", count.into())] {
            self.pieces = self.pieces_of(suffix);
            self.push_sample(labels, value);
        }
    }

    /// `NAME{LABEL="`, then `",LABEL="` for each further label, then `"} `.
    fn pieces_of(&self, suffix: &str) -> Vec<String> {
        let id = self.gateway_id.map(|_| "gateway_id");
        let mut piece = [self.metric.name, suffix].concat();
        let (mut open, mut close) = ('{', " ");
        let mut pieces = Vec::new();
        for label in id.iter().chain(self.metric.labels) {
            pieces.push(format!("{piece}{open}{label}=\""));
            (piece, open, close) = ("\"".to_owned(), ',', "} ");
        }
        pieces.push(piece + close);
        pieces
    }

    fn push_sample(&mut self, labels: &[Label<'_>], value: Value) {
        debug_assert_eq!(labels.len(), self.metric.labels.len());
        let mut pieces = self.pieces.iter();
        let mut push_piece = |output: &mut Vec<u8>| {
            let piece = pieces.next().map_or("", String::as_str);
            output.extend_from_slice(piece.as_bytes());
        };
        if let Some(id) = self.gateway_id {
            push_piece(self.output);
            self.output.extend_from_slice(id.as_bytes());
        }
        for label in labels {
            push_piece(self.output);
            match *label {
                Label::Text(text) => push_escaped(self.output, text, is_special),
                Label::Integer(number) => push_integer(self.output, number),
            }
        }
        push_piece(self.output);
        push_value(self.output, value);
        self.output.push(b'\n');
    }
}

fn push_header(output: &mut Vec<u8>, metric: &Metric) {
    let Metric { kind, name, .. } = metric;
    output.extend_from_slice(format!("# HELP {name} ").as_bytes());
    push_escaped(output, metric.help, |byte| byte != b'"' && is_special(byte));
    output.extend_from_slice(format!("\n# TYPE {name} {kind}\n").as_bytes());
}

/// What is escaped in the value of a label; HELP keeps its quotes.
fn is_special(byte: u8) -> bool {
    matches!(byte, b'\\' | b'\n' | b'"')
}

/// Special bytes are ASCII, which no other character of UTF-8 contains.
fn push_escaped(output: &mut Vec<u8>, text: &str, is_special: impl Fn(u8) -> bool) {
    let mut rest = text.as_bytes();
    while let Some(index) = rest.iter().position(|byte| is_special(*byte)) {
        output.extend_from_slice(&rest[..index]);
        let letter = match rest[index] {
            b'\n' => b'n',
            other => other,
        };
        output.extend_from_slice(&[b'\\', letter]);
        rest = &rest[index + 1..];
    }
    output.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const GAUGE: Metric = Metric {
        name: "ttn_test",
        kind: "gauge",
        labels: &["a", "b"],
        help: "A \\ backslash,\na line and a \" quote 🛰",
    };

    const HEADER: &str =
        "# HELP ttn_test A \\\\ backslash,\\na line and a \" quote 🛰\n# TYPE ttn_test gauge\n";

    #[track_caller]
    fn check(labels: [Label<'_>; 2], value: impl Into<Value>, expected: &str) {
        let mut output = Vec::new();
        Family::new(&mut output, &GAUGE).sample(&labels, value);
        let output = str::from_utf8(&output).expect("UTF-8");
        assert_eq!(output, format!("{HEADER}{expected}\n"));
    }

    #[test]
    fn a_family_without_a_sample_is_not_written() {
        let mut output = Vec::new();
        Family::new(&mut output, &GAUGE);
        assert_eq!(output, b"");
    }

    #[test]
    fn escapes_what_the_format_asks_for_and_nothing_else() {
        let text = Label::Text("\"\\\n\\n");
        check(
            [text, Label::Text("x,\"y\n,\\")],
            1,
            r#"ttn_test{a="\"\\\n\\n",b="x,\"y\n,\\"} 1"#,
        );
        let plain = Label::Text("é 🛰\t\r\0{}=,");
        check(
            [plain, Label::Text("")],
            true,
            "ttn_test{a=\"é 🛰\t\r\0{}=,\",b=\"\"} 1",
        );
        check(
            [Label::Integer(0), Label::Integer(u64::MAX)],
            false,
            r#"ttn_test{a="0",b="18446744073709551615"} 0"#,
        );
    }

    #[test]
    fn the_id_of_the_gateway_comes_before_the_other_labels() {
        let metric = Metric {
            labels: &["a"],
            ..GAUGE
        };
        let mut output = Vec::new();
        let mut family = Family::new(&mut output, &metric);
        family.of_gateway("gw-1");
        family.sample(&[Label::Integer(1)], 1);
        family.of_gateway("gw-2");
        family.sample(&[Label::Integer(2)], 2);
        let expected =
            "ttn_test{gateway_id=\"gw-1\",a=\"1\"} 1\nttn_test{gateway_id=\"gw-2\",a=\"2\"} 2\n";
        assert_eq!(str::from_utf8(&output), Ok(&*format!("{HEADER}{expected}")));
    }

    #[test]
    fn a_summary_without_labels_has_a_sum_and_a_count() {
        let metric = Metric {
            name: "ttn_s",
            kind: "summary",
            labels: &[],
            help: "s",
        };
        let mut output = Vec::new();
        Family::new(&mut output, &metric).summary(&[], Duration::from_millis(1500), 2);
        let expected = "# HELP ttn_s s\n# TYPE ttn_s summary\nttn_s_sum 1.5\nttn_s_count 2\n";
        assert_eq!(str::from_utf8(&output), Ok(expected));
    }
}
