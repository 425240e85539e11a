//! HTTP/2 in its parts, on the h2 crate: interim responses, trailers, and how a stream ended.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};

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
    let mut parts = Parts::default();
    let sent = async {
        let mut ready = sender.clone().ready().await?;
        ready.send_request(request, matches!(content, Content::None))
    };
    let (mut response, mut stream) = match sent.await {
        Ok(sent) => sent,
        Err(error) => return Parts { error: Some(error), ..parts },
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
            Err(error) => return Parts { error: Some(error), ..parts },
        }
    };
    let (head, mut body) = head.into_parts();
    (parts.status, parts.fields) = (head.status.as_u16(), head.headers);
    while let Some(data) = body.data().await {
        match data {
            Ok(data) => {
                let _ = body.flow_control().release_capacity(data.len());
                parts.body.extend_from_slice(&data);
            }
            Err(error) => return Parts { error: Some(error), ..parts },
        }
    }
    match body.trailers().await {
        Ok(trailers) => parts.trailers = trailers,
        Err(error) => parts.error = Some(error),
    }
    parts
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
