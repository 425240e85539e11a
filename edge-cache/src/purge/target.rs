//! What a purge names, in the operator's words, in the spelling of keys.
//!
//! * A **URL** is normalised like a request's: authority, path, and the query by the rules of its route. All variants and
//!   all values of keyed headers and cookies are covered.
//! * A **prefix** is host and path, and ends at the end of a segment: `www.cdn.test/img` covers `/img`, `/img/` and
//!   `/img/a/b?c`, not `/img2`. `/img/` and `/img/*` say the same.
//! * A **host** is covered on every port.
//! * A URL or prefix with a scheme is that scheme's; without one it is that of http and https.

use crate::key::{KeyRules, UrlParts, host_of, normalise_authority, normalise_query};

/// Segments of a prefix; a longer one is cut, and covers more.
pub(super) const MAX_DEPTH: usize = 64;
const SCHEMES: [&str; 2] = ["http", "https"];
/// Longer texts name nothing that is stored.
const MAX_TEXT: usize = 16 << 10;

/// Something that can be purged.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// One URL, as in [`crate::key::CacheKey::url`].
    Url(Box<str>),
    /// `scheme://authority`, then whole segments of a path, without a `/` at the end.
    Prefix(Box<str>),
    /// A host without port.
    Host(Box<str>),
    /// All objects with a tag.
    Tag(Box<str>),
    /// All objects of an origin (`scheme://authority`) with a group (RFC 9875).
    Group {
        /// The origin.
        origin: Box<str>,
        /// The group.
        name: Box<str>,
    },
    /// Everything.
    All,
}

impl Target {
    /// `url`, `prefix`, `host`, `tag`, `group` or `all`, for metrics.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Url(_) => "url",
            Self::Prefix(_) => "prefix",
            Self::Host(_) => "host",
            Self::Tag(_) => "tag",
            Self::Group { .. } => "group",
            Self::All => "all",
        }
    }
}

/// The targets of a URL. `rules` gives the key rules of the route that a host and a path belong to; none: no site has that
/// host.
///
/// # Errors
/// What is wrong with it, for the operator.
pub fn url(
    text: &str,
    rules: impl Fn(&str, &str) -> Option<KeyRules>,
) -> Result<Vec<Target>, String> {
    let what = || {
        format!(
            "`{}` is no URL: write \"https://www.cdn.test/a.png\", or without a scheme for http and https",
            shown(text)
        )
    };
    let mut targets = Vec::new();
    for url in with_schemes(text).ok_or_else(what)? {
        let parts = UrlParts::new(&url).map_err(|_| what())?;
        let rules = rules(host_of(&parts.authority), &parts.path)
            .ok_or_else(|| unknown(&parts.authority))?;
        let mut url = format!("{}://{}{}", parts.scheme, parts.authority, parts.path);
        if let Some(query) = normalise_query(parts.query, &rules) {
            url.push('?');
            url.push_str(&query);
        }
        targets.push(Target::Url(url.into()));
    }
    Ok(targets)
}

/// The targets of a prefix. `known` says whether a site has that host.
///
/// # Errors
/// What is wrong with it, for the operator.
pub fn prefix(text: &str, known: impl Fn(&str) -> bool) -> Result<Vec<Target>, String> {
    let what = |why: &str| {
        format!(
            "`{}` is no prefix: {why}; write \"www.cdn.test/images/\", with a scheme for that scheme only",
            shown(text)
        )
    };
    let bare = text.strip_suffix("/*").unwrap_or(text);
    if bare.contains(['?', '#', '*']) {
        return Err(what("it is a host and whole segments of a path"));
    }
    let mut targets = Vec::new();
    for url in with_schemes(bare).ok_or_else(|| what("it has no host"))? {
        let parts = UrlParts::new(&url).map_err(|_| what("host or path is not valid"))?;
        if !known(host_of(&parts.authority)) {
            return Err(unknown(&parts.authority));
        }
        let path = parts.path.strip_suffix('/').unwrap_or(&parts.path);
        let mut prefix = format!("{}://{}", parts.scheme, parts.authority);
        let start = prefix.len();
        prefix.push_str(path);
        if let Some((cut, _)) = path.match_indices('/').nth(MAX_DEPTH) {
            prefix.truncate(start + cut);
        }
        targets.push(Target::Prefix(prefix.into()));
    }
    Ok(targets)
}

/// The target of a host.
///
/// # Errors
/// What is wrong with it, for the operator.
pub fn host(text: &str, known: impl Fn(&str) -> bool) -> Result<Target, String> {
    let normal = normalise_authority("http", text).map_err(|_| {
        format!("`{}` is no host name: write \"www.cdn.test\", one for each host", shown(text))
    })?;
    let host = host_of(&normal);
    if host.len() != normal.len() {
        return Err(format!(
            "`{}` has a port: a host is purged on all of them, name it alone",
            shown(text)
        ));
    }
    if known(host) { Ok(Target::Host(host.into())) } else { Err(unknown(host)) }
}

