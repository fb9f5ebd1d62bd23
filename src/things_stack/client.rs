//! The calls of The Things Stack: one method for each endpoint, with what is true of all of
//! them: the limits that a server sets, what a refusal means, and the counting.
//!
//! It decides nothing about which gateways to ask for; see `list` and `connection_stats`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::collect::TtlMap;
use crate::error::{FetchError, Reason};
use crate::model::{ConnectionStats, Counters, Endpoint, Gateway, RateLimit};
use crate::things_stack::hosts::BaseUrl;
use crate::things_stack::messages::{self, ListPage};
use crate::things_stack::messages::{FieldErrors, printable};
use crate::things_stack::refusal::{self, CallError};
use crate::things_stack::transport::{Answer, Request, Transport};

/// The most gateways that a page of the list holds (`limit` of ListGatewaysRequest).
pub const PAGE_GATEWAYS_MAX: usize = 1000;

const LIST_FIELDS: &str = "name,frequency_plan_ids,gateway_server_address,antennas";
/// All but `last_status.ip` and `last_status.advanced`, which may be large and are not used.
const STATS_FIELDS: &str = "connected_at,disconnected_at,protocol,\
    last_status_received_at,last_status.time,last_status.boot_time,last_status.versions,\
    last_status.antenna_locations,last_status.metrics,last_uplink_received_at,uplink_count,\
    last_downlink_received_at,downlink_count,last_tx_acknowledgment_received_at,\
    tx_acknowledgment_count,round_trip_times,sub_bands,gateway_remote_address";

/// A gateway with every field used takes about 2 kB in the list and 3 kB in the stats.
const LIST_BYTES_MAX: u64 = 16 << 20;
const STATS_BYTES_MAX: u64 = 4 << 20;
/// With less time than this left, a request would only be cut off.
const REQUEST_TIME_MIN: Duration = Duration::from_millis(50);
/// An answer that takes longer than this is late by itself, and not for want of time.
const FAIR_TIME: Duration = Duration::from_secs(1);
/// Different warnings of a server that are logged, each once.
const WARNINGS_MAX: usize = 32;
/// The community network has three clusters. With more hosts the oldest is forgotten.
const HOSTS_MAX: usize = 64;

pub struct Client {
    transport: Transport,
    /// For one request.
    timeout: Duration,
    pub counters: Counters,
    /// Fields of an unexpected form since the last look.
    pub field_errors: FieldErrors,
    /// Hosts that must not be asked before a time, because of their rate limit.
    silenced: TtlMap<String, Instant>,
    warnings: BTreeSet<String>,
}

impl Client {
    pub fn new(transport: Transport, timeout: Duration) -> Client {
        Client {
            transport,
            timeout,
            counters: Counters::default(),
            field_errors: FieldErrors::default(),
            silenced: TtlMap::new(refusal::SILENCE_MAX, HOSTS_MAX),
            warnings: BTreeSet::new(),
        }
    }

    /// One page of a list, from 1, and how many gateways there are in all (`X-Total-Count`).
    /// `owner` is `""`, `/organizations/{id}` or `/users/{id}`.
    pub fn list(
        &mut self,
        base: &BaseUrl,
        owner: &str,
        page: usize,
        deadline: Instant,
    ) -> Result<(ListPage, Option<u64>), CallError> {
        let path = format!(
            "{owner}/gateways?field_mask={LIST_FIELDS}&order=gateway_id\
             &limit={PAGE_GATEWAYS_MAX}&page={page}"
        );
        let request = get(&path, LIST_BYTES_MAX);
        let answer = self.call(Endpoint::List, base, &request, deadline)?;
        let total = answer.number("x-total-count");
        let page = messages::gateway_list(&answer.body, &mut self.field_errors);
        let page = page.and_then(|page| {
            // No gateway at all is `{}`; anything else without gateways is somebody else's.
            let is_foreign = page.entries == 0 && total.is_none() && answer.body.len() > 4;
            let problem = || FetchError::new(Reason::Shape, "the answer is no list of gateways");
            (!is_foreign).then_some(page).ok_or_else(problem)
        });
        Ok((self.finished(base, answer, page)?, total))
    }

    /// The registration of one gateway.
    pub fn gateway(
        &mut self,
        base: &BaseUrl,
        gateway_id: &str,
        deadline: Instant,
    ) -> Result<Gateway, CallError> {
        let path = format!("/gateways/{gateway_id}?field_mask={LIST_FIELDS}");
        let request = get(&path, STATS_BYTES_MAX);
        let answer = self.call(Endpoint::Gateway, base, &request, deadline)?;
        let gateway = messages::gateway(&answer.body, &mut self.field_errors);
        self.finished(base, answer, gateway)
    }

