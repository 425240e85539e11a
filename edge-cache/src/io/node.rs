//! What all workers of a node share, and how a new configuration takes its place.
//!
//! A [`Snapshot`] is made whole from a checked plan and swapped in; requests go on with the one that they began with.
//! Origins and parents whose tables have not changed are carried over, with their connections and their health.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderValue, StatusCode};
use shared::config::{Loaded, OriginSpec, Problem, Severity, Step, WhenDown, listing};
use shared::io::log::JsonLog;
use shared::io::{clock, files, tls};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::connect::Transport;
use super::doubt::Doubt;
use super::encoder::Encoder;
use super::fill_task::Fills;
use super::health;
use super::limit::Limit;
use super::pool::{Timeouts, Upstream, UpstreamSpec};
use super::predict::Predicting;
use super::purge_log::{self, PurgeLog};
use super::rules::{self, Material};
use super::signer::Signer;
use super::telemetry::{self, SiteCounters, Telemetry};
use super::under::{self, Under};
use crate::config::Plan;
use crate::meter::Sample;
use crate::origin::Balance;
use crate::predict::live::Shape;
use crate::purge::{Ledger, Positions};
use crate::route::{Hosts, Route, Routes};
use crate::rules::RouteRules;
use crate::segment::Layout;
use crate::semantics::Policy;
use crate::semantics::reason::Outcome;
use crate::store::Store;

/// Connections to one parent at once.
const PARENT_CONNECTIONS: usize = 512;

/// A node: what lives as long as the process.
pub struct Node {
    /// Its name.
    pub name: Arc<str>,
    /// The plan that it was started with.
    started: Plan,
    /// What is stored.
    pub store: Store,
    /// The disks that it stands on.
    pub under: Option<Arc<Under>>,
    /// What is being fetched.
    pub fills: Fills,
    /// The last purge that it knows of.
    pub positions: Arc<Positions>,
    /// The last ones that it was given. Serving takes no part in it.
    pub ledger: Mutex<Ledger>,
    /// Where they are kept over restarts; none where there is no folder for it.
    pub purge_log: Option<PurgeLog>,
    /// Whether some are not.
    pub doubt: Doubt,
    /// What the process may take.
    pub limit: Limit,
    /// What makes encodings of it.
    pub encoder: Encoder,
    /// Metrics.
    pub telemetry: Telemetry,
    /// What it would do if it were another.
    pub predicting: Predicting,
    /// Counters of requests that belong to no site.
    pub no_site: SiteCounters,
    /// The configuration in use.
    pub snapshot: ArcSwap<Snapshot>,
    /// The operator has asked it to go out of service.
    drained: AtomicBool,
    /// It is ending.
    stopping: watch::Sender<bool>,
    source: Source,
}

/// Where the configuration comes from.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// The node that was asked for.
    pub node: Option<String>,
}

/// A configuration in use.
pub struct Snapshot {
    /// What it was made from.
    pub plan: Plan,
    /// Sites by host.
    pub sites: Hosts<Arc<SiteState>>,
    /// The same in order.
    pub list: Vec<Arc<SiteState>>,
    /// Origins by name.
    pub origins: BTreeMap<String, Arc<Origin>>,
    /// Parents by name.
    pub parents: BTreeMap<String, Arc<Parent>>,
    /// TLS of the https listeners.
    pub tls: Arc<rustls::ServerConfig>,
    /// The access log.
    pub log: JsonLog,
    /// The checks of origins and parents, ended with the snapshot.
    _checks: health::Checks,
}

/// A site in service.
pub struct SiteState {
    /// Its name.
    pub name: Arc<str>,
    /// Its routes.
    pub routes: Routes<RouteTarget>,
    /// Its parents.
    pub tier: Option<Arc<Tier>>,
    /// Its counters.
    pub counters: SiteCounters,
    /// Whether responses carry Server-Timing.
    pub server_timing: bool,
}

/// Where a route leads.
#[derive(Clone)]
pub struct RouteTarget {
    /// The origin; none where there is a redirect only.
    pub origin: Option<Arc<Origin>>,
    /// `None`: passed on, never stored.
    pub policy: Option<Arc<Policy>>,
    /// What comes before and after the cache.
    pub rules: Arc<RouteRules>,
    /// Protocols that a connection may be switched to.
    pub upgrade: Arc<[HeaderValue]>,
}

