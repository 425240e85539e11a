//! Opens one connection to a server: TCP, TLS with the name that its certificate must be for, and the version of HTTP
//! that the configuration wants or ALPN settles.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use shared::config::{OriginProtocol, OriginUrl};
use tokio::net::TcpStream;

use super::ask::Outgoing;
use crate::semantics::Reason;

/// Response heads at most.
const MAX_HEAD: usize = 64 << 10;
/// Streams of an HTTP/2 connection until its server says how many it takes: the smallest number that RFC 9113 §6.5.2
/// advises servers to allow.
const FIRST_STREAMS: usize = 100;
/// An HTTP/2 connection with requests on it is asked this often whether it still lives.
const PING: Duration = Duration::from_secs(20);

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
    /// The second is what its server lets run at once.
    Http2(http2::SendRequest<Outgoing>, Arc<AtomicUsize>),
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
            return handshake(TokioIo::new(stream), http2, guard).await;
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
        handshake(TokioIo::new(stream), http2, guard).await
    }
}

async fn handshake<T, G>(io: T, http2: bool, guard: G) -> Result<Opened, Refused>
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    G: Send + 'static,
{
    let failed = |error: hyper::Error| (Reason::ConnectFailed, format!("handshake: {error}"));
    if !http2 {
        let (sender, driver) = http1::Builder::new()
            .max_header_size(MAX_HEAD)
            .max_buf_size(MAX_HEAD.max(256 << 10))
            // RFC 9112 §5.1: a proxy takes such spaces off, from responses.
            .allow_spaces_after_header_name_in_responses(true)
            .handshake(io)
            .await
            .map_err(failed)?;
        tokio::spawn(async move {
            let _guard = guard;
            // What goes wrong is seen by the requests on it.
            let _ = driver.with_upgrades().await;
        });
        return Ok(Opened::Http1(sender));
    }
    let (sender, mut driver) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .initial_max_send_streams(FIRST_STREAMS)
        .max_header_list_size(MAX_HEAD as u32)
        .handshake(io)
        .await
        .map_err(failed)?;
    let most = Arc::new(AtomicUsize::new(FIRST_STREAMS));
    let told = Arc::clone(&most);
    tokio::spawn(async move {
        let _guard = guard;
        let _ = std::future::poll_fn(|cx| {
            let ended = std::pin::Pin::new(&mut driver).poll(cx);
            told.store(driver.current_max_send_streams(), Ordering::Relaxed);
            ended
        })
        .await;
    });
    Ok(Opened::Http2(sender, most))
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
