//! What there is to steer to: datacenters, their edges, and the policies that choose among them.
//!
//! Plain values, made from the configuration at load. Ids are positions in these lists, so serving never compares
//! strings.

use std::net::IpAddr;
use std::time::Duration;

pub use shared::config::{Order, Pick, RuleBy};
use shared::geo::{Continent, Coordinates, CountryCode, Subdivision};
use shared::prefix::Prefix;
use xxhash_rust::xxh3::xxh3_64;

pub use crate::zone::PolicyId;

/// Position of a datacenter in [`World::datacenters`].
pub type DatacenterId = u16;
/// Position of an edge in [`World::edges`].
pub type EdgeId = u16;
/// Position of a check in [`World::checks`].
pub type CheckId = u16;

/// Everything that clients can be steered to.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// In the order of their names.
    pub datacenters: Vec<Datacenter>,
    /// Those that DNS answers with.
    pub edges: Vec<Edge>,
    /// In the order of their names.
    pub policies: Vec<Policy>,
    /// Names of checks.
    pub checks: Vec<String>,
}

/// A datacenter.
#[derive(Clone, Debug)]
pub struct Datacenter {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub location: Coordinates,
    /// How much nearer it counts than it is, in percent: see [`Datacenter::stretch`].
    pub bias: i8,
    /// Its share where a policy's order is `weighted`.
    pub weight: u32,
    /// What it can send, in bits per second.
    pub capacity: Option<u64>,
}

impl Datacenter {
    /// What its distances are multiplied by. A bias of 50 halves them and one of -50 doubles them, so that one undoes the
    /// other; 99 makes a hundredth of them, which is as far as it goes.
    pub fn stretch(&self) -> f64 {
        let share = f64::from(100 - self.bias.unsigned_abs().min(99)) / 100.0;
        if self.bias < 0 { share.recip() } else { share }
    }
}

/// An edge that DNS answers with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub datacenter: DatacenterId,
    /// What is answered.
    pub addresses: Vec<IpAddr>,
    /// Its share where a policy's pick is `weighted`.
    pub weight: u32,
}

/// A steering policy.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// The datacenters it chooses from, as listed.
    pub datacenters: Vec<DatacenterId>,
    /// How they are ordered for a client.
    pub order: Order,
    /// Exceptions, the first match wins.
    pub rules: Vec<Rule>,
    /// Edges in one answer, 1 to [`MAX_ANSWERS`].
    pub answers: usize,
    /// Which of a datacenter's edges.
    pub pick: Pick,
    /// What its edges must pass; none: they count as up.
    pub check: Option<CheckId>,
    /// Share of a datacenter's edges that must be up.
    pub min_up: f64,
    /// TTL while health may change at any moment, in seconds.
    pub ttl_min: u32,
    /// TTL at most, in seconds.
    pub ttl_max: u32,
    /// What is answered when no datacenter is up.
    pub all_down: AllDown,
    /// Client subnets.
    pub ecs: Ecs,
    /// Datacenters that take this share of client networks at most, 0 to 1.
    pub max_share: Vec<(DatacenterId, f64)>,
    /// `hash-client`, `hash-name`: an edge above this many times the mean load gives keys up.
    pub bounded_load: f64,
    /// The time in which a datacenter that returns gets its clients back; zero: at once.
    pub ramp: Duration,
    /// When a datacenter sheds clients; none: never.
    pub shed: Option<Shed>,
}

impl Policy {
    /// Whether a datacenter may take a part of its clients only. Scopes must then be as fine as the parts at all times.
    pub fn is_partial(&self) -> bool {
        !self.ramp.is_zero() || self.shed.is_some() || !self.max_share.is_empty()
    }
}

/// When a datacenter has too much load: as shares of what it can take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shed {
    /// Above this it sheds its farthest client networks.
    pub above: f64,
    /// Below this it takes them back.
    pub resume: f64,
}

/// Edges in one answer at most.
pub const MAX_ANSWERS: usize = 16;

/// What is answered when no datacenter is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllDown {
    /// What was answered when one last was; before that, as if all were.
    LastGood,
    /// As if all were.
    All,
    /// NOERROR and no data.
    NoData,
    /// SERVFAIL.
    ServFail,
    /// The edges of this datacenter.
    Fallback(DatacenterId),
}

