//! The memory tier: heads and segments of bodies, weighed by what they really take, within one capacity.
//!
//! Who makes room for whom is said by a policy ([`super::policy`], or the crate moka's); the rest is the same under each. A
//! segment may go alone: what is stored of a body is then a part of it, and a part is as good as the whole to those who
//! need no more. Segments whose head has gone, go with it, or with the last one who reads them.
//!
//! What leaves is dropped when no lock is held, and no call does more than its share of such work: a body of thousands of
//! segments is removed by the calls that follow, too.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use shared::config::StorePolicy;

use super::object::{Object, ObjectKey};
use super::policy::{self, Kind, Put, Weight};
use super::shards::Shards;
use super::tinylfu::{Cause, TinyLfu};
use super::version::{Segment, Version};

/// Segments that one call removes.
const STEP: usize = 64;
/// Entries that one call evicts because the capacity has become smaller.
const SHRINK: usize = 256;

/// What a tier is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes that it may take.
    pub capacity: u64,
    /// The longest body that is stored with its head.
    pub max_object: u64,
    /// The longest body or segment that is one entry. The tier has fewer parts, so that this fits into each.
    pub largest: u64,
    /// Who makes room for whom.
    pub policy: StorePolicy,
    /// A disk tier stands below it.
    pub over_disk: bool,
    /// Nobody outside may guess it: it says which keys are in one part.
    pub seed: u64,
}

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
pub(super) enum Entry {
    Object(Arc<Object>),
    Segment(Arc<Segment>),
}

#[derive(Debug)]
enum Entries {
    Ours(Shards<Entry>),
    Moka(TinyLfu),
}

/// The memory tier.
#[derive(Debug)]
pub struct Memory {
    entries: Entries,
    policy: StorePolicy,
    /// That of moka, which keeps it.
    capacity: u64,
    max_object: u64,
    evictions: AtomicU64,
    segments: AtomicU64,
    /// Places of segments that nobody needs any more.
    unneeded: Mutex<Vec<ObjectKey>>,
    has_unneeded: AtomicBool,
}

impl Settings {
    /// A size-aware tier of `capacity` bytes with nothing below it, for bodies of up to `max_object` bytes.
    pub const fn new(capacity: u64, max_object: u64) -> Self {
        let policy = StorePolicy::SizeAware;
        Self { capacity, max_object, largest: max_object, policy, over_disk: false, seed: 0 }
    }
}

impl Entry {
    pub(super) fn weight(&self) -> u64 {
        match self {
            Self::Object(object) => object.weight(),
            Self::Segment(segment) => segment.weight(),
        }
    }

    fn load(&self) -> Weight {
        match self {
            Self::Object(object) => Weight::from(object.weight()),
            Self::Segment(segment) => segment.load(),
        }
    }
}

impl Memory {
    /// An empty tier.
    pub fn new(settings: Settings) -> Self {
        let Settings { capacity, max_object, largest, policy, over_disk, seed } = settings;
        let ours = |kind| {
            let settings = policy::Settings { kind, capacity, over_disk, seed };
            Entries::Ours(Shards::new(settings, largest))
        };
        let entries = match policy {
            StorePolicy::SizeAware => ours(Kind::SizeAware),
            StorePolicy::S3Fifo => ours(Kind::S3Fifo),
            StorePolicy::Lru => ours(Kind::Lru),
            StorePolicy::Moka => Entries::Moka(TinyLfu::new(capacity)),
        };
        Self {
            entries,
            policy,
            capacity,
            max_object,
            evictions: AtomicU64::new(0),
            segments: AtomicU64::new(0),
            unneeded: Mutex::default(),
            has_unneeded: AtomicBool::new(false),
        }
    }

    /// Who makes room for whom.
    pub const fn policy(&self) -> StorePolicy {
        self.policy
    }

    /// The object that lies there.
    pub fn get(&self, place: ObjectKey) -> Option<Arc<Object>> {
        match self.entry(&place)? {
            Entry::Object(object) => Some(object),
            Entry::Segment(_) => None,
        }
    }

    /// The object that lies there, without counting that as a request for it.
    pub fn peek(&self, place: ObjectKey) -> Option<Arc<Object>> {
        let entry = match &self.entries {
            Entries::Ours(shards) => shards.peek(&place),
            Entries::Moka(entries) => entries.get(&place),
        };
        match entry? {
            Entry::Object(object) => Some(object),
            Entry::Segment(_) => None,
        }
    }

    /// Whether something lies there.
    pub fn contains(&self, place: ObjectKey) -> bool {
        match &self.entries {
            Entries::Ours(shards) => shards.contains(&place),
            Entries::Moka(entries) => entries.contains(&place),
        }
    }

    /// Stores an object in the place of the one that lies there. `false`: it is too large for this tier. An object that
    /// is stored may still go at once, when the policy prefers those that are there already.
    pub fn insert(&self, object: Arc<Object>) -> bool {
        if object.version().is_none() && object.length() > self.max_object {
            return false;
        }
        if let Some(version) = object.version() {
            version.add_head();
        }
        self.put(object.place(), Entry::Object(object))
    }

