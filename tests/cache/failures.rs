//! Origins that fail: cut bodies, resets, silence, nonsense; retries on other servers; errors that say whose they are.

use harness::expect;
use harness::origin::{Gate, Origin, Script};
use harness::plan::Plan;
use harness::wait;
use harness::wire::{End, Request, Wire};

use super::{HOST, STRICT, one_edge, plan, site};

#[test]
fn a_body_cut_short_is_seen_as_cut_and_never_stored() {
    let origin = Origin::start();
    let whole = || Script::ok("0123456789").cache_control("max-age=60");
    origin.once("/length", whole().cut_after(4));
    origin.once("/reset", whole().reset_after(4));
    origin.once("/chunked", whole().chunked().cut_after(4));
    for path in ["/length", "/reset", "/chunked"] {
        origin.route(path, whole());
    }
    let fleet = one_edge(&origin, STRICT);
    let edge = fleet.node("e1");
    for path in ["/length", "/reset", "/chunked"] {
        let mut wire = Wire::connect(edge.http());
        wire.send(Request::get(HOST, path).bytes());
        match wire.try_read_head() {
            // A head that was not sent yet when the cut was seen may still become an error of ours.
            Some(head) if head.status == 200 => {
                let body = wire.read_body("GET", &head);
                assert_ne!(body.end, End::Complete, "{path}: a cut body must not look whole");
            }
            Some(head) => assert_eq!(head.status, 502, "{path}"),
            None => {}
        }
        let again = edge.get(path);
        assert_eq!((again.status, again.text().as_str()), (200, "0123456789"), "{path}");
        assert!(!again.cache_status().contains("hit"), "{path}: {}", again.cache_status());
        assert_eq!(origin.count(path), 2, "{path}");
        assert!(edge.get(path).cache_status().contains("hit"), "{path}");
    }
}

/// RFC 9209: errors that we make say what happened; 502 for an origin that fails, 504 for one that is silent.
#[test]
fn rfc9209_errors_of_ours_carry_proxy_status() {
    let origin = Origin::start();
    let never = Gate::new();
    origin.route("/silent", Script::ok("").hold(&never));
    origin.route("/nonsense", Script::raw("no HTTP at all\r\n\r\n"));
    origin.route("/closed", Script::raw("").cut_after(0));
    let fleet = one_edge(&origin, STRICT);
    let edge = fleet.node("e1");
    let cases = [
        ("/nonsense", 502, "http_protocol_error"),
        ("/closed", 502, "connection_terminated"),
        ("/silent", 504, "http_response_timeout"),
    ];
    for (path, status, error) in cases {
        let reply = edge.get(path);
        let proxy_status = reply.head.joined("proxy-status");
        assert_eq!(reply.status, status, "{path}: {proxy_status}");
        assert!(proxy_status.contains(error), "{path}: {proxy_status}");
        assert!(proxy_status.starts_with("e1"), "{path}: {proxy_status}");
    }
    never.open();
}

#[test]
fn rfc9209_2_3_6_a_refused_connection_is_named() {
    let origin = Origin::start();
    origin.go_down();
    let fleet = one_edge(&origin, STRICT);
    let reply = fleet.node("e1").get("/refused");
    let proxy_status = reply.head.joined("proxy-status");
    assert_eq!(reply.status, 502);
    assert!(proxy_status.contains("error=connection_refused"), "{proxy_status}");
}

fn two_servers(first: &Origin, second: &Origin, more: &str) -> Plan {
    let (one, two) = (first.url(), second.url());
    let plan = Plan::new().datacenter("icn", 37.46, 126.44).edge("e1", "icn").toml(&format!(
        "[origin.static]\nservers = [ {{ url = \"{one}\", weight = 2 }}, {{ url = \"{two}\" }} ]\n{more}"
    ));
    plan.toml(&format!(
        "[site.www]\nhosts = [\"{HOST}\"]\nroutes = [ {{ path = \"/*\", origin = \"static\", cache = \"off\" }} ]"
    ))
}

#[test]
fn requests_are_spread_by_weight() {
    let (first, second) = (Origin::start(), Origin::start());
    first.route("/*", Script::ok("first"));
    second.route("/*", Script::ok("second"));
    let fleet = two_servers(&first, &second, "").start();
    for _ in 0..30 {
        assert_eq!(fleet.node("e1").get("/a").status, 200);
    }
    let counts = (first.count("/a"), second.count("/a"));
    assert_eq!(counts.0 + counts.1, 30);
    // Each worker thread takes turns for itself, so the shares are not exact.
    assert!((17..=23).contains(&counts.0), "{counts:?}");
}

