//! Listening sockets, several per address, one for each thread that serves.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that wait to be accepted at most; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// `count` TCP listeners on one address, among which the kernel spreads connections.
///
/// # Errors
/// The address is in use by another process, is not this machine's, or needs privileges.
pub fn tcp_listeners(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    // With SO_REUSEPORT alone a second process of ours would silently take half of the connections.
    drop(tcp(address, false)?);
    (0..count).map(|_| tcp(address, true)).collect()
}

/// One more listener on an address that this process listens on already.
pub fn tcp_listener_beside(address: SocketAddr) -> io::Result<TcpListener> {
    tcp(address, true)
}

/// `count` UDP sockets on one address, among which the kernel spreads datagrams.
///
/// # Errors
/// As for [`tcp_listeners`].
pub fn udp_sockets(address: SocketAddr, count: usize) -> io::Result<Vec<UdpSocket>> {
    drop(udp(address, false)?);
    (0..count).map(|_| udp(address, true)).collect()
}

fn tcp(address: SocketAddr, share: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if share {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn udp(address: SocketAddr, share: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if share {
        socket.set_reuse_port(true)?;
        // Bursts wait in the kernel; the default of 208 KiB holds a few hundred queries.
        let _ = socket.set_recv_buffer_size(4 << 20);
        let _ = socket.set_send_buffer_size(4 << 20);
    }
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_many_listeners_but_one_owner() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let ours = tcp_listeners(free, 3).unwrap();
        assert_eq!(ours.len(), 3);
        assert!(tcp_listener_beside(free).is_ok());
        let error = tcp_listeners(free, 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn udp_sockets_share_an_address() {
        let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(udp_sockets(free, 2).unwrap().len(), 2);
    }
}
