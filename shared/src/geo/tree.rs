//! The search tree of an MMDB file: every network in it, in ascending order, in bounded time.
//!
//! The `maxminddb` crate walks trees too, but a damaged or hostile file whose branches share empty subtrees keeps its
//! iterator busy for ever: nothing limits how often one node is visited. Here the visits are counted.

use std::ops::ControlFlow;

/// A network of a tree and what it points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leaf {
    /// The first address; an IPv4 address in a tree of IPv6 is one below 2^32.
    pub(super) address: u128,
    /// Prefix length in the tree's own family.
    pub(super) length: u8,
    /// The tree's pointer to the record: equal pointers, equal records.
    pub(super) pointer: u32,
}

/// Why a tree could not be walked to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TreeError {
    #[error("its search tree is longer than the file")]
    Truncated,
    #[error("its search tree is deeper than an address")]
    TooDeep,
    #[error("its search tree runs in circles")]
    Tangled,
}

/// A tree in the bytes of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tree<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) node_count: u32,
    /// Bits of each of a node's two records: 24, 28 or 32.
    pub(super) record_size: u16,
    /// Bits of an address: 32 or 128.
    pub(super) address_bits: u8,
}

/// Bits of an IPv6 address before the IPv4 address in it: IPv4 lies at `::/96`.
const IPV4_DEPTH: u8 = 96;

impl Tree<'_> {
    /// A node's left (0) or right (1) record: below `node_count` another node, equal to it nothing, above it data.
    fn child(&self, node: u32, side: u8) -> Option<u32> {
        let node_bytes = usize::from(self.record_size) / 4;
        let start = (node as usize).checked_mul(node_bytes)?;
        let bytes = self.bytes.get(start..)?.get(..node_bytes)?;
        match (bytes, side) {
            (&[a, b, c, _, _, _], 0) | (&[_, _, _, a, b, c], _) => {
                Some(u32::from_be_bytes([0, a, b, c]))
            }
            // Seven bytes: the middle one has the top four bits of the left record, then those of the right.
            (&[a, b, c, mid, _, _, _], 0) => Some(u32::from_be_bytes([mid >> 4, a, b, c])),
            (&[_, _, _, mid, a, b, c], _) => Some(u32::from_be_bytes([mid & 15, a, b, c])),
            (&[a, b, c, d, _, _, _, _], 0) | (&[_, _, _, _, a, b, c, d], _) => {
                Some(u32::from_be_bytes([a, b, c, d]))
            }
            _ => None,
        }
    }

    /// The node of `::/96` in a tree of IPv6, when IPv4 has a subtree of its own.
    fn ipv4_root(&self) -> Option<u32> {
        let mut node = 0;
        if self.address_bits != 128 {
            return None;
        }
        for _ in 0..IPV4_DEPTH {
            node = self.child(node, 0).filter(|child| *child < self.node_count)?;
        }
        Some(node)
    }

    /// Hands each network with a record to `found`, in ascending order, until it breaks. Other ways to the subtree of
    /// IPv4 (aliases: `2002::/16`, `::ffff:0:0/96`) are not taken.
    pub(super) fn walk<B>(
        &self,
        mut found: impl FnMut(Leaf) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, TreeError> {
        let ipv4_root = self.ipv4_root();
        // Each node once and two records in each, when nothing is shared; writers that share subtrees get some more.
        let mut visits = u64::from(self.node_count) * 16 + 1024;
        let mut stack = vec![(0u32, 0u8, 0u128)];
        while let Some((node, depth, address)) = stack.pop() {
            visits = visits.checked_sub(1).ok_or(TreeError::Tangled)?;
            if node > self.node_count {
                let leaf = Leaf { address, length: depth, pointer: node };
                if let ControlFlow::Break(reason) = found(leaf) {
                    return Ok(ControlFlow::Break(reason));
                }
            } else if node < self.node_count && !(Some(node) == ipv4_root && address != 0) {
                if depth == self.address_bits {
                    return Err(TreeError::TooDeep);
                }
                let one = 1 << (self.address_bits - 1 - depth);
                let left = self.child(node, 0).ok_or(TreeError::Truncated)?;
                let right = self.child(node, 1).ok_or(TreeError::Truncated)?;
                stack.push((right, depth + 1, address | one));
                stack.push((left, depth + 1, address));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of 24-bit records.
    fn tree_bytes(nodes: &[[u32; 2]]) -> Vec<u8> {
        nodes.iter().flatten().flat_map(|record| record.to_be_bytes()[1..].to_vec()).collect()
    }

    fn walk(bytes: &[u8], node_count: u32, address_bits: u8) -> Result<Vec<Leaf>, TreeError> {
        let mut list = Vec::new();
        let tree = Tree { bytes, node_count, record_size: 24, address_bits };
        let end = tree.walk::<()>(|leaf| {
            list.push(leaf);
            ControlFlow::Continue(())
        })?;
        assert!(end.is_continue());
        Ok(list)
    }

    #[test]
    fn records_of_each_size_are_read() {
        for (bytes, record_size, left, right) in [
            (&[0x12, 0x34, 0x56, 0x65, 0x43, 0x21][..], 24, 0x12_3456, 0x65_4321),
            (&[0x12, 0x34, 0x56, 0xab, 0x65, 0x43, 0x21], 28, 0xa12_3456, 0xb65_4321),
            (&[0x12, 0x34, 0x56, 0x78, 0x87, 0x65, 0x43, 0x21], 32, 0x1234_5678, 0x8765_4321),
        ] {
            let tree = Tree { bytes, node_count: 1, record_size, address_bits: 32 };
            assert_eq!((tree.child(0, 0), tree.child(0, 1)), (Some(left), Some(right)));
            assert_eq!(tree.child(1, 0), None);
        }
    }

    #[test]
    fn networks_come_in_order() {
        // 0.0.0.0/2 nothing, 64.0.0.0/2 and 128.0.0.0/1 data.
        let bytes = tree_bytes(&[[1, 40], [2, 30]]);
        let leaves = walk(&bytes, 2, 32).unwrap();
        assert_eq!(
            leaves,
            [
                Leaf { address: 0x4000_0000, length: 2, pointer: 30 },
                Leaf { address: 0x8000_0000, length: 1, pointer: 40 },
            ]
        );
    }

    #[test]
    fn circles_end() {
        assert_eq!(walk(&tree_bytes(&[[0, 0]]), 1, 32), Err(TreeError::TooDeep));
        assert_eq!(walk(&tree_bytes(&[[1, 0]]), 1, 32), Err(TreeError::TooDeep));
        assert_eq!(walk(&tree_bytes(&[[1, 1]]), 2, 32), Err(TreeError::Truncated));
        // Each node has the next one on both sides, the last one nothing: 2^40 ways to nowhere.
        let ladder: Vec<[u32; 2]> = (1..=40).map(|next| [next, next]).collect();
        assert_eq!(walk(&tree_bytes(&ladder), 40, 128), Err(TreeError::Tangled));
    }

    #[test]
    fn aliases_of_ipv4_are_not_walked() {
        // 96 nodes of zeros lead to IPv4; the other side of the first is an alias of it.
        let (ipv4, nothing) = (96, 97);
        let mut nodes: Vec<[u32; 2]> = (1..=96).map(|next| [next, nothing]).collect();
        nodes[0][1] = ipv4;
        nodes.push([nothing, 120]);
        let leaves = walk(&tree_bytes(&nodes), 97, 128).unwrap();
        assert_eq!(leaves, [Leaf { address: 0x8000_0000, length: 97, pointer: 120 }]);
    }
}
