//! From a gateway to a firing alert: the fake Things Stack, the real exporter and a real
//! Prometheus with the queries, the rules and the scrape job as they are shipped, only that a
//! minute is a second.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use crate::assets::{ALERTS, SCRAPE_CONFIG, metrics_named_in, queries};
use crate::fake::{Fake, Fleet, Gateway, Misbehaviour, clock, demo};
use crate::harness::{Exporter, Setup};
use crate::prometheus::{Prometheus, is_installed, wait_until};

const JOB: &str = "ttn-gateway-exporter";

/// An exporter that remembers nothing for longer than Prometheus waits between two scrapes.
fn exporter_for(fake: &Fake) -> Exporter {
    let arguments = ["--ttl", "1", "--list-ttl", "1"];
    Setup::against(fake).args(arguments).start()
}

/// A Prometheus with the shipped rules and scrape job, a second for each minute.
fn prometheus_for(exporters: &[&Exporter]) -> Prometheus {
    let targets = exporters
        .iter()
        .map(|exporter| exporter.address.to_string());
    let targets: Vec<String> = targets.collect();
    let job = SCRAPE_CONFIG
        .replace("scrape_interval: 60s", "scrape_interval: 1s")
        .replace("scrape_timeout: 30s", "scrape_timeout: 1s")
        .replace("localhost:9714", &targets.join("\", \""));
    let rules = ALERTS
        .replace("5m", "5s")
        .replace("10m", "10s")
        .replace("15m", "15s");
    let config = format!("global: {{evaluation_interval: 1s}}\nrule_files: [rules.yml]\n{job}");
    Prometheus::start(&config, &[("rules.yml", &rules)])
}

/// A query as Grafana sends it when everything is chosen.
fn filled_in(expression: &str) -> String {
    let variables = ["$job", "$instance", "$gateway", "$metric"];
    let all = |text: String, variable| text.replace(variable, ".+");
    let expression = variables.into_iter().fold(expression.to_owned(), all);
    let expression = expression.replace("$__rate_interval", "20s");
    expression.replace("$__range", "1m").replace("$step", "1s")
}

/// Two exporters watch the same gateways, in every state that there is.
#[test]
fn every_query_of_the_dashboard_and_every_rule_works_and_finds_data() {
    if !is_installed("prometheus") {
        return;
    }
    let now = clock::now_seconds();
    let mut fleet = demo::fleet(now);
    fleet.keys = vec![demo::key(now)];
    let fake = Fake::start(fleet);
    fake.set_rate_limit(1_000_000, Duration::from_secs(3_600));
    let exporters = [exporter_for(&fake), exporter_for(&fake)];
    let prometheus = prometheus_for(&exporters.each_ref());
    wait_until(
        "both are scraped some times, and rules evaluated",
        60,
        || {
            let rules = "count_over_time(job_gateway_id:ttn_gateway_connected:max[1m])";
            prometheus.value("min(count_over_time(ttn_up[1m]))") >= Some(4.0)
                && prometheus.value("count(count by (instance) (ttn_up))") == Some(2.0)
                && prometheus.value(&format!("min({rules})")) >= Some(4.0)
        },
    );
    for query in queries() {
        check_query(&prometheus, &query.place, &filled_in(&query.expression));
    }
    for metric in metrics_named_in(ALERTS) {
        let count = prometheus.value(&format!("count({metric})"));
        assert!(count.is_some(), "{metric}");
    }
    for (rule, problem) in prometheus.rules() {
        assert_eq!(problem, "", "{rule}");
    }
}

/// It finds something, and in the table each gateway once, whoever watches it.
#[track_caller]
fn check_query(prometheus: &Prometheus, place: &str, expression: &str) {
    let found = prometheus.query(expression);
    assert!(!found.is_empty(), "{place}: {expression}");
    let has_numbers = found.iter().any(|series| !series.value.is_nan());
    assert!(has_numbers, "{place}: {found:?}");
    if place == "Gateways" {
        let keys = found.iter().map(|s| s.label("gateway"));
        let keys: BTreeSet<&str> = keys.collect();
        assert_eq!(keys.len(), found.len(), "{expression}\n{found:?}");
    }
}

/// What one test looks at.
struct Scene {
    fake: Fake,
    exporter: Exporter,
    prometheus: Prometheus,
}

