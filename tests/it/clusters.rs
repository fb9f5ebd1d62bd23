//! Several clusters: who is asked for what, and where the key never goes.
//!
//! For another host than that of `--server` the exporter speaks https on the usual port, so
//! the clusters here listen on port 443 of loopback addresses of their own. Where that port
//! may not be bound, these tests say so and check nothing.

use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::Duration;

use crate::fake::tls::Authority;
use crate::fake::{Endpoint, Fake, Fleet, Gateway, Key, Misbehaviour};
use crate::harness::{Exporter, Setup};

/// An address in 127.0.0.0/8 that no other test has, of this process or of another one.
pub fn own_address() -> String {
    static COUNT: AtomicU8 = AtomicU8::new(1);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id();
    format!("127.{}.{}.{count}", 64 + (process >> 8) % 64, process % 256)
}

/// A cluster at this address that shares the gateways of `home`.
pub fn cluster(home: &Fake, authority: &Authority, address: &str) -> Option<Fake> {
    match home.sibling(
        &format!("{address}:443"),
        Some(authority.server(&[address])),
    ) {
        Ok(fake) => Some(fake),
        Err(error) => {
            eprintln!("SKIPPED: port 443 of {address} cannot be bound: {error}");
            None
        }
    }
}

pub fn start(home: &Fake, authority: &Authority, allowed: &[&str]) -> Exporter {
    let mut setup = Setup::against(home)
        .args(["--ttl", "0.3", "--timeout", "1"])
        .args_with_file("--ca-file", &authority.pem());
    for host in allowed {
        setup = setup.args(["--allow-host", host]);
    }
    setup.start()
}

/// A gateway for each of these server addresses, connected to the cluster of this host.
fn fleet_at(addresses: &[&str], host: &str) -> Fleet {
    let gateway = |(at, address): (usize, &&str)| {
        let gateway = Gateway::new(&format!("gw-{at}")).connected("udp");
        gateway.at(address).really_at(host)
    };
    Fleet::of(addresses.iter().enumerate().map(gateway))
}

#[test]
fn stats_come_from_the_cluster_of_each_gateway_over_one_connection_each() {
    let (far, authority) = (own_address(), Authority::new());
    let home = Fake::start(Fleet::of([
        Gateway::new("gw-home").connected("udp"),
        Gateway::new("gw-far-1").connected("udp").at(&far),
        Gateway::new("gw-far-2")
            .connected("mqtt")
            .at(&format!("mqtts://{far}:8883")),
        Gateway::new("gw-far-3")
            .connected("ws")
            .at(&format!("wss://{far}:8887/")),
        Gateway::new("gw-far-4").at(&format!("{far}:1700")),
    ]));
    let Some(cluster) = cluster(&home, &authority, &far) else {
        return;
    };
    let exporter = start(&home, &authority, &[&far]);
    for _ in 0..2 {
        let scrape = exporter.scrape();
        scrape.assert_value("ttn_up", 1.0);
        for id in ["gw-home", "gw-far-1", "gw-far-2", "gw-far-3"] {
            scrape.assert_of("ttn_gateway_connected", id, Some(1.0));
        }
        scrape.assert_of("ttn_gateway_connected", "gw-far-4", Some(0.0));
        thread::sleep(Duration::from_millis(350));
    }
    assert_eq!(
        (home.count(Endpoint::List), cluster.count(Endpoint::List)),
        (1, 0)
    );
    assert_eq!(cluster.count(Endpoint::StatsBatch), 2);
    assert_eq!(
        home.request_count(),
        4,
        "a list, two requests for one gateway, and once whether it has another one"
    );
    assert_eq!(
        (home.connection_count(), cluster.connection_count()),
        (1, 1)
    );
    let bearer = format!("Bearer {}", Key::user().token);
    for record in cluster.records() {
        assert_eq!(record.request.header("Authorization"), Some(&*bearer));
        assert_eq!(record.request.header("Host"), Some(&*far));
    }
}

#[test]
fn a_cluster_in_trouble_costs_only_its_own_gateways() {
    let (far, authority) = (own_address(), Authority::new());
    let home = Fake::start(Fleet::of([
        Gateway::new("gw-home-1").connected("udp"),
        Gateway::new("gw-home-2").connected("udp"),
        Gateway::new("gw-far-1").connected("udp").at(&far),
        Gateway::new("gw-far-2").connected("udp").at(&far),
    ]));
    let Some(cluster) = cluster(&home, &authority, &far) else {
        return;
    };
    for (trouble, reason) in [
        (Some(Misbehaviour::status(503)), "server_error"),
        (Some(Misbehaviour::HangBeforeHead), "timeout"),
        (Some(Misbehaviour::status(401)), "unauthorized"),
        (Some(Misbehaviour::Html), "not_json"),
        (None, "connect"),
    ] {
        match trouble {
            Some(trouble) => cluster.script_all(trouble),
            None => cluster.stop(),
        }
        let exporter = start(&home, &authority, &[&far]);
        let header = ("X-Prometheus-Scrape-Timeout-Seconds", "3");
        let scrape = exporter.scrape_within(Duration::from_secs(4), &[header]);
        scrape.assert_value("ttn_up", 0.0);
        for id in ["gw-home-1", "gw-home-2"] {
            scrape.assert_of("ttn_gateway_connected", id, Some(1.0));
        }
        for id in ["gw-far-1", "gw-far-2"] {
            scrape.assert_of("ttn_gateway_connected", id, None);
            scrape.assert_of("ttn_gateway_scrape_success", id, Some(0.0));
        }
        assert_eq!(scrape.reasons(), [(reason.to_owned(), 2.0)], "{scrape}");
        cluster.behave();
        if reason == "connect" {
            cluster.resume();
        }
        let well = exporter.scrape_until("recovery", |scrape| scrape.value("ttn_up") == 1.0);
        well.assert_of("ttn_gateway_connected", "gw-far-1", Some(1.0));
    }
}

