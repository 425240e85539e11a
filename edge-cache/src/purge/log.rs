//! Purges as they are written down: the form of the log, what a node that starts reads from it, and what of it is kept.
//!
//! The file is a header with two *marks*, a snapshot of all that was known when the file was begun, and what has come since:
//! frames, each of some entries and a *ceiling*, the last position that the node knew of as the frame was written. No purge
//! that was acknowledged on the strength of a frame, or of one before it, is above its ceiling. The snapshot is as large as
//! the tables of [`Fences`] and the ledger at most, and forgets what they forget.
//!
//! **What cannot be read.** Frames are numbered, and each says which one was the last to be durable as it was written; so do
//! the marks, which lie where a lost end of the file does not take them, and are written in turn. A frame that nothing
//! says to have been durable was acknowledged to nobody: missing, cut short, or zeros that were never written, it is
//! passed over. Anything else is damage: purges may be lost in it, so that *everything* older than the next ceiling that can
//! be read counts as purged, hard: the parents are asked for newer content, too, and nothing stale is served. Where there is
//! no such ceiling, or the header is lost, everything before now is purged, and the log becomes another one: what a disk
//! stores belongs to a log ([`Replayed::identity`]), and is not believed with another.
//!
//! The marks follow within a second. An end that is lost sooner, with frames that were durable in it, looks like one that was
//! never written: that takes a device that says that it has written what it has not.

use shared::time::UnixMillis;

use super::{Fences, Floor, Kind, Ledger, Position, Record, Scope, Subject, Target, micros};

/// Begins the file; the last byte is the version of the format.
const MAGIC: [u8; 8] = *b"MDNPURG\x02";
/// What a disk writes whole or not at all: the header, and each mark.
const SECTOR: usize = 512;
/// The header and the marks.
const FILE_HEADER: usize = 3 * SECTOR;
/// Begins a frame.
const FRAME: [u8; 4] = *b"\xf5PF\xfa";
/// What it begins with, length of the entries, its number, the last durable one, ceiling, checksum of the entries, checksum
/// of all that.
const FRAME_HEADER: usize = 4 + 4 + 8 + 8 + 8 + 4 + 4;
/// Ends a frame: what was never written reads as zeros.
const FRAME_END: u8 = 0xe7;
/// Entries of a snapshot's frame, in bytes: one damaged byte costs no more.
const SNAPSHOT_FRAME: usize = 64 << 10;

const PURGE: u8 = 1;
const HASH: u8 = 2;
const FLOOR: u8 = 3;
const END_OF_SNAPSHOT: u8 = 4;

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Replayed {
    /// Which log it is; none if it must become another one.
    pub identity: Option<u64>,
    /// The last position that the node knows of.
    pub ceiling: Position,
    /// The file can be written on from here. Else it must be begun anew.
    pub is_sound: bool,
    /// The last frame.
    pub sequence: u64,
    /// What the marks say.
    pub marks: [u64; 2],
    /// Bytes of frames that were being written when the node ended.
    pub torn: usize,
    /// Purges may be lost.
    pub damage: Option<Damage>,
}

/// What cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where it begins.
    pub at: usize,
    /// All below this position was purged in its place.
    pub before: Position,
    /// What is wrong.
    pub why: &'static str,
}

/// Adds an entry: a purge, with its record in the ledger if it has one.
pub fn purge(
    entries: &mut Vec<u8>,
    targets: &[Target],
    kind: Kind,
    at: Position,
    record: Option<&Record>,
) {
    entry_of_purge(entries, kind, at, record);
    put_length(entries, targets.len());
    for subject in targets.iter().map(Subject::of) {
        put_subject(entries, subject);
    }
}

/// A frame's number, and the last one that was durable as it was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Its number; the first one is 1.
    pub sequence: u64,
    /// All up to this one are durable.
    pub durable: u64,
}

