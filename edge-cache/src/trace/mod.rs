//! Access logs of caches and web servers, read as a stream of requests: what a user has before he has us.
//!
//! [`Reader`] takes a log line by line and gives the requests that a cache could have answered. Four forms are known: the
//! [`combined`] log format of nginx, Apache and varnishncsa, JSON lines ([`json`]: our own access log, and the common
//! names of fields), a table of time, key and size ([`csv`]). The form is recognised by the first line that has one. A
//! line that is none is counted, and the first ones are kept with their numbers and why; memory is bounded by the
//! longest line.
//!
//! What counts as a request for an object:
//! * GET and HEAD; any other method is left out, and counted as left out.
//! * A status that a cache may keep by default (RFC 9110 §15.1: 200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414,
//!   501) and 304; others are left out. So is what the log itself says was passed by its cache.
//! * The *size* is the content sent. HEAD and 304 have none of it: [`Request::size`] is `None`, the object is as large as
//!   its other requests say. For a 206 it is a part: the object is as large as the largest of its requests.
//! * The *key* is host, path and query as they stand in the log.

pub mod combined;
pub mod csv;
pub mod json;
pub mod when;
pub mod workload;

use std::borrow::Cow;

use http::StatusCode;
use serde::Serialize;
use shared::time::UnixMillis;
use xxhash_rust::xxh3::Xxh3;

use crate::semantics::freshness::is_heuristically_cacheable;

/// As many broken lines are kept with what is wrong with them.
const KEPT: usize = 10;
/// So much of a line is shown.
const SHOWN: usize = 60;
/// A longer line is broken, in bytes.
pub const LONGEST_LINE: usize = 64 << 10;

/// The form of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Common, combined, and either with the virtual host in front.
    Combined,
    /// An object of JSON a line.
    Json,
    /// Columns: time, key, size.
    Csv,
}

/// A request of the log that a cache could answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// When.
    pub at: UnixMillis,
    /// The host, empty where the log has none.
    pub host: Cow<'a, str>,
    /// Path and query; in a table, the key as it stands there.
    pub target: Cow<'a, str>,
    /// GET or HEAD.
    pub is_head: bool,
    /// The status; 200 where the log has none.
    pub status: u16,
    /// Bytes of content sent; none for HEAD and 304, which have none of the object's.
    pub size: Option<u64>,
    /// What the cache that wrote the log made of it, where it says so: whether the store answered.
    pub hit: Option<bool>,
}

impl Request<'_> {
    /// What two requests for one object have in common.
    pub fn key(&self) -> u128 {
        let mut hasher = Xxh3::new();
        hasher.update(self.host.as_bytes());
        // No host has one.
        hasher.update(b"\n");
        hasher.update(self.target.as_bytes());
        hasher.digest128()
    }
}

/// What a line of any form says, as it stands there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raw<'a> {
    at: UnixMillis,
    host: Cow<'a, str>,
    target: Cow<'a, str>,
    method: Cow<'a, str>,
    status: Option<u16>,
    size: u64,
    handling: Handling,
}

/// What the cache that wrote the log made of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Handling {
    /// It does not say.
    #[default]
    Unknown,
    /// Answered from the store, stale and revalidated included.
    Hit,
    /// Fetched.
    Miss,
    /// Not for the cache.
    Passed,
}

impl Handling {
    /// The words of nginx, Varnish, Squid, Cloudflare, CloudFront, Fastly and of our own log.
    fn of(word: &str) -> Self {
        // Fastly's `HIT, MISS` and CloudFront's `Hit from cloudfront`; Squid's `TCP_MEM_HIT:HIER_NONE`.
        let first = word.split([',', ' ', ':']).next().unwrap_or_default();
        let plain = first.strip_prefix("TCP_").unwrap_or(first).trim_matches('"');
        let is = |names: &[&str]| names.iter().any(|name| plain.eq_ignore_ascii_case(name));
        const HITS: &[&str] = &[
            "hit",
            "stale",
            "updating",
            "revalidated",
            "refreshhit",
            "mem_hit",
            "refresh_hit",
            "refresh_unmodified",
            "ims_hit",
            "inm_hit",
            "originshieldhit",
            "streamhit",
        ];
        const MISSES: &[&str] = &[
            "miss",
            "expired",
            "refresh_modified",
            "refresh_miss",
            "client_refresh_miss",
            "swapfail_miss",
        ];
        const PASSED: &[&str] = &[
            "pass",
            "bypass",
            "dynamic",
            "none",
            "pipe",
            "tunnel",
            "synth",
            "error",
            "hit-for-pass",
            "hitmiss",
            "hitpass",
            "uncacheable",
        ];
        match () {
            () if is(HITS) => Self::Hit,
            () if is(MISSES) => Self::Miss,
            () if is(PASSED) => Self::Passed,
            () => Self::Unknown,
        }
    }
}

/// A line that is no request of the log's form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Broken {
    /// Its number, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub why: String,
    /// How it begins.
    pub text: String,
}

/// What became of the lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// All.
    pub lines: u64,
    /// Given as requests.
    pub requests: u64,
    /// Other methods than GET and HEAD.
    pub other_methods: u64,
    /// Statuses that no cache keeps by default.
    pub other_statuses: u64,
    /// By the log's own word not for the cache.
    pub passed: u64,
    /// Empty, a comment, or the head of a table.
    pub blank: u64,
    /// No request of the log's form.
    pub broken: u64,
}

/// Reads a log line by line.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    format: Option<Format>,
    columns: Option<csv::Columns>,
    counts: Counts,
    broken: Vec<Broken>,
}

