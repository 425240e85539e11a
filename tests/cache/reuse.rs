//! What is answered from the store, and how: hits, lifetimes, revalidation, HEAD, conditional and range requests, and
//! the fields that tell of it.

use harness::expect;
use harness::origin::{Origin, Script};
use harness::wire::{Request, get};

use super::{HOST, STRICT, one_edge};

#[test]
fn a_miss_is_stored_and_the_next_request_hits() {
    let origin = Origin::start();
    origin.route("/a", Script::ok("hello").cache_control("max-age=60").field("X-App", "1"));
    let fleet = one_edge(&origin, STRICT);
    let edge = fleet.node("e1");
    let mut watch = edge.watch();

    let miss = edge.get("/a");
    assert_eq!((miss.status, miss.text().as_str()), (200, "hello"));
    let status = miss.cache_status();
    assert!(status.starts_with("e1;") && status.contains("fwd=uri-miss"), "{status}");
    assert!(status.contains("stored") && !status.contains("hit"), "{status}");
    expect!(watch,
        edge_cache_requests_total { site = "www", cache = "miss" } += 1,
        edge_cache_origin_requests_total { origin = "static" } += 1,
        edge_cache_collapsed_total += 0,
    );

    let hit = edge.get("/a");
    assert_eq!((hit.status, hit.text().as_str(), hit.field("x-app")), (200, "hello", Some("1")));
    let status = hit.cache_status();
    assert!(status.starts_with("e1; hit") && status.contains("ttl="), "{status}");
    assert!(!status.contains("fwd"), "{status}");
    expect!(watch,
        edge_cache_requests_total { site = "www", cache = "hit" } += 1,
        edge_cache_origin_requests_total += 0,
    );
    assert_eq!(origin.count("/a"), 1);
}

/// RFC 9111 §5.1: Age is there in what comes from the store. RFC 9110 §6.6.1, §7.6.3: Date and Via.
#[test]
fn responses_tell_their_age_and_way() {
    let origin = Origin::start();
    origin.route("/a", Script::ok("x").cache_control("max-age=100").field("Age", "40"));
    let fleet = one_edge(&origin, STRICT);
    let edge = fleet.node("e1");
    edge.get("/a");
    let hit = edge.get("/a");
    let age: u64 = hit.field("age").unwrap().parse().unwrap();
    assert!((40..60).contains(&age), "Age: {age}");
    assert!(
        hit.field("date").is_some() && hit.head.joined("via").contains("1.1 "),
        "{:?}",
        hit.head
    );
    assert_eq!(hit.head.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case("age")).count(), 1);
}

#[test]
fn what_must_not_be_stored_is_not() {
    let origin = Origin::start();
    origin.route("/no-store", Script::ok("x").cache_control("no-store"));
    origin.route("/private", Script::ok("x").cache_control("private, max-age=60"));
    origin.route("/star", Script::ok("x").cache_control("max-age=60").field("Vary", "*"));
    origin.route("/cookie", Script::ok("x").cache_control("max-age=60").field("Set-Cookie", "a=b"));
    origin.route("/500", Script::status(500, "x"));
    let fleet = one_edge(&origin, STRICT);
    let edge = fleet.node("e1");
    for path in ["/no-store", "/private", "/star", "/cookie", "/500"] {
        for _ in 0..2 {
            let reply = edge.get(path);
            let status = reply.cache_status();
            assert!(!status.contains("hit") && !status.contains("stored"), "{path}: {status}");
        }
        assert_eq!(origin.count(path), 2, "{path}");
    }
}

/// RFC 9111 §3.5.
#[test]
fn answers_to_authorized_requests_are_not_shared() {
    let origin = Origin::start();
    origin.route("/a", Script::ok("mine").cache_control("max-age=60"));
    let fleet = one_edge(&origin, STRICT);
    let edge = fleet.node("e1");
    let authorized = Request::get(HOST, "/a").field("Authorization", "Basic eDp5");
    assert_eq!(authorized.send(edge.http()).status, 200);
    assert!(!edge.get("/a").cache_status().contains("hit"));
    assert_eq!(origin.count("/a"), 2);
}

