//! What is believed of all targets: results of probes in, what [`crate::health`] needs out.
//!
//! Owns no timer and no socket; the time it is given never goes back. A target that flaps is held down ([`hold`]). Also
//! suspects itself: when most of everything turns bad at once, it is more likely that this machine cannot see than that
//! all have died, so what was believed before stands for a while.

pub mod hold;
mod target;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::health::State;
use shared::report::Report;
use shared::time::UnixMillis;

use self::hold::Hold;
use self::target::Target;
use crate::config::Check;
use crate::health::Observed;
use crate::world::{DatacenterId, World};

/// Which probe: the check's name and the edge's. Names outlive a reload, ids do not.
pub type TargetKey = (String, String);

/// What one probe found.
#[derive(Clone, Debug, Default)]
pub struct Probed {
    /// Why the target is not well; none: it is.
    pub failure: Option<Arc<str>>,
    /// What it says of itself.
    pub report: Option<Arc<Report>>,
    /// Days until its certificate ends, negative when it has.
    pub certificate_days: Option<i64>,
}

impl Probed {
    /// A target that is well.
    pub fn good() -> Self {
        Self::default()
    }

    /// One that is not.
    pub fn bad(why: impl Into<Arc<str>>) -> Self {
        Self { failure: Some(why.into()), ..Self::default() }
    }
}

/// What is known of a target, for the next run of the program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Belief {
    /// The check.
    pub check: String,
    /// The edge.
    pub edge: String,
    /// What is believed.
    pub state: State,
    /// Since when.
    pub since: UnixMillis,
    /// When the last result came.
    pub seen: UnixMillis,
    /// Its flapping.
    #[serde(default)]
    pub hold: Hold,
}

/// All targets.
#[derive(Clone, Debug, Default)]
pub struct Monitor {
    targets: BTreeMap<TargetKey, Target>,
    suspicion: Option<Suspicion>,
    /// The datacenter that this machine stands in: what it sees there proves nothing of its way out.
    own: Option<DatacenterId>,
    /// How long two failures may lie apart and still be one event.
    round: Duration,
    /// The longest time that a check needs to notice an outage.
    detection: Duration,
}

/// Why the last good state stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspicion {
    /// Since when.
    pub since: UnixMillis,
    /// Until when, unless it clears up before.
    pub until: UnixMillis,
    /// From when on it ends as soon as others prove that this machine can see.
    pub proof_from: UnixMillis,
    /// Since when most of them are back: the others have a round to follow.
    pub clearing: Option<UnixMillis>,
    /// How many targets turned bad at once.
    pub bad: usize,
    /// Of how many.
    pub of: usize,
}

/// What a result or the passing of time changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The targets whose state is another.
    pub states: Vec<(TargetKey, State)>,
    /// Whether views must be made anew: a state, a nearness of a change, a report or a suspicion is another.
    pub is_visible: bool,
}

/// Whose word on the targets counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// What is believed: during a suspicion, the last good state.
    Believed,
    /// What the results say, suspicion or not.
    Seen,
}

/// A target, for people.
#[derive(Clone, Debug)]
pub struct TargetStatus<'m> {
    /// Which one.
    pub key: &'m TargetKey,
    /// What is believed of it.
    pub state: State,
    /// Since when.
    pub since: UnixMillis,
    /// It fell in an event that is not believed: it is answered as if it were up.
    pub stands: bool,
    /// It stays down until then, for flapping.
    pub held_until: Option<UnixMillis>,
    /// Why the last try failed.
    pub failure: Option<&'m str>,
    /// What it says of itself, while that is fresh.
    pub report: Option<&'m Arc<Report>>,
    /// Days until its certificate ends.
    pub certificate_days: Option<i64>,
    /// Not asked yet: known from the last run.
    pub is_restored: bool,
}

impl Monitor {
    /// Goes on with the targets of a new configuration; those that stay keep what is known of them. `own` is the
    /// datacenter that this machine stands in, if that is known.
    pub fn configure(
        &mut self,
        world: &World,
        checks: &[Check],
        own: Option<DatacenterId>,
        now: UnixMillis,
    ) {
        let mut before = std::mem::take(&mut self.targets);
        for check in checks {
            for asked in &check.targets {
                let Some(edge) = world.edges.get(usize::from(asked.edge)) else { continue };
                let key = (check.name.clone(), edge.name.clone());
                let mut target =
                    before.remove(&key).unwrap_or_else(|| Target::new(check, edge.datacenter, now));
                target.configure(check, edge.datacenter);
                self.targets.insert(key, target);
            }
        }
        let used = || checks.iter().filter(|check| !check.targets.is_empty());
        self.round = used().map(|c| c.interval + c.timeout).max().unwrap_or_default() * 2;
        self.detection = used().map(Check::detection).max().unwrap_or_default();
        self.own = own;
    }

