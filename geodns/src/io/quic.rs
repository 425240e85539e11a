//! DNS over QUIC (RFC 9250): a query and its answer per stream. What a stream must hold is decided in [`crate::doq`];
//! quinn speaks the protocol and answers from the address that was asked.
//!
//! Within the limits on connections, one connection has at most [`STREAMS`] queries at work and [`SEND_WINDOW`] octets
//! of answers that the client has not taken. An address that may be forged gets one place at most: whoever asks from an
//! address that has one, or when many places are taken, must first show that it receives there (RFC 9000 §8.1.2). No
//! 0-RTT: its queries could be replayed. No migration, which would move a client out of its limit; and with several
//! sockets on one port, the kernel finds the right one by the client's address.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{
    Connection, Endpoint, EndpointConfig, IdleTimeout, Incoming, ReadError, ReadToEndError,
    RecvStream, SendStream, ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::connections::{Connections, LAST_ANSWERS, LAST_QUERIES, Life};
use super::node::Served;
use super::reply::{Ends, MAX_QUERY, reply};
use super::tls::HANDSHAKE;
use crate::answer::{Outcome, Transport};
use crate::doq::{self, Violation, code};
use crate::metrics::Batch;

/// The protocol's name in ALPN, without which there is no connection.
pub(super) const ALPN: &[u8] = b"doq";

/// Queries at once on one connection.
const STREAMS: u32 = 64;
/// What of a query may come before it is read: more than the longest one.
const STREAM_WINDOW: u32 = 8 << 10;
/// The same for all streams together.
const RECEIVE_WINDOW: u32 = 128 << 10;
/// Answers that a client has not acknowledged.
const SEND_WINDOW: u64 = 256 << 10;
/// Handshakes that begin at once, before they are looked at.
const INCOMING: usize = 256;
/// Packets of a client that come before its handshake is looked at, and of all such clients.
const INCOMING_BYTES: (u64, u64) = (16 << 10, 1 << 20);
/// How long a socket that we close may take to say goodbye to all.
const GOODBYE: Duration = Duration::from_millis(100);

