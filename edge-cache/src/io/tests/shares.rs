//! Who holds little of a body at a time gets all of it: every source of bytes, with shares that change at every step.

use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use http::HeaderMap;

use super::*;
use crate::fill::Limits;
use crate::io::fill_head::FillHead;
use crate::io::fills::{FillReader, FillShared, FillWriter};
use crate::io::pull::Pull;
use crate::io::spill::Spill;
use crate::key::{CacheKey, KeyRules};
use crate::purge::Floor;
use crate::semantics::range::ByteRange;
use crate::semantics::vary::VariantKey;
use crate::store::budget::Share;
use crate::store::{Found, Object};

const S: usize = 256 << 10;

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 251 + at) as u8).collect()
}

/// Shares of all sizes, the whole among them; the same for the same seed.
struct Shares(u64);

impl Shares {
    fn number(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % below as u64).unwrap()
    }

    fn next(&mut self) -> Share {
        match self.number(8) {
            0 => Share::Stored,
            1 => Share::Copy(self.number(3)),
            2 => Share::Copy(4 << 10),
            3 => Share::Copy(32 << 10),
            _ => Share::Copy(1 + self.number(S + 1000)),
        }
    }
}

/// All that a pull gives, by shares, resting now and then.
async fn drained(pull: &mut Pull, shares: &mut Shares) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let share = shares.next();
        if shares.number(5) == 0 {
            pull.rest();
        }
        match poll_fn(|cx| pull.poll_next(cx, share)).await {
            None => return all,
            Some(data) => {
                let data = data.unwrap();
                if let Share::Copy(most) = share {
                    assert!(data.len() <= most.max(1));
                }
                all.extend_from_slice(&data);
            }
        }
    }
}

fn stored(edge: &TestNode) -> Arc<Object> {
    let key = CacheKey::of_url("http://www.test/a", &KeyRules::default()).unwrap();
    match edge.node.store.lookup(&key, &HeaderMap::new(), Floor::default()) {
        Found::Object(object) => object,
        other => panic!("{other:?}"),
    }
}

async fn with_stored(length: usize, fields: &'static str) -> (TestNode, Arc<Object>) {
    let origin = ScriptedOrigin::start(move |_| {
        let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n";
        let head = format!("{head}Content-Length: {length}\r\n{fields}\r\n");
        vec![send(&head), Step::Send(content(length))]
    })
    .await;
    let edge = simple(&origin);
    assert!(get(edge.http, "/a").await.whole);
    let object = stored(&edge);
    (edge, object)
}

#[tokio::test]
async fn what_is_stored_whole_or_in_segments_is_given_whole_and_in_parts() {
    // In one piece; in segments that are found as they are needed; in segments that are held.
    for (length, fields) in [(100_000, ""), (5 * S + 7, "ETag: \"v\"\r\n"), (5 * S + 7, "")] {
        let (edge, object) = with_stored(length, fields).await;
        let body = content(length);
        for seed in 1..30 {
            let mut shares = Shares(seed);
            let mut pull = Pull::object(&edge.node, &object).unwrap();
            assert!(drained(&mut pull, &mut shares).await == body, "{length} {fields} {seed}");
            // Parts of it in any order, as for multipart/byteranges.
            for _ in 0..4 {
                let start = shares.number(length);
                let end = start + shares.number(length - start);
                pull.seek(ByteRange { start: start as u64, end: end as u64 });
                let part = drained(&mut pull, &mut shares).await;
                assert!(part == body[start..=end], "{start}-{end} of {length} {seed}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_being_fetched_is_given_whole_to_all_who_read() {
    const LENGTH: usize = 9 * S + 11;
    let (edge, object) = with_stored(1000, "").await;
    let body = content(LENGTH);
    // As it passes, as it is kept, and as it is stored at the same time.
    for (seed, how) in (1..40).flat_map(|seed| ["passes", "kept", "stored"].map(|how| (seed, how)))
    {
        let mut shares = Shares(seed);
        let (writer, first): (FillWriter, FillReader) =
            FillShared::begin(Limits { keep: 64 << 20, window: 200_000, readers: 10 });
        let second = writer.fill().join(false).unwrap();
        let version = edge.node.store.new_version(&object.key(), VariantKey::NONE);
        let mut spill =
            (how == "stored").then(|| Spill::new(&edge.node, &version, 0, Some(LENGTH as u64)));
        let version = spill.as_ref().map(|_| &version);
        writer.share(Arc::new(FillHead::LookAgain), how != "passes");
        let mut readers = [first, second].map(|reader| {
            let length = Some(LENGTH as u64).filter(|_| seed % 2 == 0);
            (Pull::fill(&edge.node, version, reader, length), Vec::new())
        });
        let mut left = &body[..];
        let mut writer = Some(writer);
        let cx = &Context::from_waker(Waker::noop());
        let mut ended = 0;
        while ended < 2 {
            if let Some(going) = &writer
                && shares.number(3) == 0
                && going.poll_room(cx, 300_000).is_ready()
            {
                let (now, then) = left.split_at((1 + shares.number(90_000)).min(left.len()));
                left = then;
                going.push(now);
                if let Some(spill) = &mut spill {
                    spill.push(now);
                    going.stored_through(spill.stored_through(going.fill().start()));
                }
            }
            if left.is_empty()
                && let Some(writer) = writer.take()
            {
                spill.iter_mut().for_each(Spill::finish);
                writer.finish(b"", drop);
            }
            let (pull, read) = &mut readers[shares.number(2)];
            if read.len() > LENGTH {
                continue;
            }
            if shares.number(5) == 0 {
                pull.rest();
            }
            match pull.poll_next(cx, shares.next()) {
                Poll::Pending => {}
                Poll::Ready(Some(data)) => read.extend_from_slice(&data.unwrap()),
                Poll::Ready(None) => {
                    assert!(*read == body, "{seed} {how}");
                    read.push(0);
                    ended += 1;
                }
            }
        }
    }
}
