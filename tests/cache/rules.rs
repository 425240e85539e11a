//! What routes ask before the cache and do after it: methods, redirects, rewrites, fields of both sides.

use std::net::SocketAddr;

use harness::fleet::Fleet;
use harness::origin::{Origin, Script};
use harness::wire::{Reply, Request};

use super::{HOST, STRICT, plan};

/// One edge `e1` with these routes, the policy `assets`, and more of the configuration.
#[track_caller]
fn routes(origin: &Origin, routes: &str, more: &str) -> Fleet {
    plan(origin)
        .edge("e1", "icn")
        .toml(&format!("[cache.assets]\n{STRICT}"))
        .toml(&format!(
            "[site.www]\nhosts = [\"{HOST}\", \"*.img.cdn.test\"]\nroutes = [\n{routes}\n]"
        ))
        .toml(more)
        .start()
}

fn ask(method: &str, target: &str, addr: SocketAddr) -> Reply {
    Request::new(method, HOST, target).send(addr)
}

fn says(origin: &Origin) {
    origin.route_with("/*", |request| {
        Script::ok(format!("{} {}", request.method, request.target)).cache_control("max-age=60")
    });
}

/// RFC 9110 §15.5.6, §9.3.7, §10.2.1.
#[test]
fn rfc9110_15_5_6_methods_beyond_the_list_get_405_with_allow() {
    let origin = Origin::start();
    says(&origin);
    origin.route("/open", Script::ok("x").field("Allow", "GET, PUT, DELETE, OPTIONS"));
    let fleet = routes(
        &origin,
        "{ path = \"/read/*\", origin = \"static\", cache = \"assets\", methods = [\"GET\"] },\n\
         { path = \"/open\", origin = \"static\", cache = \"off\", methods = [\"OPTIONS\", \"PUT\"] },\n\
         { path = \"/*\", origin = \"static\", cache = \"off\" },",
        "",
    );
    let http = fleet.node("e1").http();
    for (method, target, status, allow) in [
        ("GET", "/read/a", 200, None),
        ("HEAD", "/read/a", 200, None),
        ("POST", "/read/a", 405, Some("GET, HEAD, OPTIONS")),
        ("PROPFIND", "/read/a", 405, Some("GET, HEAD, OPTIONS")),
        ("get", "/read/a", 405, Some("GET, HEAD, OPTIONS")),
        ("OPTIONS", "/read/a", 204, Some("GET, HEAD, OPTIONS")),
        ("OPTIONS", "/open", 200, Some("PUT, OPTIONS")),
        ("GET", "/open", 405, Some("OPTIONS, PUT")),
        ("PROPFIND", "/", 405, Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")),
        ("PUT", "/", 200, None),
    ] {
        let reply = ask(method, target, http);
        assert_eq!((reply.status, reply.field("allow")), (status, allow), "{method} {target}");
        if status == 405 {
            assert!(
                reply.cache_status().contains("method-not-allowed"),
                "{}",
                reply.cache_status()
            );
            assert_eq!(reply.field("cache-control"), Some("no-store"));
        }
    }
    let seen = origin.requests("/read/a");
    assert_eq!(seen.len(), 1, "only GET went on: {seen:?}");
    // What is refused does not cost the connection's next request.
    let reply = Request::new("DELETE", HOST, "/read/a").body("some content").send(http);
    assert_eq!(reply.status, 405);
}

#[test]
fn redirects_need_no_origin_and_lead_where_the_operator_says() {
    let origin = Origin::start();
    says(&origin);
    let fleet = routes(
        &origin,
        "{ path = \"/old/*\", redirect = { to = \"/new/{rest}{query}\" } },\n\
         { path = \"/moved/*\", redirect = { to = \"https://{host}{path}{query}\", status = 301 } },\n\
         { path = \"/path*\", redirect = { to = \"{path}\", status = 302 } },\n\
         { path = \"/self\", redirect = { to = \"/self\", status = 307 } },\n\
         { path = \"/secure/*\", origin = \"static\", cache = \"assets\", redirect = { to = \"https://{host}{path}{query}\" } },\n\
         { path = \"/*\", redirect = { to = \"/{rest}\", status = 303 } },",
        "",
    );
    let edge = fleet.node("e1");
    for (target, status, location) in [
        ("/old/a/b?c=d", 308, Some("/new/a/b?c=d")),
        ("/old", 308, Some("/new/")),
        ("/old/a?x=%0d%0aSet-Cookie:b", 308, Some("/new/a?x=%0D%0ASet-Cookie:b")),
        ("/old/%0d%0aSet-Cookie:b", 308, Some("/new/%0D%0ASet-Cookie:b")),
        ("/moved/a?b", 301, Some("https://www.cdn.test/moved/a?b")),
        ("//evil.test/a", 303, Some("/evil.test/a")),
        ("///evil.test", 303, Some("/evil.test")),
        ("/%5Cevil.test", 404, None),
        ("/self", 404, None),
        ("/a/../moved/x", 301, Some("https://www.cdn.test/moved/x")),
    ] {
        let reply = edge.get(target);
        assert_eq!((reply.status, reply.field("location")), (status, location), "{target}");
        assert!(reply.field("set-cookie").is_none());
        let kept = if matches!(status, 301 | 308) { "max-age=3600" } else { "no-store" };
        assert_eq!(reply.field("cache-control"), Some(kept), "{target}");
        assert!(reply.field("date").is_some() && reply.field("via").is_some());
    }
    let head = ask("HEAD", "/old/a", edge.http());
    assert_eq!((head.status, head.body.len()), (308, 0));
    assert_eq!(ask("POST", "/old/a", edge.http()).status, 308);
    assert_eq!(edge.get("/old/a").cache_status(), "e1; detail=redirect");

    // The same URL over TLS is where it leads to: the origin is asked.
    let location = edge.get("/secure/a?b").field("location").unwrap().to_owned();
    assert_eq!(location, "https://www.cdn.test/secure/a?b");
    assert_eq!(origin.total(), 0);
    let host = HOST;
    let reply =
        harness::secure::get_for(edge.https(), HOST, host, &["h2"], &["/secure/a?b"]).remove(0);
    assert_eq!((reply.status.as_u16(), &reply.body[..]), (200, &b"GET /secure/a?b"[..]));

    let explained = edge.admin_json("/v1/explain?url=http://www.cdn.test/old/x");
    assert_eq!(explained["decision"], "answer 308");
    assert_eq!(explained["reason"], "redirect");
    assert_eq!(explained["origin"], serde_json::Value::Null);
    let steps: Vec<_> = explained["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["step"].as_str().unwrap())
        .collect();
    assert_eq!(steps, ["access", "methods", "preflight", "signature", "redirect", "response"]);
}

#[test]
fn rewritten_paths_are_the_origins_and_the_key_stays_the_clients() {
    let origin = Origin::start();
    says(&origin);
    let routes = "{ path = \"/img*\", origin = \"static\", cache = \"assets\", rewrite = \"/v2/{rest}\" },\n\
                  { path = \"/page/*\", origin = \"static\", cache = \"assets\", rewrite = \"/x{path}.html\" },";
    let fleet = plan(&origin)
        .edge("e1", "icn")
        .parent("p1", "icn")
        .toml("[tier.shield]\nparents = [\"p1\"]")
        .toml(&format!("[cache.assets]\n{STRICT}"))
        .toml(&format!(
            "[site.www]\nhosts = [\"{HOST}\"]\ntier = \"shield\"\nroutes = [\n{routes}\n]"
        ))
        .start();
    let edge = fleet.node("e1");
    for (target, seen) in [
        ("/img/a.png?w=1", "GET /v2//a.png?w=1"),
        ("/img", "GET /v2/"),
        ("/page/a", "GET /x/page/a.html"),
    ] {
        let reply = edge.get(target);
        assert_eq!(reply.text(), seen, "{target}");
        assert!(reply.cache_status().starts_with("p1; fwd=uri-miss"), "{}", reply.cache_status());
        assert!(edge.get(target).cache_status().contains("e1; hit"));
        for node in [edge, fleet.node("p1")] {
            let explained = node
                .admin_json(&format!("/v1/object?url=http://{HOST}{}", target.replace('?', "%3F")));
            assert_eq!(explained["key"], format!("http://{HOST}{target}"));
            assert_eq!(explained["stored"].as_array().unwrap().len(), 1, "{explained}");
        }
    }
    let reply = edge.get("/img../secret");
    assert_eq!(reply.status, 400);
    assert!(reply.cache_status().contains("target-invalid"), "{}", reply.cache_status());
    assert_eq!(origin.total(), 3);
}

#[test]
fn fields_are_set_and_taken_off_on_both_sides_and_never_stored() {
    let origin = Origin::start();
    origin.route_with("/*", |request| {
        let seen = request.field("x-edge").unwrap_or("none").to_owned();
        let cookie = request.field("cookie").unwrap_or("none");
        Script::ok(format!("{seen} {cookie}"))
            .cache_control("max-age=60")
            .field("Server", "origin/1")
            .field("X-Seen", "origin")
    });
    let fields = "request_headers = { set = { X-Edge = \"e\", Authorization = \"Basic x\" }, remove = [\"Cookie\"] }, \
                  response_headers = { set = { X-Seen = \"one\", X-Frame-Options = \"DENY\" }, remove = [\"Server\"] }";
    let text = format!(
        "{{ path = \"/off/*\", origin = \"static\", cache = \"off\", {fields} }},\n\
         {{ path = \"/*\", origin = \"static\", cache = \"assets\", {fields} }},"
    );
    let mut fleet = plan(&origin)
        .edge("e1", "icn")
        .parent("p1", "icn")
        .toml("[tier.shield]\nparents = [\"p1\"]")
        .toml(&format!("[cache.assets]\n{STRICT}"))
        .toml(&format!(
            "[site.www]\nhosts = [\"{HOST}\"]\ntier = \"shield\"\nroutes = [\n{text}\n]"
        ))
        .start();
    let get = |fleet: &Fleet, target: &str| {
        Request::get(HOST, target)
            .field("Cookie", "a=b")
            .field("X-Edge", "forged")
            .send(fleet.node("e1").http())
    };
    for target in ["/a", "/a", "/off/a"] {
        let reply = get(&fleet, target);
        assert_eq!(reply.text(), "e none", "{target}");
        assert_eq!(reply.head.joined("x-seen"), "one", "{target}");
        assert_eq!(reply.field("x-frame-options"), Some("DENY"));
        assert_eq!(reply.field("server"), None);
    }
    let request = origin.requests("/a").remove(0);
    assert_eq!(request.field("authorization"), Some("Basic x"));
    let parent = Request::get(HOST, "/a").send(fleet.node("p1").http());
    assert!(
        parent.cache_status().contains("p1; hit"),
        "what went through the parent is stored there"
    );
    // What is stored is the origin's; a changed configuration holds at once.
    fleet.edit("X-Seen = \"one\"", "X-Seen = \"two\"");
    assert_eq!(fleet.node("e1").admin_request("POST", "/v1/reload", "").status, 200);
    let reply = get(&fleet, "/a");
    assert!(reply.cache_status().contains("e1; hit"), "{}", reply.cache_status());
    assert_eq!(reply.head.joined("x-seen"), "two");
    fleet.edit("response_headers = { set = { X-Seen = \"two\", X-Frame-Options = \"DENY\" }, remove = [\"Server\"] }", "response_headers = {}");
    assert_eq!(fleet.node("e1").admin_request("POST", "/v1/reload", "").status, 200);
    let reply = get(&fleet, "/a");
    assert_eq!((reply.field("x-seen"), reply.field("server")), (Some("origin"), Some("origin/1")));
    // Errors of ours have them, too.
    fleet.edit("response_headers = {}", "response_headers = { set = { X-Seen = \"err\" } }");
    assert_eq!(fleet.node("e1").admin_request("POST", "/v1/reload", "").status, 200);
    assert_eq!(ask("PROPFIND", "/a", fleet.node("e1").http()).field("x-seen"), Some("err"));
    assert_eq!(origin.count("/a"), 1);
}
