//! LRU: who was asked for longest ago goes.

use super::list::Queues;
use super::{Leaving, Policy};

/// The policy. Its record is when an entry was last asked for.
#[derive(Clone, Debug, Default)]
pub struct Lru {
    queue: Queues<u32, 1>,
}

impl Policy for Lru {
    fn hit(&mut self, slot: u32, now: u64) {
        if let Some(last) = self.queue.get_mut(slot) {
            *last = now as u32;
        }
        self.queue.move_to_front(slot, 0);
    }

    fn insert(&mut self, _: u64, _: u64, now: u64) {
        self.queue.push(0, now as u32);
    }

    fn reweigh(&mut self, _: u32, _: u64, _: u64) {}

    fn remove(&mut self, slot: u32, _: Leaving, _: u64) {
        self.queue.swap_remove(slot);
    }

    fn victim(&mut self, _: u64) -> Option<u32> {
        self.queue.back(0)
    }

    fn set_capacity(&mut self, _: u64) {}

    fn worth(&self, slot: u32, now: u64) -> f32 {
        let last = self.queue.get(slot).copied().unwrap_or_default();
        -((now as u32).wrapping_sub(last) as f32)
    }
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
        let newest_first: Vec<_> = plain.into_iter().rev().collect();
        assert_eq!(lru.hottest(), newest_first);
    }
}
