//! HTTPS records (RFC 9460) of steered names: whether there are any, and what they say of the edges.
//!
//! An HTTPS record moves a client from `http` to `https`, and to the port it names. So whether a policy's names have
//! them is settled by the configuration alone: every edge that the policy could answer with listens for `https`, all on
//! one port, and no site behind these names makes do with a self-signed certificate. Neither client nor health has a part in it, and nobody is moved to where nobody listens. What the record
//! says follows the decision of the A and AAAA answers: [`crate::answer`] writes it.
//!
//! There are no SVCB records: HTTP clients do not ask for that type. And none under `_8443._https`: such a name is asked
//! for only by who was given a URL with that port, and would learn nothing there that TLS does not tell.

use shared::config::{Loaded, Problem, Severity, Spec, Step};
use shared::report::Report;

use crate::world::{AllDown, Edge, EdgeId, Policy, PolicyId, World};

/// The port of `https` that needs no mention.
const HTTPS_PORT: u16 = 443;

/// Policies whose names have HTTPS records.
#[derive(Clone, Debug, Default)]
pub struct Services {
    policies: Box<[Result<Service, Lack>]>,
}

/// Why a policy's names have no HTTPS records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// The policy has no edges.
    Edges,
    /// This edge does not listen for `https`.
    Listener(EdgeId),
    /// This edge listens for it on another port than the others.
    Port(EdgeId),
    /// The site of one of the policy's names has no certificate but a self-signed one, which browsers refuse.
    Certificate,
}

/// What the HTTPS records of a policy's names have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// The port, when it is not the one of the scheme.
    pub port: Option<u16>,
}

impl Services {
    /// What the configuration says.
    pub fn new(spec: &Spec, world: &World) -> Self {
        let service = |policy| {
            let mut common = None;
            for (id, edge) in edges(world, policy) {
                let port = port(spec, edge).ok_or(Lack::Listener(id))?;
                if *common.get_or_insert(port) != port {
                    return Err(Lack::Port(id));
                }
            }
            let port = common.ok_or(Lack::Edges)?;
            if has_self_signed_site(spec, policy) {
                return Err(Lack::Certificate);
            }
            Ok(Service { port: Some(port).filter(|port| *port != HTTPS_PORT) })
        };
        Self { policies: world.policies.iter().map(service).collect() }
    }

    /// The service of a policy; none: its names have no HTTPS records.
    pub fn of(&self, policy: PolicyId) -> Option<Service> {
        self.policies.get(usize::from(policy)).copied()?.ok()
    }

    /// Why a policy's names have none, when that is so.
    pub fn lack(&self, policy: PolicyId) -> Option<Lack> {
        self.policies.get(usize::from(policy)).copied()?.err()
    }

    /// Every policy has this service.
    #[cfg(test)]
    pub(crate) fn uniform(world: &World, service: Option<Service>) -> Self {
        let service = service.ok_or(Lack::Edges);
        Self { policies: world.policies.iter().map(|_| service).collect() }
    }
}

/// Policies all of whose edges listen for `https`, but not on one port: they have no HTTPS records.
pub fn uneven(loaded: &Loaded, world: &World) -> Vec<Problem> {
    let services = Services::new(&loaded.spec, world);
    let mut problems = Vec::new();
    for (id, policy) in (0..).zip(&world.policies) {
        let Some(Lack::Port(edge)) = services.lack(id) else { continue };
        // Without a listener on some edge there would be none on one port either.
        if edges(world, policy).any(|(_, edge)| port(&loaded.spec, edge).is_none()) {
            continue;
        }
        let edge = world.edges.get(usize::from(edge)).map_or("", |edge| edge.name.as_str());
        let why = format!(
            "edge `{edge}` listens for https on another port than those before it: names of this policy have no HTTPS \
             records, since one port must do for all"
        );
        let path = [Step::from("steering"), Step::from(&policy.name)];
        problems.push(loaded.problem(&path, Severity::Warning, why));
    }
    problems
}

/// All edges that a policy could ever answer with.
fn edges<'w>(world: &'w World, policy: &Policy) -> impl Iterator<Item = (EdgeId, &'w Edge)> {
    let fallback = match policy.all_down {
        AllDown::Fallback(datacenter) => Some(datacenter),
        _ => None,
    };
    (0..).zip(&world.edges).filter(move |(_, edge)| {
        policy.datacenters.contains(&edge.datacenter) || fallback == Some(edge.datacenter)
    })
}

