//! Rehearsals account for everybody, and foretell what the decision then does.

use proptest::prelude::*;

use super::population::Fineness;
use super::report::{Report, Source, Traffic};
use super::*;
use crate::testing::{self, FRA, IAD, ICN};
use crate::world::{AllDown, Policy};

const COARSE: Fineness = Fineness { pieces: 1 << 9, most: 1 << 12 };

fn rehearse(before: &Snapshot, change: &Change, traffic: &Traffic) -> Report {
    let after = change.apply(before, Zones::default).unwrap();
    let mut rehearsal = Rehearsal::new(before, &after);
    rehearsal.add_population(COARSE);
    rehearsal.report(change.describe(), None, traffic)
}

fn down(names: &[&str]) -> Change {
    Change { down: names.iter().map(|name| (*name).to_owned()).collect(), ..Change::default() }
}

fn world(change: impl Fn(&mut Policy)) -> Snapshot {
    testing::snapshot(testing::world(&[ICN, FRA, IAD], change), &[("100.64.0.0/10", "icn")])
}

/// A datacenter's share before and after, of IPv4 clients.
fn share(report: &Report, name: &str) -> (f64, f64) {
    let shares = &report.splits[0].datacenters;
    let found = shares.iter().find(|share| share.datacenter.as_deref() == Some(name));
    found.map_or((0.0, 0.0), |share| (share.before, share.after))
}

#[test]
fn a_datacenter_that_goes_down_sends_its_clients_to_the_next_nearest() {
    let before = world(|_| {});
    let report = rehearse(&before, &down(&["icn"]), &Traffic::Unknown);
    assert_eq!(report.changes, ["icn down"]);
    let families: Vec<_> = report.splits.iter().map(|split| split.family.as_str()).collect();
    assert_eq!(families, ["IPv4", "IPv6"]);
    let (was, is) = share(&report, "icn");
    assert!(was > 0.1 && is == 0.0, "{was} {is}");
    for split in &report.splits {
        let icn = split.datacenters.iter().find(|s| s.datacenter.as_deref() == Some("icn"));
        assert!((split.moved - icn.unwrap().before).abs() < 1e-9, "{split:?}");
        assert!(split.moves.iter().all(|moved| moved.from.as_deref() == Some("icn")));
    }
    // Each region goes whole in the built-in geography: Asia's nearest is Frankfurt then.
    assert!(share(&report, "fra").1 > share(&report, "fra").0);
    let text = report.to_string();
    for part in ["what if: icn down", "policy web: IPv4 clients", "icn -> fra: "] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let received: Report = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
    assert_eq!(received.to_string(), text);
}

#[test]
fn weights_move_as_many_as_they_say_and_no_more() {
    let before = world(|policy| policy.order = Order::Weighted);
    let change = Change { weights: vec![("fra".to_owned(), 2)], ..Change::default() };
    let report = rehearse(&before, &change, &Traffic::Unknown);
    let (was, is) = share(&report, "fra");
    assert!((was - 1.0 / 3.0).abs() < 0.03 && (is - 0.5).abs() < 0.03, "{was} {is}");
    // Who moves, moves to Frankfurt.
    assert!((report.splits[0].moved - (is - was)).abs() < 1e-9);
    let nearest = world(|_| {});
    assert_eq!(rehearse(&nearest, &change, &Traffic::Unknown).splits[0].moved, 0.0);
    assert_eq!(change.idle_parts(&nearest.tables.world).len(), 1);
    assert!(change.idle_parts(&before.tables.world).is_empty());
}

#[test]
fn loads_follow_the_clients_and_capacity_is_told() {
    let mut all = testing::world(&[], |_| {});
    all.datacenters[usize::from(FRA)].capacity = Some(10_000_000_000);
    let before = testing::snapshot(all, &[]);
    let report = rehearse(&before, &down(&["icn"]), &Traffic::Total(12e9));
    let sums = report.loads.iter().fold((0.0, 0.0), |sum, l| (sum.0 + l.before, sum.1 + l.after));
    assert!((sums.0 - 12e9).abs() < 1.0 && (sums.1 - 12e9).abs() < 1.0, "{sums:?}");
    let now = [("icn", 8e9), ("fra", 7e9), ("iad", 1e9)];
    let now = now.map(|(name, load)| (name.to_owned(), load)).into();
    let report = rehearse(&before, &down(&["icn"]), &Traffic::Now(now));
    let fra = &report.loads[usize::from(FRA)];
    assert_eq!((fra.before, report.loads[usize::from(ICN)].after), (7e9, 0.0));
    let text = report.to_string();
    assert!(report.over_capacity == ["fra"] && text.contains("OVER CAPACITY: fra"), "{text}");
    assert!(text.contains("10.0 Gbps"), "{text}");
}

