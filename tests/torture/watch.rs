//! The scraper that has to be served whatever happens, and what the kernel says of the process
//! meanwhile.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::harness::http;

const SCRAPE_INTERVAL: Duration = Duration::from_millis(500);
/// How long one try may take.
const TRY_TIME_MAX: Duration = Duration::from_secs(30);
/// A scraper that got nothing tries again soon; its wait goes on.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Scrapes in a thread of its own until it is asked for its result.
pub struct Scraper {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Scraped>,
}

#[derive(Clone, Debug, Default)]
pub struct Scraped {
    /// From the start of a scrape until a whole answer, over all tries.
    pub longest_wait: Duration,
    pub answers: u32,
    pub failures: Vec<String>,
    pub answer_bytes: usize,
}

impl Scraper {
    pub fn start(address: SocketAddr) -> Scraper {
        let is_over = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            let mut scraped = Scraped::default();
            while !flag.load(Ordering::Relaxed) {
                let start = Instant::now();
                scraped.scrape(address, start);
                thread::sleep(SCRAPE_INTERVAL.saturating_sub(start.elapsed()));
            }
            scraped
        });
        Scraper { is_over, thread }
    }

    /// Lets the scrape under way end and gives what came of all.
    pub fn finish(self) -> Scraped {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().expect("the scraper does not panic")
    }
}

impl Scraped {
    fn scrape(&mut self, address: SocketAddr, start: Instant) {
        while start.elapsed() < TRY_TIME_MAX {
            match scrape(address) {
                Ok(bytes) => {
                    self.answers += 1;
                    self.answer_bytes = bytes;
                    break;
                }
                Err(problem) if self.failures.len() < 1000 => self.failures.push(problem),
                Err(_) => {}
            }
            thread::sleep(RETRY_PAUSE);
        }
        self.longest_wait = self.longest_wait.max(start.elapsed());
    }
}

/// One scrape as Prometheus makes it, but without gzip: the larger answer is the harder one.
pub fn scrape(address: SocketAddr) -> Result<usize, String> {
    let headers = [
        ("Accept", "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"),
        ("X-Prometheus-Scrape-Timeout-Seconds", "10"),
    ];
    let response = http::request(address, "GET", "/metrics", &headers, TRY_TIME_MAX);
    let response = response.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&response.body);
    match response.status == 200 && text.contains("\nttn_up ") {
        true => Ok(response.body.len()),
        false => Err(format!("{response}")),
    }
}

/// What must be after an attack as it was before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub descriptors: usize,
    pub threads: usize,
}

/// None when the process has ended.
pub fn figures(process_id: u32) -> Option<Figures> {
    let entries = |name| fs::read_dir(format!("/proc/{process_id}/{name}")).ok();
    Some(Figures {
        descriptors: entries("fd")?.count(),
        threads: entries("task")?.count(),
    })
}

/// The most resident memory since [`forget_peak`], in bytes.
pub fn peak_memory_bytes(process_id: u32) -> u64 {
    status_kibibytes(process_id, "VmHWM:") * 1024
}

pub fn memory_bytes(process_id: u32) -> u64 {
    status_kibibytes(process_id, "VmRSS:") * 1024
}

/// Makes the present memory the peak (proc(5), clear_refs). Where that is not allowed, the
/// peak is the one since the start, which judges more harshly.
pub fn forget_peak(process_id: u32) {
    let _ = fs::write(format!("/proc/{process_id}/clear_refs"), "5");
}

fn status_kibibytes(process_id: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process_id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or(0)
}
