//! A DNS client: queries made by hand, so that they can be wrong, answers read by hickory-proto.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::{Record, RecordType};

use crate::wait::PATIENCE;

static NEXT_ID: AtomicU16 = AtomicU16::new(1);

/// A query, to be turned into bytes.
#[derive(Clone, Debug)]
pub struct Query {
    id: u16,
    name: String,
    kind: u16,
    class: u16,
    flags: u16,
    edns: Option<Edns>,
}

#[derive(Clone, Debug)]
struct Edns {
    size: u16,
    version: u8,
    flags: u16,
    options: Vec<(u16, Vec<u8>)>,
}

impl Query {
    /// A question for a name and type of class IN, with RD and without EDNS, as a stub resolver of old would ask.
    pub fn new(name: &str, kind: RecordType) -> Self {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Self { id, name: name.to_owned(), kind: kind.into(), class: 1, flags: 0x0100, edns: None }
    }

    /// A question for an A record.
    pub fn a(name: &str) -> Self {
        Self::new(name, RecordType::A)
    }

    /// The class of the question.
    #[must_use]
    pub fn class(mut self, class: u16) -> Self {
        self.class = class;
        self
    }

    /// The second word of the header: QR, opcode, AA, TC, RD, RA, Z, AD, CD, rcode.
    #[must_use]
    pub fn flags(mut self, flags: u16) -> Self {
        self.flags = flags;
        self
    }

    /// EDNS with this payload size.
    #[must_use]
    pub fn edns(mut self, size: u16) -> Self {
        self.edns_mut().size = size;
        self
    }

    /// EDNS of this version.
    #[must_use]
    pub fn edns_version(mut self, version: u8) -> Self {
        self.edns_mut().version = version;
        self
    }

    /// An EDNS option.
    #[must_use]
    pub fn option(mut self, code: u16, data: &[u8]) -> Self {
        self.edns_mut().options.push((code, data.to_vec()));
        self
    }

    /// EDNS Client Subnet (RFC 7871): the address bits beyond the prefix are left out.
    #[must_use]
    pub fn subnet(self, subnet: &str) -> Self {
        let (addr, length) = subnet.split_once('/').unwrap();
        let (addr, length): (IpAddr, u8) = (addr.parse().unwrap(), length.parse().unwrap());
        let (family, octets) = match addr {
            IpAddr::V4(v4) => (1u8, v4.octets().to_vec()),
            IpAddr::V6(v6) => (2, v6.octets().to_vec()),
        };
        let mut data = vec![0, family, length, 0];
        data.extend_from_slice(&octets[..usize::from(length).div_ceil(8)]);
        if let (true, Some(last)) = (length % 8 != 0, data.last_mut()) {
            *last &= 0xff << (8 - length % 8);
        }
        self.option(8, &data)
    }

    fn edns_mut(&mut self) -> &mut Edns {
        self.edns.get_or_insert(Edns { size: 1232, version: 0, flags: 0, options: Vec::new() })
    }

    /// The query's id.
    pub fn id(&self) -> u16 {
        self.id
    }

    /// The bytes of the query.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for word in [self.id, self.flags, 1, 0, 0, u16::from(self.edns.is_some())] {
            out.extend(word.to_be_bytes());
        }
        for label in self.name.split('.').filter(|label| !label.is_empty()) {
            out.push(u8::try_from(label.len()).unwrap());
            out.extend(label.bytes());
        }
        out.push(0);
        out.extend(self.kind.to_be_bytes());
        out.extend(self.class.to_be_bytes());
        if let Some(edns) = &self.edns {
            out.extend([0, 0, 41]);
            out.extend(edns.size.to_be_bytes());
            out.extend([0, edns.version]);
            out.extend(edns.flags.to_be_bytes());
            let length: usize = edns.options.iter().map(|(_, data)| data.len() + 4).sum();
            out.extend(u16::try_from(length).unwrap().to_be_bytes());
            for (code, data) in &edns.options {
                out.extend(code.to_be_bytes());
                out.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
                out.extend(data);
            }
        }
        out
    }

    /// Asks over UDP.
    #[track_caller]
    pub fn udp(&self, server: SocketAddr) -> Answer {
        match self.try_udp(server) {
            Some(answer) => answer,
            None => panic!("{server} gave no answer over UDP to {} within {PATIENCE:?}", self.name),
        }
    }

    /// Asks over UDP once; `None` when nothing came in time or the port was closed.
    pub fn try_udp(&self, server: SocketAddr) -> Option<Answer> {
        let bytes = udp_raw(server, &self.bytes())?;
        let answer = Answer::read(bytes);
        assert_eq!(answer.message.metadata.id, self.id, "the answer has another id");
        Some(answer)
    }

    /// Asks over TCP on a connection of its own.
    #[track_caller]
    pub fn tcp(&self, server: SocketAddr) -> Answer {
        let mut tcp = Tcp::connect(server);
        tcp.send(&self.bytes());
        tcp.receive().expect("the connection ended without an answer")
    }
}

