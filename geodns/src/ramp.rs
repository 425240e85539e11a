//! How a datacenter gets its clients back after an outage, and how it gives some up while it has too much load.
//!
//! Two small state machines over values. [`Ramp`] grows a share from little to all; [`Shed`] moves one up and down in
//! bounded steps with hysteresis. Which datacenter, of which policy, and what is seen of it is [`crate::intake`]'s.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::time::UnixMillis;

/// The share that a datacenter gets back at once.
const FIRST: f64 = 0.05;
/// A ramp has this many steps at most.
const STEPS: u32 = 100;
/// And this many at least.
const FEWEST_STEPS: u32 = 4;

/// How a policy lets datacenters return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RampSettings {
    /// From the first share to all. Zero: at once.
    pub length: Duration,
    /// A step lasts at least so long: what is answered during one is true until it ends.
    pub least_step: Duration,
    /// Whether edges tell how warm they are: then one that is silent is not taken for a warm one.
    pub is_told_warmth: bool,
    /// What comes up so soon after the start of the program did not return: it had not been seen yet.
    pub grace: Duration,
}

impl RampSettings {
    fn step(&self) -> Duration {
        let shortest = (self.length / STEPS).max(self.least_step);
        shortest.min(self.length / FEWEST_STEPS).max(Duration::from_millis(1))
    }
}

/// What is known of a datacenter at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Nothing yet.
    Unknown,
    /// It can be answered.
    Up,
    /// It cannot: it is down, too few of its edges are up, or the operator has taken it out.
    Out,
}

/// A datacenter's way back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ramp {
    /// It was not up yet, since the program started.
    #[default]
    Unseen,
    /// It has all its clients.
    In,
    /// It has none.
    Out,
    /// It gets them back.
    Returning {
        /// Since when.
        since: UnixMillis,
        /// The share that it has.
        share: f64,
    },
}

impl Ramp {
    /// Goes on to `now`. `is_alone`: no other datacenter can take its clients. `warmth`: how warm its caches say they
    /// are, 0 to 1.
    ///
    /// The share follows the clock, and during the ramp's length not faster than warmth. From then on warmth matters
    /// less and less, until after twice the length nothing is held back. It never shrinks.
    pub fn advance(
        &mut self,
        settings: &RampSettings,
        status: Status,
        is_alone: bool,
        warmth: Option<f64>,
        since_start: Duration,
        now: UnixMillis,
    ) {
        *self = match (*self, status) {
            (Self::Unseen, Status::Out) if since_start <= settings.grace => Self::Unseen,
            (_, Status::Out) => Self::Out,
            (state, Status::Unknown) => state,
            (Self::Unseen | Self::In, Status::Up) => Self::In,
            (_, Status::Up) if is_alone || settings.length.is_zero() => Self::In,
            (Self::Out, Status::Up) => Self::Returning { since: now, share: FIRST },
            (Self::Returning { since, share }, Status::Up) => {
                let steps = now.since(since).as_millis() / settings.step().as_millis().max(1);
                let passed = settings.step().as_secs_f64() * steps as f64;
                let by_clock = passed / settings.length.as_secs_f64();
                let silent = if settings.is_told_warmth { 0.0 } else { 1.0 };
                let by_warmth = warmth.unwrap_or(silent).max(by_clock - 1.0);
                let grown = (FIRST + (1.0 - FIRST) * by_clock.min(by_warmth)).max(share);
                if grown >= 1.0 { Self::In } else { Self::Returning { since, share: grown } }
            }
        };
    }

    /// The share of its clients that it has back, or would have if it were up.
    pub fn returned(&self, settings: &RampSettings) -> f64 {
        match self {
            Self::Unseen | Self::In => 1.0,
            Self::Out if settings.length.is_zero() => 1.0,
            Self::Out => FIRST,
            Self::Returning { share, .. } => *share,
        }
    }

    /// The time until its next step, while it returns.
    pub fn next_step(&self, settings: &RampSettings, now: UnixMillis) -> Option<Duration> {
        let Self::Returning { since, .. } = self else { return None };
        let step = u64::try_from(settings.step().as_millis()).unwrap_or(u64::MAX).max(1);
        let into = now.0.saturating_sub(since.0) % step;
        Some(Duration::from_millis(step - into))
    }
}

/// Steps of shedding: bounds of one, as a share of all clients.
const LEAST_STEP: f64 = 0.01;
const MOST_STEP: f64 = 0.1;
/// Clients come back more slowly than they go.
const MOST_STEP_BACK: f64 = 0.05;
/// A datacenter keeps some clients, if only to see how it fares.
const MOST_SHED: f64 = 0.95;
/// After so many periods without a word on its load, a datacenter takes its clients back.
const SILENT_PERIODS: u32 = 10;

