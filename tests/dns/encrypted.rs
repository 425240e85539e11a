//! DNS over TLS (RFC 7858), HTTPS (RFC 8484) and QUIC (RFC 9250): the same answers, within the same limits, whatever
//! clients do.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use harness::dice::Dice;
use harness::dns::{Query, Tcp};
use harness::encrypted::{Certified, Doh, Doq, Dot, run};
use harness::fleet::{Fleet, Node};
use harness::plan::Plan;
use harness::process::{Program, Signal};
use harness::wait;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use http::{Method, StatusCode};
use serde_json::Value;

use super::RECORDS;

const KOREAN: &str = "211.60.0.0/24";
const PROTOCOL_ERROR: u64 = 2;

/// A name server on all transports with further lines in its table, and the certificate that clients verify.
fn plan(more: &str) -> (Plan, Certified) {
    let certified = Certified::new();
    let big: String = (0..220).map(|n| format!("big IN TXT \"{n:0>250}\"\n")).collect();
    let plan = Plan::new()
        .three_datacenters()
        .nameserver("ns1", "icn")
        .encrypted()
        .toml("tls = { certificate_file = \"ns1.pem\", key_file = \"ns1.key\" }")
        .toml(more)
        .file("ns1.pem", &certified.certificate)
        .file("ns1.key", &certified.key)
        .edge("icn-1", "icn")
        .edge("fra-1", "fra")
        .edge("iad-1", "iad")
        .zone("cdn.test", &format!("{RECORDS}{big}"), &[("www", "web")])
        .toml("[steering.web]\norder = \"nearest\"\nttl = { max = \"30s\", min = \"1s\" }");
    (plan, certified)
}

#[track_caller]
fn started(more: &str) -> (Fleet, Certified) {
    let (plan, certified) = plan(more);
    let mut fleet = plan.write();
    fleet.node_mut("ns1").start();
    (fleet, certified)
}

#[track_caller]
fn dot(node: &Node, certified: &Certified) -> Dot {
    Dot::connect(node.dot(), certified.trusted(&["dot"])).unwrap()
}

async fn doh(node: &Node, certified: &Certified) -> Doh {
    Doh::connect(node.doh(), certified.trusted(&["h2"])).await.unwrap()
}

async fn doq(node: &Node, certified: &Certified) -> Doq {
    Doq::connect(node.dot(), certified.trusted(&["doq"])).await.unwrap()
}

fn open_connections(node: &Node) -> f64 {
    node.metrics().sum("geodns_tcp_connections", &[])
}

/// Waits until the server has no connection any more.
#[track_caller]
fn all_closed(node: &Node) {
    wait::until("the connections to be closed", || (open_connections(node) == 0.0).then_some(()));
}

/// Everything works on every transport.
#[track_caller]
fn still_serves(node: &Node, certified: &Certified) {
    let query = Query::a("static.cdn.test").bytes();
    let mut dot = dot(node, certified);
    dot.send(&query).unwrap();
    assert_eq!(dot.receive().unwrap().unwrap().addresses().len(), 2);
    run(async {
        let reply = doh(node, certified).await.post(&query).await.unwrap();
        assert_eq!(reply.status, StatusCode::OK);
        let over_quic = doq(node, certified).await;
        assert_eq!(over_quic.ask(&query).await.unwrap().addresses().len(), 2);
        over_quic.close().await;
    });
}

