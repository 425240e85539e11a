//! The one thread that writes a disk: it takes what waits, appends it to the open segments, and makes it found once it is
//! written. Between that it reclaims segments.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::engine::Engine;
use super::queue::{Batch, Op, Queued};
use super::reclaimer::Reclaim;
use super::stats::State;
use super::watch::WRITER;
use crate::store::disk::format::{self, Role, Void};
use crate::store::disk::geometry::UNIT;
use crate::store::disk::index::{Entry, Location};
use crate::store::disk::log::{Draft, Log, REPLACES, Refused, Sealed, Stream};
use crate::store::disk::{Kind, reclaim, update_hash};
use crate::store::object::ObjectKey;

/// What is taken from the queue at once.
const BATCH: usize = 4 << 20;
/// Bytes of a segment that are collected before they are written.
const CHUNK: usize = 1 << 20;
/// Writes begin at multiples of this.
const PAGE: usize = 4096;
/// How often a writer without work looks whether the node's other disks are well.
const IDLE: Duration = Duration::from_millis(500);
/// After a failed write the next one waits so long.
const PAUSE: Duration = Duration::from_secs(1);
/// Failed writes in a row after which what is handed over is refused, until one succeeds.
const FAILURES: u32 = 2;

/// The end of an open segment, as far as it is not written, and the page that it begins in.
#[derive(Debug, Default)]
struct Tail {
    start: u64,
    bytes: Vec<u8>,
    written: usize,
    unpublished: Vec<Written>,
}

/// A record that is found once it is written.
#[derive(Debug)]
struct Written {
    place: ObjectKey,
    hash: u64,
    sequence: u64,
    at: Location,
    what: What,
}

#[derive(Debug)]
enum What {
    New { replaces: bool },
    Update,
    Tombstone,
    Moved { from: Location, folded: bool },
}

/// A record that is to be appended.
#[derive(Debug)]
pub(super) struct Draw<'a> {
    pub(super) place: ObjectKey,
    pub(super) role: Role,
    pub(super) kind: Kind,
    pub(super) flags: u8,
    pub(super) hash: u64,
    pub(super) sequence: u64,
    pub(super) epoch: Option<u64>,
    pub(super) meta: &'a [u8],
    pub(super) body: &'a [Bytes],
}

/// The writer of a disk.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) engine: Arc<Engine>,
    pub(super) log: Log,
    new: Tail,
    moved: Tail,
    pub(super) reclaim: Option<Reclaim>,
    failures: u32,
    resume: Option<Instant>,
}

impl Writer {
    /// Of a disk that has been recovered.
    pub(super) fn new(engine: Arc<Engine>, log: Log) -> Self {
        let (new, moved) = (Tail::default(), Tail::default());
        Self { engine, log, new, moved, reclaim: None, failures: 0, resume: None }
    }

    /// Until the disk is closed or has failed.
    pub(super) fn run(mut self) {
        loop {
            let busy = self.reclaim.is_some() || self.log.is_tight() && self.resume.is_none();
            let batch = match self.resume {
                // A disk that fails is given time; what waits, waits.
                Some(resume) if resume > Instant::now() => self.engine.queue.pause(resume),
                _ => self.engine.queue.take(BATCH, (!busy).then_some(IDLE)),
            };
            if self.engine.state() == State::Closed {
                return;
            }
            if self.engine.state() == State::Isolated {
                // It may have failed only in part: what it holds is not to be believed later.
                let _ = self
                    .engine
                    .change_superblock(|superblock| superblock.void = Some(Void::Failed));
                return;
            }
            if self.resume.is_some_and(|resume| resume <= Instant::now()) {
                self.resume = None;
            }
            let is_closing = batch.is_closing;
            let engine = Arc::clone(&self.engine);
            engine.waiting.during(WRITER, || self.work(batch));
            if is_closing {
                self.close();
                return;
            }
        }
    }

    /// One round: what is to be written, and a part of what is to be reclaimed.
    fn work(&mut self, batch: Batch) {
        let had_work = !batch.ops.is_empty();
        for queued in batch.ops {
            self.process(queued);
        }
        if had_work || !batch.flushes.is_empty() {
            self.write_tails();
        }
        if self.resume.is_none() && (self.reclaim.is_some() || self.log.is_tight()) {
            self.reclaim_some();
        }
        self.follow_node();
        if !batch.flushes.is_empty() {
            let done = self.sync().is_ok();
            for flush in batch.flushes {
                let _ = flush.send(done);
            }
        }
    }

