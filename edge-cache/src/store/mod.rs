//! What is stored, and how it is found: objects by cache key and variant, the Vary lists of a key, and the keys whose
//! responses could not be stored.
//!
//! [`Store`] gives the answers that [`crate::lookup::decide`] works from. Which object makes room for which is the
//! [`memory`] tier's business; what may be stored at all is [`crate::semantics`]'.

pub mod memory;
pub mod object;
pub mod policy;
pub mod record;
mod search;
pub mod version;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::DATE;
use http::{HeaderMap, HeaderName};

use crate::key::CacheKey;
use crate::purge::{Fences, Floor, Verdict};
use crate::segment::Layout;
use crate::semantics::compress::{self, Coding};
use crate::semantics::date;
use crate::semantics::search::Variance;
use crate::semantics::vary::{VariantKey, Vary, VaryLists};

pub use memory::Memory;
pub use object::{Content, Object, ObjectKey};
pub use version::Version;

/// Keys remembered as uncacheable.
const MAX_MARKERS: u64 = 100_000;
/// For how long a key is remembered as uncacheable.
const MARKER_TTL: Duration = Duration::from_secs(120);

/// The variants of a key whose responses have Vary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variants {
    /// What the responses have had in Vary.
    pub lists: VaryLists,
    /// Which variants were stored, oldest first.
    pub stored: Vec<VariantKey>,
}

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
}

/// Keys that are remembered for a while.
type Markers = moka::sync::Cache<u128, ()>;

fn markers() -> Markers {
    moka::sync::Cache::builder().max_capacity(MAX_MARKERS).time_to_live(MARKER_TTL).build()
}

impl Store {
    /// A store of `capacity` bytes that takes whole objects of up to `max_object` bytes, in segments as `layout` says.
    pub fn new(capacity: u64, max_object: u64, layout: Layout) -> Self {
        // A record of variants is small beside the objects that it leads to.
        let records = (capacity / 16_384).clamp(1_000, 1_000_000);
        Self {
            memory: Memory::new(capacity, max_object),
            layout,
            versions: AtomicU64::new(0),
            variants: moka::sync::Cache::new(records),
            uncacheable: markers(),
            too_large: markers(),
            unsegmented: markers(),
            fences: Fences::new(capacity),
            searches: search::Searches::new(capacity),
        }
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
        let Object { key, head, .. } = object;
        self.fences.judge(key, &head.tags, head.fence, needed)
    }

