//! Random JSON through the whole program: whatever the API answers, an exposition comes out
//! that the strict parser takes, and a gateway whose answer is true is served.

use std::thread;
use std::time::Duration;

use proptest::collection::vec;
use proptest::num;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::{Index, select};
use serde_json::{Value, json};

use crate::fake::{Endpoint, Fake, Fleet, Gateway, Misbehaviour, hostile};
use crate::fuzz::check;
use crate::harness::{Exporter, Setup};

const CASES: u32 = 40;
const TTL: &str = "0.1";
/// A scrape after this much time asks the API again.
const PAUSE: Duration = Duration::from_millis(101);
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
fn any_json() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(|value| json!(value)),
        any::<i64>().prop_map(|value| json!(value)),
        num::f64::ANY.prop_map(|value| json!(value)),
        (0..5_000_usize).prop_map(|length| json!("x".repeat(length))),
        select(&TEXTS[..]).prop_map(|text| json!(text)),
    ];
    scalar.prop_recursive(4, 16, 4, |value| {
        let field = (select(&NAMES[..]), value.clone());
        let field = field.prop_map(|(name, value)| (name.to_owned(), value));
        prop_oneof![
            vec(value, 0..4).prop_map(Value::Array),
            vec(field, 0..4).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// The JSON pointers of a value and of all that is in it.
fn pointers(value: &Value, of_value: &str) -> Vec<String> {
    let inner = |name: &str, value: &Value| {
        let name = name.replace('~', "~0").replace('/', "~1");
        pointers(value, &format!("{of_value}/{name}"))
    };
    let mut found = vec![of_value.to_owned()];
    match value {
        Value::Array(items) => {
            let items = items.iter().enumerate();
            found.extend(items.flat_map(|(at, item)| inner(&at.to_string(), item)));
        }
        Value::Object(fields) => {
            found.extend(fields.iter().flat_map(|(name, field)| inner(name, field)));
        }
        _ => {}
    }
    found
}

/// The hostile fleet with something else in some places, and a gateway that is as it should be.
fn spoilt_fleet(changes: Vec<(Index, Value)>) -> Fleet {
    let mut gateways = hostile::fleet(1_732_104_000).gateways;
    let parts = gateways
        .iter()
        .map(|gateway| json!([gateway.registration, gateway.stats]));
    let mut document = Value::Array(parts.collect());
    for (at, value) in changes {
        let pointers = pointers(&document, "");
        // In the registration, and the stats or in them.
        let is_place = |pointer: &&String| match pointer.matches('/').count() {
            0 | 1 => false,
            2 => pointer.ends_with("/1"),
            _ => true,
        };
        let pointers: Vec<_> = pointers.iter().filter(is_place).collect();
        let place = document.pointer_mut(pointers[at.index(pointers.len())]);
        *place.expect("it is a pointer to this document") = value;
    }
    for (at, gateway) in gateways.iter_mut().enumerate() {
        gateway.motion = None;
        gateway.host = Some(String::new());
        *gateway = gateway.clone().registered(document[at][0].take());
        gateway.stats = gateway.stats.as_ref().map(|_| document[at][1].take());
    }
    gateways.push(Gateway::new("sound").connected("udp"));
    Fleet::of(gateways)
}

fn exporter_for(fake: &Fake) -> Exporter {
    let arguments = ["--ttl", TTL, "--list-ttl", TTL];
    Setup::against(fake).args(arguments).start()
}

#[test]
fn property_random_answers_give_a_valid_exposition_with_every_sound_gateway() {
    let fake = Fake::start(Fleet::of([]));
    let exporter = exporter_for(&fake);
    check(CASES, vec((any::<Index>(), any_json()), 0..40), |changes| {
        fake.change(|fleet| *fleet = spoilt_fleet(changes));
        thread::sleep(PAUSE);
        let scrape = exporter.scrape();
        let is_sound = scrape.find_of("ttn_gateway_connected", "sound") == Some(1.0);
        scrape.assert(is_sound, "the sound gateway is connected");
        scrape.assert(scrape.errors("internal") == 0.0, "no internal error");
    });
}

#[test]
fn property_random_documents_in_place_of_an_answer_never_end_the_exporter() {
    let gateways = ["gw-1", "gw-2"].map(|id| Gateway::new(id).connected("udp"));
    let fake = Fake::start(Fleet::of(gateways));
    let exporter = exporter_for(&fake);
    let endpoint = select(vec![Endpoint::List, Endpoint::StatsBatch, Endpoint::Stats]);
    let cut = prop_oneof![Just(usize::MAX), 0..20_usize];
    let documents = (endpoint, any_json(), cut);
    check(CASES, documents, |(endpoint, document, length)| {
        let document: String = document.to_string().chars().take(length).collect();
        fake.script(endpoint, Misbehaviour::json(200, &document));
        thread::sleep(PAUSE);
        let scrape = exporter.scrape();
        scrape.assert(scrape.errors("internal") == 0.0, "no internal error");
        fake.behave();
    });
    // An empty object was a true answer: that there are no gateways.
    exporter.scrape_until("recovery", |scrape| {
        let is_connected = scrape.find_of("ttn_gateway_connected", "gw-1") == Some(1.0);
        is_connected && scrape.value("ttn_up") == 1.0
    });
}
