//! Purges as they come, by the admin API and by `PURGE` requests: read, numbered where they bring no position, put in
//! force.
//!
//! `PURGE` is for one URL, with all its variants, in both schemes (programs that publish send it to one listener and mean
//! the page), and obeyed from the networks of `purge_from` only. With `Purge-Soft: 1` it is a soft one. It purges this node;
//! by the fences that also holds against the parents for what this node asks them.

use std::sync::{Arc, PoisonError};

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde::{Deserialize, Serialize};
use shared::io::admin::{Answer, Call};
use shared::io::clock;

use super::body::ResponseBody;
use super::node::{Node, Snapshot};
use super::respond::{self, Marks};
use super::serve::Context;
use super::telemetry::{Exchange, PURGES};
use crate::admit::Reject;
use crate::key::KeyRules;
use crate::purge::{Kind, Ledger, Position, Record, Target, is_plausible, target};
use crate::semantics::Reason;

/// The method.
pub(super) const PURGE: &str = "PURGE";
/// Makes a `PURGE` soft.
const PURGE_SOFT: &str = "purge-soft";

/// `POST /v1/purge`: all that it names is purged at one position, or nothing if something in it is wrong.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Order {
    /// URLs, each with all its variants; without a scheme those of http and https.
    pub urls: Vec<String>,
    /// Host and whole segments of a path: all below it.
    pub prefixes: Vec<String>,
    /// Hosts, all ports and schemes.
    pub hosts: Vec<String>,
    /// Tags.
    pub tags: Vec<String>,
    /// Everything.
    pub all: bool,
    /// Stale instead of gone.
    pub soft: bool,
    /// The position that another node gave it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
}

/// The answer to it, and to `GET /v1/purge/{id}`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Done {
    /// By which it is asked for.
    pub id: String,
    /// Its position: given to another node with the same order, both count it as one.
    pub seq: u64,
    /// The node that it is in force on.
    pub node: String,
    /// Whether it was a soft one.
    pub soft: bool,
    /// How many targets it has; a URL or prefix without a scheme has two.
    pub targets: usize,
    /// When it came.
    pub time: String,
}

impl Done {
    fn new(node: &Node, record: &Record) -> Self {
        Self {
            id: record.id.to_string(),
            seq: record.position.0,
            node: node.name.to_string(),
            soft: record.kind == Kind::Soft,
            targets: record.targets,
            time: record.time.to_string(),
        }
    }
}

/// What an order names.
///
/// # Errors
/// The first thing that is wrong with it.
fn targets(snapshot: &Snapshot, order: &Order) -> Result<Vec<Target>, String> {
    let known = |host: &str| snapshot.sites.find(host).is_some();
    let rules = |host: &str, path: &str| rules(snapshot, host, path);
    let mut targets = Vec::new();
    for url in &order.urls {
        targets.extend(target::url(url, rules)?);
    }
    for prefix in &order.prefixes {
        targets.extend(target::prefix(prefix, known)?);
    }
    for host in &order.hosts {
        targets.push(target::host(host, known)?);
    }
    for tag in &order.tags {
        targets.push(target::tag(tag)?);
    }
    if order.all {
        targets.push(Target::All);
    }
    match targets.is_empty() {
        true => {
            Err("nothing is named: give urls, prefixes, hosts, tags or \"all\": true".to_owned())
        }
        false => Ok(targets),
    }
}

/// The key rules of the route of a URL; none for a host of no site.
fn rules(snapshot: &Snapshot, host: &str, path: &str) -> Option<KeyRules> {
    let route = snapshot.sites.find(host)?.routes.find(path);
    let policy = route.and_then(|route| route.value.policy.as_ref());
    Some(policy.map(|policy| policy.key.clone()).unwrap_or_default())
}

/// Puts a purge in force, and waits until it is durable where purges are kept over restarts. One that is given again with the
/// same position is in force already.
///
/// # Errors
/// Why it is not durable: it is in force, but must not be acknowledged.
pub(super) async fn purge(
    node: &Node,
    targets: &[Target],
    kind: Kind,
    wanted: Option<Position>,
) -> Result<Record, String> {
    let started = clock::instant();
    let (record, is_new) = order(node, targets, kind, wanted);
    if let Some(log) = &node.purge_log
        && let Err(why) = log.settle(record.entry).await
    {
        node.telemetry.purges_not_kept.inc();
        return Err(format!(
            "the purge is in force, but would not outlast a restart: it cannot be written down: {why}; give it again \
             when that is mended"
        ));
    }
    if is_new {
        node.telemetry.purge_seconds.observe(started.elapsed());
        let (id, seq) = (&*record.id, record.position.0);
        tracing::info!(id, seq, targets = targets.len(), ?kind, "purged");
    }
    Ok(record)
}

/// Puts it in force. False: it was.
fn order(node: &Node, targets: &[Target], kind: Kind, wanted: Option<Position>) -> (Record, bool) {
    let time = clock::now();
    let mut ledger = node.ledger.lock().unwrap_or_else(PoisonError::into_inner);
    let known = wanted.and_then(|wanted| ledger.find(&Ledger::id(wanted, kind, targets)));
    if let Some(record) = known {
        return (record.clone(), false);
    }
    let position = match wanted {
        Some(wanted) => node.positions.claim(wanted, time),
        None => node.positions.next(time),
    };
    put_in_force(node, targets, kind, position, if kind == Kind::Soft { "soft" } else { "hard" });
    let id = Ledger::id(wanted.unwrap_or(position), kind, targets);
    let mut record = Record { id, position, kind, targets: targets.len(), time, entry: 0 };
    if let Some(log) = &node.purge_log {
        record.entry = log.add(targets, kind, position, Some(&record));
    }
    ledger.note(record.clone());
    (record, true)
}

