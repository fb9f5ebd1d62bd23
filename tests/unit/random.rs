//! Random input for the property tests, the same on each machine. Tests only.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Marsaglia's xorshift: random enough for tests.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        // Neighbouring seeds must lie far apart, and xorshift never leaves zero.
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// Bytes with a few places changed: replaced by one of the pieces or by any byte, or cut off.
    pub fn mutate(&mut self, bytes: &[u8], pieces: &[&[u8]]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..1 + self.below(5) {
            let at = self.below(bytes.len() + 1);
            let end = (at + self.below(4)).min(bytes.len());
            let piece = pieces[self.below(pieces.len())];
            match self.below(8) {
                0 => bytes.truncate(at),
                1..4 => drop(bytes.splice(at..end, [self.next() as u8])),
                _ => drop(bytes.splice(at..end, piece.iter().copied())),
            }
        }
        bytes
    }
}

/// Does it so many times, or for as long as `FUZZ_SECONDS` says, each time with a seed of its
/// own. A failure names the seed.
#[track_caller]
pub fn repeat(rounds: u64, check: impl Fn(&mut Random)) {
    let seconds = std::env::var("FUZZ_SECONDS").ok();
    let time = seconds.map(|s| Duration::from_secs(s.parse().expect("a number of seconds")));
    let start = Instant::now();
    let mut seed = 0;
    while time.map_or(seed < rounds, |time| start.elapsed() < time) {
        seed += 1;
        let mut random = Random::new(seed);
        let outcome = catch_unwind(AssertUnwindSafe(|| check(&mut random)));
        assert!(outcome.is_ok(), "with seed {seed}");
    }
    println!("{seed} rounds");
}
