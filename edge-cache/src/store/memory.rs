//! The memory tier: heads and segments of bodies, weighed by what they really take, within one capacity.
//!
//! The interface says nothing of the policy. Today it is moka's TinyLFU; whatever replaces it has the same calls. A
//! segment may go alone: what is stored of a body is then a part of it, and a part is as good as the whole to those who
//! need no more. Segments whose head has gone, go with it, or with the last one who reads them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::object::{Object, ObjectKey};
use super::version::{Segment, Version};

/// moka weighs in 32 bits.
const HEAVIEST: u64 = u32::MAX as u64;

/// Counters of the tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Memory taken.
    pub bytes: u64,
    /// Objects stored.
    pub objects: u64,
    /// Segments stored beside them.
    pub segments: u64,
    /// Objects and segments that made room for others.
    pub evictions: u64,
}

/// What lies at a place.
#[derive(Clone, Debug)]
enum Entry {
    Object(Arc<Object>),
    Segment(Arc<Segment>),
}

/// What happens to entries, told by the policy.
#[derive(Debug, Default)]
struct Watch {
    evictions: AtomicU64,
    segments: AtomicU64,
    /// Versions whose last head has gone. Their segments cannot be removed from within the policy.
    orphans: Mutex<Vec<Arc<Version>>>,
}

/// The memory tier.
#[derive(Debug)]
pub struct Memory {
    entries: moka::sync::Cache<ObjectKey, Entry>,
    watch: Arc<Watch>,
    capacity: u64,
    max_object: u64,
}

impl Entry {
    fn weight(&self) -> u32 {
        let weight = match self {
            Self::Object(object) => object.weight(),
            Self::Segment(segment) => segment.weight(),
        };
        u32::try_from(weight).unwrap_or(u32::MAX)
    }
}

