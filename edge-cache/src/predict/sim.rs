//! A node without bytes: its memory tier and its disk, asked for keys of a size.

use std::time::Duration;

use serde::Serialize;
use shared::config::{DiskSpec, EdgeSpec, Role, StorePolicy};

use super::disk::Disk;
use crate::store::policy::{Kind, Settings, Table};

/// What an object takes beside its body: its fields, its key and the table's entry.
pub const HEAD: u64 = 600;
/// Sizes are remembered in such units.
const UNIT: u64 = 256;
/// In so many bits: 4 GiB.
const UNITS: u32 = (1 << 24) - 1;
/// And times in such parts of a second.
const TICKS: u64 = 16;
/// An object that is on the disk; else how often it has been asked for.
const SETTLED: u8 = u8::MAX;

/// A node to be simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Who makes room in memory.
    pub policy: Kind,
    /// Bytes of the memory tier.
    pub memory: u64,
    /// Its disk.
    pub disk: Option<DiskSetup>,
    /// Objects are good for so long, then they are fetched again. None: for ever.
    pub ttl: Option<Duration>,
}

/// A disk to be simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSetup {
    /// Bytes of it.
    pub size: u64,
    /// Bytes written to it in a day at most.
    pub daily_writes: u64,
}

impl DiskSetup {
    /// The disks of an edge of the configuration, together.
    pub fn of(edge: &EdgeSpec) -> Option<Self> {
        let disks = || edge.disk.iter().chain(&edge.disks);
        let size: u64 = disks().map(|disk| disk.size.0).sum();
        let daily = |disk: &DiskSpec| {
            disk.daily_writes.map_or_else(|| Self::daily_writes(disk.size.0), |daily| daily.0)
        };
        (size > 0).then(|| Self { size, daily_writes: disks().map(daily).sum() })
    }

    /// What is written in a day to a disk of this size, if the configuration says nothing.
    pub const fn daily_writes(size: u64) -> u64 {
        size.saturating_mul(3)
    }
}

/// The policy of an edge of the configuration. None: it cannot be simulated.
pub fn policy_of(edge: &EdgeSpec) -> Option<Kind> {
    match (edge.policy, edge.role) {
        (Some(StorePolicy::SizeAware), _) => Some(Kind::SizeAware),
        (Some(StorePolicy::S3Fifo), _) => Some(Kind::S3Fifo),
        (Some(StorePolicy::Lru), _) => Some(Kind::Lru),
        (Some(StorePolicy::Moka), _) => None,
        (None, Role::Parent) => Some(Kind::S3Fifo),
        (None, _) => Some(Kind::SizeAware),
    }
}

impl Setup {
    /// A share of it, for a share of the requests.
    pub fn scaled(&self, share: f64) -> Self {
        let of = |bytes: u64| (bytes as f64 * share).round() as u64;
        let disk = |disk: DiskSetup| DiskSetup {
            size: of(disk.size),
            daily_writes: of(disk.daily_writes),
        };
        Self { memory: of(self.memory), disk: self.disk.map(disk), ..*self }
    }
}

/// Who answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// The memory tier.
    Memory,
    /// The disk.
    Disk,
    /// Neither: it is fetched.
    Missed,
}

impl Answer {
    /// Whether the node had it.
    pub const fn is_hit(self) -> bool {
        matches!(self, Self::Memory | Self::Disk)
    }
}

/// What is known of a stored object.
#[derive(Clone, Copy, Debug)]
struct Stored {
    fetched: u32,
    /// Units of its body above, how often it was asked for while it was on no disk in the lowest eight bits.
    packed: u32,
}

impl Stored {
    fn new(fetched: u32, units: u32, asked: u8) -> Self {
        Self { fetched, packed: units.min(UNITS) << 8 | u32::from(asked) }
    }

    const fn units(self) -> u32 {
        self.packed >> 8
    }

    const fn asked(self) -> u8 {
        self.packed as u8
    }
}

/// The node.
#[derive(Debug)]
pub struct Sim {
    memory: Table<u64, Stored>,
    disk: Option<Disk>,
    ttl: Option<u32>,
    gone: Vec<(u64, Stored)>,
}

impl Sim {
    /// An empty one.
    pub fn new(setup: &Setup) -> Self {
        let settings = Settings {
            kind: setup.policy,
            capacity: setup.memory,
            over_disk: setup.disk.is_some(),
            seed: 0x6d65_7269_6469_616e,
        };
        let ttl = setup.ttl.map(|ttl| ticks(ttl).max(1));
        let disk = setup.disk.as_ref().and_then(Disk::new);
        Self { memory: Table::new(settings), disk, ttl, gone: Vec::new() }
    }

