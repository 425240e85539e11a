//! The part of the configuration that this program needs, in the form it needs it.
//!
//! A [`Spec`] has been checked: names exist, values are in their bounds. What is left to find out needs zone files and
//! databases and is `io::load`'s.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use shared::config::{
    AllDown as AllDownSpec, CheckKind, CheckSpec, EdgeSpec, Loaded, Problem, Role, RuleSpec,
    Severity, Spec, StatusPattern, SteeringSpec, Step,
};
use shared::geo::{Continent, Coordinates, CountryCode, Subdivision};
use shared::health::Thresholds;
use shared::prefix::Prefix;

use crate::name::Name;
use crate::world::{
    AllDown, CheckId, Datacenter, DatacenterId, Ecs, Edge, EdgeId, Policy, PolicyId, Rule, Shed,
    World,
};
use crate::zone::Steered;

/// A health check and whom it asks.
#[derive(Clone, Debug)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// What is asked.
    pub kind: CheckKind,
    /// `Host`; none: the address.
    pub host: Option<String>,
    /// The path.
    pub path: String,
    /// What is good.
    pub status: Vec<StatusPattern>,
    /// Between two tries.
    pub interval: Duration,
    /// For one try.
    pub timeout: Duration,
    /// When the state changes.
    pub thresholds: Thresholds,
    /// How long a target that flaps is held down at most.
    pub hold_down: Duration,
    /// Days for which a certificate must still be good.
    pub min_days: u16,
    /// Who may sign certificates; none: the public authorities.
    pub ca_file: Option<PathBuf>,
    /// Who is asked, and where.
    pub targets: Vec<Asked>,
}

/// An edge that a check asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Which one.
    pub edge: EdgeId,
    /// Where.
    pub address: SocketAddr,
    /// The token of its admin API, for a report.
    pub token_file: Option<PathBuf>,
}

impl Check {
    /// The time in which an outage is noticed.
    pub fn detection(&self) -> Duration {
        self.interval * u32::from(self.thresholds.down_after)
    }
}

/// A zone, before its file is read.
#[derive(Clone, Debug)]
pub struct ZoneSource {
    /// As the configuration writes it.
    pub key: String,
    /// The zone's name.
    pub apex: Name,
    /// Its master file.
    pub file: PathBuf,
    /// The names that policies answer.
    pub steered: Vec<Steered>,
}

/// Makes the world out of a configuration.
pub fn world(loaded: &Loaded) -> Result<World, Vec<Problem>> {
    let spec = &loaded.spec;
    let mut problems = Vec::new();
    let mut datacenters = Vec::new();
    for (name, datacenter) in &spec.datacenter {
        let location =
            Coordinates::new(datacenter.location.latitude, datacenter.location.longitude);
        match location {
            Ok(location) => datacenters.push(Datacenter {
                name: name.clone(),
                location,
                bias: datacenter.bias,
                weight: datacenter.weight,
                capacity: datacenter.capacity.map(|rate| rate.0),
            }),
            Err(why) => {
                let path = [Step::from("datacenter"), name.into(), "location".into()];
                problems.push(loaded.problem(&path, Severity::Error, why.to_string()));
            }
        }
    }
    let mut world = World { datacenters, ..World::default() };
    for (name, edge) in spec.edge.iter().filter(|(_, edge)| is_answered(edge)) {
        let Some(datacenter) = world.datacenter_id(&edge.datacenter) else { continue };
        world.edges.push(Edge {
            name: name.clone(),
            datacenter,
            addresses: edge.address.clone(),
            weight: edge.weight,
        });
    }
    world.checks = spec.check.keys().cloned().collect();
    for (name, steering) in &spec.steering {
        match policy(spec, &world, name, steering) {
            Ok(policy) => world.policies.push(policy),
            Err(why) => {
                let path = [Step::from("steering"), name.into()];
                problems.push(loaded.problem(&path, Severity::Error, why));
            }
        }
    }
    // Ids are 16 bits wide.
    for (what, count) in [
        ("datacenters", world.datacenters.len()),
        ("edges", world.edges.len()),
        ("steering policies", world.policies.len()),
    ] {
        if count >= usize::from(u16::MAX) {
            let why = format!("there are {count} {what}: 65534 are the most");
            problems.push(loaded.problem(&[], Severity::Error, why));
        }
    }
    if problems.is_empty() { Ok(world) } else { Err(problems) }
}

