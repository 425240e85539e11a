//! ALIAS, HTTPS records and `_explain`, by what hickory-proto reads of them.

use hickory_proto::op::Message;
use hickory_proto::rr::RData;
use hickory_proto::rr::rdata::svcb::{SVCB, SvcParamKey, SvcParamValue};
use proptest::prelude::*;
use shared::geo;
use shared::prefix::Prefix;
use shared::report::Report;
use shared::time::UnixMillis;

use crate::answer::{self, Client, Context, Outcome, Server, Transport, answer};
use crate::name::Name;
use crate::present::{Presented, present};
use crate::reason::Reason;
use crate::rtype;
use crate::service::{Service, Services};
use crate::snapshot::{Snapshot, Tables};
use crate::testing::{self, FRA, IAD, ICN, IN_ASIA};
use crate::wire::write_query;
use crate::world::{AllDown, Policy};

fn snapshot(v6: &[u16], service: Option<Service>, change: impl Fn(&mut Policy)) -> Snapshot {
    let world = testing::world(v6, change);
    let services = Services::uniform(&world, service);
    let geography = geo::World::new([], &[]);
    let tables = Tables::new(world, testing::zones(), geography).with_services(services);
    Snapshot::presumed_up(tables)
}

const SERVICE: Option<Service> = Some(Service { port: None });

fn ask_as(
    snapshot: &Snapshot,
    client: &str,
    name: &str,
    rtype: &str,
    subnet: Option<&str>,
) -> (Vec<u8>, answer::Facts) {
    let name = Name::parse_absolute(name).unwrap();
    let subnet = subnet.map(|net| net.parse::<Prefix>().unwrap());
    let packet = write_query(7, &name, rtype::parse(rtype).unwrap(), subnet);
    let client = Client { address: client.parse().unwrap(), transport: Transport::Tcp, draw: 3 };
    let server = Server::default();
    let context = Context { server: &server, now: UnixMillis(0) };
    let mut out = vec![0; 65_535];
    match answer(&packet, &client, &context, snapshot, &mut out) {
        Outcome::Respond { length, facts } => (out[..length].to_vec(), facts),
        Outcome::Drop(reason) => panic!("dropped: {reason:?}"),
    }
}

fn ask(snapshot: &Snapshot, name: &str, rtype: &str, subnet: Option<&str>) -> Presented {
    let client = format!("{IN_ASIA}:5353");
    present(&ask_as(snapshot, &client, name, rtype, subnet).0).unwrap()
}

/// The one HTTPS record of an answer: TTL and data.
fn service_of(packet: &[u8]) -> Option<(u32, SVCB)> {
    let message = Message::from_vec(packet).unwrap();
    assert!(message.answers.len() <= 1, "{:?}", message.answers);
    message.answers.into_iter().next().map(|record| match record.data {
        RData::HTTPS(https) => (record.ttl, https.0),
        other => panic!("{other}"),
    })
}

fn hints(svcb: &SVCB) -> Vec<String> {
    let mut hints = Vec::new();
    for (_, value) in &svcb.svc_params {
        match value {
            SvcParamValue::Ipv4Hint(list) => hints.extend(list.0.iter().map(|a| a.0.to_string())),
            SvcParamValue::Ipv6Hint(list) => hints.extend(list.0.iter().map(|a| a.0.to_string())),
            _ => {}
        }
    }
    hints
}

/// The data of records, without owner, TTL, class and type.
fn data(answer: &Presented) -> Vec<String> {
    answer.answer.iter().map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect()
}

