//! Simulated rounds of results.

use shared::config::CheckKind;
use shared::health::Thresholds;

use super::*;
use crate::config::Asked;
use crate::world::Edge;

fn monitor(edges: u16) -> (Monitor, World) {
    let mut world = World { checks: vec!["c".to_owned()], ..World::default() };
    for n in 0..edges {
        let name = format!("e{n}");
        world.edges.push(Edge { name, datacenter: n, addresses: Vec::new(), weight: 1 });
    }
    let asked = |edge| Asked { edge, address: "127.0.0.1:1".parse().unwrap(), token_file: None };
    let check = Check {
        name: "c".to_owned(),
        kind: CheckKind::Report,
        host: None,
        path: String::new(),
        status: Vec::new(),
        interval: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        thresholds: Thresholds { down_after: 3, up_after: 2 },
        hold_down: Duration::from_secs(300),
        min_days: 0,
        ca_file: None,
        targets: (0..edges).map(asked).collect(),
    };
    let mut monitor = Monitor::default();
    monitor.configure(&world, &[check], None, UnixMillis(1));
    (monitor, world)
}

fn key(n: usize) -> TargetKey {
    ("c".to_owned(), format!("e{n}"))
}

/// One round of results at `secs`: `+` good, `-` bad.
fn round(monitor: &mut Monitor, results: &str, secs: u64) {
    for (n, result) in results.chars().enumerate() {
        let probed = if result == '+' { Probed::good() } else { Probed::bad("refused") };
        monitor.record(&key(n), probed, UnixMillis::from_secs(secs));
    }
}

fn seen(monitor: &Monitor, world: &World, trust: Trust, secs: u64) -> String {
    let states = monitor.observed(world, trust, UnixMillis::from_secs(secs));
    let usable = |seen: &Option<Observed>| seen.as_ref().unwrap().state.is_usable();
    states[0].iter().map(|seen| if usable(seen) { '+' } else { '-' }).collect()
}

fn believed(monitor: &Monitor, world: &World) -> String {
    seen(monitor, world, Trust::Believed, 0)
}

fn soonest(monitor: &Monitor, world: &World, secs: u64) -> Vec<u64> {
    let seen = monitor.observed(world, Trust::Believed, UnixMillis::from_secs(secs));
    seen[0].iter().flatten().map(|seen| seen.soonest_change.as_secs()).collect()
}

#[test]
fn a_third_that_dies_is_believed() {
    let (mut monitor, world) = monitor(6);
    round(&mut monitor, "++++++", 0);
    assert!(monitor.first_round_is_done());
    for secs in [2, 4, 6] {
        round(&mut monitor, "++--++", secs);
    }
    assert_eq!(believed(&monitor, &world), "++--++");
    assert_eq!(monitor.suspicion(), None);
}

#[test]
fn when_most_turn_bad_at_once_the_last_good_state_stands_until_it_clears() {
    let (mut monitor, world) = monitor(6);
    round(&mut monitor, "++++++", 0);
    for secs in [2, 4, 6] {
        round(&mut monitor, "------", secs);
    }
    assert_eq!(believed(&monitor, &world), "++++++");
    assert_eq!(monitor.suspicion().map(|s| s.of), Some(6));
    for secs in [8, 10, 12, 14, 16] {
        assert_eq!(believed(&monitor, &world), "++++++", "at {secs}");
        round(&mut monitor, "++++--", secs);
    }
    assert_eq!(monitor.suspicion(), None, "most are back for a round");
    assert_eq!(believed(&monitor, &world), "++++--");
}

#[test]
fn a_datacenter_with_most_of_the_edges_can_die() {
    let (mut monitor, world) = monitor(4);
    for (n, target) in monitor.targets.values_mut().enumerate() {
        target.datacenter = u16::from(n == 3);
    }
    round(&mut monitor, "++++", 0);
    for secs in [2, 4, 6] {
        round(&mut monitor, "---+", secs);
    }
    assert_eq!((monitor.suspicion(), believed(&monitor, &world)), (None, "---+".to_owned()));
}

#[test]
fn a_suspicion_does_not_bring_back_who_died_before() {
    let (mut monitor, world) = monitor(3);
    round(&mut monitor, "+++", 0);
    for secs in [2, 4, 6] {
        round(&mut monitor, "-++", secs);
    }
    for secs in [100, 102, 104] {
        round(&mut monitor, "---", secs);
    }
    assert!(monitor.suspicion().is_some());
    assert_eq!(believed(&monitor, &world), "-++");
}

#[test]
fn a_suspicion_does_not_stand_for_ever() {
    let (mut monitor, world) = monitor(4);
    round(&mut monitor, "++++", 0);
    for secs in [2, 4, 6] {
        round(&mut monitor, "---+", secs);
    }
    assert_eq!(believed(&monitor, &world), "++++");
    assert!(monitor.tick(UnixMillis::from_secs(70)).is_visible);
    assert_eq!(believed(&monitor, &world), "---+");
    round(&mut monitor, "---+", 71);
    assert_eq!(monitor.suspicion(), None);
}

