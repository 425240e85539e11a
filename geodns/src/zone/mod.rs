//! Zones: what names exist, what they hold, where authority ends.
//!
//! [`mod@file`] reads master files, [`Builder`] checks their records and renders them to wire form, [`Zones::find`] looks a
//! name up. All zones share one table of names, keyed by their lower-case wire form, in which every existing name has
//! a node, empty non-terminals included; so the cost of an answer, a negative one too, grows with the labels of the
//! name asked and not with the number of names held. A name's octets and its rendered records lie side by side in one
//! piece of memory: a static name with an A record takes 81 octets, 35 of them its name and record. Measured by
//! `benches/src/bin/dns_memory.rs`: a million names load in 1.3 s, and a load takes 205 octets a name at its peak, beside
//! the zones in service.

mod alias;
mod build;
mod check;
mod contents;
pub mod file;
mod loc;
mod rdata;
mod records;
mod svcb;
mod table;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

pub use build::{Builder, Steered};
pub use records::{Record, Records};

use crate::name::{Name, Shown, ancestors, label_count};
use table::{NameTable, tag_of};
use xxhash_rust::xxh3::xxh3_64;

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
        Self { at: at.clone(), message: printable(message.into()), is_warning: false }
    }

    fn warning(at: &Location, message: impl Into<String>) -> Self {
        Self { at: at.clone(), message: printable(message.into()), is_warning: true }
    }
}

/// Messages quote the file, and the file may hold anything: nothing of it steers a terminal or begins a line of a log.
fn printable(message: String) -> String {
    if !message.contains(char::is_control) {
        return message;
    }
    let escaped = |shown: char| {
        let keep = (!shown.is_control()).then_some(shown);
        keep.into_iter().chain(shown.escape_default().filter(move |_| keep.is_none()))
    };
    message.chars().flat_map(escaped).collect()
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at.line {
            0 => write!(f, "{}: {}", self.at.file, self.message),
            line => write!(f, "{}:{line}: {}", self.at.file, self.message),
        }
    }
}

/// What is wrong with a zone: so many of each kind, for whoever has more is looking at the wrong file.
#[derive(Debug, Default)]
struct Problems {
    list: Vec<Problem>,
    errors: usize,
    warnings: usize,
}

/// Mistakes of a kind that are told of a zone.
const MAX_PROBLEMS: usize = 50;

impl Problems {
    fn push(&mut self, problem: Problem) {
        let count = if problem.is_warning { &mut self.warnings } else { &mut self.errors };
        *count += 1;
        if *count <= MAX_PROBLEMS {
            self.list.push(problem);
        }
    }
}

/// Index of a steering policy in the world it was built with.
pub type PolicyId = u16;

/// All zones that are served.
#[derive(Clone, Debug, Default)]
pub struct Zones {
    /// Names to positions in `entries`.
    table: NameTable,
    entries: Vec<Entry>,
    /// Of each name its octets, the number of its sets, and the sets: type, number of records, length, records.
    octets: Vec<u8>,
    /// What few names have.
    specials: Vec<Special>,
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
    pub negative: Box<[u8]>,
    /// The parent's side of the cut, where the parent is served here too: it answers DS. Else no position.
    parent_side: u32,
}

/// A name that exists. Positions are [`table::NONE`] where there is nothing.
#[derive(Clone, Debug)]
struct Entry {
    /// Where its octets begin.
    at: u32,
    zone: u32,
    /// The delegation that this name lies at or below.
    cut: u32,
    /// The `*` below this name.
    wildcard: u32,
    special: u32,
    policy: PolicyId,
    name_length: u8,
    has_dname: bool,
}

impl Entry {
    /// Positions are 16 bits wide and fewer than this.
    const NO_POLICY: PolicyId = PolicyId::MAX;
}

#[derive(Clone, Debug)]
enum Special {
    Referral(Referral),
    Alias(Box<Alias>),
}

/// A name that exists, to be read.
#[derive(Clone, Copy)]
pub struct Node<'z> {
    zones: &'z Zones,
    entry: &'z Entry,
    /// Its position among all names.
    number: u32,
}

/// The records of one type at one name, rendered with the question's name as their owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rrset<'z> {
    /// Type.
    pub rtype: u16,
    /// How many.
    pub count: u16,
    /// Their octets.
    pub wire: &'z [u8],
}

/// The RDATA of the first record begins here: pointer, type, class, TTL and length lie before it.
pub const RDATA_AT: usize = 12;

impl<'z> Rrset<'z> {
    /// TTL in seconds, the same for all records.
    pub fn ttl(self) -> u32 {
        match self.wire.first_chunk::<RDATA_AT>() {
            Some(&[_, _, _, _, _, _, t0, t1, t2, t3, _, _]) => u32::from_be_bytes([t0, t1, t2, t3]),
            None => 0,
        }
    }

