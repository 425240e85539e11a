//! The compiled form of a map: what a server asks for each query.

use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range as Between;

use super::{Address, IpRangeMap, RangeMap, largest_network};

/// A read-only map from addresses to leaves, for serving.
///
/// A lookup answers with the leaf and the *scope*: the length of the largest aligned network around the address that has
/// this leaf throughout. Scopes of any two addresses are therefore equal networks or disjoint ones, which is what
/// RFC 7871 §7.2.1 asks of the SCOPE PREFIX-LENGTH of answers.
///
/// An index by the address's top bits leaves a short binary search among the starts of ranges. IPv4-in-IPv6 is not
/// looked through here: see [`super::embedded_ipv4`] for whole addresses and [`IpRangeMap::with_6to4`] for networks.
#[derive(Clone, Debug)]
pub struct LookupTable<L: Copy> {
    v4: V4<L>,
    v6: V6<L>,
}

impl<L: Copy + Eq> LookupTable<L> {
    /// Compiles a map.
    pub fn new(map: &IpRangeMap<L>) -> Self {
        Self { v4: V4::new(&map.v4), v6: V6::new(&map.v6) }
    }

    /// Leaf and scope of an address.
    #[inline]
    pub fn lookup(&self, address: IpAddr) -> (L, u8) {
        match address {
            IpAddr::V4(v4) => self.lookup_v4(v4),
            IpAddr::V6(v6) => self.lookup_v6(v6),
        }
    }

    /// Leaf and scope of an IPv4 address.
    #[inline]
    pub fn lookup_v4(&self, address: Ipv4Addr) -> (L, u8) {
        self.v4.lookup(address.to_bits())
    }

    /// Leaf and scope of an IPv6 address.
    #[inline]
    pub fn lookup_v6(&self, address: Ipv6Addr) -> (L, u8) {
        self.v6.lookup(address.to_bits())
    }

    /// Leaf and scope of the network of `max_bits` around an address, in the eyes of a server that never answers with a
    /// finer scope: where the map is finer, the leaf of the network's first address stands for all of it.
    ///
    /// Every address inside the returned scope gets the same leaf and the same scope.
    #[inline]
    pub fn lookup_capped(&self, address: IpAddr, max_bits: u8) -> (L, u8) {
        let (leaf, scope) = match address {
            IpAddr::V4(v4) => self.v4.lookup(v4.to_bits().first_of(max_bits)),
            IpAddr::V6(v6) => self.v6.lookup(v6.to_bits().first_of(max_bits)),
        };
        (leaf, scope.min(max_bits))
    }

    /// The place in memory where a lookup of this address begins, for whoever has it fetched ahead.
    #[inline]
    pub fn index_at(&self, address: IpAddr) -> *const u8 {
        match (address, &self.v6) {
            (IpAddr::V4(v4), _) => self.v4.index.as_ptr().wrapping_add(v4.to_bits().top16()).cast(),
            (IpAddr::V6(v6), V6::Coarse(table)) => table.slice_at((v6.to_bits() >> 64) as u64),
            (IpAddr::V6(v6), V6::Fine(table)) => table.slice_at(v6.to_bits()),
        }
    }

    /// The places where it goes on: the first of the ranges it chooses from, and the middle one.
    #[inline]
    pub fn ranges_at(&self, address: IpAddr) -> [*const u8; 2] {
        let between = self.between(address);
        match (address, &self.v6) {
            (IpAddr::V4(_), _) => self.v4.ranges.places(between),
            (IpAddr::V6(_), V6::Coarse(table)) => table.ranges.places(between),
            (IpAddr::V6(_), V6::Fine(table)) => table.ranges.places(between),
        }
    }

    #[inline]
    fn between(&self, address: IpAddr) -> (u32, u32) {
        match (address, &self.v6) {
            (IpAddr::V4(v4), _) => self.v4.between(v4.to_bits()),
            (IpAddr::V6(v6), V6::Coarse(table)) => table.between((v6.to_bits() >> 64) as u64),
            (IpAddr::V6(v6), V6::Fine(table)) => table.between(v6.to_bits()),
        }
    }

