//! What a node's process takes is what `memory` says: with a full store, with many slow readers of a large object, and
//! with more connections than there is memory for.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use harness::fleet::Fleet;
use harness::origin::{Origin, Request, Script};
use harness::wait;
use harness::wire::Wire;

use super::{HOST, plan};

/// Of a node that is to keep to it: what a reader takes in a debug build is a tenth of half as much.
const LIMIT: u64 = 128 << 20;
/// Of one that has too little for its connections.
const LITTLE: u64 = 64 << 20;
const LENGTH: u64 = 512 << 20;
const READERS: u64 = 200;
const SEGMENT: u64 = 256 << 10;

fn byte(at: u64) -> u8 {
    (at.wrapping_mul(31).wrapping_add(at >> 13)) as u8
}

fn bytes(first: u64, last: u64) -> Vec<u8> {
    (first..=last).map(byte).collect()
}

/// Any part of one large object, and small ones.
fn answer(request: &Request) -> Script {
    if request.path() != "/large" {
        return Script::ok(bytes(0, 99_999));
    }
    let range = request.field("range").and_then(|range| range.strip_prefix("bytes="));
    let (first, last) = range.unwrap().split_once('-').unwrap();
    let first: u64 = first.parse().unwrap();
    let last = last.parse::<u64>().map_or(LENGTH - 1, |last| last.min(LENGTH - 1));
    Script::status(206, bytes(first, last))
        .field("Content-Range", &format!("bytes {first}-{last}/{LENGTH}"))
        .field("ETag", "\"v\"")
}

fn fleet(origin: &Origin, memory: u64, more: &str) -> Fleet {
    plan(origin)
        .cache_node("e1", "icn", "edge", &format!("memory = \"{memory}B\"\n{more}"))
        .toml(&format!(
            "[site.www]\nhosts = [\"{HOST}\"]\nroutes = [ {{ path = \"/*\", origin = \"static\" }} ]"
        ))
        .start()
}

struct Reader {
    stream: TcpStream,
    at: u64,
}

impl Reader {
    /// Asks for all from an offset on, and reads the head.
    fn begin(fleet: &Fleet, at: u64) -> Self {
        let mut stream = TcpStream::connect(fleet.node("e1").http()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        write!(stream, "GET /large HTTP/1.1\r\nHost: {HOST}\r\nRange: bytes={at}-\r\n\r\n")
            .unwrap();
        let mut head = Vec::new();
        let mut one = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut one).unwrap();
            head.push(one[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 206"), "{}", String::from_utf8_lossy(&head));
        Self { stream, at }
    }

    fn read(&mut self, count: u64) {
        let mut got = vec![0; usize::try_from(count).unwrap()];
        self.stream.read_exact(&mut got).unwrap();
        assert!(got == bytes(self.at, self.at + count - 1), "other bytes after {}", self.at);
        self.at += count;
    }
}

/// The most that the node's process has taken while `act` went on.
fn peak(fleet: &Fleet, act: impl FnOnce()) -> u64 {
    let (over, most) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                most.fetch_max(fleet.node("e1").resident(), Ordering::Relaxed);
                let _: Option<()> = wait::try_within(Duration::from_millis(20), || None);
            }
        });
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
        over.store(true, Ordering::Relaxed);
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    most.into_inner()
}

#[test]
fn the_process_keeps_to_its_memory_under_slow_readers_of_a_large_object() {
    let origin = Origin::start();
    origin.route_with("/*", answer);
    let fleet = fleet(&origin, LIMIT, "");
    let within = |what: &str, most: u64| {
        assert!(most <= LIMIT + LIMIT / 10, "{what}: {} of {} MiB", most >> 20, LIMIT >> 20);
    };
    // Twice what there is room for.
    let most = peak(&fleet, || {
        let mut wire = Wire::connect(fleet.node("e1").http());
        for id in 0..2600 {
            wire.send(format!("GET /small/{id} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
            let head = wire.read_head();
            assert_eq!(wire.read_body("GET", &head).bytes.len(), 100_000);
        }
    });
    within("a full store", most);
    let stored = fleet.node("e1").metrics().sum("edge_cache_store_bytes", &[("tier", "memory")]);
    assert!(stored > LIMIT as f64 / 8.0, "it stores something: {stored}");
    let mut readers = Vec::new();
    let most = peak(&fleet, || {
        for number in 0..READERS {
            readers.push(Reader::begin(&fleet, LENGTH / READERS * number));
        }
        // What goes out before they wait fills the sockets; then all of them wait, each in a segment of its own.
        for _ in 0..4 {
            readers.iter_mut().for_each(|reader| reader.read(SEGMENT / 3));
        }
    });
    within("slow readers", most);
    drop(readers);
    let node = fleet.node("e1");
    wait::until("the connections to be closed", || {
        (node.metrics().sum("edge_cache_connections", &[]) <= 1.0).then_some(())
    });
    within("after them", node.resident());
}

#[test]
fn more_connections_than_there_is_memory_for_are_refused_and_check_says_so() {
    let origin = Origin::start();
    origin.route_with("/*", answer);
    let fleet = fleet(&origin, LITTLE, "max_connections = 20000");
    let log = fleet.node("e1").log();
    assert!(log.contains("20000 connections take"), "{log}");
    let mut open = Vec::new();
    let refused = || fleet.node("e1").metrics().sum("edge_cache_connections_refused_total", &[]);
    while refused() < 1.0 {
        assert!(open.len() < 6000, "they would take more than the limit");
        for _ in 0..100 {
            open.extend(TcpStream::connect(fleet.node("e1").http()));
        }
    }
    assert!(open.len() > 300, "{}", open.len());
    assert!(fleet.node("e1").resident() <= LITTLE + LITTLE / 10);
}

/// Too small a setting makes a small cache, and says so once.
#[test]
fn a_memory_below_what_the_process_takes_serves_and_is_warned_of() {
    let origin = Origin::start();
    origin.route_with("/*", answer);
    let fleet = plan(&origin)
        .cache_node("e1", "icn", "edge", "memory = \"2MiB\"")
        .toml(&format!(
            "[site.www]\nhosts = [\"{HOST}\"]\nroutes = [ {{ path = \"/*\", origin = \"static\" }} ]"
        ))
        .start();
    let node = fleet.node("e1");
    let mut wires: Vec<Wire> = (0..20).map(|_| Wire::connect(node.http())).collect();
    for round in 0..20 {
        for (number, wire) in wires.iter_mut().enumerate() {
            wire.send(format!("GET /{round}/{number} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        }
        for wire in &mut wires {
            let head = wire.read_head();
            assert_eq!((head.status, wire.read_body("GET", &head).bytes.len()), (200, 100_000));
        }
    }
    wait::until("the warning", || {
        let warned = node.log().matches("hardly more than the process takes by itself").count();
        assert!(warned <= 1);
        (warned == 1).then_some(())
    });
}
