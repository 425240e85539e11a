//! Purges against hits, fills in flight, revalidations and requests of other nodes; `PURGE` and invalidation.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Semaphore;

use super::{
    Response, ScriptedOrigin, Step, TestNode, get, request, send, server, simple, site, start,
};
use crate::io::purge::purge;
use crate::key::{CacheKey, KeyRules};
use crate::purge::{Fences, Floor, Kind, Position, Tags, Target, Verdict};
use shared::io::clock;

/// An origin whose every answer says how many came before it; `/slow` waits for the gate after its head was asked for.
async fn versions(fields: &'static str, gate: &Arc<Semaphore>) -> ScriptedOrigin {
    let (count, gate) = (AtomicU64::new(0), Arc::clone(gate));
    ScriptedOrigin::start(move |head| {
        let version = count.fetch_add(1, Ordering::SeqCst);
        let body = format!("v{version}");
        let answer = format!(
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n{fields}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        match head.contains(" /slow") {
            true => vec![Step::Wait(Arc::clone(&gate)), send(&answer)],
            false => vec![send(&answer)],
        }
    })
    .await
}

fn closed() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(0))
}

async fn hard(node: &TestNode, target: Target) -> Position {
    purge(&node.node, &[target], Kind::Hard, None).await.unwrap().position
}

fn url(path: &str) -> Target {
    Target::Url(format!("http://www.test{path}").into())
}

fn text(response: &Response) -> &str {
    assert_eq!(response.status, 200, "{response:?}");
    assert!(response.whole);
    std::str::from_utf8(&response.body).unwrap()
}

fn detail(response: &Response) -> String {
    let status = response.field("cache-status").unwrap();
    status.rsplit("detail=").next().unwrap().to_owned()
}

#[tokio::test]
async fn each_kind_of_purge_takes_what_it_names() {
    let origin = versions("Cache-Tag: red, blue\r\nSurrogate-Key: x\r\n", &closed()).await;
    let node = simple(&origin);
    let mut version = 0;
    for target in [
        url("/a/b"),
        Target::Prefix("http://www.test/a".into()),
        Target::Host("www.test".into()),
        Target::Tag("blue".into()),
        Target::Tag("x".into()),
        Target::All,
    ] {
        for _ in 0..2 {
            assert_eq!(text(&get(node.http, "/a/b").await), format!("v{version}"));
        }
        for other in [
            url("/a"),
            Target::Url("https://www.test/a/b".into()),
            Target::Prefix("http://www.test/b".into()),
            Target::Host("other.test".into()),
            Target::Tag("green".into()),
        ] {
            hard(&node, other).await;
        }
        assert_eq!(detail(&get(node.http, "/a/b").await), "fresh");
        hard(&node, target.clone()).await;
        version += 1;
        let purged = get(node.http, "/a/b").await;
        assert_eq!(text(&purged), format!("v{version}"), "{target:?}");
        assert_eq!(detail(&purged), "purged");
        // RFC 9211 §2.2: what was purged is not stored.
        assert!(purged.field("cache-status").unwrap().contains("fwd=uri-miss"));
        // The tags are between origin and cache.
        assert!(purged.field("cache-tag").is_none() && purged.field("surrogate-key").is_none());
        assert!(get(node.http, "/a/b").await.field("cache-tag").is_none());
    }
}

#[tokio::test]
async fn a_soft_purge_is_revalidated() {
    let origin = ScriptedOrigin::start(|head| {
        vec![match head.contains("if-none-match: \"v1\"") {
            true => send(
                "HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\nCache-Control: max-age=60\r\n\r\n",
            ),
            false => send(super::OK),
        }]
    })
    .await;
    let node = simple(&origin);
    text(&get(node.http, "/a").await);
    purge(&node.node, &[Target::All], Kind::Soft, None).await.unwrap();
    let revalidated = get(node.http, "/a").await;
    assert_eq!((text(&revalidated), &*detail(&revalidated)), ("0123456789", "revalidated"));
    assert_eq!(origin.count(), 2);
    assert_eq!(detail(&get(node.http, "/a").await), "fresh");
    assert_eq!(origin.count(), 2);
}

