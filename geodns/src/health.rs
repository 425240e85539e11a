//! From what is known of each edge to which datacenters a policy can answer with.
//!
//! [`View::new`] runs when something changed, not per query: it applies the operator's overrides and `min_up`, renders
//! the records of every edge that is up, and settles what is answered when nothing is. What the probes saw comes in as
//! [`Observed`]; who orders datacenters for a client is [`crate::steer`].

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use shared::health::State;
use shared::report::Report;

use crate::pick::{Candidate, EVERYTHING, kept};
use crate::reason::Reason;
use crate::world::{
    AllDown, CheckId, DatacenterId, EdgeId, Family, Pick, Policy, World, stable_key,
};

/// What a check knows of an edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// What is believed.
    pub state: State,
    /// It says that it wants no new clients: it is in no answer as long as there is another, and yet it is not down.
    pub draining: bool,
    /// The least time until the belief can change.
    pub soonest_change: Duration,
    /// What the last failure was.
    pub failure: Option<Arc<str>>,
}

/// What the operator said about a datacenter or an edge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Health decides.
    #[default]
    Auto,
    /// It is up, whatever the checks say.
    Up,
    /// It is down, whatever the checks say.
    Down,
    /// No new clients.
    Drain,
}

/// All that a view is made from, besides the world.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// By check, then by edge; an edge that is not checked has none.
    pub observed: Vec<Vec<Option<Observed>>>,
    /// By datacenter.
    pub datacenters: Vec<Mode>,
    /// By edge.
    pub edges: Vec<Mode>,
    /// By policy, then by datacenter: how much of its clients it takes.
    pub intakes: Vec<Vec<Intake>>,
    /// By edge: what it last said of itself, when a check reads reports and the last one is fresh.
    pub reports: Vec<Option<Arc<Report>>>,
    /// By policy: the least time until something else than the result of a probe could change its answers, such as an
    /// override that expires or the next step of a ramp.
    pub soonest: Vec<Duration>,
}

/// How much of its clients a datacenter takes. Who is not taken goes to the next datacenter of its list.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Intake {
    /// While it returns: the share of client networks, 0 to 1, that it has back. Grows; networks that are in stay in.
    pub returned: f64,
    /// While it has too much load: the share of client networks, 0 to 1, the farthest first, that it gives up.
    pub shed: f64,
}

impl Default for Intake {
    fn default() -> Self {
        Self { returned: 1.0, shed: 0.0 }
    }
}

impl Facts {
    /// Nothing observed, nothing said.
    pub fn unknown(world: &World) -> Self {
        Self {
            observed: vec![vec![None; world.edges.len()]; world.checks.len()],
            datacenters: vec![Mode::Auto; world.datacenters.len()],
            edges: vec![Mode::Auto; world.edges.len()],
            intakes: vec![vec![Intake::default(); world.datacenters.len()]; world.policies.len()],
            reports: vec![None; world.edges.len()],
            soonest: vec![Duration::MAX; world.policies.len()],
        }
    }

    /// What a check knows of an edge.
    pub fn observed(&self, check: Option<CheckId>, edge: EdgeId) -> Option<&Observed> {
        self.observed.get(usize::from(check?))?.get(usize::from(edge))?.as_ref()
    }

    fn edge_mode(&self, edge: EdgeId) -> Mode {
        self.edges.get(usize::from(edge)).copied().unwrap_or_default()
    }

    fn datacenter_mode(&self, datacenter: DatacenterId) -> Mode {
        self.datacenters.get(usize::from(datacenter)).copied().unwrap_or_default()
    }

    /// Whether an edge is known to be up, or must be taken to be, and not only for want of an answer.
    fn edge_is_proven(&self, policy: &Policy, edge: EdgeId) -> bool {
        self.edge_mode(edge) == Mode::Up
            || policy.check.is_none()
            || self.observed(policy.check, edge).is_some_and(|seen| seen.state == State::Up)
    }

    /// Whether an edge is up for a policy.
    pub fn edge_is_up(&self, policy: &Policy, edge: EdgeId) -> bool {
        match self.edge_mode(edge) {
            Mode::Up => true,
            Mode::Down | Mode::Drain => false,
            Mode::Auto => self
                .observed(policy.check, edge)
                .is_none_or(|seen| seen.state.is_usable() && !seen.draining),
        }
    }

