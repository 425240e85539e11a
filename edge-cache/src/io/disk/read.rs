//! Records are read whole, or their heads and the blocks that a part lies in; and verified: the header by its checksum, the
//! place by comparing, each block of the body by its checksum. What is not what was written is dropped, counted, and a miss. A read that meets a segment being used again
//! notices.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::engine::{Engine, lock};
use super::stats::State;
use super::{Part, Record};
use crate::store::disk::format::{self, Role};
use crate::store::disk::geometry::{BLOCK, UNIT};
use crate::store::disk::index::{Entry, Location};
use crate::store::disk::update_hash;
use crate::store::object::ObjectKey;

/// Records of up to so many bytes are read on the caller's thread, if the kernel has them.
const INLINE: usize = 128 << 10;
/// What is read first where only a part is wanted: a page, which has the head of most records.
const FIRST: usize = 4096;
/// Reads that wait for a thread.
const WAITING: usize = 256;
/// Threads of a disk.
pub(super) const THREADS: usize = 4;
/// A read that takes longer is a miss to who asked; it goes on in its thread.
pub(super) const DEADLINE: Duration = Duration::from_millis(500);
/// How often a read looks again where the record lies when it has moved.
const TRIES: usize = 3;

/// What a read came to.
#[derive(Debug)]
pub(super) enum Outcome {
    Found(Record),
    Nothing,
    WouldWait,
}

/// A way to read: fills the buffer, or says that it would have to wait.
type Via<'a> = &'a dyn Fn(&mut [u8], u64) -> io::Result<bool>;

enum Got {
    /// Its head, and what of the body was asked for.
    Record(format::Record, Bytes, Bytes),
    /// Another place's: hashes have met.
    Other,
    /// What lies there is not what was written.
    Damaged,
    None(Lack),
}

/// Why there are no bytes.
#[derive(Clone, Copy)]
enum Lack {
    WouldWait,
    Failed,
}

impl Engine {
    /// From the kernel's cache, or not at all.
    pub(super) fn try_read(&self, place: ObjectKey, part: Part) -> Outcome {
        let hash = self.hash(place);
        let Some(entry) = self.find(hash) else { return Outcome::Nothing };
        let bytes = entry.location().units as usize * UNIT as usize;
        if part.map_or(bytes, |(start, end)| end.saturating_sub(start)) > INLINE {
            return Outcome::WouldWait;
        }
        let via = |buffer: &mut [u8], offset| self.device.read_cached(buffer, offset);
        self.read_at(place, part, hash, entry, &via)
    }

    /// From the disk: for its threads.
    pub(super) fn read_now(&self, place: ObjectKey, part: Part) -> Outcome {
        let hash = self.hash(place);
        let Some(entry) = self.find(hash) else { return Outcome::Nothing };
        self.read_at(place, part, hash, entry, &|buffer, offset| {
            self.device.read(buffer, offset).map(|()| true)
        })
    }

    fn find(&self, hash: u64) -> Option<Entry> {
        self.is_serving().then(|| self.index.get(hash)).flatten()
    }

    fn read_at(
        &self,
        place: ObjectKey,
        part: Part,
        hash: u64,
        entry: Entry,
        via: Via<'_>,
    ) -> Outcome {
        let mut entry = entry;
        for _ in 0..TRIES {
            let outcome = self.read_once(place, part, hash, entry, via);
            let now = self.find(hash);
            let same = now.is_some_and(|now| {
                now.location() == entry.location() && now.is_updated() == entry.is_updated()
            });
            match (outcome, now) {
                (Some(Outcome::WouldWait), _) => return Outcome::WouldWait,
                // What it was read as may have been moved meanwhile, or something newer may have come.
                (Some(found), Some(_)) if same => {
                    self.counters.reads.add(1);
                    match &found {
                        Outcome::Found(_) => {
                            self.index.touch(hash);
                            self.counters.hits.add(1);
                        }
                        _ => self.counters.misses.add(1),
                    }
                    return found;
                }
                (_, Some(now)) if !same => entry = now,
                _ => break,
            }
        }
        self.counters.reads.add(1);
        self.counters.misses.add(1);
        Outcome::Nothing
    }

    /// None: it was dropped.
    fn read_once(
        &self,
        place: ObjectKey,
        part: Part,
        hash: u64,
        entry: Entry,
        via: Via<'_>,
    ) -> Option<Outcome> {
        let at = entry.location();
        let (record, head, body) = match self.record(place, at, part, via) {
            Got::Record(record, head, body) if record.role == Role::Content => (record, head, body),
            Got::Other => return Some(Outcome::Nothing),
            Got::None(Lack::WouldWait) => return Some(Outcome::WouldWait),
            Got::None(Lack::Failed) => return Some(Outcome::Nothing),
            Got::Record(..) | Got::Damaged => {
                self.drop_damaged(hash, at);
                return None;
            }
        };
        let mut meta = head.slice(record.meta_range());
        if entry.is_updated() {
            // Without its later head an object is not to be used.
            let update = self.index.get(update_hash(hash))?;
            match self.record(place, update.location(), None, via) {
                Got::Record(later, bytes, _) if later.role == Role::Update => {
                    if later.is_update_of(&record) {
                        meta = bytes.slice(later.meta_range());
                    }
                }
                Got::None(Lack::WouldWait) => return Some(Outcome::WouldWait),
                Got::None(Lack::Failed) | Got::Other => return Some(Outcome::Nothing),
                Got::Record(..) | Got::Damaged => {
                    if self.index.get(update_hash(hash)) == Some(update) {
                        self.drop_damaged(hash, at);
                    }
                    return None;
                }
            }
        }
        Some(Outcome::Found(Record { kind: record.kind, meta, body }))
    }

