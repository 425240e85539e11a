//! Readers and the writer of one fill, step by step and on several threads.

use super::*;
use proptest::prelude::*;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};

type TestFill = Fill<&'static str, &'static str, &'static str>;

const LIMITS: Limits = Limits { keep: 1000, window: 300, readers: 10_000 };

fn stored(writer: Writer<&'static str, &'static str, &'static str>) -> Option<Vec<u8>> {
    let mut stored = None;
    writer.finish(b"", |pieces| stored = pieces.map(|pieces| pieces.concat()));
    stored
}

#[test]
fn the_last_bytes_are_stored_before_they_are_read() {
    let (writer, leader) = TestFill::begin(LIMITS);
    writer.share(Arc::new("head"), true);
    writer.push(b"first ");
    assert!(ready(&leader).unwrap().is_ok());
    writer.finish(b"last", |pieces| {
        assert_eq!(pieces.unwrap().concat(), b"first last");
        assert!(leader.poll_data(&idle(), usize::MAX).is_pending());
    });
    assert_eq!(ready(&leader).unwrap().unwrap(), b"last");
    assert_eq!(ready(&leader), None);
}

fn idle() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn ready(
    reader: &Reader<&'static str, &'static str, &'static str>,
) -> Option<Result<Vec<u8>, Cut>> {
    match reader.poll_data(&idle(), usize::MAX) {
        Poll::Ready(data) => data.map(|data| data.map(|data| data.to_vec())),
        Poll::Pending => panic!("nothing to read yet"),
    }
}

#[test]
fn readers_go_at_their_own_pace_and_from_any_offset() {
    let (writer, leader) = TestFill::begin(LIMITS);
    let late = writer.fill().join(false).unwrap();
    assert!(leader.poll_answer(&idle()).is_pending());
    writer.share(Arc::new("head"), true);
    assert!(matches!(leader.poll_answer(&idle()), Poll::Ready(Some(Answer::Shared(_)))));
    assert!(writer.push(&[1; 20_000][..600]));
    assert_eq!(ready(&leader).unwrap().unwrap().len(), 600);
    assert!(leader.poll_data(&idle(), usize::MAX).is_pending());
    assert!(writer.push(&[2; 100]));
    late.seek(650);
    assert_eq!(ready(&late).unwrap().unwrap(), [2; 50]);
    assert_eq!(stored(writer).unwrap().len(), 700);
    assert_eq!(ready(&late), None);
    assert_eq!(ready(&leader).unwrap().unwrap(), [2; 100]);
    assert_eq!(ready(&leader), None);
}

#[test]
fn the_fetch_goes_on_when_its_first_client_has_gone() {
    let (writer, leader) = TestFill::begin(LIMITS);
    drop(leader);
    writer.share(Arc::new("head"), true);
    assert!(writer.push(b"body"));
    assert_eq!(writer.poll_room(&idle(), 100), Poll::Ready(true));
    let late = writer.fill().join(false).unwrap();
    assert!(stored(writer).is_some());
    assert_eq!(ready(&late).unwrap().unwrap(), b"body");
}

#[test]
fn a_private_answer_goes_to_its_client_and_releases_the_others() {
    let (writer, leader) = TestFill::begin(LIMITS);
    let fill = Arc::clone(writer.fill());
    let waiting: Vec<_> = (0..100).map(|_| fill.join(false).unwrap()).collect();
    writer.keep_private("secret");
    assert!(
        waiting.iter().all(|reader| matches!(
            reader.poll_answer(&idle()),
            Poll::Ready(Some(Answer::Released))
        ))
    );
    assert!(
        matches!(leader.poll_answer(&idle()), Poll::Ready(Some(Answer::Private(p))) if *p == "secret")
    );
    assert!(fill.join(false).is_none(), "nobody joins what is not for sharing");
}

#[test]
fn a_failure_is_told_to_all() {
    let (writer, leader) = TestFill::begin(LIMITS);
    let other = writer.fill().join(false).unwrap();
    writer.fail("refused");
    for reader in [leader, other] {
        assert!(matches!(
            reader.poll_answer(&idle()),
            Poll::Ready(Some(Answer::Failed("refused")))
        ));
    }
}

