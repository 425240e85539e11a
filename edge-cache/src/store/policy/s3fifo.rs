//! S3-FIFO (Yang and others, SOSP 2023), weighed in bytes: a small queue that most go through without ever being asked for
//! again, a main queue for the rest, and a memory of those that were dropped from the small one too soon.

use super::ghost::Ghosts;
use super::list::Queues;
use super::{Leaving, Policy, Weight};

const SMALL: usize = 0;
const MAIN: usize = 1;

/// The small queue's share of the capacity: a fifth, twice that of the paper. Edges keep what is asked for all the time from
/// their parents, where the next request for an object is further away.
const SMALL_SHARE: u64 = 5;
/// Requests beyond this many count for nothing.
const MOST: u8 = 3;
/// Entries that are moved, until one goes whatever it has been asked for: what finding a victim may cost.
const STEPS: u32 = 128;

#[derive(Clone, Copy, Debug, Default)]
struct Record {
    /// In two halves, so that it needs no room to be aligned in.
    weight: [u32; 2],
    hits: u8,
}

impl Record {
    const fn new(weight: u64) -> Self {
        Self { weight: [weight as u32, (weight >> 32) as u32], hits: 0 }
    }

    fn weight(&self) -> u64 {
        let [low, high] = self.weight.map(u64::from);
        high << 32 | low
    }
}

/// The policy.
#[derive(Clone, Debug)]
pub struct S3Fifo {
    queues: Queues<Record, 2>,
    weights: [u64; 2],
    ghosts: Ghosts,
    /// Bytes that have left the small queue: the ghosts' clock.
    dropped: u64,
    capacity: u64,
}

impl S3Fifo {
    /// For a table of this capacity.
    pub fn new(capacity: u64) -> Self {
        Self {
            queues: Queues::default(),
            weights: [0; 2],
            ghosts: Ghosts::default(),
            dropped: 0,
            capacity,
        }
    }

    fn shift(&mut self, slot: u32, from: usize, weight: u64) {
        self.weights[from] -= weight;
        self.weights[MAIN] += weight;
        self.queues.move_to_front(slot, MAIN);
    }

    /// The ghosts' clock: the table's capacity is 2¹² of its steps.
    const fn clock(&self) -> u32 {
        let step = (self.capacity >> 12) | 1;
        (self.dropped / step) as u32
    }
}

impl Policy for S3Fifo {
    fn hit(&mut self, slot: u32, _: u64) {
        if let Some(record) = self.queues.get_mut(slot) {
            record.hits = (record.hits + 1).min(MOST);
        }
    }

    fn insert(&mut self, hash: u64, Weight { own: weight, .. }: Weight, _: u64) {
        self.ghosts.follow(self.queues.len());
        let now = self.clock();
        let returns = self.ghosts.take(hash, now).is_some_and(|(age, _)| age < 1 << 12);
        let queue = if returns { MAIN } else { SMALL };
        self.weights[queue] += weight;
        self.queues.push(queue, Record::new(weight));
    }

    fn reweigh(&mut self, slot: u32, old: u64, Weight { own: new, .. }: Weight) {
        let Some(queue) = self.queues.queue(slot) else { return };
        self.weights[queue] = self.weights[queue] - old + new;
        if let Some(record) = self.queues.get_mut(slot) {
            *record = Record { hits: record.hits, ..Record::new(new) };
        }
    }

    fn remove(&mut self, slot: u32, leaving: Leaving, _: u64) {
        let Some(queue) = self.queues.queue(slot) else { return };
        self.weights[queue] -= leaving.weight;
        if queue == SMALL && leaving.evicted {
            self.dropped += leaving.weight;
            self.ghosts.note(leaving.hash, self.clock(), 0);
        }
        self.queues.swap_remove(slot);
    }

    fn victim(&mut self, _: u64) -> Option<u32> {
        let mut steps = STEPS;
        loop {
            let is_small_full = self.weights[SMALL] >= self.capacity / SMALL_SHARE;
            let order = if is_small_full { [SMALL, MAIN] } else { [MAIN, SMALL] };
            let slot = order.into_iter().find_map(|queue| self.queues.back(queue))?;
            let queue = self.queues.queue(slot)?;
            let record = self.queues.get_mut(slot)?;
            if record.hits == 0 || steps == 0 {
                return Some(slot);
            }
            steps -= 1;
            record.hits = if queue == SMALL { 0 } else { record.hits - 1 };
            let weight = record.weight();
            self.shift(slot, queue, weight);
        }
    }

