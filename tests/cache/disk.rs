//! A node of two tiers: what memory lets go, or a restart, the disk has still.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use harness::expect;
use harness::fleet::{Fleet, Node};
use harness::origin::{Origin, Script};
use harness::process::Signal;
use harness::wait::{self, PATIENCE};
use harness::wire::{Reply, Request};
use serde_json::{Value, json};

use super::{HOST, plan};

/// One edge, `e1`, of two tiers, before the origin.
fn edge(origin: &Origin, dir: &Path, memory: &str, size: &str) -> Fleet {
    let disk = format!(
        "memory = \"{memory}\"\ndisk = {{ path = \"{}\", size = \"{size}\", daily_writes = \"100GiB\" }}",
        dir.display()
    );
    let fleet = super::site(plan(origin).cache_node("e1", "icn", "edge", &disk), "").start();
    // What comes before it is known that the disk is empty is not written to it.
    wait::until("the disks to be ready", || {
        let status = fleet.node("e1").admin_json("/v1/status");
        let mut disks = status["disks"].as_array().unwrap().iter();
        disks.all(|disk| disk["state"] == "ready").then_some(())
    });
    fleet
}

fn get(node: &Node, path: &str, fields: &[(&str, &str)]) -> Reply {
    let request = fields
        .iter()
        .fold(Request::get(HOST, path), |request, (name, value)| request.field(name, *value));
    request.send(node.http())
}

fn stored(node: &Node, path: &str) -> Vec<Value> {
    let found = node.admin_json(&format!("/v1/object?url=http://{HOST}{path}"));
    found["stored"].as_array().unwrap().clone()
}

/// Asks for it twice, and waits until as many of its objects lie on disk.
#[track_caller]
fn settle(node: &Node, path: &str, fields: &[(&str, &str)], objects: usize) {
    get(node, path, fields);
    get(node, path, fields);
    wait::until("it to lie on disk", || {
        let on_disk =
            |object: &&Value| object["tiers"].as_array().unwrap().contains(&"disk".into());
        (stored(node, path).iter().filter(on_disk).count() == objects).then_some(())
    });
}

/// Ends the node, in one of two ways, starts it again and waits until its disk is ready.
#[track_caller]
fn again(fleet: &mut Fleet, clean: bool) {
    let e1 = fleet.node_mut("e1");
    if clean {
        e1.signal(Signal::Term);
        assert_eq!(e1.ended(PATIENCE).code(), Some(0));
    } else {
        e1.kill();
    }
    e1.start();
    let started = ready(e1);
    assert_eq!(started, if clean { "copy" } else { "segments" });
}

/// Waits until the disk is in use; how it came to be so.
#[track_caller]
fn ready(node: &Node) -> String {
    wait::until("the disk to be ready", || {
        let status = node.admin_json("/v1/status");
        let disk = &status["disks"][0];
        (disk["state"] == "ready").then(|| disk["start"].as_str().unwrap().to_owned())
    })
}

fn body(seed: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 7919 + seed * 101) as u8).collect()
}

fn cache_status(reply: &Reply) -> String {
    reply.head.field("cache-status").unwrap_or_default().to_owned()
}

/// Stored, ended in either way, and started again: it is a hit, byte by byte, and older.
#[test]
fn what_was_asked_for_twice_outlasts_a_restart() {
    for clean in [true, false] {
        let (origin, dir) = (Origin::start(), tempfile::tempdir().unwrap());
        let script = Script::ok(body(1, 100_000)).cache_control("max-age=600");
        origin.route("/a", script.field("ETag", "\"a\"").field("X-Own", "kept"));
        let mut fleet = edge(&origin, dir.path(), "64MiB", "64MiB");
        settle(fleet.node("e1"), "/a", &[], 1);
        let before = get(fleet.node("e1"), "/a", &[]);
        again(&mut fleet, clean);
        let e1 = fleet.node("e1");
        let mut watch = e1.watch();
        let reply = get(e1, "/a", &[]);
        assert_eq!((reply.status, &reply.body), (200, &body(1, 100_000)));
        assert_eq!(reply.head.field("x-own"), Some("kept"));
        assert_eq!(reply.head.field("date"), before.head.field("date"));
        assert!(cache_status(&reply).contains("hit"), "{}", cache_status(&reply));
        let age = |reply: &Reply| reply.head.field("age").unwrap().parse::<u64>().unwrap();
        assert!(age(&reply) >= age(&before) && age(&reply) < 60, "{}", age(&reply));
        expect!(watch, edge_cache_hits_total { tier = "disk" } += 1);
        // From memory the second time, and a part of it.
        let part = get(e1, "/a", &[("Range", "bytes=10-19")]);
        assert_eq!((part.status, &part.body[..]), (206, &body(1, 100_000)[10..20]));
        expect!(watch, edge_cache_hits_total { tier = "memory" } += 1);
        let valid = get(e1, "/a", &[("If-None-Match", "\"a\"")]);
        assert_eq!(valid.status, 304);
        assert_eq!(origin.total(), 1);
    }
}

