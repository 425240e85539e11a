//! A node of two tiers: the tables of the memory tier over the decisions of the disk tier, both the product's code.

use std::time::Duration;

use edge_cache::store::below::Asked;
use edge_cache::store::disk::Geometry;
use edge_cache::store::disk::model::{Model, Written};
use edge_cache::store::policy::Kind;

use crate::policy::product::Product;
use crate::policy::{Cache, Item};
use crate::random::mix;

/// Bytes of a head's record.
const HEAD: usize = 400;
/// A body longer than this lies in segments of so many bytes, each a record.
const PART: u64 = 1 << 20;

/// Memory over a disk.
pub struct Hybrid {
    memory: Product,
    disk: Model,
    kind: Kind,
    memory_capacity: u64,
    asked: Vec<Asked>,
    now: Duration,
    /// Of the last object that was asked for and not there: bytes of the segments that are.
    partial: u64,
}

impl Hybrid {
    /// Empty ones; `daily` bytes may be written to the disk in a day. None: the disk is too small to be divided.
    pub fn new(kind: Kind, memory: u64, disk: u64, daily: u64) -> Option<Self> {
        Some(Self {
            memory: Product::new(kind, memory, true),
            disk: Model::new(Geometry::new(disk)?, daily),
            kind,
            memory_capacity: memory,
            asked: Vec::new(),
            now: Duration::ZERO,
            partial: 0,
        })
    }

    /// Tells the time, for the budget of writes.
    pub const fn set_time(&mut self, milliseconds: u64) {
        self.now = Duration::from_millis(milliseconds);
    }

    /// The memory is empty; the disk holds what it has held.
    pub fn restart(&mut self) {
        self.memory = Product::new(self.kind, self.memory_capacity, true);
    }

    /// What has been written to the disk.
    pub const fn written(&self) -> Written {
        self.disk.written()
    }

    /// The names of an object's records: the object, then the segments of its body.
    fn records(item: &Item) -> impl Iterator<Item = (u64, usize)> {
        let parts = if item.weight > PART { item.weight.div_ceil(PART) } else { 0 };
        let (id, weight) = (u64::from(item.id), item.weight);
        let whole = if parts == 0 { weight } else { 0 };
        let head = std::iter::once((mix(id + 1) | 1, whole as usize));
        let part = move |part: u64| {
            let length = PART.min(weight - part * PART);
            (mix(mix(id + 1) + part + 1) | 1, length as usize)
        };
        head.chain((0..parts).map(part))
    }

    fn is_on_disk(&mut self, item: &Item) -> bool {
        // All are looked for: a hit counts for each.
        let mut whole = true;
        self.partial = 0;
        for (hash, length) in Self::records(item) {
            match self.disk.get(hash) {
                true => self.partial += length as u64,
                false => whole = false,
            }
        }
        whole
    }

    /// What the origin is spared of a body that was not there: the segments that the disk has.
    pub const fn partial(&self) -> u64 {
        self.partial
    }

    /// It is stored in memory, or asked for there.
    fn offer(&mut self, item: &Item) {
        let at = item.id as usize;
        if !self.asked[at].is_due() {
            return;
        }
        let mut all = true;
        for (hash, length) in Self::records(item) {
            let there = self.disk.contains(hash);
            all &= there
                || self.disk.wanted(hash, length as u64, self.now)
                    && self.disk.write(hash, HEAD, length);
        }
        if all {
            self.asked[at].settle();
            self.memory.settle(item.id);
        }
    }
}

impl Cache for Hybrid {
    fn request(&mut self, item: Item) -> bool {
        let at = item.id as usize;
        if at >= self.asked.len() {
            self.asked.resize_with((at + 1).max(self.asked.len() * 2), Asked::default);
        }
        if self.memory.request(item) {
            self.offer(&item);
            return true;
        }
        // It has come into memory, from disk or from the origin.
        if self.is_on_disk(&item) {
            self.asked[at] = Asked::settled();
            self.memory.settle(item.id);
            return true;
        }
        self.asked[at] = Asked::default();
        self.offer(&item);
        false
    }

    fn weight(&self) -> u64 {
        self.memory.weight()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cdn::CLASSES;
    use crate::replay::Workload;

    fn item(id: u32, weight: u64) -> Item {
        Item { id, next: 0, bytes: weight, weight }
    }

    #[test]
    fn what_memory_lets_go_comes_back_from_disk_once_it_was_asked_for_twice() {
        let daily = 1 << 20;
        let mut node = Hybrid::new(Kind::Lru, 200_000, 64 << 20, daily).unwrap();
        // The budget for first-timers, half a day's hour, is spent at once.
        (100..110).for_each(|id| {
            node.request(item(id, 20_000));
        });
        node.request(item(1, 20_000));
        node.request(item(2, 20_000));
        assert!(node.request(item(2, 20_000)), "in memory, and from now on disk");
        node.set_time(3_600_000 / 2);
        (200..220).for_each(|id| {
            node.request(item(id, 20_000));
        });
        assert!(node.request(item(2, 20_000)));
        assert!(!node.request(item(1, 20_000)));
        let before = node.written();
        node.restart();
        assert!(node.request(item(2, 20_000)));
        assert_eq!(node.written(), before);
    }

    #[test]
    fn a_disk_adds_hits_and_the_budget_holds() {
        let workload = Workload::new("web-us", &CLASSES[0].sample(3_000, 0).requests);
        let memory = workload.capacity(10);
        let alone = workload.replay(&mut Product::new(Kind::SizeAware, memory, false)).ratios();
        let disk = workload.capacity(100).max(16 << 20);
        let daily = workload.requested() / 20;
        let mut node = Hybrid::new(Kind::SizeAware, memory, disk, daily).unwrap();
        let both = workload.replay_node(&mut node);
        assert!(both.count.ratios().object > alone.object + 0.02);
        assert!(both.written.new + both.written.moved < daily * 3);
    }
}
