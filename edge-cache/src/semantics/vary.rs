//! Which stored variant a request selects (RFC 9111 §4.1).
//!
//! A store keeps, per cache key, the few [`Vary`] lists that its responses have had ([`VaryLists`]), and each response
//! under its [`VariantKey`]. A lookup computes one variant key per list and asks for each; the newest that is found
//! (by Date) is the one selected.
//!
//! Request fields are compared by meaning where that is known to be the same: lines are joined, the space around commas
//! and at the ends does not count, Accept-Encoding counts by the codings that this cache tells apart, Accept-Language
//! without regard to case. Everything else counts byte by byte.

use http::header::{ACCEPT_ENCODING, ACCEPT_LANGUAGE, VARY};
use http::{HeaderMap, HeaderName};
use xxhash_rust::xxh3::Xxh3;

use super::Policy;
use super::headers::can_be_sent_on_fill;

/// More names than this in one Vary are taken for `*`.
const MAX_NAMES: usize = 32;

/// The names that a response's Vary lists: sorted, lower-case, without repetition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Vary {
    /// The request fields named here selected it; none for a response without Vary.
    Fields(Box<[HeaderName]>),
    /// `*`: no later request selects it.
    Star,
}

/// Hash of the request fields that a Vary list names, with their normalised values. Stable over nodes and versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VariantKey(pub u128);

impl VariantKey {
    /// The variant of responses without Vary.
    pub const NONE: Self = Self(0);
    /// No request's variant: of a response that answers nobody but the client that it was fetched for.
    pub const NOBODYS: Self = Self(u128::MAX);
}

impl Vary {
    /// From a response's fields. A name that is none counts as `*`: never a wrong match.
    pub fn of(response: &HeaderMap) -> Self {
        let mut names = Vec::new();
        for line in response.get_all(VARY) {
            for member in line.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii) {
                if member.is_empty() {
                    continue;
                }
                match HeaderName::from_bytes(member) {
                    Ok(name) if member != b"*" && names.len() < MAX_NAMES => names.push(name),
                    _ => return Self::Star,
                }
            }
        }
        names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        names.dedup();
        Self::Fields(names.into())
    }

    /// From names that are sorted and differ; `None` if they are not.
    pub(crate) fn of_names(names: Vec<HeaderName>) -> Option<Self> {
        let is_set = names.is_sorted_by(|a, b| a.as_str() < b.as_str());
        is_set.then(|| Self::Fields(names.into()))
    }

    /// Without the fields that no fill ever carries under this policy: the origin does not see them, so they cannot select
    /// anything, and would only split what is stored into copies.
    #[must_use]
    pub fn of_sent(self, policy: &Policy) -> Self {
        match self {
            Self::Star => Self::Star,
            Self::Fields(names) => {
                let sent = |name: &HeaderName| can_be_sent_on_fill(name, policy);
                Self::Fields(names.into_iter().filter(sent).collect())
            }
        }
    }

    /// With these names, too: of fields that were sent only because other responses of the key vary by them. A response
    /// that forgets to name them may have been shaped by them all the same.
    #[must_use]
    pub fn with(self, names: &[HeaderName]) -> Self {
        match self {
            Self::Fields(own) if names.iter().any(|name| !own.contains(name)) => {
                let mut all: Vec<_> = own.into_iter().chain(names.iter().cloned()).collect();
                all.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
                all.dedup();
                Self::Fields(all.into())
            }
            same => same,
        }
    }

    /// The names, none for `*`.
    pub fn names(&self) -> &[HeaderName] {
        match self {
            Self::Fields(names) => names,
            Self::Star => &[],
        }
    }

    /// The variant that these request fields select; `None` for `*`.
    pub fn variant(&self, request: &HeaderMap) -> Option<VariantKey> {
        let names = match self {
            Self::Star => return None,
            Self::Fields(names) if names.is_empty() => return Some(VariantKey::NONE),
            Self::Fields(names) => names,
        };
        let mut hasher = Xxh3::new();
        for name in names {
            hasher.update(name.as_str().as_bytes());
            // Neither 0 nor 1 can stand in a name or a value: absent and empty differ, and no value runs into the next.
            if *name == ACCEPT_ENCODING {
                match normalised_accept_encoding(request) {
                    Some(codings) => {
                        hasher.update(&[1]);
                        hasher.update(codings.as_bytes());
                    }
                    None => hasher.update(&[0]),
                }
            } else if request.contains_key(name) {
                hasher.update(&[1]);
                let mut first = true;
                for line in request.get_all(name) {
                    if !std::mem::take(&mut first) {
                        hasher.update(b",");
                    }
                    hash_value(&mut hasher, line.as_bytes(), *name == ACCEPT_LANGUAGE);
                }
            } else {
                hasher.update(&[0]);
            }
            hasher.update(&[0]);
        }
        // 0 is taken by responses without Vary; a hash that is 0 by chance would only be one more miss-match in 2^128.
        Some(VariantKey(hasher.digest128()))
    }
}

