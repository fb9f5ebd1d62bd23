//! The status page in a real browser: the real exporter before a fake Things Stack with
//! gateways in every state, at the width of a phone and of a desk, light and dark.
//!
//! With `SCREENSHOTS=DIR` it writes a picture of each view. Without Chromium and its driver it
//! says that it did not run.

use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fake::{Fake, Fleet, Gateway, Key, Misbehaviour, clock, demo, hostile};
use crate::harness::{Exporter, PATIENCE, Setup};
use crate::webdriver::{Browser, View};

/// What Chromium shows of its own accord: an empty start page.
const OWN_PAGES: [&str; 3] = ["data:", "chrome:", "about:"];

const TAB: char = '\u{e004}';

/// A tablet too: there the table is still cards, two beside each other.
const VIEWS: [(&str, View); 6] = [
    ("phone-light", view(360, 780, true, false)),
    ("phone-dark", view(360, 780, true, true)),
    ("tablet-light", view(768, 1024, true, false)),
    ("tablet-dark", view(768, 1024, true, true)),
    ("desk-light", view(1280, 900, false, false)),
    ("desk-dark", view(1280, 900, false, true)),
];

const fn view(width: u32, height: u32, is_phone: bool, is_dark: bool) -> View {
    View {
        width,
        height,
        is_dark,
        is_phone,
    }
}

/// The browser, or a plain word that this test did not run.
fn browser() -> Option<Browser> {
    let browser = Browser::start();
    if browser.is_none() {
        // Past the capture of the test runner.
        let _ = writeln!(
            std::io::stderr(),
            "NOT RUN: the status page in a browser needs chromium and chromedriver \
             (Debian: chromium, chromium-driver)"
        );
    }
    browser
}

/// The hostile fleet and a few that are hard to show.
fn fleet() -> Fleet {
    let now = clock::now_seconds();
    let mut fleet = hostile::fleet(now);
    let more = [
        Gateway::new("reversed")
            .named("\u{202e}desrever <b>&amp; \"quoted\" 'name'")
            .connected("udp"),
        Gateway::new("a-gateway-id-of-all-thirty-six-chars")
            .named(&"Unbreakable".repeat(5)[..50])
            .connected("udp"),
        Gateway::new("nameless").named("").connected("grpc"),
    ];
    fleet.gateways.extend(more);
    fleet.reindex();
    fleet
}

/// Gateways as an operator would have them, two of them worth a look.
fn five() -> Fleet {
    let mut fleet = demo::fleet(clock::now_seconds());
    let shown = [
        "rooftop-kerlink-01",
        "water-tower",
        "library-laird-rg1xx",
        "harbour-rak7268",
        "uncle-in-ohio",
    ];
    fleet
        .gateways
        .retain(|gateway| shown.contains(&gateway.id.as_str()));
    fleet.reindex();
    fleet
}

/// As many as a page cannot hold, every fortieth of them down.
fn five_hundred() -> Fleet {
    let now = clock::now_seconds();
    let mut fleet = Fleet::generated(500);
    let old = std::mem::take(&mut fleet.gateways);
    let dated = old.into_iter().zip(1..).map(|(gateway, number)| {
        let mut times = json!({
            "connected_at": clock::rfc3339(now - 9_000 * number),
            "last_status_received_at": clock::rfc3339(now - 20),
            "last_uplink_received_at": clock::rfc3339(now - number),
        });
        if number % 40 == 0 {
            times = json!({
                "connected_at": null,
                "disconnected_at": clock::rfc3339(now - 60 * number),
                "last_status_received_at": clock::rfc3339(now - 61 * number),
                "last_uplink_received_at": clock::rfc3339(now - 61 * number),
            });
        }
        gateway.stats_with(times)
    });
    fleet.gateways = dated.collect();
    fleet
}

fn save(browser: &Browser, name: &str) {
    let Some(folder) = std::env::var_os("SCREENSHOTS") else {
        return;
    };
    let folder = Path::new(&folder);
    std::fs::create_dir_all(folder).expect("the folder of SCREENSHOTS");
    let path = folder.join(format!("{name}.png"));
    std::fs::write(&path, browser.picture()).expect("a picture in SCREENSHOTS");
    println!("{}", path.display());
}

