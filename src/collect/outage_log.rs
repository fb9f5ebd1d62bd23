//! What the log says about collections: a line when something begins to fail or works again,
//! and silence in between, so that an outage of a week does not wear out an SD card. Pure.

use std::collections::{BTreeMap, BTreeSet};

use log::Level;

use crate::error::{FetchError, Reason};
use crate::model::Snapshot;

/// How many gateways a line names.
const NAMED_MAX: usize = 3;
/// How many lines there are about one collection: registrations can name thousands of hosts.
const LINES_MAX: usize = 20;

#[derive(Default)]
pub struct OutageLog {
    /// Those of the last collection: what failed, and why.
    outages: BTreeSet<(String, Reason)>,
}

struct Outage<'a> {
    error: &'a FetchError,
    gateways: Vec<&'a str>,
}

impl OutageLog {
    /// The lines to log about this collection: what has changed since the one before.
    pub fn enter(&mut self, collection: &Snapshot) -> Vec<(Level, String)> {
        let outages = outages_of(collection);
        let mut lines = Vec::new();
        for (about, outage) in &outages {
            if !self.outages.contains(about) {
                lines.push((Level::Warn, outage.describe(&about.0)));
            }
        }
        for about in &self.outages {
            if !outages.contains_key(about) {
                let over = format!("{}: over ({})", about.0, about.1.label());
                lines.push((Level::Info, over));
            }
        }
        let more = lines.len().saturating_sub(LINES_MAX);
        lines.truncate(LINES_MAX);
        if more > 0 {
            lines.push((Level::Warn, format!("and {more} more of such lines")));
        }
        self.outages = outages.into_keys().collect();
        lines
    }
}

impl Outage<'_> {
    fn describe(&self, subject: &str) -> String {
        let error = self.error;
        let mut line = format!("{subject}: {error}. {}", error.reason.advice());
        if !self.gateways.is_empty() {
            let named = self.gateways.get(..NAMED_MAX).unwrap_or(&self.gateways);
            let more = match self.gateways.len().saturating_sub(NAMED_MAX) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            line.push_str(&format!(" Unknown now: {}{more}.", named.join(", ")));
        }
        line
    }
}

/// One outage for the list, and one for each reason within each cluster, in the words of its
/// first gateway.
fn outages_of(collection: &Snapshot) -> BTreeMap<(String, Reason), Outage<'_>> {
    let of_list = collection.list_error.iter();
    let of_list = of_list.map(|error| ("list of gateways".to_owned(), error, None));
    let of_gateways = collection.gateways.iter().filter_map(|report| {
        let (error, id) = (report.error()?, &*report.gateway.gateway_id);
        Some((format!("stats from {}", report.cluster), error, Some(id)))
    });
    let mut outages = BTreeMap::new();
    for (subject, error, gateway) in of_list.chain(of_gateways) {
        let gateways = Vec::new();
        let outage = outages.entry((subject, kind(error)));
        let outage = outage.or_insert(Outage { error, gateways });
        outage.gateways.extend(gateway);
    }
    outages
}

/// An API that hangs is met as a timeout or as a want of time, depending on the scrape: that is one
/// outage.
fn kind(error: &FetchError) -> Reason {
    match error.reason {
        Reason::Budget => Reason::Timeout,
        reason => reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples::{failed, report, snapshot};
    use crate::model::GatewayReport;

    fn collection(list_error: Option<Reason>, failing: &[(&str, Reason)]) -> Snapshot {
        let reports = failing
            .iter()
            .map(|(id, reason)| report(id, failed(*reason)));
        Snapshot {
            list_error: list_error.and_then(|reason| failed(reason).err()),
            ..snapshot(reports.collect())
        }
    }

    #[track_caller]
    fn check(outage_log: &mut OutageLog, collection: Snapshot, expected: &[&str]) {
        let lines = outage_log.enter(&collection).into_iter();
        let lines = lines.map(|(_, line)| line);
        assert_eq!(lines.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_line_comes_when_a_state_changes_and_only_then() {
        let mut outage_log = OutageLog::default();
        let timeout = "list of gateways: what happened (timeout). The API or the link to it is slow; --timeout allows more time.";
        let limited =
            "list of gateways: what happened (rate_limited). Scrape less often, or raise --ttl.";
        check(&mut outage_log, collection(None, &[]), &[]);
        check(
            &mut outage_log,
            collection(Some(Reason::Timeout), &[]),
            &[timeout],
        );
        check(&mut outage_log, collection(Some(Reason::Timeout), &[]), &[]);
        check(
            &mut outage_log,
            collection(Some(Reason::RateLimited), &[]),
            &[limited, "list of gateways: over (timeout)"],
        );
        check(
            &mut outage_log,
            collection(None, &[]),
            &["list of gateways: over (rate_limited)"],
        );
        check(&mut outage_log, collection(None, &[]), &[]);
    }

    #[test]
    fn an_api_that_hangs_is_one_outage_whatever_ends_the_wait() {
        let mut outage_log = OutageLog::default();
        let of = |reason| collection(Some(reason), &[("a", reason)]);
        assert_eq!(outage_log.enter(&of(Reason::Timeout)).len(), 2);
        for reason in [Reason::Budget, Reason::Timeout, Reason::Budget] {
            assert_eq!(outage_log.enter(&of(reason)), [], "{reason:?}");
        }
        assert_eq!(outage_log.enter(&of(Reason::Dns)).len(), 4);
    }

    #[test]
    fn a_cluster_is_one_line_that_names_a_few_gateways() {
        let mut outage_log = OutageLog::default();
        let failing = ["a", "b", "c", "d", "e"].map(|id| (id, Reason::Dns));
        let line = "stats from eu1: what happened (dns). Check this machine's name servers and the host name of --server. Unknown now: a, b, c and 2 more.";
        check(&mut outage_log, collection(None, &failing), &[line]);
        check(&mut outage_log, collection(None, &failing[1..]), &[]);
    }

    #[test]
    fn the_lines_about_one_collection_are_bounded() {
        let mut outage_log = OutageLog::default();
        let reports = (0..2000).map(|number| GatewayReport {
            cluster: format!("c{number}").into(),
            ..report("g", failed(Reason::UnknownHost))
        });
        let lines = outage_log.enter(&snapshot(reports.collect()));
        assert_eq!(lines.len(), LINES_MAX + 1);
        assert_eq!(lines[LINES_MAX].1, "and 1980 more of such lines");
        assert_eq!(outage_log.enter(&snapshot(Vec::new())).len(), LINES_MAX + 1);
    }

    #[test]
    fn a_gateway_that_is_refused_for_good_hides_no_outage_of_its_cluster() {
        let mut outage_log = OutageLog::default();
        let refused = ("a", Reason::Forbidden);
        let forbidden = "stats from eu1: what happened (forbidden). Grant it in the console, under API keys, and to the key's owner as a collaborator. Unknown now: a.";
        let timeout = "stats from eu1: what happened (timeout). The API or the link to it is slow; --timeout allows more time. Unknown now: b.";
        check(&mut outage_log, collection(None, &[refused]), &[forbidden]);
        let outage = [refused, ("b", Reason::Timeout)];
        check(&mut outage_log, collection(None, &outage), &[timeout]);
        let over = "stats from eu1: over (timeout)";
        check(&mut outage_log, collection(None, &[refused]), &[over]);
    }
}
