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
    /// Takes text that can go into an HTTP header: visible ASCII, after trailing white space
    /// is cut off. The error never repeats the text.
    pub fn new(text: &str) -> Result<Secret, &'static str> {
        let text = text.trim_end();
        if text.is_empty() {
            return Err("is empty");
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("has characters that cannot be sent in an HTTP header");
        }
        Ok(Secret(text.to_owned()))
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
    fn trailing_white_space_is_no_part_of_it() {
        assert_eq!(Secret::new("key \r\n").unwrap().reveal(), "key");
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
