//! The parsers that stand before the cache, and what each keeps to whatever the bytes: used by libFuzzer and by the tests.

use edge_cache::admit::{self, Content, Head, MAX_HEAD};
use edge_cache::framing::{Event, Framing};
use edge_cache::key::{CacheKey, KeyRules, NamePattern, UrlParts, normalise_query};
use edge_cache::semantics::cache_control::{
    CacheControl, DELTA_MAX, MaxStale, for_each_listed_field,
};
use edge_cache::semantics::date;
use edge_cache::semantics::range::{self, ContentRange, Multipart, RangeSpec, Resolved};
use edge_cache::semantics::structured::{self, Item};
use edge_cache::semantics::vary::{Vary, VaryLists};
use http::header::{ACCEPT_LANGUAGE, CACHE_CONTROL, CONTENT_RANGE, HeaderName, RANGE, VARY};
use http::{HeaderMap, HeaderValue, Method, Uri, Version};

/// A target by its name, which is also its corpus'.
pub(super) struct Target {
    pub(super) name: &'static str,
    check: fn(&[u8]),
    /// Pieces that its mutants are made of.
    pub(super) words: &'static [&'static [u8]],
}

pub(super) const TARGETS: &[Target] = &[
    Target { name: "cache_control", check: cache_control, words: DIRECTIVES },
    Target {
        name: "vary",
        check: vary,
        words: &[b",", b"*", b"accept-encoding", b"\n", b"\"", b" "],
    },
    Target {
        name: "range",
        check: range,
        words: &[b"bytes=", b"-", b",", b"0-0", b"-1", b"18446744073709551615"],
    },
    Target {
        name: "dates",
        check: dates,
        words: &[b"GMT", b"Sun, ", b" 2026 ", b":60", b"Feb", b"29", b"-"],
    },
    Target {
        name: "structured",
        check: structured,
        words: &[b"=", b"\"", b"\\", b"?1", b";a", b"(", b")", b":", b", "],
    },
    Target {
        name: "url",
        check: url,
        words: &[b"%2e", b"%2F", b"/../", b"//", b"?", b"#", b"@", b"[::1]", b":80", b"&"],
    },
    Target { name: "framing", check: framing, words: REQUESTS },
];

/// Gives an input to the target of that name.
pub(super) fn target(name: &str, input: &[u8]) {
    for target in TARGETS.iter().filter(|target| target.name == name) {
        (target.check)(input);
    }
}

const DIRECTIVES: &[&[u8]] = &[
    b"max-age=",
    b"no-store",
    b"private=\"",
    b"\"",
    b",",
    b"=",
    b"\\",
    b"\n",
    b"2147483648",
    b"s-maxage",
    b"max-stale",
];
const REQUESTS: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\nHost: a\r\n",
    b"\r\n",
    b"\n",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"0\r\n\r\n",
    b"3\r\nabc\r\n",
    b";x=y",
    b" ",
    b"\t",
    b"\r",
    b"Host: b\r\n",
    b"http://a.test/",
];

/// The lines of a field, one for each line of the input, as far as they can stand in a field.
fn lines(name: HeaderName, input: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in input.split(|b| *b == b'\n').take(64) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(&name, value);
        }
    }
    headers
}

