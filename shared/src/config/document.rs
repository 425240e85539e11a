//! One file of the configuration: its text, and where in it things stand.
//!
//! A [`Spec`] carries no places. A problem names the path of what it is about (`site.www.routes[0].origin`), and the
//! document finds the path in its text.

use std::ops::Range;
use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, Deserializer};

use super::problem::{Place, Problem, Severity, nearest};
use super::spec::Spec;

/// More mistakes than this in one file are not listed.
const MAX_PROBLEMS: usize = 100;

/// One step of a path into a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A key of a table.
    Key(String),
    /// An element of a list.
    Index(usize),
}

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<&String> for Step {
    fn from(key: &String) -> Self {
        Self::Key(key.clone())
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// One file of the configuration.
#[derive(Clone, Debug)]
pub(super) struct Document {
    pub(super) file: PathBuf,
    pub(super) text: String,
}

/// Whether a path's key or its value is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Key,
    Value,
}

impl Document {
    /// What the file says, as far as it can be understood, and all that is wrong with it.
    ///
    /// After a mistake the value that has it is taken out and the rest is read, so that all mistakes are found at once.
    pub(super) fn read(&self, env: &dyn Fn(&str) -> Option<String>) -> (Spec, Vec<Problem>) {
        let (mut table, errors) = DeTable::parse_recoverable(&self.text);
        let mut problems: Vec<Problem> = errors
            .iter()
            .take(MAX_PROBLEMS)
            .map(|error| self.problem(error.span(), lower_first(error.message()), None))
            .collect();
        if !problems.is_empty() {
            // What a broken line leaves behind is guesswork: its other mistakes may not be real.
            return (Spec::default(), problems);
        }
        self.substitute(table.get_mut(), env, &mut problems);
        let mut removed = Vec::new();
        for _ in 0..MAX_PROBLEMS {
            let error = match Spec::deserialize(Deserializer::from(table.clone())) {
                Ok(spec) => return (spec, problems),
                Err(error) => error,
            };
            // A key that was taken out here is not missing.
            if !missing(&error).is_some_and(|key| removed.iter().any(|removed| removed == key)) {
                problems.push(self.translate(&error));
            }
            match error.span().and_then(|span| remove(table.get_mut(), &span)) {
                Some(key) => removed.push(key),
                None => break,
            }
        }
        (Spec::default(), problems)
    }

    /// A problem at `path`, if the path begins in this file. The deepest part of it that is there is pointed at.
    pub(super) fn place(&self, path: &[Step], part: Part) -> Option<(usize, Place)> {
        let (table, _) = DeTable::parse_recoverable(&self.text);
        let Some((Step::Key(first), rest)) = path.split_first() else {
            return None;
        };
        let (key, mut value) = table.get_ref().get_key_value(first.as_str())?;
        let mut span = key.span();
        for (at, step) in rest.iter().enumerate() {
            let last = at + 1 == rest.len();
            match (step, value.get_ref()) {
                (Step::Key(name), DeValue::Table(table)) => {
                    let Some((key, inner)) = table.get_key_value(name.as_str()) else {
                        // A table of the same kind in another file may have it.
                        if at == 0 {
                            return None;
                        }
                        break;
                    };
                    span = if last && part == Part::Value && !inner.get_ref().is_table() {
                        inner.span()
                    } else {
                        key.span()
                    };
                    value = inner;
                }
                (Step::Index(index), DeValue::Array(array)) => {
                    let Some(inner) = array.get(*index) else { break };
                    span = inner.span();
                    value = inner;
                }
                _ => break,
            }
        }
        Some((span.start, Place::of(&self.text, &span)))
    }

    fn problem(
        &self,
        span: Option<Range<usize>>,
        message: String,
        note: Option<String>,
    ) -> Problem {
        Problem {
            severity: Severity::Error,
            message,
            note,
            place: span.map(|span| Place::of(&self.text, &span)),
            file: self.file.clone(),
        }
    }

    /// serde's words in ours, with the nearest key.
    fn translate(&self, error: &toml::de::Error) -> Problem {
        let message = error.message();
        for (found, ours, note) in [
            ("unknown field `", "unknown key", "known keys"),
            ("unknown variant `", "unknown value", "known values"),
        ] {
            let Some((name, expected)) =
                message.strip_prefix(found).and_then(|rest| rest.split_once('`'))
            else {
                continue;
            };
            let mut known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
            let hint = match nearest(name, known.iter().copied()) {
                Some(near) => format!("; did you mean `{near}`?"),
                None => String::new(),
            };
            known.sort_unstable();
            let note = match known.is_empty() {
                true => "there are no known keys here".to_owned(),
                false => format!("{note}: {}", known.join(", ")),
            };
            return self.problem(error.span(), format!("{ours} `{name}`{hint}"), Some(note));
        }
        if let Some(name) = missing(error) {
            return self.problem(error.span(), format!("the key `{name}` is missing"), None);
        }
        self.problem(error.span(), lower_first(message), None)
    }

    /// `${NAME}` in strings becomes the environment's value; `$${` stands for `${`.
    fn substitute(
        &self,
        table: &mut DeTable<'_>,
        env: &dyn Fn(&str) -> Option<String>,
        problems: &mut Vec<Problem>,
    ) {
        for (_, value) in table.iter_mut() {
            self.substitute_value(value, env, problems);
        }
    }

    fn substitute_value(
        &self,
        value: &mut Spanned<DeValue<'_>>,
        env: &dyn Fn(&str) -> Option<String>,
        problems: &mut Vec<Problem>,
    ) {
        let span = value.span();
        match value.get_mut() {
            DeValue::String(text) if text.contains("${") => match expand(text, env) {
                Ok(expanded) => *text = expanded.into(),
                Err(message) => problems.push(self.problem(Some(span), message, None)),
            },
            DeValue::Array(array) => {
                for inner in array.iter_mut() {
                    self.substitute_value(inner, env, problems);
                }
            }
            DeValue::Table(table) => self.substitute(table, env, problems),
            _ => {}
        }
    }
}

fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if let Some(before) = rest[..at].strip_suffix('$') {
            expanded += before;
            expanded += "${";
            rest = &rest[at + 2..];
            continue;
        }
        expanded += &rest[..at];
        let (name, after) = rest[at + 2..]
            .split_once('}')
            .ok_or_else(|| "`${` without its `}` (write `$${` for a plain `${`)".to_owned())?;
        expanded +=
            &env(name).ok_or_else(|| format!("the environment variable `{name}` is not set"))?;
        rest = after;
    }
    expanded += rest;
    Ok(expanded)
}

