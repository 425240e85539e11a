//! What the bytes of a disk mean: superblocks, segment headers, records, footers. Read from a disk they are hostile: a length
//! is believed after its checksum, and a checksum is keyed with a secret of the disk where the bytes could be a client's,
//! so that no stored body can pass for a record.
//!
//! ```text
//! segment: header 128 | record | record | … | footer entries 40 each | trailer 64
//! record:  check 8 | header 80 | checksums 4 per block | meta | body | zeros up to a multiple of 128
//! ```

use bytes::Bytes;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::geometry::{BLOCK, Geometry, UNIT};
use super::index::Location;
use super::{Kind, log::Entry};
use crate::semantics::vary::VariantKey;
use crate::store::object::ObjectKey;

/// The version of what is described here. One that reads other bytes has another.
pub const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"MERIDISK";
const SEGMENT_MAGIC: u32 = 0x4745_534d;
const TRAILER_MAGIC: u32 = 0x4c41_534d;
const RECORD_MAGIC: u32 = 0x4345_524d;

/// Bytes of a superblock.
pub const SUPERBLOCK: usize = 512;
/// Bytes of a segment's header.
pub const SEGMENT_HEADER: usize = 128;
/// Bytes of a segment's trailer.
pub const TRAILER: usize = 64;
/// Bytes of a footer's entry.
pub const ENTRY: usize = 40;
/// Bytes of a record before its block checksums.
pub const RECORD_HEADER: usize = 88;
/// The longest head that a record takes.
pub const MAX_META: usize = 1 << 20;

/// Writes numbers one after another.
#[derive(Default)]
struct Put(Vec<u8>);

impl Put {
    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
    fn u8(self, value: u8) -> Self {
        self.bytes(&[value])
    }
    fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_le_bytes())
    }
    fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_le_bytes())
    }
    fn u128(self, value: u128) -> Self {
        self.bytes(&value.to_le_bytes())
    }
    fn zeros_to(mut self, length: usize) -> Vec<u8> {
        self.0.resize(length, 0);
        self.0
    }
}

/// Reads them.
struct Take<'a>(&'a [u8]);

impl Take<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }
    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }
    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }
    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
    fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }
}

/// What a disk says of itself, twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Who it is.
    pub uuid: u128,
    /// The key of checksums and of names in the index; random, and told to nobody.
    pub salt: u64,
    /// How often it was opened, and more: see [`super::first_sequence`].
    pub run: u64,
    /// What the form of stored keys and heads depends on, hashed.
    pub key_rules: u64,
    /// How it is divided.
    pub size: u64,
    /// Likewise.
    pub segment: u32,
    /// Whether the index's copy tells what the segments hold: it was stopped cleanly.
    pub is_clean: bool,
    /// Whether what the segments hold is not to be used.
    pub void: Option<Void>,
}

/// Why what a disk holds is not to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Void {
    /// It had failed, and what was removed then may be there still.
    Failed = 1,
    /// Purges were in force that were not written down.
    Doubt = 2,
}

/// What was found where a superblock should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// One.
    Superblock(Superblock),
    /// One of another version.
    Version(u32),
    /// Nothing but zeros.
    Blank,
    /// One that is not as it was written.
    Damaged,
    /// Something else: nothing of ours.
    Foreign,
}

impl Superblock {
    /// How it is divided.
    pub fn geometry(&self) -> Option<Geometry> {
        Geometry::with_segment(self.size, self.segment)
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let put = Put::default().bytes(&MAGIC).u32(VERSION).u32(self.segment).u128(self.uuid);
        let put = put.u64(self.salt).u64(self.run).u64(self.key_rules).u64(self.size);
        let mut bytes = put
            .u8(u8::from(self.is_clean))
            .u8(self.void.map_or(0, |void| void as u8))
            .zeros_to(SUPERBLOCK - 8);
        let check = xxh3_64(&bytes);
        bytes.extend_from_slice(&check.to_le_bytes());
        bytes
    }

