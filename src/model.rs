//! The nouns: a gateway as it is registered, its connection as its Gateway Server sees it,
//! and one collection of all of them. Plain data; no JSON, no HTTP, no clock.
//!
//! Field names are those of The Things Stack's messages `ttn.lorawan.v3.Gateway`,
//! `GatewayConnectionStats` and `GatewayStatus` (lorawan-stack, api/ttn/lorawan/v3).

mod calendar;
mod counters;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::error::FetchError;

pub use calendar::{civil_date, day_number};
pub use counters::{Counters, Endpoint, RateLimit};

/// A moment: seconds since the Unix epoch, and nanoseconds within that second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    pub seconds: i64,
    pub nanoseconds: u32,
}

/// A gateway as the Identity Server has it registered (`ttn.lorawan.v3.Gateway`).
/// Text that is not set is empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gateway {
    /// 3 to 36 characters of `[a-z0-9-]`.
    pub gateway_id: String,
    /// The 64-bit extended unique identifier, 16 hexadecimal digits.
    pub eui: String,
    /// Free text: any Unicode.
    pub name: String,
    pub frequency_plan_ids: Vec<String>,
    /// Names the cluster that the gateway connects to. Any collaborator can edit it.
    pub gateway_server_address: String,
    pub antennas: Vec<Location>,
}

/// Where an antenna is (`ttn.lorawan.v3.Location`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Location {
    /// Which antenna of the gateway, from 0.
    pub antenna: usize,
    /// `LocationSource` in lower case without its prefix: `registry`, `gps`, `unknown` …
    pub source: String,
    /// Degrees north.
    pub latitude: f64,
    /// Degrees east.
    pub longitude: f64,
    /// Metres above sea level.
    pub altitude: f64,
}

/// A gateway's connection (`ttn.lorawan.v3.GatewayConnectionStats`), present from the first
/// connection until 48 hours after the last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectionStats {
    pub connected_at: Option<Timestamp>,
    pub disconnected_at: Option<Timestamp>,
    /// `udp`, `mqtt`, `grpc`, `ws` …
    pub protocol: String,
    pub last_status_received_at: Option<Timestamp>,
    pub last_uplink_received_at: Option<Timestamp>,
    pub last_downlink_received_at: Option<Timestamp>,
    pub last_tx_acknowledgment_received_at: Option<Timestamp>,
    /// Messages since the current connection began, like the two below. None where it was not asked
    /// for, or cannot be read; zero where the server says nothing (protojson leaves zeros out).
    pub uplink_count: Option<u64>,
    pub downlink_count: Option<u64>,
    pub tx_acknowledgment_count: Option<u64>,
    pub round_trip_times: Option<RoundTripTimes>,
    /// Each range of frequencies once.
    pub sub_bands: Vec<SubBand>,
    pub last_status: Option<GatewayStatus>,
    /// As the server sees it, IPv4 or IPv6.
    pub remote_ip: String,
    /// Whether [`ConnectionStats::is_connected`] has what it needs: a moment that cannot be read must
    /// not make a gateway look connected, or gone.
    pub tells_state: bool,
}

/// Over at most 20 samples of the last 30 minutes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RoundTripTimes {
    pub min: Duration,
    pub max: Duration,
    pub median: Duration,
    /// How many samples.
    pub count: u64,
}

/// How much of its duty cycle a gateway uses in one band.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SubBand {
    /// Hertz.
    pub min_frequency: u64,
    /// Hertz; 2^64−1 where the band has no upper end.
    pub max_frequency: u64,
    /// The most that is allowed: a fraction of time.
    pub downlink_utilization_limit: f64,
    /// A fraction of time.
    pub downlink_utilization: f64,
}

/// What a gateway last said of itself (`ttn.lorawan.v3.GatewayStatus`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GatewayStatus {
    /// The gateway's own clock.
    pub time: Option<Timestamp>,
    pub boot_time: Option<Timestamp>,
    /// Component and version, sorted by component, each component once.
    pub versions: Vec<(String, String)>,
    pub antenna_locations: Vec<Location>,
    /// Name and number, sorted by name, each name once.
    pub metrics: Vec<(String, f64)>,
}

impl ConnectionStats {
    /// Whether the gateway is connected now.
    ///
    /// The server keeps the stats of a gateway for 48 hours after it left, so their mere
    /// presence says nothing. Both times can be set at once (a server defect seen in the
    /// field): then whatever happened later is true.
    pub fn is_connected(&self) -> bool {
        let Some(disconnected_at) = self.disconnected_at else {
            return self.connected_at.is_some();
        };
        self.connected_at.is_some()
            && [
                self.connected_at,
                self.last_status_received_at,
                self.last_uplink_received_at,
                self.last_downlink_received_at,
                self.last_tx_acknowledgment_received_at,
            ]
            .into_iter()
            .flatten()
            .any(|sign_of_life| sign_of_life > disconnected_at)
    }

    /// When the gateway was last heard: the newest of last uplink and last status.
    pub fn last_seen(&self) -> Option<Timestamp> {
        self.last_uplink_received_at
            .max(self.last_status_received_at)
    }
}

/// What is known of one gateway's connection.
///
/// `Ok(None)` is certain knowledge too: it never connected, or left more than 48 hours ago.
/// Both sides are shared between the collections within one TTL.
pub type Outcome = Result<Option<Arc<ConnectionStats>>, Arc<FetchError>>;

/// The three states an operator sees, the worst first for a person who has to act: that a gateway
/// is disconnected is certain, and there is something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Disconnected,
    /// The API, the network or the key failed: nothing is said about the gateway.
    Unknown,
    Connected,
}

