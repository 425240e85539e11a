//! An object's tags, read from its response: what purges by tag, and invalidations by group, find it by.
//!
//! `Cache-Tag` is a comma-separated list, `Surrogate-Key` a space-separated one (as are all other fields that a policy
//! names), `Cache-Groups` a structured list of strings (RFC 9875). Tags are compared as they are: case counts. Those of
//! `Cache-Groups` are tags like the others, and groups of their origin besides.

use http::{HeaderMap, HeaderName};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::semantics::Lines;
use crate::semantics::structured::string_list;

const CACHE_TAG: HeaderName = HeaderName::from_static("cache-tag");
const CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");
const CACHE_GROUP_INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");

/// Tags of an object that are told apart. One with more counts as having all tags.
const MAX_TAGS: usize = 128;
const TAG_SEED: u64 = 1;
const GROUP_SEED: u64 = 2;

/// The tags of an object, hashed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    /// Little-endian, sorted, each once.
    hashes: Box<[[u8; 8]]>,
    /// There were more of them: every purge by tag is one of this.
    all: bool,
}

/// The same where it lies with other things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagList<'a> {
    hashes: &'a [[u8; 8]],
    all: bool,
}

impl<'a> From<&'a Tags> for TagList<'a> {
    fn from(tags: &'a Tags) -> Self {
        Self { hashes: &tags.hashes, all: tags.all }
    }
}

impl<'a> TagList<'a> {
    /// From the bytes of [`Self::bytes`].
    pub(crate) const fn of(bytes: &'a [u8], all: bool) -> Self {
        Self { hashes: bytes.as_chunks().0, all }
    }

    /// From bytes that anybody has written; `None` if they cannot be those of tags.
    pub(crate) fn checked(bytes: &'a [u8], all: bool) -> Option<Self> {
        let (hashes, rest) = bytes.as_chunks();
        let most = if all { 0 } else { MAX_TAGS };
        let number = |hash: &[u8; 8]| u64::from_le_bytes(*hash);
        let is_set = hashes.len() <= most && hashes.is_sorted_by(|a, b| number(a) < number(b));
        (is_set && rest.is_empty()).then_some(Self { hashes, all })
    }

    /// As they lie.
    pub(crate) const fn bytes(self) -> &'a [u8] {
        self.hashes.as_flattened()
    }

    /// Each once.
    pub(super) fn hashes(self) -> impl Iterator<Item = u64> {
        self.hashes.iter().map(|hash| u64::from_le_bytes(*hash))
    }

    /// Whether every purge by tag is one of this.
    pub(crate) const fn has_all(self) -> bool {
        self.all
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.hashes.is_empty() && !self.all
    }

    /// A copy.
    pub fn to_tags(self) -> Tags {
        Tags { hashes: self.hashes.into(), all: self.all }
    }
}

impl Tags {
    /// Of the response to a request for something of `origin` (scheme and authority), read from these fields.
    pub fn of(headers: &HeaderMap, fields: &[HeaderName], origin: &str) -> Self {
        let mut hashes = Vec::new();
        for field in fields {
            if !headers.contains_key(field) {
                continue;
            }
            if *field == CACHE_GROUPS {
                for group in string_list(headers, field) {
                    hashes.push(tag_hash(&group));
                    hashes.push(group_hash(origin, &group));
                }
                continue;
            }
            for_each_tag(headers, field, |tag| hashes.push(hash(TAG_SEED, tag)));
        }
        hashes.sort_unstable();
        hashes.dedup();
        let all = hashes.len() > MAX_TAGS;
        if all {
            hashes.clear();
        }
        let hashes = hashes.into_iter().map(u64::to_le_bytes).collect();
        Self { hashes, all }
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.hashes.is_empty() && !self.all
    }
}

/// The tags in these fields as text, for people.
pub fn listed(headers: &impl Lines, fields: &[HeaderName]) -> Vec<String> {
    let mut all = Vec::new();
    for field in fields {
        if *field == CACHE_GROUPS {
            all.extend(string_list(headers, field));
        } else {
            for_each_tag(headers, field, |tag| all.push(String::from_utf8_lossy(tag).into_owned()));
        }
    }
    all
}

/// Takes the fields with tags off a response to a client: they are between origin and cache. `Cache-Groups` stays, which is
/// for every cache on the way.
pub fn strip(headers: &mut HeaderMap, fields: &[HeaderName]) {
    for field in fields.iter().filter(|field| **field != CACHE_GROUPS) {
        headers.remove(field);
    }
}

/// The groups that a response to an unsafe method has made invalid (RFC 9875 §3).
pub fn invalidated_groups(headers: &HeaderMap) -> Vec<String> {
    match headers.contains_key(CACHE_GROUP_INVALIDATION) {
        true => string_list(headers, &CACHE_GROUP_INVALIDATION),
        false => Vec::new(),
    }
}

