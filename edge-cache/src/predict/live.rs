//! A node's prediction of itself: what it would answer at other sizes and under other policies, from a small sample of
//! what it is being asked.
//!
//! The sample is one of keys, with all requests for each, so that a simulated node is the real one at a smaller scale. It
//! begins with all keys, and loses half of them whenever the largest of the simulated nodes has more objects than
//! [`Shape::most`], or when it takes too much time (`work`). It never grows again: then a node would have to forget what it
//! knows. Of so few keys that the ratios would be guesses if they were fewer, one request of two, four, … is simulated
//! instead, for as long as it has to be.
//!
//! All ratios are those of the last hour, or of what there was of it.

mod fate;
mod work;

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::config::EdgeSpec;

pub use fate::Fate;
use work::Work;
pub use work::is_taken;

use super::advice::per_gib;
use super::memory::MOST_SEGMENTS;
use super::plot::size;
use super::sim::{Answer, DiskSetup, SEGMENT_SIZE, Setup, Sim, policy_of};
use super::{Ratios, Tally};
use crate::store::policy::Kind;

/// Sizes that are simulated, in those of the node.
pub const SCALES: [f64; 5] = [0.25, 0.5, 1.0, 2.0, 4.0];
/// Fewer objects in the largest node and the ratios would be guesses.
const FEWEST: usize = 1024;
/// Of no more requests than two to this is one simulated.
const THINNEST: u32 = 16;
/// Ratios are of so many parts of [`PART`].
const PARTS: usize = 12;
const PART: Duration = Duration::from_secs(300);
/// Different objects whose last request is kept, for the working set.
const MOST_KNOWN: usize = 16 << 10;
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// A prediction of the node as it is may be off by so much.
const TOLERANCE: f64 = 0.015;
/// A disk is not begun with more keys than it has room for at this size of an object: its tables are made for all of it.
const LARGE_OBJECT: u64 = 256 << 10;
/// Fewer requests prove nothing.
const ENOUGH: f64 = 1000.0;

/// The node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Bytes of its memory tier.
    pub memory: u64,
    /// Its disks together.
    pub disk: Option<DiskSetup>,
    /// Its policy. None: one that cannot be simulated.
    pub policy: Option<Kind>,
    /// Bytes of its segments.
    pub segment: u64,
    /// Entries of the largest simulated node.
    pub most: usize,
}

impl Shape {
    /// An edge of the configuration, with so much memory for what it stores.
    pub fn of(edge: &EdgeSpec, memory: u64) -> Self {
        let shape = Self::new(memory, DiskSetup::of(edge), policy_of(edge));
        Self { segment: edge.segment.0, ..shape }
    }

    /// With segments of the usual size, and as many entries as 12 to 16 MiB have room for.
    pub const fn new(memory: u64, disk: Option<DiskSetup>, policy: Option<Kind>) -> Self {
        let most = if disk.is_some() { 8 << 10 } else { 12 << 10 };
        Self { memory, disk, policy, segment: SEGMENT_SIZE, most }
    }
}

/// A request of a sampled key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The key's hash.
    pub key: u64,
    /// Bytes of the object, as far as they are known.
    pub size: u64,
    /// Bytes that were sent.
    pub sent: u64,
    /// What became of it.
    pub fate: Fate,
    /// Of how many requests for sampled keys it is one, the others of which are not simulated.
    pub of: u32,
}

/// Which tier of a simulated node is another than the node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// Memory.
    Memory,
    /// Disk.
    Disk,
}

impl Tier {
    /// As a label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
        }
    }
}

#[derive(Debug)]
struct Candidate {
    tier: Tier,
    scale: f64,
    setup: Setup,
    sim: Sim,
    tally: Tally,
}

