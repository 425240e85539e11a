//! A table of time, key and size: what research publishes, and what any log can be cut down to.
//!
//! Columns stand between commas, semicolons, tabs or blanks (the first line says which); in quotes they may hold them. A
//! first line of names may put the columns in another order: `time` or `timestamp`; `key`, `id`, `url`, `object` or
//! `path`; `size`, `bytes` or `length`. More columns are not looked at.

use std::borrow::Cow;

use super::{Handling, Raw, bytes, cut, target, when};

const TIMES: &[&str] = &["time", "timestamp", "ts", "date", "at"];
const KEYS: &[&str] = &["key", "id", "url", "object", "obj", "path", "uri", "obj_id", "object_id"];
const SIZES: &[&str] = &["size", "bytes", "length", "obj_size", "object_size"];

/// Where the columns are, and what is between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns {
    /// `None`: blanks, however many.
    separator: Option<char>,
    time: usize,
    key: usize,
    size: usize,
}

impl Columns {
    /// By a line of names; `None`: it is no such line.
    pub fn of_head(line: &str) -> Option<Self> {
        let separator = separator(line);
        let names: Vec<Cow<'_, str>> = fields(line, separator).collect();
        let find = |known: &[&str]| {
            names
                .iter()
                .position(|name| known.iter().any(|known| known.eq_ignore_ascii_case(name.trim())))
        };
        Some(Self { separator, time: find(TIMES)?, key: find(KEYS)?, size: find(SIZES)? })
    }

    /// Time, key and size, between what this line has between them.
    pub fn of_first_line(line: &str) -> Self {
        Self { separator: separator(line), time: 0, key: 1, size: 2 }
    }

    /// A line, or what is wrong with it.
    pub fn parse<'a>(&self, line: &'a str) -> Result<Raw<'a>, String> {
        let (mut time, mut key, mut size) = (None, None, None);
        let last = self.time.max(self.key).max(self.size);
        for (at, field) in fields(line, self.separator).enumerate().take(last + 1) {
            match at {
                at if at == self.time => time = Some(field),
                at if at == self.key => key = Some(field),
                at if at == self.size => size = Some(field),
                _ => {}
            }
        }
        let missing = || "it has not the three columns time, key and size".to_owned();
        let (time, key) = (time.ok_or_else(missing)?, key.ok_or_else(missing)?);
        let size = bytes(size.ok_or_else(missing)?.trim())?;
        let at = when::parse(&time).ok_or_else(|| format!("`{}` is no time", cut(&time)))?;
        if key.is_empty() {
            return Err("its key is empty".to_owned());
        }
        // A key that is no URL is as good as one.
        let (host, target) = match target(&key) {
            Ok((Some(host), path)) => {
                (Cow::Owned(host.to_ascii_lowercase()), Cow::Owned(path.to_owned()))
            }
            _ => (Cow::Borrowed(""), key),
        };
        let (method, handling) = (Cow::Borrowed("GET"), Handling::Unknown);
        Ok(Raw { at, host, target, method, status: None, size, handling })
    }
}

/// Those that are not blanks go before those that are.
fn separator(line: &str) -> Option<char> {
    ['\t', ',', ';'].into_iter().find(|separator| line.matches(*separator).count() >= 2)
}

fn fields(line: &str, separator: Option<char>) -> Fields<'_> {
    Fields { rest: Some(line), separator }
}

struct Fields<'a> {
    rest: Option<&'a str>,
    separator: Option<char>,
}

impl<'a> Iterator for Fields<'a> {
    type Item = Cow<'a, str>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.take()?;
        let Some(separator) = self.separator else {
            let rest = rest.trim_start();
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            let (field, after) = rest.split_at(end);
            self.rest = (!after.trim_start().is_empty()).then_some(after);
            return Some(Cow::Borrowed(field));
        };
        if let Some(inside) = rest.trim_start_matches(' ').strip_prefix('"') {
            let (field, after) = quoted(inside);
            self.rest = after.trim_start().strip_prefix(separator);
            return Some(field);
        }
        match rest.split_once(separator) {
            Some((field, after)) => {
                self.rest = Some(after);
                Some(Cow::Borrowed(field.trim()))
            }
            None => Some(Cow::Borrowed(rest.trim())),
        }
    }
}

/// The text before the closing quote, and what comes after it. RFC 4180: a quote in quotes is two.
fn quoted(inside: &str) -> (Cow<'_, str>, &str) {
    let mut text = Cow::Borrowed("");
    let mut rest = inside;
    while let Some((part, after)) = rest.split_once('"') {
        text += part;
        match after.strip_prefix('"') {
            Some(more) => {
                text += "\"";
                rest = more;
            }
            None => return (text, after),
        }
    }
    text += rest;
    (text, "")
}
