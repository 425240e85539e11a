//! Decisions by example, and the promises: disjoint scopes, stable under health, never an empty answer by health.

mod parts;
mod worlds;

use proptest::prelude::*;
use shared::prefix::Prefix;

use super::*;
use crate::edns::{Edns, subnet_option};
use crate::health::{Facts, Mode};
use crate::snapshot::Snapshot;
use crate::testing::{self, FRA, IAD, ICN, IN_ASIA, IN_EUROPE};
use crate::world::{Rule, RuleBy};

/// What a client gets: datacenter, addresses of edges, scope, reason.
#[derive(Debug, PartialEq, Eq)]
struct Got {
    datacenter: Option<u16>,
    edges: Vec<u16>,
    ttl: u32,
    scope: u8,
    reason: Reason,
}

fn ask(snapshot: &Snapshot, client: &str, subnet: Option<&str>, family: Family, draw: u64) -> Got {
    let option =
        subnet.map(|net| subnet_option(net.parse::<Prefix>().unwrap())).unwrap_or_default();
    let subnet = Edns::parse(1232, 0, &option).unwrap().subnet;
    let (policy, map) = snapshot.tables.policy(0).unwrap();
    let client = client.parse().unwrap();
    let asked = Asked { client, subnet, family, name: 99, draw };
    let decision = decide((0, policy), map, &snapshot.health, &asked, |_, _| {});
    Got {
        datacenter: decision.datacenter,
        edges: decision.targets().map(|target| target.edge).collect(),
        ttl: decision.ttl,
        scope: decision.scope_bits,
        reason: decision.reason,
    }
}

fn v4(snapshot: &Snapshot, subnet: &str) -> Got {
    ask(snapshot, "192.0.2.1", Some(subnet), Family::V4, 0)
}

fn default() -> Snapshot {
    testing::snapshot(testing::world(&[FRA], |_| {}), &[])
}

#[test]
fn clients_go_to_the_nearest() {
    let snapshot = default();
    for (client, datacenter) in
        [(IN_ASIA, ICN), (IN_EUROPE, FRA), ("8.0.0.0", IAD), ("177.0.0.0", IAD), ("41.0.0.0", FRA)]
    {
        let got = ask(&snapshot, client, None, Family::V4, 0);
        assert_eq!(got.datacenter, Some(datacenter), "{client}");
        assert_eq!((got.scope, got.reason), (0, Reason::FirstChoice));
        assert_eq!(got.edges.len(), 2);
    }
}

/// The table of RFC 7871 scopes: default, a /8 and a /16 inside of it.
#[test]
fn scopes_are_the_shortest_that_are_true_rfc_7871_section_7_2_1() {
    let world = testing::world(&[], |policy| policy.order = Order::Listed);
    let snapshot = testing::snapshot(world, &[("20.0.0.0/8", "fra"), ("20.1.0.0/16", "iad")]);
    for (subnet, scope, datacenter) in [
        ("20.1.2.0/24", 16, IAD),
        ("20.2.0.0/16", 15, FRA),
        ("20.128.0.0/16", 9, FRA),
        ("20.0.0.0/8", 16, FRA),
        ("172.16.0.0/12", 0, ICN),
        ("172.32.0.0/16", 1, ICN),
        ("0.0.0.0/0", 0, ICN),
    ] {
        let got = v4(&snapshot, subnet);
        assert_eq!((got.scope, got.datacenter), (scope, Some(datacenter)), "{subnet}");
    }
}

/// A network that says what its surroundings say is no border between scopes.
#[test]
fn networks_that_change_nothing_are_merged_rfc_7871_section_7_2_1() {
    let world = testing::world(&[], |policy| policy.order = Order::Listed);
    let snapshot = testing::snapshot(world, &[("20.0.0.0/8", "icn"), ("21.1.0.0/16", "iad")]);
    assert_eq!(v4(&snapshot, "20.1.2.0/24").scope, 8);
    let world = testing::world(&[], |policy| policy.order = Order::Listed);
    let snapshot = testing::snapshot(world, &[("20.0.0.0/8", "icn"), ("192.64.0.0/10", "icn")]);
    assert_eq!(v4(&snapshot, "20.1.2.0/24").scope, 0);
    // All of 192.88.99.0/24 and 192.168.0.0/16 is named: nobody is passed over there.
    assert_eq!(v4(&snapshot, "192.89.1.0/24").scope, 0);
}

