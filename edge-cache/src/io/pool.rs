//! Connections to one upstream (an origin's servers, or one parent): opened, bounded, reused, timed.
//!
//! One request is sent to one server here; which server, and what happens when it fails, [`super::fetch`] decides.
//! A connection is used again only after the response on it was read to its end. Idle connections are shared by all
//! workers, but those of the same worker go first: their wake-ups stay on its core.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use shared::config::OriginUrl;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::ask::{Ask, Outgoing, from_request, to_request};
use super::server::Server;
use super::upstream_body::UpstreamBody;
use crate::origin::Balance;
use crate::semantics::Reason;

/// Idle connections are closed after this.
const IDLE: Duration = Duration::from_secs(60);
/// Response heads at most.
const MAX_HEAD: usize = 64 << 10;
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
    /// For https servers.
    pub tls: Option<Arc<rustls::ClientConfig>>,
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
    tls: Option<Arc<rustls::ClientConfig>>,
}

enum Conn {
    Http1(http1::SendRequest<Outgoing>),
    Http2(http2::SendRequest<Outgoing>),
}

struct Idle {
    server: usize,
    worker: ThreadId,
    since: Instant,
    conn: Conn,
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
    _slot: OwnedSemaphorePermit,
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
        // HTTP/2 connections never left the list.
        if let Some(conn @ Conn::Http1(_)) = self.conn.take() {
            self.upstream.put_idle(self.server, conn);
        }
    }
}

impl Upstream {
    /// An upstream without connections yet.
    pub fn new(spec: UpstreamSpec) -> Arc<Self> {
        let max_connections = spec.max_connections.max(1);
        Arc::new(Self {
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
            tls: spec.tls,
        })
    }

    /// Connections that are open, idle ones included.
    pub fn open_connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// TLS to its servers.
    pub const fn tls(&self) -> Option<&Arc<rustls::ClientConfig>> {
        self.tls.as_ref()
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
        let slot = match self.slot(timeouts).await {
            Ok(slot) => slot,
            Err(error) => return Err(Failed { error, ask: Some(ask) }),
        };
        server.in_flight.fetch_add(1, Ordering::Relaxed);
        let mut lease = Lease { upstream: Arc::clone(self), server: at, conn: None, _slot: slot };
        // A server may close an idle connection at any moment, also while a request is on its way to it: one more try
        // on a new connection is part of using old ones (RFC 9112 §9.3.1).
        let mut may_reuse = true;
        loop {
            let idle = if may_reuse { self.take_idle(at).await } else { None };
            let reused = idle.is_some();
            let conn = match idle {
                Some(conn) => conn,
                None => match self.connect(at, timeouts.connect).await {
                    Ok(conn) => conn,
                    Err(error) => {
                        server.failed(self.tolerated_failures);
                        return Err(Failed { error, ask: Some(ask) });
                    }
                },
            };
            let again = ask.is_repeatable().then(|| ask.again()).flatten();
            let sent = self.exchange(conn, at, ask, timeouts.first_byte).await;
            match sent {
                Ok((response, conn)) => {
                    server.answered();
                    lease.conn = Some(conn);
                    return Ok(response.map(|body| UpstreamBody::new(body, lease, timeouts)));
                }
                Err(failed) => {
                    let timed_out = failed.error.reason == Reason::FirstByteTimeout;
                    let retry = failed.ask.or(again);
                    match retry {
                        Some(request) if reused && !timed_out => {
                            ask = request;
                            may_reuse = false;
                        }
                        retry => {
                            // A client must not be able to make a server look dead.
                            if failed.error.reason != Reason::RequestIncomplete {
                                server.failed(self.tolerated_failures);
                            }
                            return Err(Failed { error: failed.error, ask: retry });
                        }
                    }
                }
            }
        }
    }

