//! A clock that a test moves, for a program that knows nothing of it. Preloaded, this library answers what the wall clock
//! and the clock since boot say: the milliseconds that stand in the first eight bytes of the file `MOVABLE_CLOCK`, in the
//! machine's order, until the test writes others. The monotonic clock, which time-outs run by, is left alone.
#![expect(unsafe_code, reason = "the library's one function is called in the place of libc's")]
#![expect(clippy::disallowed_methods, reason = "a part of the tests' harness")]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The file, mapped; `None` without one.
fn moved() -> Option<&'static AtomicU64> {
    static MAPPED: OnceLock<Option<&'static AtomicU64>> = OnceLock::new();
    *MAPPED.get_or_init(|| {
        let file = File::open(std::env::var_os("MOVABLE_CLOCK")?).ok()?;
        let (read, shared) = (libc::PROT_READ, libc::MAP_SHARED);
        // SAFETY: the kernel chooses the place; the descriptor is open.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), 8, read, shared, file.as_raw_fd(), 0) };
        // SAFETY: a mapping begins at a page, lives as long as the process, and is only read through this reference.
        (at != libc::MAP_FAILED).then(|| unsafe { &*at.cast::<AtomicU64>() })
    })
}

/// `clock_gettime(3)`.
///
/// # Safety
///
/// As of libc's: `time` is null or a valid place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(
    clock: libc::clockid_t,
    time: *mut libc::timespec,
) -> libc::c_int {
    let is_moved = matches!(clock, libc::CLOCK_REALTIME | libc::CLOCK_BOOTTIME);
    if let Some(millis) = moved().filter(|_| is_moved && !time.is_null()) {
        let millis = millis.load(Ordering::SeqCst);
        let seconds = libc::time_t::try_from(millis / 1000).unwrap_or(0);
        let nanos = libc::c_long::try_from(millis % 1000 * 1_000_000).unwrap_or(0);
        // SAFETY: not null, and so valid by this function's contract.
        unsafe { *time = libc::timespec { tv_sec: seconds, tv_nsec: nanos } };
        return 0;
    }
    // SAFETY: the arguments are the caller's.
    let done = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) };
    libc::c_int::try_from(done).unwrap_or(-1)
}
