//! DNS over TLS (RFC 7858): a handshake, then the same as over TCP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::connections::{Connections, Life, accept};
use super::node::Served;
use super::reply::Ends;
use super::tcp::serve_stream;
use crate::answer::Transport;

/// The protocol's name in ALPN. Clients that offer none are served as well; those that offer only others are not.
pub(super) const ALPN: &[u8] = b"dot";

/// How long a handshake may take.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(5);

/// Accepts and answers until the node stops.
pub(super) async fn serve(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    served: Arc<ArcSwap<Served>>,
    connections: Arc<Connections>,
) {
    accept(listener, Arc::clone(&connections), |stream, client, life| {
        let (config, served) = (Arc::clone(&config), Arc::clone(&served));
        let connections = Arc::clone(&connections);
        async move { serve_connection(stream, client, config, &served, &connections, &life).await }
    })
    .await;
}

async fn serve_connection(
    stream: TcpStream,
    client: SocketAddr,
    config: Arc<ServerConfig>,
    served: &ArcSwap<Served>,
    connections: &Connections,
    life: &Life,
) -> io::Result<()> {
    let ends = Ends { client, server: stream.local_addr().ok() };
    let stream = handshake(stream, config, connections).await?;
    serve_stream(stream, ends, Transport::Tls, served, connections, life).await
}

/// The server's side of a handshake. One that is not done in time, or not done right, ends the connection.
pub(super) async fn handshake(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    connections: &Connections,
) -> io::Result<TlsStream<TcpStream>> {
    stream.set_nodelay(true)?;
    let patience = HANDSHAKE.min(connections.limits.idle);
    let done = timeout(patience, TlsAcceptor::from(config).accept(stream)).await;
    done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .inspect_err(|_| connections.counters.failed_handshakes.inc())
}
