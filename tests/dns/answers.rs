//! Static data on the wire: what is there, what is not, whose it is not, how large it may be.

use harness::dns::{Query, Tcp};
use harness::expect;
use harness::plan::Plan;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use super::name_server;

#[test]
fn records_are_answered_over_udp_and_tcp() {
    let fleet = name_server();
    let ns = fleet.node("ns1");
    let mut watch = ns.watch();
    let cases = [
        (
            "static.cdn.test",
            RecordType::A,
            vec!["static.cdn.test. A 192.0.2.1", "static.cdn.test. A 192.0.2.2"],
        ),
        ("static.cdn.test", RecordType::AAAA, vec!["static.cdn.test. AAAA 2001:db8::1"]),
        ("cdn.test", RecordType::MX, vec!["cdn.test. MX 10 mail.cdn.test."]),
        (
            "cdn.test",
            RecordType::NS,
            vec!["cdn.test. NS ns1.cdn.test.", "cdn.test. NS ns2.cdn.test."],
        ),
        ("x.wild.cdn.test", RecordType::A, vec!["x.wild.cdn.test. A 192.0.2.77"]),
    ];
    for (name, kind, wanted) in &cases {
        let query = Query::new(name, *kind);
        for answer in [query.udp(ns.dns()), query.tcp(ns.dns())] {
            let mut got = answer.answers();
            got.sort();
            assert_eq!(&got, wanted, "{name} {kind}");
            assert_eq!(answer.rcode(), ResponseCode::NoError);
            assert!(answer.authoritative() && !answer.truncated());
            let metadata = &answer.message.metadata;
            assert!(metadata.recursion_desired, "RD is copied");
            assert!(!metadata.recursion_available && !metadata.authentic_data);
            assert!(answer.message.edns.is_none(), "no OPT to one who sent none");
        }
    }
    let soa = Query::new("cdn.test", RecordType::SOA).udp(ns.dns());
    assert!(
        soa.answers()[0].starts_with("cdn.test. SOA ns1.cdn.test. hostmaster.cdn.test. 1 3600 "),
        "{:?}",
        soa.answers()
    );
    expect!(watch,
        geodns_queries_total { proto = "udp", rcode = "NOERROR" } += 6,
        geodns_queries_total { proto = "tcp", rcode = "NOERROR" } += 5,
    );
}

#[test]
fn aliases_are_followed_within_the_zone() {
    let fleet = name_server();
    let answer = Query::a("alias.cdn.test").udp(fleet.node("ns1").dns());
    let got = answer.answers();
    // RFC 1034 §3.6.2: the alias first, then what it leads to.
    assert_eq!(got[0], "alias.cdn.test. CNAME static.cdn.test.");
    assert_eq!(answer.addresses().len(), 2, "{got:?}");
    let alias = Query::new("alias.cdn.test", RecordType::CNAME).udp(fleet.node("ns1").dns());
    assert_eq!(alias.answers(), ["alias.cdn.test. CNAME static.cdn.test."]);
}

/// RFC 2308 §2, §3: NXDOMAIN and NODATA carry the SOA, for no longer than its minimum.
#[test]
fn rfc2308_negative_answers_carry_the_soa() {
    let fleet = name_server();
    let ns = fleet.node("ns1");
    let cases = [
        ("none.cdn.test", RecordType::A, ResponseCode::NXDomain),
        ("x.static.cdn.test", RecordType::A, ResponseCode::NXDomain),
        ("static.cdn.test", RecordType::MX, ResponseCode::NoError),
        ("www.cdn.test", RecordType::TXT, ResponseCode::NoError),
        // RFC 8020: a name with names below it exists, even without records.
        ("b.c.cdn.test", RecordType::A, ResponseCode::NoError),
        ("c.cdn.test", RecordType::A, ResponseCode::NoError),
    ];
    for (name, kind, rcode) in cases {
        let answer = Query::new(name, kind).udp(ns.dns());
        assert_eq!(answer.rcode(), rcode, "{name} {kind}");
        assert!(answer.answers().is_empty() && answer.authoritative(), "{name} {kind}");
        assert!(
            answer.authorities()[0].starts_with("cdn.test. SOA "),
            "{name}: {:?}",
            answer.authorities()
        );
        assert_eq!(answer.message.authorities[0].ttl, 60, "{name}: the minimum of the SOA");
    }
}

#[test]
fn what_is_not_ours_is_refused() {
    let fleet = name_server();
    let ns = fleet.node("ns1");
    let mut watch = ns.watch();
    for name in ["example.com", "test", ".", "xcdn.test", "cdn.test.example.com"] {
        let answer = Query::a(name).udp(ns.dns());
        assert_eq!(answer.rcode(), ResponseCode::Refused, "{name}");
        assert!(!answer.authoritative() && answer.answers().is_empty(), "{name}");
        assert!(answer.authorities().is_empty(), "{name}: no referral upwards");
    }
    expect!(watch, geodns_queries_total { proto = "udp", rcode = "REFUSED" } += 5);
}

