//! The decision: which edges a client gets, for how long, and for which part of the address space that is true.
//!
//! [`decide`] is a plain function of the policy's map, the view of health, and the client. The server, `explain` and
//! the tests call the same one. Health only selects within the client's list of datacenters, so scopes do not change
//! when a datacenter fails; and since every datacenter of the policy is in every list, whether there is an address of a
//! family does not depend on the client.

use std::net::IpAddr;

use shared::prefix::{Prefix, embedded_ipv4};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::edns::Subnet;
use crate::health::{FamilyView, Serving, Target, Verdict, View};
use crate::map::partial::{Comer, unit_bits, unit_key};
use crate::map::routable::is_unroutable;
use crate::map::{List, Map, Whose};
use crate::pick::{Drawn, Keys, pick, score};
use crate::reason::Reason;
use crate::world::{AllDown, DatacenterId, Family, Order, Pick, Policy, PolicyId};

/// Who asks, and for what.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'p> {
    /// Where the query came from.
    pub client: IpAddr,
    /// The subnet that came with it.
    pub subnet: Option<Subnet<'p>>,
    /// The family asked for.
    pub family: Family,
    /// A hash of the name asked for.
    pub name: u64,
    /// A random number.
    pub draw: u64,
}

/// What to answer.
#[derive(Clone, Copy, Debug)]
pub struct Decision<'v> {
    /// The datacenter; none when there is no address.
    pub datacenter: Option<DatacenterId>,
    serving: Option<&'v Serving>,
    drawn: Drawn,
    /// In seconds.
    pub ttl: u32,
    /// SCOPE PREFIX-LENGTH, 0 when the client subnet had no part in it.
    pub scope_bits: u8,
    /// Why.
    pub reason: Reason,
    /// The address that decided.
    pub decided_by: IpAddr,
    /// Whether that is the client subnet's or the resolver's.
    pub whose: Whose,
}

impl<'v> Decision<'v> {
    /// The edges to answer with, in the order of the answer.
    pub fn targets(self) -> impl Iterator<Item = &'v Target> {
        let targets = self.serving.map_or(&[] as &[Target], |serving| &serving.targets);
        let positions = (0..).map_while(move |at| self.drawn.as_slice().get(at).copied());
        positions.filter_map(move |at| targets.get(usize::from(at)))
    }
}

/// Decides. `trace` is told of every datacenter that is considered, in order, and what is held against it.
pub fn decide<'v>(
    policy: (PolicyId, &Policy),
    map: &Map,
    health: &'v View,
    asked: &Asked<'_>,
    mut trace: impl FnMut(DatacenterId, Verdict),
) -> Decision<'v> {
    let (id, policy) = policy;
    let (by, whose) = deciding_address(policy, map, asked);
    let from_subnet = whose == Whose::Subnet;
    let max_bits = policy.ecs.max_bits(by);
    let table = map.table(whose);
    // A cap bounds what is cached by others; a client without subnet is not cached by network.
    let finest = if from_subnet { max_bits } else { u8::MAX };
    let (list, mut scope_bits) = table.lookup(by, finest);
    // A draw for the client's network must be as fine for every one of its clients, and so must the part of a
    // datacenter's clients that it belongs to.
    let per_client = policy.order == Order::Weighted || policy.pick == Pick::HashClient;
    let unit_bits = unit_bits(by).min(finest);
    match table.partial() {
        _ if !from_subnet => scope_bits = 0,
        _ if per_client => scope_bits = max_bits,
        Some(_) => scope_bits = scope_bits.max(unit_bits),
        None => {}
    }
    let client = if per_client { client_key(by, max_bits) } else { 0 };
    let nothing = |reason| Decision {
        datacenter: None,
        serving: None,
        drawn: Drawn::default(),
        ttl: 0,
        scope_bits: 0,
        reason,
        decided_by: by,
        whose,
    };
    let (Some(view), Some(list)) = (health.family(id, asked.family), list) else {
        return nothing(Reason::NoFamily);
    };
    let parts = match table.partial() {
        Some(partial) if view.all_down.is_none() => {
            let unit = unit_key(by, unit_bits);
            Some((partial, Comer { list, unit, is_ipv6: by.is_ipv6() }, health.intakes(id)))
        }
        _ => None,
    };
    let mut first_verdict = None;
    let mut chosen = None;
    // The first that is up and has no room for this client: better than none.
    let mut full = None;
    for_each_in_order(map, policy, list, client, |datacenter| {
        let Some(serving) = view.serving(datacenter) else { return false };
        let mut verdict = serving.verdict;
        if serving.is_usable() {
            let refusal = parts.as_ref().and_then(|(partial, comer, intakes)| {
                let intake = intakes.get(usize::from(datacenter)).copied().unwrap_or_default();
                partial.refusal(comer, datacenter, map.draw(datacenter).0, intake)
            });
            let Some(refusal) = refusal else {
                trace(datacenter, verdict);
                chosen = Some((datacenter, serving));
                return true;
            };
            full = full.or(Some((datacenter, serving, first_verdict)));
            verdict = refusal;
        }
        trace(datacenter, verdict);
        if first_verdict.is_none_or(|verdict| verdict == Verdict::NoFamily) {
            first_verdict = Some(verdict);
        }
        false
    });
    if let (None, Some((datacenter, serving, verdict))) = (chosen, full) {
        (chosen, first_verdict) = (Some((datacenter, serving)), verdict);
    }
    if let (None, Some(Reason::Fallback), AllDown::Fallback(datacenter)) =
        (chosen, view.all_down, policy.all_down)
    {
        chosen = view.serving(datacenter).map(|serving| (datacenter, serving));
    }
    let Some((datacenter, serving)) = chosen else {
        return nothing(reason_for_nothing(view, first_verdict));
    };
    let keys = Keys { draw: asked.draw, client, name: asked.name };
    let drawn = pick(policy.pick, &serving.targets, policy.answers, &keys);
    Decision {
        datacenter: Some(datacenter),
        serving: Some(serving),
        drawn,
        ttl: view.ttl,
        scope_bits,
        reason: view.all_down.unwrap_or_else(|| reason_for_choice(first_verdict)),
        decided_by: by,
        whose,
    }
}

