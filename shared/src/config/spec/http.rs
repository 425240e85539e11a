//! What the file says of HTTP: origins, tiers, sites.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{down_after, one, one_second, two_seconds, up_after};
use crate::config::route_values::{CorsOrigin, Template};
use crate::config::values::{Dur, OriginUrl, Parents, RouteCache};

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
    /// https: the name sent as SNI, which the certificate must be for. Default: `host`, else the server's own name.
    pub sni: Option<String>,
    /// https: whether the certificate is verified.
    #[serde(default = "yes")]
    pub verify: bool,
    /// Which version of HTTP is spoken to it.
    #[serde(default)]
    pub protocol: OriginProtocol,
    /// Requests are signed (AWS Signature Version 4), for S3-compatible buckets: GET and HEAD, and other methods that a route
    /// lists in `methods`. What a client sends as Authorization or `x-amz-*` does not reach the bucket.
    pub sigv4: Option<SigV4Spec>,
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

/// Which version of HTTP is spoken to an origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OriginProtocol {
    /// https: HTTP/2 where the server offers it, else HTTP/1.1. http: HTTP/1.1.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, also without TLS (prior knowledge, RFC 9113 §3.3).
    Http2,
}

/// `sigv4` of an origin.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SigV4Spec {
    /// The bucket's region.
    pub region: String,
    /// The service.
    #[serde(default = "s3")]
    pub service: String,
    /// A file of two lines, access key id and secret access key; a third one: session token. Read again by a reload.
    pub credentials_file: PathBuf,
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
    pub tls: Option<TlsSpec>,
    /// Whether responses tell in Server-Timing what the node did and how long that took.
    #[serde(default)]
    pub server_timing: bool,
}

/// One of a site's `routes`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteSpec {
    /// A path; `*` at the end matches any rest.
    pub path: String,
    /// The origin asked. None: only where there is a `redirect`.
    pub origin: Option<String>,
    /// A cache policy, or `"off"`.
    #[serde(default)]
    pub cache: RouteCache,
    /// Taken off the path before the origin is asked.
    pub strip_prefix: Option<String>,
    /// The path for the origin: `{path}` is the request's, `{rest}` what the `*` of `path` stands for. Not beside
    /// `strip_prefix`.
    pub rewrite: Option<Template>,
    /// Methods that are served; others get 405. Default: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS; with a cache policy of
    /// [`super::Profile::Rfc`] all but CONNECT and TRACE.
    pub methods: Option<Vec<String>>,
    /// Answered with a redirect.
    pub redirect: Option<RedirectSpec>,
    /// Fields of requests to the origin.
    #[serde(default)]
    pub request_headers: FieldsSpec,
    /// Fields of responses to clients.
    #[serde(default)]
    pub response_headers: FieldsSpec,
    /// Cross-origin requests that browsers may make. None: the origin has to say.
    pub cors: Option<CorsSpec>,
    /// Who is served.
    #[serde(default)]
    pub access: AccessSpec,
    /// URLs and cookies must be signed with the keys of this `[signing.NAME]`, see `edge-cache sign --help`.
    pub signed: Option<String>,
    /// Protocols that a connection may be upgraded to, such as `websocket`.
    #[serde(default)]
    pub upgrade: Vec<String>,
}

/// `redirect` of a route.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedirectSpec {
    /// Where to, a path or a URL: `{scheme}`, `{host}` (without port), `{path}`, `{rest}` (what the `*` of the route's path
    /// stands for) and `{query}` (with its `?`, or nothing) stand for the request's. A request for that very URL is not
    /// redirected, but served by the route's `origin` if it has one: `https://{host}{path}{query}` moves http to https.
    pub to: Template,
    /// 301, 302, 303, 307 or 308.
    #[serde(default = "permanent")]
    pub status: u16,
}

/// `request_headers` and `response_headers` of a route.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FieldsSpec {
    /// Fields that get this value, whatever they had.
    pub set: BTreeMap<String, String>,
    /// Fields that are taken off.
    pub remove: Vec<String>,
}

/// `cors` of a route.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorsSpec {
    /// Origins that may read responses: `https://app.example.com`, `https://*.example.com` (every name below, at any depth),
    /// or `*` for all.
    pub origins: Vec<CorsOrigin>,
    /// Methods that they may use.
    #[serde(default = "cors_methods")]
    pub methods: Vec<String>,
    /// Request fields that they may send beyond the simple ones; `*` for all.
    #[serde(default)]
    pub headers: Vec<String>,
    /// Response fields that they may read beyond the simple ones.
    #[serde(default)]
    pub expose: Vec<String>,
    /// Whether they may send cookies. Not with `origins = ["*"]`.
    #[serde(default)]
    pub credentials: bool,
    /// How long browsers may keep the answer to a preflight.
    #[serde(default = "cors_max_age")]
    pub max_age: Dur,
}

/// `access` of a route: a client that no rule denies is served, if there are no `allow` rules or one of them allows it.
///
/// `deny` and `deny_countries` win over `allow` and `allow_countries`; of the allowing rules one is enough, a network or a
/// country. A client whose country is not known is in no country: `deny_countries` lets it in, `allow_countries` alone does
/// not. Who is not served gets 403, also for what is stored.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccessSpec {
    /// Networks that are served.
    pub allow: Vec<String>,
    /// Networks that are not.
    pub deny: Vec<String>,
    /// Countries (ISO 3166-1 alpha-2) that are served, by the databases of `[geo]`.
    pub allow_countries: Vec<String>,
    /// Countries that are not.
    pub deny_countries: Vec<String>,
}

/// `[signing.NAME]`: keys of signed URLs and cookies.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SigningSpec {
    /// Name of a key to a file with its secret, at least 32 characters. All are taken; to change keys, add the new one, sign
    /// with it, take the old one out when its last signature has expired. Read again by a reload.
    pub keys: BTreeMap<String, PathBuf>,
}

/// `tls` of a site or a nameserver.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSpec {
    /// The chain, PEM.
    pub certificate_file: PathBuf,
    /// The private key, PEM.
    pub key_file: PathBuf,
}

impl TlsSpec {
    pub(super) fn resolve(&mut self, dir: &Path) {
        self.certificate_file = dir.join(&self.certificate_file);
        self.key_file = dir.join(&self.key_file);
    }
}

const fn yes() -> bool {
    true
}
fn s3() -> String {
    "s3".to_owned()
}
const fn permanent() -> u16 {
    308
}
fn cors_methods() -> Vec<String> {
    vec!["GET".to_owned(), "HEAD".to_owned()]
}
const fn cors_max_age() -> Dur {
    Dur::secs(600)
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
