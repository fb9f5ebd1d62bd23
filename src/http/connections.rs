//! Who is inside the front door: how many may be, whose turn it is, who has to go.
//!
//! A visitor sends a head, waits for its turn, has its answer fetched and takes it. Turns go
//! in the order of arrival. An answer is fetched only when there is memory for one more as
//! large as the largest so far: as many as fit wait for their readers at once. Who keeps
//! others waiting, for a place or for memory, is sent away: the longest first, and nobody
//! who makes progress. No clock is read in the rules, and nothing is read or written here.

use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// Nobody has to go sooner than this: a head that is on its way arrives within it, also on a
/// busy machine. It bounds what a flood can turn over, by 64 places to 1,280 visitors a second.
const READING_TIME_MIN: Duration = Duration::from_millis(50);
/// A reader that took nothing for so long does not read.
const STALL_TIME_MIN: Duration = Duration::from_millis(200);
/// A slow reader that others wait for has at least this long.
const WRITING_TIME_MIN: Duration = Duration::from_secs(1);
/// Answers that wait for their readers may take as much memory together as three of them,
/// or this where it is more.
const UNDELIVERED_BYTES_MIN: usize = 1 << 20;
const UNDELIVERED_ANSWERS_MAX: usize = 3;
/// How often it is looked again whose turn it is and who has to go.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// What a visitor is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Sending the head.
    Reading,
    /// Waiting for its turn.
    Waiting,
    /// Having its answer fetched; one at a time.
    Asking,
    /// Taking the answer.
    Writing,
    /// About to close.
    Closing,
}

/// One visitor, as the rules see it.
#[derive(Clone, Copy, Debug)]
struct Visit {
    /// In the order of arrival.
    id: u64,
    phase: Phase,
    /// The start of the phase.
    since: Instant,
    /// When it last took a part of its answer.
    progress: Instant,
    /// What its answer takes in memory.
    answer_bytes: usize,
}

#[derive(Default)]
struct Inside {
    last_id: u64,
    visits: Vec<(Visit, Arc<TcpStream>)>,
    /// The threads of those who wait for their turn.
    waiting: Vec<(u64, Thread)>,
    /// Of all so far. It never shrinks: a guess that is too low could be made so on purpose.
    largest_answer_bytes: usize,
}

pub struct Visitors {
    inside: Mutex<Inside>,
    /// Some visitor left.
    left: Condvar,
    places: usize,
}

impl Visitors {
    pub fn new(places: usize) -> Visitors {
        Visitors {
            inside: Mutex::default(),
            left: Condvar::new(),
            places,
        }
    }

    /// Takes somebody in and gives it a number. Waits for a place, which the longest of those
    /// who dawdle has to give up.
    pub fn admit(&self, stream: Arc<TcpStream>) -> u64 {
        let mut inside = self.inside();
        while inside.visits.len() >= self.places {
            send_away(&inside, dawdler(inside.visits(), Instant::now()));
            inside = self.wait(inside, Duration::from_millis(1));
        }
        inside.last_id += 1;
        let id = inside.last_id;
        let now = Instant::now();
        let visit = Visit {
            id,
            phase: Phase::Reading,
            since: now,
            progress: now,
            answer_bytes: 0,
        };
        inside.visits.push((visit, stream));
        id
    }

    /// Closes the connection of whoever dawdles longest. Its thread notices and leaves.
    pub fn send_away_longest(&self) {
        let inside = self.inside();
        send_away(&inside, dawdler(inside.visits(), Instant::now()));
    }

    /// Waits for this visitor's turn and for memory for its answer. Then it is asking, and no
    /// other is. False if that took too long, or it has left: it would keep a place from others.
    pub fn wait_for_turn(&self, id: u64, at_most: Duration, has_left: impl Fn() -> bool) -> bool {
        let start = Instant::now();
        let mut inside = self.inside();
        inside.enter(id, Phase::Waiting, 0);
        inside.waiting.push((id, thread::current()));
        while start.elapsed() < at_most && !has_left() {
            if is_turn(inside.visits(), id) {
                if has_room(inside.visits(), inside.largest_answer_bytes) {
                    inside.enter(id, Phase::Asking, 0);
                    return true;
                }
                send_away(&inside, hindrance(inside.visits(), Instant::now()));
            }
            drop(inside);
            thread::park_timeout(LOOK_INTERVAL);
            inside = self.inside();
        }
        false
    }

