//! What a server tells beside its records: cookies, identity, extended errors, idle times; and whom it stops telling
//! anything.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use harness::dns::{Answer, Query, Tcp};
use harness::fleet::Fleet;
use harness::process::Signal;
use harness::wait;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use serde_json::Value;

use super::unchecked;

const NSID: u16 = 3;
const COOKIE: u16 = 10;
const KEEPALIVE: u16 = 11;
const EXTENDED_ERROR: u16 = 15;

/// A name server with further keys.
#[track_caller]
fn name_server(keys: &str, more: &str) -> Fleet {
    let mut fleet = unchecked(more).write();
    fleet.edit("[nameserver.ns1]\n", &format!("[nameserver.ns1]\n{keys}\n"));
    fleet
}

/// The data of an option of an answer.
fn option(answer: &Answer, wanted: u16) -> Option<Vec<u8>> {
    let options = answer.message.edns.as_ref()?.options().as_ref();
    let (_, option) = options.iter().find(|(code, _)| u16::from(*code) == wanted)?;
    Some(Vec::try_from(option).unwrap())
}

#[test]
fn cookies_outlive_a_rollover_of_their_secret_rfc_9018_section_5() {
    let mut fleet = name_server("cookie_secret_file = \"cookie\"", "[log]\nquery = \"q.log\"");
    let secrets = fleet.dir().join("cookie");
    let (old, new) = ("e5e973e5a6b2a43f48e7dc849e37bfcf", "445536bcd2513298075a5d379663c962");
    std::fs::write(&secrets, format!("{old}\n")).unwrap();
    fleet.node_mut("ns1").start();
    let dns = fleet.node("ns1").dns();
    let ask = |cookie: &[u8]| {
        let answer = Query::a("static.cdn.test").option(COOKIE, cookie).udp(dns);
        assert_eq!((answer.rcode(), answer.addresses().len()), (ResponseCode::NoError, 2));
        option(&answer, COOKIE).expect("a cookie")
    };
    let learnt = ask(&[7; 8]);
    assert_eq!((learnt.len(), &learnt[..9]), (24, &[7, 7, 7, 7, 7, 7, 7, 7, 1][..]));
    assert_eq!(ask(&learnt), learnt);

    std::fs::write(&secrets, format!("{new}\n{old}\n")).unwrap();
    let reply = fleet.node("ns1").admin_request("POST", "/v1/reload", "");
    assert!((200..300).contains(&reply.status), "{}", reply.text());
    let renewed = ask(&learnt);
    assert_ne!(renewed, learnt);
    assert_eq!(ask(&renewed), renewed);

    // A file that is broken changes nothing.
    std::fs::write(&secrets, "no secret").unwrap();
    let reply = fleet.node("ns1").admin_request("POST", "/v1/reload", "");
    assert!(reply.text().contains("32 hexadecimal digits"), "{}", reply.text());
    assert_eq!(ask(&renewed), renewed);
    ask(&[9; 24]);
    let states = wait::until("six lines", || {
        let text = std::fs::read_to_string(fleet.dir().join("q.log")).ok()?;
        let states: Vec<String> = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["cookie"].to_string())
            .collect();
        (states.len() == 6).then_some(states)
    });
    let [first, valid @ .., last] = &states[..] else { panic!("{states:?}") };
    assert_eq!((first.as_str(), last.as_str()), ("\"client-only\"", "\"invalid\""));
    assert!(valid.iter().all(|state| state == "\"valid\""), "{states:?}");
}

/// What came back to a flood: whole, truncated, BADCOOKIE, nothing.
fn flood(dns: SocketAddr, query: &Query, count: usize) -> [usize; 4] {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(dns).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    for _ in 0..count {
        socket.send(&query.bytes()).unwrap();
    }
    let mut seen = [0, 0, 0, count];
    let mut buffer = [0; 2048];
    while let Ok(length) = socket.recv(&mut buffer) {
        let message = Message::from_vec(&buffer[..length]).unwrap();
        let kind = match u16::from(message.metadata.response_code) {
            23 => 2,
            _ if message.metadata.truncation => 1,
            _ => 0,
        };
        seen[kind] += 1;
        seen[3] -= 1;
    }
    seen
}

