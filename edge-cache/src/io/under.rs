//! The disks under the store: what of it is written, and in which form, and how it is read back.
//!
//! * An object is offered when it is stored, and each time it is asked for again; the disks take it at the second time, as
//!   far as their write budget goes. The parts of a long body are offered one by one, likewise.
//! * A record says whose it is: an object the number of its body, which begins the body, too; a segment its version. What
//!   does not fit together is not used, whatever the disks say.
//! * Many who ask for one record wait for one read.
//!
//! Without a strong validator a long body is of use only as a whole: it is written in one record, if that is not too long.

mod check;
mod open;
mod report;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use shared::io::clock;
use tokio::sync::watch;

use super::disk::{Disks, Part, Read, Record};
use super::node::Node;
use super::purge_log::Lasting;
use crate::segment::Layout;
use crate::semantics::Lines as _;
use crate::store::below::Body;
use crate::store::disk::Kind;
use crate::store::record::{
    Clock, Decoded, Lies, decode_head, decode_variants, encode_head, encode_variants,
};
use crate::store::{Below, Content, Object, ObjectKey, Variants, Version};

pub use check::warnings;
pub use open::open;
pub use report::DiskStatus;

/// Segments of a body that are looked for when its head comes back; of a longer one the others are found as they are read.
const LOOKED_FOR: u64 = 4096;
/// Segments that are remembered because a part of them was read.
const PARTS: usize = 4096;
/// The number before a body.
const NUMBER: usize = size_of::<u64>();

/// What the disks were asked for.
#[derive(Debug, Default)]
pub struct Counts {
    /// Objects that came back.
    pub objects: AtomicU64,
    /// Segments that came back.
    pub segments: AtomicU64,
    /// Records that are not what they should be: another key's, another version's.
    pub strangers: AtomicU64,
}

/// The disks under a store.
#[derive(Debug)]
pub struct Under {
    disks: Disks,
    layout: Layout,
    /// This run of the node.
    run: u64,
    lasting: Lasting,
    reads: Mutex<HashMap<(ObjectKey, Part), Going>>,
    /// Segments of which a part was read.
    parts: Box<[AtomicU64]>,
    counts: Counts,
}

type Answer = Option<Option<Record>>;
type Going = watch::Receiver<Answer>;

impl Under {
    /// These disks. `run` is a number that no other run of the node has.
    pub fn new(disks: Disks, layout: Layout, run: u64, lasting: Lasting) -> Self {
        let (reads, counts) = Default::default();
        let parts = (0..PARTS).map(|_| AtomicU64::default()).collect();
        Self { disks, layout, run, lasting, reads, parts, counts }
    }

    /// The disks.
    pub const fn disks(&self) -> &Disks {
        &self.disks
    }

    /// What they were asked for.
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    fn clock(&self) -> Clock {
        let (wall, steady, known) = (clock::now(), clock::steady(), self.lasting.position());
        Clock { wall, steady, run: self.run, known }
    }

    /// The variants of a key, if they lie on disk.
    pub async fn variants(self: &Arc<Self>, key: u128) -> Option<Variants> {
        let record = self.read(Variants::place(key), None).await?;
        decode_variants(&record.meta).ok().filter(|_| record.kind == Kind::Vary)
    }

    /// The object that lies there.
    pub async fn object(self: &Arc<Self>, place: ObjectKey) -> Option<Arc<Object>> {
        let record = self.read(place, None).await?;
        let object = self.restored(place, &record);
        match &object {
            Some(_) => &self.counts.objects,
            None => &self.counts.strangers,
        }
        .fetch_add(1, Ordering::Relaxed);
        if object.is_none() {
            self.disks.remove(place);
        }
        object
    }

    fn restored(&self, place: ObjectKey, record: &Record) -> Option<Arc<Object>> {
        let decoded = decode_head(&record.meta, self.clock()).ok()?;
        if decoded.head().place() != place || record.kind != Kind::Object {
            return None;
        }
        let body = self.body(place, &decoded, &record.body)?;
        decoded.into_object(body).map(Arc::new)
    }

