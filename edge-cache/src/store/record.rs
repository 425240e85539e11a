//! The form that heads have on disk: everything that is needed to serve a stored response, to judge it and to revalidate
//! it, but its body. The disk tier keeps records as bytes; what is damaged there never becomes a response, because it has
//! checksums, and does no harm here if it had none: decoding is total.
//!
//! **Time.** A node measures rest by a clock that begins anew with each of its runs ([`shared::io::clock::steady`]). A record
//! says how long its response had rested when it was written, by both clocks and in which run. The same run reads its own
//! clock; another adds what has passed by the wall clock, and where that was set back, nothing: no response is ever
//! younger than it was.

use std::time::Duration;

use http::StatusCode;
use shared::time::UnixMillis;

use super::Variants;
use super::object::{Content, Object};
use crate::key::CacheKey;
use crate::purge::{Position, Tags};
use crate::semantics::StoredHead;
use crate::semantics::fields::{
    Fields, push_name, push_number, take_bytes, take_name, take_number,
};
use crate::semantics::freshness::{Lifetimes, Source};
use crate::semantics::vary::{VariantKey, Vary, VaryLists};

/// The version of all that is written here, the numbers of field names included. What has another one is not read.
pub const FORMAT: u8 = 1;

/// The first byte of the record of a head.
const HEAD: u8 = b'H';
/// The first byte of the record of a key's Vary lists.
const VARIANTS: u8 = b'V';

/// What time it is, by the wall clock and by the one that has no steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// By the wall clock.
    pub wall: UnixMillis,
    /// By the clock of [`StoredHead::response_time`].
    pub steady: UnixMillis,
    /// A number that no other run of the node has, nor one that shares its disks: `steady` times of two runs cannot be
    /// compared.
    pub run: u64,
}

/// Why a record is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It was written by another version.
    #[error("a record of another format")]
    Format,
    /// It ends too early, or holds what cannot be.
    #[error("a damaged record")]
    Damaged,
}

/// Where the body of a decoded head is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lies {
    /// With its record, whole.
    Inline,
    /// In segments.
    Segments {
        /// [`super::Version::id`].
        version: u64,
        /// The size of its segments in bytes.
        segment_size: u64,
    },
}

/// A decoded head.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The whole key.
    pub key: CacheKey,
    /// The variant.
    pub variant: VariantKey,
    /// The head.
    pub head: StoredHead,
    /// The body's length.
    pub length: u64,
    /// [`Object::body_id`].
    pub body_id: u64,
    /// Where the body is.
    pub lies: Lies,
}

impl Decoded {
    /// The object, with its body as it was found. `None`: the body is not the one of this head.
    pub fn into_object(self, body: Content) -> Option<Object> {
        let Self { key, variant, head, length, body_id, lies } = self;
        let fits = match (&body, lies) {
            (Content::Inline(pieces), Lies::Inline) => {
                pieces.iter().map(|piece| piece.len() as u64).sum::<u64>() == length
            }
            (Content::Segments(found), Lies::Segments { version, .. }) => found.id() == version,
            _ => false,
        };
        fits.then(|| Object::restored(key, variant, head, body, length, body_id))
    }
}

/// Bits of a head's record.
mod flag {
    pub(super) const MUST_REVALIDATE: u8 = 1;
    pub(super) const NO_CACHE: u8 = 1 << 1;
    pub(super) const IMMUTABLE: u8 = 1 << 2;
    pub(super) const ALL_TAGS: u8 = 1 << 3;
    pub(super) const VARY_STAR: u8 = 1 << 4;
    pub(super) const SEGMENTS: u8 = 1 << 5;
    pub(super) const VARIANT: u8 = 1 << 6;
}

