//! Random JSON through the whole program: whatever the API answers, an exposition comes out
//! that the strict parser takes, and a gateway whose answer is true is served.
//!
//! A few cases in a test run; `FUZZ_SECONDS` makes it go on for longer.

use std::thread;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::{Index, select};
use serde_json::{Value, json};

use crate::fake::{Endpoint, Fake, Fleet, Gateway, Misbehaviour, hostile};
use crate::fuzz;
use crate::harness::{Exporter, Setup};

const CASES: u32 = 40;
/// Longer than `--ttl` and `--list-ttl` of [`start`].
const EXPIRY: Duration = Duration::from_millis(101);

const TEXTS: [&str; 20] = [
    "",
    "0",
    "-1",
    "18446744073709551615",
    "18446744073709551616",
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "2024-11-20T06:00:00Z",
    "2024-02-30T25:61:61Z",
    "9999-12-31T23:59:59.999999999Z",
    "0000-00-00T00:00:00Z",
    "-5s",
    "0.5s",
    "1e9s",
    "\"\\\n\u{0}\u{7f}\u{202e}🚀",
    "<script>",
    "{}",
    "eu1.cloud.thethings.network",
];

const NAMES: [&str; 8] = [
    "gateway_id",
    "ids",
    "min",
    "metrics",
    "time",
    "ip",
    "é\"\n",
    "",
];

/// Any JSON at all.
fn values() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0..5000_usize).prop_map(|length| json!("x".repeat(length))),
        select(&TEXTS[..]).prop_map(Value::from),
    ];
    scalar.prop_recursive(4, 20, 3, |part| {
        let member = (select(&NAMES[..]).prop_map(str::to_owned), part.clone());
        prop_oneof![
            vec(part, 0..4).prop_map(Value::from),
            vec(member, 0..4).prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// How many values a document has, itself and all within it.
fn count(value: &Value) -> usize {
    let parts = match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    };
    1 + parts
}

/// Puts something else in the place of one value of a document, found by its number in the order
/// in which they are written.
fn replace(value: &mut Value, number: &mut Option<usize>, other: &Value) {
    match number {
        None => return,
        Some(0) => {
            *value = other.clone();
            *number = None;
            return;
        }
        Some(left) => *left -= 1,
    }
    match value {
        Value::Array(items) => items.iter_mut().for_each(|i| replace(i, number, other)),
        Value::Object(fields) => fields.values_mut().for_each(|f| replace(f, number, other)),
        _ => {}
    }
}

/// Replaces one value within a document, which stays an object.
fn spoil(document: &mut Value, place: Index, other: &Value) {
    if let parts @ 1.. = count(document) - 1 {
        replace(document, &mut Some(1 + place.index(parts)), other);
    }
}

/// The hostile fleet with other values in these places, and one gateway that is as it should be.
fn spoilt_fleet(changes: &[(Index, bool, Index, Value)]) -> Fleet {
    let mut gateways = hostile::fleet(1_732_104_000).gateways;
    for gateway in &mut gateways {
        gateway.motion = None;
        gateway.host = Some(String::new());
    }
    for (which, is_of_stats, place, other) in changes {
        let gateway = which.get_mut(&mut gateways);
        match &mut gateway.stats {
            Some(stats) if *is_of_stats => spoil(stats, *place, other),
            _ => {
                let mut registration = Value::Object(std::mem::take(&mut gateway.registration));
                spoil(&mut registration, *place, other);
                *gateway = gateway.clone().registered(registration);
            }
        }
    }
    gateways.push(Gateway::new("sound").connected("udp"));
    Fleet::of(gateways)
}

fn start(fake: &Fake) -> Exporter {
    let times = ["--ttl", "0.1", "--list-ttl", "0.1"];
    Setup::against(fake).args(times).start()
}

#[test]
fn property_random_answers_give_a_valid_exposition_with_every_sound_gateway() {
    let fake = Fake::start(Fleet::of([]));
    let exporter = start(&fake);
    let change = (any::<Index>(), any::<bool>(), any::<Index>(), values());
    fuzz::check(CASES, vec(change, 0..60), |changes| {
        fake.change(|current| *current = spoilt_fleet(&changes));
        thread::sleep(EXPIRY);
        let scrape = exporter.scrape();
        let is_sound = scrape.find_of("ttn_gateway_connected", "sound") == Some(1.0);
        scrape.assert(is_sound, "the sound gateway is connected");
        scrape.assert(scrape.errors("internal") == 0.0, "no defect");
    });
}

#[test]
fn property_random_documents_in_place_of_an_answer_never_end_the_exporter() {
    let fleet = ["gw-1", "gw-2"].map(|id| Gateway::new(id).connected("udp"));
    let fake = Fake::start(Fleet::of(fleet));
    let exporter = start(&fake);
    let endpoints = select(vec![Endpoint::List, Endpoint::StatsBatch, Endpoint::Stats]);
    let answers = (values(), any::<Option<Index>>(), endpoints);
    fuzz::check(CASES, answers, |(document, cut, endpoint)| {
        let document = document.to_string();
        let end = cut.map_or(document.len(), |cut| cut.index(document.len()));
        let document = &document[..document.floor_char_boundary(end)];
        fake.script(endpoint, Misbehaviour::json(200, document));
        thread::sleep(EXPIRY);
        let scrape = exporter.scrape();
        scrape.assert(scrape.errors("internal") == 0.0, "no defect");
        fake.behave();
    });
    // An empty object was a true answer: that there are no gateways.
    exporter.scrape_until("recovery", |scrape| {
        scrape.find_of("ttn_gateway_connected", "gw-1") == Some(1.0)
            && scrape.value("ttn_up") == 1.0
    });
}
