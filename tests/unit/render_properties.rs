//! Properties of the written text, for random input: whatever goes in comes back through the
//! strict reader of tests/it, and no collection makes an exposition that is not valid.
//!
//! Tests only. `FUZZ_SECONDS` prolongs them; a failure names the seed that repeats it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use crate::error::{FetchError, Reason};
use crate::exposition_parser::{self, Sample};
use crate::metrics::number::Value;
use crate::metrics::render_gateways;
use crate::metrics::text_format::{Family, Kind, Label, Metric};
use crate::model::{ConnectionStats, Gateway, GatewayReport, GatewayStatus, Location, Snapshot};
use crate::model::{Outcome, RoundTripTimes, State, SubBand, Timestamp};
use crate::random::{Random, repeat};

impl Random {
    /// Mostly what hurts: quotes, backslashes, newlines, syntax of the format.
    fn text(&mut self) -> String {
        const HOSTILE: [&str; 16] = [
            "\"", "\\", "\n", "\\n", "\r", "\0", "{", "}", "=", ",", " ", "#", "🛰", "é", "a", "1",
        ];
        let character = |random: &mut Random| match random.below(8) {
            0 => char::from_u32(random.below(0x11_0000) as u32)
                .unwrap_or('x')
                .to_string(),
            _ => HOSTILE[random.below(16)].to_string(),
        };
        (0..self.below(12)).map(|_| character(self)).collect()
    }

    fn value(&mut self) -> Value {
        // Shifts make small numbers as likely as large ones.
        let shift = self.below(64);
        match self.below(4) {
            0 => Value::Integer(self.next() >> shift),
            1 => Value::Float(f64::from_bits(self.next())),
            2 => Value::Float((self.next() >> shift) as i64 as f64 / 1000.0),
            _ => Value::Seconds {
                is_negative: self.below(2) == 0,
                whole: self.next() >> shift,
                nanoseconds: self.below(1_000_000_000) as u32,
            },
        }
    }
}

/// The value must come back from its text, without a detour.
#[track_caller]
fn check_same(value: Value, sample: &Sample) {
    match value {
        Value::Integer(value) => assert_eq!(sample.value.parse(), Ok(value)),
        Value::Float(value) if value.is_nan() => assert_eq!(sample.value, "NaN"),
        Value::Float(value) => assert_eq!(sample.number().to_bits(), value.to_bits()),
        Value::Seconds {
            is_negative,
            whole,
            nanoseconds,
        } => {
            let unsigned = sample.value.strip_prefix('-');
            assert_eq!(unsigned.is_some(), is_negative);
            let unsigned = unsigned.unwrap_or(&sample.value);
            let (seconds, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
            assert_eq!(seconds.parse(), Ok(whole));
            assert_eq!(format!("{fraction:0<9}").parse(), Ok(nanoseconds));
        }
    }
}

fn check_one_random_exposition(random: &mut Random) {
    const METRICS: [Metric; 3] = [
        Metric {
            name: "ttn_test",
            kind: Kind::Gauge,
            labels: &["a", "b"],
            help: "A \\ backslash,\na line and a \" quote 🛰",
        },
        Metric {
            name: "ttn_other",
            kind: Kind::Gauge,
            labels: &["a", "b", "number"],
            help: "\\\n\\n",
        },
        Metric {
            name: "ttn_last",
            kind: Kind::Gauge,
            labels: &["number", "a"],
            help: "",
        },
    ];
    let mut output = Vec::new();
    let mut written = Vec::new();
    for metric in &METRICS {
        let mut family = Family::new(&mut output, metric);
        let mut samples = Vec::new();
        for number in 0..random.below(6) {
            let mut texts: Vec<String> = metric.labels.iter().map(|_| random.text()).collect();
            // Without this two random series could be the same.
            texts[0].push_str(&number.to_string());
            let labels: Vec<Label<'_>> = texts.iter().map(|text| Label::Text(text)).collect();
            let value = random.value();
            family.sample(&labels, value);
            samples.push((texts, value));
        }
        if !samples.is_empty() {
            written.push((metric, samples));
        }
    }
    let output = String::from_utf8(output).expect("UTF-8");
    check_read_back(&output, &written);
}

type Written<'metric> = (&'metric Metric, Vec<(Vec<String>, Value)>);

