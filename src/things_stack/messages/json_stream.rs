//! The outside of the API's answers: finds the one array or map of interest in a body and
//! hands out its members one at a time, so that a list of 1,000 gateways is never one tree.
//! Says why a body is none: not JSON, cut short, or JSON of another shape. It knows no field
//! of a gateway.

use std::borrow::Cow;
use std::fmt;

use serde_core::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::error::Category;
use serde_json::value::RawValue;

use crate::error::{FetchError, Reason};
use crate::things_stack::messages::field_errors::printable;
use crate::things_stack::messages::json::{Row, Value};

/// How much of something foreign a message shows.
const MAX_SHOWN_CHARACTERS: usize = 64;
/// No answer of the API has these beside its members: such an object reports a failure
/// (`google.rpc.Status`, or a proxy's own form).
const ERROR_KEYS: [&str; 4] = ["code", "message", "details", "error"];

/// What holds the members.
#[derive(Clone, Copy)]
pub enum Holder {
    /// Its elements have empty names.
    Array,
    Map,
}

/// Hands each member of the array or map `key` of the outer object to `each`, with its name. An
/// empty object has no members; one with other keys alone is none of the API's. Members seen
/// before an error have been handed out.
///
/// Members are read as they come. If one cannot be read (a number beyond all floats, half of a
/// surrogate pair), the body is read again with each member as raw text first, so that only that
/// one is lost.
pub fn each_member(
    text: &str,
    key: &'static str,
    holder: Holder,
    each: impl FnMut(String, Value<'_>),
) -> Result<(), FetchError> {
    let mut members = Members {
        each,
        holder,
        row: Row::default(),
        is_raw: false,
        position: 0,
        handed_out: 0,
    };
    let mut read = members.walk(text, key);
    if read.is_err() {
        members.is_raw = true;
        read = members.walk(text, key);
    }
    read.map_err(|error| explain(text, &error))
}

/// A body as text, without a copy where it is UTF-8. Other bytes are replaced.
pub fn text(body: &[u8]) -> Cow<'_, str> {
    // Looking for bad bytes alone takes a tenth of the time of copying around them.
    str::from_utf8(body).map_or_else(|_| String::from_utf8_lossy(body), Cow::Borrowed)
}

/// A body that is one object. For the answers about one gateway.
pub fn object(text: &str) -> Result<Row<'_>, FetchError> {
    let raw: &RawValue = serde_json::from_str(text).map_err(|e| explain(text, &e))?;
    let mut row = Row::default();
    if row.read(raw).is_object() {
        return Ok(row);
    }
    let beginning = printable(raw.get(), MAX_SHOWN_CHARACTERS);
    let what = format!("an object was expected, not {beginning}");
    Err(wrong_shape(&what))
}

/// An answer that is JSON, but not of the API's form.
pub fn wrong_shape(what: &str) -> FetchError {
    let what = printable(what, 160);
    let context = format!("the answer is not of the API's form: {what}");
    FetchError::new(Reason::Shape, context)
}

fn explain(text: &str, error: &serde_json::Error) -> FetchError {
    let is_json = || serde_json::from_str::<IgnoredAny>(text).is_ok();
    let context = match error.classify() {
        // `404 page not found` begins like JSON of another shape.
        Category::Data if is_json() => return wrong_shape(&error.to_string()),
        Category::Eof if text.trim().is_empty() => "the answer is empty".to_owned(),
        Category::Eof => format!("the answer is cut short after {} bytes", text.len()),
        _ => {
            let beginning = printable(text.trim_start(), MAX_SHOWN_CHARACTERS);
            format!("the answer is not JSON, it begins with: {beginning}")
        }
    };
    FetchError::new(Reason::NotJson, context)
}

/// The outer object, of which all but one member is skipped.
struct Outer<'m, 'a, F> {
    key: &'static str,
    /// Taken at the key, which may come once.
    members: Option<&'m mut Members<'a, F>>,
}

