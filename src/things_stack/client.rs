//! The calls of The Things Stack: one method for each endpoint, and what they have in common:
//! rate limits, the renewal of the key, counters and warnings. It does not decide which gateways
//! to ask for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{FetchError, Reason};
use crate::model::{ConnectionStats, Counters, Endpoint, Gateway, KeyInfo, RateLimit};
use crate::things_stack::failure::{CallError, refusal, wait_time};
use crate::things_stack::hosts::BaseUrl;
use crate::things_stack::key_file::KeyFile;
use crate::things_stack::messages::{self, FieldErrors, ListPage, printable};
use crate::things_stack::transport::{
    Answer, REQUEST_TIME_MIN, Request, Transport, headers, number,
};

/// The most gateways that a page of the list holds (`limit` of ListGatewaysRequest).
const PAGE_GATEWAYS_MAX: usize = 1000;

const LIST_MASK: &str = "name,frequency_plan_ids,gateway_server_address,antennas";
/// All but `last_status.ip` and `last_status.advanced`, which may be large and are not used.
const STATS_MASK: &str = "connected_at,disconnected_at,protocol,last_status_received_at,\
    last_status.time,last_status.boot_time,last_status.versions,last_status.antenna_locations,\
    last_status.metrics,last_uplink_received_at,uplink_count,last_downlink_received_at,\
    downlink_count,last_tx_acknowledgment_received_at,tx_acknowledgment_count,round_trip_times,\
    sub_bands,gateway_remote_address";
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
    timeout: Duration,
    with_locations: bool,
    /// What is counted of the calls, shared with the thread that shows it.
    pub counters: Arc<Mutex<Counters>>,
    key_file: Option<KeyFile>,
    /// A number that changes with each new key.
    pub key_number: u64,
    /// Fields of an unexpected form since the last look.
    pub field_errors: FieldErrors,
    /// Until when a kind of call must not be made, because of its rate limit.
    silenced: BTreeMap<(BaseUrl, Endpoint), Instant>,
    /// Those that refused the newer fields, and when.
    old_servers: BTreeMap<BaseUrl, Instant>,
    /// What servers announced in `X-Warning`, with their hosts.
    pub warnings: Vec<String>,
}

impl Client {
    /// `timeout` is for one request, `with_locations` whether positions are asked for, `key_file` the
    /// file that the key was read from, if it was.
    pub fn new(
        transport: Transport,
        timeout: Duration,
        with_locations: bool,
        key_file: Option<KeyFile>,
    ) -> Client {
        Client {
            transport,
            timeout,
            with_locations,
            counters: Arc::default(),
            key_file,
            key_number: 0,
            field_errors: FieldErrors::default(),
            silenced: BTreeMap::new(),
            old_servers: BTreeMap::new(),
            warnings: Vec::new(),
        }
    }

    /// Until when a rate limit forbids this kind of call, if it does.
    pub fn silenced_until(&self, endpoint: Endpoint, base: &BaseUrl) -> Option<Instant> {
        let until = self.silenced.get(&(base.clone(), endpoint));
        until.copied().filter(|until| *until > Instant::now())
    }

