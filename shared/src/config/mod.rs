//! The configuration: one file for both programs, read as a [`Spec`], checked, and handed on whole.
//!
//! [`load`] reads the file and what it includes through a [`Files`], so that it is as pure as its argument. It finds
//! all problems at once, each with its place. What a [`Loaded`] holds has passed all checks: every name in it exists.
//! Each program makes its own configuration of it (`geodns::config`, `edge_cache::config`).

mod check;
mod document;
mod problem;
mod route_values;
mod spec;
mod values;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;
use std::path::{Path, PathBuf};

pub use document::Step;
pub use problem::{Place, Problem, Severity, listing, nearest};
pub use route_values::*;
pub use spec::*;
pub use values::*;

use document::{Document, Part};

/// How the outside is asked for files and environment variables.
pub trait Files {
    /// A file's bytes.
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>>;
    /// The files that match a pattern, sorted; an error for a pattern that is none.
    fn glob(&self, pattern: &str) -> Result<Vec<PathBuf>, String>;
    /// An environment variable.
    fn env(&self, name: &str) -> Option<String>;
}

/// A configuration that has been checked.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it says. Every name in it exists, every value is in its bounds.
    pub spec: Spec,
    /// What is risky in it.
    pub warnings: Vec<Problem>,
    /// All files that it was read from, the first one first.
    pub files: Vec<PathBuf>,
    documents: Vec<Document>,
}

/// A configuration file at most: beyond it something else was given by mistake.
pub(crate) const MAX_FILE: usize = 16 << 20;
/// Mistakes of one kind that are listed at most.
const MAX_PROBLEMS: usize = 100;
/// Included files at most.
const MAX_FILES: usize = 10_000;

/// Reads and checks the configuration at `path`.
///
/// # Errors
/// All that is wrong with it, in the order of the files.
pub fn load(path: &Path, files: &dyn Files) -> Result<Loaded, Vec<Problem>> {
    let (mut problems, mut documents) = (Vec::new(), Vec::new());
    let Some(spec) = read_all(path, files, &mut documents, &mut problems) else {
        return Err(problems);
    };
    check_all(spec, documents, problems)
}

/// What can be understood of a configuration, however much is wrong with it: enough to find the running nodes, which an
/// operator must be able to ask while a file is broken. Never to serve by.
pub fn glance(path: &Path, files: &dyn Files) -> Spec {
    read_all(path, files, &mut Vec::new(), &mut Vec::new()).unwrap_or_default()
}

/// The file at `path` and what it includes.
fn read_all(
    path: &Path,
    files: &dyn Files,
    documents: &mut Vec<Document>,
    problems: &mut Vec<Problem>,
) -> Option<Spec> {
    let mut spec = read_one(path, files, documents, problems)?;
    let dir = path.parent().unwrap_or_else(|| Path::new(""));
    for (at, pattern) in std::mem::take(&mut spec.include).iter().enumerate() {
        let whole = dir.join(pattern);
        let place = |message: String| {
            located(
                documents,
                &[Step::from("include"), Step::from(at)],
                Part::Value,
                Severity::Error,
                message,
            )
        };
        let found = match files.glob(&whole.to_string_lossy()) {
            Ok(found) if found.is_empty() && !pattern.contains(['*', '?', '[']) => {
                problems.push(place(format!("there is no file `{}`", whole.display())));
                continue;
            }
            Ok(found) if found.len() > MAX_FILES => {
                problems.push(place(format!("more than {MAX_FILES} files match")));
                continue;
            }
            Ok(found) => found,
            Err(message) => {
                problems.push(place(message));
                continue;
            }
        };
        // A pattern may match a file that was read already, the first one among them.
        for file in found {
            if documents.iter().any(|document| document.file == file) {
                continue;
            }
            if let Some(part) = read_one(&file, files, documents, problems) {
                merge(&mut spec, part, documents, problems);
            }
        }
    }
    Some(spec)
}

fn check_all(
    spec: Spec,
    documents: Vec<Document>,
    mut problems: Vec<Problem>,
) -> Result<Loaded, Vec<Problem>> {
    let checked = check::check(&spec, &|table, name| {
        documents.iter().any(|document| document.mentions(table, name))
    });
    let (errors, warnings): (Vec<_>, Vec<_>) =
        checked.into_iter().partition(|finding| finding.severity == Severity::Error);
    for finding in errors.into_iter().take(MAX_PROBLEMS) {
        let follows = find(&documents, &finding.path, finding.part)
            .is_some_and(|(document, span, _)| document.is_broken(&span));
        if !follows {
            problems.push(finding.placed(&documents));
        }
    }
    // What a configuration with mistakes would lead to is guesswork: it has no warnings yet.
    if problems.is_empty() {
        problems.extend(warnings.into_iter().map(|finding| finding.placed(&documents)));
    }
    problems.sort_by_key(|problem| {
        let file = documents.iter().position(|document| document.file == problem.file);
        (file, problem.place.as_ref().map(|place| (place.line, place.column)))
    });
    if problems.iter().any(Problem::is_error) {
        return Err(problems);
    }
    let files = documents.iter().map(|document| document.file.clone()).collect();
    Ok(Loaded { spec, warnings: problems, files, documents })
}

