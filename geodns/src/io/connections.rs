//! The connections of clients, over whichever transport: how many there may be, how they are accepted, how they end.
//!
//! TCP, TLS, HTTPS and QUIC share one count: a client that is at its limit over one of them is at its limit over all,
//! and what a node spends on connections is one number. A place is taken before anything is read, so a handshake that
//! never ends costs no more than a connection that asks nothing.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shared::metrics::{Counter, Gauge};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// After an accept that failed, most often for want of descriptors: trying again at once would spin.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a connection is still read when the node stops: what a client had sent by then is answered.
pub(super) const LAST_QUERIES: Duration = Duration::from_millis(100);
/// How long a stop waits for connections to end.
pub(super) const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Bounds of service over connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) connections: u32,
    pub(super) per_client: u32,
    pub(super) idle: Duration,
}

/// What is counted of connections.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) open: Gauge,
    pub(super) refused: Counter,
    pub(super) failed_handshakes: Counter,
}

/// How many connections there are, in all and by client.
pub(super) struct Connections {
    pub(super) limits: Limits,
    pub(super) counters: Counters,
    open: Mutex<Open>,
    stopping: watch::Sender<bool>,
}

#[derive(Default)]
struct Open {
    total: u32,
    by_client: HashMap<IpAddr, u32>,
}

/// One connection's place among them.
pub(super) struct Place {
    connections: Arc<Connections>,
    client: IpAddr,
}

impl Connections {
    pub(super) fn new(limits: Limits, counters: Counters) -> Arc<Self> {
        let stopping = watch::Sender::new(false);
        Arc::new(Self { limits, counters, open: Mutex::default(), stopping })
    }

    /// A place for a connection of `client`; none when all are taken.
    pub(super) fn enter(self: &Arc<Self>, client: IpAddr) -> Option<Place> {
        let client = client.to_canonical();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let of_client = open.by_client.get(&client).copied().unwrap_or(0);
        if open.total >= self.limits.connections || of_client >= self.limits.per_client {
            self.counters.refused.inc();
            return None;
        }
        open.total += 1;
        open.by_client.insert(client, of_client + 1);
        self.counters.open.set(f64::from(open.total));
        Some(Place { connections: Arc::clone(self), client })
    }

    /// Whether a connection that may not come from `client` at all should first prove that it does: this client has
    /// one already, or a quarter of all places are taken.
    pub(super) fn is_crowded(&self, client: IpAddr) -> bool {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.total >= self.limits.connections / 4
            || open.by_client.contains_key(&client.to_canonical())
    }

    /// Tells every connection to end.
    pub(super) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Becomes ready when the node stops.
    pub(super) async fn stopping(&self) {
        // The sender lives as long as `self`.
        let _ = self.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }

    /// When a connection that begins to wait for a query now has waited for too long.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.limits.idle
    }

    /// Becomes ready when no connection is open any more, or when that takes too long.
    pub(super) async fn all_ended(&self) {
        let deadline = Instant::now() + LAST_ANSWERS;
        while Instant::now() < deadline
            && self.open.lock().unwrap_or_else(PoisonError::into_inner).total > 0
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let connections = &self.connections;
        let mut open = connections.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.total = open.total.saturating_sub(1);
        connections.counters.open.set(f64::from(open.total));
        if let Some(of_client) = open.by_client.get_mut(&self.client) {
            *of_client -= 1;
            if *of_client == 0 {
                open.by_client.remove(&self.client);
            }
        }
    }
}

/// Accepts connections until the node stops, and has `serve` serve each that there is a place for.
pub(super) async fn accept<S, F>(listener: TcpListener, connections: Arc<Connections>, serve: S)
where
    S: Fn(TcpStream, SocketAddr) -> F,
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = connections.stopping() => break,
        };
        match accepted {
            Ok((stream, client)) => take(&connections, client, || serve(stream, client)),
            Err(error) => {
                tracing::warn!(%error, "a TCP connection cannot be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    // Those that wait in the kernel already are served, too.
    for _ in 0..connections.limits.connections {
        let Ok(accepted) = timeout(Duration::ZERO, listener.accept()).await else { break };
        let Ok((stream, client)) = accepted else { break };
        take(&connections, client, || serve(stream, client));
    }
}

fn take<F>(connections: &Arc<Connections>, client: SocketAddr, serve: impl FnOnce() -> F)
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let Some(place) = connections.enter(client.ip()) else { return };
    let connection = serve();
    tokio::spawn(async move {
        let _place = place;
        // A client that goes away is its own affair.
        let _ = connection.await;
    });
}
