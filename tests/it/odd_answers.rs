//! HTTP that is unusual and right is understood; HTTP that is wrong makes gateways unknown and
//! never disconnected, whatever JSON is in it.

use std::thread;
use std::time::Duration;

use crate::fake::api::error;
use crate::fake::wire::{Answer, gzip};
use crate::fake::{Endpoint, Fake, Fleet, Gateway, Misbehaviour};
use crate::harness::samples::Scrape;
use crate::harness::{Exporter, Setup};

const BOTH: &str = r#"{"entries":{"gw-1":{"connected_at":"2024-11-20T06:00:00Z"},"gw-2":{"connected_at":"2024-11-20T06:00:00Z"}}}"#;

/// What a scrape says where the batch ends so, on the connection that brought the list.
fn scrape_with(batch: Misbehaviour) -> Scrape {
    let gateways = ["gw-1", "gw-2"].map(|id| Gateway::new(id).connected("udp"));
    let fake = Fake::start(Fleet::of(gateways));
    for endpoint in [Endpoint::StatsBatch, Endpoint::Stats] {
        fake.script(endpoint, batch.clone());
    }
    let exporter = Setup::against(&fake).args(["--timeout", "2"]).start();
    exporter.scrape_with_headers(&[("X-Prometheus-Scrape-Timeout-Seconds", "6")])
}

#[track_caller]
fn check_understood(raw: &str) {
    let scrape = scrape_with(Misbehaviour::Raw(raw.into()));
    for id in ["gw-1", "gw-2"] {
        scrape.assert_of("ttn_gateway_connected", id, Some(1.0));
    }
    assert_eq!(scrape.reasons(), [], "{raw}");
}

#[test]
fn unusual_frames_of_an_answer_are_understood() {
    let length = BOTH.len();
    let whole = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{BOTH}");
    check_understood(&format!("HTTP/1.1 100 Continue\r\n\r\n{whole}"));
    check_understood(&format!(
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{whole}"
    ));
    check_understood(&format!(
        "HTTP/1.1 102 \r\n\r\nHTTP/1.1 103 \r\n\r\n{whole}"
    ));
    check_understood(&format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{BOTH}"
    ));
    check_understood(&format!("HTTP/1.0 200 OK\r\n\r\n{BOTH}"));
    check_understood(&format!(
        "HTTP/1.1 203 \r\ncontent-length:{length}\r\n\r\n{BOTH}"
    ));
    let (first, second) = BOTH.split_at(30);
    check_understood(&format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n1E;a=b\r\n{first}\r\n\
         {:x}\r\n{second}\r\n0\r\nx: y\r\n\r\n",
        second.len()
    ));
}

#[track_caller]
fn check_unknown(batch: Misbehaviour) {
    let what = format!("{batch:?}");
    let scrape = scrape_with(batch);
    scrape.assert_value("ttn_up", 0.0);
    for id in ["gw-1", "gw-2"] {
        scrape.assert_of("ttn_gateway_connected", id, None);
        scrape.assert_of("ttn_gateway_scrape_success", id, Some(0.0));
    }
    assert!(!scrape.reasons().is_empty(), "{what}");
}

#[test]
fn an_empty_batch_in_a_broken_frame_makes_no_gateway_disconnected() {
    for raw in [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\nzz\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 206 Partial\r\nContent-Range: bytes 0-1/9\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 204 None\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\n\r\n{}",
        "{}",
        "",
    ] {
        check_unknown(Misbehaviour::Raw(raw.into()));
    }
}

#[test]
fn a_compression_that_is_not_what_it_says_makes_no_gateway_disconnected() {
    let packed = gzip(b"{}");
    let answer = |encoding: &str, body: &[u8]| {
        let answer = Answer::json(200, body).with_header("Content-Encoding", encoding);
        Misbehaviour::Answer(answer)
    };
    check_unknown(answer("br", &packed));
    check_unknown(answer("gzip, gzip", &packed));
    check_unknown(answer("gzip", b"\x1f\x8b"));
    check_unknown(answer("gzip", &packed[..packed.len() - 1]));
    let mut wrong_sum = packed.clone();
    wrong_sum[packed.len() - 8] ^= 1;
    check_unknown(answer("gzip", &wrong_sum));
}

