//! One client network's ordered list of datacenters, and what decided it: a network or a rule of the operator's first,
//! then the policy's order. The table of [`super::Map`] and [`super::explain`] get their lists from here.

use shared::geo::{Coordinates, Place, UnitVector};

use super::List;
use super::partial::Rank;
use crate::pick::score;
use crate::world::{DatacenterId, Order, Policy, World, stable_key};

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

/// Datacenters whose distances differ by less than this share of the smaller one are as near as each other. The path that
/// packets take is longer than the great circle by more than that, and by how much is not known.
const NEAR_SHARE: f64 = 0.05;
/// Nor do so many kilometres matter: half a millisecond there and back.
const NEAR_KM: f64 = 50.0;

/// Decides lists by one policy.
#[derive(Debug)]
pub struct Orders<'w> {
    policy: &'w Policy,
    sites: Vec<Site>,
}

/// A datacenter of the policy.
#[derive(Clone, Copy, Debug)]
struct Site {
    id: DatacenterId,
    at: UnitVector,
    stretch: f64,
    key: u64,
}

impl<'w> Orders<'w> {
    /// For one policy.
    pub fn new(world: &World, policy: &'w Policy) -> Self {
        let site = |id: &DatacenterId| {
            let datacenter = world.datacenters.get(usize::from(*id))?;
            Some(Site {
                id: *id,
                at: datacenter.location.unit(),
                stretch: datacenter.stretch(),
                key: stable_key(&datacenter.name),
            })
        };
        Self { policy, sites: policy.datacenters.iter().filter_map(site).collect() }
    }

    /// How many rules the policy has.
    pub const fn rules(&self) -> usize {
        self.policy.rules.len()
    }

