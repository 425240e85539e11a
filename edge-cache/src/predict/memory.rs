//! The memory tier of a simulated node. A long body lies in segments there, each an entry of its own beside that of the head,
//! as in the node: some of them go, and only those are fetched.

use crate::segment::Layout;
use crate::store::policy::{Settings, Table, Weight};

/// What an entry lies under: a hash or a small number, which is not met by chance.
pub(super) type Place = u64;

/// What entries weigh beside the bytes of a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Overhead {
    /// An object: its fields, its key and the table's entry.
    pub(super) head: u64,
    /// A segment.
    pub(super) segment: u64,
}

/// What is known of a stored object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// When it was fetched.
    pub(super) fetched: u32,
    /// Its length above, how often it was asked for while it was on no disk in the lowest eight bits.
    packed: u32,
}

/// An object that is on the disk; else how often it has been asked for.
pub(super) const SETTLED: u8 = u8::MAX;

/// A body has so many at most: requests for long ones would take too long to simulate.
pub(super) const MOST_SEGMENTS: u64 = 128;
/// Longer bodies are known in steps of [`STEP`] bytes.
const EXACT: u64 = 1 << 23;
const STEP: u64 = 4096;
/// The highest of 24 bits: the others are steps.
const STEPS: u32 = 1 << 23;

impl Head {
    pub(super) fn new(fetched: u32, length: u64, asked: u8) -> Self {
        let length = if length < EXACT {
            length as u32
        } else {
            u32::try_from(length.div_ceil(STEP)).unwrap_or(u32::MAX).min(STEPS - 1) | STEPS
        };
        Self { fetched, packed: length << 8 | u32::from(asked) }
    }

    /// Bytes of its body.
    pub(super) const fn length(self) -> u64 {
        let length = self.packed >> 8;
        if length & STEPS == 0 { length as u64 } else { (length & !STEPS) as u64 * STEP }
    }

    pub(super) const fn asked(self) -> u8 {
        self.packed as u8
    }
}

#[derive(Clone, Copy, Debug)]
enum Entry {
    Head(Head),
    /// Whether the disk has it, too.
    Segment(bool),
}

/// The tier.
#[derive(Debug)]
pub(super) struct Memory {
    table: Table<Place, Entry>,
    layout: Layout,
    overhead: Overhead,
    gone: Vec<(Place, Entry)>,
}

impl Memory {
    /// An empty one.
    pub(super) fn new(settings: Settings, layout: Layout, overhead: Overhead) -> Self {
        Self { table: Table::new(settings), layout, overhead, gone: Vec::new() }
    }

    /// What entries weigh beside the bytes of a body.
    pub(super) const fn overhead(&self) -> Overhead {
        self.overhead
    }

    /// Asks for an object.
    pub(super) fn head(&mut self, key: u64) -> Option<Head> {
        match self.table.get(&key)? {
            Entry::Head(head) => Some(*head),
            Entry::Segment(_) => None,
        }
    }

    /// Asks for a segment. Whether the disk has it, too.
    pub(super) fn segment(&mut self, place: Place) -> Option<bool> {
        match self.table.get(&place)? {
            Entry::Segment(settled) => Some(*settled),
            Entry::Head(_) => None,
        }
    }

    /// How a body of this length lies: of a very long one, several segments are one here.
    fn layout(&self, length: u64) -> Layout {
        let together = self.layout.count(length).div_ceil(MOST_SEGMENTS).max(1);
        Layout::new(self.layout.size().saturating_mul(together))
    }

    /// Segments of a body of this length: none of a short one, which lies with its head.
    pub(super) fn segments(&self, length: u64) -> u64 {
        if length > self.layout.size() { self.layout(length).count(length) } else { 0 }
    }

    /// Bytes of a segment.
    pub(super) fn bytes(&self, index: u64, length: u64) -> u64 {
        let layout = self.layout(length);
        layout.size().min(length.saturating_sub(layout.start(index)))
    }

    /// Stores an object, or another head of it. One of another length loses its segments.
    pub(super) fn put(&mut self, key: u64, head: Head) {
        if let Some(Entry::Head(before)) = self.table.peek(&key).copied()
            && before.length() != head.length()
        {
            self.drop_segments(key, before.length());
        }
        let own = if self.segments(head.length()) == 0 { head.length() } else { 0 };
        let weight = Weight::from((own + self.overhead.head).max(1));
        self.insert(key, Entry::Head(head), weight, head.asked() == SETTLED);
    }

    /// Stores a segment of a body of this length.
    pub(super) fn put_segment(&mut self, key: u64, index: u64, length: u64, settled: bool) {
        let own = self.bytes(index, length) + self.overhead.segment;
        let weight = Weight { own, whole: length };
        self.insert(place(key, index), Entry::Segment(settled), weight, settled);
    }

