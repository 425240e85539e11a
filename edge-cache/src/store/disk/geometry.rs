//! How a disk of a given size is divided: superblocks, segments, room for the index's copy.

/// Records begin at multiples of this.
pub const UNIT: u64 = 128;
/// What one checksum of a body covers.
pub const BLOCK: usize = 64 << 10;
/// Where the first segment begins; superblocks lie before it.
pub const DATA_START: u64 = 64 << 10;
/// Where superblocks lie, and how long they are read.
pub const SUPERBLOCKS: [u64; 2] = [0, 32 << 10];
/// The smallest disk.
pub const MIN_SIZE: u64 = 16 << 20;

const MIB: u64 = 1 << 20;
/// Fewer and the room kept free for reclaiming would be a good part of the disk.
const SEGMENTS: u64 = 128;
/// An index entry takes 16 bytes: room for one per 2 KiB, and what a table leaves empty.
const SNAPSHOT_SHARE: u64 = 96;

/// How a disk is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of the file or device that are used.
    pub size: u64,
    /// Bytes of a segment, a power of two from 64 KiB to 64 MiB.
    pub segment: u32,
    /// How many segments there are.
    pub segments: u32,
    /// Bytes for the index's copy, behind the segments.
    pub snapshot: u64,
}

impl Geometry {
    /// Segments of a 128th of the disk, 1 to 64 MiB. None: the disk is smaller than [`MIN_SIZE`].
    pub fn new(size: u64) -> Option<Self> {
        let segment = (size / SEGMENTS).clamp(MIB, 64 * MIB);
        let segment = 1 << segment.ilog2();
        (size >= MIN_SIZE).then(|| Self::with_segment(size, segment)).flatten()
    }

    /// Segments of this many bytes. None: fewer than eight of them fit, or they are no power of two from 64 KiB to 64 MiB.
    pub fn with_segment(size: u64, segment: u32) -> Option<Self> {
        if !segment.is_power_of_two() || !(64 << 10..=64 << 20).contains(&segment) {
            return None;
        }
        let size = size - size % 4096;
        let snapshot = (size / SNAPSHOT_SHARE).next_multiple_of(4096) + (64 << 10);
        let data = size.checked_sub(DATA_START + snapshot)?;
        // Twenty bits of an index entry say which.
        let segments = u32::try_from(data / u64::from(segment)).ok()?.min(1 << 20);
        (segments >= 8).then_some(Self { size, segment, segments, snapshot })
    }

    /// Where a segment begins.
    pub const fn start(&self, segment: u32) -> u64 {
        DATA_START + segment as u64 * self.segment as u64
    }

    /// Where the index's copy begins.
    pub const fn snapshot_start(&self) -> u64 {
        self.size - self.snapshot
    }

    /// Units of a segment.
    pub const fn units(&self) -> u32 {
        self.segment / UNIT as u32
    }

    /// What an index entry's location is in bytes, if it lies in a segment.
    pub fn offset(&self, at: super::index::Location) -> Option<u64> {
        let end = u64::from(at.unit) + u64::from(at.units);
        let fits = at.segment < self.segments && end <= u64::from(self.units());
        fits.then(|| self.start(at.segment) + u64::from(at.unit) * UNIT)
    }
}
