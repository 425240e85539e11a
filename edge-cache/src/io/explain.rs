//! What a node would do with a request, found by the same functions that serve it, and done by none of them.

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
    /// The origin.
    pub origin: Arc<str>,
    /// Whether the route caches.
    pub cached: bool,
    /// The last purges of the URL, a prefix of it, its host, or of everything.
    pub purged: Floor,
    /// The fields that tags are in.
    pub tag_fields: Vec<HeaderName>,
    /// The parents that would be asked, in order.
    pub parents: Vec<Arc<str>>,
}

/// Explains a GET of `url` with these fields.
///
/// # Errors
/// Why such a request would be refused.
pub fn explain(node: &Node, url: &str, headers: &HeaderMap) -> Result<Explained, Reject> {
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
    let rules = policy.map(|policy| policy.key.clone()).unwrap_or_default();
    let query = normalise_query(admitted.query, &rules);
    let key = CacheKey::new(
        scheme,
        &admitted.authority,
        &admitted.path,
        query.as_deref(),
        &headers,
        &rules,
    );
    let view = RequestView { method: &Method::GET, headers: &headers, has_content: false };
    let found = node.store.lookup(&key, &headers, Floor::default());
    let decision = match bypass(&view, policy) {
        Some(reason) => Decision::Pass { reason },
        None => {
            decide(&view, stored(&found, &node.store, Floor::default()), policy, clock::steady())
        }
    };
    let tier = site.tier.as_deref().filter(|_| policy.is_some());
    let parents = tier.map(|tier| fetch::parents(tier, key.hash())).unwrap_or_default();
    Ok(Explained {
        stored: node.store.all(&key),
        purged: node.store.fences().of_key(&key),
        tag_fields: policy.map(|policy| policy.tags.clone()).unwrap_or_default(),
        key,
        decision,
        site: Arc::clone(&site.name),
        origin: Arc::clone(&route.value.origin.upstream.name),
        cached: policy.is_some(),
        parents: parents.iter().map(|parent| Arc::clone(&parent.name)).collect(),
    })
}
