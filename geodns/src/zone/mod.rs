//! Zones: what names exist, what they hold, where authority ends.
//!
//! [`mod@file`] reads master files, [`Builder`] checks their records and renders them to wire form, [`Zones::find`] looks a
//! name up. All zones share one table of names, keyed by their lower-case wire form, in which every existing name has
//! a node, empty non-terminals included; so the cost of an answer, a negative one too, grows with the labels of the
//! name asked and not with the number of names held.

mod build;
pub mod file;
mod rdata;
mod svcb;

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

pub use build::{Builder, Steered};

use crate::name::{Name, ancestors, label_count};

/// A place in a zone file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The file, as it was named.
    pub file: Arc<str>,
    /// From 1; 0 for the file as a whole.
    pub line: u32,
}

/// A mistake in a zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub at: Location,
    /// What, and what would be right.
    pub message: String,
    /// Whether the zone can be served all the same.
    pub is_warning: bool,
}

impl Problem {
    fn error(at: &Location, message: impl Into<String>) -> Self {
        Self { at: at.clone(), message: message.into(), is_warning: false }
    }

    fn warning(at: &Location, message: impl Into<String>) -> Self {
        Self { at: at.clone(), message: message.into(), is_warning: true }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at.line {
            0 => write!(f, "{}: {}", self.at.file, self.message),
            line => write!(f, "{}:{line}: {}", self.at.file, self.message),
        }
    }
}

/// Index of a steering policy in the world it was built with.
pub type PolicyId = u16;

/// All zones that are served.
#[derive(Clone, Debug, Default)]
pub struct Zones {
    names: HashMap<Box<[u8]>, u32, BuildHasherDefault<NameHasher>>,
    nodes: Vec<Node>,
    zones: Vec<Zone>,
    /// Labels of the longest name that exists: longer ones need not be looked for.
    deepest: usize,
}

/// What is said of a zone as a whole.
#[derive(Clone, Debug)]
pub struct Zone {
    /// Its name, in lower case.
    pub apex: Name,
    /// The serial of its SOA record.
    pub serial: u32,
    /// The SOA record for negative answers: TTL no more than MINIMUM (RFC 2308 §3), owner to be set.
    pub negative: Rrset,
    /// The parent's side of the cut, where the parent is served here too: it answers DS.
    parent_side: Option<u32>,
}

/// A name that exists.
#[derive(Clone, Debug, Default)]
pub struct Node {
    zone: u32,
    /// Octets of its name, by which a pointer into a longer name is computed.
    pub name_length: u8,
    /// What it holds; nothing for an empty non-terminal.
    pub rrsets: Box<[Rrset]>,
    /// The policy that answers its A and AAAA queries.
    pub steered: Option<PolicyId>,
    /// The delegation at this name.
    pub referral: Option<Box<Referral>>,
    /// The delegation that this name lies at or below.
    cut: Option<u32>,
    /// The `*` below this name.
    wildcard: Option<u32>,
}

/// The records of one type at one name, rendered with the question's name as their owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rrset {
    /// Type.
    pub rtype: u16,
    /// TTL.
    pub ttl: u32,
    /// How many.
    pub count: u16,
    /// Their octets.
    pub wire: Box<[u8]>,
}

/// The RDATA of the first record begins here: pointer, type, class, TTL and length lie before it.
pub const RDATA_AT: usize = 12;

impl Rrset {
    /// RDATA of the first record.
    pub fn first_rdata(&self) -> &[u8] {
        let Some((&[.., high, low], rest)) = self.wire.split_first_chunk::<RDATA_AT>() else {
            return &[];
        };
        rest.get(..usize::from(u16::from_be_bytes([high, low]))).unwrap_or(rest)
    }
}

/// The delegation of a name to other servers.
#[derive(Clone, Debug)]
pub struct Referral {
    /// NS records.
    pub servers: Rrset,
    /// Addresses of servers in the delegated zone, owner names in full.
    pub glue: Box<[u8]>,
    /// How many.
    pub glue_count: u16,
}

impl Node {
    /// The records of a type.
    pub fn rrset(&self, rtype: u16) -> Option<&Rrset> {
        self.rrsets.iter().find(|rrset| rrset.rtype == rtype)
    }
}

/// What a name leads to.
#[derive(Clone, Copy, Debug)]
pub enum Found<'z> {
    /// The name exists, or a wildcard stands for it (RFC 4592 §3.3).
    Node(&'z Zone, &'z Node),
    /// It lies at or below a delegation.
    Delegated(&'z Node),
    /// A DNAME above it moves it elsewhere (RFC 6672).
    Renamed(&'z Zone, &'z Node),
    /// The zone has no such name.
    Missing(&'z Zone),
    /// It is in no zone served here.
    Foreign,
}

impl Zones {
    /// Looks up a name in lower-case wire form. `for_ds`: the question is for DS records, which the parent's side of
    /// a cut holds (RFC 4035 §3.1.4.1).
    pub fn find(&self, name: &[u8], for_ds: bool) -> Found<'_> {
        let too_deep = label_count(name).saturating_sub(self.deepest);
        let mut candidates = ancestors(name).skip(too_deep);
        let closest = candidates.find_map(|ancestor| Some((ancestor, self.node(ancestor)?)));
        let Some((encloser, node)) = closest else { return Found::Foreign };
        let Some(zone) = self.zones.get(node.zone as usize) else { return Found::Foreign };
        let exact = encloser.len() == name.len();
        if for_ds
            && exact
            && let Some(parent_side) = zone.parent_side
            && zone.apex.as_wire() == name
            && let Some(node) = self.nodes.get(parent_side as usize)
            && let Some(parent) = self.zones.get(node.zone as usize)
        {
            return Found::Node(parent, node);
        }
        if let Some(cut) = node.cut.and_then(|cut| self.nodes.get(cut as usize)) {
            let at_the_cut = exact && usize::from(cut.name_length) == name.len();
            return if for_ds && at_the_cut {
                Found::Node(zone, node)
            } else {
                Found::Delegated(cut)
            };
        }
        if exact {
            return Found::Node(zone, node);
        }
        if node.rrset(crate::rtype::DNAME).is_some() {
            return Found::Renamed(zone, node);
        }
        match node.wildcard.and_then(|wildcard| self.nodes.get(wildcard as usize)) {
            Some(wildcard) => Found::Node(zone, wildcard),
            None => Found::Missing(zone),
        }
    }

    /// The zones, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Zone> {
        self.zones.iter()
    }

    /// How many names exist, empty non-terminals included.
    pub fn names(&self) -> usize {
        self.names.len()
    }

    /// Every steered name and its policy.
    pub fn steered(&self) -> impl Iterator<Item = (Name, PolicyId)> {
        self.names.iter().filter_map(|(name, node)| {
            let policy = self.nodes.get(*node as usize)?.steered?;
            Some((Name::from_wire(name)?, policy))
        })
    }

    fn node(&self, name: &[u8]) -> Option<&Node> {
        self.nodes.get(*self.names.get(name)? as usize)
    }
}

/// XXH3 of the name's octets. Who asks cannot add names, so the table needs no secret.
#[derive(Clone, Copy, Debug, Default)]
struct NameHasher(u64);

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxhash_rust::xxh3::xxh3_64_with_seed(bytes, self.0);
    }

    /// The length, which std writes before a slice, adds nothing to a name that ends with its root.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests;