#[test]
fn a_body_that_ends_short_never_ends_well() {
    let (writer, leader) = TestFill::begin(LIMITS);
    writer.share(Arc::new("head"), true);
    assert!(writer.push(b"half"));
    let fill = Arc::clone(writer.fill());
    drop(writer);
    assert_eq!(ready(&leader).unwrap().unwrap(), b"half");
    assert_eq!(ready(&leader), Some(Err(Cut::Short)));
    assert!(fill.join(false).is_none());
    let (writer, leader) = TestFill::begin(LIMITS);
    drop(writer);
    assert!(matches!(leader.poll_answer(&idle()), Poll::Ready(None)));
}

#[test]
fn a_body_too_large_passes_in_a_window() {
    let limits = Limits { keep: 50_000, window: 50_000, readers: 10 };
    let (writer, leader) = TestFill::begin(limits);
    let slow = writer.fill().join(false).unwrap();
    writer.share(Arc::new("head"), true);
    assert!((0..5).all(|_| writer.push(&[0; 10_000])));
    assert!(!writer.push(&[0; 1]), "one byte more than is kept");
    assert!(writer.fill().join(false).is_none());
    assert_eq!(
        writer.poll_room(&idle(), 20_000),
        Poll::Pending,
        "the fastest reader has read nothing"
    );
    for _ in 0..30 {
        while leader.poll_data(&idle(), usize::MAX).is_ready() {}
        assert_eq!(writer.poll_room(&idle(), 20_000), Poll::Ready(true));
        writer.push(&[0; 9_999]);
        let held = writer.fill().held();
        assert!(held <= limits.keep + SMALL_PIECE as u64, "held {held}");
    }
    assert_eq!(ready(&slow), Some(Err(Cut::Behind)));
    drop(slow);
    assert!(ready(&leader).unwrap().is_ok());
    drop(leader);
    assert_eq!(writer.poll_room(&idle(), 20_000), Poll::Ready(false), "nobody is left");
    assert!(stored(writer).is_none(), "not for the store");
}

#[test]
fn a_single_slow_reader_holds_up_a_body_that_is_not_kept() {
    let (writer, leader) = TestFill::begin(LIMITS);
    writer.share(Arc::new("head"), false);
    writer.push(&[0; 100]);
    assert_eq!(writer.poll_room(&idle(), 100), Poll::Pending);
    assert!(ready(&leader).unwrap().is_ok());
    assert_eq!(writer.poll_room(&idle(), 100), Poll::Ready(true));
    assert_eq!(writer.fill().held(), 0);
}

#[test]
fn single_bytes_become_pieces() {
    let (writer, _leader) = TestFill::begin(Limits { keep: 1 << 20, ..LIMITS });
    writer.share(Arc::new("head"), true);
    for byte in 0..100_000u32 {
        writer.push(&[byte as u8]);
    }
    let mut pieces = Vec::new();
    writer.finish(b"", |body| pieces = body.unwrap());
    assert!(pieces.len() < 40, "{} pieces", pieces.len());
    let body: Vec<u8> = pieces.concat();
    assert!(body.iter().enumerate().all(|(at, byte)| at as u8 == *byte));
}

