//! How much of its clients each datacenter of each policy takes, from what is seen of it: [`crate::ramp`] for all of
//! them, kept by name, so that a reload takes nothing away.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::config::{CheckKind, Spec};
use shared::health::State;
use shared::time::UnixMillis;

use crate::health::{Facts, Intake, Mode, Verdict, View};
use crate::ramp::{Ramp, RampSettings, Shed, ShedSettings, Status};
use crate::world::{DatacenterId, Family, Policy, PolicyId, World};

/// What the configuration says.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// By policy.
    policies: Vec<(RampSettings, ShedSettings)>,
    /// By datacenter: bits a second that it can send.
    capacities: Vec<Option<f64>>,
}

impl Settings {
    /// The settings of all policies and datacenters of `world`. `grace`: see [`RampSettings::grace`].
    pub fn new(spec: &Spec, world: &World, grace: Duration) -> Self {
        let policies = world.policies.iter().map(|policy| {
            let steering = spec.steering.get(&policy.name).cloned().unwrap_or_default();
            let check = policy.check.and_then(|id| world.checks.get(usize::from(id)));
            let check = check.and_then(|name| spec.check.get(name));
            let patience = check.map_or(Duration::from_secs(5), |check| check.detection());
            let ramp = RampSettings {
                length: steering.ramp.get(),
                least_step: steering.ttl.min.get(),
                is_told_warmth: check.is_some_and(|check| check.kind == CheckKind::Report),
                grace,
            };
            let shed = ShedSettings {
                above: steering.shed.above,
                resume: steering.shed.resume,
                patience,
                // Answers live for as long as `min` while anything changes; the load shows in the next report.
                period: (steering.ttl.min.get() * 2).max(patience),
            };
            (ramp, shed)
        });
        let capacity = |name: &String| {
            spec.datacenter.get(name).and_then(|dc| dc.capacity).map(|rate| rate.0 as f64)
        };
        let capacities = world.datacenters.iter().map(|dc| capacity(&dc.name)).collect();
        Self { policies: policies.collect(), capacities }
    }
}

/// A ramp that is under way, for the next run of the program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Return {
    policy: String,
    datacenter: String,
    ramp: Ramp,
}

