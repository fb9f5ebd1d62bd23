//! The files that `--print` writes for users of Prometheus and Grafana: the dashboard held
//! against rules of its own, the rest against `promtool`. Nothing here starts a server;
//! prometheus.rs runs the queries.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::prometheus::is_installed;

pub const DASHBOARD: &str = include_str!("../../src/assets/dashboard.json");
pub const ALERTS: &str = include_str!("../../src/assets/alerts.yml");
const SCENARIOS: &str = include_str!("alerts_test.yml");
pub const SCRAPE_CONFIG: &str = include_str!("../../src/assets/scrape-config.yml");

/// What every selector of the dashboard begins or ends with.
const CHOSEN: &str = r#"job=~"$job",instance=~"$instance""#;

/// One query of the dashboard and where it stands.
pub struct Query {
    /// The title of the panel, or the name of the variable.
    pub place: String,
    pub expression: String,
    /// What `$__rate_interval` is at least four of.
    step: Option<String>,
}

fn dashboard() -> Value {
    serde_json::from_str(DASHBOARD).expect("the dashboard is JSON")
}

fn array<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Every panel, also those inside of collapsed rows.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let panels = array(dashboard, "/panels").iter();
    let panels = panels.flat_map(|panel| std::iter::once(panel).chain(array(panel, "/panels")));
    panels.collect()
}

/// Every query of every panel.
pub fn queries() -> Vec<Query> {
    let dashboard = dashboard();
    let queries = panels(&dashboard).into_iter().flat_map(|panel| {
        array(panel, "/targets").iter().map(|target| Query {
            place: text(panel, "/title").to_owned(),
            expression: text(target, "/expr").to_owned(),
            step: target["interval"].as_str().map(str::to_owned),
        })
    });
    queries.collect()
}

/// The metrics that a text names, without those that the rules record.
pub fn metrics_named_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    let metrics = words.filter(|word| word.starts_with("ttn_") || word.starts_with("process_"));
    metrics.map(str::to_owned).collect()
}

/// The selectors `{…}` of an expression.
fn selectors(expression: &str) -> Vec<&str> {
    let parts = expression.split('{').skip(1);
    parts
        .map(|part| part.split('}').next().expect("split yields one part"))
        .collect()
}

/// Whether each range is one that the user chooses, or the hour of figures "per hour".
fn has_only_chosen_ranges(expression: &str) -> bool {
    let known = ["$__rate_interval]", "$__range]", "$__range:$step]", "1h]"];
    let mut ranges = expression.split('[').skip(1);
    ranges.all(|range| known.iter().any(|known| range.starts_with(known)))
}

#[test]
fn every_panel_has_a_title_a_description_a_unit_and_a_query() {
    for panel in panels(&dashboard()) {
        let title = text(panel, "/title");
        assert!(!title.is_empty(), "{panel}");
        if panel["type"] == "row" {
            continue;
        }
        assert!(
            text(panel, "/description").ends_with('.'),
            "{title}: description"
        );
        assert!(
            !text(panel, "/fieldConfig/defaults/unit").is_empty(),
            "{title}: unit"
        );
        assert!(!array(panel, "/targets").is_empty(), "{title}: query");
    }
}

#[test]
fn panels_have_their_own_ids_and_do_not_overlap() {
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in panels(&dashboard()) {
        assert!(ids.insert(panel["id"].as_u64()), "{}", panel["id"]);
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64());
        let [x, y, w, h] = [x, y, w, h].map(|side| side.expect("a whole number"));
        assert!(x + w <= 24, "{}: too wide", panel["title"]);
        let cells = (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y)));
        for cell in cells {
            assert!(
                taken.insert(cell),
                "{}: overlaps at {cell:?}",
                panel["title"]
            );
        }
    }
}

#[test]
fn no_data_source_is_baked_in() {
    #[track_caller]
    fn check(value: &Value) {
        if let Some(source) = value.get("datasource") {
            assert_eq!(text(source, "/uid"), "${datasource}", "{value}");
        }
        match value {
            Value::Object(fields) => fields.values().for_each(check),
            Value::Array(items) => items.iter().for_each(check),
            _ => {}
        }
    }
    let dashboard = dashboard();
    check(&dashboard);
    for panel in panels(&dashboard)
        .into_iter()
        .filter(|panel| panel["type"] != "row")
    {
        assert!(panel["datasource"].is_object(), "{}", panel["title"]);
    }
    let variables = array(&dashboard, "/templating/list")
        .iter()
        .map(|v| text(v, "/name"));
    let variables: Vec<&str> = variables.collect();
    assert_eq!(
        variables,
        [
            "datasource",
            "job",
            "instance",
            "gateway",
            "metric",
            "step",
            "server"
        ]
    );
    assert!(dashboard.get("id").is_none() && dashboard.get("__inputs").is_none());
}

