//! Who is served on a route, by network and by country.
//!
//! What the lists mean is said at [`AccessSpec`]. The address is the true client's: of a request that comes through another
//! node of this CDN it was checked there, and is not checked again.

use std::net::IpAddr;

use shared::config::AccessSpec;
use shared::geo::{CountryCode, Database, places};
use shared::prefix::{IpRangeMap, Prefix};

use crate::semantics::Reason;

/// The country of every address, as far as databases know it. Without databases none is known: the built-in allocations of
/// the address registries tell the region only.
#[derive(Clone, Debug, PartialEq)]
pub struct Countries(IpRangeMap<Option<CountryCode>>);

impl Countries {
    /// From databases in the order in which they count.
    pub fn new(databases: &[Database]) -> Self {
        let (map, catalog) = places(databases);
        Self(map.map(|id| id.and_then(|id| catalog.get(id).country)))
    }

    /// The country of an address.
    pub fn find(&self, address: IpAddr) -> Option<CountryCode> {
        *self.0.get(address)
    }
}

/// `access` of a route.
#[derive(Clone, Debug, PartialEq)]
pub struct Access {
    allow: IpRangeMap<bool>,
    deny: IpRangeMap<bool>,
    allow_countries: Vec<CountryCode>,
    deny_countries: Vec<CountryCode>,
    /// There are allowing rules: who none of them names is not served.
    closed: bool,
}

impl Access {
    /// Of a route's `access`; none where it has no rules.
    ///
    /// # Errors
    /// What is no network or country.
    pub fn new(spec: &AccessSpec) -> Result<Option<Self>, String> {
        if *spec == AccessSpec::default() {
            return Ok(None);
        }
        let networks = |listed: &[String]| -> Result<IpRangeMap<bool>, String> {
            let parse = |text: &String| text.parse::<Prefix>().map_err(|error| error.to_string());
            let listed = listed.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
            Ok(IpRangeMap::from_prefixes(false, listed.into_iter().map(|prefix| (prefix, true))))
        };
        let countries = |listed: &[String]| -> Result<Vec<CountryCode>, String> {
            let parse =
                |text: &String| text.parse::<CountryCode>().map_err(|error| error.to_string());
            listed.iter().map(parse).collect()
        };
        Ok(Some(Self {
            allow: networks(&spec.allow)?,
            deny: networks(&spec.deny)?,
            allow_countries: countries(&spec.allow_countries)?,
            deny_countries: countries(&spec.deny_countries)?,
            closed: !(spec.allow.is_empty() && spec.allow_countries.is_empty()),
        }))
    }

    /// Whether it takes the databases to decide.
    pub fn needs_countries(&self) -> bool {
        !(self.allow_countries.is_empty() && self.deny_countries.is_empty())
    }

    /// Whether a client is served.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, client: IpAddr, countries: Option<&Countries>) -> Result<(), Reason> {
        let client = client.to_canonical();
        if *self.deny.get(client) {
            return Err(Reason::NetworkDenied);
        }
        let country = || countries.and_then(|countries| countries.find(client));
        if !self.deny_countries.is_empty()
            && country().is_some_and(|code| self.deny_countries.contains(&code))
        {
            return Err(Reason::CountryDenied);
        }
        if !self.closed || *self.allow.get(client) {
            return Ok(());
        }
        if self.allow_countries.is_empty() {
            return Err(Reason::NetworkDenied);
        }
        match country() {
            Some(code) if self.allow_countries.contains(&code) => Ok(()),
            _ => Err(Reason::CountryDenied),
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::geo::mmdb_writer::Writer;

    use super::*;

    fn countries() -> Countries {
        let mut writer = Writer::new("Test-Country");
        for (network, code) in
            [("1.208.0.0/12", "KR"), ("80.128.0.0/11", "DE"), ("2a00::/16", "DE")]
        {
            writer.country(network.parse().unwrap(), code);
        }
        let bytes = writer.finish().unwrap();
        Countries::new(&[Database::from_bytes(bytes, "test").unwrap()])
    }

    fn list(words: &str) -> Vec<String> {
        words.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn deny_wins_and_allow_closes() {
        let countries = countries();
        const OK: Result<(), Reason> = Ok(());
        const NETWORK: Result<(), Reason> = Err(Reason::NetworkDenied);
        const COUNTRY: Result<(), Reason> = Err(Reason::CountryDenied);
        for (allow, deny, allow_countries, deny_countries, client, expected) in [
            ("", "192.0.2.0/24", "", "", "192.0.2.1", NETWORK),
            ("", "192.0.2.0/24", "", "", "192.0.3.1", OK),
            ("", "192.0.2.0/24", "", "", "2001:db8::1", OK),
            ("", "192.0.2.0/24", "", "", "::ffff:192.0.2.1", NETWORK),
            ("10.0.0.0/8", "", "", "", "10.1.2.3", OK),
            ("10.0.0.0/8", "", "", "", "11.1.2.3", NETWORK),
            ("10.0.0.0/8", "", "", "", "::1", NETWORK),
            ("10.0.0.0/8", "10.1.0.0/16", "", "", "10.1.2.3", NETWORK),
            ("10.1.2.3", "10.1.0.0/16", "", "", "10.1.2.3", NETWORK),
            ("2001:db8::/32", "", "", "", "2001:db8::1", OK),
            ("", "", "KR", "", "1.208.0.1", OK),
            ("", "", "KR", "", "80.128.0.1", COUNTRY),
            ("", "", "KR DE", "", "2a00::1", OK),
            // Nobody knows where that is.
            ("", "", "KR", "", "192.0.2.1", COUNTRY),
            ("", "", "", "KR", "192.0.2.1", OK),
            ("", "", "", "KR", "1.208.0.1", COUNTRY),
            ("", "", "", "KR", "::ffff:1.208.0.1", COUNTRY),
            ("192.0.2.0/24", "", "KR", "", "192.0.2.1", OK),
            ("192.0.2.0/24", "", "KR", "", "1.208.0.1", OK),
            ("192.0.2.0/24", "", "KR", "", "80.128.0.1", COUNTRY),
            ("1.208.0.0/16", "", "", "KR", "1.208.0.1", COUNTRY),
            ("", "1.208.0.0/16", "KR", "", "1.208.0.1", NETWORK),
            ("", "1.208.0.0/16", "KR", "", "1.209.0.1", OK),
        ] {
            let spec = AccessSpec {
                allow: list(allow),
                deny: list(deny),
                allow_countries: list(allow_countries),
                deny_countries: list(deny_countries),
            };
            let access = Access::new(&spec).unwrap().unwrap();
            let checked = access.check(client.parse().unwrap(), Some(&countries));
            assert_eq!(checked, expected, "{spec:?} {client}");
            assert_eq!(
                access.needs_countries(),
                !(allow_countries.is_empty() && deny_countries.is_empty())
            );
        }
        assert_eq!(Access::new(&AccessSpec::default()), Ok(None));
    }

    #[test]
    fn without_a_database_an_allow_list_of_countries_serves_nobody() {
        let spec = AccessSpec { allow_countries: list("KR"), ..AccessSpec::default() };
        let access = Access::new(&spec).unwrap().unwrap();
        for countries in [None, Some(&Countries::new(&[]))] {
            let checked = access.check("1.208.0.1".parse().unwrap(), countries);
            assert_eq!(checked, Err(Reason::CountryDenied));
        }
    }
}
