//! DNS over UDP: one thread for each socket, batches in, batches out.
//!
//! `recvmmsg` and `sendmmsg` spread the cost of a system call over up to 32 messages. On a wildcard address the kernel
//! tells which address was asked (IP_PKTINFO), and the answer leaves from there. All queries of a batch are read, and
//! what they need is fetched into the caches, before the first is answered.
#![expect(
    unsafe_code,
    reason = "recvmmsg, sendmmsg and control messages have no safe interface in std"
)]

use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use shared::io::clock;

use super::node::{Draws, Served};
use crate::answer::{Client, Outcome, Reading, Transport, answer_read, call_in};
use crate::edns::UDP_SIZE;
use crate::metrics::Batch;
use crate::wire::LowerName;

/// Messages per system call. Measured: 16 costs more per query, 64 no less.
const BATCH: usize = 32;
/// Longest query that is read; what is longer is cut and answered FORMERR. Not a power of two: buffers that far apart
/// would all fall into the same few lines of the cache.
const QUERY_BYTES: usize = 4096 + 64;
const ANSWER_BYTES: usize = UDP_SIZE as usize;
/// Room for one control message with an IPv6 address.
const CONTROL_BYTES: usize = 64;
/// How soon a stop is noticed without traffic.
const WAKE: Duration = Duration::from_millis(200);
/// Batches that are still answered after a stop: a flood must not keep a process from its end.
const LAST_BATCHES: usize = 256;

/// Answers on `socket` until `stop`.
pub(super) fn serve(socket: &UdpSocket, served: &Arc<ArcSwap<Served>>, stop: &AtomicBool) {
    let keeps_address = socket.local_addr().is_ok_and(|address| address.ip().is_unspecified());
    if let Err(error) = prepare(socket, keeps_address) {
        tracing::error!(%error, "a UDP socket cannot be prepared");
        return;
    }
    let mut served = arc_swap::Cache::new(Arc::clone(served));
    let mut draws = Draws::new();
    let mut incoming = Incoming::new(keeps_address);
    let mut outgoing = Outgoing::new();
    let mut names = vec![LowerName::default(); BATCH];
    let mut batch = Batch::default();
    let mut last_batches = 0;
    loop {
        if stop.load(Ordering::Relaxed) {
            // What clients have sent until now is answered; what comes later finds another process, or nobody.
            if last_batches == LAST_BATCHES || socket.set_nonblocking(true).is_err() {
                return;
            }
            last_batches += 1;
        }
        incoming.receive(socket);
        if last_batches > 0 && incoming.received.is_empty() {
            return;
        }
        let served = served.load();
        let now = clock::now();
        let context = served.context(now);
        let mut readings = [const { None }; BATCH];
        let slots = readings.iter_mut().zip(&mut names).enumerate();
        for (index, (slot, name)) in slots.take(incoming.received.len()) {
            let Some((packet, address)) = incoming.query(index) else { continue };
            let client = Client { address, transport: Transport::Udp, draw: draws.next() };
            *slot = Some(Reading::new(packet, client, name));
        }
        let readings = readings.get_mut(..incoming.received.len()).unwrap_or_default();
        call_in(readings, &context, &served.snapshot, fetch);
        for (index, reading) in readings.iter().enumerate() {
            let Some(reading) = reading else { continue };
            let Some(out) = outgoing.free() else { break };
            let client = &reading.client;
            let outcome = answer_read(reading, &context, &served.snapshot, out);
            served.stats.note(Transport::Udp, &outcome, &mut batch);
            let packet = || incoming.query(index).map_or(&[] as &[u8], |(packet, _)| packet);
            served.log.write(&served.node, packet, client, &served.snapshot, &outcome);
            let response = out.get(..outcome.length()).unwrap_or_default();
            served.log.tap(client, || incoming.asked_at(index, socket), now, packet, response);
            if let Outcome::Respond { length, .. } = outcome {
                outgoing.staged.push(Staged { to: index, length });
            }
        }
        outgoing.send(socket, &mut incoming);
        served.stats.add(&mut batch);
    }
}

/// Has the processor begin to bring what lies at `place` into its caches, and not wait for it.
#[inline]
fn fetch(place: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint: at no address does it fault or change anything.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(place.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{0}]", in(reg) place, options(nostack, readonly, preserves_flags));
    }
    let _ = place;
}

