//! Ranges of objects that are not stored, or stored in part, over an edge and its parent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use harness::fleet::Fleet;
use harness::http2::{self, Content, Reading};
use harness::origin::{Gate, Origin, Request, Script};
use harness::plan::Plan;
use harness::wire::{self, End, Reply, Wire};

use super::{HOST, STRICT, plan};

const SEGMENT: u64 = 256 << 10;

/// The byte of a version at an offset.
fn byte(version: u64, at: u64) -> u8 {
    (at.wrapping_mul(31).wrapping_add(at >> 13).wrapping_add(version * 101)) as u8
}

fn bytes(version: u64, first: u64, last: u64) -> Vec<u8> {
    (first..=last).map(|at| byte(version, at)).collect()
}

/// The bytes that a Range of one range asks for, of `length`; none: all.
fn asked(request: &Request, length: u64) -> Option<(u64, u64)> {
    let (first, last) = request.field("range")?.strip_prefix("bytes=")?.split_once('-')?;
    Some(match first {
        "" => (length.saturating_sub(last.parse().unwrap()), length - 1),
        first => {
            let last = last.parse().unwrap_or(length - 1);
            (first.parse().unwrap(), last.min(length - 1))
        }
    })
}

/// What an origin with strong validators says. The content is made as it is asked for.
fn answer(request: &Request, version: u64, length: u64) -> Script {
    let tag = format!("\"v{version}\"");
    if request.field("if-none-match").is_some_and(|tags| tags.contains(&tag)) {
        return Script::status(304, "").field("ETag", &tag);
    }
    let current = request.field("if-range").is_none_or(|wanted| wanted == tag);
    match asked(request, length).filter(|_| current) {
        Some((first, _)) if first >= length => {
            Script::status(416, "").field("Content-Range", &format!("bytes */{length}"))
        }
        Some((first, last)) => Script::status(206, bytes(version, first, last))
            .field("Content-Range", &format!("bytes {first}-{last}/{length}"))
            .field("ETag", &tag),
        None => Script::ok(bytes(version, 0, length - 1)).field("ETag", &tag),
    }
}

fn site(plan: Plan, policy: &str) -> Fleet {
    plan.edge("e1", "icn")
        .edge("e2", "icn")
        .parent("p1", "icn")
        .toml("[tier.shield]\nparents = [\"p1\"]")
        .toml(&format!("[cache.assets]\n{policy}"))
        .toml(&format!(
            "[site.www]\nhosts = [\"{HOST}\"]\ntier = \"shield\"\n\
             routes = [ {{ path = \"/*\", origin = \"static\", cache = \"assets\" }} ]"
        ))
        .start()
}

fn get(fleet: &Fleet, node: &str, fields: &str) -> Reply {
    let mut wire = Wire::connect(fleet.node(node).http());
    wire.send(format!("GET /a HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n{fields}\r\n"));
    let head = wire.read_head();
    let body = wire.read_body("GET", &head);
    Reply { status: head.status, head, body: body.bytes, end: body.end }
}

fn range(fleet: &Fleet, node: &str, value: &str) -> Reply {
    get(fleet, node, &format!("Range: bytes={value}\r\n"))
}

/// The ranges that the origin was asked for.
fn ranges(origin: &Origin) -> Vec<String> {
    let range = |request: &Request| request.field("range").unwrap_or("whole").to_owned();
    origin.requests("/a").iter().map(range).collect()
}

/// Pitfall 19.
#[test]
fn one_byte_of_a_gigabyte_costs_a_segment() {
    const LENGTH: u64 = 1 << 30;
    let origin = Origin::start();
    origin.route_with("/a", |request| match request.field("range") {
        Some(_) => answer(request, 1, LENGTH).cache_control("max-age=60"),
        None => panic!("a gigabyte was asked for"),
    });
    let fleet = site(plan(&origin), STRICT);
    let at = 700_000_000;
    for (node, expected) in [("e1", 1), ("e1", 1), ("e2", 1)] {
        let reply = range(&fleet, node, &format!("{at}-{at}"));
        assert_eq!((reply.status, reply.body.as_slice()), (206, &[byte(1, at)][..]));
        assert_eq!(reply.field("content-range"), Some("bytes 700000000-700000000/1073741824"));
        assert_eq!(origin.count("/a"), expected);
    }
    let first = at / SEGMENT * SEGMENT;
    assert_eq!(ranges(&origin), [format!("bytes={first}-{}", first + SEGMENT - 1)]);
    // The last byte, the length and what lies beyond the end are known from there.
    let last = range(&fleet, "e1", "-1");
    assert_eq!(last.body, [byte(1, LENGTH - 1)]);
    assert_eq!(origin.count("/a"), 2);
    let beyond = range(&fleet, "e1", "1073741824-");
    assert_eq!((beyond.status, beyond.field("content-range")), (416, Some("bytes */1073741824")));
    assert_eq!(origin.count("/a"), 2);
    let parts = range(&fleet, "e2", "0-1,500000000-500000001");
    assert_eq!((parts.status, parts.end), (206, End::Complete));
    for first in [0, 500_000_000] {
        let part = bytes(1, first, first + 1);
        assert!(parts.body.windows(2).any(|window| window == part), "{first}");
    }
    let asked: u64 = ranges(&origin).len() as u64 * SEGMENT;
    assert_eq!(asked, 4 * SEGMENT);
}

