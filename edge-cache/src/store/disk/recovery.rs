//! What a crash has left: of the records of a place, in whatever order segments are read, the one that was handed over
//! last counts; a tombstone is the end of what came before it, a later meta belongs to the content before it.
//!
//! Nothing is found before all segments have been read: the next one could hold the tombstone.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::format::Role;
use super::index::{self, Index, Table};
use super::log::{Entry, Usage};
use super::{reclaim, update_hash};

/// A content or a tombstone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    hash: u64,
    sequence: u64,
    /// Of two with one number, the tombstone counts.
    is_tombstone: bool,
    entry: u64,
}

/// The records of all segments, as they are read: by several threads at once.
#[derive(Debug)]
pub struct Merge {
    /// In the order in which they come; sorted at the end, each shard within the processor's cache: half the time that
    /// tables take which are searched for each record.
    shards: Vec<Mutex<Vec<Seen>>>,
    /// All of them: the newest one may belong to a content that was lost.
    updates: Mutex<Vec<(u32, Entry)>>,
}

impl Merge {
    /// For this index, which is empty.
    pub fn new(index: &Index) -> Self {
        let shards = (0..index.shards()).map(|_| Mutex::default()).collect();
        Self { shards, updates: Mutex::default() }
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, Vec<Seen>> {
        lock(&self.shards[hash as usize & (self.shards.len() - 1)])
    }

    /// A record of a segment.
    pub fn add(&self, segment: u32, entry: &Entry) {
        if entry.role == Role::Update {
            lock(&self.updates).push((segment, *entry));
            return;
        }
        let mut shard = self.shard(entry.hash);
        if shard.len() == shard.capacity() {
            // Twice as much would be a good part of the node's memory.
            let more = shard.len() / 4 + 64;
            shard.reserve_exact(more);
        }
        shard.push(Seen {
            hash: entry.hash,
            sequence: entry.sequence,
            is_tombstone: entry.role == Role::Tombstone,
            entry: reclaim::first_entry(entry.at(segment)).bits(),
        });
    }

    /// All have been read: what the index says. `each` calls a function for every number below one, in any order, in
    /// several threads if it can.
    pub fn finish(
        self,
        index: &Index,
        usage: &Usage,
        each: impl Fn(usize, &(dyn Fn(usize) + Sync)),
    ) {
        each(self.shards.len(), &|shard| {
            let mut shard = lock(&self.shards[shard]);
            shard.sort_unstable();
            // Of each hash the last one stays.
            shard.reverse();
            shard.dedup_by_key(|seen| seen.hash);
            shard.reverse();
        });
        let mut updates = std::mem::take(&mut *lock(&self.updates));
        updates.sort_unstable_by_key(|(_, update)| std::cmp::Reverse(update.sequence));
        let mut chosen = Vec::new();
        for (segment, update) in updates {
            let hash = update_hash(update.hash);
            let mut shard = self.shard(hash);
            let found = shard.binary_search_by_key(&hash, |seen| seen.hash).ok();
            let Some(content) = found.and_then(|at| shard.get_mut(at)) else { continue };
            let entry = index::Entry::from_bits(content.entry);
            let belongs = !content.is_tombstone
                && (update.epoch..update.sequence).contains(&content.sequence);
            if belongs && !entry.is_updated() {
                content.entry = entry.with_update(true).bits();
                chosen.push((update.hash, index::Entry::new(update.at(segment))));
            }
        }
        each(self.shards.len(), &|number| {
            let shard = std::mem::take(&mut *lock(&self.shards[number]));
            let alive = || shard.iter().filter(|seen| !seen.is_tombstone);
            let slot = |seen: &Seen| (seen.hash, index::Entry::from_bits(seen.entry));
            for (_, entry) in alive().map(slot) {
                usage.add(entry.location());
            }
            *index.shard(number as u64) = Table::from_ordered(alive().map(slot), alive().count());
        });
        for (hash, update) in chosen {
            usage.add(update.location());
            index.insert(hash, update);
        }
    }
}

/// A panic elsewhere leaves a list.
fn lock<T>(list: &Mutex<T>) -> MutexGuard<'_, T> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::Geometry;
    use super::*;

    fn entry(hash: u64, sequence: u64, role: Role, epoch: u64) -> Entry {
        Entry { hash, sequence, epoch, unit: sequence as u32, units: 1, role, flags: 0 }
    }

    /// In whatever order they are read.
    #[test]
    fn the_last_one_handed_over_counts() {
        let (content, tombstone, update) = (Role::Content, Role::Tombstone, Role::Update);
        let mut records = vec![
            entry(1, 10, content, 0),
            entry(1, 30, content, 0),
            entry(1, 20, tombstone, 0),
            entry(2, 10, content, 0),
            entry(2, 20, tombstone, 0),
            entry(3, 15, content, 0),
            entry(update_hash(3), 20, update, 15),
            entry(update_hash(3), 30, update, 15),
            entry(update_hash(3), 40, update, 35),
            entry(4, 10, content, 0),
            entry(4, 10, tombstone, 0),
            entry(update_hash(4), 12, update, 10),
        ];
        for _ in 0..records.len() {
            records.rotate_left(1);
            let geometry = Geometry::new(16 << 20).unwrap();
            let (index, usage) = (Index::new(10), Usage::new(&geometry));
            let merge = Merge::new(&index);
            for record in &records {
                merge.add(0, record);
            }
            merge.finish(&index, &usage, |count, work| (0..count).for_each(work));
            let unit = |hash| index.get(hash).map(|entry| entry.location().unit);
            assert_eq!((unit(1), unit(2), unit(4)), (Some(30), None, None));
            assert_eq!((unit(3), unit(update_hash(3))), (Some(15), Some(30)), "40 is another's");
            assert!(index.get(3).unwrap().is_updated() && !index.get(1).unwrap().is_updated());
            assert_eq!((index.len(), usage.live(0)), (3, 3));
        }
    }
}