#[test]
fn https_records_follow_the_decision_rfc_9460_section_7_3() {
    let snapshot = snapshot(&[FRA], SERVICE, |_| {});
    for (name, subnet) in [
        ("www.cdn.test", None),
        ("www.cdn.test", Some("80.0.0.0/20")),
        ("a.b.img.cdn.test", Some("80.0.0.0/20")),
        ("a.many.cdn.test", Some("2a00::/32")),
    ] {
        let client = format!("{IN_ASIA}:5353");
        let (packet, facts) = ask_as(&snapshot, &client, name, "HTTPS", subnet);
        let (ttl, svcb) = service_of(&packet).unwrap();
        assert_eq!((svcb.svc_priority, svcb.target_name.to_string().as_str()), (1, "."));
        let keys: Vec<u16> = svcb.svc_params.iter().map(|(key, _)| u16::from(*key)).collect();
        assert_eq!(keys, [1, 4, 6], "in order, and no port: it is 443");
        let alpn = svcb.svc_params.iter().find_map(|(key, value)| match (key, value) {
            (SvcParamKey::Alpn, SvcParamValue::Alpn(alpn)) => Some(alpn.0.clone()),
            _ => None,
        });
        assert_eq!(alpn.unwrap(), ["h2", "http/1.1"]);
        let (v4, v6) = (ask(&snapshot, name, "A", subnet), ask(&snapshot, name, "AAAA", subnet));
        assert_eq!(hints(&svcb), [data(&v4), data(&v6)].concat(), "{name} {subnet:?}");
        let scope = present(&packet).unwrap().subnet.map(|s| s.scope_bits);
        assert_eq!(scope, v4.subnet.map(|s| s.scope_bits));
        assert_eq!(scope, v6.subnet.map(|s| s.scope_bits));
        assert_eq!((ttl, facts.policy), (60, Some(0)));
    }
}

#[test]
fn https_records_name_a_port_only_when_it_is_another() {
    let snapshot = snapshot(&[], Some(Service { port: Some(8443) }), |_| {});
    let (packet, _) = ask_as(&snapshot, "1.208.0.0:53", "www.cdn.test", "HTTPS", None);
    let (_, svcb) = service_of(&packet).unwrap();
    assert!(svcb.svc_params.contains(&(SvcParamKey::Port, SvcParamValue::Port(8443))), "{svcb}");
    assert_eq!(hints(&svcb).len(), 2, "no family that the A and AAAA answers do not have");
}

#[test]
fn what_every_answered_edge_speaks_is_listed() {
    let snapshot = snapshot(&[], SERVICE, |_| {});
    let mut facts = testing::down(&snapshot.tables.world, &[]);
    let speaks = |protocols: &[&str]| {
        let protocols = protocols.iter().map(|p| (*p).to_owned()).collect();
        Some(std::sync::Arc::new(Report { protocols, ..Report::default() }))
    };
    for (edges, expected) in [
        ([Some(&["h3", "h2", "http/1.1"][..]), Some(&["h2", "h3"][..])], "h3,h2 no-default-alpn"),
        ([Some(&["h2", "http/1.1"][..]), Some(&["http/1.1"][..])], "http/1.1"),
        ([Some(&["h3"][..]), Some(&["h2"][..])], ""),
        ([Some(&["h3", "h2"][..]), None], "h2 no-default-alpn"),
    ] {
        facts.reports = edges.map(|edge| edge.and_then(speaks)).to_vec();
        facts.reports.resize(snapshot.tables.world.edges.len(), None);
        let seen = snapshot.with_health(facts.clone());
        let (packet, _) = ask_as(&seen, "1.208.0.0:53", "www.cdn.test", "HTTPS", None);
        let (_, svcb) = service_of(&packet).unwrap();
        let mut told = Vec::new();
        for (_, value) in &svcb.svc_params {
            match value {
                SvcParamValue::Alpn(alpn) => told.push(alpn.0.join(",")),
                SvcParamValue::NoDefaultAlpn => told.push("no-default-alpn".to_owned()),
                _ => {}
            }
        }
        assert_eq!(told.join(" "), expected, "{edges:?}");
    }
}

#[test]
fn without_the_service_there_is_no_data_for_anybody() {
    let snapshot = snapshot(&[FRA], None, |_| {});
    for name in ["www.cdn.test", "a.img.cdn.test", "flat.cdn.test"] {
        let (packet, facts) = ask_as(&snapshot, "1.208.0.0:53", name, "HTTPS", Some("80.0.0.0/20"));
        let got = present(&packet).unwrap();
        assert_eq!((got.rcode.as_str(), got.answer.len(), got.authority.len()), ("NOERROR", 0, 1));
        assert_eq!((got.subnet.unwrap().scope_bits, facts.reason), (0, Reason::NoData), "{name}");
    }
    // Nor is there another type because there is this one.
    assert_eq!(ask(&snapshot, "www.cdn.test", "SVCB", None).answer, [] as [&str; 0]);
}

