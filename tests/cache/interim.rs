//! Interim responses: 103 and its kind reach the client of the request, over both versions of HTTP and through both tiers;
//! 100 is waited for and passed through; nothing of them is stored or stands in the response.

use harness::http2::{self, Content};
use harness::origin::{Gate, Origin, Script};
use harness::wire::{Head, Request, Wire};

use super::{HOST, STRICT, one_edge, plan};

const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: x-hop\r\n\
                     X-Hop: 1\r\nX-Early: 1\r\n\r\n";

/// 103 twice, 102, a pause, and the response.
fn hinted(cache_control: &str, gate: &Gate) -> Script {
    let early = format!("{HINTS}HTTP/1.1 102 Processing\r\n\r\n{HINTS}");
    let response =
        format!("HTTP/1.1 200 OK\r\nCache-Control: {cache_control}\r\nContent-Length: 2\r\n\r\nhi");
    Script::raw(format!("{early}{response}")).hold_after(early.len(), gate)
}

fn heads(wire: &mut Wire) -> Vec<Head> {
    let mut heads = Vec::new();
    while let Some(head) = wire.read_one_head() {
        let interim = head.status < 200;
        heads.push(head);
        if !interim {
            break;
        }
    }
    heads
}

/// RFC 8297, RFC 9110 §15.2: before the origin has its response ready the client has the hints.
#[test]
fn rfc9110_15_2_interim_responses_come_through_while_the_origin_thinks() {
    let origin = Origin::start();
    let fleet = one_edge(&origin, STRICT);
    let edge = fleet.node("e1");
    for (path, cache_control) in [("/stored", "max-age=60"), ("/passed", "no-store")] {
        for method in ["GET", "POST"] {
            let gate = Gate::new();
            let path = format!("{path}-{method}");
            origin.route(&path, hinted(cache_control, &gate));
            let mut wire = Wire::connect(edge.http());
            let request = Request::new(method, HOST, &path);
            wire.send(if method == "POST" { request.body("x") } else { request }.bytes());
            for status in [103, 102, 103] {
                let head = wire.read_one_head().unwrap();
                assert_eq!((head.status, head.version.as_str()), (status, "HTTP/1.1"), "{path}");
                let link = (status == 103).then_some("</a.css>; rel=preload");
                assert_eq!((head.field("link"), head.field("x-hop")), (link, None), "{path}");
            }
            gate.open();
            let reply = wire.read_reply(method);
            assert_eq!((reply.status, reply.text().as_str()), (200, "hi"), "{path}");
            assert_eq!((reply.field("link"), reply.field("x-early")), (None, None), "{path}");
            // The connection is in step.
            let again = wire.exchange(&Request::get(HOST, "/healthz"));
            assert_eq!(again.text(), "healthy\n");
        }
    }
    let mut hit = Wire::connect(edge.http());
    hit.send(Request::get(HOST, "/stored-GET").bytes());
    let heads = heads(&mut hit);
    assert_eq!(heads.len(), 1, "hints are not stored: {heads:?}");
    assert!(heads[0].joined("cache-status").contains("hit"), "{heads:?}");
    assert_eq!(heads[0].field("link"), None);
}

/// Responses to pipelined requests and the hints between them keep their order.
#[test]
fn interim_responses_stand_before_their_own_response() {
    let origin = Origin::start();
    let open = Gate::new();
    open.open();
    origin.route("/hinted", hinted("no-store", &open));
    origin.route("/large", Script::ok(vec![b'x'; 3 << 20]).cache_control("no-store"));
    let fleet = one_edge(&origin, STRICT);
    let mut wire = Wire::connect(fleet.node("e1").http());
    let targets = ["/large", "/hinted", "/large", "/hinted"];
    let bytes: Vec<u8> = targets.iter().flat_map(|t| Request::get(HOST, t).bytes()).collect();
    wire.send(bytes);
    for target in targets {
        let mut interim = Vec::new();
        let head = loop {
            let head = wire.read_one_head().unwrap();
            match head.status {
                200 => break head,
                status => interim.push(status),
            }
        };
        let body = wire.read_body("GET", &head).bytes.len();
        match target {
            "/large" => assert_eq!((interim, body), (vec![], 3 << 20)),
            _ => assert_eq!((interim, body), (vec![103, 102, 103], 2)),
        }
    }
}

