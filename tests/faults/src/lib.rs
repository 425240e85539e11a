//! Disks that a test breaks and mends, for a program that knows nothing of it. Preloaded, this library stands before what
//! libc has for files, and before nothing else: memory maps and programs that ask the kernel themselves it does not see.
//!
//! `FAULTY_FILES` has a `PART=CONTROL` for each disk, separated by `:`. Files whose path contains PART are that disk's;
//! CONTROL is a file of `Control`, mapped, so that what the test writes there holds from the next call on.
#![expect(unsafe_code, reason = "the library's functions are called in the place of libc's")]
#![expect(clippy::disallowed_methods, reason = "a part of the tests' harness")]

pub mod calls;

use std::ffi::{CStr, CString, c_int};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Words of the machine's order. The test writes the first ones, the library the others.
#[derive(Debug)]
#[repr(C)]
struct Control {
    /// The error that reads fail with; 0: they do not.
    read_error: AtomicU64,
    /// That of writes, and of what changes a file's length.
    write_error: AtomicU64,
    /// That of `fsync` and its kin.
    sync_error: AtomicU64,
    /// That of `open`.
    open_error: AtomicU64,
    /// Bytes of a read at most; 0: as asked for.
    read_most: AtomicU64,
    /// Bytes of a write at most.
    write_most: AtomicU64,
    /// Milliseconds before each call.
    delay: AtomicU64,
    /// In every so-manieth read one bit is another; 0: in none.
    flip_every: AtomicU64,
    /// Reads there were,
    reads: AtomicU64,
    /// writes,
    writes: AtomicU64,
    /// calls that were made to fail or to be short,
    failed: AtomicU64,
    /// and bits that were made others.
    flipped: AtomicU64,
}

/// A disk.
struct Disk {
    part: Vec<u8>,
    control: &'static Control,
}

/// What a call does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Open,
    Read,
    /// A read that does not wait: what would have to wait for a disk is told so.
    Try,
    Write,
    Sync,
}

/// What becomes of a call.
enum Fate {
    /// It is made, of so many bytes at most.
    Made(usize),
    Fails(c_int),
}

fn disks() -> &'static [Disk] {
    static DISKS: OnceLock<Vec<Disk>> = OnceLock::new();
    DISKS.get_or_init(|| {
        let list = std::env::var("FAULTY_FILES").unwrap_or_default();
        list.split(':').filter_map(|item| item.split_once('=')).filter_map(Disk::new).collect()
    })
}

impl Disk {
    fn new((part, control): (&str, &str)) -> Option<Self> {
        let path = CString::new(control).ok()?;
        let (access, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: the path ends with a zero; the kernel chooses the place. Of the kernel itself, for the function of libc is
        // the one that is asking.
        let at = unsafe {
            let how = libc::O_RDWR | libc::O_CLOEXEC;
            let file = libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), how, 0);
            let file = c_int::try_from(file).ok().filter(|file| *file >= 0)?;
            libc::mmap(std::ptr::null_mut(), size_of::<Control>(), access, shared, file, 0)
        };
        if at == libc::MAP_FAILED {
            return None;
        }
        // SAFETY: a mapping begins at a page, lives as long as the process, and holds words that are only used atomically.
        let control = unsafe { &*at.cast::<Control>() };
        Some(Self { part: part.into(), control })
    }

    /// What becomes of a call for this many bytes.
    fn fate(&self, kind: Kind, bytes: usize) -> Fate {
        let set = |word: &AtomicU64| word.load(Ordering::SeqCst);
        let control = self.control;
        let delay = set(&control.delay);
        if delay > 0 && kind == Kind::Try {
            return Fate::Fails(libc::EAGAIN);
        }
        wait(delay);
        let (error, most) = match kind {
            Kind::Open => (set(&control.open_error), 0),
            Kind::Read | Kind::Try => (set(&control.read_error), set(&control.read_most)),
            Kind::Write => (set(&control.write_error), set(&control.write_most)),
            Kind::Sync => (set(&control.sync_error), 0),
        };
        match kind {
            Kind::Read | Kind::Try => control.reads.fetch_add(1, Ordering::SeqCst),
            Kind::Write => control.writes.fetch_add(1, Ordering::SeqCst),
            Kind::Open | Kind::Sync => 0,
        };
        let most = usize::try_from(most).ok().filter(|most| *most > 0 && *most < bytes);
        if error > 0 || most.is_some() {
            control.failed.fetch_add(1, Ordering::SeqCst);
        }
        match c_int::try_from(error) {
            Ok(0) | Err(_) => Fate::Made(most.unwrap_or(bytes)),
            // What is not in memory yet, and never will be.
            Ok(_) if kind == Kind::Try => Fate::Fails(libc::EAGAIN),
            Ok(error) => Fate::Fails(error),
        }
    }

    /// Changes a bit of what was read, if it is its turn.
    fn flip(&self, read: &mut [u8]) {
        let every = self.control.flip_every.load(Ordering::SeqCst);
        let turn = self.control.reads.load(Ordering::SeqCst);
        if every == 0 || !turn.is_multiple_of(every) || read.is_empty() {
            return;
        }
        let at = turn.wrapping_mul(0x9e37_79b9_7f4a_7c15) as usize % read.len();
        if let Some(byte) = read.get_mut(at) {
            *byte ^= 1 << (turn % 8);
        }
        self.control.flipped.fetch_add(1, Ordering::SeqCst);
    }
}

fn wait(millis: u64) {
    if millis > 0 {
        std::thread::sleep(std::time::Duration::from_millis(millis));
    }
}

/// The disk that a path is on.
fn disk_of_path(path: &[u8]) -> Option<&'static Disk> {
    disks().iter().find(|disk| path.windows(disk.part.len().max(1)).any(|part| part == disk.part))
}

/// The disk that a descriptor is on.
fn disk_of(file: c_int) -> Option<&'static Disk> {
    if disks().is_empty() {
        return None;
    }
    let link = format!("/proc/self/fd/{file}\0");
    let link = CStr::from_bytes_with_nul(link.as_bytes()).ok()?;
    let mut path = [0u8; 4096];
    // SAFETY: both point to memory of this frame, the second to as much as is said.
    let length = unsafe { libc::readlink(link.as_ptr(), path.as_mut_ptr().cast(), path.len()) };
    disk_of_path(path.get(..usize::try_from(length).ok()?)?)
}

fn fail(error: c_int) -> isize {
    // SAFETY: the place is this thread's own.
    unsafe { *libc::__errno_location() = error };
    -1
}
