//! A body on its way into the store in segments: each is stored as it completes, under a version that no lookup finds
//! before the body's end is proven.

use std::sync::Arc;

use bytes::Bytes;

use super::node::Node;
use crate::segment::Assembler;
use crate::store::Version;

/// What of a body has been stored. Dropped before a head that leads to it is stored, it takes that back.
pub struct Spill<'a> {
    node: &'a Node,
    version: Arc<Version>,
    assembler: Assembler,
    /// The version was there before, and its other segments are another's.
    is_known: bool,
}

impl<'a> Spill<'a> {
    /// For a body that arrives from the first byte of segment `first`, up to but without `end`, where that is known.
    pub fn new(node: &'a Node, version: Arc<Version>, first: u64, end: Option<u64>) -> Self {
        let assembler = Assembler::new(node.store.layout(), first, end);
        Self { node, version, assembler, is_known: false }
    }

    /// The version was there before, or not.
    #[must_use]
    pub const fn of_known(mut self, is_known: bool) -> Self {
        self.is_known = is_known;
        self
    }

    /// The next bytes.
    pub fn push(&mut self, data: &[u8]) {
        let (memory, version) = (self.node.store.memory(), &self.version);
        self.assembler.push(data, |index, segment| {
            memory.insert_segment(version, index, segment);
        });
    }

    /// The body has ended: its last segment.
    pub fn finish(&mut self) {
        let rest = Assembler::new(self.node.store.layout(), self.assembler.index(), None);
        if let Some((index, segment)) = std::mem::replace(&mut self.assembler, rest).finish() {
            self.node.store.memory().insert_segment(&self.version, index, segment);
        }
    }

    /// The offset before which all that comes after `from` is in the store at this moment.
    pub fn stored_through(&self, from: u64) -> u64 {
        let layout = self.node.store.layout();
        let complete = self.assembler.index();
        let missing = (layout.index(from)..complete).find(|index| !self.version.has(*index));
        layout.start(missing.unwrap_or(complete))
    }

    /// The version that the segments belong to.
    pub const fn version(&self) -> &Arc<Version> {
        &self.version
    }
}

impl Drop for Spill<'_> {
    fn drop(&mut self) {
        // Nothing is taken that a stored head leads to.
        if !self.is_known {
            self.node.store.memory().abandon(&self.version);
        }
    }
}

/// What is stored of a version from an offset on, to the end of its segment.
pub fn from_version(node: &Node, version: &Version, offset: u64) -> Option<Bytes> {
    let layout = node.store.layout();
    let index = layout.index(offset);
    // What is not there is not counted as asked for: a body that is read once has not been asked for twice.
    if !version.has(index) {
        return None;
    }
    let segment = node.store.memory().segment(version, index)?;
    let skip = usize::try_from(offset - layout.start(index)).ok()?;
    (skip < segment.len()).then(|| segment.slice(skip..))
}