#[test]
fn an_idempotent_request_is_tried_on_another_server() {
    let (first, second) = (Origin::start(), Origin::start());
    second.route("/*", Script::ok("second"));
    first.go_down();
    let fleet = two_servers(&first, &second, "").start();
    let edge = fleet.node("e1");
    for _ in 0..6 {
        assert_eq!(edge.get("/a").text(), "second");
    }
    assert_eq!(second.count("/a"), 6);
}

/// A server that took the request and then failed may have acted on it: only idempotent methods are sent again.
#[test]
fn a_post_that_may_have_arrived_is_not_repeated() {
    let (first, second) = (Origin::start(), Origin::start());
    for origin in [&first, &second] {
        origin.route("/post", Script::raw("").cut_after(0));
        origin.route("/get", Script::ok("fine"));
    }
    let fleet = two_servers(&first, &second, "").start();
    let edge = fleet.node("e1");
    let reply = Request::new("POST", HOST, "/post").body("pay").send(edge.http());
    assert_eq!(reply.status, 502);
    assert_eq!(first.count("/post") + second.count("/post"), 1);
    // The same failure of one server under a GET costs a second request, and the client does not see it.
    first.route("/get", Script::raw("").cut_after(0));
    let asked = || (first.count("/get"), second.count("/get"));
    wait::until("the failing server to have its turn", || {
        let before = asked();
        assert_eq!(edge.get("/get").text(), "fine");
        let after = asked();
        assert_eq!(after.1, before.1 + 1, "the second server answers");
        (after.0 == before.0 + 1).then_some(())
    });
}

#[test]
fn a_server_that_fails_its_check_is_left_alone_until_it_returns() {
    let (first, second) = (Origin::start(), Origin::start());
    first.route("/a", Script::ok("first"));
    second.route("/a", Script::ok("second"));
    let health = "health = { path = \"/healthz\", interval = \"100ms\", timeout = \"100ms\", down_after = 2, up_after = 1 }";
    let fleet = two_servers(&first, &second, health).start();
    let edge = fleet.node("e1");
    first.route("/healthz", Script::status(503, "ill"));
    wait::until("the first server to be left alone", || {
        let before = first.count("/a");
        (0..6).for_each(|_| assert_eq!(edge.get("/a").status, 200));
        (first.count("/a") == before).then_some(())
    });
    first.route("/healthz", Script::ok("well"));
    wait::until("the first server to be asked again", || {
        (edge.get("/a").text() == "first").then_some(())
    });
}

#[test]
fn another_origin_is_asked_when_the_first_fails() {
    let (main, backup) = (Origin::start(), Origin::start());
    main.route("/503", Script::status(503, "main"));
    main.route("/404", Script::status(404, "main"));
    backup.route("/*", Script::ok("backup"));
    let plan = Plan::new().datacenter("icn", 37.46, 126.44).edge("e1", "icn").toml(&format!(
        "[origin.static]\nservers = [ {{ url = \"{}\" }} ]\nfailover = \"backup\"\nfailover_on = [503]\n\
         [origin.backup]\nservers = [ {{ url = \"{}\" }} ]",
        main.url(),
        backup.url()
    ));
    let fleet = site(plan, STRICT).start();
    let edge = fleet.node("e1");
    assert_eq!(edge.get("/503").text(), "backup");
    assert_eq!((edge.get("/404").text().as_str(), backup.count("/404")), ("main", 0));
    main.go_down();
    assert_eq!(edge.get("/down").text(), "backup");
}

#[test]
fn stale_is_served_when_the_origin_fails() {
    let origin = Origin::start();
    let stale = Script::ok("old").cache_control("max-age=10").field("Age", "10");
    origin.once("/a", stale.field("ETag", "\"1\""));
    origin.route("/a", Script::status(503, "ill"));
    let policy = "stale = { while_revalidate = \"0s\", if_error = \"1h\", after_wait = \"10s\" }";
    let fleet = one_edge(&origin, policy);
    let edge = fleet.node("e1");
    let mut watch = edge.watch();
    assert_eq!(edge.get("/a").text(), "old");
    assert_eq!(edge.get("/a").text(), "old");
    origin.go_down();
    assert_eq!(edge.get("/a").text(), "old");
    expect!(watch,
        edge_cache_requests_total { cache = "miss" } += 1,
        edge_cache_requests_total { cache = "stale" } += 2,
    );
}

