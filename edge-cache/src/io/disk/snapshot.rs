//! The index's copy, written when a disk is closed and read when it is opened.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use super::device::Device;
use super::engine::{Engine, lock};
use super::open::Holds;
use super::recover::in_threads;
use crate::store::disk::format::Superblock;
use crate::store::disk::geometry::UNIT;
use crate::store::disk::index::{Entry, Table};
use crate::store::disk::snapshot::{Directory, ENTRY, decode_shard, directory_bytes, encode_shard};

/// What is written at once.
const CHUNK: usize = 4 << 20;

const fn data_start(engine: &Engine) -> u64 {
    let directory = directory_bytes(engine.geometry.segments as usize, engine.index.shards());
    engine.geometry.snapshot_start() + (directory as u64).next_multiple_of(4096)
}

/// Writes it; when it returns it is on the disk.
pub(super) fn write(engine: &Engine) -> io::Result<()> {
    let start = data_start(engine);
    if start + (engine.index.len() * ENTRY) as u64 > engine.geometry.size {
        return Err(io::ErrorKind::StorageFull.into());
    }
    let segments = 0..engine.geometry.segments;
    let segments = segments
        .map(|segment| (engine.usage.sequence(segment), engine.usage.live(segment)))
        .collect();
    let (uuid, run) = (engine.uuid, lock(&engine.superblock).run);
    let mut directory = Directory { uuid, run, segments, shards: Vec::new() };
    let (mut bytes, mut offset) = (Vec::with_capacity(CHUNK), start);
    for shard in engine.index.each() {
        directory.shards.push(encode_shard(&shard, &mut bytes));
        drop(shard);
        if bytes.len() >= CHUNK {
            engine.device.write(&bytes, offset)?;
            offset += bytes.len() as u64;
            bytes.clear();
        }
    }
    engine.device.write(&bytes, offset)?;
    let directory = directory.encode(engine.salt);
    engine.device.write(&directory, engine.geometry.snapshot_start())?;
    engine.counters.written_footers.add(offset + bytes.len() as u64 - start);
    engine.device.sync()
}

/// What a disk that was stopped cleanly holds, as its copy says: it is believed if it is of that stop.
pub(super) fn holds(device: &dyn Device, superblock: &Superblock) -> Option<Holds> {
    let geometry = superblock.geometry().filter(|_| superblock.is_clean)?;
    let mut bytes = vec![0; 48];
    device.read(&mut bytes, geometry.snapshot_start()).ok()?;
    bytes.resize(Directory::announced(&bytes, &geometry)?, 0);
    device.read(&mut bytes, geometry.snapshot_start()).ok()?;
    let directory = Directory::decode(&bytes, &geometry, superblock.salt)?;
    let fits = directory.uuid == superblock.uuid && directory.run == superblock.run;
    let records = directory.shards.iter().map(|(count, _)| u64::from(*count)).sum();
    let units: u64 = directory.segments.iter().map(|(_, live)| u64::from(*live)).sum();
    fits.then_some(Holds { records, bytes: units * UNIT })
}

/// Takes it as the index, if it is whole and of the run before this one.
pub(super) fn load(engine: &Engine) -> Option<()> {
    let (geometry, salt) = (&engine.geometry, engine.salt);
    let mut bytes = vec![0; 48];
    engine.device.read(&mut bytes, geometry.snapshot_start()).ok()?;
    let length = Directory::announced(&bytes, geometry)?;
    bytes.resize(length, 0);
    engine.device.read(&mut bytes, geometry.snapshot_start()).ok()?;
    let directory = Directory::decode(&bytes, geometry, salt)?;
    let fits = directory.uuid == engine.uuid
        && directory.run == engine.clean_run
        && directory.shards.len() == engine.index.shards();
    if !fits {
        return None;
    }
    let mut offset = data_start(engine);
    let mut starts = Vec::with_capacity(directory.shards.len());
    for (count, sum) in &directory.shards {
        starts.push((offset, *count as usize * ENTRY, *sum));
        offset += u64::from(*count) * ENTRY as u64;
    }
    if offset > geometry.size {
        return None;
    }
    let broken = AtomicBool::new(false);
    in_threads(starts.len(), &|shard| {
        let Some((offset, length, sum)) = starts.get(shard).copied() else { return };
        if broken.load(Ordering::Relaxed) {
            return;
        }
        match read_shard(engine, shard, offset, length, sum) {
            Some(table) => *engine.index.shard(shard as u64) = table,
            None => broken.store(true, Ordering::Relaxed),
        }
    });
    if broken.into_inner() {
        engine.index.clear();
        return None;
    }
    for (segment, (sequence, live)) in (0..).zip(directory.segments) {
        engine.usage.restore(segment, sequence, live);
    }
    Some(())
}

fn read_shard(
    engine: &Engine,
    shard: usize,
    offset: u64,
    length: usize,
    sum: u32,
) -> Option<Table<(u64, Entry)>> {
    let mut bytes = vec![0; length];
    engine.device.read(&mut bytes, offset).ok()?;
    decode_shard(&bytes, sum, &engine.geometry, |hash| engine.index.shard_of(hash) == shard)
}
