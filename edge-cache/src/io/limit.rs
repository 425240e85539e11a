//! Keeps the process to its memory: looks at what it takes ten times a second, and has the store, fetches and listeners
//! keep to what [`crate::store::budget`] makes of it.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::node::Node;
use crate::store::budget::{self, Budget, Share, Taken, Verdict};

/// Between two looks.
const EVERY: Duration = Duration::from_millis(100);
/// Steps in which the memory tier makes room, at one look.
const STEPS: usize = 256;
/// So many connections may be open whatever `memory` says: an operator must be able to see why there are no more.
const LEAST_CONNECTIONS: u64 = 256;

/// What is kept to now. Before the first look nothing is refused.
#[derive(Debug)]
pub struct Limit {
    memory: u64,
    segment: u64,
    reads_ahead: AtomicBool,
    is_full: AtomicBool,
    connections: AtomicU64,
    capacity: AtomicU64,
    resident: AtomicU64,
}

impl Limit {
    /// For a process of `memory` bytes whose store has segments of this size.
    pub const fn new(memory: u64, segment: u64) -> Self {
        Self {
            memory,
            segment,
            reads_ahead: AtomicBool::new(true),
            is_full: AtomicBool::new(false),
            connections: AtomicU64::new(u64::MAX),
            capacity: AtomicU64::new(memory),
            resident: AtomicU64::new(0),
        }
    }

    /// Whether more is fetched than somebody waits for.
    pub fn reads_ahead(&self) -> bool {
        self.reads_ahead.load(Ordering::Relaxed)
    }

    /// What each of so many responses may hold while it waits for its client.
    pub fn share(&self, in_flight: usize) -> Share {
        budget::share(self.memory, in_flight as u64, self.segment)
    }

    /// Whether there is memory for a connection beside so many.
    pub fn has_room(&self, connections: usize) -> bool {
        (connections as u64) < self.connections.load(Ordering::Relaxed).max(LEAST_CONNECTIONS)
    }

    /// Whether even requests on open connections are too much.
    pub fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// What the memory tier may take.
    pub fn capacity(&self) -> u64 {
        self.capacity.load(Ordering::Relaxed)
    }

    /// What the process took at the last look.
    pub fn resident(&self) -> u64 {
        self.resident.load(Ordering::Relaxed)
    }

    fn keep_to(&self, verdict: Verdict) {
        self.reads_ahead.store(verdict.reads_ahead, Ordering::Relaxed);
        self.is_full.store(verdict.is_full, Ordering::Relaxed);
        self.connections.store(verdict.connections, Ordering::Relaxed);
        self.capacity.store(verdict.capacity, Ordering::Relaxed);
    }
}

impl Node {
    /// What the response of each request may hold while it waits for its client.
    pub fn share(&self) -> Share {
        self.limit.share(self.telemetry.in_flight.load(Ordering::Relaxed))
    }

    /// Whether more is fetched than somebody waits for.
    pub fn reads_ahead(&self) -> bool {
        self.limit.reads_ahead() && self.share() == Share::Stored
    }
}

/// Keeps a node's process to its memory, from now on. The process is the node's alone.
pub fn keep(node: &Arc<Node>) {
    // A virtual file: read again, it is made anew.
    let statm = match File::open("/proc/self/statm") {
        Ok(statm) => statm,
        Err(error) => {
            tracing::warn!(%error, "/proc/self/statm cannot be read: `memory` bounds what is stored only");
            return;
        }
    };
    tokio::spawn(watch(Arc::downgrade(node), statm));
}

async fn watch(node: std::sync::Weak<Node>, statm: File) {
    let Some((memory, fixed)) =
        node.upgrade().map(|node| (node.limit.memory, node.store.memory().fixed()))
    else {
        return;
    };
    let mut budget = Budget::new(memory, fixed);
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut refuses, mut exceeds) = (false, false);
    loop {
        ticks.tick().await;
        let Some(node) = node.upgrade() else { return };
        // One look less; for ever at what was found last, a node would go on refusing.
        let Some((resident, mapped)) = pages(&statm) else { continue };
        let limit = &node.limit;
        limit.resident.store(resident, Ordering::Relaxed);
        let connections = node.telemetry.connections.load(Ordering::Relaxed);
        let taken = Taken {
            resident,
            mapped,
            stored: node.store.memory().stats().bytes,
            connections: connections as u64,
            requests: node.telemetry.in_flight.load(Ordering::Relaxed) as u64,
            fills: node.fills.held(),
            index: node.under.as_ref().map_or(0, |under| under.disks().index_bytes()),
        };
        let verdict = budget.step(taken);
        limit.keep_to(verdict);
        if verdict.limit > limit.memory && !std::mem::replace(&mut exceeds, true) {
            tracing::warn!(
                memory = limit.memory,
                kept_to = verdict.limit,
                "`memory` is hardly more than the process takes by itself: it is kept to what can be had, and stores little"
            );
        }
        // In steps, between which others have their turn.
        for _ in 0..STEPS {
            if node.store.memory().set_capacity(verdict.capacity) {
                break;
            }
            tokio::task::yield_now().await;
        }
        node.fills.set_room(verdict.fills);
        let refused = !limit.has_room(connections);
        if refused && !std::mem::replace(&mut refuses, true) {
            tracing::warn!(
                connections,
                resident,
                memory = limit.memory,
                "connections are refused: there is no memory for more"
            );
        }
        refuses = refused || refuses && resident > verdict.limit;
    }
}

/// Resident memory and how much of it is pages of files, in bytes: the second and the third number of `/proc/self/statm`.
fn pages(statm: &File) -> Option<(u64, u64)> {
    let mut text = [0; 128];
    let length = statm.read_at(&mut text, 0).ok()?;
    let text = std::str::from_utf8(text.get(..length)?).ok()?;
    let mut numbers = text.split_ascii_whitespace().skip(1).map(|pages| pages.parse::<u64>().ok());
    let mut bytes = || Some(numbers.next()??.saturating_mul(rustix::param::page_size() as u64));
    Some((bytes()?, bytes()?))
}
