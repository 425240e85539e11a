//! Fields at rest: one block of bytes for all fields of a stored response, where a [`HeaderMap`] takes some hundred bytes
//! beside each of them. It is looked through from its beginning, which for the ten or twenty fields of a response takes no
//! longer than hashing a name, and becomes a [`HeaderMap`] again for each response that is made of it.
//!
//! The block is also the form that lies on disk, see [`crate::store::record`]: for each field its name, the length of its
//! value doubled (plus one for a sensitive one, which HTTP/2 must not index), its value. A name is a number in
//! `NAMES`, or 0, a length and the lower-case text. Numbers are of 7 bits a byte, the lowest first.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

/// A longer list is none of a response that this node would have taken in, and [`HeaderMap`] has a limit of its own.
const MAX_FIELDS: usize = 16_384;
/// Fields that a node puts on a response: Age, Via, Cache-Status and the like.
const MARKS: usize = 6;

macro_rules! names {
    ($($name:literal),* $(,)?) => {
        /// Names that are stored as their place in this list, counted from 1. Sorted. Another list is another format of what
        /// lies on disk: [`crate::store::record::FORMAT`].
        pub(crate) static NAMES: [HeaderName; [$($name),*].len()] = [$(HeaderName::from_static($name)),*];
    };
}

names![
    "accept",
    "accept-ch",
    "accept-encoding",
    "accept-language",
    "accept-patch",
    "accept-ranges",
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "access-control-max-age",
    "access-control-request-headers",
    "access-control-request-method",
    "age",
    "allow",
    "alt-svc",
    "authorization",
    "cache-control",
    "cache-groups",
    "cache-status",
    "cache-tag",
    "cdn-cache-control",
    "clear-site-data",
    "content-digest",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-security-policy",
    "content-security-policy-report-only",
    "content-type",
    "cookie",
    "critical-ch",
    "cross-origin-embedder-policy",
    "cross-origin-opener-policy",
    "cross-origin-resource-policy",
    "date",
    "digest",
    "dnt",
    "etag",
    "expect-ct",
    "expires",
    "host",
    "last-modified",
    "link",
    "location",
    "memento-datetime",
    "nel",
    "no-vary-search",
    "origin",
    "origin-agent-cluster",
    "p3p",
    "permissions-policy",
    "pragma",
    "priority",
    "proxy-status",
    "referer",
    "referrer-policy",
    "refresh",
    "report-to",
    "reporting-endpoints",
    "repr-digest",
    "retry-after",
    "save-data",
    "sec-ch-ua",
    "sec-ch-ua-mobile",
    "sec-ch-ua-platform",
    "sec-fetch-dest",
    "sec-fetch-mode",
    "sec-fetch-site",
    "server",
    "server-timing",
    "set-cookie",
    "sourcemap",
    "speculation-rules",
    "strict-transport-security",
    "surrogate-control",
    "surrogate-key",
    "timing-allow-origin",
    "trailer",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "x-amz-cf-id",
    "x-amz-cf-pop",
    "x-amz-id-2",
    "x-amz-meta-cb-modifiedtime",
    "x-amz-request-id",
    "x-amz-server-side-encryption",
    "x-amz-storage-class",
    "x-amz-version-id",
    "x-amzn-requestid",
    "x-aspnet-version",
    "x-azure-ref",
    "x-backend",
    "x-cache",
    "x-cache-hits",
    "x-cache-status",
    "x-cloud-trace-context",
    "x-content-type-options",
    "x-dns-prefetch-control",
    "x-download-options",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-frame-options",
    "x-generator",
    "x-goog-generation",
    "x-goog-hash",
    "x-goog-metageneration",
    "x-goog-storage-class",
    "x-goog-stored-content-encoding",
    "x-goog-stored-content-length",
    "x-guploader-uploadid",
    "x-ms-blob-type",
    "x-ms-lease-status",
    "x-ms-request-id",
    "x-ms-version",
    "x-permitted-cross-domain-policies",
    "x-powered-by",
    "x-rate-limit",
    "x-request-id",
    "x-requested-with",
    "x-robots-tag",
    "x-runtime",
    "x-served-by",
    "x-timer",
    "x-trace-id",
    "x-ua-compatible",
    "x-varnish",
    "x-xss-protection",
];

