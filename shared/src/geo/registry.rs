//! The geography that is built in: which regional Internet registry an address was allocated to, by IANA's own
//! registries, and a point for each region. Coarse, but true for every client on the first day, without a database.

mod table;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Coordinates;
use crate::prefix::{IpRangeMap, RangeMap};

/// A regional Internet registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Registry {
    /// Africa.
    Afrinic,
    /// Asia and the Pacific.
    Apnic,
    /// The United States, Canada and parts of the Caribbean.
    Arin,
    /// Latin America and parts of the Caribbean.
    Lacnic,
    /// Europe, the Middle East and Central Asia.
    RipeNcc,
}

impl Registry {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Afrinic, Self::Apnic, Self::Arin, Self::Lacnic, Self::RipeNcc];

    /// The name it goes by.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Afrinic => "AFRINIC",
            Self::Apnic => "APNIC",
            Self::Arin => "ARIN",
            Self::Lacnic => "LACNIC",
            Self::RipeNcc => "RIPE NCC",
        }
    }

    /// A point for "nearest": where most of the region's addresses are in use, not the middle of its map.
    pub const fn center(self) -> Coordinates {
        match self {
            // Between the large networks of South Africa, Nigeria, Kenya and Egypt.
            Self::Afrinic => Coordinates::fixed(-4.0, 22.0),
            // China, Japan and Korea hold three quarters of the region's IPv4.
            Self::Apnic => Coordinates::fixed(32.0, 118.0),
            // East of the middle of the United States, as its population is.
            Self::Arin => Coordinates::fixed(39.0, -88.0),
            // Brazil's interior.
            Self::Lacnic => Coordinates::fixed(-16.0, -49.0),
            // Between Germany, France, Italy and Poland.
            Self::RipeNcc => Coordinates::fixed(50.0, 12.0),
        }
    }
}

impl fmt::Display for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text that is not the name of a registry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a registry: write one of AFRINIC, APNIC, ARIN, LACNIC, RIPE NCC")]
pub struct RegistryError(String);

impl FromStr for Registry {
    type Err = RegistryError;
    fn from_str(text: &str) -> Result<Self, RegistryError> {
        Self::ALL
            .into_iter()
            .find(|registry| registry.name().eq_ignore_ascii_case(text))
            .ok_or_else(|| RegistryError(text.to_owned()))
    }
}

impl TryFrom<String> for Registry {
    type Error = RegistryError;
    fn try_from(text: String) -> Result<Self, RegistryError> {
        text.parse()
    }
}

impl From<Registry> for String {
    fn from(registry: Registry) -> Self {
        registry.name().to_owned()
    }
}

/// Networks inside the registries' blocks that are no client's: first address, prefix length. Blocks of a whole /8 (0,
/// 10, 127, 224 and above) and all of IPv6 outside the allocations have no registry in the first place.
const SPECIAL_IPV4: [([u8; 4], u8); 11] = [
    ([100, 64, 0, 0], 10), // RFC 6598: shared address space behind carrier-grade NAT
    ([169, 254, 0, 0], 16), // RFC 3927: link-local
    ([172, 16, 0, 0], 12), // RFC 1918: private
    ([192, 0, 0, 0], 24),  // RFC 6890: IETF protocol assignments
    ([192, 0, 2, 0], 24),  // RFC 5737: documentation
    ([192, 88, 99, 0], 24), // RFC 7526: formerly the relays of 6to4
    ([192, 168, 0, 0], 16), // RFC 1918: private
    ([198, 18, 0, 0], 15), // RFC 2544: benchmarks
    ([198, 51, 100, 0], 24), // RFC 5737: documentation
    ([203, 0, 113, 0], 24), // RFC 5737: documentation
    ([255, 255, 255, 255], 32), // RFC 919: broadcast
];

/// RFC 3849: documentation, inside a block of APNIC.
const DOCUMENTATION_IPV6: (u128, u8) = (0x2001_0db8 << 96, 32);

/// The name under which places of this table are explained.
pub const SOURCE: &str = "address registries";

