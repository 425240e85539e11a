//! The cache key, and the request target that goes to the origin: made by one function from one string, so that the two
//! cannot disagree (cache poisoning and deception live in that gap).
//!
//! 1. [`normalise_path`] gives *the* path: routes are matched on it, the key holds it, the origin is sent it.
//! 2. [`normalise_query`] gives *the* query under a route's [`KeyRules`]: what is dropped from the key is not sent.
//! 3. [`CacheKey::new`] puts scheme, authority, path, query and the named headers and cookies into one text and hashes it.
//!
//! What normalising does is what RFC 3986 §6.2.2 calls equivalent, and no more: escapes of unreserved characters are
//! decoded, other escapes get upper-case digits, dot segments are resolved. `%2F`, `//`, `;` and the case of letters stay,
//! because origins differ over them. A prefix that a route strips is stripped after the key is made: the key holds the
//! public URL, by which it is purged, and stripping always gives the same path for it.

use std::borrow::Cow;

use http::header::COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue};
use xxhash_rust::xxh3::xxh3_128;

use crate::semantics::Reason;
pub use crate::url::{UrlParts, host_of, normalise_authority, normalise_path};
use crate::url::{normalise_escapes, push_escape};

/// Which query parameters count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueryMode {
    /// All but those that `drop` names.
    #[default]
    All,
    /// None.
    None,
    /// Only those that `allow` names.
    Allow,
}

/// A parameter name, or its beginning followed by `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern {
    text: String,
    prefix: bool,
}

impl NamePattern {
    /// `utm_*`, `fbclid`.
    pub fn new(pattern: &str) -> Self {
        match pattern.strip_suffix('*') {
            Some(text) => Self { text: text.to_owned(), prefix: true },
            None => Self { text: pattern.to_owned(), prefix: false },
        }
    }

    /// Whether it covers a name. Case counts.
    pub fn matches(&self, name: &str) -> bool {
        if self.prefix { name.starts_with(&self.text) } else { name == self.text }
    }
}

/// What distinguishes two requests beyond scheme, authority and path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRules {
    /// Which query parameters count.
    pub query: QueryMode,
    /// With [`QueryMode::Allow`]: these.
    pub allow: Vec<NamePattern>,
    /// With [`QueryMode::All`]: not these.
    pub drop: Vec<NamePattern>,
    /// Whether parameters are put in the order of their names (those of one name keep theirs).
    pub sort: bool,
    /// Request fields that are part of the key.
    pub headers: Vec<HeaderName>,
    /// Cookies that are part of the key.
    pub cookies: Vec<String>,
}

impl Default for KeyRules {
    fn default() -> Self {
        Self {
            query: QueryMode::All,
            allow: Vec::new(),
            drop: Vec::new(),
            sort: true,
            headers: Vec::new(),
            cookies: Vec::new(),
        }
    }
}

/// The key of a request: a text that says everything, and its hash, which is the same on every node and in every version.
/// Two keys are equal only if their texts are: a hash alone could be forged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheKey {
    hash: u128,
    text: Box<str>,
}

impl CacheKey {
    /// `authority` from [`normalise_authority`], `path` from [`normalise_path`], `query` from [`normalise_query`].
    pub fn new(
        scheme: &str,
        authority: &str,
        path: &str,
        query: Option<&str>,
        headers: &HeaderMap,
        rules: &KeyRules,
    ) -> Self {
        // Exact where no fields are keyed: one allocation per request.
        let length = scheme.len() + 3 + authority.len() + path.len();
        let length = length + query.map_or(0, |query| query.len() + 1);
        let mut text = String::with_capacity(length);
        text.push_str(scheme);
        text.push_str("://");
        text.push_str(authority);
        text.push_str(path);
        if let Some(query) = query {
            text.push('?');
            text.push_str(query);
        }
        // A normalised URL has no space, and values are escaped: no value can look like another part of the key.
        for name in &rules.headers {
            for value in headers.get_all(name) {
                text.push(' ');
                text.push_str(name.as_str());
                text.push('=');
                push_escaped(&mut text, value.as_bytes());
            }
        }
        for name in &rules.cookies {
            if let Some(value) = cookie(headers, name) {
                text.push_str(" cookie:");
                push_escaped(&mut text, name.as_bytes());
                text.push('=');
                push_escaped(&mut text, value);
            }
        }
        Self { hash: xxh3_128(text.as_bytes()), text: text.into_boxed_str() }
    }

    /// From the text of a key that was made here before.
    pub fn of_text(text: &str) -> Self {
        Self { hash: xxh3_128(text.as_bytes()), text: text.into() }
    }

    /// With a hash that belongs to another text.
    #[cfg(test)]
    pub(crate) fn with_hash(self, hash: u128) -> Self {
        Self { hash, ..self }
    }

    /// From a URL as an operator writes it (purge, explain): normalised like a request's. Headers and cookies of the key
    /// are taken as absent.
    pub fn of_url(url: &str, rules: &KeyRules) -> Result<Self, Reason> {
        let parts = UrlParts::new(url)?;
        let query = normalise_query(parts.query, rules);
        Ok(Self::new(
            parts.scheme,
            &parts.authority,
            &parts.path,
            query.as_deref(),
            &HeaderMap::new(),
            rules,
        ))
    }

