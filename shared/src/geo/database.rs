//! Databases in MaxMind's format: read once, whole, into maps. Nothing of the file is kept.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::ControlFlow;

use maxminddb::Reader;

use super::place::Interner;
use super::record::{Fields, Record};
use super::tree::{Leaf, Tree};
use super::{PlaceId, Places};
use crate::prefix::{Address, Ascending, IpRangeMap, Prefix};
use crate::time::UnixMillis;

/// Networks with a record in one database; the largest sold have a fifth of this.
const MAX_NETWORKS: usize = 1 << 26;
/// Different places in one database; the largest sold have a tenth of this.
const MAX_PLACES: usize = 1 << 24;

/// Why a database cannot be used. Each begins with the name it was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GeoError {
    /// No such format, or damaged beyond its records.
    #[error("{name}: not a usable MMDB file, fetch it again: {reason}")]
    Unreadable {
        /// The database.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A record that is damaged.
    #[error("{name}: the record of {network} is damaged, fetch the file again: {reason}")]
    Record {
        /// The database.
        name: String,
        /// The first network that has the record.
        network: Prefix,
        /// What is wrong.
        reason: String,
    },
    /// A sound file of another kind.
    #[error(
        "{name}: a database of type `{database_type}` without countries, coordinates or AS numbers: give a City, Country or ASN database"
    )]
    Useless {
        /// The database.
        name: String,
        /// The type it says it is.
        database_type: String,
    },
    /// The type and the records disagree.
    #[error(
        "{name}: the type `{database_type}` promises {promised} records, but none of its {networks} networks has one: fetch it again"
    )]
    Mislabelled {
        /// The database.
        name: String,
        /// The type it says it is.
        database_type: String,
        /// What that type holds.
        promised: Kind,
        /// How many networks it has.
        networks: usize,
    },
    /// More than can be held.
    #[error("{name}: more than {limit} {what}: give a smaller database")]
    TooMany {
        /// The database.
        name: String,
        /// Networks or places.
        what: &'static str,
        /// How many may be.
        limit: usize,
    },
}

/// What a database is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// AS numbers.
    Asn,
    /// Countries: distances are measured from a country's point.
    Country,
    /// Coordinates, or at least cities.
    City,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Asn => "ASN",
            Self::Country => "country",
            Self::City => "city",
        })
    }
}

impl Kind {
    /// What a database's own name for its type promises.
    fn promised(database_type: &str) -> Option<Self> {
        let lower = database_type.to_ascii_lowercase();
        let says = |word: &str| lower.contains(word);
        if says("city") || says("enterprise") {
            Some(Self::City)
        } else if says("country") {
            Some(Self::Country)
        } else if says("asn") || says("isp") {
            Some(Self::Asn)
        } else {
            None
        }
    }

    const fn found(fields: Fields) -> Option<Self> {
        match fields {
            Fields { city: true, .. } => Some(Self::City),
            Fields { country: true, .. } => Some(Self::Country),
            Fields { asn: true, .. } => Some(Self::Asn),
            _ => None,
        }
    }
}

/// A database as maps from all addresses. One that holds both places and AS numbers has both.
#[derive(Clone, Debug)]
pub struct Database {
    name: String,
    database_type: String,
    built: UnixMillis,
    kind: Kind,
    networks: usize,
    catalog: Places,
    places: IpRangeMap<Option<PlaceId>>,
    asns: IpRangeMap<Option<u32>>,
}

