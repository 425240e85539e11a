//! Which segments are asked for, and what the answer turns out to hold (RFC 9110 §14, §15.3.7).
//!
//! No client's range is ever sent on: the next server is asked for whole segments, or for as many bytes from the end as a
//! segment has, which hold the last one whatever the length.

use http::header::{CONTENT_TYPE, ETAG, LAST_MODIFIED};
use http::{HeaderMap, HeaderValue};

use super::Layout;
use crate::semantics::Lines;
use crate::semantics::conditional::same_strong_validator;
use crate::semantics::range::{ByteRange, ContentRange, RangeSpec};

/// Bytes asked for at once at most, though always one segment.
pub const MOST: u64 = 4 << 20;

/// What is asked of the next server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ask {
    /// These segments, both included.
    Run {
        /// The first one.
        first: u64,
        /// The last one.
        last: u64,
    },
    /// The last one, of a body whose length is not known.
    End,
}

impl Ask {
    /// The value of Range.
    pub fn range(self, layout: Layout) -> HeaderValue {
        let text = match self {
            Self::Run { first, last } => {
                let end = layout.start(last.saturating_add(1)) - 1;
                format!("bytes={}-{end}", layout.start(first))
            }
            Self::End => format!("bytes=-{}", layout.size()),
        };
        HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("bytes=0-0"))
    }
}

/// Segments in one request at most.
const fn most(layout: Layout) -> u64 {
    let most = MOST / layout.size();
    if most == 0 { 1 } else { most }
}

/// What to ask first of an object that is not known, for a client that wants these ranges. Where they are of no byte, the
/// answer tells the length.
pub fn first_ask(specs: &[RangeSpec], layout: Layout) -> Ask {
    if specs.iter().any(|spec| matches!(spec, RangeSpec::Suffix(1..))) {
        return Ask::End;
    }
    let lowest = specs.iter().filter_map(|spec| match *spec {
        RangeSpec::From { first, last } => Some((first, last)),
        RangeSpec::Suffix(_) => None,
    });
    let (first, last) = lowest.min_by_key(|(first, _)| *first).unwrap_or((0, None));
    let first = layout.index(first);
    let last = last.map_or(first, |last| layout.index(last));
    Ask::Run { first, last: last.min(first.saturating_add(most(layout) - 1)) }
}

/// What to ask of a known object, of which segment `index` is missing and `wanted` is the last one that the client wants:
/// what is missing in a row. With it the one after, when the one before is stored: somebody reads in order.
pub fn next_ask(
    index: u64,
    wanted: u64,
    length: u64,
    layout: Layout,
    stored: impl Fn(u64) -> bool,
) -> Ask {
    let after = layout.count(length);
    let end = index.saturating_add(most(layout)).min(after);
    let mut last = index;
    while last < wanted && last + 1 < end && !stored(last + 1) {
        last += 1;
    }
    let in_order = index > 0 && stored(index - 1);
    if in_order && last >= wanted && last + 1 < end && !stored(last + 1) {
        last += 1;
    }
    Ask::Run { first: index, last }
}

/// What a 206 holds that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The bytes that arrive.
    pub sent: ByteRange,
    /// The bytes of it that are taken: from the beginning of a segment on.
    pub taken: ByteRange,
    /// The whole body's length.
    pub complete: u64,
}

impl Part {
    /// It is the whole body.
    pub const fn is_whole(&self) -> bool {
        self.sent.start == 0 && self.sent.end.saturating_add(1) == self.complete
    }
}

