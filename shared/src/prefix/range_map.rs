//! Maps from every address to a value, as sorted ranges: built from networks, combined, cut into aligned networks.

use std::net::IpAddr;

use super::{Address, Prefix, largest_network};

/// A total function from addresses to values: disjoint ranges in ascending order that together cover every address.
/// Neighbouring ranges have different values, so a range is as long as it can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeMap<A, T> {
    /// `starts[0]` is the first address; as long as `values`.
    starts: Vec<A>,
    values: Vec<T>,
}

/// Ranges that should have been disjoint and ascending, but are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("address ranges overlap or run backwards")]
pub struct Overlap;

impl<A: Address, T: Eq> RangeMap<A, T> {
    /// The same value everywhere.
    pub fn uniform(value: T) -> Self {
        Self { starts: vec![A::MIN], values: vec![value] }
    }

    /// Makes `value` hold from `at` on. `at` never lies before an earlier one.
    fn set(&mut self, at: A, value: T) {
        if self.starts.last() == Some(&at) {
            self.starts.pop();
            self.values.pop();
        }
        if self.values.last() != Some(&value) {
            self.starts.push(at);
            self.values.push(value);
        }
    }

    const fn empty() -> Self {
        Self { starts: Vec::new(), values: Vec::new() }
    }

    /// From where each range starts, ascending from the first address, and its value.
    pub(super) fn from_starts(starts: impl Iterator<Item = (A, T)>) -> Self {
        let mut map = Self::empty();
        for (start, value) in starts {
            map.set(start, value);
        }
        map
    }

    /// How many ranges the map has.
    pub const fn range_count(&self) -> usize {
        self.starts.len()
    }

    /// The ranges in ascending order: first address, last address, value.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = (A, A, &T)> {
        self.values.iter().enumerate().map(|(i, value)| {
            let last = self.starts.get(i + 1).and_then(|next| next.pred()).unwrap_or(A::MAX);
            (self.starts[i], last, value)
        })
    }

    /// The values in ascending order of their ranges.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &T> {
        self.values.iter()
    }

    fn position(&self, address: A) -> usize {
        self.starts.partition_point(|start| *start <= address) - 1
    }

    /// The value of one address.
    pub fn get(&self, address: A) -> &T {
        &self.values[self.position(address)]
    }

    /// The value of one address, and the largest aligned network around it that has this value throughout.
    pub fn find(&self, address: A) -> (Prefix, &T) {
        let at = self.position(address);
        let before = self.starts[at].pred();
        let after = self.starts.get(at + 1).copied();
        (address.prefix(largest_network(address, before, after)), &self.values[at])
    }

    /// Every value replaced by what `f` makes of it; neighbours that become equal are merged.
    pub fn map<U: Eq>(&self, mut f: impl FnMut(&T) -> U) -> RangeMap<A, U> {
        let mut out = RangeMap::empty();
        for (start, value) in self.starts.iter().zip(&self.values) {
            out.set(*start, f(value));
        }
        out
    }

    /// Both maps in one: `f` of the two values wherever either changes. One sweep.
    pub fn overlay<U: Eq, V: Eq>(
        &self,
        other: &RangeMap<A, U>,
        mut f: impl FnMut(&T, &U) -> V,
    ) -> RangeMap<A, V> {
        let mut out = RangeMap::empty();
        let (mut i, mut j) = (0, 0);
        let mut at = A::MIN;
        loop {
            out.set(at, f(&self.values[i], &other.values[j]));
            let next_left = self.starts.get(i + 1).copied();
            let next_right = other.starts.get(j + 1).copied();
            at = match (next_left, next_right) {
                (None, None) => return out,
                (Some(left), None) => left,
                (None, Some(right)) => right,
                (Some(left), Some(right)) => left.min(right),
            };
            i += usize::from(next_left == Some(at));
            j += usize::from(next_right == Some(at));
        }
    }
}

