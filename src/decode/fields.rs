//! The fields of one gateway, taken out of its JSON by value: which of them the exporter uses,
//! how many it keeps of each, and what of the rest a fault in one of them costs.

use crate::decode::forms::{self, Form};
use crate::faults::Faults;
use crate::json::{Object, Value};
use crate::model::{
    ConnectionStats, Gateway, GatewayStatus, Location, RoundTripTimes, SubBand, Timestamp,
};

const MAX_FREQUENCY_PLANS: usize = 8;
const MAX_ANTENNAS: usize = 8;
const MAX_SUB_BANDS: usize = 32;
const MAX_VERSIONS: usize = 16;
const MAX_METRICS: usize = 64;

/// The field is there, in a form that is not known. It has been put down as a fault.
struct Unreadable;

/// Reads the fields of one gateway and puts down what is wrong with them.
pub struct Reader<'a> {
    gateway_id: &'a str,
    faults: &'a mut Faults,
    unreadable: Vec<&'static str>,
}

impl<'a> Reader<'a> {
    /// `ttn.lorawan.v3.Gateway`; `None` without a valid id.
    pub fn gateway(mut object: Object<'_>, faults: &mut Faults) -> Option<Gateway> {
        let mut reader = Reader::new("", faults);
        let mut ids: Object = reader.read(&mut object, "ids", forms::object).ok()?;
        let id = reader
            .read(&mut ids, "ids.gateway_id", forms::gateway_id)
            .ok()?;
        let Some(gateway_id) = id else {
            reader.fault("ids.gateway_id", &Value::Null);
            return None;
        };
        let mut reader = Reader::new(&gateway_id, faults);
        Some(Gateway {
            eui: reader
                .read(&mut ids, "ids.eui", forms::eui)
                .unwrap_or_default(),
            name: reader
                .read(&mut object, "name", forms::text)
                .unwrap_or_default(),
            frequency_plan_ids: reader.frequency_plan_ids(&mut object),
            gateway_server_address: reader
                .read(&mut object, "gateway_server_address", forms::text)
                .unwrap_or_default(),
            antennas: reader.antennas(&mut object),
            gateway_id,
        })
    }

    /// `ttn.lorawan.v3.GatewayConnectionStats`.
    pub fn stats(gateway_id: &str, mut object: Object<'_>, faults: &mut Faults) -> ConnectionStats {
        let mut reader = Reader::new(gateway_id, faults);
        let object = &mut object;
        let mut stats = ConnectionStats {
            connected_at: reader.moment(object, "connected_at"),
            disconnected_at: reader.moment(object, "disconnected_at"),
            protocol: reader
                .read(object, "protocol", forms::text)
                .unwrap_or_default(),
            last_status_received_at: reader.moment(object, "last_status_received_at"),
            last_uplink_received_at: reader.moment(object, "last_uplink_received_at"),
            last_downlink_received_at: reader.moment(object, "last_downlink_received_at"),
            last_tx_acknowledgment_received_at: reader
                .moment(object, "last_tx_acknowledgment_received_at"),
            uplink_count: reader.count(object, "uplink_count"),
            downlink_count: reader.count(object, "downlink_count"),
            tx_acknowledgment_count: reader.count(object, "tx_acknowledgment_count"),
            round_trip_times: reader.round_trip_times(object).unwrap_or_default(),
            sub_bands: reader.sub_bands(object),
            last_status: reader.last_status(object),
            remote_ip: reader.remote_ip(object),
            unreadable: Vec::new(),
        };
        stats.unreadable = reader.unreadable;
        stats
    }

