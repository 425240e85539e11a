//! Asks the next server for a response: the parents of a site in their order, then the origin, then what stands in for
//! the origin; retries what may be asked twice.
//!
//! A parent is asked for the same URL as we were, so that it computes the same cache key; it learns the scheme that the
//! client used from `X-Forwarded-Proto`, which it believes from nodes of its own CDN only, and knows by `CDN-Loop` that
//! it is asked as a parent. An origin is asked for the route's path.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderName;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use shared::config::WhenDown;
use shared::io::clock;
use shared::metrics::Registry;
use shared::time::UnixMillis;

use super::ask::{Ask, Outgoing};
use super::interim::Sink;
use super::node::{Origin, Parent, RouteTarget, Tier};
use super::pool::{Failed, FetchError, Timeouts};
use super::signer::Signer;
use super::telemetry::{ORIGIN_REQUESTS, PARENT_REQUESTS};
use super::upstream_body::UpstreamBody;
use crate::origin::{self, ServerView, Tried};
use crate::purge::{FENCE, Floor, Position, take_fence};
use crate::route::Route;
use crate::segment::plan::Part;
use crate::semantics::Reason;
use crate::semantics::headers::{ForwardedFor, set_forwarded};
use crate::tier::{self, ParentView};

/// Servers of one origin that one request is sent to at most.
const MAX_ATTEMPTS: usize = 3;
/// What a parent is given beyond the origin's own time.
const PARENT_EXTRA: Duration = Duration::from_secs(1);
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What is wanted from the next server.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Method.
    pub method: Method,
    /// The scheme that the client used.
    pub scheme: &'static str,
    /// The authority that it asked, normalised.
    pub authority: Box<str>,
    /// The path, normalised.
    pub path: Box<str>,
    /// The query, as the route's rules leave it.
    pub query: Option<Box<str>>,
    /// Fields to send, with Via and CDN-Loop.
    pub headers: HeaderMap,
    /// Hash that chooses parent and server.
    pub key: u128,
    /// Where interim responses go: to the client that the fetch is for.
    pub interim: Option<Arc<Sink>>,
    /// The protocol that the connection is to be switched to.
    pub upgrade: Option<HeaderValue>,
    /// The client; not told to the origin of a route that caches, for it must not shape the response.
    pub client: Option<IpAddr>,
    /// The request comes after these purges.
    pub fence: Position,
    /// What a parent's answer must not be below.
    pub floor: Floor,
}

impl Wanted {
    /// Scheme and authority.
    pub fn origin(&self) -> String {
        format!("{}://{}", self.scheme, self.authority)
    }
}

/// A response from the next server, its content still to come.
#[derive(Debug)]
pub struct Fetched {
    /// The response.
    pub response: Response<UpstreamBody>,
    /// `parent:NAME` or `origin:NAME`.
    pub upstream: Arc<str>,
    /// When the request was sent, by the wall clock.
    pub request_time: UnixMillis,
    /// When the head came, by the wall clock.
    pub response_time: UnixMillis,
    /// The same by the clock that has no steps ([`clock::steady`]): from then on the response rests.
    pub arrived: UnixMillis,
    /// Why it is not for the store, where that was asked.
    pub not_stored: Option<Reason>,
    /// It is known to have come after these purges: those that this node knew of, and the parent if one answered.
    pub fence: Position,
    /// A parent answered.
    pub from_parent: bool,
    /// Which part it is, where one was asked for the store.
    pub part: Option<Part>,
}

/// Where an exchange with one server is counted.
fn count(registry: &Registry, parent: bool, name: &str, result: Result<StatusCode, Reason>) {
    let result = match result {
        Ok(status) => match status.as_u16() / 100 {
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            5 => "5xx",
            _ => "other",
        },
        Err(reason) => reason.code(),
    };
    let family = if parent { &PARENT_REQUESTS } else { &ORIGIN_REQUESTS };
    registry.counter(family, &[name, result]).inc();
}

