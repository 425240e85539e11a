//! What unsafe methods make invalid (RFC 9111 §4.4) does not come back from a disk, however soon after the answer the
//! process ends, and whatever the log of purges does.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use harness::expect;
use harness::faults::Faults;
use harness::fleet::{Fleet, Node};
use harness::origin::{Origin, Script};
use harness::process::Signal;
use harness::wait::{self, PATIENCE};
use harness::wire::{Reply, Request};
use tempfile::TempDir;

use crate::cache::{HOST, STRICT, plan, site};

/// One edge with a disk, and a log of purges elsewhere that can be broken.
struct Scene {
    fleet: Fleet,
    log: Faults,
    origin: Origin,
    /// The origin answers with what is new.
    changed: Arc<AtomicBool>,
    _dir: TempDir,
}

impl Scene {
    fn start() -> Self {
        let (origin, dir) = (Origin::start(), tempfile::tempdir().unwrap());
        let changed = Arc::new(AtomicBool::new(false));
        let is_new = Arc::clone(&changed);
        origin.route_with("/*", move |request| {
            let text = if is_new.load(Ordering::SeqCst) { "new" } else { "old" };
            let script = Script::ok(text).cache_control("max-age=600");
            match request.path() {
                "/named" => script.field("Location", "/other"),
                "/group" => script.field("Cache-Group-Invalidation", "\"g\""),
                "/other" => script.field("Cache-Groups", "\"g\""),
                _ => script,
            }
        });
        let state: PathBuf = dir.path().join("state");
        let edge = format!(
            "memory = \"64MiB\"\nstate = \"{}\"\ndisk = {{ path = \"{}\", size = \"16MiB\", daily_writes = \"1TiB\" }}",
            state.display(),
            dir.path().join("disk").display()
        );
        let mut fleet = site(plan(&origin).cache_node("e1", "icn", "edge", &edge), STRICT).write();
        let log = Faults::new(dir.path(), &state);
        fleet.node_mut("e1").stand_on(&[&log]);
        fleet.start_all();
        let scene = Self { fleet, log, origin, changed, _dir: dir };
        scene.ready();
        scene
    }

    fn node(&self) -> &Node {
        self.fleet.node("e1")
    }

    fn get(&self, path: &str) -> String {
        self.node().get(path).text()
    }

    fn post(&self, path: &str) -> Reply {
        let reply = Request::new("POST", HOST, path).body("x").send(self.node().http());
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply
    }

    /// Waits until the disk is in use; how it came to be so.
    fn ready(&self) -> String {
        wait::until("the disk to be ready", || {
            let disk = self.node().admin_json("/v1/status")["disks"][0].clone();
            (disk["state"] == "ready").then(|| disk["start"].as_str().unwrap().to_owned())
        })
    }

    /// Has it stored on disk.
    fn settle(&self, path: &str) {
        wait::until("it to lie on disk", || {
            self.get(path);
            let url = format!("/v1/object?url=http://{HOST}{path}");
            let found = self.node().admin_json(&url)["stored"].clone();
            let tiers = found.get(0)?["tiers"].as_array()?;
            tiers.contains(&"disk".into()).then_some(())
        });
    }

    /// Started again after `kill -9`; how its disk began.
    fn kill(&mut self) -> String {
        let node = self.fleet.node_mut("e1");
        node.kill();
        node.start();
        self.ready()
    }
}

#[test]
fn rfc9111_4_4_kill_9_right_after_the_answer_brings_nothing_back() {
    for (sent_to, gone) in [("/a", "/a"), ("/named", "/other"), ("/group", "/other")] {
        for _ in 0..3 {
            let mut scene = Scene::start();
            scene.settle(gone);
            scene.settle("/kept");
            scene.changed.store(true, Ordering::SeqCst);
            scene.post(sent_to);
            assert_eq!(scene.kill(), "segments");
            assert_eq!(scene.get(gone), "new", "{sent_to}");
            assert_eq!(scene.get("/kept"), "old");
        }
    }
}

/// A log that takes its time is asked once for many.
#[test]
fn many_unsafe_requests_share_what_makes_them_durable() {
    const REQUESTS: usize = 64;
    let mut scene = Scene::start();
    for n in 0..4 {
        scene.settle(&format!("/{n}"));
    }
    scene.changed.store(true, Ordering::SeqCst);
    scene.log.delay(50);
    let before = scene.log.writes();
    std::thread::scope(|threads| {
        for n in 0..REQUESTS {
            let scene = &scene;
            threads.spawn(move || scene.post(&format!("/{}", n % 4)));
        }
    });
    let writes = scene.log.writes() - before;
    assert!(writes > 0 && writes < REQUESTS as u64 / 2, "{writes}");
    scene.log.delay(0);
    assert_eq!(scene.kill(), "segments");
    for n in 0..4 {
        assert_eq!(scene.get(&format!("/{n}")), "new");
    }
}

type Break = fn(&Faults);

const BREAKS: [(&str, Break); 4] = [
    ("full", |log| log.fail_writes(libc::ENOSPC)),
    ("not synced", |log| log.fail_syncs(libc::EIO)),
    ("read-only", |log| (log.fail_writes(libc::EROFS), log.fail_opens(libc::EROFS)).1),
    ("stuck", |log| log.delay(3_600_000)),
];

/// The log fails: clients are answered, nothing stale is; ended now, the node begins with an empty disk.
#[test]
fn a_log_that_fails_stops_no_client_and_resurrects_nothing() {
    for (how, breaks) in BREAKS {
        let mut scene = Scene::start();
        scene.settle("/a");
        scene.changed.store(true, Ordering::SeqCst);
        let mut watch = scene.node().watch();
        breaks(&scene.log);
        scene.post("/a");
        scene.post("/b");
        expect!(watch, edge_cache_invalidations_not_kept_total += 2);
        assert_eq!(scene.get("/a"), "new", "{how}");
        assert!(scene.node().log().contains("cannot be written down"), "{how}");
        let node = scene.fleet.node_mut("e1");
        node.kill();
        scene.log.mend();
        scene.fleet.node_mut("e1").start();
        assert_eq!(scene.ready(), "empty: doubt", "{how}");
        assert_eq!(scene.get("/a"), "new", "{how}");
    }
}

/// Mended before the node ends: what is on disk stays, but what was invalidated meanwhile.
#[test]
fn a_log_that_is_mended_ends_the_doubt() {
    for (how, breaks) in &BREAKS[..3] {
        for clean in [true, false] {
            let mut scene = Scene::start();
            scene.settle("/a");
            scene.settle("/kept");
            scene.changed.store(true, Ordering::SeqCst);
            breaks(&scene.log);
            scene.post("/a");
            scene.log.mend();
            let start = if clean {
                let node = scene.fleet.node_mut("e1");
                node.signal(Signal::Term);
                assert_eq!(node.ended(PATIENCE).code(), Some(0));
                node.start();
                scene.ready()
            } else {
                wait::until("the doubt to end", || {
                    scene.node().log().contains("in doubt no more").then_some(())
                });
                scene.kill()
            };
            assert_eq!(start, if clean { "copy" } else { "segments" }, "{how}");
            assert_eq!(scene.get("/kept"), "old", "{how}");
            assert_eq!(scene.get("/a"), "new", "{how}");
            assert!(scene.origin.count("/kept") == 1);
        }
    }
}
