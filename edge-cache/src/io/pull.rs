//! The bytes of one body for one client: from the store where they are there, from a fetch that goes on otherwise.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::body::SendError;
use super::fill_task::FillReader;
use super::node::Node;
use super::spill::from_version;
use crate::fill::Cut;
use crate::semantics::range::ByteRange;
use crate::store::{Content, Object, Version};

/// A place in a body, and where its bytes are found.
pub struct Pull {
    place: Place,
    /// The next byte.
    at: u64,
    /// The offset after the last one; none: as far as the fetch goes.
    end: Option<u64>,
}

enum Place {
    /// With its head.
    Inline { object: Arc<Object>, piece: usize, skip: usize },
    /// In segments, and in a fetch that brings them.
    Segments { node: Arc<Node>, version: Arc<Version>, reader: Option<FillReader> },
    /// In a fetch alone.
    Fill(FillReader),
}

type Polled = Poll<Option<Result<Bytes, SendError>>>;

impl Pull {
    /// All of a stored object.
    pub fn object(node: &Arc<Node>, object: Arc<Object>) -> Self {
        let end = Some(object.length);
        let place = match object.version() {
            Some(version) => Place::Segments {
                node: Arc::clone(node),
                version: Arc::clone(version),
                reader: None,
            },
            None => Place::Inline { object, piece: 0, skip: 0 },
        };
        Self { place, at: 0, end }
    }

    /// All of a body that is on its way, of this length where that is known. With a version it is stored as it arrives.
    pub fn fill(
        node: &Arc<Node>,
        version: Option<&Arc<Version>>,
        reader: FillReader,
        length: Option<u64>,
    ) -> Self {
        let place = match version {
            Some(version) => Place::Segments {
                node: Arc::clone(node),
                version: Arc::clone(version),
                reader: Some(reader),
            },
            None => Place::Fill(reader),
        };
        Self { place, at: 0, end: length }
    }

    /// Goes on with this part.
    pub fn seek(&mut self, range: ByteRange) {
        self.at = range.start;
        self.end = Some(range.end.saturating_add(1));
        match &mut self.place {
            Place::Inline { object, piece, skip } => {
                let Content::Inline(pieces) = &object.body else { return };
                let mut rest = range.start;
                *piece = 0;
                while let Some(bytes) = pieces.get(*piece)
                    && rest >= bytes.len() as u64
                {
                    rest -= bytes.len() as u64;
                    *piece += 1;
                }
                // Less than a piece, which is in memory.
                *skip = usize::try_from(rest).unwrap_or(0);
            }
            Place::Segments { reader, .. } => {
                if let Some(reader) = reader {
                    reader.seek(range.start);
                }
            }
            Place::Fill(reader) => reader.seek(range.start),
        }
    }

    /// Bytes that are left, where that is known.
    pub fn left(&self) -> Option<u64> {
        self.end.map(|end| end.saturating_sub(self.at))
    }

    /// The next bytes. `None`: all have come, or the fetch has ended well.
    pub fn poll_next(&mut self, cx: &Context<'_>) -> Polled {
        if self.left() == Some(0) {
            return Poll::Ready(None);
        }
        let polled = match &mut self.place {
            Place::Inline { object, piece, skip } => Poll::Ready(match &object.body {
                Content::Inline(pieces) => pieces.get(*piece).map(|bytes| {
                    *piece += 1;
                    Ok(bytes.slice(std::mem::take(skip).min(bytes.len())..))
                }),
                Content::Segments(_) => None,
            }),
            Place::Fill(reader) => reader.poll_data(cx).map_err(SendError::from),
            Place::Segments { node, version, reader } => {
                poll_segments(node, version, reader.as_ref(), self.at, cx)
            }
        };
        polled.map_ok(|mut data| {
            if let Some(left) = self.left() {
                data.truncate(usize::try_from(left).unwrap_or(usize::MAX).min(data.len()));
            }
            self.at += data.len() as u64;
            data
        })
    }
}

fn poll_segments(
    node: &Node,
    version: &Version,
    reader: Option<&FillReader>,
    at: u64,
    cx: &Context<'_>,
) -> Polled {
    if let Some(reader) = reader {
        match reader.poll_data(cx) {
            Poll::Ready(Some(Err(Cut::Behind))) => {}
            polled => return polled.map_err(SendError::from),
        }
    }
    let Some(data) = from_version(node, version, at) else {
        return Poll::Ready(Some(Err(SendError::Cut(Cut::Behind))));
    };
    if let Some(reader) = reader {
        reader.seek(at + data.len() as u64);
    }
    Poll::Ready(Some(Ok(data)))
}
