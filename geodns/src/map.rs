//! Client network to ordered datacenters, compiled at load.
//!
//! For each policy, the operator's own networks, the rules, and the geography become one longest-prefix table whose
//! leaf is the id of an ordered list of datacenters; equal neighbours are merged, so that the scope of an answer is the
//! shortest prefix for which it is true and no two scopes overlap (RFC 7871 §7.2.1). Health has no part in it.
//! [`order`] decides a single list; the table, and [`explain`] later, get theirs from it.

pub mod compare;
pub mod order;
pub mod partial;
pub mod routable;

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use shared::geo::{Description, PlaceId, Places, World as Geography};
use shared::prefix::{IpRangeMap, LookupTable, Prefix};

pub use order::{Known, Matched, distance_km};

use self::order::Orders;
use self::partial::{Partial, Rank};
use crate::world::{DatacenterId, Order, Policy, Rule, RuleBy, World, stable_key};

/// Whose address a list is looked up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The client's, by the subnet in the query.
    Subnet,
    /// The resolver's, where the query tells nothing of its client.
    Resolver,
}

impl Whose {
    /// Whether a rule is about this address.
    const fn is_meant_by(self, rule: &Rule) -> bool {
        match rule.by {
            RuleBy::Any => true,
            RuleBy::Subnet => matches!(self, Self::Subnet),
            RuleBy::Resolver => matches!(self, Self::Resolver),
        }
    }
}

/// A policy's tables.
#[derive(Clone, Debug)]
pub struct Map {
    subnets: Table,
    /// Where the operator has resolvers treated in another way.
    resolvers: Option<Box<Table>>,
    /// A number for each of the world's datacenters, and its weight.
    draws: Box<[(u64, u32)]>,
}

/// A table for addresses of one kind.
#[derive(Clone, Debug)]
pub struct Table {
    leaves: LookupTable<u32>,
    lists: Vec<List>,
    /// Where the operator wrote networks down, in `networks` or in a rule: there even addresses that are nobody's on
    /// the Internet mean something.
    declared: IpRangeMap<bool>,
    /// Only where a datacenter may take a part of its clients.
    partial: Option<Box<Partial>>,
    /// Which of the policy's rules decide anything.
    rules_in_use: Box<[bool]>,
}

/// An ordered list of datacenters: all of the policy's, each once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct List {
    /// The first choice first.
    pub datacenters: Box<[DatacenterId]>,
    /// How many of them a network or a rule put first. With `order = "weighted"` those after them are drawn anew for
    /// each client network.
    pub fixed: usize,
    /// Where the network stands among those with the same first choice. Only where a datacenter may take a part of them.
    pub rank: Rank,
}

impl Map {
    /// Compiles a policy.
    pub fn compile(world: &World, policy: &Policy, geography: &Geography) -> Self {
        let table = |whose| Table::compile(world, policy, geography, whose);
        let differ = !geography.listed_resolvers.is_empty()
            || policy.rules.iter().any(|rule| rule.by != RuleBy::Any);
        Self {
            subnets: table(Whose::Subnet),
            resolvers: differ.then(|| Box::new(table(Whose::Resolver))),
            draws: world.datacenters.iter().map(|dc| (stable_key(&dc.name), dc.weight)).collect(),
        }
    }

    /// The table for addresses of this kind.
    #[inline]
    pub fn table(&self, whose: Whose) -> &Table {
        match (whose, &self.resolvers) {
            (Whose::Resolver, Some(table)) => table,
            _ => &self.subnets,
        }
    }

    /// What draws by weight know of a datacenter: its number, and its weight.
    #[inline]
    pub(crate) fn draw(&self, datacenter: DatacenterId) -> (u64, u32) {
        self.draws.get(usize::from(datacenter)).copied().unwrap_or_default()
    }

    /// The rules of `policy`, by position, that decide for no client: no network has what they ask for, or all that have
    /// it are an earlier rule's or a network's that the operator gave away.
    pub fn idle_rules(&self, policy: &Policy) -> Vec<usize> {
        // Without client subnets only resolvers' addresses are looked up.
        let subnets = policy.ecs.enabled.then_some(&self.subnets);
        let tables = || subnets.into_iter().chain([self.table(Whose::Resolver)]);
        let is_used = |rule: &usize| {
            tables().any(|table| table.rules_in_use.get(*rule).copied().unwrap_or_default())
        };
        (0..policy.rules.len()).filter(|rule| !is_used(rule)).collect()
    }