impl Watch {
    fn gone(&self, entry: &Entry, cause: moka::notification::RemovalCause) {
        use moka::notification::RemovalCause::{Replaced, Size};
        if cause == Size {
            self.evictions.fetch_add(1, Ordering::Relaxed);
        }
        match entry {
            Entry::Object(object) => {
                if let Some(version) = object.version()
                    && version.forget_head()
                {
                    self.lock().push(Arc::clone(version));
                }
            }
            Entry::Segment(segment) => {
                self.segments.fetch_sub(1, Ordering::Relaxed);
                if cause != Replaced {
                    segment.version.forget(segment.index);
                }
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Version>>> {
        self.orphans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    /// A tier of `capacity` bytes that takes bodies of up to `max_object` bytes with their heads.
    pub fn new(capacity: u64, max_object: u64) -> Self {
        let watch = Arc::new(Watch::default());
        let told = Arc::clone(&watch);
        let entries = moka::sync::Cache::builder()
            .max_capacity(capacity)
            .weigher(|_, entry: &Entry| entry.weight())
            .eviction_listener(move |_, entry, cause| told.gone(&entry, cause))
            .build();
        Self { entries, watch, capacity, max_object }
    }

    /// The object that lies there.
    pub fn get(&self, place: ObjectKey) -> Option<Arc<Object>> {
        match self.entries.get(&place)? {
            Entry::Object(object) => Some(object),
            Entry::Segment(_) => None,
        }
    }

    /// The object that lies there, without counting that as a request for it.
    pub fn peek(&self, place: ObjectKey) -> Option<Arc<Object>> {
        self.get(place)
    }

    /// Whether something lies there.
    pub fn contains(&self, place: ObjectKey) -> bool {
        self.entries.contains_key(&place)
    }

    /// Stores an object in the place of the one that lies there. `false`: it is too large for this tier. An object that
    /// is stored may still go at once, when the policy prefers those that are there already.
    pub fn insert(&self, object: Arc<Object>) -> bool {
        let weight = object.weight();
        let fits = object.version().is_some() || object.length() <= self.max_object;
        if !fits || weight > self.capacity || weight > HEAVIEST {
            return false;
        }
        if let Some(version) = object.version() {
            version.add_head();
        }
        self.entries.insert(object.place(), Entry::Object(object));
        self.remove_orphans();
        true
    }

    /// Removes the object that lies there.
    pub fn remove(&self, place: ObjectKey) {
        self.entries.invalidate(&place);
        self.remove_orphans();
    }

    /// A segment of a version.
    pub fn segment(&self, version: &Version, index: u64) -> Option<Bytes> {
        match self.entries.get(&version.place(index))? {
            Entry::Segment(segment)
                if segment.version.id() == version.id() && segment.index == index =>
            {
                Some(segment.data.clone())
            }
            _ => None,
        }
    }

    /// Stores a segment of a version. `false`: it does not fit, or the version is of no use any more. Like an object it
    /// may go at once.
    pub fn insert_segment(&self, version: &Arc<Version>, index: u64, data: Bytes) -> bool {
        let segment = Segment { version: Arc::clone(version), index, data };
        if segment.weight() > self.capacity.min(HEAVIEST) {
            return false;
        }
        let place = version.place(index);
        // The policy takes in what was asked for. That somebody has asked for this, only its head shows.
        let _ = self.entries.get(&place);
        if !version.add(index) {
            return false;
        }
        self.watch.segments.fetch_add(1, Ordering::Relaxed);
        self.entries.insert(place, Entry::Segment(Arc::new(segment)));
        true
    }

    /// Somebody begins to read segments of a version, or to bring some: they stay, as far as there is room, also when its
    /// head has gone. To be followed by [`Memory::end_use`].
    pub fn begin_use(&self, version: &Version) {
        version.add_user();
    }

    /// What [`Memory::begin_use`] has begun, ends.
    pub fn end_use(&self, version: &Version) {
        if version.forget_user() {
            self.abandon(version);
        }
    }

    /// Removes the segments of a version that no stored object has and nobody uses.
    fn abandon(&self, version: &Version) {
        for index in version.abandon() {
            self.entries.invalidate(&version.place(index));
        }
    }

    fn remove_orphans(&self) {
        let orphans = std::mem::take(&mut *self.watch.lock());
        for version in orphans {
            self.abandon(&version);
        }
    }

    /// Bytes that it may take.
    pub const fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The longest body that is stored from one fetch.
    pub const fn max_object(&self) -> u64 {
        self.max_object
    }

    /// Its counters, after all that is due has been done.
    pub fn stats(&self) -> Stats {
        self.entries.run_pending_tasks();
        self.remove_orphans();
        self.entries.run_pending_tasks();
        let segments = self.watch.segments.load(Ordering::Relaxed);
        Stats {
            bytes: self.entries.weighted_size(),
            objects: self.entries.entry_count().saturating_sub(segments),
            segments,
            evictions: self.watch.evictions.load(Ordering::Relaxed),
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

    fn version(id: u64) -> Version {
        Version::new(id, plain("/a", 0).place())
    }

    fn segmented(path: &str, version: &Arc<Version>, length: u64) -> Arc<Object> {
        let head = plain(path, 0);
        Arc::new(Object::segmented(
            head.key(),
            head.variant(),
            head.head(),
            Arc::clone(version),
            length,
        ))
    }

    #[test]
    fn segments_are_weighed_found_by_their_version_and_evicted_alone() {
        let memory = Memory::new(1 << 20, 1 << 17);
        let (one, two) = (Arc::new(version(1)), Arc::new(version(2)));
        memory.insert(segmented("/a", &one, 1 << 40));
        for index in 0..50 {
            assert!(memory.insert_segment(&one, index, Bytes::from(vec![1; 60_000])));
        }
        let stats = memory.stats();
        assert!(stats.bytes <= 1 << 20 && stats.bytes > stats.segments * 60_000, "{stats:?}");
        assert!((5..50).contains(&stats.segments), "{stats:?}");
        assert_eq!((stats.objects, stats.segments + stats.evictions), (1, 50), "{stats:?}");
        assert_eq!(one.stored(), stats.segments, "the version knows what is left of it");
        for index in 0..50 {
            assert_eq!(memory.segment(&one, index).is_some(), one.has(index), "{index}");
            assert_eq!(memory.segment(&two, index), None);
        }
    }

    #[test]
    fn segments_go_with_their_last_head() {
        let memory = Memory::new(1 << 20, 1 << 17);
        let old = Arc::new(version(1));
        let object = segmented("/a", &old, 1000);
        memory.insert(Arc::clone(&object));
        assert!(memory.insert_segment(&old, 0, Bytes::from_static(b"old")));
        memory.insert(Arc::new(object.with_head(&object.head())));
        assert!(memory.segment(&old, 0).is_some(), "a 304 keeps the body");
        memory.insert(segmented("/a", &Arc::new(version(2)), 1000));
        assert_eq!(memory.segment(&old, 0), None, "another version drops it");
        assert!(!memory.insert_segment(&old, 1, Bytes::from_static(b"late")));
        let stats = memory.stats();
        assert_eq!((stats.objects, stats.segments), (1, 0));
        memory.remove(object.place());
        assert_eq!(memory.stats(), Stats::default());
        let read = Arc::new(version(4));
        memory.insert(segmented("/a", &read, 1000));
        memory.begin_use(&read);
        assert!(memory.insert_segment(&read, 0, Bytes::from_static(b"begun")));
        memory.remove(object.place());
        assert!(memory.segment(&read, 0).is_some(), "who has begun to send it can go on");
        assert!(memory.insert_segment(&read, 1, Bytes::from_static(b"and on")));
        memory.end_use(&read);
        assert_eq!(memory.stats(), Stats::default());
        let unborn = Arc::new(version(3));
        assert!(memory.insert_segment(&unborn, 0, Bytes::from_static(b"no head came")));
        memory.abandon(&unborn);
        assert_eq!(memory.stats(), Stats::default());
        memory.insert(segmented("/a", &unborn, 1000));
        assert!(memory.insert_segment(&unborn, 0, Bytes::from_static(b"again")));
    }
}
