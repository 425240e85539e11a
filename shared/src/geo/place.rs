//! What is known of where a network is, and the codes in which it is said.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Coordinates, Country, Registry};

/// A text that is not a code of the kind asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// Not two letters.
    #[error("`{0}` is not a country: write its ISO 3166-1 code, two letters, such as \"KR\"")]
    Country(String),
    /// Not one of the seven.
    #[error("`{0}` is not a continent: write one of AF, AN, AS, EU, NA, OC, SA")]
    Continent(String),
    /// Not a country and a part of it.
    #[error(
        "`{0}` is not a subdivision: write its ISO 3166-2 code with the country, such as \"BE-VLG\""
    )]
    Subdivision(String),
}

macro_rules! code_as_text {
    ($type:ty) => {
        impl TryFrom<String> for $type {
            type Error = CodeError;
            fn try_from(text: String) -> Result<Self, CodeError> {
                text.parse()
            }
        }
        impl From<$type> for String {
            fn from(code: $type) -> Self {
                code.to_string()
            }
        }
    };
}

/// A country by its ISO 3166-1 alpha-2 code, upper case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CountryCode([u8; 2]);

impl CountryCode {
    /// From two ASCII letters in either case.
    pub const fn new(text: &str) -> Option<Self> {
        match *text.as_bytes() {
            [a, b] if a.is_ascii_alphabetic() && b.is_ascii_alphabetic() => {
                Some(Self([a.to_ascii_uppercase(), b.to_ascii_uppercase()]))
            }
            _ => None,
        }
    }

    /// The two letters.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl FromStr for CountryCode {
    type Err = CodeError;
    fn from_str(text: &str) -> Result<Self, CodeError> {
        Self::new(text).ok_or_else(|| CodeError::Country(text.to_owned()))
    }
}

impl fmt::Display for CountryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for CountryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

code_as_text!(CountryCode);

/// A continent, by the two letters that databases use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Continent {
    /// AF
    Africa,
    /// AN
    Antarctica,
    /// AS
    Asia,
    /// EU
    Europe,
    /// NA: with Central America and the Caribbean.
    NorthAmerica,
    /// OC
    Oceania,
    /// SA
    SouthAmerica,
}

impl Continent {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Africa,
        Self::Antarctica,
        Self::Asia,
        Self::Europe,
        Self::NorthAmerica,
        Self::Oceania,
        Self::SouthAmerica,
    ];

    /// The two letters.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Africa => "AF",
            Self::Antarctica => "AN",
            Self::Asia => "AS",
            Self::Europe => "EU",
            Self::NorthAmerica => "NA",
            Self::Oceania => "OC",
            Self::SouthAmerica => "SA",
        }
    }

    /// From the two letters in either case.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|continent| continent.code().eq_ignore_ascii_case(code))
    }
}

impl FromStr for Continent {
    type Err = CodeError;
    fn from_str(text: &str) -> Result<Self, CodeError> {
        Self::from_code(text).ok_or_else(|| CodeError::Continent(text.to_owned()))
    }
}

impl fmt::Display for Continent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.code())
    }
}

code_as_text!(Continent);

/// A part of a country by its ISO 3166-2 code, always with the country: `BE-VLG`. Databases say only `VLG`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subdivision {
    country: CountryCode,
    /// One to three letters or digits, upper case; padded with zeros.
    part: [u8; 3],
}

impl Subdivision {
    /// From the country and one to three ASCII letters or digits.
    pub fn new(country: CountryCode, part: &str) -> Option<Self> {
        let bytes = part.as_bytes();
        let valid = (1..=3).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_alphanumeric);
        valid.then(|| {
            let mut part = [0; 3];
            for (to, from) in part.iter_mut().zip(bytes) {
                *to = from.to_ascii_uppercase();
            }
            Self { country, part }
        })
    }

    /// The country it is part of.
    pub const fn country(self) -> CountryCode {
        self.country
    }
}

impl FromStr for Subdivision {
    type Err = CodeError;
    fn from_str(text: &str) -> Result<Self, CodeError> {
        text.split_once('-')
            .and_then(|(country, part)| Self::new(CountryCode::new(country)?, part))
            .ok_or_else(|| CodeError::Subdivision(text.to_owned()))
    }
}

impl fmt::Display for Subdivision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = str::from_utf8(&self.part).unwrap_or_default().trim_end_matches('\0');
        write!(f, "{}-{part}", self.country)
    }
}

impl fmt::Debug for Subdivision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

code_as_text!(Subdivision);

