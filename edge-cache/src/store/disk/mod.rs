//! The disk tier's decisions, without a disk: what bytes mean ([`mod@format`]), what lies where ([`index`]), where the next
//! record goes ([`log`]), which records are worth writing ([`admission`]) or moving on when their segment is needed again
//! ([`reclaim`]), what a crash has left ([`recovery`]). `io::disk` does what is decided here; [`model`] does it
//! without bytes, for simulations and predictions.
//!
//! A disk is a log of segments. A record is written once, into the open segment, and never changed. When no segment is
//! free the oldest is taken: its records that were asked for since they were written move to another open segment, the
//! others are lost. What is removed while it lies on the disk gets a *tombstone*, a record of its own, lest it is found again
//! after a crash.
//!
//! Each record has a *sequence number*, given when its content was handed over and kept when it moves: of two records of a
//! place the higher one counts, whatever segments they lie in. The upper bits of it are the *run*, which every start
//! raises: numbers never repeat. Segments have such a number, too, and each record names its segment's: what an earlier use of
//! the segment has left there is nobody's.

pub mod admission;
pub mod format;
pub mod geometry;
pub mod index;
pub mod log;
pub mod model;
pub mod reclaim;
pub mod recovery;
pub mod snapshot;

pub use geometry::Geometry;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::object::ObjectKey;

/// What a record holds, for those who store it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// An object: its head, and its body if that lies with it.
    Object = 1,
    /// A segment of an object's body.
    Segment = 2,
    /// The Vary lists of a key.
    Vary = 3,
}

impl Kind {
    /// The inverse of `as u8`.
    pub const fn from_u8(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Object),
            2 => Some(Self::Segment),
            3 => Some(Self::Vary),
            _ => None,
        }
    }
}

/// Bits of a sequence number below the run.
const RUN_SHIFT: u32 = 40;

/// The first sequence number of a run. 2^40 numbers a run, 2^24 runs.
pub const fn first_sequence(run: u64) -> u64 {
    run << RUN_SHIFT
}

/// What a place is called in the index of a disk: 64 bits, keyed with the disk's secret, so that nobody can choose keys
/// that meet there. Never 0.
pub fn place_hash(place: ObjectKey, salt: u64) -> u64 {
    xxh3_64_with_seed(&place_bytes(place), salt).max(1)
}

fn place_bytes(place: ObjectKey) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(&place.key.to_le_bytes());
    bytes[16..].copy_from_slice(&place.variant.0.to_le_bytes());
    bytes
}

/// The name of a place's later head, a record of its own, where the place's is `hash`; and the other way round.
pub const fn update_hash(hash: u64) -> u64 {
    let other = hash ^ 0xa5e1_96b3_70d2_4c8f;
    if other == 0 { 1 } else { other }
}

/// Which of these disks a place belongs to: weighted by their sizes, and the same for all places of the others when one
/// is added or lost (rendezvous).
pub fn choose(place: ObjectKey, disks: impl Iterator<Item = (usize, u128, u64)>) -> Option<usize> {
    let bytes = place_bytes(place);
    let mut best: Option<(f64, usize)> = None;
    for (index, uuid, size) in disks {
        let seed = (uuid as u64) ^ (uuid >> 64) as u64;
        // In (0, 1): -weight / ln(draw) is largest for each disk as often as its weight says.
        let draw = (xxh3_64_with_seed(&bytes, seed) >> 11) as f64 + 0.5;
        let score = -(size as f64) / (draw / (1u64 << 53) as f64).ln();
        if best.is_none_or(|(other, _)| score > other) {
            best = Some((score, index));
        }
    }
    best.map(|(_, index)| index)
}
