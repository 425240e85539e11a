//! The metrics of this program, and the counters that answering threads add to.

use std::sync::atomic::{AtomicU64, Ordering};

use shared::metrics::{Family, Registry};

use crate::answer::{Facts, Outcome, Transport};
use crate::reason::Reason;
use crate::wire::Rcode;
use crate::world::World;

/// Queries by transport and response code.
pub const QUERIES: Family = Family {
    name: "geodns_queries_total",
    help: "Queries answered, by transport and response code.",
    labels: &["proto", "rcode"],
};
/// Steered answers.
pub const ANSWERS: Family = Family {
    name: "geodns_answers_total",
    help: "Answers to steered names, by policy, datacenter (empty: none) and reason.",
    labels: &["policy", "datacenter", "reason"],
};
/// What was not answered.
pub const DROPPED: Family = Family {
    name: "geodns_dropped_total",
    help: "Queries, connections and log lines that were dropped, by reason.",
    labels: &["reason"],
};
/// Truncated answers.
pub const TRUNCATED: Family = Family {
    name: "geodns_truncated_total",
    help: "Answers over UDP that did not fit and were sent truncated.",
    labels: &[],
};
/// What rate limiting sent.
pub const SLIPPED: Family = Family {
    name: "geodns_slipped_total",
    help: "Answers over the rate limit that were sent as `truncated` or `badcookie` instead of dropped.",
    labels: &["as"],
};
/// Datacenters.
pub const DATACENTER_UP: Family = Family {
    name: "geodns_datacenter_up",
    help: "Whether a datacenter is up for some policy: 1 or 0.",
    labels: &["datacenter"],
};
/// Edges.
pub const EDGE_UP: Family = Family {
    name: "geodns_edge_up",
    help: "Whether an edge passes a check: 1 or 0.",
    labels: &["edge", "check"],
};
/// Intakes.
pub const DATACENTER_INTAKE: Family = Family {
    name: "geodns_datacenter_intake",
    help: "Share of its clients that a datacenter takes, 0 to 1: less while it returns and while it sheds.",
    labels: &["policy", "datacenter"],
};
/// Holds.
pub const EDGE_HELD: Family = Family {
    name: "geodns_edge_held",
    help: "1 while an edge is held down for flapping, whatever its check says.",
    labels: &["edge", "check"],
};
/// Loads.
pub const EDGE_LOAD: Family = Family {
    name: "geodns_edge_load",
    help: "Load that an edge reports, as a share of what it can take.",
    labels: &["edge"],
};
/// Egress.
pub const EDGE_EGRESS: Family = Family {
    name: "geodns_edge_egress_bits_per_second",
    help: "What an edge reports to send to clients.",
    labels: &["edge"],
};
/// Warmth.
pub const EDGE_WARMTH: Family = Family {
    name: "geodns_edge_warmth",
    help: "How warm an edge reports its cache to be, 0 to 1.",
    labels: &["edge"],
};
/// Draining edges.
pub const EDGE_DRAINING: Family = Family {
    name: "geodns_edge_draining",
    help: "1 while an edge reports that it wants no new clients.",
    labels: &["edge"],
};
/// Positions in the control log.
pub const EDGE_APPLIED: Family = Family {
    name: "geodns_edge_applied_position",
    help: "Position in the control log up to which an edge reports to have applied everything.",
    labels: &["edge"],
};
/// Certificates.
pub const CERTIFICATE_DAYS: Family = Family {
    name: "geodns_certificate_days",
    help: "Days until the certificate ends that an edge shows a check; negative when it has.",
    labels: &["edge", "check"],
};
/// Gauges whose label values come and go with the state.
pub const OF_STATE: &[&Family] = &[
    &DATACENTER_UP,
    &DATACENTER_INTAKE,
    &EDGE_UP,
    &EDGE_HELD,
    &EDGE_LOAD,
    &EDGE_EGRESS,
    &EDGE_WARMTH,
    &EDGE_DRAINING,
    &EDGE_APPLIED,
    &CERTIFICATE_DAYS,
];
/// Probes.
pub const PROBE_DURATION: Family = Family {
    name: "geodns_probe_duration_seconds",
    help: "How long probes took, by check and result.",
    labels: &["check", "result"],
};
/// Whether the monitor is suspected.
pub const MONITOR_SUSPECTED: Family = Family {
    name: "geodns_monitor_suspected",
    help: "1 while most targets turned bad at once and the last good state stands.",
    labels: &[],
};
/// Reloads.
pub const RELOAD_OK: Family = Family {
    name: "geodns_config_last_reload_successful",
    help: "Whether the last reload was taken: 1 or 0.",
    labels: &[],
};
/// TCP connections.
pub const TCP_CONNECTIONS: Family = Family {
    name: "geodns_tcp_connections",
    help: "Connections open now, over TCP, TLS, HTTPS and QUIC.",
    labels: &[],
};

