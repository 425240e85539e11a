//! What a node would do with a request, found by the same functions that serve it, and done by none of them.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use shared::io::clock;
use shared::time::UnixMillis;

use super::bring::{Brought, Keep, bring, equivalent};
use super::fetch;
use super::node::Node;
use super::serve::stored;
use super::telemetry::Held;
use crate::admit::{self, Content, Head, Reject};
use crate::key::{CacheKey, host_of, normalise_query};
use crate::lookup::{Decision, RequestView, bypass, decide};
use crate::purge::{Floor, tags};
use crate::rules::{Asked, Explanation};
use crate::semantics::conditional::{Verdict, evaluate, if_range_holds};
use crate::semantics::freshness::Source;
use crate::semantics::range::{self, Resolved};
use crate::semantics::vary::Vary;
use crate::semantics::{Policy, Profile, Reason, language};
use crate::store::{Below, Found, Object};

/// What would be done with a request now, without doing it: for `explain`.
pub struct Explained {
    /// The request's method.
    pub method: Method,
    /// The key.
    pub key: CacheKey,
    /// What is stored under it.
    pub stored: Vec<Seen>,
    /// Which of that the request selects.
    pub selected: Option<Arc<Object>>,
    /// What would be done.
    pub decision: Decision,
    /// The bytes that the answer begins with are not among those stored.
    pub partial: bool,
    /// The site.
    pub site: Arc<str>,
    /// The route's path pattern.
    pub route: Box<str>,
    /// The origin; none where there is a redirect only.
    pub origin: Option<Arc<str>>,
    /// What the route's rules say, in their order, and the answer if one of them has it.
    pub steps: Vec<Explanation>,
    /// That answer.
    pub answer: Option<(StatusCode, Reason)>,
    /// The route's policy, where it caches.
    pub policy: Option<Arc<Policy>>,
    /// The last purges of the URL, a prefix of it, its host, or of everything.
    pub purged: Floor,
    /// The fields that tags are in.
    pub tag_fields: Vec<HeaderName>,
    /// The parents that would be asked, in order.
    pub parents: Vec<Arc<str>>,
}

/// A stored object, and where it lies.
pub struct Seen {
    /// The object.
    pub object: Arc<Object>,
    /// Its head, and a body that lies with it.
    pub tiers: Vec<Held>,
    /// Segments of its body in memory, and on disk.
    pub segments: Option<(u64, u64)>,
}

impl Seen {
    fn new(node: &Node, object: Arc<Object>) -> Self {
        let (place, mut tiers) = (object.place(), Vec::new());
        if node.store.memory().contains(place) {
            tiers.push(Held::Memory);
        }
        if node.under.as_ref().is_some_and(|under| under.contains(place)) {
            tiers.push(Held::Disk);
        }
        let segments = object.version().map(|version| version.counts());
        Self { object, tiers, segments }
    }
}

