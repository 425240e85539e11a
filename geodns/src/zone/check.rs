//! What a zone must not be: mistakes that would be served, each with its file and line and what would be right.

use super::contents::{APEX, Contents, Set};
use super::table::NONE;
use super::{Problem, Problems};
use crate::name::{Name, Shown, is_within};
use crate::rtype;

/// Checks a zone and learns its serial and negative TTL.
pub(super) fn check(zone: &mut Contents, problems: &mut Problems) {
    apex(zone, problems);
    let renamed = below(zone, |id| zone.has(id, rtype::DNAME));
    let wild = below(zone, |id| {
        let wildcard = zone.held(id).and_then(|held| zone.held(held.wildcard));
        wildcard.is_some_and(|wildcard| wildcard.policy.is_some())
    });
    for id in zone.ids() {
        for set in zone.sets(id) {
            one_set(zone, id, set, problems);
            targets(zone, id, set, problems);
        }
        surroundings(zone, id, &renamed, &wild, problems);
        steered(zone, id, problems);
    }
}

/// For each name the closest one above it that `holds`; empty when there is none at all.
fn below(zone: &Contents, holds: impl Fn(u32) -> bool) -> Vec<u32> {
    if !zone.ids().any(&holds) {
        return Vec::new();
    }
    let mut closest: Vec<u32> = Vec::with_capacity(zone.names.len());
    for held in &zone.names {
        let above = match held.parent {
            NONE => NONE,
            parent if holds(parent) => parent,
            parent => closest.get(parent as usize).copied().unwrap_or(NONE),
        };
        closest.push(above);
    }
    closest
}

fn at(closest: &[u32], id: u32) -> Option<u32> {
    closest.get(id as usize).copied().filter(|above| *above != NONE)
}

fn apex(zone: &mut Contents, problems: &mut Problems) {
    let Some(soa) = zone.set(APEX, rtype::SOA).copied() else {
        let why = format!("zone {} has no SOA record at its apex", zone.apex);
        problems.push(Problem::error(&zone.whole, why));
        return;
    };
    if soa.count > 1 {
        problems.push(zone.error(&soa, "a zone has one SOA record"));
    }
    let numbers = zone.rdata(&soa).next().and_then(|rdata| rdata.last_chunk::<20>()).copied();
    if let Some([s0, s1, s2, s3, .., m0, m1, m2, m3]) = numbers {
        zone.serial = u32::from_be_bytes([s0, s1, s2, s3]);
        zone.negative_ttl = soa.ttl.min(u32::from_be_bytes([m0, m1, m2, m3]));
    }
    match zone.set(APEX, rtype::NS) {
        None => {
            let why = format!("zone {} has no NS records at its apex", zone.apex);
            problems.push(Problem::error(&zone.whole, why));
        }
        Some(servers) if servers.count < 2 => problems.push(zone.warning(
            servers,
            "one nameserver alone takes the zone down with it (RFC 2182 §5 wants two)",
        )),
        Some(_) => {}
    }
}

fn one_set(zone: &Contents, id: u32, set: &Set, problems: &mut Problems) {
    let owner = zone.shown(id);
    let is_steered = zone.held(id).is_some_and(|held| held.policy.is_some());
    let is_alone = zone.sets(id).len() == 1 && !is_steered;
    let shown = rtype::Shown(set.rtype);
    let why = match set.rtype {
        rtype::SOA if id != APEX => {
            format!("SOA belongs to the apex {}, not to {owner}", zone.apex)
        }
        rtype::CNAME if !is_alone => {
            format!("{owner} has a CNAME and other data: a CNAME stands alone (RFC 1034 §3.6.2)")
        }
        rtype::CNAME | rtype::DNAME | rtype::ALIAS if set.count > 1 => {
            format!("{owner} has more than one {shown} record")
        }
        rtype::NS if zone.is_wildcard(id) => {
            "a wildcard cannot be delegated (RFC 4592 §4.2)".to_owned()
        }
        rtype::DNAME if zone.is_wildcard(id) => {
            "a wildcard cannot be renamed (RFC 6672 §3.3)".to_owned()
        }
        rtype::DNAME if id != APEX && zone.has(id, rtype::NS) => {
            format!("{owner} is delegated and has a DNAME (RFC 6672 §5.2)")
        }
        rtype::DS if id == APEX => "DS belongs to the parent of this zone".to_owned(),
        rtype::ALIAS if is_steered => {
            format!("{owner} is steered and has an ALIAS: keep one of both")
        }
        rtype::ALIAS if zone.has(id, rtype::A) || zone.has(id, rtype::AAAA) => format!(
            "{owner} has an ALIAS and addresses of its own: an ALIAS stands for them, keep one of both"
        ),
        rtype::ALIAS if zone.held(id).is_some_and(|held| held.cut != NONE) => {
            format!("{owner} is delegated: its addresses are not answered here")
        }
        _ => return,
    };
    problems.push(zone.error(set, why));
}

