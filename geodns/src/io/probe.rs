//! Asks every target of every check in time, and tells the node. Thresholds and their consequences are the monitor's.

use std::sync::Arc;
use std::time::Duration;

use shared::config::CheckKind;
use shared::io::probe::{Question, ask};
use shared::io::tls;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
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
    loop {
        // What a reload took away stops at once: the old tasks are aborted with their set.
        let mut tasks = JoinSet::new();
        let checks = Arc::clone(&node.state().checks);
        for check in checks.iter() {
            let question = question(check);
            for (edge, address) in &check.targets {
                let served = node.served.load_full();
                let Some(edge) = served.snapshot.tables.world.edges.get(usize::from(*edge)) else {
                    continue;
                };
                tasks.spawn(watch(Target {
                    node: Arc::clone(&node),
                    key: (check.name.clone(), edge.name.clone()),
                    address: *address,
                    question: question.clone().map(|question| with_host(question, *address)),
                    interval: check.interval,
                    timeout: check.timeout,
                    permits: Arc::clone(&permits),
                }));
            }
        }
        loop {
            tokio::select! {
                () = changed.notified() => break,
                () = tokio::time::sleep(Duration::from_secs(1)) => node.tick(),
            }
        }
    }
}

struct Target {
    node: Arc<Node>,
    key: TargetKey,
    address: std::net::SocketAddr,
    question: Result<Question, String>,
    interval: Duration,
    timeout: Duration,
    permits: Arc<Semaphore>,
}

async fn watch(target: Target) {
    let mut draws = Draws::new();
    let check = target.key.0.as_str();
    let good = target.node.registry.histogram(&PROBE_DURATION, &[check, "good"]);
    let bad = target.node.registry.histogram(&PROBE_DURATION, &[check, "bad"]);
    loop {
        let Ok(permit) = target.permits.acquire().await else { return };
        let started = Instant::now();
        let result = match &target.question {
            Ok(question) => ask(target.address, question, target.timeout)
                .await
                .map(|_| ())
                .map_err(|failure| failure.to_string()),
            Err(why) => Err(why.clone()),
        };
        drop(permit);
        if result.is_ok() { &good } else { &bad }.observe(started.elapsed());
        target.node.record(&target.key, result);
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
    Ok(Question::Http {
        host: check.host.clone().unwrap_or_default(),
        path: check.path.clone(),
        status: check.status.clone(),
        tls,
    })
}

/// A check without a host asks for the address.
fn with_host(question: Question, address: std::net::SocketAddr) -> Question {
    match question {
        Question::Http { host, path, status, tls } if host.is_empty() => {
            Question::Http { host: address.to_string(), path, status, tls }
        }
        other => other,
    }
}