    /// RDATA of the first record.
    pub fn first_rdata(self) -> &'z [u8] {
        let Some((&[.., high, low], rest)) = self.wire.split_first_chunk::<RDATA_AT>() else {
            return &[];
        };
        rest.get(..usize::from(u16::from_be_bytes([high, low]))).unwrap_or(rest)
    }
}

/// The delegation of a name to other servers, whose names are its NS records.
#[derive(Clone, Debug)]
pub struct Referral {
    /// Addresses of servers, owner names in full.
    pub glue: Box<[u8]>,
    /// How many.
    pub glue_count: u16,
}

/// Another name of our zones whose addresses and HTTPS records are answered at this one.
#[derive(Clone, Debug)]
pub struct Alias {
    /// TTL at most: the lowest on the way.
    pub ttl: u32,
    /// The name whose records are answered: no alias itself.
    pub name: Name,
    /// The names between, in order.
    pub through: Box<[Name]>,
    node: u32,
}

impl<'z> Node<'z> {
    /// Its name in lower case: of a wildcard the `*` itself.
    pub fn name(self) -> &'z [u8] {
        let at = self.entry.at as usize;
        self.zones.octets.get(at..at + self.name_length()).unwrap_or(&[0])
    }

    /// Octets of its name, by which a pointer into a longer name is computed.
    pub fn name_length(self) -> usize {
        usize::from(self.entry.name_length)
    }

    /// The policy that answers its A, AAAA and HTTPS queries.
    pub fn steered(self) -> Option<PolicyId> {
        Some(self.entry.policy).filter(|policy| *policy != Entry::NO_POLICY)
    }

    /// What it holds, by ascending type; nothing for an empty non-terminal.
    pub fn rrsets(self) -> impl Iterator<Item = Rrset<'z>> {
        let after_name = self.entry.at as usize + self.name_length();
        let rest = self.zones.octets.get(after_name..).unwrap_or_default();
        let (count, rest) = match rest.split_first_chunk::<2>() {
            Some((count, rest)) => (u16::from_be_bytes(*count), rest),
            None => (0, rest),
        };
        Sets { left: count, rest }
    }

    /// The records of a type.
    pub fn rrset(self, rtype: u16) -> Option<Rrset<'z>> {
        self.rrsets().find(|rrset| rrset.rtype == rtype)
    }

    /// The delegation at this name.
    pub fn referral(self) -> Option<&'z Referral> {
        match self.zones.specials.get(self.entry.special as usize) {
            Some(Special::Referral(referral)) => Some(referral),
            _ => None,
        }
    }

    /// The ALIAS of this name, and what it leads to.
    pub fn alias(self) -> Option<(&'z Alias, Self)> {
        match self.zones.specials.get(self.entry.special as usize) {
            Some(Special::Alias(alias)) => Some((alias, self.zones.entry(alias.node)?)),
            _ => None,
        }
    }
}

impl fmt::Debug for Node<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Shown(self.name()))
    }
}

/// The sets of a name, one after the other.
struct Sets<'z> {
    left: u16,
    rest: &'z [u8],
}

impl<'z> Iterator for Sets<'z> {
    type Item = Rrset<'z>;

    #[inline]
    fn next(&mut self) -> Option<Rrset<'z>> {
        self.left = self.left.checked_sub(1)?;
        let (head, rest) = self.rest.split_first_chunk::<{ build::SET_HEAD }>()?;
        let [t0, t1, c0, c1, l0, l1, l2, l3] = *head;
        let (wire, rest) = rest.split_at_checked(u32::from_be_bytes([l0, l1, l2, l3]) as usize)?;
        self.rest = rest;
        let (rtype, count) = (u16::from_be_bytes([t0, t1]), u16::from_be_bytes([c0, c1]));
        Some(Rrset { rtype, count, wire })
    }
}

