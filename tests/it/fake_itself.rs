//! The fake must be known good before anything is judged by it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fake::{
    Answer, BlackHole, Endpoint, Fake, Fleet, Gateway, Holder, Key, Misbehaviour, demo, fleet, tls,
};
use crate::harness::http::{self, Response};

const PATIENCE: Duration = Duration::from_secs(10);
const BATCH: &str = "/api/v3/gs/gateways/connection/stats";

fn send(fake: &Fake, method: &str, path: &str, key: &Key, body: &str) -> Response {
    let headers = format!("Authorization: Bearer {}\r\nConnection: close", key.token);
    let length = body.len();
    let text =
        format!("{method} {path} HTTP/1.1\r\n{headers}\r\nContent-Length: {length}\r\n\r\n{body}");
    let bytes = http::exchange(fake.address(), text.as_bytes(), PATIENCE).unwrap();
    http::parse(&bytes, false).unwrap()
}

fn json_of(response: &Response) -> Value {
    serde_json::from_slice(&response.body).unwrap()
}

fn get(fake: &Fake, path: &str, key: &Key) -> Response {
    send(fake, "GET", path, key, "")
}

fn batch(fake: &Fake, ids: &[&str], mask: &str, key: &Key) -> Response {
    let ids: Vec<_> = ids.iter().map(|id| json!({ "gateway_id": id })).collect();
    let body = json!({ "gateway_ids": ids, "field_mask": mask }).to_string();
    send(fake, "POST", BATCH, key, &body)
}

fn three() -> Fleet {
    Fleet::of([
        Gateway::new("gw-up").connected("udp"),
        Gateway::new("gw-never"),
        Gateway::new("gw-far").connected("ws").at("127.0.0.9:1884"),
    ])
}

#[test]
fn it_lists_page_by_page_and_only_what_was_asked_for() {
    let fake = Fake::start(Fleet::generated(250));
    let key = Key::user();
    let page = get(
        &fake,
        "/api/v3/gateways?limit=100&page=3&field_mask=name",
        &key,
    );
    assert_eq!(page.header("X-Total-Count"), Some("250"));
    let gateways = json_of(&page)["gateways"].clone();
    assert_eq!(gateways.as_array().unwrap().len(), 50);
    assert_eq!(gateways[0]["ids"]["gateway_id"], "gw-00201");
    assert_eq!(gateways[0]["name"], "Gateway gw-00201");
    assert_eq!(gateways[0].get("frequency_plan_ids"), None);
    let past = get(
        &fake,
        "/api/v3/gateways?limit=100&page=4&field_mask=name",
        &key,
    );
    assert_eq!(json_of(&past), json!({}));
    assert_eq!(get(&fake, "/api/v3/gateways?limit=1001", &key).status, 400);
    let masked = "/api/v3/gateways/gw-00001?field_mask=name%2Cantennas";
    assert!(json_of(&get(&fake, masked, &key)).get("antennas").is_some());
    assert_eq!(fake.count(Endpoint::List), 3);
    assert_eq!(fake.count(Endpoint::Gateway), 1);
    assert_eq!(fake.connection_count(), 4);
}

#[test]
fn a_batch_leaves_out_what_is_not_there_and_refuses_more_than_100_ids() {
    let fake = Fake::start(three());
    let key = Key::user();
    let stats = json_of(&batch(
        &fake,
        &["gw-up", "gw-never", "gw-far"],
        "protocol",
        &key,
    ));
    assert_eq!(
        stats,
        json!({ "entries": { "gw-up": { "protocol": "udp" } } })
    );
    assert_eq!(json_of(&batch(&fake, &["gw-never"], "", &key)), json!({}));
    assert_eq!(batch(&fake, &["gw-up", "gw-deleted"], "", &key).status, 403);
    assert_eq!(batch(&fake, &[], "", &key).status, 400);
    assert_eq!(batch(&fake, &["gw-up"; 101], "", &key).status, 400);
    assert_eq!(batch(&fake, &["gw-up"; 100], "", &key).status, 200);
}

#[test]
fn a_single_call_says_not_connected_for_other_clusters_too() {
    let fake = Fake::start(three());
    let key = Key::user();
    let stats = |id: &str| {
        get(
            &fake,
            &format!("/api/v3/gs/gateways/{id}/connection/stats"),
            &key,
        )
    };
    assert_eq!(json_of(&stats("gw-up"))["uplink_count"], "9043");
    for id in ["gw-never", "gw-far"] {
        let answer = stats(id);
        assert_eq!(answer.status, 404);
        let message = json_of(&answer)["message"].to_string();
        assert!(
            message.contains("error:pkg/gatewayserver:not_connected"),
            "{message}"
        );
    }
}

