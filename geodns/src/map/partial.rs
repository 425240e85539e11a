//! Datacenters that take a part of their clients only: while they return, while they have too much load, or because the
//! operator gave them a share at most.
//!
//! A part is a set of client networks that is the same on every node and grows or shrinks by its edges: a smaller part
//! lies within every larger one, so no network moves there and back. Who returns takes networks by a hash; who sheds, or
//! has all that it may, gives up the farthest first, by a [`Rank`] that is compiled into the map. Where many networks are
//! equally far, a hash puts them in order.
//!
//! Parts are cut along networks of [`unit_bits`], and scopes of policies that know parts are never shorter, whatever is
//! happening: a resolver's cache is right before, in and after a ramp.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use shared::geo::{UnitVector, World as Geography};
use shared::prefix::{Address, IpRangeMap, Prefix, RangeMap};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::List;
use super::routable::population;
use crate::health::{Intake, Verdict};
use crate::world::{DatacenterId, Order, Policy, World};

/// Where a client network stands among all whose first choice is the same datacenter, from the nearest to the farthest: a
/// stretch of their population, in units of 2^-32 of it. Equally distant networks have the same stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rank {
    near: u32,
    far: u32,
}

impl Rank {
    /// Where the distance is not known, or of no account: anywhere. No stretch runs backwards.
    pub const UNKNOWN: Self = Self { near: u32::MAX, far: 0 };

    /// The place of one network in the stretch, by its hash.
    fn position(self, hash: u32) -> u32 {
        let Some(width) = self.far.checked_sub(self.near).map(u64::from) else { return hash };
        self.near + ((width * u64::from(hash)) >> 32) as u32
    }
}

/// A stretch is at least one of so many parts: finer ones would cut the map into networks that nobody wants to tell apart.
const STRETCHES: f64 = 256.0;
/// A share of everything.
const WHOLE: f64 = 4_294_967_296.0;

/// The networks that parts are made of, IPv4: 65,536 of them. Longer ones would only fill the caches of resolvers.
const UNIT_V4: u8 = 16;
/// IPv6: what a provider is given.
const UNIT_V6: u8 = 32;

/// Length of the networks that parts are made of.
pub const fn unit_bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { UNIT_V4 } else { UNIT_V6 }
}

/// A number for the network of `bits` bits that parts are made of.
pub(crate) fn unit_key(address: IpAddr, bits: u8) -> u64 {
    match Prefix::containing(address, bits).network() {
        IpAddr::V4(v4) => xxh3_64_with_seed(&v4.octets(), 0x14),
        IpAddr::V6(v6) => xxh3_64_with_seed(&v6.octets(), 0x16),
    }
}

/// What a policy's datacenters may have at most, as shares of those that would come, by datacenter.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Limits {
    /// Of the networks whose first choice it is.
    own: Box<[f64]>,
    /// Of those that come from others.
    others: Box<[f64]>,
}

/// What a table knows of parts.
#[derive(Clone, Debug)]
pub(crate) struct Partial {
    /// IPv4 and IPv6 clients.
    limits: [Limits; 2],
    /// Not by weight, where nobody is nearer than others.
    by_distance: bool,
}

/// A client whose list is walked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Comer<'l> {
    pub list: &'l List,
    /// Of its network of [`unit_bits`].
    pub unit: u64,
    pub is_ipv6: bool,
}

impl Partial {
    /// Why a datacenter with this number (see [`super::Map::draw`]) does not take a client at the moment, if it does not.
    pub(crate) fn refusal(
        &self,
        comer: &Comer<'_>,
        datacenter: DatacenterId,
        key: u64,
        intake: Intake,
    ) -> Option<Verdict> {
        let at = usize::from(datacenter);
        let hash = xxh3_64_with_seed(&key.to_le_bytes(), comer.unit);
        if (hash >> 32) as f64 >= intake.returned * WHOLE {
            return Some(Verdict::Returning);
        }
        let list = comer.list;
        let has_first = self.by_distance || list.fixed > 0;
        let is_own = has_first && list.datacenters.first() == Some(&datacenter);
        let [v4, v6] = &self.limits;
        let limits = if comer.is_ipv6 { v6 } else { v4 };
        let (position, limits) = match is_own {
            true => (list.rank.position(hash as u32), &limits.own),
            false => (hash as u32, &limits.others),
        };
        let share = match is_own && list.rank == Rank::UNKNOWN {
            // Of whom no place is known counts for no share, and stays.
            true => 1.0,
            false => limits.get(at).copied().unwrap_or(1.0),
        };
        let limit = share * WHOLE;
        let position = f64::from(position);
        if position >= limit {
            Some(Verdict::Full)
        } else if position >= limit * (1.0 - intake.shed) {
            Some(Verdict::Shedding)
        } else {
            None
        }
    }
}

