//! The API on the status page: what is wrong and what to do about it, above the table, and the
//! figures of the exporter's requests, below it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::error::{FetchError, Reason};
use crate::model::{Counters, KeyInfo, Snapshot};

use super::text::{
    Escaped, Grouped, Host, Isolated, Tense, Took, Utc, When, amount, timestamp, unix_seconds,
};

/// A clock that is further behind than this makes the ages on the page wrong.
const CLOCK_TOLERANCE_SECONDS: i64 = 120;

/// A key that expires sooner than this is a problem.
const KEY_EXPIRY_SOON_SECONDS: i64 = 14 * 86_400;

/// What is wrong with the API, and what to do about it; nothing where all is well.
pub fn problems(collection: &Snapshot, now: SystemTime) -> String {
    let mut items: Vec<_> = [clock_problem(collection, now), list_problem(collection)]
        .into_iter()
        .flatten()
        .collect();
    if let Some(key) = &collection.key {
        items.extend(rights_problem(key));
        items.extend(expiry_problem(key, now));
    }
    items.extend(gateway_problems(collection));
    items.extend(collection.warnings.iter().map(|warning| {
        let warning = Isolated(warning);
        format!("<li><p><b>The server sent a warning:</b> {warning}</p></li>\n")
    }));
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
        advice(error.reason),
        Isolated(&error.context)
    )
}

