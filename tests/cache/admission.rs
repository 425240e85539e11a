//! What a request may look like (RFC 9112, RFC 9110 §7, RFC 9113 §8): target forms, chunks, trailers, OPTIONS and TRACE,
//! old clients, content that nobody reads.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use harness::http2::{self, Content, Outcome};
use harness::origin::{Origin, Script};
use harness::plan::Plan;
use harness::wire::{End, Request, Wire, raw};

use super::{HOST, STRICT, one_edge, plan, site};

/// RFC 9112 §3.2.2: the target takes the place of Host, and an empty path is `/`.
#[test]
fn rfc9112_3_2_2_absolute_targets() {
    let origin = Origin::start();
    origin.route_with("/*", |request| {
        Script::ok(format!("{} {}", request.field("host").unwrap_or("?"), request.target))
            .cache_control("max-age=60")
    });
    let fleet = one_edge(&origin, STRICT);
    let edge = fleet.node("e1");
    for (target, host, expected) in [
        ("http://www.cdn.test/a?b", HOST, "www.cdn.test /a?b"),
        ("http://www.cdn.test", HOST, "www.cdn.test /"),
        ("http://www.cdn.test?q", HOST, "www.cdn.test /?q"),
        ("HTTP://WWW.cdn.test:80/b", "other.test", "www.cdn.test /b"),
    ] {
        let reply = Request::get(host, target).send(edge.http());
        assert_eq!((reply.status, reply.text().as_str()), (200, expected), "{target}");
    }
    // One key, however it was asked for.
    assert!(edge.get("/a?b").cache_status().contains("hit"));
    assert_eq!(origin.count("/a"), 1);
    for (target, status) in [
        ("https://www.cdn.test/a", 421),
        ("http://other.test/a", 421),
        ("http://user@www.cdn.test/a", 400),
        ("www.cdn.test:80", 400),
        ("*", 400),
        ("a", 400),
    ] {
        let (head, _) = raw(edge.http(), Request::get(HOST, target).bytes());
        assert_eq!(head.map(|head| head.status), Some(status), "{target}");
    }
}

/// RFC 9112 §7.1: a content whose framing is not valid ends the connection; nothing behind it is a request.
#[test]
fn rfc9112_7_1_bad_chunks_end_the_connection() {
    let origin = Origin::start();
    origin.route("/*", Script::ok("x").cache_control("no-store"));
    let fleet = one_edge(&origin, STRICT);
    let edge = fleet.node("e1");
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(4000));
    let many = format!("0\r\n{}\r\n", "a: b\r\n".repeat(50));
    for chunks in [
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "0\r\n\n",
        "0\r\nA : b\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        &long,
        &many,
    ] {
        let behind = String::from_utf8(Request::get(HOST, "/smuggled").bytes()).unwrap();
        let bytes = format!(
            "POST /a HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}{behind}"
        );
        let (head, mut wire) = raw(edge.http(), bytes);
        assert_eq!(head.map(|head| head.status), Some(400), "{chunks:?}");
        wire.assert_closed();
    }
    assert_eq!(origin.count("/smuggled"), 0);
    // An extension is allowed, and does not go on; nor do the client's chunks as they were.
    let bytes = format!(
        "POST /good HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
    );
    assert_eq!(raw(edge.http(), bytes).0.map(|head| head.status), Some(200));
    assert_eq!(origin.requests("/good")[0].body, b"hello");
}

/// CVE-2025-4366: content that nobody reads is no request.
#[test]
fn pitfall_39_content_that_nobody_reads_is_not_the_next_request() {
    let origin = Origin::start();
    origin.route("/*", Script::ok("x").cache_control("max-age=60"));
    let fleet = one_edge(&origin, STRICT);
    let edge = fleet.node("e1");
    let smuggled = String::from_utf8(Request::get(HOST, "/smuggled").bytes()).unwrap();
    for (method, target) in
        [("OPTIONS", "*"), ("TRACE", "/a"), ("GET", "/.meridian/health"), ("HEAD", "/a")]
    {
        let mut wire = Wire::connect(edge.http());
        let request = Request::new(method, HOST, target).body(smuggled.clone());
        wire.send(request.bytes());
        wire.send_if_open(Request::get(HOST, "/behind").bytes());
        let first = wire.read_reply(method);
        assert!([200, 204, 405].contains(&first.status), "{method}: {}", first.status);
        // Drained, or closed.
        if let Some(second) = wire.try_read_head() {
            assert_eq!(second.status, 200);
        }
        assert_eq!(origin.count("/smuggled"), 0, "{method} {target}");
    }
}

