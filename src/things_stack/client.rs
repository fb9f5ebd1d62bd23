//! The calls of The Things Stack: one method for each endpoint, and what they have in common:
//! rate limits, the renewal of the key, counters and warnings. It does not decide which gateways
//! to ask for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{FetchError, Reason};
use crate::model::{ConnectionStats, Counters, Endpoint, Gateway, KeyInfo, RateLimit};
use crate::things_stack::hosts::BaseUrl;
use crate::things_stack::key_file::KeyFile;
use crate::things_stack::messages::{self, FieldErrors, ListPage, printable};
use crate::things_stack::refusal::{self, CallError};
use crate::things_stack::transport::{Answer, REQUEST_TIME_MIN, Request, Transport};

/// The most gateways that a page of the list holds (`limit` of ListGatewaysRequest).
const PAGE_GATEWAYS_MAX: usize = 1000;

const LIST_MASK: &str = "name,frequency_plan_ids,gateway_server_address";
/// Left out with `--no-locations`, like `LOCATIONS_STATS_MASK`.
const LOCATIONS_LIST_MASK: &str = ",antennas";
/// All but `last_status.ip` and `last_status.advanced`, which may be large and are not used.
const STATS_MASK: &str = "connected_at,disconnected_at,protocol,\
    last_status_received_at,last_status.time,last_status.boot_time,last_status.versions,\
    last_status.metrics,last_uplink_received_at,uplink_count,\
    last_downlink_received_at,downlink_count,round_trip_times,sub_bands,gateway_remote_address";
const LOCATIONS_STATS_MASK: &str = ",last_status.antenna_locations";
/// Servers from 3.21.0 to 3.25.1 do not know these, and refuse a mask with them.
const NEWER_STATS_MASK: &str = ",last_tx_acknowledgment_received_at,tx_acknowledgment_count";

/// A request that had this much time and got no answer failed because of the API.
const FAIR_TIME: Duration = Duration::from_secs(1);
/// How many different warnings are logged and shown.
const WARNINGS_MAX: usize = 32;
const NO_TOTAL_COUNT: &str = "the list has no X-Total-Count: the server does not take the API key \
    for a user's or an organization's. It may be the key of a gateway, which lists nothing and \
    needs --gateway, or of an application; or a proxy drops the Authorization header";
/// How long a server is taken for one that does not know the newer fields.
const OLD_SERVER_TTL: Duration = Duration::from_secs(3600);

pub struct Client {
    transport: Transport,
    settings: Settings,
    counters: Arc<Mutex<Counters>>,
    key_file: Option<KeyFile>,
    key_number: u64,
    /// Fields of an unexpected form since the last look.
    pub field_errors: FieldErrors,
    /// Until when a kind of call must not be made at a host, because of its rate limit.
    silenced: BTreeMap<(String, Endpoint), Instant>,
    /// Hosts that refused the newer fields, and when.
    old_servers: BTreeMap<String, Instant>,
    warnings: Vec<String>,
}

/// What holds for all calls.
pub struct Settings {
    /// For one request.
    pub timeout: Duration,
    /// Whether positions are asked for.
    pub with_locations: bool,
}

impl Client {
    /// `key_file` is the file that the key was read from, if it was.
    pub fn new(transport: Transport, settings: Settings, key_file: Option<KeyFile>) -> Client {
        Client {
            transport,
            settings,
            counters: Arc::default(),
            key_file,
            key_number: 0,
            field_errors: FieldErrors::default(),
            silenced: BTreeMap::new(),
            old_servers: BTreeMap::new(),
            warnings: Vec::new(),
        }
    }

    /// What is counted of the calls, shared with the thread that shows it.
    pub fn counters(&self) -> Arc<Mutex<Counters>> {
        self.counters.clone()
    }

    /// Until when a rate limit forbids this kind of call, if it does.
    pub fn silenced_until(&self, endpoint: Endpoint, base: &BaseUrl) -> Option<Instant> {
        let until = self.silenced.get(&(base.host.clone(), endpoint));
        until.copied().filter(|until| *until > Instant::now())
    }

    /// What servers announced in `X-Warning`, with their hosts.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Reads the key file again, where there is one, and says whether it holds another key.
    /// A file that cannot be used leaves the old key in use.
    pub fn reload_key(&mut self) -> bool {
        let Some(key) = self.key_file.as_mut().and_then(KeyFile::renewed) else {
            return false;
        };
        self.transport.set_key(&key);
        self.key_number += 1;
        // Rate limits belong to a key.
        self.silenced.clear();
        true
    }

