//! Asks every target of every check in time, and tells the node. Thresholds and their consequences are the monitor's.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use shared::config::{CheckKind, StatusPattern};
use shared::io::probe::{Answer, Question, Secret, ask};
use shared::io::{clock, files, tls};
use shared::report::Report;
use tokio::sync::{Notify, Semaphore};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::node::{Draws, Node};
use crate::certificate;
use crate::config::Check;
use crate::metrics::PROBE_DURATION;
use crate::monitor::{Probed, TargetKey};

/// Probes in flight at most.
const IN_FLIGHT: usize = 256;
/// Of them, to targets that failed last time: many that hang must not make the others wait.
const TO_THE_FAILED: usize = 192;
/// How often time passes for what no probe brings about.
pub(super) const TICK: Duration = Duration::from_millis(500);
/// A probe that met a bug begins anew after this.
const AFTER_A_BUG: Duration = Duration::from_secs(1);

/// Probes the node's targets until dropped; `changed` says that a reload has brought others.
pub(super) async fn run(node: Arc<Node>, changed: Arc<Notify>) {
    let places = Arc::new(Places::default());
    let mut probes = Probes::default();
    let mut saves = JoinSet::new();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let (checks, served) = node.checks_and_served();
        let edges = &served.snapshot.tables.world.edges;
        let mut wanted = BTreeMap::new();
        for check in checks.iter() {
            for asked in &check.targets {
                let Some(edge) = edges.get(usize::from(asked.edge)) else { continue };
                let target = Target::new(check, asked.address, asked.token_file.clone());
                wanted.insert((check.name.clone(), edge.name.clone()), target);
            }
        }
        drop((checks, served));
        let begin = |key: TargetKey, target: Target, wait: Duration| {
            watch(Arc::clone(&node), key, target, Arc::clone(&places), wait)
        };
        probes.replace(wanted, begin);
        loop {
            tokio::select! {
                () = changed.notified() => break,
                Some(ended) = probes.tasks.join_next_with_id() => probes.ended(ended.map(|(id, ())| id), begin),
                _ = tick.tick() => {
                    node.tick();
                    if let Some(save) = node.save_if_due() {
                        saves.spawn_blocking(move || {
                            if let Err(why) = save.write() {
                                tracing::warn!("{why}");
                            }
                        });
                    }
                }
                Some(_) = saves.join_next() => {}
            }
        }
    }
}

/// The probes that run.
#[derive(Default)]
struct Probes {
    tasks: JoinSet<()>,
    running: BTreeMap<TargetKey, (Target, AbortHandle)>,
}

impl Probes {
    /// What is wanted as it was goes on: a probe in flight still counts, and none is asked sooner for it. What is not
    /// wanted any more stops at once.
    fn replace<F>(
        &mut self,
        wanted: BTreeMap<TargetKey, Target>,
        begin: impl Fn(TargetKey, Target, Duration) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut before = std::mem::take(&mut self.running);
        for (key, target) in wanted {
            let task = match before.remove(&key) {
                Some((same, task)) if same == target => task,
                other => {
                    if let Some((_, task)) = other {
                        task.abort();
                    }
                    self.tasks.spawn(begin(key.clone(), target.clone(), Duration::ZERO))
                }
            };
            self.running.insert(key, (target, task));
        }
        for (_, task) in before.into_values() {
            task.abort();
        }
    }

    /// A probe has ended: those that were stopped are gone, one that met a bug begins anew.
    fn ended<F>(
        &mut self,
        ended: Result<tokio::task::Id, JoinError>,
        begin: impl Fn(TargetKey, Target, Duration) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let id = match &ended {
            Ok(id) => *id,
            Err(error) => error.id(),
        };
        let found = self.running.iter_mut().find(|(_, (_, task))| task.id() == id);
        let Some((key, (target, task))) = found else { return };
        tracing::error!(
            check = key.0,
            edge = key.1,
            "a probe met a bug of ours and begins anew: please report what is told above"
        );
        *task = self.tasks.spawn(begin(key.clone(), target.clone(), AFTER_A_BUG));
    }
}

/// Places for probes in flight.
struct Places {
    all: Semaphore,
    to_the_failed: Semaphore,
}

impl Default for Places {
    fn default() -> Self {
        let (all, to_the_failed) = (Semaphore::new(IN_FLIGHT), Semaphore::new(TO_THE_FAILED));
        Self { all, to_the_failed }
    }
}

