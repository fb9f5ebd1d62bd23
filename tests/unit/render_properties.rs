//! Properties of the written text, for random input: whatever goes in comes back through the
//! strict reader of tests/it, and no collection makes an exposition that is not valid.
//!
//! Tests only; `FUZZ_SECONDS` prolongs them.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::select;

use crate::error::{FetchError, Reason};
use crate::exposition_parser::{self, Sample};
use crate::fuzz;
use crate::metrics::number::Value;
use crate::metrics::render_gateways;
use crate::metrics::text_format::{Family, Label, Metric};
use crate::model::{ConnectionStats, Gateway, GatewayReport, GatewayStatus, Location, Snapshot};
use crate::model::{Outcome, RoundTripTimes, State, SubBand, Timestamp};

/// Mostly what hurts: quotes, backslashes, newlines, syntax of the format.
pub fn text() -> impl Strategy<Value = String> {
    const HOSTILE: [char; 21] = [
        '"', '\\', '\n', '\r', '\0', '{', '}', '=', ',', ' ', '#', '🛰', 'é', 'n', '1', '<', '>',
        '&', '\'', '%', '/',
    ];
    vec(
        prop_oneof![7 => select(&HOSTILE[..]), 1 => any::<char>()],
        0..12,
    )
    .prop_map(|characters| characters.into_iter().collect())
}

/// Shifts make small numbers as likely as large ones.
fn integer() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0..64_u32).prop_map(|(number, shift)| number >> shift)
}

pub fn double() -> impl Strategy<Value = f64> {
    any::<u64>().prop_map(f64::from_bits)
}

fn nanoseconds() -> impl Strategy<Value = u32> {
    prop_oneof![0..1_000_000_000_u32, Just(0), Just(999_999_999)]
}

fn value() -> impl Strategy<Value = Value> {
    let decimal = integer().prop_map(|number| Value::Float(number as i64 as f64 / 1000.0));
    prop_oneof![
        integer().prop_map(Value::Integer),
        double().prop_map(Value::Float),
        decimal,
        duration().prop_map(Value::Seconds),
    ]
}

/// The value must come back from its text, without a detour.
#[track_caller]
fn check_same(value: Value, sample: &Sample) {
    match value {
        Value::Integer(value) => assert_eq!(sample.value.parse(), Ok(value)),
        Value::Float(value) if value.is_nan() => assert_eq!(sample.value, "NaN"),
        Value::Float(value) => assert_eq!(sample.number().to_bits(), value.to_bits()),
        Value::Seconds(seconds) => check_seconds(seconds, &sample.value),
    }
}

#[track_caller]
fn check_seconds(seconds: Duration, text: &str) {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    assert_eq!(whole.parse(), Ok(seconds.as_secs()));
    assert_eq!(
        format!("{fraction:0<9}").parse(),
        Ok(seconds.subsec_nanos())
    );
}

const METRICS: [Metric; 3] = [
    Metric {
        name: "ttn_test",
        kind: "gauge",
        labels: &["a", "b"],
        help: "A \\ backslash,\na line and a \" quote 🛰",
    },
    Metric {
        name: "ttn_other",
        kind: "gauge",
        labels: &["a", "b", "number"],
        help: "\\\n\\n",
    },
    Metric {
        name: "ttn_last",
        kind: "gauge",
        labels: &["number", "a"],
        help: "",
    },
];

/// For each metric the texts of its labels, three at most, and a value.
type Written = Vec<([String; 3], Value)>;

fn check_exposition(mut written: [Written; 3]) {
    let mut output = Vec::new();
    for (metric, samples) in METRICS.iter().zip(&mut written) {
        let mut family = Family::new(&mut output, metric);
        for (number, (texts, value)) in samples.iter_mut().enumerate() {
            // Without this two random series could be the same.
            texts[0].push_str(&number.to_string());
            let texts = &texts[..metric.labels.len()];
            let labels: Vec<Label<'_>> = texts.iter().map(|text| Label::Text(text)).collect();
            family.sample(&labels, *value);
        }
    }
    let output = String::from_utf8(output).expect("UTF-8");
    let families = exposition_parser::parse(&output).expect("what was written is valid");
    let mut families = families.iter();
    for (metric, samples) in METRICS.iter().zip(&written) {
        if samples.is_empty() {
            continue;
        }
        let family = families.next().expect("a family with samples");
        assert_eq!(family.name, metric.name);
        assert_eq!(family.help, metric.help);
        assert_eq!(family.kind, metric.kind);
        assert_eq!(family.samples.len(), samples.len());
        for (sample, (texts, value)) in family.samples.iter().zip(samples) {
            let names = sample.labels.iter().map(|(name, _)| name.as_str());
            assert!(names.eq(metric.labels.iter().copied()));
            let shown = sample.labels.iter().map(|(_, text)| text);
            assert!(shown.eq(&texts[..metric.labels.len()]));
            check_same(*value, sample);
        }
    }
    assert_eq!(families.next().map(|family| &family.name), None);
}