/// Whether a site without `tls` serves one of the policy's names.
fn has_self_signed_site(spec: &Spec, policy: &Policy) -> bool {
    let mut names = spec.zone.iter().flat_map(|(zone, content)| {
        let zone = zone.trim_end_matches('.');
        let owners = content.steer.iter().filter(|(_, name)| **name == policy.name);
        owners.map(move |(owner, _)| match owner.as_str() {
            "@" => zone.to_ascii_lowercase(),
            owner => format!("{owner}.{zone}").to_ascii_lowercase(),
        })
    });
    let covers = |wide: &str, name: &str| {
        wide.strip_prefix('*')
            .is_some_and(|suffix| suffix.starts_with('.') && name.ends_with(suffix))
    };
    names.any(|name| {
        let hosts =
            spec.site.values().filter(|site| site.tls.is_none()).flat_map(|site| &site.hosts);
        hosts
            .map(|host| host.to_ascii_lowercase())
            .any(|host| host == name || covers(&host, &name) || covers(&name, &host))
    })
}

/// The port that an edge listens for `https` on, the scheme's own if it is among several.
fn port(spec: &Spec, edge: &Edge) -> Option<u16> {
    let listeners = &spec.edge.get(&edge.name)?.https;
    let is_usual = listeners.iter().any(|listener| listener.port() == HTTPS_PORT);
    if is_usual { Some(HTTPS_PORT) } else { listeners.first().map(std::net::SocketAddr::port) }
}

/// What can be spoken on an edge's `https` listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocols(u8);

/// ALPN names in the order in which records list them, best first.
const ALPN: [&str; 3] = ["h3", "h2", "http/1.1"];

/// Octets of a list of all of them.
pub const MAX_ALPN_BYTES: usize = 3 + 3 + 9;

impl Protocols {
    /// What `edge-cache` speaks: HTTP/2 and HTTP/1.1.
    pub const CONFIGURED: Self = Self(0b110);

    /// What an edge's fresh report says; without one, or when it names nothing known here, what is configured.
    pub fn of(report: Option<&Report>) -> Self {
        let Some(report) = report else { return Self::CONFIGURED };
        let mut spoken = 0;
        for (bit, name) in ALPN.iter().enumerate() {
            let is_spoken = report.protocols.iter().any(|protocol| protocol == name);
            spoken |= u8::from(is_spoken) << bit;
        }
        if spoken == 0 { Self::CONFIGURED } else { Self(spoken) }
    }

    /// What both speak.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether that is nothing.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Whether HTTP/1.1, which clients take for granted, is missing (RFC 9460 §7.1.1: `no-default-alpn`).
    pub const fn lacks_default(self) -> bool {
        self.0 & 0b100 == 0
    }

