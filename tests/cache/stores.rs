//! What a node finds where its store should be: one of another form, one that is damaged, something that is not its own, a
//! block device. It is used, emptied or refused, as the operator said, with a line that tells him; what is not a store's is
//! never written to.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::faults::Faults;
use harness::fleet::Fleet;
use harness::origin::{Origin, Script};
use harness::process::Signal;
use harness::wait::{self, PATIENCE};
use tempfile::TempDir;

use super::{HOST, STRICT, plan, site};

/// Where superblocks lie, and their version in them.
const SUPERBLOCKS: [u64; 2] = [0, 32 << 10];
const VERSION: u64 = 8;

/// One edge whose disk is `disk`, in `dir`.
struct Scene {
    fleet: Fleet,
    _origin: Origin,
    dir: TempDir,
}

impl Scene {
    /// Nothing runs. `disk` is a path below a folder of its own, or a device.
    fn new(disk: &str, choice: &str) -> Self {
        let (origin, dir) = (Origin::start(), tempfile::tempdir().unwrap());
        origin.route("/a", Script::ok("a").cache_control("max-age=600"));
        let edge = format!(
            "memory = \"64MiB\"\nstate = \"{}\"\n\
             disk = {{ path = \"{}\", size = \"32MiB\", daily_writes = \"1TiB\", mismatch = \"{choice}\" }}",
            dir.path().join("state").display(),
            dir.path().join(disk).display(),
        );
        let fleet = site(plan(&origin).cache_node("e1", "icn", "edge", &edge), STRICT).write();
        Self { fleet, _origin: origin, dir }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn store(&self) -> PathBuf {
        self.path("disk/meridian.store")
    }

    /// How the disk began.
    #[track_caller]
    fn start(&mut self) -> String {
        self.fleet.start_all();
        let node = self.fleet.node("e1");
        wait::until("the disk to be ready", || {
            let disk = node.admin_json("/v1/status")["disks"][0].clone();
            (disk["state"] == "ready").then(|| disk["start"].as_str().unwrap().to_owned())
        })
    }

    /// The line with which it does not start.
    #[track_caller]
    fn refused(&mut self) -> String {
        let before = self.fleet.node("e1").log().len();
        let node = self.fleet.node_mut("e1");
        assert_eq!(node.start_and_fail().code(), Some(78));
        node.log().split_off(before)
    }

    #[track_caller]
    fn stop(&mut self) {
        let node = self.fleet.node_mut("e1");
        node.signal(Signal::Term);
        assert_eq!(node.ended(PATIENCE).code(), Some(0));
    }

    fn is_hit(&self) -> bool {
        let reply = self.fleet.node("e1").get("/a");
        assert_eq!(reply.text(), "a");
        reply.cache_status().contains("; hit")
    }

    /// Started and ended once, with something on its disk.
    #[track_caller]
    fn fill(&mut self) {
        assert_eq!(self.start(), "empty: new");
        let node = self.fleet.node("e1");
        wait::until("it to lie on disk", || {
            node.get("/a");
            let found = node.admin_json(&format!("/v1/object?url=http://{HOST}/a"));
            let tiers = found["stored"].get(0)?["tiers"].as_array()?.clone();
            tiers.contains(&"disk".into()).then_some(())
        });
        self.stop();
    }

    fn check(&self) -> String {
        let program = harness::process::Program::EdgeCache;
        let checked = self.fleet.run(program, &["check", "--node", "e1"]);
        String::from_utf8([checked.stdout, checked.stderr].concat()).unwrap()
    }
}

/// Changes a byte of a file.
fn change(path: &Path, at: u64, by: impl Fn(u8) -> u8) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[by(byte[0])], at).unwrap();
}

fn flip_magic(path: &Path) {
    change(path, SUPERBLOCKS[0] + 3, |byte| byte ^ 4);
}

fn flip_both(path: &Path) {
    SUPERBLOCKS.into_iter().for_each(|at| change(path, at + 3, |byte| byte ^ 4));
}

fn next_version(path: &Path) {
    SUPERBLOCKS.into_iter().for_each(|at| change(path, at + VERSION, |byte| byte + 1));
}

fn shorten(path: &Path) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(16 << 20).unwrap();
}

fn lengthen(path: &Path) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(48 << 20).unwrap();
}