#[test]
fn when_all_is_down_https_follows_the_policy_as_addresses_do() {
    for (all_down, rcode, answers) in [
        (AllDown::NoData, "NOERROR", 0),
        (AllDown::ServFail, "SERVFAIL", 0),
        (AllDown::All, "NOERROR", 1),
    ] {
        let up = snapshot(&[FRA], SERVICE, |policy| policy.all_down = all_down);
        let down = up.with_health(testing::down(&up.tables.world, &[0, 1, 2, 3, 4, 5]));
        let got = ask(&down, "www.cdn.test", "HTTPS", None);
        assert_eq!((got.rcode.as_str(), got.answer.len()), (rcode, answers), "{all_down:?}");
    }
}

#[test]
fn an_alias_is_answered_with_what_it_leads_to() {
    let snapshot = snapshot(&[FRA], SERVICE, |_| {});
    for (name, rtype, subnet, ttl, scope, of) in [
        // Lowest TTL of the ways: 40 s of the record, 300 s of the CNAME, 60 s of the policy.
        ("flat.cdn.test", "A", Some("80.0.0.0/20"), 40, 4, "www.cdn.test"),
        ("flat.cdn.test", "AAAA", Some("80.0.0.0/20"), 40, 4, "www.cdn.test"),
        ("chained.cdn.test", "A", Some("80.0.0.0/20"), 40, 4, "www.cdn.test"),
        ("fixed.cdn.test", "A", Some("80.0.0.0/20"), 200, 0, "static.cdn.test"),
        ("x.y.many.cdn.test", "A", Some("80.0.0.0/20"), 60, 4, "a.img.cdn.test"),
    ] {
        let (alias, itself) =
            (ask(&snapshot, name, rtype, subnet), ask(&snapshot, of, rtype, subnet));
        assert_eq!(data(&alias), data(&itself), "{name} {rtype}");
        for record in &alias.answer {
            assert!(record.starts_with(&format!("{name}. {ttl} IN {rtype} ")), "{record}");
        }
        assert_eq!(alias.subnet.unwrap().scope_bits, scope, "{name} {rtype}");
        assert!(!alias.answer.is_empty() && alias.flags.contains(&"aa".to_owned()));
    }
    let (packet, _) = ask_as(&snapshot, "1.208.0.0:53", "flat.cdn.test", "HTTPS", None);
    let (ttl, svcb) = service_of(&packet).unwrap();
    assert_eq!((ttl, svcb.target_name.to_string().as_str()), (40, "."));
    // What stands beside it is its own; what the target has beside addresses is not.
    assert_eq!(ask(&snapshot, "flat.cdn.test", "MX", None).answer.len(), 1);
    for (name, rtype) in [
        ("flat.cdn.test", "TXT"),
        ("fixed.cdn.test", "AAAA"),
        ("fixed.cdn.test", "ALIAS"),
        ("fixed.cdn.test", "CNAME"),
    ] {
        let got = ask(&snapshot, name, rtype, None);
        assert_eq!((got.rcode.as_str(), got.answer.len(), got.authority.len()), ("NOERROR", 0, 1));
    }
    assert_eq!(data(&ask(&snapshot, "fixed.cdn.test", "ANY", None)), ["192.0.2.80"]);
    // A CNAME to it is not followed into a narrower scope (RFC 7871 §7.2.1).
    assert_eq!(ask(&snapshot, "to-flat.cdn.test", "A", Some("80.0.0.0/20")).answer.len(), 1);
    assert_eq!(ask(&snapshot, "to-flat.cdn.test", "A", None).answer.len(), 3);
}