/// The registry of every address; none for special-use, multicast, reserved and unallocated addresses.
pub fn allocations() -> IpRangeMap<Option<Registry>> {
    let blocks = table::IPV4_SLASH8.iter().zip(0u32..).map(|(letter, block)| {
        let registry = match letter {
            b'F' => Some(Registry::Afrinic),
            b'P' => Some(Registry::Apnic),
            b'A' => Some(Registry::Arin),
            b'L' => Some(Registry::Lacnic),
            b'R' => Some(Registry::RipeNcc),
            _ => None,
        };
        (block << 24, 8, registry)
    });
    let special = SPECIAL_IPV4.map(|(address, length)| (u32::from_be_bytes(address), length, None));
    let v6 = table::IPV6
        .iter()
        .map(|(top, length, registry)| (u128::from(*top) << 96, *length, Some(*registry)));
    IpRangeMap {
        v4: RangeMap::from_prefixes(None, blocks.chain(special)),
        v6: RangeMap::from_prefixes(
            None,
            v6.chain([(DOCUMENTATION_IPV6.0, DOCUMENTATION_IPV6.1, None)]),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prefix::Prefix;

    #[test]
    fn well_known_networks_are_in_their_region() {
        let map = allocations();
        for (networks, registry) in [
            // Korea, Japan, China, Australia, India.
            (
                &[
                    "1.208.0.0/12",
                    "175.192.0.0/10",
                    "126.0.0.0/8",
                    "114.224.0.0/12",
                    "1.128.0.0/11",
                    "49.32.0.0/12",
                    "2400::/12",
                    "2001:2d8::/32",
                ][..],
                Some(Registry::Apnic),
            ),
            // Germany, France, Britain.
            (
                &["80.128.0.0/11", "2.0.0.0/12", "86.128.0.0/10", "2a00::/12", "2003::/19"],
                Some(Registry::RipeNcc),
            ),
            // The United States; among these, legacy blocks of one holder each.
            (
                &[
                    "12.0.0.0/8",
                    "73.0.0.0/8",
                    "8.8.8.0/24",
                    "17.0.0.0/8",
                    "6.0.0.0/8",
                    "2600::/12",
                    "2620:0:2d0::/48",
                ],
                Some(Registry::Arin),
            ),
            // Brazil, Argentina, Mexico.
            (
                &["177.0.0.0/8", "200.128.0.0/9", "181.0.0.0/12", "187.128.0.0/12", "2800::/12"],
                Some(Registry::Lacnic),
            ),
            // South Africa, Nigeria, Egypt.
            (
                &["41.0.0.0/11", "105.112.0.0/12", "197.0.0.0/10", "196.192.0.0/12", "2c00::/12"],
                Some(Registry::Afrinic),
            ),
            // Private, loopback, link-local, documentation, multicast, reserved, unallocated.
            (
                &[
                    "0.0.0.0/8",
                    "10.0.0.0/8",
                    "100.64.0.0/10",
                    "127.0.0.0/8",
                    "169.254.0.0/16",
                    "172.16.0.0/12",
                    "192.0.2.0/24",
                    "192.168.0.0/16",
                    "198.18.0.0/15",
                    "198.51.100.0/24",
                    "203.0.113.0/24",
                    "224.0.0.0/4",
                    "240.0.0.0/4",
                    "::/8",
                    "2001::/32",
                    "2001:db8::/32",
                    "2002::/16",
                    "2d00::/8",
                    "3fff::/20",
                    "4000::/3",
                    "fc00::/7",
                    "fe80::/10",
                    "ff00::/8",
                ],
                None,
            ),
        ] {
            for text in networks {
                let network: Prefix = text.parse().unwrap();
                let (found, value) = map.find(network.network());
                assert_eq!(*value, registry, "{text}");
                assert!(found.covers(network), "{text}: only {found} is {value:?}");
            }
        }
    }

    #[test]
    fn special_networks_leave_their_neighbours_alone() {
        let map = allocations();
        for (address, network, registry) in [
            ("100.128.0.1", "100.128.0.0/9", Some(Registry::Arin)),
            ("100.63.255.255", "100.0.0.0/10", Some(Registry::Arin)),
            ("172.15.0.1", "172.0.0.0/12", Some(Registry::Arin)),
            ("203.0.112.1", "203.0.112.0/24", Some(Registry::Apnic)),
            ("2001:db9::1", "2001:db9::/32", Some(Registry::Apnic)),
            ("255.255.255.255", "224.0.0.0/3", None),
        ] {
            let (found, value) = map.find(address.parse().unwrap());
            assert_eq!((found.to_string().as_str(), *value), (network, registry), "{address}");
        }
    }

    #[test]
    fn the_table_is_ascending_and_every_registry_has_its_share() {
        for pair in table::IPV6.windows(2) {
            let ((first, length, _), (next, _, _)) = (pair[0], pair[1]);
            assert!(first + (1 << (32 - length)) <= next, "{first:x}");
        }
        let blocks = |letter| table::IPV4_SLASH8.iter().filter(|found| **found == letter).count();
        // IANA's table: 6 AFRINIC, 51 APNIC, 111 ARIN, 10 LACNIC, 43 RIPE NCC; the rest is reserved.
        assert_eq!(b"FPALR-".map(blocks), [6, 51, 111, 10, 43, 35]);
    }

    #[test]
    fn centers_choose_sensible_datacenters() {
        let datacenters = [
            ("icn", Coordinates::fixed(37.46, 126.44)),
            ("fra", Coordinates::fixed(50.03, 8.57)),
            ("iad", Coordinates::fixed(38.95, -77.45)),
        ];
        for (registry, nearest) in [
            (Registry::Apnic, "icn"),
            (Registry::RipeNcc, "fra"),
            (Registry::Arin, "iad"),
            (Registry::Lacnic, "iad"),
            (Registry::Afrinic, "fra"),
        ] {
            let found = datacenters
                .iter()
                .min_by(|a, b| {
                    let to = |point: &Coordinates| registry.center().distance_km(*point);
                    to(&a.1).total_cmp(&to(&b.1))
                })
                .unwrap();
            assert_eq!(found.0, nearest, "{registry}");
        }
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for registry in Registry::ALL {
            assert_eq!(registry.to_string().parse(), Ok(registry));
        }
        assert_eq!("ripe ncc".parse(), Ok(Registry::RipeNcc));
        assert!("RIPE".parse::<Registry>().is_err());
    }
}