#[test]
fn a_flood_gets_few_answers_and_who_proves_its_address_gets_all() {
    let mut fleet = name_server("rate_limit = { responses = 20, slip = 4 }", "");
    fleet.node_mut("ns1").start();
    let dns = fleet.node("ns1").dns();
    let plain = Query::a("static.cdn.test");
    // 20 at once, 20 for each second that sending took, and a quarter of the others truncated.
    let [whole, truncated, bad_cookies, lost] = flood(dns, &plain, 400);
    assert!((20..200).contains(&whole), "{whole}");
    assert!(truncated > 20 && lost > 2 * truncated, "{truncated} {lost}");
    assert_eq!(bad_cookies, 0);

    let without = Query::a("static.cdn.test").option(COOKIE, &[7; 8]);
    let [whole, truncated, bad_cookies, lost] = flood(dns, &without, 400);
    assert!(whole < 200 && truncated == 0 && bad_cookies > 20 && lost > bad_cookies);

    let learnt = option(&without.tcp(dns), COOKIE).expect("no limit by TCP");
    let with = Query::a("static.cdn.test").option(COOKIE, &learnt);
    assert_eq!(flood(dns, &with, 100), [100, 0, 0, 0]);
    for _ in 0..50 {
        assert_eq!(plain.tcp(dns).addresses().len(), 2);
    }
    let metrics = fleet.node("ns1").metrics();
    assert!(metrics.sum("geodns_dropped_total", &[("reason", "rate-limit")]) > 400.0);
    assert!(metrics.sum("geodns_slipped_total", &[("as", "truncated")]) > 20.0);
    assert!(metrics.sum("geodns_slipped_total", &[("as", "badcookie")]) > 20.0);
    assert_eq!(metrics.sum("geodns_truncated_total", &[]), 0.0, "they would have fitted");

    fleet.edit("slip = 4 }", "slip = 4, exempt = [\"127.0.0.0/8\"] }");
    fleet.node_mut("ns1").signal(Signal::Hup);
    wait::until("the exemption", || (flood(dns, &plain, 100)[0] == 100).then_some(()));
}

#[test]
fn identity_is_told_where_it_is_configured() {
    let mut fleet = name_server("nsid = \"ns1.icn\"\nversion = \"meridian\"", "");
    fleet.node_mut("ns1").start();
    let dns = fleet.node("ns1").dns();
    let asked = Query::a("static.cdn.test").option(NSID, b"");
    for answer in [asked.udp(dns), asked.tcp(dns)] {
        assert_eq!(option(&answer, NSID).as_deref(), Some(b"ns1.icn".as_slice()));
    }
    for (name, text) in [("id.server", "ns1.icn"), ("version.bind", "meridian")] {
        let answer = Query::new(name, RecordType::TXT).class(3).udp(dns);
        assert_eq!(answer.answers(), [format!("{name}. TXT {text}")]);
    }
    let mut silent = name_server("", "");
    silent.node_mut("ns1").start();
    let dns = silent.node("ns1").dns();
    assert_eq!(option(&asked.udp(dns), NSID), None);
    let answer = Query::new("id.server", RecordType::TXT).class(3).edns(1232).udp(dns);
    assert_eq!(answer.rcode(), ResponseCode::Refused);
    assert_eq!(option(&answer, EXTENDED_ERROR), Some(vec![0, 21]));
}

#[test]
fn idle_times_are_told_and_kept_rfc_7828() {
    let mut fleet = name_server("tcp_idle = \"1s\"", "");
    fleet.node_mut("ns1").start();
    let dns = fleet.node("ns1").dns();
    let mut tcp = Tcp::connect(dns);
    tcp.send(&Query::a("static.cdn.test").option(KEEPALIVE, b"").bytes());
    let answer = tcp.receive().unwrap();
    assert_eq!(option(&answer, KEEPALIVE), Some(vec![0, 10]), "units of 100 ms");
    let begun = std::time::Instant::now();
    assert!(tcp.receive().is_none(), "closed by the server");
    assert!(begun.elapsed() > Duration::from_millis(900), "{:?}", begun.elapsed());
}

