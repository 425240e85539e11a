//! Shares that datacenters have at most, from outside: counted over the Internet's networks, told, and the same over TCP.

use std::collections::BTreeMap;
use std::net::IpAddr;

use harness::dns::Query;
use harness::expect;

use super::unchecked;

#[test]
fn a_datacenter_takes_its_share_of_clients_and_the_others_go_to_their_next() {
    let mut fleet = unchecked("").write();
    fleet.edit("[steering.web]\n", "[steering.web]\nmax_share = { iad = 0.25 }\n");
    fleet.node_mut("ns1").start();
    let ns = fleet.node("ns1").dns();
    let names: BTreeMap<IpAddr, &str> = ["icn-1", "fra-1", "iad-1"]
        .into_iter()
        .map(|edge| (IpAddr::V4(fleet.node(edge).ip()), edge))
        .collect();
    let mut watch = fleet.node("ns1").watch();
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    let mut moved = None;
    // America has half of IPv4: 8.0.0.0/8 and 12.0.0.0/8 are among its blocks, 80.0.0.0/8 is Europe's.
    for n in 0..120_u32 {
        let (block, part) = ([8, 12, 80][n as usize % 3], n * 2);
        let subnet = format!("{block}.{part}.0.0/16");
        let query = Query::a("www.cdn.test").subnet(&subnet);
        let answer = query.udp(ns);
        let edge = names[&answer.addresses()[0]];
        assert_eq!(query.tcp(ns).addresses(), answer.addresses(), "{subnet}");
        *counts.entry(edge).or_default() += 1;
        if block == 80 {
            assert_eq!(edge, "fra-1", "{subnet}");
        } else {
            // As fine as what is moved.
            assert_eq!(answer.subnet().map(|(_, _, scope)| scope), Some(16), "{subnet}");
            if edge != "iad-1" {
                moved = Some(format!("{block}.{part}.0.1"));
            }
        }
    }
    // Virginia keeps a quarter of all, which is about half of its own.
    let kept = counts["iad-1"];
    assert!((25..55).contains(&kept), "{counts:?}");
    expect!(watch,
        geodns_answers_total { policy = "web", datacenter = "fra", reason = "first-choice" } += 80,
        geodns_answers_total { policy = "web", datacenter = "iad", reason = "first-choice" } += 2 * kept,
        geodns_answers_total { policy = "web", datacenter = "fra", reason = "max-share" } += 2 * (80 - kept),
    );
    let client = moved.expect("some go elsewhere");
    let told =
        fleet.node("ns1").admin_json(&format!("/v1/explain?name=www.cdn.test&client={client}"));
    assert_eq!(told["reason"], "max-share", "{told}");
    assert!(told.to_string().contains("has all the clients that it may have"), "{told}");
}