/// A proxy that keeps the answers to all batches under one URL, for instance.
#[test]
fn a_batch_that_tells_of_other_gateways_makes_none_disconnected() {
    let stats = r#"{"connected_at":"2026-01-02T03:04:05Z"}"#;
    for entries in [
        format!(r#"{{"gw-3":{stats}}}"#),
        format!(r#"{{"gw-3":{stats},"gw-4":{stats}}}"#),
        format!(r#"{{"GW-1":{stats}}}"#),
        r#"{"gw-1":null,"gw-2":null}"#.to_owned(),
    ] {
        let scrape = scrape_with(Misbehaviour::json(
            200,
            &format!(r#"{{"entries":{entries}}}"#),
        ));
        for id in ["gw-1", "gw-2"] {
            scrape.assert_of("ttn_gateway_connected", id, None);
        }
    }
}

/// The API says it with 404.
#[test]
fn not_connected_under_another_status_makes_no_gateway_disconnected() {
    for (status, code) in [
        (400, 3),
        (401, 16),
        (403, 7),
        (429, 8),
        (500, 13),
        (503, 14),
    ] {
        let fake = Fake::start(Fleet::of([Gateway::new("gw-1").connected("udp")]));
        let message = "gateway `gw-1` not connected";
        let refusal = error(status, code, "pkg/gatewayserver", "not_connected", message);
        fake.script(Endpoint::Stats, Misbehaviour::Answer(refusal));
        let scrape = Exporter::start(&fake).scrape();
        scrape.assert_of("ttn_gateway_connected", "gw-1", None);
    }
}

#[test]
fn text_that_is_not_plain_utf_8_makes_no_gateway_disconnected() {
    let utf_16: Vec<u8> = "{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for body in [
        &utf_16[..],
        b"\xff\xfe{\0}\0",
        b"\xef\xbb\xbf{}",
        b"{}\0",
        b"{}{}",
    ] {
        check_unknown(Misbehaviour::Answer(Answer::json(200, body)));
    }
}

#[test]
fn headers_without_an_end_make_no_gateway_disconnected() {
    let many: String = (0..2_000).map(|n| format!("X-{n}: {n}\r\n")).collect();
    let long = format!("X: {}\r\n", "x".repeat(1 << 20));
    for headers in [many, long] {
        let raw = format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: 2\r\n\r\n{{}}");
        check_unknown(Misbehaviour::Raw(raw.into()));
    }
}

/// Only a whole number is one, and two that differ are none.
#[test]
fn a_total_that_cannot_be_read_leaves_the_list_at_hand() {
    for totals in [
        &["3, 3"][..],
        &["-1"],
        &["1e3"],
        &[""],
        &["two"],
        &["0", "2"],
        &["1.0"],
    ] {
        let gateways = ["gw-1", "gw-2"].map(|id| Gateway::new(id).connected("udp"));
        let fake = Fake::start(Fleet::of(gateways));
        let arguments = ["--ttl", "0.1", "--list-ttl", "0.1"];
        let exporter = Setup::against(&fake).args(arguments).start();
        exporter.scrape().assert_value("ttn_up", 1.0);
        let mut answer = Answer::json(200, "{}");
        for total in totals {
            answer = answer.with_header("X-Total-Count", total);
        }
        fake.script(Endpoint::List, Misbehaviour::Answer(answer));
        thread::sleep(Duration::from_millis(250));
        let scrape = exporter.scrape();
        scrape.assert_value("ttn_up", 0.0);
        for id in ["gw-1", "gw-2"] {
            scrape.assert_of("ttn_gateway_connected", id, Some(1.0));
        }
    }
}

/// A limit whose end is not told in seconds holds for a while, and not for ever.
#[test]
fn a_rate_limit_without_a_readable_time_is_heeded() {
    for (name, value) in [
        ("Retry-After", "Wed, 21 Oct 2035 07:28:00 GMT"),
        ("X-Rate-Limit-Retry", "-1"),
        ("X-Rate-Limit-Reset", "soon"),
        ("Retry-After", "99999999999999999999"),
    ] {
        let gateways = ["gw-1", "gw-2"].map(|id| Gateway::new(id).connected("udp"));
        let fake = Fake::start(Fleet::of(gateways));
        let exporter = Setup::against(&fake).args(["--ttl", "0.1"]).start();
        exporter.scrape().assert_value("ttn_up", 1.0);
        let answer = Answer::json(429, r#"{"code":8,"message":"exceeded"}"#);
        let answer = answer.with_header(name, value);
        fake.script(Endpoint::StatsBatch, Misbehaviour::Answer(answer));
        fake.forget();
        for _ in 0..3 {
            thread::sleep(Duration::from_millis(250));
            let scrape = exporter.scrape();
            scrape.assert_value("ttn_up", 0.0);
            scrape.assert_of("ttn_gateway_connected", "gw-1", None);
        }
        assert_eq!(fake.count(Endpoint::StatsBatch), 1, "{name}: {exporter}");
    }
}

/// The API's own has a code of gRPC, 1 to 16, and a message.
#[test]
fn a_refusal_by_somebody_else_is_no_matter_of_the_gateways() {
    for (status, body) in [
        (403, r#"{"message":"Forbidden"}"#),
        (403, r#"{"code":403,"message":"Forbidden"}"#),
        (403, r#"{"code":7}"#),
        (404, r#"{"message":"no Route matched with those values"}"#),
        (404, r#"{"code":"5","message":"gateway"}"#),
        (
            404,
            r#"{"message":"error:pkg/gatewayserver:not_connected (gateway not connected)"}"#,
        ),
    ] {
        let gateways = ["gw-1", "gw-2"].map(|id| Gateway::new(id).connected("udp"));
        let fake = Fake::start(Fleet::of(gateways));
        for endpoint in [Endpoint::StatsBatch, Endpoint::Stats] {
            fake.script(endpoint, Misbehaviour::json(status, body));
        }
        let exporter = Setup::against(&fake).args(["--ttl", "0.1"]).start();
        let scrape = exporter.scrape();
        scrape.assert_value("ttn_up", 0.0);
        for id in ["gw-1", "gw-2"] {
            scrape.assert_of("ttn_gateway_connected", id, None);
        }
        fake.behave();
        thread::sleep(Duration::from_millis(250));
        let scrape = exporter.scrape();
        scrape.assert_value("ttn_up", 1.0);
        scrape.assert_of("ttn_gateway_connected", "gw-1", Some(1.0));
    }
}

/// Compressed or not, chunked or not: the request goes out again.
#[test]
fn a_kept_connection_that_ends_within_an_answer_costs_no_scrape() {
    let (plain, packed) = (BOTH.as_bytes().to_vec(), gzip(BOTH.as_bytes()));
    for (body, encoding) in [(plain, "identity"), (packed, "gzip")] {
        let length = body.len();
        let heads = [
            format!("Content-Length: {length}\r\n\r\n"),
            format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n"),
        ];
        for head in heads {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\n{head}");
            let raw = [head.as_bytes(), &body[..length / 2]].concat();
            let gateways = ["gw-1", "gw-2"].map(|id| Gateway::new(id).connected("udp"));
            let fake = Fake::start(Fleet::of(gateways));
            let exporter = Setup::against(&fake).args(["--ttl", "0.1"]).start();
            exporter.scrape().assert_value("ttn_up", 1.0);
            fake.script_times(Endpoint::StatsBatch, 1, Misbehaviour::Raw(raw));
            thread::sleep(Duration::from_millis(250));
            let scrape = exporter.scrape();
            assert_eq!(scrape.reasons(), [], "{head}");
            scrape.assert_of("ttn_gateway_connected", "gw-1", Some(1.0));
        }
    }
}
