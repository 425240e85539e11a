//! What is known of every address, from all sources: the operator's own networks, databases, the address registries.

use std::fmt;
use std::net::IpAddr;

use super::{Database, Place, PlaceId, Places, Registry, registry};
use crate::prefix::{IpRangeMap, Prefix};

/// The place of every address: of the databases the first that knows the network, else the region of the registry that
/// allocated it. None is left for private, special and unallocated addresses.
pub fn places(databases: &[Database]) -> (IpRangeMap<Option<PlaceId>>, Places) {
    let mut catalog = Places::default();
    let mut map = IpRangeMap::uniform(None);
    for database in databases {
        let shift = catalog.append(database.catalog());
        map = map.overlay(database.places(), |known, more| {
            known.or_else(|| more.and_then(|id| shift.apply(id)))
        });
    }
    catalog.begin(registry::SOURCE);
    let regions: Vec<(Registry, Option<PlaceId>)> = Registry::ALL
        .into_iter()
        .map(|registry| (registry, catalog.add(Place::of_registry(registry))))
        .collect();
    let map = map.overlay(&registry::allocations(), |known, registry| {
        known.or_else(|| regions.iter().find(|region| Some(region.0) == *registry)?.1)
    });
    (map, catalog)
}

/// The AS number of every address: of the databases the first that knows the network.
pub fn asns(databases: &[Database]) -> IpRangeMap<Option<u32>> {
    databases.iter().fold(IpRangeMap::uniform(None), |map, database| {
        map.overlay(database.asns(), |known, more| known.or(*more))
    })
}

/// Networks in order, and for every address which of them holds it: the longest.
fn numbered(
    networks: impl IntoIterator<Item = (Prefix, String)>,
) -> (IpRangeMap<Option<u32>>, Vec<(Prefix, String)>) {
    let mut listed: Vec<(Prefix, String)> = networks.into_iter().collect();
    listed.sort();
    let numbered = listed.iter().zip(0..).map(|((prefix, _), number)| (*prefix, Some(number)));
    (IpRangeMap::from_prefixes(None, numbered), listed)
}

/// All that is known of every address.
#[derive(Clone, Debug)]
pub struct World {
    /// Which of [`World::listed`] holds an address: the operator's own networks, the longest counts.
    pub networks: IpRangeMap<Option<u32>>,
    /// The operator's networks in order, each with the datacenter it is given to.
    pub listed: Vec<(Prefix, String)>,
    /// The same for the addresses of resolvers: which of [`World::listed_resolvers`] holds an address. Before
    /// [`World::networks`].
    pub resolvers: IpRangeMap<Option<u32>>,
    /// The operator's networks of resolvers in order, each with the datacenter it is given to.
    pub listed_resolvers: Vec<(Prefix, String)>,
    /// The place of every address.
    pub places: IpRangeMap<Option<PlaceId>>,
    /// The places that [`World::places`] refers to.
    pub catalog: Places,
    /// The AS number of every address.
    pub asns: IpRangeMap<Option<u32>>,
}

impl World {
    /// From the operator's networks (network and datacenter) and the databases, in the order in which they count.
    pub fn new(
        networks: impl IntoIterator<Item = (Prefix, String)>,
        databases: &[Database],
    ) -> Self {
        let (networks, listed) = numbered(networks);
        let (places, catalog) = places(databases);
        Self {
            networks,
            listed,
            resolvers: IpRangeMap::uniform(None),
            listed_resolvers: Vec::new(),
            places,
            catalog,
            asns: asns(databases),
        }
    }

    /// The same with the operator's networks of resolvers.
    #[must_use]
    pub fn with_resolvers(self, networks: impl IntoIterator<Item = (Prefix, String)>) -> Self {
        let (resolvers, listed_resolvers) = numbered(networks);
        Self { resolvers, listed_resolvers, ..self }
    }

    /// The operator's network that holds an address, and its datacenter.
    pub fn network(&self, address: IpAddr) -> Option<(Prefix, &str)> {
        let number = (*self.networks.get(address))?;
        let (prefix, datacenter) = self.listed.get(number as usize)?;
        Some((*prefix, datacenter))
    }

    /// The operator's network of resolvers that holds an address, and its datacenter.
    pub fn resolver(&self, address: IpAddr) -> Option<(Prefix, &str)> {
        let number = (*self.resolvers.get(address))?;
        let (prefix, datacenter) = self.listed_resolvers.get(number as usize)?;
        Some((*prefix, datacenter))
    }

    /// What is known of one address, and from where.
    pub fn describe(&self, address: IpAddr) -> Description {
        let (place_network, place) = self.places.find(address);
        let (as_network, asn) = self.asns.find(address);
        Description {
            address,
            resolver: None,
            network: self.network(address).map(|(prefix, name)| (prefix, name.to_owned())),
            place: place.map(|id| PlaceDescription {
                network: place_network,
                source: self.catalog.source(id).to_owned(),
                place: self.catalog.get(id),
                words: self.catalog.describe(id),
            }),
            asn: asn.map(|asn| (as_network, asn)),
        }
    }

    /// The same of an address that is a resolver's.
    pub fn describe_resolver(&self, address: IpAddr) -> Description {
        let resolver = self.resolver(address).map(|(prefix, name)| (prefix, name.to_owned()));
        Description { resolver, ..self.describe(address) }
    }
}

/// What is known of one address. Prints as a line per fact.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// The address asked for.
    pub address: IpAddr,
    /// The operator's network of resolvers that holds it, when it is a resolver's, and the datacenter it is given to.
    pub resolver: Option<(Prefix, String)>,
    /// The operator's network that holds it, and the datacenter that network is given to.
    pub network: Option<(Prefix, String)>,
    /// Its place.
    pub place: Option<PlaceDescription>,
    /// Its AS number, and the largest network around it with that number throughout.
    pub asn: Option<(Prefix, u32)>,
}

