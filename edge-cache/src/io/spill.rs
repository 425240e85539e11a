//! A body on its way into the store in segments: each is stored as it completes, under a version that no lookup finds
//! before the body's end is proven.

use std::sync::Arc;

use bytes::Bytes;

use super::node::Node;
use crate::segment::Assembler;
use crate::store::Version;

/// Segments of a version that somebody reads or brings: until this is dropped they stay in the store, as far as there is
/// room, whatever takes the place of the object that they belong to.
pub struct Use {
    node: Arc<Node>,
    version: Arc<Version>,
}

impl Use {
    /// From now on.
    pub fn begin(node: &Arc<Node>, version: &Arc<Version>) -> Self {
        node.store.memory().begin_use(version);
        Self { node: Arc::clone(node), version: Arc::clone(version) }
    }

    /// The node that stores them.
    pub const fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// The version.
    pub const fn version(&self) -> &Arc<Version> {
        &self.version
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        self.node.store.memory().end_use(&self.version);
    }
}

/// What of a body has been stored. Dropped before a head that leads to it is stored, it takes that back.
pub struct Spill {
    used: Use,
    assembler: Assembler,
}

impl Spill {
    /// For a body that arrives from the first byte of segment `first`, up to but without `end`, where that is known.
    pub fn new(node: &Arc<Node>, version: &Arc<Version>, first: u64, end: Option<u64>) -> Self {
        let assembler = Assembler::new(node.store.layout(), first, end);
        version.note_length(end.unwrap_or(0));
        Self { used: Use::begin(node, version), assembler }
    }

    /// The next bytes.
    pub fn push(&mut self, data: &[u8]) {
        let Use { node, version } = &self.used;
        self.assembler.push(data, |index, segment| insert(node, version, index, segment));
    }

    /// The body has ended: its last segment.
    pub fn finish(&mut self) {
        let Use { node, version } = &self.used;
        let rest = Assembler::new(node.store.layout(), self.assembler.index(), None);
        if let Some((index, segment)) = std::mem::replace(&mut self.assembler, rest).finish() {
            insert(node, version, index, segment);
        }
    }

    /// The offset before which all that comes after `from` is in the store at this moment.
    pub fn stored_through(&self, from: u64) -> u64 {
        let layout = self.used.node.store.layout();
        let complete = self.assembler.index();
        let missing = (layout.index(from)..complete).find(|index| !self.used.version.has(*index));
        layout.start(missing.unwrap_or(complete))
    }

    /// The version that the segments belong to.
    pub const fn version(&self) -> &Arc<Version> {
        self.used.version()
    }
}

/// Stores a segment that has been fetched.
fn insert(node: &Node, version: &Arc<Version>, index: u64, segment: Bytes) {
    if let Some(under) = &node.under {
        under.offer_segment(version, index, &segment);
    }
    // Of a body whose length nobody has told, what has come so far.
    version.note_length(node.store.layout().start(index) + segment.len() as u64);
    node.store.memory().insert_segment(version, index, segment);
}

/// What memory has of a version from an offset on, to the end of its segment. `again`: it is asked for by somebody for whom
/// it was not fetched.
pub fn from_version(node: &Node, version: &Version, offset: u64, again: bool) -> Option<Bytes> {
    let layout = node.store.layout();
    let index = layout.index(offset);
    // What is not there is not counted as asked for: a body that is read once has not been asked for twice.
    if !version.has(index) {
        return None;
    }
    let segment = node.store.memory().segment(version, index)?;
    if let Some(under) = node.under.as_ref().filter(|_| again) {
        let was_below = version.is_below(index);
        under.offer_segment(version, index, &segment);
        if !was_below && version.is_below(index) {
            node.store.memory().settle(version.place(index));
        }
    }
    let skip = usize::try_from(offset - layout.start(index)).ok()?;
    (skip < segment.len()).then(|| segment.slice(skip..))
}