fn is_answered(edge: &EdgeSpec) -> bool {
    edge.role != Role::Parent && !edge.address.is_empty()
}

fn policy(spec: &Spec, world: &World, name: &str, from: &SteeringSpec) -> Result<Policy, String> {
    let ids =
        |names: &[String]| names.iter().filter_map(|name| world.datacenter_id(name)).collect();
    let all: Vec<String> = spec.datacenter.keys().cloned().collect();
    let listed = if from.datacenters.is_empty() { &all } else { &from.datacenters };
    let check = from.check.as_ref().and_then(|check| position(spec.check.keys(), check));
    let seconds = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
    Ok(Policy {
        name: name.to_owned(),
        datacenters: ids(listed),
        order: from.order,
        rules: from.rules.iter().map(|r| rule(r, ids(&r.to))).collect::<Result<_, _>>()?,
        answers: usize::from(from.answers),
        pick: from.pick,
        check,
        min_up: from.min_up,
        ttl_min: seconds(from.ttl.min.get()),
        ttl_max: seconds(from.ttl.max.get()),
        all_down: match &from.all_down {
            AllDownSpec::LastGood => AllDown::LastGood,
            AllDownSpec::All => AllDown::All,
            AllDownSpec::Nodata => AllDown::NoData,
            AllDownSpec::Servfail => AllDown::ServFail,
            AllDownSpec::Fallback(datacenter) => {
                let id = world.datacenter_id(datacenter);
                AllDown::Fallback(
                    id.ok_or_else(|| format!("there is no datacenter `{datacenter}`"))?,
                )
            }
        },
        ecs: Ecs {
            enabled: from.ecs.enabled,
            max_v4: from.ecs.max_v4.min(32),
            max_v6: from.ecs.max_v6.min(128),
        },
        max_share: from
            .max_share
            .iter()
            .filter_map(|(name, share)| Some((world.datacenter_id(name)?, *share)))
            .collect(),
        bounded_load: from.bounded_load,
        ramp: from.ramp.get(),
        shed: (from.shed.above > 0.0)
            .then_some(Shed { above: from.shed.above, resume: from.shed.resume }),
    })
}

fn rule(from: &RuleSpec, to: Vec<DatacenterId>) -> Result<Rule, String> {
    fn parsed<T: std::str::FromStr>(texts: &[String]) -> Result<Vec<T>, String>
    where
        T::Err: std::fmt::Display,
    {
        texts.iter().map(|text| text.parse().map_err(|why: T::Err| why.to_string())).collect()
    }
    Ok(Rule {
        countries: parsed::<CountryCode>(&from.country)?,
        continents: parsed::<Continent>(&from.continent)?,
        subdivisions: parsed::<Subdivision>(&from.subdivision)?,
        cities: from.city.clone(),
        asns: from.asn.clone(),
        networks: parsed::<Prefix>(&from.network)?,
        by: from.by,
        to,
    })
}

fn position<'a>(mut names: impl Iterator<Item = &'a String>, name: &str) -> Option<u16> {
    names.position(|other| other == name).and_then(|at| u16::try_from(at).ok())
}

/// The checks in the order of [`World::checks`], each with the edges that a policy wants it for.
pub fn checks(spec: &Spec, world: &World) -> Vec<Check> {
    (0..)
        .zip(&spec.check)
        .map(|(id, (name, check))| one_check(spec, world, id, name, check))
        .collect()
}

