//! HTTP/2 in its parts, on the h2 crate: interim responses, trailers, and how a stream ended.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::secure;
use crate::wait::PATIENCE;

/// A response in its parts.
#[derive(Debug, Default)]
pub struct Parts {
    /// Interim responses in order.
    pub interim: Vec<(u16, HeaderMap)>,
    /// The status.
    pub status: u16,
    /// The fields.
    pub fields: HeaderMap,
    /// The content.
    pub body: Vec<u8>,
    /// The trailers.
    pub trailers: Option<HeaderMap>,
    /// Why the stream did not end well.
    pub error: Option<h2::Error>,
}

/// What is sent after the request's head.
#[derive(Clone, Debug)]
pub enum Content {
    /// Nothing: the head ends the stream.
    None,
    /// This content at once, with these trailers.
    Now(Vec<u8>, Option<HeaderMap>),
    /// This content, when 100 (Continue) or a response has come.
    AfterContinue(Vec<u8>),
}

/// Sends one request over TLS on a connection of its own.
#[track_caller]
pub fn exchange(addr: SocketAddr, request: Request<()>, content: Content) -> Parts {
    let host = request.uri().host().unwrap_or_default().to_owned();
    on_connection(addr, &host, async |sender| one(sender, request, content).await)
}

/// Does something on a connection.
#[track_caller]
pub fn on_connection<T>(
    addr: SocketAddr,
    host: &str,
    work: impl AsyncFnOnce(&mut SendRequest<Bytes>) -> T,
) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let done = runtime.block_on(async {
        tokio::time::timeout(PATIENCE, async {
            let tls = secure::connect(addr, host, &["h2"]).await.unwrap();
            let (mut sender, connection) = h2::client::handshake(tls).await.unwrap();
            tokio::spawn(connection);
            work(&mut sender).await
        })
        .await
    });
    done.unwrap_or_else(|_| panic!("https://{host} at {addr}: nothing within {PATIENCE:?}"))
}

/// Sends one request and reads its response.
pub async fn one(sender: &mut SendRequest<Bytes>, request: Request<()>, content: Content) -> Parts {
    match Reading::begin(sender, request, content).await {
        Ok(reading) => reading.rest().await,
        Err(parts) => parts,
    }
}

/// A response whose head has come, and of whose content as much is taken as is asked for.
pub struct Reading {
    /// What has come of it.
    pub parts: Parts,
    body: RecvStream,
}

impl Reading {
    /// Sends a request and waits for the head of its response. An error is in the parts.
    pub async fn begin(
        sender: &mut SendRequest<Bytes>,
        request: Request<()>,
        content: Content,
    ) -> Result<Self, Parts> {
        let mut parts = Parts::default();
        let sent = async {
            let mut ready = sender.clone().ready().await?;
            ready.send_request(request, matches!(content, Content::None))
        };
        let (mut response, mut stream) = match sent.await {
            Ok(sent) => sent,
            Err(error) => return Err(Parts { error: Some(error), ..parts }),
        };
        if let Content::Now(bytes, trailers) = &content {
            send(&mut stream, bytes, trailers.clone());
        }
        let head = loop {
            match next(&mut response).await {
                Ok(Next::Interim(interim)) => {
                    let (head, ()) = interim.into_parts();
                    let status = head.status.as_u16();
                    parts.interim.push((status, head.headers));
                    if let Content::AfterContinue(bytes) = &content
                        && status == 100
                    {
                        send(&mut stream, bytes, None);
                    }
                }
                Ok(Next::Response(response)) => break response,
                Err(error) => return Err(Parts { error: Some(error), ..parts }),
            }
        };
        let (head, body) = head.into_parts();
        (parts.status, parts.fields) = (head.status.as_u16(), head.headers);
        Ok(Self { parts, body })
    }

    /// Takes content until there are so many octets of it. `false`: it has ended before.
    pub async fn take(&mut self, octets: usize) -> bool {
        while self.parts.body.len() < octets {
            match self.body.data().await {
                Some(Ok(data)) => {
                    let _ = self.body.flow_control().release_capacity(data.len());
                    self.parts.body.extend_from_slice(&data);
                }
                ended => {
                    self.parts.error = ended.and_then(Result::err);
                    return false;
                }
            }
        }
        true
    }

    /// All of it.
    pub async fn rest(mut self) -> Parts {
        self.take(usize::MAX).await;
        if self.parts.error.is_none() {
            match self.body.trailers().await {
                Ok(trailers) => self.parts.trailers = trailers,
                Err(error) => self.parts.error = Some(error),
            }
        }
        self.parts
    }
}

