//! What a running nameserver shares among its threads and tasks, and the one place where it changes.
//!
//! Serving threads read [`Served`] through an atomic pointer. Probes, the operator and reloads change [`Node::state`]
//! under its lock, make a new view, and swap the pointer; no serving thread ever takes that lock.

mod export;
mod orders;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use shared::config::{Problem, Spec, listing};
use shared::health::State as HealthState;
use shared::io::clock;
use shared::io::log::JsonLog;
use shared::metrics::Registry;
use shared::time::UnixMillis;

pub(super) use self::orders::{OverrideError, Subject};
use super::dnstap::Tap;
use super::identity;
use super::load::Loading;
use super::probe::TICK;
use super::query_log::QueryLog;
use super::state_file::{Save, StateFile};
use crate::answer::{Context, Server};
use crate::config::Check;
use crate::health::{Facts, Mode, View};
use crate::intake::{Event, Intakes, Settings, What};
use crate::metrics::{self, Stats};
use crate::monitor::{Change, Monitor, Probed, TargetKey, Trust};
use crate::snapshot::Snapshot;
use crate::state::{Override, Overrides, Saved};
use crate::world::{DatacenterId, Family, World};

/// What serving threads read.
pub(super) struct Served {
    pub(super) snapshot: Snapshot,
    pub(super) server: Arc<Server>,
    pub(super) stats: Arc<Stats>,
    pub(super) log: QueryLog,
    pub(super) node: Arc<str>,
}

impl Served {
    /// What answering at `now` reads beside the snapshot.
    pub(super) fn context(&self, now: UnixMillis) -> Context<'_> {
        Context { server: &self.server, now }
    }
}

/// All that changes while a node runs.
pub(super) struct State {
    pub(super) monitor: Monitor,
    pub(super) overrides: Overrides,
    pub(super) checks: Arc<[Check]>,
    /// Counts the configurations taken, the first one included.
    pub(super) generation: u64,
    pub(super) loaded_at: UnixMillis,
    pub(super) last_reload_error: Option<String>,
    pub(super) intakes: Intakes,
    pub(super) settings: Settings,
    /// What was known at the start from the last run.
    pub(super) restored: Option<Restored>,
    stats: Vec<Arc<Stats>>,
    saving: Saving,
}

/// What the state file of the last run was worth.
#[derive(Clone, Copy, Debug)]
pub(super) struct Restored {
    pub(super) generation: u64,
    pub(super) age: Duration,
    pub(super) targets: usize,
}

/// What is not in the state file yet.
#[derive(Debug, Default)]
struct Saving {
    generation: u64,
    has_changed: bool,
    last: Option<UnixMillis>,
}

/// The state file is written this long after the last time, when something has changed.
const SAVE_CHANGES: Duration = Duration::from_secs(3);

impl State {
    /// Takes what was counted over into `registry`. Threads may still add to the counts they hold; those that nobody
    /// holds any more are let go.
    fn collect_counts(&mut self, registry: &Registry) {
        self.stats.retain(|stats| {
            // Asked first: what nobody else holds cannot grow any more.
            let is_held = Arc::strong_count(stats) > 1;
            stats.export(registry);
            is_held
        });
    }
}

/// A running nameserver.
pub(super) struct Node {
    pub(super) name: Arc<str>,
    pub(super) config_path: PathBuf,
    pub(super) registry: Arc<Registry>,
    pub(super) served: Arc<ArcSwap<Served>>,
    pub(super) started_at: UnixMillis,
    started: Instant,
    state_file: Option<Arc<StateFile>>,
    /// Held by whoever changes overrides and writes them: one at a time, and without the state's lock while the disk
    /// works.
    ordering: Mutex<()>,
    state: Mutex<State>,
}