    pub fn start_writing(&self, id: u64, answer_bytes: usize) {
        let mut inside = self.inside();
        inside.largest_answer_bytes = inside.largest_answer_bytes.max(answer_bytes);
        inside.enter(id, Phase::Writing, answer_bytes);
        inside.wake_next();
    }

    /// Notes that the reader has taken something.
    pub fn progress(&self, id: u64) {
        if let Some(visit) = self.inside().find(id) {
            visit.progress = Instant::now();
        }
    }

    /// Notes that its answer, if any, is no longer in memory.
    pub fn start_closing(&self, id: u64) {
        let mut inside = self.inside();
        inside.enter(id, Phase::Closing, 0);
        inside.wake_next();
    }

    pub fn leave(&self, id: u64) {
        let mut inside = self.inside();
        inside.visits.retain(|(visit, _)| visit.id != id);
        inside.waiting.retain(|(waiting, _)| *waiting != id);
        inside.wake_next();
        self.left.notify_one();
    }

    /// How many have asked and are not yet answered.
    pub fn in_service(&self) -> usize {
        let is_served =
            |visit: &&Visit| matches!(visit.phase, Phase::Waiting | Phase::Asking | Phase::Writing);
        self.inside().visits().filter(is_served).count()
    }

    /// The list stays true even if a thread panicked with it in its hands: each change to it
    /// is one step.
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(
        &self,
        inside: MutexGuard<'a, Inside>,
        at_most: Duration,
    ) -> MutexGuard<'a, Inside> {
        let woken = self.left.wait_timeout(inside, at_most);
        woken.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Inside {
    fn visits(&self) -> impl Iterator<Item = &Visit> + Clone {
        self.visits.iter().map(|(visit, _)| visit)
    }

    fn find(&mut self, id: u64) -> Option<&mut Visit> {
        let mut visits = self.visits.iter_mut().map(|(visit, _)| visit);
        visits.find(|visit| visit.id == id)
    }

    fn enter(&mut self, id: u64, phase: Phase, answer_bytes: usize) {
        if let Some(visit) = self.find(id) {
            visit.phase = phase;
            visit.since = Instant::now();
            visit.progress = visit.since;
            visit.answer_bytes = answer_bytes;
        }
        self.waiting.retain(|(waiting, _)| *waiting != id);
    }

    /// Wakes whoever came first of those who wait. Waking all of them for each that goes on
    /// would cost a small machine more than its answers do.
    fn wake_next(&self) {
        let next = self.waiting.iter().min_by_key(|(id, _)| *id);
        if let Some((_, thread)) = next {
            thread.unpark();
        }
    }
}

/// Ends the connection; the visitor's thread does the rest.
fn send_away(inside: &Inside, id: Option<u64>) {
    let found = inside.visits.iter().find(|(visit, _)| Some(visit.id) == id);
    if let Some((_, stream)) = found {
        // It may have ended by itself.
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// Whoever has taken longest over reading or writing, and takes a place that others need.
/// Those who wait for the server are not to blame.
fn dawdler<'a>(visits: impl Iterator<Item = &'a Visit>, now: Instant) -> Option<u64> {
    let may_go = |visit: &&Visit| match visit.phase {
        Phase::Reading | Phase::Closing => is_over(visit.since, READING_TIME_MIN, now),
        Phase::Writing => drags(visit, now),
        Phase::Waiting | Phase::Asking => false,
    };
    let longest = visits.filter(may_go).min_by_key(|visit| visit.since);
    longest.map(|visit| visit.id)
}

/// The slowest reader, whose answer takes memory that others need.
fn hindrance<'a>(visits: impl Iterator<Item = &'a Visit>, now: Instant) -> Option<u64> {
    let may_go = |visit: &&Visit| visit.phase == Phase::Writing && drags(visit, now);
    let slowest = visits.filter(may_go).min_by_key(|visit| visit.progress);
    slowest.map(|visit| visit.id)
}

fn drags(visit: &Visit, now: Instant) -> bool {
    is_over(visit.since, WRITING_TIME_MIN, now) || is_over(visit.progress, STALL_TIME_MIN, now)
}

fn is_over(since: Instant, time: Duration, now: Instant) -> bool {
    now.saturating_duration_since(since) >= time
}

/// Nobody is asking, and nobody who waits came earlier.
fn is_turn<'a>(mut visits: impl Iterator<Item = &'a Visit>, id: u64) -> bool {
    visits.all(|visit| match visit.phase {
        Phase::Asking => false,
        Phase::Waiting => visit.id >= id,
        _ => true,
    })
}

