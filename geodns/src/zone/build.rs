//! Records to zones: the checks that a zone must pass, then the table that answers are copied from.

use std::collections::{BTreeMap, BTreeSet};

use super::file::Record;
use super::{Location, Node, PolicyId, Problem, Referral, Rrset, Zone, Zones};
use crate::name::{Name, ancestors, label_count};
use crate::rtype;

/// A name whose A and AAAA queries a policy answers.
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
    problems: Vec<Problem>,
}

/// A zone's records by owner in lower case, then by type.
#[derive(Debug)]
struct Contents {
    apex: Name,
    names: BTreeMap<Name, BTreeMap<u16, Set>>,
    steered: BTreeMap<Name, PolicyId>,
    whole: Location,
    serial: u32,
    negative_ttl: u32,
}

#[derive(Debug)]
struct Set {
    ttl: u32,
    rdata: Vec<Vec<u8>>,
    at: Location,
}

impl Builder {
    /// Adds a zone. `whole` is where problems of the zone as a whole are shown.
    pub fn add(
        &mut self,
        apex: &Name,
        records: Vec<Record>,
        steered: Vec<Steered>,
        whole: Location,
    ) {
        let mut contents = Contents {
            apex: apex.to_lower(),
            names: BTreeMap::new(),
            steered: steered.iter().map(|s| (s.owner.to_lower(), s.policy)).collect(),
            whole,
            serial: 0,
            negative_ttl: 0,
        };
        for record in records {
            contents.insert(record, &mut self.problems);
        }
        contents.check(&mut self.problems);
        self.zones.push(contents);
    }

    /// The zones and everything wrong with them; they are not to be served when a problem is no warning.
    pub fn build(mut self) -> (Zones, Vec<Problem>) {
        let mut zones = Zones::default();
        // Parents before their children, so that a child takes its names over from its parent.
        self.zones.sort_by_key(|zone| label_count(zone.apex.as_wire()));
        for index in 0..self.zones.len() {
            let Some((contents, before)) = self.zones.get(..=index).and_then(<[_]>::split_last)
            else {
                break;
            };
            if before.iter().any(|other| other.apex == contents.apex) {
                let why = format!("zone {} is configured twice", contents.apex);
                self.problems.push(Problem::error(&contents.whole, why));
                continue;
            }
            let parent = before.iter().rev().find(|other| contents.apex.is_within(&other.apex));
            if let Some(parent) = parent
                && !parent.names.get(&contents.apex).is_some_and(|n| n.contains_key(&rtype::NS))
            {
                let why = format!(
                    "{} is served here too but does not delegate {}: add its NS records there",
                    parent.apex, contents.apex
                );
                self.problems.push(Problem::warning(&contents.whole, why));
            }
            contents.add_to(&mut zones, parent.is_some());
        }
        (zones, self.problems)
    }
}

impl Contents {
    fn insert(&mut self, record: Record, problems: &mut Vec<Problem>) {
        let owner = record.owner.to_lower();
        if !owner.is_within(&self.apex) {
            let why =
                format!("{owner} is outside of zone {}: a dot too many or too few?", self.apex);
            problems.push(Problem::error(&record.at, why));
            return;
        }
        let set = self.names.entry(owner).or_default().entry(record.rtype).or_insert_with(|| Set {
            ttl: record.ttl,
            rdata: Vec::new(),
            at: record.at.clone(),
        });
        if set.ttl != record.ttl {
            set.ttl = set.ttl.min(record.ttl);
            let why = format!(
                "the {} records of {} differ in their TTL: all get the lowest, {} s (RFC 2181 §5.2)",
                rtype::Shown(record.rtype),
                record.owner,
                set.ttl
            );
            problems.push(Problem::warning(&record.at, why));
        }
        if !set.rdata.contains(&record.rdata) {
            set.rdata.push(record.rdata);
        }
    }

    fn check(&mut self, problems: &mut Vec<Problem>) {
        self.check_apex(problems);
        for (owner, sets) in &self.names {
            self.check_name(owner, sets, problems);
        }
        for owner in self.steered.keys() {
            self.check_steered(owner, problems);
        }
    }

