//! Everything that answering reads: immutable, shared by all threads, replaced whole.
//!
//! A reload makes new [`Tables`]; a change of health makes a new [`View`] beside the same tables, which is cheap.

use std::ops::Range;
use std::sync::Arc;

use shared::geo::World as Geography;

use crate::health::{Facts, View};
use crate::map::Map;
use crate::service::Services;
use crate::world::{Policy, PolicyId, World};
use crate::zone::Zones;

/// What the configuration, the zone files and the databases say.
#[derive(Debug)]
pub struct Tables {
    /// What there is to steer to.
    pub world: World,
    /// Names and their records.
    pub zones: Zones,
    /// What is known of client networks. A rehearsal shares it.
    pub geography: Arc<Geography>,
    /// HTTPS records of steered names.
    pub services: Services,
    /// A map for each policy.
    maps: Vec<Map>,
}

impl Tables {
    /// Compiles the maps. Steered names have no HTTPS records yet.
    pub fn new(world: World, zones: Zones, geography: impl Into<Arc<Geography>>) -> Self {
        let geography = geography.into();
        let maps = world.policies.iter().map(|p| Map::compile(&world, p, &geography)).collect();
        Self { world, zones, geography, services: Services::default(), maps }
    }

    /// The same with HTTPS records.
    #[must_use]
    pub fn with_services(mut self, services: Services) -> Self {
        self.services = services;
        self
    }

    /// Where all that answering looks names and addresses up in lies.
    pub fn regions(&self) -> impl Iterator<Item = Range<*const u8>> {
        self.zones.regions().into_iter().chain(self.maps.iter().flat_map(Map::regions))
    }

    /// A policy and its map.
    pub fn policy(&self, id: PolicyId) -> Option<(&Policy, &Map)> {
        self.world.policies.get(usize::from(id)).zip(self.maps.get(usize::from(id)))
    }
}

/// Tables and health at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Replaced by a reload.
    pub tables: Arc<Tables>,
    /// Replaced when health changes.
    pub health: Arc<View>,
}

impl Snapshot {
    /// The tables with nothing known of anybody's health.
    pub fn presumed_up(tables: Tables) -> Self {
        let health = View::new(&tables.world, Facts::unknown(&tables.world), None);
        Self { tables: Arc::new(tables), health: Arc::new(health) }
    }

    /// New tables in place of this one's, at the health of `facts`. What was last good stays so when it means the same.
    #[must_use]
    pub fn with_tables(&self, tables: Tables, facts: Facts) -> Self {
        let same = tables.world.has_same_ids(&self.tables.world);
        let health = View::new(&tables.world, facts, same.then_some(&self.health));
        Self { tables: Arc::new(tables), health: Arc::new(health) }
    }

    /// The same tables at another state of health.
    #[must_use]
    pub fn with_health(&self, facts: Facts) -> Self {
        let health = View::new(&self.tables.world, facts, Some(&self.health));
        Self { tables: Arc::clone(&self.tables), health: Arc::new(health) }
    }
}
