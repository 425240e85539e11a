//! Routes that answer with a redirect (RFC 9110 §15.4), without asking anybody.
//!
//! The client's part of the target is its normalised path and its query with escapes normalised: nothing in it can end a
//! field's line. A target that begins with `/` never begins with two of them, which would name a host. The check of the
//! configuration sees to it that the host of a URL is the operator's choice.
//!
//! 301 and 308 may be kept by caches and browsers for [`KEPT`]: without that word browsers keep them for ever, and a
//! mistake could never be taken back. The others are not kept.

use http::{HeaderValue, StatusCode};
use shared::config::{Piece, RedirectSpec, Template};

use crate::url::{UrlParts, normalise_escapes, push_escape};

/// Cache-Control of permanent redirects: an hour.
pub const KEPT: HeaderValue = HeaderValue::from_static("max-age=3600");

/// The redirect of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    to: Template,
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
}

/// The request's URL.
#[derive(Clone, Copy, Debug)]
pub struct Url<'a> {
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Normalised.
    pub authority: &'a str,
    /// Normalised.
    pub path: &'a str,
    /// What the `*` of the route's path stands for.
    pub rest: &'a str,
    /// As it came.
    pub query: Option<&'a str>,
}

impl Redirect {
    /// Of a route's `redirect`.
    ///
    /// # Errors
    /// The status is none.
    pub fn new(spec: &RedirectSpec) -> Result<Self, String> {
        let status = StatusCode::from_u16(spec.status)
            .map_err(|_| format!("{} is not a status", spec.status))?;
        Ok(Self { to: spec.to.clone(), status })
    }

    /// Where the request is sent; none when it is there already.
    pub fn location(&self, url: &Url<'_>) -> Option<String> {
        let mut location = String::with_capacity(url.path.len() + 64);
        let mut in_query = false;
        for piece in self.to.pieces() {
            match piece {
                Piece::Text(text) => {
                    in_query |= text.contains('?');
                    location.push_str(text);
                }
                Piece::Scheme => location.push_str(url.scheme),
                Piece::Host => location.push_str(crate::key::host_of(url.authority)),
                Piece::Path => push(&mut location, url.path, in_query),
                Piece::Rest => push(&mut location, url.rest, in_query),
                Piece::Query => {
                    if let Some(query) = url.query {
                        location.push('?');
                        location.push_str(&normalise_escapes(query));
                    }
                }
            }
        }
        if location.starts_with('/') {
            let without = location.trim_start_matches('/').len();
            location.drain(..location.len() - without - 1);
        }
        (!is_same(&location, url)).then_some(location)
    }
}

/// In a query, a path is a value: what separates parameters is escaped.
fn push(location: &mut String, part: &str, in_query: bool) {
    if !in_query {
        location.push_str(part);
        return;
    }
    for &b in part.as_bytes() {
        if b.is_ascii_alphanumeric() || b"-._~/".contains(&b) {
            location.push(char::from(b));
        } else {
            push_escape(location, b);
        }
    }
}

/// Whether the client asked for this URL.
fn is_same(location: &str, url: &Url<'_>) -> bool {
    let whole = match location.starts_with('/') {
        true => &format!("{}://{}{location}", url.scheme, url.authority),
        false => location,
    };
    UrlParts::new(whole).is_ok_and(|target| {
        target.scheme == url.scheme
            && target.authority == url.authority
            && target.path == url.path
            && target.query.map(normalise_escapes) == url.query.map(normalise_escapes)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn redirect(to: &str) -> Redirect {
        let to = Template::try_from(to.to_owned()).unwrap();
        assert_eq!(to.redirect_problem(), None);
        Redirect::new(&RedirectSpec { to, status: 308 }).unwrap()
    }

    fn url<'a>(path: &'a str, rest: &'a str, query: Option<&'a str>) -> Url<'a> {
        Url { scheme: "http", authority: "www.cdn.test:8080", path, rest, query }
    }

    #[test]
    fn placeholders_stand_for_the_requests_url() {
        for (to, path, rest, query, expected) in [
            (
                "https://{host}{path}{query}",
                "/a/b",
                "a/b",
                Some("c=d"),
                Some("https://www.cdn.test/a/b?c=d"),
            ),
            ("https://{host}{path}{query}", "/a", "a", None, Some("https://www.cdn.test/a")),
            ("https://{host}{path}{query}", "/a", "a", Some(""), Some("https://www.cdn.test/a?")),
            ("/new/{rest}{query}", "/old/x", "x", Some("y"), Some("/new/x?y")),
            ("https://new.test/{rest}#top", "/old/x", "x", None, Some("https://new.test/x#top")),
            ("{scheme}://m.{host}{path}", "/a", "", None, Some("http://m.www.cdn.test/a")),
            (
                "/login?from={path}&x=1",
                "/a&b=c/%20",
                "",
                None,
                Some("/login?from=/a%26b%3Dc/%2520&x=1"),
            ),
            // No host comes out of a path.
            ("{path}", "//evil.test/x", "", None, Some("/evil.test/x")),
            ("/{rest}", "/old//evil.test", "/evil.test", None, Some("/evil.test")),
            ("/{path}", "///evil.test", "", None, Some("/evil.test")),
            ("https://a.test{path}", "//evil.test", "", None, Some("https://a.test//evil.test")),
            // To where it is already.
            ("{path}{query}", "/a", "", Some("b"), None),
            ("http://{host}:8080{path}", "/a", "", None, None),
            ("/a", "/a", "", Some("b"), Some("/a")),
            ("/a", "/a", "", None, None),
        ] {
            let location = redirect(to).location(&url(path, rest, query));
            assert_eq!(location.as_deref(), expected, "{to} {path}");
        }
        let https =
            Url { scheme: "https", authority: "www.cdn.test", ..url("/a", "", Some("%61=b")) };
        assert_eq!(redirect("https://{host}{path}{query}").location(&https), None);
    }

    proptest! {
        /// Whatever is asked for, the target is one line that names the operator's host or none.
        #[test]
        fn no_open_redirect_and_no_injection(
            path in "[/\\\\.%a-c@:;\r\n]{0,12}",
            query in proptest::option::of("\\PC{0,12}"),
            to in proptest::sample::select(vec!["{path}{query}", "/x/{rest}", "/{rest}{query}", "https://a.test{path}{query}", "/l?u={path}"]),
        ) {
            if let Ok(path) = crate::url::normalise_path(&format!("/{path}")) {
                let rest = path.strip_prefix('/').unwrap_or_default();
                if let Some(location) = redirect(to).location(&url(&path, rest, query.as_deref())) {
                    let value = HeaderValue::from_str(&location);
                    prop_assert!(value.is_ok() && location.is_ascii(), "{}", location);
                    let relative = location.starts_with('/') && !location.starts_with("//") && !location.starts_with("/\\");
                    prop_assert!(relative || location.starts_with("https://a.test/"), "{}", location);
                }
            }
        }
    }
}
