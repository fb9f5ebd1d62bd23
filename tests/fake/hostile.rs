//! The hostile fleet: a gateway in every state that the API can show, true, defective or made to
//! do harm. Tests use it; the healthy one is in demo.rs.

use serde_json::json;

use super::clock::rfc3339;
use super::demo::{self, packet_forwarder_status, round_trip_times, sub_bands};
use super::fleet::{Fleet, Gateway};

/// A gateway in each state; counters move from `now` on, in seconds since the epoch.
pub fn fleet(now: i64) -> Fleet {
    Fleet::of([
        packet_forwarder(now),
        basics_station(now),
        over_mqtt(now),
        demo::down(now).registered(json!({ "antennas": null })),
        Gateway::new("spare-in-the-drawer").registered(json!({ "gateway_server_address": null })),
        both_times(now, "flapping-and-back", 200, 5),
        both_times(now, "flapping-and-gone", 9_000, 12_000),
        demo::elsewhere(),
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

/// As in the demo, with a name to escape, a count beyond what a float can tell, and a number that
/// is none.
fn over_mqtt(now: i64) -> Gateway {
    let mut gateway = demo::over_mqtt(now).named("Farm \\ barn");
    let stats = gateway.stats.as_mut().expect("it is connected");
    stats["uplink_count"] = json!("18446744073709551");
    stats["last_status"]["metrics"]["temp"] = json!("NaN");
    gateway
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
