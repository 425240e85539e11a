//! What a log of purges gives back: all of it, or more.

use proptest::prelude::*;

use super::super::{Positions, Tags, Verdict};
use super::*;
use crate::key::{CacheKey, KeyRules};

const NOW: UnixMillis = UnixMillis::from_secs(1_800_000_000);
const IDENTITY: u64 = 77;

fn key(n: usize) -> CacheKey {
    CacheKey::of_url(&format!("http://a.test/{n}"), &KeyRules::default()).unwrap()
}

fn url(n: usize) -> Target {
    Target::Url(format!("http://a.test/{n}").into())
}

fn record(n: usize, at: Position) -> Record {
    let id = Ledger::id(at, Kind::Hard, &[url(n)]);
    Record { id, position: at, kind: Kind::Hard, targets: 1, time: NOW, entry: 0 }
}

/// A log of purges of the URLs `0..count` at positions from 1000 on, each in a frame of its own.
fn log(count: usize) -> Vec<u8> {
    let mut bytes = snapshot(IDENTITY, Position(900), &Fences::new(0), &Ledger::default()).0;
    for n in 0..count {
        append(&mut bytes, n, Position(1000 + n as u64));
    }
    bytes
}

fn append(bytes: &mut Vec<u8>, n: usize, at: Position) {
    let mut entries = Vec::new();
    purge(&mut entries, &[url(n)], Kind::Hard, at, Some(&record(n, at)));
    frame(bytes, &entries, turn(n), at);
}

/// Of the frame of the purge with this number: each was durable before the next one was written.
fn turn(n: usize) -> Turn {
    Turn { sequence: n as u64 + 2, durable: n as u64 + 1 }
}

fn read(bytes: &[u8]) -> (Fences, Ledger, Replayed) {
    let (fences, mut ledger) = (Fences::new(0), Ledger::default());
    let replayed = replay(bytes, &fences, &mut ledger, NOW);
    (fences, ledger, replayed)
}

fn sound(ceiling: u64, sequence: u64) -> Replayed {
    let (identity, ceiling) = (Some(IDENTITY), Position(ceiling));
    let marks = [1, 0];
    Replayed { identity, ceiling, is_sound: true, sequence, marks, torn: 0, damage: None }
}

#[test]
fn what_is_written_is_read() {
    let (fences, ledger, replayed) = read(&log(3));
    assert_eq!(replayed, sound(1002, 4));
    for n in 0..3 {
        let at = Position(1000 + n as u64);
        assert_eq!(fences.of_key(&key(n)).hard, at);
        assert_eq!(ledger.find(&record(n, at).id), Some(&record(n, at)));
    }
    assert_eq!(fences.of_key(&key(3)), Floor::default());
    assert_eq!(fences.latest(), Position(1002));
    // A mark alone: nothing purged, but known.
    let mut marked = log(0);
    frame(&mut marked, &[], turn(0), Position(5000));
    assert_eq!(read(&marked).2, sound(5000, 2));
}

#[test]
fn a_snapshot_is_all_that_was_known() {
    let (fences, mut ledger) = (Fences::new(0), Ledger::default());
    // More than the tables have room for, and more than one frame.
    for n in 0..20_000 {
        let at = Position(1000 + n as u64);
        fences.apply(&url(n), if n % 3 == 0 { Kind::Soft } else { Kind::Hard }, at);
        ledger.note(record(n, at));
    }
    let targets = [
        Target::Prefix("http://a.test/x".into()),
        Target::Host("b.test".into()),
        Target::Tag("t".into()),
        Target::Group { origin: "http://a.test".into(), name: "g".into() },
        Target::All,
    ];
    for (n, target) in targets.iter().enumerate() {
        fences.apply(target, Kind::Soft, Position(50_000 + n as u64));
    }
    let (bytes, frames) = snapshot(IDENTITY, Position(60_000), &fences, &ledger);
    assert!(bytes.len() > 2 * SNAPSHOT_FRAME, "{}", bytes.len());
    let (read_fences, read_ledger, replayed) = read(&bytes);
    assert_eq!(replayed, Replayed { marks: [frames, 0], ..sound(60_000, frames) });
    assert!(ledger.records().eq(read_ledger.records()));
    for n in 0..25_000 {
        assert_eq!(read_fences.of_key(&key(n)), fences.of_key(&key(n)));
    }
    assert_eq!(read_fences.latest(), fences.latest());
    let headers = |tag: &'static str| {
        let mut headers = http::HeaderMap::new();
        headers.insert("cache-tag", http::HeaderValue::from_static(tag));
        Tags::of(&headers, &[http::HeaderName::from_static("cache-tag")], "http://a.test")
    };
    for tag in ["t", "u"] {
        assert_eq!(read_fences.of_tags(&headers(tag)), fences.of_tags(&headers(tag)));
    }
    // Its bound: however many purges come, it grows no more.
    for n in 20_000..60_000 {
        fences.apply(&url(n), Kind::Hard, Position(60_000 + n as u64));
    }
    let more = snapshot(IDENTITY, Position(200_000), &fences, &ledger).0.len();
    assert!(more < bytes.len() * 2, "{more} after {}", bytes.len());
}