/// The settings of every socket.
///
/// # Errors
/// The cryptography lacks what QUIC needs: a fault of the build.
pub(super) fn server_config(
    tls: rustls::ServerConfig,
    idle: Duration,
) -> Result<ServerConfig, String> {
    let tls = QuicServerConfig::try_from(tls).map_err(|error| error.to_string())?;
    let mut transport = TransportConfig::default();
    // Longer than can be said is for ever, which our own time-out ends.
    // Later than our own limit, which ends a connection with a code instead of in silence.
    let idle = IdleTimeout::try_from(idle.saturating_add(Duration::from_secs(1))).ok();
    transport
        .max_concurrent_bidi_streams(STREAMS.into())
        .max_concurrent_uni_streams(0_u32.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(RECEIVE_WINDOW.into())
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(idle);
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    config
        .transport_config(Arc::new(transport))
        .migration(false)
        .max_incoming(INCOMING)
        .incoming_buffer_size(INCOMING_BYTES.0)
        .incoming_buffer_size_total(INCOMING_BYTES.1);
    Ok(config)
}

/// Answers until the node stops.
pub(super) async fn serve(
    socket: UdpSocket,
    config: ServerConfig,
    served: Arc<ArcSwap<Served>>,
    connections: Arc<Connections>,
) {
    let ours = EndpointConfig::default();
    let endpoint = match Endpoint::new(ours, Some(config), socket, Arc::new(TokioRuntime)) {
        Ok(endpoint) => endpoint,
        Err(error) => {
            tracing::error!(%error, "a QUIC socket cannot be used");
            return;
        }
    };
    loop {
        let incoming = tokio::select! {
            incoming = endpoint.accept() => incoming,
            () = connections.stopping() => break,
        };
        let Some(incoming) = incoming else { break };
        take(incoming, &served, &connections);
    }
    endpoint.set_server_config(None);
    // Those who are connected are answered first, then told.
    if timeout(LAST_ANSWERS, endpoint.wait_idle()).await.is_err() {
        endpoint.close(code::NO_ERROR.into(), b"");
        let _ = timeout(GOODBYE, endpoint.wait_idle()).await;
    }
}

fn take(incoming: Incoming, served: &Arc<ArcSwap<Served>>, connections: &Arc<Connections>) {
    let client = incoming.remote_address();
    if !incoming.remote_address_validated() && connections.is_crowded(client.ip()) {
        // It comes again, with what only the owner of the address has been told.
        let _ = incoming.retry();
        return;
    }
    let (served, all) = (Arc::clone(served), Arc::clone(connections));
    // Where there is no place for it, it is let go, which refuses it.
    all.clone().spawn(client.ip(), |life| async move {
        let connections = all;
        let patience = HANDSHAKE.min(connections.limits.idle);
        match timeout(patience, incoming.into_future()).await {
            Ok(Ok(connection)) => serve_connection(connection, served, connections, life).await,
            _ => connections.counters.failed_handshakes.inc(),
        }
    });
}

async fn serve_connection(
    connection: Connection,
    served: Arc<ArcSwap<Served>>,
    connections: Arc<Connections>,
    life: Life,
) {
    let mut queries = JoinSet::new();
    let mut deadline = connections.deadline();
    let mut is_stopping = false;
    loop {
        tokio::select! {
            stream = connection.accept_bi() => {
                let Ok((send, receive)) = stream else { return };
                let patience = connections.deadline();
                if !is_stopping {
                    deadline = patience;
                }
                let (connection, served) = (connection.clone(), Arc::clone(&served));
                let life = life.clone();
                queries.spawn(serve_stream(send, receive, connection, served, life, patience));
            }
            Some(_) = queries.join_next(), if !queries.is_empty() => {}
            () = sleep_until(deadline) => break,
            () = connections.stopping(), if !is_stopping => {
                is_stopping = true;
                deadline = deadline.min(Instant::now() + LAST_QUERIES);
            }
        }
    }
    while is_stopping && queries.join_next().await.is_some() {}
    // RFC 9250 §5.5.2: not an error, and the client may come again.
    close(&connection, code::NO_ERROR, "");
}

/// Answers the query of one stream.
async fn serve_stream(
    mut send: SendStream,
    mut receive: RecvStream,
    connection: Connection,
    served: Arc<ArcSwap<Served>>,
    life: Life,
    deadline: Instant,
) {
    let received = match timeout_at(deadline, receive.read_to_end(2 + MAX_QUERY)).await {
        Ok(Ok(received)) => received,
        Ok(Err(ReadToEndError::TooLong)) => {
            return violated(&connection, Violation("too long a query"));
        }
        Ok(Err(ReadToEndError::Read(ReadError::Reset(_)))) => {
            // The client has lost interest.
            let _ = send.reset(code::NO_ERROR.into());
            return;
        }
        Ok(Err(_)) => return,
        Err(_) => {
            let _ = receive.stop(code::EXCESSIVE_LOAD.into());
            let _ = send.reset(code::EXCESSIVE_LOAD.into());
            return;
        }
    };
    let answer = match doq::query(&received) {
        Ok(query) => answer(query, connection.remote_address(), &served),
        Err(violation) => return violated(&connection, violation),
    };
    life.answered(Instant::now());
    let Some(answer) = answer else { return violated(&connection, Violation("not a query")) };
    let sent = timeout_at(deadline, async {
        send.write_all(&answer).await.ok()?;
        send.finish().ok()?;
        // Only what has arrived makes room for another stream.
        send.stopped().await.ok()
    });
    let _ = sent.await;
}

fn answer(query: &[u8], client: SocketAddr, served: &ArcSwap<Served>) -> Option<Vec<u8>> {
    let served = served.load_full();
    let mut batch = Batch::default();
    let mut framed = Vec::new();
    let ends = Ends { client, server: None };
    let outcome = reply(query, ends, Transport::Quic, &served, &mut batch, |answer| {
        framed.extend(u16::try_from(answer.len()).unwrap_or(0).to_be_bytes());
        framed.extend_from_slice(answer);
    });
    served.stats.add(&mut batch);
    matches!(outcome, Outcome::Respond { .. }).then_some(framed)
}

fn violated(connection: &Connection, violation: Violation) {
    close(connection, code::PROTOCOL_ERROR, violation.0);
}

fn close(connection: &Connection, code: u32, reason: &str) {
    connection.close(VarInt::from_u32(code), reason.as_bytes());
}
