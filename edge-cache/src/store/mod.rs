//! What is stored, and how it is found: objects by cache key and variant, the Vary lists of a key, and the keys whose
//! responses could not be stored.
//!
//! [`Store`] gives the answers that [`crate::lookup::decide`] works from. Which object makes room for which is the
//! [`memory`] tier's business; what may be stored at all is [`crate::semantics`]'. What lies on disks is named by
//! [`Store::missing`], and answers like the rest once it has been [`Store::promote`]d; [`below`] is what the disks are told.

pub(crate) mod allocator;
pub mod below;
pub mod budget;
pub mod content;
pub mod disk;
pub mod memory;
pub mod object;
pub mod policy;
pub mod record;
mod search;
mod shards;
#[cfg(test)]
mod tests;
mod tinylfu;
pub mod variants;
pub mod version;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::DATE;
use http::{HeaderMap, HeaderName};

use crate::key::{CacheKey, url_of};
use crate::purge::{Fences, Floor, Verdict};
use crate::segment::Layout;
use crate::semantics::compress::{self, Coding};
use crate::semantics::date;
use crate::semantics::search::Variance;
use crate::semantics::vary::{VariantKey, Vary};

pub use below::Below;
pub use content::Content;
pub use memory::Memory;
pub use object::{Object, ObjectKey};
pub use variants::Variants;
pub use version::Version;

use below::Turns;

/// Keys remembered as uncacheable.
const MAX_MARKERS: u64 = 100_000;
/// For how long a key is remembered as uncacheable.
const MARKER_TTL: Duration = Duration::from_secs(120);

/// Variants that are brought from disk for their validators alone.
const MAX_OTHERS: usize = 2;

/// What a lookup found.
#[derive(Debug)]
pub enum Found {
    /// Nothing for this key.
    Nothing,
    /// Variants, but none that the request selects: these, for their validators.
    OtherVariants(Vec<Arc<Object>>),
    /// A recent response for this key could not be stored.
    Uncacheable,
    /// What was stored has been purged.
    Purged,
    /// This.
    Object(Arc<Object>),
}

/// The stored objects of a node.
#[derive(Debug)]
pub struct Store {
    memory: Memory,
    layout: Layout,
    versions: AtomicU64,
    variants: moka::sync::Cache<u128, Arc<Variants>>,
    uncacheable: Markers,
    /// Of those, keys whose objects are too large to be stored whole.
    too_large: Markers,
    /// Keys whose origin does not give parts.
    unsegmented: Markers,
    fences: Fences,
    searches: search::Searches,
    below: OnceLock<Arc<dyn Below>>,
    turns: Turns,
}

/// What the disks have that a lookup would ask for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// The record of the key's variants: without it, there is no telling what else.
    pub variants: bool,
    /// Objects.
    pub objects: Vec<VariantKey>,
}

impl Missing {
    /// Whether there is nothing to be brought.
    pub fn is_empty(&self) -> bool {
        !self.variants && self.objects.is_empty()
    }
}

/// Keys that are remembered for a while.
type Markers = moka::sync::Cache<u128, ()>;

fn markers() -> Markers {
    moka::sync::Cache::builder().max_capacity(MAX_MARKERS).time_to_live(MARKER_TTL).build()
}

impl Store {
    /// A store with this memory tier, bodies in segments as `layout` says.
    /// `first_version` is far from where any earlier one of the node began: versions lie on its disks by their numbers.
    pub fn new(memory: memory::Settings, layout: Layout, first_version: u64) -> Self {
        let capacity = memory.capacity;
        // A record of variants is small beside the objects that it leads to.
        let records = (capacity / 16_384).clamp(1_000, 1_000_000);
        Self {
            memory: Memory::new(memory),
            layout,
            versions: AtomicU64::new(first_version),
            variants: moka::sync::Cache::new(records),
            uncacheable: markers(),
            too_large: markers(),
            unsegmented: markers(),
            fences: Fences::new(capacity),
            searches: search::Searches::new(capacity),
            below: OnceLock::new(),
            turns: Turns::new(),
        }
    }

    /// Puts disks under the memory: from now on they are told of every change. The first ones stay.
    pub fn set_below(&self, below: Arc<dyn Below>) {
        let _ = self.below.set(below);
    }