impl Database {
    /// Reads a database from the bytes of its file. `name` is what messages and explanations call it.
    ///
    /// Bounded by the size of the file, and never a panic: one damaged record refuses the whole file, so that a
    /// half-fetched database does not replace a good one.
    pub fn from_bytes(bytes: impl AsRef<[u8]>, name: &str) -> Result<Self, GeoError> {
        let bytes = bytes.as_ref();
        let unreadable = |reason: String| GeoError::Unreadable { name: name.to_owned(), reason };
        let reader = Reader::from_source(bytes).map_err(|error| unreadable(error.to_string()))?;
        let metadata = reader.metadata();
        let tree = Tree {
            bytes,
            node_count: metadata.node_count,
            record_size: metadata.record_size,
            address_bits: if metadata.ip_version == 4 { 32 } else { 128 },
        };
        let mut walk = Walk {
            name,
            reader: &reader,
            address_bits: tree.address_bits,
            interner: Interner::new(name),
            known: HashMap::new(),
            fields: Fields::default(),
            networks: 0,
            places: Both::new(),
            asns: Both::new(),
        };
        let end = tree.walk(|leaf| match walk.add(leaf) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        });
        match end {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(error)) => return Err(error),
            Err(error) => return Err(unreadable(error.to_string())),
        }

        let promised = Kind::promised(&metadata.database_type);
        let kind = match (Kind::found(walk.fields), promised) {
            // An empty database may be what an operator begins with.
            (None, Some(promised)) if walk.networks == 0 => promised,
            (None, Some(promised)) => {
                return Err(GeoError::Mislabelled {
                    name: name.to_owned(),
                    database_type: metadata.database_type.clone(),
                    promised,
                    networks: walk.networks,
                });
            }
            (None, None) => {
                return Err(GeoError::Useless {
                    name: name.to_owned(),
                    database_type: metadata.database_type.clone(),
                });
            }
            (Some(found), _) => found,
        };
        Ok(Self {
            name: name.to_owned(),
            database_type: metadata.database_type.clone(),
            built: UnixMillis::from_secs(metadata.build_epoch),
            kind,
            networks: walk.networks,
            catalog: walk.interner.finish(),
            places: walk.places.finish(),
            asns: walk.asns.finish(),
        })
    }

    /// The name it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The type it says it is, such as `GeoLite2-City`.
    pub fn database_type(&self) -> &str {
        &self.database_type
    }

    /// When its vendor built it.
    pub const fn built(&self) -> UnixMillis {
        self.built
    }

    /// What it is good for, by what its records hold.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// How many networks with a record the file has.
    pub const fn networks(&self) -> usize {
        self.networks
    }

    /// The places that [`Database::places`] refers to.
    pub const fn catalog(&self) -> &Places {
        &self.catalog
    }

    /// The place of every address.
    pub const fn places(&self) -> &IpRangeMap<Option<PlaceId>> {
        &self.places
    }

    /// The AS number of every address.
    pub const fn asns(&self) -> &IpRangeMap<Option<u32>> {
        &self.asns
    }

    /// In words, what it says of an address, and the largest network of which it says the same.
    pub fn describe(&self, address: IpAddr) -> String {
        let (network, place) = self.places.find(address);
        let (as_network, asn) = self.asns.find(address);
        let place = place.map(|id| format!("{network} is {}", self.catalog.describe(id)));
        let asn = asn.map(|asn| format!("{as_network} is AS{asn}"));
        let words: Vec<String> = place.into_iter().chain(asn).collect();
        if words.is_empty() {
            format!("{} says nothing of {address}", self.name)
        } else {
            format!("{}: {}", self.name, words.join("; "))
        }
    }
}

/// Maps for both families, being built.
struct Both<T> {
    v4: Ascending<u32, Option<T>>,
    v6: Ascending<u128, Option<T>>,
}

impl<T: Copy + Eq> Both<T> {
    fn new() -> Self {
        Self { v4: Ascending::new(None), v6: Ascending::new(None) }
    }

    fn finish(self) -> IpRangeMap<Option<T>> {
        IpRangeMap { v4: self.v4.finish(), v6: self.v6.finish() }
    }
}

/// What is gathered while the tree is walked.
struct Walk<'a> {
    name: &'a str,
    reader: &'a Reader<&'a [u8]>,
    address_bits: u8,
    interner: Interner,
    /// Records that were decoded, by the tree's pointer: most networks share one.
    known: HashMap<u32, (Option<PlaceId>, Option<u32>)>,
    fields: Fields,
    networks: usize,
    places: Both<PlaceId>,
    asns: Both<u32>,
}

