//! One file of the configuration: its text, and where in it things stand.
//!
//! A [`Spec`] carries no places. A problem names the path of what it is about (`site.www.routes[0].origin`), and the
//! document finds the path in its text.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, Deserializer};

use super::MAX_PROBLEMS;
use super::problem::{Place, Problem, Severity, nearest};
use super::spec::Spec;

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
    /// Where everything stands.
    spans: Spans,
    /// Where mistakes were found when it was read: what [`super::check`] finds there follows from them.
    broken: Vec<Range<usize>>,
    /// Keys at the top that are none. What stands under them would have names.
    unknown: Vec<String>,
}

/// Whether a path's key or its value is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Key,
    Value,
}

impl Document {
    pub(super) const fn new(file: PathBuf, text: String) -> Self {
        let spans = Spans { span: 0..0, inner: Inner::Value };
        Self { file, text, spans, broken: Vec::new(), unknown: Vec::new() }
    }

    /// What the file says, as far as it can be understood, and all that is wrong with it.
    ///
    /// After a mistake the value that has it is taken out and the rest is read, so that all mistakes are found at once.
    pub(super) fn read(&mut self, env: &dyn Fn(&str) -> Option<String>) -> (Spec, Vec<Problem>) {
        let text = std::mem::take(&mut self.text);
        let result = self.read_text(&text, env);
        self.text = text;
        result
    }

