//! Client network to ordered datacenters, compiled at load.
//!
//! For each policy, the operator's own networks, the rules, and the geography become one longest-prefix table whose
//! leaf is the id of an ordered list of datacenters; equal neighbours are merged, so that the scope of an answer is the
//! shortest prefix for which it is true and no two scopes overlap (RFC 7871 §7.2.1). Health has no part in it.
//! [`order_for`] decides a single list; the table, and `explain` later, get theirs from it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use shared::geo::{Coordinates, Description, Place, PlaceId, Places, World as Geography};
use shared::prefix::{IpRangeMap, LookupTable, Prefix};

use crate::pick::score;
use crate::world::{DatacenterId, Order, Policy, World, stable_key};

/// A policy's table.
#[derive(Clone, Debug)]
pub struct Map {
    table: LookupTable<u32>,
    lists: Vec<List>,
    /// Where the operator wrote networks down, in `networks` or in a rule: there even addresses that are nobody's on
    /// the Internet mean something.
    declared: IpRangeMap<bool>,
}

/// An ordered list of datacenters: all of the policy's, each once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct List {
    /// The first choice first.
    pub datacenters: Box<[DatacenterId]>,
    /// How many of them a network or a rule put first. With `order = "weighted"` those after them are drawn anew for
    /// each client network.
    pub fixed: usize,
}

/// What decided a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matched {
    /// One of the operator's networks.
    Network(DatacenterId),
    /// The rule at this position.
    Rule(usize),
    /// Distances from this point.
    Distance(Coordinates),
    /// Nothing is known of where the client is: the order in which datacenters are listed.
    Nowhere,
    /// The policy's order, the same for every client.
    Listed,
    /// A draw by weight.
    Weighted,
}

/// What lists are decided by, for one client network.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The operator's datacenter for it.
    pub network: Option<DatacenterId>,
    /// The rules that have no condition on networks, or one that holds.
    pub by_network: &'a [bool],
    /// The rules that have no condition on systems, or one that holds.
    pub by_asn: &'a [bool],
    /// Where it is.
    pub place: Place,
    /// The name of its city.
    pub city: Option<&'a str>,
}

impl Map {
    /// Leaf and scope for `address`, at most `max_bits` fine.
    #[inline]
    pub fn lookup(&self, address: IpAddr, max_bits: u8) -> (Option<&List>, u8) {
        let (leaf, scope) = self.table.lookup_capped(address, max_bits);
        (self.lists.get(leaf as usize), scope)
    }

    /// Whether the operator wrote a network down that holds `address`.
    pub fn is_declared(&self, address: IpAddr) -> bool {
        *self.declared.get(address)
    }

    /// How many ranges and lists the table has.
    pub fn size(&self) -> (usize, usize) {
        (self.table.range_count(), self.lists.len())
    }

    /// Bytes of the table.
    pub fn memory(&self) -> usize {
        self.table.memory()
    }

    /// Compiles a policy.
    pub fn compile(world: &World, policy: &Policy, geography: &Geography) -> Self {
        let by_network = rules_by_network(policy);
        let by_asn = rules_by_asn(policy, geography);
        let mut lists = Lists::default();
        let declared = geography
            .networks
            .overlay(&by_network.declared, |network, rule| network.is_some() || *rule);
        let given_to = geography.networks.map(|network| given_to(world, geography, *network));
        let operator =
            given_to.overlay(&by_network.holds, |given_to, rules| (*given_to, Arc::clone(rules)));
        let placed = geography.places.overlay(&by_asn, |place, rules| (*place, Arc::clone(rules)));
        let leaves = operator.overlay(&placed, |(given_to, by_network), (place, by_asn)| {
            lists.id_of(world, policy, &geography.catalog, *given_to, by_network, *place, by_asn)
        });
        Self { table: LookupTable::new(&leaves.with_6to4()), lists: lists.lists, declared }
    }
}