/// What to do, its flags set apart as what they are.
fn advice(reason: Reason) -> String {
    let words = reason.advice().split(' ').map(|word| {
        let flag = word.trim_end_matches(['.', ',', ';']);
        match flag.starts_with("--") {
            true => format!("<code>{flag}</code>{}", &word[flag.len()..]),
            false => word.to_string(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

fn rights_problem(key: &KeyInfo) -> Option<String> {
    let rights: Vec<_> = key
        .missing_rights
        .iter()
        .map(|right| format!("“{}”", Escaped(right)))
        .collect();
    let what = match rights.len() {
        0 => return None,
        1 => "The API key lacks a right that this exporter needs:",
        _ => "The API key lacks rights that this exporter needs:",
    };
    Some(format!(
        "<li><p><b>{what}</b> {}. Grant it in the console, under API keys.</p></li>\n",
        rights.join(", ")
    ))
}

fn expiry_problem(key: &KeyInfo, now: SystemTime) -> Option<String> {
    let (at, tense) = (key.expires_at?, Tense::Event);
    let left = at.seconds.saturating_sub(unix_seconds(now));
    let verb = if left < 0 { "expired" } else { "expires" };
    (left < KEY_EXPIRY_SOON_SECONDS).then(|| {
        format!(
            "<li><p><b>The API key {verb} {}.</b> Make a new one in the console, under API keys, \
             and give it to this exporter.</p></li>\n",
            When { at, now, tense }
        )
    })
}

fn list_problem(collection: &Snapshot) -> Option<String> {
    let error = collection.list_error.as_ref()?;
    let what = match collection.gateways.is_empty() {
        true => "The list of gateways is missing",
        false => "The list of gateways may be old or incomplete",
    };
    Some(problem(what, error))
}

/// One problem for each reason, the one that hides most gateways first. The contexts of one
/// reason are alike, so the first stands for all.
fn gateway_problems(collection: &Snapshot) -> Vec<String> {
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
fn clock_problem(collection: &Snapshot, now: SystemTime) -> Option<String> {
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

/// The figures of the last collection and of all requests.
pub fn facts(collection: &Snapshot, counters: &Counters, now: SystemTime) -> String {
    let (at, tense) = (timestamp(collection.at), Tense::Event);
    let answered = match collection.is_api_up {
        true => "the API answered every request",
        false => "the API did not answer every request",
    };
    let collected = format!(
        "{} <small>took {}; {answered}</small>",
        When { at, now, tense },
        Took(collection.duration)
    );
    let mut html = "<section aria-labelledby=\"api\">\n<h2 id=\"api\">The Things Stack API</h2>\n\
                    <dl class=\"facts\">\n"
        .to_string();
    for (term, description) in [
        ("Last collection", collected),
        ("Gateway list", list_age(collection, now)),
        ("API key", key_life(collection.key.as_deref(), now)),
        ("Rate limit left", rate_limits(counters)),
        ("Since start", since_start(counters)),
        ("Last error", last_error(counters, now)),
    ] {
        html.push_str(&format!(
            "<div><dt>{term}</dt><dd>{description}</dd></div>\n"
        ));
    }
    html + "</dl>\n</section>\n"
}

fn list_age(collection: &Snapshot, now: SystemTime) -> String {
    let (at, tense) = (collection.list_obtained_at.map(timestamp), Tense::Event);
    match at {
        Some(at) => format!("read whole {}", When { at, now, tense }),
        None => "not read whole yet".to_string(),
    }
}

fn key_life(key: Option<&KeyInfo>, now: SystemTime) -> String {
    let Some(key) = key else {
        return "expiry not known".to_string();
    };
    let (at, tense) = (key.expires_at, Tense::Event);
    match at {
        None => "does not expire".to_string(),
        Some(at) if at.seconds < unix_seconds(now) => {
            format!("expired {}", When { at, now, tense })
        }
        Some(at) => format!(
            "expires {} <small>{}</small>",
            When { at, now, tense },
            Utc(at)
        ),
    }
}

/// By the host that announced it.
fn rate_limits(counters: &Counters) -> String {
    let of = counters.rate_limits.iter().map(|(host, rate)| {
        let (available, limit) = (Grouped(rate.available), Grouped(rate.limit));
        format!("{available} of {limit} <small>{}</small>", Host(host))
    });
    match of.collect::<String>() {
        none if none.is_empty() => "not announced".to_string(),
        some => some,
    }
}

/// Reasons are told by the labels that the metric has, so that one leads to the other.
fn since_start(counters: &Counters) -> String {
    let counted = Reason::ALL.into_iter().zip(counters.errors);
    let mut counted: Vec<_> = counted.filter(|(_, count)| *count > 0).collect();
    counted.sort_by_key(|(_, count)| Reverse(*count));
    let by_reason = counted
        .iter()
        .map(|(reason, count)| format!("{}\u{a0}{}", Grouped(*count), reason.label()))
        .collect::<Vec<_>>();
    format!(
        "{}, {} <small>{}</small>",
        counted_noun(counters.request_count.iter().sum(), "request"),
        counted_noun(counters.errors.iter().sum(), "error"),
        by_reason.join(", ")
    )
}

fn counted_noun(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{}\u{a0}{noun}{plural}", Grouped(count))
}

fn last_error(counters: &Counters, now: SystemTime) -> String {
    let Some((at, error)) = &counters.last_error else {
        return "none".to_string();
    };
    let (at, tense) = (timestamp(*at), Tense::Event);
    format!(
        "{}: {} <small>{}</small>",
        When { at, now, tense },
        error.reason.words(),
        advice(error.reason)
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::tests::{check, collection, connected, now, unknown};
    use super::*;
    use crate::model::{ConnectionStats, RateLimit, Timestamp};

    #[test]
    fn every_reason_is_told_with_what_to_do() {
        for reason in Reason::ALL {
            let collection = collection(vec![unknown(reason), unknown(reason)]);
            let what = format!("of 2 gateways is unknown because {}.", reason.words());
            let advice = reason.advice().split(" --").next().unwrap_or_default();
            let context = "<bdi>&lt;the context&gt;</bdi>";
            check(&collection, &Counters::default(), &[&what, advice, context]);
        }
    }

    #[test]
    fn an_error_that_has_passed_is_still_told() {
        let mut counters = Counters::default();
        let error = FetchError::new(Reason::Timeout, "a context");
        counters.last_error = Some((now() - Duration::from_secs(600), Arc::new(error)));
        counters.errors[Reason::Timeout as usize] = 2;
        check(
            &collection(vec![connected()]),
            &counters,
            &[
                ">10 min ago</time>: the API did not answer in time",
                "<code>--timeout</code>",
                "0 requests, 2 errors <small>2 timeout</small>",
            ],
        );
    }

    #[test]
    fn a_clock_that_is_behind_is_named() {
        let mut late = collection(vec![connected()]);
        let seconds = timestamp(now()).seconds + 7_300;
        let seen = Timestamp {
            seconds,
            nanoseconds: 0,
        };
        let stats = ConnectionStats {
            last_status_received_at: Some(seen),
            ..ConnectionStats::default()
        };
        late.gateways[0].outcome = Ok(Some(Arc::new(stats)));
        check(
            &late,
            &Counters::default(),
            &["clock of this machine is about 2 h behind"],
        );
    }

    #[test]
    fn the_rate_limit_of_each_host_is_told() {
        let mut counters = Counters::default();
        check(&collection(vec![]), &counters, &["not announced"]);
        let rate = RateLimit {
            limit: 1_200,
            available: 1_180,
        };
        counters.rate_limits.insert("eu1.example".into(), rate);
        let told = "1,180 of 1,200 <small><bdi>eu1.<wbr>example</bdi></small>";
        check(&collection(vec![]), &counters, &[told]);
    }

    #[test]
    fn what_is_wrong_with_the_key_is_told_before_it_fails() {
        let mut one = collection(vec![connected()]);
        check(
            &one,
            &Counters::default(),
            &["expiry not known", "not read whole yet"],
        );
        one.key = Some(Arc::new(KeyInfo::default()));
        one.list_obtained_at = Some(now() - Duration::from_secs(600));
        check(
            &one,
            &Counters::default(),
            &["does not expire", ">10 min ago</time></dd>"],
        );
        one.key = Some(Arc::new(KeyInfo {
            expires_at: Some(timestamp(now() + Duration::from_secs(5 * 86_400))),
            missing_rights: vec!["view gateway status"],
        }));
        let words = [
            "lacks a right that this exporter needs:</b> “view gateway status”.",
            "<b>The API key expires <time",
            ">in 5 d</time>.</b> Make a new one",
            "2026-11-27 17:13:59 UTC</small>",
        ];
        check(&one, &Counters::default(), &words);
    }

    #[test]
    fn a_warning_of_the_server_is_shown_as_text() {
        let mut one = collection(vec![connected()]);
        one.warnings = vec!["<b>old</b>".into()];
        one.is_api_up = false;
        let words = [
            "The server sent a warning:</b> <bdi>&lt;b&gt;old&lt;/b&gt;</bdi>",
            "the API did not answer every request",
        ];
        check(&one, &Counters::default(), &words);
    }
}
