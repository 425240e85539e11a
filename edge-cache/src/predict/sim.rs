//! A node without bytes: its memory tier and its disk, asked for keys of a size.

use std::time::Duration;

use serde::Serialize;
use shared::config::{DiskSpec, EdgeSpec, StorePolicy};

use super::disk::{Disk, Written};
use super::memory::{Head, Memory, Overhead, SETTLED, place};
use crate::config::store_policy;
use crate::segment::{Layout, plan};
use crate::store::disk::model;
use crate::store::policy::{Kind, Settings};

/// What an object takes beside its body: its fields, its key and the table's entry.
pub const HEAD: u64 = 600;
/// And a segment of one.
const SEGMENT: u64 = 200;
/// Times are remembered in such parts of a second.
const TICKS: u64 = 16;
/// Segments that a node has if the configuration says nothing.
pub const SEGMENT_SIZE: u64 = 256 << 10;

/// A node to be simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Who makes room in memory.
    pub policy: Kind,
    /// Bytes of the memory tier.
    pub memory: u64,
    /// Its disk.
    pub disk: Option<DiskSetup>,
    /// Bytes of the segments that longer bodies lie in.
    pub segment: u64,
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
    match store_policy(edge) {
        StorePolicy::SizeAware => Some(Kind::SizeAware),
        StorePolicy::S3Fifo => Some(Kind::S3Fifo),
        StorePolicy::Lru => Some(Kind::Lru),
        StorePolicy::Moka => None,
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
    /// The disk, of some of it at least.
    Disk,
    /// Neither, of some of it at least: that is fetched.
    Missed {
        /// Bytes that are fetched.
        bytes: u64,
        /// Requests that it takes.
        requests: u64,
    },
}

impl Answer {
    /// Nothing was there.
    pub const NONE: Self = Self::Missed { bytes: u64::MAX, requests: 1 };

    /// Whether the node had all of it.
    pub const fn is_hit(self) -> bool {
        matches!(self, Self::Memory | Self::Disk)
    }

    /// Of so many bytes that were asked for, those that the node had, where objects are `size` bytes.
    pub fn had(self, sent: u64, size: u64) -> u64 {
        match self {
            Self::Memory | Self::Disk => sent,
            Self::Missed { bytes, .. } if bytes >= size => 0,
            Self::Missed { bytes, .. } => {
                (sent as f64 * (1.0 - bytes as f64 / size.max(1) as f64)).round() as u64
            }
        }
    }
}

/// The node.
#[derive(Debug)]
pub struct Sim {
    memory: Memory,
    disk: Option<Disk>,
    ttl: Option<u32>,
}

/// What a body was read from.
#[derive(Clone, Copy, Debug, Default)]
struct Body {
    from_disk: bool,
    missed: u64,
    requests: u64,
    /// Bytes that the last request can still bring.
    open: u64,
}

impl Sim {
    /// An empty one.
    pub fn new(setup: &Setup) -> Self {
        let overhead = Overhead { head: HEAD, segment: SEGMENT };
        Self::with(setup, overhead, setup.disk.as_ref().and_then(Disk::new))
    }

    /// One in whose memory bodies alone have weight, and whose disk is divided as a node's is, if it is large enough for
    /// that.
    pub fn bare(setup: &Setup) -> Self {
        Self::with(setup, Overhead::default(), setup.disk.as_ref().and_then(Disk::of_node))
    }

    /// Whether there is a disk.
    pub const fn has_disk(&self) -> bool {
        self.disk.is_some()
    }

    fn with(setup: &Setup, overhead: Overhead, disk: Option<Disk>) -> Self {
        let settings = Settings {
            kind: setup.policy,
            capacity: setup.memory,
            over_disk: setup.disk.is_some(),
            seed: 0x6d65_7269_6469_616e,
        };
        let memory = Memory::new(settings, Layout::new(setup.segment), overhead);
        let ttl = setup.ttl.map(|ttl| ticks(ttl).max(1));
        Self { memory, disk, ttl }
    }

