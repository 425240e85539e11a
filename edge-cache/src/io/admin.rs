//! The operator's side of a node: what it is doing, why it would do what with a URL, and orders to it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use http::{HeaderMap, Method, StatusCode};
use serde::{Deserialize, Serialize};
use shared::io::admin::{Answer, Call, Handler};
use shared::report::{OriginState, Report, State};
use tokio::sync::mpsc;

use super::explain::{self, Explained};
use super::node::Node;
use super::under::DiskStatus;
use crate::semantics::reason::Outcome;

/// Every path and its parameters.
pub(super) const OPENAPI: &str = include_str!("openapi.json");

/// Methods and paths that are answered.
pub(super) const ENDPOINTS: [(&str, &str); 14] = [
    ("get", "livez"),
    ("get", "readyz"),
    ("get", "metrics"),
    ("get", "v1/openapi.json"),
    ("get", "v1/status"),
    ("get", "v1/report"),
    ("get", "v1/explain"),
    ("get", "v1/object"),
    ("get", "v1/advise"),
    ("post", "v1/purge"),
    ("get", "v1/purge/{id}"),
    ("post", "v1/drain"),
    ("post", "v1/undrain"),
    ("post", "v1/reload"),
];

/// Answers that a program's main task must give: it owns the listeners that a reload changes.
pub type ReloadRequest = tokio::sync::oneshot::Sender<Result<(), String>>;

/// `GET /v1/status`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    /// The node's name.
    pub node: String,
    /// Its datacenter.
    pub datacenter: String,
    /// `edge`, `parent` or `both`.
    pub role: String,
    /// `serving` or `draining`.
    pub state: String,
    /// Version of the program.
    pub version: String,
    /// Client connections now.
    pub connections: usize,
    /// Requests now.
    pub in_flight: usize,
    /// Fetches into the store now.
    pub fills: usize,
    /// The memory tier.
    pub memory: Memory,
    /// The disks under it.
    #[serde(default)]
    pub disks: Vec<DiskStatus>,
    /// Bytes written to them for each byte sent to clients, since start; none before the first.
    #[serde(default)]
    pub written_per_byte_sent: Option<f64>,
    /// Per site.
    pub sites: Vec<SiteStatus>,
    /// Origins and their servers.
    pub origins: Vec<UpstreamStatus>,
    /// Parents.
    pub parents: Vec<UpstreamStatus>,
}

/// The memory tier.
#[derive(Debug, Serialize, Deserialize)]
pub struct Memory {
    /// Bytes taken.
    pub bytes: u64,
    /// Bytes that there are.
    pub capacity: u64,
    /// Objects.
    pub objects: u64,
    /// Segments of those whose bodies do not lie with their heads.
    #[serde(default)]
    pub segments: u64,
    /// Objects, and segments, that made room for others.
    pub evictions: u64,
}

/// A site's requests since start.
#[derive(Debug, Serialize, Deserialize)]
pub struct SiteStatus {
    /// Its name.
    pub site: String,
    /// By outcome.
    pub requests: std::collections::BTreeMap<String, u64>,
    /// Share of the requests to routes that cache, that were answered without a fetch of the whole.
    pub hit_ratio: Option<f64>,
}

/// An origin or a parent.
#[derive(Debug, Serialize, Deserialize)]
pub struct UpstreamStatus {
    /// Its name.
    pub name: String,
    /// Its servers.
    pub servers: Vec<ServerStatus>,
    /// Open connections.
    pub connections: usize,
}

/// A server.
#[derive(Debug, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Where it is.
    pub url: String,
    /// Whether requests go to it.
    pub up: bool,
    /// Requests to it now.
    pub in_flight: u32,
}

