//! A clock for programs under test that stands still until the test moves it (see `movable-clock`).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

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
        [("LD_PRELOAD", library().to_owned()), ("MOVABLE_CLOCK", self.path.clone())]
    }
}

/// The library, built by the first caller.
fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["build", "-p", "movable-clock", "--message-format=json-render-diagnostics"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stderr(Stdio::inherit())
            .output()
            .unwrap_or_else(|error| panic!("cannot run cargo: {error}"));
        let text = String::from_utf8_lossy(&output.stdout);
        let mut files = text
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|message| message["target"]["name"] == "movable_clock")
            .filter_map(|message| Some(PathBuf::from(message["filenames"][0].as_str()?)));
        files.next_back().unwrap_or_else(|| panic!("cargo built no library movable-clock"))
    })
}
