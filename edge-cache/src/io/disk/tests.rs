//! The disks as those who use them see them: over files, and over devices that fail.

mod crash;
mod failing;
mod memory;
mod opening;
mod parts;

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use shared::config::Mismatch;

use super::*;
use crate::semantics::vary::VariantKey;

pub(super) const MIB: u64 = 1 << 20;

pub(super) fn place(n: u64) -> ObjectKey {
    ObjectKey { key: u128::from(n) << 64 | 7, variant: VariantKey::NONE }
}

/// Bytes that tell which they are.
pub(super) fn body(seed: u64, length: usize) -> Bytes {
    let mut bytes = Vec::with_capacity(length + 8);
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while bytes.len() < length {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

fn config(path: &Path, size: u64) -> DiskConfig {
    DiskConfig { path: path.to_owned(), size, daily_writes: None, mismatch: Mismatch::Rebuild }
}

fn open_at(path: &Path) -> Disks {
    let disks = Disks::open(&[config(path, 16 * MIB)], 1).unwrap();
    ready(&disks);
    disks
}

/// Waits for something, not for long.
#[track_caller]
pub(super) fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

#[track_caller]
pub(super) fn ready(disks: &Disks) {
    until("the disks become ready", || !disks.is_recovering());
}

pub(super) fn put(disks: &Disks, n: u64, meta: &[u8], length: usize) -> bool {
    let meta = Bytes::copy_from_slice(meta);
    disks.write(place(n), Kind::Object, meta, vec![body(n, length)])
}

#[tokio::test]
async fn what_is_written_is_read_after_a_stop_and_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let disks = open_at(folder.path());
    assert_eq!(disks.stats()[0].start.unwrap().0, Start::Empty(Emptied::New));
    for (n, length) in [(1, 0), (2, 1), (3, 65_536), (4, 65_537), (5, 300_000)] {
        assert!(put(&disks, n, format!("meta {n}").as_bytes(), length));
    }
    assert!(disks.update(place(3), Kind::Object, Bytes::from_static(b"later")));
    assert!(put(&disks, 6, b"", 10));
    disks.remove(place(6));
    assert!(!disks.contains(place(6)));
    assert!(disks.flush().await);
    let check = async |disks: &Disks| {
        for (n, length) in [(1, 0), (2, 1), (3, 65_536), (4, 65_537), (5, 300_000)] {
            let record = disks.read(place(n)).await.unwrap();
            assert_eq!(record.body, body(n, length));
            let meta = if n == 3 { "later".to_owned() } else { format!("meta {n}") };
            assert_eq!(record.meta, meta.as_bytes());
            match disks.try_read(place(n)) {
                Read::Ready(again) => assert_eq!(again, record),
                read => assert!(length > 100_000 && read == Read::Wait, "{n} {read:?}"),
            }
        }
        assert!(disks.read(place(6)).await.is_none());
        assert_eq!(disks.try_read(place(99)), Read::Absent);
        assert_eq!(disks.stats()[0].checksum_failures, 0);
    };
    check(&disks).await;
    disks.close().await;
    drop(disks);
    let disks = open_at(folder.path());
    assert_eq!(disks.stats()[0].start.unwrap().0, Start::Copy);
    check(&disks).await;
    // The copy holds for one start.
    disks.stop();
    let disks = open_at(folder.path());
    assert_eq!(disks.stats()[0].start.unwrap().0, Start::Segments);
    check(&disks).await;
}

/// Many times what the disk holds: what was asked for stays longer, all that is found is right, room never ends.
#[tokio::test]
async fn a_full_disk_keeps_what_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let disks = open_at(folder.path());
    let hot = 1..=40;
    let mut n = 1000;
    for round in 0..90 {
        for key in hot.clone() {
            if !disks.contains(place(key)) {
                assert!(put(&disks, key, b"hot", 20_000));
            }
        }
        for _ in 0..50 {
            n += 1;
            assert!(put(&disks, n, b"cold", 20_000), "{round}");
        }
        assert!(disks.flush().await);
        for key in hot.clone() {
            if let Some(record) = disks.read(place(key)).await {
                assert_eq!(record.body, body(key, 20_000));
            }
        }
    }
    let kept = hot.filter(|key| disks.contains(place(*key))).count();
    let stats = &disks.stats()[0];
    assert!(kept >= 36, "{kept} {stats:?}");
    assert!(
        stats.written() > 50 * MIB && stats.reclaimed > 30 && stats.evicted > 1000,
        "{stats:?}"
    );
    assert!(stats.written_moved > 0 && stats.not_taken == 0, "{stats:?}");
    assert!(stats.live_bytes > 9 * MIB && stats.live_bytes < 16 * MIB, "{stats:?}");
    assert_eq!((stats.checksum_failures, stats.read_errors, stats.write_errors), (0, 0, 0));
}
