//! EDNS (RFC 6891) and its client subnet option (RFC 7871): what the OPT record of a query says, and the one we answer
//! with.
//!
//! Reads only what steering and sizing need. Options we do not know are passed over and never echoed. Which scope an
//! answer gets is the steering's decision.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use shared::prefix::Prefix;

/// The UDP payload we announce and never exceed: what passes without fragments (DNS flag day 2020).
pub const UDP_SIZE: u16 = 1232;

/// What a client without EDNS can take over UDP (RFC 1035 §2.3.4); smaller announcements count as this.
pub const MIN_UDP_SIZE: u16 = 512;

/// The client subnet option.
const OPTION_SUBNET: u16 = 8;

/// Octets of an OPT record without options: root, type, class, TTL, length.
const OPT_BYTES: usize = 11;

/// The OPT record of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns<'p> {
    /// The largest UDP answer that the client can take, at least [`MIN_UDP_SIZE`].
    pub udp_size: u16,
    /// The client's version; we speak 0.
    pub version: u8,
    /// The DO bit, which answers copy (RFC 3225).
    pub dnssec_ok: bool,
    /// The client subnet.
    pub subnet: Option<Subnet<'p>>,
}

/// A well-formed client subnet option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet<'p> {
    /// The option's data, echoed byte for byte but for the scope.
    data: &'p [u8],
    /// The network's first address; `None` for family 0, which tells nothing.
    pub address: Option<IpAddr>,
    /// SOURCE PREFIX-LENGTH.
    pub source_bits: u8,
}

/// An OPT record that breaks its format: the answer is FORMERR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl<'p> Edns<'p> {
    /// Reads the OPT record with these CLASS, TTL and RDATA. The options of a version that we do not speak are left
    /// alone: their format may be another.
    pub fn parse(class: u16, ttl: u32, mut options: &'p [u8]) -> Result<Self, Malformed> {
        let [_, version, flags, _] = ttl.to_be_bytes();
        let mut edns = Self {
            udp_size: class.max(MIN_UDP_SIZE),
            version,
            dnssec_ok: flags & 0x80 != 0,
            subnet: None,
        };
        if version > 0 {
            return Ok(edns);
        }
        while !options.is_empty() {
            let (head, rest) = options.split_first_chunk::<4>().ok_or(Malformed)?;
            let [code_high, code_low, length_high, length_low] = *head;
            let length = usize::from(u16::from_be_bytes([length_high, length_low]));
            let (data, rest) = rest.split_at_checked(length).ok_or(Malformed)?;
            if u16::from_be_bytes([code_high, code_low]) == OPTION_SUBNET
                && edns.subnet.replace(Subnet::parse(data)?).is_some()
            {
                // Two subnets contradict each other; which one counts is nowhere said.
                return Err(Malformed);
            }
            options = rest;
        }
        Ok(edns)
    }
}

impl<'p> Subnet<'p> {
    /// RFC 7871 §6 and §7.1.2: a known family, a scope of zero, exactly the octets that the prefix needs, and zeros
    /// after its last bit.
    fn parse(data: &'p [u8]) -> Result<Self, Malformed> {
        let (head, address) = data.split_first_chunk::<4>().ok_or(Malformed)?;
        let [family_high, family_low, source_bits, scope_bits] = *head;
        let family = u16::from_be_bytes([family_high, family_low]);
        let width: u8 = match family {
            1 => 32,
            2 => 128,
            // Nothing but "no information" can be said without a family; some forwarders do say it.
            0 => 0,
            _ => return Err(Malformed),
        };
        let exact = address.len() == usize::from(source_bits.div_ceil(8));
        if scope_bits != 0 || source_bits > width || !exact {
            return Err(Malformed);
        }
        if let (1..=7, Some(last)) = (source_bits % 8, address.last())
            && last & (0xff >> (source_bits % 8)) != 0
        {
            return Err(Malformed);
        }
        let mut octets = [0; 16];
        for (octet, &given) in octets.iter_mut().zip(address) {
            *octet = given;
        }
        let address = match family {
            1 => {
                let [a, b, c, d, ..] = octets;
                Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
            }
            2 => Some(IpAddr::V6(Ipv6Addr::from(octets))),
            _ => None,
        };
        Ok(Self { data, address, source_bits })
    }
}