/// What of the page is not as it should be; each script returns what offends.
const FAULTS: [(&str, &str); 7] = [
    (
        "the page is wider than the screen",
        "const page = document.documentElement;
         return page.scrollWidth > page.clientWidth ? [page.scrollWidth] : [];",
    ),
    (
        "outside of the screen",
        "return [...document.querySelectorAll('body *')].filter(element => {
             const box = element.getBoundingClientRect();
             const heading = element.closest('thead');
             if (heading && heading.getBoundingClientRect().width <= 1) return false;
             return box.width > 0 && (box.left < -0.5 || box.right > innerWidth + 0.5);
         }).map(element => element.outerHTML.slice(0, 200));",
    ),
    (
        "wider than its cell, its tile or its card",
        "return [...document.querySelectorAll('td, tbody th, .totals li, .name b, dd, li p')]
             .filter(element => element.checkVisibility())
             .filter(element => element.scrollWidth > element.clientWidth + 1)
             .map(element => element.outerHTML.slice(0, 200));",
    ),
    (
        "a disclosure that is not one line inside of its card",
        "return [...document.querySelectorAll('summary')].filter(summary => {
             const own = summary.getBoundingClientRect();
             const card = summary.closest('tbody').getBoundingClientRect();
             return own.left < card.left + 100 || own.right > card.right || own.height > 40
                 || own.top < card.top || own.bottom > card.bottom;
         }).map(summary => summary.closest('tbody').outerHTML.slice(0, 200));",
    ),
    (
        "text with less contrast than 4.5 to 1",
        "const numbers = color => color.match(/[\\d.]+/g).map(Number);
         const part = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
         const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
         const ground = element => {
             for (; element; element = element.parentElement) {
                 const color = numbers(getComputedStyle(element).backgroundColor);
                 if (color[3] !== 0) return color;
             }
             return [255, 255, 255];
         };
         const hasText = e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
         return [...document.querySelectorAll('body, body *')].filter(hasText).map(element => {
             const shades = [numbers(getComputedStyle(element).color), ground(element)];
             const [low, high] = shades.map(light).sort((a, b) => a - b);
             return [(high + 0.05) / (low + 0.05), element.outerHTML.slice(0, 200)];
         }).filter(([contrast]) => !(contrast >= 4.5));",
    ),
    (
        "something that runs, or was loaded beside the page",
        "return [...document.querySelectorAll('script, iframe, object, [onload], [style]')]
             .map(element => element.outerHTML)
             .concat(performance.getEntriesByType('resource').map(entry => entry.name));",
    ),
    (
        "a time without its exact moment",
        "return [...document.querySelectorAll('time')].filter(time =>
             !/^\\d{4}-\\d\\d-\\d\\d \\d\\d:\\d\\d:\\d\\d UTC$/.test(time.title)
             || isNaN(new Date(time.dateTime))).map(time => time.outerHTML);",
    ),
];

#[track_caller]
fn assert_faultless(browser: &Browser, name: &str) {
    for (fault, script) in FAULTS {
        let found = browser.run(script);
        assert_eq!(found, Value::Array(vec![]), "{name}: {fault}");
    }
}

/// What a person sees of the page, as text.
#[track_caller]
fn assert_visible(browser: &Browser, name: &str, expected: &[&str]) {
    let text = browser.run("return document.body.innerText.replaceAll('\\u00a0', ' ');");
    let text = text.as_str().unwrap_or_default();
    for words in expected {
        assert!(text.contains(words), "{name}: no {words:?} in\n{text}");
    }
}

/// Only the exporter was asked, and nothing was refused by the page's policy.
#[track_caller]
fn assert_quiet(browser: &Browser, exporter: &Exporter) {
    let console = browser.log("browser");
    assert!(console.is_empty(), "{console:?}");
    let log = browser.log("performance");
    let messages = log.iter().filter_map(|entry| entry["message"].as_str());
    let messages = messages.filter_map(|text| serde_json::from_str::<Value>(text).ok());
    let mut own = 0;
    for message in messages {
        let message = &message["message"];
        if message["method"] != "Network.requestWillBeSent" {
            continue;
        }
        let url = message["params"]["request"]["url"]
            .as_str()
            .unwrap_or_default();
        let is_page = url == format!("{}/", exporter.url());
        let is_own = OWN_PAGES.iter().any(|start| url.starts_with(start));
        assert!(is_page || is_own, "asked for {url}");
        own += usize::from(is_page);
    }
    assert!(own > 0, "the log does not even have the page: {log:?}");
}