    /// Reads the key file again, where there is one, and says whether it holds another key.
    /// A file that cannot be used leaves the old key in use.
    pub fn reload_key(&mut self) -> bool {
        let (file, key) = (self.key_file.as_mut(), &mut self.transport.key);
        let is_new = file.is_some_and(|file| file.renew(key));
        if is_new {
            self.key_number += 1;
            // Rate limits belong to a key.
            self.silenced.clear();
        }
        is_new
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
        let mask = self.mask(LIST_MASK, false);
        let path = format!(
            "{owner}/gateways?field_mask={mask}&order=gateway_id\
             &limit={PAGE_GATEWAYS_MAX}&page={page}"
        );
        let answer = self.call(base, Endpoint::List, path, None, deadline)?;
        let page = messages::gateway_list(answer.body(), &mut self.field_errors);
        let mut page = at(base, page)?;
        let no_total = || FetchError::new(Reason::Shape, NO_TOTAL_COUNT);
        let total = at(base, number(&answer, "x-total-count").ok_or_else(no_total))?;
        for gateway in &mut page.gateways {
            self.drop_registered_locations(gateway);
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
        let mask = self.mask(LIST_MASK, false);
        let path = format!("/gateways/{gateway_id}?field_mask={mask}");
        let answer = self.call(base, Endpoint::Gateway, path, None, deadline)?;
        let gateway = messages::gateway(answer.body(), &mut self.field_errors);
        let mut gateway = at(base, gateway)?;
        self.drop_registered_locations(&mut gateway);
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
        let since = self.old_servers.get(base);
        let is_old = since.is_some_and(|since| since.elapsed() < OLD_SERVER_TTL);
        let path = "/gs/gateways/connection/stats".to_owned();
        let body = Some(batch_body(gateway_ids, &self.mask(STATS_MASK, is_old)));
        let answer = match self.call(base, Endpoint::StatsBatch, path, body, deadline) {
            Err(refused) if refused.is_about_field_mask() && !is_old => {
                self.old_servers.insert(base.clone(), Instant::now());
                return self.stats_batch(base, gateway_ids, deadline);
            }
            result => result?,
        };
        let batch = messages::stats_batch(gateway_ids, answer.body(), &mut self.field_errors);
        let mut batch = at(base, batch)?;
        for stats in batch.values_mut() {
            self.drop_reported_locations(stats);
            if is_old {
                stats.tx_acknowledgment_count = None;
            }
        }
        Ok(batch)
    }

    /// The stats of one gateway; none if it is not connected.
    pub fn stats(
        &mut self,
        base: &BaseUrl,
        gateway_id: &str,
        deadline: Instant,
    ) -> Result<Option<ConnectionStats>, CallError> {
        // Without a mask everything comes, so that no server refuses it.
        let path = format!("/gs/gateways/{gateway_id}/connection/stats");
        let answer = match self.call(base, Endpoint::Stats, path, None, deadline) {
            Err(refused) if refused.is_not_connected() => return Ok(None),
            result => result?,
        };
        let stats = messages::stats(gateway_id, answer.body(), &mut self.field_errors);
        let mut stats = at(base, stats)?;
        self.drop_reported_locations(&mut stats);
        Ok(Some(stats))
    }

    /// What the Identity Server tells about the API key.
    pub fn key_info(
        &mut self,
        base: &BaseUrl,
        needs_list: bool,
        deadline: Instant,
    ) -> Result<KeyInfo, CallError> {
        let path = "/auth_info".to_owned();
        let answer = self.call(base, Endpoint::AuthInfo, path, None, deadline)?;
        at(base, messages::key_info(answer.body(), needs_list))
    }

    /// Servers from 3.21.0 to 3.25.1 do not know `tx_acknowledgment_*`, and refuse a mask with it.
    fn mask(&self, fields: &str, is_of_old_server: bool) -> String {
        let is_asked = |field: &&str| match *field {
            "antennas" | "last_status.antenna_locations" => self.with_locations,
            "last_tx_acknowledgment_received_at" | "tx_acknowledgment_count" => !is_of_old_server,
            _ => true,
        };
        let asked: Vec<&str> = fields.split(',').filter(is_asked).collect();
        asked.join(",")
    }

    /// A server may send positions that were not asked for.
    fn drop_registered_locations(&self, gateway: &mut Gateway) {
        if !self.with_locations {
            gateway.antennas.clear();
        }
    }

    fn drop_reported_locations(&self, stats: &mut ConnectionStats) {
        let status = stats.last_status.as_mut();
        if let Some(status) = status.filter(|_| !self.with_locations) {
            status.antenna_locations.clear();
        }
    }

    /// Makes one request, and once more where the API key is refused and its file has a new one. An
    /// error names the host.
    fn call(
        &mut self,
        base: &BaseUrl,
        endpoint: Endpoint,
        path: String,
        body: Option<String>,
        deadline: Instant,
    ) -> Result<Answer, CallError> {
        let request = Request {
            base,
            endpoint,
            path,
            body,
            timeout: self.timeout,
            deadline,
        };
        let mut result = self.call_once(&request);
        if let Err(refused) = &result
            && refused.is_of_key()
            && self.reload_key()
        {
            result = self.call_once(&request);
        }
        at(base, result)
    }

    /// Makes one request, if its rate limit allows it and some time is left.
    fn call_once(&mut self, request: &Request) -> Result<Answer, CallError> {
        let Request { base, endpoint, .. } = *request;
        let (start, left) = (Instant::now(), request.time_left());
        let not_now = |reason, why| Err(FetchError::new(reason, why).into());
        if self.silenced_until(endpoint, base).is_some() {
            return not_now(Reason::RateLimited, "waiting for its rate limit to reset");
        }
        if left < REQUEST_TIME_MIN {
            return not_now(Reason::Budget, "the time of the scrape was used up");
        }
        let result = self.transport.send(request).map_err(|mut error| {
            // A request that a short scrape has cut off says nothing about the API.
            if error.reason == Reason::Timeout && left < request.timeout.min(FAIR_TIME) {
                error.reason = Reason::Budget;
            }
            error
        });
        let status = result.as_ref().ok().map(|answer| answer.status().as_u16());
        self.count(endpoint, status, start.elapsed());
        let said = status.map_or("no answer".to_owned(), |status| status.to_string());
        log::debug!("{} {base}{}: {said}", endpoint.label(), request.path);
        let answer = result?;
        self.note_headers(request, &answer);
        refusal(request, &answer).map_or(Ok(answer), Err)
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
        let available = number(answer, "x-rate-limit-available");
        if let (Some(limit), Some(available)) = (number(answer, "x-rate-limit-limit"), available) {
            let rate_limit = RateLimit { limit, available };
            let mut counters = lock(&self.counters);
            counters.rate_limits.insert(host.clone(), rate_limit);
        }
        if answer.status() == 429 || available == Some(0) {
            let until = Instant::now() + wait_time(answer);
            let of_call = (request.base.clone(), request.endpoint);
            self.silenced.insert(of_call, until);
        }
        for warning in headers(answer, "x-warning") {
            let warning = format!("{host}: {}", printable(&warning, 200));
            if self.warnings.len() < WARNINGS_MAX && !self.warnings.contains(&warning) {
                log::warn!("{warning}");
                self.warnings.push(warning);
            }
        }
    }
}

/// An error names the host.
fn at<T>(base: &BaseUrl, result: Result<T, impl Into<CallError>>) -> Result<T, CallError> {
    result.map_err(|error| {
        let mut error = error.into();
        error.error.context = format!("{}: {}", base.host, error.error.context);
        error
    })
}

/// The message of a batch. Identifiers and masks hold nothing that JSON would have to escape.
fn batch_body(gateway_ids: &[&str], mask: &str) -> String {
    let ids = gateway_ids.iter();
    let ids = ids.map(|id| format!(r#"{{"gateway_id":"{id}"}}"#));
    let ids = ids.collect::<Vec<_>>().join(",");
    format!(r#"{{"gateway_ids":[{ids}],"field_mask":"{mask}"}}"#)
}

/// A panic of another thread leaves plain numbers behind: they stay usable.
fn lock(counters: &Mutex<Counters>) -> MutexGuard<'_, Counters> {
    counters.lock().unwrap_or_else(PoisonError::into_inner)
}
