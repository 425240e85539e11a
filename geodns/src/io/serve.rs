//! Runs a nameserver: binds, checks, answers, reloads, ends.

use std::net::TcpListener;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use shared::config::{LogSpec, NameserverSpec, listing};
use shared::io::log::JsonLog;
use shared::io::run::{Order, Orders};
use shared::io::{admin as admin_server, clock, files, sockets};
use shared::metrics::Registry;
use tokio::sync::{Mutex, Notify};

use super::certificate::{self, Certificate};
use super::connections::{Connections, Counters, Limits};
use super::dnstap::Tap;
use super::encrypted::Encrypted;
use super::load::{Loading, load, moved_too_much};
use super::node::Node;
use super::{admin, huge, probe, tcp, udp};
use crate::dnstap::Identity;
use crate::metrics;

/// How long a start waits for the first round of checks: a target that hangs must not keep the others from clients.
const FIRST_ROUND: Duration = Duration::from_secs(5);

/// Takes new configurations, one at a time.
pub(super) struct Reloader {
    node: Arc<Node>,
    changed: Arc<Notify>,
    turn: Mutex<()>,
    started_as: Option<(NameserverSpec, LogSpec)>,
    certificate: Option<Arc<Certificate>>,
}

/// Whether what was bound at the start is what the configuration still says.
fn same_listeners(new: &NameserverSpec, bound: &NameserverSpec) -> bool {
    let parts = |spec: &NameserverSpec| {
        let limits = (spec.tcp_connections, spec.tcp_connections_per_client, spec.tcp_idle);
        let encrypted = (spec.dot.clone(), spec.doh.clone(), spec.doq.clone());
        (spec.listen.clone(), encrypted, spec.admin, spec.workers, limits)
    };
    parts(new) == parts(bound)
}

/// Whether the logs that were opened at the start are what the configuration still says.
fn same_logs(new: &LogSpec, opened: &LogSpec) -> bool {
    // What is left out is the cache nodes'.
    LogSpec { access: opened.access.clone(), ..new.clone() } == *opened
}

impl Reloader {
    /// `started_as`: what was bound and opened at the start; `changed` is told of every configuration taken.
    pub(super) fn new(
        node: &Arc<Node>,
        changed: &Arc<Notify>,
        started_as: Option<(NameserverSpec, LogSpec)>,
    ) -> Self {
        let (node, changed) = (Arc::clone(node), Arc::clone(changed));
        Self { node, changed, turn: Mutex::new(()), started_as, certificate: None }
    }

    /// The certificate that reloads replace.
    fn with_certificate(mut self, certificate: Option<&Arc<Certificate>>) -> Self {
        self.certificate = certificate.cloned();
        self
    }

    /// Reads everything again and takes it over, or keeps what there is. Returns the warnings, or the problems.
    pub(super) async fn reload(&self) -> Result<Vec<String>, Vec<String>> {
        let _turn = self.turn.lock().await;
        let (path, name) = (self.node.config_path.clone(), Arc::clone(&self.node.name));
        let before = self.node.served.load_full();
        let loaded = tokio::task::spawn_blocking(move || {
            let loading = load(&path).map_err(|problems| vec![listing(&problems)])?;
            huge::gather(loading.tables.regions());
            let moved = moved_too_much(&before.snapshot.tables, &loading);
            if !moved.is_empty() {
                return Err(vec![listing(&moved)]);
            }
            let certified = certificate::load(&loading.config, &name);
            Ok((loading, certified.map_err(|problem| vec![problem.to_string()])?))
        });
        let refuse = |problems: Vec<String>| {
            let listed = problems.join("\n");
            tracing::error!("the configuration was refused, the last good one goes on:\n{listed}");
            self.node.refuse_reload(listed);
            problems
        };
        let (loading, certified) = loaded
            .await
            .unwrap_or_else(|error| Err(vec![error.to_string()]))
            .and_then(|loaded| match loaded.0.config.spec.nameserver.get(&*self.node.name) {
                Some(_) => Ok(loaded),
                None => Err(vec![format!("there is no nameserver `{}` any more", self.node.name)]),
            })
            .map_err(refuse)?;
        let mut warnings: Vec<_> = loading.warnings.iter().map(ToString::to_string).collect();
        let spec = &loading.config.spec;
        if let (Some(now), Some((bound, log))) =
            (spec.nameserver.get(&*self.node.name), &self.started_as)
        {
            if !same_listeners(now, bound) {
                warnings.push(
                    "addresses, workers and limits of listeners change with the next start"
                        .to_owned(),
                );
            }
            if !same_logs(&spec.log, log) {
                warnings.push(
                    "`query`, `dnstap` and `sample` of [log] change with the next start".to_owned(),
                );
            }
        }
        self.node.replace(loading).map_err(|problems| refuse(vec![listing(&problems)]))?;
        if let Some((certificate, certified)) = self.certificate.as_ref().zip(certified) {
            certificate.replace(certified);
        }
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        self.changed.notify_one();
        tracing::info!("the configuration was taken over");
        Ok(warnings)
    }
}