/// A site's parents.
pub struct Tier {
    /// The next group is asked when none of a group is up.
    pub groups: Vec<Vec<Arc<Parent>>>,
    /// How far above the mean a parent's load may be.
    pub bounded_load: f64,
    /// Where a request goes whose parent is down.
    pub when_down: WhenDown,
}

/// A parent.
pub struct Parent {
    /// Its name.
    pub name: Arc<str>,
    /// `parent:NAME`.
    pub label: Arc<str>,
    /// Stable hash of its name.
    pub id: u64,
    /// It is this node: the origin is asked in its place.
    pub is_self: bool,
    /// Connections to it.
    pub upstream: Arc<Upstream>,
    plan: crate::config::Parent,
}

/// An origin.
pub struct Origin {
    /// `origin:NAME`.
    pub label: Arc<str>,
    /// Connections to it.
    pub upstream: Arc<Upstream>,
    /// `Host`, where it is not the client's.
    pub host: Option<HeaderValue>,
    /// What signs requests to it.
    pub signer: Option<Arc<Signer>>,
    /// How long its steps may take.
    pub timeouts: Timeouts,
    /// What stands in for it.
    pub failover: Option<Arc<Self>>,
    /// On these statuses, too.
    pub failover_on: Vec<StatusCode>,
    spec: OriginSpec,
}

/// Reads and checks the configuration.
///
/// # Errors
/// All that is wrong with it.
pub fn load(source: &Source) -> Result<(Loaded, Plan), Vec<Problem>> {
    let loaded = shared::config::load(&source.path, &files::System)?;
    let plan = Plan::new(&loaded, source.node.as_deref())?;
    Ok((loaded, plan))
}

/// What is wrong with the files that the configuration names for `edges`: certificates and keys of sites, authorities
/// and credentials of origins, admin tokens, keys of signed requests, databases of countries.
pub fn unusable_files(loaded: &Loaded, edges: &[&str]) -> Vec<Problem> {
    let spec = &loaded.spec;
    let mut problems = Vec::new();
    let mut wrong = |path: &[Step], why: String| {
        problems.push(loaded.problem(path, Severity::Error, why));
    };
    for (path, why) in rules::unusable(spec) {
        wrong(&path, why);
    }
    let speaks_tls = |name: &&str| spec.edge.get(*name).is_some_and(|edge| !edge.https.is_empty());
    let with_tls = edges.iter().any(speaks_tls);
    for (name, site) in &spec.site {
        // A parent without TLS need not have the certificates on its machine.
        let Some(files) = site.tls.as_ref().filter(|_| with_tls) else { continue };
        if let Err(why) = tls::load(&files.certificate_file, &files.key_file) {
            let is_certificate = why.starts_with(&*files.certificate_file.to_string_lossy());
            let key = if is_certificate { "certificate_file" } else { "key_file" };
            wrong(&["site".into(), name.into(), "tls".into(), key.into()], why);
        }
    }
    for (name, origin) in &spec.origin {
        let loaded = origin.ca_file.as_deref().map(|file| tls::client_config(Some(file), &[]));
        if let Some(Err(why)) = loaded {
            wrong(&["origin".into(), name.into(), "ca_file".into()], why);
        }
        if let Some(Err(why)) = origin.sigv4.as_ref().map(Signer::load) {
            let key = "credentials_file";
            wrong(&["origin".into(), name.into(), "sigv4".into(), key.into()], why);
        }
    }
    for name in edges {
        let edge = spec.edge.get(*name);
        let read = edge.and_then(|edge| edge.admin_token_file.as_deref()).map(files::read_secret);
        if let Some(Err(why)) = read {
            wrong(&["edge".into(), (*name).into(), "admin_token_file".into()], why);
        }
    }
    problems
}