    /// Waits for one of the upstream's connections, not for long and not among too many.
    async fn slot(&self, timeouts: Timeouts) -> Result<OwnedSemaphorePermit, FetchError> {
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            return Ok(slot);
        }
        let busy = || {
            self.error(
                Reason::OriginBusy,
                format!("all {} connections are in use", self.max_connections),
            )
        };
        let limit = self.max_connections.saturating_mul(WAITING_PER_CONNECTION);
        let waiting = Waiting::new(&self.waiting);
        if waiting.before >= limit {
            return Err(busy());
        }
        let patience = timeouts.connect + timeouts.first_byte;
        match tokio::time::timeout(patience, Arc::clone(&self.slots).acquire_owned()).await {
            Ok(Ok(slot)) => Ok(slot),
            _ => Err(busy()),
        }
    }

    async fn take_idle(&self, at: usize) -> Option<Conn> {
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
                let found = match idle.get(index).map(|idle| &idle.conn) {
                    Some(Conn::Http2(sender)) => Conn::Http2(sender.clone()),
                    _ => idle.swap_remove(index).conn,
                };
                (found, stale)
            };
            drop(stale);
            // A connection that its server has closed says so here; one whose response has just ended is ready in a
            // moment.
            let ready = match &mut conn {
                Conn::Http1(sender) => sender.ready().await.is_ok(),
                Conn::Http2(sender) => sender.ready().await.is_ok(),
            };
            if ready {
                return Some(conn);
            }
        }
    }

    fn put_idle(&self, server: usize, conn: Conn) {
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
    }

    /// Opens a connection; closes an idle one to another server first when there are as many as there may be.
    async fn connect(&self, at: usize, patience: Duration) -> Result<Conn, FetchError> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.max_connections {
            let surplus = {
                let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
                (!idle.is_empty()).then(|| idle.swap_remove(0))
            };
            drop(surplus);
        }
        let open = Open(Arc::clone(&self.open));
        let Some(server) = self.servers.get(at) else { return Err(self.no_server()) };
        match tokio::time::timeout(patience, self.open(at, &server.url, open)).await {
            Ok(result) => result,
            Err(_) => Err(self.error(
                Reason::ConnectTimeout,
                format!("{} did not take a connection within {patience:?}", server.url),
            )),
        }
    }

    async fn open(&self, at: usize, url: &OriginUrl, open: Open) -> Result<Conn, FetchError> {
        let failed = |error: &dyn std::fmt::Display| {
            self.error(Reason::ConnectFailed, format!("{url}: {error}"))
        };
        let stream = connect_tcp(&url.host, url.port).await.map_err(|error| failed(&error))?;
        if !url.tls {
            return self.handshake(TokioIo::new(stream), false, at, open).await;
        }
        let insecure = || self.error(Reason::TlsFailed, format!("{url}: no TLS is configured"));
        let config = Arc::clone(self.tls.as_ref().ok_or_else(insecure)?);
        let failed = |error: &dyn std::fmt::Display| {
            self.error(Reason::TlsFailed, format!("{url}: {error}"))
        };
        let name = ServerName::try_from(url.host.clone()).map_err(|error| failed(&error))?;
        let stream = tokio_rustls::TlsConnector::from(config)
            .connect(name, stream)
            .await
            .map_err(|error| self.error(tls_reason(&error), format!("{url}: {error}")))?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        self.handshake(TokioIo::new(stream), http2, at, open).await
    }

    async fn handshake<T>(
        &self,
        io: T,
        http2: bool,
        at: usize,
        open: Open,
    ) -> Result<Conn, FetchError>
    where
        T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let failed =
            |error: hyper::Error| self.error(Reason::ConnectFailed, format!("handshake: {error}"));
        if http2 {
            let (sender, driver) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(Duration::from_secs(20))
                .max_header_list_size(MAX_HEAD as u32)
                .handshake(io)
                .await
                .map_err(failed)?;
            tokio::spawn(async move {
                let _open = open;
                // What goes wrong is seen by the requests on it.
                let _ = driver.await;
            });
            self.put_idle(at, Conn::Http2(sender.clone()));
            return Ok(Conn::Http2(sender));
        }
        let (sender, driver) = http1::Builder::new()
            .max_header_size(MAX_HEAD)
            .max_buf_size(MAX_HEAD.max(256 << 10))
            .handshake(io)
            .await
            .map_err(failed)?;
        tokio::spawn(async move {
            let _open = open;
            let _ = driver.await;
        });
        Ok(Conn::Http1(sender))
    }

    async fn exchange(
        &self,
        mut conn: Conn,
        at: usize,
        ask: Ask,
        first_byte: Duration,
    ) -> Result<(Response<Incoming>, Conn), Failed> {
        let upload = match &ask.body {
            Outgoing::Stream(_, upload) => Some(Arc::clone(upload)),
            Outgoing::Empty => None,
        };
        let tls = self.servers.get(at).is_some_and(|server| server.url.tls);
        let http2 = matches!(conn, Conn::Http2(_));
        let request = to_request(ask, http2, tls);
        let request = match request {
            Ok(request) => request,
            Err(detail) => {
                return Err(Failed { error: self.error(Reason::Internal, detail), ask: None });
            }
        };
        let answered = async {
            match &mut conn {
                Conn::Http1(sender) => sender.try_send_request(request).await,
                Conn::Http2(sender) => sender.try_send_request(request).await,
            }
        };
        let answered = {
            let mut answered = pin!(answered);
            loop {
                match tokio::time::timeout(first_byte, &mut answered).await {
                    Ok(answered) => break answered,
                    // Content still on its way up: the time for the response has not begun.
                    Err(_) if upload.as_ref().is_some_and(|upload| upload.take_moved()) => {}
                    Err(_) => {
                        let detail = format!("no response within {first_byte:?}");
                        let error = self.error(Reason::FirstByteTimeout, detail);
                        return Err(Failed { error, ask: None });
                    }
                }
            }
        };
        match answered {
            // Nobody was asked to switch: Upgrade is not sent on.
            Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                let error = self.error(Reason::BadResponse, "101 to a request without Upgrade");
                Err(Failed { error, ask: None })
            }
            Ok(response) if !is_framed_well(response.headers()) => {
                let detail = "Transfer-Encoding beside Content-Length, or other than `chunked`";
                Err(Failed { error: self.error(Reason::BadResponse, detail), ask: None })
            }
            Ok(response) => Ok((response, conn)),
            Err(_) if upload.is_some_and(|upload| upload.is_broken()) => {
                let detail = "the client's content broke off or is not valid";
                let error = self.error(Reason::RequestIncomplete, detail);
                Err(Failed { error, ask: None })
            }
            Err(mut failed) => {
                let unsent = failed.take_message().map(from_request);
                let error = failed.into_error();
                let reason =
                    if error.is_parse() { Reason::BadResponse } else { Reason::ConnectionClosed };
                Err(Failed { error: self.error(reason, error.to_string()), ask: unsent })
            }
        }
    }
}

/// RFC 9112 §6.1, §6.3: a response with both framings ends where somebody may have meant it not to; other transfer codings
/// than chunked were not asked for, and are not undone here.
fn is_framed_well(response: &HeaderMap) -> bool {
    let mut codings = response.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return true };
    coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked")
        && codings.next().is_none()
        && !response.contains_key(CONTENT_LENGTH)
}

/// Whether it is the certificate that is not good, or something else about TLS.
fn tls_reason(error: &std::io::Error) -> Reason {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(_)) => Reason::TlsCertificate,
        _ => Reason::TlsFailed,
    }
}

/// Takes out what was idle for long or is closed.
fn sweep(idle: &mut Vec<Idle>) -> Vec<Idle> {
    idle.extract_if(.., |idle| match &idle.conn {
        Conn::Http1(sender) => sender.is_closed() || idle.since.elapsed() > IDLE,
        Conn::Http2(sender) => sender.is_closed(),
    })
    .collect()
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

async fn connect_tcp(host: &str, port: u16) -> std::io::Result<TcpStream> {
    let mut last = None;
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| std::io::Error::other("the name has no address")))
}