/// Octet for octet, options and scopes included, but for the id over QUIC.
#[test]
fn every_transport_gives_the_same_answers() {
    let (fleet, certified) = started("nsid = \"here\"");
    let node = fleet.node("ns1");
    let queries = [
        Query::a("wWw.cdn.test").subnet(KOREAN),
        Query::a("www.cdn.test").subnet("2001:db8::/41"),
        Query::a("www.cdn.test").subnet("0.0.0.0/0").option(3, b"").option(65001, b"unknown"),
        Query::a("www.cdn.test"),
        Query::new("static.cdn.test", RecordType::AAAA).edns(512),
        Query::new("static.cdn.test", RecordType::MX),
        Query::a("none.cdn.test").edns(1232),
        Query::a("example.com").edns(1232),
        Query::new("cdn.test", RecordType::AXFR).edns(1232),
        Query::a("static.cdn.test").edns_version(1),
        Query::a("static.cdn.test").flags(0x2800),
        Query::a("static.cdn.test").option(8, &[0, 1, 24, 0, 1]),
        Query::new("big.cdn.test", RecordType::TXT).edns(1232),
    ];
    let mut over_tls = dot(node, &certified);
    run(async {
        let (over_https, over_quic) = (doh(node, &certified).await, doq(node, &certified).await);
        for query in &queries {
            let mut tcp = Tcp::connect(node.dns());
            tcp.send(&query.bytes());
            let mut expected = tcp.receive().unwrap().bytes;
            over_tls.send(&query.bytes()).unwrap();
            assert_eq!(over_tls.receive().unwrap().unwrap().bytes, expected, "{query:?}");
            for reply in
                [over_https.post(&query.bytes()).await, over_https.get(&query.bytes()).await]
            {
                let reply = reply.unwrap();
                assert_eq!(reply.status, StatusCode::OK);
                assert_eq!(reply.fields["content-type"], "application/dns-message");
                assert_eq!(reply.body, expected, "{query:?}");
            }
            expected[..2].fill(0);
            assert_eq!(over_quic.ask(&query.bytes()).await.unwrap().bytes, expected, "{query:?}");
        }
        let big = over_quic.ask(&queries[12].bytes()).await.unwrap();
        assert!(big.bytes.len() > 50_000 && big.message.answers.len() == 220);
        let steered = over_quic.ask(&queries[0].bytes()).await.unwrap();
        let udp = queries[0].udp(node.dns());
        assert_eq!(steered.subnet(), udp.subnet());
        assert!(steered.subnet().unwrap().2 > 0);
        assert_eq!(steered.addresses(), [fleet.node("icn-1").ip()]);
        let transfer = over_quic.ask(&queries[8].bytes()).await.unwrap();
        assert_eq!(transfer.message.metadata.response_code, ResponseCode::Refused);
    });
}

/// RFC 8467 §4.1, and RFC 7830 §6: not where everybody can read it.
#[test]
fn answers_are_padded_for_those_who_pad() {
    let (fleet, certified) = started("");
    let node = fleet.node("ns1");
    let padded = Query::a("www.cdn.test").subnet(KOREAN).option(12, &[0; 20]).bytes();
    let bare = Query::a("www.cdn.test").subnet(KOREAN).bytes();
    let mut over_tls = dot(node, &certified);
    run(async {
        let (over_https, over_quic) = (doh(node, &certified).await, doq(node, &certified).await);
        let mut lengths = Vec::new();
        for query in [&padded, &bare] {
            over_tls.send(query).unwrap();
            lengths.push(over_tls.receive().unwrap().unwrap().bytes.len());
            lengths.push(over_https.post(query).await.unwrap().body.len());
            lengths.push(over_quic.ask(query).await.unwrap().bytes.len());
            let mut tcp = Tcp::connect(node.dns());
            tcp.send(query);
            lengths.push(tcp.receive().unwrap().bytes.len());
        }
        let plain = lengths[7];
        assert!(plain < 100);
        assert_eq!(lengths, [468, 468, 468, plain, plain, plain, plain, plain]);
    });
}

#[test]
fn transports_are_counted_and_logged() {
    let (plan, certified) = plan("");
    let mut fleet = plan.toml("[log]\nquery = \"q.log\"").write();
    fleet.node_mut("ns1").start();
    let node = fleet.node("ns1");
    still_serves(node, &certified);
    wait::until("three lines in the log", || {
        let text = std::fs::read_to_string(fleet.dir().join("q.log")).ok()?;
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let protos: Vec<_> = lines.map(|line| line["proto"].clone()).collect();
        (protos == ["dot", "doh", "doq"]).then_some(())
    });
    for proto in ["dot", "doh", "doq"] {
        let labels = [("proto", proto), ("rcode", "NOERROR")];
        assert_eq!(node.metrics().sum("geodns_queries_total", &labels), 1.0, "{proto}");
    }
    all_closed(node);
}