/// What a 206 to an [`Ask`] holds, by its fields and by the length of its content, where that is known. `None`: nothing
/// that may be used. It does not say which part it is of what, it contradicts itself, it comes in several parts where one
/// was asked for, or it lacks the first segment that was asked for.
pub fn judge(
    ask: Ask,
    layout: Layout,
    headers: &HeaderMap,
    content_length: Option<u64>,
) -> Option<Part> {
    let multipart = headers.get(CONTENT_TYPE).is_some_and(|value| {
        let begins = value.as_bytes().trim_ascii().get(..20);
        begins.is_some_and(|begins| begins.eq_ignore_ascii_case(b"multipart/byteranges"))
    });
    let Some(ContentRange::Part { range: sent, complete: Some(complete) }) =
        ContentRange::of(headers)
    else {
        return None;
    };
    if multipart || content_length.is_some_and(|length| length != sent.length()) {
        return None;
    }
    let (start, end) = match ask {
        Ask::Run { first, last } => {
            let asked = layout.bytes(first, last, complete);
            // What follows what was asked for is left.
            (layout.start(first), sent.end.min(asked.end))
        }
        Ask::End => {
            if sent.end + 1 != complete || sent.start > complete.saturating_sub(layout.size()) {
                return None;
            }
            (layout.start(layout.index(complete - 1)), sent.end)
        }
    };
    let begins = match ask {
        Ask::Run { .. } => sent.start == start,
        Ask::End => sent.start <= start,
    };
    let first_segment = layout.bytes(layout.index(start), layout.index(start), complete);
    let enough = start < complete && end >= first_segment.end;
    (begins && enough).then_some(Part { sent, taken: ByteRange { start, end }, complete })
}