#[test]
fn lifetimes_stay_within_the_bounds_of_the_policy() {
    let origin = Origin::start();
    // Age 5 makes a lifetime of 5 seconds expired on arrival; the policy's least lifetime is above it.
    origin.route("/short", Script::ok("x").cache_control("max-age=1").field("Age", "5"));
    origin.route("/long", Script::ok("x").cache_control("max-age=100").field("Age", "50"));
    origin.route("/none", Script::ok("x"));
    let policy = format!("ttl = {{ default = \"25s\", min = \"20s\", max = \"30s\" }}\n{STRICT}");
    let fleet = one_edge(&origin, &policy);
    let edge = fleet.node("e1");
    for (path, hits) in [("/short", true), ("/long", false), ("/none", true)] {
        edge.get(path);
        let status = edge.get(path).cache_status();
        assert_eq!(status.contains("hit"), hits, "{path}: {status}");
    }
}

/// RFC 9111 §4.3: a stale response is validated, freshened by a 304, and used again.
#[test]
fn rfc9111_4_3_what_is_stale_is_revalidated() {
    let origin = Origin::start();
    let stale = Script::ok("body").cache_control("max-age=10").field("Age", "10");
    origin.once("/a", stale.field("ETag", "\"v1\"").expect_no_field("If-None-Match"));
    let unchanged = Script::status(304, "").cache_control("max-age=60").field("ETag", "\"v1\"");
    origin.once("/a", unchanged.expect_field("If-None-Match", "\"v1\""));
    let fleet = one_edge(&origin, STRICT);
    let edge = fleet.node("e1");
    let mut watch = edge.watch();
    assert_eq!(edge.get("/a").text(), "body");
    let second = edge.get("/a");
    assert_eq!((second.status, second.text().as_str()), (200, "body"));
    let status = second.cache_status();
    assert!(status.contains("fwd=stale") && status.contains("fwd-status=304"), "{status}");
    let third = edge.get("/a");
    assert_eq!(third.text(), "body");
    assert!(third.cache_status().contains("hit"), "{}", third.cache_status());
    expect!(watch,
        edge_cache_requests_total { cache = "miss" } += 1,
        edge_cache_requests_total { cache = "revalidated" } += 1,
        edge_cache_requests_total { cache = "hit" } += 1,
        edge_cache_origin_requests_total += 2,
    );
    origin.assert_expectations();
}

/// RFC 9211 §2.5: a 304 that forbids to store what it speaks of leaves nothing that is stored.
#[test]
fn rfc9111_4_3_4_a_304_may_forbid_to_store() {
    for said in ["no-store", "private, max-age=60"] {
        let origin = Origin::start();
        let stale = Script::ok("body").cache_control("max-age=10").field("Age", "10");
        origin.once("/a", stale.field("ETag", "\"v1\""));
        let forbids = Script::status(304, "").cache_control(said).field("ETag", "\"v1\"");
        origin.once("/a", forbids.expect_field("If-None-Match", "\"v1\""));
        origin.route("/a", Script::ok("new").cache_control("max-age=60"));
        let fleet = one_edge(&origin, STRICT);
        let edge = fleet.node("e1");
        assert_eq!(edge.get("/a").text(), "body");
        let last = edge.get("/a");
        let status = last.cache_status();
        assert_eq!((last.text().as_str(), status.contains("stored")), ("body", false), "{status}");
        assert_eq!((edge.get("/a").text().as_str(), origin.count("/a")), ("new", 3), "{said}");
        origin.assert_expectations();
    }
}