    /// Whether an edge wants no new clients, or the operator wants none for it.
    fn edge_is_drained(&self, policy: &Policy, edge: EdgeId) -> bool {
        match self.edge_mode(edge) {
            Mode::Up | Mode::Down => false,
            Mode::Drain => true,
            Mode::Auto => self.observed(policy.check, edge).is_some_and(|seen| seen.draining),
        }
    }
}

/// Why a datacenter is a candidate or is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Enough of its edges are up.
    Up,
    /// None of its edges is up.
    Down,
    /// Fewer of its edges are up than `min_up` wants.
    TooFew,
    /// The operator took it down.
    ForcedDown,
    /// The operator drains it, here or at its edges.
    Draining,
    /// It has no address of the family asked for.
    NoFamily,
    /// It is not up, but answered all the same since nothing is.
    Substitute,
    /// It returns, and does not take this client yet.
    Returning,
    /// It has too much load, and gave this client up.
    Shedding,
    /// It has all the clients that it may have.
    Full,
}

impl Verdict {
    /// Whether the datacenter takes clients, if not this one.
    pub const fn can_take(self) -> bool {
        !matches!(
            self,
            Self::Down | Self::TooFew | Self::ForcedDown | Self::Draining | Self::NoFamily
        )
    }
}

/// What every policy can answer with, at one state of health.
#[derive(Clone, Debug, Default)]
pub struct View {
    policies: Vec<[FamilyView; 2]>,
    /// What it was made from.
    pub facts: Facts,
}

/// A policy's view for one address family.
#[derive(Clone, Debug)]
pub struct FamilyView {
    /// By datacenter, of all the world's.
    datacenters: Arc<[Serving]>,
    /// What is answered in place of a datacenter that is up; none while one is.
    pub all_down: Option<Reason>,
    /// Whether an edge in it was ever seen to be up. What was merely not asked yet is not a last good answer.
    is_proven: bool,
    /// TTL of answers in seconds.
    pub ttl: u32,
}

/// A datacenter as a policy sees it.
#[derive(Clone, Debug)]
pub struct Serving {
    /// Whether it can be answered, and why not.
    pub verdict: Verdict,
    /// The edges to answer with.
    pub targets: Box<[Target]>,
}

/// An edge, rendered.
#[derive(Clone, Debug)]
pub struct Target {
    /// Which one.
    pub edge: EdgeId,
    /// Its addresses as records with the question's name; their TTL is to be set.
    pub records: Box<[u8]>,
    /// How many.
    pub count: u16,
    key: u64,
    weight: u32,
    kept: u32,
}

impl Candidate for Target {
    fn key(&self) -> u64 {
        self.key
    }
    fn weight(&self) -> u32 {
        self.weight
    }
    fn kept(&self) -> u32 {
        self.kept
    }
}

impl Serving {
    /// Whether clients are sent there.
    pub const fn is_usable(&self) -> bool {
        matches!(self.verdict, Verdict::Up | Verdict::Substitute) && !self.targets.is_empty()
    }
}

impl FamilyView {
    /// A datacenter as the policy sees it.
    pub fn serving(&self, datacenter: DatacenterId) -> Option<&Serving> {
        self.datacenters.get(usize::from(datacenter))
    }
}

impl View {
    /// The view of `facts`. `before` is the view until now, from which the last good answers are taken.
    pub fn new(world: &World, facts: Facts, before: Option<&Self>) -> Self {
        let policies = world.policies.iter().enumerate().map(|(index, policy)| {
            let before = before.and_then(|view| view.policies.get(index));
            Family::ALL.map(|family| {
                let before = before.map(|families| &families[family as usize]);
                family_view(world, (index, policy), family, &facts, before)
            })
        });
        Self { policies: policies.collect(), facts }
    }

    /// How much of its clients each datacenter takes, for a policy.
    pub fn intakes(&self, policy: crate::world::PolicyId) -> &[Intake] {
        self.facts.intakes.get(usize::from(policy)).map_or(&[], Vec::as_slice)
    }

    /// A policy's view for a family.
    pub fn family(&self, policy: crate::world::PolicyId, family: Family) -> Option<&FamilyView> {
        self.policies.get(usize::from(policy)).map(|families| &families[family as usize])
    }
}