/// RFC 9110 §9.3.7, §9.3.8, §7.6.2.
#[test]
fn rfc9110_7_6_2_options_and_trace() {
    let origin = Origin::start();
    origin.route("/*", Script::ok("from the origin"));
    let fleet = one_edge(&origin, STRICT);
    let edge = fleet.node("e1");
    let options = |target, hops: Option<&str>| {
        let request = Request::new("OPTIONS", HOST, target);
        let request = match hops {
            Some(hops) => request.field("Max-Forwards", hops),
            None => request,
        };
        request.send(edge.http())
    };
    for here in [options("*", None), options("/a", Some("0"))] {
        assert_eq!((here.status, here.field("allow").is_some()), (204, true));
    }
    assert_eq!(origin.total(), 0);
    assert_eq!(options("/a", Some("3")).text(), "from the origin");
    assert_eq!(options("/a", None).text(), "from the origin");
    let asked = origin.requests("/a");
    assert_eq!(asked[0].field("max-forwards"), Some("2"));
    assert_eq!(asked[1].field("max-forwards"), None);
    // For other methods the field means nothing, and stays as it is.
    let post = Request::new("POST", HOST, "/b").field("Max-Forwards", "0").body("x");
    assert_eq!(post.send(edge.http()).status, 200);
    assert_eq!(origin.requests("/b")[0].field("max-forwards"), Some("0"));
    for hops in ["0", "3"] {
        let trace = Request::new("TRACE", HOST, "/t").field("Max-Forwards", hops);
        let reply = trace.field("Cookie", "secret=1").send(edge.http());
        assert_eq!((reply.status, reply.field("allow").is_some()), (405, true));
        assert!(!reply.text().contains("secret"), "{}", reply.text());
    }
    assert_eq!(origin.count("/t"), 0);
}

/// RFC 9112 §6.1, §9.3: an old client gets no chunks, and sees a cut.
#[test]
fn rfc9112_9_3_clients_of_http_1_0() {
    let origin = Origin::start();
    origin.route("/whole", Script::ok("0123456789").chunked().cache_control("no-store"));
    origin.route("/cut", Script::ok("0123456789").chunked().cut_after(4).cache_control("no-store"));
    origin.route("/stored", Script::ok("0123456789").cache_control("max-age=60"));
    let fleet = one_edge(&origin, STRICT);
    let edge = fleet.node("e1");
    let get = |path: &str| {
        let mut wire = Wire::connect(edge.http());
        wire.send(format!("GET {path} HTTP/1.0\r\nHost: {HOST}\r\n\r\n"));
        let head = wire.try_read_head();
        let body = head.as_ref().map(|head| wire.read_body("GET", head));
        (head, body, wire)
    };
    let (head, body, _) = get("/whole");
    let (head, body) = (head.unwrap(), body.unwrap());
    assert_eq!((head.field("transfer-encoding"), head.status), (None, 200));
    assert_eq!((body.bytes.as_slice(), body.end), (&b"0123456789"[..], End::Complete));
    // Without a length only a reset tells that this is not all.
    let (head, body, _) = get("/cut");
    assert_ne!(
        body.map(|body| body.end).unwrap_or(End::Reset),
        End::Complete,
        "{head:?}: a cut must not look whole"
    );
    let (head, body, mut wire) = get("/stored");
    assert_eq!(head.unwrap().field("content-length"), Some("10"));
    assert_eq!(body.unwrap().end, End::Complete);
    wire.assert_closed();
    let (head, _, _) = {
        let mut wire = Wire::connect(edge.http());
        wire.send("GET /stored HTTP/1.0\r\n\r\n");
        (wire.try_read_head(), (), ())
    };
    assert_eq!(head.unwrap().status, 400, "without Host nobody is meant");
}

/// An origin that reads one request, trailers and all, and answers with trailers.
struct Trailing {
    addr: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Trailing {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&seen);
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let all = Arc::clone(&all);
                std::thread::spawn(move || Self::serve(&stream, &all));
            }
        });
        Self { addr, seen }
    }

    fn serve(stream: &TcpStream, seen: &Mutex<Vec<String>>) -> Option<()> {
        let mut reader = BufReader::new(stream);
        let mut writer = stream;
        loop {
            let mut text = String::new();
            while !text.ends_with("\r\n\r\n") {
                (reader.read_line(&mut text).ok()? > 0).then_some(())?;
            }
            while text.to_ascii_lowercase().contains("transfer-encoding: chunked") {
                let mut size = String::new();
                reader.read_line(&mut size).ok()?;
                text.push_str(&size);
                if size.starts_with("0\r\n") {
                    while reader.read_line(&mut text).ok()? > 2 {}
                    break;
                }
                let mut chunk = vec![0; usize::from_str_radix(size.trim(), 16).ok()? + 2];
                reader.read_exact(&mut chunk).ok()?;
                text.push_str(&String::from_utf8_lossy(&chunk));
            }
            let store = if text.contains("/stored") { "max-age=60" } else { "no-store" };
            seen.lock().unwrap().push(text);
            let answer = format!(
                "HTTP/1.1 200 OK\r\nCache-Control: {store}\r\nTrailer: X-Sum, Set-Cookie\r\n\
                 Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 1\r\nSet-Cookie: a=b\r\n\
                 Content-Length: 7\r\n\r\n"
            );
            writer.write_all(answer.as_bytes()).ok()?;
        }
    }
}

