//! The list of gateways: slow ones, those that change while they are read, and those that are
//! none. No gateway leaves the metrics unless a whole list says so.

use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::fake::wire::Answer;
use crate::fake::{Endpoint, Fake, Fleet, Gateway, Holder, Key, Misbehaviour};
use crate::harness::samples::Scrape;
use crate::harness::{Exporter, Setup};

const LIST_TTL: Duration = Duration::from_millis(200);
/// How many scrapes anything may take that a few can do.
const SCRAPES_MAX: usize = 25;

fn two() -> Fleet {
    Fleet::of([
        Gateway::new("gw-1").connected("udp"),
        Gateway::new("gw-2").connected("ws"),
    ])
}

/// It reads the list again with nearly each scrape.
fn start(fake: &Fake) -> Exporter {
    let arguments = ["--ttl", "0.1", "--list-ttl", "0.2"];
    Setup::against(fake).args(arguments).start()
}

fn scrape_for(exporter: &Exporter, seconds: &str) -> Scrape {
    exporter.scrape_with_headers(&[("X-Prometheus-Scrape-Timeout-Seconds", seconds)])
}

/// Scrapes one after the other until this holds.
#[track_caller]
fn scrape_until(exporter: &Exporter, seconds: &str, holds: impl Fn(&Scrape) -> bool) -> Scrape {
    for _ in 0..SCRAPES_MAX {
        let scrape = scrape_for(exporter, seconds);
        if holds(&scrape) {
            return scrape;
        }
        thread::sleep(Duration::from_millis(100));
    }
    panic!("not within {SCRAPES_MAX} scrapes\n{exporter}");
}

fn gateways(scrape: &Scrape) -> usize {
    scrape.all("ttn_gateway_info").len()
}

#[test]
fn pages_that_were_read_are_kept_when_the_scrape_ends_before_the_list() {
    let fake = Fake::start(Fleet::generated(5).in_pages_of(1));
    fake.script(
        Endpoint::List,
        Misbehaviour::Delay(Duration::from_millis(400)),
    );
    let exporter = Setup::against(&fake).args(["--list-ttl", "60"]).start();
    scrape_until(&exporter, "1.5", |scrape| {
        scrape.value("ttn_up") == 1.0 && scrape.all("ttn_gateway_connected").len() == 5
    });
    let pages = fake.count(Endpoint::List);
    assert!((5..=8).contains(&pages), "{pages} pages\n{exporter}");
}

#[test]
fn a_long_list_is_finished_even_if_no_scrape_could_read_it_whole() {
    let fake = Fake::start(Fleet::generated(16).in_pages_of(1));
    fake.script(
        Endpoint::List,
        Misbehaviour::Delay(Duration::from_millis(400)),
    );
    let exporter = Setup::against(&fake).args(["--list-ttl", "60"]).start();
    scrape_until(&exporter, "1.5", |scrape| {
        scrape.value("ttn_up") == 1.0 && gateways(scrape) == 16
    });
    let pages = fake.count(Endpoint::List);
    assert!((16..=26).contains(&pages), "{pages} pages\n{exporter}");
}

#[test]
fn a_list_that_takes_most_of_the_scrape_is_renewed_and_stats_are_served_meanwhile() {
    thread::scope(|scope| {
        for share in [0.6, 0.75, 0.9] {
            scope.spawn(move || check_renewal(share));
        }
    });
}

/// With a list that takes this share of the two seconds that a scrape has for the API.
fn check_renewal(share: f64) {
    let fake = Fake::start(two());
    let exporter = start(&fake);
    scrape_for(&exporter, "2.5").assert_value("ttn_up", 1.0);
    fake.script(
        Endpoint::List,
        Misbehaviour::Delay(Duration::from_secs_f64(2.0 * share)),
    );
    fake.change(|fleet| fleet.gateways.push(Gateway::new("gw-3").connected("udp")));
    scrape_until(&exporter, "2.5", |scrape| {
        scrape.assert_of("ttn_gateway_connected", "gw-1", Some(1.0));
        scrape.assert_of("ttn_gateway_connected", "gw-2", Some(1.0));
        scrape.find_of("ttn_gateway_connected", "gw-3") == Some(1.0)
    });
}

