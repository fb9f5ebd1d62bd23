//! The hostile fleet: a gateway in every state that the API can show, true, defective or made to
//! do harm. Tests use it; the healthy one is in demo.rs.

use serde_json::json;

use super::clock::rfc3339;
use super::demo::{packet_forwarder_status, round_trip_times, sub_bands};
use super::fleet::{Fleet, Gateway};

/// A gateway in each state; counters move from `now` on, in seconds since the epoch.
pub fn fleet(now: i64) -> Fleet {
    Fleet::of([
        packet_forwarder(now),
        basics_station(now),
        over_mqtt(now),
        gone(now),
        Gateway::new("spare-in-the-drawer").registered(json!({ "gateway_server_address": null })),
        both_times(now, "flapping-and-back", 200, 5),
        both_times(now, "flapping-and-gone", 9_000, 12_000),
        elsewhere(),
        hostile(now),
    ])
}

fn packet_forwarder(now: i64) -> Gateway {
    Gateway::new("rooftop-kerlink-01")
        .named("Rooftop, north side")
        .registered(json!({ "antennas": [{ "gain": 6, "location": {
            "latitude": 52.37403, "longitude": 4.88969, "altitude": 31, "source": "SOURCE_REGISTRY",
        }}]}))
        .with_stats(json!({
            "connected_at": rfc3339(now - 200_000),
            "protocol": "udp",
            "last_status_received_at": rfc3339(now - 20),
            "last_uplink_received_at": rfc3339(now - 3),
            "last_downlink_received_at": rfc3339(now - 70),
            "last_tx_acknowledgment_received_at": rfc3339(now - 69),
            "uplink_count": "9043",
            "downlink_count": "212",
            "tx_acknowledgment_count": "200",
            "round_trip_times": round_trip_times(),
            "sub_bands": sub_bands(),
            "last_status": packet_forwarder_status(&rfc3339(now - 20)),
            "gateway_remote_address": { "ip": "203.0.113.7" },
        }))
        .moving(now, 3, 60)
}

fn basics_station(now: i64) -> Gateway {
    Gateway::new("library-laird-rg1xx")
        .named("Bibliothèque – étage 4")
        .registered(json!({ "frequency_plan_ids": ["EU_863_870_TTN", "EU_863_870"] }))
        .with_stats(json!({
            "connected_at": rfc3339(now - 7_500),
            "protocol": "ws",
            "last_status_received_at": rfc3339(now - 7_499),
            "last_uplink_received_at": rfc3339(now - 11),
            "uplink_count": "871",
            "round_trip_times": {
                "min": "0.031s", "max": "4.265192138s", "median": "0.068913029s", "count": 3,
            },
            "last_status": {
                "time": rfc3339(now - 7_499),
                "boot_time": "0001-01-01T00:00:00Z",
                "versions": {
                    "ttn-lw-gateway-server": "3.32.1",
                    "platform": "laird - Firmware 1.0 - Protocol 2",
                    "station": "2.0.6(linux/std)",
                    "package": "unknown",
                },
                "advanced": { "model": "laird", "features": "rmtsh" },
            },
            "gateway_remote_address": { "ip": "2001:db8:4::17" },
        }))
        .moving(now, 11, 600)
}

fn over_mqtt(now: i64) -> Gateway {
    Gateway::new("farm-ttkg")
        .named("Farm \\ barn")
        .with_stats(json!({
            "connected_at": rfc3339(now - 86_400 * 30),
            "protocol": "mqtt",
            "last_status_received_at": rfc3339(now - 25),
            "last_uplink_received_at": rfc3339(now - 40),
            "uplink_count": "18446744073709551",
            "last_status": {
                "time": rfc3339(now - 25),
                "boot_time": rfc3339(now - 86_400 * 30 - 60),
                "versions": { "ttn-lw-gateway-server": "3.32.1", "firmware": "v1.0.8" },
                "antenna_locations": [{
                    "latitude": 51.9851, "longitude": 5.8987, "altitude": 14, "source": "SOURCE_GPS",
                }],
                "metrics": { "load_15": 0.2, "memory_percentage": 53.85, "temp": "NaN" },
            },
            "gateway_remote_address": { "ip": "198.51.100.23" },
        }))
        .moving(now, 40, 3_600)
}

/// Left three hours ago: its stats stay readable for 48 hours.
fn gone(now: i64) -> Gateway {
    Gateway::new("harbour-rak7268")
        .named("Harbour crane")
        .with_stats(json!({
            "disconnected_at": rfc3339(now - 3 * 3_600),
            "protocol": "udp",
            "last_status_received_at": rfc3339(now - 3 * 3_600 - 40),
            "last_uplink_received_at": rfc3339(now - 3 * 3_600 - 9),
            "uplink_count": "40211",
            "downlink_count": "17",
            "last_status": packet_forwarder_status(&rfc3339(now - 3 * 3_600 - 40)),
            "gateway_remote_address": { "ip": "192.0.2.200" },
        }))
}

/// A defect of the server: both times at once, and the later sign of life is true.
fn both_times(now: i64, id: &str, disconnected_ago: i64, uplink_ago: i64) -> Gateway {
    Gateway::new(id).with_stats(json!({
        "connected_at": rfc3339(now - 15_000),
        "disconnected_at": rfc3339(now - disconnected_ago),
        "protocol": "udp",
        "last_uplink_received_at": rfc3339(now - uplink_ago),
        "uplink_count": "77",
        "gateway_remote_address": { "ip": "203.0.113.99" },
    }))
}

/// Its address names a host that no key may be sent to.
fn elsewhere() -> Gateway {
    Gateway::new("uncle-in-ohio")
        .named("Uncle's shed, Ohio")
        .at("gateways.someone-else.example:1884")
        .registered(json!({ "frequency_plan_ids": ["US_902_928_FSB_2"] }))
}

fn hostile(now: i64) -> Gateway {
    Gateway::new("school-project")
        .named("\"Élèves\" 🚀 <script>alert(1)</script>\n# TYPE ttn_up \\ counter")
        .with_stats(json!({
            "connected_at": rfc3339(now - 600),
            "protocol": "semtechws/lbslns",
            "last_uplink_received_at": rfc3339(now - 600),
            "uplink_count": "1",
            "last_status": {
                "time": "1970-01-01T00:00:00Z",
                "versions": { "ttn-lw-gateway-server": "3.32.1", "hal\"\n": "\\<b>5\u{202e}" },
                "metrics": { "temp\"\n{}": -40, "rxok": 1 },
            },
        }))
        .moving(now, 17, 3_600)
}
