//! Zones to the table that answers are copied from.

use std::collections::HashMap;

use super::alias::{self, Pending};
use super::check::check;
use super::contents::{APEX, Contents, Set};
use super::records::Records;
use super::table::{NONE, NameTable, tag};
use super::{Entry, Location, PolicyId, Problem, Problems, Referral, Special, Zone, Zones};
use crate::name::{Name, ancestors};
use crate::rtype;

/// A name whose A, AAAA and HTTPS queries a policy answers.
#[derive(Clone, Debug)]
pub struct Steered {
    /// Owner name; its first label may be `*`.
    pub owner: Name,
    /// Which policy.
    pub policy: PolicyId,
}

/// Gathers zones, then makes [`Zones`] of them.
#[derive(Debug, Default)]
pub struct Builder {
    zones: Vec<Contents>,
    /// Which zone has this apex.
    apexes: HashMap<Name, usize>,
    problems: Vec<Problem>,
}

impl Builder {
    /// Adds a zone. `whole` is where problems of the zone as a whole are shown.
    pub fn add(&mut self, apex: &Name, records: Records, steered: &[Steered], whole: Location) {
        let apex = apex.to_lower();
        if self.apexes.contains_key(&apex) {
            let why = format!("zone {apex} is configured twice");
            self.problems.push(Problem::error(&whole, why));
            return;
        }
        let mut problems = Problems::default();
        let mut contents = Contents::new(&apex, records, steered, whole, &mut problems);
        check(&mut contents, &mut problems);
        self.problems.append(&mut problems.list);
        self.apexes.insert(apex, self.zones.len());
        self.zones.push(contents);
    }

    /// The zones and everything wrong with them; they are not to be served when a problem is no warning.
    pub fn build(mut self) -> (Zones, Vec<Problem>) {
        let parents: Vec<Option<usize>> =
            self.zones.iter().map(|zone| self.parent(&zone.apex)).collect();
        for (zone, parent) in self.zones.iter().zip(&parents) {
            let Some(parent) = parent.and_then(|parent| self.zones.get(parent)) else { continue };
            let delegates = |id| parent.has(id, rtype::NS);
            if !parent.find(zone.apex.as_wire()).is_some_and(delegates) {
                let why = format!(
                    "{} is served here too but does not delegate {}: add its NS records there",
                    parent.apex, zone.apex
                );
                self.problems.push(Problem::warning(&zone.whole, why));
            }
        }
        let octets: usize = self.zones.iter().map(rendered_length).sum();
        let names = self.zones.iter().map(|zone| zone.names.len()).sum();
        let mut building = Building {
            zones: Zones::default(),
            apexes: &self.apexes,
            parent_sides: vec![NONE; self.zones.len()],
            pending: Vec::new(),
        };
        if u32::try_from(octets).is_err() || names >= NONE as usize {
            let why = format!("all zones together have {octets} octets: 4 GiB are the most");
            let none = Location { file: "".into(), line: 0 };
            let whole = self.zones.first().map_or(&none, |zone| &zone.whole);
            self.problems.push(Problem::error(whole, why));
            return (building.zones, self.problems);
        }
        building.zones.octets.reserve_exact(octets);
        building.zones.entries.reserve_exact(names);
        building.zones.table = NameTable::with_capacity(names);
        // Each zone's records go as soon as they are rendered.
        let is_parent: std::collections::HashSet<usize> = parents.into_iter().flatten().collect();
        for (index, contents) in self.zones.into_iter().enumerate() {
            building.zone(&contents, is_parent.contains(&index));
        }
        let Building { mut zones, parent_sides, pending, .. } = building;
        for (zone, parent_side) in zones.zones.iter_mut().zip(parent_sides) {
            zone.parent_side = parent_side;
        }
        alias::resolve(&mut zones, &pending, &mut self.problems);
        (zones, self.problems)
    }

    /// The zone that lies closest above this one.
    fn parent(&self, apex: &Name) -> Option<usize> {
        let above = ancestors(apex.as_wire()).skip(1);
        above.filter_map(Name::from_wire).find_map(|name| self.apexes.get(&name).copied())
    }
}

struct Building<'b> {
    zones: Zones,
    apexes: &'b HashMap<Name, usize>,
    /// By zone.
    parent_sides: Vec<u32>,
    pending: Vec<Pending>,
}

