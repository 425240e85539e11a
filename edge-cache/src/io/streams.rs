//! HTTP/2 connections to an upstream's servers: each shared by as many requests as its server lets run at once, opened by
//! one request for all that wait for it, left alone once its server says that it goes away (RFC 9113 §6.8).
//!
//! Which version a server speaks is known from the configuration, or learned from its first connection: until then those
//! who come wait for that one instead of opening connections that nobody needs.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, Response};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::ask::Outgoing;
use super::interim::Sink;
use super::pool::FetchError;
use super::streams_exchange::{Http2Content, exchange};
use super::upstream_body::Unanswered;

/// Sweeps without a stream after which a connection is closed.
const IDLE_SWEEPS: u32 = 6;
/// Requests that wait for a stream at most, for each that may run.
const WAITING_PER_STREAM: usize = 4;

/// What is known of the version that a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    /// Nothing yet.
    Unknown,
    /// HTTP/1.1: none of this concerns it.
    Http1,
    /// HTTP/2.
    Http2,
}

/// A connection.
pub(super) struct Link {
    sender: SendRequest<Bytes>,
    load: Arc<Load>,
    /// Requests open their streams one after the other: those that wait have not been sent.
    turn: tokio::sync::Mutex<()>,
    idle_sweeps: AtomicU32,
    /// Its part of the upstream's connections.
    _slot: OwnedSemaphorePermit,
}

/// How much there is to do on a connection, for those who choose one and for its driver.
pub(super) struct Load {
    /// Requests on it.
    pub(super) streams: AtomicUsize,
    /// What its server lets run at once (SETTINGS_MAX_CONCURRENT_STREAMS), kept up to date by its driver.
    pub(super) most: AtomicUsize,
}

impl Link {
    /// Whether its server takes no more requests on it: it has closed it, or said that it goes away.
    fn is_closed(&self) -> bool {
        let mut sender = self.sender.clone();
        let ready = sender.poll_ready(&mut Context::from_waker(Waker::noop()));
        matches!(ready, Poll::Ready(Err(_)))
    }
}

/// A request's place on a connection.
pub(super) struct Stream {
    link: Arc<Link>,
}

impl Stream {
    fn new(link: &Arc<Link>) -> Self {
        link.load.streams.fetch_add(1, Ordering::Relaxed);
        Self { link: Arc::clone(link) }
    }

    /// Sends the request that it is for; see [`exchange`].
    pub(super) async fn send(
        &self,
        request: Request<Outgoing>,
        keep: bool,
        sink: &Sink,
    ) -> Result<Response<Http2Content>, Unanswered> {
        exchange(self.link.sender.clone(), &self.link.turn, request, keep, sink).await
    }

