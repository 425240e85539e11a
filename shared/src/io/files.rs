//! Reads files, and replaces them so that a reader sees the old or the new, never a part.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::config::{Files, MAX_FILE};

/// The machine's own files and environment.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Files for System {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        read_at_most(path, MAX_FILE as u64 + 1)
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

/// A secret at most.
const MAX_SECRET: u64 = 64 << 10;

/// A secret from its file: without the line end, never empty.
pub fn read_secret(path: &Path) -> Result<String, String> {
    let bytes = read_at_most(path, MAX_SECRET + 1)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    if bytes.len() as u64 > MAX_SECRET {
        return Err(format!("{} is larger than 64 KiB: that is no secret", path.display()));
    }
    let text = String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8", path.display()))?;
    match text.trim() {
        "" => Err(format!("{} is empty", path.display())),
        secret => Ok(secret.to_owned()),
    }
}

/// The whole of a file of at most `most` octets. Devices and pipes are none: one would never end, or never begin.
///
/// # Errors
/// It cannot be read, is too large, or is no file.
pub fn read_file(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let about = fs::metadata(path)?;
    if about.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !about.is_file() {
        return Err(io::Error::other("it is a device or a pipe, not a file"));
    }
    // It may grow while it is read.
    let bytes = if about.len() > most { None } else { Some(read_at_most(path, most + 1)?) };
    match bytes.filter(|bytes| bytes.len() as u64 <= most) {
        Some(bytes) => Ok(bytes),
        None => Err(io::Error::other(format!("it is larger than {} MiB", most >> 20))),
    }
}

/// The first octets of a file, or of what can be read like one.
fn read_at_most(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = fs::File::open(path)?;
    let mut bytes = Vec::with_capacity(file.metadata()?.len().min(most) as usize);
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
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

    #[test]
    fn what_never_ends_is_not_read() {
        let zero = Path::new("/dev/zero");
        assert!(read_file(zero, 1 << 20).unwrap_err().to_string().contains("a device"));
        assert!(read_secret(zero).unwrap_err().contains("larger than 64 KiB"));
        assert_eq!(System.read(zero).unwrap().len(), MAX_FILE + 1);
    }

    #[test]
    fn files_are_read_up_to_their_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("zone");
        fs::write(&path, vec![b'x'; 1 << 20]).unwrap();
        assert_eq!(read_file(&path, 1 << 20).unwrap().len(), 1 << 20);
        fs::write(&path, vec![b'x'; (1 << 20) + 1]).unwrap();
        assert!(read_file(&path, 1 << 20).unwrap_err().to_string().contains("larger than 1 MiB"));
        assert_eq!(read_file(dir.path(), 1).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        assert_eq!(
            read_file(&dir.path().join("none"), 1).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
