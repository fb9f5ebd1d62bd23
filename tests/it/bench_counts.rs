//! What the benchmark counts, as assertions: requests and connections for each size of fleet,
//! and that collection after collection leaves nothing behind. Times are never asserted.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::fake::{Endpoint, Fake, Fleet};
use crate::harness::{Exporter, Setup};

/// The sizes of `make bench-quick`.
const SIZES: [usize; 3] = [1, 100, 1_000];
/// Enough for the allocator to have met every size that it will meet.
const COLLECTIONS_BEFORE: usize = 10;
const COLLECTIONS: usize = 40;
/// Less than one leaked text or collection of 100 gateways for each collection would take.
const GROWTH_KIB_MAX: u64 = 1024;

#[track_caller]
fn check_collection(size: usize) {
    let fake = Fake::start(Fleet::generated(size));
    let exporter = Exporter::start(&fake);
    let scrape = exporter.scrape();
    scrape.assert_value("ttn_up", 1.0);
    let counts = [fake.count(Endpoint::List), fake.request_count()];
    let lists = size.div_ceil(1_000);
    // A gateway alone is asked for alone.
    let expected = [lists, lists + size.div_ceil(100)];
    assert_eq!(counts, expected, "{size}: lists and all requests");
    assert_eq!(fake.connection_count(), 1, "{size}: connections");
}

#[test]
fn a_collection_takes_as_many_requests_as_it_must() {
    SIZES.into_iter().for_each(check_collection);
}

/// Resident KiB, open files, threads.
fn usage(exporter: &Exporter) -> [u64; 3] {
    let directory = format!("/proc/{}", exporter.process_id());
    let status = fs::read_to_string(format!("{directory}/status")).expect("it runs");
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let word = line.and_then(|rest| rest.split_whitespace().next());
        word.and_then(|word| word.parse().ok())
            .expect("a number of proc(5)")
    };
    let files = fs::read_dir(format!("{directory}/fd")).expect("it runs");
    [number("VmRSS:"), files.count() as u64, number("Threads:")]
}

/// Files and threads once the last connection is closed, which takes a moment.
fn settled(exporter: &Exporter, most: [u64; 3]) -> [u64; 3] {
    for _ in 0..100 {
        let now = usage(exporter);
        if now[1] <= most[1] && now[2] <= most[2] {
            return now;
        }
        thread::sleep(Duration::from_millis(20));
    }
    usage(exporter)
}

fn threads(exporter: &Exporter) -> BTreeSet<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", exporter.process_id())).expect("it runs");
    let name = |task: fs::DirEntry| task.file_name().to_string_lossy().into_owned();
    tasks.map(|task| name(task.expect("a task"))).collect()
}

#[test]
fn cached_scrapes_start_no_thread_and_no_request() {
    let fake = Fake::start(Fleet::generated(1));
    let exporter = Exporter::start(&fake);
    exporter.scrape();
    let (before, requests) = (threads(&exporter), fake.request_count());
    for _ in 0..20 {
        let mut client = TcpStream::connect(exporter.address).expect("it listens");
        let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
        client.write_all(request).expect("it reads");
        client.read_to_end(&mut Vec::new()).expect("an answer");
        // The worker of this connection waits until it closes, and is free a moment later.
        let serving = threads(&exporter);
        assert!(serving.is_subset(&before), "{serving:?} after {before:?}");
        drop(client);
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(fake.request_count(), requests);
}

#[test]
fn collections_leave_no_memory_no_file_and_no_thread_behind() {
    let fake = Fake::start(Fleet::generated(100));
    let exporter = Setup::against(&fake).args(["--ttl", "0.1"]).start();
    let collect = |times| {
        for _ in 0..times {
            exporter.scrape();
            thread::sleep(Duration::from_millis(101));
        }
    };
    collect(COLLECTIONS_BEFORE);
    let before = usage(&exporter);
    collect(COLLECTIONS);
    assert_eq!(
        fake.count(Endpoint::StatsBatch),
        COLLECTIONS_BEFORE + COLLECTIONS
    );
    assert_eq!(fake.connection_count(), 1);
    let [resident_kib, files, threads] = settled(&exporter, before);
    assert!(files <= before[1], "{files} files after {}", before[1]);
    assert!(
        threads <= before[2],
        "{threads} threads after {}",
        before[2]
    );
    // Under an emulator it is the emulator's memory, which grows with what it translates.
    let is_emulated = std::env::var_os("TTN_EXPORTER_RUNNER").is_some_and(|r| !r.is_empty());
    let growth = resident_kib.saturating_sub(before[0]);
    assert!(
        is_emulated || growth <= GROWTH_KIB_MAX,
        "{growth} KiB more than {}",
        before[0]
    );
}
