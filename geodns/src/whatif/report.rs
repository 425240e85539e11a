//! What a rehearsal found: per policy the split before and after, who moved where, and the load that this makes.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Group, Place, Rehearsal};
use crate::snapshot::Snapshot;
use crate::world::World;

/// The whole finding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What was changed.
    pub changes: Vec<String>,
    /// Who was asked for.
    pub asked: Source,
    /// Per policy and family of client networks.
    pub splits: Vec<Split>,
    /// Per datacenter, when the traffic is known.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub loads: Vec<Load>,
    /// Datacenters that get more than they can send.
    pub over_capacity: Vec<String>,
    /// What to keep in mind when reading this.
    pub notes: Vec<String>,
}

/// Who was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The map's population of client networks.
    Networks,
    /// The queries of a log.
    Log {
        /// Queries to steered names.
        queries: u64,
        /// Other queries: neither world steers them.
        not_steered: u64,
        /// Lines that could not be read.
        unreadable: u64,
    },
}

/// Where the clients of one policy go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Split {
    /// The policy, as the present configuration calls it.
    pub policy: String,
    /// The policy that answers these clients after the change, when it is another; empty: none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub policy_after: Option<String>,
    /// `IPv4` or `IPv6`: of the clients' networks.
    pub family: String,
    /// Networks or queries that were tried.
    pub tried: u64,
    /// Share that goes elsewhere after the change, 0 to 1.
    pub moved: f64,
    /// Per datacenter, those first that have most.
    pub datacenters: Vec<Share>,
    /// From where to where, the largest first.
    pub moves: Vec<Move>,
}

/// A datacenter's share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Its name; none: no datacenter was answered.
    pub datacenter: Option<String>,
    /// 0 to 1.
    pub before: f64,
    /// 0 to 1.
    pub after: f64,
}

/// A share that goes from one datacenter to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Move {
    /// None: no datacenter was answered.
    pub from: Option<String>,
    /// None: no datacenter is answered.
    pub to: Option<String>,
    /// Of all, 0 to 1.
    pub share: f64,
}

/// What a datacenter sends, in bits per second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Its name.
    pub datacenter: String,
    /// Now.
    pub before: f64,
    /// After the change.
    pub after: f64,
    /// What it can send.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub capacity: Option<u64>,
}

impl Load {
    /// Whether it is to send more than it can.
    pub fn is_over(&self) -> bool {
        self.capacity.is_some_and(|capacity| self.after > capacity as f64)
    }
}

/// How much is sent, in bits per second.
#[derive(Clone, Debug, PartialEq)]
pub enum Traffic {
    /// Not known.
    Unknown,
    /// By all together.
    Total(f64),
    /// By each datacenter now.
    Now(BTreeMap<String, f64>),
}

impl Traffic {
    /// What the edges say they send, where their reports are read and fresh.
    pub fn reported(snapshot: &Snapshot) -> Self {
        let world = &snapshot.tables.world;
        let mut by_datacenter: BTreeMap<String, f64> = BTreeMap::new();
        for (edge, report) in world.edges.iter().zip(&snapshot.health.facts.reports) {
            if let Some(report) = report.as_ref().filter(|report| report.egress_bps.is_finite()) {
                let name = world.datacenter_name(edge.datacenter).to_owned();
                *by_datacenter.entry(name).or_default() += report.egress_bps.max(0.0);
            }
        }
        if by_datacenter.is_empty() { Self::Unknown } else { Self::Now(by_datacenter) }
    }
}