fn send(stream: &mut SendStream<Bytes>, bytes: &[u8], trailers: Option<HeaderMap>) {
    stream.send_data(Bytes::copy_from_slice(bytes), trailers.is_none()).unwrap();
    if let Some(trailers) = trailers {
        stream.send_trailers(trailers).unwrap();
    }
}

enum Next {
    Interim(http::Response<()>),
    Response(http::Response<RecvStream>),
}

async fn next(response: &mut ResponseFuture) -> Result<Next, h2::Error> {
    use std::task::Poll;
    std::future::poll_fn(|cx| {
        if let Poll::Ready(Some(interim)) = response.poll_informational(cx) {
            return Poll::Ready(interim.map(Next::Interim));
        }
        std::pin::Pin::new(&mut *response).poll(cx).map_ok(Next::Response)
    })
    .await
}

/// What became of a request's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered with 200.
    Response,
    /// It was answered with something else.
    Refused,
    /// Its stream was reset with this code.
    Reset(u32),
    /// The connection was ended with this code, or closed.
    GoAway(u32),
}

/// Sends exactly these fields as the head of a request on a connection of its own: no library looks at them before.
#[track_caller]
pub fn raw_head(addr: SocketAddr, host: &str, fields: &[(&str, &str)]) -> Outcome {
    on_stream(addr, host, async |tls| {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(4, 0, 0, &[]));
        bytes.extend(frame(1, 5, 1, &block(fields)));
        tls.write_all(&bytes).await.unwrap();
        loop {
            let Some((kind, stream, payload)) = read_frame(tls).await else {
                return Outcome::GoAway(0);
            };
            match kind {
                // Its first field is `:status`, 200 has an entry in the table of RFC 7541.
                1 if stream == 1 && payload.first() == Some(&0x88) => return Outcome::Response,
                1 if stream == 1 => return Outcome::Refused,
                3 if stream == 1 => return Outcome::Reset(number(&payload, 0)),
                7 => return Outcome::GoAway(number(&payload, 4)),
                _ => {}
            }
        }
    })
}

/// Begins so many requests and resets each at once; panics unless the connection is ended for it.
#[track_caller]
pub fn flood_resets(addr: SocketAddr, host: &str, count: u32) {
    on_stream(addr, host, async |tls| {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(4, 0, 0, &[]));
        let path =
            [(":method", "GET"), (":scheme", "https"), (":authority", host), (":path", "/r")];
        let head = block(&path);
        for stream in 0..count {
            bytes.extend(frame(1, 5, stream * 2 + 1, &head));
            bytes.extend(frame(3, 0, stream * 2 + 1, &8u32.to_be_bytes()));
        }
        // The peer may close in the middle of it.
        let _ = tls.write_all(&bytes).await;
        while read_frame(tls).await.is_some() {}
    });
}

/// Begins a head that never ends: `count` CONTINUATION frames of fields, none of them the last. Panics unless the
/// connection is ended for it.
#[track_caller]
pub fn flood_continuations(addr: SocketAddr, host: &str, count: u32) {
    on_stream(addr, host, async |tls| {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(4, 0, 0, &[]));
        let path =
            [(":method", "GET"), (":scheme", "https"), (":authority", host), (":path", "/c")];
        bytes.extend(frame(1, 1, 1, &block(&path)));
        let more = block(&[("x-more", "abcdefghijklmnopqrstuvwxyz")]).repeat(100);
        for _ in 0..count {
            bytes.extend(frame(9, 0, 1, &more));
        }
        // The peer may close in the middle of it.
        let _ = tls.write_all(&bytes).await;
        while read_frame(tls).await.is_some() {}
    });
}

fn on_stream<T>(
    addr: SocketAddr,
    host: &str,
    work: impl AsyncFnOnce(&mut TlsStream<TcpStream>) -> T,
) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let done = runtime.block_on(async {
        tokio::time::timeout(PATIENCE, async {
            let mut tls = secure::connect(addr, host, &["h2"]).await.unwrap();
            work(&mut tls).await
        })
        .await
    });
    done.unwrap_or_else(|_| panic!("https://{host} at {addr}: nothing within {PATIENCE:?}"))
}

/// A frame (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Fields as literals without indexing (RFC 7541 §6.2.2); names and values are short.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            assert!(text.len() < 127, "no continuation of lengths here");
            bytes.push(u8::try_from(text.len()).unwrap());
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    bytes
}

async fn read_frame(tls: &mut TlsStream<TcpStream>) -> Option<(u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    tls.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length as usize];
    tls.read_exact(&mut payload).await.ok()?;
    Some((head[3], number(&head, 5) & 0x7fff_ffff, payload))
}

fn number(bytes: &[u8], at: usize) -> u32 {
    let part = bytes.get(at..at + 4).and_then(|part| part.try_into().ok());
    part.map_or(0, u32::from_be_bytes)
}
