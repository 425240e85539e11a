//! CORS on a route: preflights answered at the edge, and one stored response for pages of all origins.

use harness::fleet::Fleet;
use harness::origin::{Origin, Script};
use harness::wire::{Reply, Request};

use super::{HOST, STRICT, plan};

const CORS: &str = "cors = { origins = [\"https://app.test\", \"https://*.wild.test\"], methods = [\"GET\", \"PUT\"], \
                    headers = [\"X-One\"], expose = [\"X-Seen\"], credentials = true, max_age = \"5m\" }";

fn fleet(origin: &Origin) -> Fleet {
    origin.route_with("/*", |request| {
        let theirs = request.field("origin").unwrap_or("nobody").to_owned();
        Script::ok(theirs.clone())
            .cache_control("max-age=60")
            .field("Access-Control-Allow-Origin", &theirs)
            .field("Access-Control-Allow-Methods", "DELETE")
            .field("Vary", "Origin")
    });
    plan(origin)
        .edge("e1", "icn")
        .parent("p1", "icn")
        .toml("[tier.shield]\nparents = [\"p1\"]")
        .toml(&format!("[cache.assets]\n{STRICT}"))
        .toml(&format!(
            "[site.www]\nhosts = [\"{HOST}\"]\ntier = \"shield\"\nroutes = [\n\
             {{ path = \"/any/*\", origin = \"static\", cache = \"assets\", cors = {{ origins = [\"*\"], headers = [\"*\"] }} }},\n\
             {{ path = \"/api/*\", origin = \"static\", cache = \"off\", {CORS} }},\n\
             {{ path = \"/none/*\", origin = \"static\", cache = \"off\" }},\n\
             {{ path = \"/moved\", redirect = {{ to = \"/a\" }}, {CORS} }},\n\
             {{ path = \"/*\", origin = \"static\", cache = \"assets\", methods = [\"GET\", \"PUT\"], {CORS} }},\n]"
        ))
        .start()
}

fn ask(fleet: &Fleet, method: &str, target: &str, fields: &[(&str, &str)]) -> Reply {
    let mut request = Request::new(method, HOST, target);
    for (name, value) in fields {
        request = request.field(name, *value);
    }
    request.send(fleet.node("e1").http())
}

fn allowed(reply: &Reply) -> (Option<&str>, Option<&str>) {
    (reply.field("access-control-allow-origin"), reply.field("access-control-allow-credentials"))
}

/// Fetch §4.8.
#[test]
fn preflights_are_answered_without_the_origin() {
    let origin = Origin::start();
    let fleet = fleet(&origin);
    let app = ("Origin", "https://app.test");
    let put = ("Access-Control-Request-Method", "PUT");
    let one = ("Access-Control-Request-Headers", "x-one");
    for target in ["/a", "/api/a", "/moved"] {
        let reply = ask(&fleet, "OPTIONS", target, &[app, put, one]);
        assert_eq!(reply.status, 204, "{target}");
        assert_eq!(allowed(&reply), (Some("https://app.test"), Some("true")));
        assert_eq!(reply.field("access-control-allow-methods"), Some("GET, PUT"));
        assert_eq!(reply.field("access-control-allow-headers"), Some("X-One"));
        assert_eq!(reply.field("access-control-max-age"), Some("300"));
        assert!(reply.head.joined("vary").starts_with("Origin"), "{reply:?}");
        assert!(reply.cache_status().contains("detail=preflight"), "{}", reply.cache_status());
    }
    for (fields, reason) in [
        ([("Origin", "https://evil.test"), put, one], "cors-origin"),
        ([("Origin", "null"), put, one], "cors-origin"),
        ([("Origin", "https://wild.test"), put, one], "cors-origin"),
        ([app, ("Access-Control-Request-Method", "DELETE"), one], "cors-method"),
        ([app, put, ("Access-Control-Request-Headers", "x-one,x-two")], "cors-field"),
    ] {
        let reply = ask(&fleet, "OPTIONS", "/a", &fields);
        assert_eq!((reply.status, allowed(&reply)), (403, (None, None)), "{fields:?}");
        assert!(reply.cache_status().contains(reason), "{}", reply.cache_status());
        assert!(reply.head.joined("vary").starts_with("Origin"), "{reply:?}");
    }
    let any = ask(
        &fleet,
        "OPTIONS",
        "/any/a",
        &[
            ("Origin", "null"),
            ("Access-Control-Request-Method", "GET"),
            ("Access-Control-Request-Headers", "authorization"),
        ],
    );
    assert_eq!((any.status, allowed(&any)), (204, (Some("*"), None)));
    assert_eq!(any.field("access-control-allow-headers"), Some("authorization"));
    assert_eq!(origin.total(), 0);
    // Where there is no `cors`, and without the method it asks for, OPTIONS is the origin's.
    assert_eq!(ask(&fleet, "OPTIONS", "/none/a", &[app, put]).status, 200);
    assert_eq!(ask(&fleet, "OPTIONS", "/api/a", &[app]).status, 200);
    assert_eq!(origin.total(), 2);
}

#[test]
fn one_stored_response_serves_pages_of_all_origins() {
    let origin = Origin::start();
    let fleet = fleet(&origin);
    for (from, expected) in [
        (Some("https://app.test"), (Some("https://app.test"), Some("true"))),
        (Some("https://a.wild.test"), (Some("https://a.wild.test"), Some("true"))),
        (Some("https://evil.test"), (None, None)),
        (Some("null"), (None, None)),
        (None, (None, None)),
    ] {
        let fields: Vec<_> = from.iter().map(|from| ("Origin", *from)).collect();
        for method in ["GET", "HEAD"] {
            let reply = ask(&fleet, method, "/a", &fields);
            assert_eq!((reply.status, allowed(&reply)), (200, expected), "{method} {from:?}");
            assert_eq!(reply.head.joined("vary"), "Origin", "{from:?}");
            assert_eq!(reply.field("access-control-allow-methods"), None);
            let expose = expected.0.map(|_| "X-Seen");
            assert_eq!(reply.field("access-control-expose-headers"), expose);
        }
    }
    // Conditions and errors of ours are answered for the page that asks, too.
    let page = ("Origin", "https://app.test");
    let refused = ask(&fleet, "DELETE", "/a", &[page]);
    assert_eq!((refused.status, refused.head.joined("vary").as_str()), (405, "Origin"));
    let moved = ask(&fleet, "GET", "/moved", &[page]);
    assert_eq!((moved.status, allowed(&moved).0), (308, Some("https://app.test")));
    let seen = origin.requests("/a");
    assert_eq!(seen.len(), 1, "one fetch for all of them");
    assert_eq!(seen[0].field("origin"), None, "what is stored is nobody's");
    // `*` is the same for all: no Vary of ours.
    let any = ask(&fleet, "GET", "/any/a", &[page]);
    assert_eq!(allowed(&any), (Some("*"), None));
    // What is not stored may depend on who asks.
    let passed = ask(&fleet, "PUT", "/api/a", &[page]);
    assert_eq!(
        (passed.text(), allowed(&passed).0),
        ("https://app.test".to_owned(), Some("https://app.test"))
    );
}
