//! What is wrong with a configuration: where, and what would be right.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::ser::{Serialize, SerializeStruct, Serializer};

/// Whether a problem keeps the configuration from being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It does.
    Error,
    /// It is risky but used as it stands.
    Warning,
}

/// One thing wrong with a configuration. `Display` gives the form that operators see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Whether it keeps the configuration from being used.
    pub severity: Severity,
    /// What is wrong and what would be right.
    pub message: String,
    /// More, such as the known keys.
    pub note: Option<String>,
    /// Where; none for a file that cannot be read.
    pub place: Option<Place>,
    /// The file, as it was named.
    pub file: PathBuf,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// From 1, in characters; 0 where the line as a whole is meant, whose text is then not shown.
    pub column: usize,
    /// Characters that are meant, within `text`.
    pub width: usize,
    /// The line itself, of a long one the part around what is meant.
    pub text: String,
    /// Characters of the line before `text`.
    pub skipped: usize,
}

/// Characters of a line that are shown.
const MAX_SHOWN: usize = 160;

impl Place {
    /// The line and column of bytes `span` of `text`.
    pub fn of(text: &str, span: &Range<usize>) -> Self {
        let start = floor_char_boundary(text, span.start);
        let end = floor_char_boundary(text, span.end).max(start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let column = text[line_start..start].chars().count() + 1;
        let line = text[line_start..line_end].trim_end_matches('\r');
        let skipped = match line.chars().nth(MAX_SHOWN) {
            Some(_) => (column - 1).saturating_sub(MAX_SHOWN / 2),
            None => 0,
        };
        let shown: String = line.chars().skip(skipped).take(MAX_SHOWN).collect();
        let room = (shown.chars().count() + skipped).saturating_sub(column - 1);
        let width = text[start..end.min(line_end)].chars().count().min(room).max(1);
        let line = text[..start].matches('\n').count() + 1;
        Self { line, column, width, text: shown, skipped }
    }
}

fn floor_char_boundary(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

impl Problem {
    /// An error with a file as a whole.
    pub fn with_file(file: &Path, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            note: None,
            place: None,
            file: file.to_owned(),
        }
    }

    /// A problem with a line of a file that the configuration names.
    pub fn in_line(file: &Path, line: usize, severity: Severity, message: String) -> Self {
        let place = Place { line, column: 0, width: 0, text: String::new(), skipped: 0 };
        Self { severity, place: Some(place), ..Self::with_file(file, message) }
    }

    /// Whether it keeps the configuration from being used.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let Some(place) = &self.place else {
            write!(f, "{}: {severity}: {}", self.file.display(), self.message)?;
            return match &self.note {
                Some(note) => write!(f, "\n  = {note}"),
                None => Ok(()),
            };
        };
        let (line, column) = (place.line, place.column);
        if column == 0 {
            return write!(f, "{}:{line}: {severity}: {}", self.file.display(), self.message);
        }
        let margin = " ".repeat(line.to_string().len());
        writeln!(f, "{}:{line}:{column}: {severity}: {}", self.file.display(), self.message)?;
        writeln!(f, "{margin} |")?;
        // Tabs would put the caret in the wrong column; other control characters would command the terminal.
        writeln!(f, "{line} | {}", place.text.replace(char::is_control, " "))?;
        write!(
            f,
            "{margin} | {}{}",
            " ".repeat(column - 1 - place.skipped),
            "^".repeat(place.width)
        )?;
        match &self.note {
            Some(note) => write!(f, "\n{margin} = {note}"),
            None => Ok(()),
        }
    }
}

/// All of them, as operators see them.
pub fn listing(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

/// For scripts: the severity, the file, the line and column where there are, the message and a note.
impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Problem", 6)?;
        fields.serialize_field("severity", if self.is_error() { "error" } else { "warning" })?;
        fields.serialize_field("file", &self.file.to_string_lossy())?;
        fields.serialize_field("line", &self.place.as_ref().map(|place| place.line))?;
        let column = self.place.as_ref().map(|place| place.column).filter(|column| *column > 0);
        fields.serialize_field("column", &column)?;
        fields.serialize_field("message", &self.message)?;
        fields.serialize_field("note", &self.note)?;
        fields.end()
    }
}

/// The name among `known` that `name` is most likely a slip of, if any is near.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (name.chars().count() / 3).max(1) + 1;
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= limit && *distance < candidate.chars().count())
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_is_under_what_is_meant() {
        let text = "a = 1\n\tö = \"x\"\n";
        let start = text.find("\"x\"").unwrap();
        let problem = Problem {
            severity: Severity::Error,
            message: "wrong".to_owned(),
            note: Some("known keys: a".to_owned()),
            place: Some(Place::of(text, &(start..start + 3))),
            file: PathBuf::from("m.toml"),
        };
        assert_eq!(
            problem.to_string(),
            "m.toml:2:6: error: wrong\n  |\n2 |  ö = \"x\"\n  |      ^^^\n  = known keys: a"
        );
    }

    #[test]
    fn a_place_past_the_end_is_the_last_line() {
        let place = Place::of("a = 1", &(99..120));
        assert_eq!((place.line, place.column, place.width), (1, 6, 1));
    }

    #[test]
    fn only_near_names_are_suggested() {
        assert_eq!(nearest("ttll", ["ttl", "key", "stale"]), Some("ttl"));
        assert_eq!(nearest("datacentre", ["datacenter", "edge"]), Some("datacenter"));
        assert_eq!(nearest("zzz", ["ttl", "key"]), None);
        assert_eq!(nearest("x", ["a"]), None);
    }
}