fn family_view(
    world: &World,
    policy: (usize, &Policy),
    family: Family,
    facts: &Facts,
    before: Option<&FamilyView>,
) -> FamilyView {
    let ttl = ttl(world, policy, facts);
    let (_, policy) = policy;
    let ids = || (0..).zip(&world.datacenters).map(|(id, _)| id);
    let datacenters: Arc<[Serving]> =
        ids().map(|id| serving(world, policy, family, facts, id)).collect();
    let is_up = |serving: &Serving| serving.is_usable();
    let of_policy = |id: &DatacenterId| datacenters.get(usize::from(*id));
    if policy.datacenters.iter().filter_map(of_policy).any(is_up) {
        let is_proven = datacenters
            .iter()
            .filter(|serving| serving.is_usable())
            .flat_map(|serving| &serving.targets)
            .any(|target| facts.edge_is_proven(policy, target.edge));
        return FamilyView { datacenters, all_down: None, is_proven, ttl };
    }
    let mut is_proven = false;
    let (reason, substitutes) = match policy.all_down {
        AllDown::NoData => (Reason::DownNoData, datacenters),
        AllDown::ServFail => (Reason::DownServFail, datacenters),
        AllDown::LastGood => {
            let last_good = before.filter(|view| {
                matches!(view.all_down, None | Some(Reason::LastGood))
                    && view.is_proven
                    && view.datacenters.iter().any(Serving::is_usable)
            });
            is_proven = last_good.is_some();
            match last_good {
                Some(view) => (Reason::LastGood, last_good_of(view, policy, facts)),
                None => (Reason::LastGood, as_if_up(world, policy, family, facts)),
            }
        }
        AllDown::All => (Reason::AllDown, as_if_up(world, policy, family, facts)),
        AllDown::Fallback(fallback) => {
            let fallback_only: Arc<[Serving]> = ids()
                .map(|id| match id == fallback {
                    true => substitute(world, family, id, |_| true),
                    false => serving(world, policy, family, facts, id),
                })
                .collect();
            // A fallback without addresses of this family must not empty the answer.
            match fallback_only.get(usize::from(fallback)).is_some_and(is_up) {
                true => (Reason::Fallback, fallback_only),
                false => (Reason::AllDown, as_if_up(world, policy, family, facts)),
            }
        }
    };
    let ttl = ttl.min(policy.ttl_min);
    FamilyView { datacenters: substitutes, all_down: Some(reason), is_proven, ttl }
}

/// What was answered until now, but for what the operator has taken out since, as long as anything is left.
fn last_good_of(before: &FamilyView, policy: &Policy, facts: &Facts) -> Arc<[Serving]> {
    let wanted = |id: DatacenterId| {
        before.serving(id).is_some_and(Serving::is_usable)
            && !matches!(facts.datacenter_mode(id), Mode::Down | Mode::Drain)
    };
    let any_wanted = policy.datacenters.iter().any(|id| wanted(*id));
    let kept = (0..).zip(before.datacenters.iter()).map(|(id, serving)| {
        let keep = if any_wanted { wanted(id) } else { serving.is_usable() };
        let verdict = match (keep, serving.verdict) {
            (true, _) => Verdict::Substitute,
            (false, Verdict::Up | Verdict::Substitute) => Verdict::Draining,
            (false, verdict) => verdict,
        };
        let targets = if keep { serving.targets.clone() } else { Box::default() };
        Serving { verdict, targets }
    });
    kept.collect()
}

/// Seconds until health could change the answer, within the policy's bounds.
fn ttl(world: &World, policy: (usize, &Policy), facts: &Facts) -> u32 {
    let (index, policy) = policy;
    let edges = policy.datacenters.iter().flat_map(|id| world.edges_of(*id));
    let seen = edges.filter_map(|(edge, _)| facts.observed(policy.check, edge));
    let others = facts.soonest.get(index).copied();
    let soonest = seen.map(|seen| seen.soonest_change).chain(others).min();
    let secs = soonest.map_or(policy.ttl_max, |soonest| {
        u32::try_from(soonest.as_secs()).unwrap_or(policy.ttl_max)
    });
    secs.min(policy.ttl_max).max(policy.ttl_min)
}

