//! Greedy-Dual-Size-Frequency (Cherkasova, 1998): the object of the least value goes first, where the value is its
//! requests divided by a power of its size, above the value of what went last.

use std::collections::BTreeSet;

use super::{Cache, Item};

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    asked: u32,
    weight: u64,
    value: u64,
    there: bool,
}

/// GDSF with the objects in an ordered set: the exact one, at the price of a logarithm per request.
#[derive(Debug)]
pub struct Gdsf {
    capacity: u64,
    weight: u64,
    exponent: f64,
    slots: Vec<Slot>,
    order: BTreeSet<(u64, u32)>,
    /// The value of what went last: what has not been asked for since ages.
    floor: f64,
}

impl Gdsf {
    /// An empty one. Exponent 1: by requests of a byte; 0: by requests.
    pub const fn new(capacity: u64, exponent: f64) -> Self {
        let order = BTreeSet::new();
        Self { capacity, weight: 0, exponent, slots: Vec::new(), order, floor: 0.0 }
    }

    /// Values are positive: their bits are in their order.
    fn value(&self, asked: u32, weight: u64) -> u64 {
        (self.floor + f64::from(asked) / (weight.max(1) as f64).powf(self.exponent)).to_bits()
    }
}

impl Cache for Gdsf {
    fn request(&mut self, Item { id, weight, .. }: Item) -> bool {
        let at = id as usize;
        if at >= self.slots.len() {
            self.slots.resize((at + 1).max(self.slots.len() * 2), Slot::default());
        }
        let mut slot = self.slots[at];
        if slot.there {
            self.order.remove(&(slot.value, id));
            slot.asked += 1;
            slot.value = self.value(slot.asked, slot.weight);
            self.order.insert((slot.value, id));
            self.slots[at] = slot;
            return true;
        }
        if weight > self.capacity {
            return false;
        }
        while self.weight + weight > self.capacity
            && let Some((value, least)) = self.order.pop_first()
        {
            self.floor = f64::from_bits(value);
            self.weight -= self.slots[least as usize].weight;
            self.slots[least as usize].there = false;
        }
        let value = self.value(1, weight);
        self.slots[at] = Slot { asked: 1, weight, value, there: true };
        self.order.insert((value, id));
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
    fn the_small_and_the_frequent_stay() {
        let mut cache = Gdsf::new(100, 1.0);
        cache.request(item(1, 60));
        cache.request(item(2, 10));
        cache.request(item(2, 10));
        cache.request(item(3, 40));
        assert!(!cache.slots[1].there, "the largest has the least value");
        assert!(cache.request(item(2, 10)) && cache.request(item(3, 40)));
    }

    #[test]
    fn what_is_forgotten_ages() {
        let mut cache = Gdsf::new(10, 1.0);
        (0..20).for_each(|_| {
            cache.request(item(0, 1));
        });
        let at = (1..2_000).position(|id| {
            cache.request(item(id, 1));
            !cache.slots[0].there
        });
        assert!(at.is_some_and(|at| at > 50), "{at:?}");
    }
}
