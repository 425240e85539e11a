//! `explain` tells beforehand what is then done: by the same reason that the response carries.

use harness::origin::{Origin, Script};
use harness::process::Program;
use harness::wire::Request;
use serde_json::Value;

use super::{HOST, STRICT, plan, site};

/// Method, path, fields; what was asked before; the reason.
type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], usize, &'a str);

#[test]
fn explain_tells_what_is_then_done() {
    let origin = Origin::start();
    let aged = |cache_control, age: &str| {
        Script::ok("hello, world")
            .cache_control(cache_control)
            .field("Age", age)
            .field("ETag", "\"a\"")
    };
    origin.route("/fresh", aged("max-age=100", "10"));
    origin.route("/old", aged("max-age=10, stale-if-error=1000", "50"));
    origin.route("/swr", aged("max-age=10, stale-while-revalidate=1000", "50"));
    origin.route("/check", aged("no-cache", "0"));
    origin.route("/varies", aged("max-age=100", "0").field("Vary", "Accept-Language"));
    origin.route("/mine", Script::ok("x").cache_control("no-store"));
    let policy = format!("profile = \"rfc\"\n{STRICT}");
    let fleet = site(plan(&origin).edge("e1", "icn"), &policy).start();
    let edge = fleet.node("e1");
    let cases: &[Case<'_>] = &[
        ("GET", "/fresh", &[], 0, "uri-miss"),
        ("GET", "/fresh", &[("Cache-Control", "only-if-cached")], 0, "only-if-cached"),
        ("GET", "/fresh", &[], 1, "fresh"),
        ("HEAD", "/fresh", &[], 1, "fresh"),
        ("GET", "/fresh", &[("Range", "bytes=0-4")], 1, "fresh"),
        ("GET", "/fresh", &[("If-None-Match", "\"a\"")], 1, "fresh"),
        ("GET", "/fresh", &[("Cache-Control", "max-age=5")], 1, "request-max-age"),
        ("GET", "/fresh", &[("Cache-Control", "no-cache")], 1, "request-no-cache"),
        ("GET", "/fresh", &[("Cache-Control", "min-fresh=95")], 1, "request-min-fresh"),
        ("GET", "/fresh", &[("If-Match", "\"a\"")], 1, "origin-precondition"),
        ("POST", "/fresh", &[], 1, "method-not-cached"),
        ("GET", "/old", &[], 1, "expired"),
        ("GET", "/old", &[("Cache-Control", "max-stale=100")], 1, "stale-by-request"),
        ("GET", "/swr", &[], 1, "stale-while-revalidate"),
        ("GET", "/check", &[], 1, "no-cache"),
        ("GET", "/varies", &[("Accept-Language", "de")], 1, "vary-miss"),
        ("GET", "/mine", &[], 1, "known-uncacheable"),
    ];
    for (number, (method, path, fields, before, reason)) in cases.iter().enumerate() {
        // A key of its own for each case.
        let target = format!("{path}?{number}");
        for _ in 0..*before {
            assert_eq!(edge.get(&target).status, 200);
        }
        let mut asked = format!("/v1/explain?method={method}&url=http://{HOST}{path}%3F{number}");
        let mut request = Request::new(method, HOST, &target);
        for (name, value) in *fields {
            asked += &format!("&header={name}:{}", value.replace('"', "%22").replace('=', "%3D"));
            request = request.field(name, *value);
        }
        let told = edge.admin_json(&asked);
        assert_eq!(told["reason"], *reason, "{method} {target} {fields:?}: {told}");
        let asks = origin.count(path);
        let status = request.send(edge.http()).cache_status();
        assert!(
            status.contains(&format!("detail={reason}")) || revalidated(&status),
            "{told}: {status}"
        );
        // Whoever is said to be asked is asked, and nobody else.
        let behind = told["decision"].as_str().unwrap().contains("behind");
        let goes = told["next"].is_string();
        assert_eq!(goes, told["next"] == "origin:static", "{told}");
        if !behind {
            assert_eq!(origin.count(path) > asks, goes, "{method} {target} {fields:?}: {told}");
        }
        assert_eq!(
            status.contains("; hit"),
            told["decision"].as_str().unwrap().starts_with("answer from")
        );
    }
}

/// Asked for whichever reason, and told that it is good still.
fn revalidated(status: &str) -> bool {
    status.contains("fwd=") && status.contains("detail=revalidated")
}

#[test]
fn explain_tells_the_whole_way() {
    let origin = Origin::start();
    origin.route(
        "/a",
        Script::ok("hello")
            .cache_control("max-age=100, stale-if-error=30")
            .field("Age", "40")
            .field("Cache-Tag", "one,two"),
    );
    let fleet = site(plan(&origin).edge("e1", "icn"), "").start();
    let edge = fleet.node("e1");
    edge.get("/a");
    let told = edge.admin_json(&format!("/v1/explain?url=http://{HOST}/a"));
    let text = |key: &str| told[key].as_str().unwrap_or_default().to_owned();
    assert_eq!(text("key"), format!("http://{HOST}/a"));
    assert_eq!([text("site"), text("route"), text("origin")], ["www", "/*", "static"]);
    assert_eq!(text("method"), "GET");
    assert_eq!((&told["policy"]["profile"], &told["next"]), (&"safe".into(), &Value::Null));
    let stored = &told["stored"][0];
    assert_eq!((&stored["selected"], &stored["lifetime_from"]), (&true.into(), &"max-age".into()));
    let number = |key: &str| stored[key].as_i64().unwrap();
    assert_eq!(
        (number("lifetime"), number("age_on_arrival"), number("stale_if_error")),
        (100, 40, 30)
    );
    // What is left is what the age has left of the lifetime.
    assert!((99..=100).contains(&(number("age") + number("ttl"))), "{stored}");

    let url = format!("http://{HOST}/a");
    let out = fleet.run(Program::EdgeCache, &["explain", &url, "-X", "HEAD", "--node", "e1"]);
    let out = String::from_utf8(out.stdout).unwrap();
    for word in [
        "fresh",
        "max-age",
        "www",
        "/*",
        "answer from the store",
        "HEAD",
        "stale-if-error 30 s",
        "tags one, two",
    ] {
        assert!(out.contains(word), "{word} in {out}");
    }
    let put = format!("/v1/explain?url=http://{HOST}/a&method=P%20T");
    assert_eq!(edge.admin_request("GET", &put, "").status, 400);
}