#[test]
fn another_configuration_is_compared_by_names() {
    let before = world(|_| {});
    // The same datacenters in another order, one new, one gone.
    let mut other = testing::world(&[], |policy| policy.name = "new".to_owned());
    other.datacenters[usize::from(IAD)].name = "lax".to_owned();
    other.datacenters.swap(usize::from(ICN), usize::from(FRA));
    other.policies.push(Policy { name: "web".to_owned(), ..other.policies[0].clone() });
    let after = testing::snapshot(other, &[]);
    let mut rehearsal = Rehearsal::new(&before, &after);
    rehearsal.add_population(COARSE);
    let report = rehearsal.report(Vec::new(), None, &Traffic::Unknown);
    let names: Vec<_> =
        report.splits.iter().map(|s| (s.policy.as_str(), s.policy_after.as_deref())).collect();
    assert!(names.contains(&("web", None)) && names.contains(&("", Some("new"))), "{names:?}");
    let web = report.splits.iter().find(|split| split.policy == "web").unwrap();
    let of = |name| web.datacenters.iter().find(|s| s.datacenter.as_deref() == Some(name)).unwrap();
    assert_eq!(of("lax").before, 0.0);
    assert_eq!(of("iad").after, 0.0);
    assert!(of("lax").after > 0.0 && of("iad").before > 0.0);
}

#[test]
fn health_is_carried_over_by_names() {
    let before = world(|_| {});
    let mut facts = testing::down(&before.tables.world, &[0, 1]);
    facts.datacenters[usize::from(IAD)] = Mode::Drain;
    facts.edges[3] = Mode::Down;
    let mut other = before.tables.world.clone();
    other.datacenters.rotate_left(1);
    other.edges.rotate_left(1);
    let carried = facts_for(&other, &before.tables.world, &facts);
    assert_eq!(carried.datacenters, [Mode::Auto, Mode::Drain, Mode::Auto]);
    let edge = usize::from(other.edge_id("icn-1").unwrap());
    assert_eq!(carried.observed[0][edge], facts.observed[0][0]);
    assert_eq!(carried.edges[2], Mode::Down);
    other.checks[0] = "another".to_owned();
    other.edges.truncate(1);
    let carried = facts_for(&other, &before.tables.world, &facts);
    assert_eq!((carried.observed[0].clone(), carried.edges.len()), (vec![None], 1));
}

