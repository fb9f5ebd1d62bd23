//! The status page as a client without a browser gets it.

use serde_json::json;

use crate::fake::{Fake, Fleet, Gateway, clock};
use crate::harness::{Exporter, Setup};

fn page(exporter: &Exporter, path: &str) -> String {
    let page = exporter.get_with_headers(path, &[("Accept", "text/html")]);
    assert_eq!(page.status, 200, "{page}");
    page.text().replace('\u{a0}', " ")
}

#[track_caller]
fn check(html: &str, expected: &[&str]) {
    for words in expected {
        assert!(html.contains(words), "no {words} in\n{html}");
    }
}

/// The rows of this gateway: the one of the table, and the one that opens.
#[track_caller]
fn body<'a>(html: &'a str, id: &str) -> &'a str {
    let mut bodies = html.split("<tbody ").skip(1);
    let words = format!("<bdi>{id}</bdi>");
    bodies.find(|body| body.contains(&words)).expect("its row")
}

#[test]
fn a_gateway_is_opened_in_the_console_of_a_known_server_with_its_scheme_and_port() {
    let stranger = Gateway::new("elsewhere").at("console.evil.example");
    let fake = Fake::start(Fleet::of([Gateway::new("here").connected("udp"), stranger]));
    let html = page(&Exporter::start(&fake), "/");
    for id in ["here", "elsewhere"] {
        let link = format!("<a href=\"{}/console/gateways/{id}\">", fake.url());
        check(body(&html, id), &[&link]);
    }
    assert!(!html.contains("href=\"https://console.evil"), "{html}");
    check(
        body(&html, "elsewhere"),
        &["<bdi>console.evil.example</bdi>"],
    );
}

#[test]
fn a_round_trip_and_a_sub_band_are_marked_only_where_the_alert_fires() {
    let now = clock::now_seconds();
    let gateway = |id: &str, median: &str, downlink_ago: i64, used: f64| {
        Gateway::new(id).connected("udp").stats_with(json!({
            "last_uplink_received_at": clock::rfc3339(now - 7_200),
            "last_downlink_received_at": clock::rfc3339(now - downlink_ago),
            "round_trip_times": { "min": "1s", "max": "9s", "median": median, "count": 5 },
            "sub_bands": [{
                "max_frequency": "868000000",
                "downlink_utilization_limit": 0.01, "downlink_utilization": used,
            }],
        }))
    };
    let fake = Fake::start(Fleet::of([
        gateway("at-the-limit", "3s", 60, 0.008),
        gateway("beyond-it", "3.001s", 60, 0.0081),
        gateway("with-old-ones", "9s", 3_600, 0.0),
    ]));
    let html = page(&Exporter::start(&fake), "/");
    for (id, is_marked) in [
        ("at-the-limit", false),
        ("beyond-it", true),
        ("with-old-ones", false),
    ] {
        let body = body(&html, id);
        for mark in [
            "<small>slow</small>",
            "number warn",
            "<span class=\"warn\">1.00 s to",
        ] {
            assert_eq!(body.contains(mark), is_marked, "{id}: {mark} in\n{body}");
        }
        for mark in ["nearly full", "band warn", "<span class=\"warn\">below 868"] {
            assert_eq!(body.contains(mark), is_marked, "{id}: {mark} in\n{body}");
        }
    }
}

#[test]
fn a_view_is_what_its_address_says_in_any_encoding() {
    let fake = Fake::start(Fleet::generated(250));
    let exporter = Setup::against(&fake).args(["--ttl", "300"]).start();
    let rows = |html: &str| html.matches("<tr class=\"gateway\">").count();
    for (address, count) in [
        ("/?state=%63onnected&page=%33", 50),
        ("/?state=unknown&state=connected&page=1&page=99", 50),
        ("/?state=disconnected", 0),
        ("/?state=nonsense&page=-1", 100),
        ("/?q=gw%2D0012&refresh=0", 10),
        ("/?q=%47W-00250", 1),
        ("/?q=%ff%fe%", 0),
        ("/?q=GATEWAY+gw-00007", 1),
    ] {
        let html = page(&exporter, address);
        assert_eq!(rows(&html), count, "{address}\n{html}");
        check(&html, &["<b>250</b> <span>connected</span>"]);
    }
    check(&page(&exporter, "/?q=none"), &["No gateway is like that."]);
    let long = page(&exporter, &format!("/?q={}", "x".repeat(3_000)));
    check(&long, &[&format!("value=\"{}\"", "x".repeat(100))]);
}

#[test]
fn what_cannot_be_read_is_a_dash_and_what_is_not_there_is_no_row() {
    let gateway = Gateway::new("odd").connected("udp").stats_with(json!({
        "uplink_count": "many",
        "last_status": { "boot_time": "1970-01-01T00:00:00Z", "versions": { "a": "\u{202e}b" } },
    }));
    let fake = Fake::start(Fleet::of([gateway, Gateway::new("never")]));
    let html = page(&Exporter::start(&fake), "/");
    check(
        body(&html, "odd"),
        &[
            "<dt>Uplinks</dt><dd>–</dd>",
            "<dt>Downlinks</dt><dd>212 <small>",
            "<bdi>a</bdi>: <bdi>\u{202e}b</bdi>",
            "data-label=\"Uplinks per hour\">–<",
        ],
    );
    assert!(!html.contains("Booted"), "{html}");
    let never = body(&html, "never");
    check(never, &["<dt>EUI</dt>", "<dt>Console</dt>"]);
    for absent in [
        "Uplinks</dt>",
        "Round trip</dt>",
        "Connected</dt>",
        "IP address",
    ] {
        assert!(!never.contains(absent), "{absent} in\n{never}");
    }
}
