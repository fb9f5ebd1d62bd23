//! The log on standard error: which lines, and in which form.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::{env, fs, panic};

use log::LevelFilter;

/// This program in the filters of RUST_LOG.
const OWN: &str = "ttn_gateway_exporter";

/// Logs to standard error, with priorities if that is the journal, and panics as errors.
pub fn start_log(is_verbose: bool) {
    let is_journal = is_journal();
    let rust_log = env::var("RUST_LOG").unwrap_or_default();
    let mut builder = filtered(is_verbose, rust_log.trim());
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

/// Lets through what RUST_LOG asks for, else warnings of the libraries and more of this program.
/// `--verbose` overrules what RUST_LOG says of this program.
fn filtered(is_verbose: bool, rust_log: &str) -> env_logger::Builder {
    let mut builder = env_logger::Builder::new();
    // It calls it an error that its listener was shut, which is on purpose.
    builder.filter_module("tiny_http", LevelFilter::Off);
    let directives = match rust_log {
        "" => "warn,ttn_gateway_exporter=info",
        _ => rust_log,
    };
    if !is_verbose {
        builder.parse_filters(directives);
        return builder;
    }
    // What stands after a slash is a text that each line has to have.
    let directives = directives.split('/').next().unwrap_or_default();
    for directive in directives.split(',') {
        if !directive.trim().starts_with(OWN) {
            builder.parse_filters(directive);
        }
    }
    builder.filter_module(OWN, LevelFilter::Debug);
    builder
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
    use LevelFilter::{Debug, Error, Info, Off, Warn};
    use log::{Log, Metadata};

    use super::*;

    /// The most that is let through of this program's HTTP server, of ureq and of tiny_http.
    #[track_caller]
    fn check(is_verbose: bool, rust_log: &str, expected: [LevelFilter; 3]) {
        let logger = filtered(is_verbose, rust_log).build();
        let of = |target| {
            let is_through = |level: &LevelFilter| {
                let Some(level) = level.to_level() else {
                    return true;
                };
                let metadata = Metadata::builder().level(level).target(target).build();
                logger.enabled(&metadata)
            };
            LevelFilter::iter().filter(is_through).last()
        };
        let targets = ["ttn_gateway_exporter::http", "ureq::run", "tiny_http"];
        let actual = targets.map(|target| of(target).expect("off at least"));
        assert_eq!(actual, expected, "{is_verbose} {rust_log:?}");
    }

    #[test]
    fn rust_log_decides_unless_verbose_does() {
        check(false, "", [Info, Warn, Off]);
        check(false, "info", [Info, Info, Off]);
        check(false, "debug/api", [Debug, Debug, Off]);
        check(false, "tiny_http=info", [Off, Off, Info]);
        check(true, "", [Debug, Warn, Off]);
        check(true, "off", [Debug, Off, Off]);
        check(true, "error", [Debug, Error, Off]);
        check(true, "ureq=debug/x", [Debug, Debug, Off]);
        check(
            true,
            "warn, ttn_gateway_exporter::http=off",
            [Debug, Warn, Off],
        );
    }

    #[test]
    fn a_text_in_rust_log_is_looked_for_unless_verbose_says_otherwise() {
        for (is_verbose, expected) in [(false, false), (true, true)] {
            let logger = filtered(is_verbose, "debug/api").build();
            let text = format_args!("listening");
            let record = log::Record::builder().target(OWN).args(text).build();
            assert_eq!(logger.matches(&record), expected, "{is_verbose}");
        }
    }
}
