//! What to do with a request, given what is stored for it: the one decision that serves clients, `explain` and tests.
//!
//! [`decide`] cannot fail and cannot wait. The caller has found the stored response by key and variant (or has not), and
//! has checked purge fences; it then does as told.

use std::time::Duration;

use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, IF_MATCH, IF_UNMODIFIED_SINCE, PRAGMA,
};
use http::{HeaderMap, Method, StatusCode};
use shared::time::UnixMillis;

use crate::semantics::cache_control::{CacheControl, MaxStale};
pub use crate::semantics::head::{Life, StoredHead};
pub use crate::semantics::invalidation::invalidates;
use crate::semantics::{Policy, Profile, Reason};

/// The request as the decision sees it.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    /// Method.
    pub method: &'a Method,
    /// The client's fields.
    pub headers: &'a HeaderMap,
    /// It has content.
    pub has_content: bool,
}

/// What is stored for the request.
#[derive(Clone, Copy, Debug)]
pub enum Stored {
    /// Nothing for this key.
    Nothing,
    /// It was purged.
    Purged,
    /// Variants, but none that this request selects.
    OtherVariants,
    /// A recent response for this key could not be stored.
    KnownUncacheable,
    /// This, purged softly when `soft_purged`.
    Head {
        /// Its age and lifetime.
        life: Life,
        /// It must be revalidated before it is used, and may be used while that goes on only if the purge was soft.
        soft_purged: bool,
    },
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Answer from the store.
    Hit {
        /// For Age.
        age: Duration,
        /// Seconds left, for `ttl=`.
        ttl: i64,
        /// Why.
        reason: Reason,
    },
    /// Answer from the store, and revalidate in the background when `revalidate`.
    Stale {
        /// For Age.
        age: Duration,
        /// Seconds left (negative), for `ttl=`.
        ttl: i64,
        /// One background request is due.
        revalidate: bool,
        /// Why.
        reason: Reason,
    },
    /// Ask the next server with the stored validators, and wait for it.
    Revalidate {
        /// Why.
        reason: Reason,
        /// The stored response, though stale, may answer if that fails.
        fallback: Option<Fallback>,
    },
    /// Fetch.
    Miss {
        /// Why.
        reason: Reason,
    },
    /// Pass through: the store is neither asked nor filled, nobody waits for anybody.
    Pass {
        /// Why.
        reason: Reason,
    },
    /// 504 (RFC 9111 §5.2.1.7).
    GatewayTimeout {
        /// Why.
        reason: Reason,
    },
}

/// When a stale response may answer in place of the next server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// Until when, on an error (connection failure, time-out, 500, 502, 503, 504).
    pub until: UnixMillis,
    /// When the next server has not answered for this long.
    pub after_wait: Option<Duration>,
}

impl Decision {
    /// Its reason.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Hit { reason, .. }
            | Self::Stale { reason, .. }
            | Self::Revalidate { reason, .. }
            | Self::Miss { reason }
            | Self::Pass { reason }
            | Self::GatewayTimeout { reason } => *reason,
        }
    }
}

/// Whether a request can be answered from the cache at all, before anything is looked up: the reason to pass it, or none.
pub fn bypass(request: &RequestView<'_>, policy: Option<&Policy>) -> Option<Reason> {
    let Some(policy) = policy else { return Some(Reason::RouteNotCached) };
    if !(*request.method == Method::GET || *request.method == Method::HEAD) {
        return Some(Reason::MethodNotCached);
    }
    if request.has_content {
        return Some(Reason::RequestContent);
    }
    // RFC 9111 §4.3.2. In the safe profile they are evaluated here, on the stored response: no client gets past the cache
    // by adding a field.
    if policy.profile == Profile::Rfc
        && (request.headers.contains_key(IF_MATCH)
            || request.headers.contains_key(IF_UNMODIFIED_SINCE))
    {
        return Some(Reason::OriginPrecondition);
    }
    None
}

/// Whether Connection names an option.
pub fn names_option(headers: &HeaderMap, option: &[u8]) -> bool {
    headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|b| *b == b','))
        .any(|name| name.trim_ascii().eq_ignore_ascii_case(option))
}