impl<'de, F: FnMut(String, Value<'_>)> Visitor<'de> for Outer<'_, 'de, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "an object with `{}`", self.key)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut outer: A) -> Result<(), A::Error> {
        let mut is_empty = true;
        while let Some(key) = outer.next_key::<String>()? {
            is_empty = false;
            if key == self.key {
                let twice = || A::Error::custom(format_args!("`{key}` stands there twice"));
                outer.next_value_seed(self.members.take().ok_or_else(twice)?)?;
            } else if ERROR_KEYS.contains(&key.as_str()) {
                return Err(A::Error::custom(format_args!("an error with `{key}`")));
            } else {
                outer.next_value::<IgnoredAny>()?;
            }
        }
        // A proxy's own JSON is no empty list of gateways.
        if self.members.is_some() && !is_empty {
            return Err(A::Error::custom(format_args!("`{}` is missing", self.key)));
        }
        Ok(())
    }
}

/// The members of the array or map, read one after the other into one row.
struct Members<'a, F> {
    each: F,
    holder: Holder,
    row: Row<'a>,
    /// The second time.
    is_raw: bool,
    /// How many were read this time, and how many were handed out in all.
    position: usize,
    handed_out: usize,
}

impl<'a, F: FnMut(String, Value<'_>)> Members<'a, F> {
    fn walk(&mut self, text: &'a str, key: &'static str) -> Result<(), serde_json::Error> {
        self.position = 0;
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let members = Some(self);
        deserializer.deserialize_any(Outer { key, members })?;
        deserializer.end()
    }

    /// What was just read into the row.
    fn hand_out(&mut self, key: String) {
        self.position += 1;
        if self.position > self.handed_out {
            self.handed_out = self.position;
            (self.each)(key, self.row.value());
        }
    }
}

impl<'de, F: FnMut(String, Value<'_>)> DeserializeSeed<'de> for &mut Members<'de, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.holder {
            Holder::Array => deserializer.deserialize_seq(self),
            Holder::Map => deserializer.deserialize_map(self),
        }
    }
}

impl<'de, F: FnMut(String, Value<'_>)> Visitor<'de> for &mut Members<'de, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self.holder {
            Holder::Array => "an array",
            Holder::Map => "a map",
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        loop {
            let element = match self.is_raw {
                true => array.next_element()?.map(|raw| _ = self.row.read(raw)),
                false => array.next_element_seed(self.row.seed())?,
            };
            if element.is_none() {
                return Ok(());
            }
            self.hand_out(String::new());
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key()? {
            if self.is_raw {
                self.row.read(map.next_value()?);
            } else {
                map.next_value_seed(self.row.seed())?;
            }
            self.hand_out(key);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a body gives: its members with spaces between them, or the reason and context.
    #[track_caller]
    fn check_elements(body: &[u8], expected: &str) {
        let mut members = Vec::new();
        let end = each_member(&text(body), "list", Holder::Array, |key, value| {
            members.push(format!("{key}{value}"));
        });
        assert_eq!(outcome(members, end), expected);
    }

    #[track_caller]
    fn check_entries(body: &str, expected: &str) {
        let mut members = Vec::new();
        let end = each_member(body, "map", Holder::Map, |key, value| {
            members.push(format!("{key}={value}"));
        });
        assert_eq!(outcome(members, end), expected);
    }

    #[track_caller]
    fn check_object(body: &str, expected: &str) {
        let result = object(body);
        let members = result.iter().flat_map(|row| row.value().members());
        let members = members.map(|(k, v)| format!("{k}={v}"));
        assert_eq!(outcome(members.collect(), result.map(|_| ())), expected);
    }

    fn outcome(members: Vec<String>, end: Result<(), FetchError>) -> String {
        end.map_or_else(|e| e.to_string(), |()| members.join(" "))
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
        check_elements(
            b"[]",
            &shape("invalid type: sequence, expected an object with `list` at line 1 column 2"),
        );
        check_elements(
            b"{\"list\":{}}",
            &shape("invalid type: map, expected an array at line 1 column 8"),
        );
        check_entries(
            "{\"map\":[]}",
            &shape("invalid type: sequence, expected a map at line 1 column 7"),
        );
        check_elements(
            b"{\"list\":[],\"list\":[]}",
            &shape("`list` stands there twice at line 1 column 17"),
        );
        check_entries(
            "{\"status\":\"no\"}",
            &shape("`map` is missing at line 1 column 15"),
        );
        check_entries(
            "{\"map\":{},\"message\":\"no\"}",
            &shape("an error with `message` at line 1 column 19"),
        );
        check_elements(
            b"{\"list\":null}",
            &shape("invalid type: null, expected an array at line 1 column 12"),
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