    fn body(&self, place: ObjectKey, decoded: &Decoded, bytes: &Bytes) -> Option<Content> {
        match decoded.lies {
            Lies::Inline => {
                let number = bytes.first_chunk::<NUMBER>()?;
                let own = u64::from_le_bytes(*number) == decoded.head().body_id();
                own.then(|| Content::Whole(vec![bytes.slice(NUMBER..)]))
            }
            Lies::Segments { version, segment_size } => {
                if segment_size != self.layout.size() {
                    return None;
                }
                let version = Arc::new(Version::new(version, place));
                version.note_length(decoded.head().length());
                let count = self.layout.count(decoded.head().length());
                self.look_for(&version, 0, count.min(LOOKED_FOR));
                Some(Content::Segments(version))
            }
        }
    }

    /// Tells a version which of its segments, from `first` up to but without `end`, lie on disk.
    pub fn look_for(&self, version: &Version, first: u64, end: u64) {
        for index in first..end {
            if !version.is_below(index) && self.disks.contains(version.place(index)) {
                version.note_below(index);
            }
        }
    }

    /// Whether a segment is on disk, as far as can be told without reading.
    pub fn has_segment(&self, version: &Version, index: u64) -> bool {
        self.look_for(version, index, index + 1);
        version.is_below(index)
    }

    /// Whether of a segment no more than `wanted` bytes are to be read: few, and nobody has asked so a while ago. Asking is
    /// remembered.
    pub fn is_read_in_part(&self, version: &Version, index: u64, wanted: u64) -> bool {
        let ObjectKey { key, variant } = version.place(index);
        let number = (key ^ key >> 64 ^ variant.0 ^ variant.0 >> 64) as u64;
        let last = self.parts.get(number as usize % PARTS);
        // Who comes again is told from the last one only: another one in between costs some bytes.
        let comes_again = || last.is_none_or(|last| last.swap(number, Ordering::Relaxed) == number);
        wanted <= self.layout.size() / 2 && !comes_again()
    }

    /// A segment, or a part of it. `None`: it is not there, or not to be had in time.
    pub async fn segment(
        self: Arc<Self>,
        version: Arc<Version>,
        index: u64,
        part: Part,
    ) -> Option<Bytes> {
        let record = self.read(version.place(index), part).await;
        let own = |record: &Record| {
            record.kind == Kind::Segment && record.meta == segment_meta(&version, index)
        };
        match record {
            Some(record) if own(&record) => {
                self.counts.segments.fetch_add(1, Ordering::Relaxed);
                Some(record.body)
            }
            other => {
                self.counts.strangers.fetch_add(u64::from(other.is_some()), Ordering::Relaxed);
                // Also what a disk fails to read, or not in time: a reader in the middle of a body has it fetched, which is
                // not done while it counts as stored.
                self.disks.remove(version.place(index));
                version.forget_below(index);
                None
            }
        }
    }

    /// Has a segment brought into memory that somebody is about to need.
    pub fn read_ahead(self: &Arc<Self>, node: &Arc<Node>, version: &Arc<Version>, index: u64) {
        if version.is_in_memory(index) || !self.has_segment(version, index) {
            return;
        }
        let (under, node, version) = (Arc::clone(self), Arc::clone(node), Arc::clone(version));
        // Who needs it before it has come waits for the same read.
        tokio::spawn(async move {
            if let Some(data) = under.segment(Arc::clone(&version), index, None).await {
                node.store.memory().insert_segment(&version, index, data);
            }
        });
    }

    /// A segment has been stored in memory, or was asked for again there: written, if the disks want it.
    pub fn offer_segment(&self, version: &Version, index: u64, data: &Bytes) {
        if version.is_below(index) {
            return self.disks.touch(version.place(index));
        }
        if !self.disks.wanted(version.part(index), data.len() as u64) {
            return;
        }
        let meta = Bytes::from(segment_meta(version, index));
        if self.disks.write(version.place(index), Kind::Segment, meta, vec![data.clone()]) {
            version.note_below(index);
        }
    }

