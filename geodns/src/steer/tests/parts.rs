//! Datacenters that take a part of their clients: parts that nest, the farthest first, shares that hold, scopes that do
//! not notice.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use shared::geo::mmdb_writer::{CityRecord, Writer};
use shared::geo::{Database, World as Geography};

use super::*;
use crate::health::Intake;
use crate::snapshot::Tables;
use crate::world::{Shed, World};

/// Every /8 of IPv4 in a row around the Earth at 35 degrees north, the first at the antimeridian.
fn around_the_earth() -> Geography {
    let mut writer = Writer::new("Around-City");
    for block in 0..=255_u8 {
        let location = Some((35.0, longitude(block)));
        let record = CityRecord { country: "US", location, ..CityRecord::default() };
        writer.city(Prefix::containing(IpAddr::from([block, 0, 0, 0]), 8), &record);
    }
    let database = Database::from_bytes(writer.finish().unwrap(), "around.mmdb").unwrap();
    Geography::new([], &[database])
}

fn longitude(block: u8) -> f64 {
    f64::from(block) * 360.0 / 256.0 - 180.0
}

fn with_geography(world: World, geography: Geography) -> Snapshot {
    Snapshot::presumed_up(Tables::new(world, testing::zones(), geography))
}

fn with_intakes(snapshot: &Snapshot, intakes: [Intake; 3]) -> Snapshot {
    let facts = testing::down(&snapshot.tables.world, &[]);
    snapshot.with_health(Facts { intakes: vec![intakes.to_vec()], ..facts })
}

const ALL: Intake = Intake { returned: 1.0, shed: 0.0 };

fn returned(share: f64) -> Intake {
    Intake { returned: share, shed: 0.0 }
}

fn shed(share: f64) -> Intake {
    Intake { returned: 1.0, shed: share }
}

/// One network of each part of IPv4, a sample of those that are routable.
fn sample_v4() -> Vec<String> {
    let units = (0..65_536_u32).step_by(7).map(|unit| IpAddr::from((unit << 16).to_be_bytes()));
    let routable = units.filter(|at| !is_unroutable(*at));
    routable.map(|at| format!("{at}/24")).collect()
}

/// The same of IPv6, as far as it is allocated: what providers are given lies in blocks of /18 and more.
fn sample_v6() -> Vec<String> {
    let lives = crate::map::routable::population(&Geography::new([], &[]));
    let blocks = lives.v6.ranges().filter(|(_, _, lives)| **lives);
    let steps = blocks.flat_map(|(first, last, _)| {
        (0..).map(move |n| first + n * (1999 << 96)).take_while(move |at| *at <= last)
    });
    steps.map(|at| format!("{}/48", std::net::Ipv6Addr::from_bits(at))).collect()
}

/// Which of the clients a datacenter gets.
fn clients_of(snapshot: &Snapshot, clients: &[String], datacenter: u16) -> BTreeSet<String> {
    let is_its = |client: &&String| v4(snapshot, client).datacenter == Some(datacenter);
    clients.iter().filter(is_its).cloned().collect()
}