fn cache_control(input: &[u8]) {
    let mut headers = lines(CACHE_CONTROL, input);
    let cc = CacheControl::of(&headers);
    let numbers =
        [cc.max_age, cc.s_maxage, cc.stale_while_revalidate, cc.stale_if_error, cc.min_fresh];
    assert!(numbers.iter().flatten().all(|seconds| *seconds <= DELTA_MAX));
    for_each_listed_field(&headers, |name| {
        assert!(!name.is_empty() && !name.contains(&b','));
    });
    // What is said is found again in the plainest spelling of it.
    let printed = lines(CACHE_CONTROL, print(&cc).as_bytes());
    assert_eq!(CacheControl::of(&printed), cc);
    // In a quoted argument it says nothing (RFC 9110 §5.6.4).
    let quoted: Vec<u8> = input
        .iter()
        .filter(|b| **b != b'\n')
        .flat_map(|b| match b {
            b'"' | b'\\' => vec![b'\\', *b],
            b => vec![*b],
        })
        .collect();
    let hidden = lines(CACHE_CONTROL, &[b"x=\"", &quoted[..], b"\""].concat());
    if !hidden.is_empty() {
        let nothing = CacheControl { present: true, ..CacheControl::default() };
        assert_eq!(CacheControl::of(&hidden), nothing);
    }
    // One more line can only forbid.
    headers.append(CACHE_CONTROL, HeaderValue::from_static("no-store, max-age=0"));
    let more = CacheControl::of(&headers);
    assert!(more.no_store && more.max_age == Some(0));
    assert_eq!((more.public, more.s_maxage, more.private), (cc.public, cc.s_maxage, cc.private));
}

fn print(cc: &CacheControl) -> String {
    let mut all = Vec::new();
    let mut flag = |is: bool, name: &str| {
        if is {
            all.push(name.to_owned());
        }
    };
    flag(cc.present, "x");
    flag(cc.no_store, "no-store");
    flag(cc.no_cache, "no-cache");
    flag(cc.no_cache_fields, "no-cache=\"a\"");
    flag(cc.private, "private");
    flag(cc.private_fields, "private=\"a\"");
    flag(cc.public, "public");
    flag(cc.must_revalidate, "must-revalidate");
    flag(cc.proxy_revalidate, "proxy-revalidate");
    flag(cc.must_understand, "must-understand");
    flag(cc.no_transform, "no-transform");
    flag(cc.immutable, "immutable");
    flag(cc.only_if_cached, "only-if-cached");
    let mut number = |seconds: Option<u32>, name: &str| {
        if let Some(seconds) = seconds {
            all.push(format!("{name}={seconds}"));
        }
    };
    number(cc.max_age, "max-age");
    number(cc.s_maxage, "s-maxage");
    number(cc.stale_while_revalidate, "stale-while-revalidate");
    number(cc.stale_if_error, "stale-if-error");
    number(cc.min_fresh, "min-fresh");
    match cc.max_stale {
        Some(MaxStale::Any) => all.push("max-stale".to_owned()),
        Some(MaxStale::Seconds(seconds)) => all.push(format!("max-stale={seconds}")),
        None => {}
    }
    all.join(", ")
}

fn vary(input: &[u8]) {
    let of = Vary::of(&lines(VARY, input));
    let names = of.names();
    assert!(names.len() <= 32);
    assert!(names.windows(2).all(|pair| pair[0].as_str() < pair[1].as_str()));
    if let Vary::Fields(_) = &of {
        let text: Vec<&str> = names.iter().map(HeaderName::as_str).collect();
        assert_eq!(Vary::of(&lines(VARY, text.join(", ").as_bytes())), of);
    }
    // The input as what a request says: space around commas does not tell variants apart, anything else may.
    let by = Vary::of(&lines(VARY, b"accept-language"));
    let request = lines(ACCEPT_LANGUAGE, input);
    assert!(by.variant(&request).is_some() && by.variant(&request) == by.variant(&request.clone()));
    if !input.contains(&b'"') && !input.contains(&b'\n') {
        let spaced: Vec<u8> = input.split(|b| *b == b',').collect::<Vec<_>>().join(&b" ,\t"[..]);
        let spaced = lines(ACCEPT_LANGUAGE, &spaced);
        if !spaced.is_empty() && !request.is_empty() {
            assert_eq!(by.variant(&spaced), by.variant(&request));
        }
    }
    assert_ne!(by.variant(&HeaderMap::new()), Some(edge_cache::semantics::vary::VariantKey::NONE));
    let mut lists = VaryLists::default();
    for line in input.split(|b| *b == b'\n').take(64) {
        lists.note(&Vary::of(&lines(VARY, line)));
        assert!(lists.variants(&request).count() <= VaryLists::MAX);
    }
}

