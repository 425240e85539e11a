//! Which segment is used again, and what becomes of each record in it: what was asked for since it was written moves on, at
//! most three quarters of a segment of it, the most asked for first; the rest is lost.
//!
//! A small record begins as if it had been asked for three times: it moves twice before it is lost, which costs few bytes. On
//! the web mix (memory 1 %, disk 10 %) that is half a point of requests.
//!
//! A segment of which at least five eighths were asked for is spared: it stays as it is until its turn comes again, and half
//! of what it was asked for is forgotten. What is wanted again and again gathers in such segments, and is not written in
//! every round: that saves a third of the moved bytes, which new records get.

use super::format::Role;
use super::geometry::UNIT;
use super::index::{self, Index, Location};
use super::log::{Entry, Log, REPLACES, Usage};
use super::update_hash;

/// Why a segment is reclaimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is the oldest.
    Oldest,
    /// Less than a fifth of it is of use: all of that moves on.
    Sparse,
}

/// What becomes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is of no use any more.
    Nothing,
    /// It is written again.
    Move,
    /// It is lost.
    Evict {
        /// And a tombstone is written in its stead: an older record of the place may lie elsewhere.
        bury: bool,
    },
    /// It is of no use any more, but what is below it would come back without it: a tombstone is written in its stead.
    Bury,
}

/// A record of so many units or fewer, 8 KiB, is small.
const SMALL: u32 = ((8 << 10) / UNIT) as u32;

/// What the index says of a record that is new.
pub const fn first_entry(at: Location) -> index::Entry {
    let hits = if at.units <= SMALL { 3 } else { 0 };
    index::Entry::new(at).with_hits(hits)
}

/// Which segment is next, if any is sealed.
pub fn choose(log: &Log) -> Option<(u32, Why)> {
    let units = log.geometry().units();
    let sparse = log
        .sealed()
        .map(|(segment, sequence)| (log.usage().live(segment), sequence, segment))
        // Of those that are worth the same the oldest: its tombstones are of no use any more.
        .min()
        .filter(|(live, ..)| u64::from(*live) * 5 < u64::from(units));
    if let Some((.., segment)) = sparse {
        return Some((segment, Why::Sparse));
    }
    let oldest = log.sealed().min_by_key(|(segment, _)| log.turn(*segment))?;
    Some((oldest.0, Why::Oldest))
}

/// Whether a segment whose turn has come is spared, as far as what was asked for in it goes; [`Log::spare`] may refuse it. To
/// be followed by [`halve_hits`].
pub fn is_wanted(entries: &[Entry], segment: u32, why: Why, index: &Index, units: u32) -> bool {
    let wanted = |entry: &&Entry| hits(entry, segment, index).is_some_and(|hits| hits > 0);
    let wanted: u64 = entries.iter().filter(wanted).map(|entry| u64::from(entry.units)).sum();
    why == Why::Oldest && wanted * 8 >= u64::from(units) * 5
}

/// What was asked for in a segment counts for half of what it did: once is forgotten.
pub fn halve_hits(entries: &[Entry], segment: u32, index: &Index) {
    for entry in entries {
        if hits(entry, segment, index).is_some_and(|hits| hits > 0) {
            let at = entry.at(segment);
            index.change(entry.hash, |found| match found.location() == at {
                true => found.with_hits(found.hits() / 2),
                false => found,
            });
        }
    }
}

/// How often a content was asked for. None: it is not one, or does not count any more.
fn hits(entry: &Entry, segment: u32, index: &Index) -> Option<u8> {
    let found = (entry.role == Role::Content).then(|| index.get(entry.hash)).flatten();
    found.filter(|found| found.location() == entry.at(segment)).map(index::Entry::hits)
}