/// How a policy uses client subnets (RFC 7871).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ecs {
    /// Whether at all.
    pub enabled: bool,
    /// Longest scope for IPv4.
    pub max_v4: u8,
    /// Longest scope for IPv6.
    pub max_v6: u8,
}

impl Ecs {
    /// Longest scope for the family of `address`.
    pub const fn max_bits(&self, address: IpAddr) -> u8 {
        match address {
            IpAddr::V4(_) => self.max_v4,
            IpAddr::V6(_) => self.max_v6,
        }
    }
}

/// An exception for some clients. All its conditions that are not empty must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rule {
    /// Countries.
    pub countries: Vec<CountryCode>,
    /// Continents.
    pub continents: Vec<Continent>,
    /// Subdivisions of countries.
    pub subdivisions: Vec<Subdivision>,
    /// Names of cities.
    pub cities: Vec<String>,
    /// Autonomous systems.
    pub asns: Vec<u32>,
    /// Client networks.
    pub networks: Vec<Prefix>,
    /// Which address the conditions are about.
    pub by: RuleBy,
    /// Datacenters that come first for them.
    pub to: Vec<DatacenterId>,
}

impl Rule {
    /// Whether both are about the same clients.
    pub fn has_same_conditions(&self, other: &Self) -> bool {
        Self { to: other.to.clone(), ..self.clone() } == *other
    }
}

/// The address family that a query asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// A records.
    V4,
    /// AAAA records.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of a query type, if it asks for addresses.
    pub const fn of_type(rtype: u16) -> Option<Self> {
        match rtype {
            crate::rtype::A => Some(Self::V4),
            crate::rtype::AAAA => Some(Self::V6),
            _ => None,
        }
    }

    /// Whether `address` is of this family.
    pub const fn holds(self, address: &IpAddr) -> bool {
        matches!((self, address), (Self::V4, IpAddr::V4(_)) | (Self::V6, IpAddr::V6(_)))
    }
}

impl World {
    /// The edges of a datacenter.
    pub fn edges_of(&self, datacenter: DatacenterId) -> impl Iterator<Item = (EdgeId, &Edge)> {
        (0..).zip(&self.edges).filter(move |(_, edge)| edge.datacenter == datacenter)
    }

    /// Whether ids and addresses mean the same in both: then what is known by id can be taken over.
    pub fn has_same_ids(&self, other: &Self) -> bool {
        let datacenters = |world: &Self| -> Vec<String> {
            world.datacenters.iter().map(|datacenter| datacenter.name.clone()).collect()
        };
        let policies = |world: &Self| -> Vec<String> {
            world.policies.iter().map(|policy| policy.name.clone()).collect()
        };
        datacenters(self) == datacenters(other)
            && policies(self) == policies(other)
            && self.edges == other.edges
    }

    /// A datacenter's name.
    pub fn datacenter_name(&self, id: DatacenterId) -> &str {
        self.datacenters.get(usize::from(id)).map_or("", |datacenter| datacenter.name.as_str())
    }

    /// The id of the datacenter of this name.
    pub fn datacenter_id(&self, name: &str) -> Option<DatacenterId> {
        let at = self.datacenters.iter().position(|datacenter| datacenter.name == name)?;
        DatacenterId::try_from(at).ok()
    }

    /// The id of the edge of this name.
    pub fn edge_id(&self, name: &str) -> Option<EdgeId> {
        EdgeId::try_from(self.edges.iter().position(|edge| edge.name == name)?).ok()
    }
}

/// A number for a name that is the same on every node and in every version: stable draws are made with it.
pub fn stable_key(name: &str) -> u64 {
    xxh3_64(name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bias_is_monotone_and_its_signs_undo_each_other() {
        let stretch = |bias| {
            let location = Coordinates::new(0.0, 0.0).unwrap();
            Datacenter { name: String::new(), location, bias, weight: 1, capacity: None }.stretch()
        };
        for (bias, factor) in [(0, 1.0), (50, 0.5), (-50, 2.0), (99, 0.01), (-99, 100.0)] {
            assert!((stretch(bias) - factor).abs() < 1e-9, "{bias}");
        }
        for bias in -99..99_i8 {
            assert!(stretch(bias) > stretch(bias + 1), "{bias}");
            assert!((stretch(bias) * stretch(-bias) - 1.0).abs() < 1e-9, "{bias}");
        }
        // What no configuration lets through does no harm.
        assert!(stretch(i8::MIN).is_finite() && stretch(i8::MAX) > 0.0);
    }
}
