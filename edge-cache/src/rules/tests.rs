//! The steps together: which one answers, what goes on, and what is done to responses.

use http::header::{COOKIE, HeaderName, VARY};
use proptest::prelude::*;
use shared::config::{CorsOrigin, CorsSpec, Dur, FieldsSpec, RedirectSpec, Template};

use super::signed::{Grant, Scope};
use super::*;

const NOW: u64 = 1_800_000_000;

fn spec() -> RouteSpec {
    RouteSpec {
        path: "/*".to_owned(),
        origin: Some("static".to_owned()),
        cache: shared::config::RouteCache::default(),
        strip_prefix: None,
        rewrite: None,
        methods: None,
        redirect: None,
        request_headers: FieldsSpec::default(),
        response_headers: FieldsSpec::default(),
        cors: None,
        access: shared::config::AccessSpec::default(),
        signed: None,
        upgrade: Vec::new(),
    }
}

fn cors() -> CorsSpec {
    CorsSpec {
        origins: vec![CorsOrigin::try_from("https://app.test".to_owned()).unwrap()],
        methods: vec!["GET".to_owned()],
        headers: Vec::new(),
        expose: Vec::new(),
        credentials: false,
        max_age: Dur::secs(60),
    }
}

fn keys() -> Keys {
    Keys::new([("k1".to_owned(), "0123456789abcdef".repeat(2))]).unwrap()
}

fn rules(spec: &RouteSpec) -> RouteRules {
    let keys = spec.signed.as_ref().map(|_| Arc::new(keys()));
    RouteRules { keys, ..RouteRules::new(spec, Some(Profile::Safe)).unwrap() }
}

/// Every rule there is.
fn all() -> RouteSpec {
    RouteSpec {
        methods: Some(vec!["GET".to_owned()]),
        redirect: Some(RedirectSpec {
            to: Template::try_from("/new".to_owned()).unwrap(),
            status: 302,
        }),
        cors: Some(cors()),
        access: shared::config::AccessSpec {
            deny: vec!["192.0.2.0/24".to_owned()],
            ..Default::default()
        },
        signed: Some("members".to_owned()),
        ..spec()
    }
}

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn asked<'a>(method: &'a Method, headers: &'a HeaderMap, query: Option<&'a str>) -> Asked<'a> {
    Asked {
        method,
        headers,
        scheme: "https",
        authority: "www.cdn.test",
        path: "/a",
        rest: "a",
        query,
        client: Some("198.51.100.1".parse().unwrap()),
    }
}

fn good_query() -> String {
    let grant = Grant {
        key: "k1".to_owned(),
        host: "www.cdn.test".to_owned(),
        scope: Scope::Prefix("/".to_owned()),
        expires: NOW + 60,
        from: None,
        network: None,
    };
    keys().sign(&grant).unwrap()
}

const PREFLIGHT: [(&str, &str); 2] =
    [("origin", "https://app.test"), ("access-control-request-method", "GET")];

#[test]
fn the_first_step_with_an_answer_gives_it() {
    let rules = rules(&all());
    let (none, preflight, query) = (HeaderMap::new(), headers(&PREFLIGHT), good_query());
    let denied: IpAddr = "192.0.2.1".parse().unwrap();
    for (asked, expected) in [
        (
            Asked { client: Some(denied), ..asked(&Method::OPTIONS, &preflight, None) },
            (403, "network-denied"),
        ),
        (
            Asked { client: Some(denied), ..asked(&Method::PUT, &none, Some(&query)) },
            (403, "network-denied"),
        ),
        (asked(&Method::PUT, &none, Some(&query)), (405, "method-not-allowed")),
        (asked(&Method::OPTIONS, &none, None), (204, "options-here")),
        (asked(&Method::OPTIONS, &preflight, None), (204, "preflight")),
        (asked(&Method::GET, &none, None), (403, "signature-missing")),
        (asked(&Method::HEAD, &none, Some(&query)), (302, "redirect")),
        (asked(&Method::GET, &preflight, Some(&query)), (302, "redirect")),
    ] {
        let (verdict, _) = rules.before(&asked, NOW);
        let answer = verdict.unwrap_err();
        assert_eq!((answer.status.as_u16(), answer.reason.code()), expected, "{asked:?}");
        let (steps, explained) = rules.explain(&asked, NOW);
        assert_eq!(explained.as_ref(), Some(&answer));
        assert!(steps.last().unwrap().result.contains(expected.1), "{steps:?}");
    }
    let nobody = Asked { client: None, ..asked(&Method::GET, &none, Some(&query)) };
    let steps = rules.explain(&nobody, NOW).0;
    assert_eq!(
        steps.iter().map(|step| format!("{} {}", step.step, step.result)).collect::<Vec<_>>(),
        [
            "access depends on the client: name an address",
            "methods passed",
            "preflight -",
            "signature passed",
            "redirect answers 302 redirect to /new"
        ]
    );
}

#[test]
fn a_route_without_rules_serves_the_known_methods_as_they_come() {
    let rules = rules(&spec());
    let fields = headers(&[("origin", "https://a.test"), ("cookie", "md-signed=1")]);
    for (method, passes) in
        [("GET", true), ("DELETE", true), ("OPTIONS", true), ("PROPFIND", false)]
    {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let (verdict, afterwards) = rules.before(&asked(&method, &fields, Some("md-sig=1")), NOW);
        assert_eq!(verdict.is_ok(), passes, "{method}");
        if let Ok(onward) = verdict {
            assert_eq!(onward, Onward::default());
        }
        let mut response = headers(&[("allow", "PROPFIND"), ("access-control-allow-origin", "*")]);
        let before = response.clone();
        rules.after(&afterwards, &mut response);
        assert_eq!(response, before);
    }
}