const RCODES: [Rcode; 10] = Rcode::ALL;
const TRANSPORTS: [Transport; 5] = Transport::ALL;
const SLIPPED_AS: [&str; 2] = ["truncated", "badcookie"];
const REASONS: usize = Reason::ALL.len();

/// Counts of one configuration's lifetime, for all its policies, datacenters and reasons. Threads add what a batch of
/// queries came to; a scrape takes over what was added since the last one.
#[derive(Debug)]
pub struct Stats {
    policies: Vec<String>,
    datacenters: Vec<String>,
    cells: Vec<Cell>,
}

#[derive(Debug, Default)]
struct Cell {
    count: AtomicU64,
    exported: AtomicU64,
}

/// What one batch came to: positions of cells, and how often each is counted. Queries of one batch fall into a few cells.
#[derive(Debug, Default)]
pub struct Batch(Vec<(usize, u64)>);

impl Batch {
    fn count(&mut self, cell: usize) {
        match self.0.iter_mut().find(|(at, _)| *at == cell) {
            Some((_, count)) => *count += 1,
            None => self.0.push((cell, 1)),
        }
    }
}

impl Stats {
    /// All zero.
    pub fn new(world: &World) -> Self {
        let policies: Vec<_> = world.policies.iter().map(|policy| policy.name.clone()).collect();
        let datacenters: Vec<_> = world.datacenters.iter().map(|dc| dc.name.clone()).collect();
        let answers = policies.len() * (datacenters.len() + 1) * REASONS;
        let total = Self::ANSWERS_AT + answers;
        Self { policies, datacenters, cells: (0..total).map(|_| Cell::default()).collect() }
    }

    /// Makes the series of every transport and code exist, so that a rate can be taken from the first query on.
    pub fn declare(registry: &Registry) {
        for transport in TRANSPORTS {
            for rcode in RCODES {
                registry.counter(&QUERIES, &[transport.as_str(), rcode.as_str()]);
            }
        }
        registry.counter(&TRUNCATED, &[]);
        registry.counter(&DROPPED, &[Reason::RateLimit.as_str()]);
        for sent_as in SLIPPED_AS {
            registry.counter(&SLIPPED, &[sent_as]);
        }
    }

    const DROPS_AT: usize = TRANSPORTS.len() * RCODES.len();
    const TRUNCATED_AT: usize = Self::DROPS_AT + REASONS;
    const SLIPPED_AT: usize = Self::TRUNCATED_AT + 1;
    const ANSWERS_AT: usize = Self::SLIPPED_AT + SLIPPED_AS.len();

    /// Adds one query to a batch.
    pub fn note(&self, transport: Transport, outcome: &Outcome, batch: &mut Batch) {
        match outcome {
            Outcome::Drop(reason) => batch.count(Self::DROPS_AT + *reason as usize),
            Outcome::Respond { facts, .. } => self.note_answer(transport, facts, batch),
        }
    }

    fn note_answer(&self, transport: Transport, facts: &Facts, batch: &mut Batch) {
        let rcode = RCODES.iter().position(|rcode| *rcode == facts.rcode).unwrap_or(0);
        batch.count(transport as usize * RCODES.len() + rcode);
        if facts.reason == Reason::RateLimit {
            batch.count(Self::SLIPPED_AT + usize::from(facts.rcode == Rcode::BadCookie));
        } else if facts.truncated {
            batch.count(Self::TRUNCATED_AT);
        }
        if let Some(policy) = facts.policy {
            let datacenter = facts.datacenter.map_or(0, |id| usize::from(id) + 1);
            let row = usize::from(policy) * (self.datacenters.len() + 1) + datacenter;
            batch.count(Self::ANSWERS_AT + row * REASONS + facts.reason as usize);
        }
    }

