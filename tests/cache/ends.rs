//! Origins that lie about their responses, stop in them or never begin: what the client sees, that nothing short is
//! stored, that the connection is not used again, and that the next request is answered as if nothing had been.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use harness::fleet::{Fleet, Node};
use harness::http2::{self, Content};
use harness::origin::{Gate, Origin, Script};
use harness::plan::Plan;
use harness::wire::{End, Reply, Request, Wire};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{HOST, STRICT, plan};

/// What must be seen of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// 502, with this error of RFC 9209.
    Refused(&'static str),
    /// 504.
    TimedOut,
    /// A hard end, if not 502 already.
    Cut,
    /// This content, whole.
    Whole(&'static str),
}

const OK: &str = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n";

fn good() -> Script {
    Script::ok("good").cache_control("max-age=60")
}

/// `/p/*` is passed on, everything else stored.
fn routes(plan: Plan) -> Fleet {
    plan.toml(&format!("[cache.assets]\n{STRICT}"))
        .toml(&format!(
            "[site.www]\nhosts = [\"{HOST}\"]\nroutes = [\n\
             {{ path = \"/p/*\", origin = \"static\", cache = \"off\" }},\n\
             {{ path = \"/*\", origin = \"static\", cache = \"assets\" }},\n]"
        ))
        .start()
}

fn http1(edge: &Node, path: &str) -> Option<Reply> {
    Request::get(HOST, path).try_send(edge.http())
}

fn check(what: &str, reply: Option<&Reply>, seen: Seen) {
    let proxy_status = reply.map(|reply| reply.head.joined("proxy-status")).unwrap_or_default();
    let got = reply.map(|reply| (reply.status, reply.end, reply.text()));
    match (seen, &got) {
        (Seen::Refused(error), Some((502, End::Complete, _))) => {
            assert!(proxy_status.contains(&format!("error={error}")), "{what}: {proxy_status}");
        }
        (Seen::TimedOut, Some((504, End::Complete, _))) => {
            assert!(proxy_status.contains("http_response_timeout"), "{what}: {proxy_status}");
        }
        // A head that was not sent yet when the cut was seen may still become an error of ours.
        (Seen::Cut, None | Some((502, ..) | (200, End::Cut | End::Reset, _))) => {}
        (Seen::Whole(content), Some((200, End::Complete, text))) if text == content => {}
        _ => panic!("{what}: {got:?} instead of {seen:?} ({proxy_status})"),
    }
}

/// Has an origin answer like this once, over both versions of HTTP, on a route that stores and on one that does not.
fn asked(edge: &Node, origin: &Origin, what: &str, script: &Script, seen: Seen) {
    let name = what.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    for kind in ["", "/p"] {
        let path = format!("{kind}/{name}");
        // Not once only: what comes to nothing on a used connection is asked again.
        origin.route(&path, script.clone());
        check(what, http1(edge, &path).as_ref(), seen);
        origin.route(&path, good());
        let stored = matches!(seen, Seen::Whole(_)) && kind.is_empty();
        let again = edge.get(&path);
        assert_eq!((again.status, again.end), (200, End::Complete), "{path}");
        assert_eq!(
            again.cache_status().contains("hit"),
            stored,
            "{path}: {}",
            again.cache_status()
        );
        if !stored {
            assert_eq!(again.text(), "good", "{path}");
        }
    }
    let path = format!("/h2-{name}");
    origin.route(&path, script.clone());
    let request = http::Request::get(format!("https://{HOST}{path}")).body(()).unwrap();
    let parts = http2::exchange(edge.https(), request, Content::None);
    origin.route(&path, good());
    let text = String::from_utf8_lossy(&parts.body);
    match seen {
        Seen::Refused(_) => assert_eq!(parts.status, 502, "{what}"),
        Seen::TimedOut => assert_eq!(parts.status, 504, "{what}"),
        Seen::Cut => assert!(parts.status == 502 || parts.error.is_some(), "{what}: {parts:?}"),
        Seen::Whole(content) => {
            assert!(parts.error.is_none() && text == content, "{what}: {parts:?}");
        }
    }
    assert_eq!(edge.get(&path).status, 200);
}

/// RFC 9112 §6.3, §8; pitfalls 23 and 37.
#[test]
fn rfc9112_8_every_end_of_a_response() {
    let origin = Origin::start();
    let fleet = routes(plan(&origin).edge("e1", "icn"));
    let edge = fleet.node("e1");
    let raw = |rest: &str| Script::raw(format!("{OK}{rest}"));
    let ended = |rest: &str| raw(rest).cut_after(usize::MAX);
    let sized = "Content-Length: 10\r\n\r\n01234";
    let chunked = "Transfer-Encoding: chunked\r\n\r\n";
    let chunks = |rest: &str| ended(&format!("{chunked}{rest}"));
    for (what, script, seen) in [
        ("a length that is not reached", ended(sized), Seen::Cut),
        ("a reset before the length", raw(sized).reset_after(OK.len() + sized.len()), Seen::Cut),
        ("no last chunk", chunks("5\r\nhello\r\n"), Seen::Cut),
        ("an end within a chunk", chunks("9\r\nhello"), Seen::Cut),
        ("an end within a size", chunks("5\r\nhello\r\n1"), Seen::Cut),
        ("a last chunk without the end", chunks("5\r\nhello\r\n0\r\n"), Seen::Cut),
        ("a size that is none", chunks("5\r\nhello\r\nzz\r\n\r\n0\r\n\r\n"), Seen::Cut),
        ("a size that is too large", chunks("5\r\nhello\r\nffffffffffffffffff\r\nx"), Seen::Cut),
        ("a chunk longer than its size", chunks("4\r\nhello\r\n0\r\n\r\n"), Seen::Cut),
        ("bare line feeds", chunks("5\nhello\n0\n\n"), Seen::Cut),
        ("whole chunks", chunks("5;x=y\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"), Seen::Whole("hello")),
        ("an end by closing", ended("\r\nhello"), Seen::Whole("hello")),
        ("an end by reset", raw("\r\nhello").reset_after(OK.len() + 7), Seen::Cut),
        ("the same length twice", raw("Content-Length: 2, 2\r\n\r\nhi"), Seen::Whole("hi")),
        ("a space before the colon", raw("Content-Length : 2\r\n\r\nhi"), Seen::Whole("hi")),
        (
            "an old version",
            Script::raw("HTTP/1.0 200 OK\r\nCache-Control: max-age=60\r\n\r\nold")
                .cut_after(usize::MAX),
            Seen::Whole("old"),
        ),
    ] {
        asked(edge, &origin, what, &script, seen);
    }
}

/// RFC 9112 §2.2, §5, §6.3: what cannot be understood in one way only is an error.
#[test]
fn rfc9112_6_3_heads_that_are_not_believed() {
    let origin = Origin::start();
    let fleet = routes(plan(&origin).edge("e1", "icn"));
    let edge = fleet.node("e1");
    let raw = |rest: &str| Script::raw(format!("{OK}{rest}")).cut_after(usize::MAX);
    let line = |line: &str| Script::raw(format!("{line}\r\nContent-Length: 2\r\n\r\nhi"));
    let broken = Seen::Refused("http_protocol_error");
    let big = format!("X: {}\r\nContent-Length: 2\r\n\r\nhi", "x".repeat(200 << 10));
    let many = format!("{}Content-Length: 2\r\n\r\nhi", "X: y\r\n".repeat(5000));
    for (what, script, seen) in [
        ("two lengths", raw("Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi!"), broken),
        ("two lengths in a line", raw("Content-Length: 2, 3\r\n\r\nhi!"), broken),
        ("a negative length", raw("Content-Length: -2\r\n\r\nhi"), broken),
        ("a length with a sign", raw("Content-Length: +2\r\n\r\nhi"), broken),
        ("no number", raw("Content-Length: two\r\n\r\nhi"), broken),
        ("a huge length", raw("Content-Length: 99999999999999999999999\r\n\r\nhi"), broken),
        (
            "both framings",
            raw("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"),
            broken,
        ),
        ("another coding", raw("Transfer-Encoding: gzip\r\n\r\nhi"), broken),
        ("a folded line", raw("X: a\r\n b\r\nContent-Length: 2\r\n\r\nhi"), broken),
        ("a line without colon", raw("X\r\nContent-Length: 2\r\n\r\nhi"), broken),
        ("a space in a name", raw("X Y: a\r\nContent-Length: 2\r\n\r\nhi"), broken),
        ("a NUL", raw("X: a\0b\r\nContent-Length: 2\r\n\r\nhi"), broken),
        ("a bare CR", raw("X: a\rb\r\nContent-Length: 2\r\n\r\nhi"), broken),
        ("a huge field", raw(&big), broken),
        ("five thousand fields", raw(&many), broken),
        ("no HTTP", line("220 mail.test ESMTP"), broken),
        ("another version", line("HTTP/2.0 200 OK"), broken),
        ("a status of four digits", line("HTTP/1.1 2000 OK"), broken),
        ("a status of two digits", line("HTTP/1.1 20 OK"), broken),
        ("a status beyond 599", line("HTTP/1.1 600 What"), broken),
        ("an unasked 101", line("HTTP/1.1 101 Switching\r\nUpgrade: websocket"), broken),
        ("nothing", Script::raw("").cut_after(0), Seen::Refused("connection_terminated")),
        ("half a head", raw("Content-Le"), Seen::Refused("connection_terminated")),
    ] {
        asked(edge, &origin, what, &script, seen);
    }
}

/// Silence before the head, within it and within the content; drops that keep coming are no silence.
#[test]
fn stalls_end_when_their_time_is_over() {
    let origin = Origin::start();
    let fleet = routes(plan(&origin).edge("e1", "icn"));
    let edge = fleet.node("e1");
    let never = Gate::new();
    let head = format!("{OK}Content-Length: 10\r\n");
    let body = format!("{head}\r\n01234");
    for (what, script, seen) in [
        ("silence", good().hold(&never), Seen::TimedOut),
        (
            "a head that stops",
            Script::raw(body.clone()).hold_after(head.len(), &never),
            Seen::TimedOut,
        ),
        ("a body that stops", Script::raw(body.clone()).hold_after(body.len(), &never), Seen::Cut),
    ] {
        asked(edge, &origin, what, &script, seen);
    }
    never.open();
}

/// What follows a response on its connection is not the answer to the next request.
#[test]
fn rfc9112_9_2_garbage_behind_a_response_answers_nobody() {
    let origin = Origin::start();
    let fleet = routes(plan(&origin).cache_node("e1", "icn", "edge", "workers = 1"));
    let edge = fleet.node("e1");
    let poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
    for (what, method, status, answer) in [
        ("behind", "GET", 200, format!("{head}hi{poison}")),
        ("behind-204", "POST", 204, format!("HTTP/1.1 204 None\r\n\r\n{poison}")),
        (
            "sized-204",
            "POST",
            204,
            format!("HTTP/1.1 204 None\r\nContent-Length: 52\r\n\r\n{poison}"),
        ),
        ("behind-head", "HEAD", 200, format!("{head}{poison}")),
        ("behind-304", "POST", 304, format!("HTTP/1.1 304 Same\r\n\r\n{poison}")),
    ] {
        let path = format!("/p/{what}");
        origin.route(&path, Script::raw(answer));
        for _ in 0..5 {
            let reply = Request::new(method, HOST, &path).send(edge.http());
            assert_eq!((reply.status, reply.end), (status, End::Complete), "{what}");
            origin.route("/p/next", Script::ok("next").cache_control("no-store"));
            assert_eq!(edge.get("/p/next").text(), "next", "{what}");
        }
    }
}

/// RFC 9112 §9.3, RFC 9110 §10.1.1: an answer before the request is whole reaches the client, and its connection is not
/// used for another.
#[test]
fn an_answer_before_the_request_is_whole_is_passed_on() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            std::thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read(&mut byte) {
                        Ok(1) => head.push(byte[0]),
                        _ => return,
                    }
                }
                let large = head.starts_with(b"POST");
                let answer: &[u8] = match large {
                    true => b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno",
                    false => b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
                };
                let _ = stream.write_all(answer);
                if large {
                    // It goes on to read, as one does that would take another request.
                    let _ = std::io::copy(&mut stream, &mut std::io::sink());
                }
            });
        }
    });
    let plan = Plan::new().datacenter("icn", 37.46, 126.44).edge("e1", "icn");
    let plan = plan.toml(&format!("[origin.static]\nservers = [ {{ url = \"http://{addr}\" }} ]"));
    let fleet = routes(plan);
    let edge = fleet.node("e1");
    for _ in 0..3 {
        let mut wire = Wire::connect(edge.http());
        let head = format!("POST /p/x HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1000000\r\n\r\n");
        wire.send(head);
        wire.send(vec![b'x'; 1000]);
        let reply = wire.read_reply("POST");
        assert_eq!((reply.status, reply.text().as_str()), (413, "no"));
        assert_eq!(edge.get("/p/y").text(), "ok");
    }
    // One that waits for 100 (Continue) hears the refusal instead, without having sent anything.
    let mut wire = Wire::connect(edge.http());
    let expects = Request::new("POST", HOST, "/p/x").field("Expect", "100-continue");
    wire.send(expects.field("Content-Length", "1000000").bytes());
    assert_eq!(wire.read_one_head().map(|head| head.status), Some(413));
}

