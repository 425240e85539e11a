//! One zone's records by name, then by type: what the checks read and the table is made from.
//!
//! Names are numbered, parents before what lies below them, so that whatever a name has from those above it is found
//! in one pass. All of it takes time in proportion to the labels of the zone's names.

use std::collections::HashSet;

use super::records::{Record, Records};
use super::table::{NONE, NameTable, tag};
use super::{Location, PolicyId, Problem, Problems, Steered};
use crate::name::{Name, is_within, label_count};
use crate::rtype;

/// A zone before it is rendered.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) apex: Name,
    /// Where problems of the zone as a whole are shown.
    pub(super) whole: Location,
    records: Records,
    table: NameTable,
    /// The apex is the first one.
    pub(super) names: Vec<Held>,
    sets: Vec<Set>,
    /// Records by name and type, duplicates left out.
    order: Vec<u32>,
    pub(super) serial: u32,
    pub(super) negative_ttl: u32,
}

/// The number of the apex.
pub(super) const APEX: u32 = 0;

/// A name that exists.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    at: u32,
    length: u8,
    /// The name above; [`NONE`] for the apex.
    pub(super) parent: u32,
    /// The `*` below this name.
    pub(super) wildcard: u32,
    /// The highest delegation at or above this name.
    pub(super) cut: u32,
    first_set: u32,
    pub(super) policy: Option<PolicyId>,
}

/// The records of one type at one name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Set {
    pub(super) rtype: u16,
    pub(super) ttl: u32,
    first: u32,
    pub(super) count: u32,
}

impl Contents {
    /// Sorts the records in. What has no place in the zone is told of and left out.
    pub(super) fn new(
        apex: &Name,
        records: Records,
        steered: &[Steered],
        whole: Location,
        problems: &mut Problems,
    ) -> Self {
        let mut contents = Self {
            apex: apex.to_lower(),
            whole,
            records,
            table: NameTable::default(),
            names: Vec::new(),
            sets: Vec::new(),
            order: Vec::new(),
            serial: 0,
            negative_ttl: 0,
        };
        let apex = contents.apex.clone();
        if let Err(why) = contents.hold(apex.as_wire()) {
            problems.push(Problem::error(&contents.whole, why));
            return contents;
        }
        let owners = contents.number_owners(problems);
        for Steered { owner, policy } in steered {
            let owner = owner.to_lower();
            if !owner.is_within(&apex) {
                let why = format!("steered name {owner} is outside of zone {apex}");
                problems.push(Problem::error(&contents.whole, why));
                continue;
            }
            match contents.hold(owner.as_wire()) {
                Ok(id) => {
                    if let Some(held) = contents.names.get_mut(id as usize) {
                        held.policy = Some(*policy);
                    }
                }
                Err(why) => problems.push(Problem::error(&contents.whole, why)),
            }
        }
        contents.sort(&owners);
        contents.make_sets(problems);
        contents.find_cuts();
        contents
    }

    /// The number of each record's owner; [`NONE`] for one outside of the zone.
    fn number_owners(&mut self, problems: &mut Problems) -> Vec<u32> {
        let mut owners = Vec::with_capacity(self.records.len());
        let mut last = (NONE, NONE);
        for index in 0..u32::try_from(self.records.len()).unwrap_or(NONE) {
            let Some(Record { owner, owner_at, .. }) = self.records.get(index) else { break };
            if owner_at != last.0 {
                let length = owner.len() as u8;
                let id = match is_within(owner, self.apex.as_wire()) {
                    true => self.hold_at(owner_at, length),
                    false => NONE,
                };
                last = (owner_at, id);
            }
            if last.1 == NONE {
                let shown = crate::name::Shown(self.records.octets(owner_at, self.length(index)));
                let why =
                    format!("{shown} is outside of zone {}: a dot too many or too few?", self.apex);
                problems.push(self.records.error(index, why));
            }
            owners.push(last.1);
        }
        owners
    }

    fn length(&self, index: u32) -> u8 {
        self.records.get(index).map_or(0, |record| record.owner.len() as u8)
    }