    /// What stands under the memory.
    pub fn below(&self) -> Option<&Arc<dyn Below>> {
        self.below.get()
    }

    /// The memory tier.
    pub const fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The purges.
    pub const fn fences(&self) -> &Fences {
        &self.fences
    }

    /// What the purges say of an object, and who asks for one that is not below a floor.
    pub fn judge(&self, object: &Object, needed: Floor) -> Verdict {
        let url = url_of(object.key_text());
        self.fences.judge(url, object.tags(), object.fence(), needed)
    }

    /// The key of the newest stored response that answers a request for `key` because of its No-Vary-Search, if there is one
    /// that purges of what was asked for do not concern either. `brought` has just come from disk.
    pub fn equivalent(
        &self,
        key: &CacheKey,
        headers: &HeaderMap,
        needed: Floor,
        brought: &[Arc<Object>],
    ) -> Option<CacheKey> {
        let needed = needed.max(self.fences.of_key(key));
        let holds = |(other, variance): &(CacheKey, Variance)| match self
            .lookup_with(other, headers, needed, brought)
        {
            Found::Object(object) => Variance::of(&object.fields()).as_ref() == Some(variance),
            _ => false,
        };
        let candidates = self.searches.candidates(key);
        candidates.into_iter().find(holds).map(|(other, _)| other).filter(|other| other != key)
    }

    /// The keys that may be that, other ones than this.
    pub fn candidates(&self, key: &CacheKey) -> Vec<CacheKey> {
        let candidates = self.searches.candidates(key);
        candidates.into_iter().map(|(other, _)| other).filter(|other| other != key).collect()
    }

    /// Learns the No-Vary-Search of a response that is about to be stored.
    pub fn note_search(&self, key: &CacheKey, response: &HeaderMap) {
        if let Some(variance) = Variance::of(response) {
            self.searches.learn(key, &variance);
        }
    }

    /// How bodies lie in segments.
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// The identity of a body that is about to be stored in segments, of an object that lies there.
    pub fn new_version(&self, key: &CacheKey, variant: VariantKey) -> Arc<Version> {
        let id = self.versions.fetch_add(1, Ordering::Relaxed);
        Arc::new(Version::new(id, ObjectKey { key: key.hash(), variant }))
    }

    /// A segment of an object whose body lies in segments.
    pub fn segment(&self, object: &Object, index: u64) -> Option<Bytes> {
        self.memory.segment(object.version()?, index)
    }

    /// All of an object's body, if memory has it.
    pub fn body(&self, object: &Object) -> Option<Vec<Bytes>> {
        if object.version().is_none() {
            let pieces = object.whole()?.into_iter();
            return Some(pieces.filter(|piece| !piece.is_empty()).collect());
        }
        let count = self.layout.count(object.length());
        (0..count).map(|index| self.segment(object, index)).collect()
    }

    /// Whether memory has all of an object's body, as far as is known.
    pub fn is_in_memory(&self, object: &Object) -> bool {
        let count = self.layout.count(object.length());
        object.version().is_none_or(|version| version.counts().0 == count)
    }

    /// Whether all of an object's body is stored, as far as is known.
    pub fn is_whole(&self, object: &Object) -> bool {
        object
            .version()
            .is_none_or(|version| version.stored() == self.layout.count(object.length()))
    }

    /// What is stored for a request, that is not purged and not below the floor that the request needs. `headers` are
    /// the client's.
    pub fn lookup(&self, key: &CacheKey, headers: &HeaderMap, needed: Floor) -> Found {
        self.lookup_with(key, headers, needed, &[])
    }

    /// The same, with objects that have just come from disk: memory need not have taken them.
    pub fn lookup_with(
        &self,
        key: &CacheKey,
        headers: &HeaderMap,
        needed: Floor,
        brought: &[Arc<Object>],
    ) -> Found {
        let mut purged = false;
        let mut get = |variant| {
            let object = self.get(key, variant, brought)?;
            let current = self.judge(&object, needed) != Verdict::Purged;
            purged |= !current;
            current.then_some(object)
        };
        if let Some(object) = get(VariantKey::NONE) {
            return Found::Object(object);
        }
        if let Some(record) = self.variants.get(&key.hash()) {
            let selected = record.selected(headers);
            let newest = selected.filter_map(&mut get).max_by_key(|object| {
                (date::field(&object.fields(), &DATE), object.response_time())
            });
            if let Some(object) = newest {
                return Found::Object(object);
            }
            let others: Vec<_> = record.stored.iter().copied().filter_map(&mut get).collect();
            if !others.is_empty() {
                return Found::OtherVariants(others);
            }
        }
        if self.uncacheable.contains_key(&key.hash()) {
            Found::Uncacheable
        } else if purged {
            Found::Purged
        } else {
            Found::Nothing
        }
    }

