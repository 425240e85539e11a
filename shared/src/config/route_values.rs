//! Values of a route that have a form of their own: texts with placeholders, and the origins of CORS.

use super::values::from_text;

from_text! {
    Template: "a text with placeholders, such as \"https://{host}{path}{query}\"",
    CorsOrigin: "an origin, such as \"https://app.example.com\", or \"*\"",
}

/// A piece of a [`Template`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// As it stands.
    Text(String),
    /// `{scheme}`: `http` or `https`, as the client used it.
    Scheme,
    /// `{host}`: the request's host, without port.
    Host,
    /// `{path}`: the request's path, normalised.
    Path,
    /// `{rest}`: what the `*` of the route's path stands for.
    Rest,
    /// `{query}`: the request's query with its `?`, or nothing.
    Query,
}

/// A text with placeholders for parts of a request's URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
}

impl Template {
    /// Its pieces in order; never two texts in a row, never an empty one.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Whether it has this placeholder.
    pub fn uses(&self, piece: &Piece) -> bool {
        self.pieces.contains(piece)
    }

    /// Why it is no target of a redirect, or none. Refused is what would let a client choose the host that others are
    /// sent to: `https://example.com{rest}` with a rest of `.evil.test`.
    pub fn redirect_problem(&self) -> Option<&'static str> {
        const BEGIN: &str = "begin it with `/`, `{path}`, `http://`, `https://` or `{scheme}://`";
        let mut query = false;
        let mut fragment = false;
        // What is to come of scheme, authority and path.
        let mut rest: &[Piece] = &self.pieces;
        let mut authority = match rest {
            [Piece::Path, ..] => None,
            [Piece::Text(text), ..] if text.starts_with("//") => return Some(BEGIN),
            [Piece::Text(text), ..] if text.starts_with('/') => None,
            [Piece::Text(text), tail @ ..] => {
                let after = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
                let Some(after) = after else { return Some(BEGIN) };
                rest = tail;
                Some(vec![Some(after)])
            }
            [Piece::Scheme, Piece::Text(text), tail @ ..] => {
                let Some(after) = text.strip_prefix("://") else { return Some(BEGIN) };
                rest = tail;
                Some(vec![Some(after)])
            }
            _ => return Some(BEGIN),
        };
        if let Some(parts) = &mut authority {
            // Everything up to the first `/`, `?`, `#`, `{path}` or `{query}` names the host.
            let ends = |text: &str| text.contains(['/', '?', '#']);
            for piece in rest {
                if parts.last().copied().flatten().is_some_and(ends) {
                    break;
                }
                match piece {
                    Piece::Text(text) => parts.push(Some(text)),
                    Piece::Host => parts.push(None),
                    Piece::Path | Piece::Query => break,
                    Piece::Rest | Piece::Scheme => {
                        return Some(
                            "write a `/` between the host and `{rest}`: else a client chooses the host",
                        );
                    }
                }
            }
            let host = |text: &str| {
                let text = text.split(['/', '?', '#']).next().unwrap_or_default();
                text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b))
            };
            if !parts.iter().flatten().all(|text| host(text)) {
                return Some("this names no host");
            }
            let named = |part: &Option<&str>| {
                part.is_none_or(|text| !text.is_empty() && !text.starts_with(['/', '?', '#', ':']))
            };
            if !parts.iter().find(|part| **part != Some("")).is_some_and(named) {
                return Some("this names no host");
            }
        }
        for (at, piece) in self.pieces.iter().enumerate() {
            match piece {
                Piece::Text(text) if fragment && text.contains('#') => {
                    return Some("there is more than one `#`");
                }
                Piece::Text(text) => {
                    if query && !fragment && !text.starts_with('#') {
                        return Some("nothing but a `#` may follow `{query}`");
                    }
                    fragment |= text.contains('#');
                }
                Piece::Query if query => return Some("`{query}` stands there twice"),
                Piece::Query if fragment => return Some("`{query}` comes before the `#`"),
                Piece::Query if self.has_text_query(at) => {
                    return Some("`{query}` brings its own `?`: write it without one before it");
                }
                Piece::Query => query = true,
                Piece::Scheme if at > 0 => {
                    return Some("`{scheme}` may stand at the beginning only");
                }
                _ if query && !fragment => return Some("nothing but a `#` may follow `{query}`"),
                _ => {}
            }
        }
        None
    }

    /// Why it is no path for an origin, or none.
    pub fn rewrite_problem(&self) -> Option<&'static str> {
        match self.pieces.first() {
            Some(Piece::Path) => {}
            Some(Piece::Text(text)) if text.starts_with('/') => {}
            _ => return Some("begin it with `/` or `{path}`"),
        }
        let mut shape = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) if text.contains(['?', '#']) => {
                    return Some("this is the path alone: the query goes with it unchanged");
                }
                Piece::Text(text) => shape.push_str(text),
                Piece::Path | Piece::Rest => shape.push('x'),
                _ => return Some("only `{path}` and `{rest}` may stand in it"),
            }
        }
        let dots = shape.split('/').any(|segment| matches!(segment, "." | ".."));
        dots.then_some("write it without the segments `.` and `..`")
    }

    /// Whether a text before piece `at` has a `?`.
    fn has_text_query(&self, at: usize) -> bool {
        let before = self.pieces.get(..at).unwrap_or_default();
        before.iter().any(|piece| matches!(piece, Piece::Text(text) if text.contains('?')))
    }
}