#[test]
fn two_servers_at_one_host_are_two() {
    let other = Gateway::new("gw-2")
        .connected("udp")
        .at("other.example.com");
    let home = Fake::start(Fleet::of([
        Gateway::new("gw-1").connected("udp"),
        other.really_at("nowhere"),
    ]));
    let cluster = home.sibling("127.0.0.1:0", None).expect("a free port");
    cluster.script_all(Misbehaviour::RateLimited { retry_seconds: 30 });
    let alias = format!("other.example.com={}", cluster.url());
    let setup = Setup::against(&home).args(["--ttl", "0.3", "--allow-host", &alias]);
    let exporter = setup.start();
    for _ in 0..2 {
        let scrape = exporter.scrape();
        scrape.assert_of("ttn_gateway_connected", "gw-1", Some(1.0));
        scrape.assert_of("ttn_gateway_connected", "gw-2", None);
        thread::sleep(Duration::from_millis(350));
    }
    assert_eq!(cluster.request_count(), 1, "{exporter}");
    cluster.behave();
}

#[test]
fn a_host_that_is_not_known_gets_no_connection() {
    let (stranger, authority) = (own_address(), Authority::new());
    let home = Fake::start(Fleet::of([
        Gateway::new("gw-home").connected("udp"),
        Gateway::new("gw-stolen").connected("udp").at(&stranger),
    ]));
    let Some(stranger_fake) = cluster(&home, &authority, &stranger) else {
        return;
    };
    let exporter = start(&home, &authority, &[]);
    for _ in 0..3 {
        let scrape = exporter.scrape();
        scrape.assert_value("ttn_up", 1.0);
        scrape.assert_of("ttn_gateway_connected", "gw-home", Some(1.0));
        scrape.assert_of("ttn_gateway_scrape_success", "gw-stolen", Some(0.0));
        scrape.assert_of("ttn_gateway_connected", "gw-stolen", None);
        scrape.assert(scrape.errors("unknown_host") >= 1.0, "unknown_host");
        thread::sleep(Duration::from_millis(350));
    }
    assert_eq!(stranger_fake.connection_count(), 0);
    let log = exporter.stderr();
    let warnings = log.lines().filter(|line| line.contains(&stranger)).count();
    assert_eq!(warnings, 1, "{exporter}");
    exporter.wait_for_log(&format!("--allow-host {stranger}"));
}

#[test]
fn look_alikes_of_the_server_are_strangers() {
    let addresses = [
        "127.0.0.1.evil.example",
        "evil127.0.0.1",
        "127.0.0.1@evil.example",
        "http://127.0.0.1:80@evil.example",
        "[127.0.0.1]",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "localhost",
        "127.0.0.1%00.evil.example",
        "127.0.0.1\\@evil.example",
        "eu1.cloud.thethings.network.evil.example",
        "evil.example#127.0.0.1",
        "evil.example?127.0.0.1",
        "evil.example/127.0.0.1",
        "127.0.0.1\nevil.example",
        "...",
        "@",
    ];
    let home = Fake::start(fleet_at(&addresses, "nowhere"));
    let scrape = Exporter::start(&home).scrape();
    for (at, address) in addresses.iter().enumerate() {
        let success = scrape.find_of("ttn_gateway_scrape_success", &format!("gw-{at}"));
        assert_eq!(success, Some(0.0), "{address:?}\n{scrape}");
    }
    assert_eq!(
        home.request_count(),
        2,
        "the list, and whether it has them itself"
    );
    assert_eq!(
        scrape.reasons(),
        [("unknown_host".to_owned(), addresses.len() as f64)]
    );
}

#[test]
fn the_servers_own_host_is_the_server_in_each_of_its_spellings() {
    let addresses = [
        "",
        " ",
        "127.0.0.1",
        "127.0.0.1:1884",
        "mqtts://127.0.0.1:8883",
        "udp://127.0.0.1",
        "https://127.0.0.1/",
        "wss://127.0.0.1:443/path?query#fragment",
    ];
    let home = Fake::start(fleet_at(&addresses, ""));
    let scrape = Exporter::start(&home).scrape();
    assert_eq!(
        scrape.all("ttn_gateway_connected").len(),
        addresses.len(),
        "{scrape}"
    );
    assert_eq!(home.request_count(), 2);
}

#[test]
fn names_are_compared_without_case_and_final_dot() {
    let addresses = ["localhost", "LocalHost.", "mqtts://LOCALHOST:8883"];
    let home = Fake::start(fleet_at(&addresses, ""));
    let setup = Setup::bare().variable("TTN_API_KEY", &Key::user().token);
    let scrape = setup
        .args(["--server", &home.url_by_name()])
        .start()
        .scrape();
    assert_eq!(
        scrape.all("ttn_gateway_connected").len(),
        addresses.len(),
        "{scrape}"
    );
}
