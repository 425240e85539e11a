//! The tables of the memory tier: many small ones, each under a lock of its own, by the hash of what lies where.
//!
//! The capacity is that of all together. What makes room for an entry goes from its own table when that has its share, and
//! otherwise from one that has more, so that the last of a few heavy entries does not throw out another while there is
//! room elsewhere. An entry's share of the work is bounded: what makes room is found in batches, the lock given back
//! between them, and leaves with the caller, whose destructors run when no lock is held.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::object::ObjectKey;
use super::policy::{Engine, Key, Put, Settings, Table, Weight};

/// What a place is in the tables: half of it. Of places with the same key no two have the same print, so who compares keys
/// with what is found compares places; and which others do, nobody can find out without the seed.
type Print = u128;

/// Most tables: few enough that what all have at their heads stays in the processor's caches.
const MOST_SHARDS: u64 = 32;
/// How many of the heaviest entries a table's share has room for, at least.
const HEAVIEST: u64 = 8;
/// Entries that make room under one lock.
const BATCH: usize = 32;
/// Entries that make room for one of no weight, where there are too many because the capacity has fallen.
const PAID: usize = 64;

/// One of them, in cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Shard<V> {
    table: Mutex<Table<Print, V>>,
    /// What it weighed when it was last changed.
    weight: AtomicU64,
}

/// Tables of what lies where.
#[derive(Debug)]
pub(super) struct Shards<V> {
    /// A power of two.
    shards: Box<[Shard<V>]>,
    seed: u64,
    /// What variants are multiplied with in a [`Print`]. Odd, so that none is lost.
    factor: u128,
    capacity: AtomicU64,
    /// What all weigh, and what is about to come.
    weight: AtomicU64,
    /// Where one that has more than its share was found last.
    cursor: AtomicUsize,
}

impl<V: Clone> Shards<V> {
    /// As many tables as leave each room for some entries of weight `heaviest`; the capacity of `settings` is that of all.
    pub(super) fn new(settings: Settings, heaviest: u64) -> Self {
        let most = settings.capacity / (HEAVIEST * heaviest.max(1));
        let count = 1 << most.clamp(1, MOST_SHARDS).ilog2();
        let shard = |number| {
            let seed = settings.seed.wrapping_add(number);
            let capacity = settings.capacity / count;
            let policy = Engine::new(Settings { capacity, seed, ..settings });
            // Which share of the capacity is a table's own, only its policy needs to know.
            let table = Table::with(policy, u64::MAX, seed);
            Shard { table: Mutex::new(table), weight: AtomicU64::new(0) }
        };
        Self {
            shards: (0..count).map(shard).collect(),
            seed: settings.seed.rotate_left(32),
            factor: u128::from(settings.seed.hash(1)) << 64 | u128::from(settings.seed.hash(2) | 1),
            capacity: AtomicU64::new(settings.capacity),
            weight: AtomicU64::new(0),
            cursor: AtomicUsize::new(0),
        }
    }

    /// Asks for what lies there.
    pub(super) fn get(&self, place: &ObjectKey) -> Option<V> {
        let print = self.print(place);
        self.shard(print)?.lock().get(&print).cloned()
    }

    /// What lies there, without anybody having asked for it.
    pub(super) fn peek(&self, place: &ObjectKey) -> Option<V> {
        let print = self.print(place);
        self.shard(print)?.lock().peek(&print).cloned()
    }

    /// Whether something lies there.
    pub(super) fn contains(&self, place: &ObjectKey) -> bool {
        let print = self.print(place);
        self.shard(print).is_some_and(|shard| shard.lock().contains(&print))
    }

    /// Puts something there. What has made room for it is added to `gone`.
    pub(super) fn insert(
        &self,
        place: &ObjectKey,
        value: V,
        weight: impl Into<Weight>,
        gone: &mut Vec<(Print, V)>,
    ) -> Put<V> {
        let load: Weight = weight.into();
        let weight = load.own;
        let print = self.print(place);
        let Some(shard) = self.shard(print) else { return Put::Refused(value) };
        if weight > self.capacity() {
            return Put::Refused(value);
        }
        self.weight.fetch_add(weight, Ordering::Relaxed);
        // Twice its weight and a few more: no caller pays for all that a fallen capacity is too little for.
        let (mut freed, most) = (0, weight.saturating_mul(2));
        while let Some(surplus) = self.surplus() {
            let paid = freed > most && gone.len() >= PAID;
            let evicted = if paid { 0 } else { self.evict(shard, weight, surplus, gone) };
            if evicted == 0 {
                self.weight.fetch_sub(weight, Ordering::Relaxed);
                return Put::Refused(value);
            }
            freed += evicted;
        }
        let mut table = shard.lock();
        let before = table.weight();
        let put = table.insert(print, value, load, gone);
        let after = table.weight();
        shard.weight.store(after, Ordering::Relaxed);
        drop(table);
        // What it has replaced was counted, too.
        let twice = (before + weight).saturating_sub(after);
        self.weight.fetch_sub(twice, Ordering::Relaxed);
        put
    }