/// The option that a resolver sends for a client in `network`, code and length included.
pub fn subnet_option(network: Prefix) -> Vec<u8> {
    let (family, octets) = match network.network() {
        IpAddr::V4(v4) => (1, v4.octets().to_vec()),
        IpAddr::V6(v6) => (2, v6.octets().to_vec()),
    };
    let kept = usize::from(network.length().div_ceil(8));
    let mut option = OPTION_SUBNET.to_be_bytes().to_vec();
    option.extend(u16::try_from(4 + kept).unwrap_or(0).to_be_bytes());
    option.extend([0, family, network.length(), 0]);
    option.extend(octets.iter().take(kept));
    option
}

/// The OPT record of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'p> {
    /// Copied from the query.
    pub dnssec_ok: bool,
    /// The subnet of the query, when it had one.
    pub subnet: Option<Subnet<'p>>,
    /// For which part of the address space the answer holds.
    pub scope_bits: u8,
}

impl Reply<'_> {
    /// How many octets [`write`](Self::write) will write.
    pub fn length(&self) -> usize {
        OPT_BYTES + self.subnet.map_or(0, |subnet| 4 + subnet.data.len())
    }

    /// Writes the record with the upper eight bits of `rcode`. `out` must hold exactly [`length`](Self::length) octets.
    pub fn write(&self, rcode: u16, out: &mut [u8]) {
        let option = self.subnet.map(|subnet| subnet.data);
        let options_length = u16::try_from(option.map_or(0, |data| 4 + data.len())).unwrap_or(0);
        let [rcode_high, _] = (rcode >> 4 << 8).to_be_bytes();
        let [size_high, size_low] = UDP_SIZE.to_be_bytes();
        let [length_high, length_low] = options_length.to_be_bytes();
        let flags = if self.dnssec_ok { 0x80 } else { 0 };
        let fixed =
            [0, 0, 41, size_high, size_low, rcode_high, 0, flags, 0, length_high, length_low];
        let Some((head, rest)) = out.split_first_chunk_mut::<OPT_BYTES>() else { return };
        *head = fixed;
        let (Some(data), Some((option_head, body))) = (option, rest.split_first_chunk_mut::<4>())
        else {
            return;
        };
        let [data_high, data_low] = u16::try_from(data.len()).unwrap_or(0).to_be_bytes();
        *option_head = [0, 8, data_high, data_low];
        if body.len() == data.len() {
            body.copy_from_slice(data);
            if let Some(scope) = body.get_mut(3) {
                *scope = self.scope_bits;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn option(code: u16, data: &[u8]) -> Vec<u8> {
        let length = u16::try_from(data.len()).unwrap();
        [&code.to_be_bytes()[..], &length.to_be_bytes(), data].concat()
    }

    fn subnet_of(data: &[u8]) -> Result<(Option<String>, u8), Malformed> {
        let options = option(OPTION_SUBNET, data);
        let edns = Edns::parse(1232, 0, &options)?;
        let subnet = edns.subnet.unwrap();
        Ok((subnet.address.map(|a| a.to_string()), subnet.source_bits))
    }

    #[test]
    fn subnets_are_read_to_the_bit_rfc_7871_section_6() {
        let v4 = |text: &str, bits| Ok((Some(text.to_owned()), bits));
        assert_eq!(subnet_of(&[0, 1, 24, 0, 192, 0, 2]), v4("192.0.2.0", 24));
        assert_eq!(subnet_of(&[0, 1, 20, 0, 192, 0, 0x20]), v4("192.0.32.0", 20));
        assert_eq!(subnet_of(&[0, 1, 32, 0, 192, 0, 2, 1]), v4("192.0.2.1", 32));
        assert_eq!(subnet_of(&[0, 1, 0, 0]), v4("0.0.0.0", 0));
        assert_eq!(subnet_of(&[0, 2, 32, 0, 0x20, 1, 0xd, 0xb8]), v4("2001:db8::", 32));
        assert_eq!(subnet_of(&[0, 0, 0, 0]), Ok((None, 0)));
    }

    #[test]
    fn malformed_subnets_are_refused_rfc_7871_section_7_1_2() {
        for (why, data) in [
            ("no data", &[] as &[u8]),
            ("half a header", &[0, 1, 24]),
            ("bits after the prefix", &[0, 1, 20, 0, 192, 0, 0x21]),
            ("an octet too many", &[0, 1, 24, 0, 192, 0, 2, 0]),
            ("an octet too few", &[0, 1, 24, 0, 192, 0]),
            ("too long a prefix", &[0, 1, 33, 0, 192, 0, 2, 0, 0]),
            ("a scope in a query", &[0, 1, 24, 24, 192, 0, 2]),
            ("an unknown family", &[0, 3, 24, 0, 192, 0, 2]),
            ("an address without family", &[0, 0, 8, 0, 10]),
        ] {
            assert_eq!(subnet_of(data), Err(Malformed), "{why}");
        }
        let twice = option(OPTION_SUBNET, &[0, 1, 0, 0]).repeat(2);
        assert_eq!(Edns::parse(1232, 0, &twice), Err(Malformed));
    }

    #[test]
    fn unknown_options_are_passed_over_rfc_6891_section_6_1_2() {
        let options = [option(10, &[1; 8]), option(65001, b""), option(3, b"")].concat();
        assert_eq!(Edns::parse(4096, 0, &options).unwrap().subnet, None);
        for cut in [&options[..3], &options[..7], &[0, 1, 0, 9]] {
            assert_eq!(Edns::parse(4096, 0, cut), Err(Malformed));
        }
    }

    #[test]
    fn small_sizes_count_as_512_rfc_6891_section_6_2_3() {
        assert_eq!(Edns::parse(0, 0, &[]).unwrap().udp_size, 512);
        assert_eq!(Edns::parse(4096, 0, &[]).unwrap().udp_size, 4096);
    }

    #[test]
    fn the_do_bit_is_read_and_other_flags_are_not() {
        assert!(Edns::parse(512, 0x0000_8000, &[]).unwrap().dnssec_ok);
        assert!(!Edns::parse(512, 0x0000_7fff, &[]).unwrap().dnssec_ok);
    }

    #[test]
    fn options_of_another_version_are_not_read() {
        let edns = Edns::parse(512, 0x0001_0000, &[1, 2, 3]).unwrap();
        assert_eq!((edns.version, edns.subnet), (1, None));
    }

    #[test]
    fn subnets_are_echoed_byte_for_byte_with_our_scope() {
        let data = [0, 1, 20, 0, 192, 0, 0x20];
        let options = option(OPTION_SUBNET, &data);
        let subnet = Edns::parse(512, 0, &options).unwrap().subnet;
        let reply = Reply { dnssec_ok: true, subnet, scope_bits: 16 };
        let mut out = vec![0xaa; reply.length()];
        reply.write(16, &mut out);
        let expected =
            [0, 0, 41, 4, 0xd0, 1, 0, 0x80, 0, 0, 11, 0, 8, 0, 7, 0, 1, 20, 16, 192, 0, 0x20];
        assert_eq!(out, expected);
    }

    proptest! {
        #[test]
        fn any_options_are_safe(options in prop::collection::vec(any::<u8>(), 0..64), ttl: u32, class: u16) {
            if let Ok(edns) = Edns::parse(class, ttl, &options) {
                let reply = Reply { dnssec_ok: edns.dnssec_ok, subnet: edns.subnet, scope_bits: 0 };
                let mut out = vec![0; reply.length()];
                reply.write(0, &mut out);
                prop_assert!(out.len() <= 11 + 4 + 4 + 16);
            }
        }
    }
}