impl Node {
    /// A node that serves `plan`. Must be called on a runtime that lasts: the checks run there.
    ///
    /// # Errors
    /// Files and folders that the plan names and that cannot be used.
    pub fn new(source: Source, plan: Plan) -> Result<Arc<Self>, String> {
        let telemetry = Telemetry::default();
        let (memory, max_object) = (plan.edge.memory.0, plan.max_object);
        let layout = Layout::new(plan.edge.segment.0);
        let tier = plan.memory(RandomState::new().hash_one(1));
        let snapshot = Snapshot::new(plan.clone(), &telemetry, None)?;
        telemetry.reload_ok.set(1.0);
        let run = first_number();
        let store = Store::new(tier, layout, run);
        let predicting = Predicting::start(Shape::of(&plan.edge, store.memory().capacity()))
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        let positions = Arc::new(Positions::default());
        let mut ledger = Ledger::default();
        // Before anything that was stored earlier can be looked at.
        let log = purge_log::folder(&plan)?
            .map(|folder| purge_log::open(&folder, store.fences(), &mut ledger, &positions));
        let (purge_log, purge_writer) = log.transpose()?.unzip();
        let under = under::open(&plan, &store, run, purge_log.as_ref())?;
        let node = Arc::new(Self {
            name: snapshot.plan.node.as_str().into(),
            started: plan,
            store,
            under: under.clone(),
            limit: Limit::new(memory, layout.size()),
            encoder: Encoder::default(),
            fills: Fills::new(memory, max_object),
            positions,
            ledger: Mutex::new(ledger),
            purge_log,
            doubt: Doubt::default(),
            no_site: telemetry.site(""),
            telemetry,
            predicting,
            snapshot: ArcSwap::from_pointee(snapshot),
            drained: AtomicBool::new(false),
            stopping: watch::Sender::new(false),
            source,
        });
        if let Some(writer) = purge_writer {
            writer.start(Arc::downgrade(&node))?;
        }
        tokio::spawn(sample(Arc::downgrade(&node)));
        if let Some(under) = under {
            tokio::spawn(async move { under.announce().await });
        }
        Ok(node)
    }

    /// Requests of all sites that the store answered, and those that it could have answered.
    pub fn hits(&self) -> (u64, u64) {
        let snapshot = self.snapshot.load();
        snapshot.list.iter().fold((0, 0), |(hits, asked), site| {
            let count = |outcome| site.counters.get(outcome);
            let found = count(Outcome::Hit) + count(Outcome::Stale) + count(Outcome::Revalidated);
            (hits + found, asked + found + count(Outcome::Miss))
        })
    }

    /// Reads the configuration again and takes it into service, or leaves the one in use.
    ///
    /// # Errors
    /// Why the new one is not in use.
    pub fn reload(&self) -> Result<Arc<Snapshot>, String> {
        let result = self.try_reload();
        self.telemetry.reload_ok.set(if result.is_ok() { 1.0 } else { 0.0 });
        result
    }

    fn try_reload(&self) -> Result<Arc<Snapshot>, String> {
        let source = Source { path: self.source.path.clone(), node: Some(self.name.to_string()) };
        let (loaded, plan) = load(&source).map_err(|problems| listing(&problems))?;
        let unusable = unusable_files(&loaded, &[&self.name]);
        if !unusable.is_empty() {
            return Err(listing(&unusable));
        }
        let old = self.snapshot.load_full();
        for key in self.started.fixed_at_start(&plan) {
            tracing::warn!(
                "`{key}` is another than at the start: it takes effect when the node is started anew"
            );
        }
        let new = Arc::new(Snapshot::new(plan, &self.telemetry, Some(&old))?);
        self.snapshot.store(Arc::clone(&new));
        Ok(new)
    }

    /// Puts a configuration back, because the listeners of the new one cannot be had.
    pub fn restore(&self, old: Arc<Snapshot>) {
        self.snapshot.store(old);
        self.telemetry.reload_ok.set(0.0);
    }

    /// Takes the node out of service, or back: it goes on to serve, but its health path says that it wants no clients.
    pub fn set_drained(&self, drained: bool) {
        self.drained.store(drained, Ordering::Relaxed);
    }

    /// The node is about to end.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Becomes true when the node is about to end.
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    /// Whether the node wants no new clients.
    pub fn is_draining(&self) -> bool {
        self.drained.load(Ordering::Relaxed) || *self.stopping.borrow()
    }

