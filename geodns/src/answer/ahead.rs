//! Queries of one batch, read ahead of their answers.
//!
//! What an answer is made from lies where a hash or an address says, in tables that the processor's caches hold only a
//! part of. Query by query, each step waits for the memory, and those waits are most of what an answer costs. So each
//! step's accesses are begun here for all queries of a batch at once, and wait together. Nothing is decided by it:
//! answers are the same without.

use std::net::IpAddr;

use super::{Client, Context, Transport};
use crate::map::{Table, Whose};
use crate::rrl::Network;
use crate::snapshot::Snapshot;
use crate::wire::{self, Query, Refusal};
use crate::world::PolicyId;

/// A query that has been read.
#[derive(Debug)]
pub struct Reading<'p> {
    /// Who asks.
    pub client: Client,
    pub(super) parsed: Result<Query<'p>, Refusal<'p>>,
    /// The client's network in the limiter's table, when it has been looked for.
    pub(super) network: Option<Network>,
    /// The entry of the name among the zones' names, most probably.
    entry: Option<u32>,
    policy: Option<PolicyId>,
}

impl<'p> Reading<'p> {
    /// Reads `packet`.
    pub fn new(packet: &'p [u8], client: Client) -> Self {
        Self { client, parsed: wire::parse(packet), network: None, entry: None, policy: None }
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

/// Has what the answers to these queries are made from come nearer.
pub fn call_in(readings: &mut [Option<Reading<'_>>], context: &Context<'_>, snapshot: &Snapshot) {
    let zones = &snapshot.tables.zones;
    if let Some(limiter) = &context.server.limiter {
        for reading in readings.iter_mut().flatten() {
            if reading.client.transport == Transport::Udp {
                reading.network = Some(limiter.network(reading.client.address.ip()));
            }
        }
        let networks = readings.iter().flatten().filter_map(|reading| reading.network);
        networks.for_each(|network| limiter.touch(network));
    }
    for query in readings.iter().flatten().filter_map(|reading| reading.parsed.as_ref().ok()) {
        zones.touch_slot(query.name.hash());
    }
    for reading in readings.iter_mut().flatten() {
        if let Ok(query) = &reading.parsed {
            reading.entry = zones.touch_entry(query.name.hash());
        }
    }
    let mut is_steered = false;
    for reading in readings.iter_mut().flatten() {
        reading.policy = reading.entry.and_then(|entry| zones.touch_records(entry));
        is_steered |= reading.policy.is_some();
    }
    if !is_steered {
        return;
    }
    let sought = || readings.iter().flatten().filter_map(|reading| reading.sought(snapshot));
    sought().for_each(|(table, address)| table.touch_index(address));
    sought().for_each(|(table, address)| table.touch_ranges(address));
}