    /// A number that changes with each new key.
    pub fn key_number(&self) -> u64 {
        self.key_number
    }

    /// One page of a list, from 1, and how many gateways there are in all (`X-Total-Count`).
    /// `owner` is `""`, `/organizations/{id}` or `/users/{id}`.
    pub fn list(
        &mut self,
        base: &BaseUrl,
        owner: &str,
        page: usize,
        deadline: Instant,
    ) -> Result<(ListPage, u64), CallError> {
        let path = format!(
            "{owner}/gateways?field_mask={}&order=gateway_id\
             &limit={PAGE_GATEWAYS_MAX}&page={page}",
            self.mask(LIST_MASK, LOCATIONS_LIST_MASK)
        );
        let request = Request::get(base, Endpoint::List, path, deadline);
        let (mut page, total) = self.ask(&request, |answer, field_errors| {
            let page = messages::gateway_list(&answer.body, field_errors)?;
            let total = answer.number("x-total-count");
            let no_total = || FetchError::new(Reason::Shape, NO_TOTAL_COUNT);
            Ok((page, total.ok_or_else(no_total)?))
        })?;
        if !self.settings.with_locations {
            page.gateways.iter_mut().for_each(drop_registered_locations);
        }
        Ok((page, total))
    }

    /// The registration of one gateway.
    pub fn gateway(
        &mut self,
        base: &BaseUrl,
        gateway_id: &str,
        deadline: Instant,
    ) -> Result<Gateway, CallError> {
        let mask = self.mask(LIST_MASK, LOCATIONS_LIST_MASK);
        let path = format!("/gateways/{gateway_id}?field_mask={mask}");
        let request = Request::get(base, Endpoint::Gateway, path, deadline);
        let mut gateway = self.ask(&request, |answer, field_errors| {
            messages::gateway(&answer.body, field_errors)
        })?;
        if !self.settings.with_locations {
            drop_registered_locations(&mut gateway);
        }
        Ok(gateway)
    }

    /// The stats of 1 to 100 gateways; those that are not connected are missing. A server that
    /// refuses the newer fields is asked again without them.
    pub fn stats_batch(
        &mut self,
        base: &BaseUrl,
        gateway_ids: &[&str],
        deadline: Instant,
    ) -> Result<BTreeMap<String, ConnectionStats>, CallError> {
        let older = self.mask(STATS_MASK, LOCATIONS_STATS_MASK);
        let since = self.old_servers.get(&base.host);
        let is_old = since.is_some_and(|since| since.elapsed() < OLD_SERVER_TTL);
        let with_locations = self.settings.with_locations;
        let mut ask = |mask: &str| {
            let request = Request::stats_batch(base, gateway_ids, mask, deadline);
            let batch = self.ask(&request, |answer, field_errors| {
                messages::stats_batch(&answer.body, field_errors)
            });
            batch.map(|mut batch| {
                if !with_locations {
                    batch.values_mut().for_each(drop_reported_locations);
                }
                batch
            })
        };
        if !is_old {
            match ask(&[&older, NEWER_STATS_MASK].concat()) {
                Err(refused) if refused.is_about_field_mask() => {}
                result => return result,
            }
        }
        let mut result = ask(&older);
        for stats in result.iter_mut().flat_map(BTreeMap::values_mut) {
            stats.unreadable.push("tx_acknowledgment_count");
        }
        if !is_old {
            self.old_servers.insert(base.host.clone(), Instant::now());
        }
        result
    }

    /// The stats of one gateway. A gateway that is not connected is the error `not_connected`.
    pub fn stats(
        &mut self,
        base: &BaseUrl,
        gateway_id: &str,
        deadline: Instant,
    ) -> Result<ConnectionStats, CallError> {
        // Without a mask everything comes, so that no server refuses it.
        let path = format!("/gs/gateways/{gateway_id}/connection/stats");
        let request = Request::get(base, Endpoint::Stats, path, deadline);
        let mut stats = self.ask(&request, |answer, field_errors| {
            messages::stats(gateway_id, &answer.body, field_errors)
        })?;
        if !self.settings.with_locations {
            drop_reported_locations(&mut stats);
        }
        Ok(stats)
    }

    /// What the Identity Server tells about the API key.
    pub fn key_info(
        &mut self,
        base: &BaseUrl,
        needs_list: bool,
        deadline: Instant,
    ) -> Result<KeyInfo, CallError> {
        let path = "/auth_info".to_owned();
        let request = Request::get(base, Endpoint::AuthInfo, path, deadline);
        self.ask(&request, |answer, _| {
            messages::key_info(&answer.body, needs_list)
        })
    }

