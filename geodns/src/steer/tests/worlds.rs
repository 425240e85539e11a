//! Small worlds, enumerated: three datacenters in every state, with every combination of families, orders, weights, intakes
//! and policies for the worst. Health alone never empties an answer and never moves a scope.

use std::time::Duration;

use super::*;
use crate::health::Intake;
use crate::snapshot::Tables;
use crate::world::Shed;

const ALL_DOWN: [AllDown; 5] =
    [AllDown::LastGood, AllDown::All, AllDown::NoData, AllDown::ServFail, AllDown::Fallback(IAD)];

/// By datacenter: which families its edges have.
const FAMILIES: [[(bool, bool); 3]; 7] = [
    [(true, true), (true, true), (true, true)],
    [(true, false), (true, true), (true, false)],
    [(true, false), (false, true), (true, true)],
    [(true, false), (true, false), (true, false)],
    [(false, true), (false, true), (true, false)],
    [(false, false), (true, false), (false, true)],
    [(false, false), (false, false), (false, false)],
];

const ORDERS: [(Order, [u32; 3]); 6] = [
    (Order::Nearest, [1, 1, 1]),
    (Order::Listed, [1, 1, 1]),
    (Order::Weighted, [1, 2, 3]),
    (Order::Weighted, [0, 1, 1]),
    (Order::Weighted, [0, 0, 1]),
    (Order::Weighted, [0, 0, 0]),
];

const CLIENTS: [&str; 4] = ["1.208.0.0/16", "80.0.0.0/16", "20.1.2.0/24", "2600::/32"];

fn intakes() -> [[Intake; 3]; 4] {
    let of = |returned, shed| Intake { returned, shed };
    [
        [of(1.0, 0.0); 3],
        [of(0.0, 0.0), of(1.0, 0.0), of(1.0, 1.0)],
        [of(0.5, 0.5), of(0.2, 0.0), of(1.0, 0.9)],
        [of(0.0, 1.0); 3],
    ]
}

/// Of a datacenter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Up,
    Down,
    Draining,
    ForcedDown,
    ForcedUp,
}

const STATES: [State; 5] =
    [State::Up, State::Down, State::Draining, State::ForcedDown, State::ForcedUp];

fn facts(snapshot: &Snapshot, states: [State; 3], intakes: [Intake; 3]) -> Facts {
    let down = [ICN, FRA, IAD].into_iter().zip(states).flat_map(|(id, state)| match state {
        State::Down | State::ForcedUp => vec![2 * id, 2 * id + 1],
        _ => Vec::new(),
    });
    let mode = |state| match state {
        State::Up | State::Down => Mode::Auto,
        State::Draining => Mode::Drain,
        State::ForcedDown => Mode::Down,
        State::ForcedUp => Mode::Up,
    };
    Facts {
        datacenters: states.map(mode).to_vec(),
        intakes: vec![intakes.to_vec()],
        ..testing::down(&snapshot.tables.world, &down.collect::<Vec<_>>())
    }
}

fn every_state() -> impl Iterator<Item = [State; 3]> {
    let pairs = STATES.into_iter().flat_map(|a| STATES.map(|b| (a, b)));
    pairs.flat_map(|(a, b)| STATES.map(|c| [a, b, c]))
}

fn snapshot(
    families: [(bool, bool); 3],
    (order, weights): (Order, [u32; 3]),
    all_down: AllDown,
    partial: bool,
) -> Snapshot {
    let mut world = testing::world(&[ICN, FRA, IAD], |policy| {
        (policy.order, policy.all_down) = (order, all_down);
        if partial {
            policy.ramp = Duration::from_secs(60);
            policy.shed = Some(Shed { above: 0.8, resume: 0.5 });
            if order != Order::Weighted {
                policy.max_share = vec![(FRA, 0.1)];
            }
        }
    });
    for (datacenter, weight) in world.datacenters.iter_mut().zip(weights) {
        datacenter.weight = weight;
    }
    for edge in &mut world.edges {
        let (v4, v6) = families[usize::from(edge.datacenter)];
        edge.addresses.retain(|address| if address.is_ipv4() { v4 } else { v6 });
    }
    let networks = [("20.1.0.0/16".parse().unwrap(), "fra".to_owned())];
    let geography = shared::geo::World::new(networks, &[]);
    Snapshot::presumed_up(Tables::new(world, testing::zones(), geography))
}

