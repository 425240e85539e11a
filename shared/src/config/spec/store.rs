//! How a cache node stores: the policy of its memory tier, and its disks.

use std::path::PathBuf;

use serde::Deserialize;

use crate::config::values::Size;

/// Memory that a client connection of a cache node takes, whatever it does: its task, buffers of heads, timers. Measured
/// by `cargo run --release -p benches --bin memory_limit`.
pub const CONNECTION_MEMORY: u64 = 21 << 10;

/// Which entries of the memory tier make room for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StorePolicy {
    /// Those of the least value go: how often they are asked for, by their age and a power of their size. The most hits
    /// per byte: an edge's default.
    SizeAware,
    /// Three FIFO queues; size counts for nothing. The most bytes: a parent's default.
    S3Fifo,
    /// W-TinyLFU as the crate moka has it.
    Moka,
    /// Those used longest ago go.
    Lru,
}

/// A disk of an edge.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskSpec {
    /// A folder, in which one file of that size is made; or a block device.
    pub path: PathBuf,
    /// How much of it is used, the index's copy included.
    pub size: Size,
    /// Bytes written to it in a day at most, on the average. None: three times `size`.
    pub daily_writes: Option<Size>,
    /// What becomes of a file of another version of the format, of another size, or with other key rules.
    #[serde(default)]
    pub mismatch: Mismatch,
}

/// What becomes of a store that this version, or this configuration, cannot read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mismatch {
    /// It is emptied.
    #[default]
    Rebuild,
    /// The node does not start, and says why.
    Refuse,
}