    /// What lies there lies below as well.
    pub(super) fn settle(&self, place: &ObjectKey) {
        let print = self.print(place);
        if let Some(shard) = self.shard(print) {
            shard.lock().settle(&print);
        }
    }

    /// Takes what lies there.
    pub(super) fn remove(&self, place: &ObjectKey) -> Option<V> {
        let print = self.print(place);
        let shard = self.shard(print)?;
        let mut table = shard.lock();
        let before = table.weight();
        let value = table.remove(&print);
        self.note(shard, &table, before);
        value
    }

    /// What all may weigh.
    pub(super) fn capacity(&self) -> u64 {
        self.capacity.load(Ordering::Relaxed)
    }

    /// Sets what all may weigh.
    pub(super) fn set_capacity(&self, capacity: u64) {
        if self.capacity.swap(capacity, Ordering::Relaxed) != capacity {
            let share = capacity / self.shards.len() as u64;
            self.shards.iter().for_each(|shard| shard.lock().set_share(share));
        }
    }

    /// Evicts what is too much, but no more than about `most` entries: they are added to `gone`. `true`: all of it has gone.
    pub(super) fn shrink(&self, most: usize, gone: &mut Vec<(Print, V)>) -> bool {
        let Some(first) = self.shards.first() else { return true };
        while let Some(surplus) = self.surplus() {
            if gone.len() >= most || self.evict(first, 0, surplus, gone) == 0 {
                return false;
            }
        }
        true
    }

    /// What all weigh, and how many there are.
    pub(super) fn totals(&self) -> (u64, u64) {
        self.shards.iter().map(Shard::lock).fold((0, 0), |(weight, count), table| {
            (weight + table.weight(), count + table.len() as u64)
        })
    }

    /// What is too much.
    fn surplus(&self) -> Option<u64> {
        self.weight.load(Ordering::Relaxed).checked_sub(self.capacity()).filter(|more| *more > 0)
    }

    /// Evicts a batch, of so much weight if it has that, for an entry of weight `coming` that is to come into `own`. How
    /// much has gone.
    fn evict(&self, own: &Shard<V>, coming: u64, surplus: u64, gone: &mut Vec<(Print, V)>) -> u64 {
        let share = self.capacity() / self.shards.len() as u64;
        let weight = |shard: &Shard<V>| shard.weight.load(Ordering::Relaxed);
        let shard = if weight(own) > 0 && weight(own) + coming > share {
            own
        } else {
            let start = self.cursor.load(Ordering::Relaxed);
            let count = self.shards.len();
            let all = || (1..=count).filter_map(|n| self.shards.get((start + n) % count));
            let found = all().enumerate().find(|(_, shard)| weight(shard) > share);
            if let Some((n, _)) = found {
                self.cursor.store((start + n + 1) % count, Ordering::Relaxed);
            }
            let found = found.map(|(_, shard)| shard);
            found.or_else(|| all().max_by_key(|shard| weight(shard))).unwrap_or(own)
        };
        let mut table = shard.lock();
        let before = table.weight();
        let evicted = table.evict(surplus, BATCH, gone);
        self.note(shard, &table, before);
        evicted
    }

    /// A table that weighed `before` weighs less now.
    fn note(&self, shard: &Shard<V>, table: &Table<Print, V>, before: u64) {
        shard.weight.store(table.weight(), Ordering::Relaxed);
        self.weight.fetch_sub(before - table.weight(), Ordering::Relaxed);
    }

    const fn print(&self, place: &ObjectKey) -> Print {
        place.key.wrapping_add(place.variant.0.wrapping_mul(self.factor))
    }

    fn shard(&self, print: Print) -> Option<&Shard<V>> {
        // The tables go by the lower bits.
        let number = (print.hash(self.seed) >> 48) as usize & (self.shards.len() - 1);
        self.shards.get(number)
    }
}

impl<V> Shard<V> {
    /// A panic elsewhere leaves the table whole.
    fn lock(&self) -> MutexGuard<'_, Table<Print, V>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::policy::Kind;
    use super::*;
    use crate::semantics::vary::VariantKey;