/// Why one is chosen, by what was held against those before it.
const fn reason_for_choice(before: Option<Verdict>) -> Reason {
    match before {
        None => Reason::FirstChoice,
        Some(Verdict::NoFamily) => Reason::OtherFamily,
        Some(Verdict::Returning) => Reason::Ramp,
        Some(Verdict::Shedding) => Reason::Shed,
        Some(Verdict::Full) => Reason::MaxShare,
        Some(_) => Reason::Failover,
    }
}

fn reason_for_nothing(view: &FamilyView, first_verdict: Option<Verdict>) -> Reason {
    match (view.all_down, first_verdict) {
        (Some(reason @ (Reason::DownNoData | Reason::DownServFail)), Some(verdict))
            if verdict != Verdict::NoFamily =>
        {
            reason
        }
        _ => Reason::NoFamily,
    }
}

/// Calls `f` with the list's datacenters in this client's order until it returns true.
fn for_each_in_order(
    map: &Map,
    policy: &Policy,
    list: &List,
    client: u64,
    mut f: impl FnMut(DatacenterId) -> bool,
) {
    let (fixed, rest) = list.datacenters.split_at(list.fixed.min(list.datacenters.len()));
    if policy.order != Order::Weighted {
        let _ = list.datacenters.iter().any(|id| f(*id));
        return;
    }
    if fixed.iter().any(|id| f(*id)) {
        return;
    }
    // By descending score, found one after the other: datacenters are few, and the first is most often up.
    let score_of = |id: &DatacenterId| {
        let (key, weight) = map.draw(*id);
        score(key, weight, client)
    };
    let mut before = (f64::INFINITY, DatacenterId::MAX);
    for _ in rest {
        let left = rest.iter().map(|id| (score_of(id), *id));
        let next = left
            .filter(|(score, id)| (*score, *id) < before)
            .max_by(|(a, x), (b, y)| a.total_cmp(b).then(x.cmp(y)));
        match next {
            Some(next) => {
                before = next;
                if f(next.1) {
                    return;
                }
            }
            None => return,
        }
    }
}

/// The address whose network decides, and whose it is.
fn deciding_address(policy: &Policy, map: &Map, asked: &Asked<'_>) -> (IpAddr, Whose) {
    if let Some(subnet) = asked.subnet
        && policy.ecs.enabled
        && subnet.source_bits > 0
        && let Some(address) = subnet.address
        && (!is_unroutable(address) || map.table(Whose::Subnet).is_declared(address))
    {
        return (address, Whose::Subnet);
    }
    let client = match asked.client {
        IpAddr::V6(v6) => embedded_ipv4(v6).map_or(asked.client, IpAddr::V4),
        IpAddr::V4(_) => asked.client,
    };
    (client, Whose::Resolver)
}

/// A number for the client's network of `bits` bits.
fn client_key(address: IpAddr, bits: u8) -> u64 {
    let network = Prefix::containing(address, bits).network();
    match network {
        IpAddr::V4(v4) => xxh3_64_with_seed(&v4.octets(), 4),
        IpAddr::V6(v6) => xxh3_64_with_seed(&v6.octets(), 6),
    }
}

#[cfg(test)]
mod tests;