impl Walk<'_> {
    fn add(&mut self, leaf: Leaf) -> Result<(), GeoError> {
        self.networks += 1;
        if self.networks > MAX_NETWORKS {
            return Err(self.too_many("networks", MAX_NETWORKS));
        }
        let (place, asn) = match self.known.get(&leaf.pointer) {
            Some(known) => *known,
            None => self.decode(leaf)?,
        };
        // Below ::/96 lies IPv4. A network that is not as long holds all of IPv4 when it begins at ::.
        let v4 = match leaf.length.checked_sub(self.address_bits - 32) {
            Some(length) if leaf.address >> 32 == 0 => Some((leaf.address as u32, length)),
            None if leaf.address == 0 => Some((0, 0)),
            _ => None,
        };
        let v6 = (self.address_bits == 128 && leaf.length < 96 || leaf.address >> 32 != 0)
            .then_some((leaf.address, leaf.length));
        let placed = push(&mut self.places, v4, v6, place);
        let numbered = push(&mut self.asns, v4, v6, asn);
        if placed && numbered {
            return Ok(());
        }
        Err(GeoError::Unreadable {
            name: self.name.to_owned(),
            reason: "its networks are not in order".to_owned(),
        })
    }

    /// Decodes the record of a network, and remembers it.
    fn decode(&mut self, leaf: Leaf) -> Result<(Option<PlaceId>, Option<u32>), GeoError> {
        let address: IpAddr = if self.address_bits == 32 {
            Ipv4Addr::from_bits(leaf.address as u32).into()
        } else {
            Ipv6Addr::from_bits(leaf.address).into()
        };
        let damaged = |reason: String| GeoError::Record {
            name: self.name.to_owned(),
            network: network(leaf, self.address_bits),
            reason,
        };
        let found = self.reader.lookup(address).map_err(|error| damaged(error.to_string()))?;
        let record: Record<'_> =
            found.decode().map_err(|error| damaged(error.to_string()))?.unwrap_or_default();
        let place = record.place(&mut self.interner, &mut self.fields).map_err(damaged)?;
        if self.interner.count() > MAX_PLACES {
            return Err(self.too_many("different places", MAX_PLACES));
        }
        let asn = record.asn();
        self.fields.asn |= asn.is_some();
        self.known.insert(leaf.pointer, (place, asn));
        Ok((place, asn))
    }

    fn too_many(&self, what: &'static str, limit: usize) -> GeoError {
        GeoError::TooMany { name: self.name.to_owned(), what, limit }
    }
}

/// Adds a network to the maps of the families it has addresses in; false when it is out of order.
fn push<T: Copy + Eq>(
    maps: &mut Both<T>,
    v4: Option<(u32, u8)>,
    v6: Option<(u128, u8)>,
    value: Option<T>,
) -> bool {
    // What has no value need not be said, and most files are about one kind of value only.
    value.is_none()
        || v4
            .is_none_or(|(first, length)| maps.v4.push(first, first.last_of(length), value).is_ok())
            && v6.is_none_or(|(first, length)| {
                maps.v6.push(first, first.last_of(length), value).is_ok()
            })
}

/// The network of a leaf as people write it.
fn network(leaf: Leaf, address_bits: u8) -> Prefix {
    match leaf.length.checked_sub(address_bits - 32) {
        Some(length) if leaf.address >> 32 == 0 => (leaf.address as u32).prefix(length),
        _ => leaf.address.prefix(leaf.length),
    }
}

#[cfg(test)]
mod tests {
    use super::super::mmdb_writer::{CityRecord, Value, Writer};
    use super::*;
    use proptest::prelude::*;