impl State {
    pub const WORST_FIRST: [State; 3] = [State::Disconnected, State::Unknown, State::Connected];

    /// The value of the label `state`, and of the parameter `state` of the status page.
    pub fn label(self) -> &'static str {
        match self {
            State::Connected => "connected",
            State::Disconnected => "disconnected",
            State::Unknown => "unknown",
        }
    }
}

/// One gateway within a collection.
#[derive(Clone, Debug)]
pub struct GatewayReport {
    pub gateway: Arc<Gateway>,
    /// The host that was asked for its stats, or would have been.
    pub cluster: Arc<str>,
    pub outcome: Outcome,
    /// Uplinks an hour between the last two collections of this process that knew the counter,
    /// of one connection; `None` before there are two.
    pub uplinks_per_hour: Option<f64>,
}

impl GatewayReport {
    /// Stats that cannot tell it are no outcome: `collect` makes them an error.
    pub fn state(&self) -> State {
        match &self.outcome {
            Ok(Some(stats)) if stats.is_connected() => State::Connected,
            Ok(_) => State::Disconnected,
            Err(_) => State::Unknown,
        }
    }

    /// Why its state is unknown, if it is.
    pub fn error(&self) -> Option<&Arc<FetchError>> {
        self.outcome.as_ref().err()
    }

    /// The stats, where there are any.
    pub fn stats(&self) -> Option<&ConnectionStats> {
        self.outcome.as_ref().ok()?.as_deref()
    }

    /// The stats of a gateway that is connected. The server keeps those of one that left for 48
    /// hours, and its round trips and sub-bands say nothing about now.
    pub fn live_stats(&self) -> Option<&ConnectionStats> {
        self.stats().filter(|_| self.state() == State::Connected)
    }

    /// What the gateway last said of itself, if anything.
    pub fn last_status(&self) -> Option<&GatewayStatus> {
        self.stats()?.last_status.as_ref()
    }

    /// Where its antennas are: as registered, then as the gateway says; of two places of one
    /// antenna from one source the first. What a GPS says comes before all, since the registration
    /// has an older copy of it.
    pub fn locations(&self) -> impl Iterator<Item = &Location> {
        let reported = self.last_status();
        let reported = reported.map_or(&[][..], |status| &status.antenna_locations);
        let of_gps = reported.iter().filter(|location| location.source == "gps");
        let all = of_gps.chain(&self.gateway.antennas).chain(reported);
        let again = all.clone();
        let is_new = move |(index, location): &(usize, &Location)| {
            let mut earlier = again.clone().take(*index);
            !earlier
                .any(|other| (other.antenna, &other.source) == (location.antenna, &location.source))
        };
        all.enumerate().filter(is_new).map(|(_, location)| location)
    }
}

/// Everything that one collection obtained, failures included. It is never an error itself.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Sorted by gateway id, each once.
    pub gateways: Vec<GatewayReport>,
    /// Why the list is missing, incomplete or an older one.
    pub list_error: Option<Arc<FetchError>>,
    /// When the list was last obtained whole, by this machine's clock.
    pub list_obtained_at: Option<SystemTime>,
    /// Whether the API did its part: the list was obtained, and every request that this snapshot
    /// needed was answered. Gateways that are unknown for reasons of their own do not count.
    pub is_api_up: bool,
    /// What the server tells of the API key, once it did.
    pub key: Option<Arc<KeyInfo>>,
    /// What the server announced in `X-Warning`, each once; at most 32.
    pub warnings: Vec<String>,
    /// When the last collection began, by this machine's clock, and how long it took; none before
    /// the first one has ended.
    pub collected: Option<(SystemTime, Duration)>,
}

impl Snapshot {
    /// Whether the list and the state of every gateway were obtained: what `--once` reports.
    pub fn is_complete(&self) -> bool {
        self.list_error.is_none() && self.count(State::Unknown) == 0
    }

    /// The first error: that of the list, then that of a gateway.
    pub fn first_error(&self) -> Option<&Arc<FetchError>> {
        let of_gateways = self.gateways.iter().filter_map(GatewayReport::error);
        self.list_error.iter().chain(of_gateways).next()
    }

    /// How many gateways are in this state.
    pub fn count(&self, state: State) -> usize {
        self.gateways.iter().filter(|g| g.state() == state).count()
    }
}

/// The API key, as the Identity Server tells it (`AuthInfoResponse`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeyInfo {
    /// Absent for a key that does not expire.
    pub expires_at: Option<Timestamp>,
    /// What the exporter needs and the key certainly lacks, as the console names the rights.
    pub missing_rights: Vec<&'static str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Option<Timestamp> {
        let nanoseconds = 0;
        Some(Timestamp {
            seconds,
            nanoseconds,
        })
    }

    #[track_caller]
    fn check(expected: bool, stats: ConnectionStats) {
        assert_eq!(stats.is_connected(), expected, "{stats:?}");
    }

    #[test]
    fn a_gateway_is_connected_only_while_its_last_sign_of_life_is_newer_than_its_leaving() {
        let stats = |connected_at, disconnected_at, last_uplink_received_at| ConnectionStats {
            connected_at,
            disconnected_at,
            last_uplink_received_at,
            ..ConnectionStats::default()
        };
        check(false, stats(None, None, None));
        check(false, stats(None, None, at(5)));
        check(true, stats(at(1), None, None));
        check(false, stats(None, at(2), None));
        check(false, stats(None, at(2), at(5)));
        check(true, stats(at(3), at(2), None));
        check(false, stats(at(1), at(2), None));
        check(false, stats(at(1), at(2), at(2)));
        check(true, stats(at(1), at(2), at(3)));
    }
}
