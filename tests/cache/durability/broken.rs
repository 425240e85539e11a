//! Disks that fail in all ways that disks fail in: the node serves on, from what else it has, and never a wrong byte.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use harness::dice::Dice;
use harness::faults::Faults;
use harness::fleet::{Fleet, Node};
use harness::origin::Origin;
use harness::process::Signal;
use harness::wait::{self, PATIENCE};
use serde_json::Value;
use tempfile::TempDir;

use super::world::{PATHS, World};
use crate::cache::{STRICT, plan, site};

/// Requests after which something that is to be seen must have been.
const ENOUGH: usize = 40 * PATHS;

/// One edge, `e1`, whose memory holds a part of what its disks do, and which keeps its purges elsewhere.
struct Scene {
    world: Arc<World>,
    fleet: Fleet,
    disks: Vec<PathBuf>,
    dice: Dice,
    _origin: Origin,
    dir: TempDir,
}

impl Scene {
    /// With so many disks; the configuration is written, nothing runs.
    fn new(disks: usize, more: &str) -> Self {
        let (origin, dir) = (Origin::start(), tempfile::tempdir().unwrap());
        let world = World::new();
        let answering = Arc::clone(&world);
        origin.route_with("/*", move |request| answering.answer(request));
        let disks: Vec<PathBuf> = (0..disks).map(|n| dir.path().join(format!("d{n}"))).collect();
        let tables = disks.iter().map(|path| {
            format!(
                "{{ path = \"{}\", size = \"48MiB\", daily_writes = \"1TiB\"{more} }}",
                path.display()
            )
        });
        let edge = format!(
            "memory = \"24MiB\"\nmax_object = \"2MiB\"\nsegment = \"64KiB\"\npurge_from = [\"127.0.0.0/8\"]\nstate = \"{}\"\ndisks = [ {} ]",
            dir.path().join("state").display(),
            tables.collect::<Vec<_>>().join(", ")
        );
        let fleet = site(plan(&origin).cache_node("e1", "icn", "edge", &edge), STRICT).write();
        Self { world, fleet, disks, dice: Dice::new(7), _origin: origin, dir }
    }

    /// Each disk can be broken.
    fn breakable(&mut self) -> Vec<Faults> {
        let disks: Vec<Faults> =
            self.disks.iter().map(|disk| Faults::new(self.dir.path(), disk)).collect();
        self.fleet.node_mut("e1").stand_on(&disks.iter().collect::<Vec<_>>());
        disks
    }

    fn node(&self) -> &Node {
        self.fleet.node("e1")
    }

    fn status(&self, disk: usize) -> Value {
        self.node().admin_json("/v1/status")["disks"][disk].clone()
    }

    /// So many requests, each answered rightly.
    #[track_caller]
    fn ask(&mut self, requests: usize) {
        let node = self.node().http();
        for _ in 0..requests {
            assert!(self.world.ask(node, &mut self.dice), "no answer");
        }
    }

    /// Requests, until it holds.
    #[track_caller]
    fn ask_until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..ENOUGH / 32 {
            self.ask(32);
            if holds(self) {
                return;
            }
        }
        panic!("never: {what}: {}", self.node().admin_json("/v1/status")["disks"]);
    }

    #[track_caller]
    fn ready(&self) {
        wait::until("the disks to be ready", || {
            let status = self.node().admin_json("/v1/status");
            let disks = status["disks"].as_array().unwrap();
            disks.iter().all(|disk| disk["state"] == "ready").then_some(())
        });
    }

    /// Started, with much on its disks and nothing in memory.
    #[track_caller]
    fn filled(&mut self) {
        self.fleet.start_all();
        self.ready();
        self.ask_until("the disks to be filled", |scene| {
            (0..scene.disks.len()).all(|disk| number(&scene.status(disk), "objects") > 40)
        });
        self.stop();
        self.start();
    }

    #[track_caller]
    fn stop(&mut self) {
        let node = self.fleet.node_mut("e1");
        node.signal(Signal::Term);
        assert_eq!(node.ended(PATIENCE).code(), Some(0));
    }

    #[track_caller]
    fn start(&mut self) {
        self.fleet.start_all();
        self.ready();
    }
}

fn number(status: &Value, name: &str) -> u64 {
    status[name].as_u64().unwrap_or_else(|| panic!("no {name} in {status}"))
}