    /// When another disk of the node is left alone, this one notes that it was in use after that.
    fn follow_node(&mut self) {
        let run = self.engine.node_run.load(std::sync::atomic::Ordering::Acquire);
        let raise = |superblock: &mut format::Superblock| superblock.run = superblock.run.max(run);
        if self.resume.is_none()
            && let Err(error) = self.engine.change_superblock(raise)
        {
            self.write_failed(&error);
        }
    }

    fn process(&mut self, queued: Queued) {
        let Queued { place, hash, sequence, op } = queued;
        let mut queue = self.engine.queue.lock();
        if queue.is_replaced(hash, sequence) {
            // What replaces it keeps dead what it was to keep dead.
            queue.done(hash, sequence);
            return;
        }
        drop(queue);
        match op {
            Op::Write { replaces, kind, meta, body } => {
                let flags = if replaces { REPLACES } else { 0 };
                let (role, epoch) = (Role::Content, None);
                let draw = Draw {
                    place,
                    role,
                    kind,
                    flags,
                    hash,
                    sequence,
                    epoch,
                    meta: &meta,
                    body: &body,
                };
                match self.append_new(&draw) {
                    Some(at) => {
                        let bytes = u64::from(at.units) * UNIT;
                        self.engine.counters.written_new.add(bytes);
                        let what = What::New { replaces };
                        self.published_later(Stream::New, place, hash, sequence, at, what);
                    }
                    None => self.lost(place, hash, sequence, replaces),
                }
            }
            Op::Update { kind, meta } => self.update(place, hash, sequence, kind, &meta),
            Op::Tombstone => {
                let draw = Draw::tombstone(place, hash, sequence, None);
                match self.append_new(&draw) {
                    Some(at) => {
                        let bytes = u64::from(at.units) * UNIT;
                        self.engine.counters.written_tombstones.add(bytes);
                        let what = What::Tombstone;
                        self.published_later(Stream::New, place, hash, sequence, at, what);
                    }
                    None => self.lost(place, hash, sequence, true),
                }
            }
        }
    }

    /// A later meta is written only for the content that is there.
    fn update(&mut self, place: ObjectKey, hash: u64, sequence: u64, kind: Kind, meta: &[u8]) {
        // Its content may be in the same batch.
        if self.engine.index.get(hash).is_none() {
            self.write_tails();
        }
        let content = self.engine.index.get(hash);
        let content = content.and_then(|content| self.sequence_of(place, content.location()));
        let draw = Draw {
            place,
            role: Role::Update,
            kind,
            flags: 0,
            hash: update_hash(hash),
            sequence,
            epoch: content,
            meta,
            body: &[],
        };
        match content.and_then(|_| self.append_new(&draw)) {
            Some(at) => {
                let bytes = u64::from(at.units) * UNIT;
                self.engine.counters.written_updates.add(bytes);
                self.engine.spend(bytes);
                self.published_later(Stream::New, place, hash, sequence, at, What::Update);
            }
            None => {
                self.engine.queue.lock().done(hash, sequence);
            }
        }
    }

    /// Which content of a place lies there.
    fn sequence_of(&self, place: ObjectKey, at: Location) -> Option<u64> {
        let engine = &self.engine;
        let offset = engine.geometry.offset(at)?;
        let mut bytes = vec![0; format::RECORD_HEADER];
        engine.device.read(&mut bytes, offset).ok()?;
        let length = format::Record::peek(&bytes)?.head_bytes();
        if length as u64 > u64::from(at.units) * UNIT {
            return None;
        }
        bytes.resize(length, 0);
        engine.device.read(&mut bytes, offset).ok()?;
        let record = format::Record::verify(&bytes, at, engine.salt)?;
        (record.place == place).then_some(record.sequence)
    }

    /// Something was not written and will not be. What it was to replace on the disk stays dead: that is tried again.
    fn lost(&self, place: ObjectKey, hash: u64, sequence: u64, replaces: bool) {
        self.engine.counters.not_taken.add(1);
        let mut queue = self.engine.queue.lock();
        if replaces {
            queue.push_back(Queued { place, hash, sequence, op: Op::Tombstone });
        } else {
            queue.done(hash, sequence);
        }
    }