fn duration() -> impl Strategy<Value = Duration> {
    (integer(), nanoseconds())
        .prop_map(|(seconds, nanoseconds)| Duration::new(seconds, nanoseconds))
}

fn moment() -> impl Strategy<Value = Option<Timestamp>> {
    let moment = (any::<i64>(), 0..64_u32, nanoseconds());
    option::of(moment.prop_map(|(seconds, shift, nanoseconds)| Timestamp {
        seconds: seconds >> shift,
        nanoseconds,
    }))
}

/// Few antennas and few sources, so that some come twice.
fn places() -> impl Strategy<Value = Vec<Location>> {
    let source = select(&["registry", "gps", "\"\\\n"][..]);
    let place = (0..2_usize, source, double(), double(), double());
    let place = place.prop_map(
        |(antenna, source, latitude, longitude, altitude)| Location {
            antenna,
            source: source.into(),
            latitude,
            longitude,
            altitude,
        },
    );
    vec(place, 0..5)
}

fn sub_bands() -> impl Strategy<Value = Vec<SubBand>> {
    // The decoder keeps each range once.
    let by_range = btree_map((0..3_u64, 0..2_u64), (double(), double()), 0..5);
    by_range.prop_map(|by_range| {
        let band = |((min, below), (limit, used))| SubBand {
            min_frequency: min,
            max_frequency: u64::MAX - below,
            downlink_utilization_limit: limit,
            downlink_utilization: used,
        };
        by_range.into_iter().map(band).collect()
    })
}

fn status() -> impl Strategy<Value = Option<GatewayStatus>> {
    let versions = btree_map(text(), text(), 0..4);
    let metrics = btree_map(text(), double(), 0..4);
    let status = (moment(), moment(), versions, places(), metrics);
    option::of(
        status.prop_map(
            |(time, boot_time, versions, antenna_locations, metrics)| GatewayStatus {
                time,
                boot_time,
                versions: versions.into_iter().collect(),
                antenna_locations,
                metrics: metrics.into_iter().collect(),
            },
        ),
    )
}

fn round_trip_times() -> impl Strategy<Value = Option<RoundTripTimes>> {
    let times = (duration(), duration(), duration(), integer());
    option::of(times.prop_map(|(min, max, median, count)| RoundTripTimes {
        min,
        max,
        median,
        count,
    }))
}

fn stats() -> impl Strategy<Value = ConnectionStats> {
    let moments = [(); 6].map(|()| moment());
    let counts = [(); 3].map(|()| integer());
    let texts = [text(), text()];
    let rest = (round_trip_times(), sub_bands(), status(), any::<bool>());
    (moments, counts, texts, rest).prop_map(|(moments, counts, texts, rest)| {
        let [protocol, remote_ip] = texts;
        let (round_trip_times, sub_bands, last_status, is_readable) = rest;
        ConnectionStats {
            connected_at: moments[0],
            disconnected_at: moments[1],
            protocol,
            last_status_received_at: moments[2],
            last_uplink_received_at: moments[3],
            last_downlink_received_at: moments[4],
            last_tx_acknowledgment_received_at: moments[5],
            uplink_count: Some(counts[0]),
            downlink_count: is_readable.then_some(counts[1]),
            tx_acknowledgment_count: Some(counts[2]),
            round_trip_times,
            sub_bands,
            last_status,
            remote_ip,
            tells_state: is_readable,
        }
    })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let failed = text().prop_map(|text| Err(Arc::new(FetchError::new(Reason::Timeout, text))));
    prop_oneof![
        1 => Just(Ok(None)),
        1 => failed,
        2 => stats().prop_map(|stats| Ok(Some(Arc::new(stats)))),
    ]
}

/// Without an id.
pub fn report() -> impl Strategy<Value = GatewayReport> {
    let texts = [(); 3].map(|()| text());
    (texts, vec(text(), 0..3), places(), outcome()).prop_map(|(texts, plans, antennas, outcome)| {
        let [eui, name, gateway_server_address] = texts;
        let gateway = Gateway {
            gateway_id: String::new(),
            eui,
            name,
            frequency_plan_ids: plans,
            gateway_server_address,
            antennas,
        };
        GatewayReport {
            uplinks_per_hour: None,
            gateway: Arc::new(gateway),
            cluster: "eu1".into(),
            outcome,
        }
    })
}

fn check_collection((mut gateways, duration): (Vec<GatewayReport>, Duration)) {
    for (number, report) in gateways.iter_mut().enumerate() {
        Arc::make_mut(&mut report.gateway).gateway_id = format!("gateway-{number}");
    }
    let collection = Snapshot {
        collected: Some((UNIX_EPOCH, duration)),
        ..crate::examples::snapshot(gateways)
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
    let texts = || [(); 3].map(|()| text());
    let written = [(); 3].map(|()| vec((texts(), value()), 0..6));
    fuzz::check(1_000, written, check_exposition);
}

#[test]
fn every_collection_makes_a_valid_exposition() {
    fuzz::check(500, (vec(report(), 0..5), duration()), check_collection);
}