/// Edges that a check is wanted for and cannot ask: they would count as up for ever. Those that it asks where it may find
/// nobody: they would be down for ever.
pub fn unasked(loaded: &Loaded, world: &World, checks: &[Check]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for policy in &world.policies {
        let Some(check) = policy.check.and_then(|id| checks.get(usize::from(id))) else { continue };
        let edges = policy.datacenters.iter().flat_map(|id| world.edges_of(*id));
        for (_, edge) in edges.filter(|(id, _)| !check.targets.iter().any(|t| t.edge == *id)) {
            let path = [Step::from("edge"), Step::from(&edge.name)];
            let why = format!(
                "check `{}` finds no listener of its kind here: this edge counts as up for policy `{}`",
                check.name, policy.name
            );
            problems.push(loaded.problem(&path, Severity::Warning, why));
        }
    }
    for asked in checks.iter().flat_map(|check| &check.targets) {
        let Some(edge) = world.edges.get(usize::from(asked.edge)) else { continue };
        let elsewhere = edge.addresses.iter().any(|address| !address.is_loopback());
        if asked.address.ip().is_loopback() && elsewhere {
            let path = [Step::from("edge"), Step::from(&edge.name)];
            let why = format!(
                "this edge is asked at {}: on another machine no nameserver reaches that",
                asked.address
            );
            problems.push(loaded.problem(&path, Severity::Warning, why));
        }
    }
    problems
}

fn one_check(spec: &Spec, world: &World, id: CheckId, name: &str, check: &CheckSpec) -> Check {
    let wanted = |edge: &Edge| {
        let using = world.policies.iter().filter(|policy| policy.check == Some(id));
        using.flat_map(|policy| &policy.datacenters).any(|dc| *dc == edge.datacenter)
            || world.policies.iter().any(|policy| {
                policy.check == Some(id) && policy.all_down == AllDown::Fallback(edge.datacenter)
            })
    };
    let edges = (0..).zip(&world.edges).filter(|(_, edge)| wanted(edge));
    let targets = edges.filter_map(|(id, edge)| asked(id, spec.edge.get(&edge.name)?, check));
    Check {
        name: name.to_owned(),
        kind: check.kind,
        host: check.host.clone(),
        path: match check.kind {
            CheckKind::Report => "/v1/report".to_owned(),
            _ => check.path.clone(),
        },
        status: check.status.clone(),
        interval: check.interval.get(),
        timeout: check.timeout.get(),
        thresholds: Thresholds { down_after: check.down_after, up_after: check.up_after },
        hold_down: check.hold_down.get(),
        min_days: check.min_days,
        ca_file: check.ca_file.clone(),
        targets: targets.collect(),
    }
}

/// Where an edge is asked: at its `probe` address, else the one that clients get, on the port of its first listener of
/// this kind. Reports are on its admin listener.
fn asked(id: EdgeId, edge: &EdgeSpec, check: &CheckSpec) -> Option<Asked> {
    let public: Option<IpAddr> = edge.probe.or_else(|| edge.address.first().copied());
    let at =
        |ip: Option<IpAddr>, port: Option<u16>| Some(SocketAddr::new(ip?, check.port.or(port)?));
    let port = |listeners: &[SocketAddr]| listeners.first().map(SocketAddr::port);
    let (address, token_file) = match check.kind {
        CheckKind::Http => (at(public, port(&edge.http)), None),
        CheckKind::Https => (at(public, port(&edge.https)), None),
        CheckKind::Tcp => (at(public, port(&edge.http).or_else(|| port(&edge.https))), None),
        CheckKind::Report => {
            // A listener on all addresses is found at the public one.
            let listener = Some(edge.admin.ip()).filter(|ip| !ip.is_unspecified());
            let port = Some(edge.admin.port());
            (at(listener.or(public), port), edge.admin_token_file.clone())
        }
    };
    Some(Asked { edge: id, address: address?, token_file })
}

