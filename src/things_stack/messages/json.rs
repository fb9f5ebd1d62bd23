//! JSON as a row of nodes that borrow their text from the answer: each value stands before its
//! parts, each name before its value. A whole answer is one vector, so that hardly anything is
//! allocated; as `serde_json::Value`, a tree of maps with copies of all names, answers took half of
//! the time of a collection. It knows no field and decides nothing.

use std::borrow::Cow;
use std::{fmt, iter};

use serde_core::Deserialize;
use serde_core::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_core::ser::{Serialize, Serializer};
use serde_json::Number;
use serde_json::value::RawValue;

/// 12 MB, several times what the largest answer of the API has: a page of 1,000 gateways up to
/// 150,000. Two bytes of JSON can make one.
const MAX_NODES: usize = 500_000;

/// One value.
pub struct Row<'a>(Vec<Node<'a>>);

enum Node<'a> {
    Null,
    /// Also stands for a value that cannot be read: no field that is read is a Boolean, so it has
    /// an unexpected form in any field.
    Bool(bool),
    Number(Number),
    String(Cow<'a, str>),
    /// How many nodes it takes: itself and those of its parts.
    Array(usize),
    Object(usize),
}

const UNREADABLE: Node<'static> = Node::Bool(false);

impl<'a> Row<'a> {
    /// Reads text that is JSON, or says where it is none. A part that cannot be read (a number
    /// beyond all floats, half of a surrogate pair, a hundred levels of brackets, too many nodes)
    /// costs the smallest part around it that is in one of the outer `levels`, of which the whole
    /// is the first.
    pub fn read(text: &'a str, levels: usize) -> serde_json::Result<Row<'a>> {
        // Nearly always everything can be read, so the raw text is looked at only where it cannot.
        Row::read_at(text, 0).or_else(|_| Row::read_at(text, levels))
    }

    fn read_at(text: &'a str, raw_levels: usize) -> serde_json::Result<Row<'a>> {
        let mut nodes = Vec::new();
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let reader = Reader {
            nodes: &mut nodes,
            raw_levels,
        };
        reader.deserialize(&mut deserializer)?;
        deserializer.end().map(|()| Row(nodes))
    }

    pub fn value(&self) -> Value<'_> {
        Value(&self.0)
    }
}

/// A value and its parts within a row.
#[derive(Clone, Copy)]
pub struct Value<'r>(&'r [Node<'r>]);

impl Default for Value<'_> {
    fn default() -> Self {
        Value(&[Node::Null])
    }
}

impl<'r> Value<'r> {
    pub fn is_null(self) -> bool {
        matches!(self.0[0], Node::Null)
    }

    pub fn as_object(self) -> Option<Value<'r>> {
        matches!(self.0[0], Node::Object(_)).then_some(self)
    }

    pub fn as_array(self) -> Option<Value<'r>> {
        matches!(self.0[0], Node::Array(_)).then_some(self)
    }

    pub fn as_str(self) -> Option<&'r str> {
        match &self.0[0] {
            Node::String(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_number(self) -> Option<&'r Number> {
        match &self.0[0] {
            Node::Number(number) => Some(number),
            _ => None,
        }
    }

    /// The elements of an array as they came; nothing of any other value.
    pub fn elements(self) -> impl Iterator<Item = Value<'r>> {
        let mut rest = &self.as_array().unwrap_or_default().0[1..];
        iter::from_fn(move || take_value(&mut rest))
    }

    /// The members of an object as they came; nothing of any other value.
    pub fn members(self) -> impl Iterator<Item = (&'r str, Value<'r>)> {
        let mut rest = &self.as_object().unwrap_or_default().0[1..];
        iter::from_fn(move || match rest.split_off_first()? {
            Node::String(name) => Some((name.as_ref(), take_value(&mut rest)?)),
            _ => None,
        })
    }

    /// The member of an object whose name is the last word of `field` (`a`, or in the message `b`
    /// `b.a`); null where there is none. Of two with the same name the last counts.
    pub fn get(self, field: &str) -> Value<'r> {
        let found = self.members().filter(|(name, _)| is_last_word(name, field));
        found.last().unwrap_or_default().1
    }
}

