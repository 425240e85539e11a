//! Requests that the store has no part in: passed on, and their responses passed back, both as they come.

use std::sync::Arc;

use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::Body;

use super::ask::{Expects, Outgoing};
use super::body::ResponseBody;
use super::fenced::fetch_current;
use super::fetch::{Fetched, Wanted};
use super::purge::invalidate;
use super::request_body::RequestBody;
use super::respond::{self, Marks};
use super::serve::Context;
use super::telemetry::Exchange;
use crate::key::{CacheKey, normalise_query};
use crate::lookup::invalidates;
use crate::purge::{Target, tags};
use crate::semantics::freshness::Exchange as Judged;
use crate::semantics::headers::{add_range_and_conditions, strip_hop_by_hop};
use crate::semantics::invalidation::also_invalidated;
use crate::semantics::vary::normalised_accept_encoding;
use crate::semantics::{Policy, Profile, Reason, StoredHead};

impl Context<'_> {
    /// Passes the request on and the response back; the store has no part in it.
    pub(super) async fn pass(
        &self,
        mut exchange: Box<Exchange>,
        reason: Reason,
        body: RequestBody,
    ) -> Response<ResponseBody> {
        exchange.reason = reason;
        let node = self.node();
        let policy = self.route.value.policy.as_ref();
        let query = match policy {
            Some(policy) => {
                normalise_query(self.query.as_deref(), &policy.key).map(|query| query.into())
            }
            None => self.query.clone(),
        };
        let key = policy.map(|policy| {
            let query = query.as_deref();
            CacheKey::new(
                self.scheme,
                &self.authority,
                &self.path,
                query,
                &self.request.headers,
                &policy.key,
            )
        });
        let interim = self.early.sink();
        let wanted = Wanted {
            method: self.request.method.clone(),
            scheme: self.scheme,
            authority: self.authority.clone(),
            path: self.path.clone(),
            query,
            headers: self.passed_headers(reason),
            key: key.as_ref().map_or(0, CacheKey::hash),
            interim: interim.clone(),
            upgrade: None,
            client: Some(self.client),
            fence: self.since().fence,
            floor: key.as_ref().map_or(self.needed, |key| self.floor(key, &[])),
        };
        let expects = match &self.route.value.origin {
            Some(origin) if self.expects => Expects::Continue(origin.timeouts.first_byte),
            _ => Expects::Nothing,
        };
        let body = match self.has_content {
            true => Outgoing::stream(body, expects),
            false => Outgoing::Empty,
        };
        // A route that does not cache gains nothing from a second tier. One that caches must tell it of unsafe methods.
        let tier = self.tier().filter(|_| policy.is_some());
        let tags = policy.map_or(&[][..], |policy| &policy.tags);
        let asked = fetch_current(node, self.route, tier.as_deref(), &wanted, tags, body);
        let fetched = match self.early.relay(interim.as_deref(), asked).await {
            Ok(fetched) => fetched,
            Err(error) => {
                tracing::debug!(%error, "a request could not be passed on");
                exchange.upstream = Some(Arc::clone(&error.upstream));
                let response = respond::error(
                    exchange,
                    &node.name,
                    error.reason,
                    Some(&error.upstream),
                    reason.fwd(),
                );
                return self.headless(response);
            }
        };
        if invalidates(&self.request.method, fetched.response.status()) {
            self.invalidate(key.as_ref(), fetched.response.headers()).await;
        } else if let (Some(key), Some(policy)) = (&key, policy)
            && reason == Reason::KnownUncacheable
            && self.is_storable(policy, &fetched)
        {
            node.store.unmark_uncacheable(key);
        }
        if let (Some(key), Some(policy)) = (&key, policy) {
            self.update_by_head(policy, key, &wanted.origin(), &fetched).await;
        }
        self.answer_from_upstream(exchange, fetched, reason)
    }

    /// Fields for the next server. What is passed only because nothing could be stored a moment ago looks to the origin as
    /// it did then, or a client would be somebody in one answer and nobody in the next; its range and conditions are its own.
    fn passed_headers(&self, reason: Reason) -> HeaderMap {
        let policy = self.route.value.policy.as_deref();
        let policy = policy.filter(|policy| policy.profile == Profile::Safe);
        let Some(policy) = policy.filter(|_| reason == Reason::KnownUncacheable) else {
            return self.headers(None, &[]);
        };
        let mut headers = self.headers(Some(policy), &[]);
        add_range_and_conditions(&mut headers, &self.request.headers);
        // What is for one client alone may be encoded for it.
        if let Some(codings) = normalised_accept_encoding(&self.request.headers) {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(codings));
        }
        headers
    }

    /// What an unsafe method has changed is answered neither from the store nor from a fetch that began before (RFC 9111 §4.4):
    /// the target with all its keys and variants, other targets of the same origin that the response names, and the groups
    /// (RFC 9875 §3).
    async fn invalidate(&self, key: Option<&CacheKey>, response: &HeaderMap) {
        let mut targets: Vec<Target> =
            key.iter().map(|key| Target::Url(key.url().into())).collect();
        for target in also_invalidated(self.scheme, &self.authority, &self.path, response) {
            let (path, query) = match target.split_once('?') {
                Some((path, query)) => (path, Some(query)),
                None => (target.as_str(), None),
            };
            let route = self.site.routes.find(path);
            let Some(policy) = route.and_then(|route| route.value.policy.as_ref()) else {
                continue;
            };
            let query = normalise_query(query, &policy.key);
            let none = HeaderMap::new();
            let key = CacheKey::new(
                self.scheme,
                &self.authority,
                path,
                query.as_deref(),
                &none,
                &policy.key,
            );
            targets.push(Target::Url(key.url().into()));
        }
        let origin = format!("{}://{}", self.scheme, self.authority);
        for name in tags::invalidated_groups(response) {
            targets.push(Target::Group { origin: origin.as_str().into(), name: name.into() });
        }
        invalidate(self.node(), &targets).await;
    }

    /// Whether a response that was not stored, because one before it could not be, could have been.
    fn is_storable(&self, policy: &Policy, fetched: &Fetched) -> bool {
        let exchange = Judged {
            method: &self.request.method,
            path: &self.path,
            request: &self.request.headers,
            status: fetched.response.status(),
            response: fetched.response.headers(),
            request_time: fetched.request_time,
            response_time: fetched.response_time,
        };
        let fits = fetched
            .response
            .body()
            .size_hint()
            .exact()
            .is_none_or(|length| length <= self.node().store.memory().max_object());
        fits && fetched.response.status() == StatusCode::OK
            && StoredHead::new(&exchange, policy).is_ok()
    }

    /// A response for this client alone, as it comes.
    pub(super) fn answer_from_upstream(
        &self,
        mut exchange: Box<Exchange>,
        fetched: Fetched,
        reason: Reason,
    ) -> Response<ResponseBody> {
        exchange.upstream = Some(fetched.upstream);
        let (mut parts, body) = fetched.response.into_parts();
        strip_hop_by_hop(&mut parts.headers);
        let body = ResponseBody::upstream(body);
        let mut response = respond::response(parts.status, parts.headers, body);
        self.between_tiers(&mut response, fetched.fence, &HeaderMap::new());
        let marks = Marks { fwd: reason.fwd(), ..Marks::default() };
        self.headless(respond::finish(exchange, &self.node().name, response, &marks))
    }
}