#[test]
fn who_returns_gets_growing_parts() {
    let world = testing::world(&[], |policy| policy.ramp = Duration::from_secs(600));
    let snapshot = testing::snapshot(world, &[]);
    for clients in [sample_v4(), sample_v6()] {
        let all = clients_of(&snapshot, &clients, ICN);
        assert!(all.len() > 400);
        let mut before = BTreeSet::new();
        for share in [0.0, 0.01, 0.2, 0.5, 0.9, 1.0] {
            let now = with_intakes(&snapshot, [returned(share), ALL, ALL]);
            let part = clients_of(&now, &clients, ICN);
            assert!(before.is_subset(&part), "{share}");
            let got = part.len() as f64 / all.len() as f64;
            assert!((got - share).abs() < 0.05, "{share}: {got}");
            before = part;
        }
        assert_eq!(before, all);
    }
    let now = with_intakes(&snapshot, [returned(0.0), ALL, ALL]);
    let got = v4(&now, "1.208.0.0/16");
    assert_eq!((got.datacenter, got.scope, got.reason), (Some(FRA), 16, Reason::Ramp));
    // When the next one is not up, the one after it; when there is none, who returns serves all the same.
    let facts = |down: &[u16]| {
        let facts = testing::down(&snapshot.tables.world, down);
        Facts { intakes: vec![vec![returned(0.0), ALL, ALL]], ..facts }
    };
    let now = snapshot.with_health(facts(&[2, 3]));
    assert_eq!(v4(&now, "1.208.0.0/16").datacenter, Some(IAD));
    let now = snapshot.with_health(facts(&[2, 3, 4, 5]));
    let got = v4(&now, "1.208.0.0/16");
    assert_eq!((got.datacenter, got.reason), (Some(ICN), Reason::FirstChoice));
    let got = v4(&now, "80.0.0.0/16");
    assert_eq!((got.datacenter, got.reason), (Some(ICN), Reason::Failover));
}

#[test]
fn who_has_too_much_load_sheds_the_farthest_first() {
    let world = testing::world(&[], |p| p.shed = Some(Shed { above: 0.8, resume: 0.6 }));
    let snapshot = with_geography(world, around_the_earth());
    let clients = sample_v4();
    let icn = snapshot.tables.world.datacenters[0].location;
    let distance = |client: &String| {
        let block = client.split('.').next().unwrap().parse().unwrap();
        icn.distance_km(shared::geo::Coordinates::new(35.0, longitude(block)).unwrap())
    };
    let all = clients_of(&snapshot, &clients, ICN);
    let mut before = all.clone();
    for share in [0.0, 0.05, 0.1, 0.3, 0.7, 1.0] {
        let now = with_intakes(&snapshot, [shed(share), ALL, ALL]);
        let kept = clients_of(&now, &clients, ICN);
        assert!(kept.is_subset(&before), "{share}");
        let got = 1.0 - kept.len() as f64 / all.len() as f64;
        assert!((got - share).abs() < 0.03, "{share}: {got}");
        let farthest_kept = kept.iter().map(distance).fold(0.0, f64::max);
        for given_up in all.difference(&kept) {
            // In one /8 all are equally far: a hash decides there.
            assert!(distance(given_up) >= farthest_kept - 1.0, "{share}: {given_up}");
            let got = v4(&now, given_up);
            assert_eq!(got.reason, Reason::Shed);
            assert_eq!(got.scope, v4(&snapshot, given_up).scope);
        }
        before = kept;
    }
    // When all shed all, the first choice serves: an intake empties no answer.
    let now = with_intakes(&snapshot, [shed(1.0); 3]);
    for client in &all {
        let got = v4(&now, client);
        assert_eq!((got.datacenter, got.reason), (Some(ICN), Reason::FirstChoice));
    }
}

#[test]
fn where_all_are_equally_far_a_hash_puts_them_in_order() {
    let world = testing::world(&[], |p| p.shed = Some(Shed { above: 0.8, resume: 0.6 }));
    let snapshot = testing::snapshot(world, &[]);
    for clients in [sample_v4(), sample_v6()] {
        let all = clients_of(&snapshot, &clients, ICN);
        let now = with_intakes(&snapshot, [shed(0.4), ALL, ALL]);
        let kept = clients_of(&now, &clients, ICN).len() as f64 / all.len() as f64;
        assert!((kept - 0.6).abs() < 0.05, "{kept}");
    }
}

/// Of all clients, the shares of the three datacenters.
fn shares(snapshot: &Snapshot, clients: &[String]) -> [f64; 3] {
    let mut counts = [0.0; 3];
    for client in clients {
        counts[usize::from(v4(snapshot, client).datacenter.unwrap())] += 1.0;
    }
    counts.map(|count| count / clients.len() as f64)
}