    fn set_capacity(&mut self, capacity: u64) {
        self.capacity = capacity;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::super::{Key, Kind, Settings, Table};

    /// The same with plain queues. Who has left the small queue is remembered until as much as the cache holds has left it.
    #[derive(Default)]
    struct Plain {
        queues: [VecDeque<(u64, u64, u8)>; 2],
        ghosts: VecDeque<(u64, u64)>,
        dropped: u64,
    }

    impl Plain {
        fn weight(&self, queue: usize) -> u64 {
            self.queues[queue].iter().map(|(_, weight, _)| weight).sum()
        }

        fn request(&mut self, key: u64, weight: u64, capacity: u64) -> bool {
            let mut all = self.queues.iter_mut().flatten();
            if let Some((_, _, hits)) = all.find(|(other, ..)| *other == key) {
                *hits = (*hits + 1).min(3);
                return true;
            }
            while self.weight(0) + self.weight(1) + weight > capacity {
                let small = self.weight(0) >= capacity / 5 || self.queues[1].is_empty();
                let Some((old, weight, hits)) = self.queues[usize::from(!small)].pop_back() else {
                    panic!("nothing to evict")
                };
                match (small, hits) {
                    (true, 0) => {
                        self.dropped += weight;
                        self.ghosts.push_front((old, self.dropped));
                    }
                    (true, _) => self.queues[1].push_front((old, weight, 0)),
                    (false, 0) => {}
                    (false, _) => self.queues[1].push_front((old, weight, hits - 1)),
                }
            }
            self.ghosts.retain(|(_, at)| self.dropped - at < capacity);
            let ghost = self.ghosts.iter().position(|(other, _)| *other == key);
            if let Some(ghost) = ghost {
                self.ghosts.remove(ghost);
            }
            self.queues[usize::from(ghost.is_some())].push_front((key, weight, 0));
            false
        }
    }

    /// The ghosts here are told apart by fingerprints, and fewer are remembered: a few requests in a hundred differ.
    #[test]
    fn s3_fifo_is_that_of_the_paper() {
        const CAPACITY: u64 = 4000;
        let settings =
            Settings { kind: Kind::S3Fifo, capacity: CAPACITY, over_disk: false, seed: 3 };
        let mut table: Table<u64, ()> = Table::new(settings);
        let (mut plain, mut gone) = (Plain::default(), Vec::new());
        let (mut same, mut hits) = (0, [0, 0]);
        for n in 0..30_000_u64 {
            // Some are asked for far more often than others.
            let key = n.hash(5) % (1 + n.hash(6) % 800);
            let weight = 1 + key.hash(8) % 40;
            let hit = table.get(&key).is_some();
            if !hit {
                table.insert(key, (), weight, &mut gone);
            }
            let want = plain.request(key, weight, CAPACITY);
            same += usize::from(hit == want);
            hits[0] += usize::from(hit);
            hits[1] += usize::from(want);
        }
        assert!(same > 29_200, "{same} {hits:?}");
        assert!(hits[0].abs_diff(hits[1]) < 100, "{hits:?}");
        assert!((10_000..25_000).contains(&hits[0]), "{hits:?}");
    }

    #[test]
    fn who_is_asked_for_once_makes_room_for_who_is_asked_for_again() {
        let settings = Settings { kind: Kind::S3Fifo, capacity: 100, over_disk: false, seed: 3 };
        let (mut table, mut gone) = (Table::<u64, ()>::new(settings), Vec::new());
        for key in 0..50 {
            table.insert(key, (), 1, &mut gone);
            table.get(&key);
        }
        for key in 1000..2000 {
            table.insert(key, (), 1, &mut gone);
        }
        assert_eq!((0..50).filter(|key| table.contains(key)).count(), 50);
        assert_eq!(table.weight(), 100);
    }
}
