//! Reads files, and replaces them so that a reader sees the old or the new, never a part.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::config::Files;

/// The machine's own files and environment.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Files for System {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn glob(&self, pattern: &str) -> Result<Vec<PathBuf>, String> {
        let paths = glob::glob(pattern)
            .map_err(|error| format!("`{pattern}` is not a pattern: {error}"))?;
        let mut found: Vec<_> =
            paths.filter_map(Result::ok).filter(|path| path.is_file()).collect();
        found.sort();
        Ok(found)
    }

    fn env(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

/// A secret from its file: without the line end, never empty.
pub fn read_secret(path: &Path) -> Result<String, String> {
    let text = fs::read_to_string(path)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    match text.trim() {
        "" => Err(format!("{} is empty", path.display())),
        secret => Ok(secret.to_owned()),
    }
}

/// Writes `bytes` beside `path`, makes them durable, and renames them into place.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    fs::create_dir_all(dir)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = dir.join(name);
    let mut file = fs::File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&beside, path)?;
    // The rename itself must survive a crash, too.
    fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/state.json");
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn secrets_have_no_line_end_and_are_never_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        fs::write(&path, "hunter2\n").unwrap();
        assert_eq!(read_secret(&path).unwrap(), "hunter2");
        fs::write(&path, "\n").unwrap();
        assert!(read_secret(&path).unwrap_err().contains("is empty"));
    }
}