    /// The text of the metrics.
    pub fn metrics(&self) -> String {
        let telemetry = &self.telemetry;
        telemetry.collect(self.store.memory().stats(), &self.limit, self.is_draining());
        self.under.iter().for_each(|under| under.collect(&telemetry.registry));
        let snapshot = self.snapshot.load();
        for (name, origin) in &snapshot.origins {
            let up = origin.upstream.servers.iter().filter(|server| server.is_up()).count();
            telemetry.registry.gauge(&telemetry::ORIGIN_UP, &[name]).set(up as f64);
            let open = origin.upstream.open_connections();
            telemetry.registry.gauge(&telemetry::ORIGIN_CONNECTIONS, &[name]).set(open as f64);
        }
        for (name, parent) in &snapshot.parents {
            let up = f64::from(u8::from(parent.is_up()));
            telemetry.registry.gauge(&telemetry::PARENT_UP, &[name]).set(up);
        }
        self.predicting.collect(&telemetry.registry);
        telemetry.registry.render()
    }
}

/// Where the numbers of bodies begin: by chance, so that no two starts of a node give the same ones.
fn first_number() -> u64 {
    let number = RandomState::new().hash_one(clock::now().0);
    crate::store::object::number_bodies_from(number);
    number
}

/// Notes once a second what the node has done, until it is gone.
async fn sample(node: Weak<Node>) {
    let started = Instant::now();
    let mut second = interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        second.tick().await;
        let Some(node) = node.upgrade() else { return };
        let (hits, asked) = node.hits();
        let sent = node.telemetry.bytes_out.get();
        let sample = Sample { at: started.elapsed(), sent, hits, asked };
        node.telemetry.meter.lock().unwrap_or_else(PoisonError::into_inner).sample(sample);
    }
}

impl Parent {
    /// Whether it is asked.
    pub fn is_up(&self) -> bool {
        self.is_self || self.upstream.servers.first().is_some_and(super::server::Server::is_up)
    }
}

impl Snapshot {
    fn new(plan: Plan, telemetry: &Telemetry, old: Option<&Self>) -> Result<Self, String> {
        let mut origins = BTreeMap::new();
        for name in plan.origins.keys() {
            origin(name, &plan.origins, old, &mut origins)?;
        }
        let mut parents = BTreeMap::new();
        for (name, parent_plan) in &plan.parents {
            let kept = old
                .and_then(|old| old.parents.get(name))
                .filter(|parent| parent.plan == *parent_plan)
                .cloned();
            let parent = kept.unwrap_or_else(|| parent(name, parent_plan));
            parents.insert(name.clone(), parent);
        }
        let material = Material::load(&plan)?;
        let mut sites = Hosts::default();
        let mut list = Vec::new();
        let mut certificates = tls::Certificates::default();
        for site in &plan.sites {
            let mut routes = Vec::new();
            for route in &site.routes {
                routes.push(Route {
                    pattern: route.pattern.clone(),
                    target: route.target.clone(),
                    value: RouteTarget {
                        origin: route.origin.as_ref().and_then(|name| origins.get(name)).cloned(),
                        policy: route.policy.clone(),
                        rules: Arc::new(material.complete(&route.rules)),
                        upgrade: route.upgrade.as_slice().into(),
                    },
                });
            }
            let tier = site.tier.as_ref().map(|tier| {
                let group = |names: &Vec<String>| {
                    names.iter().filter_map(|name| parents.get(name).cloned()).collect()
                };
                Arc::new(Tier {
                    groups: tier.groups.iter().map(group).collect(),
                    bounded_load: tier.bounded_load,
                    when_down: tier.when_down,
                })
            });
            let state = Arc::new(SiteState {
                name: site.name.as_str().into(),
                routes: Routes::new(routes),
                tier,
                counters: telemetry.site(&site.name),
                server_timing: site.server_timing,
            });
            for host in &site.hosts {
                sites.insert(host, Arc::clone(&state))?;
            }
            list.push(state);
            if plan.edge.https.is_empty() {
                continue;
            }
            let certificate = match &site.tls {
                Some(files) => tls::load(&files.certificate_file, &files.key_file),
                None => tls::self_signed(site.hosts.clone()),
            };
            let certificate = certificate
                .map_err(|error| format!("the certificate of site `{}`: {error}", site.name))?;
            certificates.add(&site.hosts, &certificate);
        }
        let tls = tls::server_config(Arc::new(certificates), &[b"h2", b"http/1.1"])
            .map_err(|error| format!("TLS: {error}"))?;
        let target = plan.log.access.for_node(&plan.node);
        let kept = old.filter(|old| old.plan.log.access.for_node(&old.plan.node) == target);
        let log = match kept {
            Some(old) => {
                old.log.reopen();
                old.log.clone()
            }
            None => JsonLog::open(&target, telemetry.log_dropped.clone())
                .map_err(|error| format!("the access log: {error}"))?,
        };
        let checks = health::Checks::start(&plan, &origins, &parents);
        Ok(Self { plan, sites, list, origins, parents, tls: Arc::new(tls), log, _checks: checks })
    }
}

