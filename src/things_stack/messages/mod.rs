//! The API's JSON to the model, field by field: a field of unexpected form costs that field
//! of that gateway and is counted in [`FieldErrors`], nothing else. A part that means nothing
//! without the other parts (the latitude of a location) costs the whole they belong to.
//! `null` counts as absent, absent as zero or unset, as protojson has it; fields that are not
//! known are skipped. It never sees a request, a status or a header.

mod answer;
mod field_errors;
mod fields;
mod forms;
mod json;
mod key_info;

#[cfg(test)]
#[path = "../../../tests/unit/decode_fields.rs"]
mod field_tests;
#[cfg(test)]
#[path = "../../../tests/unit/decode_properties.rs"]
mod properties;

use std::collections::BTreeMap;

use crate::error::FetchError;
use crate::model::{ConnectionStats, Gateway};
use crate::things_stack::messages::answer::{MEMBER, WHOLE, object, payload, text, wrong_shape};
pub use crate::things_stack::messages::field_errors::{FieldErrors, printable};
use crate::things_stack::messages::fields::Reader;
use crate::things_stack::messages::forms::is_gateway_id;
use crate::things_stack::messages::json::Value;
pub use crate::things_stack::messages::key_info::key_info;

/// Ten times what the API puts on one page.
const MAX_GATEWAYS: usize = 10_000;
/// Ten times what the API answers for at once.
const MAX_STATS: usize = 1_000;

/// One page of the list.
#[derive(Debug, Default, PartialEq)]
pub struct ListPage {
    /// In the server's order. An id may come twice, where the list changed between two pages.
    pub gateways: Vec<Gateway>,
    /// How many elements the page has, those that are no gateway included: an empty page is
    /// the last one.
    pub entries: usize,
}

/// An error as the API words it (`google.rpc.Status`).
/// All text is cut and fit for a log line.
#[derive(Debug, Default, PartialEq)]
pub struct ApiError {
    /// Such as `no_user_rights`; may be empty.
    pub name: String,
    /// For people: at most 200 characters.
    pub message: String,
}

/// `GET /gateways`. An element without a valid id is left out. An object without `gateways` is
/// an answer of the API only if it is empty.
pub fn gateway_list(body: &[u8], field_errors: &mut FieldErrors) -> Result<ListPage, FetchError> {
    let text = text(body);
    let answer = object(&text, MEMBER)?;
    let list = payload(answer.value(), "gateways", Value::as_array)?;
    let mut page = ListPage::default();
    for element in list.elements() {
        page.entries += 1;
        if element.as_object().is_none() {
            field_errors.add("gateways", "", element);
        } else if page.gateways.len() >= MAX_GATEWAYS {
            field_errors.add("gateways", "", "too many");
        } else {
            page.gateways.extend(Reader::gateway(element, field_errors));
        }
    }
    Ok(page)
}

/// `GET /gateways/{gateway_id}`.
pub fn gateway(body: &[u8], field_errors: &mut FieldErrors) -> Result<Gateway, FetchError> {
    let registered = Reader::gateway(object(&text(body), WHOLE)?.value(), field_errors);
    registered.ok_or_else(|| wrong_shape("a gateway without a gateway_id"))
}

/// `POST /gs/gateways/connection/stats`: by gateway id. A gateway that is missing is not
/// connected; one with stats of an unexpected form is there with stats that do not tell its state.
/// An object without `entries` is an answer of the API only if it is empty, and one whose entries are
/// all of gateways that were not asked for is the answer to somebody else.
pub fn stats_batch(
    gateway_ids: &[&str],
    body: &[u8],
    field_errors: &mut FieldErrors,
) -> Result<BTreeMap<String, ConnectionStats>, FetchError> {
    let text = text(body);
    let answer = object(&text, MEMBER)?;
    let entries = payload(answer.value(), "entries", Value::as_object)?;
    let mut ids = entries.members().map(|(id, _)| id).peekable();
    if ids.peek().is_some() && !ids.any(|id| gateway_ids.contains(&id)) {
        return Err(wrong_shape("no entry of a gateway that was asked for"));
    }
    let mut batch = BTreeMap::new();
    for (gateway_id, entry) in entries.members() {
        if !is_gateway_id(gateway_id) || batch.contains_key(gateway_id) {
            field_errors.add("entries", "", gateway_id);
        } else if batch.len() >= MAX_STATS {
            field_errors.add("entries", "", "too many");
        } else {
            let stats = Reader::stats(gateway_id, entry, field_errors).unwrap_or_else(|| {
                field_errors.add("entries", gateway_id, entry);
                ConnectionStats::default()
            });
            batch.insert(gateway_id.to_owned(), stats);
        }
    }
    Ok(batch)
}