/// Pitfall 52: what began before a purge is not joined after it, and not stored; those who waited already get it.
#[tokio::test]
async fn pitfall_52_a_fill_in_flight_is_behind_a_purge() {
    let gate = closed();
    let origin = versions("", &gate).await;
    let node = simple(&origin);
    let first = tokio::spawn({
        let http = node.http;
        async move { get(http, "/slow").await }
    });
    node.until("the fetch to begin", |_| origin.count() == 1).await;
    hard(&node, url("/slow")).await;
    let second = tokio::spawn({
        let http = node.http;
        async move { get(http, "/slow").await }
    });
    node.until("a fetch of its own", |_| origin.count() == 2).await;
    gate.add_permits(1);
    assert_eq!(text(&first.await.unwrap()), "v0");
    // The old one has ended, and is not what is found.
    assert_eq!(node.node.store.memory().stats().objects, 0);
    gate.add_permits(1);
    assert_eq!(text(&second.await.unwrap()), "v1");
    let third = get(node.http, "/slow").await;
    assert_eq!((text(&third), &*detail(&third)), ("v1", "fresh"));
    assert_eq!(origin.count(), 2);
}

/// The tags of a response are known when it arrives: who joined its fetch after the purge asks anew.
#[tokio::test]
async fn pitfall_52_a_fill_in_flight_turns_out_to_have_a_purged_tag() {
    let gate = closed();
    let origin = versions("Cache-Tag: t\r\n", &gate).await;
    let node = simple(&origin);
    let ask = || {
        let http = node.http;
        tokio::spawn(async move { get(http, "/slow").await })
    };
    let first = ask();
    node.until("the fetch to begin", |_| origin.count() == 1).await;
    hard(&node, Target::Tag("t".into())).await;
    let second = ask();
    node.until("a second reader", |node| node.fills.readers() == 2).await;
    gate.add_permits(1);
    assert_eq!(text(&first.await.unwrap()), "v0");
    gate.add_permits(1);
    assert_eq!(text(&second.await.unwrap()), "v1");
    assert_eq!(text(&get(node.http, "/slow").await), "v1");
    assert_eq!(origin.count(), 2);
}

/// A 304 for something that was purged while it was asked for does not bring it back.
#[tokio::test]
async fn pitfall_52_a_revalidation_in_flight_is_behind_a_purge() {
    let gate = closed();
    let (wait, count) = (Arc::clone(&gate), AtomicU64::new(1));
    let origin = ScriptedOrigin::start(move |head| {
        if head.contains("if-none-match") {
            let unchanged = "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nCache-Control: max-age=60\r\n\r\n";
            return vec![Step::Wait(Arc::clone(&wait)), send(unchanged)];
        }
        let version = count.fetch_add(1, Ordering::SeqCst);
        vec![send(&format!(
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=1\r\nAge: 1\r\nETag: \"a\"\r\nContent-Length: 2\r\n\r\nv{version}"
        ))]
    })
    .await;
    let node = simple(&origin);
    assert_eq!(text(&get(node.http, "/a").await), "v1");
    let revalidating = tokio::spawn({
        let http = node.http;
        async move { get(http, "/a").await }
    });
    node.until("the revalidation to begin", |_| origin.count() == 2).await;
    hard(&node, Target::All).await;
    gate.add_permits(1);
    // Asked again, for the whole.
    assert_eq!(text(&revalidating.await.unwrap()), "v2");
    assert_eq!(origin.count(), 3);
    // That fetch began after the purge.
    assert_eq!(node.node.store.memory().stats().objects, 1);
    let key = CacheKey::of_url("http://www.test/a", &KeyRules::default()).unwrap();
    assert_eq!(node.node.store.all(&key).len(), 1);
}

/// A site's keys differ by a header; a purge of the URL is for all of them.
#[tokio::test]
async fn a_url_is_all_its_keyed_headers() {
    let origin = versions("", &closed()).await;
    let keyed = "key = { headers = [\"X-Device\"] }";
    let node = start("edge-1", "", &site(&server(origin.address), keyed, ""));
    let of = async |device: &str| {
        let fields = format!("X-Device: {device}\r\n");
        text(&request(node.http, "GET", "/a", &fields).await).to_owned()
    };
    assert_eq!(
        (of("phone").await, of("desk").await, of("phone").await),
        ("v0".into(), "v1".into(), "v0".into())
    );
    hard(&node, url("/a")).await;
    assert_eq!((of("phone").await, of("desk").await), ("v2".into(), "v3".into()));
    // RFC 9111 §4.4, too.
    assert_eq!(
        request(node.http, "POST", "/a", "X-Device: tv\r\nContent-Length: 0\r\n").await.status,
        200
    );
    assert_eq!((of("phone").await, of("desk").await), ("v5".into(), "v6".into()));
}