/// Explains a request for `url` with these fields, from this client.
///
/// # Errors
/// Why such a request would be refused.
pub async fn explain(
    node: &Node,
    method: &Method,
    url: &str,
    headers: &HeaderMap,
    client: Option<IpAddr>,
) -> Result<Explained, Reject> {
    let snapshot = node.snapshot.load_full();
    let invalid =
        Reject { status: StatusCode::BAD_REQUEST, reason: Reason::TargetInvalid, close: false };
    let uri: http::Uri = url.parse().map_err(|_| invalid)?;
    let scheme = match uri.scheme_str() {
        Some("https") => "https",
        Some("http") => "http",
        _ => return Err(invalid),
    };
    let mut headers = headers.clone();
    let authority = uri.authority().ok_or(invalid)?;
    let host = HeaderValue::from_str(authority.as_str()).map_err(|_| invalid)?;
    headers.insert(http::header::HOST, host);
    let head = Head { method, uri: &uri, version: Version::HTTP_11, headers: &headers, scheme };
    let admitted = admit::admit(&head, true)?;
    let misdirected = Reject {
        status: StatusCode::MISDIRECTED_REQUEST,
        reason: Reason::HostUnknown,
        close: false,
    };
    let site = snapshot.sites.find(host_of(&admitted.authority)).ok_or(misdirected)?;
    let no_route = Reject { status: StatusCode::NOT_FOUND, reason: Reason::NoRoute, close: false };
    let route = site.routes.find(&admitted.path).ok_or(no_route)?;
    if site.routes.evades(&admitted.path, route, |target| target.rules.is_guarded()) {
        return Err(invalid);
    }
    let policy = route.value.policy.as_deref();
    let languages = policy.map_or(&[][..], |policy| &policy.vary.languages);
    let headers = language::replaced(&headers, languages).unwrap_or_else(|| headers.clone());
    let route_rules = &route.value.rules;
    let asked = Asked {
        method,
        headers: &headers,
        scheme,
        authority: &admitted.authority,
        path: &admitted.path,
        rest: route.pattern.rest(&admitted.path),
        query: admitted.query,
        client,
    };
    let (mut steps, answer) = route_rules.explain(&asked, clock::now().secs());
    let onward = route_rules.onward(&asked);
    let sent = onward.query.unwrap_or_else(|| admitted.query.map(Cow::Borrowed));
    let headers = onward.headers.unwrap_or_else(|| headers.clone());
    let rules = policy.map(|policy| policy.key.clone()).unwrap_or_default();
    let query = normalise_query(sent.as_deref(), &rules);
    let key = CacheKey::new(
        scheme,
        &admitted.authority,
        &admitted.path,
        query.as_deref(),
        &headers,
        &rules,
    );
    let has_content = admitted.content != Content::None;
    let view = RequestView { method, headers: &headers, has_content };
    let passed = bypass(&view, policy);
    // No-Vary-Search: the key of a stored response to which the queries are the same.
    let key = match policy.filter(|policy| policy.no_vary_search && passed.is_none()) {
        Some(_) => equivalent(node, &key, &headers, Floor::default(), Keep::Nothing).await,
        None => None,
    }
    .unwrap_or(key);
    let mut brought = Brought::default();
    bring(node, &key, &headers, Keep::Nothing, &mut brought).await;
    let found = node.store.lookup_with(&key, &headers, Floor::default(), brought.objects());
    let decision = match passed {
        Some(reason) => Decision::Pass { reason },
        None => {
            decide(&view, stored(&found, &node.store, Floor::default()), policy, clock::steady())
        }
    };
    let selected = match found {
        Found::Object(object) => Some(object),
        _ => None,
    };
    let partial = matches!(decision, Decision::Hit { .. } | Decision::Stale { .. })
        && selected.as_ref().is_some_and(|object| is_missing(node, &view, object));
    let reason = if partial { Reason::PartialMiss } else { decision.reason() };
    if answer.is_none() {
        let cache = Explanation { step: "cache", result: reason.to_string() };
        let path = route.target_path(&admitted.path);
        let path =
            path.map_or_else(|reason| reason.to_string(), |path| format!("if asked, for {path}"));
        let fields = &route_rules.request_fields;
        let fields = if fields.is_empty() { String::new() } else { format!(", {fields}") };
        let origin = Explanation { step: "origin", result: path + &fields };
        steps.extend([cache, origin]);
    }
    steps.push(route_rules.explain_response());
    let tier = site.tier.as_deref().filter(|_| policy.is_some());
    let parents = tier.map(|tier| fetch::parents(tier, key.hash())).unwrap_or_default();
    Ok(Explained {
        method: method.clone(),
        stored: node
            .store
            .all_with(&key, brought.objects())
            .into_iter()
            .map(|object| Seen::new(node, object))
            .collect(),
        selected,
        purged: node.store.fences().of_key(&key),
        tag_fields: policy.map(|policy| policy.tags.clone()).unwrap_or_default(),
        key,
        decision,
        partial,
        site: Arc::clone(&site.name),
        route: route.pattern.to_string().into(),
        origin: route.value.origin.as_ref().map(|origin| Arc::clone(&origin.upstream.name)),
        steps,
        answer: answer.map(|answer| (answer.status, answer.reason)),
        policy: route.value.policy.clone(),
        parents: parents.iter().map(|parent| Arc::clone(&parent.name)).collect(),
    })
}

/// Whether the first byte that the request needs lies in a segment that is not stored.
fn is_missing(node: &Node, view: &RequestView<'_>, object: &Object) -> bool {
    let (headers, stored) = (view.headers, &object.fields());
    let Some(version) = object.version().filter(|_| !node.store.is_whole(object)) else {
        return false;
    };
    if *view.method != Method::GET
        || evaluate(view.method, headers, object.status(), stored) != Verdict::Proceed
    {
        return false;
    }
    let resolved = range::parse(headers)
        .filter(|_| if_range_holds(headers, stored))
        .map_or(Resolved::Full, |specs| range::resolve(&specs, object.length()));
    let first = match resolved {
        Resolved::Full => 0,
        Resolved::Single(part) => part.start,
        Resolved::Multiple(parts) => parts.first().map_or(0, |part| part.start),
        Resolved::Unsatisfiable => return false,
    };
    let index = node.store.layout().index(first);
    !version.has(index)
        && !node.under.as_ref().is_some_and(|under| under.has_segment(version, index))
}

impl Explained {
    /// The reason that the response would carry.
    pub const fn reason(&self) -> Reason {
        match self.answer {
            Some((_, reason)) => reason,
            None if self.partial => Reason::PartialMiss,
            None => self.decision.reason(),
        }
    }

