//! What outlasts the end of a node's process, however it ends, and disks that fail: purges.

mod broken;
mod invalidated;
mod kills;
mod world;

use std::path::Path;

use harness::clock::Clock;
use harness::expect;
use harness::faults::Faults;
use harness::fleet::{Fleet, Node};
use harness::origin::{Origin, Script};
use harness::plan::Plan;
use serde_json::{Value, json};

use super::{HOST, STRICT, plan};

/// Edge `e1`, which keeps its purges, before parent `p1`, which stores in memory only.
fn tiers(origin: &Origin, state: &Path) -> Plan {
    let more = format!("memory = \"64MiB\"\nstate = \"{}\"", state.display());
    plan(origin)
        .cache_node("e1", "icn", "edge", &more)
        .cache_node("p1", "icn", "parent", "memory = \"64MiB\"")
        .toml("[tier.shield]\nparents = [\"p1\"]")
        .toml(&format!("[cache.assets]\n{STRICT}"))
        .toml(&format!(
            "[site.www]\nhosts = [\"{HOST}\"]\ntier = \"shield\"\n\
             routes = [ {{ path = \"/*\", origin = \"static\", cache = \"assets\" }} ]"
        ))
}

fn purge(node: &Node, order: &Value) -> Value {
    let reply = node.admin_request("POST", "/v1/purge", &order.to_string());
    assert_eq!(reply.status, 200, "{order}: {}", reply.text());
    serde_json::from_slice(&reply.body).unwrap()
}

fn content(body: &str) -> Script {
    Script::ok(body).cache_control("max-age=600").field("Cache-Tag", "t")
}

fn kill_and_start(fleet: &mut Fleet) {
    let e1 = fleet.node_mut("e1");
    e1.kill();
    e1.start();
}

/// A purge that only the edge was given: killed and started again, the edge still does not take from its parent what is
/// older.
#[test]
fn a_purge_of_the_edge_alone_outlasts_kill_9() {
    for order in [
        json!({ "urls": [format!("{HOST}/a")] }),
        json!({ "tags": ["t"] }),
        json!({ "hosts": [HOST], "soft": true }),
        json!({ "all": true }),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let origin = Origin::start();
        origin.route("/a", content("old"));
        let mut fleet = tiers(&origin, dir.path()).start();
        assert_eq!(fleet.node("e1").get("/a").text(), "old");
        origin.route("/a", content("new"));
        let done = purge(fleet.node("e1"), &order);
        kill_and_start(&mut fleet);
        let e1 = fleet.node("e1");
        let known = e1.admin_json(&format!("/v1/purge/{}", done["id"].as_str().unwrap()));
        assert_eq!(known, done);
        assert_eq!(e1.get("/a").text(), "new", "{order}");
        assert_eq!(origin.total(), 2, "{order}");
        // The parent has the new one now, and the edge takes that, however often it is killed.
        kill_and_start(&mut fleet);
        assert_eq!(fleet.node("e1").get("/a").text(), "new");
        assert_eq!(origin.total(), 2, "{order}");
    }
}

/// The clock that numbers purges is set back while the node is down.
#[test]
fn purges_after_a_restart_are_later_than_those_before_it() {
    const NOW: u64 = 1_800_000_000_000;
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::new(dir.path(), NOW);
    let origin = Origin::start();
    origin.route("/a", content("old"));
    let mut fleet = tiers(&origin, dir.path()).write();
    fleet.node_mut("e1").run_by(&clock);
    fleet.start_all();
    let first = purge(fleet.node("e1"), &json!({ "all": true }))["seq"].as_u64().unwrap();
    fleet.node_mut("e1").kill();
    clock.set(NOW - 3_600_000);
    fleet.node_mut("e1").start();
    let second = purge(fleet.node("e1"), &json!({ "all": true }))["seq"].as_u64().unwrap();
    assert_eq!((first, second), (NOW * 1000, NOW * 1000 + 1));
}

#[test]
fn a_folder_that_cannot_be_written_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let origin = Origin::start();
    let mut fleet = tiers(&origin, &file.join("state")).write();
    let ended = fleet.node_mut("e1").start_and_fail();
    assert_eq!(ended.code(), Some(78));
    let log = fleet.node("e1").log();
    assert!(log.contains("cannot make the folder") && log.contains("`state`"), "{log}");
}

/// A disk that cannot be written any more, and later can: what was not acknowledged is in force all the same, and outlasts
/// the node as soon as it can.
#[test]
fn a_purge_that_cannot_be_written_down_is_not_acknowledged() {
    for broken in [
        |disk: &Faults| disk.fail_writes(libc::ENOSPC),
        |disk: &Faults| disk.fail_syncs(libc::EIO),
        |disk: &Faults| (disk.fail_writes(libc::EIO), disk.fail_opens(libc::EROFS)).1,
    ] {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let disk = Faults::new(dir.path(), &state);
        let origin = Origin::start();
        origin.route("/a", content("old"));
        let mut fleet = tiers(&origin, &state).write();
        fleet.node_mut("e1").stand_on(&[&disk]);
        fleet.start_all();
        let e1 = fleet.node("e1");
        purge(e1, &json!({ "tags": ["other"] }));
        assert_eq!(e1.get("/a").text(), "old");
        origin.route("/a", content("new"));
        let mut watch = e1.watch();
        broken(&disk);
        let order = json!({ "urls": [format!("{HOST}/a")] });
        let refused = e1.admin_request("POST", "/v1/purge", &order.to_string());
        assert_eq!(refused.status, 500, "{}", refused.text());
        assert!(refused.text().contains("cannot be written down"), "{}", refused.text());
        assert_eq!(e1.get("/a").text(), "new");
        expect!(watch, edge_cache_purges_not_kept_total += 1);
        assert!(disk.failed() > 0);
        disk.mend();
        let done = purge(e1, &order);
        kill_and_start(&mut fleet);
        let e1 = fleet.node("e1");
        e1.admin_json(&format!("/v1/purge/{}", done["id"].as_str().unwrap()));
        assert_eq!(e1.get("/a").text(), "new");
    }
}

/// Writes of a few bytes at a time, and slow ones, are writes.
#[test]
fn purges_come_through_a_disk_that_writes_little_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let disk = Faults::new(dir.path(), &state);
    let origin = Origin::start();
    origin.route("/a", content("old"));
    let mut fleet = tiers(&origin, &state).write();
    fleet.node_mut("e1").stand_on(&[&disk]);
    disk.shorten(7, 5);
    fleet.start_all();
    assert_eq!(fleet.node("e1").get("/a").text(), "old");
    disk.delay(20);
    origin.route("/a", content("new"));
    purge(fleet.node("e1"), &json!({ "all": true }));
    disk.delay(0);
    kill_and_start(&mut fleet);
    assert_eq!(fleet.node("e1").get("/a").text(), "new");
    assert!(disk.failed() > 10);
}