#[test]
fn clients_of_one_segment_at_two_edges_cost_one_request() {
    let origin = Origin::start();
    let gate = Gate::new();
    let held = gate.clone();
    origin.route_with("/a", move |request| {
        answer(request, 1, 10 << 20).cache_control("max-age=60").hold(&held)
    });
    let fleet = site(plan(&origin), STRICT);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..60u64)
            .map(|n| {
                let (fleet, node) = (&fleet, if n % 2 == 0 { "e1" } else { "e2" });
                let at = 5 * SEGMENT + n * 1000;
                scope.spawn(move || (at, range(fleet, node, &format!("{at}-{}", at + 99))))
            })
            .collect();
        gate.arrived(1);
        gate.open();
        for client in clients {
            let (at, reply) = client.join().unwrap();
            assert_eq!((reply.status, reply.body), (206, bytes(1, at, at + 99)));
        }
    });
    assert_eq!(origin.count("/a"), 1);
}

/// RFC 9110 §13.1.5, §14.2: on what is not stored as on what is.
#[test]
fn rfc9110_13_1_5_if_range_on_a_miss() {
    const LENGTH: u64 = 600_000;
    for (value, status) in [
        ("\"v1\"", 206),
        ("\"v2\"", 200),
        ("W/\"v1\"", 200),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 200),
    ] {
        let origin = Origin::start();
        origin.route_with("/a", |request| answer(request, 1, LENGTH).cache_control("max-age=60"));
        let fleet = site(plan(&origin), STRICT);
        for _ in 0..2 {
            let fields = format!("Range: bytes=5-9\r\nIf-Range: {value}\r\n");
            let reply = get(&fleet, "e1", &fields);
            let expected = if status == 206 { bytes(1, 5, 9) } else { bytes(1, 0, LENGTH - 1) };
            assert_eq!((reply.status, reply.end), (status, End::Complete), "{value}");
            assert!(reply.body == expected, "{value}");
        }
    }
}

#[test]
fn the_whole_is_fetched_for_a_range_where_the_policy_says_so() {
    let origin = Origin::start();
    origin.route_with("/a", |request| answer(request, 1, 900_000).cache_control("max-age=60"));
    let fleet = site(plan(&origin), &format!("ranges = \"whole\"\n{STRICT}"));
    for first in [5, 700_000] {
        let reply = range(&fleet, "e1", &format!("{first}-{}", first + 9));
        assert_eq!((reply.status, reply.body), (206, bytes(1, first, first + 9)));
    }
    assert_eq!(ranges(&origin), ["whole"]);
}

/// What is too large to be stored whole is stored in part at once: a crowd costs the origin the bytes once. What cannot be
/// had in parts is passed on to each.
#[test]
fn a_crowd_at_an_object_too_large_to_be_stored_whole_shares_its_segments() {
    const LENGTH: u64 = 20 << 20;
    const CROWD: usize = 12;
    let origin = Origin::start();
    origin.route_with("/a", |request| answer(request, 1, LENGTH).cache_control("max-age=600"));
    let body = bytes(1, 0, LENGTH - 1);
    let weak = Script::ok(body.clone()).cache_control("max-age=600").field("ETag", "W/\"1\"");
    origin.route("/weak", weak);
    // An eighth of it is the longest that is stored whole.
    let plan = plan(&origin).cache_node("e1", "icn", "edge", "memory = \"64MiB\"");
    let fleet = super::site(plan, STRICT).start();
    let edge = fleet.node("e1");
    std::thread::scope(|scope| {
        for _ in 0..CROWD {
            scope.spawn(|| {
                let reply = get(&fleet, "e1", "");
                assert_eq!((reply.status, reply.end), (200, End::Complete));
                assert!(reply.body == body);
            });
        }
    });
    let asked = ranges(&origin);
    assert_eq!(asked.iter().filter(|range| *range == "whole").count(), 1, "{asked:?}");
    let cost: u64 = asked
        .iter()
        .filter_map(|range| range.strip_prefix("bytes=")?.split_once('-'))
        .map(|(first, last)| {
            let last: u64 = last.parse().unwrap();
            last.min(LENGTH - 1) + 1 - first.parse::<u64>().unwrap()
        })
        .sum();
    assert!(cost <= LENGTH * 11 / 10, "{cost} bytes in {asked:?}");
    assert!(edge.get("/a").cache_status().contains("hit"));
    for _ in 0..2 {
        let reply = edge.get("/weak");
        assert!(reply.end == End::Complete && reply.body == body);
    }
    assert_eq!(origin.count("/weak"), 2);
}