#[test]
fn a_disk_that_cannot_be_read_is_left_alone_and_the_other_goes_on() {
    let mut scene = Scene::new(2, "");
    let faults = scene.breakable();
    scene.filled();
    faults[0].fail_reads(libc::EIO);
    scene.ask_until("the disk to be left alone", |scene| scene.status(0)["state"] == "isolated");
    assert!(number(&scene.status(0), "errors") >= 8);
    assert_eq!(scene.node().metrics().sum("edge_cache_disk_ready", &[]), 1.0);
    let before = number(&scene.status(1), "hits");
    scene.ask_until("the other disk to answer", |scene| {
        number(&scene.status(1), "hits") > before + 10
    });
    assert_eq!(scene.status(1)["state"], "ready");
    // Mended, it is used from the next start on, and begins empty: it would bring back what was replaced since.
    faults[0].mend();
    scene.ask(PATHS);
    assert_eq!(scene.status(0)["state"], "isolated");
    scene.stop();
    scene.start();
    let start = scene.status(0)["start"].as_str().unwrap().to_owned();
    assert!(start.starts_with("empty"), "{start}");
    scene.ask(PATHS);
}

#[test]
fn a_disk_that_is_full_or_cannot_be_written_serves_what_it_has() {
    for error in [libc::ENOSPC, libc::EIO, libc::EROFS] {
        let mut scene = Scene::new(2, "");
        let faults = scene.breakable();
        scene.filled();
        // All that is there is not wanted again: new content is.
        faults[0].fail_writes(error);
        let before = number(&scene.status(0), "hits");
        let address = (scene.node().http(), scene.node().admin());
        for _ in 0..40 {
            assert!(scene.world.change_and_purge(&mut scene.dice, address));
            scene.ask(16);
        }
        scene.ask_until("errors", |scene| number(&scene.status(0), "errors") > 0);
        let state = scene.status(0)["state"].as_str().unwrap().to_owned();
        assert!(["ready", "read-only", "isolated"].contains(&&*state), "{state}");
        assert!(state == "isolated" || number(&scene.status(0), "hits") > before, "{error}");
        assert_eq!(scene.status(1)["state"], "ready");
        faults[0].mend();
        if state != "isolated" {
            scene.ask_until("it to be written again", |scene| scene.status(0)["state"] == "ready");
        }
        scene.fleet.node_mut("e1").kill();
        scene.fleet.start_all();
        scene.ask(2 * PATHS);
    }
}

#[test]
fn short_reads_and_writes_are_no_errors() {
    let mut scene = Scene::new(1, "");
    let faults = scene.breakable();
    faults[0].shorten(40_000, 10_000);
    scene.filled();
    scene.ask_until("hits from disk", |scene| number(&scene.status(0), "hits") > 20);
    let status = scene.status(0);
    assert_eq!((number(&status, "errors"), number(&status, "checksum_failures")), (0, 0));
    assert!(faults[0].failed() > 20);
}

#[test]
fn a_slow_disk_delays_only_who_reads_it() {
    let mut scene = Scene::new(1, "");
    let faults = scene.breakable();
    scene.filled();
    faults[0].delay(30);
    let reads = faults[0].reads();
    scene.ask_until("reads of the slow disk", |_| faults[0].reads() > reads + 10);
    assert_ne!(scene.status(0)["state"], "isolated");
}

#[test]
fn flipped_bits_are_misses_and_counted() {
    let mut scene = Scene::new(1, "");
    let faults = scene.breakable();
    scene.filled();
    faults[0].flip_every(2);
    scene
        .ask_until("checksums to fail", |scene| number(&scene.status(0), "checksum_failures") > 10);
    assert!(faults[0].flipped() > 0);
    assert!(
        scene.node().metrics().sum("edge_cache_disk_errors_total", &[("kind", "checksum")]) > 10.0
    );
    // While it recovers, too.
    for clean in [true, false] {
        faults[0].flip_every(3);
        if clean {
            scene.stop()
        } else {
            scene.fleet.node_mut("e1").kill()
        }
        scene.fleet.start_all();
        scene.ask(2 * PATHS);
        faults[0].mend();
        scene.ready();
        scene.ask(2 * PATHS);
    }
}

/// Bytes of the file are changed, everywhere, while the node runs, and while it does not.
#[test]
fn a_file_that_somebody_scribbles_on_never_gives_a_wrong_byte() {
    let mut scene = Scene::new(1, "");
    scene.filled();
    let path = scene.disks[0].join("meridian.store");
    let scribble = |every: u64, seed: u64| {
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let (mut dice, end) = (Dice::new(seed), file.metadata().unwrap().len());
        for start in (0..end).step_by(every as usize) {
            let at = (start + dice.below(every as usize) as u64).min(end - 1);
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ (1 << dice.below(8))], at).unwrap();
        }
    };
    scribble(200_000, 1);
    scene.ask_until("checksums to fail", |scene| number(&scene.status(0), "checksum_failures") > 3);
    scene.ask(4 * PATHS);
    for (every, clean) in [(500_000, true), (500_000, false), (4_000, true), (1_000, false)] {
        if clean {
            scene.stop()
        } else {
            scene.fleet.node_mut("e1").kill()
        }
        scribble(every, every);
        scene.fleet.start_all();
        scene.ready();
        scene.ask(4 * PATHS);
    }
}

