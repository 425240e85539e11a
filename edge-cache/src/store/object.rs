//! A stored response: its head, and its body.
//!
//! Most objects are small, and what a cache takes beside their bytes decides how many it holds. So an object is its numbers,
//! in as few bytes as they need, and one block for all that has no fixed length, with a short body at its end
//! ([`super::content`]); and it weighs what these take of the allocator. The block without the body is also what lies on disk
//! ([`super::record`]): the key's length and text, the names of Vary and how many there are, the variant where there is one,
//! tags, and from [`Object::fields`] on the fields.

use std::mem::size_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use shared::time::UnixMillis;
use xxhash_rust::xxh3::xxh3_128;

use crate::key::CacheKey;
use crate::purge::{Position, TagList};
use crate::semantics::compress::Coding;
use crate::semantics::conditional::same_strong_validator;
use crate::semantics::fields::{
    pass_name, push_fields, push_name, push_number, take_bytes, take_name, take_number,
};
use crate::semantics::freshness::{Lifetimes, Source};
use crate::semantics::vary::{VariantKey, Vary};
use crate::semantics::{Fields, Life, Lines as _, SharedFields, StoredHead};

use super::allocator::{COUNTERS, allocated, cut};
use super::below::Asked;
use super::content::{Apart, Beside, Content, Kept};
use super::version::Version;

/// What the memory tier's table and its policy take for an entry. A test measures it, see `io::allocations`; so does
/// `cargo run --release -p benches --bin object_memory`.
pub(crate) const ENTRY: u64 = 76;

/// Where an object lies: a key's hash and a variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ObjectKey {
    /// [`CacheKey::hash`].
    pub key: u128,
    /// Which of the key's variants.
    pub variant: VariantKey,
}

/// A number in so many bytes; a larger one counts as the largest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Narrow<const N: usize>([u8; N]);

impl<const N: usize> Narrow<N> {
    pub(super) fn of(number: u64) -> Self {
        let bytes = number.min((1 << (8 * N)) - 1).to_le_bytes();
        Self(std::array::from_fn(|at| bytes.get(at).copied().unwrap_or_default()))
    }