    /// How many ranges and lists the tables have.
    pub fn size(&self) -> (usize, usize) {
        let tables = [Some(&self.subnets), self.resolvers.as_deref()];
        let sizes = tables.into_iter().flatten();
        sizes.fold((0, 0), |(ranges, lists), table| {
            (ranges + table.leaves.range_count(), lists + table.lists.len())
        })
    }

    /// Where the tables lie.
    pub fn regions(&self) -> impl Iterator<Item = Range<*const u8>> {
        let tables = [Some(&self.subnets), self.resolvers.as_deref()];
        tables.into_iter().flatten().flat_map(|table| table.leaves.regions())
    }

    /// Bytes of the tables.
    pub fn memory(&self) -> usize {
        self.subnets.leaves.memory()
            + self.resolvers.as_ref().map_or(0, |table| table.leaves.memory())
    }
}

impl Table {
    /// List and scope for `address`, at most `max_bits` fine.
    #[inline]
    pub fn lookup(&self, address: IpAddr, max_bits: u8) -> (Option<&List>, u8) {
        let (leaf, scope) = self.leaves.lookup_capped(address, max_bits);
        (self.lists.get(leaf as usize), scope)
    }

    /// Where a lookup of `address` begins.
    #[inline]
    pub fn index_at(&self, address: IpAddr) -> *const u8 {
        self.leaves.index_at(address)
    }

    /// Where it goes on.
    #[inline]
    pub fn ranges_at(&self, address: IpAddr) -> [*const u8; 2] {
        self.leaves.ranges_at(address)
    }

    /// Whether the operator wrote a network down that holds `address`.
    pub fn is_declared(&self, address: IpAddr) -> bool {
        *self.declared.get(address)
    }

    /// What parts of clients are measured by, where there may be some.
    #[inline]
    pub(crate) fn partial(&self) -> Option<&Partial> {
        self.partial.as_deref()
    }

    /// The first datacenter of every address; none where clients are drawn by weight.
    fn firsts(&self, order: Order) -> IpRangeMap<Option<DatacenterId>> {
        self.leaves.map(|leaf| {
            let list = self.lists.get(leaf as usize)?;
            let is_drawn = order == Order::Weighted && list.fixed == 0;
            list.datacenters.first().filter(|_| !is_drawn).copied()
        })
    }

    fn compile(world: &World, policy: &Policy, geography: &Geography, whose: Whose) -> Self {
        let by_network = rules_by_network(policy, whose);
        let by_asn = rules_by_asn(policy, geography);
        let mut lists = Lists::new(Orders::new(world, policy), &geography.catalog);
        let given = operators(world, geography, whose);
        let declared =
            given.declared.overlay(&by_network.declared, |network, rule| *network || *rule);
        let operator =
            given.to.overlay(&by_network.holds, |given_to, rules| (*given_to, Arc::clone(rules)));
        let placed = geography.places.overlay(&by_asn, |place, rules| (*place, Arc::clone(rules)));
        let leaves = operator.overlay(&placed, |(given_to, by_network), (place, by_asn)| {
            lists.id_of(*given_to, by_network, *place, by_asn)
        });
        // Draws and shares go by who put a list together, too.
        let leaves = match policy.order == Order::Weighted || policy.is_partial() {
            true => leaves,
            false => {
                let same = lists.same();
                let merged = |id: &u32| same.get(*id as usize).copied().unwrap_or(*id);
                leaves.overlay(&routable::parts(&declared), |id, part| match part {
                    // What is beside it is passed over, so that this is a border.
                    true => *id,
                    false => merged(id),
                })
            }
        };
        let declared = declared.with_6to4();
        let rules_in_use = lists.rules_in_use.into();
        let mut lists = lists.lists;
        let (leaves, partial) = match policy.is_partial() {
            false => (leaves, None),
            true => {
                let (leaves, partial) =
                    partial::rank(world, policy, geography, &leaves, &mut lists);
                (leaves, Some(Box::new(partial)))
            }
        };
        Self {
            leaves: LookupTable::new(&leaves.with_6to4()),
            lists,
            declared,
            partial,
            rules_in_use,
        }
    }
}

/// What the operator wrote in `networks` and, for resolvers, before it in `resolvers`.
struct Given {
    declared: IpRangeMap<bool>,
    to: IpRangeMap<Option<DatacenterId>>,
}

