//! The rules of the API: a request and a fleet become the answer of the true server
//! (lorawan-stack 3.32): rights, paging, field masks, all-or-nothing batches, error bodies.
//!
//! Pure but for the time that is passed in. No connection and no misbehaviour: the answers
//! here are honest.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::fleet::{Fleet, Gateway, Holder, Key};
use super::wire::{Answer, Request};

/// Which call a request is: what misbehaviour is scripted for, and what tests count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    List,
    Gateway,
    StatsBatch,
    Stats,
    AuthInfo,
    Other,
}

/// One cluster: which gateways it has and whether it lists.
#[derive(Clone, Debug)]
pub struct Site {
    /// As gateways name it in `gateway_server_address`.
    pub host: String,
    /// Has the Identity Server, and the gateways that name no host.
    pub is_home: bool,
}

const PREFIX: &str = "/api/v3/";
/// What the list returns whatever the field mask says.
const ALWAYS_LISTED: [&str; 3] = ["ids", "created_at", "updated_at"];
const REGISTRATION_FIELDS: [&str; 13] = [
    "ids",
    "created_at",
    "updated_at",
    "name",
    "description",
    "frequency_plan_id",
    "frequency_plan_ids",
    "status_public",
    "location_public",
    "gateway_server_address",
    "antennas",
    "attributes",
    "version_ids",
];
/// What a registration shows to those who have no right to see it, some of it only if public: all
/// but the last two.
const PUBLIC_FIELDS: &[&str] = REGISTRATION_FIELDS.split_at(11).0;
/// The first two are unknown to servers before 3.25.2.
const STATS_FIELDS: [&str; 14] = [
    "last_tx_acknowledgment_received_at",
    "tx_acknowledgment_count",
    "connected_at",
    "disconnected_at",
    "protocol",
    "last_status_received_at",
    "last_status",
    "last_uplink_received_at",
    "uplink_count",
    "last_downlink_received_at",
    "downlink_count",
    "round_trip_times",
    "sub_bands",
    "gateway_remote_address",
];
/// The server refuses a larger limit.
const LIST_LIMIT_MAX: usize = 1000;

pub fn endpoint(request: &Request) -> Endpoint {
    let path = request.path().strip_prefix(PREFIX).unwrap_or_default();
    let segments: Vec<&str> = path.split('/').collect();
    match (request.method.as_str(), segments.as_slice()) {
        ("GET", ["gateways"] | ["organizations" | "users", _, "gateways"]) => Endpoint::List,
        ("GET", ["gateways", _]) => Endpoint::Gateway,
        ("POST", ["gs", "gateways", "connection", "stats"]) => Endpoint::StatsBatch,
        ("GET", ["gs", "gateways", _, "connection", "stats"]) => Endpoint::Stats,
        ("GET", ["auth_info"]) => Endpoint::AuthInfo,
        _ => Endpoint::Other,
    }
}

/// The honest answer at `now`, in seconds since the epoch.
pub fn answer(fleet: &Fleet, site: &Site, request: &Request, now: i64) -> Answer {
    let endpoint = endpoint(request);
    if endpoint == Endpoint::Other {
        return error(404, 5, "routing", "not_found", "Not Found");
    }
    let of_gateway_server = matches!(endpoint, Endpoint::Stats | Endpoint::StatsBatch);
    if !of_gateway_server && !site.is_home {
        let message = "unknown service ttn.lorawan.v3.GatewayRegistry";
        return error(501, 12, "", "", message);
    }
    if endpoint == Endpoint::List && request.header("Authorization").is_none() {
        return list_of_nobody();
    }
    let key = match key_of(fleet, request) {
        Ok(key) => key,
        Err(refusal) => return refusal,
    };
    match endpoint {
        Endpoint::List => list(fleet, key, request),
        Endpoint::Gateway => one_gateway(fleet, key, request),
        Endpoint::StatsBatch => stats_of_many(fleet, site, key, request, now),
        Endpoint::Stats => stats_of_one(fleet, site, key, request, now),
        Endpoint::AuthInfo => auth_info(key),
        Endpoint::Other => unreachable!("answered above"),
    }
}

