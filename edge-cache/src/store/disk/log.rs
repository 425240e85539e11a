//! Which segment the next record goes to, and where in it: the state of a disk's log. One thread writes a disk and owns
//! this; how much of each segment is alive, and which use of it is current, everybody who reads may know ([`Usage`]).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::format::{Role, SEGMENT_HEADER, footer_bytes};
use super::geometry::{Geometry, UNIT};
use super::index::Location;

/// Bit of [`Entry::flags`]: an older record of the place may still lie on the disk. When this one is dropped before that
/// one's segment is, a tombstone keeps the older one dead.
pub const REPLACES: u8 = 1;

/// How often a segment may be spared before it is reclaimed.
const SPARED: u8 = 4;
/// How many segments may be spared one after the other, until one is reclaimed.
const SPARED_AT_ONCE: u32 = 8;

/// A free segment that only moved records may take: without it nothing could be reclaimed.
const RESERVE: usize = 1;

/// What a footer says of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name in the index.
    pub hash: u64,
    /// When its content was handed over.
    pub sequence: u64,
    /// The newest segment when its content was first written: older records of the place lie in that one or in older ones.
    /// Of an update: the sequence number of the content that it is for.
    pub epoch: u64,
    /// Where it begins in the segment.
    pub unit: u32,
    /// How long it is.
    pub units: u32,
    /// What it is.
    pub role: Role,
    /// [`REPLACES`].
    pub flags: u8,
}

impl Entry {
    /// Where it lies if it is in this segment.
    pub const fn at(&self, segment: u32) -> Location {
        Location { segment, unit: self.unit, units: self.units }
    }
}

/// A record that wants a place.
#[derive(Clone, Copy, Debug)]
pub struct Draft {
    /// See [`Entry::hash`].
    pub hash: u64,
    /// See [`Entry::sequence`].
    pub sequence: u64,
    /// See [`Entry::epoch`]. None: its content is first written now.
    pub epoch: Option<u64>,
    /// See [`Entry::units`].
    pub units: u32,
    /// What it is.
    pub role: Role,
    /// See [`Entry::flags`].
    pub flags: u8,
}

/// Records that are likely to die together lie together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// New ones.
    New,
    /// Those that were kept when their segment was reclaimed.
    Moved,
}

/// Where a record goes.
#[derive(Clone, Debug)]
pub struct Placed {
    /// There.
    pub at: Location,
    /// Which use of the segment.
    pub segment_sequence: u64,
    /// See [`super::format::Record::synced`].
    pub synced: u32,
    /// See [`Entry::epoch`].
    pub epoch: u64,
    /// A segment that had no room for it: it gets its footer.
    pub sealed: Option<Sealed>,
    /// Whether this is the segment's first record: its header is written before.
    pub opened: bool,
}

/// A segment that takes no more records.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// Which.
    pub segment: u32,
    /// Which use of it.
    pub sequence: u64,
    /// What lies in it.
    pub entries: Vec<Entry>,
}

/// Why a record gets no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is larger than a segment.
    TooLarge,
    /// A segment is to be reclaimed first.
    Full,
}

/// What the segments hold, for everybody.
#[derive(Debug)]
pub struct Usage {
    live: Box<[AtomicU32]>,
    sequence: Box<[AtomicU64]>,
}

