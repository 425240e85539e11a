//! S3-FIFO (Yang et al., SOSP 2023): a small queue that most objects leave again, a main queue, and a list of the names
//! of those that have left.

use std::collections::VecDeque;

use super::list::List;
use super::{Cache, Item};

/// The small queue's part of the capacity, in tenths.
const SMALL: u64 = 1;
/// Requests that are counted per object.
const MOST: u8 = 3;

/// S3-FIFO by bytes.
#[derive(Debug)]
pub struct S3Fifo {
    capacity: u64,
    small: List,
    main: List,
    /// Requests since it came in or was last looked at.
    asked: Vec<u8>,
    /// Names of those that left the small queue, oldest first, as many bytes of them as the main queue holds.
    ghosts: VecDeque<(u32, u64, u32)>,
    /// The number of the ghost that is in force for an object; 0: none.
    ghost: Vec<u32>,
    ghost_weight: u64,
    numbers: u32,
}

impl S3Fifo {
    /// An empty one.
    pub const fn new(capacity: u64) -> Self {
        Self {
            capacity,
            small: List::new(),
            main: List::new(),
            asked: Vec::new(),
            ghosts: VecDeque::new(),
            ghost: Vec::new(),
            ghost_weight: 0,
            numbers: 0,
        }
    }

    fn evict(&mut self) {
        if self.small.weight > self.capacity * SMALL / 10 || self.main.weight == 0 {
            self.evict_small();
        } else {
            self.evict_main();
        }
    }

    fn evict_small(&mut self) {
        while let Some(id) = self.small.oldest() {
            let weight = self.small.remove(id);
            if self.asked[id as usize] > 1 {
                self.asked[id as usize] = 0;
                self.main.push(id, weight);
                continue;
            }
            self.numbers += 1;
            self.ghost[id as usize] = self.numbers;
            self.ghosts.push_back((id, weight, self.numbers));
            self.ghost_weight += weight;
            while self.ghost_weight > self.capacity * (10 - SMALL) / 10
                && let Some((id, weight, number)) = self.ghosts.pop_front()
            {
                self.ghost_weight -= weight;
                if self.ghost[id as usize] == number {
                    self.ghost[id as usize] = 0;
                }
            }
            return;
        }
    }

    fn evict_main(&mut self) {
        while let Some(id) = self.main.oldest() {
            let weight = self.main.remove(id);
            let asked = &mut self.asked[id as usize];
            if *asked == 0 {
                return;
            }
            *asked -= 1;
            self.main.push(id, weight);
        }
    }
}

impl Cache for S3Fifo {
    fn request(&mut self, Item { id, weight, .. }: Item) -> bool {
        let at = id as usize;
        if at >= self.asked.len() {
            let len = (at + 1).max(self.asked.len() * 2);
            self.asked.resize(len, 0);
            self.ghost.resize(len, 0);
        }
        if self.small.contains(id) || self.main.contains(id) {
            self.asked[at] = (self.asked[at] + 1).min(MOST);
            return true;
        }
        if weight > self.capacity {
            return false;
        }
        while self.weight() + weight > self.capacity {
            self.evict();
        }
        self.asked[at] = 0;
        if std::mem::take(&mut self.ghost[at]) > 0 {
            self.main.push(id, weight);
        } else {
            self.small.push(id, weight);
        }
        false
    }

    fn weight(&self) -> u64 {
        self.small.weight + self.main.weight
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::hits;
    use super::*;

    #[test]
    fn what_is_asked_for_once_leaves_early_and_comes_back_to_stay() {
        let mut cache = S3Fifo::new(10);
        // 0 is asked for three times in all, then a scan of fifty.
        hits(&mut cache, &[0, 0, 0], 1);
        let scan: Vec<u32> = (100..150).collect();
        hits(&mut cache, &scan, 1);
        assert_eq!(hits(&mut cache, &[0], 1), [true], "it has moved to the main queue");
        // 149 is still there; what left last is remembered, and goes to the main queue at once.
        let left: Vec<u32> = (140..150).filter(|id| !cache.small.contains(*id)).collect();
        let back = left[left.len() - 1];
        assert_eq!(hits(&mut cache, &[back], 1), [false]);
        assert!(cache.main.contains(back));
    }
}
