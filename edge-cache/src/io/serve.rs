//! The life of a request: admitted, routed, answered from the store, from a fill, or passed on.
//!
//! What is decided, [`crate::lookup::decide`] decides; here it is done.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::server::SendResponse;
use http::header::{HeaderName, TE, UPGRADE, VIA};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::upgrade::OnUpgrade;
use shared::io::clock;

use super::body::ResponseBody;
use super::bring::{Brought, Keep, bring};
use super::fetch::Wanted;
use super::fill_task::{Job, Joined, Since};
use super::gate;
use super::interim::Early;
use super::join::{Asking, Filled, Target};
use super::node::{Node, RouteTarget, SiteState, Snapshot, Tier};
use super::part::{Slot, Wanting};
use super::purge::PURGE;
use super::request_body::RequestBody;
use super::respond::{self, Asked, Marks};
use super::telemetry::{Exchange, Held, Peer};
use super::tunnel::{self, Offer};
use crate::admit::{self, Admitted, Head, Reject, decrement_max_forwards};
use crate::key::{CacheKey, host_of, normalise_query};
use crate::lookup::{Decision, RequestView, Stored, bypass, collapsible, decide};
use crate::purge::{FENCE, Floor, Position, Verdict, fence_field, tags};
use crate::route::Route;
use crate::segment::plan::Ask;
use crate::semantics::headers::{
    append_cdn_loop, append_via, cdn_loop_count, for_origin, takes_trailers, unsent,
    without_credentials,
};
use crate::semantics::vary::VariantKey;
use crate::semantics::{Lines, Policy, Profile, Reason};
use crate::store::{Found, Object, Store};

const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Where the listeners tell whether the node wants clients.
const HEALTH: &str = "/.meridian/health";
/// A request that came through this CDN so often already goes round in circles: edge and parent are two.
const MAX_PASSES: usize = 2;
/// How often a request looks again, because what it waited for was not for it.
const MAX_ROUNDS: usize = 4;

/// A client's connection, as its requests see it.
pub struct Connection {
    /// The node.
    pub node: Arc<Node>,
    /// The client.
    pub peer: Arc<Peer>,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// What its gate found.
    pub gate: Arc<gate::Shared>,
}

/// A request that has found its route.
pub(super) struct Context<'a> {
    pub(super) connection: &'a Connection,
    pub(super) snapshot: &'a Snapshot,
    pub(super) site: &'a Arc<SiteState>,
    pub(super) route: &'a Route<RouteTarget>,
    pub(super) request: &'a http::request::Parts,
    pub(super) scheme: &'static str,
    pub(super) authority: Box<str>,
    pub(super) path: Box<str>,
    pub(super) query: Option<Box<str>>,
    pub(super) has_content: bool,
    /// The client waits for 100 (Continue).
    pub(super) expects: bool,
    /// The way to the client for what comes before its response.
    pub(super) early: Early<'a>,
    /// Not the first node of this CDN to see it.
    pub(super) is_inner: bool,
    /// What an answer must not be below, by the word of the node that asks.
    pub(super) needed: Floor,
    pub(super) client: std::net::IpAddr,
}

