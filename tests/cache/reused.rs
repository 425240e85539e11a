//! Which responses answer the next request and which do not, over a running edge in both profiles: the questions that
//! conformance suites for shared caches ask, and where the safe profile's answers differ on purpose.
//!
//! Time is not waited for: a response that has to be old says so in Age.

use harness::origin::{Origin, Script};
use harness::wire::Request;

use super::{HOST, one_edge};

type Fields<'a> = &'a [(&'a str, &'a str)];

/// What answers the second request, in the profiles safe and rfc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Second {
    /// The stored response, in both.
    Stored,
    /// The origin, in both.
    Origin,
    /// The origin in safe, the stored response in rfc.
    OnlyRfcStores,
    /// The stored response in safe, the origin in rfc.
    OnlySafeStores,
}
use Second::{OnlyRfcStores, OnlySafeStores, Origin as Asked, Stored};

struct Case<'a> {
    status: u16,
    first: Fields<'a>,
    response: Fields<'a>,
    second: Fields<'a>,
    expected: Second,
}

const fn answer<'a>(response: Fields<'a>, expected: Second) -> Case<'a> {
    Case { status: 200, first: &[], response, second: &[], expected }
}

const fn status<'a>(status: u16, response: Fields<'a>, expected: Second) -> Case<'a> {
    Case { status, first: &[], response, second: &[], expected }
}

const fn asked<'a>(
    first: Fields<'a>,
    response: Fields<'a>,
    second: Fields<'a>,
    expected: Second,
) -> Case<'a> {
    Case { status: 200, first, response, second, expected }
}

const CC: &str = "Cache-Control";
const PAST: &str = "Thu, 01 Jan 2015 00:00:00 GMT";
const FUTURE: &str = "Fri, 01 Jan 2100 00:00:00 GMT";
const TAG: (&str, &str) = ("ETag", "\"v\"");

/// Asks twice per case, in a fresh edge per profile with these keys in its policy.
#[track_caller]
fn check(policy: &str, cases: &[Case<'_>]) {
    for profile in ["safe", "rfc"] {
        let origin = Origin::start();
        for (at, case) in cases.iter().enumerate() {
            let script = Script::status(case.status, "body");
            let script = case.response.iter().fold(script, |script, (n, v)| script.field(n, v));
            origin.route(&format!("/{at}"), script);
        }
        let stale = "stale = { while_revalidate = \"0s\", if_error = \"0s\" }";
        let fleet = one_edge(&origin, &format!("profile = \"{profile}\"\n{stale}\n{policy}"));
        let edge = fleet.node("e1");
        for (at, case) in cases.iter().enumerate() {
            let path = format!("/{at}");
            let ask = |fields: Fields<'_>| {
                let request = Request::get(HOST, &path);
                let request = fields.iter().fold(request, |all, (n, v)| all.field(n, *v));
                request.send(edge.http())
            };
            let first = ask(case.first);
            assert_eq!(first.status, case.status);
            let second = ask(case.second);
            let stored = match case.expected {
                Stored => true,
                Asked => false,
                OnlyRfcStores => profile == "rfc",
                OnlySafeStores => profile == "safe",
            };
            assert_eq!(
                (origin.count(&path), second.cache_status().contains("; hit")),
                (if stored { 1 } else { 2 }, stored),
                "{profile}: {:?}, then {:?}: {} {:?}: {}",
                case.first,
                case.second,
                case.status,
                case.response,
                second.cache_status()
            );
            if stored {
                assert!(second.field("age").is_some() && second.text() == first.text());
            }
        }
    }
}

