//! Whether a response may be stored, how long it is fresh, and how old it is (RFC 9111 §3, §4.2).

use std::time::Duration;

use http::header::{AUTHORIZATION, DATE, ETAG, EXPIRES, LAST_MODIFIED, SET_COOKIE};
use http::{HeaderMap, Method, StatusCode};
use shared::time::UnixMillis;

pub use super::age::initial_age;
use super::cache_control::{self, CacheControl};
use super::deception::is_deceptive;
use super::targeted::{Field, directives};
use super::{Policy, Profile, Reason, date, vary};

/// RFC 9111 §4.2.2: the usual share of the time since Last-Modified.
const HEURISTIC_DIVISOR: u64 = 10;
/// A heuristic lifetime is never longer than this, however old the representation is.
const HEURISTIC_MAX: u64 = 86_400;

/// A request and its response, as the rules look at them.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// The request's normalised path, for the guard against cache deception.
    pub path: &'a str,
    /// The request's fields.
    pub request: &'a HeaderMap,
    /// The response's status.
    pub status: StatusCode,
    /// The response's fields, as received.
    pub response: &'a HeaderMap,
    /// When the request was sent.
    pub request_time: UnixMillis,
    /// When the response's head arrived.
    pub response_time: UnixMillis,
}

/// Where a lifetime comes from; the order is RFC 9111 §4.2.1 with RFC 9213 before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A targeted field such as CDN-Cache-Control (RFC 9213).
    Targeted,
    /// `Surrogate-Control: max-age`.
    Surrogate,
    /// `s-maxage`.
    SMaxage,
    /// `max-age`.
    MaxAge,
    /// `Expires` less `Date`.
    Expires,
    /// The policy's `negative_ttl`.
    NegativeTtl,
    /// A tenth of the time since Last-Modified.
    Heuristic,
    /// The policy's `ttl.default`.
    Default,
}

/// How long a stored response may be used, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// The freshness lifetime; zero for `no-cache`.
    pub fresh: Duration,
    /// Where it comes from.
    pub source: Source,
    /// How long past that it may be served while it is revalidated; zero when forbidden.
    pub while_revalidate: Duration,
    /// How long past that it may be served when the origin fails; zero when forbidden.
    pub if_error: Duration,
    /// Within `if_error`: serve it when the origin is slower than this.
    pub after_wait: Option<Duration>,
    /// It must never be used stale, whatever a client or a policy allows.
    pub must_revalidate: bool,
    /// It must be revalidated before each use.
    pub no_cache: bool,
    /// RFC 8246: a client's reload (`max-age=0`) needs no revalidation while it is fresh.
    pub immutable: bool,
}

/// Whether a shared cache may store this response (RFC 9111 §3) under this policy, and for how long.
///
/// A response to HEAD is never stored (`Err(MethodNotCached)`): it can only update a stored GET
/// ([`super::conditional::apply_head`]). A 206 is judged like a 200; whether its bytes fit is the caller's to see with
/// [`super::range::ContentRange`].
pub fn storable(exchange: &Exchange<'_>, policy: &Policy) -> Result<Lifetimes, Reason> {
    let Exchange { method, request, status, response, .. } = *exchange;
    if *method != Method::GET {
        return Err(Reason::MethodNotCached);
    }
    if status.is_informational() || status == StatusCode::NOT_MODIFIED {
        return Err(Reason::StatusNotUnderstood);
    }
    if policy.profile == Profile::Rfc && CacheControl::of(request).no_store {
        return Err(Reason::RequestNoStore);
    }
    let (cc, field) = directives(response, policy);
    // RFC 9111 §5.2.2.3: must-understand takes the place of no-store for a cache that knows the status.
    if cc.must_understand {
        if !is_understood(status) {
            return Err(Reason::StatusNotUnderstood);
        }
    } else if cc.no_store {
        return Err(Reason::NoStore);
    }
    if cc.private {
        return Err(Reason::Private);
    }
    // RFC 9111 §3.5.
    if request.contains_key(AUTHORIZATION)
        && !(cc.public || cc.s_maxage.is_some() || cc.must_revalidate)
    {
        return Err(Reason::Authorization);
    }
    if vary::Vary::of(response) == vary::Vary::Star {
        return Err(Reason::VaryStar);
    }
    if policy.profile == Profile::Safe {
        if response.contains_key(SET_COOKIE) && !is_listed(response, b"set-cookie") {
            return Err(Reason::SetCookie);
        }
        let opted_in = cc.public || cc.s_maxage.is_some() || field == Field::Targeted;
        if !opted_in && status.is_success() && is_deceptive(exchange.path, response) {
            return Err(Reason::TypeMismatch);
        }
    }

    let (seconds, source) = explicit_lifetime(exchange, &cc, field)
        .or_else(|| implicit_lifetime(exchange, &cc, policy))
        .ok_or(Reason::NoLifetime)?;
    let fresh = match source {
        _ if cc.no_cache => Duration::ZERO,
        Source::NegativeTtl => seconds,
        Source::Default | Source::Heuristic => seconds.min(policy.ttl.max),
        _ => seconds.max(policy.ttl.min).min(policy.ttl.max),
    };

    let lifetimes = with_stale_rules(fresh, source, &cc, status, policy);
    // Stored only in case the origin should fail one day: not worth the room, and nobody may wait for it meanwhile.
    let said_stale = (cc.stale_while_revalidate.is_some() && !lifetimes.while_revalidate.is_zero())
        || (cc.stale_if_error.is_some() && !lifetimes.if_error.is_zero());
    let age = initial_age(response, exchange.request_time, exchange.response_time);
    if fresh <= age && !has_validator(response) && !said_stale {
        return Err(Reason::NoReuse);
    }
    Ok(lifetimes)
}

