//! What a node tells of itself: metrics and the access log.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use http::{StatusCode, Version};
use serde::Serialize;
use shared::io::clock;
use shared::io::log::JsonLog;
use shared::metrics::{Counter, Family, Gauge, Histogram, Registry};
use shared::time::UnixMillis;

use super::backlog::Backlog;
use super::gate::Busy;
use crate::meter::Meter;
use crate::predict::live::Fate;
use crate::rules::signed::redacted;
use crate::semantics::Reason;
use crate::semantics::reason::Outcome;
use crate::store::budget::Share;

/// Requests by what the cache made of them.
pub const REQUESTS: Family = Family {
    name: "edge_cache_requests_total",
    help: "Requests answered, by site and by what the cache made of them.",
    labels: &["site", "cache"],
};
const HITS: Family = Family {
    name: "edge_cache_hits_total",
    help: "Requests answered from the store, by the tier that had the object: disk if it, or the first segment sent of it, had to be read from one.",
    labels: &["tier"],
};
const DURATION: Family = Family {
    name: "edge_cache_request_duration_seconds",
    help: "From a request's head to the end of its response.",
    labels: &["cache"],
};
const BYTES: Family = Family {
    name: "edge_cache_bytes_total",
    help: "Bytes of content, sent to clients (out) and received from parents and origins (in).",
    labels: &["direction"],
};
pub(super) const STORE_BYTES: Family = Family {
    name: "edge_cache_store_bytes",
    help: "Memory or disk taken by stored objects.",
    labels: &["tier"],
};
pub(super) const STORE_OBJECTS: Family =
    Family { name: "edge_cache_store_objects", help: "Stored objects.", labels: &["tier"] };
pub(super) const EVICTIONS: Family = Family {
    name: "edge_cache_evictions_total",
    help: "Stored objects, and segments of them, that made room for others.",
    labels: &["tier"],
};
/// Reads of disks.
pub const DISK_READS: Family = Family {
    name: "edge_cache_disk_reads_total",
    help: "Records read from a disk, by its number and by result: hit, miss (what lies there is not what was asked for), timeout.",
    labels: &["disk", "result"],
};
/// Bytes read from disks.
pub const DISK_READ_BYTES: Family = Family {
    name: "edge_cache_disk_read_bytes_total",
    help: "Bytes read from a disk for records that were asked for, by its number.",
    labels: &["disk"],
};
/// Bytes written to disks.
pub const DISK_WRITTEN: Family = Family {
    name: "edge_cache_disk_written_bytes_total",
    help: "Bytes written to a disk, by its number and by reason: new, moved (to keep what is asked for), head (validated anew), removed, index. Divided by edge_cache_bytes_total{direction=\"out\"}: what a byte sent costs the disk.",
    labels: &["disk", "reason"],
};
/// What has gone wrong with disks.
pub const DISK_ERRORS: Family = Family {
    name: "edge_cache_disk_errors_total",
    help: "What has gone wrong with a disk, by its number and by kind: read, write, checksum (a record that was damaged, and not used), not_taken (a record that was not written, because too much waited or the disk could not take it).",
    labels: &["disk", "kind"],
};
/// Whether a disk serves.
pub const DISK_READY: Family = Family {
    name: "edge_cache_disk_ready",
    help: "1 when a disk, by its number, is in use; 0 while it finds out what it holds, and when it has failed.",
    labels: &["disk"],
};
/// How long a disk took to become ready.
pub const DISK_RECOVERY: Family = Family {
    name: "edge_cache_disk_recovery_seconds",
    help: "How long a disk, by its number, took at the start to find out what it holds.",
    labels: &["disk"],
};
/// Requests to origins.
pub const ORIGIN_REQUESTS: Family = Family {
    name: "edge_cache_origin_requests_total",
    help: "Requests to origins, by origin and by result: the class of the status, or why there was none.",
    labels: &["origin", "result"],
};
/// Encodings of stored objects.
pub const COMPRESSIONS: Family = Family {
    name: "edge_cache_compressions_total",
    help: "Encodings of stored objects, by coding and by result: made, poor (not shorter by a tenth), dropped (too many waited), gone, failed.",
    labels: &["coding", "result"],
};
/// Requests to parents.
pub const PARENT_REQUESTS: Family = Family {
    name: "edge_cache_parent_requests_total",
    help: "Requests to parents, by parent and by result: the class of the status, or why there was none.",
    labels: &["parent", "result"],
};
/// Servers of origins that are up.
pub const ORIGIN_UP: Family = Family {
    name: "edge_cache_origin_servers_up",
    help: "Servers of an origin that requests go to.",
    labels: &["origin"],
};
/// Whether a parent is up.
pub const PARENT_UP: Family = Family {
    name: "edge_cache_parent_up",
    help: "Whether a parent is asked.",
    labels: &["parent"],
};
/// Open connections to origins.
pub const ORIGIN_CONNECTIONS: Family = Family {
    name: "edge_cache_origin_connections",
    help: "Connections to an origin, idle ones included.",
    labels: &["origin"],
};
/// Purges.
pub const PURGES: Family = Family {
    name: "edge_cache_purges_total",
    help: "Purges, by what was named (url, prefix, host, tag, group, all) and by mode: hard, soft, or invalidated by an unsafe method.",
    labels: &["target", "mode"],
};
const PURGE_SECONDS: Family = Family {
    name: "edge_cache_purge_seconds",
    help: "From a purge's arrival until it was in force on this node, and durable where purges are kept over restarts.",
    labels: &[],
};
const PURGES_NOT_KEPT: Family = Family {
    name: "edge_cache_purges_not_kept_total",
    help: "Purges that were in force and not acknowledged, because they could not be written down to outlast a restart.",
    labels: &[],
};
const INVALIDATIONS_NOT_KEPT: Family = Family {
    name: "edge_cache_invalidations_not_kept_total",
    help: "Unsafe methods whose invalidations were in force and not yet written down when their responses were passed on: the disks are in doubt until they are.",
    labels: &[],
};
const COLLAPSED: Family = Family {
    name: "edge_cache_collapsed_total",
    help: "Requests that were answered from a fetch which another one began.",
    labels: &[],
};
const CONNECTIONS: Family =
    Family { name: "edge_cache_connections", help: "Client connections.", labels: &[] };