/// RFC 9111 §4.3.3: a 200 to a validation replaces what was stored.
#[test]
fn rfc9111_4_3_3_what_has_changed_is_replaced() {
    let origin = Origin::start();
    let stale = Script::ok("old").cache_control("max-age=10").field("Age", "10");
    origin.once("/a", stale.field("ETag", "\"v1\""));
    origin.once("/a", Script::ok("new").cache_control("max-age=60").field("ETag", "\"v2\""));
    let fleet = one_edge(&origin, STRICT);
    let edge = fleet.node("e1");
    assert_eq!(edge.get("/a").text(), "old");
    assert_eq!(edge.get("/a").text(), "new");
    let third = edge.get("/a");
    assert_eq!((third.text().as_str(), third.field("etag")), ("new", Some("\"v2\"")));
    assert_eq!(origin.count("/a"), 2);
}

#[test]
fn vary_tells_variants_apart() {
    let origin = Origin::start();
    origin.route_with("/a", |request| {
        let language = request.field("accept-language").unwrap_or("none").to_owned();
        Script::ok(language).cache_control("max-age=60").field("Vary", "Accept-Language")
    });
    let fleet = one_edge(&origin, STRICT);
    let edge = fleet.node("e1");
    for _ in 0..2 {
        for language in ["ko", "de"] {
            let request = Request::get(HOST, "/a").field("Accept-Language", language);
            assert_eq!(request.send(edge.http()).text(), language);
        }
    }
    assert_eq!(origin.count("/a"), 2);
}

#[test]
fn negative_answers_are_stored_for_their_own_time() {
    let origin = Origin::start();
    origin.route("/gone", Script::status(404, "no"));
    let fleet = one_edge(&origin, &format!("negative_ttl = {{ \"404\" = \"60s\" }}\n{STRICT}"));
    let edge = fleet.node("e1");
    for _ in 0..3 {
        assert_eq!(edge.get("/gone").status, 404);
    }
    assert_eq!(origin.count("/gone"), 1);
}

#[test]
fn the_query_is_part_of_the_key_but_for_what_is_dropped() {
    let origin = Origin::start();
    origin
        .route_with("/a", |request| Script::ok(request.target.clone()).cache_control("max-age=60"));
    let key = "key = { query = \"all\", drop = [\"utm_*\", \"fbclid\"], sort = true }";
    let fleet = one_edge(&origin, &format!("{key}\n{STRICT}"));
    let edge = fleet.node("e1");
    for target in ["/a?x=1&y=2", "/a?y=2&x=1", "/a?utm_source=m&y=2&x=1&fbclid=9"] {
        edge.get(target);
    }
    assert_eq!(origin.count("/a"), 1);
    edge.get("/a?x=2");
    assert_eq!(origin.count("/a"), 2);
}

#[test]
fn head_is_answered_from_a_stored_get() {
    let origin = Origin::start();
    origin.route("/a", Script::ok("hello").cache_control("max-age=60"));
    let fleet = one_edge(&origin, STRICT);
    let edge = fleet.node("e1");
    let mut wire = harness::wire::Wire::connect(edge.http());
    let miss = wire.exchange(&Request::new("HEAD", HOST, "/a"));
    assert_eq!((miss.status, miss.body.len()), (200, 0));
    assert_eq!(wire.exchange(&Request::get(HOST, "/a")).text(), "hello");
    let asked = origin.count("/a");
    let head = wire.exchange(&Request::new("HEAD", HOST, "/a").field("Range", "bytes=0-0"));
    assert_eq!((head.status, head.field("content-length")), (200, Some("5")));
    assert_eq!(head.field("accept-ranges"), Some("bytes"), "as GET says");
    assert!(head.cache_status().contains("hit"), "{}", head.cache_status());
    // The connection is in step: nothing of a body was sent after the head.
    assert_eq!(wire.exchange(&Request::get(HOST, "/a")).text(), "hello");
    assert_eq!(origin.count("/a"), asked);
}

