//! A map whose entries expire and whose size has a bound. It never reads a clock: `now` is
//! always passed in, and a monotonic one, so that a machine whose time jumps breaks nothing.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

pub struct TtlMap<K, V> {
    entries: HashMap<K, Entry<V>>,
    ttl: Duration,
    capacity: usize,
}

struct Entry<V> {
    value: V,
    since: Instant,
}

impl<K: Clone + Eq + Hash, V> TtlMap<K, V> {
    pub fn new(ttl: Duration, capacity: usize) -> TtlMap<K, V> {
        TtlMap {
            entries: HashMap::new(),
            ttl,
            capacity,
        }
    }

    /// The value, unless it is older than the TTL.
    pub fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q, now: Instant) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let entry = self.entries.get(key)?;
        self.is_fresh(entry, now).then_some(&entry.value)
    }

    /// When a value that is kept expires, or expired.
    pub fn expiry<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<Instant>
    where
        K: Borrow<Q>,
    {
        self.entries.get(key).map(|entry| entry.since + self.ttl)
    }

    /// Keeps a value from `now` on. In a full map the expired entries make room, or else the
    /// oldest one does.
    pub fn insert(&mut self, key: K, value: V, now: Instant) {
        if self.entries.len() >= self.capacity && !self.entries.contains_key(&key) {
            self.make_room(now);
        }
        self.entries.insert(key, Entry { value, since: now });
    }

    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Whether there is a value, expired or not.
    pub fn has<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.entries.contains_key(key)
    }

    /// Drops what is of no use any more.
    pub fn retain(&mut self, is_of_use: impl Fn(&K) -> bool) {
        self.entries.retain(|key, _| is_of_use(key));
    }

    pub fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        self.entries.remove(key);
    }

    /// The bound is never below what its user needs at once.
    pub fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
    }

    fn is_fresh(&self, entry: &Entry<V>, now: Instant) -> bool {
        now.saturating_duration_since(entry.since) < self.ttl
    }

    fn make_room(&mut self, now: Instant) {
        let ttl = self.ttl;
        self.entries
            .retain(|_, entry| now.saturating_duration_since(entry.since) < ttl);
        if self.entries.len() < self.capacity {
            return;
        }
        let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.since);
        if let Some(key) = oldest.map(|(key, _)| key.clone()) {
            self.entries.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    #[track_caller]
    fn check(map: &TtlMap<&'static str, u8>, now: Instant, expected: &[&str]) {
        let mut keys: Vec<_> = map.entries.keys().copied().collect();
        keys.retain(|key| map.get(key, now).is_some());
        keys.sort_unstable();
        assert_eq!(keys, expected);
    }

    #[test]
    fn an_entry_is_gone_when_its_time_is_over() {
        let start = Instant::now();
        let mut map = TtlMap::new(TTL, 9);
        map.insert("a", 1, start);
        check(&map, start + TTL - Duration::from_nanos(1), &["a"]);
        check(&map, start + TTL, &[]);
    }

    #[test]
    fn a_later_value_replaces_the_earlier_one_and_its_time() {
        let start = Instant::now();
        let mut map = TtlMap::new(TTL, 9);
        map.insert("a", 1, start);
        map.insert("a", 2, start + TTL);
        assert_eq!(map.get("a", start + TTL), Some(&2));
    }

    #[test]
    fn a_full_map_loses_what_expired_and_then_the_oldest() {
        let start = Instant::now();
        let mut map = TtlMap::new(TTL, 2);
        map.insert("expired", 1, start);
        map.insert("older", 1, start + TTL);
        map.insert("newer", 1, start + TTL + TTL / 2);
        check(&map, start + TTL + TTL / 2, &["newer", "older"]);
        map.insert("newest", 1, start + TTL + TTL / 2);
        check(&map, start + TTL + TTL / 2, &["newer", "newest"]);
        assert_eq!(map.entries.len(), 2);
    }

    #[test]
    fn an_entry_from_the_future_counts_as_fresh() {
        let start = Instant::now();
        let mut map = TtlMap::new(TTL, 2);
        map.insert("a", 1, start + TTL);
        check(&map, start, &["a"]);
    }

    #[test]
    fn a_removed_entry_is_gone() {
        let start = Instant::now();
        let mut map = TtlMap::new(TTL, 2);
        map.insert("a", 1, start);
        map.remove("a");
        check(&map, start, &[]);
    }
}