    /// A request at a time since anything. `size`: the object's body, as far as is known.
    pub fn request(&mut self, key: u64, size: u64, at: Duration) -> Answer {
        let now = ticks(at);
        let here = self.memory.head(key);
        let known = here.or_else(|| {
            let fetched = self.disk.as_mut()?.get(key)?;
            Some(Head::new(fetched, size, SETTLED))
        });
        let Some(known) = known else { return self.fetch(key, size, at) };
        // As lengths are known here.
        let length = Head::new(0, size, 0).length().max(known.length());
        if self.is_stale(known, now) {
            // Fetched again: the body is what it was, or is not asked for.
            self.renew(key, length, at);
            return Answer::Missed { bytes: size, requests: 1 };
        }
        let asked = match here {
            Some(head) => self.offer_head(key, Head::new(known.fetched, length, head.asked()), at),
            None => SETTLED,
        };
        let head = Head::new(known.fetched, length, asked);
        if here != Some(head) {
            self.memory.put(key, head);
        }
        if here.is_some_and(|here| here.length() < length) {
            // It is known better now, and was all there before.
            (0..self.memory.segments(length))
                .for_each(|index| self.memory.put_segment(key, index, length, false));
            return Answer::Memory;
        }
        let body = self.read(key, length, at);
        match body {
            Body { missed: bytes @ 1.., requests, .. } => Answer::Missed { bytes, requests },
            Body { from_disk: true, .. } => Answer::Disk,
            _ if here.is_none() => Answer::Disk,
            _ => Answer::Memory,
        }
    }

    /// Offers the disk a head that is asked for in memory: at every request that is a power of two, as the node does.
    fn offer_head(&mut self, key: u64, head: Head, at: Duration) -> u8 {
        let own = if self.memory.segments(head.length()) == 0 { head.length() } else { 0 };
        let (Some(disk), false) = (&mut self.disk, head.asked() == SETTLED) else {
            return head.asked();
        };
        let count = if head.asked() >= SETTLED - 1 { 128 } else { head.asked() + 1 };
        let written = Written { of: key, size: own, fetched: head.fetched };
        let settled = count.is_power_of_two() && disk.offer(key, written, at);
        if settled { SETTLED } else { count }
    }

    /// Reads the segments of a body, fetches what is nowhere, and offers the disk what it has not.
    fn read(&mut self, key: u64, length: u64, at: Duration) -> Body {
        let mut body = Body::default();
        for index in 0..self.memory.segments(length) {
            let (place, bytes) = (place(key, index), self.memory.bytes(index, length));
            let here = self.memory.segment(place);
            let there = match (&mut self.disk, here) {
                (Some(disk), None | Some(true)) => disk.get(place).is_some(),
                _ => false,
            };
            let has = here.is_some() || there;
            if has {
                body.open = 0;
                body.from_disk |= here.is_none();
            } else {
                body.missed += bytes;
                if body.open < bytes {
                    body.requests += 1;
                    body.open = plan::MOST;
                }
                body.open -= bytes.min(body.open);
            }
            let settled = there || self.offer_segment(key, index, bytes, at);
            if here != Some(settled) {
                self.memory.put_segment(key, index, length, settled);
            }
        }
        body
    }

    fn offer_segment(&mut self, key: u64, index: u64, size: u64, at: Duration) -> bool {
        let written = Written { of: key, size, fetched: 0 };
        self.disk.as_mut().is_some_and(|disk| disk.offer(place(key, index), written, at))
    }

    /// A request that the node knows nothing of.
    fn fetch(&mut self, key: u64, size: u64, at: Duration) -> Answer {
        let now = ticks(at);
        let segments = self.memory.segments(size);
        for index in 0..segments {
            let settled = self.offer_segment(key, index, self.memory.bytes(index, size), at);
            self.memory.put_segment(key, index, size, settled);
        }
        let own = if segments == 0 { size } else { 0 };
        let written = Written { of: key, size: own, fetched: now };
        let settled = self.disk.as_mut().is_some_and(|disk| disk.offer(key, written, at));
        self.memory.put(key, Head::new(now, size, if settled { SETTLED } else { 0 }));
        Answer::Missed { bytes: size, requests: 1 }
    }

    /// A request for which an object is fetched, whatever is stored.
    pub fn renew(&mut self, key: u64, size: u64, at: Duration) {
        let now = ticks(at);
        let known = self.memory.head(key);
        let length = known.map_or(size, |known| size.max(known.length()));
        let on_disk = self.disk.as_mut().is_some_and(|disk| {
            disk.renew(key, now);
            known.is_none() && disk.get(key).is_some()
        });
        let asked = known.map_or(if on_disk { SETTLED } else { 0 }, Head::asked);
        if known.is_none_or(|known| known.length() != length) {
            for index in 0..self.memory.segments(length) {
                self.memory.put_segment(key, index, length, false);
            }
        }
        self.memory.put(key, Head::new(now, length, asked));
    }

    fn is_stale(&self, head: Head, now: u32) -> bool {
        self.ttl.is_some_and(|ttl| now.saturating_sub(head.fetched) >= ttl)
    }

