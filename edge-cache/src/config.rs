//! What one node needs of the configuration: its own listeners and limits, the sites with their policies in the form
//! that the rules use, and for each site the parents that it asks.
//!
//! The file as a whole was checked by [`shared::config`]; here is only what concerns this program.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use http::uri::Authority;
use http::{HeaderName, HeaderValue, StatusCode};
use shared::config::{
    CacheSpec, EdgeSpec, KeyQuery, Loaded, Location, LogSpec, OriginSpec, OriginUrl, Parents,
    Problem, Role, RouteCache, Severity, Spec, Step, StorePolicy, TlsSpec, WhenDown,
};

use shared::prefix::Prefix;

use crate::key::{KeyRules, NamePattern, QueryMode};
use crate::route::{Hosts, PathPattern};
use crate::rules::RouteRules;
use crate::rules::rewrite::Target;
use crate::semantics::compress::Coding;
use crate::semantics::policy::{StaleRules, Ttl, VaryRules};
use crate::semantics::{Policy, Profile};
use crate::store::memory;

/// A node's configuration.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The node's name.
    pub node: String,
    /// The cluster's name: how nodes of one CDN know each other in `CDN-Loop`.
    pub cluster: String,
    /// The node's own table.
    pub edge: EdgeSpec,
    /// Bodies longer than this are not stored.
    pub max_object: u64,
    /// Logs.
    pub log: LogSpec,
    /// Origins that a site of ours uses, and their failovers.
    pub origins: BTreeMap<String, OriginSpec>,
    /// Parents that a site of ours uses.
    pub parents: BTreeMap<String, Parent>,
    /// Sites in the order of their names.
    pub sites: Vec<Site>,
    /// Networks whose `PURGE` requests are obeyed.
    pub purge_from: Vec<Prefix>,
    /// Keys of signed requests that a route of ours asks for: name of the signing, name of the key, file of its secret.
    pub signing: BTreeMap<String, BTreeMap<String, PathBuf>>,
    /// Databases of countries, where a route of ours needs them.
    pub databases: Vec<PathBuf>,
    /// Who is believed what he says of a client.
    pub peers: Peers,
}

/// The nodes of this CDN that may ask a node: none for one that is in the first tier only, where nobody but clients asks.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    addresses: BTreeSet<IpAddr>,
    /// One of them is on this machine's loopback addresses: they speak to each other from whichever the kernel picks.
    on_loopback: bool,
}

/// A site.
#[derive(Clone, Debug)]
pub struct Site {
    /// Its name.
    pub name: String,
    /// Its hosts.
    pub hosts: Vec<String>,
    /// The second tier, on a node that is in the first.
    pub tier: Option<Tier>,
    /// Its routes in order.
    pub routes: Vec<Route>,
    /// Its certificate; none: a self-signed one.
    pub tls: Option<TlsSpec>,
    /// Whether responses carry Server-Timing.
    pub server_timing: bool,
}

/// One route.
#[derive(Clone, Debug)]
pub struct Route {
    /// Which paths.
    pub pattern: PathPattern,
    /// The origin asked; none where there is a redirect only.
    pub origin: Option<String>,
    /// `None`: passed on, never stored.
    pub policy: Option<Arc<Policy>>,
    /// The path for the origin.
    pub target: Target,
    /// What comes before and after the cache; databases and keys are not in it yet.
    pub rules: RouteRules,
    /// Protocols that a connection may be switched to.
    pub upgrade: Vec<HeaderValue>,
}

/// The parents of a site.
#[derive(Clone, Debug, PartialEq)]
pub struct Tier {
    /// Groups of names: the next group is asked when none of a group is up.
    pub groups: Vec<Vec<String>>,
    /// How far above the mean a parent's load may be.
    pub bounded_load: f64,
    /// Where a request goes whose parent is down.
    pub when_down: WhenDown,
}

/// A parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Where it is asked: its first http listener.
    pub url: OriginUrl,
    /// It is this node.
    pub is_self: bool,
}

