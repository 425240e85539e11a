//! Asks every target of every check in time, and tells the node. Thresholds and their consequences are the monitor's.

use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use shared::config::{CheckKind, StatusPattern};
use shared::io::probe::{Question, ask};
use shared::io::tls;
use tokio::sync::{Notify, Semaphore};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::node::{Draws, Node};
use crate::config::Check;
use crate::metrics::PROBE_DURATION;
use crate::monitor::TargetKey;

/// Probes in flight at most.
const IN_FLIGHT: usize = 256;

/// Probes the node's targets until dropped; `changed` says that a reload has brought others.
pub(super) async fn run(node: Arc<Node>, changed: Arc<Notify>) {
    let permits = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut tasks = JoinSet::new();
    let mut running: BTreeMap<TargetKey, (Target, AbortHandle)> = BTreeMap::new();
    loop {
        // What a reload left as it was goes on: a probe in flight still counts, and none is asked sooner for it.
        let mut before = std::mem::take(&mut running);
        let (checks, served) = node.checks_and_served();
        let edges = &served.snapshot.tables.world.edges;
        for check in checks.iter() {
            let question = LazyCell::new(|| question(check));
            for (edge, address) in &check.targets {
                let Some(edge) = edges.get(usize::from(*edge)) else { continue };
                let key = (check.name.clone(), edge.name.clone());
                let target = Target::new(check, *address);
                let task = match before.remove(&key) {
                    Some((same, task)) if same == target => task,
                    other => {
                        if let Some((_, task)) = other {
                            task.abort();
                        }
                        tasks.spawn(watch(
                            Arc::clone(&node),
                            key.clone(),
                            target.clone(),
                            question.clone().map(|question| with_host(question, *address)),
                            Arc::clone(&permits),
                        ))
                    }
                };
                running.insert(key, (target, task));
            }
        }
        // What it took away stops at once.
        for (_, task) in before.into_values() {
            task.abort();
        }
        drop((checks, served));
        loop {
            tokio::select! {
                () = changed.notified() => break,
                Some(_) = tasks.join_next() => {}
                () = tokio::time::sleep(Duration::from_secs(1)) => node.tick(),
            }
        }
    }
}

/// All that a probe depends on.
#[derive(Clone, PartialEq)]
struct Target {
    address: SocketAddr,
    kind: CheckKind,
    host: Option<String>,
    path: String,
    status: Vec<StatusPattern>,
    interval: Duration,
    timeout: Duration,
}

impl Target {
    fn new(check: &Check, address: SocketAddr) -> Self {
        let Check { kind, host, path, status, interval, timeout, .. } = check.clone();
        Self { address, kind, host, path, status, interval, timeout }
    }
}

async fn watch(
    node: Arc<Node>,
    key: TargetKey,
    target: Target,
    question: Result<Question, String>,
    permits: Arc<Semaphore>,
) {
    let mut draws = Draws::new();
    let good = node.registry.histogram(&PROBE_DURATION, &[&key.0, "good"]);
    let bad = node.registry.histogram(&PROBE_DURATION, &[&key.0, "bad"]);
    loop {
        let Ok(permit) = permits.acquire().await else { return };
        let started = Instant::now();
        let result = match &question {
            Ok(question) => ask(target.address, question, target.timeout)
                .await
                .map(|_| ())
                .map_err(|failure| failure.to_string()),
            Err(why) => Err(why.clone()),
        };
        drop(permit);
        if result.is_ok() { &good } else { &bad }.observe(started.elapsed());
        node.record(&key, result);
        // Up to a tenth sooner, never later: nodes that start together drift apart, and failures are noticed in time.
        let early = target.interval.mul_f64((draws.next() % 1000) as f64 / 10_000.0);
        sleep_until(started + target.interval - early).await;
    }
}

fn question(check: &Check) -> Result<Question, String> {
    let tls = match check.kind {
        CheckKind::Tcp => return Ok(Question::Tcp),
        CheckKind::Http | CheckKind::Report => None,
        CheckKind::Https => Some(Arc::new(tls::client_config(None, &[b"http/1.1"])?)),
    };
    let host = check.host.clone().unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name).to_owned();
    Ok(Question::Http {
        host,
        path: check.path.clone(),
        status: check.status.clone(),
        tls: tls.map(|config| (name, config)),
    })
}

/// A check without a host asks for the address.
fn with_host(question: Question, address: SocketAddr) -> Question {
    match question {
        Question::Http { host, path, status, tls } if host.is_empty() => {
            let tls = tls.map(|(_, config)| (address.ip().to_string(), config));
            Question::Http { host: address.to_string(), path, status, tls }
        }
        other => other,
    }
}
