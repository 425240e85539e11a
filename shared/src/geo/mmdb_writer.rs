//! Writes small databases in MaxMind's format: for tests, and for operators who keep a map of their own networks.
//!
//! Everything is held in memory and the file comes out as bytes. A network nested in another takes precedence, whatever
//! the order in which they are given.
//!
//! ```
//! use shared::geo::mmdb_writer::{CityRecord, Writer};
//!
//! let mut writer = Writer::new("Example-City");
//! let seoul = CityRecord { country: "KR", city: "Seoul", location: Some((37.57, 126.98)), ..CityRecord::default() };
//! writer.city("192.0.2.0/24".parse()?, &seoul);
//! let bytes = writer.finish()?;
//! let database = shared::geo::Database::from_bytes(bytes, "example.mmdb")?;
//! assert_eq!(database.networks(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::HashMap;
use std::net::IpAddr;

use super::{Country, CountryCode};
use crate::prefix::Prefix;
use crate::time::UnixMillis;

/// A value of MaxMind's data format.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// UTF-8 text.
    Text(String),
    /// Floating point, 64 bits.
    Double(f64),
    /// Unsigned, 16 bits.
    Uint16(u16),
    /// Unsigned, 32 bits.
    Uint32(u32),
    /// Unsigned, 64 bits.
    Uint64(u64),
    /// True or false.
    Bool(bool),
    /// Names and values, in this order.
    Map(Vec<(String, Self)>),
    /// Values in order.
    List(Vec<Self>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl Value {
    /// A map from pairs.
    pub fn map<const N: usize>(pairs: [(&str, Self); N]) -> Self {
        Self::Map(pairs.map(|(key, value)| (key.to_owned(), value)).into())
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => {
                control(out, 2, text.len());
                out.extend_from_slice(text.as_bytes());
            }
            Self::Double(value) => {
                control(out, 3, 8);
                out.extend_from_slice(&value.to_be_bytes());
            }
            Self::Uint16(value) => unsigned(out, 5, &value.to_be_bytes()),
            Self::Uint32(value) => unsigned(out, 6, &value.to_be_bytes()),
            Self::Uint64(value) => unsigned(out, 9, &value.to_be_bytes()),
            Self::Bool(value) => control(out, 14, usize::from(*value)),
            Self::Map(pairs) => {
                control(out, 7, pairs.len());
                for (key, value) in pairs {
                    Self::from(key.as_str()).encode(out);
                    value.encode(out);
                }
            }
            Self::List(values) => {
                control(out, 11, values.len());
                for value in values {
                    value.encode(out);
                }
            }
        }
    }
}

/// The control byte or bytes: type and size.
fn control(out: &mut Vec<u8>, kind: u8, size: usize) {
    let (short, more): (u8, Vec<u8>) = match size {
        0..29 => (size as u8, vec![]),
        29..285 => (29, vec![(size - 29) as u8]),
        285..65_821 => (30, ((size - 285) as u16).to_be_bytes().into()),
        _ => (31, ((size - 65_821) as u32).to_be_bytes()[1..].into()),
    };
    // Types past 7 are extended: a zero in the control byte, and their number less 7 in the next.
    if kind <= 7 {
        out.push(kind << 5 | short);
    } else {
        out.extend([short, kind - 7]);
    }
    out.extend(more);
}

/// An unsigned number without its leading zeros.
fn unsigned(out: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    control(out, kind, bytes.len() - zeros);
    out.extend_from_slice(&bytes[zeros..]);
}

/// What to write of a network in a City database. Empty texts are left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct CityRecord<'a> {
    /// ISO 3166-1 code; the continent follows from it.
    pub country: &'a str,
    /// Codes of the parts of the country without the country, the largest first: `["VLG", "VBR"]`.
    pub subdivisions: &'a [&'a str],
    /// English name.
    pub city: &'a str,
    /// Number in GeoNames.
    pub geoname_id: Option<u32>,
    /// Latitude and longitude in degrees.
    pub location: Option<(f64, f64)>,
}

/// Why networks do not make a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// An IPv6 network in a database of IPv4.
    #[error("`{0}` does not fit a database of IPv4: make one of both families")]
    Family(Prefix),
    /// Past what the format can point to.
    #[error("more nodes and data than records of 32 bits can point to: split the database")]
    TooLarge,
}

/// A record of a tree's node.
#[derive(Clone, Copy, Debug)]
enum Slot {
    Nothing,
    Node(u32),
    Data(u32),
}

/// A database in the making.
#[derive(Clone, Debug)]
pub struct Writer {
    database_type: String,
    built: UnixMillis,
    ip_version: u16,
    networks: Vec<(Prefix, u32)>,
    data: Vec<u8>,
    /// Where equal records lie.
    known: HashMap<Vec<u8>, u32>,
}