    fn net(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn at(map: &IpRangeMap<Option<PlaceId>>, catalog: &Places, address: &str) -> (String, String) {
        let (network, id) = map.find(address.parse().unwrap());
        (network.to_string(), id.map_or_else(String::new, |id| catalog.describe(id)))
    }

    fn fixture() -> Vec<u8> {
        let mut writer = Writer::new("Test-City");
        let cities = [
            ("1.208.0.0/12", "KR", "Seoul", (37.57, 126.98)),
            ("1.212.0.0/16", "KR", "Busan", (35.18, 129.08)),
            ("80.128.0.0/11", "DE", "Frankfurt", (50.11, 8.68)),
            ("2400:1::/32", "KR", "Seoul", (37.57, 126.98)),
            ("2400:2::/48", "JP", "Tokyo", (35.68, 139.69)),
        ];
        for (network, country, city, location) in cities {
            let location = Some(location);
            let record = CityRecord { country, city, location, ..CityRecord::default() };
            writer.city(net(network), &record);
        }
        writer.finish().unwrap()
    }

    #[test]
    fn cities_are_read_once_for_both_families() {
        let database = Database::from_bytes(fixture(), "city.mmdb").unwrap();
        assert_eq!((database.kind(), database.catalog().count()), (Kind::City, 4));
        // The /12 is cut into four by the /16 in it.
        assert_eq!(database.networks(), 4 + 1 + 1 + 2);
        for (address, network, words) in [
            ("1.208.0.1", "1.208.0.0/14", "Seoul, KR, AS (37.57, 126.98)"),
            ("1.212.0.1", "1.212.0.0/16", "Busan, KR, AS (35.18, 129.08)"),
            ("80.128.0.1", "80.128.0.0/11", "Frankfurt, DE, EU (50.11, 8.68)"),
            ("81.0.0.1", "81.0.0.0/8", ""),
            ("2400:1::1", "2400:1::/32", "Seoul, KR, AS (37.57, 126.98)"),
            ("2400:2::1", "2400:2::/48", "Tokyo, JP, AS (35.68, 139.69)"),
            ("2400:2:1::1", "2400:2:1::/48", ""),
            // Aliases of IPv4 are not networks of their own.
            ("2002:1d0:1::1", "2800::/5", ""),
        ] {
            let found = at(database.places(), database.catalog(), address);
            if words.is_empty() {
                assert_eq!(found.1, "", "{address}");
            } else {
                assert_eq!(found, (network.to_owned(), words.to_owned()), "{address}");
            }
        }
        assert_eq!(database.asns(), &IpRangeMap::uniform(None));
        assert_eq!(
            database.describe("1.212.0.1".parse().unwrap()),
            "city.mmdb: 1.212.0.0/16 is Busan, KR, AS (35.18, 129.08)"
        );
        assert_eq!(
            database.describe("9.9.9.9".parse().unwrap()),
            "city.mmdb says nothing of 9.9.9.9"
        );
    }

    #[test]
    fn kinds_follow_the_records() {
        let kind = |database_type: &str, fill: &dyn Fn(&mut Writer)| {
            let mut writer = Writer::new(database_type).ipv4_only();
            fill(&mut writer);
            Database::from_bytes(writer.finish().unwrap(), "x.mmdb").map(|database| database.kind())
        };
        let any = net("192.0.2.0/24");
        let country: &dyn Fn(&mut Writer) = &|writer| writer.country(any, "KR");
        let asn: &dyn Fn(&mut Writer) = &|writer| writer.asn(any, 64_500, "Example");
        let flat: &dyn Fn(&mut Writer) = &|writer| {
            let record = Value::map([("country_code", "KR".into()), ("asn", "AS64500".into())]);
            writer.insert(any, &record);
        };
        let other: &dyn Fn(&mut Writer) = &|writer| {
            writer.insert(any, &Value::map([("connection_type", "Cellular".into())]));
        };
        assert_eq!(kind("GeoLite2-Country", country), Ok(Kind::Country));
        assert_eq!(kind("GeoLite2-ASN", asn), Ok(Kind::Asn));
        assert_eq!(kind("Vendor Lite", flat), Ok(Kind::Country));
        // A City database that knows countries only is what it is.
        assert_eq!(kind("GeoLite2-City", country), Ok(Kind::Country));
        assert_eq!(kind("My-Country", &|_| ()), Ok(Kind::Country));
        let error = kind("GeoIP2-Connection-Type", other).unwrap_err();
        assert!(matches!(error, GeoError::Useless { .. }), "{error}");
        let error = kind("GeoLite2-ASN", other).unwrap_err();
        assert_eq!(
            error.to_string(),
            "x.mmdb: the type `GeoLite2-ASN` promises ASN records, but none of its 1 networks has one: fetch it again"
        );
    }

    #[test]
    fn one_database_may_hold_places_and_as_numbers() {
        let mut writer = Writer::new("Vendor Lite");
        let record = Value::map([("country_code", "KR".into()), ("asn", "AS64500".into())]);
        writer.insert(net("192.0.2.0/24"), &record);
        let database = Database::from_bytes(writer.finish().unwrap(), "lite.mmdb").unwrap();
        assert_eq!(
            database.describe("192.0.2.1".parse().unwrap()),
            "lite.mmdb: 192.0.2.0/24 is KR, AS (36.8, 127.5); 192.0.2.0/24 is AS64500"
        );
    }

    #[test]
    fn a_network_around_ipv4_holds_it() {
        let mut writer = Writer::new("Test-Country");
        writer.country(net("::/64"), "KR");
        writer.country(net("2001:db8::/32"), "DE");
        let database = Database::from_bytes(writer.finish().unwrap(), "x.mmdb").unwrap();
        let kr = at(database.places(), database.catalog(), "192.0.2.1");
        assert_eq!(kr, ("0.0.0.0/0".to_owned(), "KR, AS (36.8, 127.5)".to_owned()));
        let kr = at(database.places(), database.catalog(), "::5");
        assert_eq!(kr.0, "::/64");
    }

    #[test]
    fn what_is_not_a_database_is_refused() {
        for bytes in [&b""[..], b"not a database", &[0; 4096], b"\xab\xcd\xefMaxMind.com"] {
            let error = Database::from_bytes(bytes, "bad.mmdb").unwrap_err();
            assert!(matches!(error, GeoError::Unreadable { .. }), "{error}");
            assert!(error.to_string().starts_with("bad.mmdb: not a usable MMDB file"), "{error}");
        }
    }

    #[test]
    fn a_damaged_record_is_named() {
        let mut writer = Writer::new("Test-City");
        let record =
            CityRecord { country: "KR", location: Some((99.0, 5.0)), ..CityRecord::default() };
        writer.city(net("1.208.0.0/12"), &record);
        let error = Database::from_bytes(writer.finish().unwrap(), "bad.mmdb").unwrap_err();
        assert_eq!(
            error.to_string(),
            "bad.mmdb: the record of 1.208.0.0/12 is damaged, fetch the file again: latitude 99 is not between -90 and 90"
        );
    }

    #[test]
    fn no_truncation_is_taken_for_whole() {
        let bytes = fixture();
        for length in 0..bytes.len() {
            assert!(Database::from_bytes(&bytes[..length], "cut.mmdb").is_err(), "{length}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn flipped_bits_are_an_error_or_another_database(
            flips in prop::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..8),
        ) {
            let mut bytes = fixture();
            for (index, bit) in flips {
                let at = index.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }
            if let Ok(database) = Database::from_bytes(&bytes, "flipped.mmdb") {
                prop_assert!(database.places().range_count() <= bytes.len());
                database.describe("1.212.0.1".parse().unwrap());
            }
        }

        #[test]
        fn networks_are_found_again(
            networks in prop::collection::vec((any::<u32>(), 1u8..=32, 0usize..5), 1..60),
        ) {
            let codes = ["KR", "DE", "US", "BR", "ZA"];
            let networks: Vec<(u32, u8, usize)> = networks
                .into_iter()
                .map(|(address, length, code)| (address.first_of(length), length, code))
                .collect();
            for only_v4 in [true, false] {
                let mut writer = Writer::new("Test-Country");
                if only_v4 {
                    writer = writer.ipv4_only();
                }
                for (address, length, code) in &networks {
                    writer.country(address.prefix(*length), codes[*code]);
                }
                let bytes = writer.finish().unwrap();
                let reader = Reader::from_source(&bytes).unwrap();
                let database = Database::from_bytes(&bytes, "x.mmdb").unwrap();
                for (address, length, _) in &networks {
                    for probe in [*address, address.last_of(*length), address.wrapping_sub(1)] {
                        let probe = IpAddr::from(Ipv4Addr::from_bits(probe));
                        let expected: Option<maxminddb::geoip2::Country<'_>> =
                            reader.lookup(probe).unwrap().decode().unwrap();
                        let found = database.places().get(probe).map(|id| database.catalog().get(id));
                        prop_assert_eq!(
                            found.and_then(|place| place.country).map(|code| code.to_string()),
                            expected.and_then(|record| record.country.iso_code.map(str::to_owned))
                        );
                    }
                }
            }
        }
    }
}