    /// How long a suspicion stands that nothing clears up, and how old the knowledge of the last run may be.
    pub fn patience(&self) -> Duration {
        (self.detection * 10).max(Duration::from_secs(60))
    }

    /// Goes on with what the last run knew of targets that have not been asked yet, as far as it is young enough.
    /// Returns of how many.
    pub fn restore(&mut self, beliefs: &[Belief], now: UnixMillis) -> usize {
        let oldest = self.patience();
        let mut restored = 0;
        for belief in beliefs {
            // A clock that was set back makes the past the future: that tells no age.
            let is_young = now.since(belief.seen) <= oldest && belief.seen.since(now) <= oldest;
            let key = (belief.check.clone(), belief.edge.clone());
            match self.targets.get_mut(&key) {
                Some(target) if is_young && target.results == 0 => {
                    target.restore(belief);
                    restored += 1;
                }
                _ => {}
            }
        }
        restored
    }

    /// What the next run may go on with.
    pub fn beliefs(&self) -> Vec<Belief> {
        let known = self.targets.iter().filter_map(|((check, edge), target)| {
            // Before the first result of this run, what the last one knew is as old as it was.
            let seen = target.last.or(target.restored_from)?;
            // What is not believed now is not told either.
            let stands = self.stands(target);
            Some(Belief {
                check: check.clone(),
                edge: edge.clone(),
                state: if stands { State::Up } else { target.state },
                since: target.since,
                seen,
                hold: if stands { Hold::default() } else { target.hold },
            })
        });
        known.filter(|belief| belief.state != State::Unknown).collect()
    }

    /// Takes the result of one probe.
    pub fn record(&mut self, key: &TargetKey, probed: Probed, now: UnixMillis) -> Change {
        let Some(stands) = self.targets.get(key).map(|target| self.stands(target)) else {
            return Change::default();
        };
        let Some(target) = self.targets.get_mut(key) else { return Change::default() };
        let visible = |target: &Target| {
            let asked = target.results > 0;
            (target.health.results_to_change(), asked, target.is_draining(now))
        };
        let before = visible(target);
        let state = target.record(probed, stands, now);
        target.is_restored = false;
        let is_visible = state.is_some() || before != visible(target);
        let suspicion = self.suspicion.clone();
        self.suspect(now);
        Change {
            states: state.map(|state| (key.clone(), state)).into_iter().collect(),
            is_visible: is_visible || suspicion != self.suspicion,
        }
    }

    /// Lets time pass: holds end, reports grow old, a suspicion ends when it has stood long enough.
    pub fn tick(&mut self, now: UnixMillis) -> Change {
        let mut change = Change::default();
        for (key, target) in &mut self.targets {
            if let Some(state) = target.settle(now) {
                change.states.push((key.clone(), state));
            }
            change.is_visible |= target.report_moved(now);
        }
        let before = self.suspicion.clone();
        self.suspect(now);
        change.is_visible |= !change.states.is_empty() || before != self.suspicion;
        change
    }

    /// Begins or ends a suspicion.
    fn suspect(&mut self, now: UnixMillis) {
        let of = self.targets.len();
        let down = self.targets.values().filter(|t| t.went_down.is_some()).count();
        match self.suspicion.clone() {
            Some(suspicion) => {
                let is_proven = now >= suspicion.proof_from && self.can_see(suspicion.since);
                let most_are_back = down * 2 <= of;
                let clearing = most_are_back.then(|| suspicion.clearing.unwrap_or(now));
                if let Some(kept) = &mut self.suspicion {
                    kept.clearing = clearing;
                }
                let all_are_back = !self.targets.values().any(|target| self.stands(target));
                let is_over =
                    clearing.is_some_and(|since| all_are_back || now.since(since) >= self.round);
                if now >= suspicion.until || is_over || is_proven {
                    let since = suspicion.since;
                    self.suspicion = None;
                    if is_over && !is_proven {
                        // Most came back: that was this machine, also for those who come much later.
                        let round = self.round;
                        for target in self.targets.values_mut() {
                            if is_recent(target, since, round) {
                                target.pardon();
                            }
                        }
                    }
                    // Believed from now on: no second suspicion of the same.
                    for target in self.targets.values_mut().filter(|t| t.went_down.is_some()) {
                        target.went_down = Some(UnixMillis(0));
                    }
                }
            }
            None => {
                let recent: Vec<&Target> =
                    self.targets.values().filter(|t| self.is_recent(t, now)).collect();
                let bad = recent.len();
                // A datacenter that dies takes all its edges with it, many as they may be: only what goes beyond
                // most datacenters looks like a fault of ours.
                if bad * 2 > of && datacenters(recent) * 2 > datacenters(self.targets.values()) {
                    let (until, proof_from) = (now + self.patience(), now + self.detection);
                    self.suspicion =
                        Some(Suspicion { since: now, until, proof_from, clearing: None, bad, of });
                }
            }
        }
    }

