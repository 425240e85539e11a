//! Libraries that stand before libc in a program under test, built when a test first needs them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// The variable that names them to a program's loader.
pub(crate) const VARIABLE: &str = "LD_PRELOAD";

/// The library of this package of the workspace.
pub(crate) fn library(package: &str) -> PathBuf {
    static BUILT: Mutex<Option<HashMap<String, PathBuf>>> = Mutex::new(None);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let built = built.get_or_insert_default();
    built.entry(package.to_owned()).or_insert_with(|| build(package)).clone()
}

fn build(package: &str) -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "-p", package, "--message-format=json-render-diagnostics"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("cannot run cargo: {error}"));
    let text = String::from_utf8_lossy(&output.stdout);
    let name = package.replace('-', "_");
    let mut files = text
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == *name)
        .filter_map(|message| Some(PathBuf::from(message["filenames"][0].as_str()?)));
    files.next_back().unwrap_or_else(|| panic!("cargo built no library {package}"))
}

/// Adds variables to a program's environment; where it has libraries before libc already, these come after them.
pub(crate) fn add(
    variables: &mut Vec<(&'static str, PathBuf)>,
    more: impl IntoIterator<Item = (&'static str, PathBuf)>,
) {
    for (name, value) in more {
        match variables.iter_mut().find(|(known, _)| *known == name) {
            Some((VARIABLE, libraries)) => *libraries = joined(libraries, &value),
            Some((_, known)) => *known = value,
            None => variables.push((name, value)),
        }
    }
}

fn joined(one: &Path, other: &Path) -> PathBuf {
    if one == other {
        return one.to_owned();
    }
    format!("{}:{}", one.display(), other.display()).into()
}