/// For each record of a segment whether there is room for it to move, in their order.
pub fn plan(entries: &[Entry], segment: u32, why: Why, index: &Index, units: u32) -> Vec<bool> {
    let hits: Vec<Option<u8>> = entries.iter().map(|entry| hits(entry, segment, index)).collect();
    let mut keep = vec![false; entries.len()];
    let mut room = match why {
        Why::Oldest => u64::from(units) * 3 / 4,
        Why::Sparse => u64::from(units),
    };
    let least = if why == Why::Sparse { 0 } else { 1 };
    for wanted in (least..=3).rev() {
        for ((entry, hits), keep) in entries.iter().zip(&hits).zip(&mut keep) {
            if *hits == Some(wanted) && u64::from(entry.units) <= room {
                room -= u64::from(entry.units);
                *keep = true;
            }
        }
    }
    keep
}

/// What becomes of one of them, as things are now. `own`: the number of this use of its segment, `oldest`: that of the oldest
/// of the others.
pub fn fate(entry: &Entry, at: Location, keep: bool, index: &Index, own: u64, oldest: u64) -> Fate {
    let is_current =
        || index.get(entry.hash).is_some_and(|found: index::Entry| found.location() == at);
    // What replaces it has been handed over, but may not be on the disk yet; or a tombstone is there already.
    let has_no_successor = |hash| index.get(hash).is_none();
    // Whether what it stands above can still be found on another segment.
    let is_needed = oldest <= entry.epoch;
    match entry.role {
        Role::Tombstone if is_needed => Fate::Move,
        Role::Tombstone => Fate::Nothing,
        Role::Update if is_current() => match index.get(update_hash(entry.hash)) {
            // Small, and without it its content could not be used.
            Some(content) if content.is_updated() => Fate::Move,
            _ => Fate::Evict { bury: false },
        },
        Role::Content if is_current() => match keep {
            true => Fate::Move,
            false => Fate::Evict { bury: entry.flags & REPLACES != 0 && is_needed },
        },
        Role::Content
            if entry.flags & REPLACES != 0 && is_needed && has_no_successor(entry.hash) =>
        {
            Fate::Bury
        }
        // Its content is not on a younger segment than its own: it would take the later head with it.
        Role::Update if oldest <= own && has_no_successor(update_hash(entry.hash)) => Fate::Bury,
        Role::Update | Role::Content => Fate::Nothing,
    }
}

/// Takes a record that lies there out of the index, with the later meta beside it. `false`: it does not lie there.
pub fn evict(hash: u64, at: Location, index: &Index, usage: &Usage) -> bool {
    let Some(entry) = index.remove_at(hash, at) else { return false };
    usage.subtract(at);
    if entry.is_updated() {
        forget_update(hash, index, usage);
    }
    true
}

/// Takes out whatever lies at a place, with the later meta beside it.
pub fn remove(hash: u64, index: &Index, usage: &Usage) -> Option<index::Entry> {
    let entry = index.remove(hash)?;
    usage.subtract(entry.location());
    if entry.is_updated() {
        forget_update(hash, index, usage);
    }
    Some(entry)
}

