//! The metrics of one scrape, for tests to look into.

use crate::exposition_parser::{self, Sample};

/// One exposition, read.
pub struct Scrape {
    pub text: String,
    samples: Vec<Sample>,
    /// How it was obtained, for failure messages.
    origin: String,
}

/// The value of a label of a sample.
pub fn label<'a>(sample: &'a Sample, name: &str) -> Option<&'a str> {
    let mut labels = sample.labels.iter();
    let found = labels.find(|(key, _)| key == name);
    found.map(|(_, value)| value.as_str())
}

impl Scrape {
    /// Reads it strictly: a scrape that Prometheus would merely tolerate fails the test.
    #[track_caller]
    pub fn read(text: &str, origin: &str) -> Scrape {
        let families = match exposition_parser::parse(text) {
            Ok(families) => families,
            Err(error) => panic!("{error}\n{text}\n{origin}"),
        };
        Scrape {
            samples: families.into_iter().flat_map(|f| f.samples).collect(),
            text: text.to_owned(),
            origin: origin.to_owned(),
        }
    }

    /// Every sample of this metric.
    pub fn all(&self, metric: &str) -> Vec<&Sample> {
        self.samples
            .iter()
            .filter(|sample| sample.name == metric)
            .collect()
    }

    /// The value of the one sample with at least these labels; none where there is none.
    #[track_caller]
    pub fn find(&self, metric: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let has_all = |sample: &&&Sample| {
            labels
                .iter()
                .all(|(name, value)| label(sample, name) == Some(value))
        };
        let all = self.all(metric);
        let found: Vec<_> = all.iter().filter(has_all).collect();
        assert!(found.len() < 2, "{metric}{labels:?} is not one\n{self}");
        found.first().map(|sample| sample.number())
    }

    /// The value of a metric that must be there once.
    #[track_caller]
    pub fn value(&self, metric: &str) -> f64 {
        self.value_with(metric, &[])
    }

    #[track_caller]
    pub fn value_with(&self, metric: &str, labels: &[(&str, &str)]) -> f64 {
        let value = self.find(metric, labels);
        value.unwrap_or_else(|| panic!("no {metric}{labels:?}\n{self}"))
    }

    /// The value for this gateway; none where it has no sample of it.
    #[track_caller]
    pub fn find_of(&self, metric: &str, gateway_id: &str) -> Option<f64> {
        self.find(metric, &[("gateway_id", gateway_id)])
    }

    /// The value of a counter of reasons.
    #[track_caller]
    pub fn errors(&self, reason: &str) -> f64 {
        self.value_with("ttn_exporter_errors_total", &[("reason", reason)])
    }

    /// The reasons that are not at 0.
    pub fn reasons(&self) -> Vec<(String, f64)> {
        let all = self.all("ttn_exporter_errors_total").into_iter();
        let all = all.map(|s| (label(s, "reason").unwrap_or("").to_owned(), s.number()));
        all.filter(|(_, value)| *value != 0.0).collect()
    }

    /// Asserts with the whole scrape in the message.
    #[track_caller]
    pub fn assert(&self, holds: bool, what: &str) {
        assert!(holds, "{what}\n{self}");
    }

    #[track_caller]
    pub fn assert_value(&self, metric: &str, expected: f64) -> &Scrape {
        let value = self.value(metric);
        assert_eq!(value, expected, "{metric}\n{self}");
        self
    }

    #[track_caller]
    pub fn assert_of(&self, metric: &str, gateway_id: &str, expected: Option<f64>) -> &Scrape {
        let value = self.find_of(metric, gateway_id);
        assert_eq!(value, expected, "{metric} of {gateway_id}\n{self}");
        self
    }
}

impl std::fmt::Display for Scrape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lines = self.text.lines().filter(|line| !line.starts_with('#'));
        for line in lines.take(400) {
            writeln!(f, "{line}")?;
        }
        write!(f, "{}", self.origin)
    }
}
