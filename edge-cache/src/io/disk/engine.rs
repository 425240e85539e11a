//! One disk: what everybody who uses it shares. A lookup asks the index alone; what changes what is stored does so in the
//! index at once and on the disk later, by the disk's writer.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::device::Device;
use super::open::{Emptied, Opened, write_superblock};
use super::queue::{Op, Queue};
use super::read::Reads;
use super::stats::{Counters, Start, State, Stats};
use super::watch::Waiting;
use crate::store::disk::admission::Admission;
use crate::store::disk::format::{MAX_META, Superblock, units};
use crate::store::disk::geometry::UNIT;
use crate::store::disk::index::Index;
use crate::store::disk::log::{Log, Usage};
use crate::store::disk::{Geometry, Kind, place_hash, reclaim};
use crate::store::object::ObjectKey;

/// A mean object, for the number of the index's shards.
const MEAN_OBJECT: u64 = 16 << 10;
/// So many errors of a device …
const ERRORS: usize = 8;
/// … within this time, and it is left alone.
const ERROR_WINDOW: Duration = Duration::from_secs(30);

/// One disk.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) path: PathBuf,
    pub(super) device: Arc<dyn Device>,
    pub(super) superblock: Mutex<Superblock>,
    pub(super) uuid: u128,
    pub(super) salt: u64,
    pub(super) run: u64,
    /// The run before this one: that of the index's copy, if it was stopped cleanly.
    pub(super) clean_run: u64,
    pub(super) geometry: Geometry,
    pub(super) emptied: Option<Emptied>,
    pub(super) index: Index,
    pub(super) usage: Arc<Usage>,
    pub(super) queue: Queue,
    pub(super) reads: Reads,
    pub(super) counters: Counters,
    /// Who waits for its device, and for how long.
    pub(super) waiting: Waiting,
    state: AtomicU8,
    is_stalled: AtomicBool,
    start: Mutex<Option<(Start, Duration)>>,
    admission: Mutex<Admission>,
    errors: Mutex<Vec<Instant>>,
    began: Instant,
    /// The run that the node's disks are in: raised when one of them is left alone, so that it is known at the next start
    /// that it was.
    pub(super) node_run: Arc<AtomicU64>,
}

impl Engine {
    /// Of a disk whose superblock says `superblock` now, and said the run `before`. None: it makes no sense.
    pub(super) fn new(
        opened: Opened,
        superblock: Superblock,
        before: u64,
        daily: Option<u64>,
        node_run: &Arc<AtomicU64>,
    ) -> Option<Self> {
        let Superblock { uuid, salt, run, .. } = superblock;
        let Opened { path, device, emptied, .. } = opened;
        let geometry = superblock.geometry()?;
        let daily = daily.unwrap_or_else(|| geometry.size.saturating_mul(3));
        Some(Self {
            path,
            device,
            superblock: Mutex::new(superblock),
            uuid,
            salt,
            run,
            clean_run: before,
            geometry,
            emptied,
            index: Index::new(geometry.size / MEAN_OBJECT),
            usage: Arc::new(Usage::new(&geometry)),
            queue: Queue::new(run),
            reads: Reads::default(),
            counters: Counters::default(),
            waiting: Waiting::default(),
            state: AtomicU8::new(State::Recovering as u8),
            is_stalled: AtomicBool::new(false),
            start: Mutex::new(None),
            admission: Mutex::new(Admission::new(geometry.size, daily)),
            errors: Mutex::default(),
            began: Instant::now(),
            node_run: Arc::clone(node_run),
        })
    }