    /// Appends to the open segment of new records; a segment is reclaimed for it if need be.
    fn append_new(&mut self, draw: &Draw<'_>) -> Option<Location> {
        if self.resume.is_some() {
            return None;
        }
        let most = self.engine.counters.reclaimed.get() + u64::from(self.engine.geometry.segments);
        loop {
            match self.append(Stream::New, draw) {
                Ok(at) => return Some(at),
                Err(Refused::TooLarge) => return None,
                Err(Refused::Full) => {
                    // Each segment has had its turn, and nothing of them could go: it is not to be had.
                    let tried = self.engine.counters.reclaimed.get() >= most;
                    if tried || !self.reclaim_some() || self.resume.is_some() {
                        return None;
                    }
                }
            }
        }
    }

    /// Appends to the open segment of a stream.
    pub(super) fn append(&mut self, stream: Stream, draw: &Draw<'_>) -> Result<Location, Refused> {
        let length = draw.body.iter().map(Bytes::len).sum::<usize>();
        let draft = Draft {
            hash: draw.hash,
            sequence: draw.sequence,
            epoch: draw.epoch,
            units: format::units(draw.meta.len(), length),
            role: draw.role,
            flags: draw.flags,
        };
        let placed = self.log.place(stream, &draft)?;
        if let Some(sealed) = &placed.sealed {
            self.write_tail(stream);
            self.write_footer(sealed);
            if self.resume.is_some() {
                // The segment that was just opened is sealed, with nothing in it.
                self.log.seal(stream);
                return Err(Refused::Full);
            }
        }
        let (geometry, salt) = (self.engine.geometry, self.engine.salt);
        let tail = self.tail(stream);
        if placed.opened {
            tail.start = geometry.start(placed.at.segment);
            tail.bytes = format::encode_header(placed.segment_sequence, placed.at.segment, salt);
            tail.written = 0;
        }
        let record = format::Record {
            place: draw.place,
            role: draw.role,
            kind: draw.kind,
            flags: draw.flags,
            sequence: draw.sequence,
            epoch: placed.epoch,
            segment_sequence: placed.segment_sequence,
            synced: placed.synced,
            meta: draw.meta.len() as u32,
            body: length as u32,
        };
        record.encode(draw.meta, draw.body, placed.at, salt, &mut tail.bytes);
        Ok(placed.at)
    }

    const fn tail(&mut self, stream: Stream) -> &mut Tail {
        match stream {
            Stream::New => &mut self.new,
            Stream::Moved => &mut self.moved,
        }
    }

    fn published_later(
        &mut self,
        stream: Stream,
        place: ObjectKey,
        hash: u64,
        sequence: u64,
        at: Location,
        what: What,
    ) {
        let tail = self.tail(stream);
        tail.unpublished.push(Written { place, hash, sequence, at, what });
        if tail.bytes.len() - tail.written >= CHUNK {
            self.write_tail(stream);
        }
    }

    /// A record that has moved is found at its new place once it is written.
    pub(super) fn moved_later(
        &mut self,
        draw: &Draw<'_>,
        at: Location,
        from: Location,
        folded: bool,
    ) {
        let what = What::Moved { from, folded };
        self.published_later(Stream::Moved, draw.place, draw.hash, draw.sequence, at, what);
    }

    /// Writes what both open segments have not yet.
    pub(super) fn write_tails(&mut self) {
        self.write_tail(Stream::Moved);
        self.write_tail(Stream::New);
    }

    fn write_tail(&mut self, stream: Stream) {
        let engine = Arc::clone(&self.engine);
        let tail = self.tail(stream);
        if tail.written < tail.bytes.len() {
            // From the page's beginning: it is written again as it fills.
            if let Err(error) = engine.device.write(&tail.bytes, tail.start) {
                let lost = std::mem::take(&mut tail.unpublished);
                (tail.bytes, tail.written) = (Vec::new(), 0);
                self.log.seal(stream);
                self.write_failed(&error);
                for written in lost.into_iter().rev() {
                    self.unwritten(written);
                }
                return;
            }
            self.wrote();
        }
        let tail = self.tail(stream);
        let whole = tail.bytes.len() - tail.bytes.len() % PAGE;
        tail.bytes.drain(..whole);
        tail.start += whole as u64;
        tail.written = tail.bytes.len();
        for written in std::mem::take(&mut tail.unpublished) {
            self.publish(written);
        }
    }

    fn unwritten(&self, written: Written) {
        let Written { place, hash, sequence, .. } = written;
        match written.what {
            What::New { replaces } => self.lost(place, hash, sequence, replaces),
            What::Tombstone => self.lost(place, hash, sequence, true),
            What::Update => {
                self.engine.queue.lock().done(hash, sequence);
            }
            // It still lies where it lay.
            What::Moved { .. } => {}
        }
    }

