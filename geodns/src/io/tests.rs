//! Real sockets on loopback, on ports that the kernel chooses.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use shared::io::log::JsonLog;
use shared::metrics::Registry;

use super::connections::{Connections, Counters, Limits};
use super::dnstap::Tap;
use super::node::Served;
use super::query_log::QueryLog;
use super::{tcp, udp};
use crate::metrics::Stats;
use crate::name::Name;
use crate::present::present;
use crate::testing;
use crate::wire::write_query;

const PATIENCE: Duration = Duration::from_secs(20);

fn served() -> Arc<ArcSwap<Served>> {
    let world = testing::world(&[], |_| {});
    Arc::new(ArcSwap::from_pointee(Served {
        stats: Arc::new(Stats::new(&world)),
        snapshot: testing::snapshot(world, &[]),
        server: Arc::default(),
        log: QueryLog::new(JsonLog::off(), Tap::default(), 1.0),
        node: "ns1".into(),
    }))
}

fn query(id: u16, name: &str) -> Vec<u8> {
    write_query(id, &Name::parse_absolute(name).unwrap(), 1, None)
}

/// Runs `f` beside a UDP thread on `bind`, given the port.
fn with_udp(bind: &str, f: impl FnOnce(u16, &Served)) {
    let served = served();
    let socket = UdpSocket::bind(bind).unwrap();
    let port = socket.local_addr().unwrap().port();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| udp::serve(&socket, &served, &stop));
        // A test that fails must not wait for a server that goes on.
        let _end = Ending(&stop);
        f(port, &served.load());
    });
}

struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn ask_udp(local: &str, server: SocketAddr, packet: &[u8]) -> Vec<u8> {
    // A connected socket takes answers from that address only.
    let socket = UdpSocket::bind(local).unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send(packet).unwrap();
    let mut buffer = vec![0; 2000];
    let length = socket.recv(&mut buffer).unwrap();
    buffer.truncate(length);
    buffer
}

#[test]
fn udp_queries_that_came_before_the_stop_are_answered() {
    let served = served();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(socket.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    for id in 0..100 {
        client.send(&query(id, "static.cdn.test")).unwrap();
    }
    udp::serve(&socket, &served, &AtomicBool::new(true));
    let mut buffer = [0; 2000];
    for id in 0..100 {
        let length = client.recv(&mut buffer).unwrap();
        assert_eq!(present(&buffer[..length]).unwrap().id, id);
    }
}

#[test]
fn udp_answers_leave_from_the_address_that_was_asked() {
    for (bind, local, hosts) in [
        ("0.0.0.0:0", "127.0.0.1:0", ["127.0.0.1", "127.0.0.77"]),
        ("127.0.0.78:0", "127.0.0.1:0", ["127.0.0.78", "127.0.0.78"]),
        ("[::]:0", "[::1]:0", ["::1", "::1"]),
    ] {
        with_udp(bind, |port, _| {
            for host in hosts {
                let server = SocketAddr::new(host.parse().unwrap(), port);
                let answer =
                    present(&ask_udp(local, server, &query(5, "static.cdn.test"))).unwrap();
                assert_eq!((answer.id, answer.answer.len()), (5, 1), "{bind} {host}");
            }
        });
    }
}

#[test]
fn udp_bursts_are_answered_each_to_its_asker_and_counted() {
    with_udp("127.0.0.1:0", |port, served| {
        let server: SocketAddr = ([127, 0, 0, 1], port).into();
        let sockets: Vec<_> = (0..8)
            .map(|_| {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                socket.connect(server).unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                socket
            })
            .collect();
        for (id, socket) in (0_u16..).zip(&sockets) {
            // Junk and answers are not answered; a query longer than any is.
            socket.send(b"junk").unwrap();
            socket.send(&[0x80; 40]).unwrap();
            socket.send(&query(id, "www.cdn.test")).unwrap();
            socket.send(&vec![0; 5000]).unwrap();
        }
        let mut buffer = [0; 2000];
        for (id, socket) in (0_u16..).zip(&sockets) {
            let length = socket.recv(&mut buffer).unwrap();
            let answer = present(&buffer[..length]).unwrap();
            assert_eq!((answer.id, answer.answer.len()), (id, 2));
            let length = socket.recv(&mut buffer).unwrap();
            assert_eq!(present(&buffer[..length]).unwrap().rcode, "FORMERR");
        }
        let registry = Registry::new();
        let expected = [
            "geodns_queries_total{proto=\"udp\",rcode=\"NOERROR\"} 8\n",
            "geodns_queries_total{proto=\"udp\",rcode=\"FORMERR\"} 8\n",
            "geodns_dropped_total{reason=\"not-a-query\"} 16\n",
            "geodns_answers_total{policy=\"web\",datacenter=\"icn\",reason=\"first-choice\"} 8\n",
        ];
        // The counts of a batch follow its answers.
        let begun = shared::io::clock::instant();
        loop {
            served.stats.export(&registry);
            let text = registry.render();
            if expected.iter().all(|line| text.contains(line)) {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "{text}");
            std::thread::yield_now();
        }
    });
}

/// Runs `f` beside a TCP server.
fn with_tcp(limits: Limits, f: impl FnOnce(SocketAddr) + Send + 'static) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Connections::new(limits, Counters::default());
        tokio::spawn(tcp::serve(listener, served(), connections));
        tokio::task::spawn_blocking(move || f(address)).await.unwrap();
    });
}