    pub(super) fn get(self) -> u64 {
        self.0.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

/// A duration in milliseconds, up to 34 years.
pub(super) type Millis = Narrow<5>;

impl Millis {
    pub(super) fn of_duration(duration: Duration) -> Self {
        Self::of(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn duration(self) -> Duration {
        Duration::from_millis(self.get())
    }
}

/// A status in the lower ten bits, where a lifetime comes from above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct About(pub(super) u16);

const SOURCES: [Source; 8] = [
    Source::Targeted,
    Source::Surrogate,
    Source::SMaxage,
    Source::MaxAge,
    Source::Expires,
    Source::NegativeTtl,
    Source::Heuristic,
    Source::Default,
];

impl About {
    fn of(status: StatusCode, source: Source) -> Self {
        let place = SOURCES.iter().position(|known| *known == source).unwrap_or_default();
        Self(status.as_u16() | (place as u16) << 10)
    }

    /// From a number that anybody has written.
    pub(super) fn checked(number: u16) -> Option<Self> {
        let is_status = StatusCode::from_u16(number & 0x3ff).is_ok();
        (is_status && usize::from(number >> 10) < SOURCES.len()).then_some(Self(number))
    }

    fn status(self) -> StatusCode {
        StatusCode::from_u16(self.0 & 0x3ff).unwrap_or_default()
    }

    fn source(self) -> Source {
        SOURCES.get(usize::from(self.0 >> 10)).copied().unwrap_or(Source::Default)
    }
}

/// A wait that is none.
pub(super) const NO_WAIT: u32 = u32::MAX;

/// Bits of [`Object::flags`].
pub(super) mod flag {
    pub(in crate::store) const MUST_REVALIDATE: u8 = 1;
    pub(in crate::store) const NO_CACHE: u8 = 1 << 1;
    pub(in crate::store) const IMMUTABLE: u8 = 1 << 2;
    pub(in crate::store) const ALL_TAGS: u8 = 1 << 3;
    pub(in crate::store) const VARY_STAR: u8 = 1 << 4;
    pub(in crate::store) const COMBINABLE: u8 = 1 << 5;
    pub(in crate::store) const VARIANT: u8 = 1 << 6;
    /// The body lies at the end of the block. On disk it never does.
    pub(in crate::store) const BODY: u8 = 1 << 7;
}

/// A stored response. Never changed: an update makes a new one that shares the body.
#[derive(Clone)]
pub struct Object {
    /// What is to be read of it, [`Self::block`] and [`Self::whole`] say.
    pub(crate) memory: Arc<[u8]>,
    pub(crate) apart: Apart,
    pub(super) body_id: u64,
    pub(super) fence: Position,
    pub(super) length: Narrow<6>,
    pub(super) response_time: Narrow<6>,
    pub(super) initial_age: Millis,
    pub(super) fresh: Millis,
    pub(super) while_revalidate: Millis,
    pub(super) if_error: Millis,
    /// Milliseconds from the request to the response.
    pub(super) took: u32,
    /// Milliseconds, or [`NO_WAIT`].
    pub(super) after_wait: u32,
    /// Where the fields begin in the block.
    pub(super) fields_at: u32,
    pub(super) about: About,
    pub(super) flags: u8,
    /// What the disks know of it. An update of the head leaves it.
    pub asked: Asked,
}

/// What an object says before its fields.
pub(super) struct Beginning<'a> {
    pub(super) key: &'a [u8],
    /// What follows the names of Vary.
    pub(super) rest: &'a [u8],
    /// From the number of names in Vary on.
    pub(super) vary: &'a [u8],
}

impl Object {
    /// With a body of its own.
    pub fn new(key: CacheKey, variant: VariantKey, head: StoredHead, body: Vec<Bytes>) -> Self {
        let body = Content::Whole(body);
        let length = body.length().unwrap_or_default();
        Self::made(key.text(), variant, &head, Kept::new(body), length, next_body_id())
    }

    /// With a body of `length` bytes in segments.
    pub fn segmented(
        key: CacheKey,
        variant: VariantKey,
        head: StoredHead,
        version: Arc<Version>,
        length: u64,
    ) -> Self {
        let body = Kept::new(Content::Segments(version));
        Self::made(key.text(), variant, &head, body, length, next_body_id())
    }

    fn made(
        key: &str,
        variant: VariantKey,
        head: &StoredHead,
        body: Kept,
        length: u64,
        body_id: u64,
    ) -> Self {
        let lifetimes = head.lifetimes;
        let tags = TagList::from(&head.tags);
        let mut flags = 0;
        let mut set = |bit, is: bool| flags |= if is { bit } else { 0 };
        set(flag::MUST_REVALIDATE, lifetimes.must_revalidate);
        set(flag::NO_CACHE, lifetimes.no_cache);
        set(flag::IMMUTABLE, lifetimes.immutable);
        set(flag::ALL_TAGS, tags.has_all());
        set(flag::VARY_STAR, head.vary == Vary::Star);
        set(flag::COMBINABLE, same_strong_validator(&head.headers, &head.headers));
        set(flag::VARIANT, variant != VariantKey::NONE);
        let mut block = Vec::new();
        push_number(&mut block, key.len() as u64);
        block.extend_from_slice(key.as_bytes());
        push_names(&mut block, &head.vary);
        if variant != VariantKey::NONE {
            block.extend(variant.0.to_le_bytes());
        }
        block.extend_from_slice(tags.bytes());
        let fields_at = u32::try_from(block.len()).unwrap_or(u32::MAX);
        push_fields(&mut block, &head.headers);
        let millis = |duration: Duration| {
            u32::try_from(duration.as_millis()).unwrap_or(NO_WAIT).min(NO_WAIT - 1)
        };
        // A part of a millisecond counts as age, and not as life.
        let initial_age = head.initial_age.saturating_add(Duration::from_nanos(999_999));
        let (memory, apart) = match body {
            Kept::Beside(body) => (Arc::from(block), Apart::Beside(Some(body))),
            Kept::Behind(pieces) => {
                flags |= flag::BODY;
                joined(block, &pieces)
            }
        };
        Self {
            memory,
            apart,
            body_id,
            fence: head.fence,
            length: Narrow::of(length),
            response_time: Narrow::of(head.response_time.0),
            initial_age: Millis::of_duration(initial_age),
            fresh: Millis::of_duration(lifetimes.fresh),
            while_revalidate: Millis::of_duration(lifetimes.while_revalidate),
            if_error: Millis::of_duration(lifetimes.if_error),
            took: millis(head.response_time.since(head.request_time)),
            after_wait: lifetimes.after_wait.map_or(NO_WAIT, millis),
            fields_at,
            about: About::of(head.status, lifetimes.source),
            flags,
            asked: Asked::default(),
        }
    }

    /// The same body under a new head (RFC 9111 §4.3.4).
    #[must_use]
    pub fn with_head(&self, head: &StoredHead) -> Self {
        self.updated(self.variant(), head)
    }

    /// The same body under a new head, of a variant that may be another one.
    #[must_use]
    pub fn updated(&self, variant: VariantKey, head: &StoredHead) -> Self {
        let made =
            Self::made(self.key_text(), variant, head, self.kept(), self.length(), self.body_id);
        Self { asked: self.asked.clone(), ..made }
    }

    /// An encoding of its body, under its head with other fields. It lies where no request's fields lead to.
    pub fn encoding(&self, coding: Coding, headers: HeaderMap, body: Bytes) -> Self {
        let length = body.len() as u64;
        self.encoded(coding, headers, Kept::new(Content::Whole(vec![body])), length)
    }

    /// The same, with the body of one that was made before.
    pub fn encoding_like(&self, coding: Coding, headers: HeaderMap, made: &Self) -> Self {
        self.encoded(coding, headers, made.kept(), made.length())
    }

    fn encoded(&self, coding: Coding, headers: HeaderMap, body: Kept, length: u64) -> Self {
        let head = StoredHead { headers, ..self.head() };
        let variant = self.encoding_place(coding).variant;
        Self::made(self.key_text(), variant, &head, body, length, self.body_id)
    }

    /// The same with nothing in place of its body.
    #[must_use]
    pub fn without_body(&self) -> Self {
        let memory = match self.has(flag::BODY) {
            true => Arc::from(self.block()),
            false => Arc::clone(&self.memory),
        };
        let apart = Apart::Beside(None);
        Self { memory, apart, flags: self.flags & !flag::BODY, ..self.clone() }
    }

    /// The same with this body, in place of none.
    pub(super) fn with_body(self, body: Content) -> Self {
        match Kept::new(body) {
            Kept::Beside(body) => Self { apart: Apart::Beside(Some(body)), ..self },
            Kept::Behind(pieces) => {
                let (memory, apart) = joined(self.block().to_vec(), &pieces);
                Self { memory, apart, flags: self.flags | flag::BODY, ..self }
            }
        }
    }

    /// Where an encoding of it lies.
    pub fn encoding_place(&self, coding: Coding) -> ObjectKey {
        let salt = xxh3_128(coding.token().as_bytes());
        let ObjectKey { key, variant } = self.place();
        ObjectKey { key, variant: VariantKey(variant.0 ^ salt) }
    }

    /// Its head as it was stored.
    pub fn head(&self) -> StoredHead {
        StoredHead {
            status: self.status(),
            headers: self.fields().to_header_map(),
            request_time: self.request_time(),
            response_time: self.response_time(),
            initial_age: self.initial_age.duration(),
            lifetimes: self.life().lifetimes,
            vary: self.vary(),
            fence: self.fence,
            tags: self.tags().to_tags(),
        }
    }

    /// Its key. Made anew: most need no more than [`Self::key_text`].
    pub fn key(&self) -> CacheKey {
        CacheKey::of_text(self.key_text())
    }

    /// The text of its whole key, compared on every lookup.
    pub fn key_text(&self) -> &str {
        let key = self.beginning().and_then(|beginning| std::str::from_utf8(beginning.key).ok());
        key.unwrap_or_default()
    }

    /// Whether it is stored under this key: two texts with one hash could be made on purpose.
    pub fn is_of(&self, key: &CacheKey) -> bool {
        self.beginning().is_some_and(|beginning| beginning.key == key.text().as_bytes())
    }

    /// The variant that the request fields of its fetch selected.
    pub fn variant(&self) -> VariantKey {
        let variant = self.beginning().and_then(|beginning| beginning.rest.first_chunk().copied());
        match variant {
            Some(bytes) if self.has(flag::VARIANT) => VariantKey(u128::from_le_bytes(bytes)),
            _ => VariantKey::NONE,
        }
    }

    /// Which request fields select it.
    pub fn vary(&self) -> Vary {
        if self.has(flag::VARY_STAR) {
            return Vary::Star;
        }
        let names = self.beginning().and_then(|beginning| take_names(&mut { beginning.vary }));
        names.unwrap_or(Vary::Star)
    }

    /// What purges by tag find it by.
    pub fn tags(&self) -> TagList<'_> {
        let rest = self.beginning().map_or(&[][..], |beginning| beginning.rest);
        let variant = if self.has(flag::VARIANT) { size_of::<VariantKey>() } else { 0 };
        TagList::of(rest.get(variant..).unwrap_or_default(), self.has(flag::ALL_TAGS))
    }

    /// Its fields.
    pub fn fields(&self) -> Fields<'_> {
        Fields::of(self.block().get(self.fields_at as usize..).unwrap_or_default())
    }

    /// Its fields, for a response: their values are shared with it.
    pub fn shared_fields(&self) -> SharedFields {
        let fields = self.fields_at as usize..self.block().len();
        SharedFields::of(self.shared(fields))
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.about.status()
    }

    /// Purges up to this one are known to have come before its fetch, or before its last revalidation.
    pub const fn fence(&self) -> Position {
        self.fence
    }

    /// When the request for it was sent, see [`StoredHead::request_time`].
    pub fn request_time(&self) -> UnixMillis {
        self.response_time() - Duration::from_millis(self.took.into())
    }

    /// When it arrived, see [`StoredHead::response_time`].
    pub fn response_time(&self) -> UnixMillis {
        UnixMillis(self.response_time.get())
    }

    /// What its age and lifetime are counted from.
    pub fn life(&self) -> Life {
        Life {
            response_time: self.response_time(),
            initial_age: self.initial_age.duration(),
            lifetimes: Lifetimes {
                fresh: self.fresh.duration(),
                source: self.about.source(),
                while_revalidate: self.while_revalidate.duration(),
                if_error: self.if_error.duration(),
                after_wait: match self.after_wait {
                    NO_WAIT => None,
                    wait => Some(Duration::from_millis(wait as u64)),
                },
                must_revalidate: self.has(flag::MUST_REVALIDATE),
                no_cache: self.has(flag::NO_CACHE),
                immutable: self.has(flag::IMMUTABLE),
            },
        }
    }

    /// RFC 9111 §4.2.3: current_age.
    pub fn current_age(&self, now: UnixMillis) -> Duration {
        self.life().current_age(now)
    }

    /// What is left of its lifetime in milliseconds; negative once it is stale.
    pub fn remaining_millis(&self, now: UnixMillis) -> i64 {
        self.life().remaining_millis(now)
    }

    /// Its whole body, in two pieces, the second or both of which may be empty; `None` where it lies in segments.
    pub fn whole(&self) -> Option<[Bytes; 2]> {
        let behind = || self.shared(self.block().len()..self.memory.len());
        match &self.apart {
            Apart::Beside(Some(body)) => body.whole(),
            Apart::Beside(None) => Some([behind(), Bytes::new()]),
            Apart::Rest(rest) => Some([behind(), Bytes::from_owner(Arc::clone(rest))]),
        }
    }

    /// The whole body's length.
    pub fn length(&self) -> u64 {
        self.length.get()
    }

    /// Which body it is: an update of the head leaves it. That of an encoding is the one that it was made of.
    pub const fn body_id(&self) -> u64 {
        self.body_id
    }

    /// Whether parts of the body that were fetched apart may be put together: it has a strong validator (RFC 9111 §3.4).
    pub const fn is_combinable(&self) -> bool {
        self.has(flag::COMBINABLE)
    }

    /// Its version, when its body lies in segments.
    pub fn version(&self) -> Option<&Arc<Version>> {
        match &self.apart {
            Apart::Beside(Some(body)) => match &**body {
                Beside::Segments(version) => Some(version),
                Beside::Whole(_) => None,
            },
            _ => None,
        }
    }

    /// Where it lies.
    pub fn place(&self) -> ObjectKey {
        ObjectKey { key: xxh3_128(self.key_text().as_bytes()), variant: self.variant() }
    }

    /// The memory that it takes, all told but for segments, which are weighed one by one.
    pub fn weight(&self) -> u64 {
        let own = allocated(COUNTERS + size_of::<Self>());
        ENTRY + own + allocated(COUNTERS + self.memory.len()) + self.apart.weight()
    }

    /// All of the block but a body at its end.
    pub(super) fn block(&self) -> &[u8] {
        let body = if self.has(flag::BODY) { self.length() as usize } else { 0 };
        let end = self.memory.len().saturating_sub(body.saturating_sub(self.apart.rest()));
        self.memory.get(..end).unwrap_or_default()
    }

    fn shared(&self, part: std::ops::Range<usize>) -> Bytes {
        if part.is_empty() || part.end > self.memory.len() {
            return Bytes::new();
        }
        Bytes::from_owner(Arc::clone(&self.memory)).slice(part)
    }

    fn kept(&self) -> Kept {
        match &self.apart {
            Apart::Beside(Some(body)) => Kept::Beside(Arc::clone(body)),
            _ => Kept::Behind(self.whole().into_iter().flatten().collect()),
        }
    }

    const fn has(&self, bit: u8) -> bool {
        self.flags & bit != 0
    }

    /// What stands before the fields. There is one: this is written here, and checked where it was read.
    fn beginning(&self) -> Option<Beginning<'_>> {
        Beginning::of(self.memory.get(..self.fields_at as usize)?)
    }
}

