//! Points on the Earth and the distance between them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Mean radius of the Earth in kilometres (IUGG).
const EARTH_RADIUS_KM: f64 = 6371.0088;

/// A point on the Earth, kept to a millionth of a degree (11 cm). Written as `[latitude, longitude]` in degrees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "[f64; 2]", into = "[f64; 2]")]
pub struct Coordinates {
    lat_e6: i32,
    lon_e6: i32,
}

/// Numbers that are not a latitude and a longitude in degrees.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum CoordinatesError {
    /// Beyond a pole, or not a number.
    #[error("latitude {0} is not between -90 and 90")]
    Latitude(f64),
    /// More than once around, or not a number.
    #[error("longitude {0} is not between -180 and 180")]
    Longitude(f64),
}

const fn micro(degrees: f64) -> i32 {
    (degrees * 1e6).round() as i32
}

impl Coordinates {
    /// A point from its latitude (north is positive) and longitude (east is positive) in degrees.
    pub const fn new(lat: f64, lon: f64) -> Result<Self, CoordinatesError> {
        // Written so that NaN fails.
        if !(lat >= -90.0 && lat <= 90.0) {
            return Err(CoordinatesError::Latitude(lat));
        }
        if !(lon >= -180.0 && lon <= 180.0) {
            return Err(CoordinatesError::Longitude(lon));
        }
        Ok(Self { lat_e6: micro(lat), lon_e6: micro(lon) })
    }

    /// A point of a table in the source: checked when it is compiled.
    pub(crate) const fn fixed(lat: f64, lon: f64) -> Self {
        match Self::new(lat, lon) {
            Ok(point) => point,
            Err(_) => panic!("coordinates in a table are out of range"),
        }
    }

    /// Degrees north of the equator.
    pub fn lat(self) -> f64 {
        f64::from(self.lat_e6) / 1e6
    }

    /// Degrees east of the prime meridian.
    pub fn lon(self) -> f64 {
        f64::from(self.lon_e6) / 1e6
    }

    /// The point on a sphere of radius one. Whoever measures many distances keeps these.
    pub fn unit(self) -> UnitVector {
        let (lat_sin, lat_cos) = self.lat().to_radians().sin_cos();
        let (lon_sin, lon_cos) = self.lon().to_radians().sin_cos();
        UnitVector([lat_cos * lon_cos, lat_cos * lon_sin, lat_sin])
    }

    /// Great-circle distance in kilometres.
    pub fn distance_km(self, other: Self) -> f64 {
        self.unit().distance_km(other.unit())
    }
}

impl fmt::Display for Coordinates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.lat(), self.lon())
    }
}

impl TryFrom<[f64; 2]> for Coordinates {
    type Error = CoordinatesError;
    fn try_from([lat, lon]: [f64; 2]) -> Result<Self, CoordinatesError> {
        Self::new(lat, lon)
    }
}

impl From<Coordinates> for [f64; 2] {
    fn from(point: Coordinates) -> Self {
        [point.lat(), point.lon()]
    }
}

/// A point on a sphere of radius one. Distances between these know neither the antimeridian nor the poles, where
/// longitudes jump.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UnitVector(pub [f64; 3]);

impl UnitVector {
    /// Cosine of the angle between two points: the larger, the nearer. The cheapest way to compare distances.
    pub fn dot(self, other: Self) -> f64 {
        self.0.iter().zip(&other.0).map(|(a, b)| a * b).sum()
    }

    /// Great-circle distance in kilometres; exact for near and for opposite points too, where the cosine alone is not.
    pub fn distance_km(self, other: Self) -> f64 {
        let ([a1, a2, a3], [b1, b2, b3]) = (self.0, other.0);
        let cross = [a2 * b3 - a3 * b2, a3 * b1 - a1 * b3, a1 * b2 - a2 * b1];
        let sine = cross.iter().map(|c| c * c).sum::<f64>().sqrt();
        sine.atan2(self.dot(other)) * EARTH_RADIUS_KM
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(lat: f64, lon: f64) -> Coordinates {
        Coordinates::new(lat, lon).unwrap()
    }

    #[test]
    fn degrees_are_checked() {
        assert_eq!(Coordinates::new(90.5, 0.0), Err(CoordinatesError::Latitude(90.5)));
        assert_eq!(Coordinates::new(0.0, -181.0), Err(CoordinatesError::Longitude(-181.0)));
        for nonsense in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(Coordinates::new(nonsense, 0.0).is_err());
            assert!(Coordinates::new(0.0, nonsense).is_err());
        }
        assert_eq!(at(-90.0, 180.0).to_string(), "-90, 180");
        assert_eq!(at(37.4602, 126.4407).to_string(), "37.4602, 126.4407");
    }

