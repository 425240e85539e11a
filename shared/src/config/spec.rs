//! What the file says: plain structs, unknown keys denied, every default in one place.
//!
//! No `flatten`, `untagged` or tagged enums: with those serde loses the line and column of a mistake.
//! Names are references (`datacenter = "icn"`); [`super::check`] has verified them in a [`Spec`] that a program is given.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::values::{
    AllDown, Control, Dur, Location, LogTarget, OriginUrl, Parents, Rate, RouteCache, Size,
    StatusPattern,
};

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
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GeoSpec {
    /// MMDB files (City, Country, ASN). None: the built-in table of the registries' allocations.
    pub databases: Vec<PathBuf>,
    /// Network to datacenter: the operator's own map, before any database.
    pub networks: BTreeMap<String, String>,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSpec {
    /// `edge-cache`: one JSON line per request.
    pub access: LogTarget,
    /// `geodns`: one JSON line per query.
    pub query: LogTarget,
    /// Share of requests and queries that are logged, 0 to 1.
    pub sample: f64,
}

impl Default for LogSpec {
    fn default() -> Self {
        Self { access: LogTarget::Off, query: LogTarget::Off, sample: 1.0 }
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
    /// Its share where a policy's order is `weighted`.
    #[serde(default = "one")]
    pub weight: u32,
}

/// `[nameserver.NAME]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NameserverSpec {
    /// Where it stands; only shown.
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
    /// TCP connections at once, all clients together.
    #[serde(default = "tcp_connections")]
    pub tcp_connections: u32,
    /// TCP connections at once from one client address.
    #[serde(default = "tcp_connections_per_client")]
    pub tcp_connections_per_client: u32,
    /// A TCP connection without a query is closed after this.
    #[serde(default = "tcp_idle")]
    pub tcp_idle: Dur,
    /// Where the operator's `drain` and `down` are kept over restarts.
    pub state: Option<PathBuf>,
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
    /// Memory for stored objects.
    #[serde(default = "memory")]
    pub memory: Size,
    /// The disk tier under the memory tier.
    pub disk: Option<DiskSpec>,
    /// Objects larger than this are not stored; default: an eighth of `memory`.
    pub max_object: Option<Size>,
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

/// `disk` of an edge.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskSpec {
    /// A folder.
    pub path: PathBuf,
    /// How much of it is used.
    pub size: Size,
}

/// `[zone."NAME"]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZoneSpec {
    /// Master file (RFC 1035 §5).
    pub file: PathBuf,
    /// Owner name, relative to the zone (`@`: the apex), to steering policy.
    #[serde(default)]
    pub steer: BTreeMap<String, String>,
}

/// `[steering.NAME]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SteeringSpec {
    /// The datacenters it chooses from. Empty: all.
    pub datacenters: Vec<String>,
    /// How they are ordered for a client.
    pub order: Order,
    /// Exceptions by client, first match wins, before the order.
    pub rules: Vec<RuleSpec>,
    /// Edges in one answer.
    pub answers: u16,
    /// Which of a datacenter's edges are answered.
    pub pick: Pick,
    /// The health check its edges must pass. None: all count as up.
    pub check: Option<String>,
    /// Share of a datacenter's edges that must be up for it to count as up, 0 to 1.
    pub min_up: f64,
    /// Bounds of the TTL of an answer.
    pub ttl: SteeringTtlSpec,
    /// What is answered when no datacenter is up.
    pub all_down: AllDown,
    /// EDNS client subnet (RFC 7871).
    pub ecs: EcsSpec,
}

impl Default for SteeringSpec {
    fn default() -> Self {
        Self {
            datacenters: Vec::new(),
            order: Order::Nearest,
            rules: Vec::new(),
            answers: 2,
            pick: Pick::All,
            check: None,
            min_up: 0.5,
            ttl: SteeringTtlSpec::default(),
            all_down: AllDown::LastGood,
            ecs: EcsSpec::default(),
        }
    }
}

/// How a policy's datacenters are ordered for a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// By great-circle distance from the client's network.
    #[default]
    Nearest,
    /// As listed in `datacenters`, for every client.
    Listed,
    /// By weight: each client network gets a stable draw.
    Weighted,
}

