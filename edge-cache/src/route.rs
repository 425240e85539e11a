//! Which site and route a request belongs to.
//!
//! Sites by host: exact name first, then the wildcard with the longest suffix; `*.img.cdn.test` covers every name below
//! `img.cdn.test`, at any depth, not the name itself. Routes by path in listed order, first match wins: `/api/*` matches
//! what begins with `/api/` and also `/api` itself, never `/apiary`; `/img*` matches what begins with `/img`; a pattern
//! without `*` matches exactly. Paths are the normalised ones of [`crate::key::normalise_path`]: case counts, and
//! `/a/../api/x` has become `/api/x` before it is matched.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use crate::key::{normalise_authority, normalise_path};
use crate::rules::rewrite::Target;
use crate::semantics::Reason;
use crate::url::{is_plain, readings};

/// A path pattern: exact, or everything that begins with a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    text: String,
    below: bool,
}

impl PathPattern {
    /// `/api/*`, `/robots.txt`, `/*`, `/img*`. `Err` says what is wrong with it.
    pub fn new(pattern: &str) -> Result<Self, String> {
        let (text, below) = match pattern.strip_suffix('*') {
            Some(text) => (text, true),
            None => (pattern, false),
        };
        if text.contains('*') {
            return Err(format!("`{pattern}` has `*` in the middle: it may stand only at the end"));
        }
        match normalise_path(text) {
            Ok(normal) if normal == text => Ok(Self { text: text.to_owned(), below }),
            Ok(normal) => {
                let star = if below { "*" } else { "" };
                Err(format!(
                    "no path matches `{pattern}`: paths are normalised first, write \"{normal}{star}\""
                ))
            }
            Err(_) => Err(format!("`{pattern}` is no path: begin it with `/`")),
        }
    }

    /// Whether a normalised path matches.
    pub fn matches(&self, path: &str) -> bool {
        if !self.below {
            return path == self.text;
        }
        path.starts_with(&self.text) || self.text.strip_suffix('/').is_some_and(|dir| dir == path)
    }

    /// What the `*` stands for in a path that matches: nothing where there is none, and for `/api` in `/api/*`.
    pub fn rest<'p>(&self, path: &'p str) -> &'p str {
        path.strip_prefix(self.text.as_str()).filter(|_| self.below).unwrap_or_default()
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.text, if self.below { "*" } else { "" })
    }
}

/// One route: what it matches, and what the caller attached to it (origin, policy, …).
#[derive(Clone, Debug)]
pub struct Route<T> {
    /// Which paths.
    pub pattern: PathPattern,
    /// The path for the origin.
    pub target: Target,
    /// What the caller attached.
    pub value: T,
}

impl<T> Route<T> {
    /// The path for the origin.
    ///
    /// # Errors
    /// It would be one that the origin resolves to another.
    pub fn target_path<'p>(&self, path: &'p str) -> Result<Cow<'p, str>, Reason> {
        self.target.path(path, self.pattern.rest(path))
    }
}

/// A site's routes in listed order.
#[derive(Clone, Debug)]
pub struct Routes<T> {
    routes: Vec<Route<T>>,
}

impl<T> Routes<T> {
    /// In listed order.
    pub fn new(routes: Vec<Route<T>>) -> Self {
        Self { routes }
    }

    /// The first route that matches.
    pub fn find(&self, path: &str) -> Option<&Route<T>> {
        self.routes.iter().find(|route| route.pattern.matches(path))
    }

    /// Whether a server may read a path that has `found` its route as one of another route, which is guarded
    /// ([`crate::url::readings`]): then that guard would not be asked.
    pub fn evades(&self, path: &str, found: &Route<T>, guarded: impl Fn(&T) -> bool) -> bool {
        let is_another = |route: &Route<T>| !std::ptr::eq(route, found) && guarded(&route.value);
        !is_plain(path)
            && self.routes.iter().any(is_another)
            && readings(path).iter().filter_map(|read| self.find(read)).any(is_another)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Route<T>> {
        self.routes.iter()
    }
}

/// Hosts to whatever the caller keeps per site.
#[derive(Clone, Debug)]
pub struct Hosts<T> {
    exact: HashMap<String, T>,
    below: HashMap<String, T>,
}

impl<T> Default for Hosts<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), below: HashMap::new() }
    }
}

