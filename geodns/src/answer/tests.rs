//! Answers by example from the RFCs, and what every answer keeps to whatever was asked.

use hickory_proto::op::Message;
use proptest::prelude::*;
use shared::prefix::Prefix;
use shared::time::UnixMillis;

use super::*;
use crate::edns;
use crate::name::Name;
use crate::present::{Presented, present};
use crate::testing::{self, FRA, IN_ASIA};
use crate::wire::write_query;

mod cookies_and_rates;
mod options;
mod rfc7871;

const NOW: UnixMillis = UnixMillis(1_559_731_985_000);

fn snapshot() -> Snapshot {
    testing::snapshot(testing::world(&[FRA], |_| {}), &[])
}

fn client(transport: Transport) -> Client {
    Client { address: format!("{IN_ASIA}:5353").parse().unwrap(), transport, draw: 0 }
}

fn send(snapshot: &Snapshot, packet: &[u8], transport: Transport) -> (Vec<u8>, Facts) {
    send_to(&Server::default(), snapshot, packet, transport)
}

fn send_to(
    server: &Server,
    snapshot: &Snapshot,
    packet: &[u8],
    transport: Transport,
) -> (Vec<u8>, Facts) {
    let mut out = vec![0; 65_535];
    let context = Context { server, now: NOW };
    match answer(packet, &client(transport), &context, snapshot, &mut out) {
        Outcome::Respond { length, facts } => (out[..length].to_vec(), facts),
        Outcome::Drop(reason) => panic!("dropped: {reason:?}"),
    }
}

fn ask_with(
    snapshot: &Snapshot,
    name: &str,
    rtype: &str,
    subnet: Option<&str>,
) -> (Presented, Facts) {
    let name = Name::parse_absolute(name).unwrap();
    let subnet = subnet.map(|net| net.parse::<Prefix>().unwrap());
    let packet = write_query(7, &name, rtype::parse(rtype).unwrap(), subnet);
    let (response, facts) = send(snapshot, &packet, Transport::Udp);
    (present(&response).unwrap(), facts)
}

fn ask(name: &str, rtype: &str) -> Presented {
    ask_with(&snapshot(), name, rtype, None).0
}

