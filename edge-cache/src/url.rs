//! URLs in the one spelling that keys, routes and origins see: authority, path, escapes (RFC 3986 §6.2.2, RFC 9110 §4.2.3).

use std::borrow::Cow;

use crate::semantics::Reason;

/// A URL taken apart, each part normalised but the query, whose rules depend on the route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlParts<'a> {
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Normalised.
    pub authority: Cow<'a, str>,
    /// Normalised.
    pub path: Cow<'a, str>,
    /// As written.
    pub query: Option<&'a str>,
}

impl<'a> UrlParts<'a> {
    /// `http` or `https` URLs; a fragment is cut off, an absent path is `/`.
    pub fn new(url: &'a str) -> Result<Self, Reason> {
        let (scheme, rest) = url.split_once("://").ok_or(Reason::TargetInvalid)?;
        let scheme = if scheme.eq_ignore_ascii_case("https") {
            "https"
        } else if scheme.eq_ignore_ascii_case("http") {
            "http"
        } else {
            return Err(Reason::TargetInvalid);
        };
        let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
        let (rest, query) =
            rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
        let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        Ok(Self {
            scheme,
            authority: normalise_authority(scheme, authority)?,
            path: normalise_path(path)?,
            query,
        })
    }
}

/// Lower-case, without default port and without the root's dot; `Err` when it is no valid host and port (userinfo, empty
/// host, strange characters).
pub fn normalise_authority<'a>(scheme: &str, authority: &'a str) -> Result<Cow<'a, str>, Reason> {
    let invalid = Err(Reason::HostInvalid);
    let (host, port) = match authority.rfind(']') {
        Some(bracket) => {
            let (host, rest) = authority.split_at(bracket + 1);
            let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
            if inner.is_none_or(|inner| inner.parse::<std::net::Ipv6Addr>().is_err()) {
                return invalid;
            }
            match rest.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if rest.is_empty() => (host, None),
                None => return invalid,
            }
        }
        None => {
            let (host, port) = match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            };
            let host = host.strip_suffix('.').unwrap_or(host);
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
            let labels = !host.is_empty() && host.split('.').all(|label| !label.is_empty());
            if !labels || host.len() > 253 || !host.bytes().all(plain) {
                return invalid;
            }
            (host, port)
        }
    };
    let port = match port {
        None | Some("") => None,
        Some(digits) => {
            let all_digits = digits.bytes().all(|b| b.is_ascii_digit());
            match digits.parse::<u16>() {
                Ok(port) if all_digits && port != 0 => {
                    let default = if scheme == "https" { 443 } else { 80 };
                    (port != default).then_some(port)
                }
                _ => return invalid,
            }
        }
    };
    // Almost every request takes this way out.
    let whole = match port {
        None => authority.len() == host.len(),
        // A root's dot or leading zeros make another spelling of the same.
        Some(_) => {
            authority.as_bytes().get(host.len()) == Some(&b':')
                && authority.as_bytes().get(host.len() + 1) != Some(&b'0')
        }
    };
    if whole && !host.bytes().any(|b| b.is_ascii_uppercase()) {
        return Ok(Cow::Borrowed(authority));
    }
    let mut text = host.to_ascii_lowercase();
    if let Some(port) = port {
        text.push(':');
        text.push_str(&port.to_string());
    }
    Ok(Cow::Owned(text))
}

