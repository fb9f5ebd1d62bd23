//! What the fake Things Stack knows: gateways with their stats, API keys with their rights.
//!
//! Plain data and the builders that tests read well with; time enters only as an argument.
//! It owns no HTTP and decides no answer.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Map, Value, json};

use super::clock;

/// Everything that all clusters of one fake share.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    pub gateways: Vec<Gateway>,
    pub keys: Vec<Key>,
    /// The page of a list request that names no limit.
    pub page_size: usize,
    /// The largest page, whatever limit a list request names.
    pub page_size_max: usize,
    /// The most ids in a batch. Some servers in the field refuse more than 20.
    pub batch_size_max: usize,
    /// Nothing changes any more: answers may be kept and given again. For benchmarks.
    pub is_frozen: bool,
    /// The servers are older than 3.25.2: they refuse a mask with `tx_acknowledgment_*`.
    pub is_old: bool,
    index: HashMap<String, usize>,
}

/// A gateway as the servers know it.
#[derive(Clone, Debug, Default)]
pub struct Gateway {
    pub id: String,
    /// Everything of the registration but `ids`: any JSON, true or wild.
    pub registration: Map<String, Value>,
    /// `ids.eui`; left out when empty.
    pub eui: String,
    /// The stats as the API shows them, for 48 hours after it left too; none when it never
    /// connected.
    pub stats: Option<Value>,
    pub motion: Option<Motion>,
    /// The host whose Gateway Server has it; empty is the home cluster. None: the host named
    /// in `gateway_server_address`.
    pub host: Option<String>,
    /// The stats that further clusters still have of it, by host.
    pub left_behind: BTreeMap<String, Value>,
    /// No account has RIGHT_GATEWAY_INFO on it: the list shows what is public of it.
    pub is_redacted: bool,
    /// `user:demo`, `organization:acme` …
    pub owner: String,
}

/// How a gateway's counters move with time.
#[derive(Clone, Copy, Debug)]
pub struct Motion {
    /// Since when, in seconds since the epoch.
    pub since: i64,
    pub uplink_interval_seconds: i64,
    pub downlink_interval_seconds: i64,
}

/// Whose key it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    User(String),
    Organization(String),
    Gateway(String),
    /// An application: no user and no organization, so the list is empty for it.
    Application(String),
}

/// An API key and what it may do.
#[derive(Clone, Debug)]
pub struct Key {
    pub token: String,
    pub holder: Holder,
    pub may_list: bool,
    pub may_read_stats: bool,
    /// Gateways on which it lacks RIGHT_GATEWAY_STATUS_READ.
    pub blind_for: BTreeSet<String>,
    pub is_expired: bool,
    /// `expires_at` of `/auth_info`, in RFC 3339.
    pub expires_at: Option<String>,
    /// Gateways on which it lacks RIGHT_GATEWAY_INFO: their registration is refused.
    pub no_info_of: BTreeSet<String>,
}

/// A key of the true form whose secret part repeats one letter: easy to look for.
pub fn token(letter: char) -> String {
    let repeat = |count| letter.to_string().repeat(count);
    format!("NNSXS.{}.{}", repeat(39), repeat(52))
}

impl Key {
    pub fn new(letter: char, holder: Holder) -> Key {
        Key {
            token: token(letter),
            holder,
            may_list: true,
            may_read_stats: true,
            blind_for: BTreeSet::new(),
            is_expired: false,
            expires_at: None,
            no_info_of: BTreeSet::new(),
        }
    }

    /// The user `demo` with every right: the key of most tests.
    pub fn user() -> Key {
        Key::new('U', Holder::User("demo".to_owned()))
    }

    pub fn organization(id: &str) -> Key {
        Key::new('R', Holder::Organization(id.to_owned()))
    }

    pub fn gateway(id: &str) -> Key {
        Key::new('G', Holder::Gateway(id.to_owned()))
    }

    /// Without the right to see the connection of these gateways.
    pub fn blind_for<'a>(mut self, ids: impl IntoIterator<Item = &'a str>) -> Key {
        self.blind_for = ids.into_iter().map(str::to_owned).collect();
        self
    }
}

impl Fleet {
    /// These gateways, and the key of [`Key::user`].
    pub fn of(gateways: impl IntoIterator<Item = Gateway>) -> Fleet {
        let mut fleet = Fleet {
            gateways: gateways.into_iter().collect(),
            keys: vec![Key::user()],
            page_size: 100,
            page_size_max: 1000,
            batch_size_max: 100,
            ..Fleet::default()
        };
        fleet.reindex();
        fleet
    }

