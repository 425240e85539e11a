//! A stored response: its head, and its body. One of at most a segment lies with the head, in pieces that readers share;
//! a longer one lies beside it in segments.

use std::mem::size_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue};
use xxhash_rust::xxh3::xxh3_128;

use crate::key::CacheKey;
use crate::semantics::StoredHead;
use crate::semantics::compress::Coding;
use crate::semantics::conditional::same_strong_validator;
use crate::semantics::vary::VariantKey;

use super::below::Asked;
use super::version::Version;

/// What an object costs beside its fields and bytes: itself, its key, the store's entry and the allocator's share.
/// Measured by `cargo run --release -p benches --bin object_memory`.
const OVERHEAD: usize = 830;

/// Where an object lies: a key's hash and a variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ObjectKey {
    /// [`CacheKey::hash`].
    pub key: u128,
    /// Which of the key's variants.
    pub variant: VariantKey,
}

/// Where a body lies.
#[derive(Clone, Debug)]
pub enum Content {
    /// Here, whole.
    Inline(Box<[Bytes]>),
    /// In segments, each of which may be stored or not.
    Segments(Arc<Version>),
}

/// A stored response. Never changed: an update makes a new one that shares the body.
#[derive(Clone, Debug)]
pub struct Object {
    /// The whole key, compared on every lookup.
    pub key: CacheKey,
    /// The variant that the request fields of its fetch selected.
    pub variant: VariantKey,
    /// The head.
    pub head: StoredHead,
    /// The body.
    pub body: Content,
    /// The whole body's length.
    pub length: u64,
    /// Which body it is: an update of the head leaves it. That of an encoding is the one that it was made of.
    pub body_id: u64,
    /// Whether parts of the body that were fetched apart may be put together: it has a strong validator (RFC 9111 §3.4).
    pub is_combinable: bool,
    /// What the disks know of it. An update of the head leaves it.
    pub asked: Asked,
}

impl Object {
    /// With a body of its own.
    pub fn new(key: CacheKey, variant: VariantKey, head: StoredHead, body: Vec<Bytes>) -> Self {
        let length = body.iter().map(|piece| piece.len() as u64).sum();
        let body = Content::Inline(body.into_boxed_slice());
        Self::made(key, variant, head, body, length, next_body_id())
    }

    /// With a body of `length` bytes in segments.
    pub fn segmented(
        key: CacheKey,
        variant: VariantKey,
        head: StoredHead,
        version: Arc<Version>,
        length: u64,
    ) -> Self {
        let body = Content::Segments(version);
        Self::made(key, variant, head, body, length, next_body_id())
    }

    /// As it was before it lay on disk.
    pub(super) fn restored(
        key: CacheKey,
        variant: VariantKey,
        head: StoredHead,
        body: Content,
        length: u64,
        body_id: u64,
    ) -> Self {
        Self::made(key, variant, head, body, length, body_id)
    }

    fn made(
        key: CacheKey,
        variant: VariantKey,
        head: StoredHead,
        body: Content,
        length: u64,
        body_id: u64,
    ) -> Self {
        let head = StoredHead { headers: compact(&head.headers), ..head };
        let is_combinable = same_strong_validator(&head.headers, &head.headers);
        let asked = Asked::default();
        Self { key, variant, head, body, length, body_id, is_combinable, asked }
    }

    /// The same body under a new head (RFC 9111 §4.3.4).
    pub fn with_head(&self, head: StoredHead) -> Self {
        let (key, body) = (self.key.clone(), self.body.clone());
        let made = Self::made(key, self.variant, head, body, self.length, self.body_id);
        Self { asked: self.asked.clone(), ..made }
    }

    /// An encoding of its body, under its head with other fields. It lies where no request's fields lead to.
    pub fn encoding(&self, coding: Coding, headers: HeaderMap, body: Content, length: u64) -> Self {
        let head = StoredHead { headers, ..self.head.clone() };
        let variant = self.encoding_place(coding).variant;
        Self::made(self.key.clone(), variant, head, body, length, self.body_id)
    }

    /// Where an encoding of it lies.
    pub fn encoding_place(&self, coding: Coding) -> ObjectKey {
        let salt = xxh3_128(coding.token().as_bytes());
        ObjectKey { key: self.key.hash(), variant: VariantKey(self.variant.0 ^ salt) }
    }