    /// What a lookup would ask for that memory has not, and that a disk may have.
    pub fn missing(&self, key: &CacheKey, headers: &HeaderMap) -> Missing {
        let mut missing = Missing::default();
        let Some(below) = self.below.get() else { return missing };
        let place = |variant| ObjectKey { key: key.hash(), variant };
        if self.is_here(place(VariantKey::NONE)) {
            return missing;
        }
        if below.contains(place(VariantKey::NONE)) {
            missing.objects.push(VariantKey::NONE);
            return missing;
        }
        let Some(record) = self.variants.get(&key.hash()) else {
            missing.variants = below.contains(Variants::place(key.hash()));
            return missing;
        };
        let is_here = |variant: &VariantKey| self.is_here(place(*variant));
        let lacks = |variant: &VariantKey| !is_here(variant) && below.contains(place(*variant));
        missing.objects.extend(record.selected(headers).filter(lacks));
        if missing.objects.is_empty() && !record.stored.iter().any(is_here) {
            // None that the request selects: the others have validators.
            let others = record.stored.iter().rev().copied();
            missing.objects.extend(others.filter(lacks).take(MAX_OTHERS));
        }
        missing
    }

    /// All that is stored under a key on disk and not in memory, as far as the record of its variants is known.
    pub fn missing_at_all(&self, key: &CacheKey) -> Missing {
        let Some(below) = self.below.get() else { return Missing::default() };
        let place = |variant| ObjectKey { key: key.hash(), variant };
        let record = self.variants.get(&key.hash());
        let stored = record.iter().flat_map(|record| record.stored.iter().copied());
        let all = std::iter::once(VariantKey::NONE).chain(stored);
        let objects = all
            .filter(|variant| !self.is_here(place(*variant)) && below.contains(place(*variant)))
            .collect();
        let variants = record.is_none() && below.contains(Variants::place(key.hash()));
        Missing { variants, objects }
    }

    /// A number that changes with what is stored under a key: taken before something is read from disk for it.
    pub fn turn(&self, key: u128) -> u64 {
        *self.turns.of(key)
    }

    /// Puts an object that has come from disk into memory, unless something has changed under its key since `turn`: then
    /// what has come may be what was replaced, and is not to be used.
    pub fn promote(&self, object: &Arc<Object>, turn: u64) -> bool {
        let key = object.place().key;
        let now = self.turns.of(key);
        if *now != turn {
            return false;
        }
        if let Some(variance) = Variance::of(&object.fields()) {
            self.searches.learn(&object.key(), &variance);
        }
        if !self.is_here(object.place()) {
            self.memory.insert(Arc::clone(object));
            self.memory.settle(object.place());
        }
        true
    }

    /// The same for the record of a key's variants.
    pub fn promote_variants(&self, key: u128, record: Variants, turn: u64) -> bool {
        let now = self.turns.of(key);
        if *now == turn {
            self.variants.entry(key).or_insert_with(|| Arc::new(record));
        }
        *now == turn
    }

    /// An object has been asked for again, and this [`below::Asked::is_due`]: the disks may want it, if it is what is stored in
    /// its place.
    pub fn offer(&self, object: &Object) {
        let Some(below) = self.below.get() else { return };
        if object.asked.is_settled() {
            return below.touch(object.place());
        }
        let turn = self.turns.of(object.place().key);
        let stored = self.memory.peek(object.place());
        if stored.is_some_and(|stored| stored.body_id() == object.body_id()) {
            self.offer_to(below.as_ref(), object);
        }
        drop(turn);
    }

