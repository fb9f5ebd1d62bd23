//! Gateways whose cluster the registration does not tell, or tells wrongly: they are looked for
//! wherever they may be, and called down only when every cluster said so.

use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::clusters::{cluster, own_address, start};
use crate::fake::tls::Authority;
use crate::fake::{Endpoint, Fake, Fleet, Gateway, Key, Misbehaviour};
use crate::harness::{Exporter, Setup};

/// A little more than the time to live that [`start`] sets.
const REFRESH: Duration = Duration::from_millis(350);

/// A home cluster, a far one and its authority; none where port 443 may not be bound.
fn pair(fleet: impl FnOnce(&str) -> Fleet) -> Option<(Fake, Fake, Authority, String)> {
    let (far, authority) = (own_address(), Authority::new());
    let home = Fake::start(fleet(&far));
    let cluster = cluster(&home, &authority, &far)?;
    Some((home, cluster, authority, far))
}

#[test]
fn a_gateway_without_an_address_is_found_at_another_cluster_and_remembered_there() {
    let Some((home, cluster, authority, far)) =
        pair(|far| Fleet::of([Gateway::new("gw-1").connected("udp").really_at(far)]))
    else {
        return;
    };
    let exporter = start(&home, &authority, &[&far]);
    let scrape = exporter.scrape();
    scrape.assert_value("ttn_up", 1.0);
    scrape.assert_of("ttn_gateway_connected", "gw-1", Some(1.0));
    let calls = || [&home, &cluster].map(|fake| fake.count(Endpoint::Stats));
    assert_eq!(calls(), [1, 1], "{exporter}");
    for _ in 0..2 {
        thread::sleep(REFRESH);
        let scrape = exporter.scrape();
        scrape.assert_of("ttn_gateway_connected", "gw-1", Some(1.0));
    }
    assert_eq!(
        calls(),
        [1, 3],
        "it is known where the gateway is: {exporter}"
    );
}

#[test]
fn a_redacted_gateway_is_found_at_another_cluster() {
    let Some((home, _cluster, authority, far)) = pair(|far| {
        Fleet::of([
            Gateway::new("gw-1").connected("udp").at(far).redacted(),
            Gateway::new("gw-2")
                .connected("udp")
                .at(far)
                .redacted()
                .public(),
        ])
    }) else {
        return;
    };
    let scrape = start(&home, &authority, &[&far]).scrape();
    scrape.assert_value("ttn_up", 1.0);
    for id in ["gw-1", "gw-2"] {
        scrape.assert_of("ttn_gateway_connected", id, Some(1.0));
    }
}

#[test]
fn a_gateway_that_connects_elsewhere_than_its_address_says_is_found() {
    let Some((home, _cluster, authority, far)) = pair(|far| {
        Fleet::of([
            Gateway::new("gw-at-home")
                .connected("udp")
                .at(far)
                .really_at(""),
            Gateway::new("gw-at-far")
                .connected("udp")
                .at("127.0.0.1")
                .really_at(far),
            Gateway::new("gw-alias")
                .connected("udp")
                .at("old.example.com")
                .really_at(""),
            Gateway::new("gw-far-alias")
                .connected("udp")
                .at("old.example.com")
                .really_at(far),
        ])
    }) else {
        return;
    };
    let scrape = start(&home, &authority, &[&far]).scrape();
    scrape.assert_value("ttn_up", 1.0);
    for id in ["gw-at-home", "gw-at-far", "gw-alias", "gw-far-alias"] {
        scrape.assert_of("ttn_gateway_connected", id, Some(1.0));
    }
    assert_eq!(scrape.reasons(), [], "{scrape}");
}

#[test]
fn an_unknown_host_stays_unknown_where_nobody_else_has_the_gateway() {
    let fake = Fake::start(Fleet::of([
        Gateway::new("gw-1").connected("udp"),
        Gateway::new("gw-2").connected("udp").at("old.example.com"),
    ]));
    let scrape = Setup::against(&fake).start().scrape();
    scrape.assert_of("ttn_gateway_connected", "gw-2", None);
    scrape.assert_of("ttn_gateway_scrape_success", "gw-2", Some(0.0));
    assert_eq!(scrape.reasons(), [("unknown_host".to_owned(), 1.0)]);
    scrape.assert_value("ttn_up", 1.0);
}