    /// A record, read once for all who ask for it at a time.
    async fn read(self: &Arc<Self>, place: ObjectKey, part: Part) -> Option<Record> {
        match self.disks.try_read_part(place, part) {
            Read::Absent => None,
            Read::Ready(record) => Some(record),
            Read::Wait => {
                let mut going = self.going(place, part);
                // The reader has gone without a word: there is nothing to be had.
                going.wait_for(Option::is_some).await.ok()?.clone().flatten()
            }
        }
    }

    fn going(self: &Arc<Self>, place: ObjectKey, part: Part) -> Going {
        let mut reads = self.lock();
        if let Some(going) = reads.get(&(place, part)).filter(|going| going.has_changed().is_ok()) {
            return going.clone();
        }
        let (sender, going) = watch::channel(None);
        reads.insert((place, part), going.clone());
        drop(reads);
        let under = Arc::clone(self);
        // A task of its own: it goes on when who began it has gone.
        tokio::spawn(async move {
            let record = under.disks.read_part(place, part).await;
            // Who comes from now on asks the disk again, or finds it in memory.
            under.lock().remove(&(place, part));
            sender.send_replace(Some(record));
        });
        going
    }

    /// A panic elsewhere leaves the table whole.
    fn lock(&self) -> MutexGuard<'_, HashMap<(ObjectKey, Part), Going>> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The meta of an object.
    fn meta(&self, object: &Object) -> Bytes {
        let clock = self.clock();
        let segment = self.layout.size();
        Bytes::from(match object.version().is_some() && !object.is_combinable() {
            false => encode_head(object, segment, clock),
            true => encode_head(&object.without_body(), segment, clock),
        })
    }
}

fn segment_meta(version: &Version, index: u64) -> Vec<u8> {
    let (id, of) = (version.id(), version.of());
    [&id.to_le_bytes()[..], &index.to_le_bytes(), &of.key.to_le_bytes()].concat()
}

/// Whether an object can be of use later: it is fresh, may be used stale, or can be validated.
fn is_of_use(object: &Object) -> bool {
    use http::header::{ETAG, LAST_MODIFIED};
    let (fields, life) = (object.fields(), object.life());
    let stale = life.lifetimes.while_revalidate.max(life.lifetimes.if_error);
    let stale = i64::try_from(stale.as_millis()).unwrap_or(i64::MAX);
    fields.has(&ETAG)
        || fields.has(&LAST_MODIFIED)
        || life.remaining_millis(clock::steady()).saturating_add(stale) > 0
}

impl Below for Under {
    fn contains(&self, place: ObjectKey) -> bool {
        self.disks.contains(place)
    }

    fn remove(&self, place: ObjectKey) {
        self.disks.remove(place);
    }

    fn touch(&self, place: ObjectKey) {
        self.disks.touch(place);
    }

    fn update(&self, object: &Object) {
        if !self.disks.update(object.place(), Kind::Object, self.meta(object)) {
            // The old head would come back.
            self.disks.remove(object.place());
            object.asked.unsettle();
        }
    }

    fn offer(&self, object: &Object, variants: Option<&Variants>, body: Body<'_>) {
        let lies_apart = object.version().is_some() && object.is_combinable();
        let length = if lies_apart { 0 } else { object.length() };
        if !is_of_use(object) || !self.disks.wanted(object.place(), length) {
            return;
        }
        let mut pieces = Vec::new();
        if !lies_apart {
            let Some(body) = body() else { return };
            pieces.push(Bytes::copy_from_slice(&object.body_id().to_le_bytes()));
            pieces.extend(body);
        }
        if let Some(variants) = variants {
            self.write_variants(Variants::place(object.place().key), variants);
        }
        if self.disks.write(object.place(), Kind::Object, self.meta(object), pieces) {
            object.asked.settle();
        }
    }

    fn write_variants(&self, place: ObjectKey, variants: &Variants) {
        // What is not taken is not found any more: nor are its variants.
        let form = Bytes::from(encode_variants(variants));
        let _ = self.disks.write(place, Kind::Vary, form, Vec::new());
    }
}
