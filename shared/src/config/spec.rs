//! What the file says: plain structs, unknown keys denied, every default in one place.
//!
//! No `flatten`, `untagged` or tagged enums: with those serde loses the line and column of a mistake.
//! Names are references (`datacenter = "icn"`); [`super::check`] has verified them in a [`Spec`] that a program is given.

mod cache;
mod dns;
mod http;
mod store;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use cache::*;
pub use dns::*;
pub use http::*;
pub use store::*;

use super::values::{Control, DnstapTarget, Dur, Location, LogTarget, Rate, Size};

/// The whole configuration of a CDN. Both programs read the same one.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Spec {
    /// Further files, by glob pattern, relative to this one. Only the first file may have it.
    pub include: Vec<String>,
    /// What all nodes have in common.
    pub cluster: ClusterSpec,
    /// Where client networks are.
    pub geo: GeoSpec,
    /// What is logged, and where to.
    pub log: LogSpec,
    /// Places with edges.
    pub datacenter: BTreeMap<String, DatacenterSpec>,
    /// Nodes that run `geodns`.
    pub nameserver: BTreeMap<String, NameserverSpec>,
    /// Nodes that run `edge-cache`.
    pub edge: BTreeMap<String, EdgeSpec>,
    /// Zones that the nameservers are authoritative for, by their names.
    pub zone: BTreeMap<String, ZoneSpec>,
    /// Steering policies: how clients are spread over datacenters.
    pub steering: BTreeMap<String, SteeringSpec>,
    /// Health checks of edges.
    pub check: BTreeMap<String, CheckSpec>,
    /// Groups of servers that have the content.
    pub origin: BTreeMap<String, OriginSpec>,
    /// Cache policies.
    pub cache: BTreeMap<String, CacheSpec>,
    /// Second tiers: which parents an edge asks.
    pub tier: BTreeMap<String, TierSpec>,
    /// Keys of signed URLs and cookies.
    pub signing: BTreeMap<String, SigningSpec>,
    /// Web sites: hosts and their routes.
    pub site: BTreeMap<String, SiteSpec>,
}

/// `[cluster]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterSpec {
    /// Name of the CDN; part of `CDN-Loop`, so two CDNs in a row need two names.
    pub name: String,
    /// Where purges and other messages to all nodes are kept.
    pub control: Control,
    /// A file with the secret that nodes prove themselves to each other with.
    pub secret_file: Option<PathBuf>,
}

impl Default for ClusterSpec {
    fn default() -> Self {
        Self { name: "meridian".to_owned(), control: Control::Embedded, secret_file: None }
    }
}

/// `[geo]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GeoSpec {
    /// MMDB files (City, Country, ASN). None: the built-in table of the registries' allocations.
    pub databases: Vec<PathBuf>,
    /// Network to datacenter: the operator's own map, before any database.
    pub networks: BTreeMap<String, String>,
    /// The same for the addresses of resolvers, where a query tells nothing of its client. Before `networks`.
    pub resolvers: BTreeMap<String, String>,
    /// Share of the clients of a policy, 0 to 1, by addresses, that new databases may move to another datacenter. A
    /// reload that would move more is refused. What the operator changes in this file does not count.
    pub max_moved: f64,
}

impl Default for GeoSpec {
    fn default() -> Self {
        Self {
            databases: Vec::new(),
            networks: BTreeMap::new(),
            resolvers: BTreeMap::new(),
            max_moved: 0.2,
        }
    }
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSpec {
    /// `edge-cache`: one JSON line per request.
    pub access: LogTarget,
    /// `geodns`: one JSON line per query.
    pub query: LogTarget,
    /// `geodns`: dnstap, to a file or to the Unix socket `unix:PATH`.
    pub dnstap: DnstapTarget,
    /// Share of requests and queries that are logged, 0 to 1.
    pub sample: f64,
}

impl Default for LogSpec {
    fn default() -> Self {
        Self {
            access: LogTarget::Off,
            query: LogTarget::Off,
            dnstap: DnstapTarget::Off,
            sample: 1.0,
        }
    }
}

/// `[datacenter.NAME]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatacenterSpec {
    /// Latitude and longitude in degrees.
    pub location: Location,
    /// What the datacenter can send.
    pub capacity: Option<Rate>,
    /// How much nearer it counts than it is, in percent, -99 to 99: 50 halves its distances, -50 doubles them.
    #[serde(default)]
    pub bias: i8,
    /// Its share where a policy's order is `weighted`.
    #[serde(default = "one")]
    pub weight: u32,
}

