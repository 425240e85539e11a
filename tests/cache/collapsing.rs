//! Concurrent requests for one object: one fetch, many readers, none of which can hold up or spoil the others.

use std::net::TcpListener;

use harness::expect;
use harness::origin::{Gate, Origin, Script};
use harness::wait;
use harness::wire::{End, Request, Wire};

use super::{HOST, STRICT, one_edge, plan, site};

#[test]
fn a_thousand_concurrent_misses_cost_the_origin_one_request() {
    const CROWD: usize = 1000;
    let origin = Origin::start();
    let gate = Gate::new();
    let body = "x".repeat(100_000);
    let script = Script::ok(body.clone()).cache_control("max-age=60");
    origin.route("/wanted", script.hold(&gate).hold_after(50_000, &gate));
    // A build with debug assertions takes some 60 KiB for each of them.
    let plan = plan(&origin).cache_node("e1", "icn", "edge", "memory = \"256MiB\"");
    let fleet = site(plan, STRICT).start();
    let edge = fleet.node("e1");
    let mut watch = edge.watch();
    let mut crowd: Vec<Wire> = (0..CROWD).map(|_| Wire::connect(edge.http())).collect();
    for wire in &mut crowd {
        wire.send(Request::get(HOST, "/wanted").bytes());
    }
    gate.arrived(1);
    gate.open();
    for wire in &mut crowd {
        let reply = wire.read_reply("GET");
        assert_eq!((reply.status, reply.end), (200, End::Complete));
        assert!(reply.body == body.as_bytes(), "every reader has the whole body");
    }
    assert_eq!(origin.count("/wanted"), 1);
    expect!(watch,
        edge_cache_origin_requests_total { origin = "static" } += 1,
        edge_cache_requests_total += CROWD as u32,
    );
}

#[test]
fn those_who_wait_are_counted_as_collapsed() {
    let origin = Origin::start();
    let gate = Gate::new();
    origin.route("/a", Script::ok("firstsecond").cache_control("max-age=60").hold_after(5, &gate));
    let fleet = one_edge(&origin, STRICT);
    let edge = fleet.node("e1");
    let mut watch = edge.watch();
    let mut heads = Vec::new();
    let mut clients = [Wire::connect(edge.http()), Wire::connect(edge.http())];
    for wire in &mut clients {
        wire.send(Request::get(HOST, "/a").bytes());
        heads.push(wire.read_head());
        assert_eq!(wire.read_exactly(5), b"first");
    }
    gate.open();
    for wire in &mut clients {
        assert_eq!(wire.read_exactly(6), b"second");
    }
    let status = |head: &harness::wire::Head| head.joined("cache-status");
    assert!(!status(&heads[0]).contains("collapsed"), "{}", status(&heads[0]));
    assert!(status(&heads[1]).contains("collapsed"), "{}", status(&heads[1]));
    expect!(
        watch,
        edge_cache_collapsed_total += 1,
        edge_cache_requests_total += 2,
        edge_cache_origin_requests_total += 1,
    );
    assert_eq!(origin.count("/a"), 1);
}

#[test]
fn a_body_is_passed_on_while_it_arrives() {
    let origin = Origin::start();
    let gate = Gate::new();
    origin.route("/a", Script::ok("firstsecond").cache_control("max-age=60").hold_after(5, &gate));
    let fleet = one_edge(&origin, STRICT);
    let edge = fleet.node("e1");
    let mut first = Wire::connect(edge.http());
    first.send(Request::get(HOST, "/a").bytes());
    let head = first.read_head();
    assert_eq!(first.read_exactly(5), b"first", "before the origin has sent the rest");
    // One who comes now gets the beginning at once, too.
    let mut second = Wire::connect(edge.http());
    second.send(Request::get(HOST, "/a").bytes());
    second.read_head();
    assert_eq!(second.read_exactly(5), b"first");
    gate.open();
    assert_eq!(second.read_exactly(6), b"second");
    assert_eq!(first.read_exactly(6), b"second");
    assert_eq!(head.status, 200);
    assert_eq!(origin.count("/a"), 1);
}

