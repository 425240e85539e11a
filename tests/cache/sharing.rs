//! Who may have which response: those who wait, those of another variant, those who come after a change.

use harness::origin::{Gate, Origin, Script};
use harness::wire::{Request, Wire};

use super::{HOST, STRICT, one_edge, plan, site};

const RFC: &str = "profile = \"rfc\"\n\
     stale = { while_revalidate = \"0s\", if_error = \"0s\", after_wait = \"10s\" }";

/// RFC 9111 §4, §5.2.2.4: a response that must be validated each time answers nobody who came after its fetch began. All who
/// waited for it wait for the next one together.
#[test]
fn rfc9111_5_2_2_4_no_cache_is_not_shared_with_those_who_came_later() {
    const CROWD: usize = 40;
    for cache_control in ["no-cache", "max-age=60, no-cache", "max-age=0"] {
        for same in [true, false] {
            let origin = Origin::start();
            let (first, second) = (Gate::new(), Gate::new());
            let script = move |body: &str, tag: &str| {
                Script::ok(body).cache_control(cache_control).field("ETag", tag)
            };
            origin.once("/a", script("old", "\"1\"").hold(&first));
            let held = second.clone();
            origin.route_with("/a", move |request| {
                let script = match same {
                    // What came first may not be stored yet when the next one is fetched.
                    true if request.field("if-none-match").is_some() => {
                        Script::status(304, "").cache_control(cache_control).field("ETag", "\"1\"")
                    }
                    true => script("old", "\"1\""),
                    false => script("new", "\"2\""),
                };
                script.hold(&held)
            });
            let fleet = one_edge(&origin, STRICT);
            let edge = fleet.node("e1");
            let ask = || {
                let mut wire = Wire::connect(edge.http());
                wire.send(Request::get(HOST, "/a").bytes());
                wire
            };
            let mut leader = ask();
            first.arrived(1);
            let mut crowd: Vec<Wire> = (1..CROWD).map(|_| ask()).collect();
            harness::wait::until("all to wait", || {
                (edge.admin_json("/v1/status")["in_flight"] == CROWD).then_some(())
            });
            first.open();
            assert_eq!(leader.read_reply("GET").text(), "old");
            second.arrived(1);
            second.open();
            let mut collapsed = 0;
            for wire in &mut crowd {
                let reply = wire.read_reply("GET");
                let expected = if same { "old" } else { "new" };
                assert_eq!((reply.status, reply.text().as_str()), (200, expected));
                collapsed += usize::from(reply.cache_status().contains("collapsed"));
            }
            // One who looks again late may need one more.
            let asked = origin.count("/a");
            assert!((2..=4).contains(&asked), "{cache_control}: {asked} requests at the origin");
            assert_eq!(collapsed, CROWD - asked, "{cache_control}");
        }
    }
}

/// Pitfall 30: what is asked in the background carries nothing of the client whose request began it.
#[test]
fn rfc5861_3_a_revalidation_in_the_background_is_nobodys() {
    for profile in ["safe", "rfc"] {
        let origin = Origin::start();
        let stale = Script::ok("0123456789").field("ETag", "\"v1\"").field("Age", "10");
        origin.once("/a", stale.cache_control("max-age=10, stale-while-revalidate=1000, public"));
        let fresh = Script::status(304, "").cache_control("max-age=60").field("ETag", "\"v1\"");
        let fresh = ["Authorization", "Cookie", "Range", "If-Modified-Since", "If-Range"]
            .into_iter()
            .fold(fresh, Script::expect_no_field);
        origin.route("/a", fresh.expect_field("If-None-Match", "\"v1\""));
        let fleet = one_edge(&origin, &format!("profile = \"{profile}\""));
        let edge = fleet.node("e1");
        edge.get("/a");
        let reply = Request::get(HOST, "/a")
            .field("Authorization", "Basic eDp5")
            .field("Cookie", "session=1")
            .field("Range", "bytes=2-3")
            .field("If-None-Match", "\"v0\"")
            .field("If-Modified-Since", "Sun, 06 Nov 1994 08:49:37 GMT")
            .send(edge.http());
        assert_eq!((reply.status, reply.text().as_str()), (206, "23"), "{profile}");
        harness::wait::until("the revalidation", || {
            edge.get("/a").cache_status().contains("detail=fresh").then_some(())
        });
        assert_eq!(origin.count("/a"), 2, "{profile}");
        origin.assert_expectations();
    }
}

/// RFC 9111 §4.4: an unsafe method makes invalid what it was for, and what its response names of the same origin.
#[test]
fn rfc9111_4_4_location_and_content_location_are_invalidated() {
    let origin = Origin::start();
    origin.route("/*", Script::ok("x").cache_control("max-age=60"));
    origin.route_with("/form", |request| match request.method.as_str() {
        "POST" => Script::status(201, "")
            .field("Location", "/made?x=1")
            .field("Content-Location", &format!("http://{HOST}/listed")),
        "DELETE" => Script::status(403, "").field("Location", "/made?x=1"),
        _ => Script::ok("form").cache_control("max-age=60"),
    });
    let parent = "[tier.shield]\nparents = [\"p1\"]";
    let fleet = site(plan(&origin).edge("e1", "icn").parent("p1", "icn").toml(parent), STRICT);
    let mut fleet = fleet.write();
    fleet.edit("[site.www]\n", "[site.www]\ntier = \"shield\"\n");
    fleet.start_all();
    let edge = fleet.node("e1");
    let stored = ["/form", "/made?x=1", "/listed", "/other"];
    let hits = || stored.map(|target| edge.get(target).cache_status().contains("e1; hit"));
    hits();
    assert_eq!(hits(), [true; 4]);
    assert_eq!(Request::new("DELETE", HOST, "/form").send(edge.http()).status, 403);
    assert_eq!(hits(), [true; 4], "an error changes nothing");
    let asked = origin.total();
    assert_eq!(Request::new("POST", HOST, "/form").body("1").send(edge.http()).status, 201);
    assert_eq!(hits(), [false, false, false, true]);
    assert_eq!(origin.total(), asked + 4, "the parent has forgotten them, too");
}

