//! What a store finds, and what it does not find any more.

use super::memory::Settings;
use super::*;
use crate::purge::{Kind, Position, Target};
use crate::semantics::StoredHead;
use object::tests::object;

const LAYOUT: Layout = Layout::new(1 << 16);
fn look(store: &Store, key: &CacheKey, headers: &HeaderMap) -> Found {
    store.lookup(key, headers, Floor::default())
}

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), http::HeaderValue::from_static(value)))
        .collect()
}

fn found(found: Found) -> Option<Vec<u8>> {
    match found {
        Found::Object(object) => object.whole().map(|pieces| pieces.concat()),
        _ => None,
    }
}

/// RFC 9111 §4.1: a stored response is selected by the request fields that its Vary names.
#[test]
fn rfc9111_4_1_variants_are_told_apart() {
    let store = Store::new(Settings::new(1 << 20, 1 << 17), LAYOUT, 0);
    let (en, de) = (headers(&[("accept-language", "en")]), headers(&[("accept-language", "de")]));
    let vary = headers(&[("vary", "accept-language")]);
    let english = object("/a", &vary, &en, b"hello");
    assert!(matches!(look(&store, &english.key(), &en), Found::Nothing));
    store.note_vary(&english.key(), &english.vary());
    assert_eq!(store.expected_variant(&english.key(), &en), english.variant());
    assert_ne!(store.expected_variant(&english.key(), &de), english.variant());
    assert!(store.put(Arc::clone(&english), 32));
    assert_eq!(found(look(&store, &english.key(), &en)).unwrap(), b"hello");
    match look(&store, &english.key(), &de) {
        Found::OtherVariants(others) => assert_eq!(others.len(), 1),
        other => panic!("{other:?}"),
    }
    let german = object("/a", &vary, &de, b"hallo");
    assert!(store.put(Arc::clone(&german), 32));
    assert_eq!(found(look(&store, &german.key(), &de)).unwrap(), b"hallo");
    assert_eq!(found(look(&store, &german.key(), &en)).unwrap(), b"hello");
    assert_eq!(store.all(&german.key()).len(), 2);
    store.fences().apply(&Target::All, Kind::Hard, Position(1));
    assert!(store.all(&german.key()).is_empty());
    assert!(matches!(look(&store, &german.key(), &de), Found::Purged));
}