/// The target of a tag.
///
/// # Errors
/// What is wrong with it, for the operator.
pub fn tag(text: &str) -> Result<Target, String> {
    let plain = !text.is_empty() && text.len() <= MAX_TEXT && text.trim() == text;
    match plain && !text.contains(char::is_control) {
        true => Ok(Target::Tag(text.into())),
        false => Err(format!("`{}` is no tag: no response can have it", shown(text))),
    }
}

fn unknown(authority: &str) -> String {
    format!("no site of this node has the host `{}`", host_of(authority))
}

/// What is printed of a text from outside.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

fn with_schemes(text: &str) -> Option<Vec<String>> {
    if text.is_empty() || text.len() > MAX_TEXT || text.starts_with('/') {
        return None;
    }
    Some(match text.split('/').next() {
        // `https:` ends a scheme, `host:80` does not.
        Some(first) if first.ends_with(':') => vec![text.to_owned()],
        _ => SCHEMES.iter().map(|scheme| format!("{scheme}://{text}")).collect(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::key::NamePattern;

    fn texts(targets: Result<Vec<Target>, String>) -> Result<Vec<String>, String> {
        let text = |target| match target {
            Target::Url(text) | Target::Prefix(text) => text.into(),
            other => panic!("{other:?}"),
        };
        Ok(targets?.into_iter().map(text).collect())
    }

    fn rules(host: &str, path: &str) -> Option<KeyRules> {
        let drop = if path.starts_with("/all/") { vec![] } else { vec![NamePattern::new("utm_*")] };
        (host == "a.test").then(|| KeyRules { drop, ..KeyRules::default() })
    }

    #[test]
    fn urls_are_spelled_like_keys() {
        for (given, expected) in [
            ("https://A.test/%61?utm_x=1&b=2&a=1#f", &["https://a.test/a?a=1&b=2"][..]),
            ("http://a.test", &["http://a.test/"]),
            ("a.test/x/../y", &["http://a.test/y", "https://a.test/y"]),
            ("a.test:443/y", &["http://a.test:443/y", "https://a.test/y"]),
            ("a.test/all/?utm_x=1", &["http://a.test/all/?utm_x=1", "https://a.test/all/?utm_x=1"]),
        ] {
            assert_eq!(texts(url(given, rules)).unwrap(), expected, "{given}");
        }
        for bad in
            ["", "/a", "ftp://a.test/", "a b/", "https://a.test/%zz", "http:/a.test", "https://"]
        {
            assert!(url(bad, rules).unwrap_err().contains("no URL"), "{bad}");
        }
        assert_eq!(
            url("b.test/", rules).unwrap_err(),
            "no site of this node has the host `b.test`"
        );
    }

    #[test]
    fn prefixes_end_at_segments() {
        let known = |host: &str| host == "a.test";
        for (given, expected) in [
            ("https://a.test/", &["https://a.test"][..]),
            ("http://a.test", &["http://a.test"]),
            ("a.test/img/", &["http://a.test/img", "https://a.test/img"]),
            ("a.test/img/*", &["http://a.test/img", "https://a.test/img"]),
            ("a.test/*", &["http://a.test", "https://a.test"]),
            ("http://a.test/img", &["http://a.test/img"]),
            ("http://a.test/%69mg//", &["http://a.test/img/"]),
        ] {
            assert_eq!(texts(prefix(given, known)).unwrap(), expected, "{given}");
        }
        let deep = format!("http://a.test{}", "/x".repeat(MAX_DEPTH + 5));
        assert_eq!(
            texts(prefix(&deep, known)).unwrap()[0],
            format!("http://a.test{}", "/x".repeat(MAX_DEPTH))
        );
        for bad in ["", "/img", "a.test/img*", "a.test/a?b", "a.test/%00"] {
            assert!(prefix(bad, known).unwrap_err().contains("no prefix"), "{bad}");
        }
        assert!(prefix("b.test/", known).unwrap_err().contains("no site"));
    }

    #[test]
    fn hosts_and_tags() {
        let known = |host: &str| host == "a.test" || host == "[::1]";
        assert_eq!(host("A.test.", known), Ok(Target::Host("a.test".into())));
        assert_eq!(host("[::1]", known), Ok(Target::Host("[::1]".into())));
        assert!(host("a.test:8080", known).unwrap_err().contains("port"));
        assert!(host("*.a.test", known).unwrap_err().contains("no host name"));
        assert!(host("b.test", known).unwrap_err().contains("no site"));
        assert_eq!(tag("a b"), Ok(Target::Tag("a b".into())));
        for bad in ["", " a", "a\n"] {
            assert!(tag(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = url(&text, |_, _| Some(KeyRules::default()));
            let _ = prefix(&text, |_| true);
            let _ = host(&text, |_| true);
            let _ = tag(&text);
        }
    }
}
