//! Which encoding of a stored response a client gets (RFC 9110 §8.4.1, §12.5.3), and what its head says then.
//!
//! On a route whose policy lists codings the next server is asked for the identity, whatever clients accept: one response
//! is stored for all, and its encodings are made of it here. What the origin encodes all the same is passed as it is.

use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    ETAG, HeaderName, IF_MATCH, IF_NONE_MATCH, IF_RANGE, VARY,
};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::fields::Lines;
use super::validator::{EntityTag, stored_tag};

/// Shorter bodies are not worth it: the head weighs more.
pub const MIN_LENGTH: u64 = 1 << 10;
/// Longer bodies are not encoded: one must not keep the encoders from all others.
pub const MAX_LENGTH: u64 = 16 << 20;

/// A content coding that we make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Coding {
    /// RFC 8878, in the window of RFC 9659.
    Zstd,
    /// RFC 7932.
    Br,
    /// RFC 1952.
    Gzip,
}

impl Coding {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Zstd, Self::Br, Self::Gzip];

    /// Its name in Content-Encoding.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Br => "br",
            Self::Gzip => "gzip",
        }
    }

    /// The coding of a name in the configuration.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|coding| coding.token() == name)
    }
}

/// What Accept-Encoding says, in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    codings: [Option<u16>; 3],
    identity: Option<u16>,
    any: Option<u16>,
}

impl Accepted {
    /// Of a request. Without the field everything is acceptable, and the identity is what a client that says nothing
    /// expects.
    pub fn of(request: &HeaderMap) -> Self {
        let mut accepted = Self::default();
        for line in request.get_all(ACCEPT_ENCODING) {
            for member in line.as_bytes().split(|b| *b == b',') {
                let mut parts = member.split(|b| *b == b';').map(<[u8]>::trim_ascii);
                let name = parts.next().unwrap_or_default().to_ascii_lowercase();
                let weight = parts.next().map_or(1000, weight);
                let place = match &name[..] {
                    b"zstd" => &mut accepted.codings[Coding::Zstd as usize],
                    b"br" => &mut accepted.codings[Coding::Br as usize],
                    b"gzip" | b"x-gzip" => &mut accepted.codings[Coding::Gzip as usize],
                    b"identity" => &mut accepted.identity,
                    b"*" => &mut accepted.any,
                    _ => continue,
                };
                place.get_or_insert(weight);
            }
        }
        accepted
    }

    /// The weight of a coding, 0 for one that is not accepted.
    pub fn weight(&self, coding: Coding) -> u16 {
        self.codings[coding as usize].or(self.any).unwrap_or(0)
    }

    /// The coding that the client likes best, of those that there are; among equals the first. `None`: the identity, where
    /// it is liked better, or no other is accepted.
    pub fn choose(&self, codings: &[Coding]) -> Option<Coding> {
        let mut best: Option<(Coding, u16)> = None;
        for coding in codings {
            let weight = self.weight(*coding);
            if weight > best.map_or(0, |(_, weight)| weight) {
                best = Some((*coding, weight));
            }
        }
        best.filter(|(_, weight)| *weight >= self.identity.unwrap_or(0)).map(|(coding, _)| coding)
    }
}

/// RFC 9110 §12.4.2. What is no weight counts as none: the client gets what needs no coding.
fn weight(parameter: &[u8]) -> u16 {
    let Some((b"q=" | b"Q=", value)) = parameter.split_at_checked(2) else { return 0 };
    let (whole, rest) = match value.split_first() {
        Some((b'0', rest)) => (0, rest),
        Some((b'1', rest)) => (1000, rest),
        _ => return 0,
    };
    let digits = match rest.split_first() {
        None => return whole,
        Some((b'.', digits)) if digits.len() <= 3 => digits,
        Some(_) => return 0,
    };
    let mut fraction = 0;
    let mut unit = 100;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return 0;
        }
        fraction += u16::from(digit - b'0') * unit;
        unit /= 10;
    }
    if whole == 1000 && fraction > 0 { 0 } else { whole + fraction }
}

/// Types beside `text/*`, `*+json` and `*+xml` whose content gets shorter.
const TYPES: [&str; 24] = [
    "application/ecmascript",
    "application/graphql",
    "application/javascript",
    "application/json",
    "application/postscript",
    "application/rtf",
    "application/sql",
    "application/toml",
    "application/vnd.ms-fontobject",
    "application/wasm",
    "application/x-httpd-php",
    "application/x-javascript",
    "application/x-ndjson",
    "application/x-sh",
    "application/x-yaml",
    "application/xml",
    "application/yaml",
    "font/collection",
    "font/otf",
    "font/ttf",
    "image/bmp",
    "image/vnd.microsoft.icon",
    "image/x-icon",
    "application/x-font-ttf",
];

