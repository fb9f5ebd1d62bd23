//! Whatever gateways are called and whatever an address asks for, the status page is markup of its
//! own alone: known elements that are closed in order, and links that lead nowhere else.
//!
//! Tests only; `FUZZ_SECONDS` prolongs them.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Strategy, any};

use super::render;
use super::tests::{collection, hosts};
use crate::fuzz;
use crate::metrics::properties::{double, report, text};
use crate::model::{Counters, GatewayReport};

const ELEMENTS: &str = "a b bdi body button caption code dd details div dl dt footer form h1 h2 \
     header html input label li main nav p rect section small span summary svg table tbody td th \
     thead time tr ul wbr";
const VOID: [&str; 2] = ["input", "wbr"];

fn gateway() -> impl Strategy<Value = GatewayReport> {
    let rate = option::of(double());
    (report(), text(), text(), rate).prop_map(|(mut report, id, cluster, rate)| {
        Arc::make_mut(&mut report.gateway).gateway_id = id;
        report.cluster = cluster.into();
        report.uplinks_per_hour = rate;
        report
    })
}

/// What stands between `?` and `#`, mostly with parameters that the page knows.
fn address() -> impl Strategy<Value = String> {
    vec((0..6_usize, text(), any::<bool>()), 0..4).prop_map(|parameters| {
        let parameter = |(name, value, is_encoded): (usize, String, bool)| {
            let name = ["state", "q", "page", "refresh", "", "other"][name];
            match is_encoded {
                true => format!("{name}={}", super::query::percent_encoded(&value)),
                false => format!("{name}={value}"),
            }
        };
        let parameters: Vec<_> = parameters.into_iter().map(parameter).collect();
        parameters.join("&")
    })
}

fn check_page((gateways, query, seconds): (Vec<GatewayReport>, String, u32)) {
    let mut collection = collection(Vec::new());
    collection.gateways = gateways;
    let now = UNIX_EPOCH + Duration::from_secs(seconds.into());
    let html = render(&collection, &Counters::default(), &hosts(), &query, now);
    let (_, body) = html.split_once("</head>\n").expect("a head");
    let mut open = vec!["html"];
    for part in body.split('<').skip(1) {
        let (tag, text) = part.split_once('>').expect("a tag that ends");
        assert!(!text.contains(['>', '"', '\'']), "{text}");
        check_attributes(tag);
        let name = tag.split([' ', '/']).find(|name| !name.is_empty());
        let name = name.expect("a name");
        assert!(ELEMENTS.split(' ').any(|known| known == name), "{tag}");
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "{body}");
        } else if !tag.ends_with('/') && !VOID.contains(&name) {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?} in {body}");
}

#[track_caller]
fn check_attributes(tag: &str) {
    assert!(tag.matches('"').count().is_multiple_of(2), "{tag}");
    for (name, value) in tag.split("\" ").filter_map(|pair| pair.split_once("=\"")) {
        let name = name.rsplit(' ').next().unwrap_or_default();
        let is_own = ["/", "https://eu1.cloud.thethings.network/console/"];
        let is_own = is_own.iter().any(|start| value.starts_with(start));
        assert!(name != "href" || is_own, "{tag}");
        assert!(!name.starts_with("on") && name != "style", "{tag}");
    }
}

#[test]
fn the_page_is_its_own_markup_alone() {
    let gateways = vec(gateway(), 0..4);
    fuzz::check(500, (gateways, address(), any::<u32>()), check_page);
}