impl Plan {
    /// Keys of the node's table that a running node cannot take from a new plan, where `self` is the one it was started
    /// with.
    pub fn fixed_at_start(&self, new: &Self) -> Vec<&'static str> {
        let (old, edge) = (&self.edge, &new.edge);
        let differs = [
            (old.memory != edge.memory, "memory"),
            (old.policy != edge.policy, "policy"),
            (old.disk != edge.disk, "disk"),
            (old.disks != edge.disks, "disks"),
            (old.state != edge.state, "state"),
            (self.max_object != new.max_object, "max_object"),
            (old.segment != edge.segment, "segment"),
            (old.workers != edge.workers, "workers"),
            (old.admin != edge.admin, "admin"),
        ];
        differs.into_iter().filter_map(|(differs, key)| differs.then_some(key)).collect()
    }

    /// The plan of `node`, or of the only edge that there is.
    ///
    /// # Errors
    /// All that is wrong with it for this program.
    pub fn new(loaded: &Loaded, node: Option<&str>) -> Result<Self, Vec<Problem>> {
        let spec = &loaded.spec;
        let fail =
            |path: &[Step], message: String| vec![loaded.problem(path, Severity::Error, message)];
        let names =
            || spec.edge.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let (node, edge) = match node {
            Some(name) => match spec.edge.get_key_value(name) {
                Some(found) => found,
                None if spec.edge.is_empty() => {
                    return Err(fail(
                        &[],
                        format!("there is no edge `{name}`, nor any other: write `[edge.{name}]`"),
                    ));
                }
                None => {
                    return Err(fail(
                        &[],
                        format!("there is no edge `{name}`; there are {}", names()),
                    ));
                }
            },
            None => {
                let mut edges = spec.edge.iter();
                match (edges.next(), edges.next()) {
                    (Some(only), None) => only,
                    (None, _) => {
                        return Err(fail(&[], "there is no edge: write `[edge.NAME]`".to_owned()));
                    }
                    (Some(_), Some(_)) => {
                        return Err(fail(
                            &[],
                            format!("which node is this? Name one with --node: {}", names()),
                        ));
                    }
                }
            }
        };
        Self::for_edge(loaded, node, edge)
    }

    fn for_edge(loaded: &Loaded, node: &str, edge: &EdgeSpec) -> Result<Self, Vec<Problem>> {
        let spec = &loaded.spec;
        let mut problems = Vec::new();
        let mut problem = |path: &[Step], message: String| {
            problems.push(loaded.problem(path, Severity::Error, message));
        };
        let mut policies = BTreeMap::new();
        for (name, cache) in &spec.cache {
            match policy(cache) {
                Ok(policy) => {
                    policies.insert(name.as_str(), Arc::new(policy));
                }
                Err(message) => problem(&["cache".into(), name.as_str().into()], message),
            }
        }
        let default_policy = match policy(&CacheSpec::default()) {
            Ok(policy) => Arc::new(policy),
            Err(message) => {
                problem(&[], message);
                Arc::new(Policy::default())
            }
        };
        let mut hosts = Hosts::default();
        let mut sites = Vec::new();
        let mut parents = BTreeMap::new();
        let mut origins = BTreeMap::new();
        let mut signing = BTreeMap::new();
        let mut databases = Vec::new();
        for (name, site) in &spec.site {
            let at = |step: &str| [Step::from("site"), Step::from(name.as_str()), Step::from(step)];
            for host in &site.hosts {
                if let Err(message) = hosts.insert(host, ()) {
                    problem(&at("hosts"), message);
                }
            }
            let mut routes = Vec::new();
            for (index, route) in site.routes.iter().enumerate() {
                let pattern = match PathPattern::new(&route.path) {
                    Ok(pattern) => pattern,
                    Err(message) => {
                        problem(&at("routes"), message);
                        continue;
                    }
                };
                if let Some(origin) = &route.origin {
                    add_origin(spec, origin, &mut origins);
                }
                let policy = match &route.cache {
                    RouteCache::Off => None,
                    RouteCache::Policy(name) => {
                        Some(Arc::clone(policies.get(name.as_str()).unwrap_or(&default_policy)))
                    }
                };
                let rules = RouteRules::new(route, policy.as_deref().map(|policy| policy.profile))
                    .unwrap_or_else(|(key, message)| {
                        let [site, name, routes] = at("routes");
                        problem(&[site, name, routes, index.into(), key.into()], message);
                        RouteRules::default()
                    });
                if rules.needs_countries() {
                    databases.clone_from(&spec.geo.databases);
                }
                if let Some((name, keys)) =
                    route.signed.as_ref().and_then(|name| spec.signing.get_key_value(name))
                {
                    signing.insert(name.clone(), keys.keys.clone());
                }
                let target = RouteRules::target(route);
                routes.push(Route {
                    pattern,
                    origin: route.origin.clone(),
                    policy,
                    target,
                    rules,
                    upgrade: route
                        .upgrade
                        .iter()
                        .filter_map(|protocol| HeaderValue::from_str(protocol).ok())
                        .collect(),
                });
            }
            let tier = site.tier.as_ref().filter(|_| edge.role != Role::Parent);
            let tier = tier.and_then(|name| spec.tier.get_key_value(name)).map(|(name, tier)| {
                let groups = match &tier.parents {
                    Parents::Named(names) => vec![names.clone()],
                    Parents::NearestDatacenter => nearest(spec, edge),
                };
                for parent in groups.iter().flatten() {
                    match spec.edge.get(parent).and_then(|edge| edge.http.first()) {
                        Some(address) => {
                            let parent_plan =
                                Parent { url: url(*address), is_self: parent == node };
                            parents.insert(parent.clone(), parent_plan);
                        }
                        None => problem(
                            &["tier".into(), name.as_str().into(), "parents".into()],
                            format!(
                                "`{parent}` has no `http` listener, which is where its edges ask it"
                            ),
                        ),
                    }
                }
                Tier { groups, bounded_load: tier.bounded_load, when_down: tier.when_down }
            });
            sites.push(Site {
                name: name.clone(),
                hosts: site.hosts.clone(),
                tier,
                routes,
                tls: site.tls.clone(),
                server_timing: site.server_timing,
            });
        }
        if edge.http.is_empty() && edge.https.is_empty() {
            problem(
                &["edge".into(), node.into()],
                "a node serves on `http` or `https`: write one of them".to_owned(),
            );
        }
        let memory = edge.memory.0;
        let max_object = edge.max_object.map_or(memory / 8, |size| size.0).min(memory);
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self {
            node: node.to_owned(),
            cluster: spec.cluster.name.clone(),
            edge: edge.clone(),
            max_object,
            log: spec.log.clone(),
            origins,
            parents,
            sites,
            // Those that are none were errors of the check.
            purge_from: edge.purge_from.iter().filter_map(|text| text.parse().ok()).collect(),
            signing,
            databases,
            peers: if edge.role == Role::Edge { Peers::default() } else { peers(spec, node) },
        })
    }

    /// The memory tier.
    pub fn memory(&self, seed: u64) -> memory::Settings {
        let (policy, memory) = (store_policy(&self.edge), self.edge.memory.0);
        memory::Settings {
            // moka keeps the capacity that it begins with, where others give way to connections and requests.
            capacity: if policy == StorePolicy::Moka { memory / 4 * 3 } else { memory },
            max_object: self.max_object,
            largest: self.edge.segment.0,
            policy,
            over_disk: has_disk(&self.edge),
            seed,
        }
    }

    /// Whether a request that comes from `peer` may say for whom it asks: another node of this CDN may. A program on this
    /// machine may only where the other nodes are on loopback addresses, too, as on a developer's machine: a proxy before
    /// this node passes on what its clients say.
    pub fn is_peer(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.peers.addresses.contains(&peer) || peer.is_loopback() && self.peers.on_loopback
    }
}

