//! The API's JSON to the model, field by field: a field of unexpected form costs that field
//! of that gateway and is put down in [`FieldErrors`], nothing else. A part that means nothing
//! without the other parts (the latitude of a location) costs the whole they belong to.
//! `null` counts as absent, absent as zero or unset, as protojson has it; fields that are not
//! known are skipped. It never sees a request, a status or a header.

mod field_errors;
mod fields;
mod forms;
mod json;
mod json_stream;
mod timestamp;

#[cfg(test)]
#[path = "../../../tests/unit/decode_fields.rs"]
mod field_tests;
#[cfg(test)]
#[path = "../../../tests/unit/decode_properties.rs"]
mod properties;

use std::collections::BTreeMap;

use crate::error::FetchError;
use crate::model::{ConnectionStats, Gateway};
pub use crate::things_stack::decode::field_errors::{FieldErrors, printable};
use crate::things_stack::decode::fields::Reader;
use crate::things_stack::decode::forms::is_gateway_id;
use crate::things_stack::decode::json::Value;
use crate::things_stack::decode::json_stream::{
    each_element, each_entry, object, text, wrong_shape,
};

/// Ten times what the API puts on one page.
const MAX_GATEWAYS: usize = 10_000;
/// Ten times what the API answers for at once.
const MAX_STATS: usize = 1_000;
const MAX_ERROR_DETAILS: usize = 16;
/// The API knows about 70.
const MAX_RIGHTS: usize = 256;
const MAX_MESSAGE_CHARACTERS: usize = 200;
const MAX_ERROR_NAME_CHARACTERS: usize = 64;
/// What a gateway without any readable stats does not tell.
const ALL_THAT_COUNTS: [&str; 5] = [
    "connected_at",
    "disconnected_at",
    "uplink_count",
    "downlink_count",
    "tx_acknowledgment_count",
];

/// One page of the list.
#[derive(Debug, Default, PartialEq)]
pub struct ListPage {
    /// In the server's order. An id may come twice, where the list changed between two pages.
    pub gateways: Vec<Gateway>,
    /// How many elements the page has, those that are no gateway included: an empty page is
    /// the last one.
    pub entries: usize,
}

/// An error as the API words it (`google.rpc.Status` with `ttn.lorawan.v3.ErrorDetails`).
/// All text is cut and fit for a log line.
#[derive(Debug, Default, PartialEq)]
pub struct ApiError {
    /// The gRPC code: 5 not found, 7 permission denied, 16 unauthenticated …
    pub code: u64,
    /// Which part of the server, such as `pkg/auth/rights`; may be empty.
    pub namespace: String,
    /// Such as `no_user_rights`; may be empty.
    pub name: String,
    /// For people: at most 200 characters.
    pub message: String,
}

/// `GET /gateways`. An element without a valid id is left out.
pub fn gateway_list(body: &[u8], field_errors: &mut FieldErrors) -> Result<ListPage, FetchError> {
    let mut page = ListPage::default();
    each_element(&text(body), "gateways", |element| {
        page.entries += 1;
        if page.gateways.len() >= MAX_GATEWAYS {
            return field_errors.add("gateways", "", "too many");
        }
        page.gateways.extend(list_element(element, field_errors));
    })?;
    Ok(page)
}

/// `GET /gateways/{gateway_id}`.
pub fn gateway(body: &[u8], field_errors: &mut FieldErrors) -> Result<Gateway, FetchError> {
    let registered = Reader::gateway(object(&text(body))?.value(), field_errors);
    registered.ok_or_else(|| wrong_shape("a gateway without a gateway_id"))
}

/// `POST /gs/gateways/connection/stats`: by gateway id. Who is missing is not connected; who
/// is there in an unexpected form is there with everything `unreadable`, since that is another
/// thing.
pub fn stats_batch(
    body: &[u8],
    field_errors: &mut FieldErrors,
) -> Result<BTreeMap<String, ConnectionStats>, FetchError> {
    let mut batch = BTreeMap::new();
    each_entry(&text(body), "entries", |gateway_id, entry| {
        if !is_gateway_id(&gateway_id) || batch.contains_key(&gateway_id) {
            field_errors.add("entries", "", &gateway_id);
        } else if batch.len() >= MAX_STATS {
            field_errors.add("entries", "", "too many");
        } else if let Some(stats) = batch_entry(&gateway_id, entry, field_errors) {
            batch.insert(gateway_id, stats);
        }
    })?;
    Ok(batch)
}

