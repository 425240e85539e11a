//! The writer's work on a segment that is to be used again: a part of it between two batches of new records.

use std::sync::Arc;

use bytes::Bytes;

use super::recover::entries_of;
use super::writer::{Draw, Writer};
use crate::store::disk::format::{self, Role};
use crate::store::disk::geometry::UNIT;
use crate::store::disk::index::Location;
use crate::store::disk::log::{Entry, Stream};
use crate::store::disk::reclaim::{self, Fate};
use crate::store::disk::update_hash;

/// Bytes that are moved at once.
const STEP: u64 = 1 << 20;

/// A segment that is being reclaimed.
#[derive(Debug)]
pub(super) struct Reclaim {
    segment: u32,
    entries: Vec<Entry>,
    keep: Vec<bool>,
    next: usize,
}

impl Writer {
    /// A part of the work. `false`: there is none that can be done.
    pub(super) fn reclaim_some(&mut self) -> bool {
        let engine = Arc::clone(&self.engine);
        let mut reclaim = match self.reclaim.take() {
            Some(reclaim) => reclaim,
            None => {
                let Some((segment, why)) = reclaim::choose(&self.log) else { return false };
                let sequence = engine.usage.sequence(segment);
                // One whose records cannot be read any more holds nothing of use; what the index says of it goes below.
                let entries = entries_of(&engine, segment, sequence).unwrap_or_default();
                let units = engine.geometry.units();
                let wanted = reclaim::is_wanted(&entries, segment, why, &engine.index, units);
                if wanted && self.log.spare(segment) {
                    reclaim::halve_hits(&entries, segment, &engine.index);
                    return true;
                }
                let keep = reclaim::plan(&entries, segment, why, &engine.index, units);
                Reclaim { segment, entries, keep, next: 0 }
            }
        };
        let oldest = self.log.oldest_but(reclaim.segment);
        let mut moved = 0;
        while moved < STEP
            && let Some(entry) = reclaim.entries.get(reclaim.next).copied()
        {
            let keep = reclaim.keep.get(reclaim.next).copied().unwrap_or(false);
            reclaim.next += 1;
            moved += self.settle(&entry, reclaim.segment, keep, oldest);
        }
        if self.is_paused() {
            return self.begin_again(reclaim);
        }
        if reclaim.next < reclaim.entries.len() {
            self.reclaim = Some(reclaim);
            return true;
        }
        self.finish(reclaim)
    }

    /// What becomes of one record; the bytes that were written for it.
    fn settle(&mut self, entry: &Entry, segment: u32, keep: bool, oldest: u64) -> u64 {
        let engine = Arc::clone(&self.engine);
        let at = entry.at(segment);
        let own = engine.usage.sequence(segment);
        match reclaim::fate(entry, at, keep, &engine.index, own, oldest) {
            Fate::Nothing => 0,
            Fate::Bury => {
                // What an update belongs to may have been written after its time.
                let (hash, epoch) = match entry.role {
                    Role::Update => (update_hash(entry.hash), None),
                    _ => (entry.hash, Some(entry.epoch)),
                };
                self.bury(hash, at, entry.sequence, epoch)
            }
            Fate::Move => match self.transfer(entry, at) {
                Some(units) => u64::from(units) * UNIT,
                None => {
                    self.evict(entry, at, entry.flags != 0);
                    0
                }
            },
            Fate::Evict { bury } => {
                self.evict(entry, at, bury);
                0
            }
        }
    }

    fn evict(&mut self, entry: &Entry, at: Location, bury: bool) {
        let engine = Arc::clone(&self.engine);
        match entry.role {
            // Without its later head an object is not to be used.
            Role::Update => {
                let content = engine.index.get(update_hash(entry.hash));
                if reclaim::evict(entry.hash, at, &engine.index, &engine.usage)
                    && let Some(content) = content.filter(|content| content.is_updated())
                {
                    reclaim::remove(update_hash(entry.hash), &engine.index, &engine.usage);
                    self.bury(update_hash(entry.hash), content.location(), entry.sequence, None);
                }
            }
            Role::Content if reclaim::evict(entry.hash, at, &engine.index, &engine.usage) => {
                engine.counters.evicted.add(1);
                if bury {
                    self.bury(entry.hash, at, entry.sequence, Some(entry.epoch));
                }
            }
            Role::Content | Role::Tombstone => {}
        }
    }

