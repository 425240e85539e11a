//! DNS over a stream of octets, as over TCP (RFC 7766) and, once it is encrypted, over TLS (RFC 7858 §3.3): framing,
//! pipelining, time-outs. What is answered is decided elsewhere.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout_at};

use super::connections::{Connections, LAST_QUERIES, accept};
use super::node::Served;
use super::reply::{Ends, MAX_QUERY, reply};
use crate::answer::{Outcome, Transport};
use crate::metrics::Batch;

/// Answers gathered before they are written.
const WRITE_AT: usize = 16 << 10;

/// Accepts and answers until the node stops.
pub(super) async fn serve(
    listener: TcpListener,
    served: Arc<ArcSwap<Served>>,
    connections: Arc<Connections>,
) {
    accept(listener, Arc::clone(&connections), |stream, client| {
        let (served, connections) = (Arc::clone(&served), Arc::clone(&connections));
        async move {
            stream.set_nodelay(true)?;
            let ends = Ends { client, server: stream.local_addr().ok() };
            serve_stream(stream, ends, Transport::Tcp, &served, &connections).await
        }
    })
    .await;
}

/// Answers what comes over one connection until it ends.
pub(super) async fn serve_stream(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    ends: Ends,
    transport: Transport,
    served: &ArcSwap<Served>,
    connections: &Connections,
) -> io::Result<()> {
    let mut batch = Batch::default();
    let mut input = Vec::with_capacity(512);
    let mut output = Vec::new();
    // Whole messages are answered in their order.
    while read_message(&mut stream, &mut input, connections).await? {
        let served = served.load_full();
        let mut taken = 0;
        while let Some(packet) = next_message(input.get(taken..).unwrap_or_default()) {
            taken += 2 + packet.len();
            let outcome = reply(packet, ends, transport, &served, &mut batch, |answer| {
                output.extend(u16::try_from(answer.len()).unwrap_or(0).to_be_bytes());
                output.extend_from_slice(answer);
            });
            if matches!(outcome, Outcome::Drop(_)) {
                served.stats.add(&mut batch);
                // What was asked before is answered all the same.
                flush(&mut stream, &mut output, connections).await?;
                return end(&mut stream, connections).await;
            }
            if output.len() >= WRITE_AT {
                flush(&mut stream, &mut output, connections).await?;
            }
        }
        input.drain(..taken);
        served.stats.add(&mut batch);
        flush(&mut stream, &mut output, connections).await?;
        // An idle connection keeps little.
        output.shrink_to(0);
    }
    end(&mut stream, connections).await
}

/// Reads until there is a whole message. False when none is to come any more: the client has ended, has sent what is
/// no query, or has waited for too long, be it with a part of one.
async fn read_message(
    stream: &mut (impl AsyncRead + Unpin),
    input: &mut Vec<u8>,
    connections: &Connections,
) -> io::Result<bool> {
    let mut deadline = connections.deadline();
    let mut is_stopping = false;
    loop {
        match message_length(input) {
            Some(length) if length > MAX_QUERY => return Ok(false),
            Some(length) if input.len() >= 2 + length => return Ok(true),
            _ => {}
        }
        tokio::select! {
            biased;
            read = timeout_at(deadline, stream.read_buf(input)) => match read {
                Ok(Ok(1..)) => {}
                Ok(Err(error)) => return Err(error),
                Ok(Ok(0)) | Err(_) => return Ok(false),
            },
            () = connections.stopping(), if !is_stopping => {
                is_stopping = true;
                deadline = deadline.min(Instant::now() + LAST_QUERIES);
            }
        }
    }
}

/// Writes what there is to write. A client that does not take it is not waited for.
async fn flush(
    stream: &mut (impl AsyncWrite + Unpin),
    output: &mut Vec<u8>,
    connections: &Connections,
) -> io::Result<()> {
    let written = timeout_at(connections.deadline(), async {
        stream.write_all(output).await?;
        stream.flush().await
    });
    let written = written.await;
    output.clear();
    written.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Ends our side: over TLS, with the word that nobody has cut it off.
async fn end(stream: &mut (impl AsyncWrite + Unpin), connections: &Connections) -> io::Result<()> {
    let ended = timeout_at(connections.deadline(), stream.shutdown()).await;
    ended.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

fn message_length(input: &[u8]) -> Option<usize> {
    input.first_chunk::<2>().map(|length| usize::from(u16::from_be_bytes(*length)))
}

fn next_message(input: &[u8]) -> Option<&[u8]> {
    input.get(2..2 + message_length(input)?)
}