#[track_caller]
fn check_read_back(output: &str, written: &[Written<'_>]) {
    let families = exposition_parser::parse(output).expect("what was written is valid");
    assert_eq!(families.len(), written.len());
    for (family, (metric, samples)) in families.iter().zip(written) {
        assert_eq!(family.name, metric.name);
        assert_eq!(family.help, metric.help);
        assert_eq!(family.kind, metric.kind.word());
        assert_eq!(family.samples.len(), samples.len());
        for (sample, (texts, value)) in family.samples.iter().zip(samples) {
            let names = sample.labels.iter().map(|(name, _)| name.as_str());
            assert!(names.eq(metric.labels.iter().copied()));
            assert!(sample.labels.iter().map(|(_, text)| text).eq(texts));
            check_same(*value, sample);
        }
    }
}

impl Random {
    fn double(&mut self) -> f64 {
        f64::from_bits(self.next())
    }

    fn duration(&mut self) -> Duration {
        let shift = self.below(64);
        Duration::new(self.next() >> shift, self.below(1_000_000_000) as u32)
    }

    fn moment(&mut self) -> Option<Timestamp> {
        let shift = self.below(64);
        let moment = Timestamp {
            seconds: self.next() as i64 >> shift,
            nanoseconds: [0, 1, 999_999_999][self.below(3)],
        };
        (self.below(3) > 0).then_some(moment)
    }

    /// Few antennas and few sources, so that some come twice.
    fn places(&mut self) -> Vec<Location> {
        let place = |random: &mut Random| Location {
            antenna: random.below(2),
            source: ["registry", "gps", "\"\\\n"][random.below(3)].into(),
            latitude: random.double(),
            longitude: random.double(),
            altitude: random.double(),
        };
        (0..self.below(5)).map(|_| place(self)).collect()
    }

    fn sub_bands(&mut self) -> Vec<SubBand> {
        let band = |random: &mut Random| SubBand {
            min_frequency: random.below(3) as u64,
            max_frequency: u64::MAX - random.below(2) as u64,
            downlink_utilization_limit: random.double(),
            downlink_utilization: random.double(),
        };
        (0..self.below(5)).map(|_| band(self)).collect()
    }

    fn status(&mut self) -> Option<GatewayStatus> {
        let versions: BTreeMap<_, _> = (0..self.below(4))
            .map(|_| (self.text(), self.text()))
            .collect();
        let metrics: BTreeMap<_, _> = (0..self.below(4))
            .map(|_| (self.text(), self.double()))
            .collect();
        let status = GatewayStatus {
            time: self.moment(),
            boot_time: self.moment(),
            versions: versions.into_iter().collect(),
            antenna_locations: self.places(),
            metrics: metrics.into_iter().collect(),
        };
        (self.below(3) > 0).then_some(status)
    }

    fn stats(&mut self) -> ConnectionStats {
        let round_trip_times = RoundTripTimes {
            min: self.duration(),
            max: self.duration(),
            median: self.duration(),
            count: self.next(),
        };
        ConnectionStats {
            connected_at: self.moment(),
            disconnected_at: self.moment(),
            protocol: self.text(),
            last_status_received_at: self.moment(),
            last_uplink_received_at: self.moment(),
            last_downlink_received_at: self.moment(),
            last_tx_acknowledgment_received_at: self.moment(),
            uplink_count: self.next(),
            downlink_count: self.next(),
            tx_acknowledgment_count: self.next(),
            round_trip_times: (self.below(2) > 0).then_some(round_trip_times),
            sub_bands: self.sub_bands(),
            last_status: self.status(),
            remote_ip: self.text(),
            unreadable: match self.below(4) {
                0 => vec!["connected_at", "downlink_count"],
                _ => Vec::new(),
            },
        }
    }

    fn outcome(&mut self) -> Outcome {
        match self.below(4) {
            0 => Ok(None),
            1 => Err(Arc::new(FetchError::new(Reason::Timeout, self.text()))),
            _ => Ok(Some(Arc::new(self.stats()))),
        }
    }

    fn report(&mut self, number: usize) -> GatewayReport {
        let gateway = Gateway {
            gateway_id: format!("gateway-{number}"),
            eui: self.text(),
            name: self.text(),
            frequency_plan_ids: (0..self.below(3)).map(|_| self.text()).collect(),
            gateway_server_address: self.text(),
            antennas: self.places(),
        };
        GatewayReport {
            uplinks_per_hour: None,
            gateway: Arc::new(gateway),
            cluster: "eu1".into(),
            outcome: self.outcome(),
        }
    }
}

fn check_one_random_collection(random: &mut Random) {
    let collection = Snapshot {
        gateways: (0..random.below(5)).map(|n| random.report(n)).collect(),
        list_error: None,
        list_obtained_at: None,
        is_api_up: true,
        key: None,
        warnings: Vec::new(),
        at: UNIX_EPOCH,
        duration: random.duration(),
    };
    let text = String::from_utf8(render_gateways(&collection)).expect("UTF-8");
    let families = exposition_parser::parse(&text).expect("what was written is valid");
    let samples = |name: &str| -> &[Sample] {
        let family = families.iter().find(|family| family.name == name);
        family.map_or(&[], |family| &family.samples)
    };
    let unknown = collection.count(State::Unknown);
    let known = collection.gateways.len() - unknown;
    assert_eq!(samples("ttn_gateway_connected").len(), known);
    let successes = samples("ttn_gateway_scrape_success").iter();
    assert_eq!(successes.filter(|s| s.value == "0").count(), unknown);
    for (report, sample) in collection.gateways.iter().zip(samples("ttn_gateway_info")) {
        let gateway = &report.gateway;
        let values = sample.labels.iter().map(|(_, value)| value.as_str());
        assert!(values.eq([
            gateway.gateway_id.as_str(),
            &gateway.eui,
            &gateway.name,
            &gateway.frequency_plan_ids.join(","),
            &gateway.gateway_server_address,
        ]));
    }
}

#[test]
fn whatever_is_written_is_read_back_as_it_was() {
    repeat(1_000, check_one_random_exposition);
}

#[test]
fn every_collection_makes_a_valid_exposition() {
    repeat(1_000, check_one_random_collection);
}