#[test]
fn signatures_and_origins_do_not_reach_the_cache() {
    let both = rules(&RouteSpec { redirect: None, ..all() });
    let query = format!("b=%7e&{}&a=1", good_query());
    let fields = headers(&[
        ("origin", "https://app.test"),
        ("cookie", "a=b; md-signed=x; c=d"),
        ("accept", "*/*"),
    ]);
    let (verdict, afterwards) = both.before(&asked(&Method::GET, &fields, Some(&query)), NOW);
    let onward = verdict.unwrap();
    assert_eq!(onward.query.unwrap().as_deref(), Some("b=%7e&a=1"));
    let sent = onward.headers.unwrap();
    assert_eq!(sent.get(COOKIE).unwrap(), "a=b; c=d");
    assert!(!sent.contains_key(ORIGIN) && sent.contains_key("accept"));

    let mut response = headers(&[("cache-control", "public, max-age=60"), ("allow", "GET, PUT")]);
    both.after(&afterwards, &mut response);
    assert_eq!(response.get(CACHE_CONTROL).unwrap(), "private, max-age=60");
    assert_eq!(response.get(VARY).unwrap(), "Origin");
    assert_eq!(response.get(ALLOW).unwrap(), "GET");
    assert_eq!(response.get("access-control-allow-origin").unwrap(), "https://app.test");

    // What is passed on is this client's: the origin may want to know whose page asks.
    let passing = RouteRules { caches: false, ..both.clone() };
    let onward = passing.before(&asked(&Method::GET, &fields, Some(&query)), NOW).0.unwrap();
    assert!(onward.headers.unwrap().contains_key(ORIGIN));
    let writing = rules(&RouteSpec { cors: Some(cors()), ..spec() });
    let onward = writing.before(&asked(&Method::POST, &fields, None), NOW).0.unwrap();
    assert_eq!(onward, Onward::default());
}

#[test]
fn signed_routes_without_keys_serve_nobody() {
    let rules = RouteRules { keys: None, ..rules(&RouteSpec { redirect: None, ..all() }) };
    let (query, none) = (good_query(), HeaderMap::new());
    let answer = rules.before(&asked(&Method::GET, &none, Some(&query)), NOW).0.unwrap_err();
    assert_eq!(answer.reason, Reason::SignatureInvalid);
}

#[test]
fn the_operators_fields_are_the_last_word() {
    let set = [("Cache-Control".to_owned(), "no-cache".to_owned())].into();
    let response_headers = FieldsSpec { set, remove: vec!["Server".to_owned()] };
    let rules = rules(&RouteSpec { response_headers, ..all() });
    let none = HeaderMap::new();
    let (_, afterwards) = rules.before(&asked(&Method::GET, &none, None), NOW);
    let mut response = headers(&[("cache-control", "max-age=60"), ("server", "x")]);
    rules.after(&afterwards, &mut response);
    assert_eq!(response.get(CACHE_CONTROL).unwrap(), "no-cache");
    assert!(!response.contains_key("server"));
    assert_eq!(rules.explain_response().result, "cors, private, remove server, set cache-control");
}

#[test]
fn redirects_say_how_long_they_are_good() {
    for (status, cache_control) in [
        (301, "max-age=3600"),
        (302, "no-store"),
        (303, "no-store"),
        (307, "no-store"),
        (308, "max-age=3600"),
    ] {
        let to = Template::try_from("https://{host}{path}{query}".to_owned()).unwrap();
        let moved = RouteSpec { redirect: Some(RedirectSpec { to, status }), ..spec() };
        let none = HeaderMap::new();
        let http = Asked { scheme: "http", ..asked(&Method::GET, &none, Some("b")) };
        let answer = rules(&moved).before(&http, NOW).0.unwrap_err();
        assert_eq!(answer.status.as_u16(), status);
        assert_eq!(answer.headers.get(LOCATION).unwrap(), "https://www.cdn.test/a?b");
        assert_eq!(answer.headers.get(CACHE_CONTROL).unwrap(), cache_control);
        // Where it leads to is served, by the origin if there is one.
        let https = asked(&Method::GET, &none, Some("b"));
        assert!(rules(&moved).before(&https, NOW).0.is_ok());
        let alone = rules(&RouteSpec { origin: None, ..moved });
        let answer = alone.before(&https, NOW).0.unwrap_err();
        assert_eq!((answer.status.as_u16(), answer.reason), (404, Reason::RedirectToItself));
    }
}

proptest! {
    /// Whatever comes, a signed route serves it with a good signature only.
    #[test]
    fn nothing_gets_past_a_signature(
        method in "GET|HEAD|POST|OPTIONS|X",
        query in proptest::option::of("(md-[a-z]{3}=[0-9a-f/]{0,4}&?){0,3}"),
        fields in proptest::collection::vec(("origin|cookie|access-control-request-method|via", "[ -~]{0,20}"), 0..4),
    ) {
        let mut sent = HeaderMap::new();
        for (name, value) in &fields {
            sent.append(HeaderName::try_from(name.as_str()).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request = asked(&method, &sent, query.as_deref());
        for spec in [all(), RouteSpec { methods: None, ..all() }] {
            prop_assert!(rules(&spec).before(&request, NOW).0.is_err_and(|answer| answer.reason != Reason::Redirect));
        }
    }
}