    /// The number of a name in lower case at or below the apex, which exists from now on.
    fn hold(&mut self, name: &[u8]) -> Result<u32, String> {
        if let Some(id) = self.find(name) {
            return Ok(id);
        }
        let at = self.records.push_name(name)?;
        Ok(self.hold_at(at, name.len() as u8))
    }

    fn hold_at(&mut self, at: u32, length: u8) -> u32 {
        let name = self.records.octets(at, length);
        let tag = tag(name);
        let is_it = |id: u32| self.name(id) == name;
        if let Some(id) = self.table.find(tag, is_it) {
            return id;
        }
        let is_wildcard = name.starts_with(b"\x01*");
        let label = 1 + name.first().copied().unwrap_or(0);
        let parent = if usize::from(length) <= self.apex.as_wire().len() {
            NONE
        } else {
            self.hold_at(at + u32::from(label), length - label)
        };
        let id = u32::try_from(self.names.len()).unwrap_or(NONE);
        if is_wildcard && let Some(parent) = self.names.get_mut(parent as usize) {
            parent.wildcard = id;
        }
        self.names.push(Held {
            at,
            length,
            parent,
            wildcard: NONE,
            cut: NONE,
            first_set: 0,
            policy: None,
        });
        self.table.insert(tag, id);
        id
    }

    /// Fills `order` with the records of each name, and each name's `first_set` with where they begin, for now.
    fn sort(&mut self, owners: &[u32]) {
        let mut ends = vec![0_u32; self.names.len() + 1];
        for owner in owners.iter().filter(|owner| **owner != NONE) {
            if let Some(count) = ends.get_mut(*owner as usize + 1) {
                *count += 1;
            }
        }
        let mut before = 0;
        for end in &mut ends {
            before += *end;
            *end = before;
        }
        for (held, start) in self.names.iter_mut().zip(&ends) {
            held.first_set = *start;
        }
        self.order = vec![0; before as usize];
        for (index, owner) in (0..).zip(owners).filter(|(_, owner)| **owner != NONE) {
            if let Some(next) = ends.get_mut(*owner as usize) {
                if let Some(slot) = self.order.get_mut(*next as usize) {
                    *slot = index;
                }
                *next += 1;
            }
        }
    }

    /// From each name's records to its sets, in the order of their types; every record once (RFC 2181 §5).
    fn make_sets(&mut self, problems: &mut Problems) {
        let mut order = Vec::with_capacity(self.order.len());
        let mut sets = Vec::with_capacity(self.names.len());
        let ends: Vec<u32> = self.names.iter().skip(1).map(|held| held.first_set).collect();
        let total = self.order.len() as u32;
        let mut seen: HashSet<&[u8]> = HashSet::new();
        for (held, end) in self.names.iter_mut().zip(ends.into_iter().chain([total])) {
            let range = held.first_set as usize..end as usize;
            held.first_set = sets.len() as u32;
            let Some(indices) = self.order.get_mut(range) else { continue };
            let records = &self.records;
            let rtype_of = |index: &u32| records.get(*index).map_or(0, |record| record.rtype);
            indices.sort_by_key(rtype_of);
            for group in indices.chunk_by(|a, b| rtype_of(a) == rtype_of(b)) {
                let first = order.len() as u32;
                seen.clear();
                let mut ttl = u32::MAX;
                let mut differs = None;
                for index in group {
                    let Some(record) = records.get(*index) else { continue };
                    if ttl != u32::MAX && ttl != record.ttl {
                        differs = Some((*index, record));
                    }
                    ttl = ttl.min(record.ttl);
                    if group.len() == 1 || seen.insert(record.rdata) {
                        order.push(*index);
                    }
                }
                if let Some((index, record)) = differs {
                    let why = format!(
                        "the {} records of {} differ in their TTL: all get the lowest, {ttl} s (RFC 2181 §5.2)",
                        rtype::Shown(record.rtype),
                        crate::name::Shown(record.owner),
                    );
                    problems.push(records.warning(index, why));
                }
                let rtype = group.first().map_or(0, rtype_of);
                sets.push(Set { rtype, ttl, first, count: order.len() as u32 - first });
            }
        }
        (self.order, self.sets) = (order, sets);
    }