    /// What `f` makes of every leaf, as a map of all addresses.
    pub fn map<T: Eq>(&self, mut f: impl FnMut(L) -> T) -> IpRangeMap<T> {
        let v4 = RangeMap::from_starts(self.v4.ranges.iter().map(|(start, leaf)| (start, f(leaf))));
        let v6 = match &self.v6 {
            V6::Coarse(table) => RangeMap::from_starts(
                table.ranges.iter().map(|(start, leaf)| (u128::from(start) << 64, f(leaf))),
            ),
            V6::Fine(table) => {
                RangeMap::from_starts(table.ranges.iter().map(|(start, leaf)| (start, f(leaf))))
            }
        };
        IpRangeMap { v4, v6 }
    }

    /// Where the parts of the table lie.
    pub fn regions(&self) -> [Between<*const u8>; 4] {
        let (ranges, slices) = match &self.v6 {
            V6::Coarse(table) => (region(&table.ranges.0), region(&table.slices)),
            V6::Fine(table) => (region(&table.ranges.0), region(&table.slices)),
        };
        [region(&self.v4.index), region(&self.v4.ranges.0), slices, ranges]
    }

    /// How many ranges the table has.
    pub fn range_count(&self) -> usize {
        self.v4.ranges.0.len()
            + match &self.v6 {
                V6::Coarse(table) => table.ranges.0.len(),
                V6::Fine(table) => table.ranges.0.len(),
            }
    }

    /// Bytes of memory the table takes.
    pub fn memory(&self) -> usize {
        size_of::<Self>()
            + self.v4.ranges.memory()
            + size_of_val(&*self.v4.index)
            + match &self.v6 {
                V6::Coarse(table) => table.memory(),
                V6::Fine(table) => table.memory(),
            }
    }
}

fn region<T>(slice: &[T]) -> Between<*const u8> {
    let Between { start, end } = slice.as_ptr_range();
    start.cast()..end.cast()
}

/// Where a range starts, and its leaf: side by side, so that a lookup reads both at once, and without a gap.
#[derive(Clone, Copy, Debug)]
#[repr(C, packed(4))]
struct Range<A, L> {
    start: A,
    leaf: L,
}

/// A map's ranges.
#[derive(Clone, Debug)]
struct Ranges<A: Copy, L: Copy>(Box<[Range<A, L>]>);

impl<A: Address, L: Copy + Eq> Ranges<A, L> {
    fn new(ranges: impl Iterator<Item = (A, L)>) -> Self {
        Self(ranges.map(|(start, leaf)| Range { start, leaf }).collect())
    }

    /// Where each range starts, and its leaf.
    fn iter(&self) -> impl Iterator<Item = (A, L)> {
        self.0.iter().map(|range| (range.start, range.leaf))
    }

    /// Leaf and scope of an address that lies in one of the ranges `low..=high`.
    #[inline]
    fn lookup_between(&self, (low, high): (u32, u32), address: A) -> (L, u8) {
        let (low, high) = (low as usize, high as usize);
        let at = low + self.0[low + 1..=high].partition_point(|range| { range.start } <= address);
        let Range { start, leaf } = self.0[at];
        let next = self.0.get(at + 1).map(|range| range.start);
        (leaf, largest_network(address, start.pred(), next))
    }

    #[inline]
    fn places(&self, (low, high): (u32, u32)) -> [*const u8; 2] {
        let place = |at: u32| self.0.as_ptr().wrapping_add(at as usize).cast();
        [place(low), place(low + (high - low).div_ceil(2))]
    }

    /// For each of the ascending addresses, the position of the range that holds it.
    fn positions(&self, addresses: impl Iterator<Item = A>) -> impl Iterator<Item = u32> {
        let mut at = 0;
        addresses.map(move |address| {
            while self.0.get(at + 1).is_some_and(|next| { next.start } <= address) {
                at += 1;
            }
            at as u32
        })
    }

    fn last_position(&self) -> u32 {
        (self.0.len() - 1) as u32
    }

    fn memory(&self) -> usize {
        size_of_val(&*self.0)
    }
}

/// IPv4: one index entry for each /16, and one for the end.
#[derive(Clone, Debug)]
struct V4<L: Copy> {
    ranges: Ranges<u32, L>,
    /// Entry `i` is the range that holds the first address of the `i`th /16; the last entry is the last range.
    index: Box<[u32]>,
}

