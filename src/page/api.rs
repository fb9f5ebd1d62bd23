//! How the API does, on the status page: what is wrong and what to do about it, above the
//! table, and the figures of the exporter's work with the API, below it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::error::{FetchError, Reason};
use crate::model::{Collection, Tallies};

use super::text::{Grouped, Host, Isolated, Tense, Took, When, amount, timestamp, unix_seconds};

/// A clock that is further behind than this makes the ages on the page wrong.
const CLOCK_TOLERANCE_SECONDS: i64 = 120;

/// What is wrong with the API, and what to do about it; nothing where all is well.
pub fn problems(collection: &Collection, now: SystemTime) -> String {
    let mut items: Vec<_> = [clock_problem(collection, now), list_problem(collection)]
        .into_iter()
        .flatten()
        .collect();
    items.extend(gateway_problems(collection));
    if items.is_empty() {
        return String::new();
    }
    let items = items.concat();
    format!(
        "<section aria-label=\"Problems\">\n<ul class=\"problems\">\n{items}</ul>\n</section>\n"
    )
}

fn problem(what: &str, error: &FetchError) -> String {
    format!(
        "<li><p><b>{what} because {}.</b> {}</p>\n<p class=\"context\">{}</p></li>\n",
        error.reason.words(),
        error.reason.advice(),
        Isolated(&error.context)
    )
}

fn list_problem(collection: &Collection) -> Option<String> {
    let error = collection.list_error.as_ref()?;
    let what = match collection.gateways.is_empty() {
        true => "The list of gateways is missing",
        false => "The list of gateways may be old or incomplete",
    };
    Some(problem(what, error))
}

/// One problem for each reason, the one that hides most gateways first. The contexts of one
/// reason are alike, so the first stands for all.
fn gateway_problems(collection: &Collection) -> Vec<String> {
    let mut by_reason: BTreeMap<Reason, Vec<&FetchError>> = BTreeMap::new();
    for error in collection
        .gateways
        .iter()
        .filter_map(|g| g.outcome.as_ref().err())
    {
        by_reason.entry(error.reason).or_default().push(error);
    }
    let mut errors: Vec<_> = by_reason.into_values().collect();
    errors.sort_by_key(|same| Reverse(same.len()));
    let told = errors.iter().map(|same| match same.len() {
        1 => problem("The state of 1 gateway is unknown", same[0]),
        count => problem(
            &format!("The state of {count} gateways is unknown"),
            same[0],
        ),
    });
    told.collect()
}

/// A machine without a battery clock starts in the past until it has reached a time server.
fn clock_problem(collection: &Collection, now: SystemTime) -> Option<String> {
    let stats = collection.gateways.iter().filter_map(|g| g.stats());
    let newest = stats.filter_map(|s| s.last_seen()).max()?;
    let behind = newest.seconds.saturating_sub(unix_seconds(now));
    let amount = amount(behind.unsigned_abs())?;
    (behind > CLOCK_TOLERANCE_SECONDS).then(|| {
        format!(
            "<li><p><b>The clock of this machine is about {amount} behind.</b> The ages on this \
             page are wrong until it is set: check that it reaches a time server.</p></li>\n"
        )
    })
}

/// How the API does.
pub fn facts(collection: &Collection, tallies: &Tallies, now: SystemTime) -> String {
    let (at, tense) = (timestamp(collection.at), Tense::Event);
    let complete = match collection.is_complete() {
        true => "complete",
        false => "incomplete",
    };
    let collected = format!(
        "{}, {complete}, took {}",
        When { at, now, tense },
        Took(collection.duration)
    );
    let requests: u64 = tallies.request_count.iter().sum();
    let mut html = "<section aria-labelledby=\"api\">\n<h2 id=\"api\">The Things Stack API</h2>\n\
                    <dl>\n"
        .to_string();
    for (term, description) in [
        ("Last collection", collected),
        ("Rate limit left", rate_limits(tallies)),
        ("Requests since start", Grouped(requests).to_string()),
        ("Errors since start", errors(tallies)),
        ("Last error", last_error(tallies, now)),
    ] {
        html.push_str(&format!(
            "<div><dt>{term}</dt><dd>{description}</dd></div>\n"
        ));
    }
    html + "</dl>\n</section>\n"
}

fn rate_limits(tallies: &Tallies) -> String {
    let of = tallies.rate_limits.iter().map(|(host, rate)| {
        let (available, limit) = (Grouped(rate.available), Grouped(rate.limit));
        format!("{available} of {limit} <small>{}</small>", Host(host))
    });
    match of.collect::<Vec<_>>() {
        none if none.is_empty() => "not announced".to_string(),
        some => some.join("<br>"),
    }
}

/// By the labels that the metric has, so that one leads to the other.
fn errors(tallies: &Tallies) -> String {
    let counted = Reason::ALL.into_iter().zip(tallies.errors);
    let mut counted: Vec<_> = counted.filter(|(_, count)| *count > 0).collect();
    counted.sort_by_key(|(_, count)| Reverse(*count));
    let of = counted
        .iter()
        .map(|(reason, count)| format!("{} <small>{}</small>", Grouped(*count), reason.label()));
    match of.collect::<Vec<_>>() {
        none if none.is_empty() => "none".to_string(),
        some => some.join(", "),
    }
}

fn last_error(tallies: &Tallies, now: SystemTime) -> String {
    let Some((at, error)) = &tallies.last_error else {
        return "none".to_string();
    };
    let (at, tense) = (timestamp(*at), Tense::Event);
    format!(
        "{}: {} <small>{} {}</small>",
        When { at, now, tense },
        error.reason.words(),
        Isolated(&error.context),
        error.reason.advice()
    )
}