/// Hashes a value without the space around its commas, those in quotes left alone.
fn hash_value(hasher: &mut Xxh3, value: &[u8], fold_case: bool) {
    let mut quoted = false;
    let mut escaped = false;
    let mut start = 0;
    let mut add = |piece: &[u8]| {
        if fold_case {
            for b in piece.iter().filter(|b| !matches!(b, b' ' | b'\t')) {
                hasher.update(&[b.to_ascii_lowercase()]);
            }
        } else {
            hasher.update(piece.trim_ascii());
        }
    };
    for (i, b) in value.iter().enumerate() {
        match b {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                add(&value[start..i]);
                add(b",");
                start = i + 1;
            }
            _ => {}
        }
    }
    add(&value[start..]);
}

/// The Vary lists under one cache key, newest first, bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VaryLists {
    lists: Vec<Vary>,
}

impl VaryLists {
    /// How many different lists one key keeps: an origin that sends more is broken or hostile.
    pub const MAX: usize = 4;

    /// Makes a list the newest; the oldest beyond [`Self::MAX`] is dropped. `*` is not kept.
    pub fn note(&mut self, vary: &Vary) {
        if *vary == Vary::Star || self.lists.first() == Some(vary) {
            return;
        }
        self.lists.retain(|known| known != vary);
        self.lists.truncate(Self::MAX - 1);
        self.lists.insert(0, vary.clone());
    }

    /// Whether nothing was stored under the key.
    pub fn is_empty(&self) -> bool {
        self.lists.is_empty()
    }

    /// The lists, newest first.
    pub fn iter(&self) -> impl Iterator<Item = &Vary> {
        self.lists.iter()
    }

    /// All names in them.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.lists.iter().flat_map(Vary::names)
    }

    /// The variant keys to try for a request, in order (newest list first). Empty when nothing is stored.
    pub fn variants(&self, request: &HeaderMap) -> impl Iterator<Item = VariantKey> {
        self.lists.iter().filter_map(|vary| vary.variant(request))
    }
}

/// Content codings that we tell apart, in the one spelling that is sent to the origin of a cacheable route and is part of
/// the variant. `None` when the request has no Accept-Encoding or accepts none of them.
pub fn normalised_accept_encoding(request: &HeaderMap) -> Option<&'static str> {
    const BR: u8 = 1;
    const GZIP: u8 = 2;
    const ZSTD: u8 = 4;
    let (mut accepted, mut refused, mut any) = (0u8, 0u8, false);
    for line in request.get_all(ACCEPT_ENCODING) {
        for member in line.as_bytes().split(|b| *b == b',') {
            let mut parts = member.split(|b| *b == b';').map(<[u8]>::trim_ascii);
            let coding = parts.next().unwrap_or_default();
            let refuses = parts.any(is_zero_weight);
            let bit = if coding.eq_ignore_ascii_case(b"br") {
                BR
            } else if coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip")
            {
                GZIP
            } else if coding.eq_ignore_ascii_case(b"zstd") {
                ZSTD
            } else {
                any |= coding == b"*" && !refuses;
                continue;
            };
            if refuses {
                refused |= bit;
            } else {
                accepted |= bit;
            }
        }
    }
    if any {
        accepted |= BR | GZIP | ZSTD;
    }
    match accepted & !refused {
        0 => None,
        1 => Some("br"),
        2 => Some("gzip"),
        3 => Some("gzip, br"),
        4 => Some("zstd"),
        5 => Some("br, zstd"),
        6 => Some("gzip, zstd"),
        _ => Some("gzip, br, zstd"),
    }
}

