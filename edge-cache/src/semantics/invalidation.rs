//! What a request with an unsafe method makes invalid (RFC 9111 §4.4).

use http::header::{CONTENT_LOCATION, LOCATION};
use http::{HeaderMap, Method, StatusCode};

use crate::key::{UrlParts, normalise_path};

/// Whether a response to this method, with this status, invalidates what is stored for its target (RFC 9111 §4.4): any
/// method that is not known to be safe, any status that is no error.
pub fn invalidates(method: &Method, status: StatusCode) -> bool {
    let safe = [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE];
    !safe.contains(method) && method.as_str() != "QUERY" && (200..400).contains(&status.as_u16())
}

/// The targets (path and query as written) that Location and Content-Location name besides the request's own, when they are
/// of the same origin: another origin's may not be invalidated by this one.
pub fn also_invalidated(
    scheme: &str,
    authority: &str,
    path: &str,
    response: &HeaderMap,
) -> Vec<String> {
    [LOCATION, CONTENT_LOCATION]
        .iter()
        .filter_map(|name| response.get(name)?.to_str().ok())
        .filter_map(|reference| same_origin_target(scheme, authority, path, reference))
        .collect()
}

/// RFC 3986 §5.2, for a base whose path is normalised.
fn same_origin_target(
    scheme: &str,
    authority: &str,
    path: &str,
    reference: &str,
) -> Option<String> {
    let reference = reference.split('#').next().unwrap_or_default();
    let of_origin = |parts: UrlParts<'_>| {
        (parts.scheme == scheme && parts.authority == authority)
            .then(|| with_query(&parts.path, parts.query))
    };
    if reference.starts_with("//") {
        return of_origin(UrlParts::new(&format!("{scheme}:{reference}")).ok()?);
    }
    let (target, query) = reference
        .split_once('?')
        .map_or((reference, None), |(target, query)| (target, Some(query)));
    // A colon before any slash ends a scheme.
    if target.split('/').next().unwrap_or_default().contains(':') {
        return of_origin(UrlParts::new(reference).ok()?);
    }
    let joined = match target {
        "" => path.to_owned(),
        absolute if absolute.starts_with('/') => absolute.to_owned(),
        relative => {
            format!("{}/{relative}", path.rsplit_once('/').map_or("", |(folder, _)| folder))
        }
    };
    normalise_path(&joined).ok().map(|path| with_query(&path, query))
}

fn with_query(path: &str, query: Option<&str>) -> String {
    query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    /// Pitfall 31.
    #[test]
    fn rfc9111_4_4_invalidation() {
        for (method, status, expected) in [
            ("POST", 200, true),
            ("PUT", 204, true),
            ("DELETE", 302, true),
            ("PATCH", 200, true),
            ("M-SEARCH", 200, true),
            ("POST", 404, false),
            ("POST", 500, false),
            ("POST", 100, false),
            ("GET", 200, false),
            ("HEAD", 200, false),
            ("OPTIONS", 200, false),
            ("TRACE", 200, false),
        ] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            assert_eq!(
                invalidates(&method, StatusCode::from_u16(status).unwrap()),
                expected,
                "{method} {status}"
            );
        }
    }

    /// Pitfall 31: Location and Content-Location of the same origin, no others.
    #[test]
    fn rfc9111_4_4_other_targets() {
        for (location, expected) in [
            ("/x?q=1", Some("/x?q=1")),
            ("x", Some("/a/x")),
            ("../x", Some("/x")),
            ("./", Some("/a/")),
            ("?q", Some("/a/b?q")),
            ("#top", Some("/a/b")),
            ("http://A.test:80/x#y", Some("/x")),
            ("http://a.test", Some("/")),
            ("//a.test/x", Some("/x")),
            ("//b.test/x", None),
            ("https://a.test/x", None),
            ("http://a.test:8080/x", None),
            ("mailto:x@a.test", None),
            ("/%zz", None),
        ] {
            let mut response = HeaderMap::new();
            response.insert(LOCATION, HeaderValue::from_static(location));
            let targets = also_invalidated("http", "a.test", "/a/b", &response);
            assert_eq!(targets, expected.into_iter().collect::<Vec<_>>(), "{location}");
        }
        let mut both = HeaderMap::new();
        both.insert(LOCATION, HeaderValue::from_static("/1"));
        both.insert(CONTENT_LOCATION, HeaderValue::from_static("/2"));
        assert_eq!(also_invalidated("http", "a.test", "/", &both), ["/1", "/2"]);
    }

    proptest! {
        #[test]
        fn no_reference_panics(reference in "[ -~]{0,40}") {
            let mut response = HeaderMap::new();
            response.insert(LOCATION, HeaderValue::from_str(&reference).unwrap());
            for target in also_invalidated("http", "a.test", "/a/b", &response) {
                prop_assert!(target.starts_with('/'));
            }
        }
    }
}
