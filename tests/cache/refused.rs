//! Requests that must not get through: each is refused with the exact error, its connection closed, its origin unasked.

use harness::expect;
use harness::origin::{Origin, Script};
use harness::wire::{Request, Wire, raw};

use super::{HOST, STRICT, one_edge};

/// RFC 9112 §6.1, §6.3, §3.2; RFC 9110 §7.2, §7.4: ambiguous framing and routing.
#[test]
fn ambiguous_requests_are_refused_and_the_connection_is_closed() {
    let origin = Origin::start();
    origin.route("/*", Script::ok("never"));
    let fleet = one_edge(&origin, STRICT);
    let edge = fleet.node("e1");
    let mut watch = edge.watch();
    let line = format!("GET /a HTTP/1.1\r\nHost: {HOST}\r\n");
    let post = format!("POST /a HTTP/1.1\r\nHost: {HOST}\r\n");
    let cases: &[(&str, String, &[u16])] = &[
        (
            "Content-Length and Transfer-Encoding",
            format!("{post}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            &[400],
        ),
        (
            "Transfer-Encoding and Content-Length",
            format!("{post}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
            &[400],
        ),
        (
            "two Content-Lengths",
            format!("{post}Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
            &[400],
        ),
        ("Content-Length +1", format!("{post}Content-Length: +1\r\n\r\na"), &[400]),
        ("Content-Length -1", format!("{post}Content-Length: -1\r\n\r\na"), &[400]),
        (
            "chunked twice",
            format!("{post}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
            &[400, 501],
        ),
        (
            "identity after chunked",
            format!("{post}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
            &[400, 501],
        ),
        ("an unknown coding", format!("{post}Transfer-Encoding: gzip\r\n\r\n"), &[400, 501]),
        (
            "chunked, misspelt with a tab",
            format!("{post}Transfer-Encoding: \tchunkedx\r\n\r\n"),
            &[400, 501],
        ),
        ("no Host", "GET /a HTTP/1.1\r\n\r\n".to_owned(), &[400]),
        ("two Hosts", format!("{line}Host: other.test\r\n\r\n"), &[400]),
        ("the same Host twice", format!("{line}Host: {HOST}\r\n\r\n"), &[400]),
        (
            "a Host with a path",
            "GET /a HTTP/1.1\r\nHost: www.cdn.test/x\r\n\r\n".to_owned(),
            &[400],
        ),
        (
            "a Host with user information",
            "GET /a HTTP/1.1\r\nHost: a@www.cdn.test\r\n\r\n".to_owned(),
            &[400],
        ),
        ("an empty Host", "GET /a HTTP/1.1\r\nHost:\r\n\r\n".to_owned(), &[400]),
        ("a space before the colon", format!("{line}X-A : b\r\n\r\n"), &[400]),
        ("a folded line", format!("{line}X-A: b\r\n c\r\n\r\n"), &[400]),
        ("a NUL in a field", format!("{line}X-A: b\0c\r\n\r\n"), &[400]),
        (
            "an unknown Host",
            "GET /a HTTP/1.1\r\nHost: unknown.test\r\n\r\n".to_owned(),
            &[404, 421],
        ),
        (
            "an address as Host",
            "GET /a HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n".to_owned(),
            &[404, 421],
        ),
        (
            "an absolute target for another host",
            format!("GET http://unknown.test/a HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
            &[400, 404, 421],
        ),
        (
            "CONNECT",
            format!("CONNECT {HOST}:80 HTTP/1.1\r\nHost: {HOST}:80\r\n\r\n"),
            &[400, 405, 501],
        ),
        ("HTTP/2.0 in clear text", format!("GET /a HTTP/2.0\r\nHost: {HOST}\r\n\r\n"), &[400, 505]),
        ("no version", "GET /a\r\n\r\n".to_owned(), &[400, 505]),
        ("nonsense", "\u{1}\u{2}\u{3}\r\n\r\n".to_owned(), &[400]),
    ];
    for (what, bytes, statuses) in cases {
        let (head, mut wire) = raw(edge.http(), bytes);
        let Some(head) = head else { panic!("{what}: closed without an answer") };
        assert!(statuses.contains(&head.status), "{what}: {} instead of {statuses:?}", head.status);
        if let Err(why) = wire.closed() {
            panic!("{what}: {why}");
        }
    }
    assert_eq!(origin.total(), 0, "the origin was asked: {:?}", origin.requests("/a"));
    expect!(watch, edge_cache_origin_requests_total += 0);
    assert_eq!(edge.get("/a").status, 200, "and the node goes on");
}

/// RFC 9110 §9.3.8: a TRACE would show the client what the edge adds. Its connection is in step and may go on.
#[test]
fn rfc9110_9_3_8_trace_is_refused() {
    let origin = Origin::start();
    origin.route("/*", Script::ok("x"));
    let fleet = one_edge(&origin, STRICT);
    let reply = Request::new("TRACE", HOST, "/").send(fleet.node("e1").http());
    assert_eq!((reply.status, origin.total()), (405, 0));
}

/// What follows a refused request on the same connection is not read as another one.
#[test]
fn a_smuggled_request_is_not_served() {
    let origin = Origin::start();
    origin.route("/*", Script::ok("x").cache_control("max-age=60"));
    let fleet = one_edge(&origin, STRICT);
    let edge = fleet.node("e1");
    let smuggled = format!(
        "POST /a HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
         0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n"
    );
    let (head, mut wire) = raw(edge.http(), smuggled);
    assert_eq!(head.map(|head| head.status), Some(400));
    wire.assert_closed();
    assert_eq!(origin.count("/smuggled"), 0);
}

/// RFC 6585 §5, RFC 9110 §15.5.15.
#[test]
fn rfc6585_5_heads_beyond_the_limit_are_refused() {
    let origin = Origin::start();
    origin.route("/*", Script::ok("x"));
    let fleet = one_edge(&origin, STRICT);
    let edge = fleet.node("e1");
    let long = "x".repeat(100 * 1024);
    let many = "X-A: b\r\n".repeat(5000);
    let cases = [
        (format!("GET /a HTTP/1.1\r\nHost: {HOST}\r\nX-Long: {long}\r\n\r\n"), vec![431]),
        (format!("GET /a HTTP/1.1\r\nHost: {HOST}\r\n{many}\r\n"), vec![431]),
        (format!("GET /{long} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"), vec![414, 431]),
    ];
    for (bytes, statuses) in cases {
        let (head, mut wire) = raw(edge.http(), &bytes);
        let status = head.map(|head| head.status);
        assert!(status.is_some_and(|s| statuses.contains(&s)), "{status:?}, not {statuses:?}");
        wire.assert_closed();
    }
    assert_eq!(origin.total(), 0);
}

/// A head that never ends is not waited for: the connection is closed after `head_timeout`.
#[test]
fn a_head_that_does_not_come_is_not_waited_for() {
    let origin = Origin::start();
    let node = "head_timeout = \"1s\"\nidle = \"1s\"";
    let plan = super::plan(&origin).cache_node("e1", "icn", "edge", node);
    let fleet = super::site(plan, STRICT).start();
    let edge = fleet.node("e1");
    let mut partial = Wire::connect(edge.http());
    partial.send(format!("GET /a HTTP/1.1\r\nHost: {HOST}\r\nX-Slow"));
    if let Some(head) = partial.try_read_head() {
        assert_eq!(head.status, 408);
        partial.read_body("GET", &head);
    }
    partial.assert_closed();
    let mut idle = Wire::connect(edge.http());
    idle.assert_closed();
}

/// RFC 9110 §7.6.1: fields of the connection stay on it, and those that name others take them along.
#[test]
fn rfc9110_7_6_1_connection_fields_are_not_passed_on() {
    let origin = Origin::start();
    let script = Script::ok("x").field("Connection", "X-Hop").field("X-Hop", "1");
    let script = script.field("Keep-Alive", "timeout=5").field("X-End", "1");
    origin.route(
        "/a",
        script
            .expect_no_field("X-Mine")
            .expect_no_field("Upgrade")
            .expect_no_field("TE")
            .expect_field("Accept", "text/x"),
    );
    let fleet = one_edge(&origin, STRICT);
    let request = Request::get(HOST, "/a").field("Connection", "X-Mine, TE");
    let request = request.field("X-Mine", "1").field("TE", "trailers").field("Accept", "text/x");
    let reply = request.send(fleet.node("e1").http());
    assert_eq!(
        (reply.field("x-hop"), reply.field("keep-alive"), reply.field("x-end")),
        (None, None, Some("1"))
    );
    origin.assert_expectations();
}

/// Pipelined requests are answered in order (RFC 9112 §9.3.2).
#[test]
fn rfc9112_9_3_2_pipelined_requests_are_answered_in_order() {
    let origin = Origin::start();
    origin.route_with("/*", |request| Script::ok(request.target.clone()));
    let fleet = one_edge(&origin, STRICT);
    let mut wire = Wire::connect(fleet.node("e1").http());
    let targets = ["/1", "/2", "/3", "/1"];
    let bytes: Vec<u8> = targets.iter().flat_map(|t| Request::get(HOST, t).bytes()).collect();
    wire.send(bytes);
    for target in targets {
        assert_eq!(wire.read_reply("GET").text(), target);
    }
}
