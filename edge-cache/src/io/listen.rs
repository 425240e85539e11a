//! Worker threads and their listeners: one single-threaded runtime per core, each with a listener of its own per
//! address, so that a connection, its requests and mostly its upstream connections stay on one core.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use shared::io::sockets;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use super::gate::{Gate, Limits, Linger, Shared};
use super::http2;
use super::node::Node;
use super::request_body::RequestBody;
use super::serve::{Connection, handle};
use super::telemetry::Peer;
use crate::store::budget::Share;

/// After an accept that failed, most often for want of descriptors: trying again at once would spin.
const PAUSE: Duration = Duration::from_millis(50);

/// What TLS encrypts at once.
const TLS_RECORD: usize = 16 << 10;

/// A listener's address and whether it speaks TLS.
type Place = (SocketAddr, bool);

enum Command {
    Listen(Place, StdListener),
    Close(Place),
}

struct Worker {
    commands: mpsc::UnboundedSender<Command>,
    thread: JoinHandle<()>,
}

/// The workers of a node.
pub struct Workers {
    workers: Vec<Worker>,
    places: BTreeSet<Place>,
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}, in `{key}` of this edge: {error}")]
pub struct ListenError {
    /// The address.
    pub address: SocketAddr,
    /// `http` or `https`.
    pub key: &'static str,
    /// Why.
    pub error: io::Error,
}

impl Workers {
    /// Starts `count` workers (0: one per core), which serve nothing yet.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn start(node: &Arc<Node>, count: u16) -> io::Result<Self> {
        let count = match count {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            count => count.into(),
        };
        let mut workers = Vec::new();
        for index in 0..count {
            let (commands, orders) = mpsc::unbounded_channel();
            let node = Arc::clone(node);
            let thread = std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || work(&node, orders))?;
            workers.push(Worker { commands, thread });
        }
        Ok(Self { workers, places: BTreeSet::new() })
    }

    /// Listens on these addresses and on no others: all of the new ones, or, when one cannot be had, as before.
    /// Returns the addresses as the system gave them, in the order asked for.
    ///
    /// # Errors
    /// The first address that cannot be had.
    pub fn listen(
        &mut self,
        http: &[SocketAddr],
        https: &[SocketAddr],
    ) -> Result<Vec<SocketAddr>, ListenError> {
        let wanted: Vec<Place> = http
            .iter()
            .map(|address| (*address, false))
            .chain(https.iter().map(|address| (*address, true)))
            .collect();
        let mut opened = Vec::new();
        let mut addresses = Vec::new();
        for (address, tls) in &wanted {
            if self.places.contains(&(*address, *tls)) {
                addresses.push(*address);
                continue;
            }
            let beside = self.places.contains(&(*address, !*tls));
            let listeners = open(*address, self.workers.len(), beside).map_err(|error| {
                ListenError { address: *address, key: if *tls { "https" } else { "http" }, error }
            })?;
            let local =
                listeners.first().and_then(|first| first.local_addr().ok()).unwrap_or(*address);
            addresses.push(local);
            opened.push(((local, *tls), listeners));
        }
        let kept: BTreeSet<Place> =
            addresses.iter().zip(&wanted).map(|(address, (_, tls))| (*address, *tls)).collect();
        for gone in self.places.difference(&kept) {
            for worker in &self.workers {
                let _ = worker.commands.send(Command::Close(*gone));
            }
        }
        for (place, listeners) in opened {
            for (worker, listener) in self.workers.iter().zip(listeners) {
                // A worker ends with the node only.
                let _ = worker.commands.send(Command::Listen(place, listener));
            }
        }
        self.places = kept;
        Ok(addresses)
    }

    /// Waits for the workers, which end when the node stops and their connections have.
    pub fn join(self) {
        for worker in self.workers {
            drop(worker.commands);
            if worker.thread.join().is_err() {
                tracing::error!("a worker thread panicked");
            }
        }
    }
}

fn open(address: SocketAddr, count: usize, beside: bool) -> io::Result<Vec<StdListener>> {
    if address.port() == 0 || beside {
        // The first one finds the port, the others share it.
        let first = sockets::tcp_listener_beside(address)?;
        let local = first.local_addr()?;
        let others = (1..count).map(|_| sockets::tcp_listener_beside(local));
        return std::iter::once(Ok(first)).chain(others).collect();
    }
    sockets::tcp_listeners(address, count)
}

fn work(node: &Arc<Node>, orders: mpsc::UnboundedReceiver<Command>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "a worker has no runtime");
            return;
        }
    };
    runtime.block_on(run(node, orders));
}

async fn run(node: &Arc<Node>, mut orders: mpsc::UnboundedReceiver<Command>) {
    let mut stopping = node.stopping();
    let mut listeners: BTreeMap<Place, watch::Sender<()>> = BTreeMap::new();
    // Held by every connection of this worker: when all are gone, it may end.
    let (alive, mut all_gone) = mpsc::channel::<()>(1);
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(Command::Listen(place, listener)) => {
                    let listener = match TcpListener::from_std(listener) {
                        Ok(listener) => listener,
                        Err(error) => {
                            tracing::error!(address = %place.0, %error, "a listener cannot be used");
                            continue;
                        }
                    };
                    let (open, closed) = watch::channel(());
                    listeners.insert(place, open);
                    tokio::spawn(accept(Arc::clone(node), listener, place.1, closed, alive.clone()));
                }
                // Dropping its sender ends it.
                Some(Command::Close(place)) => drop(listeners.remove(&place)),
                None => break,
            },
            _ = stopping.changed() => break,
        }
    }
    drop(listeners);
    drop(alive);
    // Fetches into the store, and checks of others' connections, end with the runtime.
    let deadline = node.snapshot.load().plan.edge.drain_timeout.get();
    if tokio::time::timeout(deadline, all_gone.recv()).await.is_err() {
        tracing::warn!("requests were cut off: they took longer than `drain_timeout`");
    }
}