impl<L: Copy + Eq> V4<L> {
    fn new(map: &RangeMap<u32, L>) -> Self {
        let ranges = Ranges::new(map.ranges().map(|(start, _, leaf)| (start, *leaf)));
        let mut index: Vec<u32> = ranges.positions((0..=0xffff).map(|top| top << 16)).collect();
        index.push(ranges.last_position());
        Self { ranges, index: index.into() }
    }

    #[inline]
    fn lookup(&self, address: u32) -> (L, u8) {
        self.ranges.lookup_between(self.between(address), address)
    }

    /// The first and the last range that may hold an address.
    #[inline]
    fn between(&self, address: u32) -> (u32, u32) {
        let top = address.top16();
        (self.index[top], self.index[top + 1])
    }
}

/// IPv6, with half the memory when no network is longer than /64.
#[derive(Clone, Debug)]
enum V6<L: Copy> {
    Coarse(Sliced<u64, L>),
    Fine(Sliced<u128, L>),
}

impl<L: Copy + Eq> V6<L> {
    fn new(map: &RangeMap<u128, L>) -> Self {
        let coarse = map.ranges().all(|(start, _, _)| start as u64 == 0);
        if coarse {
            let ranges = map.ranges().map(|(start, _, leaf)| ((start >> 64) as u64, *leaf));
            Self::Coarse(Sliced::new(Ranges::new(ranges)))
        } else {
            let ranges = map.ranges().map(|(start, _, leaf)| (start, *leaf));
            Self::Fine(Sliced::new(Ranges::new(ranges)))
        }
    }

    #[inline]
    fn lookup(&self, address: u128) -> (L, u8) {
        match self {
            Self::Coarse(table) => table.lookup((address >> 64) as u64),
            Self::Fine(table) => table.lookup(address),
        }
    }
}

/// The first /16 of global unicast, 2000::/3, and how many it has: allocations are there and nowhere else.
const GLOBAL: (usize, usize) = (0x2000, 0x2000);
/// A /16 is cut into at most 2 to this many slices: down to /30. All blocks together then fit [`Sliced::blocks`].
const MAX_SLICE_BITS: u32 = 14;

/// An address with 64 bits or more.
trait Wide: Address {
    fn top64(self) -> u64;
    fn from_top64(bits: u64) -> Self;
}

impl Wide for u64 {
    #[inline]
    fn top64(self) -> u64 {
        self
    }
    fn from_top64(bits: u64) -> Self {
        bits
    }
}

impl Wide for u128 {
    #[inline]
    fn top64(self) -> u64 {
        (self >> 64) as u64
    }
    fn from_top64(bits: u64) -> Self {
        Self::from(bits) << 64
    }
}

/// Ranges under an index in which each /16 of 2000::/3 is cut into slices according to how many ranges it holds: real
/// allocations are crowded in a few /16s, so that one width for all would be too fine or too coarse.
#[derive(Clone, Debug)]
struct Sliced<A: Copy, L: Copy> {
    ranges: Ranges<A, L>,
    /// For each /16: its first slice, times 32, plus the number of address bits that select the slice.
    blocks: Box<[u32]>,
    /// The range that holds the first address of each slice; one more for the end of 2000::/3.
    slices: Box<[u32]>,
}

impl<A: Wide, L: Copy + Eq> Sliced<A, L> {
    fn new(ranges: Ranges<A, L>) -> Self {
        let mut crowd = vec![0u32; GLOBAL.1];
        for (start, _) in ranges.iter() {
            let block = start.top16().checked_sub(GLOBAL.0);
            if let Some(count) = block.and_then(|block| crowd.get_mut(block)) {
                *count += 1;
            }
        }
        let widths: Vec<u32> = crowd
            .iter()
            .map(|count| count.checked_ilog2().unwrap_or(0).min(MAX_SLICE_BITS))
            .collect();
        let mut blocks = Vec::with_capacity(GLOBAL.1);
        let mut first = 0u32;
        for bits in &widths {
            blocks.push(first << 5 | bits);
            first += 1 << bits;
        }
        let firsts = widths.iter().enumerate().flat_map(|(block, bits)| {
            let top = ((GLOBAL.0 + block) as u64) << 48;
            (0..1u64 << bits).map(move |slice| top | slice << (48 - bits))
        });
        let end = ((GLOBAL.0 + GLOBAL.1) as u64) << 48;
        let firsts = firsts.chain([end]).map(A::from_top64);
        let slices: Vec<u32> = ranges.positions(firsts).collect();
        Self { ranges, blocks: blocks.into(), slices: slices.into() }
    }

