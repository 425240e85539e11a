//! A table of weighed entries within a capacity, of which a policy says who makes room.
//!
//! An entry costs its key, its value and 12 bytes here, some four in the index, and what its policy keeps. The index is a
//! table of chains that grows by one chain at a time (linear hashing), so that no insertion ever waits for all of it to be
//! put in order anew.

use super::slab::Slab;
use super::{Engine, Leaving, Policy, Settings, Weight};

/// The end of a chain.
const NONE: u32 = u32::MAX;

/// What entries lie under.
pub trait Key: Copy + Eq {
    /// A hash of it that is different for each seed, also where somebody picks keys to have equal ones.
    fn hash(&self, seed: u64) -> u64;
}

impl Key for u64 {
    fn hash(&self, seed: u64) -> u64 {
        fold(fold(*self ^ seed, 0x9e37_79b9_7f4a_7c15), seed ^ 0xd6e8_feb8_6659_fd93)
    }
}

impl Key for u128 {
    fn hash(&self, seed: u64) -> u64 {
        let (high, low) = ((*self >> 64) as u64, *self as u64);
        fold(fold(high ^ seed, 0xd6e8_feb8_6659_fd93) ^ low, seed ^ 0x9e37_79b9_7f4a_7c15)
    }
}

/// The two halves of a product, one over the other.
const fn fold(a: u64, b: u64) -> u64 {
    let wide = (a as u128).wrapping_mul(b as u128);
    (wide >> 64) as u64 ^ wide as u64
}

/// What came of [`Table::insert`].
#[derive(Debug, PartialEq, Eq)]
pub enum Put<V> {
    /// It is too heavy for the table. Nothing has changed.
    Refused(V),
    /// It is there.
    Added,
    /// It is there, in the place of this one.
    Replaced(V),
}

#[derive(Clone, Debug)]
struct Entry<K, V> {
    key: K,
    value: V,
    weight: u64,
    /// The next entry of its chain.
    next: u32,
}

/// The table.
#[derive(Clone, Debug)]
pub struct Table<K, V, P = Engine> {
    entries: Slab<Entry<K, V>>,
    /// The first entry of each chain.
    chains: Slab<u32>,
    policy: P,
    seed: u64,
    capacity: u64,
    weight: u64,
    now: u64,
}

impl<K: Key, V> Table<K, V> {
    /// An empty one under one of our policies.
    pub fn new(settings: Settings) -> Self {
        Self::with(Engine::new(settings), settings.capacity, settings.seed)
    }
}

impl<K: Key, V, P: Policy> Table<K, V, P> {
    /// An empty one under any policy.
    pub fn with(policy: P, capacity: u64, seed: u64) -> Self {
        let mut chains = Slab::default();
        chains.push(NONE);
        Self { entries: Slab::default(), chains, policy, seed, capacity, weight: 0, now: 0 }
    }

    /// Asks for an entry, which counts as a request whether there is one or not.
    pub fn get(&mut self, key: &K) -> Option<&V> {
        self.now += 1;
        let slot = self.find(key)?;
        self.policy.hit(slot, self.now);
        self.entries.get(slot).map(|entry| &entry.value)
    }

    /// An entry, without anybody having asked for it.
    pub fn peek(&self, key: &K) -> Option<&V> {
        self.entries.get(self.find(key)?).map(|entry| &entry.value)
    }

    /// Whether there is an entry.
    pub fn contains(&self, key: &K) -> bool {
        self.find(key).is_some()
    }