/// Who makes room in an edge's memory. What is not said, the role says: a node that asks origins for others works for bytes,
/// one that clients ask, for requests. Over a disk the policy that knows what lies below spares the origin the most of both
/// (`scripts/bench.sh tiers`).
pub fn store_policy(edge: &EdgeSpec) -> StorePolicy {
    edge.policy.unwrap_or_else(|| match edge.role {
        Role::Parent if !has_disk(edge) => StorePolicy::S3Fifo,
        Role::Parent | Role::Edge | Role::Both => StorePolicy::SizeAware,
    })
}

fn has_disk(edge: &EdgeSpec) -> bool {
    edge.disk.is_some() || !edge.disks.is_empty()
}

fn peers(spec: &Spec, node: &str) -> Peers {
    let mut peers = Peers::default();
    for (_, edge) in spec.edge.iter().filter(|(name, _)| *name != node) {
        let listeners = edge.http.iter().chain(&edge.https).map(SocketAddr::ip);
        let served = listeners.chain(edge.address.iter().copied()).map(|ip| ip.to_canonical());
        let served: Vec<_> = served.filter(|ip| !ip.is_unspecified()).collect();
        peers.on_loopback |= served.iter().any(IpAddr::is_loopback);
        peers.addresses.extend(served);
        // Every node's admin listener is on loopback, unless it is said otherwise.
        let admin = edge.admin.ip().to_canonical();
        peers.addresses.extend((!admin.is_loopback() && !admin.is_unspecified()).then_some(admin));
    }
    peers
}

/// The origin, and those that stand in for it.
fn add_origin(spec: &Spec, name: &str, origins: &mut BTreeMap<String, OriginSpec>) {
    let mut next = Some(name);
    while let Some(name) = next {
        let Some(origin) = spec.origin.get(name) else { return };
        if origins.insert(name.to_owned(), origin.clone()).is_some() {
            return;
        }
        next = origin.failover.as_deref();
    }
}

/// The name that the certificates of an origin's servers must be for; `None`: each server's own.
pub fn certificate_name(origin: &OriginSpec) -> Option<String> {
    let host = || {
        let authority = origin.host.as_deref()?.parse::<Authority>().ok()?;
        Some(authority.host().trim_matches(['[', ']']).to_owned())
    };
    origin.sni.clone().or_else(host)
}