/// RFC 9111 §4.4: a fetch that began before the change does not bring back what was there.
#[test]
fn rfc9111_4_4_a_fetch_that_goes_on_is_not_stored_after_a_change() {
    let origin = Origin::start();
    let gate = Gate::new();
    let old = Script::ok("old old old").cache_control("max-age=60");
    origin.once("/a", old.hold_after(3, &gate));
    origin.once("/a", Script::status(204, ""));
    origin.route("/a", Script::ok("new").cache_control("max-age=60"));
    let fleet = one_edge(&origin, STRICT);
    let edge = fleet.node("e1");
    let mut slow = Wire::connect(edge.http());
    slow.send(Request::get(HOST, "/a").bytes());
    gate.arrived(1);
    assert_eq!(Request::new("PUT", HOST, "/a").body("new").send(edge.http()).status, 204);
    assert_eq!(edge.get("/a").text(), "new", "nobody joins the old one");
    gate.open();
    assert_eq!(slow.read_reply("GET").text(), "old old old");
    let last = edge.get("/a");
    assert_eq!(last.text(), "new");
    assert_eq!(origin.count("/a"), 3);
}

/// Pitfall 44: what the origin is not shown cannot have shaped its response, and does not split what is stored.
#[test]
fn vary_counts_only_fields_that_reach_the_origin() {
    for (policy, copies) in [(STRICT, 1), (RFC, 2)] {
        let origin = Origin::start();
        let varied = Script::ok("x").cache_control("max-age=60");
        origin.route("/a", varied.field("Vary", "Cookie, X-Session"));
        let fleet = one_edge(&origin, policy);
        let edge = fleet.node("e1");
        for _ in 0..2 {
            for cookie in ["session=1", "session=2"] {
                let reply = Request::get(HOST, "/a").field("Cookie", cookie).send(edge.http());
                assert_eq!((reply.status, reply.field("vary")), (200, Some("Cookie, X-Session")));
            }
        }
        assert_eq!(origin.count("/a"), copies, "{policy}");
    }
}

/// RFC 9110 §14.6: several ranges of a stored object are parts of one response.
#[test]
fn rfc9110_14_6_several_ranges_are_parts() {
    let origin = Origin::start();
    let stored = Script::ok("0123456789").cache_control("max-age=60").field("ETag", "\"v1\"");
    origin.route("/a", stored.field("Content-Type", "text/x"));
    let fleet = one_edge(&origin, STRICT);
    let edge = fleet.node("e1");
    edge.get("/a");
    let mut wire = Wire::connect(edge.http());
    let reply = wire.exchange(&Request::get(HOST, "/a").field("Range", "bytes=0-1, 4-5,-2"));
    assert_eq!((reply.status, reply.field("content-range")), (206, None));
    let kind = reply.field("content-type").unwrap().to_owned();
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap();
    let part = |range: &str, bytes: &str| {
        format!(
            "\r\n--{boundary}\r\nContent-Type: text/x\r\nContent-Range: bytes {range}/10\r\n\r\n{bytes}"
        )
    };
    let parts = [part("0-1", "01"), part("4-5", "45"), part("8-9", "89")].concat();
    assert_eq!(reply.text(), format!("{parts}\r\n--{boundary}--\r\n"));
    // The connection is in step, and ranges that touch are one.
    let reply = wire.exchange(&Request::get(HOST, "/a").field("Range", "bytes=0-1,2-5"));
    assert_eq!((reply.status, reply.text().as_str()), (206, "012345"));
    let beyond = wire.exchange(&Request::get(HOST, "/a").field("Range", "bytes=20-30,40-"));
    assert_eq!(beyond.status, 416);
    let changed =
        Request::get(HOST, "/a").field("Range", "bytes=0-1,4-5").field("If-Range", "\"v2\"");
    assert_eq!(wire.exchange(&changed).text(), "0123456789");
    assert_eq!(origin.count("/a"), 1);
}

/// Pitfalls 44 and 46: in the safe profile a cookie reaches the origin of a cacheable route neither before nor after it
/// is known that the response is not stored; range and conditions do.
#[test]
fn what_is_known_to_be_uncacheable_is_asked_for_as_before() {
    for (policy, cookies) in [(STRICT, [None, None]), (RFC, [Some("id=1"); 2])] {
        let origin = Origin::start();
        origin.route("/a", Script::ok("x").cache_control("private"));
        let fleet = one_edge(&origin, policy);
        let edge = fleet.node("e1");
        for range in [None, Some("bytes=0-0")] {
            let mut request = Request::get(HOST, "/a").field("Cookie", "id=1");
            if let Some(range) = range {
                request = request.field("Range", range);
            }
            assert_eq!(request.send(edge.http()).status, 200);
        }
        let asked = origin.requests("/a");
        assert_eq!([asked[0].field("cookie"), asked[1].field("cookie")], cookies, "{policy}");
        assert_eq!(asked[1].field("range"), Some("bytes=0-0"), "{policy}");
    }
}