fn prepare(socket: &UdpSocket, keeps_address: bool) -> std::io::Result<()> {
    socket.set_read_timeout(Some(WAKE))?;
    let is_v4 = socket.local_addr()?.is_ipv4();
    if is_v4 {
        // RFC 9715 §3.1: no answer is cut into fragments, whatever a forged ICMP message says of the path. Nor need the
        // kernel number answers then: measured, a twentieth of what they cost. Over IPv6 they fit every link.
        set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)?;
    }
    match (keeps_address, is_v4) {
        (false, _) => Ok(()),
        (true, true) => set(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1),
        (true, false) => set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1),
    }
}

fn set(
    socket: &UdpSocket,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> std::io::Result<()> {
    // SAFETY: the descriptor is open, and the option is an int of the length given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Control messages are aligned as their headers.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

struct Incoming {
    queries: Vec<[u8; QUERY_BYTES]>,
    names: Vec<libc::sockaddr_storage>,
    controls: Vec<Control>,
    control_bytes: usize,
    received: Vec<Received>,
}

struct Received {
    length: usize,
    name_length: libc::socklen_t,
    control_length: usize,
}

struct Outgoing {
    answers: Vec<[u8; ANSWER_BYTES]>,
    staged: Vec<Staged>,
    /// Whether a link of this machine turned out to be too short for an answer in one piece: it is cut after all.
    may_be_cut: bool,
}

struct Staged {
    /// Which of the received messages this answers.
    to: usize,
    length: usize,
}

impl Incoming {
    fn new(keeps_address: bool) -> Self {
        Self {
            queries: vec![[0; QUERY_BYTES]; BATCH],
            // SAFETY: a socket address of zeros is one of no family.
            names: vec![unsafe { zeroed() }; BATCH],
            controls: vec![Control([0; CONTROL_BYTES]); BATCH],
            control_bytes: if keeps_address { CONTROL_BYTES } else { 0 },
            received: Vec::with_capacity(BATCH),
        }
    }

    /// Waits for a message and takes all that are there. None on a time-out or a passing error.
    fn receive(&mut self, socket: &UdpSocket) {
        self.received.clear();
        // SAFETY: headers and vectors of zeros are valid: no buffers.
        let mut vectors: [libc::iovec; BATCH] = unsafe { zeroed() };
        // SAFETY: as above.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { zeroed() };
        let buffers = self.queries.iter_mut().zip(&mut self.names).zip(&mut self.controls);
        for (((query, name), control), (vector, header)) in
            buffers.zip(vectors.iter_mut().zip(&mut headers))
        {
            vector.iov_base = query.as_mut_ptr().cast();
            vector.iov_len = QUERY_BYTES;
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_name = (&raw mut *name).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            if self.control_bytes > 0 {
                header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
                header.msg_hdr.msg_controllen = self.control_bytes as _;
            }
        }
        // SAFETY: every header points to buffers of the lengths given, which outlive the call.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_WAITFORONE as _,
                std::ptr::null_mut(),
            )
        };
        // An error here is a time-out, a signal, or an ICMP answer to an earlier message.
        for header in headers.iter().take(usize::try_from(count).unwrap_or(0)) {
            self.received.push(Received {
                length: header.msg_len as usize,
                name_length: header.msg_hdr.msg_namelen,
                control_length: header.msg_hdr.msg_controllen,
            });
        }
    }

    /// A received message and its sender.
    fn query(&self, index: usize) -> Option<(&[u8], SocketAddr)> {
        let received = self.received.get(index)?;
        let packet = self.queries.get(index)?.get(..received.length.min(QUERY_BYTES))?;
        Some((packet, address_of(self.names.get(index)?)?))
    }

    /// The address that a received message was sent to.
    #[cold]
    fn asked_at(&self, index: usize, socket: &UdpSocket) -> Option<SocketAddr> {
        let bound = socket.local_addr().ok()?;
        let length = self.received.get(index)?.control_length;
        let header = size_of::<libc::cmsghdr>();
        if self.control_bytes == 0 || length < header {
            return (!bound.ip().is_unspecified()).then_some(bound);
        }
        let control = &self.controls.get(index)?.0;
        // in_pktinfo: interface, local address, address asked; in6_pktinfo: address asked, interface.
        let ip: IpAddr = match bound {
            SocketAddr::V4(_) => IpAddr::from(*control.get(header + 8..)?.first_chunk::<4>()?),
            SocketAddr::V6(_) => IpAddr::from(*control.get(header..)?.first_chunk::<16>()?),
        };
        Some(SocketAddr::new(ip, bound.port()))
    }

    /// The control message of a received message, made into one that sets where the answer leaves from.
    fn reply_control(&mut self, index: usize) -> Option<(*mut libc::c_void, usize)> {
        let length = self.received.get(index)?.control_length;
        let control = &mut self.controls.get_mut(index)?.0;
        let header = size_of::<libc::cmsghdr>();
        if self.control_bytes == 0 || length < header || length > CONTROL_BYTES {
            return None;
        }
        // The kernel's routes decide which interface it leaves by; only link-local addresses are bound to theirs.
        match address_of(self.names.get(index)?)? {
            SocketAddr::V4(_) => control.get_mut(header..header + 4)?.fill(0),
            SocketAddr::V6(_) => {
                let is_link_local = control.get(header..header + 2)? == [0xfe, 0x80];
                if !is_link_local {
                    control.get_mut(header + 16..header + 20)?.fill(0);
                }
            }
        }
        Some((control.as_mut_ptr().cast(), length))
    }
}

