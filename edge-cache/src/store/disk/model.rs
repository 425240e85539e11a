//! A disk without bytes: the same decisions about the same records, for simulations and for predictions of what another size
//! would serve.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::admission::Admission;
use super::format::{Role, units};
use super::geometry::{Geometry, UNIT};
use super::index::{self, Index, Location};
use super::log::{Draft, Entry, Log, Refused, Stream, Usage};
use super::reclaim::{self, Fate};

/// What has been written, in bytes with all that belongs to a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Of new records.
    pub new: u64,
    /// Of records that have moved.
    pub moved: u64,
}

/// A disk that only knows what it would hold.
#[derive(Debug)]
pub struct Model {
    index: Index,
    log: Log,
    admission: Admission,
    sealed: HashMap<u32, Vec<Entry>>,
    sequence: u64,
    written: Written,
}

impl Model {
    /// A disk of these dimensions, on which `daily` bytes may be written in a day.
    pub fn new(geometry: Geometry, daily: u64) -> Self {
        let usage = Arc::new(Usage::new(&geometry));
        Self {
            index: Index::new(geometry.size / (16 << 10)),
            log: Log::new(geometry, usage, 0),
            admission: Admission::new(geometry.size, daily),
            sealed: HashMap::new(),
            sequence: 0,
            written: Written::default(),
        }
    }

    /// Whether it holds this; a hit counts for it. `hash` is not 0.
    pub fn get(&mut self, hash: u64) -> bool {
        self.index.change(hash, index::Entry::touched).is_some()
    }

    /// Whether it holds this.
    pub fn contains(&self, hash: u64) -> bool {
        self.index.get(hash).is_some()
    }

    /// Whether it would take something of so many bytes now. `now` counts from anywhere.
    pub fn wanted(&mut self, hash: u64, bytes: u64, now: Duration) -> bool {
        self.admission.wanted(hash, bytes, now)
    }

    /// Writes an object of a head and a body of so many bytes. `false`: it is larger than a segment.
    pub fn write(&mut self, hash: u64, meta: usize, body: usize) -> bool {
        reclaim::remove(hash, &self.index, self.log.usage());
        self.sequence += 1;
        let units = units(meta, body);
        let draft = Draft {
            hash,
            sequence: self.sequence,
            epoch: None,
            units,
            role: Role::Content,
            flags: 0,
        };
        loop {
            match self.place(Stream::New, &draft) {
                Ok(at) => {
                    self.index.insert(hash, reclaim::first_entry(at));
                    self.log.usage().add(at);
                    break;
                }
                Err(Refused::TooLarge) => return false,
                Err(Refused::Full) => {
                    if !self.reclaim() {
                        return false;
                    }
                }
            }
        }
        self.written.new += u64::from(units) * UNIT;
        self.admission.spend(u64::from(units) * UNIT);
        while self.log.is_tight() && self.reclaim() {}
        true
    }

    /// Forgets an object.
    pub fn remove(&mut self, hash: u64) {
        reclaim::remove(hash, &self.index, self.log.usage());
    }

    /// What has been written so far.
    pub const fn written(&self) -> Written {
        self.written
    }

    /// How many objects it holds, and how many bytes they take.
    pub fn holds(&self) -> (u64, u64) {
        (self.index.len() as u64, self.log.usage().total() * UNIT)
    }

    fn place(&mut self, stream: Stream, draft: &Draft) -> Result<Location, Refused> {
        let placed = self.log.place(stream, draft)?;
        if let Some(sealed) = placed.sealed {
            self.sealed.insert(sealed.segment, sealed.entries);
        }
        Ok(placed.at)
    }

    fn reclaim(&mut self) -> bool {
        let Some((segment, why)) = reclaim::choose(&self.log) else { return false };
        let entries = self.sealed.remove(&segment).unwrap_or_default();
        let units = self.log.geometry().units();
        let wanted = reclaim::is_wanted(&entries, segment, why, &self.index, units);
        if wanted && self.log.spare(segment) {
            reclaim::halve_hits(&entries, segment, &self.index);
            self.sealed.insert(segment, entries);
            return true;
        }
        let keep = reclaim::plan(&entries, segment, why, &self.index, units);
        let (own, oldest) = (self.log.usage().sequence(segment), self.log.oldest_but(segment));
        for (entry, keep) in entries.iter().zip(keep) {
            let at = entry.at(segment);
            let usage = Arc::clone(self.log.usage());
            let fate = reclaim::fate(entry, at, keep, &self.index, own, oldest);
            let hits = self.index.get(entry.hash).map_or(0, index::Entry::hits);
            let mut lost = matches!(fate, Fate::Evict { .. });
            if fate == Fate::Move {
                let draft = Draft {
                    hash: entry.hash,
                    sequence: entry.sequence,
                    epoch: Some(entry.epoch),
                    units: entry.units,
                    role: entry.role,
                    flags: entry.flags,
                };
                match self.place(Stream::Moved, &draft) {
                    Ok(to) => {
                        usage.subtract(at);
                        usage.add(to);
                        self.index.insert(entry.hash, index::Entry::new(to).with_hits(hits / 2));
                        self.written.moved += u64::from(entry.units) * UNIT;
                        self.admission.spend(u64::from(entry.units) * UNIT);
                    }
                    Err(_) => lost = true,
                }
            }
            if lost {
                reclaim::evict(entry.hash, at, &self.index, &usage);
            }
        }
        self.log.release(segment);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u64) -> u64 {
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// What is asked for again and again outlives a stream of what is asked for once, at half the writes that admitting
    /// everything costs.
    #[test]
    fn what_is_asked_for_stays() {
        let geometry = Geometry::new(64 << 20).unwrap();
        let mut model = Model::new(geometry, 12 << 30);
        let (mut hits, mut asked, mut n) = (0, 0, 10_000);
        for round in 0..400u64 {
            let now = Duration::from_secs(round * 10);
            for key in 1..=100 {
                asked += 1;
                if model.get(hash(key)) {
                    hits += 1;
                } else if model.wanted(hash(key), 100_000, now) {
                    assert!(model.write(hash(key), 300, 100_000));
                }
            }
            for _ in 0..100 {
                n += 1;
                if model.wanted(hash(n), 100_000, now) {
                    model.write(hash(n), 300, 100_000);
                }
            }
        }
        assert!(hits * 100 > asked * 95, "{hits} of {asked}");
        let (objects, bytes) = model.holds();
        assert!(objects > 400 && bytes < 64 << 20, "{objects} objects, {bytes} bytes");
        let Written { new, moved } = model.written();
        assert!(new + moved < 3_000_000_000 && moved > 0, "{new} and {moved}");
        assert!(!model.write(hash(1), 300, 2 << 20), "larger than a segment");
        model.remove(hash(2));
        assert!(!model.contains(hash(2)));
    }
}
