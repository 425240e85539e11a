//! Parts of records: no more is read than their blocks, and no more is believed.

use super::memory::{MemoryDevice, over};
use super::*;

const LENGTH: usize = 1 << 20;
const BLOCK: usize = 64 << 10;

async fn stored(device: &Arc<MemoryDevice>, meta: &[u8]) -> Disks {
    let disks = over(&[device], 4 << 20);
    assert!(put(&disks, 1, meta, LENGTH) && disks.flush().await);
    disks
}

#[tokio::test]
async fn a_part_costs_its_blocks() {
    // A head that ends in the first page, and one that is longer.
    for meta in [&b"meta"[..], &[7; 9000]] {
        let device = MemoryDevice::new(64 * MIB);
        let disks = stored(&device, meta).await;
        for (start, end, blocks) in [
            (0, 1, 1),
            (700_000, 700_001, 1),
            (BLOCK - 1, BLOCK + 1, 2),
            (BLOCK, 2 * BLOCK, 1),
            (LENGTH - 1, LENGTH, 1),
            (LENGTH - 10, LENGTH + 10, 1),
            (LENGTH, LENGTH + 1, 0),
            (5, 5, 0),
            (0, usize::MAX, 16),
        ] {
            let before = disks.stats()[0].read_bytes;
            let record = disks.read_part(place(1), Some((start, end))).await.unwrap();
            assert_eq!(record.meta, meta);
            let expected = body(1, LENGTH).slice(start.min(LENGTH)..end.min(LENGTH));
            assert_eq!(record.body, expected, "{start}-{end}");
            let read = (disks.stats()[0].read_bytes - before) as usize;
            let head = if meta.len() > 4096 { 4096..20_000 } else { 4096..4097 };
            assert!(head.contains(&(read - blocks * BLOCK)), "{start}-{end}: {read}");
        }
        let before = disks.stats()[0].read_bytes;
        assert_eq!(disks.read(place(1)).await.unwrap().body.len(), LENGTH);
        assert!(disks.stats()[0].read_bytes - before > LENGTH as u64);
        disks.stop();
    }
}

/// A block that is damaged is a miss for who needs it, and for nobody before.
#[tokio::test]
async fn a_damaged_block_is_found_by_who_reads_it() {
    let device = MemoryDevice::new(64 * MIB);
    stored(&device, b"meta").await.stop();
    let mut image = device.image();
    let piece = body(1, LENGTH).slice(3 * BLOCK..3 * BLOCK + 64);
    let at = image.windows(64).position(|window| window == piece).unwrap();
    image[at + 7] ^= 1;
    let disks = over(&[&MemoryDevice::with(image)], 4 << 20);
    ready(&disks);
    let sound = disks.read_part(place(1), Some((0, 2 * BLOCK))).await.unwrap();
    assert_eq!(sound.body, body(1, LENGTH).slice(..2 * BLOCK));
    assert_eq!(disks.stats()[0].checksum_failures, 0);
    assert_eq!(disks.read_part(place(1), Some((4 * BLOCK - 1, 4 * BLOCK + 1))).await, None);
    assert_eq!(disks.stats()[0].checksum_failures, 1);
    assert!(!disks.contains(place(1)));
    disks.stop();
}
