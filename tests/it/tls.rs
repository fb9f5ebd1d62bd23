//! TLS to the API with good and bad certificates, and a proxy in between.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustls::version::{TLS12, TLS13};

use crate::fake::tls::{Authority, Fault};
use crate::fake::{Fake, Fleet, Gateway, Key, Misbehaviour, Nat};
use crate::harness::{Exporter, Setup};

const HOST: &[&str] = &["127.0.0.1", "localhost"];

fn two() -> Fleet {
    Fleet::of(["gw-1", "gw-2"].map(|id| Gateway::new(id).connected("udp")))
}

fn setup(fake: &Fake, authority: &Authority) -> Setup {
    let setup = Setup::against(fake).args(["--timeout", "2", "--ttl", "0.3"]);
    setup.args_with_file("--ca-file", &authority.pem())
}

#[track_caller]
fn check_refused(exporter: &Exporter, words: &str) {
    let scrape = exporter.scrape();
    scrape.assert_value("ttn_up", 0.0);
    assert_eq!(scrape.reasons(), [("tls".to_owned(), 1.0)], "{scrape}");
    exporter.wait_for_log(words);
}

#[test]
fn both_versions_work_over_one_kept_connection() {
    let authority = Authority::new();
    for version in [&TLS12, &TLS13] {
        let fake = Fake::start_tls(two(), authority.server_of_version(HOST, version));
        let exporter = setup(&fake, &authority).start();
        for _ in 0..3 {
            exporter.scrape().assert_value("ttn_up", 1.0);
            thread::sleep(Duration::from_millis(310));
        }
        // A first try with the built-in authorities would be a second connection.
        assert!(fake.connection_count() <= 2, "{version:?}: {exporter}");
        assert_eq!(fake.request_count(), 4, "{version:?}: {exporter}");
    }
}

#[test]
fn a_bad_certificate_is_refused_with_words_that_help() {
    let authority = Authority::new();
    for (fault, words) in [
        (Fault::Expired, "clock"),
        (Fault::NotYetValid, "clock"),
        (Fault::WrongHost, "another host"),
    ] {
        let fake = Fake::start_tls(two(), authority.server_with_fault(HOST, fault));
        let exporter = setup(&fake, &authority).start();
        check_refused(&exporter, words);
        assert_eq!(fake.request_count(), 0, "{fault:?}: the key was sent");
    }
}

#[test]
fn an_unknown_authority_is_refused() {
    let fake = Fake::start_tls(two(), Authority::new().server(HOST));
    check_refused(&Exporter::start(&fake), "--ca-file");
    let other = setup(&fake, &Authority::new()).start();
    check_refused(&other, "--ca-file");
    assert_eq!(fake.request_count(), 0, "the key was sent");
}

#[test]
fn a_server_that_speaks_no_tls_is_no_tls() {
    let fake = Fake::start(two());
    let url = fake.url().replace("http:", "https:");
    let arguments = ["--server", &*url, "--timeout", "2"];
    let exporter = Setup::against(&fake).args(arguments).start();
    check_refused(&exporter, "TLS");
}

#[test]
fn a_handshake_that_hangs_is_a_timeout_and_recovers() {
    let authority = Authority::new();
    let fake = Fake::start_tls(two(), authority.server(HOST));
    fake.mute();
    let exporter = setup(&fake, &authority).args(["--timeout", "1"]).start();
    let scrape = exporter.scrape_within(Duration::from_secs(3), &[]);
    assert_eq!(scrape.reasons(), [("timeout".to_owned(), 1.0)], "{scrape}");
    fake.behave();
    exporter.scrape_until("recovery", |scrape| scrape.value("ttn_up") == 1.0);
}