fn trailing(origin: &Trailing) -> harness::fleet::Fleet {
    let plan = Plan::new()
        .datacenter("icn", 37.46, 126.44)
        .edge("e1", "icn")
        .toml(&format!("[origin.static]\nservers = [ {{ url = \"http://{}\" }} ]", origin.addr));
    site(plan, STRICT).start()
}

/// RFC 9110 §6.5, RFC 9112 §7.1.2: trailers go on to those who take them, stripped of what must not be one, and are never
/// taken for fields.
#[test]
fn rfc9110_6_5_trailers() {
    let origin = Trailing::start();
    let fleet = trailing(&origin);
    let edge = fleet.node("e1");
    let post = "POST /a HTTP/1.1\r\nHost: www.cdn.test\r\nTransfer-Encoding: chunked\r\n\
                Trailer: X-Check, Authorization\r\nTE: trailers\r\nConnection: TE\r\n\r\n\
                2\r\nhi\r\n0\r\nX-Check: 5\r\nAuthorization: x\r\nHost: b\r\n\r\n";
    let mut wire = Wire::connect(edge.http());
    wire.send(post);
    let head = wire.read_head();
    let chunked = String::from_utf8(wire.read_exactly("2\r\nhi\r\n0\r\nx-sum: 1\r\n\r\n".len()));
    assert_eq!(chunked.unwrap().to_ascii_lowercase(), "2\r\nhi\r\n0\r\nx-sum: 1\r\n\r\n");
    assert_eq!((head.field("x-sum"), head.field("set-cookie")), (None, None));
    let sent = origin.seen.lock().unwrap()[0].to_ascii_lowercase();
    assert!(sent.ends_with("0\r\nx-check: 5\r\n\r\n"), "{sent}");
    assert!(sent.contains("te: trailers\r\n") && sent.contains("connection: te\r\n"), "{sent}");

    // Whoever does not take them gets none; the connection is in step.
    let mut wire = Wire::connect(edge.http());
    for target in ["/b", "/c"] {
        wire.send(Request::get(HOST, target).bytes());
        let head = wire.read_head();
        assert_eq!(head.status, 200);
        assert_eq!(wire.read_exactly(12), b"2\r\nhi\r\n0\r\n\r\n");
    }
    // Stored responses have none, and no field that came as one.
    for _ in 0..2 {
        let reply = Request::get(HOST, "/stored").field("TE", "trailers").send(edge.http());
        assert_eq!((reply.text().as_str(), reply.end), ("hi", End::Complete));
        assert_eq!((reply.field("x-sum"), reply.field("set-cookie")), (None, None));
    }
    // Over HTTP/2 they come as they are.
    let request = http::Request::get(format!("https://{HOST}/d")).header("te", "trailers");
    let reply = http2::exchange(edge.https(), request.body(()).unwrap(), Content::None);
    let trailers = reply.trailers.unwrap();
    assert_eq!((trailers.len(), trailers["x-sum"].to_str().unwrap()), (1, "1"), "{trailers:?}");
}