    /// What these bytes are.
    pub fn decode(bytes: &[u8]) -> Found {
        if bytes.iter().all(|byte| *byte == 0) {
            return Found::Blank;
        }
        Self::take(bytes).unwrap_or(Found::Foreign)
    }

    fn take(bytes: &[u8]) -> Option<Found> {
        let mut take = Take(bytes);
        let is_marked = take.array()? == MAGIC;
        let version = take.u32()?;
        let (body, check) = bytes.get(..SUPERBLOCK)?.split_last_chunk::<8>()?;
        // A later version may check itself in another way.
        if is_marked && version != VERSION {
            return Some(Found::Version(version));
        }
        let whole = [&MAGIC, body.get(MAGIC.len()..)?].concat();
        let is_right = xxh3_64(&whole) == u64::from_le_bytes(*check);
        if !(is_marked && is_right) {
            // It is ours by the one or by the other.
            return (is_marked || is_right).then_some(Found::Damaged);
        }
        Some(Found::Superblock(Self {
            segment: take.u32()?,
            uuid: take.u128()?,
            salt: take.u64()?,
            run: take.u64()?,
            key_rules: take.u64()?,
            size: take.u64()?,
            is_clean: take.u8()? == 1,
            void: match take.u8()? {
                0 => None,
                2 => Some(Void::Doubt),
                _ => Some(Void::Failed),
            },
        }))
    }
}

/// What a segment's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// It has been written with this number.
    Used(u64),
    /// What it held is of no use any more.
    Erased,
    /// It was never used.
    Blank,
    /// It is damaged.
    Damaged,
}

/// The bytes of a segment's header; `sequence` 0: it is erased.
pub fn encode_header(sequence: u64, segment: u32, salt: u64) -> Vec<u8> {
    let bytes = Put::default().u32(SEGMENT_MAGIC).u32(segment).u64(sequence).0;
    let check = xxh3_64_with_seed(&bytes, salt);
    Put(bytes).u64(check).zeros_to(SEGMENT_HEADER)
}

/// What the header of this segment says.
pub fn decode_header(bytes: &[u8], segment: u32, salt: u64) -> Header {
    if bytes.iter().all(|byte| *byte == 0) {
        return Header::Blank;
    }
    let take = || {
        let mut take = Take(bytes);
        let known = (take.u32()?, take.u32()?) == (SEGMENT_MAGIC, segment);
        let sequence = take.u64()?;
        (known && take.u64()? == xxh3_64_with_seed(bytes.get(..16)?, salt)).then_some(sequence)
    };
    match take() {
        Some(0) => Header::Erased,
        Some(sequence) => Header::Used(sequence),
        None => Header::Damaged,
    }
}

/// The bytes at the end of a sealed segment: an entry of each record, and a trailer.
pub fn encode_footer(entries: &[Entry], sequence: u64, salt: u64) -> Vec<u8> {
    let mut put = Put(Vec::with_capacity(footer_bytes(entries.len())));
    for entry in entries {
        put = put.u64(entry.hash).u64(entry.sequence).u64(entry.epoch);
        put = put.u32(entry.unit).u32(entry.units).u8(entry.role as u8).u8(entry.flags);
        put = put.bytes(&[0; 6]);
    }
    let length = footer_bytes(entries.len());
    let put = put.u32(TRAILER_MAGIC).u32(entries.len() as u32).u64(sequence);
    let mut bytes = put.zeros_to(length - 8);
    let check = xxh3_64_with_seed(&bytes, salt);
    bytes.extend_from_slice(&check.to_le_bytes());
    bytes
}

/// What a footer of this many entries takes.
pub const fn footer_bytes(entries: usize) -> usize {
    entries * ENTRY + TRAILER
}

/// How many entries a trailer announces, and for which use of the segment: not to be believed before the whole is
/// decoded. None: there is none, or it does not fit the segment.
pub fn announced(trailer: &[u8], geometry: &Geometry) -> Option<(usize, u64)> {
    let mut take = Take(trailer);
    let (magic, entries, sequence) = (take.u32()?, take.u32()? as usize, take.u64()?);
    let most = (geometry.segment as usize - TRAILER) / ENTRY;
    (magic == TRAILER_MAGIC && entries <= most && sequence != 0).then_some((entries, sequence))
}