/// `GET /gs/gateways/{gateway_id}/connection/stats`.
pub fn stats(
    gateway_id: &str,
    body: &[u8],
    field_errors: &mut FieldErrors,
) -> Result<ConnectionStats, FetchError> {
    let text = text(body);
    let row = object(&text)?;
    let stats = row.value();
    let has = |key| stats.get(key).is_some();
    let is_stats = has("connected_at") || has("disconnected_at") || has("protocol");
    // What something in between says of a failure would else be a gateway that is gone.
    if !is_stats && (has("error") || has("message")) {
        return Err(wrong_shape("it is a message about an error"));
    }
    Ok(Reader::stats(gateway_id, stats, field_errors))
}

/// Whose API key it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    User,
    Organization,
    Gateway,
    Other,
}

/// `AuthInfoResponse`.
#[derive(Debug, PartialEq)]
pub struct AuthInfo {
    pub kind: KeyKind,
    pub rights: Vec<String>,
    pub expires_at: Option<crate::model::Timestamp>,
}

pub fn auth_info(body: &[u8]) -> Result<AuthInfo, FetchError> {
    let rights = rights(body)?;
    Ok(AuthInfo {
        kind: KeyKind::User,
        rights,
        expires_at: None,
    })
}

/// `GET /auth_info`: the names of the rights that an API key has, of its own and by its owner's
/// role; empty where the answer is about another kind of access.
pub fn rights(body: &[u8]) -> Result<Vec<String>, FetchError> {
    let text = text(body);
    let answer = object(&text)?;
    let answer = answer.value();
    let of_key = answer.get("api_key").and_then(|key| key.get("api_key"));
    let rights = [of_key, answer.get("universal_rights")]
        .into_iter()
        .filter_map(|holder| holder?.get("rights").and_then(forms::array))
        .flat_map(Value::parts)
        .filter_map(|(_, right)| forms::text(right));
    Ok(rights.take(MAX_RIGHTS).collect())
}

/// The body of an error; `None` if it is not the API's, a page of a proxy for example.
pub fn api_error(body: &[u8]) -> Option<ApiError> {
    let text = text(body);
    let row = object(&text).ok()?;
    let body = row.value();
    let message = body.get("message").and_then(Value::as_str);
    let code = body.get("code").and_then(|code| code.as_number()?.as_u64());
    if message.is_none() && code.is_none() {
        return None;
    }
    let message = message.unwrap_or_default();
    let (namespace, name) = named_in(message).unwrap_or_default();
    let mut error = ApiError {
        code: code.unwrap_or_default(),
        namespace: printable(namespace, MAX_ERROR_NAME_CHARACTERS),
        name: printable(name, MAX_ERROR_NAME_CHARACTERS),
        message: printable(message, MAX_MESSAGE_CHARACTERS),
    };
    if let Some(detail) = error_detail(body) {
        let word = |key| detail.get(key).and_then(Value::as_str).unwrap_or_default();
        error.namespace = printable(word("namespace"), MAX_ERROR_NAME_CHARACTERS);
        error.name = printable(word("name"), MAX_ERROR_NAME_CHARACTERS);
    }
    Some(error)
}

fn list_element(element: Value<'_>, field_errors: &mut FieldErrors) -> Option<Gateway> {
    if !element.is_object() {
        field_errors.add("gateways", "", element);
        return None;
    }
    Reader::gateway(element, field_errors)
}

fn batch_entry(
    gateway_id: &str,
    entry: Value<'_>,
    field_errors: &mut FieldErrors,
) -> Option<ConnectionStats> {
    if entry.is_null() {
        return None;
    }
    if entry.is_object() {
        return Some(Reader::stats(gateway_id, entry, field_errors));
    }
    field_errors.add("entries", gateway_id, entry);
    let unreadable = ALL_THAT_COUNTS.to_vec();
    Some(ConnectionStats {
        unreadable,
        ..ConnectionStats::default()
    })
}

