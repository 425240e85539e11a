//! The path that an origin is asked for, where it is not the client's: a prefix taken off, or a template filled in.
//!
//! Only the origin sees it. The cache key holds the client's URL, by which it is purged, and a parent is asked for that
//! same URL and rewrites by itself.

use std::borrow::Cow;

use shared::config::{Piece, Template};

use crate::semantics::Reason;

/// How a route makes the origin's path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// As the client's.
    #[default]
    Same,
    /// Without this prefix.
    Strip(String),
    /// By this template.
    Rewrite(Template),
}

impl Target {
    /// The path for the origin, of a normalised path of which `rest` is what the `*` of the route stands for.
    ///
    /// # Errors
    /// The path has a segment `.` or `..` only after rewriting (`/img*` rewritten to `/v2/{rest}`, asked for `/img../x`):
    /// the origin would resolve it to somewhere that no route means.
    pub fn path<'p>(&self, path: &'p str, rest: &str) -> Result<Cow<'p, str>, Reason> {
        match self {
            Self::Same => Ok(Cow::Borrowed(path)),
            Self::Strip(prefix) => {
                let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
                Ok(match path.strip_prefix(prefix) {
                    Some("") => Cow::Borrowed("/"),
                    Some(rest) if rest.starts_with('/') => Cow::Borrowed(rest),
                    _ => Cow::Borrowed(path),
                })
            }
            Self::Rewrite(template) => {
                let mut made = String::with_capacity(path.len() + 32);
                for piece in template.pieces() {
                    match piece {
                        Piece::Text(text) => made.push_str(text),
                        Piece::Path => made.push_str(path),
                        Piece::Rest => made.push_str(rest),
                        Piece::Scheme | Piece::Host | Piece::Query => {}
                    }
                }
                if made.split('/').any(|segment| matches!(segment, "." | "..")) {
                    return Err(Reason::TargetInvalid);
                }
                Ok(Cow::Owned(made))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::url::normalise_path;

    fn rewrite(text: &str) -> Target {
        Target::Rewrite(Template::try_from(text.to_owned()).unwrap())
    }

    #[test]
    fn templates_are_filled_in() {
        for (template, path, rest, expected) in [
            ("/v2/{rest}", "/img/a.png", "a.png", Ok("/v2/a.png")),
            ("/v2/{rest}", "/img", "", Ok("/v2/")),
            ("/v2/{rest}", "/img//a", "/a", Ok("/v2//a")),
            ("{path}.html", "/a", "", Ok("/a.html")),
            ("/x{path}", "/a%2Fb", "", Ok("/x/a%2Fb")),
            ("/all", "/a", "", Ok("/all")),
            ("/v2/{rest}", "/img../etc", "../etc", Err(Reason::TargetInvalid)),
            ("/v2/{rest}", "/img.", ".", Err(Reason::TargetInvalid)),
            ("/v2/img{rest}", "/img../etc", "../etc", Ok("/v2/img../etc")),
        ] {
            let target = rewrite(template);
            let made = target.path(path, rest);
            assert_eq!(made.as_deref().map_err(|reason| *reason), expected, "{template} {path}");
        }
    }

    proptest! {
        /// What the origin is asked for is a path that it cannot resolve to another one.
        #[test]
        fn rewritten_paths_stay_where_they_are(path in "/img([a.%2fF/]|%2e|\\.\\.){0,8}") {
            if let Ok(path) = normalise_path(&path) && let Some(rest) = path.strip_prefix("/img") {
                for template in ["/v2/{rest}", "/v2{rest}", "/v2{path}"] {
                    if let Ok(made) = rewrite(template).path(&path, rest) {
                        prop_assert_eq!(&normalise_path(&made).unwrap(), &made);
                        prop_assert!(made.starts_with("/v2"));
                    }
                }
            }
        }
    }
}