/// Whether one more answer like the largest so far may be fetched.
fn has_room<'a>(visits: impl Iterator<Item = &'a Visit>, largest_answer_bytes: usize) -> bool {
    let undelivered: usize = visits.map(|visit| visit.answer_bytes).sum();
    let most = UNDELIVERED_BYTES_MIN.max(UNDELIVERED_ANSWERS_MAX * largest_answer_bytes);
    undelivered + largest_answer_bytes <= most
}

#[cfg(test)]
mod tests {
    use super::Phase::{Asking, Closing, Reading, Waiting, Writing};
    use super::*;

    const MEGABYTE: usize = 1_000_000;

    /// Visitors numbered from 1, in this phase for so many milliseconds.
    fn visits(now: Instant, phases: &[(Phase, u64)]) -> Vec<Visit> {
        let visit = |(index, (phase, milliseconds)): (usize, &(Phase, u64))| Visit {
            id: index as u64 + 1,
            phase: *phase,
            since: now - Duration::from_millis(*milliseconds),
            progress: now,
            answer_bytes: 0,
        };
        phases.iter().enumerate().map(visit).collect()
    }

    #[track_caller]
    fn check_dawdler(phases: &[(Phase, u64)], expected: Option<u64>) {
        let now = Instant::now() + Duration::from_secs(3600);
        assert_eq!(dawdler(visits(now, phases).iter(), now), expected);
    }

    #[test]
    fn the_longest_has_to_go_and_nobody_who_waits_for_the_server() {
        check_dawdler(&[(Reading, 49), (Reading, 0)], None);
        check_dawdler(&[(Reading, 56), (Reading, 59), (Closing, 58)], Some(2));
        check_dawdler(&[(Waiting, 9_000), (Asking, 9_000), (Reading, 50)], Some(3));
        check_dawdler(&[(Waiting, 9_000), (Asking, 9_000)], None);
        check_dawdler(&[(Writing, 999), (Reading, 3)], None);
        check_dawdler(&[(Writing, 1_000), (Reading, 700)], Some(1));
    }

    #[test]
    fn a_reader_that_takes_nothing_has_to_go_before_one_that_is_slow() {
        let now = Instant::now() + Duration::from_secs(3600);
        let mut visits = visits(now, &[(Writing, 900), (Writing, 500), (Reading, 9_000)]);
        assert_eq!(hindrance(visits.iter(), now), None);
        visits[1].progress = now - STALL_TIME_MIN;
        assert_eq!(hindrance(visits.iter(), now), Some(2));
        visits[0].since = now - WRITING_TIME_MIN;
        assert_eq!(hindrance(visits.iter(), now), Some(2));
    }

    #[track_caller]
    fn check_turn(phases: &[Phase], expected: &[u64]) {
        let phases: Vec<_> = phases.iter().map(|phase| (*phase, 1)).collect();
        let visits = visits(Instant::now() + Duration::from_secs(1), &phases);
        let ids = visits.iter().map(|visit| visit.id);
        let turns: Vec<u64> = ids.filter(|id| is_turn(visits.iter(), *id)).collect();
        let waits = |id: &u64| visits[*id as usize - 1].phase == Waiting;
        let turns: Vec<u64> = turns.into_iter().filter(waits).collect();
        assert_eq!(turns, expected, "{phases:?}");
    }

    #[test]
    fn turns_go_in_the_order_of_arrival_one_at_a_time() {
        check_turn(&[Reading, Waiting, Waiting], &[2]);
        check_turn(&[Writing, Waiting, Closing, Waiting], &[2]);
        check_turn(&[Waiting, Asking, Waiting], &[]);
    }

    #[track_caller]
    fn check_room(undelivered: &[usize], largest: usize, expected: bool) {
        let mut visits = visits(Instant::now(), &vec![(Writing, 0); undelivered.len()]);
        for (visit, bytes) in visits.iter_mut().zip(undelivered) {
            visit.answer_bytes = *bytes;
        }
        assert_eq!(has_room(visits.iter(), largest), expected);
    }

    #[test]
    fn three_large_answers_or_many_small_ones_may_wait_for_their_readers() {
        check_room(&[], 0, true);
        check_room(&[], 500 * MEGABYTE, true);
        check_room(&[3 * MEGABYTE; 2], 3 * MEGABYTE, true);
        check_room(&[3 * MEGABYTE; 3], 3 * MEGABYTE, false);
        check_room(&[200; 5_000], 200, true);
        // What a small answer was last does not matter.
        check_room(&[3 * MEGABYTE, 3 * MEGABYTE, 200], 3 * MEGABYTE, false);
    }
}
