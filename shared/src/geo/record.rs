//! What a record of an MMDB file says, in the shapes that the vendors give it.
//!
//! MaxMind, DB-IP and IP2Location nest (`country.iso_code`, `location.latitude`); others are flat (`country_code`,
//! `lat`, `asn` as `"AS64500"`). A field of an unknown shape says nothing; damaged bytes are an error.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::place::Interner;
use super::{City, Continent, Coordinates, CountryCode, Place, PlaceId, Subdivision};

/// The fields that are read; all others are skipped.
#[derive(Deserialize, Debug, Default)]
#[serde(default)]
pub(super) struct Record<'a> {
    #[serde(borrow)]
    continent: Named<'a>,
    #[serde(borrow)]
    continent_code: Scalar<'a>,
    #[serde(borrow)]
    country: Named<'a>,
    #[serde(borrow)]
    country_code: Scalar<'a>,
    #[serde(borrow)]
    registered_country: Named<'a>,
    #[serde(borrow)]
    subdivisions: Parts<'a>,
    #[serde(borrow)]
    city: Named<'a>,
    #[serde(borrow)]
    location: Point<'a>,
    #[serde(borrow, alias = "lat")]
    latitude: Scalar<'a>,
    #[serde(borrow, alias = "lng", alias = "lon")]
    longitude: Scalar<'a>,
    #[serde(borrow, alias = "asn")]
    autonomous_system_number: Scalar<'a>,
}

/// What a record can be used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) country: bool,
    pub(super) city: bool,
    pub(super) asn: bool,
}

impl Record<'_> {
    /// The AS number; 0 is none (RFC 7607).
    pub(super) fn asn(&self) -> Option<u32> {
        match self.autonomous_system_number {
            Scalar::Text(text) => {
                let digits = text.trim_start_matches(['A', 'S', 'a', 's']);
                digits.parse().ok().filter(|asn| *asn != 0)
            }
            _ => self.autonomous_system_number.integer().filter(|asn| *asn != 0),
        }
    }

    fn country(&self) -> Option<CountryCode> {
        [self.country_code.text(), self.country.code, self.registered_country.code]
            .into_iter()
            .flatten()
            .find_map(CountryCode::new)
    }

    fn continent(&self) -> Option<Continent> {
        [self.continent_code.text(), self.continent.code]
            .into_iter()
            .flatten()
            .find_map(Continent::from_code)
    }

    /// The coordinates; an error when they are numbers but not coordinates.
    fn location(&self) -> Result<Option<Coordinates>, String> {
        let pair = |lat: Scalar<'_>, lon: Scalar<'_>| Some((lat.number()?, lon.number()?));
        let found = pair(self.location.latitude, self.location.longitude)
            .or_else(|| pair(self.latitude, self.longitude));
        match found {
            // Vendors write this point, in the Atlantic, for "unknown".
            None | Some((0.0, 0.0)) => Ok(None),
            Some((lat, lon)) => {
                Coordinates::new(lat, lon).map(Some).map_err(|error| error.to_string())
            }
        }
    }

    /// The place, interned, and which fields it had; none when it says nothing of a place. `Err` says what is wrong.
    pub(super) fn place(
        &self,
        interner: &mut Interner,
        fields: &mut Fields,
    ) -> Result<Option<PlaceId>, String> {
        let too_many = || "there are more places than ids".to_owned();
        let country = self.country();
        let mut place = country.map(Place::of_country).unwrap_or_default();
        if let Some(continent) = self.continent() {
            place.continent = Some(continent);
        }
        if let Some(country) = country {
            for (to, part) in place.subdivisions.iter_mut().zip(self.subdivisions.0) {
                *to = part.and_then(|part| Subdivision::new(country, part));
            }
        }
        let location = self.location()?;
        if location.is_some() {
            place.location = location;
        }
        let name = self.city.name.filter(|name| !matches!(*name, "" | "-"));
        if name.is_some() || self.city.geoname_id.is_some() {
            let city = City { geoname_id: self.city.geoname_id, name: name.map(Into::into) };
            place.city = Some(interner.city(city).ok_or_else(too_many)?);
        }
        fields.country |= country.is_some() || place.continent.is_some();
        fields.city |= location.is_some() || place.city.is_some();
        if place == Place::default() {
            return Ok(None);
        }
        interner.place(place).map(Some).ok_or_else(too_many)
    }
}