const REFUSED: Family = Family {
    name: "edge_cache_connections_refused_total",
    help: "Client connections closed at once, because there were `max_connections` already, or as many as `memory` has room for.",
    labels: &[],
};
const RESIDENT: Family = Family {
    name: "edge_cache_resident_bytes",
    help: "Resident memory of the process, which `memory` bounds.",
    labels: &[],
};
const CAPACITY: Family = Family {
    name: "edge_cache_store_capacity_bytes",
    help: "What the tier may take now: memory is what connections and fetches leave of it.",
    labels: &["tier"],
};
const LOG_DROPPED: Family = Family {
    name: "edge_cache_log_dropped_total",
    help: "Access log lines that were dropped, because the log could not be written fast enough.",
    labels: &[],
};
const RELOAD: Family = Family {
    name: "edge_cache_config_last_reload_successful",
    help: "1 when the configuration that was read last is the one in use, else 0.",
    labels: &[],
};
const DRAINING: Family = Family {
    name: "edge_cache_draining",
    help: "1 while the node asks not to be given new clients, else 0.",
    labels: &[],
};

/// The handles that serving needs.
pub struct Telemetry {
    /// All metrics.
    pub registry: Registry,
    duration: [Histogram; Outcome::ALL.len()],
    hits: [Counter; Held::ALL.len()],
    /// Content sent to clients.
    pub bytes_out: Counter,
    /// Content received from parents and origins.
    pub bytes_in: Counter,
    /// Requests answered from another's fetch.
    pub collapsed: Counter,
    /// How long purges took.
    pub purge_seconds: Histogram,
    /// Purges that could not be made durable.
    pub purges_not_kept: Counter,
    /// Invalidations that could not be made durable in time.
    pub invalidations_not_kept: Counter,
    /// Connections beyond the limit.
    pub refused: Counter,
    /// Lines that were dropped.
    pub log_dropped: Counter,
    /// Whether the last reload was taken.
    pub reload_ok: Gauge,
    /// Client connections now.
    pub connections: AtomicUsize,
    /// Requests now.
    pub in_flight: AtomicUsize,
    /// What happened in the last minute. Sampled by a task, read by reports; serving takes no part in it.
    pub meter: Mutex<Meter>,
}

/// Which tier had what a request was answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Memory.
    Memory,
    /// A disk: it was read for this request, or for others at the same time.
    Disk,
}

impl Held {
    const ALL: [Self; 2] = [Self::Memory, Self::Disk];

    /// Its name in metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
        }
    }
}

/// A site's counters.
#[derive(Clone, Debug)]
pub struct SiteCounters([Counter; Outcome::ALL.len()]);

