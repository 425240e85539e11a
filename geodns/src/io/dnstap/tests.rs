//! Streams read back as what was told; nobody waits for a collector.

use std::os::unix::net::UnixListener;
use std::sync::mpsc;
use std::thread;

use super::*;
use crate::answer::Transport;
use crate::dnstap::CONTENT_TYPE;
use crate::dnstap::tests::{decode, payloads};

const LIMIT: Duration = Duration::from_secs(20);

fn open(target: &DnstapTarget, dropped: &Counter) -> Tap {
    let identity = Identity { identity: b"ns1".to_vec(), version: b"geodns".to_vec() };
    Tap::open(target, identity, dropped.clone()).unwrap()
}

fn tell(tap: &Tap, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let address = "192.0.2.1:53".parse().unwrap();
        let client = Client { address, transport: Transport::Udp, draw: 0 };
        tap.tell(&client, None, UnixMillis(1), &number.to_be_bytes(), b"answer");
    }
}

/// The numbers of the queries in data frames, in their order; each was followed by its answer.
fn numbers(data: &[u8]) -> Vec<u32> {
    let payloads = payloads(data);
    let message = |payload: &Vec<u8>| decode(&decode(payload)[&14]);
    let pairs = payloads.chunks(2).map(|pair| {
        let [query, answer] = pair else { panic!("{pair:?}") };
        assert_eq!(message(answer)[&14], b"answer");
        u32::from_be_bytes(message(query)[&10][..].try_into().unwrap())
    });
    pairs.collect()
}

/// The same of a whole file, which must be one whole stream.
fn stream(path: &Path) -> Vec<u32> {
    let octets = std::fs::read(path).unwrap();
    let (start, stop) = (Control::Start.frame(), Control::Stop.frame());
    numbers(octets.strip_prefix(&start[..]).unwrap().strip_suffix(&stop[..]).unwrap())
}

fn all(upto: u32) -> Vec<u32> {
    (0..upto).collect()
}

#[test]
fn a_file_is_one_whole_stream_over_restarts_and_crashes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sub/tap.fstrm");
    let target = DnstapTarget::File(path.clone());
    let dropped = Counter::default();
    let tap = open(&target, &dropped);
    let clone = tap.clone();
    tell(&clone, 0..500);
    drop((tap, clone));
    assert_eq!(stream(&path), all(500));
    // An end.
    let tap = open(&target, &dropped);
    tell(&tap, 500..600);
    drop(tap);
    assert_eq!(stream(&path), all(600));
    // No end, but half of one, or half a frame.
    for (upto, tail) in [(700, 5), (800, 11), (900, 0)] {
        let octets = std::fs::read(&path).unwrap();
        let whole = octets.len() - Control::Stop.frame().len();
        std::fs::write(&path, &octets[..whole + tail]).unwrap();
        drop_and_tell(&target, upto - 100..upto, &dropped);
        assert_eq!(stream(&path), all(upto));
    }
    let mut octets = std::fs::read(&path).unwrap();
    octets.truncate(octets.len() - Control::Stop.frame().len() - 3);
    std::fs::write(&path, &octets).unwrap();
    drop_and_tell(&target, 0..0, &dropped);
    let octets = std::fs::read(&path).unwrap();
    let cut = octets.strip_suffix(&Control::Stop.frame()[..]).unwrap();
    assert_eq!(payloads(&cut[Control::Start.frame().len()..]).len(), 2 * 900 - 1);
    assert_eq!(dropped.get(), 0);
}

fn drop_and_tell(target: &DnstapTarget, range: std::ops::Range<u32>, dropped: &Counter) {
    let tap = open(target, dropped);
    tell(&tap, range);
}

#[test]
fn a_file_of_another_kind_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notes");
    let other = Control::Start.frame().iter().map(|b| if *b == b'p' { b'q' } else { *b }).collect();
    for text in [b"x".to_vec(), b"hello, this is no dnstap".to_vec(), vec![0; 100], other] {
        std::fs::write(&path, &text).unwrap();
        let target = DnstapTarget::File(path.clone());
        let refused = Tap::open(&target, Identity::default(), Counter::default()).err().unwrap();
        assert!(refused.to_string().contains("no dnstap stream"), "{refused}");
        assert_eq!(std::fs::read(&path).unwrap(), text);
    }
}

