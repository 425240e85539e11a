//! HTTP/2 to origins (RFC 9113): one connection for many requests, the server's limit on streams, and every way in which
//! a server takes a stream or the whole connection away.

use harness::fleet::Fleet;
use harness::http2::{self, Content};
use harness::plan::Plan;
use harness::streams::{Act, Asked, StreamOrigin};
use harness::wait;
use harness::wire::{End, Request, Wire};

use super::HOST;

/// An edge that passes everything on to this origin over HTTP/2.
fn edge(origin: &StreamOrigin, cache: &str, more: &str) -> Fleet {
    Plan::new()
        .datacenter("icn", 37.46, 126.44)
        .edge("e1", "icn")
        .toml(&format!(
            "[origin.static]\nservers = [ {{ url = \"{}\" }} ]\nprotocol = \"http2\"\n\
             timeouts = {{ connect = \"2s\", first_byte = \"5s\", between_bytes = \"5s\" }}\n{more}",
            origin.url()
        ))
        .toml(&format!(
            "[site.www]\nhosts = [\"{HOST}\"]\n\
             routes = [ {{ path = \"/*\", origin = \"static\", cache = \"{cache}\" }} ]"
        ))
        .start()
}

/// The same with a parent between them.
fn tiers(origin: &StreamOrigin) -> Fleet {
    Plan::new()
        .datacenter("icn", 37.46, 126.44)
        .parent("p1", "icn")
        .edge("e1", "icn")
        .toml(&format!(
            "[origin.static]\nservers = [ {{ url = \"{}\" }} ]\nprotocol = \"http2\"",
            origin.url()
        ))
        .toml("[tier.shield]\nparents = [\"p1\"]")
        .toml(&format!(
            "[site.www]\nhosts = [\"{HOST}\"]\ntier = \"shield\"\n\
             routes = [ {{ path = \"/*\", origin = \"static\", cache = \"default\" }} ]"
        ))
        .start()
}

/// Sends as many requests at once; their answers' status and text.
fn at_once(fleet: &Fleet, count: usize) -> Vec<(u16, String)> {
    let addr = fleet.node("e1").http();
    let ask = |n: usize| {
        std::thread::spawn(move || {
            let reply = Request::get(HOST, &format!("/{n}")).send(addr);
            (reply.status, reply.text())
        })
    };
    let asking: Vec<_> = (0..count).map(ask).collect();
    asking.into_iter().map(|asking| asking.join().unwrap()).collect()
}

#[test]
fn rfc9113_3_3_prior_knowledge_and_one_connection_for_many() {
    let origin = StreamOrigin::start(100, |_| Act::Hold("hello"));
    let fleet = edge(&origin, "off", "");
    let asking = std::thread::scope(|scope| {
        let asking = scope.spawn(|| at_once(&fleet, 40));
        wait::until("all of them to run", || (origin.running().0 == 40).then_some(()));
        origin.release();
        asking.join().unwrap()
    });
    assert!(asking.iter().all(|(status, text)| (*status, text.as_str()) == (200, "hello")));
    assert_eq!(origin.connections(), 1);
    let first = &origin.requests()[0];
    assert_eq!((first.scheme.as_str(), first.authority.as_str()), ("http", HOST));
    // Sequential requests stay on it, and a POST with content goes its way, too.
    let post = Request::new("POST", HOST, "/form").body("a=b").send(fleet.node("e1").http());
    assert_eq!(post.status, 200);
    assert_eq!(origin.connections(), 1);
}

/// RFC 9113 §5.1.2: never more streams than the server allows; with one connection the others wait.
#[test]
fn rfc9113_5_1_2_the_servers_limit_on_streams() {
    for (connections, most) in [(1, 3), (2, 6)] {
        let origin = StreamOrigin::start(3, |_| Act::Hold("x"));
        let fleet = edge(&origin, "off", &format!("max_connections = {connections}"));
        // Its settings are known after the first exchange.
        origin.release();
        assert_eq!(at_once(&fleet, 1)[0].0, 200);
        let replies = at_once(&fleet, 12);
        assert!(replies.iter().all(|(status, _)| *status == 200), "{replies:?}");
        assert!(origin.running().1 <= most, "{:?}", origin.running());
        assert!(origin.connections() <= connections, "{}", origin.connections());
    }
}

