//! ALIAS: addresses and HTTPS records of another name of our zones, answered at a name that can have no CNAME.
//!
//! Where an ALIAS leads is settled when the zones are built, since all that it may lead through is theirs: nothing is
//! ever resolved elsewhere. What the last name holds, or how it is steered, is looked up for each query.

use std::collections::HashMap;

use super::{Alias, Found, Location, Problem, Special, Zones};
use crate::name::Name;
use crate::rtype;

/// Names that an ALIAS leads through at most.
const MAX_STEPS: usize = 8;

/// An ALIAS record whose target is not looked up yet.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) entry: u32,
    pub(super) target: Name,
    pub(super) ttl: u32,
    pub(super) at: Location,
}

/// Finds what each record leads to.
pub(super) fn resolve(zones: &mut Zones, pending: &[Pending], problems: &mut Vec<Problem>) {
    let by_entry: HashMap<u32, &Pending> = pending.iter().map(|p| (p.entry, p)).collect();
    for record in pending {
        match target(zones, &by_entry, record) {
            Ok(alias) => {
                let special = zones.specials.len() as u32;
                zones.specials.push(Special::Alias(Box::new(alias)));
                if let Some(entry) = zones.entries.get_mut(record.entry as usize) {
                    entry.special = special;
                }
            }
            Err(why) => problems.push(Problem::error(&record.at, format!("ALIAS: {why}"))),
        }
    }
}

fn target(
    zones: &Zones,
    by_entry: &HashMap<u32, &Pending>,
    record: &Pending,
) -> Result<Alias, String> {
    let mut name = record.target.clone();
    let mut ttl = record.ttl;
    let mut through = Vec::new();
    while through.len() < MAX_STEPS {
        let node = match zones.find(name.as_wire(), false) {
            Found::Node(_, node) => node,
            Found::Missing(zone) => {
                return Err(format!("{name} does not exist in zone {}: add it", zone.apex));
            }
            Found::Renamed(..) => {
                return Err(format!(
                    "{name} lies below a DNAME: write the name that this makes of it"
                ));
            }
            Found::Delegated(_) => {
                return Err(format!(
                    "{name} is delegated to other servers, and nothing is resolved elsewhere: name one of the zones served here"
                ));
            }
            Found::Foreign => {
                return Err(format!(
                    "{name} is in none of the zones served here, and nothing is resolved elsewhere: name one of them, or write A and AAAA records"
                ));
            }
        };
        let next = by_entry.get(&node.number).map(|next| (next.ttl, next.target.clone()));
        let next = next.or_else(|| {
            let alias = node.rrset(rtype::CNAME)?;
            Some((alias.ttl(), Name::from_wire(alias.first_rdata())?.to_lower()))
        });
        let Some((next_ttl, next_name)) = next else {
            let is_addressed = node.steered().is_some()
                || node.rrset(rtype::A).is_some()
                || node.rrset(rtype::AAAA).is_some();
            if !is_addressed {
                return Err(format!("{name} has neither A nor AAAA records, and is not steered"));
            }
            return Ok(Alias { ttl, node: node.number, name, through: through.into() });
        };
        if node.number == record.entry || through.contains(&next_name) {
            return Err(format!("{name} leads back to itself"));
        }
        ttl = ttl.min(next_ttl);
        through.push(std::mem::replace(&mut name, next_name));
    }
    Err(format!("more than {MAX_STEPS} names lead to {name}: name it itself"))
}