async fn accept(
    node: Arc<Node>,
    listener: TcpListener,
    tls: bool,
    mut closed: watch::Receiver<()>,
    alive: mpsc::Sender<()>,
) {
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = closed.changed() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                failing = false;
                take(&node, stream, peer, tls, &alive);
            }
            Err(error) => {
                // Said once, not at every try: what is short now, such as descriptors, is short for a while.
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "a connection could not be accepted");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    // Those that wait in the kernel already are served, too.
    while let Some(Ok((stream, peer))) = ready(listener.accept()).await {
        take(&node, stream, peer, tls, &alive);
    }
}

/// The future's output, if it has one already.
async fn ready<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| {
        std::task::Poll::Ready(match future.as_mut().poll(cx) {
            std::task::Poll::Ready(value) => Some(value),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

/// Counts a connection, and holds its worker, for as long as it is open: also when it is HTTP no more.
struct Counted {
    node: Arc<Node>,
    _alive: mpsc::Sender<()>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.node.telemetry.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

fn take(
    node: &Arc<Node>,
    stream: TcpStream,
    peer: SocketAddr,
    tls: bool,
    alive: &mpsc::Sender<()>,
) {
    let max = node.snapshot.load().plan.edge.max_connections as usize;
    let before = node.telemetry.connections.fetch_add(1, Ordering::Relaxed);
    let counted = Arc::new(Counted { node: Arc::clone(node), _alive: alive.clone() });
    if before >= max || !node.limit.has_room(before) {
        node.telemetry.refused.inc();
        return;
    }
    tokio::spawn(async move {
        if let Err(error) = serve(&counted, stream, peer, tls).await {
            tracing::debug!(%peer, %error, "a connection ended with an error");
        }
    });
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn serve(
    counted: &Arc<Counted>,
    stream: TcpStream,
    peer: SocketAddr,
    tls: bool,
) -> Result<(), BoxError> {
    stream.set_nodelay(true)?;
    let snapshot = counted.node.snapshot.load_full();
    let edge = &snapshot.plan.edge;
    let limits = Limits {
        idle: edge.idle.get(),
        head: edge.head_timeout.get(),
        max_head: usize::try_from(edge.max_head.0).unwrap_or(usize::MAX),
    };
    let ip = peer.ip().to_canonical();
    if !tls {
        drop(snapshot);
        let peer = Peer { ip, tls: None, sni: None };
        return speak(counted, stream, Arc::new(peer), "http", true, limits).await;
    }
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(&snapshot.tls));
    drop(snapshot);
    let share = counted.node.share();
    let accepted = acceptor.accept_with(stream, |session| {
        if let Share::Copy(most) = share {
            // What is encrypted already and the socket has not taken: without this, 64 KiB.
            session.set_buffer_limit(Some(most.max(TLS_RECORD)));
        }
    });
    let stream = tokio::time::timeout(limits.head, accepted).await??;
    let session = stream.get_ref().1;
    let version = match session.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_2) => "1.2",
        _ => "1.3",
    };
    let sni = session.server_name().map(|name| name.to_ascii_lowercase().into());
    let http1 = session.alpn_protocol() != Some(b"h2");
    let peer = Peer { ip, tls: Some(version), sni };
    speak(counted, stream, Arc::new(peer), "https", http1, limits).await
}

async fn speak<S>(
    counted: &Arc<Counted>,
    stream: S,
    peer: Arc<Peer>,
    scheme: &'static str,
    is_http1: bool,
    limits: Limits,
) -> Result<(), BoxError>
where
    S: Linger,
{
    let node = &counted.node;
    let shared = Arc::new(Shared::default());
    let held_open = Arc::clone(counted);
    let gate = Gate::new(stream, is_http1, limits, Arc::clone(&shared), held_open);
    let connection = Arc::new(Connection { node: Arc::clone(node), peer, scheme, gate: shared });
    if !is_http1 {
        return http2::serve(gate, connection, limits).await.map_err(BoxError::from);
    }
    // Boxed: hyper keeps room for a request's future in every connection, idle ones too.
    let service = service_fn(move |request: Request<Incoming>| {
        let handled = handle(Arc::clone(&connection), request.map(RequestBody::Http1), None);
        let handled = Box::pin(handled);
        async move { Ok::<_, Infallible>(handled.await) }
    });
    let mut stopping = node.stopping();
    // The gate has time-outs that hyper has not, and bounds the head before hyper sees it. `pipeline_flush` stays off: with
    // it a response that closes the connection is lost when more requests have come behind its own.
    let connection = http1::Builder::new()
        .header_read_timeout(None)
        .max_header_size(limits.max_head)
        .max_buf_size(limits.max_head.saturating_mul(2).max(128 << 10))
        .serve_connection(TokioIo::new(gate), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended.map_err(BoxError::from),
        _ = stopping.wait_for(|stopping| *stopping) => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await.map_err(BoxError::from)
}
