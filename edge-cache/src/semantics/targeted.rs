//! Which field speaks to this cache: a targeted one (RFC 9213), Surrogate-Control where the policy reads it, Cache-Control.

use http::HeaderMap;
use http::header::HeaderName;

use super::Policy;
use super::cache_control::{CacheControl, DELTA_MAX};
use super::structured::{self, Item};
use super::surrogate;

/// Which field the directives come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// A targeted field (RFC 9213).
    Targeted,
    /// Surrogate-Control.
    Surrogate,
    /// Cache-Control.
    CacheControl,
}

/// RFC 9213 §2.2: the first targeted field of the list that is valid and not empty takes the place of Cache-Control and
/// Expires.
pub(super) fn directives(response: &HeaderMap, policy: &Policy) -> (CacheControl, Field) {
    let targeted = policy.targeted.iter().find_map(|name| targeted_directives(response, name));
    if let Some(cc) = targeted {
        return (cc, Field::Targeted);
    }
    if policy.surrogate_control
        && let Some(cc) = surrogate::directives(response)
    {
        return (cc, Field::Surrogate);
    }
    (CacheControl::of(response), Field::CacheControl)
}

/// `None`: absent, empty, no dictionary, or with a directive of the wrong type.
fn targeted_directives(response: &HeaderMap, name: &HeaderName) -> Option<CacheControl> {
    let members = structured::dictionary(response, name)?;
    let mut cc = CacheControl { present: true, ..CacheControl::default() };
    for (key, item) in &members {
        let flag = || match item {
            Item::Boolean(value) => Some(*value),
            _ => None,
        };
        // With field names, these two are taken as without: the careful reading that RFC 9111 allows.
        let careful = || match item {
            Item::Boolean(value) => Some(*value),
            Item::String(_) | Item::Token(_) | Item::List(_) | Item::Other => Some(true),
            Item::Integer(_) => None,
        };
        let seconds = || match item {
            Item::Integer(value) => {
                Some(Some(u32::try_from((*value).max(0)).map_or(DELTA_MAX, |s| s.min(DELTA_MAX))))
            }
            _ => None,
        };
        match key.as_str() {
            "no-store" => cc.no_store = flag()?,
            "no-cache" => cc.no_cache = careful()?,
            "private" => cc.private = careful()?,
            "public" => cc.public = flag()?,
            "must-revalidate" => cc.must_revalidate = flag()?,
            "proxy-revalidate" => cc.proxy_revalidate = flag()?,
            "must-understand" => cc.must_understand = flag()?,
            "immutable" => cc.immutable = flag()?,
            "max-age" => cc.max_age = seconds()?,
            "s-maxage" => cc.s_maxage = seconds()?,
            "stale-while-revalidate" => cc.stale_while_revalidate = seconds()?,
            "stale-if-error" => cc.stale_if_error = seconds()?,
            _ => {}
        }
    }
    Some(cc)
}
