//! `GET /v1/status`: what a nameserver believes, and since when and until when.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shared::health::State as HealthState;
use shared::report::{Report, State as ReportState};
use shared::time::UnixMillis;

use super::node::{Node, State, datacenter_is_up};
use crate::health::Mode;
use crate::monitor::TargetStatus;
use crate::state::Override;
use crate::world::{DatacenterId, Family, World};

/// `GET /v1/status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The node's name.
    pub node: String,
    /// Version of the program.
    pub version: String,
    /// Whether it answers.
    pub ready: bool,
    /// Seconds since it started.
    pub uptime: u64,
    /// Counts the configurations taken.
    pub generation: u64,
    /// When the last one was taken.
    pub loaded_at: String,
    /// Why a later one was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_reload_error: Option<String>,
    /// Zones and their serials.
    pub zones: BTreeMap<String, u32>,
    /// Datacenters in the order of their names.
    pub datacenters: Vec<DatacenterStatus>,
    /// Maps by policy.
    pub policies: Vec<PolicyStatus>,
    /// Why the last good state stands although most checks fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monitor_suspected: Option<String>,
    /// What the state file of the last run was worth at the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restored: Option<RestoredStatus>,
}

/// The state file of the last run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RestoredStatus {
    /// Counts its writes.
    pub generation: u64,
    /// Its age at the start, in seconds.
    pub age: u64,
    /// Targets that were known from it.
    pub targets: usize,
}

/// What the operator set.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SetStatus {
    /// What.
    pub mode: Mode,
    /// Since when.
    pub since: String,
    /// Until when; none: until the operator says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Seconds left until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<u64>,
}

/// How much of its clients a datacenter takes, for a policy for which that is not all.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IntakeStatus {
    /// The policy.
    pub policy: String,
    /// The share of its clients that it has back since it returned.
    pub returned: f64,
    /// The share of its clients that it sheds for its load.
    pub shed: f64,
    /// Its load, as the policy reckons with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<f64>,
}

/// A datacenter.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DatacenterStatus {
    /// Its name.
    pub name: String,
    /// Latitude and longitude.
    #[serde(default)]
    pub location: [f64; 2],
    /// What it can send, in bits per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u64>,
    /// Whether some policy answers with it.
    pub up: bool,
    /// What the operator set.
    pub mode: Mode,
    /// The same, and for how long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set: Option<SetStatus>,
    /// Policies for which it does not take all its clients.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub intakes: Vec<IntakeStatus>,
    /// Its edges.
    pub edges: Vec<EdgeStatus>,
}

/// An edge.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EdgeStatus {
    /// Its name.
    pub name: String,
    /// What DNS answers with.
    pub addresses: Vec<std::net::IpAddr>,
    /// What the operator set.
    pub mode: Mode,
    /// The same, and for how long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set: Option<SetStatus>,
    /// What it says of itself, while that is fresh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
    /// What each check says.
    pub checks: Vec<CheckStatus>,
}

/// What a check says of an edge.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CheckStatus {
    /// The check.
    pub check: String,
    /// `up`, `down` or `unknown`.
    pub state: String,
    /// Since when.
    pub since: String,
    /// Why the last try failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// It is held down until then, for flapping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_until: Option<String>,
    /// It is down, but answered all the same: the monitor is suspected.
    #[serde(default)]
    pub stands: bool,
    /// It takes no new clients, by its own word.
    #[serde(default)]
    pub draining: bool,
    /// It has not been asked yet: this is what the last run knew.
    #[serde(default)]
    pub from_last_run: bool,
    /// Days until its certificate ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_days: Option<i64>,
}

/// A policy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// Its name.
    pub name: String,
    /// Ranges of client addresses in its map.
    pub ranges: usize,
    /// Different orders of datacenters.
    pub lists: usize,
    /// Bytes of its map.
    pub memory: usize,
    /// TTL of its answers now, in seconds: nothing that is answered now lives longer.
    #[serde(default)]
    pub ttl: u32,
}

