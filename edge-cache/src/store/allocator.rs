//! What the program's allocator takes for what is stored, and how that is cut so that it takes little more than is there.
//!
//! jemalloc has four sizes to each doubling: of a piece of some kilobytes, an eighth is nobody's on the average. What has a
//! length of its own may lie in two pieces, the first of which fits one of the sizes; for the rest the steps are small.

/// Counters of an [`Arc`](std::sync::Arc).
pub(crate) const COUNTERS: usize = 2 * size_of::<usize>();

/// Up to here in steps of [`STEP`].
const FINE: usize = 128;
const STEP: usize = 16;
/// Up to here, pieces lie beside others of their size; longer ones have pages of their own.
const PAGED: usize = 14 << 10;
const PAGE: usize = 4096;
/// A piece more costs each response some time: for less it is not worth that.
const WORTH: u64 = 32;

/// What jemalloc takes for so many bytes: steps of 16 up to 128, then four to the next power of two. What it has beyond 14
/// KiB it may have in larger steps, but pages that nobody touches take no memory.
pub(crate) const fn allocated(bytes: usize) -> u64 {
    let taken = match bytes {
        0 => 0,
        1..=8 => 8,
        9..=FINE => bytes.next_multiple_of(STEP),
        _ if bytes <= PAGED => bytes.next_multiple_of(1 << ((bytes - 1).ilog2() - 2)),
        _ => bytes.div_ceil(PAGE).saturating_mul(PAGE),
    };
    taken as u64
}

/// As many of so many bytes as [`allocated`] takes nothing more for.
const fn fitting(bytes: usize) -> usize {
    let step = match bytes {
        0..=FINE => STEP,
        _ if bytes <= PAGED => 1 << (bytes.ilog2() - 2),
        _ => PAGE,
    };
    bytes / step * step
}

/// Where `length` bytes are cut into two pieces, each of which has `beside` bytes more, the first `least` or more of these:
/// at `length`, where that is not worth it.
pub(crate) fn cut(length: usize, beside: usize, least: usize) -> usize {
    let first = fitting(length.saturating_add(beside)).saturating_sub(beside);
    let apart = allocated(first + beside) + allocated(length - first + beside);
    let is_worth = apart + WORTH <= allocated(length.saturating_add(beside));
    if first >= least && is_worth { first } else { length }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_that_are_cut_fit() {
        let whole = |length: usize| allocated(length + COUNTERS);
        let (mut lost, mut all) = (0, 0);
        for length in 0..40_000 {
            let first = cut(length, COUNTERS, 0);
            let rest = length - first;
            let taken = whole(first) + if rest > 0 { whole(rest) } else { 0 };
            assert!(first <= length && taken <= whole(length), "{length}: {first}");
            if rest > 0 {
                assert_eq!(whole(first), (first + COUNTERS) as u64, "{length}: the first one fits");
                assert!(taken + WORTH <= whole(length), "{length}: {taken}");
            }
            lost += taken - length as u64;
            all += taken;
        }
        assert!(lost * 100 < all, "{lost} of {all}");
    }

    #[test]
    fn what_must_be_in_the_first_piece_is() {
        assert_eq!(cut(1900, COUNTERS, 0), 1792 - COUNTERS);
        assert_eq!(cut(1900, COUNTERS, 1776), 1776);
        assert_eq!(cut(1900, COUNTERS, 1777), 1900, "no piece has both");
        assert_eq!(cut(2000, COUNTERS, 0), 2000, "the steps of the rest are as long");
        assert_eq!(cut(0, 0, 0), 0);
        assert_eq!(cut(100_000, 0, 0), 24 * PAGE);
    }

    #[test]
    fn what_the_allocator_takes() {
        for (bytes, taken) in [
            (0, 0),
            (1, 8),
            (9, 16),
            (104, 112),
            (128, 128),
            (129, 160),
            (256, 256),
            (257, 320),
            (1025, 1280),
            (14_000, 14_336),
            (14_337, 16_384),
            (1 << 20, 1 << 20),
        ] {
            assert_eq!(allocated(bytes), taken, "{bytes}");
        }
    }
}