/// Adds a frame with these entries to what is to be written.
pub fn frame(bytes: &mut Vec<u8>, entries: &[u8], turn: Turn, ceiling: Position) {
    let start = bytes.len();
    bytes.extend_from_slice(&FRAME);
    put_length(bytes, entries.len());
    bytes.extend_from_slice(&turn.sequence.to_le_bytes());
    bytes.extend_from_slice(&turn.durable.to_le_bytes());
    bytes.extend_from_slice(&ceiling.0.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(entries).to_le_bytes());
    let header = crc32c::crc32c(bytes.get(start..).unwrap_or_default());
    bytes.extend_from_slice(&header.to_le_bytes());
    bytes.extend_from_slice(entries);
    bytes.push(FRAME_END);
}

/// One of the two marks, which says that all frames up to this one are durable: where it is written, and what.
pub fn mark(which: usize, identity: u64, durable: u64) -> (u64, Vec<u8>) {
    let which = which % 2;
    ((SECTOR * (1 + which)) as u64, sector(&[identity, which as u64, durable]))
}

fn sector(words: &[u64]) -> Vec<u8> {
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.resize(SECTOR - 4, 0);
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

/// A log that holds what is known now, to be written on; and its last frame.
pub fn snapshot(
    identity: u64,
    ceiling: Position,
    fences: &Fences,
    ledger: &Ledger,
) -> (Vec<u8>, u64) {
    let mut bytes = sector(&[u64::from_le_bytes(MAGIC), identity]);
    bytes.resize(FILE_HEADER, 0);
    let bytes = std::cell::RefCell::new((bytes, Vec::new(), Turn::default()));
    let add = |write: &dyn Fn(&mut Vec<u8>)| {
        let (bytes, entries, turn) = &mut *bytes.borrow_mut();
        write(entries);
        if entries.len() >= SNAPSHOT_FRAME {
            turn.sequence += 1;
            frame(bytes, entries, *turn, ceiling);
            entries.clear();
        }
    };
    let scopes = [Scope::Url, Scope::Prefix, Scope::Host, Scope::Tag];
    for scope in scopes {
        let Some(table) = fences.table(scope) else { continue };
        table.each(
            |hash, floor| {
                add(&|entries| {
                    entries.push(HASH);
                    put_subject(entries, Subject { scope, hash });
                    put_floor(entries, floor);
                });
            },
            |count, index, floor| {
                add(&|entries| {
                    entries.extend_from_slice(&[FLOOR, scope as u8]);
                    put_length(entries, count);
                    put_length(entries, index);
                    put_floor(entries, floor);
                });
            },
        );
    }
    add(&|entries| {
        entries.push(HASH);
        put_subject(entries, Subject { scope: Scope::All, hash: 0 });
        put_floor(entries, fences.all.get());
    });
    for record in ledger.records() {
        add(&|entries| purge(entries, &[], record.kind, record.position, Some(record)));
    }
    let (mut bytes, mut entries, mut turn) = bytes.into_inner();
    entries.push(END_OF_SNAPSHOT);
    turn.sequence += 1;
    frame(&mut bytes, &entries, turn, ceiling);
    // It is durable before it takes the place of what there is.
    let (at, mark) = mark(0, identity, turn.sequence);
    if let Some(place) = bytes.get_mut(at as usize..at as usize + SECTOR) {
        place.copy_from_slice(&mark);
    }
    (bytes, turn.sequence)
}

/// Puts in force what a log holds, and what stands in for what it has lost. Every byte of it may be wrong.
pub fn replay(bytes: &[u8], fences: &Fences, ledger: &mut Ledger, now: UnixMillis) -> Replayed {
    let identity = identity(bytes);
    let marks = [0, 1].map(|which| read_mark(bytes, which, identity));
    let mut reader = Replay {
        fences,
        ledger,
        ceiling: Position::default(),
        in_snapshot: true,
        next: 1,
        durable: marks.iter().copied().flatten().max().unwrap_or_default(),
        holes: Vec::new(),
        pending: None,
        gap: None,
    };
    if identity.is_none() {
        reader.lose(0, None, "it is not a log of purges in the format of this version");
    }
    let mut at = FILE_HEADER;
    let (mut torn, mut end) = (0, None);
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        match Frame::parse(rest) {
            Parsed::Whole(frame) => {
                reader.frame(at, &frame);
                torn += if frame.entries.is_none() { frame.length } else { 0 };
                at += frame.length;
            }
            Parsed::Short => {
                torn += rest.len();
                break;
            }
            Parsed::Invalid => match next_frame(rest) {
                Some(skip) => {
                    // What follows tells which frames are missing.
                    reader.gap.get_or_insert(at);
                    torn += skip;
                    at += skip;
                }
                // Zeros at the end were never written; those of a frame are not its last bytes.
                None if rest.last() == Some(&0) => {
                    torn += rest.len();
                    break;
                }
                None => {
                    end = Some("its end cannot be read");
                    break;
                }
            },
        }
    }
    if reader.in_snapshot {
        reader.lose(at.min(bytes.len()), None, "what it begins with is not whole");
    }
    let is_short = reader.durable >= reader.next;
    if let Some(why) =
        end.or_else(|| is_short.then_some("purges that were durable are missing at its end"))
    {
        reader.lose(at.min(bytes.len()), None, why);
    }
    let sequence = reader.next - 1;
    // Written on, it would say of what is missing that it was durable.
    let is_whole = reader.holes.is_empty() && torn == 0;
    let (mut ceiling, lost) = reader.end();
    let identity = identity.filter(|_| lost.as_ref().is_none_or(|lost| lost.before.is_some()));
    let damage = lost.map(|Lost { at, why, before }| {
        let before = before.unwrap_or_else(|| {
            ceiling = Position(ceiling.0.saturating_add(1).max(micros(now)));
            ceiling
        });
        fences.apply(&Target::All, Kind::Hard, before);
        Damage { at, before, why }
    });
    let is_sound = is_whole && marks.iter().all(Option::is_some);
    let marks = marks.map(Option::unwrap_or_default);
    Replayed { identity, ceiling, is_sound, sequence, marks, torn, damage }
}