#[test]
fn scopes_are_capped_by_policy() {
    let world = testing::world(&[], |policy| {
        policy.order = Order::Listed;
        policy.ecs.max_v4 = 16;
    });
    let snapshot = testing::snapshot(world, &[("20.1.2.0/24", "fra"), ("20.2.0.0/25", "iad")]);
    assert_eq!(v4(&snapshot, "20.1.2.0/24").scope, 16);
    assert_eq!(
        v4(&snapshot, "20.1.2.0/24").datacenter,
        Some(ICN),
        "the /16's first address decides"
    );
    assert_eq!(v4(&snapshot, "20.2.99.0/24").datacenter, Some(IAD));
    // Without a subnet nobody caches by network: the map is used as fine as it is.
    assert_eq!(ask(&snapshot, "20.1.2.3", None, Family::V4, 0).datacenter, Some(FRA));
}

#[test]
fn a_client_subnet_that_says_nothing_is_passed_over() {
    let world = testing::world(&[FRA], |_| {});
    let snapshot = testing::snapshot(world, &[("10.1.0.0/16", "icn")]);
    for subnet in
        ["0.0.0.0/0", "10.2.0.0/16", "127.0.0.0/8", "192.168.0.0/16", "100.64.0.0/16", "fe80::/16"]
    {
        let got = ask(&snapshot, IN_EUROPE, Some(subnet), Family::V4, 0);
        assert_eq!((got.datacenter, got.scope), (Some(FRA), 0), "{subnet}");
    }
    // What the operator wrote down means something.
    let got = ask(&snapshot, IN_EUROPE, Some("10.1.2.0/24"), Family::V4, 0);
    assert_eq!((got.datacenter, got.scope), (Some(ICN), 16));
}

#[test]
fn client_subnets_can_be_left_unused() {
    let snapshot = testing::snapshot(testing::world(&[], |policy| policy.ecs.enabled = false), &[]);
    let got = ask(&snapshot, IN_EUROPE, Some("1.208.0.0/16"), Family::V4, 0);
    assert_eq!((got.datacenter, got.scope), (Some(FRA), 0));
}

#[test]
fn ipv4_is_seen_through_ipv6() {
    let snapshot = default();
    for client in
        ["::ffff:1.208.0.1", "2002:1d0:1::1", "64:ff9b::1.208.0.1", "2001:0:0:0:0:0:fe2f:fffe"]
    {
        assert_eq!(ask(&snapshot, client, None, Family::V4, 0).datacenter, Some(ICN), "{client}");
    }
    let got = ask(&snapshot, IN_EUROPE, Some("2002:1d0::/32"), Family::V4, 0);
    assert_eq!((got.datacenter, got.scope), (Some(ICN), 23), "0.0.0.0/7 under 2002::/16");
}

#[test]
fn rules_put_datacenters_first_and_leave_the_others_after() {
    let rule = |networks: &[&str], to: &[u16]| Rule {
        networks: networks.iter().map(|n| n.parse().unwrap()).collect(),
        to: to.to_vec(),
        ..Rule::default()
    };
    let world = testing::world(&[], |policy| {
        policy.rules = vec![
            rule(&["20.1.0.0/16"], &[IAD]),
            rule(&["20.0.0.0/8"], &[FRA, ICN]),
            Rule { continents: vec!["AS".parse().unwrap()], to: vec![IAD], ..Rule::default() },
        ];
    });
    let snapshot = testing::snapshot(world, &[("20.1.1.0/24", "icn")]);
    let list = |address: &str| {
        let (_, map) = snapshot.tables.policy(0).unwrap();
        let table = map.table(Whose::Resolver);
        table.lookup(address.parse().unwrap(), 255).0.unwrap().datacenters.to_vec()
    };
    assert_eq!(list("20.1.1.1"), [ICN, IAD, FRA], "networks before rules");
    assert_eq!(list("20.1.2.1"), [IAD, FRA, ICN], "the first rule that matches");
    assert_eq!(list("20.2.0.1"), [FRA, ICN, IAD]);
    assert_eq!(list(IN_ASIA), [ICN, FRA, IAD], "a registry's region is no continent");
}

