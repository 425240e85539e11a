//! What a scrape is told of the node's state.

use shared::metrics::{Family, Registry};
use shared::report::State as Reported;

use super::{Node, State};
use crate::metrics;
use crate::world::World;

impl Node {
    pub(super) fn export(&self, registry: &Registry) {
        let mut state = self.state();
        state.collect_counts(registry);
        let served = self.served.load_full();
        let world = &served.snapshot.tables.world;
        let mut gauges = Gauges { registry, set: Vec::new() };
        for (id, datacenter) in (0..).zip(&world.datacenters) {
            let is_up = super::datacenter_is_up(world, &served.snapshot.health, id);
            gauges.set(&metrics::DATACENTER_UP, &[&datacenter.name], is_up.into());
        }
        for (policy, intakes) in world.policies.iter().zip(&served.snapshot.health.facts.intakes) {
            for id in &policy.datacenters {
                let Some(intake) = intakes.get(usize::from(*id)) else { continue };
                let share = intake.returned * (1.0 - intake.shed);
                let labels = [policy.name.as_str(), world.datacenter_name(*id)];
                gauges.set(&metrics::DATACENTER_INTAKE, &labels, share);
            }
        }
        self.export_targets(&state, world, &mut gauges);
        let suspected = state.monitor.suspicion().is_some();
        gauges.set(&metrics::MONITOR_SUSPECTED, &[], f64::from(u8::from(suspected)));
        gauges.forget_others();
    }

    fn export_targets(&self, state: &State, world: &World, gauges: &mut Gauges<'_>) {
        let now = self.now();
        for target in state.monitor.targets(now) {
            let (check, edge) = (target.key.0.as_str(), target.key.1.as_str());
            let is_up = target.state.is_usable();
            gauges.set(&metrics::EDGE_UP, &[edge, check], is_up.into());
            gauges.set(&metrics::EDGE_HELD, &[edge, check], target.held_until.is_some().into());
            if let Some(days) = target.certificate_days {
                gauges.set(&metrics::CERTIFICATE_DAYS, &[edge, check], days as f64);
            }
        }
        let reports = state.monitor.reports(world, now);
        for (edge, report) in world.edges.iter().zip(&reports) {
            let Some(report) = report else { continue };
            let labels = [edge.name.as_str()];
            let draining = report.state == Reported::Draining;
            gauges.set(&metrics::EDGE_LOAD, &labels, report.load);
            gauges.set(&metrics::EDGE_EGRESS, &labels, report.egress_bps);
            gauges.set(&metrics::EDGE_WARMTH, &labels, report.warmth);
            gauges.set(&metrics::EDGE_DRAINING, &labels, draining.into());
            if let Some(applied) = report.applied {
                gauges.set(&metrics::EDGE_APPLIED, &labels, applied as f64);
            }
        }
    }
}

/// The gauges of one scrape. What it does not set was of something that is gone.
struct Gauges<'r> {
    registry: &'r Registry,
    set: Vec<(&'static str, Vec<String>)>,
}

impl Gauges<'_> {
    fn set(&mut self, family: &'static Family, labels: &[&str], value: f64) {
        self.registry.gauge(family, labels).set(value);
        self.set.push((family.name, labels.iter().map(|label| (*label).to_owned()).collect()));
    }

    fn forget_others(mut self) {
        self.set.sort_unstable();
        for family in metrics::OF_STATE {
            let is_set = |labels: &[String]| {
                let key = |(name, set): &(&'static str, Vec<String>)| {
                    (*name, set.as_slice()).cmp(&(family.name, labels))
                };
                self.set.binary_search_by(key).is_ok()
            };
            self.registry.retain(family, is_set);
        }
    }
}