    /// `count` connected gateways `gw-00001` … with fixed stats, answers kept: for counts and
    /// benchmarks.
    pub fn generated(count: usize) -> Fleet {
        let mut fleet = Fleet::of((1..=count).map(generated));
        fleet.is_frozen = true;
        fleet
    }

    /// The same, listed in pages of so many.
    pub fn in_pages_of(mut self, size: usize) -> Fleet {
        self.page_size_max = size;
        self
    }

    /// The same, with this key instead.
    pub fn with_key(mut self, key: Key) -> Fleet {
        self.keys = vec![key];
        self
    }

    pub fn gateway(&self, id: &str) -> Option<&Gateway> {
        self.gateways.get(*self.index.get(id)?)
    }

    /// For a change while the fake runs.
    pub fn gateway_mut(&mut self, id: &str) -> &mut Gateway {
        let position = *self.index.get(id).expect("a gateway of the fleet");
        &mut self.gateways[position]
    }

    pub fn key(&self, token: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.token == token)
    }

    /// To be called after gateways were added or removed.
    pub fn reindex(&mut self) {
        let ids = self.gateways.iter().enumerate();
        self.index = ids.map(|(at, gateway)| (gateway.id.clone(), at)).collect();
    }
}

impl Gateway {
    /// Registered and never connected, at the home cluster.
    pub fn new(id: &str) -> Gateway {
        let registration = json!({
            "created_at": "2021-03-14T09:26:53.589Z",
            "updated_at": "2024-11-02T17:05:09.123456Z",
            "name": format!("Gateway {id}"),
            "frequency_plan_ids": ["EU_863_870_TTN"],
        });
        Gateway {
            id: id.to_owned(),
            eui: eui_of(id),
            owner: "user:demo".to_owned(),
            ..Gateway::default()
        }
        .registered(registration)
    }

    /// Sets these fields of the registration; `null` removes one.
    pub fn registered(mut self, fields: Value) -> Gateway {
        let Value::Object(fields) = fields else {
            panic!("not an object: {fields}");
        };
        for (name, value) in fields {
            match value {
                Value::Null => self.registration.remove(&name),
                value => self.registration.insert(name, value),
            };
        }
        self
    }

    pub fn named(self, name: &str) -> Gateway {
        self.registered(json!({ "name": name }))
    }

    /// At the cluster of this address, in any of its forms.
    pub fn at(self, gateway_server_address: &str) -> Gateway {
        self.registered(json!({ "gateway_server_address": gateway_server_address }))
    }

    /// Anyone may see its state and its position.
    pub fn public(self) -> Gateway {
        self.registered(json!({ "status_public": true, "location_public": true }))
    }

    /// No account may see its registration: the list gives the address of its cluster only
    /// where its status is public, and its position only where that is.
    pub fn redacted(mut self) -> Gateway {
        self.is_redacted = true;
        self
    }

    /// Its connection is at the cluster of this host, whatever its registration says; empty is
    /// the home cluster.
    pub fn really_at(mut self, host: &str) -> Gateway {
        self.host = Some(host.to_owned());
        self
    }

    /// It was at the cluster of this host before, which keeps these stats for 48 hours.
    pub fn left_behind_at(mut self, host: &str, stats: Value) -> Gateway {
        self.left_behind.insert(host.to_owned(), stats);
        self
    }

    pub fn owned_by(mut self, owner: &str) -> Gateway {
        self.owner = owner.to_owned();
        self
    }

    /// A Gateway Server that died never wrote its disconnect: long without any sign of life.
    pub fn ghost(self, since: i64) -> Gateway {
        self.with_stats(json!({ "connected_at": clock::rfc3339(since), "protocol": "udp" }))
    }

    /// With exactly these stats.
    pub fn with_stats(mut self, stats: Value) -> Gateway {
        self.stats = Some(stats);
        self
    }

    /// Connected with plain, fixed stats.
    pub fn connected(self, protocol: &str) -> Gateway {
        self.with_stats(json!({
            "connected_at": "2024-11-20T06:00:00Z",
            "protocol": protocol,
            "last_status_received_at": "2024-11-20T11:59:40.25Z",
            "last_uplink_received_at": "2024-11-20T11:59:59.987654321Z",
            "uplink_count": "9043",
            "downlink_count": "212",
            "gateway_remote_address": { "ip": "203.0.113.7" },
        }))
    }

