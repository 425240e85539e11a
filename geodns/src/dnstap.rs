//! dnstap: what was asked and answered, in the encoding that collectors read.
//!
//! A message is a `Dnstap` of the schema at dnstap.info, in protocol buffers: a dozen fields, written here by hand. The
//! messages travel in Frame Streams: length and payload, and control frames under the length 0. Files and sockets are
//! `io::dnstap`'s; which queries are told is the query log's sample.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::answer::{Client, Transport};

/// What the frames of our streams hold.
pub const CONTENT_TYPE: &[u8] = b"protobuf:dnstap.Dnstap";

/// Control frames at most, by the format.
pub const MAX_CONTROL_BYTES: usize = 512;

/// Who tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The node's name, or what NSID says.
    pub identity: Vec<u8>,
    /// The program and its version.
    pub version: Vec<u8>,
}

/// A query, and the answer when one was sent.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// Who asked, and how.
    pub client: &'a Client,
    /// Where it was asked, when that is known.
    pub server: Option<SocketAddr>,
    /// When the query came, since the epoch.
    pub asked: Duration,
    /// When it was answered, since the epoch.
    pub answered: Duration,
    /// The query's octets.
    pub query: &'a [u8],
    /// The answer's octets; empty: none was sent.
    pub response: &'a [u8],
}

/// `Message.Type` of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    AuthQuery = 1,
    AuthResponse = 2,
}

/// The frames of an exchange: AUTH_QUERY, and AUTH_RESPONSE when there was an answer.
pub fn frames(identity: &Identity, exchange: &Exchange<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + exchange.query.len() + exchange.response.len());
    frame(&mut out, |out| dnstap(out, identity, Kind::AuthQuery, exchange));
    if !exchange.response.is_empty() {
        frame(&mut out, |out| dnstap(out, identity, Kind::AuthResponse, exchange));
    }
    out
}

/// A payload with its length before it.
fn frame(out: &mut Vec<u8>, payload: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend([0; 4]);
    payload(out);
    let length = u32::try_from(out.len() - at - 4).unwrap_or(u32::MAX);
    if let Some(slot) = out.get_mut(at..at + 4) {
        slot.copy_from_slice(&length.to_be_bytes());
    }
}

/// `Dnstap`: identity = 1, version = 2, message = 14, type = 15 (MESSAGE = 1).
fn dnstap(out: &mut Vec<u8>, identity: &Identity, kind: Kind, exchange: &Exchange<'_>) {
    bytes(out, 1, &identity.identity);
    bytes(out, 2, &identity.version);
    let mut inner = Vec::with_capacity(64 + exchange.query.len().max(exchange.response.len()));
    message(&mut inner, kind, exchange);
    bytes(out, 14, &inner);
    number(out, 15, 1);
}

/// `Message`, its fields in their order.
fn message(out: &mut Vec<u8>, kind: Kind, exchange: &Exchange<'_>) {
    number(out, 1, kind as u64);
    let client = exchange.client.address;
    let client_ip = client.ip().to_canonical();
    number(out, 2, if client_ip.is_ipv4() { 1 } else { 2 });
    let protocol = match exchange.client.transport {
        Transport::Udp => 1,
        Transport::Tcp => 2,
        Transport::Tls => 3,
        Transport::Https => 4,
        Transport::Quic => 7,
    };
    number(out, 3, protocol);
    address(out, 4, client_ip);
    if let Some(server) = exchange.server {
        address(out, 5, server.ip().to_canonical());
    }
    number(out, 6, client.port().into());
    if let Some(server) = exchange.server {
        number(out, 7, server.port().into());
    }
    number(out, 8, exchange.asked.as_secs());
    fixed32(out, 9, exchange.asked.subsec_nanos());
    match kind {
        Kind::AuthQuery => bytes(out, 10, exchange.query),
        Kind::AuthResponse => {
            number(out, 12, exchange.answered.as_secs());
            fixed32(out, 13, exchange.answered.subsec_nanos());
            bytes(out, 14, exchange.response);
        }
    }
}