/// RFC 1035 §2.3.3, and what resolvers do to make forgery harder: the question comes back as it was spelt.
#[test]
fn the_case_of_the_question_is_kept() {
    let fleet = name_server();
    for name in ["StAtIc.CdN.tEsT", "WwW.cDn.TeSt", "NoNe.CDN.test"] {
        let answer = Query::a(name).udp(fleet.node("ns1").dns());
        let question = answer.message.queries[0].name().to_string();
        assert_eq!(question, format!("{name}."));
    }
}

/// RFC 6891 §6.1.1, §6.2.5, §7: OPT to those who sent one; options and flags unknown to us are ignored.
#[test]
fn rfc6891_edns_is_answered_with_edns() {
    let fleet = name_server();
    let ns = fleet.node("ns1").dns();
    for query in [
        Query::a("static.cdn.test").edns(4096),
        Query::a("static.cdn.test").edns(100),
        Query::a("none.cdn.test").edns(1232),
        Query::a("static.cdn.test").edns(1232).option(65_001, b"private"),
    ] {
        let answer = query.udp(ns);
        let edns = answer.message.edns.as_ref().expect("OPT");
        assert_eq!((edns.version(), edns.max_payload()), (0, 1232));
        assert!(matches!(answer.rcode(), ResponseCode::NoError | ResponseCode::NXDomain));
    }
    let answer = Query::a("static.cdn.test").edns_version(1).udp(ns);
    // 16 is BADVERS here and BADSIG in TSIG; hickory-proto reads it as the latter.
    assert_eq!(u16::from(answer.rcode()), 16);
    assert!(answer.answers().is_empty());
}

/// RFC 2181 §9, RFC 6891 §6.2: what does not fit is announced by TC, and comes whole over TCP.
#[test]
fn answers_are_truncated_at_the_smaller_of_the_clients_limit_and_1232() {
    let text = "x".repeat(200);
    let records: String =
        (0..9).map(|n| format!("big IN TXT \"{n}{text}\"\nmid{n} IN A 192.0.2.1\n")).collect();
    let three: String = (0..3).map(|n| format!("three IN TXT \"{n}{text}\"\n")).collect();
    let fleet = Plan::new()
        .nameserver("ns1", "icn")
        .datacenter("icn", 37.46, 126.44)
        .zone("cdn.test", &(records + &three), &[])
        .start();
    let ns = fleet.node("ns1").dns();
    let cases = [
        ("three", None, true, 512),
        ("three", Some(512), true, 512),
        ("three", Some(1232), false, 1232),
        ("big", Some(1232), true, 1232),
        ("big", Some(65_535), true, 1232),
    ];
    for (owner, size, truncated, most) in cases {
        let query = Query::new(&format!("{owner}.cdn.test"), RecordType::TXT);
        let query = size.map_or_else(|| query.clone(), |size| query.clone().edns(size));
        let answer = query.udp(ns);
        assert_eq!(answer.truncated(), truncated, "{owner} {size:?}");
        assert!(answer.bytes.len() <= most, "{owner} {size:?}: {} bytes", answer.bytes.len());
        assert_eq!(answer.answers().is_empty(), truncated, "{owner} {size:?}: all or nothing");
        let whole = query.tcp(ns);
        assert!(!whole.truncated());
        assert_eq!(whole.answers().len(), if owner == "big" { 9 } else { 3 });
    }
}

/// RFC 7766 §6.2.1.1, §8: several queries on one connection, messages in pieces.
#[test]
fn rfc7766_queries_are_pipelined_over_tcp() {
    let fleet = name_server();
    let mut tcp = Tcp::connect(fleet.node("ns1").dns());
    let queries: Vec<Query> = (0..20).map(|_| Query::a("static.cdn.test")).collect();
    let mut bytes = Vec::new();
    for query in &queries {
        let message = query.bytes();
        bytes.extend(u16::try_from(message.len()).unwrap().to_be_bytes());
        bytes.extend(message);
    }
    let (first, rest) = bytes.split_at(33);
    tcp.send_bytes(&first[..1]);
    tcp.send_bytes(&first[1..]);
    tcp.send_bytes(rest);
    let mut ids: Vec<u16> = Vec::new();
    for _ in &queries {
        let answer = tcp.receive().expect("an answer to each");
        assert_eq!(answer.addresses().len(), 2);
        ids.push(answer.message.metadata.id);
    }
    ids.sort_unstable();
    assert_eq!(ids, queries.iter().map(Query::id).collect::<Vec<_>>());
}