/// RFC 9111 §4.2.1, §5.2.2, §5.3.
#[test]
fn rfc9111_4_2_1_lifetimes() {
    check(
        "",
        &[
            answer(&[(CC, "max-age=100")], Stored),
            answer(&[(CC, "max-age=2147483648")], Stored),
            answer(&[(CC, "max-age=99999999999999999999")], Stored),
            answer(&[(CC, "max-age=0")], Asked),
            answer(&[(CC, "max-age=-1")], Asked),
            answer(&[(CC, "max-age=100"), ("Age", "200")], Asked),
            answer(&[(CC, "max-age=100"), ("Age", "50")], Stored),
            answer(&[(CC, "max-age=0"), ("Expires", FUTURE)], Asked),
            answer(&[(CC, "max-age=100"), ("Expires", PAST)], Stored),
            answer(&[(CC, "max-age=100"), ("Expires", "0")], Stored),
            answer(&[(CC, "s-maxage=100, max-age=0")], Stored),
            answer(&[(CC, "max-age=100, s-maxage=0")], Asked),
            answer(&[(CC, "max-age=100"), (CC, "s-maxage=0")], Asked),
            answer(&[("Expires", FUTURE)], Stored),
            answer(&[("Expires", PAST)], Asked),
            answer(&[("Expires", "0")], Asked),
            answer(&[("Expires", FUTURE), ("Expires", FUTURE)], Asked),
            answer(&[("Expires", "Friday, 01-Jan-38 00:00:00 GMT")], Stored),
            answer(&[("Expires", "Fri Jan  1 00:00:00 2100")], Stored),
            answer(&[("Expires", "Fri, 01 Jan 2100 00:00:00 CET")], Asked),
            answer(&[(CC, "no-store, max-age=100")], Asked),
            answer(&[(CC, "No-StOrE, max-age=100")], Asked),
            answer(&[(CC, "no-cache, max-age=100")], Asked),
            answer(&[(CC, "private, max-age=100")], Asked),
            answer(&[(CC, "private=\"x\", max-age=100")], Stored),
            answer(&[(CC, "must-revalidate, max-age=100")], Stored),
            answer(&[(CC, "must-revalidate, max-age=100"), ("Age", "200")], Asked),
            answer(&[("Pragma", "no-cache"), (CC, "max-age=100")], Stored),
        ],
    );
}

/// RFC 9111 §5.2, RFC 9110 §5.6: how the field is read.
#[test]
fn rfc9111_5_2_syntax() {
    check(
        "",
        &[
            answer(&[(CC, "MaX-aGe=100")], Stored),
            answer(&[(CC, "max-age=\"100\"")], Stored),
            answer(&[(CC, "max-age='100'")], Asked),
            answer(&[(CC, "max-age=100.0")], Asked),
            answer(&[(CC, "max-age=a100")], Asked),
            answer(&[(CC, "max-age=100a")], Asked),
            answer(&[(CC, "max-age =100")], Asked),
            answer(&[(CC, "max-age= 100")], Asked),
            answer(&[(CC, "foo, max-age=100")], Stored),
            answer(&[(CC, "foo=\"a, b\", max-age=100")], Stored),
            answer(&[(CC, ", ,max-age=100,")], Stored),
            answer(&[(CC, "foo=\"max-age=100\", max-age=0")], Asked),
            answer(&[(CC, "max-age=0, foo=\"max-age=100\"")], Asked),
            answer(&[(CC, "foo=\"\\\", max-age=100\", max-age=0")], Asked),
            answer(&[(CC, "max-age=100, max-age=0")], Asked),
            answer(&[(CC, "max-age=0, max-age=100")], Asked),
            answer(&[(CC, "max-age=00100")], Stored),
            answer(&[(CC, "max-age=100"), ("Age", "abc")], Stored),
            answer(&[(CC, "max-age=100"), ("Age", "-200")], Stored),
            answer(&[(CC, "max-age=100"), ("Age", "200, 0")], Asked),
            answer(&[(CC, "max-age=100"), ("Age", "0, 200")], Stored),
            answer(&[(CC, "max-age=100"), ("Age", "200"), ("Age", "0")], Asked),
            answer(&[(CC, "max-age=100"), ("Age", "2147483648")], Asked),
        ],
    );
}

/// RFC 9110 §15.1, RFC 9111 §3, §4.2.2. The safe profile does not keep the errors that a strange request field can
/// provoke unless the origin says how long.
#[test]
fn rfc9111_4_2_2_statuses() {
    let old = ("Last-Modified", PAST);
    let mut cases = Vec::new();
    let fresh: Fields<'_> = &[(CC, "max-age=100")];
    for code in [200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 503, 599] {
        cases.push(status(code, fresh, Stored));
    }
    let silent: &[(&str, &str)] = &[old];
    for code in [200, 203, 204, 300, 301, 308, 404, 410] {
        cases.push(status(code, silent, Stored));
    }
    for code in [405, 414, 501] {
        cases.push(status(code, silent, OnlyRfcStores));
    }
    for code in [201, 202, 302, 303, 307, 400, 403, 502, 503, 504, 599] {
        cases.push(status(code, silent, Asked));
    }
    let public: &[(&str, &str)] = &[old, (CC, "public")];
    cases.push(status(403, public, Stored));
    let understood: Fields<'_> = &[(CC, "max-age=100, no-store, must-understand")];
    cases.push(status(200, understood, Stored));
    cases.push(status(599, understood, Asked));
    check("heuristic = true", &cases);
}

