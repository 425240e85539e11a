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
    /// RFC 8246: a client's reload needs no revalidation while it is fresh.
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
mod tests {
    use http::HeaderValue;
    use http::header::HeaderName;
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixMillis = UnixMillis::from_secs(1_800_000_000);

    /// A date so many seconds from [`NOW`].
    fn at(seconds: i64) -> String {
        let time = NOW.secs().checked_add_signed(seconds).unwrap();
        date::format(UnixMillis::from_secs(time)).to_str().unwrap().to_owned()
    }

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

    type Fields<'a> = &'a [(&'a str, &'a str)];

    struct Case {
        policy: Policy,
        request: HeaderMap,
        status: u16,
        path: &'static str,
    }

    fn rfc() -> Case {
        Case {
            policy: Policy { profile: Profile::Rfc, ..Policy::default() },
            request: HeaderMap::new(),
            status: 200,
            path: "/",
        }
    }

    fn safe() -> Case {
        Case { policy: Policy::default(), ..rfc() }
    }

    impl Case {
        fn status(mut self, status: u16) -> Self {
            self.status = status;
            self
        }

        fn path(mut self, path: &'static str) -> Self {
            self.path = path;
            self
        }

        fn request(mut self, fields: &[(&str, &str)]) -> Self {
            self.request = headers(fields);
            self
        }

        fn with(mut self, change: impl FnOnce(&mut Policy)) -> Self {
            change(&mut self.policy);
            self
        }

        fn run(&self, response: &[(&str, &str)]) -> Result<Lifetimes, Reason> {
            storable(
                &Exchange {
                    method: &Method::GET,
                    path: self.path,
                    request: &self.request,
                    status: StatusCode::from_u16(self.status).unwrap(),
                    response: &headers(response),
                    request_time: NOW,
                    response_time: NOW,
                },
                &self.policy,
            )
        }

        fn fresh(&self, response: &[(&str, &str)]) -> Result<(u64, Source), Reason> {
            self.run(response).map(|lifetimes| (lifetimes.fresh.as_secs(), lifetimes.source))
        }
    }

    const TAG: (&str, &str) = ("etag", "\"a\"");