    fn check_apex(&mut self, problems: &mut Vec<Problem>) {
        let apex = self.names.get(&self.apex);
        let Some(soa) = apex.and_then(|sets| sets.get(&rtype::SOA)) else {
            let why = format!("zone {} has no SOA record at its apex", self.apex);
            problems.push(Problem::error(&self.whole, why));
            return;
        };
        if soa.rdata.len() > 1 {
            problems.push(Problem::error(&soa.at, "a zone has one SOA record"));
        }
        if let Some(&[s0, s1, s2, s3, .., m0, m1, m2, m3]) =
            soa.rdata.first().and_then(|rdata| rdata.last_chunk::<20>())
        {
            self.serial = u32::from_be_bytes([s0, s1, s2, s3]);
            self.negative_ttl = soa.ttl.min(u32::from_be_bytes([m0, m1, m2, m3]));
        }
        match apex.and_then(|sets| sets.get(&rtype::NS)) {
            None => {
                let why = format!("zone {} has no NS records at its apex", self.apex);
                problems.push(Problem::error(&self.whole, why));
            }
            Some(servers) if servers.rdata.len() < 2 => {
                problems.push(Problem::warning(
                    &servers.at,
                    "one nameserver alone takes the zone down with it (RFC 2182 §5 wants two)",
                ));
            }
            Some(_) => {}
        }
    }

    fn check_name(&self, owner: &Name, sets: &BTreeMap<u16, Set>, problems: &mut Vec<Problem>) {
        let error = |problems: &mut Vec<Problem>, set: &Set, why: String| {
            problems.push(Problem::error(&set.at, why));
        };
        for (rtype, set) in sets {
            let shown = rtype::Shown(*rtype);
            match *rtype {
                rtype::SOA if *owner != self.apex => {
                    error(
                        problems,
                        set,
                        format!("SOA belongs to the apex {}, not to {owner}", self.apex),
                    );
                }
                rtype::CNAME if sets.len() > 1 || self.steered.contains_key(owner) => {
                    error(
                        problems,
                        set,
                        format!(
                            "{owner} has a CNAME and other data: a CNAME stands alone (RFC 1034 §3.6.2)"
                        ),
                    );
                }
                rtype::CNAME | rtype::DNAME if set.rdata.len() > 1 => {
                    error(problems, set, format!("{owner} has more than one {shown} record"));
                }
                rtype::NS if owner.is_wildcard() => {
                    error(
                        problems,
                        set,
                        "a wildcard cannot be delegated (RFC 4592 §4.2)".to_owned(),
                    );
                }
                rtype::DNAME if owner.is_wildcard() => {
                    error(problems, set, "a wildcard cannot be renamed (RFC 6672 §3.3)".to_owned());
                }
                rtype::DNAME if *owner != self.apex && sets.contains_key(&rtype::NS) => {
                    error(
                        problems,
                        set,
                        format!("{owner} is delegated and has a DNAME (RFC 6672 §5.2)"),
                    );
                }
                rtype::DS if *owner == self.apex => {
                    error(problems, set, "DS belongs to the parent of this zone".to_owned());
                }
                _ => {}
            }
            self.check_targets(owner, *rtype, set, problems);
        }
        let above = owner.parent();
        let above = above.iter().flat_map(|parent| ancestors(parent.as_wire()));
        let above = above.take_while(|ancestor| ancestor.len() >= self.apex.as_wire().len());
        let Some((rtype, set)) = sets.first_key_value() else { return };
        for ancestor in above.filter_map(Name::from_wire) {
            let Some(over) = self.names.get(&ancestor) else { continue };
            if over.contains_key(&rtype::DNAME) {
                let why =
                    format!("{owner} cannot exist below the DNAME of {ancestor} (RFC 6672 §2.4)");
                error(problems, set, why);
            }
            if ancestor != self.apex
                && over.contains_key(&rtype::NS)
                && !matches!(*rtype, rtype::A | rtype::AAAA)
            {
                let why = format!(
                    "{owner} lies below the delegation of {ancestor}: only glue is used there"
                );
                problems.push(Problem::warning(&set.at, why));
            }
        }
    }

