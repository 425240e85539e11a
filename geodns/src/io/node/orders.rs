//! The operator's word: taken when it leaves something to answer with, written before it counts.

use std::sync::PoisonError;
use std::time::Duration;

use shared::time::UnixMillis;

use super::{Node, State, facts};
use crate::health::{Mode, View};
use crate::io::state_file::Save;
use crate::monitor::Trust;
use crate::state::{Override, Overrides, Saved};
use crate::world::{Family, World};

/// Who an override is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::io) enum Subject<'a> {
    Datacenter(&'a str),
    Edge(&'a str),
}

/// Why an override was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::io) enum OverrideError {
    Unknown(String),
    /// It would take the last one that is up.
    LastHealthy(String),
    NotKept(String),
}

impl Node {
    /// Takes the operator's word, for ever or for a time. `force`: even when it takes the last datacenter that is up.
    /// Returns what is set now; none: health decides.
    pub(in crate::io) fn set_override(
        &self,
        subject: Subject<'_>,
        mode: Mode,
        length: Option<Duration>,
        force: bool,
    ) -> Result<Option<Override>, OverrideError> {
        let _turn = self.ordering.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.now();
        let until = length.map(|length| now + length);
        let given = (mode != Mode::Auto).then_some(Override { mode, since: now, until });
        let save = {
            let mut state = self.state();
            let served = self.served.load_full();
            let world = &served.snapshot.tables.world;
            let mut overrides = state.overrides.clone();
            set(&mut overrides, world, subject, given)?;
            let harm = match force {
                true => None,
                false => harm(world, &state, &overrides, &served.snapshot.health, now),
            };
            if let Some((policy, family)) = harm {
                let (Subject::Datacenter(name) | Subject::Edge(name)) = subject;
                let records = if family == Family::V4 { "IPv4" } else { "IPv6" };
                return Err(OverrideError::LastHealthy(format!(
                    "`{name}` is the last one up that steering policy `{policy}` has {records} addresses of: bring another up first, or force it"
                )));
            }
            let saved = Saved { overrides, ..state.saved(now) };
            self.state_file.as_ref().map(|file| Save::new(file, &saved))
        };
        // Without the lock: a slow disk holds up no probe.
        if let Some(save) = save {
            save.write().map_err(OverrideError::NotKept)?;
        }
        let mut state = self.state();
        let served = self.served.load_full();
        // A reload may have taken the name away meanwhile: then there is nothing to change.
        let _ = set(&mut state.overrides, &served.snapshot.tables.world, subject, given);
        let (Subject::Datacenter(name) | Subject::Edge(name)) = subject;
        tracing::info!(%name, ?mode, ?length, force, "the operator set the state");
        self.publish(&mut state);
        Ok(given)
    }
}

fn set(
    overrides: &mut Overrides,
    world: &World,
    subject: Subject<'_>,
    given: Option<Override>,
) -> Result<(), OverrideError> {
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
    match given {
        Some(given) => names.insert(name.to_owned(), given),
        None => names.remove(name),
    };
    Ok(())
}

/// The policy and family from which `after`, in the place of the overrides of `state`, takes the last that is up. What
/// stands only because this machine suspects itself is no reason to take what really is up.
fn harm<'w>(
    world: &'w World,
    state: &State,
    after: &Overrides,
    served: &View,
    now: UnixMillis,
) -> Option<(&'w str, Family)> {
    [Trust::Believed, Trust::Seen].into_iter().find_map(|trust| {
        let view = |overrides, before| {
            View::new(world, facts(world, state, overrides, trust, now), Some(before))
        };
        let until_now = view(&state.overrides, served);
        newly_down(world, &until_now, &view(after, &until_now))
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