fn key_of<'a>(fleet: &'a Fleet, request: &Request) -> Result<&'a Key, Answer> {
    let header = request.header("Authorization").unwrap_or_default();
    let Some(token) = header.strip_prefix("Bearer ") else {
        let message = "no authentication provided";
        return Err(error(401, 16, "pkg/auth", "unauthenticated", message));
    };
    let parts: Vec<&str> = token.split('.').collect();
    if !matches!(parts[..], ["NNSXS", id, secret] if !id.is_empty() && !secret.is_empty()) {
        return Err(error(400, 3, "pkg/auth", "token", "invalid token"));
    }
    match fleet.key(token) {
        None => Err(identity_error(
            401,
            16,
            "api_key_not_found",
            "API key not found",
        )),
        Some(key) if key.is_expired => Err(identity_error(
            401,
            16,
            "api_key_expired",
            "API key expired",
        )),
        Some(key) => Ok(key),
    }
}

fn list(fleet: &Fleet, key: &Key, request: &Request) -> Answer {
    if let Holder::Gateway(_) | Holder::Application(_) = key.holder {
        return list_of_nobody();
    }
    let owner = match owner_in_path(request) {
        Some(owner) if !may_list_of(key, &owner) => {
            return rights_error("no_user_rights", "no rights for this user or organization");
        }
        owner => owner.or_else(|| own_gateways(key)),
    };
    if !key.may_list {
        return rights_error("no_user_rights", "no rights to list the gateways");
    }
    let limit = number(request, "limit").unwrap_or(fleet.page_size);
    if limit > LIST_LIMIT_MAX {
        return error(
            400,
            3,
            "",
            "",
            "invalid `limit`: value must be less than or equal to 1000",
        );
    }
    let limit = if limit == 0 { fleet.page_size } else { limit };
    let limit = limit.min(fleet.page_size_max);
    let page = number(request, "page").unwrap_or(1).max(1);
    let mut gateways: Vec<&Gateway> = fleet.gateways.iter().collect();
    gateways.retain(|gateway| owner.as_deref().is_none_or(|owner| gateway.owner == owner));
    match request.query("order").as_deref() {
        Some("gateway_id") => gateways.sort_by(|a, b| a.id.cmp(&b.id)),
        Some("-gateway_id") => gateways.sort_by(|a, b| b.id.cmp(&a.id)),
        _ => {}
    }
    let mask = match known_mask(request.query("field_mask"), &REGISTRATION_FIELDS) {
        Ok(mask) => mask,
        Err(refusal) => return refusal,
    };
    let shown = gateways.iter().skip((page - 1) * limit).take(limit);
    let shown: Vec<Value> = shown
        .map(|g| registration(g, &mask, g.is_redacted))
        .collect();
    let body = if shown.is_empty() {
        json!({})
    } else {
        json!({ "gateways": shown })
    };
    Answer::json(200, body.to_string()).with_header("X-Total-Count", gateways.len())
}

/// A caller that is no user and no organization is told nothing, not even that.
fn list_of_nobody() -> Answer {
    Answer::json(200, "{}")
}

/// `organization:ID` or `user:ID` where the path names one.
fn owner_in_path(request: &Request) -> Option<String> {
    let path = request.path().strip_prefix(PREFIX)?;
    let (kind, rest) = path.split_once("s/")?;
    let id = rest.strip_suffix("/gateways")?;
    Some(format!("{kind}:{id}"))
}

/// A user's key sees what the user shares through organizations as well.
fn own_gateways(key: &Key) -> Option<String> {
    match &key.holder {
        Holder::Organization(id) => Some(format!("organization:{id}")),
        _ => None,
    }
}

fn may_list_of(key: &Key, owner: &str) -> bool {
    match &key.holder {
        Holder::User(id) => *owner == format!("user:{id}") || owner.starts_with("organization:"),
        Holder::Organization(id) => *owner == format!("organization:{id}"),
        Holder::Gateway(_) | Holder::Application(_) => false,
    }
}

fn registration(gateway: &Gateway, mask: &[String], is_redacted: bool) -> Value {
    let always = ALWAYS_LISTED.into_iter().map(str::to_owned);
    let paths: Vec<String> = always.chain(mask.iter().cloned()).collect();
    let mut listed = gateway.listed();
    if let (true, Value::Object(fields)) = (is_redacted, &mut listed) {
        let (status, location) = (is_public(fields, "status"), is_public(fields, "location"));
        fields.retain(|name, _| match name.as_str() {
            "gateway_server_address" => status,
            "antennas" => location,
            _ => PUBLIC_FIELDS.contains(&name.as_str()),
        });
    }
    masked(&listed, &paths)
}

/// `status_public` and `location_public` of a registration.
fn is_public(registration: &Map<String, Value>, what: &str) -> bool {
    registration.get(&format!("{what}_public")) == Some(&Value::Bool(true))
}

