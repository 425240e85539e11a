//! Who takes part in the comparison of hit rates.

use edge_cache::store::policy::Kind;

use crate::policy::clairvoyant::Clairvoyant;
use crate::policy::crates::{FoyerMemory, Moka, Quick};
use crate::policy::gdsf::Gdsf;
use crate::policy::list::{Clock, Fifo, Lru, Sieve};
use crate::policy::product::Node;
use crate::policy::s3fifo::S3Fifo;
use crate::policy::{Cache, Infinite};
use crate::replay::Workload;

/// What is compared.
#[derive(Clone, Copy, Debug)]
pub struct Contestant {
    /// Its name in tables and files.
    pub name: &'static str,
    /// The cache node's own.
    pub ours: bool,
    /// Whether the same trace gives the same hits each time.
    pub exact: bool,
    make: fn(u64, &Workload) -> Box<dyn Cache>,
}

const fn contestant(name: &'static str, make: fn(u64, &Workload) -> Box<dyn Cache>) -> Contestant {
    Contestant { name, ours: false, exact: true, make }
}

const fn ours(name: &'static str, make: fn(u64, &Workload) -> Box<dyn Cache>) -> Contestant {
    Contestant { ours: true, ..contestant(name, make) }
}

/// All, in the order of the tables.
pub const ALL: [Contestant; 15] = [
    ours("size-aware", |c, _| Box::new(Node::new(Kind::SizeAware, c))),
    ours("s3-fifo", |c, _| Box::new(Node::new(Kind::S3Fifo, c))),
    ours("lru", |c, _| Box::new(Node::new(Kind::Lru, c))),
    contestant("FIFO", |c, _| Box::new(Fifo::new(c))),
    contestant("LRU", |c, _| Box::new(Lru::new(c))),
    contestant("CLOCK", |c, _| Box::new(Clock::new(c))),
    contestant("SIEVE", |c, _| Box::new(Sieve::new(c))),
    contestant("S3-FIFO", |c, _| Box::new(S3Fifo::new(c))),
    contestant("GDSF", |c, _| Box::new(Gdsf::new(c, 1.0))),
    // Its upkeep goes by the clock.
    Contestant { exact: false, ..contestant("moka", |c, _| Box::new(Moka::new(c))) },
    contestant("quick_cache", |c, w| Box::new(Quick::new(c, w.expected(c)))),
    contestant("foyer", |c, _| {
        Box::new(FoyerMemory::new(usize::try_from(c).unwrap_or(usize::MAX)))
    }),
    contestant("Belady", |c, _| Box::new(Clairvoyant::new(c, false))),
    contestant("Belady-size", |c, _| Box::new(Clairvoyant::new(c, true))),
    contestant("infinite", |_, _| Box::new(Infinite::default())),
];

impl Contestant {
    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        ALL.into_iter().find(|contestant| contestant.name == name)
    }

    /// An empty cache of this capacity, for this workload.
    pub fn cache(&self, capacity: u64, workload: &Workload) -> Box<dyn Cache> {
        (self.make)(capacity, workload)
    }
}