/// Gives every list its ranks. `leaves` refers to `lists`, and does so afterwards.
pub(super) fn rank(
    world: &World,
    policy: &Policy,
    geography: &Geography,
    leaves: &IpRangeMap<u32>,
    lists: &mut Vec<List>,
) -> (IpRangeMap<u32>, Partial) {
    let by_distance = policy.order != Order::Weighted;
    let points: Vec<UnitVector> = world.datacenters.iter().map(|dc| dc.location.unit()).collect();
    let first_of = |list: u32| -> Option<DatacenterId> {
        let list = lists.get(list as usize)?;
        if by_distance || list.fixed > 0 { list.datacenters.first().copied() } else { None }
    };
    let distances = leaves.overlay(&geography.places, |list, place| {
        let km = place.and_then(|place| {
            let from = geography.catalog.get(place).location?;
            let to = points.get(usize::from(first_of(*list)?))?;
            Some(from.unit().distance_km(*to) as u16)
        });
        (*list, km)
    });
    let lives = population(geography);
    let crowds = distances.overlay(&lives, |(list, km), lives| lives.then_some((*list, *km)));
    let ranks = [
        ranks(weighed(&crowds.v4, addresses), first_of),
        ranks(weighed(&crowds.v6, networks_of_48), first_of),
    ];
    let mut ranked = Ranked { plain: lists, lists: Vec::new(), ids: HashMap::new() };
    let mut id_of = |family: usize, (list, km): &(u32, Option<u16>)| {
        let known = first_of(*list).zip(*km).and_then(|key| ranks[family].get(&key));
        ranked.id_of(*list, known.copied().unwrap_or(Rank::UNKNOWN))
    };
    let leaves = IpRangeMap {
        v4: distances.v4.map(|group| id_of(0, group)),
        v6: distances.v6.map(|group| id_of(1, group)),
    };
    let ranked = ranked.lists;
    let limits = match policy.max_share.is_empty() {
        true => Default::default(),
        false => {
            let crowds = leaves.overlay(&lives, |leaf, lives| lives.then_some(*leaf));
            let v4 = weighed(&crowds.v4, addresses);
            let v6 = weighed(&crowds.v6, networks_of_48);
            [limits(world, policy, &ranked, &v4), limits(world, policy, &ranked, &v6)]
        }
    };
    *lists = ranked;
    (leaves, Partial { limits, by_distance })
}

/// Lists with their ranks, each pair once.
struct Ranked<'l> {
    plain: &'l [List],
    lists: Vec<List>,
    ids: HashMap<(u32, Rank), u32>,
}

impl Ranked<'_> {
    fn id_of(&mut self, list: u32, rank: Rank) -> u32 {
        let next = u32::try_from(self.lists.len()).unwrap_or(u32::MAX);
        *self.ids.entry((list, rank)).or_insert_with(|| {
            if let Some(plain) = self.plain.get(list as usize) {
                self.lists.push(List { rank, ..plain.clone() });
            }
            next
        })
    }
}

/// How many addresses lie in a range.
pub(super) fn addresses(first: u32, last: u32) -> f64 {
    f64::from(last - first) + 1.0
}

/// How many /48 lie in a range: IPv6 is not measured by addresses.
pub(super) fn networks_of_48(first: u128, last: u128) -> f64 {
    ((last >> 80) - (first >> 80) + 1) as f64
}

/// The population of each value.
fn weighed<A: Address, T: Copy + Eq + std::hash::Hash + Ord>(
    map: &RangeMap<A, Option<T>>,
    size: impl Fn(A, A) -> f64,
) -> BTreeMap<T, f64> {
    let mut weights = BTreeMap::new();
    for (first, last, value) in map.ranges() {
        if let Some(value) = value {
            *weights.entry(*value).or_insert(0.0) += size(first, last);
        }
    }
    weights
}