#[inline]
fn take_value<'r>(rest: &mut &'r [Node<'r>]) -> Option<Value<'r>> {
    let length = match rest.first()? {
        Node::Array(length) | Node::Object(length) => *length,
        _ => 1,
    };
    rest.split_off(..length).map(Value)
}

fn is_last_word(name: &str, field: &str) -> bool {
    match field.len().checked_sub(name.len()) {
        None => false,
        Some(0) => field == name,
        Some(start) => field.as_bytes()[start - 1] == b'.' && field.ends_with(name),
    }
}

/// Adds what comes next from a deserializer.
struct Reader<'r, 'a> {
    nodes: &'r mut Vec<Node<'a>>,
    /// In how many levels, this one included, values are taken as raw text first, so that one
    /// that cannot be read leaves what is around it alone.
    raw_levels: usize,
}

impl<'a> Reader<'_, 'a> {
    #[inline]
    fn push<E: Error>(&mut self, node: Node<'a>) -> Result<(), E> {
        if self.nodes.len() >= MAX_NODES {
            return Err(E::custom("too many parts"));
        }
        self.nodes.push(node);
        Ok(())
    }

    fn next(&mut self, raw_levels: usize) -> Reader<'_, 'a> {
        Reader {
            nodes: self.nodes,
            raw_levels,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(mut self, deserializer: D) -> Result<(), D::Error> {
        let Some(raw_levels) = self.raw_levels.checked_sub(1) else {
            return deserializer.deserialize_any(self);
        };
        let raw = <&RawValue>::deserialize(deserializer)?.get();
        let start = self.nodes.len();
        let parts = self.next(raw_levels);
        let mut inner = serde_json::Deserializer::from_str(raw);
        if inner.deserialize_any(parts).is_ok() {
            return Ok(());
        }
        self.nodes.truncate(start);
        self.push(UNREADABLE)
    }
}

impl<'de> Visitor<'de> for Reader<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(mut self) -> Result<(), E> {
        self.push(Node::Null)
    }

    fn visit_bool<E: Error>(mut self, value: bool) -> Result<(), E> {
        self.push(Node::Bool(value))
    }

    fn visit_u64<E: Error>(mut self, value: u64) -> Result<(), E> {
        self.push(Node::Number(value.into()))
    }

    fn visit_i64<E: Error>(mut self, value: i64) -> Result<(), E> {
        self.push(Node::Number(value.into()))
    }

    fn visit_f64<E: Error>(mut self, value: f64) -> Result<(), E> {
        // JSON has no number that is not finite.
        let number = Number::from_f64(value).map_or(UNREADABLE, Node::Number);
        self.push(number)
    }

    fn visit_borrowed_str<E: Error>(mut self, text: &'de str) -> Result<(), E> {
        self.push(Node::String(Cow::Borrowed(text)))
    }

    /// With escapes in it, it does not stand in the answer as it is.
    fn visit_str<E: Error>(mut self, text: &str) -> Result<(), E> {
        self.push(Node::String(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut array: A) -> Result<(), A::Error> {
        let start = self.nodes.len();
        self.push(Node::Array(1))?;
        while array
            .next_element_seed(self.next(self.raw_levels))?
            .is_some()
        {}
        self.nodes[start] = Node::Array(self.nodes.len() - start);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let start = self.nodes.len();
        self.push(Node::Object(1))?;
        while map.next_key_seed(self.next(0))?.is_some() {
            map.next_value_seed(self.next(self.raw_levels))?;
        }
        self.nodes[start] = Node::Object(self.nodes.len() - start);
        Ok(())
    }
}

/// For messages.
impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0[0] {
            Node::Null => serializer.serialize_unit(),
            Node::Bool(value) => serializer.serialize_bool(*value),
            Node::Number(number) => number.serialize(serializer),
            Node::String(text) => serializer.serialize_str(text),
            Node::Array(_) => serializer.collect_seq(self.elements()),
            Node::Object(_) => serializer.collect_map(self.members()),
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
    fn check(json: &str, expected: &str) {
        check_levels(1, json, expected);
    }

    #[track_caller]
    fn check_levels(levels: usize, json: &str, expected: &str) {
        let row = Row::read(json, levels).expect("the test's own JSON");
        assert_eq!(row.value().to_string(), expected);
    }

    #[test]
    fn every_kind_of_value_is_what_it_was() {
        check(" null ", "null");
        check(
            "[true,-0,1.50,18446744073709551615,-7]",
            "[true,-0.0,1.5,18446744073709551615,-7]",
        );
        let json = r#"{"b":{},"a\n":["é\u00e9",[[]],{"c":[{}]}],"b":[]}"#;
        let expected = r#"{"b":{},"a\n":["éé",[[]],{"c":[{}]}],"b":[]}"#;
        check(json, expected);
    }

    #[test]
    fn what_no_value_can_hold_is_none_as_a_whole() {
        check("1e999", "false");
        check(r#"{"b":[1,{"d":1e999}],"a":2}"#, "false");
        check(r#"["\ud800"]"#, "false");
        check(r#"{"a":2}"#, r#"{"a":2}"#);
    }

    #[test]
    fn a_value_of_too_many_parts_is_none_and_leaves_no_memory_behind() {
        let zeros = |count| vec!["0"; count].join(",");
        let most = format!("[{}]", zeros(MAX_NODES - 1));
        check(&most, &most);
        let many = format!("[{}]", zeros(MAX_NODES));
        check(&many, "false");
        // As one of many it leaves the others alone, where they leave it enough.
        let one_of_many = format!("[[1,{many},2],3]");
        check_levels(2, &one_of_many, "[false,3]");
        check_levels(3, &one_of_many, "[[1,false,2],3]");
        check_levels(3, &format!("[1,{many}]"), "[1,false]");
        check_levels(3, &format!("{{\"a\":{many}}}"), "{\"a\":false}");
    }

    #[test]
    fn of_two_members_with_one_name_the_last_counts() {
        let row = Row::read(r#"{"b":1,"a":{"b":2},"b":3}"#, 1).expect("JSON");
        let value = row.value();
        let found = value.get("b").as_number().and_then(Number::as_u64);
        assert_eq!(found, Some(3));
        assert!(value.get("c").is_null());
        assert!(Value::default().get("b").is_null());
    }

    #[test]
    fn a_member_is_found_by_the_last_word_of_its_field() {
        let row = Row::read(r#"{"time":1,"e":2,"a.time":3,"b":["time",4]}"#, 1).expect("JSON");
        let check = |field, expected: &str| {
            assert_eq!(row.value().get(field).to_string(), expected, "{field}");
        };
        check("last_status.time", "1");
        check("time", "1");
        check("status.tim", "null");
        check("", "null");
        assert!(row.value().get("b").get("time").is_null());
    }

    #[test]
    fn text_without_escapes_is_not_copied() {
        let row = Row::read(r#"{"plain":"plain","es\\caped":"esc\\aped"}"#, 1).expect("JSON");
        let is_borrowed = |node: &Node| matches!(node, Node::String(Cow::Borrowed(_)));
        let texts: Vec<_> = row.0[1..].iter().map(is_borrowed).collect();
        assert_eq!(texts, [true, true, false, false]);
    }
}
