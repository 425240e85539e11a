//! The rehearsal: where clients go now, and where they would go after a change.
//!
//! Runs the serving decision itself, through [`crate::answer`], for the queries of a log ([`log`]) or for the client
//! networks of the map ([`population`]), once against the world as it is and once against the changed one, and adds up
//! who moves ([`report`]). Where logs, configurations and the present health come from is `io`'s and the commands'.

pub mod log;
pub mod population;
pub mod report;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use shared::prefix::Prefix;
use shared::time::UnixMillis;

use crate::answer::{Client, Context, MAX_MESSAGE, Outcome, Server, Transport, answer, decide};
use crate::health::{Facts, Mode};
use crate::name::Name;
use crate::reason::Reason;
use crate::rtype;
use crate::snapshot::{Snapshot, Tables};
use crate::wire;
use crate::world::{CheckId, DatacenterId, EdgeId, Family, Order, PolicyId, World};
use crate::zone::Zones;

/// What is rehearsed. Datacenters by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// These count as down.
    pub down: Vec<String>,
    /// These are drained.
    pub drain: Vec<String>,
    /// These count as up, whatever checks and operator say now.
    pub up: Vec<String>,
    /// These have another weight.
    pub weights: Vec<(String, u32)>,
}

/// Reads `DC=W` or `DC:W`.
///
/// # Errors
/// What would be right.
pub fn parse_weight(text: &str) -> Result<(String, u32), String> {
    let wrong =
        || format!("`{text}` is not a weight: write a datacenter and a number, such as \"fra=3\"");
    let (name, weight) = text.rsplit_once(['=', ':']).ok_or_else(wrong)?;
    let weight = weight.parse().map_err(|_| wrong())?;
    if name.is_empty() { Err(wrong()) } else { Ok((name.to_owned(), weight)) }
}

impl Change {
    /// The snapshot after this change. `zones` go with it when weights change: a rehearsal with the map's population
    /// asks no names and needs none.
    ///
    /// # Errors
    /// A datacenter that there is not, or one that is named twice.
    pub fn apply(
        &self,
        snapshot: &Snapshot,
        zones: impl FnOnce() -> Zones,
    ) -> Result<Snapshot, String> {
        let tables = &snapshot.tables;
        let mut facts = snapshot.health.facts.clone();
        facts.datacenters.resize(tables.world.datacenters.len(), Mode::Auto);
        let mut set = Vec::new();
        for (names, mode) in
            [(&self.down, Mode::Down), (&self.drain, Mode::Drain), (&self.up, Mode::Up)]
        {
            for name in names {
                let id = datacenter(&tables.world, name)?;
                if set.iter().any(|(other, before)| *other == id && *before != mode) {
                    return Err(format!("the datacenter `{name}` is to be in two states at once"));
                }
                set.push((id, mode));
                if let Some(slot) = facts.datacenters.get_mut(usize::from(id)) {
                    *slot = mode;
                }
            }
        }
        if self.weights.is_empty() {
            return Ok(snapshot.with_health(facts));
        }
        let mut world = tables.world.clone();
        for (name, weight) in &self.weights {
            let id = datacenter(&world, name)?;
            if let Some(datacenter) = world.datacenters.get_mut(usize::from(id)) {
                datacenter.weight = *weight;
            }
        }
        let geography = std::sync::Arc::clone(&tables.geography);
        Ok(snapshot.with_tables(Tables::new(world, zones(), geography), facts))
    }

    /// In words, one entry for each part.
    pub fn describe(&self) -> Vec<String> {
        let states = [(&self.down, "down"), (&self.drain, "drained"), (&self.up, "up")];
        let states = states
            .into_iter()
            .flat_map(|(names, state)| names.iter().map(move |name| format!("{name} {state}")));
        let weights = self.weights.iter().map(|(name, weight)| format!("{name} weight {weight}"));
        states.chain(weights).collect()
    }