/// RFC 9111 §4.2.2: what nobody has said a lifetime of. By the letter there has to be something to estimate it from.
#[test]
fn rfc9111_4_2_2_silence_in_both_profiles() {
    check(
        "",
        &[
            answer(&[], OnlySafeStores),
            answer(&[TAG], OnlySafeStores),
            answer(&[(CC, "public")], OnlySafeStores),
            answer(&[("Last-Modified", PAST)], Stored),
            answer(&[("Last-Modified", FUTURE)], OnlySafeStores),
            answer(&[("Surrogate-Control", "no-store"), (CC, "max-age=100")], OnlySafeStores),
            answer(&[("Surrogate-Control", "max-age=100"), (CC, "no-store")], OnlyRfcStores),
        ],
    );
}

/// RFC 9111 §4.2, §5.3: which dates are dates.
#[test]
fn rfc9111_4_2_dates_of_expires() {
    let expires = |date, expected| (("Expires", date), expected);
    let dates = [
        expires(FUTURE, Stored),
        expires("FRI, 01 JAN 2100 00:00:00 gmt", Stored),
        expires("Fri Jan  1 00:00:00 2100", Stored),
        expires("Sunday, 01-Jan-50 00:00:00 GMT", Stored),
        expires("Mon, 01 Jan 2100 00:00:00 GMT", Stored),
        expires("Fri, 01 Jan 2100 00:00:00 UTC", Asked),
        expires("Fri, 01 Jan 2100 00:00:00 AEST", Asked),
        expires("Fri, 01 Jan 50 00:00:00 GMT", Asked),
        expires("Fri 01 Jan 2100 00:00:00 GMT", Asked),
        expires("Fri, 01  Jan  2100 00:00:00 GMT", Asked),
        expires("Fri, 01-Jan-2100 00:00:00 GMT", Asked),
        expires("Fri, 01 Jan 2100 00.00.00 GMT", Asked),
        expires("Fri, 01 Jan 2100 0:00:00 GMT", Asked),
        expires("0", Asked),
        expires("", Asked),
    ];
    let fields: Vec<_> = dates.iter().map(|(field, expected)| ([*field], *expected)).collect();
    let cases: Vec<_> = fields.iter().map(|(field, expected)| answer(field, *expected)).collect();
    check("", &cases);
}

/// RFC 9110 §9.1, RFC 9111 §4.4: in the rfc profile a route without `methods` passes on methods that it does not know, and
/// what they do not fail at makes what is stored invalid.
#[test]
fn rfc9111_4_4_unknown_methods() {
    for (profile, status, fetches) in [("safe", 405, 1), ("rfc", 200, 3)] {
        let origin = Origin::start();
        origin.route("/a", Script::ok("body").cache_control("max-age=100"));
        let fleet = one_edge(&origin, &format!("profile = \"{profile}\""));
        let edge = fleet.node("e1");
        Request::get(HOST, "/a").send(edge.http());
        let response = Request::new("M-SEARCH", HOST, "/a").send(edge.http());
        assert_eq!(response.status, status, "{profile}");
        Request::get(HOST, "/a").send(edge.http());
        assert_eq!(origin.count("/a"), fetches, "{profile}");
        for refused in ["TRACE", "CONNECT"] {
            let response = Request::new(refused, HOST, "/a").send(edge.http());
            assert!(matches!(response.status, 400 | 405), "{refused} in {profile}: {response:?}");
        }
    }
}