/// The datacenter that the operator gave a listed network to.
fn given_to(world: &World, geography: &Geography, listed: Option<u32>) -> Option<DatacenterId> {
    let (_, datacenter) = geography.listed.get(listed? as usize)?;
    world.datacenter_id(datacenter)
}

/// Lists in the order in which they were first needed, each once.
#[derive(Default)]
struct Lists {
    lists: Vec<List>,
    id_of_list: HashMap<List, u32>,
    /// Millions of networks share few combinations.
    #[expect(clippy::type_complexity, reason = "a key of four parts")]
    id_of_known: HashMap<(Option<DatacenterId>, Arc<[bool]>, Option<PlaceId>, Arc<[bool]>), u32>,
}

impl Lists {
    #[expect(clippy::too_many_arguments, reason = "the four parts of a key, and what they mean")]
    fn id_of(
        &mut self,
        world: &World,
        policy: &Policy,
        places: &Places,
        network: Option<DatacenterId>,
        by_network: &Arc<[bool]>,
        place: Option<PlaceId>,
        by_asn: &Arc<[bool]>,
    ) -> u32 {
        let key = (network, Arc::clone(by_network), place, Arc::clone(by_asn));
        if let Some(id) = self.id_of_known.get(&key) {
            return *id;
        }
        let known = known(places, network, by_network, place, by_asn);
        let (_, list) = order_for(world, policy, &known);
        let next = u32::try_from(self.lists.len()).unwrap_or(u32::MAX);
        let id = *self.id_of_list.entry(list.clone()).or_insert(next);
        if id == next {
            self.lists.push(list);
        }
        self.id_of_known.insert(key, id);
        id
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

fn rules_by_network(policy: &Policy) -> ByNetwork {
    let free: Arc<[bool]> = policy.rules.iter().map(|rule| rule.networks.is_empty()).collect();
    let mut holds = IpRangeMap::uniform(free);
    let mut declared = IpRangeMap::uniform(false);
    for (index, rule) in policy.rules.iter().enumerate().filter(|(_, r)| !r.networks.is_empty()) {
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
        let rule_holds = |rule: &crate::world::Rule| {
            rule.asns.is_empty() || asn.is_some_and(|asn| rule.asns.contains(&asn))
        };
        policy.rules.iter().map(rule_holds).collect()
    };
    if policy.rules.iter().all(|rule| rule.asns.is_empty()) {
        return IpRangeMap::uniform(holds(None));
    }
    geography.asns.map(|asn| holds(*asn))
}

/// The list for a client network, and what decided it. All of the policy's datacenters are in it: those that a network
/// or a rule names come first, the others follow in the policy's order, so that health never leaves a client with
/// nothing.
pub fn order_for(world: &World, policy: &Policy, known: &Known<'_>) -> (Matched, List) {
    let rule = policy.rules.iter().enumerate().find(|(index, rule)| {
        let place = &known.place;
        let holds = |conditions: &[bool]| conditions.get(*index).copied().unwrap_or(false);
        holds(known.by_network)
            && holds(known.by_asn)
            && (rule.countries.is_empty()
                || place.country.is_some_and(|country| rule.countries.contains(&country)))
            && (rule.continents.is_empty()
                || place.continent.is_some_and(|continent| rule.continents.contains(&continent)))
            && (rule.subdivisions.is_empty()
                || place.subdivisions.iter().flatten().any(|s| rule.subdivisions.contains(s)))
            && (rule.cities.is_empty()
                || known.city.is_some_and(|city| rule.cities.iter().any(|c| c == city)))
    });
    let network = known.network.filter(|datacenter| policy.datacenters.contains(datacenter));
    let (by_order, rest) = by_order(world, policy, known.place.location);
    let (matched, first): (_, &[DatacenterId]) = match (&network, rule) {
        (Some(datacenter), _) => (Matched::Network(*datacenter), std::slice::from_ref(datacenter)),
        (None, Some((index, rule))) => (Matched::Rule(index), &rule.to),
        (None, None) => (by_order, &[]),
    };
    let mut datacenters: Vec<DatacenterId> = Vec::with_capacity(rest.len());
    let mut fixed = 0;
    for (index, id) in first.iter().chain(&rest).enumerate() {
        if policy.datacenters.contains(id) && !datacenters.contains(id) {
            datacenters.push(*id);
            fixed += usize::from(index < first.len());
        }
    }
    (matched, List { datacenters: datacenters.into(), fixed })
}

/// The policy's order, as if there were no rules.
fn by_order(
    world: &World,
    policy: &Policy,
    from: Option<Coordinates>,
) -> (Matched, Vec<DatacenterId>) {
    match (policy.order, from) {
        (Order::Listed, _) => (Matched::Listed, policy.datacenters.clone()),
        (Order::Weighted, _) => (Matched::Weighted, policy.datacenters.clone()),
        (Order::Nearest, None) => (Matched::Nowhere, policy.datacenters.clone()),
        (Order::Nearest, Some(from)) => (Matched::Distance(from), nearest(world, policy, from)),
    }
}

/// Great-circle distance from a point to a datacenter, in kilometres.
pub fn distance_km(world: &World, from: Coordinates, datacenter: DatacenterId) -> Option<f64> {
    let there = world.datacenters.get(usize::from(datacenter))?.location;
    Some(from.distance_km(there))
}

/// By distance. What differs by less than 1 km or 1 % is as near as the other: a draw that is stable for the place
/// spreads clients over such datacenters.
fn nearest(world: &World, policy: &Policy, from: Coordinates) -> Vec<DatacenterId> {
    let ids = policy.datacenters.iter();
    let mut by_distance: Vec<(f64, DatacenterId)> =
        ids.map(|id| (distance_km(world, from, *id).unwrap_or(f64::INFINITY), *id)).collect();
    by_distance.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let place = stable_key(&from.to_string());
    let draw = |id: DatacenterId| score(stable_key(world.datacenter_name(id)), 1, place);
    let mut ordered = Vec::with_capacity(by_distance.len());
    let mut rest = by_distance.as_slice();
    while let Some((nearest, _)) = rest.first() {
        let near = nearest + (nearest * 0.01).max(1.0);
        let group = rest.iter().take_while(|(distance, _)| *distance <= near).count().max(1);
        let (tied, after) = rest.split_at(group.min(rest.len()));
        let mut tied: Vec<DatacenterId> = tied.iter().map(|(_, id)| *id).collect();
        tied.sort_by(|a, b| draw(*b).total_cmp(&draw(*a)));
        ordered.extend(tied);
        rest = after;
    }
    ordered
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
) -> Explanation {
    let description = geography.describe(address);
    let asn = description.asn.map(|(_, asn)| asn);
    let holds = |rule: &crate::world::Rule| {
        rule.networks.is_empty() || rule.networks.iter().any(|network| network.contains(address))
    };
    let by_network: Vec<bool> = policy.rules.iter().map(holds).collect();
    let by_asn: Vec<bool> = policy
        .rules
        .iter()
        .map(|rule| rule.asns.is_empty() || asn.is_some_and(|asn| rule.asns.contains(&asn)))
        .collect();
    let place = *geography.places.get(address);
    let given = given_to(world, geography, *geography.networks.get(address));
    let known = known(&geography.catalog, given, &by_network, place, &by_asn);
    let (matched, list) = order_for(world, policy, &known);
    let of_rule = |index: usize| {
        let networks = policy.rules.get(index)?.networks.iter();
        networks.filter(|network| network.contains(address)).max_by_key(|n| n.length()).copied()
    };
    let of_place = description.place.as_ref().map(|place| place.network);
    let of_operator = description.network.as_ref().map(|(network, _)| *network);
    let network = match matched {
        Matched::Network(_) => of_operator,
        Matched::Rule(index) => of_rule(index).or(of_place),
        _ => of_place,
    };
    let network = network.unwrap_or_else(|| geography.places.find(address).0);
    Explanation { description, network, matched, list }
}
