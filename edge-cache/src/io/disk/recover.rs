//! What a disk holds, found out at the start: from the index's copy, or from the segments, by several threads; meanwhile all
//! lookups miss.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use super::engine::Engine;
use super::stats::{Start, State};
use super::{snapshot, writer::Writer};
use crate::store::disk::format::{self, Header, Record, Role, SEGMENT_HEADER, TRAILER};
use crate::store::disk::geometry::UNIT;
use crate::store::disk::index::Location;
use crate::store::disk::log::{Entry, Log};
use crate::store::disk::recovery::Merge;
use crate::store::disk::{first_sequence, place_hash, reclaim, update_hash};

/// More threads than this do not read a disk faster.
const THREADS: usize = 4;

/// What a segment holds.
enum Content {
    Nothing,
    Records {
        sequence: u64,
        entries: Vec<Entry>,
        /// It has a footer that says so.
        is_sealed: bool,
    },
    /// Not all of it can be told.
    Damaged,
}

/// Finds out what the disk holds, then writes it until it is closed.
pub(super) fn run(engine: &Arc<Engine>, was_clean: bool) {
    let began = Instant::now();
    let Ok(start) = recover(engine, was_clean) else {
        engine.counters.read_errors.add(1);
        engine.isolate();
        return;
    };
    let newest = first_sequence(engine.run);
    let log = Log::new(engine.geometry, Arc::clone(&engine.usage), newest);
    let queue = engine.queue.lock();
    // What was removed in the meantime.
    for hash in queue.pending() {
        reclaim::remove(hash, &engine.index, &engine.usage);
    }
    engine.started(start, began.elapsed());
    engine.set_state(State::Ready);
    drop(queue);
    Writer::new(Arc::clone(engine), log).run();
}

fn recover(engine: &Arc<Engine>, was_clean: bool) -> io::Result<Start> {
    if let Some(emptied) = engine.emptied {
        blank(engine)?;
        return Ok(Start::Empty(emptied));
    }
    if was_clean && snapshot::load(engine).is_some() {
        return Ok(Start::Copy);
    }
    if from_segments(engine)? {
        return Ok(Start::Segments);
    }
    for segment in 0..engine.geometry.segments {
        engine.usage.forget(segment);
    }
    blank(engine)?;
    Ok(Start::Damaged)
}

/// No segment holds anything.
fn blank(engine: &Engine) -> io::Result<()> {
    for segment in 0..engine.geometry.segments {
        let start = engine.geometry.start(segment);
        // What was never written is not written now.
        let mut header = [0; SEGMENT_HEADER];
        if engine.device.read(&mut header, start).is_err() || header != [0; SEGMENT_HEADER] {
            engine.device.write(&[0; SEGMENT_HEADER], start)?;
        }
    }
    engine.device.sync()
}

/// `false`: some of it is damaged in a way that leaves open what the rest is worth.
fn from_segments(engine: &Arc<Engine>) -> io::Result<bool> {
    let merge = Merge::new(&engine.index);
    let damaged = AtomicBool::new(false);
    in_threads(engine.geometry.segments as usize, &|segment| {
        let segment = segment as u32;
        if damaged.load(Ordering::Relaxed) {
            return;
        }
        match content_of(engine, segment) {
            Content::Nothing => {}
            Content::Damaged => damaged.store(true, Ordering::Relaxed),
            Content::Records { sequence, entries, is_sealed } => {
                engine.usage.set_sequence(segment, sequence);
                for entry in &entries {
                    merge.add(segment, entry);
                }
                if !is_sealed {
                    seal(engine, segment, sequence, &entries);
                }
            }
        }
    });
    if damaged.into_inner() {
        return Ok(false);
    }
    merge.finish(&engine.index, &engine.usage, in_threads);
    Ok(true)
}

/// Does something for each number below `count`, in several threads.
pub(super) fn in_threads(count: usize, work: &(dyn Fn(usize) + Sync)) {
    let next = AtomicUsize::new(0);
    let some = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            work(number);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS);
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(some);
        }
        some();
    });
}