fn one_gateway(fleet: &Fleet, key: &Key, request: &Request) -> Answer {
    let id = request.path().rsplit('/').next().unwrap_or_default();
    let Some(gateway) = fleet.gateway(id) else {
        return no_gateway_rights(id);
    };
    let mask = match known_mask(request.query("field_mask"), &REGISTRATION_FIELDS) {
        Ok(mask) => mask,
        Err(refusal) => return refusal,
    };
    let is_foreign = matches!(&key.holder, Holder::Gateway(own) if own != id)
        || matches!(key.holder, Holder::Application(_));
    let is_hidden = is_foreign || gateway.is_redacted || key.no_info_of.contains(id);
    let asks_for_more = mask
        .iter()
        .any(|path| !PUBLIC_FIELDS.contains(&path.split('.').next().unwrap_or(path)));
    if is_hidden && asks_for_more {
        return no_gateway_rights(id);
    }
    Answer::json(200, registration(gateway, &mask, is_hidden).to_string())
}

fn stats_of_many(fleet: &Fleet, site: &Site, key: &Key, request: &Request, now: i64) -> Answer {
    let Ok(body) = serde_json::from_slice::<Value>(&request.body) else {
        return error(400, 3, "", "", "invalid character in the body");
    };
    let ids = body["gateway_ids"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let ids: Vec<&str> = ids
        .iter()
        .filter_map(|id| id["gateway_id"].as_str())
        .collect();
    if ids.is_empty() || ids.len() > fleet.batch_size_max {
        let most = fleet.batch_size_max;
        let message = format!("invalid `gateway_ids`: value must contain 1 to {most} items");
        return error(400, 3, "", "", &message);
    }
    let mask = match stats_mask(fleet, body["field_mask"].as_str().map(str::to_owned)) {
        Ok(mask) => mask,
        Err(refusal) => return refusal,
    };
    let is_gateway_key = matches!(key.holder, Holder::Gateway(_));
    let may_read = |id: &&str| {
        fleet.gateway(id).is_some_and(|gateway| {
            let registration = &gateway.registration;
            let is_open = is_public(registration, "status") && is_public(registration, "location");
            may_read_stats(key, id) || is_open
        })
    };
    if is_gateway_key || !ids.iter().all(may_read) {
        return rights_error(
            "insufficient_rights",
            "insufficient rights for the gateways",
        );
    }
    let mut entries = Map::new();
    for id in ids {
        let gateway = fleet.gateway(id);
        if let Some(stats) = gateway.and_then(|gateway| stats_at(site, gateway, now)) {
            entries.insert(id.to_owned(), masked(&stats, &mask));
        }
    }
    let body = if entries.is_empty() {
        json!({})
    } else {
        json!({ "entries": entries })
    };
    Answer::json(200, body.to_string())
}

fn stats_of_one(fleet: &Fleet, site: &Site, key: &Key, request: &Request, now: i64) -> Answer {
    let id = request.path().rsplit('/').nth(2).unwrap_or_default();
    let mask = match stats_mask(fleet, request.query("field_mask")) {
        Ok(mask) => mask,
        Err(refusal) => return refusal,
    };
    let gateway = fleet
        .gateway(id)
        .filter(|gateway| may_read_stats(key, id) || is_public(&gateway.registration, "status"));
    let Some(gateway) = gateway else {
        return no_gateway_rights(id);
    };
    match stats_at(site, gateway, now) {
        Some(stats) => Answer::json(200, masked(&stats, &mask).to_string()),
        None => {
            let message = format!("gateway `{id}` is not connected");
            error(404, 5, "pkg/gatewayserver", "not_connected", &message)
        }
    }
}

/// RIGHT_GATEWAY_STATUS_READ.
fn may_read_stats(key: &Key, id: &str) -> bool {
    let is_foreign = match &key.holder {
        Holder::Gateway(own) => own != id,
        Holder::Application(_) => true,
        Holder::User(_) | Holder::Organization(_) => false,
    };
    !is_foreign && key.may_read_stats && !key.blind_for.contains(id)
}

/// What this cluster has of the gateway's connection.
fn stats_at(site: &Site, gateway: &Gateway, now: i64) -> Option<Value> {
    let host = gateway.cluster_host();
    match host == site.host || (host.is_empty() && site.is_home) {
        true => gateway.stats_at(now),
        false => gateway.left_behind.get(&site.host).cloned(),
    }
}

fn auth_info(key: &Key) -> Answer {
    let ids = match &key.holder {
        Holder::User(id) => json!({ "user_ids": { "user_id": id } }),
        Holder::Organization(id) => json!({ "organization_ids": { "organization_id": id } }),
        Holder::Gateway(id) => json!({ "gateway_ids": { "gateway_id": id } }),
        Holder::Application(id) => json!({ "application_ids": { "application_id": id } }),
    };
    let mut rights = vec!["RIGHT_GATEWAY_INFO"];
    match &key.holder {
        Holder::User(_) if key.may_list => rights.push("RIGHT_USER_GATEWAYS_LIST"),
        Holder::Organization(_) if key.may_list => rights.push("RIGHT_ORGANIZATION_GATEWAYS_LIST"),
        _ => {}
    }
    if key.may_read_stats {
        rights.push("RIGHT_GATEWAY_STATUS_READ");
    }
    let id = key.token.split('.').nth(1).unwrap_or_default();
    let mut inner = json!({ "id": id, "rights": rights });
    if let Some(expires_at) = &key.expires_at {
        inner["expires_at"] = json!(expires_at);
    }
    let api_key = json!({ "api_key": inner, "entity_ids": ids });
    Answer::json(200, json!({ "api_key": api_key }).to_string())
}

fn number(request: &Request, name: &str) -> Option<usize> {
    request.query(name)?.parse().ok()
}

/// The paths of a field mask: none for an absent one.
fn mask_of(text: Option<String>) -> Vec<String> {
    let text = text.unwrap_or_default();
    let paths = text
        .split(',')
        .map(str::trim)
        .filter(|path| !path.is_empty());
    paths.map(str::to_owned).collect()
}

/// A mask of these fields, or the refusal of a server that does not know all of them.
fn known_mask(text: Option<String>, known: &[&str]) -> Result<Vec<String>, Answer> {
    let mask = mask_of(text);
    let is_unknown = |path: &&String| !known.contains(&path.split('.').next().unwrap_or(path));
    match mask.iter().find(is_unknown) {
        None => Ok(mask),
        Some(path) => {
            let message = format!("forbidden path(s) in field mask: `{path}`");
            let namespace = "pkg/rpcmiddleware/validator";
            Err(error(400, 3, namespace, "field_mask_paths", &message))
        }
    }
}

fn stats_mask(fleet: &Fleet, text: Option<String>) -> Result<Vec<String>, Answer> {
    let (newer, older) = STATS_FIELDS.split_at(2);
    match fleet.is_old {
        true => known_mask(text, older),
        false => known_mask(text, &[newer, older].concat()),
    }
}

/// The value with these dotted paths alone; with all of it for an empty mask or a value that
/// is no object (a scripted wrong shape).
fn masked(value: &Value, paths: &[String]) -> Value {
    let Value::Object(fields) = value else {
        return value.clone();
    };
    if paths.is_empty() {
        return value.clone();
    }
    let mut kept = Map::new();
    let names: BTreeSet<&str> = paths.iter().filter_map(|p| p.split('.').next()).collect();
    for name in names {
        let Some(field) = fields.get(name) else {
            continue;
        };
        let is_whole = paths.iter().any(|path| path == name);
        let below = paths
            .iter()
            .filter_map(|path| path.strip_prefix(name)?.strip_prefix('.'));
        let below: Vec<String> = below.map(str::to_owned).collect();
        let field = if is_whole {
            field.clone()
        } else {
            masked(field, &below)
        };
        kept.insert(name.to_owned(), field);
    }
    Value::Object(kept)
}

/// A gateway that does not exist, or no longer, is refused in the same words.
fn no_gateway_rights(id: &str) -> Answer {
    let message = format!("no rights for gateway `{id}`");
    rights_error("no_gateway_rights", &message)
}

fn identity_error(status: u16, code: u16, name: &str, message: &str) -> Answer {
    error(status, code, "pkg/identityserver", name, message)
}

fn rights_error(name: &str, message: &str) -> Answer {
    error(403, 7, "pkg/auth/rights", name, message)
}

/// The body of an error of the API: a gRPC code, a message and its details.
pub fn error(status: u16, code: u16, namespace: &str, name: &str, message: &str) -> Answer {
    let named = format!("error:{namespace}:{name} ({message})");
    let message = if name.is_empty() {
        message.to_owned()
    } else {
        named
    };
    let details = json!([{
        "@type": "type.googleapis.com/ttn.lorawan.v3.ErrorDetails",
        "namespace": namespace,
        "name": name,
        "message_format": message,
        "correlation_id": "5f1e2d3c4b5a69788796a5b4c3d2e1f0",
        "code": code,
    }]);
    let body = json!({ "code": code, "message": message, "details": details });
    Answer::json(status, body.to_string())
}