    /// The hash: index of the store, and place of the key among the parents.
    pub const fn hash(&self) -> u128 {
        self.hash
    }

    /// The printable form: `https://host/path?query`, then ` name=value` for each header and cookie of the key.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The URL in it, without the headers and cookies: what a purge of a URL names.
    pub fn url(&self) -> &str {
        url_of(&self.text)
    }

    /// The query in it.
    pub fn query(&self) -> Option<&str> {
        self.url().split_once('?').map(|(_, query)| query)
    }

    /// Hash of all but the query: the same for keys that differ in nothing else.
    pub fn without_query(&self) -> u128 {
        let (before, fields) = self.around_query();
        xxh3_128([before, " ", fields].concat().as_bytes())
    }

    /// Whether two keys differ in nothing but the query.
    pub fn same_but_query(&self, other: &Self) -> bool {
        self.around_query() == other.around_query()
    }

    /// What stands before the query, and the fields after it.
    fn around_query(&self) -> (&str, &str) {
        let (url, fields) = self.text.split_once(' ').unwrap_or((&self.text, ""));
        (url.split('?').next().unwrap_or_default(), fields)
    }
}

/// [`CacheKey::url`] of the key with this text.
pub fn url_of(text: &str) -> &str {
    text.split(' ').next().unwrap_or_default()
}

/// Printable ASCII but space and `%` as it is, the rest as `%XX`.
fn push_escaped(out: &mut String, bytes: &[u8]) {
    for &b in bytes {
        if b.is_ascii_graphic() && b != b'%' {
            out.push(char::from(b));
        } else {
            push_escape(out, b);
        }
    }
}

/// The value of the first cookie of a name.
fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|b| *b == b';'))
        .map(<[u8]>::trim_ascii)
        .find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// The Cookie field that holds the cookies of the key and nothing else: what the origin of a cacheable route is sent.
pub fn keyed_cookies(headers: &HeaderMap, rules: &KeyRules) -> Option<HeaderValue> {
    let mut field = Vec::new();
    for name in &rules.cookies {
        if let Some(value) = cookie(headers, name) {
            if !field.is_empty() {
                field.extend_from_slice(b"; ");
            }
            field.extend_from_slice(name.as_bytes());
            field.push(b'=');
            field.extend_from_slice(value);
        }
    }
    if field.is_empty() { None } else { HeaderValue::from_bytes(&field).ok() }
}