    /// Puts an entry there, in the place of the one that is there under this key. What makes room for it is added to
    /// `gone`: that may be itself, if it was there already with a smaller weight.
    pub fn insert(
        &mut self,
        key: K,
        value: V,
        weight: impl Into<Weight>,
        gone: &mut Vec<(K, V)>,
    ) -> Put<V> {
        let load: Weight = weight.into();
        let weight = load.own;
        if weight > self.capacity || self.entries.len() >= NONE as usize {
            return Put::Refused(value);
        }
        if let Some(slot) = self.find(&key)
            && let Some(entry) = self.entries.get_mut(slot)
        {
            let old = std::mem::replace(&mut entry.weight, weight);
            let replaced = std::mem::replace(&mut entry.value, value);
            self.weight = self.weight - old + weight;
            self.policy.reweigh(slot, old, load);
            self.make_room(0, usize::MAX, gone);
            return Put::Replaced(replaced);
        }
        if !self.make_room(weight, usize::MAX, gone) {
            return Put::Refused(value);
        }
        let hash = key.hash(self.seed);
        let slot = self.entries.len() as u32;
        let chain = self.chain(hash);
        let next = match self.chains.get_mut(chain) {
            Some(first) => std::mem::replace(first, slot),
            None => NONE,
        };
        self.entries.push(Entry { key, value, weight, next });
        self.weight += weight;
        self.policy.insert(hash, load, self.now);
        if self.entries.len() > self.chains.len() {
            self.split();
        }
        Put::Added
    }

    /// An entry that is here lies below as well, as it is: until it is replaced it comes back for the cost of a read.
    pub fn settle(&mut self, key: &K) {
        if let Some(slot) = self.find(key) {
            self.policy.settle(slot);
        }
    }

    /// Evicts until there is room for so much more, but no more than `most` entries. `true`: there is room.
    pub fn make_room(&mut self, weight: u64, most: usize, gone: &mut Vec<(K, V)>) -> bool {
        let surplus = (self.weight.saturating_add(weight)).saturating_sub(self.capacity);
        self.evict(surplus.min(self.weight), most, gone) >= surplus
    }

    /// Evicts until so much weight has gone, but no more than `most` entries. How much has gone.
    pub fn evict(&mut self, weight: u64, most: usize, gone: &mut Vec<(K, V)>) -> u64 {
        let before = self.weight;
        for _ in 0..most {
            if before - self.weight >= weight {
                break;
            }
            let evicted = self.policy.victim(self.now).and_then(|slot| self.take(slot, true));
            let Some(evicted) = evicted else { break };
            gone.push(evicted);
        }
        before - self.weight
    }