/// The host of a normalised authority, without port: `[::1]` keeps its brackets.
pub fn host_of(authority: &str) -> &str {
    let end = match authority.rfind(']') {
        Some(bracket) => bracket + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    authority.get(..end).unwrap_or(authority)
}

/// RFC 3986 §2.3.
const fn is_unreserved(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~')
}

/// RFC 3986 §3.3 pchar, and the `/` between segments.
const fn is_path_byte(b: u8) -> bool {
    is_unreserved(b)
        || matches!(
            b,
            b'/' | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
                | b':'
                | b'@'
        )
}

/// RFC 3986 §3.4; browsers also send `[`, `]`, `|`, `^`, `` ` ``, `{`, `}` and `\`, which stay as they are.
const fn is_query_byte(b: u8) -> bool {
    b.is_ascii_graphic() && !matches!(b, b'"' | b'<' | b'>' | b'#')
}

/// Two hex digits after a `%`.
fn escaped_byte(bytes: &[u8], percent: usize) -> Option<u8> {
    let digit = |at: usize| char::from(*bytes.get(at)?).to_digit(16);
    u8::try_from(digit(percent + 1)? * 16 + digit(percent + 2)?).ok()
}

/// Unreserved characters decoded, other escapes in upper case, what may not stand in a path escaped, dot segments resolved;
/// `%2F`, `//`, `;` and case kept. `Err` for what is no path: an escape without two hex digits, a NUL, no `/`.
pub fn normalise_path(path: &str) -> Result<Cow<'_, str>, Reason> {
    if !path.starts_with('/') {
        return Err(Reason::TargetInvalid);
    }
    let bytes = path.as_bytes();
    if bytes.iter().all(|b| is_path_byte(*b)) && !has_dot_segment(path) {
        return Ok(Cow::Borrowed(path));
    }
    let mut text = String::with_capacity(path.len() + 8);
    let mut at = 0;
    while let Some(&b) = bytes.get(at) {
        at += 1;
        if b == b'%' {
            match escaped_byte(bytes, at - 1).ok_or(Reason::TargetInvalid)? {
                0 => return Err(Reason::TargetInvalid),
                decoded if is_unreserved(decoded) => text.push(char::from(decoded)),
                other => push_escape(&mut text, other),
            }
            at += 2;
        } else if is_path_byte(b) {
            text.push(char::from(b));
        } else if b == 0 {
            // Escaped, it would be refused the next time.
            return Err(Reason::TargetInvalid);
        } else {
            push_escape(&mut text, b);
        }
    }
    Ok(Cow::Owned(if has_dot_segment(&text) { without_dot_segments(&text) } else { text }))
}

fn has_dot_segment(path: &str) -> bool {
    path.contains("/.") && path.split('/').any(|segment| segment == "." || segment == "..")
}

/// RFC 3986 §5.2.4, for a path that begins with `/`. Empty segments are segments: `/a//../b` is `/a/b`.
fn without_dot_segments(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    text.truncate(text.rfind('/').unwrap_or(0));
                }
                if last {
                    text.push('/');
                }
            }
            _ => {
                text.push('/');
                text.push_str(segment);
            }
        }
    }
    text
}

/// Whether all servers read a normalised path alike.
pub fn is_plain(path: &str) -> bool {
    !path.contains(['%', ';']) && !path.contains("//")
}

/// A normalised path as servers may read it that are more lenient than RFC 3986: an escaped `/` or `\\` as a separator, empty
/// segments as none, `;` and what follows in a segment as nothing, all that before dot segments are resolved. Nothing for
/// a path that all servers read alike.
pub fn readings(path: &str) -> Vec<String> {
    if is_plain(path) {
        return Vec::new();
    }
    let decoded = |path: &str| path.replace("%2F", "/").replace("%5C", "/");
    let cut = |path: &str| {
        let names = path.split('/').map(|segment| segment.split(';').next().unwrap_or_default());
        names.collect::<Vec<_>>().join("/")
    };
    let merged = |path: &str| {
        path.chars().fold(String::with_capacity(path.len()), |mut text, c| {
            if c != '/' || !text.ends_with('/') {
                text.push(c);
            }
            text
        })
    };
    let spelled = [decoded(path), cut(&decoded(path)), decoded(&cut(path)), path.to_owned()];
    let all = spelled.iter().flat_map(|path| [path.clone(), merged(path)]);
    let mut read: Vec<_> = all.map(|path| without_dot_segments(&path)).collect();
    read.sort_unstable();
    read.dedup();
    read.retain(|read| read != path);
    read
}