/// A client that stops in the middle of its content gets the blame, and the origin none: others are served.
#[test]
fn a_client_that_stops_in_its_content_is_not_the_origins_fault() {
    let origin = Origin::start();
    origin.route("/*", Script::ok("fine").cache_control("no-store"));
    let fleet = routes(plan(&origin).edge("e1", "icn"));
    let edge = fleet.node("e1");
    let mut stalled: Vec<Wire> = (0..4).map(|_| Wire::connect(edge.http())).collect();
    for wire in &mut stalled {
        wire.send(format!("POST /p/x HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 10\r\n\r\n12345"));
    }
    for wire in &mut stalled {
        let reply = wire.read_reply("POST");
        let proxy_status = reply.head.joined("proxy-status");
        assert_eq!(reply.status, 400, "{proxy_status}");
        assert!(proxy_status.contains("http_request_error"), "{proxy_status}");
        wire.assert_closed();
    }
    let up = edge.metrics().sum("edge_cache_origin_servers_up", &[("origin", "static")]);
    assert_eq!((up, edge.get("/p/y").text().as_str()), (1.0, "fine"));
    assert_eq!(origin.count("/p/x"), 0, "no whole request came");
}

/// An origin over TLS that answers without a length, and then closes with close_notify or without.
fn tls_origin(notify: bool) -> SocketAddr {
    let key = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let private = PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], private)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut tls = StreamOwned::new(connection, stream);
            let mut head = [0; 4096];
            if !matches!(tls.read(&mut head), Ok(1..)) {
                continue;
            }
            let _ = tls.write_all(format!("{OK}Connection: close\r\n\r\nhello").as_bytes());
            if notify {
                tls.conn.send_close_notify();
            }
            let _ = tls.flush();
            close(&tls.sock);
        }
    });
    addr
}

fn close(stream: &TcpStream) {
    let _ = stream.shutdown(std::net::Shutdown::Write);
}

/// RFC 9112 §9.8: without close_notify nobody knows whether that was all.
#[test]
fn rfc9112_9_8_a_tls_connection_that_is_closed_without_notice_is_a_cut() {
    for notify in [true, false] {
        let addr = tls_origin(notify);
        let fleet =
            routes(Plan::new().datacenter("icn", 37.46, 126.44).edge("e1", "icn").toml(&format!(
                "[origin.static]\nservers = [ {{ url = \"https://{addr}\" }} ]\nverify = false"
            )));
        let edge = fleet.node("e1");
        let seen = if notify { Seen::Whole("hello") } else { Seen::Cut };
        for path in ["/a", "/p/a", "/a"] {
            check(path, http1(edge, path).as_ref(), seen);
        }
        let stored = edge.metrics().sum("edge_cache_store_objects", &[]);
        assert_eq!(stored, f64::from(u8::from(notify)), "close_notify: {notify}");
    }
}
