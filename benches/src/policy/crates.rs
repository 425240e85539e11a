//! Caches of crates.io with a weigher: what a program would use that has no cache of its own.

use foyer_memory::{Cache as Foyer, CacheBuilder, S3FifoConfig};

use super::{Cache, Item};

/// What each entry holds: its weight, and nothing else. Bodies would only take memory.
type Weight = u64;

/// moka's synchronous cache, in its default TinyLFU.
pub struct Moka(moka::sync::Cache<u32, Weight>);

impl Moka {
    /// An empty one. A weight of 4 GiB or more counts as one byte less.
    pub fn new(capacity: u64) -> Self {
        let weigher = |_: &u32, weight: &Weight| u32::try_from(*weight).unwrap_or(u32::MAX);
        Self(moka::sync::Cache::builder().max_capacity(capacity).weigher(weigher).build())
    }
}

impl Cache for Moka {
    fn request(&mut self, Item { id, weight, .. }: Item) -> bool {
        if self.0.get(&id).is_some() {
            return true;
        }
        self.0.insert(id, weight);
        false
    }

    fn weight(&self) -> u64 {
        self.0.run_pending_tasks();
        self.0.weighted_size()
    }

    fn held(&self) -> Option<u64> {
        Some(self.0.entry_count())
    }
}

#[derive(Clone)]
struct Weigher;

impl quick_cache::Weighter<u32, Weight> for Weigher {
    fn weight(&self, _: &u32, weight: &Weight) -> u64 {
        *weight
    }
}

/// quick_cache: CLOCK-PRO with the ghosts of S3-FIFO.
pub struct Quick(quick_cache::unsync::Cache<u32, Weight, Weigher>);

impl Quick {
    /// An empty one. `expected`: how many objects it will hold, more or less.
    pub fn new(capacity: u64, expected: usize) -> Self {
        Self(quick_cache::unsync::Cache::with_weighter(expected, capacity, Weigher))
    }
}

impl Cache for Quick {
    fn request(&mut self, Item { id, weight, .. }: Item) -> bool {
        if self.0.get(&id).is_some() {
            return true;
        }
        self.0.insert(id, weight);
        false
    }

    fn weight(&self) -> u64 {
        self.0.weight()
    }

    fn held(&self) -> Option<u64> {
        Some(self.0.len() as u64)
    }
}

/// The memory cache of foyer with its S3-FIFO, in one shard.
pub struct FoyerMemory(Foyer<u32, Weight>);

impl FoyerMemory {
    /// An empty one.
    pub fn new(capacity: usize) -> Self {
        let builder = CacheBuilder::new(capacity)
            .with_shards(1)
            .with_eviction_config(S3FifoConfig::default())
            .with_weighter(|_: &u32, weight: &Weight| {
                usize::try_from(*weight).unwrap_or(usize::MAX)
            });
        Self(builder.build())
    }
}

impl Cache for FoyerMemory {
    fn request(&mut self, Item { id, weight, .. }: Item) -> bool {
        if self.0.get(&id).is_some() {
            return true;
        }
        self.0.insert(id, weight);
        false
    }

    fn weight(&self) -> u64 {
        self.0.usage() as u64
    }

    fn held(&self) -> Option<u64> {
        Some(self.0.entries() as u64)
    }
}
