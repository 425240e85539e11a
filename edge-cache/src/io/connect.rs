//! Opens one connection to a server: TCP, TLS with the name that its certificate must be for, and the version of HTTP
//! that the configuration wants or ALPN settles.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Ping, PingPong};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use shared::config::{OriginProtocol, OriginUrl};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::ask::Outgoing;
use super::streams::Load;
use crate::semantics::Reason;

/// Response heads at most.
const MAX_HEAD: usize = 64 << 10;
/// Streams of an HTTP/2 connection until its server says how many it takes: the smallest number that RFC 9113 §6.5.2
/// advises servers to allow.
const FIRST_STREAMS: usize = 100;
/// An HTTP/2 connection with requests on it is asked this often whether it still lives…
const PING: Duration = Duration::from_secs(20);
/// … and believed until it has not answered for so long.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// What a server may send ahead on a stream, and on all of a connection.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 5 << 20;
/// What is held of a request's content for a connection that does not take it.
const SEND_BUFFER: usize = 1 << 20;
/// Streams that are reset for an error of the server's; then the connection ends.
const ERROR_RESETS: usize = 1024;

/// How connections to an upstream's servers are made.
#[derive(Clone, Debug, Default)]
pub struct Transport {
    /// For https servers.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// The name sent and verified; none: the server's own.
    pub sni: Option<String>,
    /// Which version is spoken.
    pub protocol: OriginProtocol,
}

/// A connection that stands. Its driver runs until it ends, and keeps `guard` until then.
pub(super) enum Opened {
    Http1(http1::SendRequest<Outgoing>),
    Http2(SendRequest<Bytes>, Arc<Load>),
}

/// Why there is no connection: the reason, and in words.
pub(super) type Refused = (Reason, String);

impl Transport {
    /// What is offered by ALPN.
    pub fn alpn(protocol: OriginProtocol) -> &'static [&'static [u8]] {
        match protocol {
            OriginProtocol::Auto => &[b"h2", b"http/1.1"],
            OriginProtocol::Http1 => &[b"http/1.1"],
            OriginProtocol::Http2 => &[b"h2"],
        }
    }

    /// The same for HTTP/1.1 only: for connections that are to be switched to another protocol.
    pub(super) fn http1(&self) -> Self {
        let mut tls = self.tls.clone();
        if let Some(config) = &mut tls {
            let offered = Self::alpn(OriginProtocol::Http1).iter().map(|name| name.to_vec());
            Arc::make_mut(config).alpn_protocols = offered.collect();
        }
        Self { tls, sni: self.sni.clone(), protocol: OriginProtocol::Http1 }
    }

    /// The name that a server's certificate must be for.
    pub fn name<'a>(&'a self, server: &'a OriginUrl) -> &'a str {
        self.sni.as_deref().unwrap_or(&server.host)
    }

    /// Opens a connection.
    pub(super) async fn open<G>(&self, server: &OriginUrl, guard: G) -> Result<Opened, Refused>
    where
        G: Send + 'static,
    {
        let stream = connect_tcp(&server.host, server.port)
            .await
            .map_err(|error| (Reason::ConnectFailed, format!("{server}: {error}")))?;
        if !server.tls {
            let http2 = self.protocol == OriginProtocol::Http2;
            return handshake(stream, http2, guard).await;
        }
        let failed = |detail: String| (Reason::TlsFailed, format!("{server}: {detail}"));
        let config = self.tls.as_ref().ok_or_else(|| failed("no TLS is configured".to_owned()))?;
        let name = ServerName::try_from(self.name(server).to_owned())
            .map_err(|error| failed(error.to_string()))?;
        let stream = tokio_rustls::TlsConnector::from(Arc::clone(config))
            .connect(name, stream)
            .await
            .map_err(|error| (tls_reason(&error), format!("{server}: {error}")))?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        if self.protocol == OriginProtocol::Http2 && !http2 {
            return Err(failed("it does not offer HTTP/2 (ALPN `h2`)".to_owned()));
        }
        handshake(stream, http2, guard).await
    }
}

async fn handshake<T, G>(io: T, http2: bool, guard: G) -> Result<Opened, Refused>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    G: Send + 'static,
{
    if !http2 {
        let (sender, driver) = http1::Builder::new()
            .max_header_size(MAX_HEAD)
            .max_buf_size(MAX_HEAD)
            // RFC 9112 §5.1: a proxy takes such spaces off, from responses.
            .allow_spaces_after_header_name_in_responses(true)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|error| (Reason::ConnectFailed, format!("handshake: {error}")))?;
        tokio::spawn(async move {
            let _guard = guard;
            // What goes wrong is seen by the requests on it.
            let _ = driver.with_upgrades().await;
        });
        return Ok(Opened::Http1(sender));
    }
    let (sender, mut driver) = h2::client::Builder::new()
        .initial_max_send_streams(FIRST_STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEAD as u32)
        .max_send_buffer_size(SEND_BUFFER)
        .max_local_error_reset_streams(Some(ERROR_RESETS))
        .enable_push(false)
        .handshake::<_, Bytes>(io)
        .await
        .map_err(|error| (Reason::ConnectFailed, format!("handshake: {error}")))?;
    let load =
        Arc::new(Load { streams: AtomicUsize::new(0), most: AtomicUsize::new(FIRST_STREAMS) });
    let told = Arc::clone(&load);
    tokio::spawn(async move {
        let _guard = guard;
        let mut lost = pin!(lost(driver.ping_pong(), &told));
        std::future::poll_fn(|cx| {
            // What goes wrong is seen by the requests on it.
            let ended = Pin::new(&mut driver).poll(cx).is_ready();
            told.most.store(driver.max_concurrent_send_streams(), Ordering::Relaxed);
            if ended { std::task::Poll::Ready(()) } else { lost.as_mut().poll(cx) }
        })
        .await;
    });
    Ok(Opened::Http2(sender, load))
}

/// Returns when a server with requests to answer does not answer any more.
async fn lost(ping: Option<PingPong>, load: &Load) {
    let Some(mut ping) = ping else { return std::future::pending().await };
    loop {
        tokio::time::sleep(PING).await;
        if load.streams.load(Ordering::Relaxed) == 0 {
            continue;
        }
        match tokio::time::timeout(PING_TIMEOUT, ping.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // The connection ends by itself.
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) => return,
        }
    }
}

/// Whether it is the certificate that is not good, or something else about TLS.
fn tls_reason(error: &std::io::Error) -> Reason {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(_)) => Reason::TlsCertificate,
        _ => Reason::TlsFailed,
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
