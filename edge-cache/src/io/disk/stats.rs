//! What a disk has done, for metrics, status and tests.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::open::Emptied;

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// What a disk counts.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) written_new: Counter,
    pub(super) written_moved: Counter,
    pub(super) written_updates: Counter,
    pub(super) written_tombstones: Counter,
    pub(super) written_footers: Counter,
    pub(super) not_taken: Counter,
    pub(super) reads: Counter,
    pub(super) read_bytes: Counter,
    pub(super) hits: Counter,
    pub(super) misses: Counter,
    pub(super) timeouts: Counter,
    pub(super) read_errors: Counter,
    pub(super) write_errors: Counter,
    pub(super) checksum_failures: Counter,
    pub(super) evicted: Counter,
    pub(super) reclaimed: Counter,
    pub(super) recovery_micros: Counter,
}

/// What a disk is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// It reads what a crash has left, or the index's copy. All lookups miss.
    Recovering,
    /// It serves.
    Ready,
    /// It serves; what cannot be written, because the device is full or read-only or fails, is not taken.
    ReadOnly,
    /// It has failed too often: it is left alone until the node is started anew.
    Isolated,
    /// It has been stopped.
    Closed,
    /// All who read it wait for it: until it answers, nothing is asked of it, and all lookups miss.
    Stalled,
}

impl State {
    /// Its name in status and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Recovering => "recovering",
            Self::Ready => "ready",
            Self::ReadOnly => "read-only",
            Self::Isolated => "isolated",
            Self::Closed => "closed",
            Self::Stalled => "stalled",
        }
    }
}

/// How a disk became ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It began empty.
    Empty(Emptied),
    /// From the index's copy: it was stopped cleanly.
    Copy,
    /// From the segments: it was not.
    Segments,
    /// From nothing: a segment's records are damaged, and what they said of older ones is not known.
    Damaged,
}

/// What a disk holds and has done. Bytes and counts are since the start.
#[derive(Clone, Debug)]
pub struct Stats {
    /// Which.
    pub path: PathBuf,
    /// What it is doing.
    pub state: State,
    /// How it became ready, and how long that took. None: it is not.
    pub start: Option<(Start, Duration)>,
    /// Bytes that it uses of the disk.
    pub size: u64,
    /// Of these, bytes of records that can be found.
    pub live_bytes: u64,
    /// Records that can be found.
    pub objects: u64,
    /// Bytes that the index takes in memory.
    pub index_bytes: u64,
    /// Bytes written of new records.
    pub written_new: u64,
    /// Bytes written of records that were moved when their segment was reclaimed.
    pub written_moved: u64,
    /// Bytes written of later metas.
    pub written_updates: u64,
    /// Bytes written of tombstones.
    pub written_tombstones: u64,
    /// Bytes written of footers and the index's copy.
    pub written_footers: u64,
    /// Records that were not written: the queue or the disk was full, failing, or not ready.
    pub not_taken: u64,
    /// Records read, whether found or not.
    pub reads: u64,
    /// Bytes read for them, heads and checksums included.
    pub read_bytes: u64,
    /// Reads that gave a record.
    pub hits: u64,
    /// Reads that gave none.
    pub misses: u64,
    /// Reads that took too long, or for which the queue was full.
    pub timeouts: u64,
    /// Reads that the device failed.
    pub read_errors: u64,
    /// Writes that it failed.
    pub write_errors: u64,
    /// Records whose bytes were not those that were written.
    pub checksum_failures: u64,
    /// Records that were lost to make room.
    pub evicted: u64,
    /// Segments reclaimed.
    pub reclaimed: u64,
}

impl Stats {
    /// All bytes written.
    pub const fn written(&self) -> u64 {
        self.written_new
            + self.written_moved
            + self.written_updates
            + self.written_tombstones
            + self.written_footers
    }
}