/// A single value, or something that is not one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Scalar<'a> {
    Text(&'a str),
    Integer(u64),
    Number(f64),
    #[default]
    Other,
}

impl<'a> Scalar<'a> {
    const fn text(self) -> Option<&'a str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    fn integer(self) -> Option<u32> {
        match self {
            Self::Integer(value) => u32::try_from(value).ok(),
            Self::Text(text) => text.parse().ok(),
            _ => None,
        }
    }

    fn number(self) -> Option<f64> {
        match self {
            Self::Number(value) => Some(value),
            Self::Integer(value) => Some(value as f64),
            Self::Text(text) => text.parse().ok(),
            Self::Other => None,
        }
    }
}

/// The methods of a visitor for values that are no map, list or text: all of them say nothing.
macro_rules! ignore_scalars {
    () => {
        fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
        fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
        fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
        fn visit_u128<E>(self, _: u128) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
        fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
        fn visit_bytes<E>(self, _: &[u8]) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
    };
}

macro_rules! ignore_text {
    () => {
        fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
    };
}

macro_rules! ignore_map {
    () => {
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok(Self::Value::default())
        }
    };
}

macro_rules! ignore_list {
    () => {
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok(Self::Value::default())
        }
    };
}

impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Scalar<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Scalar::Text(text))
            }
            ignore_text!();
            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(Scalar::Other)
            }
            fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
                Ok(u64::try_from(value).map_or(Scalar::Number(value as f64), Scalar::Integer))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
                Ok(Scalar::Integer(value))
            }
            fn visit_u128<E>(self, value: u128) -> Result<Self::Value, E> {
                Ok(u64::try_from(value).map_or(Scalar::Other, Scalar::Integer))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
                Ok(Scalar::Number(value))
            }
            fn visit_bytes<E>(self, _: &[u8]) -> Result<Self::Value, E> {
                Ok(Scalar::Other)
            }
            ignore_map!();
            ignore_list!();
        }
        deserializer.deserialize_any(Any)
    }
}

/// A country, continent, city or part of a country: a map with a code and names, or only a text.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Named<'a> {
    code: Option<&'a str>,
    geoname_id: Option<u32>,
    name: Option<&'a str>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Named<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Named<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a code or a map with one")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Named { code: Some(text), name: Some(text), geoname_id: None })
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut named = Named::default();
                while let Some(key) = map.next_key::<&str>()? {
                    match key {
                        "iso_code" | "code" => named.code = map.next_value::<Scalar<'_>>()?.text(),
                        "geoname_id" => {
                            named.geoname_id =
                                map.next_value::<Scalar<'_>>()?.integer().filter(|id| *id != 0);
                        }
                        "names" => named.name = map.next_value::<Names<'_>>()?.0,
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(named)
            }
            ignore_text!();
            ignore_list!();
            ignore_scalars!();
        }
        deserializer.deserialize_any(Any)
    }
}

/// A name in several languages: the English one, else the first.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Names<'a>(Option<&'a str>);

impl<'de: 'a, 'a> Deserialize<'de> for Names<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Names<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("names by language")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut name = None;
                while let Some(language) = map.next_key::<&str>()? {
                    if language == "en" || name.is_none() {
                        name = map.next_value::<Scalar<'_>>()?.text().or(name);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(Names(name))
            }
            ignore_text!();
            ignore_list!();
            ignore_scalars!();
        }
        deserializer.deserialize_any(Any)
    }
}

/// The codes of the parts of a country, the largest first; further ones are dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Parts<'a>([Option<&'a str>; 2]);

impl<'de: 'a, 'a> Deserialize<'de> for Parts<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Parts<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of subdivisions")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut parts = Parts::default();
                for slot in &mut parts.0 {
                    match list.next_element::<Named<'_>>()? {
                        Some(named) => *slot = named.code,
                        None => return Ok(parts),
                    }
                }
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(parts)
            }
            ignore_text!();
            ignore_map!();
            ignore_scalars!();
        }
        deserializer.deserialize_any(Any)
    }
}

