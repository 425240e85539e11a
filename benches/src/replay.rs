//! Replays a trace against a cache and counts: the share of requests answered from it, and the share of bytes.

use std::collections::HashMap;

use edge_cache::store::disk::model::Written;
use serde::Serialize;

use crate::cdn::CRAWLED;
use crate::policy::product::Node;
use crate::policy::{Cache, Item, NEVER};
use crate::trace::Request;

/// The first quarter of a trace fills the cache and is not counted.
const WARM_UP: usize = 4;

/// Cache sizes in thousandths of the trace's footprint: 0.1, 1, 3, 10 and 30 %.
pub const SIZES: [u64; 5] = [1, 10, 30, 100, 300];

/// A trace with its objects numbered and its future known.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Its name.
    pub name: String,
    /// The requests.
    pub items: Vec<Item>,
    /// How many objects are asked for.
    pub objects: usize,
    /// What all of them weigh.
    pub footprint: u64,
    /// When each request comes, in milliseconds.
    pub times: Vec<u64>,
    /// Objects that only a crawler asks for: their requests are not counted.
    crawled: Vec<bool>,
}

impl Workload {
    /// Numbers a trace. An object weighs as much as the largest of its responses.
    pub fn new(name: &str, trace: &[Request]) -> Self {
        let mut numbers: HashMap<u64, u32> = HashMap::new();
        let mut items: Vec<Item> = trace
            .iter()
            .map(|&Request { id, bytes, .. }| {
                let number = numbers.len() as u32;
                let id = *numbers.entry(id).or_insert(number);
                Item { id, next: NEVER, bytes, weight: bytes }
            })
            .collect();
        let mut next = vec![NEVER; numbers.len()];
        let mut weights = vec![0; numbers.len()];
        for (at, item) in items.iter_mut().enumerate().rev() {
            item.next = std::mem::replace(&mut next[item.id as usize], at as u32);
            let weight = &mut weights[item.id as usize];
            *weight = item.weight.max(*weight);
        }
        for item in &mut items {
            item.weight = weights[item.id as usize];
        }
        let mut crawled = vec![false; numbers.len()];
        for (id, number) in &numbers {
            crawled[*number as usize] = id & CRAWLED != 0;
        }
        Self {
            name: name.to_owned(),
            items,
            objects: numbers.len(),
            footprint: weights.iter().sum(),
            times: trace.iter().map(|request| request.at).collect(),
            crawled,
        }
    }

    /// The capacity of a cache of so many thousandths of the footprint.
    pub const fn capacity(&self, thousandths: u64) -> u64 {
        (self.footprint as u128 * thousandths as u128 / 1000) as u64
    }

    /// How many objects a cache of this capacity may hold, more or less.
    pub fn expected(&self, capacity: u64) -> usize {
        let share = capacity as f64 / self.footprint.max(1) as f64;
        ((self.objects as f64 * share) as usize).clamp(100, self.objects.max(100))
    }

    /// Bytes asked for.
    pub fn requested(&self) -> u64 {
        self.items.iter().map(|item| item.bytes).sum()
    }

    /// How many days it takes.
    pub fn days(&self) -> f64 {
        let first = self.times.first().copied().unwrap_or(0);
        let last = self.times.last().copied().unwrap_or(0);
        (last - first).max(1) as f64 / 86_400_000.0
    }

    /// Replays it.
    pub fn replay(&self, cache: &mut dyn Cache) -> Count {
        self.each(|_, item| seen(cache, &item))
    }

    /// Replays it on a node, which is told the time.
    pub fn replay_node(&self, node: &mut Node) -> NodeCount {
        let counted_from = self.items.len() / WARM_UP;
        let mut before = Written::default();
        let count = self.each(|at, item| {
            if at == counted_from {
                before = node.written();
            }
            node.set_time(self.times[at]);
            seen(node, &item)
        });
        let written = node.written();
        let written =
            Written { new: written.new - before.new, moved: written.moved - before.moved };
        NodeCount { count, written }
    }

    fn each(&self, mut request: impl FnMut(usize, Item) -> Seen) -> Count {
        let counted_from = self.items.len() / WARM_UP;
        let mut count = Count::default();
        for (at, item) in self.items.iter().enumerate() {
            let seen = request(at, *item);
            if at >= counted_from && !self.crawled[item.id as usize] {
                count.add(item.bytes, seen);
            }
        }
        count
    }
}

/// What came of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// All of it was there.
    Hit,
    /// So many of its bytes were: none, or some segments. It costs a request.
    Missed(u64),
}