/// `[nameserver.NAME]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NameserverSpec {
    /// Where it stands: answers of other datacenters prove that it can see.
    pub datacenter: Option<String>,
    /// Addresses served over UDP and TCP.
    pub listen: Vec<SocketAddr>,
    /// The admin API, metrics and console.
    pub admin: SocketAddr,
    /// A file with the bearer token of the admin API. Needed beyond loopback.
    pub admin_token_file: Option<PathBuf>,
    /// Threads that answer UDP; 0: one per core.
    #[serde(default)]
    pub workers: u16,
    /// Connections at once, all clients together: over TCP, TLS, HTTPS and QUIC.
    #[serde(default = "tcp_connections")]
    pub tcp_connections: u32,
    /// The same from one client address.
    #[serde(default = "tcp_connections_per_client")]
    pub tcp_connections_per_client: u32,
    /// A connection without a query is closed after this.
    #[serde(default = "tcp_idle")]
    pub tcp_idle: Dur,
    /// Where the operator's `drain` and `down`, and what is known of the edges, are kept over restarts.
    pub state: Option<PathBuf>,
    /// Addresses served over TLS (RFC 7858).
    #[serde(default)]
    pub dot: Vec<SocketAddr>,
    /// Addresses served over HTTPS (RFC 8484), HTTP/2, path `/dns-query`.
    #[serde(default)]
    pub doh: Vec<SocketAddr>,
    /// Addresses served over QUIC (RFC 9250).
    #[serde(default)]
    pub doq: Vec<SocketAddr>,
    /// Certificate and key of `dot`, `doh` and `doq`, read again by a reload. None: a self-signed one is made at start.
    pub tls: Option<TlsSpec>,
    /// What NSID (RFC 5001) and `id.server` answer. None: nothing.
    pub nsid: Option<String>,
    /// What `version.bind` answers. None: REFUSED.
    pub version: Option<String>,
    /// A file with the secret of DNS cookies (RFC 9018), 32 hexadecimal digits in a line; cookies made with the secret
    /// of a second line are taken, too: the one before, or the one to come. None: a random one that nobody shares.
    pub cookie_secret_file: Option<PathBuf>,
    /// Response rate limiting.
    #[serde(default)]
    pub rate_limit: RateLimitSpec,
}

/// `rate_limit` of a nameserver.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimitSpec {
    /// Answers over UDP in a second to one client network, on the average, of each kind: data, negative, referral,
    /// error. 0: no limit.
    pub responses: u32,
    /// Every how manieth of the answers over it is sent truncated instead of dropped; 1: all, 0: none.
    pub slip: u8,
    /// A client network, IPv4.
    pub prefix_v4: u8,
    /// A client network, IPv6.
    pub prefix_v6: u8,
    /// Networks without a limit.
    pub exempt: Vec<String>,
}

impl Default for RateLimitSpec {
    fn default() -> Self {
        Self { responses: 0, slip: 2, prefix_v4: 24, prefix_v6: 56, exempt: Vec::new() }
    }
}

