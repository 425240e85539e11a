//! The crate moka's policy behind the interface of [`super::shards`]: TinyLFU, whose tables and upkeep are its own.
//!
//! Its capacity is that which it was made with: the crate cannot be told another.

use std::sync::{Arc, Mutex, PoisonError};

use moka::notification::RemovalCause;

use super::memory::Entry;
use super::object::ObjectKey;

/// Why an entry has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// It made room for another.
    Evicted,
    /// Another lies in its place.
    Replaced,
    /// Somebody removed it.
    Removed,
}

/// Entries that have left. The policy tells of them while it holds its own locks, so they are only noted then.
type Left = Arc<Mutex<Vec<(Entry, Cause)>>>;

/// The entries.
#[derive(Debug)]
pub(super) struct TinyLfu {
    entries: moka::sync::Cache<ObjectKey, Entry>,
    left: Left,
}

impl TinyLfu {
    /// For entries of up to 4 GiB each, `capacity` bytes in all.
    pub(super) fn new(capacity: u64) -> Self {
        let left = Left::default();
        let told = Arc::clone(&left);
        let entries = moka::sync::Cache::builder()
            .max_capacity(capacity)
            .weigher(|_, entry: &Entry| u32::try_from(entry.weight()).unwrap_or(u32::MAX))
            .eviction_listener(move |_, entry, cause| {
                let cause = match cause {
                    RemovalCause::Size | RemovalCause::Expired => Cause::Evicted,
                    RemovalCause::Replaced => Cause::Replaced,
                    RemovalCause::Explicit => Cause::Removed,
                };
                told.lock().unwrap_or_else(PoisonError::into_inner).push((entry, cause));
            })
            .build();
        Self { entries, left }
    }

    /// What lies there; that it was asked for counts.
    pub(super) fn get(&self, place: &ObjectKey) -> Option<Entry> {
        self.entries.get(place)
    }

    /// Whether something lies there.
    pub(super) fn contains(&self, place: &ObjectKey) -> bool {
        self.entries.contains_key(place)
    }

    /// Puts something there. It may leave at once.
    pub(super) fn insert(&self, place: ObjectKey, value: Entry) {
        self.entries.insert(place, value);
    }

    /// Removes what lies there.
    pub(super) fn remove(&self, place: &ObjectKey) {
        self.entries.invalidate(place);
    }

    /// All that has left since the last time.
    pub(super) fn take_left(&self) -> Vec<(Entry, Cause)> {
        std::mem::take(&mut *self.left.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What all weigh, and how many there are, after all that is due has been done.
    pub(super) fn totals(&self) -> (u64, u64) {
        self.entries.run_pending_tasks();
        (self.entries.weighted_size(), self.entries.entry_count())
    }
}
