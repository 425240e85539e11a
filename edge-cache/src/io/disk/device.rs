//! What a disk is to the store: bytes at offsets. A file, a block device, or in tests something that fails.

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{Errno, ReadWriteFlags, preadv2};

/// Bytes at offsets, for several threads at once.
pub trait Device: Debug + Send + Sync {
    /// Fills `buffer` from there.
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Likewise, if it takes no waiting for the disk. `false`: it does.
    fn read_cached(&self, buffer: &mut [u8], offset: u64) -> io::Result<bool>;

    /// Writes all of it there. After an error any part of it may have been written.
    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Returns when all that was written before outlives a loss of power.
    fn sync(&self) -> io::Result<()>;
}

/// A file or a block device, through the kernel's cache.
#[derive(Debug)]
pub struct FileDevice {
    file: File,
    /// Whether the file system can say that it would have to wait.
    can_try: AtomicBool,
}

impl FileDevice {
    /// This file.
    pub const fn new(file: File) -> Self {
        Self { file, can_try: AtomicBool::new(true) }
    }

    /// It.
    pub(super) const fn file(&self) -> &File {
        &self.file
    }
}

impl Device for FileDevice {
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn read_cached(&self, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
        if !self.can_try.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let length = buffer.len();
        let mut into = [IoSliceMut::new(buffer)];
        match preadv2(&self.file, &mut into, offset, ReadWriteFlags::NOWAIT) {
            Ok(read) => Ok(read == length),
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {
                self.can_try.store(false, Ordering::Relaxed);
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