#[test]
fn twenty_slow_registrations_are_read_over_some_scrapes() {
    let fake = Fake::start(Fleet::generated(20));
    fake.script(
        Endpoint::Gateway,
        Misbehaviour::Delay(Duration::from_millis(300)),
    );
    let ids: Vec<String> = (1..=20).map(|number| format!("gw-{number:05}")).collect();
    let setup = Setup::against(&fake).args(["--list-ttl", "60"]);
    let arguments = ids.iter().flat_map(|id| ["--gateway", id]);
    let exporter = setup.args(arguments).start();
    scrape_until(&exporter, "2", |scrape| {
        scrape.value("ttn_up") == 1.0
            && scrape.all("ttn_gateway_connected").len() == 20
            && scrape.text.contains("Gateway gw-00020")
    });
    let requests = fake.count(Endpoint::Gateway);
    assert!((20..=28).contains(&requests), "{requests}\n{exporter}");
}

#[test]
fn a_registration_that_can_never_be_read_keeps_no_other_from_being_read() {
    let mut fleet = Fleet::generated(4);
    fleet.gateways[0] = Gateway::new("gw-00001").registered(json!({ "ids": 7 }));
    let fake = Fake::start(fleet);
    let ids = ["gw-00001", "gw-00002", "gw-00003", "gw-00004"];
    let setup = Setup::against(&fake).args(["--ttl", "0.1", "--list-ttl", "0.2"]);
    let exporter = setup
        .args(ids.iter().flat_map(|id| ["--gateway", id]))
        .start();
    scrape_until(&exporter, "2", |scrape| {
        let name = |number| format!("name=\"Gateway gw-0000{number}\"");
        (2..5).all(|number| scrape.text.contains(&name(number)))
    });
}

/// Reading them takes more than half of a scrape, and was done in two pieces at first.
#[test]
fn slow_registrations_cost_no_scrape_when_they_are_renewed() {
    let fake = Fake::start(Fleet::generated(8));
    let delay = Misbehaviour::Delay(Duration::from_millis(300));
    fake.script(Endpoint::Gateway, delay);
    let ids: Vec<String> = (1..=8).map(|number| format!("gw-{number:05}")).collect();
    let setup = Setup::against(&fake).args(["--list-ttl", "0.5", "--ttl", "0.1"]);
    let arguments = ids.iter().flat_map(|id| ["--gateway", id]);
    let exporter = setup.args(arguments).start();
    scrape_until(&exporter, "4.5", |scrape| scrape.value("ttn_up") == 1.0);
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(600));
        scrape_for(&exporter, "4.5").assert_value("ttn_up", 1.0);
    }
    let requests = fake.count(Endpoint::Gateway);
    assert!(requests >= 4 * 8, "{requests} are no renewals\n{exporter}");
}