fn range(input: &[u8]) {
    // Two bytes of length, so that ranges meet it; the rest is Range.
    let (length, value) = input.split_at(input.len().min(2));
    let length = length.iter().fold(0u64, |sum, b| sum * 256 + u64::from(*b));
    let headers = lines(RANGE, value);
    if let Some(of) = headers.get(RANGE) {
        let content = HeaderMap::from_iter([(CONTENT_RANGE, of.clone())]);
        if let Some(ContentRange::Part { range, complete }) = ContentRange::of(&content) {
            assert!(
                range.start <= range.end && complete.is_none_or(|complete| range.end < complete)
            );
        }
    }
    let Some(specs) = range::parse(&headers) else { return };
    assert!(!specs.is_empty() && specs.len() <= range::MAX_RANGES);
    let printed: Vec<String> = specs
        .iter()
        .map(|spec| match spec {
            RangeSpec::From { first, last: Some(last) } => format!("{first}-{last}"),
            RangeSpec::From { first, last: None } => format!("{first}-"),
            RangeSpec::Suffix(length) => format!("-{length}"),
        })
        .collect();
    let again = lines(RANGE, format!("bytes={}", printed.join(",")).as_bytes());
    assert_eq!(range::parse(&again), Some(specs.clone()));
    let parts = match range::resolve(&specs, length) {
        Resolved::Full | Resolved::Unsatisfiable => return,
        Resolved::Single(part) => vec![part],
        Resolved::Multiple(parts) => parts,
    };
    let mut sorted = parts.clone();
    sorted.sort_by_key(|part| part.start);
    assert!(sorted.iter().all(|part| part.start <= part.end && part.end < length));
    // Neither overlapping nor touching: no byte is sent twice.
    assert!(sorted.windows(2).all(|pair| pair[0].end + 1 < pair[1].start));
    let frame = Multipart::new(1, None, length);
    let heads: u64 = parts.iter().map(|part| frame.part_head(*part).len() as u64).sum();
    let bytes: u64 = parts.iter().map(|part| part.length()).sum();
    assert_eq!(frame.content_length(&parts), heads + bytes + frame.end().len() as u64);
    for part in parts {
        let said = HeaderMap::from_iter([(CONTENT_RANGE, range::content_range(part, length))]);
        let expected = ContentRange::Part { range: part, complete: Some(length) };
        assert_eq!(ContentRange::of(&said), Some(expected));
    }
}

fn dates(input: &[u8]) {
    let Some(time) = date::parse(input) else { return };
    let printed = date::format(time);
    assert_eq!((printed.len(), date::parse(printed.as_bytes())), (29, Some(time)));
    // RFC 9110 §5.6.7: one of three forms, by their lengths and ends.
    let text = std::str::from_utf8(input).expect("a date is ASCII");
    // Any case of letters is taken (RFC 9111 §4.2).
    let gmt = text.to_ascii_lowercase().ends_with(" gmt");
    let imf = text.len() == 29 && gmt;
    let rfc850 = (30..=33).contains(&text.len()) && gmt;
    let asctime = text.len() == 24 && text.ends_with(|c: char| c.is_ascii_digit());
    assert!(imf || rfc850 || asctime, "{text}");
}

fn structured(input: &[u8]) {
    if let Some(members) = structured::parse_dictionary(input) {
        assert!((1..=128).contains(&members.len()));
        let plain = members
            .iter()
            .filter_map(|(key, item)| Some(((key.clone(), item.clone()), printed(item)?)));
        let (expected, texts): (Vec<_>, Vec<_>) = plain.unzip();
        let texts = expected.iter().zip(texts).map(|((key, _), text)| format!("{key}={text}"));
        let printed: Vec<String> = texts.collect();
        let again = structured::parse_dictionary(printed.join(", ").as_bytes());
        assert_eq!(again.unwrap_or_default(), expected);
    }
    if let Some(strings) = structured::parse_string_list(input) {
        let printed: Vec<String> = strings.iter().map(|text| quoted(text)).collect();
        assert_eq!(structured::parse_string_list(printed.join(",").as_bytes()), Some(strings));
    }
}