#[test]
fn a_torn_tail_is_passed_over() {
    let whole = log(3);
    let mut longer = whole.clone();
    append(&mut longer, 3, Position(1003));
    for cut in whole.len() + 1..longer.len() {
        let (fences, _, replayed) = read(&longer[..cut]);
        let torn = cut - whole.len();
        assert_eq!(replayed, Replayed { is_sound: false, torn, ..sound(1002, 4) });
        assert_eq!(fences.of_key(&key(2)).hard, Position(1002));
        // The length was written, the bytes were not.
        let mut zeros = longer.clone();
        zeros[cut..].fill(0);
        let (_, _, replayed) = read(&zeros);
        let all_but_the_end = cut == longer.len() - 1;
        let (torn, read) = match all_but_the_end {
            true => (0, sound(1003, 5)),
            false => (longer.len() - whole.len(), sound(1002, 4)),
        };
        assert_eq!(replayed, Replayed { is_sound: all_but_the_end, torn, ..read }, "{cut}");
    }
}

#[test]
fn damage_in_the_middle_purges_all_before_what_follows() {
    let sound_bytes = log(3);
    let start = log(1).len();
    for at in start..log(2).len() - 1 {
        let mut bytes = sound_bytes.clone();
        bytes[at] ^= 0x10;
        let (fences, _, replayed) = read(&bytes);
        let damage = replayed.damage.expect("is damaged");
        assert_eq!(damage.at, start);
        assert_eq!(replayed.identity, Some(IDENTITY));
        assert!(damage.before >= Position(1001), "{at}: {damage:?}");
        assert!(damage.before <= replayed.ceiling);
        // Something else stored before, and what was purged.
        for n in [1, 500] {
            assert_eq!(
                fences.judge(key(n).url(), &Tags::default(), Position(1000), Floor::default()),
                Verdict::Purged
            );
        }
        assert_eq!(fences.of_key(&key(2)).hard, Position(1002));
    }
}

#[test]
fn a_lost_beginning_or_end_makes_it_another_log() {
    let now = Position(NOW.0 * 1000);
    let mut end = log(3);
    let last = end.len() - 10;
    end[last] ^= 1;
    // The last frame's header is right: it says what can be lost.
    assert_eq!(read(&end).2.damage.unwrap().before, Position(1002));
    let mut header = log(3);
    let at = log(2).len() + 8;
    header[at] ^= 1;
    for bytes in [&[][..], b"x", &log(3)[1..], &log(0)[..FILE_HEADER], &header] {
        let (fences, _, replayed) = read(bytes);
        assert_eq!((replayed.identity, replayed.ceiling), (None, now));
        assert!(fences.of_key(&key(900)).hard >= replayed.damage.unwrap().before);
        assert_eq!(fences.of_key(&key(900)).hard, now);
    }
    // A snapshot that was cut is no torn tail.
    let fences = Fences::new(0);
    (0..20_000).for_each(|n| fences.apply(&url(n), Kind::Hard, Position(1)));
    let (bytes, _) = snapshot(IDENTITY, Position(60), &fences, &Ledger::default());
    let cut = read(&bytes[..bytes.len() / 2]).2;
    assert_eq!((cut.identity, cut.is_sound), (None, false));
    // Another version.
    let mut other = log(3);
    other[7] = 1;
    let sum = crc32c::crc32c(&other[..SECTOR - 4]).to_le_bytes();
    other[SECTOR - 4..SECTOR].copy_from_slice(&sum);
    assert_eq!(read(&other).2.identity, None);
}

