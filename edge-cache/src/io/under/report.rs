//! What is told of the disks: metrics, and their part of a node's status.

use serde::{Deserialize, Serialize};
use shared::metrics::Registry;

use super::Under;
use crate::io::disk::{Start, Stats};
use crate::io::telemetry::{
    DISK_ERRORS, DISK_READ_BYTES, DISK_READS, DISK_READY, DISK_RECOVERY, DISK_WRITTEN, EVICTIONS,
    STORE_BYTES, STORE_OBJECTS,
};

/// A disk, in `GET /v1/status`.
#[derive(Debug, Serialize, Deserialize)]
pub struct DiskStatus {
    /// The file or device.
    pub path: String,
    /// `recovering`, `ready`, `read-only`, `stalled`, `isolated` or `closed`.
    pub state: String,
    /// How it has become ready: `copy` of the index, `segments` read after a crash, or `empty` and why. None: it has not.
    pub start: Option<String>,
    /// How long that took, in seconds.
    pub recovery_seconds: Option<f64>,
    /// Bytes of it that are used.
    pub size: u64,
    /// Bytes of records that can be found.
    pub bytes: u64,
    /// Records that can be found: objects, segments of bodies, and the variants of keys.
    pub objects: u64,
    /// Memory that its index takes.
    pub index_bytes: u64,
    /// Bytes written since start.
    pub written: u64,
    /// Records read since start.
    pub reads: u64,
    /// Of these, reads that gave what was asked for.
    pub hits: u64,
    /// Reads that took too long.
    pub timeouts: u64,
    /// Errors of the device.
    pub errors: u64,
    /// Records whose bytes were not those that were written: misses.
    pub checksum_failures: u64,
    /// Records that were not written: too much waited, or the disk could not take them.
    pub not_taken: u64,
    /// Records that made room for others.
    pub evictions: u64,
}

impl From<Stats> for DiskStatus {
    fn from(stats: Stats) -> Self {
        let start = stats.start.map(|(start, _)| match start {
            Start::Copy => "copy".to_owned(),
            Start::Segments => "segments".to_owned(),
            Start::Damaged => "empty: damaged".to_owned(),
            Start::Empty(why) => format!("empty: {}", format!("{why:?}").to_lowercase()),
        });
        Self {
            written: stats.written(),
            path: stats.path.display().to_string(),
            state: stats.state.name().to_owned(),
            start,
            recovery_seconds: stats.start.map(|(_, took)| took.as_secs_f64()),
            size: stats.size,
            bytes: stats.live_bytes,
            objects: stats.objects,
            index_bytes: stats.index_bytes,
            reads: stats.reads,
            hits: stats.hits,
            timeouts: stats.timeouts,
            errors: stats.read_errors + stats.write_errors,
            checksum_failures: stats.checksum_failures,
            not_taken: stats.not_taken,
            evictions: stats.evicted,
        }
    }
}

impl Under {
    /// Its disks, in the order of the configuration.
    pub fn status(&self) -> Vec<DiskStatus> {
        self.disks.stats().into_iter().map(DiskStatus::from).collect()
    }

    /// Whether one of them is still finding out what it holds.
    pub fn is_recovering(&self) -> bool {
        self.disks.is_recovering()
    }

    /// Takes over what the disks have counted, for a scrape.
    pub fn collect(&self, registry: &Registry) {
        let stats = self.disks.stats();
        let sum = |of: fn(&Stats) -> u64| stats.iter().map(of).sum::<u64>();
        registry.gauge(&STORE_BYTES, &["disk"]).set(sum(|disk| disk.live_bytes) as f64);
        registry.gauge(&STORE_OBJECTS, &["disk"]).set(sum(|disk| disk.objects) as f64);
        let count = |family, labels: &[&str], now: u64| {
            let counter = registry.counter(family, labels);
            counter.add(now.saturating_sub(counter.get()));
        };
        count(&EVICTIONS, &["disk"], sum(|disk| disk.evicted));
        for (number, disk) in stats.iter().enumerate() {
            let number = number.to_string();
            count(&DISK_READ_BYTES, &[&number], disk.read_bytes);
            for (result, now) in
                [("hit", disk.hits), ("miss", disk.misses), ("timeout", disk.timeouts)]
            {
                count(&DISK_READS, &[&number, result], now);
            }
            for (reason, now) in [
                ("new", disk.written_new),
                ("moved", disk.written_moved),
                ("head", disk.written_updates),
                ("removed", disk.written_tombstones),
                ("index", disk.written_footers),
            ] {
                count(&DISK_WRITTEN, &[&number, reason], now);
            }
            for (kind, now) in [
                ("read", disk.read_errors),
                ("write", disk.write_errors),
                ("checksum", disk.checksum_failures),
                ("not_taken", disk.not_taken),
            ] {
                count(&DISK_ERRORS, &[&number, kind], now);
            }
            let is_ready = matches!(disk.state.name(), "ready" | "read-only");
            registry.gauge(&DISK_READY, &[&number]).set(f64::from(u8::from(is_ready)));
            if let Some((_, took)) = disk.start {
                registry.gauge(&DISK_RECOVERY, &[&number]).set(took.as_secs_f64());
            }
        }
    }
}