/// An origin that does not give parts has what is too large passed on.
#[test]
fn what_is_too_large_and_not_given_in_parts_is_passed_on() {
    const LENGTH: u64 = 9 << 20;
    let origin = Origin::start();
    origin.route_with("/a", |request| {
        let whole = Request { fields: Vec::new(), ..request.clone() };
        answer(&whole, 1, LENGTH).cache_control("max-age=600")
    });
    let plan = plan(&origin).cache_node("e1", "icn", "edge", "memory = \"64MiB\"");
    let fleet = super::site(plan, STRICT).start();
    for _ in 0..3 {
        let reply = get(&fleet, "e1", "");
        assert_eq!((reply.status, reply.end), (200, End::Complete));
        assert!(reply.body == bytes(1, 0, LENGTH - 1));
    }
    assert!(origin.count("/a") <= 5, "{}", origin.count("/a"));
}

/// Whoever has begun to read a version can read it to its end, though it has been purged and another has taken its place.
#[test]
fn a_purge_in_the_middle_of_a_read_cuts_nobody() {
    const LENGTH: u64 = 16 << 20;
    let version = Arc::new(AtomicU64::new(1));
    let now = Arc::clone(&version);
    let origin = Origin::start();
    origin.route_with("/a", move |request| {
        answer(request, now.load(Ordering::SeqCst), LENGTH).cache_control("max-age=600")
    });
    let plan = plan(&origin).cache_node("e1", "icn", "edge", "memory = \"256MiB\"");
    let fleet = super::site(plan, STRICT).start();
    let edge = fleet.node("e1");
    assert_eq!(get(&fleet, "e1", "").body.len() as u64, LENGTH);
    let mut slow: Vec<Wire> = (0..2).map(|_| Wire::connect(edge.http())).collect();
    let first = [0, SEGMENT + 7];
    let heads: Vec<_> = std::iter::zip(&mut slow, first)
        .map(|(wire, first)| {
            let ask = wire::Request::get(HOST, "/a").field("Range", format!("bytes={first}-"));
            wire.send(ask.bytes());
            wire.read_head()
        })
        .collect();
    version.store(2, Ordering::SeqCst);
    let all = "{\"all\": true}";
    assert_eq!(edge.admin_request("POST", "/v1/purge", all).status, 200);
    assert_eq!(get(&fleet, "e1", "").body, bytes(2, 0, LENGTH - 1));
    for ((mut wire, head), first) in slow.into_iter().zip(heads).zip(first) {
        let body = wire.read_body("GET", &head);
        assert_eq!((head.status, body.end), (206, End::Complete));
        assert!(body.bytes == bytes(1, first, LENGTH - 1));
    }
    let status = edge.admin_json("/v1/status");
    assert_eq!(
        status["memory"]["segments"],
        LENGTH / SEGMENT,
        "the old ones go with their readers"
    );
}