impl SiteCounters {
    /// Counts of a site since start, by outcome.
    pub fn get(&self, outcome: Outcome) -> u64 {
        self.0[outcome as usize].get()
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        let registry = Registry::new();
        Self {
            duration: Outcome::ALL.map(|outcome| registry.histogram(&DURATION, &[outcome.label()])),
            hits: Held::ALL.map(|held| registry.counter(&HITS, &[held.label()])),
            bytes_out: registry.counter(&BYTES, &["out"]),
            bytes_in: registry.counter(&BYTES, &["in"]),
            collapsed: registry.counter(&COLLAPSED, &[]),
            purge_seconds: registry.histogram(&PURGE_SECONDS, &[]),
            purges_not_kept: registry.counter(&PURGES_NOT_KEPT, &[]),
            invalidations_not_kept: registry.counter(&INVALIDATIONS_NOT_KEPT, &[]),
            refused: registry.counter(&REFUSED, &[]),
            log_dropped: registry.counter(&LOG_DROPPED, &[]),
            reload_ok: registry.gauge(&RELOAD, &[]),
            connections: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            meter: Mutex::default(),
            registry,
        }
    }
}

impl Telemetry {
    /// The counters of a site; those of requests that belong to none are under the empty name.
    pub fn site(&self, name: &str) -> SiteCounters {
        SiteCounters(
            Outcome::ALL.map(|outcome| self.registry.counter(&REQUESTS, &[name, outcome.label()])),
        )
    }

    /// Takes over what is counted elsewhere, for a scrape.
    pub fn collect(
        &self,
        memory: crate::store::memory::Stats,
        limit: &super::limit::Limit,
        draining: bool,
    ) {
        let registry = &self.registry;
        registry.gauge(&STORE_BYTES, &["memory"]).set(memory.bytes as f64);
        registry.gauge(&STORE_OBJECTS, &["memory"]).set(memory.objects as f64);
        let evictions = registry.counter(&EVICTIONS, &["memory"]);
        evictions.add(memory.evictions.saturating_sub(evictions.get()));
        registry.gauge(&CAPACITY, &["memory"]).set(limit.capacity() as f64);
        registry.gauge(&RESIDENT, &[]).set(limit.resident() as f64);
        registry.gauge(&CONNECTIONS, &[]).set(self.connections.load(Ordering::Relaxed) as f64);
        registry.gauge(&DRAINING, &[]).set(f64::from(u8::from(draining)));
    }
}

/// Who asked, and how: the same for all requests of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The client's address.
    pub ip: std::net::IpAddr,
    /// The TLS version, when there is one.
    pub tls: Option<&'static str>,
    /// The name that the client asked for in TLS.
    pub sni: Option<Arc<str>>,
}

/// One line of the access log.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    node: &'a str,
    site: &'a str,
    client: std::net::IpAddr,
    method: &'a str,
    host: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<&'a str>,
    status: u16,
    bytes: u64,
    whole: bool,
    duration_ms: f64,
    cache: &'static str,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<&'static str>,
    collapsed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<&'a str>,
    http: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<&'static str>,
}

/// A request and its response, watched until the response has been sent. Dropped, it is counted and logged.
pub struct Exchange {
    node: Arc<super::node::Node>,
    started: Instant,
    time: UnixMillis,
    peer: Arc<Peer>,
    version: Version,
    method: http::Method,
    uri: http::Uri,
    /// The host that was asked for.
    pub host: Box<str>,
    /// The site, once it is known.
    pub site: Option<(Arc<str>, SiteCounters)>,
    /// What became of it.
    pub reason: Reason,
    /// Counted under this outcome, where it is not the reason's own.
    pub outcome: Option<Outcome>,
    /// Which tier had it, if one had.
    pub held: Option<Held>,
    /// Answered from another request's fetch.
    pub collapsed: bool,
    /// The key that the store was asked for.
    pub key: Option<u128>,
    /// Bytes of what it had under it.
    pub length: u64,
    /// The parent or origin asked.
    pub upstream: Option<Arc<str>>,
    /// The status sent.
    pub status: StatusCode,
    /// Bytes of content sent.
    pub sent: u64,
    /// All of it.
    pub whole: bool,
    /// They came from an upstream for this client alone.
    pub is_passed: bool,
    /// The client is told in Server-Timing.
    pub tells_timing: bool,
    counted: bool,
    log: JsonLog,
    busy: Busy,
}

