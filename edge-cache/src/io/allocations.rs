//! Proof that objects take of the allocator what they are weighed with.
#![expect(unsafe_code, reason = "an allocator that counts is the only witness")]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use shared::config::StorePolicy;
use tikv_jemallocator::{Jemalloc, usable_size};

use crate::key::{CacheKey, KeyRules};
use crate::semantics::vary::VariantKey;
use crate::store::memory::Settings;
use crate::store::object::ENTRY;
use crate::store::object::tests::object;
use crate::store::{Memory, Object, Version};

struct Counting;

thread_local! {
    static TAKEN: Cell<u64> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What the program's allocator has taken for it.
fn count(pointer: *mut u8, is_taken: bool) {
    // SAFETY: it is what the allocator has just given, or is about to take back.
    let bytes = unsafe { usable_size(pointer) } as u64;
    let change =
        |taken: u64| if is_taken { taken.wrapping_add(bytes) } else { taken.wrapping_sub(bytes) };
    let _ = TAKEN.try_with(|taken| taken.set(change(taken.get())));
}

// SAFETY: everything is the allocator's work; the counter is the thread's own and takes no memory itself.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as promised by our caller.
        let pointer = unsafe { Jemalloc.alloc(layout) };
        count(pointer, true);
        pointer
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(pointer, false);
        // SAFETY: as promised by our caller.
        unsafe { Jemalloc.dealloc(pointer, layout) }
    }
}

/// What was made, and how much memory this thread has more than before.
fn taken<T>(make: impl FnOnce() -> T) -> (T, u64) {
    let before = TAKEN.get();
    let made = make();
    (made, TAKEN.get().wrapping_sub(before))
}

fn plain(number: usize, body: usize) -> Object {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("content-type", "image/webp"),
        ("cache-control", "public, max-age=31536000, immutable"),
        ("etag", "\"5f3a9c-1b2\""),
        ("last-modified", "Tue, 15 Sep 2026 08:12:31 GMT"),
        ("date", "Sat, 21 Nov 2026 13:00:40 GMT"),
        ("server", "nginx"),
        ("accept-ranges", "bytes"),
        ("x-content-type-options", "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let own = HeaderValue::from_maybe_shared(Bytes::from(vec![b'x'; number % 50]));
    headers.insert("x-of-its-own", own.unwrap());
    let like = object("/", &headers, &HeaderMap::new(), b"");
    let path = format!("/{number:x}/{}", "a".repeat(number % 41));
    let rules = KeyRules::default();
    let key = CacheKey::new("http", "a.test", &path, None, &HeaderMap::new(), &rules);
    let pieces = vec![Bytes::from(vec![7; body / 3]), Bytes::from(vec![7; body - body / 3])];
    Object::new(key, VariantKey::NONE, like.head(), pieces)
}

/// Whatever the lengths: short bodies, which lie behind their heads, and long ones.
#[test]
fn objects_weigh_what_they_take() {
    let bodies = (0..2000).map(|n| n * 7).chain([16_384, 16_385, 50_000, 100_000, 1 << 20]);
    for (number, body) in bodies.enumerate() {
        let (made, bytes) = taken(|| Arc::new(plain(number, body)));
        let weight = made.weight() - ENTRY;
        assert_eq!(made.whole().map(|pieces| pieces.concat().len()), Some(body));
        // Of what is longer than 14 KiB, the pages at the end are nobody's.
        let steps = if body < 14 << 10 { 0 } else { body as u64 / 4 };
        assert!(weight <= bytes && bytes <= weight + steps, "{body}: {weight} for {bytes}");
        let (again, bytes) = taken(|| Arc::new(made.with_head(&made.head())));
        drop(again);
        assert!(bytes <= weight + steps, "an update of {body}: {weight} for {bytes}");
    }
    let like = plain(1, 0);
    let (made, bytes) = taken(|| {
        let version = Arc::new(Version::new(1, like.place()));
        Arc::new(Object::segmented(like.key(), VariantKey::NONE, like.head(), version, 1 << 30))
    });
    let weight = made.weight() - ENTRY;
    assert_eq!(weight, bytes);
}

#[test]
fn an_entry_weighs_what_tables_take() {
    const COUNT: usize = 60_000;
    let objects: Vec<_> = (0..COUNT).map(|number| Arc::new(plain(number, 1))).collect();
    for (policy, off) in
        [(StorePolicy::SizeAware, 8), (StorePolicy::S3Fifo, 12), (StorePolicy::Lru, 12)]
    {
        let (memory, bytes) = taken(|| {
            let memory = Memory::new(Settings { policy, ..Settings::new(1 << 30, 1 << 20) });
            objects.iter().for_each(|object| assert!(memory.insert(Arc::clone(object))));
            memory
        });
        let each = bytes / COUNT as u64;
        assert!(each.abs_diff(ENTRY) <= off, "{policy:?}: {each} bytes an entry");
        assert_eq!(memory.stats().objects, COUNT as u64);
    }
}

/// At most 250 bytes, the key and the allocator's steps among them.
#[test]
fn what_an_object_takes_beside_its_fields_and_body() {
    let fields = |object: &Object| {
        let lines = object.head().headers;
        lines.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>() as u64
    };
    let mut beside = 0;
    for number in 0..1000 {
        let object = plain(number, number * 7 % 2000);
        beside += object.weight() - fields(&object) - object.length();
    }
    assert!(beside / 1000 <= 250, "{} bytes", beside / 1000);
}
