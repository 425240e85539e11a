//! Byte ranges (RFC 9110 §14): parsing, resolving against a length, and the fields of 206 and 416.
//!
//! Work and output are bounded by [`MAX_RANGES`] and by the representation itself: overlapping ranges are merged, so no
//! request is answered with more bytes than there are.

use http::header::{CONTENT_RANGE, RANGE};
use http::{HeaderMap, HeaderValue};

/// First and last byte, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// Last byte, at least `start`.
    pub end: u64,
}

impl ByteRange {
    /// How many bytes.
    pub const fn length(self) -> u64 {
        (self.end - self.start).saturating_add(1)
    }
}

/// What a Range field asks of a representation of known length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// All of it with 200: no Range, one that is not understood, or one that is abusive.
    Full,
    /// One part with 206.
    Single(ByteRange),
    /// Several parts with 206 multipart/byteranges, in the order asked for, overlapping and touching ones merged.
    Multiple(Vec<ByteRange>),
    /// 416.
    Unsatisfiable,
}

/// One range of a request, before the length is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeSpec {
    /// `first-last`, or `first-`.
    From {
        /// First byte.
        first: u64,
        /// Last byte, where said.
        last: Option<u64>,
    },
    /// `-length`.
    Suffix(u64),
}

/// How many ranges one request may ask for: more gets the whole representation.
pub const MAX_RANGES: usize = 64;

/// The ranges of a request; `None` when there is none that we act on (absent, several Range fields, another unit, invalid,
/// too many): the request is then answered as if it had no Range.
pub fn parse(request: &HeaderMap) -> Option<Vec<RangeSpec>> {
    let mut lines = request.get_all(RANGE).iter();
    let line = lines.next()?.as_bytes();
    if lines.next().is_some() {
        return None;
    }
    let (unit, set) = line.split_at_checked(6)?;
    if !unit.eq_ignore_ascii_case(b"bytes=") {
        return None;
    }
    let mut specs = Vec::new();
    for member in set.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
        if member.is_empty() {
            continue;
        }
        if specs.len() == MAX_RANGES {
            return None;
        }
        let dash = member.iter().position(|b| *b == b'-')?;
        let (first, last) = (&member[..dash], &member[dash + 1..]);
        specs.push(match (first.is_empty(), last.is_empty()) {
            (true, true) => return None,
            (true, false) => RangeSpec::Suffix(number(last)?),
            (false, true) => RangeSpec::From { first: number(first)?, last: None },
            (false, false) => {
                let (first, last) = (number(first)?, number(last)?);
                if last < first {
                    return None;
                }
                RangeSpec::From { first, last: Some(last) }
            }
        });
    }
    if specs.is_empty() { None } else { Some(specs) }
}

/// Digits only; what is too large to hold is as large as can be.
fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |sum, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        Some(sum.saturating_mul(10).saturating_add(digit))
    })
}

/// What the ranges mean for a representation of this length.
pub fn resolve(specs: &[RangeSpec], length: u64) -> Resolved {
    let Some(last_byte) = length.checked_sub(1) else {
        // No byte can be sent; a suffix of nothing is nothing, which 206 cannot say.
        let suffix = specs.iter().any(|spec| matches!(spec, RangeSpec::Suffix(1..)));
        return if suffix || specs.is_empty() { Resolved::Full } else { Resolved::Unsatisfiable };
    };
    if specs.is_empty() || specs.len() > MAX_RANGES {
        return Resolved::Full;
    }
    let mut parts: Vec<ByteRange> = Vec::with_capacity(specs.len());
    for spec in specs {
        let range = match *spec {
            RangeSpec::From { first, .. } if first > last_byte => continue,
            RangeSpec::From { first, last } => ByteRange {
                start: first,
                end: last.map_or(last_byte, |last| last.min(last_byte)).max(first),
            },
            RangeSpec::Suffix(0) => continue,
            RangeSpec::Suffix(wanted) => {
                ByteRange { start: length.saturating_sub(wanted), end: last_byte }
            }
        };
        add_merged(&mut parts, range);
    }
    match parts.as_slice() {
        [] => Resolved::Unsatisfiable,
        [only] => Resolved::Single(*only),
        _ => Resolved::Multiple(parts),
    }
}

