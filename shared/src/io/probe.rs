//! Asks whether a target is well. [`crate::health`] judges the answers.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::StatusPattern;

/// What is asked.
#[derive(Clone, Debug)]
pub enum Question {
    /// That a connection is accepted.
    Tcp,
    /// That a request is answered with a good status.
    Http {
        /// `Host`.
        host: String,
        /// Path and query.
        path: String,
        /// What is good.
        status: Vec<StatusPattern>,
        /// Over TLS, the certificate verified against this name: that of the server asked, whatever `Host` says.
        tls: Option<(String, Arc<ClientConfig>)>,
        /// What proves that we may ask, sent as `Authorization: Bearer`.
        token: Option<Secret>,
    },
}

/// What must not be seen in a log.
#[derive(Clone)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// What a target that is well has answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// HTTP: the body.
    pub body: Bytes,
    /// TLS: the certificates that it showed, its own first.
    pub certificates: Vec<CertificateDer<'static>>,
}

/// Why a target is not well.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Failure {
    /// Nobody accepts connections.
    #[error("connect: {0}")]
    Connect(String),
    /// The handshake failed or the certificate is not good.
    #[error("TLS: {0}")]
    Tls(String),
    /// What came is not HTTP, or the connection broke.
    #[error("HTTP: {0}")]
    Http(String),
    /// Another status.
    #[error("status {0}")]
    Status(u16),
    /// Not done in time.
    #[error("timed out")]
    TimedOut,
}

/// Response bodies are read to this length at most.
const MAX_BODY: usize = 64 << 10;

/// Asks `address` once. A body longer than 64 KiB is a failure.
///
/// # Errors
/// Why the target is not well.
pub async fn ask(
    address: SocketAddr,
    question: &Question,
    timeout: Duration,
) -> Result<Answer, Failure> {
    match tokio::time::timeout(timeout, ask_in_time(address, question)).await {
        Ok(result) => result,
        Err(_) => Err(Failure::TimedOut),
    }
}

async fn ask_in_time(address: SocketAddr, question: &Question) -> Result<Answer, Failure> {
    let stream =
        TcpStream::connect(address).await.map_err(|error| Failure::Connect(error.to_string()))?;
    let Question::Http { host, path, status, tls, token } = question else {
        return Ok(Answer::default());
    };
    let token = token.as_ref().map(|token| token.0.as_str());
    let Some((name, config)) = tls else {
        let body = request(stream, host, path, status, token).await?;
        return Ok(Answer { body, certificates: Vec::new() });
    };
    let failed = |error: &dyn fmt::Display| Failure::Tls(error.to_string());
    let name = ServerName::try_from(name.clone()).map_err(|error| failed(&error))?;
    let stream = TlsConnector::from(config.clone())
        .connect(name, stream)
        .await
        .map_err(|error| failed(&error))?;
    let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let certificates = shown.iter().map(|shown| shown.clone().into_owned()).collect();
    let body = request(stream, host, path, status, token).await?;
    Ok(Answer { body, certificates })
}

async fn request<S>(
    stream: S,
    host: &str,
    path: &str,
    status: &[StatusPattern],
    token: Option<&str>,
) -> Result<Bytes, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |error: &dyn fmt::Display| Failure::Http(error.to_string());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(&error))?;
    let mut request = http::Request::get(path)
        .header("host", host)
        .header("user-agent", "meridian-check")
        .header("connection", "close");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| failed(&error))?;
    // Both halves run in this task, so that a time-out ends the connection, too.
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
        let code = response.status().as_u16();
        if !status.iter().any(|pattern| pattern.matches(code)) {
            return Err(Failure::Status(code));
        }
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
        body.map(http_body_util::Collected::to_bytes)
            .map_err(|error| Failure::Http(error.to_string()))
    };
    tokio::pin!(answer, connection);
    tokio::select! {
        result = &mut answer => result,
        ended = &mut connection => match ended {
            // What came before the end may still wait to be read.
            Ok(()) => answer.await,
            Err(error) => Err(failed(&error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Answers one connection with these bytes.
    async fn server(answer: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer).await;
        });
        address
    }

    fn http() -> Question {
        let status = vec![StatusPattern { from: 200, to: 200 }];
        let (host, path) = ("h.test".to_owned(), "/".to_owned());
        Question::Http { host, path, status, tls: None, token: None }
    }

    async fn ask_server(answer: &'static [u8]) -> Result<Answer, Failure> {
        ask(server(answer).await, &http(), Duration::from_secs(20)).await
    }

    #[tokio::test]
    async fn a_good_status_is_good() {
        let answer = ask_server(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        assert_eq!(answer.unwrap().body, "ok");
    }

    #[tokio::test]
    async fn another_status_is_not() {
        let answer = ask_server(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(answer, Err(Failure::Status(503)));
    }

    #[tokio::test]
    async fn junk_a_cut_and_silence_are_failures() {
        assert!(matches!(ask_server(b"SSH-2.0-x\r\n").await, Err(Failure::Http(_))));
        assert!(matches!(ask_server(b"").await, Err(Failure::Http(_))));
        let long = Box::leak(vec![b'x'; MAX_BODY + 1].into_boxed_slice());
        let head: &[u8] = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
        let long = ask_server(Box::leak([head, long].concat().into_boxed_slice())).await;
        assert!(matches!(long, Err(Failure::Http(_))), "{long:?}");
        let cut = ask_server(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok").await;
        assert!(matches!(cut, Err(Failure::Http(_))), "{cut:?}");
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let answer = ask(silent.local_addr().unwrap(), &http(), Duration::from_millis(30)).await;
        assert_eq!(answer, Err(Failure::TimedOut));
    }

    #[tokio::test]
    async fn tcp_is_about_connections_only() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert!(ask(address, &Question::Tcp, Duration::from_secs(20)).await.is_ok());
        drop(listener);
        let answer = ask(address, &Question::Tcp, Duration::from_secs(20)).await;
        assert!(matches!(answer, Err(Failure::Connect(_))));
    }
}
