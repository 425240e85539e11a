//! Conditional requests (RFC 9110 §13, RFC 9111 §4.3): evaluating a client's, and making our own. What comes of their
//! answers is in [`super::update`], and can be named from here too.

use http::header::{
    CONTENT_LOCATION, CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY_REPORT_ONLY, DATE, ETAG,
    HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
    LAST_MODIFIED, SET_COOKIE,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::fields::Lines;
pub use super::update::{Updated, apply_304, apply_head, same_strong_validator, select_by_304};
use super::validator::{EntityTag, stored_tag, strong_eq, strong_last_modified, weak_eq};
use super::{compress, date};

/// What a client's preconditions make of a request that a stored response could answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Answer in full (or the range asked for).
    Proceed,
    /// 304.
    NotModified,
    /// 412.
    PreconditionFailed,
}

/// Evaluates If-Match, If-Unmodified-Since, If-None-Match, If-Modified-Since in the order of RFC 9110 §13.2.2 against the
/// selected response. Only a successful response to GET or HEAD has preconditions: anything else proceeds.
///
/// With [`super::Profile::Rfc`], [`crate::lookup::decide`] has already passed If-Match and If-Unmodified-Since to the
/// origin; here they are evaluated on its behalf.
pub fn evaluate(
    method: &Method,
    request: &HeaderMap,
    status: StatusCode,
    stored: &impl Lines,
) -> Verdict {
    if !status.is_success() || !(*method == Method::GET || *method == Method::HEAD) {
        return Verdict::Proceed;
    }
    let modified = || date::field(stored, &LAST_MODIFIED);
    if request.contains_key(IF_MATCH) {
        if !any_matches(request, &IF_MATCH, stored, strong_eq) {
            return Verdict::PreconditionFailed;
        }
    } else if let Some(since) = date::field(request, &IF_UNMODIFIED_SINCE)
        && modified().is_some_and(|modified| modified > since)
    {
        return Verdict::PreconditionFailed;
    }
    if request.contains_key(IF_NONE_MATCH) {
        if any_matches(request, &IF_NONE_MATCH, stored, weak_eq) {
            return Verdict::NotModified;
        }
    } else if let Some(since) = date::field(request, &IF_MODIFIED_SINCE) {
        // RFC 9111 §4.3.2: without Last-Modified, Date counts.
        let modified = modified().or_else(|| date::field(stored, &DATE));
        if modified.is_some_and(|modified| modified <= since) {
            return Verdict::NotModified;
        }
    }
    Verdict::Proceed
}

/// Whether Range applies: no If-Range, or one that holds (RFC 9110 §13.1.5: strong comparison, exact strong date).
pub fn if_range_holds(request: &HeaderMap, stored: &impl Lines) -> bool {
    let mut values = request.get_all(IF_RANGE).iter();
    let Some(value) = values.next() else { return true };
    if values.next().is_some() {
        return false;
    }
    let value = value.as_bytes();
    match EntityTag::parse(value) {
        Some((tag, b"")) => stored_tag(stored).is_some_and(|stored| strong_eq(stored, tag)),
        // All encodings of a response have the same date: it does not tell them apart (RFC 9110 §8.8.2.2).
        _ if compress::is_marked(stored) => false,
        _ => date::parse(value).is_some_and(|since| strong_last_modified(stored) == Some(since)),
    }
}

/// Whether a list of tags has one that equals the stored one; `*` equals any response.
fn any_matches(
    request: &HeaderMap,
    field: &HeaderName,
    stored: &impl Lines,
    equal: fn(EntityTag<'_>, EntityTag<'_>) -> bool,
) -> bool {
    let tag = stored_tag(stored);
    request.get_all(field).iter().any(|line| {
        let mut rest = line.as_bytes().trim_ascii();
        if rest == b"*" {
            return true;
        }
        let Some(stored) = tag else { return false };
        while !rest.is_empty() {
            if let Some((listed, after)) = EntityTag::parse(rest) {
                if equal(listed, stored) {
                    return true;
                }
                rest = after;
            }
            // To the next member; what is no tag is skipped.
            rest = match rest.iter().position(|b| *b == b',') {
                Some(comma) => rest[comma + 1..].trim_ascii_start(),
                None => &[],
            };
        }
        false
    })
}