/// The key that an error says is missing.
fn missing(error: &toml::de::Error) -> Option<&str> {
    Some(error.message().strip_prefix("missing field `")?.trim_end_matches('`'))
}

/// Takes out the key or element at `span`, and gives the key that it stood under.
fn remove(table: &mut DeTable<'_>, span: &Range<usize>) -> Option<String> {
    let found = table
        .iter()
        .find(|(key, value)| key.span() == *span || value.span() == *span)
        .map(|(key, _)| key.clone());
    if let Some(key) = found {
        table.remove(&key);
        return Some(key.into_inner().into_owned());
    }
    table.iter_mut().find_map(|(key, value)| remove_inside(key.get_ref(), value, span))
}

fn remove_inside(
    key: &str,
    value: &mut Spanned<DeValue<'_>>,
    span: &Range<usize>,
) -> Option<String> {
    match value.get_mut() {
        DeValue::Table(table) => remove(table, span),
        DeValue::Array(array) => {
            if array.iter().any(|inner| inner.span() == *span) {
                let mut rest = DeArray::new();
                for inner in array.iter().filter(|inner| inner.span() != *span) {
                    rest.push(inner.clone());
                }
                *array = rest;
                return Some(key.to_owned());
            }
            array.iter_mut().find_map(|inner| remove_inside(key, inner, span))
        }
        _ => None,
    }
}

fn lower_first(message: &str) -> String {
    let mut chars = message.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}
