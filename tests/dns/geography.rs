//! Steering by databases in MaxMind's format, written at run time: City, Country, ASN, the operator's networks before
//! them, IPv6 on both sides, and a database that breaks.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use harness::dns::Query;
use harness::fleet::Fleet;
use harness::plan::Plan;
use harness::process::{Program, Signal};
use harness::wait;
use hickory_proto::rr::RecordType;
use shared::geo::mmdb_writer::{CityRecord, Writer};

use super::{RECORDS, unchecked};

/// Networks that the registries would place elsewhere: 90.0.0.0/8 and 2a00::/12 are Europe's.
fn city_database() -> Vec<u8> {
    let mut writer = Writer::new("Test-City");
    let mut city = |network: &str, country, city, location| {
        let record = CityRecord { country, city, location, ..CityRecord::default() };
        writer.city(network.parse().unwrap(), &record);
    };
    city("90.1.0.0/16", "JP", "Tokyo", Some((35.68, 139.69)));
    city("90.2.0.0/16", "FR", "Paris", Some((48.86, 2.35)));
    city("90.2.128.0/17", "US", "New York", Some((40.71, -74.01)));
    city("90.4.0.0/16", "KR", "", None);
    city("2a00:1::/32", "KR", "Seoul", Some((37.57, 126.98)));
    writer.finish().unwrap()
}

fn country_database() -> Vec<u8> {
    let mut writer = Writer::new("Test-Country");
    writer.country("90.1.0.0/16".parse().unwrap(), "AU");
    writer.country("90.2.0.0/16".parse().unwrap(), "BR");
    writer.country("90.3.0.0/16".parse().unwrap(), "ZA");
    writer.country("2a00:1::/32".parse().unwrap(), "TW");
    writer.finish().unwrap()
}

fn asn_database() -> Vec<u8> {
    let mut writer = Writer::new("Test-ASN");
    writer.asn("90.2.0.0/16".parse().unwrap(), 64_500, "Example");
    writer.asn("90.2.64.0/18".parse().unwrap(), 64_501, "Other");
    writer.finish().unwrap()
}

#[track_caller]
fn assert_all_sent(fleet: &Fleet, cases: &[(&str, &str)]) {
    for (subnet, edge) in cases {
        let answer = Query::a("www.cdn.test").subnet(subnet).udp(fleet.node("ns1").dns());
        assert_eq!(answer.addresses(), [IpAddr::V4(fleet.node(edge).ip())], "{subnet}");
    }
}

#[track_caller]
fn scope(fleet: &Fleet, subnet: &str) -> u8 {
    let answer = Query::a("www.cdn.test").subnet(subnet).udp(fleet.node("ns1").dns());
    answer.subnet().unwrap().2
}

#[test]
fn a_city_database_decides_by_distance_and_the_registries_fill_its_gaps() {
    let plan = unchecked("[geo]\ndatabases = [\"city.mmdb\"]").file("city.mmdb", city_database());
    let mut fleet = plan.write();
    fleet.node_mut("ns1").start();
    assert_all_sent(
        &fleet,
        &[
            ("90.1.2.0/24", "icn-1"),
            ("90.2.3.0/24", "fra-1"),
            ("90.2.200.0/24", "iad-1"),
            // A country without a place in it.
            ("90.4.0.0/24", "icn-1"),
            ("2a00:1::/48", "icn-1"),
            ("90.9.0.0/24", "fra-1"),
            ("211.60.0.0/24", "icn-1"),
        ],
    );
    // As fine as the difference between neighbours, and no finer.
    assert_eq!(scope(&fleet, "90.2.200.0/24"), 17);
    assert_eq!(scope(&fleet, "90.2.3.0/24"), 17);
    // The /16 reaches into two answers: the longer scope asks the resolver to tell more.
    assert_eq!(scope(&fleet, "90.2.0.0/16"), 17);
    assert_eq!(scope(&fleet, "90.1.2.0/24"), 16);
}

