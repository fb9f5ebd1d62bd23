//! What in the API's answers had an unexpected form: counted by field, with one example each,
//! so that it can be logged once and reported. Also the one way in which text from the
//! network is made fit for a log line. It never decides what counts as an error and never logs.

use std::collections::BTreeMap;
use std::fmt;

use serde_core::Serialize;

/// How much of something foreign a message shows: a hint, not a copy.
pub const MAX_SHOWN_CHARACTERS: usize = 64;
/// How an API key and an access token begin; an error page may quote the request that carried it.
const KEY_PREFIXES: [&str; 2] = ["NNSXS.", "MFRWG."];
const MASK: &str = "***";

/// The fields of unexpected form within one or more answers. Bounded: the names of fields are
/// written in this program, and each has one entry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldErrors(BTreeMap<&'static str, FieldError>);

/// The errors of one field.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// The API's name of the field, such as `last_status.metrics`.
    pub field: &'static str,
    pub count: u64,
    /// Where it was seen first; empty where the gateway has no readable id.
    pub gateway_id: String,
    /// The JSON that was found there first, cut to 64 characters and fit for a log line.
    pub found: String,
}

impl FieldErrors {
    /// Sorted by the name of the field.
    pub fn iter(&self) -> impl Iterator<Item = &FieldError> {
        self.0.values()
    }

    /// How many errors there are in all fields together.
    pub fn total(&self) -> u64 {
        self.0.values().map(|error| error.count).sum()
    }

    /// Counts one error. The example is made for the first of its field alone.
    pub fn add(&mut self, field: &'static str, gateway_id: &str, found: impl Serialize) {
        let first = || FieldError {
            field,
            count: 0,
            gateway_id: gateway_id.to_owned(),
            found: beginning_of(&found),
        };
        self.0.entry(field).or_insert_with(first).count += 1;
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FieldError { field, found, .. } = self;
        match self.gateway_id.as_str() {
            "" => write!(f, "{field} has an unexpected form: {found}"),
            id => write!(f, "{field} of gateway {id} has an unexpected form: {found}"),
        }
    }
}

/// Text from the network, fit for a log line: at most so many characters (`…` marks a cut),
/// none that moves the cursor or turns the direction of writing, and no API key.
pub fn printable(text: &str, max_characters: usize) -> String {
    let mut rest = text.chars();
    let mut line: String = rest.by_ref().take(max_characters).map(visible).collect();
    if rest.next().is_some() {
        line.push('…');
    }
    without_keys(line)
}

fn visible(character: char) -> char {
    match character {
        c if c.is_control() => '\u{fffd}',
        // Line and paragraph separators, and the marks that reorder what surrounds them.
        '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' => '\u{fffd}',
        c => c,
    }
}

/// Text from the network without API keys. One that was cut in the middle is recognised too: its
/// beginning is enough.
pub fn without_keys(text: String) -> String {
    KEY_PREFIXES.into_iter().fold(text, masked)
}

fn masked(text: String, prefix: &str) -> String {
    let Some((front, _)) = text.split_once(prefix) else {
        return text;
    };
    let mut masked = front.to_owned();
    for part in text.split(prefix).skip(1) {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '.');
        // No longer than what it hides: the line has a bound.
        let mask = &MASK[..MASK.len().min(part.len() - rest.len())];
        masked.extend([prefix, mask, rest]);
    }
    masked
}

/// Of a value that may be as large as a whole answer.
pub fn beginning_of(value: &impl Serialize) -> String {
    // The characters at four bytes each, and what shows that there are more.
    let mut bytes = [0; 4 * (MAX_SHOWN_CHARACTERS + 2)];
    let mut room = &mut bytes[..];
    // The only error is that there is no more room.
    let _ = serde_json::to_writer(&mut room, value);
    let left = room.len();
    // The bytes may end within a character; the cut below is at an earlier one.
    let text = String::from_utf8_lossy(&bytes[..bytes.len() - left]);
    printable(&text, MAX_SHOWN_CHARACTERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(found: impl Serialize, expected: &str) {
        let mut field_errors = FieldErrors::default();
        field_errors.add("name", "gw-1", found);
        let examples: Vec<&str> = field_errors.iter().map(|f| f.found.as_str()).collect();
        assert_eq!(examples, [expected]);
    }

    #[test]
    fn an_example_is_cut_and_fit_for_a_log_line() {
        check((), "null");
        check("a\n\u{85}\u{202e}\"b", "\"a\\n\u{fffd}\u{fffd}\\\"b\"");
        check("x".repeat(63), &format!("\"{}…", "x".repeat(63)));
        check("x".repeat(62), &format!("\"{}\"", "x".repeat(62)));
        check("😀".repeat(9_999), &format!("\"{}…", "😀".repeat(63)));
        check(vec![7; 99_999], &format!("[{}7…", "7,".repeat(31)));
    }

    #[test]
    fn an_error_names_the_gateway_where_it_is_known() {
        let mut field_errors = FieldErrors::default();
        field_errors.add("entries", "", 7);
        field_errors.add("eui", "gw-1", "x");
        let lines: Vec<String> = field_errors.iter().map(FieldError::to_string).collect();
        let expected = [
            "entries has an unexpected form: 7",
            "eui of gateway gw-1 has an unexpected form: \"x\"",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn an_api_key_is_masked_wherever_it_is_cut() {
        let key = format!("NNSXS.{}.{}", "A2".repeat(19), "SECRET7".repeat(7));
        let page = format!("Authorization: Bearer {key}\r\nAccept: */*");
        for length in 0..page.len() {
            let line = printable(&page, length);
            assert!(!line.contains("A2"), "{line}");
            assert!(!line.contains("SECRET"), "{line}");
        }
        let line = printable(&page, page.len());
        assert_eq!(printable("NNSXS.AB", 8), "NNSXS.**");
        assert_eq!(printable("MFRWG.AB.CD NNSXS.AB", 20), "MFRWG.*** NNSXS.**");
        assert_eq!(
            line,
            "Authorization: Bearer NNSXS.***\u{fffd}\u{fffd}Accept: */*"
        );
    }

    #[test]
    fn errors_are_counted_by_field_and_keep_the_first_example() {
        let mut field_errors = FieldErrors::default();
        assert_eq!(field_errors.total(), 0);
        field_errors.add("name", "gw-1", 1);
        field_errors.add("eui", "gw-1", 2);
        field_errors.add("name", "gw-2", 3);
        field_errors.add("protocol", "gw-2", 4);
        let all: Vec<_> = field_errors
            .iter()
            .map(|f| (f.field, f.count, f.gateway_id.as_str(), f.found.as_str()))
            .collect();
        let expected = [
            ("eui", 1, "gw-1", "2"),
            ("name", 2, "gw-1", "1"),
            ("protocol", 1, "gw-2", "4"),
        ];
        assert_eq!(all, expected);
        assert_eq!(field_errors.total(), 4);
    }
}