/// RFC 7858 §3.1, §3.2 and RFC 9250 §4.1.1: another protocol's client is not answered.
#[test]
fn protocols_and_versions_are_settled_in_the_handshake() {
    let (fleet, certified) = started("");
    let node = fleet.node("ns1");
    let query = Query::a("static.cdn.test").bytes();
    for (versions, wanted) in [
        (&[&rustls::version::TLS12], rustls::ProtocolVersion::TLSv1_2),
        (&[&rustls::version::TLS13], rustls::ProtocolVersion::TLSv1_3),
    ] {
        for alpn in [&[][..], &["dot"], &["h2", "dot"]] {
            let config = certified.trusted_with(alpn, versions);
            let mut connection = Dot::connect(node.dot(), config).unwrap();
            connection.send(&query).unwrap();
            assert_eq!(connection.receive().unwrap().unwrap().addresses().len(), 2);
            assert_eq!(connection.session().protocol_version(), Some(wanted));
            let settled = connection.session().alpn_protocol();
            assert_eq!(settled, alpn.last().map(|name| name.as_bytes()));
        }
        assert!(Dot::connect(node.dot(), certified.trusted_with(&["h2"], versions)).is_err());
        run(async {
            let config = certified.trusted_with(&["h2"], versions);
            let reply = Doh::connect(node.doh(), config).await.unwrap().post(&query).await;
            assert_eq!(reply.unwrap().status, StatusCode::OK);
            assert!(Doh::connect(node.doh(), certified.trusted(&["http/1.1"])).await.is_err());
            assert!(Doh::connect(node.doh(), certified.trusted(&[])).await.is_err());
        });
    }
    run(async {
        for alpn in [&[][..], &["h3"]] {
            assert!(Doq::connect(node.dot(), certified.trusted(alpn)).await.is_err());
        }
    });
    // Another certificate than the one that is trusted: the client turns away, and nothing happens.
    assert!(Dot::connect(node.dot(), Certified::new().trusted(&["dot"])).is_err());
    still_serves(node, &certified);
}

#[test]
fn a_thousand_queries_are_answered_on_one_connection() {
    const QUERIES: usize = 1000;
    let (fleet, certified) = started("");
    let node = fleet.node("ns1");
    let query = Query::a("static.cdn.test").bytes();
    let mut over_tls = dot(node, &certified);
    let mut burst = Vec::new();
    for id in 0..QUERIES {
        burst.extend(u16::try_from(query.len()).unwrap().to_be_bytes());
        burst.extend(u16::try_from(id).unwrap().to_be_bytes());
        burst.extend(&query[2..]);
    }
    over_tls.send_bytes(&burst).unwrap();
    for id in 0..QUERIES {
        let answer = over_tls.receive().unwrap().unwrap();
        assert_eq!(usize::from(answer.message.metadata.id), id);
    }
    run(async {
        let (over_https, over_quic) = (doh(node, &certified).await, doq(node, &certified).await);
        let (over_quic, query) = (std::sync::Arc::new(over_quic), std::sync::Arc::new(query));
        let mut asked = tokio::task::JoinSet::new();
        for _ in 0..QUERIES {
            let (connection, asking) = (over_https.clone(), query.clone());
            asked.spawn(async move { connection.post(&asking).await.unwrap().body.to_vec() });
            let (connection, asking) = (over_quic.clone(), query.clone());
            asked.spawn(async move { connection.ask(&asking).await.unwrap().bytes });
        }
        let answers = asked.join_all().await;
        assert_eq!(answers.len(), 2 * QUERIES);
        assert!(answers.iter().all(|answer| answer[2..] == answers[0][2..]));
    });
    let asked = |proto| node.metrics().sum("geodns_queries_total", &[("proto", proto)]);
    assert_eq!(["dot", "doh", "doq"].map(asked), [1000.0; 3]);
}

