//! Bodies that both ends can compute: a stretch of one pattern, from a place that the object's number gives.

use std::sync::LazyLock;

use bytes::Bytes;

use crate::random::{Random, mix};
use crate::trace::Id;

/// Bytes until the pattern begins anew.
const PERIOD: usize = 1 << 20;
/// The longest piece that one slice gives.
pub const PIECE: usize = 1 << 16;

static PATTERN: LazyLock<Bytes> = LazyLock::new(|| {
    let mut random = Random::new(7);
    let period: Vec<u8> = (0..PERIOD).map(|_| random.below(256) as u8).collect();
    // Every slice of a piece's length is in one run.
    [&period[..], &period[..PIECE]].concat().into()
});

/// The bytes of object `id` from `offset` on: at least one, at most `length` or [`PIECE`] of them.
pub fn piece(id: Id, offset: u64, length: u64) -> Bytes {
    let start = (mix(id).wrapping_add(offset) % PERIOD as u64) as usize;
    let length = length.clamp(1, PIECE as u64) as usize;
    PATTERN.slice(start..start + length)
}

/// Whether `data` is what object `id` has from `offset` on.
pub fn is_right(id: Id, mut offset: u64, mut data: &[u8]) -> bool {
    while !data.is_empty() {
        let expected = piece(id, offset, data.len() as u64);
        let (head, rest) = data.split_at(expected.len().min(data.len()));
        if head != expected {
            return false;
        }
        offset += head.len() as u64;
        data = rest;
    }
    true
}

/// Where an object is asked for: its number and length stand in the path.
pub fn path(id: Id, bytes: u64) -> String {
    format!("/o/{id:x}-{bytes}")
}

/// Number and length of the object at a path.
pub fn parse(path: &str) -> Option<(Id, u64)> {
    let (id, bytes) = path.strip_prefix("/o/")?.split_once('-')?;
    Some((Id::from_str_radix(id, 16).ok()?, bytes.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_agree_at_every_offset_and_differ_by_object() {
        let whole: Vec<u8> =
            (0..).map(|n| n * PIECE as u64).take(40).fold(Vec::new(), |mut all, at| {
                all.extend_from_slice(&piece(5, at, PIECE as u64));
                all
            });
        for at in [0, 1, 65_535, 65_536, 1_048_575, 2_000_000] {
            assert!(is_right(5, at as u64, &whole[at..]), "{at}");
            assert!(!is_right(6, at as u64, &whole[at..]));
            assert!(!is_right(5, at as u64 + 1, &whole[at..]));
        }
        let mut wrong = whole.clone();
        wrong[1_500_000] ^= 1;
        assert!(!is_right(5, 0, &wrong));
        assert_eq!(parse(&path(255, 1234)), Some((255, 1234)));
        assert_eq!(parse("/o/zz-1"), None);
    }
}
