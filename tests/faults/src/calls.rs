//! The functions of libc that this library stands before: each asks the disk of its file what becomes of it, and makes the
//! same call of the kernel.

use std::ffi::{CStr, c_char, c_int, c_long, c_void};

use libc::{iovec, mode_t, off_t, size_t, ssize_t};

use super::{Disk, Fate, Kind, disk_of, disk_of_path, fail};

fn returned(value: c_long) -> ssize_t {
    ssize_t::try_from(value).unwrap_or(-1)
}

fn status(value: c_long) -> c_int {
    c_int::try_from(value).unwrap_or(-1)
}

/// A read into one place: of `length` bytes at most, by `call`.
unsafe fn read_into(
    file: c_int,
    buffer: *mut c_void,
    length: size_t,
    call: impl FnOnce(size_t) -> c_long,
) -> ssize_t {
    let Some(disk) = disk_of(file) else { return returned(call(length)) };
    let most = match disk.fate(Kind::Read, length) {
        Fate::Made(most) => most,
        Fate::Fails(error) => return fail(error),
    };
    let read = returned(call(most));
    if let Ok(read) = usize::try_from(read) {
        // SAFETY: the kernel has just written as many bytes there, by the caller's leave.
        disk.flip(unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), read) });
    }
    read
}

/// A read into several places: into the first one alone, where it is to be short or has a bit changed.
unsafe fn read_scattered(
    file: c_int,
    parts: *const iovec,
    count: c_int,
    kind: Kind,
    call: impl FnOnce(*const iovec, c_int) -> c_long,
) -> ssize_t {
    let (Some(disk), true) = (disk_of(file), count > 0) else {
        return returned(call(parts, count));
    };
    // SAFETY: the caller's list has `count` parts, more than none.
    let mut first = unsafe { *parts };
    let all = if count == 1 { first.iov_len } else { usize::MAX };
    match disk.fate(kind, all) {
        Fate::Fails(error) => fail(error),
        Fate::Made(most) => {
            let is_flipping = disk.control.flip_every.load(std::sync::atomic::Ordering::SeqCst) > 0;
            if most == all && !is_flipping {
                return returned(call(parts, count));
            }
            first.iov_len = first.iov_len.min(most);
            let read = returned(call(&raw const first, 1));
            if let Ok(read) = usize::try_from(read) {
                let start = first.iov_base.cast::<u8>();
                // SAFETY: the kernel has just written as many bytes there, by the caller's leave.
                disk.flip(unsafe { std::slice::from_raw_parts_mut(start, read) });
            }
            read
        }
    }
}

/// A write of several places: of the first one alone, where it is to be short.
unsafe fn write_gathered(
    file: c_int,
    parts: *const iovec,
    count: c_int,
    call: impl FnOnce(*const iovec, c_int) -> c_long,
) -> ssize_t {
    let (Some(disk), true) = (disk_of(file), count > 0) else {
        return returned(call(parts, count));
    };
    // SAFETY: the caller's list has `count` parts, more than none.
    let mut first = unsafe { *parts };
    let all = if count == 1 { first.iov_len } else { usize::MAX };
    match disk.fate(Kind::Write, all) {
        Fate::Fails(error) => fail(error),
        Fate::Made(most) if most == all => returned(call(parts, count)),
        Fate::Made(most) => {
            first.iov_len = first.iov_len.min(most);
            returned(call(&raw const first, 1))
        }
    }
}

fn written(file: c_int, length: size_t, call: impl FnOnce(size_t) -> c_long) -> ssize_t {
    match disk_of(file).map(|disk| disk.fate(Kind::Write, length)) {
        None => returned(call(length)),
        Some(Fate::Made(most)) => returned(call(most)),
        Some(Fate::Fails(error)) => fail(error),
    }
}

fn done(disk: Option<&Disk>, kind: Kind, call: impl FnOnce() -> c_long) -> c_int {
    match disk.map(|disk| disk.fate(kind, 0)) {
        Some(Fate::Fails(error)) => status(fail(error) as c_long),
        _ => status(call()),
    }
}

