//! A strict reader of the Prometheus text format 0.0.4, for tests.
//!
//! It accepts what our writer may write and nothing else: whole families with one HELP and one
//! TYPE each, no series twice, the three escapes, numbers as Prometheus spells them. The lint
//! of promtool accepts much more, and so does Prometheus: what is wrong must not pass here.

use std::collections::HashSet;

/// One family: a name, and everything that is said of it.
#[derive(Debug, PartialEq)]
pub struct Family {
    pub name: String,
    pub help: String,
    pub kind: String,
    pub samples: Vec<Sample>,
}

/// One line with a value.
#[derive(Debug, PartialEq)]
pub struct Sample {
    /// The family's name; for a summary with `_sum` or `_count`.
    pub name: String,
    /// Names and unescaped values, in the order of the line.
    pub labels: Vec<(String, String)>,
    /// As it is spelled: exact integers are more than a double holds.
    pub value: String,
}

impl Sample {
    /// The number that Prometheus stores.
    pub fn number(&self) -> f64 {
        match self.value.as_str() {
            "+Inf" => f64::INFINITY,
            "-Inf" => f64::NEG_INFINITY,
            "NaN" => f64::NAN,
            text => text.parse().expect("the parser has checked it"),
        }
    }
}

/// Reads a whole exposition. The error names the line, from 1, and what is wrong with it.
pub fn parse(text: &str) -> Result<Vec<Family>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let whole = text.strip_suffix('\n').ok_or("no newline at the end")?;
    let mut parser = Parser::default();
    for (index, line) in whole.split('\n').enumerate() {
        parser
            .line(line)
            .map_err(|error| format!("line {}: {error}: {line:?}", index + 1))?;
    }
    parser.end_family()?;
    Ok(parser.families)
}

#[derive(Default)]
struct Parser {
    families: Vec<Family>,
    /// Of families, and of the samples of summaries.
    names: HashSet<String>,
    series: HashSet<(String, Vec<(String, String)>)>,
}

impl Parser {
    fn line(&mut self, line: &str) -> Result<(), String> {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            self.end_family()?;
            self.help(rest)
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            self.kind(rest)
        } else if line.starts_with('#') {
            Err("a comment".into())
        } else {
            self.sample(read_sample(line)?)
        }
    }

    fn end_family(&self) -> Result<(), String> {
        match self.families.last() {
            Some(family) if family.samples.is_empty() => {
                Err(format!("no sample of {}", family.name))
            }
            _ => Ok(()),
        }
    }

    fn help(&mut self, rest: &str) -> Result<(), String> {
        let (name, help) = rest.split_once(' ').ok_or("no help text")?;
        check_name(name, "_:")?;
        self.claim(name)?;
        self.families.push(Family {
            name: name.into(),
            help: unescape(help, "\\n")?,
            kind: String::new(),
            samples: Vec::new(),
        });
        Ok(())
    }

    fn kind(&mut self, rest: &str) -> Result<(), String> {
        let (name, kind) = rest.split_once(' ').ok_or("no type")?;
        let family = self.families.last_mut().ok_or("TYPE before HELP")?;
        if family.name != name || !family.kind.is_empty() || !family.samples.is_empty() {
            return Err("TYPE does not follow its HELP".into());
        }
        family.kind = kind.into();
        match kind {
            "counter" | "gauge" => Ok(()),
            "summary" => {
                self.claim(&format!("{name}_sum"))?;
                self.claim(&format!("{name}_count"))
            }
            _ => Err("a type that this exporter does not have".into()),
        }
    }

    fn claim(&mut self, name: &str) -> Result<(), String> {
        let is_new = self.names.insert(name.into());
        is_new.then_some(()).ok_or("the name came before".into())
    }

    fn sample(&mut self, sample: Sample) -> Result<(), String> {
        let family = self.families.last_mut().ok_or("a sample before HELP")?;
        check_membership(family, &sample)?;
        if let Some(first) = family.samples.first()
            && !first
                .labels
                .iter()
                .map(name)
                .eq(sample.labels.iter().map(name))
        {
            return Err("other labels, or in another order, than before".into());
        }
        let mut labels = sample.labels.clone();
        labels.sort();
        if labels
            .windows(2)
            .any(|pair| name(&pair[0]) == name(&pair[1]))
        {
            return Err("a label twice".into());
        }
        if !self.series.insert((sample.name.clone(), labels)) {
            return Err("a series twice".into());
        }
        family.samples.push(sample);
        Ok(())
    }
}