impl Writer {
    /// An empty database of both families. The type is what readers show, such as `Example-City`.
    pub fn new(database_type: &str) -> Self {
        Self {
            database_type: database_type.to_owned(),
            built: UnixMillis::default(),
            ip_version: 6,
            networks: Vec::new(),
            data: Vec::new(),
            known: HashMap::new(),
        }
    }

    /// Makes it a database of IPv4 alone.
    #[must_use]
    pub const fn ipv4_only(mut self) -> Self {
        self.ip_version = 4;
        self
    }

    /// Sets when it was built; otherwise that is the epoch.
    #[must_use]
    pub const fn built(mut self, at: UnixMillis) -> Self {
        self.built = at;
        self
    }

    /// Gives a network a record of any shape.
    pub fn insert(&mut self, network: Prefix, record: &Value) {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        let next = self.data.len() as u32;
        let offset = *self.known.entry(bytes).or_insert_with_key(|bytes| {
            self.data.extend_from_slice(bytes);
            next
        });
        self.networks.push((network, offset));
    }

    /// Gives a network a place.
    pub fn city(&mut self, network: Prefix, record: &CityRecord<'_>) {
        let mut fields = country_fields(record.country);
        let mut push = |key: &str, value| fields.push((key.to_owned(), value));
        if !record.subdivisions.is_empty() {
            let codes = record.subdivisions.iter();
            let list = codes.map(|code| Value::map([("iso_code", (*code).into())])).collect();
            push("subdivisions", Value::List(list));
        }
        let mut city = Vec::new();
        if let Some(id) = record.geoname_id {
            city.push(("geoname_id".to_owned(), Value::Uint32(id)));
        }
        if !record.city.is_empty() {
            city.push(("names".to_owned(), Value::map([("en", record.city.into())])));
        }
        if !city.is_empty() {
            push("city", Value::Map(city));
        }
        if let Some((lat, lon)) = record.location {
            let point = Value::map([
                ("latitude", Value::Double(lat)),
                ("longitude", Value::Double(lon)),
                ("accuracy_radius", Value::Uint16(20)),
            ]);
            push("location", point);
        }
        self.insert(network, &Value::Map(fields));
    }

    /// Gives a network a country by its ISO 3166-1 code.
    pub fn country(&mut self, network: Prefix, code: &str) {
        self.insert(network, &Value::Map(country_fields(code)));
    }

    /// Gives a network an AS number and the name of its organisation.
    pub fn asn(&mut self, network: Prefix, asn: u32, organization: &str) {
        let record = Value::map([
            ("autonomous_system_number", Value::Uint32(asn)),
            ("autonomous_system_organization", organization.into()),
        ]);
        self.insert(network, &record);
    }

    /// The file.
    pub fn finish(mut self) -> Result<Vec<u8>, WriteError> {
        let nodes = self.tree()?;
        let count = u32::try_from(nodes.len()).map_err(|_| WriteError::TooLarge)?;
        let largest = u64::from(count)
            + SEPARATOR.len() as u64
            + u64::try_from(self.data.len()).unwrap_or(u64::MAX);
        let record_size: u16 = match largest {
            0..=0xff_ffff => 24,
            0x100_0000..=0xfff_ffff => 28,
            0x1000_0000..=0xffff_ffff => 32,
            _ => return Err(WriteError::TooLarge),
        };
        let mut out = Vec::with_capacity(nodes.len() * 8 + self.data.len() + 512);
        for [left, right] in nodes {
            let number = |slot| match slot {
                Slot::Nothing => count,
                Slot::Node(node) => node,
                Slot::Data(offset) => count + SEPARATOR.len() as u32 + offset,
            };
            let (left, right) = (number(left), number(right));
            match record_size {
                24 => {
                    out.extend_from_slice(&left.to_be_bytes()[1..]);
                    out.extend_from_slice(&right.to_be_bytes()[1..]);
                }
                28 => {
                    out.extend_from_slice(&left.to_be_bytes()[1..]);
                    out.push((left >> 24 << 4 | right >> 24) as u8);
                    out.extend_from_slice(&right.to_be_bytes()[1..]);
                }
                _ => {
                    out.extend_from_slice(&left.to_be_bytes());
                    out.extend_from_slice(&right.to_be_bytes());
                }
            }
        }
        out.extend_from_slice(&SEPARATOR);
        out.append(&mut self.data);
        out.extend_from_slice(b"\xab\xcd\xefMaxMind.com");
        Value::map([
            ("binary_format_major_version", Value::Uint16(2)),
            ("binary_format_minor_version", Value::Uint16(0)),
            ("build_epoch", Value::Uint64(self.built.secs())),
            ("database_type", self.database_type.as_str().into()),
            ("description", Value::map([("en", self.database_type.as_str().into())])),
            ("ip_version", Value::Uint16(self.ip_version)),
            ("languages", Value::List(vec!["en".into()])),
            ("node_count", Value::Uint32(count)),
            ("record_size", Value::Uint16(record_size)),
        ])
        .encode(&mut out);
        Ok(out)
    }

