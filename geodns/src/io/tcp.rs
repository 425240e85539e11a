//! DNS over a stream of octets, as over TCP (RFC 7766) and, once it is encrypted, over TLS (RFC 7858 §3.3): framing,
//! pipelining, time-outs. What is answered is decided elsewhere.
//!
//! A connection costs what it has in hand: a message that is not whole yet (64 KiB at most), and answers that are not
//! taken (80 KiB here and 256 KiB in the kernel at most, for the idle time at most).
#![expect(unsafe_code, reason = "options of listeners that std and tokio cannot set")]

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::{Pin, pin};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use super::connections::{Connections, LAST_QUERIES, Life, accept};
use super::node::Served;
use super::reply::{Ends, reply};
use crate::answer::{Outcome, Transport};
use crate::metrics::Batch;

/// Answers gathered before they are written.
const WRITE_AT: usize = 16 << 10;
/// Room for queries that an idle connection keeps.
const INPUT_BYTES: usize = 512;
/// Answers that a client does not take wait in the kernel up to this, which the kernel doubles.
const SEND_BUFFER: libc::c_int = 128 << 10;
/// A connection without a query is not seen here for this many seconds.
const DEFER_ACCEPT: libc::c_int = 3;

/// Sets what accepted connections inherit. What a kernel does not know is gone without.
pub(super) fn prepare(listener: &std::net::TcpListener) {
    set_option(listener.as_raw_fd(), libc::SOL_SOCKET, libc::SO_SNDBUF, SEND_BUFFER);
    set_option(listener.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, DEFER_ACCEPT);
}

fn set_option(socket: RawFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) {
    // SAFETY: the descriptor is open, and both options are ints of the length given.
    let result = unsafe {
        libc::setsockopt(
            socket,
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result != 0 {
        let error = io::Error::last_os_error();
        tracing::debug!(%error, name, "a TCP listener does without an option");
    }
}

/// Accepts and answers until the node stops.
pub(super) async fn serve(
    listener: TcpListener,
    served: Arc<ArcSwap<Served>>,
    connections: Arc<Connections>,
) {
    accept(listener, Arc::clone(&connections), |stream, client, life| {
        let (served, connections) = (Arc::clone(&served), Arc::clone(&connections));
        async move {
            stream.set_nodelay(true)?;
            let ends = Ends { client, server: stream.local_addr().ok() };
            serve_stream(stream, ends, Transport::Tcp, &served, &connections, &life).await
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
    life: &Life,
) -> io::Result<()> {
    let mut batch = Batch::default();
    let mut input = Vec::with_capacity(INPUT_BYTES);
    let mut output = Vec::new();
    let deadline = connections.deadline();
    let mut wait = Wait {
        deadline,
        timer: pin!(sleep_until(deadline)),
        stopping: pin!(connections.stopping()),
        is_stopping: false,
    };
    // Whole messages are answered in their order.
    while wait.for_message(&mut stream, &mut input).await? {
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
        input.shrink_to(INPUT_BYTES);
        let now = Instant::now();
        life.answered(now);
        if !wait.is_stopping {
            wait.deadline = now + connections.limits.idle;
        }
    }
    end(&mut stream, connections).await
}

/// A connection's wait for queries, and what ends it.
struct Wait<'w, S> {
    deadline: Instant,
    /// Goes off no later than at the deadline. Most queries come long before: it is set anew only when it goes off.
    timer: Pin<&'w mut Sleep>,
    stopping: Pin<&'w mut S>,
    is_stopping: bool,
}

impl<S: Future<Output = ()>> Wait<'_, S> {
    /// Reads until there is a whole message. False when none is to come any more: the client has ended, or has waited
    /// for too long, be it with a part of one.
    async fn for_message(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        input: &mut Vec<u8>,
    ) -> io::Result<bool> {
        while message_length(input).is_none_or(|length| input.len() < 2 + length) {
            tokio::select! {
                biased;
                read = stream.read_buf(input) => if read? == 0 {
                    return Ok(false);
                },
                () = &mut self.timer => {
                    if Instant::now() >= self.deadline {
                        return Ok(false);
                    }
                    self.timer.as_mut().reset(self.deadline);
                }
                () = &mut self.stopping, if !self.is_stopping => {
                    self.is_stopping = true;
                    self.deadline = self.deadline.min(Instant::now() + LAST_QUERIES);
                    self.timer.as_mut().reset(self.deadline);
                }
            }
        }
        Ok(true)
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