    /// Its version, when its body lies in segments.
    pub const fn version(&self) -> Option<&Arc<Version>> {
        match &self.body {
            Content::Inline(_) => None,
            Content::Segments(version) => Some(version),
        }
    }

    /// Where it lies.
    pub const fn place(&self) -> ObjectKey {
        ObjectKey { key: self.key.hash(), variant: self.variant }
    }

    /// The memory that it takes, all told but for segments, which are weighed one by one.
    pub fn weight(&self) -> u64 {
        let body = match &self.body {
            Content::Inline(pieces) => self.length + (pieces.len() * 2 * size_of::<Bytes>()) as u64,
            Content::Segments(_) => size_of::<Version>() as u64,
        };
        let tags = self.head.tags.weight();
        body + (OVERHEAD + self.key.text().len() + fields(&self.head.headers) + tags) as u64
    }
}

static NEXT_BODY_ID: AtomicU64 = AtomicU64::new(0);

/// A number that no other body of this process has.
fn next_body_id() -> u64 {
    NEXT_BODY_ID.fetch_add(1, Ordering::Relaxed)
}

/// Has the bodies that are made from here on numbered from `first`: greater than the numbers of earlier runs, whose bodies
/// may lie on disk still.
pub fn number_bodies_from(first: u64) {
    NEXT_BODY_ID.fetch_max(first, Ordering::Relaxed);
}

/// A copy of fields in memory of its own. As they were received they are slices of a read buffer, all of which they
/// would keep for as long as the object is stored.
fn compact(headers: &HeaderMap) -> HeaderMap {
    let mut values = BytesMut::with_capacity(headers.values().map(HeaderValue::len).sum());
    let mut copy = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        values.extend_from_slice(value.as_bytes());
        let mut new = match HeaderValue::from_maybe_shared(values.split().freeze()) {
            Ok(new) => new,
            // The same bytes were a value before.
            Err(_) => value.clone(),
        };
        new.set_sensitive(value.is_sensitive());
        copy.append(name.clone(), new);
    }
    copy
}

/// Roughly what a header map takes: an entry and its part of the index, names that are no standard ones, values.
fn fields(headers: &HeaderMap) -> usize {
    const ENTRY: usize = 120;
    headers.iter().map(|(name, value)| ENTRY + name.as_str().len() + value.len()).sum()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::key::KeyRules;
    use crate::semantics::Policy;
    use crate::semantics::freshness::Exchange;
    use http::{Method, StatusCode};
    use shared::time::UnixMillis;

    /// An object as a fetch would make it.
    pub(crate) fn object(
        path: &str,
        response: &HeaderMap,
        request: &HeaderMap,
        body: &[u8],
    ) -> Arc<Object> {
        let key = CacheKey::new("http", "a.test", path, None, request, &KeyRules::default());
        let now = UnixMillis::from_secs(1_795_266_040);
        let exchange = Exchange {
            method: &Method::GET,
            path,
            request,
            status: StatusCode::OK,
            response,
            request_time: now,
            response_time: now,
        };
        let head = StoredHead::new(&exchange, &Policy::default()).unwrap();
        let variant = head.vary.variant(request).unwrap();
        Arc::new(Object::new(key, variant, head, vec![Bytes::copy_from_slice(body)]))
    }

    #[test]
    fn stored_fields_do_not_hold_a_read_buffer() {
        let buffer = Bytes::from(b"text/css".repeat(1000));
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_maybe_shared(buffer.slice(..8)).unwrap());
        headers.append("x-a", HeaderValue::from_static("1"));
        headers.append("x-a", HeaderValue::from_static("2"));
        let stored = object("/a", &headers, &HeaderMap::new(), b"body");
        assert_eq!(stored.head.headers["content-type"], "text/css");
        assert_eq!(stored.head.headers.get_all("x-a").iter().count(), 2);
        drop(headers);
        assert!(buffer.is_unique());
    }

    #[test]
    fn a_new_head_shares_the_body() {
        let old = object("/a", &HeaderMap::new(), &HeaderMap::new(), b"body");
        let new = old.with_head(old.head.clone());
        let (Content::Inline(a), Content::Inline(b)) = (&old.body, &new.body) else {
            panic!("a small body lies with its head")
        };
        assert_eq!(a[0].as_ptr(), b[0].as_ptr());
        assert_eq!(new.length, 4);
        assert!(new.weight() > 4);
    }
}
