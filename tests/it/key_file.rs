//! A new API key in `--key-file` is used without a restart, and a file that is no good leaves
//! the old one in use.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::fake::{Endpoint, Fake, Fleet, Gateway, Holder, Key, Misbehaviour};
use crate::harness::samples::Scrape;
use crate::harness::{Exporter, Setup};

const REFRESH: Duration = Duration::from_millis(250);

fn new_key() -> Key {
    Key::new('N', Holder::User("demo".to_owned()))
}

fn fake_with_both_keys() -> Fake {
    let mut fleet = Fleet::of([Gateway::new("gw-1").connected("udp")]);
    fleet.keys.push(new_key());
    Fake::start(fleet)
}

/// Reads its key from a file, whose path comes too.
fn start(fake: &Fake, list_ttl: &str) -> (Exporter, String) {
    let setup = Setup::bare().args(["--server", &fake.url()]);
    let path = setup.file("key", &format!("{}\n", Key::user().token));
    let arguments = ["--ttl", "0.1", "--list-ttl", list_ttl, "--key-file", &path];
    (setup.args(arguments).start(), path)
}

fn expire_old_key(fake: &Fake) {
    fake.change(|fleet| fleet.keys[0].is_expired = true);
}

/// Whether each request since the last look carried the new key.
fn uses_new_key(fake: &Fake) -> bool {
    let bearer = format!("Bearer {}", new_key().token);
    let records = fake.records();
    let mut authorizations = records.iter().map(|r| r.request.header("Authorization"));
    !records.is_empty() && authorizations.all(|value| value == Some(&bearer))
}

#[test]
fn after_a_401_the_file_is_read_again_within_the_scrape() {
    let fake = fake_with_both_keys();
    let (exporter, path) = start(&fake, "60");
    exporter.scrape().assert_value("ttn_up", 1.0);
    fs::write(&path, new_key().token).unwrap();
    expire_old_key(&fake);
    thread::sleep(REFRESH);
    let scrape = exporter.scrape_until("the new key", |scrape| scrape.value("ttn_up") == 1.0);
    scrape.assert_of("ttn_gateway_connected", "gw-1", Some(1.0));
    fake.forget();
    thread::sleep(REFRESH);
    exporter.scrape();
    assert!(uses_new_key(&fake), "{exporter}");
}

#[test]
fn a_401_of_the_list_reads_the_file_again_too() {
    let fake = fake_with_both_keys();
    expire_old_key(&fake);
    let (exporter, path) = start(&fake, "0.1");
    exporter.scrape().assert_value("ttn_up", 0.0);
    fs::write(&path, format!("\t {} \r\n\n", new_key().token)).unwrap();
    exporter.scrape_until("the new key", |scrape| scrape.value("ttn_up") == 1.0);
}

/// Such as an editor or a copy leaves for a moment. The API refuses it with 400, not 401.
#[test]
fn half_a_key_in_the_file_is_replaced_as_soon_as_the_rest_is_there() {
    let fake = fake_with_both_keys();
    let (exporter, path) = start(&fake, "3600");
    exporter.scrape().assert_value("ttn_up", 1.0);
    fs::write(&path, "NNSXS.HALF").unwrap();
    expire_old_key(&fake);
    exporter.scrape_until("the half key", |scrape| scrape.value("ttn_up") == 0.0);
    fs::write(&path, new_key().token).unwrap();
    exporter.scrape_until("the new key", |scrape| scrape.value("ttn_up") == 1.0);
}

#[test]
fn half_a_key_is_no_final_refusal_of_a_registration() {
    let fake = fake_with_both_keys();
    let setup = Setup::bare().args(["--server", &fake.url(), "--gateway", "gw-1"]);
    let path = setup.file("key", "NNSXS.HALF");
    let exporter = setup.args(["--ttl", "0.1", "--key-file", &path]).start();
    exporter.scrape().assert_value("ttn_up", 0.0);
    fs::write(&path, new_key().token).unwrap();
    exporter.scrape_until("the new key", |scrape| scrape.value("ttn_up") == 1.0);
}

#[test]
fn each_renewal_of_the_list_reads_the_file() {
    let fake = fake_with_both_keys();
    let (exporter, path) = start(&fake, "0.1");
    exporter.scrape().assert_value("ttn_up", 1.0);
    fs::write(&path, new_key().token).unwrap();
    thread::sleep(REFRESH);
    fake.forget();
    exporter.scrape().assert_value("ttn_up", 1.0);
    assert_eq!(fake.count(Endpoint::List), 1, "{exporter}");
    assert!(uses_new_key(&fake), "{exporter}");
}