fn address(out: &mut Vec<u8>, field: u64, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => bytes(out, field, &v4.octets()),
        IpAddr::V6(v6) => bytes(out, field, &v6.octets()),
    }
}

/// Wire type 0.
fn number(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3);
    varint(out, value);
}

/// Wire type 5.
fn fixed32(out: &mut Vec<u8>, field: u64, value: u32) {
    varint(out, field << 3 | 5);
    out.extend(value.to_le_bytes());
}

/// Wire type 2.
fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A control frame of Frame Streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// The reader takes one of the content types offered.
    Accept = 1,
    /// Data follows.
    Start = 2,
    /// No more data.
    Stop = 3,
    /// The writer offers content types.
    Ready = 4,
    /// The reader has read it all.
    Finish = 5,
}

impl Control {
    /// The whole frame: escape, length, type, and for those that have one the content type.
    pub fn frame(self) -> Vec<u8> {
        let mut payload = (self as u32).to_be_bytes().to_vec();
        if matches!(self, Self::Start | Self::Ready) {
            payload.extend(1_u32.to_be_bytes());
            payload.extend((CONTENT_TYPE.len() as u32).to_be_bytes());
            payload.extend_from_slice(CONTENT_TYPE);
        }
        let mut out = vec![0; 4];
        out.extend((payload.len() as u32).to_be_bytes());
        out.extend(payload);
        out
    }