    /// The key of the newest stored response that answers a request for `key` because of its No-Vary-Search, if there is one
    /// that purges of what was asked for do not concern either.
    pub fn equivalent(
        &self,
        key: &CacheKey,
        headers: &HeaderMap,
        needed: Floor,
    ) -> Option<CacheKey> {
        let needed = needed.max(self.fences.of_key(key));
        let holds = |(other, variance): &(CacheKey, Variance)| match self
            .lookup(other, headers, needed)
        {
            Found::Object(object) => Variance::of(&object.head.headers).as_ref() == Some(variance),
            _ => false,
        };
        let candidates = self.searches.candidates(key);
        candidates.into_iter().find(holds).map(|(other, _)| other).filter(|other| other != key)
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

    /// The identity of a body that is about to be stored in segments.
    pub fn new_version(&self) -> Arc<Version> {
        Arc::new(Version::new(self.versions.fetch_add(1, Ordering::Relaxed)))
    }

    /// A segment of an object whose body lies in segments.
    pub fn segment(&self, object: &Object, index: u64) -> Option<Bytes> {
        self.memory.segment(object.version()?, index)
    }

    /// Whether all of an object's body is stored, as far as is known.
    pub fn is_whole(&self, object: &Object) -> bool {
        object.version().is_none_or(|version| version.stored() == self.layout.count(object.length))
    }

    /// What is stored for a request, that is not purged and not below the floor that the request needs. `headers` are
    /// the client's.
    pub fn lookup(&self, key: &CacheKey, headers: &HeaderMap, needed: Floor) -> Found {
        let mut purged = false;
        let mut get = |variant| {
            let object = self.get(key, variant)?;
            let current = self.judge(&object, needed) != Verdict::Purged;
            purged |= !current;
            current.then_some(object)
        };
        if let Some(object) = get(VariantKey::NONE) {
            return Found::Object(object);
        }
        if let Some(record) = self.variants.get(&key.hash()) {
            let newest = record.lists.variants(headers).filter_map(&mut get).max_by_key(|object| {
                (date::field(&object.head.headers, &DATE), object.head.response_time)
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

    /// All that is stored under a key and is not purged.
    pub fn all(&self, key: &CacheKey) -> Vec<Arc<Object>> {
        let record = self.variants.get(&key.hash());
        std::iter::once(VariantKey::NONE)
            .chain(record.iter().flat_map(|record| record.stored.iter().copied()))
            .filter_map(|variant| self.get(key, variant))
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
            Vary::Fields(_) => self.change(key, |record| record.lists.note(vary)),
        }
    }

    /// Stores an object in the place of the one that it replaces. `false`: it is too large.
    ///
    /// Its key keeps `max_variants`: beyond it the oldest goes, so that a field with many values cannot fill the store.
    pub fn put(&self, object: Arc<Object>, max_variants: usize) -> bool {
        let key = object.key.clone();
        let (variant, vary) = (object.variant, object.head.vary.clone());
        if !self.memory.insert(object) {
            return false;
        }
        self.uncacheable.invalidate(&key.hash());
        if variant == VariantKey::NONE {
            // The newest response rules: without Vary it answers all requests. The variants that it replaces go, lest a
            // later Vary brings them back.
            let replaced = self.variants.remove(&key.hash());
            for variant in replaced.iter().flat_map(|record| record.stored.iter().copied()) {
                self.memory.remove(ObjectKey { key: key.hash(), variant });
            }
            return true;
        }
        self.memory.remove(ObjectKey { key: key.hash(), variant: VariantKey::NONE });
        let mut gone = Vec::new();
        self.change(&key, |record| {
            record.lists.note(&vary);
            record.stored.retain(|stored| *stored != variant);
            record.stored.push(variant);
            let surplus = record.stored.len().saturating_sub(max_variants.max(1));
            gone = record.stored.drain(..surplus).collect();
        });
        for variant in gone {
            self.memory.remove(ObjectKey { key: key.hash(), variant });
        }
        true
    }

    /// The encoding of an object that was made of the body that it has now, under the head that it has now.
    pub fn encoding(&self, object: &Object, coding: Coding) -> Option<Arc<Object>> {
        let made = self.memory.get(object.encoding_place(coding))?;
        if made.body_id != object.body_id || made.key != object.key {
            return None;
        }
        let (own, now) = (&made.head, &object.head);
        if (own.response_time, own.request_time) == (now.response_time, now.request_time) {
            return Some(made);
        }
        // The head was updated since.
        let headers = compress::encoded(&now.headers, coding, Some(made.length));
        let made = object.encoding(coding, headers, made.body.clone(), made.length);
        let made = Arc::new(made);
        self.memory.insert(Arc::clone(&made));
        Some(made)
    }

    /// Stores an encoding of an object. It counts as long as the object has this body.
    pub fn put_encoding(&self, object: &Object, coding: Coding, body: Bytes) {
        let length = body.len() as u64;
        let headers = compress::encoded(&object.head.headers, coding, Some(length));
        let body = Content::Inline([body].into());
        self.memory.insert(Arc::new(object.encoding(coding, headers, body, length)));
    }

    /// Removes an object.
    pub fn remove(&self, object: &Object) {
        self.memory.remove(ObjectKey { key: object.key.hash(), variant: object.variant });
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
        let stored = self.memory.get(object.place());
        let same = stored.as_ref().and_then(|stored| stored.version()).zip(object.version());
        if same.is_some_and(|(stored, version)| Arc::ptr_eq(stored, version)) {
            self.remove(object);
        }
    }

    /// Forgets it, because one could have been stored.
    pub fn unmark_uncacheable(&self, key: &CacheKey) {
        self.uncacheable.invalidate(&key.hash());
    }

    fn get(&self, key: &CacheKey, variant: VariantKey) -> Option<Arc<Object>> {
        // Equal hashes are not enough: two texts with one hash could be made on purpose.
        let object = self.memory.get(ObjectKey { key: key.hash(), variant })?;
        (object.key == *key && self.is_usable(&object)).then_some(object)
    }

    /// What is missing of it can be fetched, or nothing is missing.
    fn is_usable(&self, object: &Object) -> bool {
        object.is_combinable || self.is_whole(object)
    }

    fn change(&self, key: &CacheKey, change: impl FnOnce(&mut Variants)) {
        self.variants.entry(key.hash()).and_upsert_with(|entry| {
            let mut record = entry.map(|entry| Variants::clone(entry.value())).unwrap_or_default();
            change(&mut record);
            Arc::new(record)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::purge::{Kind, Position, Target};
    use object::tests::object;

    const LAYOUT: Layout = Layout::new(1 << 16);
    fn look(store: &Store, key: &CacheKey, headers: &HeaderMap) -> Found {
        store.lookup(key, headers, Floor::default())
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (HeaderName::from_static(name), http::HeaderValue::from_static(value))
            })
            .collect()
    }

    fn found(found: Found) -> Option<Vec<u8>> {
        match found {
            Found::Object(object) => match &object.body {
                Content::Inline(pieces) => Some(pieces.concat()),
                Content::Segments(_) => None,
            },
            _ => None,
        }
    }

    /// RFC 9111 §4.1: a stored response is selected by the request fields that its Vary names.
    #[test]
    fn rfc9111_4_1_variants_are_told_apart() {
        let store = Store::new(1 << 20, 1 << 17, LAYOUT);
        let (en, de) =
            (headers(&[("accept-language", "en")]), headers(&[("accept-language", "de")]));
        let vary = headers(&[("vary", "accept-language")]);
        let english = object("/a", &vary, &en, b"hello");
        assert!(matches!(look(&store, &english.key, &en), Found::Nothing));
        store.note_vary(&english.key, &english.head.vary);
        assert_eq!(store.expected_variant(&english.key, &en), english.variant);
        assert_ne!(store.expected_variant(&english.key, &de), english.variant);
        assert!(store.put(Arc::clone(&english), 32));
        assert_eq!(found(look(&store, &english.key, &en)).unwrap(), b"hello");
        match look(&store, &english.key, &de) {
            Found::OtherVariants(others) => assert_eq!(others.len(), 1),
            other => panic!("{other:?}"),
        }
        let german = object("/a", &vary, &de, b"hallo");
        assert!(store.put(Arc::clone(&german), 32));
        assert_eq!(found(look(&store, &german.key, &de)).unwrap(), b"hallo");
        assert_eq!(found(look(&store, &german.key, &en)).unwrap(), b"hello");
        assert_eq!(store.all(&german.key).len(), 2);
        store.fences().apply(&Target::All, Kind::Hard, Position(1));
        assert!(store.all(&german.key).is_empty());
        assert!(matches!(look(&store, &german.key, &de), Found::Purged));
    }

    /// RFC 9111 §4: what a newer response has replaced does not come back with the next one.
    #[test]
    fn rfc9111_4_what_was_replaced_stays_away() {
        let store = Store::new(1 << 20, 1 << 17, LAYOUT);
        let none = HeaderMap::new();
        let (en, de) =
            (headers(&[("accept-language", "en")]), headers(&[("accept-language", "de")]));
        let vary = headers(&[("vary", "accept-language")]);
        assert!(store.put(object("/a", &vary, &en, b"first"), 32));
        let second = object("/a", &none, &none, b"second");
        assert!(store.put(Arc::clone(&second), 32));
        assert_eq!(found(look(&store, &second.key, &en)).unwrap(), b"second");
        assert!(store.put(object("/a", &vary, &de, b"third"), 32));
        match look(&store, &second.key, &en) {
            Found::OtherVariants(others) => assert_eq!(others.len(), 1),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_newest_response_says_whether_there_are_variants() {
        let store = Store::new(1 << 20, 1 << 17, LAYOUT);
        let none = HeaderMap::new();
        let plain = object("/a", &none, &none, b"plain");
        let vary = headers(&[("vary", "accept-language")]);
        assert!(store.put(Arc::clone(&plain), 32));
        assert!(
            store.put(object("/a", &vary, &headers(&[("accept-language", "en")]), b"hello"), 32)
        );
        assert!(found(look(&store, &plain.key, &none)).is_none(), "the plain one was replaced");
        assert!(store.put(Arc::clone(&plain), 32));
        assert_eq!(
            found(look(&store, &plain.key, &headers(&[("accept-language", "en")]))).unwrap(),
            b"plain"
        );
    }

    #[test]
    fn variants_of_a_key_are_bounded() {
        let store = Store::new(1 << 22, 1 << 17, LAYOUT);
        let vary = headers(&[("vary", "x-any")]);
        for n in 0..30 {
            let mut request = HeaderMap::new();
            request.insert("x-any", http::HeaderValue::from(n));
            let variant = object("/a", &vary, &request, b"v");
            assert!(store.put(Arc::clone(&variant), 8));
            assert!(store.all(&variant.key).len() <= 8);
        }
    }

    #[test]
    fn an_uncacheable_key_is_remembered_until_something_is_stored() {
        let store = Store::new(1 << 20, 1 << 17, LAYOUT);
        let none = HeaderMap::new();
        let plain = object("/a", &none, &none, b"plain");
        store.mark_uncacheable(&plain.key);
        assert!(matches!(look(&store, &plain.key, &none), Found::Uncacheable));
        assert!(store.put(Arc::clone(&plain), 32));
        store.remove(&plain);
        assert!(matches!(look(&store, &plain.key, &none), Found::Nothing));
    }

    /// A parent is asked for something newer than it has, and what has a late enough fence is found still.
    #[test]
    fn what_is_below_the_floor_is_not_found() {
        let store = Store::new(1 << 20, 1 << 17, LAYOUT);
        let none = HeaderMap::new();
        let stored = object("/a", &none, &none, b"old");
        assert!(store.put(Arc::clone(&stored), 32));
        let hard = |at| Floor { hard: Position(at), soft: Position::default() };
        assert!(matches!(store.lookup(&stored.key, &none, hard(1)), Found::Purged));
        let mut newer = Object::clone(&stored);
        newer.head.fence = Position(5);
        assert!(store.put(Arc::new(newer), 32));
        assert!(matches!(store.lookup(&stored.key, &none, hard(5)), Found::Object(_)));
        assert!(matches!(store.lookup(&stored.key, &none, hard(6)), Found::Purged));
        store.fences().apply(&Target::Url(stored.key.url().into()), Kind::Soft, Position(6));
        let Found::Object(found) = store.lookup(&stored.key, &none, hard(5)) else { panic!() };
        assert_eq!(store.judge(&found, hard(5)), Verdict::Stale);
        assert_eq!(store.judge(&stored, hard(5)), Verdict::Purged);
    }

    /// The whole key is compared, not the hash alone: two texts with one hash could be made on purpose.
    #[test]
    fn pitfall_50_equal_hashes_are_not_equal_keys() {
        let store = Store::new(1 << 20, 1 << 17, LAYOUT);
        let none = HeaderMap::new();
        let (mine, yours) = (object("/a", &none, &none, b"mine"), object("/b", &none, &none, b""));
        assert!(store.put(Arc::clone(&mine), 32));
        let forged = yours.key.clone().with_hash(mine.key.hash());
        assert!(matches!(look(&store, &forged, &none), Found::Nothing));
        assert!(store.all(&forged).is_empty());
        assert_eq!(found(look(&store, &mine.key, &none)).unwrap(), b"mine");
    }

    /// Who reads a body reads on, whatever becomes of its place.
    #[test]
    fn pitfall_53_what_is_evicted_stays_for_its_readers() {
        let store = Store::new(1 << 20, 1 << 17, LAYOUT);
        let none = HeaderMap::new();
        let first = object("/a", &none, &none, &[7; 50_000]);
        assert!(store.put(Arc::clone(&first), 32));
        let held = look(&store, &first.key, &none);
        for n in 0..200 {
            let path = format!("/{n}");
            let other = object(&path, &none, &none, &[1; 50_000]);
            assert!(store.put(Arc::clone(&other), 32));
            // Asked for more often than what is held, so that this one is what goes.
            for _ in 0..20 {
                look(&store, &other.key, &none);
            }
        }
        store.remove(&first);
        assert!(store.memory().stats().bytes <= 1 << 20);
        assert!(matches!(look(&store, &first.key, &none), Found::Nothing));
        assert_eq!(found(held).unwrap(), [7; 50_000]);
    }
}