    /// Nameservers must have addresses here when their names are here, and must not be aliases (RFC 2181 §10.3).
    fn check_targets(&self, owner: &Name, rtype: u16, set: &Set, problems: &mut Vec<Problem>) {
        let skip = match rtype {
            rtype::NS => 0,
            rtype::MX => 2,
            rtype::SRV => 6,
            _ => return,
        };
        for target in set.rdata.iter().filter_map(|rdata| Name::from_wire(rdata.get(skip..)?)) {
            let target = target.to_lower();
            if !target.is_within(&self.apex) {
                continue;
            }
            let shown = rtype::Shown(rtype);
            let held = self.names.get(&target);
            if held.is_some_and(|sets| sets.contains_key(&rtype::CNAME)) {
                let why = format!("the {shown} target {target} is an alias: name the host itself");
                problems.push(Problem::error(&set.at, why));
            }
            let addressed = held.is_some_and(|sets| {
                sets.contains_key(&rtype::A) || sets.contains_key(&rtype::AAAA)
            }) || self.steered.contains_key(&target);
            let elsewhere = self.is_delegated(&target) && !target.is_within(owner);
            if rtype == rtype::NS && !addressed && !elsewhere {
                let why =
                    format!("nameserver {target} has no address here: add its A or AAAA record");
                problems.push(Problem::error(&set.at, why));
            }
        }
    }

    fn is_delegated(&self, name: &Name) -> bool {
        self.cut_above(name).is_some()
    }

    /// The delegation at or above `name`.
    fn cut_above(&self, name: &Name) -> Option<Name> {
        let inside = ancestors(name.as_wire())
            .take_while(|ancestor| ancestor.len() > self.apex.as_wire().len())
            .filter_map(Name::from_wire);
        // The highest cut is the one that counts: below it nothing is ours.
        inside
            .filter(|name| self.names.get(name).is_some_and(|sets| sets.contains_key(&rtype::NS)))
            .last()
    }

    /// A name of the zone file below a steered wildcard takes itself, and all below it, out of the wildcard.
    fn check_hidden(&self, wildcard: &Name, problems: &mut Vec<Problem>) {
        let Some(above) = wildcard.parent().filter(|_| wildcard.is_wildcard()) else { return };
        for (name, sets) in &self.names {
            let hides = name.is_within(&above) && *name != above && *name != *wildcard;
            if hides && !self.steered.contains_key(name) && !self.is_delegated(name) {
                let why = format!(
                    "{name} exists, so the steered {wildcard} does not answer for it (RFC 4592 §3.3)"
                );
                problems.extend(sets.values().next().map(|set| Problem::warning(&set.at, why)));
            }
        }
    }

    fn check_steered(&self, owner: &Name, problems: &mut Vec<Problem>) {
        self.check_hidden(owner, problems);
        let mut error = |why: String| problems.push(Problem::error(&self.whole, why));
        if !owner.is_within(&self.apex) {
            error(format!("steered name {owner} is outside of zone {}", self.apex));
        }
        if let Some(cut) = self.cut_above(owner) {
            error(format!("steered name {owner} is delegated at {cut}"));
        }
        for rtype in [rtype::A, rtype::AAAA, rtype::DNAME] {
            if self.names.get(owner).is_some_and(|sets| sets.contains_key(&rtype)) {
                let shown = rtype::Shown(rtype);
                error(format!(
                    "{owner} is steered and has {shown} records in the zone file: keep one of both"
                ));
            }
        }
    }

