//! Validators (RFC 9110 §8.8): entity tags, modification dates, and when they are strong.

use http::header::{DATE, ETAG, LAST_MODIFIED};
use shared::time::UnixMillis;

use super::date;
use super::fields::Lines;

/// RFC 9110 §8.8.2.2: a modification date is a strong validator when the response was sent at least a second after it.
pub(super) fn strong_last_modified(stored: &impl Lines) -> Option<UnixMillis> {
    let modified = date::field(stored, &LAST_MODIFIED)?;
    let sent = date::field(stored, &DATE)?;
    (sent.secs() > modified.secs()).then_some(modified)
}

/// An entity tag as it stands in a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntityTag<'a> {
    /// Written with `W/`.
    pub(super) weak: bool,
    /// What stands between the quotes.
    pub(super) opaque: &'a [u8],
}

impl<'a> EntityTag<'a> {
    /// The tag that begins a text, and what follows it (RFC 9110 §8.8.3).
    pub(super) fn parse(text: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (weak, rest) = match text.strip_prefix(b"W/") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let rest = rest.strip_prefix(b"\"")?;
        let end = rest.iter().position(|b| *b == b'"')?;
        let (opaque, rest) = rest.split_at(end);
        let valid = opaque.iter().all(|b| *b == 0x21 || (0x23..=0x7e).contains(b) || *b >= 0x80);
        valid.then_some((Self { weak, opaque }, &rest[1..]))
    }
}

/// RFC 9110 §8.8.3.2.
pub(super) fn strong_eq(a: EntityTag<'_>, b: EntityTag<'_>) -> bool {
    !a.weak && !b.weak && a.opaque == b.opaque
}

/// RFC 9110 §8.8.3.2.
pub(super) fn weak_eq(a: EntityTag<'_>, b: EntityTag<'_>) -> bool {
    a.opaque == b.opaque
}

/// The one valid tag of a response.
pub(super) fn stored_tag(stored: &impl Lines) -> Option<EntityTag<'_>> {
    let (tag, rest) = EntityTag::parse(stored.line(&ETAG)?)?;
    rest.is_empty().then_some(tag)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rfc9110_8_8_3_entity_tags() {
        for (text, expected) in [
            (&b"\"a\""[..], Some((false, &b"a"[..], &b""[..]))),
            (b"W/\"a\", x", Some((true, b"a", b", x"))),
            (b"\"\"", Some((false, b"", b""))),
            (b"\"\xfc!#\"", Some((false, b"\xfc!#", b""))),
            (b"w/\"a\"", None),
            (b"W\"a\"", None),
            (b"a", None),
            (b"\"a", None),
            (b"\"a b\"", None),
            (b"", None),
        ] {
            let parsed = EntityTag::parse(text).map(|(tag, rest)| (tag.weak, tag.opaque, rest));
            assert_eq!(parsed, expected);
        }
    }

    /// RFC 9110 §8.8.3.2, its own table.
    #[test]
    fn rfc9110_8_8_3_2_comparison() {
        let tag = |text| EntityTag::parse(text).unwrap().0;
        for (a, b, strong, weak) in [
            (&b"W/\"1\""[..], &b"W/\"1\""[..], false, true),
            (b"W/\"1\"", b"W/\"2\"", false, false),
            (b"W/\"1\"", b"\"1\"", false, true),
            (b"\"1\"", b"\"1\"", true, true),
        ] {
            assert_eq!((strong_eq(tag(a), tag(b)), weak_eq(tag(a), tag(b))), (strong, weak));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..30)) {
            let _ = EntityTag::parse(&bytes);
        }
    }
}
