//! JSON as a row of nodes that borrow their text from the answer: each value stands before its
//! parts. A row is filled again for each gateway, so that hardly anything is allocated; as
//! `serde_json::Value`, a tree of maps with copies of all names, answers took half of the time
//! of a collection. It knows no field and decides nothing.

use std::borrow::Cow;
use std::fmt;

use serde_core::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor,
};
use serde_core::ser::{Serialize, Serializer};
use serde_json::Number;
use serde_json::value::RawValue;

/// A gateway that tells everything has about a hundred. Two bytes of JSON can make one, of 64.
const MAX_NODES: usize = 10_000;

/// One value, with room for the next.
#[derive(Default)]
pub struct Row<'a>(Vec<Node<'a>>);

struct Node<'a> {
    /// Of a member of an object; else empty.
    name: Cow<'a, str>,
    kind: Kind<'a>,
    /// How many nodes it takes, those of its parts included.
    length: usize,
}

enum Kind<'a> {
    Null,
    /// Also stands for what no value can hold. No field of the API that is read is a truth
    /// value, so whichever field it stands in has an unexpected form.
    Bool(bool),
    Number(Number),
    String(Cow<'a, str>),
    Array,
    Object,
}

impl<'a> Node<'a> {
    /// Without parts.
    const fn new(name: Cow<'a, str>, kind: Kind<'a>) -> Node<'a> {
        let length = 1;
        Node { name, kind, length }
    }
}

const NULL: &[Node<'static>] = &[Node::new(Cow::Borrowed(""), Kind::Null)];
const UNREADABLE: Kind<'static> = Kind::Bool(false);

impl<'a> Row<'a> {
    /// The value; one that cannot be read (a number beyond all floats, half of a surrogate pair,
    /// a hundred levels of brackets) has an unexpected form as a whole.
    pub fn read(&mut self, raw: &'a RawValue) -> Value<'_> {
        let mut deserializer = serde_json::Deserializer::from_str(raw.get());
        if self.seed(false).deserialize(&mut deserializer).is_err() {
            self.0.clear();
            self.0.push(Node::new(Cow::Borrowed(""), UNREADABLE));
        }
        self.value()
    }

    /// For the value that comes next from a deserializer: it is an error where it cannot be read,
    /// or, raw first, read like [`Row::read`].
    pub fn seed(&mut self, is_raw: bool) -> impl DeserializeSeed<'a, Value = ()> {
        self.0.clear();
        Whole { row: self, is_raw }
    }

    pub fn value(&self) -> Value<'_> {
        Value(&self.0)
    }
}

fn check_room<E: Error>(nodes: &[Node<'_>]) -> Result<(), E> {
    match nodes.len() < MAX_NODES {
        true => Ok(()),
        false => Err(E::custom("too many parts")),
    }
}

/// A value and its parts within a row.
#[derive(Clone, Copy)]
pub struct Value<'r>(&'r [Node<'r>]);

impl Default for Value<'_> {
    fn default() -> Self {
        Value(NULL)
    }
}

impl<'r> Value<'r> {
    fn kind(self) -> &'r Kind<'r> {
        &self.0[0].kind
    }

    pub fn is_null(self) -> bool {
        matches!(self.kind(), Kind::Null)
    }

    pub fn is_array(self) -> bool {
        matches!(self.kind(), Kind::Array)
    }

    pub fn is_object(self) -> bool {
        matches!(self.kind(), Kind::Object)
    }

    /// Whether it has no parts.
    pub fn is_empty(self) -> bool {
        self.0.len() == 1
    }

    pub fn as_str(self) -> Option<&'r str> {
        match self.kind() {
            Kind::String(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_number(self) -> Option<&'r Number> {
        match self.kind() {
            Kind::Number(number) => Some(number),
            _ => None,
        }
    }

    /// The members of an object with their names, or the elements of an array, as they came.
    pub fn parts(self) -> impl Iterator<Item = (&'r str, Value<'r>)> + Clone {
        let mut rest = &self.0[1..];
        std::iter::from_fn(move || {
            let (part, after) = rest.split_at(rest.first()?.length);
            rest = after;
            Some((part[0].name.as_ref(), Value(part)))
        })
    }

    /// A member of an object. Of two with the same name the last counts.
    pub fn get(self, name: &str) -> Option<Value<'r>> {
        let mut found = None;
        let mut index = 1;
        while let Some(part) = self.0.get(index) {
            let end = index + part.length;
            if *part.name == *name {
                found = self.0.get(index..end);
            }
            index = end;
        }
        found.map(Value)
    }
}

/// Where a whole value goes.
struct Whole<'r, 'a> {
    row: &'r mut Row<'a>,
    is_raw: bool,
}

impl<'de> DeserializeSeed<'de> for Whole<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.is_raw {
            self.row.read(Deserialize::deserialize(deserializer)?);
            return Ok(());
        }
        let name = Cow::Borrowed("");
        let nodes = &mut self.row.0;
        Part { nodes, name }.deserialize(deserializer)
    }
}