    /// Removes an entry.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let slot = self.find(key)?;
        self.take(slot, false).map(|(_, value)| value)
    }

    /// Sets what all entries may weigh. What is too much goes by [`Table::make_room`] or the next insertions.
    pub fn set_capacity(&mut self, capacity: u64) {
        self.capacity = capacity;
        self.policy.set_capacity(capacity);
    }

    /// Tells the policy which capacity it is to work for, where that is not the table's.
    pub fn set_share(&mut self, share: u64) {
        self.policy.set_capacity(share);
    }

    /// What all entries may weigh.
    pub const fn capacity(&self) -> u64 {
        self.capacity
    }

    /// What all entries weigh.
    pub const fn weight(&self) -> u64 {
        self.weight
    }

    /// How many entries there are.
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|entry| (&entry.key, &entry.value))
    }

    /// The chain that keys of this hash are in.
    fn chain(&self, hash: u64) -> u32 {
        chain(hash, self.chains.len())
    }

    fn find(&self, key: &K) -> Option<u32> {
        let mut slot = *self.chains.get(self.chain(key.hash(self.seed)))?;
        loop {
            let entry = self.entries.get(slot)?;
            if entry.key == *key {
                return Some(slot);
            }
            slot = entry.next;
        }
    }

    /// Takes an entry out; the last one takes its slot.
    fn take(&mut self, slot: u32, evicted: bool) -> Option<(K, V)> {
        let entry = self.entries.get(slot)?;
        let (hash, weight, next) = (entry.key.hash(self.seed), entry.weight, entry.next);
        self.point(hash, slot, next);
        let last = (self.entries.len() - 1) as u32;
        if slot != last
            && let Some(entry) = self.entries.get(last)
        {
            self.point(entry.key.hash(self.seed), last, slot);
        }
        let entry = self.entries.swap_remove(slot)?;
        self.policy.remove(slot, Leaving { hash, weight, evicted }, self.now);
        self.weight -= weight;
        if self.entries.len() < self.chains.len() / 2 {
            self.merge();
        }
        Some((entry.key, entry.value))
    }

    /// Makes what points to an entry, which has this hash, point to another.
    fn point(&mut self, hash: u64, from: u32, to: u32) {
        let chain = self.chain(hash);
        let Some(first) = self.chains.get_mut(chain) else { return };
        if *first == from {
            *first = to;
            return;
        }
        let mut at = *first;
        while let Some(entry) = self.entries.get_mut(at) {
            if entry.next == from {
                entry.next = to;
                return;
            }
            at = entry.next;
        }
    }

    /// Adds a chain: takes from the one that has had its hashes so far.
    fn split(&mut self) {
        let new = self.chains.len();
        let old = parent(new);
        self.chains.push(NONE);
        let count = self.chains.len();
        let Some(first) = self.chains.get_mut(old) else { return };
        let mut at = std::mem::replace(first, NONE);
        let mut heads = [NONE; 2];
        while let Some(entry) = self.entries.get_mut(at) {
            let goes = usize::from(chain(entry.key.hash(self.seed), count) != old);
            let next = std::mem::replace(&mut entry.next, heads[goes]);
            heads[goes] = at;
            at = next;
        }
        for (chain, head) in [(old, heads[0]), (new as u32, heads[1])] {
            if let Some(first) = self.chains.get_mut(chain) {
                *first = head;
            }
        }
    }

    /// Gives the last chain back to the one that it was taken from.
    fn merge(&mut self) {
        let last = self.chains.len() - 1;
        let Some(tail) = (last > 0).then(|| self.chains.pop()).flatten() else { return };
        let old = parent(last);
        let Some(first) = self.chains.get(old).copied() else { return };
        let mut at = first;
        while let Some(entry) = self.entries.get_mut(at) {
            if entry.next == NONE {
                entry.next = tail;
                return;
            }
            at = entry.next;
        }
        if let Some(first) = self.chains.get_mut(old) {
            *first = tail;
        }
    }
}

/// In which of `count` chains a hash is: as many of its bits as make a number below the next power of two, or one fewer.
const fn chain(hash: u64, count: usize) -> u32 {
    let mask = count.next_power_of_two() - 1;
    let all = hash as usize & mask;
    if all < count { all as u32 } else { (all & (mask >> 1)) as u32 }
}