/// Functions of libc, each with all its names and the kernel's call that it is.
macro_rules! stand_before {
    () => {};
    ($(#[$about:meta])* fn [] $arguments:tt -> $result:ty $body:block $($others:tt)*) => {
        stand_before! { $($others)* }
    };
    (
        $(#[$about:meta])*
        fn [$name:ident $($more:ident)*] ($($argument:ident: $type:ty),* $(,)?) -> $result:ty $body:block
        $($others:tt)*
    ) => {
        $(#[$about])*
        ///
        /// # Safety
        ///
        /// As of libc's.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($argument: $type),*) -> $result {
            // SAFETY: the arguments are the caller's; what they point to is as long as they say.
            unsafe { $body }
        }
        stand_before! {
            $(#[$about])*
            fn [$($more)*] ($($argument: $type),*) -> $result $body
            $($others)*
        }
    };
}

stand_before! {
    /// `read(2)`.
    fn [read](file: c_int, buffer: *mut c_void, length: size_t) -> ssize_t {
        read_into(file, buffer, length, |most| libc::syscall(libc::SYS_read, file, buffer, most))
    }
    /// `pread(2)`.
    fn [pread pread64](file: c_int, buffer: *mut c_void, length: size_t, at: off_t) -> ssize_t {
        read_into(file, buffer, length, |most| {
            libc::syscall(libc::SYS_pread64, file, buffer, most, at)
        })
    }
    /// `readv(2)`.
    fn [readv](file: c_int, parts: *const iovec, count: c_int) -> ssize_t {
        read_scattered(file, parts, count, Kind::Read, |parts, count| {
            libc::syscall(libc::SYS_readv, file, parts, count)
        })
    }
    /// `preadv(2)`.
    fn [preadv preadv64](file: c_int, parts: *const iovec, count: c_int, at: off_t) -> ssize_t {
        read_scattered(file, parts, count, Kind::Read, |parts, count| {
            libc::syscall(libc::SYS_preadv, file, parts, count, at, 0)
        })
    }
    /// `preadv2(2)`.
    fn [preadv2 preadv64v2](
        file: c_int, parts: *const iovec, count: c_int, at: off_t, flags: c_int
    ) -> ssize_t {
        {
            let kind = if flags & libc::RWF_NOWAIT == 0 { Kind::Read } else { Kind::Try };
            read_scattered(file, parts, count, kind, |parts, count| {
                libc::syscall(libc::SYS_preadv2, file, parts, count, at, 0, flags)
            })
        }
    }
    /// `write(2)`.
    fn [write](file: c_int, bytes: *const c_void, length: size_t) -> ssize_t {
        written(file, length, |most| libc::syscall(libc::SYS_write, file, bytes, most))
    }
    /// `pwrite(2)`.
    fn [pwrite pwrite64](file: c_int, bytes: *const c_void, length: size_t, at: off_t) -> ssize_t {
        written(file, length, |most| libc::syscall(libc::SYS_pwrite64, file, bytes, most, at))
    }
    /// `writev(2)`.
    fn [writev](file: c_int, parts: *const iovec, count: c_int) -> ssize_t {
        write_gathered(file, parts, count, |parts, count| {
            libc::syscall(libc::SYS_writev, file, parts, count)
        })
    }
    /// `pwritev(2)`.
    fn [pwritev pwritev64](file: c_int, parts: *const iovec, count: c_int, at: off_t) -> ssize_t {
        write_gathered(file, parts, count, |parts, count| {
            libc::syscall(libc::SYS_pwritev, file, parts, count, at, 0)
        })
    }
    /// `pwritev2(2)`.
    fn [pwritev2 pwritev64v2](
        file: c_int, parts: *const iovec, count: c_int, at: off_t, flags: c_int
    ) -> ssize_t {
        write_gathered(file, parts, count, |parts, count| {
            libc::syscall(libc::SYS_pwritev2, file, parts, count, at, 0, flags)
        })
    }
    /// `fsync(2)`.
    fn [fsync](file: c_int) -> c_int {
        done(disk_of(file), Kind::Sync, || libc::syscall(libc::SYS_fsync, file))
    }
    /// `fdatasync(2)`.
    fn [fdatasync](file: c_int) -> c_int {
        done(disk_of(file), Kind::Sync, || libc::syscall(libc::SYS_fdatasync, file))
    }
    /// `fallocate(2)`.
    fn [fallocate fallocate64](file: c_int, mode: c_int, at: off_t, length: off_t) -> c_int {
        done(disk_of(file), Kind::Write, || {
            libc::syscall(libc::SYS_fallocate, file, mode, at, length)
        })
    }
    /// `ftruncate(2)`.
    fn [ftruncate ftruncate64](file: c_int, length: off_t) -> c_int {
        done(disk_of(file), Kind::Write, || libc::syscall(libc::SYS_ftruncate, file, length))
    }
    /// `open(2)`. In C the last argument need not be there; it is passed on as it lies, and used by the kernel alike.
    fn [open open64](path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
        openat(libc::AT_FDCWD, path, flags, mode)
    }
    /// `openat(2)`.
    fn [openat openat64](folder: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
        {
            let name = if path.is_null() { &[] } else { CStr::from_ptr(path).to_bytes() };
            done(disk_of_path(name), Kind::Open, || {
                libc::syscall(libc::SYS_openat, folder, path, flags, mode)
            })
        }
    }
}
