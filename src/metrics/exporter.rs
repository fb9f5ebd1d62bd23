//! The metrics of the exporter itself and of its process: each one's name, type, labels and help
//! exactly once, beside the function that writes its samples.
//!
//! They change with every request, so they are never cached. Every series whose labels are known
//! beforehand is there from the start, at 0: a rate needs a point before the first event.

use crate::error::Reason;
use crate::metrics::text_format::{Family, Label, Row, row, write_rows};
use crate::model::{Counters, Endpoint, RateLimit};
use crate::system::Process;

/// Everything that does not depend on the snapshot.
pub fn render_exporter(counters: &Counters, process: &Process) -> Vec<u8> {
    // 19 reasons and some 40 other samples.
    let mut output = Vec::with_capacity(4 * 1024);
    write_rows(&mut output, &COUNTER_ROWS, counters);
    write_rows(&mut output, &PROCESS_ROWS, process);
    output
}

#[rustfmt::skip]
pub const COUNTER_ROWS: [Row<Counters>; 8] = [
    row("counter", "ttn_exporter_errors_total", &["reason"], "Pieces of information that could not be obtained, by reason",
        errors),
    row("counter", "ttn_exporter_api_requests_total", &["endpoint", "code"], "Requests to the API by HTTP status; the code is \"error\" where no answer came",
        requests),
    row("summary", "ttn_exporter_api_request_duration_seconds", &["endpoint"], "Time from sending a request to the API to the last byte of its answer",
        request_durations),
    row("gauge", "ttn_exporter_api_rate_limit_requests", &["cluster"], "Requests that the server allows in a period, as it last said",
        |family, counters| rate_limits(family, counters, |limit| limit.limit)),
    row("gauge", "ttn_exporter_api_rate_limit_available_requests", &["cluster"], "Requests that the server still allows in this period, as it last said",
        |family, counters| rate_limits(family, counters, |limit| limit.available)),
    row("counter", "ttn_exporter_cache_hits_total", &[], "Gateways whose stats were served from memory",
        |family, counters| family.sample(&[], counters.cache_hits)),
    row("counter", "ttn_exporter_cache_misses_total", &[], "Gateways whose stats had to be fetched",
        |family, counters| family.sample(&[], counters.cache_misses)),
    row("gauge", "ttn_exporter_build_info", &["version", "revision", "target"], "What this exporter was built from and for; always 1",
        build_info),
];

#[rustfmt::skip]
pub const PROCESS_ROWS: [Row<Process>; 7] = [
    row("counter", "process_cpu_seconds_total", &[], "Processor time spent in user mode and in the kernel",
        |family, process| family.value(process.cpu_time)),
    row("gauge", "process_resident_memory_bytes", &[], "Memory of the process that is in RAM",
        |family, process| family.value(process.resident_memory_bytes)),
    row("gauge", "process_virtual_memory_bytes", &[], "Address space of the process",
        |family, process| family.value(process.virtual_memory_bytes)),
    row("gauge", "process_open_fds", &[], "Open file descriptors",
        |family, process| family.value(process.open_fds)),
    row("gauge", "process_max_fds", &[], "Most file descriptors that may be open at once",
        |family, process| family.value(process.max_fds)),
    row("gauge", "process_threads", &[], "Threads of the process",
        |family, process| family.value(process.threads)),
    row("gauge", "process_start_time_seconds", &[], "When the process started, since the Unix epoch",
        |family, process| family.value(process.start_time)),
];

fn errors(family: &mut Family<'_>, counters: &Counters) {
    for (reason, count) in Reason::all().zip(counters.errors) {
        family.sample(&[Label::Text(reason.label())], count);
    }
}

fn requests(family: &mut Family<'_>, counters: &Counters) {
    for ((endpoint, status), count) in &counters.requests {
        let code = match status {
            Some(status) => Label::Integer((*status).into()),
            None => Label::Text("error"),
        };
        family.sample(&[Label::Text(endpoint.label()), code], *count);
    }
}

fn request_durations(family: &mut Family<'_>, counters: &Counters) {
    for endpoint in Endpoint::ALL {
        let index = endpoint as usize;
        let sum = counters.request_duration[index];
        let labels = [Label::Text(endpoint.label())];
        family.summary(&labels, sum, counters.request_count[index]);
    }
}

fn rate_limits(family: &mut Family<'_>, counters: &Counters, value: fn(&RateLimit) -> u64) {
    for (cluster, limit) in &counters.rate_limits {
        family.sample(&[Label::Text(cluster)], value(limit));
    }
}

/// Revision and target are known to whoever builds, and handed over as environment variables:
/// a source archive has no revision, and the compiler does not tell its target.
fn build_info(family: &mut Family<'_>, _: &Counters) {
    const HERE: [&str; 2] = [std::env::consts::ARCH, std::env::consts::OS];
    let target = match option_env!("TTN_TARGET") {
        Some(target) => target,
        None => &HERE.join("-"),
    };
    let labels = [
        env!("CARGO_PKG_VERSION"),
        option_env!("TTN_REVISION").unwrap_or("unknown"),
        target,
    ];
    family.sample(&labels.map(Label::Text), 1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition_parser;

    #[test]
    fn the_exporter_has_every_reason_and_endpoint_from_the_start_and_no_unknown_figure() {
        let text = render_exporter(&Counters::default(), &Process::default());
        let text = String::from_utf8(text).expect("UTF-8");
        exposition_parser::parse(&text).expect("it is valid");
        for reason in Reason::all() {
            let label = reason.label();
            let line = format!("\nttn_exporter_errors_total{{reason=\"{label}\"}} 0\n");
            assert!(text.contains(&line), "{line}");
        }
        for endpoint in Endpoint::ALL {
            let label = endpoint.label();
            let name = "ttn_exporter_api_request_duration_seconds";
            assert!(text.contains(&format!("\n{name}_sum{{endpoint=\"{label}\"}} 0\n")));
            assert!(text.contains(&format!("\n{name}_count{{endpoint=\"{label}\"}} 0\n")));
        }
        let version = env!("CARGO_PKG_VERSION");
        assert!(text.contains(&format!("build_info{{version=\"{version}\",revision=\"")));
        for absent in ["process_", "api_requests_total", "api_rate_limit"] {
            assert!(!text.contains(absent), "{absent}");
        }
    }
}
