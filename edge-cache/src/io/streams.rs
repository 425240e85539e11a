//! HTTP/2 connections to an upstream's servers: each shared by as many requests as its server lets run at once, opened by
//! one request for all that wait for it, left alone once its server says that it goes away (RFC 9113 §6.8).
//!
//! Which version a server speaks is known from the configuration, or learned from its first connection: until then those
//! who come wait for that one instead of opening connections that nobody needs.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::client::conn::http2;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::ask::Outgoing;
use super::pool::FetchError;

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
    sender: http2::SendRequest<Outgoing>,
    /// Requests on it.
    streams: AtomicUsize,
    /// What its server lets run at once (SETTINGS_MAX_CONCURRENT_STREAMS), kept up to date by its driver.
    most: Arc<AtomicUsize>,
    idle_sweeps: AtomicU32,
    /// Its part of the upstream's connections.
    _slot: OwnedSemaphorePermit,
}

/// A request's place on a connection.
pub(super) struct Stream {
    link: Arc<Link>,
    pub(super) sender: http2::SendRequest<Outgoing>,
}

impl Stream {
    fn new(link: &Arc<Link>) -> Self {
        link.streams.fetch_add(1, Ordering::Relaxed);
        Self { link: Arc::clone(link), sender: link.sender.clone() }
    }

    pub(super) const fn link(&self) -> &Arc<Link> {
        &self.link
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.link.streams.fetch_sub(1, Ordering::Relaxed);
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

    /// How a request gets its stream to a server. `avoid`: a connection on which it has just failed. `may_open`: whether
    /// there may be one more connection while others stand.
    pub(super) fn enter(
        self: &Arc<Self>,
        at: usize,
        avoid: Option<&Arc<Link>>,
        may_open: bool,
    ) -> Way {
        let Some(mut server) = self.server(at) else { return Way::Http1 };
        if server.speaks == Speaks::Http1 {
            return Way::Http1;
        }
        server.links.retain(|link| !link.sender.is_closed());
        let usable = |link: &&Arc<Link>| avoid.is_none_or(|avoid| !Arc::ptr_eq(avoid, link));
        let links = server.links.iter().filter(usable);
        let load = |link: &Arc<Link>| {
            (link.streams.load(Ordering::Relaxed), link.most.load(Ordering::Relaxed).max(1))
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
        sender: http2::SendRequest<Outgoing>,
        most: Arc<AtomicUsize>,
        slot: OwnedSemaphorePermit,
    ) -> Stream {
        let link = Arc::new(Link {
            sender,
            streams: AtomicUsize::new(0),
            most,
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
            let idle = |link: &Arc<Link>| link.streams.load(Ordering::Relaxed) == 0;
            let found = server.links.iter().position(idle);
            found.map(|found| server.links.swap_remove(found)).is_some()
        })
    }

    /// Forgets connections that have closed, or had no request for long.
    pub(super) fn sweep(&self) {
        for at in 0..self.servers.len() {
            let Some(mut server) = self.server(at) else { continue };
            server.links.retain(|link| {
                if link.streams.load(Ordering::Relaxed) > 0 {
                    link.idle_sweeps.store(0, Ordering::Relaxed);
                    return !link.sender.is_closed();
                }
                let idle = link.idle_sweeps.fetch_add(1, Ordering::Relaxed) >= IDLE_SWEEPS;
                !idle && !link.sender.is_closed()
            });
        }
    }
}

impl Opening {
    /// A connection stands: it takes requests now, the one that opened it first.
    pub(super) fn opened(
        self,
        sender: http2::SendRequest<Outgoing>,
        most: Arc<AtomicUsize>,
        slot: OwnedSemaphorePermit,
    ) -> Stream {
        let stream = self.streams.add(self.at, sender, most, slot);
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

/// Whether a server says that it has not acted on a request, which may then be sent again whatever its method
/// (RFC 9113 §8.7): it refused the stream, or went away before it came to it.
pub(super) fn is_refused(error: &hyper::Error) -> bool {
    h2_error(error).is_some_and(|error| {
        error.is_remote()
            && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM))
    })
}

/// Whether what a server sent is not HTTP/2, or breaks its rules.
pub(super) fn is_protocol_error(error: &hyper::Error) -> bool {
    use h2::Reason;
    let reason = h2_error(error).filter(|error| !error.is_remote()).and_then(h2::Error::reason);
    matches!(
        reason,
        Some(
            Reason::PROTOCOL_ERROR
                | Reason::FRAME_SIZE_ERROR
                | Reason::COMPRESSION_ERROR
                | Reason::FLOW_CONTROL_ERROR
                | Reason::STREAM_CLOSED
        )
    )
}

/// An error with what lies behind it.
pub(super) fn in_full(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn h2_error(error: &hyper::Error) -> Option<&h2::Error> {
    std::error::Error::source(error)?.downcast_ref()
}
