//! What the rights of an API key mean to the exporter. Pure.

use crate::model::KeyInfo;
use crate::things_stack::messages::{AuthInfo, Owner};

/// What is missing among the rights of a key, in the console's words, and when it expires.
/// `needs_list` where the gateways come from a list (without `--gateway`).
pub fn key_info(info: &AuthInfo, needs_list: bool) -> KeyInfo {
    let list = match info.owner {
        Owner::User => Some((
            "RIGHT_USER_GATEWAYS_LIST",
            "list gateways the user is a collaborator of",
        )),
        Owner::Organization => Some((
            "RIGHT_ORGANIZATION_GATEWAYS_LIST",
            "list gateways the organization is a collaborator of",
        )),
        Owner::Other => None,
    };
    let status = Some(("RIGHT_GATEWAY_STATUS_READ", "view gateway status"));
    let needed = list.filter(|_| needs_list).into_iter().chain(status);
    let missing = needed.filter(|(right, _)| lacks(&info.rights, right));
    KeyInfo {
        expires_at: info.expires_at,
        missing_rights: missing.map(|(_, words)| words).collect(),
    }
}

/// Whether these rights certainly do not cover this one. Rights that end in `_ALL` stand for
/// others, and a key without any known right is not understood.
fn lacks(rights: &[String], needed: &str) -> bool {
    let covers = |right: &String| right == needed || right.ends_with("_ALL");
    !rights.is_empty() && !rights.iter().any(covers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(owner: Owner, rights: &[&str], needs_list: bool, missing: &[&str]) {
        let info = AuthInfo {
            owner,
            rights: rights.iter().map(ToString::to_string).collect(),
            expires_at: None,
        };
        assert_eq!(
            key_info(&info, needs_list).missing_rights,
            missing,
            "{rights:?}"
        );
    }

    #[test]
    fn a_key_lacks_a_right_only_if_its_rights_are_known_and_none_covers_it() {
        let status = "view gateway status";
        let list = "list gateways the user is a collaborator of";
        check(Owner::User, &[], true, &[]);
        check(
            Owner::User,
            &["RIGHT_GATEWAY_STATUS_READ", "RIGHT_USER_GATEWAYS_LIST"],
            true,
            &[],
        );
        check(Owner::User, &["RIGHT_USER_INFO", "RIGHT_ALL"], true, &[]);
        check(Owner::User, &["RIGHT_GATEWAY_INFO"], true, &[list, status]);
        check(Owner::User, &["RIGHT_GATEWAY_INFO"], false, &[status]);
        check(Owner::Other, &["RIGHT_GATEWAY_INFO"], true, &[status]);
        check(
            Owner::Organization,
            &["RIGHT_GATEWAY_STATUS_READ"],
            true,
            &["list gateways the organization is a collaborator of"],
        );
    }
}