impl Candidate {
    fn new(shape: &Shape, tier: Tier, scale: f64, policy: Kind, share: f64) -> Self {
        let of = |tier_here: Tier| if tier_here == tier { scale } else { 1.0 };
        let times = |bytes: u64, scale: f64| (bytes as f64 * scale).round() as u64;
        let on_disk = of(Tier::Disk);
        let disk = shape.disk.map(|disk| DiskSetup {
            size: times(disk.size, on_disk),
            daily_writes: times(disk.daily_writes, on_disk),
        });
        let memory = times(shape.memory, of(Tier::Memory));
        let segment = shape.segment;
        let setup = Setup { policy, memory, disk, segment, ttl: None };
        Self { tier, scale, setup, sim: Sim::new(&setup.scaled(share)), tally: Tally::default() }
    }

    /// A request that stands for `weight` of them.
    fn count(&mut self, seen: &Seen, now: Duration, weight: f64) {
        let mut answer = Answer::NONE;
        match seen.fate {
            Fate::Hit | Fate::Absent => answer = self.sim.request(seen.key, seen.size, now),
            Fate::Renewed => self.sim.renew(seen.key, seen.size, now),
            Fate::Unstored => {}
        }
        let had = answer.had(seen.sent, seen.size);
        self.tally.count_part(answer.is_hit(), seen.sent, had, weight);
    }

    /// How full the tier is that is another, or the one that fills last.
    fn full(&self, share: f64) -> f64 {
        match self.setup.disk {
            Some(disk) => self.sim.disk_full((disk.size as f64 * share) as u64),
            None => self.sim.memory_full(),
        }
        .min(1.0)
    }
}

/// The prediction.
#[derive(Debug)]
pub struct Predictor {
    shape: Shape,
    candidates: Vec<Candidate>,
    halved: u32,
    /// Of two to this many sampled requests, one is simulated.
    thinned: u32,
    now: Duration,
    /// The simulated nodes' time, which passes more slowly where they are asked for less: what a disk may write in a day
    /// is for all requests.
    simulated: Duration,
    work: Work,
    known: WorkingSet,
    /// All requests, and what each candidate has counted, at the ends of the last parts.
    past: VecDeque<(Duration, Tally, Vec<Tally>)>,
    all: Tally,
    lost: u64,
}

impl Predictor {
    /// Knows nothing yet.
    pub fn new(shape: Shape) -> Self {
        let most = shape.most as u64 * LARGE_OBJECT;
        let largest = shape.disk.map_or(0, |disk| disk.size.saturating_mul(4));
        let halved = (largest / most.max(1)).checked_ilog2().map_or(0, |halved| halved + 1);
        let used = shape.policy.unwrap_or(Kind::Lru);
        let mut candidates = Vec::new();
        for policy in Kind::ALL {
            for scale in SCALES {
                // Over a disk the policy of the memory matters little: the others are compared at the node's size only.
                if shape.disk.is_none() || policy == used || scale == 1.0 {
                    candidates.push(Candidate::new(
                        &shape,
                        Tier::Memory,
                        scale,
                        policy,
                        share(halved),
                    ));
                }
            }
        }
        if shape.disk.is_some() {
            for scale in SCALES.into_iter().filter(|scale| *scale != 1.0) {
                candidates.push(Candidate::new(&shape, Tier::Disk, scale, used, share(halved)));
            }
        }
        Self {
            shape,
            candidates,
            halved,
            thinned: 0,
            now: Duration::ZERO,
            simulated: Duration::ZERO,
            work: Work::new(),
            known: WorkingSet::default(),
            past: VecDeque::new(),
            all: Tally::default(),
            lost: 0,
        }
    }

    /// Keys above this are not in the sample.
    pub const fn bound(&self) -> u64 {
        bound(self.halved)
    }

    /// Of how many requests for sampled keys one is wanted, as a power of two.
    pub const fn thinned(&self) -> u32 {
        self.thinned
    }

    fn share(&self) -> f64 {
        share(self.halved)
    }