/// A place, or as much as is known of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Place {
    /// Country; where a database knows only the country of registration, that one.
    pub country: Option<CountryCode>,
    /// Continent; from the country where a database does not say.
    pub continent: Option<Continent>,
    /// Parts of the country, the largest first.
    pub subdivisions: [Option<Subdivision>; 2],
    /// City, by its number in the [`Places`] that hold this place.
    pub city: Option<CityId>,
    /// Where it is: a database's coordinates, else the country's point, else the region's.
    pub location: Option<Coordinates>,
    /// Region of the registry that allocated the network; only where no database knows the network.
    pub region: Option<Registry>,
}

impl Place {
    /// What is left to know when all that is known is the country.
    pub fn of_country(code: CountryCode) -> Self {
        let country = Country::find(code);
        Self {
            country: Some(code),
            continent: country.map(|country| country.continent),
            location: country.map(|country| country.center),
            ..Self::default()
        }
    }

    /// What is left to know when all that is known is the registry.
    pub fn of_registry(registry: Registry) -> Self {
        Self { region: Some(registry), location: Some(registry.center()), ..Self::default() }
    }
}

/// A city: databases number them as GeoNames does, and name them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct City {
    /// Number in GeoNames.
    pub geoname_id: Option<u32>,
    /// Name, English where there is one.
    pub name: Option<Box<str>>,
}

/// Which of [`Places`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlaceId(NonZeroU32);

/// Which of the cities of [`Places`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CityId(NonZeroU32);

/// Ids are positions plus one, so that an optional id takes no more room than an id.
fn id(count: usize) -> Option<NonZeroU32> {
    u32::try_from(count).ok().and_then(|count| NonZeroU32::new(count.checked_add(1)?))
}

const fn position(id: NonZeroU32) -> usize {
    id.get() as usize - 1
}

fn moved(id: NonZeroU32, by: usize) -> Option<NonZeroU32> {
    u32::try_from(by).ok().and_then(|by| id.checked_add(by))
}

/// All places that a map refers to, each once, so that millions of networks stay small.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    places: Vec<Place>,
    cities: Vec<City>,
    /// Where the places of each source begin, and the source's name; ascending.
    sources: Vec<(usize, String)>,
}

impl Places {
    /// The place with this id; unknown ids know nothing.
    pub fn get(&self, id: PlaceId) -> Place {
        self.places.get(position(id.0)).copied().unwrap_or_default()
    }

    /// The city with this id.
    pub fn city(&self, id: CityId) -> Option<&City> {
        self.cities.get(position(id.0))
    }

    /// How many places there are. Ids run from the first to the last in the order of [`Places::iter`].
    pub const fn count(&self) -> usize {
        self.places.len()
    }

    /// Every place with its id.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (PlaceId, Place)> {
        self.places.iter().enumerate().map(|(at, place)| {
            // An id was made for each place when it was added.
            (PlaceId(id(at).unwrap_or(NonZeroU32::MAX)), *place)
        })
    }

    /// A number from 0 for this id, to index a table made from [`Places::iter`].
    pub const fn index(id: PlaceId) -> usize {
        position(id.0)
    }

    /// The name of the source that a place comes from: a database, or the registries.
    pub fn source(&self, id: PlaceId) -> &str {
        let after = self.sources.partition_point(|(first, _)| *first <= position(id.0));
        after.checked_sub(1).and_then(|at| self.sources.get(at)).map_or("", |(_, name)| name)
    }

    /// A place in words: city, subdivisions, country, continent, coordinates.
    pub fn describe(&self, id: PlaceId) -> String {
        let place = self.get(id);
        let city = place.city.and_then(|city| self.city(city)?.name.as_deref().map(str::to_owned));
        let mut words: Vec<String> = city.into_iter().collect();
        words.extend(place.subdivisions.iter().flatten().map(Subdivision::to_string));
        words.extend(place.country.map(|country| country.to_string()));
        words.extend(place.continent.map(|continent| continent.to_string()));
        words.extend(place.region.map(|region| format!("{region} region")));
        let mut text = words.join(", ");
        if let Some(location) = place.location {
            text.push_str(&format!(" ({location})"));
        }
        text
    }

    /// Starts the places of another source.
    pub(super) fn begin(&mut self, source: &str) {
        self.sources.push((self.places.len(), source.to_owned()));
    }

    /// Adds a place; none when there are more than ids.
    pub(super) fn add(&mut self, place: Place) -> Option<PlaceId> {
        let id = id(self.places.len())?;
        self.places.push(place);
        Some(PlaceId(id))
    }

    /// Adds all places of another list, and returns what to add to its ids.
    pub(super) fn append(&mut self, other: &Self) -> Shift {
        let (places, cities) = (self.places.len(), self.cities.len());
        self.sources
            .extend(other.sources.iter().map(|(first, name)| (first + places, name.clone())));
        self.cities.extend_from_slice(&other.cities);
        self.places.extend(other.places.iter().map(|place| Place {
            city: place.city.and_then(|city| moved(city.0, cities)).map(CityId),
            ..*place
        }));
        Shift(places)
    }
}