    /// Pitfalls 1 and 8.
    #[test]
    fn rfc9111_4_2_1_order_of_sources() {
        let day = at(86_400);
        let day = day.as_str();
        let now = at(0);
        let now = now.as_str();
        let cases: &[(Fields<'_>, (u64, Source))] = &[
            (&[("cache-control", "max-age=60")], (60, Source::MaxAge)),
            (&[("cache-control", "max-age=60, s-maxage=90")], (90, Source::SMaxage)),
            (&[("cache-control", "s-maxage=0, max-age=90"), TAG], (0, Source::SMaxage)),
            (
                &[("cache-control", "max-age=60"), ("expires", day), ("date", now)],
                (60, Source::MaxAge),
            ),
            (&[("expires", day), ("date", now)], (86_400, Source::Expires)),
            (&[("expires", day)], (86_400, Source::Expires)),
            (&[("expires", day), ("date", "junk")], (86_400, Source::Expires)),
            (&[("expires", "0"), ("date", now), TAG], (0, Source::Expires)),
            (&[("expires", now), ("date", day), TAG], (0, Source::Expires)),
            (&[("expires", day), ("expires", day), TAG], (0, Source::Expires)),
            (
                &[("cache-control", "foo"), ("expires", day), ("date", now)],
                (86_400, Source::Expires),
            ),
            (
                &[("cache-control", "max-age=junk"), ("expires", day), ("date", now), TAG],
                (0, Source::MaxAge),
            ),
            (&[("cache-control", "max-age=60"), ("pragma", "no-cache")], (60, Source::MaxAge)),
            (&[], (600, Source::Default)),
        ];
        for case in [rfc(), safe()] {
            for (response, expected) in cases {
                assert_eq!(case.fresh(response), Ok(*expected), "{response:?}");
            }
        }
    }

    /// RFC 9213 §2.1, §2.2.
    #[test]
    fn rfc9213_targeted_fields() {
        let cdn = |value| ("cdn-cache-control", value);
        type Expected = Result<(u64, Source), Reason>;
        let cases: &[(Fields<'_>, Expected)] = &[
            (&[cdn("max-age=60")], Ok((60, Source::Targeted))),
            (&[cdn("max-age=60"), ("cache-control", "max-age=5")], Ok((60, Source::Targeted))),
            (&[cdn("max-age=60"), ("cache-control", "no-store")], Ok((60, Source::Targeted))),
            (
                &[cdn("max-age=60"), ("cache-control", "private, no-cache")],
                Ok((60, Source::Targeted)),
            ),
            (&[cdn("max-age=60"), ("expires", "0")], Ok((60, Source::Targeted))),
            (&[cdn("max-age=99999999999")], Ok((30 * 86_400, Source::Targeted))),
            (&[cdn("max-age=0"), ("expires", &at(9)), TAG], Ok((0, Source::Targeted))),
            (&[cdn("max-age=-1"), TAG], Ok((0, Source::Targeted))),
            (&[cdn("no-store"), ("cache-control", "max-age=60")], Err(Reason::NoStore)),
            (&[cdn("private"), ("cache-control", "max-age=60")], Err(Reason::Private)),
            (&[cdn("private=\"a\""), ("cache-control", "max-age=60")], Err(Reason::Private)),
            (&[cdn("no-cache"), ("cache-control", "max-age=60"), TAG], Ok((0, Source::Default))),
            // Not valid, or empty: as if it were not there.
            (&[cdn("max-age=60, &&&"), ("cache-control", "no-store")], Err(Reason::NoStore)),
            (&[cdn("max-age=\"60\""), ("cache-control", "no-store")], Err(Reason::NoStore)),
            (&[cdn("MaX-aGe=60"), ("cache-control", "max-age=5")], Ok((5, Source::MaxAge))),
            (&[cdn(""), ("cache-control", "max-age=5")], Ok((5, Source::MaxAge))),
            (&[cdn("no-store=?0"), ("cache-control", "no-store")], Ok((600, Source::Default))),
            (&[cdn("max-age=1"), cdn("s-maxage=7")], Ok((7, Source::Targeted))),
        ];
        for (response, expected) in cases {
            assert_eq!(rfc().fresh(response), *expected, "{response:?}");
        }
        let two =
            rfc().with(|p| p.targeted.insert(0, HeaderName::from_static("meridian-cache-control")));
        let both = [cdn("max-age=60"), ("meridian-cache-control", "max-age=7")];
        assert_eq!(two.fresh(&both), Ok((7, Source::Targeted)));
        assert_eq!(
            rfc().with(|p| p.targeted.clear()).fresh(&[cdn("max-age=60")]),
            Ok((600, Source::Default))
        );

        let surrogate = rfc().with(|p| p.surrogate_control = true);
        let fields = [
            ("surrogate-control", "max-age=60, content=\"ESI/1.0\""),
            ("cache-control", "no-store"),
        ];
        assert_eq!(surrogate.fresh(&fields), Ok((60, Source::Surrogate)));
        assert_eq!(rfc().fresh(&fields), Err(Reason::NoStore));
    }

    /// Pitfalls 6, 7, 10, 11, 12.
    #[test]
    fn rfc9111_3_what_may_be_stored() {
        let cc = |value| [("cache-control", value)];
        let fresh = ("cache-control", "max-age=60");
        assert_eq!(rfc().run(&cc("no-store, max-age=60")).err(), Some(Reason::NoStore));
        assert_eq!(rfc().run(&cc("private, max-age=60")).err(), Some(Reason::Private));
        assert_eq!(rfc().run(&cc("private=\"x\", max-age=60")).err(), None);
        assert_eq!(rfc().run(&[fresh, ("vary", "foo, *")]).err(), Some(Reason::VaryStar));

        let no_cache = rfc().run(&[("cache-control", "no-cache, max-age=60"), TAG]).unwrap();
        assert!(no_cache.no_cache && no_cache.fresh.is_zero() && no_cache.must_revalidate);
        assert_eq!(rfc().run(&cc("no-cache")).err(), Some(Reason::NoReuse));
        let named = rfc().run(&cc("no-cache=\"a\", max-age=60")).unwrap();
        assert!(!named.no_cache && named.fresh.as_secs() == 60);

        // §5.2.2.3
        assert_eq!(rfc().run(&cc("no-store, must-understand, max-age=60")).err(), None);
        let unknown = rfc().status(599).run(&cc("no-store, must-understand, max-age=60"));
        assert_eq!(unknown.err(), Some(Reason::StatusNotUnderstood));
        let unknown = rfc().status(299).run(&cc("must-understand, max-age=60"));
        assert_eq!(unknown.err(), Some(Reason::StatusNotUnderstood));

        // Unknown statuses need a lifetime of their own, or public.
        assert_eq!(rfc().status(599).fresh(&[fresh]), Ok((60, Source::MaxAge)));
        assert_eq!(rfc().status(599).fresh(&[]), Err(Reason::NoLifetime));
        assert_eq!(rfc().status(599).fresh(&cc("public")), Ok((600, Source::Default)));
        assert_eq!(rfc().status(304).fresh(&[fresh]), Err(Reason::StatusNotUnderstood));

        // Request no-store: by the letter it forbids storing; in the safe profile a client has no say.
        let asked = [("cache-control", "no-store")];
        assert_eq!(rfc().request(&asked).run(&[fresh]).err(), Some(Reason::RequestNoStore));
        assert_eq!(safe().request(&asked).run(&[fresh]).err(), None);

        let head = storable(
            &Exchange {
                method: &Method::HEAD,
                path: "/",
                request: &HeaderMap::new(),
                status: StatusCode::OK,
                response: &headers(&[fresh]),
                request_time: NOW,
                response_time: NOW,
            },
            &Policy::default(),
        );
        assert_eq!(head, Err(Reason::MethodNotCached));
    }

    /// Pitfall 11.
    #[test]
    fn rfc9111_3_5_authorization() {
        for case in [rfc(), safe()] {
            let case = case.request(&[("authorization", "Basic eA==")]);
            for (cc, stored) in [
                ("max-age=60", false),
                ("max-age=60, proxy-revalidate", false),
                ("max-age=60, public", true),
                ("s-maxage=60", true),
                ("max-age=60, must-revalidate", true),
                ("public, private", false),
            ] {
                assert_eq!(case.run(&[("cache-control", cc)]).is_ok(), stored, "{cc}");
            }
        }
    }

    /// Pitfall 9.
    #[test]
    fn rfc9111_4_2_2_heuristics() {
        let unasked = |case: Case, status| case.status(status).fresh(&[]);
        for status in [200, 203, 204, 206, 300, 301, 308, 405, 410, 414, 501] {
            assert_eq!(unasked(rfc(), status), Ok((600, Source::Default)), "{status}");
        }
        assert_eq!(unasked(rfc(), 404), Ok((10, Source::NegativeTtl)));
        for status in [201, 202, 302, 303, 307, 400, 401, 403, 413, 431, 500, 502, 503, 504] {
            assert_eq!(unasked(rfc(), status), Err(Reason::NoLifetime), "{status}");
            assert_eq!(unasked(safe(), status), Err(Reason::NoLifetime), "{status}");
        }
        let heuristic = || rfc().with(|p| p.heuristic = true);
        let modified =
            |seconds: i64| heuristic().fresh(&[("last-modified", &at(-seconds)), ("date", &at(0))]);
        assert_eq!(modified(1000), Ok((100, Source::Heuristic)));
        assert_eq!(modified(100_000_000), Ok((86_400, Source::Heuristic)));
        assert_eq!(modified(-50), Ok((0, Source::Heuristic)));
        assert_eq!(heuristic().fresh(&[("last-modified", "junk")]), Ok((600, Source::Default)));
    }

    /// Pitfall 45: an error that a strange request provokes is not kept for everybody.
    #[test]
    fn pitfall_45_cpdos() {
        for status in [400, 405, 413, 414, 431, 501] {
            assert_eq!(safe().status(status).fresh(&[]), Err(Reason::NoLifetime), "{status}");
            let said = safe().status(status).fresh(&[("cache-control", "max-age=5")]);
            assert_eq!(said, Ok((5, Source::MaxAge)), "{status}");
        }
        let policy = safe().status(500).with(|p| {
            p.negative_ttl.push((StatusCode::INTERNAL_SERVER_ERROR, Duration::from_secs(1)));
        });
        assert_eq!(policy.fresh(&[]), Ok((1, Source::NegativeTtl)));
    }

    /// Pitfall 46.
    #[test]
    fn pitfall_46_set_cookie() {
        let fields = [("cache-control", "max-age=60"), ("set-cookie", "a=b")];
        assert_eq!(safe().run(&fields).err(), Some(Reason::SetCookie));
        assert_eq!(rfc().run(&fields).err(), None);
        let listed =
            [("cache-control", "max-age=60, no-cache=\"Set-Cookie\""), ("set-cookie", "a=b")];
        assert_eq!(safe().run(&listed).err(), None);
        let cookie = safe().request(&[("cookie", "a=b")]);
        assert_eq!(cookie.run(&[("cache-control", "max-age=60")]).err(), None);
    }

    /// Pitfall 43, cache deception.
    #[test]
    fn pitfall_43_deception() {
        let html = ("content-type", "Text/HTML; charset=utf-8");
        for path in ["/account/x.css", "/account;x.JPG", "/a/b.js"] {
            assert_eq!(safe().path(path).run(&[html]).err(), Some(Reason::TypeMismatch), "{path}");
            assert_eq!(rfc().path(path).run(&[html]).err(), None);
            let public = [html, ("cache-control", "public, max-age=5")];
            assert_eq!(safe().path(path).run(&public).err(), None);
            assert_eq!(safe().path(path).run(&[("content-type", "text/css")]).err(), None);
            assert_eq!(safe().path(path).status(404).run(&[html]).err(), None);
        }
        for path in ["/", "/account", "/a.html", "/x.css/account"] {
            assert_eq!(safe().path(path).run(&[html]).err(), None, "{path}");
        }
    }

    #[test]
    fn the_policy_bounds_what_the_origin_says() {
        let bounded = || {
            rfc().with(|p| {
                p.ttl.min = Duration::from_secs(10);
                p.ttl.max = Duration::from_secs(100);
            })
        };
        for (cc, expected) in
            [("max-age=1", 10), ("max-age=50", 50), ("max-age=1000", 100), ("max-age=0", 10)]
        {
            assert_eq!(
                bounded().fresh(&[("cache-control", cc)]),
                Ok((expected, Source::MaxAge)),
                "{cc}"
            );
        }
        assert_eq!(
            bounded().fresh(&[("cache-control", "no-cache, max-age=9"), TAG]),
            Ok((0, Source::MaxAge))
        );
        assert_eq!(bounded().fresh(&[("cache-control", "no-store")]), Err(Reason::NoStore));
        assert_eq!(bounded().fresh(&[]), Ok((100, Source::Default)));
    }

    /// Pitfall 28: RFC 5861 and who forbids it (RFC 9111 §4.2.4).
    #[test]
    fn rfc5861_stale_windows() {
        let windows = |case: Case, cc: &str| {
            let lifetimes = case.run(&[("cache-control", cc), TAG]).unwrap();
            (
                lifetimes.while_revalidate.as_secs(),
                lifetimes.if_error.as_secs(),
                lifetimes.after_wait.is_some(),
                lifetimes.must_revalidate,
            )
        };
        let safe = || safe().with(|p| p.stale.while_revalidate = Duration::from_secs(30));
        for (cc, expected) in [
            ("max-age=1", (30, 86_400, true, false)),
            ("max-age=1, stale-while-revalidate=5", (5, 86_400, true, false)),
            ("max-age=1, stale-while-revalidate=0, stale-if-error=0", (0, 0, false, false)),
            ("max-age=1, stale-if-error=7", (30, 7, true, false)),
            ("max-age=1, must-revalidate, stale-if-error=7", (0, 0, false, true)),
            ("max-age=1, proxy-revalidate, stale-while-revalidate=7", (0, 0, false, true)),
            ("no-cache, stale-while-revalidate=7", (0, 0, false, true)),
            ("s-maxage=1, stale-while-revalidate=7", (0, 0, false, true)),
        ] {
            assert_eq!(windows(safe(), cc), expected, "{cc}");
            let (said, ..) = windows(rfc(), cc);
            assert_eq!(said, if cc.contains("while-revalidate") { expected.0 } else { 0 }, "{cc}");
        }
        let beside = safe().with(|p| p.stale.beside_s_maxage = true);
        assert_eq!(windows(beside, "s-maxage=1, stale-while-revalidate=7"), (7, 0, false, true));
        let error = rfc().status(503).run(&[("cache-control", "max-age=5")]).unwrap();
        assert!(error.if_error.is_zero() && error.while_revalidate.is_zero());
    }

    #[test]
    fn what_could_never_be_used_is_not_stored() {
        assert_eq!(rfc().run(&[("cache-control", "max-age=0")]).err(), Some(Reason::NoReuse));
        assert_eq!(
            rfc().run(&[("cache-control", "max-age=5"), ("age", "9")]).err(),
            Some(Reason::NoReuse)
        );
        assert_eq!(rfc().run(&[("cache-control", "max-age=0"), TAG]).err(), None);
        assert_eq!(rfc().run(&[("cache-control", "max-age=0, stale-if-error=5")]).err(), None);
        let forbidden = [("cache-control", "max-age=0, stale-if-error=5, must-revalidate")];
        assert_eq!(rfc().run(&forbidden).err(), Some(Reason::NoReuse));
    }

    proptest! {
        #[test]
        fn no_fields_panic(
            cc in proptest::collection::vec(any::<u8>(), 0..60),
            expires in proptest::collection::vec(any::<u8>(), 0..40),
            age in proptest::collection::vec(any::<u8>(), 0..20),
            status in 100..999u16,
        ) {
            let mut response = HeaderMap::new();
            for (name, value) in [("cache-control", &cc), ("cdn-cache-control", &cc), ("expires", &expires), ("age", &age)] {
                if let Ok(value) = HeaderValue::from_bytes(value) {
                    response.insert(name, value);
                }
            }
            let request = HeaderMap::new();
            let exchange = Exchange {
                method: &Method::GET, path: "/", request: &request,
                status: StatusCode::from_u16(status).unwrap(), response: &response,
                request_time: NOW, response_time: NOW,
            };
            if let Ok(lifetimes) = storable(&exchange, &Policy::default()) {
                prop_assert!(lifetimes.fresh <= Policy::default().ttl.max);
                prop_assert!(!lifetimes.must_revalidate || lifetimes.if_error.is_zero());
            }
        }

        /// An earlier directive that forbids is not undone by anything after it.
        #[test]
        fn no_store_is_final(after in "[ -~]{0,60}") {
            let line = format!("no-store, {after}");
            prop_assume!(!line.contains("must-understand"));
            let result = rfc().run(&[("cache-control", &line)]);
            prop_assert_eq!(result.err(), Some(Reason::NoStore));
        }
    }
}
