//! Two tiers: an edge asks the parent that its key belongs to, the next one when it is down, the origin last.

use harness::expect;
use harness::fleet::Fleet;
use harness::origin::{Origin, Script};
use harness::wire::{Request, Wire};

use super::{HOST, STRICT, plan};

fn tiers(origin: &Origin) -> Fleet {
    plan(origin)
        .edge("e1", "icn")
        .edge("e2", "icn")
        .parent("p1", "icn")
        .parent("p2", "icn")
        .toml("[tier.shield]\nparents = [\"p1\", \"p2\"]\nchoose = \"rendezvous\"\nwhen_down = \"next\"")
        .toml(&format!("[cache.assets]\n{STRICT}"))
        .toml(&format!(
            "[site.www]\nhosts = [\"{HOST}\"]\ntier = \"shield\"\n\
             routes = [ {{ path = \"/api/*\", origin = \"static\", cache = \"off\" }}, {{ path = \"/*\", origin = \"static\", cache = \"assets\" }} ]"
        ))
        .start()
}

/// The parent whose member comes first in `Cache-Status`.
fn parent_of(status: &str) -> &'static str {
    match &status[..2] {
        "p1" => "p1",
        "p2" => "p2",
        other => panic!("{other} is no parent: {status}"),
    }
}

#[test]
fn miss_at_both_tiers_then_hit_at_the_edge_then_the_sibling_hits_at_the_parent() {
    let origin = Origin::start();
    origin.route("/a", Script::ok("hello").cache_control("max-age=60"));
    let fleet = tiers(&origin);
    let (e1, e2) = (fleet.node("e1"), fleet.node("e2"));

    let first = e1.get("/a");
    let status = first.cache_status();
    let parent = fleet.node(parent_of(&status));
    // RFC 9211 §2: each cache on the way adds its member at the end.
    let (theirs, ours) = status.split_once(", e1;").unwrap_or_else(|| panic!("{status}"));
    assert!(theirs.contains("fwd=uri-miss") && ours.contains("fwd=uri-miss"), "{status}");
    let (mut at_e1, mut at_e2, mut at_parent) = (e1.watch(), e2.watch(), parent.watch());

    let second = e1.get("/a");
    assert!(second.cache_status().contains("e1; hit"), "{}", second.cache_status());
    expect!(at_e1, edge_cache_requests_total { cache = "hit" } += 1);
    expect!(at_parent, edge_cache_requests_total += 0);

    let sibling = e2.get("/a");
    let status = sibling.cache_status();
    assert_eq!(sibling.text(), "hello");
    assert!(status.starts_with(&format!("{}; hit", parent.name())), "{status}");
    assert!(status.contains("e2; fwd=uri-miss"), "{status}");
    expect!(at_e2, edge_cache_requests_total { cache = "miss" } += 1);
    expect!(at_parent, edge_cache_requests_total { cache = "hit" } += 1);
    assert!(sibling.field("age").is_some());
    assert_eq!(origin.count("/a"), 1);
}

#[test]
fn keys_are_spread_over_the_parents_the_same_from_every_edge() {
    let origin = Origin::start();
    origin.route("/*", Script::ok("x").cache_control("max-age=60"));
    let fleet = tiers(&origin);
    let mut first = 0;
    for n in 0..40 {
        let path = format!("/{n}");
        let parent = parent_of(&fleet.node("e1").get(&path).cache_status());
        assert_eq!(parent, parent_of(&fleet.node("e2").get(&path).cache_status()), "{path}");
        first += usize::from(parent == "p1");
    }
    assert!((8..=32).contains(&first), "p1 has {first} of 40 keys");
    assert_eq!(origin.total(), 40);
}

#[test]
fn when_a_parent_is_down_the_next_is_asked_and_then_the_origin() {
    let origin = Origin::start();
    origin.route("/*", Script::ok("x").cache_control("max-age=60"));
    let mut fleet = tiers(&origin);
    fleet.node_mut("p1").kill();
    for n in 0..10 {
        let reply = fleet.node("e1").get(&format!("/{n}"));
        assert_eq!(reply.status, 200);
        assert!(reply.cache_status().starts_with("p2"), "{}", reply.cache_status());
    }
    fleet.node_mut("p2").kill();
    for n in 10..20 {
        let reply = fleet.node("e1").get(&format!("/{n}"));
        assert_eq!(reply.status, 200);
        assert!(reply.cache_status().starts_with("e1"), "{}", reply.cache_status());
    }
    assert_eq!(origin.total(), 20);
    fleet.node_mut("p1").start();
    fleet.node_mut("p2").start();
    let mut n = 20;
    harness::wait::until("the parents to be asked again", || {
        n += 1;
        let status = fleet.node("e1").get(&format!("/{n}")).cache_status();
        status.starts_with('p').then_some(())
    });
}

#[test]
fn a_crowd_at_two_edges_costs_the_origin_one_request() {
    let origin = Origin::start();
    let gate = harness::origin::Gate::new();
    origin.route("/a", Script::ok("x").cache_control("max-age=60").hold(&gate));
    let fleet = tiers(&origin);
    let mut crowd: Vec<Wire> = ["e1", "e2"]
        .iter()
        .flat_map(|edge| {
            (0..100).map(|_| Wire::connect(fleet.node(edge).http())).collect::<Vec<_>>()
        })
        .collect();
    for wire in &mut crowd {
        wire.send(Request::get(HOST, "/a").bytes());
    }
    gate.arrived(1);
    gate.open();
    for wire in &mut crowd {
        assert_eq!(wire.read_reply("GET").text(), "x");
    }
    assert_eq!(origin.count("/a"), 1);
}

#[test]
fn a_body_cut_at_the_origin_is_cut_through_both_tiers_and_stored_at_neither() {
    let origin = Origin::start();
    let whole = || Script::ok("x".repeat(300_000)).cache_control("max-age=60");
    origin.once("/a", whole().cut_after(200_000));
    origin.route("/a", whole());
    let fleet = tiers(&origin);
    let first = Request::get(HOST, "/a").try_send(fleet.node("e1").http());
    let whole = first.is_some_and(|r| r.status == 200 && r.end == harness::wire::End::Complete);
    assert!(!whole, "a cut body must not look whole");
    let second = fleet.node("e1").get("/a");
    assert_eq!((second.status, second.body.len()), (200, 300_000));
    assert!(!second.cache_status().contains("hit"), "{}", second.cache_status());
}

#[test]
fn what_is_not_cached_passes_by() {
    let origin = Origin::start();
    origin.route_with("/api/*", |request| Script::ok(request.method.clone()));
    let fleet = tiers(&origin);
    let reply = Request::new("POST", HOST, "/api/x").body("1").send(fleet.node("e1").http());
    assert_eq!((reply.status, reply.text().as_str()), (200, "POST"));
    assert_eq!(origin.count("/api/x"), 1);
}

/// RFC 8586: a request that has been here already is not sent round again.
#[test]
fn rfc8586_loops_end_with_508() {
    let origin = Origin::start();
    origin.route("/*", Script::ok("x"));
    let fleet = tiers(&origin);
    let looped = (0..20).map(|_| "test").collect::<Vec<_>>().join(", ");
    let reply = Request::get(HOST, "/a").field("CDN-Loop", looped).send(fleet.node("e1").http());
    assert_eq!((reply.status, origin.total()), (508, 0));
}