/// The entries of a footer, whole; each lies within the segment.
pub fn decode_footer(bytes: &[u8], geometry: &Geometry, salt: u64) -> Option<(u64, Vec<Entry>)> {
    let (body, check) = bytes.split_last_chunk::<8>()?;
    if xxh3_64_with_seed(body, salt) != u64::from_le_bytes(*check) {
        return None;
    }
    let (entries, trailer) = bytes.split_at_checked(bytes.len().checked_sub(TRAILER)?)?;
    let (count, sequence) = announced(trailer, geometry)?;
    if entries.len() != count * ENTRY {
        return None;
    }
    let decode = |bytes| {
        let mut take = Take(bytes);
        let (hash, sequence, epoch) = (take.u64()?, take.u64()?, take.u64()?);
        let (unit, units) = (take.u32()?, take.u32()?);
        let (role, flags) = (Role::from_u8(take.u8()?)?, take.u8()?);
        let fits = units > 0 && unit.checked_add(units)? <= geometry.units();
        (fits && hash != 0).then_some(Entry { hash, sequence, epoch, unit, units, role, flags })
    };
    let entries: Option<Vec<Entry>> = entries.chunks_exact(ENTRY).map(decode).collect();
    Some((sequence, entries?))
}

/// What a record is to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Role {
    /// Meta and body of a place.
    Content = 1,
    /// A later meta for the content of a place.
    Update = 2,
    /// What the place had before is no more.
    Tombstone = 3,
}

impl Role {
    const fn from_u8(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Content),
            2 => Some(Self::Update),
            3 => Some(Self::Tombstone),
            _ => None,
        }
    }
}

/// A record's header: everything but the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whose it is.
    pub place: ObjectKey,
    /// What it is to the log.
    pub role: Role,
    /// What it is to those who stored it.
    pub kind: Kind,
    /// See [`Entry::flags`].
    pub flags: u8,
    /// When its content was handed over.
    pub sequence: u64,
    /// See [`Entry::epoch`].
    pub epoch: u64,
    /// Which use of the segment it was written in.
    pub segment_sequence: u64,
    /// Units of the segment that outlived a loss of power for certain when this was written: what is missing of them has been
    /// damaged, what is missing behind them may never have been written.
    pub synced: u32,
    /// Bytes of its meta.
    pub meta: u32,
    /// Bytes of its body.
    pub body: u32,
}

const fn blocks(body: usize) -> usize {
    body.div_ceil(BLOCK)
}

impl Record {
    /// Bytes before the body: header, checksums, meta.
    pub const fn head_bytes(&self) -> usize {
        RECORD_HEADER + 4 * blocks(self.body as usize) + self.meta as usize
    }

    /// Units that it takes on the disk.
    pub const fn units(&self) -> u32 {
        units(self.meta as usize, self.body as usize)
    }