    pub(super) fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            0 => State::Recovering,
            1 | 2 if self.is_stalled.load(Ordering::Relaxed) => State::Stalled,
            1 => State::Ready,
            2 => State::ReadOnly,
            3 => State::Isolated,
            _ => State::Closed,
        }
    }

    /// It does not answer, or does again. What it was.
    pub(super) fn stall(&self, stalls: bool) -> bool {
        self.is_stalled.swap(stalls, Ordering::Relaxed)
    }

    /// Whether its threads wait for its device, and perhaps for ever.
    pub(super) fn is_stuck(&self) -> bool {
        self.is_stalled.load(Ordering::Relaxed)
    }

    /// A disk that is left alone stays so, and one that is closed.
    pub(super) fn set_state(&self, state: State) {
        let change = |now| {
            let ends = now == State::Closed as u8
                || now == State::Isolated as u8 && state != State::Closed;
            (!ends).then_some(state as u8)
        };
        let _ = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, change);
    }

    pub(super) fn is_serving(&self) -> bool {
        matches!(self.state(), State::Ready | State::ReadOnly)
    }

    pub(super) fn started(&self, start: Start, took: Duration) {
        *lock(&self.start) = Some((start, took));
        self.counters.recovery_micros.set(took.as_micros() as u64);
    }

    pub(super) fn hash(&self, place: ObjectKey) -> u64 {
        place_hash(place, self.salt)
    }

    pub(super) fn contains(&self, place: ObjectKey) -> bool {
        self.is_serving() && self.index.get(self.hash(place)).is_some()
    }

    pub(super) fn touch(&self, place: ObjectKey) {
        self.index.touch(self.hash(place));
    }

    pub(super) fn wanted(&self, place: ObjectKey, bytes: u64) -> bool {
        self.state() == State::Ready
            && lock(&self.admission).wanted(self.hash(place), bytes, self.began.elapsed())
    }

    pub(super) fn spend(&self, bytes: u64) {
        lock(&self.admission).spend(bytes);
    }

    pub(super) fn write(
        &self,
        place: ObjectKey,
        kind: Kind,
        meta: Bytes,
        body: Vec<Bytes>,
    ) -> bool {
        let hash = self.hash(place);
        let length: usize = body.iter().map(Bytes::len).sum();
        let fits = meta.len() <= MAX_META
            && length <= self.geometry.segment as usize
            && units(meta.len(), length) <= Log::largest(&self.geometry);
        let mut queue = self.queue.lock();
        let is_known = self.forget(hash) || queue.is_pending(hash);
        let taken = fits && self.state() == State::Ready && queue.has_room(meta.len() + length);
        if taken {
            queue.push(place, hash, Op::Write { replaces: is_known, kind, meta, body });
            drop(queue);
            self.spend(u64::from(units(0, length)) * UNIT);
            self.queue.notify();
        } else {
            self.counters.not_taken.add(1);
            self.bury(queue, place, hash, is_known);
        }
        taken
    }

    pub(super) fn update(&self, place: ObjectKey, kind: Kind, meta: Bytes) -> bool {
        let hash = self.hash(place);
        let mut queue = self.queue.lock();
        let is_known = self.index.get(hash).is_some() || queue.is_pending(hash);
        let fits = meta.len() <= MAX_META && queue.has_room(meta.len());
        let taken = is_known && fits && self.state() == State::Ready;
        if taken {
            queue.push(place, hash, Op::Update { kind, meta });
            drop(queue);
            self.queue.notify();
        }
        taken
    }

    pub(super) fn remove(&self, place: ObjectKey) {
        let hash = self.hash(place);
        let queue = self.queue.lock();
        let is_known = self.forget(hash) || queue.is_pending(hash);
        self.bury(queue, place, hash, is_known);
    }

    /// None: nothing is written any more.
    pub(super) fn flush(&self) -> Option<oneshot::Receiver<bool>> {
        let mut queue = self.queue.lock();
        let ends = matches!(self.state(), State::Isolated | State::Closed);
        let waiting = (!ends).then(|| queue.flush());
        drop(queue);
        self.queue.notify();
        waiting
    }

    fn forget(&self, hash: u64) -> bool {
        reclaim::remove(hash, &self.index, &self.usage).is_some()
    }

    /// A tombstone, if the disk has the place or may have it.
    fn bury(
        &self,
        mut queue: MutexGuard<'_, super::queue::Inner>,
        place: ObjectKey,
        hash: u64,
        is_known: bool,
    ) {
        let state = self.state();
        if matches!(state, State::Isolated | State::Closed)
            || !is_known && state != State::Recovering
        {
            return;
        }
        if queue.is_overrun() {
            drop(queue);
            self.isolate();
            return;
        }
        queue.push(place, hash, Op::Tombstone);
        drop(queue);
        self.queue.notify();
    }

    /// A record whose bytes are not what was written.
    pub(super) fn drop_damaged(&self, hash: u64, at: crate::store::disk::index::Location) {
        if reclaim::evict(hash, at, &self.index, &self.usage) {
            self.counters.checksum_failures.add(1);
        }
    }

    /// The device has failed. Too often, and it is left alone.
    pub(super) fn failed(&self) {
        let now = Instant::now();
        let mut errors = lock(&self.errors);
        errors.retain(|error| now.duration_since(*error) < ERROR_WINDOW);
        errors.push(now);
        let too_often = errors.len() >= ERRORS;
        drop(errors);
        if too_often {
            self.isolate();
        }
    }

    /// No reads and no writes any more. The node's other disks note that it was absent from now on.
    pub(super) fn isolate(&self) {
        if matches!(self.state(), State::Isolated | State::Closed) {
            return;
        }
        self.set_state(State::Isolated);
        self.index.clear();
        self.queue.lock().clear();
        self.queue.notify();
        self.reads.notify();
        self.waiting.notify();
        self.node_run.fetch_add(1, Ordering::AcqRel);
    }

    /// Writes the superblock, changed.
    pub(super) fn change_superblock(
        &self,
        change: impl FnOnce(&mut Superblock),
    ) -> std::io::Result<()> {
        let mut superblock = lock(&self.superblock);
        let mut changed = *superblock;
        change(&mut changed);
        if changed != *superblock {
            write_superblock(&*self.device, &changed)?;
            *superblock = changed;
        }
        Ok(())
    }

    pub(super) fn stats(&self) -> Stats {
        let counters = &self.counters;
        Stats {
            path: self.path.clone(),
            state: self.state(),
            start: *lock(&self.start),
            size: self.geometry.size,
            live_bytes: self.usage.total() * UNIT,
            objects: self.index.len() as u64,
            index_bytes: self.index.bytes() as u64,
            written_new: counters.written_new.get(),
            written_moved: counters.written_moved.get(),
            written_updates: counters.written_updates.get(),
            written_tombstones: counters.written_tombstones.get(),
            written_footers: counters.written_footers.get(),
            not_taken: counters.not_taken.get(),
            reads: counters.reads.get(),
            read_bytes: counters.read_bytes.get(),
            hits: counters.hits.get(),
            misses: counters.misses.get(),
            timeouts: counters.timeouts.get(),
            read_errors: counters.read_errors.get(),
            write_errors: counters.write_errors.get(),
            checksum_failures: counters.checksum_failures.get(),
            evicted: counters.evicted.get(),
            reclaimed: counters.reclaimed.get(),
        }
    }
}

/// A panic elsewhere leaves what the engine's locks hold whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
