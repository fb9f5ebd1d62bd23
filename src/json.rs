//! A JSON value that borrows its text from the answer it stands in. Answers are trees of small
//! objects: as `serde_json::Value`, with a map and copies of all names, they took half of the
//! time of a collection. It knows no field and decides nothing.

use std::borrow::Cow;
use std::fmt;

use serde_core::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_core::ser::{Serialize, Serializer};
use serde_json::Number;

#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Number(Number),
    String(Cow<'a, str>),
    Array(Vec<Value<'a>>),
    Object(Object<'a>),
}

/// The members of an object as they came: a name may stand there twice, then the last counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object<'a>(Vec<(Cow<'a, str>, Value<'a>)>);

impl<'a> Value<'a> {
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Value::Number(number) => number.as_u64(),
            _ => None,
        }
    }

    pub fn as_array(&self) -> Option<&[Value<'a>]> {
        match self {
            Value::Array(elements) => Some(elements),
            _ => None,
        }
    }

    pub fn as_object(&self) -> Option<&Object<'a>> {
        match self {
            Value::Object(object) => Some(object),
            _ => None,
        }
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Value<'a> {
        Value::String(text.into())
    }
}

impl<'a> Object<'a> {
    pub fn get(&self, name: &str) -> Option<&Value<'a>> {
        let mut members = self.0.iter().rev();
        members
            .find(|member| member.0 == name)
            .map(|member| &member.1)
    }

    /// Takes the member out; it is `Null` from then on.
    pub fn take(&mut self, name: &str) -> Option<Value<'a>> {
        let mut members = self.0.iter_mut().rev();
        let found = members.find(|member| member.0 == name);
        found.map(|member| std::mem::replace(&mut member.1, Value::Null))
    }

    /// By name, each name once.
    pub fn into_sorted(mut self) -> Vec<(Cow<'a, str>, Value<'a>)> {
        // Sorting keeps the order of equals, and of those the first is kept.
        self.0.reverse();
        self.0.sort_by(|a, b| a.0.cmp(&b.0));
        self.0.dedup_by(|later, earlier| later.0 == earlier.0);
        self.0
    }
}

impl<'a> FromIterator<(Cow<'a, str>, Value<'a>)> for Object<'a> {
    fn from_iter<I: IntoIterator<Item = (Cow<'a, str>, Value<'a>)>>(members: I) -> Object<'a> {
        Object(members.into_iter().collect())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Value<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value<'a>, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value<'de>, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value<'de>, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value<'de>, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value<'de>, E> {
        // JSON has no number that is not finite.
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::String(Cow::Borrowed(text)))
    }

    /// With escapes in it, it does not stand in the answer as it is.
    fn visit_str<E>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(Value::String(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Value<'de>, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = array.next_element()? {
            elements.push(element);
        }
        Ok(Value::Array(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value<'de>, A::Error> {
        let mut members = Vec::new();
        // A name is a text like any other.
        while let Some((name, value)) = map.next_entry()? {
            if let Value::String(name) = name {
                members.push((name, value));
            }
        }
        Ok(Value::Object(Object(members)))
    }
}

/// For messages.
impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Number(number) => number.serialize(serializer),
            Value::String(text) => serializer.serialize_str(text),
            Value::Array(elements) => serializer.collect_seq(elements),
            Value::Object(Object(members)) => {
                serializer.collect_map(members.iter().map(|(name, value)| (name, value)))
            }
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
    fn check(json: &str, expected: &str) {
        let value: Value = serde_json::from_str(json).expect("the test's own JSON");
        assert_eq!(value.to_string(), expected);
    }

    #[test]
    fn every_kind_of_value_is_what_it_was() {
        check(" null ", "null");
        check(
            "[true,-0,1.50,18446744073709551615,-7]",
            "[true,-0.0,1.5,18446744073709551615,-7]",
        );
        check(
            r#"{"b":{},"a\n":["é\u00e9"],"b":[]}"#,
            r#"{"b":{},"a\n":["éé"],"b":[]}"#,
        );
    }

    #[test]
    fn text_without_escapes_is_not_copied() {
        let value: Value = serde_json::from_str(r#"["plain","esc\\aped"]"#).expect("JSON");
        let is_borrowed = |text: &Value| matches!(text, Value::String(Cow::Borrowed(_)));
        let elements: Vec<bool> = value
            .as_array()
            .expect("two")
            .iter()
            .map(is_borrowed)
            .collect();
        assert_eq!(elements, [true, false]);
    }

    #[test]
    fn of_a_name_that_stands_there_twice_the_last_counts() {
        let json = r#"{"b":1,"a":2,"b":3}"#;
        let mut object: Object = match serde_json::from_str(json).expect("JSON") {
            Value::Object(object) => object,
            other => panic!("{other:?}"),
        };
        assert_eq!(object.get("b").and_then(Value::as_u64), Some(3));
        assert_eq!(object.get("c"), None);
        let sorted = object.clone().into_sorted();
        let sorted: Vec<_> = sorted
            .iter()
            .map(|(name, v)| (&**name, v.as_u64()))
            .collect();
        assert_eq!(sorted, [("a", Some(2)), ("b", Some(3))]);
        assert_eq!(object.take("a").and_then(|a| a.as_u64()), Some(2));
        assert_eq!(object.get("a"), Some(&Value::Null));
    }
}
