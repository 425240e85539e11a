//! A device in memory, that fails as it is told, and remembers what a loss of power would leave.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use shared::config::Mismatch;

use super::super::*;
use crate::store::disk::Geometry;

/// What is to go wrong from now on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) read: Option<io::ErrorKind>,
    pub(crate) write: Option<io::ErrorKind>,
    /// Nothing is in the kernel's cache.
    pub(crate) is_cold: bool,
    /// Reads wait until this is over.
    pub(crate) is_stuck: bool,
    /// Every so many bytes read, one bit is not what was written.
    pub(crate) flips_every: Option<usize>,
}

#[derive(Debug, Default)]
struct Bytes {
    now: Vec<u8>,
    /// What outlives a loss of power for certain …
    durable: Vec<u8>,
    /// … and what may.
    unsynced: Vec<(u64, Vec<u8>)>,
    /// Writes until everything ends, the last of them in its midst.
    left: Option<u64>,
}

#[derive(Debug, Default)]
pub(crate) struct MemoryDevice {
    bytes: Mutex<Bytes>,
    faults: Mutex<Faults>,
    change: Condvar,
    ended: AtomicBool,
    pub(crate) writes: AtomicU64,
}

impl MemoryDevice {
    pub(crate) fn new(size: u64) -> Arc<Self> {
        Self::with(vec![0; size as usize])
    }

    pub(crate) fn with(image: Vec<u8>) -> Arc<Self> {
        let bytes = Bytes { durable: image.clone(), now: image, ..Bytes::default() };
        Arc::new(Self { bytes: Mutex::new(bytes), ..Self::default() })
    }

    pub(crate) fn set(&self, faults: Faults) {
        *self.faults.lock().unwrap() = faults;
        self.change.notify_all();
    }

    /// After so many writes more the process ends: the next one is torn, and nothing is written after it.
    pub(crate) fn end_after(&self, writes: u64) {
        self.bytes.lock().unwrap().left = Some(writes);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// What the end of the process leaves.
    pub(crate) fn image(&self) -> Vec<u8> {
        self.bytes.lock().unwrap().now.clone()
    }

    /// What a loss of power leaves: of what was not synced, those pages that `survives` says.
    pub(crate) fn image_without_power(&self, mut survives: impl FnMut() -> bool) -> Vec<u8> {
        let bytes = self.bytes.lock().unwrap();
        let mut image = bytes.durable.clone();
        for (offset, written) in &bytes.unsynced {
            for (page, at) in written.chunks(512).zip((*offset as usize..).step_by(512)) {
                if survives() {
                    image[at..at + page.len()].copy_from_slice(page);
                }
            }
        }
        image
    }

    fn fails(&self, kind: Option<io::ErrorKind>) -> io::Result<()> {
        kind.map_or(Ok(()), |kind| Err(kind.into()))
    }
}

impl Device for MemoryDevice {
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut faults = self.faults.lock().unwrap();
        while faults.is_stuck {
            faults = self.change.wait(faults).unwrap();
        }
        let faults = *faults;
        self.fails(faults.read)?;
        let bytes = self.bytes.lock().unwrap();
        let from = bytes.now.get(offset as usize..).unwrap_or_default();
        let from = from.get(..buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(from);
        if let Some(every) = faults.flips_every {
            for byte in buffer.iter_mut().skip(every / 2).step_by(every) {
                *byte ^= 0x10;
            }
        }
        Ok(())
    }

    fn read_cached(&self, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
        let faults = *self.faults.lock().unwrap();
        if faults.is_cold || faults.is_stuck {
            return Ok(false);
        }
        self.read(buffer, offset).map(|()| true)
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.fails(self.faults.lock().unwrap().write)?;
        let mut state = self.bytes.lock().unwrap();
        let mut written = bytes;
        match &mut state.left {
            Some(0) if self.ended.swap(true, Ordering::SeqCst) => return Ok(()),
            Some(0) => written = &bytes[..bytes.len() / 3],
            Some(left) => *left -= 1,
            None => {}
        }
        let at = offset as usize;
        let Some(into) = state.now.get_mut(at..at + written.len()) else {
            return Err(io::ErrorKind::StorageFull.into());
        };
        into.copy_from_slice(written);
        state.unsynced.push((offset, written.to_vec()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        if self.has_ended() {
            return Ok(());
        }
        let mut state = self.bytes.lock().unwrap();
        let state = &mut *state;
        for (offset, written) in state.unsynced.drain(..) {
            let at = offset as usize;
            state.durable[at..at + written.len()].copy_from_slice(&written);
        }
        Ok(())
    }
}

/// Disks over these devices, with segments of this many bytes; ready.
pub(crate) fn over(devices: &[&Arc<MemoryDevice>], segment: u32) -> Disks {
    let opened = devices.iter().map(|device| {
        let size = device.bytes.lock().unwrap().now.len() as u64;
        let geometry = Geometry::with_segment(size, segment).unwrap();
        let device: Arc<dyn Device> = (*device).clone();
        let opened = Opened::new("memory".into(), device, geometry, 1, Mismatch::Rebuild);
        (opened.unwrap(), None)
    });
    let disks = Disks::start(opened.collect()).unwrap();
    super::ready(&disks);
    disks
}
