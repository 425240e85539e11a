//! What is told of queries: a JSON line each, with the reason of its answer, and dnstap, for the same sample of them.
//! Never waits; what finds a log busy is counted.

use std::net::SocketAddr;

use serde::Serialize;
use shared::io::clock;
use shared::io::log::JsonLog;
use shared::time::UnixMillis;

use super::dnstap::Tap;
use crate::answer::{Client, Outcome};
use crate::name::Shown;
use crate::rtype;
use crate::snapshot::Snapshot;
use crate::wire::{self, Refusal};

/// A share of all queries, written as lines.
#[derive(Clone)]
pub(super) struct QueryLog {
    log: JsonLog,
    tap: Tap,
    /// A query is logged when its draw is below this.
    below: u64,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    node: &'a str,
    proto: &'static str,
    client: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    subnet: Option<String>,
    name: String,
    r#type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    rcode: Option<&'static str>,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    datacenter: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<u8>,
    /// What the query's cookie says.
    #[serde(skip_serializing_if = "Option::is_none")]
    cookie: Option<&'static str>,
    /// INFO-CODE of the extended error.
    #[serde(skip_serializing_if = "Option::is_none")]
    ede: Option<u16>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
    bytes: usize,
}

impl QueryLog {
    pub(super) fn new(log: JsonLog, tap: Tap, sample: f64) -> Self {
        let below = if sample >= 1.0 { u64::MAX } else { (sample * u64::MAX as f64) as u64 };
        Self { log, tap, below }
    }

    pub(super) fn reopen(&self) {
        self.log.reopen();
        self.tap.reopen();
    }

    /// Whether this query is in the sample. The draw rotates answers; its bits are mixed anew, or the sample would see
    /// only some rotations.
    #[inline]
    const fn takes(&self, client: &Client) -> bool {
        client.draw.wrapping_mul(0x9e37_79b9_7f4a_7c15) <= self.below
    }

    /// Tells dnstap of a query and its answer; an empty one was not sent. `server` is where the query was asked.
    #[inline]
    pub(super) fn tap<'q>(
        &self,
        client: &Client,
        server: impl FnOnce() -> Option<SocketAddr>,
        asked: UnixMillis,
        query: impl FnOnce() -> &'q [u8],
        response: &[u8],
    ) {
        if self.tap.is_on() && self.takes(client) {
            self.tap.tell(client, server(), asked, query(), response);
        }
    }

    #[inline]
    pub(super) fn write<'q>(
        &self,
        node: &str,
        packet: impl FnOnce() -> &'q [u8],
        client: &Client,
        snapshot: &Snapshot,
        outcome: &Outcome,
    ) {
        if self.log.is_on() && self.takes(client) {
            self.write_line(node, packet(), client, snapshot, outcome);
        }
    }

    #[cold]
    fn write_line(
        &self,
        node: &str,
        packet: &[u8],
        client: &Client,
        snapshot: &Snapshot,
        outcome: &Outcome,
    ) {
        let (echo, edns) = match wire::parse(packet) {
            Ok(query) => (Some(query.echo), query.edns),
            Err(Refusal::Error { echo, edns, .. }) => (Some(echo), edns),
            Err(Refusal::Silence) => (None, None),
        };
        let question = echo.and_then(|echo| Some((echo.question_name(), echo.question_type()?)));
        let subnet = edns.and_then(|edns| edns.subnet);
        let world = &snapshot.tables.world;
        let (facts, reason, bytes) = match outcome {
            Outcome::Drop(reason) => (None, *reason, 0),
            Outcome::Respond { length, facts } => (Some(facts), facts.reason, *length),
        };
        let line = Line {
            time: clock::now().to_string(),
            node,
            proto: client.transport.as_str(),
            client: client.address.to_string(),
            subnet: subnet
                .and_then(|subnet| Some(format!("{}/{}", subnet.address?, subnet.source_bits))),
            name: question.map(|(name, _)| Shown(name).to_string()).unwrap_or_default(),
            r#type: question.map(|(_, qtype)| rtype::Shown(qtype).to_string()).unwrap_or_default(),
            rcode: facts.map(|facts| facts.rcode.as_str()),
            reason: reason.as_str(),
            policy: facts
                .and_then(|facts| world.policies.get(usize::from(facts.policy?)))
                .map(|policy| policy.name.as_str()),
            datacenter: facts.and_then(|f| f.datacenter).map(|id| world.datacenter_name(id)),
            scope: subnet.and(facts).map(|facts| facts.scope_bits),
            cookie: facts.and_then(|facts| facts.cookie.as_str()),
            ede: edns.and(facts).and_then(|_| Some(reason.extended_error()?.code)),
            truncated: facts.is_some_and(|facts| facts.truncated),
            bytes,
        };
        if let Ok(line) = serde_json::to_vec(&line) {
            self.log.write(line);
        }
    }
}