const LIMITS: Limits = Limits { connections: 10, per_client: 3, idle: PATIENCE };

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn framed(packet: &[u8]) -> Vec<u8> {
    [&u16::try_from(packet.len()).unwrap().to_be_bytes(), packet].concat()
}

fn read_answer(stream: &mut TcpStream) -> Option<u16> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).ok()?;
    Some(present(&answer).unwrap().id)
}

#[test]
fn tcp_queries_may_come_together_and_in_pieces_rfc_7766_section_6_2() {
    with_tcp(LIMITS, |address| {
        let mut stream = connect(address);
        let many: Vec<u8> = (0..300).flat_map(|id| framed(&query(id, "www.cdn.test"))).collect();
        stream.write_all(&many).unwrap();
        for id in 0..300 {
            assert_eq!(read_answer(&mut stream), Some(id));
        }
        stream.set_nodelay(true).unwrap();
        for octet in framed(&query(7, "static.cdn.test")) {
            stream.write_all(&[octet]).unwrap();
        }
        assert_eq!(read_answer(&mut stream), Some(7));
    });
}

/// What ends a connection does not take back the answers to what came before it.
#[test]
fn tcp_queries_before_nonsense_are_answered() {
    with_tcp(LIMITS, |address| {
        let before: Vec<u8> = (0..20).flat_map(|id| framed(&query(id, "www.cdn.test"))).collect();
        for nonsense in [&[0, 0][..], &framed(b"short"), &framed(&[0x80; 40])] {
            let mut stream = connect(address);
            stream.write_all(&[&before, nonsense].concat()).unwrap();
            for id in 0..20 {
                assert_eq!(read_answer(&mut stream), Some(id), "{nonsense:?}");
            }
            assert_eq!(read_answer(&mut stream), None);
        }
        let mut half_open = connect(address);
        half_open.write_all(&before).unwrap();
        half_open.shutdown(std::net::Shutdown::Write).unwrap();
        for id in 0..20 {
            assert_eq!(read_answer(&mut half_open), Some(id));
        }
        assert_eq!(read_answer(&mut half_open), None);
    });
}

