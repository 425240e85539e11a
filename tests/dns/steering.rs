//! Which datacenter a client is sent to: by its subnet, by its resolver, by the operator's own map, and explained.

use std::net::IpAddr;

use harness::dns::Query;
use harness::expect;
use harness::fleet::Fleet;
use harness::process::Program;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use super::{name_server, unchecked};

#[track_caller]
fn assert_sent_to(fleet: &Fleet, query: Query, edge: &str) {
    let wanted = IpAddr::V4(fleet.node(edge).ip());
    assert_eq!(query.udp(fleet.node("ns1").dns()).addresses(), [wanted], "{query:?}");
    assert_eq!(query.tcp(fleet.node("ns1").dns()).addresses(), [wanted], "{query:?}");
}

/// With no database, the registries' allocations tell the region.
#[test]
fn clients_are_sent_to_the_nearest_datacenter_for_their_subnet() {
    let fleet = name_server();
    let cases = [
        ("211.60.0.0/24", "icn-1"),
        ("133.11.0.0/24", "icn-1"),
        ("91.12.0.0/24", "fra-1"),
        ("24.30.0.0/24", "iad-1"),
        ("177.32.0.0/24", "iad-1"),
        ("2400:cb00::/48", "icn-1"),
        ("2a00:1450::/48", "fra-1"),
        ("2600:1f00::/48", "iad-1"),
        ("2800:3f0::/48", "iad-1"),
    ];
    let mut watch = fleet.node("ns1").watch();
    for (subnet, edge) in cases {
        assert_sent_to(&fleet, Query::a("www.cdn.test").subnet(subnet), edge);
    }
    expect!(watch,
        geodns_answers_total { policy = "web", datacenter = "icn" } += 6,
        geodns_answers_total { policy = "web", datacenter = "fra" } += 4,
        geodns_answers_total { policy = "web", datacenter = "iad" } += 8,
    );
}

#[test]
fn the_operators_map_wins_and_the_resolver_counts_without_a_subnet() {
    let geo = "[geo]\nnetworks = { \"127.0.0.0/8\" = \"fra\", \"211.60.0.0/16\" = \"iad\" }";
    let mut fleet = unchecked(geo).write();
    fleet.node_mut("ns1").start();
    assert_sent_to(&fleet, Query::a("www.cdn.test"), "fra-1");
    assert_sent_to(&fleet, Query::a("www.cdn.test").edns(1232), "fra-1");
    assert_sent_to(&fleet, Query::a("www.cdn.test").subnet("211.60.7.0/24"), "iad-1");
    assert_sent_to(&fleet, Query::a("www.cdn.test").subnet("211.61.7.0/24"), "icn-1");
    // RFC 7871 §7.1.2: a source prefix of 0 asks not to be looked at by address at all.
    let answer = Query::a("www.cdn.test").subnet("0.0.0.0/0").udp(fleet.node("ns1").dns());
    assert!(!answer.addresses().is_empty());
    assert_eq!(answer.subnet().map(|(_, source, scope)| (source, scope)), Some((0, 0)));
}