    #[inline]
    fn lookup(&self, address: A) -> (L, u8) {
        self.ranges.lookup_between(self.between(address), address)
    }

    /// The slice that holds an address.
    #[inline]
    fn slice(&self, address: A) -> Option<usize> {
        let block = self.blocks.get(address.top16().wrapping_sub(GLOBAL.0))?;
        let (first, bits) = (block >> 5, block & 31);
        let below = (address.top64() >> (48 - bits)) & ((1 << bits) - 1);
        Some(first as usize + below as usize)
    }

    /// Where [`between`](Self::between) reads last.
    #[inline]
    fn slice_at(&self, address: A) -> *const u8 {
        let slice = self.slice(address).unwrap_or(0);
        self.slices.as_ptr().wrapping_add(slice).cast()
    }

    /// The first and the last range that may hold an address.
    #[inline]
    fn between(&self, address: A) -> (u32, u32) {
        match self.slice(address) {
            Some(slice) => (self.slices[slice], self.slices[slice + 1]),
            // Outside 2000::/3 next to nothing is mapped.
            None => (0, self.ranges.last_position()),
        }
    }

    fn memory(&self) -> usize {
        self.ranges.memory() + size_of_val(&*self.blocks) + size_of_val(&*self.slices)
    }
}

#[cfg(test)]
mod tests {
    use super::super::range_map::tests::{map_of, naive, networks_v4, networks_v6, probes};
    use super::super::{Prefix, RangeMap};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn scopes_are_the_shortest_that_hold_one_leaf() {
        // The table of RFC 7871 faults measured on other servers: 10.0.0.0/8 is one place, 10.1.0.0/16 another.
        let table = LookupTable::new(&map_of(0, &[("10.0.0.0/8", 1), ("10.1.0.0/16", 2)]));
        for (address, answer) in [
            ("10.1.2.0", (2, 16)),
            ("10.2.0.0", (1, 15)),
            ("10.0.0.0", (1, 16)),
            ("172.16.0.0", (0, 1)),
            ("0.0.0.0", (0, 5)),
            ("2001:db8::", (0, 0)),
        ] {
            assert_eq!(table.lookup(address.parse().unwrap()), answer, "{address}");
        }
    }

    #[test]
    fn capped_scopes_take_the_leaf_of_the_first_address() {
        let table = LookupTable::new(&map_of(
            0,
            &[("10.0.0.128/25", 1), ("2001:db8::/32", 2), ("2001:db8::1", 3)],
        ));
        assert_eq!(table.lookup("10.0.0.200".parse().unwrap()), (1, 25));
        assert_eq!(table.lookup_capped("10.0.0.200".parse().unwrap(), 24), (0, 24));
        assert_eq!(table.lookup_capped("10.0.0.1".parse().unwrap(), 24), (0, 24));
        assert_eq!(table.lookup("2001:db8::1".parse().unwrap()), (3, 128));
        assert_eq!(table.lookup_capped("2001:db8::1".parse().unwrap(), 56), (2, 56));
        assert_eq!(table.lookup_capped("10.0.0.200".parse().unwrap(), 0), (0, 0));
        assert_eq!(table.lookup_capped("10.0.0.200".parse().unwrap(), 255), (1, 25));
    }

    #[test]
    fn a_crowded_block_is_cut_into_slices() {
        let networks = (0..5000u32).map(|i| {
            let address = 0x2a02u128 << 112 | u128::from(i) << 80;
            (address.prefix(48), i as u16 % 7)
        });
        let map = IpRangeMap::from_prefixes(99, networks);
        let table = LookupTable::new(&map);
        let V6::Coarse(sliced) = &table.v6 else { panic!("no boundary is below /64") };
        assert_eq!(sliced.blocks[0x0a02] & 31, 12);
        for (first, last, leaf) in map.v6.ranges() {
            assert_eq!(table.lookup_v6(first.into()).0, *leaf);
            assert_eq!(table.lookup_v6(last.into()).0, *leaf);
        }
        assert!(table.memory() > table.range_count() * 10);
    }

