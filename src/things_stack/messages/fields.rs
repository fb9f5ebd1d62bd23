//! The fields of one gateway, read from its JSON: which of them the exporter uses, how many
//! elements it keeps of each, and what an error in one of them costs.

use serde_core::Serialize;

use crate::model::{ConnectionStats, Gateway, GatewayStatus, Location, RoundTripTimes, SubBand};
use crate::things_stack::messages::field_errors::FieldErrors;
use crate::things_stack::messages::forms::{self, Form};
use crate::things_stack::messages::json::Value;

const MAX_FREQUENCY_PLANS: usize = 8;
const MAX_ANTENNAS: usize = 8;
const MAX_SUB_BANDS: usize = 32;
const MAX_VERSIONS: usize = 16;
const MAX_METRICS: usize = 64;

/// The server always writes one of these for a gateway that it has stats of.
const TIMES: [Name; 2] = ["connected_at", "disconnected_at"];
/// What makes a gateway connected where it is newer than `disconnected_at`.
const SIGNS_OF_LIFE: [Name; 4] = [
    "last_status_received_at",
    "last_uplink_received_at",
    "last_downlink_received_at",
    "last_tx_acknowledgment_received_at",
];

/// The API's name of a field, such as `last_status.time`. Its key is the last word.
type Name = &'static str;

/// Reads the fields of one message of a gateway and counts those of an unexpected form.
pub struct Reader<'r, 'a> {
    object: Value<'a>,
    gateway_id: &'r str,
    field_errors: &'r mut FieldErrors,
}

