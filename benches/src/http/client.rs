//! Replays a trace over a few connections at once, and checks every byte that comes.
#![expect(clippy::disallowed_methods, reason = "a client goes by the clock")]

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request as HttpRequest, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::body;
use crate::trace::Request;

/// The host that is asked for.
pub const HOST: &str = "www.cdn.test";
/// No answer takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a stretch of a trace came to.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Requests answered with the right status, length and bytes.
    pub right: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Requests that were not, the first of them in words.
    pub wrong: u64,
    /// Why the first of them was not.
    pub first_wrong: Option<String>,
    /// Microseconds from the request to the answer's head, sorted.
    pub first_byte: Vec<u32>,
    /// How long it took.
    pub took: Duration,
}

impl Seen {
    /// A quantile of the time to the first byte in microseconds, 0 to 1.
    pub fn quantile(&self, share: f64) -> f64 {
        let at = (self.first_byte.len().saturating_sub(1) as f64 * share).round() as usize;
        self.first_byte.get(at).copied().map_or(0.0, f64::from)
    }
}

/// Sends the requests over so many connections, each the next one in turn as soon as it is done with the last.
pub async fn replay(
    address: SocketAddr,
    requests: &[Request],
    connections: usize,
    progress: impl Fn(u64),
) -> Seen {
    let next = Cell::new(0);
    let seen = Rc::new(RefCell::new(Seen::default()));
    let started = Instant::now();
    let one = async || {
        let mut sender = None;
        loop {
            let at = next.get();
            let Some(request) = requests.get(at) else { return };
            next.set(at + 1);
            let asked = Instant::now();
            let got =
                match tokio::time::timeout(PATIENCE, ask(address, *request, &mut sender)).await {
                    Ok(got) => got,
                    Err(_) => Err(anyhow::anyhow!("no answer within {PATIENCE:?}")),
                };
            let mut seen = seen.borrow_mut();
            match got {
                Ok(head) => {
                    seen.right += 1;
                    seen.bytes += request.bytes;
                    let micros = head.duration_since(asked).as_micros();
                    seen.first_byte.push(u32::try_from(micros).unwrap_or(u32::MAX));
                }
                Err(error) => {
                    sender = None;
                    seen.wrong += 1;
                    let path = body::path(request.id, request.bytes);
                    seen.first_wrong.get_or_insert_with(|| format!("{path}: {error:#}"));
                }
            }
            if at % 1024 == 1023 {
                progress(1024);
            }
        }
    };
    let all: Vec<_> = (0..connections).map(|_| Box::pin(one())).collect();
    join(all).await;
    let mut seen = seen.take();
    seen.took = started.elapsed();
    seen.first_byte.sort_unstable();
    seen
}

async fn join<F: Future<Output = ()> + Unpin>(mut all: Vec<F>) {
    std::future::poll_fn(move |context| {
        all.retain_mut(|future| std::pin::Pin::new(future).poll(context).is_pending());
        if all.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

/// One request over a connection that is there or made; when the answer's head came.
async fn ask(
    address: SocketAddr,
    request: Request,
    sender: &mut Option<SendRequest<Empty<Bytes>>>,
) -> anyhow::Result<Instant> {
    let usable = match sender.as_mut() {
        Some(sender) => sender.ready().await.is_ok(),
        None => false,
    };
    if !usable {
        *sender = Some(connect(address).await?);
    }
    let connection = sender.as_mut().context("no connection")?;
    let get = HttpRequest::get(body::path(request.id, request.bytes))
        .header(header::HOST, HOST)
        .body(Empty::new())?;
    let mut response = connection.send_request(get).await?;
    let head = Instant::now();
    anyhow::ensure!(response.status() == 200, "status {}", response.status());
    let mut length = 0;
    while let Some(frame) = response.frame().await {
        let frame = frame?;
        let Some(data) = frame.data_ref() else { continue };
        anyhow::ensure!(
            body::is_right(request.id, length, data),
            "wrong bytes between {length} and {}",
            length + data.len() as u64
        );
        length += data.len() as u64;
    }
    anyhow::ensure!(length == request.bytes, "{length} bytes instead of {}", request.bytes);
    Ok(head)
}

async fn connect(address: SocketAddr) -> anyhow::Result<SendRequest<Empty<Bytes>>> {
    let stream = TcpStream::connect(address).await.context("cannot connect")?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // How it ends is told by the requests on it.
    tokio::task::spawn_local(connection);
    Ok(sender)
}
