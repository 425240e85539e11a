//! Connections to one upstream (an origin's servers, or one parent): opened, bounded, reused, timed.
//!
//! One request is sent to one server here; which server, and what happens when it fails, [`super::fetch`] decides.
//! A connection is used again only after the response on it was read to its end; those of HTTP/2 are shared, see
//! `streams`. Idle connections are shared by all workers, but those of the same worker go first: their wake-ups
//! stay on its core.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use http::{Response, StatusCode};
use hyper::client::conn::http1;
use shared::config::{OriginProtocol, OriginUrl};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::ask::{Ask, Outgoing, Upload, from_request, to_request};
use super::connect::{Opened, Transport};
use super::interim::Sink;
use super::server::Server;
use super::streams::{Link, Opening, Speaks, Stream, Streams, Way};
use super::upstream_body::{Inner, Unanswered, UpstreamBody};
use crate::origin::Balance;
use crate::reply;
use crate::semantics::Reason;

/// Idle connections are closed after this.
const IDLE: Duration = Duration::from_secs(60);
/// Connection failures in a row that take a server out.
const FAILURES: u32 = 3;
/// Requests that wait for a connection at most, for each connection that there may be.
const WAITING_PER_CONNECTION: usize = 16;

/// How long each step may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Until a connection stands, TLS included.
    pub connect: Duration,
    /// From the request to the response's head.
    pub first_byte: Duration,
    /// Between two pieces of the body.
    pub between_bytes: Duration,
}

/// Why an upstream did not answer, as all who wait for it learn it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{upstream}: {reason}: {detail}")]
pub struct FetchError {
    /// What happened.
    pub reason: Reason,
    /// The origin or parent.
    pub upstream: Arc<str>,
    /// In words.
    pub detail: Arc<str>,
}

/// A request that failed. `unsent`: not a byte of it has gone out, so that any method may be tried elsewhere.
pub struct Failed {
    /// Why.
    pub error: FetchError,
    /// The request, when it may be sent again.
    pub ask: Option<Ask>,
}

/// How connections to an upstream are made.
pub struct UpstreamSpec {
    /// Its name, for logs and metrics.
    pub name: String,
    /// Servers and their shares.
    pub servers: Vec<(OriginUrl, u32)>,
    /// How they share the load.
    pub balance: Balance,
    /// Connections at once.
    pub max_connections: usize,
    /// Connection failures in a row that take a server out; `None`: the usual number.
    pub tolerated_failures: Option<u32>,
    /// How they are reached.
    pub transport: Transport,
}

/// An origin, or a parent.
pub struct Upstream {
    /// Its name.
    pub name: Arc<str>,
    /// Its servers.
    pub servers: Vec<Server>,
    /// How they share the load.
    pub balance: Balance,
    /// One per request, for round robin.
    pub tick: AtomicU64,
    tolerated_failures: u32,
    max_connections: usize,
    slots: Arc<Semaphore>,
    waiting: AtomicUsize,
    open: Arc<AtomicUsize>,
    idle: Mutex<Vec<Idle>>,
    streams: Arc<Streams>,
    transport: Transport,
}

enum Conn {
    Http1(http1::SendRequest<Outgoing>),
    Http2(Stream),
}

/// A connection for one request.
struct Entered {
    conn: Conn,
    /// HTTP/1.1: its part of the upstream's connections.
    slot: Option<OwnedSemaphorePermit>,
    /// Others have used it before.
    reused: bool,
}

struct Idle {
    server: usize,
    worker: ThreadId,
    since: Instant,
    conn: http1::SendRequest<Outgoing>,
}

