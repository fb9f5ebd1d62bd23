//! A map whose entries expire. It never reads a clock: moments are passed in, and they are
//! monotonic, so that a machine whose time jumps breaks nothing.
//!
//! It has no capacity: its user drops what is no longer listed.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::Instant;

pub struct TtlMap<K, V> {
    entries: HashMap<K, Entry<V>>,
}

struct Entry<V> {
    value: V,
    expiry: Instant,
}

impl<K, V> Default for TtlMap<K, V> {
    fn default() -> Self {
        TtlMap {
            entries: HashMap::new(),
        }
    }
}

impl<K: Eq + Hash, V> TtlMap<K, V> {
    /// The value, and when it expires or has expired: who asked before that may still use it.
    pub fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<(&V, Instant)>
    where
        K: Borrow<Q>,
    {
        let entry = self.entries.get(key)?;
        Some((&entry.value, entry.expiry))
    }

    /// Keeps a value until `expiry`, in place of an earlier one.
    pub fn insert(&mut self, key: K, value: V, expiry: Instant) {
        self.entries.insert(key, Entry { value, expiry });
    }

    /// Drops what is of no use any more.
    pub fn retain(&mut self, is_of_use: impl Fn(&K) -> bool) {
        self.entries.retain(|key, _| is_of_use(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const TTL: Duration = Duration::from_secs(10);

    #[test]
    fn an_entry_comes_with_the_end_of_its_time() {
        let start = Instant::now();
        let mut map = TtlMap::default();
        map.insert("a", 1, start + TTL);
        assert_eq!(map.get("a"), Some((&1, start + TTL)));
        assert_eq!(map.get("b"), None);
    }

    #[test]
    fn a_later_value_replaces_the_earlier_one_and_its_time() {
        let start = Instant::now();
        let mut map = TtlMap::default();
        map.insert("a", 1, start + TTL);
        map.insert("a", 2, start + 2 * TTL);
        assert_eq!(map.get("a"), Some((&2, start + 2 * TTL)));
    }

    #[test]
    fn what_is_of_no_use_is_dropped() {
        let start = Instant::now();
        let mut map = TtlMap::default();
        map.insert("a", 1, start + TTL);
        map.insert("b", 2, start + TTL);
        map.retain(|key| *key == "b");
        assert_eq!(
            (map.get("a"), map.get("b")),
            (None, Some((&2, start + TTL)))
        );
    }
}
