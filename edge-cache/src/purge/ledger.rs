//! The last purges that a node was given, for `GET /v1/purge/{id}` and to tell one that is given twice.

use std::collections::VecDeque;
use std::sync::Arc;

use shared::time::UnixMillis;
use xxhash_rust::xxh3::xxh3_64;

use super::{Kind, Position, Target};

/// Purges that are remembered.
const REMEMBERED: usize = 1024;

/// A purge in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// By which it is asked for.
    pub id: Arc<str>,
    /// Where it takes effect on this node.
    pub position: Position,
    /// Hard or soft.
    pub kind: Kind,
    /// How many targets it has.
    pub targets: usize,
    /// When it came.
    pub time: UnixMillis,
    /// Its number among what was handed to the log; 0: it was read from there, or there is none.
    pub entry: u64,
}

/// The last purges, the oldest first.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    records: VecDeque<Record>,
}

impl Ledger {
    /// The id of a purge: the same for the same purge, on every node.
    pub fn id(wanted: Position, kind: Kind, targets: &[Target]) -> Arc<str> {
        let hash = xxh3_64(format!("{kind:?} {targets:?}").as_bytes());
        format!("{wanted}-{hash:016x}").into()
    }

    /// The purge with this id, if it is one of the last.
    pub fn find(&self, id: &str) -> Option<&Record> {
        self.records.iter().rev().find(|record| &*record.id == id)
    }

    /// All of them, the oldest first.
    pub(super) fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.iter()
    }

    /// Remembers one.
    pub fn note(&mut self, record: Record) {
        if self.records.len() == REMEMBERED {
            self.records.pop_front();
        }
        self.records.push_back(record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_are_remembered() {
        let mut ledger = Ledger::default();
        let target = |n: usize| [Target::Tag(n.to_string().into())];
        for n in 0..REMEMBERED + 10 {
            let id = Ledger::id(Position(7), Kind::Hard, &target(n));
            let (position, time) = (Position(7), UnixMillis(0));
            ledger.note(Record { id, position, kind: Kind::Hard, targets: 1, time, entry: 0 });
        }
        assert_eq!(ledger.records.len(), REMEMBERED);
        assert!(ledger.find(&Ledger::id(Position(7), Kind::Hard, &target(9))).is_none());
        assert!(ledger.find(&Ledger::id(Position(7), Kind::Hard, &target(10))).is_some());
        assert!(ledger.find(&Ledger::id(Position(7), Kind::Soft, &target(10))).is_none());
        assert!(ledger.find(&Ledger::id(Position(8), Kind::Hard, &target(10))).is_none());
    }
}
