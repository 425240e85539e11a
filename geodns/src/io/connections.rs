//! The connections of clients, over whichever transport: how many there may be, how they are accepted, how they end.
//!
//! TCP, TLS, HTTPS and QUIC share one count: a client that is at its limit over one of them is at its limit over all,
//! and what a node spends on connections is one number. A place is taken before anything is read, so a handshake that
//! never ends costs no more than a connection that asks nothing.
//!
//! When all places are taken, the connection whose last answer lies longest ago is closed for the new one: who holds
//! connections and asks nothing keeps out nobody (RFC 7766 §6.2.3). Nor does a wave of them push out those who ask: when
//! more than a quarter of the places is held by connections without an answer, the oldest of these gives way. At its own
//! limit a client is refused new ones.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::metrics::{Counter, Gauge};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
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
    pub(super) evicted: Counter,
    pub(super) failed_handshakes: Counter,
}

/// All connections.
pub(super) struct Connections {
    pub(super) limits: Limits,
    pub(super) counters: Counters,
    table: Mutex<Table>,
    stopping: watch::Sender<bool>,
    begun: Instant,
}

#[derive(Default)]
struct Table {
    next: u64,
    open: HashMap<u64, Open>,
    by_client: HashMap<IpAddr, u32>,
    /// When each connection began that is not known to have had an answer, and which it is. It may have had one since.
    newcomers: BTreeSet<(u64, u64)>,
    /// When each of the others was last seen to be answered, and which it is. It may have been since.
    by_activity: BTreeSet<(u64, u64)>,
}

struct Open {
    client: IpAddr,
    listed: u64,
    life: Life,
}

/// One connection's place among them.
struct Place {
    connections: Arc<Connections>,
    id: u64,
    life: Life,
}

/// What a connection and the table tell each other without a lock.
#[derive(Clone)]
pub(super) struct Life(Arc<Shared>);

struct Shared {
    begun: Instant,
    /// Nanoseconds from `begun` to the last answer of this connection; 0 when it has had none.
    active: AtomicU64,
    evicted: Notify,
}

impl Life {
    /// Notes that a query was answered.
    pub(super) fn answered(&self, now: Instant) {
        self.0.active.store(nanos(self.0.begun, now), Ordering::Relaxed);
    }

    /// Becomes ready when this connection is to give way to another.
    async fn evicted(&self) {
        self.0.evicted.notified().await;
    }
}

fn nanos(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.saturating_duration_since(from).as_nanos()).unwrap_or(u64::MAX)
}