    /// Appends it to `out`.
    pub fn encode(&self, meta: &[u8], body: &[Bytes], at: Location, salt: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; 8]);
        let put = Put::default().u32(RECORD_MAGIC).u8(self.role as u8).u8(self.kind as u8);
        let put = put.u8(self.flags).u8(0).u32(self.meta).u32(self.body);
        let put = put.u64(self.segment_sequence).u64(self.sequence).u64(self.epoch);
        let put = put.u32(self.synced).u32(0);
        let put = put.u128(self.place.key).u128(self.place.variant.0);
        out.extend_from_slice(&put.zeros_to(RECORD_HEADER - 8));
        checksums(body, out);
        out.extend_from_slice(meta);
        let check = xxh3_64_with_seed(out.get(start + 8..).unwrap_or_default(), seed(salt, at));
        if let Some(slot) = out.get_mut(start..start + 8) {
            slot.copy_from_slice(&check.to_le_bytes());
        }
        for piece in body {
            out.extend_from_slice(piece);
        }
        out.resize(start + self.units() as usize * UNIT as usize, 0);
    }

    /// The header of what lies at `at`, its lengths not yet proven but such that they fit there: for [`Record::verify`],
    /// once [`Record::head_bytes`] have been read.
    pub fn peek(bytes: &[u8]) -> Option<Self> {
        let mut take = Take(bytes.get(8..)?);
        if take.u32()? != RECORD_MAGIC {
            return None;
        }
        let (role, kind) = (Role::from_u8(take.u8()?)?, Kind::from_u8(take.u8()?)?);
        let (flags, _) = (take.u8()?, take.u8()?);
        let (meta, body) = (take.u32()?, take.u32()?);
        let (segment_sequence, sequence, epoch) = (take.u64()?, take.u64()?, take.u64()?);
        let (synced, _) = (take.u32()?, take.u32()?);
        let place = ObjectKey { key: take.u128()?, variant: VariantKey(take.u128()?) };
        let small = meta as usize <= MAX_META && body <= 64 << 20;
        small.then_some(Self {
            place,
            role,
            kind,
            flags,
            sequence,
            epoch,
            segment_sequence,
            synced,
            meta,
            body,
        })
    }

    /// The header, proven; `bytes` are at least [`Record::head_bytes`] long.
    pub fn verify(bytes: &[u8], at: Location, salt: u64) -> Option<Self> {
        let record = Self::peek(bytes)?;
        let head = bytes.get(..record.head_bytes())?;
        let (check, rest) = head.split_first_chunk::<8>()?;
        let proven = xxh3_64_with_seed(rest, seed(salt, at)) == u64::from_le_bytes(*check);
        proven.then_some(record)
    }

    /// Whether this later meta belongs to that content. The content may have got an earlier one of its updates as its own since.
    pub const fn is_update_of(&self, content: &Self) -> bool {
        self.sequence > content.sequence && self.epoch <= content.sequence
    }

    /// The meta of a proven record.
    pub fn meta_range(&self) -> std::ops::Range<usize> {
        self.head_bytes() - self.meta as usize..self.head_bytes()
    }

    /// The body of a proven record.
    pub fn body_range(&self) -> std::ops::Range<usize> {
        self.head_bytes()..self.head_bytes() + self.body as usize
    }

    /// Whether all blocks of a proven record's body are as they were written; `bytes` is the whole record.
    pub fn is_body_intact(&self, bytes: &[u8]) -> bool {
        bytes.get(self.body_range()).is_some_and(|body| self.are_blocks_intact(bytes, 0, body))
    }

    /// Likewise of the blocks from `first` on, which are `body`; `head` is at least [`Record::head_bytes`] long.
    pub fn are_blocks_intact(&self, head: &[u8], first: usize, body: &[u8]) -> bool {
        let table = head.get(RECORD_HEADER..RECORD_HEADER + 4 * blocks(self.body as usize));
        let mut sums = table.unwrap_or_default().chunks_exact(4).skip(first);
        body.chunks(BLOCK).all(|block| {
            sums.next().is_some_and(|sum| sum == crc32c::crc32c(block).to_le_bytes().as_slice())
        })
    }
}

/// Units of a record with these lengths.
pub const fn units(meta: usize, body: usize) -> u32 {
    (RECORD_HEADER + 4 * blocks(body) + meta + body).div_ceil(UNIT as usize) as u32
}

/// A record's checksum holds only where it was written: what a disk has put elsewhere is not it.
const fn seed(salt: u64, at: Location) -> u64 {
    let at = (at.segment as u64) << 32 | at.unit as u64;
    salt ^ at.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// One checksum for each block of a body that lies in pieces.
fn checksums(body: &[Bytes], out: &mut Vec<u8>) {
    let (mut sum, mut filled) = (0, 0);
    for piece in body {
        let mut rest: &[u8] = piece;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(BLOCK - filled));
            sum = crc32c::crc32c_append(sum, now);
            filled += now.len();
            rest = later;
            if filled == BLOCK {
                out.extend_from_slice(&sum.to_le_bytes());
                (sum, filled) = (0, 0);
            }
        }
    }
    if filled > 0 {
        out.extend_from_slice(&sum.to_le_bytes());
    }
}