    /// The search tree; in one of both families, IPv4 lies at `::/96`, and `::ffff:0:0/96` and `2002::/16` are other
    /// ways to it, as in the vendors' files.
    fn tree(&mut self) -> Result<Vec<[Slot; 2]>, WriteError> {
        let mut paths: Vec<(u8, u128, Slot)> = Vec::with_capacity(self.networks.len());
        for (network, offset) in &self.networks {
            let (bits, length) = match (network.network(), self.ip_version) {
                (IpAddr::V4(v4), 4) => (u128::from(v4.to_bits()) << 96, network.length()),
                (IpAddr::V4(v4), _) => (u128::from(v4.to_bits()), 96 + network.length()),
                (IpAddr::V6(_), 4) => return Err(WriteError::Family(*network)),
                (IpAddr::V6(v6), _) => (v6.to_bits(), network.length()),
            };
            paths.push((length, bits, Slot::Data(*offset)));
        }
        // Shorter ones first: longer ones then cut them up.
        paths.sort_by_key(|(length, _, _)| *length);
        let mut tree = vec![[Slot::Nothing; 2]];
        for (length, bits, slot) in paths {
            put(&mut tree, bits, length, slot)?;
        }
        if self.ip_version == 6
            && let Some(root) = node_at(&tree, 0, 96)
        {
            for (bits, length) in [(0xffff << 32, 96), (0x2002 << 112, 16)] {
                if node_at(&tree, bits, length).is_none() {
                    put(&mut tree, bits, length, Slot::Node(root))?;
                }
            }
        }
        Ok(tree)
    }
}

const SEPARATOR: [u8; 16] = [0; 16];

fn country_fields(code: &str) -> Vec<(String, Value)> {
    let mut fields = Vec::new();
    let continent = CountryCode::new(code).and_then(Country::find).map(|country| country.continent);
    if let Some(continent) = continent {
        fields.push(("continent".to_owned(), Value::map([("code", continent.code().into())])));
    }
    if !code.is_empty() {
        fields.push(("country".to_owned(), Value::map([("iso_code", code.into())])));
    }
    fields
}

fn side(bits: u128, depth: u8) -> usize {
    usize::from(bits >> (127 - depth) & 1 == 1)
}

/// Points the network of `length` bits at `slot`.
fn put(tree: &mut Vec<[Slot; 2]>, bits: u128, length: u8, slot: Slot) -> Result<(), WriteError> {
    let mut node = 0;
    for depth in 0..length.saturating_sub(1) {
        let at = side(bits, depth);
        node = match tree[node][at] {
            Slot::Node(next) => next as usize,
            outer => {
                let next = u32::try_from(tree.len()).map_err(|_| WriteError::TooLarge)?;
                tree.push([outer; 2]);
                tree[node][at] = Slot::Node(next);
                next as usize
            }
        };
    }
    match length.checked_sub(1) {
        Some(last) => tree[node][side(bits, last)] = slot,
        None => tree[node] = [slot; 2],
    }
    Ok(())
}

