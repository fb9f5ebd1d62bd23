//! The texts in the binary: what `--print` writes, which an operator needs beside the program,
//! and the style of the status page. `src/package/build.rs` compresses them, to a fifth; here
//! they are inflated each time that one is asked for, and none is kept.

use std::io::Read;

use flate2::bufread::DeflateDecoder;

/// What `--print` can write.
pub const NAMES: [&str; 4] = ["dashboard", "alerts", "scrape-config", "unit"];

/// The text of one of [`NAMES`].
pub fn text(name: &str) -> Option<String> {
    Some(inflate(match name {
        "dashboard" => include_bytes!(concat!(env!("OUT_DIR"), "/dashboard.json")),
        "alerts" => include_bytes!(concat!(env!("OUT_DIR"), "/alerts.yml")),
        "scrape-config" => include_bytes!(concat!(env!("OUT_DIR"), "/scrape-config.yml")),
        "unit" => include_bytes!(concat!(env!("OUT_DIR"), "/ttn-gateway-exporter.service")),
        _ => return None,
    }))
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
    use super::{NAMES, style, text};

    #[track_caller]
    fn check(inflated: String, file: &str) {
        assert!(inflated == file, "{} bytes: {inflated}", inflated.len());
    }

    #[test]
    fn what_is_inflated_is_the_file() {
        for (name, file) in NAMES.into_iter().zip([
            include_str!("dashboard.json"),
            include_str!("alerts.yml"),
            include_str!("scrape-config.yml"),
            include_str!("ttn-gateway-exporter.service"),
        ]) {
            check(text(name).expect("a text"), file);
        }
        check(style(), include_str!("page.css"));
        assert_eq!(text("page.css"), None);
    }
}
