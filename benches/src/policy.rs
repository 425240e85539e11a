//! Caches of a byte capacity to compare with: exact LRU and FIFO, and one that keeps everything.

use std::collections::{HashMap, VecDeque};

use crate::trace::Id;

/// An object as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its number.
    pub id: Id,
    /// The length of its body.
    pub bytes: u64,
    /// What it takes of a cache: its body, its head, and the store's own expense.
    pub weight: u64,
}

/// A cache that is asked for an object and takes it in when it has it not.
pub trait Cache {
    /// Whether the object was there. When it was not, it is taken in.
    fn request(&mut self, item: Item) -> bool;

    /// The weight of all that is there.
    fn weight(&self) -> u64;
}

const NONE: usize = usize::MAX;

struct Slot {
    id: Id,
    weight: u64,
    newer: usize,
    older: usize,
}

/// Least recently used goes first: a list through slots, the newest at its head.
pub struct Lru {
    capacity: u64,
    weight: u64,
    places: HashMap<Id, usize>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    newest: usize,
    oldest: usize,
}

impl Lru {
    /// An empty one.
    pub fn new(capacity: u64) -> Self {
        Self {
            capacity,
            weight: 0,
            places: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            newest: NONE,
            oldest: NONE,
        }
    }

    fn unlink(&mut self, at: usize) {
        let Slot { newer, older, .. } = self.slots[at];
        match newer {
            NONE => self.newest = older,
            newer => self.slots[newer].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.slots[older].newer = newer,
        }
    }

    fn link(&mut self, at: usize) {
        self.slots[at].newer = NONE;
        self.slots[at].older = self.newest;
        match self.newest {
            NONE => self.oldest = at,
            newest => self.slots[newest].newer = at,
        }
        self.newest = at;
    }
}

impl Cache for Lru {
    fn request(&mut self, Item { id, weight, .. }: Item) -> bool {
        if let Some(&at) = self.places.get(&id) {
            self.unlink(at);
            self.link(at);
            return true;
        }
        if weight > self.capacity {
            return false;
        }
        while self.weight + weight > self.capacity {
            let at = self.oldest;
            self.unlink(at);
            self.weight -= self.slots[at].weight;
            self.places.remove(&self.slots[at].id);
            self.free.push(at);
        }
        let slot = Slot { id, weight, newer: NONE, older: NONE };
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at] = slot;
                at
            }
            None => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
        };
        self.link(at);
        self.places.insert(id, at);
        self.weight += weight;
        false
    }

    fn weight(&self) -> u64 {
        self.weight
    }
}

/// First in goes first.
pub struct Fifo {
    capacity: u64,
    weight: u64,
    present: HashMap<Id, u64>,
    queue: VecDeque<Id>,
}

impl Fifo {
    /// An empty one.
    pub fn new(capacity: u64) -> Self {
        Self { capacity, weight: 0, present: HashMap::new(), queue: VecDeque::new() }
    }
}

impl Cache for Fifo {
    fn request(&mut self, Item { id, weight, .. }: Item) -> bool {
        if self.present.contains_key(&id) {
            return true;
        }
        if weight > self.capacity {
            return false;
        }
        while self.weight + weight > self.capacity
            && let Some(first) = self.queue.pop_front()
        {
            self.weight -= self.present.remove(&first).unwrap_or_default();
        }
        self.queue.push_back(id);
        self.present.insert(id, weight);
        self.weight += weight;
        false
    }

    fn weight(&self) -> u64 {
        self.weight
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn item(id: Id, weight: u64) -> Item {
        Item { id, bytes: weight, weight }
    }

    fn hits(cache: &mut impl Cache, ids: &[Id], weight: u64) -> Vec<bool> {
        ids.iter().map(|id| cache.request(item(*id, weight))).collect()
    }

    #[test]
    fn lru_drops_what_was_used_longest_ago() {
        let mut lru = Lru::new(3);
        // 1 2 3, use 1, then 4 takes the place of 2.
        let got = hits(&mut lru, &[1, 2, 3, 1, 4, 1, 3, 4, 2], 1);
        assert_eq!(got, [false, false, false, true, false, true, true, true, false]);
    }

    #[test]
    fn fifo_drops_what_came_first_used_or_not() {
        let mut fifo = Fifo::new(3);
        let got = hits(&mut fifo, &[1, 2, 3, 1, 4, 1], 1);
        assert_eq!(got, [false, false, false, true, false, false]);
    }

    #[test]
    fn one_heavy_object_takes_the_place_of_many() {
        let (mut lru, mut fifo) = (Lru::new(10), Fifo::new(10));
        for cache in [&mut lru as &mut dyn Cache, &mut fifo] {
            (0..5).for_each(|id| assert!(!cache.request(item(id, 2))));
            assert!(!cache.request(item(9, 7)));
            assert_eq!(cache.weight(), 9);
            assert!(cache.request(item(4, 2)) && !cache.request(item(3, 2)));
            assert!(!cache.request(item(77, 11)), "larger than the cache: not taken in");
            assert!(!cache.request(item(77, 11)));
        }
    }

    /// The list through slots against the obvious way.
    #[test]
    fn lru_is_exact() {
        let mut random = Random::new(5);
        let mut lru = Lru::new(500);
        let mut plain: Vec<(Id, u64)> = Vec::new();
        for _ in 0..20_000 {
            let id = random.below(120);
            let weight = 1 + id % 17;
            let found = plain.iter().position(|(other, _)| *other == id);
            assert_eq!(lru.request(item(id, weight)), found.is_some());
            if let Some(at) = found {
                plain.remove(at);
            }
            plain.push((id, weight));
            while plain.iter().map(|(_, weight)| weight).sum::<u64>() > 500 {
                plain.remove(0);
            }
            assert_eq!(lru.weight(), plain.iter().map(|(_, weight)| weight).sum::<u64>());
        }
    }
}