impl TryFrom<String> for Template {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let bad = |why: &str| Err(format!("`{text}` {why}"));
        if text.is_empty() {
            return Err("this is empty".to_owned());
        }
        let mut pieces = Vec::new();
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (plain, after) = match rest.split_once('{') {
                Some((plain, after)) => (plain, Some(after)),
                None => (rest, None),
            };
            // RFC 3986 appendix A: what may stand in a URL as it is.
            let allowed = |b: u8| b.is_ascii_graphic() && !b"\"<>\\^`}|".contains(&b);
            if plain.contains('}') {
                return bad("has a `}` without its `{`");
            }
            if let Some(strange) = plain.chars().find(|c| !c.is_ascii() || !allowed(*c as u8)) {
                return bad(&format!(
                    "has {strange:?}, which no URL has as it is: write it escaped, `%` and two hex digits"
                ));
            }
            let escapes = plain.split('%').skip(1).all(|after| {
                after.as_bytes().get(..2).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))
            });
            if !escapes {
                return bad("has a `%` that begins no escape");
            }
            if !plain.is_empty() {
                pieces.push(Piece::Text(plain.to_owned()));
            }
            let Some(after) = after else { break };
            let Some((name, after)) = after.split_once('}') else {
                return bad("has a `{` without its `}`");
            };
            pieces.push(match name {
                "scheme" => Piece::Scheme,
                "host" => Piece::Host,
                "path" => Piece::Path,
                "rest" => Piece::Rest,
                "query" => Piece::Query,
                _ => {
                    return bad(&format!(
                        "has the placeholder `{{{name}}}`: there are {{scheme}}, {{host}}, {{path}}, {{rest}} and {{query}}"
                    ));
                }
            });
            rest = after;
        }
        Ok(Self { pieces })
    }
}

/// An entry of `origins` of a route's `cors`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsOrigin {
    /// `*`: every origin, `null` too.
    Any,
    /// `null`: what pages in a sandbox, from a file or behind a redirect send. Nobody knows who that is.
    Null,
    /// One origin, or those below a host.
    Named {
        /// Lower case.
        scheme: String,
        /// Lower case; IPv6 addresses in brackets.
        host: String,
        /// Every name below `host`, at any depth, and not `host` itself: `https://*.example.com`.
        below: bool,
        /// None: the scheme's own.
        port: Option<u16>,
    },
}

