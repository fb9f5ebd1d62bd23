//! From a snapshot to the text of /metrics, and the catalogue of every metric there is.
//!
//! Rows are written one after the other, each for all gateways, so that families stay whole. The
//! two halves of the text have no family in common: the one depends on the snapshot alone and
//! can be kept as long as that; the other changes with every request.

mod exporter;
mod gateway;
mod number;
mod text_format;

use std::time::UNIX_EPOCH;

use crate::metrics::gateway::GATEWAY_ROWS;
use crate::metrics::text_format::{Family, Label, Row, row, write_rows};
use crate::model::{Snapshot, State};

pub use crate::metrics::exporter::render_exporter;
pub use crate::metrics::text_format::CONTENT_TYPE;

#[cfg(test)]
#[path = "../../tests/unit/render_properties.rs"]
pub mod properties;

/// A gateway with everything has about 40 samples of some 110 bytes. What is reserved and not
/// used is never touched, so it costs no memory; what is missing costs a copy of everything.
const RESERVED_BYTES_PER_GATEWAY: usize = 6 * 1024;

/// Everything that depends on the snapshot alone.
pub fn render_gateways(snapshot: &Snapshot) -> Vec<u8> {
    let bytes = 1024 + snapshot.gateways.len() * RESERVED_BYTES_PER_GATEWAY;
    let mut output = Vec::with_capacity(bytes);
    write_gateways(snapshot, &mut output, |_| {});
    output
}

/// The same for who cannot hold all of it: `take` gets the output after each family, and may take out
/// what there is.
pub fn write_gateways(
    snapshot: &Snapshot,
    output: &mut Vec<u8>,
    mut take: impl FnMut(&mut Vec<u8>),
) {
    write_rows(output, &COLLECTION_ROWS, snapshot);
    for row in &GATEWAY_ROWS {
        let mut family = Family::new(output, &row.metric);
        for report in &snapshot.gateways {
            family.of_gateway(&report.gateway.gateway_id);
            (row.write)(&mut family, report);
        }
        take(output);
    }
}

#[rustfmt::skip]
const COLLECTION_ROWS: [Row<Snapshot>; 5] = [
    row("gauge", "ttn_up", &[], "1 if the API gave the list and answered every request of the last collection, 0 if not",
        |family, snapshot| family.sample(&[], snapshot.is_api_up)),
    row("gauge", "ttn_exporter_gateways", &["state"], "Gateways by state: connected, disconnected, or unknown where it could not be obtained",
        gateways_by_state),
    row("gauge", "ttn_exporter_list_timestamp_seconds", &[], "When the list of gateways was last obtained whole, since the Unix epoch",
        list_timestamp),
    row("gauge", "ttn_exporter_api_key_expiry_timestamp_seconds", &[], "When the API key expires, since the Unix epoch; absent for a key that does not",
        |family, snapshot| family.value(snapshot.key.as_ref().and_then(|key| key.expires_at))),
    row("gauge", "ttn_exporter_scrape_duration_seconds", &[], "How long the last collection took",
        |family, snapshot| family.value(snapshot.collected.map(|(_, took)| took))),
];

fn gateways_by_state(family: &mut Family<'_>, snapshot: &Snapshot) {
    for state in [State::Connected, State::Disconnected, State::Unknown] {
        let count = snapshot.count(state) as u64;
        family.sample(&[Label::Text(state.label())], count);
    }
}