impl Building<'_> {
    fn zone(&mut self, zone: &Contents, is_parent: bool) {
        let number = self.zones.zones.len() as u32;
        let children = if is_parent { self.children(zone) } else { Vec::new() };
        let mut entries = vec![NONE; zone.names.len()];
        for id in zone.ids() {
            // What a parent has at and below a child's apex is glue at best: the child knows better.
            let child = children.get(id as usize).copied().unwrap_or(NONE);
            if child != NONE {
                let is_cut = zone.has(id, rtype::NS)
                    && self.apexes.get(zone.name(id)).is_some_and(|at| *at == child as usize);
                if is_cut && let Some(slot) = self.parent_sides.get_mut(child as usize) {
                    *slot = self.zones.entries.len() as u32;
                    self.entry(zone, id, number);
                }
                continue;
            }
            let entry = self.zones.entries.len() as u32;
            if let Some(slot) = entries.get_mut(id as usize) {
                *slot = entry;
            }
            self.entry(zone, id, number);
            self.zones.table.insert(tag(zone.name(id)), entry);
        }
        // Cuts and wildcards by their entries; a cut has its own number before what lies below it.
        for id in zone.ids() {
            let of = |id: u32| entries.get(id as usize).copied().unwrap_or(NONE);
            let (Some(held), own) = (zone.held(id), of(id)) else { continue };
            if let Some(entry) = self.zones.entries.get_mut(own as usize) {
                (entry.cut, entry.wildcard) = (of(held.cut), of(held.wildcard));
            }
        }
        let soa = zone.set(APEX, rtype::SOA).and_then(|soa| zone.rdata(soa).next());
        let mut negative = Vec::new();
        push_record(&mut negative, None, rtype::SOA, zone.negative_ttl, soa.unwrap_or_default());
        self.zones.deepest = self.zones.deepest.max(zone.depth());
        self.zones.zones.push(Zone {
            apex: zone.apex.clone(),
            serial: zone.serial,
            negative: negative.into(),
            parent_side: NONE,
        });
    }

    /// For each name the zone below this one that it belongs to, the apex of that zone included.
    fn children(&self, zone: &Contents) -> Vec<u32> {
        let mut children: Vec<u32> = Vec::with_capacity(zone.names.len());
        for (id, held) in zone.ids().zip(&zone.names) {
            let above = children.get(held.parent as usize).copied().unwrap_or(NONE);
            let own = self.apexes.get(zone.name(id)).filter(|_| id != APEX);
            children.push(match own {
                Some(child) if above == NONE => *child as u32,
                _ => above,
            });
        }
        children
    }

    fn entry(&mut self, zone: &Contents, id: u32, number: u32) {
        let Some(held) = zone.held(id) else { return };
        let at = self.zones.octets.len() as u32;
        let name = zone.name(id);
        let sets = zone.sets(id).iter().filter(|set| set.rtype != rtype::ALIAS);
        let octets = &mut self.zones.octets;
        octets.extend_from_slice(name);
        octets.extend((sets.clone().count() as u16).to_be_bytes());
        for set in sets {
            push_set(octets, zone, set);
        }
        let mut special = NONE;
        if id != APEX
            && let Some(servers) = zone.set(id, rtype::NS)
        {
            special = self.zones.specials.len() as u32;
            self.zones.specials.push(Special::Referral(referral(zone, servers)));
        }
        if let Some(set) = zone.set(id, rtype::ALIAS)
            && let Some(target) = zone.rdata(set).next().and_then(Name::from_wire)
        {
            self.pending.push(Pending {
                entry: self.zones.entries.len() as u32,
                target: target.to_lower(),
                ttl: set.ttl,
                at: zone.location(set),
            });
        }
        self.zones.entries.push(Entry {
            at,
            zone: number,
            cut: NONE,
            wildcard: NONE,
            special,
            policy: held.policy.unwrap_or(Entry::NO_POLICY),
            name_length: name.len() as u8,
            has_dname: zone.has(id, rtype::DNAME),
        });
    }
}

/// All glue that this zone holds for the servers; without it the delegation may not be followed (RFC 9471).
fn referral(zone: &Contents, servers: &Set) -> Referral {
    let mut glue = Vec::new();
    let mut glue_count = 0;
    for server in zone.rdata(servers).filter_map(Name::from_wire) {
        let Some(id) = zone.find(server.to_lower().as_wire()) else { continue };
        for set in [rtype::A, rtype::AAAA].iter().filter_map(|rtype| zone.set(id, *rtype)) {
            for rdata in zone.rdata(set) {
                push_record(&mut glue, Some(&server), set.rtype, set.ttl, rdata);
                glue_count += 1;
            }
        }
    }
    Referral { glue: glue.into(), glue_count }
}

/// Octets of a rendered set before its records: type, count, length.
pub(super) const SET_HEAD: usize = 8;

/// Octets of what [`Building::entry`] writes for all names of a zone.
fn rendered_length(zone: &Contents) -> usize {
    let of_set = |set: &Set| -> usize {
        SET_HEAD + zone.rdata(set).map(|rdata| super::RDATA_AT + rdata.len()).sum::<usize>()
    };
    let of_name = |id: u32| -> usize {
        zone.name(id).len() + 2 + zone.sets(id).iter().map(of_set).sum::<usize>()
    };
    zone.ids().map(of_name).sum()
}

fn push_set(octets: &mut Vec<u8>, zone: &Contents, set: &Set) {
    octets.extend(set.rtype.to_be_bytes());
    octets.extend(u16::try_from(set.count).unwrap_or(u16::MAX).to_be_bytes());
    let length_at = octets.len();
    octets.extend([0; 4]);
    for rdata in zone.rdata(set) {
        push_record(octets, None, set.rtype, set.ttl, rdata);
    }
    let length = (octets.len() - length_at - 4) as u32;
    if let Some(slot) = octets.get_mut(length_at..length_at + 4) {
        slot.copy_from_slice(&length.to_be_bytes());
    }
}

/// A record of `owner`, or of the name of the question.
fn push_record(octets: &mut Vec<u8>, owner: Option<&Name>, rtype: u16, ttl: u32, rdata: &[u8]) {
    match owner {
        Some(owner) => octets.extend_from_slice(owner.as_wire()),
        None => octets.extend(crate::wire::QUESTION_NAME.to_be_bytes()),
    }
    octets.extend(rtype.to_be_bytes());
    octets.extend(crate::wire::class::IN.to_be_bytes());
    octets.extend(ttl.to_be_bytes());
    octets.extend(u16::try_from(rdata.len()).unwrap_or(u16::MAX).to_be_bytes());
    octets.extend(rdata);
}
