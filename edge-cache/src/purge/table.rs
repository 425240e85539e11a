//! A bounded table from a hash to the positions of the last purges of what hashes to it.
//!
//! Readers never wait and take no lock. Where there is no room for a further hash, the oldest of its bucket is folded
//! into the bucket's floor, which counts for everything that would lie in this bucket: more is purged than was asked
//! for, never less. What the floor holds is older than the last purges of its bucket, and soon older than anything
//! stored.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::{Floor, Kind, Position};

/// Hashes of a bucket.
const WAYS: usize = 8;

/// Positions of the last hard and the last soft purge. They only grow.
#[derive(Debug, Default)]
pub(super) struct Marks {
    hard: AtomicU64,
    soft: AtomicU64,
}

impl Marks {
    pub(super) fn get(&self) -> Floor {
        Floor {
            hard: Position(self.hard.load(Ordering::Acquire)),
            soft: Position(self.soft.load(Ordering::Acquire)),
        }
    }

    pub(super) fn raise(&self, kind: Kind, at: Position) {
        let mark = match kind {
            Kind::Hard => &self.hard,
            Kind::Soft => &self.soft,
        };
        mark.fetch_max(at.0, Ordering::AcqRel);
    }

    fn raise_to(&self, floor: Floor) {
        self.raise(Kind::Hard, floor.hard);
        self.raise(Kind::Soft, floor.soft);
    }

    fn set(&self, floor: Floor) {
        self.hard.store(floor.hard.0, Ordering::Release);
        self.soft.store(floor.soft.0, Ordering::Release);
    }
}

/// A hash, and its purges. The hash 0 stands for an empty slot.
#[derive(Debug, Default)]
struct Slot {
    hash: AtomicU64,
    marks: Marks,
}

#[derive(Debug, Default)]
struct Bucket {
    slots: [Slot; WAYS],
    floor: Marks,
    /// Held by writers for as long as it takes to look at the slots.
    writer: Mutex<()>,
}

/// The table. It takes memory from its first purge on.
#[derive(Debug)]
pub(super) struct Table {
    buckets: OnceLock<Box<[Bucket]>>,
    count: usize,
    newest: Marks,
}

impl Table {
    /// For so many hashes, rounded up.
    pub(super) fn new(hashes: usize) -> Self {
        let count = hashes.div_ceil(WAYS).max(1).next_power_of_two();
        Self { buckets: OnceLock::new(), count, newest: Marks::default() }
    }

    /// The last purges of anything in the table.
    pub(super) fn newest(&self) -> Floor {
        self.newest.get()
    }

    /// Whether anything was ever purged here.
    pub(super) fn is_used(&self) -> bool {
        self.buckets.get().is_some()
    }

    /// The last purges of what hashes to `hash`, or later ones.
    pub(super) fn get(&self, hash: u64) -> Floor {
        let Some(bucket) = self.buckets.get().and_then(|buckets| self.bucket(buckets, hash)) else {
            return Floor::default();
        };
        let hash = hash.max(1);
        let own = bucket.slots.iter().find(|slot| slot.hash.load(Ordering::Acquire) == hash);
        let own = own.map(|slot| slot.marks.get()).unwrap_or_default();
        // The floor last: who finds its hash gone from the slots sees the floor that it was folded into.
        own.max(bucket.floor.get())
    }

    /// A purge of what hashes to `hash`.
    pub(super) fn raise(&self, hash: u64, kind: Kind, at: Position) {
        let fresh = || (0..self.count).map(|_| Bucket::default()).collect();
        let buckets = self.buckets.get_or_init(fresh);
        let Some(bucket) = self.bucket(buckets, hash) else { return };
        bucket.raise(hash.max(1), kind, at);
        self.newest.raise(kind, at);
    }

    /// All that it knows: each hash, and each bucket with a floor, as [`raise`](Self::raise) and
    /// [`raise_floor`](Self::raise_floor) take them.
    pub(super) fn each(
        &self,
        mut hash: impl FnMut(u64, Floor),
        mut floor: impl FnMut(usize, usize, Floor),
    ) {
        for (index, bucket) in self.buckets.get().into_iter().flatten().enumerate() {
            let _writer = bucket.writer.lock().unwrap_or_else(PoisonError::into_inner);
            for slot in &bucket.slots {
                match slot.hash.load(Ordering::Acquire) {
                    0 => {}
                    own => hash(own, slot.marks.get()),
                }
            }
            let own = bucket.floor.get();
            if own != Floor::default() {
                floor(self.count, index, own);
            }
        }
    }

    /// The floor of a bucket of a table that had `count` of them: it holds for all that would lie there.
    pub(super) fn raise_floor(&self, count: usize, index: usize, floor: Floor) {
        let fresh = || (0..self.count).map(|_| Bucket::default()).collect();
        let buckets = self.buckets.get_or_init(fresh);
        let first = index & (self.count - 1);
        for bucket in buckets.iter().skip(first).step_by(count.max(1)) {
            bucket.floor.raise_to(floor);
        }
        self.newest.raise_to(floor);
    }

    fn bucket<'a>(&self, buckets: &'a [Bucket], hash: u64) -> Option<&'a Bucket> {
        // The upper bits; equal lower ones are told apart in the bucket.
        buckets.get((hash >> 32) as usize & (self.count - 1))
    }
}