/// RFC 8484 §4.2.1: HTTP's errors are about HTTP, DNS's errors come with 200.
#[test]
fn requests_that_are_wrong_get_the_status_that_says_so() {
    let (fleet, certified) = started("");
    let node = fleet.node("ns1");
    let query = Query::a("static.cdn.test").bytes();
    let message = [("content-type", "application/dns-message")];
    let text = [("content-type", "text/plain")];
    let response = Query::a("static.cdn.test").flags(0x8180).bytes();
    run(async {
        let connection = doh(node, &certified).await;
        type Fields<'a> = &'a [(&'a str, &'a str)];
        let cases: &[(Method, &str, Fields<'_>, &[u8], u16)] = &[
            (Method::GET, "/", &[], b"", 404),
            (Method::POST, "/dns-query/x", &message, &query, 404),
            (Method::GET, "/dns-query", &[], b"", 400),
            (Method::GET, "/dns-query?dns=%%%", &[], b"", 400),
            (Method::GET, "/dns-query?dns=AAA", &[], b"", 400),
            (Method::POST, "/dns-query", &message, b"", 400),
            (Method::POST, "/dns-query", &message, b"short", 400),
            (Method::POST, "/dns-query", &message, &response, 400),
            (Method::PUT, "/dns-query", &message, &query, 405),
            (Method::HEAD, "/dns-query", &[], b"", 405),
            (Method::POST, "/dns-query", &text, &query, 415),
            (Method::POST, "/dns-query", &[], &query, 415),
            (Method::POST, "/dns-query", &message, &[0; 4097], 413),
            (Method::POST, "/dns-query", &message, &[0; 100_000], 413),
            // FORMERR is an answer.
            (Method::POST, "/dns-query", &message, &[0; 4096], 200),
        ];
        for (method, target, fields, body, status) in cases {
            let reply = connection.request(method.clone(), target, fields, body).await;
            let reply = reply.unwrap_or_else(|error| panic!("{method} {target}: {error:#}"));
            assert_eq!(reply.status.as_u16(), *status, "{method} {target}");
            let allow = reply.fields.get("allow").map(|value| value.to_str().unwrap());
            assert_eq!(allow, (*status == 405).then_some("GET, POST"));
        }
        for (name, age) in [
            ("static.cdn.test", "max-age=300"),
            ("mail.cdn.test", "max-age=120"),
            ("www.cdn.test", "max-age=30"),
            ("none.cdn.test", "max-age=60"),
            ("example.com", "max-age=0"),
        ] {
            let reply = connection.get(&Query::a(name).bytes()).await.unwrap();
            assert_eq!(reply.fields["cache-control"], age, "{name}");
        }
    });
}

/// RFC 9250 §4.3.3.
#[test]
fn streams_that_break_the_protocol_end_the_connection() {
    let (fleet, certified) = started("");
    let node = fleet.node("ns1");
    let framed = |query: Query, id: u16| {
        let mut bytes = query.bytes();
        bytes[..2].copy_from_slice(&id.to_be_bytes());
        [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], &bytes].concat()
    };
    let good = framed(Query::a("static.cdn.test"), 0);
    run(async {
        for (why, bytes) in [
            ("an id", framed(Query::a("static.cdn.test"), 7)),
            ("an early end", good[..good.len() - 1].to_vec()),
            ("nothing", Vec::new()),
            ("two queries", [&good[..], &good].concat()),
            ("a response", framed(Query::a("static.cdn.test").flags(0x8180), 0)),
            ("a keepalive option", framed(Query::a("static.cdn.test").option(11, b""), 0)),
            ("too much", vec![0x20; 10_000]),
        ] {
            let connection = doq(node, &certified).await;
            let _ = connection.stream(&bytes).await;
            assert_eq!(connection.closed().await, Ok(PROTOCOL_ERROR), "{why}");
        }
        let connection = doq(node, &certified).await;
        let opened = connection.connection.open_uni();
        let refused = tokio::time::timeout(Duration::from_millis(100), opened).await;
        assert!(refused.is_err(), "there is no room for streams of one direction");
        // A query that nobody waits for any more is no error.
        let (mut send, mut receive) = connection.connection.open_bi().await.unwrap();
        send.write_all(&good[..9]).await.unwrap();
        send.reset(3_u32.into()).unwrap();
        receive.stop(3_u32.into()).unwrap();
        assert_eq!(connection.stream(&good).await.unwrap()[2..4], [0, 0]);
    });
}

