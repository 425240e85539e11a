//! FIFO, LRU, CLOCK and SIEVE: one list, and what a hit does to it.

use super::{Cache, Item};

/// No object.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Node {
    newer: u32,
    older: u32,
    weight: u64,
    /// Whether it is in the list.
    there: bool,
    visited: bool,
}

const ABSENT: Node = Node { newer: NONE, older: NONE, weight: 0, there: false, visited: false };

/// A doubly linked list through the objects' numbers, the newest first.
#[derive(Debug)]
pub(super) struct List {
    nodes: Vec<Node>,
    newest: u32,
    oldest: u32,
    pub(super) weight: u64,
}

impl List {
    pub(super) const fn new() -> Self {
        Self { nodes: Vec::new(), newest: NONE, oldest: NONE, weight: 0 }
    }

    pub(super) fn contains(&self, id: u32) -> bool {
        self.nodes.get(id as usize).is_some_and(|node| node.there)
    }

    pub(super) fn push(&mut self, id: u32, weight: u64) {
        let at = id as usize;
        if at >= self.nodes.len() {
            self.nodes.resize((at + 1).max(self.nodes.len() * 2), ABSENT);
        }
        self.nodes[at] = Node { older: self.newest, weight, there: true, ..ABSENT };
        match self.newest {
            NONE => self.oldest = id,
            newest => self.nodes[newest as usize].newer = id,
        }
        self.newest = id;
        self.weight += weight;
    }

    pub(super) fn remove(&mut self, id: u32) -> u64 {
        let Node { newer, older, weight, .. } = self.nodes[id as usize];
        match newer {
            NONE => self.newest = older,
            newer => self.nodes[newer as usize].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.nodes[older as usize].newer = newer,
        }
        self.nodes[id as usize] = ABSENT;
        self.weight -= weight;
        weight
    }

    /// The one that has been there longest.
    pub(super) fn oldest(&self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }

    fn refresh(&mut self, id: u32) {
        let weight = self.remove(id);
        self.push(id, weight);
    }
}

macro_rules! cache {
    ($name:ident, $what:literal) => {
        #[doc = $what]
        #[derive(Debug)]
        pub struct $name {
            capacity: u64,
            list: List,
            hand: u32,
        }

        impl $name {
            /// An empty one.
            pub const fn new(capacity: u64) -> Self {
                Self { capacity, list: List::new(), hand: NONE }
            }
        }

        impl Cache for $name {
            fn request(&mut self, Item { id, weight, .. }: Item) -> bool {
                if self.list.contains(id) {
                    self.hit(id);
                    return true;
                }
                if weight <= self.capacity {
                    while self.list.weight + weight > self.capacity {
                        self.evict();
                    }
                    self.list.push(id, weight);
                }
                false
            }

            fn weight(&self) -> u64 {
                self.list.weight
            }
        }
    };
}

cache!(Fifo, "First in goes first.");
cache!(Lru, "What was used longest ago goes first.");
cache!(Clock, "FIFO with a second chance for what was asked for since it was last looked at.");
cache!(Sieve, "A hand passes over the list and takes out what was not asked for; nothing moves.");

impl Fifo {
    const fn hit(&self, _id: u32) {}

    fn evict(&mut self) {
        self.hand = self.list.oldest;
        self.list.remove(self.hand);
    }
}

impl Lru {
    fn hit(&mut self, id: u32) {
        self.list.refresh(id);
    }

    fn evict(&mut self) {
        self.hand = self.list.oldest;
        self.list.remove(self.hand);
    }
}

impl Clock {
    fn hit(&mut self, id: u32) {
        self.list.nodes[id as usize].visited = true;
    }

    fn evict(&mut self) {
        loop {
            self.hand = self.list.oldest;
            if !self.list.nodes[self.hand as usize].visited {
                break;
            }
            // Back at the new end, its mark gone.
            self.list.refresh(self.hand);
        }
        self.list.remove(self.hand);
    }
}

impl Sieve {
    fn hit(&mut self, id: u32) {
        self.list.nodes[id as usize].visited = true;
    }

    fn evict(&mut self) {
        loop {
            if self.hand == NONE {
                self.hand = self.list.oldest;
            }
            let node = &mut self.list.nodes[self.hand as usize];
            if !node.visited {
                break;
            }
            node.visited = false;
            self.hand = node.newer;
        }
        let next = self.list.nodes[self.hand as usize].newer;
        self.list.remove(self.hand);
        self.hand = next;
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{hits, item};
    use super::*;
    use crate::random::Random;

    #[test]
    fn each_drops_what_its_name_says() {
        // 1 2 3, use 1, then 4 takes a place. Then: who is still there?
        assert_eq!(
            hits(&mut Lru::new(3), &[1, 2, 3, 1, 4, 1, 3, 4, 2], 1)[5..],
            [true, true, true, false]
        );
        assert_eq!(
            hits(&mut Fifo::new(3), &[1, 2, 3, 1, 4, 4, 3, 2, 1], 1)[5..],
            [true, true, true, false]
        );
        assert_eq!(
            hits(&mut Clock::new(3), &[1, 2, 3, 1, 4, 4, 3, 1, 2], 1)[5..],
            [true, true, true, false]
        );
        assert_eq!(
            hits(&mut Sieve::new(3), &[1, 2, 3, 1, 4, 4, 3, 1, 2], 1)[5..],
            [true, true, true, false]
        );
    }

    #[test]
    fn the_hand_of_sieve_stays_where_it_was() {
        // 1 is spared once; the hand goes on from there, so 5 takes the place of 3, not of 1.
        let got = hits(&mut Sieve::new(3), &[1, 2, 3, 1, 4, 5, 1, 3], 1);
        assert_eq!(got[6..], [true, false]);
        // CLOCK has put 1 behind 3 and goes on with 3 as well, but forgets that 1 was asked for.
        let got = hits(&mut Clock::new(3), &[1, 2, 3, 1, 4, 5, 6, 1], 1);
        assert_eq!(got[7..], [false]);
    }

    /// The list through numbers against the obvious way.
    #[test]
    fn lru_is_exact() {
        let mut random = Random::new(5);
        let mut lru = Lru::new(500);
        let mut plain: Vec<(u32, u64)> = Vec::new();
        for _ in 0..20_000 {
            let id = random.below(120) as u32;
            let weight = 1 + u64::from(id) % 17;
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