/// Asks. `tier` is the site's, on a node that is the first of this CDN to see the request.
///
/// # Errors
/// Why nobody answered: the last one asked.
pub async fn fetch(
    registry: &Registry,
    route: &Route<RouteTarget>,
    tier: Option<&Tier>,
    wanted: &Wanted,
    mut body: Outgoing,
) -> Result<Fetched, FetchError> {
    let Some(origin) = &route.value.origin else {
        return Err(bad("the route has no origin".to_owned()));
    };
    if let Some(tier) = tier {
        for parent in parents(tier, wanted.key) {
            let ask = parent_ask(wanted, body)?;
            let asked = clock::steady();
            let sent = parent.upstream.send(0, ask, parent_timeouts(origin.timeouts)).await;
            match sent {
                Ok(mut response) => {
                    count(registry, true, &parent.name, Ok(response.status()));
                    let (response_time, arrived) = (clock::now(), clock::steady());
                    let told = response.headers().contains_key(&FENCE);
                    let theirs = take_fence(response.headers_mut());
                    // An error that it made itself has no fence, and is not old.
                    let made = !told && response.status().as_u16() >= 400;
                    return Ok(Fetched {
                        response,
                        upstream: Arc::clone(&parent.label),
                        request_time: response_time - arrived.since(asked),
                        response_time,
                        arrived,
                        not_stored: None,
                        fence: if made { wanted.fence } else { wanted.fence.min(theirs) },
                        from_parent: true,
                        part: None,
                    });
                }
                Err(Failed { error, ask }) => {
                    count(registry, true, &parent.name, Err(error.reason));
                    tracing::debug!(%error, "a parent did not answer");
                    // What cannot be sent twice ends here.
                    let Some(ask) = ask else { return Err(error) };
                    body = ask.body;
                }
            }
        }
    }
    let first = ask_origin(registry, origin, route, wanted, body).await;
    let Some(failover) = &origin.failover else { return first.map_err(|failed| failed.error) };
    match first {
        Ok(fetched) if !origin.failover_on.contains(&fetched.response.status()) => Ok(fetched),
        Ok(fetched) if !matches!(wanted.method, Method::GET | Method::HEAD) => Ok(fetched),
        Ok(fetched) => {
            match ask_origin(registry, failover, route, wanted, Outgoing::Empty).await {
                Ok(other) => Ok(other),
                // What the first one said is better than nothing.
                Err(_) => Ok(fetched),
            }
        }
        Err(Failed { error, ask: None }) => Err(error),
        Err(Failed { ask: Some(ask), .. }) => {
            ask_origin(registry, failover, route, wanted, ask.body)
                .await
                .map_err(|failed| failed.error)
        }
    }
}

/// The parents to ask, in order.
pub fn parents(tier: &Tier, key: u128) -> Vec<Arc<Parent>> {
    let mut chosen = Vec::new();
    let mut order = Vec::new();
    for group in &tier.groups {
        let views: Vec<_> = group.iter().map(|parent| view(parent)).collect();
        if tier.when_down == WhenDown::Origin {
            // The one that the key belongs to, or none.
            let all_up: Vec<_> =
                views.iter().map(|view| ParentView { up: true, ..*view }).collect();
            tier::choose(key, &all_up, None, &mut order);
            order.truncate(1);
            order.retain(|at| views.get(*at).is_some_and(|view| view.up));
        } else {
            tier::choose(key, &views, Some(tier.bounded_load), &mut order);
        }
        for at in &order {
            let Some(parent) = group.get(*at) else { continue };
            if parent.is_self {
                // The key is ours: from here it is the origin's turn.
                return chosen;
            }
            chosen.push(Arc::clone(parent));
        }
        if tier.when_down == WhenDown::Origin {
            break;
        }
    }
    // Two that do not answer are enough: the origin is next.
    chosen.truncate(2);
    chosen
}

fn view(parent: &Parent) -> ParentView {
    use std::sync::atomic::Ordering;
    let server = parent.upstream.servers.first();
    ParentView {
        id: parent.id,
        up: parent.is_self || server.is_some_and(super::server::Server::is_up),
        weight: 1.0,
        in_flight: server.map_or(0, |server| server.in_flight.load(Ordering::Relaxed)),
    }
}

fn parent_timeouts(origin: Timeouts) -> Timeouts {
    Timeouts {
        connect: origin.connect.min(Duration::from_secs(1)),
        first_byte: origin.connect + origin.first_byte + PARENT_EXTRA,
        between_bytes: origin.between_bytes + PARENT_EXTRA,
    }
}

fn bad(detail: String) -> FetchError {
    FetchError { reason: Reason::Internal, upstream: "request".into(), detail: detail.into() }
}

fn header(value: &str) -> Result<HeaderValue, FetchError> {
    HeaderValue::from_str(value).map_err(|error| bad(format!("`{value}` cannot be sent: {error}")))
}

fn target(path: &str, query: Option<&str>) -> Result<PathAndQuery, FetchError> {
    let made = match query {
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
        None => PathAndQuery::try_from(path),
    };
    made.map_err(|error| bad(format!("the target cannot be sent: {error}")))
}

