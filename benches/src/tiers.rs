//! Edges over parents: how much of the requests and bytes the origin is spared, how evenly the parents are loaded, and what
//! the origin sees when a parent comes, goes, or starts again.
//!
//! The tables of the cache node and its choice of a parent; a trace whose requests are spread over the edges, three in five
//! of an object's at its home.

use edge_cache::predict::sim::DiskSetup;
use edge_cache::store::policy::Kind;
use edge_cache::tier::{ParentView, choose, name_hash};
use serde::Serialize;

use crate::policy::product::Node;
use crate::random::{Random, mix};
use crate::replay::{Count, Seen, Workload, seen};

/// How a parent is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// There are none.
    None,
    /// Any of them, at random.
    Any,
    /// By rendezvous hashing.
    Hashed,
}

/// What happens to the parents in the middle of the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// Nothing.
    None,
    /// One more joins.
    Added,
    /// One leaves.
    Removed,
    /// One starts again with nothing.
    RestartedCold,
    /// One starts again with its disk; parents have a tenth of their space in memory.
    RestartedWithDisk,
    /// As before, for comparison: parents with disks and no event.
    NoneWithDisk,
}

impl Event {
    /// Whether the parents have disks.
    pub const fn has_disks(self) -> bool {
        matches!(self, Self::RestartedWithDisk | Self::NoneWithDisk)
    }
}

/// A set-up.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// How many edges.
    pub edges: usize,
    /// Each one's thousandths of the footprint.
    pub edge: u64,
    /// Their policy.
    pub edge_policy: Kind,
    /// How many parents.
    pub parents: usize,
    /// Thousandths of the footprint of all of them together.
    pub parent: u64,
    /// Their policy.
    pub parent_policy: Kind,
    /// How one is chosen.
    pub choice: Choice,
    /// What happens to them.
    pub event: Event,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Outcome {
    /// Requests and bytes that the origin was spared, after the warm-up.
    pub count: Count,
    /// Requests of the busiest parent, beside the mean.
    pub load: f64,
    /// Of the requests in the half of a hundredth after the middle of the trace, the share that the origin saw.
    pub origin_after: f64,
}

fn parent(setup: &Setup, capacity: u64) -> anyhow::Result<Node> {
    if !setup.event.has_disks() {
        return Ok(Node::new(setup.parent_policy, capacity));
    }
    // Three times its size a day, as the disks of a node by default.
    let size = capacity / 10 * 9;
    let disk = DiskSetup { size, daily_writes: size * 3 };
    let node = Node::over(setup.parent_policy, capacity / 10, disk);
    node.ok_or_else(|| anyhow::anyhow!("{size} bytes are no disk"))
}

/// The order in which the parents are asked for each object, found when it is first needed.
struct Orders {
    parents: Vec<ParentView>,
    first: Vec<u8>,
}

const UNKNOWN: u8 = u8::MAX;

impl Orders {
    fn new(parents: usize, objects: usize) -> Self {
        let view = |number| ParentView {
            id: name_hash(&format!("parent-{number}")),
            up: true,
            weight: 1.0,
            in_flight: 0,
        };
        Self { parents: (0..parents).map(view).collect(), first: vec![UNKNOWN; objects] }
    }

    fn of(&mut self, id: u32, order: &mut Vec<usize>) -> usize {
        let known = &mut self.first[id as usize];
        if *known == UNKNOWN {
            let key = u128::from(mix(u64::from(id))) << 64 | u128::from(mix(u64::from(id) + 1));
            choose(key, &self.parents, None, order);
            *known = order.first().map_or(0, |first| *first as u8);
        }
        usize::from(*known)
    }

    fn change(&mut self, change: impl FnOnce(&mut Vec<ParentView>)) {
        change(&mut self.parents);
        self.first.fill(UNKNOWN);
    }
}