#[test]
fn the_page_is_whole_and_readable_on_every_screen() {
    let Some(browser) = browser() else { return };
    let fake = Fake::start(fleet());
    let exporter = Setup::against(&fake).args(["--ttl", "300"]).start();
    exporter.scrape();
    let asked = fake.request_count();
    for (name, view) in VIEWS {
        browser.show_as(view);
        browser.open(&format!("{}/", exporter.url()));
        assert_faultless(&browser, name);
        assert_visible(
            &browser,
            name,
            &[
                "3 of 12 gateways are disconnected",
                "Disconnected\n",
                "for 3 h",
                "over 48 h, or never seen",
                "Unknown\n",
                "the API key must not be sent to its cluster",
                "Allow it only if that host is yours.",
                "Connected\n",
                "\"Élèves\" 🚀 <script>alert(1)</script> # TYPE ttn_up \\ counter",
                "<b>&amp; \"quoted\" 'name'",
                "Rooftop, north side",
                "rooftop-kerlink-01",
                "Uplinks per hour",
                "69 ms",
                "0.31 % of 1 %",
                "868–868.6 MHz",
                "semtechws/lbslns",
                concat!("ttn-gateway-exporter ", env!("CARGO_PKG_VERSION")),
            ],
        );
    }
    assert_eq!(
        fake.request_count(),
        asked,
        "a view costs requests of its own"
    );
    assert_quiet(&browser, &exporter);
}