#[test]
fn what_was_never_up_raises_no_suspicion() {
    let (mut monitor, world) = monitor(3);
    round(&mut monitor, "---", 0);
    assert_eq!(monitor.suspicion(), None);
    assert_eq!(believed(&monitor, &world), "---");
}

#[test]
fn the_soonest_change_is_told() {
    let (mut monitor, world) = monitor(2);
    assert_eq!(soonest(&monitor, &world, 0), [0, 0], "the first result counts at once");
    round(&mut monitor, "++", 0);
    assert_eq!(soonest(&monitor, &world, 0), [4, 4], "two more after the next");
    round(&mut monitor, "+-", 2);
    assert_eq!(soonest(&monitor, &world, 2), [4, 0], "between states");
    for secs in [4, 6] {
        round(&mut monitor, "+-", secs);
    }
    assert_eq!(soonest(&monitor, &world, 6), [4, 2], "one more after the next");
}

#[test]
fn failures_far_apart_are_no_event() {
    let (mut monitor, world) = monitor(3);
    round(&mut monitor, "+++", 0);
    for secs in [2, 4, 6] {
        round(&mut monitor, "-++", secs);
    }
    for secs in [100, 102, 104] {
        round(&mut monitor, "--+", secs);
    }
    assert_eq!((monitor.suspicion(), believed(&monitor, &world)), (None, "--+".to_owned()));
}

/// Two of three die at once: at first that is taken for a fault of ours; when the third goes on to answer, it is not.
#[test]
fn a_witness_elsewhere_proves_that_we_can_see() {
    for (own, all, after, believed_then) in [
        (Some(1), "+++", "+--", true),
        (Some(0), "+++", "+--", false),
        (None, "+++", "+--", false),
        (None, "+++++", "++---", true),
    ] {
        let (mut monitor, world) = monitor(all.len() as u16);
        monitor.own = own;
        round(&mut monitor, all, 1);
        for secs in [3, 5, 7, 9, 11] {
            round(&mut monitor, after, secs);
            assert_eq!(believed(&monitor, &world), all, "{own:?} at {secs}");
        }
        assert!(monitor.suspicion().is_some(), "{own:?}");
        round(&mut monitor, after, 13);
        let then = if believed_then { after } else { all };
        assert_eq!(believed(&monitor, &world), then, "{own:?} {all}");
    }
}

#[test]
fn a_target_that_flaps_is_held_down_and_comes_back_by_itself() {
    let (mut monitor, world) = monitor(3);
    round(&mut monitor, "+++", 0);
    let mut now = 0;
    for (fall, held) in [(1, 0), (2, 6), (3, 12)] {
        for _ in 0..3 {
            now += 2;
            round(&mut monitor, "-++", now);
        }
        assert_eq!(seen(&monitor, &world, Trust::Seen, now), "-++", "fall {fall}");
        let until = now + held;
        assert_eq!(
            monitor.targets(UnixMillis::from_secs(now)).next().unwrap().held_until,
            (held > 0).then(|| UnixMillis::from_secs(until))
        );
        for _ in 0..2 {
            now += 2;
            round(&mut monitor, "+++", now);
        }
        if held > 4 {
            assert_eq!(seen(&monitor, &world, Trust::Seen, now), "-++", "its checks are good");
            assert_eq!(soonest(&monitor, &world, now), [until - now, 4, 4]);
            assert!(!monitor.tick(UnixMillis::from_secs(until - 1)).is_visible);
            let change = monitor.tick(UnixMillis::from_secs(until));
            assert_eq!(change.states, [(key(0), State::Up)]);
            now = until;
        }
        assert_eq!(seen(&monitor, &world, Trust::Seen, now), "+++", "fall {fall}");
    }
}

/// This machine loses its way out twice in a minute. Nobody is held down for that when it sees again.
#[test]
fn a_fall_that_was_never_believed_costs_nothing() {
    let (mut monitor, world) = monitor(4);
    round(&mut monitor, "++++", 0);
    for start in [2, 12, 22] {
        for secs in [start, start + 2, start + 4] {
            round(&mut monitor, "----", secs);
        }
        assert!(monitor.suspicion().is_some());
        for secs in [start + 6, start + 8] {
            round(&mut monitor, "++++", secs);
        }
        assert_eq!(seen(&monitor, &world, Trust::Seen, start + 8), "++++");
        assert_eq!(monitor.suspicion(), None);
    }
}