    /// With an object goes the record of its key's variants, without which it would not be found. The key's turn is taken.
    fn offer_to(&self, below: &dyn Below, object: &Object) {
        let body = || self.body(object);
        if object.variant() == VariantKey::NONE {
            below.offer(object, None, &body);
        } else if let Some(record) = self.variants.get(&object.place().key)
            && record.stored.contains(&object.variant())
        {
            below.offer(object, Some(&record), &body);
        }
        if object.asked.is_settled() {
            self.memory.settle(object.place());
        }
    }

    /// All that is stored under a key and is not purged.
    pub fn all(&self, key: &CacheKey) -> Vec<Arc<Object>> {
        self.all_with(key, &[])
    }

    /// The same, with objects that have just come from disk.
    pub fn all_with(&self, key: &CacheKey, brought: &[Arc<Object>]) -> Vec<Arc<Object>> {
        let record = self.variants.get(&key.hash());
        std::iter::once(VariantKey::NONE)
            .chain(record.iter().flat_map(|record| record.stored.iter().copied()))
            .filter_map(|variant| self.get(key, variant, brought))
            .filter(|object| self.judge(object, Floor::default()) != Verdict::Purged)
            .collect()
    }

    /// The variant under which requests with these fields should wait for each other: what the newest Vary list says.
    pub fn expected_variant(&self, key: &CacheKey, headers: &HeaderMap) -> VariantKey {
        let record = self.variants.get(&key.hash());
        record.and_then(|record| record.lists.variants(headers).next()).unwrap_or(VariantKey::NONE)
    }

    /// The request fields that responses under this key have named in Vary.
    pub fn varying(&self, key: &CacheKey) -> Vec<HeaderName> {
        let record = self.variants.get(&key.hash());
        let mut names: Vec<_> =
            record.iter().flat_map(|record| record.lists.names()).cloned().collect();
        names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        names.dedup();
        names
    }

    /// Learns the Vary list of a response that is about to be stored, so that requests that it does not answer can tell.
    pub fn note_vary(&self, key: &CacheKey, vary: &Vary) {
        match vary {
            Vary::Fields(fields) if fields.is_empty() => {}
            Vary::Star => {}
            Vary::Fields(_) => {
                let mut turn = self.turns.of(key.hash());
                *turn += 1;
                self.change(key.hash(), |record| record.lists.note(vary));
            }
        }
    }

    /// Stores an object in the place of the one that it replaces. `false`: it is too large.
    ///
    /// Its key keeps `max_variants`: beyond it the oldest goes, so that a field with many values cannot fill the store.
    pub fn put(&self, object: Arc<Object>, max_variants: usize) -> bool {
        let hash = object.place().key;
        let place = |variant| ObjectKey { key: hash, variant };
        let (variant, below) = (object.variant(), self.below.get());
        let mut turn = self.turns.of(hash);
        if !self.memory.insert(Arc::clone(&object)) {
            return false;
        }
        *turn += 1;
        self.uncacheable.invalidate(&hash);
        if let Some(below) = below {
            match object.asked.is_settled() && below.contains(place(variant)) {
                true => {
                    below.update(&object);
                    self.memory.settle(place(variant));
                }
                false => {
                    object.asked.unsettle();
                    below.remove(place(variant));
                }
            }
        }
        let mut gone = Vec::new();
        if variant == VariantKey::NONE {
            // The newest response rules: without Vary it answers all requests. The variants that it replaces go, lest a
            // later Vary brings them back.
            let replaced = self.variants.remove(&hash);
            gone.extend(replaced.iter().flat_map(|record| record.stored.iter().copied()));
            below.iter().for_each(|below| below.remove(Variants::place(hash)));
        } else {
            gone.push(VariantKey::NONE);
            self.change(hash, |record| {
                record.lists.note(&object.vary());
                record.stored.retain(|stored| *stored != variant);
                record.stored.push(variant);
                let surplus = record.stored.len().saturating_sub(max_variants.max(1));
                gone.extend(record.stored.drain(..surplus));
            });
        }
        for place in gone.into_iter().map(place) {
            self.memory.remove(place);
            below.iter().for_each(|below| below.remove(place));
        }
        if let Some(below) = below.filter(|_| !object.asked.is_settled() && object.asked.is_due()) {
            self.offer_to(below.as_ref(), &object);
        }
        drop(turn);
        true
    }