/// RFC 9113 §6.8: after GOAWAY new requests go on a new connection, and none is lost.
#[test]
fn rfc9113_6_8_goaway_moves_requests_to_a_new_connection() {
    let leaves = |asked: &Asked| match asked.path.as_str() {
        "/last" => Act::GoAway("bye"),
        _ => Act::Answer("hello"),
    };
    let origin = StreamOrigin::start(100, leaves);
    let fleet = edge(&origin, "off", "");
    let edge = fleet.node("e1");
    for round in 0..5 {
        assert_eq!(edge.get("/a").text(), "hello");
        assert_eq!(edge.get("/last").text(), "bye");
        for _ in 0..5 {
            assert_eq!(edge.get("/b").text(), "hello", "{round}");
            let post = Request::new("POST", HOST, "/c").send(edge.http());
            assert_eq!(post.status, 200, "{round}");
        }
    }
    assert!(origin.connections() >= 5, "{}", origin.connections());
}

/// RFC 9113 §6.8: requests that wait for a stream have not been sent; when the server goes away they go elsewhere, whatever
/// their method.
#[test]
fn rfc9113_6_8_those_who_wait_for_a_stream_lose_nothing_by_goaway() {
    let leaves = |asked: &Asked| match asked.connection {
        1 if asked.path != "/first" => Act::GoAway("done"),
        _ => Act::Answer("done"),
    };
    let origin = StreamOrigin::start(2, leaves);
    let fleet = edge(&origin, "off", "max_connections = 1");
    let addr = fleet.node("e1").http();
    // Its settings are known after the first exchange.
    assert_eq!(Request::get(HOST, "/first").send(addr).text(), "done");
    let post = |n: usize| {
        std::thread::spawn(move || Request::new("POST", HOST, &format!("/{n}")).send(addr).status)
    };
    let posts: Vec<_> = (0..3).map(post).collect();
    let statuses: Vec<u16> = posts.into_iter().map(|post| post.join().unwrap()).collect();
    assert_eq!(statuses, [200; 3]);
    let posts = || origin.requests().iter().filter(|asked| asked.method == "POST").count();
    assert_eq!(posts(), 3, "each came once: {:?}", origin.requests());
    wait::until("another connection", || {
        assert_eq!(Request::get(HOST, "/then").send(addr).text(), "done");
        (origin.connections() == 2).then_some(())
    });
}

/// RFC 9113 §8.7: with no other connection to be had, what was refused is sent again on the same.
#[test]
fn rfc9113_8_7_the_only_connection_is_used_again() {
    let seen = std::sync::atomic::AtomicUsize::new(0);
    let refuses = move |asked: &Asked| match asked.path.as_str() {
        "/refused" if seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0 => Act::Refuse,
        _ => Act::Answer("done"),
    };
    let origin = StreamOrigin::start(100, refuses);
    let fleet = edge(&origin, "off", "max_connections = 1");
    let edge = fleet.node("e1");
    assert_eq!(edge.get("/a").text(), "done");
    let post = Request::new("POST", HOST, "/refused").send(edge.http());
    assert_eq!((post.status, post.text().as_str()), (200, "done"));
}

/// RFC 9110 §9.3.2: the answer to HEAD says how long its content would be, and has none.
#[test]
fn rfc9110_9_3_2_head_over_http2() {
    let origin = StreamOrigin::start(100, |_| Act::Answer("hello"));
    let fleet = edge(&origin, "off", "");
    for _ in 0..2 {
        let reply = Request::new("HEAD", HOST, "/a").send(fleet.node("e1").http());
        assert_eq!((reply.status, reply.field("content-length")), (200, Some("5")));
    }
    assert_eq!((origin.connections(), origin.requests().len()), (1, 2));
}

/// RFC 9113 §8.7: a refused stream was not acted on, so that even a POST is sent again; a broken one may have been.
#[test]
fn rfc9113_8_7_what_was_refused_is_sent_again() {
    let refuses = |asked: &Asked| match asked.path.as_str() {
        "/refused" if asked.connection == 1 => Act::Refuse,
        "/dies" if asked.connection == 1 => Act::Die,
        "/breaks" => Act::Break,
        _ => Act::Answer("done"),
    };
    let origin = StreamOrigin::start(100, refuses);
    let fleet = edge(&origin, "off", "");
    let edge = fleet.node("e1");
    assert_eq!(edge.get("/a").text(), "done");
    let post = Request::new("POST", HOST, "/refused").send(edge.http());
    assert_eq!((post.status, post.text().as_str()), (200, "done"));
    assert_eq!(origin.requests().iter().filter(|asked| asked.path == "/refused").count(), 2);
    let broken = edge.get("/breaks");
    assert!(broken.status == 502 || broken.end != End::Complete, "{broken:?}");

    let origin = StreamOrigin::start(100, refuses);
    let fleet = self::edge(&origin, "off", "");
    let edge = fleet.node("e1");
    assert_eq!(edge.get("/a").text(), "done");
    assert_eq!(edge.get("/dies").text(), "done", "a GET is sent again on a new connection");
    let origin = StreamOrigin::start(100, refuses);
    let fleet = self::edge(&origin, "off", "");
    let edge = fleet.node("e1");
    assert_eq!(edge.get("/a").text(), "done");
    let post = Request::new("POST", HOST, "/dies").send(edge.http());
    assert_eq!(post.status, 502, "a POST that may have been acted on is not");
    assert_eq!(origin.requests().iter().filter(|asked| asked.path == "/dies").count(), 1);
}