impl Node {
    pub(super) fn new(
        name: &str,
        config_path: PathBuf,
        loading: Loading,
        registry: Arc<Registry>,
        log: JsonLog,
        tap: Tap,
    ) -> Result<Arc<Self>, String> {
        let spec = &loading.config.spec;
        let state_file = spec.nameserver.get(name).and_then(|node| node.state.clone());
        let (state_file, saved) = match state_file {
            Some(path) => {
                let (file, saved) = StateFile::open(path)?;
                (Some(Arc::new(file)), saved)
            }
            None => (None, None),
        };
        let log = QueryLog::new(log, tap, spec.log.sample);
        let server =
            identity::server(&loading.config, name, None).map_err(|problems| listing(&problems))?;
        let (now, started) = (clock::now(), clock::instant());
        let world = &loading.tables.world;
        let checks: Arc<[Check]> = loading.checks.into();
        let mut monitor = Monitor::default();
        monitor.configure(world, &checks, own_datacenter(spec, name, world), now);
        let settings = Settings::new(spec, world, monitor.patience());
        let mut intakes = Intakes::default();
        let (overrides, restored) = restore(saved, &mut monitor, &mut intakes, now);
        let saving = Saving {
            generation: restored.map_or(0, |restored| restored.generation),
            ..Saving::default()
        };
        let stats = Arc::new(Stats::new(&loading.tables.world));
        let snapshot = Snapshot::presumed_up(loading.tables);
        let name: Arc<str> = name.into();
        let served = Served {
            snapshot,
            server: Arc::new(server),
            stats: stats.clone(),
            log,
            node: Arc::clone(&name),
        };
        let node = Arc::new(Self {
            name,
            config_path,
            registry,
            served: Arc::new(ArcSwap::from_pointee(served)),
            started_at: now,
            started,
            state_file,
            ordering: Mutex::new(()),
            state: Mutex::new(State {
                monitor,
                overrides,
                checks,
                generation: 1,
                loaded_at: now,
                last_reload_error: None,
                intakes,
                settings,
                restored,
                stats: vec![stats],
                saving,
            }),
        });
        node.publish(&mut node.state());
        node.registry.gauge(&metrics::RELOAD_OK, &[]).set(1.0);
        Stats::declare(&node.registry);
        let weak = Arc::downgrade(&node);
        node.registry.on_scrape(move |registry| {
            if let Some(node) = weak.upgrade() {
                node.export(registry);
            }
        });
        Ok(node)
    }

    /// The wall clock at the start and what has passed since: setting the clock moves no decision.
    pub(super) fn now(&self) -> UnixMillis {
        self.started_at + self.started.elapsed()
    }

