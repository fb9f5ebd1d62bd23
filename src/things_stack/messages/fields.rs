//! The fields of one gateway, read from its JSON: which of them the exporter uses, how many
//! elements it keeps of each, and what an error in one of them costs.

use serde_core::Serialize;

use crate::model::{
    ConnectionStats, Gateway, GatewayStatus, Location, RoundTripTimes, SubBand, Timestamp,
};
use crate::things_stack::messages::field_errors::FieldErrors;
use crate::things_stack::messages::forms::{self, Form};
use crate::things_stack::messages::json::Value;

const MAX_FREQUENCY_PLANS: usize = 8;
const MAX_ANTENNAS: usize = 8;
const MAX_SUB_BANDS: usize = 32;
const MAX_VERSIONS: usize = 16;
const MAX_METRICS: usize = 64;

/// The API's name of a field, such as `last_status.time`. Its key is the last word.
type Name = &'static str;

/// Reads the fields of one gateway and counts those of an unexpected form.
pub struct Reader<'a> {
    gateway_id: &'a str,
    field_errors: &'a mut FieldErrors,
    unreadable: Vec<Name>,
}

impl<'a> Reader<'a> {
    /// `ttn.lorawan.v3.Gateway`; `None` without a valid id.
    pub fn gateway(element: Value<'_>, field_errors: &mut FieldErrors) -> Option<Gateway> {
        let mut reader = Reader::new("", field_errors);
        let object = reader.form("gateways", element, Value::as_object)?;
        let ids = reader.try_read(object, "ids", Value::as_object)?;
        let gateway_id = reader.try_read(ids, "ids.gateway_id", forms::gateway_id)?;
        if gateway_id.is_empty() {
            reader.wrong("ids.gateway_id", Value::default());
            return None;
        }
        reader.gateway_id = &gateway_id;
        Some(Gateway {
            eui: reader.read(ids, "ids.eui", forms::eui),
            name: reader.read(object, "name", forms::text),
            frequency_plan_ids: reader.frequency_plan_ids(object),
            gateway_server_address: reader.read(object, "gateway_server_address", forms::text),
            antennas: reader.antennas(object),
            gateway_id,
        })
    }

    /// `ttn.lorawan.v3.GatewayConnectionStats`.
    pub fn stats(
        gateway_id: &str,
        object: Value<'_>,
        field_errors: &mut FieldErrors,
    ) -> ConnectionStats {
        let mut reader = Reader::new(gateway_id, field_errors);
        ConnectionStats {
            connected_at: reader.moment(object, "connected_at"),
            disconnected_at: reader.moment(object, "disconnected_at"),
            protocol: reader.read(object, "protocol", forms::text),
            last_status_received_at: reader.moment(object, "last_status_received_at"),
            last_uplink_received_at: reader.moment(object, "last_uplink_received_at"),
            last_downlink_received_at: reader.moment(object, "last_downlink_received_at"),
            last_tx_acknowledgment_received_at: reader
                .moment(object, "last_tx_acknowledgment_received_at"),
            uplink_count: reader.read(object, "uplink_count", forms::count),
            downlink_count: reader.read(object, "downlink_count", forms::count),
            tx_acknowledgment_count: reader.read(object, "tx_acknowledgment_count", forms::count),
            round_trip_times: reader.round_trip_times(object),
            sub_bands: reader.sub_bands(object),
            last_status: reader.last_status(object),
            remote_ip: reader.remote_ip(object),
            unreadable: reader.unreadable,
        }
    }