    /// A request of a sampled key, at a time since the start.
    pub fn sampled(&mut self, seen: &Seen, at: Duration) {
        self.pass(at);
        // The sample may have become smaller since.
        if seen.key > self.bound() {
            return;
        }
        let weight = f64::from(seen.of.max(1)) / self.share();
        for candidate in &mut self.candidates {
            candidate.count(seen, self.simulated, weight);
        }
        if seen.fate != Fate::Unstored {
            self.known.note(seen, self.now, self.halved);
        }
        // Each segment is looked up, too.
        self.work.spend(seen.size.div_ceil(self.shape.segment.max(1)).clamp(1, MOST_SEGMENTS));
        let largest = self.candidates.iter().map(|candidate| candidate.sim.entries());
        let largest = largest.map(|(memory, disk)| memory.max(disk)).max().unwrap_or_default();
        let is_too_much = self.work.is_too_much();
        if largest > self.shape.most || (is_too_much && largest > FEWEST) {
            self.halve();
        } else if is_too_much {
            self.thinned = (self.thinned + 1).min(THINNEST);
            self.work.begin(self.now);
        }
    }

    /// It is later now.
    fn pass(&mut self, at: Duration) {
        let passed = at.saturating_sub(self.now);
        self.now += passed;
        self.simulated += passed / (1 << self.thinned);
    }

    fn halve(&mut self) {
        self.halved += 1;
        self.work.begin(self.now);
        let (bound, share) = (self.bound(), self.share());
        for candidate in &mut self.candidates {
            candidate.sim.thin(&candidate.setup.scaled(share), |key| key <= bound);
        }
    }

    /// What all requests have been so far, sampled or not, and how many of the sampled were lost on their way here. Comes
    /// some times in a second.
    pub fn tick(&mut self, at: Duration, all: Tally, lost: u64) {
        self.pass(at);
        (self.all, self.lost) = (all, lost);
        self.work.earn(self.now, &all);
        if self.work.has_room(self.now) {
            self.thinned = self.thinned.saturating_sub(1);
        }
        let due = self.past.back().is_none_or(|(last, ..)| self.now.saturating_sub(*last) >= PART);
        if due {
            let tallies = self.candidates.iter().map(|candidate| candidate.tally).collect();
            self.past.push_back((self.now, all, tallies));
            if self.past.len() > PARTS {
                self.past.pop_front();
            }
        }
    }

    /// What is predicted now.
    pub fn report(&self) -> Report {
        let (since, all, tallies) = match self.past.front() {
            // What came before the first tick counts, while that is within the hour.
            Some((since, all, tallies)) if self.past.len() >= PARTS => {
                (*since, *all, Some(tallies))
            }
            _ => (Duration::ZERO, Tally::default(), None),
        };
        let all = self.all.since(&all);
        let share = self.share();
        let predictions = self.candidates.iter().enumerate().map(|(at, candidate)| {
            let before = tallies.and_then(|tallies| tallies.get(at)).copied().unwrap_or_default();
            let ratios = candidate.tally.since(&before).of_sample(&all).unwrap_or_default();
            let bytes = match candidate.tier {
                Tier::Memory => candidate.setup.memory,
                Tier::Disk => candidate.setup.disk.map_or(0, |disk| disk.size),
            };
            Prediction {
                tier: candidate.tier,
                policy: candidate.setup.policy.name().to_owned(),
                scale: candidate.scale,
                size: bytes,
                ratios,
                full: candidate.full(share),
            }
        });
        let mut report = Report {
            seconds: self.now.saturating_sub(since).as_secs_f64(),
            requests: all.requests,
            bytes: all.bytes,
            live: all.ratios().unwrap_or_default(),
            policy: self.shape.policy.map(|policy| policy.name().to_owned()),
            memory: self.shape.memory,
            disk: self.shape.disk.map_or(0, |disk| disk.size),
            sampled: share,
            lost: self.lost,
            predictions: predictions.collect(),
            working_set_hour: self.known.unique(self.now, HOUR),
            working_set_day: self.known.unique(self.now, DAY),
            error: None,
            advice: Vec::new(),
        };
        report.error = report.here().map(|here| Ratios {
            objects: here.ratios.objects - report.live.objects,
            bytes: here.ratios.bytes - report.live.bytes,
        });
        report.advice = report.sentences();
        report
    }
}

/// Which share of the keys is left.
fn share(halved: u32) -> f64 {
    0.5_f64.powi(halved.cast_signed())
}

