//! The border rule and the house rules that no compiler checks: which modules may name the outside world, that every
//! module says what it is for, that files stay short and links lead somewhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A file longer than this has a seam that nobody looked for.
const MOST_LINES: usize = 600;

/// Files that may be longer, each with the reason.
const LONG_FILES: &[(&str, &str)] = &[];

/// What only `src/io/`, `src/cmd/` and `main.rs` may name.
const OUTSIDE_WORLD: &[&str] = &[
    "tokio::",
    "tokio_rustls::",
    "hyper::",
    "hyper_util::",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "socket2::",
    "Instant::now",
    "SystemTime::now",
];

/// How a pure module could name its own crate's or `shared`'s IO.
const OWN_IO: &[&str] = &["crate::io", "super::io", "shared::io", "crate::cmd"];

const CRATES: &[&str] = &["shared", "geodns", "edge-cache"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every file below `dir` with this extension, as a path relative to the root and its text.
fn files(dir: &str, extension: &str) -> Vec<(String, String)> {
    fn walk(dir: &Path, extension: &str, found: &mut Vec<PathBuf>) {
        let Ok(entries) = fs::read_dir(dir) else { return };
        for path in entries.map(|entry| entry.unwrap().path()) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !matches!(name.as_str(), "target" | ".git" | "var") {
                walk(&path, extension, found);
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    let root = root();
    let mut found = Vec::new();
    walk(&root.join(dir), extension, &mut found);
    found.sort();
    let relative = |path: &Path| path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
    found.iter().map(|path| (relative(path), fs::read_to_string(path).unwrap())).collect()
}

fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod ").next().unwrap_or_default()
}

/// The lines of a source file that are compiled into the program: no comments, no unit tests.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = without_tests(text).lines().enumerate();
    lines
        .map(|(number, line)| (number + 1, line.split("//").next().unwrap_or_default()))
        .filter(|(_, line)| !line.trim().is_empty())
}

/// Whether `word` stands in the line as a whole path segment.
fn names(line: &str, word: &str) -> bool {
    let part_of_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| {
        let starts = !part_of_word(line[..at].chars().next_back());
        let ends = word.ends_with(':') || !part_of_word(line[at + word.len()..].chars().next());
        starts && ends
    })
}

fn is_pure(path: &str) -> bool {
    let inside = path.split_once("/src/").map_or(path, |(_, inside)| inside);
    let tests = inside.ends_with("tests.rs") || inside.contains("/tests/");
    !(inside.starts_with("io/") || inside.starts_with("cmd/") || inside == "main.rs" || tests)
}

#[track_caller]
fn assert_none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn only_io_names_the_outside_world() {
    let mut complaints = Vec::new();
    for member in CRATES {
        for (path, text) in files(&format!("{member}/src"), "rs") {
            if !is_pure(&path) {
                continue;
            }
            for (number, line) in code(&text) {
                for word in OUTSIDE_WORLD.iter().chain(OWN_IO) {
                    if names(line, word) {
                        complaints.push(format!("{path}:{number}: a pure module names {word}"));
                    }
                }
            }
        }
    }
    assert_none(complaints);
}

#[test]
fn the_programs_do_not_know_each_other() {
    let mut complaints = Vec::new();
    for (member, word, package) in
        [("geodns", "edge_cache", "edge-cache"), ("edge-cache", "geodns", "geodns")]
    {
        for (path, text) in files(&format!("{member}/src"), "rs") {
            // The other's crate as a path; its name in prose, metrics or messages is no dependency.
            let lines = code(&text).filter(|(_, line)| names(line, &format!("{word}::")));
            complaints.extend(lines.map(|(number, _)| format!("{path}:{number}: names {word}")));
        }
        let manifest = fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap();
        if manifest.lines().any(|line| line.starts_with(package)) {
            complaints.push(format!("{member}/Cargo.toml depends on {package}"));
        }
    }
    let shared = fs::read_to_string(root().join("shared/Cargo.toml")).unwrap();
    for package in ["geodns", "edge-cache"] {
        if shared.lines().any(|line| line.starts_with(package)) {
            complaints.push(format!("shared/Cargo.toml depends on {package}"));
        }
    }
    assert_none(complaints);
}

#[test]
fn every_module_says_what_it_is_for() {
    let mut complaints = Vec::new();
    for member in CRATES.iter().chain(&["tests", "benches"]) {
        for (path, text) in files(member, "rs") {
            let first = text.lines().next().unwrap_or_default();
            if first.strip_prefix("//! ").is_none_or(|words| words.trim().is_empty()) {
                complaints.push(format!("{path}:1: the first line is no `//!` sentence"));
            }
        }
    }
    assert_none(complaints);
}