/// A log of four purges, written in the way that is said of each: with which frame durable.
fn written(durable: [u64; 4], mark: u64) -> Vec<u8> {
    let mut bytes = log(0);
    for (n, durable) in durable.into_iter().enumerate() {
        let at = Position(1000 + n as u64);
        let mut entries = Vec::new();
        purge(&mut entries, &[url(n)], Kind::Hard, at, Some(&record(n, at)));
        frame(&mut bytes, &entries, Turn { sequence: n as u64 + 2, durable }, at);
    }
    let (place, mark) = super::mark(1, IDENTITY, mark);
    bytes[place as usize..][..SECTOR].copy_from_slice(&mark);
    bytes
}

/// What is lost, and what follows from it: frames 2 to 5 are the purges 0 to 3.
#[test]
fn what_is_lost_counts_as_what_it_was() {
    #[derive(Debug, PartialEq)]
    enum Is {
        /// Nobody had been told of it.
        Torn,
        /// All before this counts as purged.
        Purged(u64),
        /// It becomes another log.
        Another,
    }
    use Is::{Another, Purged, Torn};
    type Harm = fn(&mut Vec<u8>, &dyn Fn(usize) -> usize);
    let zero_tail_from_2: Harm = |bytes, start| bytes[start(2)..].fill(0);
    let cut_from_2: Harm = |bytes, start| bytes.truncate(start(2));
    let zero_1: Harm = |bytes, start| bytes[start(1)..start(2)].fill(0);
    let flip_head_of_1: Harm = |bytes, start| bytes[start(1) + 6] ^= 1;
    let flip_entry_of_1: Harm = |bytes, start| bytes[start(1) + FRAME_HEADER + 3] ^= 1;
    let without_1: Harm = |bytes, start| drop(bytes.drain(start(1)..start(2)));
    let twice_1: Harm = |bytes, start| {
        let again = bytes[start(1)..start(2)].to_vec();
        let end = start(2);
        bytes.splice(end..end, again);
    };
    let garbage_at_end: Harm = |bytes, _| bytes.extend_from_slice(&[9; 60]);
    let zeros_at_end: Harm = |bytes, _| bytes.extend_from_slice(&[0; 5000]);
    let garbage_between: Harm = |bytes, start| drop(bytes.splice(start(2)..start(2), [7; 30]));
    let in_turn = [1, 2, 3, 4];
    let not_at_all = [1, 1, 1, 1];
    let cases: [(&str, [u64; 4], u64, Harm, Is); 18] = [
        ("an end of zeros, never durable", not_at_all, 1, zero_tail_from_2, Torn),
        ("an end of zeros, the mark knew of it", not_at_all, 4, zero_tail_from_2, Another),
        ("of a part of it", not_at_all, 3, zero_tail_from_2, Torn),
        ("an end of zeros, as after the last fsync", in_turn, 3, zero_tail_from_2, Torn),
        ("a shorter file", not_at_all, 1, cut_from_2, Torn),
        ("a shorter file, the mark knew of it", not_at_all, 5, cut_from_2, Another),
        ("a hole, never durable", not_at_all, 1, zero_1, Torn),
        ("a hole, durable when the next was written", in_turn, 1, zero_1, Purged(1002)),
        ("a hole, the mark knew of it", not_at_all, 3, zero_1, Purged(1002)),
        ("a hole, a later frame knew of it", [1, 1, 1, 3], 1, zero_1, Purged(1002)),
        ("a flipped head", in_turn, 1, flip_head_of_1, Purged(1002)),
        ("a flipped entry", in_turn, 1, flip_entry_of_1, Purged(1001)),
        ("a flipped entry, never durable", not_at_all, 1, flip_entry_of_1, Torn),
        ("a frame is gone", in_turn, 1, without_1, Purged(1002)),
        ("a frame comes twice", in_turn, 1, twice_1, Purged(1001)),
        ("something behind the end", in_turn, 5, garbage_at_end, Another),
        ("zeros behind the end", in_turn, 5, zeros_at_end, Torn),
        ("something between", in_turn, 5, garbage_between, Torn),
    ];
    for (what, durable, mark, harm, expected) in cases {
        let mut bytes = written(durable, mark);
        let mut starts = vec![log(0).len()];
        for _ in 0..4 {
            let Parsed::Whole(frame) = Frame::parse(&bytes[starts[starts.len() - 1]..]) else {
                panic!("{what}")
            };
            starts.push(starts[starts.len() - 1] + frame.length);
        }
        assert_eq!(read(&bytes).2.damage, None, "{what}: nothing is lost yet");
        harm(&mut bytes, &|n| starts[n]);
        let (fences, _, replayed) = read(&bytes);
        let is = match (&replayed.damage, replayed.identity) {
            (None, Some(IDENTITY)) => Torn,
            (Some(damage), Some(IDENTITY)) => Purged(damage.before.0),
            (Some(_), None) => Another,
            other => panic!("{what}: {other:?}"),
        };
        assert_eq!(is, expected, "{what}: {replayed:?}");
        // One that ends earlier is as good as one that was never longer.
        assert_eq!(replayed.is_sound, what == "a shorter file", "{what}: it is begun anew");
        // What can be read is in force in any case.
        assert!(fences.of_key(&key(0)).hard >= Position(1000), "{what}");
        if is != Torn {
            assert!(fences.of_key(&key(900)).hard >= Position(1001), "{what}");
        }
    }
}