const ENDS: [bool; 2] = [true, false];

/// Waits until so many segments of it lie on disk.
#[track_caller]
fn segments(node: &Node, path: &str, count: u64) {
    wait::until("its segments to lie on disk", || {
        let found = stored(node, path);
        let object = found.first()?;
        (object["segments_on_disk"] == count
            && object["tiers"].as_array()?.contains(&"disk".into()))
        .then_some(())
    });
}

/// Segments come back one by one: for a range no more than it needs.
#[test]
fn a_long_body_comes_back_in_segments() {
    const LENGTH: usize = (2 << 20) + 77;
    for clean in ENDS {
        let (origin, dir) = (Origin::start(), tempfile::tempdir().unwrap());
        let content = body(3, LENGTH);
        let script =
            Script::ok(content.clone()).cache_control("max-age=600").field("ETag", "\"v\"");
        origin.route("/long", script);
        let mut fleet = edge(&origin, dir.path(), "64MiB", "64MiB");
        for _ in 0..2 {
            assert_eq!(get(fleet.node("e1"), "/long", &[]).body, content);
        }
        segments(fleet.node("e1"), "/long", 9);
        again(&mut fleet, clean);
        let e1 = fleet.node("e1");
        let part = get(e1, "/long", &[("Range", "bytes=1048570-1048590")]);
        assert_eq!((part.status, &part.body[..]), (206, &content[1_048_570..=1_048_590]));
        assert!(cache_status(&part).contains("hit"), "{}", cache_status(&part));
        let found = &stored(e1, "/long")[0];
        assert_eq!(
            (&found["segments_in_memory"], &found["segments_on_disk"]),
            (&0.into(), &9.into())
        );
        assert_eq!(get(e1, "/long", &[]).body, content);
        let last = get(e1, "/long", &[("Range", "bytes=-80")]);
        assert_eq!((last.status, &last.body[..]), (206, &content[LENGTH - 80..]));
        assert_eq!(origin.total(), 1);
    }
}

/// A few bytes are read with their blocks and no more, from a short body and from a long one; asked for again, the segment
/// comes into memory.
#[test]
fn a_few_bytes_cost_a_few_blocks() {
    for length in [1 << 20, 12 << 20] {
        let (origin, dir) = (Origin::start(), tempfile::tempdir().unwrap());
        let content = body(7, length);
        let script = Script::ok(content.clone()).cache_control("max-age=600");
        origin.route("/long", script.field("ETag", "\"v\""));
        let mut fleet = edge(&origin, dir.path(), "128MiB", "128MiB");
        for _ in 0..2 {
            assert!(get(fleet.node("e1"), "/long", &[]).body == content);
        }
        segments(fleet.node("e1"), "/long", (length >> 18) as u64);
        again(&mut fleet, true);
        let e1 = fleet.node("e1");
        let read = || e1.metrics().sum("edge_cache_disk_read_bytes_total", &[]);
        let ask = |at: usize| {
            let before = read();
            let range = format!("bytes={at}-{at}");
            let part = get(e1, "/long", &[("Range", &range)]);
            assert_eq!((part.status, &part.body[..]), (206, &content[at..=at]));
            read() - before
        };
        // With the head of the object.
        let first = ask(length / 2 + 100_000);
        assert!(first > 65_536.0 && first < 75_000.0, "{length}: {first}");
        let other = ask(5);
        assert_eq!(other, 65_536.0 + 4096.0);
        // Again: now it is worth its place in memory.
        assert!(ask(250_000) > 262_144.0);
        assert_eq!(ask(100_000), 0.0);
        // All of it, each segment read once, whoever has asked for it first.
        let reads = || e1.metrics().sum("edge_cache_disk_reads_total", &[("result", "hit")]);
        let before = reads();
        assert!(get(e1, "/long", &[]).body == content);
        assert_eq!(reads() - before, (length >> 18) as f64 - 1.0);
        assert_eq!(origin.total(), 1);
    }
}

