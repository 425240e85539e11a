//! Devices that fail, fill up, hang or lie: the node serves on, with misses.

use std::io::ErrorKind;

use super::memory::{Faults, MemoryDevice, over};
use super::*;

#[tokio::test]
async fn a_device_that_fails_is_left_alone_and_its_places_go_to_the_others() {
    let (bad, good) = (MemoryDevice::new(4 * MIB), MemoryDevice::new(4 * MIB));
    let disks = over(&[&bad, &good], 64 << 10);
    let all = 0..100;
    for n in all.clone() {
        assert!(put(&disks, n, b"", 5000));
    }
    assert!(disks.flush().await);
    let on_bad = disks.stats()[0].objects;
    assert!((30..70).contains(&on_bad), "{on_bad}");
    bad.set(Faults { read: Some(ErrorKind::Other), is_cold: true, ..Faults::default() });
    let mut found = 0;
    for n in all.clone() {
        if let Some(record) = disks.read(place(n)).await {
            assert_eq!(record.body, body(n, 5000));
            found += 1;
        }
    }
    let stats = disks.stats();
    assert_eq!((stats[0].state, stats[1].state), (State::Isolated, State::Ready));
    assert!(stats[0].read_errors >= 8 && stats[0].objects == 0, "{stats:?}");
    assert_eq!(found, 100 - on_bad);
    // What was on it is stored on the other one, anew.
    for n in all.clone() {
        if !disks.contains(place(n)) {
            assert!(put(&disks, n, b"new", 5000));
        }
    }
    until("all is found again", || all.clone().all(|n| disks.contains(place(n))));
    disks.close().await;
    disks.stop();
    // It comes back: what it held may have been replaced since.
    bad.set(Faults::default());
    let disks = over(&[&bad, &good], 64 << 10);
    let stats = disks.stats();
    assert_eq!(stats[1].start.unwrap().0, Start::Copy, "{stats:?}");
    let emptied = stats[0].start.unwrap().0;
    assert!(matches!(emptied, Start::Empty(Emptied::Failed | Emptied::Absent)), "{emptied:?}");
    assert_eq!(stats[0].objects, 0);
    disks.stop();
}

/// What has been replaced while a disk was out is not found on it later, nor on another one that it had gone to.
#[tokio::test]
async fn a_disk_that_was_absent_is_emptied() {
    let devices = [MemoryDevice::new(4 * MIB), MemoryDevice::new(4 * MIB)];
    let both = [&devices[0], &devices[1]];
    let disks = over(&both, 64 << 10);
    for n in 0..40 {
        assert!(put(&disks, n, b"old", 1000));
    }
    disks.close().await;
    disks.stop();
    let disks = over(&both[1..], 64 << 10);
    for n in 0..40 {
        assert!(put(&disks, n, b"new", 1000));
    }
    disks.close().await;
    disks.stop();
    let disks = over(&both, 64 << 10);
    assert_eq!(disks.stats()[0].start.unwrap().0, Start::Empty(Emptied::Absent));
    let mut found = 0;
    for n in 0..40 {
        if let Some(record) = disks.read(place(n)).await {
            assert_eq!(record.meta, b"new"[..]);
            found += 1;
        }
    }
    assert!(found > 5, "{found}");
    // Those that lie on one disk and belong to the other go when they are written again.
    for n in 0..40 {
        assert!(put(&disks, n, b"third", 1000));
    }
    assert!(disks.flush().await);
    assert_eq!(disks.stats().iter().map(|stats| stats.objects).sum::<u64>(), 40);
    disks.stop();
}

#[tokio::test]
async fn a_full_or_read_only_device_serves_what_it_has_and_recovers() {
    for kind in [ErrorKind::StorageFull, ErrorKind::ReadOnlyFilesystem] {
        let device = MemoryDevice::new(4 * MIB);
        let disks = over(&[&device], 64 << 10);
        assert!(put(&disks, 1, b"kept", 1000) && put(&disks, 2, b"gone", 1000));
        assert!(disks.flush().await);
        device.set(Faults { write: Some(kind), ..Faults::default() });
        disks.remove(place(2));
        until("writes are refused", || {
            let _ = put(&disks, 3, b"", 1000);
            disks.stats()[0].state == State::ReadOnly
        });
        assert!(!disks.flush().await);
        assert_eq!(disks.read(place(1)).await.unwrap().meta, b"kept"[..]);
        assert_eq!(disks.read(place(2)).await, None);
        device.set(Faults::default());
        until("it is written again", || disks.stats()[0].state == State::Ready);
        // What had been handed over before it was known to fail may still fill the queue.
        until("there is room", || put(&disks, 4, b"later", 1000));
        assert!(disks.flush().await);
        assert!(disks.stats()[0].write_errors >= 2);
        disks.stop();
        // What was removed while nothing could be written is not found after a crash, either.
        let disks = over(&[&MemoryDevice::with(device.image())], 64 << 10);
        assert!(disks.contains(place(1)) && disks.contains(place(4)));
        assert!(!disks.contains(place(2)));
        disks.stop();
    }
}