    /// From now on it is found.
    fn publish(&self, written: Written) {
        let Written { hash, sequence, at, what, .. } = written;
        let (index, usage) = (&self.engine.index, &self.engine.usage);
        let mut queue = self.engine.queue.lock();
        if self.engine.state() == State::Isolated {
            return;
        }
        match what {
            What::Tombstone => {
                queue.done(hash, sequence);
            }
            What::New { .. } => {
                if queue.done(hash, sequence) {
                    reclaim::remove(hash, index, usage);
                    index.insert(hash, reclaim::first_entry(at));
                    usage.add(at);
                }
            }
            What::Update => {
                let counts = queue.done(hash, sequence);
                if counts && index.change(hash, |entry| entry.with_update(true)).is_some() {
                    usage.add(at);
                    if let Some(old) = index.insert(update_hash(hash), Entry::new(at)) {
                        usage.subtract(old.location());
                    }
                }
            }
            What::Moved { from, folded } => {
                let mut was_there = false;
                index.change(hash, |entry| {
                    if entry.location() != from {
                        return entry;
                    }
                    was_there = true;
                    let updated = entry.is_updated() && !folded;
                    Entry::new(at).with_hits(entry.hits() / 2).with_update(updated)
                });
                if was_there {
                    usage.add(at);
                    usage.subtract(from);
                    if folded {
                        reclaim::forget_update(hash, index, usage);
                    }
                }
            }
        }
    }

    fn write_footer(&mut self, sealed: &Sealed) {
        if self.resume.is_some() {
            return;
        }
        let footer = format::encode_footer(&sealed.entries, sealed.sequence, self.engine.salt);
        let end = self.engine.geometry.start(sealed.segment + 1);
        match self.engine.device.write(&footer, end - footer.len() as u64) {
            Ok(()) => {
                self.engine.counters.written_footers.add(footer.len() as u64);
                self.wrote();
            }
            // Its records tell the same.
            Err(error) => self.write_failed(&error),
        }
    }

    fn wrote(&mut self) {
        self.failures = 0;
        if self.engine.state() == State::ReadOnly {
            self.engine.set_state(State::Ready);
        }
    }

    /// A full or read-only device goes on serving what it has; one that fails is left alone after a few times.
    pub(super) fn write_failed(&mut self, error: &io::Error) {
        self.engine.counters.write_errors.add(1);
        self.failures += 1;
        self.resume = Some(Instant::now() + PAUSE);
        if self.failures >= FAILURES {
            self.engine.set_state(State::ReadOnly);
        }
        let lasting = matches!(
            error.kind(),
            io::ErrorKind::StorageFull
                | io::ErrorKind::ReadOnlyFilesystem
                | io::ErrorKind::QuotaExceeded
        );
        if !lasting {
            self.engine.failed();
        }
    }

    /// Whether writes have failed and are not tried again yet.
    pub(super) const fn is_paused(&self) -> bool {
        self.resume.is_some()
    }

    /// All that was handed over outlives a loss of power.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.write_tails();
        if self.is_paused() {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        match self.engine.device.sync() {
            Ok(()) => self.log.synced(),
            Err(error) => {
                self.write_failed(&error);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Seals the open segments and leaves a copy of the index.
    fn close(mut self) {
        // A segment that is half reclaimed stays: what has moved is found where it is now, the rest where it was.
        self.reclaim = None;
        for stream in [Stream::New, Stream::Moved] {
            self.write_tail(stream);
            if let Some(sealed) = self.log.seal(stream) {
                self.write_footer(&sealed);
            }
        }
        let whole = self.resume.is_none() && self.engine.queue.lock().pending().next().is_none();
        if whole && self.sync().is_ok() && super::snapshot::write(&self.engine).is_ok() {
            let _ = self.engine.change_superblock(|superblock| superblock.is_clean = true);
        }
        self.engine.set_state(State::Closed);
        self.engine.queue.lock().clear();
        self.engine.reads.notify();
        self.engine.waiting.notify();
    }
}

impl Draw<'_> {
    /// A place's end.
    pub(super) const fn tombstone(
        place: ObjectKey,
        hash: u64,
        sequence: u64,
        epoch: Option<u64>,
    ) -> Self {
        Self {
            place,
            role: Role::Tombstone,
            kind: Kind::Object,
            flags: 0,
            hash,
            sequence,
            epoch,
            meta: &[],
            body: &[],
        }
    }
}
