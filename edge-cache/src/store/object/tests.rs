//! What goes into an object comes out of it, and it takes what it says.

use super::*;
use crate::key::KeyRules;
use crate::semantics::Policy;
use crate::semantics::freshness::Exchange;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Method};

/// An object as a fetch would make it.
pub(crate) fn object(
    path: &str,
    response: &HeaderMap,
    request: &HeaderMap,
    body: &[u8],
) -> Arc<Object> {
    let key = CacheKey::new("http", "a.test", path, None, request, &KeyRules::default());
    let now = UnixMillis::from_secs(1_795_266_040);
    let exchange = Exchange {
        method: &Method::GET,
        path,
        request,
        status: StatusCode::OK,
        response,
        request_time: now,
        response_time: now,
    };
    let head = StoredHead::new(&exchange, &Policy::default()).unwrap();
    let variant = head.vary.variant(request).unwrap();
    Arc::new(Object::new(key, variant, head, vec![Bytes::copy_from_slice(body)]))
}

#[test]
fn stored_fields_do_not_hold_a_read_buffer() {
    let buffer = Bytes::from(b"text/css".repeat(1000));
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_maybe_shared(buffer.slice(..8)).unwrap());
    headers.append("x-a", HeaderValue::from_static("1"));
    headers.append("x-a", HeaderValue::from_static("2"));
    let stored = object("/a", &headers, &HeaderMap::new(), b"body");
    let fields = stored.fields();
    assert_eq!(fields.line(&CONTENT_TYPE), Some(&b"text/css"[..]));
    assert_eq!(fields.lines(&HeaderName::from_static("x-a")).count(), 2);
    drop(headers);
    assert!(buffer.is_unique());
}

#[test]
fn a_new_head_shares_the_body() {
    let old = object("/a", &HeaderMap::new(), &HeaderMap::new(), b"body");
    let new = old.with_head(&old.head());
    let (Content::Inline(a), Content::Inline(b)) = (old.body(), new.body()) else {
        panic!("a small body lies with its head")
    };
    assert_eq!(a.as_ptr(), b.as_ptr());
    assert_eq!(new.length(), 4);
    assert!(new.weight() > 4);
}

#[test]
fn an_object_is_small() {
    assert!(size_of::<Object>() <= 104, "{}", size_of::<Object>());
}

#[test]
fn pieces_become_one_body() {
    let buffer = Bytes::from(b"one two three".repeat(1000));
    for pieces in [&[][..], &[(0, 3)], &[(0, 3), (4, 7)], &[(0, 3), (3, 3), (4, 7), (0, 5000)]] {
        let pieces: Vec<_> = pieces.iter().map(|(start, end)| buffer.slice(*start..*end)).collect();
        let Content::Inline(body) = Content::inline(&pieces) else { panic!() };
        assert_eq!(body[..], pieces.concat());
    }
    assert!(buffer.is_unique());
}

#[test]
fn what_the_allocator_takes() {
    for (bytes, taken) in [
        (0, 0),
        (1, 32),
        (24, 32),
        (25, 48),
        (40, 48),
        (41, 64),
        (1000, 1008),
        (1 << 20, (1 << 20) + 4096),
    ] {
        assert_eq!(allocated(bytes), taken, "{bytes}");
    }
}

#[test]
fn a_head_at_rest_is_the_same() {
    let request = HeaderMap::from_iter([(
        HeaderName::from_static("accept-language"),
        HeaderValue::from_static("de"),
    )]);
    let mut response = HeaderMap::new();
    for (name, value) in [
        ("cache-control", "max-age=60, stale-if-error=9, immutable"),
        ("vary", "Accept-Language, X-A"),
        ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
    ] {
        response.append(name, HeaderValue::from_static(value));
    }
    let made = object("/a?b", &response, &request, b"body");
    let mut head = made.head();
    head.request_time = head.response_time - Duration::from_millis(70);
    head.initial_age = Duration::from_micros(1_200);
    head.lifetimes.fresh = Duration::from_micros(9_900);
    head.lifetimes.after_wait = None;
    head.fence = Position(7);
    head.tags = TagList::checked(&[1, 0, 0, 0, 0, 0, 0, 0], false).unwrap().to_tags();
    let new = made.with_head(&head);
    assert_eq!(new.key_text(), "http://a.test/a?b");
    assert_eq!((new.variant(), new.place()), (made.variant(), made.place()));
    assert_ne!(new.variant(), VariantKey::NONE);
    let back = new.head();
    assert_eq!((&back.headers, &back.vary, &back.tags), (&head.headers, &head.vary, &head.tags));
    assert_eq!((back.request_time, back.fence), (head.request_time, head.fence));
    assert_eq!(back.initial_age, Duration::from_millis(2), "a part of a millisecond is age");
    assert_eq!(back.lifetimes.fresh, Duration::from_millis(9), "and no life");
    let rest = Lifetimes { fresh: head.lifetimes.fresh, ..back.lifetimes };
    assert_eq!(rest, head.lifetimes);
    assert!(new.is_combinable());
    let plain = new.updated(VariantKey::NONE, &head);
    assert_eq!((plain.variant(), plain.tags()), (VariantKey::NONE, new.tags()));
}