/// Without a strong validator it can only come back whole.
#[test]
fn a_long_body_without_a_validator_comes_back_whole() {
    let (origin, dir) = (Origin::start(), tempfile::tempdir().unwrap());
    let content = body(5, 700_000);
    origin.route("/long", Script::ok(content.clone()).cache_control("max-age=600"));
    let mut fleet = edge(&origin, dir.path(), "64MiB", "128MiB");
    settle(fleet.node("e1"), "/long", &[], 1);
    again(&mut fleet, true);
    let reply = get(fleet.node("e1"), "/long", &[("Range", "bytes=600000-600009")]);
    assert_eq!((reply.status, &reply.body[..]), (206, &content[600_000..600_010]));
    assert_eq!(get(fleet.node("e1"), "/long", &[]).body, content);
    assert_eq!(origin.total(), 1);
}

/// RFC 9111 §4.1, over a restart.
#[test]
fn variants_outlast_a_restart() {
    for clean in ENDS {
        let (origin, dir) = (Origin::start(), tempfile::tempdir().unwrap());
        origin.route_with("/a", |request| {
            let language = request.field("accept-language").unwrap_or("none").to_owned();
            Script::ok(language).cache_control("max-age=600").field("Vary", "Accept-Language")
        });
        let mut fleet = edge(&origin, dir.path(), "64MiB", "64MiB");
        let language = |language| [("Accept-Language", language)];
        settle(fleet.node("e1"), "/a", &language("en"), 1);
        settle(fleet.node("e1"), "/a", &language("de"), 2);
        again(&mut fleet, clean);
        for (wanted, asked) in [("de", 2), ("en", 2), ("fr", 3), ("de", 3)] {
            let reply = get(fleet.node("e1"), "/a", &language(wanted));
            assert_eq!((reply.text(), origin.total()), (wanted.to_owned(), asked));
        }
    }
}

/// What a 304 has said of it is known after a restart, and the body was not written again.
#[test]
fn a_validated_head_outlasts_a_restart() {
    for clean in ENDS {
        let (origin, dir) = (Origin::start(), tempfile::tempdir().unwrap());
        let rounds = AtomicUsize::new(0);
        origin.route_with("/a", move |request| {
            let round = rounds.fetch_add(1, Ordering::Relaxed).to_string();
            let script = match request.field("if-none-match") {
                Some(_) => Script::status(304, ""),
                None => Script::ok(body(1, 50_000)),
            };
            script
                .field("ETag", "\"a\"")
                .field("X-Round", &round)
                .cache_control("max-age=60, no-cache")
        });
        let mut fleet = edge(&origin, dir.path(), "64MiB", "64MiB");
        let e1 = fleet.node("e1");
        wait::until("it to lie on disk", || {
            get(e1, "/a", &[]);
            get_tiers(e1, "/a").contains(&"disk".to_owned()).then_some(())
        });
        let bytes =
            |reason| e1.metrics().sum("edge_cache_disk_written_bytes_total", &[("reason", reason)]);
        let before = (bytes("new"), bytes("head"));
        let last = get(e1, "/a", &[]);
        wait::until("the head to be written", || (bytes("head") > before.1).then_some(()));
        assert_eq!(bytes("new"), before.0, "the body was not");
        let round = last.head.field("x-round").unwrap().to_owned();
        again(&mut fleet, clean);
        let e1 = fleet.node("e1");
        let found = &stored(e1, "/a")[0];
        assert!(
            found["headers"].as_array().unwrap().contains(&json!(["x-round", round])),
            "{found}"
        );
        let reply = get(e1, "/a", &[]);
        assert_eq!((reply.status, reply.body), (200, body(1, 50_000)));
        let asked = origin.requests("/a");
        assert_eq!(asked.iter().filter(|asked| asked.field("if-none-match").is_none()).count(), 1);
    }
}

fn get_tiers(node: &Node, path: &str) -> Vec<String> {
    let found = stored(node, path);
    let tiers = found.first().and_then(|object| object["tiers"].as_array().cloned());
    tiers.unwrap_or_default().iter().map(|tier| tier.as_str().unwrap().to_owned()).collect()
}