/// All that a probe depends on.
#[derive(Clone, Debug, PartialEq)]
struct Target {
    address: SocketAddr,
    kind: CheckKind,
    host: Option<String>,
    path: String,
    status: Vec<StatusPattern>,
    interval: Duration,
    timeout: Duration,
    min_days: u16,
    ca_file: Option<PathBuf>,
    token_file: Option<PathBuf>,
}

impl Target {
    fn new(check: &Check, address: SocketAddr, token_file: Option<PathBuf>) -> Self {
        let Check { kind, host, path, status, interval, timeout, min_days, ca_file, .. } =
            check.clone();
        Self { address, kind, host, path, status, interval, timeout, min_days, ca_file, token_file }
    }
}

async fn watch(
    node: Arc<Node>,
    key: TargetKey,
    target: Target,
    places: Arc<Places>,
    wait: Duration,
) {
    tokio::time::sleep(wait).await;
    let question = question(&target);
    let mut draws = Draws::new();
    let good = node.registry.histogram(&PROBE_DURATION, &[&key.0, "good"]);
    let bad = node.registry.histogram(&PROBE_DURATION, &[&key.0, "bad"]);
    let mut failed = false;
    loop {
        let narrow = match failed {
            true => places.to_the_failed.acquire().await.ok(),
            false => None,
        };
        let Ok(place) = places.all.acquire().await else { return };
        let started = Instant::now();
        let probed = match &question {
            Ok(question) => match ask(target.address, question, target.timeout).await {
                Ok(answer) => judge(&target, &key.1, &answer),
                Err(failure) => Probed::bad(failure.to_string()),
            },
            Err(why) => Probed::bad(why.as_str()),
        };
        drop((place, narrow));
        failed = probed.failure.is_some();
        if failed { &bad } else { &good }.observe(started.elapsed());
        node.record(&key, probed);
        // Up to a tenth sooner, never later: nodes that start together drift apart, and failures are noticed in time.
        let early = target.interval.mul_f64((draws.next() % 1000) as f64 / 10_000.0);
        sleep_until(started + target.interval - early).await;
    }
}

fn question(target: &Target) -> Result<Question, String> {
    let tls = match target.kind {
        CheckKind::Tcp => return Ok(Question::Tcp),
        CheckKind::Http | CheckKind::Report => None,
        CheckKind::Https => {
            let config = tls::client_config(target.ca_file.as_deref(), &[b"http/1.1"])?;
            Some(Arc::new(config))
        }
    };
    let token = match (target.kind, &target.token_file) {
        (CheckKind::Report, Some(file)) => Some(Secret(files::read_secret(file)?)),
        _ => None,
    };
    let address = target.address;
    // A check without a host asks for the address.
    let host = match (target.kind, &target.host) {
        (CheckKind::Http | CheckKind::Https, Some(host)) => host.clone(),
        _ => address.to_string(),
    };
    let name = match host == address.to_string() {
        true => address.ip().to_string(),
        false => host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name).to_owned(),
    };
    let (path, status) = match target.kind {
        CheckKind::Report => ("/v1/report".to_owned(), vec![StatusPattern { from: 200, to: 200 }]),
        _ => (target.path.clone(), target.status.clone()),
    };
    Ok(Question::Http { host, path, status, tls: tls.map(|config| (name, config)), token })
}

/// Whether what `edge` has answered is what the check wants.
fn judge(target: &Target, edge: &str, answer: &Answer) -> Probed {
    let mut probed = Probed::good();
    if target.kind == CheckKind::Report {
        match report(&answer.body, edge) {
            Ok(report) => probed.report = Some(Arc::new(report)),
            Err(why) => probed.failure = Some(why.into()),
        }
    }
    // Any of a chain that ends takes the others with it.
    let ends = answer.certificates.iter().filter_map(|der| certificate::ends(der)).min();
    if let Some(ends) = ends {
        let days = certificate::days_left(ends, clock::now());
        probed.certificate_days = Some(days);
        if days < i64::from(target.min_days) {
            let least = target.min_days;
            let why = format!("the certificate ends in {days} days, fewer than {least}: at {ends}");
            probed.failure = Some(why.into());
        }
    }
    probed
}