/// The query as the rules leave it: `None` when there is none or nothing of it is left; an empty one (`/a?`) stays empty.
///
/// Escapes are normalised as in a path, but queries hold anything: a `%` that begins no escape is escaped itself, so that
/// decoding what follows it cannot make it one.
pub fn normalise_query<'a>(query: Option<&'a str>, rules: &KeyRules) -> Option<Cow<'a, str>> {
    let query = query?;
    if rules.query == QueryMode::None {
        return None;
    }
    if query.is_empty() {
        return Some(Cow::Borrowed(query));
    }
    let text = normalise_escapes(query);
    let keeps = |parameter: &str| {
        let name = parameter.split('=').next().unwrap_or_default();
        match rules.query {
            QueryMode::All => !rules.drop.iter().any(|pattern| pattern.matches(name)),
            QueryMode::Allow => rules.allow.iter().any(|pattern| pattern.matches(name)),
            QueryMode::None => false,
        }
    };
    let name = |parameter: &'_ str| parameter.find('=').unwrap_or(parameter.len());
    let sorted = !rules.sort || text.split('&').is_sorted_by(|a, b| a[..name(a)] <= b[..name(b)]);
    if sorted && text.split('&').all(keeps) {
        return Some(text);
    }
    let mut kept: Vec<&str> = text.split('&').filter(|parameter| keeps(parameter)).collect();
    if kept.is_empty() {
        return None;
    }
    if rules.sort {
        kept.sort_by(|a, b| a[..name(a)].cmp(&b[..name(b)]));
    }
    Some(Cow::Owned(kept.join("&")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules(drop: &[&str]) -> KeyRules {
        KeyRules { drop: drop.iter().map(|p| NamePattern::new(p)).collect(), ..KeyRules::default() }
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn queries() {
        let tracking = rules(&["utm_*", "fbclid"]);
        for (query, expected) in [
            (None, None),
            (Some(""), Some("")),
            (Some("a=1"), Some("a=1")),
            (Some("b=2&a=1"), Some("a=1&b=2")),
            (Some("b=2&a=2&b=1"), Some("a=2&b=2&b=1")),
            (Some("utm_source=x"), None),
            (Some("utm_source=x&a=1&fbclid=y"), Some("a=1")),
            (Some("fbclid2=1"), Some("fbclid2=1")),
            (Some("%75tm_source=x&a=1"), Some("a=1")),
            (Some("UTM_source=x"), Some("UTM_source=x")),
            (Some("a=%2f%61"), Some("a=%2Fa")),
            (Some("a=100%&b=%zz"), Some("a=100%25&b=%25zz")),
            (Some("a=%%61a"), Some("a=%25aa")),
            (Some("a=\u{e9}<"), Some("a=%C3%A9%3C")),
            (Some("a&a=&=b"), Some("=b&a&a=")),
            (Some("&&"), Some("&&")),
            (Some("ab=1&a=2"), Some("a=2&ab=1")),
        ] {
            assert_eq!(normalise_query(query, &tracking).as_deref(), expected, "{query:?}");
        }
        let none = KeyRules { query: QueryMode::None, ..KeyRules::default() };
        assert_eq!(normalise_query(Some("a=1"), &none), None);
        let allow = KeyRules {
            query: QueryMode::Allow,
            allow: vec![NamePattern::new("id"), NamePattern::new("p*")],
            sort: false,
            ..KeyRules::default()
        };
        let query = normalise_query(Some("page=2&x=1&id=5&idx=1"), &allow);
        assert_eq!(query.as_deref(), Some("page=2&id=5"));
        assert!(matches!(normalise_query(Some("a=1&b=2"), &tracking), Some(Cow::Borrowed(_))));
    }

    /// Pitfalls 36 and 44: scheme, authority and the named fields are part of the key.
    #[test]
    fn what_makes_keys_differ() {
        let keyed = KeyRules {
            headers: vec![HeaderName::from_static("x-device")],
            cookies: vec!["lang".to_owned()],
            ..KeyRules::default()
        };
        let request = headers(&[
            ("x-device", "a b%"),
            ("cookie", "xlang=no; lang=de"),
            ("cookie", "lang=fr"),
        ]);
        let key = CacheKey::new("https", "a.test", "/x", Some("q=1"), &request, &keyed);
        assert_eq!(key.text(), "https://a.test/x?q=1 x-device=a%20b%25 cookie:lang=de");
        assert_eq!(keyed_cookies(&request, &keyed).unwrap(), "lang=de");

        let none = HeaderMap::new();
        let plain = KeyRules::default();
        let base = CacheKey::new("https", "a.test", "/x", None, &none, &plain);
        assert_eq!(base.text(), "https://a.test/x");
        for other in [
            CacheKey::new("http", "a.test", "/x", None, &none, &plain),
            CacheKey::new("https", "b.test", "/x", None, &none, &plain),
            CacheKey::new("https", "a.test:8443", "/x", None, &none, &plain),
            CacheKey::new("https", "a.test", "/X", None, &none, &plain),
            CacheKey::new("https", "a.test", "/x", Some(""), &none, &plain),
            CacheKey::new("https", "a.test", "/x", None, &headers(&[("x-device", "")]), &keyed),
        ] {
            assert_ne!(base, other, "{}", other.text());
            assert_ne!(base.hash(), other.hash());
        }
    }

    /// The hash is part of the contract between nodes and versions.
    #[test]
    fn the_hash_never_changes() {
        let key = CacheKey::of_url("https://www.cdn.test/images/a.png?v=2", &KeyRules::default())
            .unwrap();
        assert_eq!(key.hash(), xxh3_128(b"https://www.cdn.test/images/a.png?v=2"));
        assert_eq!(key.hash(), 104_700_028_848_082_707_847_610_321_838_406_912_948);
    }

    #[test]
    fn urls_of_operators() {
        let rules = rules(&["utm_*"]);
        for (url, expected) in [
            ("HTTPS://WWW.Cdn.test:443", Some("https://www.cdn.test/")),
            ("http://a.test/%61?utm_x=1#frag", Some("http://a.test/a")),
            ("http://a.test?b=1&a=2", Some("http://a.test/?a=2&b=1")),
            ("ftp://a.test/", None),
            ("/a", None),
            ("http:///a", None),
        ] {
            let key = CacheKey::of_url(url, &rules);
            assert_eq!(key.as_ref().ok().map(CacheKey::text), expected, "{url}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = normalise_query(Some(&text), &rules(&["a*"]));
            let _ = CacheKey::of_url(&text, &rules(&["a*"]));
        }

        #[test]
        fn queries_are_stable(query in "([a-c=&%?]|%2[aAfF]|%61|utm_){0,12}", sort in any::<bool>()) {
            let rules = KeyRules { sort, ..rules(&["utm_*", "b"]) };
            let once = normalise_query(Some(&query), &rules);
            prop_assert_eq!(normalise_query(once.as_deref(), &rules), once.clone());
        }

        /// No header value can make one request's key another's.
        #[test]
        fn keys_are_unambiguous(a in "[ -~]{0,12}", b in "[ -~]{0,12}", c in "[ -~]{0,12}", d in "[ -~]{0,12}") {
            let rules = KeyRules {
                headers: vec![HeaderName::from_static("x-a"), HeaderName::from_static("x-b")],
                ..KeyRules::default()
            };
            let key = |x: &str, y: &str| CacheKey::new("http", "h", "/", None, &headers(&[("x-a", x), ("x-b", y)]), &rules);
            prop_assert_eq!(key(&a, &b) == key(&c, &d), (&a, &b) == (&c, &d));
        }
    }
}