impl Exchange {
    /// A request that has just come.
    pub fn new<B>(
        node: &Arc<super::node::Node>,
        log: JsonLog,
        peer: &Arc<Peer>,
        request: &http::Request<B>,
        busy: Busy,
    ) -> Box<Self> {
        node.telemetry.in_flight.fetch_add(1, Ordering::Relaxed);
        Box::new(Self {
            node: Arc::clone(node),
            started: Instant::now(),
            time: clock::now(),
            peer: Arc::clone(peer),
            version: request.version(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            host: "".into(),
            site: None,
            reason: Reason::ClientGone,
            outcome: None,
            held: None,
            collapsed: false,
            key: None,
            length: 0,
            upstream: None,
            status: StatusCode::OK,
            sent: 0,
            whole: false,
            is_passed: false,
            tells_timing: false,
            counted: true,
            log,
            busy,
        })
    }

    /// Since it came.
    pub fn took(&self) -> std::time::Duration {
        self.started.elapsed()
    }

    /// So many bytes of content go to the client. Counted at once: a long download is traffic while it lasts.
    pub fn add_sent(&mut self, bytes: u64) {
        self.sent += bytes;
        self.node.telemetry.bytes_out.add(bytes);
    }

    /// What its response may hold while it waits for the client.
    pub fn share(&self) -> Share {
        self.node.share()
    }

    /// What waits for the client's socket.
    pub(super) fn backlog(&self) -> &Backlog {
        self.busy.backlog()
    }

    /// So much content waits for the client's socket now. Over HTTP/2 it waits for the client's window first, and counts
    /// from then on.
    pub(super) fn is_handed(&self, bytes: usize) {
        if self.version < Version::HTTP_2 {
            self.busy.backlog().add(bytes);
        }
    }

    /// The response is cut. `delimited`: the client can tell by the length, or by the last chunk.
    pub fn cut(&self, delimited: bool) {
        if self.version == Version::HTTP_10 && !delimited {
            self.busy.abort();
        }
    }

    /// Tells what became of it to whom predicts.
    fn predict(&self) {
        if let Some(key) = self.key
            && let Some(fate) = Fate::of(self.reason, self.collapsed)
        {
            // A part of a long object is what it was asked for.
            let is_part = self.status == StatusCode::PARTIAL_CONTENT;
            let size = if is_part { self.sent } else { self.length.max(self.sent) };
            self.node.predicting.note(key, size, self.sent, fate);
        }
    }

    /// It is neither counted nor logged.
    pub fn forget(mut self: Box<Self>) {
        self.counted = false;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let telemetry = &self.node.telemetry;
        telemetry.in_flight.fetch_sub(1, Ordering::Relaxed);
        if !self.counted {
            return;
        }
        let elapsed = self.started.elapsed();
        let outcome = self.outcome.unwrap_or_else(|| self.reason.outcome());
        let at = outcome as usize;
        match &self.site {
            Some((_, counters)) => counters.0[at].inc(),
            None => self.node.no_site.0[at].inc(),
        }
        telemetry.duration[at].observe(elapsed);
        let from_store = matches!(outcome, Outcome::Hit | Outcome::Stale | Outcome::Revalidated);
        let held = self.held.filter(|_| from_store);
        if let Some(held) = held {
            telemetry.hits[held as usize].inc();
        }
        self.predict();
        if self.is_passed {
            telemetry.bytes_in.add(self.sent);
        }
        if !self.log.is_on() {
            return;
        }
        let query = self.uri.query().map(redacted);
        let line = Line {
            time: self.time.to_string(),
            node: &self.node.name,
            site: self.site.as_ref().map_or("", |(name, _)| name),
            client: self.peer.ip,
            method: self.method.as_str(),
            host: &self.host,
            path: self.uri.path(),
            query: query.as_deref(),
            status: self.status.as_u16(),
            bytes: self.sent,
            whole: self.whole,
            duration_ms: elapsed.as_micros() as f64 / 1000.0,
            cache: outcome.label(),
            reason: self.reason.code(),
            tier: held.map(Held::label),
            collapsed: self.collapsed,
            upstream: self.upstream.as_deref(),
            http: match self.version {
                Version::HTTP_10 => "1.0",
                Version::HTTP_11 => "1.1",
                Version::HTTP_2 => "2",
                _ => "",
            },
            tls: self.peer.tls,
        };
        if let Ok(line) = serde_json::to_vec(&line) {
            self.log.write(line);
        }
    }
}