/// A thousand clients on four runtimes, none of which sleeps or polls: one fetch, the same bytes for all.
#[test]
fn a_thousand_readers_on_several_threads_get_the_same_bytes() {
    let (writer, leader) = TestFill::begin(Limits { keep: 1 << 20, ..LIMITS });
    let fill = Arc::clone(writer.fill());
    let mut readers = vec![leader];
    readers.extend((1..1000).map(|_| fill.join(false).unwrap()));
    let good = Arc::new(AtomicUsize::new(0));
    let expected: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let mine: Vec<_> = readers.drain(..readers.len().min(250)).collect();
            let (good, expected) = (Arc::clone(&good), &expected);
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(async {
                    for reader in mine {
                        let answer = poll_fn(|cx| reader.poll_answer(cx)).await;
                        assert!(matches!(answer, Some(Answer::Shared(_))));
                        let mut at = 0;
                        while let Some(data) = poll_fn(|cx| reader.poll_data(cx, usize::MAX)).await
                        {
                            let data = data.unwrap();
                            assert_eq!(data, expected[at..at + data.len()]);
                            at += data.len();
                        }
                        assert_eq!(at, expected.len());
                        good.fetch_add(1, Ordering::Relaxed);
                    }
                });
            });
        }
        writer.share(Arc::new("head"), true);
        for chunk in expected.chunks(777) {
            assert!(writer.push(chunk));
        }
        assert!(stored(writer).is_some());
    });
    assert_eq!(good.load(Ordering::Relaxed), 1000);
    assert_eq!(fill.readers(), 0);
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_bytes(chunks in proptest::collection::vec(1..5000usize, 1..40), seek in 0..10_000u64) {
        let (writer, leader) = TestFill::begin(Limits { keep: 1 << 20, ..LIMITS });
        writer.share(Arc::new("head"), true);
        let mut all = Vec::new();
        for (n, len) in chunks.iter().enumerate() {
            let chunk = vec![n as u8; *len];
            writer.push(&chunk);
            all.extend_from_slice(&chunk);
        }
        prop_assert_eq!(stored(writer).unwrap(), all.clone());
        leader.seek(seek);
        let mut read = Vec::new();
        while let Some(data) = ready(&leader) {
            read.extend(data.unwrap());
        }
        prop_assert_eq!(&read[..], all.get(seek as usize..).unwrap_or_default());
    }
}

#[test]
fn a_response_for_some_is_kept_and_releases_the_others() {
    for (audience, early, late) in
        [(Audience::Leader, "released", "released"), (Audience::Early, "shared", "too late")]
    {
        let (writer, leader) = TestFill::begin(LIMITS);
        let waiting = [true, false].map(|early| writer.fill().join(early).unwrap());
        writer.share_with(audience, Arc::new("head"));
        let told = |reader: &Reader<_, _, _>| match reader.poll_answer(&idle()) {
            Poll::Ready(Some(Answer::Shared(_))) => "shared",
            Poll::Ready(Some(Answer::Released)) => "released",
            Poll::Ready(Some(Answer::TooLate)) => "too late",
            other => panic!("{other:?}"),
        };
        assert_eq!(told(&leader), "shared");
        assert_eq!(waiting.each_ref().map(told), [early, late], "{audience:?}");
        assert!(writer.fill().join(false).is_none());
        writer.push(b"body");
        assert_eq!(ready(&leader).unwrap().unwrap(), b"body");
        assert_eq!(stored(writer).unwrap(), b"body");
    }
}

/// What is stored as it arrives need not stay: who is behind reads from the store, and others may still join.
#[test]
fn a_body_that_is_stored_as_it_arrives_passes_in_a_window() {
    let limits = Limits { keep: 1 << 20, window: 40_000, ..LIMITS };
    let (writer, leader) = TestFill::begin(limits);
    writer.share(Arc::new("head"), true);
    for n in 1..=30 {
        assert!(writer.push(&[n; 20_000]));
        assert_eq!(
            writer.poll_room(&idle(), 100),
            Poll::Ready(true),
            "a slow reader holds up nobody"
        );
        writer.stored_through(u64::from(n) / 2 * 40_000);
        assert!(writer.fill().held() <= 60_000, "{}", writer.fill().held());
    }
    assert_eq!(ready(&leader), Some(Err(Cut::Behind)));
    let late = writer.fill().join(false).unwrap();
    assert_eq!(ready(&late), Some(Err(Cut::Behind)));
    late.seek(580_000);
    assert_eq!(ready(&late).unwrap().unwrap(), [30; 20_000]);
    writer.finish(b"", |pieces| assert!(pieces.is_none(), "they are in the store already"));
    leader.seek(590_000);
    assert_eq!(ready(&leader).unwrap().unwrap(), [30; 10_000]);
    assert_eq!(ready(&leader), None);
}