/// A stream that is reset in the middle is no complete response, and nothing of it is stored.
#[test]
fn a_reset_stream_is_seen_as_cut_and_never_stored() {
    let origin = StreamOrigin::start(100, |_| Act::Break);
    let fleet = edge(&origin, "default", "");
    for _ in 0..3 {
        let broken = fleet.node("e1").get("/a");
        assert!(broken.status == 502 || broken.end != End::Complete, "{broken:?}");
        assert!(!broken.cache_status().contains("hit"), "{}", broken.cache_status());
    }
}

/// Who speaks HTTP/1.1 where HTTP/2 was agreed on: the log says what was asked of it.
#[test]
fn a_server_that_does_not_speak_http2_is_named() {
    let origin = harness::origin::Origin::start();
    let fleet = Plan::new()
        .datacenter("icn", 37.46, 126.44)
        .edge("e1", "icn")
        .toml(&format!(
            "[origin.static]\nservers = [ {{ url = \"{}\" }} ]\nprotocol = \"http2\"",
            origin.url()
        ))
        .toml(&format!(
            "[site.www]\nhosts = [\"{HOST}\"]\n\
             routes = [ {{ path = \"/*\", origin = \"static\", cache = \"off\" }} ]"
        ))
        .start();
    let reply = fleet.node("e1").get("/a");
    let proxy_status = reply.head.joined("proxy-status");
    assert_eq!(reply.status, 502);
    // Whether its answer or the end of its connection is seen first is chance.
    let named = ["http_protocol_error", "connection_terminated"];
    assert!(named.iter().any(|error| proxy_status.contains(error)), "{proxy_status}");
    assert!(fleet.node("e1").log().contains("HTTP/2 without TLS"), "{}", fleet.node("e1").log());
}

/// Active checks speak HTTP/2 to a server that speaks nothing else.
#[test]
fn checks_speak_the_version_of_the_origin() {
    let origin = StreamOrigin::start(100, |_| Act::Answer("well"));
    let check = "health = { path = \"/healthz\", interval = \"1s\", timeout = \"1s\", down_after = 1, up_after = 1 }";
    let fleet = edge(&origin, "off", check);
    wait::until("checks", || (origin.requests().len() >= 3).then_some(()));
    assert_eq!(fleet.node("e1").get("/a").status, 200);
    assert_eq!(origin.connections(), 1);
}

/// RFC 9110 §15.2, RFC 9113 §8.1: interim responses come through while the origin thinks, from its stream to clients of
/// either version, and leave nothing in the response.
#[test]
fn rfc9113_8_1_interim_responses_of_http2_origins() {
    for (direct, method) in [(true, "GET"), (true, "POST"), (false, "GET"), (false, "POST")] {
        let origin = StreamOrigin::start(100, |_| Act::Hint("hi"));
        let fleet = if direct { edge(&origin, "off", "") } else { tiers(&origin) };
        let edge = fleet.node("e1");
        let mut wire = Wire::connect(edge.http());
        let request = Request::new(method, HOST, "/1");
        wire.send(if method == "POST" { request.body("x") } else { request }.bytes());
        for status in [103, 102, 103] {
            let head = wire.read_one_head().unwrap();
            let link = (status == 103).then_some("</a.css>; rel=preload");
            assert_eq!((head.status, head.field("link")), (status, link), "{direct} {method}");
        }
        origin.release();
        let reply = wire.read_reply(method);
        assert_eq!((reply.status, reply.text().as_str()), (200, "hi"), "{direct} {method}");
        assert_eq!(reply.field("link"), None);

        let request = http::Request::builder().method(method).uri(format!("https://{HOST}/2"));
        let reply = http2::exchange(edge.https(), request.body(()).unwrap(), Content::None);
        let statuses: Vec<u16> = reply.interim.iter().map(|(status, _)| *status).collect();
        let whole = (statuses, reply.status, &reply.body[..]);
        assert_eq!(whole, (vec![103, 102, 103], 200, &b"hi"[..]), "{direct} {method}");
        assert_eq!(reply.interim[0].1["link"], "</a.css>; rel=preload");
        assert!(!reply.fields.contains_key("link"));
    }
}