pub(super) fn tag_hash(tag: &str) -> u64 {
    hash(TAG_SEED, tag.as_bytes())
}

/// RFC 9875 §2.1: two responses share a group only if they are of one origin.
pub(super) fn group_hash(origin: &str, group: &str) -> u64 {
    // An origin has no space.
    hash(GROUP_SEED, format!("{origin} {group}").as_bytes())
}

fn hash(seed: u64, bytes: &[u8]) -> u64 {
    xxh3_64_with_seed(bytes, seed)
}

fn for_each_tag(headers: &impl Lines, field: &HeaderName, mut each: impl FnMut(&[u8])) {
    let commas = *field == CACHE_TAG;
    for line in headers.lines(field) {
        let split = |b: &u8| if commas { *b == b',' } else { matches!(*b, b' ' | b'\t') };
        for tag in line.split(split) {
            let tag = tag.trim_ascii();
            if !tag.is_empty() {
                each(tag);
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    pub(crate) const ORIGIN: &str = "https://a.test";

    pub(crate) fn fields() -> Vec<HeaderName> {
        ["cache-tag", "surrogate-key", "cache-groups"].map(HeaderName::from_static).to_vec()
    }

    pub(crate) fn tags(pairs: &[(&'static str, &str)]) -> Tags {
        let headers = headers(pairs);
        Tags::of(&headers, &fields(), ORIGIN)
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn has(tags: &Tags, hash: u64) -> bool {
        TagList::from(tags).hashes().any(|known| known == hash)
    }

    #[test]
    fn each_field_has_its_own_syntax() {
        for (name, value, expected) in [
            ("cache-tag", "a, b ,c d,,", &["a", "b", "c d"][..]),
            ("surrogate-key", " a  b,c\td ", &["a", "b,c", "d"]),
            ("cache-groups", "\"a b\", \"c\\\"\";x=1", &["a b", "c\""]),
            ("cache-groups", "a, \"b\"", &[]),
            ("cache-groups", "\"b\",", &[]),
            ("x-other", "a", &[]),
        ] {
            let headers = headers(&[(name, value)]);
            assert_eq!(listed(&headers, &fields()), expected, "{name}: {value}");
            let found = Tags::of(&headers, &fields(), ORIGIN);
            for tag in expected {
                assert!(has(&found, tag_hash(tag)), "{tag}");
            }
            assert_eq!(found.is_empty(), expected.is_empty());
        }
        let two = tags(&[("cache-tag", "a"), ("cache-tag", "b, a"), ("surrogate-key", "a")]);
        assert_eq!(TagList::from(&two).hashes().count(), 2);
    }

    /// RFC 9875 §2.1: the same name at another origin is another group.
    #[test]
    fn rfc9875_2_1_groups_belong_to_an_origin() {
        let found = tags(&[("cache-groups", "\"a\"")]);
        assert!(has(&found, group_hash(ORIGIN, "a")));
        assert!(!has(&found, group_hash("http://a.test", "a")));
        // A tag is no group.
        assert!(!has(&tags(&[("cache-tag", "a")]), group_hash(ORIGIN, "a")));
    }

    /// RFC 9875 §2: at least 32 groups of at least 32 characters.
    #[test]
    fn rfc9875_2_thirty_two_groups() {
        let groups: Vec<String> = (0..32).map(|n| format!("\"{n:032}\"")).collect();
        let found = tags(&[("cache-groups", &groups.join(", "))]);
        assert!(!TagList::from(&found).has_all());
        assert!(has(&found, group_hash(ORIGIN, &format!("{:032}", 31))));
    }

    #[test]
    fn too_many_tags_are_all_tags() {
        let of = |n: usize| (0..n).map(|n| format!("t{n}")).collect::<Vec<_>>().join(" ");
        assert!(!TagList::from(&tags(&[("surrogate-key", &of(MAX_TAGS))])).has_all());
        let more = tags(&[("surrogate-key", &of(MAX_TAGS + 1))]);
        assert!(TagList::from(&more).has_all() && !more.is_empty());
        assert_eq!(TagList::from(&more).bytes(), b"");
    }

    #[test]
    fn clients_do_not_get_them() {
        let mut headers =
            headers(&[("cache-tag", "a"), ("surrogate-key", "a"), ("cache-groups", "\"a\"")]);
        strip(&mut headers, &fields());
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["cache-groups"]);
    }

    proptest! {
        #[test]
        fn no_value_panics(value in "[ -~]{0,60}", name in 0usize..3) {
            if let Ok(value) = HeaderValue::from_str(&value) {
                let mut headers = HeaderMap::new();
                headers.insert(fields().swap_remove(name), value);
                let listed = listed(&headers, &fields());
                prop_assert_eq!(Tags::of(&headers, &fields(), ORIGIN).is_empty(), listed.is_empty());
            }
        }
    }
}
