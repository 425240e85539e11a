//! Pitfalls of shared caches that no other topic covers.

use harness::origin::{Origin, Script};
use harness::wire::{Request, raw};

use super::{HOST, STRICT, one_edge, plan, site};

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

/// What is stored of a part never answers for the whole, and a part that nobody asked for is its client's alone (RFC 9110
/// §15.3.7, RFC 9111 §3.3, §3.4).
#[test]
fn pitfall_22_a_part_is_never_answered_as_the_whole() {
    let origin = Origin::start();
    let body: Vec<u8> = (0..200_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let content = body.clone();
    origin.route_with("/film", move |request| {
        let range = request.field("range").and_then(|range| range.strip_prefix("bytes="));
        let script = match range.and_then(|range| range.split_once('-')) {
            None => Script::ok(content.clone()),
            Some((first, last)) => {
                let first: usize = first.parse().unwrap();
                let last = last.parse().unwrap_or(content.len() - 1).min(content.len() - 1);
                let range = format!("bytes {first}-{last}/{}", content.len());
                Script::status(206, &content[first..=last]).field("Content-Range", &range)
            }
        };
        script.cache_control("max-age=60").field("ETag", "\"v\"")
    });
    let part = Script::status(206, "01234").field("Content-Range", "bytes 0-4/10");
    origin.route("/unasked", part.cache_control("max-age=60").field("ETag", "\"v\""));
    let planned = plan(&origin).cache_node("e1", "icn", "edge", "segment = \"64KiB\"");
    let fleet = site(planned, STRICT).start();
    let edge = fleet.node("e1");
    let one = Request::get(HOST, "/film").field("Range", "bytes=70000-70009").send(edge.http());
    assert_eq!((one.status, &one.body[..]), (206, &body[70_000..70_010]));
    let head = Request::new("HEAD", HOST, "/film").send(edge.http());
    assert_eq!((head.status, head.field("content-length")), (200, Some("200000")));
    let whole = edge.get("/film");
    assert_eq!((whole.status, whole.field("content-range")), (200, None));
    assert!(whole.body == body, "{} bytes: {}", whole.body.len(), whole.cache_status());
    for asked in 1..=2 {
        let unasked = edge.get("/unasked");
        assert_eq!((unasked.status, unasked.text().as_str()), (206, "01234"));
        assert_eq!(unasked.field("content-range"), Some("bytes 0-4/10"));
        assert_eq!(origin.count("/unasked"), asked, "{}", unasked.cache_status());
    }
}