    /// The encoding of an object that was made of the body that it has now, under the head that it has now.
    pub fn encoding(&self, object: &Object, coding: Coding) -> Option<Arc<Object>> {
        let made = self.memory.get(object.encoding_place(coding))?;
        if made.body_id() != object.body_id() || made.key_text() != object.key_text() {
            return None;
        }
        let times = |object: &Object| (object.response_time(), object.request_time());
        if times(&made) == times(object) {
            return Some(made);
        }
        // The head was updated since.
        let headers = compress::encoded(&object.fields(), coding, Some(made.length()));
        let made = Arc::new(object.encoding_like(coding, headers, &made));
        self.memory.insert(Arc::clone(&made));
        Some(made)
    }

    /// Stores an encoding of an object. It counts as long as the object has this body.
    pub fn put_encoding(&self, object: &Object, coding: Coding, body: Bytes) {
        let length = body.len() as u64;
        let headers = compress::encoded(&object.fields(), coding, Some(length));
        self.memory.insert(Arc::new(object.encoding(coding, headers, body)));
    }

    /// Removes an object.
    pub fn remove(&self, object: &Object) {
        let mut turn = self.turns.of(object.place().key);
        *turn += 1;
        self.memory.remove(object.place());
        self.below.get().iter().for_each(|below| below.remove(object.place()));
    }

    /// Remembers that responses for this key are not stored: nobody waits for another's.
    pub fn mark_uncacheable(&self, key: &CacheKey) {
        self.uncacheable.insert(key.hash(), ());
    }

    /// Remembers that what is under this key is not stored as a whole. Parts of it may be.
    pub fn mark_too_large(&self, key: &CacheKey) {
        self.too_large.insert(key.hash(), ());
        self.mark_uncacheable(key);
    }

    /// Whether that is so.
    pub fn is_too_large(&self, key: &CacheKey) -> bool {
        self.too_large.contains_key(&key.hash())
    }

    /// Remembers that this key is not to be asked for in parts.
    pub fn mark_unsegmented(&self, key: &CacheKey) {
        self.unsegmented.insert(key.hash(), ());
    }

    /// Whether that is so.
    pub fn is_unsegmented(&self, key: &CacheKey) -> bool {
        self.unsegmented.contains_key(&key.hash())
    }

    /// Removes what is stored in an object's place, if it has the same body in segments.
    pub fn remove_version(&self, object: &Object) {
        let stored = self.memory.peek(object.place());
        let id = |object: &Object| object.version().map(|version| version.id());
        // Where memory has nothing, a disk may have the head.
        if stored.is_none_or(|stored| id(&stored) == id(object)) {
            self.remove(object);
        }
    }

    /// Forgets it, because one could have been stored.
    pub fn unmark_uncacheable(&self, key: &CacheKey) {
        self.uncacheable.invalidate(&key.hash());
    }

    fn get(
        &self,
        key: &CacheKey,
        variant: VariantKey,
        brought: &[Arc<Object>],
    ) -> Option<Arc<Object>> {
        let place = ObjectKey { key: key.hash(), variant };
        let came = || brought.iter().find(|object| object.place() == place).cloned();
        let object = self.memory.get(place).or_else(came)?;
        // Equal hashes are not enough: two texts with one hash could be made on purpose.
        (object.is_of(key) && self.is_usable(&object)).then_some(object)
    }

    fn is_here(&self, place: ObjectKey) -> bool {
        self.memory.peek(place).is_some_and(|object| self.is_usable(&object))
    }

    /// What is missing of it can be fetched, or nothing is missing.
    fn is_usable(&self, object: &Object) -> bool {
        object.is_combinable() || self.is_whole(object)
    }

    /// Changes the record of a key's variants, whose turn is taken; on disk, too, where it lies there.
    fn change(&self, key: u128, change: impl FnOnce(&mut Variants)) {
        let entry = self.variants.entry(key).and_upsert_with(|entry| {
            let mut record = entry.map(|entry| Variants::clone(entry.value())).unwrap_or_default();
            change(&mut record);
            Arc::new(record)
        });
        let place = Variants::place(key);
        if let Some(below) = self.below.get().filter(|below| below.contains(place)) {
            below.write_variants(place, entry.value());
        }
    }
}
