//! A load over UDP: a closed window of queries from many source addresses, every answer checked, every loss counted.
//!
//! Tools that send from one address with one thread per socket cannot vary the client subnet, nor tell a wrong answer
//! from a right one. This one costs about as much per query as a fast server does, so that one core is enough for it.
#![expect(
    unsafe_code,
    reason = "recvmmsg, sendmmsg, source addresses and pinning have no safe interface in std"
)]
#![expect(clippy::disallowed_methods, reason = "a load goes by the clock")]

use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use socket2::SockRef;

use super::latency::Latencies;
use super::message::Expected;

/// Queries under way at once: as many as a socket's default buffer holds, so that a loss is the server's.
const WINDOW: usize = 128;
/// Messages per system call.
const BATCH: usize = 32;
/// The longest query.
const QUERY_BYTES: usize = 320;
const ANSWER_BYTES: usize = 1280;
/// Octets of a control message with a source address.
const CONTROL_BYTES: usize = 32;
/// A query without an answer after this is lost.
pub const LOST_AFTER: Duration = Duration::from_secs(1);
/// How long nothing may come before the losses are looked for.
const PATIENCE: Duration = Duration::from_millis(50);

/// A query and what its answer must have; the id is the load's.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The message.
    pub message: Vec<u8>,
    /// What must come back.
    pub expected: Expected,
}

/// What a load saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Queries answered as expected.
    pub answered: u64,
    /// Queries answered otherwise.
    pub wrong: u64,
    /// The first of the wrong answers.
    pub first_wrong: Option<(Vec<u8>, Vec<u8>)>,
    /// Queries without an answer within [`LOST_AFTER`].
    pub lost: u64,
    /// How long it took.
    pub seconds: f64,
    /// From a query's sending to its answer's receipt.
    pub latencies: Latencies,
}

impl Seen {
    /// Answers a second.
    pub fn rate(&self) -> f64 {
        self.answered as f64 / self.seconds.max(1e-9)
    }
}

/// Binds the calling thread to one core. Machines with one core have no other.
pub fn pin(core: usize) -> anyhow::Result<()> {
    // SAFETY: a set of zeros is empty, and CPU_SET is bounded by the check before it.
    unsafe {
        let mut set: libc::cpu_set_t = zeroed();
        anyhow::ensure!(core < libc::CPU_SETSIZE as usize, "there is no core {core}");
        libc::CPU_SET(core, &mut set);
        let result = libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
        anyhow::ensure!(result == 0, "cannot be bound to core {core}");
    }
    Ok(())
}

#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

#[derive(Clone, Copy)]
struct Slot {
    sent: Instant,
    /// Which of the queries is under way.
    ask: u32,
    generation: u8,
    busy: bool,
}

/// A socket with its window.
pub struct Load {
    socket: UdpSocket,
    slots: Vec<Slot>,
    free: Vec<u8>,
    queries: Vec<[u8; QUERY_BYTES]>,
    controls: Vec<Control>,
    answers: Vec<[u8; ANSWER_BYTES]>,
    next: usize,
    next_source: usize,
}

impl Load {
    /// A load on a socket of its own.
    pub fn new() -> anyhow::Result<Self> {
        let socket = UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        SockRef::from(&socket).set_recv_buffer_size(4 << 20)?;
        let slot = Slot { sent: Instant::now(), ask: 0, generation: 0, busy: false };
        Ok(Self {
            socket,
            slots: vec![slot; WINDOW],
            free: (0..WINDOW as u8).rev().collect(),
            queries: vec![[0; QUERY_BYTES]; WINDOW],
            controls: vec![Control([0; CONTROL_BYTES]); BATCH],
            answers: vec![[0; ANSWER_BYTES]; BATCH],
            next: 0,
            next_source: 0,
        })
    }

    /// Asks `server` these queries over and over from these addresses until `time` is over or `stop` is set, then waits
    /// for what is under way.
    pub fn run(
        &mut self,
        server: SocketAddrV4,
        asks: &[Ask],
        sources: &[Ipv4Addr],
        time: Duration,
        stop: &AtomicBool,
    ) -> anyhow::Result<Seen> {
        anyhow::ensure!(!asks.is_empty() && !sources.is_empty(), "nothing to ask");
        anyhow::ensure!(
            asks.iter().all(|ask| ask.message.len() <= QUERY_BYTES),
            "too long a query"
        );
        let mut seen = Seen::default();
        let start = Instant::now();
        let mut now = start;
        while now.duration_since(start) < time && !stop.load(Ordering::Relaxed) {
            while !self.free.is_empty() {
                self.send(server, asks, sources)?;
            }
            now = self.receive(asks, &mut seen);
        }
        seen.seconds = now.duration_since(start).as_secs_f64();
        while self.free.len() < WINDOW {
            self.receive(asks, &mut seen);
        }
        Ok(seen)
    }