    fn read_text(
        &mut self,
        text: &str,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> (Spec, Vec<Problem>) {
        let (mut table, errors) = DeTable::parse_recoverable(text);
        self.spans = Spans::of_table(table.span(), table.get_ref());
        if !errors.is_empty() {
            // What a broken line leaves behind is guesswork: its other mistakes may not be real.
            return (Spec::default(), self.syntax(text, &errors));
        }
        let mut problems = Vec::new();
        self.substitute(text, table.get_mut(), env, &mut problems);
        let mut removed: Vec<Removed> = Vec::new();
        for _ in 0..MAX_PROBLEMS {
            let error = match Spec::deserialize(Deserializer::from(table.clone())) {
                Ok(spec) => return (spec, problems),
                Err(error) => error,
            };
            // A key that was taken out here, or is there with a slip in its name, is not missing.
            let is_known = missing(&error).is_some_and(|key| {
                removed.iter().any(|removed| {
                    error.span() == removed.from && (removed.key == key || removed.meant == key)
                })
            });
            let (message, note, meant) = translate(&error, text);
            if !is_known {
                problems.push(self.problem(text, error.span(), message, note));
            }
            match error.span().and_then(|span| remove(table.get_mut(), None, &span)) {
                Some((key, from)) => {
                    if from.is_none() {
                        self.unknown.push(key.clone());
                    }
                    removed.push(Removed { key, meant: meant.unwrap_or_default(), from });
                }
                None => break,
            }
        }
        (Spec::default(), problems)
    }

    /// Mistakes that are not TOML. A mistake often has others follow from it: one is shown for a line, and one for a
    /// table that stands twice.
    fn syntax(&mut self, text: &str, errors: &[toml::de::Error]) -> Vec<Problem> {
        let mut problems: Vec<Problem> = Vec::new();
        let mut in_second_table = false;
        for error in errors {
            let duplicate = error.message() == "duplicate key";
            let problem = self.problem(text, error.span(), lower_first(error.message()), None);
            let header = problem
                .place
                .as_ref()
                .is_some_and(|place| place.text.trim_start().starts_with('['));
            if duplicate && in_second_table && !header {
                continue;
            }
            in_second_table = duplicate && header;
            let line = |problem: &Problem| problem.place.as_ref().map(|place| place.line);
            if problems.iter().all(|shown| line(shown) != line(&problem)) {
                problems.push(problem);
            }
            if problems.len() == MAX_PROBLEMS {
                break;
            }
        }
        problems
    }

    /// Whether the file has a table of this kind, of this name where one is given, though perhaps not one that could be
    /// read.
    pub(super) fn mentions(&self, table: &str, name: Option<&str>) -> bool {
        std::iter::once(table).chain(self.unknown.iter().map(String::as_str)).any(|table| {
            let path: Vec<Step> =
                [Some(table), name].into_iter().flatten().map(Step::from).collect();
            self.span(&path, Part::Key).is_some()
        })
    }

    /// Whether something was found wrong at or in this span when the file was read.
    pub(super) fn is_broken(&self, span: &Range<usize>) -> bool {
        self.broken.iter().any(|broken| broken.start < span.end && span.start < broken.end)
    }

    /// A problem at `path`, if the path begins in this file. The deepest part of it that is there is pointed at.
    pub(super) fn place(&self, path: &[Step], part: Part) -> Option<(Range<usize>, Place)> {
        let span = self.span(path, part)?;
        let place = Place::of(&self.text, &span);
        Some((span, place))
    }

    fn span(&self, path: &[Step], part: Part) -> Option<Range<usize>> {
        let (first, rest) = path.split_first()?;
        let (mut span, mut value) = self.spans.step(first)?;
        for (at, step) in rest.iter().enumerate() {
            let Some((key, inner)) = value.step(step) else {
                // A table of the same kind in another file may have it.
                if at == 0 && matches!(value.inner, Inner::Table(_)) {
                    return None;
                }
                break;
            };
            let last = at + 1 == rest.len();
            let is_value = part == Part::Value && !matches!(inner.inner, Inner::Table(_));
            span = if last && is_value { &inner.span } else { key };
            value = inner;
        }
        Some(span.clone())
    }

    fn problem(
        &mut self,
        text: &str,
        span: Option<Range<usize>>,
        message: String,
        note: Option<String>,
    ) -> Problem {
        self.broken.extend(span.clone());
        Problem {
            severity: Severity::Error,
            message,
            note,
            place: span.map(|span| Place::of(text, &span)),
            file: self.file.clone(),
        }
    }

    /// `${NAME}` in strings becomes the environment's value; `$${` stands for `${`.
    fn substitute(
        &mut self,
        whole: &str,
        table: &mut DeTable<'_>,
        env: &dyn Fn(&str) -> Option<String>,
        problems: &mut Vec<Problem>,
    ) {
        for (_, value) in table.iter_mut() {
            self.substitute_value(whole, value, env, problems);
        }
    }

    fn substitute_value(
        &mut self,
        whole: &str,
        value: &mut Spanned<DeValue<'_>>,
        env: &dyn Fn(&str) -> Option<String>,
        problems: &mut Vec<Problem>,
    ) {
        let span = value.span();
        match value.get_mut() {
            DeValue::String(text) if text.contains("${") => match expand(text, env) {
                Ok(expanded) => *text = expanded.into(),
                Err(message) => problems.push(self.problem(whole, Some(span), message, None)),
            },
            DeValue::Array(array) => {
                for inner in array.iter_mut() {
                    self.substitute_value(whole, inner, env, problems);
                }
            }
            DeValue::Table(table) => self.substitute(whole, table, env, problems),
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

/// A value: where it stands, and what is in it.
#[derive(Clone, Debug)]
struct Spans {
    span: Range<usize>,
    inner: Inner,
}

#[derive(Clone, Debug)]
enum Inner {
    /// Keys, and where each of them stands.
    Table(BTreeMap<String, (Range<usize>, Spans)>),
    List(Vec<Spans>),
    Value,
}

impl Spans {
    fn of_table(span: Range<usize>, table: &DeTable<'_>) -> Self {
        let keys = table.iter().map(|(key, value)| {
            (key.get_ref().clone().into_owned(), (key.span(), Self::of(value)))
        });
        Self { span, inner: Inner::Table(keys.collect()) }
    }

    fn of(value: &Spanned<DeValue<'_>>) -> Self {
        let span = value.span();
        match value.get_ref() {
            DeValue::Table(table) => Self::of_table(span, table),
            DeValue::Array(list) => {
                Self { span, inner: Inner::List(list.iter().map(Self::of).collect()) }
            }
            _ => Self { span, inner: Inner::Value },
        }
    }

    /// Where the step's key or element stands, and its value.
    fn step(&self, step: &Step) -> Option<(&Range<usize>, &Self)> {
        match (step, &self.inner) {
            (Step::Key(name), Inner::Table(table)) => {
                table.get(name).map(|(key, value)| (key, value))
            }
            (Step::Index(index), Inner::List(list)) => {
                list.get(*index).map(|value| (&value.span, value))
            }
            _ => None,
        }
    }
}

/// What was taken out of the file to read the rest.
struct Removed {
    key: String,
    /// The known key that was probably meant.
    meant: String,
    /// Where the table stands that had it; none for the file as a whole.
    from: Option<Range<usize>>,
}

/// serde's words in ours: the message, a note, and the key that was probably meant.
fn translate(error: &toml::de::Error, text: &str) -> (String, Option<String>, Option<String>) {
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
        let near = nearest(name, known.iter().copied()).map(str::to_owned);
        let hint = near.as_ref().map(|near| format!("; did you mean `{near}`?"));
        known.sort_unstable();
        let note = match known.is_empty() {
            true => "there are no known keys here".to_owned(),
            false => format!("{note}: {}", known.join(", ")),
        };
        return (format!("{ours} `{name}`{}", hint.unwrap_or_default()), Some(note), near);
    }
    if let Some(name) = missing(error) {
        return (format!("the key `{name}` is missing"), None, None);
    }
    let written = || {
        let value = error.span().and_then(|span| text.get(span)).unwrap_or("this");
        value.trim_matches(['"', '\'']).to_owned()
    };
    let message = match message {
        "invalid socket address syntax" => format!(
            "`{}` is not an address with a port: write \"192.0.2.1:80\" or \"[2001:db8::1]:80\"",
            written()
        ),
        "invalid IP address syntax" => {
            format!("`{}` is not an IP address: write \"192.0.2.1\" or \"2001:db8::1\"", written())
        }
        "wanted string or table" => "expected a string".to_owned(),
        other => match other.split_once("expected ") {
            Some((found, expected)) => {
                format!("{}expected {}", lower_first(found), plain(expected))
            }
            None => lower_first(other),
        },
    };
    (message, None, None)
}

/// What serde expects, for people who do not write Rust.
fn plain(expected: &str) -> &str {
    match expected {
        "a sequence" => "a list",
        "a map" => "a table",
        "socket address" => "an address with a port, such as \"127.0.0.1:8053\"",
        "i8" => "a whole number from -128 to 127",
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "f64" => "a number",
        other if other.starts_with("struct ") => "a table",
        other => other,
    }
}

/// The key that an error says is missing.
fn missing(error: &toml::de::Error) -> Option<&str> {
    Some(error.message().strip_prefix("missing field `")?.trim_end_matches('`'))
}

/// Takes out the key or element at `span`. Gives the key that it stood under, and where the table with that key is.
fn remove(
    table: &mut DeTable<'_>,
    at: Option<&Range<usize>>,
    span: &Range<usize>,
) -> Option<(String, Option<Range<usize>>)> {
    let found = table
        .iter()
        .find(|(key, value)| key.span() == *span || value.span() == *span)
        .map(|(key, _)| key.clone());
    if let Some(key) = found {
        table.remove(&key);
        return Some((key.into_inner().into_owned(), at.cloned()));
    }
    table.iter_mut().find_map(|(key, value)| remove_inside(key.get_ref(), value, span))
}

fn remove_inside(
    key: &str,
    value: &mut Spanned<DeValue<'_>>,
    span: &Range<usize>,
) -> Option<(String, Option<Range<usize>>)> {
    let at = value.span();
    match value.get_mut() {
        DeValue::Table(table) => remove(table, Some(&at), span),
        DeValue::Array(array) => {
            if array.iter().any(|inner| inner.span() == *span) {
                let mut rest = DeArray::new();
                for inner in array.iter().filter(|inner| inner.span() != *span) {
                    rest.push(inner.clone());
                }
                *array = rest;
                return Some((key.to_owned(), Some(at)));
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