impl<'a> Beginning<'a> {
    pub(super) fn of(block: &'a [u8]) -> Option<Self> {
        let mut rest = block;
        let length = take_number(&mut rest)?;
        let key = take_bytes(&mut rest, length)?;
        let vary = rest;
        for _ in 0..take_number(&mut rest)? {
            pass_name(&mut rest)?;
        }
        Some(Self { key, rest, vary })
    }
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Object")
            .field("key", &self.key_text())
            .field("variant", &self.variant())
            .field("length", &self.length())
            .field("body_id", &self.body_id)
            .field("head", &self.head())
            .finish_non_exhaustive()
    }
}

/// A block with a body behind it, the end of which may lie apart.
fn joined(mut block: Vec<u8>, body: &[Bytes]) -> (Arc<[u8]>, Apart) {
    // A first piece without any of the body is none.
    let least = block.len() + 1;
    block.reserve_exact(body.iter().map(Bytes::len).sum());
    body.iter().for_each(|piece| block.extend_from_slice(piece));
    let at = cut(block.len(), COUNTERS, least);
    match block.split_at_checked(at) {
        Some((first, rest)) if !rest.is_empty() => (Arc::from(first), Apart::Rest(Arc::from(rest))),
        _ => (Arc::from(block), Apart::Beside(None)),
    }
}

/// A list of Vary; `*` has no names.
pub(super) fn push_names(out: &mut Vec<u8>, vary: &Vary) {
    push_number(out, vary.names().len() as u64);
    vary.names().iter().for_each(|name| push_name(out, name));
}

pub(super) fn take_names(rest: &mut &[u8]) -> Option<Vary> {
    let count = take_number(rest)?;
    let mut names = Vec::new();
    for _ in 0..count {
        // Each takes a byte at least: a count that lies ends here.
        names.push(take_name(rest)?);
    }
    Vary::of_names(names)
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

#[cfg(test)]
pub(crate) mod tests;