#[test]
fn each_kind_of_key_may_do_what_the_true_server_allows() {
    let mut fleet = three();
    let blind = Key::new('B', Holder::User("demo".into())).blind_for(["gw-never"]);
    let mut expired = Key::new('E', Holder::User("demo".into()));
    expired.is_expired = true;
    let (organization, gateway) = (Key::organization("acme"), Key::gateway("gw-up"));
    for key in [&blind, &expired, &organization, &gateway] {
        fleet.keys.push(key.clone());
    }
    fleet
        .gateways
        .push(Gateway::new("gw-acme").owned_by("organization:acme"));
    fleet.reindex();
    let fake = Fake::start(fleet);
    let ids = |path: &str, key: &Key| {
        let body = json_of(&get(&fake, path, key));
        let gateways = body["gateways"].as_array().cloned().unwrap_or_default();
        let ids = gateways
            .iter()
            .map(|g| g["ids"]["gateway_id"].as_str().unwrap().to_owned());
        ids.collect::<Vec<_>>()
    };
    let list = "/api/v3/gateways?order=gateway_id";
    assert_eq!(
        ids(list, &Key::user()),
        ["gw-acme", "gw-far", "gw-never", "gw-up"]
    );
    assert_eq!(ids(list, &organization), ["gw-acme"]);
    assert_eq!(
        ids("/api/v3/organizations/acme/gateways", &Key::user()),
        ["gw-acme"]
    );
    assert_eq!(
        get(&fake, "/api/v3/users/demo/gateways", &organization).status,
        403
    );
    assert!(ids(list, &gateway).is_empty());
    assert_eq!(batch(&fake, &["gw-up"], "", &gateway).status, 403);
    let own = "/api/v3/gs/gateways/gw-up/connection/stats";
    assert_eq!(get(&fake, own, &gateway).status, 200);
    assert_eq!(
        get(&fake, &own.replace("up", "never"), &gateway).status,
        403
    );
    assert_eq!(batch(&fake, &["gw-up", "gw-never"], "", &blind).status, 403);
    assert_eq!(batch(&fake, &["gw-up"], "", &blind).status, 200);
    assert_eq!(get(&fake, list, &expired).status, 401);
    assert_eq!(
        get(&fake, list, &Key::new('X', Holder::User("x".into()))).status,
        401
    );
    let info = json_of(&get(&fake, "/api/v3/auth_info", &gateway));
    assert_eq!(
        info["api_key"]["entity_ids"]["gateway_ids"]["gateway_id"],
        "gw-up"
    );
}

#[test]
fn the_demo_moves() {
    let at = |now| {
        demo::fleet(0)
            .gateway("rooftop-kerlink-01")
            .unwrap()
            .stats_at(now)
            .unwrap()
    };
    assert_eq!(at(0)["uplink_count"], "40000");
    assert_eq!(at(60)["uplink_count"], "40012");
    assert_eq!(at(60)["last_uplink_received_at"], "1970-01-01T00:01:00Z");
    assert_eq!(
        at(1_732_082_400)["last_status"]["time"],
        "2024-11-20T06:00:00Z"
    );
}

