//! One question, one answer, over UDP from a given address or over TCP.
#![expect(clippy::disallowed_methods, reason = "waiting goes by the clock")]

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// How long an answer may take. Both servers are on this machine.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a datagram is sent: the kernel may drop one.
const TRIES: u32 = 2;

/// How a query is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// In a datagram from this address.
    Udp(Ipv4Addr),
    /// On a connection of its own.
    Tcp,
}

/// Sockets that stay open, one for each address that queries come from.
#[derive(Default)]
pub struct Client {
    sockets: HashMap<Ipv4Addr, UdpSocket>,
}

impl Client {
    /// Sends `query` and gives what comes back with its id; `None` for silence and closed connections.
    pub fn ask(
        &mut self,
        server: SocketAddrV4,
        way: Way,
        query: &[u8],
    ) -> anyhow::Result<Option<Vec<u8>>> {
        match way {
            Way::Udp(from) => {
                for _ in 0..TRIES {
                    if let Some(answer) = self.udp(server, from, query)? {
                        return Ok(Some(answer));
                    }
                }
                Ok(None)
            }
            Way::Tcp => tcp(server, query),
        }
    }

    fn udp(
        &mut self,
        server: SocketAddrV4,
        from: Ipv4Addr,
        query: &[u8],
    ) -> anyhow::Result<Option<Vec<u8>>> {
        let socket = match self.sockets.entry(from) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let socket = UdpSocket::bind((from, 0))?;
                socket.set_read_timeout(Some(PATIENCE))?;
                entry.insert(socket)
            }
        };
        socket.send_to(query, server).context("cannot send")?;
        let mut buffer = vec![0; 65_535];
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            match socket.recv_from(&mut buffer) {
                // A late answer to an earlier query has another id or another sender.
                Ok((length, sender)) => {
                    let answer = buffer.get(..length).unwrap_or_default();
                    if sender == server.into() && answer.get(..2) == query.get(..2) {
                        return Ok(Some(answer.to_vec()));
                    }
                }
                Err(_) => return Ok(None),
            }
        }
        Ok(None)
    }
}

fn tcp(server: SocketAddrV4, query: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
    let mut stream = TcpStream::connect(server).with_context(|| format!("TCP to {server}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut message = u16::try_from(query.len())?.to_be_bytes().to_vec();
    message.extend(query);
    stream.write_all(&message)?;
    let mut length = [0; 2];
    if stream.read_exact(&mut length).is_err() {
        return Ok(None);
    }
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    Ok(stream.read_exact(&mut answer).ok().map(|()| answer))
}
