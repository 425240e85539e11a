//! Geography: where networks are, for programs that choose by place.
//!
//! Decides what is known of an address: an operator's own networks first, then MMDB databases ([`Database`]) in the order
//! given, else the registries' allocations by region ([`registry`]). [`World`] puts these together as maps from all
//! addresses. Reading files is left to `io`; which datacenter suits a place is left to whoever asks.

mod coordinates;
mod country;
mod database;
pub mod mmdb_writer;
mod place;
mod record;
pub mod registry;
mod tree;
mod world;

pub use coordinates::{Coordinates, CoordinatesError, UnitVector};
pub use country::Country;
pub use database::{Database, GeoError, Kind};
pub use place::{
    City, CityId, CodeError, Continent, CountryCode, Place, PlaceId, Places, Subdivision,
};
pub use registry::Registry;
pub use world::{Description, World, asns, places};