/// RFC 7871 §7.2.1: the option comes back with its family, address and source as sent, and a scope that is true.
#[test]
fn rfc7871_the_subnet_is_echoed_with_a_scope() {
    let fleet = name_server();
    let ns = fleet.node("ns1").dns();
    let steered = Query::a("www.cdn.test").subnet("211.60.7.0/24").udp(ns);
    let (address, source, scope) = steered.subnet().expect("the option");
    assert_eq!((address, source), ("211.60.7.0".parse().unwrap(), 24));
    assert!((1..=24).contains(&scope), "scope {scope}");
    // The same scope holds for its neighbours: they get the same answer.
    let neighbour = Query::a("www.cdn.test").subnet("211.60.8.0/24").udp(ns);
    if scope <= 16 {
        assert_eq!(neighbour.addresses(), steered.addresses());
        assert_eq!(neighbour.subnet().map(|(_, _, scope)| scope), Some(scope));
    }
    for (name, rcode) in
        [("static.cdn.test", ResponseCode::NoError), ("none.cdn.test", ResponseCode::NXDomain)]
    {
        let answer = Query::a(name).subnet("211.60.7.0/24").udp(ns);
        assert_eq!(answer.rcode(), rcode);
        assert_eq!(
            answer.subnet().map(|(_, source, scope)| (source, scope)),
            Some((24, 0)),
            "{name}"
        );
    }
    let nodata = Query::new("www.cdn.test", RecordType::TXT).subnet("211.60.7.0/24").udp(ns);
    assert_eq!(nodata.subnet().map(|(_, _, scope)| scope), Some(0));
    assert_eq!(Query::a("www.cdn.test").edns(1232).udp(ns).subnet(), None, "not sent, not echoed");
}

#[test]
fn steered_answers_have_the_ttl_of_the_policy() {
    let fleet = name_server();
    let answer = Query::a("www.cdn.test").subnet("91.12.0.0/24").udp(fleet.node("ns1").dns());
    assert!(answer.authoritative());
    assert!(answer.ttl().is_some_and(|ttl| (1..=30).contains(&ttl)), "{:?}", answer.ttl());
    // No IPv6 address at any edge: NODATA, whoever asks.
    for subnet in ["91.12.0.0/24", "211.60.0.0/24"] {
        let query = Query::new("www.cdn.test", RecordType::AAAA).subnet(subnet);
        let answer = query.udp(fleet.node("ns1").dns());
        assert_eq!((answer.rcode(), answer.answers().len()), (ResponseCode::NoError, 0));
        assert!(answer.authorities()[0].contains("SOA"));
    }
}

#[test]
fn several_edges_of_a_datacenter_are_answered_together() {
    let plan = unchecked("").edge("icn-2", "icn").edge("icn-3", "icn");
    let mut fleet = plan.write();
    fleet.node_mut("ns1").start();
    let icn: Vec<IpAddr> =
        ["icn-1", "icn-2", "icn-3"].iter().map(|edge| IpAddr::V4(fleet.node(edge).ip())).collect();
    let mut seen = std::collections::BTreeSet::new();
    for n in 0..60 {
        let query = Query::a("www.cdn.test").subnet(&format!("211.60.{n}.0/24"));
        let addresses = query.udp(fleet.node("ns1").dns()).addresses();
        assert_eq!(addresses.len(), 2, "`answers` is 2 by default");
        assert!(addresses.iter().all(|address| icn.contains(address)));
        seen.extend(addresses);
    }
    assert_eq!(seen.len(), 3, "all three get their share");
}

#[test]
fn explain_and_query_tell_what_is_answered() {
    let fleet = name_server();
    let dns = fleet.node("ns1").dns().to_string();
    let output = Program::Geodns.run(&[
        "query",
        "www.cdn.test",
        "A",
        "--server",
        &dns,
        "--subnet",
        "177.32.0.0/24",
    ]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains(&fleet.node("iad-1").ip().to_string()), "{text}");

    let args = ["explain", "www.cdn.test", "--client", "177.32.0.9", "--node", "ns1"];
    let output = fleet.run(Program::Geodns, &args);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    // Which network matched, the candidates in their order, what was answered.
    assert!(text.contains("177.0.0.0/8"), "{text}");
    let order =
        ["iad", "fra", "icn"].map(|dc| text.find(dc).unwrap_or_else(|| panic!("{dc}: {text}")));
    assert!(order.is_sorted(), "{text}");
    assert!(text.contains(&fleet.node("iad-1").ip().to_string()), "{text}");

    let json = fleet.node("ns1").admin_json("/v1/explain?name=www.cdn.test&client=177.32.0.9");
    assert!(json.to_string().contains("iad"), "{json}");
}