fn name(label: &(String, String)) -> &str {
    &label.0
}

fn check_membership(family: &Family, sample: &Sample) -> Result<(), String> {
    let suffix = sample.name.strip_prefix(family.name.as_str());
    let is_member = match family.kind.as_str() {
        "" => return Err("no TYPE before the sample".into()),
        "summary" => matches!(suffix, Some("_sum" | "_count")),
        _ => suffix == Some(""),
    };
    if !is_member {
        return Err("a sample of another family".into());
    }
    let must_not_fall = family.kind == "counter" || suffix == Some("_count");
    if must_not_fall && !sample.value.starts_with(|c: char| c.is_ascii_digit()) {
        return Err("a counter that is no positive number".into());
    }
    Ok(())
}

/// `name{label="value",…} number`, the braces only around labels.
fn read_sample(line: &str) -> Result<Sample, String> {
    let end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, mut rest) = line.split_at(end);
    check_name(name, "_:")?;
    let mut labels = Vec::new();
    if rest.starts_with('{') {
        (labels, rest) = read_labels(&rest[1..])?;
    }
    let value = rest.strip_prefix(' ').ok_or("no space before the value")?;
    check_number(value)?;
    Ok(Sample {
        name: name.into(),
        labels,
        value: value.into(),
    })
}

type Labels = Vec<(String, String)>;

/// Returns the labels and what follows the closing brace.
fn read_labels(mut rest: &str) -> Result<(Labels, &str), String> {
    let mut labels = Vec::new();
    loop {
        let (name, after) = rest.split_once("=\"").ok_or("no label value")?;
        check_name(name, "_")?;
        if name.starts_with("__") {
            return Err("a label that belongs to Prometheus".into());
        }
        let end = end_of_quotes(after).ok_or("no closing quote")?;
        labels.push((name.into(), unescape(&after[..end], "\\n\"")?));
        rest = &after[end + 1..];
        if let Some(after) = rest.strip_prefix('}') {
            return Ok((labels, after));
        }
        rest = rest.strip_prefix(',').ok_or("no comma between labels")?;
    }
}

/// The index of the first quote without a backslash of its own.
fn end_of_quotes(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    text.bytes().position(|byte| {
        let is_end = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    })
}

fn unescape(text: &str, allowed: &str) -> Result<String, String> {
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            plain.push(character);
            continue;
        }
        match characters.next().filter(|c| allowed.contains(*c)) {
            Some('n') => plain.push('\n'),
            Some(other) => plain.push(other),
            None => return Err("an escape that is none".into()),
        }
    }
    Ok(plain)
}

fn check_name(name: &str, others: &str) -> Result<(), String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || others.contains(c);
    let starts_well = !name.starts_with(|c: char| c.is_ascii_digit()) && !name.is_empty();
    if starts_well && name.chars().all(is_allowed) {
        Ok(())
    } else {
        Err(format!("{name:?} is no name"))
    }
}