    /// A record, verified, as far as it was asked for.
    fn record(&self, place: ObjectKey, at: Location, part: Part, via: Via<'_>) -> Got {
        let Some(offset) = self.geometry.offset(at) else { return Got::Damaged };
        let sequence = self.usage.sequence(at.segment);
        let whole = at.units as usize * UNIT as usize;
        let first = if part.is_some() { whole.min(FIRST) } else { whole };
        let mut bytes = match self.bytes(offset, first, via) {
            Ok(bytes) => bytes,
            Err(lack) => return Got::None(lack),
        };
        // Lengths that are not proven yet, but fit where it lies.
        let head = format::Record::peek(&bytes).map(|record| record.head_bytes());
        if let Some(head) = head.filter(|head| *head > bytes.len() && *head <= whole) {
            bytes = match self.bytes(offset, head, via) {
                Ok(bytes) => bytes,
                Err(lack) => return Got::None(lack),
            };
        }
        let record = match format::Record::verify(&bytes, at, self.salt) {
            Some(record) if record.segment_sequence != sequence => return Got::Damaged,
            Some(record) if record.units() != at.units => return Got::Damaged,
            Some(record) if record.place != place => return Got::Other,
            Some(record) => record,
            None => return Got::Damaged,
        };
        let head = Bytes::from(bytes);
        let Some((start, end)) = part else {
            if !record.is_body_intact(&head) {
                return Got::Damaged;
            }
            let body = head.slice(record.body_range());
            return Got::Record(record, head, body);
        };
        let (end, length) = (end.min(record.body as usize), record.body as usize);
        if start >= end {
            return Got::Record(record, head, Bytes::new());
        }
        let (first, last) = (start / BLOCK, end.div_ceil(BLOCK));
        let (from, to) = (first * BLOCK, (last * BLOCK).min(length));
        let place = offset + (record.body_range().start + from) as u64;
        match self.bytes(place, to - from, via) {
            Ok(body) if record.are_blocks_intact(&head, first, &body) => {
                let body = Bytes::from(body).slice(start - from..end - from);
                Got::Record(record, head, body)
            }
            Ok(_) => Got::Damaged,
            Err(lack) => Got::None(lack),
        }
    }

    /// So many bytes from there on.
    fn bytes(&self, offset: u64, length: usize, via: Via<'_>) -> Result<Vec<u8>, Lack> {
        let mut bytes = vec![0; length];
        match via(&mut bytes, offset) {
            Ok(true) => {
                self.counters.read_bytes.add(length as u64);
                Ok(bytes)
            }
            Ok(false) => Err(Lack::WouldWait),
            Err(_) => {
                self.counters.read_errors.add(1);
                self.failed();
                Err(Lack::Failed)
            }
        }
    }
}

#[derive(Debug)]
struct Job {
    place: ObjectKey,
    part: Part,
    until: Instant,
    reply: oneshot::Sender<Option<Record>>,
}

/// Reads that wait for one of the disk's threads.
#[derive(Debug, Default)]
pub(super) struct Reads {
    jobs: Mutex<VecDeque<Job>>,
    wake: Condvar,
}

impl Reads {
    /// Has something read. None: too much waits already.
    pub(super) fn submit(
        &self,
        place: ObjectKey,
        part: Part,
    ) -> Option<oneshot::Receiver<Option<Record>>> {
        let (reply, receiver) = oneshot::channel();
        let mut jobs = lock(&self.jobs);
        // Who has given up does not wait any more.
        while jobs.front().is_some_and(|job| job.reply.is_closed()) {
            jobs.pop_front();
        }
        if jobs.len() >= WAITING {
            return None;
        }
        jobs.push_back(Job { place, part, until: Instant::now() + DEADLINE, reply });
        drop(jobs);
        self.wake.notify_one();
        Some(receiver)
    }

    /// The disk's state has changed.
    pub(super) fn notify(&self) {
        // Who has looked at the state before it changed, waits by now: otherwise it would sleep through this.
        drop(lock(&self.jobs));
        self.wake.notify_all();
    }

    fn next(&self, engine: &Engine) -> Option<Job> {
        let mut jobs = lock(&self.jobs);
        loop {
            if matches!(engine.state(), State::Isolated | State::Closed) {
                jobs.clear();
                return None;
            }
            if let Some(job) = jobs.pop_front() {
                return Some(job);
            }
            jobs = self.wake.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// What each of a disk's threads, this one by its number, does until the disk is closed.
pub(super) fn serve(engine: &Arc<Engine>, number: usize) {
    while let Some(job) = engine.reads.next(engine) {
        if job.reply.is_closed() || job.until < Instant::now() {
            continue;
        }
        let record = match engine.waiting.during(number, || engine.read_now(job.place, job.part)) {
            Outcome::Found(record) => Some(record),
            Outcome::Nothing | Outcome::WouldWait => None,
        };
        // Who asked may have given up.
        let _ = job.reply.send(record);
    }
}