pub(super) fn status(node: &Node, ready: bool) -> Status {
    let state = node.state();
    let served = node.served.load_full();
    let tables = &served.snapshot.tables;
    let world = &tables.world;
    let now = node.now();
    let reports = state.monitor.reports(world, now);
    let set = |names: &BTreeMap<String, Override>, name: &str| {
        let given = names.get(name)?;
        Some(SetStatus {
            mode: given.mode,
            since: given.since.to_string(),
            until: given.until.map(|until| until.to_string()),
            left: given.until.map(|until| until.since(now).as_secs()),
        })
    };
    let mode = |set: &Option<SetStatus>| set.as_ref().map(|set| set.mode).unwrap_or_default();
    let edges = |id: DatacenterId| {
        let edges = world.edges_of(id).map(|(id, edge)| {
            let set = set(&state.overrides.edges, &edge.name);
            EdgeStatus {
                name: edge.name.clone(),
                addresses: edge.addresses.clone(),
                mode: mode(&set),
                set,
                report: reports.get(usize::from(id)).cloned().flatten().map(|r| (*r).clone()),
                checks: checks(&state, &edge.name, now),
            }
        });
        edges.collect()
    };
    let datacenters = (0..).zip(&world.datacenters).map(|(id, datacenter)| {
        let set = set(&state.overrides.datacenters, &datacenter.name);
        let up = datacenter_is_up(world, &served.snapshot.health, id);
        DatacenterStatus {
            name: datacenter.name.clone(),
            location: [datacenter.location.lat(), datacenter.location.lon()],
            capacity: datacenter.capacity,
            up,
            mode: mode(&set),
            set,
            // One that is down takes nobody back.
            intakes: if up { intakes(&state, world, id) } else { Vec::new() },
            edges: edges(id),
        }
    });
    let policies = (0..).zip(&world.policies).filter_map(|(id, policy)| {
        let (_, map) = tables.policy(id)?;
        let (ranges, lists) = map.size();
        let health = &served.snapshot.health;
        let ttls = Family::ALL.iter().filter_map(|family| Some(health.family(id, *family)?.ttl));
        Some(PolicyStatus {
            name: policy.name.clone(),
            ranges,
            lists,
            memory: map.memory(),
            ttl: ttls.max().unwrap_or_default(),
        })
    });
    Status {
        node: node.name.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ready,
        uptime: now.since(node.started_at).as_secs(),
        generation: state.generation,
        loaded_at: state.loaded_at.to_string(),
        last_reload_error: state.last_reload_error.clone(),
        zones: tables.zones.iter().map(|zone| (zone.apex.to_string(), zone.serial)).collect(),
        datacenters: datacenters.collect(),
        policies: policies.collect(),
        monitor_suspected: state.monitor.suspicion().map(|suspicion| {
            format!(
                "{} of {} targets turned bad at once at {}: the last good state stands until {}, or until others prove from {} on that this node can see",
                suspicion.bad, suspicion.of, suspicion.since, suspicion.until, suspicion.proof_from
            )
        }),
        restored: state.restored.map(|restored| RestoredStatus {
            generation: restored.generation,
            age: restored.age.as_secs(),
            targets: restored.targets,
        }),
    }
}

fn checks(state: &State, edge: &str, now: UnixMillis) -> Vec<CheckStatus> {
    let status = |target: TargetStatus<'_>| CheckStatus {
        check: target.key.0.clone(),
        state: match target.state {
            HealthState::Unknown => "unknown",
            HealthState::Up => "up",
            HealthState::Down => "down",
        }
        .to_owned(),
        since: target.since.to_string(),
        failure: target.failure.map(str::to_owned),
        held_until: target.held_until.map(|until| until.to_string()),
        stands: target.stands,
        draining: target.state.is_usable()
            && target.report.is_some_and(|report| report.state == ReportState::Draining),
        from_last_run: target.is_restored,
        certificate_days: target.certificate_days,
    };
    state.monitor.targets(now).filter(|target| target.key.1 == edge).map(status).collect()
}

fn intakes(state: &State, world: &World, id: DatacenterId) -> Vec<IntakeStatus> {
    let all = state.intakes.all(world, &state.settings);
    let intakes = world.policies.iter().zip(all).filter_map(|(policy, intakes)| {
        let intake = intakes.get(usize::from(id)).copied()?;
        let is_whole = intake.returned >= 1.0 && intake.shed <= 0.0;
        (!is_whole && policy.datacenters.contains(&id)).then(|| IntakeStatus {
            policy: policy.name.clone(),
            returned: intake.returned,
            shed: intake.shed,
            load: state.intakes.load(&policy.name, world.datacenter_name(id)),
        })
    });
    intakes.collect()
}
