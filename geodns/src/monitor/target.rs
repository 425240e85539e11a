//! What is known of one target: its results, its flapping, what it says of itself.

use std::sync::Arc;
use std::time::Duration;

use shared::health::{Health, State};
use shared::report::{self, Report};
use shared::time::UnixMillis;

use super::hold::{Damping, Hold};
use super::{Belief, Probed};
use crate::config::Check;
use crate::world::DatacenterId;

/// A target.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) datacenter: DatacenterId,
    /// What the results say.
    pub(super) health: Health,
    /// What is believed: the same, but for the time that a target which flaps is held down.
    pub(super) state: State,
    pub(super) since: UnixMillis,
    pub(super) hold: Hold,
    /// The hold before the last fall: what counts when that fall is never believed.
    before_fall: Hold,
    /// Its last fall was part of an event that turned out to be a fault of this machine.
    was_doubted: bool,
    damping: Damping,
    interval: Duration,
    /// For how long a report is what the target says now.
    report_lasts: Duration,
    pub(super) results: u64,
    /// Believed because the last run did.
    pub(super) is_restored: bool,
    /// When the last run had its last result.
    pub(super) restored_from: Option<UnixMillis>,
    /// When the last result came, and the last good one.
    pub(super) last: Option<UnixMillis>,
    pub(super) last_good: Option<UnixMillis>,
    pub(super) failure: Option<Arc<str>>,
    pub(super) went_down: Option<UnixMillis>,
    report: Option<(Arc<Report>, UnixMillis)>,
    /// The report that views were last made from.
    shown: Option<Arc<Report>>,
    pub(super) certificate_days: Option<i64>,
}

impl Target {
    pub(super) fn new(check: &Check, datacenter: DatacenterId, now: UnixMillis) -> Self {
        let mut target = Self {
            datacenter,
            health: Health::new(check.thresholds),
            state: State::Unknown,
            since: now,
            hold: Hold::default(),
            before_fall: Hold::default(),
            was_doubted: false,
            damping: Damping::new(Duration::ZERO, Duration::ZERO),
            interval: check.interval,
            report_lasts: Duration::ZERO,
            results: 0,
            is_restored: false,
            restored_from: None,
            last: None,
            last_good: None,
            failure: None,
            went_down: None,
            report: None,
            shown: None,
            certificate_days: None,
        };
        target.configure(check, datacenter);
        target
    }

    /// Takes the settings of a new configuration.
    pub(super) fn configure(&mut self, check: &Check, datacenter: DatacenterId) {
        self.datacenter = datacenter;
        self.health.set_thresholds(check.thresholds);
        self.interval = check.interval;
        self.damping = Damping::new(check.detection(), check.hold_down);
        self.report_lasts = check.detection();
    }

    /// Goes on with what the last run knew.
    pub(super) fn restore(&mut self, belief: &Belief) {
        self.health.believe(belief.state);
        self.state = belief.state;
        self.since = belief.since;
        self.hold = belief.hold;
        self.is_restored = true;
        self.restored_from = Some(belief.seen);
    }

    /// Takes one result. `stands`: its last fall is not believed. Returns the new state if it changed.
    pub(super) fn record(
        &mut self,
        probed: Probed,
        stands: bool,
        now: UnixMillis,
    ) -> Option<State> {
        let good = probed.failure.is_none();
        self.health.record(good);
        self.results += 1;
        self.last = Some(now);
        if good {
            self.last_good = Some(now);
        }
        self.failure = probed.failure;
        self.certificate_days = probed.certificate_days;
        if let Some(report) = probed.report {
            self.report = Some((report, now));
        }
        let is_pardoned = (stands || self.was_doubted) && self.health.state() == State::Up;
        if is_pardoned {
            self.pardon();
        }
        let change = self.settle(now);
        if is_pardoned {
            self.hold = self.before_fall;
            self.was_doubted = false;
        }
        change
    }

    /// Its last fall is not counted.
    pub(super) const fn pardon(&mut self) {
        self.hold = self.before_fall;
        self.was_doubted = true;
    }

    /// What must be believed now. Returns it if it is new.
    pub(super) fn settle(&mut self, now: UnixMillis) -> Option<State> {
        let is_held = self.state == State::Down && self.hold.until(now).is_some();
        let state = if is_held { State::Down } else { self.health.state() };
        if state == self.state {
            return None;
        }
        match (self.state, state) {
            (State::Up, State::Down) => {
                self.went_down = Some(now);
                self.before_fall = self.hold;
                self.was_doubted = false;
                self.hold.fell(self.damping, now);
            }
            (State::Down, State::Up) => {
                self.went_down = None;
                self.hold.rose(now);
            }
            _ => self.went_down = None,
        }
        (self.state, self.since) = (state, now);
        Some(state)
    }

    /// Until when it stays down although its checks may be good.
    pub(super) fn held_until(&self, now: UnixMillis) -> Option<UnixMillis> {
        self.hold.until(now).filter(|_| self.state == State::Down)
    }

    /// The least time until what is believed can change.
    pub(super) fn soonest_change(&self, now: UnixMillis) -> Duration {
        // Between states nobody should keep an answer for longer than needed.
        let by_results = match self.health.is_wavering() {
            true => Duration::ZERO,
            // The next result may come at once, those after it take their interval.
            false => self.interval * u32::from(self.health.results_to_change().saturating_sub(1)),
        };
        match self.held_until(now) {
            // Its checks are good again: it returns when the hold ends, if they stay so.
            Some(until) if self.health.state() == State::Up => until.since(now),
            Some(until) => until.since(now).max(by_results),
            None => by_results,
        }
    }

    /// What it says of itself, if that is fresh. Who is down says nothing.
    pub(super) fn report(&self, now: UnixMillis) -> Option<&Arc<Report>> {
        let (report, at) = self.report.as_ref()?;
        let is_fresh = now.since(*at) <= self.report_lasts;
        (is_fresh && self.state.is_usable()).then_some(report)
    }

    /// Whether it wants no new clients.
    pub(super) fn is_draining(&self, now: UnixMillis) -> bool {
        let draining = |report: &Arc<Report>| report.state == report::State::Draining;
        self.report(now).is_some_and(draining)
    }

    /// Whether views that were made from its report would be others now. From then on, this is the one they are made of.
    pub(super) fn report_moved(&mut self, now: UnixMillis) -> bool {
        let fresh = self.report(now).cloned();
        let moved = match (&self.shown, &fresh) {
            (Some(before), Some(after)) => differ(before, after),
            (before, after) => before.is_some() != after.is_some(),
        };
        if moved {
            self.shown = fresh;
        }
        moved
    }
}

/// Whether two reports differ by so much that it matters: a percent.
fn differ(a: &Report, b: &Report) -> bool {
    let apart = |a: f64, b: f64| (a - b).abs() >= 0.01;
    let largest = a.egress_bps.abs().max(b.egress_bps.abs());
    a.state != b.state
        || a.protocols != b.protocols
        || apart(a.load, b.load)
        || apart(a.warmth, b.warmth)
        || (a.egress_bps - b.egress_bps).abs() > largest * 0.01
}