/// The status now.
pub fn status(node: &Node) -> Status {
    let snapshot = node.snapshot.load();
    let memory = node.store.memory();
    let stats = memory.stats();
    let upstream = |upstream: &super::pool::Upstream| UpstreamStatus {
        name: upstream.name.to_string(),
        servers: upstream
            .servers
            .iter()
            .map(|server| ServerStatus {
                url: server.url.to_string(),
                up: server.is_up(),
                in_flight: server.in_flight.load(Ordering::Relaxed),
            })
            .collect(),
        connections: upstream.open_connections(),
    };
    let sites = snapshot.list.iter().map(|site| {
        let count = |outcome| site.counters.get(outcome);
        let hits = count(Outcome::Hit) + count(Outcome::Stale) + count(Outcome::Revalidated);
        let all = hits + count(Outcome::Miss);
        SiteStatus {
            site: site.name.to_string(),
            requests: Outcome::ALL
                .iter()
                .map(|outcome| (outcome.label().to_owned(), count(*outcome)))
                .collect(),
            hit_ratio: (all > 0).then(|| hits as f64 / all as f64),
        }
    });
    let disks = node.under.as_ref().map(|under| under.status()).unwrap_or_default();
    let sent = node.telemetry.bytes_out.get();
    Status {
        node: node.name.to_string(),
        datacenter: snapshot.plan.edge.datacenter.clone(),
        role: format!("{:?}", snapshot.plan.edge.role).to_lowercase(),
        state: if node.is_draining() { "draining" } else { "serving" }.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        connections: node.telemetry.connections.load(Ordering::Relaxed),
        in_flight: node.telemetry.in_flight.load(Ordering::Relaxed),
        fills: node.fills.len(),
        memory: Memory {
            bytes: stats.bytes,
            capacity: memory.capacity(),
            objects: stats.objects,
            segments: stats.segments,
            evictions: stats.evictions,
        },
        written_per_byte_sent: (sent > 0 && !disks.is_empty())
            .then(|| disks.iter().map(|disk| disk.written).sum::<u64>() as f64 / sent as f64),
        disks,
        sites: sites.collect(),
        origins: snapshot.origins.values().map(|origin| upstream(&origin.upstream)).collect(),
        parents: snapshot.parents.values().map(|parent| upstream(&parent.upstream)).collect(),
    }
}

/// `GET /v1/report`: what geodns reads of a node. Its load is the fullest of its limits: client connections, and bytes
/// that fetches hold on their way into the store.
fn report(node: &Node) -> Report {
    let status = status(node);
    let snapshot = node.snapshot.load();
    let edge = &snapshot.plan.edge;
    let mut protocols = Vec::new();
    if !edge.http.is_empty() || !edge.https.is_empty() {
        protocols.push("http/1.1".to_owned());
    }
    if !edge.https.is_empty() {
        protocols.push("h2".to_owned());
    }
    let (hits, asked) = node.hits();
    let share = |bytes: u64, of: u64| bytes as f64 / of.max(1) as f64;
    let of_disks = |get: fn(&DiskStatus) -> u64| status.disks.iter().map(get).sum();
    let on_disk = share(of_disks(|disk| disk.bytes), of_disks(|disk| disk.size));
    let fullness = share(status.memory.bytes, status.memory.capacity).max(on_disk);
    let connections = status.connections as f64 / f64::from(edge.max_connections.max(1));
    let (egress_bps, warmth) = {
        let meter = node.telemetry.meter.lock().unwrap_or_else(PoisonError::into_inner);
        (meter.egress_bps(), meter.warmth(fullness))
    };
    let origins = status.origins.iter().map(|origin| OriginState {
        name: origin.name.clone(),
        up: origin.servers.iter().any(|server| server.up),
    });
    Report {
        node: status.node,
        datacenter: status.datacenter,
        state: if node.is_draining() { State::Draining } else { State::Serving },
        connections: status.connections as u64,
        in_flight: status.in_flight as u64,
        load: connections.max(node.fills.fullness()),
        egress_bps,
        hit_ratio: (asked > 0).then(|| hits as f64 / asked as f64),
        warmth,
        applied: None,
        protocols,
        origins: origins.collect(),
    }
}

/// The handler of the admin API.
pub fn handler(node: &Arc<Node>, reloads: mpsc::Sender<ReloadRequest>) -> Handler {
    let node = Arc::clone(node);
    Arc::new(move |call: Call| {
        let (node, reloads) = (Arc::clone(&node), reloads.clone());
        Box::pin(async move { answer(&node, &call, &reloads).await })
    })
}