/// By how much the ids of one list move when it is appended to another.
#[derive(Clone, Copy)]
pub(super) struct Shift(usize);

impl Shift {
    pub(super) fn apply(self, id: PlaceId) -> Option<PlaceId> {
        moved(id.0, self.0).map(PlaceId)
    }
}

/// Gives equal places one id while a database is read.
#[derive(Debug, Default)]
pub(super) struct Interner {
    list: Places,
    places: HashMap<Place, PlaceId>,
    cities: HashMap<City, CityId>,
}

impl Interner {
    pub(super) fn new(source: &str) -> Self {
        let mut interner = Self::default();
        interner.list.begin(source);
        interner
    }

    /// The id of a place; none when there are more than ids.
    pub(super) fn place(&mut self, place: Place) -> Option<PlaceId> {
        if let Some(id) = self.places.get(&place) {
            return Some(*id);
        }
        let id = self.list.add(place)?;
        self.places.insert(place, id);
        Some(id)
    }

    /// The id of a city; none when there are more than ids.
    pub(super) fn city(&mut self, city: City) -> Option<CityId> {
        if let Some(id) = self.cities.get(&city) {
            return Some(*id);
        }
        let id = CityId(id(self.list.cities.len())?);
        self.list.cities.push(city.clone());
        self.cities.insert(city, id);
        Some(id)
    }

    pub(super) const fn count(&self) -> usize {
        self.list.count()
    }

    pub(super) fn finish(mut self) -> Places {
        self.list.places.shrink_to_fit();
        self.list.cities.shrink_to_fit();
        self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read_in_either_case_and_written_in_upper() {
        assert_eq!("kr".parse::<CountryCode>().unwrap().to_string(), "KR");
        assert_eq!("eu".parse::<Continent>().unwrap(), Continent::Europe);
        for text in ["BE-VLG", "be-vlg", "US-CA", "KR-11", "AT-9"] {
            assert_eq!(text.parse::<Subdivision>().unwrap().to_string(), text.to_uppercase());
        }
        for text in ["", "K", "KOR", "K1", "Ü", "-"] {
            assert_eq!(text.parse::<CountryCode>(), Err(CodeError::Country(text.into())));
        }
        for text in ["", "XX", "Europe"] {
            assert_eq!(text.parse::<Continent>(), Err(CodeError::Continent(text.into())));
        }
        for text in ["", "BE", "BE-", "BE-VLGX", "VLG", "B-VLG", "BE-V G", "BE-é"] {
            assert_eq!(text.parse::<Subdivision>(), Err(CodeError::Subdivision(text.into())));
        }
    }

    #[test]
    fn codes_are_configuration() {
        #[derive(Deserialize)]
        struct Rule {
            country: Vec<CountryCode>,
            continent: Continent,
            subdivision: Subdivision,
        }
        let rule: Rule = toml::from_str(
            "country = [\"KR\", \"jp\"]\ncontinent = \"AS\"\nsubdivision = \"BE-VLG\"",
        )
        .unwrap();
        assert_eq!(format!("{:?}", rule.country), "[KR, JP]");
        assert_eq!(rule.continent, Continent::Asia);
        assert_eq!(rule.subdivision.country().as_str(), "BE");
    }

    #[test]
    fn equal_places_have_one_id_and_lists_append() {
        let seoul = |interner: &mut Interner| {
            let city =
                interner.city(City { geoname_id: Some(1_835_848), name: Some("Seoul".into()) });
            let mut place = Place::of_country("KR".parse().unwrap());
            place.city = city;
            place.subdivisions[0] = Some("KR-11".parse().unwrap());
            interner.place(place).unwrap()
        };
        let mut first = Interner::new("first");
        let germany = first.place(Place::of_country("DE".parse().unwrap())).unwrap();
        let mut second = Interner::new("second");
        let id = seoul(&mut second);
        assert_eq!(seoul(&mut second), id);
        assert_eq!(second.count(), 1);

        let mut both = Places::default();
        assert_eq!(both.append(&first.finish()).apply(germany), Some(germany));
        let moved = both.append(&second.finish()).apply(id).unwrap();
        assert_eq!(both.count(), 2);
        assert_eq!((both.source(germany), both.source(moved)), ("first", "second"));
        assert_eq!(both.describe(moved), "Seoul, KR-11, KR, AS (36.8, 127.5)");
        assert_eq!(both.describe(germany), "DE, EU (51, 9.6)");
        let ids: Vec<_> = both.iter().map(|(id, _)| (id, Places::index(id))).collect();
        assert_eq!(ids, [(germany, 0), (moved, 1)]);
    }

    #[test]
    fn a_place_is_small() {
        assert!(size_of::<Place>() <= 40, "{}", size_of::<Place>());
        assert_eq!(size_of::<Option<PlaceId>>(), 4);
    }
}