    /// A request at a time since anything. `size`: the object's body, as far as is known.
    pub fn request(&mut self, key: u64, size: u64, at: Duration) -> Answer {
        let now = ticks(at);
        let asked = units(size);
        let Some(stored) = self.memory.get(&key).copied() else {
            return self.below(key, size, at);
        };
        let is_stale = self.is_stale(stored, now);
        let units = asked.max(stored.units());
        let mut next =
            Stored::new(if is_stale { now } else { stored.fetched }, units, stored.asked());
        if let Some(disk) = &mut self.disk
            && stored.asked() != SETTLED
        {
            // As the node does: at every request that is a power of two, and when it is fetched.
            let count = if stored.asked() >= SETTLED - 1 { 128 } else { stored.asked() + 1 };
            let settled = count.is_power_of_two()
                && disk.offer(key, u64::from(units) * UNIT, next.fetched, at);
            next = Stored::new(next.fetched, units, if settled { SETTLED } else { count });
        }
        if is_stale {
            self.renew_below(key, now);
        }
        if next.packed != stored.packed || is_stale {
            self.put(key, next);
        }
        if is_stale { Answer::Missed } else { Answer::Memory }
    }

    /// A request that the memory has no answer to.
    fn below(&mut self, key: u64, size: u64, at: Duration) -> Answer {
        let now = ticks(at);
        let units = units(size);
        let Some(disk) = &mut self.disk else {
            self.put(key, Stored::new(now, units, 0));
            return Answer::Missed;
        };
        if let Some(fetched) = disk.get(key) {
            let stored = Stored::new(fetched, units, SETTLED);
            let is_stale = self.is_stale(stored, now);
            if is_stale {
                self.renew_below(key, now);
            }
            self.put(key, Stored::new(if is_stale { now } else { fetched }, units, SETTLED));
            return if is_stale { Answer::Missed } else { Answer::Disk };
        }
        let settled = disk.offer(key, size, now, at);
        self.put(key, Stored::new(now, units, if settled { SETTLED } else { 0 }));
        Answer::Missed
    }

    fn renew_below(&mut self, key: u64, now: u32) {
        if let Some(disk) = &mut self.disk {
            disk.renew(key, now);
        }
    }

    /// A request for which an object is fetched, whatever is stored.
    pub fn renew(&mut self, key: u64, size: u64, at: Duration) {
        let known = self.memory.get(&key).copied();
        let asked = known.map_or(0, Stored::asked);
        let units = units(size).max(known.map_or(0, Stored::units));
        self.put(key, Stored::new(ticks(at), units, asked));
        self.renew_below(key, ticks(at));
    }

    fn is_stale(&self, stored: Stored, now: u32) -> bool {
        self.ttl.is_some_and(|ttl| now.saturating_sub(stored.fetched) >= ttl)
    }

    fn put(&mut self, key: u64, stored: Stored) {
        self.memory.insert(key, stored, weight_of(stored.units()), &mut self.gone);
        if stored.asked() == SETTLED {
            self.memory.settle(&key);
        }
        self.gone.clear();
    }

    /// Objects in memory, and on disk.
    pub fn objects(&self) -> (usize, usize) {
        let disk = self.disk.as_ref().map_or(0, Disk::objects);
        (self.memory.len(), usize::try_from(disk).unwrap_or(usize::MAX))
    }

    /// Bytes that have been written to the disk.
    pub fn disk_written(&self) -> u64 {
        self.disk.as_ref().map_or(0, Disk::written)
    }

    /// How full the memory is, 0 to 1.
    pub fn memory_full(&self) -> f64 {
        self.memory.weight() as f64 / self.memory.capacity().max(1) as f64
    }

    /// How full the disk is, 0 to 1; of `size` bytes.
    pub fn disk_full(&self, size: u64) -> f64 {
        self.disk.as_ref().map_or(0.0, |disk| disk.holds() as f64 / size.max(1) as f64)
    }

    /// Keeps only these keys, in a node of this size: the sample has become smaller.
    pub fn thin(&mut self, setup: &Setup, keep: impl Fn(u64) -> bool) {
        let gone: Vec<u64> =
            self.memory.iter().map(|(key, _)| *key).filter(|key| !keep(*key)).collect();
        for key in gone {
            self.memory.remove(&key);
        }
        self.memory.set_capacity(setup.memory);
        self.memory.make_room(0, usize::MAX, &mut self.gone);
        self.gone.clear();
        self.disk = match (&self.disk, &setup.disk) {
            (Some(disk), Some(setup)) => disk.thinned(setup, keep),
            _ => None,
        };
    }
}