/// The fields of a 304 made from a stored response (RFC 9110 §15.4.5): all that are not metadata of the content, and of
/// those Content-Location, ETag, and Last-Modified where there is no ETag.
pub fn not_modified_headers(stored: &impl Lines) -> HeaderMap {
    let mut headers = stored.to_header_map();
    let names: Vec<_> = headers.keys().filter(|name| describes_content(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
    headers.remove(SET_COOKIE);
    if headers.contains_key(ETAG) {
        headers.remove(LAST_MODIFIED);
    }
    headers
}

fn describes_content(name: &HeaderName) -> bool {
    let text = name.as_str();
    (text.starts_with("content-")
        && *name != CONTENT_LOCATION
        && *name != CONTENT_SECURITY_POLICY
        && *name != CONTENT_SECURITY_POLICY_REPORT_ONLY)
        || matches!(
            text,
            "accept-ranges" | "digest" | "repr-digest" | "transfer-encoding" | "trailer"
        )
}

/// Puts the preconditions of a revalidation into a request that carries none: If-None-Match with the ETags of all variants,
/// If-Modified-Since when there is one variant, and the request selects it (RFC 9111 §4.3.1): a date says nothing of which
/// variant a 304 means. False when no variant has a validator that can be sent: the request is a plain fetch then.
pub fn add_revalidation(
    request: &mut HeaderMap,
    variants: impl IntoIterator<Item = impl Lines>,
    selected: bool,
) -> bool {
    let mut tags: Vec<Vec<u8>> = Vec::new();
    let mut modified = None;
    let mut count = 0usize;
    for stored in variants {
        count += 1;
        if stored_tag(&stored).is_some()
            && let Some(tag) = stored.line(&ETAG)
            && !tags.iter().any(|known| known == tag)
        {
            tags.push(tag.to_vec());
        }
        if date::field(&stored, &LAST_MODIFIED).is_some() {
            let line = stored.line(&LAST_MODIFIED);
            modified = line.and_then(|line| HeaderValue::from_bytes(line).ok());
        }
    }
    for name in [IF_MATCH, IF_UNMODIFIED_SINCE, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_RANGE] {
        request.remove(name);
    }
    if let Ok(list) = HeaderValue::from_bytes(&tags.join(&b", "[..]))
        && !tags.is_empty()
    {
        request.insert(IF_NONE_MATCH, list);
    }
    if let (1, Some(modified), true) = (count, modified, selected) {
        request.insert(IF_MODIFIED_SINCE, modified);
    }
    request.contains_key(IF_NONE_MATCH) || request.contains_key(IF_MODIFIED_SINCE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shared::time::UnixMillis;

    use super::*;

    const NOW: UnixMillis = UnixMillis::from_secs(1_800_000_000);

    fn at(seconds: i64) -> String {
        let time = NOW.secs().checked_add_signed(seconds).unwrap();
        date::format(UnixMillis::from_secs(time)).to_str().unwrap().to_owned()
    }

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        headers
    }

    /// Pitfall 16.
    #[test]
    fn rfc9110_13_2_2_precedence() {
        use Verdict::{NotModified, PreconditionFailed, Proceed};
        let (old, then, new) = (at(-200), at(-100), at(-50));
        let stored = headers(&[("etag", "\"a\""), ("last-modified", &then), ("date", &at(0))]);
        type Fields<'a> = &'a [(&'a str, &'a str)];
        let cases: &[(Fields<'_>, Verdict)] = &[
            (&[], Proceed),
            (&[("if-none-match", "\"a\"")], NotModified),
            (&[("if-none-match", "W/\"a\"")], NotModified),
            (&[("if-none-match", "\"b\"")], Proceed),
            (&[("if-none-match", "\"b\", \"a\", \"c\"")], NotModified),
            (&[("if-none-match", "\"b\",\"a\"")], NotModified),
            (&[("if-none-match", "\"b\""), ("if-none-match", "\"a\"")], NotModified),
            (&[("if-none-match", "\"b,\"a\"")], Proceed),
            (&[("if-none-match", "\"x, \\\"a\", \"a\"")], NotModified),
            (&[("if-none-match", "junk, \"a\"")], NotModified),
            (&[("if-none-match", "a")], Proceed),
            (&[("if-none-match", "w/\"a\"")], Proceed),
            (&[("if-none-match", "\"A\"")], Proceed),
            (&[("if-none-match", "*")], NotModified),
            (&[("if-none-match", "")], Proceed),
            (&[("if-modified-since", &then)], NotModified),
            (&[("if-modified-since", &new)], NotModified),
            (&[("if-modified-since", &old)], Proceed),
            (&[("if-modified-since", "junk")], Proceed),
            // If-None-Match beats If-Modified-Since, both ways.
            (&[("if-none-match", "\"b\""), ("if-modified-since", &new)], Proceed),
            (&[("if-none-match", "\"a\""), ("if-modified-since", &old)], NotModified),
            (&[("if-match", "\"a\"")], Proceed),
            (&[("if-match", "*")], Proceed),
            (&[("if-match", "W/\"a\"")], PreconditionFailed),
            (&[("if-match", "\"b\"")], PreconditionFailed),
            (&[("if-match", "\"a\""), ("if-unmodified-since", &old)], Proceed),
            (&[("if-match", "\"a\""), ("if-none-match", "\"a\"")], NotModified),
            (&[("if-match", "\"b\""), ("if-none-match", "\"a\"")], PreconditionFailed),
            (&[("if-unmodified-since", &then)], Proceed),
            (&[("if-unmodified-since", &old)], PreconditionFailed),
            (&[("if-unmodified-since", "junk")], Proceed),
        ];
        for (request, expected) in cases {
            for method in [Method::GET, Method::HEAD] {
                let verdict = evaluate(&method, &headers(request), StatusCode::OK, &stored);
                assert_eq!(verdict, *expected, "{request:?}");
            }
            assert_eq!(
                evaluate(&Method::POST, &headers(request), StatusCode::OK, &stored),
                Proceed
            );
            let gone = evaluate(&Method::GET, &headers(request), StatusCode::NOT_FOUND, &stored);
            assert_eq!(gone, Proceed);
        }
        // RFC 9111 §4.3.2: Date stands in for Last-Modified.
        let plain = headers(&[("date", &then)]);
        let since = |when: &str| {
            evaluate(&Method::GET, &headers(&[("if-modified-since", when)]), StatusCode::OK, &plain)
        };
        assert_eq!((since(&then), since(&old)), (NotModified, Proceed));
        // A tag with bytes beyond ASCII is a tag; a weak stored one never matches strongly.
        let weak = headers(&[("etag", "W/\"\u{fc}\"")]);
        let ask =
            |name, value| evaluate(&Method::GET, &headers(&[(name, value)]), StatusCode::OK, &weak);
        assert_eq!(ask("if-none-match", "\"\u{fc}\""), NotModified);
        assert_eq!(ask("if-match", "W/\"\u{fc}\""), PreconditionFailed);
    }

    /// Pitfall 17.
    #[test]
    fn rfc9110_13_1_5_if_range() {
        let then = at(-100);
        let stored = headers(&[("etag", "\"a\""), ("last-modified", &then), ("date", &at(0))]);
        let holds = |value: &str, stored: &HeaderMap| {
            if_range_holds(&headers(&[("if-range", value)]), stored)
        };
        assert!(if_range_holds(&HeaderMap::new(), &stored));
        assert!(holds("\"a\"", &stored));
        assert!(!holds("W/\"a\"", &stored));
        assert!(!holds("\"b\"", &stored));
        assert!(!holds("\"a\", \"b\"", &stored));
        assert!(!holds("*", &stored));
        assert!(!holds("", &stored));
        assert!(holds(&then, &stored));
        assert!(!holds(&at(-99), &stored), "only the exact date holds");
        let weak = headers(&[("etag", "W/\"a\""), ("last-modified", &then), ("date", &then)]);
        assert!(!holds("W/\"a\"", &weak));
        assert!(!holds(&then, &weak), "modified in the second it was sent");
        assert!(!holds(&then, &headers(&[("last-modified", &then)])), "no Date");
        let two = headers(&[("if-range", "\"a\""), ("if-range", "\"a\"")]);
        assert!(!if_range_holds(&two, &stored));
    }

    /// Pitfall 15.
    #[test]
    fn rfc9110_15_4_5_fields_of_a_304() {
        let stored = headers(&[
            ("cache-control", "max-age=60"),
            ("cdn-cache-control", "max-age=60"),
            ("content-location", "/a"),
            ("date", "x"),
            ("etag", "\"a\""),
            ("expires", "x"),
            ("vary", "a"),
            ("last-modified", "x"),
            ("content-type", "text/plain"),
            ("content-length", "5"),
            ("content-encoding", "gzip"),
            ("content-language", "de"),
            ("content-range", "bytes 0-1/2"),
            ("content-security-policy", "x"),
            ("accept-ranges", "bytes"),
            ("set-cookie", "a=b"),
            ("access-control-allow-origin", "*"),
        ]);
        let mut made = not_modified_headers(&stored);
        let mut names: Vec<_> = made.keys().map(|name| name.as_str().to_owned()).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "access-control-allow-origin",
                "cache-control",
                "cdn-cache-control",
                "content-location",
                "content-security-policy",
                "date",
                "etag",
                "expires",
                "vary"
            ]
        );
        made.remove(ETAG);
        made.insert(LAST_MODIFIED, HeaderValue::from_static("x"));
        assert!(not_modified_headers(&made).contains_key(LAST_MODIFIED));
    }

    /// Pitfall 13.
    #[test]
    fn rfc9111_4_3_1_all_tags_in_one_revalidation() {
        let then = at(-100);
        let one = headers(&[("etag", "\"a\""), ("last-modified", &then)]);
        let two = headers(&[("etag", "W/\"b\"")]);
        let bad = headers(&[("etag", "c, d")]);
        let mut request =
            headers(&[("if-match", "x"), ("if-none-match", "\"client\""), ("if-range", "x")]);
        assert!(add_revalidation(&mut request, [&one, &two, &one, &bad], true));
        assert_eq!(request, headers(&[("if-none-match", "\"a\", W/\"b\"")]));
        assert!(add_revalidation(&mut request, [&one], true));
        assert_eq!(request, headers(&[("if-none-match", "\"a\""), ("if-modified-since", &then)]));
        assert!(!add_revalidation(&mut request, [&bad], true));
        assert!(request.is_empty());
        // A 304 to the date of another variant says nothing of that one.
        assert!(add_revalidation(&mut request, [&one], false));
        assert_eq!(request, headers(&[("if-none-match", "\"a\"")]));
        let dated = headers(&[("last-modified", &then)]);
        assert!(
            !add_revalidation(&mut request, [&dated, &bad], true),
            "a date speaks for one variant only"
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60), name in 0..6usize) {
            let names = [IF_MATCH, IF_NONE_MATCH, IF_RANGE, IF_MODIFIED_SINCE, ETAG, LAST_MODIFIED];
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let mut message = headers(&[("etag", "\"a\"")]);
                message.insert(names[name].clone(), value);
                let _ = evaluate(&Method::GET, &message, StatusCode::OK, &message);
                let _ = if_range_holds(&message, &message);
                let mut request = HeaderMap::new();
                let _ = add_revalidation(&mut request, [&message], true);
            }
        }

        /// What we send for a stored tag, an origin finds in our list.
        #[test]
        fn a_tag_matches_itself(tags in proptest::collection::vec("[!#-~]{0,8}", 1..5), pick in 0..5usize) {
            let tags: Vec<_> = tags.iter().map(|tag| headers(&[("etag", &format!("\"{tag}\""))])).collect();
            let chosen = &tags[pick % tags.len()];
            let mut request = HeaderMap::new();
            prop_assert!(add_revalidation(&mut request, &tags, true));
            let verdict = evaluate(&Method::GET, &request, StatusCode::OK, chosen);
            prop_assert_eq!(verdict, Verdict::NotModified);
        }
    }
}