/// What was promised before a response began comes from the fetch that promised it, though nobody else may join that after
/// a purge.
#[test]
fn a_purge_while_the_rest_is_fetched_cuts_nobody() {
    const LENGTH: u64 = 3 * SEGMENT;
    let version = Arc::new(AtomicU64::new(1));
    let now = Arc::clone(&version);
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start();
    origin.route_with("/a", move |request| {
        let version = now.load(Ordering::SeqCst);
        let answer = answer(request, version, LENGTH).cache_control("max-age=600");
        match asked(request, LENGTH) {
            Some((SEGMENT, _)) if version == 1 => answer.hold_after(100, &held),
            _ => answer,
        }
    });
    let fleet = super::site(plan(&origin).edge("e1", "icn"), STRICT).start();
    let edge = fleet.node("e1");
    let request = |method: &str, path: &str| {
        let uri = format!("https://{HOST}{path}");
        http::Request::builder().method(method).uri(uri).body(()).unwrap()
    };
    let whole = || http2::exchange(edge.https(), request("GET", "/a"), Content::None).body;
    let mut first = request("GET", "/a");
    first.headers_mut().insert("range", "bytes=0-9".parse().unwrap());
    assert_eq!(http2::exchange(edge.https(), first, Content::None).body, bytes(1, 0, 9));
    let parts = http2::on_connection(edge.https(), HOST, async |sender| {
        let asked = Reading::begin(sender, request("GET", "/a"), Content::None).await;
        let mut reading = asked.unwrap();
        gate.arrived(1);
        version.store(2, Ordering::SeqCst);
        assert_eq!(edge.admin_request("POST", "/v1/purge", "{\"all\": true}").status, 200);
        // After these it has opened its window, been seen to, and come to what is on its way.
        assert!(reading.take(SEGMENT as usize).await);
        for _ in 0..3 {
            assert_eq!(http2::one(sender, request("HEAD", "/b"), Content::None).await.status, 404);
        }
        gate.open();
        reading.rest().await
    });
    assert!(parts.error.is_none() && parts.body == bytes(1, 0, LENGTH - 1), "{:?}", parts.error);
    assert_eq!(ranges(&origin), ["bytes=0-262143", "bytes=262144-786431"]);
    assert!(whole() == bytes(2, 0, LENGTH - 1));
}

/// Numbers that look random, the same ones for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// What was received is of one version, the one that its ETag names, whatever was asked before, of whom, and however
/// often the origin has changed; and what came whole is what was asked for.
#[track_caller]
fn check(reply: &Reply, length: u64, what: &str) {
    if reply.status == 416 {
        return;
    }
    let tag = reply.field("etag").unwrap_or_else(|| panic!("{what}: {:?}", reply.head));
    let version = tag.trim_matches(['"', 'v']).parse().unwrap();
    let (first, last) = match reply.field("content-range") {
        Some(value) => {
            let (range, complete) = value.strip_prefix("bytes ").unwrap().split_once('/').unwrap();
            assert_eq!(complete, length.to_string(), "{what}");
            let (first, last) = range.split_once('-').unwrap();
            (first.parse().unwrap(), last.parse().unwrap())
        }
        None => (0, length - 1),
    };
    let expected = bytes(version, first, last);
    assert!(expected.starts_with(&reply.body), "{what}: bytes of another version");
    assert_eq!(reply.end == End::Complete, reply.body.len() == expected.len(), "{what}");
}

#[test]
fn any_sequence_of_ranges_over_versions_gives_bytes_of_one() {
    const LENGTH: u64 = 5 * SEGMENT + 1234;
    let version = Arc::new(AtomicU64::new(1));
    let stale = Arc::new(AtomicU64::new(0));
    let (now, old) = (Arc::clone(&version), Arc::clone(&stale));
    let origin = Origin::start();
    origin.route_with("/a", move |request| {
        let script =
            answer(request, now.load(Ordering::SeqCst), LENGTH).cache_control("max-age=60");
        // Some of what it sends is stale as it comes: it is checked when it is asked for next.
        match old.load(Ordering::SeqCst) {
            0 => script,
            _ => script.field("Age", "60"),
        }
    });
    let fleet = site(plan(&origin), STRICT);
    let seed = 0x5eed_2026;
    let mut random = Random(seed);
    let mut complete = 0;
    for step in 0..400 {
        if random.below(12) == 0 {
            version.fetch_add(1, Ordering::SeqCst);
        }
        stale.store(random.below(3) / 2, Ordering::SeqCst);
        let node = ["e1", "e2"][random.below(2) as usize];
        let first = random.below(LENGTH);
        let value = match random.below(6) {
            0 => String::new(),
            1 => format!("{first}-"),
            2 => format!("-{}", 1 + random.below(LENGTH)),
            3 => format!("{first}-{}", first + random.below(SEGMENT / 4)),
            4 => {
                format!("{}-{}", first / SEGMENT * SEGMENT, first / SEGMENT * SEGMENT + SEGMENT - 1)
            }
            _ => format!("{first}-{}", first + random.below(LENGTH)),
        };
        let what = format!("seed {seed:#x}, step {step}: {node} {value:?}");
        let reply = match value.as_str() {
            "" => get(&fleet, node, ""),
            value => range(&fleet, node, value),
        };
        check(&reply, LENGTH, &what);
        complete += u64::from(reply.end == End::Complete);
    }
    assert!(complete > 320, "{complete} of 400 came whole");
}
