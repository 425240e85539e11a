//! What a node would do with a request, found by the same functions that serve it, and done by none of them.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use shared::io::clock;

use super::fetch;
use super::node::Node;
use super::serve::stored;
use crate::admit::{self, Head, Reject};
use crate::key::{CacheKey, host_of, normalise_query};
use crate::lookup::{Decision, RequestView, bypass, decide};
use crate::purge::Floor;
use crate::rules::{Asked, Explanation};
use crate::semantics::{Reason, language};
use crate::store::Object;

/// What would be done with a GET for a URL now, without doing it: for `explain`.
pub struct Explained {
    /// The key.
    pub key: CacheKey,
    /// What is stored under it.
    pub stored: Vec<Arc<Object>>,
    /// What would be done.
    pub decision: Decision,
    /// The site.
    pub site: Arc<str>,
    /// The origin; none where there is a redirect only.
    pub origin: Option<Arc<str>>,
    /// What the route's rules say, in their order, and the answer if one of them has it.
    pub steps: Vec<Explanation>,
    /// That answer.
    pub answer: Option<(StatusCode, Reason)>,
    /// Whether the route caches.
    pub cached: bool,
    /// The last purges of the URL, a prefix of it, its host, or of everything.
    pub purged: Floor,
    /// The fields that tags are in.
    pub tag_fields: Vec<HeaderName>,
    /// The parents that would be asked, in order.
    pub parents: Vec<Arc<str>>,
}

/// Explains a GET of `url` with these fields, from this client.
///
/// # Errors
/// Why such a request would be refused.
pub fn explain(
    node: &Node,
    url: &str,
    headers: &HeaderMap,
    client: Option<IpAddr>,
) -> Result<Explained, Reject> {
    let snapshot = node.snapshot.load();
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
    let head = Head {
        method: &Method::GET,
        uri: &uri,
        version: Version::HTTP_11,
        headers: &headers,
        scheme,
    };
    let admitted = admit::admit(&head, true)?;
    let misdirected = Reject {
        status: StatusCode::MISDIRECTED_REQUEST,
        reason: Reason::HostUnknown,
        close: false,
    };
    let site = snapshot.sites.find(host_of(&admitted.authority)).ok_or(misdirected)?;
    let no_route = Reject { status: StatusCode::NOT_FOUND, reason: Reason::NoRoute, close: false };
    let route = site.routes.find(&admitted.path).ok_or(no_route)?;
    let policy = route.value.policy.as_deref();
    let languages = policy.map_or(&[][..], |policy| &policy.vary.languages);
    let headers = language::replaced(&headers, languages).unwrap_or_else(|| headers.clone());
    let route_rules = &route.value.rules;
    let asked = Asked {
        method: &Method::GET,
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
    let mut key = CacheKey::new(
        scheme,
        &admitted.authority,
        &admitted.path,
        query.as_deref(),
        &headers,
        &rules,
    );
    let view = RequestView { method: &Method::GET, headers: &headers, has_content: false };
    let other = match policy.is_some_and(|policy| policy.no_vary_search) {
        true => node.store.equivalent(&key, &headers, Floor::default()),
        false => None,
    };
    key = other.unwrap_or(key);
    let found = node.store.lookup(&key, &headers, Floor::default());
    let decision = match bypass(&view, policy) {
        Some(reason) => Decision::Pass { reason },
        None => {
            decide(&view, stored(&found, &node.store, Floor::default()), policy, clock::steady())
        }
    };
    if answer.is_none() {
        let cache = Explanation { step: "cache", result: decision.reason().to_string() };
        let path = route.target_path(&admitted.path);
        let path =
            path.map_or_else(|reason| reason.to_string(), |path| format!("asked for {path}"));
        let fields = &route_rules.request_fields;
        let fields = if fields.is_empty() { String::new() } else { format!(", {fields}") };
        let origin = Explanation { step: "origin", result: path + &fields };
        steps.extend([cache, origin]);
    }
    steps.push(route_rules.explain_response());
    let tier = site.tier.as_deref().filter(|_| policy.is_some());
    let parents = tier.map(|tier| fetch::parents(tier, key.hash())).unwrap_or_default();
    Ok(Explained {
        stored: node.store.all(&key),
        purged: node.store.fences().of_key(&key),
        tag_fields: policy.map(|policy| policy.tags.clone()).unwrap_or_default(),
        key,
        decision,
        site: Arc::clone(&site.name),
        origin: route.value.origin.as_ref().map(|origin| Arc::clone(&origin.upstream.name)),
        steps,
        answer: answer.map(|answer| (answer.status, answer.reason)),
        cached: policy.is_some(),
        parents: parents.iter().map(|parent| Arc::clone(&parent.name)).collect(),
    })
}
