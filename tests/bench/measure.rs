//! One fleet size after the other: what a cold collection and a cached scrape of it cost, and
//! what a thousand collections leave behind.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::Plan;
use crate::fake::{Fake, Fleet};
use crate::floor::Floor;
use crate::harness::{Exporter, Setup};
use crate::load::{Cost, Target};
use crate::process::{self, Usage};

/// What a request to a distant server takes: some 30 ms each way.
pub const DELAY: Duration = Duration::from_millis(60);
/// The shortest that the exporter takes, so that collections may follow each other quickly.
const TTL: Duration = Duration::from_millis(100);
/// Longer than the benchmark.
const FOR_EVER: [&str; 4] = ["--ttl", "86400", "--list-ttl", "86400"];

/// Everything about one size.
#[derive(Default)]
pub struct Costs {
    pub gateways: usize,
    pub api: Api,
    pub answer_bytes: usize,
    pub answer_gzip_bytes: usize,
    pub cold: Cost,
    pub cold_delayed: Duration,
    pub plain: Cached,
    pub gzip: Cached,
    pub rates: Vec<Rates>,
    pub at_start: Usage,
    pub after_first: Usage,
    pub at_end: Usage,
}

/// What went over the wire for one cold collection, without TCP and TLS.
#[derive(Default)]
pub struct Api {
    pub lists: usize,
    pub batches: usize,
    pub connections: usize,
    pub list: Traffic,
    pub batch: Traffic,
}

#[derive(Clone, Copy, Default)]
pub struct Traffic {
    pub sent: usize,
    pub received: usize,
    /// What it would be without gzip.
    pub received_plain: usize,
}

#[derive(Default)]
pub struct Cached {
    pub exporter: Cost,
    pub floor: Cost,
}

/// Scrapes per second.
pub struct Rates {
    pub connections: usize,
    pub exporter: f64,
    pub floor: f64,
}

pub fn all(plan: &Plan) -> Vec<Costs> {
    let fakes: Vec<Fake> = plan
        .sizes
        .iter()
        .map(|size| Fake::start(Fleet::generated(*size)))
        .collect();
    let sizes = plan.sizes.iter().zip(&fakes);
    let mut costs: Vec<Costs> = sizes.map(|(size, fake)| one(*size, fake, plan)).collect();
    // Most of the time they wait for their TTL, so all sizes share it; no time is taken here.
    thread::scope(|scope| {
        for (costs, fake) in costs.iter_mut().zip(&fakes) {
            scope.spawn(|| grow(costs, fake, plan.collections));
        }
    });
    costs
}

fn one(size: usize, fake: &Fake, plan: &Plan) -> Costs {
    eprintln!("measuring {size} gateways");
    let mut costs = Costs {
        gateways: size,
        ..Costs::default()
    };
    // The first prepares the answers of the fake.
    let exporter = start(fake, &FOR_EVER);
    target(&exporter).answer();
    costs.api = api(fake);
    measure_cached(&mut costs, &exporter, plan);
    drop(exporter);
    let mut colds: Vec<Cost> = (0..plan.cold_runs).map(|_| cold(fake)).collect();
    colds.sort_by_key(|cost| cost.cpu);
    costs.cold.cpu = colds[colds.len() / 2].cpu;
    colds.sort_by_key(|cost| cost.wall);
    costs.cold.wall = colds[colds.len() / 2].wall;
    fake.set_delay(DELAY);
    // The better of two: what else the machine does in these seconds only adds.
    let delayed = [cold(fake).wall, cold(fake).wall];
    costs.cold_delayed = delayed[0].min(delayed[1]);
    fake.set_delay(Duration::ZERO);
    costs
}

fn start(fake: &Fake, arguments: &[&str]) -> Exporter {
    let arguments = arguments.iter().copied();
    Setup::against(fake)
        .args(arguments)
        .args(["--timeout", "50"])
        .start()
}

fn target(exporter: &Exporter) -> Target {
    Target {
        address: exporter.address,
        process_id: exporter.process_id(),
        takes_gzip: false,
    }
}

/// The first scrape of a new process.
fn cold(fake: &Fake) -> Cost {
    fake.forget();
    target(&start(fake, &FOR_EVER)).scrape()
}

