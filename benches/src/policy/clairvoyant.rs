//! Caches that know the future: bounds for what any policy could reach.
//!
//! Bélády's rule takes out what is asked for again latest, which is best where all objects have one size; it is our
//! bound for bytes. Weighed with the size it is a bound for requests. Both look at a sample of the objects, not at all
//! of them, and leave out what would be taken out at once: close to the bound, not a proof of it.

use super::{Cache, Item, NEVER};
use crate::random::Random;

/// How many objects are looked at for a victim.
const SAMPLE: u64 = 128;

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    next: u32,
    weight: u64,
    /// Its place in the list of those that are there, from 1. 0: it is not.
    place: u32,
}

/// Takes out of a sample what is asked for latest.
#[derive(Debug)]
pub struct Clairvoyant {
    capacity: u64,
    weight: u64,
    by_size: bool,
    now: u32,
    slots: Vec<Slot>,
    there: Vec<u32>,
    random: Random,
}

impl Clairvoyant {
    /// An empty one. `by_size`: the time to the next request counts times the size.
    pub const fn new(capacity: u64, by_size: bool) -> Self {
        Self {
            capacity,
            weight: 0,
            by_size,
            now: 0,
            slots: Vec::new(),
            there: Vec::new(),
            random: Random::new(77),
        }
    }

    /// What keeping it costs until it is asked for: the dearest goes.
    fn cost(&self, next: u32, weight: u64) -> u128 {
        if next == NEVER {
            return u128::MAX;
        }
        let wait = u128::from(next.saturating_sub(self.now));
        if self.by_size { wait * u128::from(weight) } else { wait }
    }

    fn remove(&mut self, id: u32) {
        let Slot { weight, place, .. } = std::mem::take(&mut self.slots[id as usize]);
        self.weight -= weight;
        self.there.swap_remove(place as usize - 1);
        if let Some(&moved) = self.there.get(place as usize - 1) {
            self.slots[moved as usize].place = place;
        }
    }

    fn dearest(&mut self) -> Option<(u128, u32)> {
        let all = self.there.len() as u64;
        (0..SAMPLE.min(all))
            .map(|at| {
                let at = if all <= SAMPLE { at } else { self.random.below(all) };
                let id = self.there[at as usize];
                let Slot { next, weight, .. } = self.slots[id as usize];
                (self.cost(next, weight), id)
            })
            .max()
    }
}

impl Cache for Clairvoyant {
    fn request(&mut self, Item { id, next, weight, .. }: Item) -> bool {
        self.now += 1;
        let at = id as usize;
        if at >= self.slots.len() {
            self.slots.resize((at + 1).max(self.slots.len() * 2), Slot::default());
        }
        if self.slots[at].place > 0 {
            self.slots[at].next = next;
            if next == NEVER {
                self.remove(id);
            }
            return true;
        }
        if weight > self.capacity || next == NEVER {
            return false;
        }
        let cost = self.cost(next, weight);
        while self.weight + weight > self.capacity {
            match self.dearest() {
                Some((other, victim)) if other >= cost => self.remove(victim),
                _ => return false,
            }
        }
        self.there.push(id);
        let place = self.there.len() as u32;
        self.slots[at] = Slot { next, weight, place };
        self.weight += weight;
        false
    }

    fn weight(&self) -> u64 {
        self.weight
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::item;
    use super::*;

    #[test]
    fn what_comes_back_first_is_kept() {
        let mut cache = Clairvoyant::new(2, false);
        cache.request(Item { next: 9, ..item(1, 1) });
        cache.request(Item { next: 4, ..item(2, 1) });
        cache.request(Item { next: 5, ..item(3, 1) });
        assert!(cache.request(Item { next: NEVER, ..item(2, 1) }));
        assert!(cache.request(Item { next: NEVER, ..item(3, 1) }));
        assert_eq!((cache.weight(), cache.request(item(1, 1))), (0, false));
    }

    #[test]
    fn by_size_the_large_has_to_come_sooner() {
        let asked = |by_size| {
            let mut cache = Clairvoyant::new(10, by_size);
            cache.request(Item { next: 20, ..item(1, 2) });
            cache.request(Item { next: 10, ..item(2, 8) });
            cache.request(Item { next: 15, ..item(3, 2) });
            (cache.slots[1].place > 0, cache.slots[2].place > 0)
        };
        assert_eq!(asked(false), (false, true));
        assert_eq!(asked(true), (true, false));
    }
}
