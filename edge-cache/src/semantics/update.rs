//! What an answer without content makes of a stored response: a 304 (RFC 9111 §4.3.4), a 200 to HEAD (§4.3.5).

use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, HeaderName, LAST_MODIFIED,
    SET_COOKIE,
};
use http::{HeaderMap, Method};
use shared::time::UnixMillis;

use super::fields::Lines;
use super::freshness::{Exchange, initial_age};
use super::validator::{stored_tag, strong_eq, strong_last_modified, weak_eq};
use super::{Policy, Profile, Reason, StoredHead, date, headers};

/// Which of the stored variants a 304 speaks of (RFC 9111 §4.3.4): by strong ETag, else by weak ETag, else by
/// Last-Modified, else the only one. `None`: none; nothing may be updated, and the request is sent again without
/// preconditions. The caller lists the newest variant first.
pub fn select_by_304(
    variants: impl IntoIterator<Item = impl Lines>,
    not_modified: &HeaderMap,
) -> Option<usize> {
    let mut variants = variants.into_iter();
    if let Some(tag) = stored_tag(not_modified) {
        let equal = if tag.weak { weak_eq } else { strong_eq };
        return variants.position(|stored| stored_tag(&stored).is_some_and(|own| equal(own, tag)));
    }
    if let Some(modified) = date::field(not_modified, &LAST_MODIFIED) {
        return variants.position(|stored| date::field(&stored, &LAST_MODIFIED) == Some(modified));
    }
    (variants.next().is_some() && variants.next().is_none()).then_some(0)
}

/// What a 304 or the response to a HEAD makes of a stored response.
#[derive(Clone, Debug)]
pub enum Updated {
    /// It goes on with these fields and lifetimes.
    Head(Box<StoredHead>),
    /// It may answer this once, and is to be removed: the update says that it may not be stored.
    UseOnce(Box<StoredHead>, Reason),
    /// It is no longer what the origin has: to be marked stale.
    Changed,
}

/// The stored head after a 304 that selected it (RFC 9111 §3.2): new fields replace old ones but for those that describe
/// the stored bytes; lifetimes and age start over. `path` and `request` are those of the client's request.
pub fn apply_304(
    stored: &StoredHead,
    path: &str,
    request: &HeaderMap,
    not_modified: &HeaderMap,
    request_time: UnixMillis,
    response_time: UnixMillis,
    policy: &Policy,
) -> Updated {
    let mut fields = not_modified.clone();
    headers::strip_hop_by_hop(&mut fields);
    for name in [CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_RANGE] {
        fields.remove(name);
    }
    // Sums of the bytes that are stored; those of a 304 would be of its own content, which is none (RFC 9530 §2).
    for name in ["content-md5", "content-digest"] {
        fields.remove(name);
    }
    if policy.profile == Profile::Safe {
        // A cookie on a 304 is one client's; it must not cost everybody the stored response.
        fields.remove(SET_COOKIE);
    }
    // The tag selected the response; one that is no tag, or a weak spelling of it, does not replace a better one.
    if stored_tag(&fields).is_none() || stored_tag(&stored.headers).is_some_and(|own| !own.weak) {
        fields.remove(ETAG);
    }
    if date::field(&fields, &DATE).is_none() {
        fields.insert(DATE, date::format(response_time));
    }
    let mut merged = stored.headers.clone();
    merged.extend(fields);

    let exchange = Exchange {
        method: &Method::GET,
        path,
        request,
        status: stored.status,
        response: &merged,
        request_time,
        response_time,
    };
    match StoredHead::new(&exchange, policy) {
        Ok(head) => Updated::Head(Box::new(head)),
        Err(reason) => {
            headers::strip_for_storage(&mut merged);
            let head = StoredHead {
                headers: merged,
                request_time,
                response_time,
                initial_age: initial_age(not_modified, request_time, response_time),
                ..stored.clone()
            };
            Updated::UseOnce(Box::new(head), reason)
        }
    }
}

