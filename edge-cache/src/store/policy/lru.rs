//! LRU: who was asked for longest ago goes.

use super::list::Queues;
use super::{Leaving, Policy, Weight};

/// The policy. It needs no record of an entry but its place in the queue.
#[derive(Clone, Debug, Default)]
pub struct Lru {
    queue: Queues<(), 1>,
}

impl Policy for Lru {
    fn hit(&mut self, slot: u32, _: u64) {
        self.queue.move_to_front(slot, 0);
    }

    fn insert(&mut self, _: u64, _: Weight, _: u64) {
        self.queue.push(0, ());
    }

    fn reweigh(&mut self, _: u32, _: u64, _: Weight) {}

    fn remove(&mut self, slot: u32, _: Leaving, _: u64) {
        self.queue.swap_remove(slot);
    }

    fn victim(&mut self, _: u64) -> Option<u32> {
        self.queue.back(0)
    }

    fn set_capacity(&mut self, _: u64) {}
}

#[cfg(test)]
mod tests {
    use super::super::{Key, Kind, Settings, Table};

    /// Against a plain list of entries, the newest last.
    #[test]
    fn lru_is_exact() {
        let settings = Settings { kind: Kind::Lru, capacity: 500, over_disk: false, seed: 3 };
        let mut lru: Table<u64, ()> = Table::new(settings);
        let mut plain: Vec<(u64, u64)> = Vec::new();
        let mut gone = Vec::new();
        for n in 0..20_000_u64 {
            let key = n.hash(5) % 120;
            let weight = 1 + key % 17;
            let found = plain.iter().position(|(other, _)| *other == key);
            let hit = lru.get(&key).is_some();
            assert_eq!(hit, found.is_some());
            if !hit {
                lru.insert(key, (), weight, &mut gone);
            }
            if let Some(at) = found {
                plain.remove(at);
            }
            plain.push((key, weight));
            while plain.iter().map(|(_, weight)| weight).sum::<u64>() > 500 {
                assert_eq!(gone.remove(0).0, plain.remove(0).0);
            }
        }
        // What is left goes in the same order.
        let weight: u64 = plain.iter().map(|(_, weight)| weight).sum();
        assert_eq!(lru.evict(u64::MAX, usize::MAX, &mut gone), weight);
        assert!(gone.iter().map(|(key, ())| key).eq(plain.iter().map(|(key, _)| key)));
    }
}