#[test]
fn stale_is_served_after_a_short_wait_not_after_the_time_out() {
    let origin = Origin::start();
    let gate = Gate::new();
    let fields = |s: Script| s.cache_control("max-age=10").field("ETag", "\"1\"");
    origin.once("/a", fields(Script::ok("old")).field("Age", "10"));
    origin.route("/a", fields(Script::ok("new")).hold(&gate));
    let policy = "stale = { while_revalidate = \"0s\", if_error = \"1h\", after_wait = \"50ms\" }";
    let fleet = one_edge(&origin, policy);
    let edge = fleet.node("e1");
    assert_eq!(edge.get("/a").text(), "old");
    let reply = edge.get("/a");
    assert_eq!(
        (reply.text().as_str(), origin.count("/a")),
        ("old", 2),
        "while the origin is silent"
    );
    gate.open();
    wait::until("the new response to be stored", || (edge.get("/a").text() == "new").then_some(()));
}

#[test]
fn stale_is_served_while_it_is_revalidated() {
    let origin = Origin::start();
    let gate = Gate::new();
    let stale = Script::ok("old").cache_control("max-age=10").field("Age", "10");
    origin.once("/a", stale.field("ETag", "\"1\""));
    origin.route("/a", Script::ok("new").cache_control("max-age=60").hold(&gate));
    let policy = "stale = { while_revalidate = \"1h\", if_error = \"0s\", after_wait = \"10s\" }";
    let fleet = one_edge(&origin, policy);
    let edge = fleet.node("e1");
    assert_eq!(edge.get("/a").text(), "old");
    for _ in 0..5 {
        assert_eq!(edge.get("/a").text(), "old", "at once, while the origin thinks");
    }
    gate.arrived(1);
    gate.open();
    wait::until("the new response to be stored", || (edge.get("/a").text() == "new").then_some(()));
    assert_eq!(origin.count("/a"), 2, "five clients, one revalidation");
}

#[test]
fn connections_to_the_origin_are_used_again() {
    let origin = Origin::start();
    origin.route("/*", Script::ok("x").cache_control("no-store"));
    let fleet = site(plan(&origin).cache_node("e1", "icn", "edge", "workers = 1"), STRICT).start();
    let edge = fleet.node("e1");
    (0..20).for_each(|n| assert_eq!(edge.get(&format!("/{n}")).status, 200));
    assert!(origin.connections() <= 3, "{} connections for 20 requests", origin.connections());
}

#[test]
fn no_more_connections_than_configured_go_to_an_origin() {
    let origin = Origin::start();
    let gate = Gate::new();
    origin.route("/*", Script::ok("x").cache_control("no-store").hold(&gate));
    let fleet = site(
        Plan::new().datacenter("icn", 37.46, 126.44).edge("e1", "icn").toml(&format!(
            "[origin.static]\nservers = [ {{ url = \"{}\" }} ]\nmax_connections = 3\n\
             timeouts = {{ connect = \"5s\", first_byte = \"10s\" }}",
            origin.url()
        )),
        STRICT,
    )
    .start();
    let edge = fleet.node("e1");
    let mut clients: Vec<Wire> = (0..12).map(|_| Wire::connect(edge.http())).collect();
    for (n, wire) in clients.iter_mut().enumerate() {
        wire.send(Request::get(HOST, &format!("/{n}")).bytes());
    }
    gate.arrived(3);
    gate.open();
    for wire in &mut clients {
        assert!(matches!(wire.read_reply("GET").status, 200 | 503));
    }
    assert!(origin.most_open() <= 3, "{} connections at once", origin.most_open());
}

#[test]
fn rfc5861_4_an_error_that_must_not_be_stored_is_an_error_all_the_same() {
    let origin = Origin::start();
    let fleet = one_edge(&origin, "");
    let edge = fleet.node("e1");
    for (number, (name, value)) in
        [("Set-Cookie", "a=b"), ("Cache-Control", "no-store"), ("Cache-Control", "private")]
            .into_iter()
            .enumerate()
    {
        let path = format!("/{number}");
        let old = Script::ok("old").cache_control("max-age=10, stale-if-error=1000");
        origin.once(&path, old.field("Age", "50"));
        origin.once(&path, Script::status(503, "sorry").field(name, value));
        assert_eq!(edge.get(&path).text(), "old");
        let rescued = edge.get(&path);
        let status = rescued.cache_status();
        assert!(status.ends_with("detail=stale-if-error"), "{name}: {value}: {status}");
        assert!(status.contains("fwd-status=503"), "{status}");
        assert_eq!((rescued.status, rescued.text().as_str()), (200, "old"));
    }
}