/// Counts an open connection for as long as its driver runs.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request's claim on a connection, from before it is sent until its response has ended.
pub(super) struct Lease {
    upstream: Arc<Upstream>,
    server: usize,
    conn: Option<Conn>,
    /// The request's content.
    upload: Option<Arc<Upload>>,
    _slot: Option<OwnedSemaphorePermit>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(server) = self.upstream.servers.get(self.server) {
            server.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Lease {
    /// The response has ended well: the connection may be used again.
    pub(super) fn give_back(mut self) {
        // A server may answer before it has read the request's content: what follows on that connection is content still.
        if self.upload.as_ref().is_some_and(|upload| !upload.has_ended()) {
            return;
        }
        if let Some(Conn::Http1(conn)) = self.conn.take() {
            self.upstream.put_idle(self.server, conn);
        }
    }
}

impl Upstream {
    /// An upstream without connections yet.
    pub fn new(spec: UpstreamSpec) -> Arc<Self> {
        let max_connections = spec.max_connections.max(1);
        let protocol = spec.transport.protocol;
        let speaks = spec.servers.iter().map(|(url, _)| match protocol {
            OriginProtocol::Http2 => Speaks::Http2,
            OriginProtocol::Auto if url.tls => Speaks::Unknown,
            OriginProtocol::Auto | OriginProtocol::Http1 => Speaks::Http1,
        });
        Arc::new(Self {
            streams: Streams::new(speaks),
            name: spec.name.into(),
            servers: spec
                .servers
                .into_iter()
                .map(|(url, weight)| Server::new(url, weight))
                .collect(),
            balance: spec.balance,
            tick: AtomicU64::new(0),
            tolerated_failures: spec.tolerated_failures.unwrap_or(FAILURES),
            max_connections,
            slots: Arc::new(Semaphore::new(max_connections)),
            waiting: AtomicUsize::new(0),
            open: Arc::new(AtomicUsize::new(0)),
            idle: Mutex::new(Vec::new()),
            transport: spec.transport,
        })
    }

    /// Connections that are open, idle ones included.
    pub fn open_connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// How its servers are reached.
    pub const fn transport(&self) -> &Transport {
        &self.transport
    }

    fn error(&self, reason: Reason, detail: impl Into<Arc<str>>) -> FetchError {
        FetchError { reason, upstream: Arc::clone(&self.name), detail: detail.into() }
    }

    /// An error for a request that found no server.
    pub fn no_server(&self) -> FetchError {
        self.error(Reason::ConnectFailed, "no server is left to ask")
    }

    /// Sends one request to one server and waits for the head of its response.
    ///
    /// # Errors
    /// Why there is none, and the request where it may be sent to another server.
    pub async fn send(
        self: &Arc<Self>,
        at: usize,
        mut ask: Ask,
        timeouts: Timeouts,
    ) -> Result<Response<UpstreamBody>, Failed> {
        let Some(server) = self.servers.get(at) else {
            return Err(Failed { error: self.no_server(), ask: Some(ask) });
        };
        server.in_flight.fetch_add(1, Ordering::Relaxed);
        let upstream = Arc::clone(self);
        let mut lease = Lease { upstream, server: at, conn: None, upload: None, _slot: None };
        // A server may close a connection at any moment, also while a request is on its way to it: one more try on a
        // new connection is part of using old ones (RFC 9112 §9.3.1, RFC 9113 §8.7).
        let mut again_on_new = false;
        let mut avoid = None;
        loop {
            let entered = match ask.upgrade {
                None => self.enter(at, again_on_new, avoid.as_ref(), timeouts).await,
                Some(_) => self.enter_to_switch(at, timeouts).await,
            };
            let Entered { conn, slot, reused } = match entered {
                Ok(entered) => entered,
                Err(error) => {
                    if error.reason != Reason::OriginBusy {
                        self.failed(server, &error);
                    }
                    return Err(Failed { error, ask: Some(ask) });
                }
            };
            lease._slot = slot;
            if let Conn::Http2(stream) = &conn {
                avoid = Some(Arc::downgrade(stream.link()));
            }
            let again = ask.is_repeatable().then(|| ask.again()).flatten();
            lease.upload = ask.body.upload();
            let sent = self.exchange(conn, at, ask, timeouts.first_byte).await;
            match sent {
                Ok((mut response, conn)) => {
                    server.answered();
                    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                        let switched = hyper::upgrade::on(&mut response);
                        return Ok(
                            response.map(|body| UpstreamBody::switched(body, switched, lease))
                        );
                    }
                    // What may follow a response that claims content it cannot have is not for the next request.
                    lease.conn = Some(conn).filter(|_| {
                        !reply::claims_impossible_content(response.status(), response.headers())
                    });
                    return Ok(response.map(|body| UpstreamBody::new(body, lease, timeouts)));
                }
                Err(failed) => {
                    let timed_out = failed.error.reason == Reason::FirstByteTimeout;
                    let retry = failed.ask.or(again);
                    match retry {
                        Some(request) if reused && !again_on_new && !timed_out => {
                            ask = request;
                            again_on_new = true;
                        }
                        retry => {
                            // A client must not be able to make a server look dead.
                            if failed.error.reason != Reason::RequestIncomplete {
                                self.failed(server, &failed.error);
                            }
                            return Err(Failed { error: failed.error, ask: retry });
                        }
                    }
                }
            }
        }
    }

    /// Counts a failure. The first one in a row is told: an operator should not have to find out from clients that a
    /// certificate has expired.
    fn failed(&self, server: &Server, error: &FetchError) {
        if server.failed(self.tolerated_failures) {
            tracing::warn!(%error, server = %server.url, "a server does not answer");
        }
    }

    /// A connection to a server: a stream of one that is shared, one that is idle, or a new one.
    async fn enter(
        self: &Arc<Self>,
        at: usize,
        new: bool,
        avoid: Option<&Weak<Link>>,
        timeouts: Timeouts,
    ) -> Result<Entered, FetchError> {
        loop {
            let may_open = self.slots.available_permits() > 0;
            match self.streams.enter(at, avoid, may_open) {
                Way::Stream(stream) => {
                    return Ok(Entered { conn: Conn::Http2(stream), slot: None, reused: true });
                }
                Way::Open(opening) => return self.open_shared(at, opening, timeouts).await,
                Way::Wait(mut opening) => {
                    let patience = timeouts.connect + timeouts.first_byte;
                    let opened = opening.wait_for(Option::is_some);
                    match tokio::time::timeout(patience, opened).await {
                        Ok(Ok(outcome)) => {
                            if let Some(Err(error)) = &*outcome {
                                return Err(error.clone());
                            }
                        }
                        // Who was opening it has gone: somebody else does.
                        Ok(Err(_)) => {}
                        Err(_) => {
                            let detail = format!("no connection within {patience:?}");
                            return Err(self.error(Reason::ConnectTimeout, detail));
                        }
                    }
                }
                Way::Busy => return Err(self.busy()),
                Way::Http1 => break,
            }
        }
        let slot = self.slot(timeouts).await?;
        let idle = if new { None } else { self.take_idle(at).await };
        if let Some(conn) = idle {
            return Ok(Entered { conn: Conn::Http1(conn), slot: Some(slot), reused: true });
        }
        match self.connect(at, timeouts.connect, &self.transport).await? {
            Opened::Http1(conn) => {
                Ok(Entered { conn: Conn::Http1(conn), slot: Some(slot), reused: false })
            }
            // It spoke HTTP/1.1 before.
            Opened::Http2(sender, load) => {
                let stream = self.streams.add(at, sender, load, slot);
                Ok(Entered { conn: Conn::Http2(stream), slot: None, reused: false })
            }
        }
    }

    /// A new connection of HTTP/1.1, to be switched to another protocol.
    async fn enter_to_switch(&self, at: usize, timeouts: Timeouts) -> Result<Entered, FetchError> {
        let slot = self.slot(timeouts).await?;
        match self.connect(at, timeouts.connect, &self.transport.http1()).await? {
            Opened::Http1(conn) => {
                Ok(Entered { conn: Conn::Http1(conn), slot: Some(slot), reused: false })
            }
            Opened::Http2(..) => {
                Err(self.error(Reason::Internal, "HTTP/2 where HTTP/1.1 was asked"))
            }
        }
    }

    /// Opens a connection that others may wait for.
    async fn open_shared(
        self: &Arc<Self>,
        at: usize,
        opening: Opening,
        timeouts: Timeouts,
    ) -> Result<Entered, FetchError> {
        let opened = async {
            if self.slots.available_permits() == 0 {
                // What stands idle to another server makes room.
                self.streams.close_one();
            }
            let slot = self.slot(timeouts).await?;
            Ok((slot, self.connect(at, timeouts.connect, &self.transport).await?))
        };
        match opened.await {
            Ok((slot, Opened::Http2(sender, load))) => {
                let stream = opening.opened(sender, load, slot);
                Ok(Entered { conn: Conn::Http2(stream), slot: None, reused: false })
            }
            Ok((slot, Opened::Http1(conn))) => {
                opening.spoke_http1();
                Ok(Entered { conn: Conn::Http1(conn), slot: Some(slot), reused: false })
            }
            Err(error) => {
                opening.failed(&error);
                Err(error)
            }
        }
    }

    /// Waits for one of the upstream's connections, not for long and not among too many.
    async fn slot(&self, timeouts: Timeouts) -> Result<OwnedSemaphorePermit, FetchError> {
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            return Ok(slot);
        }
        let limit = self.max_connections.saturating_mul(WAITING_PER_CONNECTION);
        let waiting = Waiting::new(&self.waiting);
        if waiting.before >= limit {
            return Err(self.busy());
        }
        let patience = timeouts.connect + timeouts.first_byte;
        match tokio::time::timeout(patience, Arc::clone(&self.slots).acquire_owned()).await {
            Ok(Ok(slot)) => Ok(slot),
            _ => Err(self.busy()),
        }
    }

