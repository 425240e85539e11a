//! Random queries from a seed: names of every kind and near them, types, flags, EDNS, client subnets right and wrong.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::ask::Way;
use super::worlds::APEX;
use crate::dns::world::{World, is_special};
use crate::random::{Random, mix};

/// What a query is made of, beside its bytes: what a known difference may depend on.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The message.
    pub message: Vec<u8>,
    /// How it goes.
    pub way: Way,
    /// The name asked for, lower case, in presentation form.
    pub name: String,
    /// QTYPE.
    pub qtype: u16,
    /// The client subnet.
    pub subnet: Option<Subnet>,
    /// The UDP size that the client can take.
    pub size: u16,
}

/// A client subnet as sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subnet {
    /// Well-formed.
    Good(IpAddr, u8),
    /// Family 0, source 0.
    NoFamily,
    /// What RFC 7871 wants refused.
    Malformed(&'static str),
}

/// Which queries are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// With client subnets, about steered names as often as about others.
    Steered,
    /// Static names only, without client subnets.
    Static,
    /// Well-formed client subnets of routable addresses, as clients of a public resolver have them. Those of nobody's
    /// networks are answered by the resolver's address with scope 0, which a cache takes for an answer to everybody.
    Clients,
}

const LABELS: [&str; 44] = [
    "h1",
    "h3",
    "h42",
    "h100",
    "h101",
    "txt",
    "mx",
    "_sip._tcp",
    "naptr",
    "ptr",
    "both",
    "six",
    "ent",
    "b.ent",
    "a.b.ent",
    "x.ent",
    "wild",
    "*.wild",
    "x.wild",
    "x.y.wild",
    "here.wild",
    "x.here.wild",
    "below.wild",
    "x.deep.below.wild",
    "x.cwild",
    "star.in",
    "x.star.in",
    "alias",
    "c1",
    "c3",
    "toext",
    "tonx",
    "towild",
    "towildnx",
    "tocut",
    "toent",
    "cross",
    "sub",
    "ns.sub",
    "host.sub",
    "a.b.ext",
    "x.deepcut.x",
    "x",
    "",
];
const STEERED: [&str; 9] =
    ["www", "img.cdn", "x.geo", "a.b.geo", "geo", "cdn", "togeo", "togeo2", "below.www"];
const MORE: [&str; 19] = [
    "caa",
    "old",
    "a.old",
    "x.y.old",
    "b.old",
    "none.old",
    "new",
    "a.new",
    "todname",
    "outname",
    "a.outname",
    "svc",
    "web",
    "unknown",
    "hinfo",
    "sshfp",
    "tlsa",
    "dot\\.ted",
    "sp\\032ace",
];
/// Names of no zone of ours.
const FOREIGN: [&str; 4] = ["example.org", "test", "", "cmp.test.example"];
const TYPES: [u16; 22] =
    [1, 1, 1, 28, 28, 28, 16, 15, 2, 6, 5, 33, 12, 255, 43, 65, 64, 257, 35, 39, 13, 65280];