#[test]
fn the_first_client_may_leave() {
    let origin = Origin::start();
    let gate = Gate::new();
    origin.route("/a", Script::ok("firstsecond").cache_control("max-age=60").hold_after(5, &gate));
    let fleet = one_edge(&origin, STRICT);
    let edge = fleet.node("e1");
    let mut first = Wire::connect(edge.http());
    first.send(Request::get(HOST, "/a").bytes());
    first.read_head();
    let mut second = Wire::connect(edge.http());
    second.send(Request::get(HOST, "/a").bytes());
    second.read_head();
    drop(first);
    gate.open();
    assert_eq!(second.read_exactly(11), b"firstsecond");
    assert!(edge.get("/a").cache_status().contains("hit"));
    assert_eq!(origin.count("/a"), 1);
}

#[test]
fn a_slow_reader_does_not_hold_up_the_others() {
    let origin = Origin::start();
    let body = vec![b'x'; 6 << 20];
    origin.route("/a", Script::ok(body.clone()).cache_control("max-age=60"));
    let fleet = one_edge(&origin, STRICT);
    let edge = fleet.node("e1");
    let mut slow = Wire::connect(edge.http());
    slow.send(Request::get(HOST, "/a").bytes());
    let head = slow.read_head();
    // The slow one has read nothing of its body; another has all of it.
    assert_eq!(edge.get("/a").body.len(), body.len());
    let rest = slow.read_body("GET", &head);
    assert!(rest.end == End::Complete && rest.bytes == body);
    assert_eq!(origin.count("/a"), 1);
}

/// Those who wait for a response that turns out not to be cacheable are let go at once, each to fetch its own, and the
/// next ones do not wait at all.
#[test]
fn an_uncacheable_response_releases_all_who_wait() {
    let origin = Origin::start();
    let (head, body) = (Gate::new(), Gate::new());
    origin.once(
        "/a",
        Script::ok("first.....").cache_control("no-store").hold(&head).hold_after(5, &body),
    );
    origin.route("/a", Script::ok("own").cache_control("no-store"));
    let fleet = one_edge(&origin, STRICT);
    let edge = fleet.node("e1");
    let mut first = Wire::connect(edge.http());
    first.send(Request::get(HOST, "/a").bytes());
    head.arrived(1);
    let mut others: Vec<Wire> = (0..10).map(|_| Wire::connect(edge.http())).collect();
    for wire in &mut others {
        wire.send(Request::get(HOST, "/a").bytes());
    }
    head.open();
    body.arrived(1);
    for wire in &mut others {
        assert_eq!(wire.read_reply("GET").text(), "own", "while the first is still being sent");
    }
    body.open();
    assert_eq!(first.read_reply("GET").text(), "first.....");
    assert_eq!(origin.count("/a"), 11);
}

/// Request bodies are streamed, too: the origin has the first half before the client has sent the second.
#[test]
fn an_upload_is_passed_on_while_it_arrives() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let spare = Origin::start();
    let fleet = plan(&spare)
        .edge("e1", "icn")
        .toml(&format!("[origin.upload]\nservers = [ {{ url = \"{url}\" }} ]"))
        .toml(&format!(
            "[site.www]\nhosts = [\"{HOST}\"]\nroutes = [ {{ path = \"/*\", origin = \"upload\", cache = \"off\" }} ]"
        ))
        .start();
    let edge = fleet.node("e1");
    let mut client = Wire::connect(edge.http());
    client.send(format!("POST /up HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 10\r\n\r\nfirst"));
    let (mut server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(wait::PATIENCE)).unwrap();
    read_until(&mut server, "first");
    client.send("later");
    read_until(&mut server, "later");
    use std::io::Write as _;
    server.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok").unwrap();
    let reply = client.read_reply("POST");
    assert_eq!((reply.status, reply.text().as_str()), (201, "ok"));
}

fn read_until(stream: &mut impl std::io::Read, end: &str) {
    let mut seen = Vec::new();
    let mut buffer = [0; 1024];
    while !String::from_utf8_lossy(&seen).contains(end) {
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "the upload ended before {end:?}");
        seen.extend_from_slice(&buffer[..read]);
    }
}
