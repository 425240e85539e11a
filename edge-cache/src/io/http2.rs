//! HTTP/2 to clients, on the h2 crate itself: hyper's server over it has no way to send interim responses, does not hand
//! on the crate's limits, and waits without end for a client that opens no window.
//!
//! One task drives a connection, one each its requests. h2 bounds what a client can make us hold or do: streams that it
//! resets before they are answered, errors of its own, CONTINUATION frames, small DATA frames, the header list; it refuses
//! malformed requests (RFC 9113 §8.1.1: pseudo-fields, connection fields, upper case, a wrong Content-Length) by itself.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream};
use http::header::{CONTENT_LENGTH, EXPECT};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::gate::{Gate, Limits, Linger};
use super::http2_content::send;
use super::request_body::{Http2Body, RequestBody};
use super::serve::{Connection, handle};

/// Streams at once on one connection.
const STREAMS: u32 = 128;
/// Streams that the client may reset before we have seen them; then the connection ends (CVE-2023-44487).
const PENDING_RESETS: usize = 20;
/// Streams that we reset for an error of the client's; then the connection ends (CVE-2025-8671).
const ERROR_RESETS: usize = 128;
/// Whether the client is still there is asked so often…
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// … and believed until it has not answered for so long.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves one connection until it ends, or until `stopping` and what was begun has ended.
///
/// # Errors
/// The client broke the protocol, or went away in the middle.
pub async fn serve<S: Linger>(
    io: Gate<S>,
    connection: Arc<Connection>,
    limits: Limits,
) -> Result<(), h2::Error> {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(limits.max_head).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(Some(ERROR_RESETS))
        .initial_window_size(256 << 10)
        .initial_connection_window_size(1 << 20)
        .max_send_buffer_size(400 << 10);
    let handshake = timeout(limits.head, builder.handshake::<_, Bytes>(io)).await;
    let Ok(handshake) = handshake else { return Ok(()) };
    let mut client = handshake?;
    let mut alive = pin!(pings(client.ping_pong()));
    let mut stopping = connection.node.stopping();
    let (mut stops, mut gone) = (false, false);
    loop {
        tokio::select! {
            accepted = client.accept() => match accepted {
                Some(Ok((request, reply))) => {
                    tokio::spawn(answer(Arc::clone(&connection), request, reply, limits));
                }
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
            () = &mut alive, if !gone => {
                gone = true;
                client.abrupt_shutdown(Reason::NO_ERROR);
            }
            _ = stopping.wait_for(|stopping| *stopping), if !stops => {
                stops = true;
                client.graceful_shutdown();
            }
        }
    }
}

/// Returns when the client does not answer any more.
async fn pings(ping: Option<PingPong>) {
    let Some(mut ping) = ping else { return std::future::pending().await };
    loop {
        tokio::time::sleep(PING_INTERVAL).await;
        match timeout(PING_TIMEOUT, ping.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // The connection ends by itself.
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) => return,
        }
    }
}

/// Answers one request.
async fn answer(
    connection: Arc<Connection>,
    request: Request<RecvStream>,
    reply: SendResponse<Bytes>,
    limits: Limits,
) {
    let (parts, stream) = request.into_parts();
    let (wanted, asked) = oneshot::channel();
    let wanted = Some(wanted).filter(|_| parts.headers.contains_key(EXPECT));
    let mut waits = wanted.is_some();
    let mut asked = pin!(asked);
    let length = parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let length = length.and_then(|text| text.parse().ok());
    let is_head = parts.method == Method::HEAD;
    let body = RequestBody::Http2(Http2Body::new(stream, length, wanted));
    // The connection is not idle before all of the response is on its way.
    let gate = Arc::clone(&connection.gate);
    let _busy = gate.begin();
    let reply = Mutex::new(reply);
    let lock = || reply.lock().unwrap_or_else(PoisonError::into_inner);
    let response = {
        let mut response = pin!(handle(connection, Request::from_parts(parts, body), Some(&reply)));
        loop {
            tokio::select! {
                biased;
                response = &mut response => break response,
                wanted = &mut asked, if waits => {
                    waits = false;
                    if wanted.is_ok() {
                        let mut interim = Response::new(());
                        *interim.status_mut() = StatusCode::CONTINUE;
                        let _ = lock().send_informational(interim);
                    }
                }
                // The client wants no answer any more.
                _ = std::future::poll_fn(|cx| lock().poll_reset(cx)) => return,
            }
        }
    };
    let (mut head, body) = response.into_parts();
    let ended = body.is_end_stream();
    if !ended
        && !is_head
        && let Some(length) = body.size_hint().exact()
    {
        head.headers.entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    let sent = lock().send_response(Response::from_parts(head, ()), ended);
    match sent {
        Ok(_) if ended => {}
        Ok(stream) => {
            let backlog = Some(gate.backlog());
            send(stream, body, Some(limits.idle), Reason::INTERNAL_ERROR, backlog).await;
        }
        Err(error) => {
            tracing::debug!(%error, "a response cannot be sent");
            lock().send_reset(Reason::INTERNAL_ERROR);
        }
    }
}
