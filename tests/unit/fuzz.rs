//! How property tests run: so many cases, the same on each machine; or, with `FUZZ_SECONDS`, for
//! that long with ever new ones. What fails is shown as small as it can be made. Tests only.

use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::{Strategy, any};
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

/// Checks the property for values of the strategy: it panics where it does not hold.
#[track_caller]
pub fn check<S: Strategy>(cases: u32, strategy: S, property: impl Fn(S::Value)) {
    let seconds = std::env::var("FUZZ_SECONDS").ok();
    let time = seconds.map(|s| Duration::from_secs(s.parse().expect("a number of seconds")));
    let start = Instant::now();
    let mut round = 0;
    while round == 0 || time.is_some_and(|time| start.elapsed() < time) {
        run(round, cases, &strategy, &property);
        round += 1;
    }
    println!("{} cases", round * u64::from(cases));
}

#[track_caller]
fn run<S: Strategy>(round: u64, cases: u32, strategy: &S, property: &impl Fn(S::Value)) {
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_time: 60_000,
        ..Config::default()
    };
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&round.to_le_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let outcome = TestRunner::new_with_rng(config, random).run(strategy, |value| {
        property(value);
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, value)) => panic!("round {round}: {reason}: {value:#?}"),
        Err(TestError::Abort(reason)) => panic!("round {round}: {reason}"),
    }
}

/// One of the texts with a few places changed: replaced by one of the pieces or by any byte, or
/// cut off.
pub fn mutations(
    texts: Vec<Vec<u8>>,
    pieces: &'static [&'static [u8]],
) -> impl Strategy<Value = Vec<u8>> {
    let change = (
        any::<Index>(),
        0..40_usize,
        0..8_u8,
        any::<u8>(),
        select(pieces),
    );
    (select(texts), vec(change, 1..=5)).prop_map(|(mut bytes, changes)| {
        for (at, length, kind, byte, piece) in changes {
            let at = at.index(bytes.len() + 1);
            let end = (at + length).min(bytes.len());
            match kind {
                0 => bytes.truncate(at),
                1 => drop(bytes.drain(at..end)),
                2 => bytes.extend_from_within(at..end),
                3 => drop(bytes.splice(at..end.min(at + 1), [byte])),
                _ => drop(bytes.splice(at..end.min(at + length % 4), piece.iter().copied())),
            }
        }
        bytes
    })
}