impl Bucket {
    fn raise(&self, hash: u64, kind: Kind, at: Position) {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |slot: &Slot| slot.hash.load(Ordering::Acquire);
        if let Some(slot) = self.slots.iter().find(|slot| of(slot) == hash) {
            slot.marks.raise(kind, at);
            return;
        }
        let age = |slot: &&Slot| (of(slot) != 0, slot.marks.get().newest());
        let Some(slot) = self.slots.iter().min_by_key(age) else { return };
        let old = slot.marks.get();
        if of(slot) != 0 && old.newest() > at {
            // Older than all of them, as when purges come out of order: it is the one to fold.
            self.floor.raise(kind, at);
            return;
        }
        // The floor first, see `get`; then the positions, so that the hash is never seen with those of another.
        self.floor.raise_to(old);
        let mut new = Floor::default();
        match kind {
            Kind::Hard => new.hard = at,
            Kind::Soft => new.soft = at,
        }
        // Between these two lines the old hash has the new positions, which are later ones.
        slot.marks.set(new);
        slot.hash.store(hash, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn kinds() -> impl Strategy<Value = Kind> {
        prop_oneof![Just(Kind::Hard), Just(Kind::Soft)]
    }

    #[test]
    fn an_unused_table_takes_no_memory_and_purges_nothing() {
        let table = Table::new(1 << 30);
        assert!(!table.is_used());
        assert_eq!((table.get(0), table.newest()), (Floor::default(), Floor::default()));
    }

    #[test]
    fn while_there_is_room_nothing_else_is_purged() {
        let table = Table::new(1 << 16);
        for n in 0..10_000u64 {
            table.raise(n.wrapping_mul(0x9e37_79b9_7f4a_7c15), Kind::Hard, Position(n + 1));
        }
        let others = 10_000..110_000u64;
        let hit = others
            .filter(|n| table.get(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).hard > Position::default())
            .count();
        assert_eq!(hit, 0);
    }

    #[test]
    fn a_full_bucket_folds_its_oldest() {
        let table = Table::new(WAYS);
        for n in 1..=WAYS as u64 + 3 {
            table.raise(n, Kind::Hard, Position(n * 10));
        }
        // 1 to 3 were folded; what was never purged counts as purged with them.
        assert_eq!(table.get(999).hard, Position(30));
        assert_eq!(table.get(1).hard, Position(30));
        assert_eq!(table.get(4).hard, Position(40));
        // One that comes late is folded at once.
        table.raise(500, Kind::Hard, Position(35));
        assert_eq!(table.get(999).hard, Position(35));
        assert_eq!(table.get(4).hard, Position(40));
    }

    proptest! {
        /// Whatever was purged stays purged, however full the table is, and whatever the order.
        #[test]
        fn folding_never_purges_less(
            purges in proptest::collection::vec((any::<u8>(), kinds(), 1u64..1000), 1..300),
            room in 1usize..64,
        ) {
            let table = Table::new(room);
            let spread = |n: u8| u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut exact: HashMap<u8, Floor> = HashMap::new();
            for (n, kind, at) in purges {
                table.raise(spread(n), kind, Position(at));
                let floor = exact.entry(n).or_default();
                *floor = floor.max(match kind {
                    Kind::Hard => Floor { hard: Position(at), ..Floor::default() },
                    Kind::Soft => Floor { soft: Position(at), ..Floor::default() },
                });
                for (n, floor) in &exact {
                    let got = table.get(spread(*n));
                    prop_assert!(got.hard >= floor.hard && got.soft >= floor.soft);
                    prop_assert!(got.hard <= table.newest().hard && got.soft <= table.newest().soft);
                }
            }
        }

        /// What is read from one table into another, smaller or larger, is purged there, too; into one of the same size,
        /// nothing else is.
        #[test]
        fn a_table_survives_being_written_down(
            purges in proptest::collection::vec((any::<u64>(), kinds(), 1u64..1000), 1..300),
            (before, after) in (1usize..400, 1usize..400),
        ) {
            let (one, other) = (Table::new(before), Table::new(after));
            for (hash, kind, at) in &purges {
                one.raise(*hash, *kind, Position(*at));
            }
            one.each(
                |hash, floor| {
                    other.raise(hash, Kind::Hard, floor.hard);
                    other.raise(hash, Kind::Soft, floor.soft);
                },
                |count, index, floor| other.raise_floor(count, index, floor),
            );
            let probes = (0..1000).map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            for hash in purges.iter().map(|(hash, ..)| *hash).chain(probes) {
                let (was, is) = (one.get(hash), other.get(hash));
                prop_assert!(is.hard >= was.hard && is.soft >= was.soft);
                prop_assert!(one.count != other.count || is == was);
            }
            prop_assert_eq!(one.newest(), other.newest());
        }

        /// With room for all, the order of purges makes no difference, nor how often they come.
        #[test]
        fn order_does_not_matter(
            purges in proptest::collection::vec((0u8..WAYS as u8, kinds(), 1u64..1000), 1..50),
        ) {
            let (one, other) = (Table::new(4096), Table::new(4096));
            for (n, kind, at) in &purges {
                one.raise(u64::from(*n), *kind, Position(*at));
            }
            for (n, kind, at) in purges.iter().rev().chain(&purges) {
                other.raise(u64::from(*n), *kind, Position(*at));
            }
            for n in 0..WAYS as u64 {
                prop_assert_eq!(one.get(n), other.get(n));
            }
        }
    }
}