/// A mark is written over the older one: a power failure in the middle leaves the other.
#[test]
fn a_torn_mark_is_none() {
    let mut bytes = written([1, 1, 1, 1], 5);
    let (place, _) = mark(1, IDENTITY, 5);
    bytes[place as usize + 100] ^= 1;
    let replayed = read(&bytes).2;
    assert_eq!((replayed.marks, replayed.is_sound, replayed.damage), ([1, 0], false, None));
    // Of another log: none either.
    let mut bytes = written([1, 1, 1, 1], 5);
    let (place, other) = mark(1, IDENTITY + 1, 9);
    bytes[place as usize..][..SECTOR].copy_from_slice(&other);
    assert_eq!(read(&bytes).2.marks, [1, 0]);
}

/// The wall clock was set back: what comes after a restart is above what came before it all the same.
#[test]
fn positions_go_on() {
    let (_, _, replayed) = read(&log(3));
    let positions = Positions::default();
    positions.observe(replayed.ceiling);
    assert_eq!(positions.next(UnixMillis(0)), Position(1003));
}

proptest! {
    /// Wherever one byte is flipped: no purge is forgotten that was written, and nothing panics.
    #[test]
    fn a_flipped_byte_forgets_nothing(count in 1usize..8, at in any::<prop::sample::Index>(), flip in 1u8..) {
        let mut bytes = log(count);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let (fences, _, replayed) = read(&bytes);
        for n in 0..count {
            let before = Position(999 + n as u64);
            let verdict = fences.judge(key(n).url(), &Tags::default(), before, Floor::default());
            prop_assert_eq!(verdict, Verdict::Purged, "{:?}", replayed);
        }
        // The byte that ends a frame says nothing of the entries before it.
        let is_end = (0..=count).any(|n| log(n).len() == at + 1);
        prop_assert_eq!(replayed.is_sound, is_end);
    }

    #[test]
    fn no_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), entries: Vec<u8>) {
        read(&bytes);
        let mut framed = log(1);
        framed.append(&mut bytes);
        read(&framed);
        // Checksums that are right around what is not.
        frame(&mut framed, &entries, turn(1), Position(3));
        read(&framed);
    }
}