#[test]
fn nobody_gets_more_than_its_share_while_others_have_room() {
    for (most_icn, most_fra) in [(0.1, 1.0), (0.1, 0.2), (0.05, 0.35), (0.0, 0.1)] {
        let limited = |policy: &mut Policy| {
            policy.max_share = vec![(ICN, most_icn), (FRA, most_fra)];
        };
        for geography in [Geography::new([], &[]), around_the_earth()] {
            let free = with_geography(testing::world(&[], |_| {}), geography.clone());
            let snapshot = with_geography(testing::world(&[], limited), geography);
            for clients in [sample_v4(), sample_v6()] {
                let [icn, fra, _] = shares(&snapshot, &clients);
                assert!(icn <= most_icn + 0.02 && fra <= most_fra + 0.02, "{icn} {fra}");
                // What is not limited is as it was, and who has room is filled to it.
                let [free_icn, free_fra, _] = shares(&free, &clients);
                assert!(icn >= free_icn.min(most_icn) - 0.02, "{icn} of {free_icn}");
                assert!(fra >= free_fra.min(most_fra) - 0.02, "{fra} of {free_fra}");
                // Nor when one is down.
                let without_icn =
                    snapshot.with_health(testing::down(&snapshot.tables.world, &[0, 1]));
                let [icn, fra, _] = shares(&without_icn, &clients);
                assert!(icn == 0.0 && fra <= most_fra + 0.02, "{fra}");
            }
        }
    }
}

#[test]
fn the_nearest_stay_when_a_share_is_full() {
    let world = testing::world(&[], |policy| policy.max_share = vec![(FRA, 0.15)]);
    let snapshot = with_geography(world, around_the_earth());
    let clients = sample_v4();
    let fra = snapshot.tables.world.datacenters[1].location;
    let of_block = |client: &String| -> u8 { client.split('.').next().unwrap().parse().unwrap() };
    let distance = |client: &String| {
        fra.distance_km(shared::geo::Coordinates::new(35.0, longitude(of_block(client))).unwrap())
    };
    let kept = clients_of(&snapshot, &clients, FRA);
    let farthest = kept.iter().map(distance).fold(0.0, f64::max);
    let given_up: Vec<_> =
        clients.iter().filter(|c| v4(&snapshot, c).reason == Reason::MaxShare).collect();
    assert!(!given_up.is_empty());
    assert!(given_up.iter().all(|client| distance(client) >= farthest - 1.0));
}

/// Networks of which nobody knows where they are, such as the operator's own, are in no population.
#[test]
fn who_counts_for_no_share_stays() {
    let world = testing::world(&[], |policy| policy.max_share = vec![(IAD, 0.0)]);
    let snapshot = testing::snapshot(world, &[("10.0.0.0/8", "iad")]);
    for n in 0..100 {
        let got = v4(&snapshot, &format!("10.{n}.0.0/16"));
        assert_eq!((got.datacenter, got.scope, got.reason), (Some(IAD), 16, Reason::FirstChoice));
        assert_eq!(v4(&snapshot, &format!("12.{n}.0.0/16")).reason, Reason::MaxShare);
    }
}