    /// What lies there is on a disk as well, as it is: it need not be kept as long as another.
    pub fn settle(&self, place: ObjectKey) {
        if let Entries::Ours(shards) = &self.entries {
            shards.settle(&place);
        }
    }

    /// Removes the object that lies there.
    pub fn remove(&self, place: ObjectKey) {
        self.take(&place);
        self.clean(STEP);
    }

    /// A segment of a version.
    pub fn segment(&self, version: &Version, index: u64) -> Option<Bytes> {
        match self.entry(&version.place(index))? {
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
        let place = version.place(index);
        if let Entries::Moka(entries) = &self.entries {
            // It takes in what was asked for. That somebody has asked for this, only its head shows.
            let _ = entries.get(&place);
        }
        if !version.add(index) {
            return false;
        }
        self.segments.fetch_add(1, Ordering::Relaxed);
        let segment = Segment { version: Arc::clone(version), index, data };
        let is_stored = self.put(place, Entry::Segment(Arc::new(segment)));
        if is_stored && version.is_below(index) {
            self.settle(place);
        }
        is_stored
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
            self.clean(STEP);
        }
    }

    /// Bytes that it may take.
    pub fn capacity(&self) -> u64 {
        match &self.entries {
            Entries::Ours(shards) => shards.capacity(),
            Entries::Moka(_) => self.capacity,
        }
    }

    /// As many of them as no [`Memory::set_capacity`] changes.
    pub const fn fixed(&self) -> u64 {
        match &self.entries {
            Entries::Ours(_) => 0,
            Entries::Moka(_) => self.capacity,
        }
    }

    /// Sets the bytes that it may take, and evicts some of what is too much. `true`: nothing is. Otherwise the insertions
    /// that follow, and further calls, evict the rest. moka's policy keeps the capacity that it was made with.
    pub fn set_capacity(&self, capacity: u64) -> bool {
        let Entries::Ours(shards) = &self.entries else { return true };
        shards.set_capacity(capacity);
        let mut gone = Vec::new();
        let is_done = shards.shrink(SHRINK, &mut gone);
        self.evicted(gone);
        self.clean(STEP);
        is_done
    }

    /// The longest body that is stored from one fetch.
    pub const fn max_object(&self) -> u64 {
        self.max_object
    }

    /// Its counters, after all that is due has been done.
    pub fn stats(&self) -> Stats {
        let totals = || match &self.entries {
            Entries::Ours(shards) => shards.totals(),
            Entries::Moka(entries) => {
                let totals = entries.totals();
                self.collect(entries);
                totals
            }
        };
        let _ = totals();
        self.clean(usize::MAX);
        let (bytes, count) = totals();
        let segments = self.segments.load(Ordering::Relaxed);
        Stats {
            bytes,
            objects: count.saturating_sub(segments),
            segments,
            evictions: self.evictions.load(Ordering::Relaxed),
        }
    }

    fn entry(&self, place: &ObjectKey) -> Option<Entry> {
        match &self.entries {
            Entries::Ours(shards) => shards.get(place),
            Entries::Moka(entries) => entries.get(place),
        }
    }

    fn put(&self, place: ObjectKey, entry: Entry) -> bool {
        let weight = entry.load();
        let is_stored = match &self.entries {
            Entries::Ours(shards) => {
                let mut gone = Vec::new();
                let put = shards.insert(&place, entry, weight, &mut gone);
                self.evicted(gone);
                match put {
                    Put::Added => true,
                    Put::Replaced(old) => {
                        self.left(&old, Cause::Replaced);
                        true
                    }
                    Put::Refused(entry) => {
                        self.left(&entry, Cause::Removed);
                        false
                    }
                }
            }
            // It weighs in 32 bits.
            Entries::Moka(_) if weight.own > self.capacity().min(u64::from(u32::MAX)) => {
                self.left(&entry, Cause::Removed);
                false
            }
            Entries::Moka(entries) => {
                entries.insert(place, entry);
                self.collect(entries);
                true
            }
        };
        self.clean(STEP);
        is_stored
    }

    fn take(&self, place: &ObjectKey) {
        match &self.entries {
            Entries::Ours(shards) => {
                if let Some(entry) = shards.remove(place) {
                    self.left(&entry, Cause::Removed);
                }
            }
            Entries::Moka(entries) => {
                entries.remove(place);
                self.collect(entries);
            }
        }
    }

    fn collect(&self, entries: &TinyLfu) {
        for (entry, cause) in entries.take_left() {
            self.left(&entry, cause);
        }
    }

    fn evicted<K>(&self, gone: Vec<(K, Entry)>) {
        for (_, entry) in gone {
            self.left(&entry, Cause::Evicted);
        }
    }

