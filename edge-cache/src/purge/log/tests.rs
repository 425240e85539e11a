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
    let mut bytes = snapshot(IDENTITY, Position(900), &Fences::new(0), &Ledger::default());
    for n in 0..count {
        append(&mut bytes, n, Position(1000 + n as u64));
    }
    bytes
}

fn append(bytes: &mut Vec<u8>, n: usize, at: Position) {
    let mut entries = Vec::new();
    purge(&mut entries, &[url(n)], Kind::Hard, at, Some(&record(n, at)));
    frame(bytes, &entries, at);
}

fn read(bytes: &[u8]) -> (Fences, Ledger, Replayed) {
    let (fences, mut ledger) = (Fences::new(0), Ledger::default());
    let replayed = replay(bytes, &fences, &mut ledger, NOW);
    (fences, ledger, replayed)
}

fn sound(ceiling: u64) -> Replayed {
    let ceiling = Position(ceiling);
    Replayed { identity: Some(IDENTITY), ceiling, is_sound: true, torn: 0, damage: None }
}

#[test]
fn what_is_written_is_read() {
    let (fences, ledger, replayed) = read(&log(3));
    assert_eq!(replayed, sound(1002));
    for n in 0..3 {
        let at = Position(1000 + n as u64);
        assert_eq!(fences.of_key(&key(n)).hard, at);
        assert_eq!(ledger.find(&record(n, at).id), Some(&record(n, at)));
    }
    assert_eq!(fences.of_key(&key(3)), Floor::default());
    assert_eq!(fences.latest(), Position(1002));
    // A mark alone: nothing purged, but known.
    let mut marked = log(0);
    frame(&mut marked, &[], Position(5000));
    assert_eq!(read(&marked).2, sound(5000));
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
    let bytes = snapshot(IDENTITY, Position(60_000), &fences, &ledger);
    assert!(bytes.len() > 2 * SNAPSHOT_FRAME, "{}", bytes.len());
    let (read_fences, read_ledger, replayed) = read(&bytes);
    assert_eq!(replayed, sound(60_000));
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
    let more = snapshot(IDENTITY, Position(200_000), &fences, &ledger).len();
    assert!(more < bytes.len() * 2, "{more} after {}", bytes.len());
}

#[test]
fn a_torn_tail_is_passed_over() {
    let whole = log(3);
    let mut longer = whole.clone();
    append(&mut longer, 3, Position(1003));
    for cut in whole.len() + 1..longer.len() {
        let (fences, _, replayed) = read(&longer[..cut]);
        assert_eq!(replayed, Replayed { is_sound: false, torn: cut - whole.len(), ..sound(1002) });
        assert_eq!(fences.of_key(&key(2)).hard, Position(1002));
        // The length was written, the bytes were not.
        let mut zeros = longer.clone();
        zeros[cut..].fill(0);
        let (_, _, replayed) = read(&zeros);
        let all_but_the_end = cut == longer.len() - 1;
        let (torn, ceiling) =
            if all_but_the_end { (0, 1003) } else { (longer.len() - whole.len(), 1002) };
        let is_sound = all_but_the_end;
        assert_eq!(replayed, Replayed { is_sound, torn, ..sound(ceiling) }, "{cut}");
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
    let bytes = snapshot(IDENTITY, Position(60), &fences, &Ledger::default());
    let cut = read(&bytes[..bytes.len() / 2]).2;
    assert_eq!((cut.identity, cut.is_sound), (None, false));
    // Another version.
    let mut other = log(3);
    other[7] = 2;
    assert_eq!(read(&other).2.identity, None);
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
        frame(&mut framed, &entries, Position(3));
        read(&framed);
    }
}
