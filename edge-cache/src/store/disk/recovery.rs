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
    /// All of them: the newest one may belong to a content that was lost.
    updates: Mutex<Vec<(u32, Entry)>>,
}

impl Merge {
    /// For this index, which is empty.
    pub fn new(index: &Index) -> Self {
        let shards = (0..index.shards()).map(|_| Mutex::default()).collect();
        Self { shards, updates: Mutex::default() }
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, Table<Seen>> {
        let shard = &self.shards[hash as usize & (self.shards.len() - 1)];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A record of a segment.
    pub fn add(&self, segment: u32, entry: &Entry) {
        let role = match entry.role {
            Role::Content => 0,
            Role::Tombstone => TOMBSTONE,
            Role::Update => {
                let mut updates = self.updates.lock().unwrap_or_else(PoisonError::into_inner);
                updates.push((segment, *entry));
                return;
            }
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
        let mut updates = self.updates.into_inner().unwrap_or_else(PoisonError::into_inner);
        updates.sort_unstable_by_key(|(_, update)| std::cmp::Reverse(update.sequence));
        let mut chosen = Vec::new();
        for (segment, update) in updates {
            let hash = update_hash(update.hash);
            let shard = &self.shards[hash as usize & (self.shards.len() - 1)];
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(content) = shard.get_mut(hash) else { continue };
            let entry = index::Entry::from_bits(content.entry);
            let belongs = content.entry & TOMBSTONE == 0
                && (update.epoch..update.sequence).contains(&content.sequence);
            if belongs && !entry.is_updated() {
                content.entry = entry.with_update(true).bits();
                chosen.push((update.hash, index::Entry::new(update.at(segment))));
            }
        }
        for (shard, mut into) in self.shards.into_iter().zip(index.each()) {
            let shard = shard.into_inner().unwrap_or_else(PoisonError::into_inner);
            let alive = || shard.iter().filter(|seen| seen.entry & TOMBSTONE == 0);
            let slot = |seen: &Seen| (seen.hash, index::Entry::from_bits(seen.entry & !TOMBSTONE));
            for (_, entry) in alive().map(slot) {
                usage.add(entry.location());
            }
            *into = Table::from_ordered(alive().map(slot), alive().count());
        }
        for (hash, update) in chosen {
            usage.add(update.location());
            index.insert(hash, update);
        }
    }
}