/// `GET /gs/gateways/{gateway_id}/connection/stats`.
pub fn stats(
    gateway_id: &str,
    body: &[u8],
    field_errors: &mut FieldErrors,
) -> Result<ConnectionStats, FetchError> {
    let text = text(body);
    let answer = object(&text, WHOLE)?;
    let stats = Reader::stats(gateway_id, answer.value(), field_errors);
    stats.ok_or_else(|| wrong_shape("neither connected_at nor disconnected_at"))
}

/// The body of an error; `None` if it is not the API's: a proxy has pages and JSON of its own.
pub fn api_error(body: &[u8]) -> Option<ApiError> {
    let text = text(body);
    let answer = object(&text, WHOLE).ok()?;
    let code = answer.value().get("code").as_number()?.as_u64()?;
    let message = answer.value().get("message").as_str()?;
    // That of the first of the details with a name; the others are its causes.
    let mut details = answer.value().get("details").elements();
    let name = named_in(message).or_else(|| details.find_map(|detail| detail.get("name").as_str()));
    // Those of errors (`google.rpc.Code`).
    (1..=16).contains(&code).then(|| ApiError {
        name: printable(name.unwrap_or_default(), 64),
        message: printable(message, 200),
    })
}

/// The name in `error:pkg/auth/rights:no_user_rights (no rights for …)`.
fn named_in(message: &str) -> Option<&str> {
    let (identifier, _) = message.strip_prefix("error:")?.split_once(' ')?;
    Some(identifier.split_once(':')?.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Reason;
    use crate::things_stack::messages::field_errors::FieldError;

    /// Each field error as `field count×found`.
    pub(super) fn lines(field_errors: &FieldErrors) -> Vec<String> {
        let line = |f: &FieldError| format!("{} {}×{}", f.field, f.count, f.found);
        field_errors.iter().map(line).collect()
    }

    /// A list: the ids that were read, how many elements there were, and the field_errors.
    #[track_caller]
    fn check_list(body: &str, ids: &[&str], entries: usize, expected_errors: &[&str]) {
        let mut field_errors = FieldErrors::default();
        let page = gateway_list(body.as_bytes(), &mut field_errors).expect("a list");
        let found: Vec<&str> = page
            .gateways
            .iter()
            .map(|g| g.gateway_id.as_str())
            .collect();
        assert_eq!(found, ids, "{body}");
        assert_eq!(page.entries, entries, "{body}");
        assert_eq!(lines(&field_errors), expected_errors, "{body}");
    }

    /// The name and the message.
    #[track_caller]
    fn check_error(body: &str, expected: Option<(&str, &str)>) {
        let expected = expected.map(|(name, message)| ApiError {
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
            "gateways 3×7",
            "ids 1×[]",
            "ids.eui 1×1",
            "ids.gateway_id 2×\"GW 2\"",
        ];
        check_list(body, &["gw-1", "gw-3"], 8, &field_errors);
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
        let body =
            br#"{"entries":{"gw-1":{"connected_at":"2026-01-02T03:04:05Z","uplink_count":"5"},
            "gw-2":null,"gw-3":[],"GW 4":{},
            "gw-1":{"uplink_count":"6"},"gw-5":{"disconnected_at":"?","protocol":"udp"},
            "gw-6":{},"gw-7":{"protocol":"http","status":"x"},
            "gw-8":{"connected_at":"2026-01-02T03:04:05Z","uplink_count":1e999}}}"#;
        let batch = stats_batch(&["gw-1"], body, &mut field_errors).expect("a batch");
        let found: Vec<_> = batch
            .iter()
            .map(|(id, s)| (id.as_str(), s.uplink_count, s.tells_state))
            .collect();
        assert_eq!(
            found,
            [
                ("gw-1", Some(5), true),
                ("gw-2", None, false),
                ("gw-3", None, false),
                ("gw-5", Some(0), false),
                ("gw-6", None, false),
                ("gw-7", None, false),
                ("gw-8", None, false)
            ]
        );
        assert!(batch["gw-1"].uplink_count.is_some());
        assert_eq!(
            lines(&field_errors),
            ["disconnected_at 1×\"?\"", "entries 7×null"]
        );
        let empty = stats_batch(&["gw-1"], b"{}", &mut field_errors);
        assert_eq!(empty, Ok(BTreeMap::new()));
    }

    /// Why the body is no list, registration, batch or stats; `None` where it is one.
    #[track_caller]
    fn check_reasons(body: &str, expected: [Option<Reason>; 4]) {
        let field_errors = &mut FieldErrors::default();
        let reasons = [
            gateway_list(body.as_bytes(), field_errors).err(),
            gateway(body.as_bytes(), field_errors).err(),
            stats_batch(&["gw-1", "other"], body.as_bytes(), field_errors).err(),
            stats("gw-1", body.as_bytes(), field_errors).err(),
        ];
        assert_eq!(reasons.map(|e| e.map(|e| e.reason)), expected, "{body}");
    }

    #[test]
    fn text_that_is_no_json_is_told_from_json_of_somebody_else() {
        for body in ["<html>", "", "{\"ids\":{\"gateway_id\":", "{} {}"] {
            check_reasons(body, [Some(Reason::NotJson); 4]);
        }
        for body in [
            "[]",
            "null",
            r#""ok""#,
            "true",
            "503",
            r#"{"error":"proxy"}"#,
            r#"{"status":"maintenance"}"#,
            r#"{"detail":"upstream","status":503}"#,
            r#"{"code":503}"#,
            r#"{"code":5,"message":"no"}"#,
            r#"{"message":null}"#,
            r#"{"entries":null}"#,
            r#"{"entries":[]}"#,
            r#"{"entries":"gw-1"}"#,
            r#"{"gateways":null}"#,
            r#"{"gateways":{}}"#,
            r#"{"gateways":"none","total":0}"#,
            r#"{"protocol":"http","status":503}"#,
            r#"{"uplink_count":"0"}"#,
            r#"{"gateways":[],"entries":{},"code":14,"message":"no"}"#,
            r#"{"error":"no","gateways":[],"entries":{}}"#,
            r#"{"protocol":{"name":"h2"},"connected_at":null}"#,
            r#"{"ids":{}}"#,
            r#"{"ids":{"gateway_id":7}}"#,
            r#"{"entries":{"gw-9":{"connected_at":"2026-01-02T03:04:05Z"}}}"#,
            r#"{"entries":{"GW-1":null}}"#,
        ] {
            check_reasons(body, [Some(Reason::Shape); 4]);
        }
    }

    #[test]
    fn only_what_the_api_can_have_sent_is_an_answer() {
        let shape = Some(Reason::Shape);
        check_reasons("{}", [None, shape, None, shape]);
        check_reasons(" {\n} ", [None, shape, None, shape]);
        check_reasons(r#"{"entries":{}}"#, [shape, shape, None, shape]);
        check_reasons(
            r#"{"x":1,"entries":{"other":{}}}"#,
            [shape, shape, None, shape],
        );
        check_reasons(
            r#"{"gateways":[],"messages":""}"#,
            [None, shape, shape, shape],
        );
        check_reasons(
            r#"{"disconnected_at":"2026-01-02T03:04:05Z","code":5}"#,
            [shape, shape, shape, None],
        );
        check_reasons(
            r#"{"connected_at":"0001-01-01T00:00:00Z"}"#,
            [shape, shape, shape, None],
        );
        check_reasons(
            r#"{"connected_at":5,"protocol":"ws"}"#,
            [shape, shape, shape, None],
        );
        check_reasons(
            r#"{"ids":{"gateway_id":"gw-1"}}"#,
            [shape, None, shape, shape],
        );
    }

    #[test]
    fn stats_tell_no_state_where_the_moments_that_tell_it_cannot_be_read() {
        let time = r#""2026-01-02T03:04:05Z""#;
        for (expected, fields) in [
            (true, r#""protocol":"udp""#),
            (true, r#""uplink_count":"x","last_status":{"metrics":7}"#),
            (false, r#""disconnected_at":5"#),
            (false, r#""protocol":5,"disconnected_at":"?""#),
            (
                false,
                r#""disconnected_at":"2026-01-03T03:04:05Z","last_uplink_received_at":5"#,
            ),
            (
                true,
                r#""disconnected_at":"2026-01-01T03:04:05Z","last_uplink_received_at":5"#,
            ),
            (true, r#""last_uplink_received_at":5"#),
        ] {
            let body = format!("{{\"connected_at\":{time},{fields}}}");
            let stats = stats("gw-1", body.as_bytes(), &mut FieldErrors::default());
            assert_eq!(stats.map(|stats| stats.tells_state), Ok(expected), "{body}");
        }
        for body in [
            r#"{"connected_at":[],"disconnected_at":"2026-01-02T03:04:05Z"}"#,
            r#"{"connected_at":"0001-01-01T00:00:00Z","last_uplink_received_at":"2026-01-02T03:04:05Z"}"#,
            r#"{"connected_at":"1970-01-01T00:00:00Z","disconnected_at":"0001-01-01T00:00:00Z"}"#,
            r#"{"connected_at":null,"disconnected_at":"0001-01-01T00:00:00Z"}"#,
        ] {
            let stats = stats("gw-1", body.as_bytes(), &mut FieldErrors::default());
            assert_eq!(stats.map(|stats| stats.tells_state), Ok(false), "{body}");
        }
    }

    #[test]
    fn an_answer_of_somebody_else_has_no_field_errors() {
        let mut field_errors = FieldErrors::default();
        let answer = stats(
            "gw-1",
            br#"{"protocol":404,"sub_bands":7}"#,
            &mut field_errors,
        );
        assert_eq!(answer.map_err(|e| e.reason), Err(Reason::Shape));
        assert_eq!(field_errors, FieldErrors::default());
    }

    #[test]
    fn errors_of_the_api_are_named_by_their_message_or_details() {
        let message = "error:pkg/auth/rights:no_user_rights (no rights for user `x`)";
        check_error(
            r#"{"code":7,"message":"error:pkg/auth/rights:no_user_rights (no rights for user `x`)",
            "details":[{"@type":"type.googleapis.com/ttn.lorawan.v3.ErrorDetails",
            "namespace":"pkg/auth/rights","name":"no_user_rights","code":7}]}"#,
            Some(("no_user_rights", message)),
        );
        let short = "error:pkg/gatewayserver:not_connected (gateway `gw-1` not connected)";
        check_error(
            &format!("{{\"code\":5,\"message\":{short:?},\"details\":[{{\"@type\":\"x\"}},7]}}"),
            Some(("not_connected", short)),
        );
        check_error(
            r#"{"code":5,"message":"not there","details":[{},{"name":"not_found"},{"name":"x"}]}"#,
            Some(("not_found", "not there")),
        );
        check_error(
            r#"{"code":16,"message":"a\r\nb\u001b[2J"}"#,
            Some(("", "a\u{fffd}\u{fffd}b\u{fffd}[2J")),
        );
        let long = format!("{{\"code\":1,\"message\":\"{}\"}}", "é".repeat(300));
        check_error(&long, Some(("", &format!("{}…", "é".repeat(200)))));
        for body in [
            "",
            "<html>",
            "{}",
            "[]",
            "null",
            "{\"code\":7}",
            "{\"message\":\"Forbidden\"}",
            "{\"code\":\"7\",\"message\":\"no\"}",
            "{\"code\":7,\"message\":1}",
            "{\"code\":403,\"message\":\"Forbidden\"}",
            "{\"code\":0,\"message\":\"\"}",
        ] {
            check_error(body, None);
        }
    }
}