impl Outgoing {
    fn new() -> Self {
        Self {
            answers: vec![[0; ANSWER_BYTES]; BATCH],
            staged: Vec::with_capacity(BATCH),
            may_be_cut: false,
        }
    }

    /// The buffer of the next answer.
    fn free(&mut self) -> Option<&mut [u8]> {
        self.answers.get_mut(self.staged.len()).map(<[u8; ANSWER_BYTES]>::as_mut_slice)
    }

    /// Sends what is staged, in as few calls as the kernel allows. An answer that cannot be sent is passed over: the
    /// client asks again.
    fn send(&mut self, socket: &UdpSocket, incoming: &mut Incoming) {
        let total = self.staged.len();
        // SAFETY: headers and vectors of zeros are valid: no buffers.
        let mut vectors: [libc::iovec; BATCH] = unsafe { zeroed() };
        // SAFETY: as above.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { zeroed() };
        let slots = vectors.iter_mut().zip(&mut headers);
        for ((staged, answer), (vector, header)) in
            self.staged.iter().zip(&mut self.answers).zip(slots)
        {
            vector.iov_base = answer.as_mut_ptr().cast();
            vector.iov_len = staged.length.min(ANSWER_BYTES);
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            if let Some((control, length)) = incoming.reply_control(staged.to) {
                header.msg_hdr.msg_control = control;
                header.msg_hdr.msg_controllen = length as _;
            }
            let name = incoming.names.get_mut(staged.to).zip(incoming.received.get(staged.to));
            if let Some((name, received)) = name {
                header.msg_hdr.msg_name = (&raw mut *name).cast();
                header.msg_hdr.msg_namelen = received.name_length;
            }
        }
        let mut sent = 0;
        while sent < total {
            let Some(rest) = headers.get_mut(sent..total) else { break };
            // SAFETY: every header points to buffers of the lengths given, which outlive the call.
            let count = unsafe {
                libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as libc::c_uint, 0)
            };
            match usize::try_from(count) {
                Ok(count) => sent += count.max(1),
                Err(_) if too_long_for_link() && !self.may_be_cut => {
                    self.may_be_cut = true;
                    let _ = set(
                        socket,
                        libc::IPPROTO_IP,
                        libc::IP_MTU_DISCOVER,
                        libc::IP_PMTUDISC_OMIT,
                    );
                }
                Err(_) => sent += 1,
            }
        }
        self.staged.clear();
    }
}

/// Whether the last call failed because this machine's own link takes no datagram of that length.
#[cold]
fn too_long_for_link() -> bool {
    std::io::Error::last_os_error().raw_os_error() == Some(libc::EMSGSIZE)
}

fn address_of(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that this is a sockaddr_in, which is no larger and no stricter aligned.
            let v4: &libc::sockaddr_in = unsafe { &*(&raw const *name).cast() };
            let address = Ipv4Addr::from_bits(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddrV4::new(address, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above, for sockaddr_in6.
            let v6: &libc::sockaddr_in6 = unsafe { &*(&raw const *name).cast() };
            let address = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(address, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}