#[test]
fn a_kept_connection_carries_many_requests_and_gzip_where_it_is_accepted() {
    let fake = Fake::start(three());
    let mut stream = TcpStream::connect(fake.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let token = fleet::token('U');
    let request = format!(
        "GET /api/v3/gateways?field_mask=name,frequency_plan_ids,status_public,antennas HTTP/1.1\r\n\
         Authorization: Bearer {token}\r\nAccept-Encoding: gzip\r\n\r\n"
    );
    for _ in 0..3 {
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = [0; 4096];
        let count = stream.read(&mut answer).unwrap();
        let response = http::parse(&answer[..count], false).unwrap();
        assert!(response.text().contains("gw-never"));
        assert_eq!(response.header("Content-Encoding"), Some("gzip"));
    }
    assert_eq!((fake.connection_count(), fake.request_count()), (1, 3));
    let records = fake.records();
    assert_eq!(
        records[2].request.header("authorization"),
        Some(&*format!("Bearer {token}"))
    );
    assert!(
        records
            .iter()
            .all(|r| r.connection == 1 && r.request.size_bytes == request.len())
    );
}

#[test]
fn scripts_come_and_go() {
    let fake = Fake::start(three());
    let key = Key::user();
    let list = || get(&fake, "/api/v3/gateways", &key);
    fake.script(Endpoint::Stats, Misbehaviour::status(500));
    assert_eq!(list().status, 200);
    fake.script_times(Endpoint::List, 1, Misbehaviour::status(503));
    assert_eq!((list().status, list().status), (503, 200));
    fake.script_all(Misbehaviour::Answer(Answer::of_type(
        200,
        "text/plain",
        "hello",
    )));
    assert_eq!(list().body, b"hello");
    fake.behave();
    fake.script(
        Endpoint::List,
        Misbehaviour::RateLimited { retry_seconds: 7 },
    );
    assert_eq!(list().header("X-Rate-Limit-Retry"), Some("7"));
    fake.behave();
    fake.set_rate_limit(2, Duration::from_secs(60));
    assert_eq!(list().header("X-Rate-Limit-Available"), Some("1"));
    assert_eq!(list().header("X-Rate-Limit-Available"), Some("0"));
    assert_eq!(list().status, 429);
}

/// What arrives within `limit`, however the connection ends.
fn raw(fake: &Fake, limit: Duration) -> (Vec<u8>, std::io::Result<usize>) {
    let mut stream = TcpStream::connect(fake.address()).unwrap();
    stream.set_read_timeout(Some(limit)).unwrap();
    let token = fleet::token('U');
    let request = format!("GET /api/v3/gateways HTTP/1.1\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let (mut bytes, mut chunk, end) = (Vec::new(), vec![0; 1 << 20], Instant::now() + limit);
    loop {
        match stream.read(&mut chunk) {
            Ok(count @ 1..) if Instant::now() < end && bytes.len() < 64 << 20 => {
                bytes.extend_from_slice(&chunk[..count]);
            }
            result => return (bytes, result),
        }
    }
}

#[test]
fn each_way_to_break_off_looks_as_it_should() {
    let fake = Fake::start(three());
    let brief = Duration::from_millis(400);
    let play = |kind| {
        fake.behave();
        fake.script(Endpoint::List, kind);
        let (bytes, result) = raw(&fake, brief);
        (bytes.len(), result.map_err(|error| error.kind()))
    };
    let whole = {
        let (bytes, _) = raw(&fake, brief);
        bytes.len()
    };
    let waits = Err(std::io::ErrorKind::WouldBlock);
    assert_eq!(play(Misbehaviour::HangBeforeHead), (0, waits));
    let (head, result) = play(Misbehaviour::HangAfterHead);
    assert_eq!((result, head > 50 && head < whole), (waits, true));
    assert_eq!(play(Misbehaviour::Trickle), (head + 1, waits));
    assert_eq!(play(Misbehaviour::TrickleHead), (1, waits));
    assert_eq!(
        play(Misbehaviour::CutShort),
        (head + (whole - head) / 2, Ok(0))
    );
    assert_eq!(play(Misbehaviour::CloseAfter), (whole, Ok(0)));
    assert_eq!(play(Misbehaviour::CloseUnanswered), (0, Ok(0)));
    assert_eq!(
        play(Misbehaviour::Reset),
        (0, Err(std::io::ErrorKind::ConnectionReset))
    );
    assert_eq!(play(Misbehaviour::Raw(b"nonsense".to_vec())), (8, Ok(0)));
    assert!(play(Misbehaviour::Endless).0 > 1 << 20);
    assert!(play(Misbehaviour::TooLarge(3 << 20)).0 > 3 << 20);
    assert!(play(Misbehaviour::GzipBomb).0 > 1 << 10);
    assert_eq!(
        play(Misbehaviour::Delay(Duration::from_millis(50))),
        (whole, waits)
    );
}

#[test]
fn it_can_refuse_connections_and_come_back_on_the_same_port() {
    let fake = Fake::start(three());
    let key = Key::user();
    let url = fake.url();
    let mut kept = TcpStream::connect(fake.address()).unwrap();
    fake.stop();
    assert!(!matches!(kept.read(&mut [0]), Ok(1..)));
    let refused = TcpStream::connect(fake.address()).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    fake.resume();
    assert_eq!(get(&fake, "/api/v3/gateways", &key).status, 200);
    assert_eq!(fake.url(), url);
}

#[test]
fn a_black_hole_takes_no_connection() {
    let hole = BlackHole::open();
    let address = hole.url().replace("http://", "").parse().unwrap();
    let result = TcpStream::connect_timeout(&address, Duration::from_millis(300));
    assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
}

#[test]
fn siblings_have_the_gateways_that_name_them_and_speak_tls() {
    let authority = tls::Authority::new();
    let home = Fake::start(three());
    let server = authority.server(&["127.0.0.9"]);
    let sibling = home.sibling("127.0.0.9:0", Some(server)).unwrap();
    let ids = br#"{"gateway_ids":[{"gateway_id":"gw-up"},{"gateway_id":"gw-far"}]}"#;
    let token = fleet::token('U');
    let length = ids.len();
    let head = format!(
        "POST {BATCH} HTTP/1.1\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n"
    );
    let answer = over_tls(&sibling, &authority, &[head.as_bytes(), ids].concat());
    let stats = json_of(&http::parse(&answer, false).unwrap());
    assert_eq!(stats["entries"]["gw-far"]["protocol"], "ws");
    assert_eq!(stats["entries"].get("gw-up"), None);
    assert!(sibling.url().starts_with("https://127.0.0.9:"));
}

fn over_tls(fake: &Fake, authority: &tls::Authority, request: &[u8]) -> Vec<u8> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = fake.address().ip().to_string().try_into().unwrap();
    let connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let socket = TcpStream::connect(fake.address()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = rustls::StreamOwned::new(connection, socket);
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}