impl<'a> Reader<'_, 'a> {
    /// `ttn.lorawan.v3.Gateway`; `None` without a valid id.
    pub fn gateway(object: Value<'_>, field_errors: &mut FieldErrors) -> Option<Gateway> {
        let mut reader = Reader {
            object,
            gateway_id: "",
            field_errors,
        };
        let ids = reader.try_read("ids", Value::as_object)?;
        let Some(gateway_id) = forms::gateway_id(ids.get("gateway_id")) else {
            reader.wrong("ids.gateway_id", ids.get("gateway_id"));
            return None;
        };
        reader.gateway_id = &gateway_id;
        Some(Gateway {
            eui: reader.of(ids).read("ids.eui", forms::eui),
            name: reader.read("name", forms::text),
            frequency_plan_ids: reader.frequency_plan_ids(),
            gateway_server_address: reader.read("gateway_server_address", forms::text),
            antennas: reader.antennas(),
            gateway_id,
        })
    }

    /// `ttn.lorawan.v3.GatewayConnectionStats`; `None` for what has neither of the [`TIMES`]. A
    /// proxy's own JSON, taken for stats, would make its gateway disconnected.
    pub fn stats(
        gateway_id: &str,
        object: Value<'_>,
        field_errors: &mut FieldErrors,
    ) -> Option<ConnectionStats> {
        let mut reader = Reader {
            object,
            gateway_id,
            field_errors,
        };
        if TIMES.iter().all(|time| object.get(time).is_null()) {
            return None;
        }
        let times = TIMES.map(|time| reader.try_read(time, forms::moment));
        let signs = SIGNS_OF_LIFE.map(|sign| reader.try_read(sign, forms::moment));
        let is_any_unreadable = signs.contains(&None);
        let [connected_at, disconnected_at] = times.map(Option::flatten);
        let [status, uplink, downlink, tx_acknowledgment] = signs.map(Option::flatten);
        let mut stats = ConnectionStats {
            connected_at,
            disconnected_at,
            protocol: reader.read("protocol", forms::text),
            last_status_received_at: status,
            last_uplink_received_at: uplink,
            last_downlink_received_at: downlink,
            last_tx_acknowledgment_received_at: tx_acknowledgment,
            uplink_count: reader.try_read("uplink_count", forms::count),
            downlink_count: reader.try_read("downlink_count", forms::count),
            tx_acknowledgment_count: reader.try_read("tx_acknowledgment_count", forms::count),
            round_trip_times: reader.round_trip_times(),
            sub_bands: reader.sub_bands(),
            last_status: reader.last_status(),
            remote_ip: reader.remote_ip(),
            tells_state: !times.contains(&None) && times != [Some(None); 2],
        };
        // One that cannot be read may be newer than the disconnect.
        stats.tells_state &= stats.is_connected() || !is_any_unreadable;
        Some(stats)
    }

    /// For a message within this one.
    fn of(&mut self, object: Value<'a>) -> Reader<'_, 'a> {
        Reader {
            object,
            gateway_id: self.gateway_id,
            field_errors: self.field_errors,
        }
    }

    fn frequency_plan_ids(&mut self) -> Vec<String> {
        let mut kept = Vec::new();
        for (_, plan) in self.list("frequency_plan_ids", MAX_FREQUENCY_PLANS, forms::text) {
            if !plan.is_empty() && !kept.contains(&plan) {
                kept.push(plan);
            }
        }
        kept
    }

    fn antennas(&mut self) -> Vec<Location> {
        let field = "antennas.location";
        let antennas = self.list("antennas", MAX_ANTENNAS, Value::as_object);
        let locations = antennas.into_iter().filter_map(|(antenna, object)| {
            let location = self.of(object).try_read(field, Value::as_object)?;
            self.of(location).location(antenna, field, "registry")
        });
        locations.collect()
    }

    fn antenna_locations(&mut self) -> Vec<Location> {
        let field = "last_status.antenna_locations";
        let locations = self.list(field, MAX_ANTENNAS, Value::as_object).into_iter();
        let locations = locations.filter_map(|(antenna, location)| {
            self.of(location).location(antenna, field, "unknown")
        });
        locations.collect()
    }

    /// Zero degrees, zero degrees and no height is what a location that was never set has.
    fn location(&mut self, antenna: usize, field: Name, usual_source: &str) -> Option<Location> {
        let object = self.object;
        let mut part = |key, form| self.form(field, object.get(key), form);
        let latitude: f64 = part("latitude", forms::latitude)?;
        let longitude = part("longitude", forms::longitude)?;
        let altitude = part("altitude", forms::finite)?;
        let source = self.form(field, object.get("source"), forms::source);
        let source = source.filter(|source| !source.is_empty());
        let is_set = (latitude, longitude, altitude) != (0.0, 0.0, 0.0);
        is_set.then(|| Location {
            antenna,
            source: source.unwrap_or_else(|| usual_source.to_owned()),
            latitude,
            longitude,
            altitude,
        })
    }

    fn round_trip_times(&mut self) -> Option<RoundTripTimes> {
        let object = self.read("round_trip_times", Value::as_object);
        let mut reader = self.of(object);
        let times = RoundTripTimes {
            min: reader.try_read("round_trip_times.min", forms::duration)?,
            max: reader.try_read("round_trip_times.max", forms::duration)?,
            median: reader.try_read("round_trip_times.median", forms::duration)?,
            count: reader.try_read("round_trip_times.count", forms::count)?,
        };
        Some(times).filter(|times| *times != RoundTripTimes::default())
    }

    fn sub_bands(&mut self) -> Vec<SubBand> {
        let limits = |band: &SubBand| (band.min_frequency, band.max_frequency);
        let mut kept: Vec<SubBand> = Vec::new();
        for (_, object) in self.list("sub_bands", MAX_SUB_BANDS, Value::as_object) {
            let is_new = |band: &SubBand| kept.iter().all(|other| limits(other) != limits(band));
            let band = self.of(object).sub_band().filter(is_new);
            kept.extend(band);
        }
        kept
    }

    fn sub_band(&mut self) -> Option<SubBand> {
        let limit = "sub_bands.downlink_utilization_limit";
        Some(SubBand {
            min_frequency: self.try_read("sub_bands.min_frequency", forms::count)?,
            max_frequency: self.try_read("sub_bands.max_frequency", forms::count)?,
            downlink_utilization_limit: self.try_read(limit, forms::number)?,
            downlink_utilization: self.try_read("sub_bands.downlink_utilization", forms::number)?,
        })
    }

    fn last_status(&mut self) -> Option<GatewayStatus> {
        let object = self.read("last_status", Value::as_object);
        let mut reader = self.of(object);
        (!object.is_null()).then(|| GatewayStatus {
            time: reader.read("last_status.time", forms::moment),
            boot_time: reader.read("last_status.boot_time", forms::moment),
            versions: reader.map("last_status.versions", MAX_VERSIONS, forms::text),
            antenna_locations: reader.antenna_locations(),
            metrics: reader.map("last_status.metrics", MAX_METRICS, forms::number),
        })
    }

    fn remote_ip(&mut self) -> String {
        let address = self.read("gateway_remote_address", Value::as_object);
        self.of(address)
            .read("gateway_remote_address.ip", forms::ip)
    }

    /// A map of scalars, sorted by name. Names that are the same once they are cut are one.
    fn map<T: Default>(
        &mut self,
        field: Name,
        limit: usize,
        form: Form<'a, T>,
    ) -> Vec<(String, T)> {
        let map = self.read(field, Value::as_object);
        let members = map.members().filter(|(_, value)| !value.is_null());
        let mut members: Vec<(&str, Value)> = members.collect();
        // Before the limit: the server's order may change.
        members.sort_by_key(|(name, _)| *name);
        if members.len() > limit {
            self.wrong(field, "too many");
        }
        let members = members.into_iter().take(limit);
        let read = |(name, value)| Some((forms::cut(name), self.form(field, value, form)?));
        let mut entries: Vec<(String, T)> = members.filter_map(read).collect();
        entries.dedup_by(|later, earlier| later.0 == earlier.0);
        entries
    }

    /// The elements of an array, each with its place.
    fn list<T: Default>(
        &mut self,
        field: Name,
        limit: usize,
        form: Form<'a, T>,
    ) -> Vec<(usize, T)> {
        let array = self.read(field, Value::as_array);
        if array.elements().nth(limit).is_some() {
            self.wrong(field, "too many");
        }
        let elements = array.elements().enumerate().take(limit);
        let elements = elements.filter(|(_, element)| !element.is_null());
        let read = elements.filter_map(|(n, element)| Some((n, self.form(field, element, form)?)));
        read.collect()
    }

    /// Reads a field of the message: its default where it is absent or unreadable.
    fn read<T: Default>(&mut self, field: Name, form: Form<'a, T>) -> T {
        self.try_read(field, form).unwrap_or_default()
    }

    /// Reads a field of the message: its default where it is absent, nothing where it is
    /// unreadable.
    fn try_read<T: Default>(&mut self, field: Name, form: Form<'a, T>) -> Option<T> {
        self.form(field, self.object.get(field), form)
    }

    /// The value of a field, or of a part of it: its default for null.
    #[inline]
    fn form<T: Default>(&mut self, field: Name, value: Value<'a>, form: Form<'a, T>) -> Option<T> {
        if value.is_null() {
            return Some(T::default());
        }
        let read = form(value);
        if read.is_none() {
            self.wrong(field, value);
        }
        read
    }

    fn wrong(&mut self, field: Name, found: impl Serialize) {
        self.field_errors.add(field, self.gateway_id, found);
    }
}
