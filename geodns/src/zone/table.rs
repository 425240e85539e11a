//! Names to ids: an open hash table of eight octets a slot, which keeps no names of its own.
//!
//! Whoever asks cannot add names, so the table needs no secret.

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

/// The half of a name's hash that the table keeps: where to look, and what to compare before names are.
pub(super) fn tag(name: &[u8]) -> u32 {
    tag_of(xxh3_64(name))
}

/// The same of a name's XXH3.
pub(super) const fn tag_of(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// No id.
pub(super) const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Slot {
    tag: u32,
    id: u32,
}

const FREE: Slot = Slot { tag: 0, id: NONE };

/// The table. A slot lies where its tag lies among all tags, or in the next ones that are free.
#[derive(Clone, Debug, Default)]
pub(super) struct NameTable {
    slots: Vec<Slot>,
    used: usize,
}

impl NameTable {
    /// Room for `names` without growing: a third of the slots stays free.
    pub(super) fn with_capacity(names: usize) -> Self {
        Self { slots: vec![FREE; names + names / 2 + 1], used: 0 }
    }

    /// The id with this tag that `is_it` takes for the name sought.
    #[inline]
    pub(super) fn find(&self, tag: u32, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut at = self.first(tag);
        // There is always a free slot; the bound is for the reader.
        for _ in 0..self.slots.len() {
            let slot = self.slots.get(at)?;
            if slot.id == NONE {
                return None;
            }
            if slot.tag == tag && is_it(slot.id) {
                return Some(slot.id);
            }
            at = self.after(at);
        }
        None
    }

    /// Where the slot of a tag lies, or the first that it could be in.
    #[inline]
    pub(super) fn slot_at(&self, tag: u32) -> *const u8 {
        self.slots.as_ptr().wrapping_add(self.first(tag)).cast()
    }

    /// Adds an id that is not there yet.
    pub(super) fn insert(&mut self, tag: u32, id: u32) {
        if self.slots.len() * 2 < (self.used + 1) * 3 {
            let mut larger = Self::with_capacity(self.slots.len() + 8);
            let kept = self.slots.iter().filter(|slot| slot.id != NONE);
            kept.for_each(|slot| larger.put(*slot));
            *self = larger;
        }
        self.put(Slot { tag, id });
    }

    /// How many ids there are.
    pub(super) fn len(&self) -> usize {
        self.used
    }

    /// Where the slots lie.
    pub(super) fn region(&self) -> Range<*const u8> {
        let Range { start, end } = self.slots.as_ptr_range();
        start.cast()..end.cast()
    }

    /// Octets of memory.
    pub(super) fn memory(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>()
    }

    fn put(&mut self, slot: Slot) {
        let mut at = self.first(slot.tag);
        for _ in 0..self.slots.len() {
            match self.slots.get_mut(at) {
                Some(free) if free.id == NONE => {
                    *free = slot;
                    self.used += 1;
                    return;
                }
                _ => at = self.after(at),
            }
        }
    }

    const fn first(&self, tag: u32) -> usize {
        ((tag as u64 * self.slots.len() as u64) >> 32) as usize
    }

    const fn after(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() { 0 } else { at + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_by_their_names_and_others_are_not() {
        let names: Vec<String> = (0..5000).map(|n| format!("n{n}")).collect();
        let mut table = NameTable::default();
        assert_eq!(table.find(7, |_| true), None);
        for (id, name) in (0..).zip(&names) {
            table.insert(tag(name.as_bytes()), id);
        }
        assert_eq!(table.len(), names.len());
        assert!(table.memory() < names.len() * 8 * 4);
        for (id, name) in (0..).zip(&names) {
            let found = table.find(tag(name.as_bytes()), |at| names[at as usize] == *name);
            assert_eq!(found, Some(id));
            let other = format!("{name}x");
            assert_eq!(table.find(tag(other.as_bytes()), |at| names[at as usize] == other), None);
        }
    }

    #[test]
    fn names_with_one_tag_are_told_apart_and_a_run_goes_on_at_the_beginning() {
        let mut table = NameTable::with_capacity(4);
        for id in 0..4 {
            table.insert(u32::MAX, id);
        }
        for id in 0..4 {
            assert_eq!(table.find(u32::MAX, |at| at == id), Some(id));
        }
        assert_eq!(table.find(u32::MAX, |_| false), None);
    }
}