impl<A: Address, T: Clone + Eq> RangeMap<A, T> {
    /// From networks that may nest: an address has the value of its longest network, or `default` outside all of them.
    /// Of equal networks the one given last counts. Host bits are ignored.
    pub fn from_prefixes(default: T, prefixes: impl IntoIterator<Item = (A, u8, T)>) -> Self {
        let mut list: Vec<(A, u8, T)> = prefixes
            .into_iter()
            .map(|(address, length, value)| {
                let length = length.min(A::BITS);
                (address.first_of(length), length, value)
            })
            .collect();
        list.sort_by_key(|(first, length, _)| (*first, *length));

        let mut map = Self::uniform(default.clone());
        // The networks around the present position, innermost last: where they end, and their value.
        let mut open: Vec<(A, T)> = Vec::new();
        let close = |map: &mut Self, open: &mut Vec<(A, T)>| {
            if let Some((last, _)) = open.pop()
                && let Some(next) = last.succ()
            {
                map.set(next, open.last().map_or_else(|| default.clone(), |outer| outer.1.clone()));
            }
        };
        for (first, length, value) in list {
            while open.last().is_some_and(|(last, _)| *last < first) {
                close(&mut map, &mut open);
            }
            map.set(first, value.clone());
            open.push((first.last_of(length), value));
        }
        while !open.is_empty() {
            close(&mut map, &mut open);
        }
        map
    }

    /// From disjoint ranges (first address, last address, value) in any order, and `default` between them.
    pub fn from_ranges(
        default: T,
        ranges: impl IntoIterator<Item = (A, A, T)>,
    ) -> Result<Self, Overlap> {
        let mut list: Vec<(A, A, T)> = ranges.into_iter().collect();
        list.sort_by_key(|(first, _, _)| *first);
        let mut map = Ascending::new(default);
        for (first, last, value) in list {
            map.push(first, last, value)?;
        }
        Ok(map.finish())
    }
}

/// Builds a [`RangeMap`] from disjoint ranges that come in ascending order.
#[derive(Clone, Debug)]
pub struct Ascending<A, T> {
    map: RangeMap<A, T>,
    default: T,
    /// The first address after the last range; none at the end of the address space.
    free: Option<A>,
}

impl<A: Address, T: Clone + Eq> Ascending<A, T> {
    /// No range yet: `default` everywhere.
    pub fn new(default: T) -> Self {
        Self { map: RangeMap::uniform(default.clone()), default, free: Some(A::MIN) }
    }

    /// Adds a range; it must lie after all earlier ones.
    pub fn push(&mut self, first: A, last: A, value: T) -> Result<(), Overlap> {
        let free = self.free.ok_or(Overlap)?;
        if first < free || last < first {
            return Err(Overlap);
        }
        if free < first {
            self.map.set(free, self.default.clone());
        }
        self.map.set(first, value);
        self.free = last.succ();
        Ok(())
    }

    /// The map.
    pub fn finish(mut self) -> RangeMap<A, T> {
        if let Some(free) = self.free {
            self.map.set(free, self.default);
        }
        self.map
    }
}

/// A [`RangeMap`] for each family: a total function from IP addresses to values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpRangeMap<T> {
    /// IPv4.
    pub v4: RangeMap<u32, T>,
    /// IPv6.
    pub v6: RangeMap<u128, T>,
}

/// First address of `2002::/16` and the one after its last.
const SIX_TO_FOUR: (u128, u128) = (0x2002 << 112, 0x2003 << 112);

impl<T: Clone + Eq> IpRangeMap<T> {
    /// The same value everywhere.
    pub fn uniform(value: T) -> Self {
        Self { v4: RangeMap::uniform(value.clone()), v6: RangeMap::uniform(value) }
    }

    /// From networks of both families that may nest, see [`RangeMap::from_prefixes`].
    pub fn from_prefixes(default: T, prefixes: impl IntoIterator<Item = (Prefix, T)>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (prefix, value) in prefixes {
            match prefix.network() {
                IpAddr::V4(network) => v4.push((network.to_bits(), prefix.length(), value)),
                IpAddr::V6(network) => v6.push((network.to_bits(), prefix.length(), value)),
            }
        }
        Self {
            v4: RangeMap::from_prefixes(default.clone(), v4),
            v6: RangeMap::from_prefixes(default, v6),
        }
    }