struct Replay<'a> {
    fences: &'a Fences,
    ledger: &'a mut Ledger,
    ceiling: Position,
    in_snapshot: bool,
    /// The number of the frame that comes next.
    next: u64,
    /// All frames up to this one have been durable.
    durable: u64,
    holes: Vec<Hole>,
    /// The first hole that no ceiling has come after.
    pending: Option<usize>,
    /// Where what cannot be read begins, before the next frame.
    gap: Option<usize>,
}

/// Something that is missing.
struct Hole {
    at: usize,
    /// The first frame that is; none: it is damage in any case.
    first: Option<u64>,
    why: &'static str,
    /// What was in it is not above this.
    before: Option<Position>,
}

/// All that is.
struct Lost {
    at: usize,
    why: &'static str,
    before: Option<Position>,
}

impl Replay<'_> {
    fn lose(&mut self, at: usize, first: Option<u64>, why: &'static str) {
        self.pending.get_or_insert(self.holes.len());
        self.holes.push(Hole { at, first, why, before: None });
    }

    fn frame(&mut self, at: usize, frame: &Frame<'_>) {
        let Turn { sequence, durable } = frame.turn;
        self.ceiling = self.ceiling.max(frame.ceiling);
        self.durable = self.durable.max(durable);
        let from = self.gap.take().unwrap_or(at);
        if sequence > self.next {
            self.lose(from, Some(self.next), "some frames cannot be read");
        }
        if sequence < self.next {
            self.lose(at, None, "a frame is not where it was written");
        }
        self.next = self.next.max(sequence.saturating_add(1));
        let Some(mut entries) = frame.entries else {
            self.lose(at, (!frame.is_last).then_some(sequence), "a frame cannot be read");
            return self.bound(frame.ceiling);
        };
        self.bound(frame.ceiling);
        while !entries.is_empty() {
            if self.entry(&mut entries).is_none() {
                self.lose(at, None, "an entry is not of this version");
                return self.bound(frame.ceiling);
            }
        }
    }

    /// What was lost until now is not above this.
    fn bound(&mut self, ceiling: Position) {
        let pending = self.pending.take();
        let holes = pending.and_then(|first| self.holes.get_mut(first..)).unwrap_or_default();
        holes.iter_mut().for_each(|hole| hole.before = Some(ceiling));
    }

    /// What is lost of what was durable.
    fn end(self) -> (Position, Option<Lost>) {
        let was_durable = |hole: &&Hole| hole.first.is_none_or(|first| first <= self.durable);
        let mut lost: Option<Lost> = None;
        for &Hole { at, why, before, .. } in self.holes.iter().filter(was_durable) {
            let (at, why, before) = match lost {
                Some(lost) => (lost.at, lost.why, lost.before.zip(before).map(|(a, b)| a.max(b))),
                None => (at, why, before),
            };
            lost = Some(Lost { at, why, before });
        }
        (self.ceiling, lost)
    }

    fn raise(&mut self, subject: Subject, kind: Kind, at: Position) {
        self.fences.raise(subject, kind, at);
        // A snapshot may have a purge that came while it was made: what is fetched now comes after that one, too.
        self.ceiling = self.ceiling.max(at);
    }

    fn entry(&mut self, entries: &mut &[u8]) -> Option<()> {
        match take::<1>(entries)? {
            [PURGE] => {
                let (kind, at, record) = take_purge(entries)?;
                let count = take_length(entries)?;
                for _ in 0..count {
                    self.raise(take_subject(entries)?, kind, at);
                }
                if let Some(record) = record {
                    self.ledger.note(record);
                }
            }
            [HASH] => {
                let subject = take_subject(entries)?;
                let floor = take_floor(entries)?;
                for (kind, at) in [(Kind::Hard, floor.hard), (Kind::Soft, floor.soft)] {
                    if at != Position::default() {
                        self.raise(subject, kind, at);
                    }
                }
            }
            [FLOOR] => {
                let scope = take_scope(entries)?;
                let (count, index) = (take_length(entries)?, take_length(entries)?);
                let floor = take_floor(entries)?;
                self.fences.raise_floor(scope, (count, index), floor)?;
                self.ceiling = self.ceiling.max(floor.newest());
            }
            [END_OF_SNAPSHOT] => self.in_snapshot = false,
            _ => return None,
        }
        Some(())
    }
}