/// The lines of a message's fields, however they are kept: what rules look at that judge a stored response as well as one that
/// has just come.
pub trait Lines {
    /// The values of the lines with this name, in order.
    fn lines<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a [u8]>;

    /// The first of them.
    fn line(&self, name: &HeaderName) -> Option<&[u8]>;

    /// Whether there is one.
    fn has(&self, name: &HeaderName) -> bool {
        self.line(name).is_some()
    }

    /// All of them, as a message of our own has them.
    fn to_header_map(&self) -> HeaderMap;
}

impl Lines for HeaderMap {
    fn lines<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a [u8]> {
        self.get_all(name).iter().map(HeaderValue::as_bytes)
    }

    fn line(&self, name: &HeaderName) -> Option<&[u8]> {
        self.get(name).map(HeaderValue::as_bytes)
    }

    fn to_header_map(&self) -> HeaderMap {
        self.clone()
    }
}

impl<T: Lines> Lines for &T {
    fn lines<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a [u8]> {
        T::lines(self, name)
    }

    fn line(&self, name: &HeaderName) -> Option<&[u8]> {
        T::line(self, name)
    }

    fn to_header_map(&self) -> HeaderMap {
        T::to_header_map(self)
    }
}

/// Fields at rest.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Fields<'b> {
    block: &'b [u8],
}

/// Fields at rest that a response shares.
#[derive(Clone, Debug)]
pub struct SharedFields {
    block: Bytes,
}

/// A field at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    name: Name<'a>,
    /// Its value.
    pub value: &'a [u8],
    /// HTTP/2 must not index it (RFC 7541 §7.1.3).
    pub is_sensitive: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name<'a> {
    Known(&'static HeaderName),
    Text(&'a [u8]),
}

impl Name<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Known(name) => name.as_str().as_bytes(),
            Self::Text(text) => text,
        }
    }

    fn to_name(self) -> Option<HeaderName> {
        match self {
            Self::Known(name) => Some(name.clone()),
            Self::Text(text) => HeaderName::from_lowercase(text).ok(),
        }
    }
}

impl Field<'_> {
    /// Its name, lower-case.
    pub fn name(&self) -> &[u8] {
        self.name.bytes()
    }
}

impl<'b> Fields<'b> {
    /// Those of a block that [`push_fields`] has written.
    pub(crate) const fn of(block: &'b [u8]) -> Self {
        Self { block }
    }

    /// Those of a block that anybody has written, if it is one.
    pub(crate) fn checked(block: &'b [u8]) -> Option<Self> {
        let mut rest = block;
        let mut count = 0;
        while !rest.is_empty() {
            let field = take_field(&mut rest)?;
            let visible = |b: &u8| *b == b'\t' || (*b >= b' ' && *b != 0x7f);
            count += 1;
            if count > MAX_FIELDS
                || field.name.to_name().is_none()
                || !field.value.iter().all(visible)
            {
                return None;
            }
        }
        Some(Self { block })
    }

    /// All of them. Those of one name stand together, in order.
    pub fn iter(&self) -> impl Iterator<Item = Field<'b>> + use<'b> {
        fields(self.block)
    }

    /// The values of those with this name, in order.
    fn named<'a>(self, name: &'a HeaderName) -> impl Iterator<Item = &'b [u8]> + use<'a, 'b> {
        let name = name.as_str().as_bytes();
        self.iter().filter(move |field| field.name() == name).map(|field| field.value)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.block.is_empty()
    }
}

impl std::fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.to_header_map().fmt(f)
    }
}

impl Lines for Fields<'_> {
    fn lines<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a [u8]> {
        self.named(name)
    }

    fn line(&self, name: &HeaderName) -> Option<&[u8]> {
        self.named(name).next()
    }

    fn to_header_map(&self) -> HeaderMap {
        SharedFields::of(Bytes::copy_from_slice(self.block)).to_header_map()
    }
}

