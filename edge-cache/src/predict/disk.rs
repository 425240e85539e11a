//! The disk of a simulated node: [`crate::store::disk::model`], for objects of any size, which can become smaller.

use std::collections::HashMap;
use std::time::Duration;

use super::memory::place;
use super::sim::DiskSetup;
use crate::store::disk::geometry::Geometry;
use crate::store::disk::model::{self, Model};

/// A node's disk has so many segments.
const SEGMENTS: u64 = 128;
/// The segments of a disk that is simulated may be as small as this.
const SMALLEST: u32 = 64 << 10;
/// Bytes of a record that are no body's.
const META: usize = 600;

/// The disk.
#[derive(Debug)]
pub(super) struct Disk {
    model: Model,
    segment: u64,
    /// What was written before the disk was made anew.
    written: u64,
    /// What has been written to it; some of it may have gone.
    known: HashMap<u64, Written>,
}

/// A record that has been written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    /// The object that it is of.
    pub(super) of: u64,
    /// Bytes of its body.
    pub(super) size: u64,
    /// By the clock of the one who asks.
    pub(super) fetched: u32,
}

impl Disk {
    /// An empty one. None: so small a disk holds nothing.
    pub(super) fn new(setup: &DiskSetup) -> Option<Self> {
        let share = u32::try_from(setup.size / SEGMENTS).unwrap_or(u32::MAX);
        let segment = 1u32 << share.clamp(SMALLEST, 64 << 20).ilog2();
        Self::with(Geometry::with_segment(setup.size, segment)?, setup.daily_writes)
    }

    /// An empty one that is divided as a node divides its own. None: it is too small for that.
    pub(super) fn of_node(setup: &DiskSetup) -> Option<Self> {
        Self::with(Geometry::new(setup.size)?, setup.daily_writes)
    }

    fn with(geometry: Geometry, daily_writes: u64) -> Option<Self> {
        let segment = u64::from(geometry.segment);
        let model = Model::new(geometry, daily_writes);
        Some(Self { model, segment, written: 0, known: HashMap::new() })
    }

    /// When a record that it has was fetched. It counts as a request for it.
    pub(super) fn get(&mut self, key: u64) -> Option<u32> {
        let Written { size, fetched, .. } = *self.known.get(&key)?;
        let pieces = self.pieces(size);
        // All of them: a request counts for each.
        let there = (0..pieces).filter(|piece| self.model.get(hash(key, *piece))).count();
        let has = there as u64 == pieces;
        has.then_some(fetched)
    }

    /// An object that it may have was fetched anew: its head is another, its body is what it was.
    pub(super) fn renew(&mut self, key: u64, fetched: u32) {
        if let Some(written) = self.known.get_mut(&key) {
            written.fetched = fetched;
        }
    }

    /// Offers a record of an object. Whether the disk has it now.
    pub(super) fn offer(&mut self, key: u64, written: Written, now: Duration) -> bool {
        self.model.wanted(hash(key, 0), written.size, now) && self.write(key, written)
    }

    fn write(&mut self, key: u64, written: Written) -> bool {
        let size = written.size;
        let pieces = self.pieces(size);
        let each = usize::try_from(size / pieces).unwrap_or(usize::MAX);
        let all = (0..pieces).all(|piece| self.model.write(hash(key, piece), META, each));
        if all {
            self.known.insert(key, written);
            if self.known.len() as u64 > 2 * self.model.holds().0 + 1024 {
                let model = &self.model;
                self.known.retain(|key, _| model.contains(hash(*key, 0)));
            }
        }
        all
    }

    /// A record is no longer than an eighth of a segment here: larger objects are several, as a node's larger bodies are. So
    /// no more of a small segment is left empty at its end than of a node's.
    fn pieces(&self, size: u64) -> u64 {
        size.div_ceil(self.segment / 8).max(1)
    }

    /// Objects, or pieces of them.
    pub(super) fn objects(&self) -> u64 {
        self.model.holds().0
    }

    /// Bytes of what it holds.
    pub(super) fn holds(&self) -> u64 {
        self.model.holds().1
    }

    /// Bytes that have been written to it.
    pub(super) const fn written(&self) -> u64 {
        let written = self.model.written();
        self.written + written.new + written.moved
    }

    /// The same, apart: new records and moved ones. Without what was written before it was made anew.
    pub(super) const fn written_new_and_moved(&self) -> model::Written {
        self.model.written()
    }

    /// Another disk with what is kept of this one. None: so small a disk holds nothing.
    pub(super) fn thinned(&self, setup: &DiskSetup, keep: impl Fn(u64) -> bool) -> Option<Self> {
        let mut thin = Self::new(setup)?;
        let mut kept: Vec<(u64, Written)> =
            self.known.iter().map(|(key, written)| (*key, *written)).collect();
        kept.retain(|(key, written)| keep(written.of) && self.model.contains(hash(*key, 0)));
        kept.sort_unstable_by_key(|(key, _)| *key);
        for (key, written) in kept {
            thin.write(key, written);
        }
        // That was no traffic.
        thin.written = self.written().saturating_sub(thin.written());
        Some(thin)
    }
}

/// Where a piece of a record lies: no place on disk is 0.
const fn hash(key: u64, piece: u64) -> u64 {
    place(key, piece) | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn disk(size: u64) -> Disk {
        Disk::new(&DiskSetup { size, daily_writes: 1 << 40 }).unwrap()
    }

    fn offer(disk: &mut Disk, key: u64, size: u64) -> bool {
        disk.offer(key, Written { of: key, size, fetched: 7 }, Duration::from_secs(1))
    }

    #[test]
    fn objects_of_any_size_lie_on_it_within_its_size() {
        let mut disk = disk(16 * MIB);
        assert_eq!(disk.get(1), None);
        assert!(offer(&mut disk, 1, 100));
        assert_eq!(disk.get(1), Some(7));
        disk.renew(1, 9);
        assert_eq!(disk.get(1), Some(9));
        assert!(offer(&mut disk, 2, 5 * MIB), "longer than a segment");
        assert_eq!(disk.get(2), Some(7));
        for key in 10..3000 {
            let written = offer(&mut disk, key, 20_000) || offer(&mut disk, key, 20_000);
            assert!(written, "a second time");
        }
        assert!(disk.holds() <= 16 * MIB && disk.holds() > 8 * MIB, "{}", disk.holds());
        assert!(disk.written() > 50 * MIB);
        assert_eq!(disk.get(2), None);
        assert!(disk.known.len() as u64 <= 2 * disk.objects() + 1025);
    }

    #[test]
    fn half_a_disk_keeps_half_of_the_keys() {
        let mut whole = disk(16 * MIB);
        (0..400).for_each(|key| assert!(offer(&mut whole, key, 10_000)));
        let setup = DiskSetup { size: 8 * MIB, daily_writes: 1 << 40 };
        let mut half = whole.thinned(&setup, |key| key < 200).unwrap();
        assert!((0..200).all(|key| half.get(key) == Some(7)));
        assert!(!(200..400).any(|key| half.get(key).is_some()));
        assert_eq!(half.written(), whole.written());
        assert!(Disk::new(&DiskSetup { size: 1000, daily_writes: 1 }).is_none());
    }
}