/// The zones, by their names.
pub fn zones(loaded: &Loaded, world: &World) -> Result<Vec<ZoneSource>, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut sources = Vec::new();
    for (key, zone) in &loaded.spec.zone {
        let path = [Step::from("zone"), key.into()];
        let apex = match Name::parse_absolute(key) {
            Ok(apex) => apex.to_lower(),
            Err(why) => {
                problems.push(loaded.problem(&path, Severity::Error, why));
                continue;
            }
        };
        let mut steered = Vec::new();
        for (owner, policy) in &zone.steer {
            let policy: Option<PolicyId> =
                position(world.policies.iter().map(|policy| &policy.name), policy);
            match (Name::parse(owner.as_bytes(), Some(&apex)), policy) {
                (Ok(owner), Some(policy)) => steered.push(Steered { owner, policy }),
                (Err(why), _) => {
                    let path = [path[0].clone(), path[1].clone(), "steer".into(), owner.into()];
                    problems.push(loaded.problem(&path, Severity::Error, why));
                }
                (Ok(_), None) => {}
            }
        }
        sources.push(ZoneSource { key: key.clone(), apex, file: zone.file.clone(), steered });
    }
    if problems.is_empty() { Ok(sources) } else { Err(problems) }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use shared::config::Files;

    use super::*;

    struct Memory(&'static str);

    impl Files for Memory {
        fn read(&self, _: &Path) -> std::io::Result<Vec<u8>> {
            Ok(self.0.as_bytes().to_vec())
        }
        fn glob(&self, _: &str) -> Result<Vec<PathBuf>, String> {
            Ok(Vec::new())
        }
        fn env(&self, _: &str) -> Option<String> {
            None
        }
    }

    const CONFIG: &str = r#"
[datacenter.fra]
location = [50.03, 8.57]
[datacenter.icn]
location = [37.46, 126.44]
weight = 3
[datacenter.sorry]
location = [0.0, 0.0]
[edge.a]
datacenter = "icn"
address = ["192.0.2.1"]
https = ["127.0.1.1:8443"]
admin = "127.0.1.1:9090"
[edge.b]
datacenter = "icn"
role = "both"
address = ["2001:db8::2", "192.0.2.2"]
http = ["0.0.0.0:8080"]
admin = "127.0.1.2:9090"
[edge.parent]
datacenter = "icn"
role = "parent"
http = ["127.0.1.3:8080"]
admin = "127.0.1.3:9090"
[edge.s]
datacenter = "sorry"
address = ["192.0.2.9"]
http = ["127.0.1.9:80"]
admin = "127.0.1.9:9090"
[zone."CDN.test"]
file = "x"
steer = { "@" = "web", "*.img" = "web" }
[steering.web]
datacenters = ["icn", "fra"]
rules = [ { country = ["KR"], network = ["10.0.0.0/8"], to = ["fra"] } ]
all_down = "fallback:sorry"
check = "up"
ttl = { max = "90s", min = "3s" }
[check.up]
kind = "http"
[check.report]
kind = "report"
"#;

    fn loaded() -> Loaded {
        shared::config::load(Path::new("m.toml"), &Memory(CONFIG)).unwrap_or_else(|problems| {
            panic!("{}", problems.iter().map(Problem::to_string).collect::<String>())
        })
    }

    #[test]
    fn names_become_ids() {
        let world = world(&loaded()).unwrap();
        let edges: Vec<_> = world.edges.iter().map(|e| (e.name.as_str(), e.datacenter)).collect();
        assert_eq!(edges, [("a", 1), ("b", 1), ("s", 2)], "a parent is in no answer");
        let policy = &world.policies[0];
        assert_eq!(policy.datacenters, [1, 0], "as listed");
        assert_eq!(policy.rules[0].to, [0]);
        assert_eq!((policy.ttl_min, policy.ttl_max), (3, 90));
        assert_eq!(policy.all_down, AllDown::Fallback(2));
        assert_eq!(world.checks[usize::from(policy.check.unwrap())], "up");
    }

    #[test]
    fn checks_ask_the_address_that_clients_get() {
        let loaded = loaded();
        let world = world(&loaded).unwrap();
        let checks = checks(&loaded.spec, &world);
        assert!(checks[0].targets.is_empty(), "no policy wants it");
        let targets: Vec<_> =
            checks[1].targets.iter().map(|t| (t.edge, t.address.to_string())).collect();
        let expected = [(1, "[2001:db8::2]:8080"), (2, "192.0.2.9:80")];
        assert_eq!(targets, expected.map(|(id, at)| (id, at.to_owned())));
        let unasked = unasked(&loaded, &world, &checks);
        assert_eq!(unasked.len(), 1);
        assert!(unasked[0].message.contains("counts as up") && !unasked[0].is_error());
    }

    #[test]
    fn zones_are_named_without_case() {
        let loaded = loaded();
        let zones = zones(&loaded, &world(&loaded).unwrap()).unwrap();
        assert_eq!(zones[0].apex.to_string(), "cdn.test.");
        let owners: Vec<_> = zones[0].steered.iter().map(|s| s.owner.to_string()).collect();
        assert_eq!(owners, ["*.img.cdn.test.", "cdn.test."]);
    }
}