#[test]
fn a_file_without_a_certificate_is_an_error_at_the_start() {
    for contents in ["", "no certificate", "-----BEGIN CERTIFICATE-----\n!\n"] {
        let setup = Setup::bare().args(["--key", "k"]);
        let finished = setup.args_with_file("--ca-file", contents).run();
        finished.assert_code(1).assert_stderr_has("ca-file");
    }
    let finished = Setup::bare()
        .args(["--key", "k", "--ca-file", "no-such.pem"])
        .run();
    finished.assert_code(1).assert_stderr_has("no-such.pem");
}

/// A proxy that understands CONNECT and nothing else; it counts its tunnels.
fn start_proxy() -> (String, Arc<AtomicUsize>) {
    start_proxy_to(|target| target.to_owned())
}

/// The same with an address of its own for each target.
fn start_proxy_to(
    address_of: impl Fn(&str) -> String + Clone + Send + 'static,
) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let tunnels = Arc::clone(&count);
    thread::spawn(move || {
        for client in listener.incoming().flatten().take(50) {
            tunnels.fetch_add(1, Ordering::Relaxed);
            let address_of = address_of.clone();
            thread::spawn(move || tunnel(client, address_of));
        }
    });
    (url, count)
}

fn tunnel(mut client: TcpStream, address_of: impl Fn(&str) -> String) -> io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < 4096 {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let target = head
        .strip_prefix("CONNECT ")
        .and_then(|rest| rest.split(' ').next());
    let address = address_of(target.unwrap_or("127.0.0.1:1"));
    let mut server = TcpStream::connect(address)?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || io::copy(&mut from, &mut to));
    io::copy(&mut server, &mut client)?;
    Ok(())
}

#[test]
fn a_proxy_is_used_where_the_environment_says_so() {
    let authority = Authority::new();
    let fake = Fake::start_tls(two(), authority.server(HOST));
    let (proxy, tunnels) = start_proxy();
    let exporter = setup(&fake, &authority)
        .variable("HTTPS_PROXY", &proxy)
        .start();
    exporter.scrape().assert_value("ttn_up", 1.0);
    let used = tunnels.load(Ordering::Relaxed);
    assert!(used >= 1, "{exporter}");
    let exporter = setup(&fake, &authority)
        .variable("HTTPS_PROXY", &proxy)
        .variable("NO_PROXY", "127.0.0.1")
        .start();
    exporter.scrape().assert_value("ttn_up", 1.0);
    assert_eq!(tunnels.load(Ordering::Relaxed), used, "{exporter}");
}

#[test]
fn a_nat_before_a_proxy_costs_no_scrape() {
    let authority = Authority::new();
    let fake = Fake::start_tls(two(), authority.server(HOST));
    let (proxy, _tunnels) = start_proxy();
    let setup = setup(&fake, &authority).variable("HTTPS_PROXY", &proxy);
    let exporter = setup.args(["--ttl", "0.1", "--list-ttl", "0.1"]).start();
    fake.set_nat(Nat::of_one_request());
    for _ in 0..4 {
        let scrape = exporter.scrape_with_headers(&[("X-Prometheus-Scrape-Timeout-Seconds", "8")]);
        scrape.assert_value("ttn_up", 1.0);
        assert_eq!(scrape.reasons(), [], "{scrape}");
        thread::sleep(Duration::from_millis(200));
    }
    assert!(fake.lost_count() >= 1, "{exporter}");
}

/// Of a tenant, a collaborator of one gateway can name any region.
#[test]
fn a_region_that_does_not_know_the_key_hides_no_gateway_that_is_down() {
    let [eu1, eu9] = ["eu1", "eu9"].map(|r| format!("club.{r}.cloud.thethings.industries"));
    let authority = Authority::new();
    let home = Fake::start_tls(
        Fleet::of([
            Gateway::new("gw-1").connected("udp"),
            Gateway::new("gw-2"),
            Gateway::new("gw-3").connected("udp").at(&eu9),
        ]),
        authority.server(&[&eu1]),
    );
    let region = home.sibling("127.0.0.1:0", Some(authority.server(&[&eu9])));
    let region = region.expect("a free port");
    region.script_all(Misbehaviour::status(401));
    let (home, region) = (home.address(), region.address());
    let (proxy, _tunnels) = start_proxy_to(move |target| match target.starts_with(&eu9) {
        true => region.to_string(),
        false => home.to_string(),
    });
    let exporter = Setup::bare()
        .args(["--server", &eu1])
        .variable("TTN_API_KEY", &Key::user().token)
        .args_with_file("--ca-file", &authority.pem())
        .variable("https_proxy", &proxy)
        .start();
    let scrape = exporter.scrape();
    scrape.assert_of("ttn_gateway_connected", "gw-1", Some(1.0));
    scrape.assert_of("ttn_gateway_connected", "gw-2", Some(0.0));
    scrape.assert_of("ttn_gateway_connected", "gw-3", None);
}