#[test]
fn the_worst_gateways_come_first_and_the_table_stays_one_for_a_screen_reader() {
    let Some(browser) = browser() else { return };
    let fake = Fake::start(fleet());
    let exporter = Exporter::start(&fake);
    for (name, view) in VIEWS {
        browser.show_as(view);
        browser.open(&format!("{}/", exporter.url()));
        let states = browser
            .run("return [...document.querySelectorAll('tbody')].map(body => body.className);");
        let states = states.as_array().cloned().unwrap_or_default();
        let rank = |state: &Value| match state.as_str() {
            Some("disconnected") => 0,
            Some("unknown") => 1,
            Some("connected") => 2,
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(states.len(), 12, "{name}");
        assert!(states.is_sorted_by_key(rank), "{name}: {states:?}");
        let roles = [
            "table", "thead th", "tbody tr", "tbody th", "tbody td", "main", "footer",
        ];
        let roles = roles.map(|selector| browser.role(selector));
        let expected = [
            "table",
            "columnheader",
            "row",
            "rowheader",
            "cell",
            "main",
            "contentinfo",
        ];
        assert_eq!(roles, expected, "{name}");
    }
}

#[test]
fn a_keyboard_reaches_every_link_and_sees_where_it_is() {
    let Some(browser) = browser() else { return };
    let fake = Fake::start(fleet());
    let exporter = Exporter::start(&fake);
    browser.show_as(VIEWS[0].1);
    browser.open(&format!("{}/", exporter.url()));
    let all = browser.run(
        "window.stops = [...document.querySelectorAll('a[href], input:not([type=hidden]), button, \
         summary')].filter(element => element.checkVisibility());
         return [window.stops.length, window.stops.filter(stop => stop.matches('summary')).length];",
    );
    let count = all[0].as_u64().unwrap_or_default();
    assert_eq!(all[1], 12, "a row that no key opens");
    assert!(count > 12 + 5, "{all}");
    for index in 0..count {
        browser.press(TAB);
        let focused = browser.run(
            "const style = getComputedStyle(document.activeElement);
             return [window.stops.indexOf(document.activeElement), style.outlineStyle];",
        );
        assert_eq!(
            focused,
            Value::from(vec![Value::from(index), Value::from("solid")])
        );
    }
}

#[test]
fn a_click_on_a_tile_shows_its_gateways_and_the_page_still_refreshes() {
    let Some(browser) = browser() else { return };
    let fake = Fake::start(fleet());
    let exporter = Exporter::start(&fake);
    browser.show_as(VIEWS[4].1);
    browser.open(&format!("{}/", exporter.url()));
    browser.run("document.querySelector('.totals a').click();");
    wait_for(
        &browser,
        "return location.search === '?state=disconnected';",
    );
    let states =
        browser.run("return [...document.querySelectorAll('tbody')].map(body => body.className);");
    assert_eq!(states, Value::from(vec!["disconnected"; 3]));
    // The same refresh, sooner: a browser runs it again from the element's content.
    let refresh = browser.run("return document.querySelector('meta[http-equiv]').content;");
    assert_eq!(refresh, "30;url=/?state=disconnected");
    browser.run(
        "const meta = document.createElement('meta');
         meta.httpEquiv = 'refresh';
         meta.content = '0;url=/?state=disconnected';
         window.isOld = true;
         location.hash = 'gateways';
         document.head.append(meta);",
    );
    wait_for(
        &browser,
        "return !window.isOld && document.readyState === 'complete';",
    );
    browser.run("document.querySelector('header a').click();");
    wait_for(
        &browser,
        "return location.search === '?state=disconnected&refresh=0';",
    );
    let refreshes = browser.run("return document.querySelectorAll('meta[http-equiv]').length;");
    assert_eq!(refreshes, 0);
}

#[test]
fn a_search_is_a_plain_form_and_a_row_opens() {
    let Some(browser) = browser() else { return };
    let fake = Fake::start(fleet());
    let exporter = Exporter::start(&fake);
    for (name, view) in VIEWS {
        browser.show_as(view);
        browser.open(&format!("{}/?refresh=0", exporter.url()));
        browser.run(
            "document.querySelector('[name=q]').value = 'KERLINK';
             document.querySelector('form').submit();",
        );
        wait_for(
            &browser,
            "return location.search === '?refresh=0&q=KERLINK';",
        );
        browser.run("document.querySelectorAll('summary').forEach(row => row.click());");
        assert_faultless(&browser, name);
        let words = [
            "1 gateway with",
            "203.0.113.7",
            "open this gateway",
            "52.37403, 4.88969",
        ];
        assert_visible(&browser, name, &words);
        save(&browser, &format!("{name}-open"));
    }
}

/// Waits until this function body returns true in the page.
#[track_caller]
fn wait_for(browser: &Browser, script: &str) {
    let end = Instant::now() + PATIENCE;
    while browser.run(script) != Value::Bool(true) {
        let at = browser.run("return location.href;");
        assert!(Instant::now() < end, "never: {script} at {at}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn five_and_five_hundred_gateways_fit_on_every_screen() {
    let Some(browser) = browser() else { return };
    for (count, fleet) in [(5, five()), (500, five_hundred())] {
        let fake = Fake::start(fleet);
        let exporter = Setup::against(&fake).args(["--ttl", "9"]).start();
        if std::env::var_os("SCREENSHOTS").is_some() {
            // There are no rates before the second collection.
            exporter.scrape();
            thread::sleep(Duration::from_secs(10));
        }
        for (width, height) in [(360, 780), (1280, 900)] {
            for (scheme, is_dark) in [("light", false), ("dark", true)] {
                let name = format!("page-{width}-{scheme}-{count}");
                browser.show_as(view(width, height, width == 360, is_dark));
                browser.open(&format!("{}/", exporter.url()));
                assert_faultless(&browser, &name);
                let rows = browser.run("return document.querySelectorAll('tbody').length;");
                assert_eq!(rows, count.min(100), "{name}");
                let order = browser
                    .run("return [...document.querySelectorAll('h2')].map(heading => heading.id);");
                assert_eq!(order, Value::from(vec!["gateways", "api"]), "{name}");
                save(&browser, &name);
            }
        }
    }
}

#[test]
fn the_name_of_a_state_is_not_broken_on_a_narrow_screen() {
    let Some(browser) = browser() else { return };
    let fake = Fake::start(five());
    let exporter = Exporter::start(&fake);
    // The narrowest phones, and a usual one with a scroll bar that takes room.
    for width in [320, 345, 360] {
        browser.show_as(view(width, 780, true, false));
        browser.open(&format!("{}/", exporter.url()));
        let name = format!("{width}");
        assert_faultless(&browser, &name);
        let broken = browser.run(
            "return [...document.querySelectorAll('.totals a span')].filter(label =>
                 label.getClientRects().length > 1).map(label => label.innerText);",
        );
        assert_eq!(broken, Value::Array(vec![]), "{name}");
    }
}

#[test]
fn long_words_of_a_server_fit_on_a_narrow_screen() {
    let Some(browser) = browser() else { return };
    let fake = Fake::start(Fleet::of([]));
    for word in ["--".to_owned() + &"x".repeat(150), "y".repeat(150)] {
        let message = format!("error:pkg:no_rights (see {word})");
        let body = json!({ "code": 7, "message": message }).to_string();
        fake.script_all(Misbehaviour::json(403, &body));
        let exporter = Exporter::start(&fake);
        browser.show_as(VIEWS[0].1);
        browser.open(&format!("{}/", exporter.url()));
        assert_visible(&browser, &word, &[&word[..40]]);
        assert_faultless(&browser, &word);
    }
}

#[test]
fn a_page_without_gateways_says_what_to_do() {
    let Some(browser) = browser() else { return };
    let empty = Fake::start(Fleet::of([]));
    let lists_nothing = Exporter::start(&empty);
    let fake = Fake::start(fleet());
    let refused = Setup::with_key(&fake, &Key::organization("acme")).start();
    for (name, view) in VIEWS {
        browser.show_as(view);
        browser.open(&format!("{}/", lists_nothing.url()));
        assert_faultless(&browser, name);
        assert_visible(
            &browser,
            name,
            &["No gateways", "--exclude", "collaborator of the gateways"],
        );
        browser.open(&format!("{}/", refused.url()));
        assert_faultless(&browser, name);
        let words = [
            "The gateways are not known",
            "does not accept the API key",
            "Make a new",
        ];
        assert_visible(&browser, name, &words);
    }
}

/// The page, once it has these words.
#[track_caller]
fn page_with(exporter: &Exporter, words: &str) -> String {
    let end = Instant::now() + PATIENCE;
    loop {
        let page = exporter
            .get_with_headers("/", &[("Accept", "text/html")])
            .text();
        if page.contains(words) {
            return page;
        }
        assert!(Instant::now() < end, "never: {words}\n{page}\n{exporter}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_outage_is_told_while_it_lasts_and_after_it() {
    let fake = Fake::start(Fleet::of([Gateway::new("alone").connected("udp")]));
    let exporter = Setup::against(&fake).args(["--ttl", "0.2"]).start();
    page_with(&exporter, "<h1>The gateway is connected</h1>");
    fake.script_all(Misbehaviour::status(503));
    let page = page_with(&exporter, "<h1>The gateway is unknown</h1>");
    let words = "The state of 1 gateway is unknown because the API has a failure.";
    assert!(page.contains(words), "{page}");
    fake.behave();
    let page = page_with(&exporter, "<h1>The gateway is connected</h1>");
    assert!(
        page.contains(">just now</time>: the API has a failure"),
        "{page}"
    );
}

#[test]
fn a_page_goes_out_with_its_policy() {
    let fake = Fake::start(fleet());
    let exporter = Exporter::start(&fake);
    let page = exporter.get_with_headers("/", &[("Accept", "text/html")]);
    let policy = page.header("Content-Security-Policy").unwrap_or_default();
    assert!(
        policy.starts_with("default-src 'none'; style-src 'sha256-"),
        "{page}"
    );
    assert!(!policy.contains("unsafe"), "{page}");
    assert_eq!(
        page.header("X-Content-Type-Options"),
        Some("nosniff"),
        "{page}"
    );
    assert_eq!(
        page.header("Referrer-Policy"),
        Some("no-referrer"),
        "{page}"
    );
}
