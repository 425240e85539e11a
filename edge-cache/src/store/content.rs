//! Where the body of a stored response lies. A short one lies behind its head, in the same piece of memory: so it costs
//! nothing of its own, and an update of the head copies it. A longer one has memory of its own, or lies in segments.

use std::sync::Arc;

use bytes::Bytes;

use super::object::{COUNTERS, allocated};
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
    Whole(Bytes),
    Segments(Arc<Version>),
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
                let mut all = Vec::with_capacity(length);
                pieces.iter().for_each(|piece| all.extend_from_slice(piece));
                Self::Beside(Arc::new(Beside::Whole(Bytes::from(all))))
            }
        }
    }
}

impl Beside {
    /// The memory that it takes, all told but for segments, which are weighed one by one.
    pub(super) fn weight(&self) -> u64 {
        /// What bytes share between their readers.
        const SHARED: usize = 3 * size_of::<usize>();
        let own = allocated(COUNTERS + size_of::<Self>());
        match self {
            Self::Whole(body) => own + allocated(SHARED) + allocated(body.len()),
            Self::Segments(_) => own + allocated(COUNTERS + size_of::<Version>()),
        }
    }
}