impl Usage {
    /// Of a disk that holds nothing.
    pub fn new(geometry: &Geometry) -> Self {
        let all = 0..geometry.segments;
        Self {
            live: all.clone().map(|_| AtomicU32::new(0)).collect(),
            sequence: all.map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// A record counts from now on.
    pub fn add(&self, at: Location) {
        if let Some(live) = self.live.get(at.segment as usize) {
            live.fetch_add(at.units, Ordering::Relaxed);
        }
    }

    /// A record counts no more.
    pub fn subtract(&self, at: Location) {
        if let Some(live) = self.live.get(at.segment as usize) {
            let less = |live: u32| Some(live.saturating_sub(at.units));
            let _ = live.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
    }

    /// Units of a segment that the index leads to.
    pub fn live(&self, segment: u32) -> u32 {
        self.live.get(segment as usize).map_or(0, |live| live.load(Ordering::Relaxed))
    }

    /// The units of all segments that the index leads to.
    pub fn total(&self) -> u64 {
        self.live.iter().map(|live| u64::from(live.load(Ordering::Relaxed))).sum()
    }

    /// Which use of a segment is current. 0: it is not in use.
    pub fn sequence(&self, segment: u32) -> u64 {
        self.sequence.get(segment as usize).map_or(0, |sequence| sequence.load(Ordering::Acquire))
    }

    /// Says so.
    pub fn set_sequence(&self, segment: u32, sequence: u64) {
        if let Some(slot) = self.sequence.get(segment as usize) {
            slot.store(sequence, Ordering::Release);
        }
    }

    /// What a copy of the index says.
    pub fn restore(&self, segment: u32, sequence: u64, live: u32) {
        self.set_sequence(segment, sequence);
        if let Some(slot) = self.live.get(segment as usize) {
            slot.store(live, Ordering::Relaxed);
        }
    }

    /// Forgets what a segment holds.
    pub fn forget(&self, segment: u32) {
        self.set_sequence(segment, 0);
        if let Some(live) = self.live.get(segment as usize) {
            live.store(0, Ordering::Relaxed);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    Open,
    Sealed,
}

#[derive(Debug)]
struct Open {
    segment: u32,
    sequence: u64,
    used: u32,
    synced: u32,
    entries: Vec<Entry>,
}

impl Open {
    fn has_room(&self, units: u32, geometry: &Geometry) -> bool {
        let data = (u64::from(self.used) + u64::from(units)) * UNIT;
        data + footer_bytes(self.entries.len() + 1) as u64 <= u64::from(geometry.segment)
    }

    fn seal(self) -> Sealed {
        Sealed { segment: self.segment, sequence: self.sequence, entries: self.entries }
    }
}

/// The log of a disk.
#[derive(Debug)]
pub struct Log {
    geometry: Geometry,
    usage: Arc<Usage>,
    states: Vec<State>,
    /// Of each segment the newest one when it was last spared, and how often that was.
    spared: Vec<(u64, u8)>,
    spared_at_once: u32,
    free: VecDeque<u32>,
    new: Option<Open>,
    moved: Option<Open>,
    newest: u64,
}

impl Log {
    /// After a start: segments that `usage` knows a use of are sealed, the others free. Uses are numbered on from `newest`.
    pub fn new(geometry: Geometry, usage: Arc<Usage>, newest: u64) -> Self {
        let state = |segment| {
            if usage.sequence(segment) == 0 { State::Free } else { State::Sealed }
        };
        let states: Vec<State> = (0..geometry.segments).map(state).collect();
        let free = (0..geometry.segments)
            .filter(|segment| states.get(*segment as usize) == Some(&State::Free))
            .collect();
        let spared = vec![(0, 0); states.len()];
        Self {
            geometry,
            usage,
            states,
            spared,
            spared_at_once: 0,
            free,
            new: None,
            moved: None,
            newest,
        }
    }

    /// The largest record, in units.
    pub const fn largest(geometry: &Geometry) -> u32 {
        let room = geometry.segment as usize - SEGMENT_HEADER - footer_bytes(1);
        (room / UNIT as usize) as u32
    }

    /// Gives a record its place.
    pub fn place(&mut self, stream: Stream, draft: &Draft) -> Result<Placed, Refused> {
        if draft.units > Self::largest(&self.geometry) {
            return Err(Refused::TooLarge);
        }
        let (slot, reserve) = match stream {
            Stream::New => (&mut self.new, RESERVE),
            Stream::Moved => (&mut self.moved, 0),
        };
        let has_room = slot.as_ref().is_some_and(|open| open.has_room(draft.units, &self.geometry));
        let mut sealed = None;
        if !has_room {
            if self.free.len() <= reserve {
                return Err(Refused::Full);
            }
            let segment = self.free.pop_front().ok_or(Refused::Full)?;
            self.newest += 1;
            let used = (SEGMENT_HEADER as u64 / UNIT) as u32;
            let (sequence, synced) = (self.newest, 0);
            let open = Open { segment, sequence, used, synced, entries: Vec::new() };
            sealed = slot.replace(open).map(Open::seal);
            if let Some(sealed) = &sealed {
                set(&mut self.states, sealed.segment, State::Sealed);
            }
            set(&mut self.states, segment, State::Open);
            self.usage.set_sequence(segment, self.newest);
        }
        let open = slot.as_mut().ok_or(Refused::Full)?;
        let at = Location { segment: open.segment, unit: open.used, units: draft.units };
        let epoch = draft.epoch.unwrap_or(self.newest);
        open.used += draft.units;
        open.entries.push(Entry {
            hash: draft.hash,
            sequence: draft.sequence,
            epoch,
            unit: at.unit,
            units: at.units,
            role: draft.role,
            flags: draft.flags,
        });
        Ok(Placed {
            at,
            segment_sequence: open.sequence,
            synced: open.synced,
            epoch,
            sealed,
            opened: !has_room,
        })
    }

    /// All that was placed so far is written, and outlives a loss of power.
    pub fn synced(&mut self) {
        for open in self.new.iter_mut().chain(&mut self.moved) {
            open.synced = open.used;
        }
    }

    /// Seals the segment of a stream, whatever room it has.
    pub fn seal(&mut self, stream: Stream) -> Option<Sealed> {
        let slot = match stream {
            Stream::New => &mut self.new,
            Stream::Moved => &mut self.moved,
        };
        let sealed = slot.take().map(Open::seal)?;
        set(&mut self.states, sealed.segment, State::Sealed);
        Some(sealed)
    }

    /// Whether a segment should be reclaimed, before it must be.
    pub fn is_tight(&self) -> bool {
        self.free.len() <= RESERVE
    }

    /// Free segments.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// The sealed segments, and which use of each it is.
    pub fn sealed(&self) -> impl Iterator<Item = (u32, u64)> {
        let sealed = self.states.iter().zip(0..).filter(|(state, _)| **state == State::Sealed);
        sealed.map(|(_, segment)| (segment, self.usage.sequence(segment)))
    }

    /// When the turn of a sealed segment comes to be reclaimed, in relation to others: in the order in which they were first
    /// written to, those that were spared as if that had been then.
    pub fn turn(&self, segment: u32) -> (u64, u64) {
        let sequence = self.usage.sequence(segment);
        let (spared, _) = self.spared.get(segment as usize).copied().unwrap_or_default();
        (spared.max(sequence), sequence)
    }

    /// Lets a segment whose turn has come stay as it is for another round. `false`: it has stayed too often, or too many have
    /// been spared since one was reclaimed. So nothing stays for ever, tombstones neither, and who waits for room gets it.
    pub fn spare(&mut self, segment: u32) -> bool {
        let Some((turn, times)) = self.spared.get_mut(segment as usize) else { return false };
        if *times >= SPARED || self.spared_at_once >= SPARED_AT_ONCE {
            return false;
        }
        (*turn, *times) = (self.newest, *times + 1);
        self.spared_at_once += 1;
        true
    }

    /// The oldest use of a segment other than this one: what was written before it is on no other segment.
    pub fn oldest_but(&self, segment: u32) -> u64 {
        let used = self.states.iter().zip(0..);
        let used = used.filter(|(state, other)| **state != State::Free && *other != segment);
        used.map(|(_, other)| self.usage.sequence(other)).min().unwrap_or(u64::MAX)
    }

    /// A sealed segment that holds nothing of use any more is free; its header says so on the disk.
    pub fn release(&mut self, segment: u32) {
        if self.states.get(segment as usize) == Some(&State::Sealed) {
            set(&mut self.states, segment, State::Free);
            self.usage.forget(segment);
            self.free.push_back(segment);
            self.spared_at_once = 0;
            if let Some(spared) = self.spared.get_mut(segment as usize) {
                *spared = (0, 0);
            }
        }
    }

    /// What all this is about.
    pub const fn usage(&self) -> &Arc<Usage> {
        &self.usage
    }

    /// How the disk is divided.
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }
}

fn set(states: &mut [State], segment: u32, state: State) {
    if let Some(slot) = states.get_mut(segment as usize) {
        *slot = state;
    }
}
