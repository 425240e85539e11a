//! What the cache does with a request: hits, misses, waiting together, stale use.

use std::collections::VecDeque;

use super::*;

#[tokio::test]
async fn a_miss_then_hits_in_every_form() {
    let origin = ScriptedOrigin::start(|_| vec![send(OK)]).await;
    let edge = simple(&origin);
    let miss = get(edge.http, "/a").await;
    assert_eq!(
        (miss.status, miss.body.as_slice(), miss.whole),
        (200, b"0123456789".as_slice(), true)
    );
    assert!(miss.field("cache-status").unwrap().contains("fwd=uri-miss"), "{miss:?}");
    let hit = get(edge.http, "/a").await;
    assert!(hit.field("cache-status").unwrap().contains("edge-1; hit"), "{hit:?}");
    assert!(
        hit.field("age").is_some() && hit.field("via").is_some() && hit.field("date").is_some()
    );
    let head = request(edge.http, "HEAD", "/a", "").await;
    assert_eq!(
        (head.status, head.field("content-length").unwrap().as_str(), head.whole),
        (200, "10", true)
    );
    let range = request(edge.http, "GET", "/a", "Range: bytes=2-4\r\n").await;
    assert_eq!((range.status, range.body.as_slice()), (206, b"234".as_slice()));
    assert_eq!(range.field("content-range").unwrap(), "bytes 2-4/10");
    let suffix = request(edge.http, "GET", "/a", "Range: bytes=-3\r\n").await;
    assert_eq!((suffix.status, suffix.body.as_slice()), (206, b"789".as_slice()));
    let beyond = request(edge.http, "GET", "/a", "Range: bytes=10-\r\n").await;
    assert_eq!(
        (beyond.status, beyond.field("content-range").unwrap().as_str()),
        (416, "bytes */10")
    );
    let same = request(edge.http, "GET", "/a", "If-None-Match: \"v1\"\r\n").await;
    assert_eq!((same.status, same.body.len()), (304, 0));
    assert_eq!(origin.count(), 1);
    assert_eq!((edge.counted(Outcome::Miss), edge.counted(Outcome::Hit)), (1, 6));
}

#[tokio::test]
async fn a_missing_object_can_be_asked_for_in_part_and_conditionally() {
    let origin = ScriptedOrigin::start(|_| vec![send(OK)]).await;
    let edge = simple(&origin);
    let range = request(edge.http, "GET", "/a", "Range: bytes=2-4\r\n").await;
    assert_eq!((range.status, range.body.as_slice(), range.whole), (206, b"234".as_slice(), true));
    assert!(origin.last().contains("range: bytes=0-262143\r\n"), "{}", origin.last());
    let head = request(edge.http, "HEAD", "/b", "").await;
    assert_eq!((head.status, head.whole), (200, true));
    let same = request(edge.http, "GET", "/c", "If-None-Match: \"v1\"\r\n").await;
    assert_eq!(same.status, 304);
    // A client that needs none of a body, or only its beginning, is answered before the fetch has ended.
    edge.until("all is stored", |node| node.fills.is_empty()).await;
    for path in ["/a", "/b", "/c"] {
        assert!(get(edge.http, path).await.field("cache-status").unwrap().contains("hit"));
    }
    assert_eq!(origin.count(), 3);
}

#[tokio::test]
async fn what_ends_short_is_cut_and_not_stored() {
    for (length, name) in [
        ("Content-Length: 100\r\n\r\nonly this", "short content-length"),
        ("Transfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n", "no last chunk"),
        ("Transfer-Encoding: chunked\r\n\r\n9\r\nonly", "half a chunk"),
    ] {
        for path in ["/a", "/api/a"] {
            let text = format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n{length}");
            let origin = ScriptedOrigin::start(move |_| vec![send(&text), Step::Cut]).await;
            let edge = simple(&origin);
            for round in 1..=2 {
                let cut = get(edge.http, path).await;
                assert!(!cut.whole, "{name} {path}: {cut:?}");
                assert_eq!(origin.count(), round, "{name} {path}");
            }
            assert_eq!(edge.node.store.memory().stats().objects, 0);
        }
    }
}

#[tokio::test]
async fn a_thousand_clients_cost_the_origin_one_request() {
    let gate = Arc::new(Semaphore::new(0));
    let wait = Arc::clone(&gate);
    let origin =
        ScriptedOrigin::start(move |_| vec![Step::Wait(Arc::clone(&wait)), send(OK)]).await;
    let edge = simple(&origin);
    let clients: Vec<_> = (0..300)
        .map(|_| {
            let address = edge.http;
            tokio::spawn(async move { get(address, "/a").await })
        })
        .collect();
    edge.until("all wait", |node| node.telemetry.in_flight.load(Ordering::Relaxed) == 300).await;
    gate.add_permits(1000);
    for client in clients {
        let response = client.await.unwrap();
        assert_eq!((response.status, response.body.as_slice()), (200, b"0123456789".as_slice()));
    }
    assert_eq!(origin.count(), 1);
    assert_eq!(edge.node.telemetry.collapsed.get(), 299);
}

