//! The map's own population of client networks: everybody on the Internet whose place is known, weighed by addresses. IPv4 and IPv6 are apart, because their addresses do not compare.
//!
//! A network for which both worlds say one thing throughout is asked once, and counts in full. A wide one is cut into
//! pieces of equal size, each asked at one of its networks: where a draw decides, that is a sample, the same in both
//! worlds.

use std::net::IpAddr;

use shared::prefix::{Address, Prefix, RangeMap};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{Key, Rehearsal, policy_id};
use crate::map::Whose;
use crate::map::routable::population;
use crate::snapshot::Snapshot;
use crate::world::PolicyId;

/// How finely the population is asked.
#[derive(Clone, Copy, Debug)]
pub struct Fineness {
    /// Pieces that each family's addresses are cut into at least, where that many networks are known.
    pub pieces: u32,
    /// Networks asked for one policy and family at most; beyond them only pieces are asked.
    pub most: u32,
}

impl Fineness {
    /// For a command that somebody waits for.
    pub const COMMAND: Self = Self { pieces: 1 << 16, most: 1 << 22 };
    /// For a node that serves at the same time.
    pub const NODE: Self = Self { pieces: 1 << 14, most: 1 << 17 };
}

/// Where clients without an ECS cap are asked: no network on the Internet's routing table is longer.
const FINEST: (u8, u8) = (24, 48);

impl Rehearsal<'_> {
    /// Adds the population of every policy of either world.
    pub fn add_population(&mut self, fineness: Fineness) {
        let (before, after) = (self.before, self.after);
        let known = population(&before.tables.geography);
        let strides = (stride(&known.v4, fineness.pieces), stride(&known.v6, fineness.pieces));
        let worlds = (&before.tables.world, &after.tables.world);
        let ids = |count: usize| (0..count).filter_map(|id| PolicyId::try_from(id).ok());
        let first = ids(worlds.0.policies.len()).map(|id| {
            let name = worlds.0.policies.get(usize::from(id)).map(|policy| policy.name.as_str());
            (Some(id), name.and_then(|name| policy_id(worlds.1, name)))
        });
        let new = ids(worlds.1.policies.len()).filter_map(|id| {
            let name = &worlds.1.policies.get(usize::from(id))?.name;
            policy_id(worlds.0, name).is_none().then_some((None, Some(id)))
        });
        for (of_before, of_after) in first.chain(new) {
            let sides = [of_before.map(|id| (before, id)), of_after.map(|id| (after, id))];
            let scope = |address: IpAddr| {
                let sides = sides.iter().flatten();
                sides.map(|(snapshot, id)| scope(snapshot, *id, address)).max().unwrap_or(0)
            };
            let key = Key { before: of_before, after: of_after, is_v6: false };
            blocks(&known.v4, strides.0, fineness.most, scope, |block| {
                self.add_block(key, block, 32, finest(&sides, block.network()));
            });
            let key = Key { is_v6: true, ..key };
            blocks(&known.v6, strides.1, fineness.most, scope, |block| {
                self.add_block(key, block, 128, finest(&sides, block.network()));
            });
        }
    }

    /// Asks one of a block's networks for all of them.
    fn add_block(&mut self, key: Key, block: Prefix, width: u8, finest: u8) {
        let addresses = 2_f64.powi(i32::from(width) - i32::from(block.length()));
        self.add_network(key, one_of(block, finest), addresses);
    }
}

/// The longest networks that a policy of either side tells apart.
fn finest(sides: &[Option<(&Snapshot, PolicyId)>; 2], address: IpAddr) -> u8 {
    let of = |(snapshot, id): &(&Snapshot, PolicyId)| {
        let ecs = snapshot.tables.policy(*id)?.0.ecs;
        let otherwise = if address.is_ipv4() { FINEST.0 } else { FINEST.1 };
        Some(if ecs.enabled { ecs.max_bits(address) } else { otherwise })
    };
    sides.iter().flatten().filter_map(of).max().unwrap_or(0)
}

/// The network around an address for which a policy's map says one thing.
fn scope(snapshot: &Snapshot, policy: PolicyId, address: IpAddr) -> u8 {
    let sides = [Some((snapshot, policy)), None];
    let bits = finest(&sides, address);
    snapshot
        .tables
        .policy(policy)
        .map_or(0, |(_, map)| map.table(Whose::Subnet).lookup(address, bits).1)
}

/// The prefix length at which the addresses that are known make at least `pieces` networks.
fn stride<A: Address>(known: &RangeMap<A, bool>, pieces: u32) -> u8 {
    let ranges = known.ranges().filter(|(_, _, known)| **known);
    let total: f64 = ranges.map(|(first, last, _)| addresses(first, last)).sum();
    let piece = (total / f64::from(pieces)).max(1.0);
    A::BITS.saturating_sub(piece.log2().floor() as u8)
}