/// A resolver in Seoul that serves German clients: `[geo] resolvers` for queries without a subnet, `by` for rules.
#[test]
fn resolvers_and_client_subnets_are_treated_apart() {
    let resolver = "1.208.0.53";
    let rule = |by, to| Rule {
        networks: vec!["20.0.0.0/8".parse().unwrap()],
        by,
        to: vec![to],
        ..Rule::default()
    };
    let world = testing::world(&[], |policy| {
        policy.rules = vec![rule(RuleBy::Subnet, FRA), rule(RuleBy::Resolver, IAD)];
    });
    let geography =
        shared::geo::World::new([("1.208.0.0/16".parse().unwrap(), "iad".to_owned())], &[])
            .with_resolvers([("1.208.0.53/32".parse().unwrap(), "fra".to_owned())]);
    let tables = crate::snapshot::Tables::new(world, testing::zones(), geography);
    let snapshot = Snapshot::presumed_up(tables);
    let of = |client: &str, subnet| {
        let got = ask(&snapshot, client, subnet, Family::V4, 0);
        (got.datacenter.unwrap(), got.scope)
    };
    assert_eq!(of(resolver, None), (FRA, 0), "`resolvers` come before `networks`");
    assert_eq!(of("1.208.0.54", None), (IAD, 0), "`networks` hold for resolvers, too");
    assert_eq!(of(resolver, Some("1.208.0.0/24")), (IAD, 16), "a client's subnet is no resolver");
    assert_eq!(of(IN_EUROPE, Some("20.1.0.0/24")), (FRA, 8), "by = subnet");
    assert_eq!(of("20.1.0.1", None), (IAD, 0), "by = resolver");
    // What tells nothing of the client leaves the decision to the resolver's table.
    assert_eq!(of(resolver, Some("0.0.0.0/0")), (FRA, 0));
    assert_eq!(of(resolver, Some("192.168.1.0/24")), (FRA, 0));
    // One table where nothing differs.
    let (_, map) = default().tables.policy(0).map(|(p, m)| (p.clone(), m.clone())).unwrap();
    assert!(std::ptr::eq(map.table(Whose::Subnet), map.table(Whose::Resolver)));
}

#[test]
fn a_family_falls_through_to_the_next_that_has_it() {
    let snapshot = default();
    let got = ask(&snapshot, IN_ASIA, None, Family::V6, 0);
    assert_eq!((got.datacenter, got.reason), (Some(FRA), Reason::OtherFamily));
    let none = testing::snapshot(testing::world(&[], |_| {}), &[]);
    let got = ask(&none, IN_ASIA, Some("80.0.0.0/16"), Family::V6, 0);
    assert_eq!((got.datacenter, got.scope, got.reason), (None, 0, Reason::NoFamily));
}

#[test]
fn health_selects_within_the_list() {
    let all = default();
    let world = &all.tables.world;
    let one_edge = all.with_health(testing::down(world, &[0]));
    let got = v4(&one_edge, "1.208.0.0/16");
    assert_eq!((got.datacenter, got.edges, got.reason), (Some(ICN), vec![1], Reason::FirstChoice));
    let whole = all.with_health(testing::down(world, &[0, 1]));
    let got = v4(&whole, "1.208.0.0/16");
    assert_eq!((got.datacenter, got.reason), (Some(FRA), Reason::Failover));
}

#[test]
fn a_datacenter_with_too_few_edges_counts_as_down() {
    let all = testing::snapshot(testing::world(&[], |policy| policy.min_up = 0.8), &[]);
    let got = v4(&all.with_health(testing::down(&all.tables.world, &[0])), "1.208.0.0/16");
    assert_eq!((got.datacenter, got.reason), (Some(FRA), Reason::Failover));
}

#[test]
fn the_operator_drains_and_forces() {
    let all = default();
    let world = &all.tables.world;
    let set = |datacenters: [Mode; 3], edges_down: &[u16]| {
        let facts = testing::down(world, edges_down);
        v4(&all.with_health(Facts { datacenters: datacenters.to_vec(), ..facts }), "1.208.0.0/16")
    };
    assert_eq!(set([Mode::Drain, Mode::Auto, Mode::Auto], &[]).datacenter, Some(FRA));
    assert_eq!(set([Mode::Down, Mode::Drain, Mode::Auto], &[]).datacenter, Some(IAD));
    let forced = set([Mode::Up, Mode::Auto, Mode::Auto], &[0, 1]);
    assert_eq!((forced.datacenter, forced.edges.len()), (Some(ICN), 2));
    let all_drained = set([Mode::Drain; 3], &[]);
    assert_eq!((all_drained.datacenter, all_drained.reason), (Some(ICN), Reason::LastGood));
}

