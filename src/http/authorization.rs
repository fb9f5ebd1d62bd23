//! Whether a request may see the metrics: the token of `--web-token-file`, as `Bearer TOKEN`
//! (RFC 6750) or as the password of any user (Basic, RFC 7617), which browsers can ask for.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::secret::Secret;

/// `header` is the value of `Authorization`. The comparison takes the same time wherever the
/// texts differ.
pub fn is_authorized(token: &Secret, header: Option<&str>) -> bool {
    let Some((scheme, credentials)) = header.and_then(|value| value.split_once(' ')) else {
        return false;
    };
    let credentials = credentials.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return token.matches(credentials.as_bytes());
    }
    scheme.eq_ignore_ascii_case("basic")
        && password(credentials).is_some_and(|password| token.matches(&password))
}

/// What follows the first colon: a user's name has none.
fn password(credentials: &str) -> Option<Vec<u8>> {
    let mut decoded = STANDARD.decode(credentials).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    Some(decoded.split_off(colon + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(expected: bool, header: &str) {
        let token = Secret::new("to:ken").expect("a token");
        assert_eq!(is_authorized(&token, Some(header)), expected, "{header}");
    }

    #[test]
    fn the_token_is_a_bearer_token_or_the_password_of_any_user() {
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        check(true, "Bearer to:ken");
        check(true, "bearer  to:ken ");
        check(true, &basic("prometheus:to:ken"));
        check(true, &basic(":to:ken"));
        check(true, &basic("ü:to:ken").replace("Basic", "BASIC"));
        check(false, &basic("to:ken"));
        check(false, &basic("to:ken:"));
        check(false, &basic("user:to:ken2"));
        for header in [
            "",
            "to:ken",
            "Bearer",
            "Bearer ",
            "Basic",
            "Basic ?",
            "Basic dG86a2Vu",
        ] {
            check(false, header);
        }
        let token = Secret::new("to:ken").expect("a token");
        assert!(!is_authorized(&token, None));
    }
}