/// The value of If-Range with which parts of a response are asked for that can be put together with what is stored of it:
/// its strong validator (RFC 9110 §13.1.5). `None`: it has none.
pub fn if_range(stored: &impl Lines) -> Option<HeaderValue> {
    let strong = same_strong_validator(stored, stored);
    let tag = stored.line(&ETAG).filter(|tag| tag.starts_with(b"\""));
    let value = tag.or_else(|| stored.line(&LAST_MODIFIED));
    value.filter(|_| strong).and_then(|value| HeaderValue::from_bytes(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::semantics::range;

    const LAYOUT: Layout = Layout::new(1 << 20);

    fn run(first: u64, last: u64) -> Ask {
        Ask::Run { first, last }
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| {
                let value = HeaderValue::from_str(value).unwrap();
                (http::HeaderName::from_static(name), value)
            })
            .collect()
    }

    /// Pitfall 19: one byte of a large object costs a segment, whatever the client's range.
    #[test]
    fn pitfall_19_what_is_asked_first() {
        const MIB: u64 = 1 << 20;
        for (value, expected, sent) in [
            ("bytes=0-0", run(0, 0), "bytes=0-1048575"),
            ("bytes=5-", run(0, 0), "bytes=0-1048575"),
            ("bytes=1048575-1048576", run(0, 1), "bytes=0-2097151"),
            ("bytes=3000000-3000001", run(2, 2), "bytes=2097152-3145727"),
            ("bytes=9000000-9000001, 3000000-3000001", run(2, 2), "bytes=2097152-3145727"),
            ("bytes=0-99999999999", run(0, 3), "bytes=0-4194303"),
            ("bytes=-1", Ask::End, "bytes=-1048576"),
            ("bytes=0-0, -99999999", Ask::End, "bytes=-1048576"),
            ("bytes=-0, 7-7", run(0, 0), "bytes=0-1048575"),
            ("bytes=-0", run(0, 0), "bytes=0-1048575"),
        ] {
            let specs = range::parse(&headers(&[("range", value)])).unwrap();
            let ask = first_ask(&specs, LAYOUT);
            assert_eq!(ask, expected, "{value}");
            assert_eq!(ask.range(LAYOUT), sent);
        }
        let far = range::parse(&headers(&[("range", "bytes=18446744073709551614-")])).unwrap();
        let Ask::Run { first, .. } = first_ask(&far, LAYOUT) else { panic!("no run") };
        assert_eq!(first, u64::MAX / MIB);
        assert!(first_ask(&far, LAYOUT).range(LAYOUT).to_str().unwrap().len() < 60);
    }

    #[test]
    fn what_is_asked_next_is_missing_in_a_row_and_one_ahead() {
        let length = (100 << 20) + 1;
        for (index, wanted, stored, expected) in [
            (0, 0, &[][..], run(0, 0)),
            (5, 5, &[], run(5, 5)),
            (5, 5, &[4], run(5, 6)),
            (5, 5, &[4, 6], run(5, 5)),
            (5, 6, &[4], run(5, 7)),
            (5, 99, &[4], run(5, 8)),
            (5, 99, &[7], run(5, 6)),
            (100, 100, &[99], run(100, 100)),
            (99, 100, &[98], run(99, 100)),
        ] {
            let ask = next_ask(index, wanted, length, LAYOUT, |index| stored.contains(&index));
            assert_eq!(ask, expected, "{index} {wanted} {stored:?}");
        }
        let large = Layout::new(8 << 20);
        assert_eq!(next_ask(1, 9, 1 << 40, large, |index| index == 0), run(1, 1));
    }

    fn judged(ask: Ask, content_range: &str, length: Option<u64>) -> Option<(u64, u64, u64)> {
        let fields = headers(&[("content-range", content_range)]);
        judge(ask, Layout::new(10), &fields, length)
            .map(|part| (part.taken.start, part.taken.end, part.complete))
    }

    /// What a 206 says of itself is held against what was asked and against its content.
    #[test]
    fn rfc9110_15_3_7_what_a_part_holds() {
        for (ask, content_range, length, expected) in [
            (run(1, 1), "bytes 10-19/25", Some(10), Some((10, 19, 25))),
            (run(1, 1), "bytes 10-19/25", None, Some((10, 19, 25))),
            (run(2, 2), "bytes 20-24/25", Some(5), Some((20, 24, 25))),
            (run(0, 9), "bytes 0-24/25", Some(25), Some((0, 24, 25))),
            // More than was asked for, which is left; less, which may be enough.
            (run(1, 1), "bytes 10-24/25", Some(15), Some((10, 19, 25))),
            (run(1, 2), "bytes 10-21/25", Some(12), Some((10, 21, 25))),
            (run(1, 2), "bytes 10-18/25", Some(9), None),
            // Another part; of an unknown whole; another length than it says; none.
            (run(1, 1), "bytes 9-19/25", Some(11), None),
            (run(1, 1), "bytes 11-19/25", Some(9), None),
            (run(1, 1), "bytes 0-9/25", Some(10), None),
            (run(1, 1), "bytes 10-19/*", Some(10), None),
            (run(1, 1), "bytes 10-19/25", Some(9), None),
            (run(1, 1), "bytes 10-19/25", Some(11), None),
            (run(1, 1), "bytes 10-19/15", Some(10), None),
            (run(1, 1), "bytes */25", Some(10), None),
            (run(1, 1), "items 10-19/25", Some(10), None),
            (Ask::End, "bytes 15-24/25", Some(10), Some((20, 24, 25))),
            (Ask::End, "bytes 0-4/5", Some(5), Some((0, 4, 5))),
            (Ask::End, "bytes 0-24/25", Some(25), Some((20, 24, 25))),
            (Ask::End, "bytes 20-24/25", Some(5), None),
            (Ask::End, "bytes 14-23/25", Some(10), None),
        ] {
            assert_eq!(judged(ask, content_range, length), expected, "{ask:?} {content_range}");
        }
        let several = headers(&[
            ("content-range", "bytes 10-19/25"),
            ("content-type", "Multipart/ByteRanges; boundary=x"),
        ]);
        assert_eq!(judge(run(1, 1), Layout::new(10), &several, None), None);
        assert_eq!(judge(run(1, 1), Layout::new(10), &HeaderMap::new(), None), None);
        let whole = headers(&[("content-range", "bytes 0-4/5")]);
        assert!(judge(run(0, 0), Layout::new(10), &whole, Some(5)).unwrap().is_whole());
    }

    /// RFC 9111 §3.4: only a strong validator tells that two parts are of one whole.
    #[test]
    fn rfc9111_3_4_if_range_is_strong() {
        const DATE: (&str, &str) = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        for (fields, expected) in [
            (&[("etag", "\"a\""), DATE][..], Some("\"a\"")),
            (&[("etag", "W/\"a\"")], None),
            (
                &[("last-modified", "Sun, 06 Nov 1994 08:49:30 GMT"), DATE],
                Some("Sun, 06 Nov 1994 08:49:30 GMT"),
            ),
            (&[("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"), DATE], None),
            (
                &[("etag", "W/\"a\""), ("last-modified", "Sun, 06 Nov 1994 08:49:30 GMT"), DATE],
                None,
            ),
            (&[DATE], None),
        ] {
            let value = if_range(&headers(fields));
            assert_eq!(value.as_ref().map(|value| value.to_str().unwrap()), expected, "{fields:?}");
        }
    }
}