    fn busy(&self) -> FetchError {
        let detail = format!("all {} connections are in use", self.max_connections);
        self.error(Reason::OriginBusy, detail)
    }

    async fn take_idle(&self, at: usize) -> Option<http1::SendRequest<Outgoing>> {
        let worker = std::thread::current().id();
        loop {
            let (mut conn, stale) = {
                let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
                let stale = sweep(&mut idle);
                let fits = |idle: &&Idle| idle.server == at && idle.worker == worker;
                let index = idle
                    .iter()
                    .rposition(|idle| fits(&idle))
                    .or_else(|| idle.iter().rposition(|idle| idle.server == at))?;
                (idle.swap_remove(index).conn, stale)
            };
            drop(stale);
            // A connection that its server has closed says so here; one whose response has just ended is ready in a
            // moment.
            if conn.ready().await.is_ok() {
                return Some(conn);
            }
        }
    }

    fn put_idle(&self, server: usize, conn: http1::SendRequest<Outgoing>) {
        let entry =
            Idle { server, worker: std::thread::current().id(), since: Instant::now(), conn };
        let stale = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let stale = sweep(&mut idle);
            idle.push(entry);
            stale
        };
        drop(stale);
    }

    /// Closes connections that have been idle for long.
    pub fn close_idle(&self) {
        let stale = sweep(&mut self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        drop(stale);
        self.streams.sweep();
    }

    /// Opens a connection; closes an idle one to another server first when there are as many as there may be.
    async fn connect(
        &self,
        at: usize,
        patience: Duration,
        transport: &Transport,
    ) -> Result<Opened, FetchError> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.max_connections {
            let surplus = {
                let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
                (!idle.is_empty()).then(|| idle.swap_remove(0))
            };
            drop(surplus);
        }
        let open = Open(Arc::clone(&self.open));
        let Some(server) = self.servers.get(at) else { return Err(self.no_server()) };
        match tokio::time::timeout(patience, transport.open(&server.url, open)).await {
            Ok(result) => result.map_err(|(reason, detail)| self.error(reason, detail)),
            Err(_) => Err(self.error(
                Reason::ConnectTimeout,
                format!("{} did not take a connection within {patience:?}", server.url),
            )),
        }
    }

    async fn exchange(
        &self,
        mut conn: Conn,
        at: usize,
        ask: Ask,
        first_byte: Duration,
    ) -> Result<(Response<Inner>, Conn), Failed> {
        let upload = ask.body.upload();
        let (interim, upgrade) = (ask.interim.clone(), ask.upgrade.clone());
        let sink = interim.clone().unwrap_or_else(|| Arc::new(Sink::closed()));
        let tls = self.servers.get(at).is_some_and(|server| server.url.tls);
        let http2 = matches!(conn, Conn::Http2(_));
        // What is repeatable is kept already.
        let keep = !ask.is_repeatable();
        let ended = |reason, detail: &str| Failed { error: self.error(reason, detail), ask: None };
        let mut request =
            to_request(ask, http2, tls).map_err(|detail| ended(Reason::Internal, &detail))?;
        if !http2 {
            sink.listen(&mut request, upload.clone());
        }
        let answered = async {
            match &mut conn {
                Conn::Http1(sender) => match sender.try_send_request(request).await {
                    Ok(response) => Ok(response.map(Inner::Http1)),
                    Err(failed) => Err(Unanswered::from(failed)),
                },
                Conn::Http2(stream) => {
                    let answered = stream.send(request, keep, &sink).await;
                    answered.map(|response| response.map(Inner::Http2))
                }
            }
        };
        let answered = {
            let mut answered = pin!(answered);
            loop {
                let first = async {
                    tokio::select! {
                        answered = &mut answered => Some(answered),
                        () = sink.flooded() => None,
                    }
                };
                match tokio::time::timeout(first_byte, first).await {
                    Ok(Some(answered)) => break answered,
                    Ok(None) => {
                        return Err(ended(Reason::BadResponse, "interim responses without end"));
                    }
                    // Content still on its way up: the time for the response has not begun.
                    Err(_) if upload.as_ref().is_some_and(|upload| upload.take_moved()) => {}
                    Err(_) if upload.as_ref().is_some_and(|upload| upload.is_awaited()) => {
                        let detail = format!("nothing of the client's content in {first_byte:?}");
                        return Err(ended(Reason::RequestIncomplete, &detail));
                    }
                    Err(_) => {
                        let detail = format!("no response within {first_byte:?}");
                        return Err(ended(Reason::FirstByteTimeout, &detail));
                    }
                }
            }
        };
        match answered {
            Ok(mut response) => {
                reply::check(response.status(), response.headers(), upgrade.as_ref())
                    .map_err(|why| ended(Reason::BadResponse, why))?;
                reply::single_length(response.headers_mut());
                Ok((response, conn))
            }
            Err(_) if upload.is_some_and(|upload| upload.is_broken()) => {
                let detail = "the client's content broke off or is not valid";
                Err(ended(Reason::RequestIncomplete, detail))
            }
            Err(Unanswered { error, request }) => {
                let ask = request.map(|request| from_request(request, interim));
                let reason = match error.is_protocol_error() {
                    true => Reason::BadResponse,
                    false => Reason::ConnectionClosed,
                };
                let mut detail = error.to_string();
                if http2 && !tls {
                    detail.push_str(" (asked over HTTP/2 without TLS, as `protocol` says)");
                }
                Err(Failed { error: self.error(reason, detail), ask })
            }
        }
    }
}

/// Takes out what was idle for long or is closed.
fn sweep(idle: &mut Vec<Idle>) -> Vec<Idle> {
    idle.extract_if(.., |idle| idle.conn.is_closed() || idle.since.elapsed() > IDLE).collect()
}

/// Counts those who wait.
struct Waiting<'a> {
    count: &'a AtomicUsize,
    before: usize,
}

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        Self { count, before: count.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}