/// The rank of every distance from every datacenter that is someone's first choice.
fn ranks(
    crowds: BTreeMap<(u32, Option<u16>), f64>,
    first_of: impl Fn(u32) -> Option<DatacenterId>,
) -> HashMap<(DatacenterId, u16), Rank> {
    let mut by_datacenter: BTreeMap<DatacenterId, BTreeMap<u16, f64>> = BTreeMap::new();
    for ((list, km), weight) in crowds {
        if let Some((datacenter, km)) = first_of(list).zip(km) {
            *by_datacenter.entry(datacenter).or_default().entry(km).or_insert(0.0) += weight;
        }
    }
    let mut ranks = HashMap::new();
    for (datacenter, distances) in by_datacenter {
        let total: f64 = distances.values().sum();
        let part = |weight: f64| (weight / total * WHOLE) as u32;
        let (mut near, mut far) = (0.0, 0.0);
        let mut stretch: Vec<u16> = Vec::new();
        let last = distances.keys().next_back().copied();
        for (km, weight) in &distances {
            stretch.push(*km);
            far += weight;
            if far - near >= total / STRETCHES || Some(*km) == last {
                let rank = Rank { near: part(near), far: part(far) };
                ranks.extend(stretch.drain(..).map(|km| ((datacenter, km), rank)));
                near = far;
            }
        }
    }
    ranks
}

/// The share of its own clients that each datacenter keeps, and the share of what comes from others that it takes, so
/// that none has more of the population than its `max_share`: neither while all are up nor while any one is down, as long
/// as there are others with room. Of its own it keeps the nearest; what comes from elsewhere gets the room that is left.
fn limits(world: &World, policy: &Policy, lists: &[List], crowds: &BTreeMap<u32, f64>) -> Limits {
    let crowds: Vec<(&List, f64)> = crowds
        .iter()
        .filter_map(|(list, weight)| Some((lists.get(*list as usize)?, *weight)))
        .collect();
    let total: f64 = crowds.iter().map(|(_, weight)| weight).sum();
    let count = world.datacenters.len();
    // Those that come, and of them those that stay in any case.
    let first = |id: DatacenterId| -> (f64, f64) {
        let of = crowds.iter().filter(|(list, _)| list.datacenters.first() == Some(&id));
        of.fold((0.0, 0.0), |(all, staying), (list, weight)| {
            let stays = if list.rank == Rank::UNKNOWN { *weight } else { 0.0 };
            (all + weight, staying + stays)
        })
    };
    let mut own = vec![1.0_f64; count];
    let mut room: Vec<Option<f64>> = vec![None; count];
    for (id, share) in &policy.max_share {
        let ((first, staying), most) = (first(*id), share * total);
        if let (Some(own), Some(room)) =
            (own.get_mut(usize::from(*id)), room.get_mut(usize::from(*id)))
        {
            if first > most {
                *own = ((most - staying) / (first - staying).max(1.0)).max(0.0);
            }
            *room = Some((most - first).max(0.0));
        }
    }
    let mut others = vec![1.0_f64; count];
    let downs = || std::iter::once(None).chain(policy.datacenters.iter().copied().map(Some));
    // Who is full sends on to the next, who may be full by that: shares only fall, and soon stand still.
    for _ in 0..32 {
        let before = others.clone();
        for down in downs() {
            let offered = offered(&crowds, &own, &others, down);
            for ((others, offered), room) in others.iter_mut().zip(&offered).zip(&room) {
                if let Some(room) = room
                    && *offered > 0.0
                {
                    *others = others.min(room / offered);
                }
            }
        }
        if others == before {
            break;
        }
    }
    Limits { own: own.into(), others: others.into() }
}

/// How much of the population comes to each datacenter from others, while `down` is down.
fn offered(
    crowds: &[(&List, f64)],
    own: &[f64],
    others: &[f64],
    down: Option<DatacenterId>,
) -> Vec<f64> {
    let mut offered = vec![0.0_f64; own.len()];
    for (list, weight) in crowds {
        let Some((first, rest)) = list.datacenters.split_first() else { continue };
        let kept = own.get(usize::from(*first)).copied().unwrap_or(1.0) * WHOLE;
        let (near, far) = (f64::from(list.rank.near), f64::from(list.rank.far));
        let mut left = match down == Some(*first) {
            true => *weight,
            false if list.rank == Rank::UNKNOWN => 0.0,
            false => weight * ((far - kept) / (far - near).max(1.0)).clamp(0.0, 1.0),
        };
        for id in rest.iter().filter(|id| down != Some(**id)) {
            let at = usize::from(*id);
            if let (Some(offered), Some(share)) = (offered.get_mut(at), others.get(at)) {
                *offered += left;
                left *= 1.0 - share;
            }
        }
    }
    offered
}
