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

    fn read_at(text: &'a str, levels: usize) -> serde_json::Result<Row<'a>> {
        let mut row = Row(Vec::new());
        let nodes = &mut row.0;
        let mut deserializer = serde_json::Deserializer::from_str(text);
        Reader { nodes, levels }.deserialize(&mut deserializer)?;
        deserializer.end().map(|()| row)
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
    /// `b.a`); null where there is none. Of two with the same name the first counts: to look on
    /// would take as many instructions again.
    pub fn get(self, field: &str) -> Value<'r> {
        let mut members = self.members();
        let found = members.find(|(name, _)| is_last_word(name, field));
        found.unwrap_or_default().1
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
    levels: usize,
}

impl<'de> DeserializeSeed<'de> for Reader<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let Reader { nodes, levels } = self;
        let start = nodes.len();
        if start >= MAX_NODES {
            return Err(D::Error::custom("too many parts"));
        }
        // Its place, before its parts.
        nodes.push(Node::Null);
        nodes[start] = match levels.checked_sub(1) {
            None => deserializer.deserialize_any(Reader { nodes, levels })?,
            Some(levels) => {
                let raw = <&RawValue>::deserialize(deserializer)?.get();
                let mut inner = serde_json::Deserializer::from_str(raw);
                let read = inner.deserialize_any(Reader { nodes, levels });
                read.unwrap_or_else(|_| {
                    nodes.truncate(start + 1);
                    UNREADABLE
                })
            }
        };
        Ok(())
    }
}

/// Adds the parts of a value.
impl<'de> Visitor<'de> for Reader<'_, 'de> {
    type Value = Node<'de>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Node<'de>, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node<'de>, E> {
        Ok(Node::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Node<'de>, E> {
        Ok(Node::Number(value.into()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Node<'de>, E> {
        Ok(Node::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Node<'de>, E> {
        // JSON has no number that is not finite.
        Ok(Number::from_f64(value).map_or(UNREADABLE, Node::Number))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Node<'de>, E> {
        Ok(Node::String(Cow::Borrowed(text)))
    }

    /// With escapes in it, it does not stand in the answer as it is.
    fn visit_str<E: Error>(self, text: &str) -> Result<Node<'de>, E> {
        Ok(Node::String(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Node<'de>, A::Error> {
        let Reader { nodes, levels } = self;
        let start = nodes.len();
        while array.next_element_seed(Reader { nodes, levels })?.is_some() {}
        Ok(Node::Array(1 + nodes.len() - start))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node<'de>, A::Error> {
        let Reader { nodes, levels } = self;
        let start = nodes.len();
        while map.next_key_seed(Reader { nodes, levels: 0 })?.is_some() {
            map.next_value_seed(Reader { nodes, levels })?;
        }
        Ok(Node::Object(1 + nodes.len() - start))
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
        let row = Row::read(&many, 1).expect("the test's own JSON");
        assert_eq!(row.value().to_string(), "false");
        assert!(row.0.capacity() <= 2 * MAX_NODES);
        // As one of many it leaves the others alone, where they leave it enough.
        let one_of_many = format!("[[1,{many},2],3]");
        check_levels(2, &one_of_many, "[false,3]");
        check_levels(3, &one_of_many, "[[1,false,2],3]");
        check_levels(3, &format!("[1,{many}]"), "[1,false]");
        check_levels(3, &format!("{{\"a\":{many}}}"), "{\"a\":false}");
    }

    #[test]
    fn of_two_members_with_one_name_the_first_counts() {
        let row = Row::read(r#"{"b":1,"a":{"b":2},"b":3}"#, 1).expect("JSON");
        let value = row.value();
        let found = value.get("b").as_number().and_then(Number::as_u64);
        assert_eq!(found, Some(1));
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
