//! Packets that are wrong: the exact error of the RFC, or silence, and the server goes on.

use std::time::Duration;

use harness::dice::Dice;
use harness::dns::{Answer, Query, Tcp, udp_raw, udp_raw_within};
use hickory_proto::op::ResponseCode;

use super::name_server;

/// Long enough for an answer that should not come to come.
const SILENCE: Duration = Duration::from_millis(150);

#[track_caller]
fn rcode_of(bytes: Option<Vec<u8>>) -> ResponseCode {
    let bytes = bytes.expect("an answer");
    assert!(bytes.len() >= 12 && bytes[2] & 0x80 != 0, "a response: {bytes:02x?}");
    ResponseCode::from(0, bytes[3] & 0x0f)
}

#[test]
fn malformed_queries_get_the_error_of_the_rfc() {
    let fleet = name_server();
    let ns = fleet.node("ns1").dns();
    let good = Query::a("static.cdn.test").edns(1232).bytes();
    let plain = Query::a("static.cdn.test").bytes();
    let change = |bytes: &[u8], at: usize, to: &[u8]| {
        let mut bytes = bytes.to_vec();
        bytes[at..at + to.len()].copy_from_slice(to);
        bytes
    };
    let two_opts = {
        let opt = &good[good.len() - 11..];
        let mut bytes = change(&good, 10, &[0, 2]);
        bytes.extend(opt);
        bytes
    };
    let two_questions = {
        let mut bytes = change(&plain, 4, &[0, 2]);
        bytes.extend(&plain[12..]);
        bytes
    };
    let cases: Vec<(&str, Vec<u8>, ResponseCode)> = vec![
        ("no question", change(&plain, 4, &[0, 0])[..12].to_vec(), ResponseCode::FormErr),
        ("two questions", two_questions, ResponseCode::FormErr),
        ("a question cut short", plain[..20].to_vec(), ResponseCode::FormErr),
        ("a header alone that announces a question", plain[..12].to_vec(), ResponseCode::FormErr),
        ("a label of 64 bytes", change(&plain, 12, &[64]), ResponseCode::FormErr),
        ("a compression loop", change(&plain, 12, &[0xc0, 12]), ResponseCode::FormErr),
        ("two OPTs", two_opts, ResponseCode::FormErr),
        (
            "an OPT with a length beyond the end",
            change(&good, good.len() - 2, &[0, 9]),
            ResponseCode::FormErr,
        ),
        (
            "a subnet of family 3",
            Query::a("www.cdn.test").option(8, &[0, 3, 24, 0, 1, 2, 3]).bytes(),
            ResponseCode::FormErr,
        ),
        (
            "a subnet with too few bytes",
            Query::a("www.cdn.test").option(8, &[0, 1, 24, 0, 1]).bytes(),
            ResponseCode::FormErr,
        ),
        (
            "a subnet of 33 bits",
            Query::a("www.cdn.test").option(8, &[0, 1, 33, 0, 1, 2, 3, 4, 5]).bytes(),
            ResponseCode::FormErr,
        ),
        (
            "a subnet with bits beyond its length",
            Query::a("www.cdn.test").option(8, &[0, 1, 20, 0, 1, 2, 255]).bytes(),
            ResponseCode::FormErr,
        ),
        ("opcode IQUERY", Query::a("static.cdn.test").flags(0x0800).bytes(), ResponseCode::NotImp),
        ("opcode STATUS", Query::a("static.cdn.test").flags(0x1000).bytes(), ResponseCode::NotImp),
        ("opcode UPDATE", Query::a("static.cdn.test").flags(0x2800).bytes(), ResponseCode::NotImp),
        ("class CH", Query::a("static.cdn.test").class(3).bytes(), ResponseCode::Refused),
    ];
    for (what, bytes, rcode) in cases {
        assert_eq!(rcode_of(udp_raw(ns, &bytes)), rcode, "{what}");
        let mut tcp = Tcp::connect(ns);
        tcp.send(&bytes);
        let answer = tcp.receive().map(|answer| answer.bytes);
        assert_eq!(rcode_of(answer), rcode, "{what}, over TCP");
    }
}

#[test]
fn what_is_no_query_is_not_answered() {
    let fleet = name_server();
    let ns = fleet.node("ns1").dns();
    let response = Query::a("static.cdn.test").flags(0x8180).bytes();
    for bytes in [&response[..], &[], &[0], &[0; 11]] {
        assert_eq!(udp_raw_within(ns, bytes, SILENCE), None, "{bytes:02x?}");
    }
    assert_eq!(Query::a("static.cdn.test").udp(ns).addresses().len(), 2);
}

/// Whatever comes, the server lives, and what it answers is a response with the id of the query.
#[test]
fn random_and_mutated_packets_do_no_harm() {
    const PACKETS: usize = 3000;
    let mut fleet = name_server();
    let ns = fleet.node("ns1").dns();
    let mut dice = Dice::new(0x5eed);
    let seeds = [
        Query::a("www.cdn.test").edns(1232).subnet("203.0.113.0/24").bytes(),
        Query::a("static.cdn.test").bytes(),
        Query::a("x.wild.cdn.test").edns(4096).option(10, &[1; 8]).bytes(),
    ];
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(ns).unwrap();
    socket.set_nonblocking(true).unwrap();
    let mut buffer = [0; 65_535];
    for n in 0..PACKETS {
        let mut packet = if n % 4 == 0 {
            (0..dice.below(600)).map(|_| dice.below(256) as u8).collect()
        } else {
            seeds[n % seeds.len()].clone()
        };
        for _ in 0..dice.below(6) {
            if !packet.is_empty() {
                let at = dice.below(packet.len());
                match dice.below(3) {
                    0 => packet[at] = dice.below(256) as u8,
                    1 => packet.truncate(at),
                    _ => packet.insert(at, dice.below(256) as u8),
                }
            }
        }
        let _ = socket.send(&packet);
        while let Ok(read) = socket.recv(&mut buffer) {
            assert!((12..=1232).contains(&read), "{read} bytes");
            assert_ne!(buffer[2] & 0x80, 0, "a response: {:02x?}", &buffer[..read]);
        }
    }
    assert_eq!(Query::a("static.cdn.test").udp(ns).addresses().len(), 2);
    assert!(!fleet.node_mut("ns1").has_ended());
    let log = fleet.node("ns1").log();
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn tcp_that_stalls_or_lies_holds_up_nobody() {
    let fleet = name_server();
    let ns = fleet.node("ns1").dns();
    // A length without a message, half a message, and connections that say nothing at all.
    let mut stalled: Vec<Tcp> = (0..10).map(|_| Tcp::connect(ns)).collect();
    stalled[0].send_bytes(&[0, 200]);
    stalled[1].send_bytes(&[0, 40, 1, 2, 3]);
    stalled[2].send_bytes(&[0xff, 0xff]);
    stalled[3].send_bytes(&[0, 0]);
    let answer = Query::a("static.cdn.test").tcp(ns);
    assert_eq!(answer.addresses().len(), 2);
    assert_eq!(Query::a("static.cdn.test").udp(ns).addresses().len(), 2);
}

#[test]
fn an_answer_reads_back() {
    let fleet = name_server();
    let query = Query::a("static.cdn.test").edns(1232);
    let bytes = udp_raw(fleet.node("ns1").dns(), &query.bytes()).unwrap();
    let answer = Answer::read(bytes.clone());
    assert_eq!(answer.message.metadata.id, query.id());
    assert_eq!(answer.bytes, bytes);
}