/// Adds a range, joined with all that it overlaps or touches, at the place of the first of those.
fn add_merged(parts: &mut Vec<ByteRange>, range: ByteRange) {
    let mut joined = range;
    let mut place = None;
    let mut at = 0;
    while let Some(part) = parts.get(at).copied() {
        let apart =
            part.end.saturating_add(1) < joined.start || joined.end.saturating_add(1) < part.start;
        if apart {
            at += 1;
            continue;
        }
        joined = ByteRange { start: joined.start.min(part.start), end: joined.end.max(part.end) };
        parts.remove(at);
        place = Some(place.map_or(at, |place: usize| place.min(at)));
        // Grown, it may now touch one that was passed over.
        at = 0;
    }
    let place = place.unwrap_or(parts.len()).min(parts.len());
    parts.insert(place, joined);
}

/// Content-Range of a 206 part.
pub fn content_range(range: ByteRange, length: u64) -> HeaderValue {
    value(&format!("bytes {}-{}/{length}", range.start, range.end))
}

/// Content-Range of a 416.
pub fn content_range_unsatisfied(length: u64) -> HeaderValue {
    value(&format!("bytes */{length}"))
}

/// Of text that is made of digits and such.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// A Content-Range that we received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentRange {
    /// A 206's.
    Part {
        /// Which bytes.
        range: ByteRange,
        /// Of how many, where known.
        complete: Option<u64>,
    },
    /// A 416's.
    Unsatisfied {
        /// The representation's length.
        complete: u64,
    },
}

impl ContentRange {
    /// From a response; `None` when absent, repeated or invalid (last before first, or last not below the length).
    pub fn of(response: &HeaderMap) -> Option<Self> {
        let mut lines = response.get_all(CONTENT_RANGE).iter();
        let line = lines.next()?.as_bytes();
        if lines.next().is_some() {
            return None;
        }
        let (unit, rest) = line.split_at_checked(6)?;
        if !unit.eq_ignore_ascii_case(b"bytes ") {
            return None;
        }
        let slash = rest.iter().position(|b| *b == b'/')?;
        let (range, complete) = (&rest[..slash], &rest[slash + 1..]);
        // Here a number too large to hold is no length of anything.
        let exact = |text: &[u8]| number(text).filter(|n| *n < u64::MAX);
        if range == b"*" {
            return Some(Self::Unsatisfied { complete: exact(complete)? });
        }
        let complete = if complete == b"*" { None } else { Some(exact(complete)?) };
        let dash = range.iter().position(|b| *b == b'-')?;
        let (start, end) = (exact(&range[..dash])?, exact(&range[dash + 1..])?);
        let valid = start <= end && complete.is_none_or(|complete| end < complete);
        valid.then_some(Self::Part { range: ByteRange { start, end }, complete })
    }
}

/// The frame of a multipart/byteranges response (RFC 9110 §14.6): the caller writes `part_head`, the part's bytes, and so
/// on, and the `end`.
#[derive(Clone, Debug)]
pub struct Multipart {
    boundary: String,
    content_type: Option<HeaderValue>,
    length: u64,
}

impl Multipart {
    /// `boundary` must not occur in the content: the caller gives random bits. `content_type` and `length` are those of the
    /// representation.
    pub fn new(boundary: u128, content_type: Option<&HeaderValue>, length: u64) -> Self {
        Self { boundary: format!("{boundary:032x}"), content_type: content_type.cloned(), length }
    }

    /// Content-Type of the whole response.
    pub fn content_type(&self) -> HeaderValue {
        value(&format!("multipart/byteranges; boundary={}", self.boundary))
    }