/// The stored head after a 200 to HEAD (RFC 9111 §4.3.5): updated when validators and length agree, else
/// [`Updated::Changed`].
pub fn apply_head(
    stored: &StoredHead,
    path: &str,
    request: &HeaderMap,
    response: &HeaderMap,
    request_time: UnixMillis,
    response_time: UnixMillis,
    policy: &Policy,
) -> Updated {
    let agrees = |name: &HeaderName| match (stored.headers.get(name), response.get(name)) {
        (Some(old), Some(new)) => old == new,
        (_, None) => true,
        (None, Some(_)) => false,
    };
    let length = match (stored.headers.get(CONTENT_LENGTH), response.get(CONTENT_LENGTH)) {
        (Some(old), Some(new)) => old == new,
        _ => true,
    };
    if length && agrees(&ETAG) && agrees(&LAST_MODIFIED) && agrees(&CONTENT_ENCODING) {
        apply_304(stored, path, request, response, request_time, response_time, policy)
    } else {
        Updated::Changed
    }
}

/// Same strong ETag, or no ETag on either side and the same strong Last-Modified: parts of both may be combined
/// (RFC 9111 §3.4).
pub fn same_strong_validator(a: &impl Lines, b: &impl Lines) -> bool {
    match (stored_tag(a), stored_tag(b)) {
        (Some(a), Some(b)) => strong_eq(a, b),
        (None, None) => {
            let modified = strong_last_modified(a);
            modified.is_some() && modified == strong_last_modified(b)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderValue, StatusCode};

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

    /// Pitfall 14.
    #[test]
    fn rfc9111_4_3_4_which_variant() {
        let (then, other) = (at(-100), at(-200));
        let a = headers(&[("etag", "\"a\""), ("last-modified", &then)]);
        let b = headers(&[("etag", "W/\"b\""), ("last-modified", &other)]);
        let select = |fields: &[(&str, &str)], stored: &[&HeaderMap]| {
            select_by_304(stored.iter().copied(), &headers(fields))
        };
        assert_eq!(select(&[("etag", "\"a\"")], &[&b, &a]), Some(1));
        assert_eq!(select(&[("etag", "W/\"b\"")], &[&b, &a]), Some(0));
        assert_eq!(select(&[("etag", "W/\"a\"")], &[&b, &a]), Some(1));
        assert_eq!(select(&[("etag", "\"b\"")], &[&b, &a]), None, "a strong tag selects strongly");
        assert_eq!(select(&[("etag", "\"c\"")], &[&a]), None);
        assert_eq!(select(&[("etag", "\"c\""), ("last-modified", &then)], &[&a]), None);
        assert_eq!(select(&[("last-modified", &then)], &[&b, &a]), Some(1));
        assert_eq!(select(&[("last-modified", &at(0))], &[&a]), None);
        assert_eq!(select(&[], &[&a]), Some(0));
        assert_eq!(select(&[], &[&a, &b]), None);
        assert_eq!(select(&[], &[]), None);
    }

    fn stored(fields: &[(&str, &str)], policy: &Policy) -> StoredHead {
        let exchange = Exchange {
            method: &Method::GET,
            path: "/",
            request: &HeaderMap::new(),
            status: StatusCode::OK,
            response: &headers(fields),
            request_time: NOW,
            response_time: NOW,
        };
        StoredHead::new(&exchange, policy).unwrap()
    }

    const LATER: UnixMillis = UnixMillis(NOW.0 + 100_000);

    /// Pitfall 14.
    #[test]
    fn rfc9111_3_2_updating_stored_fields() {
        let policy = Policy::default();
        let old = stored(
            &[
                ("cache-control", "max-age=1"),
                ("etag", "\"a\""),
                ("date", &at(0)),
                ("content-length", "5"),
                ("content-encoding", "gzip"),
                ("content-type", "text/plain"),
                ("x-kept", "1"),
                ("x-two", "1"),
                ("x-two", "2"),
                ("content-md5", "rL0Y20zC+Fzt72VPzMSk2A=="),
                ("age", "7"),
            ],
            &policy,
        );
        assert_eq!(old.initial_age, Duration::from_secs(7));
        let none = HeaderMap::new();
        let fresh = headers(&[
            ("cache-control", "max-age=3600"),
            ("etag", "W/\"a\""),
            ("content-length", "10"),
            ("content-encoding", "br"),
            ("content-range", "bytes 0-1/2"),
            ("content-type", "text/plain;charset=utf-8"),
            ("x-two", "3"),
            ("content-md5", "N7UdGUp1E+RbVvZSTy1R8g=="),
            ("content-digest", "sha-256=:AAAA:"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("set-cookie", "a=b"),
            ("age", "3"),
        ]);
        let Updated::Head(new) = apply_304(&old, "/", &none, &fresh, LATER, LATER, &policy) else {
            panic!()
        };
        assert_eq!(
            new.headers,
            headers(&[
                ("cache-control", "max-age=3600"),
                ("etag", "\"a\""),
                ("date", &at(100)),
                ("content-length", "5"),
                ("content-encoding", "gzip"),
                ("content-type", "text/plain;charset=utf-8"),
                ("content-md5", "rL0Y20zC+Fzt72VPzMSk2A=="),
                ("x-kept", "1"),
                ("x-two", "3"),
            ])
        );
        assert_eq!(new.lifetimes.fresh, Duration::from_secs(3600));
        assert_eq!(new.initial_age, Duration::from_secs(3));
        assert_eq!(new.status, StatusCode::OK);
        assert_eq!(new.remaining_millis(UnixMillis(NOW.0 + 101_000)), 3_596_000);

        // It says no-store: good for this answer, and gone.
        let last = headers(&[("cache-control", "no-store"), ("x-kept", "2")]);
        let Updated::UseOnce(head, Reason::NoStore) =
            apply_304(&old, "/", &none, &last, LATER, LATER, &policy)
        else {
            panic!()
        };
        assert_eq!(head.headers.get("x-kept").unwrap(), "2");
    }

    /// Pitfall 18.
    #[test]
    fn rfc9111_4_3_5_head() {
        let policy = Policy::default();
        let old = stored(
            &[("cache-control", "max-age=1"), ("etag", "\"a\""), ("content-length", "5")],
            &policy,
        );
        let none = HeaderMap::new();
        for (fields, agrees) in [
            (&[("cache-control", "max-age=9")][..], true),
            (&[("etag", "\"a\""), ("content-length", "5"), ("cache-control", "max-age=9")], true),
            (&[("etag", "\"b\"")], false),
            (&[("content-length", "6")], false),
            (&[("last-modified", "x")], false),
            (&[("content-encoding", "gzip")], false),
        ] {
            let response = headers(fields);
            match apply_head(&old, "/", &none, &response, LATER, LATER, &policy) {
                Updated::Head(new) => {
                    assert!(agrees, "{fields:?}");
                    assert_eq!(new.lifetimes.fresh, Duration::from_secs(9));
                }
                Updated::Changed => assert!(!agrees, "{fields:?}"),
                Updated::UseOnce(..) => panic!("{fields:?}"),
            }
        }
    }

    /// Pitfall 22.
    #[test]
    fn rfc9111_3_4_combining_parts() {
        let (then, now) = (at(-100), at(0));
        let strong = headers(&[("etag", "\"a\"")]);
        let weak = headers(&[("etag", "W/\"a\"")]);
        let dated = headers(&[("last-modified", &then), ("date", &now)]);
        let hasty = headers(&[("last-modified", &now), ("date", &now)]);
        assert!(same_strong_validator(&strong, &strong));
        assert!(!same_strong_validator(&strong, &weak));
        assert!(!same_strong_validator(&weak, &weak));
        assert!(same_strong_validator(&dated, &dated));
        assert!(!same_strong_validator(&hasty, &hasty));
        assert!(!same_strong_validator(&strong, &dated));
        assert!(!same_strong_validator(&HeaderMap::new(), &HeaderMap::new()));
    }
}