#[test]
fn whoever_is_nowhere_is_disconnected_and_looked_for_in_batches_once() {
    let Some((home, cluster, authority, far)) =
        pair(|_| Fleet::of((0..150).map(|number| Gateway::new(&format!("gw-{number:03}")))))
    else {
        return;
    };
    let exporter = start(&home, &authority, &[&far]);
    for _ in 0..4 {
        let scrape = exporter.scrape();
        scrape.assert_value("ttn_up", 1.0);
        let states = scrape.all("ttn_gateway_connected");
        assert_eq!(states.len(), 150, "{exporter}");
        assert!(states.iter().all(|sample| sample.number() == 0.0));
        thread::sleep(REFRESH);
    }
    assert_eq!(cluster.count(Endpoint::StatsBatch), 2, "{exporter}");
    assert_eq!(cluster.count(Endpoint::Stats), 0, "{exporter}");
    assert_eq!(home.count(Endpoint::StatsBatch), 8, "{exporter}");
}

#[test]
fn a_gateway_is_unknown_while_a_cluster_where_it_may_be_cannot_be_asked() {
    for (failure, reason) in [
        (Misbehaviour::status(503), "server_error"),
        (Misbehaviour::status(401), "unauthorized"),
        (Misbehaviour::Html, "not_json"),
        (
            Misbehaviour::json(200, r#"{"status":"maintenance"}"#),
            "shape",
        ),
    ] {
        let Some((home, cluster, authority, far)) = pair(|far| {
            Fleet::of([
                Gateway::new("gw-home").connected("udp"),
                Gateway::new("gw-far").connected("udp").really_at(far),
                Gateway::new("gw-never"),
            ])
        }) else {
            return;
        };
        cluster.script_all(failure);
        let exporter = start(&home, &authority, &[&far]);
        for _ in 0..2 {
            let scrape = exporter.scrape();
            scrape.assert_value("ttn_up", 0.0);
            scrape.assert_of("ttn_gateway_connected", "gw-home", Some(1.0));
            for id in ["gw-far", "gw-never"] {
                scrape.assert_of("ttn_gateway_connected", id, None);
                scrape.assert_of("ttn_gateway_scrape_success", id, Some(0.0));
            }
            scrape.assert(scrape.errors(reason) >= 1.0, reason);
            thread::sleep(REFRESH);
        }
        cluster.behave();
        let well = exporter.scrape_until("recovery", |scrape| scrape.value("ttn_up") == 1.0);
        well.assert_of("ttn_gateway_connected", "gw-far", Some(1.0));
        well.assert_of("ttn_gateway_connected", "gw-never", Some(0.0));
    }
}

#[test]
fn a_gateway_without_a_readable_registration_is_found_at_another_cluster() {
    let Some((home, _cluster, authority, far)) = pair(|far| {
        let mut key = Key::user();
        key.no_info_of = ["gw-1".to_owned()].into();
        Fleet::of([Gateway::new("gw-1").connected("udp").at(far)]).with_key(key)
    }) else {
        return;
    };
    let setup = Setup::against(&home).args_with_file("--ca-file", &authority.pem());
    let exporter = setup
        .args(["--gateway", "gw-1", "--allow-host", &far])
        .start();
    let scrape = exporter.scrape();
    scrape.assert_of("ttn_gateway_connected", "gw-1", Some(1.0));
    scrape.assert_value("ttn_up", 1.0);
}

#[test]
fn the_key_of_a_gateway_is_enough_to_find_it_at_another_cluster() {
    let key = Key::gateway("gw-1");
    let Some((home, _cluster, authority, far)) = pair(|far| {
        Fleet::of([Gateway::new("gw-1").connected("udp").really_at(far)]).with_key(key.clone())
    }) else {
        return;
    };
    let setup = Setup::with_key(&home, &key).args_with_file("--ca-file", &authority.pem());
    let exporter = setup
        .args(["--gateway", "gw-1", "--allow-host", &far])
        .start();
    let scrape = exporter.scrape();
    scrape.assert_of("ttn_gateway_connected", "gw-1", Some(1.0));
}

#[test]
fn a_connection_outweighs_what_another_cluster_remembers_of_an_older_one() {
    let left = json!({
        "disconnected_at": "2024-11-20T05:00:00Z", "uplink_count": "7", "protocol": "udp",
    });
    let Some((home, _cluster, authority, far)) = pair(|far| {
        let moved = Gateway::new("gw-moved").connected("udp").really_at(far);
        let gone = Gateway::new("gw-gone")
            .with_stats(left.clone())
            .really_at("");
        Fleet::of([moved.left_behind_at("127.0.0.1", left.clone()), gone])
    }) else {
        return;
    };
    let scrape = start(&home, &authority, &[&far]).scrape();
    scrape.assert_of("ttn_gateway_connected", "gw-moved", Some(1.0));
    scrape.assert_of(
        "ttn_gateway_uplink_messages_total",
        "gw-moved",
        Some(9043.0),
    );
    scrape.assert_of("ttn_gateway_connected", "gw-gone", Some(0.0));
    scrape.assert_of("ttn_gateway_uplink_messages_total", "gw-gone", Some(7.0));
}

#[test]
fn a_gateway_that_left_the_cluster_where_it_was_found_is_disconnected() {
    let Some((home, _cluster, authority, far)) =
        pair(|far| Fleet::of([Gateway::new("gw-1").connected("udp").really_at(far)]))
    else {
        return;
    };
    let exporter = start(&home, &authority, &[&far]);
    exporter
        .scrape()
        .assert_of("ttn_gateway_connected", "gw-1", Some(1.0));
    home.change(|fleet| fleet.gateway_mut("gw-1").stats = None);
    thread::sleep(REFRESH);
    let scrape = exporter.scrape();
    scrape.assert_of("ttn_gateway_connected", "gw-1", Some(0.0));
    scrape.assert_value("ttn_up", 1.0);
}

#[test]
fn a_gateway_is_found_though_the_cluster_of_its_address_fails() {
    for failure in [
        Misbehaviour::status(503),
        Misbehaviour::status(401),
        Misbehaviour::html(404),
        Misbehaviour::Html,
        Misbehaviour::RateLimited { retry_seconds: 30 },
        Misbehaviour::HangBeforeHead,
    ] {
        let Some((home, cluster, authority, far)) = pair(|far| {
            let names = ["gw-1", "gw-2"].map(Gateway::new);
            Fleet::of(names.map(|gateway| gateway.connected("udp").at(far).really_at("")))
        }) else {
            return;
        };
        cluster.script_all(failure.clone());
        let scrape = start(&home, &authority, &[&far]).scrape();
        for id in ["gw-1", "gw-2"] {
            let found = scrape.find_of("ttn_gateway_connected", id);
            scrape.assert(found == Some(1.0), &format!("{id}, {failure:?}"));
        }
        assert_eq!(scrape.reasons(), [], "{failure:?}");
    }
}

#[test]
fn a_gateway_that_moves_to_and_fro_is_never_called_down() {
    let Some((home, _cluster, authority, far)) =
        pair(|far| Fleet::of([Gateway::new("gw-1").connected("udp").at(far)]))
    else {
        return;
    };
    let exporter = start(&home, &authority, &[&far]);
    for place in [&*far, "", &far, "", "", &far] {
        home.change(|fleet| fleet.gateway_mut("gw-1").host = Some(place.to_owned()));
        thread::sleep(REFRESH);
        let scrape = exporter.scrape();
        scrape.assert_of("ttn_gateway_connected", "gw-1", Some(1.0));
        scrape.assert_value("ttn_up", 1.0);
    }
}

#[test]
fn a_gateway_that_left_one_cluster_is_seen_when_it_comes_back_to_the_one_of_its_address() {
    let Some((home, _cluster, authority, far)) =
        pair(|far| Fleet::of([Gateway::new("gw-1").connected("udp").really_at(far)]))
    else {
        return;
    };
    let exporter = start(&home, &authority, &[&far]);
    let state = |stats: Option<serde_json::Value>, place: &str, expected| {
        home.change(|fleet| {
            let gateway = fleet.gateway_mut("gw-1");
            (gateway.stats, gateway.host) = (stats, Some(place.to_owned()));
        });
        thread::sleep(REFRESH);
        let scrape = exporter.scrape();
        scrape.assert_of("ttn_gateway_connected", "gw-1", Some(expected));
    };
    let connected = json!({ "connected_at": "2024-11-20T06:00:00Z" });
    state(Some(connected.clone()), &far, 1.0);
    state(None, &far, 0.0);
    state(None, &far, 0.0);
    state(Some(connected), "", 1.0);
}

#[test]
fn gateways_that_are_nowhere_are_known_even_if_no_scrape_has_time_to_search_for_all() {
    let Some((home, cluster, authority, far)) =
        pair(|_| Fleet::of((0..400).map(|number| Gateway::new(&format!("gw-{number:03}")))))
    else {
        return;
    };
    let delay = || Misbehaviour::Delay(Duration::from_millis(450));
    home.script(Endpoint::StatsBatch, delay());
    cluster.script(Endpoint::StatsBatch, delay());
    let exporter = Setup::against(&home)
        .args(["--ttl", "60", "--allow-host", &far])
        .args_with_file("--ca-file", &authority.pem())
        .start();
    let mut known = 0;
    for _ in 0..8 {
        let scrape =
            exporter.scrape_with_headers(&[("X-Prometheus-Scrape-Timeout-Seconds", "2.5")]);
        known = scrape.all("ttn_gateway_connected").len();
    }
    assert_eq!(known, 400, "{exporter}");
}

#[test]
fn a_cluster_that_hangs_is_asked_once_a_scrape_for_those_that_are_nowhere() {
    let Some((home, cluster, authority, far)) =
        pair(|_| Fleet::of([Gateway::new("gw-1"), Gateway::new("gw-2").connected("udp")]))
    else {
        return;
    };
    cluster.script_all(Misbehaviour::HangBeforeHead);
    let exporter = Setup::against(&home)
        .args(["--ttl", "0.3", "--allow-host", &far])
        .args_with_file("--ca-file", &authority.pem())
        .start();
    for _ in 0..3 {
        let scrape =
            exporter.scrape_with_headers(&[("X-Prometheus-Scrape-Timeout-Seconds", "2.5")]);
        scrape.assert_of("ttn_gateway_connected", "gw-1", None);
        scrape.assert_of("ttn_gateway_connected", "gw-2", Some(1.0));
    }
    assert_eq!(cluster.count(Endpoint::Stats), 3, "{exporter}");
}

/// The other cluster said before that the gateway is not there, and is asked again.
#[test]
fn a_gateway_that_moved_while_its_cluster_failed_is_never_called_down() {
    let Some((home, cluster, authority, far)) = pair(|far| {
        let gateway = Gateway::new("gw-1").connected("udp").at(far);
        Fleet::of([gateway.really_at(far)])
    }) else {
        return;
    };
    let exporter = start(&home, &authority, &[&far]);
    let scrape = || {
        thread::sleep(REFRESH);
        exporter.scrape()
    };
    scrape().assert_of("ttn_gateway_connected", "gw-1", Some(1.0));
    cluster.script_all(Misbehaviour::status(503));
    scrape().assert_of("ttn_gateway_connected", "gw-1", None);
    home.change(|fleet| fleet.gateway_mut("gw-1").host = Some(String::new()));
    cluster.behave();
    scrape().assert_of("ttn_gateway_connected", "gw-1", Some(1.0));
}

#[test]
fn of_two_clusters_that_remember_a_gateway_the_newer_stats_are_shown() {
    let left = |day: u32, uplinks: &str| {
        json!({
            "disconnected_at": format!("2024-11-{day}T05:00:00Z"), "uplink_count": uplinks,
        })
    };
    let Some((home, _cluster, authority, far)) = pair(|far| {
        let gateway = |id| Gateway::new(id).really_at(far);
        Fleet::of([
            gateway("gw-far")
                .with_stats(left(20, "20"))
                .left_behind_at("127.0.0.1", left(19, "19")),
            gateway("gw-home")
                .with_stats(left(19, "19"))
                .left_behind_at("127.0.0.1", left(20, "20")),
        ])
    }) else {
        return;
    };
    let exporter = start(&home, &authority, &[&far]);
    for _ in 0..3 {
        let scrape = exporter.scrape();
        for id in ["gw-far", "gw-home"] {
            scrape.assert_of("ttn_gateway_connected", id, Some(0.0));
            scrape.assert_of("ttn_gateway_uplink_messages_total", id, Some(20.0));
        }
        thread::sleep(REFRESH);
    }
}

#[test]
fn stats_that_fit_into_the_scrape_are_read_whole_though_there_are_clusters_to_search() {
    for (gateways, milliseconds) in [(2, 1200), (600, 260)] {
        let fake = Fake::start(Fleet::generated(gateways));
        let delay = Misbehaviour::Delay(Duration::from_millis(milliseconds));
        fake.script(Endpoint::StatsBatch, delay);
        let exporter = Setup::against(&fake)
            .args(["--allow-host", "127.0.0.9"])
            .start();
        let header = ("X-Prometheus-Scrape-Timeout-Seconds", "3");
        let scrape = exporter.scrape_with_headers(&[header]);
        assert_eq!(scrape.reasons(), [], "{gateways}: {exporter}");
        assert_eq!(scrape.all("ttn_gateway_connected").len(), gateways);
    }
}

#[test]
fn a_refusal_at_one_cluster_is_none_at_the_others() {
    let Some((home, cluster, authority, far)) = pair(|_| Fleet::of([Gateway::new("gw-1")])) else {
        return;
    };
    cluster.script(Endpoint::StatsBatch, Misbehaviour::status(403));
    cluster.script(Endpoint::Stats, Misbehaviour::status(403));
    let exporter = start(&home, &authority, &[&far]);
    let scrape = exporter.scrape();
    scrape.assert_of("ttn_gateway_scrape_success", "gw-1", Some(0.0));
    home.change(|fleet| {
        let gateway = fleet.gateway_mut("gw-1");
        *gateway = gateway.clone().connected("udp");
    });
    thread::sleep(REFRESH);
    let scrape = exporter.scrape();
    scrape.assert_of("ttn_gateway_connected", "gw-1", Some(1.0));
}

#[test]
fn a_cluster_that_fails_now_and_then_makes_no_search_each_time() {
    let Some((home, cluster, authority, far)) =
        pair(|far| Fleet::of(["gw-1", "gw-2"].map(|id| Gateway::new(id).connected("udp").at(far))))
    else {
        return;
    };
    let exporter = start(&home, &authority, &[&far]);
    for _ in 0..3 {
        exporter.scrape().assert_value("ttn_up", 1.0);
        thread::sleep(REFRESH);
        cluster.script_all(Misbehaviour::status(503));
        exporter.scrape().assert_value("ttn_up", 0.0);
        thread::sleep(REFRESH);
        cluster.behave();
    }
    assert_eq!(home.count(Endpoint::StatsBatch), 1, "{exporter}");
}

/// It comes when nobody waits.
#[track_caller]
fn wait_for_question_about_key(home: &Fake, exporter: &Exporter) {
    for _ in 0..100 {
        if home.count(Endpoint::AuthInfo) > 0 {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("the rights were never asked for\n{exporter}");
}

#[test]
fn the_rights_are_asked_for_at_the_server_alone() {
    let Some((home, cluster, authority, far)) =
        pair(|far| Fleet::of([Gateway::new("gw-1").connected("udp").at(far)]))
    else {
        return;
    };
    let exporter = start(&home, &authority, &[&far]);
    for _ in 0..3 {
        exporter.scrape().assert_value("ttn_up", 1.0);
        thread::sleep(REFRESH);
    }
    wait_for_question_about_key(&home, &exporter);
    assert_eq!(home.count(Endpoint::AuthInfo), 1, "{exporter}");
    assert_eq!(cluster.count(Endpoint::AuthInfo), 0, "{exporter}");
}
