//! What a network does to kept connections: a NAT that forgets them without a word, a machine
//! that was suspended, a server that closes them. No scrape may notice.

use std::thread;
use std::time::Duration;

use crate::clusters;
use crate::fake::tls::Authority;
use crate::fake::{Endpoint, Fake, Fleet, Gateway, Misbehaviour, Nat};
use crate::harness::samples::Scrape;
use crate::harness::{Exporter, Setup};

const TTL: Duration = Duration::from_millis(100);

fn two() -> Fleet {
    Fleet::of([
        Gateway::new("gw-1").connected("udp"),
        Gateway::new("gw-2").connected("ws"),
    ])
}

fn scrape_for(exporter: &Exporter, seconds: Option<&str>) -> Scrape {
    match seconds {
        Some(seconds) => {
            exporter.scrape_with_headers(&[("X-Prometheus-Scrape-Timeout-Seconds", seconds)])
        }
        None => exporter.scrape(),
    }
}

#[track_caller]
fn assert_complete(scrape: &Scrape) {
    scrape.assert_value("ttn_up", 1.0);
    for id in ["gw-1", "gw-2"] {
        scrape.assert_of("ttn_gateway_connected", id, Some(1.0));
    }
    assert_eq!(scrape.reasons(), [], "{scrape}");
}

/// Scrapes through this NAT, with a pause between two scrapes.
#[track_caller]
fn check_nat(nat: Nat, pause: Duration, timeout: &str, scrape_timeout: Option<&str>) {
    let fake = Fake::start(two());
    fake.set_nat(nat);
    let arguments = ["--ttl", "0.1", "--list-ttl", "0.1", "--timeout", timeout];
    let exporter = Setup::against(&fake).args(arguments).start();
    for _ in 0..4 {
        assert_complete(&scrape_for(&exporter, scrape_timeout));
        thread::sleep(pause);
    }
    assert!(fake.lost_count() >= 1, "nothing was lost: {exporter}");
    assert!(fake.connection_count() >= 2, "{exporter}");
}

/// `--timeout`, and what the scrape says to have.
const TIMES: [(&str, Option<&str>); 6] = [
    ("300", Some("3")),
    ("1", None),
    ("1", Some("3")),
    ("5", Some("3")),
    ("5", None),
    ("30", Some("10")),
];

#[test]
fn a_nat_that_forgets_after_each_request_costs_no_scrape() {
    thread::scope(|scope| {
        for (timeout, scrape_timeout) in TIMES {
            let nat = Nat::of_one_request();
            scope.spawn(move || check_nat(nat, TTL * 2, timeout, scrape_timeout));
        }
    });
}

#[test]
fn a_nat_that_forgets_idle_connections_costs_no_scrape() {
    thread::scope(|scope| {
        for (timeout, scrape_timeout) in TIMES {
            let nat = Nat::of_idle(Duration::from_millis(150));
            let pause = Duration::from_millis(300);
            scope.spawn(move || check_nat(nat, pause, timeout, scrape_timeout));
        }
    });
}

#[test]
fn a_nat_that_forgets_sooner_than_the_scrapes_come_costs_no_scrape() {
    let nat = Nat::of_idle(Duration::from_millis(1200));
    thread::scope(|scope| {
        for millis in [1500, 2500, 3000] {
            let pause = Duration::from_millis(millis);
            scope.spawn(move || check_nat(nat, pause, "5", Some("3")));
        }
    });
}

/// The home cluster, another one, an exporter that asks both for a gateway each; none where this
/// machine has no address for a second one.
fn two_clusters() -> Option<(Fake, Fake, Exporter)> {
    let (far, authority) = (clusters::own_address(), Authority::new());
    let home = Fake::start(Fleet::of([
        Gateway::new("gw-1").connected("udp"),
        Gateway::new("gw-2").connected("udp").at(&far),
    ]));
    let cluster = clusters::cluster(&home, &authority, &far)?;
    let exporter = clusters::start(&home, &authority, &[&far]);
    Some((home, cluster, exporter))
}

#[test]
fn a_nat_between_every_cluster_costs_no_scrape() {
    let Some((home, cluster, exporter)) = two_clusters() else {
        return;
    };
    for fake in [&home, &cluster] {
        fake.set_nat(Nat::of_idle(Duration::from_millis(200)));
    }
    for _ in 0..4 {
        assert_complete(&scrape_for(&exporter, Some("6")));
        thread::sleep(Duration::from_millis(400));
    }
    assert!(home.lost_count() + cluster.lost_count() >= 1, "{exporter}");
}