/// Where the next value goes.
struct Part<'n, 'a> {
    nodes: &'n mut Vec<Node<'a>>,
    name: Cow<'a, str>,
}

impl<'n, 'a> Part<'n, 'a> {
    fn push<E: Error>(self, kind: Kind<'a>) -> Result<(), E> {
        self.begin(kind).map(drop)
    }

    /// A value whose parts follow: where they go.
    fn begin<E: Error>(self, kind: Kind<'a>) -> Result<&'n mut Vec<Node<'a>>, E> {
        check_room(self.nodes)?;
        self.nodes.push(Node::new(self.name, kind));
        Ok(self.nodes)
    }
}

impl<'de> DeserializeSeed<'de> for Part<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Part<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.push(Kind::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.push(Kind::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.push(Kind::Number(value.into()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.push(Kind::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        // JSON has no number that is not finite.
        self.push(Number::from_f64(value).map_or(UNREADABLE, Kind::Number))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<(), E> {
        self.push(Kind::String(Cow::Borrowed(text)))
    }

    /// With escapes in it, it does not stand in the answer as it is.
    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.push(Kind::String(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        let start = self.nodes.len();
        let nodes = self.begin(Kind::Array)?;
        let mut is_more = true;
        while is_more {
            let name = Cow::Borrowed("");
            is_more = array.next_element_seed(Part { nodes, name })?.is_some();
        }
        nodes[start].length = nodes.len() - start;
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let start = self.nodes.len();
        let nodes = self.begin(Kind::Object)?;
        while let Some(name) = map.next_key_seed(Name)? {
            map.next_value_seed(Part { nodes, name })?;
        }
        nodes[start].length = nodes.len() - start;
        Ok(())
    }
}

/// The name of a member.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

/// For messages.
impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.kind() {
            Kind::Null => serializer.serialize_unit(),
            Kind::Bool(value) => serializer.serialize_bool(*value),
            Kind::Number(number) => number.serialize(serializer),
            Kind::String(text) => serializer.serialize_str(text),
            Kind::Array => serializer.collect_seq(self.parts().map(|part| part.1)),
            Kind::Object => serializer.collect_map(self.parts()),
        }
    }
}

#[cfg(test)]
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).expect("nothing in it can fail"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(row: &mut Row<'static>, json: &'static str, expected: &str) {
        let raw = serde_json::from_str(json).expect("the test's own JSON");
        assert_eq!(row.read(raw).to_string(), expected);
    }

    #[test]
    fn every_kind_of_value_is_what_it_was() {
        let row = &mut Row::default();
        check(row, " null ", "null");
        check(
            row,
            "[true,-0,1.50,18446744073709551615,-7]",
            "[true,-0.0,1.5,18446744073709551615,-7]",
        );
        let json = r#"{"b":{},"a\n":["é\u00e9",[[]],{"c":[{}]}],"b":[]}"#;
        let expected = r#"{"b":{},"a\n":["éé",[[]],{"c":[{}]}],"b":[]}"#;
        check(row, json, expected);
    }

    #[test]
    fn what_no_value_can_hold_is_none_as_a_whole() {
        let row = &mut Row::default();
        check(row, "1e999", "false");
        check(row, r#"{"b":[1,{"d":1e999}],"a":2}"#, "false");
        check(row, r#"["\ud800"]"#, "false");
        check(row, r#"{"a":2}"#, r#"{"a":2}"#);
    }

    #[test]
    fn a_value_of_too_many_parts_is_none_and_leaves_no_memory_behind() {
        let row = &mut Row::default();
        let zeros = |count| vec!["0"; count].join(",");
        let most = format!("[{}]", zeros(MAX_NODES - 1)).leak();
        check(row, most, most);
        let many = format!("[{}]", zeros(MAX_NODES)).leak();
        check(row, many, "false");
        assert!(row.0.capacity() <= 2 * MAX_NODES);
    }

    #[test]
    fn of_two_members_with_one_name_the_last_counts() {
        let raw = serde_json::from_str(r#"{"b":1,"a":{"b":2},"b":3}"#).expect("JSON");
        let mut row = Row::default();
        let value = row.read(raw);
        let found = value.get("b").and_then(|b| b.as_number()?.as_u64());
        assert_eq!(found, Some(3));
        assert!(value.get("c").is_none());
        assert!(Value::default().get("b").is_none());
    }

    #[test]
    fn text_without_escapes_is_not_copied() {
        let raw =
            serde_json::from_str(r#"{"plain":"plain","es\\caped":"esc\\aped"}"#).expect("JSON");
        let mut row = Row::default();
        row.read(raw);
        let is_borrowed = |text: &Cow<str>| matches!(text, Cow::Borrowed(_));
        let members: Vec<_> = row.0[1..]
            .iter()
            .map(|node| match &node.kind {
                Kind::String(text) => (is_borrowed(&node.name), is_borrowed(text)),
                _ => panic!("{}", node.name),
            })
            .collect();
        assert_eq!(members, [(true, true), (false, false)]);
    }
}