/// What an unsafe method has made invalid (RFC 9111 §4.4) is purged at the next position. When this returns, it stays so,
/// however the node ends.
pub(super) async fn invalidate(node: &Arc<Node>, targets: &[Target]) {
    if !targets.is_empty() {
        let position = node.positions.next(clock::now());
        put_in_force(node, targets, Kind::Hard, position, "invalidated");
        if let Some(log) = &node.purge_log {
            let entry = log.add(targets, Kind::Hard, position, None);
            super::doubt::settled(node, log, entry).await;
        }
    }
}

fn put_in_force(node: &Node, targets: &[Target], kind: Kind, position: Position, mode: &str) {
    for target in targets {
        node.store.fences().apply(target, kind, position);
        node.telemetry.registry.counter(&PURGES, &[target.kind(), mode]).inc();
    }
}

/// `POST /v1/purge`.
pub(super) async fn post(node: &Node, call: &Call) -> Answer {
    let bad = |detail: &str| Answer::problem(StatusCode::BAD_REQUEST, detail);
    let order: Order = match serde_json::from_slice(&call.body) {
        Ok(order) => order,
        Err(error) => {
            let example = r#"such as {"urls": ["https://www.cdn.test/a.png"]}"#;
            return bad(&format!("the body is not a purge, {example}: {error}"));
        }
    };
    let wanted = order.position.map(Position);
    if let Some(position) = wanted
        && (position.0 == 0 || !is_plausible(position, clock::now()))
    {
        return bad(&format!(
            "{position} is no position: give the `seq` that another node has answered, or none"
        ));
    }
    let targets = match targets(&node.snapshot.load(), &order) {
        Ok(targets) => targets,
        Err(why) => return bad(&why),
    };
    let kind = if order.soft { Kind::Soft } else { Kind::Hard };
    match purge(node, &targets, kind, wanted).await {
        Ok(record) => Answer::json(&Done::new(node, &record)),
        Err(why) => Answer::problem(StatusCode::INTERNAL_SERVER_ERROR, &why),
    }
}

/// `GET /v1/purge/{id}`.
pub(super) fn get(node: &Node, id: &str) -> Answer {
    let ledger = node.ledger.lock().unwrap_or_else(PoisonError::into_inner);
    let none = |detail: &str| Answer::problem(StatusCode::NOT_FOUND, detail);
    let is_kept =
        |record: &Record| node.purge_log.as_ref().is_none_or(|log| log.is_durable(record.entry));
    match (ledger.find(id), &node.purge_log) {
        (Some(record), _) if is_kept(record) => Answer::json(&Done::new(node, record)),
        (Some(_), _) => {
            none("this purge is in force, but is not written down to outlast a restart")
        }
        (None, Some(_)) => {
            none("this node has been given no such purge, or a thousand others after it")
        }
        (None, None) => none(
            "this node has been given no such purge since it was started, or a thousand others after it",
        ),
    }
}

impl Context<'_> {
    /// Answers a `PURGE` request.
    pub(super) async fn purge(
        &self,
        mut exchange: Box<Exchange>,
        http1: bool,
    ) -> Response<ResponseBody> {
        let node = self.node();
        let plan = &self.snapshot.plan;
        let peer = self.connection.peer.ip.to_canonical();
        let refused = if plan.purge_from.is_empty() {
            Some((StatusCode::METHOD_NOT_ALLOWED, Reason::MethodNotAllowed))
        } else if !plan.purge_from.iter().any(|network| network.contains(peer)) {
            Some((StatusCode::FORBIDDEN, Reason::PurgeRefused))
        } else {
            None
        };
        if let Some((status, reason)) = refused {
            let reject = Reject { status, reason, close: false };
            return respond::refuse(exchange, &node.name, reject, http1);
        }
        exchange.reason = Reason::PurgeDone;
        let query = self.query.as_deref().map(|query| format!("?{query}")).unwrap_or_default();
        let url = format!("{}{}{query}", self.authority, self.path);
        // It has been admitted and routed: nothing can be wrong with it.
        let Ok(targets) = target::url(&url, |host, path| rules(self.snapshot, host, path)) else {
            return respond::error(exchange, &node.name, Reason::Internal, None, None);
        };
        let kind = if is_soft(&self.request.headers) { Kind::Soft } else { Kind::Hard };
        let answer = match purge(node, &targets, kind, None).await {
            Ok(record) => Answer::json(&Done::new(node, &record)),
            Err(why) => {
                exchange.reason = Reason::Internal;
                Answer::problem(StatusCode::INTERNAL_SERVER_ERROR, &why)
            }
        };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let response = respond::response(answer.status, headers, ResponseBody::once(answer.body));
        respond::finish(exchange, &node.name, response, &Marks::default())
    }
}

/// `1`, `true`, or the boolean of a structured field.
fn is_soft(headers: &HeaderMap) -> bool {
    let value = headers.get(PURGE_SOFT).map(|value| value.as_bytes().trim_ascii());
    value.is_some_and(|value| [&b"1"[..], b"?1", b"true"].contains(&value))
}