/// What an object with a body of so many bytes takes in memory.
pub fn weight(size: u64) -> u64 {
    weight_of(units(size))
}

fn weight_of(units: u32) -> u64 {
    u64::from(units) * UNIT + HEAD
}

fn units(size: u64) -> u32 {
    u32::try_from(size.div_ceil(UNIT)).unwrap_or(UNITS).min(UNITS)
}

fn ticks(time: Duration) -> u32 {
    let ticks = time.as_millis() * u128::from(TICKS) / 1000;
    u32::try_from(ticks).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lru(memory: u64, ttl: Option<u64>) -> Sim {
        let ttl = ttl.map(Duration::from_secs);
        Sim::new(&Setup { policy: Kind::Lru, memory, disk: None, ttl })
    }

    #[test]
    fn a_second_request_is_a_hit_until_the_object_has_made_room_or_is_old() {
        let mut sim = lru(2 * (1024 + HEAD), Some(60));
        let at = Duration::from_secs;
        assert_eq!(sim.request(1, 1000, at(0)), Answer::Missed);
        assert_eq!(sim.request(1, 1000, at(59)), Answer::Memory);
        assert_eq!(sim.request(1, 1000, at(60)), Answer::Missed, "fetched again");
        assert_eq!(sim.request(1, 1000, at(119)), Answer::Memory);
        sim.renew(1, 1000, at(119));
        assert_eq!(sim.request(1, 1000, at(178)), Answer::Memory);
        sim.request(2, 1000, at(178));
        sim.request(3, 1000, at(178));
        assert_eq!(sim.objects(), (2, 0));
        assert_eq!(sim.request(1, 1000, at(178)), Answer::Missed);
        assert_eq!(sim.request(9, 1 << 40, at(178)), Answer::Missed, "larger than the cache");
        assert_eq!(sim.request(9, 1 << 40, at(178)), Answer::Missed);
    }

    #[test]
    fn an_object_is_as_large_as_the_largest_of_its_requests() {
        let mut sim = lru(10_000 + 3 * HEAD, None);
        sim.request(1, 100, Duration::ZERO);
        sim.request(2, 100, Duration::ZERO);
        assert_eq!(sim.request(1, 9000, Duration::ZERO), Answer::Memory);
        assert_eq!(sim.objects(), (2, 0));
        sim.request(3, 2000, Duration::ZERO);
        assert_eq!(sim.request(2, 0, Duration::ZERO), Answer::Missed);
        assert!(sim.memory_full() <= 1.0);
    }

    #[test]
    fn what_memory_has_given_up_the_disk_has() {
        let disk = DiskSetup { size: 64 << 20, daily_writes: 1 << 40 };
        let setup = Setup { policy: Kind::Lru, memory: 100_000, disk: Some(disk), ttl: None };
        let mut sim = Sim::new(&setup);
        for _ in 0..2 {
            for key in 0..500 {
                sim.request(key, 10_000, Duration::from_secs(key));
            }
        }
        assert_eq!(sim.request(3, 10_000, Duration::from_secs(600)), Answer::Disk);
        assert_eq!(sim.request(3, 10_000, Duration::from_secs(600)), Answer::Memory);
        assert!(sim.objects().1 > 400 && sim.disk_written() > 4_000_000, "{:?}", sim.objects());
        sim.thin(&setup.scaled(0.5), |key| key < 250);
        assert!(sim.request(100, 10_000, Duration::from_secs(600)).is_hit());
        assert!(!sim.request(400, 10_000, Duration::from_secs(600)).is_hit());
    }

    #[test]
    fn thinning_keeps_the_rest() {
        let mut sim = lru(1 << 20, None);
        for key in 0..100 {
            sim.request(key, 1000, Duration::ZERO);
        }
        let setup = Setup { policy: Kind::Lru, memory: 1 << 19, disk: None, ttl: None };
        sim.thin(&setup, |key| key % 2 == 0);
        assert_eq!(sim.objects(), (50, 0));
        assert!(sim.request(98, 1000, Duration::ZERO).is_hit());
        assert!(!sim.request(99, 1000, Duration::ZERO).is_hit());
    }
}