#[test]
fn a_country_database_decides_by_the_countrys_place() {
    let plan = unchecked("[geo]\ndatabases = [\"c.mmdb\"]").file("c.mmdb", country_database());
    let mut fleet = plan.write();
    fleet.node_mut("ns1").start();
    assert_all_sent(
        &fleet,
        &[
            ("90.1.2.0/24", "icn-1"),
            ("90.2.3.0/24", "iad-1"),
            ("90.3.3.0/24", "fra-1"),
            ("90.9.9.0/24", "fra-1"),
            ("2a00:1:2::/48", "icn-1"),
        ],
    );
}

#[test]
fn networks_come_before_rules_and_rules_before_distance() {
    let mut fleet = unchecked(
        "[geo]\ndatabases = [\"city.mmdb\", \"asn.mmdb\"]\n\
         networks = { \"90.2.70.0/24\" = \"icn\", \"10.1.0.0/16\" = \"iad\" }",
    )
    .file("city.mmdb", city_database())
    .file("asn.mmdb", asn_database())
    .write();
    fleet.edit(
        "[steering.web]\n",
        "[steering.web]\nrules = [ { asn = [64501], to = [\"iad\"] }, { country = [\"JP\"], to = [\"fra\"] },\n\
         { network = [\"90.9.9.0/24\"], to = [\"icn\"] } ]\n",
    );
    fleet.node_mut("ns1").start();
    assert_all_sent(
        &fleet,
        &[
            ("90.2.3.0/24", "fra-1"),
            ("90.2.65.0/24", "iad-1"),
            ("90.2.70.0/24", "icn-1"),
            ("90.1.2.0/24", "fra-1"),
            ("90.9.9.0/24", "icn-1"),
            ("90.9.8.0/24", "fra-1"),
            // Nobody's on the Internet, but on the operator's map.
            ("10.1.2.0/24", "iad-1"),
        ],
    );
    // Nobody's, and on no map: the resolver's address decides, and the answer is for all it asks for.
    assert_eq!(scope(&fleet, "10.2.0.0/24"), 0);
}

