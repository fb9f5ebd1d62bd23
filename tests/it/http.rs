//! What the exporter answers to whom: routes, methods, encodings.

use std::net::TcpListener;

use crate::fake::{Fake, Fleet, Gateway};
use crate::harness::{Exporter, Setup};

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

fn start() -> (Fake, Exporter) {
    let fake = Fake::start(Fleet::of([Gateway::new("gw-1").connected("udp")]));
    let exporter = Exporter::start(&fake);
    (fake, exporter)
}

#[test]
fn the_metrics_have_the_content_type_of_their_format() {
    let (_fake, exporter) = start();
    for path in ["/metrics", "/metrics?x=1", "/"] {
        let response = exporter.get(path);
        assert_eq!(response.status, 200, "{path}: {response}");
        assert_eq!(
            response.header("Content-Type"),
            Some(CONTENT_TYPE),
            "{path}: {response}"
        );
        assert!(response.text().contains("ttn_up 1\n"), "{path}: {response}");
    }
}

#[test]
fn the_root_is_a_page_for_a_browser_alone() {
    let (_fake, exporter) = start();
    let accept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let page = exporter.get_with_headers("/", &[("Accept", accept)]);
    assert_eq!(page.status, 200, "{page}");
    assert!(
        page.header("Content-Type")
            .unwrap()
            .starts_with("text/html"),
        "{page}"
    );
    assert!(page.text().contains("/metrics"), "{page}");
    for accept in [
        "*/*",
        "text/plain",
        "application/openmetrics-text;version=1.0.0,*/*;q=0.1",
    ] {
        let response = exporter.get_with_headers("/", &[("Accept", accept)]);
        assert_eq!(
            response.header("Content-Type"),
            Some(CONTENT_TYPE),
            "{accept}: {response}"
        );
    }
    let metrics = exporter.get_with_headers("/metrics", &[("Accept", "text/html")]);
    assert_eq!(
        metrics.header("Content-Type"),
        Some(CONTENT_TYPE),
        "{metrics}"
    );
}

#[test]
fn health_needs_no_api() {
    let (fake, exporter) = start();
    fake.stop();
    assert_eq!(exporter.get("/-/healthy").status, 200);
    assert_eq!(fake.request_count(), 0);
}

#[test]
fn an_address_that_is_in_use_is_named_as_it_was_typed() {
    let fake = Fake::start(Fleet::of([]));
    for address in ["[::1]:0", "127.0.0.1:0"] {
        // Where there is no IPv6, there is nothing to take.
        let Ok(taken) = TcpListener::bind(address) else {
            continue;
        };
        let address = taken.local_addr().expect("an address").to_string();
        let finished = Setup::against(&fake).args(["--listen", &address]).run();
        let expected = format!("cannot listen on {address}: ");
        finished.assert_code(1).assert_stderr_has(&expected);
    }
}

#[test]
fn any_other_path_is_not_found() {
    let (fake, exporter) = start();
    for path in [
        "/metric",
        "/metrics/",
        "/-/ready",
        "/favicon.ico",
        "/../etc/passwd",
        "/%6detrics",
    ] {
        assert_eq!(exporter.get(path).status, 404, "{path}");
    }
    assert_eq!(fake.request_count(), 0);
}

#[test]
fn other_methods_are_told_which_ones_work() {
    let (_fake, exporter) = start();
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        for path in ["/metrics", "/", "/-/healthy"] {
            let response = exporter.request(method, path, &[]);
            assert_eq!(response.status, 405, "{method} {path}: {response}");
            assert_eq!(
                response.header("Allow"),
                Some("GET, HEAD"),
                "{method} {path}: {response}"
            );
        }
    }
}

#[test]
fn head_has_the_headers_of_get_and_no_body() {
    let (_fake, exporter) = start();
    for path in ["/metrics", "/", "/-/healthy", "/nothing"] {
        let get = exporter.get(path);
        let head = exporter.request("HEAD", path, &[]);
        assert_eq!(head.status, get.status, "{path}");
        assert!(head.body.is_empty(), "{path}: {head}");
        let names = |headers: &[(String, String)]| -> Vec<String> {
            let names = headers.iter().map(|(name, _)| name.to_ascii_lowercase());
            names.filter(|name| name != "date").collect()
        };
        assert_eq!(names(&head.headers), names(&get.headers), "{path}: {head}");
        assert_eq!(
            head.header("Content-Type"),
            get.header("Content-Type"),
            "{path}"
        );
    }
}

#[test]
fn gzip_is_for_those_who_accept_it() {
    let (_fake, exporter) = start();
    let plain = exporter.get("/metrics");
    assert_eq!(plain.header("Content-Encoding"), None);
    for accepted in ["gzip", "deflate, gzip;q=0.5", "GZIP"] {
        let packed = exporter.get_with_headers("/metrics", &[("Accept-Encoding", accepted)]);
        assert_eq!(
            packed.header("Content-Encoding"),
            Some("gzip"),
            "{accepted}: {packed}"
        );
        assert!(packed.body.len() * 2 < plain.body.len(), "{accepted}");
        assert!(packed.text().contains("ttn_up 1\n"), "{accepted}");
        let vary = packed
            .header("Vary")
            .unwrap_or_default()
            .to_ascii_lowercase();
        assert!(vary.contains("accept-encoding"), "{accepted}: {packed}");
    }
    for refused in ["identity", "gzip;q=0", "gzip; Q=0.0", "br", ""] {
        let plain = exporter.get_with_headers("/metrics", &[("Accept-Encoding", refused)]);
        assert_eq!(plain.header("Content-Encoding"), None, "{refused}");
    }
}
