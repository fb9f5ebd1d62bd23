//! The texts in the binary: what `--print` writes, which an operator needs beside the program,
//! and the style of the status page. `src/package/build.rs` compresses them, to a fifth; here
//! they are inflated each time that one is asked for, and none is kept.

use std::io::Read;

use flate2::bufread::DeflateDecoder;

/// The text of one of `cli::PRINTABLE`.
pub fn text(name: &str) -> String {
    inflate(match name {
        "dashboard" => include_bytes!(concat!(env!("OUT_DIR"), "/dashboard.json")),
        "alerts" => include_bytes!(concat!(env!("OUT_DIR"), "/alerts.yml")),
        "scrape-config" => include_bytes!(concat!(env!("OUT_DIR"), "/scrape-config.yml")),
        "unit" => include_bytes!(concat!(env!("OUT_DIR"), "/ttn-gateway-exporter.service")),
        _ => return String::new(),
    })
}

/// The style of the status page.
pub fn style() -> String {
    inflate(include_bytes!(concat!(env!("OUT_DIR"), "/page.css")))
}

fn inflate(deflated: &[u8]) -> String {
    let mut text = String::new();
    // Cannot fail: the bytes are whole streams of UTF-8, since a build that could not make them
    // so has ended, and the test below inflates each.
    let _ = DeflateDecoder::new(deflated).read_to_string(&mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::{style, text};

    #[track_caller]
    fn check(inflated: String, file: &str) {
        assert!(inflated == file, "{} bytes: {inflated}", inflated.len());
    }

    #[test]
    fn what_is_inflated_is_the_file() {
        check(text("dashboard"), include_str!("dashboard.json"));
        check(text("alerts"), include_str!("alerts.yml"));
        check(text("scrape-config"), include_str!("scrape-config.yml"));
        check(text("unit"), include_str!("ttn-gateway-exporter.service"));
        check(style(), include_str!("page.css"));
    }

    #[test]
    fn everything_that_can_be_printed_has_a_text() {
        for name in crate::cli::PRINTABLE {
            assert!(text(name).ends_with('\n'), "{name}");
        }
    }
}