fn state() -> impl Strategy<Value = ([(f64, f64); 3], Vec<u16>)> {
    let share = prop_oneof![Just(0.0), Just(1.0), Just(0.5), 0.0..=1.0];
    (prop::array::uniform3((share.clone(), share)), prop::collection::vec(0_u16..6, 0..6))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// The promise to resolvers' caches: whatever the state of health and intake, whoever is in the scope of an answer
    /// would have got the same datacenter; scopes are the same in all states, and disjoint.
    #[test]
    fn a_scope_is_true_for_all_in_it_in_every_state(
        networks in networks(),
        clients in prop::collection::vec((any::<u32>(), any::<u32>()), 1..12),
        caps in (0_u8..=32, 0_u8..=64),
        partial in (any::<bool>(), any::<bool>(), 0.0..=1.0),
        (order, pick) in (
            prop_oneof![Just(Order::Nearest), Just(Order::Listed), Just(Order::Weighted)],
            prop_oneof![Just(Pick::All), Just(Pick::HashClient)],
        ),
        states in prop::collection::vec(state(), 3),
    ) {
        let texts: Vec<_> = networks.iter().map(|(net, dc)| (net.to_string(), dc.clone())).collect();
        let texts: Vec<_> = texts.iter().map(|(net, dc)| (net.as_str(), dc.as_str())).collect();
        let up = testing::snapshot(testing::world(&[FRA], |policy| {
            (policy.ecs.max_v4, policy.ecs.max_v6) = caps;
            (policy.order, policy.pick) = (order, pick);
            policy.ramp = Duration::from_secs(u64::from(partial.0));
            policy.shed = partial.1.then_some(Shed { above: 0.5, resume: 0.4 });
            policy.max_share = vec![(ICN, partial.2)];
        }), &texts);
        let states: Vec<Snapshot> = states.iter().map(|(intakes, down)| {
            let intakes = intakes.map(|(returned, shed)| Intake { returned, shed });
            let facts = testing::down(&up.tables.world, down);
            up.with_health(Facts { intakes: vec![intakes.to_vec()], ..facts })
        }).collect();
        let mut seen: Vec<(Prefix, Vec<Option<u16>>)> = Vec::new();
        for (base, other) in clients {
            for is_v6 in [false, true] {
                let address = |bits: u32| match is_v6 {
                    // Crowded where the networks are, and in the blocks of providers.
                    false => IpAddr::from((0x1400_0000 | bits & 0x03ff_ffff).to_be_bytes()),
                    true => IpAddr::from((0x2a00_u128 << 112 | u128::from(bits) << 84).to_be_bytes()),
                };
                let cap = if is_v6 { caps.1 } else { caps.0 };
                let subnet = |at: IpAddr| Prefix::containing(at, if is_v6 { 64 } else { 32 }).to_string();
                let decided = |subnet: &str| -> Vec<(u8, Option<u16>)> {
                    let got = states.iter().map(|state| v4(state, subnet));
                    got.map(|got| (got.scope, got.datacenter)).collect()
                };
                let got = decided(&subnet(address(base)));
                let bits = got[0].0;
                prop_assert!(bits <= cap);
                prop_assert!(got.iter().all(|(scope, _)| *scope == bits), "{got:?}");
                let scope = Prefix::containing(address(base), bits);
                let datacenters: Vec<_> = got.iter().map(|(_, datacenter)| *datacenter).collect();
                // Another client in the scope.
                let inside = match (scope.network(), address(other)) {
                    (IpAddr::V4(net), IpAddr::V4(at)) => {
                        let host = u32::MAX.checked_shr(bits.into()).unwrap_or(0);
                        IpAddr::from((net.to_bits() | at.to_bits() & host).to_be_bytes())
                    }
                    (IpAddr::V6(net), IpAddr::V6(at)) => {
                        let host = u128::MAX.checked_shr(bits.into()).unwrap_or(0);
                        IpAddr::from((net.to_bits() | at.to_bits() & host).to_be_bytes())
                    }
                    _ => continue,
                };
                if !is_unroutable(inside) && bits > 0 {
                    prop_assert_eq!(&decided(&subnet(inside)), &got, "{} in {}", inside, scope);
                }
                for (known, known_datacenters) in &seen {
                    if scope == *known {
                        prop_assert_eq!(&datacenters, known_datacenters);
                    } else {
                        prop_assert!(!scope.covers(*known) && !known.covers(scope), "{} {}", scope, known);
                    }
                }
                seen.push((scope, datacenters));
            }
        }
    }
}