    /// An entry is not stored any more.
    fn left(&self, entry: &Entry, cause: Cause) {
        if cause == Cause::Evicted {
            self.evictions.fetch_add(1, Ordering::Relaxed);
        }
        match entry {
            Entry::Object(object) => {
                if let Some(version) = object.version()
                    && version.forget_head()
                {
                    self.abandon(version);
                }
            }
            Entry::Segment(segment) => {
                self.segments.fetch_sub(1, Ordering::Relaxed);
                if cause != Cause::Replaced {
                    segment.version.forget(segment.index);
                }
            }
        }
    }

    /// The segments of a version that no stored object has and nobody uses are of no use.
    fn abandon(&self, version: &Version) {
        let segments = version.abandon();
        if !segments.is_empty() {
            let places = segments.into_iter().map(|index| version.place(index));
            self.unneeded().extend(places);
            self.has_unneeded.store(true, Ordering::Release);
        }
    }

    /// Removes segments of no use, at most so many.
    fn clean(&self, most: usize) {
        if !self.has_unneeded.load(Ordering::Acquire) {
            return;
        }
        let some = {
            let mut unneeded = self.unneeded();
            let left = unneeded.len().saturating_sub(most);
            self.has_unneeded.store(left > 0, Ordering::Release);
            unneeded.split_off(left)
        };
        some.iter().for_each(|place| self.take(place));
    }

    fn unneeded(&self) -> MutexGuard<'_, Vec<ObjectKey>> {
        self.unneeded.lock().unwrap_or_else(PoisonError::into_inner)
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

    const POLICIES: [StorePolicy; 4] =
        [StorePolicy::SizeAware, StorePolicy::S3Fifo, StorePolicy::Moka, StorePolicy::Lru];

    fn tier(policy: StorePolicy) -> Memory {
        Memory::new(Settings { policy, ..Settings::new(1 << 20, 1 << 17) })
    }

    #[test]
    fn bytes_stay_within_the_capacity_and_evictions_are_counted() {
        POLICIES.into_iter().for_each(bytes_stay_within_the_capacity);
    }

    fn bytes_stay_within_the_capacity(policy: StorePolicy) {
        let memory = tier(policy);
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
        let memory = Memory::new(Settings::new(1 << 20, 1 << 17));
        let small = plain("/small", 100);
        assert!(memory.insert(Arc::clone(&small)));
        assert!(!memory.insert(plain("/large", (1 << 17) + 1)));
        assert!(memory.insert(plain("/full", 1 << 17)));
        assert!(memory.get(small.place()).is_some());
    }

    #[test]
    fn a_replaced_object_is_weighed_once() {
        let memory = Memory::new(Settings::new(1 << 20, 1 << 17));
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
        POLICIES.into_iter().for_each(segments_are_evicted_alone);
    }

    fn segments_are_evicted_alone(policy: StorePolicy) {
        let memory = tier(policy);
        let (one, two) = (Arc::new(version(1)), Arc::new(version(2)));
        memory.insert(segmented("/a", &one, 1 << 40));
        for index in 0..50 {
            assert!(
                memory.get(plain("/a", 0).place()).is_some(),
                "who asks for a part, asks for it"
            );
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

    /// No call removes more than its share, but they all go.
    #[test]
    fn a_body_of_many_segments_goes_in_steps() {
        let memory = tier(StorePolicy::S3Fifo);
        let version = Arc::new(version(1));
        memory.insert(segmented("/a", &version, 1 << 40));
        for index in 0..1000 {
            assert!(memory.insert_segment(&version, index, Bytes::from_static(b"segment")));
        }
        memory.remove(plain("/a", 0).place());
        let left = |memory: &Memory| memory.segments.load(Ordering::Relaxed);
        assert_eq!((left(&memory), version.stored()), (1000 - STEP as u64, 0));
        memory.remove(plain("/b", 0).place());
        assert_eq!(left(&memory), 1000 - 2 * STEP as u64);
        assert_eq!(memory.stats().segments, 0);
    }

    #[test]
    fn the_capacity_changes_while_it_serves() {
        let memory = tier(StorePolicy::SizeAware);
        (0..100).for_each(|n| assert!(memory.insert(plain(&format!("/{n}"), 10_000))));
        assert!(memory.set_capacity(1 << 19));
        let stats = memory.stats();
        assert!(stats.bytes <= 1 << 19 && stats.objects > 30, "{stats:?}");
        assert_eq!(stats.objects + stats.evictions, 100);
        assert!(memory.set_capacity(1 << 20) && memory.capacity() == 1 << 20);
        (100..200).for_each(|n| assert!(memory.insert(plain(&format!("/{n}"), 10_000))));
        assert!(memory.stats().bytes > 1 << 19);
    }

    #[test]
    fn segments_go_with_their_last_head() {
        POLICIES.into_iter().for_each(segments_go_with_it);
    }

    fn segments_go_with_it(policy: StorePolicy) {
        let memory = tier(policy);
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
        memory.begin_use(&read);
        assert!(memory.insert_segment(&read, 1, Bytes::from_static(b"found before")));
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
