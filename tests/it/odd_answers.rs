//! HTTP that is unusual and right is understood; HTTP that is wrong makes gateways unknown and
//! never disconnected, whatever JSON is in it.

use std::thread;
use std::time::Duration;

use crate::fake::wire::{Answer, gzip};
use crate::fake::{Endpoint, Fake, Fleet, Gateway, Misbehaviour};
use crate::harness::Setup;
use crate::harness::samples::Scrape;

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
