//! A node without bytes: its memory tier and its disk, asked for keys of a size.

use std::time::Duration;

use serde::Serialize;

use crate::store::policy::{Kind, Settings, Table};

/// What an object takes beside its body: its fields, its key and the table's entry.
pub const HEAD: u64 = 600;
/// Sizes are remembered in such units.
const UNIT: u64 = 256;
/// And times in such parts of a second.
const TICKS: u64 = 16;

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
    size: u32,
}

/// The node.
#[derive(Debug)]
pub struct Sim {
    memory: Table<u64, Stored>,
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
        Self { memory: Table::new(settings), ttl, gone: Vec::new() }
    }

    /// A request at a time since anything. `size`: the object's body, as far as is known.
    pub fn request(&mut self, key: u64, size: u64, at: Duration) -> Answer {
        let now = ticks(at);
        let units = units(size);
        let found = self.memory.get(&key).copied();
        let Some(stored) = found else {
            self.put(key, Stored { fetched: now, size: units });
            return Answer::Missed;
        };
        let is_stale = self.ttl.is_some_and(|ttl| now.saturating_sub(stored.fetched) >= ttl);
        if is_stale || units > stored.size {
            let fetched = if is_stale { now } else { stored.fetched };
            self.put(key, Stored { fetched, size: units.max(stored.size) });
        }
        if is_stale { Answer::Missed } else { Answer::Memory }
    }

    fn put(&mut self, key: u64, stored: Stored) {
        self.memory.insert(key, stored, weight_of(stored.size), &mut self.gone);
        self.gone.clear();
    }

    /// Objects in memory.
    pub const fn objects(&self) -> usize {
        self.memory.len()
    }

    /// Bytes that have been written to the disk.
    pub const fn disk_written(&self) -> u64 {
        0
    }

    /// How full the memory is, 0 to 1.
    pub fn fullness(&self) -> f64 {
        self.memory.weight() as f64 / self.memory.capacity().max(1) as f64
    }

    /// Keeps only these keys, in so much memory: the sample has become smaller.
    pub fn thin(&mut self, memory: u64, keep: impl Fn(u64) -> bool) {
        let gone: Vec<u64> =
            self.memory.iter().map(|(key, _)| *key).filter(|key| !keep(*key)).collect();
        for key in gone {
            self.memory.remove(&key);
        }
        self.memory.set_capacity(memory);
        self.memory.make_room(0, usize::MAX, &mut self.gone);
        self.gone.clear();
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
    u32::try_from(size.div_ceil(UNIT)).unwrap_or(u32::MAX)
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
        sim.request(2, 1000, at(119));
        sim.request(3, 1000, at(119));
        assert_eq!(sim.objects(), 2);
        assert_eq!(sim.request(1, 1000, at(119)), Answer::Missed);
        assert_eq!(sim.request(9, 1 << 40, at(119)), Answer::Missed, "larger than the cache");
        assert_eq!(sim.request(9, 1 << 40, at(119)), Answer::Missed);
    }

    #[test]
    fn an_object_is_as_large_as_the_largest_of_its_requests() {
        let mut sim = lru(10_000 + 3 * HEAD, None);
        sim.request(1, 100, Duration::ZERO);
        sim.request(2, 100, Duration::ZERO);
        assert_eq!(sim.request(1, 9000, Duration::ZERO), Answer::Memory);
        assert_eq!(sim.objects(), 2);
        sim.request(3, 2000, Duration::ZERO);
        assert_eq!(sim.request(2, 0, Duration::ZERO), Answer::Missed);
        assert!(sim.fullness() <= 1.0);
    }

    #[test]
    fn thinning_keeps_the_rest() {
        let mut sim = lru(1 << 20, None);
        for key in 0..100 {
            sim.request(key, 1000, Duration::ZERO);
        }
        sim.thin(1 << 19, |key| key % 2 == 0);
        assert_eq!(sim.objects(), 50);
        assert!(sim.request(98, 1000, Duration::ZERO).is_hit());
        assert!(!sim.request(99, 1000, Duration::ZERO).is_hit());
    }
}