pub(super) async fn answer(
    node: &Node,
    call: &Call,
    reloads: &mpsc::Sender<ReloadRequest>,
) -> Answer {
    let get = call.method == Method::GET;
    match (get, call.path().as_slice()) {
        (true, ["livez"]) => Answer::text(StatusCode::OK, "ok\n"),
        (true, ["readyz"]) if node.is_draining() => {
            Answer::text(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
        }
        // It serves meanwhile: what the disks hold is a miss until they know.
        (true, ["readyz"]) if node.under.as_ref().is_some_and(|under| under.is_recovering()) => {
            Answer::text(StatusCode::OK, "ok, the disks are being read\n")
        }
        (true, ["readyz"]) => Answer::text(StatusCode::OK, "ok\n"),
        (true, ["metrics"]) => Answer::metrics(node.metrics()),
        (true, ["v1", "openapi.json"]) => Answer::new(StatusCode::OK, "application/json", OPENAPI),
        (true, ["v1", "status"]) => Answer::json(&status(node)),
        (true, ["v1", "report"]) => Answer::json(&report(node)),
        (true, ["v1", "advise"]) => Answer::json(&node.predicting.report()),
        (true, ["v1", "explain"]) => of_url(node, call, Explained::json).await,
        (true, ["v1", "object"]) => {
            of_url(node, call, |found| {
                serde_json::json!({
                    "key": found.key.text(),
                    "purged": { "hard": found.purged.hard.0, "soft": found.purged.soft.0 },
                    "stored": found.objects(),
                })
            })
            .await
        }
        (false, ["v1", "purge"]) => super::purge::post(node, call).await,
        (true, ["v1", "purge", id]) => super::purge::get(node, id),
        (false, ["v1", "drain"]) => {
            node.set_drained(true);
            Answer::json(&serde_json::json!({ "state": "draining" }))
        }
        (false, ["v1", "undrain"]) => {
            node.set_drained(false);
            Answer::json(&serde_json::json!({ "state": "serving" }))
        }
        (false, ["v1", "reload"]) => {
            let (sender, result) = tokio::sync::oneshot::channel();
            if reloads.send(sender).await.is_err() {
                return Answer::problem(StatusCode::SERVICE_UNAVAILABLE, "the node is ending");
            }
            match result.await {
                Ok(Ok(())) => Answer::json(&serde_json::json!({ "reloaded": true })),
                Ok(Err(why)) => Answer::problem(StatusCode::UNPROCESSABLE_ENTITY, &why),
                Err(_) => Answer::problem(StatusCode::SERVICE_UNAVAILABLE, "the node is ending"),
            }
        }
        (_, path) if ENDPOINTS.iter().any(|(_, known)| fits(known, path)) => Answer::problem(
            StatusCode::METHOD_NOT_ALLOWED,
            if get { "this path takes POST" } else { "this path takes GET" },
        ),
        _ => Answer::not_found(),
    }
}

/// Whether a path is one of a pattern's, in which `{…}` stands for any segment.
fn fits(pattern: &str, path: &[&str]) -> bool {
    let segments: Vec<&str> = pattern.split('/').collect();
    segments.len() == path.len()
        && segments.iter().zip(path).all(|(one, other)| one.starts_with('{') || one == other)
}

/// Answers of a URL; parameters `header=Name: value` are the request's fields, `client` is whose it is.
async fn of_url(
    node: &Node,
    call: &Call,
    show: impl Fn(&Explained) -> serde_json::Value,
) -> Answer {
    let bad = |detail: &str| Answer::problem(StatusCode::BAD_REQUEST, detail);
    let Some(url) = call.parameter("url") else {
        return bad("the parameter `url` is missing, such as ?url=https://www.cdn.test/");
    };
    let mut headers = HeaderMap::new();
    for (_, field) in call.query.iter().filter(|(name, _)| name == "header") {
        let parsed = field.split_once(':').and_then(|(name, value)| {
            let name: http::HeaderName = name.trim().parse().ok()?;
            Some((name, http::HeaderValue::from_str(value.trim()).ok()?))
        });
        let Some((name, value)) = parsed else {
            return bad("a parameter `header` is `Name: value`");
        };
        headers.append(name, value);
    }
    let client = match call.parameter("client").map(str::parse) {
        None => None,
        Some(Ok(client)) => Some(client),
        Some(Err(_)) => return bad("the parameter `client` is an IP address"),
    };
    let Ok(method) = call.parameter("method").unwrap_or("GET").parse::<Method>() else {
        return bad("the parameter `method` is one of HTTP's, such as HEAD");
    };
    match explain::explain(node, &method, url, &headers, client).await {
        Ok(found) => Answer::json(&show(&found)),
        Err(reject) => Answer::problem(
            reject.status,
            &format!("a request for `{url}` would be refused: {}", reject.reason),
        ),
    }
}