/// An item in its own spelling; `None` for what the cache does not look into.
fn printed(item: &Item) -> Option<String> {
    Some(match item {
        Item::Integer(number) => number.to_string(),
        Item::Boolean(value) => format!("?{}", i32::from(*value)),
        Item::Token(token) => token.clone(),
        Item::String(text) => quoted(text),
        Item::List(items) => {
            let items: Option<Vec<String>> = items.iter().map(printed).collect();
            format!("({})", items?.join(" "))
        }
        Item::Other => return None,
    })
}

fn quoted(text: &str) -> String {
    let mut out = String::new();
    structured::write_string(&mut out, text);
    out
}

fn url(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let rules = KeyRules {
        drop: vec![NamePattern::new("utm_*"), NamePattern::new("gclid")],
        ..KeyRules::default()
    };
    // The query is for itself, whatever stands before it.
    let query = normalise_query(Some(text), &rules);
    let again = normalise_query(query.as_deref(), &rules);
    assert_eq!(again, query);
    assert!(query.as_ref().is_none_or(|query| query.len() <= 3 * text.len() + 3));
    let Ok(parts) = UrlParts::new(text) else { return };
    let print = |parts: &UrlParts<'_>| {
        let query = parts.query.map_or(String::new(), |query| format!("?{query}"));
        format!("{}://{}{}{query}", parts.scheme, parts.authority, parts.path)
    };
    let printed = print(&parts);
    let same = UrlParts::new(&printed).expect("a normalised URL is one");
    assert_eq!((same.authority.as_ref(), same.path.as_ref()), (&*parts.authority, &*parts.path));
    assert!(parts.path.starts_with('/') && parts.authority.len() <= 300);
    assert!(!parts.path.split('/').any(|segment| segment == "." || segment == ".."));
    assert!(parts.path.bytes().all(|b| b.is_ascii_graphic()));
    assert!(printed.len() <= 3 * text.len() + 300);
    let key = CacheKey::of_url(text, &rules).expect("its parts are good");
    assert_eq!(CacheKey::of_url(&printed, &rules), Ok(key.clone()));
    assert_eq!(CacheKey::of_url(key.url(), &rules), Ok(key));
}

/// One head that was found: where it begins, its length, whether it may go on, and where the next one can begin.
type Found = Vec<(usize, usize, bool)>;

/// The heads in a stream of which the first `split` bytes come first.
fn heads(stream: &[u8], split: usize) -> Found {
    let mut framing = Framing::new(MAX_HEAD);
    let (mut at, mut known, mut found) = (0, split, Vec::new());
    let mut steps = 0;
    while at < stream.len() {
        steps += 1;
        assert!(steps <= 2 * stream.len() + 2, "no end");
        if at == known {
            known = stream.len();
            continue;
        }
        match framing.next(&stream[at..known]) {
            Event::Release(length) => {
                assert!(length > 0 && length <= known - at, "{length} of {}", known - at);
                at += length;
            }
            Event::Head { length, verdict } => {
                assert!(length > 0 && length <= known - at);
                found.push((at, length, verdict.is_ok()));
                at += length;
            }
            Event::More if known == stream.len() => break,
            Event::More => known = stream.len(),
            // Nothing more of this connection goes to the parser.
            Event::Broken => break,
        }
    }
    found
}

