//! Queries of one batch, read ahead of their answers.
//!
//! What an answer is made from lies where a hash or an address says, in tables that the processor's caches hold only a
//! part of. Query by query, each step waits for the memory, and those waits are most of what an answer costs. So the
//! places of each step are told here for all queries of a batch, for the caller to have them brought in together.
//! Nothing is decided by it: answers are the same without.

use std::net::IpAddr;

use super::{Client, Context, Transport};
use crate::map::{Table, Whose};
use crate::rrl::Network;
use crate::snapshot::Snapshot;
use crate::wire::{self, LowerName, Query, Refusal};
use crate::world::PolicyId;

/// A query that has been read.
#[derive(Debug)]
pub struct Reading<'p> {
    /// Who asks.
    pub client: Client,
    pub(super) parsed: Result<Query<'p>, Refusal<'p>>,
    /// Of what could be read.
    pub(super) name: &'p LowerName,
    /// The client's network in the limiter's table, when it has been looked for.
    pub(super) network: Option<Network>,
    /// The entry of the name among the zones' names, most probably.
    entry: Option<u32>,
    policy: Option<PolicyId>,
}

impl<'p> Reading<'p> {
    /// Reads `packet`; `name` becomes the name that it asks for.
    pub fn new(packet: &'p [u8], client: Client, name: &'p mut LowerName) -> Self {
        let parsed = wire::parse(packet);
        if let Ok(query) = &parsed {
            name.set(query);
        }
        Self { client, parsed, name, network: None, entry: None, policy: None }
    }

    /// The table and the address that a steered answer goes by, most probably.
    fn sought<'s>(&self, snapshot: &'s Snapshot) -> Option<(&'s Table, IpAddr)> {
        let (policy, map) = snapshot.tables.policy(self.policy?)?;
        let edns = self.parsed.as_ref().ok()?.edns.as_ref();
        let subnet = edns.and_then(|edns| edns.subnet).filter(|_| policy.ecs.enabled);
        Some(match subnet.and_then(|subnet| subnet.address) {
            Some(address) => (map.table(Whose::Subnet), address),
            None => (map.table(Whose::Resolver), self.client.address.ip()),
        })
    }
}

/// Tells `fetch` of every place that the answers to these queries will be made from, step by step: what a step reads to
/// know its places has been told in the one before.
pub fn call_in(
    readings: &mut [Option<Reading<'_>>],
    context: &Context<'_>,
    snapshot: &Snapshot,
    fetch: impl Fn(*const u8),
) {
    let zones = &snapshot.tables.zones;
    for reading in readings.iter_mut().flatten() {
        fetch(zones.slot_at(reading.name.hash()));
        if let Some(limiter) = &context.server.limiter
            && reading.client.transport == Transport::Udp
        {
            let network = limiter.network(reading.client.address.ip());
            fetch(limiter.accounts_at(network));
            reading.network = Some(network);
        }
    }
    for reading in readings.iter_mut().flatten() {
        reading.entry = zones.guess(reading.name.hash());
        reading.entry.iter().flat_map(|entry| zones.entry_at(*entry)).for_each(&fetch);
    }
    let mut is_steered = false;
    for reading in readings.iter_mut().flatten() {
        let Some(entry) = reading.entry else { continue };
        reading.policy = zones.policy_of(entry);
        is_steered |= reading.policy.is_some();
        zones.records_at(entry).into_iter().for_each(&fetch);
    }
    if !is_steered {
        return;
    }
    let sought = || readings.iter().flatten().filter_map(|reading| reading.sought(snapshot));
    sought().map(|(table, address)| table.index_at(address)).for_each(&fetch);
    sought().flat_map(|(table, address)| table.ranges_at(address)).for_each(&fetch);
}