    /// The checks, and the world whose edges they name: of one configuration, not of two.
    pub(super) fn checks_and_served(&self) -> (Arc<[Check]>, Arc<Served>) {
        let state = self.state();
        (Arc::clone(&state.checks), self.served.load_full())
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a new configuration over, or changes nothing.
    pub(super) fn replace(&self, loading: Loading) -> Result<(), Vec<Problem>> {
        let before = &self.served.load().server;
        let server = identity::server(&loading.config, &self.name, Some(before))?;
        let mut state = self.state();
        let before = self.served.load_full();
        state.checks = loading.checks.into();
        let checks = Arc::clone(&state.checks);
        let (spec, world, now) = (&loading.config.spec, &loading.tables.world, self.now());
        state.monitor.configure(world, &checks, own_datacenter(spec, &self.name, world), now);
        state.settings = Settings::new(spec, world, state.monitor.patience());
        let stats = Arc::new(Stats::new(&loading.tables.world));
        state.stats.push(Arc::clone(&stats));
        state.collect_counts(&self.registry);
        state.generation += 1;
        state.loaded_at = clock::now();
        state.last_reload_error = None;
        before.log.reopen();
        let facts = facts(&loading.tables.world, &state, &state.overrides, Trust::Believed, now);
        self.served.store(Arc::new(Served {
            snapshot: before.snapshot.with_tables(loading.tables, facts),
            server: Arc::new(server),
            stats,
            log: before.log.clone(),
            node: Arc::clone(&self.name),
        }));
        self.publish(&mut state);
        self.registry.gauge(&metrics::RELOAD_OK, &[]).set(1.0);
        Ok(())
    }

    /// Notes that a reload was refused.
    pub(super) fn refuse_reload(&self, why: String) {
        self.state().last_reload_error = Some(why);
        self.registry.gauge(&metrics::RELOAD_OK, &[]).set(0.0);
    }

    /// Takes the result of a probe.
    pub(super) fn record(&self, key: &TargetKey, probed: Probed) {
        let mut state = self.state();
        let suspected = state.monitor.suspicion().is_some();
        let failure = probed.failure.clone();
        let change = state.monitor.record(key, probed, self.now());
        self.took(&mut state, &change, failure.as_deref(), suspected);
        if change.is_visible {
            self.publish(&mut state);
        }
    }

    /// Lets time pass: holds, suspicions and overrides end, ramps and shedding go on, TTLs shrink before what is to
    /// come.
    pub(super) fn tick(&self) {
        let mut state = self.state();
        let now = self.now();
        let suspected = state.monitor.suspicion().is_some();
        let change = state.monitor.tick(now);
        self.took(&mut state, &change, None, suspected);
        let expired = state.overrides.expire(now);
        for name in &expired {
            tracing::info!(%name, "the time of an override is over: health decides again");
        }
        state.saving.has_changed |= !expired.is_empty();
        let served = self.served.load_full();
        let (world, view) = (&served.snapshot.tables.world, &served.snapshot.health);
        self.advance(world, &mut state, view, now);
        if change.is_visible || !expired.is_empty() || is_outdated(world, &state, view, now) {
            self.publish(&mut state);
        }
    }

    /// Tells what a result or the passing of time has changed.
    fn took(&self, state: &mut State, change: &Change, failure: Option<&str>, suspected: bool) {
        for ((check, edge), now) in &change.states {
            match now {
                HealthState::Down => {
                    let failure = failure.unwrap_or_default();
                    tracing::warn!(%check, %edge, %failure, "an edge is down");
                }
                _ => tracing::info!(%check, %edge, "an edge is up"),
            }
        }
        state.saving.has_changed |= !change.states.is_empty();
        self.tell_suspicion(state, suspected);
    }

    fn tell_suspicion(&self, state: &State, before: bool) {
        match (before, state.monitor.suspicion()) {
            (false, Some(suspicion)) => tracing::error!(
                bad = suspicion.bad,
                of = suspicion.of,
                "most targets turned bad at once: this node's own view is suspected, and the last good state stands"
            ),
            (true, None) => tracing::warn!("this node's view is believed again"),
            _ => {}
        }
    }

    /// Lets ramps and shedding go on with what `view` shows.
    fn advance(&self, world: &World, state: &mut State, view: &View, now: UnixMillis) {
        let since_start = now.since(self.started_at);
        let doubted = state.monitor.doubted_from();
        let State { intakes, settings, .. } = state;
        let events = intakes.advance(world, settings, view, doubted, since_start, now);
        state.saving.has_changed |= !events.is_empty();
        events.iter().for_each(tell_event);
    }

    /// Makes the view that follows from `state`.
    fn publish(&self, state: &mut State) {
        let served = self.served.load_full();
        let (tables, before) = (&served.snapshot.tables, &served.snapshot.health);
        let now = self.now();
        let world = &tables.world;
        let mut view = View::new(
            world,
            facts(world, state, &state.overrides, Trust::Believed, now),
            Some(before),
        );
        self.advance(world, state, &view, now);
        if is_outdated(world, state, &view, now) {
            view = View::new(
                world,
                facts(world, state, &state.overrides, Trust::Believed, now),
                Some(before),
            );
        }
        self.served.store(Arc::new(Served {
            snapshot: Snapshot { tables: Arc::clone(tables), health: Arc::new(view) },
            server: Arc::clone(&served.server),
            stats: Arc::clone(&served.stats),
            log: served.log.clone(),
            node: Arc::clone(&self.name),
        }));
    }

    /// What should be written to the state file now, if anything: after changes, and often enough that what lies there
    /// is young enough to be believed.
    pub(super) fn save_if_due(&self) -> Option<Save> {
        let file = self.state_file.as_ref()?;
        // Whoever changes overrides writes everything.
        let _turn = self.ordering.try_lock().ok()?;
        let mut state = self.state();
        let now = self.now();
        let age = state.saving.last.map_or(Duration::MAX, |last| now.since(last));
        let old = state.monitor.patience() / 3;
        let is_due = age >= old || (state.saving.has_changed && age >= SAVE_CHANGES);
        is_due.then(|| Save::new(file, &state.saved(now)))
    }

    /// Writes the state file, at the end of the program.
    pub(super) fn save(&self) {
        let Some(file) = &self.state_file else { return };
        let _turn = self.ordering.lock().unwrap_or_else(PoisonError::into_inner);
        let save = Save::new(file, &self.state().saved(self.now()));
        if let Err(why) = save.write() {
            tracing::warn!("{why}");
        }
    }
}

impl State {
    /// What is to be written, as the next generation.
    fn saved(&mut self, now: UnixMillis) -> Saved {
        self.saving.generation += 1;
        self.saving.has_changed = false;
        self.saving.last = Some(now);
        Saved {
            generation: self.saving.generation,
            written: now,
            overrides: self.overrides.clone(),
            targets: self.monitor.beliefs(),
            returns: self.intakes.returns(),
        }
    }
}

fn tell_event(event: &Event) {
    let Event { policy, datacenter, what } = event;
    match what {
        What::RampBegins => {
            tracing::info!(%policy, %datacenter, "a datacenter begins to get its clients back");
        }
        What::RampEnds => tracing::info!(%policy, %datacenter, "a datacenter has its clients back"),
        What::ShedBegins(load) => {
            tracing::warn!(%policy, %datacenter, load, "a datacenter has too much load and sheds clients");
        }
        What::ShedEnds => {
            tracing::info!(%policy, %datacenter, "a datacenter sheds no clients any more")
        }
    }
}

/// The datacenter that this nameserver stands in.
fn own_datacenter(spec: &Spec, node: &str, world: &World) -> Option<DatacenterId> {
    world.datacenter_id(spec.nameserver.get(node)?.datacenter.as_ref()?)
}

/// Goes on with what the last run knew.
fn restore(
    saved: Option<Saved>,
    monitor: &mut Monitor,
    intakes: &mut Intakes,
    now: UnixMillis,
) -> (Overrides, Option<Restored>) {
    let Some(mut saved) = saved else { return (Overrides::default(), None) };
    for name in saved.overrides.expire(now) {
        tracing::info!(%name, "the time of an override was over before the start");
    }
    let age = now.since(saved.written);
    let targets = monitor.restore(&saved.targets, now);
    if age <= monitor.patience() {
        intakes.restore(saved.returns);
    }
    let generation = saved.generation;
    tracing::info!(generation, ?age, targets, "goes on with the state of the last run");
    (saved.overrides, Some(Restored { generation, age, targets }))
}

/// Whether `view` shows other intakes than there are now, or answers of it would outlive something.
fn is_outdated(world: &World, state: &State, view: &View, now: UnixMillis) -> bool {
    if view.facts.intakes != state.intakes.all(world, &state.settings) {
        return true;
    }
    let policies = world.policies.iter().zip(soonest(world, state, now));
    policies.zip(&view.facts.soonest).any(|((policy, new), old)| {
        let ttl = |bound: &Duration| {
            u32::try_from(bound.as_secs())
                .unwrap_or(u32::MAX)
                .clamp(policy.ttl_min, policy.ttl_max.max(policy.ttl_min))
        };
        ttl(&new) != ttl(old)
    })
}

/// By policy: the least time until its answers change by something else than a probe's result. The tick that sees to it
/// may come late, and so may the view that is made for it.
fn soonest(world: &World, state: &State, now: UnixMillis) -> Vec<Duration> {
    let by_operator = state.overrides.next_end().map(|end| end.since(now));
    let steps = state.intakes.soonest(world, &state.settings, now);
    let policies = world.policies.iter().zip(steps);
    policies
        .map(|(policy, step)| {
            let check = policy.check.and_then(|id| world.checks.get(usize::from(id)));
            let by_health = check.and_then(|check| state.monitor.next_end(check, now));
            let ends = by_operator.into_iter().chain(by_health);
            ends.fold(step, Duration::min).saturating_sub(TICK)
        })
        .collect()
}

/// Whether some policy can answer with it.
pub(super) fn datacenter_is_up(world: &World, view: &View, id: u16) -> bool {
    (0..world.policies.len()).any(|policy| {
        let policy = u16::try_from(policy).unwrap_or(u16::MAX);
        Family::ALL.iter().any(|family| {
            view.family(policy, *family)
                .and_then(|family| family.serving(id))
                .is_some_and(|serving| serving.verdict == crate::health::Verdict::Up)
        })
    })
}

/// What a view is made from. The overrides may be others than those of `state`, to see what would be.
fn facts(
    world: &World,
    state: &State,
    overrides: &Overrides,
    trust: Trust,
    now: UnixMillis,
) -> Facts {
    let mode = |names: &BTreeMap<String, Override>, name: &str| -> Mode {
        names.get(name).map(|given| given.mode).unwrap_or_default()
    };
    let Overrides { datacenters, edges } = overrides;
    Facts {
        observed: state.monitor.observed(world, trust, now),
        datacenters: world.datacenters.iter().map(|dc| mode(datacenters, &dc.name)).collect(),
        edges: world.edges.iter().map(|edge| mode(edges, &edge.name)).collect(),
        intakes: state.intakes.all(world, &state.settings),
        reports: state.monitor.reports(world, now),
        soonest: soonest(world, state, now),
    }
}

/// Random numbers for draws: fast, not for secrets. Each thread has its own.
pub(super) struct Draws(u64);

impl Draws {
    pub(super) fn new() -> Self {
        Self(RandomState::new().hash_one(0) | 1)
    }

    /// The next number (xorshift64*).
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

#[cfg(test)]
pub(super) mod tests;