/// What CDNs and load balancers were found to get wrong: the list at github.com/dns-violations/dns-violations.
#[test]
fn the_known_violations_are_not_ours() {
    let mut fleet = name_server("", "");
    fleet.node_mut("ns1").start();
    let dns = fleet.node("ns1").dns();
    let both = |query: Query| [query.udp(dns), query.tcp(dns)];
    for name in ["WwW.cDn.TeSt", "STATIC.cdn.test", "NoNe.cdn.test"] {
        for answer in both(Query::a(name)) {
            // DVE-2017-0003, -0006: letters keep their case in the question, and in owners that repeat it.
            let name = format!("{name}.");
            assert_eq!(answer.message.queries[0].name().to_string(), name);
            assert!(answer.message.answers.iter().all(|record| record.name.to_string() == name));
        }
    }
    for name in ["cdn.test", "www.cdn.test", "static.cdn.test"] {
        // DVE-2017-0007, -2018-0004: NS is answered, with records or with none.
        for answer in both(Query::new(name, RecordType::NS)) {
            assert_eq!(answer.rcode(), ResponseCode::NoError);
            assert_eq!(answer.answers().len(), if name == "cdn.test" { 2 } else { 0 });
        }
    }
    for kind in [
        RecordType::AAAA,
        RecordType::MX,
        RecordType::TXT,
        RecordType::CAA,
        RecordType::SRV,
        RecordType::DS,
        RecordType::DNSKEY,
        RecordType::RRSIG,
        RecordType::NSEC,
        RecordType::HTTPS,
        RecordType::Unknown(65_280),
    ] {
        for name in ["www.cdn.test", "mail.cdn.test"] {
            for answer in both(Query::new(name, kind).edns(1232)) {
                // DVE-2017-0011: no address where none was asked for; -0017: no NXDOMAIN for a type that is missing;
                // -0008: the SOA is there; -0013: AD is not set.
                assert_eq!(answer.rcode(), ResponseCode::NoError, "{name} {kind}");
                assert!(answer.addresses().is_empty() || kind == RecordType::AAAA);
                let soa = answer.authorities().iter().any(|line| line.contains(" SOA "));
                assert_eq!(soa, answer.answers().is_empty(), "{name} {kind}");
                assert!(!answer.message.metadata.authentic_data);
            }
        }
    }
    // DVE-2017-0018: EDNS version 1 is answered. -2018-0002: an unknown option, or flag, is no error and not echoed.
    assert_eq!(u16::from(Query::a("static.cdn.test").edns_version(1).udp(dns).rcode()), 16);
    let mut unknown = Query::a("static.cdn.test").option(65_001, b"x").bytes();
    let at = unknown.len() - 5 - 4;
    unknown[at] = 0x7f;
    let mut tcp = Tcp::connect(dns);
    tcp.send(&unknown);
    let answer = tcp.receive().unwrap();
    assert_eq!((answer.rcode(), option(&answer, 65_001)), (ResponseCode::NoError, None));
    let flags = answer.message.edns.as_ref().unwrap().flags();
    assert_eq!((flags.dnssec_ok, flags.z), (false, 0));
    // DVE-2017-0019: an alias is one for every type.
    for kind in [RecordType::A, RecordType::AAAA, RecordType::MX, RecordType::CNAME] {
        let answer = Query::new("alias.cdn.test", kind).udp(dns);
        assert_eq!(answer.answers()[0], "alias.cdn.test. CNAME static.cdn.test.", "{kind}");
    }
    // DVE-2019-0001: an empty non-terminal exists.
    assert_eq!(Query::a("b.c.cdn.test").udp(dns).rcode(), ResponseCode::NoError);
}

/// Octets that are no letters come from the zone file to the wire and to the log as they are.
#[test]
fn odd_names_survive_from_zone_file_to_wire_to_log() {
    let mut fleet = harness::plan::Plan::new()
        .datacenter("icn", 37.46, 126.44)
        .nameserver("ns1", "icn")
        .zone("cdn.test", r#"a\000B\.\"\\\255\032 IN TXT "odd""#, &[])
        .toml("[log]\nquery = \"q.log\"")
        .write();
    fleet.node_mut("ns1").start();
    let dns = fleet.node("ns1").dns();
    let mut query = vec![0x12, 0x34, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query.extend(b"\x08A\0b.\"\\\xff \x03cdn\x04test\0\0\x10\0\x01");
    let bytes = harness::dns::udp_raw(dns, &query).expect("an answer");
    assert_eq!(bytes[12..query.len()], query[12..], "the question as it came");
    assert_eq!(Answer::read(bytes).message.answers.len(), 1, "found, whatever its case");
    let line = wait::until("the line", || {
        let text = std::fs::read_to_string(fleet.dir().join("q.log")).ok()?;
        serde_json::from_str::<Value>(text.lines().next()?).ok()
    });
    assert_eq!(line["name"], r#"A\000b\.\"\\\255\032.cdn.test."#);
    assert_eq!(line["rcode"], "NOERROR");
}