/// `NaN`, `+Inf`, `-Inf`, or `-`digits`.`digits`e-`digits, whose parts but the first digits may
/// be missing; an exponent has its sign, `+` too, as Prometheus's own programs write it. No other
/// plus sign, no leading zero, no white space, no time after it.
fn check_number(text: &str) -> Result<(), String> {
    if matches!(text, "NaN" | "+Inf" | "-Inf") {
        return Ok(());
    }
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = unsigned.split_once('e').unwrap_or((unsigned, "+0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let exponent = exponent.strip_prefix(['-', '+']).unwrap_or_default();
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let is_plain = whole == "0" || !whole.starts_with('0');
    if is_plain && [whole, fraction, exponent].into_iter().all(is_digits) {
        Ok(())
    } else {
        Err(format!("{text:?} is no number"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<usize, &str>) {
        match (parse(text), expected) {
            (Ok(families), Ok(count)) => assert_eq!(families.len(), count, "{text}"),
            (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
            (result, _) => panic!("{result:?} for {text}"),
        }
    }

    #[test]
    fn whole_families_are_accepted() {
        check("", Ok(0));
        check("# HELP a b\n# TYPE a gauge\na 1\n", Ok(1));
        check(
            "# HELP a \n# TYPE a gauge\na{b=\"\\\\\\\"\\n}\"} -1.5e-7\n",
            Ok(1),
        );
        check(
            "# HELP a b\n# TYPE a summary\na_sum 1.5\na_count 2\n",
            Ok(1),
        );
        check(
            "# HELP a b\n# TYPE a gauge\na{l=\"1\"} NaN\na{l=\"2\"} +Inf\n",
            Ok(1),
        );
    }

    #[test]
    fn what_promtool_lets_pass_is_refused() {
        let a = "# HELP a h\n# TYPE a gauge\na 1\n";
        let b = "# HELP b h\n# TYPE b gauge\nb 1\n";
        check(&format!("{a}{b}a 2\n"), Err("another family"));
        check(&format!("{a}{b}{a}"), Err("came before"));
        check(&format!("{a}a 1\n"), Err("a series twice"));
        check("a 1\n", Err("before HELP"));
        check("# HELP a h\na 1\n", Err("no TYPE"));
        check("# TYPE a gauge\na 1\n", Err("TYPE before HELP"));
        check("# HELP a h\n# TYPE a gauge\n", Err("no sample"));
        check("# HELP a h\n# TYPE a histogram\na 1\n", Err("a type"));
        check("# HELP a h\n# TYPE a summary\na 1\n", Err("another family"));
        check("# HELP a h\n# TYPE a counter\na -1\n", Err("a counter"));
        check("# HELP a h\n# TYPE a gauge\na 1", Err("no newline"));
        check(&format!("{a}\n"), Err("no value"));
        check(&format!("{a}# EOF\n"), Err("a comment"));
    }

    #[test]
    fn the_name_of_a_summarys_count_is_taken() {
        let summary = "# HELP a h\n# TYPE a summary\na_sum 1\na_count 1\n";
        let gauge = "# HELP a_count h\n# TYPE a_count gauge\na_count 1\n";
        check(&format!("{summary}{gauge}"), Err("came before"));
        check(&format!("{gauge}{summary}"), Err("came before"));
    }

    #[test]
    fn labels_and_numbers_have_one_spelling() {
        let gauge = |sample: &str| format!("# HELP a h\n# TYPE a gauge\n{sample}\n");
        for number in [
            "inf", "+inf", "nan", "+1", "1.", ".5", "01", "1e", "1e5", "1+5", "0x1", "1 2", " 1",
            "", "-",
        ] {
            check(&gauge(&format!("a {number}")), Err("no number"));
        }
        check(&gauge("a{} 1"), Err("no label value"));
        check(&gauge("a{l=\"1\",} 1"), Err("no label value"));
        check(&gauge("a{l=\"1\" 1"), Err("no comma"));
        check(&gauge("a{l=\"1} 1"), Err("no closing quote"));
        check(&gauge("a{l=\"\\t\"} 1"), Err("an escape"));
        check(&gauge("a{l=\"1\",l=\"2\"} 1"), Err("a label twice"));
        check(&gauge("a{__l=\"1\"} 1"), Err("belongs to Prometheus"));
        check(&gauge("a{1=\"1\"} 1"), Err("no name"));
        check(&gauge("a{l=\"1\"}\t1"), Err("no space"));
        check(&gauge("a{l=\"1\"} 1\na{m=\"1\"} 1"), Err("other labels"));
        let families = parse(&gauge("a{l=\"x\\ny\"} -Inf")).expect("a whole family");
        let sample = &families[0].samples[0];
        assert_eq!(sample.labels, [("l".to_string(), "x\ny".to_string())]);
        assert_eq!(sample.number(), f64::NEG_INFINITY);
        assert_eq!(families[0].help, "h");
    }
}
