//! A node of two tiers: what memory lets go, or a restart, the disk has still.

use std::path::Path;

use harness::expect;
use harness::fleet::{Fleet, Node};
use harness::origin::{Origin, Script};
use harness::process::Signal;
use harness::wait::{self, PATIENCE};
use harness::wire::{Reply, Request};
use serde_json::Value;

use super::{HOST, plan};

/// One edge, `e1`, of two tiers, before the origin.
fn edge(origin: &Origin, dir: &Path, memory: &str, size: &str) -> Fleet {
    let disk = format!(
        "memory = \"{memory}\"\ndisk = {{ path = \"{}\", size = \"{size}\", daily_writes = \"100GiB\" }}",
        dir.display()
    );
    super::site(plan(origin).cache_node("e1", "icn", "edge", &disk), "").start()
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