impl<T> Hosts<T> {
    /// Adds a host or a wildcard. `Err` says what is wrong with it (also: that it is there already).
    pub fn insert(&mut self, pattern: &str, value: T) -> Result<(), String> {
        let (name, table) = match pattern.strip_prefix("*.") {
            Some(name) => (name, &mut self.below),
            None => (pattern, &mut self.exact),
        };
        let name = match normalise_authority("http", name) {
            Ok(normal) if !name.contains(':') || name.starts_with('[') => normal.into_owned(),
            Ok(_) => return Err(format!("`{pattern}` has a port: name the host alone")),
            Err(_) => {
                return Err(format!(
                    "`{pattern}` is no host name: write \"www.example.com\" or \"*.example.com\""
                ));
            }
        };
        if table.contains_key(&name) {
            return Err(format!("`{pattern}` belongs to another site already"));
        }
        table.insert(name, value);
        Ok(())
    }

    /// The site of a normalised host without port.
    pub fn find(&self, host: &str) -> Option<&T> {
        if let Some(site) = self.exact.get(host) {
            return Some(site);
        }
        if self.below.is_empty() {
            return None;
        }
        // The longest suffix comes first: labels are taken off from the left. A host has at most 127 of them.
        let mut rest = host;
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(site) = self.below.get(parent) {
                return Some(site);
            }
            rest = parent;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_match_whole_segments() {
        for (pattern, path, expected) in [
            ("/*", "/", true),
            ("/*", "/a/b", true),
            ("/api/*", "/api/", true),
            ("/api/*", "/api/x/y", true),
            ("/api/*", "/api", true),
            ("/api/*", "/apiary", false),
            ("/api/*", "/API/x", false),
            ("/api/*", "/", false),
            ("/img*", "/img", true),
            ("/img*", "/img-2/a", true),
            ("/img*", "/im", false),
            ("/robots.txt", "/robots.txt", true),
            ("/robots.txt", "/robots.txt/", false),
            ("/a%2Fb/*", "/a%2Fb/c", true),
        ] {
            assert_eq!(
                PathPattern::new(pattern).unwrap().matches(path),
                expected,
                "{pattern} {path}"
            );
        }
        for pattern in ["", "*", "api/*", "/a/*/b", "/a/../b", "/%61", "/a b"] {
            assert!(PathPattern::new(pattern).is_err(), "{pattern}");
        }
        assert_eq!(
            PathPattern::new("/%61/*").unwrap_err(),
            "no path matches `/%61/*`: paths are normalised first, write \"/a/*\""
        );
    }

    #[test]
    fn the_rest_is_what_the_star_stands_for() {
        for (pattern, path, rest) in [
            ("/*", "/", ""),
            ("/*", "/a/b", "a/b"),
            ("/api/*", "/api", ""),
            ("/api/*", "/api/", ""),
            ("/api/*", "/api//x", "/x"),
            ("/img*", "/img-2/a", "-2/a"),
            ("/a", "/a", ""),
        ] {
            assert_eq!(PathPattern::new(pattern).unwrap().rest(path), rest, "{pattern} {path}");
        }
    }

    #[test]
    fn the_first_route_listed_wins() {
        let route = |pattern: &str, strip_prefix: Option<&str>, value| Route {
            pattern: PathPattern::new(pattern).unwrap(),
            target: strip_prefix.map_or(Target::Same, |prefix| Target::Strip(prefix.to_owned())),
            value,
        };
        let routes = Routes::new(vec![
            route("/images/*", Some("/images"), "bucket"),
            route("/images/logo.png", None, "never"),
            route("/*", Some("/nothing/"), "static"),
        ]);
        for (path, value, target) in [
            ("/images/logo.png", "bucket", "/logo.png"),
            ("/images/", "bucket", "/"),
            ("/images", "bucket", "/"),
            ("/images//x", "bucket", "//x"),
            ("/imagesque", "static", "/imagesque"),
            ("/nothing", "static", "/"),
            ("/nothing/a", "static", "/a"),
            ("/nothingness", "static", "/nothingness"),
        ] {
            let route = routes.find(path).unwrap();
            assert_eq!(
                (route.value, &*route.target_path(path).unwrap()),
                (value, target),
                "{path}"
            );
        }
        let narrow = Routes::new(vec![route("/a", None, "a")]);
        assert!(narrow.find("/b").is_none());
        assert_eq!(narrow.iter().count(), 1);
    }

    #[test]
    fn a_guard_is_not_evaded_by_another_spelling() {
        let route = |pattern: &str, value| Route {
            pattern: PathPattern::new(pattern).unwrap(),
            target: Target::Same,
            value,
        };
        let routes =
            Routes::new(vec![route("/in/*", true), route("/open/*", false), route("/*", false)]);
        for (path, evades) in [
            ("/x", false),
            ("/in/x", false),
            ("/in//x", false),
            ("/open//x", false),
            ("/a%2Fb;c//d", false),
            ("//in/x", true),
            ("/in%2Fx", true),
            ("/open/..%2Fin/x", true),
            ("/open/..;/in/x", true),
            ("/in;v=1/x", true),
            ("/open%5C..%5Cin%5Cx", true),
        ] {
            let found = routes.find(path).unwrap();
            assert_eq!(routes.evades(path, found, |guarded| *guarded), evades, "{path}");
            assert!(!routes.evades(path, found, |_| false), "{path}");
        }
    }

    #[test]
    fn hosts_exact_then_longest_suffix() {
        let mut hosts = Hosts::default();
        for (pattern, site) in [
            ("WWW.cdn.test", "www"),
            ("*.cdn.test", "wild"),
            ("*.img.cdn.test", "img"),
            ("[::1]", "six"),
        ] {
            hosts.insert(pattern, site).unwrap();
        }
        for (host, expected) in [
            ("www.cdn.test", Some("www")),
            ("a.cdn.test", Some("wild")),
            ("a.b.cdn.test", Some("wild")),
            ("x.img.cdn.test", Some("img")),
            ("x.y.img.cdn.test", Some("img")),
            ("img.cdn.test", Some("wild")),
            ("cdn.test", None),
            ("evilcdn.test", None),
            ("www.cdn.test.evil", None),
            ("[::1]", Some("six")),
            ("", None),
        ] {
            assert_eq!(hosts.find(host).copied(), expected, "{host}");
        }
        for pattern in ["www.cdn.test", "*.IMG.cdn.test", "a.test:80", "*.", "a/b", "*", ""] {
            assert!(hosts.insert(pattern, "x").is_err(), "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(pattern in "\\PC{0,20}", path in "\\PC{0,20}") {
            let mut hosts = Hosts::default();
            let _ = hosts.insert(&pattern, 1);
            let _ = hosts.find(&path);
            if let Ok(pattern) = PathPattern::new(&pattern) {
                let _ = pattern.matches(&path);
            }
        }

        /// Whatever is stripped, the origin gets a path.
        #[test]
        fn targets_are_paths(prefix in "(/[a-c]{0,2}){1,2}/?", path in "(/[a-c]{0,2}){1,4}") {
            let route = Route { pattern: PathPattern::new("/*").unwrap(), target: Target::Strip(prefix), value: () };
            let target = route.target_path(&path).unwrap();
            prop_assert!(target.starts_with('/') && path.ends_with(target.trim_start_matches('/')));
        }
    }
}
