//! What is written is what is read, whatever the clocks did, and what was not written so is refused.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use proptest::prelude::*;

use super::*;
use crate::purge::Tags;
use crate::semantics::compress::Coding;
use crate::semantics::freshness::Lifetimes;
use crate::semantics::vary::Vary;
use crate::store::object::tests::object;
use crate::store::version::Version;

const HOUR: Duration = Duration::from_secs(3600);
const START: UnixMillis = UnixMillis::from_secs(1_795_266_040);

fn clock(wall: UnixMillis, steady: UnixMillis, run: u64) -> Clock {
    Clock { wall, steady, run, known: Position(u64::MAX) }
}

/// An object with something of everything.
fn full() -> Object {
    let mut response = HeaderMap::new();
    let mut cookie = HeaderValue::from_static("a=1");
    cookie.set_sensitive(true);
    for (name, value) in [
        (
            "cache-control",
            "max-age=60, stale-while-revalidate=30, no-cache=\"set-cookie\", immutable",
        ),
        ("etag", "\"v1\""),
        ("vary", "x-colour, Accept-Language"),
        ("cache-tag", "a, b"),
        ("age", "7"),
        ("x-twice", "one"),
        ("date", "Sat, 21 Nov 2026 13:00:40 GMT"),
        ("x-twice", "two"),
    ] {
        response.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response.insert("x-secret", cookie);
    let made = object("/a?b=1", &response, &HeaderMap::new(), b"body");
    let fields = [HeaderName::from_static("cache-tag")];
    let mut head = made.head();
    head.tags = Tags::of(&response, &fields, "http://a.test");
    head.fence = Position(1_795_266_040_000_001);
    head.lifetimes.after_wait = Some(Duration::from_millis(250));
    Object { body_id: 77, ..made.with_head(&head) }
}

/// All but times and body.
fn same(read: &Decoded, made: &Object) {
    let a = read.head();
    let flags = |object: &Object| object.flags & !flag::BODY;
    let numbers =
        |object: &Object| (object.length(), object.body_id(), object.fence(), flags(object));
    assert_eq!((a.key_text(), numbers(a)), (made.key_text(), numbers(made)));
    assert_eq!((a.place(), a.status(), a.fields()), (made.place(), made.status(), made.fields()));
    assert_eq!((a.vary(), a.tags()), (made.vary(), made.tags()));
    assert_eq!(a.life().lifetimes, made.life().lifetimes);
}

#[test]
fn what_is_written_is_read() {
    let made = full();
    let now = clock(START, START, 1);
    let record = encode_head(&made, 1 << 20, now);
    let read = decode_head(&record, now).unwrap();
    same(&read, &made);
    assert_eq!(read.head().request_time(), made.request_time());
    assert_eq!(read.head().life(), made.life());
    assert!(read.head().head().headers["x-secret"].is_sensitive());
    assert_eq!(read.lies, Lies::Inline);
    let body = |bytes: &'static [u8]| Content::Whole(vec![Bytes::from_static(bytes)]);
    assert!(read.clone().into_object(body(b"bod")).is_none(), "not this body");
    let back = read.into_object(body(b"body")).unwrap();
    assert_eq!((back.is_combinable(), back.place()), (true, made.place()));
    assert_eq!(encode_head(&back, 1 << 20, now), record);

    let coded = made.encoding(Coding::Br, made.head().headers, Bytes::from_static(b"br"));
    let read = decode_head(&encode_head(&coded, 0, now), now).unwrap();
    assert_eq!(read.head().variant(), coded.variant());
    assert_eq!(read.head().body_id(), made.body_id());
}

#[test]
fn a_body_in_segments_is_found_by_its_version() {
    let plain = full();
    let version = Arc::new(Version::new(99, plain.place()));
    let made = Object::segmented(
        plain.key(),
        VariantKey::NONE,
        plain.head(),
        Arc::clone(&version),
        1 << 40,
    );
    let now = clock(START, START, 1);
    let read = decode_head(&encode_head(&made, 1 << 20, now), now).unwrap();
    same(&read, &made);
    assert_eq!(read.lies, Lies::Segments { version: 99, segment_size: 1 << 20 });
    let other = Arc::new(Version::new(98, plain.place()));
    assert!(read.clone().into_object(Content::Segments(other)).is_none());
    assert!(read.into_object(Content::Segments(version)).is_some());
}

/// A machine that was off for an hour has responses that are an hour older; one whose clock was set back meanwhile, none
/// that are younger.
#[test]
fn age_goes_on_whatever_the_clocks_do() {
    let made = full();
    let arrived = made.response_time();
    let rested = Duration::from_secs(20);
    let age = made.current_age(arrived + rested);
    let record = encode_head(&made, 0, clock(START, arrived + rested, 1));
    for (now, expected) in [
        // The same run: its own clock tells, whatever the wall clock says.
        (clock(START, arrived + rested, 1), age),
        (clock(START + 9 * HOUR, arrived + HOUR, 1), made.current_age(arrived + HOUR)),
        (clock(UnixMillis(0), arrived + HOUR, 1), made.current_age(arrived + HOUR)),
        // Another run, its steady clock anywhere.
        (clock(START, START, 2), age),
        (clock(START + HOUR, START, 2), age + HOUR),
        (clock(START + HOUR, arrived, 2), age + HOUR),
        (clock(START + HOUR, UnixMillis(0), 2), age + HOUR),
        (clock(START + HOUR, UnixMillis(5_000), 2), age + HOUR),
        // Set back.
        (clock(START - HOUR, START, 2), age),
        (clock(UnixMillis(0), UnixMillis(0), 2), age),
    ] {
        let read = decode_head(&record, now).unwrap();
        assert_eq!(read.head().current_age(now.steady), expected, "{now:?}");
        let later = now.steady + HOUR;
        assert_eq!(read.head().current_age(later), expected + HOUR, "{now:?}");
    }
    // Written again by another run, nothing is lost on the way.
    let second = clock(START + HOUR, UnixMillis(7_000), 2);
    let again = decode_head(&record, second).unwrap();
    let again = again.into_object(Content::Whole(made.whole().unwrap().into())).unwrap();
    let third = clock(START + 2 * HOUR, START, 3);
    let read = decode_head(&encode_head(&again, 0, second), third).unwrap();
    assert_eq!(read.head().current_age(third.steady), age + 2 * HOUR);
}

#[test]
fn vary_lists_of_a_key() {
    let mut variants = Variants::default();
    for names in ["accept-language", "x-a, accept-encoding"] {
        let mut response = HeaderMap::new();
        response.insert("vary", HeaderValue::from_static(names));
        variants.lists.note(&Vary::of(&response));
    }
    variants.stored = vec![VariantKey(7), VariantKey(u128::MAX), VariantKey(1)];
    let record = encode_variants(&variants);
    assert_eq!(decode_variants(&record), Ok(variants));
    assert_eq!(decode_variants(&encode_variants(&Variants::default())), Ok(Variants::default()));
    assert_eq!(decode_variants(&record[..record.len() - 1]), Err(Malformed::Damaged));
    assert_eq!(decode_variants(&[VARIANTS, FORMAT + 1, 0]), Err(Malformed::Format));
    assert_eq!(decode_variants(&[HEAD, FORMAT, 0]), Err(Malformed::Damaged));
}

/// Who changes what is written has to change [`FORMAT`], too, and then these.
#[test]
fn the_format_is_this_one() {
    let made = full();
    let arrived = made.response_time();
    let record = encode_head(&made, 0, clock(START, arrived + HOUR, 3));
    let mut variants = Variants::default();
    variants.lists.note(&made.vary());
    variants.stored.push(VariantKey(1));
    let names: Vec<_> = crate::semantics::fields::NAMES.iter().map(HeaderName::as_str).collect();
    let names = xxhash_rust::xxh3::xxh3_64(names.join(",").as_bytes());
    let written = (FORMAT, hex(&record), hex(&encode_variants(&variants)), names);
    assert_eq!(written, (1, HEAD_RECORD.to_owned(), VARIANTS_RECORD.to_owned(), NAMES_HASH));
}

const HEAD_RECORD: &str = concat!(
    "480164c80cc0d031fea10100000300000000000000c0d031fea10100004d0000000000000080dddb0100d836e0d403b0ea01",
    "80b89929fa0181dcdd948f999803044013687474703a2f2f612e746573742f613f623d3102040008782d636f6c6f7572e844",
    "09e4cafd213e21b58c93e4e8599e202345a33891009920a7376f99d0f6d2138e016d61782d6167653d36302c207374616c65",
    "2d7768696c652d726576616c69646174653d33302c206e6f2d63616368653d227365742d636f6f6b6965222c20696d6d7574",
    "61626c652c08227631225632782d636f6c6f75722c204163636570742d4c616e67756167651608612c20620008782d736563",
    "72657407613d310007782d7477696365066f6e650007782d74776963650674776f293a5361742c203231204e6f7620323032",
    "362031333a30303a343020474d54",
);
const VARIANTS_RECORD: &str = "56010102040008782d636f6c6f757201000000000000000000000000000000";
const NAMES_HASH: u64 = 10_375_983_625_942_187_586;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in any::<bool>()) {
        let mut bytes = bytes;
        if let [first, second, ..] = &mut bytes[..] {
            (*first, *second) = (if kind { HEAD } else { VARIANTS }, FORMAT);
        }
        let now = clock(START, START, 1);
        let _ = (decode_head(&bytes, now), decode_variants(&bytes));
    }

    /// Flipped, cut, or with something put in: refused, or a record that can be written and used.
    #[test]
    fn no_damage_panics(
        at in any::<prop::sample::Index>(), byte in any::<u8>(), way in 0..4u8, wall in any::<u64>(), steady in any::<u64>(),
        run in 0..3u64,
    ) {
        let mut record = encode_head(&full(), 0, clock(START, START, 1));
        let place = at.index(record.len());
        match way {
            0 => record[place] = byte,
            1 => record.truncate(place),
            2 => record.insert(place, byte),
            _ => { record.splice(place.., std::iter::repeat_n(byte, 40)); }
        }
        let now = clock(UnixMillis(wall), UnixMillis(steady), run);
        if let Ok(read) = decode_head(&record, now) {
            let _ = read.head().remaining_millis(UnixMillis(u64::MAX));
            let _ = (read.head().head().may_be_shared(), read.head().weight());
            let body = Content::Whole(vec![Bytes::from(vec![0; 4])]);
            if read.head().length() == 4 && read.lies == Lies::Inline {
                let made = read.into_object(body).unwrap();
                prop_assert!(decode_head(&encode_head(&made, 0, now), now).is_ok());
            }
        }
    }

    #[test]
    fn any_times_survive(
        fresh in any::<u32>(), age in any::<u32>(), stale in any::<u32>(), wait in proptest::option::of(any::<u32>()),
        rested in any::<u32>(), status in 200..600u16,
    ) {
        let of = |millis: u32| Duration::from_millis(millis.into());
        let mut head = full().head();
        head.status = StatusCode::from_u16(status).unwrap();
        head.initial_age = of(age);
        head.lifetimes = Lifetimes {
            fresh: of(fresh), while_revalidate: of(stale), if_error: of(stale), after_wait: wait.map(of),
            ..head.lifetimes
        };
        let made = full().with_head(&head);
        let now = clock(START, made.response_time() + of(rested), 1);
        let read = decode_head(&encode_head(&made, 0, now), Clock { run: 2, ..now }).unwrap();
        same(&read, &made);
        prop_assert_eq!(read.head().current_age(now.steady), made.current_age(now.steady));
    }
}
