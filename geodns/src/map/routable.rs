//! Addresses that belong to nobody on the Internet (RFC 6890): they tell nothing of where a client is, and are no part of
//! the population that shares are measured by.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use shared::geo::World as Geography;
use shared::prefix::{IpRangeMap, Prefix};

/// Whether an address belongs to nobody on the Internet. Of a client subnet, its first address.
///
/// Teredo, NAT64 and IPv4-mapped addresses are among them: a subnet of these is too short to hold the IPv4 address of a
/// client. A 6to4 address is as routable as the IPv4 address in it.
pub const fn is_unroutable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_unroutable_v4(v4),
        IpAddr::V6(v6) => is_unroutable_v6(v6),
    }
}

const fn is_unroutable_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    matches!(
        (a, b, c),
        (0 | 10 | 127 | 224.., _, _)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 168, _)
            | (198, 18..=19, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (198, 51, 100)
            | (203, 0, 113)
    )
}

const fn is_unroutable_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // 2001::/23: protocol assignments, Teredo among them. Documentation.
        [0x2001, 0..=0x01ff | 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => true,
        [0x2002, high, low, ..] => {
            is_unroutable_v4(Ipv4Addr::from_bits((high as u32) << 16 | low as u32))
        }
        // Global unicast is 2000::/3.
        [first, ..] => first & 0xe000 != 0x2000,
    }
}

/// The same as networks. 6to4 is not among the routable ones: its clients are counted by their IPv4 addresses.
const UNROUTABLE: [&str; 21] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/3",
    "::/3",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "4000::/2",
    "8000::/1",
];

fn unroutable() -> impl Iterator<Item = Prefix> {
    UNROUTABLE.iter().filter_map(|text| text.parse().ok())
}

/// Where the operator named a part of a network that is nobody's: beside it, addresses are passed over.
pub fn parts(named: &IpRangeMap<bool>) -> IpRangeMap<bool> {
    let in_part = |network: &Prefix| !named.find(network.network()).0.covers(*network);
    let networks = unroutable().filter(in_part).map(|network| (network, true));
    named.overlay(&IpRangeMap::from_prefixes(false, networks), |named, part| *named && *part)
}

/// The address space that clients live in: routable, and known to a database or a registry. Of IPv6 most is neither.
pub fn population(geography: &Geography) -> IpRangeMap<bool> {
    let special = unroutable().map(|network| (network, false));
    let routable = IpRangeMap::from_prefixes(true, special);
    routable.overlay(&geography.places, |routable, place| *routable && place.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_and_the_function_agree_at_every_border() {
        let special: Vec<Prefix> = UNROUTABLE.iter().map(|text| text.parse().unwrap()).collect();
        let routable =
            IpRangeMap::from_prefixes(true, special.iter().map(|network| (*network, false)));
        for (first, last, expected) in routable.v4.ranges() {
            for address in [first, last] {
                let address = IpAddr::V4(Ipv4Addr::from_bits(address));
                assert_eq!(!is_unroutable(address), *expected, "{address}");
            }
        }
        for (first, last, expected) in routable.v6.ranges() {
            for address in [first, last].map(Ipv6Addr::from_bits) {
                if address.segments()[0] != 0x2002 {
                    assert_eq!(!is_unroutable(address.into()), *expected, "{address}");
                }
            }
        }
    }

    #[test]
    fn six_to_four_is_as_routable_as_its_ipv4() {
        for (text, unroutable) in [
            ("2002:a00:1::", true),
            ("2002:7f00:1::", true),
            ("2002:c000:201::", true),
            ("2002:d01:203::", false),
            ("2002::", true),
            ("2001::1", true),
            ("2001:200::1", false),
            ("64:ff9b::808:808", true),
            ("::ffff:8.8.8.8", true),
        ] {
            assert_eq!(is_unroutable(text.parse().unwrap()), unroutable, "{text}");
        }
    }

    #[test]
    fn the_population_is_where_clients_are() {
        let map = population(&Geography::new([], &[]));
        for (text, lives) in [
            ("8.8.8.8", true),
            ("10.0.0.1", false),
            ("203.0.113.1", false),
            ("240.0.0.1", false),
            ("2a00::1", true),
            ("2001:db8::1", false),
            ("3000::1", false),
            ("2002:808:808::1", false),
        ] {
            assert_eq!(*map.get(text.parse().unwrap()), lives, "{text}");
        }
    }
}
