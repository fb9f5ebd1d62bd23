//! The outside of the API's answers: an object, and in a list or batch the one member of it that
//! was asked for. Says why a body is none: not JSON, cut short, or JSON of another shape. It knows
//! no field of a gateway.

use std::borrow::Cow;

use serde_json::error::Category;

use crate::error::{FetchError, Reason};
use crate::things_stack::messages::field_errors::{MAX_SHOWN_CHARACTERS, beginning_of, printable};
use crate::things_stack::messages::forms::Form;
use crate::things_stack::messages::json::{Row, Value};

/// For [`object`]: an answer about one thing is lost as a whole where a part of it cannot be read.
pub const WHOLE: usize = 1;
/// Of a list or batch, one member.
pub const MEMBER: usize = 3;

/// No answer of the API has these beside its members: such an object reports a failure
/// (`google.rpc.Status`, or a proxy's own form).
const ERROR_KEYS: [&str; 4] = ["code", "message", "details", "error"];

/// A body as text, without a copy where it is UTF-8. Other bytes are replaced.
pub fn text(body: &[u8]) -> Cow<'_, str> {
    // Looking for bad bytes alone takes a tenth of the time of copying around them.
    str::from_utf8(body).map_or_else(|_| String::from_utf8_lossy(body), Cow::Borrowed)
}

/// A body that is one object, read so that what cannot be read is lost [`WHOLE`] or by
/// [`MEMBER`].
pub fn object(text: &str, levels: usize) -> Result<Row<'_>, FetchError> {
    let row = Row::read(text, levels).map_err(|error| not_json(text, &error))?;
    if row.value().as_object().is_some() {
        return Ok(row);
    }
    let beginning = printable(text.trim(), MAX_SHOWN_CHARACTERS);
    let what = format!("an object was expected, not {beginning}");
    Err(wrong_shape(&what))
}

/// The array or map for which a list or batch was asked. Of an empty object it is empty; an object
/// with other members alone is none of the API's, such as a proxy's own JSON.
pub fn payload<'r>(
    answer: Value<'r>,
    name: &str,
    form: Form<'r, Value<'r>>,
) -> Result<Value<'r>, FetchError> {
    let mut names = answer.members().map(|(key, _)| key);
    if let Some(key) = names.find(|key| ERROR_KEYS.contains(key)) {
        return Err(wrong_shape(&format!("an error with `{key}`")));
    }
    let mut payloads = answer.members().filter(|(key, _)| *key == name);
    let problem = match (payloads.next(), payloads.next()) {
        (None, _) if answer.members().next().is_none() => return Ok(Value::default()),
        (None, _) => format!("`{name}` is missing"),
        (Some(_), Some(_)) => format!("`{name}` stands there twice"),
        (Some((_, value)), None) => match form(value) {
            Some(payload) => return Ok(payload),
            None => format!("`{name}` has an unexpected form: {}", beginning_of(&value)),
        },
    };
    Err(wrong_shape(&problem))
}

/// An answer that is JSON, but not of the API's form.
pub fn wrong_shape(what: &str) -> FetchError {
    let what = printable(what, 160);
    let context = format!("the answer is not of the API's form: {what}");
    FetchError::new(Reason::Shape, context)
}

