//! Large tables on large pages.
//!
//! The processor finds a page's place in memory in a table of its own that has room for a few thousand pages, and it has
//! to look further, the more so in a virtual machine, for all others. Pages of 2 MiB instead of 4 KiB let tables of a
//! million names fit.
#![expect(unsafe_code, reason = "madvise has no safe interface in std")]

use std::ops::Range;

/// A large page.
const PAGE: usize = 2 << 20;
/// Regions smaller than this gain nothing.
const LEAST: usize = 64 << 10;

/// Has the kernel gather these regions on large pages. Whatever cannot be stays as it is: the kernel is older than Linux
/// 6.1, has no such page free, or is told not to.
pub(super) fn gather(regions: impl IntoIterator<Item = Range<*const u8>>) {
    for region in regions {
        let (start, end) = (region.start.addr(), region.end.addr());
        if end.saturating_sub(start) < LEAST {
            continue;
        }
        // What lies beside a region on its first and last page comes along.
        for page in (start / PAGE * PAGE..end).step_by(PAGE) {
            // SAFETY: this changes where the kernel keeps these octets, and none of them. Where no memory is mapped, or
            // no large page can be, it changes nothing.
            unsafe {
                libc::madvise(std::ptr::without_provenance_mut(page), PAGE, libc::MADV_COLLAPSE);
            }
        }
    }
}
