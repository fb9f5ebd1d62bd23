//! The API on the status page: what is wrong and what to do about it, above the table, and the
//! figures of the exporter's requests, below it.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::error::{FetchError, Reason};
use crate::model::{Counters, GatewayReport, KeyInfo, Snapshot, Timestamp};

use super::text::{
    ago, amount, counted, definitions, escaped, grouped, host, isolated, timestamp, took, utc,
};

/// A clock that is further behind than this makes the ages on the page wrong.
const CLOCK_TOLERANCE_SECONDS: i64 = 120;

/// A key that expires sooner than this is a problem.
const KEY_EXPIRY_SOON_SECONDS: i64 = 14 * 86_400;

/// What is wrong with the API, and what to do about it; nothing where all is well.
pub fn problems(snapshot: &Snapshot, now: Timestamp) -> String {
    let key = snapshot.key.as_deref();
    let of_all = [
        clock_problem(snapshot, now),
        list_problem(snapshot),
        key.and_then(rights_problem),
        key.and_then(|key| expiry_problem(key, now)),
    ];
    let mut items: String = of_all.into_iter().flatten().collect();
    items.extend(gateway_problems(snapshot));
    let warning = |text: &String| problem("The server sent a warning:", &isolated(text));
    items.extend(snapshot.warnings.iter().map(warning));
    if items.is_empty() {
        return items;
    }
    format!(
        "<section aria-label=\"Problems\">\n<ul class=\"problems\">\n{items}</ul>\n</section>\n"
    )
}

/// `what` and `advice` are markup.
fn problem(what: &str, advice: &str) -> String {
    format!("<li><p><b>{what}</b> {advice}</p></li>\n")
}

fn failure(what: &str, error: &FetchError) -> String {
    let what = format!("{what} because {}.", error.reason.words());
    let advice = with_flags_marked(error.reason.advice());
    let context = with_flags_marked(&escaped(&error.context));
    let advice = format!("{advice}</p>\n<p class=\"context\"><bdi>{context}</bdi>");
    problem(&what, &advice)
}

/// Markup whose flags are set apart as what they are.
fn with_flags_marked(markup: &str) -> String {
    let marked = |word: &str| {
        let flag = word.trim_end_matches(['.', ',', ':', ' ']);
        match flag.starts_with("--") {
            true => format!("<code>{flag}</code>{}", &word[flag.len()..]),
            false => word.to_string(),
        }
    };
    markup.split_inclusive(' ').map(marked).collect()
}

/// A machine without a battery clock starts in the past until it has reached a time server.
fn clock_problem(snapshot: &Snapshot, now: Timestamp) -> Option<String> {
    let stats = snapshot.gateways.iter().filter_map(GatewayReport::stats);
    let newest = stats
        .filter_map(|s| s.last_seen().max(s.connected_at))
        .max()?;
    let behind = newest.seconds.saturating_sub(now.seconds);
    let amount = amount(behind.unsigned_abs()).filter(|_| behind > CLOCK_TOLERANCE_SECONDS)?;
    let what = format!("The clock of this machine is about {amount} behind.");
    let advice =
        "The ages on this page are wrong until it is set: check that it reaches a time server.";
    Some(problem(&what, advice))
}

fn list_problem(snapshot: &Snapshot) -> Option<String> {
    let error = snapshot.list_error.as_ref()?;
    let what = match snapshot.gateways.is_empty() {
        true => "The list of gateways is missing",
        false => "The list of gateways may be old or incomplete",
    };
    Some(failure(what, error))
}

fn rights_problem(key: &KeyInfo) -> Option<String> {
    let what = match key.missing_rights.len() {
        0 => return None,
        1 => "The API key lacks a right that this exporter needs:",
        _ => "The API key lacks rights that this exporter needs:",
    };
    let rights = escaped(&key.missing_rights.join("”, “"));
    let advice = format!("“{rights}”. Grant it in the console, under API keys.");
    Some(problem(what, &advice))
}

fn expiry_problem(key: &KeyInfo, now: Timestamp) -> Option<String> {
    let at = key.expires_at?;
    let left = at.seconds.saturating_sub(now.seconds);
    let verb = if left < 0 { "expired" } else { "expires" };
    let what = format!("The API key {verb} {}.", ago(at, now));
    let advice = "Make a new one in the console, under API keys, and give it to this exporter.";
    (left < KEY_EXPIRY_SOON_SECONDS).then(|| problem(&what, advice))
}

/// One problem for each reason, the one that hides most gateways first. The contexts of one
/// reason are alike, so the first stands for all.
fn gateway_problems(snapshot: &Snapshot) -> impl Iterator<Item = String> {
    let mut by_reason: BTreeMap<Reason, (u64, &FetchError)> = BTreeMap::new();
    for error in snapshot.gateways.iter().filter_map(GatewayReport::error) {
        by_reason.entry(error.reason).or_insert((0, error)).0 += 1;
    }
    let mut errors: Vec<_> = by_reason.into_values().collect();
    errors.sort_by_key(|(count, _)| Reverse(*count));
    errors.into_iter().map(|(count, error)| {
        let gateways = counted(count, "gateway");
        failure(&format!("The state of {gateways} is unknown"), error)
    })
}