    /// Fills up to a batch of free slots.
    fn send(
        &mut self,
        server: SocketAddrV4,
        asks: &[Ask],
        sources: &[Ipv4Addr],
    ) -> anyhow::Result<()> {
        // SAFETY: an address, headers and vectors of zeros are valid.
        let (mut name, mut vectors, mut headers): (
            libc::sockaddr_in,
            [libc::iovec; BATCH],
            [libc::mmsghdr; BATCH],
        ) = unsafe { zeroed() };
        name.sin_family = libc::AF_INET as libc::sa_family_t;
        name.sin_port = server.port().to_be();
        name.sin_addr.s_addr = server.ip().to_bits().to_be();
        let mut taken = [0u8; BATCH];
        let mut count = 0;
        let now = Instant::now();
        while count < BATCH {
            let Some(index) = self.free.pop() else { break };
            let Some(ask) = asks.get(self.next) else { break };
            let source = sources[self.next_source];
            let slot = &mut self.slots[usize::from(index)];
            *slot = Slot {
                sent: now,
                ask: self.next as u32,
                generation: slot.generation.wrapping_add(1),
                busy: true,
            };
            let query = &mut self.queries[usize::from(index)];
            query[..ask.message.len()].copy_from_slice(&ask.message);
            (query[0], query[1]) = (slot.generation, index);
            self.controls[count] = source_control(source);
            vectors[count].iov_base = query.as_mut_ptr().cast();
            vectors[count].iov_len = ask.message.len();
            let header = &mut headers[count].msg_hdr;
            header.msg_iov = &raw mut vectors[count];
            header.msg_iovlen = 1;
            header.msg_name = (&raw mut name).cast();
            header.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            header.msg_control = self.controls[count].0.as_mut_ptr().cast();
            header.msg_controllen = size_of::<libc::cmsghdr>() + size_of::<libc::in_pktinfo>();
            taken[count] = index;
            count += 1;
            self.next = (self.next + 1) % asks.len();
            self.next_source = (self.next_source + 1) % sources.len();
        }
        let mut sent = 0;
        while sent < count {
            let rest = &mut headers[sent..count];
            // SAFETY: every header points to buffers of the lengths given, which outlive the call.
            let result = unsafe {
                libc::sendmmsg(
                    self.socket.as_raw_fd(),
                    rest.as_mut_ptr(),
                    rest.len() as libc::c_uint,
                    0,
                )
            };
            match usize::try_from(result) {
                Ok(more) => sent += more,
                Err(_) => {
                    let error = std::io::Error::last_os_error();
                    // A server that is gone refuses; its queries count as lost later on.
                    if error.kind() != std::io::ErrorKind::ConnectionRefused {
                        return Err(error).context("cannot send queries");
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes what is there, or what comes within [`PATIENCE`]. Gives the time.
    fn receive(&mut self, asks: &[Ask], seen: &mut Seen) -> Instant {
        // SAFETY: headers and vectors of zeros are valid.
        let (mut vectors, mut headers): ([libc::iovec; BATCH], [libc::mmsghdr; BATCH]) =
            unsafe { zeroed() };
        for ((answer, vector), header) in
            self.answers.iter_mut().zip(&mut vectors).zip(&mut headers)
        {
            vector.iov_base = answer.as_mut_ptr().cast();
            vector.iov_len = ANSWER_BYTES;
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: every header points to buffers of the lengths given, which outlive the call.
        let count = unsafe {
            libc::recvmmsg(
                self.socket.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_WAITFORONE as _,
                std::ptr::null_mut(),
            )
        };
        let now = Instant::now();
        let Ok(count @ 1..) = usize::try_from(count) else {
            self.give_up(now, seen);
            return now;
        };
        for (answer, header) in self.answers.iter().zip(&headers).take(count) {
            let answer = &answer[..(header.msg_len as usize).min(ANSWER_BYTES)];
            let [generation, index, ..] = *answer else { continue };
            let Some(slot) = self.slots.get_mut(usize::from(index)) else { continue };
            if !slot.busy || slot.generation != generation {
                continue;
            }
            slot.busy = false;
            self.free.push(index);
            seen.latencies.add(now.duration_since(slot.sent));
            let ask = &asks[slot.ask as usize];
            if ask.expected.holds(answer) {
                seen.answered += 1;
            } else {
                seen.wrong += 1;
                seen.first_wrong.get_or_insert_with(|| (ask.message.clone(), answer.to_vec()));
            }
        }
        now
    }

    /// Counts what is under way for too long as lost.
    fn give_up(&mut self, now: Instant, seen: &mut Seen) {
        for (index, slot) in (0..=u8::MAX).zip(&mut self.slots) {
            if slot.busy && now.duration_since(slot.sent) > LOST_AFTER {
                slot.busy = false;
                self.free.push(index);
                seen.lost += 1;
            }
        }
    }
}

/// The control message that sets where a query comes from.
fn source_control(source: Ipv4Addr) -> Control {
    // SAFETY: both are plain data, and the buffer holds both; CMSG_LEN rounds nothing here.
    unsafe {
        let mut head: libc::cmsghdr = zeroed();
        head.cmsg_len = size_of::<libc::cmsghdr>() + size_of::<libc::in_pktinfo>();
        head.cmsg_level = libc::IPPROTO_IP;
        head.cmsg_type = libc::IP_PKTINFO;
        let mut info: libc::in_pktinfo = zeroed();
        info.ipi_spec_dst.s_addr = source.to_bits().to_be();
        let mut control = Control([0; CONTROL_BYTES]);
        let at = control.0.as_mut_ptr();
        at.cast::<libc::cmsghdr>().write(head);
        at.add(size_of::<libc::cmsghdr>()).cast::<libc::in_pktinfo>().write(info);
        control
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::thread;

    use super::*;
    use crate::dns::message::{Query, rtype};

    /// Answers so many queries as `f` says, then nothing more.
    fn server(
        count: usize,
        f: impl Fn(usize, SocketAddr, &mut Vec<u8>) -> bool + Send + 'static,
    ) -> SocketAddrV4 {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(address) = socket.local_addr().unwrap() else { panic!("IPv6") };
        thread::spawn(move || {
            let mut buffer = [0; 512];
            for at in 0..count {
                let (length, from) = socket.recv_from(&mut buffer).unwrap();
                let mut answer = buffer[..length].to_vec();
                answer[2] |= 0x80;
                if f(at, from, &mut answer) {
                    socket.send_to(&answer, from).unwrap();
                }
            }
        });
        address
    }

    fn ask() -> Vec<Ask> {
        let message = Query::new("a.test", rtype::A).message(0);
        vec![Ask { message, expected: Expected { rcode: 0, answers: 0, edns: false } }]
    }

    #[test]
    fn wrong_answers_and_losses_are_told_from_right_ones() {
        // Of 128, every fourth is NXDOMAIN and every eighth is lost.
        let server = server(WINDOW, |at, _, answer| {
            answer[3] |= if at % 4 == 1 { 3 } else { 0 };
            at % 8 != 0
        });
        let never = AtomicBool::new(false);
        let mut load = Load::new().unwrap();
        let time = Duration::from_nanos(1);
        let seen = load.run(server, &ask(), &[Ipv4Addr::LOCALHOST], time, &never).unwrap();
        assert_eq!((seen.answered, seen.wrong, seen.lost), (80, 32, 16));
        let (_, wrong) = seen.first_wrong.unwrap();
        assert_eq!(wrong[3] & 15, 3);
    }

    #[test]
    fn queries_come_from_the_addresses_given() {
        let sources: Vec<Ipv4Addr> = (1..=4).map(|n| Ipv4Addr::new(127, 3, n, 9)).collect();
        let allowed = sources.clone();
        let server = server(WINDOW, move |at, from, answer| {
            let expected = allowed[at % 4] == from.ip();
            answer[3] |= if expected { 0 } else { 2 };
            true
        });
        let never = AtomicBool::new(false);
        let time = Duration::from_nanos(1);
        let seen = Load::new().unwrap().run(server, &ask(), &sources, time, &never).unwrap();
        assert_eq!((seen.answered, seen.wrong, seen.lost), (128, 0, 0));
    }
}