/// Whether a response may be encoded here: a whole one, not encoded yet, of a type that gets shorter by it, not too
/// short, and nobody has said `no-transform` (RFC 9110 §7.7).
pub fn may_be_encoded(status: StatusCode, headers: &impl Lines) -> bool {
    let text = |value| std::str::from_utf8(value).ok();
    let length = headers.line(&CONTENT_LENGTH).and_then(|length| text(length)?.parse().ok());
    status == StatusCode::OK
        && !headers.has(&CONTENT_ENCODING)
        && !headers.has(&CONTENT_RANGE)
        && length.is_none_or(|length: u64| (MIN_LENGTH..=MAX_LENGTH).contains(&length))
        && headers.line(&CONTENT_TYPE).is_some_and(gets_shorter)
        && !lists(headers, &CACHE_CONTROL, b"no-transform")
}

fn gets_shorter(content_type: &[u8]) -> bool {
    let essence = content_type.split(|b| *b == b';').next().unwrap_or_default();
    let essence = essence.trim_ascii().to_ascii_lowercase();
    let Ok(essence) = std::str::from_utf8(&essence) else { return false };
    match essence.split_once('/') {
        // An endless one, that must not wait for its end.
        Some(("text", "event-stream")) => false,
        Some(("text", _)) => true,
        Some((_, subtype)) => {
            subtype.ends_with("+json") || subtype.ends_with("+xml") || TYPES.contains(&essence)
        }
        None => false,
    }
}

fn lists(headers: &impl Lines, name: &HeaderName, wanted: &[u8]) -> bool {
    headers
        .lines(name)
        .flat_map(|line| line.split(|b| *b == b','))
        .any(|member| member.trim_ascii().eq_ignore_ascii_case(wanted))
}

/// Says that other clients may get another encoding (RFC 9110 §12.5.5): on the identity, too, and on every 304.
pub fn mark(headers: &mut HeaderMap) {
    if !lists(headers, &VARY, b"accept-encoding") && !lists(headers, &VARY, b"*") {
        headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}

/// Whether responses with these fields come in more than one encoding.
pub fn is_marked(headers: &impl Lines) -> bool {
    lists(headers, &VARY, b"accept-encoding")
}

/// The tag of an encoding: it differs from the identity's, because the bytes do (RFC 9110 §8.8.3.3).
fn tag_of(tag: EntityTag<'_>, coding: Coding) -> Option<HeaderValue> {
    let mut text = Vec::with_capacity(tag.opaque.len() + 10);
    text.extend_from_slice(if tag.weak { b"W/\"" } else { b"\"" });
    text.extend_from_slice(tag.opaque);
    text.push(b'-');
    text.extend_from_slice(coding.token().as_bytes());
    text.push(b'"');
    HeaderValue::from_bytes(&text).ok()
}

/// The fields of an encoding of `length` bytes; none known: of a 304 or an answer to HEAD that tells no length.
pub fn encoded(identity: &impl Lines, coding: Coding, length: Option<u64>) -> HeaderMap {
    // Digests of other bytes.
    const DIGESTS: [&str; 4] = ["content-digest", "content-md5", "digest", "repr-digest"];
    let mut headers = identity.to_header_map();
    for name in DIGESTS {
        headers.remove(name);
    }
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.token()));
    match length {
        Some(length) => headers.insert(CONTENT_LENGTH, HeaderValue::from(length)),
        None => headers.remove(CONTENT_LENGTH),
    };
    match stored_tag(identity).and_then(|tag| tag_of(tag, coding)) {
        Some(tag) => headers.insert(ETAG, tag),
        None => headers.remove(ETAG),
    };
    mark(&mut headers);
    headers
}

/// The encoding whose tag the request's conditions name: `Some(None)` for the identity; `None` where they name none. The
/// client has it already, whole or in part: it is validated, or goes on, in that one, where it still accepts it.
pub fn named(
    request: &HeaderMap,
    identity: &impl Lines,
    chosen: Option<Coding>,
    codings: &[Coding],
) -> Option<Option<Coding>> {
    const CONDITIONS: [HeaderName; 3] = [IF_NONE_MATCH, IF_MATCH, IF_RANGE];
    if !CONDITIONS.iter().any(|name| request.contains_key(name)) {
        return None;
    }
    let tag = stored_tag(identity)?;
    let accepted = Accepted::of(request);
    let others = codings.iter().copied().filter(|coding| accepted.weight(*coding) > 0).map(Some);
    let all = std::iter::once(chosen).chain(others).chain([None]);
    let is_named = |coding: &Option<Coding>| {
        let own = match coding {
            Some(coding) => tag_of(tag, *coding),
            None => identity.line(&ETAG).and_then(|tag| HeaderValue::from_bytes(tag).ok()),
        };
        let own = own.as_ref().and_then(|own| EntityTag::parse(own.as_bytes()));
        let Some((own, _)) = own else { return false };
        CONDITIONS
            .iter()
            .any(|name| request.get_all(name).iter().any(|line| names(line.as_bytes(), own.opaque)))
    };
    all.into_iter().find(is_named)
}