impl Kind {
    /// The `number`th query of a seed. Each can be made alone, to be repeated.
    pub fn query(self, seed: u64, number: u64, world: &World) -> Asked {
        let mut random = Random::new(mix(seed ^ mix(number)));
        let mut draw = |bound: usize| random.below(bound as u64) as usize;
        let name = match (self, draw(40)) {
            (_, 0) => FOREIGN[draw(FOREIGN.len())].to_owned(),
            (_, 1..=3) => format!("big{}.{APEX}", 1 + draw(41)),
            (_, 4) => format!("host.{}", super::worlds::OTHER),
            (_, 5) => format!("back.{}", super::worlds::OTHER),
            (Self::Steered, 6..=24) | (Self::Clients, 6..=36) => {
                format!("{}.{APEX}", STEERED[draw(STEERED.len())])
            }
            (Self::Static, 6..=22) => format!("{}.{APEX}", MORE[draw(MORE.len())]),
            _ => format!("{}.{APEX}", LABELS[draw(LABELS.len())]),
        };
        let qtype = match self {
            Self::Clients => [1, 28][draw(2)],
            _ => TYPES[draw(TYPES.len())],
        };
        let way = match draw(16) {
            0 => Way::Tcp,
            _ => Way::Udp(Ipv4Addr::new(127, draw(120) as u8, 0, 1)),
        };
        // RD as often as not; AD and CD now and then (RFC 6840 §5.7, §5.9).
        let flags = [0, 0x0100][draw(2)] | [0, 0, 0, 0x0010, 0x0020, 0x0030][draw(6)];
        let has_subnet = match self {
            Self::Steered => draw(10) < 7,
            Self::Clients => true,
            Self::Static => false,
        };
        let edns = has_subnet || draw(2) == 0;
        let size: u16 = match (edns, draw(4)) {
            (false, _) => 512,
            (true, 0) => [0, 511, 512, 900, 1024, 1231, 1232, 1233, 4096, 65_535][draw(10)],
            (true, _) => 1232,
        };
        let dnssec_ok = draw(3) == 0;
        let mut options = Vec::new();
        let subnet = has_subnet.then(|| subnet(self, world, &mut random, &mut options));
        let mut draw = |bound: usize| random.below(bound as u64) as usize;
        if edns && draw(8) == 0 && self != Self::Clients {
            // An option that nobody knows (RFC 6891 §6.1.2).
            options.extend([0xfd, 0xe9, 0, 3, 1, 2, 3]);
        }
        let mut message = vec![draw(256) as u8, draw(256) as u8];
        message.extend((flags as u16).to_be_bytes());
        message.extend([0, 1, 0, 0, 0, 0, 0, u8::from(edns)]);
        for octet in wire(&name) {
            // 0x20: case at random.
            let flip = octet.is_ascii_alphabetic() && draw(2) == 0;
            message.push(if flip { octet ^ 0x20 } else { octet });
        }
        message.extend(qtype.to_be_bytes());
        message.extend([0, 1]);
        if edns {
            message.extend([0, 0, 41]);
            message.extend(size.to_be_bytes());
            message.extend([0, 0, if dnssec_ok { 0x80 } else { 0 }, 0]);
            message.extend((options.len() as u16).to_be_bytes());
            message.extend(options);
        }
        Asked { message, way, name, qtype, subnet, size }
    }
}

impl Asked {
    /// The same query about another name.
    #[must_use]
    pub fn about(&self, name: &str) -> Self {
        let rest = self.message.get(12 + wire(&self.name).len()..).unwrap_or_default();
        let head = self.message.get(..12).unwrap_or_default();
        let message = [head, &wire(name), rest].concat();
        Self { message, name: name.to_owned(), ..self.clone() }
    }
}

/// A name in presentation form, `\.` and `\DDD` included, in wire form.
fn wire(name: &str) -> Vec<u8> {
    let mut wire = vec![0];
    let mut length_at = 0;
    let mut octets = name.bytes();
    while let Some(octet) = octets.next() {
        match octet {
            b'.' => {
                length_at = wire.len();
                wire.push(0);
                continue;
            }
            b'\\' => {
                let first = octets.next().unwrap_or(b'\\');
                let rest = [octets.clone().next(), octets.clone().nth(1)];
                match (first, rest) {
                    (b'0'..=b'9', [Some(second), Some(third)]) => {
                        let digit = |c: u8| u32::from(c.wrapping_sub(b'0'));
                        let number = digit(first) * 100 + digit(second) * 10 + digit(third);
                        wire.push(number as u8);
                        octets.nth(1);
                    }
                    _ => wire.push(first),
                }
            }
            _ => wire.push(octet),
        }
        wire[length_at] += 1;
    }
    if wire[length_at] > 0 {
        wire.push(0);
    }
    // A name that began with the apex's dot has an empty label in front.
    if wire.len() > 1 && wire[0] == 0 { wire.split_off(1) } else { wire }
}

/// Adds a client subnet option.
fn subnet(kind: Kind, world: &World, random: &mut Random, options: &mut Vec<u8>) -> Subnet {
    let mut draw = |bound: usize| random.below(bound as u64) as usize;
    if kind == Kind::Steered && draw(20) == 0 {
        let (why, data) = MALFORMED[draw(MALFORMED.len())];
        option(options, data);
        if why == TWICE {
            option(options, data);
        }
        return if why == NO_FAMILY { Subnet::NoFamily } else { Subnet::Malformed(why) };
    }
    let address = loop {
        let address = client(world, random);
        if kind != Kind::Clients || !is_unroutable(address) {
            break address;
        }
    };
    let mut draw = |bound: usize| random.below(bound as u64) as usize;
    let (width, usual) = if address.is_ipv4() { (32, 24) } else { (128, 56) };
    let bits = match (kind, draw(3)) {
        (Kind::Clients, _) => usual,
        (_, 0) => draw(width + 1),
        _ => usual,
    } as u8;
    let (family, octets): (u8, Vec<u8>) = match address {
        IpAddr::V4(v4) => (1, v4.octets().to_vec()),
        IpAddr::V6(v6) => (2, v6.octets().to_vec()),
    };
    let mut kept = octets[..usize::from(bits.div_ceil(8))].to_vec();
    if let (1..=7, Some(last)) = (bits % 8, kept.last_mut()) {
        *last &= 0xff << (8 - bits % 8);
    }
    let mut data = vec![0, family, bits, 0];
    data.extend(&kept);
    option(options, &data);
    kept.resize(octets.len(), 0);
    let first = match address {
        IpAddr::V4(_) => Ipv4Addr::new(kept[0], kept[1], kept[2], kept[3]).into(),
        IpAddr::V6(_) => {
            let mut all = [0; 16];
            all.copy_from_slice(&kept);
            Ipv6Addr::from(all).into()
        }
    };
    Subnet::Good(first, bits)
}