fn parent_ask(wanted: &Wanted, body: Outgoing) -> Result<Ask, FetchError> {
    let mut headers = wanted.headers.clone();
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(wanted.scheme));
    if let Some(floor) = wanted.floor.to_field() {
        headers.insert(FENCE, floor);
    }
    if let Some(client) = wanted.client {
        headers.insert(X_FORWARDED_FOR, header(&client.to_string())?);
    }
    Ok(Ask {
        method: wanted.method.clone(),
        target: target(&wanted.path, wanted.query.as_deref())?,
        authority: header(&wanted.authority)?,
        headers,
        body,
        interim: wanted.interim.clone(),
        upgrade: wanted.upgrade.clone(),
    })
}

fn origin_ask(
    origin: &Origin,
    route: &Route<RouteTarget>,
    wanted: &Wanted,
    body: Outgoing,
) -> Result<Ask, FetchError> {
    let mut headers = wanted.headers.clone();
    match wanted.client {
        Some(client) => {
            let forwarded = ForwardedFor { client, scheme: wanted.scheme, host: &wanted.authority };
            set_forwarded(&mut headers, &forwarded);
        }
        None => {
            headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(wanted.scheme));
            headers.insert(X_FORWARDED_HOST, header(&wanted.authority)?);
        }
    }
    let authority = match &origin.host {
        Some(host) => host.clone(),
        None => header(&wanted.authority)?,
    };
    route.value.rules.request_fields.apply(&mut headers);
    let path = route.target_path(&wanted.path).map_err(|reason| bad(reason.to_string()))?;
    Ok(Ask {
        method: wanted.method.clone(),
        target: target(&path, wanted.query.as_deref())?,
        authority,
        headers,
        body,
        interim: wanted.interim.clone(),
        upgrade: wanted.upgrade.clone(),
    })
}

/// What signs a request with this method. What changes a bucket is signed only where the operator has named the method:
/// routes serve all methods by default, and a visitor must not delete objects under our name.
fn signer<'a>(
    origin: &'a Origin,
    route: &Route<RouteTarget>,
    method: &Method,
) -> Option<&'a Signer> {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    origin.signer.as_deref().filter(|_| reads || route.value.rules.methods.names(method))
}

async fn ask_origin(
    registry: &Registry,
    origin: &Origin,
    route: &Route<RouteTarget>,
    wanted: &Wanted,
    body: Outgoing,
) -> Result<Fetched, Failed> {
    use std::sync::atomic::Ordering;
    let upstream = &origin.upstream;
    let mut ask = match origin_ask(origin, route, wanted, body) {
        Ok(ask) => ask,
        Err(error) => return Err(Failed { error, ask: None }),
    };
    let tick = upstream.tick.fetch_add(1, Ordering::Relaxed);
    let mut tried = Tried::default();
    let mut attempts = 0;
    let mut timed_out = false;
    let mut error = upstream.no_server();
    loop {
        let views: Vec<_> = upstream
            .servers
            .iter()
            .map(|server| ServerView {
                id: server.id,
                up: server.is_up(),
                weight: server.weight,
                in_flight: server.in_flight.load(Ordering::Relaxed),
            })
            .collect();
        let next = origin::choose(upstream.balance, &views, tried, tick, wanted.key);
        let Some(at) = next.filter(|_| attempts < MAX_ATTEMPTS) else {
            return Err(Failed { error, ask: Some(ask) });
        };
        tried.add(at);
        attempts += 1;
        if let Some(signer) = signer(origin, route, &wanted.method)
            && let Err(why) = signer.sign(&mut ask, clock::now())
        {
            let error = bad(format!("the request cannot be signed: {why}"));
            return Err(Failed { error, ask: Some(ask) });
        }
        let asked = clock::steady();
        match upstream.send(at, ask, origin.timeouts).await {
            Ok(mut response) => {
                count(registry, false, &upstream.name, Ok(response.status()));
                let (response_time, arrived) = (clock::now(), clock::steady());
                // Only nodes of this CDN speak of fences.
                response.headers_mut().remove(&FENCE);
                return Ok(Fetched {
                    response,
                    upstream: Arc::clone(&origin.label),
                    request_time: response_time - arrived.since(asked),
                    response_time,
                    arrived,
                    not_stored: None,
                    fence: wanted.fence,
                    from_parent: false,
                    part: None,
                });
            }
            Err(failed) => {
                count(registry, false, &upstream.name, Err(failed.error.reason));
                tracing::debug!(error = %failed.error, "a server of an origin did not answer");
                let again = failed.ask.filter(|_| {
                    // One time-out may be one slow server; after two the client has waited long enough. A full pool is
                    // full for all servers.
                    let twice = std::mem::replace(
                        &mut timed_out,
                        failed.error.reason == Reason::FirstByteTimeout,
                    ) && timed_out;
                    !twice && failed.error.reason != Reason::OriginBusy
                });
                error = failed.error;
                match again {
                    Some(again) => ask = again,
                    None => return Err(Failed { error, ask: None }),
                }
            }
        }
    }
}
