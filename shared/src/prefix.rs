//! IP networks, and total functions from addresses to values.
//!
//! Decides which network an address belongs to, for everything that is configured or compiled by client network:
//! operators' own maps, geography, steering. [`Prefix`] is one network as people write it; [`RangeMap`] is a whole map,
//! built and combined at load; [`LookupTable`] is the same map in the form that answers queries. What the values mean is
//! left to the caller.

mod lookup;
mod range_map;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use lookup::LookupTable;
pub use range_map::{Ascending, IpRangeMap, Overlap, RangeMap};

/// An address as a number. `u32` is IPv4, `u128` is IPv6; `u64` is the upper half of an IPv6 address, for tables in
/// which no boundary is finer than /64.
pub trait Address: Copy + Ord + fmt::Debug {
    /// Bits in an address.
    const BITS: u8;
    /// The first address.
    const MIN: Self;
    /// The last address.
    const MAX: Self;
    /// The address after this one.
    fn succ(self) -> Option<Self>;
    /// The address before this one.
    fn pred(self) -> Option<Self>;
    /// The first address of the network of `length` bits around this one; a length past [`Address::BITS`] is that.
    fn first_of(self, length: u8) -> Self;
    /// The last address of the network of `length` bits around this one.
    fn last_of(self, length: u8) -> Self;
    /// Leading bits in which two addresses agree.
    fn common_bits(self, other: Self) -> u8;
    /// The top 16 bits.
    fn top16(self) -> usize;
    /// The network of `length` bits around this address.
    fn prefix(self, length: u8) -> Prefix;
}

macro_rules! address {
    ($int:ty, $to_ip:expr) => {
        impl Address for $int {
            const BITS: u8 = <$int>::BITS as u8;
            const MIN: Self = 0;
            const MAX: Self = <$int>::MAX;
            #[inline]
            fn succ(self) -> Option<Self> {
                self.checked_add(1)
            }
            #[inline]
            fn pred(self) -> Option<Self> {
                self.checked_sub(1)
            }
            #[inline]
            fn first_of(self, length: u8) -> Self {
                let host_bits = Self::BITS.saturating_sub(u32::from(length));
                self & Self::MAX.checked_shl(host_bits).unwrap_or(0)
            }
            #[inline]
            fn last_of(self, length: u8) -> Self {
                self | Self::MAX.checked_shr(u32::from(length)).unwrap_or(0)
            }
            #[inline]
            fn common_bits(self, other: Self) -> u8 {
                (self ^ other).leading_zeros() as u8
            }
            #[inline]
            fn top16(self) -> usize {
                (self >> (Self::BITS - 16)) as usize
            }
            fn prefix(self, length: u8) -> Prefix {
                let length = length.min(<Self as Address>::BITS);
                Prefix { network: $to_ip(self.first_of(length)), length }
            }
        }
    };
}

address!(u32, |bits| IpAddr::V4(Ipv4Addr::from_bits(bits)));
address!(u64, |bits| IpAddr::V6(Ipv6Addr::from_bits(u128::from(bits) << 64)));
address!(u128, |bits| IpAddr::V6(Ipv6Addr::from_bits(bits)));

/// Prefix length of the largest aligned network that holds `address` and neither `before` nor `after`: the nearest
/// addresses on either side that lie outside its range, where there are any.
///
/// The network must be longer than what `address` shares with them. Constant time; and the networks found for different
/// addresses of one range are equal or disjoint, because aligned networks are.
#[inline]
pub(crate) fn largest_network<A: Address>(address: A, before: Option<A>, after: Option<A>) -> u8 {
    let left = before.map_or(0, |outside| address.common_bits(outside) + 1);
    let right = after.map_or(0, |outside| address.common_bits(outside) + 1);
    left.max(right)
}

/// An IP network: an address without host bits, and a prefix length.
///
/// IPv4-mapped IPv6 networks (`::ffff:10.0.0.0/104`) are the IPv4 networks they stand for. Ordered by family (IPv4
/// first), address, then length (the wider network first).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    network: IpAddr,
    length: u8,
}

/// Why a text or a pair of address and length is not a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// Not an address and a length.
    #[error(
        "`{0}` is not an IP network: write an address and a prefix length, such as \"10.1.0.0/16\" or \"2001:db8::/32\", or one address"
    )]
    Syntax(String),
    /// Longer than an address of the family.
    #[error("`{address}/{length}` is longer than an address: an {family} prefix length is 0 to {max}", family = family(.address), max = bits(.address))]
    Length {
        /// The address as given.
        address: IpAddr,
        /// The length as given.
        length: u8,
    },
    /// Bits set beyond the prefix length.
    #[error("`{address}/{length}` has host bits set: the network is `{network}`")]
    HostBits {
        /// The address as given.
        address: IpAddr,
        /// The length as given.
        length: u8,
        /// The network of that length that holds the address.
        network: Prefix,
    },
}