impl SharedFields {
    /// Those of a block that [`push_fields`] has written.
    pub(crate) const fn of(block: Bytes) -> Self {
        Self { block }
    }

    fn fields(&self) -> Fields<'_> {
        Fields::of(&self.block)
    }
}

impl Lines for SharedFields {
    fn lines<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a [u8]> {
        self.fields().named(name)
    }

    fn line(&self, name: &HeaderName) -> Option<&[u8]> {
        self.fields().named(name).next()
    }

    /// Its values are slices of the block.
    fn to_header_map(&self) -> HeaderMap {
        let block = &self.block;
        // A field of a response takes some thirty bytes. What it gets besides has its place, too.
        let likely = (block.len() / 24).min(MAX_FIELDS);
        let mut headers = HeaderMap::with_capacity(likely + MARKS);
        let mut rest = &block[..];
        while let Some(field) = take_field(&mut rest) {
            let end = block.len() - rest.len();
            let Some(name) = field.name.to_name() else { continue };
            // What stands in a block was a value before.
            let value = block.slice(end - field.value.len()..end);
            let Ok(mut value) = HeaderValue::from_maybe_shared(value) else { continue };
            value.set_sensitive(field.is_sensitive);
            // Nor does more stand there than a map takes.
            let _ = headers.try_append(name, value);
        }
        headers
    }
}

/// Writes fields.
pub(crate) fn push_fields(block: &mut Vec<u8>, headers: &HeaderMap) {
    let length = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 6;
    block.reserve(headers.iter().map(length).sum());
    for (name, value) in headers {
        push_name(block, name);
        push_number(block, (value.len() as u64) << 1 | u64::from(value.is_sensitive()));
        block.extend_from_slice(value.as_bytes());
    }
}

fn fields(mut block: &[u8]) -> impl Iterator<Item = Field<'_>> {
    std::iter::from_fn(move || take_field(&mut block))
}

fn take_field<'a>(block: &mut &'a [u8]) -> Option<Field<'a>> {
    let name = take(block)?;
    let number = take_number(block)?;
    let value = take_bytes(block, number >> 1)?;
    Some(Field { name, value, is_sensitive: number & 1 == 1 })
}

/// Writes a name.
pub(crate) fn push_name(block: &mut Vec<u8>, name: &HeaderName) {
    let text = name.as_str();
    match NAMES.binary_search_by(|known| known.as_str().cmp(text)) {
        // The list is shorter than what a byte holds.
        Ok(place) => block.push((place + 1) as u8),
        Err(_) => {
            block.push(0);
            push_number(block, text.len() as u64);
            block.extend_from_slice(text.as_bytes());
        }
    }
}

/// Takes a name off the beginning.
pub(crate) fn take_name(block: &mut &[u8]) -> Option<HeaderName> {
    take(block)?.to_name()
}

/// Goes on after a name.
pub(crate) fn pass_name(block: &mut &[u8]) -> Option<()> {
    take(block).map(drop)
}

fn take<'a>(block: &mut &'a [u8]) -> Option<Name<'a>> {
    let (number, rest) = block.split_first()?;
    *block = rest;
    match usize::from(*number) {
        0 => {
            let length = take_number(block)?;
            take_bytes(block, length).map(Name::Text)
        }
        place => NAMES.get(place - 1).map(Name::Known),
    }
}

/// Writes a number, 7 bits a byte, the lowest first.
pub(crate) fn push_number(block: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        block.push(number as u8 | 0x80);
        number >>= 7;
    }
    block.push(number as u8);
}