/// `[edge.NAME]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EdgeSpec {
    /// The datacenter it stands in.
    pub datacenter: String,
    /// First tier, second tier, or both.
    #[serde(default)]
    pub role: Role,
    /// What DNS answers with. Empty for a parent.
    #[serde(default)]
    pub address: Vec<IpAddr>,
    /// The address that health checks ask. None: the first of `address`.
    pub probe: Option<IpAddr>,
    /// Listeners for HTTP/1.1.
    #[serde(default)]
    pub http: Vec<SocketAddr>,
    /// Listeners for HTTP/1.1 and HTTP/2 over TLS.
    #[serde(default)]
    pub https: Vec<SocketAddr>,
    /// The admin API and metrics.
    pub admin: SocketAddr,
    /// A file with the bearer token of the admin API. Needed beyond loopback.
    pub admin_token_file: Option<PathBuf>,
    /// What the process may take, all told: stored objects get what connections and requests leave.
    #[serde(default = "memory")]
    pub memory: Size,
    /// Which entries of the memory tier make room for others. None: `size-aware`, for a parent without
    /// disks `s3-fifo`.
    pub policy: Option<StorePolicy>,
    /// The disk tier under the memory tier.
    pub disk: Option<DiskSpec>,
    /// Further disks: objects are spread over all of them, a failing one costs what it holds.
    #[serde(default)]
    pub disks: Vec<DiskSpec>,
    /// A folder where purges are kept over restarts. None: that of the first disk, if there is one.
    pub state: Option<PathBuf>,
    /// Objects larger than this are not stored whole, though parts of them are; default: an eighth of `memory`.
    pub max_object: Option<Size>,
    /// Bodies are stored and fetched in aligned segments of this size: a power of two from 64 KiB to 8 MiB.
    #[serde(default = "segment")]
    pub segment: Size,
    /// Networks whose `PURGE` requests are obeyed, on every listener.
    #[serde(default)]
    pub purge_from: Vec<String>,
    /// Its share where a policy's pick is `weighted`.
    #[serde(default = "one")]
    pub weight: u32,
    /// Threads that serve; 0: one per core.
    #[serde(default)]
    pub workers: u16,
    /// Client connections at once.
    #[serde(default = "max_connections")]
    pub max_connections: u32,
    /// A connection without a request is closed after this.
    #[serde(default = "idle")]
    pub idle: Dur,
    /// A request head must be complete within this.
    #[serde(default = "head_timeout")]
    pub head_timeout: Dur,
    /// The size of a request head at most.
    #[serde(default = "max_head")]
    pub max_head: Size,
    /// How long a stopping node goes on with requests it has begun.
    #[serde(default = "drain_timeout")]
    pub drain_timeout: Dur,
}

/// What an edge node does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Near the client: first tier.
    #[default]
    Edge,
    /// Shields the origin: second tier.
    Parent,
    /// Both tiers in one node.
    Both,
}

impl Spec {
    /// Makes every relative path relative to `dir`, the folder of the file it stands in.
    pub(super) fn resolve_paths(&mut self, dir: &Path) {
        let optional = |path: &mut Option<PathBuf>| {
            if let Some(path) = path {
                *path = dir.join(&path);
            }
        };
        optional(&mut self.cluster.secret_file);
        for path in &mut self.geo.databases {
            *path = dir.join(&path);
        }
        self.log.access.resolve(dir);
        self.log.query.resolve(dir);
        self.log.dnstap.resolve(dir);
        for nameserver in self.nameserver.values_mut() {
            optional(&mut nameserver.admin_token_file);
            optional(&mut nameserver.state);
            optional(&mut nameserver.cookie_secret_file);
            if let Some(tls) = &mut nameserver.tls {
                tls.resolve(dir);
            }
        }
        for edge in self.edge.values_mut() {
            optional(&mut edge.admin_token_file);
            optional(&mut edge.state);
            for disk in edge.disk.iter_mut().chain(&mut edge.disks) {
                disk.path = dir.join(&disk.path);
            }
        }
        for zone in self.zone.values_mut() {
            zone.file = dir.join(&zone.file);
        }
        for check in self.check.values_mut() {
            optional(&mut check.ca_file);
        }
        for origin in self.origin.values_mut() {
            optional(&mut origin.ca_file);
            if let Some(sigv4) = &mut origin.sigv4 {
                sigv4.credentials_file = dir.join(&sigv4.credentials_file);
            }
        }
        for signing in self.signing.values_mut() {
            for file in signing.keys.values_mut() {
                *file = dir.join(&file);
            }
        }
        for site in self.site.values_mut() {
            if let Some(tls) = &mut site.tls {
                tls.resolve(dir);
            }
        }
    }
}

pub(super) const fn one() -> u32 {
    1
}
const fn tcp_connections() -> u32 {
    1000
}
const fn tcp_connections_per_client() -> u32 {
    20
}
const fn tcp_idle() -> Dur {
    Dur::secs(10)
}
const fn memory() -> Size {
    Size(256 << 20)
}
const fn segment() -> Size {
    Size(256 << 10)
}
/// Where nothing is said of them.
pub(super) const fn max_connections() -> u32 {
    10_000
}
const fn idle() -> Dur {
    Dur::secs(60)
}
const fn head_timeout() -> Dur {
    Dur::secs(10)
}
const fn max_head() -> Size {
    Size(32 << 10)
}
const fn drain_timeout() -> Dur {
    Dur::secs(30)
}
pub(super) const fn two_seconds() -> Dur {
    Dur::secs(2)
}
pub(super) const fn one_second() -> Dur {
    Dur::secs(1)
}
pub(super) const fn down_after() -> u16 {
    3
}
pub(super) const fn up_after() -> u16 {
    2
}