    /// The stats of 1 to 100 gateways; those that are not connected are missing.
    pub fn stats_batch(
        &mut self,
        base: &BaseUrl,
        gateway_ids: &[&str],
        deadline: Instant,
    ) -> Result<BTreeMap<String, ConnectionStats>, CallError> {
        // Identifiers hold nothing that JSON would have to escape.
        let ids: Vec<String> = gateway_ids
            .iter()
            .map(|id| format!(r#"{{"gateway_id":"{id}"}}"#))
            .collect();
        let body = format!(
            r#"{{"gateway_ids":[{}],"field_mask":"{STATS_FIELDS}"}}"#,
            ids.join(",")
        );
        let request = Request {
            path: "/gs/gateways/connection/stats",
            body: Some(&body),
            answer_bytes_max: STATS_BYTES_MAX,
        };
        let answer = self.call(Endpoint::StatsBatch, base, &request, deadline)?;
        let entries = messages::stats_batch(&answer.body, &mut self.field_errors);
        self.finished(base, answer, entries)
    }

    /// The stats of one gateway. A gateway that is not connected is the error `not_connected`.
    pub fn stats(
        &mut self,
        base: &BaseUrl,
        gateway_id: &str,
        deadline: Instant,
    ) -> Result<ConnectionStats, CallError> {
        let path = format!("/gs/gateways/{gateway_id}/connection/stats");
        let request = get(&path, STATS_BYTES_MAX);
        let answer = self.call(Endpoint::Stats, base, &request, deadline)?;
        let stats = messages::stats(gateway_id, &answer.body, &mut self.field_errors);
        self.finished(base, answer, stats)
    }

    /// The rights of the API key, as their names.
    pub fn rights(&mut self, base: &BaseUrl, deadline: Instant) -> Result<Vec<String>, CallError> {
        let request = get("/auth_info", STATS_BYTES_MAX);
        let answer = self.call(Endpoint::AuthInfo, base, &request, deadline)?;
        let info = messages::auth_info(&answer.body);
        let rights = info.map(|info| info.rights);
        self.finished(base, answer, rights)
    }

    /// After decoding: the answer makes room for the next. An error of decoding is counted as
    /// `call` counts all others, and names the host.
    fn finished<T>(
        &mut self,
        base: &BaseUrl,
        answer: Answer,
        decoded: Result<T, FetchError>,
    ) -> Result<T, CallError> {
        self.transport.reuse(answer.body);
        decoded.map_err(|mut error| {
            self.counters.count_error(error.reason);
            error.context = format!("{}: {}", base.host, error.context);
            error.into()
        })
    }

    /// Makes one request, if the server has not asked for silence and some time is left.
    fn call(
        &mut self,
        endpoint: Endpoint,
        base: &BaseUrl,
        request: &Request<'_>,
        deadline: Instant,
    ) -> Result<Answer, CallError> {
        let start = Instant::now();
        self.check_is_possible(base, start, deadline)?;
        let result = self
            .transport
            .send(base, request, deadline.min(start + self.timeout));
        let result = result.map_err(|error| self.as_budget(error, start, deadline));
        let took = start.elapsed();
        let status = result.as_ref().ok().map(|answer| answer.status);
        self.count(endpoint, status, took);
        log::debug!("{} {base}{}: {status:?}", endpoint.label(), request.path);
        let answer = match result {
            Ok(answer) => answer,
            Err(error) => {
                self.counters.count_error(error.reason);
                return Err(error.into());
            }
        };
        self.heed(base, &answer, Instant::now());
        let refusal = refusal::of(endpoint, base, &answer);
        if let Some(refusal) = &refusal
            && !refusal.is_normal(endpoint)
        {
            self.counters.count_error(refusal.error.reason);
        }
        refusal.map_or(Ok(answer), Err)
    }

    fn check_is_possible(
        &mut self,
        base: &BaseUrl,
        now: Instant,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let until = self.silenced.get(&base.host, now);
        let error = match until.map(|until| until.saturating_duration_since(now)) {
            Some(left) if !left.is_zero() => FetchError::new(
                Reason::RateLimited,
                format!("{}: silent until its rate limit allows more", base.host),
            ),
            _ if deadline.saturating_duration_since(now) >= REQUEST_TIME_MIN => return Ok(()),
            _ => FetchError::new(
                Reason::Budget,
                format!("{}: the time of the scrape was used up", base.host),
            ),
        };
        self.counters.count_error(error.reason);
        Err(error.into())
    }

    /// A request that was cut off by a scrape in a hurry says nothing about the API.
    fn as_budget(&self, mut error: FetchError, start: Instant, deadline: Instant) -> FetchError {
        let fair = self.timeout.min(FAIR_TIME);
        if error.reason == Reason::Timeout && deadline.saturating_duration_since(start) < fair {
            error.reason = Reason::Budget;
        }
        error
    }

    fn count(&mut self, endpoint: Endpoint, status: Option<u16>, took: Duration) {
        let counters = &mut self.counters;
        *counters.requests.entry((endpoint, status)).or_default() += 1;
        counters.request_count[endpoint as usize] += 1;
        counters.request_duration[endpoint as usize] += took;
    }

    /// Follows what the server says beside its answer: its rate limit and its warnings.
    fn heed(&mut self, base: &BaseUrl, answer: &Answer, now: Instant) {
        let available = answer.number("x-rate-limit-available");
        if let (Some(limit), Some(available)) = (answer.number("x-rate-limit-limit"), available) {
            let rate_limit = RateLimit { limit, available };
            let rate_limits = &mut self.counters.rate_limits;
            if rate_limits.len() < HOSTS_MAX || rate_limits.contains_key(&base.host) {
                rate_limits.insert(base.host.clone(), rate_limit);
            }
        }
        if answer.status == 429 || available == Some(0) {
            let until = now + refusal::silence(answer);
            self.silenced.insert(base.host.clone(), until, now);
        }
        if let Some(warning) = answer.header("x-warning")
            && self.warnings.len() < WARNINGS_MAX
            && self.warnings.insert(printable(warning, 200))
        {
            log::warn!("{}: {}", base.host, printable(warning, 200));
        }
    }
}

fn get(path: &str, answer_bytes_max: u64) -> Request<'_> {
    Request {
        path,
        body: None,
        answer_bytes_max,
    }
}