/// An address in or beside a network of the map, or anywhere.
fn client(world: &World, random: &mut Random) -> IpAddr {
    let noise = random.next();
    let mut draw = |bound: usize| random.below(bound as u64) as usize;
    let network = match draw(10) {
        0..=5 if !world.networks.is_empty() => {
            Some(world.networks[draw(world.networks.len())].address)
        }
        _ => None,
    };
    match network {
        Some(IpAddr::V4(v4)) => {
            Ipv4Addr::from_bits(v4.to_bits() ^ (noise >> (40 + draw(20))) as u32).into()
        }
        Some(IpAddr::V6(v6)) => {
            Ipv6Addr::from_bits(v6.to_bits() ^ u128::from(noise) << 40 >> draw(40)).into()
        }
        None if draw(4) > 0 => Ipv4Addr::from_bits(noise as u32).into(),
        None => Ipv6Addr::from_bits(0x2 << 124 | u128::from(noise) << 61).into(),
    }
}

/// Two options of it.
pub const TWICE: &str = "twice";
const NO_FAMILY: &str = "no family";
const MALFORMED: [(&str, &[u8]); 11] = [
    ("no data", &[]),
    ("half a header", &[0, 1, 24]),
    ("bits after the prefix", &[0, 1, 20, 0, 8, 8, 0x21]),
    ("an octet too many", &[0, 1, 24, 0, 8, 8, 8, 0]),
    ("an octet too few", &[0, 1, 24, 0, 8, 8]),
    ("too long a prefix", &[0, 1, 33, 0, 8, 8, 8, 8, 0]),
    (
        "too long a prefix of IPv6",
        &[0, 2, 129, 0, 0x24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ),
    ("a scope in a query", &[0, 1, 24, 24, 8, 8, 8]),
    ("an unknown family", &[0, 3, 24, 0, 8, 8, 8]),
    (TWICE, &[0, 1, 8, 0, 8]),
    (NO_FAMILY, &[0, 0, 0, 0]),
];

fn option(options: &mut Vec<u8>, data: &[u8]) {
    options.extend([0, 8]);
    options.extend((data.len() as u16).to_be_bytes());
    options.extend(data);
}

/// Whether an address is nobody's on the Internet, or stands for an IPv4 address in IPv6.
pub fn is_unroutable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_special(v4),
        IpAddr::V6(v6) => {
            let [first, second, ..] = v6.segments();
            first & 0xe000 != 0x2000
                || (first == 0x2001 && matches!(second, 2 | 0xdb8))
                || (first == 0x3fff && second < 0x1000)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::worlds;

    #[test]
    fn names_become_wire_form() {
        assert_eq!(wire("a.bc"), [1, b'a', 2, b'b', b'c', 0]);
        assert_eq!(wire(""), [0]);
        assert_eq!(wire(".x"), [1, b'x', 0]);
        assert_eq!(wire("a\\.b\\032"), [4, b'a', b'.', b'b', b' ', 0]);
    }

    #[test]
    fn every_query_is_a_message_and_the_same_again() {
        let world = worlds::steered(1);
        for kind in [Kind::Steered, Kind::Static, Kind::Clients] {
            for number in 0..20_000 {
                let asked = kind.query(7, number, &world);
                assert_eq!(asked.message, kind.query(7, number, &world).message);
                let read = hickory_proto::op::Message::from_vec(&asked.message);
                let malformed =
                    matches!(asked.subnet, Some(Subnet::Malformed(_) | Subnet::NoFamily));
                match read {
                    Ok(message) => {
                        assert_eq!(u16::from(message.queries[0].query_type()), asked.qtype)
                    }
                    Err(error) => assert!(malformed, "{asked:?}: {error}"),
                }
            }
        }
    }
}