fn parent(name: &str, plan: &crate::config::Parent) -> Arc<Parent> {
    let upstream = Upstream::new(UpstreamSpec {
        name: name.to_owned(),
        servers: vec![(plan.url.clone(), 1)],
        balance: Balance::RoundRobin,
        max_connections: PARENT_CONNECTIONS,
        // The next parent has a copy, or can get one: no reason to wait for a second failure.
        tolerated_failures: Some(1),
        transport: Transport::default(),
    });
    Arc::new(Parent {
        name: name.into(),
        label: format!("parent:{name}").into(),
        id: crate::tier::name_hash(name),
        is_self: plan.is_self,
        upstream,
        plan: plan.clone(),
    })
}

/// Makes the origin and what stands in for it. Those that stand in for each other in a ring were refused by the check.
fn origin(
    name: &str,
    specs: &BTreeMap<String, OriginSpec>,
    old: Option<&Snapshot>,
    made: &mut BTreeMap<String, Arc<Origin>>,
) -> Result<Option<Arc<Origin>>, String> {
    if let Some(origin) = made.get(name) {
        return Ok(Some(Arc::clone(origin)));
    }
    let Some(spec) = specs.get(name) else { return Ok(None) };
    let failover = match &spec.failover {
        Some(failover) if failover != name => origin(failover, specs, old, made)?,
        _ => None,
    };
    let kept = old.and_then(|old| old.origins.get(name)).filter(|origin| origin.spec == *spec);
    let upstream = match kept {
        Some(origin) => Arc::clone(&origin.upstream),
        None => upstream(name, spec)?,
    };
    let host = match &spec.host {
        Some(host) => Some(
            HeaderValue::from_str(host)
                .map_err(|error| format!("`host` of origin `{name}` cannot be sent: {error}"))?,
        ),
        None => None,
    };
    let signer = spec.sigv4.as_ref().map(Signer::load).transpose();
    let signer = signer.map_err(|why| format!("`sigv4` of origin `{name}`: {why}"))?;
    let origin = Arc::new(Origin {
        label: format!("origin:{name}").into(),
        upstream,
        host,
        signer: signer.map(Arc::new),
        timeouts: Timeouts {
            connect: spec.timeouts.connect.get(),
            first_byte: spec.timeouts.first_byte.get(),
            between_bytes: spec.timeouts.between_bytes.get(),
        },
        failover,
        failover_on: spec
            .failover_on
            .iter()
            .filter_map(|status| StatusCode::from_u16(*status).ok())
            .collect(),
        spec: spec.clone(),
    });
    made.insert(name.to_owned(), Arc::clone(&origin));
    Ok(Some(origin))
}

fn upstream(name: &str, spec: &OriginSpec) -> Result<Arc<Upstream>, String> {
    let tls = if spec.servers.iter().any(|server| server.url.tls) {
        let alpn = Transport::alpn(spec.protocol);
        let config = match spec.verify {
            true => tls::client_config(spec.ca_file.as_deref(), alpn)
                .map_err(|error| format!("`ca_file` of origin `{name}`: {error}"))?,
            false => tls::unverified_client_config(alpn)
                .map_err(|error| format!("TLS of origin `{name}`: {error}"))?,
        };
        Some(Arc::new(config))
    } else {
        None
    };
    Ok(Upstream::new(UpstreamSpec {
        name: name.to_owned(),
        servers: spec.servers.iter().map(|server| (server.url.clone(), server.weight)).collect(),
        balance: match spec.balance {
            shared::config::Balance::RoundRobin => Balance::RoundRobin,
            shared::config::Balance::LeastConnections => Balance::LeastConnections,
            shared::config::Balance::Hash => Balance::Hash,
        },
        max_connections: spec.max_connections as usize,
        tolerated_failures: None,
        transport: Transport {
            tls,
            sni: crate::config::certificate_name(spec),
            protocol: spec.protocol,
        },
    }))
}