fn serving(
    world: &World,
    policy: &Policy,
    family: Family,
    facts: &Facts,
    id: DatacenterId,
) -> Serving {
    let all = targets(world, family, id, |_| true);
    let mut up = targets(world, family, id, |edge| facts.edge_is_up(policy, edge));
    bound_loads(policy, facts, &mut up);
    let none = |verdict| Serving { verdict, targets: Box::default() };
    if all.is_empty() {
        return none(Verdict::NoFamily);
    }
    match facts.datacenter_mode(id) {
        Mode::Down => none(Verdict::ForcedDown),
        Mode::Drain => none(Verdict::Draining),
        Mode::Up => Serving { verdict: Verdict::Up, targets: if up.is_empty() { all } else { up } },
        Mode::Auto if up.is_empty() => none(match all_are_drained(world, policy, facts, id) {
            true => Verdict::Draining,
            false => Verdict::Down,
        }),
        Mode::Auto if (up.len() as f64) < policy.min_up * all.len() as f64 => none(Verdict::TooFew),
        Mode::Auto => Serving { verdict: Verdict::Up, targets: up },
    }
}

/// Lets edges with too much load give keys up, where keys choose edges. Of an edge that has not said what load it has
/// nothing is known: it keeps all, and counts for nothing in the mean.
fn bound_loads(policy: &Policy, facts: &Facts, targets: &mut [Target]) {
    if !matches!(policy.pick, Pick::HashClient | Pick::HashName) {
        return;
    }
    let load = |target: &Target| {
        let report = facts.reports.get(usize::from(target.edge))?.as_ref()?;
        report.load.is_finite().then_some(report.load.max(0.0))
    };
    let loads: Vec<f64> = targets.iter().filter_map(load).collect();
    let mean = loads.iter().sum::<f64>() / loads.len() as f64;
    for target in targets {
        if let Some(load) = load(target) {
            target.kept = kept(load, mean, policy.bounded_load);
        }
    }
}

/// Whether none of its edges is wanted for clients, and health has no part in it.
fn all_are_drained(world: &World, policy: &Policy, facts: &Facts, id: DatacenterId) -> bool {
    world.edges_of(id).all(|(edge, _)| facts.edge_is_drained(policy, edge))
}

/// Every datacenter as if it were up; those that the operator wants no clients at only when there is no other.
fn as_if_up(world: &World, policy: &Policy, family: Family, facts: &Facts) -> Arc<[Serving]> {
    let wanted = |id: DatacenterId| {
        !matches!(facts.datacenter_mode(id), Mode::Down | Mode::Drain)
            && world.edges_of(id).any(|(_, edge)| edge.addresses.iter().any(|a| family.holds(a)))
    };
    let any_wanted = policy.datacenters.iter().any(|id| wanted(*id));
    let ids = (0..).zip(&world.datacenters).map(|(id, _)| id);
    ids.map(|id| {
        if any_wanted && !wanted(id) {
            return serving(world, policy, family, facts, id);
        }
        let not_out =
            |edge| facts.edge_mode(edge) != Mode::Down && !facts.edge_is_drained(policy, edge);
        let kept = substitute(world, family, id, not_out);
        if kept.targets.is_empty() { substitute(world, family, id, |_| true) } else { kept }
    })
    .collect()
}

fn substitute(
    world: &World,
    family: Family,
    id: DatacenterId,
    keep: impl Fn(EdgeId) -> bool,
) -> Serving {
    Serving { verdict: Verdict::Substitute, targets: targets(world, family, id, keep) }
}

fn targets(
    world: &World,
    family: Family,
    datacenter: DatacenterId,
    keep: impl Fn(EdgeId) -> bool,
) -> Box<[Target]> {
    let edges = world.edges_of(datacenter).filter(|(id, _)| keep(*id));
    let rendered = edges.map(|(id, edge)| {
        let (mut records, mut count) = (Vec::new(), 0);
        for address in edge.addresses.iter().filter(|address| family.holds(address)) {
            render(address, &mut records);
            count += 1;
        }
        let (key, weight) = (stable_key(&edge.name), edge.weight);
        Target { edge: id, records: records.into(), count, key, weight, kept: EVERYTHING }
    });
    rendered.filter(|target| target.count > 0).collect()
}

fn render(address: &IpAddr, records: &mut Vec<u8>) {
    let mut record = |rtype: u16, octets: &[u8]| {
        records.extend(crate::wire::QUESTION_NAME.to_be_bytes());
        records.extend(rtype.to_be_bytes());
        records.extend(crate::wire::class::IN.to_be_bytes());
        records.extend([0; 4]);
        records.extend([0, octets.len() as u8]);
        records.extend(octets);
    };
    match address {
        IpAddr::V4(v4) => record(crate::rtype::A, &v4.octets()),
        IpAddr::V6(v6) => record(crate::rtype::AAAA, &v6.octets()),
    }
}