/// Answers a request: what goes wrong is a response, too. `stream`: the one that it came on, over HTTP/2.
///
/// What a hit does not come to is boxed on the way: every request moves a future that has room for the largest of its parts.
pub async fn handle(
    connection: Arc<Connection>,
    mut request: Request<RequestBody>,
    stream: Option<&Mutex<SendResponse<Bytes>>>,
) -> Response<ResponseBody> {
    let node = &connection.node;
    let snapshot = node.snapshot.load_full();
    let http1 = request.version() < Version::HTTP_2;
    let verdict = if http1 { connection.gate.verdict() } else { Ok(()) };
    let busy = connection.gate.begin();
    let exchange = Exchange::new(node, snapshot.log.clone(), &connection.peer, &request, busy);
    let early = match (stream, request.version()) {
        (Some(stream), _) => Early::Http2(stream),
        (None, Version::HTTP_11) => Early::Http1(&connection.gate),
        (None, _) => Early::None,
    };
    let client = request.headers().contains_key(UPGRADE).then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let head = Head {
        method: &parts.method,
        uri: &parts.uri,
        version: parts.version,
        headers: &parts.headers,
        scheme: connection.scheme,
    };
    let admitted = verdict.and_then(|()| admit::admit(&head, body.is_end_stream()));
    match admitted {
        Ok(admitted) if admitted.path == HEALTH => health(node, exchange, &parts.method),
        Ok(_) if node.limit.is_full() => {
            let (status, reason) = (StatusCode::SERVICE_UNAVAILABLE, Reason::Overload);
            respond::refuse(exchange, &node.name, Reject { status, reason, close: true }, http1)
        }
        Ok(admitted) => {
            let client = client.filter(|_| admitted.upgrade);
            match route(&connection, &snapshot, &parts, admitted, early, exchange) {
                Ok((context, exchange)) if parts.method.as_str() == PURGE => {
                    Box::pin(context.purge(exchange, http1)).await
                }
                Ok((mut context, exchange)) => {
                    let replaced = context.in_one_language();
                    if let Some(parts) = &replaced {
                        context.request = parts;
                    }
                    context.by_rules(exchange, body, client).await
                }
                Err(response) => *response,
            }
        }
        Err(reject) => {
            // What is refused here is broken or hostile: nothing more is taken from that connection.
            let close = reject.close || reject.status.is_client_error();
            respond::refuse(exchange, &node.name, Reject { close, ..reject }, http1)
        }
    }
}

/// Whether the node wants clients. Checks are not counted among the requests.
fn health(node: &Node, exchange: Box<Exchange>, method: &Method) -> Response<ResponseBody> {
    exchange.forget();
    let mut response = match (method, node.is_draining()) {
        (&Method::GET | &Method::HEAD, false) => respond::text(StatusCode::OK, "serving"),
        (&Method::GET | &Method::HEAD, true) => {
            respond::text(StatusCode::SERVICE_UNAVAILABLE, "draining")
        }
        _ => respond::text(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD"),
    };
    if method == Method::HEAD {
        response = response.map(ResponseBody::without_content);
    }
    response
}

type Routed<'a> = Result<(Context<'a>, Box<Exchange>), Box<Response<ResponseBody>>>;

/// Finds site and route.
fn route<'a>(
    connection: &'a Connection,
    snapshot: &'a Snapshot,
    parts: &'a http::request::Parts,
    admitted: Admitted<'_>,
    early: Early<'a>,
    mut exchange: Box<Exchange>,
) -> Routed<'a> {
    let name = &connection.node.name;
    let http1 = parts.version < Version::HTTP_2;
    let reject = |exchange, status, reason| {
        // Whoever asks for hosts that are not here gets no second try on the connection.
        let close = reason == Reason::HostUnknown;
        let reject = Reject { status, reason, close };
        Err(Box::new(respond::refuse(exchange, name, reject, http1)))
    };
    exchange.host = admitted.authority.as_ref().into();
    let passes = cdn_loop_count(&parts.headers, &snapshot.plan.cluster);
    if passes >= MAX_PASSES {
        return reject(exchange, StatusCode::LOOP_DETECTED, Reason::Loop);
    }
    let Some(site) = snapshot.sites.find(host_of(&admitted.authority)) else {
        return reject(exchange, StatusCode::MISDIRECTED_REQUEST, Reason::HostUnknown);
    };
    exchange.site = Some((Arc::clone(&site.name), site.counters.clone()));
    if let Some(sni) = &connection.peer.sni
        && !snapshot.sites.find(sni).is_some_and(|named| Arc::ptr_eq(named, site))
    {
        return reject(exchange, StatusCode::MISDIRECTED_REQUEST, Reason::SniMismatch);
    }
    let Some(route) = site.routes.find(&admitted.path) else {
        return reject(exchange, StatusCode::NOT_FOUND, Reason::NoRoute);
    };
    if site.routes.evades(&admitted.path, route, |target| target.rules.is_guarded()) {
        return reject(exchange, StatusCode::BAD_REQUEST, Reason::TargetInvalid);
    }
    // Only a node of this CDN is believed what it says of the client.
    let is_inner = passes > 0 && snapshot.plan.is_peer(connection.peer.ip);
    let said = |name: &HeaderName| {
        parts.headers.get(name).filter(|_| is_inner).and_then(|value| value.to_str().ok())
    };
    let scheme = match said(&X_FORWARDED_PROTO) {
        Some("https") => "https",
        Some("http") => "http",
        _ => connection.scheme,
    };
    let needed = match is_inner {
        true => Floor::of_request(&parts.headers, clock::now()).unwrap_or_default(),
        false => Floor::default(),
    };
    // A parent's would be stored with its response.
    exchange.tells_timing = site.server_timing && !is_inner;
    // It proves that these purges have been.
    connection.node.positions.observe(needed.newest());
    let client = said(&X_FORWARDED_FOR).and_then(|text| text.trim().parse().ok());
    let context = Context {
        connection,
        snapshot,
        site,
        route,
        request: parts,
        scheme,
        authority: admitted.authority.as_ref().into(),
        path: admitted.path.as_ref().into(),
        query: admitted.query.map(Into::into),
        has_content: admitted.content != admit::Content::None,
        expects: admitted.expect_continue,
        early,
        is_inner,
        needed,
        client: client.unwrap_or(connection.peer.ip),
    };
    Ok((context, exchange))
}

