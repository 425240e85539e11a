//! Aligned segments: where the bytes of a body lie, how a body that arrives becomes segments, and in [`plan`], which are
//! asked for.

pub mod plan;

use bytes::{Bytes, BytesMut};

use crate::semantics::range::ByteRange;

/// How bodies are cut: segment `n` holds the bytes from `n * size` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    size: u64,
}

impl Layout {
    /// Segments of `size` bytes, at least one.
    pub const fn new(size: u64) -> Self {
        Self { size: if size == 0 { 1 } else { size } }
    }

    /// Bytes of a segment, but for a body's last one.
    pub const fn size(self) -> u64 {
        self.size
    }

    /// The segment that holds this byte.
    pub const fn index(self, offset: u64) -> u64 {
        offset / self.size
    }

    /// How many segments a body of this length has.
    pub const fn count(self, length: u64) -> u64 {
        length.div_ceil(self.size)
    }

    /// The offset of a segment's first byte.
    pub const fn start(self, index: u64) -> u64 {
        index.saturating_mul(self.size)
    }

    /// The bytes of segments `first` to `last` of a body of this length.
    pub fn bytes(self, first: u64, last: u64, length: u64) -> ByteRange {
        let end = self.start(last.saturating_add(1)).min(length).saturating_sub(1);
        let start = self.start(first).min(end);
        ByteRange { start, end }
    }
}

/// Makes segments of a body that arrives in order, from an offset on that begins a segment.
#[derive(Debug)]
pub struct Assembler {
    layout: Layout,
    index: u64,
    /// What is here of the segment that is being filled.
    buffer: BytesMut,
    /// The offset after the last byte that is expected, where it is known: no segment takes more memory than it has bytes.
    end: Option<u64>,
}

impl Assembler {
    /// For a body that arrives from the first byte of segment `first`, up to but without `end`.
    pub fn new(layout: Layout, first: u64, end: Option<u64>) -> Self {
        Self { layout, index: first, buffer: BytesMut::new(), end }
    }

    /// The next bytes; `full` is given each segment that they complete.
    pub fn push(&mut self, mut data: &[u8], mut full: impl FnMut(u64, Bytes)) {
        while !data.is_empty() {
            let size = usize::try_from(self.layout.size).unwrap_or(usize::MAX);
            if self.buffer.capacity() == 0 {
                let start = self.layout.start(self.index);
                let left = self.end.map_or(u64::MAX, |end| end.saturating_sub(start));
                let expected = usize::try_from(left).unwrap_or(usize::MAX).clamp(1, size);
                self.buffer.reserve(expected);
            }
            let (taken, rest) = data.split_at(data.len().min(size - self.buffer.len()));
            self.buffer.extend_from_slice(taken);
            data = rest;
            if self.buffer.len() == size {
                full(self.index, std::mem::take(&mut self.buffer).freeze());
                self.index += 1;
            }
        }
    }

    /// The body has ended: what is left of it, if anything, which is the last segment.
    pub fn finish(self) -> Option<(u64, Bytes)> {
        // Copied where the room reserved was not needed: a stored segment weighs what it holds.
        let data = match self.buffer.capacity() > self.buffer.len() {
            true => Bytes::copy_from_slice(&self.buffer),
            false => self.buffer.freeze(),
        };
        (!data.is_empty()).then_some((self.index, data))
    }

    /// The segment that is being filled: those before it are complete.
    pub const fn index(&self) -> u64 {
        self.index
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_and_segments() {
        let layout = Layout::new(10);
        assert_eq!([0, 9, 10, 25].map(|offset| layout.index(offset)), [0, 0, 1, 2]);
        assert_eq!([0, 1, 10, 11].map(|length| layout.count(length)), [0, 1, 1, 2]);
        for (first, last, expected) in [(0, 0, (0, 9)), (1, 2, (10, 24)), (2, 9, (20, 24))] {
            let range = layout.bytes(first, last, 25);
            assert_eq!((range.start, range.end), expected);
        }
        assert_eq!(layout.bytes(u64::MAX, u64::MAX, u64::MAX).end, u64::MAX - 1);
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_segments(
            chunks in proptest::collection::vec(1..50usize, 0..40), size in 1..40u64, first in 0..3u64, known in any::<bool>(),
        ) {
            let layout = Layout::new(size);
            let total: usize = chunks.iter().sum();
            let body: Vec<u8> = (0..total).map(|n| n as u8).collect();
            let end = known.then(|| layout.start(first) + total as u64);
            let mut assembler = Assembler::new(layout, first, end);
            let mut made = Vec::new();
            let mut at = 0;
            for chunk in chunks {
                assembler.push(&body[at..at + chunk], |index, data| made.push((index, data)));
                at += chunk;
            }
            prop_assert_eq!(assembler.index(), first + made.len() as u64);
            made.extend(assembler.finish());
            for (n, (index, data)) in made.iter().enumerate() {
                prop_assert_eq!(*index, first + n as u64);
                prop_assert!(data.len() as u64 == size || n + 1 == made.len());
            }
            let joined: Vec<u8> = made.iter().flat_map(|(_, data)| data.to_vec()).collect();
            prop_assert_eq!(joined, body);
        }
    }
}