/// Replays a trace.
pub fn run(setup: &Setup, workload: &Workload) -> anyhow::Result<Outcome> {
    let mut random = Random::new(0xed6e);
    let edge = workload.capacity(setup.edge);
    let mut edges: Vec<Node> =
        (0..setup.edges).map(|_| Node::new(setup.edge_policy, edge)).collect();
    let capacity = workload.capacity(setup.parent) / setup.parents.max(1) as u64;
    let mut parents = Vec::new();
    for _ in 0..=setup.parents {
        parents.push(parent(setup, capacity)?);
    }
    let mut orders = Orders::new(setup.parents + 1, workload.objects);
    // The one more is there, and not yet chosen.
    let newcomer = setup.parents;
    orders.change(|views| views[newcomer].up = false);
    let mut loads = vec![0u64; parents.len()];
    let (mut count, mut after, mut order) = (Count::default(), Count::default(), Vec::new());
    let all = workload.items.len();
    for (number, item) in workload.items.iter().enumerate() {
        if number == all / 2 {
            match setup.event {
                Event::None | Event::NoneWithDisk => {}
                Event::Added => orders.change(|views| views[newcomer].up = true),
                Event::Removed => orders.change(|views| views[0].up = false),
                Event::RestartedCold => parents[0] = parent(setup, capacity)?,
                Event::RestartedWithDisk => parents[0].restart(),
            }
        }
        let home = mix(u64::from(item.id) ^ 0x0e) % setup.edges as u64;
        let at = if random.below(5) < 3 { home } else { random.below(setup.edges as u64) };
        let mut got = seen(&mut edges[at as usize], item);
        if let Seen::Missed(here) = got
            && setup.choice != Choice::None
        {
            let chosen = match setup.choice {
                Choice::Any => random.below(setup.parents as u64) as usize,
                _ => orders.of(item.id, &mut order),
            };
            loads[chosen] += 1;
            parents[chosen].set_time(workload.times[number]);
            got = match seen(&mut parents[chosen], item) {
                Seen::Hit => Seen::Hit,
                // What each has of it may be the same.
                Seen::Missed(there) => Seen::Missed(here.max(there)),
            };
        }
        if number >= all / 4 {
            count.add(item.bytes, got);
        }
        if (all / 2..all / 2 + all / 200).contains(&number) {
            after.add(item.bytes, got);
        }
    }
    let loads = &loads[..setup.parents.max(1)];
    let mean = loads.iter().sum::<u64>() as f64 / loads.len() as f64;
    let most = loads.iter().copied().max().unwrap_or(0) as f64;
    let load = if mean > 0.0 { most / mean } else { 0.0 };
    Ok(Outcome { count, load, origin_after: 1.0 - after.ratios().object })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cdn::CLASSES;

    fn setup(choice: Choice, event: Event) -> Setup {
        Setup {
            edges: 4,
            edge: 20,
            edge_policy: Kind::SizeAware,
            parents: 4,
            parent: 200,
            parent_policy: Kind::S3Fifo,
            choice,
            event,
        }
    }

    #[test]
    fn parents_spare_the_origin_and_hashed_ones_more() {
        let workload = Workload::new("web-us", &CLASSES[0].sample(6_000, 0).requests);
        let spared =
            |choice| run(&setup(choice, Event::None), &workload).unwrap().count.ratios().object;
        let (none, any, hashed) =
            (spared(Choice::None), spared(Choice::Any), spared(Choice::Hashed));
        assert!(any > none + 0.01 && hashed > any + 0.02, "{none} {any} {hashed}");
    }

    #[test]
    fn the_origin_notices_what_happens_to_a_parent() {
        let workload = Workload::new("web-us", &CLASSES[0].sample(12_000, 0).requests);
        let after = |event| run(&setup(Choice::Hashed, event), &workload).unwrap().origin_after;
        let calm = after(Event::None);
        for event in [Event::Added, Event::Removed, Event::RestartedCold] {
            assert!(after(event) > calm + 0.005, "{event:?}: {} {calm}", after(event));
        }
    }
}