    /// What of this change can have no effect, in words.
    pub fn idle_parts(&self, world: &World) -> Vec<String> {
        let weighted = |name: &str| {
            let id = world.datacenter_id(name);
            let mut policies =
                world.policies.iter().filter(|policy| policy.order == Order::Weighted);
            policies.any(|policy| id.is_some_and(|id| policy.datacenters.contains(&id)))
        };
        let idle = self.weights.iter().filter(|(name, _)| !weighted(name));
        idle.map(|(name, _)| {
            format!("the weight of {name} moves nobody: no policy with order = \"weighted\" has it")
        })
        .collect()
    }
}

fn datacenter(world: &World, name: &str) -> Result<DatacenterId, String> {
    world.datacenter_id(name).ok_or_else(|| {
        let names: Vec<_> = world.datacenters.iter().map(|dc| dc.name.as_str()).collect();
        format!("there is no datacenter `{name}`; there are: {}", names.join(", "))
    })
}

/// What is known of one world's health, said of another world: names count, ids may differ. Of what only the other one
/// has nothing is known, so it counts as up.
pub fn facts_for(world: &World, from: &World, facts: &Facts) -> Facts {
    let mut carried = Facts::unknown(world);
    let edge_of = |id: usize| -> Option<EdgeId> { from.edge_id(&world.edges.get(id)?.name) };
    let check_of = |id: usize| -> Option<CheckId> {
        let at = from.checks.iter().position(|name| Some(name) == world.checks.get(id))?;
        CheckId::try_from(at).ok()
    };
    let datacenter_of = |id: usize| from.datacenter_id(&world.datacenters.get(id)?.name);
    let policy_of = |id: usize| policy_id(from, &world.policies.get(id)?.name);
    for (check, edges) in carried.observed.iter_mut().enumerate() {
        for (edge, seen) in edges.iter_mut().enumerate() {
            let known = check_of(check).zip(edge_of(edge));
            *seen = known.and_then(|(check, edge)| facts.observed(Some(check), edge)).cloned();
        }
    }
    for (id, mode) in carried.datacenters.iter_mut().enumerate() {
        let known = datacenter_of(id).and_then(|id| facts.datacenters.get(usize::from(id)));
        *mode = known.copied().unwrap_or_default();
    }
    for (id, mode) in carried.edges.iter_mut().enumerate() {
        let known = edge_of(id).and_then(|id| facts.edges.get(usize::from(id)));
        *mode = known.copied().unwrap_or_default();
    }
    for (id, report) in carried.reports.iter_mut().enumerate() {
        *report = edge_of(id).and_then(|id| facts.reports.get(usize::from(id))?.clone());
    }
    for (policy, intakes) in carried.intakes.iter_mut().enumerate() {
        let known = policy_of(policy).and_then(|id| facts.intakes.get(usize::from(id)));
        for (id, intake) in intakes.iter_mut().enumerate() {
            let of_datacenter = known.zip(datacenter_of(id));
            let known = of_datacenter.and_then(|(known, id)| known.get(usize::from(id)));
            *intake = known.copied().unwrap_or_default();
        }
    }
    carried
}

fn policy_id(world: &World, name: &str) -> Option<PolicyId> {
    PolicyId::try_from(world.policies.iter().position(|policy| policy.name == name)?).ok()
}

/// Who was asked for: a policy before and the one in its place after, and the family of the clients' networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    before: Option<PolicyId>,
    after: Option<PolicyId>,
    is_v6: bool,
}

/// Position in [`Rehearsal::names`]; none: no datacenter was answered.
type Place = Option<u16>;

/// What was added up for one [`Key`].
#[derive(Clone, Debug, Default)]
struct Group {
    /// Networks or queries.
    cases: u64,
    weight: f64,
    /// Weight by datacenter before and after.
    moves: BTreeMap<(Place, Place), f64>,
}

/// A rehearsal in the making. Its memory grows with datacenters and policies, not with what is added.
pub struct Rehearsal<'s> {
    before: &'s Snapshot,
    after: &'s Snapshot,
    /// All datacenters: those before, then those that are new.
    names: Vec<String>,
    /// By datacenter after.
    place_of_after: Vec<u16>,
    groups: BTreeMap<Key, Group>,
    /// Queries that neither world steers.
    not_steered: u64,
    scratch: Vec<u8>,
}