#[test]
fn a_file_without_a_key_leaves_the_old_one_and_is_logged_once() {
    for contents in [
        None,
        Some(""),
        Some(" \n\n"),
        Some("two words\nand lines"),
        Some("\u{1}"),
    ] {
        let fake = fake_with_both_keys();
        let (exporter, path) = start(&fake, "0.1");
        exporter.scrape().assert_value("ttn_up", 1.0);
        let before = exporter.stderr().lines().count();
        match contents {
            Some(contents) => fs::write(&path, contents).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        for _ in 0..3 {
            thread::sleep(REFRESH);
            exporter.scrape().assert_value("ttn_up", 1.0);
        }
        exporter.wait_for_log(&path);
        let lines = exporter.stderr().lines().count() - before;
        assert_eq!(lines, 1, "{contents:?}\n{exporter}");
        fs::write(&path, new_key().token).unwrap();
        thread::sleep(REFRESH);
        fake.forget();
        exporter.scrape().assert_value("ttn_up", 1.0);
        assert!(uses_new_key(&fake), "{exporter}");
    }
}

#[test]
fn a_directory_in_its_place_is_logged_once_and_a_pipe_blocks_nothing() {
    let fake = fake_with_both_keys();
    for (command, lines) in [("mkdir", 1), ("mkfifo", 0)] {
        let (exporter, path) = start(&fake, "0.1");
        exporter.scrape().assert_value("ttn_up", 1.0);
        let before = exporter.stderr().lines().count();
        fs::remove_file(&path).unwrap();
        let made = Command::new(command).arg(&path).status();
        assert!(made.is_ok_and(|status| status.success()), "{command}");
        for _ in 0..3 {
            thread::sleep(REFRESH);
            exporter.scrape().assert_value("ttn_up", 1.0);
        }
        let after = exporter.stderr().lines().count();
        assert_eq!(after - before, lines, "{command}: {exporter}");
    }
}

#[test]
fn a_file_that_still_holds_the_refused_key_costs_no_second_request() {
    let fake = fake_with_both_keys();
    expire_old_key(&fake);
    let (exporter, _path) = start(&fake, "0.1");
    exporter.scrape().assert_value("ttn_up", 0.0);
    assert_eq!(fake.request_count(), 1, "{exporter}");
    exporter.wait_for_log("a service or container has to be restarted");
}

#[test]
fn no_key_of_a_file_ever_reaches_the_log() {
    let fake = fake_with_both_keys();
    let (exporter, path) = start(&fake, "0.1");
    exporter.scrape();
    fs::write(&path, format!("{} {}", new_key().token, Key::user().token)).unwrap();
    thread::sleep(REFRESH);
    exporter.scrape();
    for letter in ["N", "U"] {
        assert!(
            !exporter.stderr().contains(&letter.repeat(52)),
            "{exporter}"
        );
    }
}

#[test]
fn what_the_old_key_was_refused_the_new_one_may_read() {
    let blind = Key::user().blind_for(["gw-2"]);
    let mut reads_nothing = Key::user();
    reads_nothing.may_read_stats = false;
    for old in [blind, reads_nothing] {
        let gateways = ["gw-1", "gw-2", "gw-3", "gw-4", "gw-5"];
        let gateways = gateways.map(|id| Gateway::new(id).connected("udp"));
        let mut fleet = Fleet::of(gateways).with_key(old);
        fleet.keys.push(new_key());
        let fake = Fake::start(fleet);
        let (exporter, path) = start(&fake, "0.1");
        for _ in 0..2 {
            let scrape = exporter.scrape();
            scrape.assert_of("ttn_gateway_connected", "gw-2", None);
            thread::sleep(REFRESH);
        }
        fs::write(&path, new_key().token).unwrap();
        thread::sleep(REFRESH);
        let scrape = exporter.scrape();
        scrape.assert_of("ttn_gateway_connected", "gw-2", Some(1.0));
        assert_eq!(scrape.all("ttn_gateway_connected").len(), 5, "{scrape}");
        scrape.assert_value("ttn_up", 1.0);
    }
}

#[test]
fn a_new_key_is_asked_about_at_once() {
    let fake = fake_with_both_keys();
    fake.change(|fleet| fleet.keys[0].expires_at = Some("2030-01-01T00:00:00Z".to_owned()));
    let (exporter, path) = start(&fake, "0.1");
    let expiry =
        |scrape: &Scrape| scrape.find("ttn_exporter_api_key_expiry_timestamp_seconds", &[]);
    exporter.scrape_until("the old expiry", |scrape| expiry(scrape).is_some());
    fs::write(&path, new_key().token).unwrap();
    thread::sleep(REFRESH);
    assert_eq!(expiry(&exporter.scrape()), None, "{exporter}");
    fake.change(|fleet| fleet.keys[0].expires_at = Some("2031-01-01T00:00:00Z".to_owned()));
    fs::write(&path, Key::user().token).unwrap();
    exporter.scrape_until("the new expiry", |scrape| expiry(scrape) > Some(1.92e9));
}

#[test]
fn a_silence_that_the_old_key_was_given_is_none_of_the_new_one() {
    let fake = fake_with_both_keys();
    let (exporter, path) = start(&fake, "0.1");
    exporter.scrape().assert_value("ttn_up", 1.0);
    let silence = Misbehaviour::RateLimited { retry_seconds: 600 };
    fake.script_times(Endpoint::StatsBatch, 1, silence.clone());
    fake.script_times(Endpoint::Stats, 1, silence);
    thread::sleep(REFRESH);
    exporter.scrape().assert_value("ttn_up", 0.0);
    fs::write(&path, new_key().token).unwrap();
    exporter.scrape_until("the new key", |scrape| scrape.value("ttn_up") == 1.0);
}