/// A store that is not as this node would have it.
#[test]
fn a_store_of_another_form_is_used_emptied_or_refused() {
    type Harm = fn(&Path);
    /// What comes of each choice: how it starts, or a part of the line that refuses.
    type Ends = (Result<&'static str, &'static str>, Result<&'static str, &'static str>);
    let same = |end| (end, end);
    let cases: [(&str, Harm, Ends); 6] = [
        ("nothing", |_| {}, same(Ok("copy"))),
        ("one magic", flip_magic, same(Ok("copy"))),
        ("both magics", flip_both, same(Ok("empty: damaged"))),
        (
            "another version",
            next_version,
            (Ok("empty: version"), Err("has format 2, this version reads format 1")),
        ),
        ("a shorter file", shorten, same(Ok("segments"))),
        ("a longer file", lengthen, same(Ok("copy"))),
    ];
    for (what, harm, (rebuilt, kept)) in cases {
        for (choice, end) in [("rebuild", rebuilt), ("refuse", kept)] {
            let mut scene = Scene::new("disk", choice);
            scene.fill();
            harm(&scene.store());
            match end {
                Ok(start) => {
                    assert_eq!(scene.start(), start, "{what}, {choice}");
                    assert_eq!(scene.is_hit(), !start.starts_with("empty"), "{what}, {choice}");
                    assert_eq!(fs::metadata(scene.store()).unwrap().len(), 32 << 20, "{what}");
                }
                Err(line) => {
                    let before = fs::read(scene.store()).unwrap();
                    let log = scene.refused();
                    assert!(log.contains(line) && log.contains("meridian.store"), "{what}: {log}");
                    assert!(log.contains("rebuild"), "{what}: {log}");
                    assert!(
                        fs::read(scene.store()).unwrap() == before,
                        "{what}: it was written to"
                    );
                }
            }
        }
    }
}

/// What the configuration says has changed.
#[test]
fn a_configuration_that_does_not_fit_the_store_empties_it_or_is_refused() {
    for (from, to, start, line) in [
        ("size = \"32MiB\"", "size = \"48MiB\"", "empty: size", "the store has 33554432 bytes"),
        ("size = \"32MiB\"", "size = \"16MiB\"", "empty: size", "`size` makes 16777216"),
        (
            "after_wait = \"10s\" }",
            "after_wait = \"10s\" }\nkey = { query = \"none\" }",
            "empty: keyrules",
            "with key rules",
        ),
    ] {
        for choice in ["rebuild", "refuse"] {
            let mut scene = Scene::new("disk", choice);
            scene.fill();
            assert!(!scene.check().contains("meridian.toml:"), "{}", scene.check());
            scene.fleet.edit(from, to);
            let said = scene.check();
            assert!(said.contains("meridian.toml:"), "it has no place: {said}");
            if choice == "rebuild" {
                assert!(
                    said.contains("when the node is started anew it loses 1 records of 0.0 MiB"),
                    "{said}"
                );
                assert_eq!(scene.start(), start, "{to}");
                assert!(!scene.is_hit());
                assert!(scene.fleet.node("e1").log().contains("it loses 1 records"));
                continue;
            }
            assert!(said.contains("the node would not start") && said.contains(line), "{said}");
            let log = scene.refused();
            assert!(log.contains(line) && log.contains("meridian.store"), "{to}: {log}");
            // Put back, nothing has happened to it.
            scene.fleet.edit(to, from);
            assert_eq!(scene.start(), "copy", "{to}");
            assert!(scene.is_hit());
        }
    }
}

/// The beginning of what `mke2fs` makes: zeros, then its superblock.
fn file_system() -> Vec<u8> {
    let mut bytes = vec![0; 2 << 20];
    bytes[1080..1082].copy_from_slice(&[0x53, 0xef]);
    bytes[1100..4096].fill(7);
    bytes
}

/// Somebody else's files are not written to, whatever the operator has chosen.
#[test]
fn what_is_no_store_is_never_overwritten() {
    let text = b"To whom it may concern: this is not a cache.\n".to_vec();
    let long = text.repeat(40_000);
    let big_zeros = [vec![0; 64 << 10], b"data".to_vec()].concat();
    for (what, content) in [
        ("a text", text),
        ("a long text", long),
        ("a file system", file_system()),
        ("zeros first", big_zeros),
    ] {
        for choice in ["rebuild", "refuse"] {
            // In the folder, under the store's name.
            let mut scene = Scene::new("disk", choice);
            fs::create_dir(scene.path("disk")).unwrap();
            fs::write(scene.store(), &content).unwrap();
            let log = scene.refused();
            assert!(
                log.contains("data that is not a store's") && log.contains("remove the file"),
                "{what}: {log}"
            );
            assert!(fs::read(scene.store()).unwrap() == content, "{what} was written to");
            // In the folder's place, with and without a place for purges.
            for without_state in [false, true] {
                let mut scene = Scene::new("file", choice);
                fs::write(scene.path("file"), &content).unwrap();
                if without_state {
                    let state = format!("state = \"{}\"\n", scene.path("state").display());
                    scene.fleet.edit(&state, "");
                }
                assert!(scene.check().contains("is a file: name a folder"), "{}", scene.check());
                let log = scene.refused();
                assert!(
                    log.contains("a folder, in which the store's file is made"),
                    "{what}: {log}"
                );
                assert!(fs::read(scene.path("file")).unwrap() == content, "{what} was written to");
            }
        }
    }
}

