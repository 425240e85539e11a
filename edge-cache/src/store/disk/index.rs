//! What lies where: a flat table of 16 bytes per record and a little room, in many shards, so that no growth is long.
//!
//! Entries lie in the order of their hashes, each at the place that its hash says or behind it. So a search ends at the first
//! larger hash, a removal leaves no mark, growing copies from one end to the other, and a copy of the table is the table.
//! A hash is not a place: who reads a record compares the place that it names.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// In which segment: below 2^20.
    pub segment: u32,
    /// At which unit of it: below 2^19.
    pub unit: u32,
    /// How many units it takes: 1 to 2^19.
    pub units: u32,
}

/// What the index says of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry(u64);

const HITS: u64 = 0b11;
const UPDATED: u64 = 1 << 2;

impl Entry {
    /// Not asked for since it was written.
    pub const fn new(at: Location) -> Self {
        let at = (at.segment as u64 & 0xf_ffff) << 38
            | (at.unit as u64 & 0x7_ffff) << 19
            | (at.units as u64 - 1) & 0x7_ffff;
        Self(at << 6)
    }

    /// As it is kept in a copy of the index.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The inverse.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Where.
    pub const fn location(self) -> Location {
        let at = self.0 >> 6;
        Location {
            segment: (at >> 38) as u32,
            unit: (at >> 19 & 0x7_ffff) as u32,
            units: (at & 0x7_ffff) as u32 + 1,
        }
    }

    /// How often it was asked for since it was written, up to three.
    pub const fn hits(self) -> u8 {
        (self.0 & HITS) as u8
    }

    /// Whether a later meta is stored beside it.
    pub const fn is_updated(self) -> bool {
        self.0 & UPDATED != 0
    }

    /// With one more hit.
    #[must_use]
    pub const fn touched(self) -> Self {
        if self.0 & HITS == HITS { self } else { Self(self.0 + 1) }
    }

    /// With as many hits.
    #[must_use]
    pub const fn with_hits(self, hits: u8) -> Self {
        let hits = if hits > 3 { 3 } else { hits };
        Self(self.0 & !HITS | hits as u64)
    }

    /// With or without a later meta beside it.
    #[must_use]
    pub const fn with_update(self, updated: bool) -> Self {
        Self(if updated { self.0 | UPDATED } else { self.0 & !UPDATED })
    }
}

/// What a table holds: something with a hash, which is 0 for nothing.
pub trait Slot: Copy {
    /// Nothing.
    const EMPTY: Self;
    /// Its hash.
    fn hash(&self) -> u64;
}

impl Slot for (u64, Entry) {
    const EMPTY: Self = (0, Entry(0));
    fn hash(&self) -> u64 {
        self.0
    }
}

/// A table in the order of hashes.
#[derive(Debug)]
pub struct Table<S> {
    slots: Vec<S>,
    /// Slots that hashes lead to; those behind them take what has no room there.
    homes: usize,
    len: usize,
}

impl<S> Default for Table<S> {
    fn default() -> Self {
        Self { slots: Vec::new(), homes: 0, len: 0 }
    }
}