/// RFC 7766 §8: a message may be as long as its length field can say.
#[test]
fn tcp_messages_of_any_length_are_read_whole() {
    with_tcp(LIMITS, |address| {
        let mut stream = connect(address);
        // Padding (RFC 7830) of 60,000 octets.
        let mut long = query(1, "static.cdn.test");
        let at = long.len() - 2;
        long[at..].copy_from_slice(&60_004_u16.to_be_bytes());
        long.extend([0, 12]);
        long.extend(60_000_u16.to_be_bytes());
        long.extend(vec![0; 60_000]);
        let broken = [&query(2, "static.cdn.test")[..], &vec![7; 65_000]].concat();
        for message in [&long, &broken, &query(3, "static.cdn.test")] {
            stream.write_all(&framed(message)).unwrap();
        }
        for id in 1..=3 {
            assert_eq!(read_answer(&mut stream), Some(id));
        }
    });
}

/// A client that asks and does not read loses its connection, and costs nobody else anything.
#[test]
fn tcp_clients_that_do_not_read_are_let_go() {
    with_tcp(Limits { idle: Duration::from_millis(200), ..LIMITS }, |address| {
        let mut deaf = connect(address);
        deaf.set_write_timeout(Some(PATIENCE)).unwrap();
        let many: Vec<u8> = (0..500).flat_map(|id| framed(&query(id, "big.cdn.test"))).collect();
        let begun = shared::io::clock::instant();
        // The kernel's buffers are filled first; then the server ends it.
        while deaf.write_all(&many).is_ok() {
            assert!(begun.elapsed() < PATIENCE);
        }
        let mut other = connect(address);
        other.write_all(&framed(&query(5, "static.cdn.test"))).unwrap();
        assert_eq!(read_answer(&mut other), Some(5));
    });
}

#[test]
fn tcp_connections_that_ask_nothing_give_way_rfc_7766_section_6_2_3() {
    let limits = Limits { connections: 3, per_client: 10, idle: PATIENCE };
    with_tcp(limits, |address| {
        let ask = |stream: &mut TcpStream| {
            stream.write_all(&framed(&query(1, "static.cdn.test"))).unwrap();
            assert_eq!(read_answer(stream), Some(1));
        };
        let mut streams: Vec<_> = (0..3).map(|_| connect(address)).collect();
        for index in [0, 1, 2, 0, 2] {
            ask(&mut streams[index]);
        }
        let mut newcomer = connect(address);
        ask(&mut newcomer);
        assert_eq!(read_answer(&mut streams[1]), None, "the longest idle one has ended");
        ask(&mut streams[0]);
        ask(&mut streams[2]);
        ask(&mut newcomer);
    });
}

#[test]
fn tcp_clients_have_a_limit_each() {
    with_tcp(LIMITS, |address| {
        let mut held: Vec<_> = (0..3).map(|_| connect(address)).collect();
        for stream in &mut held {
            stream.write_all(&framed(&query(1, "www.cdn.test"))).unwrap();
            assert_eq!(read_answer(stream), Some(1));
        }
        let mut refused = connect(address);
        let _ = refused.write_all(&framed(&query(2, "www.cdn.test")));
        assert_eq!(read_answer(&mut refused), None);
        drop(held);
        // The places come free as soon as the server has seen the ends.
        let begun = shared::io::clock::instant();
        loop {
            let mut stream = connect(address);
            let _ = stream.write_all(&framed(&query(3, "www.cdn.test")));
            if read_answer(&mut stream) == Some(3) {
                break;
            }
            assert!(begun.elapsed() < PATIENCE);
        }
    });
}

#[test]
fn tcp_connections_that_ask_nothing_or_nonsense_are_closed() {
    with_tcp(Limits { idle: Duration::from_millis(100), ..LIMITS }, |address| {
        assert_eq!(read_answer(&mut connect(address)), None, "idle");
        let mut trickling = connect(address);
        trickling.write_all(&[0, 50, 1]).unwrap();
        assert_eq!(read_answer(&mut trickling), None, "never whole");
    });
    with_tcp(LIMITS, |address| {
        for nonsense in [&framed(b"short")[..], &framed(&[0x80; 40])] {
            let mut stream = connect(address);
            stream.write_all(nonsense).unwrap();
            assert_eq!(read_answer(&mut stream), None);
        }
    });
}
