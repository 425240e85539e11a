//! How much of the map new databases move, so that a broken or swapped file is noticed before it sends clients around the
//! world.
//!
//! Only what databases say is measured: a policy that the operator changed, and networks that are on the operator's own
//! map, before or after, are deliberate.

use std::collections::BTreeMap;
use std::fmt;

use shared::geo::World as Geography;
use shared::prefix::{Address, IpRangeMap, RangeMap};

use super::partial::{addresses, networks_of_48};
use super::routable::population;
use super::{Table, Whose};
use crate::snapshot::Tables;
use crate::world::{DatacenterId, Family, Policy, World};

/// What moves in one policy, for the clients of one family.
#[derive(Clone, Debug, PartialEq)]
pub struct Moved {
    /// The policy.
    pub policy: String,
    /// Of the clients' networks.
    pub family: Family,
    /// The share of their address space whose first datacenter is another one, 0 to 1.
    pub share: f64,
    /// From where to where, with the share; the largest first.
    pub flows: Vec<(String, String, f64)>,
}

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.family == Family::V4 { "IPv4" } else { "IPv6" };
        let (policy, share) = (&self.policy, self.share * 100.0);
        write!(f, "{share:.1} % of the {family} clients of steering policy `{policy}` (")?;
        for (index, (from, to, share)) in self.flows.iter().take(3).enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{:.1} % from {from} to {to}", share * 100.0)?;
        }
        f.write_str(if self.flows.len() > 3 { ", …)" } else { ")" })
    }
}

/// What new databases move, by policy and family: those of which anything does.
pub fn moved(before: &Tables, after: &Tables) -> Vec<Moved> {
    let mut found = Vec::new();
    let counts = counts(&before.geography, &after.geography);
    for (id, policy) in (0..).zip(&after.world.policies) {
        let same = (0..).zip(&before.world.policies).find(|(_, old)| old.name == policy.name);
        let Some((old_id, old)) = same else { continue };
        if !steers_alike((&before.world, old), (&after.world, policy)) {
            continue;
        }
        if let (Some((_, old_map)), Some((_, new_map))) = (before.policy(old_id), after.policy(id))
        {
            let old = (before, old_map.table(Whose::Subnet));
            let new = (after, new_map.table(Whose::Subnet));
            found.extend(compare(policy, old, new, &counts));
        }
    }
    found
}

/// Whether the operator's part of where clients go is the same in both.
fn steers_alike(before: (&World, &Policy), after: (&World, &Policy)) -> bool {
    type Site<'w> = (&'w str, shared::geo::Coordinates, i8, u32);
    fn sites<'w>((world, policy): (&'w World, &Policy)) -> Vec<Option<Site<'w>>> {
        let datacenter = |id: &DatacenterId| world.datacenters.get(usize::from(*id));
        let site =
            |id| datacenter(id).map(|dc| (dc.name.as_str(), dc.location, dc.bias, dc.weight));
        policy.datacenters.iter().map(site).collect()
    }
    let (old, new) = (before.1, after.1);
    let rules = |a: (&World, &Policy), b: (&World, &Policy)| {
        a.1.rules.len() == b.1.rules.len()
            && a.1.rules.iter().zip(&b.1.rules).all(|(x, y)| {
                let names = |world: &World, to: &[DatacenterId]| -> Vec<String> {
                    to.iter().map(|id| world.datacenter_name(*id).to_owned()).collect()
                };
                x.has_same_conditions(y) && names(a.0, &x.to) == names(b.0, &y.to)
            })
    };
    old.order == new.order && sites(before) == sites(after) && rules(before, after)
}

/// The networks that are measured: those that either knows, and that are on the operator's map in neither.
fn counts(old: &Geography, new: &Geography) -> IpRangeMap<bool> {
    let measured = |geography: &Geography| {
        let networks = &geography.networks;
        population(geography).overlay(networks, |lives, network| (*lives, network.is_some()))
    };
    measured(old).overlay(&measured(new), |old, new| (old.0 || new.0) && !old.1 && !new.1)
}

fn compare(
    policy: &Policy,
    old: (&Tables, &Table),
    new: (&Tables, &Table),
    counts: &IpRangeMap<bool>,
) -> Vec<Moved> {
    let first = |(tables, table): (&Tables, &Table)| {
        table
            .firsts(policy.order)
            .map(|id| id.map(|id| tables.world.datacenter_name(id).to_owned()))
    };
    let pairs: IpRangeMap<Option<(Option<String>, Option<String>)>> = first(old)
        .overlay(&first(new), |old, new| (old.clone(), new.clone()))
        .overlay(counts, |pair, counts| counts.then(|| pair.clone()));
    let of = |family, (share, flows): (f64, Vec<_>)| Moved {
        policy: policy.name.clone(),
        family,
        share,
        flows,
    };
    [of(Family::V4, flows(&pairs.v4, addresses)), of(Family::V6, flows(&pairs.v6, networks_of_48))]
        .into_iter()
        .filter(|moved| moved.share > 0.0)
        .collect()
}

type Pair = (Option<String>, Option<String>);