/// RFC 9111 §4: what a newer response has replaced does not come back with the next one.
#[test]
fn rfc9111_4_what_was_replaced_stays_away() {
    let store = Store::new(Settings::new(1 << 20, 1 << 17), LAYOUT, 0);
    let none = HeaderMap::new();
    let (en, de) = (headers(&[("accept-language", "en")]), headers(&[("accept-language", "de")]));
    let vary = headers(&[("vary", "accept-language")]);
    assert!(store.put(object("/a", &vary, &en, b"first"), 32));
    let second = object("/a", &none, &none, b"second");
    assert!(store.put(Arc::clone(&second), 32));
    assert_eq!(found(look(&store, &second.key(), &en)).unwrap(), b"second");
    assert!(store.put(object("/a", &vary, &de, b"third"), 32));
    match look(&store, &second.key(), &en) {
        Found::OtherVariants(others) => assert_eq!(others.len(), 1),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_newest_response_says_whether_there_are_variants() {
    let store = Store::new(Settings::new(1 << 20, 1 << 17), LAYOUT, 0);
    let none = HeaderMap::new();
    let plain = object("/a", &none, &none, b"plain");
    let vary = headers(&[("vary", "accept-language")]);
    assert!(store.put(Arc::clone(&plain), 32));
    assert!(store.put(object("/a", &vary, &headers(&[("accept-language", "en")]), b"hello"), 32));
    assert!(found(look(&store, &plain.key(), &none)).is_none(), "the plain one was replaced");
    assert!(store.put(Arc::clone(&plain), 32));
    assert_eq!(
        found(look(&store, &plain.key(), &headers(&[("accept-language", "en")]))).unwrap(),
        b"plain"
    );
}

#[test]
fn variants_of_a_key_are_bounded() {
    let store = Store::new(Settings::new(1 << 22, 1 << 17), LAYOUT, 0);
    let vary = headers(&[("vary", "x-any")]);
    for n in 0..30 {
        let mut request = HeaderMap::new();
        request.insert("x-any", http::HeaderValue::from(n));
        let variant = object("/a", &vary, &request, b"v");
        assert!(store.put(Arc::clone(&variant), 8));
        assert!(store.all(&variant.key()).len() <= 8);
    }
}

#[test]
fn an_uncacheable_key_is_remembered_until_something_is_stored() {
    let store = Store::new(Settings::new(1 << 20, 1 << 17), LAYOUT, 0);
    let none = HeaderMap::new();
    let plain = object("/a", &none, &none, b"plain");
    store.mark_uncacheable(&plain.key());
    assert!(matches!(look(&store, &plain.key(), &none), Found::Uncacheable));
    assert!(store.put(Arc::clone(&plain), 32));
    store.remove(&plain);
    assert!(matches!(look(&store, &plain.key(), &none), Found::Nothing));
}

/// A parent is asked for something newer than it has, and what has a late enough fence is found still.
#[test]
fn what_is_below_the_floor_is_not_found() {
    let store = Store::new(Settings::new(1 << 20, 1 << 17), LAYOUT, 0);
    let none = HeaderMap::new();
    let stored = object("/a", &none, &none, b"old");
    assert!(store.put(Arc::clone(&stored), 32));
    let hard = |at| Floor { hard: Position(at), soft: Position::default() };
    assert!(matches!(store.lookup(&stored.key(), &none, hard(1)), Found::Purged));
    let newer = stored.with_head(&StoredHead { fence: Position(5), ..stored.head() });
    assert!(store.put(Arc::new(newer), 32));
    assert!(matches!(store.lookup(&stored.key(), &none, hard(5)), Found::Object(_)));
    assert!(matches!(store.lookup(&stored.key(), &none, hard(6)), Found::Purged));
    store.fences().apply(&Target::Url(stored.key().url().into()), Kind::Soft, Position(6));
    let Found::Object(found) = store.lookup(&stored.key(), &none, hard(5)) else { panic!() };
    assert_eq!(store.judge(&found, hard(5)), Verdict::Stale);
    assert_eq!(store.judge(&stored, hard(5)), Verdict::Purged);
}

/// The whole key is compared, not the hash alone: two texts with one hash could be made on purpose.
#[test]
fn pitfall_50_equal_hashes_are_not_equal_keys() {
    let store = Store::new(Settings::new(1 << 20, 1 << 17), LAYOUT, 0);
    let none = HeaderMap::new();
    let (mine, yours) = (object("/a", &none, &none, b"mine"), object("/b", &none, &none, b""));
    assert!(store.put(Arc::clone(&mine), 32));
    let forged = yours.key().with_hash(mine.key().hash());
    assert!(matches!(look(&store, &forged, &none), Found::Nothing));
    assert!(store.all(&forged).is_empty());
    assert_eq!(found(look(&store, &mine.key(), &none)).unwrap(), b"mine");
}

/// Who reads a body reads on, whatever becomes of its place.
#[test]
fn pitfall_53_what_is_evicted_stays_for_its_readers() {
    let store = Store::new(Settings::new(1 << 20, 1 << 17), LAYOUT, 0);
    let none = HeaderMap::new();
    let first = object("/a", &none, &none, &[7; 50_000]);
    assert!(store.put(Arc::clone(&first), 32));
    let held = look(&store, &first.key(), &none);
    for n in 0..200 {
        let path = format!("/{n}");
        let other = object(&path, &none, &none, &[1; 50_000]);
        assert!(store.put(Arc::clone(&other), 32));
        // Asked for more often than what is held, so that this one is what goes.
        for _ in 0..20 {
            look(&store, &other.key(), &none);
        }
    }
    store.remove(&first);
    assert!(store.memory().stats().bytes <= 1 << 20);
    assert!(matches!(look(&store, &first.key(), &none), Found::Nothing));
    assert_eq!(found(held).unwrap(), [7; 50_000]);
}

/// Disks that take everything, and say what they were told.
#[derive(Debug, Default)]
struct Disks(std::sync::Mutex<std::collections::BTreeMap<(u128, u128), Vec<u8>>>);

impl Disks {
    fn at(place: ObjectKey) -> (u128, u128) {
        (place.key, place.variant.0)
    }

    fn body(&self, place: ObjectKey) -> Option<Vec<u8>> {
        self.0.lock().unwrap().get(&Self::at(place)).cloned()
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl Below for Disks {
    fn contains(&self, place: ObjectKey) -> bool {
        self.body(place).is_some()
    }

    fn remove(&self, place: ObjectKey) {
        self.0.lock().unwrap().remove(&Self::at(place));
    }

    fn touch(&self, place: ObjectKey) {
        assert!(self.contains(place));
    }

    fn update(&self, object: &Object) {
        assert!(self.contains(object.place()));
        self.0.lock().unwrap().insert(Self::at(object.place()), b"updated".to_vec());
    }

    fn offer(&self, object: &Object, variants: Option<&Variants>, body: below::Body<'_>) {
        if let Some(variants) = variants {
            self.write_variants(Variants::place(object.place().key), variants);
        }
        object.asked.settle();
        let Some(pieces) = body() else { return };
        self.0.lock().unwrap().insert(Self::at(object.place()), pieces.concat());
    }

    fn write_variants(&self, place: ObjectKey, variants: &Variants) {
        self.0.lock().unwrap().insert(Self::at(place), record::encode_variants(variants));
    }
}

fn over_disks() -> (Store, Arc<Disks>) {
    let store = Store::new(Settings::new(1 << 20, 1 << 17), LAYOUT, 0);
    let disks = Arc::new(Disks::default());
    store.set_below(Arc::clone(&disks) as Arc<dyn Below>);
    (store, disks)
}

#[test]
fn what_is_replaced_or_removed_leaves_the_disks() {
    let (store, disks) = over_disks();
    let none = HeaderMap::new();
    let first = object("/a", &none, &none, b"first");
    assert!(store.put(Arc::clone(&first), 32));
    assert_eq!(disks.body(first.place()).unwrap(), b"first");
    let updated = Arc::new(first.with_head(&first.head()));
    assert!(store.put(Arc::clone(&updated), 32));
    assert_eq!(disks.body(first.place()).unwrap(), b"updated", "a 304 keeps the body");
    let second = object("/a", &none, &none, b"second");
    assert!(store.put(Arc::clone(&second), 32));
    assert_eq!(disks.body(first.place()).unwrap(), b"second");
    store.remove(&second);
    assert_eq!(disks.len(), 0);
    // One that has left them meanwhile is written anew.
    assert!(store.put(updated, 32));
    assert_eq!(disks.body(first.place()).unwrap(), b"first");
}

#[test]
fn what_memory_has_let_go_is_missing_and_comes_back() {
    let (store, disks) = over_disks();
    let none = HeaderMap::new();
    let stored = object("/a", &none, &none, b"stored");
    assert!(store.missing(&stored.key(), &none).is_empty());
    assert!(store.put(Arc::clone(&stored), 32));
    assert!(store.missing(&stored.key(), &none).is_empty());
    store.memory().remove(stored.place());
    let missing = store.missing(&stored.key(), &none);
    assert_eq!(missing, Missing { variants: false, objects: vec![VariantKey::NONE] });
    assert!(matches!(look(&store, &stored.key(), &none), Found::Nothing));
    let brought = [Arc::clone(&stored)];
    let with = store.lookup_with(&stored.key(), &none, Floor::default(), &brought);
    assert_eq!(found(with).unwrap(), b"stored", "memory need not take it");
    let turn = store.turn(stored.key().hash());
    assert!(store.promote(&stored, turn));
    assert_eq!(found(look(&store, &stored.key(), &none)).unwrap(), b"stored");
    assert_eq!(disks.len(), 1);
}

/// RFC 9111 §4: what was read from disk while something newer was stored is not used.
#[test]
fn rfc9111_4_what_comes_late_from_disk_is_not_used() {
    let (store, _) = over_disks();
    let none = HeaderMap::new();
    let (old, new) = (object("/a", &none, &none, b"old"), object("/a", &none, &none, b"new"));
    assert!(store.put(Arc::clone(&old), 32));
    store.memory().remove(old.place());
    let turn = store.turn(old.key().hash());
    assert!(store.put(Arc::clone(&new), 32));
    store.memory().remove(new.place());
    assert!(!store.promote(&old, turn));
    assert!(matches!(look(&store, &old.key(), &none), Found::Nothing));
    let turn = store.turn(old.key().hash());
    store.remove(&new);
    assert!(!store.promote(&new, turn));
}

/// RFC 9111 §4.1: over a restart, too, and what was replaced before it stays away.
#[test]
fn rfc9111_4_1_variants_are_found_through_their_record() {
    let (store, disks) = over_disks();
    let none = HeaderMap::new();
    let (en, de) = (headers(&[("accept-language", "en")]), headers(&[("accept-language", "de")]));
    let vary = headers(&[("vary", "accept-language")]);
    let english = object("/a", &vary, &en, b"hello");
    assert!(store.put(Arc::clone(&english), 32));
    let restarted = || {
        let store = Store::new(Settings::new(1 << 20, 1 << 17), LAYOUT, 0);
        store.set_below(Arc::clone(&disks) as Arc<dyn Below>);
        store
    };
    let bring = |store: &Store| {
        let hash = english.key().hash();
        assert!(store.missing(&english.key(), &en).variants);
        let record = record::decode_variants(&disks.body(Variants::place(hash)).unwrap()).unwrap();
        assert!(store.promote_variants(hash, record, store.turn(hash)));
    };
    let store = restarted();
    bring(&store);
    assert_eq!(store.missing(&english.key(), &en).objects, [english.variant()]);
    assert_eq!(
        store.missing(&english.key(), &de).objects,
        [english.variant()],
        "for its validators"
    );
    // Another language is written beside it, and its record with it.
    let german = object("/a", &vary, &de, b"hallo");
    assert!(store.put(Arc::clone(&german), 32));
    let store = restarted();
    bring(&store);
    assert_eq!(store.missing(&english.key(), &de).objects, [german.variant()]);
    // One without Vary replaces them.
    assert!(store.put(object("/a", &none, &none, b"plain"), 32));
    assert_eq!(disks.len(), 1);
    let store = restarted();
    assert_eq!(store.missing(&english.key(), &en).objects, [VariantKey::NONE]);
    assert!(store.put(Arc::new(Object::clone(&german)), 1));
    assert_eq!(store.missing(&english.key(), &en), Missing::default(), "english stays away");
    // And a limit takes the oldest from disk, too.
    assert!(store.put(object("/a", &vary, &en, b"hello again"), 1));
    assert!(disks.body(german.place()).is_none());
}