/// RFC 9113 §8.1.1, §8.2, §8.3: what is malformed gets no answer but an error on its stream, and reaches no origin.
#[test]
fn rfc9113_8_malformed_requests_are_stream_errors() {
    let origin = Origin::start();
    origin.route("/*", Script::ok("x").cache_control("no-store"));
    let fleet = one_edge(&origin, STRICT);
    let https = fleet.node("e1").https();
    let good = [(":method", "GET"), (":scheme", "https"), (":authority", HOST), (":path", "/a")];
    let with = |more: &[(&'static str, &'static str)]| [&good[..], more].concat();
    assert_eq!(http2::raw_head(https, HOST, &good), Outcome::Response);
    assert_eq!(http2::raw_head(https, HOST, &with(&[("host", HOST)])), Outcome::Response);
    assert_eq!(http2::raw_head(https, HOST, &with(&[("te", "trailers")])), Outcome::Response);
    assert_eq!(origin.count("/a"), 3);
    for (what, fields) in [
        ("an upper-case name", with(&[("X-Upper", "1")])),
        ("connection", with(&[("connection", "close")])),
        ("keep-alive", with(&[("keep-alive", "timeout=5")])),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")])),
        ("upgrade", with(&[("upgrade", "websocket")])),
        ("te other than trailers", with(&[("te", "gzip")])),
        ("a pseudo-field after a field", [&[("a", "b")], &good[..]].concat()),
        ("no path", good[..3].to_vec()),
        ("no method", good[1..].to_vec()),
        ("two paths", with(&[(":path", "/b")])),
        ("an unknown pseudo-field", [&[(":what", "x")], &good[..]].concat()),
        ("an empty path", [&good[..3], &[(":path", "")]].concat()),
        ("a response's pseudo-field", [&[(":status", "200")], &good[..]].concat()),
        ("a control character", with(&[("a", "b\0c")])),
        ("a line end", with(&[("a", "b\r\nc: d")])),
    ] {
        match http2::raw_head(https, HOST, &fields) {
            Outcome::Reset(_) | Outcome::GoAway(_) | Outcome::Refused => {}
            Outcome::Response => panic!("{what} was answered"),
        }
    }
    // These are answered, with 400 or 421.
    for fields in [
        with(&[("host", "other.test")]),
        [&good[..2], &[(":path", "/a")]].concat(),
        vec![(":method", "CONNECT"), (":authority", "www.cdn.test:443")],
    ] {
        http2::raw_head(https, HOST, &fields);
    }
    assert_eq!(origin.count("/a"), 3, "nothing of this reached the origin");
}

/// CVE-2023-44487 and its kind: a client that begins requests only to reset them loses its connection, not the node.
#[test]
fn a_flood_of_resets_ends_the_connection_and_no_other() {
    let origin = Origin::start();
    origin.route("/*", Script::ok("x").cache_control("max-age=60"));
    let fleet = one_edge(&origin, STRICT);
    let edge = fleet.node("e1");
    http2::flood_resets(edge.https(), HOST, 5000);
    assert_eq!(edge.get("/a").status, 200);
}

/// CVE-2024-27316 and its kind: a head that goes on and on in CONTINUATION frames is not collected.
#[test]
fn pitfall_51_a_head_without_an_end_ends_the_connection_and_no_other() {
    let origin = Origin::start();
    origin.route("/*", Script::ok("x").cache_control("max-age=60"));
    let fleet = one_edge(&origin, STRICT);
    let edge = fleet.node("e1");
    http2::flood_continuations(edge.https(), HOST, 2000);
    assert_eq!(origin.count("/c"), 0);
    assert_eq!(edge.get("/a").status, 200);
}

/// RFC 7239, X-Forwarded-*: written anew; what a client says there is not believed, and of a fill for all nothing is told
/// of the client.
#[test]
fn rfc7239_what_the_origin_is_told_of_the_client() {
    let origin = Origin::start();
    origin.route("/*", Script::ok("x").cache_control("max-age=60"));
    let fleet = site(plan(&origin).edge("e1", "icn"), STRICT).start();
    let edge = fleet.node("e1");
    let request = |method, target| {
        Request::new(method, HOST, target)
            .field("Forwarded", "for=192.0.2.1;host=evil.test")
            .field("X-Forwarded-For", "192.0.2.1")
            .field("X-Forwarded-Host", "evil.test")
            .field("X-Forwarded-Proto", "https")
            .field("X-Original-URL", "/admin")
    };
    assert_eq!(request("POST", "/passed").body("x").send(edge.http()).status, 200);
    assert_eq!(request("GET", "/filled").send(edge.http()).status, 200);
    let passed = &origin.requests("/passed")[0];
    assert_eq!(passed.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(passed.field("x-forwarded-proto"), Some("http"));
    assert_eq!(passed.field("x-forwarded-host"), Some(HOST));
    let forwarded = passed.field("forwarded").unwrap();
    assert!(forwarded.starts_with("for=127.0.0.1;") && !forwarded.contains("evil"), "{forwarded}");
    let filled = &origin.requests("/filled")[0];
    assert_eq!((filled.field("x-forwarded-for"), filled.field("forwarded")), (None, None));
    assert_eq!(filled.field("x-forwarded-host"), Some(HOST));
    for request in [passed, filled] {
        assert_eq!(request.field("x-original-url"), None);
        assert!(request.fields.iter().all(|(_, value)| !value.contains("evil")), "{request:?}");
    }
}