    /// Sets these fields of the stats; `null` removes one.
    pub fn stats_with(mut self, fields: Value) -> Gateway {
        let Some(Value::Object(stats)) = &mut self.stats else {
            panic!("{} has no stats", self.id);
        };
        for (name, value) in fields.as_object().expect("an object") {
            stats.insert(name.clone(), value.clone());
        }
        stats.retain(|_, value| !value.is_null());
        self
    }

    /// With counters and times that move from `now` on.
    pub fn moving(mut self, now: i64, uplink_seconds: i64, downlink_seconds: i64) -> Gateway {
        self.motion = Some(Motion {
            since: now,
            uplink_interval_seconds: uplink_seconds,
            downlink_interval_seconds: downlink_seconds,
        });
        self
    }

    /// The host of the cluster that has it; empty is the home cluster.
    pub fn cluster_host(&self) -> &str {
        if let Some(host) = &self.host {
            return host;
        }
        let address = self.registration.get("gateway_server_address");
        let address = address.and_then(Value::as_str).unwrap_or_default();
        let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
        rest.split([':', '/']).next().unwrap_or_default()
    }

    /// The gateway as the list shows it, with every field.
    pub fn listed(&self) -> Value {
        let mut ids = json!({ "gateway_id": self.id });
        if !self.eui.is_empty() {
            ids["eui"] = json!(self.eui);
        }
        let mut gateway = self.registration.clone();
        gateway.entry("ids").or_insert(ids);
        Value::Object(gateway)
    }

    /// The stats as they are at `now`, in seconds since the epoch.
    pub fn stats_at(&self, now: i64) -> Option<Value> {
        let mut stats = self.stats.clone()?;
        if let Some(motion) = self.motion {
            move_stats(&mut stats, motion, now);
        }
        Some(stats)
    }
}

fn move_stats(stats: &mut Value, motion: Motion, now: i64) {
    let elapsed = (now - motion.since).max(0);
    let uplinks = elapsed / motion.uplink_interval_seconds;
    let downlinks = elapsed / motion.downlink_interval_seconds;
    let last = |count: i64, interval: i64| clock::rfc3339(motion.since + count * interval);
    let status_at = clock::rfc3339(now - now % 30);
    add(&mut stats["uplink_count"], uplinks);
    stats["last_uplink_received_at"] = json!(last(uplinks, motion.uplink_interval_seconds));
    if stats.get("downlink_count").is_some() {
        add(&mut stats["downlink_count"], downlinks);
        let at = last(downlinks, motion.downlink_interval_seconds);
        stats["last_downlink_received_at"] = json!(at);
    }
    if stats.get("tx_acknowledgment_count").is_some() {
        add(&mut stats["tx_acknowledgment_count"], downlinks);
        let at = last(downlinks, motion.downlink_interval_seconds);
        stats["last_tx_acknowledgment_received_at"] = json!(at);
    }
    if stats.get("last_status").is_some() {
        stats["last_status_received_at"] = json!(status_at);
        stats["last_status"]["time"] = json!(status_at);
    }
}

/// Adds to a number that the API writes as a string.
fn add(count: &mut Value, more: i64) {
    let before: i64 = count.as_str().and_then(|c| c.parse().ok()).unwrap_or(0);
    *count = json!((before + more).to_string());
}

/// 16 hexadecimal digits that belong to this id alone (FNV-1a).
fn eui_of(id: &str) -> String {
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016X}")
}

fn generated(number: usize) -> Gateway {
    let octet = number % 250 + 1;
    Gateway::new(&format!("gw-{number:05}"))
        .registered(json!({
            "antennas": [{ "gain": 3, "location": {
                "latitude": 52.0 + number as f64 / 10_000.0, "longitude": 4.9, "altitude": 12,
                "source": "SOURCE_REGISTRY",
            }}],
        }))
        .with_stats(json!({
            "connected_at": "2024-11-20T06:00:00.123456789Z",
            "protocol": "udp",
            "last_status_received_at": "2024-11-20T11:59:40.25Z",
            "last_uplink_received_at": "2024-11-20T11:59:59.987654321Z",
            "last_downlink_received_at": "2024-11-20T11:58:01.5Z",
            "last_tx_acknowledgment_received_at": "2024-11-20T11:58:02Z",
            "uplink_count": (9_043 + number).to_string(),
            "downlink_count": (212 + number).to_string(),
            "tx_acknowledgment_count": (200 + number).to_string(),
            "round_trip_times": super::demo::round_trip_times(),
            "sub_bands": super::demo::sub_bands(),
            "last_status": super::demo::packet_forwarder_status("2024-11-20T11:59:40Z"),
            "gateway_remote_address": { "ip": format!("203.0.113.{octet}") },
        }))
}