/// RFC 9111 §4.4: what was purged, invalidated or replaced before a restart stays away after it.
#[test]
fn rfc9111_4_4_what_is_gone_stays_gone_over_a_restart() {
    type Change = fn(&Node);
    let changes: [(&str, Change); 3] = [
        ("a purge", |e1| {
            let order = format!("{{\"urls\": [\"http://{HOST}/a\"]}}");
            assert_eq!(e1.admin_request("POST", "/v1/purge", &order).status, 200);
        }),
        ("an unsafe method", |e1| {
            let reply = Request::new("POST", HOST, "/a").body("x").send(e1.http());
            assert_eq!(reply.status, 200);
        }),
        ("a newer response", |e1| {
            let soft = format!("{{\"urls\": [\"http://{HOST}/a\"], \"soft\": true}}");
            assert_eq!(e1.admin_request("POST", "/v1/purge", &soft).status, 200);
            wait::until("the new one", || (get(e1, "/a", &[]).text() == "new").then_some(()));
            settle(e1, "/a", &[], 1);
        }),
    ];
    for (what, change) in changes {
        for clean in ENDS {
            let (origin, dir) = (Origin::start(), tempfile::tempdir().unwrap());
            origin.route("/a", Script::ok("old").cache_control("max-age=600"));
            let mut fleet = edge(&origin, dir.path(), "64MiB", "64MiB");
            settle(fleet.node("e1"), "/a", &[], 1);
            origin.route("/a", Script::ok("new").cache_control("max-age=600"));
            change(fleet.node("e1"));
            again(&mut fleet, clean);
            for _ in 0..2 {
                assert_eq!(get(fleet.node("e1"), "/a", &[]).text(), "new", "{what}, {clean}");
            }
            // And from then on.
            again(&mut fleet, clean);
            assert_eq!(get(fleet.node("e1"), "/a", &[]).text(), "new", "{what}, {clean}");
        }
    }
}

/// A memory that holds a tenth of what is asked for: the disk has the rest.
#[test]
fn a_small_memory_over_a_large_disk() {
    const OBJECTS: usize = 150;
    let (origin, dir) = (Origin::start(), tempfile::tempdir().unwrap());
    origin.route_with("/*", |request| {
        let number = request.path().trim_start_matches('/').parse().unwrap();
        Script::ok(body(number, 250_000)).cache_control("max-age=600")
    });
    let fleet = edge(&origin, dir.path(), "16MiB", "256MiB");
    let e1 = fleet.node("e1");
    let path = |number: usize| format!("/{number}");
    for number in 0..OBJECTS {
        settle(e1, &path(number), &[], 1);
    }
    let (before, mut watch) = (origin.total(), e1.metrics());
    for number in (0..OBJECTS).chain(0..OBJECTS) {
        let reply = get(e1, &path(number), &[]);
        assert!(reply.body == body(number, 250_000), "{number}: another body");
    }
    assert_eq!(origin.total(), before);
    let hits = |scrape: &harness::counters::Scrape, tier| {
        scrape.sum("edge_cache_hits_total", &[("tier", tier)])
    };
    let now = e1.metrics();
    let moved = |tier| hits(&now, tier) - hits(&watch, tier);
    assert_eq!(moved("disk") + moved("memory"), 2.0 * OBJECTS as f64);
    assert!(moved("disk") > 0.5 * OBJECTS as f64, "{}", moved("disk"));
    watch = now;
    assert!(watch.sum("edge_cache_evictions_total", &[("tier", "memory")]) > 0.0);
}

/// Many who want what is on disk wait for few reads of it, and none of them asks the origin.
#[test]
fn many_who_want_one_object_from_disk() {
    let (origin, dir) = (Origin::start(), tempfile::tempdir().unwrap());
    origin.route("/a", Script::ok(body(9, 200_000)).cache_control("max-age=600"));
    let mut fleet = edge(&origin, dir.path(), "64MiB", "64MiB");
    settle(fleet.node("e1"), "/a", &[], 1);
    again(&mut fleet, true);
    let e1 = fleet.node("e1");
    std::thread::scope(|scope| {
        for _ in 0..60 {
            scope.spawn(|| assert!(get(e1, "/a", &[]).body == body(9, 200_000)));
        }
    });
    assert_eq!(origin.total(), 1);
    let reads = e1.metrics().sum("edge_cache_disk_reads_total", &[("result", "hit")]);
    assert!(reads < 20.0, "{reads}");
}

/// The file of the disk, changed where this is found; how often that is.
fn flip(dir: &Path, content: &[u8]) -> usize {
    let file = dir.join("meridian.store");
    let mut bytes = std::fs::read(&file).unwrap();
    let mut found = 0;
    let mut at = 0;
    while let Some(next) = memchr(&bytes[at..], content) {
        at += next;
        bytes[at + content.len() / 2] ^= 0x10;
        // In place: the node has the file open.
        let one = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
        let place = (at + content.len() / 2) as u64;
        std::os::unix::fs::FileExt::write_all_at(
            &one,
            &bytes[place as usize..=place as usize],
            place,
        )
        .unwrap();
        found += 1;
        at += content.len();
    }
    found
}