    fn add_to(&self, zones: &mut Zones, has_parent: bool) {
        let zone = u32::try_from(zones.zones.len()).unwrap_or(u32::MAX);
        let mut existing: BTreeSet<Name> = BTreeSet::new();
        for name in self.names.keys().chain(self.steered.keys()) {
            let within = |n: &&[u8]| n.len() >= self.apex.as_wire().len();
            existing
                .extend(ancestors(name.as_wire()).take_while(within).filter_map(Name::from_wire));
        }
        let parent_side = zones.names.get(self.apex.as_wire()).copied();
        if has_parent {
            // What the parent has at and below this apex is glue at best: this zone knows better.
            let is_ours = |name: &[u8]| ancestors(name).any(|n| n == self.apex.as_wire());
            zones.names.retain(|name, _| !is_ours(name));
        }
        let first = zones.nodes.len();
        let id_of: BTreeMap<&Name, u32> = existing
            .iter()
            .zip(first..)
            .map(|(n, id)| (n, u32::try_from(id).unwrap_or(u32::MAX)))
            .collect();
        for name in &existing {
            let is_cut = *name != self.apex
                && self.names.get(name).is_some_and(|sets| sets.contains_key(&rtype::NS));
            let empty = BTreeMap::new();
            let sets = self.names.get(name).unwrap_or(&empty);
            zones.nodes.push(Node {
                zone,
                name_length: u8::try_from(name.as_wire().len()).unwrap_or(u8::MAX),
                rrsets: sets
                    .iter()
                    .map(|(rtype, set)| render(*rtype, set.ttl, &set.rdata))
                    .collect(),
                steered: self.steered.get(name).copied(),
                referral: sets
                    .get(&rtype::NS)
                    .filter(|_| is_cut)
                    .map(|servers| Box::new(self.referral(servers))),
                cut: self.cut_above(name).and_then(|cut| id_of.get(&cut).copied()),
                wildcard: name.wildcard().and_then(|wildcard| id_of.get(&wildcard).copied()),
            });
            zones.deepest = zones.deepest.max(label_count(name.as_wire()));
        }
        for (name, id) in id_of {
            zones.names.insert(name.as_wire().into(), id);
        }
        let soa = self.names.get(&self.apex).and_then(|sets| sets.get(&rtype::SOA));
        let rdata = soa.map(|soa| soa.rdata.as_slice()).unwrap_or_default();
        zones.zones.push(Zone {
            apex: self.apex.clone(),
            serial: self.serial,
            negative: render(rtype::SOA, self.negative_ttl, rdata),
            parent_side: parent_side
                .filter(|id| zones.nodes.get(*id as usize).is_some_and(|n| n.referral.is_some())),
        });
    }

    /// All glue that this zone holds for the servers; without it the delegation may not be followed (RFC 9471).
    fn referral(&self, servers: &Set) -> Referral {
        let mut glue = Vec::new();
        let mut glue_count = 0;
        for server in servers.rdata.iter().filter_map(|rdata| Name::from_wire(rdata)) {
            let Some(sets) = self.names.get(&server.to_lower()) else { continue };
            for rtype in [rtype::A, rtype::AAAA] {
                let Some(set) = sets.get(&rtype) else { continue };
                for rdata in &set.rdata {
                    glue.extend_from_slice(server.as_wire());
                    push_record_tail(&mut glue, rtype, set.ttl, rdata);
                    glue_count += 1;
                }
            }
        }
        Referral {
            servers: render(rtype::NS, servers.ttl, &servers.rdata),
            glue: glue.into(),
            glue_count,
        }
    }
}

fn render(rtype: u16, ttl: u32, rdata: &[Vec<u8>]) -> Rrset {
    let mut wire = Vec::new();
    for rdata in rdata {
        wire.extend(crate::wire::QUESTION_NAME.to_be_bytes());
        push_record_tail(&mut wire, rtype, ttl, rdata);
    }
    Rrset { rtype, ttl, count: u16::try_from(rdata.len()).unwrap_or(u16::MAX), wire: wire.into() }
}

/// Everything of a record but its owner.
fn push_record_tail(wire: &mut Vec<u8>, rtype: u16, ttl: u32, rdata: &[u8]) {
    wire.extend(rtype.to_be_bytes());
    wire.extend(crate::wire::class::IN.to_be_bytes());
    wire.extend(ttl.to_be_bytes());
    wire.extend(u16::try_from(rdata.len()).unwrap_or(u16::MAX).to_be_bytes());
    wire.extend(rdata);
}