    /// Reads what follows the length of a control frame, and whether it names our content type; one that names none
    /// leaves it open.
    pub fn parse(payload: &[u8]) -> Option<(Self, bool)> {
        let (kind, mut fields) = payload.split_first_chunk::<4>()?;
        let kind = match u32::from_be_bytes(*kind) {
            1 => Self::Accept,
            2 => Self::Start,
            3 => Self::Stop,
            4 => Self::Ready,
            5 => Self::Finish,
            _ => return None,
        };
        let (mut named, mut is_ours) = (false, false);
        while !fields.is_empty() {
            let (field, rest) = fields.split_first_chunk::<4>()?;
            let (length, rest) = rest.split_first_chunk::<4>()?;
            let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
            let (value, rest) = rest.split_at_checked(length)?;
            if u32::from_be_bytes(*field) == 1 {
                named = true;
                is_ours |= value == CONTENT_TYPE;
            }
            fields = rest;
        }
        Some((kind, is_ours || !named))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// The other side: fields of a message by number; numbers as octets, big end first.
    pub(crate) fn decode(mut rest: &[u8]) -> BTreeMap<u64, Vec<u8>> {
        fn varint(rest: &mut &[u8]) -> u64 {
            let mut value = 0;
            for shift in (0..).step_by(7) {
                let (byte, after) = rest.split_first().unwrap();
                *rest = after;
                value |= u64::from(byte & 0x7f) << shift;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            value
        }
        let mut fields = BTreeMap::new();
        while !rest.is_empty() {
            let tag = varint(&mut rest);
            let value = match tag & 7 {
                0 => varint(&mut rest).to_be_bytes().to_vec(),
                2 => {
                    let length = usize::try_from(varint(&mut rest)).unwrap();
                    let (value, after) = rest.split_at(length);
                    rest = after;
                    value.to_vec()
                }
                5 => {
                    let (value, after) = rest.split_at(4);
                    rest = after;
                    u64::from(u32::from_le_bytes(value.try_into().unwrap())).to_be_bytes().to_vec()
                }
                other => panic!("wire type {other}"),
            };
            assert!(fields.insert(tag >> 3, value).is_none(), "a field twice");
        }
        fields
    }

    /// The payloads of data frames.
    pub(crate) fn payloads(mut rest: &[u8]) -> Vec<Vec<u8>> {
        let mut payloads = Vec::new();
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let (payload, after) = after.split_at(u32::from_be_bytes(*length) as usize);
            payloads.push(payload.to_vec());
            rest = after;
        }
        payloads
    }

    fn number(value: &[u8]) -> u64 {
        u64::from_be_bytes(value.try_into().unwrap())
    }

    #[test]
    fn an_exchange_is_two_messages_of_the_schema() {
        let identity = Identity { identity: b"ns1".to_vec(), version: b"geodns 1".to_vec() };
        let client = Client {
            address: "[::ffff:192.0.2.7]:5300".parse().unwrap(),
            transport: Transport::Udp,
            draw: 0,
        };
        let exchange = Exchange {
            client: &client,
            server: Some("198.51.100.1:53".parse().unwrap()),
            asked: Duration::new(1_700_000_000, 5),
            answered: Duration::new(1_700_000_001, 999_999_999),
            query: &[7; 40],
            response: &[9; 300],
        };
        let payloads = payloads(&frames(&identity, &exchange));
        let [query, response] = &payloads[..] else { panic!("{payloads:?}") };
        for (payload, kind) in [(query, 1), (response, 2)] {
            let dnstap = decode(payload);
            assert_eq!((&dnstap[&1][..], &dnstap[&2][..]), (&b"ns1"[..], &b"geodns 1"[..]));
            assert_eq!(number(&dnstap[&15]), 1);
            let message = decode(&dnstap[&14]);
            let numbers = [1, 2, 3, 6, 7, 8, 9].map(|field| number(&message[&field]));
            assert_eq!(numbers, [kind, 1, 1, 5300, 53, 1_700_000_000, 5]);
            assert_eq!(
                (&message[&4][..], &message[&5][..]),
                (&[192, 0, 2, 7][..], &[198, 51, 100, 1][..])
            );
            assert_eq!(message.get(&10).map(Vec::as_slice), (kind == 1).then_some(&[7; 40][..]));
            assert_eq!(message.get(&14).map(Vec::as_slice), (kind == 2).then_some(&[9; 300][..]));
            assert_eq!(message.contains_key(&12), kind == 2);
        }
    }

    #[test]
    fn control_frames_read_back() {
        for kind in
            [Control::Accept, Control::Start, Control::Stop, Control::Ready, Control::Finish]
        {
            let frame = kind.frame();
            let (head, payload) = frame.split_first_chunk::<8>().unwrap();
            assert_eq!(head[..4], [0; 4]);
            assert_eq!(head[4..], (payload.len() as u32).to_be_bytes());
            assert_eq!(Control::parse(payload), Some((kind, true)));
        }
        let other = [&[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2][..], b"xy"].concat();
        assert_eq!(Control::parse(&other), Some((Control::Accept, false)));
        for broken in [&b""[..], &[0, 0, 0, 9], &[0, 0, 0, 1, 0], &other[..13]] {
            assert_eq!(Control::parse(broken), None, "{broken:?}");
        }
    }

    proptest! {
        #[test]
        fn any_octets_are_no_trouble(
            payload in proptest::collection::vec(any::<u8>(), 0..600),
            message in proptest::collection::vec(any::<u8>(), 0..2000),
            v6 in any::<u128>(),
            transport in proptest::sample::select(&Transport::ALL[..]),
            secs in any::<u64>(),
        ) {
            let _ = Control::parse(&payload);
            let address = SocketAddr::new(IpAddr::V6(v6.into()), 1);
            let client = Client { address, transport, draw: 0 };
            let exchange = Exchange {
                client: &client,
                server: None,
                asked: Duration::from_secs(secs),
                answered: Duration::from_secs(secs),
                query: &payload,
                response: &message,
            };
            let payloads = payloads(&frames(&Identity::default(), &exchange));
            prop_assert_eq!(payloads.len(), if message.is_empty() { 1 } else { 2 });
            for (payload, said, field) in payloads.iter().zip([&payload, &message]).zip([10, 14]).map(|((a, b), c)| (a, b, c)) {
                let inner = decode(&decode(payload)[&14]);
                prop_assert_eq!(&inner[&field], said);
                prop_assert_eq!(number(&inner[&8]), secs);
            }
        }
    }
}