/// `error:pkg/auth/rights:no_user_rights (no rights for …)`: namespace and name.
fn named_in(message: &str) -> Option<(&str, &str)> {
    let (identifier, _) = message.strip_prefix("error:")?.split_once(' ')?;
    identifier.split_once(':')
}

/// The first of the details that names the error; others carry what caused it.
fn error_detail(body: Value<'_>) -> Option<Value<'_>> {
    let details = body.get("details").and_then(forms::array)?;
    let mut details = details.parts().take(MAX_ERROR_DETAILS).map(|part| part.1);
    details.find(|detail| detail.get("name").is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Reason;
    use crate::things_stack::decode::field_errors::Fault;

    /// Each fault as `field count×found`.
    pub(super) fn lines(field_errors: &FieldErrors) -> Vec<String> {
        let line = |f: &Fault| format!("{} {}×{}", f.field, f.count, f.found);
        field_errors.iter().map(line).collect()
    }

    /// A list: the ids that were read, how many elements there were, and the field_errors.
    #[track_caller]
    fn check_list(body: &str, ids: &[&str], entries: usize, expected_faults: &[&str]) {
        let mut field_errors = FieldErrors::default();
        let page = gateway_list(body.as_bytes(), &mut field_errors).expect("a list");
        let found: Vec<&str> = page
            .gateways
            .iter()
            .map(|g| g.gateway_id.as_str())
            .collect();
        assert_eq!(found, ids, "{body}");
        assert_eq!(page.entries, entries, "{body}");
        assert_eq!(lines(&field_errors), expected_faults, "{body}");
    }

    #[track_caller]
    fn check_error(body: &str, expected: Option<(u64, &str, &str, &str)>) {
        let expected = expected.map(|(code, namespace, name, message)| ApiError {
            code,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            message: message.to_owned(),
        });
        assert_eq!(api_error(body.as_bytes()), expected, "{body}");
    }

    #[test]
    fn a_list_leaves_out_what_is_no_gateway_and_counts_it() {
        check_list("{}", &[], 0, &[]);
        check_list(r#"{"gateways":[]}"#, &[], 0, &[]);
        let body = r#"{"gateways":[{"ids":{"gateway_id":"gw-1","eui":"58A0CBFFFE800102"}},7,null,
            {"ids":{"gateway_id":"GW 2"}},{"ids":[]},{},{"ids":{"gateway_id":"gw-3","eui":1}},
            {"ids":{"gateway_id":"gw-4"},"name":1e999}],"total":3}"#;
        let field_errors = [
            "gateways 2×7",
            "ids 1×[]",
            "ids.eui 1×1",
            "ids.gateway_id 2×\"GW 2\"",
            "name 1×false",
        ];
        check_list(body, &["gw-1", "gw-3", "gw-4"], 8, &field_errors);
        let mut field_errors = FieldErrors::default();
        let many = vec![r#"{"ids":{"gateway_id":"gw-1"}}"#; MAX_GATEWAYS + 2].join(",");
        let page = gateway_list(
            format!("{{\"gateways\":[{many}]}}").as_bytes(),
            &mut field_errors,
        );
        let page = page.expect("a list");
        assert_eq!(
            (page.gateways.len(), page.entries),
            (MAX_GATEWAYS, MAX_GATEWAYS + 2)
        );
        assert_eq!(lines(&field_errors), ["gateways 2×\"too many\""]);
    }

    #[test]
    fn a_batch_tells_a_gateway_that_is_missing_from_one_that_cannot_be_read() {
        let mut field_errors = FieldErrors::default();
        let body = br#"{"entries":{"gw-1":{"uplink_count":"5"},"gw-2":null,"gw-3":[],"GW 4":{},
            "gw-1":{"uplink_count":"6"},"gw-5":{"disconnected_at":"?"}}}"#;
        let batch = stats_batch(body, &mut field_errors).expect("a batch");
        let found: Vec<_> = batch
            .iter()
            .map(|(id, s)| (id.as_str(), s.uplink_count, s.tells_state()))
            .collect();
        assert_eq!(
            found,
            [("gw-1", 5, true), ("gw-3", 0, false), ("gw-5", 0, false)]
        );
        assert!(batch["gw-1"].is_readable("uplink_count"));
        assert!(!batch["gw-3"].is_readable("uplink_count"));
        assert_eq!(
            lines(&field_errors),
            ["disconnected_at 1×\"?\"", "entries 3×[]"]
        );
        assert_eq!(stats_batch(b"{}", &mut field_errors), Ok(BTreeMap::new()));
    }

    #[test]
    fn what_is_no_answer_of_the_api_is_told_by_its_reason() {
        let field_errors = &mut FieldErrors::default();
        for (body, reason) in [
            ("<html>", Reason::NotJson),
            ("", Reason::NotJson),
            ("{\"ids\":{\"gateway_id\":", Reason::NotJson),
            ("[]", Reason::Shape),
            ("{\"error\":\"proxy\"}", Reason::Shape),
            ("{\"code\":5,\"message\":\"no\"}", Reason::Shape),
        ] {
            let reasons = [
                gateway_list(body.as_bytes(), field_errors).err(),
                gateway(body.as_bytes(), field_errors).err(),
                stats_batch(body.as_bytes(), field_errors).err(),
                stats("gw-1", body.as_bytes(), field_errors).err(),
            ];
            let reasons = reasons.map(|e| e.map(|e| e.reason));
            assert_eq!(reasons, [Some(reason); 4], "{body}");
        }
        let nameless = gateway(b"{\"ids\":{}}", field_errors).expect_err("no id");
        assert_eq!(nameless.reason, Reason::Shape);
    }

    #[test]
    fn rights_are_those_of_the_key_and_of_its_owner() {
        let body = br#"{"api_key":{"api_key":{"id":"X","rights":["RIGHT_GATEWAY_INFO",7]}},
            "universal_rights":{"rights":["RIGHT_SEND_INVITES"]},"is_admin":true}"#;
        let both = ["RIGHT_GATEWAY_INFO", "RIGHT_SEND_INVITES"].map(str::to_owned);
        assert_eq!(rights(body), Ok(both.to_vec()));
        assert_eq!(rights(br#"{"api_key":{"rights":"all"}}"#), Ok(Vec::new()));
        assert!(rights(b"<html>").is_err());
    }

    #[test]
    fn errors_of_the_api_are_read_from_details_or_from_the_message() {
        let message = "error:pkg/auth/rights:no_user_rights (no rights for user `x`)";
        check_error(
            r#"{"code":7,"message":"error:pkg/auth/rights:no_user_rights (no rights for user `x`)",
            "details":[{"@type":"type.googleapis.com/ttn.lorawan.v3.ErrorDetails",
            "namespace":"pkg/auth/rights","name":"no_user_rights","code":7}]}"#,
            Some((7, "pkg/auth/rights", "no_user_rights", message)),
        );
        let short = "error:pkg/gatewayserver:not_connected (gateway `gw-1` not connected)";
        check_error(
            &format!("{{\"code\":5,\"message\":{short:?},\"details\":[{{\"@type\":\"x\"}},7]}}"),
            Some((5, "pkg/gatewayserver", "not_connected", short)),
        );
        check_error(r#"{"code":12}"#, Some((12, "", "", "")));
        check_error(
            r#"{"message":"a\r\nb\u001b[2J"}"#,
            Some((0, "", "", "a\u{fffd}\u{fffd}b\u{fffd}[2J")),
        );
        let long = format!("{{\"message\":\"{}\"}}", "é".repeat(300));
        check_error(&long, Some((0, "", "", &format!("{}…", "é".repeat(200)))));
        for body in [
            "",
            "<html>",
            "{}",
            "[]",
            "null",
            "{\"code\":\"7\"}",
            "{\"message\":1}",
        ] {
            check_error(body, None);
        }
    }
}
