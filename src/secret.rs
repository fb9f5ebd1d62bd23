//! Text that must not be shown: the API key and the token of the metrics page.
//!
//! Debug prints a mask, and there is no Display: showing a secret takes [`Secret::reveal`],
//! which only the code that sends or compares it calls.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// No key or token is as long as this; a device such as /dev/zero ends here.
const FILE_BYTES_MAX: u64 = 4096;

#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes text that can go into an HTTP header: visible ASCII. White space around it is no
    /// part of it, nor is the mark that some editors put at the beginning of a file.
    ///
    /// # Errors
    /// What is wrong with the text, without the text. What stands around a key by mistake is
    /// told here, since the server would answer only that the key is invalid.
    pub fn new(text: &str) -> Result<Secret, &'static str> {
        let text = text.trim_start_matches('\u{feff}').trim();
        match problem_of(text) {
            Some(problem) => Err(problem),
            None => Ok(Secret(text.to_owned())),
        }
    }

    /// Reads the secret from a file, whose name the caller puts into its message.
    pub fn from_file(path: &Path) -> io::Result<Secret> {
        let mut bytes = Vec::new();
        let size = File::open(path)?
            .take(FILE_BYTES_MAX)
            .read_to_end(&mut bytes)?;
        if size as u64 == FILE_BYTES_MAX {
            return Err(io::Error::other("is too long to be a key"));
        }
        let text = String::from_utf8(bytes).map_err(|_| {
            io::Error::other("has characters that cannot be sent in an HTTP header")
        })?;
        Secret::new(&text).map_err(io::Error::other)
    }

    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether `other` is this secret, in a time that tells nothing about where they differ.
    pub fn matches(&self, other: &[u8]) -> bool {
        let own = self.0.as_bytes();
        let difference =
            own.iter()
                .enumerate()
                .fold(own.len() ^ other.len(), |difference, (index, byte)| {
                    difference | usize::from(byte ^ other.get(index).copied().unwrap_or(0))
                });
        std::hint::black_box(difference) == 0
    }
}

fn problem_of(text: &str) -> Option<&'static str> {
    let scheme = text.get(..7).unwrap_or_default();
    let is_quoted = |quote| text.len() > 1 && text.starts_with(quote) && text.ends_with(quote);
    if text.is_empty() {
        Some("is empty")
    } else if text.contains(['\n', '\r']) {
        Some("has more than one line")
    } else if text.starts_with("export ") || text.contains("TTN_API_KEY=") {
        Some("has the name of a variable before it: only the value belongs there")
    } else if scheme.eq_ignore_ascii_case("bearer ") {
        Some("begins with Bearer: leave that out")
    } else if is_quoted('"') || is_quoted('\'') {
        Some("stands in quotes: leave them out")
    } else if text.contains(char::is_whitespace) {
        Some("has white space in it, which cannot be sent in an HTTP header")
    } else if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Some("has characters that cannot be sent in an HTTP header")
    } else {
        None
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_prints_the_mask_and_not_the_text() {
        let printed = format!("{:?}", Secret::new("NNSXS.ABC.DEF").unwrap());
        assert_eq!(printed, "Secret(***)");
    }

    #[track_caller]
    fn check_refused(text: &str) {
        let problem = Secret::new(text).unwrap_err();
        assert!(text.trim().is_empty() || !problem.contains(text.trim()));
    }

    #[test]
    fn text_that_cannot_go_into_a_header_is_refused_without_being_repeated() {
        check_refused("");
        check_refused(" \n");
        check_refused("two words");
        check_refused("line\nbreak");
        check_refused("schlüssel");
        check_refused("nul\0");
    }

    #[test]
    fn white_space_around_it_is_no_part_of_it() {
        for text in ["key \r\n", " \t\nkey", "\u{feff}key\n\n", "\u{feff} key"] {
            assert_eq!(Secret::new(text).unwrap().reveal(), "key", "{text:?}");
        }
    }

    #[test]
    fn what_stands_around_it_by_mistake_is_named() {
        for (text, word) in [
            ("one\ntwo\n", "line"),
            ("one\rtwo", "line"),
            ("\"key\"\n", "quotes"),
            ("'key'", "quotes"),
            ("Bearer key", "Bearer"),
            ("bearer key", "Bearer"),
            ("TTN_API_KEY=key", "variable"),
            ("export TTN_API_KEY=key", "variable"),
            ("two words", "white space"),
        ] {
            let problem = Secret::new(text).unwrap_err();
            assert!(problem.contains(word), "{text:?}: {problem}");
        }
        for text in ["dGVzdA==", "it's", "\"", "bearer"] {
            assert_eq!(Secret::new(text).unwrap().reveal(), text);
        }
    }

    #[test]
    fn only_the_whole_text_matches() {
        let secret = Secret::new("token").unwrap();
        assert!(secret.matches(b"token"));
        for other in ["", "toke", "tokens", "tokem", "Token", "token\0"] {
            assert!(!secret.matches(other.as_bytes()), "{other:?}");
        }
    }

    #[test]
    fn a_file_without_end_is_refused() {
        assert!(Secret::from_file(Path::new("/dev/zero")).is_err());
    }
}
