//! Lines of JSON: our own access log, and what nginx, Caddy, Varnish, Cloudflare, Fastly and others are told to write.
//! One object a line, flat; fields are found by their names in any case, nested ones and unknown ones are not looked at.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use shared::time::UnixMillis;

use super::{Handling, Raw, bytes, combined, cut, status, target, when};

/// Which of a request's facts a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fact {
    Time,
    Host,
    /// Path, path and query, or a whole URL.
    Path,
    Query,
    /// `GET /path HTTP/1.1`
    RequestLine,
    Method,
    Status,
    Bytes,
    Handling,
}

/// The names that fields go by, those of our own log first.
const NAMES: &[(Fact, &[&str])] = &[
    (
        Fact::Time,
        &[
            "time",
            "timestamp",
            "@timestamp",
            "ts",
            "time_iso8601",
            "time_local",
            "msec",
            "date",
            "datetime",
            "EdgeStartTimestamp",
            "start_time",
        ],
    ),
    (
        Fact::Host,
        &[
            "host",
            "http_host",
            "server_name",
            "vhost",
            "request_host",
            "domain",
            "ClientRequestHost",
            "cs-host",
        ],
    ),
    (
        Fact::Path,
        &[
            "path",
            "uri",
            "url",
            "request_uri",
            "request_path",
            "request_url",
            "ClientRequestURI",
            "key",
            "object",
            "id",
            "cs-uri-stem",
        ],
    ),
    (Fact::Query, &["query", "args", "query_string", "querystring", "cs-uri-query"]),
    (Fact::RequestLine, &["request", "request_line"]),
    (Fact::Method, &["method", "request_method", "verb", "ClientRequestMethod", "cs-method"]),
    (
        Fact::Status,
        &[
            "status",
            "status_code",
            "response_status",
            "response_code",
            "code",
            "EdgeResponseStatus",
            "sc-status",
        ],
    ),
    (
        Fact::Bytes,
        &[
            "bytes",
            "body_bytes_sent",
            "bytes_sent",
            "size",
            "response_size",
            "response_bytes",
            "resp_size",
            "response_body_size",
            "object_size",
            "EdgeResponseBytes",
            "sc-bytes",
            "length",
        ],
    ),
    (
        Fact::Handling,
        &[
            "cache",
            "upstream_cache_status",
            "cache_status",
            "cache_result",
            "handling",
            "CacheCacheStatus",
            "x_cache",
            "x-cache",
            "x-edge-result-type",
            "fastly_info_state",
        ],
    ),
];

fn fact(name: &str) -> Option<Fact> {
    let known = |names: &&[&str]| names.iter().any(|known| known.eq_ignore_ascii_case(name));
    NAMES.iter().find(|(_, names)| known(names)).map(|(fact, _)| *fact)
}

/// A value as a text, whatever its type; `null` and nested ones are none.
struct Text<'a>(Option<Cow<'a, str>>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Text(Some(Cow::Borrowed(text))))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Text(Some(Cow::Owned(text.to_owned()))))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Text(Some(Cow::Owned(number.to_string()))))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Text(Some(Cow::Owned(number.to_string()))))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Text(Some(Cow::Owned(format!("{number:.6}")))))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Text(None))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Text(None))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Text(None))
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Text(None))
    }
}

/// What was found of each fact: the first field that has it.
#[derive(Default)]
struct Facts<'a>([Option<Cow<'a, str>>; 9]);

impl<'a> Facts<'a> {
    fn get(&self, fact: Fact) -> Option<&str> {
        self.0.get(fact as usize)?.as_deref()
    }

    fn take(&mut self, fact: Fact) -> Option<Cow<'a, str>> {
        self.0.get_mut(fact as usize)?.take()
    }
}

struct FactsVisitor;

impl<'de> Visitor<'de> for FactsVisitor {
    type Value = Facts<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut facts = Facts::default();
        while let Some(Text(name)) = map.next_key::<Text<'de>>()? {
            let Some(fact) = name.as_deref().and_then(fact) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let Text(value) = map.next_value()?;
            if let Some(place) = facts.0.get_mut(fact as usize)
                && place.is_none()
            {
                *place = value;
            }
        }
        Ok(facts)
    }
}

/// A line, or what is wrong with it.
pub fn parse(line: &str) -> Result<Raw<'_>, String> {
    let mut reader = serde_json::Deserializer::from_str(line);
    let facts = reader.deserialize_map(FactsVisitor).and_then(|facts| reader.end().map(|()| facts));
    let mut facts = facts.map_err(|error| format!("it is no object of JSON: {error}"))?;
    let time = facts.get(Fact::Time).ok_or("it has no time (`time`, `timestamp`, `ts`, …)")?;
    let at: UnixMillis = when::parse(time).ok_or_else(|| format!("`{}` is no time", cut(time)))?;
    let size = match facts.get(Fact::Bytes) {
        Some(text) => bytes(text.trim_end_matches(".000000"))?,
        None => return Err("it has no size (`bytes`, `body_bytes_sent`, `size`, …)".to_owned()),
    };
    let status = facts.get(Fact::Status).map(status).transpose()?;
    let handling = facts.get(Fact::Handling).map(Handling::of).unwrap_or_default();
    let line = facts.take(Fact::RequestLine);
    let (said, uri) = match (facts.take(Fact::Path), line) {
        (Some(path), _) => (None, path),
        (None, Some(line)) => {
            let (method, uri) = combined::words(&line)?;
            (Some(method.to_owned()), Cow::Owned(uri.to_owned()))
        }
        (None, None) => {
            return Err("it has no path (`path`, `uri`, `url`, `request`, …)".to_owned());
        }
    };
    let method =
        facts.take(Fact::Method).or_else(|| said.map(Cow::Owned)).unwrap_or(Cow::Borrowed("GET"));
    // A key that is no URL is as good as one.
    let (host, path) = match target(&uri) {
        Ok((host, path)) => (host.map(str::to_ascii_lowercase), Cow::Owned(path.to_owned())),
        Err(_) => (None, uri.clone()),
    };
    let host = host.map(Cow::Owned).or_else(|| facts.take(Fact::Host)).unwrap_or_default();
    let target = match facts.get(Fact::Query).map(|query| query.trim_start_matches('?')) {
        None | Some("" | "-") => path,
        // Some write the query twice.
        Some(_) if path.contains('?') => path,
        Some(query) => Cow::Owned(format!("{path}?{query}")),
    };
    Ok(Raw { at, host, target, method, status, size, handling })
}