    /// All of it, for `GET /v1/explain`.
    pub fn json(&self) -> serde_json::Value {
        let now = clock::steady();
        let alone = matches!(
            self.decision,
            Decision::Hit { .. }
                | Decision::Stale { revalidate: false, .. }
                | Decision::GatewayTimeout { .. }
        );
        let next = match (self.parents.first(), &self.origin) {
            _ if self.answer.is_some() || (alone && !self.partial) => None,
            (Some(parent), _) => Some(format!("parent:{parent}")),
            (None, origin) => origin.as_ref().map(|origin| format!("origin:{origin}")),
        };
        let decision = match self.answer {
            // A rule of the route comes before the cache.
            Some((status, _)) => format!("answer {}", status.as_u16()),
            None if self.partial => "fetch what is missing, then answer".to_owned(),
            None => action(&self.decision).to_owned(),
        };
        let steps = self.steps.iter();
        let steps =
            steps.map(|step| serde_json::json!({ "step": step.step, "result": step.result }));
        let list = |all: &[Arc<str>]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        serde_json::json!({
            "method": self.method.as_str(),
            "site": &*self.site,
            "route": &*self.route,
            "cached_route": self.policy.is_some(),
            "policy": self.policy.as_deref().map(policy),
            "key": self.key.text(),
            "decision": decision,
            "reason": self.reason().code(),
            "fallback": fallback(&self.decision, now),
            "next": next,
            "parents": list(&self.parents),
            "origin": self.origin.as_deref(),
            "steps": steps.collect::<Vec<_>>(),
            "stored": self.objects(),
        })
    }

    /// What is stored, newest knowledge first.
    pub fn objects(&self) -> Vec<serde_json::Value> {
        let now = clock::steady();
        self.stored.iter().map(|stored| self.object(stored, now)).collect()
    }

    fn object(&self, seen: &Seen, now: UnixMillis) -> serde_json::Value {
        let object = &seen.object;
        let head = &object.head();
        let headers: Vec<(&str, String)> = head
            .headers
            .iter()
            .map(|(name, value)| {
                (name.as_str(), String::from_utf8_lossy(value.as_bytes()).into_owned())
            })
            .collect();
        let lifetimes = &head.lifetimes;
        serde_json::json!({
            "selected": self.selected.as_ref().is_some_and(|selected| Arc::ptr_eq(selected, object)),
            "status": head.status.as_u16(),
            "length": object.length(),
            "weight": object.weight(),
            "tiers": seen.tiers.iter().map(|tier| tier.label()).collect::<Vec<_>>(),
            "segments": object.version().map(|version| version.stored()),
            "segments_in_memory": seen.segments.map(|(memory, _)| memory),
            "segments_on_disk": seen.segments.map(|(_, disk)| disk),
            "age": head.current_age(now).as_secs(),
            "age_on_arrival": head.initial_age.as_secs(),
            "ttl": head.remaining_millis(now).div_euclid(1000),
            "lifetime": lifetimes.fresh.as_secs(),
            "lifetime_from": source(lifetimes.source),
            "no_cache": lifetimes.no_cache,
            "must_revalidate": lifetimes.must_revalidate,
            "stale_while_revalidate": lifetimes.while_revalidate.as_secs(),
            "stale_if_error": lifetimes.if_error.as_secs(),
            "stale_after_wait_ms": lifetimes.after_wait.map(|wait| wait.as_millis() as u64),
            "vary": match &head.vary {
                Vary::Fields(names) => names.iter().map(|name| name.as_str().to_owned()).collect(),
                Vary::Star => vec!["*".to_owned()],
            },
            "headers": headers,
            "fence": head.fence.0,
            "tags": tags::listed(&head.headers, &self.tag_fields),
        })
    }
}

const fn action(decision: &Decision) -> &'static str {
    match decision {
        Decision::Hit { .. } => "answer from the store",
        Decision::Stale { revalidate: true, .. } => "answer from the store, and revalidate behind",
        Decision::Stale { .. } => "answer from the store, stale",
        Decision::Revalidate { .. } => "revalidate, then answer",
        Decision::Miss { .. } => "fetch, then answer",
        Decision::Pass { .. } => "pass on",
        Decision::GatewayTimeout { .. } => "answer 504",
    }
}

/// How much longer the stored response may answer should the next server fail, and after which wait.
fn fallback(decision: &Decision, now: UnixMillis) -> Option<serde_json::Value> {
    let Decision::Revalidate { fallback: Some(fallback), .. } = decision else { return None };
    Some(serde_json::json!({
        "seconds": fallback.until.since(now).as_secs(),
        "after_wait_ms": fallback.after_wait.map(|wait| wait.as_millis() as u64),
    }))
}

fn policy(policy: &Policy) -> serde_json::Value {
    serde_json::json!({
        "profile": match policy.profile {
            Profile::Safe => "safe",
            Profile::Rfc => "rfc",
        },
        "ttl_default": policy.ttl.default.as_secs(),
        "ttl_min": policy.ttl.min.as_secs(),
        "ttl_max": policy.ttl.max.as_secs(),
        "stale_while_revalidate": policy.stale.while_revalidate.as_secs(),
        "stale_if_error": policy.stale.if_error.as_secs(),
    })
}

/// As the words stand in responses and policies.
const fn source(source: Source) -> &'static str {
    match source {
        Source::Targeted => "targeted field",
        Source::Surrogate => "Surrogate-Control",
        Source::SMaxage => "s-maxage",
        Source::MaxAge => "max-age",
        Source::Expires => "Expires",
        Source::NegativeTtl => "negative_ttl",
        Source::Heuristic => "a tenth of the time since Last-Modified",
        Source::Default => "ttl.default",
    }
}