fn measure_cached(costs: &mut Costs, exporter: &Exporter, plan: &Plan) {
    let plain = target(exporter);
    let gzip = Target {
        takes_gzip: true,
        ..plain
    };
    costs.answer_bytes = exporter.get("/metrics").body.len();
    let compressed = exporter.get_with_headers("/metrics", &[("Accept-Encoding", "gzip")]);
    costs.answer_gzip_bytes = compressed.body.len();
    let plain_floor = Floor::start(&plain.answer());
    costs.plain = beside(plain, &plain_floor, plan);
    costs.gzip = beside(gzip, &Floor::start(&gzip.answer()), plan);
    let floor = beside_target(plain, &plain_floor);
    costs.rates = [1, 8]
        .into_iter()
        .map(|connections| Rates {
            connections,
            exporter: best_rate(plain, connections, plan),
            floor: best_rate(floor, connections, plan),
        })
        .collect();
}

fn beside_target(target: Target, floor: &Floor) -> Target {
    Target {
        address: floor.address,
        process_id: floor.process_id(),
        ..target
    }
}

/// In turns, and the best turn of each counts: what else the machine does only adds.
fn beside(target: Target, floor: &Floor, plan: &Plan) -> Cached {
    let floor = beside_target(target, floor);
    let turns: Vec<(Cost, Cost)> = (0..plan.rounds)
        .map(|_| (target.scrape_for(plan.turn), floor.scrape_for(plan.turn)))
        .collect();
    let best = |of: fn(&(Cost, Cost)) -> Cost| Cost {
        wall: turns.iter().map(|t| of(t).wall).min().unwrap_or_default(),
        cpu: turns.iter().map(|t| of(t).cpu).min().unwrap_or_default(),
    };
    Cached {
        exporter: best(|turn| turn.0),
        floor: best(|turn| turn.1),
    }
}

fn best_rate(target: Target, connections: usize, plan: &Plan) -> f64 {
    let rates = (0..plan.rounds).map(|_| target.rate(connections, plan.turn));
    rates.fold(0.0, f64::max)
}

/// What the fake has recorded of one cold collection.
fn api(fake: &Fake) -> Api {
    let mut api = Api {
        connections: fake.connection_count(),
        ..Api::default()
    };
    for record in fake.records() {
        let (count, traffic) = match record.endpoint {
            crate::fake::Endpoint::List => (&mut api.lists, &mut api.list),
            _ => (&mut api.batches, &mut api.batch),
        };
        *count += 1;
        traffic.sent += record.request.size_bytes;
        traffic.received += record.bytes_out;
        traffic.received_plain += plain_answer_bytes(fake.address(), &record.request);
    }
    api
}

/// Asks once more for the same, by hand and without gzip.
fn plain_answer_bytes(address: SocketAddr, request: &crate::fake::Request) -> usize {
    let mut text = format!("{} {} HTTP/1.1\r\n", request.method, request.target);
    for (name, value) in &request.headers {
        if !name.eq_ignore_ascii_case("accept-encoding") {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    text.push_str("Connection: close\r\n\r\n");
    let mut stream = TcpStream::connect(address).expect("the fake");
    let bytes = [text.as_bytes(), &request.body].concat();
    stream.write_all(&bytes).expect("the fake reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the fake answers");
    answer.len()
}

/// Collection after collection, as Prometheus asks for them, with gzip.
fn grow(costs: &mut Costs, fake: &Fake, collections: usize) {
    let ttl = TTL.as_secs_f64().to_string();
    let exporter = start(fake, &["--ttl", &ttl, "--list-ttl", "10"]);
    let target = Target {
        takes_gzip: true,
        ..target(&exporter)
    };
    costs.at_start = settled(target.process_id);
    for count in 0..collections {
        let next = Instant::now() + TTL + Duration::from_millis(1);
        target.scrape();
        fake.forget();
        if count == 0 {
            costs.after_first = settled(target.process_id);
        }
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    costs.at_end = settled(target.process_id);
}

/// Once the thread of the last visitor has ended.
fn settled(process_id: u32) -> Usage {
    thread::sleep(Duration::from_millis(100));
    process::usage(process_id)
}