/// A query without EDNS.
fn plain(name: &str, qtype: u16, qclass: u16) -> Vec<u8> {
    let mut packet = vec![0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    packet.extend_from_slice(Name::parse_absolute(name).unwrap().as_wire());
    packet.extend(qtype.to_be_bytes());
    packet.extend(qclass.to_be_bytes());
    packet
}

const SOA: &str = "cdn.test. 60 IN SOA ns1.cdn.test. hostmaster.cdn.test. 7 3600 600 1209600 60";

/// RFC 1034 §4.3.2, by example: name, type, code, flags, answers, authority.
#[test]
fn answers_follow_rfc_1034_section_4_3_2() {
    let soa = &[SOA][..];
    let none: &[&str] = &[];
    for (name, rtype, rcode, flags, answer, authority) in [
        (
            "static.cdn.test",
            "A",
            "NOERROR",
            "qr aa",
            &["static.cdn.test. 300 IN A 192.0.2.80"][..],
            none,
        ),
        (
            "STATIC.cdn.TEST",
            "A",
            "NOERROR",
            "qr aa",
            &["STATIC.cdn.TEST. 300 IN A 192.0.2.80"],
            none,
        ),
        ("static.cdn.test", "AAAA", "NOERROR", "qr aa", none, soa),
        ("nope.cdn.test", "A", "NXDOMAIN", "qr aa", none, soa),
        ("x.static.cdn.test", "A", "NXDOMAIN", "qr aa", none, soa),
        // Empty non-terminals exist (RFC 8020).
        ("b.cdn.test", "A", "NOERROR", "qr aa", none, soa),
        ("img.cdn.test", "A", "NOERROR", "qr aa", none, soa),
        (
            "cdn.test",
            "NS",
            "NOERROR",
            "qr aa",
            &["cdn.test. 300 IN NS ns1.cdn.test.", "cdn.test. 300 IN NS ns2.cdn.test."],
            none,
        ),
        // Steered names exist for every type.
        ("www.cdn.test", "TXT", "NOERROR", "qr aa", &["www.cdn.test. 300 IN TXT \"hello\""], none),
        ("www.cdn.test", "MX", "NOERROR", "qr aa", none, soa),
        ("a.img.cdn.test", "MX", "NOERROR", "qr aa", none, soa),
        (
            "www.cdn.test",
            "A",
            "NOERROR",
            "qr aa",
            &["www.cdn.test. 60 IN A 192.0.0.1", "www.cdn.test. 60 IN A 192.0.0.2"],
            none,
        ),
        (
            "a.b.img.cdn.test",
            "A",
            "NOERROR",
            "qr aa",
            &["a.b.img.cdn.test. 60 IN A 192.0.0.1", "a.b.img.cdn.test. 60 IN A 192.0.0.2"],
            none,
        ),
        (
            "www.cdn.test",
            "AAAA",
            "NOERROR",
            "qr aa",
            &["www.cdn.test. 60 IN AAAA 2001:db8:1::1", "www.cdn.test. 60 IN AAAA 2001:db8:1::2"],
            none,
        ),
        // Wildcards (RFC 4592).
        (
            "x.y.wild.cdn.test",
            "TXT",
            "NOERROR",
            "qr aa",
            &["x.y.wild.cdn.test. 300 IN TXT \"wildcard\""],
            none,
        ),
        ("x.wild.cdn.test", "A", "NOERROR", "qr aa", none, soa),
        ("wild.cdn.test", "TXT", "NOERROR", "qr aa", none, soa),
        // Aliases, in order.
        (
            "chain1.cdn.test",
            "A",
            "NOERROR",
            "qr aa",
            &[
                "chain1.cdn.test. 300 IN CNAME chain2.cdn.test.",
                "chain2.cdn.test. 300 IN CNAME static.cdn.test.",
                "static.cdn.test. 300 IN A 192.0.2.80",
            ],
            none,
        ),
        (
            "chain1.cdn.test",
            "CNAME",
            "NOERROR",
            "qr aa",
            &["chain1.cdn.test. 300 IN CNAME chain2.cdn.test."],
            none,
        ),
        (
            "chain1.cdn.test",
            "MX",
            "NOERROR",
            "qr aa",
            &[
                "chain1.cdn.test. 300 IN CNAME chain2.cdn.test.",
                "chain2.cdn.test. 300 IN CNAME static.cdn.test.",
            ],
            soa,
        ),
        (
            "dangling.cdn.test",
            "A",
            "NXDOMAIN",
            "qr aa",
            &["dangling.cdn.test. 300 IN CNAME nowhere.cdn.test."],
            soa,
        ),
        (
            "away.cdn.test",
            "A",
            "NOERROR",
            "qr aa",
            &["away.cdn.test. 300 IN CNAME www.example."],
            none,
        ),
        (
            "alias.cdn.test",
            "A",
            "NOERROR",
            "qr aa",
            &[
                "alias.cdn.test. 300 IN CNAME www.cdn.test.",
                "www.cdn.test. 60 IN A 192.0.0.1",
                "www.cdn.test. 60 IN A 192.0.0.2",
            ],
            none,
        ),
        // Delegations: no AA, and DS is the parent's.
        (
            "x.sub.cdn.test",
            "A",
            "NOERROR",
            "qr",
            none,
            &["sub.cdn.test. 300 IN NS ns.sub.cdn.test."],
        ),
        (
            "sub.cdn.test",
            "NS",
            "NOERROR",
            "qr",
            none,
            &["sub.cdn.test. 300 IN NS ns.sub.cdn.test."],
        ),
        (
            "ns.sub.cdn.test",
            "A",
            "NOERROR",
            "qr",
            none,
            &["sub.cdn.test. 300 IN NS ns.sub.cdn.test."],
        ),
        ("sub.cdn.test", "DS", "NOERROR", "qr aa", none, soa),
        // Outside of our zones.
        ("www.example", "A", "REFUSED", "qr", none, none),
        (".", "NS", "REFUSED", "qr", none, none),
        ("test", "SOA", "REFUSED", "qr", none, none),
        ("cdn.test", "AXFR", "REFUSED", "qr", none, none),
        ("cdn.test", "IXFR", "REFUSED", "qr", none, none),
    ] {
        let got = ask(name, rtype);
        let context = format!("{name} {rtype}");
        assert_eq!((got.rcode.as_str(), got.flags.join(" ").as_str()), (rcode, flags), "{context}");
        assert_eq!(got.answer, answer, "{context}");
        assert_eq!(got.authority, authority, "{context}");
        assert_eq!(got.udp_size, Some(1232), "{context}");
    }
}

#[test]
fn referrals_carry_their_glue_rfc_9471() {
    assert_eq!(ask("x.sub.cdn.test", "A").additional, ["ns.sub.cdn.test. 300 IN A 192.0.2.7"]);
}

#[test]
fn dnames_make_cnames_rfc_6672_section_3_2() {
    let got = ask("x.old.cdn.test", "A");
    assert_eq!(got.answer.len(), 3, "{:?}", got.answer);
    assert!(got.answer[0].starts_with("old.cdn.test. 300 IN DNAME"));
    assert_eq!(got.answer[1], "x.old.cdn.test. 300 IN CNAME x.new.cdn.test.");
    assert_eq!(got.answer[2], "x.new.cdn.test. 300 IN A 192.0.2.99");
    assert_eq!(ask("old.cdn.test", "A").answer, [] as [&str; 0]);
    let zones = ask("y.old.cdn.test", "A");
    assert_eq!((zones.rcode.as_str(), zones.authority.len()), ("NXDOMAIN", 1));
}

#[test]
fn alias_loops_end() {
    for (name, aliases) in [("loop1.cdn.test", 2), ("self.cdn.test", 1), ("x.spin.cdn.test", 2)] {
        let mut got = ask(name, "A");
        got.answer.dedup();
        assert_eq!((got.rcode.as_str(), got.answer.len()), ("NOERROR", aliases), "{name}");
    }
    // Without a loop, too, there is an end.
    let long = ask("long0.cdn.test", "A");
    assert_eq!((long.rcode.as_str(), long.answer.len()), ("NOERROR", MAX_ALIASES));
}

#[test]
fn any_gets_one_rrset_rfc_8482_section_4_1() {
    assert_eq!(ask("cdn.test", "ANY").answer.len(), 2, "the NS set");
    assert_eq!(ask("www.cdn.test", "ANY").answer.len(), 1, "the TXT set");
    assert_eq!(ask("a.img.cdn.test", "ANY").answer.len(), 2, "addresses of one family");
    assert_eq!(ask("b.cdn.test", "ANY").authority, [SOA]);
}

#[test]
fn other_classes_are_refused() {
    for qclass in [class::CH, class::ANY, 4, 0, 254] {
        let (response, facts) = send(&snapshot(), &plain("cdn.test", 16, qclass), Transport::Udp);
        let got = present(&response).unwrap();
        assert_eq!((got.rcode.as_str(), facts.reason), ("REFUSED", Reason::Class));
    }
}

/// A query with EDNS and these options.
fn with_options(name: &str, qtype: u16, options: &[(u16, &[u8])]) -> Vec<u8> {
    let mut packet = plain(name, qtype, class::IN);
    packet[11] = 1;
    packet.extend([0, 0, 41, 4, 208, 0, 0, 0, 0]);
    let length: usize = options.iter().map(|(_, data)| 4 + data.len()).sum();
    packet.extend(u16::try_from(length).unwrap().to_be_bytes());
    for (code, data) in options {
        packet.extend(code.to_be_bytes());
        packet.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        packet.extend(*data);
    }
    packet
}

/// Code and data of the options of a response, in order.
fn options_of(response: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let message = Message::from_vec(response).unwrap();
    let Some(edns) = &message.edns else { return Vec::new() };
    let options = edns.options().as_ref();
    options
        .iter()
        .map(|(code, option)| (u16::from(*code), Vec::<u8>::try_from(option).unwrap()))
        .collect()
}

fn named() -> Server {
    Server {
        nsid: Some(b"ns1.icn".as_slice().into()),
        version: Some(b"meridian 1".as_slice().into()),
        idle: std::time::Duration::from_secs(10),
        ..Server::default()
    }
}

#[test]
fn client_subnets_are_echoed_with_their_scope_rfc_7871_section_7_2_1() {
    let snapshot = snapshot();
    for (name, rtype, subnet, scope) in [
        ("www.cdn.test", "A", "80.0.0.0/20", 4),
        ("www.cdn.test", "AAAA", "80.0.0.0/20", 4),
        ("a.img.cdn.test", "A", "80.0.0.0/20", 4),
        ("www.cdn.test", "A", "0.0.0.0/0", 0),
        ("www.cdn.test", "A", "10.0.0.0/8", 0),
        ("www.cdn.test", "A", "2a00::/32", 11),
        // Negative, static, refused and referred answers hold for everybody (§7.4).
        ("www.cdn.test", "MX", "80.0.0.0/20", 0),
        ("static.cdn.test", "A", "80.0.0.0/20", 0),
        ("nope.cdn.test", "A", "80.0.0.0/20", 0),
        ("www.example", "A", "80.0.0.0/20", 0),
        ("x.sub.cdn.test", "A", "80.0.0.0/20", 0),
    ] {
        let (got, _) = ask_with(&snapshot, name, rtype, Some(subnet));
        let echoed = got.subnet.unwrap();
        assert_eq!(format!("{}/{}", echoed.address, echoed.source_bits), subnet, "{name}");
        assert_eq!(echoed.scope_bits, scope, "{name} {rtype} {subnet}");
    }
    assert_eq!(ask("www.cdn.test", "A").subnet, None, "none asked, none answered");
}

#[test]
fn an_alias_is_not_followed_into_a_narrower_scope_rfc_7871_section_7_2_1() {
    let (got, facts) = ask_with(&snapshot(), "alias.cdn.test", "A", Some("80.0.0.0/20"));
    assert_eq!(got.answer, ["alias.cdn.test. 300 IN CNAME www.cdn.test."]);
    assert_eq!((got.subnet.unwrap().scope_bits, facts.reason), (0, Reason::Alias));
}

#[test]
fn udp_answers_keep_to_the_clients_size_and_ours() {
    let snapshot = snapshot();
    let name = Name::parse_absolute("big.cdn.test").unwrap();
    let with_size = |size: u16| {
        let mut packet = write_query(7, &name, rtype::TXT, None);
        let at = packet.len() - 8;
        packet[at..at + 2].copy_from_slice(&size.to_be_bytes());
        send(&snapshot, &packet, Transport::Udp)
    };
    for (size, truncated) in [(0, true), (512, true), (560, true), (640, false), (65_535, false)] {
        let (response, facts) = with_size(size);
        let got = Message::from_vec(&response).unwrap();
        assert_eq!((got.metadata.truncation, facts.truncated), (truncated, truncated), "{size}");
        assert!(response.len() <= usize::from(size.clamp(512, 1232)), "{size}");
        assert_eq!(got.answers.is_empty(), truncated, "{size}");
        assert!(got.edns.is_some());
    }
    let (response, _) = send(&snapshot, &plain("big.cdn.test", rtype::TXT, 1), Transport::Udp);
    let got = Message::from_vec(&response).unwrap();
    assert!(got.metadata.truncation && got.edns.is_none() && got.metadata.recursion_desired);
    let (response, _) = send(&snapshot, &plain("big.cdn.test", rtype::TXT, 1), Transport::Tcp);
    assert_eq!(Message::from_vec(&response).unwrap().answers.len(), 5);
}

#[test]
fn from_port_0_nobody_asks() {
    let client = Client { address: "1.2.3.4:0".parse().unwrap(), ..client(Transport::Udp) };
    let context = Context { server: &Server::default(), now: NOW };
    let packet = plain("cdn.test", 1, 1);
    let outcome = answer(&packet, &client, &context, &snapshot(), &mut [0; 512]);
    assert!(matches!(outcome, Outcome::Drop(Reason::SourcePort)));
}

#[test]
fn when_all_is_down_the_answer_says_what_the_policy_says() {
    use crate::world::AllDown;
    for (all_down, rcode, answers, authority) in [
        (AllDown::NoData, "NOERROR", 0, 1),
        (AllDown::ServFail, "SERVFAIL", 0, 0),
        (AllDown::LastGood, "NOERROR", 2, 0),
    ] {
        let all = testing::snapshot(testing::world(&[], |policy| policy.all_down = all_down), &[]);
        let down = all.with_health(testing::down(&all.tables.world, &[0, 1, 2, 3, 4, 5]));
        let (got, facts) = ask_with(&down, "www.cdn.test", "A", Some("80.0.0.0/20"));
        assert_eq!(
            (got.rcode.as_str(), got.answer.len(), got.authority.len()),
            (rcode, answers, authority)
        );
        if answers == 0 {
            assert_eq!(facts.scope_bits, 0);
        }
        // Without addresses of a family there is no data, and that is no outage.
        let (got, facts) = ask_with(&down, "www.cdn.test", "AAAA", None);
        assert_eq!((got.rcode.as_str(), facts.reason), ("NOERROR", Reason::NoFamily));
    }
}

fn valid_names() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "www.cdn.test",
        "a.img.cdn.test",
        "static.cdn.test",
        "alias.cdn.test",
        "loop1.cdn.test",
        "x.old.cdn.test",
        "x.sub.cdn.test",
        "nope.cdn.test",
        "big.cdn.test",
        "cdn.test",
        "example",
        ".",
    ])
}