/// Which of a datacenter's edges are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pick {
    /// All that are up, `answers` at most, rotated.
    #[default]
    All,
    /// Drawn by the edges' weights.
    Weighted,
    /// The same client network gets the same edges.
    HashClient,
    /// The same name gets the same edges.
    HashName,
}

/// One of a policy's `rules`. All the conditions that it has must hold; in one condition, one value must.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleSpec {
    /// ISO 3166-1 alpha-2 codes.
    #[serde(default)]
    pub country: Vec<String>,
    /// AF, AN, AS, EU, NA, OC, SA.
    #[serde(default)]
    pub continent: Vec<String>,
    /// ISO 3166-2 codes: `US-CA`.
    #[serde(default)]
    pub subdivision: Vec<String>,
    /// Names as the database has them, in English.
    #[serde(default)]
    pub city: Vec<String>,
    /// Autonomous system numbers.
    #[serde(default)]
    pub asn: Vec<u32>,
    /// Client networks.
    #[serde(default)]
    pub network: Vec<String>,
    /// Datacenters, in order. Those not named follow in the policy's order.
    pub to: Vec<String>,
}

/// `ttl` of a steering policy.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SteeringTtlSpec {
    /// While nothing is about to change.
    pub max: Dur,
    /// While something is.
    pub min: Dur,
}

impl Default for SteeringTtlSpec {
    fn default() -> Self {
        Self { max: Dur::secs(60), min: Dur::secs(5) }
    }
}

/// `ecs` of a steering policy.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EcsSpec {
    /// Whether the client subnet is used at all. If not, the resolver's address is.
    #[serde(rename = "use")]
    pub enabled: bool,
    /// No scope is longer than this, IPv4.
    pub max_v4: u8,
    /// No scope is longer than this, IPv6.
    pub max_v6: u8,
}

impl Default for EcsSpec {
    fn default() -> Self {
        Self { enabled: true, max_v4: 24, max_v6: 56 }
    }
}

/// `[check.NAME]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckSpec {
    /// What is tried.
    pub kind: CheckKind,
    /// http, https: the `Host` that is asked for.
    pub host: Option<String>,
    /// http, https: the path.
    #[serde(default = "health_path")]
    pub path: String,
    /// http, https: what counts as good: `"200"`, `"2xx"`, `"200-299"`.
    #[serde(default = "status_200")]
    pub status: Vec<StatusPattern>,
    /// The port. Default: that of the edge's first listener of this kind; `admin` for `report`.
    pub port: Option<u16>,
    /// Between two tries.
    #[serde(default = "two_seconds")]
    pub interval: Dur,
    /// A try that takes longer has failed.
    #[serde(default = "one_second")]
    pub timeout: Dur,
    /// Failures in a row until it counts as down.
    #[serde(default = "down_after")]
    pub down_after: u16,
    /// Successes in a row until it counts as up.
    #[serde(default = "up_after")]
    pub up_after: u16,
}

/// What a check tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckKind {
    /// A connection is accepted.
    Tcp,
    /// A request is answered with a good status.
    Http,
    /// The same over TLS, certificate verified.
    Https,
    /// The edge's own `/v1/report`.
    Report,
}

/// `[origin.NAME]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OriginSpec {
    /// Servers that have the same content.
    pub servers: Vec<ServerSpec>,
    /// How requests are spread over them.
    #[serde(default)]
    pub balance: Balance,
    /// `Host` of requests to it. Default: as the client sent it.
    pub host: Option<String>,
    /// https: authorities that its certificate is verified against, PEM. Default: the public ones.
    pub ca_file: Option<PathBuf>,
    /// Active check. None: servers count as up until requests to them fail.
    pub health: Option<OriginHealthSpec>,
    /// How long each step of a request may take.
    #[serde(default)]
    pub timeouts: TimeoutsSpec,
    /// Connections at once from one node, all servers together.
    #[serde(default = "origin_connections")]
    pub max_connections: u32,
    /// Another origin, asked on a connect error or a status of `failover_on`.
    pub failover: Option<String>,
    /// Statuses that make the node ask `failover`.
    #[serde(default = "failover_on")]
    pub failover_on: Vec<u16>,
}