#[tokio::test]
async fn the_first_client_may_go_and_the_fetch_goes_on() {
    let gate = Arc::new(Semaphore::new(0));
    let wait = Arc::clone(&gate);
    let origin =
        ScriptedOrigin::start(move |_| vec![Step::Wait(Arc::clone(&wait)), send(OK)]).await;
    let edge = simple(&origin);
    let mut first = TcpStream::connect(edge.http).await.unwrap();
    first.write_all(b"GET /a HTTP/1.1\r\nHost: www.test\r\n\r\n").await.unwrap();
    edge.until("the fetch has begun", |node| node.fills.len() == 1).await;
    drop(first);
    edge.until("the client has gone", |node| node.telemetry.in_flight.load(Ordering::Relaxed) == 0)
        .await;
    gate.add_permits(1000);
    edge.until("it is stored", |node| node.fills.is_empty()).await;
    assert!(get(edge.http, "/a").await.field("cache-status").unwrap().contains("hit"));
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn what_cannot_be_shared_releases_all_at_once_and_is_remembered() {
    let gate = Arc::new(Semaphore::new(0));
    let wait = Arc::clone(&gate);
    let first = AtomicUsize::new(0);
    let origin = ScriptedOrigin::start(move |_| {
        // Those who were released ask at the same time: none of them is answered before all have come.
        let n = first.fetch_add(1, Ordering::SeqCst);
        if n == 10 {
            wait.add_permits(1000);
        }
        vec![
            Step::Wait(Arc::clone(&wait)),
            send("HTTP/1.1 200 OK\r\nCache-Control: private\r\nContent-Length: 2\r\n\r\nme"),
        ]
    })
    .await;
    let edge = simple(&origin);
    let clients: Vec<_> = (0..11)
        .map(|_| {
            let address = edge.http;
            tokio::spawn(async move { get(address, "/me").await })
        })
        .collect();
    edge.until("all wait", |node| node.telemetry.in_flight.load(Ordering::Relaxed) == 11).await;
    gate.add_permits(1);
    for client in clients {
        let response = client.await.unwrap();
        assert_eq!((response.status, response.body.as_slice()), (200, b"me".as_slice()));
    }
    assert_eq!(origin.count(), 11);
    let known = get(edge.http, "/me").await;
    assert!(known.field("cache-status").unwrap().contains("known-uncacheable"), "{known:?}");
}

/// A response that is stale when it comes, so that no test waits for time to pass.
fn stale(more: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=10\r\nAge: 20\r\nETag: \"v1\"\r\n{more}Content-Length: 3\r\n\r\nold").into_bytes()
}

/// First what is stale, then these.
async fn then(answers: Vec<Vec<Step>>) -> ScriptedOrigin {
    let mut all = VecDeque::from(answers);
    all.push_front(vec![Step::Send(stale(""))]);
    let all = Mutex::new(all);
    ScriptedOrigin::start(move |_| {
        let mut all = all.lock().unwrap();
        if all.len() > 1 { all.pop_front().unwrap() } else { all[0].clone() }
    })
    .await
}

fn stale_rules(origin: &ScriptedOrigin, rules: &str) -> TestNode {
    start("edge-1", "", &site(&server(origin.address), &format!("stale = {{ {rules} }}"), ""))
}

#[tokio::test]
async fn rfc5861_4_stale_is_served_when_the_origin_fails() {
    let error = vec![send("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")];
    let origin = then(vec![error, vec![Step::Cut]]).await;
    let edge =
        stale_rules(&origin, "while_revalidate = \"0s\", if_error = \"1h\", after_wait = \"0s\"");
    assert_eq!(get(edge.http, "/a").await.body, b"old");
    for _ in 0..2 {
        let response = get(edge.http, "/a").await;
        assert_eq!((response.status, response.body.as_slice()), (200, b"old".as_slice()));
        assert!(response.field("cache-status").unwrap().contains("stale-if-error"), "{response:?}");
    }
    assert_eq!(edge.counted(Outcome::Stale), 2);
}

#[tokio::test]
async fn rfc5861_3_stale_is_served_while_one_request_revalidates() {
    let gate = Arc::new(Semaphore::new(0));
    let fresh = "HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\nCache-Control: max-age=100\r\n\r\n";
    let origin = then(vec![vec![Step::Wait(Arc::clone(&gate)), send(fresh)]]).await;
    let edge =
        stale_rules(&origin, "while_revalidate = \"1h\", if_error = \"1h\", after_wait = \"0s\"");
    assert_eq!(get(edge.http, "/a").await.status, 200);
    for _ in 0..3 {
        let response = get(edge.http, "/a").await;
        assert!(
            response.field("cache-status").unwrap().contains("stale-while-revalidate"),
            "{response:?}"
        );
    }
    edge.until("the origin was asked", |_| origin.count() == 2).await;
    assert!(origin.last().contains("if-none-match: \"v1\""), "{}", origin.last());
    gate.add_permits(1);
    edge.until("it was revalidated", |node| node.fills.is_empty()).await;
    let response = get(edge.http, "/a").await;
    assert!(response.field("cache-status").unwrap().contains("hit; ttl="), "{response:?}");
    assert_eq!((origin.count(), edge.counted(Outcome::Hit)), (2, 1));
}