/// What a name leads to.
#[derive(Clone, Copy, Debug)]
pub enum Found<'z> {
    /// The name exists, or a wildcard stands for it (RFC 4592 §3.3).
    Node(&'z Zone, Node<'z>),
    /// It lies at or below a delegation.
    Delegated(Node<'z>),
    /// A DNAME above it moves it elsewhere (RFC 6672).
    Renamed(&'z Zone, Node<'z>),
    /// The zone has no such name.
    Missing(&'z Zone),
    /// It is in no zone served here.
    Foreign,
}

impl Zones {
    /// Looks up a name in lower-case wire form. `for_ds`: the question is for DS records, which the parent's side of
    /// a cut holds (RFC 4035 §3.1.4.1).
    pub fn find(&self, name: &[u8], for_ds: bool) -> Found<'_> {
        self.find_hashed(name, xxh3_64(name), for_ds)
    }

    /// As [`find`](Self::find) with the XXH3 of `name`.
    pub fn find_hashed(&self, name: &[u8], hash: u64, for_ds: bool) -> Found<'_> {
        let hash_of = |above: &[u8]| if above.len() == name.len() { hash } else { xxh3_64(above) };
        let too_deep = label_count(name).saturating_sub(self.deepest);
        let mut candidates = ancestors(name).skip(too_deep);
        let closest = candidates.find_map(|ancestor| self.node(ancestor, hash_of(ancestor)));
        let Some(node) = closest else { return Found::Foreign };
        let Some(zone) = self.zones.get(node.entry.zone as usize) else { return Found::Foreign };
        let exact = node.name_length() == name.len();
        if for_ds
            && exact
            && zone.apex.as_wire().len() == name.len()
            && let Some(node) = self.entry(zone.parent_side)
            && let Some(parent) = self.zones.get(node.entry.zone as usize)
        {
            return Found::Node(parent, node);
        }
        if let Some(cut) = self.entry(node.entry.cut) {
            let at_the_cut = exact && cut.name_length() == name.len();
            return if for_ds && at_the_cut {
                Found::Node(zone, node)
            } else {
                Found::Delegated(cut)
            };
        }
        if exact {
            return Found::Node(zone, node);
        }
        if node.entry.has_dname {
            return Found::Renamed(zone, node);
        }
        match self.entry(node.entry.wildcard) {
            Some(wildcard) => Found::Node(zone, wildcard),
            None => Found::Missing(zone),
        }
    }

    /// Whether a name in lower-case wire form exists itself; a wildcard that would stand for it does not count.
    pub fn exists(&self, name: &[u8]) -> bool {
        self.node(name, xxh3_64(name)).is_some()
    }

    /// Where looking up the name with this XXH3 begins.
    #[inline]
    pub fn slot_at(&self, hash: u64) -> *const u8 {
        self.table.slot_at(tag_of(hash))
    }

    /// The number of the entry that is most probably that name's.
    #[inline]
    pub fn guess(&self, hash: u64) -> Option<u32> {
        self.table.find(tag_of(hash), |_| true)
    }

    /// Where an entry lies: its first and its last octet.
    #[inline]
    pub fn entry_at(&self, number: u32) -> [*const u8; 2] {
        let entry = self.entries.as_ptr().wrapping_add(number as usize).cast::<u8>();
        [entry, entry.wrapping_add(size_of::<Entry>() - 1)]
    }

    /// The policy that answers for an entry.
    #[inline]
    pub fn policy_of(&self, number: u32) -> Option<PolicyId> {
        self.entry(number)?.steered()
    }

    /// Where the name and the first records of an entry lie: two lines of the cache hold most.
    #[inline]
    pub fn records_at(&self, number: u32) -> [*const u8; 2] {
        let at = self.entries.get(number as usize).map_or(0, |entry| entry.at as usize);
        let first = self.octets.as_ptr().wrapping_add(at);
        [first, first.wrapping_add(63)]
    }

    /// The zones, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Zone> {
        self.zones.iter()
    }

    /// How many names exist, empty non-terminals included.
    pub fn names(&self) -> usize {
        self.table.len()
    }

    /// Every steered name and its policy.
    pub fn steered(&self) -> impl Iterator<Item = (Name, PolicyId)> {
        let nodes = (0..self.entries.len() as u32).filter_map(|number| self.entry(number));
        nodes.filter_map(|node| Some((Name::from_wire(node.name())?, node.steered()?)))
    }

    /// Where the tables lie.
    pub fn regions(&self) -> [Range<*const u8>; 3] {
        let Range { start, end } = self.entries.as_ptr_range();
        [self.table.region(), start.cast()..end.cast(), self.octets.as_ptr_range()]
    }

    /// Octets of memory, but for the glue of delegations and what is said of each zone.
    pub fn memory(&self) -> usize {
        self.table.memory() + self.entries.capacity() * size_of::<Entry>() + self.octets.capacity()
    }

    #[inline]
    fn node(&self, name: &[u8], hash: u64) -> Option<Node<'_>> {
        let is_it = |id: u32| self.entry(id).is_some_and(|node| node.name() == name);
        self.entry(self.table.find(tag_of(hash), is_it)?)
    }

    #[inline]
    fn entry(&self, number: u32) -> Option<Node<'_>> {
        Some(Node { zones: self, entry: self.entries.get(number as usize)?, number })
    }
}

#[cfg(test)]
mod tests;
