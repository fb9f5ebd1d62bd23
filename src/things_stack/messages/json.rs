//! JSON as a row of nodes that borrow their text from the answer: each value stands before its
//! parts, each name before its value. A row is filled again for each gateway, so that hardly
//! anything is allocated; as `serde_json::Value`, a tree of maps with copies of all names, answers
//! took half of the time of a collection. It knows no field and decides nothing.

use std::borrow::Cow;
use std::fmt;

use serde_core::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_core::ser::{Serialize, Serializer};
use serde_json::Number;
use serde_json::value::RawValue;

/// A gateway that tells everything has about two hundred. Two bytes of JSON can make one, of 32.
const MAX_NODES: usize = 20_000;

/// One value, with room for the next.
#[derive(Default)]
pub struct Row<'a>(Vec<Node<'a>>);

struct Node<'a> {
    kind: Kind<'a>,
    /// How many nodes it takes, those of its parts included.
    length: usize,
}

enum Kind<'a> {
    Null,
    /// Also stands for a value that cannot be read: no field that is read is a Boolean, so it has
    /// an unexpected form in any field.
    Bool(bool),
    Number(Number),
    String(Cow<'a, str>),
    Array,
    Object,
}

impl<'a> Node<'a> {
    /// Without parts.
    const fn new(kind: Kind<'a>) -> Node<'a> {
        Node { kind, length: 1 }
    }
}

const NULL: &[Node<'static>] = &[Node::new(Kind::Null)];
const UNREADABLE: Kind<'static> = Kind::Bool(false);

impl<'a> Row<'a> {
    /// The value; one that cannot be read (a number beyond all floats, half of a surrogate pair,
    /// a hundred levels of brackets) has an unexpected form as a whole.
    pub fn read(&mut self, raw: &'a RawValue) -> Value<'_> {
        let mut deserializer = serde_json::Deserializer::from_str(raw.get());
        if self.seed().deserialize(&mut deserializer).is_err() {
            self.0.clear();
            self.0.push(Node::new(UNREADABLE));
        }
        self.value()
    }

    /// For a value that comes next from a deserializer, and can be read whole.
    pub fn seed(&mut self) -> impl DeserializeSeed<'a, Value = ()> {
        self.0.clear();
        self
    }

    pub fn value(&self) -> Value<'_> {
        Value(&self.0)
    }

    /// The parts of a value are pushed after it.
    fn push<E: Error>(&mut self, kind: Kind<'a>) -> Result<(), E> {
        if self.0.len() >= MAX_NODES {
            return Err(E::custom("too many parts"));
        }
        self.0.push(Node::new(kind));
        Ok(())
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

    pub fn is_object(self) -> bool {
        matches!(self.kind(), Kind::Object)
    }

    pub fn as_object(self) -> Option<Value<'r>> {
        self.is_object().then_some(self)
    }

    pub fn as_array(self) -> Option<Value<'r>> {
        matches!(self.kind(), Kind::Array).then_some(self)
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

    /// The elements of an array as they came.
    pub fn elements(self) -> impl Iterator<Item = Value<'r>> {
        let mut rest = &self.0[1..];
        std::iter::from_fn(move || {
            let (part, after) = rest.split_at(rest.first()?.length);
            rest = after;
            Some(Value(part))
        })
    }

    /// The members of an object as they came; nothing of any other value.
    pub fn members(self) -> impl Iterator<Item = (&'r str, Value<'r>)> {
        let mut rest = match self.is_object() {
            true => &self.0[1..],
            false => &[],
        };
        std::iter::from_fn(move || {
            let (name, parts) = rest.split_first()?;
            let (value, after) = parts.split_at(parts.first()?.length);
            rest = after;
            match &name.kind {
                Kind::String(name) => Some((name.as_ref(), Value(value))),
                _ => None,
            }
        })
    }

    /// A member of an object. Of two with the same name the last counts.
    pub fn get(self, name: &str) -> Option<Value<'r>> {
        let found = self.members().filter(|(key, _)| *key == name);
        found.last().map(|(_, value)| value)
    }
}

/// Adds the value, or the name, that comes next.
impl<'de> DeserializeSeed<'de> for &mut Row<'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Row<'de> {
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
        let number = Number::from_f64(value).map_or(UNREADABLE, Kind::Number);
        self.push(number)
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<(), E> {
        self.push(Kind::String(Cow::Borrowed(text)))
    }

    /// With escapes in it, it does not stand in the answer as it is.
    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        let text = Cow::Owned(text.to_owned());
        self.push(Kind::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        let start = self.0.len();
        self.push(Kind::Array)?;
        while array.next_element_seed(&mut *self)?.is_some() {}
        self.0[start].length = self.0.len() - start;
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let start = self.0.len();
        self.push(Kind::Object)?;
        while map.next_key_seed(&mut *self)?.is_some() {
            map.next_value_seed(&mut *self)?;
        }
        self.0[start].length = self.0.len() - start;
        Ok(())
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
            Kind::Array => serializer.collect_seq(self.elements()),
            Kind::Object => serializer.collect_map(self.members()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl fmt::Display for Value<'_> {
        fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str(&serde_json::to_string(self).expect("nothing in it can fail"))
        }
    }

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
        let is_borrowed = |node: &Node| matches!(node.kind, Kind::String(Cow::Borrowed(_)));
        let texts: Vec<_> = row.0[1..].iter().map(is_borrowed).collect();
        assert_eq!(texts, [true, true, false, false]);
    }
}
