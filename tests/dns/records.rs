//! Record types that are answered from the same decision: HTTPS beside A and AAAA, ALIAS, and the explanation in DNS.

use std::net::IpAddr;

use harness::dns::{Answer, Query};
use harness::expect;
use harness::fleet::Fleet;
use harness::plan::Plan;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::svcb::{SVCB, SvcParamValue};
use hickory_proto::rr::{RData, RecordType};

/// Networks whose nearest datacenter by the built-in geography is the one named.
const SUBNETS: [(&str, &str); 2] = [("icn", "1.208.0.0/16"), ("fra", "80.0.0.0/16")];

/// Two datacenters whose edges all listen for `https` on one port, and a third whose edges do not listen for it.
fn planned() -> Plan {
    let mut plan = Plan::new().three_datacenters().nameserver("ns1", "icn");
    for (name, datacenter, host, https) in [
        ("icn-1", "icn", 1, "https = [\"127.0.0.1:8443\"]"),
        ("icn-2", "icn", 2, "https = [\"127.0.0.2:8443\"]"),
        ("fra-1", "fra", 3, "https = [\"127.0.0.3:8443\"]"),
        ("iad-1", "iad", 4, ""),
    ] {
        plan = plan.toml(&format!(
            "[edge.{name}]\ndatacenter = \"{datacenter}\"\naddress = [\"192.0.2.{host}\", \"2001:db8::{host}\"]\n\
             http = [\"127.0.0.{host}:8080\"]\n{https}\nadmin = \"127.0.0.{host}:9\""
        ));
    }
    plan.toml(
        "[steering.web]\ndatacenters = [\"icn\", \"fra\"]\nanswers = 2\nttl = { max = \"30s\", min = \"1s\" }\n\
         [steering.plain]\nttl = { max = \"30s\", min = \"1s\" }",
    )
    .zone(
        "cdn.test",
        "@ 20 IN ALIAS www\n@ IN TXT apex\nto-www IN CNAME www\nstatic IN A 192.0.2.80\nshop IN ANAME static\n\
         own IN HTTPS 0 www\n_explain.plain IN TXT mine",
        &[("www", "web"), ("*.img", "web"), ("plain", "plain"), ("own", "web")],
    )
}

#[track_caller]
fn name_server() -> Fleet {
    let mut fleet = planned().write();
    fleet.node_mut("ns1").start();
    fleet
}

fn https(name: &str) -> Query {
    Query::new(name, RecordType::HTTPS)
}

/// TTL and data of the one HTTPS record.
#[track_caller]
fn service(answer: &Answer) -> (u32, SVCB) {
    let [record] = answer.message.answers.as_slice() else { panic!("{:?}", answer.answers()) };
    match &record.data {
        RData::HTTPS(https) => (record.ttl, https.0.clone()),
        other => panic!("{other}"),
    }
}

fn hints(svcb: &SVCB) -> Vec<IpAddr> {
    let mut hints: Vec<IpAddr> = Vec::new();
    for (_, value) in &svcb.svc_params {
        match value {
            SvcParamValue::Ipv4Hint(list) => hints.extend(list.0.iter().map(|a| IpAddr::V4(a.0))),
            SvcParamValue::Ipv6Hint(list) => hints.extend(list.0.iter().map(|a| IpAddr::V6(a.0))),
            _ => {}
        }
    }
    hints.sort();
    hints
}

/// RFC 9460 §7: what a client is told of the service and the addresses it gets are of one decision.
#[test]
fn rfc9460_https_records_say_what_the_addresses_say() {
    let fleet = name_server();
    let ns = fleet.node("ns1");
    let mut watch = ns.watch();
    for name in ["www.cdn.test", "a.b.img.cdn.test", "cdn.test"] {
        for (datacenter, subnet) in SUBNETS {
            let answer = https(name).subnet(subnet).udp(ns.dns());
            let (ttl, svcb) = service(&answer);
            assert_eq!((svcb.svc_priority, svcb.target_name.to_string().as_str()), (1, "."));
            let params: Vec<String> =
                svcb.svc_params.iter().map(|(key, value)| format!("{key}={value}")).collect();
            assert!(params[0].starts_with("alpn=") && params[0].contains("h2"), "{params:?}");
            assert_eq!(svcb.svc_params[1].1, SvcParamValue::Port(8443), "{params:?}");
            let v4 = Query::a(name).subnet(subnet).udp(ns.dns());
            let v6 = Query::new(name, RecordType::AAAA).subnet(subnet).udp(ns.dns());
            let mut addresses = [v4.addresses(), v6.addresses()].concat();
            addresses.sort();
            assert_eq!(hints(&svcb), addresses, "{name} {datacenter}");
            assert_eq!(addresses.len(), if datacenter == "icn" { 4 } else { 2 });
            assert_eq!((answer.subnet(), Some(ttl)), (v4.subnet(), v4.ttl()), "{name}");
            assert_eq!(v4.subnet(), v6.subnet());
            assert_eq!(ttl, if name == "cdn.test" { 20 } else { 30 });
        }
    }
    let per_datacenter = 3 * 3;
    expect!(watch,
        geodns_answers_total { policy = "web", datacenter = "icn", reason = "first-choice" } += per_datacenter,
        geodns_answers_total { policy = "web", datacenter = "fra", reason = "first-choice" } += per_datacenter,
    );
}