    fn mask(&self, fields: &str, locations: &str) -> String {
        match self.settings.with_locations {
            true => [fields, locations].concat(),
            false => fields.to_owned(),
        }
    }

    /// Makes a call and decodes its answer. An error names the host.
    fn ask<T>(
        &mut self,
        request: &Request,
        decode: impl FnOnce(&Answer, &mut FieldErrors) -> Result<T, FetchError>,
    ) -> Result<T, CallError> {
        let answer = self.call(request)?;
        let decoded = decode(&answer, &mut self.field_errors);
        self.transport.reuse(answer.body);
        decoded.map_err(|mut error| {
            error.context = format!("{}: {}", request.base.host, error.context);
            error.into()
        })
    }

    /// Makes one request, and once more where the API key is refused and its file has a new one.
    fn call(&mut self, request: &Request) -> Result<Answer, CallError> {
        match self.call_once(request) {
            Err(refused) if refused.status == Some(401) && self.reload_key() => {
                self.call_once(request)
            }
            result => result,
        }
    }

    /// Makes one request, if its rate limit allows it and some time is left.
    fn call_once(&mut self, request: &Request) -> Result<Answer, CallError> {
        let Request { base, endpoint, .. } = *request;
        let start = Instant::now();
        let left = request.deadline.saturating_duration_since(start);
        self.check_is_possible(request, left)?;
        let timeout = self.settings.timeout;
        let result = self.transport.send(request, timeout).map_err(|mut error| {
            // A request that a short scrape has cut off says nothing about the API.
            if error.reason == Reason::Timeout && left < timeout.min(FAIR_TIME) {
                error.reason = Reason::Budget;
            }
            error
        });
        let status = result.as_ref().ok().map(|answer| answer.status);
        self.count(endpoint, status, start.elapsed());
        let said = status.map_or("no answer".to_owned(), |status| status.to_string());
        log::debug!("{} {base}{}: {said}", endpoint.label(), request.path);
        let answer = result?;
        self.note_headers(request, &answer);
        refusal::of(request, &answer).map_or(Ok(answer), Err)
    }

    fn check_is_possible(&self, request: &Request, left: Duration) -> Result<(), FetchError> {
        let base = request.base;
        if self.silenced_until(request.endpoint, base).is_some() {
            let context = format!("{}: waiting until its rate limit allows more", base.host);
            return Err(FetchError::new(Reason::RateLimited, context));
        }
        if left < REQUEST_TIME_MIN {
            let context = format!("{}: the time of the scrape was used up", base.host);
            return Err(FetchError::new(Reason::Budget, context));
        }
        Ok(())
    }

    fn count(&self, endpoint: Endpoint, status: Option<u16>, took: Duration) {
        let mut counters = lock(&self.counters);
        *counters.requests.entry((endpoint, status)).or_default() += 1;
        counters.request_count[endpoint as usize] += 1;
        counters.request_duration[endpoint as usize] += took;
    }

    /// Keeps the rate limit, which belongs to one endpoint, and the warnings.
    fn note_headers(&mut self, request: &Request, answer: &Answer) {
        let host = &request.base.host;
        let available = answer.number("x-rate-limit-available");
        if let (Some(limit), Some(available)) = (answer.number("x-rate-limit-limit"), available) {
            let rate_limit = RateLimit { limit, available };
            let mut counters = lock(&self.counters);
            counters.rate_limits.insert(host.clone(), rate_limit);
        }
        if answer.status == 429 || available == Some(0) {
            let until = Instant::now() + refusal::wait_time(answer);
            let of_call = (host.clone(), request.endpoint);
            self.silenced.insert(of_call, until);
        }
        for warning in answer.headers("x-warning") {
            let warning = format!("{host}: {}", printable(&warning, 200));
            if self.warnings.len() < WARNINGS_MAX && !self.warnings.contains(&warning) {
                log::warn!("{warning}");
                self.warnings.push(warning);
            }
        }
    }
}

/// A server may send positions that were not asked for.
fn drop_registered_locations(gateway: &mut Gateway) {
    gateway.antennas.clear();
}

fn drop_reported_locations(stats: &mut ConnectionStats) {
    if let Some(status) = &mut stats.last_status {
        status.antenna_locations.clear();
    }
}

/// A panic of another thread leaves plain numbers behind: they stay usable.
fn lock(counters: &Mutex<Counters>) -> MutexGuard<'_, Counters> {
    counters.lock().unwrap_or_else(PoisonError::into_inner)
}
