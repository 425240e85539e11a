//! What a crash has left: of the records of a place, in whatever order segments are read, the one that was handed over
//! last counts; a tombstone is the end of what came before it, a later meta belongs to the content before it.
//!
//! Nothing is found before all segments have been read: the next one could hold the tombstone.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::format::Role;
use super::index::{self, Index, Slot, Table};
use super::log::{Entry, Usage};
use super::update_hash;

const TOMBSTONE: u64 = 1 << 3;
const UPDATE: u64 = 1 << 4;

#[derive(Clone, Copy, Debug)]
struct Seen {
    hash: u64,
    /// An index entry, and in bits that it leaves free what it is.
    entry: u64,
    sequence: u64,
}

impl Slot for Seen {
    const EMPTY: Self = Self { hash: 0, entry: 0, sequence: 0 };
    fn hash(&self) -> u64 {
        self.hash
    }
}

/// The records of all segments, as they are read: by several threads at once.
#[derive(Debug)]
pub struct Merge {
    shards: Vec<Mutex<Table<Seen>>>,
}

impl Merge {
    /// For this index, which is empty.
    pub fn new(index: &Index) -> Self {
        Self { shards: (0..index.shards()).map(|_| Mutex::default()).collect() }
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, Table<Seen>> {
        let shard = &self.shards[hash as usize & (self.shards.len() - 1)];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A record of a segment.
    pub fn add(&self, segment: u32, entry: &Entry) {
        let role = match entry.role {
            Role::Content => 0,
            Role::Update => UPDATE,
            Role::Tombstone => TOMBSTONE,
        };
        let bits = index::Entry::new(entry.at(segment)).bits() | role;
        let seen = Seen { hash: entry.hash, entry: bits, sequence: entry.sequence };
        let mut shard = self.shard(entry.hash);
        match shard.get_mut(entry.hash) {
            Some(other) => {
                let newer = entry.sequence > other.sequence
                    || entry.sequence == other.sequence && role == TOMBSTONE;
                if newer {
                    *other = seen;
                }
            }
            None => {
                shard.insert(seen);
            }
        }
    }

    /// All have been read: what the index says.
    pub fn finish(self, index: &Index, usage: &Usage) {
        // Later metas lie in other shards than their contents.
        let mut updates = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            updates.extend(shard.iter().filter(|seen| seen.entry & UPDATE != 0).copied());
        }
        for update in updates {
            let hash = update_hash(update.hash);
            let mut content = self.shard(hash);
            let fits = content.get_mut(hash).filter(|seen| {
                seen.entry & (TOMBSTONE | UPDATE) == 0 && seen.sequence < update.sequence
            });
            let Some(content) = fits else {
                drop(content);
                self.shard(update.hash).remove(update.hash);
                continue;
            };
            content.entry = index::Entry::from_bits(content.entry).with_update(true).bits();
        }
        for (shard, mut into) in self.shards.into_iter().zip(index.each()) {
            let shard = shard.into_inner().unwrap_or_else(PoisonError::into_inner);
            let alive = || shard.iter().filter(|seen| seen.entry & TOMBSTONE == 0);
            let slot = |seen: &Seen| {
                (seen.hash, index::Entry::from_bits(seen.entry & !(TOMBSTONE | UPDATE)))
            };
            for (_, entry) in alive().map(slot) {
                usage.add(entry.location());
            }
            *into = Table::from_ordered(alive().map(slot), alive().count());
        }
    }
}