/// Nameservers must have addresses here when their names are here, and must not be aliases (RFC 2181 §10.3).
fn targets(zone: &Contents, owner: u32, set: &Set, problems: &mut Problems) {
    let skip = match set.rtype {
        rtype::NS => 0,
        rtype::MX => 2,
        rtype::SRV => 6,
        _ => return,
    };
    for target in zone.rdata(set).filter_map(|rdata| Name::from_wire(rdata.get(skip..)?)) {
        let target = target.to_lower();
        if !target.is_within(&zone.apex) {
            continue;
        }
        let shown = rtype::Shown(set.rtype);
        let held = zone.find(target.as_wire());
        if held.is_some_and(|id| zone.has(id, rtype::CNAME)) {
            let why = format!("the {shown} target {target} is an alias: name the host itself");
            problems.push(zone.error(set, why));
        }
        let addressed = held.is_some_and(|id| {
            zone.has(id, rtype::A)
                || zone.has(id, rtype::AAAA)
                || zone.held(id).is_some_and(|held| held.policy.is_some())
        });
        let elsewhere = zone.cut_above(target.as_wire()).is_some()
            && !is_within(target.as_wire(), zone.name(owner));
        if set.rtype == rtype::NS && !addressed && !elsewhere {
            let why = format!("nameserver {target} has no address here: add its A or AAAA record");
            problems.push(zone.error(set, why));
        }
    }
}

/// What the names above make of a name: a DNAME and a delegation end the zone, a steered wildcard loses the name.
fn surroundings(zone: &Contents, id: u32, renamed: &[u32], wild: &[u32], problems: &mut Problems) {
    let (Some(held), Some(first)) = (zone.held(id), zone.sets(id).first()) else { return };
    let owner = zone.shown(id);
    if let Some(above) = at(renamed, id) {
        let why = format!(
            "{owner} cannot exist below the DNAME of {} (RFC 6672 §2.4)",
            zone.shown(above)
        );
        problems.push(zone.error(first, why));
    }
    let is_glue = |set: &&Set| matches!(set.rtype, rtype::A | rtype::AAAA);
    if held.cut != NONE
        && held.cut != id
        && let Some(set) = zone.sets(id).iter().find(|set| !is_glue(set))
    {
        let cut = zone.shown(held.cut);
        let why = format!("{owner} lies below the delegation of {cut}: only glue is used there");
        problems.push(zone.warning(set, why));
    }
    if let Some(above) = at(wild, id)
        && held.policy.is_none()
        && held.cut == NONE
    {
        let wildcard = zone.held(above).map_or(NONE, |above| above.wildcard);
        if wildcard != id {
            let why = format!(
                "{owner} exists, so the steered {} does not answer for it (RFC 4592 §3.3)",
                zone.shown(wildcard)
            );
            problems.push(zone.warning(first, why));
        }
    }
}

fn steered(zone: &Contents, id: u32, problems: &mut Problems) {
    let Some(held) = zone.held(id).filter(|held| held.policy.is_some()) else { return };
    let owner = Shown(zone.name(id));
    if held.cut != NONE
        && let Some(servers) = zone.set(held.cut, rtype::NS)
    {
        let why = format!("steered name {owner} is delegated at {}", zone.shown(held.cut));
        problems.push(zone.error(servers, why));
    }
    for rtype in [rtype::A, rtype::AAAA, rtype::DNAME] {
        if let Some(set) = zone.set(id, rtype) {
            let why = format!(
                "{owner} is steered and has {} records in the zone file: keep one of both",
                rtype::Shown(rtype)
            );
            problems.push(zone.error(set, why));
        }
    }
}