/// Serves as the nameserver `name` until told to stop.
///
/// # Errors
/// Why it cannot begin.
pub fn run(name: &str, config_path: PathBuf, loading: Loading) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(run_async(name, config_path, loading))
}

async fn run_async(name: &str, config_path: PathBuf, loading: Loading) -> Result<(), String> {
    let spec = &loading.config.spec;
    let nameserver = spec
        .nameserver
        .get(name)
        .cloned()
        .ok_or_else(|| format!("there is no nameserver `{name}` in the configuration"))?;
    let registry = Arc::new(Registry::new());
    let target = spec.log.query.for_node(name);
    let dropped = registry.counter(&metrics::DROPPED, &["log-busy"]);
    let log = JsonLog::open(&target, dropped)
        .map_err(|error| format!("the query log cannot be opened: {error}"))?;
    let identity = Identity {
        identity: nameserver.nsid.as_deref().unwrap_or(name).into(),
        version: concat!("geodns ", env!("CARGO_PKG_VERSION")).into(),
    };
    let dropped = registry.counter(&metrics::DROPPED, &["dnstap-busy"]);
    let tap = Tap::open(&spec.log.dnstap.for_node(name), identity, dropped)
        .map_err(|error| format!("dnstap cannot begin: {error}"))?;
    let token = nameserver.admin_token_file.as_deref().map(files::read_secret).transpose()?;
    let admin_listener = bind_admin(&nameserver)?;
    let listeners = Listeners::bind(&nameserver)?;
    let certificate = certificate::at_start(&loading.config, name)?;
    let mut orders = Orders::listen().map_err(|error| error.to_string())?;

    huge::gather(loading.tables.regions());
    let log_spec = spec.log.clone();
    let node = Node::new(name, config_path, loading, Arc::clone(&registry), log, tap)?;
    let ready = Arc::new(AtomicBool::new(false));
    let changed = Arc::new(Notify::new());
    let reloader = Reloader::new(&node, &changed, Some((nameserver.clone(), log_spec)));
    let reloader = Arc::new(reloader.with_certificate(certificate.as_ref()));
    let handler = admin::handler(Arc::clone(&node), Arc::clone(&ready), Arc::clone(&reloader));
    tokio::spawn(admin_server::serve(admin_listener, token, handler));
    tokio::spawn(probe::run(Arc::clone(&node), changed));

    let begun = clock::instant();
    let is_known = || node.state().monitor.first_round_is_done();
    while !is_known() && begun.elapsed() < FIRST_ROUND {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(10)) => {}
            order = orders.next() => match order {
                Order::Stop => return Ok(()),
                Order::Reload => drop(reloader.reload().await),
            },
        }
    }
    let stop = Arc::new(AtomicBool::new(false));
    let connections = connections(&node, &nameserver);
    let threads = listeners.start(&node, certificate, &connections, &stop)?;
    ready.store(true, Ordering::Release);
    tracing::info!(node = name, listen = ?nameserver.listen, admin = %nameserver.admin, "ready");
    while orders.next().await == Order::Reload {
        // What is wrong with it has been logged.
        drop(reloader.reload().await);
    }
    ready.store(false, Ordering::Release);
    stop.store(true, Ordering::Relaxed);
    connections.stop();
    tokio::task::spawn_blocking(move || {
        for thread in threads {
            let _ = thread.join();
        }
    })
    .await
    .map_err(|error| error.to_string())?;
    node.save();
    tracing::info!(node = name, "stopped");
    Ok(())
}