/// A map with coordinates.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Point<'a> {
    latitude: Scalar<'a>,
    longitude: Scalar<'a>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Point<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Point<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("coordinates")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut point = Point::default();
                while let Some(key) = map.next_key::<&str>()? {
                    match key {
                        "latitude" | "lat" => point.latitude = map.next_value()?,
                        "longitude" | "lng" | "lon" => point.longitude = map.next_value()?,
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(point)
            }
            ignore_text!();
            ignore_list!();
            ignore_scalars!();
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geo::Places;

    fn read(json: &str) -> (String, Fields, Option<u32>) {
        let record: Record<'_> = serde_json::from_str(json).unwrap();
        let mut interner = Interner::new("test");
        let mut fields = Fields::default();
        let id = record.place(&mut interner, &mut fields).unwrap();
        let places: Places = interner.finish();
        (id.map_or_else(String::new, |id| places.describe(id)), fields, record.asn())
    }

    #[test]
    fn shapes_of_several_vendors_are_read() {
        let city = Fields { country: true, city: true, asn: false };
        let country = Fields { city: false, ..city };
        for (json, words, fields, asn) in [
            // Nested, with everything.
            (
                r#"{"city": {"geoname_id": 2792413, "names": {"de": "Löwen", "en": "Leuven"}},
                    "continent": {"code": "EU", "geoname_id": 6255148, "names": {"en": "Europe"}},
                    "country": {"iso_code": "BE", "is_in_european_union": true},
                    "location": {"latitude": 50.8796, "longitude": 4.7009, "accuracy_radius": 20},
                    "postal": {"code": "3000"}, "registered_country": {"iso_code": "NL"},
                    "subdivisions": [{"iso_code": "VLG"}, {"iso_code": "VBR"}, {"iso_code": "X"}]}"#,
                "Leuven, BE-VLG, BE-VBR, BE, EU (50.8796, 4.7009)",
                city,
                None,
            ),
            // Country of registration only; centroid and continent from our table.
            (
                r#"{"registered_country": {"iso_code": "KR"}}"#,
                "KR, AS (36.8, 127.5)",
                country,
                None,
            ),
            // Subdivisions without codes, a city without English.
            (
                r#"{"country": {"iso_code": "DE"}, "subdivisions": [{"names": {"en": "Hesse"}}],
                    "city": {"names": {"fr": "Francfort"}}}"#,
                "Francfort, DE, EU (51, 9.6)",
                city,
                None,
            ),
            // Flat, numbers as texts.
            (
                r#"{"city": "Ashburn", "region": "Virginia", "country": "US", "continent": "NA",
                    "lat": "39.0437", "lng": "-77.4875", "timezone": "America/New_York"}"#,
                "Ashburn, US, NA (39.0437, -77.4875)",
                city,
                None,
            ),
            // Flat, names and codes apart, with an AS.
            (
                r#"{"continent": "South America", "continent_code": "SA", "country": "Brazil", "country_code": "BR",
                    "asn": "AS64500", "as_name": "Example"}"#,
                "BR, SA (-18.5, -45.5)",
                country,
                Some(64500),
            ),
            (r#"{"country_code": "jp"}"#, "JP, AS (35.6, 137.5)", country, None),
            // AS only.
            (
                r#"{"autonomous_system_number": 4766, "autonomous_system_organization": "x"}"#,
                "",
                Fields::default(),
                Some(4766),
            ),
            (r#"{"autonomous_system_number": 0}"#, "", Fields::default(), None),
            (r#"{"asn": "AS4294967296"}"#, "", Fields::default(), None),
            // Unknown by other names.
            (
                r#"{"country": {"iso_code": "-"}, "city": "-", "location": {"latitude": 0.0, "longitude": 0.0}}"#,
                "",
                Fields::default(),
                None,
            ),
            // A code that no country has keeps its name but has no point.
            (r#"{"country": {"iso_code": "ZZ"}}"#, "ZZ", country, None),
            // Odd shapes say nothing.
            (
                r#"{"country": 7, "continent": [], "city": true, "subdivisions": {"a": 1}, "location": "x",
                    "latitude": null_is_not_mmdb, "asn": {}}"#,
                "",
                Fields::default(),
                None,
            ),
        ] {
            let json = json.replace("null_is_not_mmdb", "[1]");
            assert_eq!(read(&json), (words.to_owned(), fields, asn), "{json}");
        }
    }

    #[test]
    fn coordinates_out_of_range_are_an_error() {
        let record: Record<'_> =
            serde_json::from_str(r#"{"location": {"latitude": 91.5, "longitude": 0.5}}"#).unwrap();
        let error = record.place(&mut Interner::new("test"), &mut Fields::default()).unwrap_err();
        assert_eq!(error, "latitude 91.5 is not between -90 and 90");
    }
}
