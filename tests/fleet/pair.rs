//! The pair from a client's point of view: ask DNS, go where it says, get the object; a datacenter dies, and again.

use std::net::{IpAddr, SocketAddr};

use harness::dns::Query;
use harness::fleet::Fleet;
use harness::origin::{Origin, Script};
use harness::{expect, wait, wire};

/// The edge that DNS sends a client of this network to.
fn edge_for<'a>(fleet: &'a Fleet, subnet: &str) -> &'a str {
    let answer = Query::a("www.cdn.test").subnet(subnet).udp(fleet.node("ns1").dns());
    let address = answer.addresses()[0];
    let named = |edge: &&&str| IpAddr::V4(fleet.node(edge).ip()) == address;
    ["icn-1", "fra-1"].iter().find(named).unwrap_or_else(|| panic!("{address} is no edge"))
}

#[test]
fn a_client_finds_its_edge_and_another_when_that_dies() {
    let origin = Origin::start();
    origin.route("/a", Script::ok("hello").cache_control("max-age=60"));
    let mut fleet = super::pair(&origin).start();
    wait::until("the Korean client to be sent to Seoul", || {
        (edge_for(&fleet, "211.60.0.0/24") == "icn-1").then_some(())
    });
    assert_eq!(edge_for(&fleet, "91.12.0.0/24"), "fra-1");

    let mut parent = fleet.node("icn-p1").watch();
    let http = |edge: &str| -> SocketAddr { fleet.node(edge).http() };
    assert_eq!(wire::get(http("icn-1"), "www.cdn.test", "/a").text(), "hello");
    assert_eq!(wire::get(http("fra-1"), "www.cdn.test", "/a").text(), "hello");
    expect!(parent,
        edge_cache_requests_total { cache = "miss" } += 1,
        edge_cache_requests_total { cache = "hit" } += 1,
    );
    assert_eq!(origin.count("/a"), 1);

    fleet.node_mut("icn-1").kill();
    wait::until("the Korean client to be sent to Frankfurt", || {
        (edge_for(&fleet, "211.60.0.0/24") == "fra-1").then_some(())
    });
    fleet.node_mut("icn-1").start();
    wait::until("the Korean client to return", || {
        (edge_for(&fleet, "211.60.0.0/24") == "icn-1").then_some(())
    });
}

#[test]
fn no_program_needs_another_one_to_start() {
    let origin = Origin::start();
    origin.go_down();
    let mut fleet = super::pair(&origin).write();
    fleet.node_mut("ns1").start();
    assert!(!Query::a("static.cdn.test").udp(fleet.node("ns1").dns()).answers().is_empty());
    let steered = Query::a("www.cdn.test").udp(fleet.node("ns1").dns());
    assert!(!steered.addresses().is_empty(), "no health known yet: still an answer");
    fleet.node_mut("icn-1").start();
    assert_eq!(fleet.node("icn-1").get("/a").status, 502);
    assert_eq!(fleet.node("icn-1").get("/.meridian/health").status, 200);
}