    /// The ALPN names in wire form, each behind its length (RFC 9460 §7.1.1).
    pub fn write(self, out: &mut [u8; MAX_ALPN_BYTES]) -> &[u8] {
        let mut at = 0;
        for name in
            ALPN.iter().enumerate().filter(|(bit, _)| self.0 >> bit & 1 == 1).map(|(_, n)| n)
        {
            let end = at + 1 + name.len();
            if let Some([length, room @ ..]) = out.get_mut(at..end) {
                *length = name.len() as u8;
                room.copy_from_slice(name.as_bytes());
            }
            at = end;
        }
        out.get(..at).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Memory(String);

    impl shared::config::Files for Memory {
        fn read(&self, _: &std::path::Path) -> std::io::Result<Vec<u8>> {
            Ok(self.0.clone().into_bytes())
        }
        fn glob(&self, _: &str) -> Result<Vec<std::path::PathBuf>, String> {
            Ok(Vec::new())
        }
        fn env(&self, _: &str) -> Option<String> {
            None
        }
    }

    /// Who could be answered, a fallback included, decides; a datacenter of no policy and a parent do not.
    #[test]
    fn only_policies_whose_edges_all_listen_on_one_port_have_records() {
        for (icn, fra, sorry, expected, warnings) in [
            ("127.0.1.1:443", "127.0.2.1:443", "127.0.3.1:443", Some(None), 0),
            ("127.0.1.1:8443", "127.0.2.1:8443", "127.0.3.1:8443", Some(Some(8443)), 0),
            ("127.0.1.1:8443\", \"127.0.1.1:443", "127.0.2.1:443", "127.0.3.1:443", Some(None), 0),
            ("127.0.1.1:443", "127.0.2.1:8443", "127.0.3.1:443", None, 1),
            ("127.0.1.1:443", "", "127.0.3.1:443", None, 0),
            ("127.0.1.1:443", "127.0.2.1:443", "", None, 0),
        ] {
            let mut text = String::from(
                "[steering.web]\ndatacenters = [\"icn\", \"fra\"]\nall_down = \"fallback:sorry\"\n\
                 [zone.\"cdn.test\"]\nfile = \"x\"\nsteer = { www = \"web\" }\n",
            );
            for (n, (name, https)) in
                [("icn", icn), ("fra", fra), ("sorry", sorry), ("far", "")].into_iter().enumerate()
            {
                let https = if https.is_empty() { String::new() } else { format!("\"{https}\"") };
                text += &format!(
                    "[datacenter.{name}]\nlocation = [1.0, {n}.0]\n[edge.{name}-1]\ndatacenter = \"{name}\"\n\
                     address = [\"192.0.2.{n}\"]\nhttp = [\"127.0.1.{n}:80\"]\nhttps = [{https}]\nadmin = \"127.0.1.{n}:90\"\n",
                );
            }
            let loaded = shared::config::load(std::path::Path::new("m.toml"), &Memory(text));
            let loaded = loaded.unwrap_or_else(|problems| panic!("{}", problems[0]));
            let world = crate::config::world(&loaded).unwrap();
            let service = Services::new(&loaded.spec, &world).of(0);
            assert_eq!(service.map(|service| service.port), expected, "{icn} {fra} {sorry}");
            assert_eq!(uneven(&loaded, &world).len(), warnings, "{icn} {fra} {sorry}");
        }
    }

    /// An HTTPS record would move browsers to where they find a certificate that they refuse.
    #[test]
    fn names_of_sites_without_a_certificate_have_no_records() {
        let tls = "tls = { certificate_file = \"c\", key_file = \"k\" }";
        for (owner, host, tls, expected) in [
            ("www", "www.cdn.test", tls, None),
            ("www", "WWW.cdn.test", "", Some(Lack::Certificate)),
            ("www", "*.cdn.test", "", Some(Lack::Certificate)),
            ("*.img", "a.img.cdn.test", "", Some(Lack::Certificate)),
            ("@", "cdn.test", "", Some(Lack::Certificate)),
            ("@", "*.cdn.test", "", None),
            ("www", "other.test", "", None),
        ] {
            let text = format!(
                "[steering.web]\n[zone.\"cdn.test\"]\nfile = \"x\"\nsteer = {{ \"{owner}\" = \"web\" }}\n\
                 [datacenter.icn]\nlocation = [1.0, 1.0]\n[edge.icn-1]\ndatacenter = \"icn\"\n\
                 address = [\"192.0.2.1\"]\nhttps = [\"127.0.1.1:443\"]\nadmin = \"127.0.1.1:90\"\n\
                 [origin.o]\nservers = [ {{ url = \"http://127.0.9.1:1\" }} ]\n\
                 [site.s]\nhosts = [\"{host}\"]\n{tls}\nroutes = [ {{ path = \"/*\", origin = \"o\", cache = \"off\" }} ]\n"
            );
            let loaded = shared::config::load(std::path::Path::new("m.toml"), &Memory(text));
            let loaded = loaded.unwrap_or_else(|problems| panic!("{}", problems[0]));
            let world = crate::config::world(&loaded).unwrap();
            assert_eq!(Services::new(&loaded.spec, &world).lack(0), expected, "{owner} {host}");
        }
    }

    fn report(protocols: &[&str]) -> Report {
        Report {
            protocols: protocols.iter().map(|p| (*p).to_owned()).collect(),
            ..Report::default()
        }
    }

    #[test]
    fn protocols_are_those_of_the_report_rfc_9460_section_7_1_1() {
        for (protocols, expected) in [
            (Protocols::of(None), b"\x02h2\x08http/1.1".as_slice()),
            (Protocols::of(Some(&report(&["http/1.1", "h2", "h3"]))), b"\x02h3\x02h2\x08http/1.1"),
            (Protocols::of(Some(&report(&["http/1.1"]))), b"\x08http/1.1"),
            (Protocols::of(Some(&report(&["gopher"]))), b"\x02h2\x08http/1.1"),
            (Protocols::of(Some(&report(&["h3", "h2"]))).and(Protocols::CONFIGURED), b"\x02h2"),
        ] {
            assert_eq!(protocols.write(&mut [0; MAX_ALPN_BYTES]), expected);
        }
        assert!(Protocols::of(Some(&report(&["h2"]))).lacks_default());
        assert!(!Protocols::CONFIGURED.lacks_default() && !Protocols::CONFIGURED.is_none());
    }
}