/// Sends a datagram and gives what comes back; `None` for silence.
pub fn udp_raw(server: SocketAddr, bytes: &[u8]) -> Option<Vec<u8>> {
    udp_raw_within(server, bytes, PATIENCE)
}

/// Sends a datagram and gives what comes back within this time.
pub fn udp_raw_within(
    server: SocketAddr,
    bytes: &[u8],
    limit: std::time::Duration,
) -> Option<Vec<u8>> {
    let local = if server.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    let socket = UdpSocket::bind(local).unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(limit)).unwrap();
    socket.send(bytes).ok()?;
    let mut buffer = vec![0; 65_535];
    let read = socket.recv(&mut buffer).ok()?;
    buffer.truncate(read);
    Some(buffer)
}

/// A TCP connection to a name server.
pub struct Tcp(TcpStream);

impl Tcp {
    /// Connects.
    #[track_caller]
    pub fn connect(server: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&server, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// Sends a message with its length in front.
    #[track_caller]
    pub fn send(&mut self, message: &[u8]) {
        let mut bytes = u16::try_from(message.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend_from_slice(message);
        self.send_bytes(&bytes);
    }

    /// Sends these bytes.
    #[track_caller]
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// The next answer; `None` when the peer closed.
    pub fn receive(&mut self) -> Option<Answer> {
        let mut length = [0; 2];
        self.0.read_exact(&mut length).ok()?;
        let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
        self.0.read_exact(&mut bytes).ok()?;
        Some(Answer::read(bytes))
    }
}

/// An answer, as bytes and as read by hickory-proto.
#[derive(Clone, Debug)]
pub struct Answer {
    /// As received.
    pub bytes: Vec<u8>,
    /// As read.
    pub message: Message,
}

impl Answer {
    /// Reads a message; one that hickory-proto cannot read fails the test.
    #[track_caller]
    pub fn read(bytes: Vec<u8>) -> Self {
        match Message::from_vec(&bytes) {
            Ok(message) => Self { bytes, message },
            Err(error) => panic!("no DNS message: {error}: {bytes:02x?}"),
        }
    }

    /// The response code, extended when EDNS is there.
    pub fn rcode(&self) -> ResponseCode {
        self.message.metadata.response_code
    }

    /// AA.
    pub fn authoritative(&self) -> bool {
        self.message.metadata.authoritative
    }

    /// TC.
    pub fn truncated(&self) -> bool {
        self.message.metadata.truncation
    }

    /// The addresses in the answer section, sorted.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let mut found: Vec<IpAddr> =
            self.message.answers.iter().filter_map(|record| record.data.ip_addr()).collect();
        found.sort();
        found
    }

    /// Owner, type and data of each record of the answer section, as text.
    pub fn answers(&self) -> Vec<String> {
        self.message.answers.iter().map(text).collect()
    }

    /// Owner, type and data of each record of the authority section, as text.
    pub fn authorities(&self) -> Vec<String> {
        self.message.authorities.iter().map(text).collect()
    }

    /// The TTL of the first answer.
    pub fn ttl(&self) -> Option<u32> {
        self.message.answers.first().map(|record| record.ttl)
    }

    /// Source and scope prefix lengths of the client subnet option.
    pub fn subnet(&self) -> Option<(IpAddr, u8, u8)> {
        match self.message.edns.as_ref()?.option(EdnsCode::Subnet)? {
            EdnsOption::Subnet(ecs) => Some((ecs.addr(), ecs.source_prefix(), ecs.scope_prefix())),
            _ => None,
        }
    }
}

fn text(record: &Record) -> String {
    format!("{} {} {}", record.name, record.record_type(), record.data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hickory_reads_what_is_written_by_hand() {
        let query = Query::a("www.cdn.test").edns(1400).subnet("203.0.113.77/20");
        let read = Answer::read(query.bytes());
        assert_eq!(read.message.queries[0].to_string(), "www.cdn.test. IN A");
        assert_eq!(read.message.edns.as_ref().unwrap().max_payload(), 1400);
        assert_eq!(read.subnet(), Some(("203.0.112.0".parse().unwrap(), 20, 0)));
    }
}