    fn new(gateway_id: &'a str, faults: &'a mut Faults) -> Reader<'a> {
        Reader {
            gateway_id,
            faults,
            unreadable: Vec::new(),
        }
    }

    fn frequency_plan_ids(&mut self, object: &mut Object<'_>) -> Vec<String> {
        let field = "frequency_plan_ids";
        let mut plans = Vec::new();
        for (_, element) in self.elements(object, field, MAX_FREQUENCY_PLANS) {
            plans.extend(self.form(field, element, forms::text));
        }
        // Older servers have one plan at most, under this name; newer ones may have both.
        plans.extend(self.read(object, "frequency_plan_id", forms::text));
        let mut kept: Vec<String> = Vec::with_capacity(plans.len());
        for plan in plans {
            if !plan.is_empty() && !kept.contains(&plan) && kept.len() < MAX_FREQUENCY_PLANS {
                kept.push(plan);
            }
        }
        kept
    }

    fn antennas(&mut self, object: &mut Object<'_>) -> Vec<Location> {
        let field = "antennas.location";
        let mut locations = Vec::new();
        for (antenna, element) in self.elements(object, "antennas", MAX_ANTENNAS) {
            let location = self
                .form("antennas", element, forms::object)
                .and_then(|mut object| self.read(&mut object, field, forms::object))
                .and_then(|object| self.location(antenna, object, field, "registry"));
            locations.extend(location.ok().flatten());
        }
        locations
    }

    fn antenna_locations(&mut self, object: &mut Object<'_>) -> Vec<Location> {
        let field = "last_status.antenna_locations";
        let mut locations = Vec::new();
        for (antenna, element) in self.elements(object, field, MAX_ANTENNAS) {
            let location = self
                .form(field, element, forms::object)
                .and_then(|object| self.location(antenna, object, field, "unknown"));
            locations.extend(location.ok().flatten());
        }
        locations
    }

    /// Zero degrees, zero degrees and no height is what a location that was never set has.
    fn location(
        &mut self,
        antenna: usize,
        mut object: Object<'_>,
        field: &'static str,
        usual_source: &str,
    ) -> Result<Option<Location>, Unreadable> {
        let mut part = |key, form| self.part(&mut object, field, key, form);
        let latitude: f64 = part("latitude", forms::latitude)?;
        let longitude: f64 = part("longitude", forms::longitude)?;
        let altitude: f64 = part("altitude", forms::finite)?;
        if latitude == 0.0 && longitude == 0.0 && altitude == 0.0 {
            return Ok(None);
        }
        let source = self.part(&mut object, field, "source", forms::source);
        let source = source.ok().flatten();
        Ok(Some(Location {
            antenna,
            source: source.unwrap_or_else(|| usual_source.to_owned()),
            latitude,
            longitude,
            altitude,
        }))
    }

    fn round_trip_times(
        &mut self,
        object: &mut Object<'_>,
    ) -> Result<Option<RoundTripTimes>, Unreadable> {
        let mut object: Object = self.read(object, "round_trip_times", forms::object)?;
        let times = RoundTripTimes {
            min: self.read(&mut object, "round_trip_times.min", forms::duration)?,
            max: self.read(&mut object, "round_trip_times.max", forms::duration)?,
            median: self.read(&mut object, "round_trip_times.median", forms::duration)?,
            count: self.read(&mut object, "round_trip_times.count", forms::count)?,
        };
        Ok(Some(times).filter(|times| *times != RoundTripTimes::default()))
    }

    fn sub_bands(&mut self, object: &mut Object<'_>) -> Vec<SubBand> {
        let field = "sub_bands";
        let limits = |band: &SubBand| (band.min_frequency, band.max_frequency);
        let mut sub_bands: Vec<SubBand> = Vec::new();
        for (_, element) in self.elements(object, field, MAX_SUB_BANDS) {
            let band = self
                .form(field, element, forms::object)
                .and_then(|object| self.sub_band(object));
            let is_new = |band: &SubBand| sub_bands.iter().all(|b| limits(b) != limits(band));
            let band = band.ok().filter(is_new);
            sub_bands.extend(band);
        }
        sub_bands
    }

    fn sub_band(&mut self, mut object: Object<'_>) -> Result<SubBand, Unreadable> {
        let object = &mut object;
        Ok(SubBand {
            min_frequency: self.read(object, "sub_bands.min_frequency", forms::count)?,
            max_frequency: self.read(object, "sub_bands.max_frequency", forms::count)?,
            downlink_utilization_limit: self.read(
                object,
                "sub_bands.downlink_utilization_limit",
                forms::number,
            )?,
            downlink_utilization: self.read(
                object,
                "sub_bands.downlink_utilization",
                forms::number,
            )?,
        })
    }

    fn last_status(&mut self, object: &mut Object<'_>) -> Option<GatewayStatus> {
        let status: Option<Object> = self
            .read(object, "last_status", |v| forms::object(v).map(Some))
            .unwrap_or_default();
        let mut object = status?;
        let object = &mut object;
        Some(GatewayStatus {
            time: self.moment(object, "last_status.time"),
            boot_time: self.moment(object, "last_status.boot_time"),
            versions: self.map(object, "last_status.versions", MAX_VERSIONS, forms::text),
            antenna_locations: self.antenna_locations(object),
            metrics: self.map(object, "last_status.metrics", MAX_METRICS, forms::number),
        })
    }

    fn remote_ip(&mut self, object: &mut Object<'_>) -> String {
        self.read(object, "gateway_remote_address", forms::object)
            .and_then(|mut a: Object| self.read(&mut a, "gateway_remote_address.ip", forms::ip))
            .unwrap_or_default()
    }

    fn moment(&mut self, object: &mut Object<'_>, field: &'static str) -> Option<Timestamp> {
        self.read(object, field, forms::moment).unwrap_or_default()
    }

    fn count(&mut self, object: &mut Object<'_>, field: &'static str) -> u64 {
        self.read(object, field, forms::count).unwrap_or_default()
    }

    /// A map of scalars, sorted by name. Names that are the same once they are cut are one.
    fn map<'v, T>(
        &mut self,
        object: &mut Object<'v>,
        field: &'static str,
        limit: usize,
        form: Form<'v, T>,
    ) -> Vec<(String, T)> {
        let map: Object = self.read(object, field, forms::object).unwrap_or_default();
        let map = map.into_sorted();
        let mut entries: Vec<(String, T)> = Vec::with_capacity(map.len().min(limit));
        for (name, value) in map.into_iter().filter(|(_, value)| !value.is_null()) {
            if entries.len() == limit {
                self.fault(field, &Value::from("too many"));
                break;
            }
            if let Ok(value) = self.form(field, value, form) {
                entries.push((forms::cut(&name), value));
            }
        }
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        entries.dedup_by(|later, earlier| later.0 == earlier.0);
        entries
    }

    /// The elements of an array, each with its place.
    fn elements<'v>(
        &mut self,
        object: &mut Object<'v>,
        field: &'static str,
        limit: usize,
    ) -> impl Iterator<Item = (usize, Value<'v>)> + use<'v> {
        let elements: Vec<Value> = self.read(object, field, forms::array).unwrap_or_default();
        if elements.len() > limit {
            self.fault(field, &Value::from("too many"));
        }
        let elements = elements.into_iter().enumerate().take(limit);
        elements.filter(|(_, element)| !element.is_null())
    }

    /// Takes the field out of the object. Its key is the last word of its name.
    fn read<'v, T: Default>(
        &mut self,
        object: &mut Object<'v>,
        field: &'static str,
        form: Form<'v, T>,
    ) -> Result<T, Unreadable> {
        let key = field.rsplit('.').next().unwrap_or(field);
        self.part(object, field, key, form)
    }

    /// Like `read`, for a part whose faults are put down under the name of the whole.
    fn part<'v, T: Default>(
        &mut self,
        object: &mut Object<'v>,
        field: &'static str,
        key: &str,
        form: Form<'v, T>,
    ) -> Result<T, Unreadable> {
        match object.take(key) {
            None | Some(Value::Null) => Ok(T::default()),
            Some(value) => self.form(field, value, form),
        }
    }

    fn form<'v, T>(
        &mut self,
        field: &'static str,
        value: Value<'v>,
        form: Form<'v, T>,
    ) -> Result<T, Unreadable> {
        form(value).map_err(|found| self.fault(field, &found))
    }

    fn fault(&mut self, field: &'static str, found: &Value<'_>) -> Unreadable {
        self.faults.add(field, self.gateway_id, found);
        if !self.unreadable.contains(&field) {
            self.unreadable.push(field);
        }
        Unreadable
    }
}