fn operators(world: &World, geography: &Geography, whose: Whose) -> Given {
    let networks = &geography.networks;
    let given = Given {
        declared: networks.map(Option::is_some),
        to: networks.map(|listed| given_to(world, &geography.listed, *listed)),
    };
    if whose == Whose::Subnet {
        return given;
    }
    let of_resolvers = geography
        .resolvers
        .map(|listed| (listed.is_some(), given_to(world, &geography.listed_resolvers, *listed)));
    Given {
        declared: given.declared.overlay(&of_resolvers, |known, (own, _)| *known || *own),
        to: given.to.overlay(&of_resolvers, |known, (_, own)| own.or(*known)),
    }
}

/// The datacenter that the operator gave a listed network to.
fn given_to(
    world: &World,
    listed: &[(Prefix, String)],
    number: Option<u32>,
) -> Option<DatacenterId> {
    let (_, datacenter) = listed.get(number? as usize)?;
    world.datacenter_id(datacenter)
}

/// Lists in the order in which they were first needed, each once.
struct Lists<'w> {
    orders: Orders<'w>,
    places: &'w Places,
    lists: Vec<List>,
    rules_in_use: Vec<bool>,
    id_of_list: HashMap<List, u32>,
    /// Millions of networks share few combinations.
    #[expect(clippy::type_complexity, reason = "a key of four parts")]
    id_of_known: HashMap<(Option<DatacenterId>, Arc<[bool]>, Option<PlaceId>, Arc<[bool]>), u32>,
}

impl<'w> Lists<'w> {
    fn new(orders: Orders<'w>, places: &'w Places) -> Self {
        let (id_of_list, id_of_known) = (HashMap::new(), HashMap::new());
        let rules_in_use = vec![false; orders.rules()];
        Self { orders, places, lists: Vec::new(), rules_in_use, id_of_list, id_of_known }
    }

    fn id_of(
        &mut self,
        network: Option<DatacenterId>,
        by_network: &Arc<[bool]>,
        place: Option<PlaceId>,
        by_asn: &Arc<[bool]>,
    ) -> u32 {
        let key = (network, Arc::clone(by_network), place, Arc::clone(by_asn));
        if let Some(id) = self.id_of_known.get(&key) {
            return *id;
        }
        let known = known(self.places, network, by_network, place, by_asn);
        let (matched, list) = self.orders.order_for(&known);
        if let Matched::Rule(index) = matched
            && let Some(used) = self.rules_in_use.get_mut(index)
        {
            *used = true;
        }
        let next = u32::try_from(self.lists.len()).unwrap_or(u32::MAX);
        let id = *self.id_of_list.entry(list.clone()).or_insert(next);
        if id == next {
            self.lists.push(list);
        }
        self.id_of_known.insert(key, id);
        id
    }

    /// For each list the first one with the same datacenters in the same order: without draws and shares these are the
    /// same answer, and one scope.
    fn same(&self) -> Vec<u32> {
        let mut first = HashMap::new();
        let ids = self.lists.iter().zip(0..);
        ids.map(|(list, id)| *first.entry(&list.datacenters).or_insert(id)).collect()
    }
}

fn known<'a>(
    places: &'a Places,
    network: Option<DatacenterId>,
    by_network: &'a [bool],
    place: Option<PlaceId>,
    by_asn: &'a [bool],
) -> Known<'a> {
    let place = place.map(|id| places.get(id)).unwrap_or_default();
    let city = place.city.and_then(|city| places.city(city)?.name.as_deref());
    Known { network, by_network, by_asn, place, city }
}

struct ByNetwork {
    declared: IpRangeMap<bool>,
    holds: IpRangeMap<Arc<[bool]>>,
}

fn rules_by_network(policy: &Policy, whose: Whose) -> ByNetwork {
    let is_free = |rule: &Rule| whose.is_meant_by(rule) && rule.networks.is_empty();
    let free: Arc<[bool]> = policy.rules.iter().map(is_free).collect();
    let mut holds = IpRangeMap::uniform(free);
    let mut declared = IpRangeMap::uniform(false);
    let is_bound = |rule: &Rule| whose.is_meant_by(rule) && !rule.networks.is_empty();
    for (index, rule) in policy.rules.iter().enumerate().filter(|(_, rule)| is_bound(rule)) {
        let inside =
            IpRangeMap::from_prefixes(false, rule.networks.iter().map(|network| (*network, true)));
        declared = declared.overlay(&inside, |before, inside| *before || *inside);
        holds = holds.overlay(&inside, |holds, inside| match inside {
            true => with(holds, index),
            false => Arc::clone(holds),
        });
    }
    ByNetwork { declared, holds }
}

fn with(holds: &[bool], index: usize) -> Arc<[bool]> {
    holds.iter().enumerate().map(|(at, held)| *held || at == index).collect()
}

