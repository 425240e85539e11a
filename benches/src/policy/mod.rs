//! Caches of a byte capacity to compare with. Each is asked for an object and takes it in when it has it not.
//!
//! [`list`] holds FIFO, LRU, CLOCK and SIEVE, [`s3fifo`] S3-FIFO and [`gdsf`] Greedy-Dual-Size-Frequency, all exact and
//! deterministic. [`clairvoyant`] knows the future: what it reaches is a bound, not a policy. [`crates`] are the caches of
//! crates.io that a program could use instead of its own, [`product`] is ours: the whole node.
//!
//! Objects have numbers without gaps, so that a policy's state is an array.

pub mod clairvoyant;
pub mod crates;
pub mod gdsf;
pub mod list;
pub mod product;
pub mod s3fifo;

/// An object as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its number, from 0 without gaps.
    pub id: u32,
    /// When the next request for it comes: its place in the trace, [`NEVER`] when none does.
    pub next: u32,
    /// The length of its body.
    pub bytes: u64,
    /// What it takes of a cache.
    pub weight: u64,
}

/// No further request.
pub const NEVER: u32 = u32::MAX;

/// A cache that is asked for an object and takes it in when it has it not.
pub trait Cache {
    /// Whether the object was there. When it was not, it is taken in, if the cache wants it.
    fn request(&mut self, item: Item) -> bool;

    /// Bytes of the last request, which was for this, that were there: a cache may keep a body in part.
    fn had(&self, item: &Item) -> u64 {
        let _ = item;
        0
    }

    /// The weight of all that is there.
    fn weight(&self) -> u64;

    /// How many objects are there, where the memory per object is that of a cache for use, not of a model.
    fn held(&self) -> Option<u64> {
        None
    }
}

/// Keeps everything.
#[derive(Debug, Default)]
pub struct Infinite {
    seen: Vec<bool>,
    weight: u64,
}

impl Cache for Infinite {
    fn request(&mut self, item: Item) -> bool {
        let at = item.id as usize;
        if at >= self.seen.len() {
            self.seen.resize(at + 1, false);
        }
        if !self.seen[at] {
            self.weight += item.weight;
        }
        std::mem::replace(&mut self.seen[at], true)
    }

    fn weight(&self) -> u64 {
        self.weight
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::random::Random;

    pub(crate) fn item(id: u32, weight: u64) -> Item {
        Item { id, next: NEVER, bytes: weight, weight }
    }

    pub(super) fn hits(cache: &mut impl Cache, ids: &[u32], weight: u64) -> Vec<bool> {
        ids.iter().map(|id| cache.request(item(*id, weight))).collect()
    }

    /// What holds for each: never above its capacity, nothing larger than it is taken, what fits whole is kept.
    #[test]
    fn every_cache_keeps_its_capacity() {
        const CAPACITY: u64 = 2_000;
        let makers: Vec<Box<dyn Fn() -> Box<dyn Cache>>> = vec![
            Box::new(|| Box::new(list::Fifo::new(CAPACITY))),
            Box::new(|| Box::new(list::Lru::new(CAPACITY))),
            Box::new(|| Box::new(list::Clock::new(CAPACITY))),
            Box::new(|| Box::new(list::Sieve::new(CAPACITY))),
            Box::new(|| Box::new(s3fifo::S3Fifo::new(CAPACITY))),
            Box::new(|| Box::new(gdsf::Gdsf::new(CAPACITY, 1.0))),
            Box::new(|| Box::new(gdsf::Gdsf::new(CAPACITY, 0.5))),
            Box::new(|| Box::new(clairvoyant::Clairvoyant::new(CAPACITY, false))),
            Box::new(|| Box::new(clairvoyant::Clairvoyant::new(CAPACITY, true))),
        ];
        for (number, make) in makers.iter().enumerate() {
            let mut cache = make();
            let mut random = Random::new(9);
            for _ in 0..20_000 {
                let id = random.below(300) as u32;
                let next = random.below(1_000_000) as u32;
                cache.request(Item { next, ..item(id, 1 + u64::from(id) % 57) });
                assert!(cache.weight() <= CAPACITY, "{number}");
            }
            assert!(cache.weight() > CAPACITY * 8 / 10, "{number}: {}", cache.weight());
            assert!(!cache.request(item(900, CAPACITY + 1)));
            assert!(!cache.request(item(900, CAPACITY + 1)), "{number}");

            let mut roomy = make();
            for round in 0..3 {
                for id in 0..20 {
                    let hit = roomy.request(Item { next: 100 + id, ..item(id, 9) });
                    assert_eq!(hit, round > 0, "{number}");
                }
            }
        }
    }
}