fn refused(scene: &mut Scene) -> String {
    let ended = scene.fleet.node_mut("e1").start_and_fail();
    assert_eq!(ended.code(), Some(78), "{}", scene.node().log());
    scene.node().log()
}

#[test]
fn other_key_rules_and_other_versions_are_refused_or_rebuilt() {
    for (more, is_refused) in [("", false), (", mismatch = \"refuse\"", true)] {
        let mut scene = Scene::new(1, more);
        scene.filled();
        scene.stop();
        scene.fleet.edit("[cache.assets]\n", "[cache.assets]\nkey = { drop = [\"utm_*\"] }\n");
        if is_refused {
            let log = refused(&mut scene);
            assert!(log.contains("key rules") && log.contains("mismatch = \"rebuild\""), "{log}");
            scene.fleet.edit("key = { drop = [\"utm_*\"] }\n", "");
            scene.start();
            assert_eq!(scene.status(0)["start"], "copy");
        } else {
            scene.start();
            assert_eq!(scene.status(0)["start"], "empty: keyrules");
        }
        scene.ask(PATHS);
        // Without the log of its purges, what a disk has is not believed either.
        scene.stop();
        std::fs::remove_file(scene.dir.path().join("state/purges.log")).unwrap();
        if is_refused {
            let log = refused(&mut scene);
            assert!(log.contains("log of purges"), "{log}");
        } else {
            scene.start();
            assert_eq!(scene.status(0)["start"], "empty: keyrules");
            scene.ask(PATHS);
        }
    }
}

#[test]
fn a_disk_without_room_or_rights_is_left_out() {
    for open in [
        |disk: &Faults| disk.fail_writes(libc::ENOSPC),
        |disk: &Faults| disk.fail_opens(libc::EROFS),
        |disk: &Faults| disk.fail_opens(libc::EIO),
        |disk: &Faults| disk.fail_reads(libc::EIO),
    ] {
        let mut scene = Scene::new(2, "");
        let faults = scene.breakable();
        open(&faults[0]);
        scene.fleet.start_all();
        scene.ask(2 * PATHS);
        let log = scene.node().log();
        assert!(log.contains("left out") || log.contains("d0"), "{log}");
        let status = scene.node().admin_json("/v1/status");
        let disks = status["disks"].as_array().unwrap();
        assert!(disks.iter().any(|disk| disk["state"] == "ready"), "{status}");
    }
}

/// A folder that the operator has named wrongly keeps the node from starting.
#[test]
fn a_disk_that_is_no_folder_is_refused() {
    let mut scene = Scene::new(1, "");
    std::fs::write(&scene.disks[0], "").unwrap();
    let log = refused(&mut scene);
    assert!(log.contains(&*scene.disks[0].display().to_string()), "{log}");
}

/// Reads that never return: who has asked waits for a bound, who asks then does not wait, and the other disk goes on.
#[test]
fn a_disk_that_never_answers_is_done_without() {
    let mut scene = Scene::new(2, "");
    let faults = scene.breakable();
    scene.filled();
    faults[0].delay(3_600_000);
    scene.ask_until("it to be known", |scene| scene.status(0)["state"] == "stalled");
    assert_eq!(scene.node().metrics().sum("edge_cache_disk_ready", &[]), 1.0);
    let timeouts = number(&scene.status(0), "timeouts");
    let before = number(&scene.status(1), "hits");
    scene.ask_until("the other disk to answer", |scene| {
        number(&scene.status(1), "hits") > before + 10
    });
    assert_eq!(number(&scene.status(0), "timeouts"), timeouts, "nobody waits for it any more");
    assert_eq!(scene.status(1)["state"], "ready");
    assert!(scene.node().log().contains("a disk does not answer"));
    // Neither does the end of the node.
    scene.stop();
    faults[0].mend();
    scene.start();
    scene.ask(2 * PATHS);
}

/// One that answers after all is used again.
#[test]
fn a_disk_that_answers_again_is_used_again() {
    let mut scene = Scene::new(1, "");
    let faults = scene.breakable();
    scene.filled();
    faults[0].delay(3000);
    scene.ask_until("it to be known", |scene| scene.status(0)["state"] == "stalled");
    faults[0].mend();
    scene.ready();
    let before = number(&scene.status(0), "hits");
    scene.ask_until("it to be read", |scene| number(&scene.status(0), "hits") > before);
}