const fn family(address: &IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

const fn bits(address: &IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl Prefix {
    /// A network from its address and length; host bits are an error that names the right network.
    pub fn new(address: IpAddr, length: u8) -> Result<Self, PrefixError> {
        if length > bits(&address) {
            return Err(PrefixError::Length { address, length });
        }
        let network = Self::containing(address, length);
        let exact = match address {
            IpAddr::V4(v4) => v4.to_bits().first_of(length) == v4.to_bits(),
            IpAddr::V6(v6) => v6.to_bits().first_of(length) == v6.to_bits(),
        };
        if exact { Ok(network) } else { Err(PrefixError::HostBits { address, length, network }) }
    }

    /// The network of `length` bits that holds `address`; a length past the family's is a single address.
    pub fn containing(address: IpAddr, length: u8) -> Self {
        match address {
            IpAddr::V4(v4) => v4.to_bits().prefix(length),
            IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
                Some(v4) if length >= 96 => v4.to_bits().prefix(length - 96),
                _ => v6.to_bits().prefix(length),
            },
        }
    }

    /// The first address.
    pub const fn network(self) -> IpAddr {
        self.network
    }

    /// The prefix length in bits.
    pub const fn length(self) -> u8 {
        self.length
    }

    /// Whether `address` lies in this network. An IPv4-mapped address is its IPv4 address.
    pub fn contains(self, address: IpAddr) -> bool {
        match (self.network, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                address.to_bits().first_of(self.length) == network.to_bits()
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                address.to_bits().first_of(self.length) == network.to_bits()
            }
            _ => false,
        }
    }

    /// Whether all of `other` lies in this network.
    pub fn covers(self, other: Self) -> bool {
        self.length <= other.length && self.contains(other.network)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.length)
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.to_string()
    }
}

impl TryFrom<String> for Prefix {
    type Error = PrefixError;
    fn try_from(text: String) -> Result<Self, PrefixError> {
        text.parse()
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let syntax = || PrefixError::Syntax(text.to_owned());
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| syntax())?;
        let length = match length {
            None => bits(&address),
            // `u8::from_str` alone would take "+8" and "08".
            Some(digits) if !digits.starts_with(['0', '+']) || digits == "0" => {
                digits.parse().map_err(|_| syntax())?
            }
            Some(_) => return Err(syntax()),
        };
        Self::new(address, length)
    }
}