/// Asks a cache.
pub fn seen(cache: &mut (impl Cache + ?Sized), item: &Item) -> Seen {
    match cache.request(*item) {
        true => Seen::Hit,
        false => Seen::Missed(cache.had(item)),
    }
}

/// What a replay on a node has counted.
#[derive(Clone, Copy, Debug)]
pub struct NodeCount {
    /// The requests.
    pub count: Count,
    /// What was written after the warm-up.
    pub written: Written,
}

impl NodeCount {
    /// Bytes written for each byte asked for.
    pub fn write_share(&self) -> f64 {
        (self.written.new + self.written.moved) as f64 / self.count.bytes.max(1) as f64
    }
}

/// What a replay has counted after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Requests.
    pub requests: u64,
    /// Requests answered from the cache.
    pub hits: u64,
    /// Bytes asked for.
    pub bytes: u64,
    /// Bytes answered from the cache.
    pub hit_bytes: u64,
}

impl Count {
    /// Counts a request.
    pub fn add(&mut self, bytes: u64, seen: Seen) {
        self.requests += 1;
        self.bytes += bytes;
        self.hits += u64::from(seen == Seen::Hit);
        self.hit_bytes += match seen {
            Seen::Hit => bytes,
            Seen::Missed(had) => had.min(bytes),
        };
    }

    /// The hit ratios.
    pub fn ratios(&self) -> Ratios {
        let share = |part: u64, all: u64| if all == 0 { 0.0 } else { part as f64 / all as f64 };
        Ratios { object: share(self.hits, self.requests), byte: share(self.hit_bytes, self.bytes) }
    }
}

/// Hit ratios, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratios {
    /// Of requests.
    pub object: f64,
    /// Of bytes.
    pub byte: f64,
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::cdn::CLASSES;
    use crate::contest;

    fn workload() -> Workload {
        Workload::new("web-us", &CLASSES[0].sample(3_000, 0).requests)
    }

    #[test]
    fn all_but_moka_repeat_exactly_and_grow_with_the_cache() {
        let workload = workload();
        for contestant in contest::ALL.iter().filter(|contestant| contestant.exact) {
            let run = |thousandths| {
                let capacity = workload.capacity(thousandths);
                workload.replay(&mut *contestant.cache(capacity, &workload))
            };
            let (small, large) = (run(10), run(300));
            assert_eq!(small, run(10), "{}", contestant.name);
            let (small, large) = (small.ratios(), large.ratios());
            if contestant.name != "infinite" {
                assert!(large.object > small.object, "{}: {small:?} {large:?}", contestant.name);
            }
        }
    }

    #[test]
    fn nobody_is_better_than_the_bounds() {
        let workload = workload();
        let run = |name: &str, thousandths| {
            let contestant = contest::Contestant::named(name).unwrap();
            let capacity = workload.capacity(thousandths);
            workload.replay(&mut *contestant.cache(capacity, &workload)).ratios()
        };
        for size in [30, 100] {
            let (object, byte) = (run("Belady-size", size).object, run("Belady", size).byte);
            let all = run("infinite", size);
            assert!(object <= all.object && byte <= all.byte);
            // moka holds some more than its capacity until its upkeep comes by.
            let bounded = |c: &&contest::Contestant| !["infinite", "moka"].contains(&c.name);
            for contestant in contest::ALL.iter().filter(bounded) {
                let got = run(contestant.name, size);
                assert!(got.object <= object + 0.005, "{}: {got:?} {object}", contestant.name);
                assert!(got.byte <= byte + 0.01, "{}: {got:?} {byte}", contestant.name);
            }
        }
    }

    #[test]
    fn what_fits_misses_once() {
        let workload = workload();
        let lru = contest::Contestant::named("LRU").unwrap();
        let count = workload.replay(&mut *lru.cache(workload.footprint, &workload));
        let warm = workload.items.len() / WARM_UP;
        let seen: HashSet<u32> = workload.items[..warm].iter().map(|item| item.id).collect();
        assert_eq!(count.requests - count.hits, (workload.objects - seen.len()) as u64);
    }

    #[test]
    fn the_future_is_known() {
        let workload = workload();
        for (at, item) in workload.items.iter().enumerate().step_by(97) {
            let next = workload.items[at + 1..].iter().position(|other| other.id == item.id);
            assert_eq!(item.next, next.map_or(NEVER, |next| (at + 1 + next) as u32));
        }
    }
}
