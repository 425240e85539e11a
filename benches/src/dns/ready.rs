//! Whether a name server answers yet.

use std::net::{SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use super::message::{Query, rtype};
use crate::process::Server;

/// Waits until `server` answers a query for the SOA of `apex`.
pub fn wait(
    server: &mut Server,
    started: Instant,
    address: SocketAddrV4,
    apex: &str,
    within: Duration,
) -> anyhow::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    // RD: resolvers answer nobody who does not ask for recursion.
    let query = Query::new(apex, rtype::SOA).flags(0x0100).message(0x5245);
    let mut answer = [0; 1232];
    server.wait_ready(started, within, || {
        // A refused port is an error of the next call: nothing listens yet.
        let _ = socket.send_to(&query, address);
        let Ok((length, _)) = socket.recv_from(&mut answer) else { return false };
        answer.get(..length).is_some_and(|answer| {
            matches!(answer, [0x52, 0x45, flags, rcode, ..] if flags & 0x80 != 0 && rcode & 15 == 0)
        })
    })
}