#[test]
fn files_stay_short() {
    let mut complaints = Vec::new();
    let mut excused: BTreeSet<&str> = LONG_FILES.iter().map(|(path, _)| *path).collect();
    for member in CRATES.iter().chain(&["tests", "benches"]) {
        for (path, text) in files(member, "rs") {
            let lines = without_tests(&text).lines().count();
            let tests = path.ends_with("tests.rs") || path.starts_with("tests/");
            if tests && !path.starts_with("tests/harness") {
                continue;
            }
            if lines > MOST_LINES && !excused.remove(path.as_str()) {
                complaints.push(format!("{path}: {lines} lines, more than {MOST_LINES}"));
            }
        }
    }
    complaints.extend(excused.iter().map(|path| format!("{path}: is short now: no excuse needed")));
    assert_none(complaints);
}

#[test]
fn nothing_is_left_for_later() {
    let markers = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];
    let mut complaints = Vec::new();
    for member in CRATES.iter().chain(&["tests", "benches", "scripts", "config"]) {
        for extension in ["rs", "toml", "sh"] {
            for (path, text) in files(member, extension) {
                for (number, line) in text.lines().enumerate() {
                    if markers.iter().any(|marker| line.contains(marker)) {
                        complaints.push(format!("{path}:{}: {}", number + 1, line.trim()));
                    }
                }
            }
        }
    }
    assert_none(complaints);
}

#[test]
fn links_in_documents_resolve() {
    let mut complaints = Vec::new();
    for (path, text) in files(".", "md") {
        let folder = root().join(&path).parent().unwrap().to_owned();
        let mut fenced = false;
        for (number, line) in text.lines().enumerate() {
            fenced ^= line.trim_start().starts_with("```");
            if fenced {
                continue;
            }
            for target in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                let file = target.split('#').next().unwrap_or_default();
                let elsewhere = file.contains("://") || file.starts_with("mailto:");
                if !file.is_empty() && !elsewhere && !folder.join(file).exists() {
                    complaints.push(format!("{path}:{}: {target} leads nowhere", number + 1));
                }
            }
        }
    }
    assert_none(complaints);
}

/// The tests that the document of conformance and the promises of the README name, in the last column of their tables, are
/// there: each pitfall has one.
#[test]
fn every_test_named_as_a_proof_exists() {
    let sources: Vec<String> = ["edge-cache/src", "geodns/src", "tests"]
        .iter()
        .flat_map(|folder| files(folder, "rs"))
        .map(|(_, text)| text)
        .collect();
    let mut tests = BTreeSet::new();
    for text in &sources {
        let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
        for (number, line) in lines.iter().enumerate() {
            let Some(after) = line.trim_start_matches("async ").strip_prefix("fn ") else {
                continue;
            };
            let marked =
                |line: &&str| line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            if lines[number.saturating_sub(3)..number].iter().any(marked) {
                tests.extend(after.split('(').next());
            }
        }
    }
    let mut complaints = Vec::new();
    let mut pitfalls = 0;
    let mut promised = 0;
    let documents = ["edge-cache/docs/conformance.md", "README.md"]
        .map(|path| (path, fs::read_to_string(root().join(path)).unwrap()));
    let rows = documents.iter().flat_map(|(path, text)| {
        // Tables whose last column is headed so.
        let mut proves = false;
        text.lines().enumerate().filter_map(move |(number, line)| {
            let heads = line.ends_with("| Tests |") || line.ends_with("| proof |");
            proves = line.starts_with('|') && (proves || heads);
            (proves && !heads).then_some((*path, number, line))
        })
    });
    for (path, number, line) in rows {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let named: Vec<&str> = cells.last().unwrap().split('`').skip(1).step_by(2).collect();
        pitfalls += usize::from(cells[0].parse() == Ok(pitfalls + 1) && !named.is_empty());
        promised += if path == "README.md" { named.len() } else { 0 };
        // `-p geodns NAME`: another package's.
        let names = named.iter().filter_map(|name| name.rsplit(' ').next());
        for name in names.filter(|name| !tests.contains(name)) {
            complaints.push(format!("{path}:{}: there is no test `{name}`", number + 1));
        }
    }
    assert_none(complaints);
    assert_eq!(pitfalls, 54, "pitfalls, in their order, each with a test");
    assert!(promised > 15, "only {promised} tests of promises were found");
}

#[test]
fn words_are_found_as_whole_paths() {
    assert!(names("use tokio::net;", "tokio::"));
    assert!(!names("use not_tokio::net;", "tokio::"));
    assert!(names("fn f(s: TcpStream)", "TcpStream"));
    assert!(!names("fn f(s: TcpStreams)", "TcpStream"));
    assert!(names("use crate::io;", "crate::io"));
    assert!(!names("use crate::iot;", "crate::io"));
}