impl Rehearsal<'_> {
    /// Adds it all up.
    pub fn report(
        &self,
        changes: Vec<String>,
        unreadable: Option<u64>,
        traffic: &Traffic,
    ) -> Report {
        let splits: Vec<Split> = self.splits();
        let mut notes = Vec::new();
        let asked = match unreadable {
            None => Source::Networks,
            Some(unreadable) => {
                if unreadable > 0 {
                    notes.push(format!("{unreadable} lines of the log could not be read"));
                }
                let queries = self.groups.values().map(|group| group.cases).sum();
                Source::Log { queries, not_steered: self.not_steered, unreadable }
            }
        };
        let loads = self.loads(&asked, traffic);
        if !loads.is_empty() && asked == Source::Networks && splits.len() > 1 {
            notes.push(
                "the load counts every policy and family alike: a query log tells how they are asked"
                    .to_owned(),
            );
        }
        let over = loads.iter().filter(|load| load.is_over());
        let over_capacity = over.map(|load| load.datacenter.clone()).collect();
        Report { changes, asked, splits, loads, over_capacity, notes }
    }

    fn name(&self, place: Place) -> Option<String> {
        self.names.get(usize::from(place?)).cloned()
    }

    fn splits(&self) -> Vec<Split> {
        let policy = |world: &World, id: Option<u16>| {
            id.and_then(|id| world.policies.get(usize::from(id)).map(|policy| policy.name.clone()))
        };
        let groups = self.groups.iter().filter(|(_, group)| group.weight > 0.0);
        let splits = groups.map(|(key, group)| {
            let before = policy(&self.before.tables.world, key.before);
            let after = policy(&self.after.tables.world, key.after);
            let is_same = before == after;
            Split {
                policy: before.unwrap_or_default(),
                policy_after: (!is_same).then(|| after.unwrap_or_default()),
                family: if key.is_v6 { "IPv6" } else { "IPv4" }.to_owned(),
                tried: group.cases,
                moved: group.moved() / group.weight,
                datacenters: self.shares(group),
                moves: self.moves(group),
            }
        });
        splits.collect()
    }

    fn shares(&self, group: &Group) -> Vec<Share> {
        let mut shares: BTreeMap<Place, (f64, f64)> = BTreeMap::new();
        for ((from, to), weight) in &group.moves {
            shares.entry(*from).or_default().0 += weight / group.weight;
            shares.entry(*to).or_default().1 += weight / group.weight;
        }
        let mut shares: Vec<Share> = shares
            .into_iter()
            .map(|(place, (before, after))| Share { datacenter: self.name(place), before, after })
            .collect();
        shares.sort_by(|a, b| b.before.total_cmp(&a.before));
        shares
    }

    fn moves(&self, group: &Group) -> Vec<Move> {
        let moves = group.moves.iter().filter(|((from, to), _)| from != to);
        let mut moves: Vec<Move> = moves
            .map(|((from, to), weight)| Move {
                from: self.name(*from),
                to: self.name(*to),
                share: weight / group.weight,
            })
            .collect();
        moves.sort_by(|a, b| b.share.total_cmp(&a.share));
        moves
    }

    /// The load of every datacenter. Queries of a log count one each; networks count by their share of their policy
    /// and family.
    fn loads(&self, asked: &Source, traffic: &Traffic) -> Vec<Load> {
        if *traffic == Traffic::Unknown {
            return Vec::new();
        }
        let mut moves: BTreeMap<(Place, Place), f64> = BTreeMap::new();
        for group in self.groups.values().filter(|group| group.weight > 0.0) {
            let unit = if *asked == Source::Networks { group.weight } else { 1.0 };
            for (pair, weight) in &group.moves {
                *moves.entry(*pair).or_default() += weight / unit;
            }
        }
        let mut from_total: BTreeMap<Place, f64> = BTreeMap::new();
        for ((from, _), weight) in &moves {
            *from_total.entry(*from).or_default() += weight;
        }
        // Who gets no answer brings no traffic.
        from_total.remove(&None);
        let all: f64 = from_total.values().sum();
        let now: BTreeMap<Place, f64> = match traffic {
            Traffic::Unknown => BTreeMap::new(),
            Traffic::Total(total) => {
                from_total.iter().map(|(place, share)| (*place, total * share / all)).collect()
            }
            Traffic::Now(by_name) => (0..)
                .zip(&self.names)
                .filter_map(|(place, name)| Some((Some(place), *by_name.get(name)?)))
                .collect(),
        };
        let mut after: BTreeMap<Place, f64> = BTreeMap::new();
        for (from, load) in &now {
            match from_total.get(from) {
                // Where no client is sent by what was asked, nobody moves.
                None => *after.entry(*from).or_default() += load,
                Some(total) => {
                    let from = moves.iter().filter(|((place, _), _)| place == from);
                    for ((_, to), weight) in from {
                        *after.entry(*to).or_default() += load * weight / total;
                    }
                }
            }
        }
        let places = (0..).zip(&self.names).map(|(place, name)| {
            let of = |loads: &BTreeMap<Place, f64>| loads.get(&Some(place)).copied();
            Load {
                datacenter: name.clone(),
                before: of(&now).unwrap_or(0.0),
                after: of(&after).unwrap_or(0.0),
                capacity: self.capacity(name),
            }
        });
        places.collect()
    }

    /// What a datacenter can send after the change.
    fn capacity(&self, name: &str) -> Option<u64> {
        let of = |world: &World| {
            world.datacenters.get(usize::from(world.datacenter_id(name)?)).map(|dc| dc.capacity)
        };
        of(&self.after.tables.world).or_else(|| of(&self.before.tables.world)).flatten()
    }
}

