//! The sample of what a node is asked, on its way to a thread of its own that makes predictions of it
//! ([`crate::predict::live`]).
//!
//! A request pays two additions to what its own thread counts, and one comparison of its key's hash. Those of the sample,
//! one in hundreds on a busy node, are put into a list of its thread's, which the predicting thread looks for ten times a
//! second, so that nobody wakes it; what finds the list full is lost, and counted. How much work that thread makes of it is
//! bounded, see [`crate::predict::live`].

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shared::metrics::{Family, Registry};

use crate::predict::Tally;
use crate::predict::live::{Fate, Predictor, Report, Seen, Shape, is_taken};

/// Requests of the sample that wait in each part.
const WAITING: usize = 2048;
/// Serving threads count in parts of their own, as long as they are no more than these.
const PARTS: usize = 16;
/// How often the thread looks for requests.
const LOOK: Duration = Duration::from_millis(100);

const RATIO: Family = Family {
    name: "edge_cache_predicted_hit_ratio",
    help: "Share of requests (of=\"objects\") or bytes (of=\"bytes\") of the last hour that this node would answer with the tier at this scale of its size, under the policy.",
    labels: &["tier", "policy", "scale", "of"],
};
const WORKING_SET: Family = Family {
    name: "edge_cache_working_set_bytes",
    help: "Bytes of the different objects that were asked for in the last hour or day, estimated from a sample.",
    labels: &["over"],
};
const SAMPLED: Family = Family {
    name: "edge_cache_prediction_sampled_ratio",
    help: "Share of the cache keys that predictions are made of.",
    labels: &[],
};
const LOST: Family = Family {
    name: "edge_cache_prediction_lost_total",
    help: "Sampled requests that predictions have not seen, because they came too fast.",
    labels: &[],
};

/// Sums of requests. Of two numbers each, so that a hit adds to two only.
#[derive(Debug, Default)]
struct Sums {
    requests: AtomicU64,
    bytes: AtomicU64,
    missed: AtomicU64,
    missed_bytes: AtomicU64,
}

/// What some of the serving threads, mostly one, have told, in cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Part {
    all: Sums,
    /// Of the sample, those that were not simulated because they came too fast.
    lost: Sums,
    /// Requests for sampled keys.
    turn: AtomicU64,
    waiting: Mutex<Vec<Seen>>,
}

/// What is wanted of them.
#[derive(Debug)]
#[repr(align(128))]
struct Wanted {
    /// Keys up to this one.
    bound: AtomicU64,
    /// One request of two to this many.
    thinned: AtomicU32,
}

#[derive(Debug)]
struct Told {
    parts: [Part; PARTS],
    wanted: Wanted,
}

/// What the serving threads and the predicting one share.
#[derive(Debug)]
pub struct Predicting {
    told: Arc<Told>,
    predictor: Arc<Mutex<Predictor>>,
    /// The thread ends with it.
    _alive: Sender<()>,
}

impl Predicting {
    /// Starts the thread; it ends when this is dropped.
    ///
    /// # Errors
    /// There can be no more threads.
    pub fn start(shape: Shape) -> std::io::Result<Self> {
        let predictor = Predictor::new(shape);
        let wanted = Wanted {
            bound: AtomicU64::new(predictor.bound()),
            thinned: AtomicU32::new(predictor.thinned()),
        };
        let told = Arc::new(Told { parts: Default::default(), wanted });
        let predictor = Arc::new(Mutex::new(predictor));
        let (alive, ended) = channel();
        let thread = Thread {
            predictor: Arc::clone(&predictor),
            told: Arc::clone(&told),
            began: Instant::now(),
        };
        std::thread::Builder::new().name("predict".to_owned()).spawn(move || {
            let mut seen = Vec::new();
            while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                thread.look(&mut seen);
            }
        })?;
        Ok(Self { told, predictor, _alive: alive })
    }

    /// A request has been answered. `size`: bytes of its object, as far as they are known; `sent`: bytes sent.
    #[inline]
    pub fn note(&self, key: u128, size: u64, sent: u64, fate: Fate) {
        let Some(part) = self.told.parts.get(part()) else { return };
        part.all.add(1, sent, fate);
        // The lower half: the store's tables lie by the upper one.
        let (key, wanted) = (key as u64, &self.told.wanted);
        if key <= wanted.bound.load(Ordering::Relaxed) {
            part.note(Seen { key, size, sent, fate, of: 1 }, wanted);
        }
    }

    /// What was predicted when the thread last looked.
    pub fn report(&self) -> Report {
        lock(&self.predictor).report()
    }

    /// Sets the gauges.
    pub fn collect(&self, registry: &Registry) {
        let report = self.report();
        for prediction in &report.predictions {
            let labels =
                [prediction.tier.name(), &prediction.policy, &prediction.scale.to_string()];
            let [tier, policy, scale] = labels;
            let ratios = prediction.ratios;
            for (of, ratio) in [("objects", ratios.objects), ("bytes", ratios.bytes)] {
                registry.gauge(&RATIO, &[tier, policy, scale, of]).set(ratio);
            }
        }
        registry.gauge(&WORKING_SET, &["1h"]).set(report.working_set_hour);
        registry.gauge(&WORKING_SET, &["24h"]).set(report.working_set_day);
        registry.gauge(&SAMPLED, &[]).set(report.sampled);
        let lost = registry.counter(&LOST, &[]);
        lost.add(report.lost.saturating_sub(lost.get()));
    }
}

