//! A load over TCP: many connections that stay, a few queries under way on each, every answer checked.
#![expect(unsafe_code, reason = "poll has no safe interface in std")]
#![expect(clippy::disallowed_methods, reason = "a load goes by the clock")]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::load::{Ask, LOST_AFTER, Seen};

/// Connections.
const CONNECTIONS: usize = 64;
/// Queries under way on each.
const PIPELINED: usize = 4;

struct Connection {
    stream: TcpStream,
    /// What came and is not a whole message yet.
    read: Vec<u8>,
    /// By id: which query, and since when.
    under_way: [Option<(usize, Instant)>; PIPELINED],
}

/// Asks `server` these queries over and over until `time` is over.
pub fn run(server: SocketAddrV4, asks: &[Ask], time: Duration) -> anyhow::Result<Seen> {
    anyhow::ensure!(!asks.is_empty(), "nothing to ask");
    let mut connections = (0..CONNECTIONS)
        .map(|_| Connection::open(server))
        .collect::<anyhow::Result<Vec<Connection>>>()?;
    let mut polled: Vec<libc::pollfd> = connections
        .iter()
        .map(|c| libc::pollfd { fd: c.stream.as_raw_fd(), events: libc::POLLIN, revents: 0 })
        .collect();
    let mut seen = Seen::default();
    let mut next = 0;
    let start = Instant::now();
    for connection in &mut connections {
        connection.send(asks, &mut next, start)?;
    }
    let mut heard = start;
    loop {
        // SAFETY: the array is of the length given.
        unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, 50) };
        let now = Instant::now();
        let over = now.duration_since(start) >= time;
        for (connection, polled) in connections.iter_mut().zip(&polled) {
            if polled.revents != 0 {
                heard = now;
                connection.receive(asks, &mut seen, now)?;
                if !over {
                    connection.send(asks, &mut next, now)?;
                }
            }
        }
        if seen.seconds == 0.0 && over {
            seen.seconds = now.duration_since(start).as_secs_f64();
        }
        let under_way = connections.iter().flat_map(|c| &c.under_way).flatten().count() as u64;
        if under_way == 0 {
            return Ok(seen);
        }
        if now.duration_since(heard) > LOST_AFTER {
            seen.lost += under_way;
            return Ok(seen);
        }
    }
}

impl Connection {
    fn open(server: SocketAddrV4) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(server).with_context(|| format!("TCP to {server}"))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, read: Vec::new(), under_way: [None; PIPELINED] })
    }

    fn send(&mut self, asks: &[Ask], next: &mut usize, now: Instant) -> anyhow::Result<()> {
        let mut out = Vec::with_capacity(512);
        for (id, slot) in self.under_way.iter_mut().enumerate().filter(|(_, s)| s.is_none()) {
            let message = &asks[*next].message;
            out.extend((message.len() as u16).to_be_bytes());
            out.extend([0, id as u8]);
            out.extend(message.get(2..).unwrap_or_default());
            *slot = Some((*next, now));
            *next = (*next + 1) % asks.len();
        }
        // A few hundred octets fit whatever buffer an answered connection has.
        self.stream.write_all(&out).context("a connection takes no more queries")
    }

    fn receive(&mut self, asks: &[Ask], seen: &mut Seen, now: Instant) -> anyhow::Result<()> {
        let mut buffer = [0; 8192];
        match self.stream.read(&mut buffer) {
            Ok(0) => anyhow::bail!("the server closed a connection in use"),
            Ok(count) => self.read.extend(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).context("a connection broke"),
        }
        let mut rest = self.read.as_slice();
        while let Some(([high, low], body)) = rest.split_first_chunk::<2>() {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            let Some((answer, after)) = body.split_at_checked(length) else { break };
            rest = after;
            let slot = answer.get(1).and_then(|id| self.under_way.get_mut(usize::from(*id)));
            let Some((ask, sent)) = slot.and_then(Option::take) else {
                seen.wrong += 1;
                continue;
            };
            seen.latencies.add(now.duration_since(sent));
            if asks[ask].expected.holds(answer) {
                seen.answered += 1;
            } else {
                seen.wrong += 1;
                let pair = || (asks[ask].message.clone(), answer.to_vec());
                seen.first_wrong.get_or_insert_with(pair);
            }
        }
        let taken = self.read.len() - rest.len();
        self.read.drain(..taken);
        Ok(())
    }
}