    fn place(number: u128) -> ObjectKey {
        ObjectKey { key: number, variant: VariantKey::NONE }
    }

    fn shards(capacity: u64, heaviest: u64) -> Shards<u64> {
        let settings = Settings { kind: Kind::SizeAware, capacity, over_disk: false, seed: 9 };
        Shards::new(settings, heaviest)
    }

    #[test]
    fn there_are_as_many_as_leave_room_for_the_heaviest() {
        let count = |capacity, heaviest| shards(capacity, heaviest).shards.len();
        assert_eq!(count(1 << 30, 1 << 20), 32);
        assert_eq!(count(128 << 20, 1 << 20), 16);
        assert_eq!(count(64 << 20, 1 << 20), 8);
        assert_eq!((count(1 << 20, 1 << 20), count(0, 0), count(1 << 50, 1)), (1, 1, 32));
    }

    #[test]
    fn keys_are_spread_over_all() {
        let shards = shards(1 << 30, 1 << 20);
        (0..128_000)
            .for_each(|n| assert_eq!(shards.insert(&place(n), 0, 1, &mut Vec::new()), Put::Added));
        let lengths: Vec<_> = shards.shards.iter().map(|shard| shard.lock().len()).collect();
        assert!(lengths.iter().all(|length| (3600..4400).contains(length)), "{lengths:?}");
        assert_eq!(shards.totals(), (128_000, 128_000));
    }

    /// A heavy one among light ones: all that has to goes, some at a time.
    #[test]
    fn a_heavy_one_takes_the_place_of_hundreds() {
        let shards = shards(80_000, 10_000);
        let mut gone = Vec::new();
        (0..2000).for_each(|n| assert_eq!(shards.insert(&place(n), 0, 100, &mut gone), Put::Added));
        gone.clear();
        assert_eq!(shards.insert(&place(9999), 7, 10_000, &mut gone), Put::Added);
        assert!((90..=110).contains(&gone.len()), "{}", gone.len());
        assert_eq!(shards.peek(&place(9999)), Some(7));
        assert!(shards.totals().0 <= 80_000);
        assert_eq!(shards.insert(&place(1), 7, 80_001, &mut gone), Put::Refused(7));
    }

    /// Heavy entries are never spread evenly; still all of the capacity is used, and not more.
    #[test]
    fn there_is_no_room_that_nobody_gets() {
        let shards = shards(64_000, 1000);
        assert_eq!(shards.shards.len(), 8);
        let mut gone = Vec::new();
        for n in 0..64 {
            assert_eq!(shards.insert(&place(n), 0, 1000, &mut gone), Put::Added);
        }
        assert!(gone.is_empty());
        for n in 64..1000 {
            assert_eq!(shards.insert(&place(n), 0, 1000, &mut gone), Put::Added);
            assert_eq!((gone.len() as u128, shards.totals()), (n - 63, (64_000, 64)));
        }
        let lengths: Vec<_> = shards.shards.iter().map(|shard| shard.lock().len()).collect();
        assert!(lengths.iter().all(|length| (6..=10).contains(length)), "{lengths:?}");
        // Asked for, it is not what makes room for its own successor.
        assert_eq!(shards.get(&place(999)), Some(0));
        assert_eq!(shards.insert(&place(999), 1, 500, &mut gone), Put::Replaced(0));
        assert_eq!(shards.remove(&place(999)), Some(1));
        // One more made room for it, for the one that it replaced was still there.
        assert_eq!(
            (shards.weight.load(Ordering::Relaxed), shards.totals()),
            (62_000, (62_000, 62))
        );
    }

    /// When the capacity falls by much, no insertion pays for all of it.
    #[test]
    fn a_smaller_capacity_is_reached_in_steps() {
        let shards = shards(100_000, 100_000);
        let mut gone = Vec::new();
        (0..10_000)
            .for_each(|n| assert_eq!(shards.insert(&place(n), 0, 10, &mut gone), Put::Added));
        assert!(gone.is_empty());
        shards.set_capacity(50_000);
        assert_eq!(shards.insert(&place(99_999), 1, 10, &mut gone), Put::Refused(1));
        assert!((PAID..PAID + BATCH).contains(&gone.len()), "{}", gone.len());
        gone.clear();
        assert!(!shards.shrink(1000, &mut gone));
        assert!((1000..1000 + BATCH).contains(&gone.len()));
        while !shards.shrink(1000, &mut Vec::new()) {}
        assert_eq!(shards.totals(), (50_000, 5000));
        gone.clear();
        assert_eq!(shards.insert(&place(99_999), 1, 10, &mut gone), Put::Added);
    }
}
