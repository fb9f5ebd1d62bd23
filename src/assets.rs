//! The files that `--print` writes: what an operator needs beside the binary, in the binary.

/// The text of one of `args::PRINTABLE`.
pub fn text(name: &str) -> &'static str {
    match name {
        "dashboard" => include_str!("assets/dashboard.json"),
        "alerts" => include_str!("assets/alerts.yml"),
        "scrape-config" => include_str!("assets/scrape-config.yml"),
        "unit" => include_str!("assets/ttn-gateway-exporter.service"),
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn everything_that_can_be_printed_has_a_text() {
        for name in crate::args::PRINTABLE {
            assert!(super::text(name).ends_with('\n'), "{name}");
        }
    }
}
