//! Numbered records without gaps that grow and shrink a piece at a time: no growth copies what is there already, so no
//! insertion waits for it, and what is not used any more goes back to the allocator.

/// Records of one piece: a power of two.
const PIECE: usize = 256;

/// Records by number, from 0 up.
#[derive(Clone, Debug)]
pub struct Slab<T> {
    /// All but the last one that holds anything are full. At most one after it is empty.
    pieces: Vec<Vec<T>>,
    len: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { pieces: Vec::new(), len: 0 }
    }
}

impl<T> Slab<T> {
    /// How many there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// One of them.
    #[inline]
    pub fn get(&self, at: u32) -> Option<&T> {
        let at = at as usize;
        self.pieces.get(at / PIECE)?.get(at % PIECE)
    }

    /// One of them, to be changed.
    #[inline]
    pub fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        let at = at as usize;
        self.pieces.get_mut(at / PIECE)?.get_mut(at % PIECE)
    }

    /// Adds one after the last.
    pub fn push(&mut self, record: T) {
        let piece = self.len / PIECE;
        if piece == self.pieces.len() {
            self.pieces.push(Vec::new());
        }
        if let Some(piece) = self.pieces.get_mut(piece) {
            piece.push(record);
            self.len += 1;
        }
    }

    /// Takes the last one.
    pub fn pop(&mut self) -> Option<T> {
        let last = self.len.checked_sub(1)?;
        // The piece before the last one is kept, lest one allocates and frees by turns.
        self.pieces.truncate(last / PIECE + 2);
        let record = self.pieces.get_mut(last / PIECE)?.pop()?;
        self.len = last;
        Some(record)
    }

    /// Takes one; the last one comes into its place.
    pub fn swap_remove(&mut self, at: u32) -> Option<T> {
        if at as usize >= self.len {
            return None;
        }
        let last = self.pop()?;
        match self.get_mut(at) {
            Some(place) => Some(std::mem::replace(place, last)),
            None => Some(last),
        }
    }

    /// All, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.pieces.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_a_vector(steps in proptest::collection::vec((0_u8..4, 0_u32..4000), 0..6000)) {
            let (mut slab, mut plain) = (Slab::default(), Vec::new());
            for (step, value) in steps {
                match step {
                    0 | 1 => {
                        slab.push(value);
                        plain.push(value);
                    }
                    2 => prop_assert_eq!(slab.pop(), plain.pop()),
                    _ => {
                        let there = (value as usize) < plain.len();
                        let want = there.then(|| plain.swap_remove(value as usize));
                        prop_assert_eq!(slab.swap_remove(value), want);
                    }
                }
                prop_assert_eq!(slab.len(), plain.len());
                prop_assert_eq!(slab.get(value), plain.get(value as usize));
            }
            prop_assert!(slab.iter().eq(plain.iter()));
        }
    }

    #[test]
    fn memory_goes_back() {
        let mut slab = Slab::default();
        (0..100 * PIECE).for_each(|n| slab.push(n));
        while slab.pop().is_some() {}
        assert!(slab.is_empty() && slab.pieces.len() <= 2);
    }
}