    /// Entries in memory, objects and segments, and records on disk.
    pub fn entries(&self) -> (usize, usize) {
        let disk = self.disk.as_ref().map_or(0, Disk::objects);
        (self.memory.entries(), usize::try_from(disk).unwrap_or(usize::MAX))
    }

    /// The memory is empty, as after a restart; the disk holds what it has held.
    pub fn restart(&mut self, setup: &Setup) {
        let Self { memory, disk, .. } = Self::with(setup, self.memory.overhead(), self.disk.take());
        (self.memory, self.disk) = (memory, disk);
    }

    /// What has been written to the disk, new and moved.
    pub fn written(&self) -> model::Written {
        self.disk.as_ref().map(Disk::written_new_and_moved).unwrap_or_default()
    }

    /// Bytes that have been written to the disk.
    pub fn disk_written(&self) -> u64 {
        self.disk.as_ref().map_or(0, Disk::written)
    }

    /// What the memory holds.
    pub const fn memory_weight(&self) -> u64 {
        self.memory.weight()
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
        self.memory.thin(setup.memory, &keep);
        self.disk = match (&self.disk, &setup.disk) {
            (Some(disk), Some(setup)) => disk.thinned(setup, keep),
            _ => None,
        };
    }
}

/// What an object with a body of so many bytes takes in memory.
pub const fn weight(size: u64) -> u64 {
    size + HEAD
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
        Sim::new(&Setup { policy: Kind::Lru, memory, disk: None, segment: SEGMENT_SIZE, ttl })
    }

    #[test]
    fn a_second_request_is_a_hit_until_the_object_has_made_room_or_is_old() {
        let mut sim = lru(2 * (1024 + HEAD), Some(60));
        let at = Duration::from_secs;
        assert!(!sim.request(1, 1000, at(0)).is_hit());
        assert_eq!(sim.request(1, 1000, at(59)), Answer::Memory);
        assert!(!sim.request(1, 1000, at(60)).is_hit(), "fetched again");
        assert_eq!(sim.request(1, 1000, at(119)), Answer::Memory);
        sim.renew(1, 1000, at(119));
        assert_eq!(sim.request(1, 1000, at(178)), Answer::Memory);
        sim.request(2, 1000, at(178));
        sim.request(3, 1000, at(178));
        assert_eq!(sim.entries(), (2, 0));
        assert!(!sim.request(1, 1000, at(178)).is_hit());
        assert!(!sim.request(9, 1 << 40, at(178)).is_hit(), "larger than the cache");
        assert!(!sim.request(9, 1 << 40, at(178)).is_hit());
    }

    #[test]
    fn an_object_is_as_large_as_the_largest_of_its_requests() {
        let mut sim = lru(10_000 + 3 * HEAD, None);
        sim.request(1, 100, Duration::ZERO);
        sim.request(2, 100, Duration::ZERO);
        assert_eq!(sim.request(1, 9000, Duration::ZERO), Answer::Memory);
        assert_eq!(sim.entries(), (2, 0));
        sim.request(3, 2000, Duration::ZERO);
        assert!(!sim.request(2, 0, Duration::ZERO).is_hit());
        assert!(sim.memory_full() <= 1.0);
    }

    #[test]
    fn what_memory_has_given_up_the_disk_has() {
        let disk = DiskSetup { size: 64 << 20, daily_writes: 1 << 40 };
        let setup = Setup {
            policy: Kind::Lru,
            memory: 100_000,
            disk: Some(disk),
            segment: SEGMENT_SIZE,
            ttl: None,
        };
        let mut sim = Sim::new(&setup);
        for _ in 0..2 {
            for key in 0..500 {
                sim.request(key, 10_000, Duration::from_secs(key));
            }
        }
        assert_eq!(sim.request(3, 10_000, Duration::from_secs(600)), Answer::Disk);
        assert_eq!(sim.request(3, 10_000, Duration::from_secs(600)), Answer::Memory);
        assert!(sim.entries().1 > 400 && sim.disk_written() > 4_000_000, "{:?}", sim.entries());
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
        let setup = Setup {
            policy: Kind::Lru,
            memory: 1 << 19,
            disk: None,
            segment: SEGMENT_SIZE,
            ttl: None,
        };
        sim.thin(&setup, |key| key % 2 == 0);
        assert_eq!(sim.entries(), (50, 0));
        assert!(sim.request(98, 1000, Duration::ZERO).is_hit());
        assert!(!sim.request(99, 1000, Duration::ZERO).is_hit());
    }
}
