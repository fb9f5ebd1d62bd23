//! Random JSON through the whole program: whatever the API answers, an exposition comes out
//! that the strict parser takes, and a gateway whose answer is true is served.
//!
//! A few rounds in a test run; `FUZZ_SECONDS` makes it go on for longer.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::fake::{Fake, Fleet, Gateway, clock, hostile};
use crate::harness::Setup;
use crate::random::Random;

const ROUNDS: usize = 40;

impl Random {
    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// Any JSON at all.
    fn value(&mut self, depth: usize) -> Value {
        let texts = [
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
        match self.below(if depth == 0 { 6 } else { 8 }) {
            0 => Value::Null,
            1 => json!(self.below(2) == 0),
            2 => json!(self.below(usize::MAX >> 1) as i64 - (1 << 40)),
            3 => json!(f64::from_bits(self.next())),
            4 => json!("x".repeat(self.below(5000))),
            5 => json!(self.pick(&texts)),
            6 => (0..self.below(4)).map(|_| self.value(depth - 1)).collect(),
            _ => {
                let names = [
                    "gateway_id",
                    "ids",
                    "min",
                    "metrics",
                    "time",
                    "ip",
                    "é\"\n",
                    "",
                ];
                let fields = 0..self.below(4);
                let fields = fields.map(|_| {
                    let name = *self.pick(&names);
                    (name.to_owned(), self.value(depth - 1))
                });
                Value::Object(fields.collect::<Map<_, _>>())
            }
        }
    }

    /// Puts something else in some places of a true answer.
    fn spoil(&mut self, value: &mut Value) {
        if self.below(6) == 0 {
            *value = self.value(3);
            return;
        }
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.spoil(item)),
            Value::Object(fields) => fields.values_mut().for_each(|field| self.spoil(field)),
            _ => {}
        }
    }
}

/// The hostile fleet with spoilt fields, and one that is as it should be.
fn spoilt_fleet(random: &mut Random) -> Fleet {
    let mut gateways = hostile::fleet(1_732_104_000).gateways;
    for gateway in &mut gateways {
        gateway.motion = None;
        gateway.host = Some(String::new());
        let mut registration = Value::Object(std::mem::take(&mut gateway.registration));
        for (_, field) in registration.as_object_mut().unwrap() {
            random.spoil(field);
        }
        *gateway = gateway.clone().registered(registration);
        if let Some(stats) = &mut gateway.stats {
            random.spoil(stats);
        }
    }
    gateways.push(Gateway::new("sound").connected("udp"));
    Fleet::of(gateways)
}

#[test]
fn property_random_answers_give_a_valid_exposition_with_every_sound_gateway() {
    let seconds = std::env::var("FUZZ_SECONDS").map_or(0, |text| text.parse().unwrap());
    let end = Instant::now() + Duration::from_secs(seconds);
    let first = clock::now_seconds() as u64;
    let fake = Fake::start(Fleet::of([]));
    let exporter = Setup::against(&fake)
        .args(["--ttl", "0.1", "--list-ttl", "0.1"])
        .start();
    let mut round = 0;
    while round < ROUNDS || Instant::now() < end {
        let seed = (first << 20) + round as u64 + 1;
        let fleet = spoilt_fleet(&mut Random::new(seed));
        fake.change(|current| *current = fleet);
        std::thread::sleep(Duration::from_millis(101));
        let scrape = exporter.scrape();
        let what = format!("seed {seed}");
        let is_sound = scrape.find_of("ttn_gateway_connected", "sound") == Some(1.0);
        scrape.assert(is_sound, &what);
        scrape.assert(scrape.errors("internal") == 0.0, &what);
        round += 1;
    }
}

#[test]
fn property_random_documents_in_place_of_an_answer_never_end_the_exporter() {
    use crate::fake::{Endpoint, Misbehaviour};
    let fake = Fake::start(Fleet::of(
        ["gw-1", "gw-2"].map(|id| Gateway::new(id).connected("udp")),
    ));
    let exporter = Setup::against(&fake)
        .args(["--ttl", "0.1", "--list-ttl", "0.1"])
        .start();
    let first = clock::now_seconds() as u64;
    for round in 0..ROUNDS {
        let seed = (first << 20) + round as u64 + 1;
        let mut random = Random::new(seed);
        let document = random.value(5).to_string();
        let cut = match random.below(3) {
            0 => document
                .char_indices()
                .nth(random.below(20))
                .map_or(0, |(at, _)| at),
            _ => document.len(),
        };
        let endpoint = *random.pick(&[Endpoint::List, Endpoint::StatsBatch, Endpoint::Stats]);
        fake.script(endpoint, Misbehaviour::json(200, &document[..cut]));
        std::thread::sleep(Duration::from_millis(101));
        let scrape = exporter.scrape();
        scrape.assert(scrape.errors("internal") == 0.0, &format!("seed {seed}"));
        fake.behave();
    }
    // An empty object was a true answer: that there are no gateways.
    exporter.scrape_until("recovery", |scrape| {
        scrape.find_of("ttn_gateway_connected", "gw-1") == Some(1.0)
            && scrape.value("ttn_up") == 1.0
    });
}