    fn new(gateway_id: &'a str, field_errors: &'a mut FieldErrors) -> Reader<'a> {
        Reader {
            gateway_id,
            field_errors,
            unreadable: Vec::new(),
        }
    }

    fn frequency_plan_ids(&mut self, object: Value<'_>) -> Vec<String> {
        let limit = MAX_FREQUENCY_PLANS;
        let mut kept = Vec::new();
        for (_, plan) in self.list(object, "frequency_plan_ids", limit, forms::text) {
            if !plan.is_empty() && !kept.contains(&plan) {
                kept.push(plan);
            }
        }
        kept
    }

    fn antennas(&mut self, object: Value<'_>) -> Vec<Location> {
        let field = "antennas.location";
        let antennas = self.list(object, "antennas", MAX_ANTENNAS, Value::as_object);
        let locations = antennas.into_iter().filter_map(|(antenna, object)| {
            let location = self.try_read(object, field, Value::as_object)?;
            self.location(antenna, location, field, "registry")
        });
        locations.collect()
    }

    fn antenna_locations(&mut self, object: Value<'_>) -> Vec<Location> {
        let field = "last_status.antenna_locations";
        let locations = self.list(object, field, MAX_ANTENNAS, Value::as_object);
        let locations = locations.into_iter();
        let locations =
            locations.filter_map(|(n, place)| self.location(n, place, field, "unknown"));
        locations.collect()
    }

    /// Zero degrees, zero degrees and no height is what a location that was never set has.
    fn location(
        &mut self,
        antenna: usize,
        object: Value<'_>,
        field: Name,
        usual_source: &str,
    ) -> Option<Location> {
        let mut part = |key, form| self.part(object, field, key, form);
        let latitude: f64 = part("latitude", forms::latitude)?;
        let longitude = part("longitude", forms::longitude)?;
        let altitude = part("altitude", forms::finite)?;
        let source = self.part(object, field, "source", forms::source);
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

    fn round_trip_times(&mut self, object: Value<'_>) -> Option<RoundTripTimes> {
        let object = self.read(object, "round_trip_times", Value::as_object);
        let times = RoundTripTimes {
            min: self.try_read(object, "round_trip_times.min", forms::duration)?,
            max: self.try_read(object, "round_trip_times.max", forms::duration)?,
            median: self.try_read(object, "round_trip_times.median", forms::duration)?,
            count: self.try_read(object, "round_trip_times.count", forms::count)?,
        };
        Some(times).filter(|times| *times != RoundTripTimes::default())
    }

    fn sub_bands(&mut self, object: Value<'_>) -> Vec<SubBand> {
        let limits = |band: &SubBand| (band.min_frequency, band.max_frequency);
        let mut kept: Vec<SubBand> = Vec::new();
        for (_, object) in self.list(object, "sub_bands", MAX_SUB_BANDS, Value::as_object) {
            let band = self.sub_band(object);
            let is_new = |band: &SubBand| kept.iter().all(|other| limits(other) != limits(band));
            let band = band.filter(is_new);
            kept.extend(band);
        }
        kept
    }

    fn sub_band(&mut self, object: Value<'_>) -> Option<SubBand> {
        let limit = "sub_bands.downlink_utilization_limit";
        let used = "sub_bands.downlink_utilization";
        Some(SubBand {
            min_frequency: self.try_read(object, "sub_bands.min_frequency", forms::count)?,
            max_frequency: self.try_read(object, "sub_bands.max_frequency", forms::count)?,
            downlink_utilization_limit: self.try_read(object, limit, forms::number)?,
            downlink_utilization: self.try_read(object, used, forms::number)?,
        })
    }

    fn last_status(&mut self, object: Value<'_>) -> Option<GatewayStatus> {
        let object = self.read(object, "last_status", Value::as_object);
        if object.is_null() {
            return None;
        }
        Some(GatewayStatus {
            time: self.moment(object, "last_status.time"),
            boot_time: self.moment(object, "last_status.boot_time"),
            versions: self.map(object, "last_status.versions", MAX_VERSIONS, forms::text),
            antenna_locations: self.antenna_locations(object),
            metrics: self.map(object, "last_status.metrics", MAX_METRICS, forms::number),
        })
    }

    fn remote_ip(&mut self, object: Value<'_>) -> String {
        let address = self.read(object, "gateway_remote_address", Value::as_object);
        self.read(address, "gateway_remote_address.ip", forms::ip)
    }

    fn moment(&mut self, object: Value<'_>, field: Name) -> Option<Timestamp> {
        self.read(object, field, forms::moment)
    }

    /// A map of scalars, sorted by name. Names that are the same once they are cut are one.
    fn map<'v, T>(
        &mut self,
        object: Value<'v>,
        field: Name,
        limit: usize,
        form: Form<'v, T>,
    ) -> Vec<(String, T)> {
        let map = self.read(object, field, Value::as_object);
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
    fn list<'v, T>(
        &mut self,
        object: Value<'v>,
        field: Name,
        limit: usize,
        form: Form<'v, T>,
    ) -> Vec<(usize, T)> {
        let array = self.read(object, field, Value::as_array);
        if array.elements().nth(limit).is_some() {
            self.wrong(field, "too many");
        }
        let elements = array.elements().enumerate().take(limit);
        let elements = elements.filter(|(_, element)| !element.is_null());
        let read = elements.filter_map(|(n, element)| Some((n, self.form(field, element, form)?)));
        read.collect()
    }

    /// Reads a field of the object: its default where it is absent or unreadable.
    fn read<'v, T: Default>(&mut self, object: Value<'v>, field: Name, form: Form<'v, T>) -> T {
        self.try_read(object, field, form).unwrap_or_default()
    }

    /// Reads a field of the object: its default where it is absent, nothing where it is
    /// unreadable.
    fn try_read<'v, T: Default>(
        &mut self,
        object: Value<'v>,
        field: Name,
        form: Form<'v, T>,
    ) -> Option<T> {
        self.part(object, field, field, form)
    }

    /// Like `try_read`, for a part whose errors are counted under the name of the whole.
    fn part<'v, T: Default>(
        &mut self,
        object: Value<'v>,
        field: Name,
        key: &str,
        form: Form<'v, T>,
    ) -> Option<T> {
        let value = object.get(key);
        match value.is_null() {
            true => Some(T::default()),
            false => self.form(field, value, form),
        }
    }

    fn form<'v, T>(&mut self, field: Name, value: Value<'v>, form: Form<'v, T>) -> Option<T> {
        let read = form(value);
        if read.is_none() {
            self.wrong(field, value);
        }
        read
    }

    fn wrong(&mut self, field: Name, found: impl Serialize) {
        self.field_errors.add(field, self.gateway_id, found);
        if !self.unreadable.contains(&field) {
            self.unreadable.push(field);
        }
    }
}
