//! The origin behind the caches: every object there is, fresh for a day, with a strong validator and ranges; what it is
//! asked for is counted.
#![expect(clippy::disallowed_methods, reason = "a server in a thread of its own")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::body;
use crate::trace::Id;

/// What has been asked of it.
#[derive(Debug, Default)]
pub struct Counters {
    requests: AtomicU64,
    bytes: AtomicU64,
}

/// A reading of the counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Requests.
    pub requests: u64,
    /// Bytes of bodies handed over.
    pub bytes: u64,
}

impl Asked {
    /// What has been asked since `before`.
    pub fn since(self, before: Self) -> Self {
        Self { requests: self.requests - before.requests, bytes: self.bytes - before.bytes }
    }
}

/// A running origin. It ends with the process.
#[derive(Debug)]
pub struct Origin {
    /// Where it listens.
    pub address: SocketAddr,
    counters: Arc<Counters>,
}

impl Origin {
    /// Starts one.
    pub fn start() -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let counters = Arc::new(Counters::default());
        let counting = Arc::clone(&counters);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::spawn(move || runtime.block_on(serve(listener, counting)));
        Ok(Self { address, counters })
    }

    /// What has been asked of it so far.
    pub fn asked(&self) -> Asked {
        let Counters { requests, bytes } = &*self.counters;
        Asked { requests: requests.load(Ordering::Relaxed), bytes: bytes.load(Ordering::Relaxed) }
    }
}

async fn serve(listener: std::net::TcpListener, counters: Arc<Counters>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let counters = Arc::clone(&counters);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let response = answer(&request, &counters);
                async { Ok::<_, Infallible>(response) }
            });
            // A connection that breaks is the cache's business.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

fn answer(request: &Request<Incoming>, counters: &Arc<Counters>) -> Response<Content> {
    counters.requests.fetch_add(1, Ordering::Relaxed);
    let nothing = |status| {
        let mut response = Response::new(Content::new(0, 0, 0, counters));
        *response.status_mut() = status;
        response
    };
    let Some((id, length)) = body::parse(request.uri().path()) else {
        return nothing(StatusCode::NOT_FOUND);
    };
    let range = request.headers().get(header::RANGE).and_then(|value| {
        let (first, last) = value.to_str().ok()?.strip_prefix("bytes=")?.split_once('-')?;
        let first: u64 = first.parse().ok()?;
        let last = if last.is_empty() { length } else { last.parse().ok()? };
        (first <= last && first < length).then(|| (first, last.min(length.saturating_sub(1))))
    });
    let (first, end) = range.map_or((0, length), |(first, last)| (first, last + 1));
    let mut response = Response::new(Content::new(id, first, end, counters));
    let headers = response.headers_mut();
    let fixed = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CACHE_CONTROL, "public, max-age=86400"),
        (header::LAST_MODIFIED, "Sat, 01 Nov 2025 00:00:00 GMT"),
        (header::ACCEPT_RANGES, "bytes"),
    ];
    headers.extend(fixed.map(|(name, value)| (name, HeaderValue::from_static(value))));
    let made = |text: String| HeaderValue::try_from(text).ok();
    headers.extend(made(format!("\"{id:x}\"")).map(|value| (header::ETAG, value)));
    if range.is_some() {
        let value = made(format!("bytes {first}-{}/{length}", end - 1));
        headers.extend(value.map(|value| (header::CONTENT_RANGE, value)));
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    response
}

/// A stretch of an object, piece by piece, counted as it goes.
struct Content {
    id: Id,
    offset: u64,
    end: u64,
    counters: Arc<Counters>,
}

impl Content {
    fn new(id: Id, offset: u64, end: u64, counters: &Arc<Counters>) -> Self {
        Self { id, offset, end, counters: Arc::clone(counters) }
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.offset >= self.end {
            return Poll::Ready(None);
        }
        let piece = body::piece(self.id, self.offset, self.end - self.offset);
        self.offset += piece.len() as u64;
        self.counters.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.offset >= self.end
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.end - self.offset)
    }
}
