//! What the file says of cache policies.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::config::values::Dur;

/// `[cache.NAME]`: a cache policy.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "Written")]
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
    /// Targeted fields (RFC 9213), the first one that is there and valid replaces Cache-Control and Expires.
    pub targeted: Vec<String>,
    /// Whether `Surrogate-Control` counts where no targeted field does. By default only in [`Profile::Rfc`].
    pub surrogate_control: bool,
    /// Whether a response with Last-Modified and without a lifetime gets a tenth of its age (RFC 9111 §4.2.2) instead of
    /// `ttl.default`. By default only in [`Profile::Rfc`].
    pub heuristic: bool,
    /// Variants of one URL.
    pub vary: VarySpec,
    /// Whether the response field No-Vary-Search counts.
    pub no_vary_search: bool,
    /// Response fields with an object's tags, for purges by tag.
    pub tags: Vec<String>,
    /// What is fetched for a range that is not stored.
    pub ranges: Ranges,
    /// Encodings that are made of objects that the origin sends unencoded: `zstd`, `br`, `gzip`, the best first.
    pub compress: Vec<String>,
}

impl Default for CacheSpec {
    fn default() -> Self {
        Written::default().into()
    }
}

/// A cache policy as it is written: what the default of a key depends on is known when all are read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Written {
    ttl: WrittenTtl,
    negative_ttl: BTreeMap<String, Dur>,
    stale: StaleSpec,
    key: KeySpec,
    profile: Profile,
    targeted: Vec<String>,
    surrogate_control: Option<bool>,
    heuristic: Option<bool>,
    vary: VarySpec,
    no_vary_search: bool,
    tags: Vec<String>,
    ranges: Ranges,
    compress: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenTtl {
    default: Option<Dur>,
    min: Option<Dur>,
    max: Option<Dur>,
    jitter: f64,
}

impl Default for Written {
    fn default() -> Self {
        Self {
            ttl: WrittenTtl::default(),
            negative_ttl: BTreeMap::from([("404".to_owned(), Dur::secs(10))]),
            stale: StaleSpec::default(),
            key: KeySpec::default(),
            profile: Profile::Safe,
            targeted: vec!["CDN-Cache-Control".to_owned()],
            surrogate_control: None,
            heuristic: None,
            vary: VarySpec::default(),
            no_vary_search: false,
            tags: ["Cache-Tag", "Surrogate-Key", "Cache-Groups"].map(str::to_owned).to_vec(),
            ranges: Ranges::Segments,
            compress: Vec::new(),
        }
    }
}

impl From<Written> for CacheSpec {
    fn from(written: Written) -> Self {
        let letter = written.profile == Profile::Rfc;
        let min = written.ttl.min.unwrap_or(Dur::ZERO);
        Self {
            ttl: CacheTtlSpec {
                // By the letter, a response without a word on its lifetime and without Last-Modified has nothing that a
                // lifetime could be estimated from (RFC 9111 §4.2.2).
                default: written.ttl.default.unwrap_or(if letter { min } else { Dur::secs(600) }),
                min,
                max: written.ttl.max.unwrap_or(Dur::secs(30 * 86_400)),
                jitter: written.ttl.jitter,
            },
            negative_ttl: written.negative_ttl,
            stale: written.stale,
            key: written.key,
            profile: written.profile,
            targeted: written.targeted,
            surrogate_control: written.surrogate_control.unwrap_or(letter),
            heuristic: written.heuristic.unwrap_or(letter),
            vary: written.vary,
            no_vary_search: written.no_vary_search,
            tags: written.tags,
            ranges: written.ranges,
            compress: written.compress,
        }
    }
}

/// `vary` of a cache policy.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VarySpec {
    /// Variants of one URL at most; the oldest makes room.
    pub max: u32,
    /// Languages that there are, the best first: Accept-Language counts as the one of these that it prefers. Empty: it
    /// counts by the letter.
    pub languages: Vec<String>,
}

impl Default for VarySpec {
    fn default() -> Self {
        Self { max: 32, languages: Vec::new() }
    }
}

/// What is fetched for a range that is not stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ranges {
    /// The aligned segments that hold it.
    #[default]
    Segments,
    /// The whole object.
    Whole,
}

/// `ttl` of a cache policy.
#[derive(Clone, Debug, PartialEq)]
pub struct CacheTtlSpec {
    /// Where the origin gives none. By default 10 minutes, in [`Profile::Rfc`] no longer than `min`.
    pub default: Dur,
    /// What the origin gives is raised to this.
    pub min: Dur,
    /// What the origin gives is lowered to this.
    pub max: Dur,
    /// Lifetimes are shortened by a share of up to this, 0 to 0.5, drawn by key and node, so that what was fetched together
    /// does not expire together.
    pub jitter: f64,
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
    /// Whether the origin's own stale-while-revalidate and stale-if-error count beside s-maxage, which forbids them by
    /// RFC 9111 §5.2.2.10; many origins write both.
    pub beside_s_maxage: bool,
}

impl Default for StaleSpec {
    fn default() -> Self {
        Self {
            while_revalidate: Dur::ZERO,
            if_error: Dur::secs(86_400),
            after_wait: Dur::secs(1),
            beside_s_maxage: false,
        }
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