#[tokio::test]
async fn stale_is_served_when_the_origin_is_slow() {
    let gate = Arc::new(Semaphore::new(0));
    let origin = then(vec![vec![Step::Wait(Arc::clone(&gate)), send(OK)]]).await;
    let edge =
        stale_rules(&origin, "while_revalidate = \"0s\", if_error = \"1h\", after_wait = \"10ms\"");
    assert_eq!(get(edge.http, "/a").await.status, 200);
    let response = get(edge.http, "/a").await;
    assert!(response.field("cache-status").unwrap().contains("stale-after-wait"), "{response:?}");
    gate.add_permits(1);
    edge.until("the fetch went on", |node| node.fills.is_empty()).await;
    assert_eq!(get(edge.http, "/a").await.body, b"0123456789");
}

#[tokio::test]
async fn rfc9111_4_3_a_stale_response_is_revalidated() {
    let origin = then(vec![vec![send(
        "HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\nCache-Control: max-age=100\r\n\r\n",
    )]])
    .await;
    let edge =
        stale_rules(&origin, "while_revalidate = \"0s\", if_error = \"1h\", after_wait = \"0s\"");
    assert_eq!(get(edge.http, "/a").await.status, 200);
    let response = get(edge.http, "/a").await;
    assert_eq!((response.status, response.body.as_slice()), (200, b"old".as_slice()));
    let status = response.field("cache-status").unwrap();
    assert!(status.contains("fwd=stale") && status.contains("fwd-status=304"), "{status}");
    assert!(get(edge.http, "/a").await.field("cache-status").unwrap().contains("hit"));
    assert_eq!((origin.count(), edge.counted(Outcome::Revalidated)), (2, 1));
}

#[tokio::test]
async fn rfc9111_4_1_waiters_for_another_variant_are_not_given_this_one() {
    let gate = Arc::new(Semaphore::new(0));
    let wait = Arc::clone(&gate);
    let origin = ScriptedOrigin::start(move |head| {
        let language = if head.contains("accept-language: de") { "de" } else { "en" };
        vec![Step::Wait(Arc::clone(&wait)), send(&format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nVary: Accept-Language\r\nContent-Length: 2\r\n\r\n{language}"))]
    })
    .await;
    let edge = simple(&origin);
    let clients: Vec<_> = (0..20)
        .map(|n| {
            let (address, language) = (edge.http, if n % 2 == 0 { "de" } else { "en" });
            tokio::spawn(async move {
                let response =
                    request(address, "GET", "/a", &format!("Accept-Language: {language}\r\n"))
                        .await;
                assert_eq!(response.body, language.as_bytes());
            })
        })
        .collect();
    edge.until("all wait", |node| node.telemetry.in_flight.load(Ordering::Relaxed) == 20).await;
    gate.add_permits(1000);
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(origin.count(), 2);
}

#[tokio::test]
async fn an_unsafe_method_invalidates() {
    let origin = ScriptedOrigin::start(|_| vec![send(OK)]).await;
    let edge = simple(&origin);
    get(edge.http, "/a").await;
    assert_eq!(request(edge.http, "POST", "/a", "Content-Length: 0\r\n").await.status, 200);
    assert!(get(edge.http, "/a").await.field("cache-status").unwrap().contains("fwd=uri-miss"));
    assert_eq!(origin.count(), 3);
}

/// The leader's failure hands over to one of those who wait, not to all of them.
#[tokio::test]
async fn a_fetch_that_is_given_up_is_taken_over_by_one_who_waits() {
    use crate::io::fill_task::{Joined, Since};
    use crate::io::part::Slot;
    let gate = Arc::new(Semaphore::new(0));
    let wait = Arc::clone(&gate);
    let origin =
        ScriptedOrigin::start(move |_| vec![Step::Wait(Arc::clone(&wait)), send(OK)]).await;
    let edge = simple(&origin);
    let none = http::HeaderMap::new();
    let rules = crate::key::KeyRules::default();
    let key = crate::key::CacheKey::new("http", "www.test", "/a", None, &none, &rules);
    let variant = crate::semantics::vary::VariantKey::NONE;
    let (fills, store) = (&edge.node.fills, &edge.node.store);
    let joined = fills.join(store, &key, variant, &none, None, Since::default(), Slot::Whole);
    let Joined::Begun(leader) = joined else { panic!("somebody else has begun") };
    let clients: Vec<_> = (0..50)
        .map(|_| {
            let address = edge.http;
            tokio::spawn(async move { get(address, "/a").await })
        })
        .collect();
    edge.until("all wait", |node| node.fills.readers() == 51).await;
    assert_eq!(origin.count(), 0);
    drop(leader);
    edge.until("all wait again", |node| node.fills.readers() == 50).await;
    gate.add_permits(1000);
    for client in clients {
        assert_eq!(client.await.unwrap().body, b"0123456789");
    }
    assert_eq!(origin.count(), 1);
}