#[test]
fn when_all_are_down_the_policy_says_what_is_answered() {
    let every = [0, 1, 2, 3, 4, 5];
    for (all_down, datacenter, reason) in [
        (AllDown::LastGood, Some(IAD), Reason::LastGood),
        (AllDown::All, Some(ICN), Reason::AllDown),
        (AllDown::Fallback(FRA), Some(FRA), Reason::Fallback),
        (AllDown::NoData, None, Reason::DownNoData),
        (AllDown::ServFail, None, Reason::DownServFail),
    ] {
        let all = testing::snapshot(testing::world(&[], |policy| policy.all_down = all_down), &[]);
        let world = &all.tables.world;
        // Asia and Europe fail first: the last good answer is Virginia's.
        let before = all.with_health(testing::down(world, &[0, 1, 2, 3]));
        let down = before.with_health(testing::down(world, &every));
        let down = down.with_health(testing::down(world, &every));
        let got = v4(&down, "1.208.0.0/16");
        assert_eq!((got.datacenter, got.reason), (datacenter, reason));
        assert_eq!(got.edges.is_empty(), datacenter.is_none());
        let back = down.with_health(testing::down(world, &[]));
        assert_eq!(v4(&back, "1.208.0.0/16").reason, Reason::FirstChoice);
    }
}

/// At a start with everything down, the edge that is asked last must not get all clients for being unknown the longest.
#[test]
fn what_was_never_asked_is_no_last_good_answer() {
    let all = default();
    let world = &all.tables.world;
    let mut facts = Facts::unknown(world);
    let mut snapshot = all.with_health(facts.clone());
    for (id, seen) in testing::down(world, &[0, 1, 2, 3, 4, 5]).observed[0].iter().enumerate() {
        facts.observed[0][id].clone_from(seen);
        snapshot = snapshot.with_health(facts.clone());
    }
    for (client, datacenter) in
        [("1.208.0.0/16", ICN), ("80.128.0.0/16", FRA), ("12.0.0.0/16", IAD)]
    {
        let got = v4(&snapshot, client);
        assert_eq!((got.datacenter, got.reason), (Some(datacenter), Reason::LastGood));
        assert_eq!(got.edges.len(), 2);
    }
}

#[test]
fn the_ttl_ends_no_later_than_health_could_change() {
    let all = default();
    let world = &all.tables.world;
    let ttl = |soonest: u64| {
        let mut facts = testing::down(world, &[]);
        for seen in facts.observed[0].iter_mut().flatten() {
            seen.soonest_change = std::time::Duration::from_secs(soonest);
        }
        v4(&all.with_health(facts), "1.208.0.0/16").ttl
    };
    assert_eq!([ttl(0), ttl(20), ttl(999)], [5, 20, 60]);
    assert_eq!(v4(&all, "1.208.0.0/16").ttl, 60, "nothing is checked");
}

#[test]
fn weighted_order_is_stable_for_a_network_and_follows_weights() {
    let mut world = testing::world(&[], |policy| policy.order = Order::Weighted);
    world.datacenters[0].weight = 3;
    world.datacenters[2].weight = 0;
    let snapshot = testing::snapshot(world, &[]);
    let mut counts = [0_u32; 3];
    for n in 0..2000_u32 {
        let subnet = format!("{}.{}.0.0/24", 20 + n / 200, n % 200);
        let got = v4(&snapshot, &subnet);
        assert_eq!(got.scope, 24);
        let same = ask(&snapshot, IN_ASIA, Some(&subnet), Family::V4, 77);
        assert_eq!(same.datacenter, got.datacenter);
        counts[usize::from(got.datacenter.unwrap())] += 1;
    }
    assert_eq!(counts[2], 0);
    assert!((400..600).contains(&counts[1]), "{counts:?}");
}

#[test]
fn hash_client_is_stable_within_its_scope() {
    let world = testing::world(&[], |policy| {
        (policy.pick, policy.answers) = (Pick::HashClient, 1);
    });
    let snapshot = testing::snapshot(world, &[]);
    let mut seen = [0; 2];
    for n in 0..100 {
        let first = v4(&snapshot, &format!("1.208.{n}.0/24"));
        let second = ask(&snapshot, IN_ASIA, Some(&format!("1.208.{n}.128/25")), Family::V4, 3);
        assert_eq!((first.scope, &first.edges), (24, &second.edges));
        seen[usize::from(first.edges[0])] += 1;
    }
    assert!(seen[0] > 20 && seen[1] > 20, "{seen:?}");
}