/// An origin that sends nothing but interim responses is not waited for; its other streams are not touched.
#[test]
fn a_flood_of_interim_responses_over_http2_ends_in_502() {
    let floods = |asked: &Asked| match asked.path.as_str() {
        "/flood" => Act::Flood,
        _ => Act::Answer("hello"),
    };
    let origin = StreamOrigin::start(100, floods);
    let fleet = edge(&origin, "off", "");
    let edge = fleet.node("e1");
    assert_eq!(edge.get("/a").text(), "hello");
    for method in ["GET", "POST"] {
        let mut wire = Wire::connect(edge.http());
        wire.send(Request::new(method, HOST, "/flood").bytes());
        let mut interim = 0;
        let last = loop {
            let head = wire.read_one_head().unwrap();
            if head.status >= 200 {
                break head;
            }
            interim += 1;
        };
        assert_eq!(last.status, 502, "{method}");
        assert!(last.joined("proxy-status").contains("http_protocol_error"), "{last:?}");
        assert!(interim < 30, "{interim}");
        assert_eq!(edge.get("/a").text(), "hello");
    }
    // A GET is tried once more on a new connection.
    assert!(origin.connections() <= 2, "{}", origin.connections());
}

/// RFC 9113 §5.2, §8.1: content goes up as the origin opens its window, 100 (Continue) lets it begin, and an origin that
/// answers before it has read all of it has answered.
#[test]
fn rfc9113_8_1_content_goes_up_and_early_answers_count() {
    let acts = |asked: &Asked| match asked.path.as_str() {
        "/early" => Act::Answer("enough"),
        _ => Act::Echo,
    };
    let origin = StreamOrigin::start(100, acts);
    let fleet = edge(&origin, "off", "");
    let edge = fleet.node("e1");
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    for chunked in [false, true] {
        let mut wire = Wire::connect(edge.http());
        let (framing, start, end) = match chunked {
            true => ("Transfer-Encoding: chunked", "2DC6C0\r\n", "\r\n0\r\n\r\n"),
            false => ("Content-Length: 3000000", "", ""),
        };
        let head = format!("POST /echo HTTP/1.1\r\nHost: {HOST}\r\n{framing}\r\n\r\n{start}");
        wire.send([head.as_bytes(), &content, end.as_bytes()].concat());
        let reply = wire.read_reply("POST");
        assert_eq!((reply.status, reply.body.len()), (200, content.len()), "{chunked}");
        assert!(reply.body == content, "{chunked}");
    }
    let early = Request::new("POST", HOST, "/early").body(vec![b'x'; 64 << 10]).send(edge.http());
    assert_eq!((early.status, early.text().as_str()), (200, "enough"));

    let mut wire = Wire::connect(edge.http());
    let head = Request::new("POST", HOST, "/echo").field("Expect", "100-continue");
    wire.send(head.field("Content-Length", "5").bytes());
    assert_eq!(wire.read_one_head().unwrap().status, 100);
    wire.send("hello");
    assert_eq!(wire.read_reply("POST").text(), "hello");
    assert_eq!(origin.connections(), 1);
}

/// RFC 9113 §8.1.1: content that is not what Content-Length says is no whole response, and is not stored.
#[test]
fn rfc9113_8_1_1_content_that_its_length_denies() {
    for lie in ["01234", "0123456789abcdef"] {
        let origin = StreamOrigin::start(100, move |_| Act::Lie(lie));
        let fleet = edge(&origin, "default", "");
        for _ in 0..2 {
            // A connection that ends before a head is no response at all.
            let reply = Request::get(HOST, "/a").try_send(fleet.node("e1").http());
            let Some(broken) = reply else { continue };
            assert!(broken.status == 502 || broken.end != End::Complete, "{lie}: {broken:?}");
            assert!(!broken.cache_status().contains("hit"), "{}", broken.cache_status());
        }
        assert!(origin.requests().len() >= 2, "{lie}: {:?}", origin.requests());
    }
}