#[test]
fn a_nat_that_forgets_between_two_pages_costs_no_scrape() {
    let fake = Fake::start(Fleet::generated(9).in_pages_of(3));
    fake.set_nat(Nat {
        idle_max: None,
        requests_max: Some(2),
    });
    let arguments = ["--ttl", "0.1", "--list-ttl", "0.1"];
    let exporter = Setup::against(&fake).args(arguments).start();
    for _ in 0..3 {
        let scrape = scrape_for(&exporter, Some("10"));
        scrape.assert_value("ttn_up", 1.0);
        assert_eq!(scrape.all("ttn_gateway_connected").len(), 9, "{scrape}");
        thread::sleep(TTL * 2);
    }
    assert!(fake.lost_count() >= 1, "{exporter}");
}

#[test]
fn after_a_suspend_of_the_machine_the_next_scrape_is_complete() {
    let fake = Fake::start(two());
    let exporter = Setup::against(&fake).args(["--ttl", "0.1"]).start();
    for _ in 0..4 {
        assert_complete(&scrape_for(&exporter, Some("4")));
        fake.forget_connections();
        thread::sleep(TTL * 2);
    }
    assert!(fake.lost_count() >= 1, "{exporter}");
}

#[test]
fn a_slow_server_behind_a_nat_is_still_answered_for() {
    let fake = Fake::start(two());
    fake.set_delay(Duration::from_millis(400));
    fake.set_nat(Nat::of_one_request());
    let arguments = ["--ttl", "0.1", "--timeout", "2"];
    let exporter = Setup::against(&fake).args(arguments).start();
    for _ in 0..3 {
        assert_complete(&scrape_for(&exporter, Some("8")));
        thread::sleep(TTL * 2);
    }
}

/// A second request to it would not fit into the time of a scrape.
#[test]
fn a_server_that_takes_half_of_a_scrape_is_answered_for_behind_a_nat() {
    thread::scope(|scope| {
        for (nat, timeout) in [
            (Nat::of_one_request(), "2"),
            (Nat::of_idle(Duration::from_millis(150)), "5"),
            (Nat::of_one_request(), "300"),
        ] {
            scope.spawn(move || {
                let fake = Fake::start(two());
                let arguments = ["--ttl", "0.1", "--timeout", timeout];
                let exporter = Setup::against(&fake).args(arguments).start();
                fake.set_delay(Duration::from_millis(1_200));
                fake.set_nat(nat);
                assert_complete(&scrape_for(&exporter, Some("20")));
                for _ in 0..4 {
                    thread::sleep(TTL * 2);
                    assert_complete(&scrape_for(&exporter, Some("3")));
                }
            });
        }
    });
}

#[test]
fn a_nat_before_one_cluster_costs_the_other_one_no_gateway() {
    let Some((home, cluster, exporter)) = two_clusters() else {
        return;
    };
    assert_complete(&scrape_for(&exporter, Some("6")));
    for _ in 0..3 {
        cluster.forget_connections();
        thread::sleep(Duration::from_millis(400));
        assert_complete(&scrape_for(&exporter, Some("6")));
    }
    assert_eq!(home.lost_count(), 0);
}

#[test]
fn a_server_that_ends_each_connection_costs_no_scrape() {
    let fake = Fake::start(two());
    fake.script_all(Misbehaviour::CloseAfter);
    let exporter = Setup::against(&fake).args(["--ttl", "0.1"]).start();
    for _ in 0..3 {
        assert_complete(&exporter.scrape());
        thread::sleep(TTL * 2);
    }
    assert_eq!(fake.request_count(), 4, "no request twice: {exporter}");
}

#[test]
fn a_silent_server_is_not_asked_again_and_again() {
    let fake = Fake::start(two());
    let arguments = ["--ttl", "0.1", "--timeout", "1"];
    let exporter = Setup::against(&fake).args(arguments).start();
    assert_complete(&exporter.scrape());
    fake.forget();
    fake.script(Endpoint::StatsBatch, Misbehaviour::HangBeforeHead);
    thread::sleep(TTL * 2);
    let scrape = scrape_for(&exporter, Some("8"));
    scrape.assert_value("ttn_up", 0.0);
    let requests = fake.count(Endpoint::StatsBatch);
    assert!(requests <= 2, "{requests} requests: {exporter}");
}

/// Ten batches follow each list: as quick as they are, they say nothing about the next list.
#[test]
fn a_slow_list_after_quick_batches_is_asked_for_once() {
    let fake = Fake::start(Fleet::generated(1_000));
    let delay = Misbehaviour::Delay(Duration::from_millis(2_200));
    fake.script(Endpoint::List, delay);
    let arguments = ["--ttl", "0.1", "--list-ttl", "0.1", "--timeout", "5"];
    let exporter = Setup::against(&fake).args(arguments).start();
    for scrapes in 1..=3 {
        scrape_for(&exporter, Some("5")).assert_value("ttn_up", 1.0);
        assert_eq!(fake.count(Endpoint::StatsBatch), 10 * scrapes);
        assert_eq!(fake.count(Endpoint::List), scrapes, "{exporter}");
        thread::sleep(TTL * 2);
    }
}
