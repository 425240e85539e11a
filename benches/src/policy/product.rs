//! The cache node's own policies: the tables that its memory tier is made of, with nothing in them.

use edge_cache::store::policy::{Kind, Settings, Table};

use super::{Cache, Item};

/// A table of the memory tier.
pub struct Product {
    table: Table<u64, ()>,
    gone: Vec<(u64, ())>,
}

impl Product {
    /// An empty one. `over_disk`: as over a disk tier.
    pub fn new(kind: Kind, capacity: u64, over_disk: bool) -> Self {
        let settings = Settings { kind, capacity, over_disk, seed: 0x5eed };
        Self { table: Table::new(settings), gone: Vec::new() }
    }

    /// An object that is there lies on the disk as well.
    pub fn settle(&mut self, id: u32) {
        self.table.settle(&u64::from(id));
    }
}

impl Cache for Product {
    fn request(&mut self, Item { id, weight, .. }: Item) -> bool {
        self.gone.clear();
        let id = u64::from(id);
        if self.table.get(&id).is_some() {
            return true;
        }
        self.table.insert(id, (), weight, &mut self.gone);
        false
    }

    fn weight(&self) -> u64 {
        self.table.weight()
    }

    fn held(&self) -> Option<u64> {
        Some(self.table.len() as u64)
    }
}
