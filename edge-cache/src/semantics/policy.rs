//! A cache policy in the form that the rules use: `[cache.NAME]` of the configuration, checked. Plain values; the
//! translation from the configuration file is the caller's.

use std::time::Duration;

use http::StatusCode;
use http::header::HeaderName;

use super::compress::Coding;
use crate::key::KeyRules;

/// How far the cache goes beyond the letter of the RFC to protect the origin and other clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Set-Cookie is not stored, only allow-listed request fields reach a cacheable route, a client cannot force a fetch
    /// (its Cache-Control is ignored), error responses need explicit freshness, a response whose type contradicts the
    /// path's extension is not stored.
    #[default]
    Safe,
    /// RFC 9111 by the letter.
    Rfc,
}

/// Bounds on how long a response is fresh.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ttl {
    /// Used when the origin says nothing and the status may be cached without being told so.
    pub default: Duration,
    /// Raises what the origin says; never makes `no-cache`, `no-store` or `private` cacheable.
    pub min: Duration,
    /// Lowers what the origin says.
    pub max: Duration,
    /// The share, 0 to 0.5, by which [`super::StoredHead::jittered`] shortens a lifetime at most.
    pub jitter: f64,
}

/// What is made of Vary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaryRules {
    /// Variants of one key at most.
    pub max: usize,
    /// Languages that there are, the best first: see [`super::language`]. Empty: Accept-Language counts by the letter.
    pub languages: Vec<String>,
}

/// When a response past its lifetime may still be used. The origin's own `stale-while-revalidate` and `stale-if-error`
/// win over these; `must-revalidate`, `proxy-revalidate`, `no-cache` and `s-maxage` forbid all (RFC 9111 §4.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaleRules {
    /// Served at once while one background request revalidates (RFC 5861 §3). In the rfc profile only the origin can allow
    /// that (RFC 9111 §4.2.4).
    pub while_revalidate: Duration,
    /// Served when the origin fails (RFC 5861 §4).
    pub if_error: Duration,
    /// Within `if_error`: served when the origin has not answered after this long. `None`: only on a real error.
    pub after_wait: Option<Duration>,
    /// Whether the origin's own stale directives count beside `s-maxage`, which by RFC 9111 §5.2.2.10 forbids them.
    pub beside_s_maxage: bool,
}

/// What is fetched for a range that is not stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ranges {
    /// The segments that hold it.
    #[default]
    Segments,
    /// The whole.
    Whole,
}

/// What one route's cache policy says.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Lifetime bounds.
    pub ttl: Ttl,
    /// Lifetime of a status for which the origin gives none, even of one that RFC 9111 would not store unasked.
    pub negative_ttl: Vec<(StatusCode, Duration)>,
    /// Stale use.
    pub stale: StaleRules,
    /// What distinguishes two requests.
    pub key: KeyRules,
    /// Safe or by the letter.
    pub profile: Profile,
    /// Targeted Cache-Control fields in order of precedence (RFC 9213). Empty: none is read.
    pub targeted: Vec<HeaderName>,
    /// Whether `Surrogate-Control: max-age=…` is read when no targeted field applies.
    pub surrogate_control: bool,
    /// Whether a response with Last-Modified and no lifetime gets a tenth of its age instead of `ttl.default`
    /// (RFC 9111 §4.2.2).
    pub heuristic: bool,
    /// Vary.
    pub vary: VaryRules,
    /// Whether No-Vary-Search is read.
    pub no_vary_search: bool,
    /// What is fetched for a range that is not stored.
    pub ranges: Ranges,
    /// Response fields with tags, for purges.
    pub tags: Vec<HeaderName>,
    /// Encodings that are made of what is stored, the best first.
    pub compress: Vec<Coding>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            ttl: Ttl {
                default: Duration::from_secs(600),
                min: Duration::ZERO,
                max: Duration::from_secs(30 * 86_400),
                jitter: 0.0,
            },
            negative_ttl: vec![(StatusCode::NOT_FOUND, Duration::from_secs(10))],
            stale: StaleRules {
                while_revalidate: Duration::ZERO,
                if_error: Duration::from_secs(86_400),
                after_wait: Some(Duration::from_secs(1)),
                beside_s_maxage: false,
            },
            key: KeyRules::default(),
            profile: Profile::Safe,
            targeted: vec![HeaderName::from_static("cdn-cache-control")],
            surrogate_control: false,
            heuristic: false,
            vary: VaryRules { max: 32, languages: Vec::new() },
            no_vary_search: false,
            ranges: Ranges::Segments,
            tags: ["cache-tag", "surrogate-key", "cache-groups"]
                .map(HeaderName::from_static)
                .to_vec(),
            compress: Vec::new(),
        }
    }
}

impl Policy {
    /// The operator's lifetime for a status, if any.
    pub fn negative_ttl(&self, status: StatusCode) -> Option<Duration> {
        self.negative_ttl.iter().find(|(known, _)| *known == status).map(|(_, ttl)| *ttl)
    }
}