fn memchr(bytes: &[u8], content: &[u8]) -> Option<usize> {
    bytes.windows(content.len()).position(|window| window == content)
}

/// A flipped bit, while the node is stopped or while it runs, is a miss, and counted.
#[test]
fn a_flipped_bit_is_a_miss() {
    for running in [false, true] {
        let (origin, dir) = (Origin::start(), tempfile::tempdir().unwrap());
        let content = body(11, 30_000);
        origin.route("/a", Script::ok(content.clone()).cache_control("max-age=600"));
        let mut fleet = edge(&origin, dir.path(), "64MiB", "16MiB");
        settle(fleet.node("e1"), "/a", &[], 1);
        let e1 = fleet.node_mut("e1");
        e1.signal(Signal::Term);
        assert_eq!(e1.ended(PATIENCE).code(), Some(0));
        if running {
            e1.start();
            ready(e1);
        }
        assert!(flip(dir.path(), &content[1000..1064]) > 0);
        if !running {
            e1.start();
            ready(e1);
        }
        let e1 = fleet.node("e1");
        let reply = get(e1, "/a", &[]);
        assert_eq!((reply.status, reply.body == content), (200, true));
        assert_eq!(origin.total(), 2);
        let failures = e1.metrics().sum("edge_cache_disk_errors_total", &[("kind", "checksum")]);
        assert_eq!(failures, 1.0);
        assert_eq!(e1.admin_json("/v1/status")["disks"][0]["checksum_failures"], 1);
    }
}

/// What was cut in other segments is not read as if it were not; the rest stays.
#[test]
fn segments_of_another_size_cost_long_bodies_only() {
    for size in ["64KiB", "1MiB"] {
        let (origin, dir) = (Origin::start(), tempfile::tempdir().unwrap());
        let long = body(3, (2 << 20) + 77);
        for (path, content) in [("/a", body(1, 200_000)), ("/long", long.clone())] {
            let script = Script::ok(content).cache_control("max-age=600");
            origin.route(path, script.field("ETag", "\"v\""));
        }
        let mut fleet = edge(&origin, dir.path(), "64MiB", "64MiB");
        settle(fleet.node("e1"), "/a", &[], 1);
        for _ in 0..2 {
            get(fleet.node("e1"), "/long", &[]);
        }
        segments(fleet.node("e1"), "/long", 9);
        fleet.edit("memory = \"64MiB\"", &format!("memory = \"64MiB\"\nsegment = \"{size}\""));
        again(&mut fleet, true);
        let e1 = fleet.node("e1");
        assert_eq!(get(e1, "/a", &[]).body, body(1, 200_000));
        assert_eq!((origin.count("/a"), origin.count("/long")), (1, 1));
        let part = get(e1, "/long", &[("Range", "bytes=1048570-1048590")]);
        assert_eq!((part.status, &part.body[..]), (206, &long[1_048_570..=1_048_590]));
        assert!(get(e1, "/long", &[]).body == long);
        assert!(origin.count("/long") > 1 && origin.count("/a") == 1);
        // Stored anew, and found by the next start.
        wait::until("it to lie on disk", || {
            assert!(get(e1, "/long", &[]).body == long);
            get_tiers(e1, "/long").contains(&"disk".to_owned()).then_some(())
        });
        again(&mut fleet, true);
        assert!(get(fleet.node("e1"), "/long", &[]).body == long);
    }
}

/// A disk that there is no room for: the node says so, and serves from memory.
#[test]
fn a_disk_that_is_too_large_for_its_file_system() {
    let (origin, dir) = (Origin::start(), tempfile::tempdir().unwrap());
    origin.route("/a", Script::ok("a").cache_control("max-age=600"));
    let fleet = edge(&origin, dir.path(), "64MiB", "100TiB");
    let e1 = fleet.node("e1");
    for _ in 0..3 {
        assert_eq!(get(e1, "/a", &[]).text(), "a");
    }
    assert_eq!(origin.total(), 1);
    assert!(e1.log().contains("left out"), "{}", e1.log());
    let status = e1.admin_json("/v1/status");
    assert_eq!(status["disks"].as_array().unwrap().len(), 0);
    let checked = fleet.run(harness::process::Program::EdgeCache, &["check", "--node", "e1"]);
    let said = String::from_utf8_lossy(&checked.stdout) + String::from_utf8_lossy(&checked.stderr);
    assert!(said.contains("free"), "{said}");
}
