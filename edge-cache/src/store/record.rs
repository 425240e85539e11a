//! The form that heads have on disk: everything that is needed to serve a stored response, to judge it and to revalidate
//! it, but its body. The disk tier keeps records as bytes; what is damaged there never becomes a response, because it has
//! checksums, and does no harm here if it had none: decoding is total.
//!
//! **Time.** A node measures rest by a clock that begins anew with each of its runs ([`shared::io::clock::steady`]). A record
//! says how long its response had rested when it was written, by both clocks and in which run. The same run reads its own
//! clock; another adds what has passed by the wall clock, and where that was set back, nothing: no response is ever
//! younger than it was.

use std::sync::Arc;
use std::time::Duration;

use shared::time::UnixMillis;

use super::Variants;
use super::below::Asked;
use super::content::{Apart, Content};
use super::object::{About, Beginning, Millis, Narrow, Object, flag, push_names, take_names};
use crate::purge::{Position, TagList};
use crate::semantics::Fields;
use crate::semantics::conditional::same_strong_validator;
use crate::semantics::fields::{push_number, take_number};
use crate::semantics::vary::{VariantKey, VaryLists};

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
    /// By the clock of [`Object::response_time`].
    pub steady: UnixMillis,
    /// A number that no other run of the node has: `steady` times of two runs cannot be
    /// compared.
    pub run: u64,
    /// The last position that is known to this node over a restart: no fence is written that is above it, so that every later
    /// purge is above every fence on disk.
    pub known: Position,
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
    /// Without its body.
    object: Object,
    /// Where the body is.
    pub lies: Lies,
}

impl Decoded {
    /// What it is the head of. The body is not there.
    pub const fn head(&self) -> &Object {
        &self.object
    }

    /// The object, with its body as it was found. `None`: the body is not the one of this head.
    pub fn into_object(self, body: Content) -> Option<Object> {
        let Self { object, lies } = self;
        let fits = match (&body, lies) {
            (Content::Whole(_), Lies::Inline) => body.length() == Some(object.length()),
            (Content::Segments(found), Lies::Segments { version, .. }) => found.id() == version,
            _ => false,
        };
        fits.then(|| object.with_body(body))
    }
}

/// A bit of a record beside those of an object ([`flag`]).
const SEGMENTS: u8 = 1 << 7;

/// The record of an object's head. `segment_size` is how its body is cut, if it is.
pub fn encode_head(object: &Object, segment_size: u64, clock: Clock) -> Vec<u8> {
    let mut out = Vec::with_capacity(96 + object.block().len());
    let segments = if object.version().is_some() { SEGMENTS } else { 0 };
    out.extend([HEAD, FORMAT, object.flags & !flag::BODY | segments]);
    out.extend(object.about.0.to_le_bytes());
    for fixed in [clock.wall.0, clock.run, object.response_time().0, object.body_id] {
        out.extend(fixed.to_le_bytes());
    }
    push_number(&mut out, millis(clock.steady.since(object.response_time())));
    push_number(&mut out, object.took.into());
    for duration in [object.initial_age, object.fresh, object.while_revalidate, object.if_error] {
        push_number(&mut out, duration.get());
    }
    push_number(&mut out, object.after_wait.into());
    push_number(&mut out, object.fence.min(clock.known).0);
    push_number(&mut out, object.length());
    if let Some(version) = object.version() {
        push_number(&mut out, version.id());
        push_number(&mut out, segment_size);
    }
    push_number(&mut out, object.fields_at.into());
    out.extend_from_slice(object.block());
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
    let [flags] = take_array(rest)?;
    let about = About::checked(u16::from_le_bytes(take_array(rest)?))?;
    let [wall, run, arrived, body_id] = take_fixed(rest)?;
    let written = UnixMillis(wall);
    let rested = take_duration(rest)?;
    let took = u32::try_from(take_number(rest)?).ok()?;
    let initial_age = take_duration(rest)?;
    let (fresh, while_revalidate) = (take_duration(rest)?, take_duration(rest)?);
    let if_error = take_duration(rest)?;
    let after_wait = u32::try_from(take_number(rest)?).ok()?;
    let fence = Position(take_number(rest)?);
    let length = take_number(rest)?;
    let lies = match flags & SEGMENTS != 0 {
        true => Lies::Segments { version: take_number(rest)?, segment_size: take_number(rest)? },
        false => Lies::Inline,
    };
    let fields_at = u32::try_from(take_number(rest)?).ok()?;
    let combinable = check_block(rest, fields_at as usize, flags)?;

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
    let flags = flags & !(SEGMENTS | flag::COMBINABLE);
    let object = Object {
        memory: Arc::from(*rest),
        apart: Apart::Beside(None),
        body_id,
        fence,
        length: Narrow::of(length),
        response_time: Narrow::of(response_time.0),
        initial_age: Millis::of_duration(initial_age),
        fresh: Millis::of_duration(fresh),
        while_revalidate: Millis::of_duration(while_revalidate),
        if_error: Millis::of_duration(if_error),
        took,
        after_wait,
        fields_at,
        about,
        flags: if combinable { flags | flag::COMBINABLE } else { flags },
        asked: Asked::settled(),
    };
    Some(Decoded { object, lies })
}

/// Whether an object's block is one, and then whether it has a strong validator.
fn check_block(block: &[u8], fields_at: usize, flags: u8) -> Option<bool> {
    let has = |bit| flags & bit != 0;
    let (beginning, fields) = block.split_at_checked(fields_at)?;
    let Beginning { key, mut vary, mut rest } = Beginning::of(beginning)?;
    std::str::from_utf8(key).ok()?;
    let names = take_names(&mut vary)?;
    if has(flag::VARY_STAR) && !names.names().is_empty() {
        return None;
    }
    if has(flag::VARIANT) && u128::from_le_bytes(take_array(&mut rest)?) == VariantKey::NONE.0 {
        return None;
    }
    TagList::checked(rest, has(flag::ALL_TAGS))?;
    let fields = Fields::checked(fields)?;
    Some(same_strong_validator(&fields, &fields))
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

#[cfg(test)]
mod tests;