impl Scene {
    fn of(gateways: [Gateway; 2]) -> Scene {
        let fake = Fake::start(Fleet::of(gateways));
        let exporter = exporter_for(&fake);
        let prometheus = prometheus_for(&[&exporter]);
        Scene {
            fake,
            exporter,
            prometheus,
        }
    }

    fn has(&self, expression: &str, value: f64) -> bool {
        self.prometheus.value(expression) == Some(value)
    }

    /// Whether Prometheus sees this gateway connected (1) or not (0).
    fn shows(&self, gateway_id: &str, connected: f64) -> bool {
        let expression = format!("ttn_gateway_connected{{gateway_id=\"{gateway_id}\"}}");
        self.has(&expression, connected)
    }

    /// Waits for this alert and gives its summary.
    #[track_caller]
    fn summary_of(&self, alert: &str, label: &str, value: &str) -> String {
        wait_until(alert, 60, || {
            self.prometheus.firing(alert, label, value).is_some()
        });
        let alert = self.prometheus.firing(alert, label, value);
        alert.expect("it still fires")["summary"].clone()
    }

    fn drop_one_and_add_one(&self, dropped: &str, added: &str) {
        let now = clock::now_seconds();
        self.fake.change(|fleet| {
            let gone = Gateway::new(dropped).with_stats(json!({
                "disconnected_at": clock::rfc3339(now),
                "protocol": "udp",
                "uplink_count": "10",
            }));
            *fleet.gateway_mut(dropped) = gone;
            fleet.gateways.push(moving(added));
        });
    }
}

fn moving(id: &str) -> Gateway {
    let now = clock::now_seconds();
    let stats = json!({
        "connected_at": clock::rfc3339(now - 60),
        "protocol": "udp",
        "last_uplink_received_at": clock::rfc3339(now - 1),
        "uplink_count": "10",
    });
    Gateway::new(id).with_stats(stats).moving(now, 1, 60)
}

#[test]
fn a_gateway_drops_another_appears_the_api_fails_and_comes_back_and_prometheus_sees_it() {
    if !is_installed("prometheus") {
        return;
    }
    let scene = Scene::of([moving("roof"), moving("barn")]);
    let prometheus = &scene.prometheus;
    wait_until("both are connected and hear something", 60, || {
        let uplinks = "min(rate(ttn_gateway_uplink_messages_total[10s]))";
        let is_connected = scene.shows("roof", 1.0) && scene.shows("barn", 1.0);
        scene.has("ttn_up", 1.0) && is_connected && prometheus.value(uplinks) > Some(0.5)
    });
    assert!(prometheus.alerts().is_empty(), "{:?}", prometheus.alerts());

    scene.drop_one_and_add_one("barn", "mast");
    wait_until("one has dropped and another has appeared", 30, || {
        scene.shows("barn", 0.0) && scene.shows("mast", 1.0) && scene.shows("roof", 1.0)
    });
    let summary = scene.summary_of("TTNGatewayDown", "gateway_id", "barn");
    assert_eq!(summary, "Gateway \"Gateway barn\" barn is not connected");

    scene.fake.script_all(Misbehaviour::status(503));
    wait_until("nothing is known of any gateway", 30, || {
        let is_unknown = scene.has("sum(ttn_gateway_scrape_success)", 0.0);
        let nothing_said = prometheus.query("ttn_gateway_connected").is_empty();
        scene.has("ttn_up", 0.0) && is_unknown && nothing_said
    });
    let summary = scene.summary_of("TTNExporterApiDown", "job", JOB);
    assert!(
        summary.ends_with("The Things Stack: server_error"),
        "{summary}"
    );

    scene.fake.behave();
    scene
        .fake
        .change(|fleet| *fleet.gateway_mut("barn") = moving("barn"));
    wait_until("all are back, and no alert is left", 60, || {
        let is_back = scene.has("ttn_up", 1.0) && scene.has("sum(ttn_gateway_connected)", 3.0);
        is_back && prometheus.alerts().is_empty()
    });

    scene.exporter.signal("TERM");
    let instance = scene.exporter.address.to_string();
    let summary = scene.summary_of("TTNExporterAbsent", "instance", &instance);
    assert_eq!(summary, format!("{instance} does not answer Prometheus"));

    // Not even pending, at any time: neither the API's failure nor the exporter's end is theirs.
    let others = r#"ALERTS{alertname=~"TTNGateway.+",gateway_id!="barn"}"#;
    let others = prometheus.query(&format!("count_over_time({others}[10m])"));
    assert!(others.is_empty(), "{others:?}");
}
