//! A clock for programs under test that stands still until the test moves it (see `movable-clock`).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::preload;

/// The wall clock of the programs that have its [`variables`](Self::variables).
#[derive(Debug)]
pub struct Clock {
    path: PathBuf,
    file: File,
}

impl Clock {
    /// A clock kept in this directory, that shows these milliseconds since 1970.
    pub fn new(dir: &Path, millis: u64) -> Self {
        let path = dir.join("clock");
        let file = File::create(&path).unwrap();
        let clock = Self { path, file };
        clock.set(millis);
        clock
    }

    /// It shows this from now on.
    pub fn set(&self, millis: u64) {
        self.file.write_all_at(&millis.to_ne_bytes(), 0).unwrap();
    }

    /// What must be in a program's environment.
    pub fn variables(&self) -> [(&'static str, PathBuf); 2] {
        [
            (preload::VARIABLE, preload::library("movable-clock")),
            ("MOVABLE_CLOCK", self.path.clone()),
        ]
    }
}