impl Context<'_> {
    pub(super) fn node(&self) -> &Arc<Node> {
        &self.connection.node
    }

    pub(super) fn view(&self) -> RequestView<'_> {
        RequestView {
            method: &self.request.method,
            headers: &self.request.headers,
            has_content: self.has_content,
        }
    }

    pub(super) fn asked(&self) -> Asked<'_> {
        Asked { method: &self.request.method, headers: &self.request.headers }
    }

    pub(super) async fn respond(
        &self,
        exchange: Box<Exchange>,
        body: RequestBody,
        client: Option<OnUpgrade>,
    ) -> Response<ResponseBody> {
        if let Some(client) = client.filter(|_| !self.has_content)
            && let Some(protocol) = tunnel::chosen(&self.request.headers, &self.route.value.upgrade)
        {
            return Box::pin(self.pass_upgrade(exchange, Offer { protocol, client })).await;
        }
        let policy = self.route.value.policy.as_ref();
        let (Some(policy), None) = (policy, bypass(&self.view(), policy.map(AsRef::as_ref))) else {
            let reason = bypass(&self.view(), policy.map(AsRef::as_ref));
            let reason = reason.unwrap_or(Reason::RouteNotCached);
            return Box::pin(self.pass(exchange, reason, body)).await;
        };
        let query = normalise_query(self.query.as_deref(), &policy.key);
        let key = CacheKey::new(
            self.scheme,
            &self.authority,
            &self.path,
            query.as_deref(),
            &self.request.headers,
            &policy.key,
        );
        self.answer_from_cache(exchange, policy, &key, query.as_deref(), body).await
    }

    async fn answer_from_cache(
        &self,
        mut exchange: Box<Exchange>,
        policy: &Arc<Policy>,
        key: &CacheKey,
        query: Option<&str>,
        body: RequestBody,
    ) -> Response<ResponseBody> {
        let node = self.node();
        exchange.key = Some(key.hash());
        let mut alone = !collapsible(&self.view());
        let mut arrived = None;
        let mut brought = Brought::default();
        for round in 0..=2 * MAX_ROUNDS {
            // Before the store is asked: a purge in between then comes after this.
            let since = Since { arrived, ..self.since() };
            let target = Target { policy, key, query, since };
            let headers = &self.request.headers;
            let mut found = node.store.lookup(key, headers, since.needed);
            if !is_settled(&found) && node.under.is_some() {
                Box::pin(bring(node, key, headers, Keep::Memory, &mut brought)).await;
                found = node.store.lookup_with(key, headers, since.needed, brought.objects());
            }
            if matches!(found, Found::Uncacheable) && self.is_part_of_too_large(target) {
                found = Found::Nothing;
            }
            let stored = stored(&found, &node.store, since.needed);
            let decision = decide(&self.view(), stored, Some(policy), clock::steady());
            exchange.reason = decision.reason();
            let object = match &found {
                Found::Object(object) => Some(object),
                _ => None,
            };
            exchange.length = object.map_or(0, |object| object.length());
            let held = |object| if brought.has(object) { Held::Disk } else { Held::Memory };
            exchange.held = object.map(held);
            let asking = match decision {
                Decision::Hit { age, ttl, .. } | Decision::Stale { age, ttl, .. } => {
                    let Some(object) = object else { break };
                    if matches!(decision, Decision::Stale { revalidate: true, .. }) {
                        self.revalidate_behind(target, object);
                    }
                    let marks =
                        Marks { hit: true, ttl: Some(ttl), age: Some(age), ..Marks::default() };
                    match self.answer_from_object(exchange, target, object, &marks).await {
                        Filled::Response(response) => return response,
                        Filled::Again { exchange: same, .. } => exchange = same,
                    }
                    continue;
                }
                Decision::GatewayTimeout { .. } => {
                    let mut response =
                        respond::text(StatusCode::GATEWAY_TIMEOUT, exchange.reason.code());
                    if self.request.method == Method::HEAD {
                        response = response.map(ResponseBody::without_content);
                    }
                    return respond::finish(exchange, &node.name, response, &Marks::default());
                }
                Decision::Pass { reason } => {
                    return Box::pin(self.pass(exchange, reason, body)).await;
                }
                Decision::Revalidate { reason, fallback } => {
                    Asking { target, ask: None, reason, stale: object.zip(fallback) }
                }
                Decision::Miss { reason } => Asking { target, ask: None, reason, stale: None },
            };
            let ask = self.ask(target, object).filter(|_| round < MAX_ROUNDS);
            // Only who asks the next server needs a number.
            let since = Since { arrived: arrived.or_else(|| Some(node.fills.arrive())), ..since };
            let asking = Asking { ask, target: Target { since, ..target }, ..asking };
            alone |= round >= MAX_ROUNDS;
            let known = match &found {
                Found::Object(object) => vec![Arc::clone(object)],
                Found::OtherVariants(objects) => objects.clone(),
                Found::Nothing | Found::Purged | Found::Uncacheable => Vec::new(),
            };
            arrived = asking.target.since.arrived;
            match Box::pin(self.fill(exchange, &asking, known, alone)).await {
                Filled::Response(response) => return response,
                Filled::Again { exchange: same, alone: next } => {
                    exchange = same;
                    alone |= next;
                }
            }
        }
        // Only a decision that contradicts what was found leads here.
        respond::error(exchange, &node.name, Reason::Internal, None, None)
    }

    /// What is asked of the next server on behalf of this request, for the store.
    pub(super) fn job(&self, target: Target<'_>, stored: Vec<Arc<Object>>, fallback: bool) -> Job {
        let Target { policy, key, query, .. } = target;
        let client = &self.request.headers;
        let varying = match policy.profile {
            Profile::Safe => self.node().store.varying(key),
            Profile::Rfc => Vec::new(),
        };
        let floor = self.floor(key, &stored);
        Job {
            key: key.clone(),
            route: Arc::new(self.route.clone()),
            policy: Arc::clone(policy),
            tier: self.tier(),
            wanted: Wanted {
                method: Method::GET,
                scheme: self.scheme,
                authority: self.authority.clone(),
                path: self.path.clone(),
                query: query.map(Into::into),
                headers: self.headers(Some(policy), &varying),
                key: key.hash(),
                interim: None,
                upgrade: None,
                client: None,
                fence: Position::default(),
                floor,
            },
            client: client.clone(),
            unsent: unsent(client, policy, &varying),
            varied: varying.into_iter().filter(|name| client.contains_key(name)).collect(),
            stored,
            fallback,
            part: None,
            divisible: false,
        }
    }

    /// What is known of purges now.
    pub(super) fn since(&self) -> Since {
        Since { fence: self.node().positions.current(), needed: self.needed, arrived: None }
    }

    /// What a parent's answer must not be below: the purges of the key, those of the tags of what is stored for it, and what
    /// is asked of us.
    pub(super) fn floor(&self, key: &CacheKey, stored: &[Arc<Object>]) -> Floor {
        let fences = self.node().store.fences();
        let of_tags = |floor: Floor, object: &Arc<Object>| floor.max(fences.of_tags(object.tags()));
        stored.iter().fold(self.needed.max(fences.of_key(key)), of_tags)
    }

    /// A node of this CDN is told the fence of what it gets, and the tags, also with 304; a client neither.
    pub(super) fn between_tiers(
        &self,
        response: &mut Response<ResponseBody>,
        fence: Position,
        stored: &impl Lines,
    ) {
        let Some(policy) = self.route.value.policy.as_deref() else { return };
        if !self.is_inner {
            tags::strip(response.headers_mut(), &policy.tags);
            return;
        }
        if response.status() == StatusCode::NOT_MODIFIED {
            for name in &policy.tags {
                for value in
                    stored.lines(name).filter_map(|line| HeaderValue::from_bytes(line).ok())
                {
                    response.headers_mut().append(name.clone(), value);
                }
            }
        }
        response.headers_mut().insert(FENCE, fence_field(fence));
    }

    /// The site's parents, if it is for this node to ask them.
    pub(super) fn tier(&self) -> Option<Arc<Tier>> {
        self.site.tier.clone().filter(|_| !self.is_inner)
    }

    /// Fields for the next server: `varying` ones are sent whatever the profile.
    pub(super) fn headers(&self, policy: Option<&Policy>, varying: &[HeaderName]) -> HeaderMap {
        let client = &self.request.headers;
        let mut headers = for_origin(client, policy, varying);
        for name in [VIA, CDN_LOOP] {
            if !headers.contains_key(&name) {
                for value in client.get_all(&name) {
                    headers.append(name.clone(), value.clone());
                }
            }
        }
        if policy.is_none() {
            decrement_max_forwards(&self.request.method, &mut headers);
            if takes_trailers(client) {
                headers.insert(TE, HeaderValue::from_static("trailers"));
            }
        }
        append_via(&mut headers, self.request.version, &self.node().name);
        append_cdn_loop(&mut headers, &self.snapshot.plan.cluster);
        headers
    }

    /// The encoding of an object that answers this request in its place.
    pub(super) fn encoding(&self, object: &Arc<Object>) -> Option<Arc<Object>> {
        let policy = self.route.value.policy.as_ref()?;
        let (node, http::request::Parts { method, headers, .. }) = (self.node(), self.request);
        node.encoder.represent(node, object, policy, method, headers)
    }

    /// Has a stored response checked that is served meanwhile. One such fetch goes on at a time.
    fn revalidate_behind(&self, target: Target<'_>, object: &Arc<Object>) {
        let node = self.node();
        let Target { policy, key, since, .. } = target;
        let headers = &self.request.headers;
        let (variant, slot) = (object.variant(), Slot::Whole);
        let joined = node.fills.join(&node.store, key, variant, headers, Some(object), since, slot);
        if let Joined::Begun(task) = joined {
            let mut job = self.job(target, vec![Arc::clone(object)], true);
            // Of what is stored in part, another version is not fetched whole.
            job.part = (!node.store.is_whole(object))
                .then_some(Wanting { ask: Ask::Run { first: 0, last: 0 }, of: None });
            for headers in [&mut job.wanted.headers, &mut job.client] {
                without_credentials(headers, policy, &object.vary());
            }
            drop(task.start(node, job));
        }
    }

    /// The answer to HEAD has no content.
    pub(super) fn headless(&self, response: Response<ResponseBody>) -> Response<ResponseBody> {
        match self.request.method == Method::HEAD {
            true => response.map(ResponseBody::without_content),
            false => response,
        }
    }
}

/// Whether no disk has anything to add: one without Vary answers all requests.
fn is_settled(found: &Found) -> bool {
    matches!(found, Found::Object(object) if object.variant() == VariantKey::NONE)
}

pub(super) fn stored(found: &Found, store: &Store, needed: Floor) -> Stored {
    match found {
        Found::Nothing => Stored::Nothing,
        Found::OtherVariants(_) => Stored::OtherVariants,
        Found::Uncacheable => Stored::KnownUncacheable,
        Found::Purged => Stored::Purged,
        Found::Object(object) => Stored::Head {
            life: object.life(),
            soft_purged: store.judge(object, needed) != Verdict::Current,
        },
    }
}
