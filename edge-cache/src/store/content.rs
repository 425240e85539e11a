//! Where the body of a stored response lies. A short one lies behind its head, in the same piece of memory: so it costs
//! nothing of its own, and an update of the head copies it. A longer one has memory of its own, or lies in segments. The end
//! of either may lie in a second piece, see `store::allocator`.

use std::sync::Arc;

use bytes::Bytes;

use super::allocator::{COUNTERS, allocated, cut};
use super::version::Version;

/// The longest body that lies behind its head.
const SHORT: usize = 8 << 10;

/// A body that is to be stored.
#[derive(Clone, Debug)]
pub enum Content {
    /// Whole. It is copied: pieces as they were received are slices of buffers, all of which they would keep for as long as
    /// the object is stored.
    Whole(Vec<Bytes>),
    /// In segments, each of which may be stored or not.
    Segments(Arc<Version>),
}

/// A body that does not lie behind its head.
pub(crate) enum Beside {
    /// In two pieces, the second of which may be empty.
    Whole([Box<[u8]>; 2]),
    Segments(Arc<Version>),
}

/// What of a body does not lie behind its head.
#[derive(Clone)]
pub(crate) enum Apart {
    /// The end of it.
    Rest(Arc<[u8]>),
    /// All of it, or nothing.
    Beside(Option<Arc<Beside>>),
}

/// A piece of a body, for its readers.
struct Piece(Arc<Beside>, usize);

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        match &*self.0 {
            Beside::Whole(pieces) => pieces.get(self.1).map_or(&[], |piece| piece),
            Beside::Segments(_) => &[],
        }
    }
}

/// A body as an object keeps it.
pub(super) enum Kept {
    /// To be put behind the head.
    Behind(Vec<Bytes>),
    Beside(Arc<Beside>),
}

impl Content {
    /// Its length, where it is whole.
    pub fn length(&self) -> Option<u64> {
        match self {
            Self::Whole(pieces) => Some(pieces.iter().map(|piece| piece.len() as u64).sum()),
            Self::Segments(_) => None,
        }
    }
}

impl Kept {
    pub(super) fn new(content: Content) -> Self {
        match content {
            Content::Segments(version) => Self::Beside(Arc::new(Beside::Segments(version))),
            Content::Whole(pieces) => {
                let length = pieces.iter().map(Bytes::len).sum();
                if length <= SHORT {
                    return Self::Behind(pieces);
                }
                let at = cut(length, 0, 0);
                let [mut first, mut rest] = [at, length - at].map(Vec::with_capacity);
                for piece in &pieces {
                    let (before, after) = piece.split_at(piece.len().min(at - first.len()));
                    first.extend_from_slice(before);
                    rest.extend_from_slice(after);
                }
                Self::Beside(Arc::new(Beside::Whole([first, rest].map(Vec::into_boxed_slice))))
            }
        }
    }
}

impl Apart {
    /// How many bytes of a body that begins behind its head are not there.
    pub(super) fn rest(&self) -> usize {
        match self {
            Self::Rest(rest) => rest.len(),
            Self::Beside(_) => 0,
        }
    }

    /// The memory that it takes, all told but for segments, which are weighed one by one.
    pub(super) fn weight(&self) -> u64 {
        match self {
            Self::Rest(rest) => allocated(COUNTERS + rest.len()),
            Self::Beside(body) => body.as_ref().map_or(0, |body| body.weight()),
        }
    }
}

impl Beside {
    /// All of it, where it does not lie in segments.
    pub(super) fn whole(self: &Arc<Self>) -> Option<[Bytes; 2]> {
        match &**self {
            Self::Whole(pieces) => Some([0, 1].map(|at| match pieces.get(at) {
                Some(piece) if !piece.is_empty() => Bytes::from_owner(Piece(Arc::clone(self), at)),
                _ => Bytes::new(),
            })),
            Self::Segments(_) => None,
        }
    }

    fn weight(&self) -> u64 {
        let own = allocated(COUNTERS + size_of::<Self>());
        match self {
            Self::Whole(pieces) => {
                own + pieces.iter().map(|piece| allocated(piece.len())).sum::<u64>()
            }
            Self::Segments(_) => own + allocated(COUNTERS + size_of::<Version>()),
        }
    }
}