/// The record of an object's head. `segment_size` is how its body is cut, if it is.
pub fn encode_head(object: &Object, segment_size: u64, clock: Clock) -> Vec<u8> {
    let Object { key, variant, head, body, length, body_id, .. } = object;
    let Lifetimes {
        fresh,
        source,
        while_revalidate,
        if_error,
        after_wait,
        must_revalidate,
        no_cache,
        immutable,
    } = head.lifetimes;
    let fields = Fields::from(&head.headers);
    let mut out = Vec::with_capacity(128 + key.text().len() + fields.block().len());
    let mut flags = 0;
    let mut set = |bit, is: bool| flags |= if is { bit } else { 0 };
    set(flag::MUST_REVALIDATE, must_revalidate);
    set(flag::NO_CACHE, no_cache);
    set(flag::IMMUTABLE, immutable);
    set(flag::ALL_TAGS, head.tags.has_all());
    set(flag::VARY_STAR, head.vary == Vary::Star);
    set(flag::SEGMENTS, matches!(body, Content::Segments(_)));
    set(flag::VARIANT, *variant != VariantKey::NONE);
    out.extend([HEAD, FORMAT, flags, source_number(source)]);
    out.extend(head.status.as_u16().to_le_bytes());
    for fixed in [clock.wall.0, clock.run, head.response_time.0, *body_id] {
        out.extend(fixed.to_le_bytes());
    }
    let rested = clock.steady.since(head.response_time);
    let took = head.response_time.since(head.request_time);
    for duration in [rested, took] {
        push_number(&mut out, millis(duration));
    }
    // A part of a millisecond counts as age, and not as life.
    push_number(&mut out, millis(head.initial_age.saturating_add(Duration::from_nanos(999_999))));
    for duration in [fresh, while_revalidate, if_error] {
        push_number(&mut out, millis(duration));
    }
    push_number(&mut out, after_wait.map_or(0, |wait| millis(wait).saturating_add(1)));
    push_number(&mut out, head.fence.0);
    if *variant != VariantKey::NONE {
        out.extend(variant.0.to_le_bytes());
    }
    push_number(&mut out, *length);
    if let Content::Segments(version) = body {
        push_number(&mut out, version.id());
        push_number(&mut out, segment_size);
    }
    push_number(&mut out, key.text().len() as u64);
    out.extend(key.text().as_bytes());
    push_names(&mut out, &head.vary);
    push_number(&mut out, head.tags.hashes().len() as u64);
    head.tags.hashes().iter().for_each(|hash| out.extend(hash.to_le_bytes()));
    out.extend(fields.block());
    out
}

/// The head that a record holds, its times by this run's clock.
///
/// # Errors
/// When it is none, or one of another format.
pub fn decode_head(record: &[u8], clock: Clock) -> Result<Decoded, Malformed> {
    let rest = &mut body_of(record, HEAD)?;
    decode(rest, clock).ok_or(Malformed::Damaged)
}

fn decode(rest: &mut &[u8], clock: Clock) -> Option<Decoded> {
    let [flags, source] = take_array(rest)?;
    let has = |bit| flags & bit != 0;
    let status = StatusCode::from_u16(u16::from_le_bytes(take_array(rest)?)).ok()?;
    let [wall, run, arrived, body_id] = take_fixed(rest)?;
    let written = UnixMillis(wall);
    let (rested, took) = (take_duration(rest)?, take_duration(rest)?);
    let initial_age = take_duration(rest)?;
    let (fresh, while_revalidate) = (take_duration(rest)?, take_duration(rest)?);
    let if_error = take_duration(rest)?;
    let after_wait = take_number(rest)?.checked_sub(1).map(Duration::from_millis);
    let fence = Position(take_number(rest)?);
    let variant = match has(flag::VARIANT) {
        true => VariantKey(u128::from_le_bytes(take_array(rest)?)),
        false => VariantKey::NONE,
    };
    let length = take_number(rest)?;
    let lies = match has(flag::SEGMENTS) {
        true => Lies::Segments { version: take_number(rest)?, segment_size: take_number(rest)? },
        false => Lies::Inline,
    };
    let key_length = take_number(rest)?;
    let key = CacheKey::of_text(std::str::from_utf8(take_bytes(rest, key_length)?).ok()?);
    let vary = match (take_names(rest)?, has(flag::VARY_STAR)) {
        (Vary::Fields(names), true) if names.is_empty() => Vary::Star,
        (_, true) => return None,
        (names, false) => names,
    };
    let tags = Tags::from_hashes(take_hashes(rest)?, has(flag::ALL_TAGS))?;
    let headers = Fields::from_block(rest)?.to_header_map();

    // A run knows its own times; what it says of those to come was written by nobody.
    let (response_time, initial_age) = match run == clock.run && arrived <= clock.steady.0 {
        true => (UnixMillis(arrived), initial_age),
        false => {
            let rested = rested.saturating_add(clock.wall.since(written));
            let response_time = clock.steady - rested;
            // What the clock of this run does not go back to.
            let before = rested.saturating_sub(clock.steady.since(response_time));
            (response_time, initial_age.saturating_add(before))
        }
    };
    let head = StoredHead {
        status,
        headers,
        request_time: response_time - took,
        response_time,
        initial_age,
        lifetimes: Lifetimes {
            fresh,
            source: source_of(source)?,
            while_revalidate,
            if_error,
            after_wait,
            must_revalidate: has(flag::MUST_REVALIDATE),
            no_cache: has(flag::NO_CACHE),
            immutable: has(flag::IMMUTABLE),
        },
        vary,
        fence,
        tags,
    };
    Some(Decoded { key, variant, head, length, body_id, lies })
}

