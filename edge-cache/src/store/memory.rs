//! The memory tier: objects weighed by what they really take, within a capacity.
//!
//! The interface says nothing of the policy. Today it is moka's TinyLFU; whatever replaces it has the same four calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::object::{Object, ObjectKey};

/// moka weighs in 32 bits.
const HEAVIEST: u64 = u32::MAX as u64;

/// Counters of the tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Memory taken.
    pub bytes: u64,
    /// Objects stored.
    pub objects: u64,
    /// Objects that made room for others.
    pub evictions: u64,
}

/// The memory tier.
#[derive(Debug)]
pub struct Memory {
    objects: moka::sync::Cache<ObjectKey, Arc<Object>>,
    evictions: Arc<AtomicU64>,
    capacity: u64,
    max_object: u64,
}

impl Memory {
    /// A tier of `capacity` bytes that takes bodies of up to `max_object` bytes.
    pub fn new(capacity: u64, max_object: u64) -> Self {
        let evictions = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&evictions);
        let objects = moka::sync::Cache::builder()
            .max_capacity(capacity)
            .weigher(|_, object: &Arc<Object>| u32::try_from(object.weight()).unwrap_or(u32::MAX))
            .eviction_listener(move |_, _, cause| {
                if cause == moka::notification::RemovalCause::Size {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            })
            .build();
        Self { objects, evictions, capacity, max_object }
    }

    /// The object that lies there.
    pub fn get(&self, place: ObjectKey) -> Option<Arc<Object>> {
        self.objects.get(&place)
    }

    /// Stores an object in the place of the one that lies there. `false`: it is too large for this tier. An object that
    /// is stored may still go at once, when the policy prefers those that are there already.
    pub fn insert(&self, object: Arc<Object>) -> bool {
        let weight = object.weight();
        if object.length > self.max_object || weight > self.capacity || weight > HEAVIEST {
            return false;
        }
        self.objects.insert(object.place(), object);
        true
    }

    /// Removes the object that lies there.
    pub fn remove(&self, place: ObjectKey) {
        self.objects.invalidate(&place);
    }

    /// Bytes that it may take.
    pub const fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The longest body that it takes.
    pub const fn max_object(&self) -> u64 {
        self.max_object
    }

    /// Its counters, after all that is due has been done.
    pub fn stats(&self) -> Stats {
        self.objects.run_pending_tasks();
        Stats {
            bytes: self.objects.weighted_size(),
            objects: self.objects.entry_count(),
            evictions: self.evictions.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::object::tests::object;
    use http::HeaderMap;

    fn plain(path: &str, length: usize) -> Arc<Object> {
        object(path, &HeaderMap::new(), &HeaderMap::new(), &vec![7; length])
    }

    #[test]
    fn bytes_stay_within_the_capacity_and_evictions_are_counted() {
        let memory = Memory::new(1 << 20, 1 << 17);
        for n in 0..1000 {
            assert!(memory.insert(plain(&format!("/{n}"), 10_000)));
        }
        let stats = memory.stats();
        assert!(stats.bytes <= 1 << 20, "{stats:?}");
        assert!(stats.objects > 50, "{stats:?}");
        assert_eq!(stats.objects + stats.evictions, 1000, "{stats:?}");
    }

    #[test]
    fn an_object_too_large_is_refused_and_the_rest_stays() {
        let memory = Memory::new(1 << 20, 1 << 17);
        let small = plain("/small", 100);
        assert!(memory.insert(Arc::clone(&small)));
        assert!(!memory.insert(plain("/large", (1 << 17) + 1)));
        assert!(memory.insert(plain("/full", 1 << 17)));
        assert!(memory.get(small.place()).is_some());
    }

    #[test]
    fn a_replaced_object_is_weighed_once() {
        let memory = Memory::new(1 << 20, 1 << 17);
        for _ in 0..50 {
            memory.insert(plain("/a", 50_000));
        }
        let stats = memory.stats();
        assert_eq!((stats.objects, stats.evictions), (1, 0));
        assert!(stats.bytes < 60_000);
        memory.remove(plain("/a", 1).place());
        assert_eq!(memory.stats(), Stats::default());
    }
}
