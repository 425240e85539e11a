//! What a running nameserver shares among its threads and tasks, and the one place where it changes.
//!
//! Serving threads read [`Served`] through an atomic pointer. Probes, the operator and reloads change [`Node::state`]
//! under its lock, make a new view, and swap the pointer; no serving thread ever takes that lock.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use shared::config::{Problem, listing};
use shared::health::State as HealthState;
use shared::io::clock;
use shared::io::files;
use shared::io::log::JsonLog;
use shared::metrics::Registry;
use shared::time::UnixMillis;

use super::identity;
use super::load::Loading;
use super::query_log::QueryLog;
use crate::answer::{Context, Server};
use crate::config::Check;
use crate::health::{Facts, Mode, View};
use crate::metrics::{self, Stats};
use crate::monitor::{Monitor, TargetKey};
use crate::snapshot::Snapshot;
use crate::world::{Family, World};

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

/// The operator's word on a datacenter or an edge, by name, so that it outlives reloads and restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Overrides {
    pub(super) datacenters: BTreeMap<String, Mode>,
    pub(super) edges: BTreeMap<String, Mode>,
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
    stats: Vec<Arc<Stats>>,
}

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
    state_file: Option<PathBuf>,
    state: Mutex<State>,
}

/// Who an override is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject<'a> {
    Datacenter(&'a str),
    Edge(&'a str),
}

/// Why an override was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OverrideError {
    Unknown(String),
    /// It would take the last one that is up.
    LastHealthy(String),
    NotKept(String),
}