    /// The list for a client network, and what decided it. All of the policy's datacenters are in it: those that a network
    /// or a rule names come first, the others follow in the policy's order, so that health never leaves a client with
    /// nothing.
    pub fn order_for(&self, known: &Known<'_>) -> (Matched, List) {
        let policy = self.policy;
        let rule = policy.rules.iter().enumerate().find(|(index, rule)| {
            let place = &known.place;
            let holds = |conditions: &[bool]| conditions.get(*index).copied().unwrap_or(false);
            holds(known.by_network)
                && holds(known.by_asn)
                && (rule.countries.is_empty()
                    || place.country.is_some_and(|country| rule.countries.contains(&country)))
                && (rule.continents.is_empty()
                    || place
                        .continent
                        .is_some_and(|continent| rule.continents.contains(&continent)))
                && (rule.subdivisions.is_empty()
                    || place.subdivisions.iter().flatten().any(|s| rule.subdivisions.contains(s)))
                && (rule.cities.is_empty()
                    || known.city.is_some_and(|city| rule.cities.iter().any(|c| c == city)))
        });
        let network = known.network.filter(|datacenter| policy.datacenters.contains(datacenter));
        let (by_order, rest) = self.by_order(known.place.location);
        let (matched, first): (_, &[DatacenterId]) = match (&network, rule) {
            (Some(datacenter), _) => {
                (Matched::Network(*datacenter), std::slice::from_ref(datacenter))
            }
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
        (matched, List { datacenters: datacenters.into(), fixed, rank: Rank::UNKNOWN })
    }

    /// The policy's order, as if there were no rules.
    fn by_order(&self, from: Option<Coordinates>) -> (Matched, Vec<DatacenterId>) {
        let listed = || self.policy.datacenters.clone();
        match (self.policy.order, from) {
            (Order::Listed, _) => (Matched::Listed, listed()),
            (Order::Weighted, _) => (Matched::Weighted, listed()),
            (Order::Nearest, None) => (Matched::Nowhere, listed()),
            (Order::Nearest, Some(from)) => (Matched::Distance(from), self.nearest(from)),
        }
    }

    /// By distance, each datacenter's stretched by its bias. What differs by less than [`NEAR_SHARE`] or [`NEAR_KM`] is as
    /// near as the other: a draw that is stable for the place, and so the same for all its networks, spreads clients over
    /// such datacenters.
    fn nearest(&self, from: Coordinates) -> Vec<DatacenterId> {
        let point = from.unit();
        let stretched = |site: &Site| (point.distance_km(site.at) * site.stretch, *site);
        let mut by_distance: Vec<(f64, Site)> = self.sites.iter().map(stretched).collect();
        by_distance.sort_by(|(a, x), (b, y)| a.total_cmp(b).then(x.key.cmp(&y.key)));
        let place = stable_key(&from.to_string());
        let draw = |site: &Site| score(site.key, 1, place);
        let mut ordered = Vec::with_capacity(by_distance.len());
        let mut rest = by_distance.as_mut_slice();
        while let Some((nearest, site)) = rest.first() {
            let near = nearest + (nearest * NEAR_SHARE).max(NEAR_KM * site.stretch);
            let group = rest.iter().take_while(|(distance, _)| *distance <= near).count().max(1);
            let (tied, after) = rest.split_at_mut(group);
            tied.sort_by(|(_, a), (_, b)| draw(b).total_cmp(&draw(a)));
            ordered.extend(tied.iter().map(|(_, site)| site.id));
            rest = after;
        }
        ordered
    }
}

/// Great-circle distance from a point to a datacenter, in kilometres.
pub fn distance_km(world: &World, from: Coordinates, datacenter: DatacenterId) -> Option<f64> {
    let there = world.datacenters.get(usize::from(datacenter))?.location;
    Some(from.distance_km(there))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::testing;
    use crate::world::Datacenter;

    /// Datacenters `a`, `b`, … at these points with these biases, and the list for a client at `from`, as letters.
    fn order(sites: &[(f64, f64, i8)], from: (f64, f64)) -> String {
        let mut world = testing::world(&[], |_| {});
        let named = (b'a'..).zip(sites).map(|(letter, (lat, lon, bias))| Datacenter {
            name: char::from(letter).to_string(),
            location: Coordinates::new(*lat, *lon).unwrap(),
            bias: *bias,
            weight: 1,
            capacity: None,
        });
        world.datacenters = named.collect();
        world.policies[0].datacenters = (0..).take(sites.len()).collect();
        let from = Coordinates::new(from.0, from.1).unwrap();
        let place = Place { location: Some(from), ..Place::default() };
        let known = Known { network: None, by_network: &[], by_asn: &[], place, city: None };
        let (matched, list) = Orders::new(&world, &world.policies[0]).order_for(&known);
        assert_eq!(matched, Matched::Distance(from));
        list.datacenters.iter().map(|id| world.datacenter_name(*id)).collect()
    }

    #[test]
    fn the_nearest_is_found_across_the_antimeridian_and_at_the_poles() {
        // Fiji: Samoa lies over the line, Brisbane on this side.
        assert_eq!(order(&[(-27.5, 153.0, 0), (-13.8, -171.8, 0)], (-17.8, 178.0)), "ba");
        assert_eq!(order(&[(52.0, 160.0, 0), (55.0, -170.0, 0)], (53.0, 179.0)), "ba");
        // Over the north pole; on flat longitudes `a` would be 175 degrees away.
        assert_eq!(order(&[(85.0, 175.0, 0), (60.0, 0.0, 0)], (85.0, 0.0)), "ab");
        // At the pole itself every longitude is the same place: latitude alone decides.
        for longitude in [-180.0, -90.0, 0.0, 90.0, 180.0] {
            let sites = [(40.0, 0.0, 0), (60.0, 170.0, 0), (50.0, -100.0, 0)];
            assert_eq!(order(&sites, (90.0, longitude)), "bca", "{longitude}");
            assert_eq!(order(&sites, (-90.0, longitude)), "acb", "{longitude}");
        }
        // Both names of the antimeridian.
        for longitude in [-180.0, 180.0] {
            assert_eq!(order(&[(0.0, 160.0, 0), (0.0, -170.0, 0)], (0.0, longitude)), "ba");
        }
    }

    #[test]
    fn bias_moves_the_border_between_two_datacenters() {
        // 90 degrees apart on the equator: the border lies in the middle, and moves towards the one that counts less.
        let border = |bias: i8| {
            let is_a = |tenth: &u32| {
                let at = f64::from(*tenth) / 10.0;
                order(&[(0.0, 0.0, bias), (0.0, 90.0, 0)], (0.0, at)) == "ab"
            };
            f64::from((0..=900).rev().find(is_a).unwrap_or(0)) / 10.0
        };
        // Within 5 % of the border a draw decides.
        let near = |found: f64, wanted: f64| (found - wanted).abs() < 1.6;
        assert!(near(border(0), 45.0), "{}", border(0));
        assert!(near(border(50), 60.0), "{}", border(50));
        assert!(near(border(-50), 30.0), "{}", border(-50));
        let borders: Vec<f64> = [-99, -80, -50, -20, 0, 20, 50, 80, 99].map(border).to_vec();
        assert!(borders.is_sorted(), "{borders:?}");
        assert!(borders[8] > 85.0 && borders[0] < 5.0, "{borders:?}");
    }

    #[test]
    fn what_is_about_as_near_shares_the_places() {
        // 40 km apart, and 4 % of 3000 km: a draw by place. 60 km and 6 %: the nearer one.
        for (other, tied) in [(0.36, true), (0.8, false)] {
            let mut firsts = BTreeMap::new();
            for n in 0..200_u32 {
                let north = f64::from(n) / 1000.0;
                let list = order(&[(0.0, 0.0, 0), (0.0, other, 0)], (north, -1.0));
                *firsts.entry(list).or_insert(0) += 1;
            }
            let of = |list| firsts.get(list).copied().unwrap_or(0);
            assert_eq!(of("ab") + of("ba"), 200);
            assert_eq!((60..140).contains(&of("ba")), tied, "{firsts:?}");
            assert!(tied || of("ba") == 0);
        }
        // The bias scales what counts as near, too: two that are both very attractive are not all one.
        assert_eq!(order(&[(0.0, 0.0, 99), (0.0, 3.0, 99)], (0.0, -1.0)), "ab");
    }

    proptest! {
        /// Against a plain search: nobody who is clearly nearer comes later.
        #[test]
        fn lists_are_by_distance(
            sites in prop::collection::vec((-90.0..=90.0, -180.0..=180.0, -99..=99_i8), 1..7),
            lat in -90.0..=90.0, lon in -180.0..=180.0,
        ) {
            let list = order(&sites, (lat, lon));
            prop_assert_eq!(list.len(), sites.len());
            let from = Coordinates::new(lat, lon).unwrap();
            let stretched = |letter: u8| {
                let (lat, lon, bias) = sites[usize::from(letter - b'a')];
                let datacenter = Datacenter {
                    name: String::new(),
                    location: Coordinates::new(lat, lon).unwrap(),
                    bias,
                    weight: 1,
                    capacity: None,
                };
                (from.distance_km(datacenter.location) * datacenter.stretch(), datacenter.stretch())
            };
            for pair in list.as_bytes().windows(2) {
                let ((first, _), (second, stretch)) = (stretched(pair[0]), stretched(pair[1]));
                let near = second + (second * NEAR_SHARE).max(NEAR_KM * stretch) + 1e-6;
                prop_assert!(first <= near, "{list}: {first} before {second}");
            }
            prop_assert_eq!(list, order(&sites, (lat, lon)));
        }
    }
}