fn list_timestamp(family: &mut Family<'_>, snapshot: &Snapshot) {
    let obtained_at = snapshot.list_obtained_at;
    family.value(obtained_at.and_then(|at| at.duration_since(UNIX_EPOCH).ok()));
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::error::{FetchError, Reason};
    use crate::examples;
    use crate::exposition_parser;
    use crate::metrics::exporter::{COUNTER_ROWS, PROCESS_ROWS};
    use crate::metrics::text_format::Metric;
    use crate::model::{ConnectionStats, Endpoint, Gateway, GatewayReport, GatewayStatus, KeyInfo};
    use crate::model::{
        Counters, Location, Outcome, RateLimit, RoundTripTimes, SubBand, Timestamp,
    };
    use crate::system::Process;

    /// Every metric there is, in the order of the exposition, and whether it is one of a gateway.
    fn catalogue() -> Vec<(&'static Metric, bool)> {
        let of_collection = COLLECTION_ROWS.iter().map(|row| (&row.metric, false));
        let of_gateways = GATEWAY_ROWS.iter().map(|row| (&row.metric, true));
        let of_exporter = COUNTER_ROWS.iter().map(|row| (&row.metric, false));
        let of_process = PROCESS_ROWS.iter().map(|row| (&row.metric, false));
        of_collection
            .chain(of_gateways)
            .chain(of_exporter)
            .chain(of_process)
            .collect()
    }

    const OLD_NAMES: [&str; 2] = [
        "ttn_gateway_messages_uplink_count",
        "ttn_gateway_messages_downlink_count",
    ];

    fn at(seconds: i64, nanoseconds: u32) -> Option<Timestamp> {
        Some(Timestamp {
            seconds,
            nanoseconds,
        })
    }

    fn place(antenna: usize, source: &str, latitude: f64) -> Location {
        Location {
            antenna,
            source: source.into(),
            latitude,
            longitude: -0.1257,
            altitude: 15.0,
        }
    }

    fn band(min_frequency: u64, max_frequency: u64, downlink_utilization: f64) -> SubBand {
        SubBand {
            min_frequency,
            max_frequency,
            downlink_utilization_limit: 0.1,
            downlink_utilization,
        }
    }

    fn report(gateway_id: &str, outcome: Outcome) -> GatewayReport {
        GatewayReport {
            cluster: "eu1.cloud.thethings.network".into(),
            ..examples::report(gateway_id, outcome)
        }
    }

    fn collection(gateways: Vec<GatewayReport>) -> Snapshot {
        Snapshot {
            collected: Some((UNIX_EPOCH, Duration::from_micros(123_450))),
            ..examples::snapshot(gateways)
        }
    }

    fn failure() -> Arc<FetchError> {
        Arc::new(FetchError::new(Reason::Timeout, "no answer"))
    }

    /// Everything that a gateway can have, hostile text and extreme numbers included.
    fn full_gateway() -> Gateway {
        Gateway {
            gateway_id: "all".into(),
            eui: "0016C001F1500812".into(),
            name: "A \"name\" \\ with\na line and 🛰".into(),
            frequency_plan_ids: vec!["EU_863_870_TTN".into(), "EU_863_870".into()],
            gateway_server_address: "eu1.cloud.thethings.network".into(),
            antennas: vec![place(0, "registry", 51.5), place(1, "registry", f64::NAN)],
        }
    }

    fn full_stats() -> ConnectionStats {
        let status = GatewayStatus {
            time: at(1_700_000_100, 0),
            boot_time: at(1_699_990_000, 250_000_000),
            versions: vec![
                ("hal".into(), "Version: 5.0.1; \"n\"".into()),
                ("x\\y\n".into(), "1".into()),
            ],
            antenna_locations: vec![place(0, "gps", 51.6), place(0, "registry", 99.0)],
            metrics: vec![
                ("ackr".into(), 100.0),
                ("big".into(), f64::NEG_INFINITY),
                ("temp".into(), 34.862),
            ],
        };
        ConnectionStats {
            connected_at: at(1_700_000_000, 123_456_789),
            disconnected_at: at(1_699_999_999, 0),
            protocol: "udp".into(),
            last_status_received_at: at(1_700_000_001, 1),
            last_uplink_received_at: at(1_700_000_002, 100_000_000),
            last_downlink_received_at: at(1_700_000_003, 0),
            last_tx_acknowledgment_received_at: at(1_700_000_004, 0),
            uplink_count: Some(u64::MAX),
            downlink_count: Some(9_007_199_254_740_993),
            tx_acknowledgment_count: Some(0),
            round_trip_times: Some(RoundTripTimes {
                min: Duration::from_nanos(68_913_029),
                max: Duration::from_nanos(4_265_192_138),
                median: Duration::from_secs(1),
                count: 20,
            }),
            sub_bands: vec![
                band(863_000_000, 865_000_000, 0.0031),
                band(0, u64::MAX, 0.0),
            ],
            last_status: Some(status),
            remote_ip: "2001:db8::1".into(),
            tells_state: true,
        }
    }

    fn gone_stats() -> ConnectionStats {
        ConnectionStats {
            disconnected_at: at(1_700_000_000, 0),
            protocol: "ws".into(),
            uplink_count: Some(7),
            remote_ip: "192.0.2.1".into(),
            ..examples::empty_stats()
        }
    }

    fn every_state() -> Snapshot {
        let mut all = report("all", Ok(Some(Arc::new(full_stats()))));
        all.gateway = Arc::new(full_gateway());
        let key = KeyInfo {
            expires_at: at(1_800_000_000, 0),
            missing_rights: Vec::new(),
        };
        Snapshot {
            list_obtained_at: Some(UNIX_EPOCH + Duration::from_millis(1_700_000_060_250)),
            key: Some(Arc::new(key)),
            ..collection(vec![
                all,
                report("failed", Err(failure())),
                report("gone", Ok(Some(Arc::new(gone_stats())))),
                report("never", Ok(None)),
            ])
        }
    }

    fn busy_counters() -> Counters {
        let mut counters = Counters::default();
        counters.count_error(Reason::Timeout);
        counters.requests.insert((Endpoint::List, Some(200)), 12);
        counters.requests.insert((Endpoint::Stats, None), 1);
        counters.request_count[Endpoint::List as usize] = 12;
        counters.request_duration[Endpoint::List as usize] = Duration::from_millis(2345);
        let limit = RateLimit {
            limit: 1200,
            available: 0,
        };
        let hosts = [
            "eu1.cloud.thethings.network",
            "nam1.cloud.thethings.network",
        ];
        let limits = hosts.map(|host| (host.to_string(), limit));
        counters.rate_limits = limits.into();
        counters.cache_hits = 5;
        counters
    }

    fn known_process() -> Process {
        Process {
            cpu_time: Some(Duration::from_millis(2530)),
            resident_memory_bytes: Some(4_300_800),
            virtual_memory_bytes: Some(8_601_600),
            open_fds: Some(9),
            max_fds: Some(1024),
            threads: Some(5),
            start_time: Some(Duration::from_millis(1_700_000_000_120)),
        }
    }

    fn gateways_as_text(collection: &Snapshot) -> String {
        String::from_utf8(render_gateways(collection)).expect("UTF-8")
    }

    fn whole_exposition() -> String {
        let mut text = render_gateways(&every_state());
        text.extend(render_exporter(&busy_counters(), &known_process()));
        String::from_utf8(text).expect("UTF-8")
    }

    /// Version, revision and target differ from build to build.
    fn mask_build(text: &str) -> String {
        let mask = |line: &str| {
            match line.strip_prefix("ttn_exporter_build_info{") {
            Some(_) => "ttn_exporter_build_info{version=\"MASKED\",revision=\"MASKED\",target=\"MASKED\"} 1\n".to_string(),
            None => format!("{line}\n"),
        }
        };
        text.split_terminator('\n').map(mask).collect()
    }

    #[test]
    fn the_readme_has_every_metric_with_its_type_and_labels() {
        let readme = include_str!("../../README.md");
        let (_, section) = readme.split_once("## Metrics").expect("the table");
        let rows = section
            .lines()
            .map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
        let rows: Vec<_> = rows.filter(|cells| cells.len() == 6).collect();
        for (metric, _) in catalogue() {
            let name = format!("`{}`", metric.name);
            let told = rows.iter().find(|cells| cells[1].contains(&name));
            let Some(cells) = told else {
                assert!(metric.name.starts_with("process_"), "{name}");
                continue;
            };
            assert_eq!(cells[2], metric.kind, "{name}");
            let labels: Vec<_> = cells[3].split('`').skip(1).step_by(2).collect();
            assert_eq!(labels, metric.labels, "{name}");
        }
    }

    #[test]
    fn golden_of_every_metric() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/metrics.prom");
        let rendered = mask_build(&whole_exposition());
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, &rendered).expect("the golden file can be written");
        }
        let golden = std::fs::read_to_string(path).expect("the golden file can be read");
        let lines = || rendered.split('\n').zip(golden.split('\n'));
        if let Some((line, expected)) = lines().find(|(line, expected)| line != expected) {
            panic!("got      {line}\nexpected {expected}\n(UPDATE_GOLDEN=1 accepts it)");
        }
        assert_eq!(rendered.len(), golden.len());
    }

    #[test]
    fn the_exposition_is_valid_and_holds_the_whole_catalogue_in_order() {
        let families = exposition_parser::parse(&whole_exposition()).expect("it is valid");
        let names = families.iter().map(|family| family.name.as_str());
        assert!(names.eq(catalogue().iter().map(|(metric, _)| metric.name)));
        for (family, (metric, is_of_gateway)) in families.iter().zip(catalogue()) {
            assert_eq!(family.help, metric.help);
            assert_eq!(family.kind, metric.kind);
            let labels = family.samples[0].labels.iter().map(|(name, _)| name);
            let id = is_of_gateway.then_some("gateway_id");
            let expected = id.iter().chain(metric.labels);
            assert!(labels.eq(expected), "{}", metric.name);
        }
    }

    #[test]
    fn names_follow_the_rules_that_promtool_knows() {
        let mut names = HashSet::new();
        for (metric, _) in catalogue() {
            let name = metric.name;
            assert!(names.insert(name), "{name} stands twice");
            assert!(name.starts_with("ttn_") || name.starts_with("process_"));
            assert!(!metric.help.is_empty() && !metric.help.ends_with('.'));
            let is_counter = metric.kind == "counter";
            assert_eq!(name.ends_with("_total"), is_counter, "{name}");
            let is_reserved = ["_count", "_sum", "_bucket"]
                .iter()
                .any(|suffix| name.ends_with(suffix));
            assert_eq!(is_reserved, OLD_NAMES.contains(&name), "{name}");
        }
    }

    /// The names of the families in which a gateway with this outcome appears.
    fn families_of(outcome: Outcome) -> BTreeSet<String> {
        let text = gateways_as_text(&collection(vec![report("g", outcome)]));
        let families = exposition_parser::parse(&text).expect("it is valid");
        let of_gateways = families.into_iter().map(|family| family.name);
        of_gateways
            .filter(|name| name.starts_with("ttn_gateway_"))
            .collect()
    }

    #[track_caller]
    fn check_families(outcome: Outcome, expected: &[&str]) {
        let expected = expected.iter().map(|name| format!("ttn_gateway_{name}"));
        assert_eq!(families_of(outcome), expected.collect());
    }

    #[test]
    fn a_gateway_shows_only_what_is_known_of_it() {
        check_families(Err(failure()), &["info", "scrape_success"]);
        let always = [
            "info",
            "scrape_success",
            "connected",
            "messages_uplink_count",
            "messages_downlink_count",
        ];
        check_families(Ok(None), &always);
        let with_stats = [
            "connection_info",
            "uplink_messages_total",
            "downlink_messages_total",
            "tx_acknowledgments_total",
        ];
        let empty = Arc::new(examples::empty_stats());
        check_families(Ok(Some(empty)), &[&always[..], &with_stats].concat());
        let unreadable = Arc::new(ConnectionStats {
            downlink_count: None,
            tx_acknowledgment_count: None,
            ..examples::empty_stats()
        });
        let counted = ["connection_info", "uplink_messages_total"];
        let outcome = Ok(Some(unreadable));
        check_families(outcome, &[&always[..], &counted].concat());
    }

    #[test]
    fn up_is_what_the_api_did_and_not_what_one_gateway_was_refused() {
        let mut collection = collection(vec![report("g", Err(failure()))]);
        assert!(gateways_as_text(&collection).contains("\nttn_up 1\n"));
        collection.gateways = vec![report("g", Ok(None))];
        collection.is_api_up = false;
        let text = gateways_as_text(&collection);
        assert!(text.contains("\nttn_up 0\n"));
        assert!(text.contains("\nttn_gateway_connected{gateway_id=\"g\"} 0\n"));
    }

    #[test]
    fn what_is_not_known_of_list_key_and_collection_is_absent() {
        let mut collection = collection(vec![]);
        collection.key = Some(Arc::new(KeyInfo::default()));
        collection.collected = None;
        let text = gateways_as_text(&collection);
        assert!(!text.contains("list_timestamp"), "{text}");
        assert!(!text.contains("key_expiry"), "{text}");
        assert!(!text.contains("scrape_duration"), "{text}");
    }

    #[test]
    fn round_trips_and_sub_bands_of_a_gateway_that_left_are_absent() {
        let left = |disconnected_at| ConnectionStats {
            disconnected_at,
            ..full_stats()
        };
        let of_now = |name: &String| name.contains("round_trip") || name.contains("sub_band");
        let shown = |stats| {
            families_of(Ok(Some(Arc::new(stats))))
                .into_iter()
                .filter(of_now)
        };
        assert_eq!(shown(left(None)).count(), 6);
        assert_eq!(shown(left(at(1_800_000_000, 0))).count(), 0);
    }
}