fn names(mut list: &[u8], opaque: &[u8]) -> bool {
    while !list.is_empty() {
        list = match EntityTag::parse(list.trim_ascii_start()) {
            Some((tag, _)) if tag.opaque == opaque => return true,
            Some((_, rest)) => rest,
            None => list,
        };
        list = match list.iter().position(|b| *b == b',') {
            Some(comma) => &list[comma + 1..],
            None => &[],
        };
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use Coding::{Br, Gzip, Zstd};

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn accepting(value: &str) -> Accepted {
        Accepted::of(&headers(&[("accept-encoding", value)]))
    }

    /// RFC 9110 §12.5.3, with its examples.
    #[test]
    fn rfc9110_12_5_3_what_a_client_accepts() {
        let all = [Zstd, Br, Gzip];
        assert_eq!(Accepted::of(&HeaderMap::new()).choose(&all), None);
        for (value, expected) in [
            ("", None),
            ("compress, gzip", Some(Gzip)),
            ("*", Some(Zstd)),
            ("compress;q=0.5, gzip;q=1.0", Some(Gzip)),
            ("gzip;q=1.0, identity; q=0.5, *;q=0", Some(Gzip)),
            ("gzip, deflate, br, zstd", Some(Zstd)),
            ("gzip, deflate, br", Some(Br)),
            ("GZIP;Q=0.5 , bR; q=0.4", Some(Gzip)),
            ("x-gzip", Some(Gzip)),
            ("identity", None),
            ("identity;q=1, gzip;q=0.9", None),
            ("identity;q=0.9, gzip;q=0.9", Some(Gzip)),
            ("identity;q=0, br", Some(Br)),
            ("identity;q=0", None),
            ("*;q=0", None),
            ("*;q=0, br;q=0.001", Some(Br)),
            ("zstd;q=0, *", Some(Br)),
            ("gzip;q=0", None),
            ("br;q=1.001", None),
            ("br;q=2", None),
            ("br;q=.5", None),
            ("br;q=0.1234", None),
            ("br;q=1.", Some(Br)),
            ("br;level=5", None),
            ("br;q=0, br", None),
            ("deflate, ,;q=1,br;q=0.7,", Some(Br)),
        ] {
            assert_eq!(accepting(value).choose(&all), expected, "{value}");
        }
        let two = headers(&[("accept-encoding", "gzip"), ("accept-encoding", "br")]);
        assert_eq!(Accepted::of(&two).choose(&all), Some(Br));
        assert_eq!(accepting("gzip, br").choose(&[Gzip, Br]), Some(Gzip), "the policy's order");
        assert_eq!(accepting("gzip, br").choose(&[]), None);
    }

    /// RFC 9110 §7.7, and what is not worth it.
    #[test]
    fn rfc9110_7_7_what_may_be_encoded() {
        const TEXT: (&str, &str) = ("content-type", "text/css");
        const LONG: (&str, &str) = ("content-length", "2000");
        for (status, fields, expected) in [
            (200, &[TEXT, LONG][..], true),
            (200, &[TEXT], true),
            (200, &[LONG], false),
            (206, &[TEXT, LONG], false),
            (404, &[TEXT, LONG], false),
            (200, &[TEXT, ("content-length", "1023")], false),
            (200, &[TEXT, ("content-length", "16777217")], false),
            (200, &[TEXT, LONG, ("content-encoding", "gzip")], false),
            (200, &[TEXT, LONG, ("cache-control", "max-age=60, No-Transform")], false),
            (200, &[TEXT, LONG, ("cache-control", "max-age=60")], true),
            (200, &[TEXT, LONG, ("content-range", "bytes 0-1/2")], false),
            (200, &[("content-type", "Application/LD+JSON; charset=utf-8"), LONG], true),
            (200, &[("content-type", "image/svg+xml"), LONG], true),
            (200, &[("content-type", "application/wasm"), LONG], true),
            (200, &[("content-type", "image/png"), LONG], false),
            (200, &[("content-type", "font/woff2"), LONG], false),
            (200, &[("content-type", "text/event-stream"), LONG], false),
            (200, &[("content-type", "text"), LONG], false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(may_be_encoded(status, &headers(fields)), expected, "{status} {fields:?}");
        }
    }

    /// RFC 9110 §8.8.3.3: each encoding has a tag of its own; §12.5.5: all of them say Vary.
    #[test]
    fn rfc9110_8_8_3_3_the_head_of_an_encoding() {
        let identity = headers(&[
            ("etag", "\"a\""),
            ("content-length", "2000"),
            ("vary", "accept-language"),
            ("repr-digest", "sha-256=:AA==:"),
            ("content-type", "text/css"),
        ]);
        let made = encoded(&identity, Br, Some(500));
        assert_eq!(made["etag"], "\"a-br\"");
        assert_eq!(
            (&made["content-encoding"], &made["content-length"]),
            (&"br".parse().unwrap(), &"500".parse().unwrap())
        );
        let vary: Vec<_> = made.get_all("vary").iter().collect();
        assert_eq!(vary, ["accept-language", "Accept-Encoding"]);
        assert!(!made.contains_key("repr-digest") && made.contains_key("content-type"));
        assert_eq!(encoded(&headers(&[("etag", "W/\"a\"")]), Zstd, None)["etag"], "W/\"a-zstd\"");
        assert!(!encoded(&headers(&[("etag", "junk")]), Gzip, None).contains_key("etag"));
        for (vary, marked) in [("*", "*"), ("a, ACCEPT-encoding", "a, ACCEPT-encoding")] {
            let mut fields = headers(&[("vary", vary)]);
            mark(&mut fields);
            assert_eq!(fields.get_all("vary").iter().collect::<Vec<_>>(), [marked]);
        }
    }

    /// RFC 9110 §13.1: a client's condition is about the encoding that it has.
    #[test]
    fn rfc9110_13_1_the_encoding_that_a_condition_names() {
        let identity = headers(&[("etag", "\"a\"")]);
        let all = [Zstd, Br, Gzip];
        for (condition, value, expected) in [
            ("if-none-match", "\"a-br\"", Some(Some(Br))),
            ("if-none-match", "W/\"a-br\"", Some(Some(Br))),
            ("if-none-match", "\"x\", \"a-gzip\"", Some(Some(Gzip))),
            ("if-none-match", "\"a\", \"a-br\"", Some(Some(Br))),
            ("if-none-match", "\"a\"", Some(None)),
            ("if-none-match", "\"a-zstd\"", None),
            ("if-none-match", "\"b-br\"", None),
            ("if-none-match", "*", None),
            ("if-none-match", "junk,, \"a\"", Some(None)),
            ("if-range", "\"a-gzip\"", Some(Some(Gzip))),
            ("if-range", "Sun, 06 Nov 1994 08:49:37 GMT", None),
            ("if-match", "\"a\"", Some(None)),
        ] {
            let request = headers(&[("accept-encoding", "br, gzip"), (condition, value)]);
            assert_eq!(
                named(&request, &identity, Some(Br), &all),
                expected,
                "{condition}: {value}"
            );
        }
        let without = headers(&[("accept-encoding", "br")]);
        assert_eq!(named(&without, &identity, Some(Br), &all), None);
        let request = headers(&[("if-none-match", "\"a-br\"")]);
        assert_eq!(named(&request, &identity, None, &all), None, "no longer accepted");
    }

    proptest! {
        #[test]
        fn nothing_panics(value in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let mut fields = HeaderMap::new();
                for name in ["accept-encoding", "if-none-match", "content-type", "vary", "etag", "cache-control"] {
                    fields.insert(name, value.clone());
                }
                let _ = Accepted::of(&fields).choose(&Coding::ALL);
                let _ = may_be_encoded(StatusCode::OK, &fields);
                let _ = named(&fields, &headers(&[("etag", "\"a\"")]), Some(Br), &Coding::ALL);
                let _ = encoded(&fields, Br, None);
            }
        }

        /// A coding is chosen only if it is accepted.
        #[test]
        fn what_is_chosen_is_accepted(value in "(zstd|br|gzip|\\*|identity|deflate)(;q=[01](\\.[0-9]{0,3})?)?(, ?(zstd|br|gzip|\\*|identity)(;q=0(\\.[0-9]{0,3})?)?){0,3}") {
            let accepted = accepting(&value);
            if let Some(coding) = accepted.choose(&Coding::ALL) {
                prop_assert!(accepted.weight(coding) > 0);
            }
        }
    }
}