fn bind_admin(nameserver: &NameserverSpec) -> Result<tokio::net::TcpListener, String> {
    let address = nameserver.admin;
    let failed = |error: std::io::Error| {
        format!("cannot listen on {address}, the `admin` of this nameserver: {error}")
    };
    let mut listeners = sockets::tcp_listeners(address, 1).map_err(failed)?;
    let listener = listeners.pop().ok_or_else(|| format!("no listener on {address}"))?;
    tokio::net::TcpListener::from_std(listener).map_err(failed)
}

fn connections(node: &Node, nameserver: &NameserverSpec) -> Arc<Connections> {
    let limits = Limits {
        connections: nameserver.tcp_connections,
        per_client: nameserver.tcp_connections_per_client,
        idle: nameserver.tcp_idle.get(),
    };
    let counters = Counters {
        open: node.registry.gauge(&metrics::TCP_CONNECTIONS, &[]),
        refused: node.registry.counter(&metrics::DROPPED, &["tcp-limit"]),
        evicted: node.registry.counter(&metrics::DROPPED, &["tcp-evicted"]),
        failed_handshakes: node.registry.counter(&metrics::DROPPED, &["handshake"]),
    };
    Connections::new(limits, counters)
}

/// Sockets that are bound and not yet served: clients' queries wait in the kernel for the first round of checks.
struct Listeners {
    udp: Vec<std::net::UdpSocket>,
    tcp: Vec<TcpListener>,
    encrypted: Encrypted,
}

impl Listeners {
    fn bind(nameserver: &NameserverSpec) -> Result<Self, String> {
        let workers = match nameserver.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => usize::from(workers),
        };
        let encrypted = Encrypted::bind(nameserver, workers)?;
        let mut bound = Self { udp: Vec::new(), tcp: Vec::new(), encrypted };
        for address in &nameserver.listen {
            let failed = |error| {
                format!("cannot listen on {address}, in `listen` of this nameserver: {error}")
            };
            bound.udp.extend(sockets::udp_sockets(*address, workers).map_err(failed)?);
            bound.tcp.extend(sockets::tcp_listeners(*address, workers).map_err(failed)?);
        }
        Ok(bound)
    }

    fn start(
        self,
        node: &Arc<Node>,
        certificate: Option<Arc<Certificate>>,
        connections: &Arc<Connections>,
        stop: &Arc<AtomicBool>,
    ) -> Result<Vec<JoinHandle<()>>, String> {
        let mut threads = self.encrypted.start(certificate, &node.served, connections)?;
        for (index, socket) in self.udp.into_iter().enumerate() {
            let (served, stop) = (Arc::clone(&node.served), Arc::clone(stop));
            threads.push(thread(format!("udp-{index}"), move || {
                until_done(|| udp::serve(&socket, &served, &stop));
            })?);
        }
        for (index, listener) in self.tcp.into_iter().enumerate() {
            let (served, connections) = (Arc::clone(&node.served), Arc::clone(connections));
            threads.push(thread(format!("tcp-{index}"), move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                match runtime {
                    Ok(runtime) => runtime.block_on(serve_tcp(listener, served, connections)),
                    Err(error) => tracing::error!(%error, "a TCP thread cannot begin"),
                }
            })?);
        }
        Ok(threads)
    }
}

fn thread(name: String, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, String> {
    std::thread::Builder::new().name(name).spawn(run).map_err(|error| error.to_string())
}

/// Runs `serve` until it ends by itself. A query that meets a bug of ours must not leave a socket that gathers queries
/// and answers none.
fn until_done(serve: impl Fn()) {
    while std::panic::catch_unwind(AssertUnwindSafe(&serve)).is_err() {
        tracing::error!(
            "a thread met a bug of ours and begins anew: please report what is told above"
        );
    }
}

async fn serve_tcp(
    listener: TcpListener,
    served: Arc<arc_swap::ArcSwap<super::node::Served>>,
    connections: Arc<Connections>,
) {
    tcp::prepare(&listener);
    match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => {
            tcp::serve(listener, served, Arc::clone(&connections)).await;
            connections.all_ended().await;
        }
        Err(error) => tracing::error!(%error, "a TCP listener cannot be used"),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    #[test]
    fn a_thread_that_meets_a_bug_begins_anew() {
        let rounds = Cell::new(0);
        super::until_done(|| {
            rounds.set(rounds.get() + 1);
            assert!(rounds.get() > 2, "a bug");
        });
        assert_eq!(rounds.get(), 3);
    }
}