/// One count for all transports.
#[test]
fn a_client_has_its_connections_over_all_transports_together() {
    let (fleet, certified) = started("tcp_connections_per_client = 3");
    let node = fleet.node("ns1");
    let query = Query::a("static.cdn.test").bytes();
    run(async {
        let mut over_tcp = Tcp::connect(node.dns());
        over_tcp.send(&query);
        assert!(over_tcp.receive().is_some());
        let mut over_tls = dot(node, &certified);
        let over_quic = doq(node, &certified).await;
        assert_eq!(open_connections(node), 3.0);
        assert!(Doh::connect(node.doh(), certified.trusted(&["h2"])).await.is_err());
        assert!(Dot::connect(node.dot(), certified.trusted(&["dot"])).is_err());
        assert!(Doq::connect(node.dot(), certified.trusted(&["doq"])).await.is_err());
        let refused = node.metrics().sum("geodns_dropped_total", &[("reason", "tcp-limit")]);
        assert_eq!(refused, 3.0);
        // Those who have a place keep it.
        over_tls.send(&query).unwrap();
        assert!(over_tls.receive().unwrap().is_some());
        assert!(over_quic.ask(&query).await.is_ok());
        over_quic.close().await;
    });
    all_closed(node);
    still_serves(node, &certified);
}

/// Who connects and says nothing, or half of it, is let go after the idle time, and holds up nobody meanwhile.
#[test]
fn connections_that_lead_nowhere_are_closed() {
    let (fleet, certified) = started("tcp_idle = \"1s\"\ntcp_connections_per_client = 100");
    let node = fleet.node("ns1");
    let connect = |address| {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(wait::PATIENCE)).unwrap();
        stream
    };
    let mut silent: Vec<TcpStream> =
        [node.dot(), node.doh()].into_iter().cycle().take(10).map(connect).collect();
    // The first octets of a ClientHello.
    silent[0].write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 252]).unwrap();
    silent[1].write_all(&[22, 3, 1]).unwrap();
    let mut halves = [dot(node, &certified), dot(node, &certified)];
    halves[0].send_bytes(&[0, 40, 1, 2]).unwrap();
    run(async {
        let idle = doh(node, &certified).await;
        let (stalled, waiting) = (doq(node, &certified).await, doq(node, &certified).await);
        let (mut send, _receive) = stalled.connection.open_bi().await.unwrap();
        send.write_all(&[0, 40, 0, 0]).await.unwrap();
        // Packets alone do not make a connection one that asks.
        waiting.connection.set_max_concurrent_bi_streams(7_u32.into());
        still_serves_within(node, &certified).await;
        assert_eq!(stalled.closed().await, Ok(0));
        assert_eq!(waiting.closed().await, Ok(0));
        while !idle.is_closed() {
            tokio::task::yield_now().await;
        }
    });
    for connection in &mut halves {
        assert!(connection.receive().unwrap().is_none(), "ended, not cut");
    }
    for stream in &mut silent {
        let _ = stream.read_to_end(&mut Vec::new());
    }
    all_closed(node);
    let failed = node.metrics().sum("geodns_dropped_total", &[("reason", "handshake")]);
    assert_eq!(failed, 10.0);
}