/// RFC 9111 §4.4: also a fetch that nobody can join, because it is somebody's own.
#[tokio::test]
async fn rfc9111_4_4_a_fetch_of_ones_own_is_not_stored_after_an_unsafe_method() {
    let gate = closed();
    let origin = versions("Cache-Control: public\r\n", &gate).await;
    let node = simple(&origin);
    let stored = request(node.http, "GET", "/a", "Authorization: Basic x\r\n").await;
    assert_eq!((text(&stored), text(&get(node.http, "/a").await)), ("v0", "v0"));
    let own = tokio::spawn({
        let http = node.http;
        // With Authorization nobody waits for it, and it is stored by the origin's leave alone.
        async move { request(http, "GET", "/slow", "Authorization: Basic x\r\n").await }
    });
    node.until("the fetch to begin", |_| origin.count() == 2).await;
    let post = tokio::spawn({
        let http = node.http;
        async move { request(http, "POST", "/slow", "Content-Length: 0\r\n").await }
    });
    node.until("the order to come", |_| origin.count() == 3).await;
    gate.add_permits(2);
    assert_eq!(post.await.unwrap().status, 200);
    text(&own.await.unwrap());
    gate.add_permits(1);
    let after = get(node.http, "/slow").await;
    assert_eq!(text(&after), "v3");
}

/// RFC 9875 §3: groups named by the response to an unsafe method, of that origin alone; not by one to GET.
#[tokio::test]
async fn rfc9875_3_groups_are_invalidated() {
    let count = AtomicU64::new(0);
    let origin = ScriptedOrigin::start(move |head| {
        let version = count.fetch_add(1, Ordering::SeqCst);
        let invalidates = if head.contains(" /other") || head.starts_with("post") {
            "Cache-Group-Invalidation: \"g\", \"none\"\r\n"
        } else {
            ""
        };
        let body = format!("v{version}");
        vec![send(&format!(
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nCache-Groups: \"f\", \"g\"\r\n{invalidates}Content-Length: {}\r\n\r\n{body}",
            body.len()
        ))]
    })
    .await;
    let node = simple(&origin);
    let first = get(node.http, "/a").await;
    assert_eq!(text(&first), "v0");
    assert_eq!(first.field("cache-groups").as_deref(), Some("\"f\", \"g\""));
    get(node.http, "/other").await;
    assert_eq!(text(&get(node.http, "/a").await), "v0");
    let order = "Content-Length: 0\r\n";
    assert_eq!(request(node.http, "POST", "/elsewhere", order).await.status, 200);
    assert_eq!(text(&get(node.http, "/a").await), "v3");
    assert_eq!(request(node.http, "POST", "/api/uncached", order).await.status, 200);
    assert_eq!(text(&get(node.http, "/a").await), "v5");
}

#[tokio::test]
async fn the_method_is_obeyed_from_networks_that_may() {
    let origin = versions("", &closed()).await;
    let sites = || site(&server(origin.address), "", "");
    let none = simple(&origin);
    let refused = request(none.http, "PURGE", "/a", "").await;
    assert_eq!(refused.status, 405);
    assert!(refused.field("allow").is_some());
    let others = start("edge-1", "purge_from = [\"10.0.0.0/8\", \"2001:db8::/32\"]", &sites());
    assert_eq!(request(others.http, "PURGE", "/a", "").await.status, 403);
    assert_eq!(origin.count(), 0);

    let node = start("edge-1", "purge_from = [\"10.0.0.0/8\", \"127.0.0.0/8\"]", &sites());
    assert_eq!(text(&get(node.http, "/a?b=1&a=2").await), "v0");
    let purged = request(node.http, "PURGE", "/%61?a=2&b=1", "").await;
    let done: serde_json::Value = serde_json::from_slice(&purged.body).unwrap();
    assert_eq!((done["targets"].as_u64(), done["soft"].as_bool()), (Some(2), Some(false)));
    assert_eq!(text(&get(node.http, "/a?b=1&a=2").await), "v1");
    for soft in ["1", "?1", "true"] {
        let fields = format!("Purge-Soft: {soft}\r\n");
        let purged = request(node.http, "PURGE", "/a?b=1&a=2", &fields).await;
        let done: serde_json::Value = serde_json::from_slice(&purged.body).unwrap();
        assert_eq!(done["soft"].as_bool(), Some(true), "{soft}");
    }
    assert_eq!(detail(&get(node.http, "/a?b=1&a=2").await), "soft-purged");
}