#[test]
fn a_database_that_breaks_is_refused_and_the_old_one_goes_on() {
    let plan = unchecked("[geo]\ndatabases = [\"city.mmdb\"]").file("city.mmdb", city_database());
    let mut fleet = plan.write();
    fleet.node_mut("ns1").start();
    let path = fleet.dir().join("city.mmdb");
    let good = city_database();
    let moved = [("90.1.2.0/24", "icn-1"), ("90.2.200.0/24", "iad-1")];
    let reloaded = "geodns_config_last_reload_successful";
    let half = &good[..good.len() / 2];
    for broken in [&[][..], b"<html>404 Not Found</html>", half, &vec![0; 4096]] {
        std::fs::write(&path, broken).unwrap();
        let reply = fleet.node("ns1").admin_request("POST", "/v1/reload", "");
        assert_eq!(reply.status, 422, "{}", reply.text());
        let text = reply.text();
        assert!(text.contains("city.mmdb") && text.contains("fetch it again"), "{text}");
        assert!(text.contains("meridian.toml:"), "where it is named: {text}");
        assert_eq!(fleet.node("ns1").metrics().sum(reloaded, &[]), 0.0);
        assert_all_sent(&fleet, &moved);
    }
    std::fs::remove_file(&path).unwrap();
    fleet.node_mut("ns1").signal(Signal::Hup);
    wait::until("the missing database to be told", || {
        fleet.node("ns1").log().contains("cannot be read").then_some(())
    });
    let status = fleet.node("ns1").admin_json("/v1/status");
    let error = status["last_reload_error"].as_str().unwrap();
    assert!(error.contains("city.mmdb"), "{error}");
    assert_all_sent(&fleet, &moved);
    std::fs::write(&path, country_database()).unwrap();
    let output = fleet.run(Program::Geodns, &["reload", "--node", "ns1"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_all_sent(&fleet, &[("90.2.200.0/24", "iad-1"), ("90.3.3.0/24", "fra-1")]);
    assert_eq!(fleet.node("ns1").metrics().sum(reloaded, &[]), 1.0);
}

/// A database that puts most of the world elsewhere is not believed, until the operator says so.
#[test]
fn a_database_that_moves_the_world_is_refused_until_the_operator_allows_it() {
    let everywhere = |location| {
        let mut writer = Writer::new("Test-City");
        let record =
            CityRecord { country: "KR", location: Some(location), ..CityRecord::default() };
        writer.city("0.0.0.0/1".parse().unwrap(), &record);
        writer.city("2400::/12".parse().unwrap(), &record);
        writer.finish().unwrap()
    };
    let plan = unchecked("[geo]\ndatabases = [\"city.mmdb\"]\nmax_moved = 0.3")
        .file("city.mmdb", everywhere((37.57, 126.98)));
    let mut fleet = plan.write();
    fleet.node_mut("ns1").start();
    let reloaded = "geodns_config_last_reload_successful";
    assert_all_sent(&fleet, &[("90.1.2.0/24", "icn-1"), ("200.1.2.0/24", "iad-1")]);

    std::fs::write(fleet.dir().join("city.mmdb"), everywhere((48.86, 2.35))).unwrap();
    let reply = fleet.node("ns1").admin_request("POST", "/v1/reload", "");
    assert_eq!(reply.status, 422, "{}", reply.text());
    let text = reply.text();
    for part in
        ["meridian.toml:", "IPv4 clients", "`web`", "from icn to fra", "`max_moved` allows 30.0 %"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(fleet.node("ns1").metrics().sum(reloaded, &[]), 0.0);
    assert_all_sent(&fleet, &[("90.1.2.0/24", "icn-1"), ("200.1.2.0/24", "iad-1")]);
    let output = fleet.run(Program::Geodns, &["reload", "--node", "ns1"]);
    assert_eq!(output.status.code(), Some(78), "{}", String::from_utf8_lossy(&output.stderr));

    fleet.edit("max_moved = 0.3", "max_moved = 1.0");
    let output = fleet.run(Program::Geodns, &["reload", "--node", "ns1"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_all_sent(&fleet, &[("90.1.2.0/24", "fra-1"), ("200.1.2.0/24", "iad-1")]);
    assert_eq!(fleet.node("ns1").metrics().sum(reloaded, &[]), 1.0);
}

/// A port of the IPv6 loopback that is free for both.
fn free_v6() -> SocketAddr {
    loop {
        let tcp = TcpListener::bind("[::1]:0").unwrap();
        let address = tcp.local_addr().unwrap();
        if UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}

#[test]
fn ipv6_is_listened_on_and_answered() {
    let mut fleet = Plan::new()
        .three_datacenters()
        .nameserver("ns1", "icn")
        .edge("icn-1", "icn")
        .edge("fra-1", "fra")
        .edge("iad-1", "iad")
        .zone("cdn.test", RECORDS, &[("www", "web")])
        .toml("[steering.web]\norder = \"nearest\"\n[geo]\nnetworks = { \"::1/128\" = \"iad\" }")
        .write();
    let v6 = free_v6();
    let v4 = fleet.node("ns1").dns();
    fleet.edit(&format!("listen = [\"{v4}\"]"), &format!("listen = [\"{v4}\", \"{v6}\"]"));
    // Virginia has no IPv6: who is nearest to it gets the next one that has.
    for (edge, last) in [("icn-1", 1), ("fra-1", 2)] {
        let ip = fleet.node(edge).ip();
        let both = format!("address = [\"{ip}\", \"2001:db8::{last}\"]");
        fleet.edit(&format!("address = [\"{ip}\"]"), &both);
    }
    fleet.node_mut("ns1").start();
    let address = |last| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last));
    for server in [v4, v6] {
        for (subnet, wanted) in [
            ("2400:cb00::/48", address(1)),
            ("2a00:1450::/48", address(2)),
            ("2600:1f00::/48", address(2)),
            ("91.12.0.0/24", address(2)),
            ("24.30.0.0/24", address(2)),
        ] {
            let query = Query::new("www.cdn.test", RecordType::AAAA).subnet(subnet);
            assert_eq!(query.udp(server).addresses(), [wanted], "{subnet} by {server}");
            assert_eq!(query.tcp(server).addresses(), [wanted], "{subnet} by {server}");
        }
    }
    let by_resolver = Query::a("www.cdn.test").udp(v6).addresses();
    assert_eq!(by_resolver, [IpAddr::V4(fleet.node("iad-1").ip())], "::1 is given to Virginia");
    let none = Query::new("www.cdn.test", RecordType::AAAA).udp(v6);
    assert_eq!(none.addresses(), [address(2)]);
}