    pub(super) const fn link(&self) -> &Arc<Link> {
        &self.link
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.link.load.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How an attempt to open a connection ended, for those who wait for it.
type Outcome = Option<Result<(), FetchError>>;

struct Server {
    speaks: Speaks,
    links: Vec<Arc<Link>>,
    opening: Option<watch::Receiver<Outcome>>,
}

/// What a request does to get a stream.
pub(super) enum Way {
    /// It has one.
    Stream(Stream),
    /// It opens a connection, and tells.
    Open(Opening),
    /// It waits for the one that is being opened.
    Wait(watch::Receiver<Outcome>),
    /// Too many wait already.
    Busy,
    /// The server speaks HTTP/1.1.
    Http1,
}

/// The duty to say how opening a connection ended. Dropped without that, those who wait look again.
pub(super) struct Opening {
    streams: Arc<Streams>,
    at: usize,
    outcome: watch::Sender<Outcome>,
}

/// The connections to an upstream's servers, and what these speak.
pub(super) struct Streams {
    servers: Vec<Mutex<Server>>,
}

impl Streams {
    /// For servers of which this much is known.
    pub(super) fn new(speaks: impl Iterator<Item = Speaks>) -> Arc<Self> {
        let server = |speaks| Mutex::new(Server { speaks, links: Vec::new(), opening: None });
        Arc::new(Self { servers: speaks.map(server).collect() })
    }

    fn server(&self, at: usize) -> Option<MutexGuard<'_, Server>> {
        Some(self.servers.get(at)?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How a request gets its stream to a server. `avoid`: a connection on which it has just failed, and whose
    /// place it must not keep, if there may be another. `may_open`: whether
    /// there may be one more connection while others stand.
    pub(super) fn enter(
        self: &Arc<Self>,
        at: usize,
        avoid: Option<&Weak<Link>>,
        may_open: bool,
    ) -> Way {
        let Some(mut server) = self.server(at) else { return Way::Http1 };
        if server.speaks == Speaks::Http1 {
            return Way::Http1;
        }
        server.links.retain(|link| !link.is_closed());
        // RFC 9113 §8.7: what was refused may come again on the same connection, where there can be no other.
        let usable = |link: &&Arc<Link>| {
            !may_open || avoid.is_none_or(|avoid| avoid.as_ptr() != Arc::as_ptr(link))
        };
        let links = server.links.iter().filter(usable);
        let load = |link: &Arc<Link>| {
            (
                link.load.streams.load(Ordering::Relaxed),
                link.load.most.load(Ordering::Relaxed).max(1),
            )
        };
        let least = links.min_by_key(|link| load(link).0);
        if let Some(link) = least {
            let (streams, most) = load(link);
            if streams < most {
                return Way::Stream(Stream::new(link));
            }
        }
        if let Some(opening) = &server.opening
            && opening.has_changed().is_ok()
        {
            return Way::Wait(opening.clone());
        }
        match least {
            // All streams are taken, and there may be no other connection: it waits for one of them.
            Some(link) if !may_open => {
                let (streams, most) = load(link);
                if streams >= most.saturating_mul(1 + WAITING_PER_STREAM) {
                    return Way::Busy;
                }
                Way::Stream(Stream::new(link))
            }
            _ => {
                let (outcome, receiver) = watch::channel(None);
                server.opening = Some(receiver);
                Way::Open(Opening { streams: Arc::clone(self), at, outcome })
            }
        }
    }

    /// Has a connection take requests, and the caller's first.
    pub(super) fn add(
        &self,
        at: usize,
        sender: SendRequest<Bytes>,
        load: Arc<Load>,
        slot: OwnedSemaphorePermit,
    ) -> Stream {
        let link = Arc::new(Link {
            sender,
            load,
            turn: tokio::sync::Mutex::default(),
            idle_sweeps: AtomicU32::new(0),
            _slot: slot,
        });
        let stream = Stream::new(&link);
        if let Some(mut server) = self.server(at) {
            server.speaks = Speaks::Http2;
            server.links.push(link);
        }
        stream
    }

    /// Forgets a connection without requests, so that it closes and another one may be opened. `false`: all are in use.
    pub(super) fn close_one(&self) -> bool {
        (0..self.servers.len()).any(|at| {
            let Some(mut server) = self.server(at) else { return false };
            let idle = |link: &Arc<Link>| link.load.streams.load(Ordering::Relaxed) == 0;
            let found = server.links.iter().position(idle);
            found.map(|found| server.links.swap_remove(found)).is_some()
        })
    }

    /// Forgets connections that have closed, or had no request for long.
    pub(super) fn sweep(&self) {
        for at in 0..self.servers.len() {
            let Some(mut server) = self.server(at) else { continue };
            server.links.retain(|link| {
                if link.load.streams.load(Ordering::Relaxed) > 0 {
                    link.idle_sweeps.store(0, Ordering::Relaxed);
                    return !link.is_closed();
                }
                let idle = link.idle_sweeps.fetch_add(1, Ordering::Relaxed) >= IDLE_SWEEPS;
                !idle && !link.is_closed()
            });
        }
    }
}

impl Opening {
    /// A connection stands: it takes requests now, the one that opened it first.
    pub(super) fn opened(
        self,
        sender: SendRequest<Bytes>,
        load: Arc<Load>,
        slot: OwnedSemaphorePermit,
    ) -> Stream {
        let stream = self.streams.add(self.at, sender, load, slot);
        self.end(Ok(()));
        stream
    }

    /// The server has chosen HTTP/1.1.
    pub(super) fn spoke_http1(self) {
        if let Some(mut server) = self.streams.server(self.at) {
            server.speaks = Speaks::Http1;
        }
        self.end(Ok(()));
    }

    /// There is none, for nobody who waits.
    pub(super) fn failed(self, error: &FetchError) {
        self.end(Err(error.clone()));
    }

    fn end(&self, outcome: Result<(), FetchError>) {
        if let Some(mut server) = self.streams.server(self.at) {
            server.opening = None;
        }
        self.outcome.send_replace(Some(outcome));
    }
}