    /// The value of one address. An IPv4-mapped address is its IPv4 address.
    pub fn get(&self, address: IpAddr) -> &T {
        match address.to_canonical() {
            IpAddr::V4(v4) => self.v4.get(v4.to_bits()),
            IpAddr::V6(v6) => self.v6.get(v6.to_bits()),
        }
    }

    /// The value of one address, and the largest aligned network around it that has this value throughout.
    pub fn find(&self, address: IpAddr) -> (Prefix, &T) {
        match address.to_canonical() {
            IpAddr::V4(v4) => self.v4.find(v4.to_bits()),
            IpAddr::V6(v6) => self.v6.find(v6.to_bits()),
        }
    }

    /// How many ranges both families have.
    pub const fn range_count(&self) -> usize {
        self.v4.range_count() + self.v6.range_count()
    }

    /// Every value replaced by what `f` makes of it; neighbours that become equal are merged.
    pub fn map<U: Eq>(&self, mut f: impl FnMut(&T) -> U) -> IpRangeMap<U> {
        IpRangeMap { v4: self.v4.map(&mut f), v6: self.v6.map(&mut f) }
    }

    /// Both maps in one, see [`RangeMap::overlay`].
    pub fn overlay<U: Eq, V: Eq>(
        &self,
        other: &IpRangeMap<U>,
        mut f: impl FnMut(&T, &U) -> V,
    ) -> IpRangeMap<V> {
        IpRangeMap {
            v4: self.v4.overlay(&other.v4, &mut f),
            v6: self.v6.overlay(&other.v6, &mut f),
        }
    }