/// Takes a number off the beginning.
pub(crate) fn take_number(block: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (byte, rest) = block.split_first()?;
        *block = rest;
        let bits = u64::from(byte & 0x7f);
        // Bits that would be shifted out.
        if bits << shift >> shift != bits {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Takes so many bytes off the beginning.
pub(crate) fn take_bytes<'a>(block: &mut &'a [u8], length: u64) -> Option<&'a [u8]> {
    let (bytes, rest) = block.split_at_checked(usize::try_from(length).ok()?)?;
    *block = rest;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use http::header::{CACHE_CONTROL, ETAG, SET_COOKIE};
    use proptest::prelude::*;

    use super::*;

    fn headers(fields: &[(&str, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_bytes(value).unwrap(),
            );
        }
        headers
    }

    fn written(headers: &HeaderMap) -> Vec<u8> {
        let mut block = Vec::new();
        push_fields(&mut block, headers);
        block
    }

    #[test]
    fn known_names_are_sorted_and_few() {
        assert!(NAMES.is_sorted_by(|a, b| a.as_str() < b.as_str()));
        assert!(NAMES.len() < usize::from(u8::MAX));
    }

    #[test]
    fn what_was_put_in_comes_out() {
        let mut map = headers(&[
            ("etag", b"\"a\""),
            ("set-cookie", b"a=1"),
            ("x-of-its-own", b"\xe4 \tb"),
            ("set-cookie", b"b=2"),
            ("cache-control", b""),
        ]);
        if let Some(value) = map.get_mut(SET_COOKIE) {
            value.set_sensitive(true);
        }
        let block = written(&map);
        let fields = Fields::of(&block);
        assert_eq!(fields.len(), 5);
        assert_eq!(fields.line(&ETAG), Some(&b"\"a\""[..]));
        assert_eq!(fields.line(&CACHE_CONTROL), Some(&b""[..]));
        assert_eq!(fields.lines(&SET_COOKIE).collect::<Vec<_>>(), [b"a=1", b"b=2"]);
        assert!(!fields.has(&HeaderName::from_static("x-of-its-own-2")));
        let back = fields.to_header_map();
        assert_eq!(back, map);
        let sensitive: Vec<_> =
            back.get_all(SET_COOKIE).iter().map(HeaderValue::is_sensitive).collect();
        assert_eq!(sensitive, [true, false]);
        assert_eq!(Fields::checked(&block), Some(fields));
    }

    #[test]
    fn what_is_no_block_is_refused() {
        let known = NAMES.len() as u8;
        for block in [
            &[0][..],
            &[1],
            &[1, 2],
            &[known + 1, 0],
            &[0, 0, 0],
            &[0, 1, b'A', 0],
            &[0, 1, b' ', 0],
            &[1, 2, b'\n'],
            &[1, 2, 0x7f],
            &[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
            &[1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0],
        ] {
            assert_eq!(Fields::checked(block), None, "{block:?}");
        }
        assert!(Fields::checked(&[known, 2, b'a']).is_some());
        let many = [1, 0].repeat(MAX_FIELDS);
        let most = Fields::checked(&many).unwrap();
        assert_eq!(most.to_header_map().len(), MAX_FIELDS);
        assert_eq!(Fields::checked(&[1, 0].repeat(MAX_FIELDS + 1)), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(block in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Some(fields) = Fields::checked(&block) {
                let map = fields.to_header_map();
                prop_assert_eq!(map.len(), fields.len());
                prop_assert_eq!(Fields::of(&written(&map)).to_header_map(), map);
            }
        }

        #[test]
        fn numbers_survive(number in any::<u64>()) {
            let mut block = Vec::new();
            push_number(&mut block, number);
            let mut rest = &block[..];
            prop_assert_eq!(take_number(&mut rest), Some(number));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn maps_survive(
            fields in proptest::collection::vec(("[a-z-]{1,12}|etag|set-cookie", "[ -~]{0,200}"), 0..20),
        ) {
            let fields: Vec<_> =
                fields.iter().map(|(name, value)| (&name[..], value.trim().as_bytes())).collect();
            let map = headers(&fields);
            let block = written(&map);
            let block = Fields::of(&block);
            prop_assert_eq!(block.to_header_map(), map.clone());
            for name in map.keys() {
                let lines: Vec<_> = map.lines(name).collect();
                prop_assert_eq!(block.lines(name).collect::<Vec<_>>(), lines);
            }
        }
    }
}