impl Loaded {
    /// A problem that a program found with what stands at `path`, such as a zone file that cannot be read.
    pub fn problem(&self, path: &[Step], severity: Severity, message: String) -> Problem {
        located(&self.documents, path, Part::Value, severity, message)
    }
}

fn read_one(
    path: &Path,
    files: &dyn Files,
    documents: &mut Vec<Document>,
    problems: &mut Vec<Problem>,
) -> Option<Spec> {
    let bytes = match files.read(path) {
        Ok(bytes) if bytes.len() > MAX_FILE => {
            problems.push(Problem::with_file(
                path,
                "this file is too large for a configuration (16 MiB)",
            ));
            return None;
        }
        Ok(bytes) => bytes,
        Err(error) => {
            problems.push(Problem::with_file(path, format!("cannot be read: {error}")));
            return None;
        }
    };
    let mut text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(error.as_bytes());
            let place = Some(Place::of(&text, &(at..at + 1)));
            let message = "this is not UTF-8: save the file as UTF-8";
            problems.push(Problem { place, ..Problem::with_file(path, message) });
            return None;
        }
    };
    // Some editors begin a file with a byte order mark.
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    let mut document = Document::new(path.to_owned(), text);
    let (mut spec, found) = document.read(&|name| files.env(name));
    problems.extend(found);
    spec.resolve_paths(path.parent().unwrap_or_else(|| Path::new("")));
    documents.push(document);
    Some(spec)
}

/// Adds what an included file says. A name may stand in one file only.
fn merge(spec: &mut Spec, part: Spec, documents: &[Document], problems: &mut Vec<Problem>) {
    let Some((last, before)) = documents.split_last() else { return };
    let mut twice = |path: &[Step], message: String| {
        let mut problem =
            located(std::slice::from_ref(last), path, Part::Key, Severity::Error, message);
        problem.file.clone_from(&last.file);
        problems.push(problem);
    };
    if !part.include.is_empty() {
        twice(&["include".into()], "an included file cannot include others".to_owned());
    }
    for (table, differs) in [
        ("cluster", part.cluster != ClusterSpec::default()),
        ("geo", part.geo != GeoSpec::default()),
        ("log", part.log != LogSpec::default()),
    ] {
        let path = [Step::from(table)];
        if !differs {
            continue;
        }
        if let Some(first) =
            before.iter().find(|document| document.place(&path, Part::Key).is_some())
        {
            twice(&path, format!("`[{table}]` stands in {} already", first.file.display()));
        }
    }
    if part.cluster != ClusterSpec::default() {
        spec.cluster = part.cluster;
    }
    if part.geo != GeoSpec::default() {
        spec.geo = part.geo;
    }
    if part.log != LogSpec::default() {
        spec.log = part.log;
    }
    macro_rules! tables {
        ($($table:ident),*) => {$(
            extend(&mut spec.$table, part.$table, &mut |name| {
                twice(
                    &[stringify!($table).into(), name.into()],
                    format!("there is a `[{}.{name}]` in another file already", stringify!($table)),
                );
            });
        )*};
    }
    tables!(
        datacenter, nameserver, edge, zone, steering, check, origin, cache, tier, signing, site
    );
}

fn extend<T>(
    all: &mut BTreeMap<String, T>,
    more: BTreeMap<String, T>,
    twice: &mut dyn FnMut(&str),
) {
    for (name, value) in more {
        match all.entry(name) {
            Entry::Occupied(entry) => twice(entry.key()),
            Entry::Vacant(entry) => {
                entry.insert(value);
            }
        }
    }
}

/// Where a path stands.
fn find<'d>(
    documents: &'d [Document],
    path: &[Step],
    part: Part,
) -> Option<(&'d Document, Range<usize>, Place)> {
    documents.iter().find_map(|document| {
        document.place(path, part).map(|(span, place)| (document, span, place))
    })
}

fn located(
    documents: &[Document],
    path: &[Step],
    part: Part,
    severity: Severity,
    message: String,
) -> Problem {
    let (file, place) = match find(documents, path, part) {
        Some((document, _, place)) => (Some(document), Some(place)),
        None => (documents.first(), None),
    };
    let file = file.map(|document| document.file.clone()).unwrap_or_default();
    Problem { severity, message, note: None, place, file }
}

impl check::Finding {
    fn placed(self, documents: &[Document]) -> Problem {
        located(documents, &self.path, self.part, self.severity, self.message)
    }
}

#[cfg(test)]
mod tests;