fn framing(input: &[u8]) {
    let found = heads(input, input.len());
    // However the bytes come in.
    for split in [1, input.len() / 2, input.len().saturating_sub(1)] {
        if split > 0 && split < input.len() {
            assert_eq!(heads(input, split), found, "split at {split}");
        }
    }
    for (number, (at, length, good)) in found.iter().enumerate() {
        let head = &input[*at..*at + *length];
        if !good {
            assert_eq!(number, found.len() - 1, "nothing is a request after one that is refused");
            break;
        }
        let Some(second) = second_opinion(head) else {
            // The parser behind refuses it, and closes.
            continue;
        };
        assert_eq!(second.length, head.len(), "where the head ends");
        let next = found.get(number + 1).map(|(next, ..)| *next);
        let end = second.body_end(&input[*at + *length..]).map(|end| at + length + end);
        if let (Some(next), Some(end)) = (next, end) {
            // Empty lines before a request line belong to it.
            assert_eq!(next, end, "where the content ends");
        }
        assert!(next.is_none() || end.is_some(), "content that does not end was passed over");
        admitted(&second);
    }
}

/// The head as httparse reads it.
struct Second {
    length: usize,
    method: String,
    target: String,
    version: u8,
    headers: HeaderMap,
}

fn second_opinion(head: &[u8]) -> Option<Second> {
    let mut fields = [httparse::EMPTY_HEADER; 128];
    let mut request = httparse::Request::new(&mut fields);
    let length = match request.parse(head) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => panic!("a head that is whole to us only"),
        Err(_) => return None,
    };
    let mut headers = HeaderMap::new();
    for field in request.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    Some(Second {
        length,
        method: request.method?.to_owned(),
        target: request.path?.to_owned(),
        version: request.version?,
        headers,
    })
}

impl Second {
    /// Where the content ends, by RFC 9112 §6.3 over httparse's fields and chunks. `None`: not in these bytes, or broken.
    fn body_end(&self, after: &[u8]) -> Option<usize> {
        if self.headers.contains_key("transfer-encoding") {
            return self.chunks_end(after);
        }
        let length = match self.headers.get("content-length") {
            None => 0,
            // A list of equal numbers is one number (RFC 9110 §8.6).
            Some(value) => value.to_str().ok()?.split(',').next()?.trim().parse().ok()?,
        };
        (length <= after.len()).then_some(length)
    }

    fn chunks_end(&self, after: &[u8]) -> Option<usize> {
        let mut at = 0;
        loop {
            let Ok(httparse::Status::Complete((line, size))) =
                httparse::parse_chunk_size(&after[at..])
            else {
                return None;
            };
            at += line;
            if size == 0 {
                break;
            }
            at = at.checked_add(usize::try_from(size).ok()?)?.checked_add(2)?;
            if at > after.len() {
                return None;
            }
        }
        // Trailers, to the empty line.
        loop {
            let line = after[at..].iter().position(|b| *b == b'\n')?;
            let empty = after[at..at + line].iter().all(|b| *b == b'\r');
            at += line + 1;
            if empty {
                return Some(at);
            }
        }
    }
}

/// What is taken in is in the one spelling that the key holds, and framed as the bytes say.
fn admitted(second: &Second) {
    let (Ok(method), Ok(uri)) =
        (Method::from_bytes(second.method.as_bytes()), second.target.parse::<Uri>())
    else {
        return;
    };
    let version = if second.version == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    let head =
        Head { method: &method, uri: &uri, version, headers: &second.headers, scheme: "http" };
    let Ok(admitted) = admit::admit(&head, false) else { return };
    assert!(method != Method::CONNECT && method != Method::TRACE);
    assert!(second.headers.get_all("host").iter().count() <= 1);
    let url = format!("http://{}{}", admitted.authority, admitted.path);
    let parts = UrlParts::new(&url).expect("what is admitted is a URL");
    assert_eq!((&*parts.authority, &*parts.path), (&*admitted.authority, &*admitted.path));
    let chunked = second.headers.contains_key("transfer-encoding");
    match admitted.content {
        Content::Unknown => assert!(chunked),
        Content::Length(length) => assert_eq!(second.body_end(b""), (length == 0).then_some(0)),
        Content::None => assert_eq!(second.body_end(b""), Some(0)),
    }
    assert!(!(chunked && second.headers.contains_key("content-length")));
}