/// One of an origin's `servers`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSpec {
    /// `http://HOST[:PORT]` or `https://HOST[:PORT]`.
    pub url: OriginUrl,
    /// Its share of requests; 0: only when no other is up.
    #[serde(default = "one")]
    pub weight: u32,
}

/// How requests are spread over an origin's servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// In turn, by weight.
    #[default]
    RoundRobin,
    /// The one with the fewest requests in flight per weight.
    LeastConnections,
    /// By the hash of the cache key.
    Hash,
}

/// `health` of an origin.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OriginHealthSpec {
    /// What is asked for; any 2xx or 3xx is good.
    pub path: String,
    /// Between two tries.
    pub interval: Dur,
    /// A try that takes longer has failed.
    pub timeout: Dur,
    /// Failures in a row until a server counts as down.
    pub down_after: u16,
    /// Successes in a row until it counts as up.
    pub up_after: u16,
}

impl Default for OriginHealthSpec {
    fn default() -> Self {
        Self {
            path: "/healthz".to_owned(),
            interval: two_seconds(),
            timeout: one_second(),
            down_after: down_after(),
            up_after: up_after(),
        }
    }
}

/// `timeouts` of an origin.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TimeoutsSpec {
    /// Until a connection stands, TLS included.
    pub connect: Dur,
    /// From the request to the response's head.
    pub first_byte: Dur,
    /// Between two pieces of the body.
    pub between_bytes: Dur,
}

impl Default for TimeoutsSpec {
    fn default() -> Self {
        Self { connect: Dur::secs(1), first_byte: Dur::secs(5), between_bytes: Dur::secs(10) }
    }
}

/// `[cache.NAME]`: a cache policy.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CacheSpec {
    /// Freshness lifetime.
    pub ttl: CacheTtlSpec,
    /// Status to freshness lifetime, where the origin gives none.
    pub negative_ttl: BTreeMap<String, Dur>,
    /// Serving stale (RFC 5861).
    pub stale: StaleSpec,
    /// What makes two requests the same.
    pub key: KeySpec,
    /// How close to the letter of RFC 9111.
    pub profile: Profile,
}

impl Default for CacheSpec {
    fn default() -> Self {
        Self {
            ttl: CacheTtlSpec::default(),
            negative_ttl: BTreeMap::from([("404".to_owned(), Dur::secs(10))]),
            stale: StaleSpec::default(),
            key: KeySpec::default(),
            profile: Profile::Safe,
        }
    }
}

/// `ttl` of a cache policy.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CacheTtlSpec {
    /// Where the origin gives none.
    pub default: Dur,
    /// What the origin gives is raised to this.
    pub min: Dur,
    /// What the origin gives is lowered to this.
    pub max: Dur,
}

impl Default for CacheTtlSpec {
    fn default() -> Self {
        Self { default: Dur::secs(600), min: Dur::ZERO, max: Dur::secs(30 * 86_400) }
    }
}

/// `stale` of a cache policy.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StaleSpec {
    /// For this long after freshness ends, stale is served while the origin is asked. None by default: RFC 9111 §4.2.4
    /// leaves it to origins and operators to allow it.
    pub while_revalidate: Dur,
    /// For this long, stale is served when the origin fails.
    pub if_error: Dur,
    /// Within `if_error`, stale is served when the origin takes longer than this; 0: never.
    pub after_wait: Dur,
}

impl Default for StaleSpec {
    fn default() -> Self {
        Self { while_revalidate: Dur::ZERO, if_error: Dur::secs(86_400), after_wait: Dur::secs(1) }
    }
}

/// `key` of a cache policy.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeySpec {
    /// Whether query parameters are part of the key.
    pub query: KeyQuery,
    /// `query = "all"`: parameters left out, `*` at the end matches any rest.
    pub drop: Vec<String>,
    /// `query = "none"`: parameters kept all the same.
    pub keep: Vec<String>,
    /// Whether parameters are sorted by name.
    pub sort: bool,
    /// Request fields that are part of the key.
    pub headers: Vec<String>,
    /// Cookies that are part of the key.
    pub cookies: Vec<String>,
}

