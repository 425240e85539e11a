//! The countries: which continent each belongs to, and where to measure distances from when no more is known.

mod table;

use super::{Continent, Coordinates, CountryCode};

/// A country and the point that stands for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Country {
    /// ISO 3166-1 alpha-2 code.
    pub code: CountryCode,
    /// Continent, as GeoNames and databases count it.
    pub continent: Continent,
    /// Near the middle of where its people live, to a tenth of a degree: for a large country that says more of its
    /// networks than the middle of its land.
    pub center: Coordinates,
}

impl Country {
    const fn new(code: &str, continent: Continent, lat: f64, lon: f64) -> Self {
        match CountryCode::new(code) {
            Some(code) => Self { code, continent, center: Coordinates::fixed(lat, lon) },
            None => panic!("a country code in the table is not two letters"),
        }
    }

    /// The country of a code; none for a code that is not assigned.
    pub fn find(code: CountryCode) -> Option<&'static Self> {
        let at = table::COUNTRIES.binary_search_by_key(&code, |country| country.code).ok()?;
        table::COUNTRIES.get(at)
    }

    /// All countries, by code.
    pub fn all() -> &'static [Self] {
        &table::COUNTRIES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(code: &str) -> &'static Country {
        Country::find(code.parse().unwrap()).unwrap()
    }

    #[test]
    fn codes_are_unique_and_ascending() {
        assert!(Country::all().windows(2).all(|pair| pair[0].code < pair[1].code));
        // ISO 3166-1 has 249, and XK is the 250th.
        assert_eq!(Country::all().len(), 250);
        for country in Country::all() {
            assert_eq!(Country::find(country.code), Some(country));
        }
        assert_eq!(Country::find("ZZ".parse().unwrap()), None);
        assert_eq!(Country::find("EU".parse().unwrap()), None);
    }

    #[test]
    fn continents_have_their_countries() {
        let count = |continent| Country::all().iter().filter(|c| c.continent == continent).count();
        assert_eq!(Continent::ALL.map(count).iter().sum::<usize>(), 250);
        for (code, continent) in [
            ("KR", Continent::Asia),
            ("DE", Continent::Europe),
            ("US", Continent::NorthAmerica),
            ("MX", Continent::NorthAmerica),
            ("BR", Continent::SouthAmerica),
            ("NG", Continent::Africa),
            ("AU", Continent::Oceania),
            ("AQ", Continent::Antarctica),
            ("RU", Continent::Europe),
            ("TR", Continent::Asia),
        ] {
            assert_eq!(find(code).continent, continent, "{code}");
        }
    }

    #[test]
    fn centers_are_where_the_people_are() {
        // A large city, and how far in km the country's point may be from it.
        for (code, lat, lon, km) in [
            ("US", 39.0, -90.2, 300.0),  // Saint Louis
            ("RU", 55.8, 49.1, 300.0),   // Kazan
            ("CA", 43.7, -79.4, 400.0),  // Toronto
            ("AU", -33.9, 151.2, 600.0), // Sydney
            ("CN", 30.6, 114.3, 300.0),  // Wuhan
            ("BR", -19.9, -43.9, 400.0), // Belo Horizonte
            ("KR", 36.35, 127.4, 100.0), // Daejeon
            ("DE", 51.3, 9.5, 100.0),    // Kassel
            ("NZ", -37.8, 175.3, 300.0), // Hamilton
            ("CL", -33.4, -70.7, 150.0), // Santiago
            ("EG", 30.0, 31.2, 150.0),   // Cairo
            ("FJ", -18.1, 178.4, 100.0), // Suva
            ("KI", 1.3, 173.0, 100.0),   // Tarawa
            ("GL", 64.2, -51.7, 150.0),  // Nuuk
            ("SG", 1.35, 103.8, 50.0),   // Singapore
        ] {
            let found = find(code).center.distance_km(Coordinates::new(lat, lon).unwrap());
            assert!(found < km, "{code}: {found} km");
        }
        // Each is nearer to the middle of its own continent than to that of the other side of the world.
        let (asia, america) = (Coordinates::fixed(35.0, 95.0), Coordinates::fixed(40.0, -100.0));
        for country in Country::all() {
            let (to_asia, to_america) =
                (country.center.distance_km(asia), country.center.distance_km(america));
            match country.continent {
                Continent::Asia => assert!(to_asia < to_america, "{}", country.code),
                Continent::NorthAmerica => assert!(to_america < to_asia, "{}", country.code),
                _ => {}
            }
        }
    }
}
