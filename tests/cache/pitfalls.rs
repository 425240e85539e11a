//! Pitfalls of shared caches that no other topic covers.

use harness::origin::{Origin, Script};
use harness::wire::raw;

use super::{HOST, STRICT, one_edge};

/// Content that the answer did not wait for is read and thrown away, or the connection is closed: it never becomes the
/// next request (RFC 9112 §9.3, §11.2).
#[test]
fn pitfall_39_unread_content_is_never_a_request() {
    let origin = Origin::start();
    origin.route("/hidden", Script::ok("HIDDEN"));
    origin.route("/*", Script::ok("plain").cache_control("max-age=60"));
    let fleet = one_edge(&origin, STRICT);
    let edge = fleet.node("e1");
    edge.get("/stored");
    let hidden = format!("GET /hidden HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let last = format!("GET /stored HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    let length = hidden.len();
    let chunk = format!("{length:x}\r\n{hidden}\r\n0\r\n\r\n");
    for (line, status) in [
        ("POST /.meridian/health", 405),
        ("GET /.meridian/health", 200),
        ("GET /stored", 200),
        ("TRACE /stored", 405),
        ("OPTIONS *", 204),
        ("GET /stored#x", 400),
    ] {
        for (framing, content) in [
            (format!("Content-Length: {length}"), &hidden),
            ("Transfer-Encoding: chunked".into(), &chunk),
        ] {
            let first = format!("{line} HTTP/1.1\r\nHost: {HOST}\r\n{framing}\r\n\r\n{content}");
            let (head, mut wire) = raw(edge.http(), format!("{first}{last}"));
            assert_eq!(head.unwrap().status, status, "{line}, {framing}");
            let rest = String::from_utf8(wire.read_rest()).unwrap();
            assert!(!rest.contains("HIDDEN"), "{line}, {framing}: {rest}");
        }
    }
    assert_eq!(origin.count("/hidden"), 0);
}