    fn find_cuts(&mut self) {
        for id in 1..self.names.len() as u32 {
            let above = self.held(id).and_then(|held| self.held(held.parent)).map(|held| held.cut);
            let cut = match above {
                Some(cut) if cut != NONE => cut,
                _ if self.has(id, rtype::NS) => id,
                _ => NONE,
            };
            if let Some(held) = self.names.get_mut(id as usize) {
                held.cut = cut;
            }
        }
    }

    /// Every name's number.
    pub(super) fn ids(&self) -> std::ops::Range<u32> {
        0..self.names.len() as u32
    }

    pub(super) fn held(&self, id: u32) -> Option<&Held> {
        self.names.get(id as usize)
    }

    /// A name's octets.
    pub(super) fn name(&self, id: u32) -> &[u8] {
        self.held(id).map_or(&[0], |held| self.records.octets(held.at, held.length))
    }

    /// A name as people read it.
    pub(super) fn shown(&self, id: u32) -> crate::name::Shown<'_> {
        crate::name::Shown(self.name(id))
    }

    pub(super) fn is_wildcard(&self, id: u32) -> bool {
        self.name(id).starts_with(b"\x01*")
    }

    /// The number of a name in lower case that exists.
    pub(super) fn find(&self, name: &[u8]) -> Option<u32> {
        self.table.find(tag(name), |id| self.name(id) == name)
    }

    /// The delegation at or above a name in lower case, whether or not that exists.
    pub(super) fn cut_above(&self, name: &[u8]) -> Option<u32> {
        let closest = crate::name::ancestors(name).find_map(|ancestor| self.find(ancestor))?;
        self.held(closest).map(|held| held.cut).filter(|cut| *cut != NONE)
    }

    /// What a name holds.
    pub(super) fn sets(&self, id: u32) -> &[Set] {
        let start = self.held(id).map_or(0, |held| held.first_set as usize);
        let end = self.held(id + 1).map_or(self.sets.len(), |next| next.first_set as usize);
        self.sets.get(start..end).unwrap_or_default()
    }

    /// What a name holds of a type.
    pub(super) fn set(&self, id: u32, rtype: u16) -> Option<&Set> {
        self.sets(id).iter().find(|set| set.rtype == rtype)
    }

    /// Whether a name holds anything of a type.
    pub(super) fn has(&self, id: u32, rtype: u16) -> bool {
        self.set(id, rtype).is_some()
    }

    /// RDATA of a set's records.
    pub(super) fn rdata(&self, set: &Set) -> impl Iterator<Item = &[u8]> {
        let indices = self.order.get(set.first as usize..(set.first + set.count) as usize);
        indices.unwrap_or_default().iter().filter_map(|index| Some(self.records.get(*index)?.rdata))
    }

    /// An error at a set's first record.
    pub(super) fn error(&self, set: &Set, why: impl Into<String>) -> Problem {
        self.records.error(self.first_of(set), why)
    }

    /// A warning at a set's first record.
    pub(super) fn warning(&self, set: &Set, why: impl Into<String>) -> Problem {
        self.records.warning(self.first_of(set), why)
    }

    /// Where a set's first record stands.
    pub(super) fn location(&self, set: &Set) -> Location {
        self.records.location(self.first_of(set))
    }

    fn first_of(&self, set: &Set) -> u32 {
        self.order.get(set.first as usize).copied().unwrap_or(NONE)
    }

    /// Labels of the longest name.
    pub(super) fn depth(&self) -> usize {
        let base = label_count(self.apex.as_wire());
        let mut depths = Vec::with_capacity(self.names.len());
        for held in &self.names {
            depths.push(depths.get(held.parent as usize).map_or(base, |above: &usize| above + 1));
        }
        depths.into_iter().max().unwrap_or(base)
    }
}
