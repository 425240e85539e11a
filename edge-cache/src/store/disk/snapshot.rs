//! The index's copy that a clean stop leaves: a directory, then the entries of each shard in their order. It is taken as a
//! whole or not at all, by the start that follows and no other one.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::geometry::Geometry;
use super::index::{Entry, Table};

const MAGIC: u64 = 0x5041_4e53_4b53_4944;
/// Bytes of an entry.
pub const ENTRY: usize = 16;
const FIXED: usize = 48;

/// What a copy holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    /// Of which disk.
    pub uuid: u128,
    /// In which run it was made.
    pub run: u64,
    /// Of each segment: which use of it, and how many units of it are alive.
    pub segments: Vec<(u64, u32)>,
    /// Of each shard: how many entries, and the checksum over them.
    pub shards: Vec<(u32, u32)>,
}

/// Bytes of a directory with so many segments and shards.
pub const fn directory_bytes(segments: usize, shards: usize) -> usize {
    FIXED + segments * 12 + shards * 8 + 8
}

impl Directory {
    /// Its bytes.
    pub fn encode(&self, salt: u64) -> Vec<u8> {
        let length = directory_bytes(self.segments.len(), self.shards.len());
        let mut out = Vec::with_capacity(length);
        out.extend_from_slice(&MAGIC.to_le_bytes());
        out.extend_from_slice(&self.uuid.to_le_bytes());
        out.extend_from_slice(&self.run.to_le_bytes());
        out.extend_from_slice(&(self.segments.len() as u64).to_le_bytes());
        out.extend_from_slice(&(self.shards.len() as u64).to_le_bytes());
        for (sequence, live) in &self.segments {
            out.extend_from_slice(&sequence.to_le_bytes());
            out.extend_from_slice(&live.to_le_bytes());
        }
        for (count, sum) in &self.shards {
            out.extend_from_slice(&count.to_le_bytes());
            out.extend_from_slice(&sum.to_le_bytes());
        }
        let check = xxh3_64_with_seed(&out, salt);
        out.extend_from_slice(&check.to_le_bytes());
        out
    }

    /// How many bytes a directory of this disk has, if `bytes` begin one of it: not to be believed before it is decoded.
    pub fn announced(bytes: &[u8], geometry: &Geometry) -> Option<usize> {
        let number = |at| bytes.get(at..at + 8)?.first_chunk::<8>().map(|b| u64::from_le_bytes(*b));
        let (segments, shards) = (number(32)?, number(40)?);
        let fits = segments == u64::from(geometry.segments) && (1..=1 << 16).contains(&shards);
        let length = directory_bytes(segments as usize, shards as usize);
        (number(0)? == MAGIC && fits && length as u64 <= geometry.snapshot).then_some(length)
    }

    /// The directory that these bytes are.
    pub fn decode(bytes: &[u8], geometry: &Geometry, salt: u64) -> Option<Self> {
        if Self::announced(bytes, geometry)? != bytes.len() {
            return None;
        }
        let (body, check) = bytes.split_last_chunk::<8>()?;
        if xxh3_64_with_seed(body, salt) != u64::from_le_bytes(*check) {
            return None;
        }
        let uuid = u128::from_le_bytes(*body.get(8..24)?.first_chunk()?);
        let run = u64::from_le_bytes(*body.get(24..32)?.first_chunk()?);
        let (segments, shards) =
            body.get(FIXED..)?.split_at_checked(geometry.segments as usize * 12)?;
        let segment = |bytes: &[u8]| {
            let (sequence, live) = bytes.split_first_chunk::<8>()?;
            Some((u64::from_le_bytes(*sequence), u32::from_le_bytes(*live.first_chunk()?)))
        };
        let shard = |bytes: &[u8]| {
            let (count, sum) = bytes.split_first_chunk::<4>()?;
            Some((u32::from_le_bytes(*count), u32::from_le_bytes(*sum.first_chunk()?)))
        };
        Some(Self {
            uuid,
            run,
            segments: segments.chunks_exact(12).map(segment).collect::<Option<_>>()?,
            shards: shards.chunks_exact(8).map(shard).collect::<Option<_>>()?,
        })
    }
}

/// Appends the entries of a shard; their count and checksum.
pub fn encode_shard(shard: &Table<(u64, Entry)>, out: &mut Vec<u8>) -> (u32, u32) {
    let start = out.len();
    for (hash, entry) in shard.iter() {
        out.extend_from_slice(&hash.to_le_bytes());
        out.extend_from_slice(&entry.bits().to_le_bytes());
    }
    (shard.len() as u32, crc32c::crc32c(out.get(start..).unwrap_or_default()))
}

/// A shard of these bytes: `belongs` says of a hash whether it is this shard's. None: they are not what was written.
pub fn decode_shard(
    bytes: &[u8],
    sum: u32,
    geometry: &Geometry,
    belongs: impl Fn(u64) -> bool,
) -> Option<Table<(u64, Entry)>> {
    if crc32c::crc32c(bytes) != sum {
        return None;
    }
    let slot = |bytes: &[u8]| {
        let (hash, bits) = bytes.split_first_chunk::<8>()?;
        let entry = Entry::from_bits(u64::from_le_bytes(*bits.first_chunk()?));
        Some((u64::from_le_bytes(*hash), entry))
    };
    let slots = || bytes.chunks_exact(ENTRY).filter_map(slot);
    let mut last = 0;
    let sound = slots().all(|(hash, entry)| {
        let rises = hash > last && belongs(hash);
        last = hash;
        rises && geometry.offset(entry.location()).is_some()
    });
    sound.then(|| Table::from_ordered(slots(), bytes.len() / ENTRY))
}