/// What happened to a datacenter, for the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The policy.
    pub policy: String,
    /// The datacenter.
    pub datacenter: String,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum What {
    /// It begins to get its clients back.
    RampBegins,
    /// It has them all.
    RampEnds,
    /// It begins to give clients up, at this load.
    ShedBegins(f64),
    /// It has taken them back.
    ShedEnds,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Intakes {
    states: BTreeMap<(String, String), (Ramp, Shed)>,
    /// Of those that are out: since when, and where they stood before.
    left: BTreeMap<(String, String), (UnixMillis, Ramp)>,
}

impl Intakes {
    /// Goes on with what the last run knew.
    pub fn restore(&mut self, returns: Vec<Return>) {
        for Return { policy, datacenter, ramp } in returns {
            self.states.insert((policy, datacenter), (ramp, Shed::default()));
        }
    }

    /// What the next run may go on with: who is out or on the way back.
    pub fn returns(&self) -> Vec<Return> {
        let unfinished = |ramp: &Ramp| matches!(ramp, Ramp::Out | Ramp::Returning { .. });
        let states = self.states.iter().filter(|(_, (ramp, _))| unfinished(ramp));
        let kept = states.map(|((policy, datacenter), (ramp, _))| Return {
            policy: policy.clone(),
            datacenter: datacenter.clone(),
            ramp: *ramp,
        });
        kept.collect()
    }

    /// Goes on to `now` with what `view` shows. `doubted_from`: what fell from then on was never believed, and is as it was
    /// before (see [`crate::monitor::Monitor::doubted_from`]). Returns what began and what ended.
    pub fn advance(
        &mut self,
        world: &World,
        settings: &Settings,
        view: &View,
        doubted_from: Option<UnixMillis>,
        since_start: Duration,
        now: UnixMillis,
    ) -> Vec<Event> {
        let mut before = std::mem::take(&mut self.states);
        let mut events = Vec::new();
        for ((id, policy), (ramping, shedding)) in
            (0..).zip(&world.policies).zip(&settings.policies)
        {
            let mut row: Vec<_> = policy
                .datacenters
                .iter()
                .map(|dc| {
                    let key = (policy.name.clone(), world.datacenter_name(*dc).to_owned());
                    let state = before.remove(&key).unwrap_or_default();
                    (*dc, key, state, status(world, (id, policy), view, *dc))
                })
                .collect();
            for at in 0..row.len() {
                let others = || {
                    let others = row.iter().enumerate().filter(|(other, _)| *other != at);
                    others.map(|(_, other)| other).filter(|other| other.3 == Status::Up)
                };
                // Others that wait for their own clients cannot take these.
                let is_alone = !others().any(|other| matches!(other.2.0, Ramp::In | Ramp::Unseen));
                let has_room = others().any(|other| other.2.1.has_room(shedding));
                let has_others = others().next().is_some();
                let Some((dc, key, (ramp, shed), status)) = row.get_mut(at) else {
                    continue;
                };
                if *status == Status::Up
                    && let Some((since, stood)) = self.left.remove(key)
                    && doubted_from.is_some_and(|from| from <= since)
                {
                    *ramp = stood;
                }
                let (load, warmth) = reported(world, settings, view, policy, *dc);
                let was = (*ramp, shed.share());
                ramp.advance(ramping, *status, is_alone, warmth, since_start, now);
                if *ramp == Ramp::Out && was.0 != Ramp::Out {
                    self.left.insert(key.clone(), (now, was.0));
                }
                match has_others {
                    // What is out keeps its share until it returns.
                    true if *status != Status::Up => {}
                    true => shed.advance(shedding, load, has_room, now),
                    false => shed.stop(),
                }
                let what = [
                    match (was.0, *ramp) {
                        (Ramp::Out, Ramp::Returning { .. }) => Some(What::RampBegins),
                        (Ramp::Returning { .. }, Ramp::In) => Some(What::RampEnds),
                        _ => None,
                    },
                    match (was.1 > 0.0, shed.share() > 0.0) {
                        (false, true) => Some(What::ShedBegins(shed.load().unwrap_or_default())),
                        (true, false) => Some(What::ShedEnds),
                        _ => None,
                    },
                ];
                let (policy, datacenter) = key;
                events.extend(what.into_iter().flatten().map(|what| Event {
                    policy: policy.clone(),
                    datacenter: datacenter.clone(),
                    what,
                }));
            }
            self.states.extend(row.into_iter().map(|(_, key, state, _)| (key, state)));
        }
        let states = &self.states;
        self.left.retain(|key, _| states.contains_key(key));
        events
    }

    /// By policy, then by datacenter.
    pub fn all(&self, world: &World, settings: &Settings) -> Vec<Vec<Intake>> {
        let of = |policy: &Policy, ramping: &RampSettings, datacenter: &str| {
            let state = self.states.get(&(policy.name.clone(), datacenter.to_owned()));
            state.map_or_else(Intake::default, |(ramp, shed)| Intake {
                returned: ramp.returned(ramping),
                shed: shed.share(),
            })
        };
        let policies = world.policies.iter().zip(&settings.policies);
        policies
            .map(|(policy, (ramping, _))| {
                world.datacenters.iter().map(|dc| of(policy, ramping, &dc.name)).collect()
            })
            .collect()
    }

    /// By policy: the least time until the next step of any of its datacenters.
    pub fn soonest(&self, world: &World, settings: &Settings, now: UnixMillis) -> Vec<Duration> {
        let policies = world.policies.iter().zip(&settings.policies);
        policies
            .map(|(policy, (ramping, shedding))| {
                let states = self.states.iter().filter(|((of, _), _)| *of == policy.name);
                let steps = states.flat_map(|(_, (ramp, shed))| {
                    [ramp.next_step(ramping, now), shed.next_step(shedding, now)]
                });
                steps.flatten().min().unwrap_or(Duration::MAX)
            })
            .collect()
    }

    /// The load of a datacenter as the policy reckons with it.
    pub fn load(&self, policy: &str, datacenter: &str) -> Option<f64> {
        self.states.get(&(policy.to_owned(), datacenter.to_owned()))?.1.load()
    }
}

/// Whether a policy can answer with a datacenter, in either family.
fn status(
    world: &World,
    policy: (PolicyId, &Policy),
    view: &View,
    datacenter: DatacenterId,
) -> Status {
    let (id, policy) = policy;
    let verdicts = Family::ALL
        .iter()
        .filter_map(|family| Some(view.family(id, *family)?.serving(datacenter)?.verdict));
    let mut verdicts = verdicts.filter(|verdict| *verdict != Verdict::NoFamily).peekable();
    if verdicts.peek().is_none() {
        return Status::Unknown;
    }
    if !verdicts.any(|verdict| verdict == Verdict::Up) {
        return Status::Out;
    }
    let facts = &view.facts;
    let forced = facts.datacenters.get(usize::from(datacenter)) == Some(&Mode::Up);
    let is_known = world.edges_of(datacenter).any(|(edge, _)| {
        facts.edges.get(usize::from(edge)) == Some(&Mode::Up)
            || facts.observed(policy.check, edge).is_none_or(|seen| seen.state == State::Up)
    });
    if forced || is_known { Status::Up } else { Status::Unknown }
}

/// Load and warmth of a datacenter, as far as its edges report: the mean load of those that are in answers, or, where
/// that is more, what all of them send of what the datacenter can; the mean warmth of those in answers.
fn reported(
    world: &World,
    settings: &Settings,
    view: &View,
    policy: &Policy,
    datacenter: DatacenterId,
) -> (Option<f64>, Option<f64>) {
    let facts: &Facts = &view.facts;
    let all = || {
        let edges = world.edges_of(datacenter);
        edges.filter_map(|(id, _)| Some((id, facts.reports.get(usize::from(id))?.as_ref()?)))
    };
    let answered = || all().filter(|(id, _)| facts.edge_is_up(policy, *id)).map(|(_, r)| r);
    let count = answered().count() as f64;
    let mean = |sum: f64| (count > 0.0).then(|| sum / count);
    let warmth = mean(answered().map(|report| report.warmth).sum());
    let connections = mean(answered().map(|report| report.load).sum());
    let capacity = settings.capacities.get(usize::from(datacenter)).copied().flatten();
    let sent: f64 = all().map(|(_, report)| report.egress_bps).sum();
    let egress =
        capacity.filter(|bits| *bits > 0.0 && all().next().is_some()).map(|bits| sent / bits);
    (connections.into_iter().chain(egress).reduce(f64::max), warmth)
}

#[cfg(test)]
mod tests;