/// The chain that had the hashes of chain `new` before it was there: the same bits but for the highest.
const fn parent(new: usize) -> u32 {
    let highest = usize::BITS - 1 - new.leading_zeros();
    (new & !(1 << highest)) as u32
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::Kind;
    use super::*;
    use proptest::prelude::*;

    fn table(kind: Kind, capacity: u64) -> Table<u64, u64> {
        Table::new(Settings { kind, capacity, over_disk: false, seed: 7 })
    }

    proptest! {
        /// Whatever the policy: the table holds what was put in and has not gone, within its capacity, and finds it.
        #[test]
        fn nothing_is_lost_and_nothing_too_much(
            kind in 0_usize..3,
            steps in proptest::collection::vec((0_u8..10, 0_u64..300, 1_u64..120), 0..2000),
        ) {
            let mut table = table(Kind::ALL[kind], 1000);
            let mut plain: HashMap<u64, (u64, u64)> = HashMap::new();
            let mut gone = Vec::new();
            for (number, (step, key, weight)) in steps.into_iter().enumerate() {
                let number = number as u64;
                match step {
                    0..4 => {
                        let weight = if weight == 77 { 1001 } else { weight };
                        let old = plain.get(&key).map(|(value, _)| *value);
                        let put = table.insert(key, number, weight, &mut gone);
                        if weight > 1000 {
                            prop_assert_eq!(put, Put::Refused(number));
                        } else {
                            prop_assert_eq!(put, old.map_or(Put::Added, Put::Replaced));
                            plain.insert(key, (number, weight));
                        }
                    }
                    4..8 => {
                        prop_assert_eq!(table.get(&key).copied(), plain.get(&key).map(|(v, _)| *v));
                    }
                    8 => {
                        let want = plain.remove(&key).map(|(value, _)| value);
                        prop_assert_eq!(table.remove(&key), want);
                    }
                    _ => {
                        table.set_capacity(500 + weight * 4);
                        table.make_room(0, usize::MAX, &mut gone);
                        prop_assert!(table.weight() <= table.capacity());
                        table.set_capacity(1000);
                    }
                }
                for (key, value) in gone.drain(..) {
                    prop_assert_eq!(plain.remove(&key).map(|(value, _)| value), Some(value));
                }
                prop_assert_eq!(table.len(), plain.len());
                let weight: u64 = plain.values().map(|(_, weight)| weight).sum();
                prop_assert_eq!(table.weight(), weight);
                prop_assert!(weight <= 1000);
                prop_assert_eq!(table.peek(&key), plain.get(&key).map(|(value, _)| value));
                prop_assert_eq!(table.contains(&key), plain.contains_key(&key));
            }
            let mut all: Vec<_> = table.iter().map(|(key, value)| (*key, *value)).collect();
            let mut want: Vec<_> = plain.iter().map(|(key, (value, _))| (*key, *value)).collect();
            all.sort_unstable();
            want.sort_unstable();
            prop_assert_eq!(all, want);
        }
    }

    #[test]
    fn the_same_requests_give_the_same_evictions() {
        for kind in Kind::ALL {
            let run = || {
                let (mut table, mut gone) = (table(kind, 10_000), Vec::new());
                for n in 0..20_000_u64 {
                    let key = Key::hash(&(n % 977 * (n % 13)), 1) % 800;
                    if table.get(&key).is_none() {
                        table.insert(key, n, 20 + key % 90, &mut gone);
                    }
                }
                gone
            };
            let first = run();
            assert!(first.len() > 1000, "{kind:?} {}", first.len());
            assert_eq!(first, run(), "{kind:?}");
        }
    }

    #[test]
    fn few_are_evicted_at_a_time_when_it_is_said_so() {
        for kind in Kind::ALL {
            let (mut table, mut gone) = (table(kind, 1000), Vec::new());
            (0..1000).for_each(|key| assert_eq!(table.insert(key, key, 1, &mut gone), Put::Added));
            assert!(gone.is_empty());
            table.set_capacity(500);
            assert!(!table.make_room(100, 64, &mut gone));
            assert_eq!((gone.len(), table.weight()), (64, 936), "{kind:?}");
            assert!(table.make_room(100, 1000, &mut gone));
            assert_eq!((gone.len(), table.weight()), (600, 400), "{kind:?}");
            assert!(!table.make_room(501, 1000, &mut gone), "more than all of it");
        }
    }

    /// Keys that somebody picked to be in one chain are so for one seed only.
    #[test]
    fn chains_are_short_whatever_the_keys() {
        for keys in [1_u64, 1 << 32, 1 << 52] {
            let (mut table, mut gone) = (table(Kind::Lru, 1 << 40), Vec::new());
            (0..4096_u64).for_each(|n| {
                table.insert(n.wrapping_mul(keys), n, 1, &mut gone);
            });
            assert_eq!(table.chains.len(), 4096);
            let length = |first: &u32| {
                std::iter::successors(table.entries.get(*first), |e| table.entries.get(e.next))
                    .count()
            };
            let longest = table.chains.iter().map(length).max();
            assert!(longest < Some(12), "{keys} {longest:?}");
        }
    }
}