#[test]
fn interim_responses_come_through_both_tiers_and_over_http2() {
    let origin = Origin::start();
    let open = Gate::new();
    open.open();
    origin.route("/*", hinted("max-age=60", &open));
    let plan = plan(&origin).parent("p1", "icn").edge("e1", "icn");
    let plan = plan.toml("[tier.shield]\nparents = [\"p1\"]").toml(&format!(
        "[cache.assets]\n{STRICT}\n[site.www]\nhosts = [\"{HOST}\"]\ntier = \"shield\"\nroutes = [ {{ path = \"/*\", origin = \"static\", cache = \"assets\" }} ]"
    ));
    let fleet = plan.start();
    let edge = fleet.node("e1");
    let mut wire = Wire::connect(edge.http());
    wire.send(Request::get(HOST, "/1").bytes());
    let statuses: Vec<u16> = heads(&mut wire).iter().map(|head| head.status).collect();
    assert_eq!(statuses, [103, 102, 103, 200]);

    let ask = |path: &str| {
        let request = http::Request::get(format!("https://{HOST}{path}")).body(()).unwrap();
        http2::exchange(edge.https(), request, Content::None)
    };
    let reply = ask("/2");
    let statuses: Vec<u16> = reply.interim.iter().map(|(status, _)| *status).collect();
    assert_eq!((statuses, reply.status, &reply.body[..]), (vec![103, 102, 103], 200, &b"hi"[..]));
    assert_eq!(reply.interim[0].1["link"], "</a.css>; rel=preload");
    assert!(!reply.interim[0].1.contains_key("x-hop") && !reply.fields.contains_key("link"));
    let hit = ask("/2");
    assert_eq!((hit.interim.len(), hit.status), (0, 200));
}

/// RFC 9110 §15.2: HTTP/1.0 knows no interim responses.
#[test]
fn rfc9110_15_2_a_client_of_http_1_0_gets_none() {
    let origin = Origin::start();
    let open = Gate::new();
    open.open();
    origin.route("/*", hinted("no-store", &open));
    let fleet = one_edge(&origin, STRICT);
    let mut wire = Wire::connect(fleet.node("e1").http());
    wire.send(format!("GET /1 HTTP/1.0\r\nHost: {HOST}\r\n\r\n"));
    let statuses: Vec<u16> = heads(&mut wire).iter().map(|head| head.status).collect();
    assert_eq!(statuses, [200]);
}

/// An origin that sends nothing but interim responses is not waited for, nor believed.
#[test]
fn a_flood_of_interim_responses_ends_in_502() {
    let origin = Origin::start();
    let never = Gate::new();
    let flood = HINTS.repeat(1000);
    for path in ["/passed", "/stored"] {
        let script = Script::raw(flood.clone()).hold_after(flood.len(), &never);
        origin.route(path, script);
    }
    let fleet = one_edge(&origin, STRICT);
    for (method, path) in [("POST", "/passed"), ("GET", "/stored")] {
        let mut wire = Wire::connect(fleet.node("e1").http());
        let request = Request::new(method, HOST, path);
        wire.send(request.bytes());
        let heads = heads(&mut wire);
        let last = heads.last().unwrap();
        assert_eq!(last.status, 502, "{method}");
        assert!(last.joined("proxy-status").contains("http_protocol_error"), "{last:?}");
        assert!(heads.len() < 30, "{} heads", heads.len());
    }
    never.open();
}

/// RFC 9110 §10.1.1: an upload begins when the origin says so, and when the origin says nothing, soon.
#[test]
fn rfc9110_10_1_1_expect_100_continue_goes_to_the_origin() {
    let origin = Origin::start();
    let fleet = one_edge(&origin, STRICT);
    let edge = fleet.node("e1");
    origin.route("/upload", Script::ok("taken").cache_control("no-store"));
    let mut wire = Wire::connect(edge.http());
    let head = Request::new("POST", HOST, "/upload").field("Expect", "100-continue");
    wire.send(head.clone().field("Content-Length", "5").bytes());
    // This origin reads the content before it answers, and says no 100: after a while the content is asked for anyway.
    let asked = wire.read_one_head().unwrap();
    assert_eq!(asked.status, 100);
    wire.send("hello");
    assert_eq!(wire.read_reply("POST").text(), "taken");
    let seen = origin.requests("/upload");
    assert_eq!(
        (seen[0].body.as_slice(), seen[0].field("expect")),
        (&b"hello"[..], Some("100-continue"))
    );

    let request = http::Request::post(format!("https://{HOST}/upload"))
        .header("expect", "100-continue")
        .header("content-length", "5")
        .body(())
        .unwrap();
    let content = Content::AfterContinue(b"hello".to_vec());
    let reply = http2::exchange(edge.https(), request, content);
    let statuses: Vec<u16> = reply.interim.iter().map(|(status, _)| *status).collect();
    assert_eq!((statuses, reply.status), (vec![100], 200));

    let other = Request::new("POST", HOST, "/upload").field("Expect", "a-pony").body("x");
    assert_eq!(other.send(edge.http()).status, 417);
    assert_eq!(origin.count("/upload"), 2);
}
