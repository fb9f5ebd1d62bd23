//! The demo fleet: what an operator would have. Most gateways are well, one is down, and one is at
//! a server that the key must not go to. The numbers move with time.

use serde_json::{Value, json};

use super::clock::rfc3339;
use super::fleet::{Fleet, Gateway, Key};

/// Counters and times move from `now` on, in seconds since the epoch.
pub fn fleet(now: i64) -> Fleet {
    Fleet::of([
        udp(now, "rooftop-kerlink-01", "Rooftop, north side", 200_000, 5)
            .registered(antenna(52.37403, 4.88969, 31)),
        udp(now, "water-tower", "Water tower", 1_900_000, 2)
            .registered(antenna(52.40112, 4.93027, 48)),
        udp(
            now,
            "church-st-nicholas",
            "St. Nicholas, spire",
            86_400 * 9,
            3,
        )
        .registered(antenna(52.35514, 4.91266, 55)),
        basics_station(now),
        over_mqtt(now),
        down(now),
        elsewhere(),
    ])
}

/// A key that lists the fleet and expires in half a year.
pub fn key(now: i64) -> Key {
    Key {
        expires_at: Some(rfc3339(now + 180 * 86_400)),
        ..Key::user()
    }
}

fn antenna(latitude: f64, longitude: f64, altitude: i32) -> Value {
    json!({ "antennas": [{ "gain": 6, "location": {
        "latitude": latitude, "longitude": longitude, "altitude": altitude,
        "source": "SOURCE_REGISTRY",
    }}]})
}

/// A packet forwarder, connected for `age` seconds, with an uplink every `every` seconds.
fn udp(now: i64, id: &str, name: &str, age: i64, every: i64) -> Gateway {
    let mut status = packet_forwarder_status(&rfc3339(now - 20));
    status["boot_time"] = json!(rfc3339(now - age - 45));
    // The registry says where it is.
    status["antenna_locations"] = json!([]);
    Gateway::new(id)
        .named(name)
        .with_stats(json!({
            "connected_at": rfc3339(now - age),
            "protocol": "udp",
            "last_status_received_at": rfc3339(now - 20),
            "last_uplink_received_at": rfc3339(now - every),
            "last_downlink_received_at": rfc3339(now - 70),
            "last_tx_acknowledgment_received_at": rfc3339(now - 69),
            "uplink_count": (age / every).to_string(),
            "downlink_count": (age / 60).to_string(),
            "tx_acknowledgment_count": (age / 60).to_string(),
            "round_trip_times": round_trip_times(),
            "sub_bands": sub_bands(),
            "last_status": status,
            "gateway_remote_address": { "ip": "203.0.113.7" },
        }))
        .moving(now, every, 60)
}

/// Sends one status for each connection, and has no clock of its own.
fn basics_station(now: i64) -> Gateway {
    Gateway::new("library-laird-rg1xx")
        .named("Bibliothèque – étage 4")
        .registered(antenna(52.37655, 4.90811, 17))
        .with_stats(json!({
            "connected_at": rfc3339(now - 7_500),
            "protocol": "ws",
            "last_uplink_received_at": rfc3339(now - 11),
            "last_downlink_received_at": rfc3339(now - 500),
            "uplink_count": "681",
            "downlink_count": "12",
            "round_trip_times": {
                "min": "0.031s", "max": "0.265192138s", "median": "0.061913029s", "count": 3,
            },
            "gateway_remote_address": { "ip": "2001:db8:4::17" },
        }))
        .moving(now, 11, 600)
}

fn over_mqtt(now: i64) -> Gateway {
    Gateway::new("farm-ttkg")
        .named("Farm, barn")
        .with_stats(json!({
            "connected_at": rfc3339(now - 86_400 * 30),
            "protocol": "mqtt",
            "last_status_received_at": rfc3339(now - 25),
            "last_uplink_received_at": rfc3339(now - 40),
            "uplink_count": "64812",
            "last_status": {
                "time": rfc3339(now - 25),
                "boot_time": rfc3339(now - 86_400 * 30 - 60),
                "versions": { "ttn-lw-gateway-server": "3.32.1", "firmware": "v1.0.8" },
                "antenna_locations": [{
                    "latitude": 51.9851, "longitude": 5.8987, "altitude": 14, "source": "SOURCE_GPS",
                }],
                "metrics": { "load_15": 0.2, "memory_percentage": 53.85, "temp": 38.5 },
            },
            "gateway_remote_address": { "ip": "198.51.100.23" },
        }))
        .moving(now, 40, 3_600)
}

/// Left three hours ago: its stats stay readable for 48 hours.
fn down(now: i64) -> Gateway {
    let left = now - 3 * 3_600;
    Gateway::new("harbour-rak7268")
        .named("Harbour crane")
        .registered(antenna(52.38301, 4.92514, 22))
        .with_stats(json!({
            "disconnected_at": rfc3339(left),
            "protocol": "udp",
            "last_status_received_at": rfc3339(left - 40),
            "last_uplink_received_at": rfc3339(left - 9),
            "uplink_count": "40211",
            "downlink_count": "17",
            "last_status": packet_forwarder_status(&rfc3339(left - 40)),
            "gateway_remote_address": { "ip": "192.0.2.200" },
        }))
}

/// Its address names a host that no key may be sent to.
fn elsewhere() -> Gateway {
    Gateway::new("uncle-in-ohio")
        .named("Uncle's shed, Ohio")
        .at("gateways.someone-else.example:1884")
        .registered(json!({ "frequency_plan_ids": ["US_902_928_FSB_2"] }))
}

pub fn round_trip_times() -> Value {
    json!({
        "min": "0.039869297s", "max": "4.265192138s", "median": "0.068913029s", "count": 20,
    })
}

pub fn sub_bands() -> Value {
    json!([
        { "max_frequency": "863000000" },
        {
            "min_frequency": "865000000", "max_frequency": "868000000",
            "downlink_utilization_limit": 0.01,
        },
        {
            "min_frequency": "868000000", "max_frequency": "868600000",
            "downlink_utilization_limit": 0.01, "downlink_utilization": 0.0031205556,
        },
        {
            "min_frequency": "869400000", "max_frequency": "869650000",
            "downlink_utilization_limit": 0.1, "downlink_utilization": 0.00041,
        },
        { "min_frequency": "870000000", "max_frequency": "18446744073709551615" },
    ])
}

pub fn packet_forwarder_status(time: &str) -> Value {
    json!({
        "time": time,
        "boot_time": "1970-01-01T00:00:00Z",
        "versions": {
            "ttn-lw-gateway-server": "3.32.1",
            "hal": "Version: 5.0.1; Options: native;",
            "platform": "IMST + Rpi",
        },
        "antenna_locations": [{
            "latitude": 52.37391, "longitude": 4.88978, "altitude": 29, "source": "SOURCE_GPS",
        }],
        "ip": ["203.0.113.7"],
        "metrics": {
            "rxin": 2, "rxok": 1, "rxfw": 2, "ackr": 100, "txin": 0, "txok": 0, "lpps": 0,
            "temp": 34.862,
        },
    })
}