impl Part {
    /// A request for a key of the sample.
    fn note(&self, seen: Seen, wanted: &Wanted) {
        let thinned = wanted.thinned.load(Ordering::Relaxed);
        if !is_taken(self.turn.fetch_add(1, Ordering::Relaxed), thinned) {
            return;
        }
        let seen = Seen { of: 1 << thinned, ..seen };
        let mut waiting = lock(&self.waiting);
        if waiting.len() < WAITING {
            waiting.push(seen);
        } else {
            drop(waiting);
            self.lost.add(seen.of.into(), seen.sent, seen.fate);
        }
    }
}

impl Sums {
    fn add(&self, times: u64, sent: u64, fate: Fate) {
        self.requests.fetch_add(times, Ordering::Relaxed);
        self.bytes.fetch_add(sent * times, Ordering::Relaxed);
        if fate != Fate::Hit {
            self.missed.fetch_add(times, Ordering::Relaxed);
            self.missed_bytes.fetch_add(sent * times, Ordering::Relaxed);
        }
    }

    /// Added to others.
    fn tally(&self, to: Tally) -> Tally {
        let get = |sum: &AtomicU64| sum.load(Ordering::Relaxed) as f64;
        let (requests, bytes) = (get(&self.requests), get(&self.bytes));
        Tally {
            requests: to.requests + requests,
            bytes: to.bytes + bytes,
            hits: to.hits + (requests - get(&self.missed)).max(0.0),
            hit_bytes: to.hit_bytes + (bytes - get(&self.missed_bytes)).max(0.0),
        }
    }
}

impl Told {
    /// All requests but those that the lost ones stand for, and how many were lost.
    fn tally(&self, bound: u64) -> (Tally, u64) {
        let all = self.parts.iter().fold(Tally::default(), |sum, part| part.all.tally(sum));
        let lost = self.parts.iter().fold(Tally::default(), |sum, part| part.lost.tally(sum));
        let weight = u64::MAX as f64 / bound.max(1) as f64;
        let rest = |all: f64, lost: f64| (all - lost * weight).max(0.0);
        let (requests, bytes) = (rest(all.requests, lost.requests), rest(all.bytes, lost.bytes));
        let rest = Tally {
            requests,
            bytes,
            hits: rest(all.hits, lost.hits).min(requests),
            hit_bytes: rest(all.hit_bytes, lost.hit_bytes).min(bytes),
        };
        (rest, lost.requests as u64)
    }
}

struct Thread {
    predictor: Arc<Mutex<Predictor>>,
    told: Arc<Told>,
    began: Instant,
}

impl Thread {
    /// Takes what waits. `seen` is room for it, and empty again afterwards.
    fn look(&self, seen: &mut Vec<Seen>) {
        // First: what comes meanwhile is in the next sums.
        let (all, lost) = self.told.tally(lock(&self.predictor).bound());
        for part in &self.told.parts {
            std::mem::swap(&mut *lock(&part.waiting), seen);
            for seen in seen.drain(..) {
                // Given back each time: those who ask for a report wait for one request at most.
                let mut predictor = lock(&self.predictor);
                predictor.sampled(&seen, self.began.elapsed());
                self.want(&predictor);
            }
        }
        let mut predictor = lock(&self.predictor);
        predictor.tick(self.began.elapsed(), all, lost);
        self.want(&predictor);
    }

    fn want(&self, predictor: &Predictor) {
        self.told.wanted.bound.store(predictor.bound(), Ordering::Relaxed);
        self.told.wanted.thinned.store(predictor.thinned(), Ordering::Relaxed);
    }
}

/// A panic elsewhere leaves what is locked whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Which part this thread counts in.
fn part() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: usize = THREADS.fetch_add(1, Ordering::Relaxed) % PARTS;
    }
    OWN.try_with(|own| *own).unwrap_or_default()
}