/// What every answer keeps to: it parses, belongs to the query, and is within its limit.
fn check(packet: &[u8], snapshot: &Snapshot) -> Result<(), TestCaseError> {
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut out = vec![0xaa; 65_535];
        let context = Context { server: &Server::default(), now: NOW };
        let Outcome::Respond { length, facts } =
            answer(packet, &client(transport), &context, snapshot, &mut out)
        else {
            continue;
        };
        let response = &out[..length];
        prop_assert!(transport == Transport::Tcp || length <= 1232);
        let message = Message::from_vec(response);
        let message =
            message.map_err(|error| TestCaseError::fail(format!("{error}: {response:?}")))?;
        prop_assert_eq!(message.metadata.id.to_be_bytes(), [packet[0], packet[1]]);
        prop_assert_eq!(u16::from(message.metadata.response_code), facts.rcode as u16);
        prop_assert!(!message.metadata.recursion_available);
        if let Ok(query) = crate::wire::parse(packet) {
            let name = query.echo.question_name();
            prop_assert_eq!(&response[12..12 + name.len()], name);
            prop_assert_eq!(query.edns.is_some(), message.edns.is_some());
            let udp_limit = query.edns.map_or(512, |edns| edns.udp_size.min(1232));
            prop_assert!(transport == Transport::Tcp || length <= usize::from(udp_limit));
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes_are_safe(packet in prop::collection::vec(any::<u8>(), 0..300)) {
        check(&packet, &snapshot())?;
    }

    #[test]
    fn mutated_queries_are_safe(
        name in valid_names(),
        rtype in prop::sample::select(vec![1_u16, 2, 5, 6, 15, 16, 28, 39, 43, 46, 252, 255, 65535]),
        subnet in prop::option::of((any::<[u8; 4]>(), 0_u8..=32)),
        mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let subnet = subnet.map(|(octets, bits)| Prefix::containing(octets.into(), bits));
        let mut packet = write_query(0x1234, &Name::parse_absolute(name).unwrap(), rtype, subnet);
        for (at, value) in mutations {
            let at = at.index(packet.len());
            packet[at] = value;
        }
        if let Some(cut) = cut {
            packet.truncate(cut.index(packet.len()) + 1);
        }
        check(&packet, &snapshot())?;
    }

    /// Names as deep and as long as they get cost no more than their labels.
    #[test]
    fn deep_names_are_bounded(labels in 1_usize..127) {
        let wire = [b"\x01a".repeat(labels.min(121)).as_slice(), b"\x03cdn\x04test\0"].concat();
        let name = Name::from_wire(&wire[..]).unwrap();
        let packet = write_query(1, &name, 1, None);
        let (response, facts) = send(&snapshot(), &packet, Transport::Udp);
        prop_assert_eq!(facts.rcode, Rcode::NxDomain);
        prop_assert!(response.len() <= 512 + 40);
    }
}