#[test]
fn every_query_is_about_the_chosen_jobs_and_instances() {
    for query in queries() {
        let (place, expression) = (&query.place, &query.expression);
        let selectors = selectors(expression);
        assert!(!selectors.is_empty(), "{place}: {expression}");
        for selector in selectors {
            assert!(selector.contains(CHOSEN), "{place}: {{{selector}}}");
            if place.contains("$gateway") && !selector.contains("__name__") {
                let is_for_the_name =
                    expression.contains(&format!("ttn_gateway_info{{{selector}}}"));
                let is_of_gateway = selector.contains(r#"gateway_id=~"$gateway""#);
                assert!(is_of_gateway || is_for_the_name, "{place}: {{{selector}}}");
            }
        }
        let metrics = metrics_named_in(expression);
        assert!(!metrics.is_empty(), "{place}: {expression}");
        for metric in metrics {
            let is_selected = expression.contains(&format!("{metric}{{"));
            let is_in_a_choice = expression.contains("__name__=~");
            assert!(
                is_selected || is_in_a_choice,
                "{place}: {metric} without a selector"
            );
        }
    }
}

/// Grafana takes four steps for `$__rate_interval`, and 15 s for a step unless the query has its
/// own: with a scrape each minute that is a rate of one sample, which is none.
#[test]
fn every_query_has_the_step_that_the_user_chooses() {
    for query in queries() {
        let (place, expression) = (&query.place, &query.expression);
        assert!(has_only_chosen_ranges(expression), "{place}: {expression}");
        assert_eq!(query.step.as_deref(), Some("$step"), "{place}");
    }
}

/// Two tenants with equal ids are two gateways.
#[test]
fn no_query_and_no_rule_joins_gateways_of_two_jobs() {
    for query in queries() {
        let (place, expression) = (&query.place, &query.expression);
        assert!(!expression.contains("by (gateway_id"), "{place}");
        assert!(!expression.contains("on (gateway_id"), "{place}");
    }
    assert!(!ALERTS.contains("by (gateway_id") && !ALERTS.contains("on (gateway_id"));
}

#[test]
fn every_alert_has_a_severity_says_what_to_do_names_the_gateway_and_the_status_page() {
    let alerts: Vec<&str> = ALERTS.split("- alert: ").skip(1).collect();
    assert_eq!(alerts.len(), 17);
    for alert in alerts {
        let name = alert.lines().next().unwrap_or_default();
        let is_of_gateway = name.starts_with("TTNGateway") && !name.starts_with("TTNGateways");
        for part in ["severity: ", "summary: ", "description: "] {
            assert_eq!(alert.matches(part).count(), 1, "{name}: {part}");
        }
        assert_eq!(alert.matches("Status page: http://").count(), 1, "{name}");
        let names = alert
            .matches("ttn_gateway_info{job=%q, gateway_id=%q")
            .count();
        assert_eq!(names, usize::from(is_of_gateway), "{name}");
    }
}

/// The golden exposition has every metric there is.
#[test]
fn dashboard_and_rules_name_no_metric_that_does_not_exist() {
    let samples = include_str!("../golden/metrics.prom")
        .lines()
        .filter(|l| !l.starts_with('#'));
    let known: BTreeSet<&str> = samples.filter_map(|l| l.split(['{', ' ']).next()).collect();
    for metric in metrics_named_in(DASHBOARD).union(&metrics_named_in(ALERTS)) {
        assert!(known.contains(metric.as_str()), "{metric}");
    }
}

/// A scenario where it fires, and one where it does not.
#[test]
fn every_alert_has_scenarios_both_ways() {
    for alert in ALERTS.split("- alert: ").skip(1) {
        let name = alert.lines().next().unwrap_or_default();
        let fires = format!("alertname: {name}\n        exp_alerts:");
        let does_not = format!("alertname: {name}}}");
        assert!(SCENARIOS.contains(&fires), "{name} never fires");
        assert!(SCENARIOS.contains(&does_not), "{name} is never quiet");
    }
}

#[test]
fn promtool_accepts_the_rules_and_each_alert_fires_when_it_should_and_only_then() {
    if !is_installed("promtool") {
        return;
    }
    promtool(&["check", "rules", "src/assets/alerts.yml"]);
    for scenarios in ["alerts", "alerts_days", "alerts_disturbances"] {
        let scenarios = format!("tests/it/{scenarios}_test.yml");
        promtool(&["test", "rules", &scenarios]);
    }
}

#[test]
fn promtool_accepts_the_scrape_job_alone_and_with_the_rules() {
    if !is_installed("promtool") {
        return;
    }
    promtool(&["check", "config", "src/assets/scrape-config.yml"]);
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/assets/alerts.yml");
    let config = format!("rule_files: [{rules:?}]\n{SCRAPE_CONFIG}");
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("prometheus-with-rules.yml");
    fs::write(&path, config).expect("the test's own folder can be written");
    promtool(&["check", "config", path.to_str().expect("the path is text")]);
}

#[track_caller]
fn promtool(arguments: &[&str]) {
    let mut command = Command::new("promtool");
    command
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = command.output().expect("promtool is installed");
    let words = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}\n{words}");
}