/// How many addresses there are from `first` to `last`, by the aligned networks that they make.
fn addresses<A: Address>(first: A, last: A) -> f64 {
    let mut total = 0.0;
    let mut at = Some(first);
    while let Some(start) = at.filter(|start| *start <= last) {
        let bits = widest(start, last, 0);
        total += 2_f64.powi(i32::from(A::BITS) - i32::from(bits));
        at = start.last_of(bits).succ();
    }
    total
}

/// The length, `least` or more, of the widest aligned network that begins at `start` and ends by `last`.
fn widest<A: Address>(start: A, last: A, least: u8) -> u8 {
    (least..A::BITS)
        .find(|bits| start.first_of(*bits) == start && start.last_of(*bits) <= last)
        .unwrap_or(A::BITS)
}

/// Cuts what is known into aligned networks: none wider than `stride`, none wider than its scope.
fn blocks<A: Address>(
    known: &RangeMap<A, bool>,
    stride: u8,
    most: u32,
    scope: impl Fn(IpAddr) -> u8,
    mut visit: impl FnMut(Prefix),
) {
    let mut visited = 0;
    for (first, last, _) in known.ranges().filter(|(_, _, known)| **known) {
        let mut at = Some(first);
        while let Some(start) = at.filter(|start| *start <= last) {
            let scope = if visited < most { scope(start.prefix(A::BITS).network()) } else { 0 };
            let bits = widest(start, last, stride.max(scope));
            visit(start.prefix(bits));
            visited = visited.saturating_add(1);
            at = start.last_of(bits).succ();
        }
    }
}

/// A network of `bits` in the block, or the block when it is no wider: which one is drawn from the block itself.
fn one_of(block: Prefix, bits: u8) -> Prefix {
    let bits = bits.max(block.length());
    let address = match block.network() {
        IpAddr::V4(first) => {
            let hosts = u32::MAX.checked_shr(block.length().into()).unwrap_or(0);
            let drawn = xxh3_64_with_seed(&first.octets(), block.length().into()) as u32;
            IpAddr::V4((first.to_bits() | (drawn & hosts)).into())
        }
        IpAddr::V6(first) => {
            let hosts = u128::MAX.checked_shr(block.length().into()).unwrap_or(0);
            // Networks that clients are told apart by are no longer than /64.
            let drawn = xxh3_64_with_seed(&first.octets(), block.length().into());
            IpAddr::V6((first.to_bits() | (u128::from(drawn) << 64 & hosts)).into())
        }
    };
    Prefix::containing(address, bits)
}

#[cfg(test)]
mod tests {
    use shared::prefix::IpRangeMap;

    use super::*;

    #[test]
    fn blocks_cover_what_is_known_once() {
        let nets = ["1.0.0.0/8", "2.0.0.0/15", "9.9.9.0/24", "9.9.10.0/23"];
        let prefixes = nets.map(|net| (net.parse::<Prefix>().unwrap(), true));
        let known = IpRangeMap::from_prefixes(false, prefixes);
        for stride in [0, 12, 16, 24, 20] {
            let mut total = 0_u64;
            let mut after: Option<u32> = None;
            blocks(
                &known.v4,
                stride,
                u32::MAX,
                |_| 10,
                |block| {
                    assert!(block.length() >= stride.max(10), "{block}");
                    assert!(*known.get(block.network()), "{block}");
                    let IpAddr::V4(first) = block.network() else { panic!("{block}") };
                    assert!(after.is_none_or(|after| first.to_bits() >= after), "{block} overlaps");
                    total += 1 << (32 - block.length());
                    let inside = one_of(block, 24);
                    assert!(block.covers(inside) && inside.length() >= 24, "{block} {inside}");
                    after = Some(first.to_bits() + ((1_u64 << (32 - block.length())) - 1) as u32);
                },
            );
            assert_eq!(total, (1 << 24) + (1 << 17) + 256 + 512, "{stride}");
        }
        assert_eq!(stride(&known.v4, 256), 16);
    }

    #[test]
    fn all_of_a_family_is_no_special_case() {
        let all = RangeMap::<u128, bool>::uniform(true);
        assert_eq!(stride(&all, 1 << 10), 10);
        let mut count = 0;
        blocks(&all, 3, u32::MAX, |_| 0, |_| count += 1);
        assert_eq!(count, 8);
        // Beyond the bound scopes no longer count.
        count = 0;
        blocks(&RangeMap::<u32, bool>::uniform(true), 4, 100, |_| 32, |_| count += 1);
        assert!((100..200).contains(&count), "{count}");
    }
}
