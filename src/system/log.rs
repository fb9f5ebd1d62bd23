//! The log on standard error: which lines, and in which form.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::{env, fs, panic};

/// This program in the filters of RUST_LOG.
const OWN: &str = "ttn_gateway_exporter";

/// Logs to standard error, with priorities if that is the journal, and panics as errors.
pub fn start_log(is_verbose: bool) {
    let is_journal = is_journal();
    let mut builder = env_logger::Builder::new();
    builder.parse_filters(&filters(is_verbose, env::var("RUST_LOG").ok().as_deref()));
    builder.format(move |line, record| {
        let (priority, level) = match record.level() {
            log::Level::Error => ("<3>", "error"),
            log::Level::Warn => ("<4>", "warning"),
            log::Level::Info => ("<6>", "info"),
            _ => ("<7>", "debug"),
        };
        match is_journal {
            true => writeln!(line, "{priority}{}", record.args()),
            false => writeln!(line, "{level}: {}", record.args()),
        }
    });
    builder.init();
    panic::set_hook(Box::new(|panic| {
        let payload = panic.payload_as_str().unwrap_or("no message");
        match panic.location() {
            Some(place) => log::error!("a defect at {place}: {payload}"),
            None => log::error!("a defect: {payload}"),
        }
    }));
}

/// The filters for env_logger: what RUST_LOG asks for, else warnings of the libraries and more
/// of this program. `--verbose` overrules what RUST_LOG says of this program.
fn filters(is_verbose: bool, rust_log: Option<&str>) -> String {
    let rust_log = rust_log.map(str::trim).filter(|text| !text.is_empty());
    let (directives, text) = match rust_log.map(|text| (text, text.split_once('/'))) {
        Some((_, Some((directives, _)))) if is_verbose => (directives, String::new()),
        Some((_, Some((directives, text)))) => (directives, format!("/{text}")),
        Some((directives, None)) => (directives, String::new()),
        None => ("warn,ttn_gateway_exporter=info", String::new()),
    };
    let directives = directives.split(',').map(str::trim);
    let mut kept: Vec<&str> = directives
        .filter(|directive| !is_verbose || !directive.starts_with(OWN))
        .collect();
    if is_verbose {
        kept.push("ttn_gateway_exporter=debug");
    }
    // It calls it an error that its listener was shut, which is on purpose.
    if !kept
        .iter()
        .any(|directive| directive.starts_with("tiny_http"))
    {
        kept.push("tiny_http=off");
    }
    kept.join(",") + &text
}

/// Whether standard error is the journal. JOURNAL_STREAM names the device and inode of the
/// service's output (systemd.exec(5)); a program that the service starts inherits the variable
/// even where its own output goes elsewhere.
fn is_journal() -> bool {
    let Ok(stream) = env::var("JOURNAL_STREAM") else {
        return false;
    };
    let own = io::stderr().as_fd().try_clone_to_owned();
    let own = own.and_then(|descriptor| fs::File::from(descriptor).metadata());
    own.is_ok_and(|own| stream == format!("{}:{}", own.dev(), own.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(is_verbose: bool, rust_log: Option<&str>, expected: &str) {
        assert_eq!(filters(is_verbose, rust_log), expected, "{rust_log:?}");
    }

    #[test]
    fn rust_log_decides_unless_verbose_does() {
        check(false, None, "warn,ttn_gateway_exporter=info,tiny_http=off");
        check(
            false,
            Some(" "),
            "warn,ttn_gateway_exporter=info,tiny_http=off",
        );
        check(false, Some("info"), "info,tiny_http=off");
        check(false, Some("debug/api"), "debug,tiny_http=off/api");
        check(false, Some("tiny_http=info"), "tiny_http=info");
        let own = "ttn_gateway_exporter=debug,tiny_http=off";
        check(true, None, &format!("warn,{own}"));
        check(true, Some("off"), &format!("off,{own}"));
        check(true, Some("ureq=debug/x"), &format!("ureq=debug,{own}"));
        check(
            true,
            Some("warn, ttn_gateway_exporter::http=off"),
            &format!("warn,{own}"),
        );
    }
}