/// A frame of which at least the header is right.
struct Frame<'a> {
    turn: Turn,
    ceiling: Position,
    /// None: they are not what was written.
    entries: Option<&'a [u8]>,
    length: usize,
    /// Nothing follows it.
    is_last: bool,
}

enum Parsed<'a> {
    Whole(Frame<'a>),
    /// The file ends, or was not written, before the frame does.
    Short,
    Invalid,
}

impl<'a> Frame<'a> {
    fn parse(bytes: &'a [u8]) -> Parsed<'a> {
        let Some(header) = bytes.get(..FRAME_HEADER) else { return Parsed::Short };
        let Some((length, turn, ceiling, sum)) = frame_header(header) else {
            return Parsed::Invalid;
        };
        let end = FRAME_HEADER.saturating_add(length);
        let Some(entries) = bytes.get(FRAME_HEADER..end) else { return Parsed::Short };
        let length = end + 1;
        let is_right = crc32c::crc32c(entries) == sum;
        match bytes.get(end) {
            None => Parsed::Short,
            Some(0) if bytes.len() == length && !is_right => Parsed::Short,
            Some(_) => {
                let (entries, is_last) = (is_right.then_some(entries), bytes.len() == length);
                Parsed::Whole(Frame { turn, ceiling, entries, length, is_last })
            }
        }
    }
}

fn frame_header(header: &[u8]) -> Option<(usize, Turn, Position, u32)> {
    let sum = u32::from_le_bytes(header.get(FRAME_HEADER - 4..)?.try_into().ok()?);
    if crc32c::crc32c(header.get(..FRAME_HEADER - 4)?) != sum {
        return None;
    }
    let mut rest = header;
    let mark = take::<4>(&mut rest)?;
    let length = take_length(&mut rest)?;
    let [sequence, durable] = [take(&mut rest)?, take(&mut rest)?].map(u64::from_le_bytes);
    let ceiling = take_position(&mut rest)?;
    let entries = u32::from_le_bytes(take(&mut rest)?);
    let turn = Turn { sequence, durable };
    (mark == FRAME && sequence > 0).then_some((length, turn, ceiling, entries))
}

/// How many bytes further a header is right again.
fn next_frame(bytes: &[u8]) -> Option<usize> {
    let starts = bytes.windows(FRAME_HEADER).enumerate().skip(1);
    let mut marked = starts.filter(|(_, window)| window.starts_with(&FRAME));
    marked.find(|(_, window)| frame_header(window).is_some()).map(|(at, _)| at)
}

/// Which log it is, by its beginning.
pub fn identity(bytes: &[u8]) -> Option<u64> {
    let [magic, identity] = words(bytes.get(..SECTOR)?)?;
    (magic == u64::from_le_bytes(MAGIC)).then_some(identity)
}

/// What a mark says; one that was never written: nothing. None: it is not what was written.
fn read_mark(bytes: &[u8], which: usize, identity: Option<u64>) -> Option<u64> {
    let sector = bytes.get(SECTOR * (1 + which)..)?.get(..SECTOR)?;
    if sector.iter().all(|byte| *byte == 0) {
        return Some(0);
    }
    let [of, number, durable] = words(sector)?;
    (Some(of) == identity && number == which as u64).then_some(durable)
}

/// The first words of a sector that is as it was written.
fn words<const N: usize>(sector: &[u8]) -> Option<[u64; N]> {
    let (signed, sum) = sector.split_last_chunk::<4>()?;
    let mut rest = signed;
    let mut words = [0; N];
    for word in &mut words {
        *word = u64::from_le_bytes(take(&mut rest)?);
    }
    (crc32c::crc32c(signed).to_le_bytes() == *sum).then_some(words)
}

fn entry_of_purge(entries: &mut Vec<u8>, kind: Kind, at: Position, record: Option<&Record>) {
    entries.extend_from_slice(&[PURGE, u8::from(kind == Kind::Soft)]);
    entries.extend_from_slice(&at.0.to_le_bytes());
    // Ids are some 40 bytes; a longer one, or none, has no place in the ledger.
    let kept = record.and_then(|record| Some((record, u8::try_from(record.id.len()).ok()?)));
    let Some((record, length)) = kept else { return entries.push(0) };
    entries.push(length);
    entries.extend_from_slice(record.id.as_bytes());
    entries.extend_from_slice(&record.time.0.to_le_bytes());
    put_length(entries, record.targets);
}

fn take_purge(entries: &mut &[u8]) -> Option<(Kind, Position, Option<Record>)> {
    let kind = match take::<1>(entries)? {
        [0] => Kind::Hard,
        [1] => Kind::Soft,
        _ => return None,
    };
    let position = take_position(entries)?;
    let length = usize::from(take::<1>(entries)?[0]);
    if length == 0 {
        return Some((kind, position, None));
    }
    let (id, rest) = entries.split_at_checked(length)?;
    let id = std::str::from_utf8(id).ok()?.into();
    *entries = rest;
    let time = UnixMillis(u64::from_le_bytes(take(entries)?));
    let targets = take_length(entries)?;
    Some((kind, position, Some(Record { id, position, kind, targets, time, entry: 0 })))
}

fn put_length(bytes: &mut Vec<u8>, length: usize) {
    bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_subject(bytes: &mut Vec<u8>, subject: Subject) {
    bytes.push(subject.scope as u8);
    bytes.extend_from_slice(&subject.hash.to_le_bytes());
}

fn put_floor(bytes: &mut Vec<u8>, floor: Floor) {
    bytes.extend_from_slice(&floor.hard.0.to_le_bytes());
    bytes.extend_from_slice(&floor.soft.0.to_le_bytes());
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*taken)
}

fn take_length(bytes: &mut &[u8]) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(take(bytes)?)).ok()
}

fn take_position(bytes: &mut &[u8]) -> Option<Position> {
    take(bytes).map(u64::from_le_bytes).map(Position)
}

fn take_floor(bytes: &mut &[u8]) -> Option<Floor> {
    Some(Floor { hard: take_position(bytes)?, soft: take_position(bytes)? })
}

fn take_scope(bytes: &mut &[u8]) -> Option<Scope> {
    let scopes = [Scope::Url, Scope::Prefix, Scope::Host, Scope::Tag, Scope::All];
    let [number] = take::<1>(bytes)?;
    scopes.into_iter().find(|scope| *scope as u8 == number)
}

fn take_subject(bytes: &mut &[u8]) -> Option<Subject> {
    Some(Subject { scope: take_scope(bytes)?, hash: u64::from_le_bytes(take(bytes)?) })
}

#[cfg(test)]
mod tests;
