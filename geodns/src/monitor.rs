//! What is believed of all targets: results of probes in, what [`crate::health`] needs out.
//!
//! Owns no timer and no socket; the time it is given never goes back. Also suspects itself: when most of everything
//! turns bad at once, it is more likely that this machine cannot see than that all have died, so what was believed
//! before stands for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use shared::health::{Health, State};
use shared::time::UnixMillis;

use crate::config::Check;
use crate::health::Observed;
use crate::world::{DatacenterId, World};

/// Which probe: the check's name and the edge's. Names outlive a reload, ids do not.
pub type TargetKey = (String, String);

/// All targets.
#[derive(Clone, Debug, Default)]
pub struct Monitor {
    targets: BTreeMap<TargetKey, Target>,
    suspicion: Option<Suspicion>,
    /// How long two failures may lie apart and still be one event.
    round: Duration,
    /// How long a suspicion stands.
    patience: Duration,
}

#[derive(Clone, Debug)]
struct Target {
    datacenter: DatacenterId,
    health: Health,
    interval: Duration,
    results: u64,
    failure: Option<Arc<str>>,
    since: UnixMillis,
    went_down: Option<UnixMillis>,
}

/// Why the last good state stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspicion {
    /// Since when.
    pub since: UnixMillis,
    /// Until when, unless it clears up before.
    pub until: UnixMillis,
    /// How many targets turned bad at once.
    pub bad: usize,
    /// Of how many.
    pub of: usize,
}

/// What one result changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The state of the target, if it changed.
    pub state: Option<State>,
    /// Whether views must be made anew: a state, a nearness of a change, or a suspicion is another.
    pub is_visible: bool,
}

impl Monitor {
    /// Goes on with the targets of a new configuration; those that stay keep what is known of them.
    pub fn configure(&mut self, world: &World, checks: &[Check], now: UnixMillis) {
        let mut before = std::mem::take(&mut self.targets);
        for check in checks {
            for (edge, _) in &check.targets {
                let Some(edge) = world.edges.get(usize::from(*edge)) else { continue };
                let key = (check.name.clone(), edge.name.clone());
                let mut target = before.remove(&key).unwrap_or_else(|| Target {
                    datacenter: edge.datacenter,
                    health: Health::new(check.thresholds),
                    interval: check.interval,
                    results: 0,
                    failure: None,
                    since: now,
                    went_down: None,
                });
                target.datacenter = edge.datacenter;
                target.health.set_thresholds(check.thresholds);
                target.interval = check.interval;
                self.targets.insert(key, target);
            }
        }
        let used = || checks.iter().filter(|check| !check.targets.is_empty());
        self.round = used().map(|c| c.interval + c.timeout).max().unwrap_or_default() * 2;
        let detection = used()
            .map(|c| c.interval * u32::from(c.thresholds.down_after))
            .max()
            .unwrap_or_default();
        self.patience = (detection * 10).max(Duration::from_secs(60));
    }

    /// Takes the result of one probe: nothing, or why it failed.
    pub fn record(
        &mut self,
        key: &TargetKey,
        result: Result<(), Arc<str>>,
        now: UnixMillis,
    ) -> Change {
        let Some(target) = self.targets.get_mut(key) else { return Change::default() };
        let before = (target.health.results_to_change(), target.results == 0);
        let was = target.health.state();
        let state = target.health.record(result.is_ok());
        target.results += 1;
        target.failure = result.err();
        if let Some(state) = state {
            target.since = now;
            target.went_down = (state == State::Down && was == State::Up).then_some(now);
        }
        let is_visible =
            state.is_some() || before != (target.health.results_to_change(), target.results == 0);
        let suspicion = self.suspicion.clone();
        self.suspect(now);
        Change { state, is_visible: is_visible || suspicion != self.suspicion }
    }

    /// Lets time pass: a suspicion ends when it has stood long enough. Whether it did.
    pub fn tick(&mut self, now: UnixMillis) -> bool {
        let before = self.suspicion.clone();
        self.suspect(now);
        before != self.suspicion
    }

    /// Begins or ends a suspicion.
    fn suspect(&mut self, now: UnixMillis) {
        let of = self.targets.len();
        let down = self.targets.values().filter(|t| t.went_down.is_some()).count();
        match &self.suspicion {
            Some(suspicion) if now >= suspicion.until || down * 2 <= of => {
                self.suspicion = None;
                // Believed from now on: no second suspicion of the same.
                for target in self.targets.values_mut().filter(|t| t.went_down.is_some()) {
                    target.went_down = Some(UnixMillis(0));
                }
            }
            Some(_) => {}
            None => {
                let recent: Vec<&Target> =
                    self.targets.values().filter(|t| self.is_recent(t, now)).collect();
                let bad = recent.len();
                // A datacenter that dies takes all its edges with it, many as they may be: only what goes beyond
                // most datacenters looks like a fault of ours.
                if bad * 2 > of && datacenters(recent) * 2 > datacenters(self.targets.values()) {
                    let until = now + self.patience;
                    self.suspicion = Some(Suspicion { since: now, until, bad, of });
                }
            }
        }
    }

