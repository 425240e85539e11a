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
fn a_new_head_keeps_the_body() {
    let length = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("text/css"))]);
    for (body, shared) in [(&b""[..], false), (b"body", false), (&[7; 100_000], true)] {
        let old = object("/a", &length, &HeaderMap::new(), body);
        let new = old.with_head(&StoredHead { headers: HeaderMap::new(), ..old.head() });
        let (a, b) = (old.whole().unwrap(), new.whole().unwrap());
        assert_eq!((a.concat(), b.concat()), (body.to_vec(), body.to_vec()));
        assert_eq!(a[0].as_ptr() == b[0].as_ptr(), shared || body.is_empty());
        assert_eq!((new.length(), new.body_id()), (body.len() as u64, old.body_id()));
        assert!(old.fields().has(&CONTENT_TYPE) && !new.fields().has(&CONTENT_TYPE));
        assert!(new.weight() > body.len() as u64);
        let bare = new.without_body();
        assert_eq!((bare.whole().unwrap().concat().len(), bare.length()), (0, new.length()));
        assert_eq!(bare.place(), new.place());
        let again = bare.with_body(Content::Whole(a.into()));
        assert_eq!(again.whole().unwrap().concat(), body);
        assert_eq!(again.weight(), new.weight());
    }
}

#[test]
fn an_object_is_small() {
    assert!(size_of::<Object>() <= 96, "{}", size_of::<Object>());
}

#[test]
fn narrow_numbers_are_themselves_or_the_largest() {
    for number in [0, 1, 255, 256, 0x0012_3456_789a, (1 << 40) - 1] {
        assert_eq!(Narrow::<5>::of(number).get(), number);
    }
    assert_eq!(Narrow::<5>::of(1 << 40).get(), (1 << 40) - 1);
    assert_eq!(Narrow::<6>::of(u64::MAX).get(), (1 << 48) - 1);
    assert_eq!(Millis::of_duration(Duration::MAX).duration(), Duration::from_millis((1 << 40) - 1));
}

/// Whatever the length: behind the head, cut off there, beside it, cut off there.
#[test]
fn bodies_lie_in_two_pieces() {
    let pattern: Vec<u8> = (0..40_000_u32).map(|n| ((n * n) >> 7) as u8).collect();
    let like = object("/a", &HeaderMap::new(), &HeaderMap::new(), b"");
    let mut cut = 0;
    for length in (0..12_000).step_by(7).chain([16_384, 17_000, 40_000]) {
        let body = vec![Bytes::copy_from_slice(&pattern[..length])];
        let made = Object::new(like.key(), VariantKey::NONE, like.head(), body);
        let updated = made.with_head(&StoredHead { status: StatusCode::NOT_FOUND, ..made.head() });
        let again = updated.without_body().with_body(Content::Whole(made.whole().unwrap().into()));
        for object in [made, updated, again] {
            let pieces = object.whole().unwrap();
            assert_eq!(pieces.concat(), pattern[..length], "{length}");
            assert_eq!(pieces[0].is_empty(), length == 0, "{length}: a first piece is the first");
            assert_eq!(object.fields(), like.fields(), "{length}");
            assert!(object.is_of(&like.key()));
            cut += usize::from(!pieces[1].is_empty());
        }
    }
    assert!(cut > 2000, "{cut} in two");
}

/// A response that shares an object's fields has what the object has.
#[test]
fn shared_fields_are_the_fields() {
    let mut headers = HeaderMap::new();
    headers.append(CONTENT_TYPE, HeaderValue::from_static("text/css"));
    headers.append("x-a", HeaderValue::from_static("1"));
    headers.append("x-a", HeaderValue::from_static(""));
    for body in [&b""[..], b"body"] {
        let stored = object("/a", &headers, &HeaderMap::new(), body);
        let shared = stored.shared_fields();
        assert_eq!(shared.to_header_map(), stored.fields().to_header_map());
        assert_eq!(shared.line(&CONTENT_TYPE), Some(&b"text/css"[..]));
        let name = HeaderName::from_static("x-a");
        assert_eq!(shared.lines(&name).collect::<Vec<_>>(), [&b"1"[..], b""]);
    }
    let made = object("/a", &headers, &HeaderMap::new(), b"body");
    let bare = made.with_head(&StoredHead { headers: HeaderMap::new(), ..made.head() });
    assert!(bare.shared_fields().to_header_map().is_empty());
}

#[test]
fn pieces_become_one_body() {
    let buffer = Bytes::from(b"one two three".repeat(1000));
    let made = object("/a", &HeaderMap::new(), &HeaderMap::new(), b"");
    let few = &[(0, 3), (3, 3), (4, 7), (0, 5000)][..];
    for pieces in [&[][..], &[(0, 3)], &[(0, 3), (4, 7)], few, &[(0, 9000), (1, 9000)]] {
        let pieces: Vec<_> = pieces.iter().map(|(start, end)| buffer.slice(*start..*end)).collect();
        let whole = pieces.concat();
        let made = Object::new(made.key(), VariantKey::NONE, made.head(), pieces);
        assert_eq!(
            (made.whole().unwrap().concat(), made.length()),
            (whole.clone(), whole.len() as u64)
        );
    }
    assert!(buffer.is_unique());
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