/// The node that the network of `length` bits is, when it has one.
fn node_at(tree: &[[Slot; 2]], bits: u128, length: u8) -> Option<u32> {
    let mut node = 0;
    for depth in 0..length {
        match tree[node as usize][side(bits, depth)] {
            Slot::Node(next) => node = next,
            _ => return None,
        }
    }
    Some(node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use maxminddb::{Reader, geoip2};

    fn net(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    /// What MaxMind's own reader finds for an address.
    fn country(reader: &Reader<Vec<u8>>, address: &str) -> Option<(String, String)> {
        let found = reader.lookup(address.parse().unwrap()).unwrap();
        let record: geoip2::Country<'_> = found.decode().unwrap()?;
        let code = record.country.iso_code.unwrap_or_default().to_owned();
        Some((code, found.network().unwrap().to_string()))
    }

    #[test]
    fn the_reference_reader_reads_countries() {
        let mut writer = Writer::new("Test-Country").built(UnixMillis::from_secs(1_700_000_000));
        writer.country(net("10.1.0.0/16"), "DE");
        writer.country(net("10.0.0.0/8"), "KR");
        writer.country(net("192.0.2.1"), "US");
        writer.country(net("2001:db8::/32"), "BR");
        let reader = Reader::from_source(writer.finish().unwrap()).unwrap();
        reader.verify().unwrap();
        let metadata = reader.metadata();
        assert_eq!(metadata.database_type, "Test-Country");
        assert_eq!(metadata.build_epoch, 1_700_000_000);
        for (address, expected) in [
            ("10.0.0.1", Some(("KR", "10.0.0.0/16"))),
            ("10.1.2.3", Some(("DE", "10.1.0.0/16"))),
            ("10.2.0.0", Some(("KR", "10.2.0.0/15"))),
            ("192.0.2.1", Some(("US", "192.0.2.1/32"))),
            ("192.0.2.2", None),
            ("2001:db8:1::", Some(("BR", "2001:db8::/32"))),
            ("2001:db9::", None),
            // Aliases of IPv4.
            ("::ffff:10.1.2.3", Some(("DE", "::ffff:10.1.0.0/112"))),
            ("2002:a01:203::1", Some(("DE", "2002:a01::/32"))),
        ] {
            let expected = expected.map(|(code, network)| (code.to_owned(), network.to_owned()));
            assert_eq!(country(&reader, address), expected, "{address}");
        }
    }

    #[test]
    fn the_reference_reader_reads_cities() {
        let mut writer = Writer::new("Test-City").ipv4_only();
        let record = CityRecord {
            country: "BE",
            subdivisions: &["VLG", "VBR"],
            city: "Leuven",
            geoname_id: Some(2_792_482),
            location: Some((50.8796, -4.7009)),
        };
        writer.city(net("192.0.2.0/24"), &record);
        writer.city(net("198.51.100.0/24"), &record);
        let reader = Reader::from_source(writer.finish().unwrap()).unwrap();
        reader.verify().unwrap();
        let decode = |address: &str| {
            let found = reader.lookup(address.parse().unwrap()).unwrap();
            (found.offset(), found.decode::<geoip2::City<'_>>().unwrap().unwrap())
        };
        let (offset, city) = decode("192.0.2.9");
        assert_eq!(decode("198.51.100.1").0, offset, "equal records are written once");
        assert_eq!(city.country.iso_code, Some("BE"));
        assert_eq!(city.continent.code, Some("EU"));
        assert_eq!(city.city.names.english, Some("Leuven"));
        assert_eq!(city.city.geoname_id, Some(2_792_482));
        assert_eq!(city.location.latitude, Some(50.8796));
        assert_eq!(city.location.longitude, Some(-4.7009));
        let parts: Vec<_> = city.subdivisions.iter().map(|part| part.iso_code).collect();
        assert_eq!(parts, [Some("VLG"), Some("VBR")]);
    }

    #[test]
    fn the_reference_reader_reads_as_numbers() {
        let mut writer = Writer::new("Test-ASN");
        let long = "x".repeat(300);
        writer.asn(net("192.0.2.0/24"), 64_500, "Example");
        writer.asn(net("2001:db8::/48"), 4_200_000_000, &long);
        let reader = Reader::from_source(writer.finish().unwrap()).unwrap();
        reader.verify().unwrap();
        for (address, asn, organization) in
            [("192.0.2.77", 64_500, "Example"), ("2001:db8::5", 4_200_000_000, long.as_str())]
        {
            let found = reader.lookup(address.parse().unwrap()).unwrap();
            let record: geoip2::Asn<'_> = found.decode().unwrap().unwrap();
            assert_eq!(record.autonomous_system_number, Some(asn));
            assert_eq!(record.autonomous_system_organization, Some(organization));
        }
    }

    #[test]
    fn sizes_of_every_class_are_written() {
        for size in [0, 28, 29, 284, 285, 65_820, 65_821, 70_000] {
            let mut writer = Writer::new("Test");
            writer.insert(
                net("192.0.2.0/24"),
                &Value::map([("text", Value::Text("x".repeat(size)))]),
            );
            let reader = Reader::from_source(writer.finish().unwrap()).unwrap();
            let found = reader.lookup("192.0.2.0".parse().unwrap()).unwrap();
            let record: HashMap<String, String> = found.decode().unwrap().unwrap();
            assert_eq!(record["text"].len(), size);
        }
    }

    #[test]
    fn networks_of_any_length_fit() {
        let mut writer = Writer::new("Test-Country");
        writer.country(net("::/0"), "US");
        writer.country(net("2001:db8::1"), "KR");
        let reader = Reader::from_source(writer.finish().unwrap()).unwrap();
        reader.verify().unwrap();
        assert_eq!(country(&reader, "2001:db8::1").unwrap().0, "KR");
        assert_eq!(country(&reader, "2001:db8::2").unwrap().0, "US");
        let empty = Reader::from_source(Writer::new("Test-Country").finish().unwrap()).unwrap();
        assert_eq!(country(&empty, "192.0.2.1"), None);

        let mut v4 = Writer::new("Test-Country").ipv4_only();
        v4.country(net("2001:db8::/32"), "KR");
        assert_eq!(v4.finish(), Err(WriteError::Family(net("2001:db8::/32"))));
    }
}