impl Node {
    pub(super) fn new(
        name: &str,
        config_path: PathBuf,
        loading: Loading,
        registry: Arc<Registry>,
        log: JsonLog,
    ) -> Result<Arc<Self>, String> {
        let spec = &loading.config.spec;
        let state_file = spec.nameserver.get(name).and_then(|node| node.state.clone());
        let overrides = match &state_file {
            Some(path) => read_overrides(path)?,
            None => Overrides::default(),
        };
        let log = QueryLog::new(log, spec.log.sample);
        let server =
            identity::server(&loading.config, name, None).map_err(|problems| listing(&problems))?;
        let (now, started) = (clock::now(), clock::instant());
        let checks: Arc<[Check]> = loading.checks.into();
        let mut monitor = Monitor::default();
        monitor.configure(&loading.tables.world, &checks, now);
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
            state: Mutex::new(State {
                monitor,
                overrides,
                checks,
                generation: 1,
                loaded_at: now,
                last_reload_error: None,
                stats: vec![stats],
            }),
        });
        node.publish(&node.state());
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
        state.monitor.configure(&loading.tables.world, &checks, self.now());
        let stats = Arc::new(Stats::new(&loading.tables.world));
        state.stats.push(Arc::clone(&stats));
        state.collect_counts(&self.registry);
        state.generation += 1;
        state.loaded_at = clock::now();
        state.last_reload_error = None;
        before.log.reopen();
        let facts = facts(&loading.tables.world, &state);
        self.served.store(Arc::new(Served {
            snapshot: before.snapshot.with_tables(loading.tables, facts),
            server: Arc::new(server),
            stats,
            log: before.log.clone(),
            node: Arc::clone(&self.name),
        }));
        self.registry.gauge(&metrics::RELOAD_OK, &[]).set(1.0);
        Ok(())
    }

    /// Notes that a reload was refused.
    pub(super) fn refuse_reload(&self, why: String) {
        self.state().last_reload_error = Some(why);
        self.registry.gauge(&metrics::RELOAD_OK, &[]).set(0.0);
    }

    /// Takes the result of a probe.
    pub(super) fn record(&self, key: &TargetKey, result: Result<(), String>) {
        let mut state = self.state();
        let suspected = state.monitor.suspicion().is_some();
        let failure = result.as_ref().err().cloned();
        let change = state.monitor.record(key, result.map_err(Into::into), self.now());
        let (check, edge) = (&key.0, &key.1);
        match change.state {
            Some(HealthState::Down) => {
                let failure = failure.unwrap_or_default();
                tracing::warn!(%check, %edge, %failure, "an edge is down");
            }
            Some(_) => tracing::info!(%check, %edge, "an edge is up"),
            None => {}
        }
        self.tell_suspicion(&state, suspected);
        if change.is_visible {
            self.publish(&state);
        }
    }

    /// Lets time pass.
    pub(super) fn tick(&self) {
        let mut state = self.state();
        let suspected = state.monitor.suspicion().is_some();
        if state.monitor.tick(self.now()) {
            self.tell_suspicion(&state, suspected);
            self.publish(&state);
        }
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

    /// Makes the view that follows from `state`.
    fn publish(&self, state: &State) {
        let served = self.served.load_full();
        let snapshot = &served.snapshot;
        let facts = facts(&snapshot.tables.world, state);
        self.served.store(Arc::new(Served {
            snapshot: snapshot.with_health(facts),
            server: Arc::clone(&served.server),
            stats: Arc::clone(&served.stats),
            log: served.log.clone(),
            node: Arc::clone(&self.name),
        }));
    }

    /// Takes the operator's word. `force`: even when it takes the last datacenter that is up.
    pub(super) fn set_override(
        &self,
        subject: Subject<'_>,
        mode: Mode,
        force: bool,
    ) -> Result<(), OverrideError> {
        let mut state = self.state();
        let served = self.served.load_full();
        let world = &served.snapshot.tables.world;
        let mut overrides = state.overrides.clone();
        let (names, name) = match subject {
            Subject::Datacenter(name) if world.datacenter_id(name).is_none() => {
                return Err(OverrideError::Unknown(format!("there is no datacenter `{name}`")));
            }
            Subject::Edge(name) if world.edge_id(name).is_none() => {
                return Err(OverrideError::Unknown(format!("no edge `{name}` is answered by DNS")));
            }
            Subject::Datacenter(name) => (&mut overrides.datacenters, name),
            Subject::Edge(name) => (&mut overrides.edges, name),
        };
        match mode {
            Mode::Auto => names.remove(name),
            mode => names.insert(name.to_owned(), mode),
        };
        let before = std::mem::replace(&mut state.overrides, overrides);
        let after = View::new(world, facts(world, &state), Some(&served.snapshot.health));
        let harm = newly_down(world, &served.snapshot.health, &after);
        let takes = matches!(mode, Mode::Down | Mode::Drain);
        if let (true, false, Some((policy, family))) = (takes, force, harm) {
            state.overrides = before;
            let records = if family == Family::V4 { "IPv4" } else { "IPv6" };
            return Err(OverrideError::LastHealthy(format!(
                "`{name}` is the last one up that steering policy `{policy}` has {records} addresses of: bring another up first, or force it"
            )));
        }
        if let Some(path) = &self.state_file
            && let Err(why) = write_overrides(path, &state.overrides)
        {
            state.overrides = before;
            return Err(OverrideError::NotKept(why));
        }
        tracing::info!(%name, ?mode, force, "the operator set the state");
        self.publish(&state);
        Ok(())
    }

    fn export(&self, registry: &Registry) {
        let mut state = self.state();
        state.collect_counts(registry);
        let served = self.served.load_full();
        let world = &served.snapshot.tables.world;
        for (id, datacenter) in (0..).zip(&world.datacenters) {
            let is_up = datacenter_is_up(world, &served.snapshot.health, id);
            let gauge = registry.gauge(&metrics::DATACENTER_UP, &[&datacenter.name]);
            gauge.set(f64::from(u8::from(is_up)));
        }
        registry.retain(&metrics::DATACENTER_UP, |labels| {
            labels.first().is_some_and(|name| world.datacenter_id(name).is_some())
        });
        for ((check, edge), health, ..) in state.monitor.targets() {
            let gauge = registry.gauge(&metrics::EDGE_UP, &[edge, check]);
            gauge.set(f64::from(u8::from(health.is_usable())));
        }
        registry.retain(&metrics::EDGE_UP, |labels| {
            state.monitor.targets().any(|((check, edge), ..)| labels == [edge.as_str(), check])
        });
        let suspected = state.monitor.suspicion().is_some();
        registry.gauge(&metrics::MONITOR_SUSPECTED, &[]).set(f64::from(u8::from(suspected)));
    }
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

/// The first policy and family that had a datacenter up and have none any more.
fn newly_down<'w>(world: &'w World, before: &View, after: &View) -> Option<(&'w str, Family)> {
    let all_down = |view: &View, id, family| {
        view.family(id, family).is_some_and(|family| family.all_down.is_some())
    };
    (0..).zip(&world.policies).find_map(|(id, policy)| {
        let lost = |family: &Family| !all_down(before, id, *family) && all_down(after, id, *family);
        Family::ALL.into_iter().find(lost).map(|family| (policy.name.as_str(), family))
    })
}

fn facts(world: &World, state: &State) -> Facts {
    let mode = |names: &BTreeMap<String, Mode>, name: &str| names.get(name).copied();
    Facts {
        observed: state.monitor.observed(world),
        datacenters: world
            .datacenters
            .iter()
            .map(|dc| mode(&state.overrides.datacenters, &dc.name).unwrap_or_default())
            .collect(),
        edges: world
            .edges
            .iter()
            .map(|edge| mode(&state.overrides.edges, &edge.name).unwrap_or_default())
            .collect(),
        ..Facts::unknown(world)
    }
}

fn read_overrides(path: &std::path::Path) -> Result<Overrides, String> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
            format!("{} is damaged: {error}; remove it to go on without", path.display())
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Overrides::default()),
        Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
    }
}

fn write_overrides(path: &std::path::Path, overrides: &Overrides) -> Result<(), String> {
    let bytes = serde_json::to_vec_pretty(overrides).map_err(|error| error.to_string())?;
    files::replace(path, &bytes)
        .map_err(|error| format!("{} cannot be written: {error}", path.display()))
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