/// Decides. `policy` is `None` on a route that does not cache.
pub fn decide(
    request: &RequestView<'_>,
    stored: Stored,
    policy: Option<&Policy>,
    now: UnixMillis,
) -> Decision {
    if let Some(reason) = bypass(request, policy) {
        return Decision::Pass { reason };
    }
    let asked = asked(request, policy);
    let miss = |reason| {
        if asked.only_if_cached {
            Decision::GatewayTimeout { reason: Reason::OnlyIfCached }
        } else {
            Decision::Miss { reason }
        }
    };
    match stored {
        Stored::Nothing => miss(Reason::UriMiss),
        Stored::Purged => miss(Reason::Purged),
        Stored::OtherVariants => miss(Reason::VaryMiss),
        Stored::KnownUncacheable if asked.only_if_cached => miss(Reason::KnownUncacheable),
        Stored::KnownUncacheable => Decision::Pass { reason: Reason::KnownUncacheable },
        Stored::Head { life, soft_purged } => {
            match decide_stored(&asked, &life, soft_purged, now) {
                Decision::Revalidate { .. } if asked.only_if_cached => miss(Reason::OnlyIfCached),
                decision => decision,
            }
        }
    }
}

/// The request's directives, as far as the profile lets a client have a say.
fn asked(request: &RequestView<'_>, policy: Option<&Policy>) -> CacheControl {
    if policy.is_none_or(|policy| policy.profile == Profile::Safe) {
        return CacheControl::default();
    }
    let mut asked = CacheControl::of(request.headers);
    // RFC 9111 §5.4: Pragma counts where there is no Cache-Control.
    if !request.headers.contains_key(CACHE_CONTROL) {
        asked.no_cache = request.headers.get_all(PRAGMA).iter().any(|line| {
            line.as_bytes()
                .split(|b| *b == b',')
                .any(|name| name.trim_ascii().eq_ignore_ascii_case(b"no-cache"))
        });
    }
    asked
}

fn decide_stored(
    asked: &CacheControl,
    life: &Life,
    soft_purged: bool,
    now: UnixMillis,
) -> Decision {
    let lifetimes = &life.lifetimes;
    let remaining = life.remaining_millis(now);
    let age = life.current_age(now);
    let ttl = remaining.div_euclid(1000);
    // Time since it went stale; a soft purge made it stale at some time before now.
    let over = Duration::from_millis(remaining.saturating_neg().max(0).unsigned_abs());
    let fallback = || {
        let left = lifetimes.if_error.checked_sub(over)?;
        (!lifetimes.if_error.is_zero())
            .then_some(Fallback { until: now + left, after_wait: lifetimes.after_wait })
    };
    let revalidate = |reason| Decision::Revalidate { reason, fallback: fallback() };

    if lifetimes.no_cache {
        return Decision::Revalidate { reason: Reason::NoCache, fallback: None };
    }
    if asked.no_cache {
        return revalidate(Reason::RequestNoCache);
    }
    // Ages are compared in whole seconds, as the client sees them in Age.
    // RFC 8246 §2.1: a reload (max-age=0, while a forced one says no-cache) of what does not change needs no check.
    let reload = lifetimes.immutable && asked.max_age == Some(0) && remaining > 0 && !soft_purged;
    if !reload && asked.max_age.is_some_and(|limit| age.as_secs() > limit.into()) {
        return revalidate(Reason::RequestMaxAge);
    }
    let within = |window: Duration| !window.is_zero() && over <= window;
    if soft_purged {
        return if within(lifetimes.while_revalidate) {
            Decision::Stale { age, ttl, revalidate: true, reason: Reason::SoftPurged }
        } else {
            revalidate(Reason::SoftPurged)
        };
    }
    if remaining > 0 {
        let needed = i64::from(asked.min_fresh.unwrap_or(0)) * 1000;
        return if remaining < needed {
            revalidate(Reason::RequestMinFresh)
        } else {
            Decision::Hit { age, ttl, reason: Reason::Fresh }
        };
    }
    // RFC 9111 §5.2.1.3: min-fresh wants a fresh one.
    if asked.min_fresh.is_some() {
        return revalidate(Reason::RequestMinFresh);
    }
    let tolerated = match asked.max_stale {
        None => false,
        Some(_) if lifetimes.must_revalidate => false,
        Some(MaxStale::Any) => true,
        Some(MaxStale::Seconds(limit)) => over <= Duration::from_secs(limit.into()),
    };
    if within(lifetimes.while_revalidate) {
        return Decision::Stale {
            age,
            ttl,
            revalidate: true,
            reason: Reason::StaleWhileRevalidate,
        };
    }
    if tolerated {
        return Decision::Stale { age, ttl, revalidate: false, reason: Reason::StaleByRequest };
    }
    revalidate(Reason::Expired)
}