/// Removed, as the line says, the node starts.
#[test]
fn what_was_no_store_is_removed_by_its_owner() {
    let mut scene = Scene::new("disk", "rebuild");
    fs::create_dir(scene.path("disk")).unwrap();
    fs::write(scene.store(), "x").unwrap();
    scene.refused();
    fs::remove_file(scene.store()).unwrap();
    scene.fill();
    assert_eq!(scene.start(), "copy");
    assert!(scene.is_hit());
}

#[test]
fn folders_are_made_and_what_cannot_be_is_said() {
    let mut scene = Scene::new("not/there/yet", "refuse");
    assert_eq!(scene.start(), "empty: new");
    assert!(scene.path("not/there/yet/meridian.store").is_file());
    // A store that is a folder itself.
    let mut scene = Scene::new("disk", "rebuild");
    fs::create_dir_all(scene.store()).unwrap();
    let log = scene.refused();
    assert!(log.contains("meridian.store") && log.contains("cannot be opened"), "{log}");
    // Below a file.
    let mut scene = Scene::new("file/disk", "rebuild");
    fs::write(scene.path("file"), "x").unwrap();
    let log = scene.refused();
    assert!(log.contains("file/disk") && log.contains("the folder cannot be made"), "{log}");
    // No permission: who runs the tests may have them all.
    let mut scene = Scene::new("disk", "rebuild");
    let disk = scene.path("disk");
    let faults = Faults::new(scene.dir.path(), &disk);
    scene.fleet.node_mut("e1").stand_on(&[&faults]);
    faults.fail_opens(libc::EACCES);
    let log = scene.refused();
    assert!(log.contains("meridian.store") && log.contains("ermission denied"), "{log}");
    faults.mend();
    assert_eq!(scene.start(), "empty: new");
}

/// A loop device over a file; detached when dropped.
struct Loop(String);

impl Loop {
    /// None, and why is said: it takes a privileged user, and a kernel that has them.
    fn over(file: &Path) -> Option<Self> {
        let made = Command::new("losetup").args(["--find", "--show"]).arg(file).output();
        match made {
            Ok(made) if made.status.success() => {
                Some(Self(String::from_utf8(made.stdout).unwrap().trim().to_owned()))
            }
            Ok(made) => {
                eprintln!("skipped: no loop device: {}", String::from_utf8_lossy(&made.stderr));
                None
            }
            Err(error) => {
                eprintln!("skipped: no losetup: {error}");
                None
            }
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

fn device(bytes: u64, content: &[u8]) -> Option<(tempfile::NamedTempFile, Loop)> {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().write_all_at(content, 0).unwrap();
    file.as_file().set_len(bytes).unwrap();
    let device = Loop::over(file.path())?;
    Some((file, device))
}

/// Needs a privileged user; says so where it has none.
#[test]
fn a_block_device_is_a_store() {
    let Some((_file, device)) = device(64 << 20, &[]) else { return };
    let mut scene = Scene::new(&device.0, "refuse");
    scene.fill();
    assert_eq!(scene.start(), "copy");
    assert!(scene.is_hit());
    let node = scene.fleet.node_mut("e1");
    node.kill();
    assert_eq!(scene.start(), "segments");
    assert!(scene.is_hit());
    assert!(scene.check().contains("warnings 0"), "{}", scene.check());
    scene.stop();
    // Another node's: one at a time.
    let mut other = Scene::new(&device.0, "rebuild");
    assert!(scene.start() == "copy" && scene.is_hit());
    let log = other.refused();
    assert!(log.contains("another process uses this store"), "{log}");
    scene.stop();
    // Purges have no place on it.
    let state = format!("state = \"{}\"\n", scene.path("state").display());
    scene.fleet.edit(&state, "");
    let log = scene.refused();
    assert!(log.contains("set `state` to a folder"), "{log}");
}

#[test]
fn a_block_device_that_does_not_fit_is_refused() {
    if let Some((_file, device)) = device(20 << 20, &[]) {
        let mut scene = Scene::new(&device.0, "rebuild");
        let log = scene.refused();
        assert!(log.contains("the device has 20971520 bytes"), "{log}");
        assert!(log.contains("says 33554432"), "{log}");
    }
    for content in [file_system(), b"text".to_vec(), [vec![0; 900 << 10], vec![1; 10]].concat()] {
        let Some((file, device)) = device(64 << 20, &content) else { return };
        let mut scene = Scene::new(&device.0, "rebuild");
        let log = scene.refused();
        assert!(log.contains("data that is not a store's") && log.contains("dd if="), "{log}");
        drop(device);
        let kept = fs::read(file.path()).unwrap();
        assert!(kept.starts_with(&content), "it was written to");
        assert!(kept[content.len()..].iter().all(|byte| *byte == 0), "it was written to");
    }
}