fn rules_by_asn(policy: &Policy, geography: &Geography) -> IpRangeMap<Arc<[bool]>> {
    let holds = |asn: Option<u32>| -> Arc<[bool]> {
        let rule_holds =
            |rule: &Rule| rule.asns.is_empty() || asn.is_some_and(|asn| rule.asns.contains(&asn));
        policy.rules.iter().map(rule_holds).collect()
    };
    if policy.rules.iter().all(|rule| rule.asns.is_empty()) {
        return IpRangeMap::uniform(holds(None));
    }
    geography.asns.map(|asn| holds(*asn))
}

/// What `explain` tells of a client network: what is known of it, and what decided its list.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// All that is known of the address.
    pub description: Description,
    /// The network that what decided is said of.
    pub network: Prefix,
    /// What decided the list.
    pub matched: Matched,
    /// The list.
    pub list: List,
}

/// Decides the list of one address anew, keeping why.
pub fn explain(
    world: &World,
    policy: &Policy,
    geography: &Geography,
    address: IpAddr,
    whose: Whose,
) -> Explanation {
    let description = match whose {
        Whose::Subnet => geography.describe(address),
        Whose::Resolver => geography.describe_resolver(address),
    };
    let asn = description.asn.map(|(_, asn)| asn);
    let holds = |rule: &Rule| {
        whose.is_meant_by(rule)
            && (rule.networks.is_empty() || rule.networks.iter().any(|net| net.contains(address)))
    };
    let by_network: Vec<bool> = policy.rules.iter().map(holds).collect();
    let by_asn: Vec<bool> = policy
        .rules
        .iter()
        .map(|rule| rule.asns.is_empty() || asn.is_some_and(|asn| rule.asns.contains(&asn)))
        .collect();
    let place = *geography.places.get(address);
    // As `operators` has it: a resolver's network that names a datacenter comes first.
    let of_operator = [&description.resolver, &description.network]
        .into_iter()
        .flatten()
        .find_map(|(network, name)| Some((*network, world.datacenter_id(name)?)));
    let given = of_operator.map(|(_, datacenter)| datacenter);
    let known = known(&geography.catalog, given, &by_network, place, &by_asn);
    let (matched, list) = Orders::new(world, policy).order_for(&known);
    let of_rule = |index: usize| {
        let networks = policy.rules.get(index)?.networks.iter();
        networks.filter(|network| network.contains(address)).max_by_key(|n| n.length()).copied()
    };
    let of_place = description.place.as_ref().map(|place| place.network);
    let network = match matched {
        Matched::Network(_) => of_operator.map(|(network, _)| network),
        Matched::Rule(index) => of_rule(index).or(of_place),
        _ => of_place,
    };
    let network = network.unwrap_or_else(|| geography.places.find(address).0);
    Explanation { description, network, matched, list }
}

#[cfg(test)]
mod tests {
    use shared::geo::Database;
    use shared::geo::mmdb_writer::{CityRecord, Writer};

    use super::*;
    use crate::testing::{self, FRA, IAD, ICN};

    #[test]
    fn rules_that_decide_for_nobody_are_found() {
        let mut writer = Writer::new("Test-City");
        let record = CityRecord { country: "KR", ..CityRecord::default() };
        writer.city("1.0.0.0/8".parse().unwrap(), &record);
        let database = Database::from_bytes(writer.finish().unwrap(), "t.mmdb").unwrap();
        let geography = Geography::new([], &[database]);
        let country = |code: &str, by, to| Rule {
            countries: vec![code.parse().unwrap()],
            by,
            to: vec![to],
            ..Rule::default()
        };
        let mut world = testing::world(&[], |_| {});
        world.policies[0].rules = vec![
            country("KR", RuleBy::Resolver, IAD),
            country("UK", RuleBy::Any, FRA),
            Rule {
                networks: vec!["10.0.0.0/8".parse().unwrap()],
                to: vec![IAD],
                ..Rule::default()
            },
            country("KR", RuleBy::Subnet, ICN),
            Rule { asns: vec![64500], to: vec![FRA], ..Rule::default() },
            // Resolvers are the first rule's, client subnets the fourth's.
            country("KR", RuleBy::Any, FRA),
        ];
        let idle = |world: &World| {
            let policy = &world.policies[0];
            Map::compile(world, policy, &geography).idle_rules(policy)
        };
        assert_eq!(idle(&world), [1, 4, 5]);
        world.policies[0].ecs.enabled = false;
        assert_eq!(idle(&world), [1, 3, 4, 5]);
    }
}