impl<'s> Rehearsal<'s> {
    /// Nothing added yet.
    pub fn new(before: &'s Snapshot, after: &'s Snapshot) -> Self {
        let mut names: Vec<String> =
            before.tables.world.datacenters.iter().map(|dc| dc.name.clone()).collect();
        let mut place_of_after = Vec::new();
        for datacenter in &after.tables.world.datacenters {
            let known = names.iter().position(|name| *name == datacenter.name);
            let place = known.unwrap_or(names.len());
            if known.is_none() {
                names.push(datacenter.name.clone());
            }
            place_of_after.push(u16::try_from(place).unwrap_or(u16::MAX));
        }
        Self {
            before,
            after,
            names,
            place_of_after,
            groups: BTreeMap::new(),
            not_steered: 0,
            scratch: vec![0; MAX_MESSAGE],
        }
    }

    fn place_after(&self, id: DatacenterId) -> Place {
        self.place_of_after.get(usize::from(id)).copied()
    }

    fn add(&mut self, key: Key, from: Place, to: Place, weight: f64) {
        let group = self.groups.entry(key).or_default();
        group.cases += 1;
        group.weight += weight;
        *group.moves.entry((from, to)).or_default() += weight;
    }

    /// Adds a query of a log, as it would be answered by either world.
    pub fn add_query(&mut self, query: &log::Query) {
        let packet = wire::write_query(0, &query.name, query.qtype, query.subnet);
        // Over TCP: what did not fit a datagram then is of no interest now.
        let client = client(query.client, packet.len() as u64);
        // The query asks for nothing that a server keeps of its own.
        let server = Server::default();
        let context = Context { server: &server, now: UnixMillis(0) };
        let mut asked = |snapshot: &Snapshot| match answer(
            &packet,
            &client,
            &context,
            snapshot,
            &mut self.scratch,
        ) {
            // The alias alone was told: whoever asked then asks for the name it leads to.
            Outcome::Respond { facts, .. }
                if facts.reason != Reason::Alias || facts.datacenter.is_some() =>
            {
                facts.policy.map(|policy| (policy, facts.datacenter))
            }
            _ => None,
        };
        let (before, after) = (asked(self.before), asked(self.after));
        if before.is_none() && after.is_none() {
            self.not_steered += 1;
            return;
        }
        let by = query.subnet.filter(|net| net.length() > 0).map_or(query.client, Prefix::network);
        let key = Key {
            before: before.map(|(policy, _)| policy),
            after: after.map(|(policy, _)| policy),
            is_v6: by.to_canonical().is_ipv6(),
        };
        let to = after.and_then(|(_, id)| self.place_after(id?));
        self.add(key, before.and_then(|(_, id)| id), to, 1.0);
    }

    /// Adds the clients of a network, `weight` of them.
    fn add_network(&mut self, key: Key, network: Prefix, weight: f64) {
        // Clients of IPv6 networks ask for both families; which datacenter they get counts where they can go.
        let families = if key.is_v6 { [Family::V6, Family::V4] } else { [Family::V4, Family::V6] };
        let mut chosen = (None, None);
        for family in families {
            let before = key.before.and_then(|id| chosen_by(self.before, id, family, network));
            let after = key.after.and_then(|id| chosen_by(self.after, id, family, network));
            chosen = (before, after.and_then(|id| self.place_after(id)));
            if before.is_some() || after.is_some() {
                break;
            }
        }
        self.add(key, chosen.0, chosen.1, weight);
    }
}

/// A client whose draws are the same in both worlds.
fn client(address: IpAddr, draw: u64) -> Client {
    Client { address: SocketAddr::new(address, 53), transport: Transport::Tcp, draw }
}

/// The datacenter that a policy gives to a network, its resolver in the same place.
fn chosen_by(
    snapshot: &Snapshot,
    policy: PolicyId,
    family: Family,
    network: Prefix,
) -> Option<DatacenterId> {
    let qtype = if family == Family::V4 { rtype::A } else { rtype::AAAA };
    let packet = wire::write_query(0, &Name::root(), qtype, Some(network));
    let query = wire::parse(&packet).ok()?;
    let client = client(network.network(), 0);
    let name = Name::root();
    decide(snapshot, policy, family, name.as_wire(), &client, &query, |_, _| {})?.datacenter
}

#[cfg(test)]
mod tests;