/// Two of three come back one after the other, as probes do: none of them is seen down on the way.
#[test]
fn those_that_follow_are_waited_for_when_most_are_back() {
    let (mut monitor, world) = monitor(3);
    monitor.own = Some(0);
    round(&mut monitor, "+++", 1);
    for secs in [3, 5, 7, 15] {
        round(&mut monitor, "+--", secs);
    }
    assert_eq!(believed(&monitor, &world), "+++");
    round(&mut monitor, "++-", 17);
    round(&mut monitor, "++-", 19);
    assert_eq!(seen(&monitor, &world, Trust::Seen, 19), "++-");
    assert_eq!(believed(&monitor, &world), "+++", "who came back is no witness");
    // For a round, not longer.
    let mut later = monitor.clone();
    for secs in [21, 23, 25, 27] {
        round(&mut later, "++-", secs);
    }
    assert_eq!((later.suspicion(), believed(&later, &world)), (None, "++-".to_owned()));
    for secs in [20, 22] {
        round(&mut monitor, "+++", secs);
        assert_eq!(believed(&monitor, &world), "+++");
    }
    assert_eq!(monitor.suspicion(), None);
}

#[test]
fn a_report_tells_of_draining_and_grows_old() {
    let (mut monitor, world) = monitor(2);
    let at = UnixMillis::from_secs;
    let probed = |state, load| Probed {
        report: Some(Arc::new(Report { state, load, ..Report::default() })),
        ..Probed::default()
    };
    let draining = |monitor: &Monitor, secs| -> Vec<bool> {
        let seen = monitor.observed(&world, Trust::Believed, at(secs));
        seen[0].iter().map(|seen| seen.as_ref().unwrap().draining).collect()
    };
    use shared::report::State::{Draining, Serving};
    for n in 0..2 {
        monitor.record(&key(n), probed(Serving, 0.5), at(1));
    }
    assert!(monitor.tick(at(1)).is_visible, "first reports");
    assert!(!monitor.record(&key(0), probed(Serving, 0.505), at(3)).is_visible);
    assert!(!monitor.tick(at(3)).is_visible, "half a percent");
    monitor.record(&key(0), probed(Serving, 0.511), at(4));
    assert!(monitor.tick(at(4)).is_visible, "more than one, in two steps");
    assert!(monitor.record(&key(0), probed(Draining, 0.5), at(5)).is_visible);
    assert_eq!(draining(&monitor, 5), [true, false]);
    assert_eq!(seen(&monitor, &world, Trust::Believed, 5), "++", "it is not down");
    assert_eq!(monitor.reports(&world, at(7)).iter().flatten().count(), 2);
    assert_eq!(monitor.reports(&world, at(8)).iter().flatten().count(), 1, "older than 6 s");
    assert_eq!(draining(&monitor, 12), [false, false]);
    monitor.tick(at(12));
    assert!(monitor.record(&key(0), probed(Draining, 0.5), at(13)).is_visible);
    for secs in [14, 15, 16] {
        monitor.record(&key(0), Probed::bad("cut"), at(secs));
    }
    assert_eq!(draining(&monitor, 16), [false, false], "who is down drains no more");
}

#[test]
fn the_last_run_is_believed_while_it_is_young() {
    let (mut before, world) = monitor(3);
    round(&mut before, "+++", 10);
    for secs in [12, 14, 16] {
        round(&mut before, "-++", secs);
    }
    let beliefs = before.beliefs();
    assert_eq!(beliefs.len(), 3);
    for (secs, restored) in [(17, 3), (76, 3), (77, 0)] {
        let (mut after, _) = monitor(3);
        assert_eq!(after.restore(&beliefs, UnixMillis::from_secs(secs)), restored, "at {secs}");
        assert_eq!(after.first_round_is_done(), restored > 0);
        let expected = if restored > 0 { "-++" } else { "+++" };
        assert_eq!(seen(&after, &world, Trust::Believed, secs), expected);
    }
    // What it has not asked yet it tells the run after it, as old as it was.
    let (mut after, _) = monitor(3);
    after.restore(&beliefs, UnixMillis::from_secs(60));
    assert_eq!(after.beliefs(), beliefs);
    // It goes on as if it had never stopped: thresholds count, and so does a fault of this machine.
    let (mut after, _) = monitor(3);
    after.restore(&beliefs, UnixMillis::from_secs(20));
    round(&mut after, "+--", 21);
    assert_eq!(believed(&after, &world), "-++");
    for secs in [23, 25] {
        round(&mut after, "---", secs);
    }
    assert!(after.suspicion().is_some());
    assert_eq!(believed(&after, &world), "-++");
    assert_eq!(seen(&after, &world, Trust::Seen, 25), "---");
}

#[test]
fn what_a_suspicion_holds_up_is_told_to_the_next_run_as_it_was() {
    let (mut before, _) = monitor(3);
    round(&mut before, "+++", 10);
    for secs in [12, 14, 16] {
        round(&mut before, "---", secs);
    }
    assert!(before.suspicion().is_some());
    assert!(before.beliefs().iter().all(|belief| belief.state == State::Up));
}
