//! DNS over TCP (RFC 7766): framing, pipelining, time-outs and limits. What is answered is decided elsewhere.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use shared::io::clock;
use shared::metrics::{Counter, Gauge};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::node::{Draws, Served};
use crate::answer::{Client, MAX_MESSAGE, Outcome, Transport, answer};
use crate::metrics::Batch;

/// Answers gathered before they are written.
const WRITE_AT: usize = 16 << 10;
/// A query that is longer is not one: the connection is closed.
const MAX_QUERY: usize = 4096;

thread_local! {
    /// Where answers are made before they are queued: one for all connections of a thread.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; MAX_MESSAGE]);
}

/// Bounds of TCP service.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) connections: u32,
    pub(super) per_client: u32,
    pub(super) idle: Duration,
}

/// How many connections there are, in all and by client.
pub(super) struct Connections {
    limits: Limits,
    open: Mutex<(u32, HashMap<IpAddr, u32>)>,
    gauge: Gauge,
    refused: Counter,
}

/// One connection's place among them.
struct Place {
    connections: Arc<Connections>,
    client: IpAddr,
}

impl Connections {
    pub(super) fn new(limits: Limits, gauge: Gauge, refused: Counter) -> Arc<Self> {
        Arc::new(Self { limits, open: Mutex::default(), gauge, refused })
    }

    fn enter(self: &Arc<Self>, client: IpAddr) -> Option<Place> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (total, by_client) = &mut *open;
        let of_client = by_client.get(&client).copied().unwrap_or(0);
        if *total >= self.limits.connections || of_client >= self.limits.per_client {
            self.refused.inc();
            return None;
        }
        *total += 1;
        by_client.insert(client, of_client + 1);
        self.gauge.set(f64::from(*total));
        Some(Place { connections: Arc::clone(self), client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let connections = &self.connections;
        let mut open = connections.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (total, by_client) = &mut *open;
        *total = total.saturating_sub(1);
        connections.gauge.set(f64::from(*total));
        if let Some(of_client) = by_client.get_mut(&self.client) {
            *of_client -= 1;
            if *of_client == 0 {
                by_client.remove(&self.client);
            }
        }
    }
}

/// Accepts and answers until dropped.
pub(super) async fn serve(
    listener: TcpListener,
    served: Arc<ArcSwap<Served>>,
    connections: Arc<Connections>,
) {
    loop {
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most often: accepting again at once would spin.
                tracing::warn!(%error, "a TCP connection cannot be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Some(place) = connections.enter(client.ip().to_canonical()) else { continue };
        let served = Arc::clone(&served);
        let idle = connections.limits.idle;
        tokio::spawn(async move {
            let _place = place;
            // A client that goes away is its own affair.
            let _ = serve_connection(stream, client, &served, idle).await;
        });
    }
}

async fn serve_connection(
    mut stream: TcpStream,
    client: SocketAddr,
    served: &ArcSwap<Served>,
    idle: Duration,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let timed_out = || std::io::Error::from(std::io::ErrorKind::TimedOut);
    let mut draws = Draws::new();
    let mut batch = Batch::default();
    let mut input = Vec::with_capacity(512);
    let mut output = Vec::new();
    loop {
        // Whole messages are answered in their order; a client that trickles one has `idle` for it.
        let deadline = tokio::time::Instant::now() + idle;
        while message_length(&input).is_none_or(|length| input.len() < 2 + length) {
            if message_length(&input).is_some_and(|length| length > MAX_QUERY) {
                return Ok(());
            }
            let read = stream.read_buf(&mut input);
            if tokio::time::timeout_at(deadline, read).await.map_err(|_| timed_out())?? == 0 {
                return Ok(());
            }
        }
        let served = served.load_full();
        let context = served.context(clock::now());
        let mut taken = 0;
        while let Some(packet) = next_message(input.get(taken..).unwrap_or_default()) {
            taken += 2 + packet.len();
            let client = Client { address: client, transport: Transport::Tcp, draw: draws.next() };
            let outcome = SCRATCH.with_borrow_mut(|scratch| {
                let outcome = answer(packet, &client, &context, &served.snapshot, scratch);
                if let Outcome::Respond { length, .. } = outcome {
                    output.extend(u16::try_from(length).unwrap_or(0).to_be_bytes());
                    output.extend_from_slice(scratch.get(..length).unwrap_or_default());
                }
                outcome
            });
            served.stats.note(Transport::Tcp, &outcome, &mut batch);
            served.log.write(&served.node, packet, &client, &served.snapshot, &outcome);
            if matches!(outcome, Outcome::Drop(_)) {
                served.stats.add(&mut batch);
                // What was asked before is answered all the same.
                return flush(&mut stream, &mut output, idle).await;
            }
            if output.len() >= WRITE_AT {
                flush(&mut stream, &mut output, idle).await?;
            }
        }
        input.drain(..taken);
        served.stats.add(&mut batch);
        flush(&mut stream, &mut output, idle).await?;
        // An idle connection keeps little.
        output.shrink_to(0);
    }
}

async fn flush(
    stream: &mut TcpStream,
    output: &mut Vec<u8>,
    idle: Duration,
) -> std::io::Result<()> {
    let written = tokio::time::timeout(idle, stream.write_all(output)).await;
    output.clear();
    written.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?
}

fn message_length(input: &[u8]) -> Option<usize> {
    input.first_chunk::<2>().map(|length| usize::from(u16::from_be_bytes(*length)))
}

fn next_message(input: &[u8]) -> Option<&[u8]> {
    input.get(2..2 + message_length(input)?)
}