#[test]
fn a_log_is_answered_as_a_server_would() {
    // IPv4 alone: who asks for AAAA gets no address and brings no traffic.
    let before = testing::snapshot(testing::world(&[], |_| {}), &[]);
    let after = down(&["icn", "icn"]).apply(&before, || before.tables.zones.clone()).unwrap();
    let mut rehearsal = Rehearsal::new(&before, &after);
    for (name, rtype, client, subnet) in [
        ("www.cdn.test.", "A", "192.0.2.1:5300", Some("1.208.0.0/24")),
        ("a.img.CDN.test.", "A", "1.208.0.1:5300", None),
        ("www.cdn.test.", "A", "[2a00::1]:53", Some("80.0.0.0/16")),
        ("www.cdn.test.", "A", "[2a00::1]:53", None),
        ("www.cdn.test.", "AAAA", "[2a00::1]:53", None),
        ("static.cdn.test.", "A", "1.208.0.1:5300", None),
        ("www.cdn.test.", "TXT", "1.208.0.1:5300", None),
        ("www.example.", "A", "1.208.0.1:5300", None),
        // The alias is told alone, then the steered name is asked for.
        ("alias.cdn.test.", "A", "192.0.2.1:5300", Some("1.208.0.0/24")),
    ] {
        let subnet = subnet.map(|net| format!(r#","subnet":"{net}""#)).unwrap_or_default();
        let line = format!(r#"{{"client":"{client}","name":"{name}","type":"{rtype}"{subnet}}}"#);
        rehearsal.add_query(&log::parse(line.as_bytes()).unwrap().unwrap());
    }
    let report = rehearsal.report(Vec::new(), Some(3), &Traffic::Total(8e9));
    assert_eq!(report.asked, Source::Log { queries: 5, not_steered: 4, unreadable: 3 });
    let tried: Vec<_> = report.splits.iter().map(|split| split.tried).collect();
    assert_eq!(tried, [3, 2]);
    assert_eq!(share(&report, "icn"), (2.0 / 3.0, 0.0));
    let fra = &report.loads[usize::from(FRA)];
    assert_eq!((fra.before, fra.after), (4e9, 8e9));
    assert!(report.to_string().contains("3 lines of the log could not be read"));
}

#[test]
fn changes_that_make_no_sense_are_refused() {
    let before = world(|_| {});
    let refused = |change: Change| change.apply(&before, Zones::default).unwrap_err();
    let nope = refused(down(&["nope"]));
    assert!(nope.contains("`nope`") && nope.contains("icn, fra, iad"), "{nope}");
    let twice = refused(Change { drain: vec!["icn".to_owned()], ..down(&["icn"]) });
    assert!(twice.contains("two states"), "{twice}");
    refused(Change { weights: vec![("nope".to_owned(), 1)], ..Change::default() });
    assert_eq!(parse_weight("fra=3"), Ok(("fra".to_owned(), 3)));
    assert_eq!(parse_weight("fra:0"), Ok(("fra".to_owned(), 0)));
    for text in ["", "fra", "fra=", "=3", "fra=-1", "fra=1.5"] {
        assert!(parse_weight(text).unwrap_err().contains("fra=3"), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Shares add up; nobody moves when nothing changes; who is down gets nobody, unless all are.
    #[test]
    fn a_rehearsal_accounts_for_everybody(
        order in prop_oneof![Just(Order::Nearest), Just(Order::Listed), Just(Order::Weighted)],
        all_down in prop_oneof![
            Just(AllDown::LastGood), Just(AllDown::All), Just(AllDown::NoData),
            Just(AllDown::ServFail), Just(AllDown::Fallback(FRA)),
        ],
        edges_down in proptest::collection::vec(0_u16..6, 0..4),
        downs in 0_u8..8,
        weights in proptest::collection::vec(0_u32..4, 3),
    ) {
        let mut all = testing::world(&[FRA], |policy| {
            policy.order = order;
            policy.all_down = all_down;
        });
        for (datacenter, weight) in all.datacenters.iter_mut().zip(&weights) {
            datacenter.weight = *weight;
        }
        let fresh = testing::snapshot(all, &[("1.208.0.0/16", "iad")]);
        let before = fresh.with_health(testing::down(&fresh.tables.world, &edges_down));
        let nothing = rehearse(&before, &Change::default(), &Traffic::Unknown);
        let names: Vec<&str> =
            (0..3).filter(|n| downs & 1 << n != 0).map(|n| ["icn", "fra", "iad"][n]).collect();
        let report = rehearse(&before, &down(&names), &Traffic::Unknown);
        for split in nothing.splits.iter().chain(&report.splits) {
            let sums = split.datacenters.iter().fold((0.0, 0.0), |sum, share| {
                (sum.0 + share.before, sum.1 + share.after)
            });
            prop_assert!((sums.0 - 1.0).abs() < 1e-9 && (sums.1 - 1.0).abs() < 1e-9, "{:?}", split);
            let moves: f64 = split.moves.iter().map(|moved| moved.share).sum();
            prop_assert!((moves - split.moved).abs() < 1e-9);
        }
        for split in &nothing.splits {
            prop_assert!(split.moved == 0.0 && split.moves.is_empty());
        }
        let still_up = (0..3_u16).any(|dc| {
            downs & 1 << dc == 0 && !(edges_down.contains(&(dc * 2)) && edges_down.contains(&(dc * 2 + 1)))
        });
        if still_up {
            for name in &names {
                prop_assert_eq!(share(&report, name).1, 0.0);
            }
        }
    }
}