#[test]
fn a_rotated_file_is_opened_anew_and_both_are_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (path, moved) = (dir.path().join("tap"), dir.path().join("tap.1"));
    let tap = open(&DnstapTarget::File(path.clone()), &Counter::default());
    tell(&tap, 0..10);
    // Nothing has moved: the stream goes on.
    tap.reopen();
    tell(&tap, 10..20);
    // The writer has done all this before the file moves.
    let begun = Instant::now();
    let written = || payloads(&std::fs::read(&path).unwrap()[Control::Start.frame().len()..]).len();
    while written() < 40 {
        assert!(begun.elapsed() < LIMIT, "{} messages", written());
        thread::yield_now();
    }
    std::fs::rename(&path, &moved).unwrap();
    tap.reopen();
    tell(&tap, 0..5);
    drop(tap);
    assert_eq!(stream(&path), all(5));
    assert_eq!(stream(&moved), all(20));
}

/// A collector that has done the handshake.
fn accept(listener: &UnixListener) -> UnixStream {
    let (mut stream, _) = listener.accept().unwrap();
    let mut escape = [0; 4];
    stream.read_exact(&mut escape).unwrap();
    assert!(matches!(read_control(&mut stream), Ok((Control::Ready, true, _))));
    let mut accept = Control::Ready.frame();
    accept[11] = Control::Accept as u8;
    stream.write_all(&accept).unwrap();
    stream.read_exact(&mut escape).unwrap();
    assert!(matches!(read_control(&mut stream), Ok((Control::Start, true, _))));
    stream
}

#[test]
fn a_collector_that_comes_late_and_goes_early_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tap.sock");
    let dropped = Counter::default();
    let tap = open(&DnstapTarget::Socket(path.clone()), &dropped);
    // Nobody is there: what is told is lost, and counted, and nobody waits.
    tell(&tap, 0..10);
    let begun = Instant::now();
    while dropped.get() < 10 {
        assert!(begun.elapsed() < LIMIT, "{} dropped", dropped.get());
        thread::yield_now();
    }
    let listener = UnixListener::bind(&path).unwrap();
    drop(accept(&listener));
    let (sender, got) = mpsc::channel();
    let collector = thread::spawn(move || {
        let mut stream = accept(&listener);
        sender.send(()).unwrap();
        let mut octets = Vec::new();
        let stop = Control::Stop.frame();
        let mut buffer = [0; 4096];
        while !octets.ends_with(&stop) {
            let length = stream.read(&mut buffer).unwrap();
            assert!(length > 0, "the stream ends without an end");
            octets.extend_from_slice(&buffer[..length]);
        }
        stream.write_all(&Control::Finish.frame()).unwrap();
        octets.truncate(octets.len() - stop.len());
        octets
    });
    // That the first one has gone is noticed by writing to it.
    let begun = Instant::now();
    while got.try_recv().is_err() {
        assert!(begun.elapsed() < LIMIT, "the collector is not found again");
        tell(&tap, 99..100);
        thread::sleep(Duration::from_millis(5));
    }
    tell(&tap, 0..200);
    drop(tap);
    let received = numbers(&collector.join().unwrap());
    let expected = all(200);
    assert!(received.ends_with(&expected), "{} received", received.len());
}

#[test]
fn a_collector_that_reads_nothing_holds_up_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tap.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let dropped = Counter::default();
    let tap = open(&DnstapTarget::Socket(path), &dropped);
    let _stream = accept(&listener);
    let large = vec![7; 60_000];
    let client = Client { address: "[::1]:1".parse().unwrap(), transport: Transport::Tcp, draw: 0 };
    let begun = Instant::now();
    for _ in 0..1000 {
        tap.tell(&client, Some("[::1]:53".parse().unwrap()), UnixMillis(1), b"query", &large);
    }
    // 60 MB were told, 16 MiB may wait.
    assert!(dropped.get() > 600, "{}", dropped.get());
    assert!(begun.elapsed() < PATIENCE, "telling waited");
    let queued = tap.0.as_ref().unwrap().queued.load(Ordering::Relaxed);
    assert!(queued <= QUEUE_BYTES, "{queued}");
}

#[test]
fn a_collector_of_something_else_is_not_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tap.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let other = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let ready = Control::Ready.frame();
        let mut got = vec![0; ready.len()];
        stream.read_exact(&mut got).unwrap();
        assert!(got == ready && ready.ends_with(CONTENT_TYPE));
        let mut accept = Control::Ready.frame();
        accept[11] = Control::Accept as u8;
        *accept.last_mut().unwrap() = b'x';
        stream.write_all(&accept).unwrap();
        assert_eq!(stream.read(&mut [0; 10]).unwrap(), 0, "the writer goes away");
    });
    assert!(connect(&path).unwrap_err().to_string().contains("does not take dnstap"));
    other.join().unwrap();
}

#[test]
fn off_is_off() {
    let tap = open(&DnstapTarget::Off, &Counter::default());
    assert!(!tap.is_on());
    tell(&tap, 0..3);
    tap.reopen();
}