/// The next start finds a footer. Without one it would look again.
fn seal(engine: &Engine, segment: u32, sequence: u64, entries: &[Entry]) {
    let footer = format::encode_footer(entries, sequence, engine.salt);
    let end = engine.geometry.start(segment + 1);
    if engine.device.write(&footer, end - footer.len() as u64).is_err() {
        engine.counters.write_errors.add(1);
    }
}

fn content_of(engine: &Engine, segment: u32) -> Content {
    let mut header = [0; SEGMENT_HEADER];
    if engine.device.read(&mut header, engine.geometry.start(segment)).is_err() {
        engine.counters.read_errors.add(1);
        return Content::Damaged;
    }
    match format::decode_header(&header, segment, engine.salt) {
        Header::Blank | Header::Erased => Content::Nothing,
        Header::Used(sequence) => match footer(engine, segment) {
            Some((sealed, entries)) if sealed == sequence => {
                Content::Records { sequence, entries, is_sealed: true }
            }
            _ => match scan(engine, segment, Some(sequence)) {
                Some(entries) => Content::Records { sequence, entries, is_sealed: false },
                None => Content::Damaged,
            },
        },
        // A segment that was erased has no footer.
        Header::Damaged => match footer(engine, segment) {
            Some((sequence, entries)) => Content::Records { sequence, entries, is_sealed: true },
            None => match scan(engine, segment, None) {
                Some(entries) if entries.is_empty() => Content::Nothing,
                _ => Content::Damaged,
            },
        },
    }
}

/// What lies in a segment whose use has this number.
pub(super) fn entries_of(engine: &Engine, segment: u32, sequence: u64) -> Option<Vec<Entry>> {
    match footer(engine, segment) {
        Some((sealed, entries)) if sealed == sequence => Some(entries),
        _ => scan(engine, segment, Some(sequence)),
    }
}

fn footer(engine: &Engine, segment: u32) -> Option<(u64, Vec<Entry>)> {
    let geometry = &engine.geometry;
    let end = geometry.start(segment + 1);
    let mut trailer = [0; TRAILER];
    engine.device.read(&mut trailer, end - TRAILER as u64).ok()?;
    let (count, _) = format::announced(&trailer, geometry)?;
    let length = format::footer_bytes(count);
    let mut bytes = vec![0; length];
    engine.device.read(&mut bytes, end - length as u64).ok()?;
    format::decode_footer(&bytes, geometry, engine.salt)
}

/// Record after record, up to where they end. None: it cannot be read, or one is missing that was once there. Without a
/// sequence number: whatever valid record lies anywhere.
fn scan(engine: &Engine, segment: u32, sequence: Option<u64>) -> Option<Vec<Entry>> {
    let mut bytes = vec![0; engine.geometry.segment as usize];
    engine.device.read(&mut bytes, engine.geometry.start(segment)).ok()?;
    let units = engine.geometry.units();
    let record = |unit: u32| {
        let at = Location { segment, unit, units: 1 };
        let bytes = bytes.get(unit as usize * UNIT as usize..)?;
        let record = Record::verify(bytes, at, engine.salt)?;
        let ours = sequence.is_none_or(|sequence| record.segment_sequence == sequence);
        let fits = unit.checked_add(record.units()).is_some_and(|end| end <= units);
        (ours && fits).then_some(record)
    };
    let mut entries = Vec::new();
    let first = (SEGMENT_HEADER as u64 / UNIT) as u32;
    let mut end = first;
    // Where the log ends, nothing of this use of the segment follows. Where something does, a loss of power has left a gap,
    // unless it is known that what was there had come to stay: then nobody knows whether it was a tombstone.
    for unit in first..units {
        if unit < end {
            continue;
        }
        let Some(record) = record(unit) else { continue };
        if unit > end && record.synced > end {
            return None;
        }
        let hash = place_hash(record.place, engine.salt);
        let hash = if record.role == Role::Update { update_hash(hash) } else { hash };
        entries.push(Entry {
            hash,
            sequence: record.sequence,
            epoch: record.epoch,
            unit,
            units: record.units(),
            role: record.role,
            flags: record.flags,
        });
        end = unit + record.units();
    }
    Some(entries)
}
