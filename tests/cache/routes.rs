//! Which origin is asked for what: sites by host, routes by path in listed order, prefixes taken off, methods passed.

use harness::origin::{Origin, Script};
use harness::plan::Plan;
use harness::wire::{Request, Wire, get};

use super::HOST;

fn three_origins(files: &Origin, bucket: &Origin, api: &Origin) -> Plan {
    let mut plan = Plan::new().datacenter("icn", 37.46, 126.44).edge("e1", "icn");
    for (name, origin) in [("static", files), ("bucket", bucket), ("api", api)] {
        plan =
            plan.toml(&format!("[origin.{name}]\nservers = [ {{ url = \"{}\" }} ]", origin.url()));
    }
    plan.toml(
        "[cache.assets]\nttl = { default = \"10m\" }\n\
         [site.www]\nhosts = [\"www.cdn.test\", \"*.img.cdn.test\"]\nroutes = [\n\
           { path = \"/api/*\", origin = \"api\", cache = \"off\" },\n\
           { path = \"/images/*\", origin = \"bucket\", cache = \"assets\", strip_prefix = \"/images\" },\n\
           { path = \"/*\", origin = \"static\", cache = \"assets\" },\n\
         ]\n\
         [site.docs]\nhosts = [\"docs.cdn.test\"]\nroutes = [ { path = \"/manual/*\", origin = \"static\", cache = \"assets\" } ]",
    )
}

fn origins() -> [Origin; 3] {
    let origins = [Origin::start(), Origin::start(), Origin::start()];
    for (origin, name) in origins.iter().zip(["static", "bucket", "api"]) {
        origin.route_with("/*", move |request| Script::ok(format!("{name} {}", request.target)));
    }
    origins
}

#[test]
fn the_first_route_that_matches_wins() {
    let [files, bucket, api] = &origins();
    let fleet = three_origins(files, bucket, api).start();
    let http = fleet.node("e1").http();
    let cases = [
        (HOST, "/", "static /"),
        (HOST, "/a/b?c=d", "static /a/b?c=d"),
        (HOST, "/api/x?y", "api /api/x?y"),
        (HOST, "/apix", "static /apix"),
        (HOST, "/images/cat.png?w=1", "bucket /cat.png?w=1"),
        (HOST, "/images/a/b", "bucket /a/b"),
        ("WWW.cdn.TEST", "/case", "static /case"),
        ("www.cdn.test:8080", "/port", "static /port"),
        ("eu.img.cdn.test", "/wild", "static /wild"),
        ("a.b.img.cdn.test", "/deep", "static /deep"),
        ("docs.cdn.test", "/manual/1", "static /manual/1"),
    ];
    for (host, target, wanted) in cases {
        assert_eq!(get(http, host, target).text(), wanted, "{host}{target}");
    }
    for (host, target) in [("docs.cdn.test", "/other"), ("img.cdn.test", "/"), ("cdn.test", "/")] {
        let status = get(http, host, target).status;
        assert!(matches!(status, 404 | 421), "{host}{target}: {status}");
    }
}

#[test]
fn a_route_that_does_not_cache_asks_each_time_and_passes_the_known_methods() {
    let [files, bucket, api] = &origins();
    api.route_with("/api/echo", |request| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        let text = format!("{} {body}", request.method);
        Script::ok(text).cache_control("max-age=60")
    });
    let fleet = three_origins(files, bucket, api).start();
    let edge = fleet.node("e1");
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let reply = Request::new(method, HOST, "/api/echo").body("abc").send(edge.http());
        assert_eq!((reply.status, reply.text()), (200, format!("{method} abc")));
        assert!(!reply.cache_status().contains("stored"), "{}", reply.cache_status());
    }
    assert_eq!(Request::new("PROPFIND", HOST, "/api/echo").send(edge.http()).status, 405);
    assert_eq!(api.count("/api/echo"), 6);
}

#[test]
fn chunked_bodies_pass_in_both_directions() {
    let [files, bucket, api] = &origins();
    api.route_with("/api/echo", |request| Script::ok(request.body.clone()).chunked());
    let fleet = three_origins(files, bucket, api).start();
    let mut wire = Wire::connect(fleet.node("e1").http());
    wire.send(format!(
        "POST /api/echo HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\nabc\r\n4;ext=1\r\ndefg\r\n0\r\n\r\n"
    ));
    assert_eq!(wire.read_reply("POST").text(), "abcdefg");
}

/// RFC 9110 §10.1.1.
#[test]
fn rfc9110_10_1_1_expect_100_continue_does_not_stall() {
    let [files, bucket, api] = &origins();
    api.route_with("/api/echo", |request| Script::ok(request.body.clone()));
    let fleet = three_origins(files, bucket, api).start();
    let mut wire = Wire::connect(fleet.node("e1").http());
    wire.send(format!(
        "POST /api/echo HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    ));
    wire.send("hello");
    assert_eq!(wire.read_reply("POST").text(), "hello");
}

#[test]
fn a_write_through_a_caching_route_invalidates_what_is_stored() {
    let [files, bucket, api] = &origins();
    let fleet = three_origins(files, bucket, api).start();
    let edge = fleet.node("e1");
    edge.get("/a");
    assert!(edge.get("/a").cache_status().contains("hit"));
    // RFC 9111 §4.4.
    assert_eq!(Request::new("PUT", HOST, "/a").body("new").send(edge.http()).status, 200);
    assert!(!edge.get("/a").cache_status().contains("hit"));
}

#[test]
fn the_origin_sees_the_host_and_who_asked() {
    let [files, bucket, api] = &origins();
    let fleet = three_origins(files, bucket, api).start();
    let edge = fleet.node("e1");
    Request::get(HOST, "/a").field("X-Forwarded-For", "192.0.2.1").send(edge.http());
    let request = files.requests("/a").remove(0);
    assert_eq!(request.field("host"), Some(HOST));
    assert!(request.field("cdn-loop").is_some_and(|v| v.contains("test")), "{request:?}");
    assert!(request.field("via").is_some(), "{request:?}");
}

#[test]
fn the_health_path_is_answered_by_the_node_itself() {
    let [files, bucket, api] = &origins();
    let fleet = three_origins(files, bucket, api).start();
    let reply = fleet.node("e1").get("/.meridian/health");
    assert_eq!(reply.status, 200);
    assert_eq!(files.total() + bucket.total() + api.total(), 0);
}
