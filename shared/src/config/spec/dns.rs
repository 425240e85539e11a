//! What the file says of DNS: zones, steering policies, checks of edges.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::{down_after, one_second, two_seconds, up_after};
use crate::config::values::{AllDown, Dur, StatusPattern};

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
    /// Datacenter to the share of client networks, 0 to 1, that it takes at most, measured by the addresses that are in
    /// use, IPv4 and IPv6 apart. The farthest of the others go to their next datacenter. It holds while one of the others
    /// is down, too, as long as any takes them.
    pub max_share: BTreeMap<String, f64>,
    /// `hash-client`, `hash-name`: an edge that reports more than this many times the mean load of its datacenter gives
    /// keys up to the next in rank; below a load of a tenth nobody does.
    pub bounded_load: f64,
    /// The time in which a datacenter that returns gets its clients back. 0: at once.
    pub ramp: Dur,
    /// What a datacenter with too much load does.
    pub shed: ShedSpec,
}

/// `shed` of a steering policy.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShedSpec {
    /// Load, as a share of what it can take, above which a datacenter sheds its farthest client networks. 0: never.
    pub above: f64,
    /// Load below which it takes them back.
    pub resume: f64,
}

impl Default for ShedSpec {
    fn default() -> Self {
        Self { above: 0.0, resume: 0.0 }
    }
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
            max_share: BTreeMap::new(),
            bounded_load: 1.25,
            ramp: Dur::secs(0),
            shed: ShedSpec::default(),
        }
    }
}

/// How a policy's datacenters are ordered for a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// By great-circle distance from the client's network. Datacenters that are as near, within 5 % or 50 km, share the
    /// places.
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
    /// Which address the conditions are about.
    #[serde(default)]
    pub by: RuleBy,
    /// Datacenters, in order. Those not named follow in the policy's order.
    pub to: Vec<String>,
}

/// Which address a rule's conditions are about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RuleBy {
    /// The client subnet where the query has one, else the resolver's address.
    #[default]
    Any,
    /// Only a client subnet.
    Subnet,
    /// Only a resolver's address, where the query tells nothing of its client.
    Resolver,
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
    /// A target that fell again soon after it came back stays down for a time that doubles with each fall, up to this.
    /// 0: never.
    #[serde(default = "hold_down")]
    pub hold_down: Dur,
    /// https: a certificate that ends in fewer days fails the check.
    #[serde(default)]
    pub min_days: u16,
    /// https: who may sign the certificate. None: the public authorities.
    pub ca_file: Option<PathBuf>,
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

/// The time that a check needs to notice an outage: what fails right after a good try.
impl CheckSpec {
    /// `interval × down_after`.
    pub fn detection(&self) -> Duration {
        self.interval.get() * u32::from(self.down_after)
    }
}

const fn hold_down() -> Dur {
    Dur::secs(300)
}
fn health_path() -> String {
    "/.meridian/health".to_owned()
}
fn status_200() -> Vec<StatusPattern> {
    vec![StatusPattern { from: 200, to: 200 }]
}