/// An HTTPS record moves clients from `http` to `https`: a policy with an edge that does not listen for it has none.
#[test]
fn names_that_an_edge_without_https_may_answer_have_no_https_records() {
    let fleet = name_server();
    let ns = fleet.node("ns1").dns();
    for subnet in [SUBNETS[0].1, "0.0.0.0/0"] {
        let answer = https("plain.cdn.test").subnet(subnet).udp(ns);
        assert_eq!((answer.rcode(), answer.answers().len()), (ResponseCode::NoError, 0));
        assert!(answer.authorities()[0].starts_with("cdn.test. SOA "));
        assert_eq!(answer.subnet().unwrap().2, 0, "negative answers hold for everybody");
        assert!(!Query::a("plain.cdn.test").subnet(subnet).udp(ns).answers().is_empty());
    }
    // What the zone file says is answered as it stands.
    assert_eq!(https("own.cdn.test").udp(ns).answers(), ["own.cdn.test. HTTPS 0 www.cdn.test."]);
    // RFC 7871 §7.2.1: an alias is not followed into a narrower scope.
    let alias = https("to-www.cdn.test").subnet(SUBNETS[0].1).udp(ns);
    assert_eq!(alias.answers(), ["to-www.cdn.test. CNAME www.cdn.test."]);
}

#[test]
fn an_alias_stands_at_the_apex_beside_its_soa() {
    let fleet = name_server();
    let ns = fleet.node("ns1").dns();
    for (_, subnet) in SUBNETS {
        let apex = Query::a("cdn.test").subnet(subnet).udp(ns);
        let www = Query::a("www.cdn.test").subnet(subnet).udp(ns);
        assert_eq!((apex.addresses(), apex.subnet()), (www.addresses(), www.subnet()));
        assert_eq!((apex.ttl(), www.ttl()), (Some(20), Some(30)));
        assert!(apex.authoritative() && apex.answers()[0].starts_with("cdn.test. A "));
    }
    for kind in [RecordType::SOA, RecordType::NS, RecordType::TXT] {
        assert!(!Query::new("cdn.test", kind).udp(ns).answers().is_empty(), "{kind}");
    }
    let shop = Query::a("shop.cdn.test").subnet(SUBNETS[0].1).udp(ns);
    assert_eq!(
        (shop.answers()[0].as_str(), shop.subnet().unwrap().2),
        ("shop.cdn.test. A 192.0.2.80", 0)
    );
    let none = Query::new("shop.cdn.test", RecordType::AAAA).udp(ns);
    assert_eq!((none.rcode(), none.answers().len()), (ResponseCode::NoError, 0));
}

/// The tests' clients are on this machine.
#[test]
fn clients_on_this_machine_can_ask_why() {
    let fleet = name_server();
    let ns = fleet.node("ns1");
    let mut watch = ns.watch();
    for (datacenter, subnet) in SUBNETS {
        for name in ["www.cdn.test", "cdn.test", "a.img.cdn.test"] {
            let query = Query::new(&format!("_explain.{name}"), RecordType::TXT).subnet(subnet);
            let answer = query.udp(ns.dns());
            let texts = answer.answers();
            assert_eq!((texts.len(), answer.ttl()), (2, Some(0)), "A and AAAA: {texts:?}");
            assert!(texts[0].contains("policy=web"), "{texts:?}");
            assert!(
                texts[0].contains(&format!("datacenter={datacenter} reason=first-choice")),
                "{texts:?}"
            );
            assert!(
                texts[0].contains(&format!("by={} (subnet)", subnet.split('/').next().unwrap())),
                "{texts:?}"
            );
        }
    }
    let other = Query::new("_explain.nope.cdn.test", RecordType::TXT).udp(ns.dns());
    assert_eq!(other.rcode(), ResponseCode::NXDomain);
    let own = Query::new("_explain.plain.cdn.test", RecordType::TXT).udp(ns.dns());
    assert!(own.answers()[0].contains("mine"), "the zone's own name counts: {:?}", own.answers());
    expect!(watch,
        geodns_answers_total { policy = "web", datacenter = "", reason = "explained" } += 6,
    );
}
