//! What waits to be written to a disk, in the order in which it was handed over; bounded in bytes. A place that something
//! waits for is known, so that what is written late does not undo what was said after it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::store::disk::{Kind, first_sequence};
use crate::store::object::ObjectKey;

/// Bytes that may wait.
pub(super) const LIMIT: usize = 32 << 20;
/// Tombstones that may wait: they are never refused before this.
pub(super) const MAX_OPS: usize = 1 << 18;

/// Something to be written.
#[derive(Debug)]
pub(super) enum Op {
    /// A place's content.
    Write { replaces: bool, kind: Kind, meta: Bytes, body: Vec<Bytes> },
    /// A later meta for it.
    Update { kind: Kind, meta: Bytes },
    /// Its end.
    Tombstone,
}

impl Op {
    fn bytes(&self) -> usize {
        let bytes = match self {
            Self::Write { meta, body, .. } => {
                meta.len() + body.iter().map(Bytes::len).sum::<usize>()
            }
            Self::Update { meta, .. } => meta.len(),
            Self::Tombstone => 0,
        };
        bytes + 128
    }
}

/// And for whom.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) place: ObjectKey,
    pub(super) hash: u64,
    pub(super) sequence: u64,
    pub(super) op: Op,
}

/// What is known of a place that something waits for.
#[derive(Clone, Copy, Debug, Default)]
struct Pending {
    waiting: u32,
    /// The newest content or tombstone that was handed over.
    replaced: u64,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    ops: VecDeque<Queued>,
    bytes: usize,
    pending: HashMap<u64, Pending>,
    next: u64,
    flushes: Vec<oneshot::Sender<bool>>,
    is_closing: bool,
}

/// What the writer does next.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) ops: Vec<Queued>,
    pub(super) flushes: Vec<oneshot::Sender<bool>>,
    pub(super) is_closing: bool,
}

#[derive(Debug)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    wake: Condvar,
}

impl Queue {
    pub(super) fn new(run: u64) -> Self {
        let inner = Inner { next: first_sequence(run), ..Inner::default() };
        Self { inner: Mutex::new(inner), wake: Condvar::new() }
    }

    /// A panic elsewhere leaves it whole.
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer has something to do.
    pub(super) fn notify(&self) {
        self.wake.notify_one();
    }

    /// Nothing is taken until then, unless it is to end.
    pub(super) fn pause(&self, until: Instant) -> Batch {
        let mut inner = self.lock();
        while !inner.is_closing && inner.flushes.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            inner = match self.wake.wait_timeout(inner, left) {
                Ok((inner, _)) => inner,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        let flushes = std::mem::take(&mut inner.flushes);
        Batch { ops: Vec::new(), flushes, is_closing: inner.is_closing }
    }

    /// Some of what waits, at most `bytes` of it but for one; waits for it if `wait` says so.
    pub(super) fn take(&self, bytes: usize, wait: Option<Duration>) -> Batch {
        let mut inner = self.lock();
        if let Some(wait) = wait
            && inner.ops.is_empty()
            && inner.flushes.is_empty()
            && !inner.is_closing
        {
            inner = match self.wake.wait_timeout(inner, wait) {
                Ok((inner, _)) => inner,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        let mut batch = Batch::default();
        let mut taken = 0;
        while taken < bytes
            && let Some(queued) = inner.ops.pop_front()
        {
            taken += queued.op.bytes();
            inner.bytes -= queued.op.bytes();
            batch.ops.push(queued);
        }
        if inner.ops.is_empty() {
            batch.flushes = std::mem::take(&mut inner.flushes);
            batch.is_closing = inner.is_closing;
        }
        batch
    }
}

impl Inner {
    /// Whether something waits for this place.
    pub(super) fn is_pending(&self, hash: u64) -> bool {
        self.pending.contains_key(&hash)
    }

    /// The places that something waits for.
    pub(super) fn pending(&self) -> impl Iterator<Item = u64> {
        self.pending.keys().copied()
    }

    /// Whether there is room for so many bytes.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.bytes + bytes <= LIMIT
    }

    /// Whether it cannot take even tombstones.
    pub(super) fn is_overrun(&self) -> bool {
        self.ops.len() >= MAX_OPS
    }

    /// At its end.
    pub(super) fn push(&mut self, place: ObjectKey, hash: u64, op: Op) {
        self.next += 1;
        let sequence = self.next;
        let pending = self.pending.entry(hash).or_default();
        pending.waiting += 1;
        if !matches!(op, Op::Update { .. }) {
            pending.replaced = sequence;
        }
        self.bytes += op.bytes();
        self.ops.push_back(Queued { place, hash, sequence, op });
    }

    /// What was taken could not be done and is to be tried again before the rest.
    pub(super) fn push_back(&mut self, queued: Queued) {
        self.bytes += queued.op.bytes();
        self.ops.push_front(queued);
    }

    /// Whether something that replaces it was handed over since.
    pub(super) fn is_replaced(&self, hash: u64, sequence: u64) -> bool {
        self.pending.get(&hash).is_some_and(|pending| pending.replaced > sequence)
    }

    /// Something of a place has been written, or never will be. Whether it counts: nothing that replaces it was
    /// handed over since.
    pub(super) fn done(&mut self, hash: u64, sequence: u64) -> bool {
        let Some(pending) = self.pending.get_mut(&hash) else { return false };
        let counts = pending.replaced <= sequence;
        pending.waiting = pending.waiting.saturating_sub(1);
        if pending.waiting == 0 {
            self.pending.remove(&hash);
        }
        counts
    }

    /// Told when all that was handed over before is on the disk.
    pub(super) fn flush(&mut self) -> oneshot::Receiver<bool> {
        let (sender, receiver) = oneshot::channel();
        self.flushes.push(sender);
        receiver
    }

    /// The writer is to end.
    pub(super) fn close(&mut self) {
        self.is_closing = true;
    }

    /// Nothing of it will ever be written.
    pub(super) fn clear(&mut self) {
        self.ops.clear();
        self.bytes = 0;
        self.pending.clear();
        self.flushes.clear();
    }
}
