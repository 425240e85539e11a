//! DNS over TLS, HTTPS and QUIC, with the server's certificate verified against the one that the test made.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};
use tokio_rustls::TlsConnector;

use crate::dns::Answer;
use crate::wait::PATIENCE;

/// The name in certificates.
const NAME: &str = "ns1.cdn.test";

/// Runs a test's conversation to its end, which must come within [`PATIENCE`].
#[track_caller]
pub fn run<T>(conversation: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let done = runtime.block_on(async { tokio::time::timeout(PATIENCE, conversation).await });
    done.unwrap_or_else(|_| panic!("the conversation was not over within {PATIENCE:?}"))
}

/// A certificate that clients of this module trust, and its key.
#[derive(Clone, Debug)]
pub struct Certified {
    /// The certificate, PEM.
    pub certificate: String,
    /// The key, PEM.
    pub key: String,
    der: CertificateDer<'static>,
}

impl Default for Certified {
    fn default() -> Self {
        Self::new()
    }
}

impl Certified {
    /// A new one.
    pub fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).unwrap();
        Self {
            certificate: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
            der: made.cert.der().clone(),
        }
    }

    /// A client's settings that trust nothing else.
    pub fn trusted(&self, alpn: &[&str]) -> ClientConfig {
        self.trusted_with(alpn, rustls::ALL_VERSIONS)
    }

    /// The same with these versions of TLS.
    pub fn trusted_with(
        &self,
        alpn: &[&str],
        versions: &[&'static SupportedProtocolVersion],
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }
}

/// A connection of DNS over TLS.
pub struct Dot(StreamOwned<ClientConnection, TcpStream>);

impl Dot {
    /// Connects and completes the handshake.
    pub fn connect(server: SocketAddr, config: ClientConfig) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&server, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(NAME).unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, stream);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self(stream))
    }

    /// Sends a message with its length in front.
    pub fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let length = u16::try_from(message.len()).unwrap().to_be_bytes();
        self.send_bytes(&[&length[..], message].concat())
    }

    /// Sends these bytes.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)?;
        self.0.flush()
    }

    /// The next answer; `None` when the peer has ended the connection as TLS wants it ended.
    pub fn receive(&mut self) -> io::Result<Option<Answer>> {
        let mut length = [0; 2];
        if self.0.read(&mut length[..1])? == 0 {
            return Ok(None);
        }
        self.0.read_exact(&mut length[1..])?;
        let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
        self.0.read_exact(&mut bytes)?;
        Ok(Some(Answer::read(bytes)))
    }

    /// What the handshake settled on.
    pub fn session(&self) -> &ClientConnection {
        &self.0.conn
    }
}

/// What came back over HTTPS.
#[derive(Clone, Debug)]
pub struct DohReply {
    /// The status code.
    pub status: StatusCode,
    /// The fields.
    pub fields: HeaderMap,
    /// The content.
    pub body: Bytes,
}

/// A connection of DNS over HTTPS.
#[derive(Clone)]
pub struct Doh {
    sender: SendRequest<Full<Bytes>>,
}

impl Doh {
    /// Connects and completes the handshakes of TLS and HTTP/2.
    pub async fn connect(server: SocketAddr, config: ClientConfig) -> anyhow::Result<Self> {
        let tcp = tokio::net::TcpStream::connect(server).await?;
        let name = ServerName::try_from(NAME)?;
        let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
        anyhow::ensure!(tls.get_ref().1.alpn_protocol() == Some(b"h2"), "no HTTP/2");
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await?;
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    /// Sends a request with these fields.
    pub async fn request(
        &self,
        method: Method,
        target: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> anyhow::Result<DohReply> {
        let mut request = Request::builder().method(method).uri(format!("https://{NAME}{target}"));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body)))?;
        let response = self.sender.clone().send_request(request).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(DohReply { status: head.status, fields: head.headers, body })
    }

    /// A query by POST.
    pub async fn post(&self, query: &[u8]) -> anyhow::Result<DohReply> {
        let fields = [("content-type", "application/dns-message")];
        self.request(Method::POST, "/dns-query", &fields, query).await
    }

    /// A query by GET.
    pub async fn get(&self, query: &[u8]) -> anyhow::Result<DohReply> {
        let target = format!("/dns-query?dns={}", base64url(query));
        self.request(Method::GET, &target, &[], b"").await
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

fn base64url(octets: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in octets.chunks(3) {
        let bits = (0..3).fold(0, |bits, at| bits << 8 | u32::from(*chunk.get(at).unwrap_or(&0)));
        for six in (0..=chunk.len()).map(|at| bits >> (18 - 6 * at) & 63) {
            text.push(LETTERS[six as usize].into());
        }
    }
    text
}

/// A connection of DNS over QUIC.
pub struct Doq {
    /// The connection, for what is not as it should be.
    pub connection: quinn::Connection,
    endpoint: quinn::Endpoint,
}

impl Doq {
    /// Connects and completes the handshake.
    pub async fn connect(server: SocketAddr, config: ClientConfig) -> anyhow::Result<Self> {
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse()?)?;
        let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config)?));
        let connection = endpoint.connect_with(config, server, NAME)?.await?;
        Ok(Self { connection, endpoint })
    }

    /// Asks on a stream of its own. The query goes with the id 0.
    pub async fn ask(&self, query: &[u8]) -> anyhow::Result<Answer> {
        let mut query = query.to_vec();
        query[..2].fill(0);
        let framed = [&u16::try_from(query.len())?.to_be_bytes()[..], &query].concat();
        let answer = self.stream(&framed).await?;
        let (length, message) =
            answer.split_first_chunk().ok_or_else(|| anyhow::anyhow!("no length"))?;
        anyhow::ensure!(usize::from(u16::from_be_bytes(*length)) == message.len(), "{answer:?}");
        Ok(Answer::read(message.to_vec()))
    }

    /// Sends these bytes on a stream, ends it, and returns all that comes back on it.
    pub async fn stream(&self, bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
        let (mut send, mut receive) = self.connection.open_bi().await?;
        send.write_all(bytes).await?;
        send.finish()?;
        Ok(receive.read_to_end(1 << 17).await?)
    }

    /// Ends the connection so that the server knows; one that is dropped is missed only when it is idle for too long.
    pub async fn close(self) {
        self.connection.close(0_u32.into(), b"");
        self.endpoint.wait_idle().await;
    }

    /// Waits for the connection to end; the code that the server gives.
    pub async fn closed(&self) -> Result<u64, quinn::ConnectionError> {
        match self.connection.closed().await {
            quinn::ConnectionError::ApplicationClosed(close) => Ok(close.error_code.into_inner()),
            other => Err(other),
        }
    }
}