/// The record of what a key's responses have had in Vary, and of which variants there are.
pub fn encode_variants(variants: &Variants) -> Vec<u8> {
    let mut out = vec![VARIANTS, FORMAT];
    push_number(&mut out, variants.lists.iter().count() as u64);
    variants.lists.iter().for_each(|vary| push_names(&mut out, vary));
    variants.stored.iter().for_each(|variant| out.extend(variant.0.to_le_bytes()));
    out
}

/// What such a record holds.
///
/// # Errors
/// When it is none, or one of another format.
pub fn decode_variants(record: &[u8]) -> Result<Variants, Malformed> {
    let rest = &mut body_of(record, VARIANTS)?;
    let mut lists = || {
        let count = usize::try_from(take_number(rest)?).ok().filter(|n| *n <= VaryLists::MAX)?;
        (0..count).map(|_| take_names(rest)).collect::<Option<Vec<_>>>()
    };
    let mut variants = Variants::default();
    // The newest is noted last.
    lists().ok_or(Malformed::Damaged)?.iter().rev().for_each(|vary| variants.lists.note(vary));
    let (stored, surplus) = rest.as_chunks();
    if !surplus.is_empty() {
        return Err(Malformed::Damaged);
    }
    variants.stored = stored.iter().map(|bytes| VariantKey(u128::from_le_bytes(*bytes))).collect();
    Ok(variants)
}

/// What follows the two bytes that say what a record is.
fn body_of(record: &[u8], kind: u8) -> Result<&[u8], Malformed> {
    match record {
        [first, FORMAT, rest @ ..] if *first == kind => Ok(rest),
        [first, _, ..] if *first == kind => Err(Malformed::Format),
        _ => Err(Malformed::Damaged),
    }
}

/// A list of Vary; `*` has no names.
fn push_names(out: &mut Vec<u8>, vary: &Vary) {
    push_number(out, vary.names().len() as u64);
    vary.names().iter().for_each(|name| push_name(out, name));
}

fn take_names(rest: &mut &[u8]) -> Option<Vary> {
    let count = take_number(rest)?;
    let mut names = Vec::new();
    for _ in 0..count {
        // Each takes a byte at least: a count that lies ends here.
        names.push(take_name(rest)?);
    }
    Vary::of_names(names)
}

fn take_hashes(rest: &mut &[u8]) -> Option<Vec<u64>> {
    let count = take_number(rest)?;
    let bytes = take_bytes(rest, count.checked_mul(8)?)?;
    Some(bytes.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect())
}

fn take_duration(rest: &mut &[u8]) -> Option<Duration> {
    take_number(rest).map(Duration::from_millis)
}

fn take_array<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (array, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*array)
}

fn take_fixed<const N: usize>(rest: &mut &[u8]) -> Option<[u64; N]> {
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = u64::from_le_bytes(take_array(rest)?);
    }
    Some(numbers)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

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

fn source_number(source: Source) -> u8 {
    SOURCES.iter().position(|known| *known == source).map_or(u8::MAX, |place| place as u8)
}

fn source_of(number: u8) -> Option<Source> {
    SOURCES.get(usize::from(number)).copied()
}

#[cfg(test)]
mod tests;
