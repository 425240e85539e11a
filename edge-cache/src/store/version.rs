//! One version of a body that is longer than a segment: who it is, and which of its segments are stored.
//!
//! Segments lie in the store under the version's number, so that those of two versions cannot be mixed. The heads that
//! a 304 makes share it. When the last stored head has gone, and the last one who reads or brings them, its segments are of
//! no use to anybody and go, too: whoever has begun to send a version can go on, though another has taken its place.
//!
//! A segment may lie in memory, on a disk, or on both. What the disks have of it outlives its heads in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

use super::allocator::{COUNTERS, allocated};
use super::object::{ENTRY, ObjectKey};
use super::policy::Weight;
use crate::semantics::vary::VariantKey;

/// What tells segments from heads in the index: no variant has this number, but for one chance in 2^128.
const SEGMENT: u128 = 0x7365_676d_656e_7420_6f66_2061_2062_6f64;

/// A version of a body.
#[derive(Debug)]
pub struct Version {
    id: u64,
    of: ObjectKey,
    /// Bytes of the whole body, as far as is known.
    length: AtomicU64,
    state: Mutex<State>,
}

/// A segment lies in memory.
const IN_MEMORY: u8 = 1;
/// A segment lies on a disk.
const BELOW: u8 = 2;

#[derive(Debug, Default)]
struct State {
    /// Segments, and where they lie.
    stored: BTreeMap<u64, u8>,
    /// Stored objects that have this body.
    heads: usize,
    /// Those who read segments, or bring some.
    users: usize,
    /// Nothing is stored for it any more.
    dropped: bool,
}

/// A stored segment.
#[derive(Debug)]
pub struct Segment {
    /// What it is a part of.
    pub version: Arc<Version>,
    /// Which part.
    pub index: u64,
    /// Its bytes.
    pub data: Bytes,
}

/// Its number in the version, and its share of the tree's nodes.
const NUMBER: u64 = 24;

impl Segment {
    /// The memory that it takes, all told: itself, its bytes, what shares them between their readers, the store's entry.
    pub const fn weight(&self) -> u64 {
        const SHARED: usize = 3 * size_of::<usize>();
        let own = allocated(COUNTERS + size_of::<Self>()) + allocated(SHARED);
        ENTRY + NUMBER + own + allocated(self.data.len())
    }

    /// The same, beside the body that it is a part of.
    pub fn load(&self) -> Weight {
        let own = self.weight();
        Weight { own, whole: self.version.length().max(own) }
    }
}

impl Version {
    /// `id` is given to no other version of the same store, also not before a restart; `of` is where the object lies that
    /// has this body.
    pub fn new(id: u64, of: ObjectKey) -> Self {
        Self { id, of, length: AtomicU64::new(0), state: Mutex::default() }
    }

    /// The body has so many bytes, or more.
    pub fn note_length(&self, bytes: u64) {
        self.length.fetch_max(bytes, Ordering::Relaxed);
    }

    /// Bytes of the whole body, as far as is known.
    pub fn length(&self) -> u64 {
        self.length.load(Ordering::Relaxed)
    }

    /// Where the object lies that has this body.
    pub const fn of(&self) -> ObjectKey {
        self.of
    }

    /// Its number, unique in its store.
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Where a segment of it lies.
    pub fn place(&self, index: u64) -> ObjectKey {
        let number = u128::from(self.id) << 64 | u128::from(index);
        ObjectKey { key: xxh3_128(&number.to_le_bytes()), variant: VariantKey(SEGMENT) }
    }

    /// The name of this part of whatever body the object has: what the requests for it are counted by.
    pub fn part(&self, index: u64) -> ObjectKey {
        let ObjectKey { key, variant } = self.of;
        let number = (variant.0 ^ SEGMENT).wrapping_add(u128::from(index));
        ObjectKey { key: key ^ xxh3_128(&number.to_le_bytes()), variant: VariantKey(SEGMENT) }
    }

    /// Whether a segment is stored, as far as is known: it may go at any time.
    pub fn has(&self, index: u64) -> bool {
        self.lock().stored.contains_key(&index)
    }

    /// The first of these segments, both included, that is not stored, as far as is known.
    pub fn first_missing(&self, first: u64, last: u64) -> Option<u64> {
        let state = self.lock();
        let mut stored = state.stored.range(first..=last.max(first)).map(|(at, _)| *at);
        (first..=last).find(|index| stored.next() != Some(*index))
    }

    /// How many segments are stored.
    pub fn stored(&self) -> u64 {
        self.lock().stored.len() as u64
    }

    /// How many lie in memory, and how many on a disk.
    pub fn counts(&self) -> (u64, u64) {
        let state = self.lock();
        let count = |place| state.stored.values().filter(|places| **places & place != 0).count();
        (count(IN_MEMORY) as u64, count(BELOW) as u64)
    }

    /// Whether memory has a segment, as far as is known.
    pub fn is_in_memory(&self, index: u64) -> bool {
        self.lock().stored.get(&index).is_some_and(|places| places & IN_MEMORY != 0)
    }

    /// A segment is about to be stored. `false`: the version is of no use any more.
    pub(super) fn add(&self, index: u64) -> bool {
        let mut state = self.lock();
        if !state.dropped {
            *state.stored.entry(index).or_default() |= IN_MEMORY;
        }
        !state.dropped
    }

    /// A segment has gone from memory.
    pub(super) fn forget(&self, index: u64) {
        self.clear(index, IN_MEMORY);
    }

    /// A disk has a segment, or will soon.
    pub fn note_below(&self, index: u64) {
        *self.lock().stored.entry(index).or_default() |= BELOW;
    }

    /// No disk has a segment.
    pub fn forget_below(&self, index: u64) {
        self.clear(index, BELOW);
    }

    /// Whether a disk has a segment, as far as is known.
    pub fn is_below(&self, index: u64) -> bool {
        self.lock().stored.get(&index).is_some_and(|places| places & BELOW != 0)
    }

    fn clear(&self, index: u64, place: u8) {
        let mut state = self.lock();
        if let Some(places) = state.stored.get_mut(&index) {
            *places &= !place;
            if *places == 0 {
                state.stored.remove(&index);
            }
        }
    }

    /// A head is about to be stored.
    pub(super) fn add_head(&self) {
        let mut state = self.lock();
        state.heads += 1;
        state.dropped = false;
    }

    /// A head has gone. `true`: it was the last one.
    pub(super) fn forget_head(&self) -> bool {
        let mut state = self.lock();
        state.heads = state.heads.saturating_sub(1);
        state.heads == 0
    }

    /// Somebody begins to read its segments, or to bring some.
    pub(super) fn add_user(&self) {
        let mut state = self.lock();
        state.users += 1;
        // Also where all had gone: who found it before can have its segments fetched, and others may bring some of them.
        state.dropped = false;
    }

    /// Somebody has done so. `true`: nobody needs it any more.
    pub(super) fn forget_user(&self) -> bool {
        let mut state = self.lock();
        state.users = state.users.saturating_sub(1);
        state.users == 0 && state.heads == 0
    }

    /// Unless somebody needs them, no segment is taken any more; those that lie in memory, to be removed.
    pub(super) fn abandon(&self) -> BTreeSet<u64> {
        let mut state = self.lock();
        if state.heads > 0 || state.users > 0 {
            return BTreeSet::new();
        }
        state.dropped = true;
        std::mem::take(&mut state.stored)
            .into_iter()
            .filter_map(|(index, places)| (places & IN_MEMORY != 0).then_some(index))
            .collect()
    }

    /// A panic elsewhere leaves the state whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