    /// Whether a target's fall and `now` are one event.
    fn is_recent(&self, target: &Target, now: UnixMillis) -> bool {
        target.went_down.is_some_and(|at| now.since(at) <= self.round && at.0 > 0)
    }

    /// Why the last good state stands, if it does.
    pub const fn suspicion(&self) -> Option<&Suspicion> {
        self.suspicion.as_ref()
    }

    /// Whether every target has been asked at least once.
    pub fn first_round_is_done(&self) -> bool {
        self.targets.values().all(|target| target.results > 0)
    }

    /// What the view is made from, by check and edge.
    pub fn observed(&self, world: &World) -> Vec<Vec<Option<Observed>>> {
        let of = |check: &String, edge: &String| {
            let target = self.targets.get(&(check.clone(), edge.clone()))?;
            // What was down before the event stays down.
            let stands = target.health.state() == State::Down
                && self.suspicion.as_ref().is_some_and(|s| self.is_recent(target, s.since));
            Some(Observed {
                state: if stands { State::Up } else { target.health.state() },
                draining: false,
                soonest_change: match target.health.is_wavering() {
                    // Between states: nobody should keep an answer for longer than needed.
                    true => Duration::ZERO,
                    // The next result may come at once, those after it take their interval.
                    false => {
                        target.interval
                            * u32::from(target.health.results_to_change().saturating_sub(1))
                    }
                },
                failure: target.failure.clone(),
            })
        };
        let edges = || world.edges.iter().map(|edge| &edge.name);
        world.checks.iter().map(|check| edges().map(|edge| of(check, edge)).collect()).collect()
    }

    /// Every target: what is known of it, and since when it is so.
    pub fn targets(&self) -> impl Iterator<Item = (&TargetKey, State, UnixMillis, Option<&str>)> {
        self.targets.iter().map(|(key, target)| {
            (key, target.health.state(), target.since, target.failure.as_deref())
        })
    }
}

fn datacenters<'t>(targets: impl IntoIterator<Item = &'t Target>) -> usize {
    targets.into_iter().map(|target| target.datacenter).collect::<BTreeSet<_>>().len()
}

#[cfg(test)]
mod tests {
    use shared::config::CheckKind;
    use shared::health::Thresholds;

    use super::*;
    use crate::world::Edge;

    fn monitor(edges: u16) -> (Monitor, World) {
        let mut world = World { checks: vec!["c".to_owned()], ..World::default() };
        for n in 0..edges {
            let name = format!("e{n}");
            world.edges.push(Edge { name, datacenter: n, addresses: Vec::new(), weight: 1 });
        }
        let check = Check {
            name: "c".to_owned(),
            kind: CheckKind::Tcp,
            host: None,
            path: String::new(),
            status: Vec::new(),
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            thresholds: Thresholds { down_after: 3, up_after: 2 },
            targets: (0..edges).map(|n| (n, "127.0.0.1:1".parse().unwrap())).collect(),
        };
        let mut monitor = Monitor::default();
        monitor.configure(&world, &[check], UnixMillis(1));
        (monitor, world)
    }

    /// One round of results at `secs`: `+` good, `-` bad.
    fn round(monitor: &mut Monitor, results: &str, secs: u64) {
        for (n, result) in results.chars().enumerate() {
            let key = ("c".to_owned(), format!("e{n}"));
            let result = if result == '+' { Ok(()) } else { Err("refused".into()) };
            monitor.record(&key, result, UnixMillis::from_secs(secs));
        }
    }

    fn believed(monitor: &Monitor, world: &World) -> String {
        let states = monitor.observed(world);
        states[0]
            .iter()
            .map(|s| if s.as_ref().unwrap().state.is_usable() { '+' } else { '-' })
            .collect()
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
        for secs in [8, 10] {
            round(&mut monitor, "++++--", secs);
        }
        assert_eq!(monitor.suspicion(), None);
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
        assert!(monitor.tick(UnixMillis::from_secs(70)));
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
        let soonest = |monitor: &Monitor| {
            monitor.observed(&world)[0].iter().flatten().map(|seen| seen.soonest_change).min()
        };
        assert_eq!(soonest(&monitor), Some(Duration::ZERO), "the first result counts at once");
        round(&mut monitor, "++", 0);
        assert_eq!(soonest(&monitor), Some(Duration::from_secs(4)), "two more after the next");
        round(&mut monitor, "+-", 2);
        assert_eq!(soonest(&monitor), Some(Duration::ZERO), "between states");
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
}