fn not_json(text: &str, error: &serde_json::Error) -> FetchError {
    let context = match error.classify() {
        Category::Eof if text.trim().is_empty() => "the answer is empty".to_owned(),
        Category::Eof => format!("the answer is cut short after {} bytes", text.len()),
        _ => {
            let beginning = printable(text.trim_start(), MAX_SHOWN_CHARACTERS);
            format!("the answer is not JSON, it begins with: {beginning}")
        }
    };
    FetchError::new(Reason::NotJson, context)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a body gives: its members with spaces between them, or the reason and context.
    #[track_caller]
    fn check_elements(body: &[u8], expected: &str) {
        let text = text(body);
        let answer = object(&text, MEMBER);
        let list = answer.as_ref().map_err(FetchError::clone);
        let list = list.and_then(|row| payload(row.value(), "list", Value::as_array));
        let list = list.map(|list| list.elements().map(|element| element.to_string()).collect());
        assert_eq!(outcome(list), expected);
    }

    #[track_caller]
    fn check_entries(body: &str, expected: &str) {
        let answer = object(body, MEMBER);
        let map = answer.as_ref().map_err(FetchError::clone);
        let map = map.and_then(|row| payload(row.value(), "map", Value::as_object));
        assert_eq!(outcome(map.map(named)), expected);
    }

    #[track_caller]
    fn check_object(body: &str, expected: &str) {
        let members = object(body, WHOLE).map(|row| named(row.value()));
        assert_eq!(outcome(members), expected);
    }

    fn named(object: Value) -> Vec<String> {
        let members = object.members();
        members.map(|(k, v)| format!("{k}={v}")).collect()
    }

    fn outcome(members: Result<Vec<String>, FetchError>) -> String {
        members.map_or_else(|e| e.to_string(), |members| members.join(" "))
    }

    #[test]
    fn members_are_found_among_other_keys() {
        check_elements(b"{}", "");
        check_elements(b" { } ", "");
        check_elements(b"{\"other\":[[1e999]],\"list\":[]}", "");
        check_elements(
            b"{\"a\":{\"list\":[9]},\"list\":[1, {},null],\"z\":[2]}",
            "1 {} null",
        );
        check_elements(b"{\"li\\u0073t\":[1]}", "1");
        check_entries("{}", "");
        check_entries("{\"map\":{},\"messages\":\"\"}", "");
        check_entries(
            "{\"x\":1,\"map\":{\"b\":{\"c\":1},\"a\":2,\"b\":3}}",
            "b={\"c\":1} a=2 b=3",
        );
        check_object("{\"b\":1,\"a\":null}", "b=1 a=null");
    }

    #[test]
    fn json_of_another_shape_is_told_from_text_that_is_no_json() {
        let shape = |what| format!("the answer is not of the API's form: {what} (shape)");
        check_elements(b"[]", &shape("an object was expected, not []"));
        check_elements(
            b"{\"list\":{}}",
            &shape("`list` has an unexpected form: {}"),
        );
        check_entries("{\"map\":[]}", &shape("`map` has an unexpected form: []"));
        check_elements(
            b"{\"list\":[],\"list\":[]}",
            &shape("`list` stands there twice"),
        );
        check_entries("{\"status\":\"no\"}", &shape("`map` is missing"));
        check_entries(
            "{\"map\":{},\"message\":\"no\"}",
            &shape("an error with `message`"),
        );
        check_elements(
            b"{\"list\":null}",
            &shape("`list` has an unexpected form: null"),
        );
        check_object("[1]", &shape("an object was expected, not [1]"));
        check_object("null", &shape("an object was expected, not null"));

        let text = |what| format!("the answer is not JSON, it begins with: {what} (not_json)");
        check_elements(
            b"\n <html>\r\n<body>",
            &text("<html>\u{fffd}\u{fffd}<body>"),
        );
        check_elements(b"404 page not found\n", &text("404 page not found\u{fffd}"));
        check_elements(b"\xff\xfe\x1b[2J", &text("\u{fffd}\u{fffd}\u{fffd}[2J"));
        check_elements(b"{} {}", &text("{} {}"));
        check_entries("{\"map\":{,}}", &text("{\"map\":{,}}"));
        check_object("<x>", &text("<x>"));
        check_object(&"x".repeat(999), &text(&format!("{}…", "x".repeat(64))));
    }

    #[test]
    fn an_answer_that_ends_early_says_so() {
        let body = "{\"list\":[{\"a\":1},{\"b\":\"text\"}]}";
        for length in 1..body.len() {
            let expected = format!("the answer is cut short after {length} bytes (not_json)");
            check_elements(&body.as_bytes()[..length], &expected);
        }
        check_elements(b"", "the answer is empty (not_json)");
        check_elements(b" \n", "the answer is empty (not_json)");
        check_object("", "the answer is empty (not_json)");
    }

    #[test]
    fn what_no_value_can_hold_spoils_itself_alone() {
        check_elements(b"{\"list\":[1e999, 2]}", "false 2");
        check_elements(
            br#"{"list":[{"a":{"b":-1e999},"d":"x"},{"a":1}]}"#,
            r#"false {"a":1}"#,
        );
        check_elements(
            br#"{"list":[{"\ud800":1},{"a":"\ud83d\ude00"}]}"#,
            "false {\"a\":\"😀\"}",
        );
        check_elements(b"{\"list\":[\"\xff\",2]}", "\"\u{fffd}\" 2");
        let deep = format!(
            "{{\"list\":[{}{},7]}}",
            "[".repeat(99_999),
            "]".repeat(99_999)
        );
        check_elements(deep.as_bytes(), "false 7");
        let shape = "the answer is not of the API's form: an object was expected, not ";
        check_object(
            "{\"a\":1e999,\"b\":2}",
            &format!("{shape}{{\"a\":1e999,\"b\":2}} (shape)"),
        );
    }
}
