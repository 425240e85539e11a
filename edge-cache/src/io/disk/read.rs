//! Records are read whole, and verified: the header by its checksum, the place by comparing, each block of the body by
//! its checksum. What is not what was written is dropped, counted, and a miss. A read that meets a segment being used again
//! notices.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::Record;
use super::engine::{Engine, lock};
use super::stats::State;
use crate::store::disk::format::{self, Role};
use crate::store::disk::geometry::UNIT;
use crate::store::disk::index::{Entry, Location};
use crate::store::disk::update_hash;
use crate::store::object::ObjectKey;

/// Records of up to so many bytes are read on the caller's thread, if the kernel has them.
const INLINE: usize = 128 << 10;
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
    Record(format::Record, Bytes),
    /// Another place's: hashes have met.
    Other,
    /// What lies there is not what was written.
    Damaged,
    WouldWait,
    Failed,
}

impl Engine {
    /// From the kernel's cache, or not at all.
    pub(super) fn try_read(&self, place: ObjectKey) -> Outcome {
        let hash = self.hash(place);
        let Some(entry) = self.find(hash) else { return Outcome::Nothing };
        if entry.location().units as usize * UNIT as usize > INLINE {
            return Outcome::WouldWait;
        }
        self.read_at(place, hash, entry, &|buffer, offset| self.device.read_cached(buffer, offset))
    }

    /// From the disk: for its threads.
    pub(super) fn read_now(&self, place: ObjectKey) -> Outcome {
        let hash = self.hash(place);
        let Some(entry) = self.find(hash) else { return Outcome::Nothing };
        self.read_at(place, hash, entry, &|buffer, offset| {
            self.device.read(buffer, offset).map(|()| true)
        })
    }

    fn find(&self, hash: u64) -> Option<Entry> {
        self.is_serving().then(|| self.index.get(hash)).flatten()
    }

    fn read_at(&self, place: ObjectKey, hash: u64, entry: Entry, via: Via<'_>) -> Outcome {
        let mut entry = entry;
        for _ in 0..TRIES {
            let outcome = self.read_once(place, hash, entry, via);
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
                        Outcome::Found(record) => {
                            self.index.touch(hash);
                            self.counters.hits.add(1);
                            self.counters
                                .read_bytes
                                .add((record.meta.len() + record.body.len()) as u64);
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
        hash: u64,
        entry: Entry,
        via: Via<'_>,
    ) -> Option<Outcome> {
        let at = entry.location();
        let (record, bytes) = match self.record(place, at, via) {
            Got::Record(record, bytes) if record.role == Role::Content => (record, bytes),
            Got::Other => return Some(Outcome::Nothing),
            Got::WouldWait => return Some(Outcome::WouldWait),
            Got::Failed => return Some(Outcome::Nothing),
            Got::Record(..) | Got::Damaged => {
                self.drop_damaged(hash, at);
                return None;
            }
        };
        let mut meta = bytes.slice(record.meta_range());
        if entry.is_updated() {
            // Without its later head an object is not to be used.
            let update = self.index.get(update_hash(hash))?;
            match self.record(place, update.location(), via) {
                Got::Record(later, bytes) if later.role == Role::Update => {
                    if later.is_update_of(&record) {
                        meta = bytes.slice(later.meta_range());
                    }
                }
                Got::WouldWait => return Some(Outcome::WouldWait),
                Got::Failed | Got::Other => return Some(Outcome::Nothing),
                Got::Record(..) | Got::Damaged => {
                    if self.index.get(update_hash(hash)) == Some(update) {
                        self.drop_damaged(hash, at);
                    }
                    return None;
                }
            }
        }
        let body = bytes.slice(record.body_range());
        Some(Outcome::Found(Record { kind: record.kind, meta, body }))
    }

    /// A record, verified.
    fn record(&self, place: ObjectKey, at: Location, via: Via<'_>) -> Got {
        let Some(offset) = self.geometry.offset(at) else { return Got::Damaged };
        let sequence = self.usage.sequence(at.segment);
        let mut bytes = vec![0; at.units as usize * UNIT as usize];
        match via(&mut bytes, offset) {
            Ok(true) => {}
            Ok(false) => return Got::WouldWait,
            Err(_) => {
                self.counters.read_errors.add(1);
                self.failed();
                return Got::Failed;
            }
        }
        match format::Record::verify(&bytes, at, self.salt) {
            Some(record) if record.segment_sequence != sequence => Got::Damaged,
            Some(record) if record.units() != at.units => Got::Damaged,
            Some(record) if record.place != place => Got::Other,
            Some(record) if !record.is_body_intact(&bytes) => Got::Damaged,
            Some(record) => Got::Record(record, Bytes::from(bytes)),
            None => Got::Damaged,
        }
    }
}

#[derive(Debug)]
struct Job {
    place: ObjectKey,
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
    pub(super) fn submit(&self, place: ObjectKey) -> Option<oneshot::Receiver<Option<Record>>> {
        let (reply, receiver) = oneshot::channel();
        let mut jobs = lock(&self.jobs);
        // Who has given up does not wait any more.
        while jobs.front().is_some_and(|job| job.reply.is_closed()) {
            jobs.pop_front();
        }
        if jobs.len() >= WAITING {
            return None;
        }
        jobs.push_back(Job { place, until: Instant::now() + DEADLINE, reply });
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
        let record = match engine.waiting.during(number, || engine.read_now(job.place)) {
            Outcome::Found(record) => Some(record),
            Outcome::Nothing | Outcome::WouldWait => None,
        };
        // Who asked may have given up.
        let _ = job.reply.send(record);
    }
}