const fn bound(halved: u32) -> u64 {
    match u64::MAX.checked_shr(halved) {
        Some(bound) => bound,
        None => 0,
    }
}

/// Who was asked for lately, of a sample of its own.
#[derive(Debug, Default)]
struct WorkingSet {
    last: HashMap<u64, (u32, u64)>,
    halved: u32,
}

impl WorkingSet {
    fn note(&mut self, seen: &Seen, now: Duration, halved: u32) {
        self.halved = self.halved.max(halved);
        if seen.key > bound(self.halved) {
            return;
        }
        let secs = u32::try_from(now.as_secs()).unwrap_or(u32::MAX);
        let known = self.last.entry(seen.key).or_default();
        *known = (secs, known.1.max(seen.size));
        if self.last.len() > MOST_KNOWN {
            let day = secs.saturating_sub(u32::try_from(DAY.as_secs()).unwrap_or(u32::MAX));
            self.last.retain(|_, (at, _)| *at >= day);
            // Whoever is asked for next must not go through all of them again.
            if self.last.len() > MOST_KNOWN * 9 / 10 {
                self.halved += 1;
                let bound = bound(self.halved);
                self.last.retain(|key, _| *key <= bound);
            }
        }
    }

    /// Bytes of the different objects of the last so long.
    fn unique(&self, now: Duration, length: Duration) -> f64 {
        let since = now.saturating_sub(length).as_secs();
        let bound = bound(self.halved);
        let lately =
            self.last.iter().filter(|(key, (at, _))| **key <= bound && u64::from(*at) >= since);
        let bytes: u64 = lately.map(|(_, (_, size))| size).sum();
        bytes as f64 * 2.0_f64.powi(self.halved.cast_signed())
    }
}

/// What one simulated node would answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// The tier that is of another size.
    pub tier: Tier,
    /// The memory tier's policy.
    pub policy: String,
    /// Its size, in that of the node.
    pub scale: f64,
    /// Its size in bytes.
    pub size: u64,
    /// Shares of requests and bytes.
    #[serde(flatten)]
    pub ratios: Ratios,
    /// How full it is yet, 0 to 1: with less than all the ratios are too low.
    pub full: f64,
}

/// `GET /v1/advise`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Over how long this is, in seconds.
    pub seconds: f64,
    /// Requests that a cache could answer.
    pub requests: f64,
    /// Bytes of them.
    pub bytes: f64,
    /// What the node itself answered.
    pub live: Ratios,
    /// The node's policy. None: one that cannot be simulated.
    pub policy: Option<String>,
    /// Bytes of its memory tier.
    pub memory: u64,
    /// Bytes of its disks.
    pub disk: u64,
    /// Share of the keys that the sample has.
    pub sampled: f64,
    /// Sampled requests that were lost, because they came too fast.
    pub lost: u64,
    /// What would be.
    pub predictions: Vec<Prediction>,
    /// Bytes of the different objects of the last hour.
    pub working_set_hour: f64,
    /// And of the last day.
    pub working_set_day: f64,
    /// By how much the prediction of the node as it is differs from what it does. None: it cannot be simulated.
    pub error: Option<Ratios>,
    /// In words.
    pub advice: Vec<String>,
}

impl Report {
    fn find(&self, tier: Tier, scale: f64) -> Option<&Prediction> {
        let policy = self.policy.as_deref()?;
        self.predictions.iter().find(|prediction| {
            prediction.tier == tier && prediction.scale == scale && prediction.policy == policy
        })
    }

    /// The node as it is.
    fn here(&self) -> Option<&Prediction> {
        self.find(Tier::Memory, 1.0)
    }

