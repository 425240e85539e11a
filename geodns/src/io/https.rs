//! DNS over HTTPS (RFC 8484) on HTTP/2. What a request asks for, and how long an answer may be kept, is decided in
//! [`crate::doh`]; hyper speaks the protocol.
//!
//! Within the limits on connections, one connection has at most [`STREAMS`] requests at work, whose heads and bodies
//! are bounded, and keeps nothing of a request that is answered. One that brings no whole query within the idle time is
//! closed, whatever else it sends; so is one that takes no answers, because it can then send no new queries.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout, timeout_at};

use super::connections::{Connections, Life, accept};
use super::node::Served;
use super::reply::{Ends, MAX_QUERY, reply};
use super::tls::handshake;
use crate::answer::Transport;
use crate::doh::{self, MEDIA_TYPE, Refusal, Source};
use crate::metrics::Batch;

/// The protocol's name in ALPN.
pub(super) const ALPN: &[u8] = b"h2";

/// Requests at once on one connection.
const STREAMS: u32 = 64;
/// All fields of a request: the longest query in base64url, and as much again for others.
const MAX_HEAD: u32 = 12 << 10;
/// What of a request's body may come before it is read: more than the longest query.
const STREAM_WINDOW: u32 = 8 << 10;
/// Answers that wait for one stream of a client.
const SEND_BUFFER: usize = 64 << 10;
/// How long a connection that we end may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// Accepts and answers until the node stops.
pub(super) async fn serve(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    served: Arc<ArcSwap<Served>>,
    connections: Arc<Connections>,
) {
    accept(listener, Arc::clone(&connections), |stream, client, life| {
        let (config, served) = (Arc::clone(&config), Arc::clone(&served));
        serve_connection(stream, client, config, served, Arc::clone(&connections), life)
    })
    .await;
}

/// What the requests of one connection share.
struct Connection {
    ends: Ends,
    served: Arc<ArcSwap<Served>>,
    connections: Arc<Connections>,
    life: Life,
    begun: Instant,
    /// When the last query was answered, in milliseconds after `begun`.
    answered: AtomicU64,
}

async fn serve_connection(
    stream: TcpStream,
    client: SocketAddr,
    config: Arc<ServerConfig>,
    served: Arc<ArcSwap<Served>>,
    connections: Arc<Connections>,
    life: Life,
) -> io::Result<()> {
    let ends = Ends { client, server: stream.local_addr().ok() };
    let stream = handshake(stream, config, &connections).await?;
    if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
        // It would speak HTTP/1.1.
        return Ok(());
    }
    let begun = Instant::now();
    let state = Arc::new(Connection { ends, served, connections, life, begun, answered: 0.into() });
    let requests = Arc::clone(&state);
    let service = service_fn(move |request| {
        let connection = Arc::clone(&requests);
        async move { Ok::<_, Infallible>(connection.respond(request).await) }
    });
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(MAX_HEAD)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STREAM_WINDOW * STREAMS)
        .max_send_buf_size(SEND_BUFFER);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        ended = connection.as_mut() => return ended.map_err(io::Error::other),
        () = state.idle() => {}
        () = state.connections.stopping() => {}
    }
    connection.as_mut().graceful_shutdown();
    timeout(GOODBYE, connection).await?.map_err(io::Error::other)
}

impl Connection {
    /// Becomes ready when no query was answered for the idle time.
    async fn idle(&self) {
        let deadline = || {
            let answered = Duration::from_millis(self.answered.load(Ordering::Relaxed));
            self.begun + answered + self.connections.limits.idle
        };
        while deadline() > Instant::now() {
            tokio::time::sleep_until(deadline()).await;
        }
    }

    async fn respond(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let answered = match doh::source(&head.method, &head.uri, &head.headers) {
            Ok(Source::Uri(query)) => self.answer(&query),
            Ok(Source::Body) => match self.read(body).await {
                Ok(query) => self.answer(&query),
                Err(refusal) => Err(refusal),
            },
            Err(refusal) => Err(refusal),
        };
        let mut response = answered.unwrap_or_else(|refusal| refuse(&refusal));
        if head.method == Method::HEAD {
            // RFC 9110 §9.3.2.
            *response.body_mut() = Full::default();
        }
        response
    }

    async fn read(&self, body: Incoming) -> Result<Bytes, Refusal> {
        if body.size_hint().lower() > MAX_QUERY as u64 {
            return Err(doh::TOO_LONG);
        }
        let whole = Limited::new(body, MAX_QUERY).collect();
        match timeout_at(self.connections.deadline(), whole).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(doh::TOO_LONG),
            Ok(Err(_)) => Err(doh::NO_QUERY),
            Err(_) => Err(doh::TOO_SLOW),
        }
    }

    fn answer(&self, query: &[u8]) -> Result<Response<Full<Bytes>>, Refusal> {
        let served = self.served.load_full();
        let mut batch = Batch::default();
        let mut response = Err(doh::NO_QUERY);
        reply(query, self.ends, Transport::Https, &served, &mut batch, |answer| {
            let max_age = format!("max-age={}", doh::max_age(answer));
            let mut answered = Response::new(Full::new(Bytes::copy_from_slice(answer)));
            let fields = answered.headers_mut();
            fields.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
            if let Ok(max_age) = HeaderValue::try_from(max_age) {
                fields.insert(CACHE_CONTROL, max_age);
            }
            response = Ok(answered);
        });
        served.stats.add(&mut batch);
        let elapsed = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.answered.store(elapsed, Ordering::Relaxed);
        self.life.answered(Instant::now());
        response
    }
}

fn refuse(refusal: &Refusal) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(refusal.why.as_bytes())));
    *response.status_mut() = refusal.status;
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    if refusal.status == StatusCode::METHOD_NOT_ALLOWED {
        fields.insert(ALLOW, HeaderValue::from_static("GET, POST"));
    }
    response
}