#[tokio::test]
async fn a_device_that_fails_to_write_is_left_alone() {
    let device = MemoryDevice::new(4 * MIB);
    let disks = over(&[&device], 64 << 10);
    device.set(Faults { write: Some(ErrorKind::Other), ..Faults::default() });
    until("it is left alone", || {
        let _ = put(&disks, 1, b"", 1000);
        disks.stats()[0].state == State::Isolated
    });
    assert!(!put(&disks, 1, b"", 1000) && !disks.flush().await);
    disks.remove(place(1));
    assert_eq!(disks.read(place(1)).await, None);
    disks.close().await;
}

#[tokio::test]
async fn a_device_that_hangs_costs_a_bounded_time() {
    let device = MemoryDevice::new(4 * MIB);
    let disks = Arc::new(over(&[&device], 64 << 10));
    assert!(put(&disks, 1, b"", 1000));
    assert!(disks.flush().await);
    device.set(Faults { is_stuck: true, ..Faults::default() });
    assert_eq!(disks.try_read(place(1)), Read::Wait);
    let began = Instant::now();
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..400 {
        let disks = Arc::clone(&disks);
        waiting.spawn(async move { disks.read(place(1)).await });
    }
    let records = waiting.join_all().await;
    assert!(records.len() == 400 && records.iter().all(Option::is_none));
    assert!(began.elapsed() < read::DEADLINE * 8, "{:?}", began.elapsed());
    assert_eq!(disks.stats()[0].timeouts, 400);
    // From some time on nobody is made to wait, nor counted.
    until("it is known", || disks.stats()[0].state == State::Stalled);
    let before = disks.stats()[0].timeouts;
    assert_eq!(disks.try_read(place(1)), Read::Absent);
    assert_eq!(disks.read(place(1)).await, None);
    assert!(!disks.contains(place(1)) && !put(&disks, 2, b"", 1000));
    assert_eq!(disks.stats()[0].timeouts, before);
    device.set(Faults::default());
    until("it is used again", || disks.stats()[0].state == State::Ready);
    until("it answers again", || matches!(disks.try_read(place(1)), Read::Ready(_)));
    Arc::into_inner(disks).unwrap().stop();
}

#[tokio::test]
async fn bytes_that_flip_on_the_way_are_misses() {
    let device = MemoryDevice::new(4 * MIB);
    let disks = over(&[&device], 64 << 10);
    for n in 0..20 {
        assert!(put(&disks, n, b"meta", 20_000));
    }
    assert!(disks.flush().await);
    device.set(Faults { flips_every: Some(5000), ..Faults::default() });
    for n in 0..20 {
        assert_eq!(disks.read(place(n)).await, None);
        assert!(!disks.contains(place(n)), "it is dropped");
    }
    let stats = &disks.stats()[0];
    assert_eq!((stats.checksum_failures, stats.hits), (20, 0), "{stats:?}");
    disks.stop();
}

/// A writer that does not come along: the queue's bound holds, the rest is not taken, nothing blocks.
#[tokio::test]
async fn a_queue_that_is_full_takes_no_more() {
    let device = MemoryDevice::new(64 * MIB);
    let disks = over(&[&device], 1 << 20);
    device.set(Faults { write: Some(ErrorKind::StorageFull), ..Faults::default() });
    let big = body(1, 900_000);
    let mut taken = 0;
    for n in 0..200 {
        taken += u32::from(disks.write(place(n), Kind::Object, Bytes::new(), vec![big.clone()]));
    }
    assert!(taken < 100, "{taken}");
    assert!(disks.stats()[0].not_taken > 0);
    disks.stop();
}