fn url(address: SocketAddr) -> OriginUrl {
    OriginUrl { tls: false, host: address.ip().to_string(), port: address.port() }
}

/// All parents, by datacenter, nearest first.
fn nearest(spec: &Spec, edge: &EdgeSpec) -> Vec<Vec<String>> {
    let Some(here) = spec.datacenter.get(&edge.datacenter).map(|datacenter| datacenter.location)
    else {
        return Vec::new();
    };
    let mut groups: Vec<(f64, &str, Vec<String>)> = Vec::new();
    for (name, datacenter) in &spec.datacenter {
        let parents: Vec<String> = spec
            .edge
            .iter()
            .filter(|(_, edge)| edge.datacenter == *name && edge.role != Role::Edge)
            .map(|(name, _)| name.clone())
            .collect();
        if !parents.is_empty() {
            groups.push((angle(here, datacenter.location), name, parents));
        }
    }
    groups.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(other.1)));
    groups.into_iter().map(|(_, _, parents)| parents).collect()
}

/// A measure of the distance on the globe: it grows with it, which is all that an order needs.
fn angle(one: Location, other: Location) -> f64 {
    let (a, b) = (one.latitude.to_radians(), other.latitude.to_radians());
    let lon = (one.longitude - other.longitude).to_radians();
    ((a - b) / 2.0).sin().powi(2) + a.cos() * b.cos() * (lon / 2.0).sin().powi(2)
}

fn codings(names: &[String]) -> Result<Vec<Coding>, String> {
    let wrong = |name| format!("`{name}` in `compress` is none of zstd, br, gzip");
    names.iter().map(|name| Coding::of(name).ok_or_else(|| wrong(name))).collect()
}

/// A policy in the form that the rules use.
fn policy(cache: &CacheSpec) -> Result<Policy, String> {
    let mut negative_ttl = Vec::new();
    for (status, ttl) in &cache.negative_ttl {
        let code = status.parse::<u16>().ok().and_then(|code| StatusCode::from_u16(code).ok());
        let code = code.ok_or_else(|| {
            format!("`{status}` in `negative_ttl` is not a status: write \"404\"")
        })?;
        negative_ttl.push((code, ttl.get()));
    }
    let names = |key: &str, names: &[String]| -> Result<Vec<HeaderName>, String> {
        let wrong = |name| format!("`{name}` in `{key}` is not a field name");
        names.iter().map(|name| name.parse().map_err(|_| wrong(name))).collect()
    };
    let patterns =
        |names: &[String]| names.iter().map(|name| NamePattern::new(name)).collect::<Vec<_>>();
    let after_wait = cache.stale.after_wait.get();
    Ok(Policy {
        ttl: Ttl {
            default: cache.ttl.default.get(),
            min: cache.ttl.min.get(),
            max: cache.ttl.max.get(),
            jitter: cache.ttl.jitter,
        },
        negative_ttl,
        stale: StaleRules {
            while_revalidate: cache.stale.while_revalidate.get(),
            if_error: cache.stale.if_error.get(),
            after_wait: (!after_wait.is_zero()).then_some(after_wait),
            beside_s_maxage: cache.stale.beside_s_maxage,
        },
        key: KeyRules {
            query: match cache.key.query {
                KeyQuery::All => QueryMode::All,
                KeyQuery::None if cache.key.keep.is_empty() => QueryMode::None,
                KeyQuery::None => QueryMode::Allow,
            },
            allow: patterns(&cache.key.keep),
            drop: patterns(&cache.key.drop),
            sort: cache.key.sort,
            headers: names("key.headers", &cache.key.headers)?,
            cookies: cache.key.cookies.clone(),
        },
        profile: match cache.profile {
            shared::config::Profile::Safe => Profile::Safe,
            shared::config::Profile::Rfc => Profile::Rfc,
        },
        targeted: names("targeted", &cache.targeted)?,
        surrogate_control: cache.surrogate_control,
        heuristic: cache.heuristic,
        vary: VaryRules {
            max: usize::try_from(cache.vary.max).unwrap_or(usize::MAX),
            languages: cache.vary.languages.clone(),
        },
        no_vary_search: cache.no_vary_search,
        ranges: match cache.ranges {
            shared::config::Ranges::Segments => crate::semantics::Ranges::Segments,
            shared::config::Ranges::Whole => crate::semantics::Ranges::Whole,
        },
        tags: names("tags", &cache.tags)?,
        compress: codings(&cache.compress)?,
    })
}

#[cfg(test)]
mod tests;