#[test]
fn clients_on_this_machine_are_told_why() {
    let snapshot = snapshot(&[FRA], SERVICE, |_| {});
    let explain = |client: &str, name: &str, rtype: &str| {
        let (packet, facts) = ask_as(&snapshot, client, name, rtype, Some("80.0.0.0/20"));
        (present(&packet).unwrap(), facts)
    };
    for client in ["127.0.0.1:53", "[::1]:53", "[::ffff:127.0.0.9]:53"] {
        let (got, facts) = explain(client, "_EXPLAIN.www.cdn.test", "TXT");
        assert_eq!(got.answer.len(), 2, "A and AAAA: {got:?}");
        assert!(got.answer[0].starts_with("_EXPLAIN.www.cdn.test. 0 IN TXT "), "{got:?}");
        for part in [
            "policy=web",
            "by=80.0.0.0 (subnet) scope=4",
            "list=fra=up ",
            "datacenter=fra reason=first-choice",
            "ttl=60 (",
        ] {
            assert!(got.answer[0].contains(part), "{part}: {got:?}");
        }
        assert_eq!((facts.reason, facts.policy), (Reason::Explained, Some(0)));
        assert_eq!(got.subnet.unwrap().scope_bits, 4);
    }
    let through = explain("127.0.0.1:53", "_explain.flat.cdn.test", "TXT").0;
    assert!(through.answer[0].contains("\"alias=www.cdn.test.\" \"policy=web\""), "{through:?}");
    assert!(through.answer[0].contains("ttl=40 (the TTL of the ALIAS"), "{through:?}");
    let under = explain("127.0.0.1:53", "_explain.a.img.cdn.test", "TXT").0;
    assert!(under.answer[0].contains("policy=web"), "{under:?}");
    let fixed = explain("127.0.0.1:53", "_explain.static.cdn.test", "TXT").0;
    assert!(fixed.answer[0].contains("not steered"), "{fixed:?}");
    // To others, of other types, and below what does not exist, it is a name like any other.
    for (client, name, rtype) in [
        ("192.0.2.1:53", "_explain.www.cdn.test", "TXT"),
        ("127.0.0.1:53", "_explain.www.cdn.test", "A"),
        ("127.0.0.1:53", "_explain.nope.cdn.test", "TXT"),
        ("127.0.0.1:53", "_explain._explain.www.cdn.test", "TXT"),
    ] {
        assert_eq!(explain(client, name, rtype).0.rcode, "NXDOMAIN", "{client} {name} {rtype}");
    }
    assert_eq!(explain("127.0.0.1:53", "_explain.www.example", "TXT").0.rcode, "REFUSED");
}

#[test]
fn long_explanations_go_on_in_the_next_string() {
    let record = super::text_record(&["a".repeat(300), "b".to_owned()]);
    assert_eq!(record[10..13], [1, 48, 255], "3 lengths, 301 octets");
    assert_eq!(record[12 + 256..12 + 256 + 2], [45, b'a']);
    assert_eq!(record[12 + 256 + 46..], [1, b'b']);
}

proptest! {
    /// Whatever is up, an HTTPS answer has the addresses of the A and the AAAA answer, and is there for everybody.
    #[test]
    fn https_and_addresses_agree(
        down in prop::collection::vec(0_u16..6, 0..6),
        subnet in (any::<[u8; 4]>(), 1_u8..=24),
        v6 in prop::collection::vec(prop::sample::select(vec![ICN, FRA, IAD]), 0..3),
    ) {
        let up = snapshot(&v6, SERVICE, |_| {});
        let seen = up.with_health(testing::down(&up.tables.world, &down));
        let subnet = Prefix::containing(subnet.0.into(), subnet.1).to_string();
        let (packet, _) = ask_as(&seen, "1.208.0.0:53", "www.cdn.test", "HTTPS", Some(&subnet));
        let (ttl, svcb) = service_of(&packet).unwrap();
        let of = |rtype| ask(&seen, "www.cdn.test", rtype, Some(&subnet));
        let (v4, v6) = (of("A"), of("AAAA"));
        prop_assert_eq!(hints(&svcb), [data(&v4), data(&v6)].concat());
        let https = present(&packet).unwrap();
        prop_assert_eq!(https.subnet.unwrap().scope_bits, v4.subnet.unwrap().scope_bits);
        let stated = v4.answer.iter().chain(&v6.answer).map(|line| line.split(' ').nth(1).unwrap());
        prop_assert_eq!(Some(ttl), stated.map(|ttl| ttl.parse::<u32>().unwrap()).min());
    }
}