/// Two edges, one of which has three times the other's load: with `bounded_load` 1.25 it keeps what makes that 5/4 of the
/// mean. Names choose, then clients; scopes stay.
#[test]
fn an_edge_with_too_much_load_gives_keys_up() {
    for by in [Pick::HashName, Pick::HashClient] {
        let world = testing::world(&[], |policy| (policy.pick, policy.answers) = (by, 1));
        let all = testing::snapshot(world, &[]);
        let with_loads = |loads: [Option<f64>; 2]| {
            let mut facts = testing::down(&all.tables.world, &[]);
            for (report, load) in facts.reports.iter_mut().zip(loads) {
                let report_of = |load| shared::report::Report { load, ..Default::default() };
                *report = load.map(|load| std::sync::Arc::new(report_of(load)));
            }
            all.with_health(facts)
        };
        let edges = |snapshot: &Snapshot| -> Vec<(u16, u8)> {
            let asked = |n: u32| {
                let subnet = format!("1.{}.{}.0/24", 208 + n / 256, n % 256);
                let option = subnet_option(subnet.parse::<Prefix>().unwrap());
                let subnet = Edns::parse(1232, 0, &option).unwrap().subnet;
                let (policy, map) = snapshot.tables.policy(0).unwrap();
                let client = IN_ASIA.parse().unwrap();
                let name = u64::from(n) * 0x9e37_79b9;
                let asked = Asked { client, subnet, family: Family::V4, name, draw: 0 };
                let decision = decide((0, policy), map, &snapshot.health, &asked, |_, _| {});
                (decision.targets().next().unwrap().edge, decision.scope_bits)
            };
            (0..2000).map(asked).collect()
        };
        let usual = edges(&all);
        let share =
            |got: &[(u16, u8)]| got.iter().filter(|(edge, _)| *edge == 0).count() as f64 / 2000.0;
        assert!((share(&usual) - 0.5).abs() < 0.05);
        for unmoved in
            [[None, None], [Some(0.9), None], [Some(0.5), Some(0.4)], [Some(0.09), Some(0.0)]]
        {
            assert_eq!(edges(&with_loads(unmoved)), usual, "{unmoved:?}");
        }
        // Mean 0.6, bound 0.75: of 0.9 five sixths stay.
        let bounded = edges(&with_loads([Some(0.9), Some(0.3)]));
        assert!((share(&bounded) - 0.5 * 0.75 / 0.9).abs() < 0.03, "{}", share(&bounded));
        for (now, before) in bounded.iter().zip(&usual) {
            assert!(
                now == before || (now.0, before.0) == (1, 0),
                "only keys of the loaded one move"
            );
            assert_eq!(now.1, before.1, "scopes do not move");
        }
    }
}

fn networks() -> impl Strategy<Value = Vec<(Prefix, String)>> {
    let network = (any::<[u8; 3]>(), 6_u8..=30, prop_oneof!["icn", "fra", "iad"]).prop_map(
        |([a, b, c], bits, datacenter)| {
            // Crowded, so that networks nest and touch.
            let address = IpAddr::from([20 + a % 4, b % 4, c, 0]);
            (Prefix::containing(address, bits), datacenter)
        },
    );
    prop::collection::vec(network, 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// RFC 7871 §7.2.1: the scopes of any two answers are the same network or do not overlap; two clients in one scope
    /// get the same datacenter; and no state of health changes a scope.
    #[test]
    fn scopes_are_disjoint_and_independent_of_health(
        networks in networks(),
        clients in prop::collection::vec((20_u8..24, 0_u8..4, any::<u8>()), 2..20),
        max in 8_u8..=32,
        down in prop::collection::vec(0_u16..6, 0..6),
    ) {
        let texts: Vec<_> = networks.iter().map(|(net, dc)| (net.to_string(), dc.clone())).collect();
        let texts: Vec<_> = texts.iter().map(|(net, dc)| (net.as_str(), dc.as_str())).collect();
        let up = testing::snapshot(testing::world(&[], |policy| policy.ecs.max_v4 = max), &texts);
        let ill = up.with_health(testing::down(&up.tables.world, &down));
        let mut seen: Vec<(Prefix, Option<u16>)> = Vec::new();
        for (a, b, c) in clients {
            let subnet = format!("{a}.{b}.{c}.0/24");
            let got = v4(&up, &subnet);
            prop_assert!(got.scope <= max);
            prop_assert_eq!(got.scope, v4(&ill, &subnet).scope);
            let scope = Prefix::containing(IpAddr::from([a, b, c, 0]), got.scope);
            for (other, datacenter) in &seen {
                if scope == *other {
                    prop_assert_eq!(*datacenter, got.datacenter);
                } else {
                    prop_assert!(!scope.covers(*other) && !other.covers(scope), "{} {}", scope, other);
                }
            }
            seen.push((scope, got.datacenter));
        }
    }
}
