//! What an operator is told of his disks before he starts a node: what the file systems say of them here and now.

use std::path::Path;

use rustix::fs::{Access, access, statvfs};
use shared::config::{DiskSpec, Loaded, Problem, Severity, Step};

use crate::io::disk::FILE;

/// What stands against the disks of `edges` on this machine.
pub fn warnings(loaded: &Loaded, edges: &[&str]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for name in edges {
        let Some(edge) = loaded.spec.edge.get(*name) else { continue };
        let first = edge.disk.iter().map(|disk| (vec![Step::from("disk")], disk));
        let more = edge.disks.iter().enumerate();
        let more = more.map(|(index, disk)| (vec!["disks".into(), index.into()], disk));
        for (place, disk) in first.chain(more) {
            if let Some((key, why)) = unfit(disk) {
                let path: Vec<Step> =
                    [vec!["edge".into(), (*name).into()], place, vec![key.into()]].concat();
                problems.push(loaded.problem(&path, Severity::Warning, why));
            }
        }
    }
    problems
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