    fn insert(&mut self, place: Place, entry: Entry, weight: Weight, settled: bool) {
        self.table.insert(place, entry, weight, &mut self.gone);
        if settled {
            self.table.settle(&place);
        }
        // Segments go with their heads.
        while let Some((key, entry)) = self.gone.pop() {
            if let Entry::Head(head) = entry {
                self.drop_segments(key, head.length());
            }
        }
    }

    fn drop_segments(&mut self, key: u64, length: u64) {
        for index in 0..self.segments(length) {
            self.table.remove(&place(key, index));
        }
    }

    /// Keeps only these objects, and no more than there is room for.
    pub(super) fn thin(&mut self, capacity: u64, keep: impl Fn(u64) -> bool) {
        let heads = self.table.iter().filter_map(|(key, entry)| match entry {
            Entry::Head(head) if !keep(*key) => Some((*key, head.length())),
            _ => None,
        });
        for (key, length) in heads.collect::<Vec<_>>() {
            self.table.remove(&key);
            self.drop_segments(key, length);
        }
        self.table.set_capacity(capacity);
        self.table.make_room(0, usize::MAX, &mut self.gone);
        while let Some((key, entry)) = self.gone.pop() {
            if let Entry::Head(head) = entry {
                self.drop_segments(key, head.length());
            }
        }
    }

    /// Entries: objects and segments.
    pub(super) const fn entries(&self) -> usize {
        self.table.len()
    }

    /// What all of them weigh.
    pub(super) const fn weight(&self) -> u64 {
        self.table.weight()
    }

    /// What they may weigh.
    pub(super) const fn capacity(&self) -> u64 {
        self.table.capacity()
    }
}

/// Where a part of something lies.
pub(super) const fn place(key: u64, index: u64) -> Place {
    let value = key.wrapping_add((index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::policy::Kind;

    #[test]
    fn lengths_are_exact_or_a_little_more() {
        for length in [0, 1, 255, 256 << 10, EXACT - 1, EXACT, EXACT + 1, 20 << 20, 5 << 30] {
            for asked in [0, 7, SETTLED] {
                let head = Head::new(9, length, asked);
                assert_eq!((head.fetched, head.asked()), (9, asked));
                let more = head.length() - length;
                assert!(more == 0 || length >= EXACT && more < STEP, "{length}: {more}");
            }
        }
        assert!(Head::new(0, u64::MAX, 0).length() > 30 << 30);
    }

    #[test]
    fn the_longest_body_has_few_segments_and_all_of_its_bytes() {
        let settings = Settings { kind: Kind::Lru, capacity: 1000, over_disk: false, seed: 1 };
        let memory = Memory::new(settings, Layout::new(64 << 10), Overhead::default());
        for length in [0, 65_536, 65_537, 8 << 20, (8 << 20) + 1, 5 << 30, u64::MAX / 2] {
            let count = memory.segments(length);
            assert!(count <= MOST_SEGMENTS, "{length}: {count}");
            let bytes: u64 = (0..count).map(|index| memory.bytes(index, length)).sum();
            assert_eq!(bytes, if count == 0 { 0 } else { length });
        }
    }

    #[test]
    fn segments_go_with_their_head_and_alone() {
        let settings = Settings { kind: Kind::Lru, capacity: 1000, over_disk: false, seed: 1 };
        let overhead = Overhead { head: 10, segment: 0 };
        let mut memory = Memory::new(settings, Layout::new(100), overhead);
        assert_eq!((memory.segments(100), memory.segments(101)), (0, 2));
        let put = |memory: &mut Memory, key: u64, length: u64| {
            (0..memory.segments(length)).for_each(|at| memory.put_segment(key, at, length, false));
            memory.put(key, Head::new(0, length, 0));
        };
        put(&mut memory, 1, 350);
        assert_eq!((memory.weight(), memory.entries()), (360, 5));
        put(&mut memory, 2, 600);
        // The first three of the older one made room, for 1 was asked for before.
        assert_eq!(memory.weight(), 10 + 350 + 10 + 600);
        assert!(memory.head(1).is_some() && memory.segment(place(1, 3)) == Some(false));
        put(&mut memory, 3, 90);
        assert_eq!(memory.segment(place(1, 0)), None, "used longest ago");
        assert_eq!(memory.segment(place(1, 3)), Some(false));
        memory.put(1, Head::new(0, 50, 0));
        assert_eq!(memory.segment(place(1, 3)), None, "of another length");
        memory.thin(200, |key| key != 2);
        assert_eq!((memory.head(2), memory.segment(place(2, 0))), (None, None));
        assert!(memory.head(1).is_some() && memory.head(3).is_some());
        assert_eq!((memory.entries(), memory.weight(), memory.capacity()), (2, 160, 200));
    }
}