/// The share that moves, and where.
fn flows<A: Address>(
    pairs: &RangeMap<A, Option<Pair>>,
    size: impl Fn(A, A) -> f64,
) -> (f64, Vec<(String, String, f64)>) {
    let mut total = 0.0;
    let mut flows: BTreeMap<(&str, &str), f64> = BTreeMap::new();
    for (first, last, pair) in pairs.ranges() {
        let Some((from, to)) = pair else { continue };
        let weight = size(first, last);
        total += weight;
        if let (Some(from), Some(to)) = (from, to)
            && from != to
        {
            *flows.entry((from, to)).or_insert(0.0) += weight;
        }
    }
    let mut flows: Vec<(String, String, f64)> = flows
        .into_iter()
        .map(|((from, to), weight)| (from.to_owned(), to.to_owned(), weight / total))
        .collect();
    flows.sort_by(|a, b| b.2.total_cmp(&a.2));
    (flows.iter().map(|flow| flow.2).sum(), flows)
}

#[cfg(test)]
mod tests {
    use shared::geo::Database;
    use shared::geo::mmdb_writer::{CityRecord, Writer};

    use super::*;
    use crate::testing;
    use crate::world::Order;

    const SEOUL: (f64, f64) = (37.57, 126.98);
    const PARIS: (f64, f64) = (48.86, 2.35);

    /// Places of networks, the operator's networks, and what else is different.
    fn tables(
        places: &[(&str, (f64, f64))],
        networks: &[(&str, &str)],
        change: impl Fn(&mut World),
    ) -> Tables {
        let mut writer = Writer::new("Test-City");
        for (network, location) in places {
            let location = Some(*location);
            let record = CityRecord { country: "US", location, ..CityRecord::default() };
            writer.city(network.parse().unwrap(), &record);
        }
        let database = Database::from_bytes(writer.finish().unwrap(), "t.mmdb").unwrap();
        let networks = networks.iter().map(|(net, dc)| (net.parse().unwrap(), (*dc).to_owned()));
        let mut world = testing::world(&[], |_| {});
        change(&mut world);
        Tables::new(world, testing::zones(), Geography::new(networks, &[database]))
    }

    fn share(before: &Tables, after: &Tables) -> [f64; 2] {
        let moved = moved(before, after);
        Family::ALL.map(|family| {
            moved.iter().find(|moved| moved.family == family).map_or(0.0, |moved| moved.share)
        })
    }

    const ASIA: [(&str, (f64, f64)); 2] = [("0.0.0.0/0", SEOUL), ("::/0", SEOUL)];

    #[test]
    fn what_moves_is_measured_by_clients() {
        let all = tables(&ASIA, &[], |_| {});
        assert_eq!(share(&all, &all), [0.0, 0.0]);
        // An eighth of the numbers, a little more of the clients: much of the rest is nobody's.
        let eighth = tables(&[ASIA[0], ASIA[1], ("64.0.0.0/3", PARIS)], &[], |_| {});
        let [v4, v6] = share(&all, &eighth);
        assert!((0.14..0.15).contains(&v4) && v6 == 0.0, "{v4} {v6}");
        // What is nobody's does not count.
        let nobody = tables(&[ASIA[0], ASIA[1], ("10.0.0.0/8", PARIS)], &[], |_| {});
        assert_eq!(share(&all, &nobody), [0.0, 0.0]);
        let swapped = tables(&[("0.0.0.0/0", SEOUL), ("::/0", PARIS)], &[], |_| {});
        assert!(share(&all, &swapped)[1] > 0.999);
        let told: Vec<String> = moved(&all, &swapped).iter().map(Moved::to_string).collect();
        let expected =
            "100.0 % of the IPv6 clients of steering policy `web` (100.0 % from icn to fra)";
        assert_eq!(told, [expected]);
    }

    #[test]
    fn what_the_operator_changed_is_deliberate() {
        let all = tables(&ASIA, &[], |_| {});
        let other = [("0.0.0.0/0", PARIS), ("::/0", PARIS)];
        for change in [
            (|world| world.policies[0].order = Order::Listed) as fn(&mut World),
            |world| world.policies[0].datacenters = vec![1, 2],
            |world| world.datacenters[0].bias = 10,
            |world| world.policies[0].name = "new".to_owned(),
            |world| {
                world.policies[0].rules = vec![crate::world::Rule {
                    countries: vec!["KR".parse().unwrap()],
                    to: vec![1],
                    ..Default::default()
                }];
            },
        ] {
            assert_eq!(share(&all, &tables(&other, &[], change)), [0.0, 0.0]);
        }
        // Edges and thresholds steer nobody to another place.
        let still = tables(&other, &[], |world| {
            world.edges.pop();
            world.policies[0].min_up = 1.0;
        });
        assert!(share(&all, &still)[0] > 0.999);
        // The operator's networks stand aside: here they are all of IPv4.
        let given = tables(&ASIA, &[("0.0.0.0/0", "iad")], |_| {});
        assert_eq!(share(&all, &given), [0.0, 0.0]);
        assert_eq!(share(&given, &all), [0.0, 0.0]);
    }

    #[test]
    fn ids_may_change_while_names_stay() {
        let all = tables(&ASIA, &[], |_| {});
        let one_more = tables(&ASIA, &[], |world| {
            let first = world.datacenters[0].clone();
            world.datacenters.insert(0, crate::world::Datacenter { name: "ams".into(), ..first });
            for id in &mut world.policies[0].datacenters {
                *id += 1;
            }
        });
        assert_eq!(share(&all, &one_more), [0.0, 0.0]);
    }
}