/// A place, and how it is known.
#[derive(Clone, Debug, PartialEq)]
pub struct PlaceDescription {
    /// The largest network around the address that is in this place throughout.
    pub network: Prefix,
    /// The database that says so, or the address registries.
    pub source: String,
    /// The place.
    pub place: Place,
    /// The place in words.
    pub words: String,
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((network, datacenter)) = &self.resolver {
            writeln!(f, "{network} is given to {datacenter} (resolvers)")?;
        }
        if let Some((network, datacenter)) = &self.network {
            writeln!(f, "{network} is given to {datacenter} (networks)")?;
        }
        match &self.place {
            Some(place) => write!(f, "{} is in {} ({})", place.network, place.words, place.source)?,
            None => write!(f, "the place of {} is not known", self.address)?,
        }
        if let Some((network, asn)) = self.asn {
            write!(f, "\n{network} is AS{asn}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::mmdb_writer::{CityRecord, Writer};
    use super::*;

    fn net(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn database(name: &str, fill: impl FnOnce(&mut Writer)) -> Database {
        let mut writer = Writer::new(name);
        fill(&mut writer);
        Database::from_bytes(writer.finish().unwrap(), name).unwrap()
    }

    fn world() -> World {
        let city = database("City", |writer| {
            let seoul = CityRecord {
                country: "KR",
                subdivisions: &["11"],
                city: "Seoul",
                location: Some((37.57, 126.98)),
                ..CityRecord::default()
            };
            writer.city(net("1.208.0.0/16"), &seoul);
        });
        let country = database("Country", |writer| {
            writer.country(net("1.208.0.0/12"), "KR");
            writer.country(net("2a00::/16"), "DE");
        });
        let asn = database("ASN", |writer| {
            writer.asn(net("1.208.0.0/13"), 64_500, "Example");
            writer.asn(net("2a00::/32"), 64_501, "Example");
        });
        let networks = [
            (net("10.0.0.0/8"), "fra".to_owned()),
            (net("10.1.0.0/16"), "icn".to_owned()),
            (net("1.208.3.0/24"), "iad".to_owned()),
        ];
        World::new(networks, &[city, country, asn])
    }

    #[test]
    fn sources_are_asked_in_order() {
        let world = world();
        for (address, text) in [
            (
                "1.208.5.1",
                "1.208.0.0/16 is in Seoul, KR-11, KR, AS (37.57, 126.98) (City)\n1.208.0.0/13 is AS64500",
            ),
            (
                "1.208.3.1",
                "1.208.3.0/24 is given to iad (networks)\n\
                 1.208.0.0/16 is in Seoul, KR-11, KR, AS (37.57, 126.98) (City)\n1.208.0.0/13 is AS64500",
            ),
            (
                "1.212.0.1",
                "1.212.0.0/14 is in KR, AS (36.8, 127.5) (Country)\n1.208.0.0/13 is AS64500",
            ),
            ("1.224.0.1", "1.224.0.0/11 is in APNIC region (32, 118) (address registries)"),
            ("80.128.0.1", "80.0.0.0/4 is in RIPE NCC region (50, 12) (address registries)"),
            (
                "10.1.2.3",
                "10.1.0.0/16 is given to icn (networks)\nthe place of 10.1.2.3 is not known",
            ),
            (
                "10.2.2.3",
                "10.0.0.0/8 is given to fra (networks)\nthe place of 10.2.2.3 is not known",
            ),
            ("192.0.2.1", "the place of 192.0.2.1 is not known"),
            ("2a00::1", "2a00::/16 is in DE, EU (51, 9.6) (Country)\n2a00::/32 is AS64501"),
            ("2a01::1", "2a01::/16 is in RIPE NCC region (50, 12) (address registries)"),
            ("2001:db8::1", "the place of 2001:db8::1 is not known"),
        ] {
            assert_eq!(world.describe(address.parse().unwrap()).to_string(), text);
        }
    }

    #[test]
    fn an_earlier_database_wins() {
        let make = |name, code: &'static str| {
            database(name, |writer| writer.country(net("192.0.2.0/24"), code))
        };
        let (first, second) = (make("First-Country", "KR"), make("Second-Country", "DE"));
        let source = |databases: &[Database]| {
            let (map, catalog) = places(databases);
            let id = map.get("192.0.2.1".parse().unwrap()).unwrap();
            (catalog.source(id).to_owned(), catalog.get(id).country.unwrap().to_string())
        };
        let (a, b) = (first.clone(), second.clone());
        assert_eq!(source(&[a, b]), ("First-Country".into(), "KR".into()));
        assert_eq!(source(&[second, first]), ("Second-Country".into(), "DE".into()));
    }

    #[test]
    fn without_databases_clients_are_in_their_region() {
        let (map, catalog) = places(&[]);
        assert_eq!(catalog.count(), 5);
        for (address, region) in [
            ("1.208.0.1", Registry::Apnic),
            ("175.192.0.1", Registry::Apnic),
            ("80.128.0.1", Registry::RipeNcc),
            ("12.0.0.1", Registry::Arin),
            ("73.0.0.1", Registry::Arin),
            ("177.0.0.1", Registry::Lacnic),
            ("200.128.0.1", Registry::Lacnic),
            ("41.0.0.1", Registry::Afrinic),
        ] {
            let place = catalog.get(map.get(address.parse().unwrap()).unwrap());
            assert_eq!(place, Place::of_registry(region), "{address}");
        }
        assert_eq!(asns(&[]), IpRangeMap::uniform(None));
    }
}