/// Takes out the later meta of a place.
pub fn forget_update(hash: u64, index: &Index, usage: &Usage) {
    if let Some(update) = index.remove(update_hash(hash)) {
        usage.subtract(update.location());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::geometry::Geometry;
    use super::super::log::{Draft, Stream};
    use super::*;

    const UNITS: u32 = 64;

    fn draft(hash: u64, units: u32) -> Draft {
        Draft { hash, sequence: hash, epoch: None, units, role: Role::Content, flags: 0 }
    }

    /// A log of eight segments, each filled with records of an eighth of it.
    fn filled() -> (Log, Index, Vec<(u32, Vec<Entry>)>) {
        let geometry = Geometry::with_segment(1 << 20, 64 << 10).unwrap();
        let (usage, index) = (Arc::new(Usage::new(&geometry)), Index::new(100));
        let mut log = Log::new(geometry, usage, 0);
        let mut sealed = Vec::new();
        for hash in 1.. {
            let Ok(placed) = log.place(Stream::New, &draft(hash, UNITS)) else { break };
            index.insert(hash, index::Entry::new(placed.at));
            log.usage().add(placed.at);
            sealed.extend(placed.sealed.map(|sealed| (sealed.segment, sealed.entries)));
        }
        (log, index, sealed)
    }

    #[test]
    fn the_oldest_goes_first_unless_another_holds_hardly_anything() {
        let (log, index, sealed) = filled();
        assert!(log.is_tight());
        assert_eq!(choose(&log), Some((sealed[0].0, Why::Oldest)));
        let (segment, entries) = &sealed[3];
        for entry in &entries[1..] {
            remove(entry.hash, &index, log.usage());
        }
        assert_eq!(choose(&log), Some((*segment, Why::Sparse)));
        let keep = plan(entries, *segment, Why::Sparse, &index, log.geometry().units());
        assert_eq!(keep.iter().filter(|keep| **keep).count(), 1, "asked for or not");
    }

    #[test]
    fn three_quarters_of_a_segment_move_and_the_most_asked_for_first() {
        let (log, index, sealed) = filled();
        let (segment, entries) = &sealed[0];
        assert_eq!(entries.len(), 7);
        for (n, entry) in entries.iter().enumerate() {
            for _ in 0..[1, 1, 3, 1, 2, 1, 3][n] {
                index.touch(entry.hash);
            }
        }
        let keep = plan(entries, *segment, Why::Oldest, &index, log.geometry().units());
        assert_eq!(keep, [true, true, true, true, true, false, true]);
        let (own, oldest) = (log.usage().sequence(*segment), log.oldest_but(*segment));
        let fates: Vec<_> = entries
            .iter()
            .zip(keep)
            .map(|(entry, keep)| fate(entry, entry.at(*segment), keep, &index, own, oldest))
            .collect();
        assert_eq!(fates[0], Fate::Move);
        assert_eq!(fates[5], Fate::Evict { bury: false });
    }

    /// A small record, never asked for, moves twice.
    #[test]
    fn what_is_small_has_credit() {
        let at = Location { segment: 1, unit: 0, units: SMALL };
        assert_eq!(first_entry(at).hits(), 3);
        assert_eq!(first_entry(at).location(), at);
        assert_eq!(first_entry(Location { units: SMALL + 1, ..at }).hits(), 0);
    }

    /// What replaces a record may still wait to be written when the record's segment is used again before an older one.
    #[test]
    fn what_is_below_a_dead_record_stays_dead() {
        let (log, index, sealed) = filled();
        let (segment, entries) = &sealed[3];
        let (own, oldest) = (log.usage().sequence(*segment), log.oldest_but(*segment));
        assert!(oldest < own);
        let content = Entry { flags: REPLACES, ..entries[0] };
        let update = Entry { hash: update_hash(content.hash), role: Role::Update, ..entries[0] };
        let of =
            |entry: &Entry, oldest| fate(entry, content.at(*segment), false, &index, own, oldest);
        assert_eq!(of(&content, oldest), Fate::Evict { bury: true });
        let found = remove(content.hash, &index, log.usage()).unwrap();
        assert_eq!((of(&content, oldest), of(&update, oldest)), (Fate::Bury, Fate::Bury));
        assert_eq!(
            of(&Entry { flags: 0, ..content }, oldest),
            Fate::Nothing,
            "nothing is below it"
        );
        // In the order of their age there is nothing older.
        for entry in [&content, &update] {
            assert_eq!(of(entry, u64::MAX), Fate::Nothing);
        }
        index.insert(content.hash, index::Entry::new(Location { unit: 9, ..found.location() }));
        assert_eq!((of(&content, oldest), of(&update, oldest)), (Fate::Nothing, Fate::Nothing));
    }

    /// Most of it was asked for: it stays until its turn comes again, and has to be asked for again until then.
    #[test]
    fn a_segment_that_is_wanted_is_spared_and_counted_anew() {
        let (mut log, index, sealed) = filled();
        let units = log.geometry().units();
        let (segment, entries) = &sealed[0];
        let wanted = |why| is_wanted(entries, *segment, why, &index, units);
        entries[..4].iter().for_each(|entry| index.touch(entry.hash));
        assert!(!wanted(Why::Oldest), "half");
        (0..2).for_each(|_| index.touch(entries[4].hash));
        assert!(wanted(Why::Oldest) && !wanted(Why::Sparse));
        assert!(log.spare(*segment));
        halve_hits(entries, *segment, &index);
        assert!(!wanted(Why::Oldest));
        let hits = |entry: &Entry| index.get(entry.hash).map(index::Entry::hits);
        assert_eq!((hits(&entries[3]), hits(&entries[4])), (Some(0), Some(1)));
        assert_eq!(choose(&log), Some((sealed[1].0, Why::Oldest)));
        // As if it were the newest: the turn of the one that is still open comes later.
        for (other, _) in &sealed[1..] {
            assert!(log.turn(*other) < log.turn(*segment));
        }
        assert_eq!(log.oldest_but(sealed[1].0), log.usage().sequence(*segment), "of its records");
    }

    /// However much they are asked for.
    #[test]
    fn nothing_is_spared_for_ever() {
        let (mut log, _, sealed) = filled();
        let segment = sealed[0].0;
        for other in sealed.iter().skip(1).map(|sealed| sealed.0).take(4) {
            assert!(log.spare(segment) && log.spare(other));
        }
        assert!(!log.spare(segment), "it was four times");
        assert!(!log.spare(sealed[5].0), "eight one after the other");
        log.release(segment);
        assert!(log.spare(sealed[5].0));
        assert_eq!(log.turn(segment), (0, 0));
    }

    /// What stands above an older record is kept, in one form or another, until that one cannot be found any more.
    #[test]
    fn tombstones_last_as_long_as_what_they_bury() {
        let (log, index, sealed) = filled();
        let (segment, entries) = &sealed[5];
        let at = entries[0].at(*segment);
        let tombstone = Entry { role: Role::Tombstone, ..entries[0] };
        let (own, oldest) = (log.usage().sequence(*segment), log.oldest_but(*segment));
        assert!(oldest < tombstone.epoch, "older segments are in use");
        assert_eq!(fate(&tombstone, at, false, &index, own, oldest), Fate::Move);
        assert_eq!(fate(&tombstone, at, false, &index, own, tombstone.epoch + 1), Fate::Nothing);
        let above = Entry { flags: REPLACES, ..entries[0] };
        assert_eq!(fate(&above, at, false, &index, own, oldest), Fate::Evict { bury: true });
        let later = tombstone.epoch + 1;
        assert_eq!(fate(&above, at, false, &index, own, later), Fate::Evict { bury: false });
        assert_eq!(fate(&above, at, true, &index, own, oldest), Fate::Move);
        remove(above.hash, &index, log.usage());
        assert_eq!(fate(&above, at, true, &index, own, oldest), Fate::Bury);
    }

    /// The last free segment is for what moves: reclaiming always gets on.
    #[test]
    fn new_records_leave_a_segment_for_those_that_move() {
        let (mut log, index, sealed) = filled();
        assert_eq!(log.free(), 1);
        let moved = log.place(Stream::Moved, &draft(9999, UNITS)).unwrap();
        assert!(moved.opened && moved.sealed.is_none());
        assert_eq!(log.free(), 0);
        let (segment, entries) = &sealed[0];
        for entry in entries {
            evict(entry.hash, entry.at(*segment), &index, log.usage());
        }
        assert_eq!(log.usage().live(*segment), 0);
        log.release(*segment);
        assert_eq!((log.free(), log.usage().sequence(*segment)), (1, 0));
    }
}
