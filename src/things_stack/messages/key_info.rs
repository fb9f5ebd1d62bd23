//! `AuthInfoResponse`: what the rights of an API key mean to the exporter, and when it expires.

use crate::error::FetchError;
use crate::model::KeyInfo;
use crate::things_stack::messages::answer::{WHOLE, object, text, wrong_shape};
use crate::things_stack::messages::forms;
use crate::things_stack::messages::json::Value;

/// Those of the message: other JSON is none of the API's.
const FIELDS: [&str; 6] = [
    "api_key",
    "oauth_access_token",
    "user_session",
    "gateway_token",
    "universal_rights",
    "is_admin",
];

/// What a key of a user, of an organization and of any owner needs: the field that names such an
/// owner, and the right, as the API and as the console name it. The key of a gateway lists nothing.
const NEEDED: [(&str, &str, &str); 3] = [
    (
        "user_ids",
        "RIGHT_USER_GATEWAYS_LIST",
        "list gateways the user is a collaborator of",
    ),
    (
        "organization_ids",
        "RIGHT_ORGANIZATION_GATEWAYS_LIST",
        "list gateways the organization is a collaborator of",
    ),
    ("", "RIGHT_GATEWAY_STATUS_READ", "view gateway status"),
];

/// `GET /auth_info`. `needs_list` where the gateways come from a list (without `--gateway`).
pub fn key_info(body: &[u8], needs_list: bool) -> Result<KeyInfo, FetchError> {
    let text = text(body);
    let answer = object(&text, WHOLE)?;
    let answer = answer.value();
    let mut names = answer.members().map(|(name, _)| name).peekable();
    if names.peek().is_some() && !names.any(|name| FIELDS.contains(&name)) {
        return Err(wrong_shape("no field of the caller's rights"));
    }
    let access = answer.get("api_key");
    let (key, owner) = (access.get("api_key"), access.get("entity_ids"));
    let universal = answer.get("universal_rights");
    let is_needed = |ids: &str| ids.is_empty() || needs_list && !owner.get(ids).is_null();
    let missing = NEEDED.into_iter();
    let missing = missing.filter(|(ids, right, _)| is_needed(ids) && lacks(key, universal, right));
    Ok(KeyInfo {
        expires_at: forms::moment(key.get("expires_at")).flatten(),
        missing_rights: missing.map(|(_, _, words)| words).collect(),
    })
}

/// Whether the rights of the key, and its owner's universal ones, certainly do not cover this one.
/// Rights that end in `_ALL` stand for others. A key without any known right may have them all.
fn lacks(key: Value<'_>, universal: Value<'_>, needed: &str) -> bool {
    let covers = |right: &str| right == needed || right.ends_with("_ALL");
    rights(key).next().is_some() && !rights(key).chain(rights(universal)).any(covers)
}

fn rights(holder: Value<'_>) -> impl Iterator<Item = &str> {
    let rights = holder.get("rights").elements();
    rights.filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "view gateway status";
    const USER_LIST: &str = "list gateways the user is a collaborator of";
    const ORGANIZATION_LIST: &str = "list gateways the organization is a collaborator of";

    /// The missing rights, and the second of the expiry.
    #[track_caller]
    fn check(body: &str, needs_list: bool, missing: &[&str], expires_at: Option<i64>) {
        let info = key_info(body.as_bytes(), needs_list).expect("an answer about the caller");
        assert_eq!(info.missing_rights, missing, "{body}");
        assert_eq!(info.expires_at.map(|at| at.seconds), expires_at, "{body}");
    }

    #[test]
    fn the_owner_the_rights_and_the_expiry_of_a_key_are_read() {
        let body = r#"{"api_key":{"api_key":{"id":"X","rights":["RIGHT_GATEWAY_INFO",7],
            "expires_at":"2027-01-01T00:00:00Z"},"entity_ids":{"user_ids":{"user_id":"u"}}},
            "universal_rights":{"rights":["RIGHT_SEND_INVITES"]},"is_admin":true}"#;
        check(body, true, &[USER_LIST, STATUS], Some(1_798_761_600));
        check(body, false, &[STATUS], Some(1_798_761_600));
        let unset = r#"{"api_key":{"api_key":{"expires_at":"0001-01-01T00:00:00Z"}}}"#;
        check(unset, true, &[], None);
    }

    #[test]
    fn what_a_list_takes_depends_on_the_owner() {
        for (owner, missing) in [
            (r#""user_ids":{}"#, [USER_LIST].as_slice()),
            (r#""organization_ids":{}"#, &[ORGANIZATION_LIST]),
            (r#""gateway_ids":{"gateway_id":"g"}"#, &[]),
            (r#""application_ids":{}"#, &[]),
            (r#""user_ids":null"#, &[]),
        ] {
            let body = format!(
                r#"{{"api_key":{{"api_key":{{"rights":["RIGHT_GATEWAY_STATUS_READ"]}},
                "entity_ids":{{{owner}}}}}}}"#
            );
            check(&body, true, missing, None);
        }
    }

    #[test]
    fn a_key_lacks_a_right_only_if_its_rights_are_known_and_none_covers_it() {
        let of_user = |rights: &str, universal: &str| {
            format!(
                r#"{{"api_key":{{"api_key":{{"rights":{rights}}},"entity_ids":{{"user_ids":{{}}}}}},
                "universal_rights":{{"rights":{universal}}}}}"#
            )
        };
        let both = r#"["RIGHT_GATEWAY_STATUS_READ","RIGHT_USER_GATEWAYS_LIST"]"#;
        check(&of_user(both, "[]"), true, &[], None);
        check(
            &of_user(r#"["RIGHT_USER_INFO","RIGHT_ALL"]"#, "[]"),
            true,
            &[],
            None,
        );
        check(
            &of_user(r#"["RIGHT_USER_INFO"]"#, r#"["RIGHT_ALL"]"#),
            true,
            &[],
            None,
        );
        for unknown in ["[]", "null", "\"all\"", "[7]"] {
            check(&of_user(unknown, "[]"), true, &[], None);
            check(
                &of_user(unknown, r#"["RIGHT_SEND_INVITES"]"#),
                true,
                &[],
                None,
            );
        }
        for method in ["oauth_access_token", "user_session", "gateway_token"] {
            let body = format!(
                r#"{{"{method}":{{"rights":["RIGHT_GATEWAY_INFO"]}},
                "universal_rights":{{"rights":["RIGHT_SEND_INVITES"]}}}}"#
            );
            check(&body, true, &[], None);
        }
    }

    #[test]
    fn json_of_somebody_else_tells_nothing_of_a_key() {
        for body in ["{}", r#"{"api_key":[]}"#, r#"{"is_admin":true}"#] {
            check(body, true, &[], None);
        }
        for body in ["<html>", "[]", r#"{"code":14,"message":"no","details":[]}"#] {
            assert!(key_info(body.as_bytes(), true).is_err(), "{body}");
        }
    }
}