/// `q=0`, `q=0.000`.
fn is_zero_weight(parameter: &[u8]) -> bool {
    let Some((name, value)) = parameter.split_at_checked(2) else { return false };
    name.eq_ignore_ascii_case(b"q=")
        && value.first() == Some(&b'0')
        && value.iter().all(|b| matches!(b, b'0' | b'.'))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn vary(lines: &[&str]) -> Vary {
        Vary::of(&headers(&lines.iter().map(|line| ("vary", *line)).collect::<Vec<_>>()))
    }

    /// Pitfall 12: `*` anywhere never matches.
    #[test]
    fn rfc9111_4_1_star_anywhere() {
        for lines in [
            &["*"][..],
            &["*, *"],
            &["*", "*"],
            &[", *"],
            &["", "*"],
            &["*, Foo"],
            &["Foo, *"],
            &["b\u{e4}d"],
            &["a b"],
        ] {
            assert_eq!(vary(lines), Vary::Star, "{lines:?}");
            assert_eq!(vary(lines).variant(&HeaderMap::new()), None);
        }
        let many = (0..=MAX_NAMES).map(|i| format!("f{i}")).collect::<Vec<_>>().join(",");
        assert_eq!(vary(&[&many]), Vary::Star);
    }

    #[test]
    fn names_are_a_set() {
        assert_eq!(vary(&["Foo, bar", "FOO,,"]), vary(&["bar, foo"]));
        assert_eq!(vary(&[]), vary(&[""]));
        assert_eq!(vary(&[]).variant(&headers(&[("a", "b")])), Some(VariantKey::NONE));
    }

    /// RFC 9111 §4.1: which requests select the same variant.
    #[test]
    fn rfc9111_4_1_matching() {
        type Fields<'a> = &'a [(&'static str, &'a str)];
        let cases: &[(&str, Fields<'_>, Fields<'_>, bool)] = &[
            ("foo", &[("foo", "1")], &[("foo", "1")], true),
            ("foo", &[("foo", "1")], &[("foo", "1"), ("bar", "2")], true),
            ("foo", &[("foo", "1")], &[("foo", "2")], false),
            ("foo", &[("foo", "1")], &[], false),
            ("foo", &[], &[], true),
            ("foo", &[], &[("foo", "")], false),
            ("foo, bar", &[("foo", "1"), ("bar", "2")], &[("bar", "2"), ("foo", "1")], true),
            ("foo, bar", &[("foo", "1"), ("bar", "2")], &[("foo", "2"), ("bar", "1")], false),
            ("foo, bar", &[("foo", "1")], &[("foo", "1"), ("bar", "2")], false),
            ("foo", &[("foo", "1, 2")], &[("foo", "1"), ("foo", "2")], true),
            ("foo", &[("foo", "1, 2")], &[("foo", "1,2")], true),
            ("foo", &[("foo", "1, 2")], &[("foo", "2, 1")], false),
            ("foo", &[("foo", "A")], &[("foo", "a")], false),
            ("foo", &[("foo", "\"a, b\"")], &[("foo", "\"a,b\"")], false),
            (
                "accept-language",
                &[("accept-language", "en-US, de;q=0.5")],
                &[("accept-language", "EN-us,de; q=0.5")],
                true,
            ),
            (
                "accept-language",
                &[("accept-language", "en, de")],
                &[("accept-language", "de, en")],
                false,
            ),
            (
                "accept-encoding",
                &[("accept-encoding", "gzip, deflate, br")],
                &[("accept-encoding", "br;q=1.0, GZIP")],
                true,
            ),
            ("accept-encoding", &[("accept-encoding", "deflate")], &[], true),
            (
                "accept-encoding",
                &[("accept-encoding", "gzip")],
                &[("accept-encoding", "gzip;q=0")],
                false,
            ),
        ];
        for (names, a, b, same) in cases {
            let vary = vary(&[names]);
            assert_eq!(
                vary.variant(&headers(a)) == vary.variant(&headers(b)),
                *same,
                "{names}: {a:?} {b:?}"
            );
        }
    }

    #[test]
    fn rfc9110_12_5_3_codings() {
        for (value, expected) in [
            ("gzip", Some("gzip")),
            ("GZIP;q=0.5, br", Some("gzip, br")),
            ("x-gzip", Some("gzip")),
            ("gzip;q=0", None),
            ("gzip; q=0.000", None),
            ("gzip;q=0.001", Some("gzip")),
            ("*", Some("gzip, br, zstd")),
            ("*, br;q=0", Some("gzip, zstd")),
            ("*;q=0", None),
            ("identity", None),
            ("", None),
            ("zstd,br", Some("br, zstd")),
            ("gzip;q", Some("gzip")),
        ] {
            assert_eq!(
                normalised_accept_encoding(&headers(&[("accept-encoding", value)])),
                expected,
                "{value}"
            );
        }
        assert_eq!(normalised_accept_encoding(&HeaderMap::new()), None);
    }

    #[test]
    fn lists_are_bounded_and_newest_first() {
        let mut lists = VaryLists::default();
        for name in ["a", "b", "c", "d", "e", "b"] {
            lists.note(&vary(&[name]));
        }
        lists.note(&Vary::Star);
        let order: Vec<_> =
            lists.lists.iter().map(|vary| vary.names()[0].as_str().to_owned()).collect();
        assert_eq!(order, ["b", "e", "d", "c"]);
    }

    proptest! {
        #[test]
        fn no_value_panics(value in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let mut headers = HeaderMap::new();
                headers.insert("vary", value.clone());
                headers.insert("accept-encoding", value.clone());
                headers.insert("accept-language", value);
                let _ = Vary::of(&headers);
                let _ = vary(&["accept-encoding, accept-language, vary"]).variant(&headers);
            }
        }

        #[test]
        fn space_and_lines_do_not_count(members in proptest::collection::vec("[a-z0-9;=.]{1,6}", 1..5)) {
            let vary = vary(&["x"]);
            let mut lines = HeaderMap::new();
            for member in &members {
                lines.append("x", HeaderValue::from_str(member).unwrap());
            }
            let joined = headers(&[("x", &format!(" {} ", members.join(" , ")))]);
            prop_assert_eq!(vary.variant(&lines), vary.variant(&joined));
        }

        #[test]
        fn other_members_are_other_variants(a in "[a-z]{1,6}(,[a-z]{1,6}){0,2}", b in "[a-z]{1,6}(,[a-z]{1,6}){0,2}") {
            let vary = vary(&["x"]);
            prop_assert_eq!(vary.variant(&headers(&[("x", &a)])) == vary.variant(&headers(&[("x", &b)])), a == b);
        }
    }
}
