//! Which entries of a cache make room for others: the eviction policies, and the [`Table`] of entries that they rule.
//!
//! All of it is plain data: one thread, no clock (time is the number of requests that a table has seen), no randomness but
//! from a seed. So the same code runs in the node, in its predictions, in replays of logs and in the benchmarks, and gives
//! the same result each time. Locks, shards and what entries hold are [`super::memory`]'s.

mod ghost;
mod list;
mod lru;
mod s3fifo;
mod size_aware;
mod slab;
mod table;

pub use ghost::Ghosts;
pub use list::Queues;
pub use lru::Lru;
pub use s3fifo::S3Fifo;
pub use size_aware::SizeAware;
pub use slab::Slab;
pub use table::{Key, Put, Table};

/// The policies that are ours. `moka` is a crate of its own with tables of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Those of the least value go ([`SizeAware`]): the most hits.
    SizeAware,
    /// Three FIFO queues ([`S3Fifo`]): the most bytes.
    S3Fifo,
    /// Those used longest ago go ([`Lru`]).
    Lru,
}

/// What a table of entries is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The policy.
    pub kind: Kind,
    /// What all entries may weigh, in bytes.
    pub capacity: u64,
    /// There is a disk tier below: [`Table::settle`] says what lies there.
    pub over_disk: bool,
    /// Where randomness begins: the same seed and the same requests give the same evictions.
    pub seed: u64,
}

/// What an entry weighs, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    /// Itself.
    pub own: u64,
    /// What it is a part of: who asks for that, asks for all of its parts.
    pub whole: u64,
}

impl From<u64> for Weight {
    /// A part of nothing else.
    fn from(own: u64) -> Self {
        Self { own, whole: own }
    }
}

/// An entry that leaves a table.
#[derive(Clone, Copy, Debug)]
pub struct Leaving {
    /// Its key's hash.
    pub hash: u64,
    /// What it weighed.
    pub weight: u64,
    /// It makes room for others. Otherwise it was removed: nobody will ask for it, as far as is known.
    pub evicted: bool,
}

/// A policy: it knows the entries of a table by their slots, which are numbered from 0 without gaps, and says which of them
/// is to go. `now` is the number of requests that the table has seen.
pub trait Policy {
    /// The entry of this slot was asked for.
    fn hit(&mut self, slot: u32, now: u64);
    /// A new entry has come. Its slot is the one after the last.
    fn insert(&mut self, hash: u64, weight: Weight, now: u64);
    /// The entry of this slot weighs something else than before.
    fn reweigh(&mut self, slot: u32, old: u64, new: Weight);
    /// The entry of this slot lies below as well, as it is: it comes back for the cost of a read. Until it is reweighed.
    fn settle(&mut self, _slot: u32) {}
    /// The entry of this slot leaves, and the entry of the last slot takes its number.
    fn remove(&mut self, slot: u32, leaving: Leaving, now: u64);
    /// Which entry is to go. It may still stay: it goes when it is removed. `None`: there is none.
    fn victim(&mut self, now: u64) -> Option<u32>;
    /// What all entries may weigh has changed.
    fn set_capacity(&mut self, capacity: u64);
}

/// One of our policies.
#[derive(Clone, Debug)]
pub enum Engine {
    /// See [`Kind::SizeAware`].
    SizeAware(SizeAware),
    /// See [`Kind::S3Fifo`].
    S3Fifo(S3Fifo),
    /// See [`Kind::Lru`].
    Lru(Lru),
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::SizeAware, Self::S3Fifo, Self::Lru];

    /// Its name in configuration, metrics and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SizeAware => "size-aware",
            Self::S3Fifo => "s3-fifo",
            Self::Lru => "lru",
        }
    }
}

impl Engine {
    /// The policy of these settings.
    pub fn new(settings: Settings) -> Self {
        match settings.kind {
            Kind::SizeAware => Self::SizeAware(SizeAware::new(settings.over_disk, settings.seed)),
            Kind::S3Fifo => Self::S3Fifo(S3Fifo::new(settings.capacity)),
            Kind::Lru => Self::Lru(Lru::default()),
        }
    }
}

impl Policy for Engine {
    fn hit(&mut self, slot: u32, now: u64) {
        match self {
            Self::SizeAware(policy) => policy.hit(slot, now),
            Self::S3Fifo(policy) => policy.hit(slot, now),
            Self::Lru(policy) => policy.hit(slot, now),
        }
    }

    fn insert(&mut self, hash: u64, weight: Weight, now: u64) {
        match self {
            Self::SizeAware(policy) => policy.insert(hash, weight, now),
            Self::S3Fifo(policy) => policy.insert(hash, weight, now),
            Self::Lru(policy) => policy.insert(hash, weight, now),
        }
    }

    fn reweigh(&mut self, slot: u32, old: u64, new: Weight) {
        match self {
            Self::SizeAware(policy) => policy.reweigh(slot, old, new),
            Self::S3Fifo(policy) => policy.reweigh(slot, old, new),
            Self::Lru(policy) => policy.reweigh(slot, old, new),
        }
    }

    fn settle(&mut self, slot: u32) {
        match self {
            Self::SizeAware(policy) => policy.settle(slot),
            Self::S3Fifo(policy) => policy.settle(slot),
            Self::Lru(policy) => policy.settle(slot),
        }
    }

    fn remove(&mut self, slot: u32, leaving: Leaving, now: u64) {
        match self {
            Self::SizeAware(policy) => policy.remove(slot, leaving, now),
            Self::S3Fifo(policy) => policy.remove(slot, leaving, now),
            Self::Lru(policy) => policy.remove(slot, leaving, now),
        }
    }

    fn victim(&mut self, now: u64) -> Option<u32> {
        match self {
            Self::SizeAware(policy) => policy.victim(now),
            Self::S3Fifo(policy) => policy.victim(now),
            Self::Lru(policy) => policy.victim(now),
        }
    }

    fn set_capacity(&mut self, capacity: u64) {
        match self {
            Self::SizeAware(policy) => policy.set_capacity(capacity),
            Self::S3Fifo(policy) => policy.set_capacity(capacity),
            Self::Lru(policy) => policy.set_capacity(capacity),
        }
    }
}
