//! The Prometheus text format 0.0.4: families, labels, escaping.
//!
//! A [`Family`] holds the output by mutable reference until all its samples are written, so
//! families that interleave do not compile. Samples go straight into the one string, without an
//! allocation each. This file knows nothing of gateways and never reads anything by itself.

use crate::number::{Value, push_integer, push_value};

/// The `Content-Type` of an answer in this format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The word after `# TYPE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    /// Without quantiles: a sum and a count.
    Summary,
}

impl Kind {
    pub fn word(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Summary => "summary",
        }
    }
}

/// What is the same for every sample of a family.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    /// The names of the labels, in the order in which samples give their values.
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

/// A family, and how its samples are written from a `T`.
pub struct Row<T> {
    pub metric: Metric,
    pub write: fn(&mut Family<'_>, &T),
}

const fn row<T>(
    kind: Kind,
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    write: fn(&mut Family<'_>, &T),
) -> Row<T> {
    let metric = Metric {
        name,
        kind,
        labels,
        help,
    };
    Row { metric, write }
}

pub const fn counter<T>(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    write: fn(&mut Family<'_>, &T),
) -> Row<T> {
    row(Kind::Counter, name, labels, help, write)
}

pub const fn gauge<T>(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    write: fn(&mut Family<'_>, &T),
) -> Row<T> {
    row(Kind::Gauge, name, labels, help, write)
}

pub const fn summary<T>(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    write: fn(&mut Family<'_>, &T),
) -> Row<T> {
    row(Kind::Summary, name, labels, help, write)
}

/// The value of a label.
#[derive(Clone, Copy, Debug)]
pub enum Label<'value> {
    /// Any Unicode; escaped here.
    Text(&'value str),
    Integer(u64),
    /// Several texts with commas between them.
    Joined(&'value [String]),
}

/// One family while its samples are written. HELP and TYPE go out before the first sample, so a
/// family without one leaves no trace.
pub struct Family<'output> {
    output: &'output mut String,
    metric: &'output Metric,
    has_samples: bool,
}

impl<'output> Family<'output> {
    pub fn new(output: &'output mut String, metric: &'output Metric) -> Family<'output> {
        Family {
            output,
            metric,
            has_samples: false,
        }
    }

    /// Writes one sample; `labels` has a value for each of the metric's labels.
    pub fn sample(&mut self, labels: &[Label<'_>], value: impl Into<Value>) {
        self.line("", labels, value.into());
    }

    /// Writes the two samples of a summary: everything observed, and how often.
    pub fn summary(&mut self, labels: &[Label<'_>], sum: impl Into<Value>, count: u64) {
        debug_assert_eq!(self.metric.kind, Kind::Summary);
        self.line("_sum", labels, sum.into());
        self.line("_count", labels, count.into());
    }

    fn line(&mut self, suffix: &str, labels: &[Label<'_>], value: Value) {
        if !self.has_samples {
            self.has_samples = true;
            push_header(self.output, self.metric);
        }
        self.output.push_str(self.metric.name);
        self.output.push_str(suffix);
        push_labels(self.output, self.metric.labels, labels);
        self.output.push(' ');
        push_value(self.output, value);
        self.output.push('\n');
    }
}

fn push_header(output: &mut String, metric: &Metric) {
    output.push_str("# HELP ");
    output.push_str(metric.name);
    output.push(' ');
    push_escaped(output, metric.help, |byte| matches!(byte, b'\\' | b'\n'));
    output.push_str("\n# TYPE ");
    output.push_str(metric.name);
    output.push(' ');
    output.push_str(metric.kind.word());
    output.push('\n');
}

fn push_labels(output: &mut String, names: &[&str], values: &[Label<'_>]) {
    debug_assert_eq!(names.len(), values.len());
    let mut before = "{";
    for (name, value) in names.iter().zip(values) {
        output.push_str(before);
        output.push_str(name);
        output.push_str("=\"");
        push_label_value(output, *value);
        before = "\",";
    }
    if !names.is_empty() {
        output.push_str("\"}");
    }
}

fn push_label_value(output: &mut String, value: Label<'_>) {
    match value {
        Label::Text(text) => push_label_text(output, text),
        Label::Integer(value) => push_integer(output, value),
        Label::Joined(texts) => {
            for (index, text) in texts.iter().enumerate() {
                if index > 0 {
                    output.push(',');
                }
                push_label_text(output, text);
            }
        }
    }
}

fn push_label_text(output: &mut String, text: &str) {
    push_escaped(output, text, |byte| matches!(byte, b'\\' | b'\n' | b'"'));
}

/// Copies whole stretches: hardly any text needs an escape. What is escaped is ASCII, so the
/// text is only ever cut between characters.
fn push_escaped(output: &mut String, mut text: &str, is_special: impl Fn(u8) -> bool) {
    while let Some(index) = text.bytes().position(&is_special) {
        output.push_str(&text[..index]);
        output.push_str(match text.as_bytes()[index] {
            b'\n' => "\\n",
            b'"' => "\\\"",
            _ => "\\\\",
        });
        text = &text[index + 1..];
    }
    output.push_str(text);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const GAUGE: Metric = Metric {
        name: "ttn_test",
        kind: Kind::Gauge,
        labels: &["a", "b"],
        help: "A \\ backslash,\na line and a \" quote 🛰",
    };

    const HEADER: &str =
        "# HELP ttn_test A \\\\ backslash,\\na line and a \" quote 🛰\n# TYPE ttn_test gauge\n";

    #[track_caller]
    fn check(labels: [Label<'_>; 2], value: impl Into<Value>, expected: &str) {
        let mut output = String::new();
        Family::new(&mut output, &GAUGE).sample(&labels, value);
        assert_eq!(output, format!("{HEADER}{expected}\n"));
    }

    #[test]
    fn a_family_without_a_sample_is_not_written() {
        let mut output = String::new();
        Family::new(&mut output, &GAUGE);
        assert_eq!(output, "");
    }

    #[test]
    fn escapes_what_the_format_asks_for_and_nothing_else() {
        let text = Label::Text("\"\\\n\\n");
        let joined = ["x".to_string(), "\"y\n".to_string(), "\\".to_string()];
        check(
            [text, Label::Joined(&joined)],
            1,
            r#"ttn_test{a="\"\\\n\\n",b="x,\"y\n,\\"} 1"#,
        );
        let plain = Label::Text("é 🛰\t\r\0{}=,");
        check(
            [plain, Label::Joined(&[])],
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
    fn a_summary_without_labels_has_a_sum_and_a_count() {
        let metric = Metric {
            name: "ttn_s",
            kind: Kind::Summary,
            labels: &[],
            help: "s",
        };
        let mut output = String::new();
        Family::new(&mut output, &metric).summary(&[], Duration::from_millis(1500), 2);
        let expected = "# HELP ttn_s s\n# TYPE ttn_s summary\nttn_s_sum 1.5\nttn_s_count 2\n";
        assert_eq!(output, expected);
    }
}