/// What asks as a parent's child says what it needs; what it gets tells its fence. A client says nothing and is told nothing.
#[tokio::test]
async fn a_parent_answers_with_nothing_older_than_the_edge_needs() {
    let gate = closed();
    let origin = versions("Cache-Tag: t\r\n", &gate).await;
    let node = start("p-1", "role = \"parent\"", &site(&server(origin.address), "", ""));
    let inner = "CDN-Loop: cdn\r\n";
    let cluster = node.node.snapshot.load().plan.cluster.clone();
    let inner = inner.replace("cdn\r", &format!("{cluster}\r"));
    let as_child = async |floor: &str| {
        let fields = format!("{inner}{floor}");
        request(node.http, "GET", "/a", &fields).await
    };
    let first = as_child("").await;
    assert_eq!((text(&first), first.field("meridian-fence").as_deref()), ("v0", Some("0")));
    assert_eq!(first.field("cache-tag").as_deref(), Some("t"));
    let newer = as_child("Meridian-Fence: 1000/0\r\n").await;
    assert_eq!((text(&newer), newer.field("meridian-fence").as_deref()), ("v1", Some("1000")));
    let same = as_child("Meridian-Fence: 1000/0\r\n").await;
    assert_eq!((text(&same), &*detail(&same)), ("v1", "fresh"));
    // A position that nobody can have given is not believed, nor is a client.
    let client = request(node.http, "GET", "/a", "Meridian-Fence: 2000/0\r\n").await;
    assert_eq!((text(&client), client.field("meridian-fence")), ("v1", None));
    let mistaken = as_child("Meridian-Fence: 18446744073709551615/0\r\n").await;
    assert_eq!(text(&mistaken), "v1");
    // Its own purges come later than what it has heard of.
    let position =
        purge(&node.node, &[Target::All], Kind::Hard, Some(Position(500))).await.unwrap().position;
    assert!(position > Position(1000));
    assert_eq!(text(&as_child("").await), "v2");
    // A 304 tells fence and tags, too.
    assert!(!origin.last().contains("meridian-fence"));
}

#[tokio::test]
async fn the_same_purge_twice_is_one() {
    let origin = versions("", &closed()).await;
    let node = simple(&origin);
    let given = Some(Position(7_000));
    let first = purge(&node.node, &[url("/a")], Kind::Hard, given).await.unwrap();
    assert_eq!(first.position, Position(7_000));
    assert_eq!(text(&get(node.http, "/a").await), "v0");
    assert_eq!(purge(&node.node, &[url("/a")], Kind::Hard, given).await.unwrap(), first);
    assert_eq!(text(&get(node.http, "/a").await), "v0");
    // Another one at the same position is another one.
    assert!(
        purge(&node.node, &[url("/a")], Kind::Soft, given).await.unwrap().position > first.position
    );
}

/// What a purge costs, and what it makes of a lookup: printed, for the numbers depend on the machine. What is asserted is
/// that purges of other URLs leave what is stored alone.
#[test]
fn a_hundred_thousand_purges() {
    let fences = Fences::new(1 << 30);
    let key = CacheKey::of_url("http://www.test/a/b/c/d.png", &KeyRules::default()).unwrap();
    let tags = Tags::default();
    let lookups = |fences: &Fences| {
        let started = clock::instant();
        let current = (0..100_000)
            .filter(|_| {
                let fence = std::hint::black_box(Position(1));
                fences.judge(key.url(), &tags, fence, Floor::default()) == Verdict::Current
            })
            .count();
        assert_eq!(current, 100_000);
        started.elapsed() / 100_000
    };
    let before = lookups(&fences);
    let started = clock::instant();
    for n in 0..100_000u64 {
        let url = Target::Url(format!("http://www.test/other/{n}").into());
        fences.apply(&url, Kind::Hard, Position(n + 2));
    }
    let each = started.elapsed() / 100_000;
    println!("a purge {each:?}, a lookup {before:?} before and {:?} after", lookups(&fences));
}