/// What an edge says of itself; of another node it says nothing.
fn report(body: &[u8], edge: &str) -> Result<Report, String> {
    let report: Report =
        serde_json::from_slice(body).map_err(|error| format!("this is no report: {error}"))?;
    match report.node == edge {
        true => Ok(report.sane()),
        false => Err(format!("this is a report of `{}`", report.node.escape_debug())),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn target(kind: CheckKind, min_days: u16) -> Target {
        Target {
            address: "127.0.0.1:1".parse().unwrap(),
            kind,
            host: None,
            path: "/".to_owned(),
            status: Vec::new(),
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            min_days,
            ca_file: None,
            token_file: None,
        }
    }

    #[tokio::test]
    async fn a_probe_that_meets_a_bug_begins_anew_and_one_that_is_not_wanted_stops() {
        let begun = Arc::new(AtomicUsize::new(0));
        let begin = |_: TargetKey, _: Target, _: Duration| {
            let count = begun.fetch_add(1, Ordering::Relaxed);
            async move {
                assert!(count > 0, "a bug");
                std::future::pending::<()>().await;
            }
        };
        let mut probes = Probes::default();
        let key = ("c".to_owned(), "e".to_owned());
        let wanted = || BTreeMap::from([(key.clone(), target(CheckKind::Tcp, 0))]);
        probes.replace(wanted(), begin);
        let ended = probes.tasks.join_next_with_id().await.unwrap().map(|(id, ())| id);
        assert!(ended.is_err());
        probes.ended(ended, begin);
        assert_eq!((begun.load(Ordering::Relaxed), probes.tasks.len()), (2, 1));
        probes.replace(wanted(), begin);
        assert_eq!(begun.load(Ordering::Relaxed), 2, "what is wanted as it was goes on");
        let other = BTreeMap::from([(key.clone(), target(CheckKind::Http, 0))]);
        probes.replace(other, begin);
        assert_eq!(begun.load(Ordering::Relaxed), 3);
        let ended = probes.tasks.join_next_with_id().await.unwrap().map(|(id, ())| id);
        probes.ended(ended, begin);
        probes.replace(BTreeMap::new(), begin);
        let ended = probes.tasks.join_next_with_id().await.unwrap().map(|(id, ())| id);
        assert!(ended.is_err(), "stopped");
        probes.ended(ended, begin);
        assert_eq!((begun.load(Ordering::Relaxed), probes.tasks.len()), (3, 0));
    }

    #[test]
    fn questions_are_of_the_checks_kind() {
        let asked = |target: Target| match question(&target).unwrap() {
            Question::Tcp => ("tcp".to_owned(), None),
            Question::Http { host, tls, .. } => (host, tls.map(|(name, _)| name)),
        };
        let with_host =
            |kind, host: &str| Target { host: Some(host.to_owned()), ..target(kind, 0) };
        let named = |name: &str| Some(name.to_owned());
        assert_eq!(asked(target(CheckKind::Http, 0)), ("127.0.0.1:1".to_owned(), None));
        assert_eq!(
            asked(target(CheckKind::Https, 0)),
            ("127.0.0.1:1".to_owned(), named("127.0.0.1"))
        );
        assert_eq!(
            asked(with_host(CheckKind::Https, "www.test:8443")),
            ("www.test:8443".to_owned(), named("www.test"))
        );
        assert_eq!(
            asked(with_host(CheckKind::Report, "www.test")),
            ("127.0.0.1:1".to_owned(), None),
            "an admin listener knows no names"
        );
        let lost =
            Target { token_file: Some("/nowhere/token".into()), ..target(CheckKind::Report, 0) };
        assert!(question(&lost).unwrap_err().contains("/nowhere/token"));
    }

    #[test]
    fn a_report_must_be_of_the_edge_asked() {
        for (body, good) in [
            (r#"{"node":"e"}"#, true),
            (r#"{"node":"other"}"#, false),
            ("{}", false),
            ("", false),
            ("[]", false),
            (r#"{"node":"e","load":"much"}"#, false),
        ] {
            let answer = Answer { body: body.as_bytes().to_vec().into(), certificates: Vec::new() };
            let probed = judge(&target(CheckKind::Report, 0), "e", &answer);
            assert_eq!((probed.failure.is_none(), probed.report.is_some()), (good, good), "{body}");
        }
    }
}