impl Reader {
    /// Of this form; `None`: of the one that the first good line has.
    pub fn new(format: Option<Format>) -> Self {
        Self { format, ..Self::default() }
    }

    /// The form, once it is known.
    pub const fn format(&self) -> Option<Format> {
        self.format
    }

    /// What became of the lines so far.
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The first broken lines.
    pub fn broken(&self) -> &[Broken] {
        &self.broken
    }

    /// The next line, without its end. The request in it, if it has one that counts.
    pub fn line<'a>(&mut self, line: &'a str) -> Option<Request<'a>> {
        self.counts.lines += 1;
        let text = line.trim_start_matches('\u{feff}').trim();
        if text.is_empty() || text.starts_with('#') {
            self.counts.blank += 1;
            return None;
        }
        if line.len() > LONGEST_LINE {
            self.too_long(line);
            return None;
        }
        match self.parse(text) {
            Ok(Some(raw)) => self.judge(raw),
            Ok(None) => {
                self.counts.blank += 1;
                None
            }
            Err(why) => {
                self.complain(why, text);
                None
            }
        }
    }

    /// The next line is longer than [`LONGEST_LINE`]; this is how it begins.
    pub fn skip_long(&mut self, beginning: &str) {
        self.counts.lines += 1;
        self.too_long(beginning);
    }

    fn too_long(&mut self, beginning: &str) {
        self.complain(format!("it is longer than {} KiB", LONGEST_LINE >> 10), beginning);
    }

    fn complain(&mut self, why: String, text: &str) {
        self.counts.broken += 1;
        if self.broken.len() < KEPT {
            let shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
            self.broken.push(Broken { line: self.counts.lines, why, text: shown });
        }
    }

    /// `None`: the head of a table.
    fn parse<'a>(&mut self, text: &'a str) -> Result<Option<Raw<'a>>, String> {
        match self.format {
            Some(Format::Combined) => combined::parse(text).map(Some),
            Some(Format::Json) => json::parse(text).map(Some),
            Some(Format::Csv) => self.table(text),
            None => self.recognise(text),
        }
    }

    fn recognise<'a>(&mut self, text: &'a str) -> Result<Option<Raw<'a>>, String> {
        if text.starts_with('{') {
            let raw = json::parse(text)?;
            self.format = Some(Format::Json);
            return Ok(Some(raw));
        }
        if let Ok(raw) = combined::parse(text) {
            self.format = Some(Format::Combined);
            return Ok(Some(raw));
        }
        let raw = self.table(text).map_err(|_| {
            "it is neither a line of the combined log format, nor JSON, nor time, key and size"
                .to_owned()
        })?;
        self.format = Some(Format::Csv);
        Ok(raw)
    }

    fn table<'a>(&mut self, text: &'a str) -> Result<Option<Raw<'a>>, String> {
        if let Some(columns) = &self.columns {
            return columns.parse(text).map(Some);
        }
        if let Some(columns) = csv::Columns::of_head(text) {
            self.columns = Some(columns);
            return Ok(None);
        }
        let columns = csv::Columns::of_first_line(text);
        let raw = columns.parse(text)?;
        self.columns = Some(columns);
        Ok(Some(raw))
    }

    fn judge<'a>(&mut self, raw: Raw<'a>) -> Option<Request<'a>> {
        let is_head = raw.method.eq_ignore_ascii_case("HEAD");
        if !is_head && !raw.method.eq_ignore_ascii_case("GET") {
            self.counts.other_methods += 1;
            return None;
        }
        let status = raw.status.unwrap_or(200);
        let kept = StatusCode::from_u16(status).is_ok_and(|status| {
            matches!(status, StatusCode::NOT_MODIFIED | StatusCode::PARTIAL_CONTENT)
                || is_heuristically_cacheable(status)
        });
        if !kept {
            self.counts.other_statuses += 1;
            return None;
        }
        if raw.handling == Handling::Passed {
            self.counts.passed += 1;
            return None;
        }
        self.counts.requests += 1;
        let hit = match raw.handling {
            Handling::Hit => Some(true),
            Handling::Miss => Some(false),
            Handling::Unknown | Handling::Passed => None,
        };
        let size = (!is_head && status != 304).then_some(raw.size);
        Some(Request { at: raw.at, host: raw.host, target: raw.target, is_head, status, size, hit })
    }
}

/// Takes a request target apart: an absolute URL has its host in it. What is neither that nor a path, is no target of GET
/// or HEAD.
fn target(text: &str) -> Result<(Option<&str>, &str), String> {
    if text.starts_with('/') {
        return Ok((None, text));
    }
    let rest = ["http://", "https://"].iter().find_map(|scheme| {
        let (head, rest) = text.split_at_checked(scheme.len())?;
        head.eq_ignore_ascii_case(scheme).then_some(rest)
    });
    match rest {
        Some(rest) => {
            let at = rest.find(['/', '?']).unwrap_or(rest.len());
            let (host, path) = rest.split_at(at);
            Ok((Some(host), if path.is_empty() { "/" } else { path }))
        }
        None => Err(format!("`{}` is neither a path nor a URL", cut(text))),
    }
}

/// As much of a text as an error shows.
fn cut(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

/// Bytes, `-` for none.
fn bytes(text: &str) -> Result<u64, String> {
    match text {
        "-" => Ok(0),
        text => text.parse().map_err(|_| format!("`{}` is no number of bytes", cut(text))),
    }
}

/// A status.
fn status(text: &str) -> Result<u16, String> {
    let code: Option<u16> = text.parse().ok().filter(|code| (100..1000).contains(code));
    code.ok_or_else(|| format!("`{}` is no status", cut(text)))
}

#[cfg(test)]
mod tests;