    #[test]
    fn degrees_are_configuration() {
        #[derive(Deserialize)]
        struct Datacenter {
            location: Coordinates,
        }
        let parse = |text| toml::from_str::<Datacenter>(text).map(|dc| dc.location);
        assert_eq!(parse("location = [37.46, 126.44]").unwrap(), at(37.46, 126.44));
        assert_eq!(parse("location = [37, -126]").unwrap(), at(37.0, -126.0));
        let error = parse("location = [126.44, 37.46]").unwrap_err().to_string();
        assert!(error.contains("latitude 126.44 is not between -90 and 90"), "{error}");
        assert!(parse("location = [1.0]").is_err());
    }

    #[test]
    fn distances_are_those_of_the_globe() {
        let (seoul, frankfurt, virginia) = (at(37.46, 126.44), at(50.03, 8.57), at(38.95, -77.45));
        for (from, to, km) in [
            (seoul, frankfurt, 8543.705),
            (frankfurt, virginia, 6549.979),
            (seoul, virginia, 11_174.1),
            // One degree of a great circle, across the antimeridian, the equator and a pole.
            (at(0.0, 179.5), at(0.0, -179.5), 111.195),
            (at(0.5, 10.0), at(-0.5, 10.0), 111.195),
            (at(89.5, 0.0), at(89.5, 180.0), 111.195),
            // The poles have every longitude.
            (at(90.0, 0.0), at(90.0, 137.0), 0.0),
            (at(-90.0, -180.0), at(-90.0, 1.0), 0.0),
            // The antimeridian has two names.
            (at(10.0, 180.0), at(10.0, -180.0), 0.0),
            // Half way around: opposite points, and pole to pole.
            (at(40.0, 20.0), at(-40.0, -160.0), 20_015.114),
            (at(90.0, 0.0), at(-90.0, 0.0), 20_015.114),
            (at(0.0, 0.0), at(0.0, 90.0), 10_007.557),
        ] {
            let found = from.distance_km(to);
            assert!((found - km).abs() <= (km * 1e-5).max(1e-3), "{from} to {to}: {found}");
        }
        // Fiji is nearer to Samoa, over the line, than to Brisbane.
        let fiji = at(-17.8, 178.0);
        assert!(fiji.distance_km(at(-13.8, -171.8)) < fiji.distance_km(at(-27.5, 153.0)));
    }

    #[test]
    fn small_distances_are_exact() {
        let found = at(50.0, 8.0).distance_km(at(50.000001, 8.0));
        assert!((found - 0.000_111_195).abs() < 1e-8, "{found}");
    }

    proptest! {
        #[test]
        fn distance_is_a_metric(
            lat in prop::array::uniform3(-90.0f64..=90.0), lon in prop::array::uniform3(-180.0f64..=180.0),
        ) {
            let [a, b, c] = [0, 1, 2].map(|i| at(lat[i], lon[i]));
            let km = |x: Coordinates, y: Coordinates| x.distance_km(y);
            prop_assert!(km(a, a) < 1e-6);
            prop_assert!((km(a, b) - km(b, a)).abs() < 1e-6);
            prop_assert!(km(a, c) <= km(a, b) + km(b, c) + 1e-6);
            prop_assert!(km(a, b) <= 20_015.2);
            let nearer = a.unit().dot(b.unit()) > a.unit().dot(c.unit()) + 1e-9;
            prop_assert!(!nearer || km(a, b) < km(a, c));
        }
    }
}