impl Connections {
    pub(super) fn new(limits: Limits, counters: Counters) -> Arc<Self> {
        let stopping = watch::Sender::new(false);
        let table = Mutex::default();
        Arc::new(Self { limits, counters, table, stopping, begun: Instant::now() })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection of `client`; none when it has as many as one client may have.
    fn enter(self: &Arc<Self>, client: IpAddr) -> Option<Place> {
        let client = client.to_canonical();
        let now = nanos(self.begun, Instant::now());
        let mut table = self.table();
        let of_client = table.by_client.get(&client).copied().unwrap_or(0);
        if of_client >= self.limits.per_client {
            self.counters.refused.inc();
            return None;
        }
        if table.open.len() >= self.limits.connections as usize {
            table.evict(self.limits.connections as usize / 4);
            self.counters.evicted.inc();
        }
        table.next += 1;
        let id = table.next;
        let shared =
            Shared { begun: self.begun, active: AtomicU64::new(0), evicted: Notify::new() };
        let life = Life(Arc::new(shared));
        table.open.insert(id, Open { client, listed: now, life: life.clone() });
        table.newcomers.insert((now, id));
        // Who gave way may have been of the same client.
        *table.by_client.entry(client).or_insert(0) += 1;
        self.counters.open.set(table.open.len() as f64);
        drop(table);
        Some(Place { connections: Arc::clone(self), id, life })
    }

    /// Serves a connection of `client` in a task of its own until it ends or gives way; lets `serve` go when there is
    /// no place for it.
    pub(super) fn spawn<F>(self: &Arc<Self>, client: IpAddr, serve: impl FnOnce(Life) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(place) = self.enter(client) else { return };
        let connection = serve(place.life.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = connection => {}
                () = place.life.evicted() => {}
            }
        });
    }

    /// Whether a connection that may not come from `client` at all should first prove that it does: this client has
    /// one already, or a quarter of all places are taken.
    pub(super) fn is_crowded(&self, client: IpAddr) -> bool {
        let table = self.table();
        table.open.len() >= self.limits.connections as usize / 4
            || table.by_client.contains_key(&client.to_canonical())
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
        while Instant::now() < deadline && !self.table().open.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Table {
    /// Takes a connection out and tells it: the oldest that has had no answer, when there are more than `newcomers` of
    /// them, else the longest idle.
    fn evict(&mut self, newcomers: usize) {
        let id = match (self.oldest_newcomer(), self.longest_idle()) {
            (Some((begun, id)), Some((answered, _)))
                if self.newcomers.len() > newcomers || begun < answered =>
            {
                id
            }
            (_, Some((_, id))) | (Some((_, id)), None) => id,
            (None, None) => return,
        };
        if let Some(open) = self.remove(id) {
            open.life.0.evicted.notify_one();
        }
    }

    /// When it began, and which it is. Those before it that have been answered meanwhile are no newcomers any more.
    fn oldest_newcomer(&mut self) -> Option<(u64, u64)> {
        loop {
            let first @ (_, id) = *self.newcomers.first()?;
            let answered = self.answered(id);
            if answered == 0 {
                return Some(first);
            }
            self.newcomers.pop_first();
            self.list(id, answered);
        }
    }

    /// When it was last answered, and which it is. What is listed is never later than what was: so the first in the
    /// list that has not been answered since it was listed is the longest idle of all.
    fn longest_idle(&mut self) -> Option<(u64, u64)> {
        loop {
            let first @ (listed, id) = *self.by_activity.first()?;
            let answered = self.answered(id);
            if answered <= listed {
                return Some(first);
            }
            self.by_activity.pop_first();
            self.list(id, answered);
        }
    }

    fn answered(&self, id: u64) -> u64 {
        self.open.get(&id).map_or(0, |open| open.life.0.active.load(Ordering::Relaxed))
    }

    fn list(&mut self, id: u64, answered: u64) {
        if let Some(open) = self.open.get_mut(&id) {
            open.listed = answered;
            self.by_activity.insert((answered, id));
        }
    }

    fn remove(&mut self, id: u64) -> Option<Open> {
        let open = self.open.remove(&id)?;
        let _ = self.newcomers.remove(&(open.listed, id))
            || self.by_activity.remove(&(open.listed, id));
        if let Some(of_client) = self.by_client.get_mut(&open.client) {
            *of_client -= 1;
            if *of_client == 0 {
                self.by_client.remove(&open.client);
            }
        }
        Some(open)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.connections.table();
        table.remove(self.id);
        self.connections.counters.open.set(table.open.len() as f64);
    }
}

/// Accepts connections until the node stops, and has `serve` serve each that there is a place for.
pub(super) async fn accept<S, F>(listener: TcpListener, connections: Arc<Connections>, serve: S)
where
    S: Fn(TcpStream, SocketAddr, Life) -> F,
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = connections.stopping() => break,
        };
        match accepted {
            Ok((stream, client)) => take(&connections, client, |life| serve(stream, client, life)),
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
        take(&connections, client, |life| serve(stream, client, life));
    }
}