/// RFC 9111 §3.5, §5.2.1, §5.4; RFC 6265. In the safe profile no client gets past the cache by a field, and no cookie is
/// stored.
#[test]
fn rfc9111_3_5_and_5_2_1_requests() {
    let auth: Fields<'_> = &[("Authorization", "Basic eDp5")];
    let fresh: Fields<'_> = &[(CC, "max-age=100")];
    check(
        "",
        &[
            asked(auth, fresh, &[], Asked),
            asked(auth, &[(CC, "max-age=100, public")], &[], Stored),
            asked(auth, &[(CC, "s-maxage=100")], &[], Stored),
            asked(auth, &[(CC, "max-age=100, must-revalidate")], &[], Stored),
            asked(&[], fresh, auth, Stored),
            asked(&[], fresh, &[("Cookie", "a=b")], Stored),
            asked(&[], fresh, &[(CC, "no-cache")], OnlySafeStores),
            asked(
                &[],
                &[(CC, "max-age=100"), ("Age", "50")],
                &[(CC, "max-age=10")],
                OnlySafeStores,
            ),
            asked(&[], fresh, &[(CC, "min-fresh=1000")], OnlySafeStores),
            asked(&[], fresh, &[("Pragma", "no-cache")], OnlySafeStores),
            asked(&[], fresh, &[("Pragma", "no-cache"), (CC, "max-age=1000")], Stored),
            asked(&[(CC, "no-store")], fresh, &[], OnlySafeStores),
            answer(&[(CC, "max-age=100"), ("Set-Cookie", "a=b")], OnlyRfcStores),
            answer(&[(CC, "max-age=100, private=\"set-cookie\""), ("Set-Cookie", "a=b")], Stored),
        ],
    );
}

/// RFC 9111 §4.1. What the safe profile has not sent it has not told apart: it sends from the second request on.
#[test]
fn rfc9111_4_1_vary() {
    let vary: Fields<'_> = &[(CC, "max-age=100"), ("Vary", "X-Foo")];
    let star: Fields<'_> = &[(CC, "max-age=100"), ("Vary", "X-Foo, *")];
    let two: Fields<'_> = &[(CC, "max-age=100"), ("Vary", "X-Foo"), ("Vary", "X-Bar")];
    let language: Fields<'_> = &[(CC, "max-age=100"), ("Vary", "Accept-Language")];
    let one = ("X-Foo", "1");
    check(
        "",
        &[
            asked(&[], vary, &[], Stored),
            asked(&[], vary, &[("X-Other", "1")], Stored),
            asked(&[one], vary, &[one], OnlyRfcStores),
            asked(&[one], vary, &[("X-Foo", "2")], Asked),
            asked(&[one], vary, &[], Asked),
            asked(&[], vary, &[one], Asked),
            asked(&[], star, &[], Asked),
            asked(&[], &[(CC, "max-age=100"), ("Vary", ", *")], &[], Asked),
            asked(&[], two, &[("X-Bar", "1")], Asked),
            asked(&[("X-Foo", "1, 2")], vary, &[("X-Foo", "1"), ("X-Foo", "2")], OnlyRfcStores),
            asked(
                &[("Accept-Language", "en, de")],
                language,
                &[("Accept-Language", " EN ,de")],
                Stored,
            ),
            asked(&[("Accept-Language", "en")], language, &[("Accept-Language", "de")], Asked),
        ],
    );
}

/// RFC 9213 and Surrogate-Control: the field that is meant for this cache wins, an invalid one says nothing.
#[test]
fn rfc9213_2_targeted_fields() {
    const CDN: &str = "CDN-Cache-Control";
    const SURROGATE: &str = "Surrogate-Control";
    check(
        "surrogate_control = true\ntargeted = [\"Test-Cache-Control\", \"CDN-Cache-Control\"]",
        &[
            answer(&[(CDN, "max-age=100"), (CC, "no-store")], Stored),
            answer(&[(CDN, "max-age=100"), ("Expires", PAST)], Stored),
            answer(&[(CDN, "max-age=100"), ("Age", "200")], Asked),
            answer(&[(CDN, "max-age=0"), (CC, "max-age=100")], Asked),
            answer(&[(CDN, "no-store"), (CC, "max-age=100")], Asked),
            answer(&[(CDN, "private"), (CC, "max-age=100")], Asked),
            answer(&[(CDN, "no-cache"), (CC, "max-age=100")], Asked),
            answer(&[(CDN, "max-age=100, &&&"), (CC, "no-store")], Asked),
            answer(&[(CDN, "max-age=\"100\""), (CC, "no-store")], Asked),
            answer(&[(CDN, "max-age =100"), (CC, "no-store")], Asked),
            answer(&[(CDN, "max-age=0"), ("Test-Cache-Control", "max-age=100")], Stored),
            answer(&[(SURROGATE, "max-age=100"), (CC, "no-store")], Stored),
            answer(&[(SURROGATE, "max-age=100;meridian"), (CC, "no-store")], Stored),
            answer(&[(SURROGATE, "max-age=100;other"), (CC, "no-store")], Asked),
            answer(&[(SURROGATE, "no-store"), (CC, "max-age=100")], Asked),
            answer(&[(SURROGATE, "max-age=0"), (CDN, "max-age=100")], Stored),
        ],
    );
}