    /// Whether targets that did not fall prove that this machine sees beyond its own datacenter: they have answered
    /// since, and fail no more. Where its own datacenter is not known one of them may be there, so it takes two.
    fn can_see(&self, since: UnixMillis) -> bool {
        let witnesses = self.targets.values().filter(|target| {
            target.health.state() == State::Up
                && !target.health.is_wavering()
                && target.since <= since
                && target.last_good.is_some_and(|at| at > since)
                && Some(target.datacenter) != self.own
        });
        datacenters(witnesses) >= if self.own.is_some() { 1 } else { 2 }
    }

    /// Whether a target's fall and `now` are one event.
    fn is_recent(&self, target: &Target, now: UnixMillis) -> bool {
        is_recent(target, now, self.round)
    }

    /// Whether a target's fall is not believed. What was down before the event stays down.
    fn stands(&self, target: &Target) -> bool {
        target.state == State::Down
            && self.suspicion.as_ref().is_some_and(|s| self.is_recent(target, s.since))
    }

    /// What fell from then on, or since, is not believed.
    pub fn doubted_from(&self) -> Option<UnixMillis> {
        let round = u64::try_from(self.round.as_millis()).unwrap_or(u64::MAX);
        self.suspicion.as_ref().map(|s| UnixMillis(s.since.0.saturating_sub(round)))
    }

    /// Why the last good state stands, if it does.
    pub const fn suspicion(&self) -> Option<&Suspicion> {
        self.suspicion.as_ref()
    }

    /// Whether something is known of every target: its own result, or what the last run knew.
    pub fn first_round_is_done(&self) -> bool {
        self.targets.values().all(|target| target.results > 0 || target.is_restored)
    }

    /// What the view is made from, by check and edge.
    pub fn observed(
        &self,
        world: &World,
        trust: Trust,
        now: UnixMillis,
    ) -> Vec<Vec<Option<Observed>>> {
        let of = |check: &String, edge: &String| {
            let target = self.targets.get(&(check.clone(), edge.clone()))?;
            let stands = trust == Trust::Believed && self.stands(target);
            Some(Observed {
                state: if stands { State::Up } else { target.state },
                draining: target.is_draining(now),
                // A suspicion can end with the next result of anybody.
                soonest_change: match stands {
                    true => Duration::ZERO,
                    false => target.soonest_change(now),
                },
                failure: target.failure.clone(),
            })
        };
        let edges = || world.edges.iter().map(|edge| &edge.name);
        world.checks.iter().map(|check| edges().map(|edge| of(check, edge)).collect()).collect()
    }

    /// What each edge of the world says of itself, as far as it is fresh.
    pub fn reports(&self, world: &World, now: UnixMillis) -> Vec<Option<Arc<Report>>> {
        let mut reports: BTreeMap<&str, &Arc<Report>> = BTreeMap::new();
        for ((_, edge), target) in &self.targets {
            if let Some(report) = target.report(now) {
                reports.insert(edge, report);
            }
        }
        world.edges.iter().map(|edge| reports.get(edge.name.as_str()).copied().cloned()).collect()
    }

    /// The least time until a hold of a check's target, or the suspicion, ends by itself.
    pub fn next_end(&self, check: &str, now: UnixMillis) -> Option<Duration> {
        let targets = self.targets.iter().filter(|((of, _), _)| of == check);
        let holds = targets.filter_map(|(_, target)| target.held_until(now));
        let ends = holds.chain(self.suspicion.as_ref().map(|suspicion| suspicion.until));
        ends.map(|end| end.since(now)).min()
    }

    /// Every target.
    pub fn targets(&self, now: UnixMillis) -> impl Iterator<Item = TargetStatus<'_>> {
        self.targets.iter().map(move |(key, target)| TargetStatus {
            key,
            state: target.state,
            since: target.since,
            stands: self.stands(target),
            held_until: target.held_until(now),
            failure: target.failure.as_deref(),
            report: target.report(now),
            certificate_days: target.certificate_days,
            is_restored: target.is_restored,
        })
    }
}

fn is_recent(target: &Target, now: UnixMillis, round: Duration) -> bool {
    target.went_down.is_some_and(|at| now.since(at) <= round && at.0 > 0)
}

fn datacenters<'t>(targets: impl IntoIterator<Item = &'t Target>) -> usize {
    targets.into_iter().map(|target| target.datacenter).collect::<BTreeSet<_>>().len()
}

#[cfg(test)]
mod tests;
