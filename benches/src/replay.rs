//! Replays a trace against a cache and counts: the share of requests answered from it, and the share of bytes.

use std::collections::HashMap;

use serde::Serialize;

use crate::policy::{Cache, Fifo, Item, Lru};
use crate::stored::{self, Stored};
use crate::trace::{Mix, Request};

/// The first quarter of a trace fills the cache and is not counted.
const WARM_UP: usize = 4;

/// Cache sizes in thousandths of the trace's footprint: 0.1, 1, 3, 10 and 30 %.
pub const SIZES: [u64; 5] = [1, 10, 30, 100, 300];

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// The memory tier of the cache node.
    Store,
    /// Exact LRU.
    Lru,
    /// FIFO.
    Fifo,
}

impl Policy {
    /// All, in the order of the tables.
    pub const ALL: [Self; 3] = [Self::Store, Self::Lru, Self::Fifo];

    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Lru => "LRU",
            Self::Fifo => "FIFO",
        }
    }

    fn cache(self, capacity: u64) -> Box<dyn Cache> {
        match self {
            Self::Store => Box::new(Stored::new(capacity)),
            Self::Lru => Box::new(Lru::new(capacity)),
            Self::Fifo => Box::new(Fifo::new(capacity)),
        }
    }
}

/// A trace with what its objects weigh.
#[derive(Debug)]
pub struct Workload {
    /// Where it comes from.
    pub mix: Mix,
    items: Vec<Item>,
    /// How many objects are asked for.
    pub objects: usize,
    /// What all of them weigh.
    pub footprint: u64,
}

impl Workload {
    /// Weighs a trace.
    pub fn new(mix: Mix, trace: &[Request]) -> anyhow::Result<Self> {
        let mut weights: HashMap<u64, u64> = HashMap::new();
        let mut items = Vec::with_capacity(trace.len());
        for &Request { id, bytes } in trace {
            let weight = match weights.get(&id) {
                Some(weight) => *weight,
                None => {
                    let weight = stored::weight(id, bytes)?;
                    weights.insert(id, weight);
                    weight
                }
            };
            items.push(Item { id, bytes, weight });
        }
        let (objects, footprint) = (weights.len(), weights.values().sum());
        Ok(Self { mix, items, objects, footprint })
    }

    /// How many requests there are.
    pub fn requests(&self) -> usize {
        self.items.len()
    }

    /// The capacity of a cache of so many thousandths of the footprint.
    pub fn capacity(&self, thousandths: u64) -> u64 {
        self.footprint / 1000 * thousandths
    }

    /// Replays it. `progress` is told of every few thousand requests.
    pub fn replay(
        &self,
        policy: Policy,
        thousandths: u64,
        mut progress: impl FnMut(u64),
    ) -> Ratios {
        const STRIDE: usize = 8192;
        let mut cache = policy.cache(self.capacity(thousandths));
        let counted_from = self.items.len() / WARM_UP;
        let mut count = Count::default();
        for (at, item) in self.items.iter().enumerate() {
            let hit = cache.request(*item);
            if at >= counted_from {
                count.add(item.bytes, hit);
            }
            if at % STRIDE == STRIDE - 1 {
                progress(STRIDE as u64);
            }
        }
        progress((self.items.len() % STRIDE) as u64);
        count.ratios()
    }
}

#[derive(Debug, Default)]
struct Count {
    requests: u64,
    hits: u64,
    bytes: u64,
    hit_bytes: u64,
}

impl Count {
    fn add(&mut self, bytes: u64, hit: bool) {
        self.requests += 1;
        self.bytes += bytes;
        if hit {
            self.hits += 1;
            self.hit_bytes += bytes;
        }
    }

    fn ratios(&self) -> Ratios {
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

/// One row of the result.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The mix.
    pub mix: &'static str,
    /// Thousandths of the footprint.
    pub size: u64,
    /// The cache's capacity in bytes.
    pub capacity: u64,
    /// What was replayed against.
    pub policy: Policy,
    /// What came of it.
    #[serde(rename = "hit_ratio")]
    pub ratios: Ratios,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::MIXES;

    fn workload() -> Workload {
        Workload::new(MIXES[0], &MIXES[0].trace(40_000, 4_000)).unwrap()
    }

    #[test]
    fn exact_policies_repeat_exactly_and_grow_with_the_cache() {
        let workload = workload();
        for policy in [Policy::Lru, Policy::Fifo] {
            let small = workload.replay(policy, 10, |_| {});
            let large = workload.replay(policy, 300, |_| {});
            assert_eq!(small, workload.replay(policy, 10, |_| {}));
            assert!(large.object > small.object && large.byte > small.byte);
        }
    }

    #[test]
    fn what_fits_misses_once() {
        let workload = workload();
        let everything = workload.replay(Policy::Lru, 1001, |_| {});
        let warm = workload.items.len() / WARM_UP;
        let seen: std::collections::HashSet<u64> =
            workload.items[..warm].iter().map(|i| i.id).collect();
        let all: std::collections::HashSet<u64> = workload.items.iter().map(|i| i.id).collect();
        let misses = (all.len() - seen.len()) as f64;
        let wanted = 1.0 - misses / (workload.items.len() - warm) as f64;
        assert!((everything.object - wanted).abs() < 1e-9, "{} {wanted}", everything.object);
    }

    #[test]
    fn progress_counts_every_request() {
        let workload = workload();
        let mut done = 0;
        workload.replay(Policy::Fifo, 10, |more| done += more);
        assert_eq!(done, 40_000);
    }

    #[test]
    fn the_store_caches() {
        let ratios = workload().replay(Policy::Store, 300, |_| {});
        assert!(ratios.object > 0.5, "{ratios:?}");
    }
}