#[test]
fn a_list_without_its_total_is_an_error_and_the_list_at_hand_stays() {
    for nobody in [
        Misbehaviour::json(200, "{}"),
        Misbehaviour::TotalCount(None),
        Misbehaviour::json(200, r#"{"gateways":[]}"#),
    ] {
        let fake = Fake::start(two());
        let exporter = start(&fake);
        let good = exporter.scrape();
        good.assert_value("ttn_up", 1.0);
        let obtained_at = good.value("ttn_exporter_list_timestamp_seconds");
        fake.script(Endpoint::List, nobody);
        thread::sleep(LIST_TTL * 2);
        for _ in 0..2 {
            let scrape = exporter.scrape();
            scrape.assert_value("ttn_up", 0.0);
            for id in ["gw-1", "gw-2"] {
                scrape.assert_of("ttn_gateway_connected", id, Some(1.0));
            }
            scrape.assert_value("ttn_exporter_list_timestamp_seconds", obtained_at);
            thread::sleep(LIST_TTL);
        }
        fake.behave();
        let well = exporter.scrape_until("recovery", |scrape| scrape.value("ttn_up") == 1.0);
        assert_eq!(gateways(&well), 2, "{well}");
    }
}

#[test]
fn a_key_that_is_no_users_and_no_organizations_is_told_so() {
    for key in [
        Key::gateway("gw-1"),
        Key::new('A', Holder::Application("app".to_owned())),
    ] {
        let fake = Fake::start(two().with_key(key.clone()));
        let exporter = Setup::with_key(&fake, &key).start();
        let scrape = exporter.scrape();
        scrape.assert_value("ttn_up", 0.0);
        assert_eq!(scrape.reasons().len(), 1, "{scrape}");
        assert!(
            exporter.stderr().contains("X-Total-Count") || exporter.stderr().contains("--gateway"),
            "{exporter}"
        );
        Setup::with_key(&fake, &key).run_once().assert_code(1);
    }
}

#[test]
fn a_true_list_of_none_is_a_list() {
    let fake = Fake::start(two());
    let exporter = start(&fake);
    assert_eq!(gateways(&exporter.scrape()), 2);
    fake.change(|fleet| fleet.gateways.clear());
    thread::sleep(LIST_TTL * 2);
    let scrape = exporter.scrape();
    scrape.assert_value("ttn_up", 1.0);
    assert_eq!(gateways(&scrape), 0, "{scrape}");
    scrape.assert(
        scrape.value("ttn_exporter_list_timestamp_seconds") > 0.0,
        "a time",
    );
}

/// It may be any of those that the list at hand has.
#[test]
fn an_entry_that_cannot_be_read_takes_no_gateway_away() {
    let good = r#"{"ids":{"gateway_id":"gw-1"}}"#;
    for entry in [
        "null",
        "7",
        "{}",
        r#"{"ids":{"gateway_id":"GW 2"}}"#,
        r#"{"ids":{"gateway_id":"gw-2"},"name":1e999}"#,
        r#"{"ids":{"gateway_id":"gw-2"},"name":"\ud800"}"#,
    ] {
        let fake = Fake::start(two());
        let exporter = start(&fake);
        exporter.scrape().assert_value("ttn_up", 1.0);
        for entries in [format!("{good},{entry}"), entry.to_owned()] {
            let total = if entries.starts_with(good) { 2 } else { 1 };
            let body = format!(r#"{{"gateways":[{entries}]}}"#);
            let answer = Answer::json(200, body).with_header("X-Total-Count", total);
            fake.script(Endpoint::List, Misbehaviour::Answer(answer));
            thread::sleep(LIST_TTL * 2);
            let scrape = exporter.scrape();
            for id in ["gw-1", "gw-2"] {
                scrape.assert_of("ttn_gateway_connected", id, Some(1.0));
            }
        }
        assert!(
            !exporter.stderr().contains("lists no gateway"),
            "{exporter}"
        );
    }
}

#[test]
fn there_is_no_time_of_a_list_before_one_was_obtained() {
    let fake = Fake::start(two());
    fake.script(Endpoint::List, Misbehaviour::status(503));
    let scrape = start(&fake).scrape();
    assert_eq!(
        scrape.find("ttn_exporter_list_timestamp_seconds", &[]),
        None
    );
}

#[test]
fn a_total_that_the_list_does_not_reach_removes_no_gateway() {
    for total in [0, 1, 3, 1000] {
        let fake = Fake::start(two());
        let exporter = start(&fake);
        exporter.scrape().assert_value("ttn_up", 1.0);
        fake.change(|fleet| {
            fleet.gateways.remove(0);
        });
        // One entry is left, and the server claims another number.
        let claimed = if total == 1 { 2 } else { total };
        fake.script(Endpoint::List, Misbehaviour::TotalCount(Some(claimed)));
        thread::sleep(LIST_TTL * 2);
        let scrape = exporter.scrape();
        scrape.assert_value("ttn_up", 0.0);
        assert_eq!(gateways(&scrape), 2, "{claimed}: {scrape}");
        let lists = fake.count(Endpoint::List);
        assert!(lists <= 12, "{lists} lists\n{exporter}");
    }
}

#[test]
fn a_gateway_that_is_new_in_a_list_with_a_wrong_total_is_shown() {
    let fake = Fake::start(two());
    let exporter = start(&fake);
    exporter.scrape().assert_value("ttn_up", 1.0);
    fake.change(|fleet| {
        fleet.gateways.push(Gateway::new("gw-3").connected("udp"));
        fleet.reindex();
    });
    fake.script(Endpoint::List, Misbehaviour::TotalCount(Some(4)));
    thread::sleep(LIST_TTL * 2);
    let scrape = exporter.scrape();
    scrape.assert_value("ttn_up", 0.0);
    scrape.assert_of("ttn_gateway_connected", "gw-3", Some(1.0));
}

#[test]
fn a_list_that_changes_between_two_pages_is_read_again() {
    let fake = Fake::start(Fleet::generated(6).in_pages_of(2));
    // The second page then begins one gateway later, and one would be missing.
    fake.change_after(Endpoint::List, 1, |fleet| {
        fleet.gateways.remove(0);
    });
    let exporter = Exporter::start(&fake);
    let scrape = exporter.scrape();
    scrape.assert_value("ttn_up", 1.0);
    assert_eq!(scrape.all("ttn_gateway_connected").len(), 5, "{scrape}");
    scrape.assert_of("ttn_gateway_connected", "gw-00003", Some(1.0));
}

#[test]
fn a_list_that_grows_between_two_pages_is_read_again() {
    let fake = Fake::start(Fleet::generated(4).in_pages_of(2));
    fake.change_after(Endpoint::List, 1, |fleet| {
        fleet
            .gateways
            .insert(0, Gateway::new("aa-new").connected("udp"));
    });
    let scrape = Exporter::start(&fake).scrape();
    scrape.assert_value("ttn_up", 1.0);
    assert_eq!(scrape.all("ttn_gateway_connected").len(), 5, "{scrape}");
}

#[test]
fn one_deleted_and_one_new_between_two_pages_are_noticed_as_well() {
    let fake = Fake::start(Fleet::generated(6).in_pages_of(2));
    // The total stays the same, and one gateway stands twice.
    fake.change_after(Endpoint::List, 1, |fleet| {
        fleet.gateways.pop();
        fleet
            .gateways
            .insert(0, Gateway::new("aa-new").connected("udp"));
    });
    let scrape = Exporter::start(&fake).scrape();
    scrape.assert_value("ttn_up", 1.0);
    assert_eq!(scrape.all("ttn_gateway_connected").len(), 6, "{scrape}");
    scrape.assert_of("ttn_gateway_connected", "aa-new", Some(1.0));
}

#[test]
fn a_page_that_fails_takes_no_gateway_away_and_is_asked_for_again() {
    let fake = Fake::start(Fleet::generated(6).in_pages_of(2));
    let exporter = start(&fake);
    exporter.scrape().assert_value("ttn_up", 1.0);
    for failure in [
        Misbehaviour::status(503),
        Misbehaviour::json(200, "{}"),
        Misbehaviour::Html,
    ] {
        thread::sleep(LIST_TTL * 2);
        fake.script_after(Endpoint::List, 1, failure);
        let scrape = exporter.scrape();
        scrape.assert_value("ttn_up", 0.0);
        assert_eq!(scrape.all("ttn_gateway_connected").len(), 6, "{scrape}");
        exporter.scrape_until("recovery", |scrape| scrape.value("ttn_up") == 1.0);
    }
}

#[test]
fn an_allowance_used_up_by_the_list_is_none_of_the_stats() {
    let fake = Fake::start(two());
    fake.script(
        Endpoint::List,
        Misbehaviour::AllowanceUsedUp { reset_seconds: 30 },
    );
    let exporter = start(&fake);
    for _ in 0..3 {
        let scrape = exporter.scrape();
        scrape.assert_value("ttn_up", 1.0);
        scrape.assert_of("ttn_gateway_connected", "gw-1", Some(1.0));
        thread::sleep(LIST_TTL);
    }
    assert_eq!(fake.count(Endpoint::List), 1, "{exporter}");
    assert_eq!(fake.count(Endpoint::StatsBatch), 3, "{exporter}");
}

#[test]
fn a_429_silences_its_own_kind_of_call_alone() {
    let fake = Fake::start(two());
    let exporter = start(&fake);
    exporter.scrape().assert_value("ttn_up", 1.0);
    fake.script(
        Endpoint::List,
        Misbehaviour::RateLimited { retry_seconds: 30 },
    );
    thread::sleep(LIST_TTL * 2);
    fake.forget();
    for _ in 0..3 {
        let scrape = exporter.scrape();
        scrape.assert_value("ttn_up", 0.0);
        scrape.assert_of("ttn_gateway_connected", "gw-1", Some(1.0));
        thread::sleep(LIST_TTL);
    }
    assert_eq!(fake.count(Endpoint::List), 1, "{exporter}");
    assert_eq!(fake.count(Endpoint::StatsBatch), 3, "{exporter}");
}

#[test]
fn a_first_list_that_was_cut_off_is_read_by_the_next_scrape() {
    let fake = Fake::start(two());
    fake.script(Endpoint::List, Misbehaviour::HangBeforeHead);
    let exporter = Setup::against(&fake).args(["--timeout", "20"]).start();
    for _ in 0..2 {
        scrape_for(&exporter, "2.5").assert_value("ttn_up", 0.0);
    }
    fake.behave();
    scrape_until(&exporter, "5", |scrape| {
        scrape.value("ttn_up") == 1.0 && gateways(scrape) == 2
    });
}

#[test]
fn a_list_without_an_end_is_given_up_and_read_anew_when_it_has_one() {
    let page = |id: &str| {
        let body = format!(r#"{{"gateways":[{{"ids":{{"gateway_id":"{id}"}}}}]}}"#);
        let page = Answer::json(200, &*body).with_header("X-Total-Count", 1_000_000);
        Misbehaviour::Answer(page)
    };
    let fake = Fake::start(two());
    let exporter = start(&fake);
    exporter.scrape().assert_value("ttn_up", 1.0);
    thread::sleep(LIST_TTL);
    fake.script(Endpoint::List, page("gw-9"));
    for number in 0..250 {
        fake.script_times(Endpoint::List, 1, page(&format!("gw-{number}")));
    }
    fake.forget();
    let scrape = exporter.scrape();
    scrape.assert_value("ttn_up", 0.0);
    assert_eq!(gateways(&scrape), 2, "{scrape}");
    scrape.assert_of("ttn_gateway_connected", "gw-1", Some(1.0));
    let pages = fake.count(Endpoint::List);
    assert!((10..=110).contains(&pages), "{pages} pages\n{exporter}");
    fake.behave();
    exporter.scrape_until("recovery", |scrape| scrape.value("ttn_up") == 1.0);
}

#[test]
fn a_page_that_comes_again_and_again_ends_the_list_soon() {
    let page = r#"{"gateways":[{"ids":{"gateway_id":"gw-9"}}]}"#;
    let page = Answer::json(200, page).with_header("X-Total-Count", 1_000_000);
    let fake = Fake::start(two());
    let exporter = start(&fake);
    exporter.scrape().assert_value("ttn_up", 1.0);
    thread::sleep(LIST_TTL);
    fake.script(Endpoint::List, Misbehaviour::Answer(page));
    fake.forget();
    exporter.scrape().assert_value("ttn_up", 0.0);
    let pages = fake.count(Endpoint::List);
    assert!(pages <= 10, "{pages} pages\n{exporter}");
    fake.behave();
    let scrape = exporter.scrape_until("recovery", |scrape| scrape.value("ttn_up") == 1.0);
    assert_eq!(gateways(&scrape), 2, "{scrape}");
}

#[test]
fn a_first_list_that_is_not_as_long_as_its_total_shows_what_it_has() {
    for claimed in [1, 3] {
        let fake = Fake::start(two());
        fake.script(Endpoint::List, Misbehaviour::TotalCount(Some(claimed)));
        let scrape = start(&fake).scrape();
        scrape.assert_value("ttn_up", 0.0);
        for id in ["gw-1", "gw-2"] {
            scrape.assert_of("ttn_gateway_connected", id, Some(1.0));
        }
    }
}

#[test]
fn a_gateway_that_slips_between_two_pages_stays() {
    let fake = Fake::start(Fleet::generated(6).in_pages_of(2));
    let exporter = start(&fake);
    exporter.scrape().assert_value("ttn_up", 1.0);
    // The total stays the same, no gateway stands twice, and the third one is on no page.
    fake.change_after(Endpoint::List, 1, |fleet| {
        fleet.gateways.remove(0);
        fleet.gateways.push(Gateway::new("zz-new").connected("udp"));
    });
    thread::sleep(LIST_TTL * 2);
    let scrape = exporter.scrape();
    scrape.assert_of("ttn_gateway_connected", "gw-00003", Some(1.0));
    scrape.assert_value("ttn_up", 1.0);
    thread::sleep(LIST_TTL * 2);
    let scrape = exporter.scrape();
    scrape.assert_of("ttn_gateway_connected", "zz-new", Some(1.0));
    assert_eq!(scrape.all("ttn_gateway_connected").len(), 6, "{scrape}");
}

#[test]
fn a_list_of_excluded_gateways_is_no_empty_one() {
    let fake = Fake::start(two());
    let setup = || Setup::against(&fake).args(["--exclude", "gw-1", "--exclude", "gw-2"]);
    let excluded = setup().run_once();
    excluded.assert_code(0).scrape().assert_value("ttn_up", 1.0);
    assert_eq!(excluded.stderr, "");
    fake.change(|fleet| fleet.gateways.clear());
    setup().run_once().assert_stderr_has("lists no gateway");
}

#[test]
fn a_list_that_takes_more_than_half_of_the_scrape_costs_none_when_it_is_renewed() {
    let fake = Fake::start(two());
    let delay = Misbehaviour::Delay(Duration::from_millis(2000));
    fake.script(Endpoint::List, delay);
    let exporter = start(&fake);
    for _ in 0..4 {
        let scrape = scrape_for(&exporter, "4");
        scrape.assert_value("ttn_up", 1.0);
        assert_eq!(scrape.reasons(), [], "{exporter}");
        thread::sleep(LIST_TTL);
    }
}

#[test]
fn a_list_is_renewed_though_the_stats_could_take_all_the_time() {
    let fake = Fake::start(Fleet::generated(12));
    let exporter = start(&fake);
    exporter.scrape().assert_value("ttn_up", 1.0);
    fake.script(Endpoint::StatsBatch, Misbehaviour::status(501));
    let slow = Misbehaviour::Delay(Duration::from_millis(300));
    fake.script(Endpoint::Stats, slow.clone());
    fake.script(Endpoint::List, slow);
    fake.change(|fleet| fleet.gateways.push(Gateway::new("gw-new").connected("udp")));
    scrape_until(&exporter, "2.7", |scrape| {
        scrape.find_of("ttn_gateway_connected", "gw-new") == Some(1.0)
    });
}

#[test]
fn registrations_that_are_known_wait_for_their_rate_limit() {
    let fake = Fake::start(two());
    fake.script(
        Endpoint::Gateway,
        Misbehaviour::AllowanceUsedUp { reset_seconds: 30 },
    );
    let arguments = ["--ttl", "0.1", "--list-ttl", "0.2", "--gateway", "gw-1"];
    let exporter = Setup::against(&fake).args(arguments).start();
    for _ in 0..3 {
        exporter.scrape().assert_value("ttn_up", 1.0);
        thread::sleep(LIST_TTL + Duration::from_millis(50));
    }
    assert_eq!(fake.count(Endpoint::Gateway), 1, "{exporter}");
}