/// A query with its escapes normalised; a `%` that begins none is escaped itself.
pub(crate) fn normalise_escapes(query: &str) -> Cow<'_, str> {
    let bytes = query.as_bytes();
    if bytes.iter().all(|b| *b != b'%' && is_query_byte(*b)) {
        return Cow::Borrowed(query);
    }
    let mut text = String::with_capacity(query.len() + 8);
    let mut at = 0;
    while let Some(&b) = bytes.get(at) {
        at += 1;
        match escaped_byte(bytes, at - 1) {
            Some(decoded) if b == b'%' => {
                if is_unreserved(decoded) {
                    text.push(char::from(decoded));
                } else {
                    push_escape(&mut text, decoded);
                }
                at += 2;
            }
            _ if b != b'%' && is_query_byte(b) => text.push(char::from(b)),
            _ => push_escape(&mut text, b),
        }
    }
    Cow::Owned(text)
}

/// `%XX`.
pub(crate) fn push_escape(out: &mut String, b: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(DIGITS[usize::from(b >> 4)]));
    out.push(char::from(DIGITS[usize::from(b & 15)]));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lenient_servers_read_paths_otherwise() {
        for (path, expected) in [
            ("/a/b.c", &[][..]),
            ("/caf%C3%A9%20b", &[]),
            ("//a/b", &["/a/b"]),
            ("/a%2Fb", &["/a/b"]),
            ("/a%5Cb", &["/a/b"]),
            ("/x/..%2Fa", &["/a"]),
            ("/x%5C..%5Ca", &["/a"]),
            ("/a;v=1/b", &["/a/b"]),
            ("/x/..;/a", &["/a"]),
            ("/;/a", &["//a", "/a"]),
            ("/a%2F%2F..%2Fb", &["/a/b", "/b"]),
        ] {
            let read = readings(path);
            for expected in expected {
                assert!(read.iter().any(|read| read == expected), "{path}: {read:?}");
            }
            assert_eq!(read.is_empty(), expected.is_empty(), "{path}: {read:?}");
        }
    }

    /// Pitfall 43; RFC 3986 §6.2.2, RFC 9110 §4.2.3.
    #[test]
    fn rfc3986_6_2_2_paths() {
        let invalid = Err(Reason::TargetInvalid);
        for (path, expected) in [
            ("/", Ok("/")),
            ("/a/b", Ok("/a/b")),
            ("/A/b", Ok("/A/b")),
            ("/%61%2D%7e", Ok("/a-~")),
            ("/a%2fb", Ok("/a%2Fb")),
            ("/a%2Fb", Ok("/a%2Fb")),
            ("/a//b", Ok("/a//b")),
            ("/a;v=1/b", Ok("/a;v=1/b")),
            ("/a/./b", Ok("/a/b")),
            ("/a/../b", Ok("/b")),
            ("/a/%2e%2E/b", Ok("/b")),
            ("/a/.%2e/b", Ok("/b")),
            ("/../../b", Ok("/b")),
            ("/a/..", Ok("/")),
            ("/a/b/..", Ok("/a/")),
            ("/a/b/.", Ok("/a/b/")),
            ("/a//../b", Ok("/a/b")),
            ("/..", Ok("/")),
            ("/.", Ok("/")),
            ("/...", Ok("/...")),
            ("/.well-known/x", Ok("/.well-known/x")),
            ("/a..b/.c", Ok("/a..b/.c")),
            ("/a%252e%252e/b", Ok("/a%252e%252e/b")),
            ("/a b\"<>", Ok("/a%20b%22%3C%3E")),
            ("/a\\b", Ok("/a%5Cb")),
            ("/\u{e9}", Ok("/%C3%A9")),
            ("/%c3%a9", Ok("/%C3%A9")),
            ("/%3f%23", Ok("/%3F%23")),
            ("/a%", invalid),
            ("/a%2", invalid),
            ("/a%zz", invalid),
            ("/a%+1", invalid),
            ("/a%00.jpg", invalid),
            ("a", invalid),
            ("", invalid),
            ("*", invalid),
        ] {
            let got = normalise_path(path);
            assert_eq!(got.as_deref().map_err(|reason| *reason), expected, "{path}");
        }
        assert!(matches!(normalise_path("/a/b.png"), Ok(Cow::Borrowed(_))));
    }

    #[test]
    fn rfc9110_4_2_3_authorities() {
        let invalid = Err(Reason::HostInvalid);
        for (scheme, authority, expected) in [
            ("http", "a.test", Ok("a.test")),
            ("http", "A.Test:80", Ok("a.test")),
            ("http", "a.test:", Ok("a.test")),
            ("http", "a.test:443", Ok("a.test:443")),
            ("https", "a.test:443", Ok("a.test")),
            ("https", "a.test:0443", Ok("a.test")),
            ("http", "a.test:08080", Ok("a.test:8080")),
            ("http", "a.test.", Ok("a.test")),
            ("http", "a.test.:8080", Ok("a.test:8080")),
            ("http", "127.0.0.1:8080", Ok("127.0.0.1:8080")),
            ("http", "[::1]:8080", Ok("[::1]:8080")),
            ("http", "[2001:DB8::1]:80", Ok("[2001:db8::1]")),
            ("http", "my_host", Ok("my_host")),
            ("http", "", invalid),
            ("http", ":80", invalid),
            ("http", ".", invalid),
            ("http", "a..b", invalid),
            ("http", "a.test..", invalid),
            ("http", "user@a.test", invalid),
            ("http", "a.test:0", invalid),
            ("http", "a.test:65536", invalid),
            ("http", "a.test:+80", invalid),
            ("http", "a.test:80:80", invalid),
            ("http", "a.test/x", invalid),
            ("http", "a b", invalid),
            ("http", "a,b", invalid),
            ("http", "a%2eb", invalid),
            ("http", "[::1", invalid),
            ("http", "::1]", invalid),
            ("http", "[::1]x", invalid),
            ("http", "[v1.x]", invalid),
            ("http", "\u{e9}.test", invalid),
        ] {
            let got = normalise_authority(scheme, authority);
            assert_eq!(got.as_deref().map_err(|reason| *reason), expected, "{scheme} {authority}");
        }
        assert!(matches!(normalise_authority("http", "a.test:8080"), Ok(Cow::Borrowed(_))));
        assert_eq!(host_of("a.test:8080"), "a.test");
        assert_eq!(host_of("[::1]:8080"), "[::1]");
    }

    proptest! {
        #[test]
        fn readings_are_paths(path in "(/|%2F|%5C|[.]|;|a|%){0,12}") {
            for read in readings(&format!("/{path}")) {
                prop_assert!(read.starts_with('/'), "{path} {read}");
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = normalise_path(&text);
            let _ = normalise_authority("http", &text).map(|a| host_of(&a).len());
            let _ = UrlParts::new(&text);
        }

        /// Normalising twice changes nothing: key and target stay the same through any number of tiers.
        #[test]
        fn paths_are_stable(path in "/([a-c.%/;~ \\\\]|%2[eEfF]|%61){0,12}") {
            if let Ok(once) = normalise_path(&path) {
                let twice = normalise_path(&once).unwrap();
                prop_assert_eq!(&twice, &once);
                prop_assert!(once.starts_with('/'));
                prop_assert!(once.bytes().all(|b| b == b'%' || is_path_byte(b)));
                prop_assert!(!has_dot_segment(&once));
            }
        }

        #[test]
        fn authorities_are_stable(authority in "[A-Za-z0-9.:\\[\\]-]{1,20}") {
            if let Ok(once) = normalise_authority("http", &authority) {
                let twice = normalise_authority("http", &once);
                prop_assert_eq!(twice.as_ref().ok(), Some(&once));
            }
        }
    }
}