/// When a policy has datacenters shed clients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShedSettings {
    /// Load above which it gives clients up. 0: never.
    pub above: f64,
    /// Load below which it takes them back.
    pub resume: f64,
    /// The load must be over for so long.
    pub patience: Duration,
    /// From one step to the next: clients need that long to follow an answer.
    pub period: Duration,
}

impl ShedSettings {
    /// What a step aims at: the middle of the band, so that neither noise nor its own effect turns it around.
    const fn aim(&self) -> f64 {
        f64::midpoint(self.above, self.resume)
    }
}

/// How much of its clients a datacenter gives up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shed {
    share: f64,
    /// Its load, smoothed over a part of a period.
    load: Option<f64>,
    sampled: Option<UnixMillis>,
    over_since: Option<UnixMillis>,
    stepped: Option<UnixMillis>,
}

impl Shed {
    /// Goes on to `now`. `has_room`: another datacenter can take clients without being over its threshold.
    pub fn advance(
        &mut self,
        settings: &ShedSettings,
        load: Option<f64>,
        has_room: bool,
        now: UnixMillis,
    ) {
        if settings.above <= 0.0 {
            *self = Self::default();
            return;
        }
        self.smooth(settings, load, now);
        let known = self.load.unwrap_or(0.0);
        // One loud moment that is over weighs on the mean for a while, and is no reason.
        let is_over = known > settings.above && load.is_none_or(|load| load >= settings.resume);
        match is_over {
            true => _ = self.over_since.get_or_insert(now),
            false => self.over_since = None,
        }
        if self.wait(settings, now) > Duration::ZERO {
            return;
        }
        let kept = 1.0 - self.share;
        let step = if self.over_since.is_some() {
            if !has_room {
                return;
            }
            (kept * (1.0 - settings.aim() / known)).clamp(LEAST_STEP, MOST_STEP)
        } else if self.share > 0.0 && known < settings.resume {
            // No more than would still leave it in the band.
            let room = kept * (settings.aim() / known.max(0.001) - 1.0);
            -room.clamp(LEAST_STEP, MOST_STEP_BACK)
        } else {
            return;
        };
        let share = (self.share + step).min(MOST_SHED);
        self.share = if share < LEAST_STEP { 0.0 } else { share };
        self.stepped = Some(now);
    }

    fn smooth(&mut self, settings: &ShedSettings, load: Option<f64>, now: UnixMillis) {
        let Some(load) = load else {
            let silent = self
                .sampled
                .is_none_or(|at| now.since(at) > settings.period.saturating_mul(SILENT_PERIODS));
            if silent {
                self.load = None;
            }
            return;
        };
        let apart = self.sampled.map_or(Duration::ZERO, |at| now.since(at)).as_secs_f64();
        let memory = (settings.period.as_secs_f64() / 4.0).max(0.001);
        let weight = 1.0 - (-apart / memory).exp();
        self.load = Some(self.load.map_or(load, |before| before + (load - before) * weight));
        self.sampled = Some(now);
    }

    /// The time until a step may come, if the load stays as it is.
    fn wait(&self, settings: &ShedSettings, now: UnixMillis) -> Duration {
        let left = |since: Option<UnixMillis>, length: Duration| {
            since.map_or(Duration::ZERO, |since| length.saturating_sub(now.since(since)))
        };
        left(self.stepped, settings.period).max(left(self.over_since, settings.patience))
    }

    /// The time until its next step, while there is reason for one.
    pub fn next_step(&self, settings: &ShedSettings, now: UnixMillis) -> Option<Duration> {
        let returns = self.share > 0.0 && self.load.unwrap_or(0.0) < settings.resume;
        (self.over_since.is_some() || returns).then(|| self.wait(settings, now))
    }

    /// Has it take all its clients at once, because there is nobody else.
    pub const fn stop(&mut self) {
        self.share = 0.0;
        self.stepped = None;
    }

    /// The share of its clients that it gives up.
    pub const fn share(&self) -> f64 {
        self.share
    }

    /// Whether its load, as far as it is known, leaves room for others' clients.
    pub fn has_room(&self, settings: &ShedSettings) -> bool {
        self.share == 0.0 && self.load.is_none_or(|load| load < settings.above)
    }

    /// Its load, smoothed.
    pub const fn load(&self) -> Option<f64> {
        self.load
    }
}

#[cfg(test)]
mod tests;