/// RFC 9111 §4.3.2, RFC 9110 §13.2.2: the client's conditions are evaluated on what is stored.
#[test]
fn rfc9111_4_3_2_conditions_on_what_is_stored() {
    for profile in ["safe", "rfc"] {
        let origin = Origin::start();
        let stored = Script::ok("body").cache_control("max-age=100");
        origin.route("/a", stored.field(TAG.0, TAG.1).field("Last-Modified", PAST));
        let fleet = one_edge(&origin, &format!("profile = \"{profile}\""));
        let edge = fleet.node("e1");
        edge.get("/a");
        for (fields, expected) in [
            (&[("If-None-Match", "\"v\"")][..], 304),
            (&[("If-None-Match", "W/\"v\"")], 304),
            (&[("If-None-Match", "\"x\", \"v\"")], 304),
            (&[("If-None-Match", "*")], 304),
            (&[("If-None-Match", "\"x\"")], 200),
            (&[("If-None-Match", "\"x\""), ("If-Modified-Since", FUTURE)], 200),
            (&[("If-None-Match", "\"v\""), ("If-Modified-Since", "junk")], 304),
            (&[("If-Modified-Since", PAST)], 304),
            (&[("If-Modified-Since", "Thu Jan  1 00:00:00 2015")], 304),
            (&[("If-Modified-Since", "Wed, 31 Dec 2014 23:59:59 GMT")], 200),
        ] {
            let request = Request::get(HOST, "/a");
            let request = fields.iter().fold(request, |all, (n, v)| all.field(n, *v));
            let reply = request.send(edge.http());
            assert_eq!(reply.status, expected, "{profile} {fields:?}");
            assert_eq!(reply.field("etag"), Some("\"v\""), "{profile} {fields:?}");
            assert!(reply.cache_status().contains("; hit"), "{profile} {fields:?}");
        }
        assert_eq!(origin.count("/a"), 1);
    }
}

/// Who had it validated is answered, whatever the 304 says of others, without another request; and nothing is said to be
/// stored that is not.
#[test]
fn rfc9111_4_3_4_a_304_that_forbids_reuse_answers_who_asked() {
    let origin = Origin::start();
    let fleet = one_edge(&origin, "");
    let edge = fleet.node("e1");
    for (number, (name, value)) in
        [("Vary", "*"), ("Cache-Control", "no-store")].into_iter().enumerate()
    {
        let path = format!("/{number}");
        let old = Script::ok("old").cache_control("max-age=10").field("Age", "50");
        origin.once(&path, old.field("ETag", "\"v\"").field("Vary", "Accept-Language"));
        let good = Script::status(304, "").field("ETag", "\"v\"").field(name, value);
        origin.once(&path, good.expect_field("If-None-Match", "\"v\""));
        assert_eq!(edge.get(&path).text(), "old");
        let checked = edge.get(&path);
        let status = checked.cache_status();
        assert_eq!((checked.status, checked.text().as_str()), (200, "old"), "{status}");
        assert!(status.contains("fwd-status=304") && !status.contains("stored"), "{status}");
        assert_eq!(origin.count(&path), 2, "{name}: {value}");
    }
    origin.assert_expectations();
}

/// RFC 9110 §14.2: Range means nothing in a HEAD, so that what is fetched for it is enough.
#[test]
fn rfc9110_14_2_a_head_with_a_range_asks_once() {
    let origin = Origin::start();
    origin.route("/a", Script::ok("0123456789").cache_control("no-cache"));
    let fleet = one_edge(&origin, "ranges = \"whole\"");
    let edge = fleet.node("e1");
    let head = Request::new("HEAD", HOST, "/a").field("Range", "bytes=2-3").send(edge.http());
    assert_eq!((head.status, head.field("content-length")), (200, Some("10")));
    assert_eq!(origin.count("/a"), 1);
}