/// RFC 9110 §13.1: preconditions are evaluated against the stored response.
#[test]
fn rfc9110_13_conditional_requests_are_answered_from_the_store() {
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    let origin = Origin::start();
    let stored = Script::ok("hello").cache_control("max-age=60").field("ETag", "\"v1\"");
    origin.route("/a", stored.field("Last-Modified", date));
    let fleet = one_edge(&origin, STRICT);
    let edge = fleet.node("e1");
    edge.get("/a");
    let cases = [
        ("If-None-Match", "\"v1\"", 304),
        ("If-None-Match", "W/\"v1\"", 304),
        ("If-None-Match", "\"v0\", \"v1\"", 304),
        ("If-None-Match", "*", 304),
        ("If-None-Match", "\"v2\"", 200),
        ("If-Modified-Since", date, 304),
        ("If-Modified-Since", "Sun, 06 Nov 1994 08:49:36 GMT", 200),
        ("If-Modified-Since", "nonsense", 200),
    ];
    for (name, value, status) in cases {
        let reply = Request::get(HOST, "/a").field(name, value).send(edge.http());
        assert_eq!(reply.status, status, "{name}: {value}");
        assert_eq!(reply.body.is_empty(), status == 304, "{name}: {value}");
        if status == 304 {
            assert_eq!(reply.field("etag"), Some("\"v1\""));
        }
    }
    assert_eq!(origin.count("/a"), 1);
}

/// RFC 9110 §14.2: single ranges from a stored object.
#[test]
fn rfc9110_14_single_ranges_are_cut_from_the_store() {
    let origin = Origin::start();
    let stored = Script::ok("0123456789").cache_control("max-age=60").field("ETag", "\"v1\"");
    origin.route("/a", stored);
    let fleet = one_edge(&origin, STRICT);
    let edge = fleet.node("e1");
    edge.get("/a");
    let cases = [
        ("bytes=2-5", 206, "2345", Some("bytes 2-5/10")),
        ("bytes=7-", 206, "789", Some("bytes 7-9/10")),
        ("bytes=-3", 206, "789", Some("bytes 7-9/10")),
        ("bytes=8-99", 206, "89", Some("bytes 8-9/10")),
        ("bytes=5-2", 200, "0123456789", None),
        ("lines=1-2", 200, "0123456789", None),
    ];
    for (range, status, body, content_range) in cases {
        let reply = Request::get(HOST, "/a").field("Range", range).send(edge.http());
        assert_eq!((reply.status, reply.text().as_str()), (status, body), "{range}");
        assert_eq!(reply.field("content-range"), content_range, "{range}");
    }
    let beyond = Request::get(HOST, "/a").field("Range", "bytes=10-").send(edge.http());
    assert_eq!((beyond.status, beyond.field("content-range")), (416, Some("bytes */10")));
    let other = Request::get(HOST, "/a").field("Range", "bytes=0-1").field("If-Range", "\"v2\"");
    assert_eq!(other.send(edge.http()).status, 200);
    let same = Request::get(HOST, "/a").field("Range", "bytes=0-1").field("If-Range", "\"v1\"");
    assert_eq!(same.send(edge.http()).status, 206);
    assert_eq!(origin.count("/a"), 1);
}

#[test]
fn what_is_stored_survives_the_origin() {
    let origin = Origin::start();
    origin.route("/a", Script::ok("kept").cache_control("max-age=60"));
    let fleet = one_edge(&origin, STRICT);
    let edge = fleet.node("e1");
    edge.get("/a");
    origin.go_down();
    assert_eq!(edge.get("/a").text(), "kept");
}

#[test]
fn a_body_larger_than_the_store_takes_passes_whole_and_is_not_stored() {
    let origin = Origin::start();
    let body: Vec<u8> = (0..24 << 20).map(|n: u32| (n >> 8) as u8 ^ n as u8).collect();
    origin.route("/big", Script::ok(body.clone()).cache_control("max-age=60"));
    let fleet = one_edge(&origin, STRICT);
    let edge = fleet.node("e1");
    for _ in 0..2 {
        let reply = get(edge.http(), HOST, "/big");
        assert!(reply.body == body, "the body arrives unchanged");
    }
    assert_eq!(origin.count("/big"), 2);
}