    fn aligned(prefix: Prefix, other: Prefix) -> bool {
        prefix == other || !prefix.covers(other) && !other.covers(prefix)
    }

    proptest! {
        #[test]
        fn lookups_agree_with_the_map_and_a_linear_search(
            v4 in networks_v4(), v6 in networks_v6(), some4: [u32; 4], some6: [u128; 4],
        ) {
            let map = IpRangeMap {
                v4: RangeMap::from_prefixes(9, v4.clone()),
                v6: RangeMap::from_prefixes(9, v6.clone()),
            };
            let table = LookupTable::new(&map);
            prop_assert_eq!(table.range_count(), map.range_count());
            prop_assert_eq!(&table.map(|leaf| leaf), &map);
            for address in probes(&v4, some4) {
                let (leaf, scope) = table.lookup_v4(address.into());
                prop_assert_eq!(leaf, naive(&v4, address));
                prop_assert_eq!((address.prefix(scope), &leaf), map.v4.find(address));
            }
            for address in probes(&v6, some6) {
                let (leaf, scope) = table.lookup_v6(address.into());
                prop_assert_eq!(leaf, naive(&v6, address));
                // Tables without a network past /64 know no scope past it either; nor do they need one.
                prop_assert_eq!((address.prefix(scope), &leaf), map.v6.find(address));
            }
        }

        #[test]
        fn scopes_never_overlap(
            v4 in networks_v4(), v6 in networks_v6(), some4: [u32; 4], some6: [u128; 4],
            cap4 in 0u8..=33, cap6 in 0u8..=129,
        ) {
            let table = LookupTable::new(&IpRangeMap {
                v4: RangeMap::from_prefixes(9, v4.clone()),
                v6: RangeMap::from_prefixes(9, v6.clone()),
            });
            let addresses: Vec<IpAddr> = probes(&v4, some4)
                .into_iter()
                .map(|bits| Ipv4Addr::from_bits(bits).into())
                .chain(probes(&v6, some6).into_iter().map(|bits| Ipv6Addr::from_bits(bits).into()))
                .collect();
            let scopes = |lookup: &dyn Fn(IpAddr) -> (u16, u8)| -> Vec<(Prefix, (u16, u8))> {
                addresses
                    .iter()
                    .map(|address| {
                        let answer = lookup(*address);
                        // `containing` would take a mapped address for IPv4, which a table does not.
                        let scope = match address {
                            IpAddr::V4(v4) => v4.to_bits().prefix(answer.1),
                            IpAddr::V6(v6) => v6.to_bits().prefix(answer.1),
                        };
                        (scope, answer)
                    })
                    .collect()
            };
            let cap = |address: IpAddr| if address.is_ipv4() { cap4 } else { cap6 };
            for found in [
                scopes(&|address| table.lookup(address)),
                scopes(&|address| table.lookup_capped(address, cap(address))),
            ] {
                for (index, (scope, answer)) in found.iter().enumerate() {
                    for (other, other_answer) in &found[index..] {
                        prop_assert!(aligned(*scope, *other), "{} and {}", scope, other);
                        prop_assert!(scope != other || answer == other_answer);
                    }
                }
            }
        }

        #[test]
        fn an_address_inside_a_capped_scope_gets_the_same(
            v4 in networks_v4(), v6 in networks_v6(), base: u128, inside: u128, cap in 0u8..=130,
        ) {
            let table = LookupTable::new(&IpRangeMap {
                v4: RangeMap::from_prefixes(9, v4),
                v6: RangeMap::from_prefixes(9, v6),
            });
            let (_, scope) = table.lookup_capped(IpAddr::V6(base.into()), cap);
            let other = base.first_of(scope) | (inside & !u128::MAX.first_of(scope));
            prop_assert_eq!(
                table.lookup_capped(IpAddr::V6(other.into()), cap),
                table.lookup_capped(IpAddr::V6(base.into()), cap)
            );
            let (base, inside) = (base as u32, inside as u32);
            let (_, scope) = table.lookup_capped(IpAddr::V4(base.into()), cap);
            let other = base.first_of(scope) | (inside & !u32::MAX.first_of(scope));
            prop_assert_eq!(
                table.lookup_capped(IpAddr::V4(other.into()), cap),
                table.lookup_capped(IpAddr::V4(base.into()), cap)
            );
        }
    }
}