    /// A tombstone for the place of the record that lies there; the bytes that were written for it.
    fn bury(&mut self, hash: u64, at: Location, sequence: u64, epoch: Option<u64>) -> u64 {
        let Some((record, _)) = self.load(at) else { return 0 };
        let draw = Draw::tombstone(record.place, hash, sequence, epoch);
        let Ok(at) = self.append(Stream::Moved, &draw) else { return 0 };
        let bytes = u64::from(at.units) * UNIT;
        self.engine.counters.written_tombstones.add(bytes);
        bytes
    }

    /// Writes a record again. None: it cannot be read, or has no place.
    fn transfer(&mut self, entry: &Entry, at: Location) -> Option<u32> {
        let engine = Arc::clone(&self.engine);
        let (record, bytes) = self.load(at)?;
        let (mut meta, mut sequence) = (bytes.slice(record.meta_range()), record.sequence);
        let body = [bytes.slice(record.body_range())];
        let is_updated = engine.index.get(entry.hash).is_some_and(|entry| entry.is_updated());
        let mut folded = false;
        if entry.role == Role::Content && is_updated {
            // Its later head is its own from now on.
            let update = engine.index.get(update_hash(entry.hash))?;
            let (later, bytes) = self.load(update.location())?;
            if later.place != record.place || later.role != Role::Update {
                return None;
            }
            if later.is_update_of(&record) {
                (meta, sequence) = (bytes.slice(later.meta_range()), later.sequence);
            }
            folded = true;
        }
        let draw = Draw {
            place: record.place,
            role: record.role,
            kind: record.kind,
            flags: record.flags,
            hash: entry.hash,
            sequence,
            epoch: Some(record.epoch),
            meta: &meta,
            body: &body,
        };
        let to = self.append(Stream::Moved, &draw).ok()?;
        let bytes = u64::from(to.units) * UNIT;
        engine.spend(bytes);
        if record.role == Role::Tombstone {
            engine.counters.written_tombstones.add(bytes);
        } else {
            engine.counters.written_moved.add(bytes);
            self.moved_later(&draw, to, at, folded);
        }
        Some(to.units)
    }

    /// A record, verified.
    fn load(&self, at: Location) -> Option<(format::Record, Bytes)> {
        let engine = &self.engine;
        let mut bytes = vec![0; at.units as usize * UNIT as usize];
        if engine.device.read(&mut bytes, engine.geometry.offset(at)?).is_err() {
            engine.counters.read_errors.add(1);
            engine.failed();
            return None;
        }
        let record = format::Record::verify(&bytes, at, engine.salt)
            .filter(|record| record.segment_sequence == engine.usage.sequence(at.segment))
            .filter(|record| record.units() == at.units && record.is_body_intact(&bytes));
        if record.is_none() {
            engine.counters.checksum_failures.add(1);
        }
        Some((record?, Bytes::from(bytes)))
    }

    /// What has moved is on the disk before the segment says that it is empty, and that is before it is used again.
    fn finish(&mut self, reclaim: Reclaim) -> bool {
        if self.sync().is_err() {
            return self.begin_again(reclaim);
        }
        let engine = Arc::clone(&self.engine);
        let geometry = engine.geometry;
        let erase = || {
            let end = geometry.start(reclaim.segment + 1);
            engine.device.write(&[0; format::TRAILER], end - format::TRAILER as u64)?;
            let erased = format::encode_header(0, reclaim.segment, engine.salt);
            engine.device.write(&erased, geometry.start(reclaim.segment))?;
            engine.device.sync()
        };
        if let Err(error) = erase() {
            self.write_failed(&error);
            return self.begin_again(reclaim);
        }
        // Entries that its footer did not name: it could not be read.
        if engine.usage.live(reclaim.segment) > 0 {
            self.forget_segment(reclaim.segment);
        }
        self.log.release(reclaim.segment);
        engine.counters.reclaimed.add(1);
        true
    }

    fn forget_segment(&self, segment: u32) {
        let engine = &self.engine;
        let mut lost = Vec::new();
        for shard in engine.index.each() {
            let here = shard.iter().filter(|(_, entry)| entry.location().segment == segment);
            lost.extend(here.map(|(hash, entry)| (*hash, entry.location())));
        }
        for (hash, at) in lost {
            reclaim::evict(hash, at, &engine.index, &engine.usage);
        }
    }

    /// Something was not written: perhaps what had moved. What has is not moved again.
    fn begin_again(&mut self, reclaim: Reclaim) -> bool {
        self.reclaim = Some(Reclaim { next: 0, ..reclaim });
        false
    }
}