/// The figures of the last collection and of all requests.
pub fn facts(snapshot: &Snapshot, counters: &Counters, now: Timestamp) -> String {
    let answered = match snapshot.is_api_up {
        true => "the API answered every request",
        false => "the API did not answer every request",
    };
    let collected = match snapshot.collected {
        Some((at, duration)) => {
            let (age, duration) = (ago(timestamp(at), now), took(duration));
            format!("{age} <small>took {duration}; {answered}</small>")
        }
        None => "none yet".to_string(),
    };
    let list = match snapshot.list_obtained_at {
        Some(at) => format!("read whole {}", ago(timestamp(at), now)),
        None => "not read whole yet".to_string(),
    };
    definitions(&[
        ("Last collection", collected),
        ("Gateway list", list),
        ("API key", key_life(snapshot.key.as_deref(), now)),
        ("Rate limit left", rate_limits(counters)),
        ("Since start", since_start(counters)),
        ("Last error", last_error(counters, now)),
    ])
}

fn key_life(key: Option<&KeyInfo>, now: Timestamp) -> String {
    match key.map(|key| key.expires_at) {
        None => "expiry not known".to_string(),
        Some(None) => "does not expire".to_string(),
        Some(Some(at)) if at < now => format!("expired {}", ago(at, now)),
        Some(Some(at)) => format!("expires {} <small>{}</small>", ago(at, now), utc(at)),
    }
}

/// One figure for each host that announced it.
fn rate_limits(counters: &Counters) -> String {
    let told = counters.rate_limits.iter().map(|(name, rate)| {
        let (available, limit) = (grouped(rate.available), grouped(rate.limit));
        format!("{available} of {limit} <small>{}</small>", host(name))
    });
    match told.len() {
        0 => "not announced".to_string(),
        _ => told.collect(),
    }
}

/// Reasons are named as in the label `reason` of `ttn_exporter_errors_total`.
fn since_start(counters: &Counters) -> String {
    let mut reasons: Vec<_> = Reason::all().zip(counters.errors).collect();
    reasons.retain(|(_, count)| *count > 0);
    reasons.sort_by_key(|(_, count)| Reverse(*count));
    let words = |&(reason, count): &(Reason, u64)| grouped(count) + "\u{a0}" + reason.label();
    let reasons: Vec<_> = reasons.iter().map(words).collect();
    let requests = counted(counters.request_count.iter().sum(), "request");
    let errors = counted(counters.errors.iter().sum(), "error");
    let reasons = reasons.join(", ");
    format!("{requests}, {errors} <small>{reasons}</small>")
}

fn last_error(counters: &Counters, now: Timestamp) -> String {
    let Some((at, error)) = &counters.last_error else {
        return "none".to_string();
    };
    let (age, words) = (ago(timestamp(*at), now), error.reason.words());
    let advice = with_flags_marked(error.reason.advice());
    format!("{age}: {words} <small>{advice}</small>")
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
        for reason in Reason::all() {
            let collection = collection(vec![unknown(reason), unknown(reason)]);
            let what = format!("of 2 gateways is unknown because {}.", reason.words());
            let advice = reason.advice().split(" --").next().unwrap_or_default();
            let context = "<bdi>&lt;the context&gt;</bdi>";
            check(&collection, &Counters::default(), &[&what, advice, context]);
        }
    }

    #[test]
    fn a_flag_stands_out_and_breaks_no_line() {
        let told = with_flags_marked("the &lt;host&gt;: --allow-host a.example, or --server.");
        let expected =
            "the &lt;host&gt;: <code>--allow-host</code> a.example, or <code>--server</code>.";
        assert_eq!(told, expected);
        let told = with_flags_marked("--&lt;b&gt;");
        assert_eq!(told, "<code>--&lt;b&gt;</code>");
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
        let status = ConnectionStats {
            last_status_received_at: Some(seen),
            ..ConnectionStats::default()
        };
        let connection = ConnectionStats {
            connected_at: Some(seen),
            ..ConnectionStats::default()
        };
        for stats in [status, connection] {
            late.gateways[0].outcome = Ok(Some(Arc::new(stats)));
            check(
                &late,
                &Counters::default(),
                &["clock of this machine is about 2 h behind"],
            );
        }
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
    fn before_the_first_collection_has_ended_there_is_none() {
        let mut none = collection(vec![]);
        none.collected = None;
        let words = "<dt>Last collection</dt><dd>none yet</dd>";
        check(&none, &Counters::default(), &[words]);
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