fn check(snapshot: &Snapshot, families: [(bool, bool); 3], all_down: AllDown, intake: [Intake; 3]) {
    for states in every_state() {
        let now = snapshot.with_health(facts(snapshot, states, intake));
        for family in Family::ALL {
            let has = |id: usize| match family {
                Family::V4 => families[id].0,
                Family::V6 => families[id].1,
            };
            let is_up = |id: usize| has(id) && matches!(states[id], State::Up | State::ForcedUp);
            let (any, any_up) = ((0..3).any(has), (0..3).any(is_up));
            for client in CLIENTS {
                let got = ask(&now, IN_ASIA, Some(client), family, 5);
                let told =
                    format!("{states:?} {families:?} {all_down:?} {family:?} {client} {got:?}");
                let nothing = match all_down {
                    _ if !any => Some(Reason::NoFamily),
                    AllDown::NoData if !any_up => Some(Reason::DownNoData),
                    AllDown::ServFail if !any_up => Some(Reason::DownServFail),
                    _ => None,
                };
                if let Some(reason) = nothing {
                    // For every client alike, and for all addresses (RFC 7871 §7.4).
                    assert_eq!(
                        (got.datacenter, got.scope, got.reason),
                        (None, 0, reason),
                        "{told}"
                    );
                    assert!(got.edges.is_empty(), "{told}");
                    continue;
                }
                let datacenter = usize::from(got.datacenter.unwrap_or_else(|| panic!("{told}")));
                assert!(!got.edges.is_empty() && has(datacenter), "{told}");
                assert!((5..=60).contains(&got.ttl), "{told}");
                let usual = ask(snapshot, IN_ASIA, Some(client), family, 5).scope;
                assert_eq!(got.scope, usual, "{told}");
                let is_substitute =
                    matches!(got.reason, Reason::LastGood | Reason::AllDown | Reason::Fallback);
                assert_eq!(is_substitute, !any_up, "{told}");
                assert!(is_substitute || is_up(datacenter), "{told}");
                if all_down == AllDown::Fallback(IAD) && !any_up && has(usize::from(IAD)) {
                    assert_eq!(got.datacenter, Some(IAD), "{told}");
                }
            }
        }
    }
}

#[test]
fn no_state_of_health_empties_an_answer_or_moves_a_scope() {
    for families in FAMILIES {
        for all_down in ALL_DOWN {
            for order in ORDERS {
                let snapshot = snapshot(families, order, all_down, false);
                check(&snapshot, families, all_down, intakes()[0]);
            }
        }
    }
}

#[test]
fn no_part_empties_an_answer_or_moves_a_scope() {
    for families in [FAMILIES[0], FAMILIES[2]] {
        for all_down in [AllDown::LastGood, AllDown::NoData] {
            for order in [ORDERS[0], ORDERS[1], ORDERS[2]] {
                let snapshot = snapshot(families, order, all_down, true);
                for intake in intakes() {
                    check(&snapshot, families, all_down, intake);
                }
            }
        }
    }
}

/// A weight of 0 is for when no other is left.
#[test]
fn weights_hold_among_those_that_are_up() {
    let snapshot = snapshot(FAMILIES[0], (Order::Weighted, [0, 1, 3]), AllDown::LastGood, false);
    for states in every_state() {
        let now = snapshot.with_health(facts(&snapshot, states, intakes()[0]));
        let is_up = |id: u16| matches!(states[usize::from(id)], State::Up | State::ForcedUp);
        let mut counts = [0.0; 3];
        for n in 0..400_u32 {
            let client = format!("{}.{}.0.0/24", 60 + n / 200, n % 200);
            let (got, usual) = (v4(&now, &client), v4(&snapshot, &client));
            assert_eq!(got.scope, usual.scope);
            // Who fails moves only its own clients.
            if usual.datacenter.is_some_and(is_up) {
                assert_eq!(got.datacenter, usual.datacenter, "{states:?} {client}");
            }
            counts[usize::from(got.datacenter.unwrap())] += 1.0;
        }
        if is_up(FRA) || is_up(IAD) {
            assert_eq!(counts[0], 0.0, "{states:?} {counts:?}");
        }
        if is_up(FRA) && is_up(IAD) {
            assert!((70.0..130.0).contains(&counts[1]), "{states:?} {counts:?}");
        } else if is_up(ICN) && !is_up(FRA) && !is_up(IAD) {
            assert_eq!(counts[0], 400.0);
        }
    }
}