    /// Makes each 6to4 network (`2002:V4ADDR::/48`, RFC 3056) have the value of the IPv4 address it is made from, in
    /// place of what `2002::/16` had.
    ///
    /// Done in the map and not at lookup, so that scopes of 6to4 client subnets are as exact and disjoint as all others.
    #[must_use]
    pub fn with_6to4(&self) -> Self {
        let mut v6 = RangeMap::empty();
        for (start, _, value) in self.v6.ranges().filter(|(start, _, _)| *start < SIX_TO_FOUR.0) {
            v6.set(start, value.clone());
        }
        for (start, _, value) in self.v4.ranges() {
            v6.set(SIX_TO_FOUR.0 | u128::from(start) << 80, value.clone());
        }
        v6.set(SIX_TO_FOUR.1, self.v6.get(SIX_TO_FOUR.1).clone());
        for (start, _, value) in self.v6.ranges().filter(|(start, _, _)| *start > SIX_TO_FOUR.1) {
            v6.set(start, value.clone());
        }
        Self { v4: self.v4.clone(), v6 }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(in super::super) fn map_of(default: u16, networks: &[(&str, u16)]) -> IpRangeMap<u16> {
        IpRangeMap::from_prefixes(
            default,
            networks.iter().map(|(text, value)| (text.parse().unwrap(), *value)),
        )
    }

    fn well_formed<A: Address, T: Eq>(map: &RangeMap<A, T>) -> bool {
        map.starts[0] == A::MIN
            && map.starts.len() == map.values.len()
            && map.starts.windows(2).all(|pair| pair[0] < pair[1])
            && map.values.windows(2).all(|pair| pair[0] != pair[1])
    }

    #[test]
    fn the_longest_network_counts() {
        let map = map_of(
            0,
            &[("10.0.0.0/8", 1), ("10.1.0.0/16", 2), ("10.1.2.3", 3), ("2001:db8::/32", 4)],
        );
        for (address, network, value) in [
            ("9.255.255.255", "8.0.0.0/7", 0),
            ("10.0.0.0", "10.0.0.0/16", 1),
            ("10.1.0.0", "10.1.0.0/23", 2),
            ("10.1.2.3", "10.1.2.3/32", 3),
            ("10.1.2.2", "10.1.2.2/32", 2),
            ("10.1.2.4", "10.1.2.4/30", 2),
            ("10.2.0.0", "10.2.0.0/15", 1),
            ("11.0.0.0", "11.0.0.0/8", 0),
            ("192.0.2.1", "128.0.0.0/1", 0),
            ("2001:db8::1", "2001:db8::/32", 4),
            ("2001:db9::", "2001:db9::/32", 0),
            ("::1", "::/3", 0),
        ] {
            let (found, got) = map.find(address.parse().unwrap());
            assert_eq!((found.to_string().as_str(), *got), (network, value), "{address}");
        }
    }

    #[test]
    fn equal_neighbours_are_one_range() {
        let map = map_of(
            0,
            &[("10.0.0.0/9", 1), ("10.128.0.0/9", 1), ("10.3.0.0/16", 1), ("12.0.0.0/8", 0)],
        );
        let ranges: Vec<_> = map.v4.ranges().map(|(a, b, v)| (a, b, *v)).collect();
        assert_eq!(
            ranges,
            [(0, 0x09ff_ffff, 0), (0x0a00_0000, 0x0aff_ffff, 1), (0x0b00_0000, 0xffff_ffff, 0)]
        );
    }

    #[test]
    fn of_equal_networks_the_last_counts() {
        let map = map_of(0, &[("10.0.0.0/8", 1), ("10.0.0.0/8", 2)]);
        assert_eq!(*map.get("10.0.0.1".parse().unwrap()), 2);
        assert_eq!(*map.get("11.0.0.1".parse().unwrap()), 0);
    }

    #[test]
    fn the_ends_of_the_address_space_are_reached() {
        let map = RangeMap::<u32, u8>::from_prefixes(0, [(u32::MAX, 32, 1), (0, 32, 2)]);
        assert_eq!((*map.get(u32::MAX), *map.get(u32::MAX - 1), *map.get(0)), (1, 0, 2));
        let map = RangeMap::<u128, u8>::from_prefixes(0, [(0, 0, 1)]);
        assert_eq!(map, RangeMap::uniform(1));
        let map = RangeMap::<u32, u8>::from_ranges(0, [(0, u32::MAX, 7)]).unwrap();
        assert_eq!(map, RangeMap::uniform(7));
    }

    #[test]
    fn overlapping_ranges_are_refused() {
        let build = |ranges: &[(u32, u32)]| {
            RangeMap::from_ranges(0, ranges.iter().map(|(first, last)| (*first, *last, 1)))
        };
        assert!(build(&[(20, 30), (0, 10)]).is_ok());
        assert!(build(&[(0, 10), (11, 20)]).is_ok());
        assert_eq!(build(&[(0, 10), (10, 20)]), Err(Overlap));
        assert_eq!(build(&[(10, 9)]), Err(Overlap));
        assert_eq!(build(&[(0, u32::MAX), (5, 6)]), Err(Overlap));
        assert_eq!(build(&[(5, u32::MAX), (u32::MAX, u32::MAX)]), Err(Overlap));
    }

    #[test]
    fn six_to_four_follows_ipv4() {
        let map = map_of(
            0,
            &[("10.0.0.0/8", 1), ("10.1.2.0/24", 2), ("2002::/15", 7), ("2002:a01:200::/48", 8)],
        )
        .with_6to4();
        assert!(well_formed(&map.v6));
        for (address, network, value) in [
            ("2002:a01:2ff::1", "2002:a01:200::/40", 2),
            ("2002:a02::", "2002:a02::/31", 1),
            ("2002:c000::", "2002:8000::/17", 0),
            // The world of 2001::/16 goes on into 2002::, whose 0.0.0.0/5 has the same value.
            ("2001:ffff::", "2000::/15", 0),
            ("2003::", "2003::/16", 7),
            ("2004::", "2004::/14", 0),
        ] {
            let (found, got) = map.find(address.parse().unwrap());
            assert_eq!((found.to_string().as_str(), *got), (network, value), "{address}");
        }
    }

    /// Networks that nest and touch often: few distinct addresses, all lengths.
    pub(in super::super) fn networks_v4() -> impl Strategy<Value = Vec<(u32, u8, u16)>> {
        let address = prop_oneof![
            any::<u32>(),
            (0u32..4).prop_map(|high| high << 24 | 0x0100),
            Just(0),
            Just(u32::MAX)
        ];
        prop::collection::vec((address, 0u8..=32, 0u16..4), 0..40)
    }

    pub(in super::super) fn networks_v6() -> impl Strategy<Value = Vec<(u128, u8, u16)>> {
        let address = prop_oneof![
            any::<u128>(),
            (0u128..6, any::<u64>())
                .prop_map(|(high, low)| 0x2a02 << 112 | high << 96 | u128::from(low)),
            (0u128..6).prop_map(|high| (0x2000 + high) << 112),
        ];
        let length = prop_oneof![0u8..=64, 0u8..=128];
        prop::collection::vec((address, length, 0u16..4), 0..40)
    }

    /// Longest network by looking at all of them.
    pub(in super::super) fn naive<A: Address>(networks: &[(A, u8, u16)], address: A) -> u16 {
        networks
            .iter()
            .enumerate()
            .filter(|(_, (network, length, _))| {
                network.first_of(*length) == address.first_of(*length)
            })
            .max_by_key(|(order, (_, length, _))| (*length, *order))
            .map_or(9, |(_, (_, _, value))| *value)
    }

    /// Addresses at which something could change, and some more.
    pub(in super::super) fn probes<A: Address>(
        networks: &[(A, u8, u16)],
        more: impl IntoIterator<Item = A>,
    ) -> Vec<A> {
        let mut list: Vec<A> = more.into_iter().collect();
        for (network, length, _) in networks {
            let (first, last) = (network.first_of(*length), network.last_of(*length));
            list.extend([first, last]);
            list.extend(first.pred().into_iter().chain(last.succ()));
        }
        list
    }

    proptest! {
        #[test]
        fn nested_networks_agree_with_a_linear_search(
            v4 in networks_v4(), v6 in networks_v6(), some4: [u32; 4], some6: [u128; 4],
        ) {
            let map = RangeMap::from_prefixes(9, v4.clone());
            prop_assert!(well_formed(&map));
            for address in probes(&v4, some4) {
                prop_assert_eq!(*map.get(address), naive(&v4, address));
            }
            let map = RangeMap::from_prefixes(9, v6.clone());
            prop_assert!(well_formed(&map));
            for address in probes(&v6, some6) {
                prop_assert_eq!(*map.get(address), naive(&v6, address));
            }
        }

        #[test]
        fn overlay_is_pointwise(a in networks_v4(), b in networks_v4(), some: [u32; 4]) {
            let (left, right) = (RangeMap::from_prefixes(9, a.clone()), RangeMap::from_prefixes(9, b.clone()));
            let both = left.overlay(&right, |x, y| (*x, *y));
            prop_assert!(well_formed(&both));
            let folded = both.map(|(x, y)| x % 2 == y % 2);
            prop_assert!(well_formed(&folded));
            for address in probes(&a, some).into_iter().chain(probes(&b, [])) {
                prop_assert_eq!(*both.get(address), (*left.get(address), *right.get(address)));
                prop_assert_eq!(*folded.get(address), left.get(address) % 2 == right.get(address) % 2);
            }
        }

        #[test]
        fn ranges_rebuild_the_map(networks in networks_v4()) {
            let map = RangeMap::from_prefixes(9, networks);
            let ranges = map.ranges().map(|(first, last, value)| (first, last, *value));
            let rebuilt = RangeMap::from_ranges(77, ranges);
            prop_assert_eq!(rebuilt.as_ref(), Ok(&map));
            let sparse = map.ranges().filter(|range| *range.2 != 9).map(|(a, b, v)| (a, b, *v));
            prop_assert_eq!(RangeMap::from_ranges(9, sparse), Ok(map));
        }

        #[test]
        fn the_found_network_is_the_largest(networks in networks_v4(), address: u32) {
            let map = RangeMap::from_prefixes(9, networks);
            let (found, value) = map.find(address);
            let whole = |length: u8| {
                let range = map.ranges().find(|range| range.0 <= address && address <= range.1).unwrap();
                range.0 <= address.first_of(length) && address.last_of(length) <= range.1
            };
            prop_assert_eq!(value, map.get(address));
            prop_assert!(whole(found.length()));
            prop_assert!(found.length() == 0 || !whole(found.length() - 1));
        }
    }
}