fn with_stale_rules(
    fresh: Duration,
    source: Source,
    cc: &CacheControl,
    status: StatusCode,
    policy: &Policy,
) -> Lifetimes {
    // RFC 9111 §4.2.4, §5.2.2.2, §5.2.2.8, §5.2.2.10. A stale error is of no use to anybody.
    let forbidden = cc.must_revalidate
        || cc.proxy_revalidate
        || cc.no_cache
        || (cc.s_maxage.is_some() && !policy.stale.beside_s_maxage)
        || crate::lookup::is_origin_error(status);
    let window = |said: Option<u32>, policy_window: Duration| match said {
        _ if forbidden => Duration::ZERO,
        Some(seconds) => Duration::from_secs(seconds.into()),
        // A setting may let the origin's own words count beside s-maxage, never ours.
        None if cc.s_maxage.is_some() => Duration::ZERO,
        None => policy_window,
    };
    // A live origin is passed over only on its own word, or in the safe profile on the operator's.
    let unasked = match policy.profile {
        Profile::Safe => policy.stale.while_revalidate,
        Profile::Rfc => Duration::ZERO,
    };
    let while_revalidate = window(cc.stale_while_revalidate, unasked);
    let if_error = window(cc.stale_if_error, policy.stale.if_error);
    Lifetimes {
        fresh,
        source,
        while_revalidate,
        if_error,
        after_wait: if if_error.is_zero() { None } else { policy.stale.after_wait },
        must_revalidate: forbidden || cc.s_maxage.is_some(),
        no_cache: cc.no_cache,
        immutable: cc.immutable,
    }
}

/// RFC 9111 §4.2.1.
fn explicit_lifetime(
    exchange: &Exchange<'_>,
    cc: &CacheControl,
    field: Field,
) -> Option<(Duration, Source)> {
    let of = |seconds: u32| Duration::from_secs(seconds.into());
    match (field, cc.s_maxage, cc.max_age) {
        (Field::Targeted, Some(seconds), _) | (Field::Targeted, None, Some(seconds)) => {
            return Some((of(seconds), Source::Targeted));
        }
        (Field::Targeted, None, None) => return None,
        (Field::Surrogate, _, seconds) => return Some((of(seconds?), Source::Surrogate)),
        (Field::CacheControl, Some(seconds), _) => return Some((of(seconds), Source::SMaxage)),
        (Field::CacheControl, None, Some(seconds)) => return Some((of(seconds), Source::MaxAge)),
        (Field::CacheControl, None, None) => {}
    }
    if !exchange.response.contains_key(EXPIRES) {
        return None;
    }
    // RFC 9111 §5.3: what is no date, or stands there twice, is in the past. Without Date, the time of receipt counts
    // (RFC 9110 §6.6.1).
    let sent = date::field(exchange.response, &DATE)
        .unwrap_or_else(|| UnixMillis::from_secs(exchange.response_time.secs()));
    let lifetime =
        date::field(exchange.response, &EXPIRES).map_or(Duration::ZERO, |at| at.since(sent));
    Some((lifetime, Source::Expires))
}

/// A lifetime for a response that names none (RFC 9111 §4.2.2).
fn implicit_lifetime(
    exchange: &Exchange<'_>,
    cc: &CacheControl,
    policy: &Policy,
) -> Option<(Duration, Source)> {
    if let Some(ttl) = policy.negative_ttl(exchange.status) {
        return Some((ttl, Source::NegativeTtl));
    }
    let unasked = match policy.profile {
        Profile::Rfc => is_heuristically_cacheable(exchange.status),
        // Errors that a strange request field provokes must not be kept for everybody (cache-poisoned denial of service).
        Profile::Safe => {
            is_heuristically_cacheable(exchange.status)
                && !matches!(exchange.status.as_u16(), 405 | 414 | 501)
        }
    };
    if !unasked && !cc.public {
        return None;
    }
    let since_modified = || {
        let sent = date::field(exchange.response, &DATE).unwrap_or(exchange.response_time);
        let modified = date::field(exchange.response, &LAST_MODIFIED)?;
        Some(sent.since(modified).as_secs())
    };
    if let Some(seconds) = policy.heuristic.then(since_modified).flatten() {
        let lifetime = Duration::from_secs((seconds / HEURISTIC_DIVISOR).min(HEURISTIC_MAX));
        return Some((lifetime, Source::Heuristic));
    }
    Some((policy.ttl.default, Source::Default))
}

/// Statuses whose meaning for caching this cache implements (RFC 9110 §15, with RFC 6585, 7725, 8470).
pub fn is_understood(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200..=206 | 300..=303 | 305 | 307 | 308 | 400..=417 | 421 | 422 | 425 | 426 | 428 | 429 | 431 | 451 | 500..=505 | 511
    )
}

/// RFC 9110 §15.1.
pub fn is_heuristically_cacheable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// Whether a response has a validator that a revalidation can use.
pub fn has_validator(response: &HeaderMap) -> bool {
    response.contains_key(ETAG) || date::field(response, &LAST_MODIFIED).is_some()
}

fn is_listed(response: &HeaderMap, name: &[u8]) -> bool {
    let mut found = false;
    cache_control::for_each_listed_field(response, |listed| {
        found |= listed.eq_ignore_ascii_case(name);
    });
    found
}

#[cfg(test)]
mod tests;
