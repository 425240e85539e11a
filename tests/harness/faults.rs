//! Disks of programs under test that break and are mended again (see `faulty-files`).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::preload;

/// The files of one folder, as the programs that have its [`variables`] see them. Made before they start.
#[derive(Debug)]
pub struct Faults {
    part: PathBuf,
    path: PathBuf,
    file: File,
}

/// What can be told, in the order of the library's words.
#[derive(Clone, Copy, Debug)]
enum Word {
    ReadError,
    WriteError,
    SyncError,
    OpenError,
    ReadMost,
    WriteMost,
    Delay,
    FlipEvery,
    Reads,
    Writes,
    Failed,
    Flipped,
}

const WORDS: usize = Word::Flipped as usize + 1;

impl Faults {
    /// Of the files in `folder`, controlled by a file in `dir`, which must not be in it. Nothing is broken yet.
    pub fn new(dir: &Path, folder: &Path) -> Self {
        assert!(!dir.starts_with(folder), "the control file would be one of those that fail");
        let name = format!("faults-{}", folder.file_name().unwrap().display());
        let path = dir.join(name);
        let file = File::options().create(true).truncate(true).read(true).write(true).open(&path);
        let faults = Self { part: folder.to_owned(), path, file: file.unwrap() };
        faults.mend();
        faults
    }

    fn set(&self, word: Word, value: u64) {
        self.file.write_all_at(&value.to_ne_bytes(), word as u64 * 8).unwrap();
    }

    fn get(&self, word: Word) -> u64 {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, word as u64 * 8).unwrap();
        u64::from_ne_bytes(bytes)
    }

    /// Nothing is broken. What was counted is forgotten.
    pub fn mend(&self) {
        self.file.write_all_at(&[0; WORDS * 8], 0).unwrap();
    }

    /// Reads fail with this error; 0: no more.
    pub fn fail_reads(&self, error: i32) {
        self.set(Word::ReadError, u64::try_from(error).unwrap());
    }

    /// Writes do, and what changes a file's length.
    pub fn fail_writes(&self, error: i32) {
        self.set(Word::WriteError, u64::try_from(error).unwrap());
    }

    /// `fsync` and its kin do.
    pub fn fail_syncs(&self, error: i32) {
        self.set(Word::SyncError, u64::try_from(error).unwrap());
    }

    /// `open` does.
    pub fn fail_opens(&self, error: i32) {
        self.set(Word::OpenError, u64::try_from(error).unwrap());
    }

    /// A call reads, or writes, so many bytes at most; 0: as many as it says.
    pub fn shorten(&self, reads: u64, writes: u64) {
        self.set(Word::ReadMost, reads);
        self.set(Word::WriteMost, writes);
    }

    /// Each call takes so long.
    pub fn delay(&self, millis: u64) {
        self.set(Word::Delay, millis);
    }

    /// In every so-manieth read a bit is another; 0: in none.
    pub fn flip_every(&self, reads: u64) {
        self.set(Word::FlipEvery, reads);
    }

    /// Reads there were.
    pub fn reads(&self) -> u64 {
        self.get(Word::Reads)
    }

    /// Writes there were.
    pub fn writes(&self) -> u64 {
        self.get(Word::Writes)
    }

    /// Calls that were made to fail, or to be short.
    pub fn failed(&self) -> u64 {
        self.get(Word::Failed)
    }

    /// Reads with a bit that was made another.
    pub fn flipped(&self) -> u64 {
        self.get(Word::Flipped)
    }
}

/// What must be in a program's environment for these disks to break.
pub fn variables(faults: &[&Faults]) -> [(&'static str, PathBuf); 2] {
    let items = faults.iter().map(|one| format!("{}={}", one.part.display(), one.path.display()));
    let list = items.collect::<Vec<_>>().join(":");
    [(preload::VARIABLE, preload::library("faulty-files")), ("FAULTY_FILES", list.into())]
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_control_file_is_words() {
        let dir = tempfile::tempdir().unwrap();
        let faults = Faults::new(dir.path(), &dir.path().join("disk"));
        faults.fail_reads(libc::EIO);
        faults.flip_every(3);
        let mut bytes = Vec::new();
        File::open(&faults.path).unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len(), WORDS * 8);
        assert_eq!((bytes[0], bytes[7 * 8]), (5, 3));
        faults.mend();
        assert_eq!((faults.reads(), faults.get(Word::ReadError)), (0, 0));
    }
}
