//! dnstap from outside: what a collector or a reader of the file gets is what clients asked and got.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

use harness::dns::Query;
use harness::fleet::Fleet;
use harness::process::{Program, Signal};
use harness::wait;

use super::unchecked;

const CONTENT: &[u8] = b"protobuf:dnstap.Dnstap";

fn control(kind: u32, content: bool) -> Vec<u8> {
    let mut payload = kind.to_be_bytes().to_vec();
    if content {
        payload.extend(1_u32.to_be_bytes());
        payload.extend(u32::try_from(CONTENT.len()).unwrap().to_be_bytes());
        payload.extend(CONTENT);
    }
    [&[0; 4], &u32::try_from(payload.len()).unwrap().to_be_bytes()[..], &payload].concat()
}

/// Fields of a protocol buffer by number: octets, or a number.
fn fields(mut rest: &[u8]) -> BTreeMap<u64, (u64, Vec<u8>)> {
    fn varint(rest: &mut &[u8]) -> u64 {
        let length = rest.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
        let (octets, after) = rest.split_at(length);
        *rest = after;
        octets.iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f))
    }
    let mut found = BTreeMap::new();
    while !rest.is_empty() {
        let tag = varint(&mut rest);
        let value = match tag & 7 {
            0 => (varint(&mut rest), Vec::new()),
            kind => {
                let length = if kind == 5 { 4 } else { varint(&mut rest) as usize };
                let (octets, after) = rest.split_at(length);
                rest = after;
                (0, octets.to_vec())
            }
        };
        found.insert(tag >> 3, value);
    }
    found
}

/// The messages of a stream that begins with START: kind, protocol, client port, server port, DNS message.
fn messages(stream: &[u8]) -> Vec<(u64, u64, u64, u64, Vec<u8>)> {
    let mut rest = stream.strip_prefix(&control(2, true)[..]).expect("a stream begins with START");
    let mut messages = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        if length == 0 || after.len() < length {
            break;
        }
        let (payload, after) = after.split_at(length);
        rest = after;
        let dnstap = fields(payload);
        assert_eq!(dnstap[&1].1, b"ns1");
        assert!(dnstap[&2].1.starts_with(b"geodns "));
        let message = fields(&dnstap[&14].1);
        let dns = if message[&1].0 == 1 { &message[&10].1 } else { &message[&14].1 };
        let number = |field| message[&field].0;
        messages.push((number(1), number(3), number(6), number(7), dns.clone()));
    }
    messages
}

/// Asks over both transports; what is told must be that.
fn ask_and_compare(fleet: &Fleet, told: impl Fn() -> Vec<u8>) {
    let server = fleet.node("ns1").dns();
    for n in 0..20 {
        Query::a("www.cdn.test").subnet(&format!("80.{n}.0.0/16")).udp(server);
        Query::a("nope.cdn.test").tcp(server);
    }
    let messages = wait::until("every message to be told", || {
        let messages = messages(&told());
        (messages.len() >= 80).then_some(messages)
    });
    assert_eq!(messages.len(), 80);
    for pair in messages.chunks(2) {
        let [query, response] = pair else { panic!("half an exchange") };
        assert_eq!((query.0, response.0), (1, 2));
        assert_eq!((query.1, query.2), (response.1, response.2), "one client");
        assert_eq!(query.3, u64::from(server.port()));
        assert_eq!(query.4[..2], response.4[..2], "one id");
        assert_eq!((query.4[2] & 0x80, response.4[2] & 0x80), (0, 0x80));
        let rcode = if query.1 == 1 { 0 } else { 3 };
        assert_eq!(response.4[3] & 15, rcode, "UDP asked for www, TCP for nope");
    }
}

#[test]
fn a_file_tells_what_was_asked_and_answered_and_is_rotated() {
    let mut fleet = unchecked("[log]\ndnstap = \"{node}.fstrm\"").write();
    fleet.node_mut("ns1").start();
    let path = fleet.dir().join("ns1.fstrm");
    ask_and_compare(&fleet, || std::fs::read(&path).unwrap());
    let moved = fleet.dir().join("moved");
    std::fs::rename(&path, &moved).unwrap();
    assert!(fleet.run(Program::Geodns, &["reload"]).status.success());
    wait::until("the new file", || path.exists().then_some(()));
    ask_and_compare(&fleet, || std::fs::read(&path).unwrap());
    fleet.node_mut("ns1").signal(Signal::Term);
    assert!(fleet.node_mut("ns1").ended(Duration::from_secs(20)).success());
    for file in [&path, &moved] {
        let stream = std::fs::read(file).unwrap();
        assert!(stream.ends_with(&control(3, false)), "a stream ends with STOP");
        assert_eq!(messages(&stream).len(), 80);
    }
}

#[test]
fn a_collector_gets_all_and_its_absence_hurts_nobody() {
    let mut fleet = unchecked("[log]\ndnstap = \"unix:tap.sock\"").write();
    fleet.node_mut("ns1").start();
    let server = fleet.node("ns1").dns();
    for _ in 0..10 {
        assert_eq!(Query::a("www.cdn.test").udp(server).addresses().len(), 1);
    }
    let dropped =
        || fleet.node("ns1").metrics().sum("geodns_dropped_total", &[("reason", "dnstap-busy")]);
    wait::until("what nobody took to be counted", || (dropped() >= 10.0).then_some(()));
    let listener = UnixListener::bind(fleet.dir().join("tap.sock")).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let mut exact = |length: usize| {
        let mut octets = vec![0; length];
        stream.read_exact(&mut octets).unwrap();
        octets
    };
    assert_eq!(exact(control(4, true).len()), control(4, true));
    stream.write_all(&control(1, true)).unwrap();
    let got = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let gathered = std::sync::Arc::clone(&got);
    let reader: thread::JoinHandle<UnixStream> = thread::spawn(move || {
        let mut buffer = [0; 4096];
        loop {
            let length = stream.read(&mut buffer).unwrap();
            let mut gathered = gathered.lock().unwrap();
            gathered.extend_from_slice(&buffer[..length]);
            if length == 0 || gathered.ends_with(&control(3, false)) {
                let _ = stream.write_all(&control(5, false));
                return stream;
            }
        }
    });
    wait::until("the stream to begin", || (!got.lock().unwrap().is_empty()).then_some(()));
    ask_and_compare(&fleet, || got.lock().unwrap().clone());
    fleet.node_mut("ns1").signal(Signal::Term);
    assert!(fleet.node_mut("ns1").ended(Duration::from_secs(20)).success());
    reader.join().unwrap();
    assert!(got.lock().unwrap().ends_with(&control(3, false)), "a stream ends with STOP");
}
