//! The cache node itself, without bytes: the simulator that its own predictions come from.

use std::time::Duration;

use edge_cache::predict::sim::{Answer, DiskSetup, SEGMENT_SIZE, Setup, Sim};
use edge_cache::store::disk::model::Written;
use edge_cache::store::policy::Kind;

use super::{Cache, Item};

/// A node: a memory tier, perhaps over a disk. As for all other caches here, bodies alone have weight.
pub struct Node {
    setup: Setup,
    sim: Sim,
    now: Duration,
    last: Answer,
}

impl Node {
    /// An empty one without a disk.
    pub fn new(policy: Kind, memory: u64) -> Self {
        Self::of(Setup { policy, memory, disk: None, segment: SEGMENT_SIZE, ttl: None })
    }

    /// An empty one over this disk. None: it is too small to be divided.
    pub fn over(policy: Kind, memory: u64, disk: DiskSetup) -> Option<Self> {
        let disk = Some(disk);
        let node = Self::of(Setup { policy, memory, disk, segment: SEGMENT_SIZE, ttl: None });
        node.sim.has_disk().then_some(node)
    }

    fn of(setup: Setup) -> Self {
        Self { setup, sim: Sim::bare(&setup), now: Duration::ZERO, last: Answer::Memory }
    }

    /// Tells the time, for the budget of writes.
    pub const fn set_time(&mut self, milliseconds: u64) {
        self.now = Duration::from_millis(milliseconds);
    }

    /// The memory is empty; the disk holds what it has held.
    pub fn restart(&mut self) {
        self.sim.restart(&self.setup);
    }

    /// What has been written to the disk.
    pub fn written(&self) -> Written {
        self.sim.written()
    }
}

impl Cache for Node {
    fn request(&mut self, Item { id, weight, .. }: Item) -> bool {
        self.last = self.sim.request(u64::from(id) + 1, weight, self.now);
        self.last.is_hit()
    }

    fn had(&self, item: &Item) -> u64 {
        self.last.had(item.bytes, item.weight)
    }

    fn weight(&self) -> u64 {
        self.sim.memory_weight()
    }

    fn held(&self) -> Option<u64> {
        Some(self.sim.entries().0 as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cdn::CLASSES;
    use crate::policy::tests::item;
    use crate::replay::Workload;

    #[test]
    fn what_memory_lets_go_comes_back_from_disk_once_it_was_asked_for_twice() {
        let disk = DiskSetup { size: 64 << 20, daily_writes: 1 << 20 };
        let mut node = Node::over(Kind::Lru, 200_000, disk).unwrap();
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
        let mut alone = Node::new(Kind::SizeAware, memory);
        let alone = workload.replay_node(&mut alone).count.ratios();
        let size = workload.capacity(100).max(16 << 20);
        let daily_writes = workload.requested() / 20;
        let disk = DiskSetup { size, daily_writes };
        let mut node = Node::over(Kind::SizeAware, memory, disk).unwrap();
        let both = workload.replay_node(&mut node);
        assert!(both.count.ratios().object > alone.object + 0.02);
        assert!(both.written.new + both.written.moved < daily_writes * 3);
    }

    /// What is left of a long body is not fetched again.
    #[test]
    fn a_long_body_goes_and_comes_back_in_part() {
        let mut node = Node::new(Kind::SizeAware, (1 << 20) + 1000);
        let long = item(1, 1 << 20);
        assert!(!node.request(long) && node.had(&long) == 0);
        assert!(node.request(long) && node.had(&long) == 1 << 20);
        node.request(item(2, 1000));
        assert!(!node.request(long));
        assert!((1..=3).any(|segments| node.had(&long) == segments << 18), "{}", node.had(&long));
    }
}