fn take<F>(connections: &Arc<Connections>, client: SocketAddr, serve: impl FnOnce(Life) -> F)
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    connections.spawn(client.ip(), |life| {
        let connection = serve(life);
        async {
            // A client that goes away is its own affair.
            let _ = connection.await;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(connections: u32, per_client: u32) -> Arc<Connections> {
        let limits = Limits { connections, per_client, idle: Duration::from_secs(1) };
        Connections::new(limits, Counters::default())
    }

    fn client(n: u32) -> IpAddr {
        IpAddr::from((0x0a00_0000 + n).to_be_bytes())
    }

    fn is_in(place: &Place) -> bool {
        place.connections.table().open.contains_key(&place.id)
    }

    #[test]
    fn the_longest_idle_gives_way() {
        let all = connections(3, 3);
        let places: Vec<_> = (0..3).map(|n| all.enter(client(n)).unwrap()).collect();
        let start = Instant::now();
        for (at, id) in (1..).zip([2, 0, 1, 0]) {
            places[id].life.answered(start + Duration::from_micros(at));
        }
        // Least lately answered: 2, then 1, then 0.
        let mut newcomers = Vec::new();
        for (n, gone) in [(1, 2), (2, 1), (3, 0)] {
            newcomers.push(all.enter(client(10 + n)).unwrap());
            newcomers.last().unwrap().life.answered(start + Duration::from_secs(1));
            assert!(!is_in(&places[gone]), "{gone}");
            assert_eq!(places.iter().filter(|place| is_in(place)).count(), 3 - n as usize);
        }
        assert_eq!((all.counters.refused.get(), all.counters.evicted.get()), (0, 3));
        drop(places);
        assert!(newcomers.iter().all(is_in), "who was taken out takes nobody along");
        assert_eq!(all.table().by_client.len(), 3);
        drop(newcomers);
        let table = all.table();
        assert!(
            table.open.is_empty() && table.by_activity.is_empty() && table.newcomers.is_empty()
        );
        assert!(table.by_client.is_empty());
    }

    #[test]
    fn who_asks_nothing_pushes_out_few_of_those_who_ask() {
        let all = connections(8, 8);
        let asking: Vec<_> = (0..8).map(|n| all.enter(client(n)).unwrap()).collect();
        let answered = |at: u64| {
            let now = Instant::now() + Duration::from_secs(at);
            asking.iter().for_each(|place| place.life.answered(now));
        };
        answered(0);
        let silent: Vec<_> = (0..100).map(|n| all.enter(client(100 + n)).unwrap()).collect();
        assert_eq!(asking.iter().filter(|place| is_in(place)).count(), 8 - 3);
        // The latest of them have time for their first query.
        assert!(silent[97..].iter().all(is_in) && !silent[..97].iter().any(is_in));
        answered(1);
        silent[99].life.answered(Instant::now() + Duration::from_secs(2));
        let _late = (all.enter(client(300)).unwrap(), all.enter(client(301)).unwrap());
        assert!(is_in(&silent[99]) && !is_in(&silent[97]) && !is_in(&silent[98]));
        assert_eq!(asking.iter().filter(|place| is_in(place)).count(), 8 - 3);
    }

    #[test]
    fn a_client_may_push_out_its_own() {
        let all = connections(2, 2);
        let _first = all.enter(client(0)).unwrap();
        let _other = all.enter(client(1)).unwrap();
        let _second = all.enter(client(0)).unwrap();
        assert_eq!(all.table().by_client.get(&client(0)), Some(&1));
        assert_eq!(all.table().open.len(), 2);
    }

    #[test]
    fn one_client_cannot_push_others_out() {
        let all = connections(4, 2);
        let other = all.enter(client(1)).unwrap();
        let places: Vec<_> = (0..10).filter_map(|_| all.enter(client(0))).collect();
        let counted = (all.counters.refused.get(), all.counters.evicted.get());
        assert_eq!((places.len(), counted), (2, (8, 0)));
        assert!(all.enter("::ffff:10.0.0.0".parse().unwrap()).is_none(), "the same, mapped");
        assert!(is_in(&other));
        drop(places);
        assert!(all.enter(client(0)).is_some());
    }
}