/// The IPv4 address that an IPv6 address carries for its client: IPv4-mapped (`::ffff:0:0/96`, RFC 4291 §2.5.5.2),
/// 6to4 (`2002::/16`, RFC 3056), Teredo (`2001::/32`, RFC 4380: the client's own address, stored inverted) and NAT64's
/// well-known prefix (`64:ff9b::/96`, RFC 6052).
///
/// For a whole address only: a network shorter than /48 (6to4) or /128 (the others) does not hold the IPv4 address.
pub const fn embedded_ipv4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let bits = address.to_bits();
    let low = bits as u32;
    let high = bits >> 32;
    if high == 0xffff || high == 0x64_ff9b_u128 << 64 {
        Some(Ipv4Addr::from_bits(low))
    } else if bits >> 112 == 0x2002 {
        Some(Ipv4Addr::from_bits((bits >> 80) as u32))
    } else if bits >> 96 == 0x2001_0000 {
        Some(Ipv4Addr::from_bits(!low))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn networks_parse_and_print() {
        for (text, printed) in [
            ("10.1.0.0/16", "10.1.0.0/16"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("192.0.2.1", "192.0.2.1/32"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("2001:DB8:0:0::/32", "2001:db8::/32"),
            ("::/0", "::/0"),
            ("::1", "::1/128"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
        ] {
            let prefix: Prefix = text.parse().unwrap();
            assert_eq!(prefix.to_string(), printed);
            assert_eq!(printed.parse::<Prefix>().unwrap(), prefix);
        }
    }

    #[test]
    fn what_is_not_a_network_is_refused_with_what_would_be() {
        for (text, reason) in [
            ("10.1.2.0/16", "`10.1.2.0/16` has host bits set: the network is `10.1.0.0/16`"),
            (
                "2001:db8::1/32",
                "`2001:db8::1/32` has host bits set: the network is `2001:db8::/32`",
            ),
            (
                "::ffff:10.1.0.0/104",
                "`::ffff:10.1.0.0/104` has host bits set: the network is `10.0.0.0/8`",
            ),
            (
                "10.0.0.0/33",
                "`10.0.0.0/33` is longer than an address: an IPv4 prefix length is 0 to 32",
            ),
            ("::/129", "`::/129` is longer than an address: an IPv6 prefix length is 0 to 128"),
        ] {
            assert_eq!(text.parse::<Prefix>().unwrap_err().to_string(), reason);
        }
        for text in [
            "",
            "/",
            "10.0.0.0/",
            "/8",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "10.0.0.0/-1",
            "10.0.0.0/256",
            "10.0.0.0/8/8",
            " 10.0.0.0/8",
            "10.0.0.0/8 ",
            "10.0.0/16",
            "010.0.0.0/8",
            "fe80::1%eth0",
            "[::1]/128",
            "icn",
        ] {
            let error = text.parse::<Prefix>().unwrap_err();
            assert_eq!(error, PrefixError::Syntax(text.to_owned()));
        }
    }

    #[test]
    fn networks_contain_and_cover() {
        let net: Prefix = "10.1.0.0/16".parse().unwrap();
        assert!(net.contains("10.1.255.255".parse().unwrap()));
        assert!(net.contains("::ffff:10.1.0.1".parse().unwrap()));
        assert!(!net.contains("10.2.0.0".parse().unwrap()));
        assert!(!net.contains("a01::".parse().unwrap()));
        assert!(net.covers("10.1.2.0/24".parse().unwrap()));
        assert!(net.covers(net));
        assert!(!net.covers("10.0.0.0/8".parse().unwrap()));
        let all: Prefix = "::/0".parse().unwrap();
        assert!(all.contains("ffff::".parse().unwrap()));
        assert!(!all.contains("1.2.3.4".parse().unwrap()));
    }

    #[test]
    fn networks_are_ordered_by_family_address_length() {
        let mut list: Vec<Prefix> =
            ["::/0", "10.0.0.0/16", "10.0.0.0/8", "9.0.0.0/8", "2001:db8::/32", "255.0.0.0/8"]
                .map(|text| text.parse().unwrap())
                .to_vec();
        list.sort();
        let printed: Vec<String> = list.iter().map(Prefix::to_string).collect();
        assert_eq!(
            printed,
            ["9.0.0.0/8", "10.0.0.0/8", "10.0.0.0/16", "255.0.0.0/8", "::/0", "2001:db8::/32"]
        );
    }

    #[test]
    fn networks_are_configuration_keys() {
        #[derive(Deserialize, Debug)]
        struct Geo {
            networks: std::collections::BTreeMap<Prefix, String>,
        }
        let geo: Geo =
            toml::from_str("networks = { \"10.1.0.0/16\" = \"icn\", \"2001:db8::/32\" = \"fra\" }")
                .unwrap();
        assert_eq!(geo.networks[&"10.1.0.0/16".parse().unwrap()], "icn");
        let error = toml::from_str::<Geo>("networks = { \"10.1.2.0/16\" = \"icn\" }").unwrap_err();
        assert!(error.to_string().contains("the network is `10.1.0.0/16`"), "{error}");
    }

    #[test]
    fn ipv4_is_seen_through_ipv6() {
        for (v6, v4) in [
            ("::ffff:192.0.2.33", Some("192.0.2.33")),
            ("::ffff:0.0.0.0", Some("0.0.0.0")),
            // RFC 3056 §2: 2002:V4ADDR::/48.
            ("2002:c000:221::1", Some("192.0.2.33")),
            ("2002:c000:221:ffff:ffff:ffff:ffff:ffff", Some("192.0.2.33")),
            // RFC 4380 §4: the client's address with every bit inverted; the server's address is not the client.
            ("2001:0:4136:e378:8000:63bf:3fff:fdd2", Some("192.0.2.45")),
            // RFC 6052 §2.4.
            ("64:ff9b::192.0.2.33", Some("192.0.2.33")),
            // Neighbours of these prefixes carry nothing.
            ("::192.0.2.33", None),
            ("::fffe:192.0.2.33", None),
            ("::1:ffff:192.0.2.33", None),
            ("2001:1::1", None),
            ("2001:ffff::1", None),
            ("2003::1", None),
            ("64:ff9b:1::192.0.2.33", None),
            ("64:ff9b::1:192.0.2.33", None),
            ("65:ff9b::192.0.2.33", None),
            ("2001:db8::1", None),
            ("::1", None),
            ("::", None),
        ] {
            let expected = v4.map(|text| text.parse().unwrap());
            assert_eq!(embedded_ipv4(v6.parse().unwrap()), expected, "{v6}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_network_or_an_error(text in "\\PC{0,40}") {
            if let Ok(prefix) = text.parse::<Prefix>() {
                prop_assert_eq!(prefix.to_string().parse::<Prefix>().unwrap(), prefix);
            }
        }

        #[test]
        fn printing_round_trips(bits: u128, length in 0u8..=128, v4: bool) {
            let address = if v4 { IpAddr::V4((bits as u32).into()) } else { IpAddr::V6(bits.into()) };
            let prefix = Prefix::containing(address, length);
            prop_assert!(prefix.contains(address));
            prop_assert_eq!(prefix.to_string().parse::<Prefix>().unwrap(), prefix);
            prop_assert_eq!(Prefix::new(prefix.network(), prefix.length()), Ok(prefix));
        }

        #[test]
        fn embedding_finds_what_was_embedded(v4: u32, noise: u64) {
            let v4 = u128::from(v4);
            let noise = u128::from(noise);
            let expected = Some(Ipv4Addr::from_bits(v4 as u32));
            for bits in [
                0xffff << 32 | v4,
                0x64_ff9b << 96 | v4,
                0x2002 << 112 | v4 << 80 | noise,
                0x2001_0000 << 96 | noise << 32 | (v4 ^ 0xffff_ffff),
            ] {
                prop_assert_eq!(embedded_ipv4(bits.into()), expected);
            }
        }
    }
}
