//! What an operator is told of his disks before he starts a node: what the file systems say of them here and now, and what
//! of what is stored there would be lost.

use std::path::Path;

use rustix::fs::{Access, access, statvfs};
use shared::config::{DiskSpec, Loaded, Mismatch, Problem, Severity, Step};

use super::open::{config, key_rules};
use crate::config::Plan;
use crate::io::disk::{FILE, OpenError, look};
use crate::io::purge_log;
use crate::purge::log;

/// What stands against the disks of `edges` on this machine.
pub fn warnings(loaded: &Loaded, edges: &[&str]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for name in edges {
        let Some(edge) = loaded.spec.edge.get(*name) else { continue };
        let first = edge.disk.iter().map(|disk| (vec![Step::from("disk")], disk));
        let more = edge.disks.iter().enumerate();
        let more = more.map(|(index, disk)| (vec!["disks".into(), index.into()], disk));
        for (place, disk) in first.chain(more) {
            if let Some((key, why)) = unfit(disk).or_else(|| unlike(loaded, name, disk)) {
                let path: Vec<Step> =
                    [vec!["edge".into(), (*name).into()], place, vec![key.into()]].concat();
                problems.push(loaded.problem(&path, Severity::Warning, why));
            }
        }
    }
    problems
}

/// The key that a store which is there does not fit any more, and what comes of it.
fn unlike(loaded: &Loaded, node: &str, disk: &DiskSpec) -> Option<(&'static str, String)> {
    let plan = Plan::new(loaded, Some(node)).ok()?;
    // What a node reads of it is longer; without one, or with a damaged one, it begins another.
    let purges = purge_log::folder(&plan).ok()??.join(purge_log::FILE);
    let purges = log::identity(&std::fs::read(purges).unwrap_or_default()).unwrap_or_default();
    let error = look(&config(disk), key_rules(&plan, purges))?;
    let comes = match (&error, disk.mismatch) {
        (OpenError::KeyRules { holds, .. } | OpenError::Size { holds, .. }, Mismatch::Rebuild) => {
            format!("when the node is started anew it loses {holds}")
        }
        (OpenError::Version { .. }, Mismatch::Rebuild) => {
            "when the node is started anew it loses all that it holds".to_owned()
        }
        _ => return Some(("path", format!("the node would not start: {error}"))),
    };
    let (key, why) = match &error {
        OpenError::Size { .. } => ("size", "has another size"),
        OpenError::Version { .. } => ("path", "has another format"),
        _ => (
            "path",
            "was written with other key rules (the `key` of a policy), or beside another log of purges",
        ),
    };
    Some((key, format!("the store in {} {why}: {comes}", disk.path.display())))
}

/// The key of a disk that is at odds with the machine, and why.
fn unfit(disk: &DiskSpec) -> Option<(&'static str, String)> {
    let path = &disk.path;
    // What is not there yet is made in the nearest folder that is.
    let there = path.ancestors().find(|path| path.exists())?;
    let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
    if let Err(error) = access(there, Access::WRITE_OK) {
        let what = if there == path { "cannot be written" } else { "cannot be made: its folder" };
        return Some(("path", format!("{} {what}: {error}", path.display())));
    }
    if there.is_file() {
        let why = "is a file: name a folder, in which the store's file is made, or a block device";
        return Some(("path", format!("{} {why}", there.display())));
    }
    if !there.is_dir() {
        return None;
    }
    let system = statvfs(there).ok()?;
    let has = std::fs::metadata(path.join(FILE)).map_or(0, |file| file.len());
    let free = system.f_bavail.saturating_mul(system.f_frsize).saturating_add(has);
    (disk.size.0 > free).then(|| {
        let why = format!(
            "larger than what is free where {} is: {} MiB, the store's own file included",
            path.display(),
            free >> 20
        );
        ("size", why)
    })
}