impl<S: Slot> Table<S> {
    /// How many it holds.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds nothing.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that it takes.
    pub const fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<S>()
    }

    /// All that it holds, in order.
    pub fn iter(&self) -> impl Iterator<Item = &S> {
        self.slots.iter().filter(|slot| slot.hash() != 0)
    }

    const fn home(&self, hash: u64) -> usize {
        ((hash as u128 * self.homes as u128) >> 64) as usize
    }

    /// Where it is, or where it would have to be put.
    fn search(&self, hash: u64) -> Result<usize, usize> {
        let home = self.home(hash);
        for (at, slot) in self.slots.iter().enumerate().skip(home) {
            let other = slot.hash();
            if other == hash && hash != 0 {
                return Ok(at);
            }
            if other == 0 || other > hash {
                return Err(at);
            }
        }
        Err(self.slots.len())
    }

    /// The one with this hash.
    pub fn get(&self, hash: u64) -> Option<&S> {
        self.search(hash).ok().and_then(|at| self.slots.get(at))
    }

    /// Likewise; its hash is not to be changed.
    pub fn get_mut(&mut self, hash: u64) -> Option<&mut S> {
        self.search(hash).ok().and_then(|at| self.slots.get_mut(at))
    }

    /// Puts it in the place of the one with the same hash, which is returned.
    pub fn insert(&mut self, slot: S) -> Option<S> {
        if self.len * 20 >= self.homes * 17 {
            self.grow();
        }
        loop {
            match self.search(slot.hash()) {
                Ok(at) => return self.slots.get_mut(at).map(|old| std::mem::replace(old, slot)),
                Err(at) => {
                    let free = self.slots.get(at..).and_then(|rest| {
                        rest.iter().position(|other| other.hash() == 0).map(|more| at + more)
                    });
                    if let Some(free) = free {
                        self.slots.copy_within(at..free, at + 1);
                        if let Some(here) = self.slots.get_mut(at) {
                            *here = slot;
                        }
                        self.len += 1;
                        return None;
                    }
                    self.grow();
                }
            }
        }
    }

    /// Takes out the one with this hash.
    pub fn remove(&mut self, hash: u64) -> Option<S> {
        let at = self.search(hash).ok()?;
        let removed = *self.slots.get(at)?;
        // Those behind it that are not at home move up.
        let mut end = at + 1;
        while let Some(next) = self.slots.get(end) {
            if next.hash() == 0 || self.home(next.hash()) == end {
                break;
            }
            end += 1;
        }
        self.slots.copy_within(at + 1..end, at);
        if let Some(last) = self.slots.get_mut(end - 1) {
            *last = S::EMPTY;
        }
        self.len -= 1;
        Some(removed)
    }

    fn grow(&mut self) {
        let homes = (self.homes * 4 / 3).max(self.homes + 12);
        let old = std::mem::take(&mut self.slots);
        self.rebuild(homes, old.into_iter().filter(|slot| slot.hash() != 0));
    }

    fn rebuild(&mut self, homes: usize, ordered: impl Iterator<Item = S>) {
        self.homes = homes;
        self.slots = vec![S::EMPTY; homes + homes / 16 + 4];
        self.len = 0;
        let mut next = 0;
        for slot in ordered {
            let at = self.home(slot.hash()).max(next);
            next = at + 1;
            self.len += 1;
            match self.slots.get_mut(at) {
                Some(here) => *here = slot,
                None => self.slots.push(slot),
            }
        }
    }

    /// A table with these, whose hashes are all different and in rising order.
    pub fn from_ordered(slots: impl Iterator<Item = S>, count: usize) -> Self {
        let mut table = Self::default();
        if count > 0 {
            table.rebuild(count * 4 / 3 + 4, slots);
        }
        table
    }
}

/// One of the tables, in a cache line of its own: a look touches this and the slot.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard(Mutex<Table<(u64, Entry)>>);

/// The index of a disk.
#[derive(Debug)]
pub struct Index {
    shards: Box<[Shard]>,
}

/// A shard with as many entries takes 90 KB, and grows in 20 µs.
const PER_SHARD: u64 = 4096;
/// Most shards: for a quarter of a billion records.
const MOST_SHARDS: u64 = 1 << 16;

impl Shard {
    /// A panic elsewhere leaves it whole.
    fn lock(&self) -> MutexGuard<'_, Table<(u64, Entry)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    /// For about this many records; it holds as many as come.
    pub fn new(expected: u64) -> Self {
        let shards = (expected / PER_SHARD).clamp(8, MOST_SHARDS).next_power_of_two();
        Self { shards: (0..shards).map(|_| Shard::default()).collect() }
    }

    /// How many shards it has, a power of two.
    pub const fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Which shard a hash belongs to.
    pub const fn shard_of(&self, hash: u64) -> usize {
        hash as usize & (self.shards.len() - 1)
    }