impl Default for KeySpec {
    fn default() -> Self {
        Self {
            query: KeyQuery::All,
            drop: Vec::new(),
            keep: Vec::new(),
            sort: true,
            headers: Vec::new(),
            cookies: Vec::new(),
        }
    }
}

/// Whether query parameters are part of the cache key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyQuery {
    /// All but those of `drop`.
    #[default]
    All,
    /// None but those of `keep`.
    None,
}

/// How close to the letter of RFC 9111 a cache policy is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// With the guards that a public CDN needs.
    #[default]
    Safe,
    /// The letter of the RFC.
    Rfc,
}

/// `[tier.NAME]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TierSpec {
    /// Names of edges with role `parent` or `both`, or `"nearest-datacenter"`.
    pub parents: Parents,
    /// How a parent is chosen for a key.
    #[serde(default)]
    pub choose: Choose,
    /// A parent with more than this times the mean of requests in flight is passed over. At least 1.
    #[serde(default = "bounded_load")]
    pub bounded_load: f64,
    /// Where a request goes whose parent is down.
    #[serde(default)]
    pub when_down: WhenDown,
}

/// How a parent is chosen for a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choose {
    /// Highest random weight of key and parent.
    #[default]
    Rendezvous,
}

/// Where a request goes whose parent is down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenDown {
    /// The next parent, then the origin.
    #[default]
    Next,
    /// The origin.
    Origin,
}

/// `[site.NAME]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteSpec {
    /// Host names, `*.` in front matches one or more labels.
    pub hosts: Vec<String>,
    /// The second tier. None: edges ask the origins.
    pub tier: Option<String>,
    /// First match wins.
    pub routes: Vec<RouteSpec>,
    /// The certificate. None: a self-signed one, made at start.
    pub tls: Option<SiteTlsSpec>,
}

/// One of a site's `routes`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteSpec {
    /// A path; `*` at the end matches any rest.
    pub path: String,
    /// The origin asked.
    pub origin: String,
    /// A cache policy, or `"off"`.
    #[serde(default)]
    pub cache: RouteCache,
    /// Taken off the path before the origin is asked.
    pub strip_prefix: Option<String>,
}

/// `tls` of a site.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteTlsSpec {
    /// The chain, PEM.
    pub certificate_file: PathBuf,
    /// The private key, PEM.
    pub key_file: PathBuf,
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
        for nameserver in self.nameserver.values_mut() {
            optional(&mut nameserver.admin_token_file);
            optional(&mut nameserver.state);
        }
        for edge in self.edge.values_mut() {
            optional(&mut edge.admin_token_file);
            if let Some(disk) = &mut edge.disk {
                disk.path = dir.join(&disk.path);
            }
        }
        for zone in self.zone.values_mut() {
            zone.file = dir.join(&zone.file);
        }
        for origin in self.origin.values_mut() {
            optional(&mut origin.ca_file);
        }
        for site in self.site.values_mut() {
            if let Some(tls) = &mut site.tls {
                tls.certificate_file = dir.join(&tls.certificate_file);
                tls.key_file = dir.join(&tls.key_file);
            }
        }
    }
}

const fn one() -> u32 {
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
const fn max_connections() -> u32 {
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
fn health_path() -> String {
    "/.meridian/health".to_owned()
}
fn status_200() -> Vec<StatusPattern> {
    vec![StatusPattern { from: 200, to: 200 }]
}
const fn two_seconds() -> Dur {
    Dur::secs(2)
}
const fn one_second() -> Dur {
    Dur::secs(1)
}
const fn down_after() -> u16 {
    3
}
const fn up_after() -> u16 {
    2
}
const fn origin_connections() -> u32 {
    128
}
fn failover_on() -> Vec<u16> {
    vec![500, 502, 503, 504]
}
const fn bounded_load() -> f64 {
    1.25
}

/// The time that a check needs to notice an outage: what fails right after a good try.
impl CheckSpec {
    /// `interval × down_after`.
    pub fn detection(&self) -> Duration {
        self.interval.get() * u32::from(self.down_after)
    }
}