    fn sentences(&self) -> Vec<String> {
        let mut said = Vec::new();
        if self.requests < ENOUGH {
            said.push(format!(
                "Only {:.0} requests so far: ask again after some thousand.",
                self.requests
            ));
            return said;
        }
        if self.lost as f64 > self.requests * self.sampled / 100.0 {
            said.push(format!("{} sampled requests were lost: the figures are rough.", self.lost));
        }
        let Some(here) = self.here() else {
            said.push("The node's own policy cannot be simulated; the others are.".to_owned());
            return said;
        };
        if let Some(error) = self.error
            && (error.objects.abs() > TOLERANCE || error.bytes.abs() > TOLERANCE)
        {
            said.push(format!(
                "The node as it is would be predicted {:+.1} points off in requests and {:+.1} in bytes: the others may be off as \
                 much. A node that was started lately, or whose objects expire, is not yet what is simulated.",
                error.objects * 100.0,
                error.bytes * 100.0
            ));
        }
        for (tier, word) in [(Tier::Memory, "memory"), (Tier::Disk, "disk")] {
            for (scale, what) in [(2.0, "Twice"), (4.0, "Four times"), (0.5, "Half")] {
                if let Some(there) = self.find(tier, scale) {
                    said.push(self.change(here, there, &format!("{what} the {word}")));
                }
            }
        }
        let others = self.predictions.iter().filter(|other| {
            other.tier == Tier::Memory && other.scale == 1.0 && other.policy != here.policy
        });
        for other in others {
            let objects = (other.ratios.objects - here.ratios.objects) * 100.0;
            let bytes = (other.ratios.bytes - here.ratios.bytes) * 100.0;
            said.push(format!(
                "With policy {} instead of {}: {objects:+.1} points of requests, {bytes:+.1} of bytes.",
                other.policy, here.policy
            ));
        }
        said
    }

    /// What another size would give.
    fn change(&self, here: &Prediction, there: &Prediction, what: &str) -> String {
        let from = match there.tier {
            Tier::Memory => self.memory,
            Tier::Disk => self.disk,
        } as f64;
        let objects = (there.ratios.objects - here.ratios.objects) * 100.0;
        let bytes = (there.ratios.bytes - here.ratios.bytes) * 100.0;
        let mut text = format!(
            "{what} ({}): {objects:+.1} points of requests, {bytes:+.1} of bytes",
            size(there.size as f64)
        );
        if there.scale > 1.0 {
            let each = |here: f64, there_ratio: f64| {
                per_gib((from, here), (there.size as f64, there_ratio))
            };
            text += &format!(
                "; that is {:.2} and {:.2} for each GiB",
                each(here.ratios.objects, there.ratios.objects),
                each(here.ratios.bytes, there.ratios.bytes)
            );
            if there.full < 0.95 && self.working_set_day < there.size as f64 {
                text += "; all that is asked for in a day has room in it";
            } else if there.full < 0.95 {
                text += &format!(
                    "; at least, for simulated it is {:.0} % full so far",
                    there.full * 100.0
                );
            }
        }
        text + "."
    }

    /// For people.
    pub fn words(&self) -> String {
        use super::report::aligned;
        let share = |share: f64| format!("{:.1} %", share * 100.0);
        let mut text = format!(
            "{:.0} requests in {}, {} of them answered here, {} of their bytes\n",
            self.requests,
            super::plot::time(self.seconds),
            share(self.live.objects),
            share(self.live.bytes)
        );
        text += &format!(
            "different objects of the last hour {}, of the last day {}; sampled {} of the keys\n\n",
            size(self.working_set_hour),
            size(self.working_set_day),
            share(self.sampled)
        );
        let mut rows = vec![
            ["TIER", "SIZE", "POLICY", "OBJECT HITS", "BYTE HITS", "FULL"]
                .map(str::to_owned)
                .to_vec(),
        ];
        for prediction in &self.predictions {
            let is_here = self.here() == Some(prediction);
            rows.push(vec![
                prediction.tier.name().to_owned(),
                size(prediction.size as f64),
                format!("{}{}", prediction.policy, if is_here { " (now)" } else { "" }),
                share(prediction.ratios.objects),
                share(prediction.ratios.bytes),
                format!("{:.0} %", prediction.full * 100.0),
            ]);
        }
        text += &aligned(&rows);
        text.push('\n');
        for line in &self.advice {
            text += &format!("{line}\n");
        }
        text
    }
}

#[cfg(test)]
mod tests;
