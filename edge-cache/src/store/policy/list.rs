//! Queues through the slots of a table: what LRU and the FIFO family stand on. Every slot is in one queue; a slot leaves
//! from anywhere, and the last slot takes its number.

use super::slab::Slab;

/// No slot.
const NONE: u32 = u32::MAX;

#[derive(Clone, Debug)]
struct Node<T> {
    /// Towards the front.
    newer: u32,
    /// Towards the back.
    older: u32,
    queue: u8,
    record: T,
}

#[derive(Clone, Copy, Debug)]
struct Ends {
    front: u32,
    back: u32,
}

/// `N` queues of all slots, each with a record of what the policy knows of it.
#[derive(Clone, Debug)]
pub struct Queues<T, const N: usize> {
    nodes: Slab<Node<T>>,
    ends: [Ends; N],
}

impl<T, const N: usize> Default for Queues<T, N> {
    fn default() -> Self {
        let ends = [Ends { front: NONE, back: NONE }; N];
        Self { nodes: Slab::default(), ends }
    }
}

impl<T, const N: usize> Queues<T, N> {
    /// Slots in all queues.
    pub const fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The record of a slot.
    pub fn get(&self, slot: u32) -> Option<&T> {
        self.nodes.get(slot).map(|node| &node.record)
    }

    /// The record of a slot, to be changed.
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.nodes.get_mut(slot).map(|node| &mut node.record)
    }

    /// In which queue a slot is.
    pub fn queue(&self, slot: u32) -> Option<usize> {
        self.nodes.get(slot).map(|node| usize::from(node.queue))
    }

    /// Who is at the back of a queue: the oldest.
    pub fn back(&self, queue: usize) -> Option<u32> {
        self.ends.get(queue).map(|ends| ends.back).filter(|back| *back != NONE)
    }

    /// Who comes before a slot in its queue, towards the front.
    pub fn newer(&self, slot: u32) -> Option<u32> {
        self.nodes.get(slot).map(|node| node.newer).filter(|newer| *newer != NONE)
    }

    /// Adds the slot after the last one, at the front of a queue.
    pub fn push(&mut self, queue: usize, record: T) {
        let slot = self.nodes.len() as u32;
        self.nodes.push(Node { newer: NONE, older: NONE, queue: 0, record });
        self.link(slot, queue);
    }

    /// Moves a slot to the front of a queue.
    pub fn move_to_front(&mut self, slot: u32, queue: usize) {
        self.unlink(slot);
        self.link(slot, queue);
    }

    /// Takes a slot out; the last slot takes its number.
    pub fn swap_remove(&mut self, slot: u32) -> Option<T> {
        self.nodes.get(slot)?;
        self.unlink(slot);
        let last = (self.nodes.len() - 1) as u32;
        let record = self.nodes.swap_remove(slot)?.record;
        if slot != last {
            self.rename(slot);
        }
        Some(record)
    }

    /// Tells the neighbours of a node in which slot it is now.
    fn rename(&mut self, slot: u32) {
        let Some(node) = self.nodes.get(slot) else { return };
        let (newer, older, queue) = (node.newer, node.older, usize::from(node.queue));
        match self.nodes.get_mut(newer) {
            Some(node) => node.older = slot,
            None => self.set_front(queue, slot),
        }
        match self.nodes.get_mut(older) {
            Some(node) => node.newer = slot,
            None => self.set_back(queue, slot),
        }
    }

    fn link(&mut self, slot: u32, queue: usize) {
        let Some(front) = self.ends.get(queue).map(|ends| ends.front) else { return };
        let Some(node) = self.nodes.get_mut(slot) else { return };
        node.newer = NONE;
        node.older = front;
        node.queue = queue as u8;
        match self.nodes.get_mut(front) {
            Some(node) => node.newer = slot,
            None => self.set_back(queue, slot),
        }
        self.set_front(queue, slot);
    }

    fn unlink(&mut self, slot: u32) {
        let Some(node) = self.nodes.get(slot) else { return };
        let (newer, older, queue) = (node.newer, node.older, usize::from(node.queue));
        match self.nodes.get_mut(newer) {
            Some(node) => node.older = older,
            None => self.set_front(queue, older),
        }
        match self.nodes.get_mut(older) {
            Some(node) => node.newer = newer,
            None => self.set_back(queue, newer),
        }
    }

    fn set_front(&mut self, queue: usize, slot: u32) {
        if let Some(ends) = self.ends.get_mut(queue) {
            ends.front = slot;
        }
    }

    fn set_back(&mut self, queue: usize, slot: u32) {
        if let Some(ends) = self.ends.get_mut(queue) {
            ends.back = slot;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Back to front.
    fn records(queues: &Queues<u32, 2>, queue: usize) -> Vec<u32> {
        std::iter::successors(queues.back(queue), |slot| queues.newer(*slot))
            .map(|slot| *queues.get(slot).unwrap())
            .collect()
    }

    proptest! {
        /// Against two plain vectors of records, the slots by a third.
        #[test]
        fn they_are_queues(steps in proptest::collection::vec((0_u8..4, any::<u32>()), 0..400)) {
            let mut queues: Queues<u32, 2> = Queues::default();
            let mut plain = [Vec::new(), Vec::new()];
            let mut slots: Vec<u32> = Vec::new();
            for (number, (step, pick)) in steps.into_iter().enumerate() {
                let number = number as u32;
                let queue = usize::from(pick & 1 == 1);
                let slot = (!slots.is_empty()).then(|| pick as usize / 2 % slots.len());
                match (step, slot) {
                    (0 | 1, _) => {
                        queues.push(queue, number);
                        slots.push(number);
                        plain[queue].push(number);
                    }
                    (2, Some(slot)) => {
                        let record = slots[slot];
                        queues.move_to_front(slot as u32, queue);
                        plain.iter_mut().for_each(|plain| plain.retain(|other| *other != record));
                        plain[queue].push(record);
                        prop_assert_eq!(queues.queue(slot as u32), Some(queue));
                    }
                    (_, Some(slot)) => {
                        let record = slots.swap_remove(slot);
                        prop_assert_eq!(queues.swap_remove(slot as u32), Some(record));
                        plain.iter_mut().for_each(|plain| plain.retain(|other| *other != record));
                    }
                    (_, None) => prop_assert_eq!(queues.swap_remove(pick), None),
                }
                prop_assert_eq!(queues.len(), slots.len());
                for queue in [0, 1] {
                    prop_assert_eq!(&records(&queues, queue), &plain[queue]);
                }
            }
        }
    }
}