/// What a reader that takes little at a time has not taken stays there, though nothing is kept for others.
#[test]
fn who_takes_less_than_a_piece_gets_the_rest_of_it() {
    for keep in [true, false] {
        let (writer, leader) = TestFill::begin(LIMITS);
        let fast = writer.fill().join(false).unwrap();
        writer.share(Arc::new("head"), keep);
        writer.push(b"0123456789");
        let take = |most| match leader.poll_data(&idle(), most) {
            Poll::Ready(Some(Ok(data))) => data.to_vec(),
            other => panic!("{other:?}"),
        };
        assert_eq!(take(4), b"0123");
        assert_eq!(ready(&fast).unwrap().unwrap(), b"0123456789");
        writer.push(b"abc");
        assert_eq!(take(0), b"4", "one at least");
        assert_eq!(take(usize::MAX), b"56789");
        assert_eq!(take(usize::MAX), b"abc");
        writer.finish(b"", drop);
        assert_eq!(ready(&leader), None);
    }
}

proptest! {
    /// Readers with any shares, in any turn with the writer, of a body that is kept or passes.
    #[test]
    fn any_sequence_of_shares_gives_the_body(
        turns in proptest::collection::vec((0..3usize, 0..6000usize), 1..200),
        keep in any::<bool>(),
        chunk in 1..9000usize,
    ) {
        let body: Vec<u8> = (0..100_000u32).map(|at| (at % 251 + at / 251) as u8).collect();
        let limits = Limits { keep: 1 << 20, window: 30_000, readers: 10 };
        let (writer, leader) = TestFill::begin(limits);
        let readers = [leader, writer.fill().join(false).unwrap()];
        writer.share(Arc::new("head"), keep);
        let mut read = [Vec::new(), Vec::new()];
        let mut left = &body[..];
        for (who, most) in turns {
            match readers.get(who) {
                Some(reader) => match reader.poll_data(&idle(), most) {
                    Poll::Ready(Some(Ok(data))) => {
                        prop_assert!(data.len() <= most.max(1));
                        read[who].extend_from_slice(&data);
                    }
                    Poll::Ready(other) => prop_assert!(false, "{other:?}"),
                    Poll::Pending => prop_assert_eq!(read[who].len(), body.len() - left.len()),
                },
                None if writer.poll_room(&idle(), 20_000).is_ready() => {
                    let (now, then) = left.split_at(chunk.min(left.len()));
                    writer.push(now);
                    left = then;
                }
                None => {}
            }
        }
        writer.push(left);
        writer.finish(b"", drop);
        for (reader, mut read) in readers.iter().zip(read) {
            while let Some(data) = ready(reader) {
                read.extend(data.unwrap());
            }
            prop_assert!(read == body);
        }
    }
}

/// Where memory is short, who lags in a body that goes by is cut earlier.
#[test]
fn who_lags_may_be_told_to_keep_up() {
    let limits = Limits { keep: 100_000, window: 20_000, ..LIMITS };
    let (writer, leader) = TestFill::begin(limits);
    let slow = writer.fill().join(false).unwrap();
    writer.share(Arc::new("head"), false);
    (0..6).for_each(|_| assert!(!writer.push(&[0; 10_000])));
    while leader.poll_data(&idle(), usize::MAX).is_ready() {}
    assert_eq!(writer.fill().held(), 60_000);
    writer.shorten();
    assert!(writer.fill().held() <= 20_000 + SMALL_PIECE as u64, "{}", writer.fill().held());
    assert_eq!(ready(&slow), Some(Err(Cut::Behind)));
    drop(slow);
    writer.push(&[1; 10]);
    assert_eq!(ready(&leader).unwrap().unwrap(), [1; 10]);
}

/// Who has let go of its place comes back to it, also where others may not join; not where the bytes have gone.
#[test]
fn a_ticket_leads_back_as_long_as_the_fetch_goes_on() {
    let limits = Limits { keep: 100_000, window: 20_000, ..LIMITS };
    let (writer, leader) = TestFill::begin(limits);
    writer.share_with(Audience::Leader, Arc::new("head"));
    writer.push(b"first ");
    let ticket = leader.ticket();
    drop(leader);
    assert_eq!(writer.fill().readers(), 0);
    assert!(writer.fill().join(true).is_none());
    let back = ticket.reader(3).unwrap();
    assert_eq!(ready(&back).unwrap().unwrap(), b"st ");
    (0..3).for_each(|_| assert!(writer.push(&[0; 20_000])));
    writer.stored_through(50_000);
    assert!(ticket.reader(3).is_none() && ticket.reader(45_000).is_some());
    drop(back);
    drop(writer);
    assert!(ticket.reader(45_000).is_none());
}