    /// What stands before the bytes of a part.
    pub fn part_head(&self, range: ByteRange) -> Vec<u8> {
        let mut head = format!("\r\n--{}\r\n", self.boundary).into_bytes();
        if let Some(content_type) = &self.content_type {
            head.extend_from_slice(b"Content-Type: ");
            head.extend_from_slice(content_type.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"Content-Range: ");
        head.extend_from_slice(content_range(range, self.length).as_bytes());
        head.extend_from_slice(b"\r\n\r\n");
        head
    }

    /// What stands after the last part.
    pub fn end(&self) -> Vec<u8> {
        format!("\r\n--{}--\r\n", self.boundary).into_bytes()
    }

    /// Content-Length of the whole response.
    pub fn content_length(&self, parts: &[ByteRange]) -> u64 {
        let frame = parts.iter().map(|part| self.part_head(*part).len() as u64).sum::<u64>()
            + self.end().len() as u64;
        parts.iter().fold(frame, |sum, part| sum.saturating_add(part.length()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ask(value: &str, length: u64) -> Resolved {
        let mut request = HeaderMap::new();
        request.insert(RANGE, HeaderValue::from_str(value).unwrap());
        parse(&request).map_or(Resolved::Full, |specs| resolve(&specs, length))
    }

    fn single(start: u64, end: u64) -> Resolved {
        Resolved::Single(ByteRange { start, end })
    }

    fn several(ranges: &[(u64, u64)]) -> Resolved {
        Resolved::Multiple(ranges.iter().map(|&(start, end)| ByteRange { start, end }).collect())
    }

    /// Pitfalls 20 and 21.
    #[test]
    fn rfc9110_14_1_2_byte_ranges() {
        use Resolved::{Full, Unsatisfiable};
        for (value, length, expected) in [
            ("bytes=0-0", 10, single(0, 0)),
            ("bytes=0-9", 10, single(0, 9)),
            ("bytes=5-", 10, single(5, 9)),
            ("bytes=5-99", 10, single(5, 9)),
            ("bytes=-3", 10, single(7, 9)),
            ("bytes=-99", 10, single(0, 9)),
            ("Bytes=0-4", 10, single(0, 4)),
            ("bytes= 0-4 , ", 10, single(0, 4)),
            ("bytes=0-99999999999999999999999", 10, single(0, 9)),
            ("bytes=10-", 10, Unsatisfiable),
            ("bytes=99999999999999999999999-", 10, Unsatisfiable),
            ("bytes=-0", 10, Unsatisfiable),
            ("bytes=10-11, -0", 10, Unsatisfiable),
            ("bytes=0-0", 0, Unsatisfiable),
            ("bytes=-5", 0, Full),
            ("bytes=-0", 0, Unsatisfiable),
            ("bytes=", 10, Full),
            ("bytes=,", 10, Full),
            ("bytes=-", 10, Full),
            ("bytes=4-1", 10, Full),
            ("bytes=0-1, 4-1", 10, Full),
            ("bytes=a-b", 10, Full),
            ("bytes=1", 10, Full),
            ("bytes=+1-2", 10, Full),
            ("bytes=1-2-3", 10, Full),
            ("bytes=0x1-2", 10, Full),
            ("bytes = 0-1", 10, Full),
            ("lines=0-1", 10, Full),
            ("0-1", 10, Full),
            ("bytes=0-1, 5-6", 10, several(&[(0, 1), (5, 6)])),
            ("bytes=5-6, 0-1", 10, several(&[(5, 6), (0, 1)])),
            ("bytes=0-1, 20-30", 10, single(0, 1)),
            ("bytes=0-1, 2-3", 10, single(0, 3)),
            ("bytes=0-5, 3-8", 10, single(0, 8)),
            ("bytes=0-0, 5-6, 1-4", 10, single(0, 6)),
            ("bytes=0-1, 8-9, 4-5, 3-6", 10, several(&[(0, 1), (8, 9), (3, 6)])),
            ("bytes=0-, -1", 10, single(0, 9)),
        ] {
            assert_eq!(ask(value, length), expected, "{value} of {length}");
        }
    }

    /// Pitfall 20: many ranges are not worth an answer in parts.
    #[test]
    fn pitfall_20_many_ranges() {
        let of = |n: usize| {
            let ranges: Vec<_> = (0..n).map(|i| format!("{}-{}", i * 3, i * 3)).collect();
            ask(&format!("bytes={}", ranges.join(",")), 100_000)
        };
        assert!(matches!(of(MAX_RANGES), Resolved::Multiple(parts) if parts.len() == MAX_RANGES));
        assert_eq!(of(MAX_RANGES + 1), Resolved::Full);
        let mut twice = HeaderMap::new();
        twice.append(RANGE, HeaderValue::from_static("bytes=0-1"));
        twice.append(RANGE, HeaderValue::from_static("bytes=0-1"));
        assert_eq!(parse(&twice), None);
    }

    #[test]
    fn rfc9110_14_4_content_range() {
        let part = |start, end, complete| {
            Some(ContentRange::Part { range: ByteRange { start, end }, complete })
        };
        for (text, expected) in [
            ("bytes 0-4/10", part(0, 4, Some(10))),
            ("bytes 0-4/*", part(0, 4, None)),
            ("bytes */10", Some(ContentRange::Unsatisfied { complete: 10 })),
            ("bytes */*", None),
            ("bytes 4-0/10", None),
            ("bytes 0-10/10", None),
            ("bytes 0-4", None),
            ("bytes=0-4/10", None),
            ("bytes 0-99999999999999999999999/*", None),
            ("bytes -4/10", None),
            ("", None),
        ] {
            let mut response = HeaderMap::new();
            response.insert(CONTENT_RANGE, HeaderValue::from_str(text).unwrap());
            assert_eq!(ContentRange::of(&response), expected, "{text}");
        }
        assert_eq!(content_range_unsatisfied(10), "bytes */10");
    }

    #[test]
    fn rfc9110_14_6_multipart() {
        let text = HeaderValue::from_static("text/plain");
        let frame = Multipart::new(0xabc, Some(&text), 10);
        assert_eq!(
            frame.content_type(),
            "multipart/byteranges; boundary=00000000000000000000000000000abc"
        );
        let parts = [ByteRange { start: 0, end: 1 }, ByteRange { start: 5, end: 9 }];
        let mut body = Vec::new();
        for part in parts {
            body.extend(frame.part_head(part));
            body.extend(b"0123456789"[part.start as usize..=part.end as usize].iter());
        }
        body.extend(frame.end());
        assert_eq!(body.len() as u64, frame.content_length(&parts));
        let expected = "\r\n--00000000000000000000000000000abc\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01\
            \r\n--00000000000000000000000000000abc\r\nContent-Type: text/plain\r\nContent-Range: bytes 5-9/10\r\n\r\n56789\
            \r\n--00000000000000000000000000000abc--\r\n";
        assert_eq!(String::from_utf8(body).unwrap(), expected);
    }

    fn spec() -> impl Strategy<Value = RangeSpec> {
        prop_oneof![
            (0..60u64, proptest::option::of(0..60u64)).prop_map(|(first, more)| RangeSpec::From {
                first,
                last: more.map(|more| first + more)
            }),
            (0..60u64).prop_map(RangeSpec::Suffix),
        ]
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80), length in any::<u64>()) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let mut headers = HeaderMap::new();
                headers.insert(RANGE, value.clone());
                headers.insert(CONTENT_RANGE, value);
                let _ = parse(&headers).map(|specs| resolve(&specs, length));
                let _ = ContentRange::of(&headers);
            }
        }

        /// The parts cover exactly the bytes that were asked for, none of them twice.
        #[test]
        fn parts_are_the_union(specs in proptest::collection::vec(spec(), 1..10), length in 1..50u64) {
            let wanted: Vec<bool> = (0..length)
                .map(|byte| specs.iter().any(|spec| match *spec {
                    RangeSpec::From { first, last } => byte >= first && last.is_none_or(|last| byte <= last),
                    RangeSpec::Suffix(n) => byte + n >= length,
                }))
                .collect();
            let parts = match resolve(&specs, length) {
                Resolved::Unsatisfiable => vec![],
                Resolved::Single(part) => vec![part],
                Resolved::Multiple(parts) => parts,
                Resolved::Full => unreachable!(),
            };
            let mut sent = vec![0; usize::try_from(length).unwrap()];
            for part in &parts {
                for byte in part.start..=part.end {
                    sent[usize::try_from(byte).unwrap()] += 1;
                }
            }
            for (byte, wanted) in wanted.iter().enumerate() {
                prop_assert_eq!(sent[byte], i32::from(*wanted), "byte {}", byte);
            }
        }

        #[test]
        fn content_ranges_survive_a_round_trip(start in 0..1u64 << 62, more in 0..1u64 << 61, after in 1..1u64 << 60) {
            let range = ByteRange { start, end: start + more };
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_RANGE, content_range(range, range.end + after));
            prop_assert_eq!(
                ContentRange::of(&headers),
                Some(ContentRange::Part { range, complete: Some(range.end + after) })
            );
        }
    }
}
