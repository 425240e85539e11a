//! HTTPS: a TLS handshake with a chosen ALPN list, then HTTP/1.1 or HTTP/2 through hyper, as negotiated.
//!
//! Certificates are not verified: the nodes under test sign their own.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Version};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use shared::io::tls::unverified_client_config;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::wait::PATIENCE;

/// What came back over TLS.
#[derive(Clone, Debug)]
pub struct SecureReply {
    /// The protocol that ALPN settled on.
    pub alpn: Option<String>,
    /// The version of HTTP.
    pub version: Version,
    /// The status code.
    pub status: StatusCode,
    /// The fields.
    pub fields: HeaderMap,
    /// The content.
    pub body: Bytes,
    /// The server's own certificate, in DER.
    pub certificate: Vec<u8>,
}

/// Sends as many GETs as there are targets at the same time over one connection (one after another on HTTP/1.1).
#[track_caller]
pub fn get(addr: SocketAddr, host: &str, alpn: &[&str], targets: &[&str]) -> Vec<SecureReply> {
    get_for(addr, host, host, alpn, targets)
}

/// The same, with a handshake for another name than the host asked for.
#[track_caller]
pub fn get_for(
    addr: SocketAddr,
    name: &str,
    host: &str,
    alpn: &[&str],
    targets: &[&str],
) -> Vec<SecureReply> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let work = exchange(addr, name, host, alpn, targets);
    let done = runtime.block_on(async { tokio::time::timeout(PATIENCE, work).await });
    match done {
        Ok(Ok(replies)) => replies,
        Ok(Err(error)) => panic!("https://{host} at {addr}: {error:#}"),
        Err(_) => panic!("https://{host} at {addr}: nothing within {PATIENCE:?}"),
    }
}

/// A TLS connection, whoever answers.
pub(crate) async fn connect(
    addr: SocketAddr,
    name: &str,
    alpn: &[&str],
) -> anyhow::Result<TlsStream<TcpStream>> {
    let alpn: Vec<&[u8]> = alpn.iter().map(|name| name.as_bytes()).collect();
    let config = unverified_client_config(&alpn).map_err(anyhow::Error::msg)?;
    let tcp = TcpStream::connect(addr).await?;
    let name = ServerName::try_from(name.to_owned())?;
    Ok(TlsConnector::from(Arc::new(config)).connect(name, tcp).await?)
}

async fn exchange(
    addr: SocketAddr,
    name: &str,
    host: &str,
    alpn: &[&str],
    targets: &[&str],
) -> anyhow::Result<Vec<SecureReply>> {
    let tls = connect(addr, name, alpn).await?;
    let chosen = tls.get_ref().1.alpn_protocol().map(|p| String::from_utf8_lossy(p).into_owned());
    let certificates = tls.get_ref().1.peer_certificates();
    let certificate =
        certificates.and_then(<[_]>::first).map(|one| one.to_vec()).unwrap_or_default();
    let io = TokioIo::new(tls);
    let mut replies = Vec::new();
    let read = async |response: http::Response<hyper::body::Incoming>| {
        let (parts, body) = response.into_parts();
        anyhow::Ok(SecureReply {
            alpn: chosen.clone(),
            version: parts.version,
            status: parts.status,
            fields: parts.headers,
            body: body.collect().await?.to_bytes(),
            certificate: certificate.clone(),
        })
    };
    if chosen.as_deref() == Some("h2") {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        let mut waiting = Vec::new();
        for target in targets {
            let request = Request::get(format!("https://{host}{target}"));
            waiting.push(tokio::spawn(sender.send_request(request.body(Empty::<Bytes>::new())?)));
        }
        for response in waiting {
            replies.push(read(response.await??).await?);
        }
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
        tokio::spawn(connection);
        for target in targets {
            let request = Request::get(*target).header("host", host);
            let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
            replies.push(read(response).await?);
        }
    }
    Ok(replies)
}