impl Group {
    fn moved(&self) -> f64 {
        let moves = self.moves.iter().filter(|((from, to), _)| from != to);
        // A sum of nothing would be -0.
        moves.fold(0.0, |sum, (_, weight)| sum + weight)
    }
}

/// Bits per second for people: `12.3 Gbps`.
pub fn rate(bits: f64) -> String {
    for (unit, factor) in [("Tbps", 1e12), ("Gbps", 1e9), ("Mbps", 1e6), ("kbps", 1e3)] {
        if bits >= factor {
            return format!("{:.1} {unit}", bits / factor);
        }
    }
    format!("{bits:.0} bps")
}

/// Moves that the table tells.
const MOST_MOVES: usize = 8;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.changes.as_slice() {
            [] => writeln!(f, "what if: nothing changes")?,
            changes => writeln!(f, "what if: {}", changes.join(", "))?,
        }
        if let Source::Log { queries, not_steered, unreadable } = &self.asked {
            writeln!(
                f,
                "log: {queries} queries to steered names, {not_steered} others, {unreadable} lines unreadable"
            )?;
        }
        for split in &self.splits {
            let what = if self.asked == Source::Networks { "networks" } else { "queries" };
            write!(f, "\npolicy {}", shown(&split.policy))?;
            if let Some(after) = &split.policy_after {
                write!(f, ", then {}", shown(after))?;
            }
            writeln!(
                f,
                ": {} clients, {} {what} tried, {:.2} % moved",
                split.family,
                split.tried,
                split.moved * 100.0
            )?;
            writeln!(f, "  {:<20} {:>10} {:>10} {:>9}", "DATACENTER", "BEFORE", "AFTER", "CHANGE")?;
            for share in &split.datacenters {
                writeln!(
                    f,
                    "  {:<20} {:>8.2} % {:>8.2} % {:>+9.2}",
                    share.datacenter.as_deref().unwrap_or("(no answer)"),
                    share.before * 100.0,
                    share.after * 100.0,
                    // What rounds to nothing has no sign.
                    ((share.after - share.before) * 10_000.0).round() / 100.0 + 0.0
                )?;
            }
            for moved in split.moves.iter().take(MOST_MOVES) {
                writeln!(
                    f,
                    "  {} -> {}: {:.2} %",
                    moved.from.as_deref().unwrap_or("(no answer)"),
                    moved.to.as_deref().unwrap_or("(no answer)"),
                    moved.share * 100.0
                )?;
            }
            if let Some(more) = split.moves.len().checked_sub(MOST_MOVES).filter(|more| *more > 0) {
                writeln!(f, "  and {more} smaller moves")?;
            }
        }
        if self.splits.is_empty() {
            writeln!(f, "\nno client was found that a policy steers")?;
        }
        if !self.loads.is_empty() {
            write!(f, "\n  {:<20} {:>12} {:>12} {:>12}", "LOAD", "BEFORE", "AFTER", "CAPACITY")?;
            writeln!(f)?;
        }
        for load in &self.loads {
            let capacity = load.capacity.map_or_else(|| "-".to_owned(), |bits| rate(bits as f64));
            write!(
                f,
                "  {:<20} {:>12} {:>12} ",
                load.datacenter,
                rate(load.before),
                rate(load.after)
            )?;
            write!(f, "{capacity:>12}")?;
            match load.capacity.filter(|capacity| *capacity > 0) {
                Some(bits) => {
                    let percent = load.after / bits as f64 * 100.0;
                    writeln!(f, " {percent:>5.0} %{}", if load.is_over() { "  OVER" } else { "" })?;
                }
                None => writeln!(f)?,
            }
        }
        for name in &self.over_capacity {
            writeln!(f, "OVER CAPACITY: {name}")?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        Ok(())
    }
}

fn shown(policy: &str) -> &str {
    if policy.is_empty() { "(none)" } else { policy }
}