    /// Adds a batch and empties it: one atomic write for each of its cells.
    pub fn add(&self, batch: &mut Batch) {
        for (at, count) in batch.0.drain(..) {
            if let Some(cell) = self.cells.get(at) {
                cell.count.fetch_add(count, Ordering::Relaxed);
            }
        }
    }

    /// Takes what was added since the last time over into `registry`.
    pub fn export(&self, registry: &Registry) {
        for (at, cell) in self.cells.iter().enumerate() {
            let count = cell.count.load(Ordering::Relaxed);
            let new = count - cell.exported.swap(count, Ordering::Relaxed).min(count);
            if new == 0 {
                continue;
            }
            if at < Self::DROPS_AT {
                let transport = TRANSPORTS.get(at / RCODES.len()).map_or("", |t| t.as_str());
                let rcode = RCODES.get(at % RCODES.len()).map_or("", |rcode| rcode.as_str());
                registry.counter(&QUERIES, &[transport, rcode]).add(new);
            } else if at < Self::TRUNCATED_AT {
                let reason = Reason::ALL.get(at - Self::DROPS_AT).map_or("", |r| r.as_str());
                registry.counter(&DROPPED, &[reason]).add(new);
            } else if at < Self::SLIPPED_AT {
                registry.counter(&TRUNCATED, &[]).add(new);
            } else if at < Self::ANSWERS_AT {
                let sent_as = SLIPPED_AS.get(at - Self::SLIPPED_AT).copied().unwrap_or_default();
                registry.counter(&SLIPPED, &[sent_as]).add(new);
            } else {
                let (row, reason) =
                    ((at - Self::ANSWERS_AT) / REASONS, (at - Self::ANSWERS_AT) % REASONS);
                let per_policy = self.datacenters.len() + 1;
                let policy = self.policies.get(row / per_policy).map_or("", String::as_str);
                let datacenter = (row % per_policy)
                    .checked_sub(1)
                    .and_then(|id| self.datacenters.get(id))
                    .map_or("", String::as_str);
                let reason = Reason::ALL.get(reason).map_or("", |reason| reason.as_str());
                registry.counter(&ANSWERS, &[policy, datacenter, reason]).add(new);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_reach_the_registry_once() {
        let mut world = World::default();
        world.datacenters.push(crate::world::Datacenter {
            name: "icn".to_owned(),
            location: shared::geo::Coordinates::new(37.0, 126.0).unwrap(),
            bias: 0,
            weight: 1,
            capacity: None,
        });
        let mut stats = Stats::new(&world);
        stats.policies.push("web".to_owned());
        let answers = (world.datacenters.len() + 1) * REASONS;
        stats.cells.extend((0..answers).map(|_| Cell::default()));
        let facts = Facts {
            rcode: Rcode::NoError,
            reason: Reason::Failover,
            policy: Some(0),
            datacenter: Some(0),
            truncated: true,
            ..Facts::default()
        };
        let mut batch = Batch::default();
        for _ in 0..3 {
            stats.note(Transport::Tcp, &Outcome::Respond { length: 12, facts }, &mut batch);
        }
        stats.note(Transport::Udp, &Outcome::Drop(Reason::NotAQuery), &mut batch);
        for rcode in [Rcode::NoError, Rcode::BadCookie] {
            let facts =
                Facts { rcode, reason: Reason::RateLimit, truncated: true, ..Facts::default() };
            stats.note(Transport::Quic, &Outcome::Respond { length: 12, facts }, &mut batch);
        }
        stats.add(&mut batch);
        let registry = Registry::new();
        stats.export(&registry);
        stats.export(&registry);
        let text = registry.render();
        for line in [
            "geodns_queries_total{proto=\"tcp\",rcode=\"NOERROR\"} 3\n",
            "geodns_answers_total{policy=\"web\",datacenter=\"icn\",reason=\"failover\"} 3\n",
            "geodns_dropped_total{reason=\"not-a-query\"} 1\n",
            "geodns_truncated_total 3\n",
            "geodns_slipped_total{as=\"truncated\"} 1\n",
            "geodns_slipped_total{as=\"badcookie\"} 1\n",
            "geodns_queries_total{proto=\"doq\",rcode=\"BADCOOKIE\"} 1\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
