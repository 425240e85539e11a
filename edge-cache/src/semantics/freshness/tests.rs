//! Lifetimes and what may be stored, rule by rule.

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
        (&[("cache-control", "max-age=60"), ("expires", day), ("date", now)], (60, Source::MaxAge)),
        (&[("expires", day), ("date", now)], (86_400, Source::Expires)),
        (&[("expires", day)], (86_400, Source::Expires)),
        (&[("expires", day), ("date", "junk")], (86_400, Source::Expires)),
        (&[("expires", "0"), ("date", now), TAG], (0, Source::Expires)),
        (&[("expires", now), ("date", day), TAG], (0, Source::Expires)),
        (&[("expires", day), ("expires", day), TAG], (0, Source::Expires)),
        (&[("cache-control", "foo"), ("expires", day), ("date", now)], (86_400, Source::Expires)),
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
        (&[cdn("max-age=60"), ("cache-control", "private, no-cache")], Ok((60, Source::Targeted))),
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
    let fields =
        [("surrogate-control", "max-age=60, content=\"ESI/1.0\""), ("cache-control", "no-store")];
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
    let listed = [("cache-control", "max-age=60, no-cache=\"Set-Cookie\""), ("set-cookie", "a=b")];
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