async fn still_serves_within(node: &Node, certified: &Certified) {
    let query = Query::a("static.cdn.test").bytes();
    assert!(doq(node, certified).await.ask(&query).await.is_ok());
    assert!(doh(node, certified).await.get(&query).await.is_ok());
}

/// Garbage instead of a handshake, ends at every point of one, resets: nothing of it stays.
#[test]
fn clients_that_break_off_do_no_harm() {
    let (fleet, certified) = started("tcp_connections_per_client = 1000\ntcp_idle = \"2s\"");
    let node = fleet.node("ns1");
    let mut dice = Dice::new(0xd07);
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    for n in 0..200 {
        let garbage: Vec<u8> = (0..dice.below(300)).map(|_| dice.below(256) as u8).collect();
        let _ = udp.send_to(&garbage, node.dot());
        let mut long_header = garbage.clone();
        long_header.splice(0..0, [0xc0, 0, 0, 0, 1, 8]);
        long_header.resize(1200, 0);
        let _ = udp.send_to(&long_header, node.dot());
        let address: SocketAddr = if n % 2 == 0 { node.dot() } else { node.doh() };
        let mut stream = TcpStream::connect(address).unwrap();
        let _ = stream.write_all(&garbage);
        if n % 3 == 0 {
            // A reset instead of an end.
            let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
    }
    let query = Query::a("static.cdn.test").bytes();
    for _ in 0..20 {
        let mut connection = dot(node, &certified);
        connection.send(&query).unwrap();
        drop(connection);
        run(async {
            let connection = doh(node, &certified).await;
            let asked = connection.post(&query);
            let _ = tokio::time::timeout(Duration::from_micros(300), asked).await;
            let connection = doq(node, &certified).await;
            let (mut send, _) = connection.connection.open_bi().await.unwrap();
            send.write_all(&[0, 33, 0]).await.unwrap();
            connection.connection.close(0_u32.into(), b"");
        });
    }
    all_closed(node);
    still_serves(node, &certified);
    let log = fleet.node("ns1").log();
    let since = log.lines().skip_while(|line| !line.contains(" ready ")).count();
    assert!(!log.contains("panicked") && (1..20).contains(&since), "{log}");
}

/// A client that asks and does not read is let go; what waits for it meanwhile is bounded.
#[test]
fn clients_that_do_not_read_are_let_go() {
    let (fleet, certified) = started("tcp_idle = \"1s\"");
    let node = fleet.node("ns1");
    let big = Query::new("big.cdn.test", RecordType::TXT).bytes();
    let mut over_tls = dot(node, &certified);
    let framed = [&u16::try_from(big.len()).unwrap().to_be_bytes()[..], &big].concat();
    wait::until("the server to let go", || over_tls.send_bytes(&framed.repeat(1000)).err());
    run(async {
        let over_https = doh(node, &certified).await;
        let over_quic = doq(node, &certified).await;
        let mut unread = Vec::new();
        for _ in 0..64 {
            let (mut send, receive) = over_quic.connection.open_bi().await.unwrap();
            send.write_all(&u16::try_from(big.len()).unwrap().to_be_bytes()).await.unwrap();
            send.write_all(&[&[0, 0], &big[2..]].concat()).await.unwrap();
            send.finish().unwrap();
            unread.push(receive);
        }
        assert_eq!(over_quic.closed().await, Ok(0));
        // HTTP/2's client reads for us; it has been idle by now.
        while !over_https.is_closed() {
            tokio::task::yield_now().await;
        }
    });
    all_closed(node);
    still_serves(node, &certified);
}

#[test]
fn a_new_certificate_is_taken_without_losing_a_query() {
    let (fleet, old) = started("");
    let node = fleet.node("ns1");
    let query = Query::a("static.cdn.test").bytes();
    let reload = || fleet.run(Program::Geodns, &["reload"]);
    let write = |certified: &Certified| {
        std::fs::write(fleet.dir().join("ns1.pem"), &certified.certificate).unwrap();
        std::fs::write(fleet.dir().join("ns1.key"), &certified.key).unwrap();
    };
    let mut over_tls = dot(node, &old);
    let new = Certified::new();
    std::thread::scope(|scope| {
        let (ask, asked) = std::sync::mpsc::channel::<()>();
        let query = &query;
        let traffic = scope.spawn(move || {
            // Old connections go on, whatever new ones get.
            let mut answers = 0;
            while let Err(std::sync::mpsc::TryRecvError::Empty) = asked.try_recv() {
                over_tls.send(query).unwrap();
                assert_eq!(over_tls.receive().unwrap().unwrap().addresses().len(), 2);
                answers += 1;
            }
            answers
        });
        write(&new);
        assert!(reload().status.success());
        still_serves(node, &new);
        assert!(Dot::connect(node.dot(), old.trusted(&["dot"])).is_err());
        drop(ask);
        assert!(traffic.join().unwrap() > 0);
    });
    // A key of another certificate, and a file that is none: the last good one goes on.
    std::fs::write(fleet.dir().join("ns1.key"), &old.key).unwrap();
    for broken in ["ns1.key", "ns1.pem"] {
        let refused = reload();
        assert_eq!(refused.status.code(), Some(78));
        let checked = fleet.run(Program::Geodns, &["check"]);
        assert_eq!(checked.status.code(), Some(78));
        for output in [refused.stderr, [checked.stdout, checked.stderr].concat()] {
            let text = String::from_utf8_lossy(&output).into_owned();
            assert!(text.contains(broken) && text.contains("meridian.toml:"), "{text}");
        }
        still_serves(node, &new);
        std::fs::write(fleet.dir().join("ns1.pem"), "no certificate").unwrap();
    }
    write(&old);
    let mut fleet = fleet;
    fleet.node_mut("ns1").signal(Signal::Hup);
    let node = fleet.node("ns1");
    wait::until("the old certificate to be back", || {
        Dot::connect(node.dot(), old.trusted(&["dot"])).ok()
    });
}

/// On a wildcard address, answers over QUIC leave from the address that was asked.
#[test]
fn quic_answers_from_the_address_that_was_asked() {
    let (plan, certified) = plan("");
    let mut fleet = plan.write();
    let (ip, port) = (fleet.node("ns1").dot().ip(), fleet.node("ns1").dot().port());
    fleet.edit(&format!("doq = [\"{ip}:{port}\"]"), &format!("doq = [\"0.0.0.0:{port}\"]"));
    fleet.node_mut("ns1").start();
    let node = fleet.node("ns1");
    run(async {
        let query = Query::a("static.cdn.test").bytes();
        let answer = doq(node, &certified).await.ask(&query).await.unwrap();
        assert_eq!(answer.addresses().len(), 2);
    });
}

/// What a client has sent before the end is answered, on connections that are there and on none that are new.
#[test]
fn a_stop_answers_what_was_asked() {
    let (mut fleet, certified) = started("");
    let query = Query::a("static.cdn.test").bytes();
    let mut over_tls = dot(fleet.node("ns1"), &certified);
    run(async {
        let node = fleet.node("ns1");
        let (over_https, over_quic) = (doh(node, &certified).await, doq(node, &certified).await);
        over_https.get(&query).await.unwrap();
        over_quic.ask(&query).await.unwrap();
        over_tls.send(&query).unwrap();
        let quic = over_quic.ask(&query);
        let https = over_https.get(&query);
        fleet.node_mut("ns1").signal(Signal::Term);
        let (https, quic) = tokio::join!(https, quic);
        assert_eq!(https.unwrap().status, StatusCode::OK);
        assert_eq!(quic.unwrap().addresses().len(), 2);
        assert_eq!(over_quic.closed().await, Ok(0));
        assert_eq!(over_tls.receive().unwrap().unwrap().addresses().len(), 2);
        assert!(over_tls.receive().unwrap().is_none(), "ended, not cut");
    });
    assert!(fleet.node_mut("ns1").ended(Duration::from_secs(10)).success());
}