#[test]
fn a_proxy_that_cannot_be_reached_is_named() {
    let authority = Authority::new();
    let fake = Fake::start_tls(two(), authority.server(HOST));
    for (proxy, host, reason) in [
        ("http://127.0.0.2:1", "127.0.0.2", "connect"),
        (
            "http://u:hunter2@no-such-host.invalid:1",
            "no-such-host.invalid",
            "dns",
        ),
    ] {
        let setup = setup(&fake, &authority).variable("HTTPS_PROXY", proxy);
        let exporter = setup.start();
        let scrape = exporter.scrape();
        assert_eq!(scrape.reasons(), [(reason.to_owned(), 1.0)], "{scrape}");
        exporter.wait_for_log(&format!("through the proxy {host}"));
        assert!(!exporter.stderr().contains("hunter2"), "{exporter}");
    }
}

#[test]
fn the_variables_of_a_proxy_are_those_of_curl() {
    let authority = Authority::new();
    let fake = Fake::start_tls(two(), authority.server(HOST));
    let (proxy, tunnels) = start_proxy();
    let dead = "http://127.0.0.1:1";
    for (variables, is_used) in [
        (
            [("https_proxy", &*proxy), ("HTTPS_PROXY", dead)].as_slice(),
            true,
        ),
        (&[("HTTPS_PROXY", &proxy), ("all_proxy", dead)], true),
        (&[("ALL_PROXY", &proxy), ("HTTP_PROXY", dead)], true),
        (&[("HTTP_PROXY", dead), ("http_proxy", dead)], false),
        (&[("https_proxy", dead), ("no_proxy", "127.0.0.0/8")], false),
        (
            &[("https_proxy", dead), ("NO_PROXY", "other, 127.0.0.1")],
            false,
        ),
        (&[("https_proxy", dead), ("NO_PROXY", "*")], false),
        (&[("https_proxy", &proxy), ("NO_PROXY", "27.0.0.1")], true),
    ] {
        let before = tunnels.load(Ordering::Relaxed);
        let mut setup = setup(&fake, &authority);
        for (name, value) in variables {
            setup = setup.variable(name, value);
        }
        setup.run_once().assert_code(0);
        let used = tunnels.load(Ordering::Relaxed) > before;
        assert_eq!(used, is_used, "{variables:?}");
    }
}

/// As with curl's --cacert: a private authority is for a private server, and a request is not
/// tried twice. What else is trusted then is only what the file names.
#[test]
fn a_file_of_authorities_replaces_the_built_in_ones() {
    let fake = Fake::start_tls(two(), Authority::new().server(HOST));
    let (proxy, tunnels) = start_proxy();
    // With a name of its own, so that it is not taken for the one that signed.
    let key = rcgen::KeyPair::generate().expect("a key pair");
    let params = rcgen::CertificateParams::new(["other.example.com".to_owned()]);
    let other = params.and_then(|params| params.self_signed(&key));
    let setup = Setup::against(&fake)
        .args_with_file("--ca-file", &other.expect("a certificate").pem())
        .variable("https_proxy", &proxy);
    setup
        .run_once()
        .assert_code(1)
        .assert_stderr_has("--ca-file");
    assert_eq!(tunnels.load(Ordering::Relaxed), 1);
}