impl TryFrom<String> for CorsOrigin {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "*" => return Ok(Self::Any),
            "null" => return Ok(Self::Null),
            _ => {}
        }
        let bad = |why: &str| {
            Err(format!(
                "`{text}` is not an origin ({why}): write \"https://app.example.com\", \"https://*.example.com\" or \"*\""
            ))
        };
        let lower = text.to_ascii_lowercase();
        let Some((scheme, rest)) = lower.split_once("://") else { return bad("it has no scheme") };
        let good = scheme.starts_with(|c: char| c.is_ascii_lowercase())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        if !good {
            return bad("it has no scheme");
        }
        let (below, rest) = match rest.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        if rest.contains('/') {
            return bad("an origin has no path, not even `/`");
        }
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (rest, None),
        };
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let named = match address {
            Some(address) => !below && address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => host.split('.').all(|label| {
                !label.is_empty()
                    && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
            }),
        };
        if !named {
            return bad("it has no host; `*` may stand as the first label only");
        }
        let port = match port.map(str::parse::<u16>) {
            None => None,
            Some(Ok(port)) if port > 0 => Some(port),
            Some(_) => return bad("the port is not between 1 and 65535"),
        };
        let own = match scheme {
            "https" => Some(443),
            "http" => Some(80),
            _ => None,
        };
        // Browsers leave the scheme's own port out (HTML, serialisation of an origin).
        let port = port.filter(|port| Some(*port) != own);
        Ok(Self::Named { scheme: scheme.to_owned(), host: host.to_owned(), below, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(text: &str) -> Result<Template, String> {
        Template::try_from(text.to_owned())
    }

    #[test]
    fn templates_have_known_placeholders_and_characters_of_urls() {
        let pieces = template("https://{host}:8443{path}{query}").unwrap().pieces;
        let text = |text: &str| Piece::Text(text.to_owned());
        assert_eq!(
            pieces,
            [text("https://"), Piece::Host, text(":8443"), Piece::Path, Piece::Query]
        );
        for (bad, why) in [
            ("", "empty"),
            ("/{ path}", "placeholder"),
            ("/{uri}", "{query}"),
            ("/{path", "without its `}`"),
            ("/path}", "without its `{`"),
            ("/a b", "escaped"),
            ("/a\r\nX: y", "escaped"),
            ("/\\evil", "escaped"),
            ("/\u{e9}", "escaped"),
            ("/a%2", "begins no escape"),
            ("/a%zz", "begins no escape"),
        ] {
            let said = template(bad).unwrap_err();
            assert!(said.contains(why), "{bad:?}: {said}");
        }
    }

    #[test]
    fn redirects_go_to_a_host_that_the_operator_named() {
        for good in [
            "/new/{rest}",
            "{path}",
            "{path}{query}#top",
            "https://example.com",
            "https://example.com/{rest}",
            "https://example.com{path}{query}",
            "https://{host}",
            "https://www.{host}:8443{path}",
            "{scheme}://{host}/a/{rest}?from={path}",
            "http://[2001:db8::1]/a",
            "/a?b={path}#c",
        ] {
            assert_eq!(template(good).unwrap().redirect_problem(), None, "{good}");
        }
        for (bad, why) in [
            ("//example.com/{rest}", "begin"),
            ("example.com", "begin"),
            ("{rest}", "begin"),
            ("{query}", "begin"),
            ("{host}/a", "begin"),
            ("{scheme}{host}", "begin"),
            ("ftp://example.com", "begin"),
            ("javascript:alert(1)", "begin"),
            ("https://example.com{rest}", "host"),
            ("https://{host}{rest}", "host"),
            ("https://{rest}/a", "host"),
            ("https://user@{host}/a", "host"),
            ("https:///a", "host"),
            ("https://{path}", "host"),
            ("https://?{host}", "host"),
            ("https://:80/", "host"),
            ("/a?{query}", "own `?`"),
            ("/a#b{query}", "before"),
            ("{path}{query}&x=1", "follow"),
            ("{path}{query}{rest}", "follow"),
            ("{path}{query}{query}", "twice"),
            ("/{scheme}", "beginning"),
            ("/a#b{path}#c", "more than one"),
        ] {
            let said = template(bad).unwrap().redirect_problem();
            assert!(said.is_some_and(|said| said.contains(why)), "{bad}: {said:?}");
        }
    }

    #[test]
    fn rewrites_are_paths() {
        for good in ["/", "/v2/{rest}", "{path}", "{path}.html", "/a{path}"] {
            assert_eq!(template(good).unwrap().rewrite_problem(), None, "{good}");
        }
        for bad in
            ["v2/{rest}", "{rest}", "/{host}", "/a?b", "/a#b", "/a/../{rest}", "/./a", "/{query}"]
        {
            assert!(template(bad).unwrap().rewrite_problem().is_some(), "{bad}");
        }
    }

    #[test]
    fn cors_origins() {
        let origin = |text: &str| CorsOrigin::try_from(text.to_owned());
        let named = |scheme: &str, host: &str, below, port| {
            Ok(CorsOrigin::Named { scheme: scheme.to_owned(), host: host.to_owned(), below, port })
        };
        assert_eq!(origin("*"), Ok(CorsOrigin::Any));
        assert_eq!(origin("null"), Ok(CorsOrigin::Null));
        assert_eq!(
            origin("HTTPS://App.example.com:443"),
            named("https", "app.example.com", false, None)
        );
        assert_eq!(
            origin("http://*.example.com:8080"),
            named("http", "example.com", true, Some(8080))
        );
        assert_eq!(origin("http://[::1]:3000"), named("http", "[::1]", false, Some(3000)));
        assert_eq!(origin("capacitor://localhost"), named("capacitor", "localhost", false, None));
        for bad in [
            "",
            "app.example.com",
            "https://",
            "https://app.example.com/",
            "https://app.example.com/x",
            "https://*",
            "https://*.*.example.com",
            "https://app*.example.com",
            "https://u@example.com",
            "https://example.com:0",
            "https://example.com:",
            "https://a..b",
            "https://*.[::1]",
            "://example.com",
        ] {
            assert!(origin(bad).is_err(), "{bad}");
        }
    }
}