/// Whether a miss of this request may wait for another client's fetch, and others for its: not with Authorization, whose
/// response is another client's only if it says so.
pub fn collapsible(request: &RequestView<'_>) -> bool {
    !request.headers.contains_key(AUTHORIZATION)
}

/// Whether a status of the next server counts as an error for stale-if-error (RFC 5861 §4).
pub const fn is_origin_error(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;
    use crate::semantics::freshness::Exchange;

    const NOW: UnixMillis = UnixMillis::from_secs(1_800_000_000);

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        headers
    }

    /// With no stale-while-revalidate of its own.
    fn policy(profile: Profile) -> Policy {
        let mut policy = Policy { profile, ..Policy::default() };
        policy.stale.while_revalidate = Duration::ZERO;
        policy
    }

    fn stored(cache_control: &str, policy: &Policy) -> StoredHead {
        let response = headers(&[("cache-control", cache_control), ("etag", "\"a\"")]);
        let exchange = Exchange {
            method: &Method::GET,
            path: "/",
            request: &HeaderMap::new(),
            status: StatusCode::OK,
            response: &response,
            request_time: NOW,
            response_time: NOW,
        };
        StoredHead::new(&exchange, policy).unwrap()
    }

    /// A few words for a decision, for tables.
    fn told(decision: Decision) -> String {
        let reason = decision.reason();
        match decision {
            Decision::Hit { age, ttl, .. } => format!("hit {} {ttl} {reason}", age.as_secs()),
            Decision::Stale { age, ttl, revalidate, .. } => {
                format!("stale {} {ttl} {revalidate} {reason}", age.as_secs())
            }
            Decision::Revalidate { fallback: None, .. } => format!("revalidate {reason}"),
            Decision::Revalidate { fallback: Some(fallback), .. } => {
                format!("revalidate {reason} or-stale-until {}", fallback.until.secs() - NOW.secs())
            }
            Decision::Miss { .. } => format!("miss {reason}"),
            Decision::Pass { .. } => format!("pass {reason}"),
            Decision::GatewayTimeout { .. } => format!("504 {reason}"),
        }
    }

    fn at(policy: &Policy, cache_control: &str, request: &[(&str, &str)], seconds: u64) -> String {
        let head = stored(cache_control, policy);
        let request = headers(request);
        let view = RequestView { method: &Method::GET, headers: &request, has_content: false };
        let stored = Stored::Head { life: head.life(), soft_purged: false };
        told(decide(&view, stored, Some(policy), UnixMillis(NOW.0 + seconds * 1000)))
    }

    #[test]
    fn rfc9111_4_2_fresh_and_stale() {
        let safe = policy(Profile::Safe);
        for (cache_control, seconds, expected) in [
            ("max-age=60", 0, "hit 0 60 fresh"),
            ("max-age=60", 59, "hit 59 1 fresh"),
            ("max-age=60", 60, "revalidate expired or-stale-until 86460"),
            ("max-age=60", 70, "revalidate expired or-stale-until 86460"),
            ("max-age=60", 86_460, "revalidate expired or-stale-until 86460"),
            ("max-age=60", 86_461, "revalidate expired"),
            ("max-age=60, must-revalidate", 59, "hit 59 1 fresh"),
            ("max-age=60, must-revalidate", 60, "revalidate expired"),
            ("s-maxage=60", 60, "revalidate expired"),
            ("no-cache", 0, "revalidate no-cache"),
            ("max-age=60, no-cache", 0, "revalidate no-cache"),
            ("max-age=60, stale-while-revalidate=30", 60, "stale 60 0 true stale-while-revalidate"),
            (
                "max-age=60, stale-while-revalidate=30",
                90,
                "stale 90 -30 true stale-while-revalidate",
            ),
            (
                "max-age=60, stale-while-revalidate=30",
                91,
                "revalidate expired or-stale-until 86460",
            ),
            ("max-age=60, stale-if-error=5", 63, "revalidate expired or-stale-until 65"),
            ("max-age=60, stale-if-error=5", 66, "revalidate expired"),
            ("max-age=60, stale-if-error=0", 60, "revalidate expired"),
        ] {
            assert_eq!(
                at(&safe, cache_control, &[], seconds),
                expected,
                "{cache_control} at {seconds}"
            );
        }
    }

    /// Pitfall 48: in the rfc profile the client's words count, in the safe one they do not.
    #[test]
    fn rfc9111_5_2_1_request_directives() {
        let cc = |value| [("cache-control", value)];
        for (stored, request, seconds, expected) in [
            ("max-age=60", cc("no-cache"), 1, "revalidate request-no-cache or-stale-until 86401"),
            ("max-age=60", cc("max-age=0"), 1, "revalidate request-max-age or-stale-until 86401"),
            ("max-age=60", cc("max-age=5"), 5, "hit 5 55 fresh"),
            ("max-age=60", cc("max-age=5"), 6, "revalidate request-max-age or-stale-until 86406"),
            (
                "max-age=60",
                cc("max-age=junk"),
                1,
                "revalidate request-max-age or-stale-until 86401",
            ),
            ("max-age=60, immutable", cc("max-age=0"), 1, "hit 1 59 fresh"),
            (
                "max-age=60, immutable",
                cc("no-cache"),
                1,
                "revalidate request-no-cache or-stale-until 86401",
            ),
            (
                "max-age=60, immutable",
                cc("max-age=0"),
                61,
                "revalidate request-max-age or-stale-until 86460",
            ),
            ("max-age=60", cc("min-fresh=55"), 5, "hit 5 55 fresh"),
            (
                "max-age=60",
                cc("min-fresh=56"),
                5,
                "revalidate request-min-fresh or-stale-until 86405",
            ),
            ("max-age=60", cc("max-stale=10"), 70, "stale 70 -10 false stale-by-request"),
            ("max-age=60", cc("max-stale=10"), 71, "revalidate expired or-stale-until 86460"),
            ("max-age=60", cc("max-stale"), 99_999, "stale 99999 -99939 false stale-by-request"),
            ("max-age=60, must-revalidate", cc("max-stale"), 61, "revalidate expired"),
            ("s-maxage=60", cc("max-stale"), 61, "revalidate expired"),
            ("max-age=60", cc("only-if-cached"), 59, "hit 59 1 fresh"),
            ("max-age=60", cc("only-if-cached"), 60, "504 only-if-cached"),
            ("max-age=60", cc("no-store"), 1, "hit 1 59 fresh"),
            (
                "max-age=60",
                [("pragma", "x, No-Cache")],
                1,
                "revalidate request-no-cache or-stale-until 86401",
            ),
        ] {
            let rfc = policy(Profile::Rfc);
            assert_eq!(at(&rfc, stored, &request, seconds), expected, "{request:?}");
            let safe = policy(Profile::Safe);
            assert_eq!(at(&safe, stored, &request, seconds), at(&safe, stored, &[], seconds));
        }
        let both = [("pragma", "no-cache"), ("cache-control", "max-age=99")];
        assert_eq!(at(&policy(Profile::Rfc), "max-age=60", &both, 1), "hit 1 59 fresh");
    }

    #[test]
    fn soft_purged_is_stale() {
        let safe = policy(Profile::Safe);
        let none = HeaderMap::new();
        let view = RequestView { method: &Method::GET, headers: &none, has_content: false };
        for (cache_control, expected) in [
            ("max-age=60", "revalidate soft-purged or-stale-until 86401"),
            ("max-age=60, must-revalidate", "revalidate soft-purged"),
            ("max-age=60, stale-while-revalidate=5", "stale 1 59 true soft-purged"),
        ] {
            let head = stored(cache_control, &safe);
            let stored = Stored::Head { life: head.life(), soft_purged: true };
            assert_eq!(
                told(decide(&view, stored, Some(&safe), UnixMillis(NOW.0 + 1000))),
                expected
            );
        }
    }

    /// Pitfalls 40 and 42, and what else goes past the cache.
    #[test]
    fn what_goes_past_the_cache() {
        let upgrade = [("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")];
        let get = Method::GET;
        let purge = Method::from_bytes(b"PURGE").unwrap();
        for (method, fields, content, safe, rfc) in [
            (&get, &[][..], false, "miss uri-miss", "miss uri-miss"),
            (&Method::HEAD, &[], false, "miss uri-miss", "miss uri-miss"),
            (&Method::POST, &[], false, "pass method-not-cached", "pass method-not-cached"),
            (&Method::OPTIONS, &[], false, "pass method-not-cached", "pass method-not-cached"),
            (&purge, &[], false, "pass method-not-cached", "pass method-not-cached"),
            (&get, &[], true, "pass request-content", "pass request-content"),
            // Only a route that allows it takes an upgrade past the cache.
            (&get, &upgrade, false, "miss uri-miss", "miss uri-miss"),
            (&get, &[("if-match", "\"a\"")], false, "miss uri-miss", "pass origin-precondition"),
            (&get, &[("cookie", "a=b")], false, "miss uri-miss", "miss uri-miss"),
        ] {
            let fields = headers(fields);
            let view = RequestView { method, headers: &fields, has_content: content };
            for (profile, expected) in [(Profile::Safe, safe), (Profile::Rfc, rfc)] {
                let policy = policy(profile);
                assert_eq!(told(decide(&view, Stored::Nothing, Some(&policy), NOW)), expected);
            }
            assert_eq!(told(decide(&view, Stored::Nothing, None, NOW)), "pass route-not-cached");
        }
    }

    #[test]
    fn what_is_not_there() {
        let rfc = policy(Profile::Rfc);
        let none = HeaderMap::new();
        let only = headers(&[("cache-control", "only-if-cached")]);
        for (stored, plain) in [
            (Stored::Nothing, "miss uri-miss"),
            (Stored::OtherVariants, "miss vary-miss"),
            (Stored::KnownUncacheable, "pass known-uncacheable"),
        ] {
            for (fields, expected) in [(&none, plain), (&only, "504 only-if-cached")] {
                let view =
                    RequestView { method: &Method::GET, headers: fields, has_content: false };
                assert_eq!(told(decide(&view, stored, Some(&rfc), NOW)), expected);
            }
        }
    }

    /// Pitfall 26.
    #[test]
    fn authorization_is_not_collapsed() {
        for (fields, expected) in
            [(&[][..], true), (&[("authorization", "x")], false), (&[("cookie", "a=b")], true)]
        {
            let fields = headers(fields);
            let view = RequestView { method: &Method::GET, headers: &fields, has_content: false };
            assert_eq!(collapsible(&view), expected);
        }
    }

    proptest! {
        /// However old and whatever is asked: never stale where that is forbidden, never a hit without life left.
        #[test]
        fn never_stale_when_forbidden(
            seconds in 0..200_000u64,
            max_age in 0..100_000u32,
            forbid in 0..4usize,
            asked in "(max-stale|max-stale=[0-9]{1,6}|no-cache|max-age=[0-9]{1,5}|min-fresh=[0-9]{1,5}|only-if-cached)?",
            soft_purged in any::<bool>(),
        ) {
            let directive = ["must-revalidate", "proxy-revalidate", "s-maxage=5", "public"][forbid];
            let rfc = policy(Profile::Rfc);
            let head = stored(&format!("max-age={max_age}, {directive}, stale-while-revalidate=9999, stale-if-error=9999"), &rfc);
            let fields = headers(&[("cache-control", &asked)]);
            let view = RequestView { method: &Method::GET, headers: &fields, has_content: false };
            let now = UnixMillis(NOW.0 + seconds * 1000);
            let decision = decide(&view, Stored::Head { life: head.life(), soft_purged }, Some(&rfc), now);
            match decision {
                Decision::Hit { ttl, age, .. } => {
                    prop_assert!(head.remaining_millis(now) > 0 && ttl >= 0);
                    prop_assert_eq!(age.as_secs(), seconds);
                }
                Decision::Stale { .. } => prop_assert_eq!(forbid, 3),
                Decision::Revalidate { fallback, .. } => prop_assert!(forbid == 3 || fallback.is_none()),
                Decision::GatewayTimeout { .. } => prop_assert_eq!(asked, "only-if-cached"),
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