    /// One of them.
    pub fn shard(&self, hash: u64) -> MutexGuard<'_, Table<(u64, Entry)>> {
        self.shards[self.shard_of(hash)].lock()
    }

    /// What it says of a record.
    pub fn get(&self, hash: u64) -> Option<Entry> {
        self.shard(hash).get(hash).map(|slot| slot.1)
    }

    /// Puts it there, in the place of what is returned.
    pub fn insert(&self, hash: u64, entry: Entry) -> Option<Entry> {
        self.shard(hash).insert((hash, entry)).map(|slot| slot.1)
    }

    /// Takes it out.
    pub fn remove(&self, hash: u64) -> Option<Entry> {
        self.shard(hash).remove(hash).map(|slot| slot.1)
    }

    /// Takes it out if the record lies there.
    pub fn remove_at(&self, hash: u64, at: Location) -> Option<Entry> {
        let mut shard = self.shard(hash);
        let here = shard.get(hash).is_some_and(|slot| slot.1.location() == at);
        here.then(|| shard.remove(hash)).flatten().map(|slot| slot.1)
    }

    /// Changes what it says of a record.
    pub fn change(&self, hash: u64, change: impl FnOnce(Entry) -> Entry) -> Option<Entry> {
        let mut shard = self.shard(hash);
        let slot = shard.get_mut(hash)?;
        slot.1 = change(slot.1);
        Some(slot.1)
    }

    /// A record was asked for.
    pub fn touch(&self, hash: u64) {
        self.change(hash, Entry::touched);
    }

    /// How many records it knows, updates among them.
    pub fn len(&self) -> usize {
        self.each().map(|shard| shard.len()).sum()
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        let tables: usize = self.each().map(|shard| shard.bytes()).sum();
        tables + size_of_val(&*self.shards)
    }

    /// All shards, one after another.
    pub fn each(&self) -> impl Iterator<Item = MutexGuard<'_, Table<(u64, Entry)>>> {
        self.shards.iter().map(Shard::lock)
    }

    /// Forgets everything.
    pub fn clear(&self) {
        for mut shard in self.each() {
            *shard = Table::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    fn location(n: u32) -> Location {
        Location { segment: n % (1 << 20), unit: n % (1 << 19), units: n % (1 << 19) + 1 }
    }

    proptest! {
        #[test]
        fn an_entry_keeps_what_it_is_told(segment in 0u32..1 << 20, unit in 0u32..1 << 19, units in 1u32..=1 << 19) {
            let at = Location { segment, unit, units };
            let entry = Entry::new(at).touched().touched().touched().touched().with_update(true);
            prop_assert_eq!(entry.location(), at);
            prop_assert_eq!((entry.hits(), entry.is_updated()), (3, true));
            prop_assert_eq!(entry.with_hits(1).with_update(false).hits(), 1);
            prop_assert_eq!(Entry::from_bits(entry.bits()), entry);
        }

        /// As a map does, whatever the hashes: few and far between, or all beside each other.
        #[test]
        fn a_table_is_a_map(ops in prop::collection::vec((0u8..3, 1u64..200, any::<bool>()), 0..600)) {
            let mut table = Table::<(u64, Entry)>::default();
            let mut map = BTreeMap::new();
            for (n, (op, key, spread)) in ops.into_iter().enumerate() {
                let hash = if spread { key.wrapping_mul(0x9e37_79b9_7f4a_7c15) } else { u64::MAX - key };
                let entry = Entry::new(location(n as u32));
                match op {
                    0 | 1 => {
                        prop_assert_eq!(table.insert((hash, entry)).map(|slot| slot.1), map.insert(hash, entry));
                    }
                    _ => prop_assert_eq!(table.remove(hash).map(|slot| slot.1), map.remove(&hash)),
                }
                prop_assert_eq!(table.get(hash).map(|slot| slot.1), map.get(&hash).copied());
            }
            prop_assert_eq!(table.len(), map.len());
            prop_assert!(table.iter().copied().eq(map.iter().map(|(hash, entry)| (*hash, *entry))));
            let copy = Table::from_ordered(table.iter().copied(), table.len());
            prop_assert!(copy.iter().eq(table.iter()));
            for hash in map.keys() {
                prop_assert!(copy.get(*hash).is_some());
            }
        }
    }

    #[test]
    fn an_entry_costs_less_than_thirty_bytes_of_memory() {
        let index = Index::new(1_000_000);
        let mut worst = 0.0f64;
        for n in 1..=1_000_000u64 {
            let hash = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            index.insert(hash, Entry::new(location(n as u32)));
            if n >= 500_000 && n % 20_000 == 0 {
                worst = worst.max(index.bytes() as f64 / n as f64);
            }
        }
        assert_eq!(index.len(), 1_000_000);
        assert!(worst < 30.0, "{worst} bytes a record");
    }
}
